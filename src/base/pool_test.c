/* pool_test.c - items do not overlap, the ceiling holds, memory is reused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/pool.h"
#include "base/rng.h"

#define MAX 1000

static void test_ceiling_and_reuse(void **state)
{
    static uint8_t *items[MAX];
    struct pool pool;
    struct rng rng;
    size_t bytes;

    rng_seed(&rng, 1);
    pool_init(&pool, 56, 64, MAX);
    assert_int_equal(pool_bytes(&pool), 0);
    for (int i = 0; i < MAX; i++) {
        items[i] = pool_get(&pool);
        assert_non_null(items[i]);
        assert_int_equal((uintptr_t)items[i] % 16, 0);
        memset(items[i], i & 0xff, 56);
    }
    assert_null(pool_get(&pool));
    assert_int_equal(pool.used, MAX);
    bytes = pool_bytes(&pool);
    for (int i = 0; i < MAX; i++)
        for (int j = 0; j < 56; j++)
            assert_int_equal(items[i][j], i & 0xff);
    for (int step = 0; step < 10000; step++) {
        size_t at = rng_below(&rng, MAX);

        pool_put(&pool, items[at]);
        items[at] = pool_get_zero(&pool);
        assert_non_null(items[at]);
        assert_int_equal(items[at][55], 0);
    }
    assert_int_equal(pool_bytes(&pool), bytes);
    pool_fini(&pool);
}

static void test_alignment(void **state)
{
    struct pool pool;

    pool_init(&pool, 128, 0, 0);
    for (int i = 0; i < 2000; i++)
        assert_int_equal((uintptr_t)pool_get(&pool) % 64, 0);
    pool_fini(&pool);
    pool_init(&pool, 1, 0, 5); /* less than a link */
    for (int i = 0; i < 5; i++)
        assert_non_null(pool_get(&pool));
    assert_null(pool_get(&pool));
    pool_fini(&pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ceiling_and_reuse),
        cmocka_unit_test(test_alignment),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
