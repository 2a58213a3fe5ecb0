/* The addresses of an interface: lwIP's netifs that have them, the routes that follow from them, and whose they are. */
#include "interface.h"

#include <string.h>

#include "bytes.h"
#include "ethernet.h"
#include "group.h"
#include "nat.h"
#include "slaac.h"
#include "stack.h"
#include "tcp.h"

#include "lwip/ip.h"

/* Its place in tentative_until; above NST_ADDRESSES: it is none of ours. */
static size_t place_of(const nst_interface *interface, const ip_addr_t *address) {
  size_t i;
  for (i = 0; i < interface->address_count; i++) {
    if (ip_addr_eq(&interface->addresses[i].address, address)) return i;
  }
  return NST_ADDRESSES + !(interface->has_link_local && ip_addr_eq(&interface->link_local.address, address));
}

nst_interface *nst_interface_with_address(const nst_stack *stack, const ip_addr_t *address) {
  uint64_t hash = nst_prefix_hash(address, (unsigned)nst_address_size(address) * 8);
  const nst_node *node;
  for (node = nst_table_bucket(&stack->own, hash); node; node = node->next) {
    const nst_own *own = nst_holder(node, const nst_own, node);
    if (node->hash == hash && ip_addr_eq(own->address, address)) return own->interface;
  }
  return NULL;
}

void nst_addresses_disown(nst_stack *stack, nst_interface *interface) {
  size_t i;
  for (i = 0; i <= NST_ADDRESSES; i++) nst_table_remove(&stack->own, &interface->own[i].node);
}

static bool own(nst_interface *interface, size_t place, const ip_addr_t *address) {
  nst_own *entry = &interface->own[place];
  entry->interface = interface;
  entry->address = address;
  return nst_table_insert(&interface->stack->own, &entry->node,
                          nst_prefix_hash(address, (unsigned)nst_address_size(address) * 8));
}

/* After any change of its addresses. false: no memory. */
static bool own_all(nst_interface *interface) {
  bool enough = true;
  size_t i;
  nst_addresses_disown(interface->stack, interface);
  for (i = 0; i < interface->address_count; i++) enough = own(interface, i, &interface->addresses[i].address) && enough;
  if (interface->has_link_local) enough = own(interface, NST_ADDRESSES, &interface->link_local.address) && enough;
  return enough;
}

bool nst_interface_has_address(const nst_interface *interface, const ip_addr_t *address) {
  return place_of(interface, address) <= NST_ADDRESSES;
}

nst_time *nst_interface_tentative(nst_interface *interface, const ip_addr_t *address) {
  size_t place = place_of(interface, address);
  return place <= NST_ADDRESSES ? &interface->tentative_until[place] : NULL;
}

bool nst_interface_is_broadcast(const nst_interface *interface, const ip_addr_t *address) {
  int i;
  for (i = 0; i < NST_IPV4_ADDRESSES && !IP_IS_V6(address); i++) {
    if (interface->registered[i] && ip4_addr_isbroadcast(ip_2_ip4(address), &interface->netifs[i])) return true;
  }
  return false;
}

bool nst_interface_is_for_us(const nst_interface *interface, const ip_addr_t *destination) {
  return ip_addr_ismulticast(destination) || nst_interface_with_address(interface->stack, destination) ||
         nst_interface_is_broadcast(interface, destination);
}

static err_t init_netif(struct netif *netif) {
  const nst_interface *interface = nst_interface_of(netif);
  netif->name[0] = 'n';
  netif->name[1] = 's';
  netif->mtu = netif->mtu6 = interface->mtu;
  netif->output = nst_output4;
  netif->output_ip6 = nst_output6;
  netif->flags = NETIF_FLAG_LINK_UP;
  NETIF_SET_CHECKSUM_CTRL(netif, interface->device && interface->device->checksum ? NETIF_CHECKSUM_ENABLE_ALL
                                                                                   : NETIF_CHECKSUM_DISABLE_ALL);
  return ERR_OK;
}

static void remove_netif(nst_interface *interface, int i) {
  netif_remove(&interface->netifs[i]);
  interface->registered[i] = false;
  interface->stack->netif_count--;
}

