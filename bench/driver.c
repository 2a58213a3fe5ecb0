/*
** The ceiling: lwIP driven from C, two stacks over a pipe, with the object file and the settings netstack itself is
** built from. Stacks are state images and are switched by two copies, packets are copied once into the pipe, data
** once from and once to a user buffer, as any user of lwIP has to. Nothing else happens: no Lua, no scheduler, no
** command channel, lwIP's own linear lists. Timers run only when they are needed: nothing is ever lost here.
**
** usage: driver ROW [seconds]       prints lines of "name value unit"
*/
#define _DEFAULT_SOURCE
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "lwip/init.h"
#include "lwip/ip.h"
#include "lwip/netif.h"
#include "lwip/pbuf.h"
#include "lwip/priv/tcp_priv.h"
#include "lwip/udp.h"

enum {
  PORT = 7,
  BUFFER_SIZE = 262144, /* tcp_buffer_size of API.md, and the smallest scale that lets 16 bits tell it */
  WINDOW_SCALE = 3,
  BLOCK_SIZE = 65536,
  BURST = 32, /* datagrams sent before they are read; 32 of 1400 bytes fit into every default receive queue */
  DATAGRAM_SIZE = 1400,
  STACKS = 2000,
  TIME_WAITS = 64 /* kept at most: without a bound, lwIP's lists would be all that the connect row measures */
};

/* The linker's names for the section in which src/lwip/image.ld gathers lwIP's state. */
extern unsigned char __start_nst_image[], __stop_nst_image[];
#define IMAGE_SIZE ((size_t)(__stop_nst_image - __start_nst_image))

struct packet {
  struct pbuf_custom pbuf; /* first: lwIP frees the packet through it */
  struct packet *next;
  u16_t length;
  unsigned char data[];
};

struct stack {
  unsigned char *image;
  struct netif netif;
  struct stack *peer;
  struct packet *first, **last; /* the pipe towards this stack */
};

static unsigned char *pristine; /* lwIP's state before anything ran */
static struct stack *running;
static struct stack *a, *b; /* client and server */
static ip_addr_t server_address;
static unsigned char block[BLOCK_SIZE];    /* what is sent */
static unsigned char received[BLOCK_SIZE]; /* what is received is copied here, to show that it was */
static size_t received_at, received_bytes;
static u32_t random_state = 2463534242u;

/* ---- What lwIP's object wants from src/ ---- */

void *nst_lwip_malloc(size_t size) { return malloc(size); }
void *nst_lwip_calloc(size_t count, size_t size) { return calloc(count, size); }
void nst_lwip_free(void *p) { free(p); }

uint32_t nst_lwip_random(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 17;
  return random_state ^= random_state << 5;
}

uint32_t nst_tcp_isn(const ip_addr_t *local_ip, uint16_t local_port, const ip_addr_t *remote_ip, uint16_t remote_port) {
  (void)local_ip, (void)local_port, (void)remote_ip, (void)remote_port;
  return nst_lwip_random();
}

struct netif *nst_route4(const ip4_addr_t *source, const ip4_addr_t *destination) {
  (void)source, (void)destination;
  return &running->netif;
}

struct netif *nst_route6(const ip6_addr_t *source, const ip6_addr_t *destination) {
  (void)source, (void)destination;
  return &running->netif;
}

signed char nst_tcp_check(struct tcp_pcb *pcb, struct tcp_hdr *header, uint16_t options_length, struct pbuf *p) {
  (void)pcb, (void)header, (void)options_length, (void)p;
  return ERR_OK;
}

uint16_t nst_tcp_out_of_order_at_most(const struct tcp_pcb *pcb) {
  (void)pcb;
  return 0xffff;
}

void nst_lwip_assertion(const char *message, const char *file, int line) {
  fprintf(stderr, "lwIP: %s (%s:%d)\n", message, file, line);
  abort();
}

static void check(int ok, const char *what) {
  if (!ok) {
    fprintf(stderr, "driver: %s failed\n", what);
    exit(1);
  }
}

/* ---- Stacks and the pipe between them ---- */

static void enter(struct stack *s) {
  if (running == s) return;
  if (running) memcpy(running->image, __start_nst_image, IMAGE_SIZE);
  memcpy(__start_nst_image, s->image, IMAGE_SIZE);
  running = s;
}

static void free_packet(struct pbuf *p) { free(p); }

static err_t pipe_output(struct netif *interface, struct pbuf *p, const ip4_addr_t *next_hop) {
  struct stack *to = ((struct stack *)interface->state)->peer;
  struct packet *packet = malloc(sizeof *packet + p->tot_len);
  (void)next_hop;
  if (!packet) return ERR_MEM;
  packet->next = NULL;
  packet->length = p->tot_len;
  pbuf_copy_partial(p, packet->data, p->tot_len, 0);
  *to->last = packet;
  to->last = &packet->next;
  return ERR_OK;
}

