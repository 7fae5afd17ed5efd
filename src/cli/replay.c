/* replay.c - mooncake replay: a trace under simulated time. The work is in replay/; this reads options and prints. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "cli/replay.h"
#include "replay/decisions.h"
#include "replay/one_pool.h"

/* ---- one pool ---- */

/* {"0.5": rate, ...}; NULL: out of memory. */
static json_t *hit_rates_at(const double rates[CURVE_SIZES])
{
    json_t *all = json_object();

    for (unsigned i = 0; all && i < CURVE_SIZES; i++) {
        char size[16];

        snprintf(size, sizeof(size), "%g", curve_sizes[i]);
        json_object_set_new(all, size, json_real(rates[i]));
    }
    return all;
}

static int one_pool_json(
    const struct cli *cli, const struct eviction *eviction, const struct one_pool_result *r, double seconds)
{
    json_t *all = json_pack("{s:f, s:I, s:I, s:f, s:s, s:I, s:I, s:I, s:I, s:I}", "hit_rate", r->hit_rate, "blocks",
        (json_int_t)r->blocks, "requests", (json_int_t)r->requests, "seconds", seconds, "evict", eviction->policy->name,
        "capacity", (json_int_t)cli->set->one_pool, "hit_blocks", (json_int_t)r->hit_blocks, "evicted",
        (json_int_t)r->evicted, "bad_lines", (json_int_t)r->bad_lines, "reordered", (json_int_t)r->reordered);

    if (all && !eviction->clairvoyant)
        json_object_set_new(all, "hit_rate_at", hit_rates_at(r->hit_rate_at));
    return replay_print_json(cli, all);
}

static int one_pool(struct cli *cli, const struct eviction *eviction)
{
    struct replay_bar bar = replay_bar(cli);
    struct trace_options trace = {.path = cli->set->trace,
        .block_tokens = REPLAY_BLOCK_TOKENS,
        .strict = cli->set->strict,
        .bad = replay_bar_bad_line,
        .arg = &bar};
    struct one_pool_result r;
    uint64_t start = now_ns();
    enum mc_status status = one_pool_run(&trace, eviction, (uint32_t)cli->set->one_pool, replay_bar_show, &bar, &r);
    double seconds = (double)(now_ns() - start) / NS_PER_S;

    replay_bar_end(&bar);
    if (status != MC_OK)
        return replay_trace_failed(cli, status);
    replay_tell_trace(cli, r.requests, r.reordered);
    if (cli->set->json)
        return one_pool_json(cli, eviction, &r, seconds);
    printf("%s, %" PRId64 " blocks: hit rate %.4f (%" PRIu64 " of %" PRIu64 " blocks of %" PRIu64 " requests), %" PRIu64
           " evicted, %.2f s\n",
        eviction->policy->name, cli->set->one_pool, r.hit_rate, r.hit_blocks, r.blocks, r.requests, r.evicted, seconds);
    return CLI_OK;
}

/* ---- what a Conductor recorded ---- */

static void tell_bad_decision(void *arg, uint64_t line, const char *why)
{
    const struct cli *cli = arg;

    fprintf(stderr, "%s:%" PRIu64 ": %s\n", cli->set->decisions, line, why);
}

static int decisions(struct cli *cli)
{
    const char *name = cli->set->policy;
    struct decisions_result r;
    enum mc_status status =
        decisions_run(cli->set->decisions, name ? replay_policy_find(name) : NULL, tell_bad_decision, cli, &r);

    if (status != MC_OK)
        return cli_fail(cli, CLI_FAILED, "%s: %s", cli->set->decisions,
            status == MC_ESYS ? strerror(errno) : mc_status_str(status));
    if (cli->set->strict && r.bad_lines > 0)
        return cli_fail(cli, CLI_FAILED, "%s: a line is no decision, and --strict", cli->set->decisions);
    if (cli->set->json)
        return replay_print_json(
            cli, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I}", "policy", name ? name : "as recorded", "decisions",
                     (json_int_t)r.decisions, "same", (json_int_t)r.same, "same_place", (json_int_t)r.same_place,
                     "different_line", (json_int_t)r.different_line, "bad_lines", (json_int_t)r.bad_lines));
    printf("%" PRIu64 " decisions, policy %s: %" PRIu64 " the same in every field, %" PRIu64
           " run at the same workers\n",
        r.decisions, name ? name : "as recorded", r.same, r.same_place);
    if (r.different_line)
        printf("the first that differs: line %" PRIu64 "\n", r.different_line);
    return CLI_OK;
}

