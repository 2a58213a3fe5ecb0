/* Ethernet as a link layer: frames around IP packets and ARP (RFC 894, RFC 2464). No VLANs. */
#ifndef NST_ETHERNET_H
#define NST_ETHERNET_H

#include <stdbool.h>
#include <stdint.h>

#include "lwip/ip_addr.h"
#include "packet.h"
#include "types.h"

#define NST_FRAME_HEADER 14
#define NST_MAC_LENGTH 6

enum { NST_TYPE_IPV4 = 0x0800, NST_TYPE_ARP = 0x0806, NST_TYPE_IPV6 = 0x86dd };

extern const uint8_t nst_everybody[NST_MAC_LENGTH];

/* Inside the stack. Sends an IP packet to a host on the link, or towards one behind it. Takes the packet over. */
void nst_ethernet_output(nst_interface *interface, nst_packet *packet, const ip_addr_t *destination);
/* Puts the header in front and transmits. */
void nst_ethernet_send(nst_interface *interface, nst_packet *packet, const uint8_t *to, uint16_t type);
/* The same for what only answers: with the device full it is dropped, or a flood of questions would fill the memory. */
void nst_ethernet_answer(nst_interface *interface, nst_packet *packet, const uint8_t *to, uint16_t type);
/* A frame came, and the guard let it pass. true: it was none of lwIP's and is gone; false: the header is off. */
bool nst_ethernet_input(nst_interface *interface, nst_packet *packet);
/* Tells the link of an address of ours that is new, and asks whether somebody else has it. */
void nst_ethernet_announce(nst_interface *interface, const ip_addr_t *address);

/* arp.c */
void nst_arp_ask(nst_interface *interface, const ip_addr_t *host, const uint8_t *station);
void nst_arp_announce(nst_interface *interface, const ip_addr_t *address);
void nst_arp_input(nst_interface *interface, const nst_packet *packet);

#endif
