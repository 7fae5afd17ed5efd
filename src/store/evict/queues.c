/* queues.c - see queues.h. */
#include "store/evict/queues.h"

#include <stdlib.h>

void queues_init(struct queues *q)
{
    *q = (struct queues){.free = ENTRY_NONE};
    for (unsigned i = 0; i < QUEUES_MAX; i++)
        q->ends[i] = (struct queue_ends){ENTRY_NONE, ENTRY_NONE, 0};
}

void queues_fini(struct queues *q)
{
    free(q->entries);
    free(q->of_slot);
    idmap_fini(&q->ids);
    queues_init(q);
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

static enum mc_status grow(struct queues *q)
{
    uint32_t cap = q->cap ? 2 * q->cap : 64;
    struct queue_entry *entries = realloc(q->entries, (size_t)cap * sizeof(*entries));

    if (!entries)
        return MC_ENOMEM;
    q->entries = entries;
    for (uint32_t i = cap; i-- > q->cap;) {
        entries[i].older = q->free;
        q->free = i;
    }
    q->cap = cap;
    return MC_OK;
}

static enum mc_status slots_grow(struct queues *q, uint32_t slot)
{
    uint32_t slots = q->slots ? q->slots : 64;

    while (slots <= slot)
        slots *= 2;
    if (slots == q->slots)
        return MC_OK;
    uint32_t *of_slot = realloc(q->of_slot, (size_t)slots * sizeof(*of_slot));
    if (!of_slot)
        return MC_ENOMEM;
    q->of_slot = of_slot;
    q->slots = slots;
    return MC_OK;
}

enum mc_status queues_add(struct queues *q, unsigned queue, uint64_t id, uint32_t slot)
{
    if (slot != ENTRY_NONE && slots_grow(q, slot) != MC_OK)
        return MC_ENOMEM;
    if (q->free == ENTRY_NONE && grow(q) != MC_OK)
        return MC_ENOMEM;
    uint32_t entry = q->free;
    if (idmap_set(&q->ids, id, entry) != MC_OK)
        return MC_ENOMEM;
    q->free = q->entries[entry].older;
    q->entries[entry] = (struct queue_entry){.id = id, .slot = slot};
    if (slot != ENTRY_NONE)
        q->of_slot[slot] = entry;
    link_newest(q, queue, entry);
    return MC_OK;
}

enum mc_status queues_return(struct queues *q, unsigned queue, uint32_t entry, uint32_t slot)
{
    if (slots_grow(q, slot) != MC_OK)
        return MC_ENOMEM;
    q->entries[entry].slot = slot;
    q->entries[entry].count = 0;
    q->of_slot[slot] = entry;
    queues_move(q, queue, entry);
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
    q->entries[entry].older = q->free;
    q->free = entry;
}

void queues_drop_oldest(struct queues *q, unsigned queue)
{
    if (q->ends[queue].oldest != ENTRY_NONE)
        queues_drop(q, q->ends[queue].oldest);
}
