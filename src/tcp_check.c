/*
** What RFC 9293 3.10.7 and RFC 5961 ask of a segment before it may change a connection, and lwIP does not look at.
** lwIP calls nst_tcp_check when it has found the connection and the checksum holds. What is refused gets the answer
** that the RFCs give it; where that is an acknowledgement, it is one that an attacker could have any number of, so each
** connection has an allowance of its own (one for all connections would tell an attacker about others: CVE-2016-5696).
*/
#include "tcp.h"

#include <string.h>

#include "bytes.h"

#include "lwip/inet_chksum.h"
#include "lwip/ip.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/prot/tcp.h"
#include "lwip/stats.h"

/* Below this a peer's MSS is an attack: each byte would cost forty (and lwIP's arithmetic does not hold). */
#define LEAST_MSS 64

/* Answers to segments without data that do not fit, in a second. */
#define CHALLENGES_AT_MOST 10

#define CONTROL (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN)

bool nst_tcp_read_options(const uint8_t *options, size_t length, nst_tcp_options *read) {
  size_t i = 0;
  memset(read, 0, sizeof *read);
  while (i < length) {
    uint8_t kind = options[i], size;
    if (kind == LWIP_TCP_OPT_EOL) return true;
    if (kind == LWIP_TCP_OPT_NOP) {
      i++;
      continue;
    }
    if (i + 1 >= length) return false;
    size = options[i + 1];
    if (size < 2 || i + size > length) return false;
    if (kind == LWIP_TCP_OPT_MSS && size == LWIP_TCP_OPT_LEN_MSS) {
      read->has_mss = true;
      read->mss = (uint16_t)nst_get16(options + i + 2);
    } else if (kind == LWIP_TCP_OPT_WS && size == LWIP_TCP_OPT_LEN_WS) {
      read->has_scale = true;
      read->scale = options[i + 2];
    } else if (kind == LWIP_TCP_OPT_SACK_PERM && size == LWIP_TCP_OPT_LEN_SACK_PERM) {
      read->has_sack = true;
    }
    i += size;
  }
  return true;
}

bool nst_tcp_checksum_holds(struct pbuf *p, const struct netif *input) {
  (void)input;
  IF__NETIF_CHECKSUM_ENABLED(input, NETIF_CHECKSUM_CHECK_TCP) {
    return ip_chksum_pseudo(p, IP_PROTO_TCP, p->tot_len, ip_current_src_addr(), ip_current_dest_addr()) == 0;
  }
  return true;
}

static err_t refuse(nst_stack *stack, const char *cause) {
  stack->counters.tcp_refused++;
  stack->drop_cause = cause;
  return ERR_VAL;
}

/* RFC 5961 §7, RFC 9293 3.10.7.4: whoever really is at the other end learns where we stand. */
static err_t challenge(nst_tcp *tcp, const char *cause) {
  nst_stack *stack = tcp->socket.stack;
  if (stack->now - tcp->challenged_since >= NST_SECOND) {
    tcp->challenged_since = stack->now;
    tcp->challenges = 0;
  }
  if (tcp->challenges < CHALLENGES_AT_MOST) {
    tcp->challenges++;
    stack->counters.tcp_challenge_acks++;
    (void)tcp_send_empty_ack(tcp->pcb);
  } else {
    stack->counters.tcp_challenges_limited++;
  }
  return refuse(stack, cause);
}

/* ---- resets ---- */

/* RFC 9293 3.10.7.1: a segment for nobody. With ACK it names the number that we seem to have sent next; without, the
** reset must name what it is for. */
static void reset(struct netif *netif, unsigned flags, uint32_t seqno, uint32_t ackno, const ip_addr_t *local_host,
                  const ip_addr_t *remote_host, uint16_t local_port, uint16_t remote_port) {
  struct pbuf *p = pbuf_alloc(PBUF_IP, TCP_HLEN, PBUF_RAM);
  struct tcp_hdr *header;
  if (p == NULL) return;
  header = p->payload;
  memset(header, 0, TCP_HLEN);
  header->src = lwip_htons(local_port);
  header->dest = lwip_htons(remote_port);
  header->seqno = flags & TCP_ACK ? lwip_htonl(seqno) : 0;
  header->ackno = flags & TCP_ACK ? 0 : lwip_htonl(ackno);
  TCPH_HDRLEN_FLAGS_SET(header, TCP_HLEN / 4, flags & TCP_ACK ? TCP_RST : TCP_RST | TCP_ACK);
  IF__NETIF_CHECKSUM_ENABLED(netif, NETIF_CHECKSUM_GEN_TCP) {
    header->chksum = ip_chksum_pseudo(p, IP_PROTO_TCP, p->tot_len, local_host, remote_host);
  }
  TCP_STATS_INC(tcp.xmit);
  (void)ip_output_if(p, local_host, remote_host, TCP_TTL, 0, IP_PROTO_TCP, netif);
  pbuf_free(p);
}

