/* Cutting packets that are not lwIP's into pieces (RFC 791 3.2, RFC 8200 §4.5). */
#ifndef NST_FRAGMENT_H
#define NST_FRAGMENT_H

#include "interface.h"
#include "packet.h"

/* Inside the stack. Sends a packet in pieces of at most `most` bytes; those that the device has no room for are dropped.
** An IPv6 packet is whole, an IPv4 packet may be a piece already. Takes it over. */
void nst_send_in_pieces(nst_interface *interface, nst_packet *packet, const ip_addr_t *destination, size_t most);

#endif
