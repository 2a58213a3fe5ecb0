#include "group.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "checksum.h"
#include "raw.h"
#include "stack.h"
#include "udp.h"

#include "lwip/stats.h"

/* RFC 2236 8.10, RFC 2710 7.10: the first report is repeated once, at a random time in so long. */
#define REPEATED_WITHIN (10 * NST_SECOND)
/* A querier that wants answers faster gets them in this time, or a flood of queries would be one of reports. */
#define LEAST_WITHIN (100 * NST_MILLISECOND)

static uint64_t hash_of(const nst_interface *interface, const uint8_t *address, size_t length) {
  uint8_t key[sizeof interface + 16];
  memcpy(key, &interface, sizeof interface);
  memcpy(key + sizeof interface, address, length);
  return nst_siphash(interface->stack->secret, key, sizeof interface + length);
}

/* `address`: 4 or 16 bytes. */
static nst_group *find(const nst_interface *interface, const uint8_t *address, size_t length) {
  uint64_t hash = hash_of(interface, address, length);
  nst_node *node;
  for (node = nst_table_bucket(&interface->stack->groups.table, hash); node; node = node->next) {
    nst_group *group = nst_holder(node, nst_group, node);
    if (node->hash == hash && group->interface == interface && nst_address_size(&group->address) == length &&
        memcmp(nst_address_bytes(&group->address), address, length) == 0) {
      return group;
    }
  }
  return NULL;
}

static nst_group *find_address(const nst_interface *interface, const ip_addr_t *address) {
  return find(interface, nst_address_bytes(address), nst_address_size(address));
}

static nst_group *begin(nst_interface *interface, const ip_addr_t *address) {
  nst_group *group = calloc(1, sizeof *group);
  if (group == NULL) return NULL;
  group->interface = interface;
  group->address = *address;
  if (IP_IS_V6(address)) ip6_addr_clear_zone(ip_2_ip6(&group->address));
  if (!nst_table_insert(&interface->stack->groups.table, &group->node,
                        hash_of(interface, nst_address_bytes(address), nst_address_size(address)))) {
    free(group);
    return NULL;
  }
  nst_list_init(&group->members);
  nst_list_append(&interface->groups, &group->link);
  interface->group_count++;
  return group;
}

static void end_membership(nst_membership *membership) {
  nst_list_remove(&membership->member);
  nst_list_remove(&membership->link);
  membership->udp->membership_count--;
  free(membership);
}

static void forget(nst_group *group) {
  nst_groups *all = &group->interface->stack->groups;
  nst_link *link;
  while ((link = group->members.next) != &group->members) {
    end_membership(nst_holder(link, nst_membership, member));
  }
  nst_table_remove(&all->table, &group->node);
  nst_heap_remove(&all->timers, &group->timer);
  nst_list_remove(&group->link);
  group->interface->group_count--;
  free(group);
}

/* ---- telling the link ---- */

/* The groups that everybody is in are never spoken of, nor those that end in this host (RFC 2236 §6, RFC 2710 §5). */
static bool is_told(const ip_addr_t *address) {
  const uint8_t *bytes = nst_address_bytes(address);
  if (IP_IS_V6(address)) return !ip6_addr_isallnodes_linklocal(ip_2_ip6(address)) && (bytes[1] & 15) > 1;
  return ip4_addr_get_u32(ip_2_ip4(address)) != PP_HTONL(0xe0000001);
}

/* With the device full it is dropped: it will be repeated, or asked for. */
static void tell(nst_group *group, bool leaves) {
  nst_interface *interface = group->interface;
  nst_groups *all = &interface->stack->groups;
  nst_packet *packet;
  ip_addr_t to;
  if (!interface->on || interface->device == NULL || !is_told(&group->address)) return;
  packet = (IP_IS_V6(&group->address) ? nst_mld_build : nst_igmp_build)(interface, &group->address, leaves, &to);
  if (packet == NULL) return;
  if (leaves) all->leaves++;
  else all->reports++;
  nst_interface_send(interface, packet, &to);
}

/* A report goes out at a random time; a sooner one that is due anyway will do. */
static void tell_within(nst_group *group, nst_time within) {
  nst_stack *stack = group->interface->stack;
  uint64_t most = (uint64_t)(within / NST_MICROSECOND);
  nst_time after;
  if (!is_told(&group->address)) return;
  if (group->timer.place != 0 && group->timer.at <= stack->now + within) return;
  after = (nst_time)(((uint64_t)nst_random_u32(&stack->random) * most >> 32) + 1) * NST_MICROSECOND;
  (void)nst_heap_set(&stack->groups.timers, &group->timer, stack->now + after);
}

/* Of the groups that our addresses need there is one report, with the first question for neighbours behind it. */
static void introduce(nst_group *group) {
  tell(group, false);
  if (!nst_list_empty(&group->members)) tell_within(group, REPEATED_WITHIN);
}

/* When nobody wants it any more. `tells`: the link is to know. */
static void release(nst_group *group, bool tells) {
  if (group->own || !nst_list_empty(&group->members)) return;
  if (tells) tell(group, true);
  forget(group);
}

