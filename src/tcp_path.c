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

void nst_tcp_path_changed(nst_tcp *tcp) {
  uint16_t mss = tcp->pcb->mss;
  nst_tcp_take_up(tcp);
  nst_tcp_fit_path(tcp);
  if (tcp->pcb->mss < mss && tcp->pcb->state >= ESTABLISHED) {
    tcp->pcb->unsent_oversize = 0; /* room in a segment that has become too long already */
    tcp_rexmit_rto(tcp->pcb);      /* nothing was lost to congestion: cwnd stays (RFC 1191 §6.5) */
  }
  nst_tcp_put_down(tcp->socket.stack);
}
