/* log_test.c - the form of a line, escaping, levels, counting, capturing, rate limits. Standard error is a pipe meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

static int saved_stderr, pipe_read;

static int setup(void **state)
{
    int fds[2];

    assert_int_equal(pipe(fds), 0);
    saved_stderr = dup(STDERR_FILENO);
    dup2(fds[1], STDERR_FILENO);
    close(fds[1]);
    pipe_read = fds[0];
    log_set_level(LOG_LEVEL_INFO);
    return 0;
}

static int teardown(void **state)
{
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    close(pipe_read);
    return 0;
}

static const char *line(void)
{
    static char text[8192];
    ssize_t n = read(pipe_read, text, sizeof(text) - 1);

    assert_true(n > 0);
    text[n] = 0;
    return text;
}

static void test_form(void **state)
{
    unsigned y, mo, d, h, mi, s, ms;
    char rest[200];

    log_set_name("node");
    log_info("peer %s len %zu", "10.0.0.7:7001", (size_t)5);
    assert_int_equal(sscanf(line(), "%u-%u-%uT%u:%u:%u.%uZ %199[^\n]", &y, &mo, &d, &h, &mi, &s, &ms, rest), 8);
    assert_true(y >= 2024 && mo >= 1 && mo <= 12);
    assert_string_equal(rest, "info node: peer 10.0.0.7:7001 len 5");
}

static void test_trace_and_errno(void **state)
{
    uint8_t trace[16];

    memset(trace, 0xab, sizeof(trace));
    log_set_trace(trace);
    errno = ENOENT;
    log_warn("cannot open x: %m");
    assert_int_equal(errno, ENOENT);
    assert_non_null(
        strstr(line(), "cannot open x: No such file or directory trace abababababababababababababababab\n"));
    assert_memory_equal(log_trace(), trace, 16);
    log_set_trace(NULL);
    log_warn("x");
    assert_null(strstr(line(), "trace"));
}

static void test_escaping_and_length(void **state)
{
    static char lengthy[10000];
    const char *text;

    log_info("a\nb\x1b[31m\t%s", "\x7f");
    assert_non_null(strstr(line(), "a\\x0ab\\x1b[31m\\x09\\x7f\n"));
    memset(lengthy, '\n', sizeof(lengthy) - 1); /* grows by escaping */
    log_info("%s", lengthy);
    text = line();
    assert_true(strlen(text) <= 4096);
    assert_int_equal(text[strlen(text) - 1], '\n');
}

static void test_levels(void **state)
{
    enum log_level level;
    uint64_t warns = log_count(LOG_LEVEL_WARN), debugs = log_count(LOG_LEVEL_DEBUG);

    log_debug("not seen");
    log_warn("seen");
    assert_non_null(strstr(line(), " warn node: seen"));
    assert_int_equal(log_count(LOG_LEVEL_WARN), warns + 1);
    assert_int_equal(log_count(LOG_LEVEL_DEBUG), debugs);
    assert_true(log_level_parse("debug", &level));
    assert_int_equal(level, LOG_LEVEL_DEBUG);
    assert_false(log_level_parse("loud", &level));
    log_set_level(level);
    log_debug("seen now");
    assert_non_null(strstr(line(), "seen now"));
}

static void captured(void *arg, enum log_level level, const char *text)
{
    snprintf(arg, 100, "%d %s", (int)level, text);
}

static void test_capture(void **state)
{
    char text[100] = "";

    log_capture(captured, text);
    log_error("x %d", 5);
    log_capture(NULL, NULL);
    assert_string_equal(text, "0 x 5");
    log_error("y");
    assert_non_null(strstr(line(), "error node: y"));
}

static void test_rate(void **state)
{
    uint64_t before = log_count(LOG_LEVEL_WARN);

    for (int i = 0; i < 100; i++) {
        if (i == 99)
            usleep(60000);
        log_every_ms(LOG_LEVEL_WARN, 50, "again %d", i);
    }
    assert_int_equal(log_count(LOG_LEVEL_WARN), before + 2);
    assert_non_null(strstr(line(), "again 99 (98 more like this)"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_form),
        cmocka_unit_test(test_trace_and_errno),
        cmocka_unit_test(test_escaping_and_length),
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_capture),
        cmocka_unit_test(test_rate),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
