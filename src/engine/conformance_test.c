/* conformance_test.c - what every engine must do: one file, run over each of them.
 *
 *     engine_conformance_test synthetic
 *     engine_conformance_test llama       plug-in and model from MOONCAKE_TEST_ENGINE_PATH and MOONCAKE_TEST_MODEL, else
 *                                         from the cache that tools/fetch-engine fills; neither: exit 77, "skipped"
 *
 * Method: engine A computes a prompt and answers greedily; its blocks, exported through the public interface, go into
 * engine B, an instance of its own, which continues. Logits must be bit-equal and the text the same for reuse around every
 * block boundary. Then everything a caller may do wrong, which must be refused without a trace. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/log.h"
#include "base/xdg.h"
#include "mooncake/engine.h"

enum { CONTEXT = 4096, SEQUENCES = 4, PROMPT_MAX = 2048, ANSWER = 24 };

static const char *engine_name = "synthetic";
static char model_path[512];
static struct mc_engine *a, *b; /* two instances of the same model */
static uint32_t prompt[PROMPT_MAX];
static size_t prompt_length;

/* ---- helpers ---- */

static struct mc_engine_options options_of(void)
{
    struct mc_engine_options o;

    mc_engine_options_init(&o);
    o.engine = engine_name;
    o.engine_path = getenv("MOONCAKE_TEST_ENGINE_PATH");
    o.model_path = model_path[0] ? model_path : NULL;
    o.context_tokens = CONTEXT;
    o.sequences_max = SEQUENCES;
    o.threads = 1;
    return o;
}

static struct mc_engine *open_engine(const struct mc_engine_options *o)
{
    struct mc_engine *engine;
    char err[400] = "";

    if (mc_engine_open(o, &engine, err, sizeof err) != MC_OK)
        fail_msg("%s", err);
    return engine;
}

static uint32_t new_seq(struct mc_engine *e)
{
    uint32_t seq;

    assert_int_equal(mc_engine_seq_create(e, &seq), MC_OK);
    return seq;
}

static const float *prefill_all(struct mc_engine *e, uint32_t seq, const uint32_t *tokens, uint32_t end, uint32_t step)
{
    struct mc_prefill p = {.seq = seq, .end = end, .tokens = tokens, .tokens_max = step};
    const float *logits = NULL;

    while (mc_engine_seq_length(e, seq) < end) {
        uint32_t before = mc_engine_seq_length(e, seq);

        assert_int_equal(mc_engine_prefill(e, &p, &logits), MC_OK);
        uint32_t now = mc_engine_seq_length(e, seq);
        assert_true(now > before && (now % MC_PREFILL_QUANTUM == 0 || now == end));
        assert_true((logits != NULL) == (now == end));
    }
    return logits;
}

static uint32_t argmax(const float *logits, uint32_t count)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < count; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

static const float *decode_one(struct mc_engine *e, uint32_t seq, uint32_t token)
{
    struct mc_decode_slot slot = {.seq = seq, .token = token};

    assert_int_equal(mc_engine_decode(e, &slot, 1), MC_OK);
    assert_int_equal(slot.status, MC_OK);
    assert_non_null(slot.logits);
    return slot.logits;
}

/* Greedy answer of `count` tokens; the last is not fed back. */
static void answer(struct mc_engine *e, uint32_t seq, const float *logits, uint32_t *out, uint32_t count)
{
    uint32_t vocab = mc_engine_info(e)->vocab_size;

    for (uint32_t i = 0; i < count; i++) {
        out[i] = argmax(logits, vocab);
        if (i + 1 < count)
            logits = decode_one(e, seq, out[i]);
    }
}

static uint8_t *export_block(struct mc_engine *e, uint32_t seq, uint32_t index)
{
    const struct mc_engine_info *info = mc_engine_info(e);
    uint8_t *bytes = malloc(info->block_size);

    assert_non_null(bytes);
    memset(bytes, 0xee, info->block_size);
    assert_int_equal(mc_engine_export(e, seq, index, 0, info->layers, bytes, info->block_size), MC_OK);
    return bytes;
}

/* Move the first `count` blocks of a sequence of `from` into a new one of `to`. `together`: one call. */
static uint32_t move_blocks(struct mc_engine *from, uint32_t from_seq, struct mc_engine *to, const uint32_t *tokens,
    uint32_t count, bool together)
{
    const struct mc_engine_info *info = mc_engine_info(from);
    struct mc_block_in *blocks = calloc(count + 1, sizeof *blocks);
    uint32_t seq = new_seq(to);
    size_t done = 0;

    for (uint32_t i = 0; i < count; i++)
        blocks[i] = (struct mc_block_in){
            i, info->block_tokens, tokens + i * info->block_tokens, export_block(from, from_seq, i), info->block_size};
    if (together) {
        assert_int_equal(mc_engine_import(to, seq, blocks, count, &done), MC_OK);
        assert_int_equal(done, count);
    } else {
        for (uint32_t i = 0; i < count; i++)
            assert_int_equal(mc_engine_import(to, seq, &blocks[i], 1, NULL), MC_OK);
    }
    assert_int_equal(mc_engine_seq_length(to, seq), count * info->block_tokens);
    for (uint32_t i = 0; i < count; i++)
        free((void *)(uintptr_t)blocks[i].bytes);
    free(blocks);
    return seq;
}

static size_t tokens_of(struct mc_engine *e, const char *text, uint32_t flags, uint32_t *tokens, size_t max)
{
    size_t count;

    assert_int_equal(mc_engine_tokenize(e, text, strlen(text), flags, tokens, max, &count), MC_OK);
    return count;
}

/* ---- text ---- */

