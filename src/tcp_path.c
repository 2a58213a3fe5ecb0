/* What ICMP errors do to a connection: that nobody answers has a reason, or packets were too long for the way. */
#include "path_mtu.h"
#include "tcp.h"

#include "lwip/priv/tcp_priv.h"

bool nst_tcp_has_sent(const nst_tcp *tcp, uint32_t sequence) {
  const struct tcp_pcb *pcb = tcp->pcb;
  if (!NST_GUARDED) return true;
  return pcb->state != TIME_WAIT && TCP_SEQ_GEQ(sequence, pcb->lastack) && TCP_SEQ_LT(sequence, pcb->snd_nxt);
}

/* A soft error, RFC 9293 3.9.2.2: it explains why nobody answers the SYN, and RFC 5461 §4.1 lets that attempt end. A
** connection that there is goes on trying. */
void nst_tcp_unreachable(nst_tcp *tcp, nst_error error) {
  if (!tcp->connecting) return;
  tcp->error = error == NST_PORT_UNREACHABLE ? NST_REFUSED : error;
  nst_tcp_abort(tcp);
}

void nst_tcp_fit_path(nst_tcp *tcp) {
  struct tcp_pcb *pcb = tcp->pcb;
  uint16_t headers = TCP_HLEN + (IP_IS_V6(&tcp->remote_host) ? 40 : 20);
  uint16_t mtu = nst_path_mtu(tcp->socket.stack, &tcp->remote_host, 0xffff, NULL);
  if (pcb->mss > mtu - headers) pcb->mss = (uint16_t)(mtu - headers);
}

/* Cuts what is unsent to the new size, which lwIP's own arithmetic relies on. false: no memory. */
static bool cut_unsent(struct tcp_pcb *pcb) {
  struct tcp_seg *first = pcb->unsent, *segment;
  bool cut = true;
  for (segment = first; segment && cut; segment = segment->next) {
    if (segment->len <= pcb->mss) continue;
    pcb->unsent = segment; /* lwIP splits the first one */
    cut = tcp_split_unsent_seg(pcb, pcb->mss) == ERR_OK;
    if (cut) TCPH_UNSET_FLAG(segment->tcphdr, TCP_FIN | TCP_PSH); /* the rest has them; lwIP forgets to take them off */
  }
  pcb->unsent = first;
  pcb->unsent_oversize = 0;
  return cut;
}

/* RFC 2923 2.1, RFC 4821 §7.7: down to what gets through everywhere. */
void nst_tcp_path_is_silent(nst_tcp *tcp) {
  struct tcp_pcb *pcb = tcp->pcb;
  uint16_t mss = pcb->mss, least = IP_IS_V6(&tcp->remote_host) ? 1280 - 40 - TCP_HLEN : 576 - 20 - TCP_HLEN;
  const struct tcp_seg *first = pcb->unacked ? pcb->unacked : pcb->unsent;
  if (pcb->state < ESTABLISHED || first == NULL || first->len <= least) return;
  (void)tcp_rexmit_rto_prepare(pcb);
  pcb->mss = least;
  if (!cut_unsent(pcb)) pcb->mss = mss;
}

void nst_tcp_path_changed(nst_tcp *tcp) {
  struct tcp_pcb *pcb = tcp->pcb;
  uint16_t mss = pcb->mss;
  nst_tcp_take_up(tcp);
  nst_tcp_fit_path(tcp);
  if (pcb->mss < mss && pcb->state >= ESTABLISHED) {
    bool again = tcp_rexmit_rto_prepare(pcb) == ERR_OK;
    if (!cut_unsent(pcb)) pcb->mss = mss; /* until the next router complains */
    if (again) tcp_rexmit_rto_commit(pcb); /* nothing was lost to congestion: cwnd stays (RFC 1191 §6.5) */
  }
  nst_tcp_put_down(tcp->socket.stack);
}
