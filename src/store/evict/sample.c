/* sample.c - see sample.h. */
#include "store/evict/sample.h"

#include <stdlib.h>

#include "base/hash.h"

enum { SHADOW_MAX = 1024, GHOSTS_PER_OBJECT = 1 };
static_assert((int)EVICT_CLASSES == (int)LEAVES_USES, "a queue for each number of uses");

void sample_init(struct sample *sample, struct experts *experts, struct leaves *leaves)
{
    *sample = (struct sample){.experts = experts, .leaves = leaves};
}

void sample_fini(struct sample *sample)
{
    free(sample->ghosts);
    sample_init(sample, sample->experts, sample->leaves);
}

/* ---- what is asked for ---- */

static bool sampled(const void *arg, uint64_t id)
{
    const struct sample *sample = arg;

    return hash_mix(id) >> (64 - sample->shift) == 0; /* the high bits: tables use the low ones */
}

/* Each block counts alone, since what it hangs on is mostly not in the sample. */
static enum mc_status ask_one(struct sample *sample, uint64_t id, uint32_t objects, uint64_t clock)
{
    struct experts *experts = sample->experts;
    uint32_t hits[EXPERTS_MAX];
    enum mc_status status = MC_OK;

    for (unsigned x = 0; x < experts->count; x++) {
        hits[x] = idpool_has(experts->at[x].shadow, id);
        if (idpool_use(experts->at[x].shadow, &(struct evict_run){&id, 1, EVICT_NO_ID}, clock) != MC_OK)
            status = MC_ENOMEM;
    }
    experts_count(experts, hits, 1, objects >> sample->shift);
    return status;
}

/* From the last on, so that a prefix does not go before what hangs on it. */
enum mc_status sample_ask(struct sample *sample, const struct evict_run *run, uint32_t objects, uint64_t clock)
{
    enum mc_status status = MC_OK;

    for (uint32_t i = run->count; i-- > 0;)
        if (sampled(sample, run->ids[i]) && ask_one(sample, run->ids[i], objects, clock) != MC_OK)
            status = MC_ENOMEM;
    return status;
}

/* ---- ghosts ---- */

/* NULL: nothing can be remembered. */
static uint16_t *ghost_of(const struct sample *sample, uint64_t id, uint16_t *bits)
{
    uint64_t hash = hash_mix(id);

    *bits = (uint16_t)(hash << 2);
    return sample->ghosts ? &sample->ghosts[(hash >> 32) * sample->ghosts_cap >> 32] : NULL;
}

static void ghost_put(struct sample *sample, uint64_t id, unsigned uses)
{
    uint16_t bits, *ghost = ghost_of(sample, id, &bits);

    if (ghost)
        *ghost = (uint16_t)(bits | uses);
}

/* How often what comes in was used again, with this time. A stranger of the same bits is taken for it one time in thousands. */
static unsigned ghost_uses(const struct sample *sample, uint64_t id)
{
    uint16_t bits, *ghost = ghost_of(sample, id, &bits);

    if (!ghost || *ghost == 0 || (*ghost & ~3) != bits)
        return 0;
    return (*ghost & 3u) < LEAVES_USES - 1 ? (*ghost & 3u) + 1 : LEAVES_USES - 1;
}

/* What is remembered is forgotten when the table grows. */
static void ghosts_fit(struct sample *sample, uint32_t objects)
{
    if (sample->ghosts_cap >= (uint64_t)objects * GHOSTS_PER_OBJECT)
        return;
    free(sample->ghosts);
    sample->ghosts_cap = evict_grown(sample->ghosts_cap, objects * GHOSTS_PER_OBJECT - 1);
    sample->ghosts = calloc(sample->ghosts_cap, sizeof(*sample->ghosts));
    if (!sample->ghosts)
        sample->ghosts_cap = 0;
}

/* ---- size ---- */

unsigned sample_shift(uint32_t objects)
{
    unsigned shift = 0;

    while (objects > SAMPLE_ABOVE && objects >> shift > SHADOW_MAX)
        shift++;
    return shift;
}

