/* metrics.h - counters, gauges and histograms declared as rows, exposed as Prometheus text.
 *
 *     static const struct metric_row rows[] = {
 *         {"mooncake_get_misses_total", METRIC_COUNTER, "Gets that found nothing.", {"reason"}, .sets_max = 16},
 *         {"mooncake_get_seconds", METRIC_HISTOGRAM, "Time of a get."},
 *     };
 *     struct metric *misses = metrics_add(metrics, &rows[0]);
 *     metric_add(metric_with(misses, "evicted"), 1);
 *
 * Names: snake case, unit at the end in base units (seconds, bytes), counters end in _total. A row that breaks this is
 * asserted when it is added.
 *
 * A family with labels holds at most sets_max label sets; what comes beyond that is counted in one set whose values are all
 * "other": peers and users cannot grow our memory.
 *
 * Ownership: metrics and their cells live until metrics_destroy(); rows are borrowed for that time. Cells may be kept.
 * Threads: metric_add/set/observe from any thread, relaxed atomics (each number is right, two numbers may be of slightly
 * different instants). metrics_add and metric_with take a lock: do them at set-up, or keep the cell. */
#ifndef BASE_METRICS_H
#define BASE_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "mooncake/status.h"

#define METRIC_LABELS_MAX 4

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

struct metric_row {
    const char *name;
    enum metric_type type;
    const char *help;
    const char *labels[METRIC_LABELS_MAX]; /* names; unused ones NULL */
    unsigned sets_max;                     /* 0 = 64 */
    double scale; /* counters are whole numbers; exposed as value * scale (1e-9 for nanoseconds). 0 = 1 */
    const double
        *buckets; /* histogram: ascending upper bounds, ended by 0; NULL = 50 us .. 100 s in steps of 1-2.5-5 */
};

struct metrics;
struct metric;      /* a family */
struct metric_cell; /* one label set of it */

/* NULL when memory is out. */
struct metrics *metrics_create(void);
void metrics_destroy(struct metrics *metrics);

/* The registry of the process, made at first use, never destroyed. */
struct metrics *metrics_process(void);

/* Declare a family. The same row (pointer or name) again gives the same family. NULL when memory is out; every function
 * below takes NULL and then does nothing. */
struct metric *metrics_add(struct metrics *metrics, const struct metric_row *row);

/* The cell of a label set, made when new. One value per label name of the row; values are copied, cut at 128 bytes. */
struct metric_cell *metric_cell(struct metric *metric, const char *const *values);

/* The same for families with no label, and with one. */
struct metric_cell *metric_only(struct metric *metric);
struct metric_cell *metric_with(struct metric *metric, const char *value);

void metric_add(struct metric_cell *cell, uint64_t n);           /* counter */
void metric_set(struct metric_cell *cell, double value);         /* gauge */
void metric_shift(struct metric_cell *cell, double delta);       /* gauge */
void metric_observe(struct metric_cell *cell, double value);     /* histogram, in the base unit (seconds, bytes) */
void metric_observe_ns(struct metric_cell *cell, uint64_t time); /* histogram of seconds */

/* Set a counter to a number that is counted elsewhere (and never goes down). For collectors. */
void metric_count_is(struct metric_cell *cell, uint64_t n);

/* Value of a counter (unscaled) or gauge, number of observations of a histogram. */
double metric_value(const struct metric_cell *cell);

/* Estimate of a quantile (0..1) of a histogram by interpolation in its bucket; 0 when it is empty. */
double metric_quantile(const struct metric_cell *cell, double q);

/* `fn` is called at the start of every exposition, by the exposing thread, to set gauges. It must not add collectors. */
typedef void metrics_collect_fn(void *arg);
void metrics_collector(struct metrics *metrics, metrics_collect_fn *fn, void *arg);
void metrics_collector_remove(struct metrics *metrics, metrics_collect_fn *fn, void *arg);

/* Gauges of this process: CPU seconds, resident bytes, open descriptors, start time, and mooncake_build_info{version}. */
void metrics_add_process(struct metrics *metrics, const char *version);

/* Text exposition format 0.0.4, families in order of declaration. Failure sticks in `out`. */
void metrics_expose(struct metrics *metrics, struct buf *out);
#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* Every sample (histograms as _count and _sum), without the collectors being run. Strings lent for the call. */
typedef void metrics_visit_fn(
    void *arg, const struct metric_row *row, const char *suffix, const char *const *values, double value);
void metrics_visit(struct metrics *metrics, metrics_visit_fn *fn, void *arg);

#endif
