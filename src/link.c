#include "link.h"

#include <stdlib.h>
#include <string.h>

/* Between two polls; what is more is counted, and not told. */
#define EVENTS_AT_MOST 262144

typedef struct nst_link_end {
  nst_device device; /* first */
  nst_lab_link *link; /* counted; NULL: closed */
  int side;
} nst_link_end;

typedef struct nst_flight {
  nst_link link;  /* in ordered or hasty */
  nst_link waits; /* in waiting */
  nst_time starts, arrives;
  uint64_t number;
  nst_packet *packet;
} nst_flight;

static nst_link_end *end_of(nst_device *device) {
  return (nst_link_end *)(void *)device;
}

static const nst_link_end *const_end_of(const nst_device *device) {
  return (const nst_link_end *)(const void *)device;
}

static nst_time clock_of(const nst_lab_link *link) {
  return link->hub->origin + link->hub->now;
}

const char *nst_drop_text(nst_drop drop) {
  static const char *const texts[] = {"none", "closed", "down", "partition", "mtu", "loss", "queue", "codel",
                                      "limit", "memory"};
  return texts[drop];
}

/* ---- arriving ---- */

void nst_lane_look(const nst_lab_link *link, nst_lane *lane) {
  nst_time now = clock_of(link);
  while (!nst_list_empty(&lane->waiting)) {
    nst_flight *flight = nst_holder(lane->waiting.next, nst_flight, waits);
    if (flight->starts > now) break;
    nst_list_remove(&flight->waits);
    lane->waiting_count--;
    lane->waiting_bytes -= flight->packet->length;
  }
}

static nst_flight *next_flight(const nst_lane *lane) {
  nst_flight *a = nst_list_empty(&lane->ordered) ? NULL : nst_holder(lane->ordered.next, nst_flight, link);
  nst_flight *b = nst_list_empty(&lane->hasty) ? NULL : nst_holder(lane->hasty.next, nst_flight, link);
  if (a == NULL || b == NULL) return a ? a : b;
  if (a->arrives != b->arrives) return a->arrives < b->arrives ? a : b;
  return a->number < b->number ? a : b;
}

static void land(nst_lab_link *link, int side, nst_flight *flight) {
  nst_lane *lane = &link->lanes[side];
  nst_device *to = link->ends[!side];
  nst_packet *packet = flight->packet;
  nst_list_remove(&flight->link);
  nst_memory_free(&link->hub->pool, flight);
  lane->in_flight--;
  if (to == NULL) {
    lane->counters.dropped[NST_DROP_CLOSED]++;
    nst_packet_free(packet);
    return;
  }
  lane->counters.delivered++;
  lane->counters.delivered_bytes += packet->length;
  nst_list_append(&lane->arrived, &packet->link);
  lane->arrived_count++;
  nst_device_packet_came(to);
}

/* Lets arrive what is due, of both lanes in the order of time, and sets the timer for the next. */
static void run(nst_lab_link *link) {
  for (;;) {
    nst_flight *there = next_flight(&link->lanes[0]), *back = next_flight(&link->lanes[1]);
    int side = there == NULL || (back != NULL && back->arrives < there->arrives);
    nst_flight *flight = side ? back : there;
    if (flight == NULL || flight->arrives > clock_of(link)) {
      (void)nst_heap_set(&link->hub->timers, &link->timer, flight ? flight->arrives - link->hub->origin : NST_NEVER);
      return;
    }
    nst_lane_look(link, &link->lanes[side]);
    land(link, side, flight);
  }
}

static void due(nst_timer *timer) {
  run(nst_holder(timer, nst_lab_link, timer));
}

/* ---- entering ---- */

