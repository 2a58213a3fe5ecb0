#include "reassembly.h"

#include <stdlib.h>
#include <string.h>

#include "icmp.h"
#include "stack.h"

#include "lwip/icmp.h"
#include "lwip/icmp6.h"
#include "lwip/inet_chksum.h"
#include "lwip/prot/ip4.h"
#include "lwip/stats.h"

#define LIFETIME4 (15 * NST_SECOND) /* RFC 791 3.2 */
#define LIFETIME6 (60 * NST_SECOND) /* RFC 8200 §4.5 */

/* Bytes of memory that pieces may hold: of one source, whose own oldest datagram then goes, and of all. The smallest
** pieces of an mtu of 68 that make up 65,535 bytes take half of a source's. */
#define SOURCE_BYTES ((size_t)512 << 10)
#define STACK_BYTES ((size_t)4 << 20)
#define DATAGRAMS_AT_MOST 1024

enum { HOP_BY_HOP = 0, TCP = 6, UDP = 17, ROUTING = 43, FRAGMENT = 44, ICMP6 = 58, DESTINATION = 60 };

/* Where a piece belongs. */
typedef struct place {
  ip_addr_t source, destination;
  uint32_t id;
  uint8_t protocol; /* of IPv4, where ids are told apart by it */
  size_t at;        /* of the data (IPv4), of the fragment header (IPv6) */
  size_t data;      /* where the data begins */
  size_t offset, length;
  bool more;
} place;

typedef struct source {
  nst_node node;
  ip_addr_t host;
  nst_link datagrams; /* datagram.sibling: oldest first */
  size_t bytes;
} source;

typedef struct piece {
  nst_link link; /* in datagram->pieces, by offset */
  nst_packet *packet;
  place where;
} piece;

typedef struct datagram {
  nst_node node;
  nst_link age, sibling;
  nst_timer timer;
  source *from;
  place where;       /* of any piece: what they have in common */
  nst_link pieces;
  size_t received;   /* bytes of data */
  size_t total;      /* 0 until the last piece has come */
  size_t bytes;      /* of memory */
  bool contradicted; /* RFC 8200 §4.5: what else comes of it is dropped */
} datagram;

static unsigned u16_at(const uint8_t *bytes) {
  return (unsigned)bytes[0] << 8 | bytes[1];
}

static uint32_t u32_at(const uint8_t *bytes) {
  return (uint32_t)u16_at(bytes) << 16 | u16_at(bytes + 2);
}

static void put16(uint8_t *to, size_t value) {
  to[0] = (uint8_t)(value >> 8);
  to[1] = (uint8_t)value;
}

/* The first fragment header of an IPv6 packet; 0: none, or none that can be read. */
static size_t find_fragment_header(const uint8_t *packet, size_t length) {
  size_t at = 40;
  unsigned next;
  if (length < 40) return 0;
  for (next = packet[6]; at + 8 <= length; next = packet[at], at += (packet[at + 1] + 1u) * 8u) {
    if (next == FRAGMENT) return at;
    if (next != HOP_BY_HOP && next != ROUTING && next != DESTINATION) return 0;
  }
  return 0;
}

bool nst_is_fragment(const uint8_t *packet, size_t length) {
  size_t at;
  if (packet[0] >> 4 == 4) return length >= 20 && (u16_at(packet + 6) & 0x3fff) != 0;
  at = find_fragment_header(packet, length);
  return at > 0 && (u16_at(packet + at + 2) & 0xfff9) != 0;
}

