#include "udp.h"

#include <stdlib.h>

#include "bytes.h"
#include "path_mtu.h"

#include "lwip/inet_chksum.h"
#include "lwip/ip.h"
#include "lwip/prot/udp.h"
#include "lwip/stats.h"

/* RFC 768 in IPv4; with IPv6 a packet in lwIP is no longer than 65,535 bytes, header and all. */
#define LONGEST4 65507
#define LONGEST6 (65535 - 40 - 8)

nst_udp *nst_udp_new(nst_stack *stack) {
  nst_udp *udp = calloc(1, sizeof *udp);
  if (udp == NULL) return NULL;
  nst_socket_init(&udp->socket, stack, NST_UDP);
  nst_list_init(&udp->inbox.datagrams);
  nst_list_init(&udp->memberships);
  udp->ttl = UDP_TTL;
  udp->group_ttl = udp->group_hops = 1; /* RFC 1112 §6.1, RFC 3493 5.2 */
  udp->group_loop4 = udp->group_loop6 = true;
  return udp;
}

void nst_udp_apply_options(nst_udp *udp) {
  if (udp->pcb == NULL) return;
  udp->pcb->ttl = udp->ttl;
  udp->pcb->tos = udp->tos;
}

static void keep(nst_udp *udp, struct pbuf *p, const ip_addr_t *host, uint16_t port) {
  nst_stack *stack = udp->socket.stack;
  if (nst_inbox_put(&udp->inbox, p, host, port, stack->config.udp_message_count, stack->config.udp_buffer_size)) {
    udp->socket.received_bytes += p->tot_len;
    nst_socket_changed(&udp->socket);
  } else {
    stack->counters.udp_queue_full++;
    stack->drop_cause = "receive queue full";
  }
}

static void received(void *argument, struct udp_pcb *pcb, struct pbuf *p, const ip_addr_t *host, u16_t port) {
  (void)pcb;
  keep(argument, p, host, port);
  pbuf_free(p);
}

nst_error nst_udp_bind(nst_udp *udp, const ip_addr_t *host, uint16_t port) {
  nst_stack *stack = udp->socket.stack;
  nst_error error;
  if (udp->pcb) return NST_ADDRESS_IN_USE;
  error = nst_port_bind(stack, &udp->socket.binding, NST_UDP, host, port, udp->reuse_address);
  if (error != NST_OK) return error;
  udp->pcb = udp_new_ip_type(IP_GET_TYPE(host));
  if (udp->pcb == NULL) {
    nst_port_release(stack, &udp->socket.binding);
    return NST_NO_MEMORY;
  }
  udp->pcb->local_ip = *host;
  udp->pcb->local_port = udp->socket.binding.port;
  udp_recv(udp->pcb, received, udp);
  nst_udp_apply_options(udp);
  return NST_OK;
}

/* A socket that sends before it was bound takes any port. */
static nst_error ensure_bound(nst_udp *udp) {
  ip_addr_t any = IPADDR_ANY_TYPE_INIT;
  return udp->pcb ? NST_OK : nst_udp_bind(udp, &any, 0);
}

static bool same_family(const nst_udp *udp, const ip_addr_t *host) {
  const ip_addr_t *bound = &udp->socket.binding.host;
  return udp->pcb == NULL || IP_IS_ANY_TYPE_VAL(*bound) || IP_GET_TYPE(bound) == IP_GET_TYPE(host);
}

/* Where datagrams to `host` leave, and the address they come from. */
static nst_error find_way(const nst_udp *udp, const ip_addr_t *host, struct netif **netif, ip_addr_t *source) {
  const ip_addr_t *from = &udp->pcb->local_ip;
  if (ip_addr_isany(from) || ip_addr_ismulticast(from)) from = NULL; /* a group sends nothing */
  if (udp->group_interface && ip_addr_ismulticast(host)) *netif = nst_route_through(udp->group_interface, from, host);
  else *netif = nst_route_find(udp->socket.stack, from, host);
  if (*netif == NULL) return NST_NO_ROUTE;
  if (from == NULL) from = ip_netif_get_local_ip(*netif, host);
  if (from == NULL || ip_addr_isany(from)) return NST_NO_ROUTE;
  *source = *from;
  return NST_OK;
}

static bool may_send_to(const nst_udp *udp, struct netif *netif, const ip_addr_t *host) {
  return udp->broadcast || IP_IS_V6(host) || !ip4_addr_isbroadcast(ip_2_ip4(host), netif);
}