static unsigned uses_of(void *arg, uint32_t slot)
{
    return ((struct leaves *)arg)->at[slot].uses;
}

static void begin(struct sample *sample)
{
    const struct leaves *leaves = sample->leaves;

    for (unsigned x = 0; x < sample->experts->count; x++) {
        struct idpool *smaller;

        if (idpool_create(evict_experts[x], EVICT_UNKNOWN, &smaller) == MC_OK) {
            idpool_destroy(sample->experts->at[x].shadow);
            sample->experts->at[x].shadow = smaller;
        }
    }
    leaves_sort(sample->leaves, uses_of, sample->leaves);
    for (uint32_t slot = 0; slot < leaves->cap; slot++) {
        sample->all += leaves->at[slot].present;
        sample->young += leaves->at[slot].present && leaves->at[slot].uses == 0;
    }
}

void sample_less(struct sample *sample, unsigned shift, uint64_t clock)
{
    if (sample->shift == 0)
        begin(sample);
    sample->shift = shift;
    for (unsigned x = 0; x < sample->experts->count; x++)
        idpool_filter(sample->experts->at[x].shadow, sampled, sample, clock);
    experts_forget(sample->experts);
}

void sample_resize(struct sample *sample, uint32_t objects, uint64_t clock)
{
    ghosts_fit(sample, objects);
    for (unsigned x = 0; x < sample->experts->count; x++)
        (void)idpool_resize(
            sample->experts->at[x].shadow, objects >> sample->shift, clock); /* out of memory: the next use goes on */
}

/* ---- what is here ---- */

void sample_add(struct sample *sample, uint32_t slot, uint64_t id)
{
    struct leaf *s = &sample->leaves->at[slot];

    s->uses = ghost_uses(sample, id) & (LEAVES_USES - 1);
    sample->all++;
    sample->young += s->uses == 0;
    leaves_move(sample->leaves, slot, s->uses);
}

void sample_touch(struct sample *sample, uint32_t slot, uint32_t clock, uint64_t now)
{
    const struct leaf *s = &sample->leaves->at[slot];

    sample->young -= s->uses == 0;
    leaves_note_use(sample->leaves, slot, clock);
    leaves_use(sample->leaves, slot, s->uses, now);
}

void sample_remove(struct sample *sample, uint32_t slot, uint64_t id, enum evict_why why)
{
    const struct leaf *s = &sample->leaves->at[slot];

    if (why == EVICT_EVICTED)
        ghost_put(sample, id, s->uses);
    sample->all--;
    sample->young -= s->uses == 0;
}

/* The class of most votes. */
static unsigned elect(const struct experts *experts, const struct evict_tails *tails)
{
    double votes[EVICT_CLASSES] = {0};
    unsigned first = 0;

    for (unsigned x = 0; x < experts->count; x++)
        votes[evict_experts[x]->choose(idpool_evict(experts->at[x].shadow), tails)] += experts->at[x].vote;
    for (unsigned class = 1; class < EVICT_CLASSES; class ++)
        if (votes[class] > votes[first])
            first = class;
    return first;
}

/* What the prompt that is asked for right now has used goes only when nothing else is left. */
uint32_t sample_victim(struct sample *sample, uint32_t clock)
{
    struct evict_tails tails = {.young = sample->young, .count = sample->all};
    uint32_t slots[EVICT_CLASSES], last = EVICT_NONE;
    bool any = false;

    for (unsigned uses = 0; uses < EVICT_CLASSES; uses++) {
        uint32_t slot = slots[uses] = leaves_oldest(sample->leaves, uses);
        uint32_t age = slot == EVICT_NONE ? 0 : clock - sample->leaves->used[slot];

        tails.age[uses] = age == 0 ? EVICT_NONE : age >> sample->shift;
        any |= age > 0;
        last = slot == EVICT_NONE ? last : slot;
    }
    return any ? slots[elect(sample->experts, &tails)] : last;
}
