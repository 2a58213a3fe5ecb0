/* Raw sockets: whole IP packets out, a copy of each matching packet in. TCP, UDP and ICMP still handle theirs. */
#ifndef NST_RAW_H
#define NST_RAW_H

#include "udp.h"

typedef struct nst_raw {
  nst_socket socket; /* first */
  bool ipv6;
  uint8_t protocol;
  nst_inbox inbox;
  nst_link member; /* in stack->raw_sockets */
} nst_raw;

nst_raw *nst_raw_new(nst_stack *stack, bool ipv6, uint8_t protocol);
nst_error nst_raw_send(nst_raw *raw, const void *packet, size_t length);
nst_error nst_raw_readable(nst_raw *raw);
/* Inside the stack. Each raw socket that matches gets a copy of a packet, p at its IP header; true when one did. */
bool nst_raw_give(nst_stack *stack, const struct pbuf *p, const ip_addr_t *from);
void nst_raw_close(nst_raw *raw);
void nst_raw_forget(nst_raw *raw);

#endif
