/* report.h - runs as one HTML page that needs nothing beside itself: no script, no network, plots as SVG.
 *
 * It shows either runs or a sweep over one value.
 *
 * Threads: one. */
#ifndef REPLAY_REPORT_H
#define REPLAY_REPORT_H

#include <stddef.h>

#include "base/buf.h"
#include "replay/cluster.h"

struct report_run {
    const char *policy;
    const struct cluster_result *result;
};

/* Hit rate by capacity of one pool. */
struct report_curve {
    const char *evict;
    const double *blocks, *hit_rate;
    size_t count;
};

enum { REPORT_POINTS = 9, REPORT_RUNS_MAX = 32 };

/* Figures of each policy over a value that was swept; times in ms. */
struct report_sweep {
    const char *name; /* of the value */
    double x[REPORT_POINTS];
    size_t point_count;
    const char *policies[REPORT_RUNS_MAX];
    size_t run_count;
    double ttft_mean[REPORT_RUNS_MAX][REPORT_POINTS], ttft_p90[REPORT_RUNS_MAX][REPORT_POINTS];
    double hit_rate[REPORT_RUNS_MAX][REPORT_POINTS], goodput[REPORT_RUNS_MAX][REPORT_POINTS];
};

struct report {
    const char *trace, *command; /* shown */
    const struct model *model;
    const struct report_run *runs;
    size_t run_count;
    const struct report_curve *curves;
    size_t curve_count;
    const struct report_sweep *sweep; /* NULL: none; else there are no runs */
};

/* Appends the page. buf_status() says whether it is whole. */
void report_write(const struct report *report, struct buf *out);

#endif
