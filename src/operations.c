#include "operations.h"

#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "raw.h"
#include "stack.h"
#include "tcp.h"
#include "trace.h"
#include "udp.h"

static nst_tcp *tcp_of(nst_socket *socket) {
  return (nst_tcp *)(void *)socket;
}

static nst_udp *udp_of(nst_socket *socket) {
  return (nst_udp *)(void *)socket;
}

static nst_raw *raw_of(nst_socket *socket) {
  return (nst_raw *)(void *)socket;
}

static nst_error wait_in(nst_request *request, nst_link *list, nst_error error) {
  request->waits_in = list;
  return error;
}

static nst_error made(nst_request *request, void *socket) {
  request->made = socket;
  return socket ? NST_OK : NST_NO_MEMORY;
}

/* What failed is not handed out. */
static nst_error unmake(nst_request *request, nst_error error) {
  nst_socket_close(request->made);
  nst_socket_release(request->made);
  request->made = NULL;
  return error;
}

/* ---- stack ---- */

static nst_error set_addresses(nst_request *request) {
  nst_stack *stack = request->stack;
  nst_link *link;
  for (link = stack->interfaces.next; link != &stack->interfaces; link = link->next) {
    nst_interface *interface = nst_holder(link, nst_interface, link);
    if (interface == stack->loopback) continue;
    return nst_interface_set_addresses(interface, NST_ADDRESS_GIVEN, (const nst_prefix *)(void *)request->data,
                                       request->length / sizeof(nst_prefix));
  }
  return NST_NO_ROUTE;
}

/* ---- UDP ---- */

static nst_error do_udp_bind(nst_request *request) {
  nst_error error = made(request, nst_udp_new(request->stack));
  if (error == NST_OK) error = nst_udp_bind(udp_of(request->made), &request->host, request->port);
  if (error != NST_OK) return request->made ? unmake(request, error) : error;
  request->answer_host = request->made->binding.host;
  request->answer_port = request->made->binding.port;
  return NST_OK;
}

static nst_error do_udp_send(nst_request *request) {
  nst_udp *udp = udp_of(request->socket);
  return wait_in(request, &request->socket->writers,
                 nst_udp_send(udp, &request->host, request->port, request->data, request->length));
}

/* Hands over the next datagram, cut to max_length. */
static nst_error take_datagram(nst_request *request, nst_inbox *inbox) {
  nst_datagram *datagram = nst_inbox_first(inbox);
  size_t length = datagram->length;
  if (request->max_length > 0 && length > request->max_length) {
    request->original_length = length;
    length = request->max_length;
  }
  request->answer = malloc(length + 1);
  if (request->answer == NULL) return NST_NO_MEMORY;
  memcpy(request->answer, datagram->data, length);
  request->answer_length = length;
  request->answer_host = datagram->host;
  request->answer_port = datagram->port;
  free(nst_inbox_take(inbox));
  return NST_OK;
}

static nst_error do_udp_recv(nst_request *request) {
  nst_udp *udp = udp_of(request->socket);
  nst_error error = nst_udp_readable(udp);
  if (error == NST_OK) error = take_datagram(request, &udp->inbox);
  return wait_in(request, &request->socket->readers, error);
}

static nst_error close_socket(nst_request *request) {
  nst_socket_close(request->socket);
  return NST_OK;
}

/* ---- TCP ---- */

static nst_error do_tcp_connect(nst_request *request) {
  nst_error error;
  if (request->made == NULL) {
    error = made(request, nst_tcp_new(request->stack));
    if (error != NST_OK) return error;
    if (request->local_port != 0 || !IP_IS_ANY_TYPE_VAL(request->local_host)) {
      error = nst_tcp_bind(tcp_of(request->made), &request->local_host, request->local_port);
      if (error != NST_OK) return unmake(request, error);
    }
    error = nst_tcp_connect(tcp_of(request->made), &request->host, request->port);
  } else {
    error = nst_tcp_connected(tcp_of(request->made));
  }
  if (error == NST_WOULDBLOCK) return wait_in(request, &request->made->writers, error);
  if (error != NST_OK) return unmake(request, error);
  (void)nst_tcp_local(tcp_of(request->made), &request->answer_local_host, &request->answer_local_port);
  return NST_OK;
}

