/*** Pipes and devices as Lua sees them.
@submodule netstack.core */
#include <string.h>

#include "binding.h"
#include "descriptors.h"
#include "device.h"
#include "operations.h"
#include "request.h"
#include "tun_open.h"

static nst_device *check_device(lua_State *L, const char *function) {
  return nst_lua_check(L, 1, NST_CLASS_DEVICE, function)->object;
}

static int collect(lua_State *L) {
  nst_box *box = nst_lua_test(L, 1, NST_CLASS_DEVICE);
  nst_device *device = box ? box->object : NULL;
  if (device == NULL) return 0;
  box->object = NULL;
  nst_device_close(device);
  nst_device_release(device);
  return 0;
}

static int describe(lua_State *L) {
  nst_box *box = nst_lua_test(L, 1, NST_CLASS_DEVICE);
  nst_device *device = box ? box->object : NULL;
  const char *name = device ? nst_tun_name(device) : NULL;
  if (device == NULL) lua_pushliteral(L, "device (closed)");
  if (device == NULL) return 1;
  if (name) lua_pushfstring(L, "%s %s", device->medium == NST_MEDIUM_IP ? "tun" : "tap", name);
  else lua_pushfstring(L, "%s %d", device->kind->name, (int)device->id);
  lua_pushfstring(L, " (mtu %d%s%s)", (int)device->mtu, device->user ? ", attached" : "",
                  device->gone ? ", gone" : "");
  lua_concat(L, 2);
  return 1;
}

nst_box *nst_lua_device_box(lua_State *L) {
  nst_box *box = nst_lua_box(L, NST_CLASS_DEVICE);
  lua_newtable(L);
  nst_setuservalue(L, -2);
  return box;
}

/* Pushes the object's devices by number; nil: there are none. */
static void push_devices(lua_State *L, int object) {
  nst_getuservalue(L, object);
  lua_getfield(L, -1, "devices");
  lua_remove(L, -2);
}

/* Of the device on the top. */
static void set_user(lua_State *L, int object) {
  nst_getuservalue(L, -1);
  if (object) lua_pushvalue(L, object);
  else lua_pushnil(L);
  lua_setfield(L, -2, "user");
  lua_pop(L, 1);
}

void nst_lua_keep_device(lua_State *L, int object, int device, unsigned number) {
  push_devices(L, object);
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    nst_getuservalue(L, object);
    lua_newtable(L);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "devices");
    lua_remove(L, -2);
  }
  lua_pushvalue(L, device);
  set_user(L, object);
  lua_rawseti(L, -2, (int)number);
  lua_pop(L, 1);
}

void nst_lua_leave_device(lua_State *L, int object, unsigned number) {
  push_devices(L, object);
  if (lua_istable(L, -1)) {
    lua_rawgeti(L, -1, (int)number);
    if (lua_isuserdata(L, -1)) set_user(L, 0);
    lua_pop(L, 1);
    lua_pushnil(L);
    lua_rawseti(L, -2, (int)number);
  }
  lua_pop(L, 1);
}

void nst_lua_leave_devices(lua_State *L, int object) {
  push_devices(L, object);
  if (lua_istable(L, -1)) {
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) set_user(L, 0);
  }
  lua_pop(L, 1);
  nst_getuservalue(L, object);
  lua_pushnil(L);
  lua_setfield(L, -2, "devices");
  lua_pop(L, 1);
}

/*** Closes the device; a stack or a switch attached to it goes on without.
@function device:close
@treturn integer 1; harmless twice */
static int close_device(lua_State *L) {
  (void)check_device(L, "close");
  collect(L);
  nst_lua_after(L, NULL);
  return nst_lua_success(L);
}

/*** The largest IP packet it carries; a frame's header of 14 bytes comes on top.
@function device:mtu
@treturn integer bytes */
static int mtu(lua_State *L) {
  nst_device *device = check_device(L, "mtu");
  if (device == NULL) return nst_lua_fail(L, NST_CLOSED);
  lua_pushinteger(L, device->mtu);
  return 1;
}

/*** What its packets are.
@function device:medium
@treturn string "ip" or "ethernet" */
static int medium(lua_State *L) {
  nst_device *device = check_device(L, "medium");
  if (device == NULL) return nst_lua_fail(L, NST_CLOSED);
  lua_pushstring(L, device->medium == NST_MEDIUM_IP ? "ip" : "ethernet");
  return 1;
}

