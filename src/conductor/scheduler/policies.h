/* policies.h - the functions behind the rows of policies.c, one file each. */
#ifndef CONDUCTOR_SCHEDULER_POLICIES_H
#define CONDUCTOR_SCHEDULER_POLICIES_H

#include "mooncake/scheduler.h"

mc_sched_fn sched_global;

#endif
