#include "image.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "descriptors.h"
#include "stack.h"

#include "lwip/priv/tcp_priv.h"

/* The section that image.ld gathers; the linker gives these names. */
extern char image_start[] __asm__("__start_nst_image") __attribute__((visibility("hidden")));
extern char image_stop[] __asm__("__stop_nst_image") __attribute__((visibility("hidden")));

static struct {
  pthread_mutex_t lock;  /* guards the section and all that follows */
  char *pristine;        /* the section as it was before any stack ran */
  nst_stack *loaded;     /* whose image lies in the section */
  nst_stack *entered;
  sigjmp_buf *way_out;   /* of an assertion */
  const char *cause;
} state = {.lock = PTHREAD_MUTEX_INITIALIZER};

static size_t image_size(void) {
  return (size_t)(image_stop - image_start);
}

nst_stack *nst_current(void) {
  return state.entered;
}

static void load(nst_stack *stack) {
  if (state.loaded == stack) return;
  if (state.loaded) memcpy(state.loaded->image, image_start, image_size());
  memcpy(image_start, stack->image, image_size());
  state.loaded = stack;
}

/* A child must not inherit the lock from a thread that it does not have. */
static void lock_section(void) {
  pthread_mutex_lock(&state.lock);
}

static void unlock_section(void) {
  pthread_mutex_unlock(&state.lock);
}

bool nst_image_make(nst_stack *stack) {
  bool made;
  pthread_mutex_lock(&state.lock);
  if (state.pristine == NULL) { /* nothing was loaded yet, so the section is as the linker made it */
    (void)pthread_atfork(lock_section, unlock_section, unlock_section);
    state.pristine = malloc(image_size());
    if (state.pristine) memcpy(state.pristine, image_start, image_size());
  }
  stack->image = state.pristine ? malloc(image_size()) : NULL;
  made = stack->image != NULL;
  if (made) memcpy(stack->image, state.pristine, image_size());
  pthread_mutex_unlock(&state.lock);
  return made;
}

/* The library may be unloaded when a Lua state is closed, and loaded again by the next one. */
__attribute__((destructor)) static void forget_pristine(void) {
  pthread_mutex_lock(&state.lock);
  free(state.pristine);
  state.pristine = NULL;
  pthread_mutex_unlock(&state.lock);
}

void nst_image_free(nst_stack *stack) {
  pthread_mutex_lock(&state.lock);
  if (state.loaded == stack) state.loaded = NULL;
  pthread_mutex_unlock(&state.lock);
  free(stack->image);
  stack->image = NULL;
}

bool nst_inside(nst_stack *stack, void (*body)(nst_stack *, void *), void *argument) {
  sigjmp_buf way_out;
  bool alive;
  if (!stack->open) return false;
  nst_stack_catch_up(stack);
  pthread_mutex_lock(&state.lock);
  load(stack);
  tcp_ticks = nst_stack_ticks(stack);
  state.entered = stack;
  stack->entered = true;
  state.way_out = &way_out;
  if (sigsetjmp(way_out, 0) == 0) {
    body(stack, argument);
    alive = true;
  } else {
    stack->cause = state.cause;
    alive = false;
  }
  state.entered = NULL;
  state.way_out = NULL;
  stack->entered = false;
  pthread_mutex_unlock(&state.lock);
  nst_descriptors_flush(stack->hub);
  if (!alive) nst_stack_die(stack);
  return alive;
}

/* Called by lwIP (LWIP_ASSERT) instead of abort(). What it was doing is left undone: the stack is not used again. */
void nst_lwip_assertion(const char *message, const char *file, int line) {
  if (state.way_out == NULL) { /* outside any stack there is nothing to leave: this cannot be survived */
    fprintf(stderr, "netstack: lwIP assertion outside a stack: %s (%s:%d)\n", message, file, line);
    abort();
  }
  state.cause = message; /* a string literal of lwIP */
  siglongjmp(*state.way_out, 1);
}

void *nst_lwip_malloc(size_t size) {
  return nst_memory_alloc(&state.entered->hub->pool, &state.entered->memory, size);
}

void *nst_lwip_calloc(size_t count, size_t size) {
  void *block;
  if (size != 0 && count > (size_t)-1 / size) return NULL;
  block = nst_lwip_malloc(count * size);
  if (block) memset(block, 0, count * size);
  return block;
}

void nst_lwip_free(void *block) {
  nst_memory_free(&state.entered->hub->pool, block);
}

uint32_t nst_lwip_random(void) {
  return nst_random_u32(&state.entered->random);
}
