#include "binding.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "address.h"
#include "bell.h"
#include "device.h"
#include "trace.h"

/* In a userdata that is every function's first upvalue; see lua_core.c. */
typedef struct nst_binding_state {
  nst_hub *hub;
  int objects; /* reference of the weak table of objects, by id */
  int bell;    /* reference of the function that nst_bell_heed asks for */
  char library[512]; /* how the chunk names of our own Lua files begin; "": not told */
  char tags[NST_CLASS_COUNT]; /* their addresses tell one class from another, and from any other userdata */
} nst_binding_state;

#define METATABLE "netstack.metatable.%d"

static nst_binding_state *binding(lua_State *L) {
  return lua_touserdata(L, lua_upvalueindex(1));
}

nst_hub *nst_lua_hub(lua_State *L) {
  return binding(L)->hub;
}

static int close_binding(lua_State *L) {
  nst_binding_state *state = lua_touserdata(L, 1);
  if (state->hub) nst_hub_release(state->hub);
  state->hub = NULL;
  return 0;
}

int nst_lua_open(lua_State *L);

/* Pushes the binding's userdata and makes the hub. [-0, +1] */
int nst_lua_open(lua_State *L) {
  nst_binding_state *state = lua_newuserdata(L, sizeof *state);
  memset(state, 0, sizeof *state);
  lua_createtable(L, 0, 1);
  lua_pushcfunction(L, close_binding);
  lua_setfield(L, -2, "__gc");
  lua_setmetatable(L, -2);
  state->hub = nst_hub_new();
  if (state->hub == NULL) return luaL_error(L, "no memory");
  lua_newtable(L);
  lua_newtable(L);
  lua_pushliteral(L, "v");
  lua_setfield(L, -2, "__mode");
  lua_setmetatable(L, -2);
  state->objects = luaL_ref(L, LUA_REGISTRYINDEX);
  state->bell = LUA_NOREF;
  return 1;
}

void nst_lua_functions(lua_State *L, const luaL_Reg *functions) {
  for (; functions->name; functions++) {
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushcclosure(L, functions->func, 1);
    lua_setfield(L, -2, functions->name);
  }
}

void nst_lua_class(lua_State *L, nst_class class, const char *name, const luaL_Reg *methods, lua_CFunction collect,
                   lua_CFunction describe) {
  luaL_Reg metamethods[] = {{"__gc", collect}, {"__close", collect}, {"__tostring", describe}, {NULL, NULL}};
  const luaL_Reg *method;
  char key[40];
  for (method = methods; method->name; method++) {
    if (strcmp(method->name, "close") == 0) metamethods[1].func = method->func;
  }
  lua_newtable(L);
  nst_lua_functions(L, metamethods);
  lua_pushstring(L, name);
  lua_setfield(L, -2, "__name");
  lua_newtable(L);
  nst_lua_functions(L, methods);
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "__index"); /* metatable, methods */
  lua_getfield(L, -3, "classes"); /* of the module's table: where the Lua layer adds the methods that wait */
  lua_pushvalue(L, -2);
  lua_setfield(L, -2, strrchr(name, '.') + 1);
  lua_pop(L, 2);
  lua_pushliteral(L, "netstack");
  lua_setfield(L, -2, "__metatable");
  snprintf(key, sizeof key, METATABLE, (int)class);
  lua_setfield(L, LUA_REGISTRYINDEX, key);
}

const void *nst_lua_tag(lua_State *L, nst_class class) {
  return &binding(L)->tags[class];
}

nst_box *nst_lua_box(lua_State *L, nst_class class) {
  char key[40];
  nst_box *box = lua_newuserdata(L, sizeof *box);
  box->object = NULL;
  box->tag = nst_lua_tag(L, class);
  snprintf(key, sizeof key, METATABLE, (int)class);
  lua_getfield(L, LUA_REGISTRYINDEX, key);
  lua_setmetatable(L, -2);
  return box;
}

nst_box *nst_lua_test(lua_State *L, int index, nst_class class) {
  nst_box *box = lua_touserdata(L, index);
  if (box == NULL || nst_rawlen(L, index) != sizeof *box) return NULL; /* light userdata has no length */
  return box->tag == nst_lua_tag(L, class) ? box : NULL;
}

