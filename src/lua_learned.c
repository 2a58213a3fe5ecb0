/*** What interfaces learn from servers and routers: DHCP and SLAAC. Whatever is told is copied before any table is
made: making one may run finalisers, and these may detach interfaces.
@submodule netstack.core */
#include <string.h>

#include "binding.h"
#include "device.h"
#include "dhcp.h"
#include "slaac.h"
#include "stack.h"

typedef struct start_order {
  nst_interface *interface;
  nst_error error;
} start_order;

static int start(lua_State *L, nst_interface *interface, void (*inside)(nst_stack *stack, void *argument)) {
  start_order order = {interface, NST_OK};
  if (!nst_inside(interface->stack, inside, &order)) return nst_lua_fail(L, NST_CLOSED);
  nst_lua_after(L, interface->stack);
  return nst_lua_result(L, order.error);
}

static void dhcp_inside(nst_stack *stack, void *argument) {
  start_order *order = argument;
  (void)stack;
  if (!nst_dhcp_start(order->interface)) order->error = NST_NO_MEMORY;
}

/*** Starts to ask for an address by DHCP.
@function interface:start_dhcp
@treturn integer|nil 1
@treturn string "not supported": its medium is no Ethernet */
int nst_lua_start_dhcp(lua_State *L) {
  nst_interface *interface = nst_lua_interface(L, "start_dhcp");
  if (interface == NULL) return nst_lua_fail(L, NST_CLOSED);
  if (!nst_interface_is_ethernet(interface)) return nst_lua_fail(L, NST_NOT_SUPPORTED);
  if (interface->dhcp) return nst_lua_success(L);
  return start(L, interface, dhcp_inside);
}

static void set_address(lua_State *L, const char *name, const nst_stack *stack, const ip_addr_t *address) {
  nst_lua_push_address(L, stack, address);
  lua_setfield(L, -2, name);
}

static void set_bytes(lua_State *L, const char *name, const nst_stack *stack, const uint8_t *bytes) {
  ip_addr_t address = IPADDR4_INIT(0);
  if (bytes[0] == 0) return;
  memcpy(&ip_2_ip4(&address)->addr, bytes, 4);
  set_address(L, name, stack, &address);
}

static void set_count(lua_State *L, const char *name, uint64_t count) {
  nst_pushinteger(L, count);
  lua_setfield(L, -2, name);
}

/* Seconds from now; nothing when it is for ever. */
static void set_left(lua_State *L, const char *name, const nst_stack *stack, nst_time until) {
  if (until == NST_NEVER) return;
  lua_pushnumber(L, until > stack->now ? nst_lua_seconds(until - stack->now) : 0);
  lua_setfield(L, -2, name);
}

typedef struct servers {
  ip_addr_t addresses[NST_DHCP_SERVERS + NST_SLAAC_SERVERS];
  size_t count;
} servers;

/* Either may be NULL. */
static servers servers_of(const nst_dhcp *dhcp, const nst_slaac *slaac) {
  servers all;
  size_t i;
  memset(&all, 0, sizeof all);
  for (i = 0; dhcp && i < dhcp->dns_count; i++) {
    memcpy(&ip_2_ip4(&all.addresses[all.count++])->addr, dhcp->dns[i], 4);
  }
  for (i = 0; slaac && i < slaac->server_count; i++) all.addresses[all.count++] = slaac->servers[i].address;
  return all;
}

static void push_servers(lua_State *L, const nst_stack *stack, const servers *all) {
  size_t i;
  lua_createtable(L, (int)all->count, 0);
  for (i = 0; i < all->count; i++) {
    nst_lua_push_address(L, stack, &all->addresses[i]);
    lua_rawseti(L, -2, (int)i + 1);
  }
}

/*** What DHCP has got.
@function interface:lease
@treturn table|nil {state, address, server, gateway, dns, expires, ignored}: RFC 2131's state in capitals; the rest once
there is a lease, `expires` in seconds from now, none for ever; `ignored`, messages that made no sense
@treturn string "not supported": no DHCP here */
int nst_lua_lease(lua_State *L) {
  nst_interface *interface = nst_lua_interface(L, "lease");
  nst_stack *stack;
  nst_dhcp dhcp;
  servers named;
  if (interface == NULL || !nst_lua_pin(L, interface->stack)) return nst_lua_fail(L, NST_CLOSED);
  if (interface->dhcp == NULL) return nst_lua_fail(L, NST_NOT_SUPPORTED);
  stack = interface->stack;
  dhcp = *interface->dhcp;
  named = servers_of(&dhcp, NULL);
  nst_stack_catch_up(stack);
  lua_createtable(L, 0, 7);
  lua_pushstring(L, nst_dhcp_state_name(&dhcp));
  lua_setfield(L, -2, "state");
  set_count(L, "ignored", dhcp.ignored);
  if (!dhcp.has_address) return 1;
  set_bytes(L, "address", stack, dhcp.offered);
  set_bytes(L, "server", stack, dhcp.server);
  set_bytes(L, "gateway", stack, dhcp.gateway);
  push_servers(L, stack, &named);
  lua_setfield(L, -2, "dns");
  set_left(L, "expires", stack, dhcp.ends_at);
  return 1;
}

static void slaac_inside(nst_stack *stack, void *argument) {
  start_order *order = argument;
  (void)stack;
  order->error = nst_slaac_start(order->interface);
}

