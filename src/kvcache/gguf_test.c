/* gguf_test.c - the reader of model files: a small good file made here, then every way to spoil it.
 *
 * Goal: the right shape from a good file; for each planted fault a refusal whose message names the field; no crash and no
 * unbounded work for any cut or mutation (run under sanitizers). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/cursor.h"
#include "base/rng.h"
#include "mooncake/kvcache.h"

/* ---- writing files ---- */

static void put_gstr(struct buf *b, const char *text)
{
    put_u64(b, strlen(text));
    put_bytes(b, text, strlen(text));
}

static void kv_u32(struct buf *b, const char *key, uint32_t value)
{
    put_gstr(b, key);
    put_u32(b, MC_GGUF_U32);
    put_u32(b, value);
}

static void kv_f32(struct buf *b, const char *key, float value)
{
    uint32_t bits;

    memcpy(&bits, &value, 4);
    put_gstr(b, key);
    put_u32(b, MC_GGUF_F32);
    put_u32(b, bits);
}

static void kv_str(struct buf *b, const char *key, const char *value)
{
    put_gstr(b, key);
    put_u32(b, MC_GGUF_STRING);
    put_gstr(b, value);
}

static void header(struct buf *b, uint32_t version, uint64_t tensors, uint64_t entries)
{
    put_bytes(b, "GGUF", 4);
    put_u32(b, version);
    put_u64(b, tensors);
    put_u64(b, entries);
}

/* SmolLM2's shape with a vocabulary of three and one tensor of two floats. */
static struct buf good_file(void)
{
    struct buf b;

    buf_init(&b, SIZE_MAX);
    header(&b, 3, 1, 11);
    kv_str(&b, "general.architecture", "llama");
    kv_str(&b, "general.name", "Tiny");
    kv_u32(&b, "llama.block_count", 30);
    kv_u32(&b, "llama.context_length", 2048);
    kv_u32(&b, "llama.embedding_length", 576);
    kv_u32(&b, "llama.attention.head_count", 9);
    kv_u32(&b, "llama.attention.head_count_kv", 3);
    kv_f32(&b, "llama.rope.freq_base", 100000);
    kv_str(&b, "tokenizer.ggml.model", "gpt2");
    put_gstr(&b, "tokenizer.ggml.tokens");
    put_u32(&b, MC_GGUF_ARRAY);
    put_u32(&b, MC_GGUF_STRING);
    put_u64(&b, 3);
    put_gstr(&b, "a");
    put_gstr(&b, "b");
    put_gstr(&b, "");
    kv_str(&b, "tokenizer.chat_template", "{{ im_start }}");
    put_gstr(&b, "token_embd.weight");
    put_u32(&b, 1);
    put_u64(&b, 2);
    put_u32(&b, 0);
    put_u64(&b, 0);
    buf_skip(&b, (32 - b.len % 32) % 32);
    put_u64(&b, 0x3f8000003f800000);
    assert_int_equal(buf_status(&b), MC_OK);
    return b;
}

static enum mc_status parse(const struct buf *b, struct mc_gguf **gguf, char *err, size_t size)
{
    /* an allocation of exactly that size, so that a sanitizer sees one byte too many */
    static uint8_t *exact;

    free(exact);
    exact = malloc(b->len ? b->len : 1);
    if (b->len)
        memcpy(exact, b->data, b->len);
    err[0] = 0;
    return mc_gguf_parse(exact, b->len, b->len, gguf, err, size);
}

/* ---- tests ---- */

static void good(void **state)
{
    struct buf b = good_file();
    struct mc_gguf *gguf;
    struct mc_gguf_model model;
    struct mc_geometry *geo;
    enum mc_gguf_type element;
    char err[300];
    uint64_t n;
    double real;

    assert_int_equal(parse(&b, &gguf, err, sizeof err), MC_OK);
    assert_int_equal(mc_gguf_model(gguf, &model, err, sizeof err), MC_OK);
    assert_string_equal(model.arch, "llama");
    assert_string_equal(model.name, "Tiny");
    assert_string_equal(model.tokenizer, "gpt2");
    assert_int_equal(model.layers, 30);
    assert_int_equal(model.kv_heads, 3);
    assert_int_equal(model.k_dim, 64);
    assert_int_equal(model.vocab_size, 3);
    assert_int_equal(model.context_tokens, 2048);
    assert_true(model.has_chat_template && !model.recurrent && model.rope_base == 100000 && model.rope_scale == 1);
    assert_int_equal(mc_gguf_geometry(gguf, "f16", "f16", &geo, err, sizeof err), MC_OK);
    assert_int_equal(mc_geometry_bytes_per_token(geo), 23040);
    mc_geometry_destroy(geo);
    assert_int_equal(mc_gguf_u64(gguf, "llama.block_count", &n), MC_OK);
    assert_int_equal(mc_gguf_u64(gguf, "llama.block_coun", &n), MC_ENOENT);
    assert_int_equal(mc_gguf_u64(gguf, "general.name", &n), MC_EMISMATCH);
    assert_int_equal(mc_gguf_f64(gguf, "llama.rope.freq_base", &real), MC_OK);
    assert_int_equal(mc_gguf_array(gguf, "tokenizer.ggml.tokens", &element, &n), MC_OK);
    assert_int_equal(element, MC_GGUF_STRING);
    assert_int_equal(mc_gguf_array_u64(gguf, "tokenizer.ggml.tokens", 0, &n), MC_EMISMATCH);
    mc_gguf_destroy(gguf);
    buf_fini(&b);
}

