#include "route.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "stack.h"

#include "lwip/netif.h"

bool nst_prefix_contains(const nst_prefix *prefix, const ip_addr_t *address) {
  const uint8_t *a = nst_address_bytes(&prefix->address), *b = nst_address_bytes(address);
  unsigned whole = prefix->bits / 8, rest = prefix->bits % 8;
  if (IP_GET_TYPE(&prefix->address) != IP_GET_TYPE(address)) return false;
  if (memcmp(a, b, whole) != 0) return false;
  return rest == 0 || ((a[whole] ^ b[whole]) >> (8 - rest)) == 0;
}

/* ---- the table ---- */

uint64_t nst_prefix_hash(const ip_addr_t *address, unsigned bits) {
  uint8_t key[16] = {0};
  uint64_t half[2];
  memcpy(key, nst_address_bytes(address), bits / 8);
  if (bits % 8 > 0) key[bits / 8] = (uint8_t)(nst_address_bytes(address)[bits / 8] & 0xff00u >> bits % 8);
  memcpy(half, key, sizeof half);
  half[0] = (half[0] ^ bits) * 0x9e3779b97f4a7c15u;
  half[1] = (half[1] ^ half[0] >> 32) * 0xbf58476d1ce4e5b9u;
  return half[1] ^ half[0] ^ half[1] >> 29;
}

static bool is_to(const nst_route *route, const ip_addr_t *address, unsigned bits, uint64_t hash) {
  return route->node.hash == hash && route->to.bits == bits && nst_prefix_contains(&route->to, address);
}

void nst_routes_init(nst_routes *routes) {
  nst_list_init(&routes->all);
}

static uint64_t *lengths_of(nst_routes *routes, const nst_prefix *prefix) {
  return &routes->lengths[IP_IS_V6(&prefix->address)][prefix->bits / 64];
}

static bool is_length_used(const nst_routes *routes, const nst_prefix *prefix) {
  const nst_link *link;
  for (link = routes->all.next; link != &routes->all; link = link->next) {
    const nst_route *route = nst_holder(link, const nst_route, link);
    if (route->to.bits == prefix->bits && IP_GET_TYPE(&route->to.address) == IP_GET_TYPE(&prefix->address)) return true;
  }
  return false;
}

void nst_route_remove(nst_stack *stack, nst_route *route) {
  nst_routes *routes = &stack->routes;
  nst_table_remove(&routes->table, &route->node);
  nst_list_remove(&route->link);
  if (!is_length_used(routes, &route->to)) *lengths_of(routes, &route->to) &= ~((uint64_t)1 << route->to.bits % 64);
  free(route);
}

void nst_routes_clear(nst_routes *routes) {
  nst_link *link;
  while ((link = nst_list_pop(&routes->all)) != NULL) free(nst_holder(link, nst_route, link));
  nst_table_free(&routes->table);
}

static bool insert(nst_routes *routes, nst_route *route) {
  nst_link *place;
  if (!nst_table_insert(&routes->table, &route->node, nst_prefix_hash(&route->to.address, route->to.bits))) return false;
  for (place = routes->all.next; place != &routes->all; place = place->next) {
    if (nst_holder(place, const nst_route, link)->to.bits < route->to.bits) break;
  }
  nst_list_insert_before(place, &route->link);
  *lengths_of(routes, &route->to) |= (uint64_t)1 << route->to.bits % 64;
  return true;
}

static nst_route *equal_to(nst_routes *routes, const nst_prefix *to, const nst_interface *interface,
                           nst_route_origin origin) {
  uint64_t hash = nst_prefix_hash(&to->address, to->bits);
  nst_node *node;
  for (node = nst_table_bucket(&routes->table, hash); node; node = node->next) {
    nst_route *route = nst_holder(node, nst_route, node);
    if (is_to(route, &to->address, to->bits, hash) && route->origin == origin &&
        (origin == NST_ROUTE_STATIC || route->interface == interface)) {
      return route;
    }
  }
  return NULL;
}

static bool is_preferred(const nst_route *a, const nst_route *b) {
  return b == NULL || a->origin < b->origin || (a->origin == b->origin && a->order < b->order);
}

nst_route *nst_route_to(nst_stack *stack, const nst_prefix *to) {
  uint64_t hash = nst_prefix_hash(&to->address, to->bits);
  nst_route *best = NULL;
  nst_node *node;
  for (node = nst_table_bucket(&stack->routes.table, hash); node; node = node->next) {
    nst_route *route = nst_holder(node, nst_route, node);
    if (is_to(route, &to->address, to->bits, hash) && is_preferred(route, best)) best = route;
  }
  return best;
}

static void drop(nst_stack *stack, const nst_interface *interface, nst_route_origin from, nst_route_origin to) {
  nst_link *link = stack->routes.all.next;
  while (link != &stack->routes.all) {
    nst_route *route = nst_holder(link, nst_route, link);
    link = link->next;
    if (route->interface == interface && route->origin >= from && route->origin <= to) nst_route_remove(stack, route);
  }
}

