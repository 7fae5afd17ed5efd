/* idpool.h - a pool of ids under one eviction policy: what a node does with a policy, without the bytes.
 *
 * The shadows of evict_mooncake.c, and the pools of a replay. `now` is any clock that does not go back.
 *
 * Ownership: the pool owns the policy's state. Threads: one. */
#ifndef STORE_EVICT_IDPOOL_H
#define STORE_EVICT_IDPOOL_H

#include <stdbool.h>
#include <stdint.h>

#include "mooncake/status.h"
#include "store/evict/evict.h"

struct idpool;

/* `capacity` in blocks, >= 1; EVICT_UNKNOWN: without limit until idpool_resize(). MC_OK or MC_ENOMEM. */
enum mc_status idpool_create(const struct evict_policy *policy, uint32_t capacity, struct idpool **out);
void idpool_destroy(struct idpool *pool); /* NULL is allowed */

/* The policy's state, for those that want more than a pool tells. Lent. */
struct evict *idpool_evict(const struct idpool *pool);

bool idpool_has(const struct idpool *pool, uint64_t id);

/* How many of the ids are there, from the first on. Counts as no use. */
uint32_t idpool_prefix(const struct idpool *pool, const uint64_t *ids, uint32_t count);

/* The prompt was used: its blocks that are here are touched, the others come in, and what must go for them goes. A prompt larger
 * than the pool leaves its first blocks in it.
 * With a tail-first policy the last block is used first, with others the first (see evict.h); the clock given to the policy
 * counts up by one with each block from `now` on. MC_OK or MC_ENOMEM. */
enum mc_status idpool_use(struct idpool *pool, const struct evict_run *run, uint64_t now);

/* A block that is there was used by somebody else: read from another node. */
void idpool_touch(struct idpool *pool, uint64_t id, uint64_t now);

/* A block that is there will be used by a prompt on its way here: as young as if it had been. Asked for it is by the idpool_use() to come,
 * so that one use is not told twice. */
void idpool_renew(struct idpool *pool, uint64_t id, uint64_t now);

/* What is too much goes. MC_OK or MC_ENOMEM. */
enum mc_status idpool_resize(struct idpool *pool, uint32_t capacity, uint64_t now);
/* Forget what `keep` does not hold. */
void idpool_filter(struct idpool *pool, bool (*keep)(const void *arg, uint64_t id), const void *arg, uint64_t now);

uint32_t idpool_count(const struct idpool *pool); /* blocks in it */
uint32_t idpool_capacity(const struct idpool *pool);
uint64_t idpool_evicted(const struct idpool *pool); /* so far */

/* Ids of what was evicted since the last call of idpool_use() or idpool_resize() began; lent until the next one. */
const uint64_t *idpool_victims(const struct idpool *pool, uint32_t *count);

#endif
