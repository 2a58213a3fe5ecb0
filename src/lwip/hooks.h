/*
** Where lwIP asks us: the variables that stand for constants, and the decisions that are ours.
** Besides these, the build redirects lwIP's calls of tcp_input, tcp_rst_netif, udp_input, raw_input,
** nd6_get_destination_mtu and those that send ICMP errors to our __wrap_ functions (ld --wrap), which look at a packet
** before lwIP goes on, or do the work instead.
*/
#ifndef NST_HOOKS_H
#define NST_HOOKS_H

#include <stdint.h>

/* Zero to the preprocessor, one to the compiler: lets a macro be a constant in an #if and a variable in code. */
enum { NST_COMPILED = 1 };

/* Part of the state image: each stack has its own (port.c). */
extern uint32_t nst_tcp_buffer_size;
extern uint8_t nst_tcp_window_scale;

struct netif;
struct ip4_addr;
struct ip6_addr;
struct ip_addr;

/* Eight bytes at a time (port.c): lwIP's own takes two, and a stack on a device with checksums spends much time in it. */
uint16_t nst_sum(const void *data, int length);
#define LWIP_CHKSUM(data, length) nst_sum(data, length)

/* Routing by our table, the longest prefix first (route.c). */
struct netif *nst_route4(const struct ip4_addr *source, const struct ip4_addr *destination);
struct netif *nst_route6(const struct ip6_addr *source, const struct ip6_addr *destination);
#define LWIP_HOOK_IP4_ROUTE_SRC(source, destination) nst_route4(source, destination)
#define LWIP_HOOK_IP6_ROUTE(source, destination) nst_route6(source, destination)

/* Initial sequence numbers as RFC 6528 wants them (tcp_table.c). */
uint32_t nst_tcp_isn(const struct ip_addr *local_ip, uint16_t local_port, const struct ip_addr *remote_ip, uint16_t remote_port);
#define LWIP_HOOK_TCP_ISN(local_ip, local_port, remote_ip, remote_port) \
  nst_tcp_isn(local_ip, local_port, remote_ip, remote_port)

/* Each segment that belongs to a connection or listener, in host order, before lwIP acts on it (tcp_check.c). */
struct tcp_pcb;
struct tcp_hdr;
struct pbuf;
signed char nst_tcp_check(struct tcp_pcb *pcb, struct tcp_hdr *header, uint16_t options_length, struct pbuf *p);
#define LWIP_HOOK_TCP_INPACKET_PCB(pcb, header, options_length, first_length, second, p) \
  nst_tcp_check(pcb, header, options_length, p)

/* Each segment of a connection as it is sent, in network order; nothing is added to its options (tcp_recovery.c). */
void nst_tcp_sends(const struct tcp_pcb *pcb, const struct tcp_hdr *header, const struct pbuf *p);
#define LWIP_HOOK_TCP_OUT_ADD_TCPOPTS(p, header, pcb, options) (nst_tcp_sends(pcb, header, p), options)

/* How many segments may wait out of order (tcp_check.c). */
uint16_t nst_tcp_out_of_order_at_most(const struct tcp_pcb *pcb);
#define TCP_OOSEQ_PBUFS_LIMIT(pcb) nst_tcp_out_of_order_at_most(pcb)

#endif
