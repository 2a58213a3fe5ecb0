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

/* Eight bytes more, the carry added at the end: RFC 1071 §2C, in words of any length (§2B). */
static u64_t add_eight(u64_t sum, const u8_t *bytes) {
  u64_t eight;
  memcpy(&eight, bytes, 8);
  sum += eight;
  return sum + (sum < eight);
}

/* The ones' complement sum of 16-bit words as they lie in memory, not inverted. */
u16_t nst_sum(const void *data, int length) {
  const u8_t *bytes = data;
  u64_t sum, one = 0, other = 0; /* two sums, as neither waits for the other */
  u16_t two = 0;
  for (; length >= 32; length -= 32, bytes += 32) {
    one = add_eight(add_eight(one, bytes), bytes + 16);
    other = add_eight(add_eight(other, bytes + 8), bytes + 24);
  }
  for (; length >= 8; length -= 8, bytes += 8) one = add_eight(one, bytes);
  sum = (one & 0xffffffffu) + (one >> 32) + (other & 0xffffffffu) + (other >> 32);
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