static err_t init_interface(struct netif *interface) {
  interface->output = pipe_output;
  interface->flags = NETIF_FLAG_UP | NETIF_FLAG_LINK_UP;
  NETIF_SET_CHECKSUM_CTRL(interface, 0);
  return ERR_OK;
}

static struct stack *new_stack(int host, u16_t mtu) {
  struct stack *s = calloc(1, sizeof *s);
  ip4_addr_t address, mask, gateway;
  check(s && (s->image = malloc(IMAGE_SIZE)), "malloc");
  memcpy(s->image, pristine, IMAGE_SIZE);
  s->last = &s->first;
  enter(s);
  lwip_init();
  nst_tcp_buffer_size = BUFFER_SIZE;
  nst_tcp_window_scale = WINDOW_SCALE;
  IP4_ADDR(&address, 10, 0, 0, host);
  IP4_ADDR(&mask, 255, 255, 255, 0);
  ip4_addr_set_zero(&gateway);
  check(netif_add(&s->netif, &address, &mask, &gateway, s, init_interface, ip_input) != NULL, "netif_add");
  s->netif.mtu = mtu;
  return s;
}

static void new_pair(struct stack **s1, struct stack **s2, u16_t mtu) {
  *s1 = new_stack(1, mtu);
  *s2 = new_stack(2, mtu);
  (*s1)->peer = *s2;
  (*s2)->peer = *s1;
}

/* Gives a stack all that waits for it in the pipe; tells if there was something. */
static int poll_stack(struct stack *s) {
  struct packet *packet;
  if (!s->first) return 0;
  enter(s);
  while ((packet = s->first) != NULL) {
    struct pbuf *p;
    if (!(s->first = packet->next)) s->last = &s->first;
    packet->pbuf.custom_free_function = free_packet;
    p = pbuf_alloced_custom(PBUF_RAW, packet->length, PBUF_REF, &packet->pbuf, packet->data, packet->length);
    if (s->netif.input(p, &s->netif) != ERR_OK) pbuf_free(p);
  }
  return 1;
}

/* Both stacks in turn; when neither has anything to do, a tick of the clock (delayed ACKs). */
static void poll_both(void) {
  if (poll_stack(b) | poll_stack(a)) return;
  enter(b);
  tcp_tmr();
  enter(a);
  tcp_tmr();
}

/* ---- Measuring ---- */

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* How much of what step() counts is done per second; the clock is read once per batch, the first is not counted. */
static double measure(double seconds, int batch, double (*step)(void)) {
  double start = 0, elapsed = 0, done = 0;
  int warm, i;
  for (warm = 0; !warm || elapsed < seconds; elapsed = now() - start) {
    for (i = 0; i < batch; i++) done += step();
    if (!warm) {
      warm = 1;
      done = 0;
      start = now();
    }
  }
  return done / elapsed;
}

static void report(const char *name, double value, const char *unit) { printf("%s %.0f %s\n", name, value, unit); }

/* ---- TCP ---- */

static struct tcp_pcb **clients; /* the connections of this row, the client's side */
static int client_count, connected;
static size_t message_size;

static void copy_out(struct pbuf *p) {
  if (received_at + p->tot_len > BLOCK_SIZE) received_at = 0;
  pbuf_copy_partial(p, received + received_at, p->tot_len, 0);
  received_at += p->tot_len;
  received_bytes += p->tot_len;
}

static err_t on_data(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err) {
  u16_t length = p ? p->tot_len : 0;
  (void)arg, (void)err;
  check(p != NULL, "an open connection");
  copy_out(p);
  tcp_recved(pcb, length);
  pbuf_free(p);
  return ERR_OK;
}

static err_t on_request(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err) {
  u16_t length = p ? p->tot_len : 0;
  on_data(arg, pcb, p, err);
  check(tcp_write(pcb, received + received_at - length, length, TCP_WRITE_FLAG_COPY) == ERR_OK, "tcp_write");
  return ERR_OK; /* lwIP calls tcp_output after it called us */
}

static err_t on_connected(void *arg, struct tcp_pcb *pcb, err_t err) {
  (void)arg, (void)pcb, (void)err;
  connected++;
  return ERR_OK;
}

static err_t accept_sink(void *arg, struct tcp_pcb *pcb, err_t err) {
  (void)arg, (void)err;
  tcp_recv(pcb, on_data);
  return ERR_OK;
}

