/*
** Neighbours: which station has which address on an Ethernet, for ARP and IPv6 alike, with RFC 4861 7.3.2's states.
** A packet for one that is not known yet waits. Nothing ticks: a neighbour has a timer while it is being asked for.
*/
#ifndef NST_NEIGHBOUR_H
#define NST_NEIGHBOUR_H

#include "ethernet.h"
#include "heap.h"
#include "interface.h"
#include "table.h"

/* Kinds of entries, each with a bound and an order of its own, so that a flood of one cannot drive out another. */
typedef enum nst_neighbour_kind {
  NST_NEIGHBOUR_ASKED, /* nobody has answered yet */
  NST_NEIGHBOUR_HEARD, /* asked us; we have not sent anything there */
  NST_NEIGHBOUR_USED,
  NST_NEIGHBOUR_KINDS
} nst_neighbour_kind;

typedef struct nst_neighbour_counters {
  uint64_t failed;     /* nobody answered */
  uint64_t evicted;    /* made room for others */
  uint64_t dropped;    /* packets that waited for one and were too many */
  uint64_t conflicts;  /* somebody claimed an address of ours */
  uint64_t duplicates; /* addresses that we gave up, since somebody had them */
} nst_neighbour_counters;

/* A part of the stack. */
typedef struct nst_neighbours {
  nst_table table;
  nst_link ages[NST_NEIGHBOUR_KINDS]; /* longest unused first */
  size_t counts[NST_NEIGHBOUR_KINDS];
  nst_heap timers;
  size_t waiting, waiting_bytes; /* packets, and what they hold */
  nst_neighbour_counters counters;
} nst_neighbours;

void nst_neighbours_init(nst_neighbours *neighbours);
void nst_neighbours_clear(nst_neighbours *neighbours);
/* The interface goes: what is known of its link is forgotten. */
void nst_neighbours_forget(nst_interface *interface);

/* Inside the stack. Sends an IP packet to a host on the link, once its station is known. Takes it over. */
void nst_neighbour_send(nst_interface *interface, nst_packet *packet, const ip_addr_t *host);

typedef enum nst_claim {
  NST_CLAIM_REQUEST, /* it asked us, and said who it is */
  NST_CLAIM_NEWS,    /* it says so to whoever listens */
  NST_CLAIM_ANSWER   /* to a question of ours */
} nst_claim;

/* Inside the stack. A host says that this is its station; NULL: it did not name one. `override`: replace another. */
void nst_neighbour_heard(nst_interface *interface, const ip_addr_t *host, const uint8_t *station, nst_claim claim,
                         bool override);
/* Inside the stack. The host has answered a protocol above (RFC 4861 7.3.1): the station it is reached by is right. */
void nst_neighbour_proven(nst_stack *stack, const ip_addr_t *source, const ip_addr_t *host);
/* Inside the stack. Asks again, or gives up, as time has come; true when there was anything. */
bool nst_neighbours_run(nst_stack *stack);
nst_time nst_neighbours_next(const nst_stack *stack);

#endif
