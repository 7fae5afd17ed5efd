/* scheduler_test.c - decisions over snapshots written by hand: each rule that policies share shown alone with `global`, then
 * properties over random snapshots, which every policy of the table must keep. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "conductor/scheduler/fixture.h"

static struct mc_sched_decision decide(const struct cluster *c)
{
    struct mc_sched_decision d;

    mc_sched_policy_find("global")->decide(&c->snapshot, &c->request, &d, NULL);
    return d;
}

static void cold_goes_to_the_shorter_queue(void **state)
{
    struct cluster c;
    struct mc_sched_decision d;

    cluster_init(&c);
    c.workers[0].queue_ms = 300;
    d = decide(&c);
    assert_int_equal(d.outcome, MC_SCHED_RUN);
    assert_int_equal(d.route, MC_ROUTE_SPLIT);
    assert_int_equal(d.prefill, 1);
    assert_int_equal(d.load_tokens, 0);
    assert_true(fabs(d.ttft_ms - 1000) < 1e-6);
    assert_false(d.degraded);
}

static void equal_workers_have_equal_chances(void **state)
{
    struct cluster c;
    struct rng rng;
    int first = 0;

    cluster_init(&c);
    rng_seed(&rng, 5);
    for (int i = 0; i < 4000; i++) {
        c.request.draw = rng_u64(&rng);
        first += decide(&c).prefill == 0;
    }
    assert_in_range(first, 1850, 2150); /* 2000 +- 4.7 sigma */
}

static void a_hit_beats_a_queue_until_it_does_not(void **state)
{
    struct cluster c;
    struct mc_sched_decision d;

    cluster_init(&c);
    c.snapshot.options.balance_threshold = 100; /* content with one block of its own */
    hit(&c, 8, 1);
    c.workers[0].queue_ms = 400;
    d = decide(&c); /* queue 400 + load 6 + compute 488, against load 2 + compute 936 there */
    assert_int_equal(d.prefill, 0);
    assert_int_equal(d.load_tokens, 512);
    assert_int_equal(d.own_tokens, 512);
    assert_int_equal(d.copy_blocks, 0);
    c.workers[0].queue_ms = 600;
    d = decide(&c);
    assert_int_equal(d.prefill, 1);
}

static void a_hot_prefix_spreads(void **state)
{
    struct cluster c;
    struct mc_sched_decision d;

    cluster_init(&c);
    hit(&c, 8, 2);
    c.workers[0].queue_ms = 500;
    d = decide(&c);
    assert_int_equal(d.prefill, 1);
    assert_int_equal(d.load_tokens, 512);
    assert_int_equal(d.own_tokens, 128);
    assert_int_equal(d.copy_blocks, 6);
    assert_int_equal(d.source, 0);
    c.workers[1].node = MC_SCHED_NONE; /* no node beside it: fetched, and not kept */
    d = decide(&c);
    assert_int_equal(d.load_tokens, 512);
    assert_int_equal(d.copy_blocks, 0);
    c.workers[1].node = 1;
    c.snapshot.options.balance_threshold = 5; /* 512 / 128 is not above it: content with what it has */
    c.workers[0].queue_ms = 5000;
    d = decide(&c);
    assert_int_equal(d.load_tokens, 128);
    assert_int_equal(d.source, MC_SCHED_NONE);
}

static void slow_links_are_not_used(void **state)
{
    struct cluster c;
    struct mc_sched_decision d;

    cluster_init(&c);
    hit(&c, 8, 8);
    for (int n = 0; n < NODES; n++)
        c.fast[n].bytes_per_ms = 900; /* 512 tokens of 1000 B take 569 ms; computing them takes 512 */
    d = decide(&c);
    assert_int_equal(d.load_tokens, 0);
    assert_true(fabs(d.ttft_ms - 1000) < 1e-6);
}

