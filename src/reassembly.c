#include "reassembly.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "chain.h"
#include "icmp.h"
#include "stack.h"
#include "trace.h"

#include "lwip/inet_chksum.h"
#include "lwip/stats.h"

#define LIFETIME4 (15 * NST_SECOND) /* RFC 791 3.2 */
#define LIFETIME6 (60 * NST_SECOND) /* RFC 8200 §4.5 */

/*
** What may wait: bytes of memory and datagrams, of one source and of all. A source that has more loses its own oldest;
** with many sources, who may all be the same liar, the oldest of all goes, for the pieces of an honest datagram come
** close together. The smallest pieces of an mtu of 68 that make up 65,535 bytes fit into a source's share.
*/
#define SOURCE_BYTES ((size_t)512 << 10)
#define SOURCE_DATAGRAMS 128
#define STACK_BYTES ((size_t)4 << 20)
#define STACK_DATAGRAMS 1024

static const char contradictory[] = "fragments contradict each other";
static const char limited[] = "too many fragments wait";
static const char late[] = "other fragments did not come in time";
static const char no_memory[] = "no memory";

enum { TCP = 6, UDP = 17, ICMP6 = 58 };

/* What the pieces of a datagram have in common. */
typedef struct identity {
  ip_addr_t source, destination;
  uint32_t id;
  uint8_t protocol; /* of IPv4, where ids are told apart by it */
} identity;

typedef struct piece {
  nst_packet *packet;
  uint16_t offset, length; /* of its bytes in the datagram */
  uint16_t data;           /* where they begin in the packet */
  bool more;
} piece;

typedef struct source {
  nst_node node;
  ip_addr_t host;
  nst_link datagrams; /* datagram.sibling: oldest first */
  size_t count, bytes;
} source;

typedef struct datagram {
  nst_node node;
  nst_link age, sibling;
  nst_timer timer;
  source *from;
  identity identity;
  piece *pieces;     /* by offset: a search among thousands takes no longer than one among few */
  size_t count, capacity;
  size_t received;   /* bytes of data */
  size_t total;      /* 0 until the last piece has come */
  size_t bytes;      /* of memory */
  bool contradicted; /* RFC 8200 §4.5: what else comes of it is dropped */
} datagram;

/* The first fragment header of an IPv6 packet; 0: none. */
static size_t find_fragment_header(const uint8_t *packet, size_t length) {
  size_t at = 40;
  if (length < 40 || nst_chain_walk(packet, &at, length, packet[6], false) != NST_FRAGMENT) return 0;
  return at + 8 <= length ? at : 0;
}

bool nst_is_fragment(const uint8_t *packet, size_t length) {
  size_t at;
  if (packet[0] >> 4 == 4) return length >= 20 && (nst_get16(packet + 6) & 0x3fff) != 0;
  at = find_fragment_header(packet, length);
  return at > 0 && (nst_get16(packet + at + 2) & 0xfff9) != 0;
}

static bool locate4(const nst_packet *packet, identity *whose, piece *where) {
  const uint8_t *bytes = packet->data;
  size_t header = (bytes[0] & 15u) * 4u, total = nst_get16(bytes + 2);
  if (header < 20 || total < header || total > packet->length) return false;
  whose->id = nst_get16(bytes + 4);
  whose->protocol = bytes[9];
  where->data = (uint16_t)header;
  where->offset = (uint16_t)((nst_get16(bytes + 6) & 0x1fff) * 8u);
  where->length = (uint16_t)(total - header);
  where->more = (bytes[6] & 0x20) != 0;
  return where->length > 0 && header + where->offset + where->length <= 65535;
}

static bool locate6(const nst_packet *packet, identity *whose, piece *where) {
  const uint8_t *bytes = packet->data;
  size_t at = find_fragment_header(bytes, packet->length), end = 40 + nst_get16(bytes + 4);
  if (at == 0 || end > packet->length || end < at + 8) return false;
  whose->id = nst_get32(bytes + at + 4);
  where->data = (uint16_t)(at + 8);
  where->offset = (uint16_t)(nst_get16(bytes + at + 2) & 0xfff8);
  where->length = (uint16_t)(end - at - 8);
  where->more = (bytes[at + 3] & 1) != 0;
  return where->length > 0 && at + where->offset + where->length <= 65535;
}

/* false: not a piece of anything. */
static bool locate(const nst_interface *interface, nst_packet *packet, identity *whose, piece *where) {
  memset(whose, 0, sizeof *whose);
  memset(where, 0, sizeof *where);
  where->packet = packet;
  nst_packet_addresses(interface, packet->data, &whose->source, &whose->destination);
  return (packet->data[0] >> 4 == 4 ? locate4 : locate6)(packet, whose, where);
}

