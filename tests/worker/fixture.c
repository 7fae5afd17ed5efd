/* fixture.c - workers with synthetic engines under a scripted Conductor. */
#include "tests/worker/fixture.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/rng.h"
#include "base/scratch_test.h"

struct mc_engine *fixture_engine(const struct fixture_setup *setup)
{
    struct mc_engine_options options;
    struct mc_engine *engine = NULL;
    char err[256] = "";

    mc_engine_options_init(&options);
    options.threads = 2;
    options.prefill_tokens_per_s = setup->prefill_tokens_per_s;
    options.decode_ms_per_step = setup->decode_ms_per_step;
    options.context_tokens = setup->context_tokens;
    options.sequences_max = setup->sequences_max;
    options.block_tokens = setup->block_tokens;
    options.chunk_tokens = setup->chunk_tokens;
    if (mc_engine_open(&options, &engine, err, sizeof(err)) != MC_OK)
        fail_msg("engine: %s", err);
    return engine;
}

void fixture_start(struct fixture *fixture)
{
    memset(fixture, 0, sizeof(*fixture));
    scratch_dir(fixture->run_dir);
    fixture->script = script_start();
    fixture->alone = fixture_engine(&(struct fixture_setup){0});
}

void fixture_stop(struct fixture *fixture)
{
    for (unsigned i = 0; i < fixture->count; i++)
        fixture_kill(fixture, i);
    script_stop(fixture->script);
    mc_engine_close(fixture->alone);
}

unsigned fixture_add(struct fixture *fixture, const struct fixture_setup *setup)
{
    struct worker_opts opts;
    const char *address = script_address(fixture->script);
    unsigned index = fixture->count++;
    char name[32], err[256] = "";

    worker_opts_init(&opts);
    snprintf(name, sizeof(name), "%s-%u", setup->name ? setup->name : "worker", index);
    fixture->engines[index] = fixture_engine(setup);
    opts.engine = fixture->engines[index];
    opts.conductors = &address;
    opts.conductor_count = 1;
    opts.role = setup->role ? setup->role : WMSG_ROLE_BOTH;
    opts.name = name;
    opts.master = setup->master;
    opts.run_dir = fixture->run_dir;
    opts.buffer_size = setup->buffer_size;
    opts.stall_ms = setup->stall_ms;
    opts.calibrate = setup->calibrate;
    opts.flip_imported_bit = setup->flip_imported_bit;
    if (worker_create(&opts, &fixture->workers[index], err, sizeof(err)) != MC_OK)
        fail_msg("worker: %s", err);
    return script_find(fixture->script, name);
}

void fixture_kill(struct fixture *fixture, unsigned index)
{
    worker_destroy(fixture->workers[index]);
    mc_engine_close(fixture->engines[index]);
    fixture->workers[index] = NULL;
    fixture->engines[index] = NULL;
}

/* ---- prompts ---- */

static const char *const english[] = {"The cache keeps what was computed once. ",
    "A prefix that two prompts share is loaded. ", "Every block has a name made of its words. ",
    "Nobody waits for a node that is gone. ", "Answers go on elsewhere. "};
static const char *const chinese_words[] = {"缓存保存已经计算过的内容。", "两个提示共享的前缀会被加载。",
    "每个块都有自己的名字。", "没有人等待已经离开的节点。", "回答在别处继续。"};

void fixture_prompt(const struct mc_engine *engine, bool chinese, uint64_t seed, uint32_t *tokens, uint32_t count)
{
    const char *const *words = chinese ? chinese_words : english;
    struct rng rng;
    uint32_t have = 0;

    rng_seed(&rng, seed);
    while (have < count) {
        const char *sentence = words[rng_below(&rng, 5)];
        uint32_t piece[256];
        size_t n = 0;

        assert_int_equal(mc_engine_tokenize(engine, sentence, strlen(sentence), 0, piece, 256, &n), MC_OK);
        assert_true(n > 0);
        for (size_t i = 0; i < n && have < count; i++)
            tokens[have++] = piece[i];
    }
}

void fixture_baseline(struct fixture *fixture, const struct wmsg_run *run, struct baseline_run *want)
{
    memset(want, 0, sizeof(*want));
    want->prompt = run->tokens;
    want->prompt_count = run->token_count;
    want->max_tokens = run->max_tokens;
    want->ignore_end = run->ignore_end;
    want->sampling = run->sampling;
    assert_int_equal(worker_baseline_run(fixture->alone, want, NULL), MC_OK);
}

/* ---- runs ---- */

struct wmsg_run fixture_run(enum wmsg_run_kind kind, const uint32_t *tokens, uint32_t count, uint32_t max)
{
    struct wmsg_run run = {.kind = (uint8_t)kind,
        .tokens = tokens,
        .token_count = count,
        .max_tokens = max,
        .cache_read = true,
        .cache_write = true,
        .load_tokens = WMSG_LOAD_AUTO - 1};

    mc_sampling_init(&run.sampling);
    run.sampling.temperature = 0;
    return run;
}

void fixture_pair(
    struct fixture *fixture, unsigned prefill, unsigned decode, const struct wmsg_run *like, struct pair_result *result)
{
    struct wmsg_run run = *like;
    uint32_t *all = malloc((like->token_count + 1) * sizeof(*all));

    assert_non_null(all);
    result->count = 0;
    run.kind = WMSG_PREFILL;
    run.hold_ms = 5000;
    script_run(fixture->script, prefill, &run, &result->prefill);
    answer_wait(&result->prefill);
    assert_true(result->prefill.done);
    assert_int_equal(result->prefill.status, MC_OK);
    assert_int_equal(result->prefill.finish.reason, WMSG_PREFILLED);
    assert_false(result->prefill.gap);
    if (result->prefill.ended) {
        free(all);
        return;
    }
    assert_int_equal(result->prefill.count, 1);
    result->tokens[result->count++] = result->prefill.tokens[0];
    if (like->max_tokens > 1) {
        memcpy(all, like->tokens, like->token_count * sizeof(*all));
        all[like->token_count] = result->prefill.tokens[0];
        run.kind = WMSG_DECODE;
        run.tokens = all;
        run.token_count = like->token_count + 1;
        run.answer_count = 1;
        script_run(fixture->script, decode, &run, &result->decode);
        answer_wait(&result->decode);
        script_release(&result->prefill);
        assert_true(result->decode.done);
        assert_false(result->decode.gap);
        for (uint32_t i = 0; i < result->decode.count; i++)
            result->tokens[result->count++] = result->decode.tokens[i];
    }
    free(all);
}

void assert_answer(const struct baseline_run *want, const uint32_t *tokens, uint32_t count)
{
    uint32_t i = 0;

    while (i < want->count && i < count && want->tokens[i] == tokens[i])
        i++;
    if (i != want->count || i != count)
        fail_msg("answer differs at token %u of %u (engine alone) and %u (worker)", i, want->count, count);
}
