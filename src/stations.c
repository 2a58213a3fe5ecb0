#include "stations.h"

#include <stdlib.h>
#include <string.h>

#include "random.h"

static nst_station *oldest(const nst_stations *all) {
  return nst_list_empty(&all->ages) ? NULL : nst_holder(all->ages.next, nst_station, age);
}

static void forget(nst_stations *all, nst_station *station) {
  nst_table_remove(&all->table, &station->node);
  nst_list_remove(&station->age);
  nst_list_remove(&station->behind);
  free(station);
}

static nst_station *find(const nst_stations *all, const uint8_t *address, uint64_t hash) {
  nst_node *node;
  for (node = nst_table_bucket(&all->table, hash); node; node = node->next) {
    nst_station *station = nst_holder(node, nst_station, node);
    if (memcmp(station->address, address, NST_MAC_LENGTH) == 0) return station;
  }
  return NULL;
}

static uint64_t hash_of(const nst_stations *all, const uint8_t *address) {
  return nst_siphash(all->secret, address, NST_MAC_LENGTH);
}

void nst_stations_init(nst_stations *all, size_t most, nst_time ageing) {
  nst_random random;
  memset(all, 0, sizeof *all);
  nst_list_init(&all->ages);
  all->most = most;
  all->ageing = ageing;
  nst_random_from_os(&random);
  nst_random_fill(&random, all->secret, sizeof all->secret);
}

void nst_stations_age(nst_stations *all, nst_time now) {
  nst_station *station;
  while ((station = oldest(all)) != NULL && now - station->heard >= all->ageing) {
    all->aged++;
    forget(all, station);
  }
}

static nst_station *add(nst_stations *all, const uint8_t *address, uint64_t hash) {
  nst_station *station = calloc(1, sizeof *station);
  if (station == NULL) return NULL;
  if (!nst_table_insert(&all->table, &station->node, hash)) {
    free(station);
    return NULL;
  }
  memcpy(station->address, address, NST_MAC_LENGTH);
  nst_list_init(&station->age);
  nst_list_init(&station->behind);
  all->learned++;
  if (all->table.count > all->most) {
    all->evicted++;
    forget(all, oldest(all));
  }
  return station;
}

void nst_stations_hear(nst_stations *all, const uint8_t *address, nst_switch_port *port, nst_link *behind,
                       nst_time now) {
  uint64_t hash = hash_of(all, address);
  nst_station *station;
  nst_stations_age(all, now);
  station = find(all, address, hash);
  if (station == NULL) station = add(all, address, hash);
  if (station == NULL) return;
  if (station->port != port) {
    if (station->port) all->moved++;
    station->port = port;
    nst_list_remove(&station->behind);
    nst_list_append(behind, &station->behind);
  }
  station->heard = now;
  nst_list_remove(&station->age);
  nst_list_append(&all->ages, &station->age);
}

nst_switch_port *nst_stations_find(nst_stations *all, const uint8_t *address, nst_time now) {
  nst_station *station;
  nst_stations_age(all, now);
  station = find(all, address, hash_of(all, address));
  return station ? station->port : NULL;
}

void nst_stations_forget(nst_stations *all, nst_link *behind) {
  while (!nst_list_empty(behind)) forget(all, nst_holder(behind->next, nst_station, behind));
}

void nst_stations_clear(nst_stations *all) {
  nst_station *station;
  while ((station = oldest(all)) != NULL) forget(all, station);
  nst_table_free(&all->table);
}
