#include "nat.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "stack.h"
#include "tcp.h"

#include "lwip/prot/tcp.h"

/*
** How many sessions one host inside may have, and all of them. The ports of an address are twice as many, so that a
** free one is found at once. And how many mappings a user may make.
*/
#define HOST_SESSIONS 4096
#define STACK_SESSIONS 32768
#define FIXED_MAPPINGS 1024

/* RFC 4787 REQ-5, RFC 5508 REQ-2, RFC 5382 REQ-5. */
static const nst_time lasts[NST_NAT_AGES] = {
  [NST_NAT_DATAGRAMS] = 300 * NST_SECOND,
  [NST_NAT_QUERIES] = 60 * NST_SECOND,
  [NST_NAT_TRANSITORY] = 240 * NST_SECOND,
  [NST_NAT_ESTABLISHED] = (7200 + 240) * NST_SECOND,
};

static const char too_many[] = "too many sessions behind the interface";
static const char no_memory[] = "no memory";

struct nst_nat_host {
  nst_node node; /* in the stack's table */
  uint8_t address[4];
  size_t sessions;
};

/* Ends of a session, as bits. */
enum { INSIDE = 1, OUTSIDE = 2, BOTH = 3 };

struct nst_nat_session {
  nst_node node;    /* in the stack's table */
  nst_link sibling; /* in mapping->sessions */
  nst_link age;     /* in the stack's ages */
  nst_mapping *mapping;
  nst_nat_host *host;
  nst_endpoint remote;
  nst_time used;
  uint8_t heard, ended; /* TCP's ends that acknowledged something, or sent FIN */
  bool reset;           /* RST came last */
};
typedef nst_nat_session session;

/* ---- tables ---- */

static bool same(const nst_endpoint *a, const nst_endpoint *b) {
  return a->port == b->port && memcmp(a->host, b->host, 4) == 0;
}

static uint64_t hash_of_end(const nst_stack *stack, uint8_t protocol, const nst_endpoint *end) {
  uint8_t key[7];
  memcpy(key, end->host, 4);
  memcpy(key + 4, &end->port, 2);
  key[6] = protocol;
  return nst_siphash(stack->secret, key, sizeof key);
}

static uint64_t hash_of_session(const nst_stack *stack, const nst_mapping *mapping, const nst_endpoint *remote) {
  uint8_t key[13];
  memcpy(key, mapping->outside.host, 4);
  memcpy(key + 4, &mapping->outside.port, 2);
  memcpy(key + 6, remote->host, 4);
  memcpy(key + 10, &remote->port, 2);
  key[12] = mapping->protocol;
  return nst_siphash(stack->secret, key, sizeof key);
}

static nst_mapping *find_inside(const nst_nat *nat, uint8_t protocol, const nst_endpoint *inside) {
  const nst_stack *stack = nat->interface->stack;
  uint64_t hash = hash_of_end(stack, protocol, inside);
  nst_node *node;
  for (node = nst_table_bucket(&stack->nat.inside, hash); node; node = node->next) {
    nst_mapping *mapping = nst_holder(node, nst_mapping, by_inside);
    if (node->hash == hash && mapping->nat == nat && mapping->protocol == protocol && same(&mapping->inside, inside)) {
      return mapping;
    }
  }
  return NULL;
}

static nst_mapping *find_outside(const nst_stack *stack, uint8_t protocol, const nst_endpoint *outside) {
  uint64_t hash = hash_of_end(stack, protocol, outside);
  nst_node *node;
  for (node = nst_table_bucket(&stack->nat.outside, hash); node; node = node->next) {
    nst_mapping *mapping = nst_holder(node, nst_mapping, by_outside);
    if (node->hash == hash && mapping->protocol == protocol && same(&mapping->outside, outside)) return mapping;
  }
  return NULL;
}

