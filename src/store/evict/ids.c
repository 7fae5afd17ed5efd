/* ids.c - see ids.h. A deletion moves back what had to step over the cell. */
#include "store/evict/ids.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

enum { CELLS_MIN = 64 };
#define EMPTY UINT32_MAX

void ids_fini(struct ids *ids)
{
    free(ids->cells);
    *ids = (struct ids){0};
}

static uint64_t id_at(const void *array, size_t element, uint32_t place)
{
    uint64_t id;

    memcpy(&id, (const char *)array + place * element, sizeof(id));
    return id;
}

/* The part of a cell that is of the hash. */
static uint32_t mark_of(uint64_t hash, uint32_t mask)
{
    return (uint32_t)(hash >> 32) & ~mask;
}

/* The cell of the id, or the empty one where it would go. */
static uint32_t cell_of(const struct ids *ids, const void *array, size_t element, uint64_t id)
{
    uint64_t hash = hash_mix(id);
    uint32_t mask = ids->mask, at = (uint32_t)hash & mask, mark = mark_of(hash, mask), cell;

    for (; (cell = ids->cells[at]) != EMPTY; at = (at + 1) & mask)
        if ((cell & ~mask) == mark && id_at(array, element, cell & mask) == id)
            break;
    return at;
}

uint32_t ids_find(const struct ids *ids, const void *array, size_t element, uint64_t id)
{
    if (!ids->cells)
        return IDS_NONE;
    uint32_t cell = ids->cells[cell_of(ids, array, element, id)];
    return cell == EMPTY ? IDS_NONE : cell & ids->mask;
}

static void put(struct ids *ids, uint64_t id, uint32_t place)
{
    uint64_t hash = hash_mix(id);
    uint32_t at = (uint32_t)hash & ids->mask;

    while (ids->cells[at] != EMPTY)
        at = (at + 1) & ids->mask;
    ids->cells[at] = mark_of(hash, ids->mask) | place;
    ids->count++;
}

/* Room for one more, at `place`. The last place is none, else a cell might look empty. */
static enum mc_status fit(struct ids *ids, const void *array, size_t element, uint32_t place)
{
    uint32_t cells = ids->cells ? ids->mask + 1 : CELLS_MIN;

    assert(place < UINT32_MAX / 2);
    while (place >= cells - 1 || ids->count >= cells / 4 * 3)
        cells *= 2;
    if (ids->cells && cells == ids->mask + 1)
        return MC_OK;
    struct ids bigger = {.cells = malloc(cells * sizeof(*bigger.cells)), .mask = cells - 1};
    if (!bigger.cells)
        return MC_ENOMEM;
    memset(bigger.cells, 0xff, cells * sizeof(*bigger.cells));
    for (uint32_t i = 0; ids->cells && i <= ids->mask; i++)
        if (ids->cells[i] != EMPTY)
            put(&bigger, id_at(array, element, ids->cells[i] & ids->mask), ids->cells[i] & ids->mask);
    free(ids->cells);
    *ids = bigger;
    return MC_OK;
}

enum mc_status ids_add(struct ids *ids, const void *array, size_t element, uint32_t place)
{
    if (fit(ids, array, element, place) != MC_OK)
        return MC_ENOMEM;
    put(ids, id_at(array, element, place), place);
    return MC_OK;
}

void ids_del(struct ids *ids, const void *array, size_t element, uint32_t place)
{
    uint32_t mask = ids->mask, hole;

    if (!ids->cells)
        return;
    hole = (uint32_t)hash_mix(id_at(array, element, place)) & mask;
    while (ids->cells[hole] != EMPTY && (ids->cells[hole] & mask) != place)
        hole = (hole + 1) & mask; /* another place may have the same id: two versions of a name */
    if (ids->cells[hole] == EMPTY)
        return;
    ids->count--;
    for (uint32_t at = (hole + 1) & mask; ids->cells[at] != EMPTY; at = (at + 1) & mask) {
        uint32_t home = (uint32_t)hash_mix(id_at(array, element, ids->cells[at] & mask)) & mask;

        /* It may go to the hole unless its home lies cyclically behind it, in (hole, at]. */
        if (((at - home) & mask) >= ((at - hole) & mask)) {
            ids->cells[hole] = ids->cells[at];
            hole = at;
        }
    }
    ids->cells[hole] = EMPTY;
}
