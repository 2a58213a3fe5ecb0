/* The Internet checksum (RFC 1071) of whole packets, as it lies in them. */
#ifndef NST_CHECKSUM_H
#define NST_CHECKSUM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of an IPv4 header, and what belongs in its place when that is 0; 0 when it is right. */
uint16_t nst_header_checksum(const uint8_t *packet);
/* Puts it in. */
void nst_header_complete(uint8_t *packet);
/* Of `length` bytes of a transport protocol at `at`, with the pseudo header (RFC 9293 §3.1, RFC 8200 §8.1). */
uint16_t nst_transport_checksum(const uint8_t *packet, size_t at, size_t length, unsigned protocol);
/* Of an IPv6 packet's payload, right behind its header. */
uint16_t nst_checksum6(const uint8_t *packet, size_t length);

/* Of the transport protocol of a whole packet that the guard let pass; true also when there is none that has one. */
bool nst_transport_holds(const uint8_t *packet, size_t length);
/* Puts it in. */
void nst_transport_complete(uint8_t *packet, size_t length);

/* Of a frame that nobody has looked at: whether all checksums of the packet in it hold; puts them in. One that is no
** whole IP packet, a fragment too, stays as it is, and holds. */
bool nst_frame_holds(const uint8_t *frame, size_t length);
void nst_frame_complete(uint8_t *frame, size_t length);

#endif