/* ---- joining ---- */

static nst_membership *membership_in(const nst_udp *udp, const nst_interface *interface, const ip_addr_t *address) {
  nst_link *link;
  for (link = udp->memberships.next; link != &udp->memberships; link = link->next) {
    nst_membership *membership = nst_holder(link, nst_membership, link);
    const nst_group *group = membership->group;
    if ((interface == NULL || group->interface == interface) && ip_addr_zoneless_eq(&group->address, address)) {
      return membership;
    }
  }
  return NULL;
}

nst_error nst_group_join(nst_udp *udp, nst_interface *interface, const ip_addr_t *address) {
  nst_stack *stack = udp->socket.stack;
  nst_membership *membership;
  nst_group *group;
  bool first;
  if (!ip_addr_ismulticast(address)) return NST_INVALID_ADDRESS;
  if (interface == NULL) {
    struct netif *netif = nst_route_find(stack, NULL, address);
    if (netif == NULL) return NST_NO_ROUTE;
    interface = nst_interface_of(netif);
  }
  if (IP_IS_V6(address) && interface->mtu < IP6_MIN_MTU_LENGTH) return NST_NOT_SUPPORTED;
  if (membership_in(udp, interface, address)) return NST_ADDRESS_IN_USE;
  group = find_address(interface, address);
  if (udp->membership_count >= NST_MEMBERSHIPS || (group == NULL && interface->group_count >= NST_GROUPS)) {
    return NST_FULL;
  }
  membership = calloc(1, sizeof *membership);
  if (membership == NULL) return NST_NO_MEMORY;
  if (group == NULL) group = begin(interface, address);
  if (group == NULL) {
    free(membership);
    return NST_NO_MEMORY;
  }
  membership->group = group;
  membership->udp = udp;
  nst_list_append(&udp->memberships, &membership->link);
  udp->membership_count++;
  first = nst_list_empty(&group->members) && !group->own;
  nst_list_append(&group->members, &membership->member);
  if (first) introduce(group);
  return NST_OK;
}

nst_error nst_group_leave(nst_udp *udp, nst_interface *interface, const ip_addr_t *address) {
  nst_membership *membership;
  nst_group *group;
  if (!ip_addr_ismulticast(address)) return NST_INVALID_ADDRESS;
  membership = membership_in(udp, interface, address);
  if (membership == NULL) return NST_ADDRESS_NOT_AVAILABLE;
  group = membership->group;
  end_membership(membership);
  release(group, true);
  return NST_OK;
}

void nst_groups_leave_all(nst_udp *udp, bool tells) {
  nst_link *link;
  while ((link = udp->memberships.next) != &udp->memberships) {
    nst_membership *membership = nst_holder(link, nst_membership, link);
    nst_group *group = membership->group;
    end_membership(membership);
    release(group, tells);
  }
}

/* ---- the interface ---- */

/* Neighbours ask for an address in the group of its last 24 bits (RFC 4291 2.7.1). */
static void solicited_node(const ip_addr_t *address, ip_addr_t *group) {
  IP_SET_TYPE_VAL(*group, IPADDR_TYPE_V6);
  ip6_addr_set_solicitednode(ip_2_ip6(group), ip_2_ip6(address)->addr[3]);
}

static bool needs(const nst_interface *interface, const ip_addr_t *group) {
  ip_addr_t wanted;
  size_t i;
  if (interface->has_link_local) {
    solicited_node(&interface->link_local.address, &wanted);
    if (ip_addr_eq(&wanted, group)) return true;
  }
  for (i = 0; i < interface->address_count; i++) {
    if (!IP_IS_V6(&interface->addresses[i].address)) continue;
    solicited_node(&interface->addresses[i].address, &wanted);
    if (ip_addr_eq(&wanted, group)) return true;
  }
  return false;
}

static void want_for(nst_interface *interface, const ip_addr_t *address) {
  nst_group *group;
  ip_addr_t wanted;
  bool first;
  if (!IP_IS_V6(address)) return;
  solicited_node(address, &wanted);
  group = find_address(interface, &wanted);
  first = group == NULL;
  if (first) group = begin(interface, &wanted);
  if (group == NULL) return;
  group->own = true;
  if (first) introduce(group);
}

void nst_groups_follow(nst_interface *interface) {
  nst_link *link, *next;
  size_t i;
  if (!nst_interface_is_ethernet(interface)) return;
  for (link = interface->groups.next; link != &interface->groups; link = next) {
    nst_group *group = nst_holder(link, nst_group, link);
    next = link->next;
    if (!group->own || needs(interface, &group->address)) continue;
    group->own = false;
    release(group, true);
  }
  if (interface->has_link_local) want_for(interface, &interface->link_local.address);
  for (i = 0; i < interface->address_count; i++) want_for(interface, &interface->addresses[i].address);
}

void nst_groups_announce(nst_interface *interface) {
  nst_link *link;
  for (link = interface->groups.next; link != &interface->groups; link = link->next) {
    introduce(nst_holder(link, nst_group, link));
  }
}

