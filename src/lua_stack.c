/*** Stacks as Lua sees them.
@submodule netstack.core */
#include <math.h>
#include <string.h>

#include "binding.h"
#include "descriptors.h"
#include "trace.h"

#include "lwip/ip.h"

static nst_stack *open_stack(lua_State *L, const char *function) {
  nst_stack *stack = nst_lua_check(L, 1, NST_CLASS_STACK, function)->object;
  return stack && stack->open ? stack : NULL;
}

static int collect(lua_State *L) {
  nst_box *box = nst_lua_test(L, 1, NST_CLASS_STACK);
  nst_stack *stack = box ? box->object : NULL;
  if (stack == NULL) return 0;
  box->object = NULL;
  nst_stack_close(stack);
  nst_stack_release(stack);
  return 0;
}

static int describe(lua_State *L) {
  nst_box *box = nst_lua_test(L, 1, NST_CLASS_STACK);
  nst_stack *stack = box ? box->object : NULL;
  if (stack == NULL) lua_pushliteral(L, "stack (closed)");
  else lua_pushfstring(L, "stack %s%s", stack->config.name,
                       !stack->open ? " (closed)" : stack->crashed ? " (crashed)" : "");
  return 1;
}

/* A field of the config table at index 1, or its default. The Lua layer has checked types and ranges. */
static double number_field(lua_State *L, const char *name, double otherwise) {
  double value;
  lua_getfield(L, 1, name);
  value = lua_isnil(L, -1) ? otherwise : (double)lua_tonumber(L, -1);
  lua_pop(L, 1);
  return value;
}

/*** Makes a stack.
@function stack
@tparam table config checked by the caller
@treturn stack|nil
@treturn string "no memory" */
static int stack_new(lua_State *L) {
  nst_config config;
  nst_stack *stack;
  nst_box *box;
  memset(&config, 0, sizeof config);
  luaL_checktype(L, 1, LUA_TTABLE);
  config.mtu = (uint16_t)number_field(L, "mtu", 1500);
  config.channel_capacity = (size_t)number_field(L, "command_channel_capacity", 32);
  config.tcp_buffer_size = (uint32_t)number_field(L, "tcp_buffer_size", 262144);
  config.udp_buffer_size = (size_t)number_field(L, "udp_buffer_size", 65536);
  config.udp_message_count = (size_t)number_field(L, "udp_message_count", 256);
  config.raw_buffer_size = (size_t)number_field(L, "raw_buffer_size", 65536);
  config.raw_message_count = (size_t)number_field(L, "raw_message_count", 256);
  lua_getfield(L, 1, "loopback");
  config.loopback = lua_toboolean(L, -1);
  lua_getfield(L, 1, "forwarding");
  config.forwarding = lua_toboolean(L, -1);
  lua_getfield(L, 1, "seed");
  config.seeded = !lua_isnil(L, -1);
  config.seed = (uint64_t)(int64_t)lua_tonumber(L, -1);
  lua_getfield(L, 1, "name");
  if (lua_isstring(L, -1)) strncpy(config.name, lua_tostring(L, -1), sizeof config.name - 1);
  lua_pop(L, 4);
  box = nst_lua_box(L, NST_CLASS_STACK);
  lua_newtable(L);
  nst_setuservalue(L, -2);
  stack = nst_stack_new(nst_lua_hub(L), &config);
  if (stack == NULL) return nst_lua_fail(L, NST_NO_MEMORY);
  box->object = stack;
  nst_lua_remember(L, stack->id);
  return 1;
}

/*** Ends the stack: RSTs what is open if the device has room, frees everything; devices are detached, not closed.
@function stack:close
@treturn integer 1; harmless twice */
static int close_stack(lua_State *L) {
  nst_stack *stack = nst_lua_check(L, 1, NST_CLASS_STACK, "close")->object;
  if (stack) {
    nst_lua_leave_devices(L, 1);
    lua_newtable(L);
    nst_setuservalue(L, 1);
    nst_stack_close(stack);
    nst_lua_after(L, NULL);
  }
  return nst_lua_success(L);
}

/*** Has the stack forget all but its configuration, without a word to anybody. Until it is restarted, sockets cannot be
made and what arrives is dropped.
@function crash
@tparam stack stack
@treturn integer|nil 1; harmless twice
@treturn string "closed" */
static int crash(lua_State *L) {
  nst_stack *stack = open_stack(L, "crash");
  nst_error error = stack ? nst_stack_crash(stack) : NST_CLOSED;
  if (error != NST_OK) return nst_lua_fail(L, error);
  nst_lua_after(L, stack);
  return nst_lua_success(L);
}

