/* Addresses and prefixes as text: IPv4 dotted, IPv6 as RFC 5952 writes it, link-local ones with %<interface name>. */
#ifndef NST_ADDRESS_H
#define NST_ADDRESS_H

#include <stdbool.h>

#include "interface.h"

#define NST_ADDRESS_LENGTH 80 /* enough for any address with its zone, and the terminating 0 */

/* "*" is an address of type ANY. A zone is looked up on the stack, which may be NULL. */
bool nst_address_parse(nst_stack *stack, const char *text, ip_addr_t *address);
/* "10.0.0.1/24"; a bare address is /32 or /128. */
bool nst_prefix_parse(nst_stack *stack, const char *text, nst_prefix *prefix);
const char *nst_address_format(const nst_stack *stack, const ip_addr_t *address, char text[NST_ADDRESS_LENGTH]);
const char *nst_prefix_format(const nst_stack *stack, const nst_prefix *prefix, char text[NST_ADDRESS_LENGTH]);

#endif
