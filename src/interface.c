#include "interface.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "path_mtu.h"
#include "stack.h"
#include "tcp.h"
#include "trace.h"

#include "lwip/inet_chksum.h"
#include "lwip/ip.h"
#include "lwip/prot/ip4.h"
#include "lwip/prot/ip6.h"
#include "lwip/stats.h"
#include "lwip/prot/tcp.h"

/* At most so many packets are handed to lwIP before commands and timers get their turn. */
#define PACKETS_AT_ONCE 256
/* What a stack may send to itself without being polled. */
#define LOOPED_AT_MOST 1024

nst_interface *nst_interface_of(const struct netif *netif) {
  return netif->state;
}

bool nst_interface_has_room(const nst_interface *interface) {
  if (interface->looped_count >= LOOPED_AT_MOST) return false;
  if (interface->device == NULL) return true;
  /* What is being held stands behind what waits, so it overtakes nothing. */
  return (nst_list_empty(&interface->egress) || interface->stack->holding) && nst_device_has_room(interface->device);
}

static bool is_own(const nst_interface *interface, const ip_addr_t *destination) {
  size_t i;
  for (i = 0; i < interface->address_count; i++) {
    if (ip_addr_eq(&interface->addresses[i].address, destination)) return true;
  }
  return false;
}

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
** lwIP counts identifications up, which tells how much we send, and lets others put pieces of theirs among ours (RFC 7739,
** RFC 6864 §5.2). Each datagram gets a random one instead; its pieces follow one another, the first with offset 0.
*/
static void stamp4(struct netif *netif, nst_packet *packet, bool uncut) {
  nst_stack *stack = nst_interface_of(netif)->stack;
  struct ip_hdr header;
  memcpy(&header, packet->data, sizeof header);
  if ((IPH_OFFSET(&header) & PP_HTONS(IP_OFFMASK)) == 0) stack->datagram_id = nst_random_u32(&stack->random);
  if (NST_GUARDED) IPH_ID_SET(&header, (u16_t)stack->datagram_id);
  if (uncut) IPH_OFFSET_SET(&header, PP_HTONS(IP_DF));
  IPH_CHKSUM_SET(&header, 0);
  IF__NETIF_CHECKSUM_ENABLED(netif, NETIF_CHECKSUM_GEN_IP) IPH_CHKSUM_SET(&header, inet_chksum(&header, IP_HLEN));
  memcpy(packet->data, &header, sizeof header);
}

static void stamp6(nst_stack *stack, nst_packet *packet) {
  struct ip6_frag_hdr *header = (struct ip6_frag_hdr *)(void *)(packet->data + IP6_HLEN);
  if (packet->data[6] != IP6_NEXTH_FRAGMENT) return;
  if ((header->_fragment_offset & PP_HTONS(IP6_FRAG_OFFSET_MASK)) == 0) {
    stack->datagram_id = nst_random_u32(&stack->random);
  }
  if (NST_GUARDED) memcpy(packet->data + IP6_HLEN + 4, &stack->datagram_id, 4);
}

/*
** lwIP sends a packet. With the device full, TCP is refused and tries again when there is room, so that the truth
** about unsent data stays in one place; a datagram that is on its way out in fragments is kept whole.
*/
static err_t output(struct netif *netif, struct pbuf *p, const ip_addr_t *destination) {
  nst_interface *interface = nst_interface_of(netif);
  nst_stack *stack = interface->stack;
  nst_packet *packet;
  bool to_self = is_own(interface, destination);
  if (!interface->up) return refuse(interface, p, "interface down");
  if (p->tot_len > interface->mtu) return refuse(interface, p, "message too long");
  if (!to_self && interface->device == NULL) return refuse(interface, p, "no route");
  if (!stack->sending_datagram && !nst_interface_has_room(interface)) {
    stack->refused = interface;
    if (stack->tracing && cannot_wait(p)) {
      nst_trace_packet(stack, NST_EVENT_DROP, interface, p->payload, p->len, "device full");
    }
    return ERR_MEM;
  }
  packet = nst_packet_from_pbuf(stack->hub, p);
  if (packet == NULL) return ERR_MEM;
  if (packet->data[0] >> 4 == 6) stamp6(stack, packet);
  else if (!stack->verbatim) stamp4(netif, packet, is_uncut(stack, packet, destination));
  stack->counters.out_packets++;
  stack->counters.out_bytes += packet->length;
  nst_trace_packet(stack, NST_EVENT_OUT, interface, packet->data, packet->length, NULL);
  if (to_self) {
    nst_list_append(&interface->looped, &packet->link);
    interface->looped_count++;
    nst_stack_wake(stack);
  } else if (stack->holding) {
    nst_list_append(&interface->egress, &packet->link);
    nst_interface_room_came(interface);
  } else if (nst_interface_has_room(interface)) {
    if (nst_device_transmit(interface->device, packet) != NST_OK) nst_packet_free(packet);
  } else {
    nst_list_append(&interface->egress, &packet->link);
  }
  return ERR_OK;
}

