/*** UDP and raw sockets as Lua sees them.
@submodule netstack.core */
#include <stdlib.h>
#include <string.h>

#include "binding.h"
#include "lua_options.h"
#include "raw.h"
#include "udp.h"

static nst_udp *check_udp(lua_State *L, const char *function) {
  return nst_lua_check(L, 1, NST_CLASS_UDP, function)->object;
}

static nst_raw *check_raw(lua_State *L, const char *function) {
  return nst_lua_check(L, 1, NST_CLASS_RAW, function)->object;
}

static int collect_class(lua_State *L, nst_class class) {
  nst_box *box = nst_lua_test(L, 1, class);
  nst_socket *socket = box ? box->object : NULL;
  if (socket == NULL) return 0;
  box->object = NULL;
  nst_socket_close(socket);
  nst_socket_release(socket);
  return 0;
}

static int collect_udp(lua_State *L) {
  return collect_class(L, NST_CLASS_UDP);
}

static int collect_raw(lua_State *L) {
  return collect_class(L, NST_CLASS_RAW);
}

static int describe_udp(lua_State *L) {
  nst_box *box = nst_lua_test(L, 1, NST_CLASS_UDP);
  nst_udp *udp = box ? box->object : NULL;
  if (udp == NULL || !udp->socket.open) lua_pushliteral(L, "udp (closed)");
  else if (udp->pcb == NULL) lua_pushliteral(L, "udp (unbound)");
  else lua_pushfstring(L, "udp (port %d)", (int)udp->socket.binding.port);
  return 1;
}

static int describe_raw(lua_State *L) {
  nst_box *box = nst_lua_test(L, 1, NST_CLASS_RAW);
  nst_raw *raw = box ? box->object : NULL;
  if (raw == NULL || !raw->socket.open) lua_pushliteral(L, "raw (closed)");
  else lua_pushfstring(L, "raw (%s protocol %d)", raw->ipv6 ? "ipv6" : "ipv4", (int)raw->protocol);
  return 1;
}

typedef struct call {
  nst_socket *socket;
  ip_addr_t host;
  bool to_peer;
  uint16_t port;
  const char *data;
  size_t length;
  nst_error error;
} call;

static nst_error run(lua_State *L, call *c, void (*body)(nst_stack *, void *)) {
  c->error = NST_CLOSED; /* what a body that is not run to its end says */
  (void)nst_lua_inside(L, c->socket, body, c);
  return c->error;
}

static nst_udp *udp_of(const call *c) {
  return (nst_udp *)(void *)c->socket;
}

/*** Makes a UDP handle, bound to nothing.
@function udp
@tparam stack stack
@treturn netstack.core.udp|nil
@treturn string "closed", "no memory" */
static int udp_new_handle(lua_State *L) {
  nst_stack *stack = nst_lua_check(L, 1, NST_CLASS_STACK, "udp")->object;
  nst_box *box;
  if (stack == NULL || !nst_stack_runs(stack)) return nst_lua_fail(L, NST_CLOSED);
  box = nst_lua_box(L, NST_CLASS_UDP);
  box->object = nst_udp_new(stack);
  return box->object ? 1 : nst_lua_fail(L, NST_NO_MEMORY);
}

static void bind_inside(nst_stack *stack, void *argument) {
  call *c = argument;
  (void)stack;
  c->error = nst_udp_bind(udp_of(c), &c->host, c->port);
}

/*** Binds to a local address.
@function udp:setsockname
@tparam string host "*", "0.0.0.0", "::" or one of the stack's addresses
@tparam integer port 0: any
@treturn integer|nil 1
@treturn string "address already in use", "address not available", "invalid address" */
static int setsockname(lua_State *L) {
  nst_udp *udp = check_udp(L, "setsockname");
  call c;
  memset(&c, 0, sizeof c);
  c.port = nst_lua_port(L, 2, "setsockname");
  if (udp == NULL || !udp->socket.open) return nst_lua_fail(L, NST_CLOSED);
  c.socket = &udp->socket;
  if (!nst_lua_address(L, 1, c.socket->stack, &c.host, "setsockname")) return nst_lua_fail(L, NST_INVALID_ADDRESS);
  if (udp->ipv6_only && IP_IS_ANY_TYPE_VAL(c.host)) c.host = *IP6_ADDR_ANY;
  return nst_lua_result(L, run(L, &c, bind_inside));
}

static void connect_inside(nst_stack *stack, void *argument) {
  call *c = argument;
  (void)stack;
  c->error = nst_udp_connect(udp_of(c), c->to_peer ? NULL : &c->host, c->port);
}

