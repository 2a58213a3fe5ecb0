/* What is sent, by lwIP and by ourselves: stamped, counted, and handed to the device, to ourselves, or to the link layer. */
#include <string.h>

#include "ethernet.h"
#include "group.h"
#include "interface.h"
#include "path_mtu.h"
#include "stack.h"
#include "trace.h"

#include "lwip/inet_chksum.h"
#include "lwip/ip.h"
#include "lwip/prot/ip4.h"
#include "lwip/prot/ip6.h"
#include "lwip/prot/tcp.h"

static err_t refuse(nst_interface *interface, const struct pbuf *p, const char *cause) {
  interface->dropped_out++;
  nst_trace_packet(interface->stack, NST_EVENT_DROP, interface, p->payload, p->len, cause);
  return ERR_IF;
}

/* Whether nobody will send the packet again: all but TCP's segments, of these the resets. */
static bool cannot_wait(const struct pbuf *p) {
  const uint8_t *bytes = p->payload;
  size_t header = bytes[0] >> 4 == 6 ? 40 : (bytes[0] & 15u) * 4u;
  if (bytes[bytes[0] >> 4 == 6 ? 6 : 9] != IP_PROTO_TCP) return true;
  return p->len > header + 13 && (bytes[header + 13] & TCP_RST) != 0;
}

/*
** Whether routers must not cut an IPv4 packet: because its sender said so, or because it is a segment and TCP wants to
** hear of narrow ways (RFC 1191 §6), but not of those that are narrower than TCP will believe.
*/
static bool is_uncut(nst_stack *stack, const nst_packet *packet, const ip_addr_t *destination) {
  bool cut = false;
  if (stack->sending_datagram || packet->data[9] != IP_PROTO_TCP) return stack->dont_fragment;
  (void)nst_path_mtu(stack, destination, 0xffff, &cut);
  return !cut;
}

/*
** lwIP counts identifications up, which tells how much we send, and lets others put pieces of theirs among ours
** (RFC 7739, RFC 6864 §5.2). Each datagram gets a random one instead; its pieces follow one another, the first with
** offset 0.
*/
static void stamp4(struct netif *netif, nst_packet *packet, bool uncut) {
  nst_stack *stack = nst_interface_of(netif)->stack;
  struct ip_hdr header;
  memcpy(&header, packet->data, sizeof header);
  if ((IPH_OFFSET(&header) & PP_HTONS(IP_OFFMASK)) == 0) stack->datagram_id = nst_random_u32(&stack->random);
  if (NST_GUARDED) IPH_ID_SET(&header, (u16_t)stack->datagram_id);
  if (uncut) IPH_OFFSET_SET(&header, PP_HTONS(IP_DF));
  IPH_CHKSUM_SET(&header, 0);
  memcpy(packet->data, &header, sizeof header);
  IF__NETIF_CHECKSUM_ENABLED(netif, NETIF_CHECKSUM_GEN_IP) {
    uint16_t sum = inet_chksum(packet->data, IPH_HL_BYTES(&header)); /* the answer to a ping has the options of that */
    memcpy(packet->data + 10, &sum, sizeof sum);
  }
}

static void stamp6(nst_stack *stack, nst_packet *packet) {
  struct ip6_frag_hdr *header = (struct ip6_frag_hdr *)(void *)(packet->data + IP6_HLEN);
  if (packet->data[6] != IP6_NEXTH_FRAGMENT) return;
  if ((header->_fragment_offset & PP_HTONS(IP6_FRAG_OFFSET_MASK)) == 0) {
    stack->datagram_id = nst_random_u32(&stack->random);
  }
  if (NST_GUARDED) memcpy(packet->data + IP6_HLEN + 4, &stack->datagram_id, 4);
}

static void stamp(struct netif *netif, nst_packet *packet, const ip_addr_t *destination) {
  nst_stack *stack = nst_interface_of(netif)->stack;
  if (packet->data[0] >> 4 == 6) stamp6(stack, packet);
  else stamp4(netif, packet, is_uncut(stack, packet, destination));
}

void nst_interface_drop(nst_interface *interface, nst_packet *packet, const char *cause) {
  interface->dropped_out++;
  nst_trace_packet(interface->stack, NST_EVENT_DROP, interface, packet->data, packet->length, cause);
  nst_packet_free(packet);
}

