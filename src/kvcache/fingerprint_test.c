/* fingerprint_test.c - the canonical record: golden bytes, round trip, every field named when it differs, and hostile
 * input refused by field name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "base/hash.h"
#include "base/rng.h"
#include "mooncake/kvcache.h"

static struct mc_fp_record sample(void)
{
    struct mc_fp_record rec;

    memset(&rec, 0x55, sizeof rec); /* rubbish behind the NULs must not count */
    strcpy(rec.engine, "llama");
    strcpy(rec.engine_version, "v0.5.0 fa");
    strcpy(rec.model_arch, "llama");
    strcpy(rec.k_type, "f16");
    strcpy(rec.v_type, "f16");
    strcpy(rec.rope_type, "norm");
    rec.adapter[0] = 0;
    rec.layers = 30;
    rec.kv_heads = 3;
    rec.head_dim = 64;
    rec.block_tokens = 64;
    rec.rope_base = 100000;
    rec.rope_scale = 1;
    memset(rec.tokenizer_hash, 1, 32);
    memset(rec.geometry_hash, 2, 32);
    memset(rec.model_hash, 3, 32);
    return rec;
}

/* Bytes and hash computed by an independent program. */
static void golden(void **state)
{
    struct mc_fp_record rec = sample();
    struct mc_fingerprint fp;
    uint8_t bytes[MC_FP_RECORD_SIZE_MAX];
    char hex[65];
    size_t length;

    assert_int_equal(mc_fp_record_encode(&rec, bytes, sizeof bytes, &length), MC_OK);
    assert_int_equal(length, 253);
    assert_int_equal(mc_fp_record_hash(&rec, &fp), MC_OK);
    hex_encode(hex, fp.bytes, 32);
    assert_string_equal(hex, "da8a4c674d96bb9169cef7a020448b1096d08e7cee47b8e93fef24dbf8b60e02");
    assert_int_equal(mc_fp_record_encode(&rec, bytes, length - 1, &length), MC_ETOOBIG);
}

static void round_trip(void **state)
{
    struct mc_fp_record rec = sample(), back;
    uint8_t bytes[MC_FP_RECORD_SIZE_MAX], again[MC_FP_RECORD_SIZE_MAX];
    size_t length, length2;
    char err[200];

    assert_int_equal(mc_fp_record_encode(&rec, bytes, sizeof bytes, &length), MC_OK);
    assert_int_equal(mc_fp_record_decode(bytes, length, &back, err, sizeof err), MC_OK);
    assert_null(mc_fp_record_diff(&rec, &back));
    assert_int_equal(mc_fp_record_encode(&back, again, sizeof again, &length2), MC_OK);
    assert_int_equal(length, length2);
    assert_memory_equal(bytes, again, length);
}

static void longest_record_fits(void **state)
{
    struct mc_fp_record rec = sample();
    uint8_t bytes[MC_FP_RECORD_SIZE_MAX];
    size_t length;

#define FILL(field) (memset(rec.field, 'x', sizeof rec.field - 1), rec.field[sizeof rec.field - 1] = 0)
    FILL(engine), FILL(engine_version), FILL(model_arch), FILL(k_type), FILL(v_type), FILL(rope_type), FILL(adapter);
    assert_int_equal(mc_fp_record_encode(&rec, bytes, sizeof bytes, &length), MC_OK);
    rec.adapter[sizeof rec.adapter - 1] = 'x';
    assert_int_equal(mc_fp_record_encode(&rec, bytes, sizeof bytes, &length), MC_EINVAL);
}

