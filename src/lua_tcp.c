/*** TCP sockets as Lua sees them: handles, and functions that answer at once.
@submodule netstack.core */
#include <math.h>
#include <string.h>

#include "binding.h"
#include "lua_options.h"
#include "operations.h"
#include "tcp.h"

static nst_tcp *check_tcp(lua_State *L, const char *function) {
  return nst_lua_check(L, 1, NST_CLASS_TCP, function)->object;
}

static const nst_class class_of[] = {NST_CLASS_TCP, NST_CLASS_UDP, NST_CLASS_RAW};

void nst_lua_push_socket(lua_State *L, nst_socket *socket) {
  nst_lua_box(L, class_of[socket->protocol])->object = socket;
}

nst_socket *nst_lua_test_socket(lua_State *L, int index) {
  int protocol;
  for (protocol = NST_TCP; protocol <= NST_RAW; protocol++) {
    nst_box *box = nst_lua_test(L, index, class_of[protocol]);
    if (box) return box->object;
  }
  return NULL;
}

static int collect(lua_State *L) {
  nst_box *box = nst_lua_test(L, 1, NST_CLASS_TCP);
  nst_tcp *tcp = box ? box->object : NULL;
  nst_stack *stack;
  if (tcp == NULL) return 0;
  box->object = NULL;
  stack = nst_stack_retain(tcp->socket.stack);
  nst_socket_close(&tcp->socket);
  nst_socket_release(&tcp->socket);
  if (stack->open) nst_stack_schedule(stack);
  nst_stack_release(stack);
  return 0;
}

static int describe(lua_State *L) {
  nst_box *box = nst_lua_test(L, 1, NST_CLASS_TCP);
  nst_tcp *tcp = box ? box->object : NULL;
  lua_pushfstring(L, "tcp (%s)", tcp && tcp->socket.open ? nst_tcp_state_name(tcp) : "closed");
  return 1;
}

/* One call into the stack: what a body needs and what it says. */
typedef struct call {
  nst_tcp *tcp;
  ip_addr_t host;
  uint16_t port;
  const char *data;
  size_t length, done;
  bool receive, send;
  nst_error error;
} call;

static nst_error run(lua_State *L, call *c, void (*body)(nst_stack *, void *)) {
  c->error = NST_CLOSED; /* what a body that is not run to its end says */
  (void)nst_lua_inside(L, &c->tcp->socket, body, c);
  return c->error;
}

/*** Makes a TCP handle, neither bound nor connected.
@function tcp
@tparam stack stack
@treturn netstack.core.tcp|nil
@treturn string "closed", "no memory" */
static int tcp_new_handle(lua_State *L) {
  nst_stack *stack = nst_lua_check(L, 1, NST_CLASS_STACK, "tcp")->object;
  nst_box *box;
  if (stack == NULL || !nst_stack_runs(stack)) return nst_lua_fail(L, NST_CLOSED);
  box = nst_lua_box(L, NST_CLASS_TCP);
  box->object = nst_tcp_new(stack);
  return box->object ? 1 : nst_lua_fail(L, NST_NO_MEMORY);
}

static void bind_inside(nst_stack *stack, void *argument) {
  call *c = argument;
  (void)stack;
  c->error = nst_tcp_bind(c->tcp, &c->host, c->port);
}

/*** Binds to a local address.
@function tcp:bind
@tparam string host "*", "0.0.0.0", "::" or one of the stack's addresses
@tparam integer port 0: any
@treturn integer|nil 1
@treturn string "address already in use", "address not available", "invalid address" */
static int bind_tcp(lua_State *L) {
  call c;
  memset(&c, 0, sizeof c);
  c.tcp = check_tcp(L, "bind");
  c.port = nst_lua_port(L, 2, "bind");
  if (c.tcp == NULL || !c.tcp->socket.open) return nst_lua_fail(L, NST_CLOSED);
  if (!nst_lua_address(L, 1, c.tcp->socket.stack, &c.host, "bind")) return nst_lua_fail(L, NST_INVALID_ADDRESS);
  if (c.tcp->ipv6_only && IP_IS_ANY_TYPE_VAL(c.host)) c.host = *IP6_ADDR_ANY;
  return nst_lua_result(L, run(L, &c, bind_inside));
}

