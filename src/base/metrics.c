/* metrics.c - families, label sets, and the text they are exposed as.
 *
 * A cell is one allocation that holds its numbers and its label values. Numbers are relaxed atomics: each stands for itself, nobody
 * draws conclusions from two of them. Sums of doubles are added with compare-and-swap on their bits.
 *
 * Structure (which families, which cells) is guarded by metrics->lock; cells never go away before the registry. */
#include "base/metrics.h"

#include <assert.h>
#include <ctype.h>
#include <dirent.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/xdg.h"

#define SETS_DEFAULT 64
#define VALUE_MAX    128
#define BOUNDS_MAX   64

static const double seconds_buckets[] = {50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1,
    0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 0};

struct metric_cell {
    struct list link;
    const struct metric *metric;
    char *values[METRIC_LABELS_MAX]; /* point behind the buckets */
    _Atomic uint64_t number;         /* counter: the count; gauge and sum of a histogram: bits of a double */
    _Atomic uint64_t buckets[];      /* histogram: one per bound and one for what is above */
};

struct metric {
    struct list link;
    struct metrics *metrics;
    const struct metric_row *row;
    const double *bounds;
    size_t bound_count; /* 0 unless a histogram */
    size_t label_count;
    struct list cells;
    unsigned cell_count, cells_max;
    struct metric_cell *other; /* for label sets beyond cells_max */
};

struct collector {
    struct list link;
    metrics_collect_fn *fn;
    void *arg;
};

struct metrics {
    pthread_mutex_t lock;
    struct list families, collectors; /* guarded by lock */
};

/* --- registry --- */

struct metrics *metrics_create(void)
{
    struct metrics *metrics = calloc(1, sizeof(*metrics));

    if (!metrics)
        return NULL;
    pthread_mutex_init(&metrics->lock, NULL);
    list_init(&metrics->families);
    list_init(&metrics->collectors);
    return metrics;
}

static void metric_free(struct metric *metric)
{
    struct list *node;

    while ((node = list_pop_front(&metric->cells)) != NULL)
        free(list_entry(node, struct metric_cell, link));
    free(metric);
}

void metrics_destroy(struct metrics *metrics)
{
    struct list *node;

    if (!metrics)
        return;
    while ((node = list_pop_front(&metrics->families)) != NULL)
        metric_free(list_entry(node, struct metric, link));
    while ((node = list_pop_front(&metrics->collectors)) != NULL)
        free(list_entry(node, struct collector, link));
    pthread_mutex_destroy(&metrics->lock);
    free(metrics);
}

static struct metrics *process_metrics;
static pthread_once_t process_once = PTHREAD_ONCE_INIT;

static void process_create(void)
{
    process_metrics = metrics_create();
}

struct metrics *metrics_process(void)
{
    pthread_once(&process_once, process_create);
    return process_metrics;
}

static bool ends_with(const char *text, const char *end)
{
    size_t len = strlen(text), tail = strlen(end);

    return len >= tail && strcmp(text + len - tail, end) == 0;
}

/* What promtool would complain about. Only assertions ask. */
static __attribute__((unused)) bool row_is_good(const struct metric_row *row)
{
    for (const char *p = row->name; *p; p++)
        if (!islower((unsigned char)*p) && !isdigit((unsigned char)*p) && *p != '_')
            return false;
    if (!islower((unsigned char)row->name[0]) || !row->help || !*row->help)
        return false;
    if (ends_with(row->name, "_total") != (row->type == METRIC_COUNTER))
        return false;
    return !ends_with(row->name, "_ms") && !ends_with(row->name, "_count") && !ends_with(row->name, "_sum") &&
           !ends_with(row->name, "_bucket");
}

static struct metric *family_find(struct metrics *metrics, const char *name)
{
    list_for_each (node, &metrics->families) {
        struct metric *metric = list_entry(node, struct metric, link);

        if (strcmp(metric->row->name, name) == 0)
            return metric;
    }
    return NULL;
}

