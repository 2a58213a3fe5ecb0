/*
** A device on the host's kernel, through the file descriptor of a TUN or TAP device: each write(2) is a packet that the
** kernel receives, each read(2) one that it sends. A datagram socket does as well.
*/
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "descriptors.h"
#include "device.h"

/* So many packets are read after a look at the descriptor; then the other stacks and the tasks get their turn. */
#define READS_AT_ONCE 256

typedef struct nst_tun {
  nst_device device;   /* first */
  char name[16];       /* IFNAMSIZ; "": none */
  unsigned reads;      /* left before the next look; 0: nothing is known to be there */
  bool suspect;        /* the last look saw an error */
  nst_packet *pending; /* the kernel had no room for it */
} nst_tun;

static nst_tun *tun_of(nst_device *device) {
  return (nst_tun *)(void *)device;
}

static const nst_tun *const_tun_of(const nst_device *device) {
  return (const nst_tun *)(const void *)device;
}

/* The interface was deleted, or its network namespace was: it never comes back under this descriptor. */
static void lose(nst_tun *self) {
  nst_device *device = &self->device;
  device->gone = true;
  self->reads = 0;
  nst_descriptors_update(device);
  if (self->pending) {
    device->counters.tx_dropped++;
    nst_packet_free(self->pending);
    self->pending = NULL;
  }
  nst_device_packet_came(device); /* who waits learns that nothing will come any more */
  nst_device_room_came(device);
}

/*
** false: the kernel has no room. What it refuses for another reason is dropped as a wire would: EIO when the interface is
** down, EINVAL when it is no IP packet, ENOBUFS and ENOMEM.
*/
static bool put(nst_tun *self, const nst_packet *packet) {
  nst_device *device = &self->device;
  ssize_t written;
  do {
    device->counters.syscalls++;
    written = write(device->fd, packet->data, packet->length);
  } while (written < 0 && errno == EINTR);
  if (written >= 0) return true;
  if (errno == EAGAIN) return false;
  device->counters.tx_dropped++; /* a device that is gone shows an error at the next look */
  return true;
}

/* As with a pipe whose other end is closed: what is gone takes everything. */
static bool has_room(const nst_device *device) {
  return const_tun_of(device)->pending == NULL;
}

static void transmit(nst_device *device, nst_packet *packet) {
  nst_tun *self = tun_of(device);
  if (device->gone) {
    device->counters.tx_dropped++;
  } else if (!put(self, packet)) {
    self->pending = packet;
    nst_descriptors_update(device);
    return;
  }
  nst_packet_free(packet);
}

static bool has_packet(const nst_device *device) {
  return const_tun_of(device)->reads > 0;
}

static nst_packet *receive(nst_device *device) {
  nst_tun *self = tun_of(device);
  size_t link = nst_device_link(device), size = link + device->mtu + 1; /* one that is longer shows itself */
  char *buffer = self->reads > 0 ? nst_hub_scratch(device->hub, size) : NULL;
  while (buffer && self->reads > 0) {
    ssize_t length = read(device->fd, buffer, size);
    device->counters.syscalls++;
    self->reads--;
    if (length > 0) {
      nst_packet *packet = nst_packet_copy(device->hub, buffer, (size_t)length, link);
      if (packet) return packet;
    }
    if (length >= 0) {
      device->counters.rx_dropped++;
    } else if (errno != EINTR) {
      /* Linux answers EBADFD from a TUN device without an interface. An error that stays would be shown for ever; those
      ** of sockets are told once. */
      if (self->suspect && errno != ECONNREFUSED && errno != ECONNRESET) lose(self);
      break;
    }
  }
  self->reads = 0;
  return NULL;
}

static bool is_cut(const nst_device *device) {
  return device->gone;
}

static void close_tun(nst_device *device) {
  nst_tun *self = tun_of(device);
  if (self->pending) nst_packet_free(self->pending);
  self->pending = NULL;
  nst_descriptors_remove(device);
  close(device->fd);
  device->fd = -1;
}

static short events(const nst_device *device) {
  return const_tun_of(device)->pending ? POLLIN | POLLOUT : POLLIN;
}

static void ready(nst_device *device, short what) {
  nst_tun *self = tun_of(device);
  nst_packet *packet = self->pending;
  if (packet && (what & ~POLLIN) != 0) {
    self->pending = NULL;
    if (put(self, packet)) {
      nst_packet_free(packet);
      nst_descriptors_update(device);
      nst_device_room_came(device);
    } else {
      self->pending = packet;
    }
  }
  if ((what & ~POLLOUT) == 0 || device->gone) return;
  self->reads = READS_AT_ONCE;
  self->suspect = (what & (POLLERR | POLLHUP | POLLNVAL)) != 0;
  nst_device_packet_came(device);
}

static const nst_device_kind tun_kind = {"tun", has_room, transmit, receive, has_packet, is_cut, NULL,
                                         close_tun, events, ready};

nst_device *nst_tun_new(nst_hub *hub, int fd, const char *name, uint16_t mtu, nst_medium medium) {
  nst_tun *self = calloc(1, sizeof *self);
  if (self == NULL) {
    close(fd);
    return NULL;
  }
  nst_device_init(&self->device, &tun_kind, hub, mtu, medium);
  self->device.checksum = true; /* the kernel does not take it on trust */
  self->device.fd = fd;
  strncpy(self->name, name, sizeof self->name - 1);
  nst_descriptors_add(&self->device);
  return &self->device;
}

const char *nst_tun_name(const nst_device *device) {
  return device->kind == &tun_kind && const_tun_of(device)->name[0] ? const_tun_of(device)->name : NULL;
}
