/* view.h - what all policies share: who may take the request, what each choice would cost, and how a choice becomes a
 * decision. A policy fills `load_tokens` and `cost` of the prefill rows it likes, picks one, and calls sched_view_decide().
 *
 * A view lives on the caller's stack (about 60 KiB). Pure; threads: any. */
#ifndef CONDUCTOR_SCHEDULER_VIEW_H
#define CONDUCTOR_SCHEDULER_VIEW_H

#include "mooncake/scheduler.h"

struct sched_view {
    const struct mc_sched_snapshot *snapshot;
    const struct mc_sched_request *request;
    uint32_t best_tokens;           /* of the prompt that some node holds and that may be reused */
    uint16_t source;                /* the node that holds most of it; MC_SCHED_NONE */
    bool prefill_full, decode_full; /* nobody is eligible, but somebody would be were he not full */
    struct mc_sched_candidate prefill[MC_SCHED_WORKERS_MAX]; /* by worker index; skip says who is in */
    struct mc_sched_candidate decode[MC_SCHED_WORKERS_MAX];
};

/* Find out who is eligible for what, and what each has of the prompt (own_tokens). */
void sched_view_init(
    struct sched_view *view, const struct mc_sched_snapshot *snapshot, const struct mc_sched_request *request);

/* Time to bring the first `tokens` of the prompt to a worker, `own` of them from its own node over its own link and the rest from
 * the source. One after the other: what limits both is usually the worker's side. INFINITY: it reaches no node. */
double sched_view_load_ms(
    const struct sched_view *view, const struct mc_sched_worker *worker, uint32_t own, uint32_t tokens);

/* Fill the terms of `row` for loading `load_tokens` there and computing the rest; cost = ttft. */
void sched_view_cost(const struct sched_view *view, struct mc_sched_candidate *row, uint32_t load_tokens);

/* The cheaper of loading `load_tokens` and computing everything: loading is chosen only where it beats computing. */
void sched_view_cost_or_compute(const struct sched_view *view, struct mc_sched_candidate *row, uint32_t load_tokens);

/* The quickest of computing everything, loading what the worker's own node holds, and loading the best prefix there is. */
void sched_view_cost_fastest(const struct sched_view *view, struct mc_sched_candidate *row);

/* Eligible row of lowest cost; equal ones are told apart by request->draw. NULL: none is eligible. */
struct mc_sched_candidate *sched_cheapest(
    const struct sched_view *view, struct mc_sched_candidate rows[MC_SCHED_WORKERS_MAX]);

/* How long it would wait there for nothing: what the worker still has to do, less what is to be loaded meanwhile and some milliseconds
 * that pass until it begins. Not above 0: it begins at once. */
double sched_early_ms(const struct mc_sched_candidate *row);

/* Of the eligible rows that cost hardly more than the cheapest and are no earlier than `early_ms`, the one that the request prefers by a
 * lot of its own, whatever else happens in the cluster. Where there is none of that kind, as sched_cheapest(). */
struct mc_sched_candidate *sched_steadiest(
    const struct sched_view *view, struct mc_sched_candidate rows[MC_SCHED_WORKERS_MAX], double early_ms);

/* Given the prefill row chosen (NULL: none is eligible), choose the decode worker by predicted TBT, take the direct or single
 * route where it is better, hold the result against the SLO, and write the explanation. */
void sched_view_decide(struct sched_view *view, struct mc_sched_candidate *prefill, struct mc_sched_decision *decision,
    struct mc_sched_explain *explain);

#endif
