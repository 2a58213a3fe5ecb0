#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "tund.h"

typedef struct options {
  const char *socket, *name, *group, *user;
  unsigned mtu;
  mode_t mode;
} options;

static nst_tund tund;
static volatile sig_atomic_t ends, reports;

static const char usage[] =
  "usage: netstack-tund --socket PATH --address ADDRESS/BITS [option...]\n"
  "Owns a TUN interface, and routes between it and the programs that connect to PATH.\n"
  "  --socket PATH          where programs connect\n"
  "  --address ADDRESS/BITS the interface's, and the network that programs get addresses of; one of IPv4, one of IPv6\n"
  "  --pool ADDRESS/BITS    a part of it, for programs that ask for no address in particular; one of each family\n"
  "  --name NAME            of the interface; ns0\n"
  "  --mtu BYTES            of the interface, 68 (with IPv6 1280) to 65535; 1500\n"
  "  --mode OCTAL           of the socket's file; 0660\n"
  "  --group GROUP          of the socket's file\n"
  "  --user USER            to become once all is open; capabilities are dropped in any case\n"
  "  --help, --version\n"
  "SIGUSR1 has it print its counters, SIGTERM and SIGINT end it.\n";

void nst_tund_complain(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fputs("netstack-tund: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
}

static void on_signal(int number) {
  if (number == SIGUSR1) reports = 1;
  else ends = 1;
}

static void report(void) {
  const nst_tund_counters *c = &tund.counters;
  nst_tund_complain("in=%llu out=%llu sent=%llu delivered=%llu malformed=%llu foreign=%llu nobody=%llu full=%llu "
                    "unwritten=%llu accepted=%llu refused=%llu broken=%llu clients=%zu addresses=%zu",
                    c->in, c->out, c->sent, c->delivered, c->malformed, c->foreign, c->nobody, c->full, c->unwritten,
                    c->accepted, c->refused, c->broken, tund.client_count, tund.holder_count);
}

static bool wrong(const char *option, const char *value, const char *why) {
  nst_tund_complain("--%s %s: %s", option, value, why);
  return false;
}

static bool take_prefix(nst_tund_prefix *prefixes, const char *option, const char *value) {
  nst_tund_prefix prefix;
  int family;
  if (strchr(value, '/') == NULL || !nst_tund_read_prefix(value, &prefix)) {
    return wrong(option, value, "ADDRESS/BITS expected, as 10.7.0.1/24");
  }
  family = nst_tund_family(&prefix.address);
  if (prefixes[family].bits) return wrong(option, value, "there is one of that family already");
  prefixes[family] = prefix;
  return true;
}

static bool take_number(const char *option, const char *value, int base, unsigned long least, unsigned long most,
                        unsigned long *number) {
  char *end;
  *number = strtoul(value, &end, base);
  if (value[0] < '0' || value[0] > '9' || *end != '\0' || *number < least || *number > most) {
    return wrong(option, value, base == 8 ? "0 to 0777 expected" : "68 to 65535 expected");
  }
  return true;
}

/* What options say together. */
static bool agree(const options *given) {
  int family;
  char text[64];
  if (given->socket == NULL) nst_tund_complain("--socket is missing; --help tells what there is");
  else if (!tund.networks[NST_TUND_IPV4].bits && !tund.networks[NST_TUND_IPV6].bits) {
    nst_tund_complain("--address is missing; --help tells what there is");
  } else if (tund.networks[NST_TUND_IPV6].bits && given->mtu < 1280) {
    nst_tund_complain("--mtu %u: IPv6 needs 1280", given->mtu);
  } else if (strlen(given->name) > 15 || given->name[0] == '\0' || strpbrk(given->name, "/: \t\n%")) {
    nst_tund_complain("--name %s: 1 to 15 characters without '/', ':', '%%' and blanks expected", given->name);
  } else {
    for (family = 0; family < NST_TUND_FAMILIES; family++) {
      const nst_tund_prefix *pool = &tund.pools[family], *network = &tund.networks[family];
      if (pool->bits == 0 || (nst_tund_within(&pool->address, network) && pool->bits >= network->bits)) continue;
      nst_tund_write_prefix(&pool->address, pool->bits, text);
      return wrong("pool", text, "outside the network of --address");
    }
    return true;
  }
  return false;
}

static bool read_options(int count, char **values, options *given) {
  enum { SOCKET = 1, ADDRESS, POOL, NAME, MTU, MODE, GROUP, USER, HELP, RELEASE };
  static const struct option known[] = {
    {"socket", 1, NULL, SOCKET}, {"address", 1, NULL, ADDRESS}, {"pool", 1, NULL, POOL}, {"name", 1, NULL, NAME},
    {"mtu", 1, NULL, MTU}, {"mode", 1, NULL, MODE}, {"group", 1, NULL, GROUP}, {"user", 1, NULL, USER},
    {"help", 0, NULL, HELP}, {"version", 0, NULL, RELEASE}, {NULL, 0, NULL, 0}};
  int option;
  unsigned long number;
  while ((option = getopt_long(count, values, "", known, NULL)) != -1) {
    switch (option) {
      case SOCKET: given->socket = optarg; break;
      case ADDRESS: if (!take_prefix(tund.networks, "address", optarg)) return false; break;
      case POOL: if (!take_prefix(tund.pools, "pool", optarg)) return false; break;
      case NAME: given->name = optarg; break;
      case MTU:
        if (!take_number("mtu", optarg, 10, 68, 65535, &number)) return false;
        given->mtu = (unsigned)number;
        break;
      case MODE:
        if (!take_number("mode", optarg, 8, 0, 0777, &number)) return false;
        given->mode = (mode_t)number;
        break;
      case GROUP: given->group = optarg; break;
      case USER: given->user = optarg; break;
      case HELP: fputs(usage, stdout); exit(fflush(stdout) == 0 ? 0 : 1);
      case RELEASE: puts("netstack-tund " NST_TUND_VERSION); exit(fflush(stdout) == 0 ? 0 : 1);
      default: return false; /* getopt has said why */
    }
  }
  if (optind == count) return agree(given);
  nst_tund_complain("'%s' is no option; --help tells what there is", values[optind]);
  return false;
}

/* They are let in only while we wait. */
static void set_signals(sigset_t *before) {
  static const int numbers[] = {SIGTERM, SIGINT, SIGUSR1};
  struct sigaction action;
  sigset_t blocked;
  size_t i;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_signal;
  sigemptyset(&blocked);
  for (i = 0; i < sizeof numbers / sizeof *numbers; i++) {
    sigaddset(&blocked, numbers[i]);
    sigaction(numbers[i], &action, NULL);
  }
  signal(SIGPIPE, SIG_IGN);
  sigprocmask(SIG_BLOCK, &blocked, before);
}

static void watch(struct pollfd *entry, int fd, int events) {
  entry->fd = fd;
  entry->events = (short)events;
  entry->revents = 0;
}

/* false: nothing can come any more. */
static bool turn(const sigset_t *mask) {
  static struct pollfd entries[2 + NST_TUND_CLIENTS];
  static const struct timespec moment = {0, 100000000};
  size_t count = tund.client_count, i;
  bool deaf = tund.deaf;
  watch(&entries[0], tund.tun, POLLIN);
  watch(&entries[1], deaf ? -1 : tund.listener, POLLIN);
  for (i = 0; i < count; i++) {
    const nst_tund_client *client = tund.clients[i];
    watch(&entries[2 + i], client->fd, POLLIN | (client->queue_start < client->queue_end ? POLLOUT : 0));
  }
  tund.deaf = false;
  if (ppoll(entries, (nfds_t)(2 + count), deaf ? &moment : NULL, mask) < 0) return errno == EINTR;
  if (entries[0].revents && !nst_tund_from_interface(&tund)) {
    nst_tund_complain("the interface is gone");
    return false;
  }
  for (i = 0; i < count; i++) {
    if (entries[2 + i].revents & ~POLLOUT) nst_tund_client_input(&tund, tund.clients[i]);
  }
  if (entries[1].revents) nst_tund_accept(&tund);
  nst_tund_settle(&tund);
  return true;
}

static bool prepare(const options *given) {
  struct rlimit limit;
  struct timespec now;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 2 * NST_TUND_CLIENTS) {
    limit.rlim_cur = limit.rlim_max < 2 * NST_TUND_CLIENTS ? limit.rlim_max : 2 * NST_TUND_CLIENTS;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
  }
  /* After a restart clients ask for what they had: leases begin somewhere else. */
  clock_gettime(CLOCK_REALTIME, &now);
  tund.cursors[NST_TUND_IPV4] = tund.cursors[NST_TUND_IPV6] = (uint32_t)(now.tv_nsec / 1000);
  if (!nst_tund_check_path(given->socket) || !nst_tund_open_interface(&tund, given->name, given->mtu) ||
      !nst_tund_listen(&tund, given->socket, given->mode, given->group)) {
    return false;
  }
  if (nst_tund_drop_privileges(given->user)) return true;
  nst_tund_remove_socket(given->socket);
  return false;
}

int main(int count, char **values) {
  options given = {NULL, "ns0", NULL, NULL, 1500, 0660};
  sigset_t mask;
  bool ok = true;
  if (!read_options(count, values, &given)) return 2;
  set_signals(&mask);
  if (!prepare(&given)) return 1;
  while (ok && !ends) {
    ok = turn(&mask);
    if (reports) report();
    reports = 0;
  }
  nst_tund_remove_socket(given.socket);
  report();
  while (tund.client_count > 0) { /* for those who look for leaks */
    nst_tund_client *client = tund.clients[--tund.client_count];
    close(client->fd);
    free(client);
  }
  return ok ? 0 : 1;
}
