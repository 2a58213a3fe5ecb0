/*
** The few things of ours that are linked into lwIP's object, so that they are part of each stack's state image.
*/
#include "lwip/opt.h"
#include "lwip/sys.h"
#include "lwip/priv/tcp_priv.h"

uint32_t nst_tcp_buffer_size;
uint8_t nst_tcp_window_scale;

/* lwIP's idea of the time, in milliseconds: the tick that tcp_timers.c sets. */
u32_t sys_now(void) { return tcp_ticks; }