static void round_trip(void **state)
{
    static const char *const texts[] = {"Hello, world. The cache keeps the words of the model.",
        "键值缓存可以复用前缀。", "mixed 中文 and English,\n\ttabs & \"quotes\" — dashes", "a", "  two  spaces  ",
        "<|im_start|>not a token<|im_end|>"};

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        uint32_t tokens[400];
        char text[1000], piece[MC_PIECE_SIZE_MAX];
        size_t count = tokens_of(a, texts[i], 0, tokens, 400), length = 0, n;

        for (size_t k = 0; k < count; k++) {
            assert_int_equal(mc_engine_piece(a, tokens[k], false, piece, sizeof piece, &n), MC_OK);
            assert_false(mc_engine_is_end(a, tokens[k])); /* user text never ends an answer */
            memcpy(text + length, piece, n);
            length += n;
        }
        text[length] = 0;
        assert_string_equal(text, texts[i]);
    }
}

static void tokenize_limits(void **state)
{
    uint32_t tokens[8];
    char piece[4];
    size_t count, n;

    assert_int_equal(mc_engine_tokenize(a, "one two three four five six", 27, 0, tokens, 2, &count), MC_ETOOBIG);
    assert_true(count > 2);
    assert_int_equal(mc_engine_tokenize(a, "", 0, 0, tokens, 0, &count), MC_OK);
    assert_int_equal(count, 0);
    /* the begin token is put in front once, or never if the model wants none */
    count = tokens_of(a, "x", MC_TOKENIZE_BOS, tokens, 8);
    if (count == 2) {
        char begin[64];

        assert_int_equal(mc_engine_piece(a, tokens[0], true, begin, sizeof begin - 2, &n), MC_OK);
        memcpy(begin + n, "x", 2);
        assert_int_equal(tokens_of(a, begin, MC_TOKENIZE_BOS | MC_TOKENIZE_SPECIAL, tokens, 8), 2);
    }
    assert_int_equal(mc_engine_tokenize(a, "x", 1, 8, tokens, 8, &count), MC_EINVAL);
    assert_int_equal(mc_engine_piece(a, mc_engine_info(a)->vocab_size, false, piece, 4, &n), MC_EINVAL);
    assert_false(mc_engine_is_end(a, mc_engine_info(a)->vocab_size));
}

static void chat_template(void **state)
{
    const struct mc_chat_message messages[] = {{"system", "Be short."}, {"user", "What is a 缓存?"}};
    const struct mc_chat_message bad[] = {{"robot", "x"}};
    char text[1000], again[1000];
    uint32_t tokens[200];
    size_t length, count, needed;

    assert_int_equal(mc_engine_chat(a, messages, 2, true, text, sizeof text, &length), MC_OK);
    text[length] = 0;
    assert_non_null(strstr(text, "What is a 缓存?"));
    assert_non_null(strstr(text, "Be short."));
    assert_int_equal(mc_engine_chat(a, messages, 2, false, again, sizeof again, &needed), MC_OK);
    assert_true(needed < length); /* no opening */
    assert_int_equal(mc_engine_chat(a, messages, 2, true, again, 10, &needed), MC_ETOOBIG);
    assert_int_equal(needed, length);
    assert_int_equal(mc_engine_chat(a, bad, 1, true, text, sizeof text, &needed), MC_EINVAL);
    assert_int_equal(mc_engine_chat(a, bad, 0, true, text, sizeof text, &needed), MC_EINVAL);
    /* control tokens become tokens: fewer than as plain text */
    count = tokens_of(a, text, MC_TOKENIZE_SPECIAL, tokens, 200);
    assert_true(count < tokens_of(a, text, 0, tokens, 200));
}

/* ---- the equalities ---- */

/* Reuse around a block boundary: prompts of 64k-1, 64k, 64k+1 tokens, every number of imported blocks up to the limit. */
static void import_equals_compute(void **state)
{
    const struct mc_engine_info *info = mc_engine_info(a);
    static const uint32_t lengths[] = {63, 64, 65, 191, 192, 193, 450};
    float *want = malloc(info->vocab_size * sizeof *want);
    uint32_t text_want[ANSWER], text_got[ANSWER];

    assert_true(prompt_length >= 700);
    for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++) {
        uint32_t n = lengths[l], blocks = mc_reuse_tokens_max(n, info->block_tokens) / info->block_tokens;
        uint32_t seq = new_seq(a);
        const float *logits = prefill_all(a, seq, prompt, n, 0);

        memcpy(want, logits, info->vocab_size * sizeof *want);
        answer(a, seq, logits, text_want, ANSWER);
        for (uint32_t use = 0; use <= blocks; use += n == 450 && use > 1 && use < blocks - 2 ? 3 : 1) {
            uint32_t other = move_blocks(a, seq, b, prompt, use, use & 1);

            logits = prefill_all(b, other, prompt, n, 0);
            assert_memory_equal(logits, want, info->vocab_size * sizeof *want);
            answer(b, other, logits, text_got, ANSWER);
            assert_memory_equal(text_got, text_want, sizeof text_want);
            mc_engine_seq_free(b, other);
        }
        mc_engine_seq_free(a, seq);
    }
    free(want);
}

/* Whatever the chunks, the logits are the same bits. */
static void chunks_do_not_matter(void **state)
{
    const struct mc_engine_info *info = mc_engine_info(a);
    static const uint32_t steps[] = {1, 64, 100, 128, 192};
    float *want = malloc(info->vocab_size * sizeof *want);
    uint32_t seq = new_seq(a);

    memcpy(want, prefill_all(a, seq, prompt, 300, 0), info->vocab_size * sizeof *want);
    mc_engine_seq_free(a, seq);
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        seq = new_seq(a);
        assert_memory_equal(prefill_all(a, seq, prompt, 300, steps[i]), want, info->vocab_size * sizeof *want);
        mc_engine_seq_free(a, seq);
    }
    free(want);
}

