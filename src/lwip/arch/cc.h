/*
** What lwIP wants to know of the compiler and the host: random numbers, byte order and what happens when an
** assertion of its own fails.
*/
#ifndef NST_ARCH_CC_H
#define NST_ARCH_CC_H

#include <endian.h>
#include <stddef.h>
#include <stdint.h>

/* One instruction each; lwIP's own are functions. */
#if __BYTE_ORDER == __LITTLE_ENDIAN
#define lwip_htons(x) __builtin_bswap16(x)
#define lwip_htonl(x) __builtin_bswap32(x)
#endif

/* The running stack's generator (random.c). */
uint32_t nst_lwip_random(void);
#define LWIP_RAND() nst_lwip_random()

/* Leaves lwIP, marks the running stack dead and does not return (image.c). */
void nst_lwip_assertion(const char *message, const char *file, int line) __attribute__((noreturn, cold));
#define LWIP_PLATFORM_ASSERT(message) nst_lwip_assertion((message), __FILE__, __LINE__)
#define LWIP_PLATFORM_DIAG(x) do { } while (0)

/* The running stack's memory (memory.c). */
void *nst_lwip_malloc(size_t size);
void *nst_lwip_calloc(size_t count, size_t size);
void nst_lwip_free(void *block);

#endif
