/* managed.c - see managed.h. */
#include "compat/engine/managed.h"

#include <stdlib.h>

#include "base/hash.h"
#include "base/log.h"
#include "store/node/alloc.h"
#include "transfer/te.h"

#define POOL_SIZE (2ull << 30)
#define PAGE      4096ull /* all blocks are multiples of it, so all begin at one */
#define LEN_MAX   (1ull << 46)

struct block {
    struct hnode node;
    uint8_t *addr;
    uint64_t len;
    uint32_t handle; /* of the pool's allocator; ALLOC_NONE: a region of its own */
};

static bool same_addr(const struct hnode *node, const void *key)
{
    return container_of(node, struct block, node)->addr == key;
}

static enum mc_status region_alloc(struct ce_managed *managed, uint64_t len, void **addr)
{
    struct te_memory memory;
    enum mc_status status = te_alloc(managed->te, len, MC_REGION_READ | MC_REGION_WRITE, &memory);

    if (status != MC_OK)
        return status;
    status = ce_memory_add_key(managed->memory, memory.addr, memory.len, &memory.key);
    if (status != MC_OK)
        mc_te_free(managed->te, memory.addr);
    else
        *addr = memory.addr;
    return status;
}

/* Without the pool everything but managed buffers works: an address space limit is no reason to refuse to start. */
enum mc_status ce_managed_init(struct ce_managed *managed, struct mc_te *te, struct ce_memory *memory, bool pool)
{
    uint32_t segment;
    void *addr;

    managed->te = te;
    managed->memory = memory;
    pthread_mutex_init(&managed->lock, NULL);
    if (hashmap_init(&managed->blocks, 16, 0) != MC_OK)
        return MC_ENOMEM;
    if (!pool)
        return MC_OK;
    managed->alloc = alloc_create(0);
    if (!managed->alloc || alloc_segment_add(managed->alloc, POOL_SIZE, &segment) != MC_OK)
        return MC_ENOMEM;
    if (region_alloc(managed, POOL_SIZE, &addr) == MC_OK)
        managed->pool = addr;
    else
        log_warn("engine: no address space for the pool of managed buffers: each gets a mapping of its own");
    return MC_OK;
}

void ce_managed_fini(struct ce_managed *managed)
{
    struct hashmap_iter it = {0};

    for (struct hnode *node; (node = hashmap_next(&managed->blocks, &it)) != NULL;)
        free(container_of(node, struct block, node));
    hashmap_fini(&managed->blocks);
    if (managed->alloc)
        alloc_destroy(managed->alloc);
    pthread_mutex_destroy(&managed->lock);
}

/* lock held. */
static enum mc_status block_fill(struct ce_managed *managed, struct block *block)
{
    void *addr;
    enum mc_status status;

    if (managed->pool && alloc_get(managed->alloc, block->len, 0, &block->handle) == MC_OK) {
        block->addr = managed->pool + alloc_where(managed->alloc, block->handle).offset;
        return MC_OK;
    }
    block->handle = ALLOC_NONE;
    status = region_alloc(managed, block->len, &addr);
    if (status == MC_OK)
        block->addr = addr;
    return status;
}

void *ce_managed_get(struct ce_managed *managed, uint64_t len)
{
    struct block *block;
    enum mc_status status;

    if (len == 0 || len > LEN_MAX)
        return NULL;
    block = calloc(1, sizeof(*block));
    if (!block)
        return NULL;
    block->len = (len + PAGE - 1) / PAGE * PAGE;
    pthread_mutex_lock(&managed->lock);
    status = block_fill(managed, block);
    if (status == MC_OK)
        hashmap_add(&managed->blocks, &block->node, hash_mix((uintptr_t)block->addr)); /* no bound: cannot fail */
    pthread_mutex_unlock(&managed->lock);
    if (status == MC_OK)
        return block->addr;
    free(block);
    return NULL;
}

enum mc_status ce_managed_put(struct ce_managed *managed, void *addr)
{
    struct hnode *node;
    struct block *block = NULL;

    pthread_mutex_lock(&managed->lock);
    node = hashmap_find(&managed->blocks, hash_mix((uintptr_t)addr), same_addr, addr);
    if (node) {
        block = container_of(node, struct block, node);
        hashmap_del(&managed->blocks, node);
        if (block->handle != ALLOC_NONE)
            alloc_put(managed->alloc, block->handle);
    }
    pthread_mutex_unlock(&managed->lock);
    if (!block)
        return MC_ENOENT;
    if (block->handle == ALLOC_NONE) {
        ce_memory_forget(managed->memory, addr, block->len);
        mc_te_free(managed->te, addr);
    }
    free(block);
    return MC_OK;
}
