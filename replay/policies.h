/* policies.h - the scheduling policies a replay can run: the live ones, and some to compare with.
 *
 * A policy is a row of the live scheduler's kind (mooncake/scheduler.h): snapshot in, decision out, and the order of those who wait.
 * The rows of src/conductor/scheduler come first and are the live code. The others take the live code's rules for who is eligible,
 * the decode worker and the route (scheduler/view.h), and differ in how they choose the prefill worker; those that do not say what
 * they fetch take whatever is the fastest. None of them lets anybody wait while there is room.
 *
 * Threads: any; pure. */
#ifndef REPLAY_POLICIES_H
#define REPLAY_POLICIES_H

#include <stddef.h>

#include "mooncake/scheduler.h"

/* Rows from index 0, the live ones first; NULL behind the last. Static storage. */
const struct mc_sched_policy *replay_policy_at(size_t index);
/* NULL: no such policy. */
const struct mc_sched_policy *replay_policy_find(const char *name);

#endif
