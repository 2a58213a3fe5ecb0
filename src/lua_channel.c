/*** The command channel and its tickets as Lua sees them.
@submodule netstack.core */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "address.h"
#include "binding.h"
#include "operations.h"
#include "request.h"
#include "trace.h"

/* ---- arguments ---- */

typedef struct reader {
  lua_State *L;
  nst_request *request;
  const nst_operation *operation;
  const char *function;
  nst_error error; /* one that is returned, not raised */
} reader;

static int complain(reader *r, const char *field, const char *why) {
  char text[160];
  snprintf(text, sizeof text, "%s of '%s': %s", field, r->operation->name, why);
  nst_request_release(r->request);
  return nst_lua_argument_error(r->L, 2, r->function, text);
}

static bool is_handle(lua_State *L, int index) {
  return nst_lua_test(L, index, NST_CLASS_TCP) || nst_lua_test(L, index, NST_CLASS_UDP) ||
         nst_lua_test(L, index, NST_CLASS_RAW);
}

static void read_handle(reader *r) {
  nst_socket *socket = nst_lua_test_socket(r->L, -1);
  if (socket == NULL) {
    if (!is_handle(r->L, -1)) complain(r, "handle", "handle expected");
    r->error = NST_CLOSED; /* a handle that was closed holds no socket any more */
    return;
  }
  if (socket->protocol != r->operation->protocol) complain(r, "handle", "a handle of another protocol");
  if (socket->stack != r->request->stack) complain(r, "handle", "a handle of another stack");
  r->request->socket = nst_socket_retain(socket);
  if (!socket->open) r->error = NST_CLOSED;
}

static void read_host(reader *r, const char *field, ip_addr_t *to) {
  if (lua_type(r->L, -1) != LUA_TSTRING) complain(r, field, "string expected");
  if (strlen(lua_tostring(r->L, -1)) != nst_rawlen(r->L, -1) ||
      !nst_address_parse(r->request->stack, lua_tostring(r->L, -1), to)) {
    r->error = NST_INVALID_ADDRESS;
  }
}

static double read_number(reader *r, const char *field, double least, double most) {
  double value = (double)lua_tonumber(r->L, -1);
  if (lua_type(r->L, -1) != LUA_TNUMBER) complain(r, field, "number expected");
  if (!(floor(value) == value)) complain(r, field, "number has no integer representation");
  if (value < least || value > most) complain(r, field, "out of range");
  return value;
}

static void read_data(reader *r) {
  size_t length;
  const char *data = lua_tolstring(r->L, -1, &length);
  if (lua_type(r->L, -1) != LUA_TSTRING) complain(r, "data", "string expected");
  if (length == 0 && r->operation->protocol != NST_UDP) complain(r, "data", "empty");
  r->request->data = malloc(length + 1);
  if (r->request->data == NULL) {
    r->error = NST_NO_MEMORY;
    return;
  }
  memcpy(r->request->data, data, length);
  r->request->length = length;
}

static void read_addresses(reader *r) {
  lua_State *L = r->L;
  nst_prefix *prefixes;
  size_t i, count;
  if (!lua_istable(L, -1)) complain(r, "addresses", "a list of addresses expected");
  count = nst_rawlen(L, -1);
  if (count > NST_ADDRESSES) {
    r->error = NST_FULL;
    return;
  }
  prefixes = calloc(count + 1, sizeof *prefixes);
  if (prefixes == NULL) {
    r->error = NST_NO_MEMORY;
    return;
  }
  r->request->data = (char *)prefixes;
  r->request->length = count * sizeof *prefixes;
  for (i = 0; i < count; i++) {
    lua_rawgeti(L, -1, (int)i + 1);
    if (lua_type(L, -1) != LUA_TSTRING) complain(r, "addresses", "addresses are strings");
    if (!nst_lua_prefix(L, -1, r->request->stack, &prefixes[i])) r->error = NST_INVALID_ADDRESS;
    lua_pop(L, 1);
  }
}