nst_box *nst_lua_check(lua_State *L, int index, nst_class class, const char *function) {
  static const char *const names[] = {"stack", "interface", "device", "channel", "ticket",
                                      "tcp socket", "udp socket", "raw socket", "link", "filter", "switch"};
  nst_box *box = nst_lua_test(L, index, class);
  if (box == NULL) {
    char why[80];
    snprintf(why, sizeof why, "%s expected, got %s", names[class], luaL_typename(L, index));
    nst_lua_argument_error(L, index - 1, function, why);
  }
  return box;
}

void nst_lua_library(lua_State *L, const char *prefix) {
  snprintf(binding(L)->library, sizeof binding(L)->library, "%s", prefix);
}

/* The first caller that is not the Lua layer: whoever wrote that line wants to read of it. */
void nst_lua_where(lua_State *L) {
  const char *library = binding(L)->library;
  size_t length = strlen(library);
  lua_Debug frame;
  int level;
  for (level = 1; lua_getstack(L, level, &frame); level++) {
    lua_getinfo(L, "Sl", &frame);
    if (frame.currentline > 0 && (length == 0 || strncmp(frame.source, library, length) != 0)) {
      lua_pushfstring(L, "%s:%d: ", frame.short_src, frame.currentline);
      return;
    }
  }
  luaL_where(L, 1);
}

int nst_lua_argument_error(lua_State *L, int n, const char *function, const char *why) {
  nst_lua_where(L);
  if (n <= 0) lua_pushfstring(L, "calling '%s' on bad self (%s)", function, why);
  else lua_pushfstring(L, "bad argument #%d to '%s' (%s)", n, function, why);
  lua_concat(L, 2);
  return lua_error(L);
}

int nst_lua_fail(lua_State *L, nst_error error) {
  lua_pushnil(L);
  lua_pushstring(L, nst_error_text(error));
  return 2;
}

int nst_lua_success(lua_State *L) {
  lua_pushinteger(L, 1);
  return 1;
}

int nst_lua_result(lua_State *L, nst_error error) {
  return error == NST_OK ? nst_lua_success(L) : nst_lua_fail(L, error);
}

static int wrong_type(lua_State *L, int n, const char *function, const char *expected) {
  char why[80];
  snprintf(why, sizeof why, "%s expected, got %s", expected,
           lua_isnone(L, n + 1) ? "no value" : luaL_typename(L, n + 1));
  return nst_lua_argument_error(L, n, function, why);
}

const char *nst_lua_string(lua_State *L, int n, size_t *length, const char *function) {
  if (lua_type(L, n + 1) != LUA_TSTRING && lua_type(L, n + 1) != LUA_TNUMBER) wrong_type(L, n, function, "string");
  return lua_tolstring(L, n + 1, length);
}

double nst_lua_number(lua_State *L, int n, const char *function) {
  if (lua_type(L, n + 1) != LUA_TNUMBER) wrong_type(L, n, function, "number");
  return (double)lua_tonumber(L, n + 1);
}

double nst_lua_integer(lua_State *L, int n, double least, double most, const char *function) {
  double value = nst_lua_number(L, n, function);
  if (!(value == floor(value))) nst_lua_argument_error(L, n, function, "number has no integer representation");
  if (value < least || value > most) {
    char why[80];
    snprintf(why, sizeof why, "out of range: %.0f to %.0f", least, most);
    nst_lua_argument_error(L, n, function, why);
  }
  return value;
}

uint16_t nst_lua_port(lua_State *L, int n, const char *function) {
  if (lua_type(L, n + 1) == LUA_TSTRING && lua_isnumber(L, n + 1)) { /* LuaSocket takes "80" too */
    lua_pushnumber(L, lua_tonumber(L, n + 1));
    lua_replace(L, n + 1);
  }
  return (uint16_t)nst_lua_integer(L, n, 0, 65535, function);
}

