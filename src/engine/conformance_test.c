/* conformance_test.c - what every engine must do: one file, run over each of them.
 *
 *     engine_conformance_test synthetic
 *     engine_conformance_test llama       plug-in and model from MOONCAKE_TEST_ENGINE_PATH and MOONCAKE_TEST_MODEL, else
 *                                         from the cache that tools/fetch-engine fills; neither: exit 77, "skipped"
 *
 * Method: engine A computes a prompt and answers greedily; its blocks, exported through the public interface, go into
 * engine B, an instance of its own, which continues. Logits must be bit-equal and the text the same for reuse around every
 * block boundary. Then everything a caller may do wrong, which must be refused without a trace. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/scratch_test.h"
#include "base/xdg.h"
#include "engine/conformance.h"

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

/* A model whose template nobody knows is refused at open, in words; never is another template taken for it. */
static void unknown_template(void **state)
{
    static const char key[] = "tokenizer.chat_template";
    char dir[SCRATCH_PATH], path[SCRATCH_PATH + 8], err[400] = "";
    struct mc_engine_options o = options_of();
    struct mc_engine *e;
    size_t size, changed = 0;
    char *file, *at, *end;
    uint64_t length;
    int fd;

    if (!o.model_path)
        return; /* its template is built in */
    assert_int_equal(path_read(o.model_path, SIZE_MAX, &file, &size), MC_OK);
    at = memmem(file, size, key, strlen(key)); /* then: u32 type (8: text), u64 length, the text */
    assert_non_null(at);
    memcpy(&length, at + strlen(key) + 4, sizeof length);
    at += strlen(key) + 12;
    for (end = at + length; (at = memmem(at, (size_t)(end - at), "im_start", 8)); changed++)
        memcpy(at, "to_begin", 8);
    assert_true(changed > 0);
    scratch_dir(dir);
    snprintf(path, sizeof path, "%s/model", dir);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    for (size_t done = 0; done < size;) {
        ssize_t n = write(fd, file + done, size - done);

        assert_true(n > 0);
        done += (size_t)n;
    }
    close(fd);
    free(file);
    o.model_path = path;
    enum mc_status st = mc_engine_open(&o, &e, err, sizeof err);
    assert_int_equal(st, MC_ENOSUP);
    assert_non_null(strstr(err, "chat template"));
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
        cmocka_unit_test(unknown_template),
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
