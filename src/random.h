/*
** Random numbers, one generator a stack: ChaCha20 (RFC 8439) keyed from the OS, or from the user's seed when the
** run is to be repeatable. A generator keyed from the OS takes a new key after fork(), so that two worker processes
** never share sequence numbers or ports.
*/
#ifndef NST_RANDOM_H
#define NST_RANDOM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct nst_random {
  uint32_t key[8];
  uint64_t counter;
  uint8_t bytes[64];
  unsigned used;       /* of bytes[] */
  unsigned generation; /* of the process, when the key was made */
  bool seeded;
} nst_random;

void nst_random_from_os(nst_random *random);
void nst_random_from_seed(nst_random *random, uint64_t seed);
uint32_t nst_random_u32(nst_random *random);
void nst_random_fill(nst_random *random, void *to, size_t length);
/* SipHash-2-4: for tables whose keys an attacker chooses, and for RFC 6528's F. */
uint64_t nst_siphash(const uint64_t key[2], const void *data, size_t length);

#endif
