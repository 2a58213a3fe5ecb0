/*
** IPv6 neighbour discovery (RFC 4861 §7) and duplicate address detection (RFC 4862 5.4), the optimistic one of RFC 4429:
** an address is used from the start, and given up when somebody else turns out to have it within a second. After that
** nobody can take it away.
*/
#include <string.h>

#include "ethernet.h"
#include "neighbour.h"
#include "stack.h"
#include "trace.h"

enum { SOLICITATION = 135, ADVERTISEMENT = 136, SOURCE_STATION = 1, TARGET_STATION = 2 };
enum { SOLICITED = 0x40, OVERRIDE = 0x20 };

#define LENGTH 24 /* of either message, without options */

#define DETECTION_LASTS NST_SECOND /* RFC 4861 §10, RETRANS_TIMER */

static const ip_addr_t nowhere = IPADDR6_INIT(0, 0, 0, 0);

static const uint8_t *bytes_of(const ip_addr_t *address) {
  return (const uint8_t *)ip_2_ip6(address)->addr;
}

/* NULL: no memory. `option`: of our station, 0 for none. */
static nst_packet *build(nst_interface *interface, const ip_addr_t *source, const uint8_t *destination, unsigned type,
                         unsigned flags, const ip_addr_t *target, unsigned option) {
  size_t length = LENGTH + (option ? 8 : 0);
  nst_packet *packet = nst_packet_new(interface->stack->hub, 40 + length);
  uint8_t *ip, *message;
  if (packet == NULL) return NULL;
  ip = packet->data;
  message = ip + 40;
  memset(ip, 0, 40 + length);
  ip[0] = 0x60;
  ip[5] = (uint8_t)length;
  ip[6] = 58;
  ip[7] = 255;
  memcpy(ip + 8, bytes_of(source), 16);
  memcpy(ip + 24, destination, 16);
  message[0] = (uint8_t)type;
  message[4] = (uint8_t)flags;
  memcpy(message + 8, bytes_of(target), 16);
  if (option) {
    message[24] = (uint8_t)option;
    message[25] = 1;
    memcpy(message + 26, interface->mac, NST_MAC_LENGTH);
  }
  if (interface->device->checksum) {
    uint16_t sum = nst_checksum6(ip, 40 + length);
    memcpy(message + 2, &sum, 2);
  }
  nst_trace_packet(interface->stack, NST_EVENT_OUT, interface, ip, packet->length, NULL);
  return packet;
}

static void send(nst_interface *interface, nst_packet *packet, const uint8_t *station) {
  if (packet) nst_ethernet_send(interface, packet, station, NST_TYPE_IPV6);
}

/* RFC 4291 2.7.1, RFC 2464 §7 */
static void solicited_node(const ip_addr_t *host, uint8_t *group, uint8_t *station) {
  static const uint8_t prefix[13] = {0xff, 0x02, [11] = 1, [12] = 0xff};
  memcpy(group, prefix, sizeof prefix);
  memcpy(group + 13, bytes_of(host) + 13, 3);
  station[0] = station[1] = 0x33;
  memcpy(station + 2, group + 12, 4);
}

/* Link-local hosts are asked from a link-local address, others from one of theirs. */
static const ip_addr_t *source_for(const nst_interface *interface, const ip_addr_t *host) {
  const ip_addr_t *first = interface->has_link_local ? &interface->link_local.address : &nowhere;
  size_t i;
  if (ip6_addr_islinklocal(ip_2_ip6(host))) return first;
  for (i = 0; i < interface->address_count; i++) {
    const nst_prefix *own = &interface->addresses[i];
    if (!IP_IS_V6(&own->address)) continue;
    if (nst_prefix_contains(own, host)) return &own->address;
    if (first == &nowhere) first = &own->address;
  }
  return first;
}

