/* replay.c - mooncake replay: a trace under simulated time. The work is in replay/; this reads options and prints. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "replay/cluster.h"
#include "replay/one_pool.h"
#include "replay/report.h"

enum { BAD_SHOWN = 10, BAR_WIDTH = 40, TRACE_BLOCK_TOKENS = 512 };

#define BAR_EVERY_NS (100 * NS_PER_MS)

/* What is on the terminal while it runs. */
struct progress {
    const struct cli *cli;
    bool live;
    uint64_t shown_ns, bad;
};

static void progress_clear(const struct progress *progress)
{
    if (progress->live && progress->shown_ns)
        fputs("\r\033[K", stderr);
}

static void show_progress(void *arg, double part)
{
    struct progress *progress = arg;
    uint64_t now = now_ns();
    int done = (int)(part * BAR_WIDTH);

    if (!progress->live || now - progress->shown_ns < BAR_EVERY_NS)
        return;
    progress->shown_ns = now;
    fprintf(stderr, "\r[%.*s%*s] %3.0f %%", done, "########################################", BAR_WIDTH - done, "",
        part * 100);
}

static void tell_bad_line(void *arg, uint64_t line, const char *why)
{
    struct progress *progress = arg;

    progress_clear(progress);
    if (progress->bad++ < BAD_SHOWN)
        fprintf(stderr, "%s:%" PRIu64 ": %s\n", progress->cli->set->trace, line, why);
}

static void tell_bad_lines(const struct progress *progress, uint64_t reordered)
{
    progress_clear(progress);
    if (progress->bad > 0)
        fprintf(stderr, "%s: %" PRIu64 " bad lines left out%s\n", progress->cli->set->trace, progress->bad,
            progress->bad > BAD_SHOWN ? ", the first are named above" : "");
    if (reordered > 0)
        fprintf(stderr, "%s: %" PRIu64 " requests are stamped earlier than the one before; they came with that one\n",
            progress->cli->set->trace, reordered);
}

static int trace_failed(const struct cli *cli, enum mc_status status)
{
    switch (status) {
    case MC_EINVAL: return cli_fail(cli, CLI_FAILED, "%s: the line above is bad, and --strict", cli->set->trace);
    case MC_ESYS: return cli_fail(cli, CLI_FAILED, "%s: %s", cli->set->trace, strerror(errno));
    case MC_ENOSUP: return cli_fail(cli, CLI_FAILED, "%s: --evict opt reads it twice; give a file", cli->set->trace);
    default: return cli_fail(cli, CLI_FAILED, "%s: %s", cli->set->trace, mc_status_str(status));
    }
}

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
    if (!all)
        return cli_fail(cli, CLI_FAILED, "out of memory");
    json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(all);
    return CLI_OK;
}

static int one_pool(struct cli *cli, const struct eviction *eviction)
{
    struct progress progress = {.cli = cli, .live = isatty(STDERR_FILENO)};
    struct trace_options trace = {.path = cli->set->trace,
        .block_tokens = TRACE_BLOCK_TOKENS,
        .strict = cli->set->strict,
        .bad = tell_bad_line,
        .arg = &progress};
    struct one_pool_result r;
    uint64_t start = now_ns();
    enum mc_status status = one_pool_run(&trace, eviction, (uint32_t)cli->set->one_pool, show_progress, &progress, &r);
    double seconds = (double)(now_ns() - start) / NS_PER_S;

    if (status != MC_OK) {
        progress_clear(&progress);
        return trace_failed(cli, status);
    }
    tell_bad_lines(&progress, r.reordered);
    if (cli->set->json)
        return one_pool_json(cli, eviction, &r, seconds);
    printf("%s, %" PRId64 " blocks: hit rate %.4f (%" PRIu64 " of %" PRIu64 " blocks of %" PRIu64 " requests), %" PRIu64
           " evicted, %.2f s\n",
        eviction->policy->name, cli->set->one_pool, r.hit_rate, r.hit_blocks, r.blocks, r.requests, r.evicted, seconds);
    return CLI_OK;
}

/* ---- a cluster ---- */

/* One policy's run. */
struct run {
    const struct mc_sched_policy *policy;
    struct cluster_result result;
    double seconds;
};

enum { RUNS_MAX = 32 };

