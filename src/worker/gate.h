/* gate.h - whether the Store is worth asking at present.
 *
 * After GATE_FAILURES failures in a row that say "not there" or "too slow" the gate closes for a while that doubles from
 * 250 ms to 4 s; then one attempt is let through. So a dead Store costs runs nothing but that one attempt.
 * Threads: the owner's. */
#ifndef WORKER_GATE_H
#define WORKER_GATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "mooncake/status.h"

enum { GATE_FAILURES = 3, GATE_CLOSED_MS_MIN = 250, GATE_CLOSED_MS_MAX = 4000 };

struct gate {
    uint32_t failures;
    uint32_t closed_ms; /* how long the last closing lasted; 0: open */
    uint64_t until_ns;
};

/* May one go through now? */
static inline bool gate_open(const struct gate *gate, uint64_t now)
{
    return gate->failures < GATE_FAILURES || now >= gate->until_ns;
}

static inline void gate_passed(struct gate *gate)
{
    *gate = (struct gate){0};
}

static inline void gate_failed(struct gate *gate, uint64_t now)
{
    if (++gate->failures < GATE_FAILURES || now < gate->until_ns)
        return;
    gate->closed_ms = gate->closed_ms ? gate->closed_ms * 2 : GATE_CLOSED_MS_MIN;
    if (gate->closed_ms > GATE_CLOSED_MS_MAX)
        gate->closed_ms = GATE_CLOSED_MS_MAX;
    gate->until_ns = now + gate->closed_ms * NS_PER_MS;
}

/* Results that are about the Store as a whole and not about one object. */
static inline bool gate_counts(enum mc_status status)
{
    return status == MC_EPEERDOWN || status == MC_ETIMEDOUT || status == MC_ECLOSED || status == MC_EPROTO ||
           status == MC_ESYS || status == MC_ENOMEM;
}

#endif
