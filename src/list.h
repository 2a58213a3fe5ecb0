/*
** Intrusive queues: a queue of things that carry their own link, so that queueing never allocates and never fails.
** A link that is in no queue points to itself; removing it is then harmless.
*/
#ifndef NST_LIST_H
#define NST_LIST_H

#include <stdbool.h>
#include <stddef.h>

typedef struct nst_link {
  struct nst_link *next;
  struct nst_link *previous;
} nst_link;

/* The thing that carries this link. */
#define nst_holder(link, type, member) ((type *)(void *)((char *)(link) - offsetof(type, member)))

static inline void nst_list_init(nst_link *list) {
  list->next = list->previous = list;
}

static inline bool nst_list_empty(const nst_link *list) {
  return list->next == list;
}

/* Whether a thing is in some queue. The same test as emptiness, but it reads differently. */
static inline bool nst_list_linked(const nst_link *link) {
  return link->next != link;
}

static inline void nst_list_remove(nst_link *link) {
  link->next->previous = link->previous;
  link->previous->next = link->next;
  nst_list_init(link);
}

static inline void nst_list_insert_before(nst_link *place, nst_link *link) {
  link->next = place;
  link->previous = place->previous;
  place->previous->next = link;
  place->previous = link;
}

static inline void nst_list_append(nst_link *list, nst_link *link) {
  nst_list_insert_before(list, link);
}

static inline void nst_list_prepend(nst_link *list, nst_link *link) {
  nst_list_insert_before(list->next, link);
}

/* Takes the first link out; NULL when the queue is empty. */
static inline nst_link *nst_list_pop(nst_link *list) {
  nst_link *first = list->next;
  if (first == list) return NULL;
  nst_list_remove(first);
  return first;
}

/* Moves all links of `from` to the end of `to`. */
static inline void nst_list_move(nst_link *from, nst_link *to) {
  if (nst_list_empty(from)) return;
  from->next->previous = to->previous;
  to->previous->next = from->next;
  from->previous->next = to;
  to->previous = from->previous;
  nst_list_init(from);
}

#endif
