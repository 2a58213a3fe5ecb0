/* Numbers and addresses as they lie in packets: in network order, at any place. */
#ifndef NST_BYTES_H
#define NST_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "lwip/ip_addr.h"

static inline unsigned nst_get16(const uint8_t *bytes) {
  return (unsigned)bytes[0] << 8 | bytes[1];
}

static inline uint32_t nst_get32(const uint8_t *bytes) {
  return (uint32_t)nst_get16(bytes) << 16 | nst_get16(bytes + 2);
}

static inline void nst_put16(uint8_t *to, size_t value) {
  to[0] = (uint8_t)(value >> 8);
  to[1] = (uint8_t)value;
}

/* The 4 or 16 bytes of an address. */
static inline const uint8_t *nst_address_bytes(const ip_addr_t *address) {
  return (const uint8_t *)(IP_IS_V6(address) ? (const void *)ip_2_ip6(address)->addr
                                             : (const void *)&ip_2_ip4(address)->addr);
}

static inline size_t nst_address_size(const ip_addr_t *address) {
  return IP_IS_V6(address) ? 16 : 4;
}

/* Returns how many there are. */
static inline size_t nst_put_address(uint8_t *to, const ip_addr_t *address) {
  memcpy(to, nst_address_bytes(address), nst_address_size(address));
  return nst_address_size(address);
}

#endif
