#include "slaac.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "nd.h"
#include "neighbour.h"
#include "stack.h"

#include "lwip/ip6.h"

/* RFC 7559 §2, RFC 4861 §10: MAX_RTR_SOLICITATION_DELAY, IRT, MRT */
#define FIRST_WITHIN NST_SECOND
#define ASK_AGAIN (4 * NST_SECOND)
#define ASK_AT_LEAST_EVERY (3600 * NST_SECOND)

#define TWO_HOURS (7200 * NST_SECOND)
#define FORMED_AT_MOST 3 /* for one prefix (RFC 7217 §6, IDGEN_RETRIES) */
#define HEADER 40

enum { ON_LINK = 0x80, AUTONOMOUS = 0x40 };

static const ip_addr_t nowhere = IPADDR6_INIT(0, 0, 0, 0), nobody = IPADDR_ANY_TYPE_INIT;

static nst_time earlier(nst_time a, nst_time b) {
  return a < b ? a : b;
}

/* All bits set is for ever (RFC 4861 4.6.2). */
static nst_time after(const nst_stack *stack, uint32_t seconds) {
  return seconds == 0xffffffffu ? NST_NEVER : stack->now + (nst_time)seconds * NST_SECOND;
}

static void read_address(const nst_interface *interface, const uint8_t *bytes, ip_addr_t *address) {
  *address = nowhere;
  memcpy(ip_2_ip6(address)->addr, bytes, 16);
  ip6_addr_assign_zone(ip_2_ip6(address), IP6_UNICAST, &interface->netifs[0]);
}

/* ---- asking ---- */

static void say(nst_interface *interface) {
  static const uint8_t all_routers[16] = {0xff, 0x02, [15] = 2};
  const ip_addr_t *source = interface->has_link_local ? &interface->link_local.address : &nowhere;
  bool sure = nst_interface_is_ethernet(interface) && source != &nowhere && !nst_nd_is_tentative(interface, source);
  nst_packet *packet = nst_nd_new(interface, source, all_routers, NST_ND_ROUTER_SOLICITATION,
                                  NST_ND_ROUTER_SOLICITATION_LENGTH, sure ? NST_ND_SOURCE_STATION : 0);
  ip_addr_t to;
  if (packet == NULL) return;
  nst_nd_complete(interface, packet);
  read_address(interface, all_routers, &to);
  nst_interface_send(interface, packet, &to);
}

/* A tenth more or less, by chance (RFC 8415 §15, which RFC 7559 refers to). */
static nst_time about(nst_interface *interface, nst_time time) {
  return time / 1000 * (900 + (nst_time)(nst_random_u32(&interface->stack->random) % 201));
}

static void ask(nst_interface *interface) {
  nst_slaac *slaac = interface->slaac;
  slaac->interval = slaac->interval == 0 ? about(interface, ASK_AGAIN)
                                         : slaac->interval + about(interface, slaac->interval);
  if (slaac->interval > ASK_AT_LEAST_EVERY) slaac->interval = about(interface, ASK_AT_LEAST_EVERY);
  slaac->solicit_at = interface->stack->now + slaac->interval;
  say(interface);
}

static void begin_asking(nst_interface *interface) {
  nst_time by_chance = (nst_time)(nst_random_u32(&interface->stack->random) % 1000) * (FIRST_WITHIN / 1000);
  interface->slaac->interval = 0;
  interface->slaac->solicit_at = interface->stack->now + by_chance;
}

/* ---- routers ---- */

/* The best first: those that answer, by preference, in the order in which they came (RFC 4861 6.3.6, RFC 4191 §3.2). */
static const nst_slaac_router *best_of(const nst_slaac *slaac) {
  const nst_slaac_router *best = NULL;
  size_t i;
  for (i = 0; i < slaac->router_count; i++) {
    const nst_slaac_router *router = &slaac->routers[i];
    if (best == NULL || (best->unreachable && !router->unreachable) ||
        (best->unreachable == router->unreachable && router->preference > best->preference)) {
      best = router;
    }
  }
  return best;
}