static void diff_names_the_field(void **state)
{
    const struct mc_fp_record a = sample();
    struct mc_fp_record b;
    struct mc_fingerprint fa, fb;
    char text[80];

#define DIFFERS(change, name)                                                                                          \
    do {                                                                                                               \
        b = a;                                                                                                         \
        change;                                                                                                        \
        assert_string_equal(mc_fp_record_diff(&a, &b), name);                                                          \
        mc_fp_record_hash(&a, &fa);                                                                                    \
        mc_fp_record_hash(&b, &fb);                                                                                    \
        assert_memory_not_equal(&fa, &fb, sizeof fa);                                                                  \
        assert_int_equal(mc_fp_record_text(&b, name, text, sizeof text), MC_OK);                                       \
        assert_true(text[0] != 0 || strcmp(name, "adapter") == 0);                                                     \
    } while (0)
    DIFFERS(b.engine[0] = 'L', "engine");
    DIFFERS(b.engine_version[1] = '1', "engine_version");
    DIFFERS(b.model_arch[0] = 'q', "model_arch");
    DIFFERS(b.layers++, "layers");
    DIFFERS(b.kv_heads++, "kv_heads");
    DIFFERS(b.head_dim++, "head_dim");
    DIFFERS(b.k_type[1] = '3', "k_type");
    DIFFERS(b.v_type[1] = '3', "v_type");
    DIFFERS(b.block_tokens = 128, "block_tokens");
    DIFFERS(b.rope_type[0] = 'x', "rope_type");
    DIFFERS(b.rope_base = 10000, "rope_base");
    DIFFERS(b.rope_scale = 0.5, "rope_scale");
    DIFFERS(strcpy(b.adapter, "lora-1"), "adapter");
    DIFFERS(b.tokenizer_hash[31] ^= 1, "tokenizer_hash");
    DIFFERS(b.geometry_hash[31] ^= 1, "geometry_hash");
    DIFFERS(b.model_hash[0] ^= 128, "model_hash");
    assert_string_equal(text, "8303030303030303030303030303030303030303030303030303030303030303");
    b = a;
    b.block_tokens = 128;
    b.model_hash[0] ^= 1;
    assert_string_equal(mc_fp_record_diff(&a, &b), "block_tokens"); /* the one a user can act on first */
    assert_int_equal(mc_fp_record_text(&a, "nonsense", text, sizeof text), MC_ENOENT);
}

static void values_out_of_range(void **state)
{
    struct mc_fp_record rec = sample();
    struct mc_fingerprint fp;

    rec.block_tokens = 100;
    assert_int_equal(mc_fp_record_hash(&rec, &fp), MC_EINVAL);
    rec = sample();
    rec.rope_base = __builtin_nan("");
    assert_int_equal(mc_fp_record_hash(&rec, &fp), MC_EINVAL);
}

/* Every cut and every changed byte: refused with a message, or another record that encodes to exactly those bytes. */
static void hostile_bytes(void **state)
{
    struct mc_fp_record rec = sample(), back;
    uint8_t bytes[MC_FP_RECORD_SIZE_MAX], again[MC_FP_RECORD_SIZE_MAX];
    size_t length, length2;
    char err[200];
    struct rng rng;

    assert_int_equal(mc_fp_record_encode(&rec, bytes, sizeof bytes, &length), MC_OK);
    for (size_t cut = 0; cut < length; cut++) {
        err[0] = 0;
        assert_int_equal(mc_fp_record_decode(bytes, cut, &back, err, sizeof err), MC_EPROTO);
        assert_non_null(strstr(err, "field"));
    }
    bytes[length] = 0;
    assert_int_equal(mc_fp_record_decode(bytes, length + 1, &back, err, sizeof err), MC_EPROTO);
    rng_seed(&rng, 7);
    for (int i = 0; i < 20000; i++) {
        uint8_t mutant[MC_FP_RECORD_SIZE_MAX];

        memcpy(mutant, bytes, length);
        for (uint64_t n = 1 + rng_below(&rng, 3); n > 0; n--)
            mutant[rng_below(&rng, length)] = (uint8_t)rng_u64(&rng);
        if (mc_fp_record_decode(mutant, length, &back, err, sizeof err) != MC_OK)
            continue;
        assert_int_equal(mc_fp_record_encode(&back, again, sizeof again, &length2), MC_OK);
        assert_int_equal(length2, length);
        assert_memory_equal(again, mutant, length);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden),
        cmocka_unit_test(round_trip),
        cmocka_unit_test(longest_record_fits),
        cmocka_unit_test(diff_names_the_field),
        cmocka_unit_test(values_out_of_range),
        cmocka_unit_test(hostile_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
