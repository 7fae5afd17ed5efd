/* policies.h - the scheduling policies a replay can run: the live ones, and some to compare with.
 *
 * A policy is one row and one function of the live scheduler's kind (mooncake/scheduler.h): snapshot in, decision out. The rows of
 * src/conductor/scheduler come first and are the live code. The others take the live code's rules for who is eligible, the decode
 * worker and the route (scheduler/view.h), and differ in how they choose the prefill worker; those that do not say what they
 * fetch take whatever is the fastest.
 *
 * A policy may also want requests to wait in one queue in front of all workers: `waiting_max` prompts a worker takes at most whose
 * computing has not begun to end; others are held, and the row says who goes first when there is room.
 *
 * Threads: any; pure. */
#ifndef REPLAY_POLICIES_H
#define REPLAY_POLICIES_H

#include <stdbool.h>
#include <stddef.h>

#include "mooncake/scheduler.h"

struct replay_policy {
    const char *name, *help;
    mc_sched_fn *decide;
    uint32_t waiting_max; /* 0: no limit, nothing is held */
    double patience;      /* held: who has least of (ms of work - patience x ms waited) goes first; 0: who came first */
};

/* Rows from index 0, the live ones first. false behind the last. */
bool replay_policy_at(size_t index, struct replay_policy *out);
bool replay_policy_find(const char *name, struct replay_policy *out);

#endif
