/* evict_mooncake.c - evict as several experts would, each with as much say as it has earned.
 *
 * Each expert (evict_experts[]) runs on a pool of ids as large as the real one, its *shadow*, and is asked for what the real one is
 * asked for. So all are compared by what they would have hit, ours among them. Each has a *vote* for every block its shadow holds,
 * and the block with the least votes goes first:
 *
 *     shadows   density | lru | s3fifo | arc        ids only, each tells what it would have hit
 *                  |       |      |       |  votes: e^-(hits behind the best / what chance explains)
 *     real      a queue for each set of shadows that hold a block: 16, the one of least votes is emptied first, leaves first
 *
 * What chance explains is the standard deviation of the difference to the best, and hits are counted over a window of 64 capacities
 * of uses. An expert that is clearly ahead has all the say, and what is here becomes what its shadow holds; while nobody is, what
 * most of them hold stays. So there is no moment of changing sides, which costs a miss for each block that differs, and equals do
 * not take turns: following one leader at a time with hysteresis lost twice as often to the best expert (decision 048).
 *
 * A block that has few votes but others hang on it (s3fifo and arc know no tree) is no victim. What hangs on it is worth no more
 * than it is, since their shadows cannot hit it: it sinks to the same queue, child by child, until there is a leaf. Without this a
 * block of more votes went instead, and then the next one that was to be asked for.
 *
 * Above FULL_MAX objects the shadows hold a sample: ids by their hash, one of 2^shift, in pools as much smaller (at most SAMPLE_MAX),
 * so that they cost a fixed amount. The real pool then has a queue for each number of uses (evict_tails), and the experts vote among
 * their old ends by what they have learned on the sample (choose()); what was evicted is remembered in two bytes. How many objects fit
 * is what there was when one had to go.
 *
 * Promises, pins, soft pins: leaves.h. Sizes: victims go until there is room, and how many fit follows; a shadow counts blocks.
 * State: 32 B an object, as lru, and 12 beside samples; whole shadows take about 1 KB a block, sampled ones 1.3 MB together (evict_bench.c). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/idmap.h"
#include "store/evict/idpool.h"
#include "store/evict/leaves.h"

enum { EXPERTS_MAX = 4, FULL_MAX = 65536, SAMPLE_MAX = 1024 };
static_assert(1 << EXPERTS_MAX == LEAVES_PLAIN, "a queue for each set of experts");

#define WINDOW_CAPACITIES 64.0
#define WINDOW_MIN        4000.0 /* uses */

struct expert {
    struct idpool *shadow;
    double hits;   /* in the window */
    double spread; /* sum of squares of differences to the best, in the window */
    double vote;   /* 1: it is the best */
};

struct mooncake {
    struct evict base;
    struct leaves leaves;
    struct expert experts[EXPERTS_MAX];
    unsigned expert_count;
    unsigned shift; /* one id of 2^shift is sampled; 0: shadows are whole */
    uint32_t size;  /* objects that fit; EVICT_UNKNOWN */
    uint32_t count, young, clock;
    /* Whole shadows only: */
    struct idmap slot_of;       /* id -> slot */
    double votes[LEAVES_PLAIN]; /* by set of experts, a bit each */
    struct {
        uint64_t id;
        uint32_t child; /* slot of one that hangs on it, if that is still so */
        uint8_t held;   /* by whose shadows: its plain queue, unless it has sunk */
    } * here;           /* by slot */
    uint32_t here_cap;
    /* Samples only: */
    uint32_t *tags;   /* by slot: part of the hash of its id */
    uint16_t *ghosts; /* by tag: its other bits and the uses of what was evicted; the next one there replaces it */
    uint32_t tags_cap, ghost_mask;
};

static struct mooncake *mooncake_of(struct evict *e)
{
    return (struct mooncake *)(void *)e;
}

static bool whole(const struct mooncake *m)
{
    return m->shift == 0;
}

/* ---- what the shadows hold of what is here ---- */

static void held_is(struct mooncake *m, unsigned x, uint32_t slot, bool held)
{
    if ((m->here[slot].held >> x & 1) == held)
        return;
    m->here[slot].held ^= (uint8_t)(1u << x);
    leaves_move(&m->leaves, slot, m->here[slot].held);
}

static void note_held(struct mooncake *m, unsigned x, const uint64_t *ids, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint64_t slot = idmap_find(&m->slot_of, ids[i]);

        if (slot != IDMAP_NONE)
            held_is(m, x, (uint32_t)slot, idpool_has(m->experts[x].shadow, ids[i]));
    }
}

