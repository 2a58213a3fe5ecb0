/*
** The bell: one descriptor for a loop that is not ours, readable when the stacks of a hub want to be driven. Behind it
** are the devices' descriptors and a timer, which is set to the next stack timer, and to "now" when there is work.
** A loop that cannot watch descriptors is told when to come back as the bell is set, and called when that is too late;
** nobody watches devices for it.
*/
#ifndef NST_BELL_H
#define NST_BELL_H

#include "hub.h"

/* Makes it for this process, unless it has one. NST_FULL: no descriptor is left. */
nst_error nst_bell_open(nst_hub *hub);
bool nst_bell_is_open(nst_hub *hub);
/* Has the loop called, or no longer, in place of a descriptor. */
void nst_bell_call(nst_hub *hub, bool calls);
/* The loop has driven the stacks and comes back when the bell rings: at run time `at` by its own wish, or earlier. `base`
** is the time of the monotonic clock when the run began. */
void nst_bell_set(nst_hub *hub, nst_time base, nst_time at);
/* Something may have given a stack work, or an earlier timer. Returns whether the loop is to be called. */
bool nst_bell_heed(nst_hub *hub);
/* It rings now. */
void nst_bell_ring(nst_hub *hub);
void nst_bell_close(nst_hub *hub);

#endif