/* false: not a piece of anything. */
static bool locate(const nst_interface *interface, const nst_packet *packet, place *where) {
  const uint8_t *bytes = packet->data;
  memset(where, 0, sizeof *where);
  if (bytes[0] >> 4 == 4) {
    size_t header = (bytes[0] & 15u) * 4u, total = u16_at(bytes + 2);
    if (header < 20 || total < header || total > packet->length) return false;
    IP_SET_TYPE_VAL(where->source, IPADDR_TYPE_V4);
    IP_SET_TYPE_VAL(where->destination, IPADDR_TYPE_V4);
    memcpy(&ip_2_ip4(&where->source)->addr, bytes + 12, 4);
    memcpy(&ip_2_ip4(&where->destination)->addr, bytes + 16, 4);
    where->id = u16_at(bytes + 4);
    where->protocol = bytes[9];
    where->at = where->data = header;
    where->offset = (u16_at(bytes + 6) & 0x1fff) * 8u;
    where->more = (bytes[6] & 0x20) != 0;
    where->length = total - header;
  } else {
    size_t at = find_fragment_header(bytes, packet->length), end = 40 + u16_at(bytes + 4);
    if (at == 0 || end > packet->length || end < at + 8) return false;
    IP_SET_TYPE_VAL(where->source, IPADDR_TYPE_V6);
    IP_SET_TYPE_VAL(where->destination, IPADDR_TYPE_V6);
    memcpy(ip_2_ip6(&where->source)->addr, bytes + 8, 16);
    memcpy(ip_2_ip6(&where->destination)->addr, bytes + 24, 16);
    ip6_addr_assign_zone(ip_2_ip6(&where->source), IP6_UNICAST, &interface->netifs[0]);
    ip6_addr_assign_zone(ip_2_ip6(&where->destination), IP6_UNKNOWN, &interface->netifs[0]);
    where->id = u32_at(bytes + at + 4);
    where->at = at;
    where->data = at + 8;
    where->offset = u16_at(bytes + at + 2) & 0xfff8;
    where->more = (bytes[at + 3] & 1) != 0;
    where->length = end - at - 8;
  }
  return where->length > 0 && where->at + where->offset + where->length <= 65535;
}

/* ---- tables ---- */

static uint64_t hash_of(const nst_stack *stack, const place *where, bool source_only) {
  uint8_t key[38];
  size_t length = IP_IS_V6(&where->source) ? 16 : 4;
  memcpy(key, IP_IS_V6(&where->source) ? (const void *)ip_2_ip6(&where->source) : ip_2_ip4(&where->source), length);
  if (!source_only) {
    memcpy(key + length, IP_IS_V6(&where->source) ? (const void *)ip_2_ip6(&where->destination)
                                                  : ip_2_ip4(&where->destination), length);
    length *= 2;
    memcpy(key + length, &where->id, 4);
    key[length + 4] = where->protocol;
    length += 5;
  }
  return nst_siphash(stack->secret, key, length);
}

static bool same(const place *a, const place *b) {
  return a->id == b->id && a->protocol == b->protocol && ip_addr_eq(&a->source, &b->source) &&
         ip_addr_eq(&a->destination, &b->destination);
}

static datagram *find(nst_stack *stack, const place *where, uint64_t hash) {
  nst_node *node;
  for (node = nst_table_bucket(&stack->reassembly.datagrams, hash); node; node = node->next) {
    datagram *d = nst_holder(node, datagram, node);
    if (node->hash == hash && same(&d->where, where)) return d;
  }
  return NULL;
}

static source *find_source(nst_stack *stack, const place *where, uint64_t hash) {
  nst_node *node;
  for (node = nst_table_bucket(&stack->reassembly.sources, hash); node; node = node->next) {
    source *s = nst_holder(node, source, node);
    if (node->hash == hash && ip_addr_eq(&s->host, &where->source)) return s;
  }
  return NULL;
}

/* NULL: no memory. */
static source *source_of(nst_stack *stack, const place *where) {
  uint64_t hash = hash_of(stack, where, true);
  source *s = find_source(stack, where, hash);
  if (s) return s;
  s = calloc(1, sizeof *s);
  if (s == NULL) return NULL;
  s->host = where->source;
  nst_list_init(&s->datagrams);
  if (!nst_table_insert(&stack->reassembly.sources, &s->node, hash)) {
    free(s);
    return NULL;
  }
  return s;
}