/* ---- a cluster ---- */

/* One object, or with --compare an array of them. */
static int print_json(const struct cli *cli, const struct replay_run *runs, size_t count, const char *evict)
{
    if (!cli->set->compare)
        return replay_print_json(cli, replay_run_json(&runs[0], evict));
    json_t *all = json_array();
    for (size_t i = 0; i < count; i++)
        if (json_array_append_new(all, replay_run_json(&runs[i], evict)) < 0)
            return cli_fail(cli, CLI_FAILED, "out of memory");
    return replay_print_json(cli, all);
}

static int cluster(struct cli *cli, const struct eviction *eviction)
{
    struct replay_run runs[REPLAY_RUNS_MAX] = {0};
    struct model model;
    size_t count, done = 0;
    FILE *ends = NULL;
    int code;

    if (eviction->clairvoyant)
        return cli_fail(cli, CLI_USAGE, "--evict %s needs --one-pool: it knows the future of one pool only",
            eviction->policy->name);
    if ((code = replay_take_model(cli, &model)) != CLI_OK || (code = replay_take_policies(cli, runs, &count)) != CLI_OK)
        return code;
    if ((count > 1 || cli->set->sweep || cli->set->report || cli->set->regret) &&
        (code = replay_need_file(cli)) != CLI_OK)
        return code;
    if (cli->set->sweep && (cli->set->requests_out || cli->set->regret))
        return cli_fail(cli, CLI_USAGE, "--sweep: no --requests-out, no --regret");
    if (cli->set->sweep)
        return replay_sweep(cli, eviction, &model, runs, count);
    if (cli->set->requests_out && !(ends = fopen(cli->set->requests_out, "we")))
        return cli_fail(cli, CLI_FAILED, "%s: %s", cli->set->requests_out, strerror(errno));
    code = replay_run_all(cli, eviction, &model, cli->set->speed, runs, count, ends, &done);
    if (ends && (ferror(ends) || fclose(ends) != 0) && code == CLI_OK)
        code = cli_fail(cli, CLI_FAILED, "%s: %s", cli->set->requests_out, strerror(errno));
    if (code == CLI_OK && cli->set->json)
        code = print_json(cli, runs, count, eviction->policy->name);
    else if (code == CLI_OK)
        replay_print_runs(runs, count);
    if (code == CLI_OK && cli->set->report)
        code = replay_page(cli, eviction, &model, runs, count);
    for (size_t i = 0; i < done; i++)
        cluster_result_fini(&runs[i].result);
    return code;
}

int cmd_replay(struct cli *cli)
{
    struct eviction eviction;

    if (cli->set->decisions)
        return decisions(cli);
    if (!cli->set->trace)
        return cli_fail(cli, CLI_USAGE, "give --trace FILE");
    eviction_at(0, &eviction);
    if (cli->set->evict && !eviction_find(cli->set->evict, &eviction))
        return cli_fail(cli, CLI_USAGE, "--evict: there is no '%s'", cli->set->evict);
    if (cli->set->one_pool > 0 && (cli->set->report || cli->set->compare || cli->set->sweep))
        return cli_fail(cli, CLI_USAGE, "--one-pool knows no policies and no time: no --report, --compare, --sweep");
    return cli->set->one_pool > 0 ? one_pool(cli, &eviction) : cluster(cli, &eviction);
}
