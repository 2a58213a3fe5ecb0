#include "lua_options.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A value of any kind, read from Lua before anything is changed. */
typedef union value {
  bool flag;
  double number;
  nst_linger linger;
} value;

static const nst_option *find(lua_State *L, const nst_option *options, const char *function) {
  const char *name = nst_lua_string(L, 1, NULL, function);
  char why[80];
  for (; options->name; options++) {
    if (strcmp(options->name, name) == 0) return options;
  }
  snprintf(why, sizeof why, "unknown option '%.50s'", name);
  nst_lua_argument_error(L, 1, function, why);
  return NULL;
}

static nst_linger read_linger(lua_State *L) {
  nst_linger linger = {false, 0};
  double seconds = 0;
  if (!lua_istable(L, 3)) nst_lua_argument_error(L, 2, "setoption", "table {on=, timeout=} expected");
  lua_getfield(L, 3, "on");
  lua_getfield(L, 3, "timeout");
  linger.on = lua_toboolean(L, -2);
  if (lua_type(L, -1) == LUA_TNUMBER) seconds = (double)lua_tonumber(L, -1);
  if ((!lua_isnil(L, -1) && lua_type(L, -1) != LUA_TNUMBER) || !(seconds >= 0)) {
    nst_lua_argument_error(L, 2, "setoption", "linger's timeout is seconds, 0 or more");
  }
  linger.time = nst_lua_time(seconds);
  return linger;
}

static value read_value(lua_State *L, const nst_option *option) {
  value v;
  memset(&v, 0, sizeof v);
  switch (option->kind) {
    case NST_OPTION_FLAG:
      if (!lua_isboolean(L, 3)) nst_lua_argument_error(L, 2, "setoption", "boolean expected");
      v.flag = lua_toboolean(L, 3);
      break;
    case NST_OPTION_BYTE:
    case NST_OPTION_COUNT: v.number = nst_lua_integer(L, 2, option->least, option->most, "setoption"); break;
    case NST_OPTION_SECONDS:
      v.number = nst_lua_number(L, 2, "setoption");
      if (!(v.number >= option->least && v.number <= option->most)) {
        nst_lua_argument_error(L, 2, "setoption", "out of range");
      }
      break;
    case NST_OPTION_LINGER: v.linger = read_linger(L); break;
  }
  return v;
}

int nst_lua_setoption(lua_State *L, const nst_option *options, nst_socket *socket,
                      void (*apply)(nst_stack *stack, void *socket)) {
  const nst_option *option = find(L, options, "setoption");
  value v = read_value(L, option);
  void *place;
  if (socket == NULL || !socket->open) return nst_lua_fail(L, NST_CLOSED);
  place = (char *)socket + option->place;
  switch (option->kind) {
    case NST_OPTION_FLAG: *(bool *)place = v.flag; break;
    case NST_OPTION_BYTE: *(uint8_t *)place = (uint8_t)v.number; break;
    case NST_OPTION_COUNT: *(uint32_t *)place = (uint32_t)v.number; break;
    case NST_OPTION_SECONDS: *(uint32_t *)place = (uint32_t)llround(v.number * 1000); break;
    case NST_OPTION_LINGER: *(nst_linger *)place = v.linger; break;
  }
  return nst_lua_result(L, nst_lua_inside(L, socket, apply, socket) ? NST_OK : NST_CLOSED);
}

int nst_lua_getoption(lua_State *L, const nst_option *options, nst_socket *socket) {
  const nst_option *option = find(L, options, "getoption");
  const void *place;
  if (socket == NULL || !socket->open) return nst_lua_fail(L, NST_CLOSED);
  place = (const char *)socket + option->place;
  switch (option->kind) {
    case NST_OPTION_FLAG: lua_pushboolean(L, *(const bool *)place); break;
    case NST_OPTION_BYTE: lua_pushinteger(L, *(const uint8_t *)place); break;
    case NST_OPTION_COUNT: nst_pushinteger(L, *(const uint32_t *)place); break;
    case NST_OPTION_SECONDS: lua_pushnumber(L, *(const uint32_t *)place / 1000.0); break;
    case NST_OPTION_LINGER: {
      nst_linger linger = *(const nst_linger *)place;
      lua_createtable(L, 0, 2);
      lua_pushboolean(L, linger.on);
      lua_setfield(L, -2, "on");
      lua_pushnumber(L, nst_lua_seconds(linger.time));
      lua_setfield(L, -2, "timeout");
      break;
    }
  }
  return 1;
}
