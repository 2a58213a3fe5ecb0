/*
** Forwarding: a stack that is a router lets others' packets pass (RFC 1812, RFC 8200). What cannot pass is dropped, and
** its sender told why.
*/
#ifndef NST_FORWARD_H
#define NST_FORWARD_H

#include "interface.h"
#include "packet.h"

/* Inside the stack. A packet that the guard let pass and that is not for us is sent on, or dropped. Its frame's header,
** if it had one, is still in front of it. false: the stack is no router, or not for this one; else takes it over. */
bool nst_forward(nst_interface *interface, nst_packet *packet, const ip_addr_t *source, const ip_addr_t *destination);
/* The same for a whole packet to an address of ours that may be for somebody inside (nat.h). */
bool nst_forward_inward(nst_interface *interface, nst_packet *packet);

#endif
