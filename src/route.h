/*
** Routes: which interface leads to an address. The longest prefix wins; an interface's own prefixes count as routes;
** with one point-to-point interface and no route, whatever is not local goes out through it. A search costs one look
** into a table for each prefix length in use, however many routes there are.
*/
#ifndef NST_ROUTE_H
#define NST_ROUTE_H

#include "interface.h"
#include "table.h"

/* Where a route comes from. Of routes to equal prefixes the earlier kind is preferred, then the older route. */
typedef enum nst_route_origin {
  NST_ROUTE_STATIC,   /* the user's; one for each prefix */
  NST_ROUTE_GATEWAY,  /* the user's gateway of an interface; from here on one for each prefix and interface */
  NST_ROUTE_LEARNED,  /* from DHCP or a router */
  NST_ROUTE_CONNECTED /* follows from an interface's address */
} nst_route_origin;

typedef struct nst_route {
  nst_node node; /* in stack->routes.table */
  nst_link link; /* in stack->routes.all: the longest prefix first, then the older one */
  nst_prefix to;
  nst_interface *interface;
  ip_addr_t gateway; /* any address of type ANY: none, directly connected */
  nst_route_origin origin;
  unsigned order;    /* of making: the older one is preferred */
} nst_route;

/* A part of the stack. */
typedef struct nst_routes {
  nst_table table;
  nst_link all;
  unsigned made;
  uint64_t lengths[2][3]; /* of IPv4 and IPv6, the prefix lengths in use, as bits */
} nst_routes;

void nst_routes_init(nst_routes *routes);
/* At the stack's end. */
void nst_routes_clear(nst_routes *routes);

/* `interface` NULL: the one whose link the gateway is on. NST_NO_ROUTE: it is on none, or not on that of the interface.
** NST_NO_MEMORY. Replaces an equal one. */
nst_error nst_route_add(nst_stack *stack, const nst_prefix *to, nst_interface *interface, const ip_addr_t *gateway,
                        nst_route_origin origin);
/* The route to just this prefix that is preferred; NULL. */
nst_route *nst_route_to(nst_stack *stack, const nst_prefix *to);
void nst_route_remove(nst_stack *stack, nst_route *route);
/* Harmless when there is none. */
void nst_route_drop(nst_stack *stack, const nst_prefix *to, const nst_interface *interface, nst_route_origin origin);
/* Those of one origin, over one interface. */
void nst_routes_drop(nst_stack *stack, const nst_interface *interface, nst_route_origin origin);
/* The interface went: all over it. */
void nst_routes_drop_interface(nst_stack *stack, const nst_interface *interface);
/* The netif towards an address, NULL: no route. */
struct netif *nst_route_find(nst_stack *stack, const ip_addr_t *source, const ip_addr_t *destination);
/* The same when the interface is given. */
struct netif *nst_route_through(nst_interface *interface, const ip_addr_t *source, const ip_addr_t *destination);
/* What the packets to a host go to on the interface's link: a gateway, or the host itself. */
void nst_route_next(const nst_interface *interface, const ip_addr_t *destination, ip_addr_t *next);
/* Of an address's first bits; for tables of ours, which nobody can fill with what collides. */
uint64_t nst_prefix_hash(const ip_addr_t *address, unsigned bits);
bool nst_prefix_contains(const nst_prefix *prefix, const ip_addr_t *address);

#endif
