/*
** A stack: one isolated TCP/IP stack. It is counted; Lua's object, its sockets, interfaces and requests hold this
** struct, but only Lua's object keeps it open: when that is collected or closed, the stack ends and all that is left
** of it is an answer, "closed".
*/
#ifndef NST_STACK_H
#define NST_STACK_H

#include "group.h"
#include "hub.h"
#include "image.h"
#include "interface.h"
#include "nat.h"
#include "neighbour.h"
#include "random.h"
#include "reassembly.h"
#include "route.h"
#include "socket.h"
#include "table.h"

typedef struct nst_config {
  char name[64];
  uint16_t mtu;
  bool loopback, forwarding;
  size_t channel_capacity;
  uint32_t tcp_buffer_size;
  size_t udp_buffer_size, udp_message_count;
  size_t raw_buffer_size, raw_message_count;
  bool seeded;
  uint64_t seed;
} nst_config;

/* What the stack itself counts, besides lwIP's own counters. */
typedef struct nst_stack_counters {
  uint64_t in_packets, in_bytes, out_packets, out_bytes, forwarded;
  uint64_t tcp_retransmits, tcp_opened, tcp_accepted, tcp_syn_dropped, tcp_mss_refused;
  uint64_t tcp_refused, tcp_challenge_acks, tcp_challenges_limited, tcp_out_of_order_dropped, tcp_time_wait_evicted;
  uint64_t icmp_ignored, icmp_limited;
  uint64_t udp_queue_full, raw_queue_full;
  uint64_t commands;
} nst_stack_counters;

/* What a SYN may carry (tcp_check.c). */
typedef struct nst_tcp_options {
  bool has_mss, has_scale, has_sack;
  uint8_t scale;
  uint16_t mss;
} nst_tcp_options;

typedef struct nst_segment {
  unsigned flags;
  nst_tcp_options options;
} nst_segment;

struct nst_stack {
  unsigned references;
  nst_hub *hub;         /* counted */
  nst_link link;        /* in hub->stacks */
  nst_job job;          /* to be polled */
  nst_link woken;       /* in hub->woken */
  nst_link traced;      /* in hub->traced */
  nst_timer timer;      /* in hub->timers: the earliest of all timers below */
  bool open;
  bool crashed;         /* and not restarted (crash.c): open, but nothing goes on in it */
  bool entered;         /* we are inside it (image.c) */
  const char *cause;    /* of its death by an assertion; NULL */
  bool wants_wake;      /* on_wake is set */
  unsigned id;          /* by which Lua finds the object again */
  nst_config config;

  char *image;          /* lwIP's variables, while they are not in the section (image.c) */
  nst_owner memory;
  nst_random random;
  uint64_t secret[2];   /* for hashes */
  nst_time now;         /* its own clock */
  nst_time base;        /* add to run time to get it */
  unsigned run;         /* the run `base` is for */

  nst_link interfaces;
  size_t interface_count, netif_count;
  nst_link busy;        /* nst_interface.busy */
  nst_pollset pollset;  /* of their devices, when somebody else waits for several of them */
  nst_interface *loopback;
  nst_table own;        /* nst_own.node: all addresses of ours */
  nst_routes routes;
  bool dont_fragment;   /* on the datagram being sent */
  bool unheard;         /* members on this stack do not get it */
  bool verbatim;        /* its header is a user's */
  uint32_t datagram_id; /* of the datagram being sent */
  bool holding;         /* only commands run: what is sent waits with the interface for the next poll */
  bool sending_datagram; /* what the device refuses now is kept, not dropped (output.c) */
  nst_interface *refused; /* the interface that refused a packet during this call */

  nst_link commands;    /* nst_request.link: the command channel */
  size_t command_count;
  nst_link room_waiters; /* requests that wait for room in the channel */

