/* A pipe: two ends; what goes into one comes out of the other, whole and in order, or is refused. */
#include <stdlib.h>

#include "device.h"

typedef struct nst_pipe_end {
  nst_device device; /* first: the ends are handed around as devices */
  struct nst_pipe_end *other; /* counted while both are open */
  nst_link packets;  /* towards this end */
  size_t count;
  size_t capacity;   /* 0: unbounded */
} nst_pipe_end;

static nst_pipe_end *end_of(nst_device *device) {
  return (nst_pipe_end *)(void *)device;
}

static const nst_pipe_end *const_end_of(const nst_device *device) {
  return (const nst_pipe_end *)(const void *)device;
}

/* A closed other end takes everything: it drops and counts. */
static bool has_room(const nst_device *device) {
  const nst_pipe_end *other = const_end_of(device)->other;
  return other == NULL || other->capacity == 0 || other->count < other->capacity;
}

static void transmit(nst_device *device, nst_packet *packet) {
  nst_pipe_end *other = end_of(device)->other;
  if (other == NULL) {
    device->counters.tx_dropped++;
    nst_packet_free(packet);
    return;
  }
  nst_list_append(&other->packets, &packet->link);
  other->count++;
  nst_device_packet_came(&other->device);
}

static bool has_packet(const nst_device *device) {
  return const_end_of(device)->count > 0;
}

static nst_packet *receive(nst_device *device) {
  nst_pipe_end *end = end_of(device);
  nst_link *link = nst_list_pop(&end->packets);
  if (link == NULL) return NULL;
  end->count--;
  if (end->other && end->count + 1 == end->capacity) nst_device_room_came(&end->other->device);
  return nst_holder(link, nst_packet, link);
}

static bool is_cut(const nst_device *device) {
  return const_end_of(device)->other == NULL;
}

static void mtu_chosen(nst_device *device) {
  nst_pipe_end *other = end_of(device)->other;
  if (other) nst_device_choose_mtu(&other->device, device->mtu);
}

static void close_end(nst_device *device) {
  nst_pipe_end *end = end_of(device), *other = end->other;
  device->counters.rx_dropped += end->count;
  end->count = 0;
  nst_packets_free(&end->packets);
  if (other == NULL) return;
  end->other = other->other = NULL;
  nst_device_room_came(&other->device);
  nst_device_packet_came(&other->device); /* who waits there learns that nothing will come any more */
}

static const nst_device_kind pipe_kind = {"pipe", has_room, transmit, receive, has_packet, is_cut, mtu_chosen,
                                          close_end, NULL, NULL, NULL};

bool nst_pipe_new(nst_hub *hub, uint16_t mtu, nst_medium medium, size_t capacity, bool checksum, nst_device *ends[2]) {
  nst_pipe_end *a = calloc(1, sizeof *a), *b = calloc(1, sizeof *b);
  if (a == NULL || b == NULL) {
    free(a);
    free(b);
    return false;
  }
  nst_device_init(&a->device, &pipe_kind, hub, mtu, medium);
  nst_device_init(&b->device, &pipe_kind, hub, mtu, medium);
  nst_list_init(&a->packets);
  nst_list_init(&b->packets);
  a->device.checksum = b->device.checksum = checksum;
  a->capacity = b->capacity = capacity;
  a->other = b;
  b->other = a;
  ends[0] = &a->device;
  ends[1] = &b->device;
  return true;
}
