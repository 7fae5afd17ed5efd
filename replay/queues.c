/* queues.c - see queues.h. */
#include "replay/queues.h"

#include <assert.h>
#include <stdlib.h>

enum mc_status queues_init(struct queues *q, uint32_t slots, uint32_t entries)
{
    *q = (struct queues){.cap = entries};
    q->entries = malloc((size_t)entries * sizeof(*q->entries));
    q->free = malloc((size_t)entries * sizeof(*q->free));
    q->of_slot = malloc((size_t)slots * sizeof(*q->of_slot));
    if (!q->entries || !q->free || !q->of_slot) {
        queues_fini(q);
        return MC_ENOMEM;
    }
    for (unsigned i = 0; i < QUEUES_MAX; i++)
        q->ends[i] = (struct queue_ends){ENTRY_NONE, ENTRY_NONE, 0};
    for (uint32_t i = 0; i < entries; i++)
        q->free[q->free_count++] = entries - 1 - i;
    return MC_OK;
}

void queues_fini(struct queues *q)
{
    free(q->entries);
    free(q->free);
    free(q->of_slot);
    idmap_fini(&q->ids);
    *q = (struct queues){0};
}

uint32_t queues_find(const struct queues *q, uint64_t id)
{
    uint64_t entry = idmap_find(&q->ids, id);

    return entry == IDMAP_NONE ? ENTRY_NONE : (uint32_t)entry;
}

static void unlink_entry(struct queues *q, uint32_t entry)
{
    struct queue_entry *e = &q->entries[entry];
    struct queue_ends *ends = &q->ends[e->queue];

    *(e->newer == ENTRY_NONE ? &ends->newest : &q->entries[e->newer].older) = e->older;
    *(e->older == ENTRY_NONE ? &ends->oldest : &q->entries[e->older].newer) = e->newer;
    ends->length--;
}

static void link_newest(struct queues *q, unsigned queue, uint32_t entry)
{
    struct queue_entry *e = &q->entries[entry];
    struct queue_ends *ends = &q->ends[queue];

    e->queue = (uint8_t)queue;
    e->newer = ENTRY_NONE;
    e->older = ends->newest;
    *(ends->newest == ENTRY_NONE ? &ends->oldest : &q->entries[ends->newest].newer) = entry;
    ends->newest = entry;
    ends->length++;
}

enum mc_status queues_add(struct queues *q, unsigned queue, uint64_t id, uint32_t slot)
{
    assert(q->free_count > 0);
    uint32_t entry = q->free[q->free_count - 1];

    if (idmap_set(&q->ids, id, entry) != MC_OK)
        return MC_ENOMEM;
    q->free_count--;
    q->entries[entry] = (struct queue_entry){.id = id, .slot = slot};
    q->of_slot[slot] = entry;
    link_newest(q, queue, entry);
    return MC_OK;
}

void queues_move(struct queues *q, unsigned queue, uint32_t entry)
{
    unlink_entry(q, entry);
    link_newest(q, queue, entry);
}

void queues_drop(struct queues *q, uint32_t entry)
{
    unlink_entry(q, entry);
    idmap_del(&q->ids, q->entries[entry].id);
    q->free[q->free_count++] = entry;
}

void queues_drop_oldest(struct queues *q, unsigned queue)
{
    if (q->ends[queue].oldest != ENTRY_NONE)
        queues_drop(q, q->ends[queue].oldest);
}
