#include "pollset.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

void nst_pollset_init(nst_pollset *set) {
  set->fd = -1;
  set->owner = 0;
}

void nst_pollset_close(nst_pollset *set) {
  if (set->fd >= 0) close(set->fd);
  nst_pollset_init(set);
}

bool nst_pollset_is_open(nst_pollset *set) {
  if (set->fd >= 0 && set->owner != getpid()) nst_pollset_close(set);
  return set->fd >= 0;
}

nst_error nst_pollset_open(nst_pollset *set, bool *fresh) {
  *fresh = !nst_pollset_is_open(set);
  if (!*fresh) return NST_OK;
  set->fd = epoll_create1(EPOLL_CLOEXEC);
  if (set->fd < 0) return errno == ENOMEM ? NST_NO_MEMORY : NST_FULL;
  set->owner = getpid();
  return NST_OK;
}

void nst_pollset_watch(nst_pollset *set, int fd, short *registered, short events) {
  struct epoll_event event;
  int operation = *registered == 0 ? EPOLL_CTL_ADD : events == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_MOD;
  if (*registered == events || !nst_pollset_is_open(set)) return;
  memset(&event, 0, sizeof event);
  event.events = ((events & POLLIN) ? EPOLLIN : 0u) | ((events & POLLOUT) ? EPOLLOUT : 0u);
  if (epoll_ctl(set->fd, operation, fd, &event) == 0) *registered = events;
}
