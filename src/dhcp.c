#include "dhcp.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "checksum.h"
#include "ethernet.h"
#include "stack.h"
#include "trace.h"

enum { DISCOVER = 1, OFFER, REQUEST, DECLINE, ACK, NAK };
enum {
  PAD = 0, MASK = 1, ROUTER = 3, DNS = 6, REQUESTED = 50, LEASE = 51, TYPE = 53, SERVER = 54, WANTED = 55, RENEWAL = 58,
  REBINDING = 59, CLIENT = 61, END = 255
};

#define SERVER_PORT 67
#define CLIENT_PORT 68
#define HEADERS 28   /* of IPv4 and UDP */
#define FIXED 240    /* of a message, with the cookie in front of the options */
#define MESSAGE 300  /* with our options; what BOOTP's relays expect at least */
#define LEAST_WAIT (60 * NST_SECOND) /* between two tries to renew (RFC 2131 4.4.5) */
#define REQUESTS_AT_MOST 4

static const uint8_t cookie[4] = {99, 130, 83, 99};
static const uint8_t zero[4], everybody[4] = {255, 255, 255, 255};

/* What a message says. */
typedef struct message {
  unsigned type;
  uint8_t offered[4], server[4], mask[4], gateway[4];
  uint8_t dns[NST_DHCP_SERVERS][4];
  size_t dns_count;
  uint32_t lease, renewal, rebinding; /* seconds; 0: not said */
  bool has_mask;
} message;

const char *nst_dhcp_state_name(const nst_dhcp *dhcp) {
  static const char *const names[] = {"SELECTING", "REQUESTING", "BOUND", "RENEWING", "REBINDING"};
  return names[dhcp->state];
}

/* ---- saying ---- */

static uint8_t *put_option(uint8_t *at, unsigned option, const void *data, size_t length) {
  at[0] = (uint8_t)option;
  at[1] = (uint8_t)length;
  memcpy(at + 2, data, length);
  return at + 2 + length;
}

/* RFC 2131 table 5: what goes in which state. */
static void say(nst_interface *interface, unsigned type) {
  static const uint8_t wanted[] = {MASK, ROUTER, DNS, LEASE, RENEWAL, REBINDING};
  const nst_dhcp *dhcp = interface->dhcp;
  bool holds = dhcp->state == NST_DHCP_RENEWING || dhcp->state == NST_DHCP_REBINDING;
  const uint8_t *to = dhcp->state == NST_DHCP_RENEWING ? dhcp->server : everybody;
  nst_packet *packet = nst_packet_new(interface->stack->hub, HEADERS + MESSAGE);
  uint8_t *ip, *udp, *dhcp_message, *at, kind = (uint8_t)type, client[7] = {1};
  uint16_t sum;
  if (packet == NULL) return;
  ip = packet->data;
  udp = ip + 20;
  dhcp_message = udp + 8;
  memset(ip, 0, packet->length);
  ip[0] = 0x45;
  ip[2] = (uint8_t)(packet->length >> 8);
  ip[3] = (uint8_t)packet->length;
  ip[8] = 64;
  ip[9] = 17;
  if (holds) memcpy(ip + 12, dhcp->offered, 4);
  memcpy(ip + 16, to, 4);
  sum = nst_header_checksum(ip);
  memcpy(ip + 10, &sum, 2);
  udp[1] = CLIENT_PORT;
  udp[3] = SERVER_PORT;
  udp[4] = (uint8_t)((8 + MESSAGE) >> 8);
  udp[5] = (uint8_t)(8 + MESSAGE); /* the checksum may be 0, and is */
  dhcp_message[0] = 1; /* a client's */
  dhcp_message[1] = 1; /* Ethernet */
  dhcp_message[2] = NST_MAC_LENGTH;
  memcpy(dhcp_message + 4, &dhcp->xid, 4);
  if (holds) memcpy(dhcp_message + 12, dhcp->offered, 4);
  else dhcp_message[10] = 0x80; /* answer to everybody: we have no address yet */
  memcpy(dhcp_message + 28, interface->mac, NST_MAC_LENGTH);
  memcpy(dhcp_message + 236, cookie, 4);
  memcpy(client + 1, interface->mac, NST_MAC_LENGTH);
  at = put_option(dhcp_message + FIXED, TYPE, &kind, 1);
  at = put_option(at, CLIENT, client, sizeof client);
  if (type == REQUEST && !holds) {
    at = put_option(at, REQUESTED, dhcp->offered, 4);
    at = put_option(at, SERVER, dhcp->server, 4);
  }
  at = put_option(at, WANTED, wanted, sizeof wanted);
  *at = END;
  nst_trace_packet(interface->stack, NST_EVENT_OUT, interface, ip, packet->length, NULL);
  if (dhcp->state == NST_DHCP_RENEWING) {
    ip_addr_t server = IPADDR4_INIT(0);
    memcpy(&ip_2_ip4(&server)->addr, dhcp->server, 4);
    nst_ethernet_output(interface, packet, &server);
  } else {
    nst_ethernet_send(interface, packet, nst_everybody, NST_TYPE_IPV4);
  }
}

