/* evictions.h - the eviction policies a replay can run: those of the node, and some to compare with.
 *
 * The rows of store/node/evict.c are the very code of the live node and keep its rules (leaves before what they hang on). The
 * others but one are the published algorithms as their authors describe them, for comparison only. They know ids and nothing else: no
 * tree, no pins, no promises. So that under them, too, a prefix seldom goes before what hangs on it, the blocks of a prompt are
 * used from the last to the first (tail first); opt keeps a prefix by itself, as no block is used later than what hangs on it.
 *
 *   mooncake ours: least hits per time to come, learned; knows the tree, not yet pins and promises (evict_density.c)
 *   s3fifo   a small queue (10 %), a main queue, ghosts for 90 %; promoted when read while in the small one (SOSP'23)
 *   arc      recency against frequency, balanced by hits among ghosts (FAST'03), integer steps
 *   opt      Belady: out goes what is used latest, or never, and what comes in is kept only when it is used before that;
 *            knows the future (opt_future), so only for one pool
 *
 * Threads: as evict.h. */
#ifndef REPLAY_EVICTIONS_H
#define REPLAY_EVICTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/node/evict.h"

struct eviction {
    const struct evict_policy *policy;
    bool tail_first;  /* a prompt's blocks are used from the last on, and hang on nothing */
    bool clairvoyant; /* wants opt_future() before the first block */
    /* Told which block wants to come in before victim() is asked to make room for it; NULL: does not matter. */
    void (*expect)(struct evict *e, uint64_t id, uint32_t depth, uint64_t now);
};

/* Rows from index 0; the node's first, in its order. false behind the last. */
bool eviction_at(size_t index, struct eviction *out);
bool eviction_find(const char *name, struct eviction *out);

extern const struct evict_policy density_policy, s3fifo_policy, arc_policy, opt_policy;
void density_expect(struct evict *e, uint64_t id, uint32_t depth, uint64_t now);
void arc_expect(struct evict *e, uint64_t id, uint32_t depth, uint64_t now);
void opt_expect(struct evict *e, uint64_t id, uint32_t depth, uint64_t now);

#define OPT_NEVER UINT64_MAX

/* `next[t]` is the next time at which the block that is used at time t is used again, OPT_NEVER if it is not; the times are those
 * given to add() and touch(), 0 .. count-1. Borrowed until the policy is destroyed. */
void opt_future(struct evict *e, const uint64_t *next, uint64_t count);

#endif
