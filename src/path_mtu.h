/*
** Path MTUs (RFC 1191, RFC 8201): what routers said about the way to a host, when they said it of a packet that we had
** really sent. Bounded, and forgotten after ten minutes.
*/
#ifndef NST_PATH_MTU_H
#define NST_PATH_MTU_H

#include "interface.h"

#include <stdbool.h>
#include <stdint.h>

/* What a packet to that host may measure: `mtu`, or less. *fragment, which may be NULL: routers have to cut what we
** send, since the way takes less than we believe of anybody. */
uint16_t nst_path_mtu(nst_stack *stack, const ip_addr_t *host, uint16_t mtu, bool *fragment);
/* A router's word; 0 from one that names no number. */
void nst_path_mtu_learn(nst_stack *stack, const ip_addr_t *host, uint16_t mtu);
void nst_path_mtu_clear(nst_stack *stack);

#endif
