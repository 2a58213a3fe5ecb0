#include "switch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checksum.h"
#include "descriptors.h"

/* So many frames, then the others get their turn, and those who were sent to can make room. */
#define FRAMES_AT_ONCE 64
/* More switches than anybody puts in a row. */
#define SWITCHES_AT_MOST 255

const char *nst_switch_drop_text(nst_switch_drop drop) {
  static const char *const texts[] = {
#define TEXT(name, text) text,
    NST_SWITCH_DROPS(TEXT)
#undef TEXT
  };
  return texts[drop];
}

#define COUNT(port, what) ((port)->counters.what++, (port)->owner->counters.what++)

static void drop(nst_switch_port *port, nst_packet *frame, nst_switch_drop cause) {
  COUNT(port, dropped[cause]);
  nst_packet_free(frame);
}

/* ---- frames ---- */

/* Between ports without checksums and with them: they are put in, or looked at for the last time. */
static bool change_medium(const nst_switch_port *from, const nst_switch_port *to, nst_packet *frame) {
  if (from->device->checksum == to->device->checksum) return true;
  if (from->device->checksum) return nst_frame_holds(frame->data, frame->length);
  nst_frame_complete(frame->data, frame->length);
  return true;
}

/* Takes the frame over. An mtu that nobody named limits nothing. */
static void send(nst_switch_port *from, nst_switch_port *to, nst_packet *frame) {
  nst_device *device = to->device;
  if (device->mtu_named && frame->length > device->mtu + nst_device_link(device)) drop(to, frame, NST_SWITCH_DROP_MTU);
  else if (!change_medium(from, to, frame)) drop(to, frame, NST_SWITCH_DROP_CHECKSUM);
  else if (nst_device_transmit(device, frame) != NST_OK) drop(to, frame, NST_SWITCH_DROP_FULL);
  else COUNT(to, sent);
}

/* All ports but the one where it came in, the last of which gets the frame itself, the others copies. */
static void flood(nst_switch_port *from, nst_packet *frame) {
  nst_switch *self = from->owner;
  nst_switch_port *to = NULL;
  nst_link *link;
  COUNT(from, flooded);
  for (link = self->ports.next; link != &self->ports; link = link->next) {
    nst_switch_port *next = nst_holder(link, nst_switch_port, link);
    if (next == from) continue;
    if (to) {
      nst_packet *copy = nst_packet_copy(self->hub, frame->data, frame->length, nst_device_link(to->device));
      if (copy) {
        copy->switches = frame->switches;
        send(from, to, copy);
      } else {
        COUNT(to, dropped[NST_SWITCH_DROP_MEMORY]);
      }
    }
    to = next;
  }
  if (to) send(from, to, frame);
  else nst_packet_free(frame);
}

static bool is_group(const uint8_t *address) {
  return (address[0] & 1) != 0;
}

static bool is_nobody(const uint8_t *address) {
  static const uint8_t nobody[NST_MAC_LENGTH];
  return memcmp(address, nobody, NST_MAC_LENGTH) == 0;
}

/* For the bridges of one link only (IEEE 802.1D 7.12.6). */
static bool is_reserved(const uint8_t *address) {
  static const uint8_t prefix[5] = {0x01, 0x80, 0xc2, 0, 0};
  return memcmp(address, prefix, sizeof prefix) == 0 && address[5] < 16;
}

static void relay(nst_switch_port *from, nst_packet *frame) {
  nst_switch *self = from->owner;
  const uint8_t *destination = frame->data, *source = frame->data + NST_MAC_LENGTH;
  nst_time now = nst_hub_clock(self->hub);
  nst_switch_port *to = NULL;
  COUNT(from, received);
  if (frame->length < NST_FRAME_HEADER) {
    drop(from, frame, NST_SWITCH_DROP_SHORT);
    return;
  }
  if (!is_group(source) && !is_nobody(source)) {
    nst_stations_hear(&self->stations, source, from, &from->stations, now);
  }
  if (is_reserved(destination)) {
    drop(from, frame, NST_SWITCH_DROP_RESERVED);
    return;
  }
  if (frame->switches++ == SWITCHES_AT_MOST) {
    drop(from, frame, NST_SWITCH_DROP_LOOP);
    return;
  }
  if (!is_group(destination)) to = nst_stations_find(&self->stations, destination, now);
  if (to == NULL) {
    flood(from, frame);
  } else if (to == from) {
    drop(from, frame, NST_SWITCH_DROP_FILTERED);
  } else {
    COUNT(from, forwarded);
    send(from, to, frame);
  }
}

/* ---- turns ---- */

