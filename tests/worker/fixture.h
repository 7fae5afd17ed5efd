/* fixture.h - workers with synthetic engines under a scripted Conductor, and the engine alone to compare with. */
#ifndef TESTS_WORKER_FIXTURE_H
#define TESTS_WORKER_FIXTURE_H

#include "mooncake/engine.h"
#include "tests/worker/script.h"
#include "worker/baseline.h"
#include "worker/worker.h"

enum { FIXTURE_WORKERS_MAX = 4 };

/* What tests change before fixture_add(). */
struct fixture_setup {
    enum wmsg_role role;
    const char *name;
    const char *master; /* NULL: no Store */
    double prefill_tokens_per_s, decode_ms_per_step;
    uint32_t context_tokens, sequences_max, block_tokens, chunk_tokens;
    uint64_t buffer_size;
    uint32_t stall_ms;
    bool flip_imported_bit, calibrate;
};

struct fixture {
    struct script *script;
    struct mc_engine *alone; /* the engine of the baseline */
    struct mc_engine *engines[FIXTURE_WORKERS_MAX];
    struct worker *workers[FIXTURE_WORKERS_MAX];
    unsigned count;
    char run_dir[64];
};

void fixture_start(struct fixture *fixture);
void fixture_stop(struct fixture *fixture);
/* Start a worker and wait until it is registered; its index in the script. */
unsigned fixture_add(struct fixture *fixture, const struct fixture_setup *setup);
/* End it (a death: its connection is cut in the middle of whatever it does). */
void fixture_kill(struct fixture *fixture, unsigned index);

struct mc_engine *fixture_engine(const struct fixture_setup *setup);

/* A prompt of exactly `count` tokens: sentences in English or Chinese, from a seed; equal seeds give equal beginnings. */
void fixture_prompt(const struct mc_engine *engine, bool chinese, uint64_t seed, uint32_t *tokens, uint32_t count);

/* What the engine alone says to this run. */
void fixture_baseline(struct fixture *fixture, const struct wmsg_run *run, struct baseline_run *want);

/* A run with greedy sampling that reads and writes the cache. */
struct wmsg_run fixture_run(enum wmsg_run_kind kind, const uint32_t *tokens, uint32_t count, uint32_t max);

/* Prefill on one worker, decode on the other, as the Conductor does it; tokens of both in `tokens`. Returns their number. */
struct pair_result {
    struct answer prefill, decode;
    uint32_t tokens[SCRIPT_TOKENS_MAX];
    uint32_t count;
};
void fixture_pair(struct fixture *fixture, unsigned prefill, unsigned decode, const struct wmsg_run *like,
    struct pair_result *result);

/* The answer of a worker is that of the engine alone. */
void assert_answer(const struct baseline_run *want, const uint32_t *tokens, uint32_t count);

#endif
