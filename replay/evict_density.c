/* evict_density.c - ours, `mooncake` (in a replay only so far): out goes the leaf that is least likely to be hit per time it stays.
 *
 * Blocks are in classes by how often they have been used and how often the block they hang on has: what continues a chat that has
 * come back before is worth more than a prompt nobody has seen. For each class two histograms over ages (two buckets per doubling)
 * count hits, and ends: a block that has gone and was not asked for while it was remembered. From them follows the *density* of an
 * age: hits at that age or later over the time blocks of that age still spent waiting. It is learned from blocks that are here and
 * from ghosts alike, else a policy would see only what it kept.
 *
 *     classes:   used 0, 1, 2, 3+ times again   x   parent used 0, 1, 2, 3+ times again        16 queues, oldest at the tail
 *     victim:    among the tails of all queues (leaves only) the one of least density: 16 look-ups
 *
 * Within a class the oldest goes first, without asking whether density falls with age; across classes it is asked. A block with
 * children that reaches a tail is parked and comes back at the tail when its last child goes, as in the node's LRU. Densities are
 * computed anew every half capacity of uses, and old counts fade by a tenth then, so all calls are O(1) amortised. There is nothing to
 * tune by hand; ghosts are four times the capacity, since with as many as blocks the ages that matter are cut off.
 *
 * Pins and promises are not known: a replay has none. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "replay/evictions.h"
#include "replay/queues.h"

enum { USES = 4, CLASSES = USES * USES, AGES = 48, GHOSTS_PER_BLOCK = 4, LEARN_MIN = 2000, NO_QUEUE = CLASSES };

#define FADE   0.9
#define DOUBT  0.01 /* of a hit in one capacity of time: what a class is worth of which nothing is known */
#define SQRT_2 1.4142135623730951

struct density_slot {
    uint64_t id, used; /* last use */
    uint32_t newer, older;
    uint32_t parent, parent_life, life, children;
    uint8_t uses, class, queue;
    bool present;
};

struct ghost {
    uint64_t used;
    uint8_t uses, class;
};

struct density {
    struct evict base;
    struct density_slot *slots;
    struct {
        uint32_t newest, oldest;
    } queues[CLASSES];
    struct queues remembered; /* ids of ghosts, oldest first out */
    struct ghost *ghosts;     /* by entry of it */
    uint32_t ghosts_max;
    double hits[CLASSES][AGES], ends[CLASSES][AGES], density[CLASSES][AGES];
    double edge[AGES + 1]; /* least age of a bucket */
    uint64_t learn_at;
    uint64_t begin; /* of the prompt whose block comes in */
};

static struct density *density_of(struct evict *e)
{
    return (struct density *)(void *)e;
}

/* ---- what is learned ---- */

static unsigned age_bucket(uint64_t age)
{
    uint64_t x = age + 1;
    unsigned power = 63 - (unsigned)__builtin_clzll(x);
    /* x >= 2^(power + 1/2), in whole numbers */
    bool upper =
        power < 31 ? x * x >= UINT64_C(2) << (2 * power) : (double)x >= SQRT_2 * (double)(UINT64_C(1) << power);
    unsigned bucket = 2 * power + upper;

    return bucket < AGES ? bucket : AGES - 1;
}

static void learn_class(struct density *d, unsigned class)
{
    double hits = 0, events = 0, waited = 0, doubt = DOUBT * d->base.slots_max;

    for (unsigned age = AGES; age-- > 0;) {
        double width = d->edge[age + 1] - d->edge[age], here = d->hits[class][age] + d->ends[class][age];

        waited += events * width + here * width / 2;
        hits += d->hits[class][age];
        events += here;
        if (events > 0)
            d->density[class][age] = (hits + DOUBT) / (waited + doubt);
        else
            d->density[class][age] = age + 1 < AGES ? d->density[class][age + 1] : 0;
        d->hits[class][age] *= FADE;
        d->ends[class][age] *= FADE;
    }
}

