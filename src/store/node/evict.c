/* evict.c - the table of policies, and the first one. See evict.h.
 *
 * LRU, leaves first. Three queues by class (plain, promised, soft-pinned), coldest at the tail; victims come from the first
 * queue that has one. An object with children that reaches a tail is no victim: it is parked, out of its queue. When its last
 * child goes it comes back at the *tail*: it was the coldest when it was parked, and everything in the queue has been used
 * since or is younger. A touch brings it back at the front. Each add or touch can cause at most one parking, so
 * evict_victim() is O(1) amortised, and among leaves the order is that of their last use.
 *
 * Promises end by themselves: those that have ended are moved from the tail of `promised` to the front of `plain`, in passing.
 * They were probed one lease ago, what stands before them in `plain` was read in that time: the error is at most one lease.
 *
 * Parked objects are victims only when no queue has a leaf, i.e. every leaf below them is pinned: last parked last. */
#include "store/node/evict.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum queue { PLAIN, PROMISED, SOFT, PARKED, QUEUES, NO_QUEUE = QUEUES };

/* A parent is known by slot and life: when an inner object goes its children are not looked for, they find the slot empty or in
 * another life. */
struct lru_slot {
    uint32_t newer, older; /* neighbours in its queue */
    uint32_t parent, parent_life;
    uint32_t life;          /* how often the slot was given back */
    uint32_t children : 26; /* how many here hang on it */
    uint32_t queue : 3;     /* enum queue */
    uint32_t present : 1, pinned : 1, soft : 1;
    uint64_t until; /* promise */
};
static_assert(sizeof(struct lru_slot) == 32, "state per object");

struct lru_queue {
    uint32_t newest, oldest;
};

struct lru {
    struct evict base;
    struct lru_slot *slots;
    uint32_t slots_cap;
    struct lru_queue queues[QUEUES];
};

static struct lru *lru_of(struct evict *e)
{
    return (struct lru *)(void *)e;
}

/* ---- queues ---- */

static void queue_out(struct lru *lru, uint32_t slot)
{
    struct lru_slot *s = &lru->slots[slot];

    if (s->queue == NO_QUEUE)
        return;
    struct lru_queue *q = &lru->queues[s->queue];
    *(s->newer == EVICT_NONE ? &q->newest : &lru->slots[s->newer].older) = s->older;
    *(s->older == EVICT_NONE ? &q->oldest : &lru->slots[s->older].newer) = s->newer;
    s->queue = NO_QUEUE;
}

static void queue_newest(struct lru *lru, enum queue queue, uint32_t slot)
{
    struct lru_queue *q = &lru->queues[queue];
    struct lru_slot *s = &lru->slots[slot];

    queue_out(lru, slot);
    s->queue = queue;
    s->newer = EVICT_NONE;
    s->older = q->newest;
    *(q->newest == EVICT_NONE ? &q->oldest : &lru->slots[q->newest].newer) = slot;
    q->newest = slot;
}

static void queue_oldest(struct lru *lru, enum queue queue, uint32_t slot)
{
    struct lru_queue *q = &lru->queues[queue];
    struct lru_slot *s = &lru->slots[slot];

    queue_out(lru, slot);
    s->queue = queue;
    s->older = EVICT_NONE;
    s->newer = q->oldest;
    *(q->oldest == EVICT_NONE ? &q->newest : &lru->slots[q->oldest].older) = slot;
    q->oldest = slot;
}

static enum queue class_of(const struct lru_slot *s, uint64_t now)
{
    return s->soft ? SOFT : s->until > now ? PROMISED : PLAIN;
}

/* ---- children ---- */

static struct lru_slot *parent_of(const struct lru *lru, const struct lru_slot *s)
{
    if (s->parent == EVICT_NONE)
        return NULL;
    struct lru_slot *p = &lru->slots[s->parent];
    return p->present && p->life == s->parent_life ? p : NULL;
}

static void child_gone(struct lru *lru, uint32_t parent, uint64_t now)
{
    struct lru_slot *p = &lru->slots[parent];

    assert(p->children > 0);
    if (--p->children == 0 && p->queue == PARKED)
        queue_oldest(lru, class_of(p, now), parent);
}

/* ---- the policy's row ---- */

static enum mc_status lru_init(struct evict *e)
{
    for (unsigned i = 0; i < QUEUES; i++)
        lru_of(e)->queues[i] = (struct lru_queue){EVICT_NONE, EVICT_NONE};
    return MC_OK;
}

static void lru_fini(struct evict *e)
{
    free(lru_of(e)->slots);
}

static enum mc_status lru_grow(struct lru *lru, uint32_t slot)
{
    uint32_t cap = lru->slots_cap ? lru->slots_cap : 256;

