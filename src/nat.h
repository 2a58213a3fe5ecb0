/*
** Masquerading: an interface of a router gives the IPv4 packets that leave through it its own address and a port of
** that, and answers find their way back (RFC 4787, RFC 5382, RFC 5508).
**
** A mapping joins an endpoint inside, a host's address and port, with a port outside, the same for whomever the host
** talks to (RFC 4787 REQ-1). A session is one such talk. Only who was talked to may come in, from the port that was
** talked to (address and port-dependent filtering): what nobody inside asked for stays outside, as with what routers
** commonly do, and hosts that both send to each other's ports outside still meet. A mapping that the user made is open
** to everybody and needs no sessions, so nobody can fill it up.
*/
#ifndef NST_NAT_H
#define NST_NAT_H

#include "interface.h"
#include "list.h"
#include "packet.h"
#include "table.h"

/* The protocols that can be mapped. */
enum { NST_NAT_ICMP = 1, NST_NAT_TCP = 6, NST_NAT_UDP = 17 };

/* An address, as in packets, and a port; of ICMP's questions and answers the identifier. */
typedef struct nst_endpoint {
  uint8_t host[4];
  uint16_t port;
} nst_endpoint;

/* Whose a packet is. One that reports an error belongs to what it quotes, turned round. */
typedef struct nst_flow {
  uint8_t protocol;
  uint8_t flags; /* TCP's */
  bool asks;     /* it may begin a session */
  bool error;
  nst_endpoint source, destination;
} nst_flow;

/* What is to be changed in a packet. */
typedef struct nst_translation {
  bool changes_source, changes_destination;
  nst_endpoint source, destination;
} nst_translation;

typedef struct nst_nat_session nst_nat_session;

typedef struct nst_mapping {
  nst_node by_inside, by_outside; /* in the stack's tables; neither while a user's one is not in force */
  nst_link link;                  /* in nat->mappings */
  nst_nat *nat;
  uint8_t protocol;
  bool fixed;                     /* the user's */
  nst_endpoint inside, outside;
  nst_link sessions;
  size_t session_count;
  nst_nat_session *recent;        /* the one found last, which is the likeliest next; NULL */
} nst_mapping;

/* An interface that masquerades. */
struct nst_nat {
  nst_link link;       /* in stack->nat.all */
  nst_interface *interface;
  uint8_t address[4];  /* the interface's first; 0.0.0.0: it has none */
  nst_link mappings;   /* oldest first */
};

/* How long a session that nobody uses is remembered, by kind. */
typedef enum nst_nat_age {
  NST_NAT_DATAGRAMS,
  NST_NAT_QUERIES,
  NST_NAT_TRANSITORY, /* connections that begin or end */
  NST_NAT_ESTABLISHED,
  NST_NAT_AGES
} nst_nat_age;

/* A part of the stack. */
typedef struct nst_nats {
  nst_link all;                 /* nst_nat.link */
  nst_table inside, outside;    /* mappings */
  nst_table sessions, hosts;
  nst_link ages[NST_NAT_AGES];  /* sessions: least recently used first */
  size_t fixed;                 /* mappings of the user's */
  uint64_t limited;             /* packets dropped to keep to the bounds */
  uint64_t filtered;            /* that nobody inside asked for */
  uint64_t unmatched;           /* that would have left, and belong to nothing or cannot be mapped */
} nst_nats;

void nst_nats_init(nst_stack *stack);
/* At the stack's end. */
void nst_nats_clear(nst_stack *stack);

/* NST_NOT_SUPPORTED: the stack is no router; NST_NO_MEMORY. Harmless twice, both. */
nst_error nst_nat_start(nst_interface *interface);
void nst_nat_stop(nst_interface *interface);
/* All but the user's mappings go. Harmless where nothing masquerades. */
void nst_nat_unlearn(nst_interface *interface);
/* The interface's addresses have changed: with its first address all that was learned goes. */
void nst_nat_follow(nst_interface *interface);
/* All that was learned goes, as in a crash. */
void nst_nat_forget(nst_interface *interface);

/* Makes a mapping of the user's. NST_NOT_SUPPORTED: the interface does not masquerade; NST_ADDRESS_NOT_AVAILABLE: it
** has no address; NST_INVALID_ADDRESS: the host's is none of a host inside; NST_ADDRESS_IN_USE: the port, or the
** endpoint inside; NST_FULL; NST_NO_MEMORY. */
nst_error nst_nat_map(nst_interface *interface, uint8_t protocol, uint16_t port, const nst_endpoint *inside);
/* NST_EMPTY: there is none. */
nst_error nst_nat_unmap(nst_interface *interface, uint8_t protocol, uint16_t port);
/* Whether a port of that local address, or of any, is mapped. */
bool nst_nat_holds(const nst_stack *stack, nst_protocol protocol, const ip_addr_t *host, uint16_t port);

/* Inside the stack. A whole packet for an address of ours: true when it is for somebody inside, or, then *cause tells
** why, to be dropped. */
bool nst_nat_inward(nst_interface *interface, const nst_packet *packet, nst_translation *change, const char **cause);
/* Inside the stack. A whole packet that is to leave through an interface that masquerades: NULL, or why it cannot. */
const char *nst_nat_outward(nst_interface *interface, const nst_packet *packet, nst_translation *change);

/* Forgets sessions that have not been used for too long. Cheap, and there is no timer: nobody has to wake up for it,
** as long as it is called before somebody looks. */
void nst_nat_expire(nst_stack *stack);

/* ---- nat_packet.c ---- */

/* false: none that can be mapped. */
bool nst_flow_read(const uint8_t *packet, size_t length, nst_flow *flow);
/* Changes a packet that could be read. The checksum of its header is left to who sends it. `sums`: it has the others.
** false: they were wrong where that can still be told. */
bool nst_translate(uint8_t *packet, size_t length, const nst_translation *change, bool sums);

#endif
