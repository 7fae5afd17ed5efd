/* clock.h - time and deadlines.
 *
 * Everything that waits or measures uses CLOCK_MONOTONIC in nanoseconds. A deadline is an absolute point of it; 0 is
 * "passed long ago", DEADLINE_NONE is never. On the wire a deadline travels as milliseconds left.
 * Wall time is for logs and traces only.
 * Threads: any. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define NS_PER_US 1000ull
#define NS_PER_MS 1000000ull
#define NS_PER_S  1000000000ull

#define DEADLINE_NONE    UINT64_MAX
#define DEADLINE_MS_NONE UINT32_MAX /* the same on the wire */

/* CLOCK_MONOTONIC. */
uint64_t now_ns(void);

/* Milliseconds since 1970. */
uint64_t wall_ms(void);

/* now + ms, saturating to DEADLINE_NONE. */
static inline uint64_t deadline_after_ms(uint64_t now, uint64_t ms)
{
    return ms >= (DEADLINE_NONE - now) / NS_PER_MS ? DEADLINE_NONE : now + ms * NS_PER_MS;
}

static inline bool deadline_passed(uint64_t deadline_ns, uint64_t now)
{
    return deadline_ns != DEADLINE_NONE && now >= deadline_ns;
}

static inline uint64_t deadline_left_ns(uint64_t deadline_ns, uint64_t now)
{
    return deadline_ns == DEADLINE_NONE ? DEADLINE_NONE : deadline_ns > now ? deadline_ns - now : 0;
}

static inline uint64_t deadline_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* For the wire: milliseconds left, rounded up (0 only when it has passed); DEADLINE_MS_NONE when there is none. */
uint32_t deadline_to_wire(uint64_t deadline_ns, uint64_t now);
uint64_t deadline_from_wire(uint32_t left_ms, uint64_t now);

#endif
