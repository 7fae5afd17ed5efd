/* pool.h - blocks that a pool of a fixed number of them holds, by id, under one eviction policy.
 *
 * The policy is a row of the node's own interface (store/node/evict.h): what the pool does with it is what a node does, without
 * the bytes. `now` is any clock that does not go back.
 *
 * Ownership: the pool owns the policy's state. Threads: one. */
#ifndef REPLAY_POOL_H
#define REPLAY_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "mooncake/status.h"
#include "replay/evictions.h"

struct pool;

/* blocks >= 1. MC_OK or MC_ENOMEM. */
enum mc_status pool_create(const struct eviction *eviction, uint32_t blocks, struct pool **out);
void pool_destroy(struct pool *pool); /* NULL is allowed */

/* The policy's state, for those that want more than a row has (opt_future). Lent. */
struct evict *pool_policy(struct pool *pool);

bool pool_has(const struct pool *pool, uint64_t id);

/* How many of the ids are there, from the first on. Counts as no use. */
uint32_t pool_prefix(const struct pool *pool, const uint64_t *ids, uint32_t count);

/* The prompt was used: its blocks that are here are touched, the others come in, and what must go for them goes. A prompt larger
 * than the pool leaves its first blocks in it.
 * With a tail-first policy the last block is used first, with others the first (see evictions.h); the clock given to the policy
 * counts up by one with each block from `now` on. MC_OK or MC_ENOMEM. */
enum mc_status pool_use(struct pool *pool, const uint64_t *ids, uint32_t count, uint64_t now);

/* A block that is there was used by somebody else: read from another node. */
void pool_touch(struct pool *pool, uint64_t id, uint64_t now);

uint32_t pool_count(const struct pool *pool);   /* blocks in it */
uint64_t pool_evicted(const struct pool *pool); /* so far */

/* Ids of what was evicted since the last call of pool_use() began; lent until the next one. */
const uint64_t *pool_victims(const struct pool *pool, uint32_t *count);

#endif
