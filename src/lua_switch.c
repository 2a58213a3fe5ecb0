/*** Switches as Lua sees them.
@submodule netstack.core */
#include <stdlib.h>
#include <string.h>

#include "binding.h"
#include "switch.h"

static nst_switch *check_switch(lua_State *L, const char *function) {
  return nst_lua_check(L, 1, NST_CLASS_SWITCH, function)->object;
}

static int collect(lua_State *L) {
  nst_box *box = nst_lua_test(L, 1, NST_CLASS_SWITCH);
  nst_switch *self = box ? box->object : NULL;
  if (self == NULL) return 0;
  box->object = NULL;
  nst_switch_free(self);
  return 0;
}

static int describe(lua_State *L) {
  const nst_box *box = nst_lua_test(L, 1, NST_CLASS_SWITCH);
  const nst_switch *self = box ? box->object : NULL;
  int ports = self ? (int)self->port_count : 0;
  if (self) lua_pushfstring(L, "switch %s (%d port%s)", self->name, ports, ports == 1 ? "" : "s");
  else lua_pushliteral(L, "switch (closed)");
  return 1;
}

/*** Its name.
@function switch:name
@treturn string|nil
@treturn string "closed" */
static int name(lua_State *L) {
  const nst_switch *self = check_switch(L, "name");
  if (self == NULL) return nst_lua_fail(L, NST_CLOSED);
  lua_pushstring(L, self->name);
  return 1;
}

/*** Makes a device a port: an end of a pipe or a link, a TAP interface, a device in Lua. The port goes when the device
is closed.
@function switch:attach
@tparam device dev of medium "ethernet"
@treturn integer|nil the number of the port, the lowest that is free
@treturn string "address already in use" (it is attached, here or elsewhere), "closed", "no memory" */
static int attach(lua_State *L) {
  nst_switch *self = check_switch(L, "attach");
  nst_device *device = nst_lua_check(L, 2, NST_CLASS_DEVICE, "attach")->object;
  const nst_switch_port *port;
  if (self == NULL || device == NULL || !device->open) return nst_lua_fail(L, NST_CLOSED);
  if (device->medium != NST_MEDIUM_ETHERNET) {
    return nst_lua_argument_error(L, 1, "attach", "device of medium 'ethernet' expected, got one of 'ip'");
  }
  if (device->user) return nst_lua_fail(L, NST_ADDRESS_IN_USE);
  port = nst_switch_attach(self, device);
  if (port == NULL) return nst_lua_fail(L, NST_NO_MEMORY);
  lua_settop(L, 2);
  nst_pushinteger(L, port->number);
  nst_lua_keep_device(L, 1, 2, port->number);
  nst_lua_after(L, NULL);
  return 1;
}

/*** Takes a port off the switch, which forgets the stations behind it; the device stays open.
@function switch:detach
@tparam integer|device port
@treturn integer|nil 1
@treturn string "closed": there is no such port any more */
static int detach(lua_State *L) {
  const nst_switch *self = check_switch(L, "detach");
  const nst_box *box = nst_lua_test(L, 2, NST_CLASS_DEVICE);
  nst_switch_port *port = NULL;
  unsigned number = 0;
  if (box == NULL && lua_type(L, 2) != LUA_TNUMBER) {
    return nst_lua_argument_error(L, 1, "detach", "number of a port or device expected");
  }
  if (box == NULL) number = (unsigned)nst_lua_integer(L, 1, 1, 2147483647.0, "detach");
  if (self && box == NULL) port = nst_switch_port_numbered(self, number);
  else if (self && box->object) port = nst_switch_port_of(self, box->object);
  if (port == NULL) return nst_lua_fail(L, NST_CLOSED);
  number = port->number;
  nst_switch_detach(port);
  nst_lua_leave_device(L, 1, number);
  nst_lua_after(L, NULL);
  return nst_lua_success(L);
}

/* What is copied before it goes to Lua, whose collector may close devices, or the switch, with each allocation. */
typedef struct row {
  uint8_t address[NST_MAC_LENGTH];
  unsigned port;
  nst_time age;
} row;

static int by_address(const void *a, const void *b) {
  return memcmp(((const row *)a)->address, ((const row *)b)->address, NST_MAC_LENGTH);
}

