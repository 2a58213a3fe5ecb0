#include "icmp.h"

#include <string.h>

#include "bytes.h"
#include "chain.h"
#include "checksum.h"
#include "path_mtu.h"
#include "tcp.h"
#include "udp.h"

#include "lwip/icmp.h"
#include "lwip/icmp6.h"
#include "lwip/inet_chksum.h"
#include "lwip/ip.h"

enum { TCP = 6, UDP = 17, ICMP6 = 58 };

/* What an error says of the packet that it quotes. */
typedef struct report {
  nst_error error; /* NST_MESSAGE_TOO_LONG: the way takes `mtu` */
  uint16_t mtu;
  uint8_t protocol;
  ip_addr_t local_host, remote_host;
  const uint8_t *quoted; /* its transport header, of which at least 8 bytes came */
} report;

/* RFC 792 and RFC 1122 3.2.2.1; NST_OK: nothing that concerns a socket. */
static nst_error meaning4(uint8_t type, uint8_t code) {
  if (type == 11) return NST_HOST_UNREACHABLE; /* too many hops, or pieces lost on the way */
  if (type != 3) return NST_OK;
  return code == 4 ? NST_MESSAGE_TOO_LONG : code == 2 || code == 3 ? NST_PORT_UNREACHABLE : NST_HOST_UNREACHABLE;
}

/* RFC 4443 §3 */
static nst_error meaning6(uint8_t type, uint8_t code) {
  switch (type) {
    case 1: return code == 4 ? NST_PORT_UNREACHABLE : NST_HOST_UNREACHABLE;
    case 2: return NST_MESSAGE_TOO_LONG;
    case 3: return NST_HOST_UNREACHABLE;
    case 4: return code == 1 ? NST_PORT_UNREACHABLE : NST_OK; /* nobody there knows the protocol */
    default: return NST_OK;
  }
}

/* The quoted packet ends where the error does. */
static bool read4(const uint8_t *packet, size_t length, report *r) {
  size_t header = (packet[0] & 15u) * 4u, quoted_header;
  const uint8_t *quoted = packet + header + 8;
  if (packet[9] != 1 || length < header + 8 + 20) return false;
  r->error = meaning4(packet[header], packet[header + 1]);
  r->mtu = nst_get16(packet + header + 6);
  quoted_header = (quoted[0] & 15u) * 4u;
  if (quoted[0] >> 4 != 4 || quoted_header < 20 || length < header + 8 + quoted_header + 8) return false;
  if ((nst_get16(quoted + 6) & 0x1fff) != 0) return false; /* a later piece has no ports */
  IP_SET_TYPE_VAL(r->local_host, IPADDR_TYPE_V4);
  IP_SET_TYPE_VAL(r->remote_host, IPADDR_TYPE_V4);
  memcpy(&ip_2_ip4(&r->local_host)->addr, quoted + 12, 4);
  memcpy(&ip_2_ip4(&r->remote_host)->addr, quoted + 16, 4);
  r->protocol = quoted[9];
  r->quoted = quoted + quoted_header;
  return r->error != NST_OK;
}

static bool read6(const uint8_t *packet, size_t length, report *r) {
  const uint8_t *quoted = packet + 40 + 8;
  size_t have = length - 48;
  uint32_t mtu;
  if (packet[6] != 58 || length < 48 + 40 + 8 || quoted[0] >> 4 != 6) return false;
  mtu = nst_get32(packet + 44);
  r->error = meaning6(packet[40], packet[41]);
  r->mtu = (uint16_t)(mtu < 0xffff ? mtu : 0xffff);
  r->protocol = quoted[6];
  r->quoted = quoted + 40;
  if (r->protocol == NST_FRAGMENT) { /* our own doing, with a datagram that was too long */
    if (have < 40 + 8 + 8 || (nst_get16(r->quoted + 2) & 0xfff8) != 0) return false;
    r->protocol = r->quoted[0];
    r->quoted += 8;
  }
  IP_SET_TYPE_VAL(r->local_host, IPADDR_TYPE_V6);
  IP_SET_TYPE_VAL(r->remote_host, IPADDR_TYPE_V6);
  memcpy(ip_2_ip6(&r->local_host)->addr, quoted + 8, 16);
  memcpy(ip_2_ip6(&r->remote_host)->addr, quoted + 24, 16);
  ip6_addr_assign_zone(ip_2_ip6(&r->local_host), IP6_UNICAST, ip_current_input_netif());
  ip6_addr_assign_zone(ip_2_ip6(&r->remote_host), IP6_UNICAST, ip_current_input_netif());
  return r->error != NST_OK;
}

static bool checksum_holds(struct pbuf *p, const struct netif *input) {
  const uint8_t *packet = p->payload;
  size_t header = packet[0] >> 4 == 6 ? 40 : (packet[0] & 15u) * 4u;
  uint16_t sum = 0;
  (void)input;
  IF__NETIF_CHECKSUM_ENABLED(input, NETIF_CHECKSUM_CHECK_ICMP) {
    if (pbuf_remove_header(p, header) != 0) return false;
    sum = packet[0] >> 4 == 6 ? ip6_chksum_pseudo(p, IP6_NEXTH_ICMP6, p->tot_len, ip6_current_src_addr(),
                                                  ip6_current_dest_addr())
                              : inet_chksum_pbuf(p);
    (void)pbuf_add_header_force(p, header);
  }
  return sum == 0;
}

