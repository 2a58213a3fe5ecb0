/***
The module netstack.core: what the Lua layer is built on. Its functions never wait; those that cannot answer at
once return nil, "wouldblock", and the Lua layer waits for a ticket and asks again.
@module netstack.core
*/
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bell.h"
#include "binding.h"
#include "descriptors.h"
#include "request.h"

__attribute__((visibility("default"))) int luaopen_netstack_core(lua_State *L);
int nst_lua_open(lua_State *L);

/*** The next watched ticket that was answered.
@function ready
@treturn integer|nil the number that `watch` was given */
static int ready(lua_State *L) {
  unsigned id = nst_hub_ready(nst_lua_hub(L));
  if (id == 0) return 0;
  lua_pushinteger(L, (lua_Integer)id);
  return 1;
}

static int flush(lua_State *L) {
  (void)nst_lua_flush(L);
  return 0;
}

/* The same as nst_lua_flush; what a function raises is on the stack then, and lua_pcall's status the result. */
static int flush_protected(lua_State *L) {
  lua_pushvalue(L, lua_upvalueindex(1));
  lua_pushcclosure(L, flush, 1);
  return lua_pcall(L, 0, 0, 0);
}

/*** Drives, flushes, and tells who is to be woken first: what a scheduler does in each round, in one call.
@function step
@tparam ?number now seconds since the run began; nil: they have been driven already
@tparam[opt=false] boolean protected whether what a function of the user's raises is a result
@treturn integer|nil as from `ready`
@treturn boolean whether there is more to do before time goes on
@treturn number|nil run time of the next stack timer, when nobody is to be woken
@treturn boolean whether `ready` has more to tell
@treturn boolean|nil true: a function raised
@return what it raised */
static int step(lua_State *L) {
  nst_hub *hub = nst_lua_hub(L);
  bool driven = lua_isnoneornil(L, 1);
  bool more = driven ? !nst_list_empty(&hub->runnable) : nst_hub_drive(hub, nst_lua_time(lua_tonumber(L, 1)));
  nst_time next = NST_NEVER;
  int failed = 0;
  lua_settop(L, 2);
  if (nst_hub_has_calls(hub)) {
    more = true;
    if (lua_toboolean(L, 2)) failed = flush_protected(L);
    else (void)nst_lua_flush(L);
  }
  if (ready(L) == 0) {
    lua_pushnil(L);
    if (!more) next = nst_hub_next(hub); /* time goes on only when nobody is ready */
  }
  lua_pushboolean(L, more);
  if (next == NST_NEVER) lua_pushnil(L);
  else lua_pushnumber(L, nst_lua_seconds(next));
  lua_pushboolean(L, !nst_list_empty(&hub->ready));
  if (!failed) return 4;
  lua_pushboolean(L, 1);
  lua_pushvalue(L, 3); /* above the arguments */
  return 6;
}

static nst_request *check_ticket(lua_State *L) {
  nst_box *box = nst_lua_test(L, 1, NST_CLASS_TICKET);
  nst_request *request = box ? box->object : NULL;
  if (request == NULL) luaL_argerror(L, 1, "ticket expected");
  return request;
}

/*** Begins to wait for a ticket; one that stands for a wait, not for a command, is armed anew.
@function await
@tparam ticket ticket
@tparam integer number to be reported by `ready`
@tparam[opt] thread thread the coroutine that would wait: false when the caller runs in another, or cannot yield
@treturn nil|boolean|integer nil: armed; true: answered already; false: cannot wait here; a number: armed, and that one,
which was watching, is not told any more */
static int await(lua_State *L) {
  nst_request *request = check_ticket(L);
  unsigned before;
  if (!lua_isnoneornil(L, 3) && (lua_tothread(L, 3) != L || !nst_isyieldable(L))) {
    lua_pushboolean(L, 0);
    return 1;
  }
  if (!nst_request_await(request, (unsigned)lua_tointeger(L, 2), &before)) {
    lua_pushboolean(L, 1);
    return 1;
  }
  if (before == 0) return 0;
  lua_pushinteger(L, (lua_Integer)before);
  return 1;
}

/*** Asks for a number to be reported by `ready` once the ticket is answered; 0 takes that back.
@function watch
@tparam ticket ticket
@tparam integer number
@treturn integer|nil the number that was watching, 0: none; nil when the ticket is answered already: then a report that
is under way still comes, since others may wait for it under the same number */
static int watch(lua_State *L) {
  unsigned before;
  if (!nst_request_watch(check_ticket(L), (unsigned)lua_tointeger(L, 2), &before)) return 0;
  lua_pushinteger(L, (lua_Integer)before);
  return 1;
}

