/* ICMP and ICMPv6 errors: what those of others say about our sockets, which lwIP ignores, and how many we send. */
#ifndef NST_ICMP_H
#define NST_ICMP_H

#include "stack.h"

/* `p` starts with the IP header, in lwIP's input. Harmless for anything that is no ICMP error about what we sent. */
void nst_icmp_error(nst_stack *stack, struct pbuf *p, const struct netif *input);

/* Whether an error may be sent now in answer to this packet; counts it. `to_groups`: one of those that are sent even in
** answer to what came to a group. */
bool nst_icmp_may_answer(nst_stack *stack, const uint8_t *packet, size_t length, bool to_groups);

/* Why a packet does not get further. */
typedef enum nst_icmp_reason {
  NST_ICMP_NO_ROUTE,
  NST_ICMP_HOST_UNREACHABLE,
  NST_ICMP_TOO_MANY_HOPS,
  NST_ICMP_TOO_LONG,
  NST_ICMP_PIECES_MISSING,
  NST_ICMP_PROHIBITED
} nst_icmp_reason;

/* Inside the stack. Tells the sender of a packet that is about to be dropped; if that is we, our sockets learn it as
** from a router. `mtu` goes with NST_ICMP_TOO_LONG. */
void nst_icmp_tell(nst_stack *stack, const nst_packet *packet, const ip_addr_t *source, const ip_addr_t *destination,
                   nst_icmp_reason reason, uint16_t mtu);

#endif
