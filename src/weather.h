/*
** Weather: what a link does to packets, in netem's words. Each packet has 64 random bytes of its own, found by its
** number, and each injector its place in them: a change to one injector moves no draw of another.
**
** The order is netem's: duplication, loss, corruption, then (link.c) queue and rate, then reordering or delay. A copy
** goes through all but duplication again, with draws of its own.
**
** Unlike netem's, correlation leaves the distribution as it was asked for: normal deviates are correlated, each with
** the one before by the given coefficient, and then mapped to the distribution.
*/
#ifndef NST_WEATHER_H
#define NST_WEATHER_H

#include "heap.h"
#include "random.h"

typedef enum nst_distribution { NST_UNIFORM, NST_NORMAL, NST_PARETO } nst_distribution;

/* Shares and correlations are 0 to 1. */
typedef struct nst_weather {
  nst_time delay, jitter;
  nst_distribution distribution; /* uniform: delay ± jitter; else jitter is the standard deviation */
  double correlation;
  double loss, loss_correlation;
  /*
  ** Gilbert-Elliott, netem's `gemodel p r 1-h 1-k`: p and r are the chances to go from good to bad and back, k and h
  ** those to get through in good and in bad. A packet meets the state before its transition.
  */
  bool has_model;
  double p, r, k, h;
  double duplicate, duplicate_correlation;
  double reorder, reorder_correlation;
  double corrupt, corrupt_correlation;
} nst_weather;

typedef enum nst_injector { NST_DUPLICATE, NST_LOSS, NST_CORRUPT, NST_REORDER, NST_JITTER, NST_INJECTORS } nst_injector;

typedef struct nst_sky {
  nst_random random;
  double last[NST_INJECTORS]; /* normal deviates */
  bool begun[NST_INJECTORS];
  bool bad;                   /* Gilbert-Elliott's state */
} nst_sky;

typedef struct nst_fate {
  bool duplicate, lost, corrupt, reorder;
  uint32_t place; /* which bit is flipped, as a share of 2^32 */
  nst_time delay;
} nst_fate;

void nst_sky_init(nst_sky *sky, uint64_t seed);
/* What becomes of packet `number`, or of its copy. */
nst_fate nst_weather_draw(const nst_weather *weather, nst_sky *sky, uint64_t number, bool copy);

#endif
