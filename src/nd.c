/*
** IPv6 neighbour discovery (RFC 4861 §7) and duplicate address detection (RFC 4862 5.4), the optimistic one of
** RFC 4429: an address is tentative for a second, in which it is given up when somebody else turns out to have it.
** It is used meanwhile, but says nothing that would take a neighbour's packets from another owner: questions do not
** name our station, answers override nobody's. After that second nobody can take it away.
*/
#include <string.h>

#include "bytes.h"
#include "checksum.h"
#include "ethernet.h"
#include "nd.h"
#include "neighbour.h"
#include "slaac.h"
#include "stack.h"
#include "trace.h"

enum { SOLICITED = 0x40, OVERRIDE = 0x20 };

#define DETECTION_LASTS NST_SECOND /* RFC 4861 §10, RETRANS_TIMER */

static const ip_addr_t nowhere = IPADDR6_INIT(0, 0, 0, 0);

nst_packet *nst_nd_new(const nst_interface *interface, const ip_addr_t *source, const uint8_t *destination,
                       unsigned type, size_t length, unsigned station) {
  size_t whole = length + (station ? 8 : 0);
  nst_packet *packet = nst_packet_new(interface->stack->hub, 40 + whole);
  uint8_t *ip;
  if (packet == NULL) return NULL;
  ip = packet->data;
  memset(ip, 0, 40 + whole);
  ip[0] = 0x60;
  ip[5] = (uint8_t)whole;
  ip[6] = 58;
  ip[7] = 255;
  memcpy(ip + 8, nst_address_bytes(source), 16);
  memcpy(ip + 24, destination, 16);
  ip[40] = (uint8_t)type;
  if (station) {
    ip[40 + length] = (uint8_t)station;
    ip[40 + length + 1] = 1;
    memcpy(ip + 40 + length + 2, interface->mac, NST_MAC_LENGTH);
  }
  return packet;
}

void nst_nd_complete(const nst_interface *interface, nst_packet *packet) {
  uint16_t sum;
  if (!interface->device->checksum) return;
  sum = nst_checksum6(packet->data, packet->length);
  memcpy(packet->data + 42, &sum, 2);
}

/* NULL: no memory. `option`: of our station, 0 for none. */
static nst_packet *build(nst_interface *interface, const ip_addr_t *source, const uint8_t *destination, unsigned type,
                         unsigned flags, const ip_addr_t *target, unsigned option) {
  nst_packet *packet = nst_nd_new(interface, source, destination, type, NST_ND_LENGTH, option);
  if (packet == NULL) return NULL;
  packet->data[44] = (uint8_t)flags;
  memcpy(packet->data + 48, nst_address_bytes(target), 16);
  nst_nd_complete(interface, packet);
  nst_trace_packet(interface->stack, NST_EVENT_OUT, interface, packet->data, packet->length, NULL);
  return packet;
}

static void send(nst_interface *interface, nst_packet *packet, const uint8_t *station) {
  if (packet) nst_ethernet_send(interface, packet, station, NST_TYPE_IPV6);
}

static void answer(nst_interface *interface, nst_packet *packet, const uint8_t *station) {
  if (packet) nst_ethernet_answer(interface, packet, station, NST_TYPE_IPV6);
}

bool nst_nd_is_tentative(nst_interface *interface, const ip_addr_t *address) {
  const nst_time *until = nst_interface_tentative(interface, address);
  return until && interface->stack->now < *until;
}

/* RFC 4291 2.7.1, RFC 2464 §7 */
static void solicited_node(const ip_addr_t *host, uint8_t *group, uint8_t *station) {
  static const uint8_t prefix[13] = {0xff, 0x02, [11] = 1, [12] = 0xff};
  memcpy(group, prefix, sizeof prefix);
  memcpy(group + 13, nst_address_bytes(host) + 13, 3);
  station[0] = station[1] = 0x33;
  memcpy(station + 2, group + 12, 4);
}

/* Link-local hosts are asked from a link-local address, others from one of theirs, once that is surely ours. */
static const ip_addr_t *source_for(nst_interface *interface, const ip_addr_t *host) {
  const ip_addr_t *first = interface->has_link_local ? &interface->link_local.address : &nowhere;
  bool sure = first != &nowhere && !nst_nd_is_tentative(interface, first);
  size_t i;
  if (first != &nowhere && ip6_addr_islinklocal(ip_2_ip6(host))) return first;
  for (i = 0; i < interface->address_count; i++) {
    const nst_prefix *own = &interface->addresses[i];
    if (!IP_IS_V6(&own->address) || (sure && nst_nd_is_tentative(interface, &own->address))) continue;
    if (nst_prefix_contains(own, host)) return &own->address;
    if (first == &nowhere) first = &own->address;
  }
  return first;
}

void nst_nd_ask(nst_interface *interface, const ip_addr_t *host, const uint8_t *station) {
  const ip_addr_t *source = source_for(interface, host);
  uint8_t group[16], group_station[NST_MAC_LENGTH];
  if (source == &nowhere) return; /* it would be a search for duplicates */
  solicited_node(host, group, group_station);
  send(interface,
       build(interface, source, station ? nst_address_bytes(host) : group, NST_ND_SOLICITATION, 0, host,
             nst_nd_is_tentative(interface, source) ? 0 : NST_ND_SOURCE_STATION),
       station ? station : group_station);
}

