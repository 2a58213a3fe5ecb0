#include "forward.h"

#include <string.h>

#include "bytes.h"
#include "chain.h"
#include "checksum.h"
#include "ethernet.h"
#include "fragment.h"
#include "icmp.h"
#include "nat.h"
#include "reassembly.h"
#include "stack.h"

#include "lwip/ip6.h"

enum { LOOSE_SOURCE_ROUTE = 131, STRICT_SOURCE_ROUTE = 137 };

/* Addresses that mean something on one link or host only, or nothing (RFC 1812 5.3.7, RFC 3927 §7, RFC 4291 §2). */
static bool is_confined(const ip_addr_t *address) {
  if (ip_addr_isany(address) || ip_addr_isloopback(address) || ip_addr_islinklocal(address)) return true;
  return !IP_IS_V6(address) && (nst_address_bytes(address)[0] == 0 || nst_address_bytes(address)[0] >= 240);
}

/* Nobody has a good use for choosing the way himself (RFC 7126 §4.3). */
static bool has_source_route(const uint8_t *packet) {
  size_t i = 20, end = (packet[0] & 15u) * 4u;
  while (packet[0] >> 4 == 4 && i + 1 < end && packet[i] != 0) {
    if (packet[i] == LOOSE_SOURCE_ROUTE || packet[i] == STRICT_SOURCE_ROUTE) return true;
    i += packet[i] == 1 ? 1u : packet[i + 1] < 2 ? 2u : packet[i + 1];
  }
  return false;
}

/* A link layer may have put something behind it. */
static void trim(nst_packet *packet) {
  uint32_t total = packet->data[0] >> 4 == 6 ? 40 + nst_get16(packet->data + 4) : nst_get16(packet->data + 2);
  if (total < packet->length) packet->length = total;
}

static void refuse(nst_interface *interface, nst_packet *packet, const ip_addr_t *source, const ip_addr_t *destination,
                   nst_icmp_reason reason, uint16_t mtu, const char *cause) {
  nst_icmp_tell(interface->stack, packet, source, destination, reason, mtu);
  nst_interface_discard(interface, packet, cause);
}

/* Why a packet cannot pass; NULL: it can. */
static const char *impassable(const nst_interface *interface, const nst_packet *packet, const ip_addr_t *source,
                              const ip_addr_t *destination) {
  if (is_confined(source) || is_confined(destination)) return "not to be forwarded";
  if (has_source_route(packet->data)) return "source route";
  if (interface->device->checksum && !IP_IS_V6(source) && nst_header_checksum(packet->data) != 0) return "bad checksum";
  return NULL;
}

/* Between a device without checksums and one with them a packet is completed, or checked for the last time. */
static bool changes_medium(const nst_interface *from, const nst_interface *to) {
  return from->device->checksum != to->device->checksum;
}

static const char *change_medium(const nst_interface *to, nst_packet *packet) {
  if (to->device->checksum) nst_transport_complete(packet->data, packet->length);
  else if (!nst_transport_holds(packet->data, packet->length)) return "bad checksum";
  return NULL;
}

/* `change`: what there is to change already. NULL, or why the packet cannot pass: its sender is told. */
static const char *masquerade(const nst_interface *from, nst_interface *to, nst_packet *packet,
                              nst_translation *change) {
  const char *cause = to->nat && packet->data[0] >> 4 == 4 ? nst_nat_outward(to, packet, change) : NULL;
  if (cause || (!change->changes_source && !change->changes_destination)) return cause;
  if (change->changes_source && (packet->data[6] & 0x40) == 0) { /* hosts' ids meet at one address (RFC 6864 5.3.1) */
    nst_put16(packet->data + 4, nst_random_u32(&from->stack->random) & 0xffff);
  }
  return nst_translate(packet->data, packet->length, change, from->device->checksum || to->device->checksum)
             ? NULL : "bad checksum";
}

static void count_hop(uint8_t *packet, bool checksum) {
  if (packet[0] >> 4 == 6) {
    packet[7]--;
    return;
  }
  packet[8]--;
  if (checksum) nst_header_complete(packet);
  else memset(packet + 10, 0, 2);
}