void nst_nd_ask(nst_interface *interface, const ip_addr_t *host, const uint8_t *station) {
  uint8_t group[16], group_station[NST_MAC_LENGTH];
  solicited_node(host, group, group_station);
  send(interface,
       build(interface, source_for(interface, host), station ? bytes_of(host) : group, SOLICITATION, 0, host,
             SOURCE_STATION),
       station ? station : group_station);
}

void nst_nd_probe(nst_interface *interface, const ip_addr_t *address) {
  uint8_t group[16], station[NST_MAC_LENGTH];
  interface->detecting_until = interface->stack->now + DETECTION_LASTS;
  solicited_node(address, group, station);
  send(interface, build(interface, &nowhere, group, SOLICITATION, 0, address, 0), station);
}

bool nst_is_nd(const uint8_t *packet, size_t length) {
  return length > 40 && packet[0] >> 4 == 6 && packet[6] == 58 && packet[40] >= 133 && packet[40] <= 137;
}

/* The station that an option names; NULL. The guard has seen that the options add up. */
static const uint8_t *station_in(const uint8_t *message, size_t length, unsigned option) {
  size_t i = LENGTH;
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
  if (NST_GUARDED && stack->now >= interface->detecting_until) return;
  stack->neighbours.counters.duplicates++;
  nst_interface_lose_address(interface, address);
}

static void solicited(nst_interface *interface, const uint8_t *message, size_t length, const ip_addr_t *source,
                      const ip_addr_t *target) {
  static const uint8_t all_nodes[16] = {0xff, 0x02, [15] = 1}, all_stations[NST_MAC_LENGTH] = {0x33, 0x33, [5] = 1};
  const uint8_t *station = station_in(message, length, SOURCE_STATION);
  nst_packet *answer;
  if (!nst_interface_has_address(interface, target)) return;
  if (ip_addr_isany(source)) { /* who asks so, wants the address for itself */
    if (interface->stack->now < interface->detecting_until) {
      lose(interface, target);
    } else {
      answer = build(interface, target, all_nodes, ADVERTISEMENT, OVERRIDE, target, TARGET_STATION);
      send(interface, answer, all_stations);
    }
    return;
  }
  if (nst_interface_has_address(interface, source)) {
    lose(interface, source);
    return;
  }
  if (station) nst_neighbour_heard(interface, source, station, NST_CLAIM_REQUEST, true);
  answer = build(interface, target, bytes_of(source), ADVERTISEMENT, SOLICITED | OVERRIDE, target, TARGET_STATION);
  if (station) send(interface, answer, station);
  else if (answer) nst_ethernet_output(interface, answer, source); /* its station may have to be asked for */
}

static void advertised(nst_interface *interface, const uint8_t *message, size_t length, const ip_addr_t *target) {
  unsigned flags = message[4];
  if (nst_interface_has_address(interface, target)) {
    lose(interface, target);
    return;
  }
  nst_neighbour_heard(interface, target, station_in(message, length, TARGET_STATION),
                      flags & SOLICITED ? NST_CLAIM_ANSWER : NST_CLAIM_NEWS, (flags & OVERRIDE) != 0);
}

void nst_nd_input(nst_interface *interface, nst_packet *packet) {
  const uint8_t *ip = packet->data, *message = ip + 40;
  size_t length = packet->length - 40;
  ip_addr_t source = nowhere, target = nowhere;
  if (!interface->device->checksum || nst_checksum6(ip, packet->length) == 0) {
    memcpy(ip_2_ip6(&source)->addr, ip + 8, 16);
    memcpy(ip_2_ip6(&target)->addr, message + 8, 16);
    ip6_addr_assign_zone(ip_2_ip6(&source), IP6_UNICAST, &interface->netifs[0]);
    ip6_addr_assign_zone(ip_2_ip6(&target), IP6_UNICAST, &interface->netifs[0]);
    if (message[0] == SOLICITATION) solicited(interface, message, length, &source, &target);
    else if (message[0] == ADVERTISEMENT) advertised(interface, message, length, &target);
  }
  nst_packet_free(packet);
}
