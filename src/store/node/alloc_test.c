/* alloc_test.c - goal: space is neither lost nor given twice, and fragmentation never makes an allocation fail (R9).
 * Method: random runs with a full audit of the book-keeping now and then, and a shadow map of who owns which grain; then a
 * million allocate/evict cycles of 4 KiB to 64 MiB in a pool kept 10 % free, where room between neighbours is made by eviction
 * as a node does it. Memory is never touched, so the pool may be as large as it likes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "store/node/alloc.h"
#include "store/evict/evict.h"

#define KIB 1024ull
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

static void limits_are_told(void **state)
{
    struct alloc *a = alloc_create(0);
    uint32_t segment, block;

    assert_non_null(a);
    assert_int_equal(alloc_segment_add(a, 0, &segment), MC_EINVAL);
    assert_int_equal(alloc_segment_add(a, 100, &segment), MC_EINVAL);
    assert_int_equal(alloc_segment_add(a, ALLOC_SEGMENT_MAX + 64, &segment), MC_EINVAL);
    assert_int_equal(alloc_get(a, 64, 0, &block), MC_ETOOBIG);
    assert_int_equal(alloc_segment_add(a, 4096, &segment), MC_OK);
    assert_int_equal(segment, 0);
    assert_int_equal(alloc_get(a, 4097, 0, &block), MC_ETOOBIG);
    assert_int_equal(alloc_get(a, 4096, 7, &block), MC_OK);
    assert_int_equal(alloc_get(a, 1, 8, &segment), MC_ENOSPC);
    struct alloc_place place = alloc_where(a, block);
    assert_int_equal(place.offset, 0);
    assert_int_equal(place.length, 4096);
    assert_int_equal(place.owner, 7);
    alloc_put(a, block);
    assert_int_equal(alloc_free_bytes(a), 4096);
    assert_true(alloc_audit(a));
    alloc_destroy(a);

    a = alloc_create(2);
    assert_int_equal(alloc_segment_add(a, 4096, &segment), MC_OK);
    assert_int_equal(alloc_get(a, 64, 0, &block), MC_OK);
    assert_int_equal(alloc_get(a, 64, 0, &segment), MC_ENOMEM); /* a third block is beyond the bound */
    alloc_put(a, block);
    assert_true(alloc_audit(a));
    alloc_destroy(a);
}

/* Small ones from the left of the first segment, large ones from the right of the last. */
static void sizes_are_kept_apart(void **state)
{
    struct alloc *a = alloc_create(0);
    uint32_t segment, small, large;

    assert_int_equal(alloc_segment_add(a, 64 * MIB, &segment), MC_OK);
    assert_int_equal(alloc_segment_add(a, 64 * MIB, &segment), MC_OK);
    assert_int_equal(alloc_get(a, 4 * KIB, 0, &small), MC_OK);
    assert_int_equal(alloc_get(a, 4 * MIB, 0, &large), MC_OK);
    assert_int_equal(alloc_where(a, small).segment, 0);
    assert_int_equal(alloc_where(a, small).offset, 0);
    assert_int_equal(alloc_where(a, large).segment, 1);
    assert_int_equal(alloc_where(a, large).offset, 60 * MIB);
    alloc_destroy(a);
}

enum { GRAINS = 4096, BLOCKS = 600 };

static void nothing_overlaps(void **state)
{
    static uint8_t owned[2][GRAINS];
    static uint32_t blocks[BLOCKS];
    static bool used[BLOCKS];
    struct alloc *a = alloc_create(0);
    struct rng rng;
    uint32_t segment;

    memset(owned, 0, sizeof(owned));
    memset(used, 0, sizeof(used));
    rng_seed(&rng, 11);
    for (int i = 0; i < 2; i++)
        assert_int_equal(alloc_segment_add(a, GRAINS * ALLOC_GRAIN, &segment), MC_OK);
    for (int step = 0; step < 200000; step++) {
        uint32_t i = (uint32_t)rng_below(&rng, BLOCKS);

        if (used[i]) {
            struct alloc_place place = alloc_where(a, blocks[i]);

            assert_int_equal(place.owner, i);
            memset(&owned[place.segment][place.offset / ALLOC_GRAIN], 0, place.length / ALLOC_GRAIN);
            alloc_put(a, blocks[i]);
            used[i] = false;
        } else if (alloc_get(a, 1 + rng_below(&rng, 40 * ALLOC_GRAIN), i, &blocks[i]) == MC_OK) {
            struct alloc_place place = alloc_where(a, blocks[i]);
            uint8_t *grain = &owned[place.segment][place.offset / ALLOC_GRAIN];

            for (uint64_t g = 0; g < place.length / ALLOC_GRAIN; g++) {
                assert_int_equal(grain[g], 0);
                grain[g] = 1;
            }
            used[i] = true;
        }
        if (step % 5000 == 0)
            assert_true(alloc_audit(a));
    }
    for (uint32_t i = 0; i < BLOCKS; i++)
        if (used[i])
            alloc_put(a, blocks[i]);
    assert_true(alloc_audit(a));
    assert_int_equal(alloc_used_blocks(a), 0);
    assert_int_equal(alloc_largest_free(a), GRAINS * ALLOC_GRAIN);
    alloc_destroy(a);
}