/* RFC 2131 4.1: 4 s, doubling to 64, each a second more or less by chance. */
static nst_time backoff(nst_interface *interface) {
  unsigned tries = interface->dhcp->tries < 4 ? interface->dhcp->tries : 4;
  nst_time by_chance = (nst_time)(nst_random_u32(&interface->stack->random) % 2000) * NST_MILLISECOND;
  return ((nst_time)4 << tries) * NST_SECOND - NST_SECOND + by_chance;
}

static void enter(nst_interface *interface, nst_dhcp_state state) {
  interface->dhcp->state = state;
  interface->dhcp->tries = 0;
  interface->dhcp->at = interface->stack->now;
}

/* ---- the address ---- */

/* Has the default route go by this gateway, by none when it is zero. */
static void set_gateway(nst_interface *interface, const uint8_t *to) {
  nst_dhcp *dhcp = interface->dhcp;
  nst_prefix everywhere;
  ip_addr_t gateway = IPADDR4_INIT(0);
  if (memcmp(dhcp->gateway, to, 4) == 0) return;
  memset(&everywhere, 0, sizeof everywhere);
  nst_route_drop(interface->stack, &everywhere, interface, NST_ROUTE_LEARNED);
  memcpy(dhcp->gateway, to, 4);
  memcpy(&ip_2_ip4(&gateway)->addr, to, 4);
  if (memcmp(to, zero, 4) == 0) return;
  (void)nst_route_add(interface->stack, &everywhere, interface, &gateway, NST_ROUTE_LEARNED);
}

/* Puts the lease's address on the interface, or takes it off. */
static void set_address(nst_interface *interface, bool on) {
  nst_dhcp *dhcp = interface->dhcp;
  nst_prefix address;
  memset(&address, 0, sizeof address);
  memcpy(&ip_2_ip4(&address.address)->addr, dhcp->offered, 4);
  address.bits = dhcp->bits;
  if (nst_interface_set_addresses(interface, NST_ADDRESS_LEASED, &address, on) == NST_OK) dhcp->has_address = on;
}

void nst_dhcp_lose(nst_interface *interface) {
  set_gateway(interface, zero);
  if (interface->dhcp->has_address) set_address(interface, false);
  interface->dhcp->dns_count = 0;
  interface->dhcp->xid = nst_random_u32(&interface->stack->random);
  enter(interface, NST_DHCP_SELECTING);
}

/* ---- hearing ---- */

static bool is_host(const uint8_t *address) {
  return address[0] != 0 && address[0] != 127 && address[0] < 224;
}

static bool read_options(const uint8_t *options, size_t length, message *m) {
  size_t i = 0;
  while (i < length && options[i] != END) {
    const uint8_t *data = options + i + 2;
    size_t size;
    if (options[i] == PAD) {
      i++;
      continue;
    }
    if (i + 2 > length || i + 2 + options[i + 1] > length) return false;
    size = options[i + 1];
    switch (options[i]) {
      case TYPE: if (size == 1) m->type = data[0]; break;
      case MASK: if (size == 4) { memcpy(m->mask, data, 4); m->has_mask = true; } break;
      case ROUTER: if (size >= 4) memcpy(m->gateway, data, 4); break;
      case SERVER: if (size == 4) memcpy(m->server, data, 4); break;
      case LEASE: if (size == 4) m->lease = nst_get32(data); break;
      case RENEWAL: if (size == 4) m->renewal = nst_get32(data); break;
      case REBINDING: if (size == 4) m->rebinding = nst_get32(data); break;
      case DNS:
        for (; size >= 4 && m->dns_count < NST_DHCP_SERVERS; size -= 4, data += 4) {
          if (is_host(data)) memcpy(m->dns[m->dns_count++], data, 4);
        }
        break;
      default: break;
    }
    i += 2 + (size_t)options[i + 1];
  }
  return true;
}

