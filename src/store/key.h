/* key.h - the key of one object (one part of a block, or a name) as all of the Store uses it.
 *
 * `id` identifies the key among those of the same kind, namespace, group and shard: a block's id, or for names the first 16
 * bytes of SHA-256(name), so that tables compare fixed-size keys; headers and messages carry the name itself too.
 *
 * Threads: any. */
#ifndef STORE_KEY_H
#define STORE_KEY_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/slice.h"
#include "mooncake/store.h"

struct store_key {
    uint8_t id[16];
    uint32_t ns;
    uint16_t group;
    uint16_t shard;
    uint16_t shards;   /* at least 1 */
    uint8_t kind;      /* enum mc_key_kind */
    struct slice name; /* names only; lent by whoever gave the key */
};

/* Same object? Names are compared by their digest. */
static inline bool store_key_eq(const struct store_key *a, const struct store_key *b)
{
    return memcmp(a->id, b->id, 16) == 0 && a->ns == b->ns && a->group == b->group && a->shard == b->shard &&
           a->shards == b->shards && a->kind == b->kind;
}

#endif
