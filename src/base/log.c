/* log.c - lines on standard error.
 *
 * A line is formatted on the stack and leaves in one write(2): lines of several threads and processes do not mix (a pipe
 * keeps writes of up to 4 KiB whole), and no lock is held. Capturing for tests takes a lock.
 *
 * Level and name are atomics so that they can be changed while other threads log; a stale value only costs or saves a line. */
#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/term.h"

#define LINE_MAX_BYTES 4096
#define NAME_MAX_BYTES 32

static const char *const level_names[LOG_LEVELS] = {"error", "warn", "info", "debug"};
static const char *const level_colours[LOG_LEVELS] = {"\033[31m", "\033[33m", "\033[32m", "\033[2m"};

static atomic_int level_now = -1; /* -1 = not read from the environment yet */
static atomic_int colour_now = -1;
static _Atomic uint64_t counts[LOG_LEVELS];
static char name_now[NAME_MAX_BYTES] = "mooncake"; /* guarded by name_lock */
static pthread_mutex_t name_lock = PTHREAD_MUTEX_INITIALIZER;

static _Atomic(log_capture_fn *) capture_fn; /* read without the lock only to see whether there is one */
static void *capture_arg;                    /* guarded by capture_lock */
static pthread_mutex_t capture_lock = PTHREAD_MUTEX_INITIALIZER;

static _Thread_local uint8_t trace_now[16];
static _Thread_local bool trace_set;

void log_set_name(const char *name)
{
    pthread_mutex_lock(&name_lock);
    snprintf(name_now, sizeof(name_now), "%s", name);
    pthread_mutex_unlock(&name_lock);
}

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&level_now, (int)level, memory_order_relaxed);
}

bool log_level_parse(const char *text, enum log_level *level)
{
    for (int i = 0; i < LOG_LEVELS; i++)
        if (strcmp(text, level_names[i]) == 0) {
            *level = (enum log_level)i;
            return true;
        }
    return false;
}

static int level_from_env(void)
{
    const char *text = getenv("MOONCAKE_LOG");
    enum log_level level = LOG_LEVEL_INFO;
    int unset = -1;

    if (text)
        log_level_parse(text, &level); /* a misspelt one is reported by the options, which know the nearest */
    atomic_compare_exchange_strong(&level_now, &unset, (int)level);
    return atomic_load(&level_now);
}

bool log_enabled(enum log_level level)
{
    int now = atomic_load_explicit(&level_now, memory_order_relaxed);

    if (now < 0)
        now = level_from_env();
    return (int)level <= now;
}

uint64_t log_count(enum log_level level)
{
    return atomic_load_explicit(&counts[level], memory_order_relaxed);
}

void log_set_trace(const uint8_t trace[16])
{
    static const uint8_t none[16];

    memcpy(trace_now, trace ? trace : none, sizeof(trace_now));
    trace_set = memcmp(trace_now, none, sizeof(none)) != 0;
}

const uint8_t *log_trace(void)
{
    return trace_now;
}

void log_capture(log_capture_fn *fn, void *arg)
{
    pthread_mutex_lock(&capture_lock);
    capture_arg = arg;
    atomic_store(&capture_fn, fn);
    pthread_mutex_unlock(&capture_lock);
}

static bool give_to_capture(enum log_level level, const char *text)
{
    log_capture_fn *fn;

    if (!atomic_load(&capture_fn))
        return false;
    pthread_mutex_lock(&capture_lock);
    fn = atomic_load(&capture_fn);
    if (fn)
        fn(capture_arg, level, text);
    pthread_mutex_unlock(&capture_lock);
    return fn != NULL;
}

/* Text may hold what a peer or a user sent: control characters must not reach a terminal. */
static size_t escape(char *out, size_t size, const char *text)
{
    size_t n = 0;

    for (; *text && n + 5 < size; text++) {
        unsigned char c = (unsigned char)*text;

        if (c >= 0x20 && c != 0x7f)
            out[n++] = (char)c;
        else
            n += (size_t)snprintf(out + n, size - n, "\\x%02x", c);
    }
    out[n] = 0;
    return n;
}

static size_t format_head(char *out, size_t size, enum log_level level)
{
    uint64_t ms = wall_ms();
    time_t seconds = (time_t)(ms / 1000);
    char name[NAME_MAX_BYTES];
    struct tm tm;
    int colour = atomic_load_explicit(&colour_now, memory_order_relaxed), n;

    if (colour < 0) {
        colour = term_colour(STDERR_FILENO);
        atomic_store_explicit(&colour_now, colour, memory_order_relaxed);
    }
    pthread_mutex_lock(&name_lock);
    memcpy(name, name_now, sizeof(name));
    pthread_mutex_unlock(&name_lock);
    gmtime_r(&seconds, &tm);
    n = snprintf(out, size, "%04d-%02d-%02dT%02d:%02d:%02d.%03uZ %s%s%s %s: ", tm.tm_year + 1900, tm.tm_mon + 1,
        tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, (unsigned)(ms % 1000), colour ? level_colours[level] : "",
        level_names[level], colour ? "\033[0m" : "", name);
    return n > 0 && (size_t)n < size ? (size_t)n : 0;
}

static void write_all(const char *line, size_t len)
{
    while (len > 0) {
        ssize_t n = write(STDERR_FILENO, line, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* nobody to tell */
        line += n;
        len -= (size_t)n;
    }
}

void log_write(enum log_level level, const char *format, ...)
{
    int saved = errno; /* for %m, and callers look at it after us */
    char text[LINE_MAX_BYTES - 256], line[LINE_MAX_BYTES];
    va_list args;
    size_t n;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    atomic_fetch_add_explicit(&counts[level], 1, memory_order_relaxed);
    if (!give_to_capture(level, text)) {
        n = format_head(line, sizeof(line), level);
        n += escape(line + n, sizeof(line) - 48 - n, text);
        if (trace_set) {
            memcpy(line + n, " trace ", 7);
            hex_encode(line + n + 7, trace_now, sizeof(trace_now));
            n += 39;
        }
        line[n++] = '\n';
        write_all(line, n);
    }
    errno = saved;
}

bool log_rate_pass(struct log_rate *rate, uint64_t interval_ms, uint64_t *suppressed)
{
    uint64_t now = now_ns(), next = atomic_load_explicit(&rate->next_ns, memory_order_relaxed);

    *suppressed = 0;
    /* Relaxed: the numbers guard nothing, two threads that race here cost one line more or less. */
    if (now < next || !atomic_compare_exchange_strong_explicit(&rate->next_ns, &next,
                          deadline_after_ms(now, interval_ms), memory_order_relaxed, memory_order_relaxed)) {
        atomic_fetch_add_explicit(&rate->held, 1, memory_order_relaxed);
        return false;
    }
    *suppressed = atomic_exchange_explicit(&rate->held, 0, memory_order_relaxed);
    return true;
}
