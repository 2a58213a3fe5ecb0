/*
** Fuzzing (libFuzzer): packets for a stack with TCP, UDP and raw sockets open, through the guard and lwIP. The input is
** a list of orders. Some are packets as they are; most are packets of the right shape whose fields the fuzzer fills in:
** sequence numbers follow what the stack sent last, so that connections get established, and then abused.
*/
#include "fuzz.h"
#include "nat.h"
#include "raw.h"
#include "tcp.h"
#include "udp.h"

#define LISTENER 80
#define PORT 7

typedef struct world {
  nst_hub *hub;
  nst_stack *stack;
  nst_device *ends[2];
  nst_device *beyond[2]; /* of the pipe behind the stack, which is a router */
  bool to_beyond;        /* the packets of this order */
  nst_interface *interface; /* of ends[0] */
  unsigned group; /* of the next membership, or datagram to a group */
  bool group6;
  nst_tcp *listener, *accepted, *client;
  nst_udp *udp;
  nst_raw *raw4, *raw6;
  /* what the stack sent last over TCP: where its numbers stand */
  uint32_t their_next, our_next;
  uint16_t their_port;
  bool checksum, flooded;
  bool masquerades, hairpins; /* the interface of beyond[0]; every other packet from inside then goes to its address */
  unsigned hairpin;
  uint8_t left[128]; /* what left the stack there last */
  size_t left_length;
  uint8_t last[128]; /* what the stack sent last, for errors to quote */
  size_t last_length;
} world;

static const uint8_t own4[4] = {10, 0, 0, 1}, peer4[4] = {10, 0, 0, 2};
static const uint8_t own6[16] = {0xfd, [15] = 1}, peer6[16] = {0xfd, [15] = 2};
static const uint8_t outside4[4] = {10, 1, 0, 1}, beyond4[4] = {10, 1, 0, 9}, beyond6[16] = {0xfd, 1, [15] = 9};

static nst_interface *attach(nst_stack *stack, nst_device *device, unsigned net) {
  nst_prefix prefixes[2];
  nst_interface *interface = nst_interface_attach(stack, device, net ? "eth1" : "eth0", NULL);
  memset(prefixes, 0, sizeof prefixes);
  IP_ADDR4(&prefixes[0].address, 10, net, 0, 1);
  prefixes[0].bits = 24;
  IP_ADDR6(&prefixes[1].address, PP_HTONL(0xfd000000u | net << 16), 0, 0, PP_HTONL(1));
  prefixes[1].bits = 64;
  (void)nst_interface_set_addresses(interface, NST_ADDRESS_GIVEN, prefixes, 2);
  return interface;
}

static void masquerade(nst_interface *interface, bool on) {
  nst_endpoint inside = {{0}, 1000};
  memcpy(inside.host, peer4, 4);
  if (!on) return;
  (void)nst_nat_start(interface);
  if (nst_nat_map(interface, NST_NAT_TCP, 1000, &inside) != NST_OK) abort();
}

static void open_sockets(nst_stack *stack, void *argument) {
  world *w = argument;
  static const ip_addr_t any = IPADDR_ANY_TYPE_INIT;
  w->interface = attach(stack, w->ends[0], 0);
  masquerade(attach(stack, w->beyond[0], 1), w->masquerades);
  w->listener = nst_tcp_new(stack);
  (void)nst_tcp_bind(w->listener, &any, LISTENER);
  (void)nst_tcp_listen(w->listener, 4);
  w->udp = nst_udp_new(stack);
  (void)nst_udp_bind(w->udp, &any, PORT);
  w->raw4 = nst_raw_new(stack, false, 1);
  w->raw6 = nst_raw_new(stack, true, 58);
  turn_membership(w->udp, w->interface, false, 1);
  turn_membership(w->udp, w->interface, true, 1);
}

/* What comes out is read for its numbers and let go. */
static void drain(world *w) {
  nst_packet *packet;
  while ((packet = nst_device_receive(w->ends[1])) != NULL) {
    const uint8_t *bytes = packet->data;
    size_t header = bytes[0] >> 4 == 4 ? 20 : 40;
    w->last_length = packet->length < sizeof w->last ? packet->length : sizeof w->last;
    memcpy(w->last, bytes, w->last_length);
    if (packet->length >= header + 20 && bytes[header == 20 ? 9 : 6] == 6) {
      const uint8_t *tcp = bytes + header;
      w->their_port = (uint16_t)(tcp[0] << 8 | tcp[1]);
      w->their_next = get32(tcp + 4) + (uint32_t)(packet->length - header - (tcp[12] >> 4) * 4u) + ((tcp[13] & 3) != 0);
      if (tcp[13] & 16) w->our_next = get32(tcp + 8);
    }
    nst_packet_free(packet);
  }
  while ((packet = nst_device_receive(w->beyond[1])) != NULL) {
    if (packet->data[0] >> 4 == 4) {
      /* Whatever has left is the stack's own, or was translated. */
      if (w->masquerades && memcmp(packet->data + 12, outside4, 4) != 0 && memcmp(packet->data + 12, own4, 4) != 0) {
        abort();
      }
      w->left_length = packet->length < sizeof w->left ? packet->length : sizeof w->left;
      memcpy(w->left, packet->data, w->left_length);
    }
    nst_packet_free(packet);
  }
}

