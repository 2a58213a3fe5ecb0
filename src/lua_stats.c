/*** What stacks tell of themselves: counters and sockets.
@submodule netstack.core */
#include <string.h>

#include "binding.h"
#include "raw.h"
#include "tcp.h"
#include "udp.h"

#include "lwip/stats.h"

static void copy_stats(nst_stack *stack, void *argument) {
  nst_nat_expire(stack);
  memcpy(argument, &lwip_stats, sizeof lwip_stats);
}

static void set_number(lua_State *L, const char *name, uint64_t value) {
  nst_pushinteger(L, value);
  lua_setfield(L, -2, name);
}

/* One protocol's counters, by lwIP's names spelled out. */
static void set_protocol(lua_State *L, const char *name, const struct stats_proto *counters) {
  lua_createtable(L, 0, 9);
  set_number(L, "received", counters->recv);
  set_number(L, "sent", counters->xmit);
  set_number(L, "dropped", counters->drop);
  set_number(L, "checksum_errors", counters->chkerr);
  set_number(L, "length_errors", counters->lenerr);
  set_number(L, "memory_errors", counters->memerr);
  set_number(L, "routing_errors", counters->rterr);
  set_number(L, "protocol_errors", counters->proterr);
  set_number(L, "option_errors", counters->opterr);
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, name);
}

