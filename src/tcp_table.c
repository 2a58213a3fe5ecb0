#include "bytes.h"
#include "tcp.h"
#include "trace.h"

#include <string.h>

#include "lwip/ip.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/prot/tcp.h"

/* TIME_WAIT is short (tcp_timers.c), because the wires here are, and bounded, because memory is. */
#define TIME_WAIT_AT_MOST 4096

typedef struct addresses {
  uint8_t bytes[36];
} addresses;

static uint64_t hash_of(nst_stack *stack, const ip_addr_t *local_host, uint16_t local_port,
                        const ip_addr_t *remote_host, uint16_t remote_port) {
  addresses key;
  size_t length = nst_put_address(key.bytes, local_host);
  length += nst_put_address(key.bytes + length, remote_host);
  memcpy(key.bytes + length, &local_port, 2);
  memcpy(key.bytes + length + 2, &remote_port, 2);
  return nst_siphash(stack->secret, key.bytes, length + 4);
}

/* RFC 6528: a secret function of the connection plus a clock of 4 µs, here also moved on by every byte sent, so that
** a new connection's numbers lie beyond those of the last one even when no time has passed. */
uint32_t nst_tcp_isn(const struct ip_addr *local_ip, uint16_t local_port, const struct ip_addr *remote_ip,
                     uint16_t remote_port) {
  nst_stack *stack = nst_current();
  uint64_t key[2];
  addresses tuple;
  size_t length = nst_put_address(tuple.bytes, local_ip);
  if (!NST_GUARDED) return stack->isn_offset += 6510; /* as lwIP does */
  key[0] = stack->secret[1]; /* not the table's key: what the table leaks says nothing about this */
  key[1] = ~stack->secret[0];
  length += nst_put_address(tuple.bytes + length, remote_ip);
  memcpy(tuple.bytes + length, &local_port, 2);
  memcpy(tuple.bytes + length + 2, &remote_port, 2);
  stack->isn_offset += 2; /* SYN and FIN */
  return (uint32_t)nst_siphash(key, tuple.bytes, length + 4) + (uint32_t)(stack->now / 4000) + stack->isn_offset;
}

static bool has_addresses(const nst_tcp *tcp, const ip_addr_t *local_host, uint16_t local_port,
                          const ip_addr_t *remote_host, uint16_t remote_port) {
  return tcp->local_port == local_port && tcp->remote_port == remote_port &&
         ip_addr_eq(&tcp->local_host, local_host) && ip_addr_eq(&tcp->remote_host, remote_host);
}

nst_tcp *nst_tcp_find(nst_stack *stack, const ip_addr_t *local_host, uint16_t local_port, const ip_addr_t *remote_host,
                      uint16_t remote_port) {
  nst_node *node;
  uint64_t hash;
  if (stack->recent && has_addresses(stack->recent, local_host, local_port, remote_host, remote_port)) {
    return stack->recent;
  }
  hash = hash_of(stack, local_host, local_port, remote_host, remote_port);
  for (node = nst_table_bucket(&stack->connections, hash); node; node = node->next) {
    nst_tcp *tcp = nst_holder(node, nst_tcp, node);
    if (node->hash == hash && has_addresses(tcp, local_host, local_port, remote_host, remote_port)) {
      stack->recent = tcp;
      return tcp;
    }
  }
  return NULL;
}

void nst_tcp_leave_table(nst_tcp *tcp) {
  nst_stack *stack = tcp->socket.stack;
  if (stack->recent == tcp) stack->recent = NULL;
  nst_table_remove(&stack->connections, &tcp->node);
}

static nst_tcp *socket_of(const struct tcp_pcb *pcb) {
  return tcp_ext_arg_get(pcb, 0);
}

/* ---- what lwIP calls ---- */

static void pcb_freed(u8_t id, void *data) {
  nst_tcp *tcp = data;
  (void)id;
  tcp->pcb = NULL;
  nst_list_append(&tcp->socket.stack->gone, &tcp->gone);
}

