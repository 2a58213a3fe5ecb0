/*
** Which stations were heard behind which port of a switch (IEEE 802.1D 7.8, 7.9). What was not heard for too long is
** forgotten when somebody looks, so no station costs a timer; with too many, the one unheard longest goes.
*/
#ifndef NST_STATIONS_H
#define NST_STATIONS_H

#include "ethernet.h"
#include "heap.h"
#include "list.h"
#include "table.h"

typedef struct nst_switch_port nst_switch_port;

typedef struct nst_station {
  nst_node node;
  nst_link age;    /* in stations->ages */
  nst_link behind; /* in the list of its port */
  nst_switch_port *port;
  nst_time heard;  /* last, by the hub's clock */
  uint8_t address[NST_MAC_LENGTH];
} nst_station;

typedef struct nst_stations {
  nst_table table;
  nst_link ages;      /* longest unheard first */
  size_t most;
  nst_time ageing;    /* so long unheard, and it is forgotten */
  uint64_t secret[2]; /* for the hash: whoever sends frames chooses the keys */
  uint64_t learned, moved, aged, evicted;
} nst_stations;

void nst_stations_init(nst_stations *all, size_t most, nst_time ageing);
/* Forgets what is too old; all others do so too. */
void nst_stations_age(nst_stations *all, nst_time now);
/* A station was heard behind a port, in whose list it is then. Without memory nothing is learned. */
void nst_stations_hear(nst_stations *all, const uint8_t *address, nst_switch_port *port, nst_link *behind,
                       nst_time now);
/* The port that a station is behind; NULL: that is not known. */
nst_switch_port *nst_stations_find(nst_stations *all, const uint8_t *address, nst_time now);
/* Forgets those in the list of a port. */
void nst_stations_forget(nst_stations *all, nst_link *behind);
void nst_stations_clear(nst_stations *all);

#endif