static void choose_router(nst_interface *interface) {
  nst_slaac *slaac = interface->slaac;
  const nst_slaac_router *best = best_of(slaac);
  const ip_addr_t *gateway = best ? &best->address : &nobody;
  const nst_prefix everywhere = {nowhere, 0};
  if (best == NULL && slaac->solicit_at == NST_NEVER) begin_asking(interface);
  if (IP_IS_ANY_TYPE_VAL(*gateway) ? IP_IS_ANY_TYPE_VAL(slaac->gateway) : ip_addr_eq(gateway, &slaac->gateway)) return;
  slaac->gateway = *gateway;
  if (best) (void)nst_route_add(interface->stack, &everywhere, interface, gateway, NST_ROUTE_LEARNED);
  else nst_route_drop(interface->stack, &everywhere, interface, NST_ROUTE_LEARNED);
}

static nst_slaac_router *router_of(nst_slaac *slaac, const ip_addr_t *address) {
  size_t i;
  for (i = 0; i < slaac->router_count; i++) {
    if (ip_addr_eq(&slaac->routers[i].address, address)) return &slaac->routers[i];
  }
  return NULL;
}

/* A router has spoken: is it one for the default route? */
static void hear_router(nst_interface *interface, const ip_addr_t *source, unsigned lifetime, unsigned flags) {
  static const int preferences[4] = {0, 1, 0, -1};
  nst_slaac *slaac = interface->slaac;
  nst_slaac_router *router = router_of(slaac, source);
  if (router == NULL && lifetime > 0) {
    if (slaac->router_count == NST_SLAAC_ROUTERS) {
      slaac->limited_routers++;
      return;
    }
    router = &slaac->routers[slaac->router_count++];
    router->address = *source;
  }
  if (router == NULL) return;
  router->until = after(interface->stack, lifetime);
  router->preference = preferences[flags >> 3 & 3];
  router->unreachable = false;
  if (lifetime > 0) slaac->solicit_at = NST_NEVER;
}

void nst_slaac_unreachable(nst_interface *interface, const ip_addr_t *neighbour) {
  nst_slaac *slaac = interface->slaac;
  nst_slaac_router *router = router_of(slaac, neighbour);
  size_t i, answering = 0;
  if (router == NULL) return;
  router->unreachable = true;
  for (i = 0; i < slaac->router_count; i++) answering += !slaac->routers[i].unreachable;
  /* None is known to answer: they are tried in turn. */
  for (i = 0; i < slaac->router_count && answering == 0; i++) {
    slaac->routers[i].unreachable = &slaac->routers[i] == router;
  }
  choose_router(interface);
}

/* ---- prefixes ---- */

/*
** RFC 7217 §5: the same on this network again, and nothing that tells who we are elsewhere. The stack's secret is
** random, or its seed's.
*/
static void identify(const nst_interface *interface, const uint8_t *prefix, unsigned tries, uint8_t *identifier) {
  uint8_t key[8 + sizeof interface->name + sizeof interface->mac + 1];
  uint64_t hash;
  memcpy(key, prefix, 8);
  memcpy(key + 8, interface->name, sizeof interface->name);
  memcpy(key + 8 + sizeof interface->name, interface->mac, sizeof interface->mac);
  key[sizeof key - 1] = (uint8_t)tries;
  hash = nst_siphash(interface->stack->secret, key, sizeof key);
  memcpy(identifier, &hash, sizeof hash);
}

static void form(const nst_interface *interface, nst_slaac_prefix *prefix) {
  uint8_t bytes[16];
  memcpy(bytes, nst_address_bytes(&prefix->prefix.address), 8);
  identify(interface, bytes, prefix->duplicates, bytes + 8);
  read_address(interface, bytes, &prefix->address);
}

static bool is_wanted(const nst_interface *interface, const nst_slaac_prefix *prefix) {
  return prefix->valid_until > interface->stack->now && prefix->duplicates < FORMED_AT_MOST;
}

static bool is_formed(const nst_interface *interface, const ip_addr_t *address) {
  const nst_slaac *slaac = interface->slaac;
  size_t i;
  for (i = 0; i < slaac->prefix_count; i++) {
    if (is_wanted(interface, &slaac->prefixes[i]) && ip_addr_eq(&slaac->prefixes[i].address, address)) return true;
  }
  return false;
}

