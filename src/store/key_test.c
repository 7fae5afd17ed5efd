/* key_test.c - goal: a key comes back unchanged from text and wire, limits are told, and equal means equal.
 * Method: golden texts, every bad form by hand, and a random round trip over all byte values in names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "store/key.h"

static struct store_key block_key(uint8_t first, uint16_t group, uint16_t shard, uint16_t shards)
{
    struct mc_key key;
    uint8_t id[16] = {first, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 1, 2, 3, 4, 5, 6, 7, 8};
    struct store_key out;

    mc_key_block(&key, id);
    key.group = group;
    key.shard = shard;
    key.shards = shards;
    assert_int_equal(store_key_from(9, &key, &out), MC_OK);
    return out;
}

static void limits_are_told(void **state)
{
    static char name[MC_NAME_MAX + 1];
    struct mc_key key;
    struct store_key out;

    mc_key_named(&key, name, 0);
    assert_int_equal(store_key_from(0, &key, &out), MC_EINVAL);
    mc_key_named(&key, name, MC_NAME_MAX + 1);
    assert_int_equal(store_key_from(0, &key, &out), MC_ETOOBIG);
    mc_key_named(&key, name, MC_NAME_MAX);
    assert_int_equal(store_key_from(0, &key, &out), MC_OK);
    key.shard = 1;
    assert_int_equal(store_key_from(0, &key, &out), MC_EINVAL);
    key = (struct mc_key){.kind = 3};
    assert_int_equal(store_key_from(0, &key, &out), MC_EINVAL);
}

static void equal_means_all_parts(void **state)
{
    struct store_key a = block_key(1, 0, 0, 1), b = block_key(1, 0, 0, 0), c = block_key(1, 0, 1, 4);
    struct mc_key named;
    struct store_key n1, n2;

    assert_true(store_key_eq(&a, &b)); /* shards 0 is 1 */
    assert_int_equal(store_key_hash(&a, 5), store_key_hash(&b, 5));
    assert_int_not_equal(store_key_hash(&a, 5), store_key_hash(&b, 6));
    assert_false(store_key_eq(&a, &c));
    assert_int_equal(store_key_shard(&a, 16), store_key_shard(&c, 16)); /* parts of a block live on one index shard */
    mc_key_named(&named, "abc", 3);
    assert_int_equal(store_key_from(9, &named, &n1), MC_OK);
    assert_int_equal(store_key_from(8, &named, &n2), MC_OK);
    assert_false(store_key_eq(&n1, &n2));
    struct mc_key back = store_key_public(&n1);
    assert_memory_equal(back.name, "abc", 3);
    assert_int_equal(back.name_len, 3);
}

static void texts_are_golden(void **state)
{
    char text[KEY_TEXT_MAX], name[MC_NAME_MAX];
    struct store_key key = block_key(0x01, 0, 0, 1), back;
    struct mc_key named;

    assert_string_equal(store_key_text(&key, text, sizeof(text)), "0123456789abcdef0102030405060708");
    key = block_key(0xff, 2, 1, 4);
    assert_string_equal(store_key_text(&key, text, sizeof(text)), "ff23456789abcdef0102030405060708@2:1/4");
    mc_key_named(&named, "models/a b,%\xff", 14 - 1);
    assert_int_equal(store_key_from(0, &named, &key), MC_OK);
    assert_string_equal(store_key_text(&key, text, sizeof(text)), "name:models/a%20b%2C%25%FF");
    assert_int_equal(store_key_parse(slice_str("name@0:1/4:abc"), &back, name, NULL), MC_OK);
    assert_int_equal(back.shards, 4);
    assert_true(slice_eq_str(back.name, "abc"));
    char cut[8];
    assert_int_equal(strlen(store_key_text(&key, cut, sizeof(cut))) < sizeof(cut), 1);
}

static void bad_texts_are_refused(void **state)
{
    static const char *const bad[] = {"", "n", "name", "name:", "name@1:abc", "name@1:2/2:abc", "name@:1/2:abc",
        "name@99999:0/1:abc", "name:%", "name:%4", "name:%zz", "0123", "0123456789abcdef010203040506070g",
        "0123456789abcdef0102030405060708x", "0123456789abcdef0102030405060708@1:1/1",
        "0123456789abcdef0102030405060708@1:0/4x"};
    char name[MC_NAME_MAX];

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct store_key key;
        const char *why = NULL;

        assert_int_equal(store_key_parse(slice_str(bad[i]), &key, name, &why), MC_EINVAL);
        assert_non_null(why);
    }
    static char longest[5 + MC_NAME_MAX + 1];
    struct store_key key;
    memset(longest, 'a', sizeof(longest));
    memcpy(longest, "name:", 5);
    assert_int_equal(store_key_parse(slice_of(longest, sizeof(longest)), &key, name, NULL), MC_ETOOBIG);
    assert_int_equal(store_key_parse(slice_of(longest, sizeof(longest) - 1), &key, name, NULL), MC_OK);
}

static void text_and_wire_bring_it_back(void **state)
{
    static char bytes[MC_NAME_MAX], name[MC_NAME_MAX], text[KEY_TEXT_MAX];
    struct rng rng;

    rng_seed(&rng, 3);
    for (int i = 0; i < 2000; i++) {
        struct mc_key made = {.kind = i % 2 ? MC_KEY_BLOCK : MC_KEY_NAMED, .group = (uint16_t)rng_below(&rng, 3)};
        struct store_key key, back;
        struct buf wire;

        made.shards = (uint16_t)(1 + rng_below(&rng, 8));
        made.shard = (uint16_t)rng_below(&rng, made.shards);
        rng_bytes(&rng, made.id, 16);
        rng_bytes(&rng, bytes, sizeof(bytes));
        if (made.kind == MC_KEY_NAMED) {
            made.name = bytes;
            made.name_len = 1 + (uint32_t)rng_below(&rng, MC_NAME_MAX);
        }
        assert_int_equal(store_key_from(0, &made, &key), MC_OK);
        store_key_text(&key, text, sizeof(text));
        assert_int_equal(store_key_parse(slice_str(text), &back, name, NULL), MC_OK);
        assert_true(store_key_eq(&key, &back) && slice_eq(key.name, back.name));

        buf_init(&wire, KEY_WIRE_MAX);
        store_key_put(&wire, &key);
        assert_int_equal(buf_status(&wire), MC_OK);
        struct cur cur = cur_of_slice(buf_slice(&wire));
        store_key_get(&cur, &back, "key");
        cur_done(&cur, "end");
        assert_int_equal(cur_status(&cur), MC_OK);
        assert_true(store_key_eq(&key, &back) && slice_eq(key.name, back.name));
        for (size_t len = 0; len < wire.len; len += 1 + len / 7) {
            cur = cur_of(wire.data, len);
            store_key_get(&cur, &back, "key");
            assert_int_not_equal(cur_status(&cur), MC_OK);
        }
        buf_fini(&wire);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limits_are_told),
        cmocka_unit_test(equal_means_all_parts),
        cmocka_unit_test(texts_are_golden),
        cmocka_unit_test(bad_texts_are_refused),
        cmocka_unit_test(text_and_wire_bring_it_back),
    };
    return cmocka_run_group_tests_name("key", tests, NULL, NULL);
}
