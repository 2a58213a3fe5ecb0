/*
** Routes: which interface leads to an address. The longest prefix wins; an interface's own prefixes count as routes;
** with one point-to-point interface and no route, whatever is not local goes out through it.
*/
#ifndef NST_ROUTE_H
#define NST_ROUTE_H

#include "interface.h"

typedef struct nst_route {
  nst_prefix to;
  nst_interface *interface;
  ip_addr_t gateway; /* any address of type ANY: none, directly connected */
  bool own;          /* follows from an interface's address; not the user's */
} nst_route;

/* NST_NO_ROUTE when the gateway is on no interface's prefix; NST_NO_MEMORY. Replaces an equal prefix. */
nst_error nst_route_add(nst_stack *stack, const nst_prefix *to, nst_interface *interface, const ip_addr_t *gateway,
                        bool own);
/* false: there was none. */
bool nst_route_remove(nst_stack *stack, const nst_prefix *to);
/* The interface went, or its addresses changed. */
void nst_route_drop_interface(nst_stack *stack, nst_interface *interface);
/* The netif towards an address, NULL: no route. */
struct netif *nst_route_find(nst_stack *stack, const ip_addr_t *source, const ip_addr_t *destination);
/* The same when the interface is given. */
struct netif *nst_route_through(nst_interface *interface, const ip_addr_t *source, const ip_addr_t *destination);
/* What the packets to a host go to on the interface's link: a gateway, or the host itself. */
void nst_route_next(const nst_interface *interface, const ip_addr_t *destination, ip_addr_t *next);
bool nst_prefix_contains(const nst_prefix *prefix, const ip_addr_t *address);

#endif