/* Registers or removes the i-th netif with lwIP. The first stays for as long as the interface is attached. */
static bool set_netif4(nst_interface *interface, int i, const nst_prefix *prefix) {
  ip4_addr_t address, mask, none;
  struct netif *netif = &interface->netifs[i];
  ip4_addr_set_zero(&address);
  ip4_addr_set_zero(&mask);
  ip4_addr_set_zero(&none);
  if (prefix) {
    ip4_addr_copy(address, *ip_2_ip4(&prefix->address));
    ip4_addr_set_u32(&mask, prefix->bits ? lwip_htonl(0xffffffffu << (32 - prefix->bits)) : 0);
  }
  if (!interface->registered[i]) {
    if (prefix == NULL && i > 0) return true;
    if (netif_add(netif, &address, &mask, &none, interface, init_netif, ip_input) == NULL) return false;
    interface->registered[i] = true;
    interface->stack->netif_count++;
    if (interface->on) netif_set_up(netif);
  } else if (prefix == NULL && i > 0) {
    remove_netif(interface, i);
  } else if (!ip4_addr_eq(netif_ip4_addr(netif), &address) || !ip4_addr_eq(netif_ip4_netmask(netif), &mask)) {
    netif_set_addr(netif, &address, &mask, &none);
  }
  /* Two hosts fill a prefix of 31 bits: none of its addresses means all of them (RFC 3021). */
  if (nst_interface_is_ethernet(interface) && prefix && prefix->bits < 31) netif->flags |= NETIF_FLAG_BROADCAST;
  else netif->flags &= (u8_t)~NETIF_FLAG_BROADCAST;
  return true;
}

/* lwIP keeps the link-local address in slot 0; the others follow. */
static void set_netif6(nst_interface *interface) {
  struct netif *netif = &interface->netifs[0];
  s8_t slot = 1;
  bool link_local = false;
  size_t i;
  for (i = 0; i < LWIP_IPV6_NUM_ADDRESSES; i++) netif_ip6_addr_set_state(netif, (s8_t)i, IP6_ADDR_INVALID);
  if (interface->has_link_local) {
    netif_ip6_addr_set(netif, 0, ip_2_ip6(&interface->link_local.address));
    netif_ip6_addr_set_state(netif, 0, IP6_ADDR_PREFERRED);
    link_local = true;
  }
  for (i = 0; i < interface->address_count; i++) {
    nst_prefix *prefix = &interface->addresses[i];
    s8_t here;
    if (!IP_IS_V6(&prefix->address)) continue;
    if (ip6_addr_islinklocal(ip_2_ip6(&prefix->address))) {
      ip6_addr_assign_zone(ip_2_ip6(&prefix->address), IP6_UNICAST, netif);
    }
    here = !link_local && ip6_addr_islinklocal(ip_2_ip6(&prefix->address)) ? 0 : slot++;
    link_local = link_local || here == 0;
    netif_ip6_addr_set(netif, here, ip_2_ip6(&prefix->address));
    netif_ip6_addr_set_state(netif, here, interface->deprecated[i] ? IP6_ADDR_DEPRECATED : IP6_ADDR_PREFERRED);
  }
}

void nst_interface_deprecate(nst_interface *interface, const ip_addr_t *address, bool deprecated) {
  size_t place = place_of(interface, address);
  struct netif *netif = &interface->netifs[0];
  s8_t slot;
  if (place >= NST_ADDRESSES || interface->deprecated[place] == deprecated) return;
  interface->deprecated[place] = deprecated;
  slot = netif_get_ip6_addr_match(netif, ip_2_ip6(address));
  if (slot >= 0) netif_ip6_addr_set_state(netif, slot, deprecated ? IP6_ADDR_DEPRECATED : IP6_ADDR_PREFERRED);
}

