/* Who holds which port. lwIP's own checks know neither "*" nor whether an address is local, and its choice of
** ephemeral ports can be foretold. */
#include "socket.h"
#include "stack.h"
#include "tcp.h"

#define FIRST_EPHEMERAL 1024
#define EPHEMERALS (65536 - FIRST_EPHEMERAL)

static bool overlap(const ip_addr_t *a, const ip_addr_t *b) {
  if (IP_IS_ANY_TYPE_VAL(*a) || IP_IS_ANY_TYPE_VAL(*b)) return true;
  if (IP_GET_TYPE(a) != IP_GET_TYPE(b)) return false;
  return ip_addr_isany(a) || ip_addr_isany(b) || ip_addr_eq(a, b);
}

/* By a mapping of a port of ours (nat.c), or another socket. */
static bool taken(nst_stack *stack, nst_protocol protocol, const ip_addr_t *host, uint16_t port, bool shared) {
  nst_node *node;
  if (nst_nat_holds(stack, protocol, host, port)) return true;
  for (node = nst_table_bucket(&stack->ports, port); node; node = node->next) {
    const nst_binding *binding = nst_holder(node, nst_binding, node);
    if (binding->protocol == protocol && binding->port == port && overlap(&binding->host, host) &&
        !(shared && binding->shared)) {
      return true;
    }
  }
  return false;
}

bool nst_port_is_taken(nst_stack *stack, nst_protocol protocol, const ip_addr_t *host, uint16_t port) {
  return taken(stack, protocol, host, port, false);
}

/* RFC 6056, algorithm 1: a random start, then the next free one. */
uint16_t nst_port_choose(nst_stack *stack, nst_protocol protocol, const ip_addr_t *local_host,
                         const ip_addr_t *remote_host, uint16_t remote_port) {
  uint32_t start = NST_GUARDED ? nst_random_u32(&stack->random) % EPHEMERALS : 0, i;
  for (i = 0; i < EPHEMERALS; i++) {
    uint16_t port = (uint16_t)(FIRST_EPHEMERAL + (start + i) % EPHEMERALS);
    if (taken(stack, protocol, local_host, port, false)) continue;
    if (remote_host && nst_tcp_find(stack, local_host, port, remote_host, remote_port)) continue;
    return port;
  }
  return 0;
}

nst_error nst_port_bind(nst_stack *stack, nst_binding *binding, nst_protocol protocol, const ip_addr_t *host,
                        uint16_t port, bool shared) {
  if (!IP_IS_ANY_TYPE_VAL(*host) && !ip_addr_isany(host) && !ip_addr_ismulticast(host) &&
      !nst_interface_with_address(stack, host)) {
    return NST_ADDRESS_NOT_AVAILABLE;
  }
  nst_nat_expire(stack);
  if (port == 0) {
    port = nst_port_choose(stack, protocol, host, NULL, 0);
    if (port == 0) return NST_ADDRESS_NOT_AVAILABLE;
  } else if (taken(stack, protocol, host, port, shared)) {
    return NST_ADDRESS_IN_USE;
  }
  binding->protocol = protocol;
  binding->host = *host;
  binding->port = port;
  binding->shared = shared;
  if (!nst_table_insert(&stack->ports, &binding->node, port)) {
    binding->port = 0;
    return NST_NO_MEMORY;
  }
  return NST_OK;
}

void nst_port_release(nst_stack *stack, nst_binding *binding) {
  nst_table_remove(&stack->ports, &binding->node);
}