static struct metric *family_create(struct metrics *metrics, const struct metric_row *row)
{
    struct metric *metric = calloc(1, sizeof(*metric));

    if (!metric)
        return NULL;
    assert(row_is_good(row));
    *metric =
        (struct metric){.metrics = metrics, .row = row, .cells_max = row->sets_max ? row->sets_max : SETS_DEFAULT};
    list_init(&metric->cells);
    while (metric->label_count < METRIC_LABELS_MAX && row->labels[metric->label_count])
        metric->label_count++;
    if (row->type == METRIC_HISTOGRAM) {
        metric->bounds = row->buckets ? row->buckets : seconds_buckets;
        while (metric->bound_count < BOUNDS_MAX && metric->bounds[metric->bound_count] != 0)
            metric->bound_count++;
    }
    list_push_back(&metrics->families, &metric->link);
    return metric;
}

struct metric *metrics_add(struct metrics *metrics, const struct metric_row *row)
{
    struct metric *metric;

    if (!metrics)
        return NULL;
    pthread_mutex_lock(&metrics->lock);
    metric = family_find(metrics, row->name);
    if (!metric)
        metric = family_create(metrics, row);
    pthread_mutex_unlock(&metrics->lock);
    assert(!metric || metric->row->type == row->type);
    return metric;
}

/* --- cells --- */

static bool cell_is(const struct metric_cell *cell, const char *const *values)
{
    for (size_t i = 0; i < cell->metric->label_count; i++)
        if (strncmp(cell->values[i], values[i], VALUE_MAX - 1) != 0)
            return false;
    return true;
}

static struct metric_cell *cell_create(struct metric *metric, const char *const *values)
{
    size_t buckets = metric->row->type == METRIC_HISTOGRAM ? metric->bound_count + 1 : 0, bytes = 0;
    struct metric_cell *cell;
    char *text;

    for (size_t i = 0; i < metric->label_count; i++)
        bytes += strnlen(values[i], VALUE_MAX - 1) + 1;
    cell = calloc(1, sizeof(*cell) + buckets * sizeof(cell->buckets[0]) + bytes);
    if (!cell)
        return NULL;
    cell->metric = metric;
    text = (char *)&cell->buckets[buckets];
    for (size_t i = 0; i < metric->label_count; i++) {
        size_t len = strnlen(values[i], VALUE_MAX - 1);

        cell->values[i] = text;
        memcpy(text, values[i], len);
        text += len + 1;
    }
    list_push_back(&metric->cells, &cell->link);
    return cell;
}

static struct metric_cell *cell_find(struct metric *metric, const char *const *values)
{
    list_for_each (node, &metric->cells) {
        struct metric_cell *cell = list_entry(node, struct metric_cell, link);

        if (cell_is(cell, values))
            return cell;
    }
    return NULL;
}

static struct metric_cell *cell_other(struct metric *metric)
{
    static const char *const other[METRIC_LABELS_MAX] = {"other", "other", "other", "other"};

    if (!metric->other)
        metric->other = cell_create(metric, other);
    return metric->other;
}

struct metric_cell *metric_cell(struct metric *metric, const char *const *values)
{
    struct metric_cell *cell;

    if (!metric)
        return NULL;
    pthread_mutex_lock(&metric->metrics->lock);
    cell = cell_find(metric, values);
    if (!cell && metric->cell_count >= metric->cells_max)
        cell = cell_other(metric);
    else if (!cell && (cell = cell_create(metric, values)) != NULL)
        metric->cell_count++;
    pthread_mutex_unlock(&metric->metrics->lock);
    return cell;
}

struct metric_cell *metric_only(struct metric *metric)
{
    assert(!metric || metric->label_count == 0);
    return metric_cell(metric, NULL);
}

struct metric_cell *metric_with(struct metric *metric, const char *value)
{
    assert(!metric || metric->label_count == 1);
    return metric_cell(metric, &value);
}

