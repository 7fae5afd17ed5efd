/* plan.c - mooncake plan: the cheapest split of prefill and decode instances, and memory, that keeps the SLO for a share of requests.
 *
 * A point is (prefill, decode, cache of a prefill node); it keeps the SLO when a replay of the trace under it has that goodput. More of
 * anything is taken never to hurt, so
 *
 *   1. everything is doubled until the SLO is kept, or the most that is allowed does not keep it;
 *   2. with the other at that most, the fewest prefill and the fewest decode instances are found by bisection: fewer never do;
 *   3. what is left is tried in order of price, without what has no more of anything than a point that failed. The first that keeps the SLO
 *      is the cheapest.
 *
 * Memory goes in steps of two, from a 64th to four times of what the cluster's model says. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/replay.h"

enum { MEMORY_STEPS = 9, MEMORY_FIRST = -6, POINTS_MAX = MODEL_PREFILL_MAX * MODEL_PREFILL_MAX * MEMORY_STEPS };

struct point {
    uint32_t prefill, decode;
    uint32_t memory; /* step */
    double price;
};

/* What a run under a point came to. */
struct tried {
    struct point at;
    double goodput, ttft_mean, ttft_p90, tbt_p99;
    bool keeps;
};

struct plan {
    struct cli *cli;
    struct eviction eviction;
    struct replay_run run;
    struct model model;
    uint32_t most; /* instances of a kind */
    struct tried *tried;
    size_t tried_count, tried_cap;
    int code; /* of the first failure */
};

static double cache_of(const struct plan *plan, const struct point *at)
{
    return fmax(plan->model.cache_tokens * ldexp(1, (int)at->memory + MEMORY_FIRST), plan->model.block_tokens);
}

static double price_of(const struct plan *plan, const struct point *at)
{
    const struct settings *set = plan->cli->set;

    return (at->prefill + at->decode) * set->price_instance + at->prefill * cache_of(plan, at) / 1e6 * set->price_cache;
}

static const struct tried *find_tried(const struct plan *plan, const struct point *at)
{
    for (size_t i = 0; i < plan->tried_count; i++) {
        const struct point *p = &plan->tried[i].at;

        if (p->prefill == at->prefill && p->decode == at->decode && p->memory == at->memory)
            return &plan->tried[i];
    }
    return NULL;
}

static void print_tried(const struct plan *plan, const struct tried *tried)
{
    char line[160];

    snprintf(line, sizeof(line), "%7u %7u %9.3fM %10.3f %8.4f %10.1f %9.0f %8.1f  %s", tried->at.prefill,
        tried->at.decode, cache_of(plan, &tried->at) / 1e6, tried->at.price, tried->goodput, tried->ttft_mean,
        tried->ttft_p90, tried->tbt_p99, tried->keeps ? "keeps it" : "does not");
    puts(line);
    fflush(stdout);
}

/* Does the cluster keep the SLO under this point? false after a failure, too. */
static bool keeps(struct plan *plan, struct point at)
{
    const struct tried *before = find_tried(plan, &at);
    struct model model = plan->model;
    size_t done;

    if (before || plan->code != CLI_OK)
        return before && before->keeps;
    if (plan->tried_count == plan->tried_cap) {
        size_t cap = plan->tried_cap ? 2 * plan->tried_cap : 64;
        struct tried *tried = realloc(plan->tried, cap * sizeof(*tried));

        if (!tried) {
            plan->code = cli_fail(plan->cli, CLI_FAILED, "out of memory");
            return false;
        }
        plan->tried = tried;
        plan->tried_cap = cap;
    }
    at.price = price_of(plan, &at);
    model.prefill = at.prefill;
    model.decode = at.decode;
    model.cache_tokens = cache_of(plan, &at);
    plan->code = replay_run_all(plan->cli, &plan->eviction, &model, plan->cli->set->speed, &plan->run, 1, NULL, &done);
    if (plan->code != CLI_OK)
        return false;
    const struct cluster_result *r = &plan->run.result;
    if (r->requests == 0) {
        cluster_result_fini(&plan->run.result);
        plan->code = cli_fail(plan->cli, CLI_FAILED, "nothing to plan for");
        return false;
    }
    struct tried *tried = &plan->tried[plan->tried_count++];
    *tried = (struct tried){at, replay_part((double)r->good, (double)r->requests), stats_mean(&r->ttft),
        stats_at(&r->ttft, 0.9), stats_at(&r->tbt, 0.99), false};
    tried->keeps = tried->goodput >= plan->cli->set->share;
    cluster_result_fini(&plan->run.result);
    plan->run.quiet = true;
    if (!plan->cli->set->json)
        print_tried(plan, tried);
    return tried->keeps;
}

