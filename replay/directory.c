/* directory.c - see directory.h. */
#include "replay/directory.h"

#include <assert.h>
#include <stdlib.h>

enum { TABLE_SEED = 1 }; /* equal inputs give equal runs; a trace floods nobody */

static struct store_key key_of(uint64_t id)
{
    struct store_key key = {.shards = 1, .kind = MC_KEY_BLOCK};

    le64_put(key.id, id);
    return key;
}

enum mc_status directory_init(struct directory *directory, uint64_t copies)
{
    *directory = (struct directory){0};
    directory->table = table_create(copies < TABLE_NONE ? (uint32_t)copies : TABLE_NONE - 1, TABLE_SEED);
    return directory->table ? MC_OK : MC_ENOMEM;
}

void directory_fini(struct directory *directory)
{
    table_destroy(directory->table);
    free(directory->ids);
    directory->table = NULL;
    directory->ids = NULL;
}

enum mc_status directory_add(struct directory *directory, uint16_t owner, uint64_t id)
{
    struct store_key key = key_of(id);

    return table_add(directory->table, &key, &(struct table_copy){.generation = id, .owner = owner});
}

void directory_remove(struct directory *directory, uint16_t owner, uint64_t id)
{
    uint32_t at, entry = table_find_copy(directory->table, owner, id, &at);

    if (entry != TABLE_NONE)
        table_remove(directory->table, entry, at);
}

uint64_t directory_holders(const struct directory *directory, uint64_t id)
{
    struct store_key key = key_of(id);
    uint32_t entry = table_find(directory->table, &key);

    return entry == TABLE_NONE ? 0 : table_owners(directory->table, entry).near;
}

enum mc_status directory_reserve(struct directory *directory, uint32_t count)
{
    if (count <= directory->ids_cap)
        return MC_OK;
    void *more = realloc(directory->ids, (size_t)count * 16);
    if (!more)
        return MC_ENOMEM;
    directory->ids = more;
    directory->ids_cap = count;
    return MC_OK;
}

uint32_t directory_prefix(struct directory *directory, const uint64_t *ids, uint32_t count)
{
    assert(count <= directory->ids_cap);
    for (uint32_t i = 0; i < count; i++) {
        le64_put(directory->ids[i], ids[i]);
        le64_put(directory->ids[i] + 8, 0);
    }
    const struct prefix_query query = {
        .table = directory->table, .shards = 1, .ids = (const uint8_t(*)[16])directory->ids, .count = count};
    return prefix_walk(&query, &directory->leads);
}

uint64_t directory_copies(const struct directory *directory)
{
    return table_copies(directory->table);
}

uint64_t directory_blocks(const struct directory *directory)
{
    return table_entries(directory->table);
}