static void note_victims(struct mooncake *m, unsigned x)
{
    uint32_t count;
    const uint64_t *victims = idpool_victims(m->experts[x].shadow, &count);

    note_held(m, x, victims, count);
}

/* ---- votes ---- */

static uint32_t size_of(const struct mooncake *m)
{
    return m->size == EVICT_UNKNOWN ? m->count : m->size;
}

static unsigned best_of(const struct mooncake *m)
{
    unsigned best = 0;

    for (unsigned x = 1; x < m->expert_count; x++)
        if (m->experts[x].hits > m->experts[best].hits)
            best = x;
    return best;
}

static void vote(struct mooncake *m, const uint32_t hits[EXPERTS_MAX], uint32_t uses)
{
    double window = WINDOW_CAPACITIES * (size_of(m) >> m->shift) + WINDOW_MIN;
    double fade = uses < window ? 1 - uses / window : 0;

    for (unsigned x = 0; x < m->expert_count; x++)
        m->experts[x].hits = m->experts[x].hits * fade + hits[x];
    unsigned best = best_of(m);
    for (unsigned x = 0; x < m->expert_count; x++) {
        struct expert *expert = &m->experts[x];
        double less = (double)hits[best] - hits[x];

        expert->spread = expert->spread * fade + less * less;
        expert->vote = exp((expert->hits - m->experts[best].hits) / (sqrt(expert->spread) + 1));
    }
    for (unsigned set = 0; set < LEAVES_PLAIN; set++) {
        m->votes[set] = 0;
        for (unsigned x = 0; x < m->expert_count; x++)
            m->votes[set] += set >> x & 1 ? m->experts[x].vote : 0;
    }
}

/* ---- what is asked for ---- */

static bool sampled(const void *arg, uint64_t id)
{
    const struct mooncake *m = arg;

    return whole(m) || hash_mix(id) >> (64 - m->shift) == 0; /* the high bits: maps use the low ones */
}

/* Hits of a whole shadow: a prompt's prefix. */
static enum mc_status ask_whole(struct mooncake *m, unsigned x, const struct evict_run *run, uint32_t *hits)
{
    struct idpool *shadow = m->experts[x].shadow;
    enum mc_status status;

    *hits = idpool_prefix(shadow, run->ids, run->count);
    status = idpool_use(shadow, run, m->clock);
    note_victims(m, x);
    note_held(m, x, run->ids, run->count);
    return status;
}

/* Of a sample each block counts alone, since what it hangs on is mostly not in it; from the last on, so that a prefix does not go
 * before what hangs on it. */
static enum mc_status ask_sample(struct mooncake *m, uint64_t id)
{
    uint32_t hits[EXPERTS_MAX];
    enum mc_status status = MC_OK;

    for (unsigned x = 0; x < m->expert_count; x++) {
        hits[x] = idpool_has(m->experts[x].shadow, id);
        if (idpool_use(m->experts[x].shadow, &(struct evict_run){&id, 1, EVICT_NO_ID}, m->clock) != MC_OK)
            status = MC_ENOMEM;
    }
    vote(m, hits, 1);
    return status;
}

static enum mc_status mooncake_ask(struct evict *e, const struct evict_run *run, uint64_t now)
{
    struct mooncake *m = mooncake_of(e);
    uint32_t hits[EXPERTS_MAX];
    enum mc_status status = MC_OK;

    m->clock += run->count;
    if (whole(m)) {
        for (unsigned x = 0; x < m->expert_count; x++)
            if (ask_whole(m, x, run, &hits[x]) != MC_OK)
                status = MC_ENOMEM;
        vote(m, hits, run->count);
        return status;
    }
    for (uint32_t i = run->count; i-- > 0;)
        if (sampled(m, run->ids[i]) && ask_sample(m, run->ids[i]) != MC_OK)
            status = MC_ENOMEM;
    return status;
}

/* ---- ghosts of the real pool, beside samples ---- */

static uint32_t tag_of(uint64_t id)
{
    return (uint32_t)hash_mix(id);
}

static uint16_t *ghost_of(struct mooncake *m, uint32_t tag, uint16_t *bits)
{
    *bits = (uint16_t)(tag >> 18 << 2);
    return m->ghosts ? &m->ghosts[tag & m->ghost_mask] : NULL;
}

