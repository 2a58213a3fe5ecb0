/*
** A device in Lua. C never calls Lua from inside lwIP, so what the stack sends lies here until the Lua layer has
** left the stack and takes it to the transmit function.
*/
#include <stdlib.h>

#include "device.h"

/* How much may lie here; beyond that the stack waits, as with any device. */
#define CAPACITY 1024

typedef struct nst_callback_device {
  nst_device device; /* first */
  nst_link sent;     /* by the stack, for transmit */
  size_t sent_count;
  nst_link arrived;  /* by input, for the stack */
} nst_callback_device;

static nst_callback_device *callback_device_of(nst_device *device) {
  return (nst_callback_device *)(void *)device;
}

static const nst_callback_device *const_callback_device_of(const nst_device *device) {
  return (const nst_callback_device *)(const void *)device;
}

static bool has_room(const nst_device *device) {
  return const_callback_device_of(device)->sent_count < CAPACITY;
}

static void transmit(nst_device *device, nst_packet *packet) {
  nst_callback_device *self = callback_device_of(device);
  nst_list_append(&self->sent, &packet->link);
  self->sent_count++;
  if (!nst_list_linked(&device->outgoing)) nst_list_append(&device->hub->outgoing, &device->outgoing);
}

static bool has_packet(const nst_device *device) {
  return !nst_list_empty(&const_callback_device_of(device)->arrived);
}

static nst_packet *receive(nst_device *device) {
  nst_link *link = nst_list_pop(&callback_device_of(device)->arrived);
  return link ? nst_holder(link, nst_packet, link) : NULL;
}

static bool is_cut(const nst_device *device) {
  (void)device; /* only Lua knows what is on the other side */
  return false;
}

static void close_device(nst_device *device) {
  nst_packets_free(&callback_device_of(device)->sent);
  nst_packets_free(&callback_device_of(device)->arrived);
}

static const nst_device_kind callback_kind = {"device", has_room, transmit, receive, has_packet, is_cut, NULL,
                                              close_device, NULL, NULL, NULL};

nst_device *nst_callback_device_new(nst_hub *hub, uint16_t mtu, nst_medium medium) {
  nst_callback_device *self = calloc(1, sizeof *self);
  if (self == NULL) return NULL;
  nst_device_init(&self->device, &callback_kind, hub, mtu, medium);
  nst_list_init(&self->sent);
  nst_list_init(&self->arrived);
  self->device.checksum = true; /* nobody knows where a Lua function takes the packet */
  return &self->device;
}

bool nst_is_callback_device(const nst_device *device) {
  return device->kind == &callback_kind;
}

nst_packet *nst_callback_device_take(nst_device *device) {
  nst_callback_device *self = callback_device_of(device);
  nst_link *link = nst_list_pop(&self->sent);
  if (link == NULL) {
    nst_list_remove(&device->outgoing);
    return NULL;
  }
  if (self->sent_count-- == CAPACITY) nst_device_room_came(device);
  return nst_holder(link, nst_packet, link);
}

nst_error nst_callback_device_input(nst_device *device, nst_packet *packet) {
  if (!device->open || device->user == NULL) { /* nobody will ever read it */
    device->counters.rx_dropped++;
    nst_packet_free(packet);
    return device->open ? NST_OK : NST_CLOSED;
  }
  nst_list_append(&callback_device_of(device)->arrived, &packet->link);
  nst_device_packet_came(device);
  return NST_OK;
}