/* ---- tables ---- */

static uint64_t hash_of(const nst_stack *stack, const identity *whose) {
  uint8_t key[37];
  size_t length = nst_put_address(key, &whose->source);
  length += nst_put_address(key + length, &whose->destination);
  memcpy(key + length, &whose->id, 4);
  key[length + 4] = whose->protocol;
  return nst_siphash(stack->secret, key, length + 5);
}

static bool same(const identity *a, const identity *b) {
  return a->id == b->id && a->protocol == b->protocol && ip_addr_eq(&a->source, &b->source) &&
         ip_addr_eq(&a->destination, &b->destination);
}

static datagram *find(const nst_stack *stack, const identity *whose, uint64_t hash) {
  nst_node *node;
  for (node = nst_table_bucket(&stack->reassembly.datagrams, hash); node; node = node->next) {
    datagram *d = nst_holder(node, datagram, node);
    if (node->hash == hash && same(&d->identity, whose)) return d;
  }
  return NULL;
}

/* Found or made; NULL: no memory. */
static source *source_of(nst_stack *stack, const ip_addr_t *host) {
  uint8_t key[16];
  uint64_t hash = nst_siphash(stack->secret, key, nst_put_address(key, host));
  nst_node *node;
  source *s;
  for (node = nst_table_bucket(&stack->reassembly.sources, hash); node; node = node->next) {
    s = nst_holder(node, source, node);
    if (node->hash == hash && ip_addr_eq(&s->host, host)) return s;
  }
  s = calloc(1, sizeof *s);
  if (s == NULL) return NULL;
  s->host = *host;
  nst_list_init(&s->datagrams);
  if (nst_table_insert(&stack->reassembly.sources, &s->node, hash)) return s;
  free(s);
  return NULL;
}

/* `bytes` may be negative. */
static void account(nst_stack *stack, datagram *d, ptrdiff_t bytes) {
  d->bytes += (size_t)bytes;
  d->from->bytes += (size_t)bytes;
  stack->reassembly.bytes += (size_t)bytes;
}

/* `cause`: why they are given up; NULL when they were put together. */
static void free_pieces(nst_stack *stack, datagram *d, const char *cause) {
  size_t i;
  for (i = 0; i < d->count; i++) {
    nst_packet *packet = d->pieces[i].packet;
    if (cause) {
      if (IP_IS_V6(&d->identity.source)) IP6_FRAG_STATS_INC(ip6_frag.drop);
      else IPFRAG_STATS_INC(ip_frag.drop);
      nst_trace_packet(stack, NST_EVENT_DROP, NULL, packet->data, packet->length, cause);
    }
    nst_packet_free(packet);
  }
  free(d->pieces);
  d->pieces = NULL;
  d->count = d->capacity = 0;
  account(stack, d, (ptrdiff_t)sizeof *d - (ptrdiff_t)d->bytes);
}

static void forget(nst_stack *stack, datagram *d, const char *cause) {
  nst_reassembly *all = &stack->reassembly;
  source *from = d->from;
  free_pieces(stack, d, cause);
  account(stack, d, -(ptrdiff_t)d->bytes);
  nst_table_remove(&all->datagrams, &d->node);
  nst_heap_remove(&all->timers, &d->timer);
  nst_list_remove(&d->age);
  nst_list_remove(&d->sibling);
  free(d);
  if (--from->count > 0) return;
  nst_table_remove(&all->sources, &from->node);
  free(from);
}

void nst_reassembly_init(nst_stack *stack) {
  nst_list_init(&stack->reassembly.ages);
}

void nst_reassembly_clear(nst_stack *stack) {
  nst_reassembly *all = &stack->reassembly;
  while (!nst_list_empty(&all->ages)) forget(stack, nst_holder(all->ages.next, datagram, age), NULL);
  nst_table_free(&all->datagrams);
  nst_table_free(&all->sources);
  nst_heap_free(&all->timers);
}

/* NULL: no memory. */
static datagram *begin(nst_stack *stack, const identity *whose, uint64_t hash) {
  nst_reassembly *all = &stack->reassembly;
  nst_time lifetime = IP_IS_V6(&whose->source) ? LIFETIME6 : LIFETIME4;
  datagram *d = calloc(1, sizeof *d);
  source *from = d ? source_of(stack, &whose->source) : NULL;
  if (from == NULL) {
    free(d);
    return NULL;
  }
  d->from = from;
  d->identity = *whose;
  nst_list_init(&d->age);
  nst_list_init(&d->sibling);
  nst_list_append(&all->ages, &d->age);
  nst_list_append(&from->datagrams, &d->sibling);
  from->count++;
  account(stack, d, (ptrdiff_t)sizeof *d);
  if (nst_table_insert(&all->datagrams, &d->node, hash) &&
      nst_heap_set(&all->timers, &d->timer, stack->now + lifetime)) {
    return d;
  }
  forget(stack, d, NULL);
  return NULL;
}