/*** Counters by protocol.
@function stack:stats
@treturn table counters by protocol: ip, ip_frag, icmp, ip6, ip6_frag, icmp6, udp, tcp, raw, memory; reassembly:
{datagrams, bytes} that wait for the rest of their fragments, and datagrams given up for {timeouts, contradictions,
limited}; neighbours, on Ethernet: {entries, incomplete} of these, packets {waiting} for one that has not answered yet,
and {failed, evicted, dropped, conflicts, duplicates} so far; nat, where an interface masquerades: {mappings, sessions},
and packets dropped: {limited} to keep to the bounds, {filtered} that nobody inside asked for, {unmatched} that would have
left and belong to nothing, or cannot be translated; groups: {entries}, what was sent of them {reports, leaves},
{queries} that were heeded, {ignored} that break the rules, {unwanted} packets to groups that nobody joined; icmp_limited: errors not sent because there were too many;
of a stack that an assertion of lwIP ended: {closed = true, cause} */
int nst_lua_stats(lua_State *L) {
  nst_stack *stack = nst_lua_check(L, 1, NST_CLASS_STACK, "stats")->object;
  struct stats_ lwip;
  const nst_link *link;
  uint64_t sockets = 0;
  if (stack && !stack->open && stack->cause) {
    lua_createtable(L, 0, 2);
    lua_pushboolean(L, 1);
    lua_setfield(L, -2, "closed");
    lua_pushstring(L, stack->cause);
    lua_setfield(L, -2, "cause");
    return 1;
  }
  if (stack == NULL || !nst_inside(stack, copy_stats, &lwip)) return nst_lua_fail(L, NST_CLOSED);
  lua_createtable(L, 0, 18);
  set_protocol(L, "ip", &lwip.ip);
  lua_pop(L, 1);
  set_protocol(L, "ip_frag", &lwip.ip_frag);
  lua_pop(L, 1);
  set_protocol(L, "icmp", &lwip.icmp);
  lua_pop(L, 1);
  set_protocol(L, "ip6", &lwip.ip6);
  lua_pop(L, 1);
  set_protocol(L, "ip6_frag", &lwip.ip6_frag);
  lua_pop(L, 1);
  set_protocol(L, "icmp6", &lwip.icmp6);
  lua_pop(L, 1);
  set_protocol(L, "udp", &lwip.udp);
  set_number(L, "queue_full", stack->counters.udp_queue_full);
  lua_pop(L, 1);
  set_protocol(L, "tcp", &lwip.tcp);
  set_number(L, "retransmits", stack->counters.tcp_retransmits);
  set_number(L, "opened", stack->counters.tcp_opened);
  set_number(L, "accepted", stack->counters.tcp_accepted);
  set_number(L, "syn_dropped", stack->counters.tcp_syn_dropped);
  set_number(L, "mss_refused", stack->counters.tcp_mss_refused);
  set_number(L, "refused", stack->counters.tcp_refused);
  set_number(L, "challenge_acks", stack->counters.tcp_challenge_acks);
  set_number(L, "challenges_limited", stack->counters.tcp_challenges_limited);
  set_number(L, "out_of_order_dropped", stack->counters.tcp_out_of_order_dropped);
  set_number(L, "time_wait_evicted", stack->counters.tcp_time_wait_evicted);
  set_number(L, "time_wait", stack->time_wait_count);
  set_number(L, "connections", stack->connections.count);
  lua_pop(L, 1);
  lua_createtable(L, 0, 1);
  set_number(L, "queue_full", stack->counters.raw_queue_full);
  lua_setfield(L, -2, "raw");
  lua_createtable(L, 0, 2);
  set_number(L, "blocks", stack->memory.count);
  set_number(L, "bytes", stack->memory.bytes);
  lua_setfield(L, -2, "memory");
  for (link = stack->sockets.next; link != &stack->sockets; link = link->next) sockets++;
  set_number(L, "sockets", sockets);
  lua_createtable(L, 0, 5);
  set_number(L, "datagrams", stack->reassembly.datagrams.count);
  set_number(L, "bytes", stack->reassembly.bytes);
  set_number(L, "timeouts", stack->reassembly.counters.timeouts);
  set_number(L, "contradictions", stack->reassembly.counters.contradictions);
  set_number(L, "limited", stack->reassembly.counters.limited);
  lua_setfield(L, -2, "reassembly");
  lua_createtable(L, 0, 9);
  set_number(L, "entries", stack->neighbours.table.count);
  set_number(L, "incomplete", stack->neighbours.counts[NST_NEIGHBOUR_ASKED]);
  set_number(L, "waiting", stack->neighbours.waiting);
  set_number(L, "failed", stack->neighbours.counters.failed);
  set_number(L, "evicted", stack->neighbours.counters.evicted);
  set_number(L, "dropped", stack->neighbours.counters.dropped);
  set_number(L, "conflicts", stack->neighbours.counters.conflicts);
  set_number(L, "duplicates", stack->neighbours.counters.duplicates);
  lua_setfield(L, -2, "neighbours");
  lua_createtable(L, 0, 5);
  set_number(L, "mappings", stack->nat.outside.count);
  set_number(L, "sessions", stack->nat.sessions.count);
  set_number(L, "limited", stack->nat.limited);
  set_number(L, "filtered", stack->nat.filtered);
  set_number(L, "unmatched", stack->nat.unmatched);
  lua_setfield(L, -2, "nat");
  lua_createtable(L, 0, 6);
  set_number(L, "entries", stack->groups.table.count);
  set_number(L, "reports", stack->groups.reports);
  set_number(L, "leaves", stack->groups.leaves);
  set_number(L, "queries", stack->groups.queries);
  set_number(L, "ignored", stack->groups.ignored);
  set_number(L, "unwanted", stack->groups.unwanted);
  lua_setfield(L, -2, "groups");
  set_number(L, "icmp_limited", stack->counters.icmp_limited);
  set_number(L, "icmp_ignored", stack->counters.icmp_ignored);
  set_number(L, "path_mtus", stack->paths.count);
  set_number(L, "commands", stack->counters.commands);
  set_number(L, "queued_commands", stack->command_count);
  set_number(L, "in_packets", stack->counters.in_packets);
  set_number(L, "in_bytes", stack->counters.in_bytes);
  set_number(L, "out_packets", stack->counters.out_packets);
  set_number(L, "out_bytes", stack->counters.out_bytes);
  set_number(L, "forwarded", stack->counters.forwarded);
  lua_pushnumber(L, nst_lua_seconds(stack->now));
  lua_setfield(L, -2, "time");
  return 1;
}

static void set_end(lua_State *L, const nst_stack *stack, const char *host_name, const ip_addr_t *host,
                    const char *port_name, uint16_t port) {
  nst_lua_push_address(L, stack, host);
  lua_setfield(L, -2, host_name);
  lua_pushinteger(L, port);
  lua_setfield(L, -2, port_name);
}

/* What `sockets` tells of one of them. Gathered before any table is made: making one may run finalisers, and these
** close sockets. */
typedef struct socket_row {
  nst_protocol protocol;
  const char *state;
  bool local, remote, accepts, ipv6;
  ip_addr_t local_host, remote_host;
  uint16_t local_port, remote_port;
  uint8_t ip_protocol;
  uint64_t received, messages, dropped, unsent, waiting;
} socket_row;

