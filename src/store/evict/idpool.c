/* idpool.c - see idpool.h. Slots come from a list of free ones, the ids map to them. */
#include "store/evict/idpool.h"

#include <assert.h>
#include <stdlib.h>

#include "store/evict/ids.h"

#define BLOCK_HERE (EVICT_NONE - 1)

struct idpool_block {
    uint64_t id;
    uint32_t touched; /* number of the last use that used it */
    uint32_t next;    /* BLOCK_HERE, or the next free slot */
};

struct idpool {
    struct evict *evict;
    struct ids slots;
    struct idpool_block *blocks;
    uint32_t cap, free; /* of `blocks`; first free one */
    uint32_t count, uses;
    uint64_t evicted;
    uint64_t *victims;
    uint32_t victim_count, victims_cap;
};

enum mc_status idpool_create(const struct evict_policy *policy, uint32_t capacity, struct idpool **out)
{
    struct idpool *pool = calloc(1, sizeof(*pool));

    if (!pool)
        return MC_ENOMEM;
    pool->free = EVICT_NONE;
    if (evict_create(policy, capacity, capacity, &pool->evict) != MC_OK) {
        free(pool);
        return MC_ENOMEM;
    }
    *out = pool;
    return MC_OK;
}

void idpool_destroy(struct idpool *pool)
{
    if (!pool)
        return;
    evict_destroy(pool->evict);
    ids_fini(&pool->slots);
    free(pool->blocks);
    free(pool->victims);
    free(pool);
}

struct evict *idpool_evict(const struct idpool *pool)
{
    return pool->evict;
}

static uint32_t slot_of(const struct idpool *pool, uint64_t id)
{
    return ids_find(&pool->slots, pool->blocks, sizeof(*pool->blocks), id);
}

bool idpool_has(const struct idpool *pool, uint64_t id)
{
    return slot_of(pool, id) != EVICT_NONE;
}

uint32_t idpool_prefix(const struct idpool *pool, const uint64_t *ids, uint32_t count)
{
    uint32_t n = 0;

    while (n < count && idpool_has(pool, ids[n]))
        n++;
    return n;
}

void idpool_touch(struct idpool *pool, uint64_t id, uint64_t now)
{
    uint32_t slot = slot_of(pool, id);

    if (slot != EVICT_NONE && evict_ask(pool->evict, &(struct evict_run){&id, 1, EVICT_NO_ID}, now) == MC_OK)
        evict_touch(pool->evict, slot, now);
}

void idpool_renew(struct idpool *pool, uint64_t id, uint64_t now)
{
    uint32_t slot = slot_of(pool, id);

    if (slot != EVICT_NONE)
        evict_touch(pool->evict, slot, now);
}

uint32_t idpool_count(const struct idpool *pool)
{
    return pool->count;
}

uint32_t idpool_capacity(const struct idpool *pool)
{
    return pool->evict->capacity;
}

uint64_t idpool_evicted(const struct idpool *pool)
{
    return pool->evicted;
}

const uint64_t *idpool_victims(const struct idpool *pool, uint32_t *count)
{
    *count = pool->victim_count;
    return pool->victims;
}

/* ---- room ---- */

static enum mc_status remember_victim(struct idpool *pool, uint64_t id)
{
    if (pool->victim_count == pool->victims_cap) {
        uint32_t cap = evict_grown(pool->victims_cap, pool->victim_count);
        uint64_t *victims = realloc(pool->victims, cap * sizeof(*victims));

        if (!victims)
            return MC_ENOMEM;
        pool->victims = victims;
        pool->victims_cap = cap;
    }
    pool->victims[pool->victim_count++] = id;
    return MC_OK;
}

static void drop(struct idpool *pool, uint32_t slot, enum evict_why why, uint64_t now)
{
    struct idpool_block *block = &pool->blocks[slot];

    evict_remove(pool->evict, slot, block->id, why, now);
    ids_del(&pool->slots, pool->blocks, sizeof(*pool->blocks), slot);
    *block = (struct idpool_block){.next = pool->free};
    pool->free = slot;
    pool->count--;
}

/* Evict one. MC_ENOSPC: what would go was used by this very prompt (it is larger than the pool), or the policy holds that nothing
 * should go for it. */
static enum mc_status make_room(struct idpool *pool, uint64_t now)
{
    uint32_t slot = evict_victim(pool->evict, now);

