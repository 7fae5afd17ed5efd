/* one_pool.h - a trace against one pool: the hit rate of an eviction policy, and nothing about time.
 *
 * Hit rate = blocks of the longest prefix found in the pool, over all blocks. Each prompt is looked up, then used whole.
 *
 * Threads: one. */
#ifndef REPLAY_ONE_POOL_H
#define REPLAY_ONE_POOL_H

#include <stdint.h>

#include "replay/evictions.h"
#include "replay/trace.h"
#include "store/evict/curve.h"

struct one_pool_result {
    uint64_t requests, blocks, hit_blocks, evicted;
    uint64_t prompt_tokens,
        hit_tokens; /* of prompts; as an engine reuses them: whole blocks, the last token computed */
    uint64_t bad_lines, reordered;
    double hit_rate;
    double
        hit_rate_at[CURVE_SIZES]; /* as the node estimates it for curve_sizes[] times as many blocks; not with `opt` */
};

/* Told now and then how far it is, 0 to 1. */
typedef void replay_progress_fn(void *arg, double part);

/* MC_OK, or as trace_next(). With `opt` the file is read twice and 8 bytes are kept for each block in it; it cannot be a pipe
 * then: MC_ENOSUP. `progress` may be NULL. */
enum mc_status one_pool_run(const struct trace_options *trace, const struct eviction *eviction, uint32_t blocks,
    replay_progress_fn *progress, void *arg, struct one_pool_result *out);

#endif
