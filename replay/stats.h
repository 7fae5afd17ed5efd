/* stats.h - mean and percentiles of a great many times in bounded memory.
 *
 * A histogram with buckets of 0.1 % width from a nanosecond to 30 years: the mean is exact, a percentile within 0.1 %.
 * Threads: one. */
#ifndef REPLAY_STATS_H
#define REPLAY_STATS_H

#include <stdint.h>

#include "mooncake/status.h"

struct stats {
    uint32_t *buckets;
    uint64_t count;
    double sum, max;
};

enum mc_status stats_init(struct stats *stats); /* MC_OK or MC_ENOMEM */
void stats_fini(struct stats *stats);           /* harmless on a zeroed one */
void stats_add(struct stats *stats, double ms);
double stats_mean(const struct stats *stats);            /* 0 when empty */
double stats_at(const struct stats *stats, double part); /* 0.99: the 99th percentile; 0 when empty */

#endif
