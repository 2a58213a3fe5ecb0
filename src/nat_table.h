/* What nat.c needs of nat_table.c. */
#ifndef NST_NAT_TABLE_H
#define NST_NAT_TABLE_H

#include "nat.h"
#include "stack.h"

/* Where a packet comes from. */
enum { NST_NAT_INSIDE = 1, NST_NAT_OUTSIDE = 2 };

/* NULL: there is none. */
nst_mapping *nst_mapping_find_inside(const nst_nat *nat, uint8_t protocol, const nst_endpoint *inside);
nst_mapping *nst_mapping_find_outside(const nst_stack *stack, uint8_t protocol, const nst_endpoint *outside);
nst_nat_session *nst_nat_find_session(const nst_stack *stack, nst_mapping *mapping, const nst_endpoint *remote);

/* Not in force yet; NULL: no memory. */
nst_mapping *nst_mapping_make(nst_nat *nat, uint8_t protocol, const nst_endpoint *inside);
/* Puts it in force at that port. false: no memory. */
bool nst_mapping_enter(nst_mapping *mapping, uint16_t port);
/* It is no longer in force; its sessions end. */
void nst_mapping_withdraw(nst_mapping *mapping);
/* The same, and frees it. */
void nst_mapping_forget(nst_mapping *mapping);
/* Whether neither a mapping nor a socket has the port. */
bool nst_mapping_is_free(const nst_nat *nat, uint8_t protocol, uint16_t port);

/* A session for a packet from inside, with a mapping if *mapping is NULL. NULL, or why there can be none. */
const char *nst_nat_begin(nst_nat *nat, const nst_flow *flow, nst_mapping **mapping, nst_nat_session **result);
/* A packet of the session's has come. */
void nst_nat_track(nst_stack *stack, nst_nat_session *s, const nst_flow *flow, unsigned from);

ip_addr_t nst_nat_address(const uint8_t host[4]);

#endif
