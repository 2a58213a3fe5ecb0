/*
** TCP sockets. lwIP's tcp_pcb does the protocol; this struct lives as long as Lua or lwIP needs it and carries what
** lwIP has no place for: received data until it is read, who waits, and the timers that lwIP's ticks stand for.
**
** lwIP finds connections by walking its lists. We keep them off those lists, in a hash table, and lay on lwIP's list
** only the connection at hand (tcp_table.c): a segment, a send or a timer then costs the same with one connection
** and with ten thousand.
*/
#ifndef NST_TCP_H
#define NST_TCP_H

#include "socket.h"
#include "stack.h"

#include "lwip/tcp.h"

typedef struct nst_tcp nst_tcp;

struct nst_tcp {
  nst_socket socket;       /* first */
  struct tcp_pcb *pcb;     /* NULL when lwIP has no state for it (any more) */
  nst_node node;           /* in stack->connections, while the four addresses are known */
  nst_link gone;           /* in stack->gone */
  nst_link waits;          /* in stack->time_wait */
  nst_timer timer;         /* in stack->tcp_timers: the earliest of the times below */

  /* as a listener */
  nst_link half_open;      /* nst_tcp.child of connections in SYN_RCVD */
  nst_link acceptable;     /* nst_tcp.child of connections nobody accepted yet */
  size_t pending, backlog; /* how many are in these two, and may be */
  /* as a connection that a listener made */
  nst_tcp *listener;       /* not counted; NULL once accepted, or the listener closed */
  nst_link child;

  ip_addr_t local_host, remote_host;
  uint16_t local_port, remote_port;

  /* receiving */
  struct pbuf *received;   /* not read yet; each pbuf's tot_len is meaningless, only len counts */
  struct pbuf *received_last;
  size_t received_length;
  size_t consumed;         /* bytes at the front of `received` that were read */
  size_t unannounced;      /* of these, bytes that lwIP's window does not know about yet */
  unsigned reads;          /* since it was told last */
  bool end_of_data;        /* FIN came: nothing follows `received` */
  bool discards;           /* shutdown("receive") */

  /* state */
  nst_error error;         /* told once, after the data; then it is "closed" */
  bool connecting, connected, listening;
  bool aborting;           /* by us: the error lwIP then reports is not a timeout */
  bool send_shut;          /* our FIN is queued */
  bool unsettled;          /* counted in hub->unsettled */
  enum tcp_state traced;   /* last state that the trace saw */
  nst_linger linger;
  bool crossed;            /* the peer's SYN came while ours was on its way: what it said follows */
  nst_tcp_options crossed_options;
  uint32_t crossed_sequence;
  uint16_t crossed_window;
  unsigned challenges;     /* since challenged_since (tcp_check.c) */
  nst_time challenged_since;

  /* timers, in the stack's time; NST_NEVER */
  nst_time retransmit_at, persist_at, ack_at, give_up_at, keepalive_at, state_at;
  nst_time rto;            /* RFC 6298, with a minimum of 200 ms */
  nst_time srtt, rttvar;   /* srtt 0: no sample yet */
  nst_time sample_start;   /* when the timed segment was sent */
  /* of the pcb, when it was taken up */
  uint32_t acked_before, sent_before, window_before, timed_before, timed_sequence_before;
  uint8_t duplicates_before;
  nst_time sent_at;        /* when something new was sent last */
  bool recovering;         /* RFC 6582: until `recover` is acknowledged (tcp_recovery.c) */
  uint32_t recover;
  unsigned persist_count;
  uint32_t retransmits;

  /* options that outlive a change of pcb */
  bool nodelay, keepalive, ipv6_only, reuse_address;
  uint32_t keep_idle, keep_interval, keep_count; /* milliseconds, milliseconds, probes */
  uint8_t ttl, tos;
};

/* ---- tcp.c: operations, called inside the stack unless said otherwise ---- */

/* Outside or inside. NULL: no memory. One reference, open. */
nst_tcp *nst_tcp_new(nst_stack *stack);
nst_error nst_tcp_bind(nst_tcp *tcp, const ip_addr_t *host, uint16_t port);
nst_error nst_tcp_listen(nst_tcp *tcp, size_t backlog);
/* Starts connecting; NST_WOULDBLOCK when under way. */
nst_error nst_tcp_connect(nst_tcp *tcp, const ip_addr_t *host, uint16_t port);
/* The outcome of connecting so far: NST_OK once connected, NST_WOULDBLOCK. Needs no entering. */
nst_error nst_tcp_connected(nst_tcp *tcp);
/* The oldest connection that waits, the caller's from now on. NST_WOULDBLOCK. Needs no entering. */
nst_error nst_tcp_accept(nst_tcp *listener, nst_tcp **connection);
/* Queues as much as fits, at least a byte; sets *sent. */
nst_error nst_tcp_send(nst_tcp *tcp, const char *data, size_t length, size_t *sent);
/* Whether something can be read (data, or the end); else why not. Needs no entering. Consumes an error that is told. */
nst_error nst_tcp_readable(nst_tcp *tcp);
/* Copies up to length bytes of what was received, from `offset` on, without consuming. Needs no entering. */
size_t nst_tcp_peek(const nst_tcp *tcp, char *to, size_t offset, size_t length);
/* The first run of contiguous received bytes. */
const char *nst_tcp_first(const nst_tcp *tcp, size_t *length);
/* Bytes up to and with the first newline; 0 when there is none. */
size_t nst_tcp_find_newline(const nst_tcp *tcp);
/*
** Received bytes were read. They are given back to lwIP, which opens the window, when the socket is taken up next;
** true when that should not wait (nst_tcp_announce). Needs no entering.
*/
bool nst_tcp_consume(nst_tcp *tcp, size_t length);
/* Whether it would say so. */
bool nst_tcp_announces(const nst_tcp *tcp, size_t length);
nst_error nst_tcp_shutdown(nst_tcp *tcp, bool receive, bool send);
void nst_tcp_close(nst_tcp *tcp);
void nst_tcp_abort(nst_tcp *tcp);
/* Gives the options to the pcb. */
void nst_tcp_apply_options(nst_tcp *tcp);
const char *nst_tcp_state_name(const nst_tcp *tcp);
/* Local address as getsockname tells it; false when there is none. Needs no entering. */
bool nst_tcp_local(const nst_tcp *tcp, ip_addr_t *host, uint16_t *port);
bool nst_tcp_remote(const nst_tcp *tcp, ip_addr_t *host, uint16_t *port);
/* Bytes that were sent by the user and not yet acknowledged. */
size_t nst_tcp_unacked(const nst_tcp *tcp);
/* Drops what was received and not read. Inside, or when the memory is gone anyway. */
void nst_tcp_drop_received(nst_tcp *tcp, bool free_pbufs);

