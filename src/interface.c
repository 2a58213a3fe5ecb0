#include "interface.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dhcp.h"
#include "ethernet.h"
#include "group.h"
#include "nat.h"
#include "neighbour.h"
#include "slaac.h"
#include "stack.h"
#include "tcp.h"

#include "lwip/ip.h"

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

uint16_t nst_interface_mtu(const nst_interface *interface, const ip_addr_t *destination) {
  return IP_IS_V6(destination) ? netif_mtu6(&interface->netifs[0]) : interface->mtu;
}

bool nst_interface_is_ethernet(const nst_interface *interface) {
  return interface->device && interface->device->medium == NST_MEDIUM_ETHERNET;
}

/* A random station of our own making, IEEE 802's bits for "local" and against "group" set right. */
static void choose_mac(nst_interface *interface, const uint8_t *mac) {
  if (mac) {
    memcpy(interface->mac, mac, sizeof interface->mac);
  } else {
    nst_random_fill(&interface->stack->random, interface->mac, sizeof interface->mac);
    interface->mac[0] = (uint8_t)((interface->mac[0] & 0xfc) | 2);
  }
}

/* RFC 4291 2.5.6 */
static void make_link_local_of_mac(nst_interface *interface) {
  const uint8_t *mac = interface->mac;
  const uint8_t identifier[8] = {(uint8_t)(mac[0] ^ 2), mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]};
  if (interface->mtu >= IP6_MIN_MTU_LENGTH) nst_interface_make_link_local(interface, identifier);
}

static nst_interface *interface_of(nst_device_user *user) {
  return nst_holder(user, nst_interface, user);
}

static void packet_came(nst_device_user *user) {
  nst_interface_packet_came(interface_of(user));
}

static void room_came(nst_device_user *user) {
  nst_interface_room_came(interface_of(user));
}

static void device_closed(nst_device_user *user) {
  nst_interface_detach(interface_of(user));
}

