/* curve.c - see curve.h.
 *
 * Misses are counted in the sample, and held against all that was asked for: a few blocks (of a system prompt, say) may make much of
 * that and be in the sample or not, but they are hit at any size (as in SHARDS, FAST'15). */
#include "store/evict/curve.h"

#include <stdlib.h>

#include "base/hash.h"
#include "store/evict/idpool.h"

const double curve_sizes[CURVE_SIZES] = {0.5, 1, 2, 4};

struct point {
    struct idpool *pool;
    unsigned shift;         /* one id of 2^shift is sampled */
    uint64_t asked, misses; /* blocks, scaled up from the sample */
};

struct curve {
    struct point points[CURVE_SIZES];
    uint32_t objects; /* that fill memory; 0: it was never full */
    uint64_t clock;
    uint64_t *sample; /* of a run */
    uint32_t sample_cap;
};

enum mc_status curve_create(const struct evict_policy *policy, struct curve **out)
{
    struct curve *curve = calloc(1, sizeof(*curve));

    if (!curve)
        return MC_ENOMEM;
    for (unsigned i = 0; i < CURVE_SIZES; i++) {
        if (idpool_create(policy, EVICT_UNKNOWN, &curve->points[i].pool) != MC_OK) {
            curve_destroy(curve);
            return MC_ENOMEM;
        }
    }
    *out = curve;
    return MC_OK;
}

void curve_destroy(struct curve *curve)
{
    if (!curve)
        return;
    for (unsigned i = 0; i < CURVE_SIZES; i++)
        idpool_destroy(curve->points[i].pool);
    free(curve->sample);
    free(curve);
}

/* Not the bits that maps and shadows go by: those of a sample of a sample would all be equal. */
static bool sampled(const void *arg, uint64_t id)
{
    const struct point *point = arg;

    return hash_mix(~id) >> (63 - point->shift) >> 1 == 0;
}

static void sample_less(struct curve *curve, struct point *point, uint32_t blocks)
{
    unsigned shift = point->shift;

    while (blocks >> (shift - point->shift) > CURVE_BLOCKS)
        shift++;
    if (shift == point->shift)
        return;
    point->shift = shift;
    idpool_filter(point->pool, sampled, point, curve->clock);
}

static enum mc_status ask_point(struct curve *curve, struct point *point, const struct evict_run *run)
{
    struct evict_run sample = {curve->sample, 0, sampled(point, run->up) ? run->up : EVICT_NO_ID};

    for (uint32_t i = 0; i < run->count; i++)
        if (sampled(point, run->ids[i]))
            curve->sample[sample.count++] = run->ids[i];
    point->asked += run->count;
    if (sample.count == 0)
        return MC_OK;
    point->misses += (uint64_t)(sample.count - idpool_prefix(point->pool, sample.ids, sample.count)) << point->shift;
    enum mc_status status = idpool_use(point->pool, &sample, curve->clock);
    if (idpool_capacity(point->pool) == EVICT_UNKNOWN)
        sample_less(curve, point, idpool_count(point->pool));
    return status;
}

enum mc_status curve_ask(struct curve *curve, const struct evict_run *run)
{
    enum mc_status status = MC_OK;

    if (run->count > curve->sample_cap) {
        uint64_t *sample = realloc(curve->sample, run->count * sizeof(*sample));

        if (!sample)
            return MC_ENOMEM;
        curve->sample = sample;
        curve->sample_cap = run->count;
    }
    curve->clock += run->count;
    for (unsigned i = 0; i < CURVE_SIZES; i++)
        if (ask_point(curve, &curve->points[i], run) != MC_OK)
            status = MC_ENOMEM;
    return status;
}

enum mc_status curve_full(struct curve *curve, uint32_t objects)
{
    enum mc_status status = MC_OK;

    if (objects == 0 || (objects <= curve->objects && objects >= curve->objects - curve->objects / 8))
        return MC_OK;
    curve->objects = objects;
    for (unsigned i = 0; i < CURVE_SIZES; i++) {
        struct point *point = &curve->points[i];
        double size = curve_sizes[i] * objects;
        uint32_t part = size < EVICT_UNKNOWN - 1 ? (uint32_t)size : EVICT_UNKNOWN - 1;

        sample_less(curve, point, part >> point->shift);
        part = part >> point->shift ? part >> point->shift : 1;
        if (idpool_resize(point->pool, part, curve->clock) != MC_OK)
            status = MC_ENOMEM;
    }
    return status;
}

void curve_read(const struct curve *curve, double hit_ratio[CURVE_SIZES])
{
    for (unsigned i = 0; i < CURVE_SIZES; i++) {
        const struct point *point = &curve->points[i];

        hit_ratio[i] = point->misses < point->asked ? 1 - (double)point->misses / (double)point->asked : 0;
    }
}
