#include "descriptors.h"

#include <poll.h>
#include <time.h>

#include "heap.h"
#include "interface.h"
#include "stack.h"

/* How long a loop that does not come to wait leaves the descriptors alone. */
#define GLANCE_EVERY (100 * NST_MICROSECOND)
/* Without memory to ask for all descriptors at once. */
#define LONGEST_BLIND_WAIT (10 * NST_MILLISECOND)

nst_time nst_monotonic(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (nst_time)now.tv_sec * NST_SECOND + now.tv_nsec;
}

static nst_device *device_at(const nst_link *link) {
  return nst_holder(link, nst_device, descriptor);
}

/* What somebody waits for (poll.h); 0: nobody does. */
static short wanted(const nst_device *device) {
  short events = device->kind->events(device);
  if (device->user) return events;
  if (nst_list_empty(&device->readers)) events &= ~POLLIN;
  if (nst_list_empty(&device->writers)) events &= ~POLLOUT;
  return events;
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

void nst_descriptors_update(nst_device *device) {
  short events;
  if (device->fd < 0) return;
  events = device->gone ? 0 : wanted(device); /* a device that is gone would be ready for ever */
  nst_pollset_watch(&device->hub->bell.set, device->fd, &device->bell_events, events);
  if (device->user && device->user->pollset) {
    nst_pollset_watch(device->user->pollset, device->fd, &device->user_events, events);
  }
}

void nst_descriptors_leave(nst_device *device) {
  if (device->fd < 0 || device->user->pollset == NULL) return;
  nst_pollset_watch(device->user->pollset, device->fd, &device->user_events, 0);
}

/* An open file stays in an epoll instance for as long as any descriptor of it is open: a child's, or one that was given
** to us to duplicate. */
void nst_descriptors_remove(nst_device *device) {
  nst_pollset_watch(&device->hub->bell.set, device->fd, &device->bell_events, 0);
  nst_list_remove(&device->descriptor);
}

void nst_descriptors_rewatch(nst_hub *hub) {
  nst_link *link;
  for (link = hub->descriptors.next; link != &hub->descriptors; link = link->next) {
    device_at(link)->bell_events = 0;
    nst_descriptors_update(device_at(link));
  }
}

nst_error nst_descriptors_gather(nst_stack *stack) {
  nst_link *link;
  bool fresh;
  nst_error error = nst_pollset_open(&stack->pollset, &fresh);
  if (error != NST_OK || !fresh) return error;
  for (link = stack->interfaces.next; link != &stack->interfaces; link = link->next) {
    nst_device *device = nst_holder(link, nst_interface, link)->device;
    if (device == NULL) continue;
    device->user_events = 0;
    nst_descriptors_update(device);
  }
  return NST_OK;
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
    short events = device->gone ? 0 : wanted(device);
    if (events == 0) continue;
    (*all)[count].fd = device->fd;
    (*all)[count].events = events;
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
  if (count == 0 && timeout == 0) return;
  if (all == NULL && timeout > LONGEST_BLIND_WAIT) timeout = LONGEST_BLIND_WAIT;
  left.tv_sec = (time_t)(timeout / NST_SECOND);
  left.tv_nsec = (long)(timeout % NST_SECOND);
  ready = ppoll(all, count, &left, NULL);
  hub->looked = nst_monotonic();
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
  if (nst_list_empty(&hub->descriptors) || nst_monotonic() - hub->looked < GLANCE_EVERY) return;
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
    if (wanted(device) == 0) continue;
    any = true;
    *alive = !device->gone;
  }
  return any;
}
