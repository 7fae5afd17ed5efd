/* prefix_core.h - how much of a prompt the index holds: the longest prefix of its blocks, and how far each node leads alone.
 *
 * The master's prefix queries, the trace replayer and `mooncake bench index` all ask this one function.
 *
 *     blocks    0  1  2  3  4  5          prefix 5: some node has each of 0..4
 *     node A    x  x  .  x  .  .          A leads 2: what lies behind a hole does not count
 *     node B    x  x  x  x  x  .          B leads 5
 *
 * Pure. Threads: the table owner's only. */
#ifndef STORE_INDEX_PREFIX_CORE_H
#define STORE_INDEX_PREFIX_CORE_H

#include "store/index/table_core.h"

struct prefix_query {
    const struct table *table;
    uint32_t ns;
    uint16_t group;
    uint16_t shard,
        shards; /* the part whose owners lead; a block counts when all of its `shards` >= 1 parts are readable */
    const uint8_t (*ids)[16]; /* borrowed for the call */
    uint32_t count;
    bool (*readable)(const void *arg, uint16_t owner); /* may the owner answer? NULL: all may */
    /* Told each part of each block of the prefix, block after block; NULL: nobody wants to know. It may promise entries, not add
     * or remove them. */
    void (*found)(void *arg, uint32_t block, uint16_t shard, uint32_t entry);
    void *arg;
};

/* Kept between queries, so that one costs nothing per node that is not in it. Begins zeroed. */
struct prefix_leads {
    uint64_t stamp;                /* of the last query; fits into 32 bits */
    uint64_t led[STORE_NODES_MAX]; /* stamp << 32 | blocks; of an older stamp: none */
};

/* Blocks of the prefix; `leads` is about them. O(blocks found), with over TABLE_NEAR nodes O(their copies). */
uint32_t prefix_walk(const struct prefix_query *query, struct prefix_leads *leads);

/* Blocks from the first on that this owner holds and that are in the prefix of the last query. */
static inline uint32_t prefix_lead(const struct prefix_leads *leads, uint16_t owner)
{
    return leads->led[owner] >> 32 == leads->stamp ? (uint32_t)leads->led[owner] : 0;
}

#endif
