/* pool.h - fixed-size items from slabs, with a ceiling.
 *
 * Memory is taken slab by slab as it is needed and kept until pool_fini(). At the ceiling pool_get() says NULL; the caller
 * answers MC_AGAIN or MC_EBUSY. Items are aligned to 16 bytes (64 when the item size is a multiple of 64).
 * With assertions on, a freed item is poisoned so that use after put shows.
 * Threads: the owner's only. */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include <stddef.h>
#include <stdint.h>

struct pool_slab;
struct pool_free;

struct pool {
    struct pool_slab *slabs;
    struct pool_free *free;
    size_t item_size, slab_items, items_max;
    size_t used, total; /* items handed out; items in all slabs */
};

/* items_max: ceiling (0 = none). slab_items: items per slab (0 = about 64 KiB worth). Allocates nothing. */
void pool_init(struct pool *pool, size_t item_size, size_t slab_items, size_t items_max);

/* Frees every slab, also those with items handed out. */
void pool_fini(struct pool *pool);

/* Uninitialised item, lent until pool_put(); NULL at the ceiling or when memory is out. */
void *pool_get(struct pool *pool);

/* The same, filled with zeros. */
void *pool_get_zero(struct pool *pool);

void pool_put(struct pool *pool, void *item);

/* Bytes of all slabs. */
size_t pool_bytes(const struct pool *pool);

#endif
