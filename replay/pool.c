/* pool.c - see pool.h. Slots come from a stack of free ones, the ids map to them. */
#include "replay/pool.h"

#include <stdlib.h>

#include "replay/idmap.h"

struct pool_block {
    uint64_t id;
    uint32_t touched; /* number of the last pool_use() that used it */
};

struct pool {
    struct eviction eviction;
    struct evict *evict;
    struct idmap slots;
    struct pool_block *blocks;
    uint32_t *free;
    uint32_t cap, count, uses;
    uint64_t evicted;
    uint64_t *victims;
    uint32_t victim_count, victims_cap;
};

enum mc_status pool_create(const struct eviction *eviction, uint32_t blocks, struct pool **out)
{
    struct pool *pool = calloc(1, sizeof(*pool));

    if (!pool)
        return MC_ENOMEM;
    pool->eviction = *eviction;
    pool->cap = blocks;
    pool->blocks = malloc((size_t)blocks * sizeof(*pool->blocks));
    pool->free = malloc((size_t)blocks * sizeof(*pool->free));
    if (!pool->blocks || !pool->free || evict_create(eviction->policy, blocks, &pool->evict) != MC_OK) {
        pool_destroy(pool);
        return MC_ENOMEM;
    }
    for (uint32_t i = 0; i < blocks; i++)
        pool->free[i] = blocks - 1 - i;
    *out = pool;
    return MC_OK;
}

void pool_destroy(struct pool *pool)
{
    if (!pool)
        return;
    evict_destroy(pool->evict);
    idmap_fini(&pool->slots);
    free(pool->blocks);
    free(pool->free);
    free(pool->victims);
    free(pool);
}

struct evict *pool_policy(struct pool *pool)
{
    return pool->evict;
}

bool pool_has(const struct pool *pool, uint64_t id)
{
    return idmap_find(&pool->slots, id) != IDMAP_NONE;
}

uint32_t pool_prefix(const struct pool *pool, const uint64_t *ids, uint32_t count)
{
    uint32_t n = 0;

    while (n < count && pool_has(pool, ids[n]))
        n++;
    return n;
}

void pool_touch(struct pool *pool, uint64_t id, uint64_t now)
{
    uint64_t slot = idmap_find(&pool->slots, id);

    if (slot != IDMAP_NONE)
        evict_touch(pool->evict, (uint32_t)slot, now);
}

uint32_t pool_count(const struct pool *pool)
{
    return pool->count;
}

uint64_t pool_evicted(const struct pool *pool)
{
    return pool->evicted;
}

const uint64_t *pool_victims(const struct pool *pool, uint32_t *count)
{
    *count = pool->victim_count;
    return pool->victims;
}

static enum mc_status remember_victim(struct pool *pool, uint64_t id)
{
    if (pool->victim_count == pool->victims_cap) {
        uint32_t cap = pool->victims_cap ? 2 * pool->victims_cap : 64;
        uint64_t *victims = realloc(pool->victims, cap * sizeof(*victims));

        if (!victims)
            return MC_ENOMEM;
        pool->victims = victims;
        pool->victims_cap = cap;
    }
    pool->victims[pool->victim_count++] = id;
    return MC_OK;
}

/* Evict one. MC_ENOSPC: what would go was used by this very prompt (it is larger than the pool), or the policy holds that nothing
 * should go for it. */
static enum mc_status make_room(struct pool *pool, uint64_t now)
{
    uint32_t slot = evict_victim(pool->evict, now);

    if (slot == EVICT_NONE || (!pool->eviction.tail_first && pool->blocks[slot].touched == pool->uses))
        return MC_ENOSPC;
    if (remember_victim(pool, pool->blocks[slot].id) != MC_OK)
        return MC_ENOMEM;
    evict_remove(pool->evict, slot, EVICT_EVICTED, now);
    idmap_del(&pool->slots, pool->blocks[slot].id);
    pool->free[pool->cap - pool->count] = slot;
    pool->count--;
    pool->evicted++;
    return MC_OK;
}

/* Use one block. `parent` is the slot it hangs on. MC_ENOSPC: no room. */
static enum mc_status use_block(
    struct pool *pool, uint64_t id, uint32_t depth, uint32_t parent, uint64_t now, uint32_t *out)
{
    uint64_t found = idmap_find(&pool->slots, id);
    enum mc_status status;
    uint32_t slot;

    if (found != IDMAP_NONE) {
        slot = (uint32_t)found;
        evict_touch(pool->evict, slot, now);
        pool->blocks[slot].touched = pool->uses;
        *out = slot;
        return MC_OK;
    }
    if (pool->eviction.expect)
        pool->eviction.expect(pool->evict, id, depth, now);
    if (pool->count == pool->cap && (status = make_room(pool, now)) != MC_OK)
        return status;
    slot = pool->free[pool->cap - pool->count - 1];
    struct evict_object object = {.id = id, .size = 1, .parent = parent, .depth = depth};
    if (idmap_set(&pool->slots, id, slot) != MC_OK)
        return MC_ENOMEM;
    if (evict_add(pool->evict, slot, &object, now) != MC_OK) {
        idmap_del(&pool->slots, id);
        return MC_ENOMEM;
    }
    pool->blocks[slot] = (struct pool_block){.id = id, .touched = pool->uses};
    pool->count++;
    *out = slot;
    return MC_OK;
}

enum mc_status pool_use(struct pool *pool, const uint64_t *ids, uint32_t count, uint64_t now)
{
    uint32_t parent = EVICT_NONE, slot;
    bool tail_first = pool->eviction.tail_first;

    pool->uses++;
    pool->victim_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = tail_first ? count - 1 - i : i;
        enum mc_status status = use_block(pool, ids[at], at, tail_first ? EVICT_NONE : parent, now + i, &slot);

        if (status == MC_ENOSPC)
            return MC_OK;
        if (status != MC_OK)
            return status;
        parent = slot;
    }
    return MC_OK;
}
