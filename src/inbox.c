#include <stdlib.h>

#include "udp.h"

bool nst_inbox_put(nst_inbox *inbox, const struct pbuf *p, const ip_addr_t *host, uint16_t port, size_t count_at_most,
                   size_t bytes_at_most) {
  nst_datagram *datagram = NULL;
  /* One datagram is always taken: a queue smaller than a datagram would be no queue at all. */
  if (inbox->count == 0 || (inbox->count < count_at_most && inbox->bytes + p->tot_len <= bytes_at_most)) {
    datagram = malloc(sizeof *datagram + p->tot_len);
  }
  if (datagram == NULL) {
    inbox->dropped++;
    return false;
  }
  datagram->host = *host;
  datagram->port = port;
  datagram->length = pbuf_copy_partial(p, datagram->data, p->tot_len, 0);
  nst_list_append(&inbox->datagrams, &datagram->link);
  inbox->count++;
  inbox->bytes += datagram->length;
  return true;
}

nst_datagram *nst_inbox_first(const nst_inbox *inbox) {
  return nst_list_empty(&inbox->datagrams) ? NULL : nst_holder(inbox->datagrams.next, nst_datagram, link);
}

nst_datagram *nst_inbox_take(nst_inbox *inbox) {
  nst_datagram *datagram = nst_inbox_first(inbox);
  if (datagram) {
    nst_list_remove(&datagram->link);
    inbox->count--;
    inbox->bytes -= datagram->length;
  }
  return datagram;
}

void nst_inbox_clear(nst_inbox *inbox) {
  nst_datagram *datagram;
  while ((datagram = nst_inbox_take(inbox)) != NULL) free(datagram);
}