nst_error nst_udp_connect(nst_udp *udp, const ip_addr_t *host, uint16_t port) {
  struct netif *netif;
  ip_addr_t source;
  nst_error error = ensure_bound(udp);
  if (error != NST_OK) return error;
  udp->pcb->local_ip = udp->socket.binding.host;
  if (host == NULL) {
    udp->connected = false;
    udp->pcb->flags &= (u8_t)~UDP_FLAGS_CONNECTED;
    udp->pcb->remote_port = 0;
    return NST_OK;
  }
  if (!same_family(udp, host)) return NST_WRONG_IP_VERSION;
  error = find_way(udp, host, &netif, &source);
  if (error != NST_OK) return error;
  if (!may_send_to(udp, netif, host)) return NST_PERMISSION_DENIED;
  udp->connected = true;
  udp->remote_host = *host;
  udp->remote_port = port;
  /* From now on it is heard only there, as with BSD's connect. */
  if (!ip_addr_ismulticast(&udp->pcb->local_ip)) udp->pcb->local_ip = source;
  udp->pcb->flags |= UDP_FLAGS_CONNECTED;
  udp->pcb->remote_ip = *host;
  udp->pcb->remote_port = port;
  return NST_OK;
}

static nst_error output(nst_udp *udp, struct netif *netif, const ip_addr_t *source, const ip_addr_t *host,
                        uint16_t port, const void *data, size_t length) {
  nst_stack *stack = udp->socket.stack;
  struct pbuf *p = pbuf_alloc(PBUF_TRANSPORT, (u16_t)length, PBUF_RAM);
  err_t result;
  if (p == NULL) return NST_NO_MEMORY;
  if (length > 0) (void)pbuf_take(p, data, (u16_t)length);
  stack->sending_datagram = true;
  stack->dont_fragment = udp->dont_fragment;
  stack->unheard = !(IP_IS_V6(host) ? udp->group_loop6 : udp->group_loop4);
  if (ip_addr_ismulticast(host)) udp->pcb->ttl = IP_IS_V6(host) ? udp->group_hops : udp->group_ttl;
  result = udp_sendto_if_src(udp->pcb, p, host, port, netif, source);
  udp->pcb->ttl = udp->ttl;
  stack->sending_datagram = stack->dont_fragment = stack->unheard = false;
  pbuf_free(p);
  if (result == ERR_OK) udp->socket.sent_bytes += length;
  return result == ERR_OK ? NST_OK : result == ERR_MEM || result == ERR_BUF ? NST_NO_MEMORY : NST_NO_ROUTE;
}

nst_error nst_udp_send(nst_udp *udp, const ip_addr_t *host, uint16_t port, const void *data, size_t length) {
  ip_addr_t source;
  nst_interface *interface;
  struct netif *netif;
  nst_error error = udp->error;
  if (!udp->socket.open) return NST_CLOSED;
  if (host == NULL) {
    if (!udp->connected) return NST_NOT_CONNECTED;
    host = &udp->remote_host;
    port = udp->remote_port;
  }
  if (udp->connected && error != NST_OK) {
    udp->error = NST_OK;
    return error;
  }
  if (length > (IP_IS_V6(host) ? LONGEST6 : LONGEST4)) return NST_MESSAGE_TOO_LONG;
  error = ensure_bound(udp);
  if (error != NST_OK) return error;
  if (!same_family(udp, host)) return NST_WRONG_IP_VERSION;
  error = find_way(udp, host, &netif, &source);
  if (error != NST_OK) return error;
  if (!may_send_to(udp, netif, host)) return NST_PERMISSION_DENIED;
  interface = nst_interface_of(netif);
  if (udp->dont_fragment && length + 8u + (IP_IS_V6(host) ? 40u : 20u) >
                              nst_path_mtu(udp->socket.stack, host, nst_interface_mtu(interface, host), NULL)) {
    return NST_MESSAGE_TOO_LONG;
  }
  if (!nst_interface_has_room(interface)) {
    nst_interface_block(interface, &udp->socket);
    return NST_WOULDBLOCK;
  }
  return output(udp, netif, &source, host, port, data, length);
}

nst_error nst_udp_readable(nst_udp *udp) {
  nst_error error = udp->error;
  if (!udp->socket.open) return NST_CLOSED;
  if (udp->inbox.count > 0) return NST_OK;
  udp->error = NST_OK;
  return error != NST_OK ? error : NST_WOULDBLOCK;
}

void nst_udp_send_groups_through(nst_udp *udp, nst_interface *interface) {
  if (udp->group_interface) nst_interface_release(udp->group_interface);
  udp->group_interface = interface ? nst_interface_retain(interface) : NULL;
}

void nst_udp_close(nst_udp *udp) {
  nst_groups_leave_all(udp, true);
  if (udp->pcb) udp_remove(udp->pcb);
  nst_udp_forget(udp);
}

void nst_udp_forget(nst_udp *udp) {
  udp->pcb = NULL;
  nst_inbox_clear(&udp->inbox);
  nst_groups_leave_all(udp, false);
  nst_udp_send_groups_through(udp, NULL);
}

