/* policies.c - the table, and the functions of those policies that are not live. See policies.h.
 *
 * The peers' formulas are the published ones with their default constants; how their terms map to a snapshot stands at each. A
 * prompt of ours counts in tokens, theirs in blocks of the request. */
#include "replay/policies.h"

#include <math.h>
#include <string.h>

#include "conductor/scheduler/policies.h"
#include "conductor/scheduler/view.h"

/* What a policy of the simple kind is: a cost per prefill worker. `row` has its terms. */
typedef double cost_fn(const struct sched_view *view, const struct mc_sched_candidate *row);

/* What of the prompt may come from the cache. */
enum reach { REACH_OWN, REACH_ALL };

static void decide_by(const struct mc_sched_snapshot *snapshot, const struct mc_sched_request *request,
    struct mc_sched_decision *decision, struct mc_sched_explain *explain, cost_fn *cost, enum reach reach)
{
    struct sched_view view;

    sched_view_init(&view, snapshot, request);
    for (uint32_t i = 0; i < snapshot->worker_count; i++) {
        struct mc_sched_candidate *row = &view.prefill[i];

        if (row->skip != MC_SKIP_NONE)
            continue;
        if (reach == REACH_ALL)
            sched_view_cost_fastest(&view, row);
        else
            sched_view_cost_or_compute(&view, row, row->own_tokens);
        row->cost = cost(&view, row);
    }
    sched_view_decide(&view, sched_cheapest(&view, view.prefill), decision, explain);
}

static const struct mc_sched_worker *worker_of(const struct sched_view *view, const struct mc_sched_candidate *row)
{
    return &view->snapshot->workers[row->worker];
}

/* ---- without a look at the cache ---- */

/* Among equal ones each has the same chance. */
static double cost_none(const struct sched_view *view, const struct mc_sched_candidate *row)
{
    return 0;
}

static void decide_random(const struct mc_sched_snapshot *snapshot, const struct mc_sched_request *request,
    struct mc_sched_decision *decision, struct mc_sched_explain *explain)
{
    decide_by(snapshot, request, decision, explain, cost_none, REACH_OWN);
}

/* The eligible one whose turn is nearest. */
static double cost_turn(const struct sched_view *view, const struct mc_sched_candidate *row)
{
    uint32_t prefills = 0, place = 0;

    for (uint32_t i = 0; i < view->snapshot->worker_count; i++) {
        place += i < row->worker && view->prefill[i].skip == MC_SKIP_NONE;
        prefills += view->prefill[i].skip == MC_SKIP_NONE;
    }
    return (double)((place + prefills - view->snapshot->sequence % prefills) % prefills);
}

static void decide_round_robin(const struct mc_sched_snapshot *snapshot, const struct mc_sched_request *request,
    struct mc_sched_decision *decision, struct mc_sched_explain *explain)
{
    decide_by(snapshot, request, decision, explain, cost_turn, REACH_ALL);
}

/* Tokens of the sequences there: what peers call active blocks. */
static double cost_load(const struct sched_view *view, const struct mc_sched_candidate *row)
{
    return (double)worker_of(view, row)->kv_tokens;
}

static void decide_least_load(const struct mc_sched_snapshot *snapshot, const struct mc_sched_request *request,
    struct mc_sched_decision *decision, struct mc_sched_explain *explain)
{
    decide_by(snapshot, request, decision, explain, cost_load, REACH_OWN);
}

/* The least predicted TTFT (FAST'25: cache-aware). */
static double cost_ttft(const struct sched_view *view, const struct mc_sched_candidate *row)
{
    return row->ttft_ms;
}

static void decide_local(const struct mc_sched_snapshot *snapshot, const struct mc_sched_request *request,
    struct mc_sched_decision *decision, struct mc_sched_explain *explain)
{
    decide_by(snapshot, request, decision, explain, cost_ttft, REACH_OWN);
}

/* ---- peers ---- */

/* Tokens the worker would have to compute with this one: what waits there, and the prompt without what it holds of it. */
static double pending_tokens(const struct sched_view *view, const struct mc_sched_candidate *row)
{
    return (double)worker_of(view, row)->queued_tokens + view->request->tokens - row->own_tokens;
}

/* Dynamo: max(P + n - c o, 0) s + D in blocks; D are the blocks of the sequences there, this one included. c = 1. The default of s
 * is not stated where the formula is; 1.5 is a number that brings mean TTFT and hit rate of its default to what was measured at all
 * four speeds (docs/replay.md), 1 is 15 % off under overload. */
#define DYNAMO_SCALE 1.5

static double cost_dynamo(const struct sched_view *view, const struct mc_sched_candidate *row)
{
    double active = (double)worker_of(view, row)->kv_tokens + view->request->tokens;

    return (DYNAMO_SCALE * fmax(pending_tokens(view, row), 0) + active) / view->request->block_tokens;
}

static void decide_dynamo(const struct mc_sched_snapshot *snapshot, const struct mc_sched_request *request,
    struct mc_sched_decision *decision, struct mc_sched_explain *explain)
{
    decide_by(snapshot, request, decision, explain, cost_dynamo, REACH_ALL);
}

/* Dynamo's lmetric: adjusted P x (D + 1), D the sequences there. */
static double cost_lmetric(const struct sched_view *view, const struct mc_sched_candidate *row)
{
    return fmax(pending_tokens(view, row), 0) * (worker_of(view, row)->waiting + 1.0);
}

