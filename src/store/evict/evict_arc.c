/* evict_arc.c - ARC ("a self-tuning, low overhead replacement cache", FAST'03), with ids only.
 *
 * T1 holds what was used once, T2 what was used again, B1 and B2 what was evicted from them. A hit in B1 says that T1 is too
 * short, one in B2 that T2 is: `target`, the wanted length of T1, moves by whole blocks. Which end gives depends on what comes in,
 * so the policy is told of that first (expect). It knows no tree, pins or promises. */
#include "store/evict/queues.h"
#include "store/evict/tails.h"

enum { T1, T2, B1, B2 };

struct arc {
    struct evict base;
    struct queues q;
    uint32_t target; /* of T1's length */
    bool from_b2;    /* what comes in is a ghost of B2 */
    bool forget;     /* T1 fills the pool alone: its oldest goes without becoming a ghost */
};

static struct arc *arc_of(struct evict *e)
{
    return (struct arc *)(void *)e;
}

static enum mc_status arc_init(struct evict *e)
{
    queues_init(&arc_of(e)->q);
    return MC_OK;
}

static void arc_fini(struct evict *e)
{
    queues_fini(&arc_of(e)->q);
}

static uint32_t length(const struct arc *arc, unsigned queue)
{
    return arc->q.ends[queue].length;
}

static uint32_t step(uint32_t other, uint32_t hit)
{
    return other > hit ? other / hit : 1;
}

static void arc_expect(struct evict *e, uint64_t id, uint32_t depth, uint64_t now)
{
    struct arc *arc = arc_of(e);
    uint32_t entry = queues_find(&arc->q, id), cap = e->capacity;

    arc->from_b2 = arc->forget = false;
    if (entry == ENTRY_NONE) {
        if (length(arc, T1) + length(arc, B1) >= cap) {
            arc->forget = length(arc, T1) >= cap;
            if (!arc->forget)
                queues_drop_oldest(&arc->q, B1);
        } else if (length(arc, T1) + length(arc, T2) + length(arc, B1) + length(arc, B2) >= 2 * (uint64_t)cap) {
            queues_drop_oldest(&arc->q, B2);
        }
    } else if (arc->q.entries[entry].queue == B1) {
        uint32_t up = step(length(arc, B2), length(arc, B1));

        arc->target = arc->target + up < cap ? arc->target + up : cap;
    } else {
        uint32_t down = step(length(arc, B1), length(arc, B2));

        arc->from_b2 = true;
        arc->target = arc->target > down ? arc->target - down : 0;
    }
}

static enum mc_status arc_add(struct evict *e, uint32_t slot, const struct evict_object *object, uint64_t now)
{
    struct arc *arc = arc_of(e);
    uint32_t entry = queues_find(&arc->q, object->id);

    if (entry == ENTRY_NONE)
        return queues_add(&arc->q, T1, object->id, slot);
    return queues_return(&arc->q, T2, entry, slot);
}

static void arc_touch(struct evict *e, uint32_t slot, uint64_t now)
{
    struct arc *arc = arc_of(e);

    queues_move(&arc->q, T2, arc->q.of_slot[slot]);
}

static void arc_remove(struct evict *e, uint32_t slot, uint64_t id, enum evict_why why, uint64_t now)
{
    struct arc *arc = arc_of(e);
    uint32_t entry = arc->q.of_slot[slot];

    if (why != EVICT_EVICTED || arc->forget)
        queues_drop(&arc->q, entry);
    else
        queues_move(&arc->q, arc->q.entries[entry].queue == T1 ? B1 : B2, entry);
}

static uint32_t arc_victim(struct evict *e, uint64_t now)
{
    struct arc *arc = arc_of(e);
    uint32_t t1 = length(arc, T1);
    bool first = t1 > 0 && (arc->forget || t1 > arc->target || (arc->from_b2 && t1 == arc->target));
    uint32_t entry = arc->q.ends[first || length(arc, T2) == 0 ? T1 : T2].oldest;

    return entry == ENTRY_NONE ? EVICT_NONE : arc->q.entries[entry].slot;
}

static unsigned arc_choose(const struct evict *e, const struct evict_tails *tails)
{
    const struct queue_ends *ends = ((const struct arc *)(const void *)e)->q.ends;

    return tails_by_share(tails, ends[T1].length, ends[T1].length + ends[T2].length);
}

const struct evict_policy evict_arc = {
    .name = "arc",
    .help = "recency against frequency, balanced by hits among ghosts; knows no tree",
    .handle_size = sizeof(struct arc),
    .tail_first = true,
    .init = arc_init,
    .fini = arc_fini,
    .add = arc_add,
    .touch = arc_touch,
    .remove = arc_remove,
    .victim = arc_victim,
    .expect = arc_expect,
    .choose = arc_choose,
};
