/* synthetic_test.c - what only the synthetic engine promises: speed as set without spinning, readable text, blocks in
 * portions of layers, and that bytes changed in its own memory after the import are found by the next step.
 * Includes the .c file to reach that memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/resource.h>
#include <cmocka.h>

#include "engine/synthetic/synthetic.c"

static struct mc_engine *open_with(void (*change)(struct mc_engine_options *))
{
    struct mc_engine_options o;
    struct mc_engine *engine;

    mc_engine_options_init(&o);
    if (change)
        change(&o);
    assert_int_equal(mc_engine_open(&o, &engine, NULL, 0), MC_OK);
    return engine;
}

static uint32_t argmax(const float *logits)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < vocab_size(); i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

/* Prefill a text; its sequence, and the logits behind it. */
static uint32_t begin(struct mc_engine *e, const char *text, const float **logits)
{
    uint32_t tokens[4096], seq;
    size_t count;
    struct mc_prefill p = {.tokens = tokens};

    assert_int_equal(mc_engine_tokenize(e, text, strlen(text), MC_TOKENIZE_SPECIAL, tokens, 4096, &count), MC_OK);
    assert_int_equal(mc_engine_seq_create(e, &seq), MC_OK);
    p.seq = seq;
    p.end = (uint32_t)count;
    while (mc_engine_seq_length(e, seq) < p.end)
        assert_int_equal(mc_engine_prefill(e, &p, logits), MC_OK);
    return seq;
}

static size_t write_answer(struct mc_engine *e, const char *prompt, char *out, size_t size, uint32_t tokens_max)
{
    const float *logits;
    uint32_t seq = begin(e, prompt, &logits), count = 0;
    size_t length = 0, n;

    for (; count < tokens_max; count++) {
        struct mc_decode_slot slot = {.seq = seq, .token = argmax(logits)};

        if (mc_engine_is_end(e, slot.token))
            break;
        assert_int_equal(mc_engine_piece(e, slot.token, false, out + length, size - length, &n), MC_OK);
        length += n;
        assert_int_equal(mc_engine_decode(e, &slot, 1), MC_OK);
        assert_int_equal(slot.status, MC_OK);
        logits = slot.logits;
    }
    out[length] = 0;
    mc_engine_seq_free(e, seq);
    return count;
}

static void readable_text(void **state)
{
    struct mc_engine *e = open_with(NULL);
    char text[4096], again[4096];
    size_t ended = 0;

    for (int i = 0; i < 30; i++) {
        char prompt[200];

        snprintf(prompt, sizeof prompt, "<|im_start|>user\n%s %d?<|im_end|>\n<|im_start|>assistant\n",
            i % 2 ? "什么是缓存" : "What is a cache", i);
        size_t n = write_answer(e, prompt, text, sizeof text, 400);
        assert_true(n > 6);
        ended += n < 400;
        write_answer(e, prompt, again, sizeof again, 400);
        assert_string_equal(text, again);
        for (const char *c = text; i % 2 == 0 && *c; c++)
            assert_true((*c >= 'a' && *c <= 'z') || *c == ' ' || *c == '.');
        if (i < 2)
            print_message("         %zu tokens: %s\n", n, text);
    }
    assert_true(ended == 30);
    mc_engine_close(e);
}

/* The answer's text, tokenised again, gives its tokens: a second turn of a chat hits the first turn's blocks. */
static void second_turn_same_tokens(void **state)
{
    struct mc_engine *e = open_with(NULL);
    const float *logits;
    uint32_t seq = begin(e, "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n", &logits), tokens[300],
             again[300];
    char text[4096];
    size_t length = 0, n, count = 0, back;

    for (; count < 300; count++) {
        struct mc_decode_slot slot = {.seq = seq, .token = argmax(logits)};

        if (mc_engine_is_end(e, slot.token))
            break;
        tokens[count] = slot.token;
        mc_engine_piece(e, slot.token, false, text + length, sizeof text - length, &n);
        length += n;
        assert_int_equal(mc_engine_decode(e, &slot, 1), MC_OK);
        logits = slot.logits;
    }
    assert_int_equal(mc_engine_tokenize(e, text, length, 0, again, 300, &back), MC_OK);
    assert_int_equal(back, count);
    assert_memory_equal(again, tokens, count * sizeof *tokens);
    mc_engine_close(e);
}

