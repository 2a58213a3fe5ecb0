/* Neighbour discovery (RFC 4861): its messages and options by name, and what nd.c does about neighbours. */
#ifndef NST_ND_H
#define NST_ND_H

#include "interface.h"
#include "packet.h"

enum nst_nd_type {
  NST_ND_ROUTER_SOLICITATION = 133,
  NST_ND_ROUTER_ADVERTISEMENT = 134,
  NST_ND_SOLICITATION = 135,
  NST_ND_ADVERTISEMENT = 136,
  NST_ND_REDIRECT = 137
};

enum nst_nd_option {
  NST_ND_SOURCE_STATION = 1,
  NST_ND_TARGET_STATION = 2,
  NST_ND_PREFIX = 3,
  NST_ND_MTU = 5,
  NST_ND_SERVERS = 25 /* of DNS (RFC 8106) */
};

/* Bytes of a message in front of its options. */
#define NST_ND_ROUTER_SOLICITATION_LENGTH 8
#define NST_ND_ROUTER_ADVERTISEMENT_LENGTH 16
#define NST_ND_LENGTH 24 /* of a neighbour's */

static inline bool nst_is_nd_type(unsigned type) {
  return type >= NST_ND_ROUTER_SOLICITATION && type <= NST_ND_REDIRECT;
}

void nst_nd_ask(nst_interface *interface, const ip_addr_t *host, const uint8_t *station);
void nst_nd_probe(nst_interface *interface, const ip_addr_t *address);
/* A message whose `length` bytes are zeros but for its type, behind an IPv6 header and, unless `station` is 0, in front
** of an option of that type that names our station. NULL: no memory. */
nst_packet *nst_nd_new(const nst_interface *interface, const ip_addr_t *source, const uint8_t *destination,
                       unsigned type, size_t length, unsigned station);
/* Fills its checksum in, where the device wants one. */
void nst_nd_complete(const nst_interface *interface, nst_packet *packet);
/* Whether it is a message of neighbour discovery, which lwIP does not get. */
bool nst_is_nd(const uint8_t *packet, size_t length);
/* Takes the packet over; its frame's header is still in front of it. */
void nst_nd_input(nst_interface *interface, nst_packet *packet);
/* Whether an address of ours may still turn out to be a duplicate. */
bool nst_nd_is_tentative(nst_interface *interface, const ip_addr_t *address);

#endif
