/* replay_page.c - mooncake replay --report: what one page shows, and where it is written. See replay.h and replay/report.h. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cli/replay.h"
#include "replay/one_pool.h"

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
        if (out->blocks[i] > REPLAY_POOL_MAX)
            return cli_fail(cli, CLI_USAGE, "--report: the cache is too large for its curve over capacity");
        enum mc_status status = one_pool_run(&trace, eviction, (uint32_t)out->blocks[i], NULL, NULL, &r);
        if (status != MC_OK)
            return replay_trace_failed(cli, status);
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
    if (set->compare)
        buf_printf(out, " --compare %s", set->compare);
    if (set->sweep)
        buf_printf(out, " --sweep %s", set->sweep);
    if (set->tiers)
        buf_printf(out, " --tiers %s", set->tiers);
    if (set->slo_ttft_ms)
        buf_printf(out, " --slo-ttft-ms %" PRIu64, set->slo_ttft_ms);
    if (set->slo_tbt_ms)
        buf_printf(out, " --slo-tbt-ms %" PRIu64, set->slo_tbt_ms);
}

/* Fill in what both kinds of page have, and write it. */
static int write_report(struct cli *cli, const struct eviction *eviction, const struct model *model, struct report *all)
{
    struct curve curves[2];
    struct eviction opt;
    struct buf page, command;
    int code;

    if ((code = run_curve(cli, eviction, model, &curves[0])) != CLI_OK)
        return code;
    eviction_find("opt", &opt);
    if ((code = run_curve(cli, &opt, model, &curves[1])) != CLI_OK)
        return code;
    buf_init(&page, SIZE_MAX);
    buf_init(&command, SIZE_MAX);
    write_command(cli, eviction->policy->name, &command);
    const struct report_curve lines[] = {
        {eviction->policy->name, curves[0].blocks, curves[0].hit_rate, CURVE_POINTS},
        {"opt, which knows the future", curves[1].blocks, curves[1].hit_rate, CURVE_POINTS},
    };
    all->trace = cli->set->trace;
    all->command = buf_cstr(&command);
    all->model = model;
    all->curves = lines;
    all->curve_count = 2;
    report_write(all, &page);
    code = buf_status(&page) == MC_OK ? write_page(cli, &page) : cli_fail(cli, CLI_FAILED, "out of memory");
    buf_fini(&command);
    buf_fini(&page);
    return code;
}

int replay_page(struct cli *cli, const struct eviction *eviction, const struct model *model,
    const struct replay_run *runs, size_t count)
{
    struct report_run shown[REPLAY_RUNS_MAX];

    for (size_t i = 0; i < count; i++)
        shown[i] = (struct report_run){runs[i].policy->name, &runs[i].result};
    return write_report(cli, eviction, model, &(struct report){.runs = shown, .run_count = count});
}

int replay_sweep_page(
    struct cli *cli, const struct eviction *eviction, const struct model *model, const struct report_sweep *sweep)
{
    return write_report(cli, eviction, model, &(struct report){.sweep = sweep});
}
