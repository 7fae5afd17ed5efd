/* mooncake.c - policy `mooncake`: ours, the default. Four ideas.
 *
 * Order. One queue in front of all workers, the highest response ratio first: time waited / work, which is how much slower a request
 * is than it would be alone (Brinch Hansen, The solution of a scheduling problem, 1971). Short ones go first as long as nobody has
 * waited for long, a long one that waits gains on every short one that comes later, and there is nothing to be tuned to a load. Under a
 * lasting overload the ratios of short ones grow as well, and a ratio alone would let long ones wait until it is over. So each
 * AGE_MS of waiting counts as much as e times less work: whoever has n times the work waits at most ln(n) AGE_MS longer. With an SLO
 * there is only so long that a request can wait, which for a long prompt is little. As that time is used up its rank grows without
 * bound: it goes before shorter ones that can still wait. One that cannot keep its SLO any more, even if it ran now, goes before all,
 * for its turn costs nobody anything: it is refused.
 *
 * Just in time. The worker of least predicted TTFT takes it, those at work included. But it is given out only when what that worker
 * still has to do takes no longer than what has to be loaded: then loading is hidden behind it, and until then the choice stays open,
 * for this request and for a shorter one that may come. So nobody waits behind a long prompt while somebody else becomes free.
 * Prefill workers that are full are waited for, too: a decode worker that stood in would make everybody's tokens slow.
 *
 * Where it lies. What is fetched is copied as long as no more than a part of the pool is there twice, and from then on read where it
 * lies, so that the pool holds as many different blocks as it can. Nobody knows yet which prefix will be hot; one that is, is copied early and
 * stays, and a copy that nobody uses is what eviction takes first.
 *
 * Steady. Of those who could begin at once and whose TTFT differs by less than predictions err, a request has one that it prefers by a lot of
 * its own, whatever else happens in the cluster: so what one worker does to others dies out instead of changing everybody's target. The
 * same goes for who decodes (view.c), under every policy.
 *
 * What was tried, and what each idea is worth: docs/decisions/065. */
#include <math.h>

#include "conductor/scheduler/policies.h"
#include "conductor/scheduler/view.h"

/* Twice the usual SLO of 30 s: until then it matters little, and what has waited longer is late in any case. */
#define AGE_MS 60e3

/* How much it counts that the time for waiting is used up: 0 is the ratio alone, which refuses one long prompt in six that could have
 * been served; with 1 the others wait half as long again. */
#define HURRY 0.7

#define WORK_MIN_MS 1e-3 /* a prompt of no work would have a ratio without bound */

double sched_response_ratio(const struct mc_sched_waiting *waiting)
{
    double rank = log(waiting->waited_ms / fmax(waiting->work_ms, WORK_MIN_MS)) + waiting->waited_ms / AGE_MS;
    double can_wait = waiting->slo_ttft_ms - waiting->work_ms;

    if (waiting->slo_ttft_ms <= 0)
        return rank;
    return waiting->waited_ms < can_wait ? rank - HURRY * log1p(-waiting->waited_ms / can_wait) : INFINITY;
}

/* Stand-ins for workers that are only full are passed over. */
static void wait_for_full_ones(struct sched_view *view)
{
    bool any_full = false, any = false;

    for (uint32_t i = 0; i < view->snapshot->worker_count; i++)
        any_full = any_full || view->prefill[i].skip == MC_SKIP_FULL;
    for (uint32_t i = 0; any_full && i < view->snapshot->worker_count; i++) {
        struct mc_sched_candidate *row = &view->prefill[i];

        if (row->skip == MC_SKIP_NONE && !(view->snapshot->workers[i].role & MC_WORKER_PREFILL))
            row->skip = MC_SKIP_ROLE;
        any = any || row->skip == MC_SKIP_NONE;
    }
    view->prefill_full = any_full && !any;
}

static bool anybody_free(const struct sched_view *view)
{
    for (uint32_t i = 0; i < view->snapshot->worker_count; i++)
        if (view->prefill[i].skip == MC_SKIP_NONE && sched_early_ms(&view->prefill[i]) <= 0)
            return true;
    return false;
}

void sched_mooncake(const struct mc_sched_snapshot *snapshot, const struct mc_sched_request *request,
    struct mc_sched_decision *decision, struct mc_sched_explain *explain)
{
    struct mc_sched_candidate *best;
    struct sched_view view;

    sched_view_init(&view, snapshot, request);
    wait_for_full_ones(&view);
    for (uint32_t i = 0; i < snapshot->worker_count; i++) {
        if (view.prefill[i].skip == MC_SKIP_NONE)
            sched_view_cost_fastest(&view, &view.prefill[i]);
    }
    best = sched_steadiest(&view, view.prefill, 0);
    sched_view_decide(&view, best, decision, explain);
    if (decision->load_tokens - decision->own_tokens > snapshot->copy_tokens_max)
        decision->copy_blocks = 0;
    if (decision->outcome != MC_SCHED_RUN || request->begun || !best || decision->prefill != best->worker)
        return;
    if (sched_early_ms(best) > 0) {
        decision->outcome = MC_SCHED_HOLD;
        decision->by_choice = anybody_free(&view);
        decision->again_ms = sched_early_ms(best);
    }
}
