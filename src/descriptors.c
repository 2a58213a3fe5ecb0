#include "descriptors.h"

#include <poll.h>
#include <time.h>

#include "heap.h"

/* How long a loop that does not come to wait leaves the descriptors alone. */
#define GLANCE_EVERY (100 * NST_MICROSECOND)
/* Without memory to ask for all descriptors at once. */
#define LONGEST_BLIND_WAIT (10 * NST_MILLISECOND)

static nst_time monotonic(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (nst_time)now.tv_sec * NST_SECOND + now.tv_nsec;
}

static nst_device *device_at(const nst_link *link) {
  return nst_holder(link, nst_device, descriptor);
}

void nst_descriptors_add(nst_device *device) {
  nst_list_append(&device->hub->descriptors, &device->descriptor);
}

void nst_descriptors_flush(nst_hub *hub) {
  nst_link *link;
  while ((link = nst_list_pop(&hub->unwritten)) != NULL) {
    nst_device *device = nst_holder(link, nst_device, unwritten);
    device->kind->flush(device);
  }
}

static bool is_wanted(const nst_device *device) {
  return device->interface || !nst_list_empty(&device->readers) || !nst_list_empty(&device->writers);
}

static void tell(nst_device *device, short events) {
  device->counters.syscalls++;
  if (events != 0) device->kind->ready(device, events);
}

/* The descriptors that somebody waits for, and how many; *all is NULL when memory ran out. */
static nfds_t collect(nst_hub *hub, struct pollfd **all) {
  nst_link *link;
  size_t count = 1; /* an array of none is no failure */
  for (link = hub->descriptors.next; link != &hub->descriptors; link = link->next) count++;
  *all = (struct pollfd *)(void *)nst_hub_scratch(hub, count * sizeof **all);
  count = 0;
  if (*all == NULL) return 0;
  for (link = hub->descriptors.next; link != &hub->descriptors; link = link->next) {
    const nst_device *device = device_at(link);
    if (!is_wanted(device) || device->gone) continue; /* a device that is gone would be ready for ever */
    (*all)[count].fd = device->fd;
    (*all)[count].events = device->kind->events(device);
    (*all)[count++].revents = 0;
  }
  return count;
}

void nst_descriptors_wait(nst_hub *hub, nst_time timeout) {
  struct timespec left = {0, 0};
  struct pollfd *all;
  nst_link *link, *next;
  nfds_t count = collect(hub, &all);
  int ready;
  if (all == NULL && timeout > LONGEST_BLIND_WAIT) timeout = LONGEST_BLIND_WAIT;
  left.tv_sec = (time_t)(timeout / NST_SECOND);
  left.tv_nsec = (long)(timeout % NST_SECOND);
  ready = ppoll(all, count, &left, NULL);
  hub->looked = monotonic();
  /* In the order of `collect`: telling a device changes neither who is wanted nor the list. */
  for (link = hub->descriptors.next; count > 0 && link != &hub->descriptors; link = next) {
    nst_device *device = device_at(link);
    next = link->next;
    if (device->fd != all->fd) continue;
    tell(device, ready > 0 ? all->revents : 0);
    all++;
    count--;
  }
}

void nst_descriptors_glance(nst_hub *hub) {
  if (nst_list_empty(&hub->descriptors) || monotonic() - hub->looked < GLANCE_EVERY) return;
  nst_descriptors_wait(hub, 0);
}

void nst_descriptors_look(nst_device *device) {
  struct pollfd one;
  if (device->fd < 0 || device->gone) return;
  one.fd = device->fd;
  one.events = (short)(POLLIN | device->kind->events(device));
  one.revents = 0;
  (void)poll(&one, 1, 0);
  tell(device, one.revents);
}

bool nst_descriptors_any(const nst_hub *hub, bool *alive) {
  const nst_link *link;
  bool any = false;
  *alive = false;
  for (link = hub->descriptors.next; link != &hub->descriptors && !*alive; link = link->next) {
    const nst_device *device = device_at(link);
    if (!is_wanted(device)) continue;
    any = true;
    *alive = !device->gone;
  }
  return any;
}
