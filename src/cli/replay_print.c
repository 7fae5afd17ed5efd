/* replay_print.c - figures of a replay as JSON and as a table. See replay.h. */
#include <inttypes.h>
#include <stdio.h>

#include "cli/replay.h"

static json_t *times_json(const struct stats *times)
{
    return json_pack("{s:f, s:f, s:f, s:f, s:f}", "mean", stats_mean(times), "p50", stats_at(times, 0.5), "p90",
        stats_at(times, 0.9), "p99", stats_at(times, 0.99), "max", times->max);
}

double replay_part(double of, double all)
{
    return all > 0 ? of / all : 0;
}

static uint64_t hit_tokens(const struct cluster_result *r)
{
    return r->own_tokens + r->remote_tokens + r->ssd_tokens;
}

double replay_hit_rate(const struct cluster_result *r)
{
    return replay_part((double)hit_tokens(r), (double)r->prompt_tokens);
}

/* Where tokens of prompts came from; and why those that came from nowhere did not. */
static json_t *hits_json(const struct cluster_result *r)
{
    return json_pack("{s:I, s:I, s:I, s:I}", "own", (json_int_t)r->own_tokens, "remote", (json_int_t)r->remote_tokens,
        "ssd", (json_int_t)r->ssd_tokens, "missed", (json_int_t)(r->prompt_tokens - hit_tokens(r)));
}

static json_t *missed_json(const struct missed_tokens *missed)
{
    return json_pack("{s:I, s:I, s:I, s:I}", "new", (json_int_t)missed->fresh, "evicted", (json_int_t)missed->evicted,
        "elsewhere", (json_int_t)missed->elsewhere, "uncachable", (json_int_t)missed->uncachable);
}

static json_t *stuck_json(const struct stuck_moves *stuck)
{
    return json_pack("{s:I, s:I, s:I}", "preferred", (json_int_t)stuck->preferred, "others", (json_int_t)stuck->others,
        "moved", (json_int_t)stuck->moved);
}

json_t *replay_run_json(const struct replay_run *run, const char *evict)
{
    const struct cluster_result *r = &run->result;
    double hit_rate = replay_hit_rate(r);
    char hash[17];

    snprintf(hash, sizeof(hash), "%016" PRIx64, r->event_hash);
    json_t *all = json_pack(
        "{s:s, s:s, s:I, s:o, s:o, s:f, s:o, s:o, s:f, s:I, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:f, s:s, s:f}",
        "policy", run->policy->name, "evict", evict, "requests", (json_int_t)r->requests, "ttft_ms",
        times_json(&r->ttft), "tbt_ms", times_json(&r->tbt), "hit_rate", hit_rate, "hit_tokens", hits_json(r),
        "missed_tokens", missed_json(&r->missed), "goodput", replay_part((double)r->good, (double)r->requests),
        "rejected", (json_int_t)r->rejected, "rejected_share", replay_part((double)r->rejected, (double)r->requests),
        "load_max_over_mean", r->load_max_over_mean, "bytes_moved", r->bytes_moved, "duplicated_tokens",
        (json_int_t)r->duplicated_tokens, "held_max", (json_int_t)r->held_max, "bad_lines", (json_int_t)r->bad_lines,
        "reordered", (json_int_t)r->reordered, "simulated_s", r->simulated_s, "event_hash", hash, "seconds",
        run->seconds);
    if (all && run->opt_hit_rate >= 0) {
        json_object_set_new(all, "opt_hit_rate", json_real(run->opt_hit_rate));
        json_object_set_new(all, "regret", json_real(run->opt_hit_rate - hit_rate));
    }
    if (all && r->stuck.preferred + r->stuck.others > 0)
        json_object_set_new(all, "stuck", stuck_json(&r->stuck));
    return all;
}

int replay_print_json(const struct cli *cli, json_t *all)
{
    if (!all)
        return cli_fail(cli, CLI_FAILED, "out of memory");
    json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
    json_decref(all);
    return CLI_OK;
}

static void print_missed(const struct replay_run *runs, size_t count)
{
    printf("%-12s %6s %6s %6s | %7s %7s %9s %10s%s\n", "of tokens", "own", "remote", "ssd", "new", "evicted",
        "elsewhere", "uncachable", runs[0].opt_hit_rate >= 0 ? " | opt hits   regret" : "");
    for (size_t i = 0; i < count; i++) {
        const struct cluster_result *r = &runs[i].result;
        double all = (double)r->prompt_tokens;

        printf("%-12s %6.3f %6.3f %6.3f | %7.3f %7.3f %9.3f %10.3f", runs[i].policy->name,
            replay_part((double)r->own_tokens, all), replay_part((double)r->remote_tokens, all),
            replay_part((double)r->ssd_tokens, all), replay_part((double)r->missed.fresh, all),
            replay_part((double)r->missed.evicted, all), replay_part((double)r->missed.elsewhere, all),
            replay_part((double)r->missed.uncachable, all));
        if (runs[i].opt_hit_rate >= 0)
            printf(" | %8.3f %8.3f", runs[i].opt_hit_rate, runs[i].opt_hit_rate - replay_hit_rate(r));
        putchar('\n');
    }
}

void replay_print_runs(const struct replay_run *runs, size_t count)
{
    printf("%-12s %10s %9s %9s %9s %9s %8s %8s %6s %7s %6s %9s %7s %5s\n", "policy", "TTFT mean", "p50", "p90", "p99",
        "max", "TBT mean", "p99", "hit", "goodput", "refus.", "load m/m", "moved", "s");
    for (size_t i = 0; i < count; i++) {
        const struct cluster_result *r = &runs[i].result;

        printf("%-12s %10.1f %9.0f %9.0f %9.0f %9.0f %8.1f %8.1f %6.3f %7.3f %6.3f %9.3f %5.1fTB %5.2f\n",
            runs[i].policy->name, stats_mean(&r->ttft), stats_at(&r->ttft, 0.5), stats_at(&r->ttft, 0.9),
            stats_at(&r->ttft, 0.99), r->ttft.max, stats_mean(&r->tbt), stats_at(&r->tbt, 0.99), replay_hit_rate(r),
            replay_part((double)r->good, (double)r->requests), replay_part((double)r->rejected, (double)r->requests),
            r->load_max_over_mean, r->bytes_moved / 1e12, runs[i].seconds);
    }
    print_missed(runs, count);
    printf("times in ms; hit: of all prompt tokens; load m/m: busiest prefill instance over the mean\n");
}