/* A stream continues on another worker: blocks of prompt and answer are imported, the tail is replayed token by token. */
static void stream_continues_elsewhere(void **state)
{
    const struct mc_engine_info *info = mc_engine_info(a);
    enum { BEFORE = 150, AFTER = 30, N = 100 };
    uint32_t tokens[N + BEFORE + AFTER], seq = new_seq(a), at, other, got;
    const float *logits;

    memcpy(tokens, prompt, N * sizeof *tokens);
    logits = prefill_all(a, seq, tokens, N, 0);
    for (at = N; at < N + BEFORE + AFTER; at++) {
        tokens[at] = argmax(logits, info->vocab_size);
        if (at + 1 < N + BEFORE + AFTER)
            logits = decode_one(a, seq, tokens[at]);
    }
    /* N + BEFORE tokens are known to the new worker: 192 of them as blocks, the rest by replay */
    other = move_blocks(a, seq, b, tokens, (N + BEFORE) / info->block_tokens, true);
    for (at = mc_engine_seq_length(b, other); at < N + BEFORE; at++)
        logits = decode_one(b, other, tokens[at]);
    for (; at < N + BEFORE + AFTER; at++) {
        got = argmax(logits, info->vocab_size);
        assert_int_equal(got, tokens[at]);
        logits = decode_one(b, other, got);
    }
    mc_engine_seq_free(a, seq);
    mc_engine_seq_free(b, other);
}

/* Several sequences in one step give what each gives alone (with one thread: engine.h). */
static void batched_decode(void **state)
{
    const struct mc_engine_info *info = mc_engine_info(a);
    uint32_t seqs[3], n[3] = {70, 130, 64}, first[3];
    struct mc_decode_slot slots[3];
    float *alone[3];

    for (int i = 0; i < 3; i++) {
        uint32_t seq = new_seq(b);

        first[i] = argmax(prefill_all(b, seq, prompt + 10 * i, n[i], 0), info->vocab_size);
        alone[i] = malloc(info->vocab_size * sizeof(float));
        memcpy(alone[i], decode_one(b, seq, first[i]), info->vocab_size * sizeof(float));
        mc_engine_seq_free(b, seq);
        seqs[i] = new_seq(a);
        prefill_all(a, seqs[i], prompt + 10 * i, n[i], 0);
    }
    for (int i = 0; i < 3; i++)
        slots[i] = (struct mc_decode_slot){.seq = seqs[i], .token = first[i]};
    assert_int_equal(mc_engine_decode(a, slots, 3), MC_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(slots[i].status, MC_OK);
        assert_memory_equal(slots[i].logits, alone[i], info->vocab_size * sizeof(float));
        assert_int_equal(mc_engine_seq_length(a, seqs[i]), n[i] + 1);
        mc_engine_seq_free(a, seqs[i]);
        free(alone[i]);
    }
}

/* Blocks and logits of a prompt do not depend on what else is, or was, in the context: neighbours of odd lengths that
 * decode, holes they left, a failed attempt before. */
static void neighbours_do_not_matter(void **state)
{
    const struct mc_engine_info *info = mc_engine_info(a);
    enum { N = 400 };
    float *want = malloc(info->vocab_size * sizeof *want);
    uint8_t *blocks[N / 64];
    uint32_t seq = new_seq(a), x, y, z;
    int set = 1;
    struct mc_prefill canceled = {.end = N, .tokens = prompt, .cancel = &set};

    memcpy(want, prefill_all(a, seq, prompt, N, 0), info->vocab_size * sizeof *want);
    for (uint32_t i = 0; i < N / 64; i++)
        blocks[i] = export_block(a, seq, i);
    mc_engine_seq_free(a, seq);
    x = new_seq(a);
    y = new_seq(a);
    z = new_seq(a);
    prefill_all(a, x, prompt + 5, 37, 0);
    prefill_all(a, y, prompt + 6, 130, 0);
    prefill_all(a, z, prompt + 7, 64, 0);
    struct mc_decode_slot slots[] = {
        {.seq = x, .token = prompt[1]}, {.seq = y, .token = prompt[2]}, {.seq = z, .token = prompt[3]}};
    for (int i = 0; i < 40; i++)
        assert_int_equal(mc_engine_decode(a, slots, 3), MC_OK);
    for (int round = 0; round < 3; round++) {
        seq = new_seq(a);
        if (round == 1) {
            canceled.seq = seq;
            assert_int_equal(mc_engine_prefill(a, &canceled, NULL), MC_ECANCELED);
        }
        for (uint32_t step = 0; mc_engine_seq_length(a, seq) < N; step++) { /* decode goes on between the chunks */
            struct mc_prefill p = {.seq = seq, .end = N, .tokens = prompt, .tokens_max = 128};
            const float *logits;

            assert_int_equal(mc_engine_prefill(a, &p, &logits), MC_OK);
            if (logits)
                assert_memory_equal(logits, want, info->vocab_size * sizeof *want);
            assert_int_equal(mc_engine_decode(a, slots, round == 2 ? 1 : 3), MC_OK);
        }
        for (uint32_t i = 0; i < N / 64; i++) {
            uint8_t *again = export_block(a, seq, i);

            assert_memory_equal(again, blocks[i], info->block_size);
            free(again);
        }
        mc_engine_seq_free(a, seq);
        if (round == 1) {
            mc_engine_seq_free(a, y); /* a hole between x and z */
            slots[1] = slots[2];
            y = z;
        }
    }
    mc_engine_seq_free(a, x);
    mc_engine_seq_free(a, z);
    for (uint32_t i = 0; i < N / 64; i++)
        free(blocks[i]);
    free(want);
}

/* ---- export ---- */

struct ready_log {
    uint8_t *blocks;
    uint32_t next_block, next_layer;
};

static void on_ready(void *arg, struct mc_engine *e, uint32_t seq, uint32_t block, uint32_t first, uint32_t count)
{
    const struct mc_engine_info *info = mc_engine_info(e);
    struct ready_log *log = arg;
    struct mc_byte_range range;

    assert_int_equal(block, log->next_block);
    assert_int_equal(first, log->next_layer);
    log->next_layer = first + count;
    assert_int_equal(mc_layout_layers(info->layout, first, count, &range), MC_OK);
    assert_int_equal(mc_engine_export(e, seq, block, first, count,
                         log->blocks + block * info->block_size + range.offset, range.length),
        MC_OK);
    if (log->next_layer < info->layers) /* what was not announced is not there */
        assert_int_equal(mc_engine_export(e, seq, block, 0, info->layers, log->blocks, info->block_size), MC_EINVAL);
    if (log->next_layer == info->layers) {
        log->next_layer = 0;
        log->next_block++;
    }
}

