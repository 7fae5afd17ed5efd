/* states_test.c - what ends or interrupts a run, in each state a run can be in: cancel, drain (which SIGTERM is), a Conductor that
 * goes away, and a context that is full.
 *
 * Goal: nothing is held afterwards (cells, sequences, buffers), others are not concerned, what a drain finds is finished, and what
 * comes again after a preemption is the same text, counted once.
 * Method: runs are brought into a state by what can be seen from outside (an event, a request at the Store), never by time; the
 * Store in memory hangs where a state has to last. A machine so slow that the state is over by then finds another one, and
 * the same must hold. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "tests/worker/memory_fixture.h"

enum { LONG = 1000, WAIT_MS = 30000 };

static uint32_t prompt[LONG];
static char name[32]; /* of the worker: another one each time, as the script may still see the connection of the last */
static struct answer answer, other, refused;

/* ---- a run in a state ---- */

enum where { WAITING, LOADING, PREFILLING, DECODING, STORING, WHERES };

static const char *const where_str[] = {"waiting", "loading", "prefilling", "decoding", "storing"};

/* A run that waits says nothing; the status does. Or its turn has come already. */
static void wait_waiting(unsigned w)
{
    uint64_t until = deadline_after_ms(now_ns(), WAIT_MS);
    struct wmsg_status status;

    do {
        assert_true(now_ns() < until);
        usleep(500);
        script_status(fx.script, w, &status);
    } while (!status.waiting && !answer_over(&other));
}

static void wait_queries(uint64_t count)
{
    uint64_t until = deadline_after_ms(now_ns(), WAIT_MS);
    struct memory_store_counts counts;

    do {
        assert_true(now_ns() < until);
        usleep(500);
        memory_store_counts(&counts);
    } while (counts.queries < count);
}

/* A worker with one sequence, and on it `answer` in state `where`; in WAITING `other` has the sequence. Its answer ends by
 * itself after `max` tokens. */
static unsigned bring(enum where where, struct wmsg_run *run, uint32_t max)
{
    static unsigned round;
    unsigned w;
    uint32_t n = where == PREFILLING || where == LOADING ? LONG : 150;
    struct memory_store_counts counts;

    snprintf(name, sizeof(name), "%s-%u", where_str[where], ++round);
    w = fixture_add(&fx, &(struct fixture_setup){.master = MASTER,
                             .name = name,
                             .sequences_max = where == WAITING ? 1 : 0,
                             .prefill_tokens_per_s = where == PREFILLING ? 400 : 1000, /* 2.5 s to act in */
                             .decode_ms_per_step = 2});
    strcat(name, "-0"); /* the fixture's number */
    fixture_prompt(fx.alone, false, where, prompt, n);
    *run = fixture_run(where == STORING ? WMSG_PREFILL : WMSG_GENERATE, prompt, n, max);
    run->ignore_end = true;
    if (where == WAITING) {
        struct wmsg_run first = *run;

        first.max_tokens = 500;
        script_run(fx.script, w, &first, &other);
        answer_wait_tokens(&other, 2);
    }
    if (where == LOADING) { /* its blocks are there: by a run before */
        struct wmsg_run before = *run;

        before.max_tokens = 1;
        script_run(fx.script, w, &before, &other);
        answer_wait(&other);
    }
    memory_store_counts(&counts);
    memory_store_faults.hang = where == LOADING || where == STORING;
    run->cache_read = where != STORING;
    script_run(fx.script, w, run, &answer);
    switch (where) {
    case WAITING: wait_waiting(w); break;
    case LOADING: wait_queries(counts.queries + 1); break;
    case PREFILLING: answer_wait_progress(&answer); break;
    case DECODING: answer_wait_tokens(&answer, 3); break;
    case STORING: answer_wait_tokens(&answer, 1); break;
    case WHERES: break;
    }
    return w;
}

