/*
** A binary heap of timers. An entry lives inside the thing it times and knows its place, so it can be moved and
** removed. Entries that are due at the same time leave in the order in which they were set: order is never chance.
*/
#ifndef NST_HEAP_H
#define NST_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef int64_t nst_time; /* nanoseconds */
#define NST_NEVER INT64_MAX
/* Where clocks end, 73 years: the sum or difference of two times below it, and a timeout more, is still a time. */
#define NST_LATEST (NST_NEVER / 4)
#define NST_SECOND INT64_C(1000000000)
#define NST_MILLISECOND INT64_C(1000000)
#define NST_MICROSECOND INT64_C(1000)

typedef struct nst_timer {
  nst_time at;
  uint64_t sequence; /* breaks ties */
  size_t place;      /* index in the heap plus one; 0 when not set */
  void (*due)(struct nst_timer *timer); /* in the hub's heap: a link's; NULL: a stack's */
} nst_timer;

typedef struct nst_heap {
  nst_timer **timers;
  size_t count;
  size_t capacity;
  uint64_t sequence;
} nst_heap;

/* Sets the timer, or moves it when it was set; NST_NEVER removes it. false when memory ran out (it is then not set). */
bool nst_heap_set(nst_heap *heap, nst_timer *timer, nst_time at);
void nst_heap_remove(nst_heap *heap, nst_timer *timer);
/* Makes all times earlier by the same; their order stays. */
void nst_heap_shift(nst_heap *heap, nst_time by);
/* The earliest timer, NULL when there is none. */
nst_timer *nst_heap_first(const nst_heap *heap);
void nst_heap_free(nst_heap *heap);

#endif
