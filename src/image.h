/*
** Isolation. lwIP keeps its state in global variables; the linker gathers them in one section, and each stack owns
** an image of it. Entering a stack takes the one lock that guards the section and brings in that stack's image.
** An assertion of lwIP leaves the stack by longjmp and marks it dead; the caller, the lock and the other stacks live.
*/
#ifndef NST_IMAGE_H
#define NST_IMAGE_H

#include <stdbool.h>

#include "types.h"

/*
** Runs `body` inside the stack. Inside, no function that may raise a Lua error is called and no other stack is
** entered. Returns false, and does not run the body to its end, when the stack is closed or dies on the way.
*/
bool nst_inside(nst_stack *stack, void (*body)(nst_stack *stack, void *argument), void *argument);

/* A fresh image for a new stack, and its end. false: no memory. */
bool nst_image_make(nst_stack *stack);
void nst_image_free(nst_stack *stack);

/* The stack that is entered now; NULL outside. For lwIP's callbacks. */
nst_stack *nst_current(void);

#endif
