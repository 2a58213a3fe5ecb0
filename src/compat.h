/* What differs between Lua 5.1, 5.2, 5.3, 5.4 and LuaJIT; nowhere else is the version asked for. */
#ifndef NST_COMPAT_H
#define NST_COMPAT_H

#include <lauxlib.h>
#include <lua.h>

#if LUA_VERSION_NUM == 501
#define nst_rawlen(L, index) lua_objlen(L, index)
#define nst_setuservalue(L, index) ((void)lua_setfenv(L, index))
#define nst_getuservalue(L, index) lua_getfenv(L, index)
#elif LUA_VERSION_NUM < 504
#define nst_rawlen(L, index) lua_rawlen(L, index)
#define nst_setuservalue(L, index) lua_setuservalue(L, index)
#define nst_getuservalue(L, index) lua_getuservalue(L, index)
#else
#define nst_rawlen(L, index) lua_rawlen(L, index)
#define nst_setuservalue(L, index) ((void)lua_setiuservalue(L, index, 1))
#define nst_getuservalue(L, index) ((void)lua_getiuservalue(L, index, 1))
#endif

/* Where Lua cannot tell whether a C function could yield, the Lua layer finds out before it asks. */
#if LUA_VERSION_NUM >= 503 || defined(LUA_LJDIR) /* LuaJIT's luaconf.h */
#define nst_isyieldable(L) lua_isyieldable(L)
#define NST_KNOWS_YIELDABLE
#else
#define nst_isyieldable(L) 1
#endif

/* Integers that a double holds exactly go out as integers where Lua has them. */
#if LUA_VERSION_NUM >= 503
#define nst_pushinteger(L, n) lua_pushinteger(L, (lua_Integer)(n))
#else
#define nst_pushinteger(L, n) lua_pushnumber(L, (lua_Number)(n))
#endif

#endif