/*** Has a crashed stack go on, as a new one with the same configuration.
@function stack:restart
@treturn integer|nil 1; harmless when it runs
@treturn string "closed" */
static int restart(lua_State *L) {
  nst_stack *stack = open_stack(L, "restart");
  nst_error error = stack ? nst_stack_restart(stack) : NST_CLOSED;
  if (error != NST_OK) return nst_lua_fail(L, error);
  nst_lua_after(L, stack);
  return nst_lua_success(L);
}

/*** Whether the stack has crashed and was not restarted yet.
@function stack:crashed
@treturn boolean|nil
@treturn string "closed" */
static int crashed(lua_State *L) {
  nst_stack *stack = open_stack(L, "crashed");
  if (stack == NULL) return nst_lua_fail(L, NST_CLOSED);
  lua_pushboolean(L, stack->crashed);
  return 1;
}

static double now_argument(lua_State *L, const char *function) {
  double now = nst_lua_number(L, 1, function);
  if (!(now >= 0) || isinf(now)) nst_lua_argument_error(L, 1, function, "seconds, 0 or more");
  return now;
}

static void push_delay(lua_State *L, nst_stack *stack) {
  nst_time next = stack->open ? nst_stack_next(stack) : NST_NEVER;
  if (next == NST_NEVER) lua_pushnil(L);
  else lua_pushnumber(L, next <= stack->now ? 0 : nst_lua_seconds(next - stack->now));
}

static void look_at_devices(nst_stack *stack) {
  const nst_link *link;
  for (link = stack->interfaces.next; link != &stack->interfaces; link = link->next) {
    nst_device *device = nst_holder(link, nst_interface, link)->device;
    if (device) nst_descriptors_look(device);
  }
}

/*** All work that can be done at `now` without waiting.
@function stack:poll
@tparam number now seconds of the stack's clock, which never goes back
@treturn boolean whether anything was done
@treturn number|nil seconds until it must be polled again */
static int poll_stack(lua_State *L) {
  double now = (nst_lua_check(L, 1, NST_CLASS_STACK, "poll"), now_argument(L, "poll"));
  nst_stack *stack = open_stack(L, "poll");
  bool worked = false, more = true;
  if (stack == NULL) return nst_lua_fail(L, NST_CLOSED);
  nst_stack_set_time(stack, nst_lua_time(now));
  look_at_devices(stack);
  /* Its own loopback could keep it busy for ever, and so could a function that answers each packet with another. */
  for (int rounds = 0; more && stack->open && rounds < 1000; rounds++) {
    more = nst_stack_poll(stack, &worked);
    if (nst_lua_flush(L)) more = worked = true;
  }
  nst_lua_after(L, stack->open ? stack : NULL);
  lua_pushboolean(L, worked);
  push_delay(L, stack);
  return 2;
}

/*** When the stack wants to be polled.
@function stack:poll_delay
@tparam number now
@treturn number|nil seconds until it must be polled; nil: not before something comes */
static int poll_delay(lua_State *L) {
  double now = (nst_lua_check(L, 1, NST_CLASS_STACK, "poll_delay"), now_argument(L, "poll_delay"));
  nst_stack *stack = open_stack(L, "poll_delay");
  if (stack == NULL) return nst_lua_fail(L, NST_CLOSED);
  nst_stack_set_time(stack, nst_lua_time(now));
  push_delay(L, stack);
  return 1;
}

/*** When the stack wants to be polled, for cqueues.
@function stack:timeout
@treturn number|nil seconds until it must be polled, by its own clock (cqueues) */
static int timeout(lua_State *L) {
  nst_stack *stack = open_stack(L, "timeout");
  if (stack == NULL) return nst_lua_fail(L, NST_CLOSED);
  push_delay(L, stack);
  return 1;
}

/* One of the devices to wait for, and how many there are; NULL: none. */
static const nst_device *waited_device(const nst_stack *stack, int *count) {
  const nst_device *one = NULL;
  const nst_link *link;
  *count = 0;
  for (link = stack->interfaces.next; link != &stack->interfaces; link = link->next) {
    const nst_device *device = nst_holder(link, const nst_interface, link)->device;
    if (device == NULL || device->fd < 0 || device->gone) continue;
    one = device;
    ++*count;
  }
  return one;
}

/*** What to wait for, for cqueues.
@function stack:pollfd
@treturn integer|nil the device's file descriptor, or one that stands for those of several and stays the stack's; nil: it
has none, or none from which anything can come
@treturn string "closed"; "full": no descriptor is left to stand for several */
static int pollfd_of(lua_State *L) {
  nst_stack *stack = open_stack(L, "pollfd");
  const nst_device *device;
  nst_error error;
  int count;
  if (stack == NULL) return nst_lua_fail(L, NST_CLOSED);
  device = waited_device(stack, &count);
  if (count > 1 || nst_pollset_is_open(&stack->pollset)) {
    error = nst_descriptors_gather(stack);
    if (error != NST_OK) return nst_lua_fail(L, error);
  }
  if (device) lua_pushinteger(L, nst_pollset_is_open(&stack->pollset) ? stack->pollset.fd : device->fd);
  else lua_pushnil(L);
  return 1;
}

