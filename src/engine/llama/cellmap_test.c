/* cellmap_test.c - the map of cells against a model of the library that knows only "the lowest free cell".
 *
 * The model is an array of cells; a token goes into the lowest free one. The test plays cells.c's calls (open, fill, close,
 * cut) for random sequences that grow, shrink and end, and checks after each that every token lies where the map says, and
 * that no cell below top is free. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "engine/llama/cellmap.h"

enum { PAGES = 40, SEQS = 6, CELLS = PAGES * CELLMAP_PAGE, FREE = -1, PLUG = -2 };

static struct cellmap map;
static struct {
    int32_t seq; /* FREE, PLUG or a sequence */
    uint32_t position;
} cells[CELLS];
static uint32_t lengths[SEQS];

/* The library: next token into the lowest free cell. */
static uint32_t put(int32_t seq, uint32_t position)
{
    for (uint32_t i = 0; i < CELLS; i++)
        if (cells[i].seq == FREE) {
            cells[i].seq = seq;
            cells[i].position = position;
            return i;
        }
    fail_msg("no free cell");
    return 0;
}

static void plug(uint32_t first, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(put(PLUG, first + i), first + i);
}

static void unplug(uint32_t first, uint32_t count)
{
    for (uint32_t i = first; i < first + count; i++)
        if (cells[i].seq == PLUG)
            cells[i].seq = FREE;
}

static void check(void)
{
    uint32_t owned = 0;

    for (uint32_t i = 0; i < map.top * CELLMAP_PAGE; i++)
        assert_int_not_equal(cells[i].seq, FREE);
    for (uint32_t i = map.top * CELLMAP_PAGE; i < CELLS; i++)
        assert_int_equal(cells[i].seq, FREE);
    for (uint32_t seq = 0; seq < SEQS; seq++) {
        assert_int_equal(map.seqs[seq].count, (lengths[seq] + CELLMAP_PAGE - 1) / CELLMAP_PAGE);
        owned += map.seqs[seq].count;
        for (uint32_t p = 0; p < lengths[seq]; p++) {
            uint32_t cell = cellmap_cell(&map, seq, p);

            assert_int_equal(cells[cell].seq, (int32_t)seq);
            assert_int_equal(cells[cell].position, p);
        }
    }
    for (uint32_t p = 0; p < PAGES; p++)
        owned -= map.owner[p] >= 0;
    assert_int_equal(owned, 0);
}

/* As cells_open() of cells.c. */
static enum mc_status open_cells(uint32_t seq, uint32_t count, uint32_t *top_before)
{
    uint32_t length = lengths[seq], run;
    enum mc_status st;

    *top_before = map.top;
    st = cellmap_take(&map, seq, length + count);
    for (uint32_t at = length; st == MC_OK && at < length + count; at += run) {
        uint32_t cell = cellmap_cell(&map, seq, at);

        run = cellmap_run(&map, seq, at, length + count - at);
        if (cell < *top_before * CELLMAP_PAGE)
            unplug(cell, run < *top_before * CELLMAP_PAGE - cell ? run : *top_before * CELLMAP_PAGE - cell);
    }
    return st;
}

/* As cells_cut(). */
static void cut(uint32_t seq, uint32_t length, uint32_t end)
{
    struct cellmap_seq *s = &map.seqs[seq];
    uint32_t before = map.top, count = s->count, top;

    for (uint32_t i = 0; i < CELLS; i++)
        if (cells[i].seq == (int32_t)seq && cells[i].position >= length)
            cells[i].seq = FREE;
    lengths[seq] = length;
    top = cellmap_release(&map, seq, length);
    if (top == 0) {
        for (uint32_t i = 0; i < CELLS; i++)
            cells[i].seq = FREE;
        return;
    }
    unplug(top * CELLMAP_PAGE, (before - top) * CELLMAP_PAGE);
    for (uint32_t page = 0; page < top; page++)
        for (uint32_t i = length / CELLMAP_PAGE; i < count; i++) {
            uint32_t first = i * CELLMAP_PAGE > length ? i * CELLMAP_PAGE : length;
            uint32_t last = (i + 1) * CELLMAP_PAGE < end ? (i + 1) * CELLMAP_PAGE : end;

            if (s->pages[i] == page && first < last)
                plug(page * CELLMAP_PAGE + first % CELLMAP_PAGE, last - first);
        }
}

/* Prefill or import of `count` tokens; `fails` as a cancelled one. */
static enum mc_status grow(uint32_t seq, uint32_t count, bool fails)
{
    uint32_t length = lengths[seq], top_before, end = length + count;
    enum mc_status st = open_cells(seq, count, &top_before);