static err_t accept_echo(void *arg, struct tcp_pcb *pcb, err_t err) {
  (void)arg, (void)err;
  tcp_nagle_disable(pcb);
  tcp_recv(pcb, on_request);
  return ERR_OK;
}

static err_t accept_close(void *arg, struct tcp_pcb *pcb, err_t err) {
  (void)arg, (void)err;
  return tcp_close(pcb);
}

static void listen_on(struct stack *s, tcp_accept_fn accept) {
  struct tcp_pcb *pcb;
  enter(s);
  pcb = tcp_new_ip_type(IPADDR_TYPE_V4);
  check(pcb && tcp_bind(pcb, IP_ADDR_ANY, PORT) == ERR_OK, "tcp_bind");
  check((pcb = tcp_listen(pcb)) != NULL, "tcp_listen");
  tcp_accept(pcb, accept);
}

static struct tcp_pcb *connect_to_server(tcp_recv_fn receive) {
  struct tcp_pcb *pcb;
  enter(a);
  check((pcb = tcp_new_ip_type(IPADDR_TYPE_V4)) != NULL, "tcp_new");
  tcp_nagle_disable(pcb);
  tcp_recv(pcb, receive);
  check(tcp_connect(pcb, &server_address, PORT, on_connected) == ERR_OK, "tcp_connect");
  return pcb;
}

static void open_connections(int count, tcp_accept_fn accept) {
  listen_on(b, accept);
  check((clients = calloc((size_t)count, sizeof *clients)) != NULL, "calloc");
  for (client_count = 0; client_count < count; client_count++) {
    clients[client_count] = connect_to_server(on_data);
    while (connected <= client_count) poll_both();
  }
}

static double bulk_step(void) {
  struct tcp_pcb *pcb = clients[0];
  size_t before = received_bytes, room;
  /* whole segments and at most the 16 bits of tcp_write */
  size_t most = 65535 / tcp_mss(pcb) * (size_t)tcp_mss(pcb);
  enter(a);
  while ((room = tcp_sndbuf(pcb)) > 0) {
    if (tcp_write(pcb, block, (u16_t)(room < most ? room : most), TCP_WRITE_FLAG_COPY) != ERR_OK) break;
  }
  tcp_output(pcb);
  poll_both();
  return (double)(received_bytes - before) * 1e-6;
}

static void bulk(const char *row, int mtu, double seconds) {
  new_pair(&a, &b, (u16_t)mtu);
  open_connections(1, accept_sink);
  report(row, measure(seconds, 64, bulk_step), "MB/s");
}

/* One message there and back, over the next connection. */
static double echo_step(void) {
  static int turn;
  struct tcp_pcb *pcb = clients[turn];
  size_t until = received_bytes + 2 * message_size; /* the server counts too */
  if (++turn == client_count) turn = 0;
  enter(a);
  check(tcp_write(pcb, block, (u16_t)message_size, TCP_WRITE_FLAG_COPY) == ERR_OK, "tcp_write");
  tcp_output(pcb);
  while (received_bytes < until) poll_both();
  return 1;
}

static void round_trips(const char *row, int size, double seconds) {
  new_pair(&a, &b, 1500);
  message_size = (size_t)size;
  open_connections(1, accept_echo);
  report(row, measure(seconds, 1000, echo_step), "round-trips/s");
}

static void echoes(const char *row, int count, double seconds) {
  new_pair(&a, &b, 1500);
  message_size = 1;
  open_connections(count, accept_echo);
  report(row, measure(seconds, 1000, echo_step), "echoes/s");
}

/* The server closes at once, the client when it reads that. */
static err_t on_end(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err) {
  (void)arg, (void)p, (void)err;
  connected--;
  return tcp_close(pcb);
}

static double connect_step(void) {
  static int time_waits;
  connect_to_server(on_end);
  while (!connected) poll_both();
  while (connected) poll_both();
  if (++time_waits == TIME_WAITS) {
    time_waits = 0;
    while (poll_stack(b) | poll_stack(a)) { } /* the last ACK is on its way yet */
    enter(b);
    tcp_ticks += 2 * TCP_MSL + 1;
    tcp_slowtmr();
  }
  return 1;
}

static void connects(const char *row, int unused, double seconds) {
  (void)unused;
  new_pair(&a, &b, 1500);
  listen_on(b, accept_close);
  report(row, measure(seconds, 100, connect_step), "connects/s");
}

/* ---- UDP, stacks, memcpy ---- */

static struct udp_pcb *datagrams_out;

static void on_datagram(void *arg, struct udp_pcb *pcb, struct pbuf *p, const ip_addr_t *host, u16_t port) {
  (void)arg, (void)pcb, (void)host, (void)port;
  copy_out(p);
  pbuf_free(p);
}

