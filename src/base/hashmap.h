/* hashmap.h - intrusive hash table with chains; the caller computes the hash and compares the keys.
 *
 * Elements embed a struct hnode. The table grows by doubling and moves a few chains with each add, so that no single call
 * stalls on millions of elements. It never shrinks. When memory for a bigger table cannot be had it stays as it is and
 * chains get longer: an add fails only at `count_max`.
 *
 * Ownership: the table owns its buckets, never the elements.
 * Threads: the owner's only. Use a keyed hash (hash64) for keys that come from outside. */
#ifndef BASE_HASHMAP_H
#define BASE_HASHMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "mooncake/status.h"

struct hnode {
    struct hnode *next;
    uint64_t hash;
};

struct hashmap {
    struct hnode **buckets; /* 1 << bits of them */
    struct hnode **old;     /* table being emptied into `buckets`, or NULL */
    size_t old_at;          /* first chain of `old` not moved yet */
    unsigned bits, old_bits;
    size_t count, count_max;
};

/* Does this element have that key? Called only for elements of equal hash. */
typedef bool hashmap_eq_fn(const struct hnode *node, const void *key);

/* count_expected sizes the first table (0 = small), count_max bounds the number of elements (0 = no bound).
 * MC_ENOMEM: nothing was allocated and hashmap_fini() need not be called. */
enum mc_status hashmap_init(struct hashmap *map, size_t count_expected, size_t count_max);

/* Frees the buckets. Elements still inside are simply forgotten. */
void hashmap_fini(struct hashmap *map);

/* NULL when there is none. */
struct hnode *hashmap_find(const struct hashmap *map, uint64_t hash, hashmap_eq_fn *eq, const void *key);

/* Add an element; equal keys are not looked for (hashmap_find first).
 *   MC_OK    it is in      MC_EBUSY  count_max is reached, nothing changed */
enum mc_status hashmap_add(struct hashmap *map, struct hnode *node, uint64_t hash);

/* Take an element out. It must be in this map. */
void hashmap_del(struct hashmap *map, struct hnode *node);

/* Walk all elements in no order: start with it = {0}. The element returned last may be deleted (and freed) before the
 * next call; nothing may be added during the walk. */
struct hashmap_iter {
    size_t bucket;
    struct hnode *next;
    bool in_old, started;
};
struct hnode *hashmap_next(const struct hashmap *map, struct hashmap_iter *it);

/* Memory of the table itself, in bytes. */
size_t hashmap_bytes(const struct hashmap *map);

#endif
