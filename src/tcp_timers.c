/*
** TCP's timers. lwIP counts ticks in every connection; we compute for each connection when something is next due,
** keep these times in a heap, and let lwIP tick only then, with only that connection on its list. The retransmission
** timeout is ours (RFC 6298, in nanoseconds); lwIP's counters are set so that a tick does what is due and no more.
*/
#include "neighbour.h"
#include "tcp.h"

#include "lwip/priv/tcp_priv.h"

#define RTO_INITIAL NST_SECOND               /* RFC 6298 (2.1) */
#define RTO_AFTER_LOST_SYN (3 * NST_SECOND)  /* RFC 6298 (5.7) */
#define RTO_LEAST (200 * NST_MILLISECOND)    /* RFC 6298 (2.4) has 1 s; this is what current systems do */
#define RTO_MOST (60 * NST_SECOND)           /* RFC 6298 (2.5) */
#define DELAYED_ACK (40 * NST_MILLISECOND)   /* RFC 9293 3.8.6.3 allows 500 ms */
#define TIME_WAIT_LASTS 2000                 /* ticks; RFC 9293 3.6.1: 2 MSL, four minutes */
#define RETRY_CLOSE (250 * NST_MILLISECOND)  /* a FIN for which there was no memory */

/* Counter values for lwIP: running but not due, and due at the next tick. */
#define RUNNING 1
#define DUE 0x7ffe
#define NOT_SOON 0x7000
#define PROBE_DUE 0xfe

void nst_tcp_timers_start(nst_tcp *tcp) {
  tcp->retransmit_at = tcp->persist_at = tcp->ack_at = tcp->give_up_at = NST_NEVER;
  tcp->keepalive_at = tcp->state_at = NST_NEVER;
  tcp->rto = RTO_INITIAL;
  tcp->srtt = tcp->rttvar = 0;
}

void nst_tcp_timers_stop(nst_tcp *tcp) {
  nst_heap_remove(&tcp->socket.stack->tcp_timers, &tcp->timer);
}

static nst_time earliest(const nst_tcp *tcp) {
  nst_time at = tcp->retransmit_at;
  if (tcp->persist_at < at) at = tcp->persist_at;
  if (tcp->ack_at < at) at = tcp->ack_at;
  if (tcp->give_up_at < at) at = tcp->give_up_at;
  if (tcp->keepalive_at < at) at = tcp->keepalive_at;
  if (tcp->state_at < at) at = tcp->state_at;
  return at;
}

/* A timer that moved to later stays where it is in the heap until it comes up: most are moved many times. */
static void schedule(nst_tcp *tcp) {
  nst_time at = earliest(tcp);
  if (at == NST_NEVER && tcp->timer.place == 0) return;
  if (tcp->timer.place == 0 || at < tcp->timer.at) {
    (void)nst_heap_set(&tcp->socket.stack->tcp_timers, &tcp->timer, at);
  }
}

void nst_tcp_timers_before(nst_tcp *tcp) {
  struct tcp_pcb *pcb = tcp->pcb;
  tcp->acked_before = pcb->lastack;
  tcp->timed_before = pcb->rttest;
  tcp->timed_sequence_before = pcb->rtseq;
  tcp->sent_before = pcb->snd_nxt;
  tcp->window_before = pcb->cwnd;
  tcp->duplicates_before = pcb->dupacks;
  if (pcb->rtime >= 0) pcb->rtime = RUNNING;
  pcb->rto = NOT_SOON;
  pcb->persist_cnt = 0;
}

static nst_time rto_of(const nst_tcp *tcp) {
  nst_time variance = 4 * tcp->rttvar;
  nst_time rto;
  if (tcp->srtt == 0) return tcp->retransmits > 0 ? RTO_AFTER_LOST_SYN : RTO_INITIAL; /* what was lost is SYN */
  if (variance < NST_MILLISECOND) variance = NST_MILLISECOND; /* the clock's granularity, G */
  rto = tcp->srtt + variance;
  return rto < RTO_LEAST ? RTO_LEAST : rto > RTO_MOST ? RTO_MOST : rto;
}

/* RFC 6298 (2.2), (2.3). A round trip may take no time at all under a virtual clock; srtt 0 means "none yet". */
static void sample(nst_tcp *tcp, nst_time rtt) {
  if (rtt <= 0) rtt = 1;
  if (tcp->srtt == 0) {
    tcp->srtt = rtt;
    tcp->rttvar = rtt / 2;
  } else {
    nst_time difference = tcp->srtt > rtt ? tcp->srtt - rtt : rtt - tcp->srtt;
    tcp->rttvar += (difference - tcp->rttvar) / 4;
    tcp->srtt += (rtt - tcp->srtt) / 8;
    if (tcp->srtt <= 0) tcp->srtt = 1;
  }
}