/*** The stations it has heard, by address.
@function switch:table
@treturn {table,...}|nil each: address ("02:00:00:00:00:01"), port, age (seconds since it was heard)
@treturn string "closed" */
static int table(lua_State *L) {
  const nst_box *box = (check_switch(L, "table"), nst_lua_test(L, 1, NST_CLASS_SWITCH));
  nst_switch *self = box->object;
  size_t most = self ? self->stations.table.count : 0, count = 0, i;
  row *rows = lua_newuserdata(L, (most + 1) * sizeof *rows);
  nst_time now;
  nst_link *link;
  self = box->object;
  if (self == NULL) return nst_lua_fail(L, NST_CLOSED);
  now = nst_hub_clock(self->hub);
  nst_stations_age(&self->stations, now);
  for (link = self->stations.ages.next; link != &self->stations.ages && count < most; link = link->next) {
    const nst_station *station = nst_holder(link, nst_station, age);
    memcpy(rows[count].address, station->address, NST_MAC_LENGTH);
    rows[count].port = station->port->number;
    rows[count++].age = now - station->heard;
  }
  qsort(rows, count, sizeof *rows, by_address);
  lua_createtable(L, (int)count, 0);
  for (i = 0; i < count; i++) {
    lua_createtable(L, 0, 3);
    nst_lua_push_station(L, rows[i].address);
    lua_setfield(L, -2, "address");
    nst_pushinteger(L, rows[i].port);
    lua_setfield(L, -2, "port");
    lua_pushnumber(L, nst_lua_seconds(rows[i].age));
    lua_setfield(L, -2, "age");
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

/*** Forgets all stations.
@function switch:flush
@treturn integer|nil 1
@treturn string "closed" */
static int flush(lua_State *L) {
  nst_switch *self = check_switch(L, "flush");
  if (self == NULL) return nst_lua_fail(L, NST_CLOSED);
  nst_stations_clear(&self->stations);
  return nst_lua_success(L);
}

static void set_count(lua_State *L, const char *key, uint64_t count) {
  nst_pushinteger(L, count);
  lua_setfield(L, -2, key);
}

static void push_counters(lua_State *L, const nst_switch_counters *counters) {
  int cause;
  lua_createtable(L, 0, 10);
  set_count(L, "received", counters->received);
  set_count(L, "forwarded", counters->forwarded);
  set_count(L, "flooded", counters->flooded);
  set_count(L, "sent", counters->sent);
  lua_createtable(L, 0, NST_SWITCH_DROP_COUNT);
  for (cause = 0; cause < NST_SWITCH_DROP_COUNT; cause++) {
    set_count(L, nst_switch_drop_text((nst_switch_drop)cause), counters->dropped[cause]);
  }
  lua_setfield(L, -2, "dropped");
}

typedef struct port_row {
  unsigned number;
  nst_switch_counters counters;
} port_row;

/*** Counters. Each frame received is forwarded to one port, flooded to all others, or dropped where it came in: "short"
(no whole header), "reserved" (for bridges), "filtered" (its station is behind the port that it came from), "loop" (it
has passed 255 switches), "queue" (4096 wait at the port). Of what was to be sent, a port drops what its device has no
room for ("full"), what is longer than its mtu, what has a wrong checksum and goes where nobody would see that
("checksum"), and copies for which there is no memory.
@function switch:stats
@treturn table|nil received, forwarded, flooded, sent, dropped = { short, reserved, filtered, loop, queue, full, mtu,
checksum, memory }; ports: the same by number, each with the device's counters since it was attached; and of stations:
addresses (how many are known), learned, moved, aged, evicted (the table was full)
@treturn string "closed" */
static int stats(lua_State *L) {
  const nst_box *box = (check_switch(L, "stats"), nst_lua_test(L, 1, NST_CLASS_SWITCH));
  nst_switch *self = box->object;
  nst_switch_counters counters;
  nst_stations known;
  size_t most = self ? self->port_count : 0, count = 0, i;
  port_row *rows = lua_newuserdata(L, (most + 1) * sizeof *rows);
  nst_link *link;
  self = box->object;
  if (self == NULL) return nst_lua_fail(L, NST_CLOSED);
  nst_stations_age(&self->stations, nst_hub_clock(self->hub));
  counters = self->counters;
  known = self->stations;
  for (link = self->ports.next; link != &self->ports && count < most; link = link->next) {
    const nst_switch_port *port = nst_holder(link, nst_switch_port, link);
    rows[count].number = port->number;
    rows[count++].counters = port->counters;
  }
  push_counters(L, &counters);
  set_count(L, "addresses", known.table.count);
  set_count(L, "learned", known.learned);
  set_count(L, "moved", known.moved);
  set_count(L, "aged", known.aged);
  set_count(L, "evicted", known.evicted);
  lua_createtable(L, (int)count, 0);
  for (i = 0; i < count; i++) {
    push_counters(L, &rows[i].counters);
    lua_rawseti(L, -2, (int)rows[i].number);
  }
  lua_setfield(L, -2, "ports");
  return 1;
}

/*** Ends the switch: its devices are detached, not closed.
@function switch:close
@treturn integer 1; harmless twice */
static int close_switch(lua_State *L) {
  if (check_switch(L, "close")) nst_lua_leave_devices(L, 1);
  collect(L);
  nst_lua_after(L, NULL);
  return nst_lua_success(L);
}

/*** A switch without ports.
@function switch
@tparam string|nil name nil: "switchN"
@tparam number ageing seconds
@tparam integer table_size stations
@treturn switch|nil
@treturn string "no memory" */
static int switch_new(lua_State *L) {
  const char *given = lua_tostring(L, 1);
  nst_time ageing = nst_lua_time(nst_lua_number(L, 1, "switch"));
  size_t most = (size_t)nst_lua_integer(L, 2, 1, 16777216.0, "switch");
  nst_box *box;
  lua_settop(L, 3);
  box = nst_lua_box(L, NST_CLASS_SWITCH);
  lua_newtable(L);
  nst_setuservalue(L, -2);
  box->object = nst_switch_new(nst_lua_hub(L), given, ageing, most);
  return box->object ? 1 : nst_lua_fail(L, NST_NO_MEMORY);
}

void nst_lua_open_switch(lua_State *L) {
  static const luaL_Reg methods[] = {{"name", name}, {"attach", attach}, {"detach", detach}, {"table", table},
                                     {"flush", flush}, {"stats", stats}, {"close", close_switch}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"switch", switch_new}, {NULL, NULL}};
  nst_lua_class(L, NST_CLASS_SWITCH, "netstack.switch", methods, collect, describe);
  nst_lua_functions(L, functions);
}
