/*** Masquerading as Lua sees it.
@submodule netstack.core */
#include <string.h>

#include "binding.h"
#include "bytes.h"
#include "nat.h"

/*** Gives the IPv4 packets of others that leave through the interface its own first IPv4 address, and ports of that; or
no longer does, and forgets all mappings.
@function interface:masquerade
@tparam boolean on
@treturn integer|nil 1
@treturn string "not supported": the stack is no router (`forwarding`) */
int nst_lua_masquerade(lua_State *L) {
  nst_interface *interface = nst_lua_interface(L, "masquerade");
  if (!lua_isboolean(L, 2)) return nst_lua_argument_error(L, 1, "masquerade", "boolean expected");
  if (interface == NULL) return nst_lua_fail(L, NST_CLOSED);
  if (lua_toboolean(L, 2)) return nst_lua_result(L, nst_nat_start(interface));
  nst_nat_stop(interface);
  return nst_lua_success(L);
}

static uint8_t read_protocol(lua_State *L, const char *function) {
  const char *name = nst_lua_string(L, 1, NULL, function);
  if (strcmp(name, "tcp") == 0) return NST_NAT_TCP;
  if (strcmp(name, "udp") != 0) nst_lua_argument_error(L, 1, function, "'tcp' or 'udp' expected");
  return NST_NAT_UDP;
}

/* Of a mapping: there is no port 0. */
static uint16_t read_port(lua_State *L, int n, const char *function) {
  (void)nst_lua_port(L, n, function); /* makes a number of a string */
  return (uint16_t)nst_lua_integer(L, n, 1, 65535, function);
}

/*** Lets everybody outside reach a host inside at a port of the interface's address.
@function interface:map
@tparam string protocol "tcp" or "udp"
@tparam integer port outside
@tparam string host inside
@tparam[opt] integer host_port the same port
@treturn integer|nil 1
@treturn string "address already in use" (the port, by a mapping or a socket of the stack, or the host's port by another
mapping), "address not available" (the interface has no IPv4 address), "invalid address", "wrong ip version", "full",
"not supported" (the interface does not masquerade) */
int nst_lua_map(lua_State *L) {
  nst_interface *interface = nst_lua_interface(L, "map");
  uint8_t protocol = read_protocol(L, "map");
  uint16_t port = read_port(L, 2, "map");
  nst_endpoint inside;
  ip_addr_t host;
  memset(&inside, 0, sizeof inside);
  inside.port = lua_isnoneornil(L, 5) ? port : read_port(L, 4, "map");
  (void)nst_lua_string(L, 3, NULL, "map");
  if (interface == NULL) return nst_lua_fail(L, NST_CLOSED);
  if (!nst_lua_address(L, 3, interface->stack, &host, "map") || IP_IS_ANY_TYPE_VAL(host)) {
    return nst_lua_fail(L, NST_INVALID_ADDRESS);
  }
  if (IP_IS_V6_VAL(host)) return nst_lua_fail(L, NST_WRONG_IP_VERSION);
  (void)nst_put_address(inside.host, &host);
  return nst_lua_result(L, nst_nat_map(interface, protocol, port, &inside));
}

/*** Takes a mapping of the user's away.
@function interface:unmap
@tparam string protocol "tcp" or "udp"
@tparam integer port outside
@treturn integer|nil 1
@treturn string "empty": there is none */
int nst_lua_unmap(lua_State *L) {
  nst_interface *interface = nst_lua_interface(L, "unmap");
  uint8_t protocol = read_protocol(L, "unmap");
  uint16_t port = read_port(L, 2, "unmap");
  if (interface == NULL) return nst_lua_fail(L, NST_CLOSED);
  return nst_lua_result(L, nst_nat_unmap(interface, protocol, port));
}

/* What is told of a mapping, gathered before any table is made: making one may run finalisers. */
typedef struct row {
  uint8_t protocol;
  bool fixed, in_force;
  nst_endpoint inside, outside;
  size_t sessions;
} row;

static void set_end(lua_State *L, const nst_stack *stack, const char *host_name, const char *port_name,
                    const nst_endpoint *end, bool with_host) {
  ip_addr_t address = IPADDR4_INIT(0);
  memcpy(&ip_2_ip4(&address)->addr, end->host, 4);
  if (with_host) {
    nst_lua_push_address(L, stack, &address);
    lua_setfield(L, -2, host_name);
  }
  lua_pushinteger(L, end->port);
  lua_setfield(L, -2, port_name);
}

static void push_row(lua_State *L, const nst_stack *stack, const row *r) {
  lua_createtable(L, 0, 7);
  lua_pushstring(L, r->protocol == NST_NAT_TCP ? "tcp" : r->protocol == NST_NAT_UDP ? "udp" : "icmp");
  lua_setfield(L, -2, "protocol");
  set_end(L, stack, "address", "port", &r->outside, r->in_force);
  set_end(L, stack, "host", "host_port", &r->inside, true);
  lua_pushboolean(L, r->fixed);
  lua_setfield(L, -2, "fixed");
  nst_pushinteger(L, r->sessions);
  lua_setfield(L, -2, "sessions");
}

static size_t count_of(const nst_nat *nat) {
  const nst_link *link;
  size_t count = 0;
  for (link = nat ? nat->mappings.next : NULL; link && link != &nat->mappings; link = link->next) count++;
  return count;
}

/* As many as there is room for; returns how many these were. */
static size_t gather(const nst_nat *nat, row *rows, size_t room) {
  const nst_link *link;
  size_t count = 0;
  for (link = nat ? nat->mappings.next : NULL; link && link != &nat->mappings && count < room; link = link->next) {
    const nst_mapping *mapping = nst_holder(link, const nst_mapping, link);
    row *r = &rows[count++];
    r->protocol = mapping->protocol;
    r->fixed = mapping->fixed;
    r->in_force = mapping->by_outside.linked;
    r->inside = mapping->inside;
    r->outside = mapping->outside;
    r->sessions = mapping->session_count;
  }
  return count;
}

/*** The mappings of an interface that masquerades, the oldest first.
@function interface:mappings
@treturn {table,...}|nil {protocol, address, port, host, host_port, fixed, sessions}: protocol "tcp", "udp" or "icmp",
whose ports are identifiers; `fixed` by `map`, then without sessions, and without an address while the interface has
none or a socket of the stack has that port */
int nst_lua_mappings(lua_State *L) {
  nst_interface *interface = nst_lua_interface(L, "mappings");
  size_t room, count, i;
  nst_stack *stack;
  row *rows;
  if (interface == NULL || !nst_lua_pin(L, interface->stack)) return nst_lua_fail(L, NST_CLOSED);
  stack = interface->stack;
  nst_stack_catch_up(stack);
  nst_nat_expire(stack);
  room = count_of(interface->nat);
  rows = lua_newuserdata(L, (room + 1) * sizeof *rows);
  count = gather(interface->nat, rows, room); /* there may be fewer by now */
  lua_createtable(L, (int)count, 0);
  for (i = 0; i < count; i++) {
    push_row(L, stack, &rows[i]);
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}
