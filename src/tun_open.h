/*
** Opening TUN and TAP devices, and the errors that say what to do about it. Linux only, like the rest.
*/
#ifndef NST_TUN_OPEN_H
#define NST_TUN_OPEN_H

#include "device.h"

typedef struct nst_tun_order {
  const char *name;    /* NULL: the kernel chooses */
  const char *netns;   /* of /run/netns; NULL: the one we are in */
  bool ethernet;       /* TAP */
  int adopted;         /* a descriptor that is open already, which stays the caller's; -1 */
  bool mode_named;     /* an adopted one has to be what `ethernet` says */
  bool offload;        /* wanted; and, afterwards, whether the kernel does it: then packets look as offload.h says */
  uint16_t mtu;        /* 0: the kernel's; else it is told, if it lets us */

  int fd;              /* what came of it: non-blocking, closed on exec */
  bool made;           /* the interface was not there before, and goes with the descriptor */
  char actual[16];     /* the interface's name; "": none */
  char message[320];   /* what to do about an error */
} nst_tun_order;

/* NST_OK: `fd` is the caller's to close; `ethernet` and `mtu` (0: unknown) say what it is. */
nst_error nst_tun_open(nst_tun_order *order);
/* The device on what was opened: it takes `fd` over. NULL: no memory; `fd` is closed then. */
nst_device *nst_tun_new(nst_hub *hub, const nst_tun_order *order);

#endif