static void account(nst_reassembly *all, datagram *d, size_t bytes, bool more) {
  if (more) {
    d->bytes += bytes;
    d->from->bytes += bytes;
    all->bytes += bytes;
  } else {
    d->bytes -= bytes;
    d->from->bytes -= bytes;
    all->bytes -= bytes;
  }
}

static void drop_pieces(nst_reassembly *all, datagram *d) {
  nst_link *link;
  while ((link = nst_list_pop(&d->pieces)) != NULL) {
    piece *p = nst_holder(link, piece, link);
    nst_packet_free(p->packet);
    free(p);
  }
  account(all, d, d->bytes - sizeof *d, false);
}

static void forget(nst_reassembly *all, datagram *d) {
  source *from = d->from;
  drop_pieces(all, d);
  account(all, d, d->bytes, false);
  nst_table_remove(&all->datagrams, &d->node);
  nst_heap_remove(&all->timers, &d->timer);
  nst_list_remove(&d->age);
  nst_list_remove(&d->sibling);
  free(d);
  if (!nst_list_empty(&from->datagrams)) return;
  nst_table_remove(&all->sources, &from->node);
  free(from);
}

void nst_reassembly_init(nst_reassembly *all) {
  nst_list_init(&all->ages);
}

void nst_reassembly_clear(nst_reassembly *all) {
  while (!nst_list_empty(&all->ages)) forget(all, nst_holder(all->ages.next, datagram, age));
  nst_table_free(&all->datagrams);
  nst_table_free(&all->sources);
  nst_heap_free(&all->timers);
}

/* NULL: no memory. */
static datagram *begin(nst_stack *stack, const place *where, uint64_t hash) {
  nst_reassembly *all = &stack->reassembly;
  datagram *d = calloc(1, sizeof *d);
  source *from = d ? source_of(stack, where) : NULL;
  nst_time lifetime = IP_IS_V6(&where->source) ? LIFETIME6 : LIFETIME4;
  if (from == NULL) {
    free(d);
    return NULL;
  }
  d->from = from;
  d->where = *where;
  nst_list_init(&d->age);
  nst_list_init(&d->sibling);
  nst_list_init(&d->pieces);
  nst_list_append(&all->ages, &d->age);
  nst_list_append(&from->datagrams, &d->sibling);
  account(all, d, sizeof *d, true);
  if (nst_table_insert(&all->datagrams, &d->node, hash) &&
      nst_heap_set(&all->timers, &d->timer, stack->now + lifetime)) {
    return d;
  }
  forget(all, d);
  return NULL;
}

/* Makes room for so many bytes of this source: at its own cost first, then at that of the oldest. */
static void keep_bounds(nst_stack *stack, const place *where, size_t bytes) {
  nst_reassembly *all = &stack->reassembly;
  source *from = find_source(stack, where, hash_of(stack, where, true));
  bool last = false;
  if (!NST_GUARDED) return;
  while (from && !last && from->bytes + bytes > SOURCE_BYTES) {
    last = from->datagrams.next == from->datagrams.previous; /* the source goes with it */
    all->counters.limited++;
    forget(all, nst_holder(from->datagrams.next, datagram, sibling));
  }
  while (!nst_list_empty(&all->ages) &&
         (all->bytes + bytes > STACK_BYTES || all->datagrams.count >= DATAGRAMS_AT_MOST)) {
    all->counters.limited++;
    forget(all, nst_holder(all->ages.next, datagram, age));
  }
}

/* ---- pieces ---- */

typedef enum verdict { ADDED, DUPLICATE, CONTRADICTION } verdict;

/* Most come in order, so the search begins at the end; those in reverse order are found at the beginning. */
static nst_link *place_for(const datagram *d, size_t offset) {
  nst_link *after = d->pieces.previous;
  if (after != &d->pieces && offset < nst_holder(d->pieces.next, piece, link)->where.offset) return d->pieces.next;
  while (after != (const nst_link *)&d->pieces && nst_holder(after, piece, link)->where.offset >= offset) {
    after = after->previous;
  }
  return after->next;
}