static void set_count(lua_State *L, const char *name, uint64_t count) {
  nst_pushinteger(L, count);
  lua_setfield(L, -2, name);
}

/*** Counters.
@function device:stats
@treturn table rx_packets, rx_bytes, tx_packets, tx_bytes, rx_dropped, tx_dropped, as the attached side sees them; of a
device with a file descriptor also syscalls */
static int stats(lua_State *L) {
  nst_device *device = check_device(L, "stats");
  if (device == NULL) return nst_lua_fail(L, NST_CLOSED);
  lua_createtable(L, 0, 6);
  set_count(L, "rx_packets", device->counters.rx_packets);
  set_count(L, "rx_bytes", device->counters.rx_bytes);
  set_count(L, "tx_packets", device->counters.tx_packets);
  set_count(L, "tx_bytes", device->counters.tx_bytes);
  set_count(L, "rx_dropped", device->counters.rx_dropped);
  set_count(L, "tx_dropped", device->counters.tx_dropped);
  if (device->fd >= 0) set_count(L, "syscalls", device->counters.syscalls);
  return 1;
}

/*** The file descriptor of a device on the host's kernel; it stays the device's.
@function device:fd
@treturn integer|nil
@treturn string "not supported": a device of another kind, "closed" */
static int fd(lua_State *L) {
  nst_device *device = check_device(L, "fd");
  if (device == NULL) return nst_lua_fail(L, NST_CLOSED);
  if (device->fd < 0) return nst_lua_fail(L, NST_NOT_SUPPORTED);
  lua_pushinteger(L, device->fd);
  return 1;
}

/*** What the kernel called the interface at its other end.
@function device:name
@treturn string|nil
@treturn string "not supported": a device of another kind, or on a socket, "closed" */
static int name(lua_State *L) {
  nst_device *device = check_device(L, "name");
  if (device == NULL) return nst_lua_fail(L, NST_CLOSED);
  if (nst_tun_name(device) == NULL) return nst_lua_fail(L, NST_NOT_SUPPORTED);
  lua_pushstring(L, nst_tun_name(device));
  return 1;
}

/*** Puts a packet into an unattached device, without waiting.
@function device:try_send
@tparam string packet
@treturn integer|nil 1
@treturn string "full", "closed", "message too long", "address already in use" while it is attached, "not supported" by a
device in Lua */
static int try_send(lua_State *L) {
  nst_device *device = check_device(L, "send");
  size_t length;
  const char *data = nst_lua_string(L, 1, &length, "send");
  nst_packet *packet;
  nst_error error;
  if (length == 0) return nst_lua_argument_error(L, 1, "send", "empty packet");
  if (device == NULL || !device->open) return nst_lua_fail(L, NST_CLOSED);
  if (nst_is_callback_device(device)) return nst_lua_fail(L, NST_NOT_SUPPORTED); /* input is its way in */
  if (device->user) return nst_lua_fail(L, NST_ADDRESS_IN_USE);
  if (length > device->mtu + nst_device_link(device)) {
    return nst_lua_fail(L, NST_MESSAGE_TOO_LONG);
  }
  if (!nst_device_has_room(device)) nst_descriptors_look(device);
  if (device->gone) return nst_lua_fail(L, NST_CLOSED);
  if (!nst_device_has_room(device)) return nst_lua_fail(L, NST_FULL);
  packet = nst_packet_copy(device->hub, data, length, nst_device_link(device));
  if (packet == NULL) return nst_lua_fail(L, NST_NO_MEMORY);
  error = nst_device_transmit(device, packet);
  nst_descriptors_flush(device->hub);
  if (error != NST_OK) nst_packet_free(packet);
  nst_lua_after(L, NULL);
  return nst_lua_result(L, error);
}

