/*
** Fuzzing (libFuzzer): frames for a stack on an Ethernet, with hosts that are asked for, answer or not, and lie. The
** input is a list of orders: frames as they are, and ARP, neighbour discovery, router advertisements, DHCP and IP
** packets whose fields the fuzzer fills in.
*/
#include "dhcp.h"
#include "ethernet.h"
#include "fuzz.h"
#include "nd.h"
#include "neighbour.h"
#include "slaac.h"
#include "tcp.h"
#include "udp.h"

typedef struct world {
  nst_hub *hub;
  nst_stack *stack;
  nst_device *ends[2];
  nst_interface *interface;
  nst_tcp *listener, *client;
  nst_udp *udp;
  bool checksum;
  unsigned host; /* of the next send or connect */
  unsigned group; /* of the next membership, or datagram to a group */
  bool ipv6, more; /* ...addresses than usual */
  nst_prefix sure[NST_ADDRESSES + 1]; /* addresses that nobody can take away any more */
  size_t sure_count;
} world;

static const uint8_t own[6] = {2, 0, 0, 0, 0, 1};

/* Stations: two that behave, ours, everybody's, a group's. */
static void put_station(uint8_t *to, unsigned which) {
  memset(to, 0, 6);
  to[0] = 2;
  to[5] = (uint8_t)(which & 3);
  if ((which & 0x1c) == 0x1c) memset(to, 0xff, 6);
  else if (which & 0x10) memcpy(to, own, 6);
  else if ((which & 0x1c) == 0x0c) to[0] = 0x33;
}

/* Hosts 10.0.0.x; x 1 and 3 are ours. */
static void put_host4(uint8_t *to, unsigned which) {
  static const uint8_t nobody[4], all[4] = {255, 255, 255, 255}, group[4] = {224, 0, 0, 1};
  static const uint8_t net[3] = {10, 0, 0};
  memcpy(to, net, 3);
  to[3] = (uint8_t)(which & 15);
  if ((which & 0xf0) == 0xf0) memcpy(to, nobody, 4);
  else if ((which & 0xf0) == 0xe0) memcpy(to, all, 4);
  else if ((which & 0xf0) == 0xd0) memcpy(to, group, 4);
}

static void put_host6(uint8_t *to, unsigned which) {
  memset(to, 0, 16);
  switch (which >> 6) {
    case 0: to[0] = 0xfd; to[15] = (uint8_t)(which & 15); break;
    case 1: to[0] = 0xfe; to[1] = 0x80; to[8] = 0; to[11] = 0xff; to[12] = 0xfe; to[15] = (uint8_t)(which & 15); break;
    case 2:
      to[0] = 0xff;
      to[1] = 2;
      to[11] = which & 32 ? 1 : 0;
      to[12] = which & 32 ? 0xff : 0;
      to[15] = (uint8_t)(which & 15);
      break;
    default: break;
  }
}

static void deliver(world *w, const uint8_t *bytes, size_t length) {
  nst_packet *packet = nst_packet_copy(w->hub, bytes, length, NST_FRAME_HEADER);
  if (packet && nst_device_transmit(w->ends[1], packet) != NST_OK) nst_packet_free(packet);
}

static size_t begin(source *s, uint8_t *frame, unsigned type) {
  put_station(frame, take(s));
  put_station(frame + 6, take(s));
  put16(frame + 12, type);
  return 14;
}

static void arp(world *w, source *s, uint8_t *frame) {
  size_t at = begin(s, frame, 0x0806);
  static const uint8_t head[6] = {0, 1, 8, 0, 6, 4};
  unsigned odd = take(s);
  memcpy(frame + at, head, 6);
  put16(frame + at + 6, 1 + (odd & 1));
  put_station(frame + at + 8, odd & 2 ? take(s) : 0);
  if (!(odd & 2)) memcpy(frame + at + 8, frame + 6, 6);
  put_host4(frame + at + 14, take(s));
  put_station(frame + at + 18, take(s));
  put_host4(frame + at + 24, take(s));
  if (odd & 4) frame[at + take(s) % 28] ^= (uint8_t)take(s);
  deliver(w, frame, at + 28 - (odd & 8 ? take(s) % 42 : 0));
}