/* The time at which a packet that starts at the earliest moment is sent; exact, however many follow each other. */
static nst_time serialise(nst_lane *lane, nst_time now, size_t length, nst_time *starts) {
  uint64_t rate = lane->rules.rate, parts, early;
  if (lane->free_at < now) {
    lane->free_at = now;
    lane->early = 0;
  }
  *starts = lane->free_at;
  if (rate == 0) return lane->free_at;
  parts = (uint64_t)length * 8 * (uint64_t)NST_SECOND;
  early = lane->early < rate ? lane->early : 0; /* the rate may have changed */
  if (parts <= early) {
    lane->early = early - parts;
    return lane->free_at;
  }
  parts -= early;
  lane->free_at += (nst_time)((parts + rate - 1) / rate);
  lane->early = (rate - parts % rate) % rate;
  return lane->free_at;
}

static bool flaps(const nst_lane_rules *rules, nst_time now) {
  if (rules->flap_down == 0) return false;
  return (now - rules->flap_since) % (rules->flap_up + rules->flap_down) >= rules->flap_up;
}

bool nst_lane_bar(nst_lane *lane, nst_filter *filter, bool source) {
  nst_barrier *barrier = malloc(sizeof *barrier);
  if (barrier == NULL) return false;
  barrier->next = lane->barriers;
  barrier->filter = filter;
  barrier->source = source;
  filter->references++;
  lane->barriers = barrier;
  return true;
}

void nst_lane_unbar(nst_lane *lane) {
  nst_barrier *barrier;
  while ((barrier = lane->barriers) != NULL) {
    lane->barriers = barrier->next;
    nst_filter_release(barrier->filter);
    free(barrier);
  }
}

static bool parted(const nst_lane *lane, const nst_packet *packet, size_t link) {
  const nst_barrier *barrier;
  if (lane->rules.cut) return true;
  for (barrier = lane->barriers; barrier; barrier = barrier->next) {
    if (nst_filter_matches(barrier->filter, packet->data, packet->length, link, barrier->source)) return true;
  }
  return false;
}

/* Whether a packet may join those that wait to be sent. */
static nst_drop queue(nst_lane *lane, nst_time now, size_t length) {
  const nst_lane_rules *rules = &lane->rules;
  if (rules->rate == 0 || lane->free_at <= now) {
    if (rules->codel.on) (void)nst_codel_drops(&lane->codel, &rules->codel, now, 0, true);
    return NST_DROP_NONE;
  }
  if (lane->waiting_count >= rules->queue) return NST_DROP_QUEUE;
  if (rules->queue_bytes && lane->waiting_bytes + length > rules->queue_bytes) return NST_DROP_QUEUE;
  if (!rules->codel.on) return NST_DROP_NONE;
  return nst_codel_drops(&lane->codel, &rules->codel, lane->free_at, lane->free_at - now, lane->waiting_count == 0)
    ? NST_DROP_CODEL : NST_DROP_NONE;
}

static void flip(nst_packet *packet, uint32_t place) {
  uint64_t bit = ((uint64_t)place * packet->length * 8) >> 32;
  packet->data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
}

/* Takes the packet over. What it is dropped for, or when it arrives. */
static nst_drop enter(nst_lab_link *link, int side, nst_packet *packet, uint64_t number, const nst_fate *fate,
                      nst_time *arrival) {
  nst_lane *lane = &link->lanes[side];
  nst_time now = clock_of(link);
  nst_drop cause = NST_DROP_LOSS;
  nst_flight *flight = NULL;
  nst_list_init(&packet->link);
  nst_lane_look(link, lane);
  if (!fate->lost) cause = queue(lane, now, packet->length);
  if (cause == NST_DROP_NONE && lane->in_flight + lane->arrived_count >= NST_LANE_LIMIT) cause = NST_DROP_LIMIT;
  if (cause == NST_DROP_NONE) {
    flight = nst_memory_alloc(&link->hub->pool, NULL, sizeof *flight);
    if (flight == NULL) cause = NST_DROP_MEMORY;
  }
  if (cause != NST_DROP_NONE) {
    lane->counters.dropped[cause]++;
    nst_packet_free(packet);
    return cause;
  }
  if (fate->corrupt) {
    flip(packet, fate->place);
    lane->counters.corrupted++;
  }
  flight->packet = packet;
  flight->number = number;
  flight->arrives = serialise(lane, now, packet->length, &flight->starts);
  nst_list_init(&flight->waits);
  if (flight->starts > now) {
    nst_list_append(&lane->waiting, &flight->waits);
    lane->waiting_count++;
    lane->waiting_bytes += packet->length;
  }
  if (fate->reorder) {
    lane->counters.reordered++;
    nst_list_append(&lane->hasty, &flight->link);
  } else {
    flight->arrives += fate->delay;
    if (!nst_list_empty(&lane->ordered)) {
      nst_time last = nst_holder(lane->ordered.previous, nst_flight, link)->arrives;
      if (flight->arrives < last) flight->arrives = last;
    }
    nst_list_append(&lane->ordered, &flight->link);
  }
  if (flight->arrives > NST_LATEST) flight->arrives = NST_LATEST;
  lane->in_flight++;
  *arrival = flight->arrives;
  return NST_DROP_NONE;
}

