/*
** The guard: looks at every packet before lwIP does, and drops what breaks the rules that lwIP relies on without
** looking. It reads only the packet, changes nothing, and knows nothing of connections.
*/
#ifndef NST_GUARD_H
#define NST_GUARD_H

#include "types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 0 in the build for tests that shows what the guard and the other remedies are for (GUARD=off). */
#ifdef NST_UNGUARDED
#define NST_GUARDED 0
#else
#define NST_GUARDED 1
#endif

#define NST_GUARD_CAUSES(X)                                                                                            \
  X(EMPTY, "empty packet")                                                                                             \
  X(TOO_LONG, "longer than the mtu")                                                                                   \
  X(SHORT, "shorter than its header")                                                                                  \
  X(VERSION, "neither IPv4 nor IPv6")                                                                                  \
  X(LENGTH, "longer than what came")                                                                                   \
  X(OPTIONS, "ip options that do not add up")                                                                          \
  X(SOURCE, "impossible source")                                                                                       \
  X(FRAGMENT, "impossible fragment")                                                                                   \
  X(CHAIN, "header chain that does not add up")                                                                        \
  X(TRANSPORT, "transport header that does not add up")                                                                \
  X(CHECKSUM, "udp over IPv6 without a checksum")                                                                      \
  X(NEIGHBOUR, "neighbour discovery where there are no neighbours")                                                    \
  X(ND, "neighbour discovery that breaks its rules")                                                                   \
  X(ROUTER, "router discovery that nobody asked for")                                                                  \
  X(FRAME_SHORT, "frame shorter than its header")                                                                      \
  X(FRAME_TYPE, "frame of an unknown type")                                                                            \
  X(FRAME_OTHERS, "frame for another station")                                                                         \
  X(FRAME_SOURCE, "frame from an impossible station")                                                                  \
  X(FRAME_GROUP, "packet for one host in a frame for many")                                                            \
  X(ARP, "arp that breaks its rules")                                                                                  \
  X(LEAST_MTU, "packet too big with an mtu below 1280")

#define NST_GUARD_NAME(name, text) NST_GUARD_##name,
typedef enum nst_guard_cause { NST_GUARD_PASS, NST_GUARD_CAUSES(NST_GUARD_NAME) NST_GUARD_CAUSE_COUNT } nst_guard_cause;
#undef NST_GUARD_NAME

const char *nst_guard_text(nst_guard_cause cause);
bool nst_guard_is_on(void);

/* `looped`: the packet is one that the stack sent to itself. NST_GUARD_PASS: lwIP may have it. */
nst_guard_cause nst_guard(const nst_interface *interface, const uint8_t *packet, size_t length, bool looped);

/* The same for what comes in frames, before and after the header is off; `message` is ICMPv6. */
nst_guard_cause nst_guard_frame(const nst_interface *interface, const uint8_t *frame, size_t length);
nst_guard_cause nst_guard_nd(const nst_interface *interface, const uint8_t *packet, const uint8_t *message,
                             size_t length);

#endif
