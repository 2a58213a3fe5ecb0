#include "device.h"

#include "descriptors.h"
#include "ethernet.h"
#include "request.h"

#include <stdlib.h>

void nst_device_init(nst_device *device, const nst_device_kind *kind, nst_hub *hub, uint16_t mtu, nst_medium medium) {
  device->kind = kind;
  device->references = 1;
  device->hub = nst_hub_retain(hub);
  device->mtu = mtu ? mtu : 1500;
  device->mtu_named = mtu != 0;
  device->medium = medium;
  device->open = true;
  device->fd = -1;
  device->id = ++hub->ids;
  nst_list_init(&device->readers);
  nst_list_init(&device->writers);
  nst_list_init(&device->outgoing);
  nst_list_init(&device->descriptor);
  nst_list_init(&device->unwritten);
}

size_t nst_device_link(const nst_device *device) {
  return device->medium == NST_MEDIUM_ETHERNET ? NST_FRAME_HEADER : 0;
}

void nst_device_choose_mtu(nst_device *device, uint16_t mtu) {
  if (device->mtu_named) return;
  device->mtu = mtu;
  device->mtu_named = true;
  if (device->kind->mtu_chosen) device->kind->mtu_chosen(device);
}

nst_device *nst_device_retain(nst_device *device) {
  device->references++;
  return device;
}

void nst_device_release(nst_device *device) {
  nst_hub *hub = device->hub;
  if (--device->references > 0) return;
  device->references++; /* closing may look at the device again */
  nst_device_close(device);
  free(device);
  nst_hub_release(hub);
}

void nst_device_close(nst_device *device) {
  if (!device->open) return;
  device->open = false;
  if (device->user) device->user->closed(device->user);
  device->kind->close(device);
  nst_list_remove(&device->outgoing);
  nst_requests_attempt(&device->readers);
  nst_requests_attempt(&device->writers);
}

void nst_device_attach(nst_device *device, nst_device_user *user) {
  device->user = user;
  (void)nst_device_retain(device);
  nst_descriptors_update(device);
  nst_requests_attempt(&device->readers); /* who drove it by hand cannot any more */
  nst_requests_attempt(&device->writers);
  if (nst_device_has_packet(device)) user->packet_came(user);
}

void nst_device_detach(nst_device *device) {
  nst_descriptors_leave(device);
  device->user = NULL;
  nst_descriptors_update(device);
  nst_device_release(device);
}

bool nst_device_has_room(const nst_device *device) {
  return device->kind->has_room(device);
}

bool nst_device_has_packet(const nst_device *device) {
  return device->kind->has_packet(device);
}

bool nst_device_is_cut(const nst_device *device) {
  return device->kind->is_cut(device);
}

nst_error nst_device_transmit(nst_device *device, nst_packet *packet) {
  if (!device->open) return NST_CLOSED;
  if (!device->kind->has_room(device)) return NST_FULL;
  device->counters.tx_packets++;
  device->counters.tx_bytes += packet->length;
  device->kind->transmit(device, packet);
  return NST_OK;
}

nst_packet *nst_device_receive(nst_device *device) {
  nst_packet *packet = device->open ? device->kind->receive(device) : NULL;
  if (packet) {
    packet->summed = false; /* what happened to it on the way is not known */
    device->counters.rx_packets++;
    device->counters.rx_bytes += packet->length;
  }
  return packet;
}

void nst_device_packet_came(nst_device *device) {
  if (device->user) device->user->packet_came(device->user);
  else nst_requests_attempt(&device->readers);
}

void nst_device_room_came(nst_device *device) {
  if (device->user) device->user->room_came(device->user);
  else nst_requests_attempt(&device->writers);
}
