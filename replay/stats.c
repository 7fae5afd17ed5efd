/* stats.c - see stats.h. */
#include "replay/stats.h"

#include <math.h>
#include <stdlib.h>

#define LEAST_MS  1e-6
#define BUCKET_LN 0.0009995003330835331 /* ln 1.001 */

enum { BUCKETS = 41500 }; /* 1e-6 ms * 1.001^41500 = 1e12 ms */

enum mc_status stats_init(struct stats *stats)
{
    *stats = (struct stats){.buckets = calloc(BUCKETS, sizeof(*stats->buckets))};
    return stats->buckets ? MC_OK : MC_ENOMEM;
}

void stats_fini(struct stats *stats)
{
    free(stats->buckets);
    *stats = (struct stats){0};
}

void stats_add(struct stats *stats, double ms)
{
    double at = ms > LEAST_MS ? log(ms / LEAST_MS) / BUCKET_LN : 0;

    stats->buckets[at < BUCKETS - 1 ? (size_t)at : BUCKETS - 1]++;
    stats->count++;
    stats->sum += ms;
    stats->max = ms > stats->max ? ms : stats->max;
}

double stats_mean(const struct stats *stats)
{
    return stats->count ? stats->sum / (double)stats->count : 0;
}

double stats_at(const struct stats *stats, double part)
{
    double left = part * (double)stats->count;

    for (size_t i = 0; i < BUCKETS; i++) {
        if (stats->buckets[i] == 0)
            continue;
        left -= stats->buckets[i];
        if (left <= 0)
            return fmin(LEAST_MS * exp(((double)i + 0.5) * BUCKET_LN), stats->max);
    }
    return stats->max;
}
