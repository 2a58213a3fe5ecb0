#include "heap.h"

#include <stdlib.h>

static bool before(const nst_timer *a, const nst_timer *b) {
  return a->at < b->at || (a->at == b->at && a->sequence < b->sequence);
}

static void put(nst_heap *heap, nst_timer *timer, size_t index) {
  heap->timers[index] = timer;
  timer->place = index + 1;
}

static void sift_up(nst_heap *heap, nst_timer *timer, size_t index) {
  while (index > 0) {
    size_t parent = (index - 1) / 2;
    if (!before(timer, heap->timers[parent])) break;
    put(heap, heap->timers[parent], index);
    index = parent;
  }
  put(heap, timer, index);
}

static void sift_down(nst_heap *heap, nst_timer *timer, size_t index) {
  for (;;) {
    size_t child = 2 * index + 1;
    if (child >= heap->count) break;
    if (child + 1 < heap->count && before(heap->timers[child + 1], heap->timers[child])) child++;
    if (!before(heap->timers[child], timer)) break;
    put(heap, heap->timers[child], index);
    index = child;
  }
  put(heap, timer, index);
}

bool nst_heap_set(nst_heap *heap, nst_timer *timer, nst_time at) {
  if (timer->place != 0 && timer->at == at) return true;
  nst_heap_remove(heap, timer);
  timer->at = at;
  if (at == NST_NEVER) return true;
  if (heap->count == heap->capacity) {
    size_t capacity = heap->capacity ? heap->capacity * 2 : 4;
    nst_timer **timers = realloc(heap->timers, capacity * sizeof *timers);
    if (timers == NULL) return false;
    heap->timers = timers;
    heap->capacity = capacity;
  }
  timer->sequence = ++heap->sequence;
  heap->count++;
  sift_up(heap, timer, heap->count - 1);
  return true;
}

void nst_heap_remove(nst_heap *heap, nst_timer *timer) {
  size_t index;
  nst_timer *last;
  if (timer->place == 0) return;
  index = timer->place - 1;
  timer->place = 0;
  last = heap->timers[--heap->count];
  if (last == timer) return;
  if (index > 0 && before(last, heap->timers[(index - 1) / 2])) sift_up(heap, last, index);
  else sift_down(heap, last, index);
}

void nst_heap_shift(nst_heap *heap, nst_time by) {
  size_t i;
  for (i = 0; i < heap->count; i++) heap->timers[i]->at -= by;
}

nst_timer *nst_heap_first(const nst_heap *heap) {
  return heap->count ? heap->timers[0] : NULL;
}

void nst_heap_free(nst_heap *heap) {
  free(heap->timers);
  heap->timers = NULL;
  heap->count = heap->capacity = 0;
}