static void full_hit_goes_straight_to_decode(void **state)
{
    struct cluster c;
    struct mc_sched_decision d;

    cluster_init(&c);
    hit(&c, 15, 15);
    d = decide(&c);
    assert_int_equal(d.route, MC_ROUTE_DIRECT);
    assert_int_equal(d.prefill, d.decode);
    assert_true(d.decode >= 2);
    assert_int_equal(d.load_tokens, 960);
    hit(&c, 13, 13); /* 168 tokens left: prefill's work */
    assert_int_equal(decide(&c).route, MC_ROUTE_SPLIT);
    c.snapshot.options.direct_tokens_max = 200;
    assert_int_equal(decide(&c).route, MC_ROUTE_DIRECT);
}

static void short_prompts_go_straight_to_decode(void **state)
{
    struct cluster c;

    cluster_init(&c);
    c.request.tokens = 40;
    c.request.reuse_max = 0;
    assert_int_equal(decide(&c).route, MC_ROUTE_DIRECT);
}

/* Whatever the fits have learned, on a busy machine also nonsense: a prompt without a whole block is never split, because the
 * decode worker would compute all of it once more. */
static void what_cannot_be_handed_over_is_not_split(void **state)
{
    struct rng rng;
    struct cluster c;

    rng_seed(&rng, 21);
    for (int i = 0; i < 20000; i++) {
        struct mc_fit slow = {.theta = {(double)rng_below(&rng, 1000), (double)rng_below(&rng, 100000), 0}};
        struct mc_sched_decision d;

        cluster_init(&c);
        c.request.tokens = 1 + (uint32_t)rng_below(&rng, BLOCK - 1);
        c.request.reuse_max = 0;
        c.workers[2].prefill = c.workers[3].prefill = &slow;
        for (int w = 0; w < 4; w++)
            c.workers[w].queue_ms = (double)rng_below(&rng, 3000);
        d = decide(&c);
        assert_int_equal(d.outcome, MC_SCHED_RUN);
        assert_int_equal(d.route, MC_ROUTE_DIRECT);
    }
}

/* A split pays for the remainder twice, once on each worker. */
static void a_split_counts_the_remainder_twice(void **state)
{
    struct cluster c;
    struct mc_fit slow = per_token(1.9);

    cluster_init(&c);
    hit(&c, 15,
        15); /* 40 tokens are left: 40 ms of prefill and once more 76 on the decode worker, against 76 there alone */
    c.workers[2].prefill = c.workers[3].prefill = &slow;
    assert_int_equal(decide(&c).route, MC_ROUTE_DIRECT);
    c.workers[2].queue_ms = c.workers[3].queue_ms = 1000; /* a queue there is waited out by both */
    assert_int_equal(decide(&c).route, MC_ROUTE_DIRECT);
}

static void decode_goes_where_steps_are_fast(void **state)
{
    struct cluster c;

    cluster_init(&c);
    c.workers[2].running = 5;
    c.workers[2].kv_tokens = 10000;
    assert_int_equal(decide(&c).decode, 3);
    c.workers[3].running = 16; /* full */
    assert_int_equal(decide(&c).decode, 2);
    c.workers[2].kv_tokens = 99500; /* no room for prompt and answer */
    c.workers[2].running = 1;
    c.workers[0].running = c.workers[1].running = 16;
    assert_int_equal(decide(&c).outcome, MC_SCHED_HOLD);
}

/* A sequence more changes a step by 2 %: each request has a decode worker of its own, whatever runs, and both get their part. */
static void decode_stays_where_steps_are_as_fast(void **state)
{
    uint32_t got[2] = {0};
    struct cluster c;
    struct rng rng;

    rng_seed(&rng, 22);
    cluster_init(&c);
    c.decode = (struct mc_fit){.theta = {10, 0.2, 0}};
    for (int i = 0; i < 4000; i++) {
        uint16_t mine;

        c.request.draw = rng_u64(&rng);
        c.workers[2].running = c.workers[3].running = 0;
        mine = decide(&c).decode;
        got[mine - 2]++;
        c.workers[mine].running = 1;
        assert_int_equal(decide(&c).decode, mine);
        c.workers[mine].running = 3; /* 6 % */
        assert_int_equal(decide(&c).decode, 5 - mine);
    }
    assert_true(got[0] > 1800 && got[1] > 1800);
}

