/* geometry_test.c - planes and layouts: golden hash, tiling of the object by layers, rows and chunks, round trip, and
 * hostile bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/hash.h"
#include "base/rng.h"
#include "mooncake/kvcache.h"

static void golden_hash(void **state)
{
    struct mc_geometry *geo;
    uint8_t hash[32], bytes[128];
    char hex[65];
    size_t length;

    assert_int_equal(mc_geometry_create_kv(2, 384, 384, &geo), MC_OK);
    assert_int_equal(mc_geometry_encode(geo, bytes, sizeof bytes, &length), MC_OK);
    assert_int_equal(length, 74);
    mc_geometry_hash(geo, hash);
    hex_encode(hex, hash, 32);
    assert_string_equal(hex, "89e466de013248328a1944cd174f99b0adf5818033b874444372bd7e303c06ba");
    assert_true(mc_geometry_id(geo) == 0x32483201de66e489ull);
    assert_int_equal(mc_geometry_encode(geo, bytes, 73, &length), MC_ETOOBIG);
    assert_int_equal(length, 74);
    mc_geometry_destroy(geo);
}

/* SmolLM2-135M: 30 layers of 3 heads x 64 x fp16. A plane of 64 tokens is 24 KiB: no padding, one chunk each. */
static void smollm2(void **state)
{
    struct mc_geometry *geo;
    struct mc_layout *lay;
    struct mc_byte_range range, pieces[60];

    assert_int_equal(mc_geometry_create_kv(30, 384, 384, &geo), MC_OK);
    assert_int_equal(mc_geometry_bytes_per_token(geo), 23040);
    assert_int_equal(mc_geometry_layers(geo), 30);
    assert_int_equal(mc_layout_create(geo, 64, &lay), MC_OK);
    assert_int_equal(mc_layout_size(lay), 64 * 23040);
    assert_int_equal(mc_layout_chunk_count(lay), 60);
    assert_int_equal(mc_layout_layers(lay, 10, 2, &range), MC_OK);
    assert_int_equal(range.offset, 10 * 2 * 24576);
    assert_int_equal(range.length, 4 * 24576);
    assert_int_equal(mc_layout_rows(lay, 3, 5, pieces, 60), MC_OK);
    assert_int_equal(pieces[59].offset, 59 * 24576 + 3 * 384);
    assert_int_equal(pieces[59].length, 5 * 384);
    assert_int_equal(mc_layout_rows(lay, 3, 5, pieces, 59), MC_ETOOBIG);
    assert_int_equal(mc_layout_rows(lay, 60, 5, pieces, 60), MC_EINVAL);
    assert_int_equal(mc_layout_layers(lay, 29, 2, &range), MC_EINVAL);
    assert_int_equal(mc_layout_layers(lay, UINT32_MAX, 2, &range), MC_EINVAL);
    assert_int_equal(mc_layout_layers(lay, 0, 0, &range), MC_EINVAL);
    mc_layout_destroy(lay);
    mc_geometry_destroy(geo);
}

static struct mc_geometry *random_geometry(struct rng *rng)
{
    struct mc_plane planes[64];
    struct mc_geometry *geo;
    size_t count = 1 + rng_below(rng, 64);

    memset(planes, 0, sizeof planes);
    for (size_t i = 0; i < count; i++) {
        planes[i].layer = i ? planes[i - 1].layer + (uint32_t)rng_below(rng, 2) : 0;
        planes[i].rows_per_token = (uint32_t)rng_below(rng, 3);
        planes[i].row_size = 1 + (uint32_t)rng_below(rng, 3000);
        planes[i].name[0] = 'a';
        planes[i].name[1] = (char)('0' + i % 64); /* unique in any layer */
    }
    assert_int_equal(mc_geometry_create(planes, count, &geo), MC_OK);
    return geo;
}

static void check_tiling(const struct mc_geometry *geo, const struct mc_layout *lay)
{
    uint64_t size = mc_layout_size(lay), at = 0;
    struct mc_byte_range range;
    size_t plane = 0;

    for (uint32_t layer = 0; layer < mc_geometry_layers(geo); layer++) {
        assert_int_equal(mc_layout_layers(lay, layer, 1, &range), MC_OK);
        assert_int_equal(range.offset, at);
        at += range.length;
    }
    assert_int_equal(at, size);
    at = 0;
    for (size_t i = 0; i < mc_layout_chunk_count(lay); i++) {
        range = mc_layout_chunk(lay, i);
        assert_int_equal(range.offset, at);
        assert_in_range(range.length, 1, MC_CHUNK_SIZE_MAX);
        at += range.length;
        while (plane + 1 < mc_layout_plane_count(lay) && mc_layout_plane(lay, plane + 1).offset <= range.offset)
            plane++;
        if (plane + 1 < mc_layout_plane_count(lay))
            assert_true(at <= mc_layout_plane(lay, plane + 1).offset); /* never crosses a plane */
    }
    assert_int_equal(at, size);
    for (size_t i = 0; i < mc_layout_plane_count(lay); i++)
        assert_int_equal(mc_layout_plane(lay, i).offset % MC_PLANE_ALIGN, 0);
}

