/* hot.h - objects in the mapped memory of this host's nodes, read by the caller's own thread.
 *
 * When a read through the engine from a node of this host has come back, the object's header says which key lies there. That
 * is remembered here; the next get of the key copies straight from the mapping and verifies as every reader does: header
 * standing, key and generation as remembered, checksums of what was stored. Anything else: not found here, and the long way
 * is taken. So an entry may be wrong without harm, and nothing has to be told to anybody when one is dropped.
 *
 * Only block keys: what a name means the nodes' directories say, as long as they may (near.h); they are looked up here, too.
 *
 *   table   sets of 4 entries, 64 locks for all; the least recently used of a set goes
 *   nodes   per node: is it up, where are its segments mapped. A reader holds `nodes_lock` shared while it copies, so that a
 *           mapping does not go away under it; hence the limit on the length.
 *
 * Threads: hot_read, hot_named and hot_touched from any, and all that is for HOT_OWN; the rest from the loop. */
#ifndef STORE_CLIENT_HOT_H
#define STORE_CLIENT_HOT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "mooncake/store.h"
#include "store/names.h"
#include "store/object.h"

enum {
    HOT_OWN = 0,              /* the peer of a node of this process (STORE_PEER_MASTER is no node) */
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
    uint32_t *named; /* peers with a directory, HOT_OWN first; guarded by nodes_lock */
    uint32_t named_count;

    pthread_mutex_t touch_lock;
    struct hot_touch touches[HOT_TOUCHES]; /* guarded by touch_lock */
    uint32_t touch_count;                  /* guarded by touch_lock */

    _Atomic uint64_t gets, bytes;
};

/* Memory for about `entries` entries. MC_OK or MC_ENOMEM. */
enum mc_status hot_init(struct hot *hot, uint32_t entries, uint32_t nodes_max);
void hot_fini(struct hot *hot);

/* Where the segments of a node are mapped, and its directory. Copied. MC_OK, MC_EINVAL, MC_ENOMEM. */
struct hot_segment {
    const uint8_t *base; /* NULL: it is not */
    uint64_t size;
};
enum mc_status hot_node_set(struct hot *hot, uint32_t peer, const uint8_t uuid[16], const struct hot_segment *segments,
    uint32_t count, const struct names_view *names);
/* Whether reads of this node may be answered here. */
void hot_node_up(struct hot *hot, uint32_t peer, bool up);
/* Mappings may be taken away after this. */
void hot_node_clear(struct hot *hot, uint32_t peer);

/* An object was read from there: `bytes` begin with its header. */
void hot_learn(struct hot *hot, uint32_t peer, uint32_t segment, uint64_t offset, const void *bytes, uint64_t size);

/* Get `key` (of namespace ns) into op's spans or ranges, and fill op->result. False: not here; op is untouched, the content of
 * the destination is undefined. *touched: the caller should ring the loop, hints wait to be sent. */
bool hot_read(struct hot *hot, uint32_t ns, struct mc_store_op *op, bool *touched);

/* What was read, and where. */
struct hot_object {
    uint32_t peer;
    uint8_t node[16];
    uint64_t generation, version, length;
};

/* Do this get or question of a name of that hash (store_key_hash() with seed 0), if a node's directory has it and its word counts. False:
 * as above. */
bool hot_named(
    struct hot *hot, const struct store_key *key, uint64_t hash, const struct mc_store_op *op, struct hot_object *out);

/* The node is to be told that the object is in use. True: the caller should ring the loop. */
bool hot_touched(struct hot *hot, uint32_t peer, uint64_t generation);

/* Hints gathered so far, at most HOT_TOUCHES; they are forgotten here. */
uint32_t hot_touches(struct hot *hot, struct hot_touch *out);

#endif
