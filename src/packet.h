/*
** A packet on its way between stacks, devices and Lua: one block of memory. lwIP reads a received packet in place,
** through the pbuf at its head, and gives it back by freeing that pbuf.
*/
#ifndef NST_PACKET_H
#define NST_PACKET_H

#include <stdbool.h>

#include "hub.h"
#include "lwip/pbuf.h"

typedef struct nst_packet {
  struct pbuf_custom pbuf; /* first: lwIP hands this address back */
  nst_link link;
  nst_hub *hub;            /* not counted: who has the packet outlives it */
  uint32_t length;
  uint8_t switches;        /* that it has passed */
  bool summed;             /* the sender's lwIP has computed its checksums: they are right */
  uint8_t *data;
  uint8_t bytes[];         /* some room, where a frame's header can be put in front, then the data */
} nst_packet;

/* NULL when memory ran out. There is room in front for a frame's header. */
nst_packet *nst_packet_new(nst_hub *hub, size_t length);
/* What came from a device: the IP packet in it, behind `link` bytes, is aligned. */
nst_packet *nst_packet_copy(nst_hub *hub, const void *data, size_t length, size_t link);
/* Takes `length` bytes off the front, and puts them back. */
void nst_packet_pull(nst_packet *packet, size_t length);
void nst_packet_push(nst_packet *packet, size_t length);
/* Flattens a chain of pbufs. */
nst_packet *nst_packet_from_pbuf(nst_hub *hub, const struct pbuf *p);
void nst_packet_free(nst_packet *packet);
void nst_packets_free(nst_link *packets);
/* The packet as a pbuf owned by a stack's lwIP: freeing the pbuf frees the packet. */
struct pbuf *nst_packet_to_pbuf(nst_packet *packet, nst_owner *owner);

#endif
