/*
** A request: one command to a stack, or one wait for something. It is queued in the stack's channel, runs in turn,
** and when it cannot be answered yet it waits with the socket or device it is about, whose events attempt it again.
** Lua holds it as a ticket. Whoever refers to a request counts.
*/
#ifndef NST_REQUEST_H
#define NST_REQUEST_H

#include "errors.h"
#include "hub.h"
#include "lwip/ip_addr.h"

typedef enum nst_request_state {
  NST_REQUEST_IDLE,    /* made, or waiting over; may be used again */
  NST_REQUEST_QUEUED,  /* in the stack's channel: counts against its capacity */
  NST_REQUEST_WAITING, /* with a socket or device */
  NST_REQUEST_DONE
} nst_request_state;

/*
** Tries to answer; called where the answer may be found (inside the stack, for commands). Returns NST_WOULDBLOCK
** when it must wait in the list that it stored in request->waits_in; anything else is the answer's error, or NST_OK.
*/
typedef nst_error (*nst_attempt)(nst_request *request);

struct nst_request {
  nst_link link;            /* in the channel, or with what it waits for */
  nst_link ready;           /* in hub->ready */
  nst_link *waits_in;       /* set by the attempt */
  nst_hub *hub;             /* counted */
  nst_stack *stack;         /* counted, or NULL (device requests) */
  nst_socket *socket;       /* counted: what it is about, or NULL */
  nst_device *device;       /* counted, or NULL */
  nst_attempt attempt;
  unsigned references;
  nst_request_state state;
  nst_error error;          /* once done */
  bool consumes;            /* its answer takes something away: cancelled when nobody can read it any more */
  unsigned watcher;         /* number by which Lua wants to be told, 0: nobody */
  nst_request *group;       /* counted: answered as soon as this one is, or NULL */
  int op;                   /* index in nst_operations; -1: a wait, not a command */
  bool told;                /* Lua has made its table of the answer */

  /* arguments */
  ip_addr_t host, local_host;
  uint16_t port, local_port;
  int number;               /* backlog, protocol, direction */
  size_t max_length;
  char *data;               /* owned */
  size_t length, done_length;

  /* answer */
  nst_socket *made;         /* counted and open: becomes a handle, or is closed with the request */
  ip_addr_t answer_host, answer_local_host;
  uint16_t answer_port, answer_local_port;
  char *answer;             /* owned */
  size_t answer_length;
  size_t original_length;   /* of a datagram that was cut; else 0 */
  bool finished;
};

/* NULL when memory ran out. One reference. */
nst_request *nst_request_new(nst_hub *hub, nst_stack *stack, nst_attempt attempt);
nst_request *nst_request_retain(nst_request *request);
void nst_request_release(nst_request *request);
/* The request's owner in Lua is gone; a request that would only take something away is cancelled. */
void nst_request_abandon(nst_request *request);

/* Has `group`, which waits for nothing itself, answered as soon as `request` is. A request is in one group at most. */
void nst_request_join(nst_request *request, nst_request *group);

/* Attempts once; done, or left waiting in waits_in. */
void nst_request_try(nst_request *request);
void nst_request_finish(nst_request *request, nst_error error);
/* Begins to wait for it, under a number by which Lua is to be told; what is no command is armed anew. false: it is
** done.
** *before: the number that is not told any more, 0: none. */
bool nst_request_await(nst_request *request, unsigned watcher, unsigned *before);
/* The same for a request that is under way; 0: nobody waits any more. */
bool nst_request_watch(nst_request *request, unsigned watcher, unsigned *before);
/* false when it was done already. */
bool nst_request_cancel(nst_request *request);
/* Attempts those that wait in the list, in order, until one must go on waiting. */
void nst_requests_attempt(nst_link *waiting);
void nst_requests_finish(nst_link *waiting, nst_error error);

#endif