/* Blocks taken while they are made are those taken later, whole or layer by layer. */
static void export_while_computing(void **state)
{
    const struct mc_engine_info *info = mc_engine_info(a);
    struct ready_log log = {.blocks = malloc(info->block_size * 4)};
    uint32_t seq = new_seq(a);
    struct mc_prefill p = {.seq = seq, .end = 290, .tokens = prompt, .ready = on_ready, .arg = &log};

    while (mc_engine_seq_length(a, seq) < p.end)
        assert_int_equal(mc_engine_prefill(a, &p, NULL), MC_OK);
    assert_int_equal(log.next_block, 4);
    for (uint32_t i = 0; i < 4; i++) {
        uint8_t *whole = export_block(a, seq, i), *parts = malloc(info->block_size);

        assert_memory_equal(whole, log.blocks + i * info->block_size, info->block_size);
        for (uint32_t layer = 0; layer < info->layers; layer++) {
            struct mc_byte_range range;

            mc_layout_layers(info->layout, layer, 1, &range);
            assert_int_equal(mc_engine_export(a, seq, i, layer, 1, parts + range.offset, range.length), MC_OK);
        }
        assert_memory_equal(whole, parts, info->block_size);
        free(whole);
        free(parts);
    }
    uint8_t byte;
    assert_int_equal(mc_engine_export(a, seq, 4, 0, info->layers, log.blocks, info->block_size), MC_EINVAL);
    assert_int_equal(mc_engine_export(a, seq, 0, 0, info->layers, &byte, 1), MC_EMISMATCH);
    assert_int_equal(mc_engine_export(a, seq, 0, info->layers, 1, &byte, 1), MC_EINVAL);
    assert_int_equal(mc_engine_export(a, seq + 1, 0, 0, 1, &byte, 1), MC_EINVAL);
    mc_engine_seq_free(a, seq);
    free(log.blocks);
}

/* ---- wrong bytes ---- */

/* One flipped bit in an imported block. An engine that verifies says so, wherever the bit is; another computes something
 * else: the text equality test would fail. */
static void flipped_byte(void **state)
{
    const struct mc_engine_info *info = mc_engine_info(a);
    uint32_t seq = new_seq(a), other, n = 100;
    float *want = malloc(info->vocab_size * sizeof *want);
    uint8_t *block;

    memcpy(want, prefill_all(a, seq, prompt, n, 0), info->vocab_size * sizeof *want);
    block = export_block(a, seq, 0);
    size_t step = info->verifies ? 37 : info->block_size / 3 | 1;
    for (size_t at = 1; at < info->block_size; at += step) {
        struct mc_block_in in = {0, info->block_tokens, prompt, block, info->block_size};
        size_t done = 7;

        block[at] ^= 0x40;
        other = new_seq(b);
        if (info->verifies) {
            assert_int_equal(mc_engine_import(b, other, &in, 1, &done), MC_ECORRUPT);
            assert_int_equal(done, 0);
            assert_int_equal(mc_engine_seq_length(b, other), 0);
        } else {
            enum mc_status st = mc_engine_import(b, other, &in, 1, &done);

            if (st != MC_ECORRUPT) { /* which says that it became no finite number */
                assert_int_equal(st, MC_OK);
                assert_memory_not_equal(prefill_all(b, other, prompt, n, 0), want, info->vocab_size * sizeof *want);
            }
        }
        block[at] ^= 0x40;
        mc_engine_seq_free(b, other);
    }
    free(block);
    free(want);
    mc_engine_seq_free(a, seq);
}

/* Bytes that are right, but for another place or prefix. */
static void foreign_blocks(void **state)
{
    const struct mc_engine_info *info = mc_engine_info(a);
    uint32_t seq, swapped = new_seq(a), other, bt = info->block_tokens, tokens[256];
    struct mc_block_in in[2];
    size_t done;

    if (!info->verifies) {
        print_message("         (engine %s cannot tell; the fingerprinted block id does)\n", engine_name);
        mc_engine_seq_free(a, swapped);
        return;
    }
    seq = new_seq(a);
    prefill_all(a, seq, prompt, 3 * bt, 0);
    /* same tokens in the second block, another first block */
    memcpy(tokens, prompt + 2 * bt, bt * sizeof *tokens);
    memcpy(tokens + bt, prompt + bt, bt * sizeof *tokens);
    prefill_all(a, swapped, tokens, 2 * bt, 0);
    in[0] = (struct mc_block_in){0, bt, prompt, export_block(a, seq, 0), info->block_size};
    in[1] = (struct mc_block_in){1, bt, prompt + bt, export_block(a, swapped, 1), info->block_size};
    other = new_seq(b);
    assert_int_equal(mc_engine_import(b, other, in, 2, &done), MC_ECORRUPT);
    assert_int_equal(done, 1); /* valid up to there */
    assert_int_equal(mc_engine_seq_length(b, other), bt);
    prefill_all(b, other, prompt, 2 * bt, 0);
    free((void *)(uintptr_t)in[1].bytes);
    /* the tokens asked for are not those the bytes were made from */
    mc_engine_seq_free(b, other);
    other = new_seq(b);
    in[0].tokens = prompt + 1;
    assert_int_equal(mc_engine_import(b, other, in, 1, &done), MC_ECORRUPT);
    free((void *)(uintptr_t)in[0].bytes);
    mc_engine_seq_free(b, other);
    mc_engine_seq_free(a, seq);
    mc_engine_seq_free(a, swapped);
}

enum { HOSTILE_BLOCKS = 3, HOSTILE_TOKENS = 230 };

static void half_put(uint8_t *at, uint16_t half)
{
    at[0] = (uint8_t)half;
    at[1] = (uint8_t)(half >> 8);
}

