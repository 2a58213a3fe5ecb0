/* What ICMP and ICMPv6 errors say about our sockets; lwIP ignores them. */
#ifndef NST_ICMP_H
#define NST_ICMP_H

#include "stack.h"

/* `p` starts with the IP header, in lwIP's input. Harmless for anything that is no ICMP error about what we sent. */
void nst_icmp_error(nst_stack *stack, struct pbuf *p, const struct netif *input);

#endif
