#include "icmp.h"

#include <string.h>

#include "tcp.h"
#include "udp.h"

#define UDP 17
#define TCP 6

static uint16_t port_at(const uint8_t *bytes) {
  return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

/* The ports of what we sent stand first in its transport header. */
static void report(nst_stack *stack, uint8_t protocol, const ip_addr_t *local_host, const ip_addr_t *remote_host,
                   const uint8_t *ports, nst_error error) {
  uint16_t local_port = port_at(ports), remote_port = port_at(ports + 2);
  if (protocol == UDP) {
    nst_udp_unreachable(stack, local_host, local_port, remote_host, remote_port, error);
  } else if (protocol == TCP) {
    nst_tcp *tcp = nst_tcp_find(stack, local_host, local_port, remote_host, remote_port);
    /* A soft error: it only explains why nobody answers the SYN (RFC 5461 §4.1 lets the attempt end). */
    if (tcp && tcp->connecting && error == NST_HOST_UNREACHABLE) {
      tcp->error = error;
      nst_tcp_abort(tcp);
    }
  }
}

/* RFC 792: type 3; codes 0 and 1 say that the net or host cannot be reached, 3 that the port is nobody's. */
static void icmp4(nst_stack *stack, const uint8_t *packet, size_t length) {
  size_t header = (packet[0] & 15u) * 4u, quoted_header;
  const uint8_t *quoted = packet + header + 8;
  ip_addr_t local_host = IPADDR4_INIT(0), remote_host = IPADDR4_INIT(0);
  uint8_t code;
  if (packet[9] != 1 || length < header + 8 + 20 || packet[header] != 3) return;
  code = packet[header + 1];
  quoted_header = (quoted[0] & 15u) * 4u;
  if (quoted[0] >> 4 != 4 || quoted_header < 20 || length < header + 8 + quoted_header + 8) return;
  memcpy(&ip_2_ip4(&local_host)->addr, quoted + 12, 4);
  memcpy(&ip_2_ip4(&remote_host)->addr, quoted + 16, 4);
  if (code == 3 || code <= 1) {
    report(stack, quoted[9], &local_host, &remote_host, quoted + quoted_header,
           code == 3 ? NST_PORT_UNREACHABLE : NST_HOST_UNREACHABLE);
  }
}

/* RFC 4443: type 1; code 4 is the port, 0 and 3 are the way and the host. */
static void icmp6(nst_stack *stack, const uint8_t *packet, size_t length) {
  const uint8_t *quoted = packet + 40 + 8;
  ip_addr_t local_host = IPADDR6_INIT(0, 0, 0, 0), remote_host = IPADDR6_INIT(0, 0, 0, 0);
  uint8_t code;
  if (length < 40 + 8 + 40 + 8 || packet[6] != 58 || packet[40] != 1 || quoted[0] >> 4 != 6) return;
  code = packet[41];
  memcpy(ip_2_ip6(&local_host)->addr, quoted + 8, 16);
  memcpy(ip_2_ip6(&remote_host)->addr, quoted + 24, 16);
  if (code == 4 || code == 0 || code == 3) {
    report(stack, quoted[6], &local_host, &remote_host, quoted + 40,
           code == 4 ? NST_PORT_UNREACHABLE : NST_HOST_UNREACHABLE);
  }
}

void nst_icmp_error(nst_stack *stack, const uint8_t *packet, size_t length) {
  if (length < 20) return;
  if (packet[0] >> 4 == 4) icmp4(stack, packet, length);
  else if (length >= 48) icmp6(stack, packet, length);
}
