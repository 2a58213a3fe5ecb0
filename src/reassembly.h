/*
** Reassembly of both families' fragments, in front of lwIP, which then only sees whole packets. What waits is bounded
** for each source and for the stack, by the memory that it takes and by the number of datagrams.
*/
#ifndef NST_REASSEMBLY_H
#define NST_REASSEMBLY_H

#include "heap.h"
#include "list.h"
#include "packet.h"
#include "table.h"

typedef struct nst_reassembly_counters {
  uint64_t timeouts;       /* datagrams whose rest did not come in time */
  uint64_t contradictions; /* datagrams dropped because pieces contradict each other */
  uint64_t limited;        /* datagrams dropped to keep to the bounds */
} nst_reassembly_counters;

/* A part of the stack. */
typedef struct nst_reassembly {
  nst_table datagrams;
  nst_table sources;
  nst_link ages;      /* of the datagrams: oldest first */
  nst_heap timers;
  size_t bytes;       /* of memory */
  nst_reassembly_counters counters;
} nst_reassembly;

void nst_reassembly_init(nst_stack *stack);
/* At the stack's end. */
void nst_reassembly_clear(nst_stack *stack);

/* Whether the packet is a piece of one. An IPv6 packet that only has the header of a fragment is whole (RFC 6946). */
bool nst_is_fragment(const uint8_t *packet, size_t length);
/* Inside the stack. Takes the piece over; the whole packet, the caller's, when this was the last that was missing.
** *cause: why the piece was dropped, NULL when it was not; what is dropped later tells the trace itself. */
nst_packet *nst_reassemble(nst_interface *interface, nst_packet *piece, const char **cause);
/* Inside the stack. Drops what has waited too long; true when there was any. */
bool nst_reassembly_run(nst_stack *stack);
/* When the next datagram will have waited too long; NST_NEVER. */
nst_time nst_reassembly_next(const nst_stack *stack);

#endif
