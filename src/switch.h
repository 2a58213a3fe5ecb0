/*
** A switch: an Ethernet bridge that learns (IEEE 802.1D), without a spanning tree. Its ports are devices. It is never
** handed a frame: a device tells that some came, and the switch takes them in its turn, its ports one frame each in
** the order in which they got work.
**
** What multiplies frames must bound them: a port has a queue, and a frame passes so many switches at most. So a loop of
** switches comes to an end by itself, also where no time passes.
*/
#ifndef NST_SWITCH_H
#define NST_SWITCH_H

#include "device.h"
#include "stations.h"

/* Frames that may wait at a port. */
#define NST_SWITCH_QUEUE 4096

/* The first are of the port where the frame came in, the rest of one where it was to go out. */
#define NST_SWITCH_DROPS(X)                                                                                            \
  X(SHORT, "short") X(RESERVED, "reserved") X(FILTERED, "filtered") X(LOOP, "loop") X(QUEUE, "queue")                  \
  X(FULL, "full") X(MTU, "mtu") X(CHECKSUM, "checksum") X(MEMORY, "memory")

#define NST_SWITCH_DROP_NAME(name, text) NST_SWITCH_DROP_##name,
typedef enum nst_switch_drop { NST_SWITCH_DROPS(NST_SWITCH_DROP_NAME) NST_SWITCH_DROP_COUNT } nst_switch_drop;
#undef NST_SWITCH_DROP_NAME

/* Of a port, and of all that there were. Each frame is forwarded to one port, flooded to all others, or dropped. */
typedef struct nst_switch_counters {
  uint64_t received, forwarded, flooded; /* of a port: those that came in there */
  uint64_t sent;
  uint64_t dropped[NST_SWITCH_DROP_COUNT];
} nst_switch_counters;

typedef struct nst_switch {
  nst_hub *hub;    /* counted */
  nst_job job;
  nst_link ports;  /* nst_switch_port.link, by number */
  size_t port_count;
  nst_link busy;   /* nst_switch_port.busy */
  nst_stations stations;
  nst_switch_counters counters;
  unsigned id;
  char name[64];
} nst_switch;

struct nst_switch_port {
  nst_switch *owner;
  nst_device_user user;
  nst_device *device; /* counted */
  unsigned number;    /* from 1 */
  nst_link link, busy;
  nst_link stations;  /* nst_station.behind */
  size_t waiting;     /* frames, as far as the device told */
  nst_switch_counters counters;
};

/* name NULL: "switchN". NULL: no memory. */
nst_switch *nst_switch_new(nst_hub *hub, const char *name, nst_time ageing, size_t table_size);
/* Detaches all devices. */
void nst_switch_free(nst_switch *self);
/* An Ethernet device that nobody has, as the port with the lowest free number. NULL: no memory. */
nst_switch_port *nst_switch_attach(nst_switch *self, nst_device *device);
void nst_switch_detach(nst_switch_port *port);
/* NULL: there is none. */
nst_switch_port *nst_switch_port_numbered(const nst_switch *self, unsigned number);
nst_switch_port *nst_switch_port_of(const nst_switch *self, const nst_device *device);
const char *nst_switch_drop_text(nst_switch_drop drop);

#endif