static err_t passive_open(u8_t id, struct tcp_pcb_listen *listening, struct tcp_pcb *pcb) {
  nst_tcp *listener = socket_of((const struct tcp_pcb *)listening), *child;
  (void)id;
  child = nst_tcp_new(listener->socket.stack);
  if (child == NULL) return ERR_MEM;
  child->local_host = pcb->local_ip;
  child->remote_host = pcb->remote_ip;
  child->local_port = pcb->local_port;
  child->remote_port = pcb->remote_port;
  child->nodelay = listener->nodelay;
  child->keepalive = listener->keepalive;
  child->keep_idle = listener->keep_idle;
  child->keep_interval = listener->keep_interval;
  child->keep_count = listener->keep_count;
  child->ttl = listener->ttl;
  child->tos = listener->tos;
  if (IP_IS_V6_VAL(pcb->remote_ip) && !listener->socket.stack->segment.options.has_mss) {
    pcb->mss = tcp_eff_send_mss(NST_TCP_DEFAULT_MSS6, &pcb->local_ip, &pcb->remote_ip);
  }
  if (!nst_tcp_attach_pcb(child, pcb)) {
    nst_socket_release(&child->socket);
    return ERR_MEM;
  }
  child->listener = listener;
  nst_list_append(&listener->half_open, &child->child);
  listener->pending++;
  return ERR_OK;
}

static const struct tcp_ext_arg_callbacks pcb_callbacks = {pcb_freed, passive_open};

static err_t accepted(void *argument, struct tcp_pcb *pcb, err_t error) {
  nst_tcp *child;
  (void)argument;
  if (pcb == NULL || error != ERR_OK) return ERR_OK; /* out of memory: the peer's SYN will come again */
  child = socket_of(pcb);
  child->connected = true;
  nst_list_remove(&child->child);
  nst_list_append(&child->listener->acceptable, &child->child);
  nst_socket_changed(&child->listener->socket);
  return ERR_OK;
}

static err_t connected(void *argument, struct tcp_pcb *pcb, err_t error) {
  nst_tcp *tcp = argument;
  (void)pcb;
  (void)error;
  tcp->connecting = false;
  tcp->connected = true;
  tcp->give_up_at = NST_NEVER;
  tcp->socket.stack->counters.tcp_opened++;
  nst_socket_changed(&tcp->socket);
  return ERR_OK;
}

static void recved(struct tcp_pcb *pcb, size_t length) {
  for (; length > 0xffff; length -= 0xffff) tcp_recved(pcb, 0xffff);
  tcp_recved(pcb, (u16_t)length);
}

static err_t received(void *argument, struct tcp_pcb *pcb, struct pbuf *p, err_t error) {
  nst_tcp *tcp = argument;
  (void)error;
  nst_socket_changed(&tcp->socket);
  if (p == NULL) {
    tcp->end_of_data = true;
    return ERR_OK;
  }
  tcp->socket.received_bytes += p->tot_len;
  if (tcp->discards || !tcp->socket.open) {
    recved(pcb, p->tot_len);
    pbuf_free(p);
    return ERR_OK;
  }
  tcp->received_length += p->tot_len;
  if (tcp->received_last) tcp->received_last->next = p;
  else tcp->received = p;
  while (p->next) p = p->next;
  tcp->received_last = p;
  return ERR_OK;
}

static err_t sent(void *argument, struct tcp_pcb *pcb, u16_t length) {
  (void)pcb;
  (void)length;
  nst_socket_changed(&((nst_tcp *)argument)->socket);
  return ERR_OK;
}

/* The pcb is freed already (pcb_freed was called). */
static void failed(void *argument, err_t error) {
  nst_tcp *tcp = argument;
  if (error == ERR_RST) tcp->error = tcp->connecting ? NST_REFUSED : NST_RESET;
  else if (error == ERR_ABRT && tcp->error == NST_OK) tcp->error = tcp->aborting ? NST_ABORTED : NST_TIMEOUT;
  nst_socket_changed(&tcp->socket);
}

