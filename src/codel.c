#include "codel.h"

#include <math.h>

static nst_time control_law(const nst_codel_rules *rules, nst_time from, uint32_t count) {
  return from + (nst_time)((double)rules->interval / sqrt((double)count));
}

static bool too_long(nst_codel *codel, const nst_codel_rules *rules, nst_time leaves, nst_time waited, bool alone) {
  if (waited < rules->target || alone) {
    codel->first_above = 0;
    return false;
  }
  if (codel->first_above == 0) {
    codel->first_above = leaves + rules->interval;
    return false;
  }
  return leaves >= codel->first_above;
}

bool nst_codel_drops(nst_codel *codel, const nst_codel_rules *rules, nst_time leaves, nst_time waited, bool alone) {
  bool above = too_long(codel, rules, leaves, waited, alone);
  uint32_t since;
  if (!above) {
    codel->dropping = false;
    return false;
  }
  if (codel->dropping) {
    if (leaves < codel->drop_next) return false;
    codel->count++;
    codel->drop_next = control_law(rules, codel->drop_next, codel->count);
    return true;
  }
  /* RFC 8289 5.5: begins with the rate at which it ended, when that is not long ago. */
  codel->dropping = true;
  since = codel->count - codel->last_count;
  codel->count = since > 1 && leaves - codel->drop_next < 16 * rules->interval ? since : 1;
  codel->last_count = codel->count;
  codel->drop_next = control_law(rules, leaves, codel->count);
  return true;
}
