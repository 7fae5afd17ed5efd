/* slots.h - buffers of one block each in memory registered with the Transfer Engine.
 *
 * Last given back is first taken again: what is touched stays warm, what is never needed is never committed.
 * Threads: the engine thread. */
#ifndef WORKER_SLOTS_H
#define WORKER_SLOTS_H

#include <stdint.h>

#include "mooncake/status.h"

struct mc_te;

struct slots {
    struct mc_te *te;
    uint8_t *memory;
    uint64_t size; /* of one */
    uint32_t count, free_count;
    uint32_t *free;
};

/* As many of `block_size` as `bytes` hold, at least two. MC_ENOMEM or what mc_te_alloc() says. */
enum mc_status slots_init(struct slots *slots, struct mc_te *te, uint64_t block_size, uint64_t bytes);
void slots_fini(struct slots *slots); /* harmless on a zeroed struct */

/* UINT32_MAX: none is free. */
uint32_t slots_take(struct slots *slots);
void slots_give(struct slots *slots, uint32_t slot);

static inline void *slots_at(const struct slots *slots, uint32_t slot)
{
    return slots->memory + slot * slots->size;
}

#endif