bool nst_tcp_attach_pcb(nst_tcp *tcp, struct tcp_pcb *pcb) {
  nst_stack *stack = tcp->socket.stack;
  if (pcb->state != LISTEN) {
    uint64_t hash = hash_of(stack, &tcp->local_host, tcp->local_port, &tcp->remote_host, tcp->remote_port);
    if (!nst_table_insert(&stack->connections, &tcp->node, hash)) return false;
  }
  tcp->pcb = pcb;
  (void)nst_socket_retain(&tcp->socket);
  tcp_ext_arg_set_callbacks(pcb, 0, &pcb_callbacks);
  tcp_ext_arg_set(pcb, 0, tcp);
  tcp_arg(pcb, tcp);
  if (pcb->state == LISTEN) {
    tcp_accept(pcb, accepted);
  } else {
    tcp_recv(pcb, received);
    tcp_sent(pcb, sent);
    tcp_err(pcb, failed);
    pcb->connected = connected;
    nst_tcp_apply_options(tcp);
    nst_tcp_timers_start(tcp);
  }
  return true;
}

/* ---- on and off lwIP's lists ---- */

/* Gives back what was read: the pbufs are freed, the window opens. */
static void give_back(nst_tcp *tcp) {
  size_t length = tcp->unannounced;
  while (tcp->received && tcp->received->len <= tcp->consumed) {
    struct pbuf *p = tcp->received;
    tcp->consumed -= p->len;
    tcp->received = p->next;
    p->next = NULL;
    p->tot_len = p->len;
    pbuf_free(p);
  }
  if (tcp->received == NULL) tcp->received_last = NULL;
  tcp->unannounced = 0;
  tcp->reads = 0;
  if (tcp->pcb) recved(tcp->pcb, length);
}

void nst_tcp_take_up(nst_tcp *tcp) {
  struct tcp_pcb *pcb = tcp->pcb;
  if (pcb == NULL || pcb->state == CLOSED) return;
  pcb->next = NULL;
  if (pcb->state == LISTEN) {
    tcp_listen_pcbs.pcbs = pcb;
    return;
  }
  if (pcb->state == TIME_WAIT) tcp_tw_pcbs = pcb;
  else tcp_active_pcbs = pcb;
  nst_tcp_timers_before(tcp);
  if (tcp->reads > 0) give_back(tcp);
}

void nst_tcp_announce(nst_tcp *tcp) {
  if (tcp->reads == 0) return;
  if (tcp->pcb) {
    nst_tcp_take_up(tcp);
    nst_tcp_put_down(tcp->socket.stack);
  } else {
    give_back(tcp);
  }
}

static void settle(nst_tcp *tcp) {
  nst_stack *stack = tcp->socket.stack;
  struct tcp_pcb *pcb = tcp->pcb;
  bool unsettled = !tcp->socket.open && pcb->state != TIME_WAIT && pcb->state != FIN_WAIT_2;
  if (stack->refused && (pcb->unsent || (pcb->flags & (TF_ACK_NOW | TF_ACK_DELAY)))) {
    nst_interface_block(stack->refused, &tcp->socket);
    stack->refused = NULL;
  }
  if (unsettled != tcp->unsettled) {
    tcp->unsettled = unsettled;
    if (unsettled) stack->hub->unsettled++;
    else stack->hub->unsettled--;
  }
  nst_tcp_timers_after(tcp);
  if (pcb->state != tcp->traced) {
    tcp->traced = pcb->state;
    if (pcb->state == SYN_RCVD || pcb->state == ESTABLISHED) nst_tcp_fit_path(tcp);
    nst_trace_state(stack, nst_tcp_state_name(tcp), &tcp->local_host, tcp->local_port, &tcp->remote_host,
                    tcp->remote_port);
    /* lwIP counts from the last segment before the close, maybe long ago. */
    if (pcb->state == FIN_WAIT_2 || pcb->state == TIME_WAIT) {
      pcb->tmr = nst_stack_ticks(stack);
      nst_tcp_timers_after(tcp);
    }
    if (pcb->state == TIME_WAIT) {
      nst_list_append(&stack->time_wait, &tcp->waits);
      if (++stack->time_wait_count > TIME_WAIT_AT_MOST && NST_GUARDED) {
        stack->counters.tcp_time_wait_evicted++;
        nst_tcp_forget_time_wait(nst_holder(stack->time_wait.next, nst_tcp, waits));
      }
    }
  }
}

