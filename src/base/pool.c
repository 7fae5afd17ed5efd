/* pool.c - slabs cut into items; free items form a list through their first word.
 *
 *   slab: | struct pool_slab (64 B) | item | item | ...
 *
 * Under AddressSanitizer free items are poisoned beyond their link, so use after put is reported. */
#include "base/pool.h"

#include <assert.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define POOL_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POOL_ASAN 1
#endif
#endif
#ifdef POOL_ASAN
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n)   ((void)(p), (void)(n))
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)(p), (void)(n))
#endif

#define SLAB_HEAD  64
#define SLAB_BYTES (64u << 10)

struct pool_slab {
    struct pool_slab *next;
};

struct pool_free {
    struct pool_free *next;
};

void pool_init(struct pool *pool, size_t item_size, size_t slab_items, size_t items_max)
{
    size_t size = item_size < sizeof(struct pool_free) ? sizeof(struct pool_free) : item_size;

    size = (size + 15) & ~(size_t)15;
    if (!slab_items)
        slab_items = SLAB_BYTES / size ? SLAB_BYTES / size : 1;
    if (items_max && slab_items > items_max)
        slab_items = items_max;
    *pool = (struct pool){.item_size = size, .slab_items = slab_items, .items_max = items_max};
}

void pool_fini(struct pool *pool)
{
    struct pool_slab *slab = pool->slabs;

    while (slab) {
        struct pool_slab *next = slab->next;

        ASAN_UNPOISON_MEMORY_REGION((char *)slab + SLAB_HEAD, pool->slab_items * pool->item_size);
        free(slab);
        slab = next;
    }
    pool->slabs = NULL;
    pool->free = NULL;
    pool->used = pool->total = 0;
}

static void free_push(struct pool *pool, void *item)
{
    struct pool_free *node = item;

    node->next = pool->free;
    pool->free = node;
    ASAN_POISON_MEMORY_REGION((char *)item + sizeof(*node), pool->item_size - sizeof(*node));
}

static bool slab_add(struct pool *pool)
{
    size_t items = pool->slab_items, bytes;
    struct pool_slab *slab;

    if (pool->items_max && pool->items_max - pool->total < items)
        items = pool->items_max - pool->total;
    if (!items)
        return false;
    /* Every slab has the same size, also a last one that the ceiling cuts short: pool_fini() relies on it. */
    bytes = SLAB_HEAD + pool->slab_items * pool->item_size;
    slab = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
    if (!slab)
        return false;
    slab->next = pool->slabs;
    pool->slabs = slab;
    for (size_t i = items; i > 0; i--)
        free_push(pool, (char *)slab + SLAB_HEAD + (i - 1) * pool->item_size);
    pool->total += items;
    return true;
}

void *pool_get(struct pool *pool)
{
    struct pool_free *item;

    if (!pool->free && !slab_add(pool))
        return NULL;
    item = pool->free;
    pool->free = item->next;
    ASAN_UNPOISON_MEMORY_REGION(item, pool->item_size);
    pool->used++;
    return item;
}

void *pool_get_zero(struct pool *pool)
{
    void *item = pool_get(pool);

    if (item)
        memset(item, 0, pool->item_size);
    return item;
}

void pool_put(struct pool *pool, void *item)
{
    assert(pool->used > 0);
#ifndef NDEBUG
    memset(item, 0xdd, pool->item_size);
#endif
    free_push(pool, item);
    pool->used--;
}

size_t pool_bytes(const struct pool *pool)
{
    size_t bytes = 0;

    for (const struct pool_slab *slab = pool->slabs; slab; slab = slab->next)
        bytes += SLAB_HEAD + pool->slab_items * pool->item_size;
    return bytes;
}
