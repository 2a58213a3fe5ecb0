/* What masquerading remembers: mappings, the sessions of each, and how many each host has. */
#include "nat_table.h"

#include <stdlib.h>
#include <string.h>

#include "tcp.h"

#include "lwip/prot/tcp.h"

/*
** How many sessions one host inside may have, and all of them. The ports of an address are four times as many, so that
** a free one is found at once.
*/
#define HOST_SESSIONS 4096
#define STACK_SESSIONS 16384

/* RFC 4787 REQ-5, RFC 5508 REQ-2, RFC 5382 REQ-5. */
static const nst_time lasts[NST_NAT_AGES] = {
  [NST_NAT_DATAGRAMS] = 300 * NST_SECOND,
  [NST_NAT_QUERIES] = 60 * NST_SECOND,
  [NST_NAT_TRANSITORY] = 240 * NST_SECOND,
  [NST_NAT_ESTABLISHED] = (7200 + 240) * NST_SECOND,
};

static const char too_many[] = "too many sessions behind the interface";
static const char no_memory[] = "no memory";

/* A host inside. */
typedef struct nat_host {
  nst_node node; /* in the stack's table */
  uint8_t address[4];
  size_t sessions;
} nat_host;

enum { BOTH = NST_NAT_INSIDE | NST_NAT_OUTSIDE };