/* ---- the search ---- */

/* Step 1: a point that keeps it, all of it doubled each time. */
static bool find_enough(struct plan *plan, struct point *enough)
{
    for (uint32_t n = 1;; n *= 2) {
        *enough = (struct point){.prefill = n < plan->most ? n : plan->most,
            .decode = n < plan->most ? n : plan->most,
            .memory = MEMORY_STEPS - 1};
        if (keeps(plan, *enough))
            return true;
        if (n >= plan->most || plan->code != CLI_OK)
            return false;
    }
}

/* Step 2: the fewest of one kind, with the most of everything else. */
static uint32_t find_fewest(struct plan *plan, uint32_t enough, bool prefill)
{
    uint32_t low = 1;

    while (low < enough && plan->code == CLI_OK) {
        uint32_t middle = (low + enough) / 2;
        struct point at = {.prefill = prefill ? middle : plan->most,
            .decode = prefill ? plan->most : middle,
            .memory = MEMORY_STEPS - 1};

        if (keeps(plan, at))
            enough = middle;
        else
            low = middle + 1;
    }
    return enough;
}

static int by_price(const void *a, const void *b)
{
    const struct point *x = a, *y = b;

    if (x->price != y->price)
        return x->price < y->price ? -1 : 1;
    return x->prefill != y->prefill ? (x->prefill < y->prefill ? -1 : 1) : x->decode < y->decode ? -1 : 1;
}

/* Has a point with at least as much of everything failed? */
static bool is_hopeless(const struct plan *plan, const struct point *at)
{
    for (size_t i = 0; i < plan->tried_count; i++) {
        const struct tried *tried = &plan->tried[i];

        if (!tried->keeps && at->prefill <= tried->at.prefill && at->decode <= tried->at.decode &&
            at->memory <= tried->at.memory)
            return true;
    }
    return false;
}

/* Step 3. NULL: nothing keeps it, or a failure. */
static const struct tried *find_cheapest(struct plan *plan, uint32_t prefill_min, uint32_t decode_min)
{
    struct point *points = malloc(POINTS_MAX * sizeof(*points));
    const struct tried *best = NULL;
    size_t count = 0;

    if (!points) {
        plan->code = cli_fail(plan->cli, CLI_FAILED, "out of memory");
        return NULL;
    }
    for (uint32_t p = prefill_min; p <= plan->most; p++)
        for (uint32_t d = decode_min; d <= plan->most; d++)
            for (uint32_t m = 0; m < MEMORY_STEPS; m++) {
                points[count] = (struct point){.prefill = p, .decode = d, .memory = m};
                points[count].price = price_of(plan, &points[count]);
                count++;
            }
    qsort(points, count, sizeof(*points), by_price);
    for (size_t i = 0; i < count && !best && plan->code == CLI_OK; i++)
        if (!is_hopeless(plan, &points[i]) && keeps(plan, points[i]))
            best = find_tried(plan, &points[i]);
    free(points);
    return best;
}

/* ---- the command ---- */