/*** What to wait for it to become, for cqueues.
@function stack:events
@treturn string|nil what to wait for on `pollfd`: "r", or "rw" while the kernel has no room for a device that stands for
itself; nil: nothing */
static int events_of(lua_State *L) {
  nst_stack *stack = open_stack(L, "events");
  const nst_device *device;
  int count;
  if (stack == NULL) return nst_lua_fail(L, NST_CLOSED);
  device = waited_device(stack, &count);
  if (device == NULL) lua_pushnil(L);
  else lua_pushstring(L, count > 1 || nst_pollset_is_open(&stack->pollset) || nst_device_has_room(device) ? "r" : "rw");
  return 1;
}

/*** Runs queued commands without touching the device.
@function stack:process_commands
@tparam[opt] integer max
@treturn integer how many ran */
static int process_commands(lua_State *L) {
  nst_stack *stack;
  size_t max = 0;
  nst_lua_check(L, 1, NST_CLASS_STACK, "process_commands");
  if (!lua_isnoneornil(L, 2)) max = (size_t)nst_lua_integer(L, 1, 0, 1e9, "process_commands");
  stack = open_stack(L, "process_commands");
  if (stack == NULL) return nst_lua_fail(L, NST_CLOSED);
  if (!lua_isnoneornil(L, 2) && max == 0) {
    lua_pushinteger(L, 0);
    return 1;
  }
  nst_pushinteger(L, nst_stack_process_commands_only(stack, max));
  nst_lua_after(L, stack->open ? stack : NULL);
  return 1;
}

static int set_function(lua_State *L, const char *name, bool *flag, nst_stack *stack) {
  if (!lua_isnoneornil(L, 2) && !lua_isfunction(L, 2)) {
    return nst_lua_argument_error(L, 1, name, "function or nil expected");
  }
  if (stack == NULL) return nst_lua_fail(L, NST_CLOSED);
  lua_settop(L, 2);
  nst_getuservalue(L, 1);
  lua_pushvalue(L, 2);
  lua_setfield(L, -2, name);
  *flag = lua_isfunction(L, 2);
  return nst_lua_success(L);
}

/*** Sets what is called when an idle stack needs a poll.
@function stack:on_wake
@tparam function|nil fn fn(stack)
@treturn integer|nil 1 */
static int on_wake(lua_State *L) {
  nst_stack *stack = open_stack(L, "on_wake");
  bool unused;
  return set_function(L, "on_wake", stack ? &stack->wants_wake : &unused, stack);
}

/*** Sets what is called, after each poll, with each event.
@function stack:trace
@tparam function|nil fn fn(event): {time, stack, type = "command" | "in" | "out" | "drop" | "state", ...}; a command has
`command`, a packet `interface` and `packet`, a drop `cause` too (and no `interface` when the packet had waited), a state
`state` and the connection's addresses
@treturn integer|nil 1 */
static int trace(lua_State *L) {
  nst_stack *stack = open_stack(L, "trace");
  bool unused;
  int results = set_function(L, "trace", stack ? &stack->tracing : &unused, stack);
  if (stack && !stack->tracing) nst_trace_clear(stack);
  return results;
}

/*** The name that `tostring` and traces show.
@function stack:name
@treturn string */
static int name(lua_State *L) {
  nst_stack *stack = open_stack(L, "name");
  if (stack == NULL) return nst_lua_fail(L, NST_CLOSED);
  lua_pushstring(L, stack->config.name);
  return 1;
}

/*** Whether the stack is open.
@function is_open
@tparam stack stack
@treturn boolean */
static int is_open(lua_State *L) {
  lua_pushboolean(L, open_stack(L, "is_open") != NULL);
  return 1;
}

/*** Random bytes of the stack's generator.
@function random
@tparam stack stack
@treturn integer 0 to 2^32-1 */
static int random_number(lua_State *L) {
  nst_stack *stack = open_stack(L, "random");
  if (stack == NULL) return nst_lua_fail(L, NST_CLOSED);
  nst_pushinteger(L, nst_random_u32(&stack->random));
  return 1;
}

