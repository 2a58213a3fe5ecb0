#include "trace.h"

#include <stdlib.h>
#include <string.h>

/* A stack whose events nobody fetches keeps the newest; the poll that should deliver them may be far away. */
#define KEEP_AT_MOST 65536

static nst_event *add(nst_stack *stack, nst_event_type type, const char *what, const void *data, size_t length) {
  nst_event *event = malloc(sizeof *event + length);
  if (event == NULL) return NULL; /* tracing is not worth failing for */
  memset(event, 0, sizeof *event);
  nst_list_init(&event->link);
  event->type = type;
  event->time = stack->now;
  event->what = what;
  event->length = length;
  if (length) memcpy(event->data, data, length);
  nst_list_append(&stack->events, &event->link);
  if (++stack->event_count > KEEP_AT_MOST) free(nst_trace_take(stack));
  if (!nst_list_linked(&stack->traced)) nst_list_append(&stack->hub->traced, &stack->traced);
  return event;
}

void nst_trace_packet(nst_stack *stack, nst_event_type type, const nst_interface *interface, const void *packet,
                      size_t length, const char *cause) {
  nst_event *event;
  if (!stack->tracing) return;
  event = add(stack, type, cause, packet, length);
  if (event && interface) memcpy(event->interface, interface->name, sizeof event->interface);
}

void nst_trace_command(nst_stack *stack, const char *name) {
  if (stack->tracing) (void)add(stack, NST_EVENT_COMMAND, name, NULL, 0);
}

void nst_trace_state(nst_stack *stack, const char *state, const ip_addr_t *local_host, uint16_t local_port,
                     const ip_addr_t *remote_host, uint16_t remote_port) {
  nst_event *event;
  if (!stack->tracing) return;
  event = add(stack, NST_EVENT_STATE, state, NULL, 0);
  if (event == NULL) return;
  event->local_host = *local_host;
  event->remote_host = *remote_host;
  event->local_port = local_port;
  event->remote_port = remote_port;
}

nst_event *nst_trace_take(nst_stack *stack) {
  nst_link *link = nst_list_pop(&stack->events);
  if (link == NULL) return NULL;
  stack->event_count--;
  return nst_holder(link, nst_event, link);
}

void nst_trace_clear(nst_stack *stack) {
  nst_event *event;
  while ((event = nst_trace_take(stack)) != NULL) free(event);
  nst_list_remove(&stack->traced);
}
