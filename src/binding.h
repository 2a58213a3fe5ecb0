/*
** How C objects look to Lua. Each is a userdata that holds one pointer; it is created empty (closed), gets its
** metatable, and only then the object, so that a collection at any moment is harmless. Every C function of the module
** has the binding as its first upvalue.
*/
#ifndef NST_BINDING_H
#define NST_BINDING_H

#include "compat.h"
#include "errors.h"
#include "hub.h"
#include "interface.h"
#include "link.h"
#include "socket.h"
#include "stack.h"

typedef enum nst_class {
  NST_CLASS_STACK, NST_CLASS_INTERFACE, NST_CLASS_DEVICE, NST_CLASS_CHANNEL, NST_CLASS_TICKET,
  NST_CLASS_TCP, NST_CLASS_UDP, NST_CLASS_RAW, NST_CLASS_LINK, NST_CLASS_FILTER, NST_CLASS_SWITCH, NST_CLASS_COUNT
} nst_class;

typedef struct nst_box {
  const void *tag; /* the class, in this Lua state */
  void *object;    /* NULL: closed */
} nst_box;

/* The binding's own userdata closes last, with the Lua state. */
nst_hub *nst_lua_hub(lua_State *L);

/* Makes a class: its metatable with __index (the methods), __gc, __close and __tostring. [-0, +0] */
void nst_lua_class(lua_State *L, nst_class class, const char *name, const luaL_Reg *methods, lua_CFunction collect,
                   lua_CFunction describe);
/* Adds functions to the table on the top, each with the binding as upvalue. [-0, +0] */
void nst_lua_functions(lua_State *L, const luaL_Reg *functions);
/* Pushes an empty box of the class. [-0, +1] */
nst_box *nst_lua_box(lua_State *L, nst_class class);
/* What the boxes of a class bear in this Lua state. */
const void *nst_lua_tag(lua_State *L, nst_class class);
/* The box at an index, or NULL when it is something else. */
nst_box *nst_lua_test(lua_State *L, int index, nst_class class);
/* The same; raises "bad argument" in the name of the function that Lua calls. */
nst_box *nst_lua_check(lua_State *L, int index, nst_class class, const char *function);

/* Tells how the chunk names of our own Lua files begin. */
void nst_lua_library(lua_State *L, const char *prefix);
/* Pushes "file:line: " of the line that called us, the Lua layer not counted. [-0, +1] */
void nst_lua_where(lua_State *L);
/* Raises "bad argument #n to 'function' (why)" at the place where the user called us; n does not count self. */
int nst_lua_argument_error(lua_State *L, int n, const char *function, const char *why);
/* nil, err. [-0, +2] */
int nst_lua_fail(lua_State *L, nst_error error);
/* 1. [-0, +1] */
int nst_lua_success(lua_State *L);
/* 1, or nil, err. */
int nst_lua_result(lua_State *L, nst_error error);

/* Arguments; `n` is the position without self, the value lies at n + 1. They raise when it is of the wrong type. */
const char *nst_lua_string(lua_State *L, int n, size_t *length, const char *function);
double nst_lua_number(lua_State *L, int n, const char *function);
/* An integral number in a range. */
double nst_lua_integer(lua_State *L, int n, double least, double most, const char *function);
uint16_t nst_lua_port(lua_State *L, int n, const char *function);
/* false: the text is no address (which is an error that is returned, not raised). */
bool nst_lua_address(lua_State *L, int n, nst_stack *stack, ip_addr_t *address, const char *function);

/* The string at an index as a prefix; false: it is none. */
bool nst_lua_prefix(lua_State *L, int index, nst_stack *stack, nst_prefix *prefix);

void nst_lua_push_address(lua_State *L, const nst_stack *stack, const ip_addr_t *address);
/* "02:00:00:00:00:01" of six bytes. */
void nst_lua_push_station(lua_State *L, const uint8_t *address);
nst_time nst_lua_time(double seconds);
double nst_lua_seconds(nst_time time);

