#include "memory.h"

#include <stdlib.h>

/* What stands before each block. */
typedef struct nst_block {
  nst_link link;    /* in owner->blocks while in use; link.next is the next free block while free */
  nst_owner *owner;
  uint32_t size;    /* usable bytes */
  uint32_t class;   /* index in pool->free, or NST_MEMORY_CLASSES: too large to keep */
} nst_block;

/* A packet of 1500 bytes with its header, and one of 65,535, get classes of their own. */
static const uint32_t class_size[NST_MEMORY_CLASSES] = {64,   128,  192,  320,  512,   1024,
                                                        1792, 4096, 9600, 18432, 36864, 66560};

/* More than this many bytes of free blocks go back to the system. */
#define KEEP_AT_MOST ((size_t)4 << 20)

#if defined(__SANITIZE_ADDRESS__)
#define POOLED 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POOLED 0
#endif
#endif
#ifndef POOLED
#define POOLED 1 /* under the address sanitizer every block is one of malloc's, so that it sees each overrun */
#endif

void nst_owner_init(nst_owner *owner) {
  nst_list_init(&owner->blocks);
  owner->count = owner->bytes = 0;
}

static uint32_t class_of(size_t size) {
  uint32_t class = 0;
  while (class < NST_MEMORY_CLASSES && class_size[class] < size) class++;
  return class;
}

void nst_memory_give(void *memory, nst_owner *owner) {
  nst_block *block = (nst_block *)memory - 1;
  if (block->owner) {
    nst_list_remove(&block->link);
    block->owner->count--;
    block->owner->bytes -= block->size;
  }
  block->owner = owner;
  if (owner) {
    nst_list_append(&owner->blocks, &block->link);
    owner->count++;
    owner->bytes += block->size;
  }
}

void *nst_memory_alloc(nst_pool *pool, nst_owner *owner, size_t size) {
  uint32_t class = POOLED ? class_of(size) : NST_MEMORY_CLASSES;
  nst_block *block;
  if (size > UINT32_MAX - sizeof *block) return NULL;
  if (class < NST_MEMORY_CLASSES && pool->free[class]) {
    block = pool->free[class];
    pool->free[class] = block->link.next;
    pool->kept -= block->size;
  } else {
    size_t usable = class < NST_MEMORY_CLASSES ? class_size[class] : size;
    block = malloc(sizeof *block + usable);
    if (block == NULL) return NULL;
    block->size = (uint32_t)usable;
    block->class = class;
  }
  nst_list_init(&block->link);
  block->owner = NULL;
  nst_memory_give(block + 1, owner);
  return block + 1;
}

void nst_memory_free(nst_pool *pool, void *memory) {
  nst_block *block;
  if (memory == NULL) return;
  block = (nst_block *)memory - 1;
  nst_memory_give(memory, NULL);
  if (block->class < NST_MEMORY_CLASSES && pool->kept + block->size <= KEEP_AT_MOST) {
    block->link.next = pool->free[block->class];
    pool->free[block->class] = block;
    pool->kept += block->size;
  } else {
    free(block);
  }
}

void nst_owner_clear(nst_owner *owner, nst_pool *pool) {
  while (!nst_list_empty(&owner->blocks)) {
    nst_memory_free(pool, nst_holder(owner->blocks.next, nst_block, link) + 1);
  }
}

void nst_pool_clear(nst_pool *pool) {
  int class;
  for (class = 0; class < NST_MEMORY_CLASSES; class++) {
    while (pool->free[class]) {
      nst_block *block = pool->free[class];
      pool->free[class] = block->link.next;
      free(block);
    }
  }
  pool->kept = 0;
}
