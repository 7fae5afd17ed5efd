/* block_id_test.c - recipe "mc-block-1" against vectors computed by an independent program (Python, hashlib), and the
 * chain over a growing array against the single steps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "mooncake/kvcache.h"

static struct mc_fingerprint fingerprint(void)
{
    struct mc_fingerprint fp;

    for (int i = 0; i < MC_FINGERPRINT_SIZE; i++)
        fp.bytes[i] = (uint8_t)i;
    return fp;
}

/* Fingerprint 00 01 .. 1f, tokens 1..128 in blocks of 64, then one odd token: Python hashlib gave these. */
static void golden_vectors(void **state)
{
    struct mc_fingerprint fp = fingerprint();
    struct mc_block_id first, second;
    uint32_t tokens[128], odd = 0xfffffffe;
    char text[33];

    for (uint32_t i = 0; i < 128; i++)
        tokens[i] = i + 1;
    assert_int_equal(mc_block_id_next(&fp, NULL, NULL, 0, tokens, 64, &first), MC_OK);
    mc_block_id_text(&first, text);
    assert_string_equal(text, "f08f7eba873814b0ad0717475b0de7ca");
    assert_int_equal(mc_block_id_next(&fp, &first, NULL, 0, tokens + 64, 64, &second), MC_OK);
    mc_block_id_text(&second, text);
    assert_string_equal(text, "ff1b05dd77aa62dbed46ddea3094a528");

    assert_int_equal(mc_block_id_next(&fp, NULL, "tenant-7", 8, tokens, 64, &first), MC_OK);
    mc_block_id_text(&first, text);
    assert_string_equal(text, "d53dcc546aaf10d87c188bfc2e25cc82");
    assert_int_equal(mc_block_id_next(&fp, &first, "tenant-7", 8, tokens + 64, 64, &second), MC_OK);
    mc_block_id_text(&second, text);
    assert_string_equal(text, "38303695df535eac5371f176bd068546");

    assert_int_equal(mc_block_id_next(&fp, NULL, NULL, 0, &odd, 1, &first), MC_OK);
    mc_block_id_text(&first, text);
    assert_string_equal(text, "bb53083b28888cb1aa537033579c5c73");
}

static void limits(void **state)
{
    struct mc_fingerprint fp = fingerprint();
    static uint32_t tokens[MC_BLOCK_TOKENS_MAX + 1];
    static char salt[MC_SALT_SIZE_MAX + 1];
    struct mc_block_chain chain;
    struct mc_block_id id;

    assert_int_equal(mc_block_id_next(&fp, NULL, NULL, 0, tokens, 0, &id), MC_EINVAL);
    assert_int_equal(mc_block_id_next(&fp, NULL, NULL, 0, tokens, MC_BLOCK_TOKENS_MAX + 1, &id), MC_EINVAL);
    assert_int_equal(mc_block_id_next(&fp, NULL, NULL, 0, tokens, MC_BLOCK_TOKENS_MAX, &id), MC_OK);
    assert_int_equal(mc_block_id_next(&fp, NULL, salt, sizeof salt, tokens, 1, &id), MC_ETOOBIG);
    assert_int_equal(mc_block_id_next(&fp, NULL, salt, MC_SALT_SIZE_MAX, tokens, 1, &id), MC_OK);
    assert_int_equal(mc_block_chain_init(&chain, &fp, 48, NULL, 0), MC_EINVAL);
    assert_int_equal(mc_block_chain_init(&chain, &fp, 8, NULL, 0), MC_EINVAL);
    assert_int_equal(mc_block_chain_init(&chain, &fp, 64, salt, sizeof salt), MC_ETOOBIG);
}

/* However the array grows and however few ids are taken at a time, the ids are those of the steps. */
static void chain_grows(void **state)
{
    struct mc_fingerprint fp = fingerprint();
    struct mc_block_id want[8], got[8], parent;
    struct mc_block_chain chain;
    uint32_t tokens[8 * 16];
    size_t count = 0, n;

    for (uint32_t i = 0; i < 8 * 16; i++)
        tokens[i] = i * 2654435761u;
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(mc_block_id_next(&fp, i ? &parent : NULL, "s", 1, tokens + 16 * i, 16, &want[i]), MC_OK);
        parent = want[i];
    }
    assert_int_equal(mc_block_chain_init(&chain, &fp, 16, "s", 1), MC_OK);
    for (size_t length = 0; length <= 8 * 16; length += 5)
        while ((n = mc_block_chain_extend(&chain, tokens, length, got + count, count < 6 ? 1 : 2)) > 0)
            count += n;
    count += mc_block_chain_extend(&chain, tokens, 8 * 16, got + count, 8 - count);
    assert_int_equal(count, 8);
    assert_memory_equal(got, want, sizeof want);
    assert_int_equal(mc_block_chain_extend(&chain, tokens, 8 * 16, got, 8), 0);
}

static void one_token_changes_all_behind(void **state)
{
    struct mc_fingerprint fp = fingerprint();
    struct mc_block_id a[4], b[4];
    struct mc_block_chain chain;
    uint32_t tokens[64] = {0};

    mc_block_chain_init(&chain, &fp, 16, NULL, 0);
    mc_block_chain_extend(&chain, tokens, 64, a, 4);
    tokens[20] = 1;
    mc_block_chain_init(&chain, &fp, 16, NULL, 0);
    mc_block_chain_extend(&chain, tokens, 64, b, 4);
    assert_memory_equal(&a[0], &b[0], sizeof a[0]);
    for (int i = 1; i < 4; i++)
        assert_memory_not_equal(&a[i], &b[i], sizeof a[i]);
}

static void reuse_limit(void **state)
{
    static const uint32_t table[][3] = {{0, 64, 0}, {1, 64, 0}, {64, 64, 0}, {65, 64, 64}, {128, 64, 64},
        {129, 64, 128}, {1000, 64, 960}, {1025, 64, 1024}, {129, 16, 128}, {300, 128, 256}, {256, 128, 128}};

    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        assert_int_equal(mc_reuse_tokens_max(table[i][0], table[i][1]), table[i][2]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_vectors),
        cmocka_unit_test(limits),
        cmocka_unit_test(chain_grows),
        cmocka_unit_test(one_token_changes_all_behind),
        cmocka_unit_test(reuse_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
