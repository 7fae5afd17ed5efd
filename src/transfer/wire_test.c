/* wire_test.c - region keys and message bodies: golden bytes, round trips, every truncation and every flipped bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "base/hash.h"
#include "transfer/te.h"
#include "transfer/wire.h"

static const struct te_key sample = {
    .uuid = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
    .epoch = 7,
    .kind = TE_KIND_MEMFD,
    .flags = MC_REGION_READ,
    .segment = 3,
    .id = 0x1122334455667788,
    .len = 1 << 20,
    .base = 4096,
};

/* These bytes may lie in a database of somebody: they stay. */
static void key_golden(void **state)
{
    struct mc_region_key key;
    char hex[129];

    te_key_encode(&sample, &key);
    hex_encode(hex, key.bytes, 60);
    assert_string_equal(hex,
        "4d43524b010101000102030405060708090a0b0c0d0e0f10070000000300000088776655443322110000100000000000"
        "001000000000000000000000");
}

static void key_flips(void **state)
{
    struct mc_region_key key;
    struct te_key out;
    const char *bad;

    te_key_encode(&sample, &key);
    assert_int_equal(te_key_decode(&key, &out, NULL), MC_OK);
    assert_memory_equal(&out, &sample, sizeof(out));
    for (int bit = 0; bit < 512; bit++) {
        key.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        bad = NULL;
        assert_int_equal(te_key_decode(&key, &out, &bad), MC_EINVAL);
        assert_non_null(bad);
        key.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static void request_round_trip(void **state)
{
    struct wire_range in[] = {{9, 100, 4096}, {10, 0, 1}}, out[WIRE_RANGES_MAX];
    struct wire_request a = {.ranges = in, .count = 2, .not_after = 12345, .fence = 3}, b = {.ranges = out};
    struct buf body;
    const char *bad;

    buf_init(&body, 1024);
    wire_request_encode(&a, &body);
    assert_int_equal(wire_request_decode(buf_slice(&body), &b, &bad), MC_OK);
    assert_int_equal(b.count, 2);
    assert_int_equal(b.bytes, 4097);
    assert_int_equal(b.not_after, 12345);
    assert_int_equal(b.fence, 3);
    assert_memory_equal(&out[1].offset, &in[1].offset, sizeof(in[1].offset));
    for (size_t len = 0; len < 6 + 2 * WIRE_RANGE_SIZE; len++)
        assert_int_not_equal(wire_request_decode(slice_of(body.data, len), &b, &bad), MC_OK);
    buf_fini(&body);
}

static void request_limits(void **state)
{
    struct wire_range in[2] = {{9, 0, WIRE_BYTES_MAX}, {9, 0, 1}}, out[WIRE_RANGES_MAX];
    struct wire_request a = {.ranges = in, .count = 2}, b = {.ranges = out};
    struct buf body;
    const char *bad = NULL;

    buf_init(&body, 1024);
    wire_request_encode(&a, &body);
    assert_int_equal(wire_request_decode(buf_slice(&body), &b, &bad), MC_EPROTO);
    assert_string_equal(bad, "length");
    buf_fini(&body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(key_golden),
        cmocka_unit_test(key_flips),
        cmocka_unit_test(request_round_trip),
        cmocka_unit_test(request_limits),
    };

    return cmocka_run_group_tests_name("wire", tests, NULL, NULL);
}
