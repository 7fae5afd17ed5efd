/* metrics_test.c - exact text of an exposition, bounded families, threads that add at the same time, quantiles. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/metrics.h"

static const double size_buckets[] = {1024, 1048576, 0};
static const struct metric_row misses_row = {
    "mooncake_misses_total", METRIC_COUNTER, "Gets that found\nnothing.", {"tier", "reason"}, .sets_max = 3};
static const struct metric_row busy_row = {"mooncake_busy_seconds_total", METRIC_COUNTER, "Time.", .scale = 1e-9};
static const struct metric_row level_row = {"mooncake_level_bytes", METRIC_GAUGE, "Level."};
static const struct metric_row size_row = {
    "mooncake_size_bytes", METRIC_HISTOGRAM, "Sizes.", {"op"}, .buckets = size_buckets};
static const struct metric_row time_row = {"mooncake_time_seconds", METRIC_HISTOGRAM, "Times."};

static struct metrics *metrics;
static struct buf out;

static int setup(void **state)
{
    metrics = metrics_create();
    buf_init(&out, 1 << 20);
    return metrics ? 0 : -1;
}

static int teardown(void **state)
{
    metrics_destroy(metrics);
    buf_fini(&out);
    return 0;
}

static void test_exposition(void **state)
{
    struct metric_cell *cell =
        metric_cell(metrics_add(metrics, &misses_row), (const char *const[]){"dram", "a\"\\\nb"});
    struct metric_cell *sizes = metric_with(metrics_add(metrics, &size_row), "get");

    metric_add(cell, 1);
    metric_add(cell, 41);
    metric_count_is(metric_only(metrics_add(metrics, &busy_row)), 1500000000);
    metric_set(metric_only(metrics_add(metrics, &level_row)), 0.1);
    metric_shift(metric_only(metrics_add(metrics, &level_row)), 1e15);
    metric_observe(sizes, 1024);
    metric_observe(sizes, 1025);
    metric_observe(sizes, 1e9);
    metrics_expose(metrics, &out);
    assert_string_equal(buf_cstr(&out), "# HELP mooncake_misses_total Gets that found\\nnothing.\n"
                                        "# TYPE mooncake_misses_total counter\n"
                                        "mooncake_misses_total{tier=\"dram\",reason=\"a\\\"\\\\\\nb\"} 42\n"
                                        "# HELP mooncake_size_bytes Sizes.\n"
                                        "# TYPE mooncake_size_bytes histogram\n"
                                        "mooncake_size_bytes_bucket{op=\"get\",le=\"1024\"} 1\n"
                                        "mooncake_size_bytes_bucket{op=\"get\",le=\"1048576\"} 2\n"
                                        "mooncake_size_bytes_bucket{op=\"get\",le=\"+Inf\"} 3\n"
                                        "mooncake_size_bytes_sum{op=\"get\"} 1000002049\n"
                                        "mooncake_size_bytes_count{op=\"get\"} 3\n"
                                        "# HELP mooncake_busy_seconds_total Time.\n"
                                        "# TYPE mooncake_busy_seconds_total counter\n"
                                        "mooncake_busy_seconds_total 1.5\n"
                                        "# HELP mooncake_level_bytes Level.\n"
                                        "# TYPE mooncake_level_bytes gauge\n"
                                        "mooncake_level_bytes 1000000000000000.1\n");
}

static void test_family_is_bounded(void **state)
{
    struct metric *misses = metrics_add(metrics, &misses_row);
    struct metric_cell *other = NULL;
    char name[200];

    for (int i = 0; i < 10; i++) {
        struct metric_cell *cell;

        snprintf(name, sizeof(name), "r%d%0180d", i, i); /* cut at 128 bytes */
        cell = metric_cell(misses, (const char *const[]){"t", name});
        metric_add(cell, 1);
        assert_ptr_equal(cell, metric_cell(misses, (const char *const[]){"t", name}));
        if (i == 3)
            other = cell;
        if (i > 3)
            assert_ptr_equal(cell, other);
    }
    assert_int_equal((int)metric_value(other), 7);
    metrics_expose(metrics, &out);
    assert_non_null(strstr(buf_cstr(&out), "mooncake_misses_total{tier=\"other\",reason=\"other\"} 7\n"));
}

static void *add_many(void *arg)
{
    for (int i = 0; i < 100000; i++) {
        metric_add(metric_only(metrics_add(metrics, &busy_row)), i == 0);
        metric_observe_ns(arg, 1000000);
    }
    return NULL;
}

static void test_threads(void **state)
{
    struct metric_cell *cell = metric_only(metrics_add(metrics, &time_row));
    pthread_t threads[3];

    for (int i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, add_many, cell), 0);
    metrics_expose(metrics, &out);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal((int)metric_value(cell), 300000);
    assert_int_equal((int)metric_value(metric_only(metrics_add(metrics, &busy_row))), 3);
    buf_reset(&out);
    metrics_expose(metrics, &out);
    assert_non_null(strstr(buf_cstr(&out), "mooncake_time_seconds_bucket{le=\"0.001\"} 300000\n"));
    assert_non_null(strstr(buf_cstr(&out), "mooncake_time_seconds_bucket{le=\"0.0005\"} 0\n"));
}

static void test_quantile(void **state)
{
    struct metric_cell *cell = metric_only(metrics_add(metrics, &time_row));

    assert_true(metric_quantile(cell, 0.5) == 0);
    for (int i = 1; i <= 1000; i++)
        metric_observe(cell, i * 1e-3);
    assert_true(metric_quantile(cell, 0.5) > 0.45 && metric_quantile(cell, 0.5) < 0.55);
    assert_true(metric_quantile(cell, 0.99) > 0.9 && metric_quantile(cell, 0.99) <= 1.0);
}

static void collect(void *arg)
{
    metric_set(metric_only(metrics_add(metrics, &level_row)), (*(int *)arg)++);
}

static void sum_up(void *arg, const struct metric_row *row, const char *suffix, const char *const *values, double value)
{
    *(double *)arg += value;
}

static void test_collector_and_visit(void **state)
{
    int n = 5;
    double sum = 0;

    metrics_collector(metrics, collect, &n);
    metrics_expose(metrics, &out);
    assert_non_null(strstr(buf_cstr(&out), "mooncake_level_bytes 5\n"));
    metrics_collector_remove(metrics, collect, &n);
    metrics_expose(metrics, &out);
    assert_int_equal(n, 6);
    metrics_visit(metrics, sum_up, &sum);
    assert_true(sum == 5);
}

static void test_process(void **state)
{
    metrics_add_process(metrics, "0.1.0");
    metrics_expose(metrics, &out);
    assert_non_null(strstr(buf_cstr(&out), "# TYPE process_cpu_seconds_total counter\n"));
    assert_non_null(strstr(buf_cstr(&out), "process_resident_memory_bytes "));
    assert_non_null(strstr(buf_cstr(&out), "mooncake_build_info{version=\"0.1.0\"} 1\n"));
    assert_ptr_equal(metrics_process(), metrics_process());
}

static void test_null_is_harmless(void **state)
{
    metric_add(metric_only(metrics_add(NULL, &busy_row)), 1);
    metric_set(NULL, 1);
    metric_observe(NULL, 1);
    metrics_expose(NULL, &out);
    assert_true(metric_value(NULL) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_exposition, setup, teardown),
        cmocka_unit_test_setup_teardown(test_family_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_quantile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_collector_and_visit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_process, setup, teardown),
        cmocka_unit_test_setup_teardown(test_null_is_harmless, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