static void ghost_put(struct mooncake *m, uint32_t tag, unsigned uses)
{
    uint16_t bits, *ghost = ghost_of(m, tag, &bits);

    if (ghost)
        *ghost = (uint16_t)(bits | uses);
}

/* How often what comes in was used again, with this time. A stranger of the same bits is taken for it one time in thousands. */
static unsigned ghost_uses(struct mooncake *m, uint32_t tag)
{
    uint16_t bits, *ghost = ghost_of(m, tag, &bits);

    if (!ghost || *ghost == 0 || (*ghost & ~3) != bits)
        return 0;
    return (*ghost & 3u) < LEAVES_USES - 1 ? (*ghost & 3u) + 1 : LEAVES_USES - 1;
}

/* Two to four an object: what a density remembers. Without memory for them nothing is remembered. */
static void ghosts_fit(struct mooncake *m)
{
    uint64_t cells = 1;

    while (cells < 2 * (uint64_t)m->size)
        cells *= 2;
    if (m->ghosts && cells <= (uint64_t)m->ghost_mask + 1)
        return;
    free(m->ghosts);
    m->ghosts = calloc(cells, sizeof(*m->ghosts));
    m->ghost_mask = (uint32_t)(cells - 1);
}

static enum mc_status tags_fit(struct mooncake *m)
{
    if (m->tags_cap >= m->leaves.cap)
        return MC_OK;
    uint32_t *tags = realloc(m->tags, m->leaves.cap * sizeof(*tags));
    if (!tags)
        return MC_ENOMEM;
    memset(tags + m->tags_cap, 0, (m->leaves.cap - m->tags_cap) * sizeof(*tags));
    m->tags = tags;
    m->tags_cap = m->leaves.cap;
    return MC_OK;
}

/* ---- size ---- */

static unsigned plain_by_uses(void *arg, uint32_t slot)
{
    return ((struct mooncake *)arg)->leaves.at[slot].uses;
}

/* One id of so many that no shadow is too large. */
static unsigned shift_for(uint32_t size)
{
    unsigned shift = 0;

    while (size > FULL_MAX && size >> shift > SAMPLE_MAX)
        shift++;
    return shift;
}

/* From whole shadows to samples, or from samples to smaller ones. Whole ones are made anew, else their memory would stay. */
static void sample_less(struct mooncake *m, unsigned shift)
{
    bool was_whole = whole(m);

    m->shift = shift;
    for (unsigned x = 0; x < m->expert_count; x++) {
        struct expert *expert = &m->experts[x];
        struct idpool *smaller;

        if (was_whole && idpool_create(evict_experts[x], EVICT_UNKNOWN, &smaller) == MC_OK) {
            idpool_destroy(expert->shadow);
            expert->shadow = smaller;
        }
        idpool_filter(expert->shadow, sampled, m, m->clock);
        *expert = (struct expert){.shadow = expert->shadow, .vote = 1};
    }
    if (!was_whole)
        return;
    leaves_sort(&m->leaves, plain_by_uses, m);
    if (tags_fit(m) == MC_OK)
        for (uint32_t slot = 0; slot < m->here_cap; slot++)
            m->tags[slot] = m->leaves.at[slot].present ? tag_of(m->here[slot].id) : 0;
    idmap_fini(&m->slot_of);
    free(m->here);
    m->here = NULL;
    m->here_cap = 0;
}

static void resize(struct mooncake *m, uint32_t size)
{
    m->size = size;
    if (shift_for(size) > m->shift)
        sample_less(m, shift_for(size));
    if (!whole(m))
        ghosts_fit(m);
    for (unsigned x = 0; x < m->expert_count; x++) {
        uint32_t part = size >> m->shift;

        (void)idpool_resize(m->experts[x].shadow, part ? part : 1, m->clock); /* out of memory: the next use goes on */
        if (whole(m))
            note_victims(m, x);
    }
}

/* ---- what hangs on what ---- */

/* One that hangs on an object, EVICT_NONE when none is known. */
static uint32_t child_of(const struct mooncake *m, uint32_t slot)
{
    uint32_t child = m->here[slot].child;

    if (child == EVICT_NONE || !m->leaves.at[child].present)
        return EVICT_NONE;
    return leaves_parent(&m->leaves, &m->leaves.at[child]) == &m->leaves.at[slot] ? child : EVICT_NONE;
}

static void note_child(struct mooncake *m, uint32_t slot)
{
    uint32_t up = m->leaves.at[slot].parent;

    if (leaves_parent(&m->leaves, &m->leaves.at[slot]) && child_of(m, up) == EVICT_NONE)
        m->here[up].child = slot;
}

