/* policies.c - the table of policies, and names of enums for people. */
#include <stddef.h>
#include <string.h>

#include "conductor/scheduler/policies.h"

static const struct mc_sched_policy policies[] = {
    {"mooncake",
        "one queue, highest response ratio first; least predicted TTFT, given out just in time, read where it lies",
        sched_mooncake, sched_response_ratio},
    {"global", "least predicted TTFT, fetching the best prefix of the cluster where it pays (FAST'25, Algorithm 1)",
        sched_global, sched_first_come},
};

enum { POLICIES = sizeof policies / sizeof policies[0] };

double sched_first_come(const struct mc_sched_waiting *waiting)
{
    return waiting->waited_ms;
}

const struct mc_sched_policy *mc_sched_policy_at(size_t index)
{
    return index < POLICIES ? &policies[index] : NULL;
}

const struct mc_sched_policy *mc_sched_policy_find(const char *name)
{
    for (size_t i = 0; i < POLICIES; i++) {
        if (strcmp(policies[i].name, name) == 0)
            return &policies[i];
    }
    return NULL;
}

const char *mc_sched_route_str(enum mc_sched_route route)
{
    static const char *const names[MC_SCHED_ROUTES] = {"none", "split", "direct", "single"};

    return (unsigned)route < MC_SCHED_ROUTES ? names[route] : "unknown";
}

const char *mc_sched_outcome_str(enum mc_sched_outcome outcome)
{
    static const char *const names[MC_SCHED_OUTCOMES] = {"run", "hold", "refuse", "nobody"};

    return (unsigned)outcome < MC_SCHED_OUTCOMES ? names[outcome] : "unknown";
}

const char *mc_sched_skip_str(enum mc_sched_skip skip)
{
    static const char *const names[MC_SCHED_SKIPS] = {"none", "role", "state", "full", "context"};

    return (unsigned)skip < MC_SCHED_SKIPS ? names[skip] : "unknown";
}