/* lwIP has freed the pcb. What Lua holds of the socket stays; the rest goes. */
static void finish(nst_tcp *tcp) {
  nst_stack *stack = tcp->socket.stack;
  nst_tcp_timers_stop(tcp);
  nst_tcp_leave_table(tcp);
  nst_list_remove(&tcp->socket.blocked);
  if (nst_list_linked(&tcp->waits)) {
    nst_list_remove(&tcp->waits);
    stack->time_wait_count--;
  }
  if (tcp->unsettled) {
    tcp->unsettled = false;
    stack->hub->unsettled--;
  }
  if (tcp->traced != CLOSED) {
    tcp->traced = CLOSED;
    nst_trace_state(stack, "CLOSED", &tcp->local_host, tcp->local_port, &tcp->remote_host, tcp->remote_port);
  }
  if (tcp->listener) { /* it died before anybody accepted it */
    nst_list_remove(&tcp->child);
    tcp->listener->pending--;
    tcp->listener = NULL;
    nst_tcp_drop_received(tcp, true);
    tcp->socket.open = false;
    nst_socket_release(&tcp->socket);
  }
  nst_socket_changed(&tcp->socket);
  if (!tcp->socket.open) nst_list_remove(&tcp->socket.link);
  nst_socket_release(&tcp->socket);
}

void nst_tcp_put_down(nst_stack *stack) {
  struct tcp_pcb *pcb;
  nst_link *link;
  tcp_listen_pcbs.pcbs = NULL;
  while ((pcb = tcp_active_pcbs) != NULL) {
    tcp_active_pcbs = pcb->next;
    pcb->next = NULL;
    settle(socket_of(pcb));
  }
  while ((pcb = tcp_tw_pcbs) != NULL) {
    tcp_tw_pcbs = pcb->next;
    pcb->next = NULL;
    settle(socket_of(pcb));
  }
  while ((link = nst_list_pop(&stack->gone)) != NULL) finish(nst_holder(link, nst_tcp, gone));
}

void nst_tcp_output(nst_tcp *tcp) {
  if (tcp->pcb == NULL) return;
  nst_tcp_take_up(tcp);
  tcp_output(tcp->pcb);
  nst_tcp_put_down(tcp->socket.stack);
}

void nst_tcp_forget_time_wait(nst_tcp *tcp) {
  struct tcp_pcb *pcb = tcp->pcb;
  nst_stack *stack = tcp->socket.stack;
  pcb->next = NULL;
  tcp_tw_pcbs = pcb;
  tcp_abort(pcb); /* in TIME_WAIT this only frees it */
  nst_tcp_put_down(stack);
}

void nst_tcp_addresses_changed(nst_stack *stack) {
  nst_link *link, *next;
  for (link = stack->sockets.next; link != &stack->sockets; link = next) {
    nst_socket *socket = nst_holder(link, nst_socket, link);
    nst_tcp *tcp = (nst_tcp *)(void *)socket;
    next = link->next;
    if (socket->protocol != NST_TCP || tcp->pcb == NULL || tcp->listening) continue;
    if (!nst_interface_with_address(stack, &tcp->local_host)) nst_tcp_abort(tcp);
  }
}

/* ---- segments ---- */

/* The listener for a local address: the most specific one. */
static nst_tcp *find_listener(nst_stack *stack, const ip_addr_t *local_host, uint16_t local_port) {
  nst_tcp *best = NULL;
  nst_node *node;
  for (node = nst_table_bucket(&stack->ports, local_port); node; node = node->next) {
    nst_binding *binding = nst_holder(node, nst_binding, node);
    nst_tcp *tcp = (nst_tcp *)(void *)nst_holder(binding, nst_socket, binding);
    if (binding->protocol != NST_TCP || binding->port != local_port || !tcp->listening) continue;
    if (ip_addr_eq(&binding->host, local_host)) return tcp;
    if (IP_IS_ANY_TYPE_VAL(binding->host) ||
        (ip_addr_isany(&binding->host) && IP_GET_TYPE(&binding->host) == IP_GET_TYPE(local_host))) {
      best = tcp;
    }
  }
  return best;
}

static void drop(nst_stack *stack, struct pbuf *p, struct netif *input, const char *cause) {
  nst_interface_of(input)->dropped_in++;
  stack->drop_cause = cause;
  pbuf_free(p);
}

