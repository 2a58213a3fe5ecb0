/*** Interfaces and routes as Lua sees them.
@submodule netstack.core */
#include <stdio.h>
#include <string.h>

#include "address.h"
#include "binding.h"
#include "device.h"
#include "stack.h"

nst_interface *nst_lua_interface(lua_State *L, const char *function) {
  nst_interface *interface = nst_lua_check(L, 1, NST_CLASS_INTERFACE, function)->object;
  return interface && interface->stack ? interface : NULL;
}

static int collect(lua_State *L) {
  nst_box *box = nst_lua_test(L, 1, NST_CLASS_INTERFACE);
  nst_interface *interface = box ? box->object : NULL;
  if (interface == NULL) return 0;
  box->object = NULL;
  nst_interface_release(interface);
  return 0;
}

static int describe(lua_State *L) {
  nst_box *box = nst_lua_test(L, 1, NST_CLASS_INTERFACE);
  nst_interface *interface = box ? box->object : NULL;
  if (interface == NULL || interface->stack == NULL) lua_pushliteral(L, "interface (detached)");
  else lua_pushfstring(L, "interface %s of %s (%s)", interface->name, interface->stack->config.name,
                       interface->up ? "up" : "down");
  return 1;
}

typedef struct address_list {
  nst_interface *interface;
  nst_prefix prefixes[NST_ADDRESSES + 1];
  size_t count;
  nst_error error;
} address_list;

/* Reads the array at an index. More than fit is an error of the caller's to find. */
static nst_error read_prefixes(lua_State *L, int index, nst_stack *stack, address_list *list, const char *function) {
  size_t i, count;
  if (!lua_istable(L, index)) {
    nst_lua_argument_error(L, index - 1, function, "a list of addresses expected");
  }
  count = nst_rawlen(L, index);
  if (count > NST_ADDRESSES) return NST_FULL;
  for (i = 0; i < count; i++) {
    lua_rawgeti(L, index, (int)i + 1);
    if (lua_type(L, -1) != LUA_TSTRING) nst_lua_argument_error(L, index - 1, function, "addresses are strings");
    if (!nst_lua_prefix(L, -1, stack, &list->prefixes[i])) return NST_INVALID_ADDRESS;
    lua_pop(L, 1);
  }
  list->count = count;
  return NST_OK;
}

static void set_inside(nst_stack *stack, void *argument) {
  address_list *list = argument;
  (void)stack;
  list->error = nst_interface_set_addresses(list->interface, NST_ADDRESS_GIVEN, list->prefixes, list->count);
}

/*** Replaces all addresses but those that DHCP and SLAAC gave it.
@function interface:set_addresses
@tparam {string,...} list prefixes, "10.0.0.1/24"; a bare address means /32 or /128
@treturn integer|nil 1
@treturn string "invalid address", "full" (more than 8 of a family), "not supported" (IPv6 needs an mtu of 1280) */
static int set_addresses(lua_State *L) {
  nst_interface *interface = nst_lua_interface(L, "set_addresses");
  address_list list;
  if (interface == NULL) return nst_lua_fail(L, NST_CLOSED);
  memset(&list, 0, sizeof list);
  list.interface = interface;
  list.error = read_prefixes(L, 2, interface->stack, &list, "set_addresses");
  if (list.error != NST_OK) return nst_lua_fail(L, list.error);
  if (!nst_inside(interface->stack, set_inside, &list)) return nst_lua_fail(L, NST_CLOSED);
  if (interface->stack) nst_lua_after(L, interface->stack);
  return nst_lua_result(L, list.error);
}

