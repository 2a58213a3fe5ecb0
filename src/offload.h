/*
** What the kernel exchanges with a device that spares it the cutting of segments (IFF_VNET_HDR): each read(2) and each
** write(2) is a packet of up to 64 KiB that stands for many, behind a header that says how long these are, and whether
** a checksum is still to be computed. Everything above the device sees single packets with their checksums.
*/
#ifndef NST_OFFLOAD_H
#define NST_OFFLOAD_H

#include <sys/uio.h>

#include <linux/virtio_net.h>

#include "packet.h"

#define NST_OFFLOAD_HEADER sizeof(struct virtio_net_hdr)
/* What one read may bring: that, a frame's header, the longest IP packet. */
#define NST_OFFLOAD_MOST (NST_OFFLOAD_HEADER + 14 + 40 + 65535)
/* Packets that are written at once: as many as 64 KiB have. */
#define NST_TRAIN_MOST 64

/* What is left of a packet that stands for many. It is cut in place: the headers move along. */
typedef struct nst_segments {
  uint8_t *start;       /* the next one's headers, behind which its data lies */
  size_t link, tcp, headers; /* lengths: of a frame's header, up to TCP's, of all; headers 0: it is but one packet */
  size_t left, size;    /* data, and how much of it goes into each */
  uint8_t last_flags;   /* TCP's flags that only the last one gets */
} nst_segments;

/* Takes what was read, which must stay until all is cut. false: it does not add up. `link` is the length of a frame's
** header. */
bool nst_segments_begin(nst_segments *segments, uint8_t *bytes, size_t length, size_t link);
/* How many are left. */
size_t nst_segments_left(const nst_segments *segments);
/* The next one; NULL when memory ran out: it is lost. */
nst_packet *nst_segments_next(nst_segments *segments, nst_hub *hub);

/* What writev(2) takes: segments of one connection that follow one another, as one packet. */
typedef struct nst_train {
  struct virtio_net_hdr header;
  uint8_t headers[14 + 60 + 60];
  struct iovec parts[NST_TRAIN_MOST + 2]; /* header, headers, data */
  int count; /* of parts */
} nst_train;

/* Puts the first packets of a queue together, at least one; how many that are. Acknowledgements that a later one in the
** queue supersedes are left out. */
unsigned nst_train_make(nst_train *train, const nst_link *queue, size_t link);

#endif