void nst_interface_make_link_local(nst_interface *interface, const uint8_t *identifier) {
  uint8_t bytes[16] = {0xfe, 0x80};
  memcpy(bytes + 8, identifier, 8);
  IP_SET_TYPE_VAL(interface->link_local.address, IPADDR_TYPE_V6);
  memcpy(ip_2_ip6(&interface->link_local.address)->addr, bytes, sizeof bytes);
  ip6_addr_assign_zone(ip_2_ip6(&interface->link_local.address), IP6_UNICAST, &interface->netifs[0]);
  interface->link_local.bits = 64;
  interface->has_link_local = true;
  (void)own_all(interface);
  set_netif6(interface);
  if (!nst_interface_is_ethernet(interface)) return;
  interface->tentative_until[NST_ADDRESSES] = NST_NEVER; /* how long exactly, says who asks for others that have it */
  nst_groups_follow(interface);
  nst_ethernet_announce(interface, &interface->link_local.address);
}

static size_t registered_of(const nst_interface *interface) {
  size_t i, count = 0;
  for (i = 0; i < NST_IPV4_ADDRESSES; i++) count += interface->registered[i];
  return count;
}

/* Addresses of all origins: those that the interface had, and as many new ones. */
typedef struct merged {
  nst_prefix addresses[2 * NST_ADDRESSES];
  nst_address_origin origins[2 * NST_ADDRESSES];
  size_t count, four, six;
} merged;

static void put(merged *all, const nst_prefix *address, nst_address_origin origin) {
  size_t i;
  for (i = 0; i < all->count; i++) {
    if (all->origins[i] == origin || !ip_addr_eq(&all->addresses[i].address, &address->address)) continue;
    if (origin != NST_ADDRESS_GIVEN) return;
    all->addresses[i] = *address;
    all->origins[i] = origin;
    return;
  }
  if (origin == NST_ADDRESS_FORMED && all->six >= NST_IPV6_ADDRESSES) return;
  all->addresses[all->count] = *address;
  all->origins[all->count++] = origin;
  if (IP_IS_V6(&address->address)) all->six++;
  else all->four++;
}

static void merge(merged *all, const nst_interface *interface, nst_address_origin origin, const nst_prefix *addresses,
                  size_t count) {
  int o;
  size_t i;
  all->count = all->four = all->six = 0;
  for (o = 0; o < NST_ADDRESS_ORIGINS; o++) {
    for (i = 0; i < count && o == (int)origin; i++) put(all, &addresses[i], origin);
    for (i = 0; i < interface->address_count && o != (int)origin; i++) {
      if (interface->origins[i] == (nst_address_origin)o) put(all, &interface->addresses[i], interface->origins[i]);
    }
  }
}

bool nst_interface_has_room6(const nst_interface *interface) {
  size_t i, six = 0;
  for (i = 0; i < interface->address_count; i++) six += IP_IS_V6(&interface->addresses[i].address);
  return six < NST_IPV6_ADDRESSES;
}

/* What else is known of addresses that stay. */
static void take_over(nst_interface *interface, const merged *all, bool *fresh) {
  nst_time until[NST_ADDRESSES];
  bool deprecated[NST_ADDRESSES];
  size_t i;
  for (i = 0; i < all->count; i++) {
    size_t place = place_of(interface, &all->addresses[i].address);
    fresh[i] = place > NST_ADDRESSES;
    until[i] = fresh[i] ? 0 : interface->tentative_until[place];
    deprecated[i] = all->origins[i] == NST_ADDRESS_FORMED && place < NST_ADDRESSES && interface->deprecated[place];
  }
  memcpy(interface->addresses, all->addresses, all->count * sizeof *all->addresses);
  memcpy(interface->origins, all->origins, all->count * sizeof *all->origins);
  memcpy(interface->tentative_until, until, all->count * sizeof *until);
  memcpy(interface->deprecated, deprecated, all->count * sizeof *deprecated);
  interface->address_count = all->count;
}

static bool add_connected_route(nst_interface *interface, size_t i) {
  nst_prefix to = interface->addresses[i];
  /* What is on the link is another thing that routers say (RFC 5942 §4). */
  if (interface->origins[i] == NST_ADDRESS_FORMED) to.bits = 128;
  return nst_route_add(interface->stack, &to, interface, NULL, NST_ROUTE_CONNECTED) == NST_OK;
}