static void listen_inside(nst_stack *stack, void *argument) {
  call *c = argument;
  (void)stack;
  c->error = nst_tcp_listen(c->tcp, c->length);
}

/*** Makes the socket a listener, or changes its backlog.
@function tcp:listen
@tparam[opt=32] integer backlog
@treturn integer|nil 1
@treturn string "closed", ... */
static int listen_tcp(lua_State *L) {
  call c;
  memset(&c, 0, sizeof c);
  c.tcp = check_tcp(L, "listen");
  c.length = lua_isnoneornil(L, 2) ? 32 : (size_t)nst_lua_integer(L, 1, 0, 1e6, "listen");
  if (c.tcp == NULL || !c.tcp->socket.open) return nst_lua_fail(L, NST_CLOSED);
  return nst_lua_result(L, run(L, &c, listen_inside));
}

static void connect_inside(nst_stack *stack, void *argument) {
  call *c = argument;
  (void)stack;
  c->error = nst_tcp_connect(c->tcp, &c->host, c->port);
}

/*** Starts to connect.
@function tcp:try_connect
@tparam string host an address
@tparam integer port
@treturn integer|nil 1
@treturn string "wouldblock" when it is under way, "no route", "already connected", ... */
static int try_connect(lua_State *L) {
  call c;
  memset(&c, 0, sizeof c);
  c.tcp = check_tcp(L, "connect");
  c.port = nst_lua_port(L, 2, "connect");
  if (c.port == 0) return nst_lua_argument_error(L, 2, "connect", "out of range: 1 to 65535");
  if (c.tcp == NULL || !c.tcp->socket.open) return nst_lua_fail(L, NST_CLOSED);
  if (!nst_lua_address(L, 1, c.tcp->socket.stack, &c.host, "connect") || IP_IS_ANY_TYPE_VAL(c.host)) {
    return nst_lua_fail(L, NST_INVALID_ADDRESS);
  }
  return nst_lua_result(L, run(L, &c, connect_inside));
}

/*** The outcome of connecting so far.
@function tcp:try_connected
@treturn integer|nil 1
@treturn string "wouldblock", "connection refused", "timeout", ... */
static int try_connected(lua_State *L) {
  nst_tcp *tcp = check_tcp(L, "connect");
  return nst_lua_result(L, tcp ? nst_tcp_connected(tcp) : NST_CLOSED);
}

/*** Takes the oldest connection that waits to be accepted.
@function tcp:try_accept
@treturn netstack.core.tcp|nil
@treturn string "wouldblock", "closed" */
static int try_accept(lua_State *L) {
  nst_tcp *tcp = check_tcp(L, "accept"), *connection;
  nst_error error;
  nst_box *box;
  if (tcp == NULL) return nst_lua_fail(L, NST_CLOSED);
  nst_lua_catch_up(&tcp->socket);
  box = nst_lua_box(L, NST_CLASS_TCP);
  error = nst_tcp_accept(tcp, &connection);
  if (error != NST_OK) return nst_lua_fail(L, error);
  box->object = connection;
  return 1;
}

static void send_inside(nst_stack *stack, void *argument) {
  call *c = argument;
  (void)stack;
  c->error = nst_tcp_send(c->tcp, c->data, c->length, &c->done);
}

