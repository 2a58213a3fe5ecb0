/* The names of the things that refer to each other. Each is described where it is defined. */
#ifndef NST_TYPES_H
#define NST_TYPES_H

typedef struct nst_dhcp nst_dhcp;
typedef struct nst_group nst_group;
typedef struct nst_hub nst_hub;
typedef struct nst_nat nst_nat;
typedef struct nst_stack nst_stack;
typedef struct nst_interface nst_interface;
typedef struct nst_device nst_device;
typedef struct nst_socket nst_socket;
typedef struct nst_udp nst_udp;
typedef struct nst_request nst_request;
typedef struct nst_slaac nst_slaac;

#endif
