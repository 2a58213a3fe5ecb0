#include "bell.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "descriptors.h"
#include "stack.h"

static void close_timer(nst_bell *bell) {
  if (bell->timer >= 0) close(bell->timer);
  bell->timer = -1;
}

bool nst_bell_is_open(nst_hub *hub) {
  if (hub->bell.calls) return true;
  if (nst_pollset_is_open(&hub->bell.set)) return true;
  close_timer(&hub->bell); /* a parent's, from before a fork */
  return false;
}

void nst_bell_close(nst_hub *hub) {
  nst_pollset_close(&hub->bell.set);
  close_timer(&hub->bell);
}

void nst_bell_call(nst_hub *hub, bool calls) {
  if (calls) nst_bell_close(hub);
  hub->bell.calls = calls;
  hub->bell.at = NST_NEVER;
}

nst_error nst_bell_open(nst_hub *hub) {
  nst_bell *bell = &hub->bell;
  short registered = 0;
  bool fresh;
  nst_error error;
  if (nst_bell_is_open(hub)) return NST_OK;
  error = nst_pollset_open(&bell->set, &fresh);
  if (error != NST_OK) return error;
  bell->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  if (bell->timer >= 0) nst_pollset_watch(&bell->set, bell->timer, &registered, POLLIN);
  if (registered == 0) {
    error = errno == ENOMEM ? NST_NO_MEMORY : NST_FULL;
    nst_bell_close(hub);
    return error;
  }
  nst_descriptors_rewatch(hub);
  bell->at = NST_NEVER;
  return NST_OK;
}

/* By the monotonic clock; 1 has passed, 0 would switch the timer off. */
static void set_timer(nst_bell *bell, nst_time at) {
  struct itimerspec when;
  nst_time time = at <= 0 ? 1 : at == NST_NEVER ? 0 : bell->base + at;
  memset(&when, 0, sizeof when);
  when.it_value.tv_sec = (time_t)(time / NST_SECOND);
  when.it_value.tv_nsec = (long)(time % NST_SECOND);
  if (!bell->calls) (void)timerfd_settime(bell->timer, TFD_TIMER_ABSTIME, &when, NULL);
  bell->at = at;
}

/* When the hub wants to be driven; 0: now. Perhaps too early (nst_stack_schedule), never too late. */
static nst_time next(const nst_hub *hub) {
  const nst_timer *first = nst_heap_first(&hub->timers);
  if (!nst_list_empty(&hub->runnable) || !nst_list_empty(&hub->ready) || !nst_list_empty(&hub->outgoing) ||
      !nst_list_empty(&hub->traced)) {
    return 0;
  }
  return first ? first->at : NST_NEVER;
}

void nst_bell_set(nst_hub *hub, nst_time base, nst_time at) {
  nst_bell *bell = &hub->bell;
  nst_time due = next(hub);
  if (!nst_bell_is_open(hub)) return;
  if (at < due) due = at;
  if (bell->at == NST_NEVER && due == NST_NEVER) return;
  /* A timer that is too early and still to come costs less than to set it anew each time: connections put theirs off
  ** with each packet. */
  if (bell->base == base && bell->at <= due && bell->at > 0 && base + bell->at > nst_monotonic()) return;
  bell->base = base;
  set_timer(bell, due);
}

void nst_bell_ring(nst_hub *hub) {
  /* Who is called is so by the next to heed it. */
  if (hub->bell.calls) hub->bell.at = NST_NEVER;
  else if (hub->bell.set.fd >= 0 && hub->bell.at > 0 && nst_bell_is_open(hub)) set_timer(&hub->bell, 0);
}

bool nst_bell_heed(nst_hub *hub) {
  nst_time due;
  if (hub->bell.set.fd < 0 && !hub->bell.calls) return false;
  due = next(hub);
  if (due < hub->bell.at && nst_bell_is_open(hub)) {
    set_timer(&hub->bell, due);
    return hub->bell.calls;
  }
  return false;
}
