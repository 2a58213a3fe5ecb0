#include "packet.h"

#include <arpa/inet.h>
#include <string.h>

/* Enough for a frame's header; a multiple of what IP headers are aligned to. */
#define HEADROOM 16

nst_packet *nst_packet_new(nst_hub *hub, size_t length) {
  nst_packet *packet = nst_memory_alloc(&hub->pool, NULL, sizeof *packet + HEADROOM + length);
  if (packet == NULL) return NULL;
  nst_list_init(&packet->link);
  packet->hub = hub;
  packet->length = (uint32_t)length;
  packet->switches = 0;
  packet->summed = false;
  packet->data = packet->bytes + HEADROOM;
  return packet;
}

nst_packet *nst_packet_copy(nst_hub *hub, const void *data, size_t length, size_t link) {
  nst_packet *packet = nst_packet_new(hub, length);
  if (packet == NULL) return NULL;
  packet->data -= link;
  memcpy(packet->data, data, length);
  return packet;
}

void nst_packet_pull(nst_packet *packet, size_t length) {
  packet->data += length;
  packet->length -= (uint32_t)length;
}

void nst_packet_push(nst_packet *packet, size_t length) {
  packet->data -= length;
  packet->length += (uint32_t)length;
}

nst_packet *nst_packet_from_pbuf(nst_hub *hub, const struct pbuf *p) {
  nst_packet *packet = nst_packet_new(hub, p->tot_len);
  size_t have = 0;
  if (packet == NULL) return NULL;
  for (; p != NULL; p = p->next) {
    memcpy(packet->data + have, p->payload, p->len);
    have += p->len;
    if (p->len == p->tot_len) break; /* what follows is another packet's */
  }
  return packet;
}

void nst_packet_free(nst_packet *packet) {
  nst_memory_free(&packet->hub->pool, packet);
}

void nst_packets_free(nst_link *packets) {
  nst_link *link;
  while ((link = nst_list_pop(packets)) != NULL) nst_packet_free(nst_holder(link, nst_packet, link));
}

static void free_packet_of(struct pbuf *p) {
  nst_packet_free((nst_packet *)(void *)p);
}

struct pbuf *nst_packet_to_pbuf(nst_packet *packet, nst_owner *owner) {
  nst_memory_give(packet, owner);
  packet->pbuf.custom_free_function = free_packet_of;
  return pbuf_alloced_custom(PBUF_RAW, (u16_t)packet->length, PBUF_REF, &packet->pbuf, packet->data,
                             (u16_t)packet->length);
}