/* The worker holds nothing, by a status newer than `since`, and answers as the engine alone does. */
static void assert_as_new(unsigned w, uint64_t since)
{
    struct wmsg_run run = fixture_run(WMSG_GENERATE, prompt, 100, 20);
    uint64_t until = deadline_after_ms(now_ns(), WAIT_MS);
    struct baseline_run want;
    struct wmsg_status status;

    memory_store_faults.hang = false;
    do {
        assert_true(now_ns() < until);
        usleep(1000);
        script_status(fx.script, w, &status);
    } while (status.time_us < since / NS_PER_US || status.kv_used || status.decoding || status.prefilling ||
             status.loading || status.waiting);
    fixture_baseline(&fx, &run, &want);
    script_run(fx.script, w, &run, &other);
    answer_wait(&other);
    assert_int_equal(other.status, MC_OK);
    assert_answer(&want, other.tokens, other.count);
    baseline_run_fini(&want);
}

/* ---- what happens to it ---- */

static void cancelled(void **state)
{
    for (enum where where = 0; where < WHERES; where++) {
        struct wmsg_run run;
        unsigned w = bring(where, &run, 2000);
        uint64_t since = now_ns();

        script_cancel(&answer);
        answer_wait(&answer);
        if (answer.finish.reason != WMSG_CANCELLED || answer.status != MC_ECANCELED)
            fail_msg(
                "%s: ended with reason %u, %s", where_str[where], answer.finish.reason, mc_status_str(answer.status));
        assert_true(answer.count < 2000);
        if (where == PREFILLING) /* in the middle of it, not behind it */
            assert_true(answer.finish.computed_tokens < LONG);
        if (where == WAITING) {
            answer_wait(&other);
            assert_int_equal(other.count, 500);
        }
        assert_as_new(w, since);
        fixture_kill(&fx, 0);
        fx.count = 0;
    }
}

static void conductor_gone(void **state)
{
    for (enum where where = 0; where < WHERES; where++) {
        struct worker_stats stats;
        struct wmsg_run run;
        unsigned w = bring(where, &run, 2000);
        uint64_t since = now_ns();

        script_cut(fx.script, w);
        answer_wait(&answer);
        assert_true(answer.lost);
        assert_as_new(script_find(fx.script, name), since);
        worker_stats(fx.workers[0], &stats);
        assert_true(stats.cancelled >= 1 && stats.failed == 0);
        fixture_kill(&fx, 0);
        fx.count = 0;
    }
}

/* SIGTERM: what is there is finished, with the right text; nothing new is taken; then the worker leaves. */
static void drained(void **state)
{
    for (enum where where = 0; where < WHERES; where++) {
        struct baseline_run want;
        struct wmsg_run run;
        unsigned w = bring(where, &run, 40);
        struct wmsg_run late = fixture_run(WMSG_GENERATE, prompt, 20, 1);

        worker_drain(fx.workers[0]);
        script_run(fx.script, w, &late, &refused);
        answer_wait(&refused);
        assert_int_equal(refused.status, MC_EBUSY);
        answer_wait(&answer);
        if (answer.status != MC_OK)
            fail_msg("%s: %s", where_str[where], mc_status_str(answer.status));
        if (where == STORING)
            run.max_tokens = 1;
        fixture_baseline(&fx, &run, &want);
        assert_answer(&want, answer.tokens, answer.count);
        baseline_run_fini(&want);
        assert_int_equal(worker_wait(fx.workers[0], WAIT_MS), MC_OK);
        assert_true(script_drained(fx.script, w));
        fixture_kill(&fx, 0);
        fx.count = 0;
        memory_store_faults.hang = false;
    }
}

/* Destroyed in the middle, as by a failure of ours: no crash, no leak, and the Conductor sees a connection go. */
static void destroyed(void **state)
{
    for (enum where where = 0; where < WHERES; where++) {
        struct wmsg_run run;

        bring(where, &run, 2000);
        fixture_kill(&fx, 0);
        fx.count = 0;
        answer_wait(&answer);
        assert_true(answer.lost);
        memory_store_faults.hang = false;
    }
}

/* ---- a full context ---- */

/* Answers grow until they do not fit together: the youngest is preempted and comes back; nobody's answer changes, and each
 * token of a prompt is counted once. With and without a Store to come back from. */
