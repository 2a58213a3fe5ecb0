#include "neighbour.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "icmp.h"
#include "nd.h"
#include "slaac.h"
#include "stack.h"

/* RFC 4861 §10: RETRANS_TIMER, MAX_*_SOLICIT, REACHABLE_TIME, DELAY_FIRST_PROBE_TIME; ARP is asked in the same way. */
#define ASK_AGAIN NST_SECOND
#define ASK_AT_MOST 3
#define REACHABLE_LASTS (30 * NST_SECOND)
#define DELAY (5 * NST_SECOND)

static const size_t at_most[NST_NEIGHBOUR_KINDS] = {256, 256, 1024};
#define WAITING_EACH 64 /* a datagram of 65,507 bytes is 45 fragments */
#define WAITING_ALL 1024
#define WAITING_BYTES ((size_t)4 << 20)

/* What RFC 4861 calls REACHABLE and STALE is told by `confirmed`. */
typedef enum state { INCOMPLETE, KNOWN, DELAYED, PROBING } state;

typedef struct neighbour {
  nst_node node;
  nst_link age; /* in ages[kind] */
  nst_timer timer;
  nst_neighbour_kind kind;
  nst_interface *interface;
  ip_addr_t host;
  uint8_t station[NST_MAC_LENGTH];
  state state;
  nst_time confirmed; /* it answered; long ago: nothing is known of it now */
  unsigned asked;
  nst_link waiting;   /* packets */
  size_t waiting_count;
} neighbour;

static uint64_t hash_of(const nst_interface *interface, const ip_addr_t *host) {
  uint8_t key[sizeof interface + 16];
  memcpy(key, &interface, sizeof interface);
  return nst_siphash(interface->stack->secret, key, sizeof interface + nst_put_address(key + sizeof interface, host));
}

static neighbour *find(nst_interface *interface, const ip_addr_t *host, uint64_t hash) {
  nst_node *node;
  for (node = nst_table_bucket(&interface->stack->neighbours.table, hash); node; node = node->next) {
    neighbour *n = nst_holder(node, neighbour, node);
    if (node->hash == hash && n->interface == interface && ip_addr_eq(&n->host, host)) return n;
  }
  return NULL;
}

/* The packet that has waited longest; NULL. */
static nst_packet *take_waiting(nst_neighbours *all, neighbour *n) {
  nst_link *link = nst_list_pop(&n->waiting);
  nst_packet *packet = link ? nst_holder(link, nst_packet, link) : NULL;
  if (packet == NULL) return NULL;
  n->waiting_count--;
  all->waiting--;
  all->waiting_bytes -= packet->length;
  return packet;
}

static void forget(nst_neighbours *all, neighbour *n) {
  nst_packet *packet;
  nst_table_remove(&all->table, &n->node);
  nst_heap_remove(&all->timers, &n->timer);
  nst_list_remove(&n->age);
  all->counts[n->kind]--;
  while ((packet = take_waiting(all, n)) != NULL) nst_packet_free(packet);
  free(n);
}

/* Moves it to the end of its kind's order, the longest unused of which may have to go. */
static void use_as(nst_neighbours *all, neighbour *n, nst_neighbour_kind kind) {
  nst_list_remove(&n->age);
  all->counts[n->kind]--;
  n->kind = kind;
  nst_list_append(&all->ages[kind], &n->age);
  if (++all->counts[kind] <= at_most[kind] || !NST_GUARDED) return;
  n = nst_holder(all->ages[kind].next, neighbour, age);
  all->counters.evicted++;
  all->counters.dropped += n->waiting_count;
  forget(all, n);
}

static neighbour *begin(nst_interface *interface, const ip_addr_t *host, uint64_t hash, nst_neighbour_kind kind) {
  nst_neighbours *all = &interface->stack->neighbours;
  neighbour *n = calloc(1, sizeof *n);
  if (n == NULL) return NULL;
  if (!nst_table_insert(&all->table, &n->node, hash)) {
    free(n);
    return NULL;
  }
  n->interface = interface;
  n->host = *host;
  n->kind = kind;
  n->confirmed = -REACHABLE_LASTS;
  nst_list_init(&n->age);
  nst_list_init(&n->waiting);
  all->counts[kind]++;
  use_as(all, n, kind);
  return n;
}