/* Spoil a block in way number `way`; its name, or NULL when there are no more. *number: all halves stay finite. */
static const char *spoil(uint8_t *block, const struct mc_engine_info *info, uint32_t way, bool *number)
{
    struct mc_byte_range x, y;
    uint8_t *other = malloc(info->block_size);

    *number = way >= 6;
    memcpy(other, block, info->block_size);
    mc_layout_layers(info->layout, 0, 1, &x);
    mc_layout_layers(info->layout, info->layers - 1, 1, &y);
    switch (way) {
    case 0: half_put(block, 0x7e00); break; /* a NaN, first of all */
    case 1:
        half_put(block + y.offset + y.length / 2 - 2, 0xfc00);
        break; /* minus infinity, the last K of the last layer */
    case 2: half_put(block + info->block_size / 4 * 2, 0x7c01); break;
    case 3: memset(block, 0xff, info->block_size); break;
    case 4: memset(block + x.offset, 0x7c, x.length); break;
    case 5:
        for (uint64_t i = 0, word = 1; i < info->block_size; i++, word = word * 6364136223846793005ull + 1)
            block[i] = (uint8_t)(word >> 56);
        break;
    case 6: memset(block, 0, info->block_size); break;
    case 7: /* layers exchanged */
        memcpy(block + x.offset, other + y.offset, x.length);
        memcpy(block + y.offset, other + x.offset, y.length);
        break;
    case 8: /* K and V of a layer exchanged */
        memcpy(block, other + x.length / 2, x.length / 2);
        memcpy(block + x.length / 2, other, x.length / 2);
        break;
    case 9: /* the largest number there is, everywhere: what is computed from it need not be one */
        for (uint64_t i = 0; i < info->block_size; i += 2)
            half_put(block + i, 0x7bff);
        break;
    default: free(other); return NULL;
    }
    free(other);
    static const char *const names[] = {"a NaN", "an infinity", "a NaN in the middle", "all ones",
        "a layer of infinities", "noise", "zeros", "layers exchanged", "K and V exchanged", "the largest number"};
    return names[way];
}

enum { WITNESS_TOKENS = 77, WITNESS_STEPS = 24 };

/* A sequence beside the hostile one, and what it says step by step when it is alone. */
struct witness {
    uint32_t seq, steps;
    float *want;
};

static void witness_begin(struct witness *w)
{
    size_t vocab = mc_engine_info(a)->vocab_size;
    uint32_t seq = new_seq(a);

    *w = (struct witness){.seq = new_seq(b), .want = malloc(WITNESS_STEPS * vocab * sizeof(float))};
    prefill_all(a, seq, prompt + 9, WITNESS_TOKENS, 0);
    for (uint32_t i = 0; i < WITNESS_STEPS; i++)
        memcpy(w->want + i * vocab, decode_one(a, seq, prompt[i]), vocab * sizeof(float));
    mc_engine_seq_free(a, seq);
    prefill_all(b, w->seq, prompt + 9, WITNESS_TOKENS, 0);
}

/* The witness goes on with the same bits, and so does a prompt that gets cells which hostile bytes were in. */
static void no_trace(struct witness *w, const float *want)
{
    size_t vocab = mc_engine_info(b)->vocab_size;
    uint32_t seq = new_seq(b);

    assert_true(w->steps < WITNESS_STEPS);
    assert_memory_equal(decode_one(b, w->seq, prompt[w->steps]), w->want + w->steps * vocab, vocab * sizeof(float));
    w->steps++;
    assert_memory_equal(prefill_all(b, seq, prompt, HOSTILE_TOKENS, 0), want, vocab * sizeof(float));
    mc_engine_seq_free(b, seq);
}

/* A block in the middle is hostile, in every way that lengths and order allow. It is refused, with what was before it kept, or
 * it is numbers that no engine can tell from right ones: then nothing but this one sequence is concerned. */
static void hostile_blocks(void **state)
{
    const struct mc_engine_info *info = mc_engine_info(a);
    size_t size = info->vocab_size * sizeof(float), done;
    float *want = malloc(size);
    uint32_t seq, bt = info->block_tokens;
    struct witness witness;
    struct mc_block_in in[HOSTILE_BLOCKS];
    uint8_t *spoilt = malloc(info->block_size);
    const char *name;
    bool number;

    witness_begin(&witness);
    seq = new_seq(a);
    memcpy(want, prefill_all(a, seq, prompt, HOSTILE_TOKENS, 0), size);
    for (uint32_t i = 0; i < HOSTILE_BLOCKS; i++)
        in[i] = (struct mc_block_in){i, bt, prompt + i * bt, export_block(a, seq, i), info->block_size};
    mc_engine_seq_free(a, seq);
    const void *good = in[1].bytes;
    in[1].bytes = spoilt;
    for (uint32_t way = 0; memcpy(spoilt, good, info->block_size), (name = spoil(spoilt, info, way, &number)); way++) {
        bool refused = info->verifies || !number;
        uint32_t other = new_seq(b);
        enum mc_status st = mc_engine_import(b, other, in, HOSTILE_BLOCKS, &done);

        if (st != (refused ? MC_ECORRUPT : MC_OK) || done != (refused ? 1 : HOSTILE_BLOCKS))
            fail_msg("%s: %s, %zu blocks imported", name, mc_status_str(st), done);
        assert_int_equal(mc_engine_seq_length(b, other), done * bt);
        const float *logits = prefill_all(b, other, prompt, HOSTILE_TOKENS, 0);
        if (refused != (memcmp(logits, want, size) == 0))
            fail_msg("%s: logits %s", name, refused ? "differ after the refusal" : "are those of the right bytes");
        decode_one(b, other, prompt[0]);
        no_trace(&witness, want);
        mc_engine_seq_free(b, other);
        no_trace(&witness, want);
    }
    for (uint32_t i = 0; i < HOSTILE_BLOCKS; i++)
        free(i == 1 ? (void *)(uintptr_t)good : (void *)(uintptr_t)in[i].bytes);
    mc_engine_seq_free(b, witness.seq);
    free(witness.want);
    free(spoilt);
    free(want);
}

