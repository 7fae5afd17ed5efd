/* supervise.c - restart with back-off. See supervise.h. */
#include "cli/supervise.h"

#include "base/clock.h"

void supervise_init(struct supervise *supervise)
{
    *supervise = (struct supervise){.delay_ms = SUPERVISE_DELAY_MS};
}

void supervise_started(struct supervise *supervise, uint64_t now_ns)
{
    supervise->started_ns = now_ns;
}

int supervise_exited(struct supervise *supervise, uint64_t now_ns)
{
    supervise->exits_ns[supervise->exits % SUPERVISE_LOOP_EXITS] = now_ns;
    supervise->exits++;
    if (now_ns - supervise->started_ns >= SUPERVISE_GOOD_RUN_MS * NS_PER_MS)
        supervise->delay_ms = SUPERVISE_DELAY_MS;

    if (supervise->exits >= SUPERVISE_LOOP_EXITS) {
        uint64_t oldest = supervise->exits_ns[supervise->exits % SUPERVISE_LOOP_EXITS];
        if (now_ns - oldest <= SUPERVISE_LOOP_MS * NS_PER_MS)
            return -1;
    }
    int delay = (int)supervise->delay_ms;
    supervise->delay_ms =
        supervise->delay_ms * 2 < SUPERVISE_DELAY_MS_MAX ? supervise->delay_ms * 2 : SUPERVISE_DELAY_MS_MAX;
    return delay;
}