void nst_route_drop(nst_stack *stack, const nst_prefix *to, const nst_interface *interface, nst_route_origin origin) {
  nst_route *route = equal_to(&stack->routes, to, interface, origin);
  if (route) nst_route_remove(stack, route);
}

void nst_routes_drop(nst_stack *stack, const nst_interface *interface, nst_route_origin origin) {
  drop(stack, interface, origin, origin);
}

void nst_routes_drop_interface(nst_stack *stack, const nst_interface *interface) {
  drop(stack, interface, NST_ROUTE_STATIC, NST_ROUTE_CONNECTED);
}

/* ---- the search ---- */

static bool usable(const nst_interface *interface, const ip_addr_t *destination) {
  size_t i;
  if (!interface->on) return false;
  if (interface->has_link_local && IP_IS_V6(destination)) return true;
  for (i = 0; i < interface->address_count; i++) {
    if (IP_GET_TYPE(&interface->addresses[i].address) == IP_GET_TYPE(destination)) return true;
  }
  return false;
}

/* `over` NULL: any interface. */
static nst_route *best_of_length(const nst_routes *routes, const ip_addr_t *destination, unsigned bits,
                                 const nst_interface *over) {
  uint64_t hash = nst_prefix_hash(destination, bits);
  nst_route *best = NULL;
  nst_node *node;
  for (node = nst_table_bucket(&routes->table, hash); node; node = node->next) {
    nst_route *route = nst_holder(node, nst_route, node);
    if (is_to(route, destination, bits, hash) && (over == NULL || route->interface == over) &&
        is_preferred(route, best) && usable(route->interface, destination)) {
      best = route;
    }
  }
  return best;
}

static nst_route *search(const nst_stack *stack, const ip_addr_t *destination, const nst_interface *over) {
  const uint64_t *lengths = stack->routes.lengths[IP_IS_V6(destination)];
  int word;
  for (word = IP_IS_V6(destination) ? 2 : 0; word >= 0; word--) {
    uint64_t left = lengths[word];
    while (left) {
      unsigned bit = 63u - (unsigned)__builtin_clzll(left);
      nst_route *route = best_of_length(&stack->routes, destination, (unsigned)word * 64 + bit, over);
      if (route) return route;
      left &= ~((uint64_t)1 << bit);
    }
  }
  return NULL;
}

static bool has_zone(const ip_addr_t *address) {
  return IP_IS_V6(address) && ip6_addr_has_zone(ip_2_ip6(address));
}

/* The interface that an IPv6 address names itself; NULL. */
static nst_interface *interface_of_zone(const nst_stack *stack, const ip_addr_t *address) {
  const nst_link *link;
  for (link = stack->interfaces.next; link != &stack->interfaces; link = link->next) {
    nst_interface *interface = nst_holder(link, nst_interface, link);
    if (ip6_addr_test_zone(ip_2_ip6(address), &interface->netifs[0])) return interface;
  }
  return NULL;
}

/* The interface whose link a gateway is on: `wanted`, unless that is NULL. */
static nst_interface *link_of(const nst_stack *stack, const ip_addr_t *gateway, const nst_interface *wanted) {
  nst_interface *zone = has_zone(gateway) ? interface_of_zone(stack, gateway) : NULL;
  const nst_link *link;
  if (zone && wanted && zone != wanted) return NULL;
  if (zone && zone->has_link_local) return zone;
  for (link = stack->routes.all.next; link != &stack->routes.all; link = link->next) {
    const nst_route *route = nst_holder(link, const nst_route, link);
    if (IP_IS_ANY_TYPE_VAL(route->gateway) && (wanted == NULL || route->interface == wanted) &&
        nst_prefix_contains(&route->to, gateway)) {
      return route->interface;
    }
  }
  return NULL;
}

nst_error nst_route_add(nst_stack *stack, const nst_prefix *to, nst_interface *interface, const ip_addr_t *gateway,
                        nst_route_origin origin) {
  nst_route *route, *old;
  /* Who tells us of a gateway says that it is on this link, whatever our prefix is. */
  if (gateway && origin != NST_ROUTE_LEARNED) interface = link_of(stack, gateway, interface);
  if (interface == NULL) return NST_NO_ROUTE;
  route = calloc(1, sizeof *route);
  if (route == NULL) return NST_NO_MEMORY;
  nst_list_init(&route->link);
  route->to = *to;
  route->interface = interface;
  route->gateway = gateway ? *gateway : (ip_addr_t)IPADDR_ANY_TYPE_INIT;
  route->origin = origin;
  route->order = ++stack->routes.made;
  old = equal_to(&stack->routes, to, interface, origin);
  if (old) nst_route_remove(stack, old);
  if (insert(&stack->routes, route)) return NST_OK;
  free(route);
  return NST_NO_MEMORY;
}