/* Has the interface have the addresses that are valid, as far as there is room. */
static void set_addresses(nst_interface *interface) {
  nst_slaac *slaac = interface->slaac;
  nst_prefix list[NST_SLAAC_PREFIXES];
  bool room = nst_interface_has_room6(interface), differs = false;
  size_t i, count = 0;
  for (i = 0; i < interface->address_count; i++) {
    const ip_addr_t *address = &interface->addresses[i].address;
    if (interface->origins[i] == NST_ADDRESS_FORMED && !is_formed(interface, address)) differs = room = true;
  }
  for (i = 0; i < slaac->prefix_count; i++) {
    const nst_slaac_prefix *prefix = &slaac->prefixes[i];
    if (!is_wanted(interface, prefix)) continue;
    list[count].address = prefix->address;
    list[count++].bits = 64;
    if (nst_interface_has_address(interface, &prefix->address)) continue;
    if (room) differs = true;
    else slaac->limited_prefixes++;
  }
  if (differs) (void)nst_interface_set_addresses(interface, NST_ADDRESS_FORMED, list, count);
  for (i = 0; i < slaac->prefix_count; i++) {
    const nst_slaac_prefix *prefix = &slaac->prefixes[i];
    bool past = prefix->preferred_until <= interface->stack->now;
    if (is_wanted(interface, prefix)) nst_interface_deprecate(interface, &prefix->address, past);
  }
}

bool nst_slaac_has_address(const nst_interface *interface) {
  size_t i;
  for (i = 0; i < interface->address_count; i++) {
    if (interface->origins[i] == NST_ADDRESS_FORMED) return true;
  }
  return false;
}

void nst_slaac_duplicate(nst_interface *interface, const ip_addr_t *address) {
  nst_slaac *slaac = interface->slaac;
  size_t i;
  for (i = 0; i < slaac->prefix_count; i++) {
    nst_slaac_prefix *prefix = &slaac->prefixes[i];
    if (!ip_addr_eq(&prefix->address, address)) continue;
    if (++prefix->duplicates < FORMED_AT_MOST) form(interface, prefix);
  }
  set_addresses(interface);
}

static nst_slaac_prefix *prefix_of(nst_slaac *slaac, const ip_addr_t *address, unsigned bits) {
  size_t i;
  for (i = 0; i < slaac->prefix_count; i++) {
    nst_slaac_prefix *prefix = &slaac->prefixes[i];
    if (prefix->prefix.bits == bits && nst_prefix_contains(&prefix->prefix, address)) return prefix;
  }
  return NULL;
}

static void set_on_link(nst_interface *interface, nst_slaac_prefix *prefix, nst_time until) {
  nst_stack *stack = interface->stack;
  bool was = prefix->on_link;
  prefix->on_link = until > stack->now;
  prefix->on_link_until = until;
  if (prefix->on_link && !was) (void)nst_route_add(stack, &prefix->prefix, interface, NULL, NST_ROUTE_LEARNED);
  else if (was && !prefix->on_link) nst_route_drop(stack, &prefix->prefix, interface, NST_ROUTE_LEARNED);
}

/* RFC 4862 5.5.3 (d) and (e): who forges advertisements cannot have an address end before two hours are over. */
static void set_lifetimes(nst_interface *interface, nst_slaac_prefix *prefix, uint32_t preferred, uint32_t valid) {
  nst_stack *stack = interface->stack;
  nst_time until = after(stack, valid), two_hours = stack->now + TWO_HOURS;
  if (prefix->valid_until <= stack->now) {
    if (valid == 0) return;
    prefix->valid_until = until;
    form(interface, prefix);
  } else if (until > two_hours || until > prefix->valid_until) {
    prefix->valid_until = until;
  } else if (prefix->valid_until > two_hours) {
    prefix->valid_until = two_hours;
  }
  prefix->preferred_until = after(stack, preferred);
}

/* Not those that mean something without a router, nor those that would be a default route. */
static bool is_advertisable(const uint8_t *prefix, unsigned bits) {
  static const uint8_t none[8];
  bool link_local = prefix[0] == 0xfe && (prefix[1] & 0xc0) == 0x80;
  return bits > 0 && bits <= 128 && prefix[0] != 0xff && !link_local && memcmp(prefix, none, sizeof none) != 0;
}