static void discovery(world *w, source *s, uint8_t *frame) {
  size_t at = begin(s, frame, 0x86dd), options, i;
  uint8_t *ip = frame + at;
  unsigned odd = take(s);
  memset(ip, 0, 64);
  ip[0] = 0x60;
  ip[6] = 58;
  ip[7] = odd & 1 ? (uint8_t)take(s) : 255;
  put_host6(ip + 8, take(s));
  put_host6(ip + 24, take(s));
  ip[40] = (uint8_t)(133 + (odd >> 1) % 5);
  ip[44] = (uint8_t)take(s);
  put_host6(ip + 48, take(s));
  options = odd & 0x20 ? take(s) % 64 : odd & 0x40 ? 8 : 0;
  for (i = 0; i < options; i++) ip[64 + i] = (uint8_t)take(s);
  if (!(odd & 0x20) && options) {
    ip[64] = (uint8_t)(1 + (ip[64] & 1));
    ip[65] = 1;
    put_station(ip + 66, ip[66]);
  }
  put16(ip + 4, (unsigned)(24 + options));
  if (w->checksum) mend(ip, 64 + options);
  deliver(w, frame, at + 64 + options);
}

/* An option of a router's; returns where it ends. */
static size_t advertise_option(source *s, uint8_t *to, unsigned type) {
  static const uint32_t lifetimes[] = {0, 1, 30, 7000, 7300, 86400, 0xffffffff};
  size_t i, size = 32;
  memset(to, 0, size);
  switch (type & 3) {
    case 0: /* a prefix, of few */
      to[0] = NST_ND_PREFIX;
      to[2] = type & 4 ? (uint8_t)take(s) : 64;
      to[3] = (uint8_t)(type & 0xc0);
      put32(to + 4, lifetimes[take(s) % 7]);
      put32(to + 8, lifetimes[take(s) % 7]);
      put_host6(to + 16, type & 8 ? take(s) : 0);
      to[23] = (uint8_t)(take(s) & 31);
      break;
    case 1:
      to[0] = NST_ND_SERVERS;
      size = 24;
      put32(to + 4, lifetimes[take(s) % 7]);
      put_host6(to + 8, take(s));
      break;
    case 2:
      to[0] = NST_ND_MTU;
      size = 8;
      put16(to + 6, take16(s));
      break;
    default:
      to[0] = (uint8_t)take(s);
      size = 8 + (take(s) & 3) * 8u;
      for (i = 2; i < size; i++) to[i] = (uint8_t)take(s);
  }
  to[1] = (uint8_t)(size / 8);
  if (type & 16) to[1] = (uint8_t)take(s);
  return size;
}

/* What a router advertises: mostly one of five, with options that mostly make sense. */
static void advertisement(world *w, source *s, uint8_t *frame) {
  size_t at = begin(s, frame, 0x86dd), length = 56, options;
  uint8_t *ip = frame + at;
  unsigned odd = take(s);
  memset(ip, 0, length);
  ip[0] = 0x60;
  ip[6] = 58;
  ip[7] = odd & 1 ? (uint8_t)take(s) : 255;
  put_host6(ip + 8, odd & 2 ? take(s) : 0x42 + (odd >> 2 & 7));
  put_host6(ip + 24, odd & 32 ? take(s) : 0x81);
  ip[40] = NST_ND_ROUTER_ADVERTISEMENT;
  ip[45] = (uint8_t)take(s);
  put16(ip + 46, odd & 64 ? take(s) * 100 : take(s));
  for (options = take(s) & 15; options > 0; options--) length += advertise_option(s, ip + length, take(s));
  put16(ip + 4, (unsigned)(length - 40));
  if (w->checksum) mend(ip, length);
  deliver(w, frame, at + length - (odd & 128 ? take(s) % 8 : 0));
}

static void packet4(world *w, source *s, uint8_t *frame) {
  size_t at = begin(s, frame, 0x0800), length = take(s), i;
  uint8_t *ip = frame + at;
  memset(ip, 0, 20);
  ip[0] = 0x45;
  put16(ip + 2, (unsigned)(20 + length));
  ip[8] = 64;
  ip[9] = (uint8_t)take(s);
  put_host4(ip + 12, take(s));
  put_host4(ip + 16, take(s));
  for (i = 0; i < length; i++) ip[20 + i] = (uint8_t)take(s);
  if (w->checksum) mend(ip, 20 + length);
  deliver(w, frame, at + 20 + length);
}