static session *find_session(const nst_stack *stack, nst_mapping *mapping, const nst_endpoint *remote) {
  uint64_t hash;
  nst_node *node;
  if (mapping->recent && same(&mapping->recent->remote, remote)) return mapping->recent;
  hash = hash_of_session(stack, mapping, remote);
  for (node = nst_table_bucket(&stack->nat.sessions, hash); node; node = node->next) {
    session *s = nst_holder(node, session, node);
    if (node->hash == hash && s->mapping == mapping && same(&s->remote, remote)) {
      mapping->recent = s;
      return s;
    }
  }
  return NULL;
}

/* Found or made; NULL: no memory. */
static nst_nat_host *host_of(nst_stack *stack, const uint8_t address[4]) {
  uint64_t hash = nst_siphash(stack->secret, address, 4);
  nst_nat_host *host;
  nst_node *node;
  for (node = nst_table_bucket(&stack->nat.hosts, hash); node; node = node->next) {
    host = nst_holder(node, nst_nat_host, node);
    if (node->hash == hash && memcmp(host->address, address, 4) == 0) return host;
  }
  host = calloc(1, sizeof *host);
  if (host == NULL) return NULL;
  memcpy(host->address, address, 4);
  if (nst_table_insert(&stack->nat.hosts, &host->node, hash)) return host;
  free(host);
  return NULL;
}

static void let_go(nst_stack *stack, nst_nat_host *host) {
  if (host->sessions > 0) return;
  nst_table_remove(&stack->nat.hosts, &host->node);
  free(host);
}

/* ---- mappings ---- */

static nst_protocol port_space(uint8_t protocol) {
  return protocol == NST_NAT_TCP ? NST_TCP : protocol == NST_NAT_UDP ? NST_UDP : NST_RAW;
}

static ip_addr_t address_of(const uint8_t host[4]) {
  ip_addr_t address = IPADDR4_INIT(0);
  memcpy(&ip_2_ip4(&address)->addr, host, 4);
  return address;
}

static bool has_address(const nst_nat *nat) {
  static const uint8_t none[4];
  return memcmp(nat->address, none, 4) != 0;
}

static bool is_free(const nst_nat *nat, uint8_t protocol, uint16_t port) {
  ip_addr_t own = address_of(nat->address);
  return !nst_port_is_taken(nat->interface->stack, port_space(protocol), &own, port);
}

/* Takes it out of the tables, with all that is said over it. */
static void withdraw(nst_mapping *mapping);

static void forget(nst_mapping *mapping) {
  withdraw(mapping);
  nst_list_remove(&mapping->link);
  if (mapping->fixed) mapping->nat->interface->stack->nat.fixed--;
  free(mapping);
}

/* Takes the session out of everything; its mapping goes with the last one, unless it is the user's. */
static void end_session(nst_stack *stack, session *s, bool with_mapping) {
  nst_mapping *mapping = s->mapping;
  nst_table_remove(&stack->nat.sessions, &s->node);
  nst_list_remove(&s->sibling);
  nst_list_remove(&s->age);
  if (mapping->recent == s) mapping->recent = NULL;
  mapping->session_count--;
  s->host->sessions--;
  let_go(stack, s->host);
  free(s);
  if (with_mapping && mapping->session_count == 0 && !mapping->fixed) forget(mapping);
}

static void withdraw(nst_mapping *mapping) {
  nst_stack *stack = mapping->nat->interface->stack;
  while (!nst_list_empty(&mapping->sessions)) {
    end_session(stack, nst_holder(mapping->sessions.next, session, sibling), false);
  }
  nst_table_remove(&stack->nat.inside, &mapping->by_inside);
  nst_table_remove(&stack->nat.outside, &mapping->by_outside);
}

/* Puts it in force at that port. false: no memory. */
static bool enter(nst_mapping *mapping, uint16_t port) {
  nst_stack *stack = mapping->nat->interface->stack;
  memcpy(mapping->outside.host, mapping->nat->address, 4);
  mapping->outside.port = port;
  if (nst_table_insert(&stack->nat.inside, &mapping->by_inside,
                       hash_of_end(stack, mapping->protocol, &mapping->inside)) &&
      nst_table_insert(&stack->nat.outside, &mapping->by_outside,
                       hash_of_end(stack, mapping->protocol, &mapping->outside))) {
    return true;
  }
  withdraw(mapping);
  return false;
}

