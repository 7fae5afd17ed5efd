/* whole.c - see whole.h. */
#include "store/evict/whole.h"

#include <stdlib.h>

static_assert(1 << EXPERTS_MAX == LEAVES_PLAIN, "a queue for each set of experts");

struct whole_object {
    uint64_t id;
    uint32_t child; /* slot of one that hangs on it, if that is still so */
    uint32_t held;  /* by whose shadows: its plain queue, unless it has sunk */
};

void whole_init(struct whole *whole, struct experts *experts, struct leaves *leaves)
{
    *whole = (struct whole){.experts = experts, .leaves = leaves};
}

void whole_fini(struct whole *whole)
{
    ids_fini(&whole->ids);
    free(whole->here);
    whole_init(whole, whole->experts, whole->leaves);
}

/* ---- what the shadows hold of what is here ---- */

static void held_is(struct whole *whole, unsigned x, uint32_t slot, bool held)
{
    struct whole_object *object = &whole->here[slot];

    if ((object->held >> x & 1) == held)
        return;
    object->held ^= 1u << x;
    leaves_move(whole->leaves, slot, object->held);
}

static void note_held(struct whole *whole, unsigned x, const uint64_t *ids, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t slot = ids_find(&whole->ids, whole->here, sizeof(*whole->here), ids[i]);

        if (slot != IDS_NONE)
            held_is(whole, x, slot, idpool_has(whole->experts->at[x].shadow, ids[i]));
    }
}

static void note_victims(struct whole *whole, unsigned x)
{
    uint32_t count;
    const uint64_t *victims = idpool_victims(whole->experts->at[x].shadow, &count);

    note_held(whole, x, victims, count);
}

enum mc_status whole_ask(struct whole *whole, const struct evict_run *run, uint32_t objects, uint64_t clock)
{
    struct experts *experts = whole->experts;
    uint32_t hits[EXPERTS_MAX];
    enum mc_status status = MC_OK;

    for (unsigned x = 0; x < experts->count; x++) {
        hits[x] = idpool_prefix(experts->at[x].shadow, run->ids, run->count);
        if (idpool_use(experts->at[x].shadow, run, clock) != MC_OK)
            status = MC_ENOMEM;
        note_victims(whole, x);
        note_held(whole, x, run->ids, run->count);
    }
    experts_count(experts, hits, run->count, objects);
    for (unsigned set = 0; set < LEAVES_PLAIN; set++) {
        whole->votes[set] = 0;
        for (unsigned x = 0; x < experts->count; x++)
            whole->votes[set] += set >> x & 1 ? experts->at[x].vote : 0;
    }
    return status;
}

void whole_resize(struct whole *whole, uint32_t objects, uint64_t clock)
{
    for (unsigned x = 0; x < whole->experts->count; x++) {
        (void)idpool_resize(whole->experts->at[x].shadow, objects, clock); /* out of memory: the next use goes on */
        note_victims(whole, x);
    }
}

/* ---- what hangs on what ---- */

/* One that hangs on an object, EVICT_NONE when none is known. */
static uint32_t child_of(const struct whole *whole, uint32_t slot)
{
    const struct leaf *at = whole->leaves->at;
    uint32_t child = whole->here[slot].child;

    if (child == EVICT_NONE || !at[child].present)
        return EVICT_NONE;
    return leaves_parent(whole->leaves, &at[child]) == &at[slot] ? child : EVICT_NONE;
}

static void note_child(struct whole *whole, uint32_t slot)
{
    const struct leaf *s = &whole->leaves->at[slot];

    if (leaves_parent(whole->leaves, s) && child_of(whole, s->parent) == EVICT_NONE)
        whole->here[s->parent].child = slot;
}

/* What hangs on an object of queue `set` comes to that queue, if it has more votes. O(1) amortised: it rises by a use only. */
static void sink_child(struct whole *whole, uint32_t slot, unsigned set)
{
    const struct leaf *at = whole->leaves->at;
    uint32_t child;

    while ((child = child_of(whole, slot)) != EVICT_NONE && whole->votes[at[child].plain] > whole->votes[set]) {
        leaves_move(whole->leaves, child, set);
        if (at[child].queue != LEAVES_PARKED)
            return;
        slot = child;
    }
}

static uint32_t oldest_leaf(struct whole *whole, unsigned set)
{
    uint32_t slot;

    while ((slot = whole->leaves->queues[set].oldest) != EVICT_NONE && whole->leaves->at[slot].children > 0) {
        leaves_park(whole->leaves, slot);
        sink_child(whole, slot, set);
    }
    return slot;
}

/* ---- what is here ---- */

enum mc_status whole_add(struct whole *whole, uint32_t slot, uint64_t id)
{
    if (whole->here_cap < whole->leaves->cap) {
        void *here = realloc(whole->here, whole->leaves->cap * sizeof(*whole->here));

        if (!here)
            return MC_ENOMEM;
        whole->here = here;
        whole->here_cap = whole->leaves->cap;
    }
    whole->here[slot] = (struct whole_object){.id = id, .child = EVICT_NONE};
    if (ids_add(&whole->ids, whole->here, sizeof(*whole->here), slot) != MC_OK)
        return MC_ENOMEM;
    for (unsigned x = 0; x < whole->experts->count; x++)
        held_is(whole, x, slot, idpool_has(whole->experts->at[x].shadow, id));
    note_child(whole, slot);
    return MC_OK;
}

void whole_touch(struct whole *whole, uint32_t slot, uint32_t clock, uint64_t now)
{
    leaves_note_use(whole->leaves, slot, clock);
    note_child(whole, slot);
    leaves_use(whole->leaves, slot, whole->here[slot].held, now);
}

void whole_remove(struct whole *whole, uint32_t slot)
{
    ids_del(&whole->ids, whole->here, sizeof(*whole->here), slot);
}

uint32_t whole_victim(struct whole *whole)
{
    uint32_t victim = EVICT_NONE;
    double least = 0;

    for (unsigned set = 0; set < LEAVES_PLAIN; set++) {
        if (victim != EVICT_NONE && whole->votes[set] >= least)
            continue;
        uint32_t slot = oldest_leaf(whole, set);
        if (slot == EVICT_NONE)
            continue;
        victim = slot;
        least = whole->votes[set];
    }
    return victim;
}
