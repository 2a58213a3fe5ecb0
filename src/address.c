#include "address.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stack.h"

static nst_interface *named(nst_stack *stack, const char *name) {
  nst_link *link;
  for (link = stack->interfaces.next; link != &stack->interfaces; link = link->next) {
    nst_interface *interface = nst_holder(link, nst_interface, link);
    if (strcmp(interface->name, name) == 0) return interface;
  }
  return NULL;
}

bool nst_address_parse(nst_stack *stack, const char *text, ip_addr_t *address) {
  char plain[NST_ADDRESS_LENGTH];
  const char *zone = strchr(text, '%');
  size_t length = zone ? (size_t)(zone - text) : strlen(text);
  ip_addr_t result = IPADDR_ANY_TYPE_INIT;
  if (strcmp(text, "*") == 0) {
    *address = result;
    return true;
  }
  if (length >= sizeof plain) return false;
  memcpy(plain, text, length);
  plain[length] = '\0';
  if (zone == NULL && inet_pton(AF_INET, plain, &ip_2_ip4(&result)->addr) == 1) {
    IP_SET_TYPE_VAL(result, IPADDR_TYPE_V4);
  } else if (inet_pton(AF_INET6, plain, ip_2_ip6(&result)->addr) == 1) {
    IP_SET_TYPE_VAL(result, IPADDR_TYPE_V6);
    if (zone) {
      nst_interface *interface = stack ? named(stack, zone + 1) : NULL;
      if (interface == NULL || !ip6_addr_has_scope(ip_2_ip6(&result), IP6_UNKNOWN)) return false;
      ip6_addr_assign_zone(ip_2_ip6(&result), IP6_UNKNOWN, &interface->netifs[0]);
    }
  } else {
    return false;
  }
  *address = result;
  return true;
}

bool nst_prefix_parse(nst_stack *stack, const char *text, nst_prefix *prefix) {
  char plain[NST_ADDRESS_LENGTH];
  const char *slash = strchr(text, '/');
  size_t length = slash ? (size_t)(slash - text) : strlen(text);
  unsigned most, bits = 0;
  if (length >= sizeof plain) return false;
  memcpy(plain, text, length);
  plain[length] = '\0';
  if (!nst_address_parse(stack, plain, &prefix->address) || IP_IS_ANY_TYPE_VAL(prefix->address)) return false;
  most = IP_IS_V6(&prefix->address) ? 128 : 32;
  if (slash == NULL) {
    bits = most;
  } else {
    const char *digit = slash + 1;
    if (*digit == '\0' || strlen(digit) > 3) return false;
    for (; *digit; digit++) {
      if (*digit < '0' || *digit > '9') return false;
      bits = bits * 10 + (unsigned)(*digit - '0');
    }
    if (bits > most) return false;
  }
  prefix->bits = (uint8_t)bits;
  return true;
}

static const char *zone_of(const nst_stack *stack, const ip6_addr_t *address) {
  const nst_link *link;
  for (link = stack->interfaces.next; link != &stack->interfaces; link = link->next) {
    const nst_interface *interface = nst_holder(link, const nst_interface, link);
    if (netif_get_index(&interface->netifs[0]) == ip6_addr_zone(address)) return interface->name;
  }
  return NULL;
}

const char *nst_address_format(const nst_stack *stack, const ip_addr_t *address, char text[NST_ADDRESS_LENGTH]) {
  if (IP_IS_ANY_TYPE_VAL(*address)) {
    strcpy(text, "*");
  } else if (IP_IS_V6(address)) {
    const char *zone = NULL;
    (void)inet_ntop(AF_INET6, ip_2_ip6(address)->addr, text, INET6_ADDRSTRLEN);
    if (stack && ip6_addr_has_zone(ip_2_ip6(address))) zone = zone_of(stack, ip_2_ip6(address));
    if (zone) snprintf(text + strlen(text), NST_ADDRESS_LENGTH - strlen(text), "%%%s", zone);
  } else {
    (void)inet_ntop(AF_INET, &ip_2_ip4(address)->addr, text, INET_ADDRSTRLEN);
  }
  return text;
}

const char *nst_prefix_format(const nst_stack *stack, const nst_prefix *prefix, char text[NST_ADDRESS_LENGTH]) {
  (void)nst_address_format(stack, &prefix->address, text);
  snprintf(text + strlen(text), NST_ADDRESS_LENGTH - strlen(text), "/%u", (unsigned)prefix->bits);
  return text;
}