/* 3000000, 3M: units are powers of a thousand. `stop` ends it. */
static bool parse_count(const char *text, const char *stop, double *out)
{
    static const char units[] = "KMGT";
    char number[32], *end;

    if (stop - text >= (ptrdiff_t)sizeof(number))
        return false;
    snprintf(number, sizeof(number), "%.*s", (int)(stop - text), text); /* "2..4": the dot is no part of 2 */
    *out = strtod(number, &end);
    const char *unit = *end ? strchr(units, *end) : NULL;
    if (unit) {
        *out *= pow(1e3, (double)(unit - units + 1));
        end++;
    }
    return end != number && !*end && *out > 0 && *out <= 1e12;
}

static int take_cache_tokens(const struct cli *cli, double *tokens)
{
    const char *text = cli->set->cache_tokens;

    if (!parse_count(text, text + strlen(text), tokens) || *tokens < 1)
        return cli_fail(cli, CLI_USAGE, "--cache-tokens: '%s' is no count like 3000000 or 3M", text);
    return CLI_OK;
}

static int take_model(const struct cli *cli, struct model *model)
{
    const struct settings *set = cli->set;
    char why[256];

    model_init(model);
    if (set->cluster && model_read(model, set->cluster, why, sizeof(why)) != MC_OK)
        return cli_fail(cli, CLI_USAGE, "%s: %s", set->cluster, why);
    if (set->prefill)
        model->prefill = (double)set->prefill;
    if (set->decode)
        model->decode = (double)set->decode;
    if (set->cache_tokens && take_cache_tokens(cli, &model->cache_tokens) != CLI_OK)
        return CLI_USAGE;
    if (model_complete(model, why, sizeof(why)) != MC_OK)
        return cli_fail(cli, CLI_USAGE, "%s: %s", set->cluster ? set->cluster : "the cluster", why);
    return CLI_OK;
}

/* Names with commas, "all", or the one policy. */
static int take_policies(const struct cli *cli, struct run runs[RUNS_MAX], size_t *count)
{
    const char *names = cli->set->compare ? cli->set->compare : cli->set->policy ? cli->set->policy : "mooncake";

    *count = 0;
    if (cli->set->compare && strcmp(names, "all") == 0) {
        while (*count < RUNS_MAX && (runs[*count].policy = replay_policy_at(*count)) != NULL)
            (*count)++;
        return CLI_OK;
    }
    for (const char *at = names; *at;) {
        size_t len = strcspn(at, ",");
        char name[32];

        snprintf(name, sizeof(name), "%.*s", (int)(len < sizeof(name) ? len : sizeof(name)), at);
        if (*count == RUNS_MAX)
            return cli_fail(cli, CLI_USAGE, "--compare: more than %d policies", RUNS_MAX);
        if (!(runs[(*count)++].policy = replay_policy_find(name)))
            return cli_fail(cli, CLI_USAGE, "--compare: there is no policy '%s'", name);
        at += len + (at[len] == ',');
    }
    return *count ? CLI_OK : cli_fail(cli, CLI_USAGE, "--compare: no policy is named");
}

static json_t *times_json(const struct stats *times)
{
    return json_pack("{s:f, s:f, s:f, s:f, s:f}", "mean", stats_mean(times), "p50", stats_at(times, 0.5), "p90",
        stats_at(times, 0.9), "p99", stats_at(times, 0.99), "max", times->max);
}

static uint64_t computed_tokens(const struct cluster_result *r)
{
    return r->prompt_tokens - r->own_tokens - r->remote_tokens;
}

static double part(double of, double all)
{
    return all > 0 ? of / all : 0;
}

static json_t *run_json(const struct run *run, const char *evict)
{
    const struct cluster_result *r = &run->result;
    char hash[17];

    snprintf(hash, sizeof(hash), "%016" PRIx64, r->event_hash);
    json_t *hits = json_pack("{s:I, s:I, s:I, s:I, s:I}", "own", (json_int_t)r->own_tokens, "remote",
        (json_int_t)r->remote_tokens, "ssd", (json_int_t)0, "missed", (json_int_t)computed_tokens(r),
        "missed_elsewhere", (json_int_t)r->elsewhere_tokens);
    return json_pack("{s:s, s:s, s:I, s:o, s:o, s:f, s:o, s:f, s:I, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:f, s:s, s:f}",
        "policy", run->policy->name, "evict", evict, "requests", (json_int_t)r->requests, "ttft_ms",
        times_json(&r->ttft), "tbt_ms", times_json(&r->tbt), "hit_rate",
        part((double)(r->own_tokens + r->remote_tokens), (double)r->prompt_tokens), "hit_tokens", hits, "goodput",
        part((double)r->good, (double)r->requests), "rejected", (json_int_t)r->rejected, "rejected_share",
        part((double)r->rejected, (double)r->requests), "load_max_over_mean", r->load_max_over_mean, "bytes_moved",
        r->bytes_moved, "duplicated_tokens", (json_int_t)r->duplicated_tokens, "held_max", (json_int_t)r->held_max,
        "bad_lines", (json_int_t)r->bad_lines, "reordered", (json_int_t)r->reordered, "simulated_s", r->simulated_s,
        "event_hash", hash, "seconds", run->seconds);
}