/*** A new run begins: its time starts at 0; every stack's clock goes on from where it stands.
@function run_begin */
static int run_begin(lua_State *L) {
  nst_hub_begin_run(nst_lua_hub(L));
  nst_lua_heed(L);
  return 0;
}

/*** The run is over; stacks' clocks stand still until the next one.
@function run_end */
static int run_end(lua_State *L) {
  nst_hub_begin_run(nst_lua_hub(L));
  nst_lua_heed(L);
  return 0;
}

/*** Closed connections whose data or FIN is not acknowledged yet.
@function unsettled
@treturn integer */
static int unsettled(lua_State *L) {
  nst_pushinteger(L, nst_lua_hub(L)->unsettled);
  return 1;
}

/*** Whether all that will come by itself is the end of connections in TIME-WAIT.
@function only_time_wait
@treturn boolean */
static int only_time_wait(lua_State *L) {
  lua_pushboolean(L, nst_hub_only_time_wait(nst_lua_hub(L)));
  return 1;
}

/*** Whether an open stack has a device with a file descriptor, or somebody waits for one.
@function has_fd
@treturn boolean
@treturn boolean whether anything can still come from such a device: not from interfaces that were deleted */
static int has_fd(lua_State *L) {
  bool alive;
  lua_pushboolean(L, nst_descriptors_any(nst_lua_hub(L), &alive));
  lua_pushboolean(L, alive);
  return 2;
}

/*** The clock on the wall.
@function wall_clock
@treturn number seconds since 1970 */
static int wall_clock(lua_State *L) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  lua_pushnumber(L, (lua_Number)now.tv_sec + (lua_Number)now.tv_nsec / 1e9);
  return 1;
}

/*** The monotonic clock.
@function monotonic
@treturn number seconds */
static int monotonic(lua_State *L) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  lua_pushnumber(L, (lua_Number)now.tv_sec + (lua_Number)now.tv_nsec / 1e9);
  return 1;
}

/* A signal that comes after Lua's last look for it and before the kernel sleeps would be noticed at the end only. */
#define LONGEST_WAIT NST_SECOND

/*** Waits in real time until a device has something, a signal comes or the time has passed; a second at most.
@function wait_io
@tparam number|nil seconds nil: as long as it may */
static int wait_io(lua_State *L) {
  nst_time time = lua_isnoneornil(L, 1) ? LONGEST_WAIT : nst_lua_time(lua_tonumber(L, 1));
  nst_descriptors_wait(nst_lua_hub(L), time < LONGEST_WAIT ? time : LONGEST_WAIT);
  return 0;
}

/*** Tells the core which files are the library's own, so that errors name the user's line.
@function library
@tparam string prefix of the chunk names of the Lua layer */
static int library(lua_State *L) {
  nst_lua_library(L, luaL_checkstring(L, 1));
  return 0;
}

/*** Where the library was called from.
@function where
@treturn string "file:line: " */
static int where(lua_State *L) {
  nst_lua_where(L);
  return 1;
}

/*** Whether the guard looks at packets; not in the build that shows what it is for (`make test GUARD=off`).
@function guarded
@treturn boolean */
static int guarded(lua_State *L) {
  lua_pushboolean(L, nst_guard_is_on());
  return 1;
}

/*** Makes the bell: one descriptor for a loop that is not ours, readable when the stacks want to be driven.
@function bell_open
@treturn integer|nil the descriptor, always the same in a process
@treturn string "full": no descriptor is left, "no memory" */
static int bell_open(lua_State *L) {
  nst_hub *hub = nst_lua_hub(L);
  nst_error error = nst_bell_open(hub);
  if (error != NST_OK) return nst_lua_fail(L, error);
  lua_pushinteger(L, hub->bell.set.fd);
  return 1;
}

/*** The stacks have been driven; sets the bell.
@function bell
@tparam number base time of the monotonic clock when the run began
@tparam[opt] number time seconds since then at which it rings in any case
@treturn number|nil seconds since then at which it rings; nil: when something gives the stacks work */
static int bell(lua_State *L) {
  nst_hub *hub = nst_lua_hub(L);
  nst_time at = lua_isnoneornil(L, 2) ? NST_NEVER : nst_lua_time(lua_tonumber(L, 2));
  nst_bell_set(hub, nst_lua_time(lua_tonumber(L, 1)), at);
  if (hub->bell.at == NST_NEVER) return 0;
  lua_pushnumber(L, nst_lua_seconds(hub->bell.at));
  return 1;
}

/*** Has a function called in place of the bell's descriptor, by whatever gives the stacks something to do before the
time that `bell` told. It must not wait.
@function bell_call
@tparam ?function fn nil: no longer */
static int bell_call(lua_State *L) {
  if (!lua_isnoneornil(L, 1)) luaL_checktype(L, 1, LUA_TFUNCTION);
  nst_lua_bell(L, 1);
  return 0;
}

