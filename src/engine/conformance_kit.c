/* conformance_kit.c - see conformance.h. */
#include "engine/conformance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/xdg.h"

const char *engine_name = "synthetic";
char model_path[512];
struct mc_engine *a, *b; /* two instances of the same model */
uint32_t prompt[PROMPT_MAX];
size_t prompt_length;

struct mc_engine_options options_of(void)
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

struct mc_engine *open_engine(const struct mc_engine_options *o)
{
    struct mc_engine *engine;
    char err[400] = "";

    if (mc_engine_open(o, &engine, err, sizeof err) != MC_OK)
        fail_msg("%s", err);
    return engine;
}

uint32_t new_seq(struct mc_engine *e)
{
    uint32_t seq;

    assert_int_equal(mc_engine_seq_create(e, &seq), MC_OK);
    return seq;
}

const float *prefill_all(struct mc_engine *e, uint32_t seq, const uint32_t *tokens, uint32_t end, uint32_t step)
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

uint32_t argmax(const float *logits, uint32_t count)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < count; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

const float *decode_one(struct mc_engine *e, uint32_t seq, uint32_t token)
{
    struct mc_decode_slot slot = {.seq = seq, .token = token};

    assert_int_equal(mc_engine_decode(e, &slot, 1), MC_OK);
    assert_int_equal(slot.status, MC_OK);
    assert_non_null(slot.logits);
    return slot.logits;
}

void answer(struct mc_engine *e, uint32_t seq, const float *logits, uint32_t *out, uint32_t count)
{
    uint32_t vocab = mc_engine_info(e)->vocab_size;

    for (uint32_t i = 0; i < count; i++) {
        out[i] = argmax(logits, vocab);
        if (i + 1 < count)
            logits = decode_one(e, seq, out[i]);
    }
}

uint8_t *export_block(struct mc_engine *e, uint32_t seq, uint32_t index)
{
    const struct mc_engine_info *info = mc_engine_info(e);
    uint8_t *bytes = malloc(info->block_size);

    assert_non_null(bytes);
    memset(bytes, 0xee, info->block_size);
    assert_int_equal(mc_engine_export(e, seq, index, 0, info->layers, bytes, info->block_size), MC_OK);
    return bytes;
}

uint32_t move_blocks(struct mc_engine *from, uint32_t from_seq, struct mc_engine *to, const uint32_t *tokens,
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

size_t tokens_of(struct mc_engine *e, const char *text, uint32_t flags, uint32_t *tokens, size_t max)
{
    size_t count;

    assert_int_equal(mc_engine_tokenize(e, text, strlen(text), flags, tokens, max, &count), MC_OK);
    return count;
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

bool find_model(void)
{
    const char *given = getenv("MOONCAKE_TEST_MODEL");
    char folder[400];

    if (given)
        snprintf(model_path, sizeof model_path, "%s", given);
    else if (xdg_path(XDG_CACHE, "engine", folder, sizeof folder) == MC_OK)
        snprintf(model_path, sizeof model_path, "%s/SmolLM2-135M-Instruct.Q8_0.gguf", folder);
    return access(model_path, R_OK) == 0;
}

int set_up(void **state)
{
    struct mc_engine_options o = options_of();

    a = open_engine(&o);
    b = open_engine(&o);
    make_prompt(a);
    return 0;
}

int tear_down(void **state)
{
    mc_engine_close(a);
    mc_engine_close(b);
    return 0;
}