static int print_runs_json(const struct cli *cli, const struct run *runs, size_t count, const char *evict)
{
    json_t *all = cli->set->compare ? json_array() : NULL;

    for (size_t i = 0; i < count; i++) {
        json_t *one = run_json(&runs[i], evict);

        if (!one || (cli->set->compare && json_array_append_new(all, one) < 0))
            return cli_fail(cli, CLI_FAILED, "out of memory");
        if (!cli->set->compare)
            all = one;
    }
    json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(all);
    return CLI_OK;
}

static void print_runs(const struct run *runs, size_t count)
{
    printf("%-12s %10s %9s %9s %9s %9s %8s %8s %6s %6s %7s %6s %9s %7s %5s\n", "policy", "TTFT mean", "p50", "p90",
        "p99", "max", "TBT mean", "p99", "hit", "own", "goodput", "refus.", "load m/m", "moved", "s");
    for (size_t i = 0; i < count; i++) {
        const struct cluster_result *r = &runs[i].result;
        double all = (double)r->prompt_tokens;

        printf("%-12s %10.1f %9.0f %9.0f %9.0f %9.0f %8.1f %8.1f %6.3f %6.3f %7.3f %6.3f %9.3f %5.1fTB %5.2f\n",
            runs[i].policy->name, stats_mean(&r->ttft), stats_at(&r->ttft, 0.5), stats_at(&r->ttft, 0.9),
            stats_at(&r->ttft, 0.99), r->ttft.max, stats_mean(&r->tbt), stats_at(&r->tbt, 0.99),
            part((double)(r->own_tokens + r->remote_tokens), all), part((double)r->own_tokens, all),
            part((double)r->good, (double)r->requests), part((double)r->rejected, (double)r->requests),
            r->load_max_over_mean, r->bytes_moved / 1e12, runs[i].seconds);
    }
    printf("times in ms; hit, own: of all prompt tokens; load m/m: busiest prefill instance over the mean\n");
}

/* One line for each request that ended. */
struct lines {
    FILE *file;
    const char *policy;
};

static void write_outcome(void *arg, const struct cluster_outcome *outcome)
{
    const struct lines *lines = arg;

    if (outcome->rejected)
        fprintf(lines->file, "{\"policy\": \"%s\", \"request\": %" PRIu64 ", \"rejected\": true}\n", lines->policy,
            outcome->number);
    else
        fprintf(lines->file, "{\"policy\": \"%s\", \"request\": %" PRIu64 ", \"ttft_ms\": %.6f, \"tbt_ms\": %.6f}\n",
            lines->policy, outcome->number, outcome->ttft_ms, outcome->tbt_ms);
}

static int run_all(struct cli *cli, const struct eviction *eviction, const struct model *model, double speed,
    struct run *runs, size_t count, FILE *ends, size_t *done)
{
    const struct settings *set = cli->set;

    for (*done = 0; *done < count; (*done)++) {
        struct progress progress = {.cli = cli, .live = isatty(STDERR_FILENO)};
        struct run *run = &runs[*done];
        struct lines lines = {ends, run->policy->name};
        struct cluster_options options = {.trace = {.path = set->trace,
                                              .block_tokens = (uint32_t)model->block_tokens,
                                              .strict = set->strict,
                                              .bad = *done == 0 ? tell_bad_line : NULL,
                                              .arg = &progress},
            .model = model,
            .policy = run->policy,
            .eviction = *eviction,
            .speed = speed,
            .seed = (uint64_t)set->seed,
            .slo_ttft_ms = (double)set->slo_ttft_ms,
            .slo_tbt_ms = (double)set->slo_tbt_ms,
            .never_refuse = set->never_refuse,
            .outcome = ends ? write_outcome : NULL,
            .outcome_arg = &lines,
            .progress = show_progress,
            .arg = &progress};
        uint64_t start = now_ns();
        enum mc_status status = cluster_run(&options, &run->result);

        run->seconds = (double)(now_ns() - start) / NS_PER_S;
        progress_clear(&progress);
        if (status != MC_OK)
            return trace_failed(cli, status);
        tell_bad_lines(&progress, *done == 0 ? run->result.reordered : 0);
    }
    return CLI_OK;
}

