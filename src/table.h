/*
** A hash table of things that carry their own node. It grows with what is in it; the caller hashes and compares.
*/
#ifndef NST_TABLE_H
#define NST_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct nst_node {
  struct nst_node *next;
  uint64_t hash;
  bool linked;
} nst_node;

typedef struct nst_table {
  nst_node **buckets;
  size_t size; /* a power of two, or 0 before the first insertion */
  size_t count;
} nst_table;

/* false when memory ran out. */
bool nst_table_insert(nst_table *table, nst_node *node, uint64_t hash);
void nst_table_remove(nst_table *table, nst_node *node);
/* The first node of the bucket where `hash` belongs; walk with ->next, comparing hash and key. */
nst_node *nst_table_bucket(const nst_table *table, uint64_t hash);
void nst_table_free(nst_table *table);

#endif
