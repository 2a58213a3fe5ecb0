/*
** Memory for packets and for lwIP. Blocks come from a pool of free blocks by size, shared by the stacks of one Lua
** state, and each block in use knows its owner: a stack that dies in an assertion cannot be trusted to free its
** memory, so its owner does; and a stack that is closed in order must have left none (stats().memory shows it).
*/
#ifndef NST_MEMORY_H
#define NST_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "list.h"

#define NST_MEMORY_CLASSES 12

/* Free blocks, by size class. */
typedef struct nst_pool {
  void *free[NST_MEMORY_CLASSES];
  size_t kept; /* bytes in free blocks */
} nst_pool;

/* Who owns blocks; counts them. */
typedef struct nst_owner {
  nst_link blocks;
  size_t count;
  size_t bytes;
} nst_owner;

void nst_owner_init(nst_owner *owner);
/* Owner may be NULL: a packet that lies in a device's queue. NULL when memory ran out. 8-byte aligned. */
void *nst_memory_alloc(nst_pool *pool, nst_owner *owner, size_t size);
void nst_memory_free(nst_pool *pool, void *memory);
/* Moves a block to another owner (or to none). */
void nst_memory_give(void *memory, nst_owner *owner);
/* Frees all that the owner has. */
void nst_owner_clear(nst_owner *owner, nst_pool *pool);
/* Gives the free blocks back to the system. */
void nst_pool_clear(nst_pool *pool);

#endif