    while (cap <= slot)
        cap *= 2;
    struct lru_slot *slots = realloc(lru->slots, (size_t)cap * sizeof(*slots));
    if (!slots)
        return MC_ENOMEM;
    memset(slots + lru->slots_cap, 0, (size_t)(cap - lru->slots_cap) * sizeof(*slots));
    lru->slots = slots;
    lru->slots_cap = cap;
    return MC_OK;
}

static enum mc_status lru_add(struct evict *e, uint32_t slot, const struct evict_object *object, uint64_t now)
{
    struct lru *lru = lru_of(e);

    assert(slot < e->slots_max);
    if (slot >= lru->slots_cap && lru_grow(lru, slot) != MC_OK)
        return MC_ENOMEM;
    struct lru_slot *s = &lru->slots[slot];
    assert(!s->present && object->parent != slot);
    *s = (struct lru_slot){
        .parent = object->parent, .life = s->life, .queue = NO_QUEUE, .present = true, .soft = object->soft_pin};
    if (object->parent != EVICT_NONE) {
        struct lru_slot *p = &lru->slots[object->parent];

        assert(object->parent < lru->slots_cap && p->present);
        s->parent_life = p->life;
        p->children++;
    }
    queue_newest(lru, class_of(s, now), slot);
    return MC_OK;
}

static void lru_touch(struct evict *e, uint32_t slot, uint64_t now)
{
    struct lru *lru = lru_of(e);
    struct lru_slot *s = &lru->slots[slot];

    assert(s->present);
    /* The order among promises is that of promising: a read does not renew one. */
    if (!s->pinned && s->queue != PROMISED)
        queue_newest(lru, class_of(s, now), slot);
}

static void lru_promise(struct evict *e, uint32_t slot, uint64_t until, uint64_t now)
{
    struct lru *lru = lru_of(e);
    struct lru_slot *s = &lru->slots[slot];

    assert(s->present);
    if (until > s->until)
        s->until = until;
    if (!s->pinned)
        queue_newest(lru, class_of(s, now), slot);
}

static void lru_pin(struct evict *e, uint32_t slot, bool pinned, uint64_t now)
{
    struct lru *lru = lru_of(e);
    struct lru_slot *s = &lru->slots[slot];

    assert(s->present && s->pinned != pinned);
    s->pinned = pinned;
    if (pinned)
        queue_out(lru, slot);
    else
        queue_newest(lru, class_of(s, now), slot);
}

static void lru_remove(struct evict *e, uint32_t slot, enum evict_why why, uint64_t now)
{
    struct lru *lru = lru_of(e);
    struct lru_slot *s = &lru->slots[slot];
    uint32_t parent = s->parent;
    bool parent_here = parent_of(lru, s) != NULL;

    assert(s->present);
    queue_out(lru, slot);
    *s = (struct lru_slot){.life = s->life + 1};
    if (parent_here)
        child_gone(lru, parent, now);
}

/* Tail of a queue once those that are no victims have left it. */
static uint32_t coldest_leaf(struct lru *lru, enum queue queue, uint64_t now)
{
    for (uint32_t slot; (slot = lru->queues[queue].oldest) != EVICT_NONE;) {
        struct lru_slot *s = &lru->slots[slot];

        if (queue == PROMISED && s->until <= now)
            queue_newest(lru, PLAIN, slot);
        else if (s->children > 0)
            queue_newest(lru, PARKED, slot);
        else
            return slot;
    }
    return EVICT_NONE;
}

static uint32_t lru_victim(struct evict *e, uint64_t now)
{
    struct lru *lru = lru_of(e);
    /* Before PLAIN, so that promises that have ended are in it. */
    uint32_t promised = coldest_leaf(lru, PROMISED, now), slot = coldest_leaf(lru, PLAIN, now);

    if (slot == EVICT_NONE)
        slot = promised;
    if (slot == EVICT_NONE)
        slot = coldest_leaf(lru, SOFT, now);
    return slot != EVICT_NONE ? slot : lru->queues[PARKED].oldest;
}

static const struct evict_policy lru_policy = {
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
};

/* ---- the table ---- */

const struct evict_policy *const evict_policies[] = {&lru_policy, NULL};

const struct evict_policy *evict_policy_find(const char *name)
{
    for (const struct evict_policy *const *p = evict_policies; *p; p++)
        if (strcmp((*p)->name, name) == 0)
            return *p;
    return NULL;
}

enum mc_status evict_create(const struct evict_policy *policy, uint32_t slots_max, struct evict **out)
{
    struct evict *e = calloc(1, policy->handle_size);

    if (!e)
        return MC_ENOMEM;
    e->policy = policy;
    e->slots_max = slots_max;
    if (policy->init(e) != MC_OK) {
        free(e);
        return MC_ENOMEM;
    }
    *out = e;
    return MC_OK;
}

void evict_destroy(struct evict *e)
{
    if (!e)
        return;
    e->policy->fini(e);
    free(e);
}
