/* What comes in: the link layer, the guard, what is for others, reassembly, and then lwIP. */
#include <string.h>

#include "dhcp.h"
#include "ethernet.h"
#include "forward.h"
#include "group.h"
#include "interface.h"
#include "nd.h"
#include "reassembly.h"
#include "stack.h"
#include "trace.h"

#include "lwip/ip.h"
#include "lwip/stats.h"

/* Why lwIP dropped a packet, told from its counters; NULL when it did not. */
static const char *lwip_cause(const struct stats_ *before) {
  static const size_t protocols[] = {
    offsetof(struct stats_, tcp),     offsetof(struct stats_, udp),      offsetof(struct stats_, icmp),
    offsetof(struct stats_, icmp6),   offsetof(struct stats_, ip_frag),  offsetof(struct stats_, ip6_frag),
    offsetof(struct stats_, ip),      offsetof(struct stats_, ip6),
  };
  size_t i;
  for (i = 0; i < sizeof protocols / sizeof *protocols; i++) {
    const struct stats_proto *was = (const void *)((const char *)before + protocols[i]);
    const struct stats_proto *is = (const void *)((const char *)&lwip_stats + protocols[i]);
    if (is->chkerr != was->chkerr) return "bad checksum";
    if (is->lenerr != was->lenerr) return "bad length";
    if (is->memerr != was->memerr) return "no memory";
    if (is->rterr != was->rterr) return "no route";
    if (is->opterr != was->opterr) return "bad options";
    if (is->proterr != was->proterr) return "nobody's"; /* no such protocol, port or connection */
    if (is->drop != was->drop) return "not for us";
  }
  return NULL;
}

void nst_packet_addresses(const nst_interface *interface, const uint8_t *packet, ip_addr_t *source,
                          ip_addr_t *destination) {
  memset(source, 0, sizeof *source);
  memset(destination, 0, sizeof *destination);
  if (packet[0] >> 4 == 4) {
    IP_SET_TYPE_VAL(*source, IPADDR_TYPE_V4);
    IP_SET_TYPE_VAL(*destination, IPADDR_TYPE_V4);
    memcpy(&ip_2_ip4(source)->addr, packet + 12, 4);
    memcpy(&ip_2_ip4(destination)->addr, packet + 16, 4);
    return;
  }
  IP_SET_TYPE_VAL(*source, IPADDR_TYPE_V6);
  IP_SET_TYPE_VAL(*destination, IPADDR_TYPE_V6);
  memcpy(ip_2_ip6(source)->addr, packet + 8, 16);
  memcpy(ip_2_ip6(destination)->addr, packet + 24, 16);
  ip6_addr_assign_zone(ip_2_ip6(source), IP6_UNICAST, &interface->netifs[0]);
  ip6_addr_assign_zone(ip_2_ip6(destination), IP6_UNKNOWN, &interface->netifs[0]);
}

/* lwIP tells of closed ports only who sent to the first address of the netif that a packet came in by. */
static struct netif *netif_of(nst_interface *interface, const uint8_t *packet) {
  int i;
  if (packet[0] >> 4 == 4 && memcmp(packet + 16, &netif_ip4_addr(&interface->netifs[0])->addr, 4) != 0) {
    for (i = 1; i < NST_IPV4_ADDRESSES && interface->registered[i]; i++) {
      if (memcmp(packet + 16, &netif_ip4_addr(&interface->netifs[i])->addr, 4) == 0) return &interface->netifs[i];
    }
  }
  return &interface->netifs[0];
}

/* Hands a packet to lwIP, which owns it from then on, or what is for groups to who is in them. */
static void feed(nst_interface *interface, nst_packet *packet) {
  nst_stack *stack = interface->stack;
  struct netif *netif = netif_of(interface, packet->data);
  struct pbuf *p = nst_packet_to_pbuf(packet, &stack->memory);
  stack->refused = NULL;
  if (nst_group_input(interface, p)) return;
  if (netif->input(p, netif) != ERR_OK) pbuf_free(p);
  if (stack->refused) { /* an answer that could not wait; TCP clears this when it will try again */
    stack->refused->dropped_out++;
    stack->refused = NULL;
  }
}

