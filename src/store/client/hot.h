/* hot.h - objects in the mapped memory of this host's nodes, read by the caller's own thread.
 *
 * When a read through the engine from a node of this host has come back, the object's header says which key lies there. That
 * is remembered here; the next get of the key copies straight from the mapping and verifies as every reader does: header
 * standing, key and generation as remembered, checksums of what was stored. Anything else: not found here, and the long way
 * is taken. So an entry may be wrong without harm, and nothing has to be told to anybody when one is dropped.
 *
 * Only block keys: whether a name still means the same object is the master's to say.
 *
 *   table   sets of 4 entries, 64 locks for all; the least recently used of a set goes
 *   nodes   per node: is it up, where are its segments mapped. A reader holds `nodes_lock` shared while it copies, so that a
 *           mapping does not go away under it; hence the limit on the length.
 *
 * Threads: hot_read from any; the rest from the loop. */
#ifndef STORE_CLIENT_HOT_H
#define STORE_CLIENT_HOT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "mooncake/store.h"
#include "store/object.h"

enum {
    HOT_LENGTH_MAX = 4 << 20, /* about 1 ms of copying */
    HOT_TOUCHES = 1024,
    HOT_LOCKS = 64,
};

struct hot_set;
struct hot_node;

struct hot_touch {
    uint32_t peer;
    uint64_t generation;
};

struct hot {
    struct hot_set *sets;
    pthread_mutex_t locks[HOT_LOCKS]; /* of set i: number i % HOT_LOCKS */
    uint32_t sets_mask;
    uint64_t seed;
    pthread_rwlock_t nodes_lock;
    struct hot_node **nodes; /* by peer; guarded by nodes_lock */
    uint32_t nodes_max;

    pthread_mutex_t touch_lock;
    struct hot_touch touches[HOT_TOUCHES]; /* guarded by touch_lock */
    uint32_t touch_count;                  /* guarded by touch_lock */

    _Atomic uint64_t gets, bytes;
};

/* Memory for about `entries` entries. MC_OK or MC_ENOMEM. */
enum mc_status hot_init(struct hot *hot, uint32_t entries, uint32_t nodes_max);
void hot_fini(struct hot *hot);

/* Whether reads of this node may be answered here, and where its segments are mapped (NULL base: not mapped). */
enum mc_status hot_node_set(struct hot *hot, uint32_t peer, const uint8_t uuid[16], uint32_t segments,
    const void *const *bases, const uint64_t *sizes);
void hot_node_up(struct hot *hot, uint32_t peer, bool up);
/* Mappings may be taken away after this. */
void hot_node_clear(struct hot *hot, uint32_t peer);

/* An object was read from there: `bytes` begin with its header. */
void hot_learn(struct hot *hot, uint32_t peer, uint32_t segment, uint64_t offset, const void *bytes, uint64_t size);

/* Get `key` (of namespace ns) into op's spans or ranges, and fill op->result. False: not here; op is untouched, the content of
 * the destination is undefined. *touched: the caller should ring the loop, hints wait to be sent. */
bool hot_read(struct hot *hot, uint32_t ns, struct mc_store_op *op, bool *touched);

/* Copy an object out of mapped memory, into op's spans or ranges, and verify it as every reader does. False: it is not the object of this
 * key and generation, or it does not fit. */
bool hot_copy(const uint8_t *object, const struct store_key *key, uint32_t head_len, uint64_t length,
    uint64_t generation, const struct mc_store_op *op);

/* Hints gathered so far, at most HOT_TOUCHES; they are forgotten here. */
uint32_t hot_touches(struct hot *hot, struct hot_touch *out);

#endif