/*
** Anybody can send these and name the addresses. A report is heeded when it quotes what we did send: a TCP segment that
** is not acknowledged yet (RFC 5927 §4), a datagram of a socket that there is.
*/
void nst_icmp_error(nst_stack *stack, struct pbuf *p, const struct netif *input) {
  const uint8_t *packet = p->payload;
  report r;
  bool heeded = false;
  memset(&r, 0, sizeof r);
  if (p->len < 20 || (packet[0] >> 4 == 6 && p->len < 48)) return;
  if (!(packet[0] >> 4 == 6 ? read6 : read4)(packet, p->len, &r) || !checksum_holds(p, input)) return;
  if (r.protocol == TCP) {
    nst_tcp *tcp = nst_tcp_find(stack, &r.local_host, nst_get16(r.quoted), &r.remote_host, nst_get16(r.quoted + 2));
    heeded = tcp && nst_tcp_has_sent(tcp, nst_get32(r.quoted + 4));
    if (heeded && r.error == NST_MESSAGE_TOO_LONG) {
      nst_path_mtu_learn(stack, &r.remote_host, r.mtu);
      nst_tcp_path_changed(tcp);
    } else if (heeded) {
      nst_tcp_unreachable(tcp, r.error);
    }
  } else if (r.protocol == UDP) {
    heeded = nst_udp_reported(stack, &r.local_host, (uint16_t)nst_get16(r.quoted), &r.remote_host,
                              (uint16_t)nst_get16(r.quoted + 2), r.error);
    if (heeded && r.error == NST_MESSAGE_TOO_LONG) nst_path_mtu_learn(stack, &r.remote_host, r.mtu);
  } else {
    return;
  }
  if (!heeded) stack->counters.icmp_ignored++;
}

/* ---- ours ---- */

/* RFC 4443 §2.4(f), RFC 1812 4.3.2.8: so many at once, so many a second. */
#define ERRORS_AT_ONCE 100
#define ERRORS_PER_SECOND 1000

/* Each error that is sent takes its share of time; up to so many are lent. */
static bool within_rate(nst_stack *stack) {
  nst_time each = NST_SECOND / ERRORS_PER_SECOND;
  if (stack->icmp_paid_until < stack->now) stack->icmp_paid_until = stack->now;
  if (NST_GUARDED && stack->icmp_paid_until - stack->now > each * (ERRORS_AT_ONCE - 1)) {
    stack->counters.icmp_limited++;
    return false;
  }
  stack->icmp_paid_until += each;
  return true;
}

static bool is_error4(const uint8_t *packet, size_t length) {
  size_t header = (packet[0] & 15u) * 4u;
  uint8_t type;
  if (packet[9] != 1 || length <= header) return false;
  type = packet[header];
  return type == ICMP_DUR || type == ICMP_SQ || type == ICMP_RD || type == ICMP_TE || type == ICMP_PP;
}

static bool is_error6(const uint8_t *packet, size_t length) {
  size_t at = 40;
  return nst_chain_walk(packet, &at, length, packet[6], true) == ICMP6 && at < length &&
         (packet[at] < 128 || packet[at] == ICMP6_TYPE_RD);
}

/* RFC 1122 3.2.2, RFC 4443 §2.4(e): never in answer to an error, and hardly ever to what came to many. */
bool nst_icmp_may_answer(nst_stack *stack, const uint8_t *packet, size_t length, bool to_groups) {
  bool ipv6 = packet[0] >> 4 == 6;
  if ((ipv6 ? is_error6 : is_error4)(packet, length)) return false;
  if (!ipv6 && (nst_get16(packet + 6) & 0x1fff) != 0) return false; /* a later piece: nobody could tell whose */
  if (!to_groups && (ipv6 ? packet[24] == 0xff : packet[16] >> 4 == 0xe)) return false;
  return within_rate(stack);
}

/* Types and codes of RFC 792 and RFC 1812 5.2.7, and of RFC 4443 §3. */
static const struct {
  uint8_t type4, code4, type6, code6;
} reasons[] = {
  [NST_ICMP_NO_ROUTE] = {3, 0, 1, 0},
  [NST_ICMP_HOST_UNREACHABLE] = {3, 1, 1, 3},
  [NST_ICMP_TOO_MANY_HOPS] = {11, 0, 3, 0},
  [NST_ICMP_TOO_LONG] = {3, 4, 2, 0},
  [NST_ICMP_PIECES_MISSING] = {11, 1, 3, 1},
  [NST_ICMP_PROHIBITED] = {3, 13, 1, 1},
};

/* An error may be so long: RFC 1812 4.3.2.3, RFC 4443 §2.4(c). */
enum { LONGEST4 = 576, LONGEST6 = 1280 };

