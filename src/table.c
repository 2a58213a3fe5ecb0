#include "table.h"

#include <stdlib.h>

static bool grow(nst_table *table) {
  size_t size = table->size ? table->size * 2 : 8;
  nst_node **buckets = calloc(size, sizeof *buckets);
  size_t i;
  if (buckets == NULL) return false;
  for (i = 0; i < table->size; i++) {
    nst_node *node = table->buckets[i];
    while (node) {
      nst_node *next = node->next;
      node->next = buckets[node->hash & (size - 1)];
      buckets[node->hash & (size - 1)] = node;
      node = next;
    }
  }
  free(table->buckets);
  table->buckets = buckets;
  table->size = size;
  return true;
}

bool nst_table_insert(nst_table *table, nst_node *node, uint64_t hash) {
  nst_node **bucket;
  if (table->count >= table->size && !grow(table)) return false;
  bucket = &table->buckets[hash & (table->size - 1)];
  node->hash = hash;
  node->next = *bucket;
  node->linked = true;
  *bucket = node;
  table->count++;
  return true;
}

void nst_table_remove(nst_table *table, nst_node *node) {
  nst_node **place;
  if (!node->linked) return;
  place = &table->buckets[node->hash & (table->size - 1)];
  while (*place != node) place = &(*place)->next;
  *place = node->next;
  node->linked = false;
  table->count--;
}

nst_node *nst_table_bucket(const nst_table *table, uint64_t hash) {
  return table->size ? table->buckets[hash & (table->size - 1)] : NULL;
}

void nst_table_free(nst_table *table) {
  free(table->buckets);
  table->buckets = NULL;
  table->size = table->count = 0;
}