/* Of an interface's netifs, the one whose IPv4 address suits: the given source, else the destination's prefix. */
static struct netif *netif_for(nst_interface *interface, const ip_addr_t *source, const ip_addr_t *destination) {
  int i, best = -1;
  if (IP_IS_V6(destination)) return &interface->netifs[0];
  for (i = 0; i < NST_IPV4_ADDRESSES && interface->registered[i]; i++) {
    const struct netif *netif = &interface->netifs[i];
    if (source && ip4_addr_eq(netif_ip4_addr(netif), ip_2_ip4(source))) return &interface->netifs[i];
    if (best < 0 && ip4_addr_net_eq(ip_2_ip4(destination), netif_ip4_addr(netif), netif_ip4_netmask(netif))) best = i;
  }
  return &interface->netifs[best < 0 ? 0 : best];
}

static bool is_for_link(const ip_addr_t *destination) {
  return ip_addr_ismulticast(destination) ||
         (!IP_IS_V6(destination) && ip4_addr_get_u32(ip_2_ip4(destination)) == IPADDR_BROADCAST);
}

static bool is_single(const nst_stack *stack) {
  return stack->interface_count == (stack->loopback ? 2u : 1u);
}

/* Whether the other end of a point-to-point interface is to have it: with an address for the link alone, only what is
** for the link. */
static bool reaches(const nst_interface *interface, const ip_addr_t *destination) {
  size_t i;
  if (!IP_IS_V6(destination) || !interface->has_link_local || ip6_addr_islinklocal(ip_2_ip6(destination))) return true;
  for (i = 0; i < interface->address_count && !IP_IS_V6(&interface->addresses[i].address); i++) continue;
  return i < interface->address_count;
}

/* Without a route: the interface of the address that it is sent from, or the only one. */
static nst_interface *interface_by_default(const nst_stack *stack, const ip_addr_t *source,
                                           const ip_addr_t *destination) {
  nst_interface *only = NULL;
  const nst_link *link;
  /* What belongs on the loopback never leaves the host (RFC 1122 3.2.1.3, RFC 4291 2.5.3). */
  if (ip_addr_isloopback(destination)) return NULL;
  if (source && is_for_link(destination)) return nst_interface_with_address(stack, source);
  if (!is_single(stack)) return NULL;
  for (link = stack->interfaces.next; only == NULL && link != &stack->interfaces; link = link->next) {
    nst_interface *interface = nst_holder(link, nst_interface, link);
    if (interface->device) only = interface;
  }
  if (only == NULL || is_for_link(destination)) return only;
  /* On an Ethernet all else needs a route. */
  return only->device->medium == NST_MEDIUM_IP && reaches(only, destination) ? only : NULL;
}

struct netif *nst_route_find(nst_stack *stack, const ip_addr_t *source, const ip_addr_t *destination) {
  nst_interface *interface = NULL;
  const nst_route *route;
  if (has_zone(destination)) {
    interface = interface_of_zone(stack, destination);
    return interface && usable(interface, destination) ? &interface->netifs[0] : NULL;
  }
  /* It may be on any link (RFC 4007 §6). */
  if (IP_IS_V6(destination) && ip6_addr_islinklocal(ip_2_ip6(destination)) && !is_single(stack)) return NULL;
  /* What is ours goes to us, however long another interface's prefix is. */
  if (stack->interface_count > 1) interface = nst_interface_with_address(stack, destination);
  if (interface == NULL) {
    route = search(stack, destination, NULL);
    interface = route ? route->interface : interface_by_default(stack, source, destination);
  }
  return interface && usable(interface, destination) ? netif_for(interface, source, destination) : NULL;
}

struct netif *nst_route_through(nst_interface *interface, const ip_addr_t *source, const ip_addr_t *destination) {
  return interface->stack && usable(interface, destination) ? netif_for(interface, source, destination) : NULL;
}

void nst_route_next(const nst_interface *interface, const ip_addr_t *destination, ip_addr_t *next) {
  /* No router passes on what has a zone. */
  const nst_route *route = has_zone(destination) ? NULL : search(interface->stack, destination, interface);
  *next = route && !IP_IS_ANY_TYPE_VAL(route->gateway) ? route->gateway : *destination;
}

struct netif *nst_route4(const struct ip4_addr *source, const struct ip4_addr *destination) {
  ip_addr_t from, to;
  ip_addr_copy_from_ip4(to, *destination);
  if (source == NULL || ip4_addr_isany_val(*source)) return nst_route_find(nst_current(), NULL, &to);
  ip_addr_copy_from_ip4(from, *source);
  return nst_route_find(nst_current(), &from, &to);
}

struct netif *nst_route6(const struct ip6_addr *source, const struct ip6_addr *destination) {
  ip_addr_t to;
  (void)source;
  ip_addr_copy_from_ip6(to, *destination);
  return nst_route_find(nst_current(), NULL, &to);
}