    if (slot == EVICT_NONE || (!pool->evict->policy->tail_first && pool->blocks[slot].touched == pool->uses))
        return MC_ENOSPC;
    if (remember_victim(pool, pool->blocks[slot].id) != MC_OK)
        return MC_ENOMEM;
    drop(pool, slot, EVICT_EVICTED, now);
    pool->evicted++;
    return MC_OK;
}

static enum mc_status slot_get(struct idpool *pool, uint32_t *out)
{
    if (pool->free == EVICT_NONE) {
        uint32_t cap = evict_grown(pool->cap, pool->cap);
        struct idpool_block *blocks = realloc(pool->blocks, (size_t)cap * sizeof(*blocks));

        if (!blocks)
            return MC_ENOMEM;
        pool->blocks = blocks;
        for (uint32_t i = cap; i-- > pool->cap;) {
            blocks[i] = (struct idpool_block){.next = pool->free};
            pool->free = i;
        }
        pool->cap = cap;
    }
    *out = pool->free;
    return MC_OK;
}

/* ---- uses ---- */

/* Use one block. `parent` is the slot it hangs on. MC_ENOSPC: no room. */
static enum mc_status use_block(
    struct idpool *pool, uint64_t id, uint32_t depth, uint32_t parent, uint64_t now, uint32_t *out)
{
    struct evict_object object = {.id = id, .size = 1, .parent = parent, .depth = depth};
    uint32_t found = slot_of(pool, id);
    enum mc_status status;

    if (found != EVICT_NONE) {
        *out = found;
        evict_touch(pool->evict, *out, now);
        pool->blocks[*out].touched = pool->uses;
        return MC_OK;
    }
    evict_expect(pool->evict, id, depth, now);
    while (pool->count >= pool->evict->capacity)
        if ((status = make_room(pool, now)) != MC_OK)
            return status;
    if (slot_get(pool, out) != MC_OK)
        return MC_ENOMEM;
    struct idpool_block *block = &pool->blocks[*out];
    block->id = id;
    if (ids_add(&pool->slots, pool->blocks, sizeof(*pool->blocks), *out) != MC_OK)
        return MC_ENOMEM;
    if (evict_add(pool->evict, *out, &object, now) != MC_OK) {
        ids_del(&pool->slots, pool->blocks, sizeof(*pool->blocks), *out);
        return MC_ENOMEM;
    }
    pool->free = block->next;
    block->touched = pool->uses;
    block->next = BLOCK_HERE;
    pool->count++;
    return MC_OK;
}

enum mc_status idpool_use(struct idpool *pool, const struct evict_run *run, uint64_t now)
{
    bool tail_first = pool->evict->policy->tail_first;
    uint32_t parent = tail_first || run->up == EVICT_NO_ID ? EVICT_NONE : slot_of(pool, run->up), slot;
    enum mc_status status = evict_ask(pool->evict, run, now);

    pool->uses++;
    pool->victim_count = 0;
    if (parent != EVICT_NONE)
        pool->blocks[parent].touched = pool->uses;
    for (uint32_t i = 0; i < run->count && status == MC_OK; i++) {
        uint32_t at = tail_first ? run->count - 1 - i : i;

        status = use_block(pool, run->ids[at], at, tail_first ? EVICT_NONE : parent, now + i, &slot);
        parent = slot;
    }
    return status == MC_ENOSPC ? MC_OK : status;
}

/* ---- size ---- */

enum mc_status idpool_resize(struct idpool *pool, uint32_t capacity, uint64_t now)
{
    enum mc_status status = MC_OK;

    assert(capacity > 0);
    pool->evict->capacity = capacity;
    pool->victim_count = 0;
    pool->uses++; /* nothing is of the prompt that comes in */
    while (status == MC_OK && pool->count > capacity)
        status = make_room(pool, now);
    return status == MC_ENOSPC ? MC_OK : status; /* then the next uses make more room than they take */
}

void idpool_filter(struct idpool *pool, bool (*keep)(const void *arg, uint64_t id), const void *arg, uint64_t now)
{
    for (uint32_t slot = 0; slot < pool->cap; slot++)
        if (pool->blocks[slot].next == BLOCK_HERE && !keep(arg, pool->blocks[slot].id))
            drop(pool, slot, EVICT_REMOVED, now);
}
