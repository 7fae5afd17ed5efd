/* batch_test.c - goal: which step comes next, in every mixture of prefill and decode. Method: the pure function alone. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

#include "base/rng.h"
#include "mooncake/engine.h"
#include "worker/batch.h"

/* 1 ms a token: a quantum takes 64 ms. */
static const struct wmsg_speed speed = {.prefill_token = 1e-3};
static const struct batch_limits limits = {.chunk_tokens = 256, .stall_s = 0.130, .speed = &speed};

static void nothing_to_do(void **state)
{
    struct batcher batcher = {0};

    assert_int_equal(batch_pick(&batcher, NULL, 0, &limits).what, BATCH_NONE);
}

static void whole_chunk_when_nobody_decodes(void **state)
{
    struct batcher batcher = {0};
    struct batch_run run = {.prefill_left = 1000};
    struct batch_step step = batch_pick(&batcher, &run, 1, &limits);

    assert_int_equal(step.what, BATCH_PREFILL);
    assert_int_equal(step.tokens, 256);
    step = batch_pick(&batcher, &run, 1, &limits);
    assert_int_equal(step.what, BATCH_PREFILL);
}

static void alternates_and_cuts_beside_decode(void **state)
{
    struct batcher batcher = {0};
    struct batch_run runs[] = {{.prefill_left = 1000, .order = 1}, {.length = 50}};

    for (int i = 0; i < 6; i++) {
        struct batch_step step = batch_pick(&batcher, runs, 2, &limits);

        assert_int_equal(step.what, i % 2 ? BATCH_DECODE : BATCH_PREFILL);
        if (step.what == BATCH_PREFILL) {
            assert_int_equal(step.run, 0);
            assert_int_equal(step.tokens, 128); /* 128 ms fit 130, 192 do not */
        }
    }
}

static void never_less_than_a_quantum(void **state)
{
    struct batcher batcher = {0};
    struct batch_limits tight = limits;
    struct batch_run runs[] = {{.prefill_left = 10, .length = 5000}, {.length = 50}};

    tight.stall_s = 0.001;
    assert_int_equal(batch_pick(&batcher, runs, 2, &tight).tokens, MC_PREFILL_QUANTUM);
}

static void first_come_first_served(void **state)
{
    struct batcher batcher = {0};
    struct batch_run runs[] = {{.prefill_left = 10, .order = 7}, {.prefill_left = 900, .order = 3}};

    assert_int_equal(batch_pick(&batcher, runs, 2, &limits).run, 1);
}

/* Streams that are under way go first, but never for ever. */
static void urgent_first_without_starving(void **state)
{
    struct batcher batcher = {0};
    struct batch_run runs[] = {{.prefill_left = 900, .order = 1}, {.prefill_left = 900, .order = 2, .urgent = true}};
    unsigned other = 0;

    assert_int_equal(batch_pick(&batcher, runs, 2, &limits).run, 1);
    for (int i = 0; i < 50; i++)
        other += batch_pick(&batcher, runs, 2, &limits).run == 0;
    assert_int_equal(other, 50 / (BATCH_URGENT_MAX + 1));
}

/* Whatever mixture: a decode waits for one chunk at most, and work is done whenever there is any. */
static void any_mixture(void **state)
{
    struct rng rng;
    struct batcher batcher = {0};
    bool waited = false;

    rng_seed(&rng, 1);
    for (int i = 0; i < 100000; i++) {
        struct batch_run runs[8];
        size_t count = rng_below(&rng, 9);
        bool decodes = false;
        struct batch_step step;

        for (size_t j = 0; j < count; j++) {
            runs[j] = (struct batch_run){.prefill_left = rng_chance(&rng, 0.5) ? (uint32_t)rng_below(&rng, 3000) : 0,
                .length = (uint32_t)rng_below(&rng, 3000),
                .order = rng_u64(&rng),
                .urgent = rng_chance(&rng, 0.3)};
            decodes |= runs[j].prefill_left == 0;
        }
        step = batch_pick(&batcher, runs, count, &limits);
        assert_true((step.what == BATCH_NONE) == (count == 0));
        if (step.what == BATCH_PREFILL) {
            assert_true(step.run < count && runs[step.run].prefill_left > 0);
            assert_true(step.tokens >= MC_PREFILL_QUANTUM && step.tokens % MC_PREFILL_QUANTUM == 0);
        }
        assert_false(decodes && waited && step.what != BATCH_DECODE);
        waited = decodes && step.what == BATCH_PREFILL;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(nothing_to_do),
        cmocka_unit_test(whole_chunk_when_nobody_decodes), cmocka_unit_test(alternates_and_cuts_beside_decode),
        cmocka_unit_test(never_less_than_a_quantum), cmocka_unit_test(first_come_first_served),
        cmocka_unit_test(urgent_first_without_starving), cmocka_unit_test(any_mixture)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