static nst_packet *make4(nst_stack *stack, const nst_packet *about, nst_icmp_reason reason, uint16_t mtu,
                         const ip_addr_t *from, const ip_addr_t *to) {
  size_t quoted = about->length < LONGEST4 - 28 ? about->length : LONGEST4 - 28;
  nst_packet *error = nst_packet_new(stack->hub, 28 + quoted);
  uint8_t *ip;
  if (error == NULL) return NULL;
  ip = error->data;
  memset(ip, 0, 28);
  ip[0] = 0x45;
  nst_put16(ip + 2, error->length);
  nst_put16(ip + 4, nst_random_u32(&stack->random) & 0xffff);
  ip[8] = 64;
  ip[9] = 1;
  (void)nst_put_address(ip + 12, from);
  (void)nst_put_address(ip + 16, to);
  nst_header_complete(ip);
  ip[20] = reasons[reason].type4;
  ip[21] = reasons[reason].code4;
  nst_put16(ip + 26, mtu); /* RFC 1191 §4 */
  memcpy(ip + 28, about->data, quoted);
  nst_transport_complete(ip, error->length);
  return error;
}

static nst_packet *make6(nst_stack *stack, const nst_packet *about, nst_icmp_reason reason, uint16_t mtu,
                         const ip_addr_t *from, const ip_addr_t *to) {
  size_t quoted = about->length < LONGEST6 - 48 ? about->length : LONGEST6 - 48;
  nst_packet *error = nst_packet_new(stack->hub, 48 + quoted);
  uint8_t *ip;
  if (error == NULL) return NULL;
  ip = error->data;
  memset(ip, 0, 48);
  ip[0] = 0x60;
  nst_put16(ip + 4, 8 + quoted);
  ip[6] = ICMP6;
  ip[7] = 64;
  (void)nst_put_address(ip + 8, from);
  (void)nst_put_address(ip + 24, to);
  ip[40] = reasons[reason].type6;
  ip[41] = reasons[reason].code6;
  nst_put16(ip + 46, mtu);
  memcpy(ip + 48, about->data, quoted);
  nst_transport_complete(ip, error->length);
  return error;
}

/* The address that an error is sent from: the one that was meant, if it is ours (RFC 1122 3.2.2, RFC 4443 §2.2), else one
** on the way back; NULL, there is none. */
static const ip_addr_t *source_of(nst_stack *stack, struct netif *back, const ip_addr_t *host, const ip_addr_t *meant) {
  if (nst_interface_with_address(stack, meant)) return meant;
  if (IP_IS_V6(host)) return ip6_select_source_address(back, ip_2_ip6(host));
  return ip4_addr_isany_val(*netif_ip4_addr(back)) ? NULL : netif_ip_addr4(back);
}

void nst_icmp_tell(nst_stack *stack, const nst_packet *packet, const ip_addr_t *source, const ip_addr_t *destination,
                   nst_icmp_reason reason, uint16_t mtu) {
  nst_interface *own = nst_interface_with_address(stack, source);
  struct netif *back = own ? NULL : nst_route_find(stack, NULL, source);
  const ip_addr_t *from = own ? source : back ? source_of(stack, back, source, destination) : NULL;
  nst_packet *error;
  if (from == NULL || !nst_icmp_may_answer(stack, packet->data, packet->length, reason == NST_ICMP_TOO_LONG)) return;
  error = (IP_IS_V6(source) ? make6 : make4)(stack, packet, reason, mtu, from, source);
  if (error == NULL) return;
  if (own) nst_interface_loop(own, error);
  else nst_interface_send(nst_interface_of(back), error, source);
}

void __wrap_icmp_dest_unreach(struct pbuf *p, enum icmp_dur_type code);
void __wrap_icmp6_dest_unreach(struct pbuf *p, enum icmp6_dur_code code);
void __wrap_icmp6_param_problem(struct pbuf *p, enum icmp6_pp_code code, const void *pointer);

static bool may_answer(const struct pbuf *p, bool to_groups) {
  return nst_icmp_may_answer(nst_current(), p->payload, p->len, to_groups);
}

void __wrap_icmp_dest_unreach(struct pbuf *p, enum icmp_dur_type code) {
  if (may_answer(p, false)) icmp_dest_unreach(p, code);
}

void __wrap_icmp6_dest_unreach(struct pbuf *p, enum icmp6_dur_code code) {
  if (may_answer(p, false)) icmp6_dest_unreach(p, code);
}

/* In the midst of a header chain lwIP has taken off what it has read of the packet, and would quote only the rest. */
void __wrap_icmp6_param_problem(struct pbuf *p, enum icmp6_pp_code code, const void *pointer) {
  size_t passed = (size_t)((const uint8_t *)p->payload - (const uint8_t *)ip6_current_header());
  (void)pbuf_add_header_force(p, passed);
  if (may_answer(p, code == ICMP6_PP_OPTION)) icmp6_param_problem(p, code, pointer);
  (void)pbuf_remove_header(p, passed);
}
