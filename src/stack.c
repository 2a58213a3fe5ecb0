#include "stack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dhcp.h"
#include "path_mtu.h"
#include "slaac.h"
#include "tcp.h"
#include "trace.h"

#include "lwip/init.h"
#include "lwip/priv/tcp_priv.h"

/* Rounds of commands, packets and timers before others get their turn. */
#define ROUNDS_AT_ONCE 16

static void init_lwip(nst_stack *stack, void *argument) {
  uint8_t scale = 0;
  (void)argument;
  lwip_init();
  nst_tcp_buffer_size = stack->config.tcp_buffer_size;
  while (stack->config.tcp_buffer_size >> scale > 0xffff) scale++;
  nst_tcp_window_scale = scale;
  if (stack->config.loopback) {
    static const nst_prefix own[2] = {{IPADDR4_INIT_BYTES(127, 0, 0, 1), 8},
                                      {IPADDR6_INIT_HOST(0, 0, 0, 1), 128}};
    stack->loopback = nst_interface_attach(stack, NULL, "lo", NULL);
    if (stack->loopback) (void)nst_interface_set_addresses(stack->loopback, NST_ADDRESS_GIVEN, own, 2);
  }
}

static void run(nst_job *job) {
  nst_stack *stack = nst_stack_retain(nst_holder(job, nst_stack, job));
  nst_stack_catch_up(stack);
  if (nst_stack_poll(stack, NULL)) nst_stack_wake(stack);
  else nst_stack_schedule(stack);
  nst_stack_release(stack);
}

nst_stack *nst_stack_new(nst_hub *hub, const nst_config *config) {
  nst_stack *stack = calloc(1, sizeof *stack);
  if (stack == NULL) return NULL;
  if (!nst_image_make(stack)) {
    free(stack);
    return NULL;
  }
  stack->references = 1;
  stack->hub = nst_hub_retain(hub);
  stack->config = *config;
  stack->open = true;
  stack->id = ++hub->ids;
  if (config->name[0] == '\0') {
    snprintf(stack->config.name, sizeof stack->config.name, "stack%u", ++hub->names);
  }
  if (config->seeded) nst_random_from_seed(&stack->random, config->seed);
  else nst_random_from_os(&stack->random);
  nst_random_fill(&stack->random, stack->secret, sizeof stack->secret);
  stack->run = hub->run;
  stack->base = -hub->now;
  nst_reassembly_init(stack);
  nst_nats_init(stack);
  nst_neighbours_init(&stack->neighbours);
  nst_owner_init(&stack->memory);
  nst_pollset_init(&stack->pollset);
  nst_list_init(&stack->job.link);
  stack->job.run = run;
  nst_list_init(&stack->woken);
  nst_list_init(&stack->traced);
  nst_list_init(&stack->interfaces);
  nst_list_init(&stack->busy);
  nst_routes_init(&stack->routes);
  nst_list_init(&stack->commands);
  nst_list_init(&stack->room_waiters);
  nst_list_init(&stack->sockets);
  nst_list_init(&stack->raw_sockets);
  nst_list_init(&stack->changed);
  nst_list_init(&stack->time_wait);
  nst_list_init(&stack->gone);
  nst_list_init(&stack->path_ages);
  nst_list_init(&stack->events);
  nst_list_append(&hub->stacks, &stack->link);
  if (!nst_inside(stack, init_lwip, NULL) || (config->loopback && stack->loopback == NULL)) {
    nst_stack_die(stack);
    nst_stack_release(stack);
    return NULL;
  }
  return stack;
}

nst_stack *nst_stack_retain(nst_stack *stack) {
  stack->references++;
  return stack;
}

void nst_stack_release(nst_stack *stack) {
  nst_hub *hub = stack->hub;
  if (--stack->references > 0) return;
  nst_table_free(&stack->ports);
  nst_table_free(&stack->connections);
  nst_heap_free(&stack->tcp_timers);
  nst_routes_clear(&stack->routes);
  nst_table_free(&stack->own);
  free(stack);
  nst_hub_release(hub);
}

/* ---- time ---- */

void nst_stack_set_time(nst_stack *stack, nst_time now) {
  if (now > NST_LATEST) now = NST_LATEST;
  if (now > stack->now) stack->now = now;
}

void nst_stack_catch_up(nst_stack *stack) {
  nst_hub *hub = stack->hub;
  if (stack->run != hub->run) { /* another run has begun: its time counts from 0, ours goes on */
    stack->run = hub->run;
    stack->base = stack->now - hub->now;
  }
  nst_stack_set_time(stack, hub->now + stack->base);
}

