/*
** DHCP (RFC 2131) for an interface on an Ethernet: asks for an IPv4 address, and with it the gateway and DNS servers,
** and renews the lease as time comes. What a server says is heeded when it answers our question and makes sense.
*/
#ifndef NST_DHCP_H
#define NST_DHCP_H

#include "heap.h"
#include "interface.h"
#include "packet.h"

#define NST_DHCP_SERVERS 3

typedef enum nst_dhcp_state {
  NST_DHCP_SELECTING,  /* looking for servers */
  NST_DHCP_REQUESTING, /* asking one for what it offered */
  NST_DHCP_BOUND,
  NST_DHCP_RENEWING,   /* asking the server that gave the lease */
  NST_DHCP_REBINDING   /* asking any server */
} nst_dhcp_state;

struct nst_dhcp {
  nst_dhcp_state state;
  nst_time at;                     /* when to do something next */
  nst_time renew_at, rebind_at, ends_at; /* of the lease; NST_NEVER */
  uint32_t xid;
  unsigned tries;
  uint8_t offered[4], server[4], gateway[4]; /* 0: none */
  uint8_t bits;                    /* of the prefix */
  uint8_t dns[NST_DHCP_SERVERS][4];
  size_t dns_count;
  bool has_address;                /* `offered` is the interface's now */
  uint64_t ignored;                /* messages that made no sense */
};

/* Inside the stack. false: no memory. */
bool nst_dhcp_start(nst_interface *interface);
/* Forgets all; the address goes with the interface. */
void nst_dhcp_stop(nst_interface *interface);
/* Inside the stack. Gives address, gateway and name servers up, and is to ask for others. */
void nst_dhcp_lose(nst_interface *interface);
const char *nst_dhcp_state_name(const nst_dhcp *dhcp);
/* Whether an IPv4 packet is for a DHCP client; the guard let it pass. */
bool nst_is_dhcp(const uint8_t *packet, size_t length);
/* Inside the stack. Takes the packet over. */
void nst_dhcp_input(nst_interface *interface, nst_packet *packet);
/* Inside the stack. Does what is due; true when there was anything. */
bool nst_dhcp_run(nst_stack *stack);
nst_time nst_dhcp_next(const nst_stack *stack);

#endif
