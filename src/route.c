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

static bool same_prefix(const nst_prefix *a, const nst_prefix *b) {
  return a->bits == b->bits && nst_prefix_contains(a, &b->address);
}

/* The table is sorted by falling prefix length, so the first match is the longest. */
static nst_error insert(nst_stack *stack, const nst_route *route) {
  size_t place = 0;
  if (stack->route_count == stack->route_capacity) {
    size_t capacity = stack->route_capacity ? stack->route_capacity * 2 : 4;
    nst_route *routes = realloc(stack->routes, capacity * sizeof *routes);
    if (routes == NULL) return NST_NO_MEMORY;
    stack->routes = routes;
    stack->route_capacity = capacity;
  }
  while (place < stack->route_count && stack->routes[place].to.bits >= route->to.bits) place++;
  memmove(stack->routes + place + 1, stack->routes + place, (stack->route_count - place) * sizeof *route);
  stack->routes[place] = *route;
  stack->route_count++;
  return NST_OK;
}

static void remove_at(nst_stack *stack, size_t i) {
  stack->route_count--;
  memmove(stack->routes + i, stack->routes + i + 1, (stack->route_count - i) * sizeof *stack->routes);
}

/* An IPv6 address may say itself which link it is on. */
static bool is_zone_of(const nst_interface *interface, const ip_addr_t *address) {
  return ip6_addr_test_zone(ip_2_ip6(address), &interface->netifs[0]) != 0;
}

static bool has_zone(const ip_addr_t *address) {
  return IP_IS_V6(address) && ip6_addr_has_zone(ip_2_ip6(address));
}

/* The interface whose link a gateway is on. */
static nst_interface *link_of(const nst_stack *stack, const ip_addr_t *gateway) {
  const nst_link *link;
  size_t i;
  for (link = stack->interfaces.next; link != &stack->interfaces && has_zone(gateway); link = link->next) {
    nst_interface *interface = nst_holder(link, nst_interface, link);
    if (interface->has_link_local && is_zone_of(interface, gateway)) return interface;
  }
  for (i = 0; i < stack->route_count; i++) {
    const nst_route *route = &stack->routes[i];
    if (IP_IS_ANY_TYPE_VAL(route->gateway) && nst_prefix_contains(&route->to, gateway)) return route->interface;
  }
  return NULL;
}

nst_error nst_route_add(nst_stack *stack, const nst_prefix *to, nst_interface *interface, const ip_addr_t *gateway,
                        bool own) {
  nst_route route;
  size_t i;
  memset(&route, 0, sizeof route);
  route.to = *to;
  route.interface = interface;
  route.gateway = gateway ? *gateway : (ip_addr_t)IPADDR_ANY_TYPE_INIT;
  route.own = own;
  if (gateway && interface == NULL) route.interface = link_of(stack, gateway);
  if (route.interface == NULL) return NST_NO_ROUTE;
  for (i = 0; i < stack->route_count; i++) {
    if (same_prefix(&stack->routes[i].to, to)) {
      remove_at(stack, i);
      break;
    }
  }
  return insert(stack, &route);
}

bool nst_route_remove(nst_stack *stack, const nst_prefix *to) {
  size_t i;
  for (i = 0; i < stack->route_count; i++) {
    if (same_prefix(&stack->routes[i].to, to)) {
      remove_at(stack, i);
      return true;
    }
  }
  return false;
}

void nst_route_drop_interface(nst_stack *stack, nst_interface *interface) {
  size_t i = 0;
  while (i < stack->route_count) {
    if (stack->routes[i].interface == interface) remove_at(stack, i);
    else i++;
  }
}

static bool usable(const nst_interface *interface, const ip_addr_t *destination) {
  size_t i;
  if (!interface->up) return false;
  for (i = 0; i < interface->address_count; i++) {
    if (IP_GET_TYPE(&interface->addresses[i].address) == IP_GET_TYPE(destination)) return true;
  }
  return interface->has_link_local && IP_IS_V6(destination);
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

struct netif *nst_route_find(nst_stack *stack, const ip_addr_t *source, const ip_addr_t *destination) {
  nst_interface *only = NULL;
  nst_link *link;
  size_t i, interfaces = 0;
  for (link = stack->interfaces.next; link != &stack->interfaces && has_zone(destination); link = link->next) {
    nst_interface *interface = nst_holder(link, nst_interface, link);
    if (is_zone_of(interface, destination)) return usable(interface, destination) ? &interface->netifs[0] : NULL;
  }
  for (i = 0; i < stack->route_count; i++) {
    const nst_route *route = &stack->routes[i];
    if (nst_prefix_contains(&route->to, destination) && usable(route->interface, destination)) {
      return netif_for(route->interface, source, destination);
    }
  }
  for (link = stack->interfaces.next; link != &stack->interfaces; link = link->next) {
    nst_interface *interface = nst_holder(link, nst_interface, link);
    if (interface->device == NULL) continue;
    interfaces++;
    only = interface;
  }
  if (interfaces != 1 || !usable(only, destination)) return NULL;
  /* On an Ethernet only what is for the whole link needs no route. */
  if (only->device->medium != NST_MEDIUM_IP && !is_for_link(destination)) return NULL;
  /* What belongs on the loopback never leaves the host (RFC 1122 3.2.1.3, RFC 4291 2.5.3). */
  if (ip_addr_isloopback(destination)) return NULL;
  return netif_for(only, source, destination);
}

struct netif *nst_route_through(nst_interface *interface, const ip_addr_t *source, const ip_addr_t *destination) {
  return interface->stack && usable(interface, destination) ? netif_for(interface, source, destination) : NULL;
}

void nst_route_next(const nst_interface *interface, const ip_addr_t *destination, ip_addr_t *next) {
  const nst_stack *stack = interface->stack;
  size_t i;
  *next = *destination;
  for (i = 0; i < stack->route_count && !has_zone(destination); i++) { /* no router passes on what has a zone */
    const nst_route *route = &stack->routes[i];
    if (route->interface != interface || !nst_prefix_contains(&route->to, destination)) continue;
    if (!IP_IS_ANY_TYPE_VAL(route->gateway)) *next = route->gateway;
    return;
  }
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