uint32_t nst_stack_ticks(const nst_stack *stack) {
  return (uint32_t)(stack->now / NST_MILLISECOND) + 1;
}

static bool has_work(const nst_stack *stack) {
  return !nst_list_empty(&stack->commands) || !nst_list_empty(&stack->changed) || !nst_list_empty(&stack->busy);
}

static nst_time earlier(nst_time a, nst_time b) {
  return a < b ? a : b;
}

static nst_time next_of_ip(const nst_stack *stack) {
  nst_time at = earlier(nst_reassembly_next(stack), nst_neighbours_next(stack));
  at = earlier(at, nst_groups_next(stack));
  return earlier(at, earlier(nst_dhcp_next(stack), nst_slaac_next(stack)));
}

bool nst_stack_only_time_wait(const nst_stack *stack) {
  return stack->tcp_timers.count <= stack->time_wait_count && next_of_ip(stack) == NST_NEVER;
}

nst_time nst_stack_next(nst_stack *stack) {
  nst_time at = NST_NEVER;
  if (!stack->open) return NST_NEVER;
  if (has_work(stack)) {
    nst_heap_remove(&stack->hub->timers, &stack->timer);
    nst_stack_wake(stack);
    return stack->now;
  }
  at = earlier(nst_tcp_timers_next(stack), next_of_ip(stack));
  (void)nst_heap_set(&stack->hub->timers, &stack->timer, at == NST_NEVER ? NST_NEVER : at - stack->base);
  return at;
}

void nst_stack_schedule(nst_stack *stack) {
  const nst_timer *first = nst_heap_first(&stack->tcp_timers);
  nst_time at = first ? first->at : NST_NEVER;
  if (!stack->open || nst_list_linked(&stack->job.link)) return;
  if (has_work(stack)) {
    nst_stack_wake(stack);
    return;
  }
  at = earlier(at, next_of_ip(stack));
  if (at != NST_NEVER && (stack->timer.place == 0 || at - stack->base < stack->timer.at)) {
    (void)nst_heap_set(&stack->hub->timers, &stack->timer, at - stack->base);
  }
}

void nst_stack_wake(nst_stack *stack) {
  if (!stack->open || nst_list_linked(&stack->job.link)) return;
  nst_list_append(&stack->hub->runnable, &stack->job.link);
  if (stack->wants_wake && !nst_list_linked(&stack->woken)) nst_list_append(&stack->hub->woken, &stack->woken);
}

/* ---- work ---- */

static size_t run_commands(nst_stack *stack, size_t max) {
  size_t done = 0;
  while ((max == 0 || done < max) && !nst_list_empty(&stack->commands)) {
    nst_request *request = nst_holder(stack->commands.next, nst_request, link);
    (void)nst_request_retain(request);
    nst_request_try(request);
    nst_request_release(request);
    done++;
  }
  stack->counters.commands += done;
  return done;
}

static bool tell_waiting(nst_stack *stack) {
  bool worked = false;
  nst_link *link;
  while ((link = nst_list_pop(&stack->changed)) != NULL) {
    nst_socket *socket = nst_socket_retain(nst_holder(link, nst_socket, changed));
    nst_requests_attempt(&socket->readers);
    nst_requests_attempt(&socket->writers);
    nst_socket_release(socket);
    worked = true;
  }
  return worked;
}

typedef struct poll_result {
  bool more, worked;
  size_t max, commands;
} poll_result;

/* Those that had work when the round began. */
static bool poll_interfaces(nst_stack *stack) {
  const nst_link *last = stack->busy.previous, *link = NULL;
  bool worked = false;
  while (!nst_list_empty(&stack->busy) && link != last) {
    link = nst_list_pop(&stack->busy);
    if (nst_interface_poll(nst_holder(link, nst_interface, busy))) worked = true;
  }
  return worked;
}

static void poll_inside(nst_stack *stack, void *argument) {
  poll_result *result = argument;
  int rounds = ROUNDS_AT_ONCE;
  nst_nat_expire(stack);
  do {
    result->more = run_commands(stack, 0) > 0;
    if (poll_interfaces(stack)) result->more = true;
    if (nst_tcp_timers_run(stack)) result->more = true;
    if (nst_reassembly_run(stack)) result->more = true;
    if (nst_neighbours_run(stack)) result->more = true;
    if (nst_groups_run(stack)) result->more = true;
    if (nst_dhcp_run(stack)) result->more = true;
    if (nst_slaac_run(stack)) result->more = true;
    if (tell_waiting(stack)) result->more = true;
    result->worked = result->worked || result->more;
    result->more = result->more && has_work(stack);
  } while (result->more && --rounds > 0);
}

