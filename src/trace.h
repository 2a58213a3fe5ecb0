/*
** The trace: what a stack does, as events that Lua's function gets after the poll in which they happened. With no
** function set, the only cost is the test of one flag.
*/
#ifndef NST_TRACE_H
#define NST_TRACE_H

#include "stack.h"

typedef enum nst_event_type { NST_EVENT_COMMAND, NST_EVENT_IN, NST_EVENT_OUT, NST_EVENT_DROP, NST_EVENT_STATE } nst_event_type;

typedef struct nst_event {
  nst_link link;       /* in stack->events */
  nst_event_type type;
  nst_time time;
  const char *what;    /* the command's name, the drop's cause, the state; static */
  char interface[32];  /* packets */
  ip_addr_t local_host, remote_host; /* state */
  uint16_t local_port, remote_port;
  size_t length;
  char data[];         /* the packet */
} nst_event;

/* `interface` may be NULL: what it came from may be gone by now. `cause` is that of a drop; NULL else. */
void nst_trace_packet(nst_stack *stack, nst_event_type type, const nst_interface *interface, const void *packet,
                      size_t length, const char *cause);
void nst_trace_command(nst_stack *stack, const char *name);
void nst_trace_state(nst_stack *stack, const char *state, const ip_addr_t *local_host, uint16_t local_port,
                     const ip_addr_t *remote_host, uint16_t remote_port);
/* The oldest event, the caller's to free(); NULL when there is none. */
nst_event *nst_trace_take(nst_stack *stack);
void nst_trace_clear(nst_stack *stack);

#endif