static verdict add(datagram *d, piece *p) {
  const place *where = &p->where;
  size_t end = where->offset + where->length;
  nst_link *next = place_for(d, where->offset), *before = next->previous;
  if (next != &d->pieces) {
    const piece *n = nst_holder(next, const piece, link);
    if (n->where.offset == where->offset && n->where.length == where->length && n->where.more == where->more &&
        memcmp(n->packet->data + n->where.data, p->packet->data + where->data, where->length) == 0) {
      return DUPLICATE;
    }
    if (n->where.offset < end && NST_GUARDED) return CONTRADICTION;
  }
  if (before != &d->pieces && NST_GUARDED) {
    const piece *b = nst_holder(before, const piece, link);
    if (b->where.offset + b->where.length > where->offset) return CONTRADICTION;
  }
  if (d->total > 0 && (end > d->total || (!where->more && end != d->total))) return CONTRADICTION;
  if (!where->more) {
    if (next != &d->pieces) return CONTRADICTION; /* something lies behind the end */
    d->total = end;
  }
  nst_list_insert_before(next, &p->link);
  d->received += where->length;
  return ADDED;
}

/* The headers of the first piece, changed to those of one packet, and all data. */
static nst_packet *whole(nst_stack *stack, const datagram *d, bool checksum) {
  const piece *first = nst_holder(d->pieces.next, const piece, link);
  size_t header = first->where.at, length = header + d->total;
  const nst_link *link;
  nst_packet *packet;
  if (first->where.offset != 0 || length > 65535) return NULL;
  packet = nst_packet_new(stack->hub, length);
  if (packet == NULL) return NULL;
  memcpy(packet->data, first->packet->data, header);
  for (link = d->pieces.next; link != &d->pieces; link = link->next) {
    const piece *p = nst_holder(link, const piece, link);
    if (p->where.offset + p->where.length > d->total) continue; /* only where pieces may overlap, with the guard off */
    memcpy(packet->data + header + p->where.offset, p->packet->data + p->where.data, p->where.length);
  }
  if (packet->data[0] >> 4 == 4) {
    put16(packet->data + 2, length);
    put16(packet->data + 6, 0);
    put16(packet->data + 10, 0);
    if (checksum) {
      uint16_t sum = inet_chksum(packet->data, (u16_t)header);
      memcpy(packet->data + 10, &sum, 2);
    }
  } else {
    size_t at = 40, next = 6;
    while (at < header) {
      next = at;
      at += (packet->data[at + 1] + 1u) * 8u;
    }
    packet->data[next] = first->packet->data[header]; /* the fragment header stood there */
    put16(packet->data + 4, length - 40);
  }
  return packet;
}

/* RFC 7112, RFC 1858: a first piece too short for the headers is made to get past somebody who looks at them. */
static bool has_headers(const nst_packet *packet, const place *where) {
  const uint8_t *bytes = packet->data;
  size_t at = where->data, end = where->data + where->length;
  unsigned next = IP_IS_V6(&where->source) ? bytes[where->at] : where->protocol;
  if (where->offset > 0 || !NST_GUARDED) return true;
  while (IP_IS_V6(&where->source) && (next == HOP_BY_HOP || next == ROUTING || next == DESTINATION)) {
    if (at + 8 > end) return false;
    next = bytes[at];
    at += (bytes[at + 1] + 1u) * 8u;
  }
  return at + (next == TCP ? 20u : next == UDP ? 8u : next == ICMP6 ? 4u : 0u) <= end;
}

static bool is_for_us(const nst_interface *interface, const ip_addr_t *destination) {
  return ip_addr_ismulticast(destination) || nst_stack_has_address(interface->stack, destination) ||
         nst_interface_is_broadcast(interface, destination);
}