static void packet6(world *w, source *s, uint8_t *frame) {
  size_t at = begin(s, frame, 0x86dd), length = take(s), i;
  uint8_t *ip = frame + at;
  memset(ip, 0, 40);
  ip[0] = 0x60;
  put16(ip + 4, (unsigned)length);
  ip[6] = (uint8_t)take(s);
  ip[7] = 255;
  put_host6(ip + 8, take(s));
  put_host6(ip + 24, take(s));
  for (i = 0; i < length; i++) ip[40 + i] = (uint8_t)take(s);
  if (w->checksum) mend(ip, 40 + length);
  deliver(w, frame, at + 40 + length);
}

/* What a DHCP server says, to the question that is open; its options are the fuzzer's. */
static void lease(world *w, source *s, uint8_t *frame) {
  static const uint8_t cookie[4] = {99, 130, 83, 99};
  uint8_t *ip = frame + 14, *message = ip + 28;
  unsigned odd = take(s);
  size_t options = take(s) % 64, length = 28 + 240 + options, i;
  if (w->interface->dhcp == NULL) return;
  memset(frame, 0, 14 + length);
  memset(frame, 0xff, 6);
  put_station(frame + 6, 0);
  put16(frame + 12, 0x0800);
  ip[0] = 0x45;
  put16(ip + 2, (unsigned)length);
  ip[8] = 64;
  ip[9] = 17;
  put_host4(ip + 12, 2);
  memset(ip + 16, 0xff, 4);
  put16(ip + 20, 67);
  put16(ip + 22, 68);
  put16(ip + 24, (unsigned)(length - 20));
  message[0] = odd & 1 ? (uint8_t)take(s) : 2;
  memcpy(message + 4, &w->interface->dhcp->xid, 4);
  put_host4(message + 16, take(s));
  memcpy(message + 28, own, 6);
  memcpy(message + 236, cookie, 4);
  for (i = 0; i < options; i++) message[240 + i] = (uint8_t)take(s);
  if (w->checksum) mend(ip, length);
  deliver(w, frame, 14 + length);
}

static void start_dhcp(nst_stack *stack, void *argument) {
  world *w = argument;
  (void)stack;
  if (w->interface->dhcp == NULL) (void)nst_dhcp_start(w->interface);
}

static void set_addresses(nst_stack *stack, void *argument) {
  world *w = argument;
  nst_prefix prefixes[4];
  (void)stack;
  memset(prefixes, 0, sizeof prefixes);
  IP_ADDR4(&prefixes[0].address, 10, 0, 0, 1);
  IP_ADDR4(&prefixes[1].address, 10, 0, 0, 3);
  IP_ADDR6(&prefixes[2].address, PP_HTONL(0xfd000000), 0, 0, PP_HTONL(1));
  IP_ADDR6(&prefixes[3].address, PP_HTONL(0xfd000000), 0, 0, PP_HTONL(5));
  prefixes[0].bits = prefixes[1].bits = 24;
  prefixes[2].bits = prefixes[3].bits = 64;
  (void)nst_interface_set_addresses(w->interface, NST_ADDRESS_GIVEN, prefixes, w->more ? 4 : 3);
}

static void open_sockets(nst_stack *stack, void *argument) {
  world *w = argument;
  static const ip_addr_t any = IPADDR_ANY_TYPE_INIT;
  nst_prefix everywhere;
  ip_addr_t gateway;
  uint8_t bytes[16];
  w->interface = nst_interface_attach(stack, w->ends[0], "eth0", own);
  set_addresses(stack, w);
  if (nst_slaac_start(w->interface) != NST_OK) abort();
  memset(&everywhere, 0, sizeof everywhere);
  IP_ADDR4(&everywhere.address, 0, 0, 0, 0);
  IP_ADDR4(&gateway, 10, 0, 0, 9);
  (void)nst_route_add(stack, &everywhere, NULL, &gateway, NST_ROUTE_STATIC);
  IP_ADDR6(&everywhere.address, 0, 0, 0, 0);
  IP_ADDR6(&gateway, 0, 0, 0, 0);
  put_host6(bytes, 0x42); /* a link-local one */
  memcpy(ip_2_ip6(&gateway)->addr, bytes, 16);
  ip6_addr_assign_zone(ip_2_ip6(&gateway), IP6_UNICAST, &w->interface->netifs[0]);
  (void)nst_route_add(stack, &everywhere, NULL, &gateway, NST_ROUTE_STATIC);
  w->listener = nst_tcp_new(stack);
  (void)nst_tcp_bind(w->listener, &any, 80);
  (void)nst_tcp_listen(w->listener, 4);
  w->udp = nst_udp_new(stack);
  (void)nst_udp_bind(w->udp, &any, 7);
  turn_membership(w->udp, w->interface, false, 1);
  turn_membership(w->udp, w->interface, true, 1);
}

