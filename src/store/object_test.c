/* object_test.c - goal: an object is read back exactly as it was sealed, or not at all.
 * Method: objects of many shapes (planes, names, no bytes); then 10,000 random bit flips each in header and table, none of which
 * may parse, and in the payload, none of which may verify; truncation at every length; ranges against a plain oracle. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/crc.h"
#include "base/rng.h"
#include "store/object.h"

struct made {
    uint8_t *bytes; /* header and payload */
    struct object_plan plan;
    struct object_header header;
    struct store_key key;
};

static struct made make(
    struct rng *rng, const char *name, uint64_t length, const uint64_t *planes, uint32_t plane_count)
{
    struct made m = {0};
    struct mc_key key;
    uint8_t id[16];

    rng_bytes(rng, id, 16);
    mc_key_block(&key, id);
    if (name)
        mc_key_named(&key, name, strlen(name));
    assert_int_equal(store_key_from(3, &key, &m.key), MC_OK);
    assert_int_equal(object_plan(&m.key, length, planes, plane_count, &m.plan), MC_OK);
    assert_int_equal(m.plan.header_len % OBJECT_ALIGN, 0);
    m.bytes = aligned_alloc(64, (object_size(&m.plan) + 63) / 64 * 64);
    assert_non_null(m.bytes);
    rng_bytes(rng, m.bytes, object_size(&m.plan));

    uint32_t *crcs = calloc(m.plan.chunks + 1, sizeof(*crcs));
    struct object_walk walk = {0};
    uint64_t end = 0;
    while (object_walk_next(&m.plan, &walk)) {
        assert_int_equal(walk.offset, end);
        assert_true(walk.length > 0 && walk.length <= MC_CHUNK_MAX);
        crcs[walk.index] = crc32c(0, m.bytes + m.plan.header_len + walk.offset, walk.length);
        end += walk.length;
    }
    assert_int_equal(end, length);
    m.header = (struct object_header){.key = m.key,
        .generation = rng_u64(rng),
        .version = rng_u64(rng),
        .flags = 1,
        .depth = 7,
        .tokens = 64,
        .geometry = rng_u64(rng),
        .created_ms = rng_u64(rng)};
    rng_bytes(rng, m.header.parent, 16);
    object_seal(m.bytes, &m.plan, &m.header, crcs);
    free(crcs);
    return m;
}

static void comes_back_as_sealed(void **state)
{
    static const uint64_t planes[] = {64, 65536, 65537, 3 * 65536 + 1, 128};
    const uint64_t sum = 64 + 65536 + 65537 + 3 * 65536 + 1 + 128;
    struct rng rng;

    rng_seed(&rng, 1);
    for (int shape = 0; shape < 4; shape++) {
        struct made m = shape == 0   ? make(&rng, NULL, sum, planes, 5)
                        : shape == 1 ? make(&rng, "a/name", 200000, NULL, 0)
                        : shape == 2 ? make(&rng, NULL, 0, NULL, 0)
                                     : make(&rng, NULL, 1, NULL, 0);
        struct object_header h;
        uint64_t size = object_size(&m.plan);

        assert_int_equal(object_header_len(m.bytes, OBJECT_FIXED), m.plan.header_len);
        assert_int_equal(object_parse(m.bytes, size, &h), MC_OK);
        assert_int_equal(h.chunks, shape == 0 ? 1 + 1 + 2 + 4 + 1 : shape == 1 ? 4 : shape == 2 ? 0 : 1);
        assert_true(h.generation == m.header.generation && h.version == m.header.version && h.length == m.plan.length);
        assert_true(h.depth == 7 && h.tokens == 64 && h.flags == 1 && h.geometry == m.header.geometry);
        assert_memory_equal(h.parent, m.header.parent, 16);
        assert_int_equal(object_is(&h, &m.key, h.generation), MC_OK);
        assert_int_equal(object_is(&h, &m.key, 0), MC_OK);
        assert_int_equal(object_is(&h, &m.key, h.generation + 1), MC_ESTALE);
        struct store_key other = m.key;
        other.ns++;
        assert_int_equal(object_is(&h, &other, 0), MC_ESTALE);
        assert_int_equal(object_verify(&h, m.bytes + h.header_len), MC_OK);
        assert_int_equal(object_payload_crc(&h), crc32c(0, m.bytes + h.header_len, h.length));
        for (uint32_t len = 0; len < h.header_len; len++)
            assert_int_not_equal(object_parse(m.bytes, len, &h), MC_OK);

        assert_int_equal(object_set_version(m.bytes, size, 99), MC_OK);
        assert_int_equal(object_parse(m.bytes, size, &h), MC_OK);
        assert_int_equal(h.version, 99);
        assert_int_equal(object_stamp_dead(m.bytes, size), MC_OK);
        assert_int_equal(object_parse(m.bytes, size, &h), MC_OK);
        assert_int_equal(object_is(&h, &m.key, 0), MC_ESTALE);
        object_kill(m.bytes);
        assert_int_equal(object_parse(m.bytes, size, &h), MC_ESTALE);
        assert_int_equal(object_set_version(m.bytes, size, 1), MC_ECORRUPT);
        free(m.bytes);
    }
}

