/* crowd.h - is somebody else on our cores?
 *
 * Engines spin at barriers. When another process takes a core, every barrier waits for the thread that lost it, and one thread
 * fewer is faster than all of them. It shows in the CPU time of steps: alone it is wall time x threads; beside one busy process on
 * two cores it is two thirds of that. Steps of CROWD_NS_MIN together that got less than CROWD_SHARE send us to fewer threads
 * for a while, doubling from 0.5 s to 8 s as long as it stays so; then all threads are tried again. The window is that long
 * because a change of threads may change a text (decision 052): a daemon's moment, or a client that draws our tokens, must not.
 * (An engine that sleeps, as the synthetic one does, looks crowded too: it does not mind.)
 * Pure; threads: the engine thread. */
#ifndef WORKER_CROWD_H
#define WORKER_CROWD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"

enum { CROWD_PAUSE_MS_MIN = 500, CROWD_PAUSE_MS_MAX = 8000 };
#define CROWD_SHARE  0.75
#define CROWD_NS_MIN (250 * NS_PER_MS)

struct crowd {
    uint64_t until_ns;
    uint32_t pause_ms; /* the last one; 0: not crowded */
    uint64_t wall_ns;  /* of steps with all threads, not judged yet */
    double busy_ns;    /* their CPU time, by thread */
};

/* Threads to compute with, of `share` that are ours. */
static inline uint32_t crowd_threads(const struct crowd *crowd, uint32_t share, uint64_t now)
{
    uint32_t less = share / 4 ? share / 4 : 1;

    return share > 1 && now < crowd->until_ns ? share - less : share;
}

/* Is the next step one that tries with all threads? It should be a short one: it may be very slow. */
static inline bool crowd_tries(const struct crowd *crowd, uint64_t now)
{
    return crowd->pause_ms && now >= crowd->until_ns;
}

/* A step with `threads` of `share` took that long. */
static inline void crowd_step(
    struct crowd *crowd, uint32_t share, uint32_t threads, uint64_t wall_ns, uint64_t cpu_ns, uint64_t now)
{
    bool alone;

    if (threads < 2 || threads < share)
        return;
    crowd->wall_ns += wall_ns;
    crowd->busy_ns += (double)cpu_ns / threads;
    if (crowd->wall_ns < CROWD_NS_MIN)
        return;
    alone = crowd->busy_ns >= CROWD_SHARE * (double)crowd->wall_ns;
    crowd->wall_ns = 0;
    crowd->busy_ns = 0;
    if (alone) {
        crowd->pause_ms = 0;
        return;
    }
    crowd->pause_ms = crowd->pause_ms ? crowd->pause_ms * 2 : CROWD_PAUSE_MS_MIN;
    if (crowd->pause_ms > CROWD_PAUSE_MS_MAX)
        crowd->pause_ms = CROWD_PAUSE_MS_MAX;
    crowd->until_ns = now + crowd->pause_ms * NS_PER_MS;
}

#endif
