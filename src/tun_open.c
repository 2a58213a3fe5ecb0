#include "tun_open.h"

#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/if_tun.h>

#include "offload.h"

#define NODE "/dev/net/tun"

/* Packets that the kernel keeps for us. It answers while we still send, each segment at once; the 500 that it would keep
** are fewer than the acknowledgements of a few windows, and what is lost of those costs a timeout. */
#define QUEUE 4096

static nst_error explain(nst_tun_order *order, nst_error error, const char *format, ...)
  __attribute__((format(printf, 3, 4)));

static nst_error explain(nst_tun_order *order, nst_error error, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(order->message, sizeof order->message, format, arguments);
  va_end(arguments);
  return error;
}

static nst_error denied(nst_tun_order *order, const char *more) {
  return explain(order, NST_PERMISSION_DENIED,
                 "run as root or with CAP_NET_ADMIN, or let root once make the interface for you: "
                 "ip %s%s%stuntap add dev %s mode %s user %u%s",
                 order->netns ? "-n " : "", order->netns ? order->netns : "", order->netns ? " " : "",
                 order->name ? order->name : "NAME", order->ethernet ? "tap" : "tun", (unsigned)geteuid(), more);
}

/* What hinders everybody alike. */
static nst_error other_failure(nst_tun_order *order, const char *what, int error) {
  nst_error kind = error == ENOMEM ? NST_NO_MEMORY : error == EMFILE || error == ENFILE ? NST_FULL : NST_NOT_SUPPORTED;
  return explain(order, kind, "%s: %s", what, strerror(error));
}