/* ---- making room ---- */

struct costs {
    uint64_t of[64];
};

static uint64_t cost_of(void *arg, uint32_t owner, uint64_t length)
{
    return ((struct costs *)arg)->of[owner];
}

static void plan_takes_the_cheapest_run_around_pins(void **state)
{
    struct alloc *a = alloc_create(0);
    struct costs costs;
    struct alloc_run run;
    uint32_t segment, blocks[16], owner, count = 0, taken;

    assert_int_equal(alloc_segment_add(a, 16 * 4 * KIB, &segment), MC_OK);
    for (uint32_t i = 0; i < 16; i++) {
        assert_int_equal(alloc_get(a, 4 * KIB, i, &blocks[i]), MC_OK);
        costs.of[i] = 10 + i;
    }
    /* three blocks that contain block 8: 6..8 are the cheapest */
    assert_int_equal(alloc_plan(a, 12 * KIB, blocks[8], cost_of, &costs, &run), MC_OK);
    assert_int_equal(run.first, blocks[6]);
    assert_int_equal(run.cost, 16 + 17 + 18);
    /* 7 is pinned: only 8..10 contain 8 */
    costs.of[7] = ALLOC_NEVER;
    assert_int_equal(alloc_plan(a, 12 * KIB, blocks[8], cost_of, &costs, &run), MC_OK);
    assert_int_equal(run.first, blocks[8]);
    /* 9 too: none around 8, so the first run anywhere */
    costs.of[9] = ALLOC_NEVER;
    assert_int_equal(alloc_plan(a, 12 * KIB, blocks[8], cost_of, &costs, &run), MC_OK);
    assert_int_equal(run.first, blocks[0]);
    struct alloc_run_iter it = alloc_run_begin(&run);
    while (alloc_run_next(a, &it, &owner))
        assert_int_equal(owner, count++);
    assert_int_equal(count, 3);
    for (uint32_t i = 0; i < 3; i++)
        alloc_put(a, blocks[i]);
    assert_int_equal(alloc_take(a, 0, 0, 12 * KIB, 40, &taken), MC_OK);
    assert_int_equal(alloc_take(a, 0, 0, 64, 40, &taken), MC_ENOSPC);
    assert_true(alloc_audit(a));
    for (uint32_t i = 0; i < 64; i++)
        costs.of[i] = ALLOC_NEVER;
    assert_int_equal(alloc_plan(a, 12 * KIB, blocks[8], cost_of, &costs, &run), MC_ENOSPC);
    alloc_destroy(a);
}

/* ---- R9 ---- */

enum { OBJECTS_MAX = 1 << 20 };

struct pool {
    struct alloc *alloc;
    struct evict *evict;
    uint32_t *block; /* by slot; ALLOC_NONE: empty */
    uint32_t *free_slots;
    uint32_t free_count;
    uint32_t *doomed;
    uint64_t now, planned, planned_bytes, evicted_bytes, put_bytes;
};

static void pool_evict(struct pool *p, uint32_t slot)
{
    p->evicted_bytes += alloc_where(p->alloc, p->block[slot]).length;
    alloc_put(p->alloc, p->block[slot]);
    evict_remove(p->evict, slot, slot, EVICT_EVICTED, p->now);
    p->block[slot] = ALLOC_NONE;
    p->free_slots[p->free_count++] = slot;
}

static uint64_t cost_bytes(void *arg, uint32_t owner, uint64_t length)
{
    return length;
}

/* Room is there (10 % are free) but not in one piece: clear the neighbourhood of what would go next. */
static enum mc_status pool_clear_run(struct pool *p, uint64_t size, uint32_t slot, uint32_t *block)
{
    struct alloc_run run;
    uint32_t near = evict_victim(p->evict, p->now), owner, count = 0;
    enum mc_status status = alloc_plan(p->alloc, size, p->block[near], cost_bytes, NULL, &run);

