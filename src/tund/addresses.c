#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tund.h"

static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

int nst_tund_family(const nst_tund_address *address) {
  return memcmp(address->bytes, mapped, sizeof mapped) == 0 ? NST_TUND_IPV4 : NST_TUND_IPV6;
}

bool nst_tund_read_prefix(const char *text, nst_tund_prefix *prefix) {
  char host[64];
  size_t length = strcspn(text, "/");
  unsigned long bits, most;
  char *end;
  if (length >= sizeof host) return false;
  memcpy(host, text, length);
  host[length] = '\0';
  memcpy(prefix->address.bytes, mapped, sizeof mapped);
  if (inet_pton(AF_INET, host, prefix->address.bytes + sizeof mapped) == 1) {
    most = 32;
  } else if (inet_pton(AF_INET6, host, prefix->address.bytes) == 1) {
    most = 128;
    if (nst_tund_family(&prefix->address) == NST_TUND_IPV4) return false;
  } else {
    return false;
  }
  bits = most;
  if (text[length] == '/') {
    text += length + 1;
    if (*text < '0' || *text > '9') return false;
    bits = strtoul(text, &end, 10);
    if (*end != '\0' || bits == 0 || bits > most) return false;
  }
  prefix->bits = (unsigned)(bits + 128 - most);
  return true;
}

void nst_tund_write_prefix(const nst_tund_address *address, unsigned bits, char *text) {
  bool v4 = nst_tund_family(address) == NST_TUND_IPV4;
  (void)inet_ntop(v4 ? AF_INET : AF_INET6, address->bytes + (v4 ? sizeof mapped : 0), text, INET6_ADDRSTRLEN);
  if (bits) sprintf(text + strlen(text), "/%u", v4 ? bits - 96 : bits);
}

/* Whether the bits from `first` on, up to `last`, are those of `other`; NULL: are all `fill`. */
static bool bits_are(const nst_tund_address *address, unsigned first, unsigned last, const nst_tund_address *other,
                     unsigned fill) {
  unsigned i;
  for (i = first; i < last; i++) {
    unsigned shift = 7 - i % 8, bit = address->bytes[i / 8] >> shift & 1;
    if (bit != (other ? (unsigned)(other->bytes[i / 8] >> shift & 1) : fill)) return false;
  }
  return true;
}

bool nst_tund_within(const nst_tund_address *address, const nst_tund_prefix *prefix) {
  return prefix->bits != 0 && bits_are(address, 0, prefix->bits, &prefix->address, 0);
}

const char *nst_tund_unfit(const nst_tund *tund, const nst_tund_address *address) {
  int family = nst_tund_family(address);
  const nst_tund_prefix *network = &tund->networks[family];
  if (!nst_tund_within(address, network)) return "outside the network";
  if (memcmp(address, &network->address, sizeof *address) == 0) return "is the host's";
  if (network->bits >= 127) return NULL; /* both of a /31 and a /127 are hosts': RFC 3021, RFC 6164 */
  if (bits_are(address, network->bits, 128, NULL, 0)) return "is the network's"; /* RFC 4291 2.6.1 */
  if (family == NST_TUND_IPV4 && bits_are(address, network->bits, 128, NULL, 1)) return "is for broadcasts";
  return NULL;
}

/* Where it is, or would be. */
static size_t place_of(const nst_tund *tund, const nst_tund_address *address) {
  size_t low = 0, high = tund->holder_count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (memcmp(&tund->holders[middle].address, address, sizeof *address) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

nst_tund_client *nst_tund_find(const nst_tund *tund, const nst_tund_address *address) {
  size_t place = place_of(tund, address);
  if (place == tund->holder_count || memcmp(&tund->holders[place].address, address, sizeof *address) != 0) return NULL;
  return tund->holders[place].client;
}

void nst_tund_hold(nst_tund *tund, const nst_tund_address *address, nst_tund_client *client) {
  size_t place = place_of(tund, address);
  nst_tund_holder *holder = &tund->holders[place];
  memmove(holder + 1, holder, (tund->holder_count - place) * sizeof *holder);
  holder->address = *address;
  holder->client = client;
  tund->holder_count++;
}

void nst_tund_let_go(nst_tund *tund, const nst_tund_address *address) {
  size_t place = place_of(tund, address);
  nst_tund_holder *holder = &tund->holders[place];
  memmove(holder, holder + 1, (tund->holder_count - place - 1) * sizeof *holder);
  tund->holder_count--;
}

/* Each lease goes on where the last one ended, so that an address rests before it is another's. */
bool nst_tund_lease(nst_tund *tund, int family, nst_tund_address *address) {
  const nst_tund_prefix *pool = &tund->pools[family];
  unsigned host_bits = 128 - pool->bits;
  uint32_t size = host_bits > 16 ? 65536 : (uint32_t)1 << host_bits, i;
  for (i = 0; i < size; i++) {
    uint32_t number = tund->cursors[family]++ % size;
    unsigned bit;
    *address = pool->address;
    for (bit = 0; bit < host_bits; bit++) {
      unsigned at = 127 - bit, mask = 1u << (7 - at % 8);
      address->bytes[at / 8] &= (uint8_t)~mask;
      if (bit < 16 && (number >> bit & 1)) address->bytes[at / 8] |= (uint8_t)mask;
    }
    if (nst_tund_unfit(tund, address) == NULL && nst_tund_find(tund, address) == NULL) return true;
  }
  return false;
}