/* Who computes its prompt on a decode worker does not wait there while another one is free; who comes for its answer only need not care. */
static void direct_ones_go_where_they_begin_at_once(void **state)
{
    struct cluster c;
    struct rng rng;
    int there = 0;

    rng_seed(&rng, 23);
    cluster_init(&c);
    c.workers[2].queue_ms = 500;
    for (int i = 0; i < 200; i++) {
        c.request.draw = rng_u64(&rng);
        hit(&c, 15, 15);
        assert_int_equal(decide(&c).decode, 3);
        hit(&c, 0, 0);
        there += decide(&c).decode == 2;
    }
    assert_true(there > 60 && there < 140);
}

static void one_worker_does_both_when_it_can(void **state)
{
    struct cluster c;
    struct mc_sched_decision d;

    cluster_init(&c);
    for (int i = 0; i < 4; i++)
        c.workers[i].role = MC_WORKER_BOTH;
    c.workers[0].queue_ms = c.workers[1].queue_ms = c.workers[3].queue_ms = 100;
    d = decide(&c);
    assert_int_equal(d.route, MC_ROUTE_SINGLE);
    assert_int_equal(d.prefill, 2);
    assert_int_equal(d.decode, 2);
}

static void nothing_is_split_without_a_store(void **state)
{
    struct cluster c;
    struct mc_sched_decision d;

    cluster_init(&c);
    hit(&c, 15, 15);
    for (int i = 0; i < 4; i++)
        c.workers[i].links = NULL;
    d = decide(&c);
    assert_int_equal(d.outcome, MC_SCHED_RUN);
    assert_int_equal(d.route, MC_ROUTE_SINGLE);
    assert_int_equal(d.load_tokens, 0);
    assert_true(d.decode >= 2);
}

static void pools_stand_in_for_each_other(void **state)
{
    struct cluster c;
    struct mc_sched_decision d;

    cluster_init(&c);
    c.workers[0].state = c.workers[1].state = MC_WORKER_DOWN;
    d = decide(&c);
    assert_int_equal(d.outcome, MC_SCHED_RUN);
    assert_int_equal(d.route, MC_ROUTE_SINGLE);
    assert_true(d.prefill >= 2 && d.degraded);

    cluster_init(&c);
    c.workers[2].state = c.workers[3].state = MC_WORKER_DRAINING;
    d = decide(&c);
    assert_int_equal(d.outcome, MC_SCHED_RUN);
    assert_true(d.decode < 2 && d.degraded);

    cluster_init(&c);
    c.workers[0].waiting = c.workers[1].waiting = 8; /* full */
    d = decide(&c);
    assert_int_equal(d.outcome, MC_SCHED_RUN);
    assert_true(d.prefill >= 2 && d.degraded);
}

static void doubtful_workers_come_last(void **state)
{
    struct cluster c;
    struct mc_sched_decision d;

    cluster_init(&c);
    c.workers[0].state = MC_WORKER_SUSPECT;
    c.workers[1].queue_ms = 5000;
    assert_int_equal(decide(&c).prefill, 1);
    c.workers[1].state = c.workers[2].state = c.workers[3].state = MC_WORKER_DOWN;
    d = decide(&c);
    assert_int_equal(d.outcome, MC_SCHED_RUN);
    assert_int_equal(d.prefill, 0);
    assert_true(d.degraded);
    c.workers[0].state = MC_WORKER_DOWN;
    assert_int_equal(decide(&c).outcome, MC_SCHED_NOBODY);
}