/*** Its addresses, each with the length of its prefix.
@function interface:addresses
@treturn {string,...} prefixes */
static int addresses(lua_State *L) {
  nst_interface *interface = nst_lua_interface(L, "addresses");
  char text[NST_ADDRESS_LENGTH];
  size_t i;
  if (interface == NULL) return nst_lua_fail(L, NST_CLOSED);
  lua_createtable(L, (int)interface->address_count, 0);
  for (i = 0; i < interface->address_count; i++) {
    lua_pushstring(L, nst_prefix_format(interface->stack, &interface->addresses[i], text));
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

typedef struct up_down {
  nst_interface *interface;
  bool up;
} up_down;

static void up_inside(nst_stack *stack, void *argument) {
  up_down *change = argument;
  (void)stack;
  nst_interface_set_up(change->interface, change->up);
}

static int set_up(lua_State *L, const char *function, bool up) {
  up_down change;
  change.interface = nst_lua_interface(L, function);
  change.up = up;
  if (change.interface == NULL || !nst_inside(change.interface->stack, up_inside, &change)) {
    return nst_lua_fail(L, NST_CLOSED);
  }
  nst_lua_after(L, change.interface->stack);
  return nst_lua_success(L);
}

/*** Lets packets pass.
@function interface:up
@treturn integer|nil 1 */
static int up(lua_State *L) {
  return set_up(L, "up", true);
}

/*** Lets no packet pass, without detaching the device.
@function interface:down
@treturn integer|nil 1 */
static int down(lua_State *L) {
  return set_up(L, "down", false);
}

/*** Whether it is up.
@function interface:is_up
@treturn boolean */
static int is_up(lua_State *L) {
  nst_interface *interface = nst_lua_interface(L, "is_up");
  if (interface == NULL) return nst_lua_fail(L, NST_CLOSED);
  lua_pushboolean(L, interface->up);
  return 1;
}

/*** Its station's address on an Ethernet.
@function interface:mac
@treturn string|nil "02:00:00:00:00:01"
@treturn string "not supported": its medium has none */
static int mac(lua_State *L) {
  nst_interface *interface = nst_lua_interface(L, "mac");
  if (interface == NULL) return nst_lua_fail(L, NST_CLOSED);
  if (interface->device == NULL || interface->device->medium != NST_MEDIUM_ETHERNET) {
    return nst_lua_fail(L, NST_NOT_SUPPORTED);
  }
  nst_lua_push_station(L, interface->mac);
  return 1;
}

/*** The IPv6 address that it made for its link, on an Ethernet from its mac; not one of addresses().
@function interface:link_local
@treturn string|nil "fe80::ff:fe00:1%eth0"
@treturn string "not supported": on another medium without SLAAC, below an mtu of 1280, or when another station has
it */
static int link_local(lua_State *L) {
  nst_interface *interface = nst_lua_interface(L, "link_local");
  if (interface == NULL) return nst_lua_fail(L, NST_CLOSED);
  if (!interface->has_link_local) return nst_lua_fail(L, NST_NOT_SUPPORTED);
  nst_lua_push_address(L, interface->stack, &interface->link_local.address);
  return 1;
}

/*** Counters of the device and of what the interface dropped.
@function interface:stats
@treturn table rx_packets, rx_bytes, tx_packets, tx_bytes, rx_dropped, tx_dropped, waiting, and guarded: what the
guard dropped of rx_dropped, by cause */
static int stats(lua_State *L) {
  nst_interface *interface = nst_lua_interface(L, "stats");
  const nst_link *link;
  int cause;
  lua_Integer waiting = 0;
  if (interface == NULL) return nst_lua_fail(L, NST_CLOSED);
  for (link = interface->egress.next; link != &interface->egress; link = link->next) waiting++;
  lua_createtable(L, 0, 8);
  if (interface->device) {
    nst_device_counters counters = interface->device->counters; /* finalisers may detach the device */
    nst_pushinteger(L, counters.rx_packets);
    lua_setfield(L, -2, "rx_packets");
    nst_pushinteger(L, counters.rx_bytes);
    lua_setfield(L, -2, "rx_bytes");
    nst_pushinteger(L, counters.tx_packets);
    lua_setfield(L, -2, "tx_packets");
    nst_pushinteger(L, counters.tx_bytes);
    lua_setfield(L, -2, "tx_bytes");
  }
  nst_pushinteger(L, interface->dropped_in);
  lua_setfield(L, -2, "rx_dropped");
  nst_pushinteger(L, interface->dropped_out);
  lua_setfield(L, -2, "tx_dropped");
  lua_newtable(L);
  for (cause = NST_GUARD_PASS + 1; cause < NST_GUARD_CAUSE_COUNT; cause++) {
    if (interface->guarded[cause] == 0) continue;
    nst_pushinteger(L, interface->guarded[cause]);
    lua_setfield(L, -2, nst_guard_text((nst_guard_cause)cause));
  }
  lua_setfield(L, -2, "guarded");
  lua_pushinteger(L, waiting);
  lua_setfield(L, -2, "waiting");
  return 1;
}

/*** Takes the interface off its stack; the device stays open.
@function interface:detach
@treturn integer 1 */
static int detach(lua_State *L) {
  nst_interface *interface = nst_lua_interface(L, "detach");
  nst_stack *stack;
  unsigned device;
  if (interface == NULL) return nst_lua_fail(L, NST_CLOSED);
  stack = interface->stack;
  device = interface->device ? interface->device->id : 0;
  nst_interface_detach(interface);
  nst_lua_recall(L, stack->id); /* the stack no longer keeps the device, nor the device the stack */
  if (!lua_isnil(L, -1)) nst_lua_leave_device(L, lua_gettop(L), device);
  nst_lua_after(L, stack);
  return nst_lua_success(L);
}

typedef struct attachment {
  nst_device *device;
  const char *name;
  const uint8_t *mac; /* NULL: any */
  nst_interface *interface;
} attachment;

static void attach_inside(nst_stack *stack, void *argument) {
  attachment *order = argument;
  order->interface = nst_interface_attach(stack, order->device, order->name, order->mac);
}

static const nst_interface *find_named(const nst_stack *stack, const char *name) {
  const nst_link *link;
  for (link = stack->interfaces.next; link != &stack->interfaces; link = link->next) {
    const nst_interface *interface = nst_holder(link, const nst_interface, link);
    if (strcmp(interface->name, name) == 0) return interface;
  }
  return NULL;
}

/*** Joins a device to a stack.
@function attach
@tparam stack stack
@tparam device device
@tparam string|nil name nil: the first free of "eth0", "eth1", ...
@tparam[opt] string mac six bytes; only on Ethernet
@treturn interface|nil
@treturn string "address already in use" (the device is attached, or the name taken), "full", "closed", "not supported"
(a mac, and the device is no Ethernet) */
static int attach(lua_State *L) {
  nst_box *stack_box = nst_lua_check(L, 1, NST_CLASS_STACK, "attach");
  nst_box *device_box, *box;
  nst_stack *stack = stack_box->object;
  attachment order;
  char free_name[16];
  unsigned number = 0;
  device_box = nst_lua_check(L, 2, NST_CLASS_DEVICE, "attach");
  memset(&order, 0, sizeof order);
  order.device = device_box->object;
  order.name = lua_tostring(L, 3);
  if (stack == NULL || !stack->open || order.device == NULL || !order.device->open) return nst_lua_fail(L, NST_CLOSED);
  if (order.device->user) return nst_lua_fail(L, NST_ADDRESS_IN_USE);
  order.mac = (const uint8_t *)lua_tostring(L, 4);
  if (order.mac && order.device->medium != NST_MEDIUM_ETHERNET) return nst_lua_fail(L, NST_NOT_SUPPORTED);
  if (stack->netif_count >= NST_NETIFS) return nst_lua_fail(L, NST_FULL);
  if (order.name == NULL) {
    order.name = free_name;
    do snprintf(free_name, sizeof free_name, "eth%u", number++);
    while (find_named(stack, free_name));
  } else if (find_named(stack, order.name)) {
    return nst_lua_fail(L, NST_ADDRESS_IN_USE);
  }
  box = nst_lua_box(L, NST_CLASS_INTERFACE);
  if (!nst_inside(stack, attach_inside, &order)) return nst_lua_fail(L, NST_CLOSED);
  if (order.interface == NULL) return nst_lua_fail(L, NST_NO_MEMORY);
  box->object = nst_interface_retain(order.interface);
  nst_lua_keep_device(L, 1, 2, order.device->id);
  nst_lua_after(L, stack);
  return 1;
}

/*** Adds a route, or replaces that of an equal prefix.
@function add_route
@tparam stack stack
@tparam string prefix
@tparam string|interface via a gateway's address, or an interface
@treturn integer|nil 1
@treturn string "invalid address", "no route", "wrong ip version" */
static int add_route(lua_State *L) {
  nst_stack *stack = nst_lua_check(L, 1, NST_CLASS_STACK, "add_route")->object;
  nst_box *box = nst_lua_test(L, 3, NST_CLASS_INTERFACE);
  nst_interface *interface = box ? box->object : NULL;
  ip_addr_t gateway;
  nst_prefix prefix;
  (void)nst_lua_string(L, 1, NULL, "add_route");
  if (box == NULL && lua_type(L, 3) != LUA_TSTRING) {
    return nst_lua_argument_error(L, 2, "add_route", "a gateway's address or an interface expected");
  }
  if (stack == NULL || !stack->open) return nst_lua_fail(L, NST_CLOSED);
  if (!nst_lua_prefix(L, 2, stack, &prefix)) return nst_lua_fail(L, NST_INVALID_ADDRESS);
  if (box) {
    if (interface == NULL || interface->stack != stack) return nst_lua_fail(L, NST_NO_ROUTE);
    return nst_lua_result(L, nst_route_add(stack, &prefix, interface, NULL, NST_ROUTE_STATIC));
  }
  if (!nst_lua_address(L, 2, stack, &gateway, "add_route") || IP_IS_ANY_TYPE_VAL(gateway)) {
    return nst_lua_fail(L, NST_INVALID_ADDRESS);
  }
  if (IP_GET_TYPE(&gateway) != IP_GET_TYPE(&prefix.address)) return nst_lua_fail(L, NST_WRONG_IP_VERSION);
  return nst_lua_result(L, nst_route_add(stack, &prefix, NULL, &gateway, NST_ROUTE_STATIC));
}

/*** Takes a route away.
@function remove_route
@tparam stack stack
@tparam string prefix
@treturn integer|nil 1
@treturn string "no route": there was none */
static int remove_route(lua_State *L) {
  nst_stack *stack = nst_lua_check(L, 1, NST_CLASS_STACK, "remove_route")->object;
  nst_route *route;
  nst_prefix prefix;
  (void)nst_lua_string(L, 1, NULL, "remove_route");
  if (stack == NULL || !stack->open) return nst_lua_fail(L, NST_CLOSED);
  if (!nst_lua_prefix(L, 2, stack, &prefix)) return nst_lua_fail(L, NST_INVALID_ADDRESS);
  route = nst_route_to(stack, &prefix);
  if (route) nst_route_remove(stack, route);
  return nst_lua_result(L, route ? NST_OK : NST_NO_ROUTE);
}

/* What `routes` tells of one, gathered before any table is made: making one may run finalisers, and these may take
** routes away. */
typedef struct route_row {
  nst_prefix to;
  ip_addr_t gateway;
  char interface[sizeof ((nst_interface *)NULL)->name];
} route_row;

static void push_route(lua_State *L, const nst_stack *stack, const route_row *row) {
  char text[NST_ADDRESS_LENGTH];
  lua_createtable(L, 0, 3);
  lua_pushstring(L, nst_prefix_format(stack, &row->to, text));
  lua_setfield(L, -2, "prefix");
  lua_pushstring(L, row->interface);
  lua_setfield(L, -2, "interface");
  if (IP_IS_ANY_TYPE_VAL(row->gateway)) return;
  nst_lua_push_address(L, stack, &row->gateway);
  lua_setfield(L, -2, "gateway");
}

/*** The routes of a stack.
@function routes
@tparam stack stack
@treturn {table,...} {prefix, interface, gateway}, the longest prefix first */
static int routes(lua_State *L) {
  nst_stack *stack = nst_lua_check(L, 1, NST_CLASS_STACK, "routes")->object;
  const nst_link *link;
  route_row *rows;
  size_t room, count = 0, i;
  if (stack == NULL || !stack->open) return nst_lua_fail(L, NST_CLOSED);
  room = stack->routes.table.count;
  rows = lua_newuserdata(L, (room + 1) * sizeof *rows);
  for (link = stack->routes.all.next; link != &stack->routes.all && count < room; link = link->next) {
    const nst_route *route = nst_holder(link, const nst_route, link);
    route_row *row = &rows[count++];
    row->to = route->to;
    row->gateway = route->gateway;
    memcpy(row->interface, route->interface->name, sizeof row->interface);
  }
  lua_createtable(L, (int)count, 0);
  for (i = 0; i < count; i++) {
    push_route(L, stack, &rows[i]);
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

static void drop_gateway(nst_interface *interface, const ip_addr_t *family) {
  nst_prefix everywhere = {*family, 0};
  nst_route_drop(interface->stack, &everywhere, interface, NST_ROUTE_GATEWAY);
}

/*** Sets the default gateway of the address's family on the interface; nil takes both away. Of several interfaces with
gateways the one that got its first is used, unless it is down.
@function interface:set_gateway
@tparam string|nil address
@treturn integer|nil 1
@treturn string "invalid address", "no route" (the address is on no prefix of the interface), "closed" */
static int set_gateway(lua_State *L) {
  static const ip_addr_t everywhere4 = IPADDR4_INIT(0), everywhere6 = IPADDR6_INIT(0, 0, 0, 0);
  nst_interface *interface = nst_lua_interface(L, "set_gateway");
  ip_addr_t gateway;
  nst_prefix to;
  if (!lua_isnoneornil(L, 2) && lua_type(L, 2) != LUA_TSTRING) {
    return nst_lua_argument_error(L, 1, "set_gateway",
                                  lua_pushfstring(L, "string or nil expected, got %s", luaL_typename(L, 2)));
  }
  if (interface == NULL) return nst_lua_fail(L, NST_CLOSED);
  if (lua_isnoneornil(L, 2)) {
    drop_gateway(interface, &everywhere4);
    drop_gateway(interface, &everywhere6);
    return nst_lua_success(L);
  }
  if (!nst_lua_address(L, 1, interface->stack, &gateway, "set_gateway") || IP_IS_ANY_TYPE_VAL(gateway)) {
    return nst_lua_fail(L, NST_INVALID_ADDRESS);
  }
  to.address = IP_IS_V6(&gateway) ? everywhere6 : everywhere4;
  to.bits = 0;
  return nst_lua_result(L, nst_route_add(interface->stack, &to, interface, &gateway, NST_ROUTE_GATEWAY));
}

void nst_lua_open_interface(lua_State *L) {
  static const luaL_Reg methods[] = {
    {"set_addresses", set_addresses}, {"addresses", addresses}, {"set_gateway", set_gateway}, {"up", up},
    {"down", down}, {"is_up", is_up},
    {"mac", mac}, {"link_local", link_local}, {"start_dhcp", nst_lua_start_dhcp}, {"lease", nst_lua_lease},
    {"start_slaac", nst_lua_start_slaac}, {"slaac", nst_lua_slaac},
    {"masquerade", nst_lua_masquerade}, {"map", nst_lua_map}, {"unmap", nst_lua_unmap}, {"mappings", nst_lua_mappings},
    {"stats", stats}, {"detach", detach}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"attach", attach}, {"add_route", add_route}, {"remove_route", remove_route},
                                       {"routes", routes},
                                       {"learned_dns", nst_lua_learned_dns}, {NULL, NULL}};
  nst_lua_class(L, NST_CLASS_INTERFACE, "netstack.interface", methods, collect, describe);
  nst_lua_functions(L, functions);
}