static void import_misuse(void **state)
{
    const struct mc_engine_info *info = mc_engine_info(a);
    uint32_t seq = new_seq(a), other = new_seq(b), bt = info->block_tokens, wild[256];
    uint8_t *bytes;
    struct mc_block_in in[2];
    size_t done = 9;

    prefill_all(a, seq, prompt, 2 * bt, 0);
    bytes = export_block(a, seq, 0);
    const struct mc_block_in good = {0, bt, prompt, bytes, info->block_size};
#define REFUSED(status, change)                                                                                        \
    do {                                                                                                               \
        in[0] = good;                                                                                                  \
        change;                                                                                                        \
        assert_int_equal(mc_engine_import(b, other, in, 1, &done), status);                                            \
        assert_int_equal(done, 0);                                                                                     \
        assert_int_equal(mc_engine_seq_length(b, other), 0);                                                           \
        assert_int_equal(mc_engine_space(b).tokens_used, 0);                                                           \
    } while (0)
    REFUSED(MC_EINVAL, in[0].index = 1); /* gap */
    REFUSED(MC_EINVAL, in[0].index = UINT32_MAX);
    REFUSED(MC_EINVAL, in[0].rows = 0);
    REFUSED(MC_EMISMATCH, in[0].rows = bt + 1);
    REFUSED(MC_EMISMATCH, in[0].rows = bt - 1); /* size is that of a whole one */
    REFUSED(MC_EMISMATCH, in[0].size -= 64);
    REFUSED(MC_EMISMATCH, in[0].size += 64);
    REFUSED(MC_EMISMATCH, in[0].size -= 1);
    REFUSED(MC_EMISMATCH, in[0].size = 0);
    REFUSED(MC_EMISMATCH, in[0].size = SIZE_MAX);
    REFUSED(MC_EMISMATCH, in[0].rows = UINT32_MAX);
    for (uint32_t i = 0; i < bt; i++)
        wild[i] = info->vocab_size;
    REFUSED(MC_EINVAL, in[0].tokens = wild);
    assert_int_equal(mc_engine_import(b, other + 1, &good, 1, &done), MC_EINVAL);
    in[0] = good;
    in[1] = good;
    assert_int_equal(mc_engine_import(b, other, in, 2, &done), MC_EINVAL); /* twice */
    assert_int_equal(mc_engine_seq_length(b, other), 0);
    assert_int_equal(mc_engine_import(b, other, in, 1, &done), MC_OK);
    assert_int_equal(mc_engine_import(b, other, in, 1, &done), MC_EINVAL); /* again */
    assert_int_equal(mc_engine_seq_length(b, other), bt);
    free(bytes);
    mc_engine_seq_free(a, seq);
    mc_engine_seq_free(b, other);
}

/* Part of a block, as after a range read: rows below block_tokens, in a layout of that many. */
static void partial_block(void **state)
{
    const struct mc_engine_info *info = mc_engine_info(a);
    uint32_t seq = new_seq(a), other, rows = info->block_tokens / 2, n = info->block_tokens + rows + 3;
    struct mc_byte_range from[2 * MC_LAYERS_MAX];
    struct mc_layout *part;
    uint8_t *block, *bytes;

    prefill_all(a, seq, prompt, n, 0);
    block = export_block(a, seq, 0);
    assert_int_equal(mc_layout_create(info->geometry, rows, &part), MC_OK);
    assert_int_equal(mc_layout_rows(info->layout, 0, rows, from, 2 * MC_LAYERS_MAX), MC_OK);
    bytes = calloc(1, mc_layout_size(part));
    for (size_t i = 0; i < mc_layout_plane_count(part); i++)
        memcpy(bytes + mc_layout_plane(part, i).offset, block + from[i].offset, from[i].length);
    other = new_seq(b);
    const struct mc_block_in in = {0, rows, prompt, bytes, mc_layout_size(part)};
    assert_int_equal(mc_engine_import(b, other, &in, 1, NULL), MC_OK);
    assert_int_equal(mc_engine_seq_length(b, other), rows);
    const struct mc_block_in next = {1, info->block_tokens, prompt, block, info->block_size};
    assert_int_equal(mc_engine_import(b, other, &next, 1, NULL), MC_EINVAL); /* nothing may follow a short one */
    prefill_all(b, other, prompt, n, 0);
    if (info->verifies) {
        uint8_t *again = export_block(b, other, 0);

        assert_memory_equal(again, block, info->block_size);
        free(again);
    }
    mc_layout_destroy(part);
    free(bytes);
    free(block);
    mc_engine_seq_free(a, seq);
    mc_engine_seq_free(b, other);
}

/* ---- limits ---- */

static void sequences_are_limited(void **state)
{
    uint32_t seqs[SEQUENCES], more;

    for (int i = 0; i < SEQUENCES; i++)
        seqs[i] = new_seq(a);
    assert_int_equal(mc_engine_seq_create(a, &more), MC_EBUSY);
    assert_int_equal(mc_engine_space(a).sequences_used, SEQUENCES);
    mc_engine_seq_free(a, seqs[1]);
    more = new_seq(a);
    assert_int_equal(mc_engine_seq_length(a, more), 0);
    mc_engine_seq_free(a, more);
    mc_engine_seq_free(a, more); /* twice: ignored */
    mc_engine_seq_free(a, UINT32_MAX);
    for (int i = 0; i < SEQUENCES; i++)
        if (i != 1)
            mc_engine_seq_free(a, seqs[i]);
    assert_int_equal(mc_engine_space(a).sequences_used, 0);
}

