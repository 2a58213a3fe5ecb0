#include "tcp.h"

#include <stdlib.h>
#include <string.h>

#include "lwip/ip.h"
#include "lwip/priv/tcp_priv.h"

/* Reads before lwIP is told of them: few enough that skipping what was read costs nothing. */
#define READS_AT_MOST 16

/* A connect that nobody answers, without a timeout of the user's. */
#define CONNECT_AT_MOST (75 * NST_SECOND)

nst_tcp *nst_tcp_new(nst_stack *stack) {
  nst_tcp *tcp = calloc(1, sizeof *tcp);
  if (tcp == NULL) return NULL;
  nst_socket_init(&tcp->socket, stack, NST_TCP);
  nst_list_init(&tcp->gone);
  nst_list_init(&tcp->waits);
  nst_list_init(&tcp->half_open);
  nst_list_init(&tcp->acceptable);
  nst_list_init(&tcp->child);
  nst_tcp_timers_start(tcp);
  tcp->ttl = TCP_TTL;
  tcp->keep_idle = TCP_KEEPIDLE_DEFAULT;
  tcp->keep_interval = TCP_KEEPINTVL_DEFAULT;
  tcp->keep_count = TCP_KEEPCNT_DEFAULT;
  return tcp;
}

void nst_tcp_apply_options(nst_tcp *tcp) {
  struct tcp_pcb *pcb = tcp->pcb;
  if (pcb == NULL) return;
  pcb->ttl = tcp->ttl;
  pcb->tos = tcp->tos;
  if (pcb->state == LISTEN) return;
  if (tcp->nodelay) tcp_nagle_disable(pcb);
  else tcp_nagle_enable(pcb);
  if (tcp->keepalive) ip_set_option(pcb, SOF_KEEPALIVE);
  else ip_reset_option(pcb, SOF_KEEPALIVE);
  pcb->keep_idle = tcp->keep_idle;
  pcb->keep_intvl = tcp->keep_interval;
  pcb->keep_cnt = tcp->keep_count;
}

const char *nst_tcp_state_name(const nst_tcp *tcp) {
  /* RFC 9293's names */
  static const char *const names[] = {"CLOSED",     "LISTEN",     "SYN-SENT",   "SYN-RECEIVED", "ESTABLISHED", "FIN-WAIT-1",
                                      "FIN-WAIT-2", "CLOSE-WAIT", "CLOSING",    "LAST-ACK",     "TIME-WAIT"};
  if (tcp->pcb && tcp->pcb->state == SYN_SENT && tcp->crossed) return names[SYN_RCVD];
  return names[tcp->pcb ? tcp->pcb->state : CLOSED];
}

bool nst_tcp_local(const nst_tcp *tcp, ip_addr_t *host, uint16_t *port) {
  if (tcp->connecting || tcp->connected) {
    *host = tcp->local_host;
    *port = tcp->local_port;
    return true;
  }
  *host = tcp->socket.binding.host;
  *port = tcp->socket.binding.port;
  return tcp->socket.binding.port != 0;
}

bool nst_tcp_remote(const nst_tcp *tcp, ip_addr_t *host, uint16_t *port) {
  *host = tcp->remote_host;
  *port = tcp->remote_port;
  return tcp->connected;
}

size_t nst_tcp_unacked(const nst_tcp *tcp) {
  return tcp->pcb && tcp->connected ? (size_t)(uint32_t)(tcp->pcb->snd_lbb - tcp->pcb->lastack) : 0;
}

nst_error nst_tcp_bind(nst_tcp *tcp, const ip_addr_t *host, uint16_t port) {
  if (tcp->connected || tcp->connecting) return NST_ALREADY_CONNECTED;
  if (tcp->socket.binding.port != 0) return NST_ADDRESS_IN_USE;
  return nst_port_bind(tcp->socket.stack, &tcp->socket.binding, NST_TCP, host, port, false);
}

