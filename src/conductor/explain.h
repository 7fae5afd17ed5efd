/* explain.h - why requests went where they went: the last N decisions with all candidates, kept to be asked for.
 *
 * A request that was decided more than once (moved after a death, held and tried again) has one row per decision that did
 * something; the newest is found first. Memory: explain_max rows of what the fleet's size needs.
 * Threads: the loop's only. */
#ifndef CONDUCTOR_EXPLAIN_H
#define CONDUCTOR_EXPLAIN_H

#include <jansson.h>

#include "conductor/fleet/fleet.h"
#include "mooncake/scheduler.h"

enum { EXPLAIN_ID_MAX = 128 };

struct explain_row {
    char id[EXPLAIN_ID_MAX + 1];
    char model[WMSG_NAME_MAX + 1];
    const char *policy;
    uint64_t at_ms;                  /* wall clock */
    struct mc_sched_request request; /* node_blocks is NULL here */
    struct mc_sched_decision decision;
    struct mc_sched_candidate *candidates; /* ours, then the names */
    char (*names)[WMSG_NAME_MAX + 1];      /* of workers, by index */
    uint32_t candidate_count, worker_count;
    double ttft_ms; /* as it came out, since the request arrived; 0: not yet */
};

struct explain_ring {
    struct explain_row *rows;
    uint32_t max;
    uint64_t count; /* ever */
};

enum mc_status explain_init(struct explain_ring *ring, uint32_t max);
void explain_fini(struct explain_ring *ring);

/* Keep a decision. Returns its number, for explain_actual(). Memory out: the row has no candidates. */
uint64_t explain_add(struct explain_ring *ring, const char *id, const struct fleet_model *model, const char *policy,
    const struct mc_sched_request *request, const struct mc_sched_decision *decision, const struct fleet_view *view,
    const struct mc_sched_candidate *candidates, uint32_t count);

/* What became of the prediction. Overwritten meanwhile: nothing. */
void explain_actual(struct explain_ring *ring, uint64_t number, double ttft_ms);

/* Everything kept of this request as JSON (given), newest first; NULL: nothing is. */
json_t *explain_json(const struct explain_ring *ring, const char *id);

#endif
