/* mooncake_test.c - the policy `mooncake`: when it gives out work, whom it waits for, what it copies, and whose turn it is. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "conductor/scheduler/fixture.h"

static struct mc_sched_decision decide(const struct cluster *c)
{
    struct mc_sched_decision d;

    mc_sched_policy_find("mooncake")->decide(&c->snapshot, &c->request, &d, NULL);
    return d;
}

static double rank(double work_ms, double waited_ms, double slo_ttft_ms)
{
    struct mc_sched_waiting waiting = {work_ms, waited_ms, slo_ttft_ms};

    return mc_sched_policy_find("mooncake")->rank(&waiting);
}

/* ---- when ---- */

static void work_is_given_out_just_in_time(void **state)
{
    struct cluster c;
    struct mc_sched_decision d;

    cluster_init(&c);
    c.workers[0].queue_ms = 300;
    c.workers[1].queue_ms = 200;
    d = decide(&c); /* nobody is free: the one that is soonest is waited for */
    assert_int_equal(d.outcome, MC_SCHED_HOLD);
    assert_int_equal(d.prefill, 1);
    assert_true(fabs(d.again_ms - 180) < 1e-6);
    assert_false(d.by_choice);
    c.workers[1].queue_ms = 20;
    assert_int_equal(decide(&c).outcome, MC_SCHED_RUN);
}

static void loading_is_hidden_behind_what_runs(void **state)
{
    struct cluster c;

    cluster_init(&c);
    hit(&c, 0, 13);
    c.fast[1].bytes_per_ms = 10e3; /* 832 tokens of 1000 B: 83.2 ms and a latency of 1 */
    c.workers[1].queue_ms = 104;
    c.workers[0].queue_ms = 5000;
    assert_int_equal(decide(&c).outcome, MC_SCHED_RUN);
    c.workers[1].queue_ms = 105;
    assert_int_equal(decide(&c).outcome, MC_SCHED_HOLD);
}

/* Worker 0 has the prefix and is at work, worker 1 is free and would have to compute: those behind it may have worker 1. */
static void waiting_by_choice_lets_others_pass(void **state)
{
    struct cluster c;
    struct mc_sched_decision d;

    cluster_init(&c);
    c.workers[1].links = c.none;
    hit(&c, 13, 0);
    c.workers[0].queue_ms = 500;
    d = decide(&c);
    assert_int_equal(d.outcome, MC_SCHED_HOLD);
    assert_int_equal(d.prefill, 0);
    assert_true(d.by_choice);
    c.workers[0].queue_ms = 900; /* not for so long */
    d = decide(&c);
    assert_int_equal(d.outcome, MC_SCHED_RUN);
    assert_int_equal(d.prefill, 1);
}

static void full_workers_are_waited_for_and_dead_ones_stood_in_for(void **state)
{
    struct cluster c;
    struct mc_sched_decision d;

    cluster_init(&c);
    c.workers[0].waiting = c.workers[1].waiting = 8;
    assert_int_equal(decide(&c).outcome, MC_SCHED_HOLD);
    c.workers[1].waiting = 0;
    d = decide(&c);
    assert_int_equal(d.outcome, MC_SCHED_RUN);
    assert_int_equal(d.prefill, 1);
    c.workers[0].state = c.workers[1].state = MC_WORKER_DOWN;
    d = decide(&c);
    assert_int_equal(d.outcome, MC_SCHED_RUN);
    assert_true(d.prefill >= 2 && d.degraded);
}

static void begun_answers_wait_for_nobody(void **state)
{
    struct cluster c;

    cluster_init(&c);
    c.request.begun = true;
    for (int i = 0; i < 4; i++)
        c.workers[i].queue_ms = 5000;
    assert_int_equal(decide(&c).outcome, MC_SCHED_RUN);
}

static void what_cannot_be_in_time_is_refused_at_once(void **state)
{
    struct cluster c;

    cluster_init(&c);
    c.workers[0].queue_ms = c.workers[1].queue_ms = 500;
    c.request.slo_ttft_ms = 1600;
    assert_int_equal(decide(&c).outcome, MC_SCHED_HOLD);
    c.request.slo_ttft_ms = 1400;
    assert_int_equal(decide(&c).outcome, MC_SCHED_REFUSE);
}

/* ---- copies ---- */