static json_t *tried_json(const struct plan *plan, const struct tried *tried)
{
    return json_pack("{s:I, s:I, s:f, s:f, s:f, s:b, s:{s:f, s:f}, s:{s:f}}", "prefill", (json_int_t)tried->at.prefill,
        "decode", (json_int_t)tried->at.decode, "cache_tokens", cache_of(plan, &tried->at), "price", tried->at.price,
        "goodput", tried->goodput, "keeps", tried->keeps, "ttft_ms", "mean", tried->ttft_mean, "p90", tried->ttft_p90,
        "tbt_ms", "p99", tried->tbt_p99);
}

static int print_plan(const struct plan *plan, const struct tried *best)
{
    if (!plan->cli->set->json) {
        printf("cheapest of %zu tried: %u prefill, %u decode, %.3fM tokens of cache on each prefill node; %.4f of "
               "requests are within the "
               "SLO, price %.3f\n",
            plan->tried_count, best->at.prefill, best->at.decode, cache_of(plan, &best->at) / 1e6, best->goodput,
            best->at.price);
        return CLI_OK;
    }
    json_t *all = tried_json(plan, best), *tried = json_array();
    for (size_t i = 0; i < plan->tried_count; i++)
        json_array_append_new(tried, tried_json(plan, &plan->tried[i]));
    if (!all || json_object_set_new(all, "policy", json_string(plan->run.policy->name)) < 0 ||
        json_object_set_new(all, "share", json_real(plan->cli->set->share)) < 0 ||
        json_object_set_new(all, "tried", tried) < 0)
        return cli_fail(plan->cli, CLI_FAILED, "out of memory");
    return replay_print_json(plan->cli, all);
}

static int search(struct plan *plan)
{
    const struct tried *best = NULL;
    struct point enough;

    if (!plan->cli->set->json)
        printf("%7s %7s %10s %10s %8s %10s %9s %8s\n", "prefill", "decode", "cache", "price", "goodput", "TTFT mean",
            "p90", "TBT p99");
    if (find_enough(plan, &enough)) {
        plan->most = enough.prefill < plan->most ? enough.prefill * 2 < plan->most ? enough.prefill * 2 : plan->most
                                                 : plan->most;
        uint32_t prefill_min = find_fewest(plan, enough.prefill, true),
                 decode_min = find_fewest(plan, enough.decode, false);

        best = find_cheapest(plan, prefill_min, decode_min);
    }
    if (plan->code != CLI_OK)
        return plan->code;
    if (!best)
        return cli_fail(plan->cli, CLI_FAILED,
            "%u prefill and %u decode instances with %.3fM tokens of cache each keep the SLO for %.4f of requests only",
            enough.prefill, enough.decode, cache_of(plan, &enough) / 1e6, plan->tried[plan->tried_count - 1].goodput);
    return print_plan(plan, best);
}

int cmd_plan(struct cli *cli)
{
    struct plan plan = {.cli = cli, .most = (uint32_t)cli->set->instances_max};
    struct replay_run runs[REPLAY_RUNS_MAX] = {0};
    size_t count;
    int code;

    if (!cli->set->trace)
        return cli_fail(cli, CLI_USAGE, "give --trace FILE");
    if (!cli->set->slo_ttft_ms && !cli->set->slo_tbt_ms)
        return cli_fail(cli, CLI_USAGE, "give the SLO: --slo-ttft-ms, --slo-tbt-ms or both");
    eviction_at(0, &plan.eviction);
    if (cli->set->evict && (!eviction_find(cli->set->evict, &plan.eviction) || plan.eviction.clairvoyant))
        return cli_fail(cli, CLI_USAGE, "--evict: '%s' runs in no cluster", cli->set->evict);
    if ((code = replay_need_file(cli)) != CLI_OK || (code = replay_take_model(cli, &plan.model)) != CLI_OK ||
        (code = replay_take_policies(cli, runs, &count)) != CLI_OK)
        return code;
    plan.run = runs[0];
    code = search(&plan);
    free(plan.tried);
    return code;
}