/*** The first interface that is not the loopback.
@function first_interface
@tparam stack stack
@treturn interface|nil
@treturn string "no route" (there is none), "closed" */
static int first_interface(lua_State *L) {
  nst_stack *stack = open_stack(L, "first_interface");
  nst_link *link;
  if (stack == NULL) return nst_lua_fail(L, NST_CLOSED);
  for (link = stack->interfaces.next; link != &stack->interfaces; link = link->next) {
    nst_interface *interface = nst_holder(link, nst_interface, link);
    if (interface == stack->loopback) continue;
    nst_lua_box(L, NST_CLASS_INTERFACE)->object = nst_interface_retain(interface);
    return 1;
  }
  return nst_lua_fail(L, NST_NO_ROUTE);
}

/* What source_address asks for; ping needs it for ICMPv6's checksum. */
typedef struct source {
  ip_addr_t to, from;
  bool found;
} source;

static void find_source(nst_stack *stack, void *argument) {
  source *query = argument;
  struct netif *netif = nst_route_find(stack, NULL, &query->to);
  const ip_addr_t *from = netif ? ip_netif_get_local_ip(netif, &query->to) : NULL;
  query->found = from && !ip_addr_isany(from);
  if (query->found) query->from = *from;
}

/*** The address that packets to a host come from.
@function source_address
@tparam stack stack
@tparam string host
@treturn string|nil
@treturn string "no route", "invalid address" */
static int source_address(lua_State *L) {
  nst_stack *stack = open_stack(L, "source_address");
  source query;
  memset(&query, 0, sizeof query);
  if (stack == NULL) return nst_lua_fail(L, NST_CLOSED);
  if (!nst_lua_address(L, 1, stack, &query.to, "source_address")) return nst_lua_fail(L, NST_INVALID_ADDRESS);
  if (!nst_inside(stack, find_source, &query)) return nst_lua_fail(L, NST_CLOSED);
  if (!query.found) return nst_lua_fail(L, NST_NO_ROUTE);
  nst_lua_push_address(L, stack, &query.from);
  return 1;
}

/*** Reads an address.
@function parse_address
@tparam string text
@treturn string|nil the network-order bytes (4 or 16), "" for "*"
@treturn string "invalid address" */
static int parse_address(lua_State *L) {
  ip_addr_t address;
  if (!nst_lua_address(L, 0, NULL, &address, "parse_address")) return nst_lua_fail(L, NST_INVALID_ADDRESS);
  if (IP_IS_ANY_TYPE_VAL(address)) lua_pushliteral(L, "");
  else if (IP_IS_V6(&address)) lua_pushlstring(L, (const char *)ip_2_ip6(&address)->addr, 16);
  else lua_pushlstring(L, (const char *)&ip_2_ip4(&address)->addr, 4);
  return 1;
}

/*** Writes an address.
@function format_address
@tparam string bytes in network order, 4 or 16
@treturn string its text */
static int format_address(lua_State *L) {
  size_t length;
  const char *bytes = nst_lua_string(L, 0, &length, "format_address");
  ip_addr_t address = IPADDR4_INIT(0);
  if (length != 4 && length != 16) return nst_lua_argument_error(L, 0, "format_address", "4 or 16 bytes expected");
  if (length == 16) IP_ADDR6(&address, 0, 0, 0, 0);
  memcpy(length == 16 ? (void *)ip_2_ip6(&address)->addr : (void *)&ip_2_ip4(&address)->addr, bytes, length);
  nst_lua_push_address(L, NULL, &address);
  return 1;
}

/*** A stack's own time.
@function now
@tparam stack stack
@treturn number seconds */
static int now_of(lua_State *L) {
  nst_stack *stack = open_stack(L, "now");
  if (stack == NULL) return nst_lua_fail(L, NST_CLOSED);
  nst_stack_catch_up(stack);
  lua_pushnumber(L, nst_lua_seconds(stack->now));
  return 1;
}

void nst_lua_open_stack(lua_State *L) {
  static const luaL_Reg methods[] = {
    {"close", close_stack}, {"poll", poll_stack}, {"poll_delay", poll_delay}, {"timeout", timeout},
    {"pollfd", pollfd_of}, {"events", events_of}, {"process_commands", process_commands}, {"on_wake", on_wake},
    {"trace", trace}, {"stats", nst_lua_stats}, {"sockets", nst_lua_sockets}, {"name", name},
    {"restart", restart}, {"crashed", crashed}, {NULL, NULL}};
  static const luaL_Reg functions[] = {
    {"stack", stack_new}, {"is_open", is_open}, {"random", random_number}, {"first_interface", first_interface},
    {"source_address", source_address}, {"parse_address", parse_address}, {"format_address", format_address},
    {"now", now_of}, {"crash", crash}, {NULL, NULL}};
  nst_lua_class(L, NST_CLASS_STACK, "netstack.stack", methods, collect, describe);
  nst_lua_functions(L, functions);
}
