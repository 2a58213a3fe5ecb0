/* Where packets go. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "tund.h"

/* Packets of the interface in a turn: clients have theirs, too. */
#define TURN 64

bool nst_tund_read_packet(const uint8_t *packet, size_t length, nst_tund_address *source,
                          nst_tund_address *destination) {
  if (length >= 20 && packet[0] >> 4 == 4) {
    size_t header = (size_t)(packet[0] & 15) * 4, total = (size_t)packet[2] << 8 | packet[3];
    if (header < 20 || header > total || total != length) return false;
    memset(source, 0, sizeof *source);
    memset(source->bytes + 10, 0xff, 2);
    *destination = *source;
    memcpy(source->bytes + 12, packet + 12, 4);
    memcpy(destination->bytes + 12, packet + 16, 4);
    return true;
  }
  if (length >= 40 && packet[0] >> 4 == 6) {
    if (((size_t)packet[4] << 8 | packet[5]) + 40 != length) return false;
    memcpy(source->bytes, packet + 8, 16);
    memcpy(destination->bytes, packet + 24, 16);
    /* What is IPv4's in our table is not to be had by an IPv6 packet. */
    return nst_tund_family(source) == NST_TUND_IPV6 && nst_tund_family(destination) == NST_TUND_IPV6;
  }
  return false;
}

bool nst_tund_from_interface(nst_tund *tund) {
  static uint8_t packet[65536];
  int i;
  for (i = 0; i < TURN; i++) {
    ssize_t length = read(tund->tun, packet, sizeof packet);
    nst_tund_address source, destination;
    nst_tund_client *client;
    if (length < 0) return errno != EBADFD;
    tund->counters.in++;
    if (length > (ssize_t)tund->mtu || !nst_tund_read_packet(packet, (size_t)length, &source, &destination)) {
      tund->counters.malformed++;
      continue;
    }
    client = nst_tund_find(tund, &destination);
    if (client) nst_tund_deliver(tund, client, packet, (size_t)length);
    else tund->counters.nobody++;
  }
  return true;
}

void nst_tund_from_client(nst_tund *tund, nst_tund_client *client, const uint8_t *packet, size_t length) {
  nst_tund_address source, destination;
  nst_tund_client *other;
  tund->counters.sent++;
  if (!nst_tund_read_packet(packet, length, &source, &destination)) {
    tund->counters.malformed++;
  } else if (nst_tund_find(tund, &source) != client) {
    tund->counters.foreign++;
  } else if ((other = nst_tund_find(tund, &destination)) != NULL) {
    nst_tund_deliver(tund, other, packet, length);
  } else if (write(tund->tun, packet, length) == (ssize_t)length) {
    tund->counters.out++;
  } else {
    tund->counters.unwritten++;
  }
}
