#include "request.h"

#include <stdlib.h>

#include "descriptors.h"
#include "device.h"
#include "socket.h"
#include "stack.h"

nst_request *nst_request_new(nst_hub *hub, nst_stack *stack, nst_attempt attempt) {
  nst_request *request = calloc(1, sizeof *request);
  if (request == NULL) return NULL;
  nst_list_init(&request->link);
  nst_list_init(&request->ready);
  request->hub = nst_hub_retain(hub);
  request->stack = stack ? nst_stack_retain(stack) : NULL;
  request->attempt = attempt;
  request->op = -1;
  request->references = 1;
  return request;
}

nst_request *nst_request_retain(nst_request *request) {
  request->references++;
  return request;
}

static void unmake(nst_request *request) {
  nst_socket *socket = request->made;
  request->made = NULL;
  nst_socket_close(socket);
  nst_socket_release(socket);
}

void nst_request_release(nst_request *request) {
  if (--request->references > 0) return;
  nst_list_remove(&request->ready);
  if (request->made) unmake(request);
  if (request->group) nst_request_release(request->group);
  if (request->socket) nst_socket_release(request->socket);
  if (request->device) nst_device_release(request->device);
  if (request->stack) nst_stack_release(request->stack);
  nst_hub_release(request->hub);
  free(request->data);
  free(request->answer);
  free(request);
}

/* Takes the request out of whatever holds it, which gives up its reference. */
static void unlink_request(nst_request *request) {
  if (!nst_list_linked(&request->link)) return;
  nst_list_remove(&request->link);
  if (request->device) nst_descriptors_update(request->device);
  if (request->state == NST_REQUEST_QUEUED) nst_stack_command_left(request->stack);
  request->state = NST_REQUEST_IDLE;
  nst_request_release(request);
}

/* The request's group is answered, and has nothing more to do with it. */
static void answer_group(nst_request *request) {
  nst_request *group = request->group;
  if (group == NULL) return;
  request->group = NULL;
  if (group->state != NST_REQUEST_DONE) nst_request_finish(group, NST_OK);
  nst_request_release(group);
}

void nst_request_join(nst_request *request, nst_request *group) {
  if (request->group) nst_request_release(request->group);
  request->group = nst_request_retain(group);
  if (request->state == NST_REQUEST_DONE) answer_group(request);
}

void nst_request_finish(nst_request *request, nst_error error) {
  nst_request_retain(request);
  unlink_request(request);
  request->state = NST_REQUEST_DONE;
  request->error = error;
  if (request->watcher != 0 && !nst_list_linked(&request->ready)) {
    nst_list_append(&request->hub->ready, &request->ready);
  }
  answer_group(request);
  nst_request_release(request);
}

void nst_request_try(nst_request *request) {
  nst_error error;
  request->waits_in = NULL;
  error = request->attempt(request);
  if (error != NST_WOULDBLOCK) {
    nst_request_finish(request, error);
  } else if (request->state != NST_REQUEST_WAITING) {
    nst_request_retain(request);
    unlink_request(request);
    request->state = NST_REQUEST_WAITING;
    nst_list_append(request->waits_in, &request->link); /* which takes over the reference */
    if (request->device) nst_descriptors_update(request->device);
  }
}

bool nst_request_watch(nst_request *request, unsigned watcher, unsigned *before) {
  if (request->state == NST_REQUEST_DONE) return false;
  *before = request->watcher;
  request->watcher = watcher;
  return true;
}

bool nst_request_await(nst_request *request, unsigned watcher, unsigned *before) {
  if (request->op < 0 && request->state != NST_REQUEST_WAITING) {
    request->state = NST_REQUEST_IDLE;
    nst_request_try(request);
  }
  return nst_request_watch(request, watcher, before);
}

bool nst_request_cancel(nst_request *request) {
  if (request->state == NST_REQUEST_DONE) return false;
  nst_request_finish(request, NST_CANCELLED);
  if (request->made) unmake(request); /* nobody will ever get it */
  return true;
}

void nst_request_abandon(nst_request *request) {
  request->watcher = 0;
  if (request->consumes && request->state != NST_REQUEST_DONE) nst_request_cancel(request);
  nst_request_release(request);
}

void nst_requests_attempt(nst_link *waiting) {
  while (!nst_list_empty(waiting)) {
    nst_request *request = nst_holder(waiting->next, nst_request, link);
    nst_request_try(request);
    if (!nst_list_empty(waiting) && waiting->next == &request->link) break;
  }
}

void nst_requests_finish(nst_link *waiting, nst_error error) {
  while (!nst_list_empty(waiting)) nst_request_finish(nst_holder(waiting->next, nst_request, link), error);
}
