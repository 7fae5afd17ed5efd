/* hash_test.c - published vectors, the fixed values our protocol relies on, hex, random numbers and the clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/rng.h"

/* Shards are chosen by this function on every machine of a cluster: these values must never change. */
static void test_hash64_is_fixed(void **state)
{
    uint8_t bytes[20];

    for (int i = 0; i < 20; i++)
        bytes[i] = (uint8_t)i;
    assert_int_equal(hash64("", 0, 0), 0x1653806f2353e1d6);
    assert_int_equal(hash64(bytes, 16, 0), 0x3f431788373fc8f9);
    assert_int_equal(hash64(bytes, 20, 1), 0xf0d5a423b894699e);
}

static void test_hash64_spreads(void **state)
{
    unsigned buckets[64] = {0};

    for (uint64_t i = 0; i < 64000; i++)
        buckets[hash64(&i, sizeof(i), 7) % 64]++;
    for (int i = 0; i < 64; i++)
        assert_in_range(buckets[i], 850, 1150);
    assert_true(hash64("a", 1, 1) != hash64("a", 1, 2));
    assert_int_equal(hash_seed(), hash_seed());
}

static void test_sha256(void **state)
{
    struct slice parts[] = {slice_str("a"), slice_of(NULL, 0), slice_str("bc")};
    struct sha256_state *sha = sha256_create();
    uint8_t digest[SHA256_SIZE];
    char hex[65];

    assert_non_null(sha);
    for (int i = 0; i < 3; i++) {
        if (i == 0)
            sha256("abc", 3, digest);
        else if (i == 1)
            sha256_parts(parts, 3, digest);
        else {
            sha256_add(sha, "junk", 4);
            sha256_reset(sha);
            sha256_add(sha, "ab", 2);
            sha256_add(sha, "c", 1);
            sha256_finish(sha, digest);
        }
        hex_encode(hex, digest, sizeof(digest));
        assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
    sha256_destroy(sha);
}

static void test_hex(void **state)
{
    uint8_t bytes[3];

    assert_int_equal(hex_decode(bytes, 3, "00fFa9"), MC_OK);
    assert_int_equal(bytes[1], 0xff);
    assert_int_equal(hex_decode(bytes, 3, "00fFa"), MC_EINVAL);
    assert_int_equal(hex_decode(bytes, 3, "00fFag"), MC_EINVAL);
}

static void test_rng_is_fixed(void **state)
{
    struct rng rng;
    double sum = 0;
    uint8_t bytes[11] = {0};

    rng_seed(&rng, 1);
    assert_int_equal(rng_u64(&rng), 0xb3f2af6d0fc710c5);
    for (int i = 0; i < 10000; i++) {
        double x = rng_double(&rng);

        assert_true(x >= 0 && x < 1);
        sum += rng_exponential(&rng, 2.0);
        assert_true(rng_below(&rng, 7) < 7);
    }
    assert_true(sum / 10000 > 1.9 && sum / 10000 < 2.1);
    assert_int_equal(rng_below(&rng, 1), 0);
    assert_true(rng_chance(&rng, 1.0));
    assert_false(rng_chance(&rng, 0.0));
    rng_bytes(&rng, bytes, 10);
    assert_int_equal(bytes[10], 0);
}

static void test_random_bytes(void **state)
{
    uint8_t a[16] = {0}, b[16] = {0};

    random_bytes(a, 16);
    random_bytes(b, 16);
    assert_memory_not_equal(a, b, 16);
}

static void test_deadlines(void **state)
{
    uint64_t now = 5 * NS_PER_S;

    assert_int_equal(deadline_after_ms(now, 10), now + 10 * NS_PER_MS);
    assert_int_equal(deadline_after_ms(now, UINT64_MAX), DEADLINE_NONE);
    assert_true(deadline_passed(now, now));
    assert_false(deadline_passed(DEADLINE_NONE, UINT64_MAX));
    assert_int_equal(deadline_left_ns(now - 1, now), 0);
    assert_int_equal(deadline_to_wire(now, now), 0);
    assert_int_equal(deadline_to_wire(now + 1, now), 1); /* rounded up: 0 means passed */
    assert_int_equal(deadline_to_wire(DEADLINE_NONE, now), DEADLINE_MS_NONE);
    assert_int_equal(deadline_to_wire(now + (1ull << 62), now), DEADLINE_MS_NONE);
    assert_int_equal(deadline_from_wire(DEADLINE_MS_NONE, now), DEADLINE_NONE);
    assert_int_equal(deadline_from_wire(7, now), now + 7 * NS_PER_MS);
    assert_true(now_ns() <= now_ns());
    assert_true(wall_ms() > 1700000000000ull);
}

static void test_status_words(void **state)
{
    assert_string_equal(mc_status_str(MC_OK), "ok");
    assert_string_equal(mc_status_str(MC_ETIMEDOUT), "timed out");
    assert_string_equal(mc_status_str((enum mc_status)1234), "unknown status");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hash64_is_fixed),
        cmocka_unit_test(test_hash64_spreads),
        cmocka_unit_test(test_sha256),
        cmocka_unit_test(test_hex),
        cmocka_unit_test(test_rng_is_fixed),
        cmocka_unit_test(test_random_bytes),
        cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_status_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