nst_error nst_tcp_listen(nst_tcp *tcp, size_t backlog) {
  struct tcp_pcb *pcb, *listening;
  nst_error error;
  if (tcp->connected || tcp->connecting) return NST_ALREADY_CONNECTED;
  tcp->backlog = backlog ? backlog : 1;
  if (tcp->listening) return NST_OK;
  if (tcp->socket.binding.port == 0) {
    ip_addr_t any = IPADDR_ANY_TYPE_INIT;
    error = nst_tcp_bind(tcp, &any, 0);
    if (error != NST_OK) return error;
  }
  pcb = tcp_new_ip_type(IP_GET_TYPE(&tcp->socket.binding.host));
  if (pcb == NULL) return NST_NO_MEMORY;
  pcb->local_ip = tcp->socket.binding.host;
  pcb->local_port = tcp->socket.binding.port;
  listening = tcp_listen(pcb);
  if (listening == NULL) {
    tcp_abandon(pcb, 0);
    return NST_NO_MEMORY;
  }
  tcp_listen_pcbs.pcbs = NULL;
  tcp->listening = true;
  (void)nst_tcp_attach_pcb(tcp, listening);
  nst_tcp_apply_options(tcp);
  return NST_OK;
}

/* The address that connections through this netif to that host come from. */
static const ip_addr_t *source_address(struct netif *netif, const ip_addr_t *host) {
  const ip_addr_t *source = ip_netif_get_local_ip(netif, host);
  return source && !ip_addr_isany(source) ? source : NULL;
}

static nst_error connect_pcb(nst_tcp *tcp, struct tcp_pcb *pcb) {
  nst_stack *stack = tcp->socket.stack;
  err_t result;
  pcb->local_ip = tcp->local_host;
  pcb->local_port = tcp->local_port;
  if (!nst_tcp_attach_pcb(tcp, pcb)) {
    tcp_abandon(pcb, 0);
    return NST_NO_MEMORY;
  }
  result = tcp_connect(pcb, &tcp->remote_host, tcp->remote_port, pcb->connected);
  if (result == ERR_OK) return NST_OK;
  tcp_abandon(pcb, 0);
  nst_tcp_put_down(stack);
  tcp->error = NST_OK;
  return result == ERR_RTE ? NST_NO_ROUTE : NST_NO_MEMORY;
}

nst_error nst_tcp_connect(nst_tcp *tcp, const ip_addr_t *host, uint16_t port) {
  nst_stack *stack = tcp->socket.stack;
  const nst_binding *binding = &tcp->socket.binding;
  const ip_addr_t *source;
  struct netif *netif;
  struct tcp_pcb *pcb;
  nst_tcp *other;
  nst_error error;
  if (tcp->connected || tcp->listening) return NST_ALREADY_CONNECTED;
  if (tcp->connecting) return NST_WOULDBLOCK;
  if (binding->port != 0 && !IP_IS_ANY_TYPE_VAL(binding->host) && IP_GET_TYPE(&binding->host) != IP_GET_TYPE(host)) {
    return NST_WRONG_IP_VERSION;
  }
  netif = nst_route_find(stack, NULL, host);
  if (netif == NULL) return NST_NO_ROUTE;
  source = binding->port != 0 && !ip_addr_isany(&binding->host) ? &binding->host : source_address(netif, host);
  if (source == NULL) return NST_NO_ROUTE;
  tcp->local_host = *source;
  tcp->remote_host = *host;
  if (IP_IS_V6(host) && ip6_addr_lacks_zone(ip_2_ip6(host), IP6_UNICAST)) {
    ip6_addr_assign_zone(ip_2_ip6(&tcp->remote_host), IP6_UNICAST, netif);
  }
  tcp->remote_port = port;
  tcp->local_port = binding->port != 0 ? binding->port : nst_port_choose(stack, NST_TCP, source, host, port);
  if (tcp->local_port == 0) return NST_ADDRESS_NOT_AVAILABLE;
  other = nst_tcp_find(stack, &tcp->local_host, tcp->local_port, &tcp->remote_host, port);
  if (other) { /* TIME_WAIT stands in nobody's way */
    if (other->pcb->state != TIME_WAIT) return NST_ADDRESS_IN_USE;
    nst_tcp_forget_time_wait(other);
  }
  pcb = tcp_new_ip_type(IP_GET_TYPE(host));
  if (pcb == NULL) return NST_NO_MEMORY;
  tcp->connecting = true;
  tcp->crossed = false;
  tcp->error = NST_OK;
  error = connect_pcb(tcp, pcb);
  if (error != NST_OK) {
    tcp->connecting = false;
    return error;
  }
  tcp->give_up_at = stack->now + CONNECT_AT_MOST;
  nst_tcp_put_down(stack);
  return NST_WOULDBLOCK;
}