static void deliver(world *w, const uint8_t *bytes, size_t length) {
  nst_packet *packet = nst_packet_copy(w->hub, bytes, length, 0);
  if (packet && w->to_beyond && length >= 40) {
    if (bytes[0] >> 4 == 6) memcpy(packet->data + 24, beyond6, 16);
    else memcpy(packet->data + 16, w->hairpins && (w->hairpin++ & 1) ? outside4 : beyond4, 4);
  }
  if (packet && w->checksum) mend(packet->data, length);
  if (packet && nst_device_transmit(w->ends[1], packet) != NST_OK) nst_packet_free(packet);
}

/* An IP header in front of the payload that lies at packet + 40; returns where the packet begins. */
static uint8_t *with_header(uint8_t *packet, size_t *length, bool ipv6, unsigned protocol, unsigned fragment) {
  uint8_t *header = ipv6 ? packet : packet + 20;
  if (ipv6) {
    memset(header, 0, 40);
    header[0] = 0x60;
    put16(header + 4, (unsigned)*length);
    header[6] = (uint8_t)protocol;
    header[7] = 64;
    memcpy(header + 8, peer6, 16);
    memcpy(header + 24, own6, 16);
    *length += 40;
  } else {
    memset(header, 0, 20);
    header[0] = 0x45;
    *length += 20;
    put16(header + 2, (unsigned)*length);
    put16(header + 6, fragment);
    header[8] = 64;
    header[9] = (uint8_t)protocol;
    memcpy(header + 12, peer4, 4);
    memcpy(header + 16, own4, 4);
  }
  return header;
}

static void segment(world *w, source *s, uint8_t *packet, bool ipv6, bool to_listener) {
  uint8_t *tcp = packet + 40;
  unsigned flags = take(s), shape = take(s);
  size_t options = (shape & 7) * 4u, data = take(s), i, length;
  memset(tcp, 0, 20);
  put16(tcp, 1000u + (shape >> 6));
  put16(tcp + 2, to_listener ? LISTENER : w->their_port);
  put32(tcp + 4, w->our_next + (shape & 8 ? (uint32_t)(int8_t)take(s) : 0) + (shape & 16 ? take16(s) : 0));
  put32(tcp + 8, w->their_next + (shape & 32 ? (uint32_t)(int8_t)take(s) : 0));
  tcp[12] = (uint8_t)((5 + options / 4) << 4);
  tcp[13] = (uint8_t)flags;
  put16(tcp + 14, shape & 32 ? take16(s) : 65535);
  for (i = 0; i < options + data; i++) tcp[20 + i] = (uint8_t)take(s);
  length = 20 + options + data;
  deliver(w, with_header(packet, &length, ipv6, 6, 0), length);
}

static void payload(world *w, source *s, uint8_t *packet, bool ipv6, unsigned protocol, unsigned fragment) {
  size_t length = take(s), i;
  for (i = 0; i < length; i++) packet[40 + i] = (uint8_t)take(s);
  if (protocol == 17 && length >= 8 && fragment == 0) {
    put16(packet + 42, PORT);
    put16(packet + 44, (unsigned)length);
  }
  i = length;
  deliver(w, with_header(packet, &i, ipv6, protocol, fragment), i);
}