static void every_flip_is_seen(void **state)
{
    struct rng rng;

    rng_seed(&rng, 2);
    struct made m = make(&rng, "some name", 300001, NULL, 0);
    struct object_header h;
    for (int i = 0; i < 10000; i++) {
        uint64_t bit = rng_below(&rng, 8ull * m.plan.header_len);

        m.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_not_equal(object_parse(m.bytes, object_size(&m.plan), &h), MC_OK);
        m.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(object_parse(m.bytes, object_size(&m.plan), &h), MC_OK);
    uint8_t *payload = m.bytes + h.header_len;
    for (int i = 0; i < 10000; i++) {
        uint64_t bit = rng_below(&rng, 8 * h.length);
        struct object_cover cover;

        payload[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_int_equal(object_cover(&h, bit / 8, 1, &cover), MC_OK);
        assert_int_equal(object_verify_cover(&h, &cover, payload + cover.offset), MC_ECORRUPT);
        if (i % 100 == 0)
            assert_int_equal(object_verify(&h, payload), MC_ECORRUPT);
        payload[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_int_equal(object_verify(&h, payload), MC_OK);
    free(m.bytes);
}

static void covers_are_whole_chunks_around_the_range(void **state)
{
    static const uint64_t planes[] = {100, 70000, 64, 65536};
    const uint64_t sum = 100 + 70000 + 64 + 65536;
    struct rng rng;

    rng_seed(&rng, 4);
    struct made m = make(&rng, NULL, sum, planes, 4);
    struct object_header h;
    struct object_cover cover;
    assert_int_equal(object_parse(m.bytes, object_size(&m.plan), &h), MC_OK);
    for (int i = 0; i < 5000; i++) {
        uint64_t offset = rng_below(&rng, sum + 1), length = rng_below(&rng, sum - offset + 1);

        assert_int_equal(object_cover(&h, offset, length, &cover), MC_OK);
        if (length == 0) {
            assert_int_equal(cover.count, 0);
            continue;
        }
        assert_true(cover.offset <= offset && cover.offset + cover.length >= offset + length);
        assert_true(cover.offset + object_chunk(&h, cover.first).length > offset); /* no chunk too many at either end */
        uint32_t last = object_chunk(&h, cover.first + cover.count - 1).length;
        assert_true(cover.offset + cover.length - last < offset + length);
        const uint8_t *bytes = m.bytes + h.header_len + cover.offset;
        assert_int_equal(object_verify_cover(&h, &cover, bytes), MC_OK);
        assert_int_equal(object_cover_crc(&h, &cover), crc32c(0, bytes, cover.length));
    }
    assert_int_equal(object_cover(&h, sum, 1, &cover), MC_EINVAL);
    assert_int_equal(object_cover(&h, sum + 1, 0, &cover), MC_EINVAL);
    assert_int_equal(object_cover(&h, 1, UINT64_MAX, &cover), MC_EINVAL);
    free(m.bytes);
}

static void plans_refuse_what_does_not_fit(void **state)
{
    static const uint64_t good[] = {64, 64}, empty[] = {64, 0, 64}, wrap[] = {128, UINT64_MAX};
    struct store_key key = {.kind = MC_KEY_BLOCK, .shards = 1};
    struct object_plan plan;

    assert_int_equal(object_plan(&key, 128, good, 2, &plan), MC_OK);
    assert_int_equal(object_plan(&key, 127, good, 2, &plan), MC_EINVAL);
    assert_int_equal(object_plan(&key, 129, good, 2, &plan), MC_EINVAL);
    assert_int_equal(object_plan(&key, 128, empty, 3, &plan), MC_EINVAL);
    assert_int_equal(object_plan(&key, 127, wrap, 2, &plan), MC_EINVAL);
    assert_int_equal(object_plan(&key, (uint64_t)MC_OBJECT_MAX + 1, NULL, 0, &plan), MC_ETOOBIG);
    assert_int_equal(object_plan(&key, MC_OBJECT_MAX, NULL, 0, &plan), MC_OK);
    assert_true(plan.chunks <= OBJECT_CHUNKS_MAX && plan.header_len <= OBJECT_HEADER_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_as_sealed),
        cmocka_unit_test(every_flip_is_seen),
        cmocka_unit_test(covers_are_whole_chunks_around_the_range),
        cmocka_unit_test(plans_refuse_what_does_not_fit),
    };
    return cmocka_run_group_tests_name("object", tests, NULL, NULL);
}