/* ---- the page ---- */

enum { CURVE_POINTS = 9 };

struct curve {
    double blocks[CURVE_POINTS], hit_rate[CURVE_POINTS];
};

/* Hit rates of one pool from a 128th of the cluster's cache to twice of it. */
static int run_curve(
    const struct cli *cli, const struct eviction *eviction, const struct model *model, struct curve *out)
{
    struct trace_options trace = {.path = cli->set->trace, .block_tokens = (uint32_t)model->block_tokens};
    double all = floor(model->cache_tokens / model->block_tokens) * model->prefill;

    for (int i = 0; i < CURVE_POINTS; i++) {
        struct one_pool_result r;

        out->blocks[i] = fmax(floor(all / 128 * (1 << i)), i + 1);
        if (out->blocks[i] > 1 << 28)
            return cli_fail(cli, CLI_USAGE, "--report: the cache is too large for its curve over capacity");
        enum mc_status status = one_pool_run(&trace, eviction, (uint32_t)out->blocks[i], NULL, NULL, &r);
        if (status != MC_OK)
            return trace_failed(cli, status);
        out->hit_rate[i] = r.hit_rate;
    }
    return CLI_OK;
}

static int write_page(const struct cli *cli, const struct buf *page)
{
    FILE *file = fopen(cli->set->report, "we");
    bool whole = file && fwrite(page->data, 1, page->len, file) == page->len;

    if ((file && fclose(file) != 0) || !whole)
        return cli_fail(cli, CLI_FAILED, "%s: %s", cli->set->report, strerror(errno));
    return CLI_OK;
}

/* What was asked for, for whoever reads the page. */
static void write_command(const struct cli *cli, const char *evict, struct buf *out)
{
    const struct settings *set = cli->set;

    buf_printf(out, "mooncake replay --trace %s --evict %s --speed %g --seed %" PRId64, set->trace, evict, set->speed,
        set->seed);
    if (set->cluster)
        buf_printf(out, " --cluster %s", set->cluster);
    if (set->slo_ttft_ms)
        buf_printf(out, " --slo-ttft-ms %" PRIu64, set->slo_ttft_ms);
    if (set->slo_tbt_ms)
        buf_printf(out, " --slo-tbt-ms %" PRIu64, set->slo_tbt_ms);
}

static int report(
    struct cli *cli, const struct eviction *eviction, const struct model *model, const struct run *runs, size_t count)
{
    struct report_run shown[RUNS_MAX];
    struct curve curves[2];
    struct eviction opt;
    struct buf page, command;
    int code;

    if ((code = run_curve(cli, eviction, model, &curves[0])) != CLI_OK)
        return code;
    eviction_find("opt", &opt);
    if ((code = run_curve(cli, &opt, model, &curves[1])) != CLI_OK)
        return code;
    for (size_t i = 0; i < count; i++)
        shown[i] = (struct report_run){runs[i].policy->name, &runs[i].result};
    buf_init(&page, SIZE_MAX);
    buf_init(&command, SIZE_MAX);
    write_command(cli, eviction->policy->name, &command);
    const struct report_curve lines[] = {
        {eviction->policy->name, curves[0].blocks, curves[0].hit_rate, CURVE_POINTS},
        {"opt, which knows the future", curves[1].blocks, curves[1].hit_rate, CURVE_POINTS},
    };
    const struct report all = {cli->set->trace, buf_cstr(&command), model, shown, count, lines, 2};
    report_write(&all, &page);
    code = buf_status(&page) == MC_OK ? write_page(cli, &page) : cli_fail(cli, CLI_FAILED, "out of memory");
    buf_fini(&command);
    buf_fini(&page);
    return code;
}

/* ---- a range ---- */

enum { SWEEP_POINTS = 9 };

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
        if (!parse_count(equal + 1, dots, &sweep->from) || !parse_count(dots + 2, text + strlen(text), &sweep->to) ||
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

static void print_sweep_point(const struct sweep *sweep, double value, const struct run *runs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct cluster_result *r = &runs[i].result;

        printf("%-12s %12.6g %-12s %10.1f %9.0f %9.0f %8.1f %6.3f %7.3f %6.3f\n", sweep->name, value,
            runs[i].policy->name, stats_mean(&r->ttft), stats_at(&r->ttft, 0.9), stats_at(&r->ttft, 0.99),
            stats_at(&r->tbt, 0.99), part((double)(r->own_tokens + r->remote_tokens), (double)r->prompt_tokens),
            part((double)r->good, (double)r->requests), part((double)r->rejected, (double)r->requests));
    }
}