/*** Queues as much as there is room for.
@function tcp:try_send
@tparam string data
@tparam[opt=1] integer i first byte to send
@tparam[opt=-1] integer j last byte to send
@treturn integer|nil index of the last byte, when all were taken
@treturn string "wouldblock" or an error
@treturn integer index of the last byte that was taken */
static int try_send(lua_State *L) {
  call c;
  size_t length;
  lua_Number first = 1, last = -1;
  c.tcp = check_tcp(L, "send");
  c.data = nst_lua_string(L, 1, &length, "send");
  c.done = 0;
  if (!lua_isnoneornil(L, 3)) first = nst_lua_number(L, 2, "send");
  if (!lua_isnoneornil(L, 4)) last = nst_lua_number(L, 3, "send");
  if (first < 0) first += (lua_Number)length + 1;
  if (!(first >= 1)) first = 1; /* NaN, too */
  if (first > (lua_Number)length + 1) first = (lua_Number)length + 1;
  if (last < 0) last += (lua_Number)length + 1;
  if (last > (lua_Number)length) last = (lua_Number)length;
  c.length = last >= first ? (size_t)(last - first) + 1 : 0;
  if (c.length > 0) c.data += (size_t)first - 1;
  if (c.tcp == NULL) c.error = NST_CLOSED;
  else (void)run(L, &c, send_inside);
  if (c.error == NST_OK && c.done == c.length) {
    nst_pushinteger(L, first - 1 + (lua_Number)c.done);
    return 1;
  }
  nst_lua_fail(L, c.error == NST_OK ? NST_WOULDBLOCK : c.error);
  nst_pushinteger(L, first - 1 + (lua_Number)c.done);
  return 3;
}

static void announce_inside(nst_stack *stack, void *argument) {
  (void)stack;
  nst_tcp_announce(argument);
}

/* Pushes the first `length` received bytes and then, when nothing can raise any more, counts them as read. */
static void take(lua_State *L, nst_tcp *tcp, size_t length) {
  nst_stack *stack = tcp->socket.stack;
  size_t contiguous;
  const char *data = nst_tcp_first(tcp, &contiguous);
  /* Pushing the string may collect garbage: a stack that nobody holds any more must not take the bytes along. */
  if (!nst_lua_pin(L, stack) || contiguous < length) {
    char *scratch = nst_hub_scratch(stack->hub, length);
    if (scratch == NULL) luaL_error(L, "no memory");
    (void)nst_tcp_peek(tcp, scratch, 0, length);
    data = scratch;
  }
  lua_pushlstring(L, data, length);
  if (!tcp->socket.open || !nst_tcp_consume(tcp, length)) return;
  (void)nst_inside(stack, announce_inside, tcp);
  if (stack->open) nst_lua_after(L, stack);
}

static nst_error readable(nst_tcp *tcp) {
  if (tcp == NULL) return NST_CLOSED;
  nst_lua_catch_up(&tcp->socket);
  return nst_tcp_readable(tcp);
}

/* A run of bytes that lies in one place and is at least this long is worth handing out by itself: putting it together
** with what follows would copy it once more. */
#define LONG_RUN 8192

/*** Takes what was received: up to `max` bytes; without `max`, as much as can be had cheaply, at least a byte.
@function tcp:try_receive
@tparam[opt] integer max
@treturn string|nil at least a byte
@treturn string "wouldblock", "closed", "connection reset" */
static int try_receive(lua_State *L) {
  nst_tcp *tcp = check_tcp(L, "receive");
  nst_error error = readable(tcp);
  size_t length;
  if (error != NST_OK) return nst_lua_fail(L, error);
  length = tcp->received_length;
  if (lua_isnoneornil(L, 2)) {
    size_t contiguous;
    (void)nst_tcp_first(tcp, &contiguous);
    if (contiguous >= LONG_RUN) length = contiguous;
  } else if (lua_tonumber(L, 2) < (lua_Number)length) {
    length = lua_tonumber(L, 2) >= 1 ? (size_t)lua_tonumber(L, 2) : 1;
  }
  take(L, tcp, length);
  return 1;
}

/*** Takes what was received up to and with the first newline; all of it when there is none.
@function tcp:try_receive_line
@treturn string|nil
@treturn boolean|string whether it ends in a newline; or the error */
static int try_receive_line(lua_State *L) {
  nst_tcp *tcp = check_tcp(L, "receive");
  nst_error error = readable(tcp);
  size_t length;
  if (error != NST_OK) return nst_lua_fail(L, error);
  length = nst_tcp_find_newline(tcp);
  take(L, tcp, length ? length : tcp->received_length);
  lua_pushboolean(L, length != 0);
  return 2;
}

