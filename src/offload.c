#include "offload.h"

#include <string.h>

#include "bytes.h"

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

/* Where the data of a segment begins, whose header is at `tcp`; 0: it has none, or is no segment. */
static size_t find_data(const uint8_t *packet, size_t length, size_t tcp) {
  size_t data;
  if (tcp + TCP_LEAST > length) return 0;
  data = tcp + (packet[tcp + 12] >> 4) * 4u;
  return data >= tcp + TCP_LEAST && data < length ? data : 0;
}

static void put_length(uint8_t *ip, size_t length) {
  uint16_t sum = 0;
  if (is_six(ip)) {
    nst_put16(ip + 4, length - IP6_HEADER);
    return;
  }
  nst_put16(ip + 2, length);
  memcpy(ip + 10, &sum, sizeof sum);
  sum = inet_chksum(ip, (u16_t)header4(ip));
  memcpy(ip + 10, &sum, sizeof sum);
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

/* Where TCP's header and data are in a segment that our lwIP made; false: it is something else. */
static bool find_segment(const nst_packet *packet, size_t link, size_t *tcp, size_t *data) {
  const uint8_t *ip = packet->data + link;
  if (!packet->summed || packet->length < link + IP4_LEAST) return false;
  if (ip[is_six(ip) ? 6 : 9] != IP_PROTO_TCP) return false;
  *tcp = link + (is_six(ip) ? IP6_HEADER : header4(ip));
  *data = find_data(packet->data, packet->length, *tcp);
  return *data != 0;
}

/* Whether all that must not differ is the same: the frame's header, IP's but for length, id and checksum, TCP's but for
** sequence number, flags and checksum. */
static bool are_alike(const uint8_t *a, const uint8_t *b, size_t link, size_t tcp, size_t data) {
  const uint8_t *ip_a = a + link, *ip_b = b + link, *tcp_a = a + tcp, *tcp_b = b + tcp;
  if (memcmp(a, b, link) != 0) return false;
  if (is_six(ip_a)) {
    if (memcmp(ip_a, ip_b, 4) != 0 || memcmp(ip_a + 6, ip_b + 6, IP6_HEADER - 6) != 0) return false;
  } else {
    if (memcmp(ip_a, ip_b, 2) != 0 || memcmp(ip_a + 6, ip_b + 6, 4) != 0) return false;
    if (memcmp(ip_a + 12, ip_b + 12, tcp - link - 12) != 0) return false;
  }
  return memcmp(tcp_a, tcp_b, 4) == 0 && memcmp(tcp_a + 8, tcp_b + 8, 5) == 0 &&
         memcmp(tcp_a + 14, tcp_b + 14, 2) == 0 && memcmp(tcp_a + 18, tcp_b + 18, data - tcp - 18) == 0;
}

static void add_part(nst_train *train, void *bytes, size_t length) {
  train->parts[train->count].iov_base = bytes;
  train->parts[train->count++].iov_len = length;
}

/* Headers for all of it: the kernel cuts it, if it must. */
static void put_headers(nst_train *train, const nst_packet *first, size_t link, size_t tcp, size_t data, size_t length) {
  memcpy(train->headers, first->data, data);
  put_length(train->headers + link, length - link);
  put_pseudo_sum(train->headers + link, train->headers + tcp, length - tcp);
  train->parts[1].iov_base = train->headers;
  train->header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
  train->header.gso_type = is_six(train->headers + link) ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4;
  train->header.hdr_len = (uint16_t)data;
  train->header.gso_size = (uint16_t)(first->length - data);
  train->header.csum_start = (uint16_t)tcp;
  train->header.csum_offset = SUM_AT;
}

unsigned nst_train_make(nst_train *train, const nst_link *queue, size_t link) {
  nst_packet *first = nst_holder(queue->next, nst_packet, link);
  size_t tcp, data, length = first->length, size;
  const nst_link *at;
  uint32_t sequence;
  uint8_t flags;
  unsigned count = 1;
  memset(&train->header, 0, sizeof train->header);
  train->count = 0;
  add_part(train, &train->header, sizeof train->header);
  if (!find_segment(first, link, &tcp, &data)) {
    add_part(train, first->data, first->length);
    return 1;
  }
  add_part(train, first->data, data);
  add_part(train, first->data + data, first->length - data);
  size = first->length - data;
  sequence = nst_get32(first->data + tcp + 4);
  flags = first->data[tcp + 13];
  /* One that is shorter, or the end, is the last. */
  for (at = queue->next->next; at != queue && count < NST_TRAIN_MOST; at = at->next) {
    nst_packet *packet = nst_holder(at, nst_packet, link);
    size_t its_tcp, its_data, more;
    if ((flags & ~TCP_PSH) != TCP_ACK || length != first->length + (count - 1) * size) break;
    if (!find_segment(packet, link, &its_tcp, &its_data) || its_tcp != tcp || its_data != data) break;
    more = packet->length - data;
    if (more > size || length - link + more > 0xffff) break;
    if (nst_get32(packet->data + tcp + 4) != sequence + (uint32_t)(length - data)) break;
    if (!are_alike(first->data, packet->data, link, tcp, data)) break;
    if ((packet->data[tcp + 13] & ~(TCP_PSH | TCP_FIN)) != TCP_ACK) break;
    flags |= packet->data[tcp + 13];
    add_part(train, packet->data + data, more);
    length += more;
    count++;
  }
  if (count > 1) {
    put_headers(train, first, link, tcp, data, length);
    train->headers[tcp + 13] = flags;
  }
  return count;
}
