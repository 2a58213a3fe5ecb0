#include "guard.h"

#include <string.h>

#include "bytes.h"
#include "device.h"
#include "group.h"
#include "nd.h"
#include "stack.h"

#include "lwip/ip_addr.h"

/* IP protocol numbers, which IPv6 calls next headers. */
enum { HOP_BY_HOP = 0, ICMP = 1, TCP = 6, UDP = 17, ROUTING = 43, FRAGMENT = 44, ICMP6 = 58, DESTINATION = 60 };

/* More extension headers than anybody has a use for (RFC 8200 §4.1 has six in its order). */
#define HEADERS_AT_MOST 16

static const char *const texts[] = {
  "",
#define NST_GUARD_TEXT(name, text) text,
  NST_GUARD_CAUSES(NST_GUARD_TEXT)
#undef NST_GUARD_TEXT
};

const char *nst_guard_text(nst_guard_cause cause) {
  return texts[cause];
}

/* Nobody sends from a group, from everybody, from nowhere, or from our own address (RFC 1122 3.2.1.3, RFC 4291 §2). */
static bool source_possible(const nst_interface *interface, const ip_addr_t *source, bool looped) {
  if (ip_addr_ismulticast(source) || ip_addr_isany(source)) return false;
  if (!IP_IS_V6(source) && ip4_addr_get_u32(ip_2_ip4(source)) == IPADDR_BROADCAST) return false;
  if (looped) return true;
  if (ip_addr_isloopback(source)) return false;
  return nst_interface_with_address(interface->stack, source) == NULL;
}

static nst_guard_cause transport(const nst_interface *interface, const uint8_t *packet, unsigned protocol,
                                 const uint8_t *header, size_t length, bool ipv6) {
  switch (protocol) {
    case TCP:
      if (length < 20 || (header[12] >> 4) * 4u < 20 || (header[12] >> 4) * 4u > length) return NST_GUARD_TRANSPORT;
      break;
    case UDP:
      if (length < 8 || nst_get16(header + 4) < 8 || nst_get16(header + 4) > length) return NST_GUARD_TRANSPORT;
      /* RFC 8200 §8.1 */
      if (ipv6 && nst_get16(header + 6) == 0 && interface->device && interface->device->checksum) {
        return NST_GUARD_CHECKSUM;
      }
      break;
    case ICMP:
      if (!ipv6 && length < 8) return NST_GUARD_TRANSPORT;
      break;
    case ICMP6:
      if (!ipv6) break;
      if (length < 8) return NST_GUARD_TRANSPORT;
      if (nst_is_nd_type(header[0])) return nst_guard_nd(interface, packet, header, length);
      if (header[0] == 2 && nst_get32(header + 4) < 1280) return NST_GUARD_LEAST_MTU; /* RFC 8201 §4 */
      break;
    default: break;
  }
  return NST_GUARD_PASS;
}

/* A piece at `offset` of what will have `before` bytes in front of it: whole, it must fit lwIP's 16-bit lengths. */
static bool fragment_possible(size_t before, size_t offset, size_t length, bool more) {
  return length > 0 && (!more || length % 8 == 0) && before + offset + length <= 65535;
}

/* Options as type, length, data. IPv4's length counts all three (RFC 791), IPv6's only the data (RFC 8200 §4.2). */
static bool options_sound(const uint8_t *options, size_t length, bool ipv6) {
  size_t i = 0;
  while (i < length) {
    size_t size;
    if (options[i] == 0 && !ipv6) return true; /* end of list */
    if (options[i] == (ipv6 ? 0 : 1)) {        /* one byte of padding */
      i++;
      continue;
    }
    if (i + 2 > length) return false;
    size = ipv6 ? options[i + 1] + 2u : options[i + 1];
    if (size < 2 || i + size > length) return false;
    i += size;
  }
  return true;
}