void nst_neighbours_init(nst_neighbours *all) {
  int kind;
  for (kind = 0; kind < NST_NEIGHBOUR_KINDS; kind++) nst_list_init(&all->ages[kind]);
}

static void forget_if(nst_neighbours *all, const nst_interface *interface) {
  int kind;
  for (kind = 0; kind < NST_NEIGHBOUR_KINDS; kind++) {
    nst_link *link, *next;
    for (link = all->ages[kind].next; link != &all->ages[kind]; link = next) {
      neighbour *n = nst_holder(link, neighbour, age);
      next = link->next;
      if (interface == NULL || n->interface == interface) forget(all, n);
    }
  }
}

void nst_neighbours_clear(nst_neighbours *all) {
  forget_if(all, NULL);
  nst_table_free(&all->table);
  nst_heap_free(&all->timers);
}

void nst_neighbours_forget(nst_interface *interface) {
  forget_if(&interface->stack->neighbours, interface);
}

/* ---- asking ---- */

static void ask(neighbour *n) {
  nst_stack *stack = n->interface->stack;
  const uint8_t *station = n->state == PROBING ? n->station : NULL;
  n->asked++;
  (void)nst_heap_set(&stack->neighbours.timers, &n->timer, stack->now + ASK_AGAIN);
  if (IP_IS_V6(&n->host)) nst_nd_ask(n->interface, &n->host, station);
  else nst_arp_ask(n->interface, &n->host, station);
}

static void transmit(const neighbour *n, nst_packet *packet) {
  nst_ethernet_send(n->interface, packet, n->station, IP_IS_V6(&n->host) ? NST_TYPE_IPV6 : NST_TYPE_IPV4);
}

/* The newest packets are worth most (RFC 4861 7.2.2), but take their room only from those for the same neighbour. */
static void wait_with(neighbour *n, nst_packet *packet) {
  nst_neighbours *all = &n->interface->stack->neighbours;
  nst_list_append(&n->waiting, &packet->link);
  n->waiting_count++;
  all->waiting++;
  all->waiting_bytes += packet->length;
  while (n->waiting_count > WAITING_EACH ||
         (n->waiting_count > 0 && (all->waiting > WAITING_ALL || all->waiting_bytes > WAITING_BYTES))) {
    all->counters.dropped++;
    nst_interface_drop(n->interface, take_waiting(all, n), "too many wait for a neighbour");
  }
}

void nst_neighbour_send(nst_interface *interface, nst_packet *packet, const ip_addr_t *host) {
  nst_stack *stack = interface->stack;
  nst_neighbours *all = &stack->neighbours;
  uint64_t hash = hash_of(interface, host);
  neighbour *n = find(interface, host, hash);
  if (n == NULL) {
    n = begin(interface, host, hash, NST_NEIGHBOUR_ASKED);
    if (n == NULL) {
      nst_packet_free(packet);
      return;
    }
    wait_with(n, packet);
    ask(n);
    return;
  }
  if (n->state == INCOMPLETE) {
    wait_with(n, packet);
    return;
  }
  if (n->kind != NST_NEIGHBOUR_USED || all->ages[NST_NEIGHBOUR_USED].previous != &n->age) {
    use_as(all, n, NST_NEIGHBOUR_USED);
  }
  if (n->state == KNOWN && stack->now - n->confirmed >= REACHABLE_LASTS) {
    n->state = DELAYED;
    (void)nst_heap_set(&all->timers, &n->timer, stack->now + DELAY);
  }
  transmit(n, packet);
}

/* ---- answers ---- */