static void decode_misuse(void **state)
{
    uint32_t seq = new_seq(a), empty = new_seq(a);
    struct mc_decode_slot slots[2] = {{.seq = seq, .token = prompt[0]}, {.seq = seq, .token = prompt[0]}};
    struct mc_prefill p = {.seq = seq, .end = 10, .tokens = prompt};

    prefill_all(a, seq, prompt, 10, 0);
    assert_int_equal(mc_engine_decode(a, slots, 2), MC_EINVAL); /* twice in a step */
    slots[1].seq = empty;
    assert_int_equal(mc_engine_decode(a, slots, 2), MC_EINVAL);
    slots[1].seq = 77;
    assert_int_equal(mc_engine_decode(a, slots, 2), MC_EINVAL);
    slots[0].token = mc_engine_info(a)->vocab_size;
    assert_int_equal(mc_engine_decode(a, slots, 1), MC_EINVAL);
    assert_int_equal(mc_engine_decode(a, slots, 0), MC_EINVAL);
    assert_int_equal(mc_engine_prefill(a, &p, NULL), MC_EINVAL); /* nothing left to do */
    p.end = UINT32_MAX;
    assert_int_equal(mc_engine_prefill(a, &p, NULL), MC_EINVAL);
    assert_int_equal(mc_engine_seq_length(a, seq), 10);
    mc_engine_seq_free(a, seq);
    mc_engine_seq_free(a, empty);
}

/* A full context refuses, and what is in it is as good as before. */
static void context_full(void **state)
{
    struct mc_engine_options o = options_of();
    struct mc_engine *small;
    uint32_t s1, s2, text[20], text2[20];
    struct mc_prefill p;

    o.context_tokens = 256;
    small = open_engine(&o);
    uint32_t cells = mc_engine_info(small)->context_tokens;
    assert_true(cells >= 256);
    s1 = new_seq(small);
    answer(small, s1, prefill_all(small, s1, prompt, 100, 0), text, 20);
    mc_engine_seq_free(small, s1);

    s1 = new_seq(small);
    const float *logits = prefill_all(small, s1, prompt, 100, 0);
    text2[0] = argmax(logits, mc_engine_info(small)->vocab_size);
    s2 = new_seq(small);
    p = (struct mc_prefill){.seq = s2, .end = cells - 99, .tokens = prompt};
    enum mc_status st = MC_OK;
    while (st == MC_OK && mc_engine_seq_length(small, s2) < p.end)
        st = mc_engine_prefill(small, &p, NULL);
    assert_int_equal(st, MC_ENOSPC);
    for (int i = 1; i < 20; i++)
        text2[i] = argmax(decode_one(small, s1, text2[i - 1]), mc_engine_info(small)->vocab_size);
    assert_memory_equal(text, text2, sizeof text);
    mc_engine_seq_free(small, s2);
    mc_engine_seq_free(small, s1);
    assert_int_equal(mc_engine_space(small).tokens_used, 0);
    mc_engine_close(small);
}

static void *cancel_soon(void *arg)
{
    usleep(20000);
    __atomic_store_n((int *)arg, 1, __ATOMIC_RELAXED);
    return NULL;
}

/* Cancelled before and during: the sequence is as it was, and computing again gives the same bits. */
static void cancel(void **state)
{
    const struct mc_engine_info *info = mc_engine_info(a);
    uint32_t seq = new_seq(a), length;
    float *want = malloc(info->vocab_size * sizeof *want);
    int word = 1;
    struct mc_prefill p = {.seq = seq, .end = 600, .tokens = prompt, .cancel = &word};
    pthread_t thread;
    enum mc_status st;

    memcpy(want, prefill_all(a, seq, prompt, 600, 0), info->vocab_size * sizeof *want);
    mc_engine_seq_free(a, seq);
    p.seq = seq = new_seq(a);
    assert_int_equal(mc_engine_prefill(a, &p, NULL), MC_ECANCELED);
    assert_int_equal(mc_engine_seq_length(a, seq), 0);
    word = 0;
    assert_int_equal(pthread_create(&thread, NULL, cancel_soon, &word), 0);
    do {
        length = mc_engine_seq_length(a, seq);
        st = length < p.end ? mc_engine_prefill(a, &p, NULL) : MC_ECANCELED;
    } while (st == MC_OK);
    assert_int_equal(st, MC_ECANCELED);
    assert_int_equal(mc_engine_seq_length(a, seq), length);
    pthread_join(thread, NULL);
    if (length < p.end)
        assert_memory_equal(prefill_all(a, seq, prompt, 600, 0), want, info->vocab_size * sizeof *want);
    mc_engine_seq_free(a, seq);
    free(want);
}

/* ---- threads ---- */

struct chatter {
    int stop, rounds; /* atomic, relaxed: a round more or less */
};

static void *tokenize_all_the_time(void *arg)
{
    struct chatter *c = arg;
    const struct mc_chat_message message = {"user", "你好, how are you?"};
    uint32_t tokens[100];
    char text[500], piece[MC_PIECE_SIZE_MAX];
    size_t length, count, n;

    while (!__atomic_load_n(&c->stop, __ATOMIC_RELAXED)) {
        if (mc_engine_chat(a, &message, 1, true, text, sizeof text, &length) != MC_OK ||
            mc_engine_tokenize(a, text, length, MC_TOKENIZE_SPECIAL, tokens, 100, &count) != MC_OK ||
            mc_engine_piece(a, tokens[count / 2], true, piece, sizeof piece, &n) != MC_OK)
            abort();
        __atomic_add_fetch(&c->rounds, 1, __ATOMIC_RELAXED);
        usleep(100);
    }
    return NULL;
}

static void tokenize_beside_decode(void **state)
{
    struct chatter c = {0};
    uint32_t text[ANSWER];
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, tokenize_all_the_time, &c), 0);
    do {
        uint32_t seq = new_seq(a);

        answer(a, seq, prefill_all(a, seq, prompt, 200, 0), text, ANSWER);
        mc_engine_seq_free(a, seq);
    } while (__atomic_load_n(&c.rounds, __ATOMIC_RELAXED) < 5);
    __atomic_store_n(&c.stop, 1, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
}

static void thread_count(void **state)
{
    uint32_t seq = new_seq(a);

    mc_engine_set_threads(a, 99);
    prefill_all(a, seq, prompt, 65, 0);
    mc_engine_set_threads(a, 0); /* clamped to 1 */
    decode_one(a, seq, prompt[0]);
    mc_engine_seq_free(a, seq);
}

/* ---- identity ---- */