static err_t output4(struct netif *netif, struct pbuf *p, const ip4_addr_t *destination) {
  ip_addr_t address;
  ip_addr_copy_from_ip4(address, *destination);
  return output(netif, p, &address);
}

static err_t output6(struct netif *netif, struct pbuf *p, const ip6_addr_t *destination) {
  ip_addr_t address;
  ip_addr_copy_from_ip6(address, *destination);
  return output(netif, p, &address);
}

static err_t init_netif(struct netif *netif) {
  const nst_interface *interface = nst_interface_of(netif);
  netif->name[0] = 'n';
  netif->name[1] = 's';
  netif->mtu = netif->mtu6 = interface->mtu;
  netif->output = output4;
  netif->output_ip6 = output6;
  netif->flags = NETIF_FLAG_LINK_UP;
  NETIF_SET_CHECKSUM_CTRL(netif, interface->device && interface->device->checksum ? NETIF_CHECKSUM_ENABLE_ALL
                                                                                   : NETIF_CHECKSUM_DISABLE_ALL);
  return ERR_OK;
}

/* Registers or removes the i-th netif with lwIP. The first stays for as long as the interface is attached. */
static bool set_netif4(nst_interface *interface, int i, const nst_prefix *prefix) {
  ip4_addr_t address, mask, none;
  struct netif *netif = &interface->netifs[i];
  ip4_addr_set_zero(&address);
  ip4_addr_set_zero(&mask);
  ip4_addr_set_zero(&none);
  if (prefix) {
    ip4_addr_copy(address, *ip_2_ip4(&prefix->address));
    ip4_addr_set_u32(&mask, prefix->bits ? lwip_htonl(0xffffffffu << (32 - prefix->bits)) : 0);
  }
  if (!interface->registered[i]) {
    if (prefix == NULL && i > 0) return true;
    if (netif_add(netif, &address, &mask, &none, interface, init_netif, ip_input) == NULL) return false;
    interface->registered[i] = true;
    if (interface->up) netif_set_up(netif);
  } else if (prefix == NULL && i > 0) {
    netif_remove(netif);
    interface->registered[i] = false;
  } else if (!ip4_addr_eq(netif_ip4_addr(netif), &address) || !ip4_addr_eq(netif_ip4_netmask(netif), &mask)) {
    netif_set_addr(netif, &address, &mask, &none);
  }
  return true;
}

/* lwIP keeps the link-local address in slot 0; the others follow. */
static void set_netif6(nst_interface *interface) {
  struct netif *netif = &interface->netifs[0];
  s8_t slot = 1;
  bool link_local = false;
  size_t i;
  for (i = 0; i < LWIP_IPV6_NUM_ADDRESSES; i++) netif_ip6_addr_set_state(netif, (s8_t)i, IP6_ADDR_INVALID);
  for (i = 0; i < interface->address_count; i++) {
    nst_prefix *prefix = &interface->addresses[i];
    s8_t here;
    if (!IP_IS_V6(&prefix->address)) continue;
    if (ip6_addr_islinklocal(ip_2_ip6(&prefix->address))) {
      ip6_addr_assign_zone(ip_2_ip6(&prefix->address), IP6_UNICAST, netif);
    }
    here = !link_local && ip6_addr_islinklocal(ip_2_ip6(&prefix->address)) ? 0 : slot++;
    link_local = link_local || here == 0;
    netif_ip6_addr_set(netif, here, ip_2_ip6(&prefix->address));
    netif_ip6_addr_set_state(netif, here, IP6_ADDR_PREFERRED);
  }
}

nst_interface *nst_interface_attach(nst_stack *stack, nst_device *device, const char *name) {
  nst_interface *interface = calloc(1, sizeof *interface);
  if (interface == NULL) return NULL;
  interface->stack = stack;
  interface->device = device ? nst_device_retain(device) : NULL;
  interface->references = 1;
  if (device) nst_device_choose_mtu(device, stack->config.mtu);
  interface->mtu = device ? device->mtu : 65535;
  interface->up = true;
  snprintf(interface->name, sizeof interface->name, "%s", name);
  nst_list_init(&interface->link);
  nst_list_init(&interface->egress);
  nst_list_init(&interface->blocked);
  nst_list_init(&interface->looped);
  nst_list_append(&stack->interfaces, &interface->link);
  if (!set_netif4(interface, 0, NULL)) return interface;
  if (device) {
    device->interface = interface;
    if (device->fd >= 0) stack->hub->fds++;
    if (nst_device_has_packet(device)) nst_stack_wake(stack);
  }
  return interface;
}