/* What an owner of sockets that is none of Lua's, a request of nginx's, is to leave behind when it ends: it cannot call
** Lua then. netstack.resty.owner has the same, and the memory. */
typedef struct nst_notice {
  struct nst_notice *next, **ended; /* in a list of those that were given */
  int given;
  int wanted; /* sockets that are left */
  int (*post)(void *semaphore, int count);
  void *semaphore;
} nst_notice;

static void give_notice(void *data) {
  nst_notice *notice = data;
  notice->given = 1;
  notice->next = *notice->ended;
  *notice->ended = notice;
  if (notice->wanted > 0) (void)notice->post(notice->semaphore, 1);
}

/*** The C function that is to be called with a notice of netstack.resty.owner's when the owner ends.
@function notice
@treturn lightuserdata */
static int notice(lua_State *L) {
  void (*function)(void *) = give_notice;
  void *address;
  memcpy(&address, &function, sizeof address);
  lua_pushlightuserdata(L, address);
  return 1;
}

/*** Whether the caller can yield.
@function is_yieldable
@treturn boolean|nil nil: Lua cannot tell (before 5.3, but LuaJIT can)
@treturn thread the caller */
static int is_yieldable(lua_State *L) {
#ifdef NST_KNOWS_YIELDABLE
  lua_pushboolean(L, nst_isyieldable(L));
  (void)lua_pushthread(L);
  return 2;
#else
  (void)L;
  return 0;
#endif
}

/*** Whether a standard stream is a terminal.
@function is_terminal
@tparam integer descriptor
@treturn boolean */
static int is_terminal(lua_State *L) {
  lua_pushboolean(L, isatty((int)luaL_checkinteger(L, 1)));
  return 1;
}

/*** The table of what an object of ours keeps alive. Its names `devices link a b trace on_wake stack` are the core's.
@function kept
@param object a stack, device, interface or link
@treturn table */
static int kept(lua_State *L) {
  nst_class class;
  for (class = NST_CLASS_STACK; class < NST_CLASS_COUNT; class++) {
    if (nst_lua_test(L, 1, class) == NULL) continue;
    nst_getuservalue(L, 1);
    return 1;
  }
  return luaL_argerror(L, 1, "object of ours expected");
}

static void push_errors(lua_State *L) {
  int error;
  lua_createtable(L, 0, NST_ERROR_COUNT);
  for (error = NST_OK + 1; error < NST_ERROR_COUNT; error++) {
    lua_createtable(L, 0, 2);
    lua_pushstring(L, nst_error_meaning((nst_error)error));
    lua_setfield(L, -2, "meaning");
    lua_pushstring(L, nst_error_remedy((nst_error)error));
    lua_setfield(L, -2, "remedy");
    lua_setfield(L, -2, nst_error_text((nst_error)error));
  }
}

static const luaL_Reg functions[] = {
  {"step", step}, {"ready", ready}, {"await", await}, {"watch", watch},
  {"run_begin", run_begin}, {"run_end", run_end}, {"unsettled", unsettled}, {"has_fd", has_fd},
  {"only_time_wait", only_time_wait},
  {"monotonic", monotonic}, {"wall_clock", wall_clock}, {"wait_io", wait_io}, {"library", library}, {"where", where},
  {"guarded", guarded}, {"is_terminal", is_terminal}, {"kept", kept}, {"bell_open", bell_open}, {"bell", bell},
  {"bell_call", bell_call}, {"is_yieldable", is_yieldable}, {"notice", notice},
  {NULL, NULL}};

/*** The methods of the core's objects by class: `stack interface device channel ticket tcp udp raw link switch`. The Lua
layer adds its own to them.
@table classes */

/*** Each error string with `meaning` and `remedy`.
@table errors */

/* Runs with the binding as upvalue, which the functions made here inherit. */
static int open_all(lua_State *L) {
  lua_newtable(L);
  lua_newtable(L);
  lua_setfield(L, -2, "classes");
  nst_lua_functions(L, functions);
  push_errors(L);
  lua_setfield(L, -2, "errors");
  nst_lua_open_channel(L);
  nst_lua_open_device(L);
  nst_lua_open_link(L);
  nst_lua_open_switch(L);
  nst_lua_open_interface(L);
  nst_lua_open_stack(L);
  nst_lua_open_tcp(L);
  nst_lua_open_datagram(L);
  nst_lua_open_direct(L);
  return 1;
}

int luaopen_netstack_core(lua_State *L) {
  nst_lua_open(L);
  lua_pushcclosure(L, open_all, 1);
  lua_call(L, 0, 1);
  return 1;
}