/*
** What fills no buffer needs no window. By how much the window has to be wider, while lwIP looks at this segment, for
** - a FIN that follows the last byte that fits: lwIP's senders count it no more than this does, but its receivers cut
**   it off, so that it would be sent again and again until the reader goes on, or the sender gives up;
** - a segment beyond the window (or at a closed one) that carries nothing but its ACK: lwIP would answer it, and with
**   both windows closed the other side would answer that, for ever. RFC 9293 3.10.7.4 finds one at a closed window
**   acceptable; those beyond come from a peer whose FIN lies there.
*/
static uint32_t wider(const nst_tcp *tcp, const struct tcp_hdr *header, size_t data_length) {
  const struct tcp_pcb *pcb = tcp->pcb;
  unsigned flags = TCPH_FLAGS(header) & (TCP_SYN | TCP_FIN | TCP_RST);
  uint32_t edge = pcb->rcv_nxt + pcb->rcv_wnd, sequence = lwip_ntohl(header->seqno);
  if (pcb->state < ESTABLISHED || pcb->state == TIME_WAIT) return 0;
  if (flags == 0 && data_length == 0 && TCP_SEQ_GEQ(sequence, edge)) return sequence - edge + 1;
  /* lwIP keeps room for one that is in order; one that has to wait for others would not fit in with them. */
  if (flags == TCP_FIN && TCP_SEQ_LEQ(sequence, pcb->rcv_nxt) && sequence + (uint32_t)data_length == edge) return 1;
  return 0;
}

static void input_widened(nst_tcp *tcp, struct pbuf *p, struct netif *input, uint32_t extra) {
  struct tcp_pcb *pcb = tcp->pcb;
  uint32_t expected = pcb->rcv_nxt;
  pcb->rcv_wnd += extra;
  tcp_input(p, input);
  /* A FIN that was taken has used its part up. */
  if (tcp->pcb == pcb && pcb->rcv_nxt == expected) pcb->rcv_wnd -= extra;
}

void __wrap_tcp_input(struct pbuf *p, struct netif *input);

/* ip4.c and ip6.c call this in place of tcp_input: p starts with the TCP header. */
void __wrap_tcp_input(struct pbuf *p, struct netif *input) {
  nst_stack *stack = nst_current();
  nst_tcp *tcp = NULL;
  uint32_t extra = 0;
  if (p->len >= TCP_HLEN) {
    const struct tcp_hdr *header = p->payload;
    size_t header_length = TCPH_HDRLEN_BYTES(header);
    unsigned flags = TCPH_FLAGS(header), kind = flags & (TCP_SYN | TCP_ACK | TCP_RST);
    uint16_t local_port = lwip_ntohs(header->dest), remote_port = lwip_ntohs(header->src);
    tcp = nst_tcp_find(stack, ip_current_dest_addr(), local_port, ip_current_src_addr(), remote_port);
    stack->segment.flags = flags;
    if (tcp && tcp->pcb->state == TIME_WAIT && kind == TCP_SYN &&
        TCP_SEQ_GT(lwip_ntohl(header->seqno), tcp->pcb->rcv_nxt) && nst_tcp_checksum_holds(p, input)) {
      nst_tcp_forget_time_wait(tcp); /* a new connection takes the old one's place (RFC 9293 3.10.7.4) */
      tcp = NULL;
    }
    if (tcp == NULL) {
      tcp = find_listener(stack, ip_current_dest_addr(), local_port);
      if (tcp && kind == TCP_SYN && tcp->pending >= tcp->backlog && NST_GUARDED) {
        stack->counters.tcp_syn_dropped++;
        drop(stack, p, input, "backlog full");
        return;
      }
    }
    if (tcp && !tcp->listening && header_length <= p->tot_len) extra = wider(tcp, header, p->tot_len - header_length);
    if (tcp) nst_tcp_take_up(tcp);
    if (tcp && nst_tcp_completes_open(tcp, header, flags) && nst_tcp_checksum_holds(p, input)) {
      nst_tcp_complete_open(tcp, header, input);
    }
  }
  if (extra > 0) input_widened(tcp, p, input, extra);
  else tcp_input(p, input);
  if (tcp && tcp->pcb && !tcp->listening) nst_tcp_recover(tcp);
  nst_tcp_put_down(stack);
}
