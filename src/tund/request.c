/* What a client asks for, and gets. */
#include <stdio.h>
#include <string.h>

#include "tund.h"

const char *nst_tund_read_request(const nst_tund *tund, nst_tund_client *client, char *line) {
  static char why[160];
  const char *word;
  char *rest;
  size_t count = 0, i;
  if (strtok_r(line, " ", &rest) == NULL || strcmp(line, "netstack") != 0) return "no request of netstack's";
  word = strtok_r(NULL, " ", &rest);
  if (word == NULL || strcmp(word, "1") != 0) return "another version of the protocol: 1 is spoken here";
  while ((word = strtok_r(NULL, " ", &rest)) != NULL) {
    nst_tund_prefix prefix;
    const char *unfit;
    if (count == NST_TUND_ADDRESSES) return "more than 16 addresses";
    /* A prefix is taken for its address: the network's length is ours to say. */
    if (!nst_tund_read_prefix(word, &prefix)) unfit = "is no address";
    else unfit = nst_tund_unfit(tund, &prefix.address);
    for (i = 0; unfit == NULL && i < count; i++) {
      if (memcmp(&client->addresses[i], &prefix.address, sizeof prefix.address) == 0) unfit = "is named twice";
    }
    if (unfit) {
      snprintf(why, sizeof why, "%.64s %s", word, unfit);
      return why;
    }
    client->addresses[count++] = prefix.address;
  }
  client->address_count = count;
  client->named = count > 0;
  if (client->named || tund->pools[NST_TUND_IPV4].bits || tund->pools[NST_TUND_IPV6].bits) return NULL;
  return "no address is asked for, and there is no pool";
}

static const char *check_named(const nst_tund *tund, const nst_tund_client *client) {
  static char why[96];
  size_t i;
  for (i = 0; i < client->address_count; i++) {
    char text[64];
    if (nst_tund_find(tund, &client->addresses[i]) == NULL) continue;
    nst_tund_write_prefix(&client->addresses[i], 0, text);
    snprintf(why, sizeof why, "%s is another client's", text);
    return why;
  }
  return NULL;
}

/* One of each pool. */
static const char *choose(nst_tund *tund, nst_tund_client *client) {
  int family;
  client->address_count = 0;
  for (family = 0; family < NST_TUND_FAMILIES; family++) {
    if (tund->pools[family].bits == 0) continue;
    if (!nst_tund_lease(tund, family, &client->addresses[client->address_count])) {
      client->address_count = 0;
      return "all addresses of the pool are in use";
    }
    client->address_count++;
  }
  return NULL;
}

const char *nst_tund_grant(nst_tund *tund, nst_tund_client *client) {
  const char *why = client->named ? check_named(tund, client) : choose(tund, client);
  size_t i;
  if (why) return why;
  for (i = 0; i < client->address_count; i++) nst_tund_hold(tund, &client->addresses[i], client);
  client->state = NST_TUND_GRANTED;
  return NULL;
}

size_t nst_tund_write_grant(const nst_tund *tund, const nst_tund_client *client, char *line) {
  size_t length = (size_t)sprintf(line, "granted mtu=%u", tund->mtu), i;
  bool gateways[NST_TUND_FAMILIES] = {false, false};
  char text[64];
  int family;
  for (i = 0; i < client->address_count; i++) {
    family = nst_tund_family(&client->addresses[i]);
    gateways[family] = true;
    nst_tund_write_prefix(&client->addresses[i], tund->networks[family].bits, text);
    length += (size_t)sprintf(line + length, " address=%s", text);
  }
  for (family = 0; family < NST_TUND_FAMILIES; family++) {
    if (!gateways[family]) continue;
    nst_tund_write_prefix(&tund->networks[family].address, 0, text);
    length += (size_t)sprintf(line + length, " gateway=%s", text);
  }
  line[length++] = '\n';
  return length;
}