static nst_crossing *record(nst_lab_link *link, int side, const nst_packet *packet) {
  nst_crossing *event = NULL;
  if (!link->tracing) return NULL;
  if (link->hub->crossed_count < EVENTS_AT_MOST) event = malloc(sizeof *event + packet->length);
  if (event == NULL) {
    link->lanes[side].counters.untold++;
    return NULL;
  }
  memset(event, 0, sizeof *event);
  event->time = clock_of(link);
  event->lane = side;
  event->length = packet->length;
  memcpy(event->data, packet->data, packet->length);
  event->of = link;
  nst_list_append(&link->hub->crossed, &event->link);
  link->hub->crossed_count++;
  return event;
}

void nst_crossing_forget(nst_crossing *event) {
  nst_list_remove(&event->link);
  event->of->hub->crossed_count--;
  free(event);
}

void nst_lab_link_mute(nst_lab_link *link) {
  nst_link *at, *next;
  if (!link->tracing) return;
  link->tracing = false;
  for (at = link->hub->crossed.next; at != &link->hub->crossed; at = next) {
    nst_crossing *event = nst_holder(at, nst_crossing, link);
    next = at->next;
    if (event->of == link) nst_crossing_forget(event);
  }
}

static void transmit(nst_device *device, nst_packet *packet) {
  nst_lab_link *link = end_of(device)->link;
  int side = end_of(device)->side;
  nst_lane *lane = &link->lanes[side];
  uint64_t number = lane->counters.sent++;
  nst_crossing *event = record(link, side, packet), unseen;
  nst_drop cause = NST_DROP_NONE;
  nst_packet *copy = NULL;
  nst_fate fate;
  if (event == NULL) event = &unseen;
  link->hub->crossings++;
  lane->counters.sent_bytes += packet->length;
  if (link->ends[!side] == NULL) cause = NST_DROP_CLOSED;
  else if (lane->rules.down || flaps(&lane->rules, clock_of(link))) cause = NST_DROP_DOWN;
  else if (parted(lane, packet, nst_device_link(device))) cause = NST_DROP_PARTITION;
  else if (lane->rules.mtu && packet->length > lane->rules.mtu + nst_device_link(device)) cause = NST_DROP_MTU;
  if (cause != NST_DROP_NONE) {
    lane->counters.dropped[cause]++;
    event->cause = cause;
    nst_packet_free(packet);
    return;
  }
  fate = nst_weather_draw(&lane->rules.weather, &lane->sky, number, false);
  if (fate.duplicate) {
    copy = nst_packet_copy(link->hub, packet->data, packet->length, nst_device_link(device));
    lane->counters.duplicated++;
    if (copy) copy->switches = packet->switches;
    if (copy == NULL) lane->counters.dropped[NST_DROP_MEMORY]++;
  }
  event->cause = enter(link, side, packet, number, &fate, &event->arrival);
  event->corrupted = event->cause == NST_DROP_NONE && fate.corrupt;
  event->reordered = event->cause == NST_DROP_NONE && fate.reorder;
  event->duplicated = fate.duplicate;
  event->copy_cause = fate.duplicate ? NST_DROP_MEMORY : NST_DROP_NONE;
  if (copy) {
    fate = nst_weather_draw(&lane->rules.weather, &lane->sky, number, true);
    event->copy_cause = enter(link, side, copy, number, &fate, &event->copy_arrival);
  }
  run(link);
}

