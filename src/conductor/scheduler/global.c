/* global.c - policy `global`: Algorithm 1 of the FAST'25 paper, the base line that others have to beat.
 *
 * For each prefill worker: its own prefix, or, when the best prefix anywhere is more than the balancing threshold times
 * longer, the best one with the difference fetched first (so a hot prefix comes to exist twice). TTFT = queue + load +
 * prefill; the least wins. What the paper leaves out and we need: also a worker's own cache takes time to load, so every
 * candidate is compared with computing all of it. */
#include "conductor/scheduler/policies.h"
#include "conductor/scheduler/view.h"

#define BALANCE_THRESHOLD 1.3

static uint32_t tokens_to_load(const struct sched_view *view, const struct mc_sched_candidate *row, double threshold)
{
    return (double)view->best_tokens > threshold * (double)row->own_tokens ? view->best_tokens : row->own_tokens;
}

void sched_global(const struct mc_sched_snapshot *snapshot, const struct mc_sched_request *request,
    struct mc_sched_decision *decision, struct mc_sched_explain *explain)
{
    double threshold = snapshot->options.balance_threshold;
    struct sched_view view;

    sched_view_init(&view, snapshot, request);
    for (uint32_t i = 0; i < snapshot->worker_count; i++) {
        struct mc_sched_candidate *row = &view.prefill[i];

        if (row->skip == MC_SKIP_NONE)
            sched_view_cost_or_compute(
                &view, row, tokens_to_load(&view, row, threshold > 0 ? threshold : BALANCE_THRESHOLD));
    }
    sched_view_decide(&view, sched_cheapest(&view, view.prefill), decision, explain);
}