static void evict(nst_stack *stack, datagram *d) {
  stack->reassembly.counters.limited++;
  forget(stack, d, limited);
}

/* After a piece of this source came. */
static void keep_bounds(nst_stack *stack, source *from) {
  nst_reassembly *all = &stack->reassembly;
  bool more = NST_GUARDED;
  while (more && (from->bytes > SOURCE_BYTES || from->count > SOURCE_DATAGRAMS)) {
    more = from->count > 1; /* the source goes with its last */
    evict(stack, nst_holder(from->datagrams.next, datagram, sibling));
  }
  while (NST_GUARDED && (all->bytes > STACK_BYTES || all->datagrams.count > STACK_DATAGRAMS)) {
    evict(stack, nst_holder(all->ages.next, datagram, age));
  }
}

/* ---- pieces ---- */

typedef enum verdict { ADDED, DUPLICATE, CONTRADICTION, NO_MEMORY } verdict;

/* Where the first piece stands that does not begin before `offset`. */
static size_t place_for(const datagram *d, size_t offset) {
  size_t low = 0, high = d->count;
  if (high > 0 && d->pieces[high - 1].offset < offset) return high; /* most come in order */
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (d->pieces[middle].offset < offset) low = middle + 1;
    else high = middle;
  }
  return low;
}

static bool same_piece(const piece *a, const piece *b) {
  return a->offset == b->offset && a->length == b->length && a->more == b->more &&
         memcmp(a->packet->data + a->data, b->packet->data + b->data, a->length) == 0;
}

/*
** Pieces that overlap give up the whole datagram, as RFC 8200 §4.5 (RFC 5722) asks for IPv6. RFC 791 lets the later one
** win, but then whoever looks at packets on their way may see another datagram than the one that arrives (RFC 1858 §3,
** RFC 3128), and nobody overlaps in good faith: it is the same for both. An exact copy is no overlap.
*/
static verdict check(const datagram *d, const piece *p, size_t place) {
  const piece *next = place < d->count ? &d->pieces[place] : NULL;
  const piece *before = place > 0 ? &d->pieces[place - 1] : NULL;
  size_t end = (size_t)p->offset + p->length;
  if (next && same_piece(next, p)) return DUPLICATE;
  if (NST_GUARDED && next && next->offset < end) return CONTRADICTION;
  if (NST_GUARDED && before && (size_t)before->offset + before->length > p->offset) return CONTRADICTION;
  if (d->total > 0 && (end > d->total || (!p->more && end != d->total))) return CONTRADICTION;
  if (!p->more && next) return CONTRADICTION; /* something lies behind the end */
  return ADDED;
}

static verdict add(datagram *d, const piece *p) {
  size_t place = place_for(d, p->offset);
  verdict v = check(d, p, place);
  if (v != ADDED) return v;
  if (d->count == d->capacity) {
    size_t capacity = d->capacity ? d->capacity * 2 : 4;
    piece *pieces = realloc(d->pieces, capacity * sizeof *pieces);
    if (pieces == NULL) return NO_MEMORY;
    d->pieces = pieces;
    d->capacity = capacity;
  }
  memmove(d->pieces + place + 1, d->pieces + place, (d->count - place) * sizeof *p);
  d->pieces[place] = *p;
  d->count++;
  d->received += p->length;
  if (!p->more) d->total = (size_t)p->offset + p->length;
  return ADDED;
}

/* The headers of the first piece, changed to those of one packet, and all data. NULL: no memory. */
static nst_packet *whole(nst_stack *stack, const datagram *d, bool checksum) {
  const piece *first = d->pieces;
  bool ipv6 = IP_IS_V6(&d->identity.source);
  size_t header = first->data - (ipv6 ? 8u : 0u), length = header + d->total, i;
  nst_packet *packet = first->offset == 0 && length <= 65535 ? nst_packet_new(stack->hub, length) : NULL;
  if (packet == NULL) return NULL;
  memcpy(packet->data, first->packet->data, header);
  for (i = 0; i < d->count; i++) {
    const piece *p = &d->pieces[i];
    if ((size_t)p->offset + p->length > d->total) continue; /* only where pieces may overlap, with the guard off */
    memcpy(packet->data + header + p->offset, p->packet->data + p->data, p->length);
  }
  if (ipv6) {
    size_t at = 40, next = 6;
    while (at < header) {
      next = at;
      at += (packet->data[at + 1] + 1u) * 8u;
    }
    packet->data[next] = first->packet->data[header]; /* the fragment header stood there */
    nst_put16(packet->data + 4, length - 40);
  } else {
    nst_put16(packet->data + 2, length);
    nst_put16(packet->data + 6, 0);
    nst_put16(packet->data + 10, 0);
    if (checksum) {
      uint16_t sum = inet_chksum(packet->data, (u16_t)header);
      memcpy(packet->data + 10, &sum, 2);
    }
  }
  return packet;
}

