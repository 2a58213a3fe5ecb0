/*** Links of the lab as Lua sees them.
@submodule netstack.core */
#include <stdlib.h>
#include <string.h>

#include "binding.h"
#include "link.h"

typedef enum rule_kind {
  RULE_TIME, RULE_SHARE, RULE_COUNT, RULE_MTU, RULE_FLAG, RULE_DISTRIBUTION,
  RULE_NOW /* set to the time at which it is set */
} rule_kind;

typedef struct rule {
  const char *name;
  rule_kind kind;
  size_t place;
} rule;

#define WEATHER(member) offsetof(nst_lane_rules, weather.member)

static const rule rules[] = {
  {"delay", RULE_TIME, WEATHER(delay)}, {"jitter", RULE_TIME, WEATHER(jitter)},
  {"distribution", RULE_DISTRIBUTION, WEATHER(distribution)}, {"correlation", RULE_SHARE, WEATHER(correlation)},
  {"loss", RULE_SHARE, WEATHER(loss)}, {"loss_correlation", RULE_SHARE, WEATHER(loss_correlation)},
  {"model", RULE_FLAG, WEATHER(has_model)},
  {"p", RULE_SHARE, WEATHER(p)}, {"r", RULE_SHARE, WEATHER(r)}, {"k", RULE_SHARE, WEATHER(k)},
  {"h", RULE_SHARE, WEATHER(h)},
  {"duplicate", RULE_SHARE, WEATHER(duplicate)}, {"duplicate_correlation", RULE_SHARE, WEATHER(duplicate_correlation)},
  {"reorder", RULE_SHARE, WEATHER(reorder)}, {"reorder_correlation", RULE_SHARE, WEATHER(reorder_correlation)},
  {"corrupt", RULE_SHARE, WEATHER(corrupt)}, {"corrupt_correlation", RULE_SHARE, WEATHER(corrupt_correlation)},
  {"rate", RULE_COUNT, offsetof(nst_lane_rules, rate)}, {"queue", RULE_COUNT, offsetof(nst_lane_rules, queue)},
  {"queue_bytes", RULE_COUNT, offsetof(nst_lane_rules, queue_bytes)}, {"mtu", RULE_MTU, offsetof(nst_lane_rules, mtu)},
  {"codel", RULE_FLAG, offsetof(nst_lane_rules, codel.on)},
  {"target", RULE_TIME, offsetof(nst_lane_rules, codel.target)},
  {"interval", RULE_TIME, offsetof(nst_lane_rules, codel.interval)},
  {"down", RULE_FLAG, offsetof(nst_lane_rules, down)}, {"cut", RULE_FLAG, offsetof(nst_lane_rules, cut)},
  {"flap_up", RULE_TIME, offsetof(nst_lane_rules, flap_up)},
  {"flap_down", RULE_TIME, offsetof(nst_lane_rules, flap_down)}, {"flap", RULE_NOW, offsetof(nst_lane_rules, flap_since)}};

static const char *const distributions[] = {"uniform", "normal", "pareto"};

static nst_lab_link *check_link(lua_State *L, const char *function) {
  return nst_lua_check(L, 1, NST_CLASS_LINK, function)->object;
}

static nst_lane *check_lane(lua_State *L, const char *function) {
  nst_lab_link *link = check_link(L, function);
  int side = (int)nst_lua_integer(L, 1, 1, 2, function) - 1;
  return link ? &link->lanes[side] : NULL;
}

static int collect(lua_State *L) {
  nst_box *box = nst_lua_test(L, 1, NST_CLASS_LINK);
  nst_lab_link *link = box ? box->object : NULL;
  if (link == NULL) return 0;
  box->object = NULL;
  nst_lab_link_mute(link);
  nst_lab_link_release(link);
  return 0;
}

