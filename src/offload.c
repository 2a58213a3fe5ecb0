#include "offload.h"

#include <string.h>

#include "bytes.h"
#include "checksum.h"

#include "lwip/inet_chksum.h"
#include "lwip/ip.h"
#include "lwip/prot/tcp.h"

#define IP4_LEAST 20
#define IP6_HEADER 40
#define TCP_LEAST 20
#define SUM_AT 16 /* of TCP's checksum */

static bool is_six(const uint8_t *ip) {
  return ip[0] >> 4 == 6;
}

static size_t header4(const uint8_t *ip) {
  return (ip[0] & 15u) * 4u;
}

/* Where the data of a segment begins, or would, whose header is at `tcp`; 0: it is no segment. */
static size_t find_data(const uint8_t *packet, size_t length, size_t tcp) {
  size_t data;
  if (tcp + TCP_LEAST > length) return 0;
  data = tcp + (packet[tcp + 12] >> 4) * 4u;
  return data >= tcp + TCP_LEAST && data <= length ? data : 0;
}

static void put_length(uint8_t *ip, size_t length) {
  if (is_six(ip)) {
    nst_put16(ip + 4, length - IP6_HEADER);
    return;
  }
  nst_put16(ip + 2, length);
  nst_header_complete(ip);
}

/* The sum of TCP's pseudo header, as the kernel wants it in the checksum's place to add the rest (RFC 9293 3.1, RFC 8200
** 8.1). */
static void put_pseudo_sum(const uint8_t *ip, uint8_t *tcp, size_t length) {
  uint8_t text[36];
  size_t size = is_six(ip) ? 32 : 8;
  uint16_t sum;
  memcpy(text, ip + (is_six(ip) ? 8 : 12), size);
  nst_put16(text + size, length);
  nst_put16(text + size + 2, IP_PROTO_TCP);
  sum = (uint16_t)~inet_chksum(text, (u16_t)(size + 4));
  memcpy(tcp + SUM_AT, &sum, sizeof sum);
}

/* ---- what comes in ---- */

/* Adds what the sender left to us: the sum from `start` on, where that of the pseudo header lies in its place. */
static bool complete(const struct virtio_net_hdr *header, uint8_t *packet, size_t length) {
  size_t start = header->csum_start, at = start + header->csum_offset;
  uint16_t sum;
  if (at + 2 > length || length - start > 0xffff) return false;
  sum = inet_chksum(packet + start, (u16_t)(length - start));
  if (sum == 0) sum = 0xffff; /* UDP's 0 means "none"; to TCP both are the same */
  memcpy(packet + at, &sum, sizeof sum);
  return true;
}

bool nst_segments_begin(nst_segments *segments, uint8_t *bytes, size_t length, size_t link) {
  struct virtio_net_hdr header;
  const uint8_t *ip;
  segments->left = segments->tcp = segments->headers = 0;
  if (length <= NST_OFFLOAD_HEADER) return false;
  memcpy(&header, bytes, sizeof header);
  bytes += NST_OFFLOAD_HEADER;
  length -= NST_OFFLOAD_HEADER;
  segments->start = bytes;
  segments->link = link;
  if (header.gso_type == VIRTIO_NET_HDR_GSO_NONE) {
    if ((header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) && !complete(&header, bytes, length)) return false;
    segments->left = segments->size = length;
    return true;
  }
  ip = bytes + link;
  segments->tcp = header.csum_start;
  segments->headers = find_data(bytes, length, segments->tcp);
  segments->size = header.gso_size;
  if (!(header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) || segments->size == 0 || segments->headers == 0) return false;
  if (segments->tcp < link + IP4_LEAST) return false;
  if (is_six(ip) ? segments->tcp < link + IP6_HEADER : segments->tcp != link + header4(ip)) return false;
  if (segments->headers == length) return false;
  segments->left = length - segments->headers;
  segments->last_flags = bytes[segments->tcp + 13] & (TCP_FIN | TCP_PSH);
  bytes[segments->tcp + 13] &= (uint8_t)~(TCP_FIN | TCP_PSH);
  return true;
}

size_t nst_segments_left(const nst_segments *segments) {
  return segments->left == 0 ? 0 : (segments->left - 1) / segments->size + 1;
}

/* Makes the headers those of a segment of its own. */
static void finish(const nst_segments *segments, size_t length) {
  uint8_t *ip = segments->start + segments->link, *tcp = segments->start + segments->tcp;
  size_t rest = length - segments->tcp;
  uint16_t sum;
  if (segments->left == 0) tcp[13] |= segments->last_flags;
  put_length(ip, length - segments->link);
  put_pseudo_sum(ip, tcp, rest);
  sum = inet_chksum(tcp, (u16_t)rest);
  memcpy(tcp + SUM_AT, &sum, sizeof sum);
}

/* Moves the headers behind the data that was taken. */
static void move_on(nst_segments *segments, size_t data) {
  uint8_t *ip, *tcp;
  uint32_t sequence;
  memmove(segments->start + data, segments->start, segments->headers);
  segments->start += data;
  ip = segments->start + segments->link;
  tcp = segments->start + segments->tcp;
  sequence = nst_get32(tcp + 4) + (uint32_t)data;
  nst_put16(tcp + 4, sequence >> 16);
  nst_put16(tcp + 6, sequence & 0xffff);
  tcp[13] &= (uint8_t)~TCP_CWR; /* the first one's alone */
  if (!is_six(ip)) nst_put16(ip + 4, nst_get16(ip + 4) + 1u); /* the identification */
}