void nst_interface_loop(nst_interface *interface, nst_packet *packet) {
  nst_list_append(&interface->looped, &packet->link);
  interface->looped_count++;
  nst_interface_packet_came(interface);
}

void nst_interface_transmit(nst_interface *interface, nst_packet *packet) {
  if (interface->stack->holding) {
    nst_list_append(&interface->egress, &packet->link);
    nst_interface_room_came(interface);
  } else if (nst_interface_has_room(interface)) {
    if (nst_device_transmit(interface->device, packet) != NST_OK) nst_packet_free(packet);
  } else {
    nst_list_append(&interface->egress, &packet->link);
  }
}

/* RFC 1112 6.4: of what goes to a group, its members here get a copy. true: nobody else does. */
static bool send_to_members(nst_interface *interface, const nst_packet *packet) {
  nst_stack *stack = interface->stack;
  bool ends_here = packet->data[packet->data[0] >> 4 == 6 ? 7 : 8] == 0 || interface->device == NULL;
  if (!stack->unheard && nst_group_wanted(interface, packet->data)) {
    nst_packet *copy = nst_packet_copy(stack->hub, packet->data, packet->length, 0);
    if (copy) nst_interface_loop(interface, copy);
  }
  return ends_here;
}

static void count(nst_interface *interface, const nst_packet *packet) {
  nst_stack *stack = interface->stack;
  stack->counters.out_packets++;
  stack->counters.out_bytes += packet->length;
  nst_trace_packet(stack, NST_EVENT_OUT, interface, packet->data, packet->length, NULL);
}

static void hand_over(nst_interface *interface, nst_packet *packet, const ip_addr_t *destination) {
  count(interface, packet);
  if (nst_interface_is_ethernet(interface)) nst_ethernet_output(interface, packet, destination);
  else nst_interface_transmit(interface, packet);
}

/*
** lwIP sends a packet. With the device full, TCP is refused and tries again when there is room, so that the truth
** about unsent data stays in one place; a datagram that is on its way out in fragments is kept whole.
*/
static err_t output(struct netif *netif, struct pbuf *p, const ip_addr_t *destination) {
  nst_interface *interface = nst_interface_of(netif);
  nst_stack *stack = interface->stack;
  nst_packet *packet;
  bool to_self = nst_interface_has_address(interface, destination), to_group = ip_addr_ismulticast(destination);
  if (!interface->on) return refuse(interface, p, nst_interface_off_cause(interface));
  if (p->tot_len > interface->mtu) return refuse(interface, p, "message too long");
  if (!to_self && !to_group && interface->device == NULL) return refuse(interface, p, "no route");
  if (!stack->sending_datagram && !nst_interface_has_room(interface)) {
    stack->refused = interface;
    if (stack->tracing && cannot_wait(p)) {
      nst_trace_packet(stack, NST_EVENT_DROP, interface, p->payload, p->len, "device full");
    }
    return ERR_MEM;
  }
  packet = nst_packet_from_pbuf(stack->hub, p);
  if (packet == NULL) return ERR_MEM;
  if (!stack->verbatim) stamp(netif, packet, destination);
  packet->summed = !stack->verbatim;
  if (to_self) {
    count(interface, packet);
    nst_interface_loop(interface, packet);
  } else if (to_group && send_to_members(interface, packet)) {
    count(interface, packet);
    nst_packet_free(packet);
  } else {
    hand_over(interface, packet, destination);
  }
  return ERR_OK;
}

void nst_interface_send(nst_interface *interface, nst_packet *packet, const ip_addr_t *destination) {
  if (!interface->on) nst_interface_drop(interface, packet, nst_interface_off_cause(interface));
  else if (interface->device == NULL) nst_interface_drop(interface, packet, "no route");
  else if (!nst_interface_has_room(interface)) nst_interface_drop(interface, packet, "device full");
  else hand_over(interface, packet, destination);
}

err_t nst_output4(struct netif *netif, struct pbuf *p, const ip4_addr_t *destination) {
  ip_addr_t address;
  ip_addr_copy_from_ip4(address, *destination);
  return output(netif, p, &address);
}

err_t nst_output6(struct netif *netif, struct pbuf *p, const ip6_addr_t *destination) {
  ip_addr_t address;
  ip_addr_copy_from_ip6(address, *destination);
  return output(netif, p, &address);
}
