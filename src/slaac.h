/*
** SLAAC: what a host learns from the routers on its link (RFC 4861 §6.3): a default route, prefixes with which it forms
** addresses (RFC 4862 §5.5), name servers (RFC 8106), the link's mtu. It asks until a router has answered (RFC 7559).
** On other media than an Ethernet there is no duplicate address detection, and no router is found to be silent.
*/
#ifndef NST_SLAAC_H
#define NST_SLAAC_H

#include "heap.h"
#include "interface.h"

#define NST_SLAAC_ROUTERS 4
#define NST_SLAAC_PREFIXES 16
#define NST_SLAAC_SERVERS 3

typedef struct nst_slaac_router {
  ip_addr_t address;
  nst_time until;
  int preference;    /* RFC 4191 §2.1: 1 high, 0 medium, -1 low */
  bool unreachable;  /* as a neighbour, and has not been heard of since */
} nst_slaac_router;

typedef struct nst_slaac_prefix {
  nst_prefix prefix;
  bool on_link;           /* there is a route; else its hosts are reached by a router */
  nst_time on_link_until;
  ip_addr_t address;      /* ours */
  nst_time preferred_until, valid_until; /* of the address; valid_until past: there is none */
  unsigned duplicates;    /* addresses that somebody else had */
} nst_slaac_prefix;

typedef struct nst_slaac_server {
  ip_addr_t address;
  nst_time until;
} nst_slaac_server;

struct nst_slaac {
  nst_time at;              /* when to do something next */
  nst_time solicit_at;      /* NST_NEVER: a router has answered */
  nst_time interval;        /* between the last two solicitations; 0: there was none */
  nst_slaac_router routers[NST_SLAAC_ROUTERS];
  size_t router_count;
  ip_addr_t gateway;        /* of our default route; of type ANY: none */
  nst_slaac_prefix prefixes[NST_SLAAC_PREFIXES];
  size_t prefix_count;
  nst_slaac_server servers[NST_SLAAC_SERVERS];
  size_t server_count;
  uint16_t mtu;             /* 0: no router has named one */
  uint64_t ignored;         /* advertisements and options that made no sense */
  uint64_t limited_routers, limited_prefixes, limited_servers; /* for which there was no room */
};

/* Inside the stack. NST_NOT_SUPPORTED: no device, or no IPv6 on it; NST_NO_MEMORY. */
nst_error nst_slaac_start(nst_interface *interface);
/* Forgets all; addresses and routes go with the interface. */
void nst_slaac_stop(nst_interface *interface);
/* Inside the stack. The device is gone, and with it what was learned. */
void nst_slaac_lose(nst_interface *interface);
/* Asks for routers, from the start. */
void nst_slaac_solicit(nst_interface *interface);
/* Inside the stack. A router advertisement that the guard let pass, in an IPv6 packet of that length. */
void nst_slaac_input(nst_interface *interface, const uint8_t *ip, size_t length);
/* Inside the stack. An address that was formed is somebody else's, and off the interface. */
void nst_slaac_duplicate(nst_interface *interface, const ip_addr_t *address);
/* A neighbour does not answer any more. */
void nst_slaac_unreachable(nst_interface *interface, const ip_addr_t *neighbour);
/* Whether an address has been formed. */
bool nst_slaac_has_address(const nst_interface *interface);
/* Inside the stack. Does what is due; true when there was anything. */
bool nst_slaac_run(nst_stack *stack);
nst_time nst_slaac_next(const nst_stack *stack);

#endif
