/* kvblob_test.c - our rebuilding of llama.cpp's state blob, without llama.cpp: the size measured on the real library, a blob
 * built and checked, cells out of order, and every planted fault named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/cursor.h"
#include "base/rng.h"
#include "engine/llama/kvblob.h"

static struct mc_geometry *geo;
static struct kvblob_shape shape;

static int set_up(void **state)
{
    return mc_geometry_create_kv(30, 384, 384, &geo) != MC_OK || kvblob_shape_init(&shape, geo, 1) != MC_OK;
}

static int tear_down(void **state)
{
    mc_geometry_destroy(geo);
    return 0;
}

/* 744 + 23,052 n for SmolLM2: measured, README.md. */
static void measured_size(void **state)
{
    assert_int_equal(kvblob_size(&shape, 256), 5902056);
    assert_int_equal(kvblob_size(&shape, 64), 744 + 23052 * 64);
    assert_int_equal(kvblob_rows(&shape, 2, 0), 16 + 24 + 8 + 12);            /* K of layer 0 */
    assert_int_equal(kvblob_rows(&shape, 2, 2), 16 + 24 + 8 + 12 + 768 + 12); /* K of layer 1 */
    assert_int_equal(kvblob_rows(&shape, 2, 1), 16 + 24 + 8 + 30 * 780 + 12); /* V of layer 0 */
    assert_int_equal(kvblob_rows(&shape, 2, 59) + 768, kvblob_size(&shape, 2));
}

static uint8_t *framed(uint32_t cells, size_t *size)
{
    uint8_t *blob;

    *size = kvblob_size(&shape, cells);
    blob = calloc(1, *size);
    assert_non_null(blob);
    kvblob_frame(&shape, blob, cells, 7, 640);
    return blob;
}

static void framed_blob_checks(void **state)
{
    uint32_t order[64];
    const char *what;
    size_t size;
    uint8_t *blob = framed(64, &size);

    assert_true(kvblob_check(&shape, blob, size, 64, 7, 640, order, &what));
    for (uint32_t i = 0; i < 64; i++)
        assert_int_equal(order[i], i);
    free(blob);
}

/* The form of older tags: eight bytes fewer in front. */
static void bare_form(void **state)
{
    uint32_t order[64];
    const char *what;
    size_t size = kvblob_size(&shape, 64);
    struct kvblob_shape bare = shape;
    uint8_t *blob = malloc(size);

    assert_true(kvblob_adapt(&bare, size, 64) && !bare.bare);
    assert_true(kvblob_adapt(&bare, size - 8, 64) && bare.bare);
    assert_int_equal(kvblob_size(&bare, 64), 1476064); /* measured on b6673 */
    kvblob_frame(&bare, blob, 64, 7, 640);
    assert_int_equal(le32_get(blob), 1);
    assert_int_equal(le32_get(blob + 4), 64);
    assert_true(kvblob_check(&bare, blob, size - 8, 64, 7, 640, order, &what));
    assert_false(kvblob_adapt(&bare, size - 4, 64));
    free(blob);
}

/* Cells of a fragmented cache come in any order. */
static void cells_out_of_order(void **state)
{
    uint32_t order[64];
    const char *what;
    size_t size;
    uint8_t *blob = framed(64, &size);
    struct rng rng;

    rng_seed(&rng, 5);
    for (uint32_t i = 63; i > 0; i--) { /* shuffle the positions */
        uint32_t k = (uint32_t)rng_below(&rng, i + 1), a = le32_get(blob + 16 + 12 * i),
                 b = le32_get(blob + 16 + 12 * k);

        le32_put(blob + 16 + 12 * i, b);
        le32_put(blob + 16 + 12 * k, a);
    }
    assert_true(kvblob_check(&shape, blob, size, 64, 7, 640, order, &what));
    for (uint32_t i = 0; i < 64; i++)
        assert_int_equal(order[i], le32_get(blob + 16 + 12 * i) - 640);
    free(blob);
}

static void faults_are_named(void **state)
{
    static const struct {
        size_t at;
        uint32_t value;
        const char *what;
    } faults[] = {
        {0, 1, "magic"},
        {4, 8, "sequence"},
        {8, 2, "streams"},
        {12, 65, "cells"},
        {12, 0xffffffff, "cells"},
        {16, 0xffffffff, "cell position"},
        {16, 641, "cell position"}, /* twice, and the sum is off */
        {20, 0, "cell sequence count"},
        {24, 0, "cell sequence"},
        {16 + 12 * 64, 1, "v transposed"},
        {16 + 12 * 64 + 4, 31, "layers"},
        {16 + 12 * 64 + 8, 0, "row type"},
        {16 + 12 * 64 + 12, 385, "row size"},
    };
    uint32_t order[64];
    const char *what;
    size_t size;
    uint8_t *blob = framed(64, &size);

    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        uint32_t before = le32_get(blob + faults[i].at);

        le32_put(blob + faults[i].at, faults[i].value);
        assert_false(kvblob_check(&shape, blob, size, 64, 7, 640, order, &what));
        assert_string_equal(what, faults[i].what);
        le32_put(blob + faults[i].at, before);
    }
    /* two cells swap-doubled so that the sum is right: 640,641,642,643 -> 641,641,641,643... */
    le32_put(blob + 16, 641);
    le32_put(blob + 16 + 24, 641);
    assert_false(kvblob_check(&shape, blob, size, 64, 7, 640, order, &what));
    assert_false(kvblob_check(&shape, blob, size - 1, 64, 7, 640, order, &what));
    assert_string_equal(what, "size");
    assert_false(kvblob_check(&shape, blob, 0, 64, 7, 640, order, &what));
    free(blob);
}

static void shapes(void **state)
{
    static const struct mc_plane state_plane[] = {{0, 0, 8, "state"}};
    static const struct mc_plane v_first[] = {{0, 1, 8, "v"}, {0, 1, 8, "k"}};
    static const struct mc_plane mixed[] = {{0, 1, 64, "k"}, {0, 1, 32, "v"}, {1, 1, 128, "latent"}};
    struct mc_geometry *g;
    struct kvblob_shape s;

    assert_int_equal(mc_geometry_create(state_plane, 1, &g), MC_OK);
    assert_int_equal(kvblob_shape_init(&s, g, 1), MC_ENOSUP);
    mc_geometry_destroy(g);
    assert_int_equal(mc_geometry_create(v_first, 2, &g), MC_OK);
    assert_int_equal(kvblob_shape_init(&s, g, 1), MC_ENOSUP);
    mc_geometry_destroy(g);
    assert_int_equal(mc_geometry_create(mixed, 3, &g), MC_OK);
    assert_int_equal(kvblob_shape_init(&s, g, 1), MC_OK);
    assert_int_equal(kvblob_rows(&s, 1, 2), 16 + 12 + 8 + 12 + 64 + 12);
    assert_int_equal(kvblob_rows(&s, 1, 1) + 32, kvblob_size(&s, 1));
    mc_geometry_destroy(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(measured_size),
        cmocka_unit_test(framed_blob_checks),
        cmocka_unit_test(bare_form),
        cmocka_unit_test(cells_out_of_order),
        cmocka_unit_test(faults_are_named),
        cmocka_unit_test(shapes),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