/*** Sets the peer, or takes it away.
@function udp:setpeername
@tparam string host "*" takes the peer away
@tparam[opt] integer port
@treturn integer|nil 1
@treturn string "wrong ip version", "invalid address", ... */
static int setpeername(lua_State *L) {
  nst_udp *udp = check_udp(L, "setpeername");
  call c;
  memset(&c, 0, sizeof c);
  if (lua_type(L, 2) == LUA_TSTRING && strcmp(lua_tostring(L, 2), "*") == 0) c.to_peer = true;
  else c.port = nst_lua_port(L, 2, "setpeername");
  if (udp == NULL || !udp->socket.open) return nst_lua_fail(L, NST_CLOSED);
  c.socket = &udp->socket;
  if (!c.to_peer && !nst_lua_address(L, 1, c.socket->stack, &c.host, "setpeername")) {
    return nst_lua_fail(L, NST_INVALID_ADDRESS);
  }
  return nst_lua_result(L, run(L, &c, connect_inside));
}

static void send_inside(nst_stack *stack, void *argument) {
  call *c = argument;
  (void)stack;
  c->error = nst_udp_send(udp_of(c), c->to_peer ? NULL : &c->host, c->port, c->data, c->length);
}

/*** Sends a datagram to the peer.
@function udp:try_send
@tparam string data
@treturn integer|nil bytes
@treturn string "wouldblock", "message too long", ... */
static int try_send(lua_State *L) {
  nst_udp *udp = check_udp(L, "send");
  call c;
  c.data = nst_lua_string(L, 1, &c.length, "send");
  c.to_peer = true;
  c.port = 0;
  if (udp == NULL || !udp->socket.open) return nst_lua_fail(L, NST_CLOSED);
  c.socket = &udp->socket;
  if (run(L, &c, send_inside) != NST_OK) return nst_lua_fail(L, c.error);
  nst_pushinteger(L, c.length);
  return 1;
}

/*** Sends a datagram to an address.
@function udp:try_sendto
@tparam string data
@tparam string host
@tparam integer port
@treturn integer|nil bytes
@treturn string "wouldblock", "message too long", "no route", ... */
static int try_sendto(lua_State *L) {
  nst_udp *udp = check_udp(L, "sendto");
  call c;
  c.data = nst_lua_string(L, 1, &c.length, "sendto");
  c.port = nst_lua_port(L, 3, "sendto");
  c.to_peer = false;
  if (c.port == 0) return nst_lua_argument_error(L, 3, "sendto", "out of range: 1 to 65535");
  if (udp == NULL || !udp->socket.open) return nst_lua_fail(L, NST_CLOSED);
  c.socket = &udp->socket;
  if (!nst_lua_address(L, 2, c.socket->stack, &c.host, "sendto") || IP_IS_ANY_TYPE_VAL(c.host)) {
    return nst_lua_fail(L, NST_INVALID_ADDRESS);
  }
  if (run(L, &c, send_inside) != NST_OK) return nst_lua_fail(L, c.error);
  nst_pushinteger(L, c.length);
  return 1;
}

/*
** Pushes data[, host, port][, original length when cut] of the first datagram. It is out of the inbox before anything
** is allocated: a collection may end the socket's stack, and with it whatever lies in the inbox.
*/
static int take(lua_State *L, nst_socket *socket, nst_inbox *inbox, bool from) {
  nst_datagram *datagram;
  size_t length;
  lua_settop(L, 2);
  luaL_checkstack(L, 8, "receive");
  datagram = nst_inbox_take(inbox);
  length = datagram->length;
  if (!lua_isnil(L, 2) && lua_tonumber(L, 2) < (lua_Number)length) length = (size_t)lua_tonumber(L, 2);
  lua_pushlstring(L, datagram->data, length);
  if (from) {
    nst_lua_push_address(L, socket->stack, &datagram->host);
    lua_pushinteger(L, datagram->port);
  }
  if (length < datagram->length) nst_pushinteger(L, datagram->length);
  free(datagram);
  return lua_gettop(L) - 2;
}

static int receive(lua_State *L, const char *function, bool from) {
  nst_udp *udp = check_udp(L, function);
  nst_error error;
  if (!lua_isnoneornil(L, 2)) (void)nst_lua_integer(L, 1, 0, 1e9, function);
  if (udp == NULL) return nst_lua_fail(L, NST_CLOSED);
  nst_lua_catch_up(&udp->socket);
  error = nst_udp_readable(udp);
  if (error != NST_OK) return nst_lua_fail(L, error);
  return take(L, &udp->socket, &udp->inbox, from);
}

