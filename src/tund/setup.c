/* What happens before the first packet, some of it as root. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/capability.h>

#include "../tun_open.h"
#include "tund.h"

/* As linux/ipv6.h has it, whose other parts are libc's as well. */
struct in6_ifreq {
  struct in6_addr ifr6_addr;
  uint32_t ifr6_prefixlen;
  int ifr6_ifindex;
};

static bool failed(const char *what, const char *about) {
  nst_tund_complain("%s%s%s: %s", what, about[0] ? " " : "", about, strerror(errno));
  return false;
}

static void name_request(struct ifreq *request, const char *name) {
  memset(request, 0, sizeof *request);
  memcpy(request->ifr_name, name, strlen(name)); /* shorter than IFNAMSIZ */
}

static bool set_ipv4(int any, const char *name, const nst_tund_prefix *prefix) {
  struct ifreq request;
  struct sockaddr_in host;
  memset(&host, 0, sizeof host);
  host.sin_family = AF_INET;
  memcpy(&host.sin_addr, prefix->address.bytes + 12, 4);
  name_request(&request, name);
  memcpy(&request.ifr_addr, &host, sizeof host);
  if (ioctl(any, SIOCSIFADDR, &request) != 0) return failed("the IPv4 address of", name);
  host.sin_addr.s_addr = htonl(0xffffffffu << (128 - prefix->bits));
  name_request(&request, name);
  memcpy(&request.ifr_netmask, &host, sizeof host);
  if (ioctl(any, SIOCSIFNETMASK, &request) != 0) return failed("the IPv4 netmask of", name);
  return true;
}

static bool set_ipv6(const char *name, const nst_tund_prefix *prefix) {
  struct in6_ifreq request;
  int any = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  bool ok;
  memset(&request, 0, sizeof request);
  memcpy(&request.ifr6_addr, prefix->address.bytes, 16);
  request.ifr6_prefixlen = prefix->bits;
  request.ifr6_ifindex = (int)if_nametoindex(name);
  ok = any >= 0 && (ioctl(any, SIOCSIFADDR, &request) == 0 || errno == EEXIST);
  if (!ok) (void)failed("the IPv6 address of", name);
  if (any >= 0) close(any);
  return ok;
}

static bool bring_up(int any, const char *name) {
  struct ifreq request;
  name_request(&request, name);
  if (ioctl(any, SIOCGIFFLAGS, &request) != 0) return failed("the state of", name);
  request.ifr_flags |= IFF_UP;
  return ioctl(any, SIOCSIFFLAGS, &request) == 0 || failed("bringing up", name);
}

bool nst_tund_open_interface(nst_tund *tund, const char *name, unsigned mtu) {
  nst_tun_order order;
  int any;
  bool ok;
  memset(&order, 0, sizeof order);
  order.name = name;
  order.adopted = -1;
  order.mtu = (uint16_t)mtu;
  if (nst_tun_open(&order) != NST_OK) {
    nst_tund_complain("%s", order.message);
    return false;
  }
  tund->tun = order.fd;
  tund->mtu = order.mtu ? order.mtu : 1500;
  any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (any < 0) return failed("socket", "");
  ok = (!tund->networks[NST_TUND_IPV4].bits || set_ipv4(any, order.actual, &tund->networks[NST_TUND_IPV4])) &&
       bring_up(any, order.actual) &&
       (!tund->networks[NST_TUND_IPV6].bits || set_ipv6(order.actual, &tund->networks[NST_TUND_IPV6]));
  close(any);
  return ok;
}

static bool set_path(struct sockaddr_un *name, const char *path) {
  memset(name, 0, sizeof *name);
  name->sun_family = AF_UNIX;
  if (strlen(path) >= sizeof name->sun_path || path[0] == '\0') {
    nst_tund_complain("%s: 1 to %zu bytes are possible for a socket's path", path, sizeof name->sun_path - 1);
    return false;
  }
  strcpy(name->sun_path, path);
  return true;
}

bool nst_tund_check_path(const char *path) {
  struct sockaddr_un name;
  struct stat about;
  int probe, error;
  if (!set_path(&name, path)) return false;
  if (lstat(path, &about) != 0) return errno == ENOENT || failed(path, "");
  if (!S_ISSOCK(about.st_mode)) {
    nst_tund_complain("%s is there, and is no socket", path);
    return false;
  }
  probe = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (probe < 0) return failed("socket", "");
  error = connect(probe, (struct sockaddr *)&name, sizeof name) == 0 ? 0 : errno;
  close(probe);
  if (error == ECONNREFUSED || error == ENOENT) return true; /* its owner is no more */
  if (error == 0 || error == EAGAIN || error == EPROTOTYPE) nst_tund_complain("%s: another program listens there", path);
  else nst_tund_complain("%s: %s", path, strerror(error));
  return false;
}

static struct stat ours; /* the socket's file */

bool nst_tund_listen(nst_tund *tund, const char *path, mode_t mode, const char *group) {
  struct sockaddr_un name;
  struct group *entry = group ? getgrnam(group) : NULL;
  mode_t mask;
  bool ok;
  if (group && entry == NULL) {
    nst_tund_complain("there is no group %s", group);
    return false;
  }
  if (!set_path(&name, path)) return false;
  tund->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (tund->listener < 0) return failed("socket", "");
  (void)unlink(path); /* a stale one */
  mask = umask(0777);
  ok = bind(tund->listener, (struct sockaddr *)&name, sizeof name) == 0;
  umask(mask);
  if (!ok) return failed("a socket at", path);
  if (stat(path, &ours) != 0 || (entry && chown(path, (uid_t)-1, entry->gr_gid) != 0) || chmod(path, mode) != 0 ||
      listen(tund->listener, NST_TUND_CLIENTS) != 0) {
    (void)failed("the socket at", path);
    (void)unlink(path);
    return false;
  }
  return true;
}

static bool become(const char *user) {
  struct passwd *entry = getpwnam(user);
  if (entry == NULL) {
    nst_tund_complain("there is no user %s", user);
    return false;
  }
  return (initgroups(user, entry->pw_gid) == 0 && setgid(entry->pw_gid) == 0 && setuid(entry->pw_uid) == 0) ||
         failed("becoming", user);
}

bool nst_tund_drop_privileges(const char *user) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3];
  memset(none, 0, sizeof none);
  if (user && !become(user)) return false;
  return (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && syscall(SYS_capset, &header, none) == 0) ||
         failed("dropping capabilities", "");
}

void nst_tund_remove_socket(const char *path) {
  struct stat now;
  if (lstat(path, &now) == 0 && now.st_dev == ours.st_dev && now.st_ino == ours.st_ino) (void)unlink(path);
}
