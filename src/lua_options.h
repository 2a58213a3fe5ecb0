/* Socket options as LuaSocket has them: seconds, booleans, numbers and {on=, timeout=}, by a table for each protocol. */
#ifndef NST_LUA_OPTIONS_H
#define NST_LUA_OPTIONS_H

#include "binding.h"

typedef enum nst_option_kind {
  NST_OPTION_FLAG,    /* bool */
  NST_OPTION_BYTE,    /* uint8_t */
  NST_OPTION_COUNT,   /* uint32_t */
  NST_OPTION_SECONDS, /* uint32_t, milliseconds */
  NST_OPTION_LINGER   /* nst_linger */
} nst_option_kind;

typedef struct nst_option {
  const char *name; /* NULL ends the table */
  nst_option_kind kind;
  size_t place;     /* of the value, in the socket */
  double least, most;
} nst_option;

/* Results of setoption(name, value); `apply` is then run inside the stack with the socket. NULL: a closed socket. */
int nst_lua_setoption(lua_State *L, const nst_option *options, nst_socket *socket,
                      void (*apply)(nst_stack *stack, void *socket));
/* Options of UDP that say which groups on which interface: setoption(name, value) and getoption(name). 0: the name is
** none of these (lua_group.c). NULL: a closed socket. */
int nst_lua_set_group_option(lua_State *L, nst_udp *udp);
int nst_lua_get_group_option(lua_State *L, const nst_udp *udp);
/* Results of getoption(name). */
int nst_lua_getoption(lua_State *L, const nst_option *options, nst_socket *socket);

#endif
