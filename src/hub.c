#include "hub.h"

#include <stdlib.h>

#include "bell.h"
#include "descriptors.h"
#include "request.h"
#include "stack.h"

/* So many jobs, then the tasks that became ready get their turn. */
#define JOBS_AT_ONCE 1000

nst_hub *nst_hub_new(void) {
  nst_hub *hub = calloc(1, sizeof *hub);
  if (hub == NULL) return NULL;
  hub->references = 1;
  nst_list_init(&hub->stacks);
  nst_list_init(&hub->runnable);
  nst_list_init(&hub->ready);
  nst_list_init(&hub->woken);
  nst_list_init(&hub->outgoing);
  nst_list_init(&hub->traced);
  nst_list_init(&hub->crossed);
  nst_list_init(&hub->descriptors);
  nst_list_init(&hub->unwritten);
  nst_pollset_init(&hub->bell.set);
  hub->bell.timer = -1;
  return hub;
}

char *nst_hub_scratch(nst_hub *hub, size_t size) {
  if (size > hub->scratch_size) {
    char *scratch = realloc(hub->scratch, size);
    if (scratch == NULL) return NULL;
    hub->scratch = scratch;
    hub->scratch_size = size;
  }
  return hub->scratch;
}

nst_hub *nst_hub_retain(nst_hub *hub) {
  hub->references++;
  return hub;
}

void nst_hub_release(nst_hub *hub) {
  if (--hub->references > 0) return;
  nst_bell_close(hub);
  nst_pool_clear(&hub->pool);
  nst_heap_free(&hub->timers);
  free(hub->scratch);
  free(hub);
}

void nst_hub_begin_run(nst_hub *hub) {
  nst_link *link;
  for (link = hub->stacks.next; link != &hub->stacks; link = link->next) {
    nst_stack_catch_up(nst_holder(link, nst_stack, link));
  }
  hub->run++;
  nst_heap_shift(&hub->timers, hub->now);
  hub->origin += hub->now;
  hub->now = 0;
  nst_bell_ring(hub); /* what it was set to was another run's time */
  for (link = hub->stacks.next; link != &hub->stacks; link = link->next) {
    nst_stack *stack = nst_holder(link, nst_stack, link);
    nst_stack_catch_up(stack);
    (void)nst_stack_next(stack);
  }
}

bool nst_hub_drive(nst_hub *hub, nst_time now) {
  nst_timer *first;
  nst_link *link;
  int budget = JOBS_AT_ONCE;
  if (now > hub->now) hub->now = now;
  nst_descriptors_glance(hub);
  while ((first = nst_heap_first(&hub->timers)) != NULL && first->at <= hub->now) {
    nst_heap_remove(&hub->timers, first);
    if (first->due) first->due(first);
    else nst_stack_wake(nst_holder(first, nst_stack, timer));
  }
  while (budget-- > 0 && (link = nst_list_pop(&hub->runnable)) != NULL) {
    nst_job *job = nst_holder(link, nst_job, link);
    hub->jobs++;
    job->run(job);
  }
  return !nst_list_empty(&hub->runnable);
}

unsigned nst_hub_ready(nst_hub *hub) {
  nst_link *link = nst_list_pop(&hub->ready);
  nst_request *request;
  unsigned id;
  if (link == NULL) return 0;
  request = nst_holder(link, nst_request, ready);
  id = request->watcher;
  request->watcher = 0;
  return id;
}

bool nst_hub_has_calls(const nst_hub *hub) {
  return !nst_list_empty(&hub->outgoing) || !nst_list_empty(&hub->traced) || !nst_list_empty(&hub->crossed);
}

/* Timers in the heap may be too early (nst_stack_schedule); the first is made exact until it stays the first. */
nst_time nst_hub_next(nst_hub *hub) {
  nst_timer *first;
  while ((first = nst_heap_first(&hub->timers)) != NULL) {
    nst_time at = first->at;
    if (first->due) return at;
    (void)nst_stack_next(nst_holder(first, nst_stack, timer));
    if (first->place != 0 && first->at == at) return at;
    if (!nst_list_empty(&hub->runnable)) return hub->now;
  }
  return NST_NEVER;
}

bool nst_hub_only_time_wait(const nst_hub *hub) {
  size_t i;
  for (i = 0; i < hub->timers.count; i++) {
    const nst_timer *timer = hub->timers.timers[i];
    if (timer->due || !nst_stack_only_time_wait(nst_holder(timer, nst_stack, timer))) return false;
  }
  return true;
}
