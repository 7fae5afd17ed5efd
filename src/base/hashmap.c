/* hashmap.c - chained table that grows a little with each add.
 *
 * While it grows there are two tables. Chains of the old one are moved in order; `old_at` says up to where. An element is
 * therefore in exactly one place: old[h & old_mask] when that chain was not moved yet, else buckets[h & mask].
 *
 * Each add moves MOVE_CHAINS chains of the old table, so the old one (half the size) is empty long before the new one is
 * full, and never three tables are needed. */
#include "base/hashmap.h"

#include <assert.h>
#include <stdlib.h>

#define BITS_MIN    4
#define MOVE_CHAINS 4

static struct hnode **slot_of(const struct hashmap *map, uint64_t hash)
{
    if (map->old) {
        size_t at = hash & (((size_t)1 << map->old_bits) - 1);

        if (at >= map->old_at)
            return &map->old[at];
    }
    return &map->buckets[hash & (((size_t)1 << map->bits) - 1)];
}

static void move_chains(struct hashmap *map, size_t chains)
{
    size_t old_size = (size_t)1 << map->old_bits, mask = ((size_t)1 << map->bits) - 1;

    for (; map->old && chains; chains--) {
        struct hnode *node = map->old[map->old_at];

        while (node) {
            struct hnode *next = node->next, **slot = &map->buckets[node->hash & mask];

            node->next = *slot;
            *slot = node;
            node = next;
        }
        if (++map->old_at == old_size) {
            free(map->old);
            map->old = NULL;
        }
    }
}

static void grow(struct hashmap *map)
{
    struct hnode **bigger;

    if (map->old || map->bits + 1 >= 8 * sizeof(size_t) - 4)
        return;
    bigger = calloc((size_t)2 << map->bits, sizeof(*bigger));
    if (!bigger)
        return; /* longer chains are better than a failure */
    map->old = map->buckets;
    map->old_bits = map->bits;
    map->old_at = 0;
    map->buckets = bigger;
    map->bits++;
}

enum mc_status hashmap_init(struct hashmap *map, size_t count_expected, size_t count_max)
{
    unsigned bits = BITS_MIN;

    while (((size_t)1 << bits) < count_expected && bits < 8 * sizeof(size_t) - 5)
        bits++;
    *map = (struct hashmap){.bits = bits, .count_max = count_max};
    map->buckets = calloc((size_t)1 << bits, sizeof(*map->buckets));
    return map->buckets ? MC_OK : MC_ENOMEM;
}

void hashmap_fini(struct hashmap *map)
{
    free(map->buckets);
    free(map->old);
    *map = (struct hashmap){0};
}

struct hnode *hashmap_find(const struct hashmap *map, uint64_t hash, hashmap_eq_fn *eq, const void *key)
{
    for (struct hnode *node = *slot_of(map, hash); node; node = node->next)
        if (node->hash == hash && eq(node, key))
            return node;
    return NULL;
}

enum mc_status hashmap_add(struct hashmap *map, struct hnode *node, uint64_t hash)
{
    struct hnode **slot;

    if (map->count_max && map->count >= map->count_max)
        return MC_EBUSY;
    if (map->count >= (size_t)1 << map->bits)
        grow(map);
    move_chains(map, MOVE_CHAINS);
    slot = slot_of(map, hash);
    node->hash = hash;
    node->next = *slot;
    *slot = node;
    map->count++;
    return MC_OK;
}

void hashmap_del(struct hashmap *map, struct hnode *node)
{
    struct hnode **slot = slot_of(map, node->hash);

    while (*slot && *slot != node)
        slot = &(*slot)->next;
    assert(*slot == node);
    *slot = node->next;
    node->next = NULL;
    map->count--;
}

struct hnode *hashmap_next(const struct hashmap *map, struct hashmap_iter *it)
{
    struct hnode *node;

    if (!it->started)
        *it = (struct hashmap_iter){.started = true, .in_old = map->old != NULL, .bucket = map->old ? map->old_at : 0};
    while (!it->next) {
        size_t size = (size_t)1 << (it->in_old ? map->old_bits : map->bits);

        if (it->bucket == size) {
            if (!it->in_old)
                return NULL;
            it->in_old = false;
            it->bucket = 0;
            continue;
        }
        it->next = (it->in_old ? map->old : map->buckets)[it->bucket++];
    }
    node = it->next;
    it->next = node->next;
    return node;
}

size_t hashmap_bytes(const struct hashmap *map)
{
    size_t buckets = map->buckets ? (size_t)1 << map->bits : 0;

    if (map->old)
        buckets += (size_t)1 << map->old_bits;
    return buckets * sizeof(struct hnode *);
}