/* Tokenizer hash: depends on what is under "tokenizer." and on nothing else. */
static void tokenizer_hash(void **state)
{
    struct buf b = good_file();
    uint8_t h1[32], h2[32];
    struct mc_gguf *gguf;
    char err[300];
    uint8_t *at;

    assert_int_equal(parse(&b, &gguf, err, sizeof err), MC_OK);
    mc_gguf_tokenizer_hash(gguf, h1);
    mc_gguf_destroy(gguf);
    at = memmem(b.data, b.len, "Tiny", 4);
    *at = 'X';
    assert_int_equal(parse(&b, &gguf, err, sizeof err), MC_OK);
    mc_gguf_tokenizer_hash(gguf, h2);
    assert_memory_equal(h1, h2, 32);
    mc_gguf_destroy(gguf);
    at = memmem(b.data, b.len, "gpt2", 4);
    *at = 'X';
    assert_int_equal(parse(&b, &gguf, err, sizeof err), MC_OK);
    mc_gguf_tokenizer_hash(gguf, h2);
    assert_memory_not_equal(h1, h2, 32);
    mc_gguf_destroy(gguf);
    buf_fini(&b);
}

/* Change `length` bytes behind the first place of `what` (plus `skip`), expect a refusal that mentions `expect`. */
static void spoil(const char *what, size_t skip, const void *bytes, size_t length, const char *expect)
{
    struct buf b = good_file();
    uint8_t *at = memmem(b.data, b.len, what, strlen(what));
    struct mc_gguf *gguf = NULL;
    struct mc_gguf_model model;
    char err[300];
    enum mc_status st;

    assert_non_null(at);
    memcpy(at + skip, bytes, length);
    st = parse(&b, &gguf, err, sizeof err);
    if (st == MC_OK) {
        st = mc_gguf_model(gguf, &model, err, sizeof err);
        mc_gguf_destroy(gguf);
    }
    assert_int_not_equal(st, MC_OK);
    if (!strstr(err, expect))
        fail_msg("'%s' does not mention '%s'", err, expect);
    buf_fini(&b);
}

static void faults_are_named(void **state)
{
    static const uint8_t huge[8] = {255, 255, 255, 255, 255, 255, 255, 255}, u32_99[4] = {99}, zero[8] = {0},
                         five[8] = {5}, far[8] = {0, 0, 0, 0, 1}, one[8] = {1};

    spoil("GGUF", 0, "GGML", 4, "magic");
    spoil("GGUF", 4, five, 4, "version");
    spoil("GGUF", 8, huge, 8, "tensor count");
    spoil("GGUF", 16, huge, 8, "entry count");
    spoil("GGUF", 24, huge, 8, "metadata entry 0");
    spoil("llama.block_count", 17, u32_99, 4, "llama.block_count");
    spoil("llama.block_count", 21, huge, 4, "llama.block_count");
    spoil("llama.block_count", 21, zero, 4, "llama.block_count");
    spoil("general.name", 16, huge, 8, "general.name");
    spoil("tokenizer.ggml.tokens", 25, u32_99, 4, "element type 99");
    spoil("tokenizer.ggml.tokens", 29, huge, 8, "tokenizer.ggml.tokens");
    spoil("tokenizer.ggml.tokens", 37, huge, 8, "tokenizer.ggml.tokens");
    spoil("llama.rope.freq_base", 0, "llama.context_length", 20, "comes twice");
    spoil("token_embd.weight", 17, five, 4, "field dims");
    spoil("token_embd.weight", 21, huge, 8, "extent 0");
    spoil("token_embd.weight", 21, far, 8, "pass the end");
    spoil("token_embd.weight", 33, one, 8, "offset");
    spoil("token_embd.weight", 33, far, 8, "pass the end");
}