bool nst_udp_reported(nst_stack *stack, const ip_addr_t *local_host, uint16_t local_port,
                      const ip_addr_t *remote_host, uint16_t remote_port, nst_error error) {
  nst_node *node;
  bool sent = false;
  for (node = nst_table_bucket(&stack->ports, local_port); node; node = node->next) {
    nst_binding *binding = nst_holder(node, nst_binding, node);
    nst_udp *udp = (nst_udp *)(void *)nst_holder(binding, nst_socket, binding);
    if (binding->protocol != NST_UDP || binding->port != local_port) continue;
    if (!ip_addr_isany(&binding->host) && !ip_addr_eq(&binding->host, local_host)) continue;
    if (udp->connected && (udp->remote_port != remote_port || !ip_addr_eq(&udp->remote_host, remote_host))) continue;
    sent = sent || udp->socket.sent_bytes > 0;
    if (!udp->connected || error == NST_MESSAGE_TOO_LONG) continue;
    udp->error = error;
    nst_socket_changed(&udp->socket);
  }
  return sent;
}

static bool is_member(const nst_udp *udp, const nst_group *group) {
  const nst_link *link;
  for (link = udp->memberships.next; link != &udp->memberships; link = link->next) {
    if (nst_holder(link, const nst_membership, link)->group == group) return true;
  }
  return false;
}

/* Being bound to the port is not enough, which Linux takes for it by default: it must have joined the group there. */
static bool hears(const nst_udp *udp, bool to_all, const nst_group *group, const ip_addr_t *from, uint16_t from_port,
                  const ip_addr_t *to) {
  const ip_addr_t *bound = &udp->pcb->local_ip;
  if (!IP_IS_ANY_TYPE_VAL(*bound) && (IP_GET_TYPE(bound) != IP_GET_TYPE(to) ||
                                      !(ip_addr_isany(bound) || ip_addr_zoneless_eq(bound, to)))) {
    return false;
  }
  if (udp->connected && (udp->remote_port != from_port || !ip_addr_eq(&udp->remote_host, from))) return false;
  return to_all || is_member(udp, group);
}

/* lwIP's udp_input would do so for the first of them. */
void nst_udp_group_input(nst_interface *interface, struct pbuf *p, bool to_all, const nst_group *group,
                         const ip_addr_t *from, const ip_addr_t *to) {
  const uint8_t *header = p->payload;
  uint16_t from_port = (uint16_t)nst_get16(header), port = (uint16_t)nst_get16(header + 2);
  bool summed = nst_get16(header + 6) != 0 && interface->device && interface->device->checksum, heard = false;
  nst_node *node;
  UDP_STATS_INC(udp.recv);
  pbuf_realloc(p, (u16_t)nst_get16(header + 4));
  if (summed && ip_chksum_pseudo(p, IP_PROTO_UDP, p->tot_len, from, to) != 0) {
    UDP_STATS_INC(udp.chkerr);
    UDP_STATS_INC(udp.drop);
    return;
  }
  (void)pbuf_remove_header(p, UDP_HLEN);
  for (node = nst_table_bucket(&interface->stack->ports, port); node; node = node->next) {
    nst_binding *binding = nst_holder(node, nst_binding, node);
    nst_udp *udp = (nst_udp *)(void *)nst_holder(binding, nst_socket, binding);
    if (binding->protocol != NST_UDP || binding->port != port) continue;
    if (!hears(udp, to_all, group, from, from_port, to)) continue;
    keep(udp, p, from, from_port);
    heard = true;
  }
  if (heard) return;
  UDP_STATS_INC(udp.proterr);
  UDP_STATS_INC(udp.drop);
}

void __wrap_udp_input(struct pbuf *p, struct netif *input);

/*
** ip4.c and ip6.c call this in place of udp_input. As with TCP, lwIP's list holds only the sockets that the datagram
** may be for: those on its port.
*/
void __wrap_udp_input(struct pbuf *p, struct netif *input) {
  nst_stack *stack = nst_current();
  if (p->len >= UDP_HLEN) {
    uint16_t port = lwip_ntohs(((const struct udp_hdr *)p->payload)->dest);
    nst_node *node;
    for (node = nst_table_bucket(&stack->ports, port); node; node = node->next) {
      nst_binding *binding = nst_holder(node, nst_binding, node);
      nst_udp *udp = (nst_udp *)(void *)nst_holder(binding, nst_socket, binding);
      if (binding->protocol != NST_UDP || binding->port != port) continue;
      udp->pcb->next = udp_pcbs;
      udp_pcbs = udp->pcb;
    }
  }
  udp_input(p, input);
  udp_pcbs = NULL;
}