static void decide_lmetric(const struct mc_sched_snapshot *snapshot, const struct mc_sched_request *request,
    struct mc_sched_decision *decision, struct mc_sched_explain *explain)
{
    decide_by(snapshot, request, decision, explain, cost_lmetric, REACH_ALL);
}

/* SMG: out of balance (more than 64 apart and 1.5 times): the shortest queue. Else, where more than 0.3 of the prompt is cached,
 * the best match; else the smallest tree. A snapshot does not know how large a cache is, and once full all are of one size: the
 * shortest queue stands in for the smallest tree. */
static void decide_smg(const struct mc_sched_snapshot *snapshot, const struct mc_sched_request *request,
    struct mc_sched_decision *decision, struct mc_sched_explain *explain)
{
    uint32_t least = UINT32_MAX, most = 0, match = 0;
    struct sched_view view;

    sched_view_init(&view, snapshot, request);
    for (uint32_t i = 0; i < snapshot->worker_count; i++) {
        if (view.prefill[i].skip != MC_SKIP_NONE)
            continue;
        uint32_t waiting = snapshot->workers[i].waiting;
        least = waiting < least ? waiting : least;
        most = waiting > most ? waiting : most;
        match = view.prefill[i].own_tokens > match ? view.prefill[i].own_tokens : match;
    }
    bool balanced = most - least <= 64 || most <= 1.5 * least;
    bool by_match = balanced && match > 0.3 * request->tokens;
    for (uint32_t i = 0; i < snapshot->worker_count; i++) {
        struct mc_sched_candidate *row = &view.prefill[i];

        if (row->skip != MC_SKIP_NONE)
            continue;
        sched_view_cost_fastest(&view, row);
        row->cost = by_match ? -(double)row->own_tokens : snapshot->workers[i].waiting;
    }
    sched_view_decide(&view, sched_cheapest(&view, view.prefill), decision, explain);
}

/* Where a value lies between the least and the most of all candidates, 0 to 1. */
struct range {
    double least, most;
};

static void range_add(struct range *range, double value)
{
    range->least = fmin(range->least, value);
    range->most = fmax(range->most, value);
}

static double range_part(const struct range *range, double value)
{
    return range->most > range->least ? (value - range->least) / (range->most - range->least) : 0;
}

static double kv_used(const struct mc_sched_worker *worker)
{
    return worker->kv_tokens_max ? (double)worker->kv_tokens / (double)worker->kv_tokens_max : 0;
}

/* llm-d, precise prefix sample: 2 prefix + 1 (1 - KV used) + 1 (1 - queue), each 0 to 1 over the candidates; the most wins. */
static void decide_llmd(const struct mc_sched_snapshot *snapshot, const struct mc_sched_request *request,
    struct mc_sched_decision *decision, struct mc_sched_explain *explain)
{
    struct range prefix = {INFINITY, -INFINITY}, used = prefix, queue = prefix;
    struct sched_view view;

    sched_view_init(&view, snapshot, request);
    for (uint32_t i = 0; i < snapshot->worker_count; i++) {
        if (view.prefill[i].skip != MC_SKIP_NONE)
            continue;
        range_add(&prefix, view.prefill[i].own_tokens);
        range_add(&used, kv_used(&snapshot->workers[i]));
        range_add(&queue, snapshot->workers[i].waiting);
    }
    for (uint32_t i = 0; i < snapshot->worker_count; i++) {
        struct mc_sched_candidate *row = &view.prefill[i];

        if (row->skip != MC_SKIP_NONE)
            continue;
        sched_view_cost_fastest(&view, row);
        row->cost = -2 * range_part(&prefix, row->own_tokens) + range_part(&used, kv_used(&snapshot->workers[i])) +
                    range_part(&queue, snapshot->workers[i].waiting);
    }
    sched_view_decide(&view, sched_cheapest(&view, view.prefill), decision, explain);
}

/* ---- the table ---- */

static const struct mc_sched_policy rows[] = {
    {"random", "any; own cache", decide_random, sched_first_come},
    {"round-robin", "in turn; the pool", decide_round_robin, sched_first_come},
    {"least-load", "fewest tokens of prompts not finished; own cache", decide_least_load, sched_first_come},
    {"local", "least predicted TTFT from each worker's own cache", decide_local, sched_first_come},
    {"dynamo", "Dynamo: blocks to compute and blocks active", decide_dynamo, sched_first_come},
    {"lmetric", "Dynamo, lmetric: tokens to compute x sequences", decide_lmetric, sched_first_come},
    {"smg", "SGLang gateway: shortest queue when out of balance, else best match", decide_smg, sched_first_come},
    {"llm-d", "llm-d: prefix, KV used and queue, each scaled over the candidates", decide_llmd, sched_first_come},
};

enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

const struct mc_sched_policy *replay_policy_at(size_t index)
{
    size_t live = 0;

    for (const struct mc_sched_policy *policy; (policy = mc_sched_policy_at(live)) != NULL; live++)
        if (live == index)
            return policy;
    return index - live < ROWS ? &rows[index - live] : NULL;
}

const struct mc_sched_policy *replay_policy_find(const char *name)
{
    const struct mc_sched_policy *policy;

    for (size_t i = 0; (policy = replay_policy_at(i)) != NULL; i++)
        if (strcmp(policy->name, name) == 0)
            return policy;
    return NULL;
}
