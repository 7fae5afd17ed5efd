/* replay_run.c - options into a model, and runs with a progress bar. See replay.h. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/replay.h"
#include "replay/one_pool.h"

enum { BAD_SHOWN = 10, BAR_WIDTH = 40 };

#define BAR_EVERY_NS (100 * NS_PER_MS)

/* ---- the terminal ---- */

struct replay_bar replay_bar(const struct cli *cli)
{
    return (struct replay_bar){.cli = cli, .live = isatty(STDERR_FILENO)};
}

static void clear(const struct replay_bar *bar)
{
    if (bar->live && bar->shown_ns)
        fputs("\r\033[K", stderr);
}

void replay_bar_show(void *arg, double part)
{
    struct replay_bar *bar = arg;
    uint64_t now = now_ns();
    int done = (int)(part * BAR_WIDTH);

    if (!bar->live || now - bar->shown_ns < BAR_EVERY_NS)
        return;
    bar->shown_ns = now;
    fprintf(stderr, "\r[%.*s%*s] %3.0f %%", done, "########################################", BAR_WIDTH - done, "",
        part * 100);
}

void replay_bar_bad_line(void *arg, uint64_t line, const char *why)
{
    struct replay_bar *bar = arg;

    clear(bar);
    if (bar->bad++ < BAD_SHOWN)
        fprintf(stderr, "%s:%" PRIu64 ": %s\n", bar->cli->set->trace, line, why);
}

void replay_bar_end(const struct replay_bar *bar)
{
    clear(bar);
    if (bar->bad > 0)
        fprintf(stderr, "%s: %" PRIu64 " bad lines left out%s\n", bar->cli->set->trace, bar->bad,
            bar->bad > BAD_SHOWN ? ", the first are named above" : "");
}

void replay_tell_trace(const struct cli *cli, uint64_t requests, uint64_t reordered)
{
    if (requests == 0)
        fprintf(stderr, "%s: there is no request in it\n", cli->set->trace);
    if (reordered > 0)
        fprintf(stderr, "%s: %" PRIu64 " requests are stamped earlier than the one before; they came with that one\n",
            cli->set->trace, reordered);
}

int replay_trace_failed(const struct cli *cli, enum mc_status status)
{
    switch (status) {
    case MC_EINVAL: return cli_fail(cli, CLI_FAILED, "%s: the line above is bad, and --strict", cli->set->trace);
    case MC_ESYS: return cli_fail(cli, CLI_FAILED, "%s: %s", cli->set->trace, strerror(errno));
    case MC_ENOSUP: return cli_fail(cli, CLI_FAILED, "%s: --evict opt reads it twice; give a file", cli->set->trace);
    case MC_ETOOBIG:
        return cli_fail(cli, CLI_FAILED,
            "%s: a hundred years of simulated time and more: are its stamps milliseconds, and the speeds those of a "
            "machine?",
            cli->set->trace);
    default: return cli_fail(cli, CLI_FAILED, "%s: %s", cli->set->trace, mc_status_str(status));
    }
}