/*** Closes both ends: packets under way are dropped, stacks that are attached send into nothing. Repeating it is
harmless; everything else answers "closed" from now on.
@function link:close
@treturn integer 1 */
static int close_link(lua_State *L) {
  nst_box *box = nst_lua_check(L, 1, NST_CLASS_LINK, "close");
  nst_lab_link *link = box->object;
  int side;
  box->object = NULL;
  for (side = 0; link && side < 2; side++) {
    if (link->ends[side]) nst_device_close(link->ends[side]);
  }
  if (link) {
    nst_lab_link_mute(link);
    nst_lab_link_release(link);
  }
  return nst_lua_success(L);
}

static int describe(lua_State *L) {
  const nst_box *box = nst_lua_test(L, 1, NST_CLASS_LINK);
  const nst_lab_link *link = box ? box->object : NULL;
  if (link) lua_pushfstring(L, "link %d", (int)link->id);
  else lua_pushliteral(L, "link (closed)");
  return 1;
}

/*** Changes one parameter for packets that enter from now on. What it may be is the caller's to check.
@function link:set_rule
@tparam integer direction 1 or 2: the end that sends
@tparam string name
@param value seconds, a share, a count, a flag or the name of a distribution; 0: no limit
@treturn integer|nil 1
@treturn string "closed" */
static int set_rule(lua_State *L) {
  nst_lane *lane = check_lane(L, "set_rule");
  const char *name = nst_lua_string(L, 2, NULL, "set_rule");
  size_t i;
  int j;
  if (lane == NULL) return nst_lua_fail(L, NST_CLOSED);
  for (i = 0; i < sizeof rules / sizeof *rules; i++) {
    char *value = (char *)&lane->rules + rules[i].place;
    if (strcmp(rules[i].name, name) != 0) continue;
    switch (rules[i].kind) {
      case RULE_TIME: *(nst_time *)(void *)value = nst_lua_time(nst_lua_number(L, 3, "set_rule")); break;
      case RULE_SHARE: *(double *)(void *)value = nst_lua_number(L, 3, "set_rule"); break;
      case RULE_COUNT: *(uint64_t *)(void *)value = (uint64_t)nst_lua_integer(L, 3, 0, 9e15, "set_rule"); break;
      case RULE_MTU: *(uint32_t *)(void *)value = (uint32_t)nst_lua_integer(L, 3, 0, 65535, "set_rule"); break;
      case RULE_FLAG: *(bool *)(void *)value = lua_toboolean(L, 4); break;
      case RULE_NOW: *(nst_time *)(void *)value = nst_lua_hub(L)->origin + nst_lua_hub(L)->now; break;
      case RULE_DISTRIBUTION:
        for (j = 0; j < 3; j++) {
          if (strcmp(distributions[j], nst_lua_string(L, 3, NULL, "set_rule")) == 0) {
            *(nst_distribution *)(void *)value = (nst_distribution)j;
          }
        }
        break;
    }
    return nst_lua_success(L);
  }
  return nst_lua_argument_error(L, 2, "set_rule", "unknown");
}

/*** The parameters of one direction.
@function link:rules
@tparam integer direction
@treturn table|nil
@treturn string "closed" */
static int get_rules(lua_State *L) {
  nst_lane *lane = check_lane(L, "rules");
  size_t i;
  if (lane == NULL) return nst_lua_fail(L, NST_CLOSED);
  lua_createtable(L, 0, (int)(sizeof rules / sizeof *rules));
  for (i = 0; i < sizeof rules / sizeof *rules; i++) {
    const char *value = (const char *)&lane->rules + rules[i].place;
    switch (rules[i].kind) {
      case RULE_TIME: case RULE_NOW:
        lua_pushnumber(L, nst_lua_seconds(*(const nst_time *)(const void *)value));
        break;
      case RULE_SHARE: lua_pushnumber(L, *(const double *)(const void *)value); break;
      case RULE_COUNT: nst_pushinteger(L, *(const uint64_t *)(const void *)value); break;
      case RULE_MTU: nst_pushinteger(L, *(const uint32_t *)(const void *)value); break;
      case RULE_FLAG: lua_pushboolean(L, *(const bool *)(const void *)value); break;
      case RULE_DISTRIBUTION: lua_pushstring(L, distributions[*(const nst_distribution *)(const void *)value]); break;
    }
    lua_setfield(L, -2, rules[i].name);
  }
  return 1;
}

