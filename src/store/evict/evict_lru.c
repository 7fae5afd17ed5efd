/* evict_lru.c - least recently used, leaves first: one plain queue. See leaves.h. */
#include "store/evict/leaves.h"
#include "store/evict/tails.h"

struct lru {
    struct evict base;
    struct leaves leaves;
};

static struct leaves *leaves_of(struct evict *e)
{
    return &((struct lru *)(void *)e)->leaves;
}

static enum mc_status lru_init(struct evict *e)
{
    leaves_init(leaves_of(e), false);
    return MC_OK;
}

static void lru_fini(struct evict *e)
{
    leaves_fini(leaves_of(e));
}

static enum mc_status lru_add(struct evict *e, uint32_t slot, const struct evict_object *object, uint64_t now)
{
    assert(slot < e->slots_max);
    return leaves_add(leaves_of(e), slot, object, 0, now);
}

static void lru_touch(struct evict *e, uint32_t slot, uint64_t now)
{
    leaves_use(leaves_of(e), slot, 0, now);
}

static void lru_promise(struct evict *e, uint32_t slot, uint64_t until, uint64_t now)
{
    leaves_promise(leaves_of(e), slot, until, now);
}

static void lru_pin(struct evict *e, uint32_t slot, bool pinned, uint64_t now)
{
    leaves_pin(leaves_of(e), slot, pinned, now);
}

static void lru_remove(struct evict *e, uint32_t slot, uint64_t id, enum evict_why why, uint64_t now)
{
    leaves_remove(leaves_of(e), slot, now);
}

static uint32_t lru_victim(struct evict *e, uint64_t now)
{
    leaves_expire(leaves_of(e), now);
    uint32_t slot = leaves_oldest(leaves_of(e), 0);
    return slot != EVICT_NONE ? slot : leaves_guarded(leaves_of(e));
}

static unsigned lru_choose(const struct evict *e, const struct evict_tails *tails)
{
    return tails_oldest(tails, 0, EVICT_CLASSES);
}

const struct evict_policy evict_lru = {
    .name = "lru",
    .help = "least recently used, leaves before the blocks they hang on",
    .handle_size = sizeof(struct lru),
    .init = lru_init,
    .fini = lru_fini,
    .add = lru_add,
    .touch = lru_touch,
    .promise = lru_promise,
    .pin = lru_pin,
    .remove = lru_remove,
    .victim = lru_victim,
    .choose = lru_choose,
};