static void pass(nst_interface *from, nst_interface *to, nst_packet *packet, const ip_addr_t *source,
                 const ip_addr_t *destination, nst_translation *change) {
  bool ipv6 = IP_IS_V6(destination), whole_again = false;
  uint16_t mtu = nst_interface_mtu(to, destination);
  uint32_t most = mtu;
  const char *cause = NULL;
  /* Checksums and ports are those of the whole. */
  if ((changes_medium(from, to) || (to->nat && !ipv6)) && nst_is_fragment(packet->data, packet->length)) {
    packet = nst_reassemble(from, packet, &cause);
    if (packet == NULL) return;
    whole_again = true;
  }
  if (changes_medium(from, to)) cause = change_medium(to, packet);
  if (cause) {
    nst_interface_discard(from, packet, cause);
    return;
  }
  /* A way that was good for its pieces is good for pieces of the least size that every way takes. */
  if (whole_again && ipv6 && most > IP6_MIN_MTU_LENGTH) most = IP6_MIN_MTU_LENGTH;
  if (packet->length > most && !whole_again && (ipv6 || (packet->data[6] & 0x40) != 0)) {
    refuse(from, packet, source, destination, NST_ICMP_TOO_LONG, mtu, "message too long");
    return;
  }
  cause = masquerade(from, to, packet, change);
  if (cause) {
    refuse(from, packet, source, destination, NST_ICMP_PROHIBITED, 0, cause); /* RFC 5508 REQ-8 */
    return;
  }
  count_hop(packet->data, to->device->checksum);
  from->stack->counters.forwarded++;
  if (packet->length > most) nst_send_in_pieces(to, packet, destination, most);
  else nst_interface_send(to, packet, destination);
}

static void decide(nst_interface *interface, nst_packet *packet, const ip_addr_t *source,
                   const ip_addr_t *destination, nst_translation *change) {
  const char *cause = impassable(interface, packet, source, destination);
  struct netif *netif;
  nst_interface *to;
  ip_addr_t next;
  if (cause) {
    nst_interface_discard(interface, packet, cause);
    return;
  }
  netif = nst_route_find(interface->stack, NULL, destination);
  to = netif ? nst_interface_of(netif) : NULL;
  if (to == NULL || to->device == NULL) {
    refuse(interface, packet, source, destination, NST_ICMP_NO_ROUTE, 0, "no route");
    return;
  }
  nst_route_next(to, destination, &next);
  /* Sent back over a link of two, it would go to and fro until its hops are used up (RFC 4443 §3.1). */
  if (to == interface && to->device->medium == NST_MEDIUM_IP && ip_addr_eq(&next, destination) &&
      !change->changes_destination) {
    refuse(interface, packet, source, destination, NST_ICMP_HOST_UNREACHABLE, 0, "host unreachable");
    return;
  }
  if (packet->data[IP_IS_V6(source) ? 7 : 8] <= 1) {
    refuse(interface, packet, source, destination, NST_ICMP_TOO_MANY_HOPS, 0, "too many hops");
    return;
  }
  pass(interface, to, packet, source, destination, change);
}

bool nst_forward(nst_interface *interface, nst_packet *packet, const ip_addr_t *source, const ip_addr_t *destination) {
  nst_translation change = {false, false, {{0}, 0}, {{0}, 0}};
  if (!interface->stack->config.forwarding) return false;
  /* What came to everybody on the link is for nobody behind it (RFC 1812 5.3.4). */
  if (nst_interface_is_ethernet(interface) &&
      memcmp(packet->data - NST_FRAME_HEADER, interface->mac, NST_MAC_LENGTH) != 0) {
    return false;
  }
  if (interface->nat && !IP_IS_V6(destination)) {
    nst_interface_discard(interface, packet, "past the address outside");
    return true;
  }
  trim(packet);
  packet->switches = 0; /* another link begins */
  decide(interface, packet, source, destination, &change);
  return true;
}

bool nst_forward_inward(nst_interface *interface, nst_packet *packet) {
  nst_translation change = {false, false, {{0}, 0}, {{0}, 0}};
  const char *cause = NULL;
  ip_addr_t source, destination;
  if (!nst_nat_inward(interface, packet, &change, &cause)) return false;
  trim(packet);
  packet->switches = 0;
  nst_packet_addresses(interface, packet->data, &source, &destination);
  memcpy(&ip_2_ip4(&destination)->addr, change.destination.host, 4);
  if (cause == NULL && nst_interface_with_address(interface->stack, &destination)) cause = "not to be forwarded";
  if (cause) nst_interface_discard(interface, packet, cause);
  else decide(interface, packet, &source, &destination, &change);
  return true;
}
