/*
** The guard by itself: nanoseconds for a packet of each kind, looked at over and over. Next to those that ask for most
** work (the longest header chain, the longest options) stand those that make up the traffic.
**
** usage: guard [seconds]       prints lines of "name value unit"
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "guard.h"
#include "interface.h"

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void measure(const char *name, const nst_interface *interface, const uint8_t *packet, size_t length,
                    double seconds) {
  double start = now(), elapsed;
  unsigned long done = 0;
  do {
    int i;
    for (i = 0; i < 10000; i++) {
      if (nst_guard(interface, packet, length, false) != NST_GUARD_PASS) {
        fprintf(stderr, "guard: %s does not pass\n", name);
        exit(1);
      }
    }
    done += 10000;
    elapsed = now() - start;
  } while (elapsed < seconds);
  printf("%s %.1f ns\n", name, elapsed / (double)done * 1e9);
}

int main(int argc, char **argv) {
  double seconds = argc > 1 ? atof(argv[1]) : 0.2;
  static nst_interface interface;
  static uint8_t packet[1500];
  size_t i;
  interface.mtu = sizeof packet;
  interface.address_count = 2;
  IP_ADDR4(&interface.addresses[0].address, 10, 0, 0, 1);
  IP_ADDR6(&interface.addresses[1].address, PP_HTONL(0xfd000000), 0, 0, PP_HTONL(1));

  packet[0] = 0x45; /* a segment */
  packet[2] = sizeof packet >> 8;
  packet[3] = sizeof packet & 255;
  packet[9] = 6;
  memcpy(packet + 12, "\12\0\0\2\12\0\0\1", 8);
  packet[20 + 12] = 0x50;
  measure("ipv4_tcp", &interface, packet, sizeof packet, seconds);
  packet[0] = 0x4f; /* 40 options of a byte */
  memset(packet + 20, 1, 40);
  packet[60 + 12] = 0x50;
  measure("ipv4_options", &interface, packet, sizeof packet, seconds);

  memset(packet, 0, sizeof packet);
  packet[0] = 0x60;
  packet[4] = (sizeof packet - 40) >> 8;
  packet[5] = (sizeof packet - 40) & 255;
  packet[6] = 6;
  packet[8] = packet[24] = 0xfd;
  packet[23] = 2;
  packet[39] = 1;
  packet[40 + 12] = 0x50;
  measure("ipv6_tcp", &interface, packet, sizeof packet, seconds);
  packet[6] = 60; /* 16 headers of padding */
  for (i = 0; i < 16; i++) {
    packet[40 + 8 * i] = i < 15 ? 60 : 59;
    memset(packet + 41 + 8 * i, 0, 7);
  }
  measure("ipv6_chain", &interface, packet, sizeof packet, seconds);
  return 0;
}
