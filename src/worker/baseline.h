/* baseline.h - the engine alone, without any Mooncake: what quickstart, bench and the tests compare with.
 *
 * Same engine, same batch rule (prefill ends at multiples of 64, the remainder is a batch of its own), same sampling; no
 * worker, no Store, no network. The caller's thread is the engine thread. */
#ifndef WORKER_BASELINE_H
#define WORKER_BASELINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "mooncake/engine.h"
#include "mooncake/sampling.h"

struct baseline_run {
    /* in */
    const uint32_t *prompt; /* borrowed */
    uint32_t prompt_count;
    uint32_t max_tokens;
    uint32_t threads; /* 0: all the engine was opened with */
    bool ignore_end;
    struct mc_sampling sampling; /* mc_sampling_init(), temperature 0 for greedy */
    /* Called with each token's text as it comes; may be NULL. */
    void (*on_token)(void *arg, uint32_t index, const char *piece, size_t size);
    /* Called with the logits that each token was chosen from, lent during the call; also for an end token, which on_token
     * does not get. May be NULL. */
    void (*on_choice)(void *arg, uint32_t token, const float *logits, uint32_t vocab_size);
    void *arg;

    /* out; arrays are given: baseline_run_fini() */
    uint32_t *tokens;   /* the answer; an end token is not in it */
    uint64_t *times_us; /* of each, since the start of the run: [0] is the TTFT */
    float *gaps;        /* logit of the highest less that of the second: how close the choice was */
    uint32_t count;
    bool ended; /* by an end token */
    struct buf text;
};

/* Run to the end. `seq` of the engine is made and freed inside, unless *keep_seq is given: then the sequence goes on from
 * there (UINT32_MAX: a new one) and is left open, so that the next turn of a chat keeps its KV: `prompt` must begin with the
 * tokens the sequence holds. Status as mc_engine_prefill() and mc_engine_decode(). Outputs are valid also on failure. */
enum mc_status worker_baseline_run(struct mc_engine *engine, struct baseline_run *run, uint32_t *keep_seq);
void baseline_run_fini(struct baseline_run *run);

/* Microseconds from prompt to first token, and the median between tokens (0 with fewer than two). */
uint64_t baseline_ttft_us(const struct baseline_run *run);
uint64_t baseline_tbt_p50_us(const struct baseline_run *run);

#endif
