/* replay_sweep.c - mooncake replay --sweep: the same over a range of one value. See replay.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/replay.h"

enum { SWEEP_POINTS = REPORT_POINTS };

struct sweep {
    const char *name;
    double from, to;
    bool whole; /* numbers */
    int points;
};

static int take_sweep(const struct cli *cli, struct sweep *sweep)
{
    static const struct sweep known[] = {
        {"cache-tokens", 1, 1e12, true, 0},
        {"prefill", 1, MODEL_PREFILL_MAX, true, 0},
        {"decode", 1, MODEL_WORKERS_MAX - MODEL_PREFILL_MAX, true, 0},
        {"speed", 1e-6, 1e6, false, 0},
    };
    const char *text = cli->set->sweep, *equal = strchr(text, '='), *dots = equal ? strstr(equal, "..") : NULL;

    for (size_t i = 0; dots && i < sizeof(known) / sizeof(known[0]); i++) {
        *sweep = known[i];
        if (strlen(sweep->name) != (size_t)(equal - text) || strncmp(sweep->name, text, (size_t)(equal - text)) != 0)
            continue;
        if (!replay_count(equal + 1, dots, &sweep->from) || !replay_count(dots + 2, text + strlen(text), &sweep->to) ||
            !(sweep->from >= known[i].from && sweep->from < sweep->to && sweep->to <= known[i].to))
            return cli_fail(cli, CLI_USAGE, "--sweep: '%s' must go up within %g..%g", text, known[i].from, known[i].to);
        sweep->points =
            sweep->whole && sweep->to - sweep->from < SWEEP_POINTS ? (int)(sweep->to - sweep->from) + 1 : SWEEP_POINTS;
        return CLI_OK;
    }
    return cli_fail(cli, CLI_USAGE,
        "--sweep: '%s' is not like cache-tokens=1M..50M; there are cache-tokens, prefill, decode, speed", text);
}

/* Steps of equal ratio. */
static double sweep_at(const struct sweep *sweep, int point)
{
    double value = sweep->from * pow(sweep->to / sweep->from, (double)point / (sweep->points - 1));

    if (sweep->whole && sweep->points < SWEEP_POINTS)
        return sweep->from + point;
    return sweep->whole ? round(value) : value;
}

static void sweep_set(const struct sweep *sweep, double value, struct model *model, double *speed)
{
    if (strcmp(sweep->name, "cache-tokens") == 0)
        model->cache_tokens = fmax(value, model->block_tokens);
    else if (strcmp(sweep->name, "prefill") == 0)
        model->prefill = value;
    else if (strcmp(sweep->name, "decode") == 0)
        model->decode = value;
    else
        *speed = value;
}

/* What is plotted of one point, for each policy. */
static void plot_sweep_point(
    struct report_sweep *plot, int point, double value, const struct replay_run *runs, size_t count)
{
    plot->x[point] = value;
    plot->point_count = (size_t)point + 1;
    plot->run_count = count;
    for (size_t i = 0; i < count; i++) {
        const struct cluster_result *r = &runs[i].result;

        plot->policies[i] = runs[i].policy->name;
        plot->ttft_mean[i][point] = stats_mean(&r->ttft);
        plot->ttft_p90[i][point] = stats_at(&r->ttft, 0.9);
        plot->hit_rate[i][point] = replay_hit_rate(r);
        plot->goodput[i][point] = replay_part((double)r->good, (double)r->requests);
    }
}

static void print_sweep_point(const struct sweep *sweep, double value, const struct replay_run *runs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct cluster_result *r = &runs[i].result;

        printf("%-12s %12.6g %-12s %10.1f %9.0f %9.0f %8.1f %6.3f %7.3f %6.3f\n", sweep->name, value,
            runs[i].policy->name, stats_mean(&r->ttft), stats_at(&r->ttft, 0.9), stats_at(&r->ttft, 0.99),
            stats_at(&r->tbt, 0.99), replay_hit_rate(r), replay_part((double)r->good, (double)r->requests),
            replay_part((double)r->rejected, (double)r->requests));
    }
}

static int add_sweep_point(json_t *all, const struct sweep *sweep, double value, const struct replay_run *runs,
    size_t count, const char *evict)
{
    for (size_t i = 0; i < count; i++) {
        json_t *one = replay_run_json(&runs[i], evict);

        if (!one || json_object_set_new(one, sweep->name, json_real(value)) < 0 || json_array_append_new(all, one) < 0)
            return CLI_FAILED;
    }
    return CLI_OK;
}

int replay_sweep(
    struct cli *cli, const struct eviction *eviction, struct model *model, struct replay_run *runs, size_t count)
{
    json_t *all = cli->set->json ? json_array() : NULL;
    double speed = cli->set->speed;
    struct report_sweep *plot = calloc(1, sizeof(*plot));
    struct sweep sweep;
    int code = plot ? take_sweep(cli, &sweep) : cli_fail(cli, CLI_FAILED, "out of memory");

    if (code == CLI_OK && !all)
        printf("%-12s %12s %-12s %10s %9s %9s %8s %6s %7s %6s\n", "", "", "policy", "TTFT mean", "p90", "p99",
            "TBT p99", "hit", "goodput", "refus.");
    for (int i = 0; code == CLI_OK && i < sweep.points; i++) {
        double value = sweep_at(&sweep, i);
        size_t done = 0;

        sweep_set(&sweep, value, model, &speed);
        code = replay_run_all(cli, eviction, model, speed, runs, count, NULL, &done);
        if (code == CLI_OK && all)
            code = add_sweep_point(all, &sweep, value, runs, count, eviction->policy->name);
        else if (code == CLI_OK)
            print_sweep_point(&sweep, value, runs, count);
        if (code == CLI_OK)
            plot_sweep_point(plot, i, value, runs, count);
        for (size_t j = 0; j < done; j++) {
            cluster_result_fini(&runs[j].result);
            runs[j].quiet = true;
        }
    }
    if (code == CLI_OK && cli->set->report) {
        plot->name = sweep.name;
        code = replay_sweep_page(cli, eviction, model, plot);
    }
    free(plot);
    if (code == CLI_OK && all)
        return replay_print_json(cli, all);
    json_decref(all);
    return code;
}
