/* events.h - what happens next: a heap by time, and among equal times by order of being told.
 *
 * base/heap.h gives equal keys in no order, which would make results depend on how the heap grew.
 * Threads: one. */
#ifndef REPLAY_EVENTS_H
#define REPLAY_EVENTS_H

#include <stddef.h>
#include <stdint.h>

#include "mooncake/status.h"

struct event {
    uint64_t at, order;
    uint32_t kind;
    uint32_t index;
    void *arg;
};

/* Zeroed: empty. */
struct events {
    struct event *heap;
    size_t count, cap;
    uint64_t told;
};

void events_fini(struct events *events);
enum mc_status events_add(
    struct events *events, uint64_t at, uint32_t kind, uint32_t index, void *arg); /* or MC_ENOMEM */
void events_pop(struct events *events, struct event *out);                         /* count > 0 */

#endif
