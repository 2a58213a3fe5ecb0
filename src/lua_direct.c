/*
** What LuaJIT calls through its FFI in place of functions of the Lua API (netstack.direct): code that is compiled ends
** at those, and goes on past these. Each does what is to be done nearly always. When it is another case it does nothing
** and answers NST_INDIRECT, and the function of the Lua API is called, which knows them all. None of them may call Lua,
** whose state is not in order while compiled code runs.
*/
#include <limits.h>
#include <math.h>

#include "bell.h"
#include "binding.h"
#include "descriptors.h"
#include "request.h"
#include "tcp.h"

#define NST_INDIRECT (-1)
#define NST_ANSWERED (-2)

/* The socket in a box, unless its stack has commands to do before, or functions of Lua's to call. */
static nst_tcp *socket_in(const nst_box *box, const void *tag) {
  nst_tcp *tcp = box && box->tag == tag ? box->object : NULL;
  const nst_stack *stack;
  if (tcp == NULL || !tcp->socket.open || tcp->error != NST_OK) return NULL;
  stack = tcp->socket.stack;
  return stack->open && nst_list_empty(&stack->commands) && !stack->wants_wake ? tcp : NULL;
}

typedef struct sending {
  nst_tcp *tcp;
  const char *data;
  size_t length, sent;
  nst_error error;
} sending;

static void send_inside(nst_stack *stack, void *argument) {
  sending *s = argument;
  (void)stack;
  s->error = nst_tcp_send(s->tcp, s->data, s->length, &s->sent);
}

/* How many bytes were taken. */
static int direct_send(const void *tag, const nst_box *box, const char *data, size_t length) {
  sending s = {socket_in(box, tag), data, length, 0, NST_CLOSED};
  nst_stack *stack;
  if (s.tcp == NULL || length > INT_MAX) return NST_INDIRECT;
  stack = s.tcp->socket.stack;
  if (stack->hub->bell.calls && stack->hub->bell.at > 0) return NST_INDIRECT; /* a function of Lua's is to heed it */
  (void)nst_inside(stack, send_inside, &s);
  if (stack->open) nst_stack_schedule(stack);
  (void)nst_bell_heed(stack->hub);
  return s.error == NST_OK ? (int)s.sent : NST_INDIRECT; /* with an error nothing was taken */
}

/* Copies what was received: up to `most` bytes; with `line`, up to and with the first newline. How many; 0: would
** block. */
static int direct_receive(const void *tag, const nst_box *box, char *to, size_t size, double most, bool line) {
  nst_tcp *tcp = socket_in(box, tag);
  size_t length;
  if (tcp == NULL) return NST_INDIRECT;
  if (tcp->received_length == 0) return nst_tcp_readable(tcp) == NST_WOULDBLOCK ? 0 : NST_INDIRECT;
  length = line ? nst_tcp_find_newline(tcp) : tcp->received_length;
  if (!line && most < (double)length) length = (size_t)most;
  if (length == 0 || length > size || nst_tcp_announces(tcp, length)) return NST_INDIRECT;
  (void)nst_tcp_peek(tcp, to, 0, length);
  (void)nst_tcp_consume(tcp, length);
  return (int)length;
}

static nst_request *request_in(const nst_box *box, const void *tag) {
  return box && box->tag == tag ? box->object : NULL;
}

/* The number that was watching. */
static int direct_await(const void *tag, const nst_box *box, unsigned number) {
  nst_request *request = request_in(box, tag);
  unsigned before;
  if (request == NULL) return NST_INDIRECT;
  return nst_request_await(request, number, &before) ? (int)before : NST_ANSWERED;
}

static int direct_watch(const void *tag, const nst_box *box, unsigned number) {
  nst_request *request = request_in(box, tag);
  unsigned before;
  if (request == NULL) return NST_INDIRECT;
  return nst_request_watch(request, number, &before) ? (int)before : NST_ANSWERED;
}

/* The hub is driven, up to where functions of Lua's are to be called. */
typedef struct nst_stepped {
  unsigned id;   /* who is to be woken first; 0: nobody */
  bool more, others;
  bool calls;    /* functions of Lua's: `step` goes on */
  double next;   /* when nobody is to be woken; negative: no timer */
} nst_stepped;

static unsigned direct_ready(nst_hub *hub) {
  return nst_hub_ready(hub);
}

static void direct_step(nst_hub *hub, double now, nst_stepped *stepped) {
  nst_time next = NST_NEVER;
  stepped->more = nst_hub_drive(hub, nst_lua_time(now));
  stepped->calls = nst_hub_has_calls(hub);
  if (stepped->calls) return;
  stepped->id = nst_hub_ready(hub);
  stepped->others = !nst_list_empty(&hub->ready);
  if (stepped->id == 0 && !stepped->more) next = nst_hub_next(hub);
  stepped->next = next == NST_NEVER ? -1 : nst_lua_seconds(next);
}

/* Negative: when something gives the stacks work. */
static double direct_bell(nst_hub *hub, double base, double at) {
  nst_bell_set(hub, nst_lua_time(base), at >= HUGE_VAL ? NST_NEVER : nst_lua_time(at));
  return hub->bell.at == NST_NEVER ? -1 : nst_lua_seconds(hub->bell.at);
}

static void direct_look(nst_hub *hub) {
  nst_descriptors_wait(hub, 0);
}

/* netstack.direct has the same. */
typedef struct nst_direct {
  int (*send)(const void *tag, const nst_box *box, const char *data, size_t length);
  int (*receive)(const void *tag, const nst_box *box, char *to, size_t size, double most, bool line);
  int (*await)(const void *tag, const nst_box *box, unsigned number);
  int (*watch)(const void *tag, const nst_box *box, unsigned number);
  unsigned (*ready)(nst_hub *hub);
  void (*step)(nst_hub *hub, double now, nst_stepped *stepped);
  double (*bell)(nst_hub *hub, double base, double at);
  void (*look)(nst_hub *hub);
} nst_direct;

/*** What LuaJIT calls through its FFI.
@function direct
@treturn lightuserdata the functions, as netstack.direct declares them
@treturn lightuserdata what tells that a userdata is a TCP handle of this Lua state
@treturn lightuserdata or a ticket
@treturn lightuserdata the hub of this Lua state */
static int direct(lua_State *L) {
  static const nst_direct functions = {direct_send, direct_receive, direct_await, direct_watch,
                                       direct_ready, direct_step, direct_bell, direct_look};
  lua_pushlightuserdata(L, (void *)(uintptr_t)&functions);
  lua_pushlightuserdata(L, (void *)(uintptr_t)nst_lua_tag(L, NST_CLASS_TCP));
  lua_pushlightuserdata(L, (void *)(uintptr_t)nst_lua_tag(L, NST_CLASS_TICKET));
  lua_pushlightuserdata(L, nst_lua_hub(L));
  return 4;
}

void nst_lua_open_direct(lua_State *L) {
  static const luaL_Reg functions[] = {{"direct", direct}, {NULL, NULL}};
  nst_lua_functions(L, functions);
}
