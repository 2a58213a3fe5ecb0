/* The guard's part that looks at frames: Ethernet, ARP and, behind an IP header, neighbour discovery. */
#include <string.h>

#include "bytes.h"
#include "device.h"
#include "ethernet.h"
#include "guard.h"
#include "interface.h"
#include "nd.h"

static bool is_group(const uint8_t *station) {
  return (station[0] & 1) != 0;
}

static bool same_station(const uint8_t *a, const uint8_t *b) {
  return memcmp(a, b, NST_MAC_LENGTH) == 0;
}

/* RFC 826, for Ethernet and IPv4; who speaks must be who the frame comes from. */
static bool arp_sound(const uint8_t *frame, const uint8_t *arp, size_t length) {
  static const uint8_t head[6] = {0, 1, 8, 0, NST_MAC_LENGTH, 4};
  if (length < 28) return false;
  if (!NST_GUARDED) return true;
  if (memcmp(arp, head, sizeof head) != 0) return false;
  if (arp[6] != 0 || (arp[7] != 1 && arp[7] != 2)) return false;
  if (!same_station(arp + 8, frame + NST_MAC_LENGTH)) return false;
  return arp[14] < 224 && arp[14] != 127; /* no group, nor everybody, nor the loopback */
}

/* RFC 1122 3.3.6: who sends such a thing wants many hosts to answer one packet. */
static bool is_for_one(const nst_interface *interface, const uint8_t *packet, size_t length) {
  ip_addr_t host = IPADDR4_INIT(0);
  if (packet[0] >> 4 == 6) return length >= 40 && packet[24] != 0xff;
  if (length < 20) return false;
  memcpy(&ip_2_ip4(&host)->addr, packet + 16, 4);
  return !ip_addr_ismulticast(&host) && !nst_interface_is_broadcast(interface, &host);
}

nst_guard_cause nst_guard_frame(const nst_interface *interface, const uint8_t *frame, size_t length) {
  unsigned type, version;
  if (length < NST_FRAME_HEADER + 1) return NST_GUARD_FRAME_SHORT;
  type = nst_get16(frame + 12);
  if (type != NST_TYPE_IPV4 && type != NST_TYPE_IPV6 && type != NST_TYPE_ARP) return NST_GUARD_FRAME_TYPE;
  if (NST_GUARDED && !is_group(frame) && !same_station(frame, interface->mac)) return NST_GUARD_FRAME_OTHERS;
  if (NST_GUARDED && (is_group(frame + NST_MAC_LENGTH) || same_station(frame + NST_MAC_LENGTH, interface->mac))) {
    return NST_GUARD_FRAME_SOURCE;
  }
  if (type == NST_TYPE_ARP) {
    return arp_sound(frame, frame + NST_FRAME_HEADER, length - NST_FRAME_HEADER) ? NST_GUARD_PASS : NST_GUARD_ARP;
  }
  version = frame[NST_FRAME_HEADER] >> 4;
  if (version != (type == NST_TYPE_IPV4 ? 4u : 6u)) return NST_GUARD_VERSION;
  if (NST_GUARDED && is_group(frame) && is_for_one(interface, frame + NST_FRAME_HEADER, length - NST_FRAME_HEADER)) {
    return NST_GUARD_FRAME_GROUP;
  }
  return NST_GUARD_PASS;
}

static bool names_station(unsigned option) {
  return option == NST_ND_SOURCE_STATION || option == NST_ND_TARGET_STATION;
}

/* Type, length in units of 8 bytes, data (RFC 4861 §4.6). A station's option is one unit. */
static bool options_sound(const uint8_t *options, size_t length) {
  size_t i = 0;
  while (i < length) {
    size_t size;
    if (i + 8 > length) return false;
    size = options[i + 1] * 8u;
    if (size == 0 || i + size > length) return false;
    if (names_station(options[i]) && size != 8) return false;
    if (names_station(options[i]) && is_group(options + i + 2)) return false;
    i += size;
  }
  return true;
}

static bool has_option(const uint8_t *options, size_t length, unsigned type) {
  size_t i;
  for (i = 0; i < length; i += options[i + 1] * 8u) {
    if (options[i] == type) return true;
  }
  return false;
}

/* RFC 4861 6.1.2: a router speaks from its link-local address. */
static nst_guard_cause advertised_by_router(const uint8_t *packet, const uint8_t *message, size_t length) {
  if (length < NST_ND_ROUTER_ADVERTISEMENT_LENGTH || packet[8] != 0xfe || (packet[9] & 0xc0) != 0x80) {
    return NST_GUARD_ND;
  }
  return options_sound(message + NST_ND_ROUTER_ADVERTISEMENT_LENGTH, length - NST_ND_ROUTER_ADVERTISEMENT_LENGTH)
             ? NST_GUARD_PASS
             : NST_GUARD_ND;
}

/* RFC 4861 7.1: what makes a solicitation or an advertisement of a neighbour valid. */
static nst_guard_cause from_neighbour(const uint8_t *packet, const uint8_t *message, size_t length) {
  static const uint8_t nowhere[16], solicited_node[13] = {0xff, 0x02, [11] = 1, [12] = 0xff};
  bool from_nowhere = memcmp(packet + 8, nowhere, 16) == 0, to_group = packet[24] == 0xff;
  const uint8_t *options = message + NST_ND_LENGTH;
  if (length < NST_ND_LENGTH || packet[8] == 0xff || message[8] == 0xff) return NST_GUARD_ND;
  if (!options_sound(options, length - NST_ND_LENGTH)) return NST_GUARD_ND;
  if (message[0] == NST_ND_ADVERTISEMENT) {
    return from_nowhere || (to_group && (message[4] & 0x40)) ? NST_GUARD_ND : NST_GUARD_PASS;
  }
  if (from_nowhere && (memcmp(packet + 24, solicited_node, sizeof solicited_node) != 0 ||
                       has_option(options, length - NST_ND_LENGTH, NST_ND_SOURCE_STATION))) {
    return NST_GUARD_ND;
  }
  return NST_GUARD_PASS;
}

nst_guard_cause nst_guard_nd(const nst_interface *interface, const uint8_t *packet, const uint8_t *message,
                             size_t length) {
  bool heeded = interface->slaac && message[0] == NST_ND_ROUTER_ADVERTISEMENT;
  if (!nst_interface_is_ethernet(interface) && !heeded) return NST_GUARD_NEIGHBOUR;
  if (message != packet + 40) return NST_GUARD_ND; /* behind other headers, or a fragment (RFC 6980) */
  if (!heeded && message[0] != NST_ND_SOLICITATION && message[0] != NST_ND_ADVERTISEMENT) return NST_GUARD_ROUTER;
  if (packet[7] != 255 || message[1] != 0) return NST_GUARD_ND;
  return heeded ? advertised_by_router(packet, message, length) : from_neighbour(packet, message, length);
}
