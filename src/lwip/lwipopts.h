/*
** lwIP's settings: a bare stack (no threads, no OS) whose timers, demultiplexing and routing are driven by us.
** What may differ between two stacks of one process is a variable of the state image, not a number here.
*/
#ifndef LWIPOPTS_H
#define LWIPOPTS_H

#include "hooks.h"

/* No OS, no threads; tcp_timers.c and stack.c call the protocol timers, and only when there is something to time. */
#define NO_SYS 1
#define SYS_LIGHTWEIGHT_PROT 0
#define LWIP_TIMERS 0
#define LWIP_NETCONN 0
#define LWIP_SOCKET 0
#define LWIP_NETIF_API 0

/* Memory comes from memory.c, which knows the owner of each block; there are no fixed pools. */
#define MEM_CUSTOM_ALLOCATOR 1
#define MEMP_MEM_MALLOC 1
#define MEM_CUSTOM_MALLOC nst_lwip_malloc
#define MEM_CUSTOM_CALLOC nst_lwip_calloc
#define MEM_CUSTOM_FREE nst_lwip_free
#define MEM_ALIGNMENT 8
#define PBUF_POOL_BUFSIZE 1536 /* of the pool that nobody uses: its default follows TCP_MSS and does not fit */
#define LWIP_SUPPORT_CUSTOM_PBUF 1 /* a received packet is handed over, not copied */

/* IP */
#define LWIP_IPV4 1
#define LWIP_IPV6 1
#define LWIP_IPV6_SCOPES 1
#define LWIP_IPV6_NUM_ADDRESSES 9 /* a link-local one and eight more */
#define IP_FORWARD 0 /* forward.c does it, for both families */
#define LWIP_IPV6_FORWARD 0
#define IP_REASSEMBLY 0 /* reassembly.c does it, for both families */
#define LWIP_IPV6_REASS 0
#define IP_FRAG 1
#define IPV6_FRAG_COPYHEADER 1 /* 64-bit pointers do not fit into the fragment header */
#define LWIP_RAW 1
#define LWIP_ICMP 1
#define LWIP_ICMP6 1

/* Neighbour discovery stays quiet: point-to-point media have no neighbours to find. */
#define LWIP_ARP 0
#define LWIP_ETHERNET 0
#define LWIP_IPV6_MLD 0
#define LWIP_IGMP 0
#define LWIP_IPV6_SEND_ROUTER_SOLICIT 0
#define LWIP_IPV6_AUTOCONFIG 0
#define LWIP_IPV6_DUP_DETECT_ATTEMPTS 0
#define LWIP_ND6_QUEUEING 0
#define LWIP_ND6_TCP_REACHABILITY_HINTS 0
#define LWIP_ND6_NUM_NEIGHBORS 1
#define LWIP_ND6_NUM_DESTINATIONS 1
#define LWIP_ND6_NUM_PREFIXES 1
#define LWIP_ND6_NUM_ROUTERS 1

/* Own addresses are looped by interface.c, with a bound per poll; lwIP's own loopback has none. */
#define LWIP_HAVE_LOOPIF 0
#define LWIP_NETIF_LOOPBACK 0
#define LWIP_CHECKSUM_CTRL_PER_NETIF 1

/* UDP */
#define LWIP_UDP 1
#define LWIP_UDPLITE 0

/* TCP. One tick is a millisecond; nobody counts ticks one by one (tcp_timers.c says how). */
#define LWIP_TCP 1
#define LWIP_DISABLE_TCP_SANITY_CHECKS 1 /* they compare constants; ours are variables */
#define TCP_TMR_INTERVAL 1
#define TCP_FAST_INTERVAL 1
#define TCP_SLOW_INTERVAL 1
#define LWIP_TCP_RTO_TIME 1000 /* RFC 6298 (2.1) */
#define TCP_MSS 65495 /* what the interface's mtu does not limit; IPv4's maximum less 40 bytes */
#define LWIP_WND_SCALE 1
#define TCP_WND (NST_COMPILED ? nst_tcp_buffer_size : 65535) /* lwIP's #if sees the second, its code the first */
#define TCP_SND_BUF TCP_WND
#define TCP_RCV_SCALE nst_tcp_window_scale
#define TCP_WND_UPDATE_THRESHOLD (nst_tcp_buffer_size / 4)
#define TCP_SND_QUEUELEN 0xfffc
#define TCP_SNDLOWAT 1024
#define TCP_SNDQUEUELOWAT 1024
#define TCP_OVERSIZE 1460
#define TCP_QUEUE_OOSEQ 1
#define LWIP_TCP_SACK_OUT 1
#define LWIP_TCP_TIMESTAMPS 0
#define LWIP_TCP_KEEPALIVE 1
#define TCP_LISTEN_BACKLOG 0 /* tcp_listener.c keeps it: lwIP's is eight bits wide */
#define LWIP_TCP_PCB_NUM_EXT_ARGS 1
#define TCP_SYNMAXRTX 7
#define TCP_MAXRTX 12
#define SO_REUSE 0 /* ports.c decides who may bind what */

/* Counters */
#define LWIP_STATS 1
#define LWIP_STATS_LARGE 1
#define LWIP_STATS_DISPLAY 0
#define LINK_STATS 0
#define ETHARP_STATS 0
#define IGMP_STATS 0
#define MLD6_STATS 0
#define ND6_STATS 0
#define MEM_STATS 0
#define MEMP_STATS 0
#define SYS_STATS 0

#endif
