/*
** A device on the host's kernel, through the file descriptor of a TUN or TAP device: each write(2) is a packet that the
** kernel receives, each read(2) one that it sends, or many of one connection (offload.h). A datagram socket does as well.
*/
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "descriptors.h"
#include "offload.h"
#include "tun_open.h"

/* So many packets are read after a look at the descriptor; then the other stacks and the tasks get their turn. */
#define READS_AT_ONCE 256
/* So many are collected before they are written, where they can be written together. */
#define WRITES_AT_ONCE NST_TRAIN_MOST

typedef struct nst_tun {
  nst_device device;   /* first */
  char name[16];       /* IFNAMSIZ; "": none */
  unsigned reads;      /* left before the next look; 0: nothing is known to be there */
  bool suspect;        /* the last look saw an error */
  bool offload;        /* what is read and written looks as offload.h says */
  bool blocked;        /* the kernel had no room for the first in the queue */
  nst_link queue;      /* packets to be written */
  unsigned queued;
  nst_segments in;     /* what is left of the last read */
  uint8_t buffer[NST_OFFLOAD_MOST];
} nst_tun;

static nst_tun *tun_of(nst_device *device) {
  return (nst_tun *)(void *)device;
}

static const nst_tun *const_tun_of(const nst_device *device) {
  return (const nst_tun *)(const void *)device;
}

static void drop_queue(nst_tun *self) {
  self->device.counters.tx_dropped += self->queued;
  nst_packets_free(&self->queue);
  self->queued = 0;
  self->blocked = false;
}

/* The interface was deleted, or its network namespace was: it never comes back under this descriptor. */
static void lose(nst_tun *self) {
  nst_device *device = &self->device;
  device->gone = true;
  self->reads = 0;
  drop_queue(self);
  nst_descriptors_update(device);
  nst_device_packet_came(device); /* who waits learns that nothing will come any more */
  nst_device_room_came(device);
}

/*
** false: the kernel has no room. What it refuses for another reason is dropped as a wire would: EIO when the interface is
** down, EINVAL when it is no IP packet, ENOBUFS and ENOMEM.
*/
static bool put_first(nst_tun *self) {
  nst_device *device = &self->device;
  nst_train train;
  unsigned count = nst_train_make(&train, &self->queue, nst_device_link(device));
  int skip = self->offload ? 0 : 1; /* without a header */
  ssize_t written;
  do {
    device->counters.syscalls++;
    written = writev(device->fd, train.parts + skip, train.count - skip);
  } while (written < 0 && errno == EINTR);
  if (written < 0 && errno == EAGAIN) return false;
  if (written < 0) device->counters.tx_dropped += count; /* a device that is gone shows an error at the next look */
  self->queued -= count;
  for (; count > 0; count--) nst_packet_free(nst_holder(nst_list_pop(&self->queue), nst_packet, link));
  return true;
}

static void flush(nst_device *device) {
  nst_tun *self = tun_of(device);
  while (self->queued > 0 && !self->blocked) self->blocked = !put_first(self);
  if (self->blocked) nst_descriptors_update(device);
}

/* As with a pipe whose other end is closed: what is gone takes everything. */
static bool has_room(const nst_device *device) {
  return !const_tun_of(device)->blocked;
}

static void transmit(nst_device *device, nst_packet *packet) {
  nst_tun *self = tun_of(device);
  if (device->gone) {
    device->counters.tx_dropped++;
    nst_packet_free(packet);
    return;
  }
  nst_list_append(&self->queue, &packet->link);
  if (++self->queued >= (self->offload ? WRITES_AT_ONCE : 1)) flush(device);
  else if (!nst_list_linked(&device->unwritten)) nst_list_append(&device->hub->unwritten, &device->unwritten);
}

static bool has_packet(const nst_device *device) {
  const nst_tun *self = const_tun_of(device);
  return self->reads > 0 || nst_segments_left(&self->in) > 0;
}

/* Reads once; false: there is nothing more. */
static bool read_next(nst_tun *self) {
  nst_device *device = &self->device;
  size_t link = nst_device_link(device), ahead = self->offload ? 0 : NST_OFFLOAD_HEADER;
  ssize_t length = read(device->fd, self->buffer + ahead, sizeof self->buffer - ahead);
  device->counters.syscalls++;
  self->reads--;
  if (length >= 0) {
    if (nst_segments_begin(&self->in, self->buffer, (size_t)length + ahead, link)) {
      size_t more = nst_segments_left(&self->in) - 1;
      self->reads -= more < self->reads ? (unsigned)more : self->reads;
    } else {
      device->counters.rx_dropped++;
    }
  } else if (errno != EINTR) {
    /* Linux answers EBADFD from a TUN device without an interface. An error that stays would be shown for ever; those
    ** of sockets are told once. */
    if (self->suspect && errno != ECONNREFUSED && errno != ECONNRESET) lose(self);
    self->reads = 0;
  }
  return self->reads > 0;
}

static nst_packet *receive(nst_device *device) {
  nst_tun *self = tun_of(device);
  do {
    while (nst_segments_left(&self->in) > 0) {
      nst_packet *packet = nst_segments_next(&self->in, device->hub);
      if (packet) return packet;
      device->counters.rx_dropped++;
    }
  } while (self->reads > 0 && (read_next(self) || nst_segments_left(&self->in) > 0));
  return NULL;
}

static bool is_cut(const nst_device *device) {
  return device->gone;
}

static void close_tun(nst_device *device) {
  drop_queue(tun_of(device));
  nst_descriptors_remove(device);
  nst_list_remove(&device->unwritten);
  close(device->fd);
  device->fd = -1;
}

static short events(const nst_device *device) {
  return const_tun_of(device)->blocked ? POLLIN | POLLOUT : POLLIN;
}

static void ready(nst_device *device, short what) {
  nst_tun *self = tun_of(device);
  if (self->blocked && (what & ~POLLIN) != 0) {
    self->blocked = false;
    flush(device);
    if (!self->blocked) {
      nst_descriptors_update(device);
      nst_device_room_came(device);
    }
  }
  if ((what & ~POLLOUT) == 0 || device->gone) return;
  self->reads = READS_AT_ONCE;
  self->suspect = (what & (POLLERR | POLLHUP | POLLNVAL)) != 0;
  nst_device_packet_came(device);
}

static const nst_device_kind tun_kind = {"tun", has_room, transmit, receive, has_packet, is_cut, NULL,
                                         close_tun, events, ready, flush};

nst_device *nst_tun_new(nst_hub *hub, const nst_tun_order *order) {
  nst_medium medium = order->ethernet ? NST_MEDIUM_ETHERNET : NST_MEDIUM_IP;
  nst_tun *self = calloc(1, sizeof *self);
  if (self == NULL) {
    close(order->fd);
    return NULL;
  }
  nst_device_init(&self->device, &tun_kind, hub, order->mtu, medium);
  nst_list_init(&self->queue);
  self->offload = order->offload;
  self->device.checksum = true; /* the kernel does not take it on trust */
  self->device.fd = order->fd;
  memcpy(self->name, order->actual, sizeof self->name);
  nst_descriptors_add(&self->device);
  return &self->device;
}

const char *nst_tun_name(const nst_device *device) {
  return device->kind == &tun_kind && const_tun_of(device)->name[0] ? const_tun_of(device)->name : NULL;
}