static int add_sweep_point(
    json_t *all, const struct sweep *sweep, double value, const struct run *runs, size_t count, const char *evict)
{
    for (size_t i = 0; i < count; i++) {
        json_t *one = run_json(&runs[i], evict);

        if (!one || json_object_set_new(one, sweep->name, json_real(value)) < 0 || json_array_append_new(all, one) < 0)
            return CLI_FAILED;
    }
    return CLI_OK;
}

static int sweep(struct cli *cli, const struct eviction *eviction, struct model *model, struct run *runs, size_t count)
{
    json_t *all = cli->set->json ? json_array() : NULL;
    double speed = cli->set->speed;
    struct sweep sweep;
    int code = take_sweep(cli, &sweep);

    if (code == CLI_OK && !all)
        printf("%-12s %12s %-12s %10s %9s %9s %8s %6s %7s %6s\n", "", "", "policy", "TTFT mean", "p90", "p99",
            "TBT p99", "hit", "goodput", "refus.");
    for (int i = 0; code == CLI_OK && i < sweep.points; i++) {
        double value = sweep_at(&sweep, i);
        size_t done = 0;

        sweep_set(&sweep, value, model, &speed);
        code = run_all(cli, eviction, model, speed, runs, count, NULL, &done);
        if (code == CLI_OK && all)
            code = add_sweep_point(all, &sweep, value, runs, count, eviction->policy->name);
        else if (code == CLI_OK)
            print_sweep_point(&sweep, value, runs, count);
        for (size_t j = 0; j < done; j++)
            cluster_result_fini(&runs[j].result);
    }
    if (code == CLI_OK && all) {
        json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
        putchar('\n');
    }
    json_decref(all);
    return code;
}

static int cluster(struct cli *cli, const struct eviction *eviction)
{
    struct run runs[RUNS_MAX];
    struct model model;
    size_t count, done = 0;
    FILE *ends = NULL;
    int code;

    if (eviction->clairvoyant)
        return cli_fail(cli, CLI_USAGE, "--evict %s needs --one-pool: it knows the future of one pool only",
            eviction->policy->name);
    if ((code = take_model(cli, &model)) != CLI_OK || (code = take_policies(cli, runs, &count)) != CLI_OK)
        return code;
    if (cli->set->sweep && (cli->set->report || cli->set->requests_out))
        return cli_fail(cli, CLI_USAGE, "--sweep prints a table or JSON: no --report, no --requests-out");
    if (cli->set->sweep)
        return sweep(cli, eviction, &model, runs, count);
    if (cli->set->requests_out && !(ends = fopen(cli->set->requests_out, "we")))
        return cli_fail(cli, CLI_FAILED, "%s: %s", cli->set->requests_out, strerror(errno));
    code = run_all(cli, eviction, &model, cli->set->speed, runs, count, ends, &done);
    if (ends && (ferror(ends) || fclose(ends) != 0) && code == CLI_OK)
        code = cli_fail(cli, CLI_FAILED, "%s: %s", cli->set->requests_out, strerror(errno));
    if (code == CLI_OK && cli->set->json)
        code = print_runs_json(cli, runs, count, eviction->policy->name);
    else if (code == CLI_OK)
        print_runs(runs, count);
    if (code == CLI_OK && cli->set->report)
        code = report(cli, eviction, &model, runs, count);
    for (size_t i = 0; i < done; i++)
        cluster_result_fini(&runs[i].result);
    return code;
}

int cmd_replay(struct cli *cli)
{
    struct eviction eviction;

    if (!cli->set->trace)
        return cli_fail(cli, CLI_USAGE, "give --trace FILE");
    eviction_at(0, &eviction);
    if (cli->set->evict && !eviction_find(cli->set->evict, &eviction))
        return cli_fail(cli, CLI_USAGE, "--evict: there is no '%s'", cli->set->evict);
    if (cli->set->one_pool > 0 && (cli->set->report || cli->set->compare || cli->set->sweep))
        return cli_fail(cli, CLI_USAGE, "--one-pool knows no policies and no time: no --report, --compare, --sweep");
    return cli->set->one_pool > 0 ? one_pool(cli, &eviction) : cluster(cli, &eviction);
}
