/* heap_test.c - random adds, moves and deletes; what comes out must be the smallest of what an array holds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/heap.h"
#include "base/rng.h"

#define COUNT 300

static struct heap_node nodes[COUNT];

static uint64_t smallest(void)
{
    uint64_t best = UINT64_MAX;

    for (int i = 0; i < COUNT; i++)
        if (heap_has(&nodes[i]) && nodes[i].key < best)
            best = nodes[i].key;
    return best;
}

static void test_random(void **state)
{
    struct heap heap = {0};
    struct rng rng;
    size_t count = 0;

    rng_seed(&rng, 3);
    for (int step = 0; step < 20000; step++) {
        struct heap_node *node = &nodes[rng_below(&rng, COUNT)];
        uint64_t key = rng_below(&rng, 1000);

        if (!heap_has(node)) {
            assert_int_equal(heap_add(&heap, node, key), MC_OK);
            count++;
        } else if (rng_chance(&rng, 0.5)) {
            heap_move(&heap, node, key);
        } else {
            heap_del(&heap, node);
            count--;
        }
        assert_int_equal(heap.count, count);
        if (count)
            assert_int_equal(heap_top(&heap)->key, smallest());
        else
            assert_null(heap_top(&heap));
    }
    while (heap_top(&heap)) {
        assert_int_equal(heap_top(&heap)->key, smallest());
        heap_del(&heap, heap_top(&heap));
    }
    heap_del(&heap, &nodes[0]); /* harmless */
    heap_fini(&heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
