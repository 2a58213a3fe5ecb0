/* What the fuzzing programs share: the fuzzer's bytes as a source of fields, checksums, and a stack that is let run. */
#ifndef NST_FUZZ_H
#define NST_FUZZ_H

#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "interface.h"
#include "stack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The fuzzer's bytes, zeros at their end. */
typedef struct source {
  const uint8_t *data;
  size_t size;
} source;

static inline unsigned take(source *s) {
  if (s->size == 0) return 0;
  s->size--;
  return *s->data++;
}

static inline unsigned take16(source *s) {
  unsigned high = take(s);
  return high << 8 | take(s);
}

static inline void put16(uint8_t *to, unsigned value) {
  to[0] = (uint8_t)(value >> 8);
  to[1] = (uint8_t)value;
}

static inline void put32(uint8_t *to, uint32_t value) {
  put16(to, value >> 16);
  put16(to + 2, value & 0xffff);
}

static inline unsigned get16(const uint8_t *from) {
  return (unsigned)from[0] << 8 | from[1];
}

static inline uint32_t get32(const uint8_t *from) {
  return (uint32_t)get16(from) << 16 | get16(from + 2);
}

static inline uint32_t sum(uint32_t before, const uint8_t *bytes, size_t length) {
  size_t i;
  for (i = 0; i + 1 < length; i += 2) before += get16(bytes + i);
  if (i < length) before += (uint32_t)bytes[i] << 8;
  return before;
}

static inline unsigned folded(uint32_t total) {
  while (total >> 16) total = (total & 0xffff) + (total >> 16);
  return 0xffff & ~total;
}

/* Makes the checksums of an IP packet right, as far as it has any: fuzzing gets nowhere with wrong ones. */
static inline void mend(uint8_t *ip, size_t length) {
  bool ipv6 = length > 0 && ip[0] >> 4 == 6;
  size_t header = ipv6 ? 40 : 20, at;
  unsigned protocol;
  uint32_t pseudo;
  if (length < header) return;
  if (!ipv6) header = (ip[0] & 15u) * 4u;
  if (header < 20 || header > length) return;
  protocol = ip[ipv6 ? 6 : 9];
  if (!ipv6) {
    put16(ip + 10, 0);
    put16(ip + 10, folded(sum(0, ip, header)));
    if ((get16(ip + 6) & 0x3fff) != 0) return; /* of a piece there is nothing to sum up */
  }
  at = protocol == 6 ? 16 : protocol == 17 ? 6 : protocol == 58 || protocol == 1 ? 2 : 0;
  if (at == 0 || length < header + at + 2) return;
  put16(ip + header + at, 0);
  pseudo = protocol == 1 ? 0 : sum(protocol + (uint32_t)(length - header), ip + (ipv6 ? 8 : 12), ipv6 ? 32 : 8);
  put16(ip + header + at, folded(sum(pseudo, ip + header, length - header)));
}

static inline nst_config small_config(void) {
  nst_config config;
  memset(&config, 0, sizeof config);
  config.mtu = 1500;
  config.tcp_buffer_size = 8192;
  config.udp_buffer_size = config.raw_buffer_size = 65536;
  config.udp_message_count = config.raw_message_count = 16;
  config.seeded = true;
  return config;
}

/* Lets the stack do what there is to do; a packet that keeps it busy for ever, or an assertion, is what we look for. */
static inline void settle(nst_stack *stack) {
  int rounds = 0;
  while (stack->open && nst_stack_poll(stack, NULL)) {
    if (++rounds == 200) abort();
  }
  if (!stack->open) abort();
}

static inline void close_one(nst_socket *socket) {
  if (socket == NULL) return;
  nst_socket_close(socket);
  nst_socket_release(socket);
}

/* What is left when the sockets are closed: a stack on one end of a pipe. */
static inline void close_world(nst_hub *hub, nst_stack *stack, nst_device *const ends[2]) {
  nst_stack_close(stack);
  nst_stack_release(stack);
  nst_device_release(ends[0]);
  nst_device_release(ends[1]);
  nst_hub_release(hub);
}

#endif