static void set_count(lua_State *L, const char *name, uint64_t count) {
  nst_pushinteger(L, count);
  lua_setfield(L, -2, name);
}

/*** Counters of one direction: sent + duplicated = delivered + dropped + in_flight.
@function link:counters
@tparam integer direction
@treturn table|nil sent, sent_bytes, delivered, delivered_bytes, duplicated, corrupted, reordered, in_flight, queue,
queue_bytes, untold (to the trace function), and dropped: closed, down, partition, mtu, loss, queue, codel, limit, memory
@treturn string "closed" */
static int counters(lua_State *L) {
  nst_lane *lane = check_lane(L, "counters");
  const nst_lane_counters *c;
  int cause;
  if (lane == NULL) return nst_lua_fail(L, NST_CLOSED);
  nst_lane_look(check_link(L, "counters"), lane);
  c = &lane->counters;
  lua_createtable(L, 0, 12);
  set_count(L, "sent", c->sent);
  set_count(L, "sent_bytes", c->sent_bytes);
  set_count(L, "delivered", c->delivered);
  set_count(L, "delivered_bytes", c->delivered_bytes);
  set_count(L, "duplicated", c->duplicated);
  set_count(L, "corrupted", c->corrupted);
  set_count(L, "reordered", c->reordered);
  set_count(L, "untold", c->untold);
  set_count(L, "in_flight", lane->in_flight);
  set_count(L, "queue", lane->waiting_count);
  set_count(L, "queue_bytes", lane->waiting_bytes);
  lua_createtable(L, 0, NST_DROP_COUNT);
  for (cause = NST_DROP_NONE + 1; cause < NST_DROP_COUNT; cause++) {
    set_count(L, nst_drop_text((nst_drop)cause), c->dropped[cause]);
  }
  lua_setfield(L, -2, "dropped");
  return 1;
}

static nst_filter *check_filter(lua_State *L, int index) {
  return nst_lua_check(L, index, NST_CLASS_FILTER, "bar")->object;
}

/*** Drops, from now on, what comes from the filter's addresses or goes to them: a partition. `unbar` ends it.
@function link:bar
@tparam integer direction
@tparam filter filter
@tparam boolean source
@treturn integer|nil 1
@treturn string "closed" or "no memory" */
static int bar(lua_State *L) {
  nst_lane *lane = check_lane(L, "bar");
  nst_filter *filter = check_filter(L, 3);
  if (lane == NULL) return nst_lua_fail(L, NST_CLOSED);
  if (!nst_lane_bar(lane, filter, lua_toboolean(L, 4))) return nst_lua_fail(L, NST_NO_MEMORY);
  return nst_lua_success(L);
}

/*** Takes all filters away.
@function link:unbar
@tparam integer direction
@treturn integer|nil 1
@treturn string "closed" */
static int unbar(lua_State *L) {
  nst_lane *lane = check_lane(L, "unbar");
  if (lane == NULL) return nst_lua_fail(L, NST_CLOSED);
  nst_lane_unbar(lane);
  return nst_lua_success(L);
}

