#include "ethernet.h"

#include <string.h>

#include "bytes.h"
#include "nd.h"
#include "neighbour.h"
#include "stack.h"

const uint8_t nst_everybody[NST_MAC_LENGTH] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

void nst_ethernet_answer(nst_interface *interface, nst_packet *packet, const uint8_t *to, uint16_t type) {
  if (nst_interface_has_room(interface) || !NST_GUARDED) nst_ethernet_send(interface, packet, to, type);
  else nst_interface_drop(interface, packet, "device full");
}

void nst_ethernet_send(nst_interface *interface, nst_packet *packet, const uint8_t *to, uint16_t type) {
  if (!interface->on) {
    nst_interface_drop(interface, packet, nst_interface_off_cause(interface));
    return;
  }
  nst_packet_push(packet, NST_FRAME_HEADER);
  memcpy(packet->data, to, NST_MAC_LENGTH);
  memcpy(packet->data + NST_MAC_LENGTH, interface->mac, NST_MAC_LENGTH);
  nst_put16(packet->data + 12, type);
  nst_interface_transmit(interface, packet);
}

/* RFC 1112 §6.4, RFC 2464 §7: groups have stations of their own. */
static bool group_station(const nst_interface *interface, const ip_addr_t *host, uint8_t *station) {
  if (IP_IS_V6(host)) {
    if (!ip6_addr_ismulticast(ip_2_ip6(host))) return false;
    station[0] = station[1] = 0x33;
    memcpy(station + 2, (const uint8_t *)ip_2_ip6(host)->addr + 12, 4);
    return true;
  }
  if (ip4_addr_ismulticast(ip_2_ip4(host))) {
    const uint8_t *address = (const uint8_t *)&ip_2_ip4(host)->addr;
    station[0] = 0x01;
    station[1] = 0x00;
    station[2] = 0x5e;
    station[3] = address[1] & 0x7f;
    station[4] = address[2];
    station[5] = address[3];
    return true;
  }
  if (!nst_interface_is_broadcast(interface, host)) return false;
  memcpy(station, nst_everybody, NST_MAC_LENGTH);
  return true;
}

void nst_ethernet_output(nst_interface *interface, nst_packet *packet, const ip_addr_t *destination) {
  uint8_t station[NST_MAC_LENGTH];
  ip_addr_t next;
  if (group_station(interface, destination, station)) {
    nst_ethernet_send(interface, packet, station, IP_IS_V6(destination) ? NST_TYPE_IPV6 : NST_TYPE_IPV4);
    return;
  }
  nst_route_next(interface, destination, &next);
  nst_neighbour_send(interface, packet, &next);
}

bool nst_ethernet_input(nst_interface *interface, nst_packet *packet) {
  unsigned type = nst_get16(packet->data + 12);
  if (type == NST_TYPE_ARP) {
    nst_arp_input(interface, packet);
    nst_packet_free(packet);
    return true;
  }
  nst_packet_pull(packet, NST_FRAME_HEADER);
  return false;
}

void nst_ethernet_announce(nst_interface *interface, const ip_addr_t *address) {
  if (IP_IS_V6(address)) nst_nd_probe(interface, address);
  else nst_arp_announce(interface, address);
}