static void settle(neighbour *n, const uint8_t *station, bool confirmed) {
  nst_stack *stack = n->interface->stack;
  nst_neighbours *all = &stack->neighbours;
  nst_packet *packet;
  memmove(n->station, station, NST_MAC_LENGTH); /* it may be this one */
  n->confirmed = confirmed ? stack->now : stack->now - REACHABLE_LASTS;
  n->state = KNOWN;
  n->asked = 0;
  nst_heap_remove(&all->timers, &n->timer);
  if (n->kind == NST_NEIGHBOUR_ASKED) use_as(all, n, NST_NEIGHBOUR_USED);
  while ((packet = take_waiting(all, n)) != NULL) transmit(n, packet);
}

static void probe(neighbour *n) {
  n->state = PROBING;
  n->asked = 0;
  ask(n);
}

void nst_neighbour_heard(nst_interface *interface, const ip_addr_t *host, const uint8_t *station, nst_claim claim,
                         bool override) {
  nst_stack *stack = interface->stack;
  uint64_t hash = hash_of(interface, host);
  neighbour *n = find(interface, host, hash);
  bool same, recent;
  if (n == NULL) {
    if (claim != NST_CLAIM_REQUEST || station == NULL) return;
    n = begin(interface, host, hash, NST_NEIGHBOUR_HEARD);
    if (n) settle(n, station, false);
    return;
  }
  if (n->state == INCOMPLETE) {
    if (station) settle(n, station, claim == NST_CLAIM_ANSWER);
    return;
  }
  if (n->state != PROBING && NST_GUARDED) claim = NST_CLAIM_NEWS; /* an answer to what? */
  same = station == NULL || memcmp(n->station, station, NST_MAC_LENGTH) == 0;
  recent = stack->now - n->confirmed < REACHABLE_LASTS;
  if (same) {
    if (claim == NST_CLAIM_ANSWER) settle(n, n->station, true);
  } else if (NST_GUARDED && recent) {
    /* It answered a moment ago, and another one says it were it: the first is asked, and has to be silent to lose. */
    if (n->state != PROBING) probe(n);
  } else if (override) {
    settle(n, station, claim == NST_CLAIM_ANSWER);
  } else {
    n->confirmed = stack->now - REACHABLE_LASTS; /* RFC 4861 7.2.5 */
  }
}

void nst_neighbour_proven(nst_stack *stack, const ip_addr_t *source, const ip_addr_t *host) {
  nst_interface *interface;
  struct netif *netif;
  neighbour *n;
  ip_addr_t next;
  if (stack->neighbours.counts[NST_NEIGHBOUR_USED] == 0) return;
  netif = nst_route_find(stack, source, host);
  if (netif == NULL) return;
  interface = nst_interface_of(netif);
  nst_route_next(interface, host, &next);
  n = find(interface, &next, hash_of(interface, &next));
  if (n && n->state != INCOMPLETE) settle(n, n->station, true);
}

/* ---- time ---- */

nst_time nst_neighbours_next(const nst_stack *stack) {
  const nst_timer *first = nst_heap_first(&stack->neighbours.timers);
  return first ? first->at : NST_NEVER;
}

/* Nobody has answered: whoever sent what waits is told, as a router would tell (RFC 4861 7.2.2). */
static void give_up(nst_neighbours *all, neighbour *n) {
  ip_addr_t source, destination;
  nst_packet *packet;
  all->counters.failed++;
  if (n->interface->slaac) nst_slaac_unreachable(n->interface, &n->host);
  while ((packet = take_waiting(all, n)) != NULL) {
    nst_packet_addresses(n->interface, packet->data, &source, &destination);
    nst_icmp_tell(n->interface->stack, packet, &source, &destination, NST_ICMP_HOST_UNREACHABLE, 0);
    nst_interface_drop(n->interface, packet, "neighbour does not answer");
  }
  forget(all, n);
}

bool nst_neighbours_run(nst_stack *stack) {
  nst_neighbours *all = &stack->neighbours;
  bool worked = false;
  while (nst_neighbours_next(stack) <= stack->now) {
    neighbour *n = nst_holder(nst_heap_first(&all->timers), neighbour, timer);
    if (n->state == DELAYED) probe(n);
    else if (n->asked < ASK_AT_MOST) ask(n);
    else give_up(all, n);
    worked = true;
  }
  return worked;
}