/* ---- tcp_table.c ---- */

/* Lays the connection on lwIP's list and takes it off again, which also notes what changed. */
void nst_tcp_take_up(nst_tcp *tcp);
void nst_tcp_put_down(nst_stack *stack);
/* Gives what was read back to lwIP now. */
void nst_tcp_announce(nst_tcp *tcp);
/* Lets the connection send what it can (there is room again). */
void nst_tcp_output(nst_tcp *tcp);
/* The connection with these addresses, or NULL. */
nst_tcp *nst_tcp_find(nst_stack *stack, const ip_addr_t *local_host, uint16_t local_port, const ip_addr_t *remote_host,
                      uint16_t remote_port);
/* No segment finds the connection any more. */
void nst_tcp_leave_table(nst_tcp *tcp);
/* Makes the pcb this socket's. A connection's addresses must be set: it is entered in the table. false: no memory. */
bool nst_tcp_attach_pcb(nst_tcp *tcp, struct tcp_pcb *pcb);
/* Connections from addresses that are no longer ours are aborted. */
void nst_tcp_addresses_changed(nst_stack *stack);
/* Frees a connection in TIME_WAIT. */
void nst_tcp_forget_time_wait(nst_tcp *tcp);

/* ---- tcp_path.c ---- */

/* Whether the number belongs to something sent and not acknowledged yet. Needs no taking up. */
bool nst_tcp_has_sent(const nst_tcp *tcp, uint32_t sequence);
/* An ICMP error says that what was sent got nowhere. */
void nst_tcp_unreachable(nst_tcp *tcp, nst_error error);
/* Segments are no longer than the path takes, as far as that is known. */
void nst_tcp_fit_path(nst_tcp *tcp);
/* The path takes less than was thought: what was too long is sent again. */
void nst_tcp_path_changed(nst_tcp *tcp);

/* So often is a segment sent as it is. */
#define NST_TCP_TRIES_AT_SIZE 4
/* Nobody acknowledges what is sent, and no router says why: perhaps it is too long for the way, and the router that
** drops it must not talk. The connection is taken up. */
void nst_tcp_path_is_silent(nst_tcp *tcp);

/* ---- tcp_check.c ---- */

#define NST_TCP_DEFAULT_MSS6 1220 /* RFC 9293 3.7.1 */

/* false: they do not add up. */
bool nst_tcp_read_options(const uint8_t *options, size_t length, nst_tcp_options *read);
/* For what has to be known before lwIP looks at the segment. */
bool nst_tcp_checksum_holds(struct pbuf *p, const struct netif *input);
/* Whether the segment, in network order, acknowledges our SYN where both sides have sent one. Then, before lwIP sees
** it, `complete_open` gives lwIP the SYN that it needs. */
bool nst_tcp_completes_open(const nst_tcp *tcp, const struct tcp_hdr *header, unsigned flags);
void nst_tcp_complete_open(nst_tcp *tcp, const struct tcp_hdr *segment, struct netif *input);

/* ---- tcp_recovery.c: of connections that are taken up ---- */

/* lwIP has looked at a segment: loss recovery (RFC 6582) beyond what it does. */
void nst_tcp_recover(nst_tcp *tcp);
/* Before something is sent: a window that was not used is narrow again (RFC 5681 4.1). */
void nst_tcp_after_pause(nst_tcp *tcp);

/* ---- tcp_timers.c ---- */

/* Before and after lwIP works on the connection. */
void nst_tcp_timers_before(nst_tcp *tcp);
void nst_tcp_timers_after(nst_tcp *tcp);
/* Runs what is due. Returns true when something was. */
bool nst_tcp_timers_run(nst_stack *stack);
/* Exact time of the next one. */
nst_time nst_tcp_timers_next(nst_stack *stack);
void nst_tcp_timers_start(nst_tcp *tcp);
void nst_tcp_timers_stop(nst_tcp *tcp);

#endif