/*** Takes the next datagram.
@function udp:try_receive
@tparam[opt] integer max
@treturn string|nil datagram
@treturn integer|string original length, when it was cut; or the error */
static int try_receive(lua_State *L) {
  return receive(L, "receive", false);
}

/*** Takes the next datagram and tells whose it is.
@function udp:try_receivefrom
@tparam[opt] integer max
@treturn string|nil datagram
@treturn string host, or the error
@treturn integer port
@treturn integer original length, when it was cut */
static int try_receivefrom(lua_State *L) {
  return receive(L, "receivefrom", true);
}

/*** Closes the socket; what IP has taken is still sent.
@function udp:close
@treturn integer 1; harmless twice */
static int close_udp(lua_State *L) {
  nst_lua_check(L, 1, NST_CLASS_UDP, "close");
  collect_udp(L);
  nst_lua_after(L, NULL);
  return nst_lua_success(L);
}

static int push_end(lua_State *L, const nst_socket *socket, const ip_addr_t *host, uint16_t port) {
  nst_lua_push_address(L, socket->stack, host);
  lua_pushinteger(L, port);
  lua_pushstring(L, IP_IS_ANY_TYPE_VAL(*host) ? "unspec" : IP_IS_V6(host) ? "inet6" : "inet");
  return 3;
}

/*** The local address.
@function udp:getsockname
@treturn string|nil host
@treturn integer port
@treturn string family "inet", "inet6" or "unspec" */
static int getsockname(lua_State *L) {
  nst_udp *udp = check_udp(L, "getsockname");
  if (udp == NULL || !udp->socket.open) return nst_lua_fail(L, NST_CLOSED);
  if (udp->pcb == NULL) return nst_lua_fail(L, NST_NOT_CONNECTED);
  return push_end(L, &udp->socket, udp->connected ? &udp->pcb->local_ip : &udp->socket.binding.host,
                  udp->socket.binding.port);
}

/*** The peer's address.
@function udp:getpeername
@treturn string|nil host
@treturn integer port
@treturn string family "inet" or "inet6" */
static int getpeername(lua_State *L) {
  nst_udp *udp = check_udp(L, "getpeername");
  if (udp == NULL || !udp->socket.open) return nst_lua_fail(L, NST_CLOSED);
  if (!udp->connected) return nst_lua_fail(L, NST_NOT_CONNECTED);
  return push_end(L, &udp->socket, &udp->remote_host, udp->remote_port);
}

/* ---- options ---- */

#define AT(field) offsetof(nst_udp, field)
static const nst_option options[] = {
  {"broadcast", NST_OPTION_FLAG, AT(broadcast), 0, 0},
  {"reuseaddr", NST_OPTION_FLAG, AT(reuse_address), 0, 0},
  {"dont-fragment", NST_OPTION_FLAG, AT(dont_fragment), 0, 0},
  {"ipv6-v6only", NST_OPTION_FLAG, AT(ipv6_only), 0, 0},
  {"ip-ttl", NST_OPTION_BYTE, AT(ttl), 1, 255},
  {"ipv6-unicast-hops", NST_OPTION_BYTE, AT(ttl), 1, 255},
  {"ip-tos", NST_OPTION_BYTE, AT(tos), 0, 255},
  {"ip-multicast-ttl", NST_OPTION_BYTE, AT(group_ttl), 0, 255},
  {"ip-multicast-loop", NST_OPTION_FLAG, AT(group_loop4), 0, 0},
  {"ipv6-multicast-hops", NST_OPTION_BYTE, AT(group_hops), 0, 255},
  {"ipv6-multicast-loop", NST_OPTION_FLAG, AT(group_loop6), 0, 0},
  {NULL, NST_OPTION_FLAG, 0, 0, 0}};

static void apply_inside(nst_stack *stack, void *argument) {
  (void)stack;
  nst_udp_apply_options(argument);
}

/*** Sets an option.
@function udp:setoption
@tparam string option broadcast reuseaddr dont-fragment ipv6-v6only ip-multicast-loop ipv6-multicast-loop; ip-ttl
ipv6-unicast-hops ip-tos ip-multicast-ttl ipv6-multicast-hops; ip-add-membership ip-drop-membership ipv6-add-membership
ipv6-drop-membership; ip-multicast-if
@tparam boolean|integer|table|string value a membership is {multiaddr =, interface =}
@treturn integer|nil 1
@treturn string of memberships: "invalid address", "no route", "address already in use" (it is a member),
"address not available" (it is none), "full", "wrong ip version" */
static int setoption(lua_State *L) {
  nst_udp *udp = check_udp(L, "setoption");
  int results = nst_lua_set_group_option(L, udp);
  return results ? results : nst_lua_setoption(L, options, udp ? &udp->socket : NULL, apply_inside);
}