nst_interface *nst_interface_retain(nst_interface *interface) {
  interface->references++;
  return interface;
}

void nst_interface_release(nst_interface *interface) {
  if (--interface->references > 0) return;
  free(interface);
}

static void remove_netifs(nst_stack *stack, void *argument) {
  nst_interface *interface = argument;
  int i;
  (void)stack;
  for (i = 0; i < NST_IPV4_ADDRESSES; i++) {
    if (interface->registered[i]) netif_remove(&interface->netifs[i]);
    interface->registered[i] = false;
  }
}

/* Takes the interface, which holds nothing of lwIP any more, out of the stack. */
static void forget_stack(nst_interface *interface, nst_stack *stack) {
  nst_link *link;
  interface->stack = NULL;
  nst_route_drop_interface(stack, interface);
  nst_list_remove(&interface->link);
  nst_packets_free(&interface->egress);
  nst_packets_free(&interface->looped);
  interface->looped_count = 0;
  while ((link = nst_list_pop(&interface->blocked)) != NULL) {
    nst_socket_changed(nst_holder(link, nst_socket, blocked)); /* finds that there is no route any more */
  }
  nst_stack_wake(stack);
  if (interface->device) {
    interface->device->interface = NULL;
    if (interface->device->fd >= 0) stack->hub->fds--;
    nst_device_release(interface->device);
    interface->device = NULL;
  }
  interface->references--; /* the stack's; the caller has one */
}

void nst_interface_detach(nst_interface *interface) {
  nst_stack *stack = interface->stack;
  if (stack == NULL) return;
  (void)nst_interface_retain(interface);
  (void)nst_inside(stack, remove_netifs, interface);
  if (interface->stack) forget_stack(interface, stack); /* else lwIP objected, the stack died, and did this */
  nst_interface_release(interface);
}


nst_error nst_interface_set_addresses(nst_interface *interface, const nst_prefix *addresses, size_t count) {
  nst_stack *stack = interface->stack;
  size_t i, four = 0, six = 0;
  int next = 0;
  for (i = 0; i < count; i++) {
    if (IP_IS_V6(&addresses[i].address)) six++;
    else four++;
  }
  if (four > NST_IPV4_ADDRESSES || six > NST_IPV6_ADDRESSES) return NST_FULL;
  if (six > 0 && interface->mtu < IP6_MIN_MTU_LENGTH) return NST_NOT_SUPPORTED;
  for (i = stack->route_count; i-- > 0;) {
    nst_route *route = &stack->routes[i];
    if (route->interface == interface && route->own) nst_route_remove(stack, &route->to);
  }
  memcpy(interface->addresses, addresses, count * sizeof *addresses);
  interface->address_count = count;
  for (i = 0; i < count; i++) {
    if (!IP_IS_V6(&addresses[i].address) && !set_netif4(interface, next++, &addresses[i])) return NST_FULL;
  }
  if (next == 0) set_netif4(interface, next++, NULL);
  for (; next < NST_IPV4_ADDRESSES; next++) set_netif4(interface, next, NULL);
  set_netif6(interface);
  for (i = 0; i < count; i++) {
    if (nst_route_add(stack, &interface->addresses[i], interface, NULL, true) != NST_OK) return NST_NO_MEMORY;
  }
  nst_tcp_addresses_changed(stack);
  return NST_OK;
}

void nst_interface_set_up(nst_interface *interface, bool up) {
  int i;
  interface->up = up;
  for (i = 0; i < NST_IPV4_ADDRESSES; i++) {
    if (!interface->registered[i]) continue;
    if (up) netif_set_up(&interface->netifs[i]);
    else netif_set_down(&interface->netifs[i]);
  }
  if (up) nst_interface_room_came(interface);
}

void nst_interface_packet_came(nst_interface *interface) {
  nst_stack_wake(interface->stack);
}

void nst_interface_room_came(nst_interface *interface) {
  interface->room_came = true;
  nst_stack_wake(interface->stack);
}

void nst_interface_block(nst_interface *interface, nst_socket *socket) {
  if (!nst_list_linked(&socket->blocked)) nst_list_append(&interface->blocked, &socket->blocked);
}

bool nst_interface_has_work(const nst_interface *interface) {
  return interface->room_came || interface->looped_count > 0 ||
         (interface->device && nst_device_has_packet(interface->device));
}

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

