#include "checksum.h"

#include <string.h>

#include "bytes.h"
#include "chain.h"
#include "ethernet.h"
#include "reassembly.h"

#include "lwip/opt.h"

enum { ICMP = 1, TCP = 6, UDP = 17, ICMP6 = 58 };

static uint16_t fold(uint32_t sum) {
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return (uint16_t)~sum;
}

uint16_t nst_header_checksum(const uint8_t *packet) {
  return fold(nst_sum(packet, (packet[0] & 15) * 4));
}

void nst_header_complete(uint8_t *packet) {
  uint16_t sum;
  memset(packet + 10, 0, 2);
  sum = nst_header_checksum(packet);
  memcpy(packet + 10, &sum, 2);
}

uint16_t nst_transport_checksum(const uint8_t *packet, size_t at, size_t length, unsigned protocol) {
  bool ipv6 = packet[0] >> 4 == 6;
  uint8_t rest[4];
  uint32_t sum = nst_sum(packet + (ipv6 ? 8 : 12), ipv6 ? 32 : 8);
  nst_put16(rest, length);
  nst_put16(rest + 2, protocol);
  return fold(sum + nst_sum(rest, 4) + nst_sum(packet + at, (int)length));
}

uint16_t nst_checksum6(const uint8_t *packet, size_t length) {
  return nst_transport_checksum(packet, 40, length - 40, packet[6]);
}

/* Where the sum is, and what it is over. */
typedef struct transport {
  unsigned protocol;
  size_t at, length, place; /* place 0: there is none */
  bool pseudo;
} transport;

static transport find(const uint8_t *packet, size_t length) {
  bool ipv6 = packet[0] >> 4 == 6;
  transport t = {packet[9], (packet[0] & 15u) * 4u, 0, 0, true};
  if (ipv6) {
    t.at = 40;
    t.protocol = nst_chain_walk(packet, &t.at, length, packet[6], true);
  }
  if (t.at >= length) return t;
  t.length = length - t.at;
  switch (t.protocol) {
    case TCP: t.place = t.at + 16; break;
    case UDP:
      t.place = t.at + 6;
      if (t.length >= 8 && nst_get16(packet + t.at + 4) < t.length) t.length = nst_get16(packet + t.at + 4);
      break;
    case ICMP:
      t.pseudo = false;
      t.place = ipv6 ? 0 : t.at + 2;
      break;
    case ICMP6: t.place = ipv6 ? t.at + 2 : 0; break;
    default: break;
  }
  if (t.place + 2 > t.at + t.length) t.place = 0;
  return t;
}

static uint16_t sum_of(const uint8_t *packet, const transport *t) {
  if (!t->pseudo) return fold(nst_sum(packet + t->at, (int)t->length));
  return nst_transport_checksum(packet, t->at, t->length, t->protocol);
}

bool nst_transport_holds(const uint8_t *packet, size_t length) {
  transport t = find(packet, length);
  if (t.place == 0) return true;
  if (t.protocol == UDP && nst_get16(packet + t.place) == 0) return packet[0] >> 4 == 4; /* RFC 768: it has none */
  return sum_of(packet, &t) == 0;
}

void nst_transport_complete(uint8_t *packet, size_t length) {
  transport t = find(packet, length);
  uint16_t sum;
  if (t.place == 0) return;
  memset(packet + t.place, 0, 2);
  sum = sum_of(packet, &t);
  if (sum == 0 && t.protocol == UDP) sum = 0xffff; /* 0 would mean that there is none */
  memcpy(packet + t.place, &sum, 2);
}

/* The length of the whole IP packet in a frame; 0: there is none. */
static size_t whole_packet(const uint8_t *frame, size_t length) {
  const uint8_t *packet = frame + NST_FRAME_HEADER;
  size_t total = 0, header = 40;
  unsigned type;
  if (length < NST_FRAME_HEADER + 20) return 0;
  length -= NST_FRAME_HEADER;
  type = nst_get16(frame + 12);
  if (type == NST_TYPE_IPV4 && packet[0] >> 4 == 4) {
    header = (packet[0] & 15u) * 4u;
    total = nst_get16(packet + 2);
  } else if (type == NST_TYPE_IPV6 && packet[0] >> 4 == 6) {
    total = header + nst_get16(packet + 4);
  }
  if (header < 20 || total < header || total > length || nst_is_fragment(packet, total)) return 0;
  return total;
}

bool nst_frame_holds(const uint8_t *frame, size_t length) {
  const uint8_t *packet = frame + NST_FRAME_HEADER;
  size_t total = whole_packet(frame, length);
  if (total == 0) return true;
  return (packet[0] >> 4 == 6 || nst_header_checksum(packet) == 0) && nst_transport_holds(packet, total);
}

void nst_frame_complete(uint8_t *frame, size_t length) {
  uint8_t *packet = frame + NST_FRAME_HEADER;
  size_t total = whole_packet(frame, length);
  if (total == 0) return;
  if (packet[0] >> 4 == 4) nst_header_complete(packet);
  nst_transport_complete(packet, total);
}