/* The length of a mask's prefix; 0 when its bits are not in a row, or leave no room for hosts. */
static uint8_t bits_of(const message *m) {
  uint32_t mask = nst_get32(m->mask);
  uint8_t bits = 0;
  if (!m->has_mask) return m->offered[0] < 128 ? 8 : m->offered[0] < 192 ? 16 : 24; /* classes, as of old */
  while (bits < 32 && (mask & 0x80000000u >> bits)) bits++;
  return bits < 32 && (mask << bits) != 0 ? 0 : bits;
}

/* Whether the offer can be an interface's address: a host's, and not its network's first or last. */
static bool makes_sense(const message *m) {
  uint8_t bits = bits_of(m);
  uint32_t host = bits < 32 ? nst_get32(m->offered) << bits : 1;
  if (!is_host(m->offered) || !is_host(m->server) || m->lease == 0 || bits == 0) return false;
  return bits >= 31 || (host != 0 && host != 0xffffffffu << bits);
}

/* Seconds of a lease from now on; all bits set is for ever (RFC 2131 3.3). */
static nst_time after(const nst_stack *stack, uint32_t seconds) {
  return seconds == 0xffffffffu ? NST_NEVER : stack->now + (nst_time)seconds * NST_SECOND;
}

static void bind(nst_interface *interface, const message *m) {
  nst_dhcp *dhcp = interface->dhcp;
  const nst_stack *stack = interface->stack;
  bool endless = m->lease == 0xffffffffu;
  /* Rounded up: a lease of one second must not be renewed without a pause. */
  uint32_t renewal = m->renewal && m->renewal < m->lease ? m->renewal : m->lease / 2 + m->lease % 2;
  uint32_t rebinding = m->rebinding && m->rebinding < m->lease ? m->rebinding : m->lease / 8 * 7;
  if (dhcp->has_address && memcmp(dhcp->offered, m->offered, 4) != 0) set_address(interface, false);
  memcpy(dhcp->offered, m->offered, 4);
  memcpy(dhcp->server, m->server, 4);
  dhcp->bits = bits_of(m);
  memcpy(dhcp->dns, m->dns, sizeof dhcp->dns);
  dhcp->dns_count = m->dns_count;
  dhcp->renew_at = endless ? NST_NEVER : after(stack, renewal);
  dhcp->rebind_at = endless ? NST_NEVER : after(stack, rebinding > renewal ? rebinding : renewal);
  dhcp->ends_at = after(stack, m->lease);
  dhcp->state = NST_DHCP_BOUND;
  dhcp->at = dhcp->renew_at;
  if (!dhcp->has_address) set_address(interface, true);
  set_gateway(interface, is_host(m->gateway) && memcmp(m->gateway, m->offered, 4) != 0 ? m->gateway : zero);
}

static void heed(nst_interface *interface, const message *m) {
  nst_dhcp *dhcp = interface->dhcp;
  bool asked = dhcp->state != NST_DHCP_SELECTING && dhcp->state != NST_DHCP_BOUND;
  bool ours = dhcp->state == NST_DHCP_REBINDING || memcmp(m->server, dhcp->server, 4) == 0;
  if (m->type == OFFER && dhcp->state == NST_DHCP_SELECTING && makes_sense(m)) {
    memcpy(dhcp->offered, m->offered, 4);
    memcpy(dhcp->server, m->server, 4);
    enter(interface, NST_DHCP_REQUESTING);
  } else if (m->type == ACK && asked && ours && makes_sense(m)) {
    bind(interface, m);
  } else if (m->type == NAK && asked && ours) {
    nst_dhcp_lose(interface);
    dhcp->at += NST_SECOND; /* who offers and refuses for ever is not asked without a pause */
  } else {
    dhcp->ignored++;
  }
}

bool nst_is_dhcp(const uint8_t *packet, size_t length) {
  size_t header = (packet[0] & 15u) * 4u;
  return packet[0] >> 4 == 4 && packet[9] == 17 && length >= header + 8 && nst_get16(packet + header) == SERVER_PORT &&
         nst_get16(packet + header + 2) == CLIENT_PORT;
}

/* Of the IPv4 header, and of UDP where the sender has set it (RFC 768). */
static bool checksums_hold(const uint8_t *ip, size_t header, size_t length) {
  size_t size = nst_get16(ip + header + 4);
  if (nst_header_checksum(ip) != 0) return false;
  if (nst_get16(ip + header + 6) == 0) return true;
  return size <= length - header && nst_transport_checksum(ip, header, size, 17) == 0;
}