static void random_layouts(void **state)
{
    struct rng rng;

    rng_seed(&rng, 11);
    for (int i = 0; i < 300; i++) {
        struct mc_geometry *geo = random_geometry(&rng), *back;
        uint32_t tokens = 1 + (uint32_t)rng_below(&rng, 300);
        struct mc_layout *lay;
        uint8_t bytes[64 * 31 + 6], h1[32], h2[32];
        size_t length, first, count;
        char err[100];

        assert_int_equal(mc_layout_create(geo, tokens, &lay), MC_OK);
        check_tiling(geo, lay);
        for (int k = 0; k < 20; k++) {
            struct mc_byte_range r = {rng_below(&rng, mc_layout_size(lay)), 0};

            r.length = 1 + rng_below(&rng, mc_layout_size(lay) - r.offset);
            assert_int_equal(mc_layout_chunks_of(lay, r, &first, &count), MC_OK);
            struct mc_byte_range a = mc_layout_chunk(lay, first), b = mc_layout_chunk(lay, first + count - 1);
            assert_true(a.offset <= r.offset && r.offset < a.offset + a.length);
            assert_true(b.offset < r.offset + r.length && r.offset + r.length <= b.offset + b.length);
        }
        assert_int_equal(
            mc_layout_chunks_of(lay, (struct mc_byte_range){mc_layout_size(lay), 1}, &first, &count), MC_EINVAL);
        assert_int_equal(mc_layout_chunks_of(lay, (struct mc_byte_range){1, UINT64_MAX}, &first, &count), MC_EINVAL);
        assert_int_equal(mc_geometry_encode(geo, bytes, sizeof bytes, &length), MC_OK);
        assert_int_equal(mc_geometry_decode(bytes, length, &back, err, sizeof err), MC_OK);
        mc_geometry_hash(geo, h1);
        mc_geometry_hash(back, h2);
        assert_memory_equal(h1, h2, 32);
        mc_geometry_destroy(back);
        for (int k = 0; k < 50; k++) { /* hostile: refused, or a geometry that is what its bytes say */
            uint8_t mutant[sizeof bytes], again[sizeof bytes];
            size_t cut = rng_chance(&rng, 0.5) ? length : rng_below(&rng, length), length2;

            memcpy(mutant, bytes, length);
            mutant[rng_below(&rng, length)] = (uint8_t)rng_u64(&rng);
            if (mc_geometry_decode(mutant, cut, &back, err, sizeof err) != MC_OK)
                continue;
            assert_int_equal(mc_geometry_encode(back, again, sizeof again, &length2), MC_OK);
            assert_int_equal(length2, cut);
            assert_memory_equal(mutant, again, cut);
            mc_geometry_destroy(back);
        }
        mc_layout_destroy(lay);
        mc_geometry_destroy(geo);
    }
}

/* A state plane (rows per token 0) is one row whatever the tokens, and whole in every row range. */
static void state_plane(void **state)
{
    const struct mc_plane planes[] = {{0, 1, 100, "k"}, {1, 0, 1000, "state"}};
    struct mc_geometry *geo;
    struct mc_layout *lay;
    struct mc_byte_range pieces[2];

    assert_int_equal(mc_geometry_create(planes, 2, &geo), MC_OK);
    assert_int_equal(mc_geometry_bytes_per_token(geo), 100);
    assert_int_equal(mc_layout_create(geo, 7, &lay), MC_OK);
    assert_int_equal(mc_layout_size(lay), 704 + 1024);
    assert_int_equal(mc_layout_rows(lay, 2, 3, pieces, 2), MC_OK);
    assert_int_equal(pieces[0].offset, 200);
    assert_int_equal(pieces[1].offset, 704);
    assert_int_equal(pieces[1].length, 1000);
    mc_layout_destroy(lay);
    mc_geometry_destroy(geo);
}

static void refused(void **state)
{
    static const struct mc_plane bad[][2] = {
        {{1, 1, 8, "k"}, {1, 1, 8, "v"}}, /* layer 0 missing */
        {{0, 1, 8, "k"}, {2, 1, 8, "k"}}, /* hole */
        {{0, 1, 8, "k"}, {0, 1, 8, "k"}}, /* same name twice */
        {{0, 1, 0, "k"}, {0, 1, 8, "v"}}, /* empty rows */
        {{0, 1, MC_ROW_SIZE_MAX + 1, "k"}, {0, 1, 8, "v"}},
        {{0, 1, 8, ""}, {0, 1, 8, "v"}},
        {{0, 1, 8, {'n', 'o', 'n', 'u', 'l', 'n', 'o', 'n', 'u', 'l', 'n', 'o', 'n', 'u', 'l', '!'}}, {0, 1, 8, "v"}},
        {{0, 65, 8, "k"}, {0, 1, 8, "v"}},
    };
    struct mc_geometry *geo = NULL;
    struct mc_layout *lay;
    char err[100];

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(mc_geometry_create(bad[i], 2, &geo), MC_EINVAL);
    assert_int_equal(mc_geometry_create(bad[0], 0, &geo), MC_EINVAL);
    assert_int_equal(mc_geometry_create_kv(0, 8, 8, &geo), MC_EINVAL);
    assert_int_equal(mc_geometry_create_kv(MC_LAYERS_MAX + 1, 8, 8, &geo), MC_EINVAL);
    assert_int_equal(mc_geometry_decode("\1\0\377\377\377\377", 6, &geo, err, sizeof err), MC_EPROTO);
    assert_non_null(strstr(err, "plane count"));
    assert_int_equal(mc_geometry_create_kv(1, 8, 0, &geo), MC_OK); /* latent */
    assert_string_equal(mc_geometry_plane(geo, 0)->name, "latent");
    assert_int_equal(mc_layout_create(geo, 0, &lay), MC_EINVAL);
    assert_int_equal(mc_layout_create(geo, MC_BLOCK_TOKENS_MAX + 1, &lay), MC_EINVAL);
    mc_geometry_destroy(geo);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_hash),
        cmocka_unit_test(smollm2),
        cmocka_unit_test(random_layouts),
        cmocka_unit_test(state_plane),
        cmocka_unit_test(refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
