/* curve.h - what other sizes would hit: a miss-ratio curve at half, once, twice and four times the memory.
 *
 * For each size a pool of ids under the policy itself, as the memory would be: ids by their hash, one of 2^shift, the same ones for each
 * size, in a pool as much smaller (at most CURVE_BLOCKS), so that it costs a fixed amount (at most 7 MB) whatever the memory. A run
 * counts as far as its sampled blocks are there from the first on.
 *
 * Ownership: the curve owns its pools. Threads: the owner's only. */
#ifndef STORE_EVICT_CURVE_H
#define STORE_EVICT_CURVE_H

#include "store/evict/evict.h"

enum { CURVE_SIZES = 4, CURVE_BLOCKS = 4096 };

/* Sizes, as parts of the memory there is. */
extern const double curve_sizes[CURVE_SIZES];

struct curve;

/* MC_OK or MC_ENOMEM. */
enum mc_status curve_create(const struct evict_policy *policy, struct curve **out);
void curve_destroy(struct curve *curve); /* NULL is allowed */

/* As evict_ask(); so many of the run were hit by the memory there is. MC_OK, or MC_ENOMEM: the figures are worse from now on. */
enum mc_status curve_ask(struct curve *curve, const struct evict_run *run, uint32_t hits);

/* Memory is full, with so many objects in it. */
enum mc_status curve_full(struct curve *curve, uint32_t objects);

/* Part of the blocks asked for so far that were, or would have been, hit; 0 before the first. That of size 1 is what was hit. */
void curve_read(const struct curve *curve, double hit_ratio[CURVE_SIZES]);

#endif