static nst_error do_tcp_listen(nst_request *request) {
  nst_error error = made(request, nst_tcp_new(request->stack));
  if (error == NST_OK) error = nst_tcp_bind(tcp_of(request->made), &request->host, request->port);
  if (error == NST_OK) error = nst_tcp_listen(tcp_of(request->made), (size_t)request->number);
  if (error != NST_OK) return request->made ? unmake(request, error) : error;
  request->answer_host = request->made->binding.host;
  request->answer_port = request->made->binding.port;
  return NST_OK;
}

static nst_error do_tcp_accept(nst_request *request) {
  nst_tcp *connection;
  nst_error error = nst_tcp_accept(tcp_of(request->socket), &connection);
  if (error == NST_OK) {
    request->made = &connection->socket;
    (void)nst_tcp_remote(connection, &request->answer_host, &request->answer_port);
    (void)nst_tcp_local(connection, &request->answer_local_host, &request->answer_local_port);
  }
  return wait_in(request, &request->socket->readers, error);
}

static nst_error do_tcp_send(nst_request *request) {
  return wait_in(request, &request->socket->writers,
                 nst_tcp_send(tcp_of(request->socket), request->data, request->length, &request->done_length));
}

static nst_error do_tcp_recv(nst_request *request) {
  nst_tcp *tcp = tcp_of(request->socket);
  bool ended = tcp->socket.open && (tcp->end_of_data || tcp->discards) && tcp->error == NST_OK;
  nst_error error = nst_tcp_readable(tcp);
  if (error == NST_CLOSED && ended) {
    request->finished = true;
    return NST_OK;
  }
  if (error == NST_OK) {
    size_t length = tcp->received_length;
    if (request->max_length > 0 && length > request->max_length) length = request->max_length;
    request->answer = malloc(length);
    if (request->answer == NULL) return NST_NO_MEMORY;
    request->answer_length = nst_tcp_peek(tcp, request->answer, 0, length);
    if (nst_tcp_consume(tcp, request->answer_length)) nst_tcp_announce(tcp);
  }
  return wait_in(request, &request->socket->readers, error);
}

/* number: 1 receive, 2 send, 3 both */
static nst_error do_tcp_shutdown(nst_request *request) {
  return nst_tcp_shutdown(tcp_of(request->socket), (request->number & 1) != 0, (request->number & 2) != 0);
}

static nst_error do_tcp_abort(nst_request *request) {
  nst_socket *socket = request->socket;
  nst_requests_finish(&socket->readers, NST_ABORTED);
  nst_requests_finish(&socket->writers, NST_ABORTED);
  nst_tcp_abort(tcp_of(socket));
  nst_socket_close(socket);
  return NST_OK;
}

/* ---- raw ---- */

static nst_error do_raw_open(nst_request *request) {
  return made(request, nst_raw_new(request->stack, request->number >> 8 != 0, (uint8_t)request->number));
}

static nst_error do_raw_send(nst_request *request) {
  return wait_in(request, &request->socket->writers,
                 nst_raw_send(raw_of(request->socket), request->data, request->length));
}

static nst_error do_raw_recv(nst_request *request) {
  nst_raw *raw = raw_of(request->socket);
  nst_error error = nst_raw_readable(raw);
  if (error == NST_OK) error = take_datagram(request, &raw->inbox);
  return wait_in(request, &request->socket->readers, error);
}