static void learn_now_and_then(struct density *d, uint64_t now)
{
    uint64_t every = d->base.slots_max / 2 > LEARN_MIN ? d->base.slots_max / 2 : LEARN_MIN;

    if (d->learn_at == 0)
        d->learn_at = now + every;
    if (now < d->learn_at)
        return;
    d->learn_at = now + every;
    for (unsigned class = 0; class < CLASSES; class ++)
        learn_class(d, class);
}

/* ---- queues ---- */

static void queue_out(struct density *d, uint32_t slot)
{
    struct density_slot *s = &d->slots[slot];

    if (s->queue == NO_QUEUE)
        return;
    *(s->newer == EVICT_NONE ? &d->queues[s->queue].newest : &d->slots[s->newer].older) = s->older;
    *(s->older == EVICT_NONE ? &d->queues[s->queue].oldest : &d->slots[s->older].newer) = s->newer;
    s->queue = NO_QUEUE;
}

static void queue_newest(struct density *d, uint32_t slot)
{
    struct density_slot *s = &d->slots[slot];
    uint32_t *newest = &d->queues[s->class].newest;

    queue_out(d, slot);
    s->queue = s->class;
    s->newer = EVICT_NONE;
    s->older = *newest;
    *(*newest == EVICT_NONE ? &d->queues[s->class].oldest : &d->slots[*newest].newer) = slot;
    *newest = slot;
}

static void queue_oldest(struct density *d, uint32_t slot)
{
    struct density_slot *s = &d->slots[slot];
    uint32_t *oldest = &d->queues[s->class].oldest;

    queue_out(d, slot);
    s->queue = s->class;
    s->older = EVICT_NONE;
    s->newer = *oldest;
    *(*oldest == EVICT_NONE ? &d->queues[s->class].newest : &d->slots[*oldest].older) = slot;
    *oldest = slot;
}

static struct density_slot *parent_of(const struct density *d, const struct density_slot *s)
{
    if (s->parent == EVICT_NONE)
        return NULL;
    struct density_slot *parent = &d->slots[s->parent];
    return parent->present && parent->life == s->parent_life ? parent : NULL;
}

static uint8_t class_of(const struct density *d, const struct density_slot *s)
{
    const struct density_slot *parent = parent_of(d, s);

    return (uint8_t)(s->uses * USES + (parent ? parent->uses : 0));
}

/* ---- the policy's row ---- */

static void density_fini(struct evict *e)
{
    struct density *d = density_of(e);

    free(d->slots);
    free(d->ghosts);
    queues_fini(&d->remembered);
}

static enum mc_status density_init(struct evict *e)
{
    struct density *d = density_of(e);

    d->ghosts_max = GHOSTS_PER_BLOCK * e->slots_max;
    d->slots = calloc(e->slots_max, sizeof(*d->slots));
    d->ghosts = malloc(((size_t)d->ghosts_max + 1) * sizeof(*d->ghosts));
    if (!d->slots || !d->ghosts || queues_init(&d->remembered, 1, d->ghosts_max + 1) != MC_OK) {
        density_fini(e);
        return MC_ENOMEM;
    }
    for (unsigned class = 0; class < CLASSES; class ++)
        d->queues[class].newest = d->queues[class].oldest = EVICT_NONE;
    d->edge[0] = 1;
    d->edge[1] = SQRT_2;
    for (unsigned age = 2; age <= AGES; age++)
        d->edge[age] = 2 * d->edge[age - 2];
    for (unsigned class = 0; class < CLASSES; class ++)
        for (unsigned age = 0; age < AGES; age++)
            d->density[class][age] = 1 / d->edge[age]; /* nothing is known yet: the oldest goes */
    return MC_OK;
}

void density_expect(struct evict *e, uint64_t id, uint32_t depth, uint64_t now)
{
    density_of(e)->begin = now - depth;
}

/* How often it was used before, when it is remembered: its coming back is a hit that was missed. */
static uint8_t remember(struct density *d, uint64_t id, uint64_t now)
{
    uint32_t entry = queues_find(&d->remembered, id);

    if (entry == ENTRY_NONE)
        return 0;
    const struct ghost *ghost = &d->ghosts[entry];
    d->hits[ghost->class][age_bucket(now - ghost->used)]++;
    queues_drop(&d->remembered, entry);
    return ghost->uses < USES - 1 ? ghost->uses + 1 : USES - 1;
}

