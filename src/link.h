/*
** A link of the lab: two ends, and weather for what goes from each to the other. It never refuses a packet: a queue
** that is full drops. All that becomes of a packet is decided as it enters, so changes touch later packets only, and
** what is under way arrives, also when the link goes down.
**
** An end holds at most NST_LANE_LIMIT packets for the other: under way, and arrived and not yet taken.
**
** A packet waits until those before it are sent, takes its bytes as carried (with an Ethernet's header) over the rate,
** and then its delay. A delay never lets a packet overtake another; reordering does: the packet goes without delay.
*/
#ifndef NST_LAB_LINK_H
#define NST_LAB_LINK_H

#include "codel.h"
#include "device.h"
#include "filter.h"
#include "weather.h"

#define NST_LANE_LIMIT 1048576

typedef enum nst_drop {
  NST_DROP_NONE, NST_DROP_CLOSED, NST_DROP_DOWN, NST_DROP_PARTITION, NST_DROP_MTU, NST_DROP_LOSS, NST_DROP_QUEUE,
  NST_DROP_CODEL, NST_DROP_LIMIT, NST_DROP_MEMORY, NST_DROP_COUNT
} nst_drop;

typedef struct nst_lane_rules {
  nst_weather weather;
  uint64_t rate;        /* bits per second; 0: sent at once */
  uint64_t queue;       /* packets that may wait, beside the one being sent */
  uint64_t queue_bytes; /* 0: any */
  nst_codel_rules codel;
  uint32_t mtu;         /* longer packets are dropped; 0: any */
  bool down, cut;       /* cut: by a partition */
  nst_time flap_up, flap_down; /* up for so long, then down, again and again; flap_down 0: not */
  nst_time flap_since;
} nst_lane_rules;

typedef struct nst_lane_counters {
  uint64_t sent, sent_bytes, delivered, delivered_bytes, duplicated, corrupted, reordered, untold;
  uint64_t dropped[NST_DROP_COUNT];
} nst_lane_counters;

typedef struct nst_barrier {
  struct nst_barrier *next;
  nst_filter *filter; /* counted */
  bool source;
} nst_barrier;

/* From one end to the other. */
typedef struct nst_lane {
  nst_lane_rules rules;
  nst_barrier *barriers;
  nst_lane_counters counters;
  nst_sky sky;
  nst_codel codel;
  nst_link ordered, hasty; /* flights, earliest first: those that are delayed, those reordered */
  nst_link waiting;        /* flights that are not being sent yet */
  size_t waiting_count, waiting_bytes, in_flight, arrived_count;
  nst_time free_at;        /* when the last packet is sent, rounded up */
  uint64_t early;          /* it is sent so many parts of a nanosecond before, in 1/rate */
  nst_link arrived;        /* packets */
} nst_lane;

typedef struct nst_crossing {
  nst_link link; /* in hub->crossed */
  struct nst_lab_link *of; /* not counted: nst_lab_link_mute */
  nst_time time, arrival, copy_arrival;
  nst_drop cause, copy_cause;
  int lane;
  bool duplicated, corrupted, reordered;
  size_t length;
  char data[];   /* as it entered */
} nst_crossing;

typedef struct nst_lab_link {
  unsigned references; /* Lua's object, each open end */
  nst_hub *hub;
  nst_timer timer;     /* in hub->timers */
  nst_time since;      /* of the hub's clock, from which times are told */
  nst_device *ends[2]; /* NULL: closed */
  nst_lane lanes[2];   /* by the end that sends */
  bool tracing;
  unsigned id;
} nst_lab_link;

/* One reference, and one on each end. NULL: no memory. */
nst_lab_link *nst_lab_link_new(nst_hub *hub, uint16_t mtu, nst_medium medium, bool checksum, uint64_t seed,
                               nst_device *ends[2]);
void nst_lab_link_release(nst_lab_link *link);
/* Drops, from now on, what comes from the addresses (source) or goes to them. false: no memory. */
bool nst_lane_bar(nst_lane *lane, nst_filter *filter, bool source);
void nst_lane_unbar(nst_lane *lane);
/* Brings the count of what waits up to date. */
void nst_lane_look(const nst_lab_link *link, nst_lane *lane);
const char *nst_drop_text(nst_drop drop);
/* Nothing more is told of the link. Whoever had it tell must do this before it lets the link go. */
void nst_lab_link_mute(nst_lab_link *link);
void nst_crossing_forget(nst_crossing *event);

#endif