/* The same, while somebody wants to know what becomes of it. */
static void feed_traced(nst_interface *interface, nst_packet *packet) {
  nst_stack *stack = interface->stack;
  nst_packet *copy = nst_packet_copy(stack->hub, packet->data, packet->length, 0);
  struct stats_ before = lwip_stats;
  const char *cause;
  stack->drop_cause = NULL;
  feed(interface, packet);
  if (copy == NULL) return;
  cause = stack->drop_cause ? stack->drop_cause : lwip_cause(&before);
  if (cause) nst_trace_packet(stack, NST_EVENT_DROP, interface, copy->data, copy->length, cause);
  nst_packet_free(copy);
}

static void forget(nst_interface *interface, nst_packet *packet, const char *cause) {
  nst_trace_packet(interface->stack, NST_EVENT_DROP, interface, packet->data, packet->length, cause);
  nst_packet_free(packet);
}

void nst_interface_discard(nst_interface *interface, nst_packet *packet, const char *cause) {
  interface->dropped_in++;
  forget(interface, packet, cause);
}

static void refuse(nst_interface *interface, nst_packet *packet, nst_guard_cause cause) {
  interface->guarded[cause]++;
  nst_interface_discard(interface, packet, nst_guard_text(cause));
}

/* The whole packet, when this was its last piece. */
static nst_packet *put_together(nst_interface *interface, nst_packet *piece) {
  nst_stack *stack = interface->stack;
  nst_packet *copy = stack->tracing ? nst_packet_copy(stack->hub, piece->data, piece->length, 0) : NULL;
  const char *cause = NULL;
  nst_packet *packet = nst_reassemble(interface, piece, &cause);
  if (cause) interface->dropped_in++;
  if (cause && copy) nst_trace_packet(stack, NST_EVENT_DROP, interface, copy->data, copy->length, cause);
  if (copy) nst_packet_free(copy);
  return packet;
}

static bool passes(nst_interface *interface, nst_packet *packet, bool looped) {
  nst_guard_cause cause = nst_guard(interface, packet->data, packet->length, looped);
  if (cause == NST_GUARD_PASS) return true;
  refuse(interface, packet, cause);
  return false;
}

/* Takes the header off a frame; false: it was none of IP's, or the guard refused it. */
static bool unframe(nst_interface *interface, nst_packet *packet) {
  nst_guard_cause cause = nst_guard_frame(interface, packet->data, packet->length);
  if (cause == NST_GUARD_PASS) return !nst_ethernet_input(interface, packet);
  refuse(interface, packet, cause);
  return false;
}

/* What is not for us goes on, if we are a router. */
static bool is_for_us(nst_interface *interface, nst_packet *packet) {
  ip_addr_t source, destination;
  nst_packet_addresses(interface, packet->data, &source, &destination);
  if (nst_interface_is_for_us(interface, &destination)) return true;
  if (!nst_forward(interface, packet, &source, &destination)) nst_interface_discard(interface, packet, "not for us");
  return false;
}

void nst_interface_input(nst_interface *interface, nst_packet *packet, bool looped) {
  nst_stack *stack = interface->stack;
  bool fragment;
  if (!interface->on) {
    nst_interface_discard(interface, packet, nst_interface_off_cause(interface));
    return;
  }
  if (!looped && nst_interface_is_ethernet(interface) && !unframe(interface, packet)) return;
  if (packet->length > interface->mtu) {
    refuse(interface, packet, NST_GUARD_TOO_LONG);
    return;
  }
  if (!passes(interface, packet, looped)) return;
  if (!nst_group_wanted(interface, packet->data)) {
    stack->groups.unwanted++; /* others' business is no loss of the interface's */
    forget(interface, packet, "group that nobody joined");
    return;
  }
  stack->counters.in_packets++;
  stack->counters.in_bytes += packet->length;
  nst_trace_packet(stack, NST_EVENT_IN, interface, packet->data, packet->length, NULL);
  if (interface->dhcp && nst_is_dhcp(packet->data, packet->length)) {
    nst_dhcp_input(interface, packet);
    return;
  }
  if (!looped && !is_for_us(interface, packet)) return;
  fragment = nst_is_fragment(packet->data, packet->length);
  if (fragment) {
    packet = put_together(interface, packet);
    if (packet == NULL || !passes(interface, packet, looped)) return;
  }
  if (!looped && nst_forward_inward(interface, packet)) return;
  if (nst_is_nd(packet->data, packet->length)) {
    if (fragment || looped) refuse(interface, packet, NST_GUARD_ND); /* RFC 6980 §5; a raw socket may say anything */
    else nst_nd_input(interface, packet);
    return;
  }
  if (stack->tracing) feed_traced(interface, packet);
  else feed(interface, packet);
}
