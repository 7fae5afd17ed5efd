/* policies.h - the functions behind the rows of policies.c, one file each. */
#ifndef CONDUCTOR_SCHEDULER_POLICIES_H
#define CONDUCTOR_SCHEDULER_POLICIES_H

#include "mooncake/scheduler.h"

mc_sched_fn sched_mooncake, sched_global;

mc_sched_rank_fn sched_response_ratio; /* mooncake.c */
mc_sched_rank_fn sched_first_come;     /* policies.c: of every policy that has no order of its own */

#endif
