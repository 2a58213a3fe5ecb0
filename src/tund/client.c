#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tund.h"

void nst_tund_accept(nst_tund *tund) {
  nst_tund_client *client;
  int fd = accept4(tund->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) {
    tund->deaf = errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM;
    return;
  }
  client = tund->client_count < NST_TUND_CLIENTS ? calloc(1, sizeof *client) : NULL;
  if (client == NULL) {
    static const char full[] = "refused too many clients\n";
    (void)!send(fd, full, sizeof full - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    close(fd);
    tund->counters.refused++;
    return;
  }
  client->fd = fd;
  tund->clients[tund->client_count++] = client;
  tund->counters.accepted++;
}

static void leave(nst_tund *tund, nst_tund_client *client) {
  size_t i;
  if (client->state == NST_TUND_GRANTED) {
    for (i = 0; i < client->address_count; i++) nst_tund_let_go(tund, &client->addresses[i]);
  }
  client->state = NST_TUND_GONE;
}

static bool has_room(nst_tund_client *client, size_t length) {
  size_t waits = client->queue_end - client->queue_start;
  if (NST_TUND_QUEUE - client->queue_end >= length) return true;
  /* Moved when there is much to win, not for each packet. */
  if (client->queue_start < NST_TUND_QUEUE / 4 || NST_TUND_QUEUE - waits < length) return false;
  memmove(client->queue, client->queue + client->queue_start, waits);
  client->queue_start = 0;
  client->queue_end = waits;
  return true;
}

static void append(nst_tund_client *client, const void *data, size_t length) {
  memcpy(client->queue + client->queue_end, data, length);
  client->queue_end += length;
}

void nst_tund_deliver(nst_tund *tund, nst_tund_client *client, const uint8_t *packet, size_t length) {
  uint8_t head[2] = {(uint8_t)(length >> 8), (uint8_t)length};
  if (!has_room(client, length + 2)) {
    tund->counters.full++;
    return;
  }
  append(client, head, 2);
  append(client, packet, length);
  tund->counters.delivered++;
}

/* As `word why`. There is room: a client gets two answers at most, and these first. */
static void answer(nst_tund_client *client, const char *word, const char *why) {
  append(client, word, strlen(word));
  append(client, " ", 1);
  append(client, why, strlen(why));
  append(client, "\n", 1);
}

static void refuse(nst_tund *tund, nst_tund_client *client, const char *why) {
  answer(client, "refused", why);
  client->last = true;
  tund->counters.refused++;
}

static void try_to_grant(nst_tund *tund, nst_tund_client *client) {
  const char *why = nst_tund_grant(tund, client);
  char line[NST_TUND_LINE];
  if (why == NULL) append(client, line, nst_tund_write_grant(tund, client, line));
  else if (!client->told) answer(client, "wait", why);
  client->told = true;
}

/* Returns how much of the input that was; 0: not all of it has come. */
static size_t request(nst_tund *tund, nst_tund_client *client) {
  uint8_t *end = memchr(client->input, '\n', client->input_used);
  size_t length = end ? (size_t)(end - client->input) : client->input_used;
  const char *why;
  if (length >= NST_TUND_LINE || memchr(client->input, '\0', length)) {
    refuse(tund, client, "no request of netstack's");
    return client->input_used;
  }
  if (end == NULL) return 0;
  *end = '\0';
  why = nst_tund_read_request(tund, client, (char *)client->input);
  if (why) {
    refuse(tund, client, why);
  } else {
    client->state = NST_TUND_WAITING;
    try_to_grant(tund, client);
  }
  return length + 1;
}

static size_t packet(nst_tund *tund, nst_tund_client *client, const uint8_t *data, size_t have) {
  size_t length;
  if (have < 2) return 0;
  length = (size_t)data[0] << 8 | data[1];
  if (length == 0 || length > tund->mtu) { /* what follows has no beginning */
    tund->counters.broken++;
    leave(tund, client);
    return 0;
  }
  if (have < length + 2) return 0;
  nst_tund_from_client(tund, client, data + 2, length);
  return length + 2;
}

void nst_tund_client_input(nst_tund *tund, nst_tund_client *client) {
  ssize_t length = recv(client->fd, client->input + client->input_used, NST_TUND_INPUT - client->input_used, 0);
  size_t at = 0, used;
  if (length < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (length <= 0) {
    leave(tund, client);
    return;
  }
  client->input_used += (size_t)length;
  do {
    if (client->last) used = client->input_used - at; /* whatever a refused one says */
    else if (client->state == NST_TUND_ASKED) used = request(tund, client);
    else if (client->state == NST_TUND_GRANTED) used = packet(tund, client, client->input + at, client->input_used - at);
    else used = 0;
    at += used;
  } while (used > 0);
  client->input_used -= at;
  if (at > 0) memmove(client->input, client->input + at, client->input_used);
}

static void flush(nst_tund *tund, nst_tund_client *client) {
  ssize_t length = client->queue_end - client->queue_start;
  if (length > 0) {
    length = send(client->fd, client->queue + client->queue_start, (size_t)length, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (length > 0) client->queue_start += (size_t)length;
    else if (errno != EAGAIN && errno != EINTR) leave(tund, client);
  }
  if (client->queue_start != client->queue_end) return;
  client->queue_start = client->queue_end = 0;
  if (client->last) leave(tund, client);
}

void nst_tund_settle(nst_tund *tund) {
  size_t i, left = 0;
  for (i = 0; i < tund->client_count; i++) {
    if (tund->clients[i]->state != NST_TUND_GONE) flush(tund, tund->clients[i]);
  }
  for (i = 0; i < tund->client_count; i++) {
    nst_tund_client *client = tund->clients[i];
    if (client->state == NST_TUND_GONE) {
      close(client->fd);
      free(client);
    } else {
      tund->clients[left++] = client;
    }
  }
  if (left == tund->client_count) return;
  tund->client_count = left;
  for (i = 0; i < left; i++) {
    if (tund->clients[i]->state != NST_TUND_WAITING) continue;
    try_to_grant(tund, tund->clients[i]);
    if (tund->clients[i]->state == NST_TUND_GRANTED) flush(tund, tund->clients[i]);
  }
}