/* RFC 7112, RFC 1858: a first piece too short for the headers is made to get past somebody who looks at them. */
static bool has_headers(const identity *whose, const piece *p) {
  const uint8_t *bytes = p->packet->data;
  size_t at = p->data, end = at + p->length;
  unsigned next = whose->protocol;
  if (p->offset > 0 || !NST_GUARDED) return true;
  if (IP_IS_V6(&whose->source)) {
    next = nst_chain_walk(bytes, &at, end, bytes[at - 8], false);
    if (next == NST_HOP_BY_HOP || next == NST_ROUTING || next == NST_DESTINATION) return false;
  }
  return at + (next == TCP ? 20u : next == UDP ? 8u : next == ICMP6 ? 4u : 0u) <= end;
}

static void contradict(nst_stack *stack, datagram *d) {
  stack->reassembly.counters.contradictions++;
  if (!IP_IS_V6(&d->identity.source)) { /* with ids of 16 bits, the next datagram of that name may be an honest one */
    forget(stack, d, contradictory);
    return;
  }
  free_pieces(stack, d, contradictory);
  d->contradicted = true;
}

/* NULL: the piece, and *result the whole packet if it was the last, are taken care of; else why not. */
static const char *take(nst_stack *stack, const identity *whose, const piece *p, bool checksum, nst_packet **result) {
  uint64_t hash = hash_of(stack, whose);
  datagram *d = find(stack, whose, hash);
  if (d == NULL) d = begin(stack, whose, hash);
  if (d == NULL) return no_memory;
  if (d->contradicted) return contradictory;
  switch (add(d, p)) {
    case DUPLICATE: return "fragment came twice";
    case CONTRADICTION: contradict(stack, d); return contradictory;
    case NO_MEMORY:
      if (d->count == 0) forget(stack, d, NULL);
      return no_memory;
    default: break;
  }
  account(stack, d, (ptrdiff_t)(2 * sizeof *p + sizeof *p->packet + p->packet->length));
  if (d->total > 0 && d->received >= d->total) {
    *result = whole(stack, d, checksum);
    forget(stack, d, *result ? NULL : no_memory);
  } else {
    keep_bounds(stack, d->from);
  }
  return NULL;
}

nst_packet *nst_reassemble(nst_interface *interface, nst_packet *packet, const char **cause) {
  nst_stack *stack = interface->stack;
  bool checksum = interface->device && interface->device->checksum;
  struct stats_proto *counters = packet->data[0] >> 4 == 6 ? &lwip_stats.ip6_frag : &lwip_stats.ip_frag;
  nst_packet *result = NULL;
  identity whose;
  piece where;
  counters->recv++;
  if (!locate(interface, packet, &whose, &where)) *cause = "impossible fragment";
  else if (checksum && !IP_IS_V6(&whose.source) && inet_chksum(packet->data, where.data) != 0) *cause = "bad checksum";
  else if (!has_headers(&whose, &where)) *cause = "first fragment without the headers";
  else *cause = take(stack, &whose, &where, checksum, &result);
  if (*cause) {
    counters->drop++;
    if (*cause == no_memory) counters->memerr++;
    nst_packet_free(packet);
  }
  return result;
}

/* ---- time ---- */

nst_time nst_reassembly_next(const nst_stack *stack) {
  const nst_timer *first = nst_heap_first(&stack->reassembly.timers);
  return first ? first->at : NST_NEVER;
}

/* RFC 792, RFC 4443 §3.3: to who sent the first piece, if it came. */
static void tell_timeout(nst_stack *stack, const datagram *d) {
  const piece *first = d->pieces;
  if (d->count == 0 || first->offset > 0 || !nst_interface_with_address(stack, &d->identity.destination)) return;
  nst_icmp_tell(stack, first->packet, &d->identity.source, &d->identity.destination, NST_ICMP_PIECES_MISSING, 0);
}

bool nst_reassembly_run(nst_stack *stack) {
  bool worked = false;
  while (nst_reassembly_next(stack) <= stack->now) {
    datagram *d = nst_holder(nst_heap_first(&stack->reassembly.timers), datagram, timer);
    if (!d->contradicted) {
      stack->reassembly.counters.timeouts++;
      tell_timeout(stack, d);
    }
    forget(stack, d, late);
    worked = true;
  }
  return worked;
}
