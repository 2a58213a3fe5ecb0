/*
** Devices carry whole packets between a stack and something else. A kind of device is a table of functions; what is
** here serves them all: attaching, counting, and telling the user (or whoever drives the device by hand) that packets
** have come or that there is room again. A device takes a packet or refuses it; it never blocks, and
** never delivers while it is being handed one.
*/
#ifndef NST_DEVICE_H
#define NST_DEVICE_H

#include "errors.h"
#include "packet.h"

typedef enum nst_medium { NST_MEDIUM_IP, NST_MEDIUM_ETHERNET } nst_medium;

typedef struct nst_device_kind {
  const char *name;
  /* Whether transmit would take a packet now. */
  bool (*has_room)(const nst_device *device);
  /* Takes the packet over; called only when there is room. */
  void (*transmit)(nst_device *device, nst_packet *packet);
  /* The next packet for the attached side, or NULL. */
  nst_packet *(*receive)(nst_device *device);
  bool (*has_packet)(const nst_device *device);
  /* Whether nothing can come any more: the other side is gone. */
  bool (*is_cut)(const nst_device *device);
  /* NULL, or is told that the stack's mtu was taken, for whatever else has to have the same. */
  void (*mtu_chosen)(nst_device *device);
  /* Drops what it holds; nothing is called afterwards. */
  void (*close)(nst_device *device);
  /* NULL both, or of a device with a file descriptor: what to wait for (poll.h), and what came of that. */
  short (*events)(const nst_device *device);
  void (*ready)(nst_device *device, short events);
  /* NULL, or gives the kernel what was collected since the device was put into hub->unwritten. */
  void (*flush)(nst_device *device);
} nst_device_kind;

/* Whoever has a device: a stack's interface, a switch's port. Is told while packets are on their way, so it only takes
** note, and looks at the device later. */
typedef struct nst_device_user {
  void (*packet_came)(struct nst_device_user *user);
  void (*room_came)(struct nst_device_user *user);
  void (*closed)(struct nst_device_user *user); /* the device is: the user lets go of it */
  nst_pollset *pollset; /* waits for the device's descriptor as well; NULL: the hub's bell alone does */
} nst_device_user;

typedef struct nst_device_counters {
  uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes; /* as the attached side sees it */
  uint64_t rx_dropped, tx_dropped;                     /* no room, closed, too long, refused by the kernel */
  uint64_t syscalls;                                   /* of a device with a file descriptor */
} nst_device_counters;

struct nst_device {
  const nst_device_kind *kind;
  unsigned references;      /* Lua's object, the user, the other end of a pipe */
  nst_hub *hub;
  uint16_t mtu;
  bool mtu_named;           /* the user said so; else the first stack it is attached to says */
  nst_medium medium;
  bool checksum;            /* compute and check transport checksums on this device */
  bool open;
  bool gone;                /* what was on the other side of the descriptor is no more: packets are dropped */
  int fd;                   /* -1: none; a device with one makes the real clock the default */
  nst_link descriptor;      /* in hub->descriptors */
  nst_link unwritten;       /* in hub->unwritten */
  short bell_events, user_events; /* what the pollsets of the hub's bell and of the user wait for (descriptors.c) */
  nst_device_user *user;    /* not counted; NULL while not attached */
  nst_link readers;         /* requests that wait for a packet, when driven by hand */
  nst_link writers;         /* requests that wait for room */
  nst_link outgoing;        /* in hub->outgoing (device in Lua) */
  unsigned id;              /* by which Lua finds the object again */
  nst_device_counters counters;
};

/* Bytes of link-layer header in front of an IP packet. */
size_t nst_device_link(const nst_device *device);

/* mtu 0: not named. */
void nst_device_init(nst_device *device, const nst_device_kind *kind, nst_hub *hub, uint16_t mtu, nst_medium medium);
/* Takes this mtu if the device has none of its own. */
void nst_device_choose_mtu(nst_device *device, uint16_t mtu);
nst_device *nst_device_retain(nst_device *device);
/* Closes the device when nobody holds it any more. */
void nst_device_release(nst_device *device);
void nst_device_close(nst_device *device);
/* Gives the device to a user, who then holds it and is told of packets that lie there already; and takes it back. */
void nst_device_attach(nst_device *device, nst_device_user *user);
void nst_device_detach(nst_device *device);

/* Hands over a packet, which the device then owns; counts it. NST_FULL or NST_CLOSED: it is still the caller's. */
nst_error nst_device_transmit(nst_device *device, nst_packet *packet);
/* The next received packet, the caller's from now on; NULL when there is none. */
nst_packet *nst_device_receive(nst_device *device);
bool nst_device_has_room(const nst_device *device);
bool nst_device_has_packet(const nst_device *device);
bool nst_device_is_cut(const nst_device *device);

/* For the kinds: a packet came in, room came free. Whoever waits for that is told. */
void nst_device_packet_came(nst_device *device);
void nst_device_room_came(nst_device *device);

/* A pair of pipe ends, each with one reference. false: no memory. */
bool nst_pipe_new(nst_hub *hub, uint16_t mtu, nst_medium medium, size_t capacity, bool checksum, nst_device *ends[2]);

/* A device in Lua: what the stack sends waits in a queue until nst_callback_device_take hands it to the transmit function. */
nst_device *nst_callback_device_new(nst_hub *hub, uint16_t mtu, nst_medium medium);
nst_packet *nst_callback_device_take(nst_device *device);
bool nst_is_callback_device(const nst_device *device);
/* A packet for the attached stack. Takes the packet over, also when it fails. */
nst_error nst_callback_device_input(nst_device *device, nst_packet *packet);

/* NULL: it has no name, or is no such device. */
const char *nst_tun_name(const nst_device *device);

#endif