const nst_operation nst_operations[] = {
  {"stack.set_addresses", "addresses", "", NST_TCP, set_addresses, false, false},
  {"udp.bind", "host port", "handle host port", NST_UDP, do_udp_bind, false, false},
  {"udp.send", "handle host port data", "", NST_UDP, do_udp_send, false, false},
  {"udp.recv", "handle max_len?", "host port data truncated", NST_UDP, do_udp_recv, true, false},
  {"udp.close", "handle", "", NST_UDP, close_socket, false, true},
  {"tcp.connect", "host port local_host? local_port?", "handle local_host local_port", NST_TCP, do_tcp_connect, true, false},
  {"tcp.listen", "host port backlog?", "handle host port", NST_TCP, do_tcp_listen, false, false},
  {"tcp.accept", "handle", "handle host port local_host local_port", NST_TCP, do_tcp_accept, true, false},
  {"tcp.send", "handle data", "sent", NST_TCP, do_tcp_send, false, false},
  {"tcp.recv", "handle max_len?", "data finished", NST_TCP, do_tcp_recv, true, false},
  {"tcp.shutdown", "handle how?", "", NST_TCP, do_tcp_shutdown, false, false},
  {"tcp.close", "handle", "", NST_TCP, close_socket, false, true},
  {"tcp.abort", "handle", "", NST_TCP, do_tcp_abort, false, true},
  {"raw.open", "family protocol", "handle", NST_RAW, do_raw_open, false, false},
  {"raw.send", "handle data", "", NST_RAW, do_raw_send, false, false},
  {"raw.recv", "handle max_len?", "data truncated", NST_RAW, do_raw_recv, true, false},
  {"raw.close", "handle", "", NST_RAW, close_socket, false, true},
};
const int nst_operation_count = (int)(sizeof nst_operations / sizeof *nst_operations);

/* ---- waits ---- */

nst_error nst_attempt_readable(nst_request *request) {
  nst_socket *socket = request->socket;
  bool ready = !socket->open;
  switch (socket->protocol) {
    case NST_TCP: {
      const nst_tcp *tcp = tcp_of(socket);
      ready = ready || tcp->received_length > 0 || tcp->end_of_data || tcp->discards || tcp->error != NST_OK ||
              !nst_list_empty(&tcp->acceptable) || (!tcp->connecting && !tcp->listening && tcp->pcb == NULL);
      break;
    }
    case NST_UDP: ready = ready || udp_of(socket)->inbox.count > 0 || udp_of(socket)->error != NST_OK; break;
    case NST_RAW: ready = ready || raw_of(socket)->inbox.count > 0; break;
  }
  return wait_in(request, &socket->readers, ready ? NST_OK : NST_WOULDBLOCK);
}

nst_error nst_attempt_writable(nst_request *request) {
  nst_socket *socket = request->socket;
  bool ready = true;
  if (socket->open && socket->protocol == NST_TCP) {
    const nst_tcp *tcp = tcp_of(socket);
    if (tcp->connecting) ready = tcp->error != NST_OK;
    else if (tcp->connected && tcp->pcb) ready = tcp->error != NST_OK || tcp->send_shut || tcp_sndbuf(tcp->pcb) > 0;
  } else if (socket->open) {
    ready = !nst_list_linked(&socket->blocked);
  }
  return wait_in(request, &socket->writers, ready ? NST_OK : NST_WOULDBLOCK);
}

nst_error nst_attempt_device_readable(nst_request *request) {
  nst_device *device = request->device;
  return wait_in(request, &device->readers,
                 !device->open || device->user || nst_device_has_packet(device) || nst_device_is_cut(device)
                   ? NST_OK : NST_WOULDBLOCK);
}

nst_error nst_attempt_device_writable(nst_request *request) {
  nst_device *device = request->device;
  return wait_in(request, &device->writers,
                 !device->open || device->user || nst_device_has_room(device) ? NST_OK : NST_WOULDBLOCK);
}

nst_error nst_attempt_channel_room(nst_request *request) {
  const nst_stack *stack = request->stack;
  bool room = stack->config.channel_capacity == 0 || stack->command_count < stack->config.channel_capacity;
  return wait_in(request, &request->stack->room_waiters, !stack->open || room ? NST_OK : NST_WOULDBLOCK);
}
