/* leaves.c - see leaves.h. */
#include "store/evict/leaves.h"

#include <stdlib.h>
#include <string.h>

enum { LIFE_MAX = 1023 };

void leaves_init(struct leaves *l, bool clocked)
{
    *l = (struct leaves){.clocked = clocked};
    for (unsigned i = 0; i < LEAVES_QUEUES; i++)
        l->queues[i].newest = l->queues[i].oldest = EVICT_NONE;
}

void leaves_fini(struct leaves *l)
{
    free(l->at);
    free(l->used);
    leaves_init(l, l->clocked);
}

/* ---- queues ---- */

/* Where it is written who is the next older one of `newer`; EVICT_NONE: the newest of the queue. */
static uint32_t *older_than(struct leaves *l, unsigned queue, uint32_t newer)
{
    return newer == EVICT_NONE ? &l->queues[queue].newest : &l->at[newer].older;
}

static uint32_t *newer_than(struct leaves *l, unsigned queue, uint32_t older)
{
    return older == EVICT_NONE ? &l->queues[queue].oldest : &l->at[older].newer;
}

static void queue_out(struct leaves *l, uint32_t slot)
{
    struct leaf *s = &l->at[slot];

    if (s->queue == LEAVES_NONE)
        return;
    *older_than(l, s->queue, s->newer) = s->older;
    *newer_than(l, s->queue, s->older) = s->newer;
    s->queue = LEAVES_NONE;
}

/* Between two that are neighbours there; it stands in no queue. */
static void queue_in(struct leaves *l, unsigned queue, uint32_t slot, uint32_t newer, uint32_t older)
{
    struct leaf *s = &l->at[slot];

    s->queue = queue;
    s->newer = newer;
    s->older = older;
    *older_than(l, queue, newer) = slot;
    *newer_than(l, queue, older) = slot;
}

static void queue_newest(struct leaves *l, unsigned queue, uint32_t slot)
{
    queue_out(l, slot);
    queue_in(l, queue, slot, EVICT_NONE, l->queues[queue].newest);
}

static void queue_oldest(struct leaves *l, unsigned queue, uint32_t slot)
{
    queue_out(l, slot);
    queue_in(l, queue, slot, l->queues[queue].oldest, EVICT_NONE);
}

static bool promised(const struct leaf *s, uint64_t now)
{
    return s->until > now >> LEAVES_TICK;
}

static unsigned queue_of(const struct leaf *s, uint64_t now)
{
    return s->soft ? LEAVES_SOFT : promised(s, now) ? LEAVES_PROMISED : s->plain;
}

/* ---- changes ---- */

static enum mc_status grow(struct leaves *l, uint32_t slot)
{
    uint32_t cap = evict_grown(l->cap, slot);
    struct leaf *at = realloc(l->at, (size_t)cap * sizeof(*at));

    if (!at)
        return MC_ENOMEM;
    l->at = at;
    if (l->clocked) {
        uint32_t *used = realloc(l->used, (size_t)cap * sizeof(*used));

        if (!used)
            return MC_ENOMEM;
        l->used = used;
    }
    memset(at + l->cap, 0, (size_t)(cap - l->cap) * sizeof(*at));
    l->cap = cap;
    return MC_OK;
}

enum mc_status leaves_add(
    struct leaves *l, uint32_t slot, const struct evict_object *object, unsigned plain, uint64_t now)
{
    if (slot >= l->cap && grow(l, slot) != MC_OK)
        return MC_ENOMEM;
    struct leaf *s = &l->at[slot];
    assert(!s->present && object->parent != slot);
    *s = (struct leaf){.parent = object->parent,
        .life = s->life,
        .plain = plain,
        .queue = LEAVES_NONE,
        .present = true,
        .soft = object->soft_pin};
    if (object->parent != EVICT_NONE) {
        struct leaf *p = &l->at[object->parent];

        assert(object->parent < l->cap && p->present);
        s->parent_life = p->life;
        p->children++;
    }
    queue_newest(l, queue_of(s, now), slot);
    return MC_OK;
}