/* A piece of one of a few datagrams, which may go together with others or not. An odd one may also be of another
** protocol or source, lie far behind, or have a header in front of the fragment header. */
static void fragment(world *w, source *s, uint8_t *packet, bool ipv6, bool odd) {
  static const uint8_t protocols[2][4] = {{17, 1, 6, 253}, {17, 58, 60, 44}};
  unsigned shape = take(s), odds = odd ? take(s) : 0, offset = (shape & 0x1f) * (odds & 0x10 ? 2048u : 8u);
  unsigned more = (shape >> 5) & 1, id = (shape >> 6) + 1, protocol = protocols[ipv6][odds & 3];
  size_t length = take(s), in_front = ipv6 ? (odds & 0x20 ? 16 : 8) : 0, i;
  uint8_t *data = packet + 40 + in_front, *header;
  for (i = 0; i < length; i++) data[i] = (uint8_t)take(s);
  if (offset == 0 && length >= 8 && protocol == 17) {
    put16(data + 2, PORT);
    put16(data + 4, take16(s) & 0x3ff);
  }
  if (ipv6) {
    if (in_front > 8) memcpy(packet + 40, "\54\0\1\4\0\0\0\0", 8); /* destination options, of padding */
    data[-8] = (uint8_t)protocol;
    data[-7] = 0;
    put16(data - 6, offset | more);
    put32(data - 4, id);
    length += in_front;
  }
  header = with_header(packet, &length, ipv6, !ipv6 ? protocol : in_front > 8 ? 60 : 44, offset / 8 | more << 13);
  if (!ipv6) put16(header + 4, id);
  header[ipv6 ? 23 : 15] = (uint8_t)(2 + (odds >> 2 & 3));
  deliver(w, header, length);
}

/* More unfinished datagrams than a source may have; once, for it takes its time. */
static void flood(world *w, source *s, uint8_t *packet, bool ipv6) {
  unsigned first = take16(s), sources = take(s), i;
  if (w->flooded) return;
  w->flooded = true;
  for (i = 0; i < 150; i++) {
    size_t length = ipv6 ? 16 : 8;
    uint8_t *header;
    memset(packet + 40, 0, length);
    packet[40] = 17;
    put16(packet + 42, 81);
    put32(packet + 44, first + i);
    header = with_header(packet, &length, ipv6, ipv6 ? 44 : 17, 10 | 0x2000);
    if (!ipv6) put16(header + 4, first + i);
    header[ipv6 ? 23 : 15] = (uint8_t)(2 + i % (sources % 8 + 1));
    deliver(w, header, length);
  }
}

/* Somebody on the way says something of what was sent last. */
static void report(world *w, source *s, uint8_t *packet) {
  bool ipv6 = w->last_length > 0 && w->last[0] >> 4 == 6;
  size_t length = w->last_length;
  packet[40] = (uint8_t)take(s);
  packet[41] = (uint8_t)take(s);
  put16(packet + 42, 0);
  put32(packet + 44, take16(s));
  memcpy(packet + 48, w->last, length);
  if (take(s) & 1) packet[48 + take(s) % sizeof w->last] ^= (uint8_t)take(s);
  length += 8;
  deliver(w, with_header(packet, &length, ipv6, ipv6 ? 58 : 1, 0), length);
}

/* Somebody beyond answers what left last, or says something of it, more or less rightly. */
static void answer(world *w, source *s, uint8_t *packet) {
  unsigned shape = take(s);
  size_t length = w->left_length, at = length ? (w->left[0] & 15u) * 4u : 0;
  nst_packet *copy;
  if (length < at + 8 || at < 20) return;
  memset(packet, 0, 28);
  if (shape & 1) {
    length += 28;
    packet[0] = 0x45;
    packet[8] = 64;
    packet[9] = 1;
    memcpy(packet + 12, beyond4, 4);
    packet[20] = (uint8_t)(shape & 2 ? 3 : 11);
    memcpy(packet + 28, w->left, w->left_length);
  } else {
    memcpy(packet, w->left, length);
    memcpy(packet + 12, w->left + 16, 4);
    memcpy(packet + at, w->left + at + 2, 2);
    memcpy(packet + at + 2, w->left + at, 2);
    if (w->left[9] == 1) put16(packet + at, 0); /* the echo */
  }
  memcpy(packet + 16, outside4, 4);
  put16(packet + 2, (unsigned)length);
  if (shape & 4) packet[take(s) % length] ^= (uint8_t)take(s);
  if (shape & 8) length -= take(s) % length;
  if (!w->checksum) mend(packet, length);
  copy = nst_packet_copy(w->hub, packet, length, 0);
  if (copy && nst_device_transmit(w->beyond[1], copy) != NST_OK) nst_packet_free(copy);
}

static void send_datagram(nst_stack *stack, void *argument) {
  world *w = argument;
  static char data[4000];
  ip_addr_t host;
  (void)stack;
  IP_ADDR4(&host, 10, 0, 0, 2);
  (void)nst_udp_send(w->udp, &host, 9, data, sizeof data);
}

static void use_sockets(nst_stack *stack, void *argument) {
  world *w = argument;
  char data[512];
  size_t sent;
  (void)stack;
  memset(data, 'x', sizeof data);
  if (w->accepted == NULL) (void)nst_tcp_accept(w->listener, &w->accepted);
  if (w->accepted) {
    (void)nst_tcp_send(w->accepted, data, sizeof data, &sent);
    if (nst_tcp_readable(w->accepted) == NST_OK && nst_tcp_consume(w->accepted, w->accepted->received_length)) {
      nst_tcp_announce(w->accepted);
    }
  }
}

