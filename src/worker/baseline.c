/* baseline.c - the engine alone. */
#include "worker/baseline.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

enum { BASELINE_TEXT_MAX = 16 << 20 };

/* How far the highest logit stands above the second. */
static float gap_of(const float *logits, uint32_t vocab)
{
    float top = -INFINITY, second = -INFINITY;

    for (uint32_t i = 0; i < vocab; i++) {
        if (logits[i] > top) {
            second = top;
            top = logits[i];
        } else if (logits[i] > second) {
            second = logits[i];
        }
    }
    return top - second;
}

static void token_take(
    struct mc_engine *engine, struct baseline_run *run, uint32_t token, const float *logits, uint64_t begun)
{
    char piece[MC_PIECE_SIZE_MAX];
    size_t size = 0;

    run->tokens[run->count] = token;
    run->times_us[run->count] = (now_ns() - begun) / NS_PER_US;
    run->gaps[run->count] = gap_of(logits, mc_engine_info(engine)->vocab_size);
    if (mc_engine_piece(engine, token, false, piece, sizeof(piece), &size) == MC_OK)
        buf_append(&run->text, piece, size);
    if (run->on_token)
        run->on_token(run->arg, run->count, piece, size);
    run->count++;
}

static enum mc_status prompt_compute(
    struct mc_engine *engine, const struct baseline_run *run, uint32_t seq, const float **logits)
{
    struct mc_prefill prefill = {.seq = seq, .end = run->prompt_count, .tokens = run->prompt};
    enum mc_status status = MC_OK;

    while (status == MC_OK && mc_engine_seq_length(engine, seq) < run->prompt_count)
        status = mc_engine_prefill(engine, &prefill, logits);
    return status;
}

static enum mc_status answer_compute(struct mc_engine *engine, struct baseline_run *run, struct mc_sampler *sampler,
    uint32_t seq, const float *logits, uint64_t begun)
{
    const struct mc_engine_info *info = mc_engine_info(engine);

    for (;;) {
        uint32_t token = mc_sampler_pick(sampler, logits, run->count);
        struct mc_decode_slot slot = {.seq = seq, .token = token};
        enum mc_status status;

        if (run->on_choice)
            run->on_choice(run->arg, token, logits, info->vocab_size);
        run->ended = !run->ignore_end && mc_engine_is_end(engine, token);
        if (run->ended)
            return MC_OK;
        token_take(engine, run, token, logits, begun);
        mc_sampler_accept(sampler, token);
        if (run->count == run->max_tokens || run->prompt_count + run->count >= info->sequence_tokens_max)
            return MC_OK;
        status = mc_engine_decode(engine, &slot, 1);
        if (status == MC_OK)
            status = slot.status;
        if (status != MC_OK)
            return status;
        logits = slot.logits;
    }
}

enum mc_status worker_baseline_run(struct mc_engine *engine, struct baseline_run *run, uint32_t *keep_seq)
{
    const struct mc_engine_info *info = mc_engine_info(engine);
    uint64_t begun = now_ns();
    struct mc_sampler *sampler = NULL;
    const float *logits = NULL;
    uint32_t seq = keep_seq ? *keep_seq : UINT32_MAX;
    enum mc_status status;

    run->count = 0;
    run->ended = false;
    buf_init(&run->text, BASELINE_TEXT_MAX);
    run->tokens = calloc(run->max_tokens, sizeof(*run->tokens));
    run->times_us = calloc(run->max_tokens, sizeof(*run->times_us));
    run->gaps = calloc(run->max_tokens, sizeof(*run->gaps));
    if (!run->max_tokens || !run->prompt_count)
        return MC_EINVAL;
    if (!run->tokens || !run->times_us || !run->gaps)
        return MC_ENOMEM;
    status = mc_sampler_create(&run->sampling, info->vocab_size, &sampler);
    if (status != MC_OK)
        return status;
    mc_sampler_prompt(sampler, run->prompt, run->prompt_count);
    mc_engine_set_threads(engine, run->threads ? run->threads : info->threads_max);
    if (seq == UINT32_MAX)
        status = mc_engine_seq_create(engine, &seq);
    if (status != MC_OK)
        goto undo_sampler;
    status = prompt_compute(engine, run, seq, &logits);
    if (status == MC_OK)
        status = logits ? answer_compute(engine, run, sampler, seq, logits, begun) : MC_EINVAL;
    if (keep_seq)
        *keep_seq = seq;
    else
        mc_engine_seq_free(engine, seq);

undo_sampler:
    mc_sampler_destroy(sampler);
    return status;
}

void baseline_run_fini(struct baseline_run *run)
{
    free(run->tokens);
    free(run->times_us);
    free(run->gaps);
    buf_fini(&run->text);
    run->tokens = NULL;
    run->times_us = NULL;
    run->gaps = NULL;
}

uint64_t baseline_ttft_us(const struct baseline_run *run)
{
    return run->count ? run->times_us[0] : 0;
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

uint64_t baseline_tbt_p50_us(const struct baseline_run *run)
{
    uint64_t *gaps, p50;
    uint32_t count = run->count ? run->count - 1 : 0;

    gaps = count ? malloc(count * sizeof(*gaps)) : NULL;
    if (!gaps)
        return 0;
    for (uint32_t i = 0; i < count; i++)
        gaps[i] = run->times_us[i + 1] - run->times_us[i];
    qsort(gaps, count, sizeof(*gaps), compare_u64);
    p50 = gaps[count / 2];
    free(gaps);
    return p50;
}
