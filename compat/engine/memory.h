/* memory.h - what this engine has registered, and how it is told to peers.
 *
 *   (address, length) -- count of registrations -- one region of the Transfer Engine, whose key peers get
 *
 * Overlapping ranges are regions of their own. Each change of the set of regions gives it a new version.
 * Threads: any; `lock` is held for table work only, never while the Transfer Engine waits for a piece being copied. */
#ifndef COMPAT_ENGINE_MEMORY_H
#define COMPAT_ENGINE_MEMORY_H

#include <pthread.h>

#include "base/hashmap.h"
#include "base/list.h"
#include "compat/engine/wire.h"

struct ce_memory {
    pthread_mutex_t lock;
    struct mc_te *te;
    struct hashmap table; /* struct entry by address; guarded by lock, as are these: */
    struct list order;    /* as registered */
    uint64_t version;
};

enum mc_status ce_memory_init(struct ce_memory *memory, struct mc_te *te);
void ce_memory_fini(struct ce_memory *memory); /* forgets; the regions end with the Transfer Engine */

enum mc_status ce_memory_add(struct ce_memory *memory, void *addr, uint64_t len);
enum mc_status ce_memory_remove(struct ce_memory *memory, void *addr);

/* A region that exists already (of memory the Transfer Engine allocated): only told to peers. */
enum mc_status ce_memory_add_key(struct ce_memory *memory, void *addr, uint64_t len, const struct mc_region_key *key);
enum mc_status ce_memory_forget(struct ce_memory *memory, void *addr, uint64_t len);

/* The answer to "what have you registered?": head and, unless it is `same` or empty, *areas (given; free) of head->count.
 * MC_OK or MC_ENOMEM. */
enum mc_status ce_memory_describe(
    struct ce_memory *memory, uint64_t known, struct ce_wire_answer *head, uint8_t **areas);

#endif
