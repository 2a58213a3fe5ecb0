/*
** Multicast groups: which are wanted on which interface, by which sockets, and what the link's routers and switches
** are told of it (igmp.c, mld.c). Nothing ticks: a group has a timer while a report of it is due.
**
** No report is held back because another host has sent one (RFC 2236 §3, RFC 2710 §4 would have it so): a switch that
** snoops needs to hear every port's own, and nobody can silence a member by speaking for it (RFC 3376 A.2).
*/
#ifndef NST_GROUP_H
#define NST_GROUP_H

#include "heap.h"
#include "interface.h"
#include "table.h"

#define NST_MEMBERSHIPS 20 /* of a socket */
#define NST_GROUPS 256     /* of an interface */

struct nst_group {
  nst_node node;     /* in stack->groups.table */
  nst_link link;     /* in interface->groups */
  nst_timer timer;   /* in stack->groups.timers: a report is due */
  nst_interface *interface;
  ip_addr_t address; /* without a zone: the interface says which link it is on */
  nst_link members;  /* nst_membership.member */
  bool own;          /* addresses of ours need it: neighbours ask for them there (RFC 4861 7.2.1) */
};

/* A socket's in a group. */
typedef struct nst_membership {
  nst_link member; /* in group->members */
  nst_link link;   /* in udp->memberships */
  nst_group *group;
  nst_udp *udp;
} nst_membership;

/* A part of the stack. */
typedef struct nst_groups {
  nst_table table;
  nst_heap timers;
  uint64_t reports, leaves, queries; /* sent, sent, heeded */
  uint64_t ignored;                  /* queries that break the rules */
  uint64_t unwanted;                 /* packets to groups that nobody joined */
} nst_groups;

/* Inside the stack. interface NULL: the one that the route to the group leads to. NST_ADDRESS_IN_USE: joined already;
** NST_FULL; NST_NO_ROUTE; NST_INVALID_ADDRESS: no group's. */
nst_error nst_group_join(nst_udp *udp, nst_interface *interface, const ip_addr_t *address);
/* interface NULL: any on which the socket joined it. NST_ADDRESS_NOT_AVAILABLE: it did not. */
nst_error nst_group_leave(nst_udp *udp, nst_interface *interface, const ip_addr_t *address);
/* The socket closes. `tells`: inside the stack, and the link is to know. */
void nst_groups_leave_all(nst_udp *udp, bool tells);

/* Inside the stack. The interface's addresses changed. */
void nst_groups_follow(nst_interface *interface);
/* Inside the stack. The link may have forgotten us. */
void nst_groups_announce(nst_interface *interface);
/* The interface goes, and all memberships on it. */
void nst_groups_forget(nst_interface *interface);
void nst_groups_clear(nst_stack *stack);

/* Inside the stack. What to do with a packet that the guard let pass: false when it is to a group that nobody here
** wants to hear of. */
bool nst_group_wanted(const nst_interface *interface, const uint8_t *packet);
/* Inside the stack. Takes what lwIP is not to see: datagrams to groups, queries, reports. false: lwIP's. */
bool nst_group_input(nst_interface *interface, struct pbuf *p);
/* Inside the stack. Sends reports as time has come; true when there were any. */
bool nst_groups_run(nst_stack *stack);
nst_time nst_groups_next(const nst_stack *stack);

/* ---- igmp.c, mld.c ---- */

/* What a message asks for. */
typedef struct nst_query {
  bool bad;          /* it breaks the rules */
  bool is_query;     /* else it is a report or the like, which is none of ours */
  bool general;      /* of all groups; else of one */
  ip_addr_t address;
  nst_time within;   /* the answer is to come at a random time in so long */
} nst_query;

/* Whether it is a message of the protocol. */
bool nst_is_igmp(const uint8_t *packet);
bool nst_is_mld(const uint8_t *packet, size_t length);
/* A message that the guard let pass, as long as its headers say. */
void nst_igmp_read(const nst_interface *interface, const uint8_t *packet, size_t length, nst_query *query);
void nst_mld_read(const nst_interface *interface, const uint8_t *packet, size_t length, nst_query *query);
/* A report of a group, or that we left it, and where it goes. NULL: no memory. */
nst_packet *nst_igmp_build(nst_interface *interface, const ip_addr_t *group, bool leaves, ip_addr_t *to);
nst_packet *nst_mld_build(nst_interface *interface, const ip_addr_t *group, bool leaves, ip_addr_t *to);

#endif