static enum mc_status density_add(struct evict *e, uint32_t slot, const struct evict_object *object, uint64_t now)
{
    struct density *d = density_of(e);
    struct density_slot *s = &d->slots[slot];

    learn_now_and_then(d, now);
    *s = (struct density_slot){.id = object->id,
        .used = now,
        .parent = object->parent,
        .life = s->life,
        .uses = remember(d, object->id, now),
        .queue = NO_QUEUE,
        .present = true};
    if (object->parent != EVICT_NONE) {
        s->parent_life = d->slots[object->parent].life;
        d->slots[object->parent].children++;
    }
    s->class = class_of(d, s);
    queue_newest(d, slot);
    return MC_OK;
}

static void density_touch(struct evict *e, uint32_t slot, uint64_t now)
{
    struct density *d = density_of(e);
    struct density_slot *s = &d->slots[slot];

    learn_now_and_then(d, now);
    d->hits[s->class][age_bucket(now - s->used)]++;
    s->used = now;
    if (s->uses < USES - 1)
        s->uses++;
    queue_out(d, slot);
    s->class = class_of(d, s);
    queue_newest(d, slot);
}

static void density_promise(struct evict *e, uint32_t slot, uint64_t until, uint64_t now)
{
    density_touch(e, slot, now);
}

static void density_pin(struct evict *e, uint32_t slot, bool pinned, uint64_t now)
{
    assert(!"a replay pins nothing");
}

/* A ghost; when memory is out for one it is forgotten, which only costs knowledge. */
static void become_ghost(struct density *d, const struct density_slot *s, uint64_t now)
{
    if (queues_add(&d->remembered, 0, s->id, 0) != MC_OK)
        return;
    d->ghosts[d->remembered.of_slot[0]] = (struct ghost){s->used, s->uses, s->class};
    if (d->remembered.ends[0].length <= d->ghosts_max)
        return;
    const struct ghost *oldest = &d->ghosts[d->remembered.ends[0].oldest];
    d->ends[oldest->class][age_bucket(now - oldest->used)]++;
    queues_drop_oldest(&d->remembered, 0);
}

static void density_remove(struct evict *e, uint32_t slot, enum evict_why why, uint64_t now)
{
    struct density *d = density_of(e);
    struct density_slot *s = &d->slots[slot], *parent = parent_of(d, s);
    uint32_t up = s->parent;

    queue_out(d, slot);
    if (why == EVICT_EVICTED)
        become_ghost(d, s, now);
    *s = (struct density_slot){.life = s->life + 1, .queue = NO_QUEUE};
    if (parent && --parent->children == 0 && parent->queue == NO_QUEUE)
        queue_oldest(d, up);
}

/* Blocks of the prompt that comes in are no victims for it. */
static uint32_t density_victim(struct evict *e, uint64_t now)
{
    struct density *d = density_of(e);
    uint32_t best = EVICT_NONE;
    double least = 0;

    for (unsigned class = 0; class < CLASSES; class ++) {
        uint32_t slot;

        while ((slot = d->queues[class].oldest) != EVICT_NONE && d->slots[slot].children > 0)
            queue_out(d, slot);
        if (slot == EVICT_NONE || d->slots[slot].used >= d->begin)
            continue;
        double density = d->density[class][age_bucket(now - d->slots[slot].used)];
        if (best == EVICT_NONE || density < least) {
            best = slot;
            least = density;
        }
    }
    return best;
}

const struct evict_policy density_policy = {
    .name = "mooncake",
    .help = "least hits per time to come, learned by class and age, leaves first",
    .handle_size = sizeof(struct density),
    .init = density_init,
    .fini = density_fini,
    .add = density_add,
    .touch = density_touch,
    .promise = density_promise,
    .pin = density_pin,
    .remove = density_remove,
    .victim = density_victim,
};