static void record(void **state)
{
    const struct mc_engine_info *i = mc_engine_info(a), *j = mc_engine_info(b);
    struct mc_fingerprint fp;
    uint8_t hash[32];

    assert_null(mc_fp_record_diff(i->record, j->record));
    assert_memory_equal(&i->fingerprint, &j->fingerprint, sizeof fp);
    assert_int_equal(mc_fp_record_hash(i->record, &fp), MC_OK);
    assert_memory_equal(&fp, &i->fingerprint, sizeof fp);
    mc_geometry_hash(i->geometry, hash);
    assert_memory_equal(hash, i->record->geometry_hash, 32);
    assert_int_equal(i->block_size, mc_layout_size(i->layout));
    assert_int_equal(i->layers, mc_geometry_layers(i->geometry));
    assert_string_equal(i->record->engine, engine_name);
    assert_true(i->model[0] && i->sequence_tokens_max >= 1024 && i->vocab_size > 256);
}

static void refused_options(void **state)
{
    struct mc_engine *e;
    char err[300];

#define OPTION(change, st, word)                                                                                       \
    do {                                                                                                               \
        struct mc_engine_options o = options_of();                                                                     \
        change;                                                                                                        \
        err[0] = 0;                                                                                                    \
        assert_int_equal(mc_engine_open(&o, &e, err, sizeof err), st);                                                 \
        if (!strstr(err, word))                                                                                        \
            fail_msg("'%s' does not mention '%s'", err, word);                                                         \
    } while (0)
    OPTION(o.block_tokens = 100, MC_EINVAL, "block_tokens");
    OPTION(o.chunk_tokens = 100, MC_EINVAL, "chunk_tokens");
    OPTION(o.context_tokens = 10, MC_EINVAL, "context_tokens");
    OPTION(o.sequences_max = 255, MC_EINVAL, "sequences_max");
    OPTION(o.adapter = "lora", MC_ENOSUP, "lora");
    OPTION(o.engine = "lama", MC_ENOENT, "lama");
    OPTION(o.engine = "../evil", MC_ENOENT, "not known");
    OPTION((o.engine = "other", o.engine_path = "/nonexistent"), MC_ENOENT, "/nonexistent");
    if (strcmp(engine_name, "synthetic") != 0)
        OPTION(o.model_path = "/nonexistent.gguf", MC_ENOENT, "/nonexistent.gguf");
}

/* ---- set-up ---- */

/* Words the test may use in any engine; repeated with numbers so that blocks differ. */
static void make_prompt(struct mc_engine *e)
{
    char text[PROMPT_MAX * 12];
    size_t length = 0;

    for (int i = 0; length < 6000; i++)
        length += (size_t)snprintf(text + length, sizeof text - length,
            "Line %d: the cache keeps the words of line %d, and 第%d行缓存可以复用. ", i, i / 2, i);
    enum mc_status st = mc_engine_tokenize(e, text, length, MC_TOKENIZE_BOS, prompt, PROMPT_MAX, &prompt_length);
    if (st == MC_ETOOBIG) {
        uint32_t *all = malloc(prompt_length * sizeof *all);
        size_t n;

        mc_engine_tokenize(e, text, length, MC_TOKENIZE_BOS, all, prompt_length, &n);
        memcpy(prompt, all, sizeof prompt);
        prompt_length = PROMPT_MAX;
        free(all);
    }
}

/* Path of the model tools/fetch-engine left, or false. */
static bool find_model(void)
{
    const char *given = getenv("MOONCAKE_TEST_MODEL");
    char folder[400];

    if (given)
        snprintf(model_path, sizeof model_path, "%s", given);
    else if (xdg_path(XDG_CACHE, "engine", folder, sizeof folder) == MC_OK)
        snprintf(model_path, sizeof model_path, "%s/SmolLM2-135M-Instruct.Q8_0.gguf", folder);
    return access(model_path, R_OK) == 0;
}

static int set_up(void **state)
{
    struct mc_engine_options o = options_of();

    a = open_engine(&o);
    b = open_engine(&o);
    make_prompt(a);
    return 0;
}

static int tear_down(void **state)
{
    mc_engine_close(a);
    mc_engine_close(b);
    return 0;
}

static bool available(char *err, size_t err_size)
{
    struct mc_engine_options o = options_of();
    struct mc_engine *engine;

    if (mc_engine_open(&o, &engine, err, err_size) != MC_OK)
        return false;
    mc_engine_close(engine);
    return true;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(record),
        cmocka_unit_test(round_trip),
        cmocka_unit_test(tokenize_limits),
        cmocka_unit_test(chat_template),
        cmocka_unit_test(import_equals_compute),
        cmocka_unit_test(chunks_do_not_matter),
        cmocka_unit_test(stream_continues_elsewhere),
        cmocka_unit_test(batched_decode),
        cmocka_unit_test(neighbours_do_not_matter),
        cmocka_unit_test(export_while_computing),
        cmocka_unit_test(flipped_byte),
        cmocka_unit_test(foreign_blocks),
        cmocka_unit_test(hostile_blocks),
        cmocka_unit_test(import_misuse),
        cmocka_unit_test(partial_block),
        cmocka_unit_test(sequences_are_limited),
        cmocka_unit_test(decode_misuse),
        cmocka_unit_test(context_full),
        cmocka_unit_test(cancel),
        cmocka_unit_test(tokenize_beside_decode),
        cmocka_unit_test(thread_count),
        cmocka_unit_test(refused_options),
    };
    char err[400] = "";

    if (argc > 1)
        engine_name = argv[1];
    log_set_name("engine test");
    if (strcmp(engine_name, "synthetic") != 0) {
        if (!find_model()) {
            printf("SKIP engine %s: no model at %s (tools/fetch-engine gets it)\n", engine_name, model_path);
            return 77;
        }
        if (!available(err, sizeof err)) {
            printf("SKIP engine %s: %s\n", engine_name, err);
            return 77;
        }
    }
    return cmocka_run_group_tests_name(engine_name, tests, set_up, tear_down);
}
