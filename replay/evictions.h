/* evictions.h - eviction policies of a replay: the node's own table and its experts, and one that no live node could have.
 *
 * All are rows of store/evict/evict.h:
 *   mooncake, lru   the node's
 *   density, s3fifo, arc   what its default follows, alone
 *   opt      Belady: out goes what is used latest, or never, and what comes in is kept only when it is used before that;
 *            knows the future (opt_future), so only for one pool
 *
 * Threads: as evict.h. */
#ifndef REPLAY_EVICTIONS_H
#define REPLAY_EVICTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/evict/evict.h"

struct eviction {
    const struct evict_policy *policy;
    bool clairvoyant; /* wants opt_future() before the first block */
};

/* Rows from index 0; the node's first, in its order. false behind the last. */
bool eviction_at(size_t index, struct eviction *out);
bool eviction_find(const char *name, struct eviction *out);

extern const struct evict_policy opt_policy;

#define OPT_NEVER UINT64_MAX

/* `next[t]` is the next time at which the block that is used at time t is used again, OPT_NEVER if it is not; the times are those
 * given to add() and touch(), 0 .. count-1. Borrowed until the policy is destroyed. */
void opt_future(struct evict *e, const uint64_t *next, uint64_t count);

#endif