nst_error nst_tcp_connected(nst_tcp *tcp) {
  nst_error error = tcp->error;
  if (tcp->connected) return NST_OK;
  if (error == NST_OK) return !tcp->socket.open ? NST_CLOSED : tcp->connecting ? NST_WOULDBLOCK : NST_NOT_CONNECTED;
  tcp->error = NST_OK; /* told; the socket may try again */
  tcp->connecting = false;
  return error;
}

nst_error nst_tcp_accept(nst_tcp *listener, nst_tcp **connection) {
  nst_tcp *child;
  nst_link *link;
  if (!listener->socket.open) return NST_CLOSED;
  if (!listener->listening) return NST_NOT_CONNECTED;
  link = nst_list_pop(&listener->acceptable);
  if (link == NULL) return NST_WOULDBLOCK;
  child = nst_holder(link, nst_tcp, child);
  child->listener = NULL;
  if (child->pcb) child->pcb->listener = NULL;
  listener->pending--;
  listener->socket.stack->counters.tcp_accepted++;
  *connection = child;
  return NST_OK;
}

/* Why nothing can be sent, when it is not for lack of room. */
static nst_error sendable(nst_tcp *tcp) {
  nst_error error = tcp->error;
  if (!tcp->socket.open || tcp->send_shut) return NST_CLOSED;
  if (tcp->connected && error != NST_OK) {
    tcp->error = NST_CLOSED;
    return error;
  }
  if (!tcp->connected) return NST_NOT_CONNECTED;
  if (tcp->pcb == NULL || (tcp->pcb->state != ESTABLISHED && tcp->pcb->state != CLOSE_WAIT)) return NST_CLOSED;
  return NST_OK;
}

/* lwIP makes segments of at most half of the largest window, or of any size while that is 0, and then relies on the last
** one in its queue to be none of those. */
static void fit_window(struct tcp_pcb *pcb) {
  const struct tcp_seg *last = pcb->unsent;
  uint32_t most;
  if (last == NULL || pcb->snd_wnd_max / 2 >= pcb->mss) return;
  while (last->next) last = last->next;
  most = (uint32_t)last->len + pcb->unsent_oversize; /* to which it may grow */
  if (pcb->snd_wnd_max / 2 < most) pcb->snd_wnd_max = 2 * most;
}

