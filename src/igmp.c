/*
** IGMP as a host of version 2 speaks it (RFC 2236), in IPv4. Routers and switches of version 3 understand that, and
** their queries begin as those of version 2 do (RFC 3376 7.2, 7.3).
*/
#include <string.h>

#include "bytes.h"
#include "checksum.h"
#include "group.h"
#include "stack.h"

#include "lwip/inet_chksum.h"

enum { QUERY = 0x11, REPORT = 0x16, LEAVE = 0x17 };

#define PROTOCOL 2
#define HEADER 24 /* of IPv4, with the option */
#define MESSAGE 8
#define WITHIN_OF_VERSION_1 (10 * NST_SECOND) /* whose queries name no time (RFC 2236 §4) */

static const uint8_t all_hosts[4] = {224, 0, 0, 1}, all_routers[4] = {224, 0, 0, 2};

bool nst_is_igmp(const uint8_t *packet) {
  return packet[0] >> 4 == 4 && packet[9] == PROTOCOL;
}

void nst_igmp_read(const nst_interface *interface, const uint8_t *packet, size_t length, nst_query *query) {
  size_t header = (packet[0] & 15u) * 4u;
  const uint8_t *message = packet + header, *group = message + 4;
  if (length < header + MESSAGE) {
    query->bad = true;
    return;
  }
  if (message[0] != QUERY) return;
  query->is_query = true;
  IP_SET_TYPE_VAL(query->address, IPADDR_TYPE_V4);
  memcpy(&ip_2_ip4(&query->address)->addr, group, 4);
  query->general = ip_addr_isany(&query->address);
  query->within = message[1] ? (nst_time)message[1] * 100 * NST_MILLISECOND : WITHIN_OF_VERSION_1;
  /* RFC 3376 9.1: what asks for all groups goes to all hosts. */
  query->bad = packet[8] != 1 || packet[16] >> 4 != 0xe || (query->general && memcmp(packet + 16, all_hosts, 4) != 0);
  if (interface->device && interface->device->checksum && inet_chksum(message, (u16_t)(length - header)) != 0) {
    query->bad = true;
  }
}

nst_packet *nst_igmp_build(nst_interface *interface, const ip_addr_t *group, bool leaves, ip_addr_t *to) {
  static const uint8_t router_alert[4] = {148, 4, 0, 0}; /* RFC 2113 */
  nst_packet *packet = nst_packet_new(interface->stack->hub, HEADER + MESSAGE);
  const uint8_t *destination = leaves ? all_routers : nst_address_bytes(group);
  uint8_t *ip, *message;
  if (packet == NULL) return NULL;
  ip = packet->data;
  message = ip + HEADER;
  memset(ip, 0, packet->length);
  ip[0] = 0x40 | HEADER / 4;
  nst_put16(ip + 2, packet->length);
  ip[6] = 0x40; /* one piece, so that it needs no id (RFC 6864 §4.1) */
  ip[8] = 1;
  ip[9] = PROTOCOL;
  memcpy(ip + 12, nst_address_bytes(netif_ip_addr4(&interface->netifs[0])), 4); /* 0.0.0.0 when it has none */
  memcpy(ip + 16, destination, 4);
  memcpy(ip + 20, router_alert, 4);
  message[0] = leaves ? LEAVE : REPORT;
  memcpy(message + 4, nst_address_bytes(group), 4);
  if (interface->device->checksum) {
    uint16_t sum = inet_chksum(message, MESSAGE);
    memcpy(message + 2, &sum, 2);
    sum = nst_header_checksum(ip);
    memcpy(ip + 10, &sum, 2);
  }
  memset(to, 0, sizeof *to);
  IP_SET_TYPE_VAL(*to, IPADDR_TYPE_V4);
  memcpy(&ip_2_ip4(to)->addr, destination, 4);
  return packet;
}