static void update_retransmission(nst_tcp *tcp) {
  struct tcp_pcb *pcb = tcp->pcb;
  nst_time now = tcp->socket.stack->now;
  if (pcb->lastack != tcp->acked_before) { /* new data acknowledged */
    nst_neighbour_proven(tcp->socket.stack, &tcp->local_host, &tcp->remote_host);
    if (tcp->timed_before != 0 && TCP_SEQ_LT(tcp->timed_sequence_before, pcb->lastack)) {
      sample(tcp, now - tcp->sample_start);
      /* lwIP does not see that SYN|ACK ends the timing of our SYN. */
      if (pcb->rtseq == tcp->timed_sequence_before) pcb->rttest = 0;
    }
    tcp->rto = rto_of(tcp);
  }
  /* Karn's algorithm, RFC 6298 (3): lwIP begins to time what it sends again. */
  if (pcb->nrtx > 0 || (pcb->flags & (TF_RTO | TF_INFR))) pcb->rttest = 0;
  if (pcb->rttest != 0 && (tcp->timed_before == 0 || pcb->rtseq != tcp->timed_sequence_before)) {
    tcp->sample_start = now;
  }
  if (pcb->rtime < 0 || pcb->persist_backoff > 0) tcp->retransmit_at = NST_NEVER;
  else if (pcb->rtime != RUNNING || tcp->retransmit_at == NST_NEVER) tcp->retransmit_at = now + tcp->rto;
}

static nst_time probe_interval(const nst_tcp *tcp) {
  nst_time interval = tcp->rto;
  unsigned i;
  for (i = 0; i < tcp->persist_count && interval < RTO_MOST; i++) interval *= 2;
  return interval < RTO_MOST ? interval : RTO_MOST;
}

static nst_time from_ticks(const nst_tcp *tcp, uint32_t since, uint32_t ticks) {
  const nst_stack *stack = tcp->socket.stack;
  int64_t left = (int64_t)ticks - (int64_t)(uint32_t)(nst_stack_ticks(stack) - since);
  nst_time whole = stack->now / NST_MILLISECOND * NST_MILLISECOND;
  return left <= 0 ? stack->now : whole + left * NST_MILLISECOND;
}

/*
** lwIP goes on probing a closed window when the acknowledgement of a probe has taken its last unsent byte, and then an
** assertion ends the stack at the next probe (found by fuzzing). There is nothing to probe for with nothing unsent; with
** something unacknowledged, retransmission does it.
*/
static void stop_needless_probes(struct tcp_pcb *pcb) {
  if (!NST_GUARDED || pcb->persist_backoff == 0 || (pcb->unsent && pcb->unacked == NULL)) return;
  pcb->persist_backoff = 0;
  if (pcb->unacked && pcb->rtime < 0) pcb->rtime = 0;
}

void nst_tcp_timers_after(nst_tcp *tcp) {
  struct tcp_pcb *pcb = tcp->pcb;
  nst_time now = tcp->socket.stack->now;
  if (pcb->snd_nxt != tcp->sent_before) tcp->sent_at = now;
  stop_needless_probes(pcb);
  if (pcb->state == TIME_WAIT) {
    tcp->retransmit_at = tcp->persist_at = tcp->ack_at = tcp->keepalive_at = tcp->give_up_at = NST_NEVER;
    tcp->state_at = from_ticks(tcp, pcb->tmr, TIME_WAIT_LASTS); /* anew when FIN comes again */
    schedule(tcp);
    return;
  }
  if (pcb->state == FIN_WAIT_2) tcp->give_up_at = NST_NEVER; /* linger: all was acknowledged in time */
  update_retransmission(tcp);
  if (pcb->persist_backoff == 0) {
    tcp->persist_at = NST_NEVER;
    tcp->persist_count = 0;
  } else if (tcp->persist_at == NST_NEVER) {
    tcp->persist_at = now + probe_interval(tcp);
  }
  if (pcb->flags & TF_ACK_DELAY) {
    if (tcp->ack_at == NST_NEVER) tcp->ack_at = now + DELAYED_ACK;
  } else if (pcb->flags & TF_CLOSEPEND) {
    if (tcp->ack_at == NST_NEVER) tcp->ack_at = now + RETRY_CLOSE;
  } else {
    tcp->ack_at = NST_NEVER;
  }
  if ((pcb->so_options & SOF_KEEPALIVE) && (pcb->state == ESTABLISHED || pcb->state == CLOSE_WAIT)) {
    tcp->keepalive_at = from_ticks(tcp, pcb->tmr, pcb->keep_idle + pcb->keep_cnt_sent * pcb->keep_intvl);
  } else {
    tcp->keepalive_at = NST_NEVER;
  }
  if (pcb->state == SYN_RCVD) tcp->state_at = from_ticks(tcp, pcb->tmr, TCP_SYN_RCVD_TIMEOUT);
  else if (pcb->state == FIN_WAIT_2 && (pcb->flags & TF_RXCLOSED)) {
    tcp->state_at = from_ticks(tcp, pcb->tmr, TCP_FIN_WAIT_TIMEOUT);
  } else {
    tcp->state_at = NST_NEVER;
  }
  schedule(tcp);
}