static void gather_inbox(socket_row *row, const nst_inbox *inbox) {
  row->received = inbox->bytes;
  row->messages = inbox->count;
  row->dropped = inbox->dropped;
}

static void gather_tcp(socket_row *row, const nst_tcp *tcp) {
  const nst_link *link;
  row->state = nst_tcp_state_name(tcp);
  row->local = nst_tcp_local(tcp, &row->local_host, &row->local_port);
  row->remote = nst_tcp_remote(tcp, &row->remote_host, &row->remote_port) || tcp->connecting || tcp->listener;
  row->remote_host = tcp->remote_host;
  row->remote_port = tcp->remote_port;
  row->received = tcp->received_length;
  row->unsent = nst_tcp_unacked(tcp);
  row->accepts = tcp->listening;
  for (link = tcp->acceptable.next; link != &tcp->acceptable; link = link->next) row->waiting++;
}

static void gather(socket_row *row, const nst_socket *socket) {
  memset(row, 0, sizeof *row);
  row->protocol = socket->protocol;
  if (socket->protocol == NST_TCP) {
    gather_tcp(row, (const nst_tcp *)(const void *)socket);
  } else if (socket->protocol == NST_UDP) {
    const nst_udp *udp = (const nst_udp *)(const void *)socket;
    row->state = udp->connected ? "CONNECTED" : udp->pcb ? "BOUND" : "UNBOUND";
    row->local = udp->pcb != NULL;
    row->local_host = udp->connected ? udp->pcb->local_ip : socket->binding.host;
    row->local_port = socket->binding.port;
    row->remote = udp->connected;
    row->remote_host = udp->remote_host;
    row->remote_port = udp->remote_port;
    gather_inbox(row, &udp->inbox);
  } else {
    const nst_raw *raw = (const nst_raw *)(const void *)socket;
    row->state = "OPEN";
    row->ipv6 = raw->ipv6;
    row->ip_protocol = raw->protocol;
    gather_inbox(row, &raw->inbox);
  }
}

static void push_row(lua_State *L, const nst_stack *stack, const socket_row *row) {
  static const char *const protocols[] = {"tcp", "udp", "raw"};
  lua_createtable(L, 0, 4);
  lua_pushstring(L, protocols[row->protocol]);
  lua_setfield(L, -2, "protocol");
  lua_pushstring(L, row->state);
  lua_setfield(L, -2, "state");
  lua_createtable(L, 0, 4);
  if (row->protocol == NST_RAW) {
    lua_pushstring(L, row->ipv6 ? "ipv6" : "ipv4");
    lua_setfield(L, -2, "family");
    set_number(L, "protocol", row->ip_protocol);
  }
  if (row->local) set_end(L, stack, "local_host", &row->local_host, "local_port", row->local_port);
  if (row->remote) set_end(L, stack, "remote_host", &row->remote_host, "remote_port", row->remote_port);
  lua_setfield(L, -2, "addresses");
  lua_createtable(L, 0, 3);
  set_number(L, "receive", row->received);
  if (row->protocol == NST_TCP) {
    set_number(L, "send", row->unsent);
    if (row->accepts) set_number(L, "accept", row->waiting);
  } else {
    set_number(L, "messages", row->messages);
    set_number(L, "dropped", row->dropped);
  }
  lua_setfield(L, -2, "queues");
}

/*** The sockets.
@function stack:sockets
@treturn {table,...} {protocol, state, addresses = {local_host, local_port, remote_host, remote_port},
queues = {receive, send, ...}} of each open or closing socket */
int nst_lua_sockets(lua_State *L) {
  nst_stack *stack = nst_lua_check(L, 1, NST_CLASS_STACK, "sockets")->object;
  const nst_link *link;
  socket_row *rows;
  size_t count = 0, room, i;
  if (stack == NULL || !stack->open) return nst_lua_fail(L, NST_CLOSED);
  for (link = stack->sockets.next; link != &stack->sockets; link = link->next) count++;
  room = count;
  rows = lua_newuserdata(L, (room + 1) * sizeof *rows); /* after which there may be fewer */
  count = 0;
  for (link = stack->sockets.next; link != &stack->sockets && count < room; link = link->next) {
    gather(&rows[count++], nst_holder(link, const nst_socket, link));
  }
  lua_createtable(L, (int)count, 0);
  for (i = 0; i < count; i++) {
    push_row(L, stack, &rows[i]);
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}
