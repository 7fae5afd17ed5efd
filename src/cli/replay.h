/* replay.h - what the commands over the replayer share: options into a model, runs with a progress bar, figures, the page.
 *
 * Threads: main's. */
#ifndef CLI_REPLAY_H
#define CLI_REPLAY_H

#include <jansson.h>
#include <stdio.h>

#include "cli/cli.h"
#include "replay/cluster.h"
#include "replay/report.h"

enum { REPLAY_RUNS_MAX = REPORT_RUNS_MAX, REPLAY_BLOCK_TOKENS = 512, REPLAY_POOL_MAX = 1 << 28 /* blocks */ };

/* One policy's run. */
struct replay_run {
    const struct mc_sched_policy *policy;
    struct cluster_result result;
    double seconds;
    bool quiet;          /* bad lines were told before */
    double opt_hit_rate; /* of one pool of all the memory that knows the future; negative: not asked for */
};

/* ---- replay_run.c; int: CLI_OK, or an exit code and the reason is told ---- */

/* What is on the terminal while it runs. */
struct replay_bar {
    const struct cli *cli;
    bool live;
    uint64_t shown_ns, bad;
};
struct replay_bar replay_bar(const struct cli *cli);
void replay_bar_show(void *bar, double part);
void replay_bar_bad_line(void *bar, uint64_t line, const char *why);
void replay_bar_end(const struct replay_bar *bar); /* clears it; sums up bad lines */
/* What else is to be known of a trace that has been read. */
void replay_tell_trace(const struct cli *cli, uint64_t requests, uint64_t reordered);

int replay_trace_failed(const struct cli *cli, enum mc_status status);

/* For whoever reads the trace more than once: it is no pipe. */
int replay_need_file(const struct cli *cli);

/* 3000000, 3M: units are powers of a thousand. `stop` ends it. */
bool replay_count(const char *text, const char *stop, double *out);

int replay_take_model(const struct cli *cli, struct model *model);
int replay_take_policies(const struct cli *cli, struct replay_run runs[REPLAY_RUNS_MAX], size_t *count);

/* Run them one after the other; *done have a result, also after a failure. `ends` (may be NULL) gets a line for each request. */
int replay_run_all(struct cli *cli, const struct eviction *eviction, const struct model *model, double speed,
    struct replay_run *runs, size_t count, FILE *ends, size_t *done);

/* ---- replay_print.c ---- */

double replay_part(double of, double all); /* 0 of nothing */
double replay_hit_rate(const struct cluster_result *result);
json_t *replay_run_json(const struct replay_run *run, const char *evict);
int replay_print_json(const struct cli *cli, json_t *all); /* given; NULL: out of memory */
void replay_print_runs(const struct replay_run *runs, size_t count);

/* ---- replay_sweep.c ---- */

int replay_sweep(
    struct cli *cli, const struct eviction *eviction, struct model *model, struct replay_run *runs, size_t count);

/* ---- replay_page.c ---- */

int replay_page(struct cli *cli, const struct eviction *eviction, const struct model *model,
    const struct replay_run *runs, size_t count);
/* The same with figures over a swept value in place of one run's plots. */
int replay_sweep_page(
    struct cli *cli, const struct eviction *eviction, const struct model *model, const struct report_sweep *sweep);

#endif