/* head_count_kv as an array of one number per layer; with a layer that has another count. */
static void heads_per_layer(void **state)
{
    struct buf b;
    struct mc_gguf *gguf;
    struct mc_gguf_model model;
    struct mc_geometry *geo;
    char err[300];

    buf_init(&b, SIZE_MAX);
    header(&b, 3, 0, 6);
    kv_str(&b, "general.architecture", "x");
    kv_u32(&b, "x.block_count", 2);
    kv_u32(&b, "x.context_length", 10);
    kv_u32(&b, "x.embedding_length", 64);
    kv_u32(&b, "x.attention.head_count", 4);
    put_gstr(&b, "x.attention.head_count_kv");
    put_u32(&b, MC_GGUF_ARRAY);
    put_u32(&b, MC_GGUF_I32);
    put_u64(&b, 2);
    put_u32(&b, 2);
    put_u32(&b, 4);
    assert_int_equal(parse(&b, &gguf, err, sizeof err), MC_OK);
    assert_int_equal(mc_gguf_model(gguf, &model, err, sizeof err), MC_OK);
    assert_int_equal(model.kv_heads, 4);
    assert_int_equal(mc_gguf_geometry(gguf, "f16", "f16", &geo, err, sizeof err), MC_OK);
    assert_int_equal(mc_geometry_plane(geo, 0)->row_size, 2 * 16 * 2);
    assert_int_equal(mc_geometry_plane(geo, 3)->row_size, 4 * 16 * 2);
    mc_geometry_destroy(geo);
    assert_int_equal(mc_gguf_geometry(gguf, "f99", "f16", &geo, err, sizeof err), MC_EINVAL);
    mc_gguf_destroy(gguf);
    buf_fini(&b);
}

/* An empty architecture name: found by the fuzzer. */
static void empty_string(void **state)
{
    struct buf b;
    struct mc_gguf *gguf;
    struct mc_gguf_model model;
    char err[300];

    buf_init(&b, SIZE_MAX);
    header(&b, 3, 0, 1);
    kv_str(&b, "general.architecture", "");
    assert_int_equal(parse(&b, &gguf, err, sizeof err), MC_OK);
    assert_int_equal(mc_gguf_model(gguf, &model, err, sizeof err), MC_EPROTO);
    assert_non_null(strstr(err, "general.architecture"));
    mc_gguf_destroy(gguf);
    buf_fini(&b);
}

static void cuts_and_mutations(void **state)
{
    struct buf b = good_file(), mutant;
    struct mc_gguf *gguf;
    struct mc_gguf_model model;
    struct mc_geometry *geo;
    char err[300];
    struct rng rng;
    uint8_t hash[32];

    rng_seed(&rng, 3);
    for (int i = 0; i < 20000; i++) {
        buf_init(&mutant, SIZE_MAX);
        buf_append(&mutant, b.data, i < (int)b.len ? (size_t)i : b.len);
        if (i >= (int)b.len)
            for (uint64_t n = 1 + rng_below(&rng, 4); n > 0; n--)
                mutant.data[rng_below(&rng, b.len)] = (uint8_t)(rng_chance(&rng, 0.3) ? 255 : rng_u64(&rng));
        enum mc_status st = parse(&mutant, &gguf, err, sizeof err);
        if (i < (int)b.len)
            assert_int_not_equal(st, MC_OK);
        if (st == MC_OK) {
            mc_gguf_tokenizer_hash(gguf, hash);
            if (mc_gguf_model(gguf, &model, err, sizeof err) == MC_OK &&
                mc_gguf_geometry(gguf, "f16", "f16", &geo, err, sizeof err) == MC_OK)
                mc_geometry_destroy(geo);
            mc_gguf_destroy(gguf);
        } else {
            assert_true(err[0] != 0);
        }
        buf_fini(&mutant);
    }
    buf_fini(&b);
}

static void files(void **state)
{
    struct mc_gguf *gguf;
    char err[300];

    assert_int_equal(mc_gguf_open("/nonexistent/model.gguf", &gguf, err, sizeof err), MC_ENOENT);
    assert_non_null(strstr(err, "/nonexistent/model.gguf"));
    assert_int_equal(mc_gguf_open("/dev/null", &gguf, err, sizeof err), MC_ESYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good),
        cmocka_unit_test(tokenizer_hash),
        cmocka_unit_test(faults_are_named),
        cmocka_unit_test(heads_per_layer),
        cmocka_unit_test(empty_string),
        cmocka_unit_test(cuts_and_mutations),
        cmocka_unit_test(files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
