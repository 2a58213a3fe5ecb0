#include "socket.h"

#include <stdlib.h>
#include <string.h>

#include "raw.h"
#include "stack.h"
#include "tcp.h"
#include "udp.h"

void nst_socket_init(nst_socket *socket, nst_stack *stack, nst_protocol protocol) {
  socket->protocol = protocol;
  socket->references = 1;
  socket->stack = nst_stack_retain(stack);
  socket->open = true;
  socket->born = stack->now;
  nst_list_init(&socket->changed);
  nst_list_init(&socket->blocked);
  nst_list_init(&socket->readers);
  nst_list_init(&socket->writers);
  nst_list_append(&stack->sockets, &socket->link);
}

nst_socket *nst_socket_retain(nst_socket *socket) {
  socket->references++;
  return socket;
}

void nst_socket_release(nst_socket *socket) {
  nst_stack *stack = socket->stack;
  if (--socket->references > 0) return;
  nst_list_remove(&socket->link);
  nst_list_remove(&socket->changed);
  nst_list_remove(&socket->blocked);
  free(socket);
  nst_stack_release(stack);
}

void nst_socket_changed(nst_socket *socket) {
  if (nst_list_empty(&socket->readers) && nst_list_empty(&socket->writers)) return;
  if (!nst_list_linked(&socket->changed)) nst_list_append(&socket->stack->changed, &socket->changed);
}

static void close_inside(nst_stack *stack, void *argument) {
  nst_socket *socket = argument;
  nst_port_release(stack, &socket->binding);
  switch (socket->protocol) {
    case NST_TCP: nst_tcp_close((nst_tcp *)(void *)socket); break;
    case NST_UDP: nst_udp_close((nst_udp *)(void *)socket); break;
    case NST_RAW: nst_raw_close((nst_raw *)(void *)socket); break;
  }
}

void nst_socket_close(nst_socket *socket) {
  if (!socket->open) return;
  socket->open = false;
  (void)nst_socket_retain(socket);
  nst_requests_finish(&socket->readers, NST_CLOSED);
  nst_requests_finish(&socket->writers, NST_CLOSED);
  if (socket->stack->inside) close_inside(socket->stack, socket);
  else (void)nst_inside(socket->stack, close_inside, socket);
  if (socket->protocol != NST_TCP || ((nst_tcp *)(void *)socket)->pcb == NULL) nst_list_remove(&socket->link);
  nst_socket_release(socket);
}

void nst_socket_forget(nst_socket *socket) {
  (void)nst_socket_retain(socket);
  socket->open = false;
  nst_list_remove(&socket->link);
  nst_list_remove(&socket->changed);
  nst_list_remove(&socket->blocked);
  nst_port_release(socket->stack, &socket->binding);
  switch (socket->protocol) {
    case NST_TCP: {
      nst_tcp *tcp = (nst_tcp *)(void *)socket;
      nst_tcp_drop_received(tcp, false);
      nst_tcp_timers_stop(tcp);
      nst_table_remove(&socket->stack->connections, &tcp->node);
      nst_list_remove(&tcp->gone);
      nst_list_remove(&tcp->waits);
      if (tcp->unsettled) socket->stack->hub->unsettled--;
      tcp->unsettled = false;
      if (tcp->listener) { /* nobody but the listener's queue had it */
        nst_list_remove(&tcp->child);
        tcp->listener = NULL;
        nst_socket_release(socket);
      }
      if (tcp->pcb) {
        tcp->pcb = NULL;
        nst_socket_release(socket);
      }
      break;
    }
    case NST_UDP: nst_udp_forget((nst_udp *)(void *)socket); break;
    case NST_RAW: nst_raw_forget((nst_raw *)(void *)socket); break;
  }
  nst_requests_finish(&socket->readers, NST_CLOSED);
  nst_requests_finish(&socket->writers, NST_CLOSED);
  nst_socket_release(socket);
}
