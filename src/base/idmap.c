/* idmap.c - see idmap.h. At most half full; a deletion moves back what had to step over the cell. */
#include "base/idmap.h"

#include <stdlib.h>

#include "base/hash.h"

enum { CELLS_MIN = 64 };

void idmap_fini(struct idmap *map)
{
    free(map->cells);
    *map = (struct idmap){0};
}

/* Where the id is, or the empty cell where it would go. */
static size_t place_of(const struct idmap *map, uint64_t id)
{
    size_t at = hash_mix(id) & map->mask;

    while (map->cells[at].value != IDMAP_NONE && map->cells[at].id != id)
        at = (at + 1) & map->mask;
    return at;
}

uint64_t idmap_find(const struct idmap *map, uint64_t id)
{
    return map->cells ? map->cells[place_of(map, id)].value : IDMAP_NONE;
}

static enum mc_status grow(struct idmap *map)
{
    size_t cap = map->cells ? 2 * (map->mask + 1) : CELLS_MIN;
    struct idmap bigger = {.cells = malloc(cap * sizeof(*bigger.cells)), .mask = cap - 1, .count = map->count};

    if (!bigger.cells)
        return MC_ENOMEM;
    for (size_t i = 0; i < cap; i++)
        bigger.cells[i].value = IDMAP_NONE;
    for (size_t i = 0; map->cells && i <= map->mask; i++) {
        if (map->cells[i].value != IDMAP_NONE)
            bigger.cells[place_of(&bigger, map->cells[i].id)] = map->cells[i];
    }
    free(map->cells);
    *map = bigger;
    return MC_OK;
}

enum mc_status idmap_set(struct idmap *map, uint64_t id, uint64_t value)
{
    if ((!map->cells || map->count * 2 > map->mask) && grow(map) != MC_OK)
        return MC_ENOMEM;
    struct idmap_cell *cell = &map->cells[place_of(map, id)];
    if (cell->value == IDMAP_NONE)
        map->count++;
    *cell = (struct idmap_cell){id, value};
    return MC_OK;
}

void idmap_del(struct idmap *map, uint64_t id)
{
    if (!map->cells)
        return;
    size_t hole = place_of(map, id);
    if (map->cells[hole].value == IDMAP_NONE)
        return;
    map->count--;
    for (size_t at = (hole + 1) & map->mask; map->cells[at].value != IDMAP_NONE; at = (at + 1) & map->mask) {
        size_t home = hash_mix(map->cells[at].id) & map->mask;

        /* It may go to the hole unless its home lies cyclically behind it, in (hole, at]. */
        if (((at - home) & map->mask) >= ((at - hole) & map->mask)) {
            map->cells[hole] = map->cells[at];
            hole = at;
        }
    }
    map->cells[hole].value = IDMAP_NONE;
}