/* ---- the ends as devices ---- */

static bool has_room(const nst_device *device) {
  (void)device;
  return true;
}

static bool has_packet(const nst_device *device) {
  const nst_link_end *end = const_end_of(device);
  return end->link != NULL && !nst_list_empty(&end->link->lanes[!end->side].arrived);
}

static nst_packet *receive(nst_device *device) {
  nst_link_end *end = end_of(device);
  nst_lane *lane = &end->link->lanes[!end->side];
  nst_link *link = nst_list_pop(&lane->arrived);
  if (link) lane->arrived_count--;
  return link ? nst_holder(link, nst_packet, link) : NULL;
}

static bool is_cut(const nst_device *device) {
  const nst_link_end *end = const_end_of(device);
  return end->link == NULL || (end->link->ends[!end->side] == NULL && end->link->lanes[!end->side].in_flight == 0);
}

static void mtu_chosen(nst_device *device) {
  const nst_link_end *end = end_of(device);
  if (end->link->ends[!end->side]) nst_device_choose_mtu(end->link->ends[!end->side], device->mtu);
}

static void close_end(nst_device *device) {
  nst_link_end *end = end_of(device);
  nst_lab_link *link = end->link;
  nst_packet *packet;
  while ((packet = receive(device)) != NULL) {
    device->counters.rx_dropped++;
    nst_packet_free(packet);
  }
  end->link = NULL;
  link->ends[end->side] = NULL;
  if (link->ends[!end->side]) nst_device_packet_came(link->ends[!end->side]); /* who waits there learns of it */
  nst_lab_link_release(link);
}

static const nst_device_kind link_kind = {"link", has_room, transmit, receive, has_packet, is_cut, mtu_chosen,
                                          close_end, NULL, NULL, NULL};

nst_lab_link *nst_lab_link_new(nst_hub *hub, uint16_t mtu, nst_medium medium, bool checksum, uint64_t seed,
                               nst_device *ends[2]) {
  nst_lab_link *link = calloc(1, sizeof *link);
  nst_link_end *both[2];
  nst_random seeds;
  int side;
  both[0] = calloc(1, sizeof *both[0]);
  both[1] = calloc(1, sizeof *both[1]);
  if (link == NULL || both[0] == NULL || both[1] == NULL) {
    free(link);
    free(both[0]);
    free(both[1]);
    return NULL;
  }
  nst_random_from_seed(&seeds, seed);
  link->references = 3;
  link->hub = nst_hub_retain(hub);
  link->timer.due = due;
  link->id = ++hub->ids;
  for (side = 0; side < 2; side++) {
    nst_lane *lane = &link->lanes[side];
    uint64_t high = nst_random_u32(&seeds);
    nst_sky_init(&lane->sky, high << 32 | nst_random_u32(&seeds));
    lane->rules.queue = 1000;
    nst_list_init(&lane->ordered);
    nst_list_init(&lane->hasty);
    nst_list_init(&lane->waiting);
    nst_list_init(&lane->arrived);
    nst_device_init(&both[side]->device, &link_kind, hub, mtu, medium);
    both[side]->device.checksum = checksum;
    both[side]->link = link;
    both[side]->side = side;
    ends[side] = link->ends[side] = &both[side]->device;
  }
  return link;
}

void nst_lab_link_release(nst_lab_link *link) {
  nst_hub *hub = link->hub;
  int side;
  if (--link->references > 0) return;
  nst_heap_remove(&hub->timers, &link->timer);
  for (side = 0; side < 2; side++) {
    nst_flight *flight;
    while ((flight = next_flight(&link->lanes[side])) != NULL) {
      nst_list_remove(&flight->link);
      nst_packet_free(flight->packet);
      nst_memory_free(&hub->pool, flight);
    }
    nst_packets_free(&link->lanes[side].arrived);
    nst_lane_unbar(&link->lanes[side]);
  }
  free(link);
  nst_hub_release(hub);
}