/*** A set of addresses.
@function filter
@tparam {string,...} addresses
@treturn filter|nil
@treturn string "no memory" or "invalid address" */
static int filter_new(lua_State *L) {
  nst_box *box;
  nst_filter *filter;
  size_t i;
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  box = nst_lua_box(L, NST_CLASS_FILTER);
  filter = nst_filter_new();
  if (filter == NULL) return nst_lua_fail(L, NST_NO_MEMORY);
  box->object = filter;
  for (i = 1;; i++) {
    ip_addr_t address;
    lua_rawgeti(L, 1, (int)i);
    if (lua_isnil(L, -1)) break;
    if (lua_type(L, -1) != LUA_TSTRING || !ipaddr_aton(lua_tostring(L, -1), &address)) {
      return nst_lua_fail(L, NST_INVALID_ADDRESS);
    }
    if (!nst_filter_add(filter, &address)) return nst_lua_fail(L, NST_NO_MEMORY);
    lua_pop(L, 1);
  }
  lua_settop(L, 2);
  return 1;
}

static int collect_filter(lua_State *L) {
  nst_box *box = nst_lua_test(L, 1, NST_CLASS_FILTER);
  if (box && box->object) nst_filter_release(box->object);
  if (box) box->object = NULL;
  return 0;
}

static int describe_filter(lua_State *L) {
  const nst_box *box = nst_lua_test(L, 1, NST_CLASS_FILTER);
  const nst_filter *filter = box ? box->object : NULL;
  lua_pushfstring(L, "filter of %d addresses", filter ? (int)filter->count : 0);
  return 1;
}

/*** Sets what is called, after the poll, with each packet that entered and what becomes of it.
@function link:trace
@tparam function|nil fn fn(event): {time, direction = 1 | 2, packet, arrival or cause, corrupted, reordered, duplicated,
copy_arrival or copy_cause}; times are seconds since the link was made, or since what it was told
@treturn integer|nil 1
@treturn string "closed" */
static int trace(lua_State *L) {
  nst_lab_link *link = check_link(L, "trace");
  if (!lua_isnoneornil(L, 2) && !lua_isfunction(L, 2)) {
    return nst_lua_argument_error(L, 1, "trace", "function or nil expected");
  }
  if (link == NULL) return nst_lua_fail(L, NST_CLOSED);
  lua_settop(L, 2);
  nst_getuservalue(L, 1);
  lua_pushvalue(L, 2);
  lua_setfield(L, -2, "trace");
  if (lua_isfunction(L, 2)) link->tracing = true;
  else nst_lab_link_mute(link);
  return nst_lua_success(L);
}

static void push_fate(lua_State *L, const nst_lab_link *link, nst_drop cause, nst_time arrival, const char *drop,
                      const char *time) {
  if (cause == NST_DROP_NONE) lua_pushnumber(L, nst_lua_seconds(arrival - link->since));
  else lua_pushstring(L, nst_drop_text(cause));
  lua_setfield(L, -2, cause == NST_DROP_NONE ? time : drop);
}

static void push_event(lua_State *L, const nst_lab_link *link, const nst_crossing *event) {
  lua_createtable(L, 0, 8);
  lua_pushnumber(L, nst_lua_seconds(event->time - link->since));
  lua_setfield(L, -2, "time");
  lua_pushinteger(L, event->lane + 1);
  lua_setfield(L, -2, "direction");
  lua_pushlstring(L, event->data, event->length);
  lua_setfield(L, -2, "packet");
  push_fate(L, link, event->cause, event->arrival, "cause", "arrival");
  lua_pushboolean(L, event->corrupted);
  lua_setfield(L, -2, "corrupted");
  lua_pushboolean(L, event->reordered);
  lua_setfield(L, -2, "reordered");
  lua_pushboolean(L, event->duplicated);
  lua_setfield(L, -2, "duplicated");
  if (event->duplicated) push_fate(L, link, event->copy_cause, event->copy_arrival, "copy_cause", "copy_arrival");
}

void nst_lua_flush_crossing(lua_State *L) {
  nst_hub *hub = nst_lua_hub(L);
  nst_crossing *event = nst_holder(hub->crossed.next, nst_crossing, link);
  nst_lua_recall(L, event->of->id);
  nst_getuservalue(L, -1);
  lua_getfield(L, -1, "trace");
  push_event(L, event->of, event);
  nst_crossing_forget(event); /* before: the function may raise */
  lua_call(L, 1, 0);
  lua_pop(L, 2);
}

