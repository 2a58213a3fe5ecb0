/* ICMP and ICMPv6 errors: what those of others say about our sockets, which lwIP ignores, and how many we send. */
#ifndef NST_ICMP_H
#define NST_ICMP_H

#include "stack.h"

/* `p` starts with the IP header, in lwIP's input. Harmless for anything that is no ICMP error about what we sent. */
void nst_icmp_error(nst_stack *stack, struct pbuf *p, const struct netif *input);

/* Whether an error may be sent now in answer to this packet; counts it. `to_groups`: one of those that are sent even in
** answer to what came to a group. */
bool nst_icmp_may_answer(nst_stack *stack, const uint8_t *packet, size_t length, bool to_groups);

/* Inside the stack. The host that an own packet was for cannot be reached: what a router would say of it goes into our
** own queue, so that sockets learn it in the same way. */
void nst_icmp_tell_ourselves(nst_interface *interface, const nst_packet *packet);

#endif