int nst_may_forward(void) {
  nst_current()->drop_cause = "not for us";
  IP_STATS_INC(ip.drop);
  return 0;
}

/* Hands a packet to lwIP, which owns it from then on. */
static void feed(nst_interface *interface, nst_packet *packet) {
  nst_stack *stack = interface->stack;
  struct pbuf *p = nst_packet_to_pbuf(packet, &stack->memory);
  stack->refused = NULL;
  if (interface->netifs[0].input(p, &interface->netifs[0]) != ERR_OK) pbuf_free(p);
  if (stack->refused) { /* an answer that could not wait; TCP clears this when it will try again */
    stack->refused->dropped_out++;
    stack->refused = NULL;
  }
}

/* The same, while somebody wants to know what becomes of it. */
static void feed_traced(nst_interface *interface, nst_packet *packet) {
  nst_stack *stack = interface->stack;
  nst_packet *copy = nst_packet_copy(stack->hub, packet->data, packet->length);
  struct stats_ before = lwip_stats;
  const char *cause;
  stack->drop_cause = NULL;
  feed(interface, packet);
  if (copy == NULL) return;
  cause = stack->drop_cause ? stack->drop_cause : lwip_cause(&before);
  if (cause) nst_trace_packet(stack, NST_EVENT_DROP, interface, copy->data, copy->length, cause);
  nst_packet_free(copy);
}

static void drop(nst_interface *interface, nst_packet *packet, const char *cause) {
  interface->dropped_in++;
  nst_trace_packet(interface->stack, NST_EVENT_DROP, interface, packet->data, packet->length, cause);
  nst_packet_free(packet);
}

/* The whole packet, when this was its last piece. */
static nst_packet *put_together(nst_interface *interface, nst_packet *piece) {
  nst_stack *stack = interface->stack;
  nst_packet *copy = stack->tracing ? nst_packet_copy(stack->hub, piece->data, piece->length) : NULL;
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
  interface->guarded[cause]++;
  drop(interface, packet, nst_guard_text(cause));
  return false;
}

static void input(nst_interface *interface, nst_packet *packet, bool looped) {
  nst_stack *stack = interface->stack;
  if (!interface->up) {
    drop(interface, packet, "interface down");
    return;
  }
  if (packet->length > interface->mtu) {
    interface->guarded[NST_GUARD_TOO_LONG]++;
    drop(interface, packet, nst_guard_text(NST_GUARD_TOO_LONG));
    return;
  }
  if (!passes(interface, packet, looped)) return;
  stack->counters.in_packets++;
  stack->counters.in_bytes += packet->length;
  nst_trace_packet(stack, NST_EVENT_IN, interface, packet->data, packet->length, NULL);
  if (nst_is_fragment(packet->data, packet->length)) {
    packet = put_together(interface, packet);
    if (packet == NULL || !passes(interface, packet, looped)) return;
  }
  if (stack->tracing) feed_traced(interface, packet);
  else feed(interface, packet);
}

/* Room goes first to the fragments that were kept, then to the sockets in the order in which they were refused. */
static bool send_waiting(nst_interface *interface) {
  bool worked = false;
  interface->room_came = false;
  while (!nst_list_empty(&interface->egress) && nst_device_has_room(interface->device)) {
    nst_packet *packet = nst_holder(nst_list_pop(&interface->egress), nst_packet, link);
    if (nst_device_transmit(interface->device, packet) != NST_OK) nst_packet_free(packet);
    worked = true;
  }
  while (!nst_list_empty(&interface->blocked) && nst_interface_has_room(interface)) {
    nst_socket *socket = nst_holder(nst_list_pop(&interface->blocked), nst_socket, blocked);
    if (socket->protocol == NST_TCP) nst_tcp_output((nst_tcp *)(void *)socket);
    else nst_requests_attempt(&socket->writers);
    worked = true;
  }
  return worked;
}

bool nst_interface_poll(nst_interface *interface) {
  bool worked = false;
  int budget = PACKETS_AT_ONCE;
  size_t looped = interface->looped_count;
  if (interface->room_came) worked = send_waiting(interface);
  for (; looped > 0; looped--) {
    interface->looped_count--;
    input(interface, nst_holder(nst_list_pop(&interface->looped), nst_packet, link), true);
    interface->room_came = true;
    worked = true;
  }
  while (interface->device && budget-- > 0) {
    nst_packet *packet = nst_device_receive(interface->device);
    if (packet == NULL) break;
    input(interface, packet, false);
    worked = true;
  }
  return worked;
}
