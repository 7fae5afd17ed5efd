/* clock.c - see clock.h. Both clocks are read through the vDSO: about 25 ns, no system call. */
#include "base/clock.h"

#include <time.h>

static uint64_t read_ns(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t now_ns(void)
{
    return read_ns(CLOCK_MONOTONIC);
}

uint64_t wall_ms(void)
{
    return read_ns(CLOCK_REALTIME) / NS_PER_MS;
}

uint32_t deadline_to_wire(uint64_t deadline_ns, uint64_t now)
{
    uint64_t left = deadline_left_ns(deadline_ns, now);
    uint64_t ms = left / NS_PER_MS + (left % NS_PER_MS != 0);

    return ms >= DEADLINE_MS_NONE ? DEADLINE_MS_NONE : (uint32_t)ms;
}

uint64_t deadline_from_wire(uint32_t left_ms, uint64_t now)
{
    return left_ms == DEADLINE_MS_NONE ? DEADLINE_NONE : deadline_after_ms(now, left_ms);
}