static void host_of(const world *w, ip_addr_t *host) {
  uint8_t bytes[16];
  if (w->ipv6) {
    put_host6(bytes, w->host);
    if ((w->host & 0xd0) == 0x10) bytes[1] = 99; /* behind the gateway */
    IP_ADDR6(host, 0, 0, 0, 0);
    memcpy(ip_2_ip6(host)->addr, bytes, 16);
    ip6_addr_assign_zone(ip_2_ip6(host), IP6_UNICAST, &w->interface->netifs[0]);
  } else {
    put_host4(bytes, w->host);
    IP_ADDR4(host, bytes[0], w->host & 16 ? 99 : bytes[1], bytes[2], bytes[3]); /* some are behind the gateway */
  }
}

static void send_datagram(nst_stack *stack, void *argument) {
  world *w = argument;
  static char data[3000];
  ip_addr_t host;
  (void)stack;
  host_of(w, &host);
  w->udp->broadcast = true;
  (void)nst_udp_send(w->udp, &host, 9, data, w->host & 32 ? sizeof data : 10);
}

static void start_connect(nst_stack *stack, void *argument) {
  world *w = argument;
  ip_addr_t host;
  host_of(w, &host);
  if (w->client && !w->client->connecting && !w->client->connected) {
    close_one(&w->client->socket);
    w->client = NULL;
  }
  if (w->client == NULL) w->client = nst_tcp_new(stack);
  if (w->client) (void)nst_tcp_connect(w->client, &host, 1000);
}

static void use_groups(nst_stack *stack, void *argument) {
  world *w = argument;
  (void)stack;
  if (w->group & 0x40) send_to_group(w->udp, w->interface, w->ipv6, w->group);
  else turn_membership(w->udp, w->interface, w->ipv6, w->group);
}

/* Something comes for a group, or a membership begins or ends, or something is sent to one. */
static void for_groups(world *w, source *s, uint8_t *frame) {
  size_t length;
  uint8_t *ip;
  w->group = take(s);
  if (w->group & 0x80) {
    (void)nst_inside(w->stack, use_groups, w);
    return;
  }
  ip = group_packet(s, frame, w->ipv6, &length);
  put_station(ip - 14, 0x0c);
  put_station(ip - 8, 0);
  put16(ip - 2, w->ipv6 ? 0x86dd : 0x0800);
  if (w->checksum) mend(ip, length);
  deliver(w, ip - 14, 14 + length);
}

static void turn(nst_stack *stack, void *argument) {
  world *w = argument;
  (void)stack;
  nst_interface_set_up(w->interface, !w->interface->up);
}

/* Notes which IPv6 addresses are surely ours; those of prefixes end when a router says so. */
static void note_sure(world *w) {
  const nst_interface *interface = w->interface;
  size_t i;
  w->sure_count = 0;
  for (i = 0; i <= NST_ADDRESSES; i++) {
    const nst_prefix *prefix = i < NST_ADDRESSES ? &interface->addresses[i] : &interface->link_local;
    if (i < NST_ADDRESSES ? i >= interface->address_count : !interface->has_link_local) continue;
    if (!IP_IS_V6(&prefix->address)) continue; /* DHCP may give one, and take it away */
    if (i < NST_ADDRESSES && interface->origins[i] == NST_ADDRESS_FORMED) continue;
    if (interface->tentative_until[i] <= w->stack->now) w->sure[w->sure_count++] = *prefix;
  }
}