void __wrap_tcp_rst_netif(struct netif *netif, u32_t seqno, u32_t ackno, const ip_addr_t *local_host,
                          const ip_addr_t *remote_host, u16_t local_port, u16_t remote_port);

/* lwIP's own always sends both numbers, be they meant or not. */
void __wrap_tcp_rst_netif(struct netif *netif, u32_t seqno, u32_t ackno, const ip_addr_t *local_host,
                          const ip_addr_t *remote_host, u16_t local_port, u16_t remote_port) {
  if (!NST_GUARDED) {
    tcp_rst_netif(netif, seqno, ackno, local_host, remote_host, local_port, remote_port);
    return;
  }
  reset(netif, nst_current()->segment.flags, seqno, ackno, local_host, remote_host, local_port, remote_port);
}

static err_t answer_with_reset(const struct tcp_pcb *pcb, const struct tcp_hdr *header, const char *cause) {
  reset(ip_current_input_netif(), TCP_ACK, header->ackno, 0, &pcb->local_ip, &pcb->remote_ip, pcb->local_port,
        pcb->remote_port);
  return refuse(nst_current(), cause);
}

/* ---- opening ---- */

/*
** A SYN crosses ours (RFC 9293 3.5, figure 8). lwIP knows only of passive opens that get from here to ESTABLISHED, so
** the connection stays in its SYN_SENT, and what the peer told is kept until it acknowledges our SYN: with a SYN of its
** own, as peers do that lost our answer, or without (nst_tcp_complete_open).
*/
static err_t cross(nst_tcp *tcp, const struct tcp_hdr *header, const nst_tcp_options *options) {
  struct tcp_pcb *pcb = tcp->pcb;
  struct tcp_seg *syn = pcb->unacked ? pcb->unacked : pcb->unsent;
  uint8_t tries = pcb->nrtx;
  if (syn == NULL) return refuse(tcp->socket.stack, "no memory");
  tcp->crossed = true;
  tcp->crossed_options = *options;
  tcp->crossed_sequence = header->seqno;
  tcp->crossed_window = header->wnd;
  pcb->rcv_nxt = header->seqno + 1;
  TCPH_SET_FLAG(syn->tcphdr, TCP_ACK);
  if (pcb->unacked) (void)tcp_rexmit(pcb);
  pcb->nrtx = tries; /* an answer, not a try */
  (void)tcp_output(pcb);
  return ERR_VAL;
}

static err_t check_syn_sent(nst_tcp *tcp, const struct tcp_hdr *header, unsigned flags,
                            const nst_tcp_options *options) {
  struct tcp_pcb *pcb = tcp->pcb;
  nst_stack *stack = tcp->socket.stack;
  if ((flags & TCP_ACK) && header->ackno != pcb->lastack + 1) {
    err_t result;
    if (flags & TCP_RST) return refuse(stack, "reset out of place");
    result = answer_with_reset(pcb, header, "acknowledges what was not sent");
    /* The other side may have forgotten nothing of an earlier connection: after the reset it is ready for the SYN. */
    if (pcb->nrtx < TCP_SYNMAXRTX) {
      pcb->rtime = 0;
      tcp_rexmit_rto(pcb);
    }
    return result;
  }
  if (flags & TCP_RST) {
    if (flags & TCP_ACK) return ERR_OK;
    if (!tcp->crossed || header->seqno != pcb->rcv_nxt) return refuse(stack, "reset out of place");
    tcp->error = NST_REFUSED;
    tcp_abandon(pcb, 0);
    return ERR_VAL;
  }
  if ((flags & CONTROL) == TCP_SYN) return cross(tcp, header, options);
  if (!(flags & TCP_SYN)) return refuse(stack, "no SYN");
  /* RFC 9293 3.7.1; lwIP has the same for both families. */
  if (!options->has_mss && IP_IS_V6_VAL(pcb->remote_ip)) pcb->mss = NST_TCP_DEFAULT_MSS6;
  return ERR_OK;
}