static void read_how(reader *r) {
  const char *how = lua_tostring(r->L, -1);
  if (how && strcmp(how, "receive") == 0) r->request->number = 1;
  else if (how && strcmp(how, "send") == 0) r->request->number = 2;
  else if (how && strcmp(how, "both") == 0) r->request->number = 3;
  else complain(r, "how", "\"send\", \"receive\" or \"both\" expected");
}

static void read_family(reader *r) {
  const char *family = lua_tostring(r->L, -1);
  if (family && strcmp(family, "ipv6") == 0) r->request->number |= 256;
  else if (family == NULL || strcmp(family, "ipv4") != 0) complain(r, "family", "\"ipv4\" or \"ipv6\" expected");
}

/* The value of a field lies on the top. */
static void read_field(reader *r, const char *field) {
  nst_request *request = r->request;
  if (strcmp(field, "handle") == 0) read_handle(r);
  else if (strcmp(field, "host") == 0) read_host(r, field, &request->host);
  else if (strcmp(field, "port") == 0) request->port = (uint16_t)read_number(r, field, 0, 65535);
  else if (strcmp(field, "local_host") == 0) read_host(r, field, &request->local_host);
  else if (strcmp(field, "local_port") == 0) request->local_port = (uint16_t)read_number(r, field, 0, 65535);
  else if (strcmp(field, "data") == 0) read_data(r);
  else if (strcmp(field, "max_len") == 0) request->max_length = (size_t)read_number(r, field, 1, 1e9);
  else if (strcmp(field, "backlog") == 0) request->number = (int)read_number(r, field, 0, 1e6);
  else if (strcmp(field, "how") == 0) read_how(r);
  else if (strcmp(field, "family") == 0) read_family(r);
  else if (strcmp(field, "protocol") == 0) request->number |= (int)read_number(r, field, 0, 255);
  else read_addresses(r);
}

/* Cuts the next name off a list of them; false at its end. Sets whether it ended in '?'. */
static bool next_name(const char **list, char name[24], bool *optional) {
  size_t length = strcspn(*list, " ");
  if (length == 0) return false;
  *optional = (*list)[length - 1] == '?';
  memcpy(name, *list, length - *optional);
  name[length - *optional] = '\0';
  *list += length + ((*list)[length] == ' ');
  return true;
}

static bool takes(const nst_operation *operation, const char *field) {
  const char *list = operation->arguments;
  char name[24];
  bool optional;
  while (next_name(&list, name, &optional)) {
    if (strcmp(name, field) == 0) return true;
  }
  return false;
}

/* Fills the request from the table at index 3. */
static void read_arguments(reader *r) {
  lua_State *L = r->L;
  const char *list = r->operation->arguments;
  char name[24];
  bool optional;
  r->request->local_host = (ip_addr_t)IPADDR_ANY_TYPE_INIT;
  if (strcmp(r->operation->name, "tcp.listen") == 0) r->request->number = 32;
  if (strcmp(r->operation->name, "tcp.shutdown") == 0) r->request->number = 3;
  for (lua_pushnil(L); lua_next(L, 3); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING || !takes(r->operation, lua_tostring(L, -2))) {
      lua_pop(L, 1);
      complain(r, lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "field", "unknown");
    }
  }
  while (next_name(&list, name, &optional)) {
    lua_getfield(L, 3, name);
    if (!lua_isnil(L, -1)) read_field(r, name);
    else if (!optional) complain(r, name, "missing");
    lua_pop(L, 1);
  }
}

/* ---- channel ---- */