/* After anything that may have given a stack work or set its timers: tells the hub and the on_wake functions. */
void nst_lua_after(lua_State *L, nst_stack *stack);
/* The bell's part of that. */
void nst_lua_heed(lua_State *L);
/* Has the function at index n called by it; nil or none: no longer. [-0, +0] */
void nst_lua_bell(lua_State *L, int n);
/* Runs the body inside the socket's stack, commands that were queued before it first. false: the stack is closed. */
bool nst_lua_inside(lua_State *L, nst_socket *socket, void (*body)(nst_stack *stack, void *argument), void *argument);
/* Commands that were queued before a look at the socket. */
void nst_lua_catch_up(nst_socket *socket);
/* Hands out what Lua's devices sent and what was traced; true when there was any. May raise what they raise. */
bool nst_lua_flush(lua_State *L);
/* Pushes the stack's object, so that the collector cannot end the stack before this call returns: sockets do not keep
** it alive, and anything that allocates may run finalisers. false: it is ending already. [-0, +1] */
bool nst_lua_pin(lua_State *L, const nst_stack *stack);
/* Objects that C must find again: id -> object, weakly. The object lies on the top. [-0, +0] */
void nst_lua_remember(lua_State *L, unsigned id);
/* Pushes it, or nil. [-0, +1] */
void nst_lua_recall(lua_State *L, unsigned id);

/* The socket's handle; takes over one reference, and the duty to close. [-0, +1] */
void nst_lua_push_socket(lua_State *L, nst_socket *socket);
/* The socket of a handle of any protocol, NULL when it is no handle. */
nst_socket *nst_lua_test_socket(lua_State *L, int index);
void nst_lua_push_ticket(lua_State *L, nst_request *request);

/* Pushes an empty device object with a table for what it keeps alive. [-0, +1] */
nst_box *nst_lua_device_box(lua_State *L);
/* Tells a link's trace function of the oldest packet in hub->crossed. */
void nst_lua_flush_crossing(lua_State *L);
/* The object and the device that is attached to it keep each other, until the object leaves the device, or all that it
** has. `number` is the device's among the object's. [-0, +0] */
void nst_lua_keep_device(lua_State *L, int object, int device, unsigned number);
void nst_lua_leave_device(lua_State *L, int object, unsigned number);
void nst_lua_leave_devices(lua_State *L, int object);
/* The interface of a method's first argument; NULL: it was detached. */
nst_interface *nst_lua_interface(lua_State *L, const char *function);
/* Methods of interfaces about what they learn from others, and a function of stacks (lua_learned.c). */
int nst_lua_start_dhcp(lua_State *L);
int nst_lua_lease(lua_State *L);
int nst_lua_start_slaac(lua_State *L);
int nst_lua_slaac(lua_State *L);
int nst_lua_learned_dns(lua_State *L);
/* Methods of interfaces that masquerade (lua_nat.c). */
int nst_lua_masquerade(lua_State *L);
int nst_lua_map(lua_State *L);
int nst_lua_unmap(lua_State *L);
int nst_lua_mappings(lua_State *L);
/* Methods of stacks that only tell (lua_stats.c). */
int nst_lua_stats(lua_State *L);
int nst_lua_sockets(lua_State *L);

/* Each file's part of the module: makes its classes and adds its functions to the module's table on the top. */
void nst_lua_open_stack(lua_State *L);
void nst_lua_open_interface(lua_State *L);
void nst_lua_open_device(lua_State *L);
void nst_lua_open_link(lua_State *L);
void nst_lua_open_switch(lua_State *L);
void nst_lua_open_channel(lua_State *L);
void nst_lua_open_tcp(lua_State *L);
void nst_lua_open_datagram(lua_State *L);
void nst_lua_open_direct(lua_State *L);

#endif