static void what_is_fetched_is_copied_while_there_is_room(void **state)
{
    struct cluster c;
    struct mc_sched_decision d;

    cluster_init(&c);
    c.snapshot.copy_tokens_max = 512;
    hit(&c, 8, 0);
    c.workers[0].queue_ms = 5000;
    d = decide(&c);
    assert_int_equal(d.load_tokens, 512);
    assert_int_equal(d.copy_blocks, 8);
    c.snapshot.copy_tokens_max = 511; /* enough copies are there */
    d = decide(&c);
    assert_int_equal(d.load_tokens, 512);
    assert_int_equal(d.copy_blocks, 0);
    hit(&c, 8, 1); /* a block of them is its own */
    assert_int_equal(decide(&c).copy_blocks, 7);
}

/* A prompt that a decode worker computes itself is under the same limit. */
static void copies_of_direct_ones_count(void **state)
{
    struct cluster c;
    struct mc_sched_decision d;

    cluster_init(&c);
    hit(&c, 0, 15);
    c.workers[3].running = 16; /* the one beside it is full */
    for (c.snapshot.copy_tokens_max = 959; c.snapshot.copy_tokens_max <= 960; c.snapshot.copy_tokens_max++) {
        d = decide(&c);
        assert_int_equal(d.route, MC_ROUTE_DIRECT);
        assert_int_equal(d.decode, 2);
        assert_int_equal(d.copy_blocks, c.snapshot.copy_tokens_max == 960 ? 15 : 0);
    }
}

/* ---- one stuck instance ---- */

/* One instance stuck at full load changes the target of those only that preferred it: over random loads and prefixes on 16 prefill
 * workers, less than a tenth of the others may move. */
static void a_stuck_worker_moves_only_its_own(void **state)
{
    enum { PREFILLS = 16, ROUNDS = 20000 };
    struct mc_sched_worker workers[PREFILLS + 1];
    struct mc_sched_link links[PREFILLS];
    uint32_t node_blocks[PREFILLS], others = 0, moved = 0, left = 0;
    struct cluster c;
    struct rng rng;

    rng_seed(&rng, 3);
    for (int round = 0; round < ROUNDS; round++) {
        uint16_t before;

        cluster_init(&c);
        c.request.prefix_blocks = 0;
        for (int i = 0; i < PREFILLS; i++) {
            workers[i] = c.workers[0];
            workers[i].node = (uint16_t)i;
            workers[i].queue_ms = rng_chance(&rng, 0.3) ? 0 : (double)rng_below(&rng, 3000);
            workers[i].links = links;
            links[i] = (struct mc_sched_link){.bytes_per_ms = 1e3 * (double)(1 + rng_below(&rng, 100))};
            node_blocks[i] = (uint32_t)rng_below(&rng, 15);
            c.request.prefix_blocks =
                node_blocks[i] > c.request.prefix_blocks ? node_blocks[i] : c.request.prefix_blocks;
        }
        workers[PREFILLS] = c.workers[2];
        workers[PREFILLS].links = links;
        c.request.node_blocks = node_blocks;
        c.request.draw = rng_u64(&rng);
        c.snapshot =
            (struct mc_sched_snapshot){.workers = workers, .worker_count = PREFILLS + 1, .node_count = PREFILLS};
        before = decide(&c).prefill;
        workers[5].queue_ms = 1e6;
        workers[5].waiting = 7;
        left += before == 5 && decide(&c).prefill != 5;
        others += before != 5;
        moved += before != 5 && decide(&c).prefill != before;
    }
    assert_true(others > ROUNDS / 2 && left > ROUNDS / 100);
    assert_true(moved * 10 < others);
}

/* Workers that are free and as good as each other: each request has one that it takes, whatever the others do, and all get their part. */
static void requests_stay_with_their_lot(void **state)
{
    enum { PREFILLS = 8, ROUNDS = 8000 };
    struct mc_sched_worker workers[PREFILLS + 1];
    uint32_t got[PREFILLS] = {0};
    struct cluster c;
    struct rng rng;

    rng_seed(&rng, 4);
    cluster_init(&c);
    for (int i = 0; i < PREFILLS; i++)
        workers[i] = c.workers[0];
    workers[PREFILLS] = c.workers[2];
    c.snapshot.workers = workers;
    c.snapshot.worker_count = PREFILLS + 1;
    for (int round = 0; round < ROUNDS; round++) {
        uint16_t first, busy = (uint16_t)rng_below(&rng, PREFILLS);

        c.request.draw = rng_u64(&rng);
        first = decide(&c).prefill;
        got[first]++;
        workers[busy].queue_ms = 15; /* a little, on 1000 ms of prefill: as good as before */
        assert_int_equal(decide(&c).prefill, first);
        workers[busy].queue_ms = 900;
        assert_true(busy == first ? decide(&c).prefill != first : decide(&c).prefill == first);
        workers[busy].queue_ms = 0;
    }
    for (int i = 0; i < PREFILLS; i++)
        assert_true(got[i] > ROUNDS / PREFILLS * 8 / 10 && got[i] < ROUNDS / PREFILLS * 12 / 10);
}