/* Somebody writes into the engine's memory between two steps: the next step says so, for every byte. */
static void memory_changed(void **state)
{
    struct mc_engine *e = open_with(NULL);
    const float *logits;
    uint32_t seq = begin(e, "a stray write in the middle of the sequence", &logits);
    struct synth *synth = synth_of(e);
    uint32_t rows = mc_engine_seq_length(e, seq);

    for (size_t at = 0; at < mc_layout_size(synth->layout); at += 11) {
        struct mc_decode_slot slot = {.seq = seq, .token = 'x'};
        uint8_t *byte = &synth->seqs[seq].blocks[0][at];

        if (at % 4096 / synth->row_size >= rows)
            continue; /* a row not in use yet */
        *byte ^= 1;
        assert_int_equal(mc_engine_decode(e, &slot, 1), MC_OK);
        assert_int_equal(slot.status, MC_ECORRUPT);
        assert_null(slot.logits);
        assert_int_equal(mc_engine_seq_length(e, seq), rows);
        *byte ^= 1;
    }
    mc_engine_close(e);
}

static void change_seed(struct mc_engine_options *o)
{
    o->seed = 5;
}

/* Another seed is another model: other fingerprint, its blocks are foreign. */
static void seeds_do_not_mix(void **state)
{
    struct mc_engine *e = open_with(NULL), *f = open_with(change_seed);
    const struct mc_engine_info *info = mc_engine_info(e);
    const char *text = "0123456789012345678901234567890123456789012345678901234567890123456789";
    const float *logits;
    uint32_t seq = begin(e, text, &logits), other, tokens[200];
    uint8_t *block = malloc(info->block_size);
    size_t count;

    assert_string_equal(mc_fp_record_diff(info->record, mc_engine_info(f)->record), "model_hash");
    mc_engine_tokenize(e, text, strlen(text), 0, tokens, 200, &count);
    assert_int_equal(mc_engine_export(e, seq, 0, 0, info->layers, block, info->block_size), MC_OK);
    mc_engine_seq_create(f, &other);
    const struct mc_block_in in = {0, 64, tokens, block, info->block_size};
    assert_int_equal(mc_engine_import(f, other, &in, 1, NULL), MC_ECORRUPT);
    free(block);
    mc_engine_close(e);
    mc_engine_close(f);
}

static void change_speed(struct mc_engine_options *o)
{
    o->prefill_tokens_per_s = 4000;
    o->decode_ms_per_step = 20;
    o->ready_layers = 3;
}

static double cpu_s(void)
{
    struct rusage use;

    getrusage(RUSAGE_SELF, &use);
    return (double)use.ru_utime.tv_sec + (double)use.ru_stime.tv_sec +
           (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec) / 1e6;
}

struct portions {
    uint32_t calls, layers;
    uint64_t first_ns;
};

static void count_portions(void *arg, struct mc_engine *e, uint32_t seq, uint32_t block, uint32_t first, uint32_t count)
{
    struct portions *p = arg;

    if (p->calls++ == 0)
        p->first_ns = now_ns();
    p->layers += count;
}

struct paces {
    uint64_t prefill_ns, first_block_ns, decode_ns; /* 800 tokens, the first block of them, 5 steps */
};

static struct paces measure(struct mc_engine *e)
{
    uint32_t tokens[800], seq;
    struct portions portions = {0};
    struct mc_prefill p = {.end = 800, .tokens = tokens, .ready = count_portions, .arg = &portions};
    const float *logits;
    uint64_t begin_ns = now_ns();
    struct paces paces;