    if (st != MC_OK)
        return st;
    if (fails) {
        cut(seq, length, end);
        return MC_OK;
    }
    for (uint32_t i = length; i < end; i++)
        put((int32_t)seq, i);
    lengths[seq] = end;
    uint32_t last = cellmap_cell(&map, seq, end - 1);
    if (end % CELLMAP_PAGE && last >= top_before * CELLMAP_PAGE)
        plug(last + 1, CELLMAP_PAGE - end % CELLMAP_PAGE);
    return MC_OK;
}

static int by_cell(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;

    return (x[0] > y[0]) - (x[0] < y[0]);
}

/* One token for each sequence that has any. */
static void step(bool fails)
{
    uint32_t steps[SEQS][2], count = 0;

    for (uint32_t seq = 0; seq < SEQS; seq++) {
        uint32_t top = map.top;

        if (!lengths[seq] || cellmap_take(&map, seq, lengths[seq] + 1) != MC_OK)
            continue;
        if (map.top > top)
            plug(top * CELLMAP_PAGE, CELLMAP_PAGE);
        steps[count][0] = cellmap_cell(&map, seq, lengths[seq]);
        steps[count++][1] = seq;
    }
    qsort(steps, count, sizeof steps[0], by_cell);
    for (uint32_t i = 0; i < count; i++)
        unplug(steps[i][0], 1);
    for (uint32_t i = 0; i < count; i++)
        if (!fails) {
            assert_int_equal(put((int32_t)steps[i][1], lengths[steps[i][1]]), steps[i][0]);
            lengths[steps[i][1]]++;
        }
    for (uint32_t i = 0; i < count && fails; i++)
        cut(steps[i][1], lengths[steps[i][1]], lengths[steps[i][1]] + 1);
}

static void random_life(void **state)
{
    uint32_t refused = 0;
    struct rng rng;

    assert_int_equal(cellmap_init(&map, PAGES, SEQS), MC_OK);
    for (uint32_t i = 0; i < CELLS; i++)
        cells[i].seq = FREE;
    rng_seed(&rng, 23);
    for (int i = 0; i < 6000; i++) {
        uint32_t seq = (uint32_t)rng_below(&rng, SEQS), count = 1 + (uint32_t)rng_below(&rng, 400);
        bool fails = rng_chance(&rng, 0.1);

        if (lengths[seq] % CELLMAP_PAGE && count > CELLMAP_PAGE - lengths[seq] % CELLMAP_PAGE)
            count = CELLMAP_PAGE - lengths[seq] % CELLMAP_PAGE; /* the rule of cells_open() */
        switch (rng_below(&rng, 8)) {
        case 0: cut(seq, 0, lengths[seq]); break;
        case 1:
        case 2: refused += grow(seq, count, fails) == MC_ENOSPC; break;
        default: step(fails);
        }
        if (i % 13 == 0)
            check();
    }
    check();
    assert_true(refused > 10);
    for (uint32_t seq = 0; seq < SEQS; seq++)
        cut(seq, 0, lengths[seq]);
    check();
    assert_int_equal(map.top, 0);
    cellmap_fini(&map);
}

/* What bit-equality wants: a sequence alone lies in order from cell 0, beside others in ascending whole pages. */
static void ascending(void **state)
{
    assert_int_equal(cellmap_init(&map, PAGES, SEQS), MC_OK);
    memset(lengths, 0, sizeof lengths);
    for (uint32_t i = 0; i < CELLS; i++)
        cells[i].seq = FREE;
    assert_int_equal(grow(0, 100, false), MC_OK);
    for (uint32_t p = 0; p < 100; p++)
        assert_int_equal(cellmap_cell(&map, 0, p), p);
    assert_int_equal(grow(1, 300, false), MC_OK);
    assert_int_equal(cellmap_cell(&map, 1, 0), 128); /* the next page, not cell 100 */
    step(false);
    assert_int_equal(cellmap_cell(&map, 0, 100), 100);
    assert_int_equal(cellmap_cell(&map, 1, 300), 428);
    cut(0, 0, lengths[0]);
    assert_int_equal(grow(2, 200, false), MC_OK); /* two spare pages below, two unused above */
    assert_int_equal(cellmap_cell(&map, 2, 0), 0);
    assert_int_equal(cellmap_cell(&map, 2, 128), map.seqs[1].pages[4] * CELLMAP_PAGE + 64);
    check();
    cellmap_fini(&map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(random_life), cmocka_unit_test(ascending)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
