/* What the fuzzing programs share: the fuzzer's bytes as a source of fields, checksums, and a stack that is let run. */
#ifndef NST_FUZZ_H
#define NST_FUZZ_H

#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "group.h"
#include "interface.h"
#include "stack.h"
#include "udp.h"

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

/* Groups that a socket is in, or may join, the one of all hosts, and none; 4 or 16 bytes. */
static inline void put_group(uint8_t *to, bool ipv6, unsigned which) {
  memset(to, 0, ipv6 ? 16 : 4);
  if ((which & 7) == 7) return;
  if (ipv6) {
    to[0] = 0xff;
    to[1] = which & 1 ? 5 : 2;
    to[15] = (which & 7) == 6 ? 1 : (uint8_t)(0x10 + (which & 7));
  } else {
    to[0] = (which & 7) == 6 ? 224 : 239;
    to[3] = (which & 7) == 6 ? 1 : (uint8_t)(0x10 + (which & 7));
  }
}

static inline ip_addr_t group_address(bool ipv6, unsigned which) {
  ip_addr_t address;
  memset(&address, 0, sizeof address);
  IP_SET_TYPE_VAL(address, ipv6 ? IPADDR_TYPE_V6 : IPADDR_TYPE_V4);
  put_group(ipv6 ? (uint8_t *)ip_2_ip6(&address)->addr : (uint8_t *)&ip_2_ip4(&address)->addr, ipv6, which);
  return address;
}

/* Joins a group, or leaves it. */
static inline void turn_membership(nst_udp *udp, nst_interface *interface, bool ipv6, unsigned which) {
  ip_addr_t address = group_address(ipv6, which);
  if (nst_group_join(udp, interface, &address) == NST_ADDRESS_IN_USE) {
    (void)nst_group_leave(udp, which & 8 ? interface : NULL, &address);
  }
}

/* To members on the link and on the stack; bit 5: in fragments. */
static inline void send_to_group(nst_udp *udp, nst_interface *interface, bool ipv6, unsigned which) {
  static char data[3000];
  ip_addr_t address = group_address(ipv6, which);
  nst_udp_send_groups_through(udp, which & 16 ? interface : NULL);
  (void)nst_udp_send(udp, &address, 7, data, which & 32 ? sizeof data : 10);
}

/* A datagram to a group, or a message about one, at packet + 80 or before it; its length, and where it begins. */
static inline uint8_t *group_packet(source *s, uint8_t *packet, bool ipv6, size_t *length) {
  static const uint8_t alert4[4] = {148, 4, 0, 0}, alert6[8] = {58, 0, 5, 2, 0, 0, 1, 0};
  unsigned shape = take(s), which = take(s), rest = take(s) % 40, i;
  bool datagram = (shape & 3) == 3, alert = !datagram && !(shape & 4);
  size_t options = alert ? (ipv6 ? 8 : 4) : 0, header = (ipv6 ? 40 : 20) + options;
  uint8_t *message = packet + 80, *ip = message - header;
  size_t size = datagram ? 8 : ipv6 ? 24 : 8;
  memset(ip, 0, header + size);
  for (i = 0; i < rest; i++) message[size + i] = (uint8_t)take(s);
  size += rest;
  ip[0] = ipv6 ? 0x60 : (uint8_t)(0x40 + header / 4);
  if (ipv6) put16(ip + 4, (unsigned)(options + size));
  else put16(ip + 2, (unsigned)(header + size));
  ip[ipv6 ? 6 : 9] = (uint8_t)(datagram ? 17 : !ipv6 ? 2 : alert ? 0 : 58);
  ip[ipv6 ? 7 : 8] = shape & 8 ? (uint8_t)take(s) : 1;
  if (alert) memcpy(ip + header - options, ipv6 ? alert6 : alert4, options);
  if (ipv6) memcpy(ip + 8, "\xfe\x80\0\0\0\0\0\0\0\0\0\0\0\0\0\2", 16);
  else memcpy(ip + 12, "\12\0\0\2", 4);
  put_group(ip + (ipv6 ? 24 : 16), ipv6, which);
  if (datagram) {
    put16(message + 2, 7);
    put16(message + 4, (unsigned)(shape & 16 ? take(s) : size));
  } else {
    static const uint8_t types4[4] = {0x11, 0x16, 0x17, 0x22}, types6[4] = {130, 131, 132, 143};
    message[0] = (ipv6 ? types6 : types4)[shape & 16 ? shape >> 6 : 0];
    if (ipv6) put16(message + 4, take16(s));
    else message[1] = (uint8_t)take(s);
    put_group(message + (ipv6 ? 8 : 4), ipv6, which >> 3);
    if (!ipv6) put16(message + 2, folded(sum(0, message, size)));
    else put16(message + 2, folded(sum(sum(58 + (uint32_t)size, ip + 8, 32), message, size)));
  }
  *length = header + size;
  return ip;
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