nst_error nst_tcp_send(nst_tcp *tcp, const char *data, size_t length, size_t *sent) {
  nst_error error = sendable(tcp);
  struct tcp_pcb *pcb = tcp->pcb;
  size_t done = 0, chunk = 0xffff;
  *sent = 0;
  if (error != NST_OK || length == 0) return error;
  if (tcp_sndbuf(pcb) == 0) return NST_WOULDBLOCK;
  nst_tcp_take_up(tcp);
  fit_window(pcb);
  nst_tcp_after_pause(tcp);
  while (done < length && tcp_sndbuf(pcb) > 0) {
    size_t rest = length - done, room = tcp_sndbuf(pcb);
    u8_t flags = TCP_WRITE_FLAG_COPY;
    if (pcb->mss > 0 && chunk == 0xffff) chunk -= chunk % pcb->mss; /* whole segments: no small ones in between */
    if (chunk > room) chunk = room;
    if (chunk < rest) flags |= TCP_WRITE_FLAG_MORE;
    else chunk = rest;
    if (tcp_write(pcb, data + done, (u16_t)chunk, flags) == ERR_OK) {
      done += chunk;
    } else if (chunk > 1) {
      chunk /= 2; /* lwIP takes all or nothing, and its queue of segments has a limit of its own */
    } else {
      break;
    }
  }
  if (done == 0 && pcb->snd_queuelen == 0) error = NST_NO_MEMORY;
  else if (done == 0) error = NST_WOULDBLOCK;
  tcp->socket.sent_bytes += done;
  tcp->socket.stack->isn_offset += (uint32_t)done;
  tcp_output(pcb);
  nst_tcp_put_down(tcp->socket.stack);
  *sent = done;
  return error;
}

nst_error nst_tcp_readable(nst_tcp *tcp) {
  nst_error error = tcp->error;
  if (!tcp->socket.open) return NST_CLOSED;
  if (tcp->received_length > 0) return NST_OK;
  if (tcp->connected && error != NST_OK) {
    tcp->error = NST_CLOSED;
    return error;
  }
  if (tcp->end_of_data || tcp->discards) return NST_CLOSED;
  if (tcp->connecting) return NST_WOULDBLOCK;
  if (!tcp->connected) return NST_NOT_CONNECTED;
  return tcp->pcb ? NST_WOULDBLOCK : NST_CLOSED;
}

const char *nst_tcp_first(const nst_tcp *tcp, size_t *length) {
  const struct pbuf *p = tcp->received;
  size_t skip = tcp->consumed;
  while (p && p->len <= skip) {
    skip -= p->len;
    p = p->next;
  }
  *length = p ? p->len - skip : 0;
  return p ? (const char *)p->payload + skip : NULL;
}

size_t nst_tcp_peek(const nst_tcp *tcp, char *to, size_t offset, size_t length) {
  const struct pbuf *p;
  size_t skip = tcp->consumed + offset, done = 0;
  for (p = tcp->received; p && done < length; p = p->next) {
    size_t here = p->len;
    if (skip >= here) {
      skip -= here;
      continue;
    }
    here -= skip;
    if (here > length - done) here = length - done;
    memcpy(to + done, (const char *)p->payload + skip, here);
    done += here;
    skip = 0;
  }
  return done;
}

size_t nst_tcp_find_newline(const nst_tcp *tcp) {
  const struct pbuf *p;
  size_t skip = tcp->consumed, before = 0;
  for (p = tcp->received; p; p = p->next) {
    const char *start = (const char *)p->payload + skip, *found;
    if (p->len > skip) {
      found = memchr(start, '\n', p->len - skip);
      if (found) return before + (size_t)(found - start) + 1;
      before += p->len - skip;
      skip = 0;
    } else {
      skip -= p->len;
    }
  }
  return 0;
}

bool nst_tcp_announces(const nst_tcp *tcp, size_t length) {
  return tcp->reads + 1 >= READS_AT_MOST ||
         tcp->unannounced + length >= tcp->socket.stack->config.tcp_buffer_size / 8;
}

bool nst_tcp_consume(nst_tcp *tcp, size_t length) {
  bool announces = nst_tcp_announces(tcp, length);
  tcp->received_length -= length;
  tcp->consumed += length;
  tcp->unannounced += length;
  tcp->reads++;
  return announces;
}

void nst_tcp_drop_received(nst_tcp *tcp, bool free_pbufs) {
  while (free_pbufs && tcp->received) {
    struct pbuf *p = tcp->received;
    tcp->received = p->next;
    p->next = NULL;
    p->tot_len = p->len;
    pbuf_free(p);
  }
  tcp->received = tcp->received_last = NULL;
  tcp->received_length = tcp->consumed = tcp->unannounced = 0;
  tcp->reads = 0;
}

