/* log.h - one line per event on standard error.
 *
 *     2026-11-22T12:00:00.123Z warn node: peer 10.0.0.7:7001 closed: bad crc in field body trace 4bf92f3577b34da6...
 *
 * Lower case, values bare after their name ("peer %s len %zu"), %m for failed system calls, one line per cause: whoever
 * first knows the cause logs it, callers pass the status up. Level by volume: error = an operator must act; warn = something
 * is wrong and we go on; info = a few lines per process and hour; debug = per request.
 *
 * Each line is one write(2), control characters from outside are printed as \xNN. Longer than 4 KiB: cut.
 * Threads: any. The trace id belongs to the calling thread. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG, LOG_LEVELS };

/* Name printed on every line of this process ("node", "master"); copied, at most 31 bytes. Until then: "mooncake". The level
 * comes from MOONCAKE_LOG (error, warn, info, debug; default info) until log_set_level(). */
void log_set_name(const char *name);
void log_set_level(enum log_level level);

/* "error", "warn", "info", "debug"; false and no change for anything else. */
bool log_level_parse(const char *text, enum log_level *level);

/* Request id printed on every further line of this thread; NULL or 16 zero bytes: none. Copied. */
void log_set_trace(const uint8_t trace[16]);

/* The current one: 16 bytes, all zero when none is set. Lent: valid in this thread until it is set again. */
const uint8_t *log_trace(void);

bool log_enabled(enum log_level level);

/* Lines written (or captured) at this level since the start: tests assert that nothing unexpected was warned about. */
uint64_t log_count(enum log_level level);

/* Give lines (no newline, no time) to `fn` in place of writing them; NULL: write again. For tests. `fn` is called with an
 * internal lock held and must not log. */
typedef void log_capture_fn(void *arg, enum log_level level, const char *text);
void log_capture(log_capture_fn *fn, void *arg);

void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_at(level, ...)                                                                                             \
    do {                                                                                                               \
        if (log_enabled(level))                                                                                        \
            log_write(level, __VA_ARGS__);                                                                             \
    } while (0)
#define log_error(...) log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_at(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* Rate limit: true at most once per `interval_ms`; *suppressed gets how often it was false since the last true. */
struct log_rate {
    _Atomic uint64_t next_ns, held;
};
bool log_rate_pass(struct log_rate *rate, uint64_t interval_ms, uint64_t *suppressed);

/* The same line at most once per interval from this place; tells how many were held back. */
#define log_every_ms(level, interval_ms, format, ...)                                                                  \
    do {                                                                                                               \
        static struct log_rate log_rate_here;                                                                          \
        uint64_t log_held_here;                                                                                        \
        if (log_enabled(level) && log_rate_pass(&log_rate_here, interval_ms, &log_held_here)) {                        \
            if (log_held_here)                                                                                         \
                log_write(level, format " (%llu more like this)", ##__VA_ARGS__, (unsigned long long)log_held_here);   \
            else                                                                                                       \
                log_write(level, format, ##__VA_ARGS__);                                                               \
        }                                                                                                              \
    } while (0)

#endif
