/* Options of UDP sockets that name a group or an interface, with LuaSocket's values and some more. */
#include <math.h>
#include <string.h>

#include "address.h"
#include "binding.h"
#include "lua_options.h"
#include "stack.h"
#include "udp.h"

/* What the value says. */
typedef struct membership {
  nst_udp *udp;
  ip_addr_t address;
  nst_interface *interface; /* NULL: by route */
  bool joins;
  nst_error error;
} membership;

/* The interface at a place, 1 the first that was attached. */
static nst_interface *numbered(const nst_stack *stack, double number) {
  nst_link *link;
  for (link = stack->interfaces.next; link != &stack->interfaces; link = link->next) {
    if (--number == 0) return nst_holder(link, nst_interface, link);
  }
  return NULL;
}

/* The one with an address, or of that name. */
static nst_interface *called(nst_stack *stack, const char *text) {
  ip_addr_t address;
  nst_link *link;
  if (nst_address_parse(stack, text, &address)) return nst_interface_with_address(stack, &address);
  for (link = stack->interfaces.next; link != &stack->interfaces; link = link->next) {
    nst_interface *interface = nst_holder(link, nst_interface, link);
    if (strcmp(interface->name, text) == 0) return interface;
  }
  return NULL;
}

/* LuaSocket names an interface of IPv4 by its address, of IPv6 by its number; "*", "0.0.0.0", "::", 0 and nil leave it
** to the route. Raises for other types. */
static nst_error read_interface(lua_State *L, int index, nst_stack *stack, nst_interface **interface) {
  *interface = NULL;
  if (lua_type(L, index) == LUA_TNUMBER) {
    double number = (double)lua_tonumber(L, index);
    if (!(number >= 0) || number != floor(number)) {
      nst_lua_argument_error(L, 2, "setoption", "an interface's number is an integer, 0 or more");
    }
    if (number == 0) return NST_OK;
    *interface = numbered(stack, number);
  } else if (lua_type(L, index) == LUA_TSTRING) {
    const char *text = lua_tostring(L, index);
    if (strcmp(text, "*") == 0 || strcmp(text, "0.0.0.0") == 0 || strcmp(text, "::") == 0) return NST_OK;
    *interface = called(stack, text);
  } else if (lua_isnoneornil(L, index)) {
    return NST_OK;
  } else {
    nst_lua_argument_error(L, 2, "setoption", "an interface is its name, address or number");
  }
  return *interface ? NST_OK : NST_NO_ROUTE;
}

static void change_inside(nst_stack *stack, void *argument) {
  membership *m = argument;
  (void)stack;
  m->error = (m->joins ? nst_group_join : nst_group_leave)(m->udp, m->interface, &m->address);
}

static nst_interface *of_zone(const nst_stack *stack, const ip_addr_t *address) {
  nst_link *link;
  for (link = stack->interfaces.next; link != &stack->interfaces; link = link->next) {
    nst_interface *interface = nst_holder(link, nst_interface, link);
    if (ip6_addr_test_zone(ip_2_ip6(address), &interface->netifs[0])) return interface;
  }
  return NULL;
}

/* {multiaddr =, interface =} */
static int set_membership(lua_State *L, nst_udp *udp, bool ipv6, bool joins) {
  const ip_addr_t *bound;
  membership m;
  nst_error error;
  memset(&m, 0, sizeof m);
  m.udp = udp;
  m.joins = joins;
  if (!lua_istable(L, 3)) nst_lua_argument_error(L, 2, "setoption", "table {multiaddr=, interface=} expected");
  lua_settop(L, 3);
  lua_getfield(L, 3, "multiaddr");
  lua_getfield(L, 3, "interface");
  if (lua_type(L, 4) != LUA_TSTRING) nst_lua_argument_error(L, 2, "setoption", "string 'multiaddr' field expected");
  if (udp == NULL || !udp->socket.open) return nst_lua_fail(L, NST_CLOSED);
  error = read_interface(L, 5, udp->socket.stack, &m.interface);
  if (!nst_address_parse(udp->socket.stack, lua_tostring(L, 4), &m.address) || !ip_addr_ismulticast(&m.address) ||
      (IP_IS_V6(&m.address) != 0) != ipv6) {
    return nst_lua_fail(L, NST_INVALID_ADDRESS);
  }
  if (error != NST_OK) return nst_lua_fail(L, error);
  bound = &udp->socket.binding.host;
  if (udp->pcb && !IP_IS_ANY_TYPE_VAL(*bound) && IP_GET_TYPE(bound) != IP_GET_TYPE(&m.address)) {
    return nst_lua_fail(L, NST_WRONG_IP_VERSION);
  }
  if (ipv6 && m.interface == NULL && ip6_addr_has_zone(ip_2_ip6(&m.address))) {
    m.interface = of_zone(udp->socket.stack, &m.address);
  }
  m.error = NST_CLOSED; /* what a body that is not run to its end says */
  (void)nst_lua_inside(L, &udp->socket, change_inside, &m);
  return nst_lua_result(L, m.error);
}

static int set_interface(lua_State *L, nst_udp *udp) {
  nst_interface *interface;
  nst_error error;
  if (lua_isnoneornil(L, 3)) nst_lua_argument_error(L, 2, "setoption", "an interface is its name, address or number");
  if (udp == NULL || !udp->socket.open) return nst_lua_fail(L, NST_CLOSED);
  error = read_interface(L, 3, udp->socket.stack, &interface);
  if (error == NST_OK) nst_udp_send_groups_through(udp, interface);
  return nst_lua_result(L, error);
}

/* Its first IPv4 address, as LuaSocket tells it; without one, its name. */
static int get_interface(lua_State *L, const nst_udp *udp) {
  const nst_interface *interface;
  size_t i;
  if (udp == NULL || !udp->socket.open) return nst_lua_fail(L, NST_CLOSED);
  interface = udp->group_interface;
  for (i = 0; interface && i < interface->address_count; i++) {
    if (IP_IS_V6(&interface->addresses[i].address)) continue;
    nst_lua_push_address(L, udp->socket.stack, &interface->addresses[i].address);
    return 1;
  }
  lua_pushstring(L, interface ? interface->name : "0.0.0.0");
  return 1;
}

static const char *const memberships[] = {"ip-add-membership", "ip-drop-membership", "ipv6-add-membership",
                                          "ipv6-drop-membership"};

/* The option's place among these, 4 for the interface, 5 for others. */
static int place_of(lua_State *L, const char *function) {
  const char *name = nst_lua_string(L, 1, NULL, function);
  int i;
  for (i = 0; i < 4; i++) {
    if (strcmp(name, memberships[i]) == 0) return i;
  }
  return strcmp(name, "ip-multicast-if") == 0 ? 4 : 5;
}

int nst_lua_set_group_option(lua_State *L, nst_udp *udp) {
  int place = place_of(L, "setoption");
  if (place < 4) return set_membership(L, udp, place >= 2, place % 2 == 0);
  return place == 4 ? set_interface(L, udp) : 0;
}

int nst_lua_get_group_option(lua_State *L, const nst_udp *udp) {
  int place = place_of(L, "getoption");
  if (place < 4) return nst_lua_argument_error(L, 1, "getoption", "memberships can only be set");
  return place == 4 ? get_interface(L, udp) : 0;
}