static nst_guard_cause guard4(const nst_interface *interface, const uint8_t *packet, size_t length, bool looped) {
  size_t header = (packet[0] & 15u) * 4u, total, offset;
  ip_addr_t source = IPADDR4_INIT(0);
  bool more;
  if (length < 20 || header < 20 || header > length) return NST_GUARD_SHORT;
  total = nst_get16(packet + 2);
  if (total < header) return NST_GUARD_SHORT;
  if (total > length) return NST_GUARD_LENGTH;
  if (!options_sound(packet + 20, header - 20, false)) return NST_GUARD_OPTIONS;
  memcpy(&ip_2_ip4(&source)->addr, packet + 12, 4);
  /* Who watches an Ethernet for groups may have no address, and asks all the same (RFC 4541 2.1.1). */
  if (!(nst_is_igmp(packet) && ip_addr_isany(&source)) && !source_possible(interface, &source, looped)) {
    return NST_GUARD_SOURCE;
  }
  offset = (nst_get16(packet + 6) & 0x1fffu) * 8;
  more = (packet[6] & 0x20) != 0;
  if (offset > 0 || more) {
    return fragment_possible(header, offset, total - header, more) ? NST_GUARD_PASS : NST_GUARD_FRAGMENT;
  }
  return transport(interface, packet, packet[9], packet + header, total - header, false);
}

static nst_guard_cause guard6(const nst_interface *interface, const uint8_t *packet, size_t length, bool looped) {
  unsigned next, headers;
  size_t at = 40, end;
  ip_addr_t source = IPADDR6_INIT(0, 0, 0, 0);
  if (length < 40) return NST_GUARD_SHORT;
  end = 40 + nst_get16(packet + 4);
  if (end > length) return NST_GUARD_LENGTH;
  memcpy(ip_2_ip6(&source)->addr, packet + 8, 16);
  ip6_addr_assign_zone(ip_2_ip6(&source), IP6_UNICAST, &interface->netifs[0]);
  /* In neighbour discovery it is possible to have no address yet, or ours, in reports of groups to have none yet; lwIP
  ** sees nothing of these. */
  if (!nst_is_nd(packet, end) && !(ip_addr_isany(&source) && nst_is_mld(packet, end)) &&
      !source_possible(interface, &source, looped)) {
    return NST_GUARD_SOURCE;
  }
  next = packet[6];
  for (headers = 0; headers <= HEADERS_AT_MOST; headers++) {
    const uint8_t *header = packet + at;
    size_t size;
    if (next != HOP_BY_HOP && next != ROUTING && next != DESTINATION && next != FRAGMENT) {
      return transport(interface, packet, next, header, end - at, true);
    }
    if (end - at < 8) return NST_GUARD_CHAIN;
    if (next == FRAGMENT) {
      size_t offset = nst_get16(header + 2) & 0xfff8u;
      bool more = (header[3] & 1) != 0;
      if (offset > 0 || more) {
        return fragment_possible(at, offset, end - at - 8, more) ? NST_GUARD_PASS : NST_GUARD_FRAGMENT;
      }
      size = 8; /* an atomic fragment (RFC 6946) is whole */
    } else {
      size = (header[1] + 1u) * 8u;
      if (size > end - at) return NST_GUARD_CHAIN;
      if (next == HOP_BY_HOP && at != 40) return NST_GUARD_CHAIN; /* RFC 8200 §4.3: it comes first */
      if (next != ROUTING && !options_sound(header + 2, size - 2, true)) return NST_GUARD_CHAIN;
    }
    next = header[0];
    at += size;
  }
  return NST_GUARD_CHAIN;
}

static nst_guard_cause basic(const uint8_t *packet, size_t length) {
  unsigned version = length ? packet[0] >> 4 : 0;
  if (length == 0) return NST_GUARD_EMPTY;
  if (version != 4 && version != 6) return NST_GUARD_VERSION;
  return length < (version == 4 ? 20u : 40u) ? NST_GUARD_SHORT : NST_GUARD_PASS;
}

bool nst_guard_is_on(void) {
  return NST_GUARDED;
}

nst_guard_cause nst_guard(const nst_interface *interface, const uint8_t *packet, size_t length, bool looped) {
  nst_guard_cause cause = basic(packet, length);
  if (cause != NST_GUARD_PASS || !NST_GUARDED) return cause;
  return packet[0] >> 4 == 4 ? guard4(interface, packet, length, looped) : guard6(interface, packet, length, looped);
}