/*
** lwIP's slow tick, which is wrong in two places.
** When a probe is due and the window is not quite closed, lwIP splits the first unsent segment, but leaves a FIN on its
** first part (tcp_split_unsent_seg only adds flags): the peer would take the rest for what comes after the end. So the
** FIN, which is on the last segment or on none, stands aside meanwhile; the part that does not fit stays to get it back.
*/
static void slow_tick(nst_tcp *tcp) {
  struct tcp_pcb *pcb = tcp->pcb;
  struct tcp_seg *last = pcb->unsent;
  bool splits = pcb->persist_backoff > 0 && last && pcb->snd_wnd > 0 && last->len > pcb->snd_wnd;
  bool fin = splits && (TCPH_FLAGS(last->tcphdr) & TCP_FIN);
  /* lwIP would end it two minutes after the close, with data still on its way. Retransmission gives up by itself. */
  if (pcb->state == LAST_ACK) pcb->tmr = tcp_ticks;
  if (fin) TCPH_UNSET_FLAG(last->tcphdr, TCP_FIN);
  tcp_slowtmr();
  if (!fin || tcp->pcb == NULL) return;
  last = pcb->unsent;
  while (last->next) last = last->next;
  TCPH_SET_FLAG(last->tcphdr, TCP_FIN);
}

static void fire(nst_tcp *tcp) {
  nst_stack *stack = tcp->socket.stack;
  struct tcp_pcb *pcb = tcp->pcb;
  nst_time now = stack->now;
  bool tick = false;
  if (pcb->state == TIME_WAIT) {
    nst_tcp_forget_time_wait(tcp);
    return;
  }
  nst_tcp_take_up(tcp);
  if (tcp->give_up_at <= now) {
    tcp->give_up_at = NST_NEVER;
    if (tcp->connecting) {
      tcp->error = NST_TIMEOUT;
      tcp_abandon(pcb, 0); /* nobody has answered: there is nobody to tell */
      nst_tcp_put_down(stack);
    } else {
      nst_tcp_abort(tcp); /* linger's time is over */
    }
    return;
  }
  if (tcp->ack_at <= now) {
    tcp->ack_at = NST_NEVER;
    tcp_fasttmr();
  }
  if (tcp->retransmit_at <= now) {
    tcp->retransmit_at = NST_NEVER;
    tcp->rto = tcp->rto * 2 < RTO_MOST ? tcp->rto * 2 : RTO_MOST; /* RFC 6298 (5.5) */
    pcb->rtime = DUE;
    tick = true;
    if (pcb->nrtx == NST_TCP_TRIES_AT_SIZE) nst_tcp_path_is_silent(tcp);
  }
  if (tcp->persist_at <= now) {
    tcp->persist_at = NST_NEVER;
    tcp->persist_count++;
    pcb->persist_cnt = PROBE_DUE;
    tick = true;
  }
  if (tcp->keepalive_at <= now || tcp->state_at <= now) tick = true;
  if (tick) slow_tick(tcp); /* it adds a tick, which turns its "more than so long" into "so long" */
  tcp_ticks = nst_stack_ticks(stack);
  nst_tcp_put_down(stack);
}

bool nst_tcp_timers_run(nst_stack *stack) {
  bool worked = false;
  nst_timer *first;
  while ((first = nst_heap_first(&stack->tcp_timers)) != NULL && first->at <= stack->now) {
    nst_tcp *tcp = nst_holder(first, nst_tcp, timer);
    nst_time at = earliest(tcp);
    if (at > stack->now) {
      (void)nst_heap_set(&stack->tcp_timers, first, at);
    } else {
      nst_heap_remove(&stack->tcp_timers, first);
      fire(tcp);
      worked = true;
    }
  }
  return worked;
}

nst_time nst_tcp_timers_next(nst_stack *stack) {
  nst_timer *first;
  while ((first = nst_heap_first(&stack->tcp_timers)) != NULL) {
    nst_time at = earliest(nst_holder(first, nst_tcp, timer));
    if (at == first->at) return at;
    (void)nst_heap_set(&stack->tcp_timers, first, at);
  }
  return NST_NEVER;
}
