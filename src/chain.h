/*
** IPv6's extension headers, one behind the other in front of the upper layer's (RFC 8200 §4). The guard has seen to it
** that they add up; where it is off, no walk reads beyond the end.
*/
#ifndef NST_CHAIN_H
#define NST_CHAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Their numbers. */
enum { NST_HOP_BY_HOP = 0, NST_ROUTING = 43, NST_FRAGMENT = 44, NST_DESTINATION = 60 };

/* From the header of number `next` at *at to the first that is none of them, or a fragment header unless the walk goes
** through these. Returns its number and sets *at to it; it may lie behind the end. */
static inline unsigned nst_chain_walk(const uint8_t *packet, size_t *at, size_t end, unsigned next,
                                      bool through_fragments) {
  while (*at + 8 <= end && (next == NST_HOP_BY_HOP || next == NST_ROUTING || next == NST_DESTINATION ||
                            (next == NST_FRAGMENT && through_fragments))) {
    size_t size = next == NST_FRAGMENT ? 8 : (packet[*at + 1] + 1u) * 8u;
    next = packet[*at];
    *at += size;
  }
  return next;
}

#endif
