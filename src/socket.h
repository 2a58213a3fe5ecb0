/*
** What TCP, UDP and raw sockets have in common: they belong to a stack, are known to Lua by a handle, and requests
** wait with them. A socket whose stack is closed stays until its last holder lets go, and answers "closed".
*/
#ifndef NST_SOCKET_H
#define NST_SOCKET_H

#include "errors.h"
#include "list.h"
#include "lwip/ip_addr.h"
#include "request.h"
#include "table.h"

typedef enum nst_protocol { NST_TCP, NST_UDP, NST_RAW } nst_protocol;

/* A local address and port that a socket holds (ports.c). */
typedef struct nst_binding {
  nst_node node; /* in the stack's table of ports */
  nst_protocol protocol;
  ip_addr_t host;
  uint16_t port;
  bool shared;   /* may be held by several that all share it (UDP's reuseaddr) */
} nst_binding;

struct nst_socket {
  nst_protocol protocol;
  unsigned references;
  nst_stack *stack;    /* counted */
  nst_link link;       /* in stack->sockets, while open or still in lwIP */
  nst_link changed;    /* in stack->changed: its waiting requests are to be attempted */
  nst_link blocked;    /* in the interface's queue of those that wait for room */
  bool open;           /* not closed by its owner, nor by the stack's end */
  nst_link readers;    /* requests that wait for data, a connection or an end */
  nst_link writers;    /* requests that wait for room, or to be connected */
  nst_binding binding;
  uint64_t received_bytes, sent_bytes;
  nst_time born;
};

/* How long a close may wait for what is unsent. */
typedef struct nst_linger {
  bool on;
  nst_time time;
} nst_linger;

/* For the three kinds, which allocate themselves. */
void nst_socket_init(nst_socket *socket, nst_stack *stack, nst_protocol protocol);
nst_socket *nst_socket_retain(nst_socket *socket);
void nst_socket_release(nst_socket *socket);
/* Never blocks, needs no room anywhere, harmless twice. */
void nst_socket_close(nst_socket *socket);
/* The socket's waiting requests are attempted when the stack has left lwIP's callbacks. */
void nst_socket_changed(nst_socket *socket);
/* The stack is gone, and with it all that the socket had in lwIP. */
void nst_socket_forget(nst_socket *socket);

/*
** Ports. Checks that `host` is local and that nobody else holds the port; port 0 chooses one at random (RFC 6056).
** The binding's socket answers the result by getsockname.
*/
nst_error nst_port_bind(nst_stack *stack, nst_binding *binding, nst_protocol protocol, const ip_addr_t *host,
                        uint16_t port, bool shared);
/* A random port for a connection to that peer; 0 when none is left. */
uint16_t nst_port_choose(nst_stack *stack, nst_protocol protocol, const ip_addr_t *local_host,
                         const ip_addr_t *remote_host, uint16_t remote_port);
/* Whether somebody has the port of that address, who does not share it. */
bool nst_port_is_taken(nst_stack *stack, nst_protocol protocol, const ip_addr_t *host, uint16_t port);
void nst_port_release(nst_stack *stack, nst_binding *binding);

#endif
