/*
** The operations of the command channel: for each its name, what arguments it takes, what its answer holds, and the
** attempt that carries it out. The Lua side turns tables into requests and answers into tables by these rows.
*/
#ifndef NST_OPERATIONS_H
#define NST_OPERATIONS_H

#include "request.h"
#include "socket.h"

typedef struct nst_operation {
  const char *name;
  /* Names of fields, separated by spaces; an optional one ends in '?'. `handle` is one of `protocol`. */
  const char *arguments;
  const char *answer;
  nst_protocol protocol;
  nst_attempt attempt;
  bool consumes; /* its answer takes something away */
  bool always;   /* has room in a full channel */
} nst_operation;

extern const nst_operation nst_operations[];
extern const int nst_operation_count;

/* Waits, not commands: answered when there is something to read, room to write, an end, or room in the channel. */
nst_error nst_attempt_readable(nst_request *request);
nst_error nst_attempt_writable(nst_request *request);
nst_error nst_attempt_device_readable(nst_request *request);
nst_error nst_attempt_device_writable(nst_request *request);
nst_error nst_attempt_channel_room(nst_request *request);

#endif