/* What hangs on an object of queue `set` comes to that queue, if it has more votes. O(1) amortised: it rises by a use only. */
static void sink_child(struct mooncake *m, uint32_t slot, unsigned set)
{
    uint32_t child;

    while ((child = child_of(m, slot)) != EVICT_NONE && m->votes[m->leaves.at[child].plain] > m->votes[set]) {
        leaves_move(&m->leaves, child, set);
        if (m->leaves.at[child].queue != LEAVES_PARKED)
            return;
        slot = child;
    }
}

static uint32_t oldest_leaf(struct mooncake *m, unsigned set)
{
    uint32_t slot;

    while ((slot = m->leaves.queues[set].oldest) != EVICT_NONE && m->leaves.at[slot].children > 0) {
        leaves_park(&m->leaves, slot);
        sink_child(m, slot, set);
    }
    return slot;
}

/* ---- the policy's row ---- */

static void mooncake_fini(struct evict *e)
{
    struct mooncake *m = mooncake_of(e);

    for (unsigned x = 0; x < m->expert_count; x++)
        idpool_destroy(m->experts[x].shadow);
    leaves_fini(&m->leaves);
    idmap_fini(&m->slot_of);
    free(m->here);
    free(m->tags);
    free(m->ghosts);
}

static enum mc_status mooncake_init(struct evict *e)
{
    struct mooncake *m = mooncake_of(e);
    bool known = e->capacity != EVICT_UNKNOWN;

    leaves_init(&m->leaves);
    m->size = e->capacity;
    m->shift = known ? shift_for(e->capacity) : 0;
    for (; evict_experts[m->expert_count]; m->expert_count++) {
        struct expert *expert = &m->experts[m->expert_count];

        assert(m->expert_count < EXPERTS_MAX);
        if (idpool_create(evict_experts[m->expert_count], known ? e->capacity >> m->shift : EVICT_UNKNOWN,
                &expert->shadow) != MC_OK) {
            mooncake_fini(e);
            return MC_ENOMEM;
        }
        expert->vote = 1;
    }
    return MC_OK;
}

/* A new object is held by the shadows that hold its id. */
static enum mc_status here_add(struct mooncake *m, uint32_t slot, uint64_t id)
{
    if (m->here_cap < m->leaves.cap) {
        void *here = realloc(m->here, m->leaves.cap * sizeof(*m->here));

        if (!here)
            return MC_ENOMEM;
        m->here = here;
        m->here_cap = m->leaves.cap;
    }
    if (idmap_set(&m->slot_of, id, slot) != MC_OK)
        return MC_ENOMEM;
    m->here[slot].id = id;
    m->here[slot].child = EVICT_NONE;
    m->here[slot].held = 0;
    for (unsigned x = 0; x < m->expert_count; x++)
        held_is(m, x, slot, idpool_has(m->experts[x].shadow, id));
    return MC_OK;
}

static void here_del(struct mooncake *m, uint32_t slot)
{
    if (idmap_find(&m->slot_of, m->here[slot].id) == slot)
        idmap_del(&m->slot_of, m->here[slot].id);
}

static enum mc_status mooncake_add(struct evict *e, uint32_t slot, const struct evict_object *object, uint64_t now)
{
    struct mooncake *m = mooncake_of(e);

    if (leaves_add(&m->leaves, slot, object, 0, now) != MC_OK)
        return MC_ENOMEM;
    if ((whole(m) ? here_add(m, slot, object->id) : tags_fit(m)) != MC_OK) {
        leaves_remove(&m->leaves, slot, now);
        return MC_ENOMEM;
    }
    m->leaves.at[slot].used = m->clock;
    if (whole(m)) {
        note_child(m, slot);
    } else {
        m->tags[slot] = tag_of(object->id);
        m->leaves.at[slot].uses = ghost_uses(m, m->tags[slot]) & (LEAVES_USES - 1);
        leaves_move(&m->leaves, slot, m->leaves.at[slot].uses);
    }
    m->count++;
    m->young += m->leaves.at[slot].uses == 0;
    if (m->size == EVICT_UNKNOWN && shift_for(m->count) > m->shift)
        sample_less(m, shift_for(m->count));
    return MC_OK;
}