bool nst_tcp_completes_open(const nst_tcp *tcp, const struct tcp_hdr *header, unsigned flags) {
  return tcp->crossed && tcp->pcb->state == SYN_SENT && (flags & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_ACK &&
         lwip_ntohl(header->seqno) == tcp->pcb->rcv_nxt && lwip_ntohl(header->ackno) == tcp->pcb->lastack + 1;
}

void nst_tcp_complete_open(nst_tcp *tcp, const struct tcp_hdr *segment, struct netif *input) {
  const nst_tcp_options *options = &tcp->crossed_options;
  struct pbuf *p = pbuf_alloc(PBUF_IP, TCP_HLEN + 12, PBUF_RAM);
  struct tcp_hdr *header;
  uint8_t *at;
  if (p == NULL) return;
  header = p->payload;
  memset(header, 0, p->len);
  header->src = segment->src;
  header->dest = segment->dest;
  header->seqno = lwip_htonl(tcp->crossed_sequence);
  header->ackno = segment->ackno;
  header->wnd = lwip_htons(tcp->crossed_window);
  TCPH_HDRLEN_FLAGS_SET(header, p->len / 4, TCP_SYN | TCP_ACK);
  at = (uint8_t *)(header + 1);
  if (options->has_mss) {
    *at++ = LWIP_TCP_OPT_MSS;
    *at++ = LWIP_TCP_OPT_LEN_MSS;
    *at++ = (uint8_t)(options->mss >> 8);
    *at++ = (uint8_t)options->mss;
  }
  if (options->has_scale) {
    *at++ = LWIP_TCP_OPT_WS;
    *at++ = LWIP_TCP_OPT_LEN_WS;
    *at++ = options->scale;
  }
  if (options->has_sack) {
    *at++ = LWIP_TCP_OPT_SACK_PERM;
    *at++ = LWIP_TCP_OPT_LEN_SACK_PERM;
  }
  IF__NETIF_CHECKSUM_ENABLED(input, NETIF_CHECKSUM_CHECK_TCP) {
    header->chksum = ip_chksum_pseudo(p, IP_PROTO_TCP, p->tot_len, ip_current_src_addr(), ip_current_dest_addr());
  }
  tcp_input(p, input);
}

/* ---- once both sides have sent SYN ---- */

/* RFC 9293 3.10.7.4, first: whether any of the segment lies in the window. */
static bool acceptable(const struct tcp_pcb *pcb, uint32_t sequence, uint32_t length) {
  uint32_t first = sequence - pcb->rcv_nxt, last = first + length - 1;
  if (pcb->rcv_wnd == 0) return length == 0 && first == 0;
  if (length == 0) return first < pcb->rcv_wnd;
  return first < pcb->rcv_wnd || last < pcb->rcv_wnd;
}

static err_t check_synchronized(nst_tcp *tcp, const struct tcp_hdr *header, unsigned flags, size_t data_length) {
  struct tcp_pcb *pcb = tcp->pcb;
  nst_stack *stack = tcp->socket.stack;
  uint32_t length = (uint32_t)data_length + ((flags & TCP_FIN) != 0);
  if ((flags & TCP_SYN) && !(flags & TCP_RST)) {
    /* Our SYN|ACK was lost: lwIP sends it again. Any other SYN: RFC 5961 §4.2. */
    if (pcb->state == SYN_RCVD && !(flags & TCP_ACK) && header->seqno == pcb->rcv_nxt - 1) return ERR_OK;
    return challenge(tcp, "SYN on a connection");
  }
  if (!acceptable(pcb, header->seqno, length)) {
    if (flags & TCP_RST) return refuse(stack, "reset out of place");
    if (data_length == 0) return challenge(tcp, "out of window");
    /* A probe of our closed window; its acknowledgement counts, and lwIP answers it. */
    if (pcb->rcv_wnd == 0 && header->seqno == pcb->rcv_nxt && pcb->state != SYN_RCVD) goto acknowledgement;
    /* Data that we have already, most likely, because our acknowledgement was lost: each gets one, for one packet. */
    (void)tcp_send_empty_ack(pcb);
    return refuse(stack, "out of window");
  }
  if (flags & TCP_RST) { /* RFC 5961 §3.2 */
    return header->seqno == pcb->rcv_nxt ? ERR_OK : challenge(tcp, "reset out of place");
  }
acknowledgement:
  if (!(flags & TCP_ACK)) return refuse(stack, "no ACK"); /* RFC 9293 3.10.7.4, fifth */
  if (pcb->state == SYN_RCVD) {
    if (TCP_SEQ_BETWEEN(header->ackno, pcb->lastack + 1, pcb->snd_nxt)) return ERR_OK;
    return answer_with_reset(pcb, header, "acknowledges what was not sent");
  }
  /* RFC 5961 §5.2 */
  if (TCP_SEQ_GT(header->ackno, pcb->snd_nxt)) return challenge(tcp, "acknowledges what was not sent");
  if (TCP_SEQ_LT(header->ackno, pcb->lastack - pcb->snd_wnd_max)) return challenge(tcp, "acknowledges old data");
  /* RFC 5681 §4.2: what fills a gap is acknowledged at once, which lwIP does only for what makes one. */
  if (pcb->ooseq && data_length > 0) tcp_set_flags(pcb, TF_ACK_NOW);
  return ERR_OK;
}

/* The MSS belongs to the first SYN (RFC 9293 3.7.1); lwIP would let any segment change it, to what its queue contradicts. */
static void blank_mss(uint8_t *options, size_t length) {
  size_t i = 0;
  while (i + LWIP_TCP_OPT_LEN_MSS <= length && options[i] != LWIP_TCP_OPT_EOL) {
    size_t size = options[i] == LWIP_TCP_OPT_NOP ? 1 : options[i + 1];
    if (options[i] == LWIP_TCP_OPT_MSS) memset(options + i, LWIP_TCP_OPT_NOP, size);
    i += size;
  }
}

err_t nst_tcp_check(struct tcp_pcb *pcb, struct tcp_hdr *header, uint16_t options_length, struct pbuf *p) {
  nst_stack *stack = nst_current();
  nst_tcp *tcp = tcp_ext_arg_get(pcb, 0);
  unsigned flags = TCPH_FLAGS(header);
  nst_tcp_options *options = &stack->segment.options;
  memset(options, 0, sizeof *options);
  if (!NST_GUARDED) return ERR_OK;
  if (options_length > 0) {
    if (!nst_tcp_read_options((const uint8_t *)(header + 1), options_length, options)) {
      return refuse(stack, "TCP options");
    }
    if (options->has_mss && options->mss < LEAST_MSS) {
      stack->counters.tcp_mss_refused++;
      return refuse(stack, "TCP options");
    }
    if (options->has_mss && pcb->state > SYN_SENT) blank_mss((uint8_t *)(header + 1), options_length);
  }
  switch (pcb->state) {
    case LISTEN: return ERR_OK;
    case SYN_SENT: return check_syn_sent(tcp, header, flags, options);
    case TIME_WAIT: /* a SYN that may take its place never gets here (RFC 9293 3.10.7.4; RST: RFC 1337) */
      return (flags & (TCP_SYN | TCP_RST)) == TCP_SYN ? challenge(tcp, "SYN on a connection") : ERR_OK;
    default: return check_synchronized(tcp, header, flags, p->tot_len);
  }
}

/* ---- out of order ---- */

/*
** lwIP keeps what is out of order in a list that it walks for each such segment, and each costs its packet's whole
** memory: tiny ones would be dear (CVE-2018-5390). What is dropped comes again.
*/
uint16_t nst_tcp_out_of_order_at_most(const struct tcp_pcb *pcb) {
  uint32_t most = nst_tcp_buffer_size / 512 + 16, count = 0;
  const struct tcp_seg *segment;
  if (!NST_GUARDED) return 0xffff;
  for (segment = pcb->ooseq; segment && count <= most; segment = segment->next) count++;
  if (count > most) nst_current()->counters.tcp_out_of_order_dropped++;
  return (uint16_t)(most < 0xffff ? most : 0xffff);
}
