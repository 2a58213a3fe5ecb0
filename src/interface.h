/*
** An interface joins a device to a stack. It hands received packets to lwIP, keeps what the device refuses of a
** datagram's fragments, and lets those who wait for room go on in turn. To lwIP it is one netif for each IPv4
** address (lwIP's netif has one) that share a device; the first has the IPv6 addresses too.
*/
#ifndef NST_INTERFACE_H
#define NST_INTERFACE_H

#include "device.h"
#include "guard.h"
#include "lwip/netif.h"
#include "socket.h"
#include "table.h"

#define NST_IPV4_ADDRESSES 8
#define NST_IPV6_ADDRESSES 8
#define NST_ADDRESSES (NST_IPV4_ADDRESSES + NST_IPV6_ADDRESSES)

/* An address with the length of its prefix. */
typedef struct nst_prefix {
  ip_addr_t address;
  uint8_t bits;
} nst_prefix;

/* Where an interface has an address from, in the order in which they lie in addresses[]. */
typedef enum nst_address_origin {
  NST_ADDRESS_LEASED, /* by DHCP */
  NST_ADDRESS_GIVEN,  /* by the user */
  NST_ADDRESS_FORMED, /* by SLAAC, with a prefix that a router has advertised */
  NST_ADDRESS_ORIGINS
} nst_address_origin;

/* An address of ours in the table of all of them. */
typedef struct nst_own {
  nst_node node; /* in stack->own */
  nst_interface *interface;
  const ip_addr_t *address;
} nst_own;

struct nst_interface {
  nst_stack *stack;    /* not counted; NULL once detached */
  nst_device_user user; /* of the device */
  nst_device *device;  /* counted; NULL for loopback */
  unsigned references; /* the stack, Lua's object */
  nst_link link;       /* in stack->interfaces */
  nst_link busy;       /* in stack->busy: it has work, for the next round */
  char name[32];
  uint16_t mtu;
  bool up;             /* as the user has it */
  bool on;             /* packets pass: it is up, and the stack has not crashed */
  nst_link egress;     /* packets that IP has sent and the device has no room for */
  nst_link blocked;    /* nst_socket.blocked: those who wait for room, in order */
  bool room_came;
  nst_link looped;     /* packets to our own addresses, for the next round */
  size_t looped_count;
  uint64_t dropped_out, dropped_in;
  uint64_t guarded[NST_GUARD_CAUSE_COUNT]; /* of dropped_in, by the guard's cause */
  uint8_t mac[6];      /* on Ethernet, and what follows */
  nst_prefix link_local; /* made by ourselves; not one of addresses[] */
  bool has_link_local;
  nst_time defended;   /* an IPv4 address, last */
  nst_link groups;     /* nst_group.link: what is wanted here */
  size_t group_count;
  nst_dhcp *dhcp;      /* NULL: not asked for */
  nst_slaac *slaac;    /* NULL: not asked for */
  nst_nat *nat;        /* NULL: it does not masquerade */
  struct netif netifs[NST_IPV4_ADDRESSES];
  bool registered[NST_IPV4_ADDRESSES];
  nst_prefix addresses[NST_ADDRESSES];
  nst_address_origin origins[NST_ADDRESSES];
  bool deprecated[NST_ADDRESSES]; /* connections keep it, new ones prefer another (RFC 4862 5.5.4) */
  size_t address_count;
  nst_prefix given[NST_ADDRESSES]; /* what the user said last, also of addresses that others turned out to have */
  size_t given_count;
  nst_own own[NST_ADDRESSES + 1]; /* addresses[], link_local */
  nst_time tentative_until[NST_ADDRESSES + 1]; /* addresses[], link_local: until then it may be a duplicate (nd.c) */
};

/* So many netifs, each with one IPv4 address, lwIP can tell apart. */
#define NST_NETIFS 255

/* Inside the stack. `device` NULL makes the loopback interface; `mac` NULL: a random one. NULL: no memory. */
nst_interface *nst_interface_attach(nst_stack *stack, nst_device *device, const char *name, const uint8_t *mac);
nst_interface *nst_interface_retain(nst_interface *interface);
void nst_interface_release(nst_interface *interface);
/* Outside the stack; the device stays open and may be attached again. */
void nst_interface_detach(nst_interface *interface);

/* ---- addresses.c ---- */

/* Inside the stack, at the beginning and the end of an interface: the netif that there always is; all of them. */
bool nst_addresses_begin(nst_interface *interface);
void nst_addresses_end(nst_interface *interface);
/* They are no addresses of the stack's any more. */
void nst_addresses_disown(nst_stack *stack, nst_interface *interface);
/* Inside the stack. What the user gave it and it has given up is an address of the interface again. */
void nst_addresses_reclaim(nst_interface *interface);
/* Inside the stack, on an Ethernet. Tells the link of all, and asks who else has them. */
void nst_addresses_announce(nst_interface *interface);
/* Inside the stack. Replaces all addresses of one origin; of equal ones the user's stay. NST_FULL: more than fit; of
** those formed with prefixes only so many are taken as do fit. */
nst_error nst_interface_set_addresses(nst_interface *interface, nst_address_origin origin, const nst_prefix *addresses,
                                      size_t count);
