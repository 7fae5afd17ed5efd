/* memory.c - see memory.h. */
#include "compat/engine/memory.h"

#include <stdlib.h>

#include "base/hash.h"
#include "compat/engine/ce.h"

struct entry {
    struct hnode node;
    struct list order;
    struct ce_area area;
    uint32_t count; /* registrations */
    bool own;       /* the region is ours to unregister */
};

struct range {
    uint64_t addr, len;
};

static bool same_range(const struct hnode *node, const void *key)
{
    const struct entry *entry = container_of(node, struct entry, node);
    const struct range *range = key;

    return entry->area.addr == range->addr && entry->area.len == range->len;
}

/* Entries of one address share a chain, and hash by nothing else. */
static uint64_t hash_of(uint64_t addr)
{
    return hash_mix(addr);
}

enum mc_status ce_memory_init(struct ce_memory *memory, struct mc_te *te)
{
    uint32_t start;

    random_bytes(&start, sizeof(start)); /* a successor's answers are not taken for ours */
    memory->te = te;
    memory->version = 1 + (uint64_t)start;
    list_init(&memory->order);
    pthread_mutex_init(&memory->lock, NULL);
    return hashmap_init(&memory->table, 64, CE_REGISTRATIONS_MAX);
}

void ce_memory_fini(struct ce_memory *memory)
{
    list_for_each_safe (it, tmp, &memory->order)
        free(list_entry(it, struct entry, order));
    hashmap_fini(&memory->table);
    pthread_mutex_destroy(&memory->lock);
}

static struct entry *find(struct ce_memory *memory, uint64_t addr, uint64_t len)
{
    struct range range = {addr, len};
    struct hnode *node = hashmap_find(&memory->table, hash_of(addr), same_range, &range);

    return node ? container_of(node, struct entry, node) : NULL;
}

static enum mc_status insert(
    struct ce_memory *memory, void *addr, uint64_t len, const struct mc_region_key *key, bool own)
{
    struct entry *entry = calloc(1, sizeof(*entry));

    if (!entry || hashmap_add(&memory->table, &entry->node, hash_of((uintptr_t)addr)) != MC_OK) {
        free(entry);
        return MC_ENOMEM;
    }
    entry->area = (struct ce_area){(uintptr_t)addr, len, *key};
    entry->count = 1;
    entry->own = own;
    list_push_back(&memory->order, &entry->order);
    memory->version++;
    return MC_OK;
}

enum mc_status ce_memory_add(struct ce_memory *memory, void *addr, uint64_t len)
{
    struct mc_region_key key;
    struct entry *entry;
    enum mc_status status = MC_OK;

    pthread_mutex_lock(&memory->lock);
    entry = find(memory, (uintptr_t)addr, len);
    if (entry) {
        entry->count++;
    } else {
        status = mc_te_register(memory->te, addr, len, MC_REGION_READ | MC_REGION_WRITE, &key);
        if (status == MC_OK) {
            status = insert(memory, addr, len, &key, true);
            if (status != MC_OK)
                mc_te_unregister(memory->te, &key); /* nobody knows the key: nothing to wait for */
        }
    }
    pthread_mutex_unlock(&memory->lock);
    return status;
}

enum mc_status ce_memory_add_key(struct ce_memory *memory, void *addr, uint64_t len, const struct mc_region_key *key)
{
    enum mc_status status;

    pthread_mutex_lock(&memory->lock);
    status = insert(memory, addr, len, key, false);
    pthread_mutex_unlock(&memory->lock);
    return status;
}

static void unlink_entry(struct ce_memory *memory, struct entry *entry)
{
    hashmap_del(&memory->table, &entry->node);
    list_del(&entry->order);
    memory->version++;
}

struct shortest {
    uint64_t addr;
    struct entry *found;
};

/* Looks at all entries of one address, and says no to each so that the search goes on. */
static bool note_shortest(const struct hnode *node, const void *key)
{
    struct entry *entry = container_of((struct hnode *)(uintptr_t)node, struct entry, node);
    struct shortest *search = (struct shortest *)(uintptr_t)key;

    if (entry->own && entry->area.addr == search->addr && (!search->found || entry->area.len < search->found->area.len))
        search->found = entry;
    return false;
}

/* Of several registrations the shortest goes: what is left still covers whatever the others rely on. */
enum mc_status ce_memory_remove(struct ce_memory *memory, void *addr)
{
    struct shortest search = {.addr = (uintptr_t)addr};
    struct entry *gone = NULL;

    pthread_mutex_lock(&memory->lock);
    hashmap_find(&memory->table, hash_of(search.addr), note_shortest, &search);
    if (search.found && --search.found->count == 0) {
        gone = search.found;
        unlink_entry(memory, gone);
    }
    pthread_mutex_unlock(&memory->lock);
    if (gone) {
        mc_te_unregister(memory->te, &gone->area.key);
        free(gone);
    }
    return search.found ? MC_OK : MC_ENOENT;
}

enum mc_status ce_memory_forget(struct ce_memory *memory, void *addr, uint64_t len)
{
    struct entry *entry;
    bool there;

    pthread_mutex_lock(&memory->lock);
    entry = find(memory, (uintptr_t)addr, len);
    there = entry && !entry->own;
    if (there)
        unlink_entry(memory, entry);
    pthread_mutex_unlock(&memory->lock);
    if (there)
        free(entry);
    return there ? MC_OK : MC_ENOENT;
}

enum mc_status ce_memory_describe(
    struct ce_memory *memory, uint64_t known, struct ce_wire_answer *head, uint8_t **areas)
{
    enum mc_status status = MC_OK;
    uint8_t *at;

    *areas = NULL;
    pthread_mutex_lock(&memory->lock);
    *head = (struct ce_wire_answer){.version = memory->version, .same = known == memory->version};
    if (!list_empty(&memory->order))
        head->first = list_first(&memory->order, struct entry, order)->area.addr;
    if (!head->same && memory->table.count) {
        head->count = (uint32_t)memory->table.count;
        *areas = at = malloc((size_t)head->count * CE_AREA_SIZE);
        if (!at)
            status = MC_ENOMEM;
        list_for_each (it, &memory->order) {
            if (!at)
                break;
            ce_wire_area_put(&list_entry(it, struct entry, order)->area, at);
            at += CE_AREA_SIZE;
        }
    }
    pthread_mutex_unlock(&memory->lock);
    return status;
}
