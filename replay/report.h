/* report.h - runs as one HTML page that needs nothing beside itself: no script, no network, plots as SVG.
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

struct report {
    const char *trace, *command; /* shown */
    const struct model *model;
    const struct report_run *runs;
    size_t run_count;
    const struct report_curve *curves;
    size_t curve_count;
};

/* Appends the page. buf_status() says whether it is whole. */
void report_write(const struct report *report, struct buf *out);

#endif