static bool interface_is_over_bounds(const world *w) {
  const nst_slaac *slaac = w->interface->slaac;
  const nst_link *link;
  size_t i, six = 0, routes = 0;
  for (i = 0; i < w->interface->address_count; i++) six += IP_IS_V6(&w->interface->addresses[i].address);
  for (link = w->stack->routes.all.next; link != &w->stack->routes.all; link = link->next) routes++;
  if (six > NST_IPV6_ADDRESSES || routes > NST_ADDRESSES + NST_SLAAC_PREFIXES + 6) return true;
  return slaac->router_count > NST_SLAAC_ROUTERS || slaac->prefix_count > NST_SLAAC_PREFIXES ||
         slaac->server_count > NST_SLAAC_SERVERS || (w->interface->on && slaac->at <= w->stack->now);
}

static void check(world *w) {
  const nst_neighbours *all = &w->stack->neighbours;
  const nst_link *at;
  size_t i, count = 0;
  for (i = 0; i < w->sure_count; i++) {
    if (!nst_interface_has_address(w->interface, &w->sure[i].address)) abort(); /* somebody has taken it away */
  }
  for (at = w->interface->egress.next; at != &w->interface->egress; at = at->next) count++;
  if (interface_is_over_bounds(w)) abort();
  if (all->table.count > 1600 || all->waiting > 1024 || all->waiting_bytes > 4 << 20 || count > 2048) abort();
  if (w->stack->groups.table.count > NST_GROUPS || w->udp->membership_count > NST_MEMBERSHIPS) abort();
}

/* true: what the stack sends is taken from the device before the next order. */
static bool order(world *w, source *s, uint8_t *frame) {
  unsigned what = take(s);
  size_t length, i;
  w->ipv6 = (what & 0x80) != 0;
  if ((what & 0x6c) == 0x6c) {
    for_groups(w, s, frame);
    return true;
  }
  if ((what & 0x60) == 0x60) {
    if (what & 0x10) advertisement(w, s, frame);
    else if (what & 1) (void)nst_inside(w->stack, start_dhcp, w);
    else lease(w, s, frame);
    return true;
  }
  switch (what & 15) {
    case 0: case 1: case 2: arp(w, s, frame); break;
    case 3: case 4: case 5: discovery(w, s, frame); break;
    case 6: packet4(w, s, frame); break;
    case 7: packet6(w, s, frame); break;
    case 8: case 9: w->host = take(s); (void)nst_inside(w->stack, send_datagram, w); break;
    case 10: w->host = take(s); (void)nst_inside(w->stack, start_connect, w); break;
    case 11: w->stack->now += (nst_time)take(s) * 100 * NST_MILLISECOND; break;
    case 12: w->stack->now += (nst_time)take(s) * (what & 0x10 ? 60 : 1) * NST_SECOND; break;
    case 13:
      w->more = (what & 0x20) != 0;
      w->sure_count = 0;
      (void)nst_inside(w->stack, set_addresses, w);
      break;
    case 14: (void)nst_inside(w->stack, turn, w); break;
    default:
      length = take(s);
      for (i = 0; i < length; i++) frame[i] = (uint8_t)take(s);
      if (length > 0) deliver(w, frame, length);
  }
  return (what & 0x40) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static uint8_t frame[1024];
  nst_config config = small_config();
  source s;
  world w;
  nst_packet *packet;
  int orders = 64;
  bool taken;
  memset(&w, 0, sizeof w);
  w.hub = nst_hub_new();
  w.stack = nst_stack_new(w.hub, &config);
  w.checksum = size > 0 && (data[size - 1] & 1);
  if (!nst_pipe_new(w.hub, 1500, NST_MEDIUM_ETHERNET, size > 0 && (data[size - 1] & 2) ? 8 : 0, w.checksum, w.ends)) {
    abort();
  }
  (void)nst_inside(w.stack, open_sockets, &w);
  s.data = data;
  s.size = size;
  while (s.size > 0 && orders-- > 0) {
    note_sure(&w);
    taken = order(&w, &s, frame);
    settle(w.stack);
    while (taken && (packet = nst_device_receive(w.ends[1])) != NULL) nst_packet_free(packet);
    check(&w);
  }
  close_one(&w.listener->socket);
  close_one(&w.udp->socket);
  if (w.client) close_one(&w.client->socket);
  close_world(w.hub, w.stack, w.ends);
  return 0;
}
