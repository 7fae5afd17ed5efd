/* queues.c - see queues.h. */
#include "store/evict/queues.h"

#include <stdlib.h>

#include "store/evict/evict.h"

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
    ids_fini(&q->ids);
    queues_init(q);
}

uint32_t queues_find(const struct queues *q, uint64_t id)
{
    return ids_find(&q->ids, q->entries, sizeof(*q->entries), id);
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
    uint32_t cap = evict_grown(q->cap, q->cap);
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
    if (slot < q->slots)
        return MC_OK;
    uint32_t slots = evict_grown(q->slots, slot);
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
    uint32_t entry = q->free, next = q->entries[entry].older;
    q->entries[entry] = (struct queue_entry){.id = id, .slot = slot};
    if (ids_add(&q->ids, q->entries, sizeof(*q->entries), entry) != MC_OK) {
        q->entries[entry].older = next;
        return MC_ENOMEM;
    }
    q->free = next;
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
    ids_del(&q->ids, q->entries, sizeof(*q->entries), entry);
    q->entries[entry].older = q->free;
    q->free = entry;
}

void queues_drop_oldest(struct queues *q, unsigned queue)
{
    if (q->ends[queue].oldest != ENTRY_NONE)
        queues_drop(q, q->ends[queue].oldest);
}
