/* evict_density.c - out goes the leaf that promises least hits per time it stays.
 *
 * Blocks are in classes by how often they have been used and how often the block they hang on has: what continues a chat that has
 * come back before is worth more than a prompt nobody has seen. For each class a life table is kept over ages since the last use (two
 * buckets per doubling): how many lives reach a bucket, and what part of them is hit in it. A life ends by a hit or by being given
 * up, when a ghost is forgotten; those that still wait are counted as far as they have come, with half the weight of one that has
 * ended. It is learned from blocks that are here and from ghosts alike, else a policy would see only what it kept.
 *
 *     classes:   used 0, 1, 2, 3+ times again   x   parent used 0, 1, 2, 3+ times again        16 queues, oldest at the tail
 *     density:   of an age: the most hits per time that can be had by waiting from there on, however long (Gittins' index)
 *     victim:    among the tails of all queues (leaves only) the one of least density: 16 look-ups
 *
 * Without those that wait a class looks good by the few that were hit, and without the choice how long to wait a block that is hit at
 * once or never looks as bad as one that is hit late: each costs some percent of the hits where recency counts (chats, drift). What
 * a class has not seen itself it takes from all classes together, with the weight of one life.
 *
 * Within a class the oldest goes first, without asking whether density falls with age; across classes it is asked. Time is counted in
 * uses. Densities are computed anew every half capacity of uses, sooner in the beginning, and old counts fade by a tenth then; a
 * census of five capacities per half a capacity of uses is O(1) amortised. Nothing is to be tuned by hand; ghosts are four times the
 * capacity, since with as many as blocks the ages that matter are cut off. It keeps ids only: pins and promises are not known. */
#include <math.h>
#include <string.h>

#include "store/evict/leaves.h"
#include "store/evict/queues.h"
#include "store/evict/tails.h"

enum { HERE, GHOST };
enum { USES = LEAVES_USES, CLASSES = LEAVES_PLAIN, AGES = 48, GHOSTS_PER_BLOCK = 4 };
enum { LEARN_FIRST = 128, LEARN_MIN = 2000 }; /* uses; shorter, and small pools follow chance */
static_assert(CLASSES == USES * USES, "a queue per class");
static_assert((int)EVICT_CLASSES == (int)USES, "tails are by uses");

#define FADE    0.9
#define WAITING 0.5  /* weight of a life that has not ended */
#define PRIOR   1.0  /* lives that a class borrows from all classes */
#define LEFT    1e-3 /* part of the lives that is not worth following */
#define SQRT_2  1.4142135623730951

struct density {
    struct evict base;
    struct leaves leaves; /* plain queues are classes */
    struct queues known;  /* blocks and ghosts, with their class and last use */
    double hits[CLASSES][AGES], ends[CLASSES][AGES], density[CLASSES][AGES];
    double edge[AGES + 1]; /* least age of a bucket */
    uint32_t count;        /* blocks */
    uint32_t clock;        /* uses */
    uint32_t learned;      /* when densities were computed last */
    uint32_t begin;        /* of the prompt whose block comes in */
};

static struct density *density_of(struct evict *e)
{
    return (struct density *)(void *)e;
}

/* ---- what is learned ---- */

static unsigned age_bucket(uint32_t age)
{
    uint64_t x = (uint64_t)age + 1;
    unsigned power = 63 - (unsigned)__builtin_clzll(x);
    /* x >= 2^(power + 1/2) */
    bool upper = (double)x >= SQRT_2 * (double)(UINT64_C(1) << power);
    unsigned bucket = 2 * power + upper;

    return bucket < AGES ? bucket : AGES - 1;
}

/* Blocks that fit; as long as it was never full, those that are here. */
static uint32_t size_of(const struct density *d)
{
    return d->base.capacity == EVICT_UNKNOWN ? d->count : d->base.capacity;
}

static double width(const struct density *d, unsigned age)
{
    return d->edge[age + 1] - d->edge[age];
}

static uint32_t interval(const struct density *d)
{
    return size_of(d) / 2 > LEARN_MIN ? size_of(d) / 2 : LEARN_MIN;
}

