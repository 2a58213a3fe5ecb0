#include "filter.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"

nst_filter *nst_filter_new(void) {
  nst_filter *filter = calloc(1, sizeof *filter);
  if (filter) filter->references = 1;
  return filter;
}

void nst_filter_release(nst_filter *filter) {
  if (--filter->references > 0) return;
  free(filter->addresses);
  free(filter);
}

static void write_key(uint8_t key[16], const uint8_t *address, size_t size) {
  memset(key, 0, 10);
  memset(key + 10, 0xff, 2);
  memcpy(key + 16 - size, address, size);
}

bool nst_filter_add(nst_filter *filter, const ip_addr_t *address) {
  if (filter->count == filter->room) {
    size_t room = filter->room ? 2 * filter->room : 8;
    void *addresses = realloc(filter->addresses, room * sizeof *filter->addresses);
    if (addresses == NULL) return false;
    filter->addresses = addresses;
    filter->room = room;
  }
  write_key(filter->addresses[filter->count++], nst_address_bytes(address), nst_address_size(address));
  filter->sorted = false;
  return true;
}

static int compare(const void *a, const void *b) {
  return memcmp(a, b, 16);
}

static bool has(nst_filter *filter, const uint8_t *address, size_t size) {
  uint8_t key[16];
  if (filter->count == 0) return false;
  if (!filter->sorted) qsort(filter->addresses, filter->count, 16, compare);
  filter->sorted = true;
  write_key(key, address, size);
  return bsearch(key, filter->addresses, filter->count, 16, compare) != NULL;
}

bool nst_filter_matches(nst_filter *filter, const uint8_t *packet, size_t length, size_t link, bool source) {
  const uint8_t *ip = packet + link;
  if (length < link + 20) return false;
  if (link > 0 && nst_get16(packet + link - 2) == 0x0806) { /* ARP's sender and target */
    return length >= link + 28 && has(filter, ip + (source ? 14 : 24), 4);
  }
  if (link > 0 && nst_get16(packet + link - 2) != (ip[0] >> 4 == 6 ? 0x86ddu : 0x0800u)) return false;
  if (ip[0] >> 4 == 4) return has(filter, ip + (source ? 12 : 16), 4);
  return ip[0] >> 4 == 6 && length >= link + 40 && has(filter, ip + (source ? 8 : 24), 16);
}
