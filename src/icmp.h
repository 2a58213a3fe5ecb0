/* What ICMP and ICMPv6 errors say about our sockets; lwIP ignores them. */
#ifndef NST_ICMP_H
#define NST_ICMP_H

#include "stack.h"

/* `packet` starts with the IP header. Harmless for anything that is no ICMP error about a datagram of ours. */
void nst_icmp_error(nst_stack *stack, const uint8_t *packet, size_t length);

#endif