void nst_nd_probe(nst_interface *interface, const ip_addr_t *address) {
  nst_time *until = nst_interface_tentative(interface, address);
  uint8_t group[16], station[NST_MAC_LENGTH];
  if (until) *until = interface->stack->now + DETECTION_LASTS;
  solicited_node(address, group, station);
  send(interface, build(interface, &nowhere, group, NST_ND_SOLICITATION, 0, address, 0), station);
}

bool nst_is_nd(const uint8_t *packet, size_t length) {
  return length > 40 && packet[0] >> 4 == 6 && packet[6] == 58 && nst_is_nd_type(packet[40]);
}

/* The station that an option names; NULL. The guard has seen that the options add up. */
static const uint8_t *station_in(const uint8_t *message, size_t length, unsigned option) {
  size_t i = NST_ND_LENGTH;
  while (i + 8 <= length && message[i + 1] > 0) {
    if (message[i] == option) return message + i + 2;
    i += message[i + 1] * 8u;
  }
  return NULL;
}

/* Somebody else says that it has the address. */
static void lose(nst_interface *interface, const ip_addr_t *address) {
  nst_stack *stack = interface->stack;
  stack->neighbours.counters.conflicts++;
  if (NST_GUARDED && !nst_nd_is_tentative(interface, address)) return;
  stack->neighbours.counters.duplicates++;
  nst_interface_lose_address(interface, address);
}

/* `sender`: the station that the frame came from. */
static void solicited(nst_interface *interface, const uint8_t *message, size_t length, const ip_addr_t *source,
                      const ip_addr_t *target, const uint8_t *sender) {
  static const uint8_t all_nodes[16] = {0xff, 0x02, [15] = 1}, all_stations[NST_MAC_LENGTH] = {0x33, 0x33, [5] = 1};
  const uint8_t *station = station_in(message, length, NST_ND_SOURCE_STATION);
  unsigned override = nst_nd_is_tentative(interface, target) ? 0 : OVERRIDE;
  if (!nst_interface_has_address(interface, target)) return;
  if (ip_addr_isany(source)) { /* who asks so, wants the address for itself */
    if (!override) lose(interface, target);
    else answer(interface,
                build(interface, target, all_nodes, NST_ND_ADVERTISEMENT, override, target, NST_ND_TARGET_STATION),
                all_stations);
    return;
  }
  if (nst_interface_has_address(interface, source)) {
    lose(interface, source);
    return;
  }
  if (station) nst_neighbour_heard(interface, source, station, NST_CLAIM_REQUEST, true);
  answer(interface,
         build(interface, target, nst_address_bytes(source), NST_ND_ADVERTISEMENT, SOLICITED | override, target,
               NST_ND_TARGET_STATION),
         station ? station : sender);
}

static void advertised(nst_interface *interface, const uint8_t *message, size_t length, const ip_addr_t *target) {
  unsigned flags = message[4];
  if (nst_interface_has_address(interface, target)) {
    lose(interface, target);
    return;
  }
  nst_neighbour_heard(interface, target, station_in(message, length, NST_ND_TARGET_STATION),
                      flags & SOLICITED ? NST_CLAIM_ANSWER : NST_CLAIM_NEWS, (flags & OVERRIDE) != 0);
}

static void take_in(nst_interface *interface, const uint8_t *ip, size_t length) {
  const uint8_t *message = ip + 40, *sender = ip - NST_FRAME_HEADER + NST_MAC_LENGTH;
  ip_addr_t source = nowhere, target = nowhere;
  if (message[0] == NST_ND_ROUTER_ADVERTISEMENT) {
    if (interface->slaac) nst_slaac_input(interface, ip, length);
    return;
  }
  memcpy(ip_2_ip6(&source)->addr, ip + 8, 16);
  memcpy(ip_2_ip6(&target)->addr, message + 8, 16);
  ip6_addr_assign_zone(ip_2_ip6(&source), IP6_UNICAST, &interface->netifs[0]);
  ip6_addr_assign_zone(ip_2_ip6(&target), IP6_UNICAST, &interface->netifs[0]);
  if (message[0] == NST_ND_SOLICITATION) solicited(interface, message, length - 40, &source, &target, sender);
  else if (message[0] == NST_ND_ADVERTISEMENT) advertised(interface, message, length - 40, &target);
}

void nst_nd_input(nst_interface *interface, nst_packet *packet) {
  const uint8_t *ip = packet->data;
  size_t length = 40 + nst_get16(ip + 4); /* behind that there may be Ethernet's padding */
  if (length > packet->length) length = packet->length;
  if (interface->device->checksum && nst_checksum6(ip, length) != 0) {
    interface->dropped_in++;
    nst_trace_packet(interface->stack, NST_EVENT_DROP, interface, ip, length, "bad checksum");
  } else {
    take_in(interface, ip, length);
  }
  nst_packet_free(packet);
}