/*** Takes a packet out of an unattached device, without waiting.
@function device:try_receive
@treturn string|nil packet
@treturn string "empty", "closed", "address already in use" while it is attached */
static int try_receive(lua_State *L) {
  nst_device *device = check_device(L, "receive");
  nst_packet *packet;
  if (device == NULL || !device->open) return nst_lua_fail(L, NST_CLOSED);
  if (nst_is_callback_device(device)) return nst_lua_fail(L, NST_NOT_SUPPORTED); /* transmit gets its packets */
  if (device->user) return nst_lua_fail(L, NST_ADDRESS_IN_USE);
  if (!nst_device_has_packet(device)) nst_descriptors_look(device);
  packet = nst_device_receive(device);
  if (packet == NULL) return nst_lua_fail(L, nst_device_is_cut(device) ? NST_CLOSED : NST_EMPTY);
  lua_pushlstring(L, (const char *)packet->data, packet->length);
  nst_packet_free(packet);
  nst_lua_after(L, NULL);
  return 1;
}

/*** Whether a packet could be received.
@function device:rx_ready
@treturn boolean */
static int rx_ready(lua_State *L) {
  nst_device *device = check_device(L, "rx_ready");
  if (device == NULL) return nst_lua_fail(L, NST_CLOSED);
  nst_descriptors_look(device);
  lua_pushboolean(L, nst_device_has_packet(device));
  return 1;
}

/*** Whether a packet could be sent.
@function device:tx_ready
@treturn boolean */
static int tx_ready(lua_State *L) {
  nst_device *device = check_device(L, "tx_ready");
  if (device == NULL) return nst_lua_fail(L, NST_CLOSED);
  nst_descriptors_look(device);
  lua_pushboolean(L, nst_device_has_room(device));
  return 1;
}

/*** Gives a packet to the stack or switch that a Lua device is attached to.
@function device:input
@tparam string packet
@treturn integer|nil 1
@treturn string "closed", "message too long" */
static int input(lua_State *L) {
  nst_device *device = check_device(L, "input");
  size_t length;
  const char *data = nst_lua_string(L, 1, &length, "input");
  nst_packet *packet;
  nst_error error;
  if (length == 0) return nst_lua_argument_error(L, 1, "input", "empty packet");
  if (device == NULL || !device->open) return nst_lua_fail(L, NST_CLOSED);
  if (!nst_is_callback_device(device)) return nst_lua_fail(L, NST_NOT_SUPPORTED);
  if (length > device->mtu + nst_device_link(device)) {
    return nst_lua_fail(L, NST_MESSAGE_TOO_LONG);
  }
  packet = nst_packet_copy(device->hub, data, length, nst_device_link(device));
  if (packet == NULL) return nst_lua_fail(L, NST_NO_MEMORY);
  error = nst_callback_device_input(device, packet);
  nst_lua_after(L, NULL);
  return nst_lua_result(L, error);
}

/*** A ticket that is answered when an unattached end has a packet ("read") or room ("write").
@function device:wait_ticket
@tparam string side
@treturn ticket|nil
@treturn string "closed", "no memory" */
static int wait_ticket(lua_State *L) {
  nst_device *device = check_device(L, "wait_ticket");
  bool read = nst_lua_string(L, 1, NULL, "wait_ticket")[0] == 'r';
  nst_request *request;
  if (device == NULL) return nst_lua_fail(L, NST_CLOSED);
  request = nst_request_new(device->hub, NULL, read ? nst_attempt_device_readable : nst_attempt_device_writable);
  if (request == NULL) return nst_lua_fail(L, NST_NO_MEMORY);
  request->device = nst_device_retain(device);
  request->consumes = true;
  nst_lua_push_ticket(L, request);
  return 1;
}

/*** Two connected pipe ends.
@function pipe
@tparam integer mtu 0: that of the first stack it is attached to
@tparam string medium
@tparam integer capacity packets, 0: unbounded
@tparam boolean checksum
@treturn device|nil
@treturn device|string the other end, or "no memory" */
static int pipe_new(lua_State *L) {
  nst_device *ends[2];
  nst_box *a, *b;
  uint16_t size = (uint16_t)nst_lua_integer(L, 0, 0, 65535, "pipe");
  nst_medium kind = nst_lua_string(L, 1, NULL, "pipe")[0] == 'i' ? NST_MEDIUM_IP : NST_MEDIUM_ETHERNET;
  size_t capacity = (size_t)nst_lua_integer(L, 2, 0, 2147483648.0, "pipe");
  a = nst_lua_device_box(L);
  b = nst_lua_device_box(L);
  if (!nst_pipe_new(nst_lua_hub(L), size, kind, capacity, lua_toboolean(L, 4), ends)) {
    return nst_lua_fail(L, NST_NO_MEMORY);
  }
  a->object = ends[0];
  b->object = ends[1];
  nst_getuservalue(L, -2); /* each end keeps the other */
  lua_pushvalue(L, -2);
  lua_setfield(L, -2, "other");
  lua_pop(L, 1);
  nst_getuservalue(L, -1);
  lua_pushvalue(L, -3);
  lua_setfield(L, -2, "other");
  lua_pop(L, 1);
  return 2;
}