void leaves_use(struct leaves *l, uint32_t slot, unsigned plain, uint64_t now)
{
    struct leaf *s = &l->at[slot];

    assert(s->present);
    s->plain = plain;
    /* The order among promises is that of promising: a read does not renew one. */
    if (!s->pinned && s->queue != LEAVES_PROMISED)
        queue_newest(l, queue_of(s, now), slot);
}

void leaves_move(struct leaves *l, uint32_t slot, unsigned plain)
{
    struct leaf *s = &l->at[slot];

    assert(s->present);
    s->plain = plain;
    if (s->queue < LEAVES_PLAIN)
        queue_newest(l, plain, slot);
}

void leaves_sort(struct leaves *l, unsigned (*plain_of)(void *arg, uint32_t slot), void *arg)
{
    uint32_t oldest[LEAVES_PLAIN];

    for (unsigned queue = 0; queue < LEAVES_PLAIN; queue++) {
        oldest[queue] = l->queues[queue].oldest;
        l->queues[queue].newest = l->queues[queue].oldest = EVICT_NONE;
    }
    for (uint32_t slot = 0; slot < l->cap; slot++)
        if (l->at[slot].present)
            l->at[slot].plain = plain_of(arg, slot) & (LEAVES_PLAIN - 1);
    for (unsigned queue = 0; queue < LEAVES_PLAIN; queue++) {
        for (uint32_t slot = oldest[queue], next; slot != EVICT_NONE; slot = next) {
            next = l->at[slot].newer;
            l->at[slot].queue = LEAVES_NONE;
            queue_newest(l, l->at[slot].plain, slot);
        }
    }
}

void leaves_promise(struct leaves *l, uint32_t slot, uint64_t until, uint64_t now)
{
    struct leaf *s = &l->at[slot];
    uint64_t tick = (until + (UINT64_C(1) << LEAVES_TICK) - 1) >> LEAVES_TICK;

    assert(s->present);
    if (tick > s->until)
        s->until = tick & ((UINT64_C(1) << 36) - 1);
    if (!s->pinned)
        queue_newest(l, queue_of(s, now), slot);
}

void leaves_pin(struct leaves *l, uint32_t slot, bool pinned, uint64_t now)
{
    struct leaf *s = &l->at[slot];

    assert(s->present && s->pinned != pinned);
    s->pinned = pinned;
    if (pinned)
        queue_out(l, slot);
    else
        queue_newest(l, queue_of(s, now), slot);
}

void leaves_remove(struct leaves *l, uint32_t slot, uint64_t now)
{
    struct leaf *s = &l->at[slot], *parent = leaves_parent(l, s);
    uint32_t up = s->parent;

    assert(s->present);
    queue_out(l, slot);
    *s = (struct leaf){.life = (s->life + 1) & LIFE_MAX};
    /* No child to count: the parent's life has come round. */
    if (parent && parent->children > 0 && --parent->children == 0 && parent->queue == LEAVES_PARKED)
        queue_oldest(l, queue_of(parent, now), up);
}

/* ---- victims ---- */

void leaves_expire(struct leaves *l, uint64_t now)
{
    for (uint32_t slot; (slot = l->queues[LEAVES_PROMISED].oldest) != EVICT_NONE && !promised(&l->at[slot], now);)
        queue_newest(l, l->at[slot].plain, slot);
}

void leaves_park(struct leaves *l, uint32_t slot)
{
    queue_newest(l, LEAVES_PARKED, slot);
}

uint32_t leaves_oldest(struct leaves *l, unsigned queue)
{
    uint32_t slot;

    while ((slot = l->queues[queue].oldest) != EVICT_NONE && l->at[slot].children > 0)
        leaves_park(l, slot);
    return slot;
}

uint32_t leaves_guarded(struct leaves *l)
{
    uint32_t slot = leaves_oldest(l, LEAVES_PROMISED);

    if (slot == EVICT_NONE)
        slot = leaves_oldest(l, LEAVES_SOFT);
    return slot != EVICT_NONE ? slot : l->queues[LEAVES_PARKED].oldest;
}
