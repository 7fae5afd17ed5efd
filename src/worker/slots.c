/* slots.c - buffers of one block each. */
#include "worker/slots.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "mooncake/transfer.h"

enum { SLOTS_MIN = 2, SLOTS_MAX = 4096 };

enum mc_status slots_init(struct slots *slots, struct mc_te *te, uint64_t block_size, uint64_t bytes)
{
    struct mc_region_key key;
    enum mc_status status;
    void *memory;

    memset(slots, 0, sizeof(*slots));
    slots->te = te;
    slots->size = block_size;
    slots->count = bytes / block_size > SLOTS_MAX ? SLOTS_MAX : (uint32_t)(bytes / block_size);
    if (slots->count < SLOTS_MIN)
        slots->count = SLOTS_MIN;
    slots->free = malloc(slots->count * sizeof(*slots->free));
    if (!slots->free)
        return MC_ENOMEM;
    status = mc_te_alloc(te, slots->count * block_size, MC_REGION_READ, &memory, &key);
    if (status != MC_OK) {
        free(slots->free);
        memset(slots, 0, sizeof(*slots));
        return status;
    }
    slots->memory = memory;
    for (uint32_t i = slots->count; i-- > 0;)
        slots_give(slots, i);
    return MC_OK;
}

void slots_fini(struct slots *slots)
{
    if (!slots->memory)
        return;
    assert(slots->free_count == slots->count);
    mc_te_free(slots->te, slots->memory);
    free(slots->free);
    memset(slots, 0, sizeof(*slots));
}

uint32_t slots_take(struct slots *slots)
{
    return slots->free_count ? slots->free[--slots->free_count] : UINT32_MAX;
}

void slots_give(struct slots *slots, uint32_t slot)
{
    assert(slots->free_count < slots->count);
    slots->free[slots->free_count++] = slot;
}
