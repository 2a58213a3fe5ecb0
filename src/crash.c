/*
** A crash, as when the power fails, and the restart after it. What goes is what a host keeps in its memory: sockets,
** connections in any state, what waits to be put together or to be sent, caches, all that was learned. What stays is
** configuration: interfaces with their devices, the user's addresses, gateways and routes. Nobody is told, neither
** peers (no RST, no FIN) nor routers and switches (no leave) nor a DHCP server, so they find out as in life.
**
** Meanwhile every interface is off (nst_interface.on): what comes is dropped, and nothing goes out, whoever sends it.
*/
#include "nat.h"
#include "stack.h"

static void for_each_interface(nst_stack *stack, void (*body)(nst_interface *interface)) {
  nst_link *link;
  for (link = stack->interfaces.next; link != &stack->interfaces; link = link->next) {
    body(nst_holder(link, nst_interface, link));
  }
}

static void turn_off(nst_stack *stack, void *argument) {
  (void)argument;
  stack->crashed = true;
  for_each_interface(stack, nst_interface_turn_off);
}

static void unlearn(nst_stack *stack, void *argument) {
  (void)argument;
  for_each_interface(stack, nst_interface_unlearn);
  for_each_interface(stack, nst_groups_forget);
  for_each_interface(stack, nst_nat_forget);
}

static void turn_on(nst_stack *stack, void *argument) {
  (void)argument;
  stack->crashed = false;
  stack->icmp_paid_until = 0;
  for_each_interface(stack, nst_interface_turn_on);
}

/* Addresses that were learned go last: without connections that use them nobody has to be told that they go. */
nst_error nst_stack_crash(nst_stack *stack) {
  if (!stack->open) return NST_CLOSED;
  if (stack->crashed) return NST_OK;
  if (!nst_inside(stack, turn_off, NULL)) return NST_CLOSED;
  nst_stack_forget(stack);
  return nst_inside(stack, unlearn, NULL) ? NST_OK : NST_CLOSED;
}

nst_error nst_stack_restart(nst_stack *stack) {
  if (!stack->open) return NST_CLOSED;
  if (!stack->crashed) return NST_OK;
  return nst_inside(stack, turn_on, NULL) ? NST_OK : NST_CLOSED;
}