/* Add those that still wait to `ends`, as if counted when they began to. */
static void census(const struct density *d, double ends[CLASSES][AGES])
{
    double weight[AGES];

    for (unsigned age = 0; age < AGES; age++)
        weight[age] = WAITING * pow(FADE, d->edge[age] / interval(d));
    for (unsigned queue = HERE; queue <= GHOST; queue++) {
        for (uint32_t at = d->known.ends[queue].oldest; at != ENTRY_NONE; at = d->known.entries[at].newer) {
            const struct queue_entry *entry = &d->known.entries[at];
            const struct leaf *s = queue == HERE ? &d->leaves.at[entry->slot] : NULL;
            unsigned age = age_bucket(d->clock - (s ? d->leaves.used[entry->slot] : entry->used));

            ends[s ? s->plain : entry->note][age] += weight[age];
        }
    }
}

/* Part of the lives reaching an age that is hit in it. `prior` NULL: none. */
static void life_table(const double hits[AGES], const double ends[AGES], const double *prior, double hit[AGES])
{
    double longer = 0;

    for (unsigned age = AGES; age-- > 0;) {
        double lives = longer + hits[age] + ends[age] / 2; /* one that ends in a bucket was half of it there */

        if (prior)
            hit[age] = (hits[age] + PRIOR * prior[age]) / (lives + PRIOR);
        else
            hit[age] = lives > 0 ? hits[age] / lives : 0;
        longer += hits[age] + ends[age];
    }
}

static double best_density(const struct density *d, const double hit[AGES], unsigned from)
{
    double left = 1, hits = 0, time = 0, best = 0;

    for (unsigned age = from; age < AGES && left > LEFT; age++) {
        hits += left * hit[age];
        time += left * (1 - hit[age] / 2) * width(d, age);
        left *= 1 - hit[age];
        best = hits / time > best ? hits / time : best;
    }
    return best;
}

static void learn(struct density *d)
{
    double ends[CLASSES][AGES], all_hits[AGES] = {0}, all_ends[AGES] = {0}, prior[AGES], hit[AGES];

    memcpy(ends, d->ends, sizeof(ends));
    census(d, ends);
    for (unsigned class = 0; class < CLASSES; class ++) {
        for (unsigned age = 0; age < AGES; age++) {
            all_hits[age] += d->hits[class][age];
            all_ends[age] += ends[class][age];
        }
    }
    life_table(all_hits, all_ends, NULL, prior);
    for (unsigned class = 0; class < CLASSES; class ++) {
        life_table(d->hits[class], ends[class], prior, hit);
        for (unsigned age = 0; age < AGES; age++) {
            d->density[class][age] = best_density(d, hit, age);
            d->hits[class][age] *= FADE;
            d->ends[class][age] *= FADE;
        }
    }
}

static void learn_now_and_then(struct density *d)
{
    uint32_t since = d->clock - d->learned, first = d->learned > LEARN_FIRST ? d->learned : LEARN_FIRST;

    if (since < interval(d) && since < first)
        return;
    learn(d);
    d->learned = d->clock;
}

/* ---- the policy's row ---- */

static enum mc_status density_init(struct evict *e)
{
    struct density *d = density_of(e);

    leaves_init(&d->leaves, true);
    queues_init(&d->known);
    d->edge[0] = 1;
    d->edge[1] = SQRT_2;
    for (unsigned age = 2; age <= AGES; age++)
        d->edge[age] = 2 * d->edge[age - 2];
    for (unsigned class = 0; class < CLASSES; class ++)
        for (unsigned age = 0; age < AGES; age++)
            d->density[class][age] = 1 / d->edge[age]; /* nothing is known yet: the oldest goes */
    return MC_OK;
}

static void density_fini(struct evict *e)
{
    leaves_fini(&density_of(e)->leaves);
    queues_fini(&density_of(e)->known);
}

static void density_expect(struct evict *e, uint64_t id, uint32_t depth, uint64_t now)
{
    density_of(e)->begin = density_of(e)->clock + 1 - depth;
}

static unsigned class_of(const struct density *d, const struct leaf *s)
{
    const struct leaf *parent = leaves_parent(&d->leaves, s);

    return s->uses * USES + (parent ? parent->uses : 0);
}

/* How often it was used before, when it is remembered: its coming back is a hit that was missed. */
static enum mc_status remember(struct density *d, uint32_t slot, uint64_t id, unsigned *uses)
{
    uint32_t entry = queues_find(&d->known, id);

