/*
** Multicast listener discovery as a listener of version 1 speaks it (RFC 2710), in IPv6. Routers and switches of
** version 2 understand that, and their queries begin as those of version 1 do (RFC 3810 §8).
*/
#include <string.h>

#include "bytes.h"
#include "chain.h"
#include "checksum.h"
#include "group.h"
#include "stack.h"

enum { QUERY = 130, REPORT = 131, DONE = 132, REPORT_OF_VERSION_2 = 143 };

#define ICMP6 58
#define OPTIONS 8 /* the hop-by-hop header */
#define MESSAGE 24

static const uint8_t all_nodes[16] = {0xff, 2, [15] = 1}, all_routers[16] = {0xff, 2, [15] = 2};

/* Where the message begins; 0: it is none of these. */
static size_t message_at(const uint8_t *packet, size_t length) {
  size_t at = 40;
  if (nst_chain_walk(packet, &at, length, packet[6], false) != ICMP6 || at + 4 > length) return 0;
  return (packet[at] >= QUERY && packet[at] <= DONE) || packet[at] == REPORT_OF_VERSION_2 ? at : 0;
}

bool nst_is_mld(const uint8_t *packet, size_t length) {
  return packet[0] >> 4 == 6 && message_at(packet, length) != 0;
}

void nst_mld_read(const nst_interface *interface, const uint8_t *packet, size_t length, nst_query *query) {
  size_t at = message_at(packet, length);
  const uint8_t *message = packet + at;
  if (message[0] != QUERY) return;
  query->is_query = true;
  if (length < at + MESSAGE) {
    query->bad = true;
    return;
  }
  IP_SET_TYPE_VAL(query->address, IPADDR_TYPE_V6);
  memcpy(ip_2_ip6(&query->address)->addr, message + 8, 16);
  query->general = ip_addr_isany(&query->address);
  query->within = (nst_time)nst_get16(message + 4) * NST_MILLISECOND;
  /* RFC 2710 §4: from this link, and to all nodes or to the group. */
  query->bad = packet[7] != 1 || packet[8] != 0xfe || (packet[9] & 0xc0) != 0x80 || packet[24] != 0xff ||
               (query->general && memcmp(packet + 24, all_nodes, 16) != 0);
  if (interface->device && interface->device->checksum &&
      nst_transport_checksum(packet, at, length - at, ICMP6) != 0) {
    query->bad = true;
  }
}

/* A link-local address that is surely ours, or none (RFC 3590). */
static const ip_addr_t *source_of(nst_interface *interface) {
  static const ip_addr_t nowhere = IPADDR6_INIT(0, 0, 0, 0);
  size_t i;
  for (i = 0; i <= interface->address_count; i++) {
    const ip_addr_t *address = i > 0 ? &interface->addresses[i - 1].address : &interface->link_local.address;
    if (i == 0 ? !interface->has_link_local : !IP_IS_V6(address) || !ip6_addr_islinklocal(ip_2_ip6(address))) continue;
    if (*nst_interface_tentative(interface, address) <= interface->stack->now) return address;
  }
  return &nowhere;
}

nst_packet *nst_mld_build(nst_interface *interface, const ip_addr_t *group, bool leaves, ip_addr_t *to) {
  static const uint8_t router_alert[6] = {5, 2, 0, 0, 1, 0}; /* RFC 2711, and two bytes of padding */
  nst_packet *packet = nst_packet_new(interface->stack->hub, 40 + OPTIONS + MESSAGE);
  const uint8_t *destination = leaves ? all_routers : nst_address_bytes(group);
  uint8_t *ip, *message;
  if (packet == NULL) return NULL;
  ip = packet->data;
  message = ip + 40 + OPTIONS;
  memset(ip, 0, packet->length);
  ip[0] = 0x60;
  ip[5] = OPTIONS + MESSAGE;
  ip[6] = NST_HOP_BY_HOP;
  ip[7] = 1;
  memcpy(ip + 8, nst_address_bytes(source_of(interface)), 16);
  memcpy(ip + 24, destination, 16);
  ip[40] = ICMP6;
  memcpy(ip + 42, router_alert, sizeof router_alert);
  message[0] = leaves ? DONE : REPORT;
  memcpy(message + 8, nst_address_bytes(group), 16);
  if (interface->device->checksum) {
    uint16_t sum = nst_transport_checksum(ip, 40 + OPTIONS, MESSAGE, ICMP6);
    memcpy(message + 2, &sum, 2);
  }
  memset(to, 0, sizeof *to);
  IP_SET_TYPE_VAL(*to, IPADDR_TYPE_V6);
  memcpy(ip_2_ip6(to)->addr, destination, 16);
  return packet;
}
