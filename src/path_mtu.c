#include "path_mtu.h"

#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "stack.h"

#include "lwip/nd6.h"

/* Below these a word about IPv4 or IPv6 is not believed: nobody's link is that narrow, but an attacker may wish it
** were. RFC 8200 §5; for IPv4, where RFC 791 would allow 68, what current systems take (CVE-2004-1060). */
#define LEAST4 552
#define LEAST6 1280

/* RFC 8201 §4: at least five minutes, ten are better. */
#define LASTS (600 * NST_SECOND)
#define ENTRIES_AT_MOST 256

typedef struct nst_path {
  nst_node node; /* in stack->paths */
  nst_link link; /* in stack->path_ages: oldest first */
  ip_addr_t host;
  uint16_t mtu;
  bool fragment;
  nst_time until;
} nst_path;

static uint64_t hash_of(const nst_stack *stack, const ip_addr_t *host) {
  return nst_siphash(stack->secret, nst_address_bytes(host), nst_address_size(host));
}

static void forget(nst_stack *stack, nst_path *path) {
  nst_table_remove(&stack->paths, &path->node);
  nst_list_remove(&path->link);
  free(path);
}

static nst_path *find(nst_stack *stack, const ip_addr_t *host) {
  uint64_t hash;
  nst_node *node;
  if (stack->paths.count == 0) return NULL;
  hash = hash_of(stack, host);
  for (node = nst_table_bucket(&stack->paths, hash); node; node = node->next) {
    nst_path *path = nst_holder(node, nst_path, node);
    if (node->hash != hash || !ip_addr_eq(&path->host, host)) continue;
    if (path->until > stack->now) return path;
    forget(stack, path);
    return NULL;
  }
  return NULL;
}

uint16_t nst_path_mtu(nst_stack *stack, const ip_addr_t *host, uint16_t mtu, bool *fragment) {
  const nst_path *path = find(stack, host);
  if (fragment) *fragment = path && path->fragment;
  return path && path->mtu < mtu ? path->mtu : mtu;
}

void nst_path_mtu_learn(nst_stack *stack, const ip_addr_t *host, uint16_t mtu) {
  uint16_t least = IP_IS_V6(host) ? LEAST6 : LEAST4;
  nst_path *path;
  if (NST_GUARDED && IP_IS_V6(host) && mtu < least) return; /* RFC 8201 §4 */
  path = find(stack, host);
  if (path == NULL) {
    if (stack->paths.count >= ENTRIES_AT_MOST) forget(stack, nst_holder(stack->path_ages.next, nst_path, link));
    path = calloc(1, sizeof *path);
    if (path == NULL) return;
    path->host = *host;
    path->mtu = 0xffff;
    nst_list_init(&path->link);
    if (!nst_table_insert(&stack->paths, &path->node, hash_of(stack, host))) {
      free(path);
      return;
    }
  }
  nst_list_remove(&path->link);
  nst_list_append(&stack->path_ages, &path->link);
  path->until = stack->now + LASTS;
  if (mtu < least) {
    path->fragment = true;
    mtu = least;
  }
  if (mtu < path->mtu) path->mtu = mtu; /* RFC 8201 §4: a word never makes it wider */
}

void nst_path_mtu_clear(nst_stack *stack) {
  while (!nst_list_empty(&stack->path_ages)) forget(stack, nst_holder(stack->path_ages.next, nst_path, link));
  nst_table_free(&stack->paths);
}

u16_t __wrap_nd6_get_destination_mtu(const ip6_addr_t *host, struct netif *netif);

/* lwIP keeps path MTUs with its neighbours, and believes whoever names one. */
u16_t __wrap_nd6_get_destination_mtu(const ip6_addr_t *host, struct netif *netif) {
  ip_addr_t to;
  u16_t mtu = netif ? netif_mtu6(netif) : 0;
  if (mtu == 0) mtu = LEAST6;
  ip_addr_copy_from_ip6(to, *host);
  return nst_path_mtu(nst_current(), &to, mtu, NULL);
}