/*** A device whose transmit function is called with each packet that the attached stack sends.
@function device
@tparam integer mtu 0: that of the first stack it is attached to
@tparam string medium
@tparam function transmit
@tparam boolean checksum
@treturn device|nil
@treturn string "no memory" */
static int device_new(lua_State *L) {
  uint16_t size = (uint16_t)nst_lua_integer(L, 0, 0, 65535, "device");
  nst_medium kind = nst_lua_string(L, 1, NULL, "device")[0] == 'i' ? NST_MEDIUM_IP : NST_MEDIUM_ETHERNET;
  nst_box *box = (luaL_checktype(L, 3, LUA_TFUNCTION), nst_lua_device_box(L));
  nst_device *device = nst_callback_device_new(nst_lua_hub(L), size, kind);
  if (device == NULL) return nst_lua_fail(L, NST_NO_MEMORY);
  box->object = device;
  device->checksum = lua_toboolean(L, 4);
  nst_lua_remember(L, device->id);
  nst_getuservalue(L, -1);
  lua_pushvalue(L, 3);
  lua_setfield(L, -2, "transmit");
  lua_pop(L, 1);
  return 1;
}

/*** A device on the host's kernel.
@function tun
@tparam string|nil name nil: the kernel chooses
@tparam string|nil mode "tun", "tap"; nil: what `fd` is, or "tun"
@tparam integer mtu 0: that of the kernel
@tparam string|nil netns the name of a network namespace
@tparam integer|nil fd one that is open already, which is duplicated
@tparam boolean offload whether the kernel may hand over, and get, segments many at a time; of `fd`, what it is
@treturn device|nil
@treturn string "permission denied", "not supported", "address already in use", "address not available" (the namespace),
"closed" (fd), "full" (descriptors), "no memory"
@treturn string what to do about it */
static int tun_new(lua_State *L) {
  nst_box *box;
  nst_tun_order order;
  nst_error error;
  memset(&order, 0, sizeof order);
  order.name = lua_tostring(L, 1);
  order.mode_named = !lua_isnil(L, 2);
  order.ethernet = order.mode_named && strcmp(luaL_checkstring(L, 2), "tap") == 0;
  order.mtu = (uint16_t)nst_lua_integer(L, 2, 0, 65535, "tun");
  order.netns = lua_tostring(L, 4);
  order.adopted = lua_isnoneornil(L, 5) ? -1 : (int)lua_tointeger(L, 5);
  order.offload = lua_toboolean(L, 6);
  lua_settop(L, 5);
  box = nst_lua_device_box(L);
  error = nst_tun_open(&order);
  if (error != NST_OK) {
    nst_lua_fail(L, error);
    lua_pushstring(L, order.message);
    return 3;
  }
  box->object = nst_tun_new(nst_lua_hub(L), &order);
  return box->object ? 1 : nst_lua_fail(L, NST_NO_MEMORY);
}

void nst_lua_open_device(lua_State *L) {
  static const luaL_Reg methods[] = {
    {"close", close_device}, {"mtu", mtu}, {"medium", medium}, {"stats", stats}, {"fd", fd}, {"name", name}, {"try_send", try_send},
    {"try_receive", try_receive}, {"rx_ready", rx_ready}, {"tx_ready", tx_ready}, {"input", input},
    {"wait_ticket", wait_ticket}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"pipe", pipe_new}, {"device", device_new}, {"tun", tun_new}, {NULL, NULL}};
  nst_lua_class(L, NST_CLASS_DEVICE, "netstack.device", methods, collect, describe);
  nst_lua_functions(L, functions);
}
