/*
** The hub: what the stacks, devices and tickets of one Lua state share. It knows who has work, when the
** next timer is due and which awaited tickets are done, so that driving a thousand idle stacks costs nothing.
** It is counted: the Lua state, each stack and each device hold it, so it goes when the last of them does.
*/
#ifndef NST_HUB_H
#define NST_HUB_H

#include "heap.h"
#include "list.h"
#include "memory.h"
#include "pollset.h"
#include "types.h"

/* bell.c */
typedef struct nst_bell {
  nst_pollset set;
  int timer;     /* a timerfd in it; -1 */
  bool calls;    /* in their place a function of Lua's tells the loop (nst_bell_heed) */
  nst_time base; /* add to run time to get that of the monotonic clock */
  nst_time at;   /* run time at which the timer is set to ring; 0: at once, NST_NEVER */
} nst_bell;

/* What may have work to do: a stack, a switch. */
typedef struct nst_job {
  nst_link link; /* in hub->runnable */
  /* Does its share; puts it back, behind the others, when there is more. */
  void (*run)(struct nst_job *job);
} nst_job;

struct nst_hub {
  unsigned references;
  nst_pool pool;
  nst_link stacks;    /* nst_stack.link: all open ones, oldest first */
  nst_link runnable;  /* nst_job.link: those with work to do now, in the order in which it came */
  nst_link ready;     /* nst_request.link: done, watched by a task, and not yet told to it */
  nst_link woken;     /* nst_stack.woken: stacks whose on_wake function is to be called */
  nst_link outgoing;  /* nst_device.outgoing: devices in Lua that have packets to hand over */
  nst_link traced;    /* nst_stack.traced: stacks with trace events to deliver */
  nst_link crossed;   /* nst_crossing.link: what links have to tell of packets, in the order in which they came */
  size_t crossed_count;
  uint64_t jobs, crossings; /* done so far; of packets, those that entered a link */
  char *scratch;      /* where received bytes become one string */
  size_t scratch_size;
  nst_heap timers;    /* nst_stack.timer, nst_lab_link.timer, in run time */
  nst_time origin;    /* add to run time: a clock that goes on from run to run, by which links count */
  nst_time now;       /* run time: since the current run began */
  unsigned run;       /* number of the run; stacks compare it with theirs to see that the time base changed */
  unsigned names, switch_names; /* of those made so far, for "stackN", "switchN" */
  unsigned ids;       /* of Lua objects that C must find again */
  size_t unsettled;   /* closed connections whose data or FIN is not acknowledged yet */
  nst_link descriptors; /* nst_device.descriptor: open devices that have a file descriptor */
  nst_link unwritten; /* nst_device.unwritten: those that have packets for the kernel */
  nst_time looked;    /* by the monotonic clock: when their descriptors were last asked for */
  nst_bell bell;
};

nst_hub *nst_hub_new(void);
/* At least `size` bytes, until the next call; NULL: no memory. */
char *nst_hub_scratch(nst_hub *hub, size_t size);
nst_hub *nst_hub_retain(nst_hub *hub);
void nst_hub_release(nst_hub *hub);
/* A clock that goes on from run to run. */
static inline nst_time nst_hub_clock(const nst_hub *hub) {
  return hub->origin + hub->now;
}
/* A new run: its time starts at 0, and every stack's clock goes on from where it stands. */
void nst_hub_begin_run(nst_hub *hub);
/*
** Polls what has work at run time `now`, until nothing has or a fair share was done. Returns true when there is
** more to do at `now`.
*/
bool nst_hub_drive(nst_hub *hub, nst_time now);
/* Run time of the next timer of any stack; NST_NEVER when there is none. */
nst_time nst_hub_next(nst_hub *hub);
/* The number of the next request that is done, which is watched no more; 0: there is none. */
unsigned nst_hub_ready(nst_hub *hub);
/* Whether functions of the user's are to be called: devices', traces', links'. */
bool nst_hub_has_calls(const nst_hub *hub);
/* Whether these timers are all of connections in TIME_WAIT, which nobody waits for. Looks at each stack that has one. */
bool nst_hub_only_time_wait(const nst_hub *hub);

#endif