int replay_need_file(const struct cli *cli)
{
    struct stat st;

    if (stat(cli->set->trace, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
        return cli_fail(cli, CLI_USAGE, "%s: it is read more than once; give a file", cli->set->trace);
    return CLI_OK;
}

/* ---- options ---- */

bool replay_count(const char *text, const char *stop, double *out)
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

    if (!replay_count(text, text + strlen(text), tokens) || *tokens < 1)
        return cli_fail(cli, CLI_USAGE, "--cache-tokens: '%s' is no count like 3000000 or 3M", text);
    return CLI_OK;
}

/* dram=3M,ssd=30M: tokens of each prefill node, either may be left out. */
static int take_tiers(const struct cli *cli, struct model *model)
{
    for (const char *at = cli->set->tiers; at && *at;) {
        size_t len = strcspn(at, ",");
        double *tokens = strncmp(at, "dram=", 5) == 0  ? &model->cache_tokens
                         : strncmp(at, "ssd=", 4) == 0 ? &model->ssd_tokens
                                                       : NULL;

        if (!tokens || !replay_count(strchr(at, '=') + 1, at + len, tokens) || *tokens < 1)
            return cli_fail(cli, CLI_USAGE, "--tiers: '%s' is not like dram=3M,ssd=30M", cli->set->tiers);
        at += len + (at[len] == ',');
    }
    return CLI_OK;
}

int replay_take_model(const struct cli *cli, struct model *model)
{
    const struct settings *set = cli->set;
    char why[256];

    model_init(model);
    if (set->cluster && model_read(model, set->cluster, why, sizeof(why)) != MC_OK)
        return cli_fail(cli, CLI_USAGE, "%s: %s", set->cluster, why);
    if (set->fit && model_read_fit(model, set->fit, why, sizeof(why)) != MC_OK)
        return cli_fail(cli, CLI_USAGE, "--fit %s: %s", set->fit, why);
    if (set->prefill)
        model->prefill = (double)set->prefill;
    if (set->decode)
        model->decode = (double)set->decode;
    if (set->cache_tokens && take_cache_tokens(cli, &model->cache_tokens) != CLI_OK)
        return CLI_USAGE;
    if (take_tiers(cli, model) != CLI_OK)
        return CLI_USAGE;
    if (model_complete(model, why, sizeof(why)) != MC_OK)
        return cli_fail(cli, CLI_USAGE, "%s: %s", set->cluster ? set->cluster : "the cluster", why);
    if (set->stuck >= (int64_t)model->prefill)
        return cli_fail(cli, CLI_USAGE, "--stuck: there are prefill instances 0 to %.0f", model->prefill - 1);
    return CLI_OK;
}

/* Names with commas, "all", or the one policy. */
int replay_take_policies(const struct cli *cli, struct replay_run runs[REPLAY_RUNS_MAX], size_t *count)
{
    const char *names = cli->set->compare ? cli->set->compare : cli->set->policy ? cli->set->policy : "mooncake";

    *count = 0;
    if (cli->set->compare && strcmp(names, "all") == 0) {
        while (*count < REPLAY_RUNS_MAX && (runs[*count].policy = replay_policy_at(*count)) != NULL)
            (*count)++;
        return CLI_OK;
    }
    for (const char *at = names; *at;) {
        size_t len = strcspn(at, ",");
        char name[32];

        snprintf(name, sizeof(name), "%.*s", (int)(len < sizeof(name) ? len : sizeof(name)), at);
        if (*count == REPLAY_RUNS_MAX)
            return cli_fail(cli, CLI_USAGE, "--compare: more than %d policies", REPLAY_RUNS_MAX);
        if (!(runs[(*count)++].policy = replay_policy_find(name)))
            return cli_fail(cli, CLI_USAGE, "--compare: there is no policy '%s'", name);
        at += len + (at[len] == ',');
    }
    return *count ? CLI_OK : cli_fail(cli, CLI_USAGE, "--compare: no policy is named");
}

/* ---- runs ---- */

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
        fprintf(lines->file,
            "{\"policy\": \"%s\", \"request\": %" PRIu64 ", \"ttft_ms\": %.6f, \"tbt_ms\": %.6f, \"prefill\": %u, "
            "\"decode\": %u}\n",
            lines->policy, outcome->number, outcome->ttft_ms, outcome->tbt_ms, outcome->prefill, outcome->decode);
}

/* What nobody can beat: all memory of the cluster as one pool that knows the future, no queue, no time. Hit rate by tokens. */
static int run_opt(struct cli *cli, const struct model *model, double *hit_rate)
{
    struct trace_options trace = {
        .path = cli->set->trace, .block_tokens = (uint32_t)model->block_tokens, .whole_blocks = true};
    double blocks = floor((model->cache_tokens + model->ssd_tokens) / model->block_tokens) * model->prefill;
    struct one_pool_result r;
    struct eviction opt;

    eviction_find("opt", &opt);
    if (blocks > REPLAY_POOL_MAX)
        return cli_fail(cli, CLI_USAGE, "--regret: the cache is too large to be run as one pool");
    enum mc_status status = one_pool_run(&trace, &opt, (uint32_t)blocks, NULL, NULL, &r);
    if (status != MC_OK)
        return replay_trace_failed(cli, status);
    *hit_rate = replay_part((double)r.hit_tokens, (double)r.prompt_tokens);
    return CLI_OK;
}

int replay_run_all(struct cli *cli, const struct eviction *eviction, const struct model *model, double speed,
    struct replay_run *runs, size_t count, FILE *ends, size_t *done)
{
    const struct settings *set = cli->set;
    double opt = -1;
    int code;

    *done = 0;
    if (set->regret && (code = run_opt(cli, model, &opt)) != CLI_OK)
        return code;
    for (*done = 0; *done < count; (*done)++) {
        struct replay_bar bar = replay_bar(cli);
        struct replay_run *run = &runs[*done];
        struct lines lines = {ends, run->policy->name};
        struct cluster_options options = {.trace = {.path = set->trace,
                                              .block_tokens = (uint32_t)model->block_tokens,
                                              .strict = set->strict,
                                              .bad = *done == 0 && !run->quiet ? replay_bar_bad_line : NULL,
                                              .arg = &bar},
            .model = model,
            .policy = run->policy,
            .eviction = *eviction,
            .speed = speed,
            .seed = (uint64_t)set->seed,
            .slo_ttft_ms = (double)set->slo_ttft_ms,
            .slo_tbt_ms = (double)set->slo_tbt_ms,
            .never_refuse = set->never_refuse,
            .stuck = set->stuck,
            .outcome = ends ? write_outcome : NULL,
            .outcome_arg = &lines,
            .progress = replay_bar_show,
            .arg = &bar};
        uint64_t start = now_ns();
        enum mc_status status = cluster_run(&options, &run->result);

        run->seconds = (double)(now_ns() - start) / NS_PER_S;
        run->opt_hit_rate = opt;
        replay_bar_end(&bar);
        if (status == MC_OK && *done == 0 && !run->quiet)
            replay_tell_trace(cli, run->result.requests, run->result.reordered);
        if (status != MC_OK)
            return replay_trace_failed(cli, status);
    }
    return CLI_OK;
}
