#include "raw.h"

#include <stdlib.h>
#include <string.h>

#include "icmp.h"

#include "lwip/inet_chksum.h"
#include "lwip/ip4_frag.h"
#include "lwip/ip6_frag.h"
#include "lwip/ip.h"
#include "lwip/prot/ip4.h"
#include "lwip/prot/ip6.h"
#include "lwip/priv/raw_priv.h"

nst_raw *nst_raw_new(nst_stack *stack, bool ipv6, uint8_t protocol) {
  nst_raw *raw = calloc(1, sizeof *raw);
  if (raw == NULL) return NULL;
  nst_socket_init(&raw->socket, stack, NST_RAW);
  nst_list_init(&raw->inbox.datagrams);
  nst_list_append(&stack->raw_sockets, &raw->member);
  raw->ipv6 = ipv6;
  raw->protocol = protocol;
  return raw;
}

/* Fills in what the user left 0 in an IPv4 header: total length and checksum. */
static void complete_header(struct pbuf *p) {
  uint8_t *header = p->payload;
  size_t length = (header[0] & 15u) * 4u;
  uint16_t checksum;
  if (header[2] == 0 && header[3] == 0) {
    header[2] = (uint8_t)(p->tot_len >> 8);
    header[3] = (uint8_t)p->tot_len;
  }
  if (header[10] == 0 && header[11] == 0) {
    checksum = inet_chksum(header, (u16_t)length);
    memcpy(header + 10, &checksum, 2);
  }
}

/* Whether the packet may go out in pieces. lwIP cuts IPv4 packets only behind a header without options. */
static bool may_fragment(const uint8_t *bytes, size_t length) {
  if (length > 0xffff) return false;
  return bytes[0] >> 4 == 6 || ((bytes[0] & 15u) == 5 && (bytes[6] & 0x40u) == 0);
}

static err_t output(nst_raw *raw, struct netif *netif, struct pbuf *p, const ip_addr_t *host) {
  bool whole = p->tot_len <= nst_interface_mtu(nst_interface_of(netif), host);
  uint8_t *header = p->payload;
  if (raw->ipv6) {
    if (whole) return netif->output_ip6(netif, p, ip_2_ip6(host));
    return ip6_frag(p, netif, ip_2_ip6(host));
  }
  if (!whole && header[4] == 0 && header[5] == 0) { /* fragments are told apart by the id */
    uint16_t id = (uint16_t)(nst_random_u32(&raw->socket.stack->random) | 1u);
    memcpy(header + 4, &id, 2);
  }
  complete_header(p);
  if (whole) return netif->output(netif, p, ip_2_ip4(host));
  return ip4_frag(p, netif, ip_2_ip4(host));
}

nst_error nst_raw_send(nst_raw *raw, const void *packet, size_t length) {
  nst_stack *stack = raw->socket.stack;
  const uint8_t *bytes = packet;
  nst_interface *interface;
  struct netif *netif;
  struct pbuf *p;
  ip_addr_t host;
  err_t result;
  size_t least = raw->ipv6 ? 40 : 20, mtu;
  if (!raw->socket.open) return NST_CLOSED;
  if (length < least || bytes[0] >> 4 != (raw->ipv6 ? 6 : 4)) return NST_WRONG_IP_VERSION;
  if (!raw->ipv6 && ((bytes[0] & 15u) < 5 || (bytes[0] & 15u) * 4u > length)) return NST_WRONG_IP_VERSION;
  if (raw->ipv6) {
    IP_ADDR6(&host, 0, 0, 0, 0);
    memcpy(ip_2_ip6(&host)->addr, bytes + 24, 16);
  } else {
    IP_ADDR4(&host, bytes[16], bytes[17], bytes[18], bytes[19]);
  }
  netif = nst_route_find(stack, NULL, &host);
  if (netif == NULL) return NST_NO_ROUTE;
  if (raw->ipv6 && ip6_addr_lacks_zone(ip_2_ip6(&host), IP6_UNICAST)) {
    ip6_addr_assign_zone(ip_2_ip6(&host), IP6_UNICAST, netif); /* a header names no interface */
  }
  interface = nst_interface_of(netif);
  mtu = nst_interface_mtu(interface, &host);
  if (length > mtu && !may_fragment(bytes, length)) return NST_MESSAGE_TOO_LONG;
  if (!nst_interface_has_room(interface)) {
    nst_interface_block(interface, &raw->socket);
    return NST_WOULDBLOCK;
  }
  p = pbuf_alloc(PBUF_RAW, (u16_t)length, PBUF_RAM);
  if (p == NULL) return NST_NO_MEMORY;
  memcpy(p->payload, packet, length);
  stack->sending_datagram = true;
  stack->verbatim = !raw->ipv6 || length <= mtu; /* the fragment headers of IPv6 are ours */
  result = output(raw, netif, p, &host);
  stack->sending_datagram = stack->verbatim = false;
  pbuf_free(p);
  if (result == ERR_OK) raw->socket.sent_bytes += length;
  return result == ERR_OK ? NST_OK : result == ERR_MEM ? NST_NO_MEMORY : NST_NO_ROUTE;
}

nst_error nst_raw_readable(nst_raw *raw) {
  if (!raw->socket.open) return NST_CLOSED;
  return raw->inbox.count > 0 ? NST_OK : NST_WOULDBLOCK;
}

void nst_raw_close(nst_raw *raw) {
  nst_raw_forget(raw);
}

void nst_raw_forget(nst_raw *raw) {
  nst_list_remove(&raw->member);
  nst_inbox_clear(&raw->inbox);
}

bool nst_raw_give(nst_stack *stack, const struct pbuf *p, const ip_addr_t *from) {
  const uint8_t *header = p->payload;
  bool ipv6 = header[0] >> 4 == 6, given = false;
  uint8_t protocol = ipv6 ? header[6] : header[9];
  nst_link *link;
  for (link = stack->raw_sockets.next; link != &stack->raw_sockets; link = link->next) {
    nst_raw *raw = nst_holder(link, nst_raw, member);
    if (raw->ipv6 != ipv6 || raw->protocol != protocol) continue;
    given = true;
    if (nst_inbox_put(&raw->inbox, p, from, 0, stack->config.raw_message_count,
                      stack->config.raw_buffer_size)) {
      raw->socket.received_bytes += p->tot_len;
      nst_socket_changed(&raw->socket);
    } else {
      stack->counters.raw_queue_full++;
      stack->drop_cause = "receive queue full";
    }
  }
  return given;
}

raw_input_state_t __wrap_raw_input(struct pbuf *p, struct netif *input);

/* ip4.c and ip6.c call this in place of raw_input, with p at the IP header of a whole packet. lwIP goes on: its own
** handling is not taken away. */
raw_input_state_t __wrap_raw_input(struct pbuf *p, struct netif *input) {
  const uint8_t *header = p->payload;
  bool ipv6 = header[0] >> 4 == 6;
  if ((ipv6 ? header[6] : header[9]) == (ipv6 ? 58 : 1)) nst_icmp_error(nst_current(), p, input);
  return nst_raw_give(nst_current(), p, ip_current_src_addr()) ? RAW_INPUT_DELIVERED : RAW_INPUT_NONE;
}