static bool hear_prefix(nst_interface *interface, const uint8_t *option, size_t size) {
  nst_slaac *slaac = interface->slaac;
  nst_slaac_prefix *prefix;
  unsigned bits = option[2], flags = option[3];
  uint32_t valid, preferred;
  bool autonomous = (flags & AUTONOMOUS) != 0, sound;
  ip_addr_t address;
  if (size != 32 || !is_advertisable(option + 16, bits)) return false;
  valid = nst_get32(option + 4);
  preferred = nst_get32(option + 8);
  sound = !autonomous || (bits == 64 && preferred <= valid); /* RFC 4862 5.5.3 (c) and (d); what is on the link is so */
  autonomous = autonomous && sound;
  read_address(interface, option + 16, &address);
  prefix = prefix_of(slaac, &address, bits);
  if (prefix == NULL) {
    if (valid == 0 || !(autonomous || (flags & ON_LINK))) return sound;
    if (slaac->prefix_count == NST_SLAAC_PREFIXES) {
      slaac->limited_prefixes++;
      return sound;
    }
    prefix = &slaac->prefixes[slaac->prefix_count++];
    memset(prefix, 0, sizeof *prefix);
    prefix->prefix.address = address;
    prefix->prefix.bits = (uint8_t)bits;
  }
  if (flags & ON_LINK) set_on_link(interface, prefix, after(interface->stack, valid));
  if (autonomous) set_lifetimes(interface, prefix, preferred, valid);
  return sound;
}

/* ---- name servers and the mtu ---- */

static void hear_server(nst_interface *interface, const ip_addr_t *address, uint32_t lifetime) {
  nst_slaac *slaac = interface->slaac;
  size_t i;
  for (i = 0; i < slaac->server_count && !ip_addr_eq(&slaac->servers[i].address, address); i++) continue;
  if (i == slaac->server_count) {
    if (lifetime == 0) return;
    if (i == NST_SLAAC_SERVERS) {
      slaac->limited_servers++;
      return;
    }
    slaac->servers[slaac->server_count++].address = *address;
  }
  slaac->servers[i].until = after(interface->stack, lifetime);
}

/* RFC 8106 §5.1 */
static bool hear_servers(nst_interface *interface, const uint8_t *option, size_t size) {
  size_t i;
  if (size < 24 || size % 16 != 8) return false;
  for (i = 8; i < size; i += 16) {
    ip_addr_t address;
    read_address(interface, option + i, &address);
    if (ip_addr_ismulticast(&address) || ip_addr_isany(&address) || ip_addr_isloopback(&address)) return false;
    hear_server(interface, &address, nst_get32(option + 4));
  }
  return true;
}

static bool hear_mtu(nst_interface *interface, const uint8_t *option, size_t size) {
  uint32_t mtu = nst_get32(option + 4);
  if (size != 8 || mtu < IP6_MIN_MTU_LENGTH || mtu > interface->mtu) return false;
  interface->slaac->mtu = interface->netifs[0].mtu6 = (u16_t)mtu;
  return true;
}

/* ---- time ---- */

static void forget_past(nst_interface *interface) {
  nst_slaac *slaac = interface->slaac;
  nst_time now = interface->stack->now;
  size_t i, kept = 0;
  for (i = 0; i < slaac->router_count; i++) {
    if (slaac->routers[i].until > now) slaac->routers[kept++] = slaac->routers[i];
  }
  slaac->router_count = kept;
  for (i = kept = 0; i < slaac->server_count; i++) {
    if (slaac->servers[i].until > now) slaac->servers[kept++] = slaac->servers[i];
  }
  slaac->server_count = kept;
  for (i = kept = 0; i < slaac->prefix_count; i++) {
    nst_slaac_prefix *prefix = &slaac->prefixes[i];
    set_on_link(interface, prefix, prefix->on_link_until);
    if (prefix->on_link || prefix->valid_until > now) slaac->prefixes[kept++] = *prefix;
  }
  slaac->prefix_count = kept;
}

static nst_time if_future(nst_time now, nst_time at) {
  return at > now ? at : NST_NEVER;
}

static nst_time next_change(const nst_slaac *slaac, nst_time now) {
  nst_time at = slaac->solicit_at;
  size_t i;
  for (i = 0; i < slaac->router_count; i++) at = earlier(at, slaac->routers[i].until);
  for (i = 0; i < slaac->server_count; i++) at = earlier(at, slaac->servers[i].until);
  for (i = 0; i < slaac->prefix_count; i++) {
    const nst_slaac_prefix *prefix = &slaac->prefixes[i];
    at = earlier(at, if_future(now, prefix->on_link_until));
    at = earlier(at, if_future(now, prefix->preferred_until));
    at = earlier(at, if_future(now, prefix->valid_until));
  }
  return at;
}