nst_packet *nst_segments_next(nst_segments *segments, nst_hub *hub) {
  size_t data = segments->left < segments->size ? segments->left : segments->size;
  size_t length = segments->headers + data;
  nst_packet *packet;
  segments->left -= data;
  if (segments->headers > 0) finish(segments, length);
  packet = nst_packet_copy(hub, segments->start, length, segments->link);
  if (segments->left > 0) move_on(segments, data);
  return packet;
}

/* ---- what goes out ---- */

/* A segment that our lwIP made: where its parts are. */
typedef struct segment {
  nst_packet *packet;
  size_t link, tcp, data, length; /* offsets; length of the data */
  uint32_t sequence, acknowledged;
  uint8_t flags;
} segment;

static bool find_segment(segment *found, const nst_link *at, size_t link) {
  nst_packet *packet = nst_holder(at, nst_packet, link);
  const uint8_t *ip = packet->data + link, *tcp;
  if (!packet->summed || packet->length < link + IP4_LEAST) return false;
  if (ip[is_six(ip) ? 6 : 9] != IP_PROTO_TCP) return false;
  found->packet = packet;
  found->link = link;
  found->tcp = link + (is_six(ip) ? IP6_HEADER : header4(ip));
  found->data = find_data(packet->data, packet->length, found->tcp);
  if (found->data == 0) return false;
  tcp = packet->data + found->tcp;
  found->length = packet->length - found->data;
  found->sequence = nst_get32(tcp + 4);
  found->acknowledged = nst_get32(tcp + 8);
  found->flags = tcp[13];
  return true;
}

/* Whether two are of one connection and differ in nothing but IP's length, id and checksum, TCP's numbers, flags, window
** and checksum. */
static bool are_alike(const segment *a, const segment *b) {
  const uint8_t *one = a->packet->data, *other = b->packet->data;
  size_t link = a->link, tcp = a->tcp, ip_rest = is_six(one + link) ? 6 : 12;
  if (b->tcp != tcp || b->data != a->data || memcmp(one, other, link + 2) != 0) return false;
  if (!is_six(one + link) && memcmp(one + link + 6, other + link + 6, 4) != 0) return false;
  if (is_six(one + link) && memcmp(one + link + 2, other + link + 2, 2) != 0) return false;
  return memcmp(one + link + ip_rest, other + link + ip_rest, tcp - link - ip_rest + 4) == 0 &&
         one[tcp + 12] == other[tcp + 12] && memcmp(one + tcp + 18, other + tcp + 18, a->data - tcp - 18) == 0;
}

/* Whether b says all that a says, and more: acknowledgements that nobody misses when they are lost (RFC 3449 5.2). */
static bool supersedes(const segment *a, const segment *b) {
  return a->length == 0 && b->length == 0 && a->flags == TCP_ACK && b->flags == TCP_ACK && a->sequence == b->sequence &&
         (int32_t)(b->acknowledged - a->acknowledged) > 0 && are_alike(a, b);
}

/* Whether b's data follows a's, of which there are `length` bytes with what was put behind it. */
static bool continues(const segment *a, const segment *b, size_t length) {
  return b->length > 0 && b->length <= a->length && b->sequence == a->sequence + (uint32_t)length &&
         b->acknowledged == a->acknowledged && (b->flags & ~(TCP_PSH | TCP_FIN)) == TCP_ACK &&
         memcmp(a->packet->data + a->tcp + 14, b->packet->data + b->tcp + 14, 2) == 0 && are_alike(a, b);
}

static void add_part(nst_train *train, void *bytes, size_t length) {
  train->parts[train->count].iov_base = bytes;
  train->parts[train->count++].iov_len = length;
}

/* Headers for all of it: the kernel cuts it, if it must. */
static void put_headers(nst_train *train, const segment *first, size_t length, uint8_t flags) {
  uint8_t *ip = train->headers + first->link, *tcp = train->headers + first->tcp;
  memcpy(train->headers, first->packet->data, first->data);
  tcp[13] = flags;
  put_length(ip, first->data - first->link + length);
  put_pseudo_sum(ip, tcp, first->data - first->tcp + length);
  train->parts[1].iov_base = train->headers;
  train->header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
  train->header.gso_type = is_six(ip) ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4;
  train->header.hdr_len = (uint16_t)first->data;
  train->header.gso_size = (uint16_t)first->length;
  train->header.csum_start = (uint16_t)first->tcp;
  train->header.csum_offset = SUM_AT;
}

unsigned nst_train_make(nst_train *train, const nst_link *queue, size_t link) {
  const nst_link *at = queue->next;
  segment first, next;
  size_t length;
  unsigned count = 1;
  uint8_t flags;
  memset(&train->header, 0, sizeof train->header);
  train->count = 0;
  add_part(train, &train->header, sizeof train->header);
  if (!find_segment(&first, at, link)) {
    nst_packet *packet = nst_holder(at, nst_packet, link);
    add_part(train, packet->data, packet->length);
    return 1;
  }
  for (at = at->next; at != queue && find_segment(&next, at, link) && supersedes(&first, &next); at = at->next) {
    first = next;
    count++;
  }
  flags = first.flags;
  length = first.length;
  add_part(train, first.packet->data, first.data);
  add_part(train, first.packet->data + first.data, length);
  if (length == 0 || (flags & ~TCP_PSH) != TCP_ACK) return count;
  for (; at != queue && train->count < NST_TRAIN_MOST + 2; at = at->next) {
    if (!find_segment(&next, at, link) || !continues(&first, &next, length)) break;
    if (first.data - link + length + next.length > 0xffff) break;
    add_part(train, next.packet->data + next.data, next.length);
    length += next.length;
    flags |= next.flags;
    count++;
    if (next.length < first.length || (flags & TCP_FIN)) break; /* the last one */
  }
  if (length > first.length) put_headers(train, &first, length, flags);
  return count;
}