static nst_error replace(nst_interface *interface, nst_address_origin origin, const nst_prefix *addresses,
                         size_t count) {
  nst_stack *stack = interface->stack;
  bool fresh[NST_ADDRESSES];
  merged all;
  size_t i;
  int next = 0;
  merge(&all, interface, origin, addresses, count);
  if (all.four > NST_IPV4_ADDRESSES || all.six > NST_IPV6_ADDRESSES) return NST_FULL;
  if (all.six > 0 && interface->mtu < IP6_MIN_MTU_LENGTH) return NST_NOT_SUPPORTED;
  if (all.four > 1 && stack->netif_count + all.four > NST_NETIFS + registered_of(interface)) return NST_FULL;
  nst_routes_drop(stack, interface, NST_ROUTE_CONNECTED);
  take_over(interface, &all, fresh);
  count = all.count;
  for (i = 0; i < count; i++) {
    const nst_prefix *address = &interface->addresses[i];
    if (!IP_IS_V6(&address->address) && !set_netif4(interface, next++, address)) return NST_FULL;
  }
  if (next == 0) set_netif4(interface, next++, NULL);
  for (; next < NST_IPV4_ADDRESSES; next++) set_netif4(interface, next, NULL);
  set_netif6(interface);
  for (i = 0; i < count; i++) {
    if (!add_connected_route(interface, i)) return NST_NO_MEMORY;
  }
  if (!own_all(interface)) return NST_NO_MEMORY;
  nst_tcp_addresses_changed(stack);
  nst_nat_follow(interface);
  nst_groups_follow(interface);
  for (i = 0; i < count && nst_interface_is_ethernet(interface); i++) {
    if (fresh[i]) nst_ethernet_announce(interface, &interface->addresses[i].address);
  }
  return NST_OK;
}

nst_error nst_interface_set_addresses(nst_interface *interface, nst_address_origin origin, const nst_prefix *addresses,
                                      size_t count) {
  nst_error error = replace(interface, origin, addresses, count);
  if (error != NST_OK || origin != NST_ADDRESS_GIVEN) return error;
  if (count > 0) memcpy(interface->given, addresses, count * sizeof *addresses);
  interface->given_count = count;
  return NST_OK;
}

void nst_addresses_reclaim(nst_interface *interface) {
  size_t i, left = 0;
  for (i = 0; i < interface->address_count; i++) left += interface->origins[i] == NST_ADDRESS_GIVEN;
  if (left < interface->given_count) {
    (void)replace(interface, NST_ADDRESS_GIVEN, interface->given, interface->given_count);
  }
}

void nst_interface_lose_address(nst_interface *interface, const ip_addr_t *address) {
  nst_prefix left[NST_ADDRESSES];
  ip_addr_t lost = *address;
  size_t i, count = 0, place = place_of(interface, &lost);
  nst_address_origin origin = place < NST_ADDRESSES ? interface->origins[place] : NST_ADDRESS_GIVEN;
  memset(left, 0, sizeof left);
  if (place == NST_ADDRESSES) interface->has_link_local = false;
  for (i = 0; i < interface->address_count; i++) {
    if (i != place && interface->origins[i] == origin) left[count++] = interface->addresses[i];
  }
  (void)replace(interface, origin, left, count);
  if (origin == NST_ADDRESS_FORMED) nst_slaac_duplicate(interface, &lost);
}

/* On a link that we come back to, much may have changed. */
void nst_addresses_announce(nst_interface *interface) {
  size_t i;
  if (interface->has_link_local) nst_ethernet_announce(interface, &interface->link_local.address);
  for (i = 0; i < interface->address_count; i++) nst_ethernet_announce(interface, &interface->addresses[i].address);
}

bool nst_addresses_begin(nst_interface *interface) {
  return set_netif4(interface, 0, NULL);
}

void nst_addresses_end(nst_interface *interface) {
  int i;
  for (i = 0; i < NST_IPV4_ADDRESSES; i++) {
    if (interface->registered[i]) remove_netif(interface, i);
  }
}
