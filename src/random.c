#include "random.h"

#include <pthread.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

/* Counts the forks between us and the first process; read on every refill. */
static volatile unsigned process_generation;
static pthread_once_t watch_forks = PTHREAD_ONCE_INIT;

static void count_fork(void) {
  process_generation++;
}

static void watch_forks_once(void) {
  (void)pthread_atfork(NULL, NULL, count_fork);
}

static uint32_t rotate(uint32_t value, int bits) {
  return (value << bits) | (value >> (32 - bits));
}

static inline __attribute__((always_inline)) void quarter(uint32_t *x, int a, int b, int c, int d) {
  x[a] += x[b];
  x[d] = rotate(x[d] ^ x[a], 16);
  x[c] += x[d];
  x[b] = rotate(x[b] ^ x[c], 12);
  x[a] += x[b];
  x[d] = rotate(x[d] ^ x[a], 8);
  x[c] += x[d];
  x[b] = rotate(x[b] ^ x[c], 7);
}

/* The next 64 bytes of the key stream (RFC 8439 §2.3, with a 64-bit counter and no nonce). */
static void refill(nst_random *random) {
  uint32_t start[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
  uint32_t x[16];
  int i;
  memcpy(start + 4, random->key, sizeof random->key);
  start[12] = (uint32_t)random->counter;
  start[13] = (uint32_t)(random->counter >> 32);
  start[14] = start[15] = 0;
  memcpy(x, start, sizeof x);
  for (i = 0; i < 10; i++) {
    quarter(x, 0, 4, 8, 12);
    quarter(x, 1, 5, 9, 13);
    quarter(x, 2, 6, 10, 14);
    quarter(x, 3, 7, 11, 15);
    quarter(x, 0, 5, 10, 15);
    quarter(x, 1, 6, 11, 12);
    quarter(x, 2, 7, 8, 13);
    quarter(x, 3, 4, 9, 14);
  }
  for (i = 0; i < 16; i++) {
    uint32_t word = x[i] + start[i];
    random->bytes[4 * i] = (uint8_t)word; /* little-endian on every machine: a seed means the same everywhere */
    random->bytes[4 * i + 1] = (uint8_t)(word >> 8);
    random->bytes[4 * i + 2] = (uint8_t)(word >> 16);
    random->bytes[4 * i + 3] = (uint8_t)(word >> 24);
  }
  random->counter++;
  random->used = 0;
}

void nst_random_from_os(nst_random *random) {
  size_t have = 0;
  (void)pthread_once(&watch_forks, watch_forks_once);
  while (have < sizeof random->key) {
    ssize_t got = getrandom((char *)random->key + have, sizeof random->key - have, 0);
    if (got > 0) {
      have += (size_t)got;
    } else if (got < 0) { /* a kernel without getrandom: the clock and the process are the best there is */
      struct timespec now;
      clock_gettime(CLOCK_REALTIME, &now);
      random->key[0] ^= (uint32_t)now.tv_nsec;
      random->key[1] ^= (uint32_t)now.tv_sec;
      random->key[2] ^= (uint32_t)getpid();
      break;
    }
  }
  random->counter = 0;
  random->used = sizeof random->bytes;
  random->generation = process_generation;
  random->seeded = false;
}

void nst_random_from_seed(nst_random *random, uint64_t seed) {
  int i;
  for (i = 0; i < 4; i++) { /* splitmix64 spreads the seed over the key */
    uint64_t z = (seed += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    z ^= z >> 31;
    random->key[2 * i] = (uint32_t)z;
    random->key[2 * i + 1] = (uint32_t)(z >> 32);
  }
  random->counter = 0;
  random->used = sizeof random->bytes;
  random->seeded = true;
}

void nst_random_fill(nst_random *random, void *to, size_t length) {
  uint8_t *out = to;
  if (!random->seeded && random->generation != process_generation) nst_random_from_os(random);
  while (length-- > 0) {
    if (random->used == sizeof random->bytes) refill(random);
    *out++ = random->bytes[random->used++];
  }
}

uint32_t nst_random_u32(nst_random *random) {
  uint8_t taken[4];
  const uint8_t *b = taken;
  if (random->used + 4 <= sizeof random->bytes && (random->seeded || random->generation == process_generation)) {
    b = random->bytes + random->used;
    random->used += 4;
  } else {
    nst_random_fill(random, taken, sizeof taken);
  }
  return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static uint64_t rotate64(uint64_t value, int bits) {
  return (value << bits) | (value >> (64 - bits));
}

static inline __attribute__((always_inline)) void sip_round(uint64_t v[4]) {
  v[0] += v[1];
  v[1] = rotate64(v[1], 13) ^ v[0];
  v[0] = rotate64(v[0], 32);
  v[2] += v[3];
  v[3] = rotate64(v[3], 16) ^ v[2];
  v[0] += v[3];
  v[3] = rotate64(v[3], 21) ^ v[0];
  v[2] += v[1];
  v[1] = rotate64(v[1], 17) ^ v[2];
  v[2] = rotate64(v[2], 32);
}

uint64_t nst_siphash(const uint64_t key[2], const void *data, size_t length) {
  const uint8_t *in = data;
  uint64_t v[4], word = (uint64_t)length << 56;
  size_t i;
  int n;
  v[0] = key[0] ^ UINT64_C(0x736f6d6570736575);
  v[1] = key[1] ^ UINT64_C(0x646f72616e646f6d);
  v[2] = key[0] ^ UINT64_C(0x6c7967656e657261);
  v[3] = key[1] ^ UINT64_C(0x7465646279746573);
  for (i = 0; i + 8 <= length; i += 8) {
    uint64_t block;
    memcpy(&block, in + i, 8);
    v[3] ^= block;
    sip_round(v);
    sip_round(v);
    v[0] ^= block;
  }
  for (; i < length; i++) word |= (uint64_t)in[i] << (8 * (i % 8));
  v[3] ^= word;
  sip_round(v);
  sip_round(v);
  v[0] ^= word;
  v[2] ^= 0xff;
  for (n = 0; n < 4; n++) sip_round(v);
  return v[0] ^ v[1] ^ v[2] ^ v[3];
}
