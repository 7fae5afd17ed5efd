/* managed.h - memory that the engine gives out, registered already: one pool, and regions of their own for what is longer.
 *
 * The pool is a memfd of the Transfer Engine, so peers of this host copy straight from it; its pages are committed when they are
 * touched. Space in it is found by the Store's allocator.
 * Threads: any, `lock`. */
#ifndef COMPAT_ENGINE_MANAGED_H
#define COMPAT_ENGINE_MANAGED_H

#include "compat/engine/memory.h"

struct alloc; /* store/node/alloc.h */

struct ce_managed {
    pthread_mutex_t lock;
    struct ce_memory *memory;
    struct mc_te *te;
    uint8_t *pool;         /* NULL: not wanted, or could not be had */
    struct alloc *alloc;   /* guarded by lock, as is this: */
    struct hashmap blocks; /* struct block by address */
};

/* With `pool` it is registered at once. */
enum mc_status ce_managed_init(struct ce_managed *managed, struct mc_te *te, struct ce_memory *memory, bool pool);
void ce_managed_fini(struct ce_managed *managed); /* the memory ends with the Transfer Engine */

void *ce_managed_get(struct ce_managed *managed, uint64_t len);
enum mc_status ce_managed_put(struct ce_managed *managed, void *addr);

#endif
