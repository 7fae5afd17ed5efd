/* crc_test.c - every back end this machine can run against the bitwise oracle, over random lengths, alignments and start values.
 *
 * Also the published check value, combining, and that a copy changes no byte beside its destination. Seeds are fixed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/crc.h"
#include "base/rng.h"

#define AREA (9u << 20)

static uint8_t *area, *copy;

static int setup(void **state)
{
    struct rng rng;

    area = malloc(AREA);
    copy = malloc(AREA);
    assert_non_null(area);
    assert_non_null(copy);
    rng_seed(&rng, 42);
    rng_bytes(&rng, area, AREA);
    return 0;
}

static int teardown(void **state)
{
    free(area);
    free(copy);
    crc_backend_force(CRC_AUTO);
    return 0;
}

static void test_known_values(void **state)
{
    static const uint8_t zeros[32];

    assert_int_equal(crc32c_oracle(0, "123456789", 9), 0xe3069283);
    assert_int_equal(crc32c_oracle(0, zeros, 32), 0x8a9136aa); /* RFC 3720, B.4 */
    assert_int_equal(crc32c(0, NULL, 0), 0);
}

static void check(size_t from, size_t to, size_t len, uint32_t start)
{
    uint32_t expect = crc32c_oracle(start, area + from, len);
    uint8_t before = 0x5a, after = 0xa5;

    assert_int_equal(crc32c(start, area + from, len), expect);
    copy[to - 1] = before;
    copy[to + len] = after;
    assert_int_equal(crc32c_copy(start, copy + to, area + from, len), expect);
    assert_int_equal(memcmp(copy + to, area + from, len), 0);
    assert_int_equal(copy[to - 1], before);
    assert_int_equal(copy[to + len], after);
}

static void check_backend(enum crc_backend backend)
{
    struct rng rng;

    if (!crc_backend_force(backend)) {
        print_message("back end %s cannot run here: skipped\n", crc_backend_name(backend));
        return;
    }
    assert_int_equal(crc_backend_used(), backend);
    rng_seed(&rng, (uint64_t)backend);
    for (size_t len = 0; len < 600; len++)
        check(rng_below(&rng, 64), 1 + rng_below(&rng, 64), len, (uint32_t)rng_u64(&rng));
    for (int i = 0; i < 60; i++)
        check(rng_below(&rng, 64), 1 + rng_below(&rng, 64), rng_below(&rng, 70000), (uint32_t)rng_u64(&rng));
    for (int i = 0; i < 3; i++) /* long enough for streaming stores */
        check(
            rng_below(&rng, 64), 1 + rng_below(&rng, 64), (4u << 20) + rng_below(&rng, 1000), (uint32_t)rng_u64(&rng));
}

static void test_table(void **state)
{
    check_backend(CRC_TABLE);
}

static void test_sse42(void **state)
{
    check_backend(CRC_SSE42);
}

static void test_vpclmul(void **state)
{
    check_backend(CRC_VPCLMUL);
}

static void test_vpclmul512(void **state)
{
    check_backend(CRC_VPCLMUL512);
}

static void test_armv8(void **state)
{
    check_backend(CRC_ARMV8);
}

static void test_pieces(void **state)
{
    struct rng rng;

    rng_seed(&rng, 5);
    for (int i = 0; i < 200; i++) {
        size_t len = rng_below(&rng, 20000), cut = rng_below(&rng, len + 1);
        uint32_t whole = crc32c(0, area, len), first = crc32c(0, area, cut), second = crc32c(0, area + cut, len - cut);

        assert_int_equal(crc32c(first, area + cut, len - cut), whole);
        assert_int_equal(crc32c_combine(first, second, len - cut), whole);
    }
    /* Appending x times y is the same as appending y, x times; also when the length in bits passes 64 bits. */
    assert_int_equal(crc32c_combine(crc32c_combine(7, 0, 1ull << 61), 0, 1ull << 61), crc32c_combine(7, 0, 1ull << 62));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_values),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_sse42),
        cmocka_unit_test(test_vpclmul),
        cmocka_unit_test(test_vpclmul512),
        cmocka_unit_test(test_armv8),
        cmocka_unit_test(test_pieces),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