bool nst_lua_address(lua_State *L, int n, nst_stack *stack, ip_addr_t *address, const char *function) {
  size_t length;
  const char *text = nst_lua_string(L, n, &length, function);
  return strlen(text) == length && nst_address_parse(stack, text, address);
}

bool nst_lua_prefix(lua_State *L, int index, nst_stack *stack, nst_prefix *prefix) {
  size_t length;
  const char *text = lua_tolstring(L, index, &length);
  return strlen(text) == length && nst_prefix_parse(stack, text, prefix);
}

void nst_lua_push_address(lua_State *L, const nst_stack *stack, const ip_addr_t *address) {
  char text[NST_ADDRESS_LENGTH];
  lua_pushstring(L, nst_address_format(stack, address, text));
}

void nst_lua_push_station(lua_State *L, const uint8_t *address) {
  const uint8_t *a = address;
  char text[18];
  snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x", a[0], a[1], a[2], a[3], a[4], a[5]);
  lua_pushstring(L, text);
}

nst_time nst_lua_time(double seconds) {
  if (!(seconds > 0)) return 0; /* NaN too */
  if (seconds >= (double)NST_LATEST / 1e9) return NST_LATEST;
  return (nst_time)llround(seconds * 1e9);
}

double nst_lua_seconds(nst_time time) {
  return (double)time / 1e9;
}

void nst_lua_remember(lua_State *L, unsigned id) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, binding(L)->objects);
  lua_pushvalue(L, -2);
  lua_rawseti(L, -2, (int)id);
  lua_pop(L, 1);
}

void nst_lua_recall(lua_State *L, unsigned id) {
  lua_rawgeti(L, LUA_REGISTRYINDEX, binding(L)->objects);
  lua_rawgeti(L, -1, (int)id);
  lua_remove(L, -2);
}

bool nst_lua_pin(lua_State *L, const nst_stack *stack) {
  nst_lua_recall(L, stack->id);
  return !lua_isnil(L, -1);
}

void nst_lua_bell(lua_State *L, int n) {
  nst_binding_state *state = binding(L);
  luaL_unref(L, LUA_REGISTRYINDEX, state->bell);
  state->bell = LUA_NOREF;
  if (!lua_isnoneornil(L, n)) {
    lua_pushvalue(L, n);
    state->bell = luaL_ref(L, LUA_REGISTRYINDEX);
  }
  nst_bell_call(state->hub, state->bell != LUA_NOREF);
}

void nst_lua_heed(lua_State *L) {
  nst_binding_state *state = binding(L);
  if (!nst_bell_heed(state->hub)) return;
  lua_rawgeti(L, LUA_REGISTRYINDEX, state->bell);
  lua_call(L, 0, 0);
}

void nst_lua_after(lua_State *L, nst_stack *stack) {
  nst_hub *hub = nst_lua_hub(L);
  nst_link *link;
  if (stack) nst_stack_schedule(stack);
  nst_lua_heed(L);
  while ((link = nst_list_pop(&hub->woken)) != NULL) {
    nst_lua_recall(L, nst_holder(link, nst_stack, woken)->id);
    if (lua_isnil(L, -1)) {
      lua_pop(L, 1);
      continue;
    }
    nst_getuservalue(L, -1);
    lua_getfield(L, -1, "on_wake");
    if (lua_isfunction(L, -1)) {
      lua_pushvalue(L, -3);
      lua_call(L, 1, 0);
      lua_pop(L, 2);
    } else {
      lua_pop(L, 3);
    }
  }
}

void nst_lua_catch_up(nst_socket *socket) {
  if (!nst_list_empty(&socket->stack->commands)) (void)nst_stack_process_commands(socket->stack, 0);
}

bool nst_lua_inside(lua_State *L, nst_socket *socket, void (*body)(nst_stack *, void *), void *argument) {
  nst_stack *stack = socket->stack;
  bool open;
  nst_lua_catch_up(socket);
  open = nst_inside(stack, body, argument);
  if (stack->open) nst_lua_after(L, stack);
  return open;
}

