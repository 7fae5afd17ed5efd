/* sizes_test.c - the arithmetic of `mooncake calc` against the numbers of the issue. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "mooncake/kvcache.h"

static void llama3_70b(void **state)
{
    const struct mc_kv_shape shape = {"LLaMA3-70B", 80, 8, 128, 128, "fp16"};
    static const struct {
        const char *tokens;
        double gib;
    } table[] = {{"4K", 1.25}, {"32K", 10}, {"128K", 40}, {"1M", 320}};
    uint64_t bytes, tokens;

    assert_int_equal(mc_kv_bytes_per_token(&shape, &bytes), MC_OK);
    assert_int_equal(bytes, 327680);
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        assert_int_equal(mc_kv_tokens_parse(table[i].tokens, &tokens), MC_OK);
        assert_true((double)(tokens * bytes) / (1 << 30) == table[i].gib);
    }
    assert_true(fabs(mc_kv_transfer_s(32768 * bytes, 25) - 3.436) < 0.001);
    assert_true(fabs(mc_kv_transfer_s(32768 * bytes, 200) - 0.4295) < 0.0001);
}

static void common_models(void **state)
{
    uint64_t bytes;
    size_t i;

    for (i = 0; mc_kv_common_model(i); i++) {
        assert_int_equal(mc_kv_bytes_per_token(mc_kv_common_model(i), &bytes), MC_OK);
        if (strcmp(mc_kv_common_model(i)->name, "SmolLM2-135M") == 0)
            assert_int_equal(bytes, 23040);
        if (strcmp(mc_kv_common_model(i)->name, "DeepSeek-V3") == 0)
            assert_int_equal(bytes, 61 * 576 * 2);
    }
    assert_true(i >= 10);
}

static void types(void **state)
{
    struct mc_kv_shape shape = {"x", 30, 3, 64, 64, "Q8_0"};
    uint64_t bytes;

    assert_int_equal(mc_kv_bytes_per_token(&shape, &bytes), MC_OK);
    assert_int_equal(bytes, 30 * 2 * 192 / 32 * 34);
    shape.k_dim = 65; /* no whole number of packs */
    assert_int_equal(mc_kv_bytes_per_token(&shape, &bytes), MC_EINVAL);
    shape = (struct mc_kv_shape){"x", 30, 3, 64, 64, "fp17"};
    assert_int_equal(mc_kv_bytes_per_token(&shape, &bytes), MC_EINVAL);
    shape = (struct mc_kv_shape){"x", 0, 3, 64, 64, "fp16"};
    assert_int_equal(mc_kv_bytes_per_token(&shape, &bytes), MC_EINVAL);
    shape = (struct mc_kv_shape){"x", UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, "fp32"};
    assert_int_equal(mc_kv_bytes_per_token(&shape, &bytes), MC_EINVAL);
    assert_ptr_equal(mc_dtype_find("F16"), mc_dtype_find("f16"));
    assert_null(mc_dtype_find(NULL));
}

static void token_counts(void **state)
{
    static const char *const bad[] = {
        "", "K", "0", "-1", "4KK", "4 K", "1.5K", "4G", "99999999999999999999", "2000000M"};
    uint64_t n;

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(mc_kv_tokens_parse(bad[i], &n), MC_EINVAL);
    assert_int_equal(mc_kv_tokens_parse("1m", &n), MC_OK);
    assert_int_equal(n, 1 << 20);
    assert_int_equal(mc_kv_tokens_parse("777", &n), MC_OK);
    assert_int_equal(n, 777);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama3_70b),
        cmocka_unit_test(common_models),
        cmocka_unit_test(types),
        cmocka_unit_test(token_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
