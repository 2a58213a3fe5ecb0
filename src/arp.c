/* ARP (RFC 826), with the manners of RFC 5227: probes are answered, claims of our addresses are countered. */
#include <string.h>

#include "bytes.h"
#include "ethernet.h"
#include "neighbour.h"
#include "stack.h"

#define LENGTH 28
enum { REQUEST = 1, REPLY = 2 };

/* RFC 5227 §2.4(c): a conflict is answered once in so long. */
#define DEFEND_INTERVAL (10 * NST_SECOND)

static void send(nst_interface *interface, unsigned operation, const uint8_t *sender_host,
                 const uint8_t *target_station, const uint8_t *target_host, const uint8_t *to) {
  nst_packet *packet = nst_packet_new(interface->stack->hub, LENGTH);
  uint8_t *arp;
  if (packet == NULL) return;
  arp = packet->data;
  memset(arp, 0, LENGTH);
  arp[1] = 1; /* Ethernet */
  arp[2] = NST_TYPE_IPV4 >> 8;
  arp[4] = NST_MAC_LENGTH;
  arp[5] = 4;
  arp[7] = (uint8_t)operation;
  memcpy(arp + 8, interface->mac, NST_MAC_LENGTH);
  memcpy(arp + 14, sender_host, 4);
  if (target_station) memcpy(arp + 18, target_station, NST_MAC_LENGTH);
  memcpy(arp + 24, target_host, 4);
  if (operation == REPLY) nst_ethernet_answer(interface, packet, to, NST_TYPE_ARP);
  else nst_ethernet_send(interface, packet, to, NST_TYPE_ARP);
}

/* Of our addresses, the one that a host would expect questions from. */
static const uint8_t *source_for(const nst_interface *interface, const ip_addr_t *host) {
  static const uint8_t nobody[4];
  const uint8_t *first = nobody;
  size_t i;
  for (i = 0; i < interface->address_count; i++) {
    const nst_prefix *own = &interface->addresses[i];
    if (IP_IS_V6(&own->address)) continue;
    if (nst_prefix_contains(own, host)) return nst_address_bytes(&own->address);
    if (first == nobody) first = nst_address_bytes(&own->address);
  }
  return first;
}

void nst_arp_ask(nst_interface *interface, const ip_addr_t *host, const uint8_t *station) {
  const uint8_t *to = station ? station : nst_everybody;
  send(interface, REQUEST, source_for(interface, host), station, nst_address_bytes(host), to);
}

/* RFC 5227 §2.3 */
void nst_arp_announce(nst_interface *interface, const ip_addr_t *address) {
  send(interface, REQUEST, nst_address_bytes(address), NULL, nst_address_bytes(address), nst_everybody);
}

/* The guard has looked at its form. */
void nst_arp_input(nst_interface *interface, const nst_packet *packet) {
  nst_stack *stack = interface->stack;
  const uint8_t *arp = packet->data + NST_FRAME_HEADER;
  unsigned operation = arp[7];
  ip_addr_t sender = IPADDR4_INIT(0), target = IPADDR4_INIT(0);
  bool for_us, gratuitous;
  memcpy(&ip_2_ip4(&sender)->addr, arp + 14, 4);
  memcpy(&ip_2_ip4(&target)->addr, arp + 24, 4);
  if (nst_interface_has_address(interface, &sender)) { /* somebody has our address, or wants it */
    stack->neighbours.counters.conflicts++;
    if (stack->now - interface->defended >= DEFEND_INTERVAL || interface->defended == 0) {
      interface->defended = stack->now + 1; /* not 0 */
      nst_arp_announce(interface, &sender);
    }
    return;
  }
  for_us = nst_interface_has_address(interface, &target);
  gratuitous = memcmp(arp + 14, arp + 24, 4) == 0;
  if (!ip_addr_isany(&sender)) { /* else it is a probe: nobody has the address yet (RFC 5227 §2.1.1) */
    nst_claim claim = operation == REPLY ? NST_CLAIM_ANSWER : NST_CLAIM_REQUEST;
    if (gratuitous || !for_us) claim = NST_CLAIM_NEWS;
    nst_neighbour_heard(interface, &sender, arp + 8, claim, true);
  }
  if (operation == REQUEST && for_us) send(interface, REPLY, arp + 24, arp + 8, arp + 14, arp + 8);
}
