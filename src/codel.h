/*
** CoDel (RFC 8289): drops what has waited longer than `target` for at least `interval`, ever more often, until the
** queue is short again. A link knows at once when a packet will leave its queue, so the decision is made as it enters;
** whether the queue is about to be empty is then told by what the packet finds in front of it, not behind.
*/
#ifndef NST_CODEL_H
#define NST_CODEL_H

#include "heap.h"

typedef struct nst_codel_rules {
  bool on;
  nst_time target, interval;
} nst_codel_rules;

typedef struct nst_codel {
  nst_time first_above; /* 0: the delay is below the target */
  nst_time drop_next;
  uint32_t count, last_count;
  bool dropping;
} nst_codel;

/* Whether the packet that leaves the queue at `leaves`, after `waited`, is dropped then. */
bool nst_codel_drops(nst_codel *codel, const nst_codel_rules *rules, nst_time leaves, nst_time waited, bool alone);

#endif
