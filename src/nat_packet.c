/* What masquerading reads from a packet, and changes in it. */
#include <string.h>

#include "bytes.h"
#include "checksum.h"
#include "nat.h"

/* ICMP's types: questions and answers with an identifier, and what reports errors (RFC 792, RFC 5508 §3). */
enum {
  ECHO_REPLY = 0,
  UNREACHABLE = 3,
  ECHO = 8,
  TIME_EXCEEDED = 11,
  PARAMETER = 12,
  TIMESTAMP = 13,
  TIMESTAMP_REPLY = 14
};

static size_t header_of(const uint8_t *packet) {
  return (packet[0] & 15u) * 4u;
}

/* Of a packet, or of the beginning that an error quotes. */
static bool read_ends(const uint8_t *packet, size_t length, nst_flow *flow) {
  size_t at = header_of(packet);
  const uint8_t *transport = packet + at;
  if (packet[0] >> 4 != 4 || at < 20 || length < at + 8 || (nst_get16(packet + 6) & 0x1fff) != 0) return false;
  flow->protocol = packet[9];
  memcpy(flow->source.host, packet + 12, 4);
  memcpy(flow->destination.host, packet + 16, 4);
  switch (flow->protocol) {
    case NST_NAT_TCP:
      if (length >= at + 14) flow->flags = transport[13];
      /* fall through */
    case NST_NAT_UDP:
      flow->source.port = (uint16_t)nst_get16(transport);
      flow->destination.port = (uint16_t)nst_get16(transport + 2);
      flow->asks = true;
      return true;
    case NST_NAT_ICMP:
      flow->asks = transport[0] == ECHO || transport[0] == TIMESTAMP;
      if (!flow->asks && transport[0] != ECHO_REPLY && transport[0] != TIMESTAMP_REPLY) return false;
      *(flow->asks ? &flow->source.port : &flow->destination.port) = (uint16_t)nst_get16(transport + 4);
      return true;
    default: return false;
  }
}

/* What an error quotes; NULL: it is none. */
static const uint8_t *quoted_in(const uint8_t *packet, size_t length) {
  size_t at = header_of(packet);
  if (packet[9] != NST_NAT_ICMP || length < at + 8 + 20) return NULL;
  if (packet[at] != UNREACHABLE && packet[at] != TIME_EXCEEDED && packet[at] != PARAMETER) return NULL;
  return packet + at + 8;
}

bool nst_flow_read(const uint8_t *packet, size_t length, nst_flow *flow) {
  const uint8_t *quoted;
  nst_endpoint sent_from;
  memset(flow, 0, sizeof *flow);
  if (length < 20 || packet[0] >> 4 != 4 || header_of(packet) < 20) return false;
  if ((nst_get16(packet + 6) & 0x3fff) != 0) return false; /* a piece: the caller puts them together */
  if (nst_get16(packet + 2) < length) length = nst_get16(packet + 2);
  quoted = quoted_in(packet, length);
  if (quoted == NULL) return read_ends(packet, length, flow);
  if (!read_ends(quoted, length - (size_t)(quoted - packet), flow)) return false;
  sent_from = flow->source;
  flow->source = flow->destination;
  flow->destination = sent_from;
  flow->error = true;
  flow->asks = false;
  return true;
}

/* RFC 1624, equation 3, of numbers as they lie in packets. `sum` may lie anywhere. */
static void adjust(uint8_t *sum, const uint8_t *before, const uint8_t *after, size_t length) {
  uint32_t total = 0xffff & ~nst_get16(sum);
  size_t i;
  for (i = 0; i < length; i += 2) total += (0xffff & ~nst_get16(before + i)) + nst_get16(after + i);
  while (total >> 16) total = (total & 0xffff) + (total >> 16);
  nst_put16(sum, 0xffff & ~total);
}

/* Where the checksum lies that goes over an end; NULL: there is none, or an error does not quote so far. */
static uint8_t *sum_of(uint8_t *packet, size_t length) {
  size_t at = header_of(packet);
  at += packet[9] == NST_NAT_TCP ? 16 : packet[9] == NST_NAT_UDP ? 6 : 2;
  if (at + 2 > length || (packet[9] == NST_NAT_UDP && nst_get16(packet + at) == 0)) return NULL; /* RFC 768 */
  return packet + at;
}

/* Puts another source, or destination, into a packet or what is quoted of it. */
static void replace(uint8_t *packet, size_t length, bool is_source, const nst_endpoint *to, bool sums) {
  uint8_t *host = packet + (is_source ? 12 : 16), *sum = sums ? sum_of(packet, length) : NULL;
  uint8_t *port = packet + header_of(packet), number[2];
  if (packet[9] == NST_NAT_ICMP) port += 4;
  else if (!is_source) port += 2;
  nst_put16(number, to->port);
  if (sum) {
    adjust(sum, port, number, 2);
    if (packet[9] != NST_NAT_ICMP) adjust(sum, host, to->host, 4); /* in the pseudo header */
    if (packet[9] == NST_NAT_UDP && nst_get16(sum) == 0) nst_put16(sum, 0xffff);
  }
  memcpy(host, to->host, 4);
  memcpy(port, number, 2);
}

/* The same in what is quoted, whose header has a checksum of its own. */
static void replace_quoted(uint8_t *quoted, size_t length, bool is_source, const nst_endpoint *to, bool sums) {
  uint8_t *host = quoted + (is_source ? 12 : 16);
  if (nst_get16(quoted + 10) != 0) adjust(quoted + 10, host, to->host, 4);
  replace(quoted, length, is_source, to, sums);
}

bool nst_translate(uint8_t *packet, size_t length, const nst_translation *change, bool sums) {
  uint8_t *quoted = packet + header_of(packet) + 8;
  size_t have;
  if (quoted_in(packet, length) == NULL) {
    if (change->changes_source) replace(packet, length, true, &change->source, sums);
    if (change->changes_destination) replace(packet, length, false, &change->destination, sums);
    return true;
  }
  if (sums && !nst_transport_holds(packet, length)) return false; /* RFC 5508 REQ-3 */
  have = length - (size_t)(quoted - packet);
  if (change->changes_source) {
    memcpy(packet + 12, change->source.host, 4);
    replace_quoted(quoted, have, false, &change->source, sums);
  }
  if (change->changes_destination) {
    memcpy(packet + 16, change->destination.host, 4);
    replace_quoted(quoted, have, true, &change->destination, sums);
  }
  if (sums) nst_transport_complete(packet, length);
  return true;
}