/* After anything was heard, and as time goes by. */
static void bring_up_to_date(nst_interface *interface) {
  forget_past(interface);
  set_addresses(interface);
  choose_router(interface);
  interface->slaac->at = next_change(interface->slaac, interface->stack->now);
}

/* ---- from outside ---- */

void nst_slaac_input(nst_interface *interface, const uint8_t *ip, size_t length) {
  nst_slaac *slaac = interface->slaac;
  const uint8_t *message = ip + HEADER, *station = NULL;
  size_t at = HEADER + NST_ND_ROUTER_ADVERTISEMENT_LENGTH;
  ip_addr_t source;
  read_address(interface, ip + 8, &source);
  if (length < at || nst_interface_has_address(interface, &source)) {
    slaac->ignored++;
    return;
  }
  hear_router(interface, &source, nst_get16(message + 6), message[5]);
  while (at + 8 <= length) {
    const uint8_t *option = ip + at;
    size_t size = option[1] * 8u;
    bool sound = true;
    if (size == 0 || at + size > length) break;
    switch (option[0]) {
      case NST_ND_SOURCE_STATION: station = option + 2; break;
      case NST_ND_PREFIX: sound = hear_prefix(interface, option, size); break;
      case NST_ND_MTU: sound = hear_mtu(interface, option, size); break;
      case NST_ND_SERVERS: sound = hear_servers(interface, option, size); break;
      default: break;
    }
    if (!sound) slaac->ignored++;
    at += size;
  }
  if (station && nst_interface_is_ethernet(interface) && router_of(slaac, &source)) {
    nst_neighbour_heard(interface, &source, station, NST_CLAIM_REQUEST, true);
  }
  bring_up_to_date(interface);
}

void nst_slaac_solicit(nst_interface *interface) {
  begin_asking(interface);
  bring_up_to_date(interface);
}

void nst_slaac_lose(nst_interface *interface) {
  nst_slaac *slaac = interface->slaac;
  size_t i;
  slaac->router_count = slaac->server_count = 0;
  for (i = 0; i < slaac->prefix_count; i++) {
    slaac->prefixes[i].on_link_until = slaac->prefixes[i].valid_until = interface->stack->now;
  }
  slaac->mtu = 0;
  interface->netifs[0].mtu6 = interface->mtu;
  nst_slaac_solicit(interface);
}

nst_error nst_slaac_start(nst_interface *interface) {
  static const uint8_t link_local[8] = {0xfe, 0x80};
  uint8_t identifier[8];
  if (interface->slaac) return NST_OK;
  if (interface->device == NULL || interface->mtu < IP6_MIN_MTU_LENGTH) return NST_NOT_SUPPORTED;
  interface->slaac = calloc(1, sizeof *interface->slaac);
  if (interface->slaac == NULL) return NST_NO_MEMORY;
  interface->stack->slaac_count++;
  interface->slaac->gateway = nobody;
  if (!nst_interface_is_ethernet(interface)) {
    identify(interface, link_local, 0, identifier);
    nst_interface_make_link_local(interface, identifier);
  }
  nst_slaac_solicit(interface);
  return NST_OK;
}

void nst_slaac_stop(nst_interface *interface) {
  if (interface->slaac == NULL) return;
  interface->stack->slaac_count--;
  free(interface->slaac);
  interface->slaac = NULL;
}

nst_time nst_slaac_next(const nst_stack *stack) {
  const nst_link *link;
  nst_time at = NST_NEVER;
  if (stack->slaac_count == 0) return NST_NEVER;
  for (link = stack->interfaces.next; link != &stack->interfaces; link = link->next) {
    const nst_interface *interface = nst_holder(link, nst_interface, link);
    if (interface->slaac && interface->on) at = earlier(at, interface->slaac->at);
  }
  return at;
}

bool nst_slaac_run(nst_stack *stack) {
  nst_link *link;
  bool worked = false;
  if (nst_slaac_next(stack) > stack->now) return false;
  for (link = stack->interfaces.next; link != &stack->interfaces; link = link->next) {
    nst_interface *interface = nst_holder(link, nst_interface, link);
    if (interface->slaac == NULL || !interface->on || interface->slaac->at > stack->now) continue;
    if (interface->slaac->solicit_at <= stack->now) ask(interface);
    bring_up_to_date(interface);
    worked = true;
  }
  return worked;
}