static void push_event(lua_State *L, const nst_stack *stack, const nst_event *event) {
  static const char *const types[] = {"command", "in", "out", "drop", "state"};
  static const char *const names[] = {"command", NULL, NULL, "cause", "state"};
  lua_createtable(L, 0, 8);
  lua_pushnumber(L, nst_lua_seconds(event->time));
  lua_setfield(L, -2, "time");
  lua_pushstring(L, stack->config.name);
  lua_setfield(L, -2, "stack");
  lua_pushstring(L, types[event->type]);
  lua_setfield(L, -2, "type");
  if (event->what && names[event->type]) {
    lua_pushstring(L, event->what);
    lua_setfield(L, -2, names[event->type]);
  }
  if (event->interface[0]) {
    lua_pushstring(L, event->interface);
    lua_setfield(L, -2, "interface");
  }
  if (event->type == NST_EVENT_IN || event->type == NST_EVENT_OUT || event->type == NST_EVENT_DROP) {
    lua_pushlstring(L, event->data, event->length);
    lua_setfield(L, -2, "packet");
  }
  if (event->type == NST_EVENT_STATE) {
    nst_lua_push_address(L, stack, &event->local_host);
    lua_setfield(L, -2, "local_host");
    lua_pushinteger(L, event->local_port);
    lua_setfield(L, -2, "local_port");
    nst_lua_push_address(L, stack, &event->remote_host);
    lua_setfield(L, -2, "remote_host");
    lua_pushinteger(L, event->remote_port);
    lua_setfield(L, -2, "remote_port");
  }
}

/* Calls the stack's trace function for each event. The event is copied to Lua first, so that an error loses no memory. */
static void flush_trace(lua_State *L, nst_stack *stack) {
  nst_event *event;
  const nst_box *box;
  nst_list_remove(&stack->traced);
  nst_lua_recall(L, stack->id);
  if (lua_isnil(L, -1)) {
    nst_trace_clear(stack);
    lua_pop(L, 1);
    return;
  }
  box = lua_touserdata(L, -1);
  nst_getuservalue(L, -1);
  lua_getfield(L, -1, "trace"); /* stack, uservalue, function */
  /* The function may close the stack, which `<close>` frees. */
  while (box->object && stack->tracing && !nst_list_empty(&stack->events)) {
    event = nst_holder(stack->events.next, nst_event, link);
    lua_pushvalue(L, -1);
    push_event(L, stack, event);
    free(nst_trace_take(stack));
    if (!nst_list_empty(&stack->events) && !nst_list_linked(&stack->traced)) {
      nst_list_append(&stack->hub->traced, &stack->traced); /* in case the function raises */
    }
    lua_call(L, 1, 0);
  }
  if (box->object) nst_list_remove(&stack->traced);
  lua_pop(L, 3);
}

static void flush_device(lua_State *L, nst_device *device) {
  nst_packet *packet;
  const nst_box *box;
  nst_lua_recall(L, device->id);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    while ((packet = nst_callback_device_take(device)) != NULL) nst_packet_free(packet);
    return;
  }
  box = lua_touserdata(L, -1);
  nst_getuservalue(L, -1);
  lua_getfield(L, -1, "transmit"); /* device, uservalue, function */
  /* The function may close the device, which frees it. */
  while (box->object && device->open && (packet = nst_callback_device_take(device)) != NULL) {
    lua_pushvalue(L, -1);
    lua_pushlstring(L, (const char *)packet->data, packet->length);
    nst_packet_free(packet);
    lua_call(L, 1, 0);
  }
  lua_pop(L, 3);
}

bool nst_lua_flush(lua_State *L) {
  nst_hub *hub = nst_lua_hub(L);
  bool did = false;
  luaL_checkstack(L, 8, "flush");
  while (nst_hub_has_calls(hub)) {
    did = true;
    if (!nst_list_empty(&hub->crossed)) nst_lua_flush_crossing(L);
    if (!nst_list_empty(&hub->traced)) flush_trace(L, nst_holder(hub->traced.next, nst_stack, traced));
    if (!nst_list_empty(&hub->outgoing)) flush_device(L, nst_holder(hub->outgoing.next, nst_device, outgoing));
  }
  return did;
}