static void shutdown_inside(nst_stack *stack, void *argument) {
  call *c = argument;
  (void)stack;
  c->error = nst_tcp_shutdown(c->tcp, c->receive, c->send);
}

/*** Ends one direction or both.
@function tcp:shutdown
@tparam[opt="both"] string how "send", "receive" or "both"
@treturn integer|nil 1
@treturn string "not connected", "closed" */
static int shutdown_tcp(lua_State *L) {
  const char *how = lua_isnoneornil(L, 2) ? "both" : lua_tostring(L, 2);
  call c;
  memset(&c, 0, sizeof c);
  c.tcp = check_tcp(L, "shutdown");
  c.receive = how && (strcmp(how, "receive") == 0 || strcmp(how, "both") == 0);
  c.send = how && (strcmp(how, "send") == 0 || strcmp(how, "both") == 0);
  if (!c.receive && !c.send) {
    return nst_lua_argument_error(L, 1, "shutdown", "\"send\", \"receive\" or \"both\" expected");
  }
  if (c.tcp == NULL || !c.tcp->socket.open) return nst_lua_fail(L, NST_CLOSED);
  return nst_lua_result(L, run(L, &c, shutdown_inside));
}

/*** Sends what is unsent, then FIN, in the background.
@function tcp:close
@treturn integer 1; harmless twice */
static int close_tcp(lua_State *L) {
  nst_lua_check(L, 1, NST_CLASS_TCP, "close");
  collect(L);
  nst_lua_after(L, NULL);
  return nst_lua_success(L);
}

static void abort_inside(nst_stack *stack, void *argument) {
  call *c = argument;
  (void)stack;
  nst_requests_finish(&c->tcp->socket.readers, NST_ABORTED);
  nst_requests_finish(&c->tcp->socket.writers, NST_ABORTED);
  nst_tcp_abort(c->tcp);
}

/*** Sends RST and forgets the connection; who waits for the socket is answered "connection aborted".
@function tcp:abort
@treturn integer 1 */
static int abort_tcp(lua_State *L) {
  call c;
  memset(&c, 0, sizeof c);
  c.tcp = check_tcp(L, "abort");
  if (c.tcp == NULL) return nst_lua_fail(L, NST_CLOSED);
  (void)run(L, &c, abort_inside);
  return close_tcp(L);
}

static int push_end(lua_State *L, const nst_tcp *tcp, const ip_addr_t *host, uint16_t port) {
  nst_lua_push_address(L, tcp->socket.stack, host);
  lua_pushinteger(L, port);
  lua_pushstring(L, IP_IS_ANY_TYPE_VAL(*host) ? "unspec" : IP_IS_V6(host) ? "inet6" : "inet");
  return 3;
}

/*** The local address.
@function tcp:getsockname
@treturn string|nil host
@treturn integer port
@treturn string "inet", "inet6" or "unspec" */
static int getsockname(lua_State *L) {
  nst_tcp *tcp = check_tcp(L, "getsockname");
  ip_addr_t host;
  uint16_t port;
  if (tcp == NULL || !tcp->socket.open) return nst_lua_fail(L, NST_CLOSED);
  if (!nst_tcp_local(tcp, &host, &port)) return nst_lua_fail(L, NST_NOT_CONNECTED);
  return push_end(L, tcp, &host, port);
}

/*** The peer's address.
@function tcp:getpeername
@treturn string|nil host
@treturn integer port
@treturn string "inet" or "inet6" */
static int getpeername(lua_State *L) {
  nst_tcp *tcp = check_tcp(L, "getpeername");
  ip_addr_t host;
  uint16_t port;
  if (tcp == NULL || !tcp->socket.open) return nst_lua_fail(L, NST_CLOSED);
  if (!nst_tcp_remote(tcp, &host, &port)) return nst_lua_fail(L, NST_NOT_CONNECTED);
  return push_end(L, tcp, &host, port);
}