/* Inside the stack. Harmless with what is no address of the interface. */
void nst_interface_deprecate(nst_interface *interface, const ip_addr_t *address, bool deprecated);
/* Inside the stack. Makes its address for the link from an identifier of 8 bytes. */
void nst_interface_make_link_local(nst_interface *interface, const uint8_t *identifier);
/* Whether there is room for another IPv6 address. */
bool nst_interface_has_room6(const nst_interface *interface);
/* The interface of an address of the stack's own; NULL: it is none. */
nst_interface *nst_interface_with_address(const nst_stack *stack, const ip_addr_t *address);
bool nst_interface_has_address(const nst_interface *interface, const ip_addr_t *address);
/* Until when an address of ours is tentative; NULL: it is none of ours. */
nst_time *nst_interface_tentative(nst_interface *interface, const ip_addr_t *address);
/* How long packets to that address may be: IPv6's as short as a router on the link says (slaac.c). */
uint16_t nst_interface_mtu(const nst_interface *interface, const ip_addr_t *destination);
/* Whether an IPv4 address means everybody on the link. */
bool nst_interface_is_broadcast(const nst_interface *interface, const ip_addr_t *address);
/* Whether what comes over the interface to this address is ours: an address of ours, of a group, of everybody. */
bool nst_interface_is_for_us(const nst_interface *interface, const ip_addr_t *destination);
/* Inside the stack. Goes on without an address that turned out to be somebody else's. */
void nst_interface_lose_address(nst_interface *interface, const ip_addr_t *address);

/* ---- */

void nst_interface_set_up(nst_interface *interface, bool up);
/* Inside the stack. The stack has crashed: nothing passes any more. */
void nst_interface_turn_off(nst_interface *interface);
/* Inside the stack, once nobody uses its addresses. What others have told of the link is forgotten, and nobody is told. */
void nst_interface_unlearn(nst_interface *interface);
/* Inside the stack, which has been restarted: the interface begins as it did when it was attached. */
void nst_interface_turn_on(nst_interface *interface);
/* The cause of drops while it is not on. */
const char *nst_interface_off_cause(const nst_interface *interface);
bool nst_interface_is_ethernet(const nst_interface *interface);

/* From the device. */
void nst_interface_packet_came(nst_interface *interface);
void nst_interface_room_came(nst_interface *interface);

/* Inside the stack: takes packets from the device and hands them to lwIP; lets those who wait for room go on.
** Returns true when anything was done. */
bool nst_interface_poll(nst_interface *interface);
/* Whether a datagram may be sent now: nothing waits before it and the device has room. */
bool nst_interface_has_room(const nst_interface *interface);
/* Queues a socket that was refused. */
void nst_interface_block(nst_interface *interface, nst_socket *socket);
/* Inside the stack. Hands a packet, or frame, to the device, or keeps it until that has room. Takes it over. */
void nst_interface_transmit(nst_interface *interface, nst_packet *packet);
/* Counts, traces and frees a packet that does not go out. */
void nst_interface_drop(nst_interface *interface, nst_packet *packet, const char *cause);
/* Inside the stack. Sends a packet that is not lwIP's, frame and all; dropped when the device is full. Takes it over. */
void nst_interface_send(nst_interface *interface, nst_packet *packet, const ip_addr_t *destination);
/* Inside the stack. The packet is for ourselves: it comes in at the next round. Takes it over. */
void nst_interface_loop(nst_interface *interface, nst_packet *packet);
/* Inside the stack, input.c: a packet, or frame, of the device, or one that we sent to ourselves. Takes it over. */
void nst_interface_input(nst_interface *interface, nst_packet *packet, bool looped);
/* Counts, traces and frees a packet that came in vain. */
void nst_interface_discard(nst_interface *interface, nst_packet *packet, const char *cause);
/* The addresses of an IP packet of that interface's link. */
void nst_packet_addresses(const nst_interface *interface, const uint8_t *packet, ip_addr_t *source,
                          ip_addr_t *destination);
/* output.c: what lwIP sends. */
err_t nst_output4(struct netif *netif, struct pbuf *p, const ip4_addr_t *destination);
err_t nst_output6(struct netif *netif, struct pbuf *p, const ip6_addr_t *destination);
/* The interface of one of lwIP's netifs. */
nst_interface *nst_interface_of(const struct netif *netif);

#endif