void nst_dhcp_input(nst_interface *interface, nst_packet *packet) {
  const uint8_t *ip = packet->data, *data = ip + (ip[0] & 15u) * 4u + 8;
  size_t header = (size_t)(data - ip), length = nst_get16(ip + 2) < packet->length ? nst_get16(ip + 2) : packet->length;
  nst_dhcp *dhcp = interface->dhcp;
  message m;
  memset(&m, 0, sizeof m);
  if (interface->device->checksum && !checksums_hold(ip, header - 8, length)) {
    dhcp->ignored++;
  } else if (length < header + FIXED || data[0] != 2 || memcmp(data + 4, &dhcp->xid, 4) != 0 ||
      memcmp(data + 28, interface->mac, NST_MAC_LENGTH) != 0 || memcmp(data + 236, cookie, 4) != 0 ||
      !read_options(data + FIXED, length - header - FIXED, &m)) {
    dhcp->ignored++;
  } else {
    memcpy(m.offered, data + 16, 4);
    heed(interface, &m);
  }
  nst_packet_free(packet);
}

/* ---- time ---- */

static nst_time earlier(nst_time a, nst_time b) {
  return a < b ? a : b;
}

/* Half of what is left, but no less than a minute (RFC 2131 4.4.5). */
static nst_time half_way(const nst_stack *stack, nst_time end) {
  nst_time half = (end - stack->now) / 2;
  return earlier(end, stack->now + (half > LEAST_WAIT ? half : LEAST_WAIT));
}

static void act(nst_interface *interface) {
  nst_dhcp *dhcp = interface->dhcp;
  nst_stack *stack = interface->stack;
  if (dhcp->has_address && dhcp->ends_at <= stack->now) nst_dhcp_lose(interface);
  else if (dhcp->state == NST_DHCP_BOUND) dhcp->state = NST_DHCP_RENEWING;
  if (dhcp->state == NST_DHCP_RENEWING && dhcp->rebind_at <= stack->now) dhcp->state = NST_DHCP_REBINDING;
  if (dhcp->state == NST_DHCP_REQUESTING && dhcp->tries >= REQUESTS_AT_MOST) nst_dhcp_lose(interface);
  switch (dhcp->state) {
    case NST_DHCP_SELECTING:
      dhcp->at = stack->now + backoff(interface);
      say(interface, DISCOVER);
      break;
    case NST_DHCP_REQUESTING:
      dhcp->at = stack->now + backoff(interface);
      say(interface, REQUEST);
      break;
    case NST_DHCP_RENEWING:
      dhcp->at = half_way(stack, dhcp->rebind_at);
      say(interface, REQUEST);
      break;
    default:
      dhcp->at = half_way(stack, dhcp->ends_at);
      say(interface, REQUEST);
  }
  dhcp->tries++;
}

bool nst_dhcp_start(nst_interface *interface) {
  nst_dhcp *dhcp = calloc(1, sizeof *dhcp);
  if (dhcp == NULL) return false;
  interface->dhcp = dhcp;
  interface->stack->dhcp_count++;
  nst_dhcp_lose(interface);
  return true;
}

void nst_dhcp_stop(nst_interface *interface) {
  if (interface->dhcp == NULL) return;
  interface->stack->dhcp_count--;
  free(interface->dhcp);
  interface->dhcp = NULL;
}

nst_time nst_dhcp_next(const nst_stack *stack) {
  const nst_link *link;
  nst_time at = NST_NEVER;
  if (stack->dhcp_count == 0) return NST_NEVER;
  for (link = stack->interfaces.next; link != &stack->interfaces; link = link->next) {
    const nst_interface *interface = nst_holder(link, const nst_interface, link);
    if (interface->dhcp && interface->on) at = earlier(at, interface->dhcp->at);
  }
  return at;
}

bool nst_dhcp_run(nst_stack *stack) {
  nst_link *link;
  bool worked = false;
  if (nst_dhcp_next(stack) > stack->now) return false;
  for (link = stack->interfaces.next; link != &stack->interfaces; link = link->next) {
    nst_interface *interface = nst_holder(link, nst_interface, link);
    if (interface->dhcp == NULL || !interface->on || interface->dhcp->at > stack->now) continue;
    act(interface);
    worked = true;
  }
  return worked;
}