/*** The value of an option.
@function udp:getoption
@tparam string option
@treturn boolean|integer|string|nil
@treturn string "closed" */
static int getoption(lua_State *L) {
  nst_udp *udp = check_udp(L, "getoption");
  int results = nst_lua_get_group_option(L, udp);
  return results ? results : nst_lua_getoption(L, options, udp ? &udp->socket : NULL);
}

/* ---- raw ---- */

/*** Makes a raw handle.
@function raw
@tparam stack stack
@tparam string family "ipv4" or "ipv6"
@tparam integer protocol 0 to 255
@treturn netstack.core.raw|nil
@treturn string "closed", "no memory" */
static int raw_new_handle(lua_State *L) {
  nst_stack *stack = nst_lua_check(L, 1, NST_CLASS_STACK, "raw")->object;
  const char *family = nst_lua_string(L, 1, NULL, "raw");
  double protocol = nst_lua_integer(L, 2, 0, 255, "raw");
  nst_box *box;
  if (strcmp(family, "ipv4") != 0 && strcmp(family, "ipv6") != 0) {
    return nst_lua_argument_error(L, 1, "raw", "\"ipv4\" or \"ipv6\" expected");
  }
  if (stack == NULL || !nst_stack_runs(stack)) return nst_lua_fail(L, NST_CLOSED);
  box = nst_lua_box(L, NST_CLASS_RAW);
  box->object = nst_raw_new(stack, family[3] == '6', (uint8_t)protocol);
  return box->object ? 1 : nst_lua_fail(L, NST_NO_MEMORY);
}

static void raw_send_inside(nst_stack *stack, void *argument) {
  call *c = argument;
  (void)stack;
  c->error = nst_raw_send((nst_raw *)(void *)c->socket, c->data, c->length);
}

/*** Sends a packet.
@function raw:try_send
@tparam string packet with its IP header
@treturn integer|nil bytes */
static int raw_try_send(lua_State *L) {
  nst_raw *raw = check_raw(L, "send");
  call c;
  memset(&c, 0, sizeof c);
  c.data = nst_lua_string(L, 1, &c.length, "send");
  if (c.length == 0) return nst_lua_argument_error(L, 1, "send", "empty packet");
  if (raw == NULL || !raw->socket.open) return nst_lua_fail(L, NST_CLOSED);
  c.socket = &raw->socket;
  if (run(L, &c, raw_send_inside) != NST_OK) return nst_lua_fail(L, c.error);
  nst_pushinteger(L, c.length);
  return 1;
}

/*** Takes the next packet.
@function raw:try_receive
@tparam[opt] integer max
@treturn string|nil packet with its IP header
@treturn integer|string original length, when it was cut; or the error */
static int raw_try_receive(lua_State *L) {
  nst_raw *raw = check_raw(L, "receive");
  nst_error error;
  if (!lua_isnoneornil(L, 2)) (void)nst_lua_integer(L, 1, 0, 1e9, "receive");
  if (raw == NULL) return nst_lua_fail(L, NST_CLOSED);
  nst_lua_catch_up(&raw->socket);
  error = nst_raw_readable(raw);
  if (error != NST_OK) return nst_lua_fail(L, error);
  return take(L, &raw->socket, &raw->inbox, false);
}

/*** Closes the socket.
@function raw:close
@treturn integer 1; harmless twice */
static int close_raw(lua_State *L) {
  nst_lua_check(L, 1, NST_CLASS_RAW, "close");
  collect_raw(L);
  return nst_lua_success(L);
}

void nst_lua_open_datagram(lua_State *L) {
  static const luaL_Reg udp_methods[] = {
    {"setsockname", setsockname}, {"setpeername", setpeername}, {"try_send", try_send}, {"try_sendto", try_sendto},
    {"try_receive", try_receive}, {"try_receivefrom", try_receivefrom}, {"close", close_udp},
    {"getsockname", getsockname}, {"getpeername", getpeername}, {"setoption", setoption}, {"getoption", getoption},
    {NULL, NULL}};
  static const luaL_Reg raw_methods[] = {
    {"try_send", raw_try_send}, {"try_receive", raw_try_receive}, {"close", close_raw}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"udp", udp_new_handle}, {"raw", raw_new_handle}, {NULL, NULL}};
  nst_lua_class(L, NST_CLASS_UDP, "netstack.udp", udp_methods, collect_udp, describe_udp);
  nst_lua_class(L, NST_CLASS_RAW, "netstack.raw", raw_methods, collect_raw, describe_raw);
  nst_lua_functions(L, functions);
}