nst_interface *nst_interface_attach(nst_stack *stack, nst_device *device, const char *name, const uint8_t *mac) {
  nst_interface *interface = calloc(1, sizeof *interface);
  if (interface == NULL) return NULL;
  interface->stack = stack;
  interface->user.packet_came = packet_came;
  interface->user.room_came = room_came;
  interface->user.closed = device_closed;
  interface->user.pollset = &stack->pollset;
  interface->device = device;
  interface->references = 1;
  if (device) nst_device_choose_mtu(device, stack->config.mtu);
  interface->mtu = device ? device->mtu : 65535;
  interface->up = true;
  interface->on = !stack->crashed;
  snprintf(interface->name, sizeof interface->name, "%s", name);
  nst_list_init(&interface->link);
  nst_list_init(&interface->busy);
  nst_list_init(&interface->egress);
  nst_list_init(&interface->blocked);
  nst_list_init(&interface->looped);
  nst_list_init(&interface->groups);
  nst_list_append(&stack->interfaces, &interface->link);
  stack->interface_count++;
  if (device) nst_device_attach(device, &interface->user);
  if (!nst_addresses_begin(interface)) return interface;
  if (nst_interface_is_ethernet(interface)) {
    choose_mac(interface, mac);
    make_link_local_of_mac(interface);
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

static void leave_lwip(nst_stack *stack, void *argument) {
  nst_interface *interface = argument;
  (void)stack;
  nst_neighbours_forget(interface);
  nst_addresses_end(interface);
}

static void drop_queues(nst_interface *interface) {
  nst_packets_free(&interface->egress);
  nst_packets_free(&interface->looped);
  interface->looped_count = 0;
}

/* Takes the interface, which holds nothing of lwIP any more, out of the stack. */
static void forget_stack(nst_interface *interface, nst_stack *stack) {
  nst_link *link;
  nst_dhcp_stop(interface);
  nst_groups_forget(interface);
  nst_slaac_stop(interface);
  nst_nat_stop(interface);
  nst_addresses_disown(stack, interface);
  interface->stack = NULL;
  nst_routes_drop_interface(stack, interface);
  nst_list_remove(&interface->link);
  nst_list_remove(&interface->busy);
  stack->interface_count--;
  drop_queues(interface);
  while ((link = nst_list_pop(&interface->blocked)) != NULL) {
    nst_socket_changed(nst_holder(link, nst_socket, blocked)); /* finds that there is no route any more */
  }
  nst_stack_wake(stack);
  if (interface->device) nst_device_detach(interface->device);
  interface->device = NULL;
  interface->references--; /* the stack's; the caller has one */
}

void nst_interface_detach(nst_interface *interface) {
  nst_stack *stack = interface->stack;
  if (stack == NULL) return;
  (void)nst_interface_retain(interface);
  (void)nst_inside(stack, leave_lwip, interface);
  if (interface->stack) forget_stack(interface, stack); /* else lwIP objected, the stack died, and did this */
  nst_interface_release(interface);
}

/* After `up`, or the stack's state, has changed. */
static void set_on(nst_interface *interface) {
  bool on = interface->up && !interface->stack->crashed, changes = interface->on != on;
  int i;
  interface->on = on;
  for (i = 0; i < NST_IPV4_ADDRESSES; i++) {
    if (!interface->registered[i]) continue;
    if (on) netif_set_up(&interface->netifs[i]);
    else netif_set_down(&interface->netifs[i]);
  }
  if (on) nst_interface_room_came(interface);
  if (changes && on) nst_groups_announce(interface);
  if (changes && on && nst_interface_is_ethernet(interface)) nst_addresses_announce(interface);
  if (changes && on && interface->slaac) nst_slaac_solicit(interface);
  if (changes && !on) nst_neighbours_forget(interface);
}

void nst_interface_set_up(nst_interface *interface, bool up) {
  interface->up = up;
  set_on(interface);
}

void nst_interface_turn_off(nst_interface *interface) {
  set_on(interface);
  drop_queues(interface);
}

void nst_interface_unlearn(nst_interface *interface) {
  if (interface->dhcp) nst_dhcp_lose(interface);
  if (interface->slaac) nst_slaac_lose(interface);
  nst_nat_unlearn(interface);
}

void nst_interface_turn_on(nst_interface *interface) {
  interface->defended = 0;
  if (nst_interface_is_ethernet(interface) && !interface->has_link_local) make_link_local_of_mac(interface);
  nst_addresses_reclaim(interface);
  nst_groups_follow(interface);
  set_on(interface);
}

const char *nst_interface_off_cause(const nst_interface *interface) {
  return interface->stack->crashed ? "stack crashed" : "interface down";
}

static bool has_work(const nst_interface *interface) {
  return interface->room_came || interface->looped_count > 0 ||
         (interface->device && nst_device_has_packet(interface->device));
}

static void stay_busy(nst_interface *interface) {
  if (!nst_list_linked(&interface->busy)) nst_list_append(&interface->stack->busy, &interface->busy);
}

void nst_interface_packet_came(nst_interface *interface) {
  stay_busy(interface);
  nst_stack_wake(interface->stack);
}

void nst_interface_room_came(nst_interface *interface) {
  interface->room_came = true;
  nst_interface_packet_came(interface);
}

void nst_interface_block(nst_interface *interface, nst_socket *socket) {
  if (!nst_list_linked(&socket->blocked)) nst_list_append(&interface->blocked, &socket->blocked);
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

/* Nothing can come or go any more: whoever uses an address of the interface is told so instead of waiting for it. */
static void lose_device(nst_interface *interface) {
  nst_interface_set_up(interface, false);
  nst_interface_unlearn(interface);
  (void)nst_interface_set_addresses(interface, NST_ADDRESS_GIVEN, NULL, 0);
}

bool nst_interface_poll(nst_interface *interface) {
  bool worked = false;
  int budget = PACKETS_AT_ONCE;
  size_t looped = interface->looped_count;
  if (interface->device && interface->device->gone && interface->up) lose_device(interface);
  if (interface->room_came) worked = send_waiting(interface);
  for (; looped > 0; looped--) {
    interface->looped_count--;
    nst_interface_input(interface, nst_holder(nst_list_pop(&interface->looped), nst_packet, link), true);
    interface->room_came = true;
    worked = true;
  }
  while (interface->device && budget-- > 0) {
    nst_packet *packet = nst_device_receive(interface->device);
    if (packet == NULL) break;
    nst_interface_input(interface, packet, false);
    worked = true;
  }
  if (has_work(interface)) stay_busy(interface);
  return worked;
}