/* The command at indices 2 and 3, queued; NULL, with the error, when it could not be. */
static nst_request *submit_command(lua_State *L, const char *function, nst_error *error) {
  nst_box *box = nst_lua_check(L, 1, NST_CLASS_CHANNEL, function);
  nst_stack *stack = box->object;
  const char *name = nst_lua_string(L, 1, NULL, function);
  reader r;
  int op;
  memset(&r, 0, sizeof r);
  for (op = 0; op < nst_operation_count && strcmp(nst_operations[op].name, name) != 0; op++) {}
  if (op == nst_operation_count) {
    char why[96];
    snprintf(why, sizeof why, "unknown operation '%.60s'", name);
    nst_lua_argument_error(L, 1, function, why);
  }
  lua_settop(L, 3);
  if (!lua_istable(L, 3)) nst_lua_argument_error(L, 2, function, "table expected");
  *error = NST_CLOSED;
  if (stack == NULL || !nst_stack_runs(stack)) return NULL;
  r.L = L;
  r.operation = &nst_operations[op];
  r.function = function;
  r.request = nst_request_new(stack->hub, stack, r.operation->attempt);
  *error = NST_NO_MEMORY;
  if (r.request == NULL) return NULL;
  r.request->op = op;
  r.request->consumes = r.operation->consumes;
  read_arguments(&r);
  *error = r.error;
  if (r.error == NST_OK) *error = nst_stack_submit(stack, r.request, r.operation->always);
  if (*error == NST_OK) {
    nst_trace_command(stack, r.operation->name);
    return r.request;
  }
  nst_request_release(r.request);
  return NULL;
}

static int submit_as(lua_State *L, const char *function) {
  nst_error error;
  nst_request *request = submit_command(L, function, &error);
  nst_stack *stack;
  if (request == NULL) return nst_lua_fail(L, error);
  stack = request->stack;
  nst_lua_push_ticket(L, request);
  nst_lua_after(L, stack);
  return 1;
}

/*** Queues a command.
@function channel:submit
@tparam string op
@tparam table args
@treturn ticket|nil
@treturn string "full", "closed", "invalid address" */
static int submit(lua_State *L) {
  return submit_as(L, "submit");
}

/*** As `submit`, for channel:request, in whose name its errors are.
@function channel:submit_request
@tparam string op
@tparam table args
@treturn ticket|nil
@treturn string "full", "closed", "invalid address" */
static int submit_request(lua_State *L) {
  return submit_as(L, "request");
}

/*** Queues a command whose answer nobody wants; a close always has room.
@function channel:post
@tparam string op
@tparam table args
@treturn integer|nil 1
@treturn string "full", "closed", "invalid address" */
static int post(lua_State *L) {
  nst_error error;
  nst_request *request = submit_command(L, "post", &error);
  nst_stack *stack;
  if (request == NULL) return nst_lua_fail(L, error);
  stack = request->stack;
  nst_request_release(request);
  nst_lua_after(L, stack);
  return nst_lua_success(L);
}

static nst_stack *channel_stack(lua_State *L, const char *function) {
  nst_stack *stack = nst_lua_check(L, 1, NST_CLASS_CHANNEL, function)->object;
  return stack && stack->open ? stack : NULL;
}

/*** A ticket that is answered when the channel has room. It is armed anew (`ticket:arm`) for each wait.
@function channel:room_ticket
@treturn ticket|nil
@treturn string "closed", "no memory" */
static int room_ticket(lua_State *L) {
  nst_stack *stack = channel_stack(L, "room_ticket");
  nst_request *request;
  if (stack == NULL) return nst_lua_fail(L, NST_CLOSED);
  request = nst_request_new(stack->hub, stack, nst_attempt_channel_room);
  if (request == NULL) return nst_lua_fail(L, NST_NO_MEMORY);
  request->consumes = true;
  nst_lua_push_ticket(L, request);
  return 1;
}

/*** The channel's stack.
@function channel:stack
@treturn stack|nil nil once it was collected
@treturn string "closed" */
static int stack_of(lua_State *L) {
  nst_stack *stack = channel_stack(L, "stack");
  if (stack == NULL) return nst_lua_fail(L, NST_CLOSED);
  nst_lua_recall(L, stack->id);
  return 1;
}

static int collect_channel(lua_State *L) {
  nst_box *box = nst_lua_test(L, 1, NST_CLASS_CHANNEL);
  nst_stack *stack = box ? box->object : NULL;
  if (stack == NULL) return 0;
  box->object = NULL;
  nst_stack_release(stack);
  return 0;
}

/*** Closes the channel, not its stack; what was submitted still runs.
@function channel:close
@treturn integer 1; harmless twice */
static int close_channel(lua_State *L) {
  nst_lua_check(L, 1, NST_CLASS_CHANNEL, "close");
  collect_channel(L);
  return nst_lua_success(L);
}

