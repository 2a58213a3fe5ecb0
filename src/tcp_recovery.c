/*
** What lwIP leaves out of congestion control (RFC 5681). Its fast recovery ends with the first new acknowledgement, so
** each further loss in a window would take a timeout; the first two duplicates have no effect; and after a pause it
** sends as much at once as before.
*/
#include "tcp.h"

#include "lwip/priv/tcp_priv.h"

/* RFC 3390, as lwIP has it when a connection opens. */
static uint32_t initial_window(const struct tcp_pcb *pcb) {
  uint32_t mss = pcb->mss;
  return LWIP_MIN(4 * mss, LWIP_MAX(2 * mss, 4380));
}

/* RFC 6582 3.2, step 3: what is acknowledged ends where the next lost segment begins. */
static void recover_further(nst_tcp *tcp) {
  struct tcp_pcb *pcb = tcp->pcb;
  uint32_t acked = pcb->lastack - tcp->acked_before, window = tcp->window_before;
  if (tcp_rexmit(pcb) != ERR_OK) return;
  window = window > acked ? window - acked : 0;
  if (acked >= pcb->mss || window < pcb->mss) window += pcb->mss;
  pcb->cwnd = window;
  pcb->dupacks = 3; /* each further one opens the window */
  tcp_set_flags(pcb, TF_INFR);
  (void)tcp_output(pcb);
}

/* RFC 3042: the first two duplicates let a new segment each go. */
static void send_limited(struct tcp_pcb *pcb) {
  tcpwnd_size_t window = pcb->cwnd;
  if (pcb->unsent == NULL || TCP_SEQ_LT(lwip_ntohl(pcb->unsent->tcphdr->seqno), pcb->snd_nxt)) return;
  pcb->cwnd = window + pcb->dupacks * (tcpwnd_size_t)pcb->mss;
  (void)tcp_output(pcb);
  pcb->cwnd = window;
}

void nst_tcp_recover(nst_tcp *tcp) {
  struct tcp_pcb *pcb = tcp->pcb;
  bool advanced = pcb->lastack != tcp->acked_before;
  if (pcb->state < ESTABLISHED || pcb->state == TIME_WAIT || (pcb->flags & TF_RTO)) {
    tcp->recovering = false; /* step 4: lwIP sends all again, and TF_RTO stays until that is acknowledged */
  } else if (tcp->recovering) {
    if (!advanced) return;
    tcp->recovering = pcb->unacked && TCP_SEQ_LT(pcb->lastack, tcp->recover);
    if (tcp->recovering) recover_further(tcp);
  } else if (pcb->flags & TF_INFR) {
    tcp->recovering = true;
    tcp->recover = tcp->sent_before;
  } else if (!advanced && pcb->dupacks > tcp->duplicates_before && pcb->dupacks <= 2) {
    send_limited(pcb);
  }
}

void nst_tcp_after_pause(nst_tcp *tcp) {
  struct tcp_pcb *pcb = tcp->pcb;
  uint32_t window = initial_window(pcb);
  if (pcb->unacked || pcb->unsent || tcp->socket.stack->now - tcp->sent_at <= tcp->rto) return;
  if (pcb->cwnd > window) pcb->cwnd = window;
}

/*
** What takes up sequence numbers that were sent before is sent again, but for probes of a closed window. Those of a SYN
** lwIP counts as sent from the beginning.
*/
void nst_tcp_sends(const struct tcp_pcb *pcb, const struct tcp_hdr *header, const struct pbuf *p) {
  unsigned flags = TCPH_FLAGS(header);
  nst_tcp *tcp;
  if (pcb == NULL || pcb->persist_backoff > 0) return;
  if (flags & TCP_SYN ? pcb->nrtx == 0 : !TCP_SEQ_LT(lwip_ntohl(header->seqno), pcb->snd_nxt)) return;
  if (p->tot_len == TCPH_HDRLEN_BYTES(header) && !(flags & (TCP_SYN | TCP_FIN))) return;
  tcp = tcp_ext_arg_get(pcb, 0);
  if (tcp == NULL) return;
  tcp->retransmits++;
  tcp->socket.stack->counters.tcp_retransmits++;
}