static double udp_step(void) {
  size_t before = received_bytes;
  int i;
  enter(a);
  for (i = 0; i < BURST; i++) {
    struct pbuf *p = pbuf_alloc(PBUF_TRANSPORT, DATAGRAM_SIZE, PBUF_RAM);
    check(p != NULL, "pbuf_alloc");
    pbuf_take(p, block, DATAGRAM_SIZE);
    check(udp_send(datagrams_out, p) == ERR_OK, "udp_send");
    pbuf_free(p);
  }
  poll_both();
  return (double)(received_bytes - before) / DATAGRAM_SIZE;
}

static void udp(const char *row, int unused, double seconds) {
  struct udp_pcb *in;
  (void)unused;
  new_pair(&a, &b, 1500);
  enter(b);
  check((in = udp_new_ip_type(IPADDR_TYPE_V4)) && udp_bind(in, IP_ADDR_ANY, PORT) == ERR_OK, "udp_bind");
  udp_recv(in, on_datagram, NULL);
  enter(a);
  check((datagrams_out = udp_new_ip_type(IPADDR_TYPE_V4)) != NULL, "udp_new");
  check(udp_connect(datagrams_out, &server_address, PORT) == ERR_OK, "udp_connect");
  report(row, measure(seconds, 100, udp_step), "packets/s");
}

static double resident_bytes(void) {
  long size = 0, resident = 0;
  FILE *f = fopen("/proc/self/statm", "r");
  check(f && fscanf(f, "%ld %ld", &size, &resident) == 2, "reading /proc/self/statm");
  fclose(f);
  return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

/* Only making is timed, as in bench/netstack.lua; the bytes are those of the first round. */
static void stacks(const char *row, int unused, double seconds) {
  static struct stack *all[STACKS];
  double before = resident_bytes(), bytes = 0, making = 0, made = 0;
  int i;
  (void)unused;
  while (making < seconds) {
    double start = now();
    for (i = 0; i < STACKS; i += 2) new_pair(&all[i], &all[i + 1], 1500);
    making += now() - start;
    made += STACKS;
    if (bytes == 0) bytes = (resident_bytes() - before) / STACKS;
    running = NULL;
    for (i = 0; i < STACKS; i++) {
      free(all[i]->image);
      free(all[i]);
    }
  }
  report(row, made / making, "stacks/s");
  report("stack_bytes", bytes, "bytes");
}

static double memcpy_step(void) {
  memcpy(received, block, message_size);
  __asm__ volatile("" ::: "memory");
  return 1;
}

static void copies(const char *row, int size, double seconds) {
  double rate;
  message_size = (size_t)size;
  rate = measure(seconds, 1000, memcpy_step);
  if (size == BLOCK_SIZE)
    report(row, rate * size * 1e-6, "MB/s");
  else
    report(row, rate, "copies/s");
}

static const struct {
  const char *name;
  void (*run)(const char *row, int argument, double seconds);
  int argument;
} rows[] = {
  {"tcp_1500", bulk, 1500},
  {"tcp_65535", bulk, 65535},
  {"udp_1400", udp, 0},
  {"round_trip_1", round_trips, 1},
  {"round_trip_64", round_trips, 64},
  {"connect", connects, 0},
  {"echo_1", echoes, 1},
  {"echo_100", echoes, 100},
  {"echo_1000", echoes, 1000},
  {"echo_10000", echoes, 10000},
  {"stacks", stacks, 0},
  {"memcpy_65536", copies, BLOCK_SIZE},
  {"memcpy_1400", copies, DATAGRAM_SIZE},
};

int main(int argc, char **argv) {
  double seconds = argc > 2 ? atof(argv[2]) : 1;
  size_t i;
  /* Packets of 64 KiB at the heap's end must not go back to the kernel and be faulted in again. */
  mallopt(M_TRIM_THRESHOLD, 64 << 20);
  check((pristine = malloc(IMAGE_SIZE)) != NULL, "malloc");
  memcpy(pristine, __start_nst_image, IMAGE_SIZE);
  memset(block, 'x', sizeof block);
  IP_ADDR4(&server_address, 10, 0, 0, 2);
  for (i = 0; i < sizeof rows / sizeof *rows; i++) {
    if (argc > 1 && strcmp(argv[1], rows[i].name) == 0) {
      rows[i].run(rows[i].name, rows[i].argument, seconds);
      return 0;
    }
  }
  fprintf(stderr, "usage: driver ROW [seconds]; the rows are:\n");
  for (i = 0; i < sizeof rows / sizeof *rows; i++) fprintf(stderr, "  %s\n", rows[i].name);
  return 1;
}