    for (uint32_t i = 0; i < 800; i++)
        tokens[i] = i % 256;
    mc_engine_seq_create(e, &seq);
    p.seq = seq;
    while (mc_engine_seq_length(e, seq) < p.end)
        assert_int_equal(mc_engine_prefill(e, &p, &logits), MC_OK);
    paces.prefill_ns = now_ns() - begin_ns;
    paces.first_block_ns = portions.first_ns - begin_ns;
    assert_int_equal(portions.calls, 12 * 2); /* layers 0..2 and 3 of 12 full blocks */
    assert_int_equal(portions.layers, 12 * 4);
    begin_ns = now_ns();
    for (int i = 0; i < 5; i++) {
        struct mc_decode_slot slot = {.seq = seq, .token = 'x'};

        assert_int_equal(mc_engine_decode(e, &slot, 1), MC_OK);
    }
    paces.decode_ns = now_ns() - begin_ns;
    mc_engine_seq_free(e, seq);
    return paces;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Never faster than set. Not much slower either, as far as that is ours: others on the machine may delay any one try, so the
 * best of some counts. */
static void speed_as_set(void **state)
{
    struct mc_engine *e = open_with(change_speed);
    struct paces best = {UINT64_MAX, UINT64_MAX, UINT64_MAX};
    double cpu = cpu_s();
    int tries = 0;

    do {
        struct paces one = measure(e);

        assert_true(one.prefill_ns >= 199 * NS_PER_MS && one.first_block_ns >= 15 * NS_PER_MS);
        assert_true(one.decode_ns >= 99 * NS_PER_MS);
        best.prefill_ns = least(best.prefill_ns, one.prefill_ns);
        best.first_block_ns = least(best.first_block_ns, one.first_block_ns);
        best.decode_ns = least(best.decode_ns, one.decode_ns);
        tries++;
    } while (tries < 20 && (best.prefill_ns > 400 * NS_PER_MS || best.first_block_ns > 100 * NS_PER_MS ||
                               best.decode_ns > 200 * NS_PER_MS));
    print_message("         best of %d: 800 tokens %.1f ms, the first block %.1f ms, 5 steps %.1f ms\n", tries,
        (double)best.prefill_ns / 1e6, (double)best.first_block_ns / 1e6, (double)best.decode_ns / 1e6);
    assert_true(best.prefill_ns <= 400 * NS_PER_MS);
    assert_true(best.first_block_ns <= 100 * NS_PER_MS);
    assert_true(best.decode_ns <= 200 * NS_PER_MS);
    assert_true(cpu_s() - cpu < 0.2 * tries); /* sleeps; sanitizers make the rest slow */
    mc_engine_close(e);
}

static void geometry_settable(struct mc_engine_options *o)
{
    o->layers = 32;
    o->row_size = 1024;
    o->block_tokens = 16;
}

static void settable_geometry(void **state)
{
    struct mc_engine *e = open_with(geometry_settable);

    assert_int_equal(mc_engine_info(e)->block_size, 32 * 2 * 1024 * 16);
    assert_int_equal(mc_geometry_bytes_per_token(mc_engine_info(e)->geometry), 65536);
    mc_engine_close(e);
}

static void bad_geometry(void **state)
{
    struct mc_engine_options o;
    struct mc_engine *e;
    char err[200];

    mc_engine_options_init(&o);
    o.row_size = 12;
    assert_int_equal(mc_engine_open(&o, &e, err, sizeof err), MC_EINVAL);
    o.row_size = 0;
    o.layers = MC_LAYERS_MAX + 1;
    assert_int_equal(mc_engine_open(&o, &e, err, sizeof err), MC_EINVAL);
}

static int quiet(void **state)
{
    log_set_level(LOG_LEVEL_ERROR);
    return 0;
}

static void swallow(void *arg, enum log_level level, const char *text)
{
    ++*(int *)arg;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(readable_text),
        cmocka_unit_test(second_turn_same_tokens),
        cmocka_unit_test(memory_changed),
        cmocka_unit_test(seeds_do_not_mix),
        cmocka_unit_test(speed_as_set),
        cmocka_unit_test(settable_geometry),
        cmocka_unit_test(bad_geometry),
    };
    static int lines;

    log_capture(swallow, &lines); /* wrong bytes are announced loudly, here by the thousand */
    return cmocka_run_group_tests(tests, quiet, NULL);
}
