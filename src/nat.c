/* Masquerading: what becomes of packets, what users map, and the interfaces that do it. */
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "nat_table.h"
#include "tcp.h"

/* What a user may make. */
#define FIXED_MAPPINGS 1024

/* ---- packets ---- */

static const char *outward(nst_nat *nat, const nst_flow *flow, nst_translation *change) {
  nst_stack *stack = nat->interface->stack;
  nst_mapping *mapping = nst_mapping_find_inside(nat, flow->protocol, &flow->source);
  if (mapping == NULL || !mapping->fixed) {
    nst_nat_session *s = mapping ? nst_nat_find_session(stack, mapping, &flow->destination) : NULL;
    if (s == NULL && !flow->asks) {
      stack->nat.unmatched++;
      return "belongs to no session";
    }
    if (s == NULL) {
      const char *cause = nst_nat_begin(nat, flow, &mapping, &s);
      if (cause) return cause;
    }
    if (!flow->error) nst_nat_track(stack, s, flow, NST_NAT_INSIDE);
  }
  change->changes_source = true;
  change->source = mapping->outside;
  return NULL;
}

const char *nst_nat_outward(nst_interface *interface, const nst_packet *packet, nst_translation *change) {
  nst_flow flow;
  if (!nst_flow_read(packet->data, packet->length, &flow)) {
    interface->stack->nat.unmatched++;
    return "not to be translated";
  }
  if (change->changes_destination) flow.destination = change->destination;
  return outward(interface->nat, &flow, change);
}

/* Our own connections share ports with nobody, but need not be bound to them: those that a listener accepted, or that
** were made to somebody. */
static bool is_our_connection(nst_stack *stack, const nst_flow *flow) {
  ip_addr_t local, remote;
  if (flow->protocol != NST_NAT_TCP || stack->connections.count == 0) return false;
  local = nst_nat_address(flow->destination.host);
  remote = nst_nat_address(flow->source.host);
  return nst_tcp_find(stack, &local, flow->destination.port, &remote, flow->source.port) != NULL;
}

bool nst_nat_inward(nst_interface *interface, const nst_packet *packet, nst_translation *change, const char **cause) {
  nst_stack *stack = interface->stack;
  nst_mapping *mapping;
  nst_flow flow;
  if (stack->nat.outside.count == 0 || !nst_flow_read(packet->data, packet->length, &flow)) return false;
  mapping = nst_mapping_find_outside(stack, flow.protocol, &flow.destination);
  if (mapping == NULL || is_our_connection(stack, &flow)) return false;
  if (interface->nat == NULL) { /* from inside to inside: both see each other as from outside (RFC 4787 REQ-9) */
    *cause = outward(mapping->nat, &flow, change);
    if (*cause) return true;
    flow.source = change->source;
  }
  if (!mapping->fixed) {
    nst_nat_session *s = nst_nat_find_session(stack, mapping, &flow.source);
    if (s == NULL && (flow.error || flow.protocol == NST_NAT_ICMP)) return false; /* we may have asked ourselves */
    if (s == NULL) { /* silently: the answer to what is under way from inside may have met it (RFC 5382 REQ-4) */
      stack->nat.filtered++;
      *cause = "nobody inside asked for it";
      return true;
    }
    if (!flow.error) nst_nat_track(stack, s, &flow, NST_NAT_OUTSIDE);
  }
  change->changes_destination = true;
  change->destination = mapping->inside;
  return true;
}

bool nst_nat_holds(const nst_stack *stack, nst_protocol protocol, const ip_addr_t *host, uint16_t port) {
  static const uint8_t numbers[] = {[NST_TCP] = NST_NAT_TCP, [NST_UDP] = NST_NAT_UDP, [NST_RAW] = NST_NAT_ICMP};
  const nst_link *link;
  for (link = stack->nat.all.next; link != &stack->nat.all; link = link->next) {
    const nst_nat *nat = nst_holder(link, const nst_nat, link);
    nst_endpoint outside;
    if (IP_IS_V6(host) || !(ip_addr_isany(host) || memcmp(nst_address_bytes(host), nat->address, 4) == 0)) continue;
    memcpy(outside.host, nat->address, 4);
    outside.port = port;
    if (nst_mapping_find_outside(stack, numbers[protocol], &outside)) return true;
  }
  return false;
}

/* ---- the user's ---- */

static bool has_address(const nst_nat *nat) {
  static const uint8_t none[4];
  return memcmp(nat->address, none, 4) != 0;
}

static nst_mapping *find_fixed(const nst_nat *nat, uint8_t protocol, uint16_t port) {
  const nst_link *link;
  for (link = nat->mappings.next; link != &nat->mappings; link = link->next) {
    nst_mapping *mapping = nst_holder(link, nst_mapping, link);
    if (mapping->fixed && mapping->protocol == protocol && mapping->outside.port == port) return mapping;
  }
  return NULL;
}