nst_error nst_tcp_shutdown(nst_tcp *tcp, bool receive, bool send) {
  if (!tcp->socket.open) return NST_CLOSED;
  if (!tcp->connected) return NST_NOT_CONNECTED;
  if (receive && !tcp->discards) {
    size_t unread = tcp->received_length;
    tcp->discards = true;
    if (unread > 0 && nst_tcp_consume(tcp, unread)) nst_tcp_announce(tcp);
    nst_socket_changed(&tcp->socket);
  }
  if (send && !tcp->send_shut) {
    tcp->send_shut = true;
    if (tcp->pcb) {
      nst_tcp_take_up(tcp);
      (void)tcp_shutdown(tcp->pcb, 0, 1);
      nst_tcp_put_down(tcp->socket.stack);
    }
    nst_socket_changed(&tcp->socket);
  }
  return NST_OK;
}

/* Closing a listener closes what nobody accepted. */
static void close_listener(nst_tcp *tcp) {
  nst_link *queues[2], *link;
  int i;
  queues[0] = &tcp->half_open;
  queues[1] = &tcp->acceptable;
  for (i = 0; i < 2; i++) {
    while ((link = queues[i]->next) != queues[i]) nst_tcp_abort(nst_holder(link, nst_tcp, child));
  }
  nst_tcp_take_up(tcp);
  tcp_close(tcp->pcb);
  nst_tcp_put_down(tcp->socket.stack);
}

/* The peer heeds only a reset that carries the very next number. When what was sent last lay beyond its window (a probe,
** FIN), it may have taken that or not: before the reset that follows, it gets one for the second case. */
static void reset_at_edge(const struct tcp_pcb *pcb) {
  uint32_t edge = pcb->lastack + pcb->snd_wnd;
  if (pcb->state < ESTABLISHED || !TCP_SEQ_GT(pcb->snd_nxt, edge)) return;
  tcp_rst(pcb, edge, pcb->rcv_nxt, &pcb->local_ip, &pcb->remote_ip, pcb->local_port, pcb->remote_port);
}

void nst_tcp_abort(nst_tcp *tcp) {
  if (tcp->pcb == NULL) return;
  if (tcp->listening) {
    close_listener(tcp);
    return;
  }
  tcp->aborting = true;
  nst_tcp_take_up(tcp);
  reset_at_edge(tcp->pcb);
  /* RFC 9293 3.10.5: where nobody has answered, there is nobody to tell. */
  tcp_abandon(tcp->pcb, tcp->pcb->state != SYN_SENT || tcp->crossed);
  nst_tcp_put_down(tcp->socket.stack);
}

void nst_tcp_close(nst_tcp *tcp) {
  struct tcp_pcb *pcb = tcp->pcb;
  bool unread = tcp->received_length > 0;
  nst_tcp_announce(tcp); /* what was read must not look unread to lwIP, which would send RST */
  nst_tcp_drop_received(tcp, true);
  if (pcb == NULL) return;
  if (tcp->listening) {
    close_listener(tcp);
  } else if (tcp->linger.on && tcp->linger.time == 0) {
    nst_tcp_abort(tcp);
  } else if (unread && pcb->state != ESTABLISHED && pcb->state != CLOSE_WAIT) {
    nst_tcp_abort(tcp); /* lwIP resets only in those two; the peer must learn that its data was lost in all */
  } else {
    if (tcp->linger.on) tcp->give_up_at = tcp->socket.stack->now + tcp->linger.time;
    nst_tcp_take_up(tcp);
    if (unread) reset_at_edge(pcb);
    tcp_close(pcb);
    nst_tcp_put_down(tcp->socket.stack);
  }
}
