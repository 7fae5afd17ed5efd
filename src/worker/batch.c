/* batch.c - which batch next. */
#include "worker/batch.h"

#include "mooncake/engine.h"

/* Index of the first in line among urgent or other prefills; `count` when there is none. */
static size_t first_of(const struct batch_run *runs, size_t count, bool urgent)
{
    size_t best = count;

    for (size_t i = 0; i < count; i++) {
        if (runs[i].prefill_left && runs[i].urgent == urgent && (best == count || runs[i].order < runs[best].order))
            best = i;
    }
    return best;
}

static size_t pick_prefill(struct batcher *batcher, const struct batch_run *runs, size_t count)
{
    size_t urgent = first_of(runs, count, true), other = first_of(runs, count, false);
    bool other_turn = batcher->urgent_row >= BATCH_URGENT_MAX;

    if (other == count || urgent == count) {
        batcher->urgent_row = 0;
        return urgent < count ? urgent : other;
    }
    batcher->urgent_row = other_turn ? 0 : batcher->urgent_row + 1;
    return other_turn ? other : urgent;
}

/* The longest chunk that is predicted not to hold up the decodes for more than stall_s. */
static uint32_t chunk_beside_decode(const struct batch_run *run, const struct batch_limits *limits)
{
    uint32_t tokens = limits->chunk_tokens;

    while (tokens > MC_PREFILL_QUANTUM && wmsg_prefill_s(limits->speed, tokens, run->length) > limits->stall_s)
        tokens -= MC_PREFILL_QUANTUM;
    return tokens;
}

struct batch_step batch_pick(
    struct batcher *batcher, const struct batch_run *runs, size_t count, const struct batch_limits *limits)
{
    struct batch_step step = {.what = BATCH_NONE};
    bool decodes = false, prefills = false;

    for (size_t i = 0; i < count; i++) {
        decodes |= runs[i].prefill_left == 0;
        prefills |= runs[i].prefill_left > 0;
    }
    if (prefills && !(decodes && batcher->prefilled_last)) {
        step.what = BATCH_PREFILL;
        step.run = pick_prefill(batcher, runs, count);
        step.tokens = decodes ? chunk_beside_decode(&runs[step.run], limits) : limits->chunk_tokens;
    } else if (decodes) {
        step.what = BATCH_DECODE;
    }
    batcher->prefilled_last = step.what == BATCH_PREFILL;
    return step;
}
