/*
** Where lwIP asks us: the variables that stand for constants, and the decisions that are ours.
** Besides these, the build redirects lwIP's calls of tcp_input, udp_input, raw_input, memp_malloc and memp_free to our
** __wrap_ functions (ld --wrap), which look at a packet or count an allocation before lwIP goes on.
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

/* Routing by our table, the longest prefix first (route.c). */
struct netif *nst_route4(const struct ip4_addr *source, const struct ip4_addr *destination);
struct netif *nst_route6(const struct ip6_addr *source, const struct ip6_addr *destination);
#define LWIP_HOOK_IP4_ROUTE_SRC(source, destination) nst_route4(source, destination)
#define LWIP_HOOK_IP6_ROUTE(source, destination) nst_route6(source, destination)

/* Initial sequence numbers as RFC 6528 wants them (tcp_table.c). */
uint32_t nst_tcp_isn(const struct ip_addr *local_ip, uint16_t local_port, const struct ip_addr *remote_ip, uint16_t remote_port);
#define LWIP_HOOK_TCP_ISN(local_ip, local_port, remote_ip, remote_port) \
  nst_tcp_isn(local_ip, local_port, remote_ip, remote_port)

#endif
