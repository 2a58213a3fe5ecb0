/*
** Many descriptors behind one, which is readable while any of them is ready: an epoll instance. After a fork(2) the
** child has the same instance as its parent, not a copy; what a process has not made itself it leaves alone.
*/
#ifndef NST_POLLSET_H
#define NST_POLLSET_H

#include "errors.h"

#include <stdbool.h>
#include <sys/types.h>

typedef struct nst_pollset {
  int fd;      /* -1: there is none */
  pid_t owner; /* the process that made it */
} nst_pollset;

void nst_pollset_init(nst_pollset *set);
/* Makes it, empty, unless this process has; *fresh: it did so now. NST_FULL: no descriptor is left. */
nst_error nst_pollset_open(nst_pollset *set, bool *fresh);
/* Whether this process has one. */
bool nst_pollset_is_open(nst_pollset *set);
/* Waits for `events` (poll.h; 0: for none) of fd from now on, no longer for those of *registered. */
void nst_pollset_watch(nst_pollset *set, int fd, short *registered, short events);
void nst_pollset_close(nst_pollset *set);

#endif
