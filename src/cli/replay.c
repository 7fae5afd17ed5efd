/* replay.c - mooncake replay: a trace under simulated time. The work is in replay/; this reads options and prints. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/cli.h"
#include "replay/one_pool.h"

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
    case MC_ETOOBIG: return cli_fail(cli, CLI_FAILED, "%s: --evict opt takes 2^32 blocks at most", cli->set->trace);
    default: return cli_fail(cli, CLI_FAILED, "%s: %s", cli->set->trace, mc_status_str(status));
    }
}

/* ---- one pool ---- */

static int one_pool_json(const struct cli *cli, const char *evict, const struct one_pool_result *r, double seconds)
{
    json_t *all = json_pack("{s:f, s:I, s:I, s:f, s:s, s:I, s:I, s:I, s:I, s:I}", "hit_rate", r->hit_rate, "blocks",
        (json_int_t)r->blocks, "requests", (json_int_t)r->requests, "seconds", seconds, "evict", evict, "capacity",
        (json_int_t)cli->set->one_pool, "hit_blocks", (json_int_t)r->hit_blocks, "evicted", (json_int_t)r->evicted,
        "bad_lines", (json_int_t)r->bad_lines, "reordered", (json_int_t)r->reordered);

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
        return one_pool_json(cli, eviction->policy->name, &r, seconds);
    printf("%s, %" PRId64 " blocks: hit rate %.4f (%" PRIu64 " of %" PRIu64 " blocks of %" PRIu64 " requests), %" PRIu64
           " evicted, %.2f s\n",
        eviction->policy->name, cli->set->one_pool, r.hit_rate, r.hit_blocks, r.blocks, r.requests, r.evicted, seconds);
    return CLI_OK;
}

int cmd_replay(struct cli *cli)
{
    struct eviction eviction;

    if (!cli->set->trace)
        return cli_fail(cli, CLI_USAGE, "give --trace FILE");
    eviction_at(0, &eviction);
    if (cli->set->evict && !eviction_find(cli->set->evict, &eviction))
        return cli_fail(cli, CLI_USAGE, "--evict: there is no '%s'", cli->set->evict);
    if (cli->set->one_pool > 0)
        return one_pool(cli, &eviction);
    return cli_fail(cli, CLI_USAGE, "give --one-pool BLOCKS");
}