bool nst_stack_poll(nst_stack *stack, bool *worked) {
  poll_result result = {false, false, 0, 0};
  nst_list_remove(&stack->job.link);
  if (!nst_inside(stack, poll_inside, &result)) return false;
  if (worked) *worked = *worked || result.worked;
  return result.more;
}

static void commands_inside(nst_stack *stack, void *argument) {
  poll_result *result = argument;
  result->commands = run_commands(stack, result->max);
  (void)tell_waiting(stack);
}

static void commands_only_inside(nst_stack *stack, void *argument) {
  stack->holding = true;
  commands_inside(stack, argument);
  stack->holding = false;
}

size_t nst_stack_process_commands(nst_stack *stack, size_t max) {
  poll_result result = {false, false, 0, 0};
  result.max = max;
  (void)nst_inside(stack, commands_inside, &result);
  return result.commands;
}

nst_error nst_stack_submit(nst_stack *stack, nst_request *request, bool always) {
  if (!nst_stack_runs(stack)) return NST_CLOSED;
  if (!always && stack->config.channel_capacity > 0 && stack->command_count >= stack->config.channel_capacity) {
    return NST_FULL;
  }
  (void)nst_request_retain(request);
  request->state = NST_REQUEST_QUEUED;
  nst_list_append(&stack->commands, &request->link);
  stack->command_count++;
  nst_stack_wake(stack);
  return NST_OK;
}

void nst_stack_command_left(nst_stack *stack) {
  stack->command_count--;
  nst_requests_attempt(&stack->room_waiters);
}

size_t nst_stack_process_commands_only(nst_stack *stack, size_t max) {
  poll_result result = {false, false, 0, 0};
  result.max = max;
  (void)nst_inside(stack, commands_only_inside, &result);
  return result.commands;
}

/* ---- the end ---- */

static void reset_connections(nst_stack *stack, void *argument) {
  nst_link *link, seen;
  (void)argument;
  nst_list_init(&seen);
  while ((link = nst_list_pop(&stack->sockets)) != NULL) {
    nst_socket *socket = nst_socket_retain(nst_holder(link, nst_socket, link));
    nst_tcp *tcp = (nst_tcp *)(void *)socket;
    nst_list_append(&seen, link);
    if (socket->protocol == NST_TCP && !tcp->listening) nst_tcp_abort(tcp);
    if (socket->protocol == NST_TCP) tcp->error = NST_OK; /* no abort() under a waiter: the stack's end */
    nst_socket_release(socket);
  }
  nst_list_move(&seen, &stack->sockets);
}

void nst_stack_close(nst_stack *stack) {
  if (!stack->open) return;
  (void)nst_inside(stack, reset_connections, NULL);
  nst_stack_die(stack);
}

bool nst_stack_runs(const nst_stack *stack) {
  return stack->open && !stack->crashed;
}

void nst_stack_forget(nst_stack *stack) {
  while (!nst_list_empty(&stack->sockets)) nst_socket_forget(nst_holder(stack->sockets.next, nst_socket, link));
  stack->time_wait_count = 0;
  nst_requests_finish(&stack->room_waiters, NST_CLOSED); /* before there is room, which they would use */
  nst_requests_finish(&stack->commands, NST_CLOSED);
  nst_reassembly_clear(stack);
  nst_neighbours_clear(&stack->neighbours);
  nst_path_mtu_clear(stack);
  nst_owner_clear(&stack->memory, &stack->hub->pool); /* between calls lwIP itself holds nothing */
}

void nst_stack_die(nst_stack *stack) {
  nst_hub *hub = stack->hub;
  nst_link *link;
  if (!stack->open) return;
  (void)nst_stack_retain(stack);
  stack->open = false;
  nst_heap_remove(&hub->timers, &stack->timer);
  nst_list_remove(&stack->job.link);
  nst_list_remove(&stack->woken);
  nst_list_remove(&stack->link);
  nst_stack_forget(stack);
  while ((link = stack->interfaces.next) != &stack->interfaces) {
    nst_interface_detach(nst_holder(link, nst_interface, link));
  }
  nst_pollset_close(&stack->pollset);
  nst_trace_clear(stack);
  nst_nats_clear(stack);
  nst_groups_clear(stack);
  nst_image_free(stack);
  nst_stack_release(stack);
}