void nst_groups_forget(nst_interface *interface) {
  nst_link *link;
  while ((link = interface->groups.next) != &interface->groups) forget(nst_holder(link, nst_group, link));
}

void nst_groups_clear(nst_stack *stack) {
  nst_table_free(&stack->groups.table);
  nst_heap_free(&stack->groups.timers);
}

/* ---- what comes in ---- */

static bool is_to_group(const uint8_t *packet) {
  return packet[0] >> 4 == 6 ? packet[24] == 0xff : packet[16] >> 4 == 0xe;
}

static const nst_group *group_of(const nst_interface *interface, const uint8_t *packet) {
  return packet[0] >> 4 == 6 ? find(interface, packet + 24, 16) : find(interface, packet + 16, 4);
}

/* 224.0.0.1; ff01::1 and ff02::1 */
static bool is_to_everybody(const uint8_t *packet) {
  static const uint8_t group4[4] = {224, 0, 0, 1}, rest6[14] = {[13] = 1};
  if (packet[0] >> 4 == 4) return memcmp(packet + 16, group4, 4) == 0;
  return (packet[25] == 1 || packet[25] == 2) && memcmp(packet + 26, rest6, 14) == 0;
}

bool nst_group_wanted(const nst_interface *interface, const uint8_t *packet) {
  return !is_to_group(packet) || is_to_everybody(packet) || group_of(interface, packet) != NULL;
}

static void heed(nst_interface *interface, const uint8_t *packet, size_t length) {
  nst_groups *all = &interface->stack->groups;
  nst_query query;
  nst_group *group;
  nst_link *link;
  memset(&query, 0, sizeof query);
  (packet[0] >> 4 == 6 ? nst_mld_read : nst_igmp_read)(interface, packet, length, &query);
  if (query.bad) all->ignored++;
  if (query.bad || !query.is_query) return;
  all->queries++;
  if (query.within < LEAST_WITHIN) query.within = LEAST_WITHIN;
  if (!query.general) {
    group = find_address(interface, &query.address);
    if (group) tell_within(group, query.within);
    return;
  }
  for (link = interface->groups.next; link != &interface->groups; link = link->next) {
    group = nst_holder(link, nst_group, link);
    if (IP_GET_TYPE(&group->address) == IP_GET_TYPE(&query.address)) tell_within(group, query.within);
  }
}

/*
** lwIP, without IGMP and MLD of its own, hands a datagram to one socket, in IPv4 whatever the group, and in IPv6 only
** those for all nodes. Behind extension headers, whose options lwIP would have to judge, it is left to it.
*/
bool nst_group_input(nst_interface *interface, struct pbuf *p) {
  nst_stack *stack = interface->stack;
  const uint8_t *ip = p->payload;
  bool ipv6 = ip[0] >> 4 == 6, to_group = is_to_group(ip), to_all = is_to_everybody(ip);
  size_t header = ipv6 ? 40 : (ip[0] & 15u) * 4u, length = ipv6 ? 40 + nst_get16(ip + 4) : nst_get16(ip + 2);
  const nst_group *group = to_group ? group_of(interface, ip) : NULL;
  bool ours = ipv6 ? nst_is_mld(ip, length) : nst_is_igmp(ip);
  bool udp = to_group && ip[ipv6 ? 6 : 9] == IP_PROTO_UDP && length >= header + UDP_HLEN;
  ip_addr_t from, to;
  if (length > p->tot_len || header > length) return false;
  /* Of IPv6 groups lwIP lets in those that it knows itself. */
  if (!ours && !udp && (!to_group || !ipv6 || to_all || group->own)) return false;
  pbuf_realloc(p, (u16_t)length); /* behind that there may be Ethernet's padding */
  nst_packet_addresses(interface, ip, &from, &to);
  if (ipv6) IP6_STATS_INC(ip6.recv);
  else IP_STATS_INC(ip.recv);
  if (!ipv6 && interface->device && interface->device->checksum && nst_header_checksum(ip) != 0) {
    IP_STATS_INC(ip.chkerr);
    IP_STATS_INC(ip.drop);
  } else {
    nst_raw_give(stack, p, &from);
    if (ours) heed(interface, ip, length);
    else if (udp && pbuf_remove_header(p, header) == 0) {
      nst_udp_group_input(interface, p, to_all, group, &from, &to);
    }
  }
  pbuf_free(p);
  return true;
}

/* ---- time ---- */

nst_time nst_groups_next(const nst_stack *stack) {
  const nst_timer *first = nst_heap_first(&stack->groups.timers);
  return first ? first->at : NST_NEVER;
}

bool nst_groups_run(nst_stack *stack) {
  bool worked = false;
  while (nst_groups_next(stack) <= stack->now) {
    nst_group *group = nst_holder(nst_heap_first(&stack->groups.timers), nst_group, timer);
    nst_heap_remove(&stack->groups.timers, &group->timer);
    tell(group, false);
    worked = true;
  }
  return worked;
}