static void mooncake_touch(struct evict *e, uint32_t slot, uint64_t now)
{
    struct mooncake *m = mooncake_of(e);
    struct leaf *s = &m->leaves.at[slot];

    m->young -= s->uses == 0;
    s->used = m->clock;
    if (s->uses < LEAVES_USES - 1)
        s->uses++;
    if (whole(m))
        note_child(m, slot);
    leaves_use(&m->leaves, slot, whole(m) ? m->here[slot].held : plain_by_uses(m, slot), now);
}

static void mooncake_promise(struct evict *e, uint32_t slot, uint64_t until, uint64_t now)
{
    leaves_promise(&mooncake_of(e)->leaves, slot, until, now);
}

static void mooncake_pin(struct evict *e, uint32_t slot, bool pinned, uint64_t now)
{
    leaves_pin(&mooncake_of(e)->leaves, slot, pinned, now);
}

static void mooncake_remove(struct evict *e, uint32_t slot, enum evict_why why, uint64_t now)
{
    struct mooncake *m = mooncake_of(e);

    if (whole(m))
        here_del(m, slot);
    else if (why == EVICT_EVICTED && slot < m->tags_cap)
        ghost_put(m, m->tags[slot], m->leaves.at[slot].uses);
    m->count--;
    m->young -= m->leaves.at[slot].uses == 0;
    leaves_remove(&m->leaves, slot, now);
}

static uint32_t victim_by_sets(struct mooncake *m)
{
    uint32_t victim = EVICT_NONE;
    double least = 0;

    for (unsigned set = 0; set < LEAVES_PLAIN; set++) {
        if (victim != EVICT_NONE && m->votes[set] >= least)
            continue;
        uint32_t slot = oldest_leaf(m, set);
        if (slot == EVICT_NONE)
            continue;
        victim = slot;
        least = m->votes[set];
    }
    return victim;
}

/* The class of most votes. */
static unsigned elect(const struct mooncake *m, const struct evict_tails *tails)
{
    double votes[EVICT_CLASSES] = {0};
    unsigned first = 0;

    for (unsigned x = 0; x < m->expert_count; x++)
        votes[evict_experts[x]->choose(idpool_evict(m->experts[x].shadow), tails)] += m->experts[x].vote;
    for (unsigned class = 1; class < EVICT_CLASSES; class ++)
        if (votes[class] > votes[first])
            first = class;
    return first;
}

/* What the prompt that is asked for right now has used goes only when nothing else is left. */
static uint32_t victim_by_uses(struct mooncake *m)
{
    struct evict_tails tails = {.young = m->young, .count = m->count};
    uint32_t slots[EVICT_CLASSES], last = EVICT_NONE;
    bool any = false;

    for (unsigned uses = 0; uses < EVICT_CLASSES; uses++) {
        uint32_t slot = slots[uses] = leaves_oldest(&m->leaves, uses);
        uint32_t age = slot == EVICT_NONE ? 0 : m->clock - m->leaves.at[slot].used;

        tails.age[uses] = age == 0 ? EVICT_NONE : age >> m->shift;
        any |= age > 0;
        last = slot == EVICT_NONE ? last : slot;
    }
    if (!any)
        return last;
    return slots[elect(m, &tails)];
}

/* How many objects fit: what the owner says, else as many as are here, now that one must go. */
static uint32_t fitting(const struct mooncake *m)
{
    if (m->base.capacity != EVICT_UNKNOWN)
        return m->base.capacity;
    return m->size == EVICT_UNKNOWN || m->count > m->size || m->count < m->size - m->size / 8 ? m->count : m->size;
}

static uint32_t mooncake_victim(struct evict *e, uint64_t now)
{
    struct mooncake *m = mooncake_of(e);
    uint32_t slot;

    if (m->count > 0 && fitting(m) != m->size)
        resize(m, fitting(m));
    leaves_expire(&m->leaves, now);
    slot = whole(m) ? victim_by_sets(m) : victim_by_uses(m);
    return slot != EVICT_NONE ? slot : leaves_guarded(&m->leaves);
}

const struct evict_policy evict_mooncake = {
    .name = "mooncake",
    .help = "as density, lru, s3fifo and arc vote, each by what its shadow hit; leaves first",
    .handle_size = sizeof(struct mooncake),
    .init = mooncake_init,
    .fini = mooncake_fini,
    .add = mooncake_add,
    .touch = mooncake_touch,
    .promise = mooncake_promise,
    .pin = mooncake_pin,
    .remove = mooncake_remove,
    .victim = mooncake_victim,
    .ask = mooncake_ask,
};
