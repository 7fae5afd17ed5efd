/* budget.h - the cores that the workers of one host share.
 *
 * Engines spin at barriers: two engines with two threads each on two cores are several times slower than with one each. So
 * workers of a host agree on a number of cores, and each asks before every engine call how many of them are its own: all
 * when it alone is busy, an equal part when others are.
 *
 * The agreement is a small file in the run directory, mapped by all: | head | slot 0 | slot 1 | ... |, one slot a worker.
 * A worker holds an OFD lock on the byte of its slot for as long as it lives; the kernel drops it when the process is gone,
 * however it went. A slot that says "busy" counts only while its lock is held, so a killed worker takes no cores with it.
 * Without the file (no directory, no locks, all slots taken) a worker uses all cores and says so once.
 * Threads: one per budget (the engine thread). */
#ifndef WORKER_BUDGET_H
#define WORKER_BUDGET_H

#include <stdint.h>

#include "mooncake/status.h"

struct budget;

enum { BUDGET_SLOTS = 64 };

/* Join the budget in `run_dir` (an existing private directory). `cores` is what this worker believes the host has for all.
 * MC_OK, MC_EBUSY all slots are taken, MC_ESYS (logged), MC_ENOMEM. */
enum mc_status budget_open(const char *run_dir, uint32_t cores, struct budget **budget);
void budget_close(struct budget *budget); /* NULL is allowed */

/* "I compute now": the number of cores that are mine at this moment, >= 1. Cheap: call before each engine call. */
uint32_t budget_take(struct budget *budget);
/* "I wait now". */
void budget_idle(struct budget *budget);

#endif
