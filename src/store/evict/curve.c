/* curve.c - see curve.h.
 *
 * What the memory there is hits is known. The sample only has to tell what another size would hit more or less: the difference of its
 * pools, which hold the same ids, so that most of what chance put into the sample (a few blocks of a system prompt, say, that make
 * much of what is asked for, or blocks that never come again) is in both and falls out. */
#include "store/evict/curve.h"

#include <stdlib.h>

#include "base/hash.h"
#include "store/evict/idpool.h"

enum { ONCE = 1 };
const double curve_sizes[CURVE_SIZES] = {0.5, [ONCE] = 1, 2, 4};

struct point {
    struct idpool *pool;
    uint64_t misses; /* blocks, scaled up from the sample */
};

struct curve {
    struct point points[CURVE_SIZES];
    unsigned shift;       /* one id of 2^shift is sampled */
    uint32_t objects;     /* that fill memory; 0: it was never full */
    uint64_t asked, hits; /* blocks, by memory as it is */
    uint64_t *sample;     /* of a run */
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

/* Not the bits that tables and shadows go by: those of a sample of a sample would all be equal. */
static bool sampled(const void *arg, uint64_t id)
{
    const struct curve *curve = arg;

    return hash_mix(~id) >> (63 - curve->shift) >> 1 == 0;
}

/* So many blocks are as many as the largest pool may hold, or fewer. */
static void sample_less(struct curve *curve, uint64_t blocks)
{
    unsigned shift = curve->shift;

    while (blocks >> (shift - curve->shift) > CURVE_BLOCKS)
        shift++;
    if (shift == curve->shift)
        return;
    curve->shift = shift;
    for (unsigned i = 0; i < CURVE_SIZES; i++)
        idpool_filter(curve->points[i].pool, sampled, curve, curve->asked);
}

static enum mc_status ask_points(struct curve *curve, const struct evict_run *sample)
{
    enum mc_status status = MC_OK;
    uint32_t most = 0;

    for (unsigned i = 0; i < CURVE_SIZES; i++) {
        struct point *point = &curve->points[i];

        point->misses += (uint64_t)(sample->count - idpool_prefix(point->pool, sample->ids, sample->count))
                         << curve->shift;
        if (idpool_use(point->pool, sample, curve->asked) != MC_OK)
            status = MC_ENOMEM;
        most = idpool_count(point->pool) > most ? idpool_count(point->pool) : most;
    }
    sample_less(curve, most);
    return status;
}

enum mc_status curve_ask(struct curve *curve, const struct evict_run *run, uint32_t hits)
{
    if (run->count > curve->sample_cap) {
        uint64_t *ids = realloc(curve->sample, run->count * sizeof(*ids));

        if (!ids)
            return MC_ENOMEM;
        curve->sample = ids;
        curve->sample_cap = run->count;
    }
    struct evict_run sample = {curve->sample, 0, sampled(curve, run->up) ? run->up : EVICT_NO_ID};
    for (uint32_t i = 0; i < run->count; i++)
        if (sampled(curve, run->ids[i]))
            curve->sample[sample.count++] = run->ids[i];
    curve->asked += run->count;
    curve->hits += hits;
    return sample.count ? ask_points(curve, &sample) : MC_OK;
}

enum mc_status curve_full(struct curve *curve, uint32_t objects)
{
    enum mc_status status = MC_OK;

    if (objects == 0 || (objects <= curve->objects && objects >= curve->objects - curve->objects / 8))
        return MC_OK;
    curve->objects = objects;
    sample_less(curve, (uint64_t)(curve_sizes[CURVE_SIZES - 1] * objects) >> curve->shift);
    for (unsigned i = 0; i < CURVE_SIZES; i++) {
        uint64_t part = (uint64_t)(curve_sizes[i] * objects) >> curve->shift;

        if (idpool_resize(curve->points[i].pool, part ? (uint32_t)part : 1, curve->asked) != MC_OK)
            status = MC_ENOMEM;
    }
    return status;
}

void curve_read(const struct curve *curve, double hit_ratio[CURVE_SIZES])
{
    for (unsigned i = 0; i < CURVE_SIZES; i++) {
        double more = (double)curve->points[ONCE].misses - (double)curve->points[i].misses;
        double hits = (double)curve->hits + more;

        hit_ratio[i] = hits <= 0 ? 0 : hits >= (double)curve->asked ? 1 : hits / (double)curve->asked;
    }
}
