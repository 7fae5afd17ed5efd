/* decisions.h - what a live Conductor decided, decided once more: from its recording (conductor --record), by the same code.
 *
 * A line holds all that the decision depended on, the snapshot included. What lies between decisions (engines, links, other processes,
 * the clock) cannot be repeated and need not: the policy is a pure function of what is recorded.
 *
 * Threads: one. */
#ifndef REPLAY_DECISIONS_H
#define REPLAY_DECISIONS_H

#include <stdint.h>

#include "mooncake/scheduler.h"
#include "replay/trace.h"

struct decisions_result {
    uint64_t decisions;
    uint64_t same;           /* in every field */
    uint64_t same_place;     /* in outcome, route and both workers */
    uint64_t different_line; /* of the first that is not the same in every field; 0: there is none */
    uint64_t bad_lines;
};

/* `policy` NULL: the one that is recorded. A line that is no decision is told to `bad` (may be NULL) and counted.
 *   MC_ESYS: errno says why the file cannot be read     MC_ENOMEM */
enum mc_status decisions_run(
    const char *path, const struct mc_sched_policy *policy, trace_bad_fn *bad, void *arg, struct decisions_result *out);

#endif
