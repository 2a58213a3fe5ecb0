#include "fragment.h"

#include <string.h>

#include "bytes.h"
#include "chain.h"
#include "checksum.h"
#include "stack.h"

enum { MORE = 0x2000, OFFSET = 0x1fff };

/* The headers that each piece begins with. */
typedef struct head {
  uint8_t bytes[40 + 256 + 8];
  size_t length;
} head;

/* IPv4: behind the first piece only the options that say so are repeated (RFC 791 3.1), filled up to whole words. */
static void repeat_options(head *h) {
  size_t from = 20, to = 20;
  while (from < h->length && h->bytes[from] != 0) {
    size_t size = h->bytes[from] == 1 ? 1u : from + 1 < h->length ? h->bytes[from + 1] : 0;
    if (size == 0 || from + size > h->length) break;
    if ((h->bytes[from] & 0x80) != 0) {
      memmove(h->bytes + to, h->bytes + from, size);
      to += size;
    }
    from += size;
  }
  while (to % 4 != 0) h->bytes[to++] = 0;
  h->length = to;
  h->bytes[0] = (uint8_t)(0x40 | to / 4);
}

/* IPv6: all that routers on the way have to see stays in front of the fragment header. false: that is too much. */
static bool make_head6(nst_stack *stack, const nst_packet *packet, head *h) {
  uint32_t id = nst_random_u32(&stack->random);
  size_t at = 40, next = 6;
  while (packet->data[next] == NST_HOP_BY_HOP || packet->data[next] == NST_ROUTING) {
    next = at;
    at += (packet->data[at + 1] + 1u) * 8u;
    if (at > sizeof h->bytes - 8) return false;
  }
  memcpy(h->bytes, packet->data, at);
  memset(h->bytes + at, 0, 8);
  h->bytes[at] = h->bytes[next];
  h->bytes[next] = NST_FRAGMENT;
  memcpy(h->bytes + at + 4, &id, 4);
  h->length = at + 8;
  return true;
}

static void finish(const nst_interface *interface, uint8_t *piece, size_t header, size_t total, unsigned fragment) {
  if (piece[0] >> 4 == 6) {
    nst_put16(piece + 4, total - 40);
    nst_put16(piece + header - 6, (fragment & OFFSET) << 3 | ((fragment & MORE) != 0));
    return;
  }
  nst_put16(piece + 2, total);
  nst_put16(piece + 6, fragment);
  if (interface->device->checksum) nst_header_complete(piece);
  else memset(piece + 10, 0, 2);
}

void nst_send_in_pieces(nst_interface *interface, nst_packet *packet, const ip_addr_t *destination, size_t most) {
  nst_stack *stack = interface->stack;
  bool ipv6 = packet->data[0] >> 4 == 6;
  unsigned first = ipv6 ? 0 : nst_get16(packet->data + 6);
  size_t at, offset;
  head h;
  if (ipv6 && !make_head6(stack, packet, &h)) {
    nst_interface_drop(interface, packet, "message too long");
    return;
  }
  if (!ipv6) {
    h.length = (packet->data[0] & 15u) * 4u;
    memcpy(h.bytes, packet->data, h.length);
  }
  at = ipv6 ? h.length - 8 : h.length;
  offset = (first & OFFSET) * 8;
  while (at < packet->length) {
    size_t left = packet->length - at, length = left + h.length <= most ? left : (most - h.length) / 8 * 8;
    nst_packet *piece = nst_packet_new(stack->hub, h.length + length);
    if (piece == NULL) break;
    memcpy(piece->data, h.bytes, h.length);
    memcpy(piece->data + h.length, packet->data + at, length);
    finish(interface, piece->data, h.length, h.length + length,
           (unsigned)(offset / 8) | (length < left ? MORE : first & MORE));
    nst_interface_send(interface, piece, destination);
    if (!ipv6 && offset == 0) repeat_options(&h);
    at += length;
    offset += length;
  }
  nst_packet_free(packet);
}