static int describe_channel(lua_State *L) {
  nst_box *box = nst_lua_test(L, 1, NST_CLASS_CHANNEL);
  nst_stack *stack = box ? box->object : NULL;
  if (stack == NULL || !stack->open) lua_pushliteral(L, "channel (closed)");
  else lua_pushfstring(L, "channel of %s (%d queued)", stack->config.name, (int)stack->command_count);
  return 1;
}

/*** Makes a command channel.
@function channel
@tparam stack stack
@treturn channel which does not keep the stack alive */
static int channel_new(lua_State *L) {
  nst_stack *stack = nst_lua_check(L, 1, NST_CLASS_STACK, "channel")->object;
  if (stack == NULL || !stack->open) return nst_lua_fail(L, NST_CLOSED);
  nst_lua_box(L, NST_CLASS_CHANNEL)->object = nst_stack_retain(stack);
  return 1;
}

/* ---- tickets ---- */

void nst_lua_push_ticket(lua_State *L, nst_request *request) {
  nst_lua_box(L, NST_CLASS_TICKET)->object = request;
}

static nst_request *check_ticket(lua_State *L, const char *function) {
  return nst_lua_check(L, 1, NST_CLASS_TICKET, function)->object;
}

static int collect_ticket(lua_State *L) {
  nst_box *box = nst_lua_test(L, 1, NST_CLASS_TICKET);
  nst_request *request = box ? box->object : NULL;
  if (request == NULL) return 0;
  box->object = NULL;
  nst_request_abandon(request);
  return 0;
}

static int describe_ticket(lua_State *L) {
  static const char *const states[] = {"idle", "queued", "waiting", "done"};
  nst_box *box = nst_lua_test(L, 1, NST_CLASS_TICKET);
  nst_request *request = box ? box->object : NULL;
  if (request == NULL) lua_pushliteral(L, "ticket (closed)");
  else lua_pushfstring(L, "ticket %s (%s)", request->op >= 0 ? nst_operations[request->op].name : "wait",
                       states[request->state]);
  return 1;
}

/*** Whether the command was answered.
@function ticket:done
@treturn boolean */
static int done(lua_State *L) {
  nst_request *request = check_ticket(L, "done");
  lua_pushboolean(L, request == NULL || request->state == NST_REQUEST_DONE);
  return 1;
}

/*** Takes the command back, or stops waiting; nothing that arrived is lost.
@function ticket:cancel
@treturn boolean false: it was done */
static int cancel(lua_State *L) {
  nst_request *request = check_ticket(L, "cancel");
  lua_pushboolean(L, request && nst_request_cancel(request));
  return 1;
}

/*** Waits again with a ticket that is no command's: done at once when what it waits for is there.
@function ticket:arm
@treturn boolean|nil whether it is done; nil when somebody is waiting with it already */
static int arm(lua_State *L) {
  nst_request *request = check_ticket(L, "arm");
  if (request && request->op >= 0) { /* a command runs once, and where it belongs: at the poll */
    lua_pushboolean(L, request->state == NST_REQUEST_DONE);
    return 1;
  }
  if (request == NULL || request->state == NST_REQUEST_WAITING) return 0;
  if (request->state == NST_REQUEST_DONE) request->state = NST_REQUEST_IDLE;
  nst_list_remove(&request->ready);
  if (request->state == NST_REQUEST_IDLE) nst_request_try(request);
  lua_pushboolean(L, request->state == NST_REQUEST_DONE);
  return 1;
}

static nst_error attempt_group(nst_request *request) {
  (void)request;
  return NST_OK;
}

