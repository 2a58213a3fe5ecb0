/*
** netstack-tund: a small router between a TUN interface, which it owns, and programs on a UNIX stream socket, each with
** addresses of its own. What goes over the socket:
**
**   client: "netstack 1 ADDRESS...\n"   it wants these; without any, free ones out of the pools
**   tund:   "wait WHY\n"                another client has one, or the pools are used up: an answer follows when that
**                                       has changed
**           "refused WHY\n"             and the connection is closed
**           "granted mtu=N address=A/P... gateway=A...\n"
**
** and from then on, both ways, packets: two bytes of length, the first one the higher, and so many bytes of an IP packet.
** The addresses are free again when the connection ends.
*/
#ifndef NST_TUND_H
#define NST_TUND_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define NST_TUND_CLIENTS 256
#define NST_TUND_ADDRESSES 16 /* of a client */
#define NST_TUND_LINE 1024    /* a request or an answer, with its newline */
#define NST_TUND_INPUT 65537  /* a whole packet of any size, with its length */
#define NST_TUND_QUEUE 524288 /* bytes on their way to a client, besides the kernel's for the socket */

enum { NST_TUND_IPV4, NST_TUND_IPV6, NST_TUND_FAMILIES };

/* IPv4 as ::ffff:a.b.c.d. */
typedef struct nst_tund_address {
  uint8_t bytes[16];
} nst_tund_address;

typedef struct nst_tund_prefix {
  nst_tund_address address;
  unsigned bits; /* of the 128; 0: there is none */
} nst_tund_prefix;

typedef enum nst_tund_state {
  NST_TUND_ASKED, /* its request has not come, or not whole */
  NST_TUND_WAITING,
  NST_TUND_GRANTED,
  NST_TUND_GONE   /* to be freed when the turn is over */
} nst_tund_state;

typedef struct nst_tund_client {
  int fd;
  nst_tund_state state;
  bool named; /* its addresses; else they are leased */
  bool told;  /* that it waits */
  bool last;  /* closed when the queue is empty */
  nst_tund_address addresses[NST_TUND_ADDRESSES];
  size_t address_count;
  size_t input_used, queue_start, queue_end;
  uint8_t input[NST_TUND_INPUT];
  uint8_t queue[NST_TUND_QUEUE];
} nst_tund_client;

typedef struct nst_tund_holder {
  nst_tund_address address;
  nst_tund_client *client;
} nst_tund_holder;

typedef struct nst_tund_counters {
  unsigned long long in, out;         /* packets from the interface, and to it */
  unsigned long long sent, delivered; /* by clients, and to them */
  unsigned long long malformed;       /* dropped: no IP packet of the length that it is said to have */
  unsigned long long foreign;         /* its source is none of the client's addresses */
  unsigned long long nobody;          /* from the interface, and no client has the destination */
  unsigned long long full;            /* the client does not read, or not as fast */
  unsigned long long unwritten;       /* the kernel refused it */
  unsigned long long accepted, refused, broken; /* clients: connected, not granted, that broke the rules */
} nst_tund_counters;

typedef struct nst_tund {
  int listener, tun;
  unsigned mtu;
  bool deaf; /* no descriptor or memory was left for a client: not accepting for a moment */
  nst_tund_prefix networks[NST_TUND_FAMILIES], pools[NST_TUND_FAMILIES]; /* the networks with our own address */
  uint32_t cursors[NST_TUND_FAMILIES];         /* where the search for a free address goes on */
  nst_tund_client *clients[NST_TUND_CLIENTS];  /* in the order in which they came */
  size_t client_count;
  nst_tund_holder holders[NST_TUND_CLIENTS * NST_TUND_ADDRESSES]; /* ordered by address */
  size_t holder_count;
  nst_tund_counters counters;
} nst_tund;

/* addresses.c */

/* "A/P"; without "/P" all bits. false: it is none. */
bool nst_tund_read_prefix(const char *text, nst_tund_prefix *prefix);
/* Writes it; of an address alone, bits is 0. At least 64 bytes. */
void nst_tund_write_prefix(const nst_tund_address *address, unsigned bits, char *text);
int nst_tund_family(const nst_tund_address *address);
bool nst_tund_within(const nst_tund_address *address, const nst_tund_prefix *prefix);
/* NULL, or why no client may have it. */
const char *nst_tund_unfit(const nst_tund *tund, const nst_tund_address *address);
nst_tund_client *nst_tund_find(const nst_tund *tund, const nst_tund_address *address);
/* Neither may fail: it is nobody's, and there is room. */
void nst_tund_hold(nst_tund *tund, const nst_tund_address *address, nst_tund_client *client);
void nst_tund_let_go(nst_tund *tund, const nst_tund_address *address);
/* A free address out of the family's pool. */
bool nst_tund_lease(nst_tund *tund, int family, nst_tund_address *address);

/* packet.c */

/* false: malformed. */
bool nst_tund_read_packet(const uint8_t *packet, size_t length, nst_tund_address *source, nst_tund_address *destination);
/* The next packets of the interface. false: it is gone. */
bool nst_tund_from_interface(nst_tund *tund);
void nst_tund_from_client(nst_tund *tund, nst_tund_client *client, const uint8_t *packet, size_t length);

/* client.c */

void nst_tund_accept(nst_tund *tund);
/* Reads what has come. */
void nst_tund_client_input(nst_tund *tund, nst_tund_client *client);
/* Queues a packet, or drops and counts it. */
void nst_tund_deliver(nst_tund *tund, nst_tund_client *client, const uint8_t *packet, size_t length);
/* At the end of a turn: writes what is queued, frees who is gone, and grants what others waited for. */
void nst_tund_settle(nst_tund *tund);

/* request.c */

/* Reads a request, which has no newline. NULL, or why it is refused. */
const char *nst_tund_read_request(const nst_tund *tund, nst_tund_client *client, char *line);
/* Gives the client what it asked for. NULL, or why it has to wait. */
const char *nst_tund_grant(nst_tund *tund, nst_tund_client *client);
/* "granted ...\n" */
size_t nst_tund_write_grant(const nst_tund *tund, const nst_tund_client *client, char *line);

/* setup.c: each prints what is wrong and returns false. */

bool nst_tund_open_interface(nst_tund *tund, const char *name, unsigned mtu);
/* Before anything is changed: false when somebody listens there, or it is no socket. */
bool nst_tund_check_path(const char *path);
bool nst_tund_listen(nst_tund *tund, const char *path, mode_t mode, const char *group);
/* All capabilities; NULL: without becoming another user. */
bool nst_tund_drop_privileges(const char *user);
/* Unless it is another one's by now. */
void nst_tund_remove_socket(const char *path);

void nst_tund_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