/*** What was sent and received.
@function tcp:getstats
@treturn integer bytes received
@treturn integer bytes sent
@treturn number age in seconds of the stack's clock */
static int getstats(lua_State *L) {
  nst_tcp *tcp = check_tcp(L, "getstats");
  if (tcp == NULL || !tcp->socket.open) return nst_lua_fail(L, NST_CLOSED);
  nst_pushinteger(L, tcp->socket.received_bytes - tcp->received_length);
  nst_pushinteger(L, tcp->socket.sent_bytes);
  nst_stack_catch_up(tcp->socket.stack); /* nothing may have happened in it for long */
  lua_pushnumber(L, nst_lua_seconds(tcp->socket.stack->now - tcp->socket.born));
  return 3;
}

/*** Whether something can be read or accepted without waiting.
@function tcp:dirty
@treturn boolean */
static int dirty(lua_State *L) {
  nst_tcp *tcp = check_tcp(L, "dirty");
  if (tcp == NULL || !tcp->socket.open) return nst_lua_fail(L, NST_CLOSED);
  lua_pushboolean(L, tcp->received_length > 0 || !nst_list_empty(&tcp->acceptable));
  return 1;
}

static void set_number(lua_State *L, const char *name, double value) {
  lua_pushnumber(L, value);
  lua_setfield(L, -2, name);
}

static void set_count(lua_State *L, const char *name, uint64_t value) {
  nst_pushinteger(L, value);
  lua_setfield(L, -2, name);
}

/*** What is known of the connection.
@function tcp:info
@treturn table state, rtt, rttvar, rto (seconds), cwnd, ssthresh, snd_wnd, rcv_wnd, mss, unacked (bytes), retransmits */
static int info(lua_State *L) {
  nst_tcp *tcp = check_tcp(L, "info");
  struct tcp_pcb pcb;
  const char *state;
  size_t unacked;
  if (tcp == NULL || !tcp->socket.open) return nst_lua_fail(L, NST_CLOSED);
  memset(&pcb, 0, sizeof pcb); /* a copy: what allocates may run finalisers, and these may end the connection */
  if (tcp->pcb && !tcp->listening) pcb = *tcp->pcb;
  state = nst_tcp_state_name(tcp);
  unacked = nst_tcp_unacked(tcp);
  lua_createtable(L, 0, 11);
  lua_pushstring(L, state);
  lua_setfield(L, -2, "state");
  set_number(L, "rtt", nst_lua_seconds(tcp->srtt));
  set_number(L, "rttvar", nst_lua_seconds(tcp->rttvar));
  set_number(L, "rto", nst_lua_seconds(tcp->rto));
  set_count(L, "cwnd", pcb.cwnd);
  set_count(L, "ssthresh", pcb.ssthresh);
  set_count(L, "snd_wnd", pcb.snd_wnd);
  set_count(L, "rcv_wnd", pcb.rcv_wnd);
  set_count(L, "mss", pcb.mss);
  set_count(L, "unacked", unacked);
  set_count(L, "retransmits", tcp->retransmits);
  return 1;
}

/* ---- options ---- */

#define AT(field) offsetof(nst_tcp, field)
static const nst_option options[] = {
  {"tcp-nodelay", NST_OPTION_FLAG, AT(nodelay), 0, 0},
  {"keepalive", NST_OPTION_FLAG, AT(keepalive), 0, 0},
  {"reuseaddr", NST_OPTION_FLAG, AT(reuse_address), 0, 0},
  {"ipv6-v6only", NST_OPTION_FLAG, AT(ipv6_only), 0, 0},
  {"tcp-keepidle", NST_OPTION_SECONDS, AT(keep_idle), 0.001, 4e6},
  {"tcp-keepintvl", NST_OPTION_SECONDS, AT(keep_interval), 0.001, 4e6},
  {"tcp-keepcnt", NST_OPTION_COUNT, AT(keep_count), 1, 127},
  {"ip-ttl", NST_OPTION_BYTE, AT(ttl), 1, 255},
  {"ipv6-unicast-hops", NST_OPTION_BYTE, AT(ttl), 1, 255},
  {"ip-tos", NST_OPTION_BYTE, AT(tos), 0, 255},
  {"linger", NST_OPTION_LINGER, AT(linger), 0, 0},
  {NULL, NST_OPTION_FLAG, 0, 0, 0}};