static void start_connect(nst_stack *stack, void *argument) {
  world *w = argument;
  ip_addr_t host;
  IP_ADDR4(&host, 10, 0, 0, 2);
  if (w->client == NULL) w->client = nst_tcp_new(stack);
  if (w->client) (void)nst_tcp_connect(w->client, &host, 1000);
}

static void use_groups(nst_stack *stack, void *argument) {
  world *w = argument;
  (void)stack;
  if (w->group & 0x40) send_to_group(w->udp, w->interface, w->group6, w->group);
  else turn_membership(w->udp, w->interface, w->group6, w->group);
}

/* Something comes for a group, or a membership begins or ends, or something is sent to one. */
static void for_groups(world *w, source *s, uint8_t *packet, bool ipv6) {
  size_t length;
  uint8_t *begin;
  w->group = take(s);
  w->group6 = ipv6;
  if (w->group & 0x80) {
    (void)nst_inside(w->stack, use_groups, w);
    return;
  }
  begin = group_packet(s, packet, ipv6, &length);
  deliver(w, begin, length);
}

static void order(world *w, source *s, uint8_t *packet) {
  unsigned what = take(s);
  bool ipv6 = (what & 0x80) != 0;
  w->to_beyond = (what & 0x30) == 0x30;
  if ((what & 0x6c) == 0x6c) {
    for_groups(w, s, packet, ipv6);
    return;
  }
  if ((what & 0x60) == 0x60) {
    switch (what & 3) {
      case 0: case 1: fragment(w, s, packet, ipv6, what & 1); break;
      case 2:
        if (what & 4) answer(w, s, packet);
        else report(w, s, packet);
        break;
      default:
        if (what & 0x10) flood(w, s, packet, ipv6);
        else (void)nst_inside(w->stack, send_datagram, w);
    }
    return;
  }
  switch (what & 15) {
    case 0: case 1: case 2: segment(w, s, packet, ipv6, true); break;
    case 3: segment(w, s, packet, ipv6, false); break;
    case 4: payload(w, s, packet, ipv6, 17, 0); break;
    case 5: payload(w, s, packet, ipv6, ipv6 ? 58 : 1, 0); break;
    case 6: payload(w, s, packet, false, 17, take16(s)); break;  /* fragments */
    case 7: payload(w, s, packet, true, 44, 0); break;
    case 8: payload(w, s, packet, true, what & 0x10 ? 0 : 60, 0); break; /* extension headers */
    case 9: payload(w, s, packet, true, 43, 0); break;
    case 10: payload(w, s, packet, ipv6, take(s), 0); break;
    case 11: (void)nst_inside(w->stack, use_sockets, w); break;
    case 12: (void)nst_inside(w->stack, start_connect, w); break;
    case 13: w->stack->now += (nst_time)take(s) * 100 * NST_MILLISECOND; break;
    case 14:
      if (w->accepted) close_one(&w->accepted->socket);
      w->accepted = NULL;
      break;
    default: {
      size_t length = take(s), i;
      for (i = 0; i < length; i++) packet[i] = (uint8_t)take(s);
      deliver(w, packet, length);
    }
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static uint8_t packet[1024];
  nst_config config = small_config();
  source s;
  world w;
  int orders = 64;
  memset(&w, 0, sizeof w);
  config.forwarding = true;
  w.hub = nst_hub_new();
  w.stack = nst_stack_new(w.hub, &config);
  w.checksum = size > 0 && (data[size - 1] & 1);
  w.masquerades = size > 0 && (data[size - 1] & 2);
  w.hairpins = size > 0 && (data[size - 1] & 4);
  if (!nst_pipe_new(w.hub, 1500, NST_MEDIUM_IP, 0, w.checksum, w.ends)) abort();
  if (!nst_pipe_new(w.hub, 1280, NST_MEDIUM_IP, 0, !w.checksum, w.beyond)) abort();
  (void)nst_inside(w.stack, open_sockets, &w);
  s.data = data;
  s.size = size;
  while (s.size > 0 && orders-- > 0) {
    order(&w, &s, packet);
    settle(w.stack);
    drain(&w);
  }
  close_one(&w.listener->socket);
  close_one(&w.udp->socket);
  close_one(&w.raw4->socket);
  close_one(&w.raw6->socket);
  if (w.accepted) close_one(&w.accepted->socket);
  if (w.client) close_one(&w.client->socket);
  nst_device_close(w.beyond[0]);
  nst_device_release(w.beyond[0]);
  nst_device_release(w.beyond[1]);
  close_world(w.hub, w.stack, w.ends);
  return 0;
}