static void stay_busy(nst_switch_port *port) {
  nst_switch *self = port->owner;
  if (!nst_list_linked(&port->busy)) nst_list_append(&self->busy, &port->busy);
  if (!nst_list_linked(&self->job.link)) nst_list_append(&self->hub->runnable, &self->job.link);
}

static nst_packet *receive(nst_switch_port *port) {
  nst_packet *frame = nst_device_receive(port->device);
  if (frame == NULL) port->waiting = 0;
  else if (port->waiting > 0) port->waiting--;
  return frame;
}

static void run(nst_job *job) {
  nst_switch *self = nst_holder(job, nst_switch, job);
  nst_link *link;
  int budget = FRAMES_AT_ONCE;
  while (budget-- > 0 && (link = nst_list_pop(&self->busy)) != NULL) {
    nst_switch_port *port = nst_holder(link, nst_switch_port, busy);
    nst_packet *frame = receive(port);
    if (nst_device_has_packet(port->device)) stay_busy(port);
    else if (nst_device_is_cut(port->device)) nst_stations_forget(&self->stations, &port->stations);
    if (frame) relay(port, frame);
  }
  if (!nst_list_empty(&self->busy) && !nst_list_linked(&job->link)) nst_list_append(&self->hub->runnable, &job->link);
  nst_descriptors_flush(self->hub);
}

/* ---- ports ---- */

static nst_switch_port *port_of(nst_device_user *user) {
  return nst_holder(user, nst_switch_port, user);
}

/* With too many waiting, the oldest goes: it is the only one that can be got at. */
static void packet_came(nst_device_user *user) {
  nst_switch_port *port = port_of(user);
  if (++port->waiting > NST_SWITCH_QUEUE) {
    nst_packet *frame = receive(port);
    if (frame) {
      COUNT(port, received);
      drop(port, frame, NST_SWITCH_DROP_QUEUE);
    }
  }
  stay_busy(port);
}

static void room_came(nst_device_user *user) {
  (void)user; /* a switch does not wait for room */
}

static void device_closed(nst_device_user *user) {
  nst_switch_detach(port_of(user));
}

nst_switch_port *nst_switch_attach(nst_switch *self, nst_device *device) {
  nst_switch_port *port = calloc(1, sizeof *port);
  nst_link *place = self->ports.next;
  if (port == NULL) return NULL;
  port->owner = self;
  port->device = device;
  port->number = 1;
  port->user.packet_came = packet_came;
  port->user.room_came = room_came;
  port->user.closed = device_closed;
  nst_list_init(&port->busy);
  nst_list_init(&port->stations);
  while (place != &self->ports && nst_holder(place, nst_switch_port, link)->number == port->number) {
    place = place->next;
    port->number++;
  }
  nst_list_insert_before(place, &port->link);
  self->port_count++;
  nst_device_attach(device, &port->user);
  return port;
}

void nst_switch_detach(nst_switch_port *port) {
  nst_switch *self = port->owner;
  nst_stations_forget(&self->stations, &port->stations);
  nst_list_remove(&port->link);
  nst_list_remove(&port->busy);
  self->port_count--;
  nst_device_detach(port->device);
  free(port);
}

nst_switch_port *nst_switch_port_numbered(const nst_switch *self, unsigned number) {
  const nst_link *link;
  for (link = self->ports.next; link != &self->ports; link = link->next) {
    nst_switch_port *port = nst_holder(link, nst_switch_port, link);
    if (port->number == number) return port;
  }
  return NULL;
}

nst_switch_port *nst_switch_port_of(const nst_switch *self, const nst_device *device) {
  nst_switch_port *port = device->user && device->user->closed == device_closed ? port_of(device->user) : NULL;
  return port && port->owner == self ? port : NULL;
}

/* ---- the whole ---- */

nst_switch *nst_switch_new(nst_hub *hub, const char *name, nst_time ageing, size_t table_size) {
  nst_switch *self = calloc(1, sizeof *self);
  if (self == NULL) return NULL;
  self->hub = nst_hub_retain(hub);
  self->job.run = run;
  self->id = ++hub->ids;
  if (name) snprintf(self->name, sizeof self->name, "%s", name);
  else snprintf(self->name, sizeof self->name, "switch%u", ++hub->switch_names);
  nst_list_init(&self->job.link);
  nst_list_init(&self->ports);
  nst_list_init(&self->busy);
  nst_stations_init(&self->stations, table_size, ageing);
  return self;
}

void nst_switch_free(nst_switch *self) {
  while (!nst_list_empty(&self->ports)) nst_switch_detach(nst_holder(self->ports.next, nst_switch_port, link));
  nst_stations_clear(&self->stations);
  nst_list_remove(&self->job.link);
  nst_hub_release(self->hub);
  free(self);
}