    *uses = 0;
    if (entry == ENTRY_NONE)
        return queues_add(&d->known, HERE, id, slot);
    struct queue_entry ghost = d->known.entries[entry];
    if (queues_return(&d->known, HERE, entry, slot) != MC_OK)
        return MC_ENOMEM;
    d->hits[ghost.note][age_bucket(d->clock - ghost.used)]++;
    *uses = ghost.note / USES + 1;
    return MC_OK;
}

static enum mc_status density_add(struct evict *e, uint32_t slot, const struct evict_object *object, uint64_t now)
{
    struct density *d = density_of(e);
    unsigned uses;

    d->clock++;
    learn_now_and_then(d);
    if (leaves_add(&d->leaves, slot, object, 0, now) != MC_OK)
        return MC_ENOMEM;
    if (remember(d, slot, object->id, &uses) != MC_OK) {
        leaves_remove(&d->leaves, slot, now);
        return MC_ENOMEM;
    }
    struct leaf *s = &d->leaves.at[slot];
    s->uses = uses < USES ? uses : USES - 1;
    d->leaves.used[slot] = d->clock;
    leaves_use(&d->leaves, slot, class_of(d, s), now);
    d->count++;
    return MC_OK;
}

static void density_touch(struct evict *e, uint32_t slot, uint64_t now)
{
    struct density *d = density_of(e);
    const struct leaf *s = &d->leaves.at[slot];

    d->clock++;
    learn_now_and_then(d);
    d->hits[s->plain][age_bucket(d->clock - d->leaves.used[slot])]++;
    leaves_note_use(&d->leaves, slot, d->clock);
    leaves_use(&d->leaves, slot, class_of(d, s), now);
}

static void become_ghost(struct density *d, uint32_t entry, uint32_t slot)
{
    struct queue_entry *ghost = &d->known.entries[entry];

    ghost->used = d->leaves.used[slot];
    ghost->note = (uint8_t)d->leaves.at[slot].plain;
    queues_move(&d->known, GHOST, entry);
    if (d->known.ends[GHOST].length <= GHOSTS_PER_BLOCK * (uint64_t)size_of(d))
        return;
    const struct queue_entry *oldest = &d->known.entries[d->known.ends[GHOST].oldest];
    d->ends[oldest->note][age_bucket(d->clock - oldest->used)]++;
    queues_drop_oldest(&d->known, GHOST);
}

static void density_remove(struct evict *e, uint32_t slot, uint64_t id, enum evict_why why, uint64_t now)
{
    struct density *d = density_of(e);
    uint32_t entry = d->known.of_slot[slot];

    if (why == EVICT_EVICTED)
        become_ghost(d, entry, slot);
    else
        queues_drop(&d->known, entry);
    leaves_remove(&d->leaves, slot, now);
    d->count--;
}

/* Blocks of the prompt that comes in are no victims for it. */
static uint32_t density_victim(struct evict *e, uint64_t now)
{
    struct density *d = density_of(e);
    uint32_t best = EVICT_NONE;
    double least = 0;

    for (unsigned class = 0; class < CLASSES; class ++) {
        uint32_t slot = leaves_oldest(&d->leaves, class);

        if (slot == EVICT_NONE || (int32_t)(d->leaves.used[slot] - d->begin) >= 0)
            continue;
        double density = d->density[class][age_bucket(d->clock - d->leaves.used[slot])];
        if (best == EVICT_NONE || density < least) {
            best = slot;
            least = density;
        }
    }
    return best;
}

/* As far as nothing is known of parents. */
static unsigned density_choose(const struct evict *e, const struct evict_tails *tails)
{
    const struct density *d = (const struct density *)(const void *)e;
    unsigned best = EVICT_CLASSES;
    double least = 0;

    for (unsigned uses = 0; uses < USES; uses++) {
        if (tails->age[uses] == EVICT_NONE)
            continue;
        double density = d->density[uses * USES][age_bucket(tails->age[uses])];
        if (best == EVICT_CLASSES || density < least) {
            best = uses;
            least = density;
        }
    }
    return best;
}

const struct evict_policy evict_density = {
    .name = "density",
    .help = "least hits per time to come, learned by class and age, leaves first",
    .handle_size = sizeof(struct density),
    .init = density_init,
    .fini = density_fini,
    .add = density_add,
    .touch = density_touch,
    .remove = density_remove,
    .victim = density_victim,
    .expect = density_expect,
    .choose = density_choose,
};