static void slo_is_kept_or_refused(void **state)
{
    struct cluster c;
    struct mc_sched_decision d;

    cluster_init(&c);
    c.request.slo_ttft_ms = 900;
    d = decide(&c);
    assert_int_equal(d.outcome, MC_SCHED_REFUSE);
    assert_true(d.retry_after_ms >= 1000);
    c.request.slo_ttft_ms = 1100;
    assert_int_equal(decide(&c).outcome, MC_SCHED_RUN);
    c.request.waited_ms = 200;
    assert_int_equal(decide(&c).outcome, MC_SCHED_REFUSE);
    c.request.slo_ttft_ms = 0;
    c.request.slo_tbt_ms = 12; /* one sequence of 1000 tokens: 10 + 2 + 1 */
    assert_int_equal(decide(&c).outcome, MC_SCHED_REFUSE);
    c.request.slo_tbt_ms = 14;
    assert_int_equal(decide(&c).outcome, MC_SCHED_RUN);
}

/* What was slow for a moment is not refused for ever: refusals would never find out that it is fast again. */
static void idle_workers_are_tried(void **state)
{
    struct cluster c;
    struct mc_sched_decision d;

    cluster_init(&c);
    c.request.slo_ttft_ms = 900;
    for (int i = 0; i < 4; i++)
        c.workers[i].idle_ms = 4999;
    assert_int_equal(decide(&c).outcome, MC_SCHED_REFUSE);
    for (int i = 0; i < 4; i++)
        c.workers[i].idle_ms = 5000;
    d = decide(&c);
    assert_int_equal(d.outcome, MC_SCHED_RUN);
    assert_true(d.trial);
    c.request.slo_ttft_ms = 240; /* four times as fast as ever seen: that is no noise */
    assert_int_equal(decide(&c).outcome, MC_SCHED_REFUSE);
    c.request.slo_ttft_ms = 1100;
    assert_false(decide(&c).trial);
    c.request.slo_tbt_ms = 12;
    assert_true(decide(&c).trial);
    c.workers[2].idle_ms = c.workers[3].idle_ms = 0; /* the one that is tried has its answer to come */
    assert_int_equal(decide(&c).outcome, MC_SCHED_REFUSE);
}

static void begun_answers_want_only_a_decoder(void **state)
{
    struct cluster c;
    struct mc_sched_decision d;

    cluster_init(&c);
    c.request.begun = true;
    c.workers[0].waiting = c.workers[1].waiting = 8;
    c.workers[2].state = MC_WORKER_TRIED;
    d = decide(&c);
    assert_int_equal(d.outcome, MC_SCHED_RUN);
    assert_int_equal(d.decode, 3);
    assert_int_equal(d.prefill, 3);
}

static void a_prompt_too_long_for_everybody_is_nobodys(void **state)
{
    struct cluster c;

    cluster_init(&c);
    for (int i = 0; i < 4; i++)
        c.workers[i].kv_tokens_max = 1000;
    assert_int_equal(decide(&c).outcome, MC_SCHED_NOBODY);
}

/* --- properties --- */

static void check_run(const struct cluster *c, const struct mc_sched_decision *d)
{
    assert_true(d->prefill < 4 && d->decode < 4);
    assert_true(d->route != MC_ROUTE_NONE);
    assert_true((d->route == MC_ROUTE_SPLIT) == (d->prefill != d->decode));
    assert_true(c->workers[d->prefill].state != MC_WORKER_DOWN && c->workers[d->decode].state != MC_WORKER_DOWN);
    assert_true(
        c->workers[d->prefill].state != MC_WORKER_DRAINING && c->workers[d->decode].state != MC_WORKER_DRAINING);
    assert_true(d->load_tokens <= c->request.reuse_max && d->load_tokens % BLOCK == 0);
    assert_true(d->own_tokens <= d->load_tokens);
    assert_true(isfinite(d->ttft_ms) && d->ttft_ms >= 0);
    assert_true(fabs(d->queue_ms + d->load_ms + d->prefill_ms - d->ttft_ms) < 1e-6);
    assert_true(isfinite(d->tbt_ms) && d->tbt_ms > 0);
    if (c->request.slo_ttft_ms > 0 && !d->trial)
        assert_true(d->ttft_ms + c->request.waited_ms <= c->request.slo_ttft_ms);
    if (d->trial)
        assert_true(c->workers[d->prefill].idle_ms >= 5000 && c->workers[d->decode].idle_ms >= 5000);
}