static nst_error open_node(nst_tun_order *order) {
  order->fd = open(NODE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (order->fd >= 0) return NST_OK;
  switch (errno) {
    case EACCES:
    case EPERM: return denied(order, "; " NODE " has to be open to you in either case: chmod 666 " NODE);
    case ENOENT:
    case ENODEV:
    case ENXIO:
      return explain(order, NST_NOT_SUPPORTED,
                     NODE " is missing: modprobe tun, or in a container mknod " NODE " c 10 200");
    default: return other_failure(order, NODE, errno);
  }
}

static nst_error name_interface(nst_tun_order *order) {
  struct ifreq request;
  unsigned features = 0;
  (void)ioctl(order->fd, TUNGETFEATURES, &features);
  order->offload = order->offload && (features & IFF_VNET_HDR) != 0;
  memset(&request, 0, sizeof request);
  request.ifr_flags = (short)((order->ethernet ? IFF_TAP : IFF_TUN) | IFF_NO_PI | (order->offload ? IFF_VNET_HDR : 0));
  if (order->name) strncpy(request.ifr_name, order->name, IFNAMSIZ - 1);
  if (ioctl(order->fd, TUNSETIFF, &request) == 0) {
    memcpy(order->actual, request.ifr_name, IFNAMSIZ - 1);
    /* Where it will not, it sends no packet that stands for many, but takes them. */
    (void)ioctl(order->fd, TUNSETOFFLOAD, order->offload ? TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 : 0);
    order->made = ioctl(order->fd, TUNGETIFF, &request) == 0 && !(request.ifr_flags & IFF_PERSIST);
    return NST_OK;
  }
  switch (errno) {
    case EPERM: return denied(order, "");
    case EBUSY: return explain(order, NST_ADDRESS_IN_USE, "%s is open already, here or in another program", order->name);
    case EINVAL:
      return explain(order, NST_ADDRESS_IN_USE, "%s is an interface already, and no single-queue %s device",
                     order->name ? order->name : "it", order->ethernet ? "TAP" : "TUN");
    default: return other_failure(order, "TUNSETIFF", errno);
  }
}

/* What an adopted descriptor is. */
static nst_error recognise(nst_tun_order *order) {
  struct ifreq request;
  int type = 0, flags = fcntl(order->fd, F_GETFL);
  socklen_t size = sizeof type;
  order->offload = false;
  memset(&request, 0, sizeof request);
  if (ioctl(order->fd, TUNGETIFF, &request) == 0) {
    bool tap = (request.ifr_flags & IFF_TAP) != 0;
    int header = 0;
    order->offload = (request.ifr_flags & IFF_VNET_HDR) != 0;
    if (order->offload) (void)ioctl(order->fd, TUNGETVNETHDRSZ, &header);
    if (!(request.ifr_flags & IFF_NO_PI) || (order->offload && header != (int)NST_OFFLOAD_HEADER)) {
      return explain(order, NST_NOT_SUPPORTED, "descriptor %d has more than packets: open it with IFF_NO_PI",
                     order->adopted);
    }
    if (order->mode_named && tap != order->ethernet) {
      return explain(order, NST_NOT_SUPPORTED, "descriptor %d is a %s device", order->adopted, tap ? "TAP" : "TUN");
    }
    order->ethernet = tap;
    memcpy(order->actual, request.ifr_name, IFNAMSIZ - 1);
  } else if (getsockopt(order->fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_DGRAM) {
    return explain(order, NST_NOT_SUPPORTED, "descriptor %d is neither a TUN or TAP device nor a datagram socket",
                   order->adopted);
  }
  if (flags < 0 || fcntl(order->fd, F_SETFL, flags | O_NONBLOCK) != 0) return other_failure(order, "fcntl", errno);
  return NST_OK;
}

/* Tells the kernel the mtu; or asks for it, also when it may not be told and ours is the only one that is known. An
** interface that is ours to make gets a longer queue. */
static void agree(nst_tun_order *order) {
  struct ifreq request;
  int any = order->actual[0] ? socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0) : -1;
  if (any < 0) return;
  memset(&request, 0, sizeof request);
  memcpy(request.ifr_name, order->actual, IFNAMSIZ - 1);
  request.ifr_mtu = order->mtu;
  if (order->mtu) (void)ioctl(any, SIOCSIFMTU, &request);
  else if (ioctl(any, SIOCGIFMTU, &request) == 0) order->mtu = (uint16_t)request.ifr_mtu;
  request.ifr_qlen = QUEUE;
  if (order->made) (void)ioctl(any, SIOCSIFTXQLEN, &request);
  close(any);
}

static nst_error open_here(nst_tun_order *order) {
  nst_error error;
  if (order->adopted >= 0) {
    order->fd = fcntl(order->adopted, F_DUPFD_CLOEXEC, 0);
    if (order->fd < 0) return explain(order, NST_CLOSED, "descriptor %d: %s", order->adopted, strerror(errno));
    error = recognise(order);
  } else {
    error = open_node(order);
    if (error == NST_OK) error = name_interface(order);
  }
  if (error == NST_OK) agree(order);
  else if (order->fd >= 0) close(order->fd);
  return error;
}

static nst_error enter(nst_tun_order *order) {
  char path[300];
  int space;
  snprintf(path, sizeof path, "/run/netns/%s", order->netns);
  space = open(path, O_RDONLY | O_CLOEXEC);
  if (space < 0 && errno == ENOENT) {
    return explain(order, NST_ADDRESS_NOT_AVAILABLE, "there is no network namespace %s: ip netns add %s", order->netns,
                   order->netns);
  }
  if (space < 0 && errno != EACCES) return other_failure(order, path, errno);
  if (space < 0 || setns(space, CLONE_NEWNET) != 0) {
    int error = errno;
    if (space >= 0) close(space);
    if (error == EINVAL) {
      return explain(order, NST_ADDRESS_NOT_AVAILABLE, "%s is no network namespace any more: ip netns add %s", path,
                     order->netns);
    }
    return explain(order, NST_PERMISSION_DENIED,
                   "entering network namespace %s takes root or CAP_SYS_ADMIN; or start this program in it, as root: "
                   "ip netns exec %s ...", order->netns, order->netns);
  }
  close(space);
  return NST_OK;
}

typedef struct excursion {
  nst_tun_order *order;
  nst_error error;
} excursion;

static void *open_there(void *argument) {
  excursion *trip = argument;
  trip->error = enter(trip->order);
  if (trip->error == NST_OK) trip->error = open_here(trip->order);
  return NULL;
}

/* A namespace belongs to a thread: one that ends afterwards cannot be left in the wrong one. */
static nst_error open_in_thread(nst_tun_order *order) {
  excursion trip = {order, NST_NO_MEMORY};
  pthread_t thread;
  sigset_t all, before;
  int failed;
  sigfillset(&all);
  (void)pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the program's own threads */
  failed = pthread_create(&thread, NULL, open_there, &trip);
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (failed) return other_failure(order, "a thread to enter the network namespace", failed);
  (void)pthread_join(thread, NULL);
  return trip.error;
}

nst_error nst_tun_open(nst_tun_order *order) {
  order->fd = -1;
  order->made = false;
  order->actual[0] = order->message[0] = '\0';
  return order->netns ? open_in_thread(order) : open_here(order);
}