/* Has the object at `keeper` keep the one at `kept`. */
static void keep(lua_State *L, int keeper, int kept, const char *name) {
  nst_getuservalue(L, keeper);
  lua_pushvalue(L, kept);
  lua_setfield(L, -2, name);
  lua_pop(L, 1);
}

/*** A link and its two ends. Each keeps the others.
@function link
@tparam integer mtu 0: that of the first stack it is attached to
@tparam string medium
@tparam boolean checksum
@tparam integer seed
@tparam number|nil since from which its times are told, by `lab_clock`; nil: now
@treturn link|nil
@treturn device|string or "no memory"
@treturn device */
static int link_new(lua_State *L) {
  nst_hub *hub = nst_lua_hub(L);
  uint16_t mtu = (uint16_t)nst_lua_integer(L, 0, 0, 65535, "link");
  nst_medium medium = nst_lua_string(L, 1, NULL, "link")[0] == 'i' ? NST_MEDIUM_IP : NST_MEDIUM_ETHERNET;
  bool checksum = lua_toboolean(L, 3);
  uint64_t seed = (uint64_t)nst_lua_integer(L, 3, 0, 9007199254740992.0, "link");
  nst_time since = lua_isnoneornil(L, 5) ? hub->origin + hub->now : nst_lua_time(nst_lua_number(L, 4, "link"));
  nst_device *ends[2];
  nst_lab_link *link;
  nst_box *box, *a, *b;
  lua_settop(L, 5);
  box = nst_lua_box(L, NST_CLASS_LINK);
  lua_newtable(L);
  nst_setuservalue(L, -2);
  a = nst_lua_device_box(L);
  b = nst_lua_device_box(L);
  link = nst_lab_link_new(hub, mtu, medium, checksum, seed, ends);
  if (link == NULL) return nst_lua_fail(L, NST_NO_MEMORY);
  link->since = since;
  box->object = link;
  a->object = ends[0];
  b->object = ends[1];
  keep(L, 6, 7, "a");
  keep(L, 6, 8, "b");
  keep(L, 7, 6, "link");
  keep(L, 8, 6, "link");
  lua_pushvalue(L, 6);
  nst_lua_remember(L, link->id);
  lua_pop(L, 1);
  return 3;
}

/*** The clock by which links count: it goes on from run to run.
@function lab_clock
@treturn number seconds */
static int lab_clock(lua_State *L) {
  lua_pushnumber(L, nst_lua_seconds(nst_lua_hub(L)->origin + nst_lua_hub(L)->now));
  return 1;
}

/*** What has been done so far, in all runs.
@function work
@treturn integer polls of stacks, and turns of switches
@treturn integer packets that entered a link */
static int work(lua_State *L) {
  const nst_hub *hub = nst_lua_hub(L);
  nst_pushinteger(L, hub->jobs);
  nst_pushinteger(L, hub->crossings);
  return 2;
}

void nst_lua_open_link(lua_State *L) {
  static const luaL_Reg methods[] = {{"close", close_link}, {"set_rule", set_rule}, {"rules", get_rules}, {"counters", counters},
                                     {"trace", trace}, {"bar", bar}, {"unbar", unbar}, {NULL, NULL}};
  static const luaL_Reg none[] = {{NULL, NULL}};
  static const luaL_Reg functions[] = {{"link", link_new}, {"filter", filter_new}, {"lab_clock", lab_clock}, {"work", work}, {NULL, NULL}};
  nst_lua_class(L, NST_CLASS_LINK, "netstack.link", methods, collect, describe);
  nst_lua_class(L, NST_CLASS_FILTER, "netstack.filter", none, collect_filter, describe_filter);
  nst_lua_functions(L, functions);
}