struct nst_nat_session {
  nst_node node;    /* in the stack's table */
  nst_link sibling; /* in mapping->sessions */
  nst_link age;     /* in the stack's ages */
  nst_mapping *mapping;
  nat_host *host;
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

nst_mapping *nst_mapping_find_inside(const nst_nat *nat, uint8_t protocol, const nst_endpoint *inside) {
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

nst_mapping *nst_mapping_find_outside(const nst_stack *stack, uint8_t protocol, const nst_endpoint *outside) {
  uint64_t hash = hash_of_end(stack, protocol, outside);
  nst_node *node;
  for (node = nst_table_bucket(&stack->nat.outside, hash); node; node = node->next) {
    nst_mapping *mapping = nst_holder(node, nst_mapping, by_outside);
    if (node->hash == hash && mapping->protocol == protocol && same(&mapping->outside, outside)) return mapping;
  }
  return NULL;
}

nst_nat_session *nst_nat_find_session(const nst_stack *stack, nst_mapping *mapping, const nst_endpoint *remote) {
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
static nat_host *host_of(nst_stack *stack, const uint8_t address[4]) {
  uint64_t hash = nst_siphash(stack->secret, address, 4);
  nat_host *host;
  nst_node *node;
  for (node = nst_table_bucket(&stack->nat.hosts, hash); node; node = node->next) {
    host = nst_holder(node, nat_host, node);
    if (node->hash == hash && memcmp(host->address, address, 4) == 0) return host;
  }
  host = calloc(1, sizeof *host);
  if (host == NULL) return NULL;
  memcpy(host->address, address, 4);
  if (nst_table_insert(&stack->nat.hosts, &host->node, hash)) return host;
  free(host);
  return NULL;
}

static void let_go(nst_stack *stack, nat_host *host) {
  if (host->sessions > 0) return;
  nst_table_remove(&stack->nat.hosts, &host->node);
  free(host);
}

/* ---- mappings ---- */

static nst_protocol port_space(uint8_t protocol) {
  return protocol == NST_NAT_TCP ? NST_TCP : protocol == NST_NAT_UDP ? NST_UDP : NST_RAW;
}

ip_addr_t nst_nat_address(const uint8_t host[4]) {
  ip_addr_t address = IPADDR4_INIT(0);
  memcpy(&ip_2_ip4(&address)->addr, host, 4);
  return address;
}

bool nst_mapping_is_free(const nst_nat *nat, uint8_t protocol, uint16_t port) {
  ip_addr_t own = nst_nat_address(nat->address);
  return !nst_port_is_taken(nat->interface->stack, port_space(protocol), &own, port);
}

void nst_mapping_forget(nst_mapping *mapping) {
  nst_mapping_withdraw(mapping);
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
  if (with_mapping && mapping->session_count == 0 && !mapping->fixed) nst_mapping_forget(mapping);
}

void nst_mapping_withdraw(nst_mapping *mapping) {
  nst_stack *stack = mapping->nat->interface->stack;
  while (!nst_list_empty(&mapping->sessions)) {
    end_session(stack, nst_holder(mapping->sessions.next, session, sibling), false);
  }
  nst_table_remove(&stack->nat.inside, &mapping->by_inside);
  nst_table_remove(&stack->nat.outside, &mapping->by_outside);
}

bool nst_mapping_enter(nst_mapping *mapping, uint16_t port) {
  nst_stack *stack = mapping->nat->interface->stack;
  memcpy(mapping->outside.host, mapping->nat->address, 4);
  mapping->outside.port = port;
  if (nst_table_insert(&stack->nat.inside, &mapping->by_inside,
                       hash_of_end(stack, mapping->protocol, &mapping->inside)) &&
      nst_table_insert(&stack->nat.outside, &mapping->by_outside,
                       hash_of_end(stack, mapping->protocol, &mapping->outside))) {
    return true;
  }
  nst_mapping_withdraw(mapping);
  return false;
}

nst_mapping *nst_mapping_make(nst_nat *nat, uint8_t protocol, const nst_endpoint *inside) {
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
  ip_addr_t own = nst_nat_address(nat->address), remote = nst_nat_address(flow->destination.host);
  uint16_t port = flow->source.port;
  bool tcp = flow->protocol == NST_NAT_TCP;
  if (port != 0 && nst_mapping_is_free(nat, flow->protocol, port) &&
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
  mapping = nst_mapping_make(nat, flow->protocol, &flow->source);
  if (mapping == NULL) return no_memory;
  if (!nst_mapping_enter(mapping, port)) {
    nst_mapping_forget(mapping);
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
void nst_nat_track(nst_stack *stack, session *s, const nst_flow *flow, unsigned from) {
  nst_nat_age before = age_of(s);
  if (flow->protocol == NST_NAT_TCP) {
    /* A new connection with the ports of an old one. */
    if ((flow->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && (s->reset || s->ended == BOTH)) s->heard = s->ended = 0;
    s->reset = (flow->flags & TCP_RST) != 0; /* one that nobody heeds is followed by something else (RFC 7857 §2.2) */
    if ((flow->flags & TCP_ACK) != 0 && !s->reset) s->heard |= (uint8_t)from;
    if ((flow->flags & TCP_FIN) != 0) s->ended |= (uint8_t)from;
  }
  if (from == NST_NAT_INSIDE || age_of(s) != before) use(stack, s);
}

static bool is_full(const nst_nats *all, const nat_host *host) {
  return all->sessions.count >= STACK_SESSIONS || host->sessions >= HOST_SESSIONS;
}

/* NULL: no memory. */
static session *make_session(nst_stack *stack, nst_mapping *mapping, nat_host *host, const nst_endpoint *remote) {
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

const char *nst_nat_begin(nst_nat *nat, const nst_flow *flow, nst_mapping **mapping, session **result) {
  nst_stack *stack = nat->interface->stack;
  nat_host *host = host_of(stack, flow->source.host);
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
  if (*mapping && (*mapping)->session_count == 0) nst_mapping_forget(*mapping);
  let_go(stack, host);
  return cause ? cause : no_memory;
}

/* ---- time ---- */

void nst_nat_expire(nst_stack *stack) {
  int age;
  for (age = 0; age < NST_NAT_AGES; age++) {
    const nst_link *ages = &stack->nat.ages[age];
    while (!nst_list_empty(ages)) {
      session *s = nst_holder(ages->next, session, age);
      if (s->used + lasts[age] > stack->now) break;
      end_session(stack, s, true);
    }
  }
}