/*** A ticket that is answered as soon as one of several is, a cancelled one too: whoever can wait for one ticket can so
wait for the first of many. A ticket counts in the last group that it was put into.
@function first_of
@tparam {ticket,...} tickets
@treturn ticket */
static int first_of(lua_State *L) {
  nst_request *group;
  size_t i, count;
  luaL_checktype(L, 1, LUA_TTABLE);
  group = nst_request_new(nst_lua_hub(L), NULL, attempt_group);
  if (group == NULL) return nst_lua_fail(L, NST_NO_MEMORY);
  group->state = NST_REQUEST_WAITING;
  nst_lua_push_ticket(L, group);
  count = nst_rawlen(L, 1);
  for (i = 1; i <= count; i++) {
    nst_box *box;
    lua_rawgeti(L, 1, (int)i);
    box = nst_lua_test(L, -1, NST_CLASS_TICKET);
    if (box == NULL) return luaL_argerror(L, 1, "a list of tickets expected");
    if (box->object) nst_request_join(box->object, group);
    lua_pop(L, 1);
  }
  return 1;
}

/* The field's value on the top; nothing when the answer does not have it. */
static bool push_field(lua_State *L, nst_request *request, const char *field) {
  const nst_stack *stack = request->stack;
  if (strcmp(field, "handle") == 0) {
    nst_socket *socket = request->made;
    request->made = NULL;
    nst_lua_push_socket(L, socket);
  } else if (strcmp(field, "host") == 0) {
    nst_lua_push_address(L, stack, &request->answer_host);
  } else if (strcmp(field, "port") == 0) {
    lua_pushinteger(L, request->answer_port);
  } else if (strcmp(field, "local_host") == 0) {
    nst_lua_push_address(L, stack, &request->answer_local_host);
  } else if (strcmp(field, "local_port") == 0) {
    lua_pushinteger(L, request->answer_local_port);
  } else if (strcmp(field, "data") == 0) {
    if (request->finished) return false;
    lua_pushlstring(L, request->answer ? request->answer : "", request->answer_length);
  } else if (strcmp(field, "truncated") == 0) {
    if (request->original_length == 0) return false;
    nst_pushinteger(L, request->original_length);
  } else if (strcmp(field, "sent") == 0) {
    nst_pushinteger(L, request->done_length);
  } else { /* finished */
    if (!request->finished) return false;
    lua_pushboolean(L, 1);
  }
  return true;
}

/*** The answer of the command.
@function ticket:result
@treturn table|nil the response, the same table each time
@treturn string the error; "wouldblock" while it is pending */
static int result(lua_State *L) {
  nst_request *request = check_ticket(L, "result");
  const char *list;
  char name[24];
  bool optional;
  if (request == NULL) return nst_lua_fail(L, NST_CLOSED);
  if (request->state != NST_REQUEST_DONE) return nst_lua_fail(L, NST_WOULDBLOCK);
  if (request->error != NST_OK) return nst_lua_fail(L, request->error);
  if (request->op < 0) return nst_lua_success(L);
  if (request->told) {
    nst_getuservalue(L, 1);
    lua_getfield(L, -1, "response");
    return 1;
  }
  request->told = true;
  lua_newtable(L); /* keeps the response: it is made once */
  lua_newtable(L);
  for (list = nst_operations[request->op].answer; next_name(&list, name, &optional);) {
    if (push_field(L, request, name)) lua_setfield(L, -2, name);
  }
  lua_pushvalue(L, -1);
  lua_setfield(L, -3, "response");
  lua_pushvalue(L, -2);
  nst_setuservalue(L, 1);
  return 1;
}

void nst_lua_open_channel(lua_State *L) {
  static const luaL_Reg channel_methods[] = {
    {"submit", submit}, {"submit_request", submit_request}, {"post", post}, {"room_ticket", room_ticket},
    {"stack", stack_of}, {"close", close_channel}, {NULL, NULL}};
  static const luaL_Reg ticket_methods[] = {
    {"done", done}, {"result", result}, {"cancel", cancel}, {"arm", arm}, {NULL, NULL}};
  static const luaL_Reg functions[] = {{"channel", channel_new}, {"first_of", first_of}, {NULL, NULL}};
  nst_lua_class(L, NST_CLASS_CHANNEL, "netstack.channel", channel_methods, collect_channel, describe_channel);
  nst_lua_class(L, NST_CLASS_TICKET, "netstack.ticket", ticket_methods, collect_ticket, describe_ticket);
  nst_lua_functions(L, functions);
}