/* ---- whose turn it is ---- */

static void short_ones_first_until_long_ones_have_waited(void **state)
{
    assert_true(rank(100, 50, 0) > rank(1000, 50, 0));
    assert_true(rank(1000, 600, 0) > rank(1000, 500, 0));
    assert_true(rank(1000, 600, 0) > rank(100, 50, 0));
    assert_true(rank(1000, 400, 0) < rank(100, 50, 0));
    assert_false(isnan(rank(0, 0, 0)));
}

/* Whatever short ones come: who has waited ln(n) minutes longer than a request of an n-th of the work goes before it. */
static void nobody_starves(void **state)
{
    struct rng rng;

    rng_seed(&rng, 9);
    for (int i = 0; i < 20000; i++) {
        double work = 1 + (double)rng_below(&rng, 1000), times = 1 + (double)rng_below(&rng, 10000) / 10;
        double waited = 1 + (double)rng_below(&rng, 1000000);

        assert_true(rank(times * work, waited + 60e3 * log(times) + 1, 0) > rank(work, waited, 0));
    }
}

static void hopeless_ones_are_refused_first(void **state)
{
    assert_true(isinf(rank(1000, 29500, 30000)) && rank(1000, 29500, 30000) > 0);
    assert_true(isfinite(rank(1000, 28500, 30000)));
}

/* Ten times the work, and the same time waited: it goes first when it can wait no longer, and not without an SLO. */
static void long_ones_go_before_it_is_too_late(void **state)
{
    assert_true(rank(20000, 5000, 30000) < rank(2000, 5000, 30000));
    assert_true(rank(20000, 9900, 30000) > rank(2000, 9900, 30000));
    assert_true(rank(20000, 9900, 0) < rank(2000, 9900, 0));
    for (double waited = 100; waited < 9990; waited += 10)
        assert_true(rank(20000, waited + 10, 30000) > rank(20000, waited, 30000));
}

static void others_serve_who_came_first(void **state)
{
    struct mc_sched_waiting early = {5000, 20, 0}, late = {1, 10, 0};
    mc_sched_rank_fn *first_come = mc_sched_policy_find("global")->rank;

    assert_true(first_come(&early) > first_come(&late));
}

static void work_is_that_of_the_quickest(void **state)
{
    struct cluster c;
    struct mc_fit quick = per_token(0.5);

    cluster_init(&c);
    hit(&c, 4, 8);
    c.workers[1].prefill = &quick;
    assert_true(fabs(mc_sched_work_ms(&c.snapshot, &c.request) - 0.5 * (1000 - 8 * BLOCK)) < 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_is_given_out_just_in_time),
        cmocka_unit_test(loading_is_hidden_behind_what_runs),
        cmocka_unit_test(waiting_by_choice_lets_others_pass),
        cmocka_unit_test(full_workers_are_waited_for_and_dead_ones_stood_in_for),
        cmocka_unit_test(begun_answers_wait_for_nobody),
        cmocka_unit_test(what_cannot_be_in_time_is_refused_at_once),
        cmocka_unit_test(what_is_fetched_is_copied_while_there_is_room),
        cmocka_unit_test(copies_of_direct_ones_count),
        cmocka_unit_test(a_stuck_worker_moves_only_its_own),
        cmocka_unit_test(requests_stay_with_their_lot),
        cmocka_unit_test(short_ones_first_until_long_ones_have_waited),
        cmocka_unit_test(nobody_starves),
        cmocka_unit_test(hopeless_ones_are_refused_first),
        cmocka_unit_test(long_ones_go_before_it_is_too_late),
        cmocka_unit_test(others_serve_who_came_first),
        cmocka_unit_test(work_is_that_of_the_quickest),
    };

    return cmocka_run_group_tests_name("mooncake", tests, NULL, NULL);
}