static bool is_host_inside(const nst_stack *stack, const nst_endpoint *inside) {
  ip_addr_t address = nst_nat_address(inside->host);
  return inside->host[0] != 0 && inside->host[0] != 127 && inside->host[0] < 224 &&
         nst_interface_with_address(stack, &address) == NULL;
}

nst_error nst_nat_map(nst_interface *interface, uint8_t protocol, uint16_t port, const nst_endpoint *inside) {
  nst_stack *stack = interface->stack;
  nst_nat *nat = interface->nat;
  nst_mapping *mapping, *learned;
  if (nat == NULL) return NST_NOT_SUPPORTED;
  nst_nat_expire(stack);
  if (!has_address(nat)) return NST_ADDRESS_NOT_AVAILABLE;
  if (!is_host_inside(stack, inside)) return NST_INVALID_ADDRESS;
  learned = nst_mapping_find_inside(nat, protocol, inside);
  if ((learned && learned->fixed) || find_fixed(nat, protocol, port)) return NST_ADDRESS_IN_USE;
  if (!(learned && learned->outside.port == port) && !nst_mapping_is_free(nat, protocol, port)) {
    return NST_ADDRESS_IN_USE;
  }
  if (stack->nat.fixed >= FIXED_MAPPINGS) return NST_FULL;
  mapping = nst_mapping_make(nat, protocol, inside);
  if (mapping == NULL) return NST_NO_MEMORY;
  if (learned) nst_mapping_forget(learned); /* what it carried goes on, if the port stays */
  mapping->fixed = true;
  stack->nat.fixed++;
  if (nst_mapping_enter(mapping, port)) return NST_OK;
  nst_mapping_forget(mapping);
  return NST_NO_MEMORY;
}

nst_error nst_nat_unmap(nst_interface *interface, uint8_t protocol, uint16_t port) {
  nst_mapping *mapping = interface->nat ? find_fixed(interface->nat, protocol, port) : NULL;
  if (mapping == NULL) return NST_EMPTY;
  nst_mapping_forget(mapping);
  return NST_OK;
}

/* ---- interfaces ---- */

void nst_nat_unlearn(nst_interface *interface) {
  nst_nat *nat = interface->nat;
  nst_link *link = nat ? nat->mappings.next : NULL;
  while (link && link != &nat->mappings) {
    nst_mapping *mapping = nst_holder(link, nst_mapping, link);
    link = link->next;
    if (!mapping->fixed) nst_mapping_forget(mapping);
  }
}

void nst_nat_follow(nst_interface *interface) {
  nst_nat *nat = interface->nat;
  const ip4_addr_t *first = netif_ip4_addr(&interface->netifs[0]);
  nst_link *link;
  if (nat == NULL || memcmp(nat->address, &first->addr, 4) == 0) return;
  memcpy(nat->address, &first->addr, 4);
  nst_nat_unlearn(interface);
  for (link = nat->mappings.next; link != &nat->mappings; link = link->next) {
    nst_mapping_withdraw(nst_holder(link, nst_mapping, link));
  }
  for (link = nat->mappings.next; link != &nat->mappings && has_address(nat); link = link->next) {
    nst_mapping *mapping = nst_holder(link, nst_mapping, link);
    uint16_t port = mapping->outside.port;
    if (nst_mapping_is_free(nat, mapping->protocol, port)) (void)nst_mapping_enter(mapping, port);
  }
}

void nst_nat_forget(nst_interface *interface) {
  if (interface->nat == NULL) return;
  memset(interface->nat->address, 0, sizeof interface->nat->address);
  nst_nat_follow(interface);
}

nst_error nst_nat_start(nst_interface *interface) {
  nst_stack *stack = interface->stack;
  if (!stack->config.forwarding) return NST_NOT_SUPPORTED;
  if (interface->nat) return NST_OK;
  interface->nat = calloc(1, sizeof *interface->nat);
  if (interface->nat == NULL) return NST_NO_MEMORY;
  interface->nat->interface = interface;
  nst_list_init(&interface->nat->link);
  nst_list_init(&interface->nat->mappings);
  nst_list_append(&stack->nat.all, &interface->nat->link);
  nst_nat_follow(interface);
  return NST_OK;
}

void nst_nat_stop(nst_interface *interface) {
  nst_nat *nat = interface->nat;
  if (nat == NULL) return;
  while (!nst_list_empty(&nat->mappings)) nst_mapping_forget(nst_holder(nat->mappings.next, nst_mapping, link));
  nst_list_remove(&nat->link);
  free(nat);
  interface->nat = NULL;
}

void nst_nats_init(nst_stack *stack) {
  int i;
  nst_list_init(&stack->nat.all);
  for (i = 0; i < NST_NAT_AGES; i++) nst_list_init(&stack->nat.ages[i]);
}

void nst_nats_clear(nst_stack *stack) {
  nst_table_free(&stack->nat.inside);
  nst_table_free(&stack->nat.outside);
  nst_table_free(&stack->nat.sessions);
  nst_table_free(&stack->nat.hosts);
}