/*** Starts to ask for routers, and to heed what they advertise. On another medium than an Ethernet it makes a
link-local address first.
@function interface:start_slaac
@treturn integer|nil 1
@treturn string "not supported": IPv6 needs an mtu of 1280 */
int nst_lua_start_slaac(lua_State *L) {
  nst_interface *interface = nst_lua_interface(L, "start_slaac");
  if (interface == NULL) return nst_lua_fail(L, NST_CLOSED);
  return start(L, interface, slaac_inside);
}

static void push_routers(lua_State *L, const nst_stack *stack, const nst_slaac *slaac) {
  size_t i;
  lua_createtable(L, (int)slaac->router_count, 0);
  for (i = 0; i < slaac->router_count; i++) {
    const nst_slaac_router *router = &slaac->routers[i];
    lua_createtable(L, 0, 3);
    set_address(L, "address", stack, &router->address);
    set_left(L, "expires", stack, router->until);
    lua_pushboolean(L, !router->unreachable);
    lua_setfield(L, -2, "reachable");
    lua_rawseti(L, -2, (int)i + 1);
  }
}

/* What is known of the prefix that an address was formed with. */
static void set_lifetimes(lua_State *L, const nst_stack *stack, const nst_slaac *slaac, const ip_addr_t *address) {
  size_t i;
  for (i = 0; i < slaac->prefix_count; i++) {
    const nst_slaac_prefix *prefix = &slaac->prefixes[i];
    if (!ip_addr_eq(&prefix->address, address)) continue;
    set_left(L, "preferred", stack, prefix->preferred_until);
    set_left(L, "expires", stack, prefix->valid_until);
  }
}

static void push_addresses(lua_State *L, const nst_stack *stack, const nst_interface *interface,
                           const nst_slaac *slaac) {
  size_t i;
  int count = 0;
  lua_newtable(L);
  for (i = 0; i < interface->address_count; i++) {
    if (interface->origins[i] != NST_ADDRESS_FORMED) continue;
    lua_createtable(L, 0, 3);
    set_address(L, "address", stack, &interface->addresses[i].address);
    set_lifetimes(L, stack, slaac, &interface->addresses[i].address);
    lua_rawseti(L, -2, ++count);
  }
}

/*** What SLAAC has got.
@function interface:slaac
@treturn table|nil {state, addresses, gateway, routers, dns, mtu, ignored, limited}: `state` is "SOLICITING" until there
is an address, then "BOUND"; addresses are {address, preferred, expires}, routers {address, expires, reachable}, times
in seconds from now, none for ever; `gateway` is the router that is used; `mtu` what one said; `ignored`,
advertisements and options that made no sense; `limited`, {routers, prefixes, dns} for which there was no room
@treturn string "not supported": no SLAAC here */
int nst_lua_slaac(lua_State *L) {
  nst_interface *interface = nst_lua_interface(L, "slaac");
  nst_stack *stack;
  nst_slaac slaac;
  servers named;
  if (interface == NULL || !nst_lua_pin(L, interface->stack)) return nst_lua_fail(L, NST_CLOSED);
  if (interface->slaac == NULL) return nst_lua_fail(L, NST_NOT_SUPPORTED);
  stack = interface->stack;
  slaac = *interface->slaac;
  named = servers_of(NULL, &slaac);
  nst_stack_catch_up(stack);
  lua_createtable(L, 0, 8);
  lua_pushstring(L, nst_slaac_has_address(interface) ? "BOUND" : "SOLICITING");
  lua_setfield(L, -2, "state");
  push_addresses(L, stack, interface, &slaac);
  lua_setfield(L, -2, "addresses");
  push_routers(L, stack, &slaac);
  lua_setfield(L, -2, "routers");
  if (!IP_IS_ANY_TYPE_VAL(slaac.gateway)) set_address(L, "gateway", stack, &slaac.gateway);
  push_servers(L, stack, &named);
  lua_setfield(L, -2, "dns");
  if (slaac.mtu > 0) set_count(L, "mtu", slaac.mtu);
  set_count(L, "ignored", slaac.ignored);
  lua_createtable(L, 0, 3);
  set_count(L, "routers", slaac.limited_routers);
  set_count(L, "prefixes", slaac.limited_prefixes);
  set_count(L, "dns", slaac.limited_servers);
  lua_setfield(L, -2, "limited");
  return 1;
}

/*** The DNS servers that DHCP and routers have named, of the first interface that knows any.
@function learned_dns
@tparam stack stack
@treturn {string,...}|nil nil: none
@treturn string "empty" */
int nst_lua_learned_dns(lua_State *L) {
  nst_stack *stack = nst_lua_check(L, 1, NST_CLASS_STACK, "learned_dns")->object;
  const nst_link *link;
  if (stack == NULL || !stack->open) return nst_lua_fail(L, NST_CLOSED);
  for (link = stack->interfaces.next; link != &stack->interfaces; link = link->next) {
    const nst_interface *interface = nst_holder(link, const nst_interface, link);
    servers named = servers_of(interface->dhcp, interface->slaac);
    if (named.count == 0) continue;
    push_servers(L, stack, &named);
    return 1;
  }
  return nst_lua_fail(L, NST_EMPTY);
}