static void check_explanation(
    const struct cluster *c, const struct mc_sched_decision *d, const struct mc_sched_explain *explain)
{
    unsigned chosen = 0;

    assert_int_equal(explain->candidate_count, 8);
    for (uint32_t i = 0; i < explain->candidate_count; i++) {
        const struct mc_sched_candidate *row = &explain->candidates[i];

        chosen += row->chosen;
        if (row->chosen && d->outcome == MC_SCHED_RUN)
            assert_int_equal(row->skip, MC_SKIP_NONE);
    }
    if (d->outcome == MC_SCHED_RUN)
        assert_true(chosen >= 1 && chosen <= 2);
}

static void every_policy_keeps_the_rules(void **state)
{
    struct rng rng;
    const struct mc_sched_policy *policy;

    rng_seed(&rng, 20);
    for (size_t p = 0; (policy = mc_sched_policy_at(p)) != NULL; p++) {
        unsigned outcomes[MC_SCHED_OUTCOMES] = {0};

        assert_ptr_equal(mc_sched_policy_find(policy->name), policy);
        for (int i = 0; i < 20000; i++) {
            struct cluster c;
            struct mc_sched_candidate rows[8];
            struct mc_sched_explain explain = {.candidates = rows, .candidates_max = 8};
            struct mc_sched_decision d, again;

            randomise(&c, &rng);
            policy->decide(&c.snapshot, &c.request, &d, &explain);
            policy->decide(&c.snapshot, &c.request, &again, NULL);
            assert_memory_equal(&d, &again, sizeof d);
            outcomes[d.outcome]++;
            if (d.outcome == MC_SCHED_RUN)
                check_run(&c, &d);
            check_explanation(&c, &d, &explain);
        }
        for (int o = 0; o < MC_SCHED_OUTCOMES; o++)
            assert_true(outcomes[o] > 0); /* the generator reaches all of them */
    }
    assert_null(mc_sched_policy_find("nonsense"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cold_goes_to_the_shorter_queue),
        cmocka_unit_test(equal_workers_have_equal_chances),
        cmocka_unit_test(a_hit_beats_a_queue_until_it_does_not),
        cmocka_unit_test(a_hot_prefix_spreads),
        cmocka_unit_test(slow_links_are_not_used),
        cmocka_unit_test(full_hit_goes_straight_to_decode),
        cmocka_unit_test(short_prompts_go_straight_to_decode),
        cmocka_unit_test(what_cannot_be_handed_over_is_not_split),
        cmocka_unit_test(a_split_counts_the_remainder_twice),
        cmocka_unit_test(decode_goes_where_steps_are_fast),
        cmocka_unit_test(decode_stays_where_steps_are_as_fast),
        cmocka_unit_test(direct_ones_go_where_they_begin_at_once),
        cmocka_unit_test(one_worker_does_both_when_it_can),
        cmocka_unit_test(nothing_is_split_without_a_store),
        cmocka_unit_test(pools_stand_in_for_each_other),
        cmocka_unit_test(doubtful_workers_come_last),
        cmocka_unit_test(slo_is_kept_or_refused),
        cmocka_unit_test(idle_workers_are_tried),
        cmocka_unit_test(begun_answers_want_only_a_decoder),
        cmocka_unit_test(a_prompt_too_long_for_everybody_is_nobodys),
        cmocka_unit_test(every_policy_keeps_the_rules),
    };

    return cmocka_run_group_tests_name("scheduler", tests, NULL, NULL);
}
