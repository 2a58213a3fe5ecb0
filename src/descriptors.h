/*
** Waiting for the devices of a hub that have a file descriptor: one poll(2) for all of them, and one descriptor that
** stands for several, for loops that are not ours. A device is looked at only through here; until it has been told that
** there is something, it does not ask the kernel.
*/
#ifndef NST_DESCRIPTORS_H
#define NST_DESCRIPTORS_H

#include "device.h"

/* From opening to closing: a device whose fd is set. */
void nst_descriptors_add(nst_device *device);
/* Gives the kernel what was sent to devices since the last time: what one call into a stack has led to goes together. */
void nst_descriptors_flush(nst_hub *hub);
void nst_descriptors_remove(nst_device *device);
/* Somebody began or ceased to wait for it, or it waits for something else. */
void nst_descriptors_update(nst_device *device);
/* It is about to be detached from its user. */
void nst_descriptors_leave(nst_device *device);
/* The hub's bell is new. */
void nst_descriptors_rewatch(nst_hub *hub);
/* Makes the stack's pollset stand for all its devices, from now on. NST_FULL: no descriptor is left. */
nst_error nst_descriptors_gather(nst_stack *stack);
/* Waits until a device has something, `timeout` has passed or a signal came, and tells the devices. */
void nst_descriptors_wait(nst_hub *hub, nst_time timeout);
/* The same without waiting, and only when the last look was some time ago: for loops that do not come to wait. */
void nst_descriptors_glance(nst_hub *hub);
/* The same for one device, whether or not anybody waits for it; harmless for those without a descriptor. */
void nst_descriptors_look(nst_device *device);
/* Whether a device with a descriptor is attached or waited for; *alive, whether one of them may still have something. */
bool nst_descriptors_any(const nst_hub *hub, bool *alive);
/* The monotonic clock. */
nst_time nst_monotonic(void);

#endif