/* --- numbers --- */

static double as_double(uint64_t bits)
{
    double value;

    memcpy(&value, &bits, sizeof(value));
    return value;
}

static uint64_t as_bits(double value)
{
    uint64_t bits;

    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static uint64_t load(const _Atomic uint64_t *number)
{
    return atomic_load_explicit((_Atomic uint64_t *)(uintptr_t)number, memory_order_relaxed);
}

static void add_double(_Atomic uint64_t *number, double delta)
{
    uint64_t bits = load(number);

    while (!atomic_compare_exchange_weak_explicit(
        number, &bits, as_bits(as_double(bits) + delta), memory_order_relaxed, memory_order_relaxed))
        ;
}

void metric_add(struct metric_cell *cell, uint64_t n)
{
    if (!cell)
        return;
    assert(cell->metric->row->type == METRIC_COUNTER);
    atomic_fetch_add_explicit(&cell->number, n, memory_order_relaxed);
}

void metric_count_is(struct metric_cell *cell, uint64_t n)
{
    if (cell)
        atomic_store_explicit(&cell->number, n, memory_order_relaxed);
}

void metric_set(struct metric_cell *cell, double value)
{
    if (!cell)
        return;
    assert(cell->metric->row->type == METRIC_GAUGE);
    atomic_store_explicit(&cell->number, as_bits(value), memory_order_relaxed);
}

void metric_shift(struct metric_cell *cell, double delta)
{
    if (!cell)
        return;
    assert(cell->metric->row->type == METRIC_GAUGE);
    add_double(&cell->number, delta);
}

void metric_observe(struct metric_cell *cell, double value)
{
    size_t low = 0, high;

    if (!cell || isnan(value))
        return;
    assert(cell->metric->row->type == METRIC_HISTOGRAM);
    high = cell->metric->bound_count;
    while (low < high) { /* first bound >= value */
        size_t middle = (low + high) / 2;

        if (cell->metric->bounds[middle] < value)
            low = middle + 1;
        else
            high = middle;
    }
    atomic_fetch_add_explicit(&cell->buckets[low], 1, memory_order_relaxed);
    add_double(&cell->number, value);
}

void metric_observe_ns(struct metric_cell *cell, uint64_t time)
{
    metric_observe(cell, (double)time * 1e-9);
}

static uint64_t observations(const struct metric_cell *cell)
{
    uint64_t n = 0;

    for (size_t i = 0; i <= cell->metric->bound_count; i++)
        n += load(&cell->buckets[i]);
    return n;
}

double metric_value(const struct metric_cell *cell)
{
    if (!cell)
        return 0;
    switch (cell->metric->row->type) {
    case METRIC_COUNTER: return (double)load(&cell->number);
    case METRIC_GAUGE: return as_double(load(&cell->number));
    case METRIC_HISTOGRAM: return (double)observations(cell);
    }
    return 0;
}

double metric_quantile(const struct metric_cell *cell, double q)
{
    const struct metric *metric = cell ? cell->metric : NULL;
    double rank, before = 0;

    if (!cell || observations(cell) == 0)
        return 0;
    rank = q * (double)observations(cell);
    for (size_t i = 0; i < metric->bound_count; i++) {
        double here = (double)load(&cell->buckets[i]), low = i ? metric->bounds[i - 1] : 0;

        if (before + here >= rank && here > 0)
            return low + (metric->bounds[i] - low) * (rank - before) / here;
        before += here;
    }
    return metric->bounds[metric->bound_count - 1]; /* above the last bound: that is all we know */
}

/* --- exposition --- */

static void put_escaped(struct buf *out, const char *text, bool quotes)
{
    for (; *text; text++) {
        if (*text == '\\')
            buf_append_str(out, "\\\\");
        else if (*text == '\n')
            buf_append_str(out, "\\n");
        else if (*text == '"' && quotes)
            buf_append_str(out, "\\\"");
        else
            buf_append_char(out, *text);
    }
}

/* The shortest of two forms that reads back as the same number. */
static void put_number(struct buf *out, double value)
{
    char text[40];

    if (isinf(value) || isnan(value)) {
        buf_append_str(out, isnan(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf");
        return;
    }
    snprintf(text, sizeof(text), "%.15g", value);
    if (strtod(text, NULL) != value)
        snprintf(text, sizeof(text), "%.17g", value);
    buf_append_str(out, text);
}

static void put_sample(struct buf *out, const struct metric_cell *cell, const char *suffix, const double *bound)
{
    const struct metric *metric = cell->metric;
    bool open = false;

    buf_printf(out, "%s%s", metric->row->name, suffix);
    for (size_t i = 0; i < metric->label_count; i++) {
        buf_printf(out, "%s%s=\"", open ? "," : "{", metric->row->labels[i]);
        put_escaped(out, cell->values[i], true);
        buf_append_char(out, '"');
        open = true;
    }
    if (bound) {
        buf_printf(out, "%sle=\"", open ? "," : "{");
        put_number(out, *bound);
        buf_append_char(out, '"');
        open = true;
    }
    buf_append_str(out, open ? "} " : " ");
}

static void expose_histogram(struct buf *out, const struct metric_cell *cell)
{
    static const double infinite = INFINITY;
    const struct metric *metric = cell->metric;
    uint64_t n = 0;

    for (size_t i = 0; i <= metric->bound_count; i++) {
        n += load(&cell->buckets[i]);
        put_sample(out, cell, "_bucket", i < metric->bound_count ? &metric->bounds[i] : &infinite);
        buf_printf(out, "%llu\n", (unsigned long long)n);
    }
    put_sample(out, cell, "_sum", NULL);
    put_number(out, as_double(load(&cell->number)));
    buf_append_char(out, '\n');
    put_sample(out, cell, "_count", NULL); /* of the same buckets, so that it agrees with +Inf */
    buf_printf(out, "%llu\n", (unsigned long long)n);
}

static void expose_cell(struct buf *out, const struct metric_cell *cell)
{
    const struct metric_row *row = cell->metric->row;

    if (row->type == METRIC_HISTOGRAM) {
        expose_histogram(out, cell);
        return;
    }
    put_sample(out, cell, "", NULL);
    if (row->type == METRIC_GAUGE)
        put_number(out, as_double(load(&cell->number)));
    else if (row->scale != 0)
        put_number(out, (double)load(&cell->number) * row->scale);
    else
        buf_printf(out, "%llu", (unsigned long long)load(&cell->number));
    buf_append_char(out, '\n');
}

static void expose_family(struct buf *out, const struct metric *metric)
{
    static const char *const types[] = {"counter", "gauge", "histogram"};

    if (list_empty(&metric->cells))
        return;
    buf_printf(out, "# HELP %s ", metric->row->name);
    put_escaped(out, metric->row->help, false);
    buf_printf(out, "\n# TYPE %s %s\n", metric->row->name, types[metric->row->type]);
    list_for_each (node, &metric->cells)
        expose_cell(out, list_entry(node, struct metric_cell, link));
}

/* Outside of the lock, because collectors add cells. They themselves are added and removed only at set-up and tear-down, by the
 * thread that also serves the exposition; see metrics.h. */
static void collect(struct metrics *metrics)
{
    list_for_each_safe (node, next, &metrics->collectors) {
        struct collector *collector = list_entry(node, struct collector, link);

        collector->fn(collector->arg);
    }
}

void metrics_expose(struct metrics *metrics, struct buf *out)
{
    if (!metrics)
        return;
    collect(metrics);
    pthread_mutex_lock(&metrics->lock);
    list_for_each (node, &metrics->families)
        expose_family(out, list_entry(node, struct metric, link));
    pthread_mutex_unlock(&metrics->lock);
}

void metrics_collector(struct metrics *metrics, metrics_collect_fn *fn, void *arg)
{
    struct collector *collector = metrics ? malloc(sizeof(*collector)) : NULL;

    if (!collector)
        return;
    *collector = (struct collector){.fn = fn, .arg = arg};
    pthread_mutex_lock(&metrics->lock);
    list_push_back(&metrics->collectors, &collector->link);
    pthread_mutex_unlock(&metrics->lock);
}

void metrics_collector_remove(struct metrics *metrics, metrics_collect_fn *fn, void *arg)
{
    if (!metrics)
        return;
    pthread_mutex_lock(&metrics->lock);
    list_for_each_safe (node, next, &metrics->collectors) {
        struct collector *collector = list_entry(node, struct collector, link);

        if (collector->fn != fn || collector->arg != arg)
            continue;
        list_del(node);
        free(collector);
    }
    pthread_mutex_unlock(&metrics->lock);
}

static void visit_cell(const struct metric_cell *cell, metrics_visit_fn *fn, void *arg)
{
    const struct metric_row *row = cell->metric->row;
    const char *const *values = (const char *const *)cell->values;

    if (row->type == METRIC_HISTOGRAM) {
        fn(arg, row, "_count", values, metric_value(cell));
        fn(arg, row, "_sum", values, as_double(load(&cell->number)));
        return;
    }
    fn(arg, row, "", values, metric_value(cell) * (row->scale != 0 ? row->scale : 1));
}

void metrics_visit(struct metrics *metrics, metrics_visit_fn *fn, void *arg)
{
    if (!metrics)
        return;
    pthread_mutex_lock(&metrics->lock);
    list_for_each (f, &metrics->families) {
        struct metric *metric = list_entry(f, struct metric, link);

        list_for_each (c, &metric->cells)
            visit_cell(list_entry(c, struct metric_cell, link), fn, arg);
    }
    pthread_mutex_unlock(&metrics->lock);
}

/* --- this process --- */

static const struct metric_row process_rows[] = {
    {"process_cpu_seconds_total", METRIC_COUNTER, "User and system CPU time spent.", .scale = 1e-6},
    {"process_resident_memory_bytes", METRIC_GAUGE, "Resident memory."},
    {"process_open_fds", METRIC_GAUGE, "Open file descriptors."},
    {"process_start_time_seconds", METRIC_GAUGE, "Start of the process, seconds since 1970."},
    {"mooncake_build_info", METRIC_GAUGE, "Version of the build; always 1.", {"version"}},
};

static double resident_bytes(void)
{
    unsigned long pages = 0;
    char *text;
    size_t len;

    if (path_read("/proc/self/statm", 4096, &text, &len) != MC_OK)
        return 0;
    if (sscanf(text, "%*u %lu", &pages) != 1)
        pages = 0;
    free(text);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static double open_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    double n = 0;

    if (!dir)
        return 0;
    while (readdir(dir))
        n++;
    closedir(dir);
    return n - 3; /* "." and ".." and our own */
}

static void collect_process(void *arg)
{
    struct metrics *metrics = arg;
    struct rusage usage;
    uint64_t us;

    getrusage(RUSAGE_SELF, &usage);
    us = (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
         (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    metric_count_is(metric_only(metrics_add(metrics, &process_rows[0])), us);
    metric_set(metric_only(metrics_add(metrics, &process_rows[1])), resident_bytes());
    metric_set(metric_only(metrics_add(metrics, &process_rows[2])), open_fds());
}

void metrics_add_process(struct metrics *metrics, const char *version)
{
    collect_process(metrics);
    metric_set(metric_only(metrics_add(metrics, &process_rows[3])), (double)(wall_ms() / 1000));
    metric_set(metric_with(metrics_add(metrics, &process_rows[4]), version), 1);
    metrics_collector(metrics, collect_process, metrics);
}