static const char *take(nst_stack *stack, nst_packet *packet, const place *where, datagram **complete) {
  nst_reassembly *all = &stack->reassembly;
  size_t bytes = sizeof(piece) + sizeof *packet + packet->length;
  uint64_t hash = hash_of(stack, where, false);
  datagram *d;
  piece *p;
  verdict v;
  keep_bounds(stack, where, bytes + sizeof *d);
  d = find(stack, where, hash);
  if (d && d->contradicted) return "fragments contradict each other";
  if (d == NULL) d = begin(stack, where, hash);
  p = d ? malloc(sizeof *p) : NULL;
  if (p == NULL) return "no memory";
  nst_list_init(&p->link);
  p->packet = packet;
  p->where = *where;
  v = add(d, p);
  if (v == ADDED) {
    account(all, d, bytes, true);
    if (d->total > 0 && d->received >= d->total) *complete = d;
    return NULL;
  }
  free(p);
  if (v == DUPLICATE) return "fragment came twice";
  all->counters.overlaps++;
  if (IP_IS_V6(&where->source)) { /* RFC 5722 §4: of an id of 32 bits nothing else is to be expected */
    drop_pieces(all, d);
    d->contradicted = true;
  } else {
    forget(all, d);
  }
  return "fragments contradict each other";
}

nst_packet *nst_reassemble(nst_interface *interface, nst_packet *packet, const char **cause) {
  nst_stack *stack = interface->stack;
  bool ipv6 = packet->data[0] >> 4 == 6, checksum = interface->device && interface->device->checksum;
  nst_packet *result = NULL;
  datagram *complete = NULL;
  place where;
  if (ipv6) IP6_FRAG_STATS_INC(ip6_frag.recv);
  else IPFRAG_STATS_INC(ip_frag.recv);
  if (!locate(interface, packet, &where)) *cause = "impossible fragment";
  else if (!is_for_us(interface, &where.destination)) *cause = "not for us";
  else if (!ipv6 && checksum && inet_chksum(packet->data, (u16_t)where.data) != 0) *cause = "bad checksum";
  else if (!has_headers(packet, &where)) *cause = "first fragment without the headers";
  else *cause = take(stack, packet, &where, &complete);
  if (*cause) {
    if (ipv6) IP6_FRAG_STATS_INC(ip6_frag.drop);
    else IPFRAG_STATS_INC(ip_frag.drop);
    nst_packet_free(packet);
  } else if (complete) {
    result = whole(stack, complete, checksum);
    forget(&stack->reassembly, complete);
  }
  return result;
}

/* ---- time ---- */

nst_time nst_reassembly_next(const nst_stack *stack) {
  const nst_timer *first = nst_heap_first(&stack->reassembly.timers);
  return first ? first->at : NST_NEVER;
}

/* RFC 792, RFC 4443 §3.3: to who sent the first piece, if it came. */
static void tell_timeout(nst_stack *stack, datagram *d) {
  piece *first = nst_holder(d->pieces.next, piece, link);
  struct pbuf *p;
  if (nst_list_empty(&d->pieces) || first->where.offset > 0 || ip_addr_ismulticast(&d->where.destination)) return;
  if (!nst_stack_has_address(stack, &d->where.destination) || !nst_icmp_may_send(stack)) return;
  p = nst_packet_to_pbuf(first->packet, &stack->memory);
  nst_list_remove(&first->link);
  if (IP_IS_V6(&d->where.source)) {
    icmp6_time_exceeded_with_addrs(p, ICMP6_TE_FRAG, ip_2_ip6(&d->where.source), ip_2_ip6(&d->where.destination));
  } else {
    icmp_time_exceeded(p, ICMP_TE_FRAG);
  }
  pbuf_free(p);
  free(first);
}

bool nst_reassembly_run(nst_stack *stack) {
  nst_reassembly *all = &stack->reassembly;
  bool worked = false;
  while (nst_reassembly_next(stack) <= stack->now) {
    datagram *d = nst_holder(nst_heap_first(&all->timers), datagram, timer);
    if (!d->contradicted) {
      all->counters.timeouts++;
      tell_timeout(stack, d);
    }
    forget(all, d);
    worked = true;
  }
  return worked;
}