static void apply_inside(nst_stack *stack, void *argument) {
  nst_tcp *tcp = argument;
  nst_tcp_take_up(tcp);
  nst_tcp_apply_options(tcp);
  nst_tcp_put_down(stack);
}

/*** Sets an option.
@function tcp:setoption
@tparam string option tcp-nodelay keepalive tcp-keepidle tcp-keepintvl tcp-keepcnt linger reuseaddr ipv6-v6only ip-ttl
ip-tos ipv6-unicast-hops
@tparam boolean|number|table value seconds for keepidle and keepintvl, {on=, timeout=} for linger
@treturn integer|nil 1 */
static int setoption(lua_State *L) {
  nst_tcp *tcp = check_tcp(L, "setoption");
  return nst_lua_setoption(L, options, tcp ? &tcp->socket : NULL, apply_inside);
}

/*** The value of an option.
@function tcp:getoption
@tparam string option
@treturn boolean|number|table|nil */
static int getoption(lua_State *L) {
  nst_tcp *tcp = check_tcp(L, "getoption");
  return nst_lua_getoption(L, options, tcp ? &tcp->socket : NULL);
}

/*** What the socket is now.
@function tcp:phase
@treturn string "new", "listening", "connecting", "connected" or "closed" */
static int phase(lua_State *L) {
  nst_tcp *tcp = check_tcp(L, "phase");
  if (tcp == NULL || !tcp->socket.open) lua_pushliteral(L, "closed");
  else if (tcp->listening) lua_pushliteral(L, "listening");
  else if (tcp->connected) lua_pushliteral(L, "connected");
  else if (tcp->connecting && tcp->error == NST_OK) lua_pushliteral(L, "connecting");
  else lua_pushliteral(L, "new");
  return 1;
}

/*** A ticket to wait for: answered when the socket can be read or accepted from ("read"), or sent to ("write").
It is armed anew (`ticket:arm`) for each wait.
@function wait_ticket
@tparam netstack.core.handle handle of any protocol
@tparam string side
@treturn ticket|nil
@treturn string "closed", "no memory" */
static int wait_ticket(lua_State *L) {
  nst_socket *socket = nst_lua_test_socket(L, 1);
  bool read = nst_lua_string(L, 1, NULL, "wait_ticket")[0] == 'r';
  nst_request *request;
  if (socket == NULL) return nst_lua_fail(L, NST_CLOSED);
  request = nst_request_new(socket->stack->hub, socket->stack, read ? nst_attempt_readable : nst_attempt_writable);
  if (request == NULL) return nst_lua_fail(L, NST_NO_MEMORY);
  request->socket = nst_socket_retain(socket);
  request->consumes = true;
  nst_lua_push_ticket(L, request);
  return 1;
}

void nst_lua_open_tcp(lua_State *L) {
  static const luaL_Reg methods[] = {
    {"bind", bind_tcp}, {"listen", listen_tcp}, {"try_connect", try_connect}, {"try_connected", try_connected},
    {"try_accept", try_accept}, {"try_send", try_send}, {"try_receive", try_receive},
    {"try_receive_line", try_receive_line}, {"shutdown", shutdown_tcp}, {"close", close_tcp}, {"abort", abort_tcp},
    {"getsockname", getsockname}, {"getpeername", getpeername}, {"getstats", getstats}, {"dirty", dirty},
    {"info", info}, {"setoption", setoption}, {"getoption", getoption}, {"phase", phase}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"tcp", tcp_new_handle}, {"wait_ticket", wait_ticket}, {NULL, NULL}};
  nst_lua_class(L, NST_CLASS_TCP, "netstack.tcp", methods, collect, describe);
  nst_lua_functions(L, functions);
}
