#include "udp.h"

#include <stdlib.h>

#include "path_mtu.h"

#include "lwip/ip.h"
#include "lwip/prot/udp.h"

/* RFC 768 in IPv4; with IPv6 a packet in lwIP is no longer than 65,535 bytes, header and all. */
#define LONGEST4 65507
#define LONGEST6 (65535 - 40 - 8)

nst_udp *nst_udp_new(nst_stack *stack) {
  nst_udp *udp = calloc(1, sizeof *udp);
  if (udp == NULL) return NULL;
  nst_socket_init(&udp->socket, stack, NST_UDP);
  nst_list_init(&udp->inbox.datagrams);
  udp->ttl = UDP_TTL;
  return udp;
}

void nst_udp_apply_options(nst_udp *udp) {
  if (udp->pcb == NULL) return;
  udp->pcb->ttl = udp->ttl;
  udp->pcb->tos = udp->tos;
}

static void received(void *argument, struct udp_pcb *pcb, struct pbuf *p, const ip_addr_t *host, u16_t port) {
  nst_udp *udp = argument;
  nst_stack *stack = udp->socket.stack;
  (void)pcb;
  if (nst_inbox_put(&udp->inbox, p, host, port, stack->config.udp_message_count, stack->config.udp_buffer_size)) {
    udp->socket.received_bytes += p->tot_len;
    nst_socket_changed(&udp->socket);
  } else {
    stack->counters.udp_queue_full++;
    stack->drop_cause = "receive queue full";
  }
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
  const ip_addr_t *bound = &udp->pcb->local_ip, *from = bound;
  *netif = nst_route_find(udp->socket.stack, ip_addr_isany(bound) ? NULL : bound, host);
  if (*netif == NULL) return NST_NO_ROUTE;
  if (ip_addr_isany(bound)) from = ip_netif_get_local_ip(*netif, host);
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
  udp->pcb->local_ip = source; /* from now on it is heard only there, as with BSD's connect */
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
  result = udp_sendto_if_src(udp->pcb, p, host, port, netif, source);
  stack->sending_datagram = stack->dont_fragment = false;
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
                              nst_path_mtu(udp->socket.stack, host, interface->mtu, NULL)) {
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

void nst_udp_close(nst_udp *udp) {
  if (udp->pcb) udp_remove(udp->pcb);
  nst_udp_forget(udp);
}

void nst_udp_forget(nst_udp *udp) {
  udp->pcb = NULL;
  nst_inbox_clear(&udp->inbox);
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