/* In no table yet; NULL: no memory. */
static nst_mapping *make(nst_nat *nat, uint8_t protocol, const nst_endpoint *inside) {
  nst_mapping *mapping = calloc(1, sizeof *mapping);
  if (mapping == NULL) return NULL;
  mapping->nat = nat;
  mapping->protocol = protocol;
  mapping->inside = *inside;
  nst_list_init(&mapping->link);
  nst_list_init(&mapping->sessions);
  nst_list_append(&nat->mappings, &mapping->link);
  return mapping;
}

/* The port that the host itself has, if it is free (RFC 4787 4.2.1), else a random one; 0: there is none. */
static uint16_t choose_port(const nst_nat *nat, const nst_flow *flow) {
  nst_stack *stack = nat->interface->stack;
  ip_addr_t own = address_of(nat->address), remote = address_of(flow->destination.host);
  uint16_t port = flow->source.port;
  bool tcp = flow->protocol == NST_NAT_TCP;
  if (port != 0 && is_free(nat, flow->protocol, port) &&
      !(tcp && nst_tcp_find(stack, &own, port, &remote, flow->destination.port))) {
    return port;
  }
  return nst_port_choose(stack, port_space(flow->protocol), &own, tcp ? &remote : NULL, flow->destination.port);
}

/* NULL, or why there can be none. */
static const char *make_mapping(nst_nat *nat, const nst_flow *flow, nst_mapping **result) {
  uint16_t port = choose_port(nat, flow);
  nst_mapping *mapping;
  if (port == 0) {
    nat->interface->stack->nat.limited++;
    return too_many;
  }
  mapping = make(nat, flow->protocol, &flow->source);
  if (mapping == NULL) return no_memory;
  if (!enter(mapping, port)) {
    forget(mapping);
    return no_memory;
  }
  *result = mapping;
  return NULL;
}

/* ---- sessions ---- */

static nst_nat_age age_of(const session *s) {
  if (s->mapping->protocol == NST_NAT_UDP) return NST_NAT_DATAGRAMS;
  if (s->mapping->protocol == NST_NAT_ICMP) return NST_NAT_QUERIES;
  return s->heard == BOTH && s->ended != BOTH && !s->reset ? NST_NAT_ESTABLISHED : NST_NAT_TRANSITORY;
}

static void use(nst_stack *stack, session *s) {
  s->used = stack->now;
  nst_list_remove(&s->age);
  nst_list_append(&stack->nat.ages[age_of(s)], &s->age);
}

