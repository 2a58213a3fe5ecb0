#include "weather.h"

#include <math.h>
#include <string.h>

/* Places in a packet's random words: an injector has two, at twice its number; then these. */
#define MODEL_MOVE (2 * NST_INJECTORS)
#define MODEL_LOSS (2 * NST_INJECTORS + 1)
#define PLACE (2 * NST_INJECTORS + 2)
#define WORDS 16

#define TWO_PI 6.283185307179586
#define SQRT_HALF 0.7071067811865476

typedef struct draws {
  nst_sky *sky;
  uint32_t words[WORDS];
} draws;

void nst_sky_init(nst_sky *sky, uint64_t seed) {
  memset(sky, 0, sizeof *sky);
  nst_random_from_seed(&sky->random, seed);
}

/* In (0, 1): never an end, so that a share of 0 never happens and one of 1 always does. */
static double uniform(const draws *d, int place) {
  return ((double)d->words[place] + 0.5) / 4294967296.0;
}

static double normal(draws *d, nst_injector injector, double correlation) {
  double radius = sqrt(-2 * log(uniform(d, 2 * (int)injector)));
  double z = radius * cos(TWO_PI * uniform(d, 2 * (int)injector + 1));
  if (d->sky->begun[injector]) {
    z = correlation * d->sky->last[injector] + sqrt(1 - correlation * correlation) * z;
  }
  d->sky->begun[injector] = true;
  d->sky->last[injector] = z;
  return z;
}

static double share(draws *d, nst_injector injector, double correlation) {
  if (!(correlation > 0)) return uniform(d, 2 * (int)injector);
  return 0.5 * erfc(-SQRT_HALF * normal(d, injector, correlation));
}

static bool happens(draws *d, nst_injector injector, double chance, double correlation) {
  return chance > 0 && share(d, injector, correlation) < chance;
}

static bool model_loses(const nst_weather *w, draws *d) {
  bool bad = d->sky->bad;
  if (!w->has_model) return false;
  if (uniform(d, MODEL_MOVE) < (bad ? w->r : w->p)) d->sky->bad = !bad;
  return uniform(d, MODEL_LOSS) >= (bad ? w->h : w->k);
}

/* With mean 0. Pareto's shape is 3, netem's; its standard deviation is then sqrt(3/4) of its scale. */
static double deviate(const nst_weather *w, draws *d) {
  switch (w->distribution) {
    case NST_NORMAL: return normal(d, NST_JITTER, w->correlation);
    case NST_PARETO: return (pow(1 - share(d, NST_JITTER, w->correlation), -1.0 / 3) - 1.5) / sqrt(0.75);
    default: return 2 * share(d, NST_JITTER, w->correlation) - 1;
  }
}

nst_fate nst_weather_draw(const nst_weather *w, nst_sky *sky, uint64_t number, bool copy) {
  nst_fate fate;
  draws d;
  int i;
  memset(&fate, 0, sizeof fate);
  fate.delay = w->delay;
  if (!w->has_model && !(w->loss + w->duplicate + w->corrupt + w->reorder > 0) && w->jitter == 0) return fate;
  d.sky = sky;
  sky->random.counter = 2 * number + copy; /* a block of the key stream each */
  sky->random.used = sizeof sky->random.bytes;
  for (i = 0; i < WORDS; i++) d.words[i] = nst_random_u32(&sky->random);
  fate.duplicate = !copy && happens(&d, NST_DUPLICATE, w->duplicate, w->duplicate_correlation);
  fate.lost = model_loses(w, &d);
  fate.lost = happens(&d, NST_LOSS, w->loss, w->loss_correlation) || fate.lost;
  fate.corrupt = happens(&d, NST_CORRUPT, w->corrupt, w->corrupt_correlation);
  fate.place = d.words[PLACE];
  fate.reorder = happens(&d, NST_REORDER, w->reorder, w->reorder_correlation);
  if (w->jitter > 0) {
    double moved = (double)w->jitter * deviate(w, &d);
    /* A correlated share may round to 1, where Pareto's tail is infinite. */
    fate.delay = moved < (double)NST_LATEST ? fate.delay + (nst_time)llround(moved) : NST_LATEST;
    if (fate.delay < 0) fate.delay = 0;
    if (fate.delay > NST_LATEST) fate.delay = NST_LATEST;
  }
  return fate;
}