static void preempted(void **state)
{
    static struct answer answers[4];
    static uint32_t prompts[4][100];
    const char *masters[] = {NULL, MASTER};

    for (int m = 0; m < 2; m++) {
        unsigned w = fixture_add(&fx, &(struct fixture_setup){.context_tokens = 512, .master = masters[m]});
        struct wmsg_run runs[4];
        struct baseline_run want;

        for (uint32_t i = 0; i < 4; i++) {
            fixture_prompt(fx.alone, false, i, prompts[i], 50);
            runs[i] = fixture_run(WMSG_GENERATE, prompts[i], 50, 250);
            runs[i].ignore_end = true;
            script_run(fx.script, w, &runs[i], &answers[i]);
        }
        for (uint32_t i = 0; i < 4; i++) {
            answer_wait(&answers[i]);
            assert_int_equal(answers[i].status, MC_OK);
            assert_false(answers[i].gap);
            assert_int_equal(answers[i].count, 250);
            assert_int_equal(answers[i].finish.reused_tokens + answers[i].finish.computed_tokens, 50);
            fixture_baseline(&fx, &runs[i], &want);
            assert_answer(&want, answers[i].tokens, answers[i].count);
            baseline_run_fini(&want);
        }
    }
}

/* An answer grows while a younger run waits for the Store with part of its prefix imported: the younger one goes back. The
 * answer must not fail for want of room that somebody holds who computes nothing. */
static void full_while_loading(void **state)
{
    unsigned w = fixture_add(&fx, &(struct fixture_setup){.context_tokens = 512,
                                      .master = MASTER,
                                      .buffer_size = 1, /* two blocks a window */
                                      .prefill_tokens_per_s = 100});
    static uint32_t older[100];
    struct memory_store_counts counts;
    struct wmsg_run run, grows;
    struct baseline_run want;

    /* 192 of the younger one's 250 tokens are stored */
    fixture_prompt(fx.alone, false, 3, prompt, 250);
    run = fixture_run(WMSG_PREFILL, prompt, 200, 1);
    script_run(fx.script, w, &run, &other);
    answer_wait(&other);
    assert_int_equal(other.finish.stored_blocks, 3);
    fixture_prompt(fx.alone, true, 4, older, 60);
    grows = fixture_run(WMSG_GENERATE, older, 60, 400);
    grows.ignore_end = true;
    grows.cache_read = grows.cache_write = false;
    run = fixture_run(WMSG_GENERATE, prompt, 250, 10);
    run.ignore_end = true;
    /* 250 + 60 and room to grow fit. The first window of the younger one comes, the second does not before its deadline,
     * which is as far away as computing 192 tokens would take: 2 s. The older one takes some milliseconds to its end. */
    memory_store_counts(&counts);
    memory_store_faults.hang_after = (uint32_t)counts.get_batches + 1;
    script_run(fx.script, w, &grows, &answer);
    script_run(fx.script, w, &run, &other);
    answer_wait(&answer);
    assert_int_equal(answer.status, MC_OK);
    assert_int_equal(answer.count, 400);
    memory_store_faults.hang_after = 0;
    answer_wait(&other);
    assert_int_equal(other.status, MC_OK);
    assert_int_equal(other.finish.reused_tokens + other.finish.computed_tokens, 250);
    fixture_baseline(&fx, &grows, &want);
    assert_answer(&want, answer.tokens, answer.count);
    baseline_run_fini(&want);
    fixture_baseline(&fx, &run, &want);
    assert_answer(&want, other.tokens, other.count);
    baseline_run_fini(&want);
}

/* An answer alone that reaches the context's end is as long as it can be. */
static void context_ends(void **state)
{
    unsigned w = fixture_add(&fx, &(struct fixture_setup){.context_tokens = 128, .master = MASTER});
    struct wmsg_run run;

    fixture_prompt(fx.alone, false, 6, prompt, 50);
    run = fixture_run(WMSG_GENERATE, prompt, 50, 1000);
    run.ignore_end = true;
    script_run(fx.script, w, &run, &answer);
    answer_wait(&answer);
    assert_int_equal(answer.status, MC_OK);
    assert_int_equal(answer.finish.reason, WMSG_LENGTH);
    assert_int_equal(answer.count, 128 - 50);
    assert_as_new(w, answer.begun_ns);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {TEST(cancelled), TEST(conductor_gone), TEST(drained), TEST(destroyed),
        TEST(preempted), TEST(full_while_loading), TEST(context_ends)};

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