    if (status != MC_OK)
        return status;
    struct alloc_place start = alloc_where(p->alloc, run.first);
    struct alloc_run_iter it = alloc_run_begin(&run);
    while (alloc_run_next(p->alloc, &it, &owner))
        p->doomed[count++] = owner;
    for (uint32_t i = 0; i < count; i++)
        pool_evict(p, p->doomed[i]);
    p->planned++;
    p->planned_bytes += run.cost;
    return alloc_take(p->alloc, start.segment, start.offset, size, slot, block);
}

static uint64_t log_uniform(struct rng *rng, uint64_t min, unsigned doublings)
{
    double x = rng_double(rng) * doublings;
    unsigned whole = (unsigned)x;

    return (uint64_t)((double)(min << whole) * (1 + (x - whole)));
}

static void no_failure_with_tenth_free(void **state)
{
    const uint64_t capacity = 16 * GIB, reserve = capacity / 10;
    struct pool p = {.alloc = alloc_create(0)};
    struct rng rng;
    uint64_t failures = 0, scattered = 0;
    uint32_t segment;

    p.block = malloc(OBJECTS_MAX * sizeof(uint32_t));
    p.free_slots = malloc(OBJECTS_MAX * sizeof(uint32_t));
    p.doomed = malloc(OBJECTS_MAX * sizeof(uint32_t));
    assert_true(p.alloc && p.block && p.free_slots && p.doomed);
    assert_int_equal(evict_create(evict_policies[0], OBJECTS_MAX, EVICT_UNKNOWN, &p.evict), MC_OK);
    for (uint32_t i = 0; i < OBJECTS_MAX; i++) {
        p.block[i] = ALLOC_NONE;
        p.free_slots[p.free_count++] = OBJECTS_MAX - 1 - i;
    }
    for (int i = 0; i < 4; i++)
        assert_int_equal(alloc_segment_add(p.alloc, capacity / 4, &segment), MC_OK);
    rng_seed(&rng, 5);

    for (p.now = 1; p.now <= 1000000; p.now++) {
        uint64_t size = log_uniform(&rng, 4 * KIB, 14); /* 4 KiB .. 64 MiB */
        uint32_t slot, block;

        while (alloc_free_bytes(p.alloc) < reserve + size)
            pool_evict(&p, evict_victim(p.evict, p.now));
        slot = p.free_slots[--p.free_count];
        enum mc_status status = alloc_get(p.alloc, size, slot, &block);
        if (status == MC_ENOSPC) {
            scattered++;
            status = pool_clear_run(&p, size, slot, &block);
        }
        failures += status != MC_OK;
        if (status != MC_OK) {
            p.free_slots[p.free_count++] = slot;
            continue;
        }
        p.block[slot] = block;
        p.put_bytes += size;
        struct evict_object object = {.id = slot, .size = size, .parent = EVICT_NONE};
        assert_int_equal(evict_add(p.evict, slot, &object, p.now), MC_OK);
        /* Reads change the order of eviction from that of arrival: holes open all over. */
        for (int i = 0; i < 2; i++) {
            uint32_t read = (uint32_t)rng_below(&rng, 4096);

            if (p.block[read] != ALLOC_NONE)
                evict_touch(p.evict, read, p.now);
        }
        if (p.now % 100000 == 0)
            assert_true(alloc_audit(p.alloc));
    }
    print_message("cycles 1000000 failures %llu, no single free block %llu, evicted for it %.2f %% of bytes put\n",
        (unsigned long long)failures, (unsigned long long)scattered,
        100.0 * (double)p.planned_bytes / (double)p.put_bytes);
    assert_int_equal(failures, 0);
    assert_true(p.planned_bytes * 10 < p.put_bytes); /* making room costs less than a tenth of what is put */
    evict_destroy(p.evict);
    alloc_destroy(p.alloc);
    free(p.block);
    free(p.free_slots);
    free(p.doomed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits_are_told),
        cmocka_unit_test(sizes_are_kept_apart),
        cmocka_unit_test(nothing_overlaps),
        cmocka_unit_test(plan_takes_the_cheapest_run_around_pins),
        cmocka_unit_test(no_failure_with_tenth_free),
    };
    return cmocka_run_group_tests_name("alloc", tests, NULL, NULL);
}
