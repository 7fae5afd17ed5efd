/* cellmap.c - see cellmap.h. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "engine/llama/cellmap.h"

enum mc_status cellmap_init(struct cellmap *map, uint32_t pages, uint32_t seqs_max)
{
    *map = (struct cellmap){.pages = pages, .seqs_max = seqs_max};
    map->owner = malloc(pages * sizeof *map->owner);
    map->seqs = calloc(seqs_max, sizeof *map->seqs);
    if (!map->owner || !map->seqs) {
        cellmap_fini(map);
        return MC_ENOMEM;
    }
    for (uint32_t page = 0; page < pages; page++)
        map->owner[page] = -1;
    return MC_OK;
}

void cellmap_fini(struct cellmap *map)
{
    for (uint32_t seq = 0; map->seqs && seq < map->seqs_max; seq++)
        free(map->seqs[seq].pages);
    free(map->seqs);
    free(map->owner);
    *map = (struct cellmap){0};
}

static uint32_t pages_of(uint32_t length)
{
    return (length + CELLMAP_PAGE - 1) / CELLMAP_PAGE;
}

static bool reserve(struct cellmap_seq *s, uint32_t count)
{
    uint32_t *pages;

    if (count <= s->capacity)
        return true;
    pages = realloc(s->pages, (count + count / 2 + 8) * sizeof *pages);
    if (!pages)
        return false;
    s->pages = pages;
    s->capacity = count + count / 2 + 8;
    return true;
}

static void own(struct cellmap *map, uint32_t seq, uint32_t page)
{
    assert(map->owner[page] == -1);
    map->owner[page] = (int32_t)seq;
    map->seqs[seq].pages[map->seqs[seq].count++] = page;
}

/* Own spare pages in [from, to) until the sequence has `wanted`. */
static void own_spare(struct cellmap *map, uint32_t seq, uint32_t from, uint32_t to, uint32_t wanted)
{
    for (uint32_t page = from; page < to && map->seqs[seq].count < wanted; page++)
        if (map->owner[page] == -1)
            own(map, seq, page);
}

static int page_compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static uint32_t free_pages(const struct cellmap *map)
{
    uint32_t count = map->pages - map->top;

    for (uint32_t page = 0; page < map->top; page++)
        count += map->owner[page] == -1;
    return count;
}

enum mc_status cellmap_take(struct cellmap *map, uint32_t seq, uint32_t length)
{
    struct cellmap_seq *s = &map->seqs[seq];
    uint32_t wanted = pages_of(length), had = s->count, above, spare_end = map->top;

    if (wanted <= had)
        return MC_OK;
    if (wanted - had > free_pages(map))
        return MC_ENOSPC;
    if (!reserve(s, wanted))
        return MC_ENOMEM;
    above = had ? s->pages[had - 1] + 1 : 0;
    own_spare(map, seq, above, spare_end, wanted);
    while (s->count < wanted && map->top < map->pages)
        own(map, seq, map->top++);
    /* Out of order from here: tokens behind others lie below them. Right, but other bits than in order. */
    own_spare(map, seq, 0, spare_end, wanted);
    assert(s->count == wanted);
    /* the library fills free cells from the lowest up, so within one call the order must be ascending */
    qsort(s->pages + had, wanted - had, sizeof *s->pages, page_compare);
    return MC_OK;
}

uint32_t cellmap_cell(const struct cellmap *map, uint32_t seq, uint32_t position)
{
    const struct cellmap_seq *s = &map->seqs[seq];

    assert(position / CELLMAP_PAGE < s->count);
    return s->pages[position / CELLMAP_PAGE] * CELLMAP_PAGE + position % CELLMAP_PAGE;
}

uint32_t cellmap_run(const struct cellmap *map, uint32_t seq, uint32_t position, uint32_t n)
{
    const uint32_t *pages = map->seqs[seq].pages;
    uint32_t page = position / CELLMAP_PAGE, run = CELLMAP_PAGE - position % CELLMAP_PAGE;

    while (run < n && pages[page + 1] == pages[page] + 1) {
        run += CELLMAP_PAGE;
        page++;
    }
    return run < n ? run : n;
}

uint32_t cellmap_release(struct cellmap *map, uint32_t seq, uint32_t length)
{
    struct cellmap_seq *s = &map->seqs[seq];
    uint32_t keep = pages_of(length);

    for (uint32_t i = keep; i < s->count; i++)
        map->owner[s->pages[i]] = -1;
    if (keep < s->count)
        s->count = keep;
    while (map->top > 0 && map->owner[map->top - 1] == -1)
        map->top--;
    return map->top;
}