/* What comes from outside keeps nothing alive (RFC 4787 REQ-6), but may say that a connection is open, or ends. */
static void track(nst_stack *stack, session *s, const nst_flow *flow, unsigned from) {
  nst_nat_age before = age_of(s);
  if (flow->protocol == NST_NAT_TCP) {
    /* A new connection with the ports of an old one. */
    if ((flow->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && (s->reset || s->ended == BOTH)) s->heard = s->ended = 0;
    s->reset = (flow->flags & TCP_RST) != 0; /* one that nobody heeds is followed by something else (RFC 7857 §2.2) */
    if ((flow->flags & TCP_ACK) != 0 && !s->reset) s->heard |= (uint8_t)from;
    if ((flow->flags & TCP_FIN) != 0) s->ended |= (uint8_t)from;
  }
  if (from == INSIDE || age_of(s) != before) use(stack, s);
}

static bool is_full(const nst_nats *all, const nst_nat_host *host) {
  return all->sessions.count >= STACK_SESSIONS || host->sessions >= HOST_SESSIONS;
}

/* NULL: no memory. */
static session *make_session(nst_stack *stack, nst_mapping *mapping, nst_nat_host *host, const nst_endpoint *remote) {
  session *s = calloc(1, sizeof *s);
  if (s == NULL) return NULL;
  s->mapping = mapping;
  s->host = host;
  s->remote = *remote;
  if (!nst_table_insert(&stack->nat.sessions, &s->node, hash_of_session(stack, mapping, remote))) {
    free(s);
    return NULL;
  }
  nst_list_init(&s->age);
  nst_list_init(&s->sibling);
  nst_list_append(&mapping->sessions, &s->sibling);
  mapping->session_count++;
  mapping->recent = s;
  host->sessions++;
  use(stack, s);
  return s;
}

/* A session for a packet from inside, with a mapping if that is the host's first from this port. NULL, or why not. */
static const char *begin(nst_nat *nat, const nst_flow *flow, nst_mapping **mapping, session **result) {
  nst_stack *stack = nat->interface->stack;
  nst_nat_host *host = host_of(stack, flow->source.host);
  const char *cause = NULL;
  if (host == NULL) return no_memory;
  if (is_full(&stack->nat, host)) {
    stack->nat.limited++;
    cause = too_many;
  } else if (*mapping == NULL) {
    cause = make_mapping(nat, flow, mapping);
  }
  *result = cause ? NULL : make_session(stack, *mapping, host, &flow->destination);
  if (*result) return NULL;
  if (*mapping && (*mapping)->session_count == 0) forget(*mapping);
  let_go(stack, host);
  return cause ? cause : no_memory;
}

/* ---- packets ---- */

static const char *outward(nst_nat *nat, const nst_flow *flow, nst_translation *change) {
  nst_stack *stack = nat->interface->stack;
  nst_mapping *mapping = find_inside(nat, flow->protocol, &flow->source);
  if (mapping == NULL || !mapping->fixed) {
    session *s = mapping ? find_session(stack, mapping, &flow->destination) : NULL;
    if (s == NULL && !flow->asks) {
      stack->nat.unmatched++;
      return "belongs to no session";
    }
    if (s == NULL) {
      const char *cause = begin(nat, flow, &mapping, &s);
      if (cause) return cause;
    }
    if (!flow->error) track(stack, s, flow, INSIDE);
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
  local = address_of(flow->destination.host);
  remote = address_of(flow->source.host);
  return nst_tcp_find(stack, &local, flow->destination.port, &remote, flow->source.port) != NULL;
}

bool nst_nat_inward(nst_interface *interface, const nst_packet *packet, nst_translation *change, const char **cause) {
  nst_stack *stack = interface->stack;
  nst_mapping *mapping;
  nst_flow flow;
  if (stack->nat.outside.count == 0 || !nst_flow_read(packet->data, packet->length, &flow)) return false;
  mapping = find_outside(stack, flow.protocol, &flow.destination);
  if (mapping == NULL || is_our_connection(stack, &flow)) return false;
  if (interface->nat == NULL) { /* from inside to inside: both see each other as from outside (RFC 4787 REQ-9) */
    *cause = outward(mapping->nat, &flow, change);
    if (*cause) return true;
    flow.source = change->source;
  }
  if (!mapping->fixed) {
    session *s = find_session(stack, mapping, &flow.source);
    if (s == NULL && (flow.error || flow.protocol == NST_NAT_ICMP)) return false; /* we may have asked ourselves */
    if (s == NULL) { /* silently: the answer to what is under way from inside may have met it (RFC 5382 REQ-4) */
      stack->nat.filtered++;
      *cause = "nobody inside asked for it";
      return true;
    }
    if (!flow.error) track(stack, s, &flow, OUTSIDE);
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
    if (!ip_addr_isany(host) && (IP_IS_V6(host) || memcmp(nst_address_bytes(host), nat->address, 4) != 0)) continue;
    if (IP_IS_V6(host) && !IP_IS_ANY_TYPE_VAL(*host)) continue;
    memcpy(outside.host, nat->address, 4);
    outside.port = port;
    if (find_outside(stack, numbers[protocol], &outside)) return true;
  }
  return false;
}

/* ---- the user's ---- */

static nst_mapping *find_fixed(const nst_nat *nat, uint8_t protocol, uint16_t port) {
  const nst_link *link;
  for (link = nat->mappings.next; link != &nat->mappings; link = link->next) {
    nst_mapping *mapping = nst_holder(link, nst_mapping, link);
    if (mapping->fixed && mapping->protocol == protocol && mapping->outside.port == port) return mapping;
  }
  return NULL;
}

static bool is_host_inside(const nst_stack *stack, const nst_endpoint *inside) {
  ip_addr_t address = address_of(inside->host);
  return inside->host[0] != 0 && inside->host[0] != 127 && inside->host[0] < 224 &&
         nst_interface_with_address(stack, &address) == NULL;
}

nst_error nst_nat_map(nst_interface *interface, uint8_t protocol, uint16_t port, const nst_endpoint *inside) {
  nst_stack *stack = interface->stack;
  nst_nat *nat = interface->nat;
  nst_mapping *mapping, *learned;
  if (nat == NULL) return NST_NOT_SUPPORTED;
  if (!has_address(nat)) return NST_ADDRESS_NOT_AVAILABLE;
  if (!is_host_inside(stack, inside)) return NST_INVALID_ADDRESS;
  learned = find_inside(nat, protocol, inside);
  if ((learned && learned->fixed) || find_fixed(nat, protocol, port)) return NST_ADDRESS_IN_USE;
  if (!(learned && learned->outside.port == port) && !is_free(nat, protocol, port)) return NST_ADDRESS_IN_USE;
  if (stack->nat.fixed >= FIXED_MAPPINGS) return NST_FULL;
  mapping = make(nat, protocol, inside);
  if (mapping == NULL) return NST_NO_MEMORY;
  if (learned) forget(learned); /* what it carried goes on, if the port stays */
  mapping->fixed = true;
  stack->nat.fixed++;
  if (enter(mapping, port)) return NST_OK;
  forget(mapping);
  return NST_NO_MEMORY;
}

nst_error nst_nat_unmap(nst_interface *interface, uint8_t protocol, uint16_t port) {
  nst_mapping *mapping = interface->nat ? find_fixed(interface->nat, protocol, port) : NULL;
  if (mapping == NULL) return NST_EMPTY;
  forget(mapping);
  return NST_OK;
}

/* ---- interfaces ---- */

void nst_nat_follow(nst_interface *interface) {
  nst_nat *nat = interface->nat;
  const ip4_addr_t *first = netif_ip4_addr(&interface->netifs[0]);
  nst_link *link;
  if (nat == NULL || memcmp(nat->address, &first->addr, 4) == 0) return;
  memcpy(nat->address, &first->addr, 4);
  for (link = nat->mappings.next; link != &nat->mappings;) {
    nst_mapping *mapping = nst_holder(link, nst_mapping, link);
    link = link->next;
    if (mapping->fixed) withdraw(mapping);
    else forget(mapping);
  }
  for (link = nat->mappings.next; link != &nat->mappings && has_address(nat); link = link->next) {
    nst_mapping *mapping = nst_holder(link, nst_mapping, link);
    if (is_free(nat, mapping->protocol, mapping->outside.port)) (void)enter(mapping, mapping->outside.port);
  }
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
  while (!nst_list_empty(&nat->mappings)) forget(nst_holder(nat->mappings.next, nst_mapping, link));
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

/* ---- time ---- */

/* Of one kind; NULL: there is none. */
static session *oldest(const nst_stack *stack, int age) {
  const nst_link *ages = &stack->nat.ages[age];
  return nst_list_empty(ages) ? NULL : nst_holder(ages->next, session, age);
}

nst_time nst_nat_next(const nst_stack *stack) {
  nst_time next = NST_NEVER;
  int age;
  if (stack->nat.sessions.count == 0) return NST_NEVER;
  for (age = 0; age < NST_NAT_AGES; age++) {
    const session *s = oldest(stack, age);
    if (s && s->used + lasts[age] < next) next = s->used + lasts[age];
  }
  return next;
}

bool nst_nat_run(nst_stack *stack) {
  bool worked = false;
  int age;
  for (age = 0; age < NST_NAT_AGES; age++) {
    session *s;
    while ((s = oldest(stack, age)) != NULL && s->used + lasts[age] <= stack->now) {
      end_session(stack, s, true);
      worked = true;
    }
  }
  return worked;
}
