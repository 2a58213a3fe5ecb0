/*
** The few things of ours that are linked into lwIP's object, so that they are part of each stack's state image.
*/
#include <string.h>

#include "lwip/opt.h"
#include "lwip/sys.h"
#include "lwip/priv/tcp_priv.h"

uint32_t nst_tcp_buffer_size;
uint8_t nst_tcp_window_scale;

/* lwIP's idea of the time, in milliseconds: the tick that tcp_timers.c sets. */
u32_t sys_now(void) { return tcp_ticks; }

/* The ones' complement sum of 16-bit words as they lie in memory (RFC 1071 §2B), not inverted. */
u16_t nst_sum(const void *data, int length) {
  const u8_t *bytes = data;
  u64_t sum = 0;
  u64_t eight;
  u16_t two = 0;
  for (; length >= 8; length -= 8, bytes += 8) {
    memcpy(&eight, bytes, 8);
    sum += (eight & 0xffffffffu) + (eight >> 32);
  }
  for (; length >= 2; length -= 2, bytes += 2) {
    memcpy(&two, bytes, 2);
    sum += two;
  }
  two = 0;
  memcpy(&two, bytes, (size_t)length); /* a last byte is followed by a zero */
  sum += two;
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return (u16_t)sum;
}
