/* UDP sockets: a queue of received datagrams, bounded in number and bytes; what does not fit is dropped and counted. */
#ifndef NST_UDP_H
#define NST_UDP_H

#include "group.h"
#include "socket.h"
#include "stack.h"

#include "lwip/udp.h"

typedef struct nst_datagram {
  nst_link link;
  ip_addr_t host;
  uint16_t port;
  size_t length;
  char data[];
} nst_datagram;

/* Received datagrams or packets that nobody has read yet. */
typedef struct nst_inbox {
  nst_link datagrams;
  size_t count, bytes;
  uint64_t dropped;
} nst_inbox;

/* Copies what lwIP received into the inbox. false: no room (counted) or no memory. */
bool nst_inbox_put(nst_inbox *inbox, const struct pbuf *p, const ip_addr_t *host, uint16_t port, size_t count_at_most,
                   size_t bytes_at_most);
nst_datagram *nst_inbox_first(const nst_inbox *inbox);
/* The caller's to free(). */
nst_datagram *nst_inbox_take(nst_inbox *inbox);
void nst_inbox_clear(nst_inbox *inbox);

struct nst_udp {
  nst_socket socket;     /* first */
  struct udp_pcb *pcb;   /* NULL until it is bound */
  nst_inbox inbox;
  bool connected;
  ip_addr_t remote_host;
  uint16_t remote_port;
  nst_error error;       /* reported by ICMP, told once */
  bool broadcast, dont_fragment, reuse_address, ipv6_only;
  uint8_t ttl, tos;
  uint8_t group_ttl, group_hops;  /* of datagrams to groups, in IPv4 and IPv6 */
  bool group_loop4, group_loop6;  /* whether members on this stack get these, too */
  nst_interface *group_interface; /* where they leave (counted); NULL: by route */
  nst_link memberships;           /* nst_membership.link */
  size_t membership_count;
};

nst_udp *nst_udp_new(nst_stack *stack);
nst_error nst_udp_bind(nst_udp *udp, const ip_addr_t *host, uint16_t port);
/* host NULL takes the peer away. */
nst_error nst_udp_connect(nst_udp *udp, const ip_addr_t *host, uint16_t port);
/* To the peer when host is NULL. NST_WOULDBLOCK: the device is full; the socket waits with the interface. */
nst_error nst_udp_send(nst_udp *udp, const ip_addr_t *host, uint16_t port, const void *data, size_t length);
/* NST_OK when a datagram can be taken; else an error that is then told. Needs no entering. */
nst_error nst_udp_readable(nst_udp *udp);
void nst_udp_apply_options(nst_udp *udp);
/* Where datagrams to groups leave; NULL: by route. */
void nst_udp_send_groups_through(nst_udp *udp, nst_interface *interface);
void nst_udp_close(nst_udp *udp);
void nst_udp_forget(nst_udp *udp);
/* An ICMP error came about a datagram between these. false: no socket has sent one. */
bool nst_udp_reported(nst_stack *stack, const ip_addr_t *local_host, uint16_t local_port,
                      const ip_addr_t *remote_host, uint16_t remote_port, nst_error error);
/* Inside the stack. A datagram, p at UDP's header, to a group that is wanted; each socket that hears it gets a copy.
** `to_all`: the group that every host is in. */
void nst_udp_group_input(nst_interface *interface, struct pbuf *p, bool to_all, const nst_group *group,
                         const ip_addr_t *from, const ip_addr_t *to);

#endif