  nst_link sockets;     /* nst_socket.link */
  nst_link raw_sockets; /* nst_raw.member */
  nst_link changed;     /* nst_socket.changed */
  nst_table ports;      /* nst_binding.node */
  nst_table connections; /* nst_tcp.node */
  nst_segment segment;  /* that lwIP is at */
  struct nst_tcp *recent; /* the connection found last, which is the likeliest next; NULL */
  nst_heap tcp_timers;  /* nst_tcp.timer */
  nst_time icmp_paid_until; /* by the ICMP errors that were sent (icmp.c) */
  nst_table paths;      /* path_mtu.c */
  nst_link path_ages;
  nst_link time_wait;   /* nst_tcp.waits: oldest first */
  size_t time_wait_count;
  nst_link gone;        /* nst_tcp.gone: their pcb was freed during this call */
  uint32_t isn_offset;  /* sequence numbers used so far: keeps new ISNs ahead of old ones */
  nst_reassembly reassembly;
  nst_nats nat;
  nst_neighbours neighbours;
  nst_groups groups;
  unsigned dhcp_count, slaac_count; /* interfaces that have it */

  nst_link events;      /* nst_event.link, of the trace */
  size_t event_count;
  const char *drop_cause; /* of the packet at hand, when it was ours to drop; while tracing */
  bool tracing;
  nst_stack_counters counters;
};

/* NULL: no memory. One reference, open. */
nst_stack *nst_stack_new(nst_hub *hub, const nst_config *config);
nst_stack *nst_stack_retain(nst_stack *stack);
void nst_stack_release(nst_stack *stack);
/* RSTs what is open as far as the devices have room, then ends the stack. */
void nst_stack_close(nst_stack *stack);
/* Ends the stack at once: nothing is sent, everything answers "closed". */
void nst_stack_die(nst_stack *stack);
/* Outside the stack. Forgets all that programs and peers have left in it but interfaces and what they know; nothing is
** sent, what it was about answers "closed". */
void nst_stack_forget(nst_stack *stack);
/* Whether there may be sockets and commands. */
bool nst_stack_runs(const nst_stack *stack);

/* ---- crash.c ---- */

/* Outside the stack, as what follows. The power fails: all that is no configuration is forgotten, nothing is sent.
** Harmless twice. NST_CLOSED. */
nst_error nst_stack_crash(nst_stack *stack);
/* It goes on as a new one with its interfaces, addresses and routes. Harmless when it runs. NST_CLOSED. */
nst_error nst_stack_restart(nst_stack *stack);

/* ---- */

/* What can be done at the stack's present time. Returns true when there is more (it did its fair share); sets *worked,
** which may be NULL, when it did anything. */
bool nst_stack_poll(nst_stack *stack, bool *worked);
/* Runs at most `max` queued commands (0: all), nothing else. */
size_t nst_stack_process_commands(nst_stack *stack, size_t max);
/* The same without touching the device: what the commands send goes out at the next poll. */
size_t nst_stack_process_commands_only(nst_stack *stack, size_t max);
/* Sets the clock, never back. */
void nst_stack_set_time(nst_stack *stack, nst_time now);
/* Follows the hub's run time. */
void nst_stack_catch_up(nst_stack *stack);
/* Whether all its timers are those of connections in TIME_WAIT. */
bool nst_stack_only_time_wait(const nst_stack *stack);
/* Its own time of the next timer; `now` when it has work; NST_NEVER. Sets the hub's timer too. */
nst_time nst_stack_next(nst_stack *stack);
/* After a call into the stack: sees that it is polled when it has work, and no later than its next timer. Cheap: the
** hub may then look at the stack too early, but never too late. */
void nst_stack_schedule(nst_stack *stack);
/* There is work: it will be polled. */
void nst_stack_wake(nst_stack *stack);
/* lwIP's tick (a millisecond) at the stack's present time; never 0, which lwIP takes for "not measured". */
uint32_t nst_stack_ticks(const nst_stack *stack);

/* Queues a command; NST_FULL, NST_CLOSED. `always`: closes have room. */
nst_error nst_stack_submit(nst_stack *stack, nst_request *request, bool always);
/* A request left the command queue without having run. */
void nst_stack_command_left(nst_stack *stack);

#endif
