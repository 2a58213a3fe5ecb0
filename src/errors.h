/*
** Every error that a function of netstack returns as `nil, err`: its name in C, the string that programs compare,
** what it means and what to do about it. The strings are fixed; Lua sees this list as netstack.errors.
*/
#ifndef NST_ERRORS_H
#define NST_ERRORS_H

#define NST_ERRORS(X)                                                                                                  \
  X(WOULDBLOCK, "wouldblock", "a ticket's command has not been answered yet", "poll the stack, or wait for the ticket") \
  X(CLOSED, "closed", "the other side sent its last byte, or we closed the object, or its stack is closed, or crashed",\
    "stop using it; what arrived before was delivered")                                                                \
  X(RESET, "connection reset", "the other side sent RST on an open connection", "what arrived was delivered; reconnect") \
  X(ABORTED, "connection aborted", "abort() was called while this call waited, or resources were taken back",          \
    "connect again")                                                                                                   \
  X(REFUSED, "connection refused", "the other side answered the SYN with RST: nobody listens on that port",            \
    "check the port, and that the server listens")                                                                     \
  X(TIMEOUT, "timeout", "the deadline passed, or the other side has not answered for too long",                        \
    "call again, with the partial result as prefix; nothing is lost")                                                  \
  X(IN_PROGRESS, "in progress", "another task waits for this socket's connect", "wait for that task")                  \
  X(ALREADY_CONNECTED, "already connected", "the socket has a peer", "use a new socket")                               \
  X(NOT_CONNECTED, "not connected", "the socket has no peer yet", "connect first")                                     \
  X(NO_ROUTE, "no route", "no interface leads there, or the stack has none", "attach a device, give it addresses, add a route") \
  X(HOST_UNREACHABLE, "host unreachable", "a router reported (ICMP) that it cannot reach the host, or it does not answer on its link", "check the address and the route") \
  X(PORT_UNREACHABLE, "port unreachable", "the other host reported (ICMP) that nobody has that UDP port",              \
    "told once; check the port")                                                                                       \
  X(ADDRESS_IN_USE, "address already in use",                                                                          \
    "another socket or a mapping holds the port, the device is attached already, the socket is in that group already, or a TUN "    \
    "interface is open already",                                                                                       \
    "choose another port or name, or close the other one")                                                             \
  X(ADDRESS_NOT_AVAILABLE, "address not available",                                                                    \
    "no interface has this local address, no ephemeral port is left, the socket is not in that group, or there is no " \
    "such network namespace",                                                                                          \
    "bind an address of this stack; make the namespace first")                                                         \
  X(INVALID_ADDRESS, "invalid address",                                                                                \
    "the text is not an address or prefix, or not a group's where one is needed",                                      \
    "write IPv4 dotted, IPv6 as in RFC 5952") \
  X(WRONG_IP_VERSION, "wrong ip version", "the socket is bound to the other family", "use an address of the socket's family") \
  X(HOST_NOT_FOUND, "host not found", "the name could not be resolved", "check the name, and the stack's `hosts` and `dns`") \
  X(MESSAGE_TOO_LONG, "message too long", "the datagram does not fit in a packet", "send less, or allow fragments")    \
  X(NO_MEMORY, "no memory", "an allocation failed", "close something; nothing was sent")                               \
  X(FULL, "full", "a limit was reached: a queue, or the number of interfaces or memberships", "try again when there is room")         \
  X(EMPTY, "empty", "nothing is there to be received", "try again later")                                              \
  X(PERMISSION_DENIED, "permission denied", "the operating system refused", "run with more rights: the third value says which")                    \
  X(NOT_SUPPORTED, "not supported", "this build, platform or phase cannot do it", "see the README's list")             \
  X(CANCELLED, "cancelled", "the task or ticket was cancelled", "none is needed: nothing was lost")

#define NST_ERROR_NAME(name, text, meaning, remedy) NST_##name,
typedef enum nst_error { NST_OK, NST_ERRORS(NST_ERROR_NAME) NST_ERROR_COUNT } nst_error;
#undef NST_ERROR_NAME

/* The string of an error; static. */
const char *nst_error_text(nst_error error);
const char *nst_error_meaning(nst_error error);
const char *nst_error_remedy(nst_error error);

#endif
