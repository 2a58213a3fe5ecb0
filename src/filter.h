/* A set of addresses, and whether a packet comes from one of them or goes to one: what parts a lab's network. */
#ifndef NST_FILTER_H
#define NST_FILTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lwip/ip_addr.h"

typedef struct nst_filter {
  unsigned references;
  size_t count, room;
  bool sorted;
  uint8_t (*addresses)[16]; /* IPv4 ones as RFC 4291 2.5.5.2 maps them */
} nst_filter;

/* Both NULL or false when memory ran out. */
nst_filter *nst_filter_new(void);
bool nst_filter_add(nst_filter *filter, const ip_addr_t *address);
void nst_filter_release(nst_filter *filter);
/* Of an IP packet behind `link` bytes, or of ARP. Packets that are too short, and other protocols, have no address. */
bool nst_filter_matches(nst_filter *filter, const uint8_t *packet, size_t length, size_t link, bool source);

#endif
