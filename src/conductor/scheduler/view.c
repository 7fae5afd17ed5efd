/* view.c - eligibility, costs, and from a choice to a decision.
 *
 * Eligibility goes by rank, and only the best rank that is there takes part: the right role and ready; another role and
 * ready; the right role but silent or tried before; another role, silent or tried. So a dead or full pool is stood in for by the
 * other one before anything is refused, and a silent worker gets new work only when nobody else is left.
 *
 * Two ends meet in sched_view_decide(). With the prefill choice fixed, three routes remain, compared by the time until the
 * stream *flows* (the second token), because a split route pays once more when the decode worker takes over: it loads what was
 * computed, whole blocks of it, and computes the remainder itself.
 *
 *     split    max(queue_p + load_p + prefill_p, queue_d) + load_d(whole blocks) + prefill_d(remainder)
 *     direct   queue_d + load_d(best) + prefill_d(rest)            only when the rest is short, or KV cannot be moved
 *     single   queue_p + load_p + prefill_p                        only when p decodes nearly as fast as the best
 *
 * So a prompt without a whole block to hand over is never split, whatever the fits have learned: the decode worker would have to
 * compute all of it once more. Where nothing can be handed over (no Store), that is true of every prompt: then the decode worker
 * computes all of it, which is the route `single` too.
 *
 * Threads: any. */
#include <math.h>
#include <string.h>

#include "base/hash.h"
#include "conductor/scheduler/view.h"
#include "mooncake/kvcache.h"

/* A decision takes a message to become work, and a step of the engine takes some milliseconds: given out no earlier than this, the
 * worker would be idle in between. */
#define AHEAD_MS 20.0

/* Predictions are no better than that: a smaller difference in TTFT or TBT is no reason to go elsewhere. */
#define SAME_PART 0.05

/* A worker that has the KV already may decode this much slower than the best one: moving the KV costs more than that. */
#define SINGLE_TBT_SLACK 1.10

#define TRIAL_MS   5000.0
#define TRIAL_OVER 4.0 /* a machine that others use as well is that much slower at times */

#define RETRY_AFTER_MIN_MS 1000.0 /* the header counts whole seconds */

enum rank { RANK_ROLE, RANK_OTHER, RANK_DOUBT, RANK_OTHER_DOUBT, RANKS };

static enum mc_sched_skip rank_of(
    const struct sched_view *view, const struct mc_sched_worker *worker, unsigned phase, enum rank *rank)
{
    uint64_t need = (uint64_t)view->request->tokens + view->request->output_tokens;
    bool in_role = worker->role & phase, ready = worker->state == MC_WORKER_READY;

    if (worker->state == MC_WORKER_DOWN || worker->state == MC_WORKER_DRAINING)
        return MC_SKIP_STATE;
    if (worker->kv_tokens_max && need > worker->kv_tokens_max)
        return MC_SKIP_CONTEXT;
    *rank = ready ? (in_role ? RANK_ROLE : RANK_OTHER) : (in_role ? RANK_DOUBT : RANK_OTHER_DOUBT);
    return MC_SKIP_NONE;
}

static bool is_full(const struct sched_view *view, const struct mc_sched_worker *worker, unsigned phase)
{
    uint64_t need = (uint64_t)view->request->tokens + view->request->output_tokens;

    if (phase == MC_WORKER_PREFILL && worker->waiting_max && worker->waiting >= worker->waiting_max)
        return true;
    if (phase == MC_WORKER_PREFILL && worker->role & MC_WORKER_PREFILL)
        return false; /* one that stands in decodes, too */
    return (worker->running_max && worker->running >= worker->running_max) ||
           (worker->kv_tokens_max && worker->kv_tokens + need > worker->kv_tokens_max);
}

/* Fill `skip` of all rows of one phase. Returns whether a full worker was all that stood in the way. */
static bool find_eligible(struct sched_view *view, struct mc_sched_candidate *rows, uint8_t phase)
{
    const struct mc_sched_snapshot *snapshot = view->snapshot;
    uint8_t ranks[MC_SCHED_WORKERS_MAX];
    enum rank best = RANKS;
    bool any_full = false;

    for (uint32_t i = 0; i < snapshot->worker_count; i++) {
        const struct mc_sched_worker *worker = &snapshot->workers[i];
        enum rank rank = RANKS;

        rows[i] = (struct mc_sched_candidate){
            .worker = (uint16_t)i, .phase = phase, .source = MC_SCHED_NONE, .age_ms = worker->age_ms};
        rows[i].skip = rank_of(view, worker, phase, &rank);
        if (rows[i].skip == MC_SKIP_NONE && is_full(view, worker, phase)) {
            rows[i].skip = MC_SKIP_FULL;
            any_full = true;
        }
        ranks[i] = (uint8_t)rank;
        if (rows[i].skip == MC_SKIP_NONE && rank < best)
            best = rank;
    }
    for (uint32_t i = 0; i < snapshot->worker_count; i++) {
        if (rows[i].skip == MC_SKIP_NONE && ranks[i] > best)
            rows[i].skip = ranks[i] == RANK_OTHER ? MC_SKIP_ROLE : MC_SKIP_STATE;
    }
    return best == RANKS && any_full;
}

static uint32_t reusable(const struct mc_sched_request *request, uint32_t blocks)
{
    uint64_t tokens = (uint64_t)blocks * request->block_tokens;

    return tokens < request->reuse_max ? (uint32_t)tokens : request->reuse_max;
}

static uint32_t own_tokens(const struct sched_view *view, const struct mc_sched_worker *worker)
{
    if (!view->request->node_blocks || worker->node >= view->snapshot->node_count)
        return 0;
    return reusable(view->request, view->request->node_blocks[worker->node]);
}

void sched_view_init(
    struct sched_view *view, const struct mc_sched_snapshot *snapshot, const struct mc_sched_request *request)
{
    view->snapshot = snapshot;
    view->request = request;
    view->best_tokens = reusable(request, request->prefix_blocks);
    view->source = MC_SCHED_NONE;
    for (uint32_t n = 0, most = 0; request->node_blocks && n < snapshot->node_count; n++) {
        if (request->node_blocks[n] > most) {
            most = request->node_blocks[n];
            view->source = (uint16_t)n;
        }
    }
    view->prefill_full = find_eligible(view, view->prefill, MC_WORKER_PREFILL);
    view->decode_full = find_eligible(view, view->decode, MC_WORKER_DECODE);
    for (uint32_t i = 0; i < snapshot->worker_count; i++)
        view->prefill[i].own_tokens = view->decode[i].own_tokens = own_tokens(view, &snapshot->workers[i]);
}

static double link_ms(const struct mc_sched_link *link, double bytes)
{
    if (bytes <= 0)
        return 0;
    return link->bytes_per_ms > 0 ? link->queue_ms + link->latency_ms + bytes / link->bytes_per_ms : INFINITY;
}

/* From the source; somewhere, but nobody said where: over the slowest link there is. */
static double far_ms(const struct sched_view *view, const struct mc_sched_worker *worker, double bytes)
{
    double worst = 0;

    if (view->source != MC_SCHED_NONE)
        return link_ms(&worker->links[view->source], bytes);
    for (uint32_t n = 0; n < view->snapshot->node_count; n++)
        worst = fmax(worst, link_ms(&worker->links[n], bytes));
    return worst > 0 ? worst : INFINITY;
}

double sched_view_load_ms(
    const struct sched_view *view, const struct mc_sched_worker *worker, uint32_t own, uint32_t tokens)
{
    double per_token = (double)view->request->bytes_per_token, ms = 0;
    uint32_t near = own < tokens ? own : tokens;

    if (tokens == 0)
        return 0;
    if (!worker->links)
        return INFINITY;
    if (near)
        ms += link_ms(&worker->links[worker->node], near * per_token);
    if (tokens > near)
        ms += far_ms(view, worker, (tokens - near) * per_token);
    return ms;
}

void sched_view_cost(const struct sched_view *view, struct mc_sched_candidate *row, uint32_t load_tokens)
{
    const struct mc_sched_worker *worker = &view->snapshot->workers[row->worker];

    row->load_tokens = load_tokens;
    row->compute_tokens = view->request->tokens - load_tokens;
    row->source = load_tokens > row->own_tokens ? view->source : MC_SCHED_NONE;
    row->queue_ms = worker->queue_ms;
    row->load_ms = sched_view_load_ms(view, worker, row->own_tokens, load_tokens);
    row->prefill_ms = mc_fit_prefill_ms(worker->prefill, view->request->tokens, load_tokens);
    row->ttft_ms = row->queue_ms + row->load_ms + row->prefill_ms;
    row->cost = row->ttft_ms;
}

void sched_view_cost_or_compute(const struct sched_view *view, struct mc_sched_candidate *row, uint32_t load_tokens)
{
    struct mc_sched_candidate compute = *row;

    sched_view_cost(view, row, load_tokens);
    sched_view_cost(view, &compute, 0);
    if (compute.ttft_ms < row->ttft_ms)
        *row = compute;
}

void sched_view_cost_fastest(const struct sched_view *view, struct mc_sched_candidate *row)
{
    struct mc_sched_candidate own = *row;

    sched_view_cost_or_compute(view, row, view->best_tokens);
    sched_view_cost_or_compute(view, &own, own.own_tokens);
    if (own.ttft_ms <= row->ttft_ms)
        *row = own;
}

double mc_sched_work_ms(const struct mc_sched_snapshot *snapshot, const struct mc_sched_request *request)
{
    uint32_t hit = reusable(request, request->prefix_blocks);
    double least = INFINITY;

    for (uint32_t i = 0; i < snapshot->worker_count; i++)
        least = fmin(least, mc_fit_prefill_ms(snapshot->workers[i].prefill, request->tokens, hit));
    return isinf(least) ? 0 : least;
}

double sched_early_ms(const struct mc_sched_candidate *row)
{
    return row->queue_ms - row->load_ms - AHEAD_MS;
}

static double least_cost(const struct sched_view *view, const struct mc_sched_candidate *rows)
{
    double least = INFINITY;

    for (uint32_t i = 0; i < view->snapshot->worker_count; i++)
        if (rows[i].skip == MC_SKIP_NONE)
            least = fmin(least, rows[i].cost);
    return least;
}

/* Of the eligible rows that cost no more than `cost` and are no earlier than `early_ms` each has the same chance. Every row draws a lot
 * of its own and the highest wins (rendezvous hashing), so that when one of them drops out only those go elsewhere who would have had
 * it. NULL: there is none. */
static struct mc_sched_candidate *by_lot(
    const struct sched_view *view, struct mc_sched_candidate *rows, double cost, double early_ms)
{
    struct mc_sched_candidate *best = NULL;
    uint64_t highest = 0;

    for (uint32_t i = 0; i < view->snapshot->worker_count; i++) {
        struct mc_sched_candidate *row = &rows[i];

        if (row->skip != MC_SKIP_NONE || row->cost > cost || sched_early_ms(row) > early_ms)
            continue;
        uint64_t lot = hash_mix(view->request->draw ^ hash_mix(i + 1));
        if (best && lot <= highest)
            continue;
        best = row;
        highest = lot;
    }
    return best;
}

struct mc_sched_candidate *sched_cheapest(
    const struct sched_view *view, struct mc_sched_candidate rows[MC_SCHED_WORKERS_MAX])
{
    return by_lot(view, rows, least_cost(view, rows), INFINITY);
}

struct mc_sched_candidate *sched_steadiest(
    const struct sched_view *view, struct mc_sched_candidate rows[MC_SCHED_WORKERS_MAX], double early_ms)
{
    struct mc_sched_candidate *good = by_lot(view, rows, least_cost(view, rows) * (1 + SAME_PART), early_ms);

    return good ? good : sched_cheapest(view, rows);
}

static void cost_decode(const struct sched_view *view, struct mc_sched_candidate *row)
{
    const struct mc_sched_worker *worker = &view->snapshot->workers[row->worker];

    row->tbt_ms = mc_fit_decode_ms(worker->decode, worker->running + 1, worker->kv_tokens + view->request->tokens);
    row->cost = row->tbt_ms;
}

static bool is_short(const struct sched_view *view, uint32_t compute_tokens)
{
    uint32_t max = view->snapshot->options.direct_tokens_max;

    return compute_tokens <= (max ? max : view->request->block_tokens);
}

/* What decode costs everywhere, and what a direct request would wait for there: whoever cannot be direct has no queue to wait in. */
static struct mc_sched_candidate *pick_decode(struct sched_view *view)
{
    for (uint32_t i = 0; i < view->snapshot->worker_count; i++) {
        struct mc_sched_candidate *row = &view->decode[i];

        if (row->skip != MC_SKIP_NONE)
            continue;
        sched_view_cost_or_compute(view, row, view->best_tokens);
        cost_decode(view, row);
    }
    return sched_steadiest(
        view, view->decode, is_short(view, view->request->tokens - view->best_tokens) ? 0 : INFINITY);
}

/* What was computed in a split is loaded once more by the decode worker, from the nearest node it reaches. INFINITY: it
 * reaches none. */
static double handover_ms(const struct sched_view *view, const struct mc_sched_worker *worker, uint32_t tokens)
{
    double bytes = (double)tokens * (double)view->request->bytes_per_token, best = INFINITY;

    for (uint32_t n = 0; worker->links && n < view->snapshot->node_count; n++)
        best = fmin(best, link_ms(&worker->links[n], bytes));
    return best;
}

/* When the stream of a split flows. */
static double split_ms(
    const struct sched_view *view, const struct mc_sched_candidate *prefill, const struct mc_sched_candidate *decode)
{
    const struct mc_sched_worker *worker = &view->snapshot->workers[decode->worker];
    uint32_t handed =
        mc_reuse_tokens_max(view->request->tokens + 1, view->request->block_tokens); /* + the first token */

    return fmax(prefill->ttft_ms, decode->queue_ms) + handover_ms(view, worker, handed) +
           mc_fit_prefill_ms(worker->prefill, view->request->tokens, handed);
}

static bool has_role(const struct sched_view *view, const struct mc_sched_candidate *row)
{
    return view->snapshot->workers[row->worker].role & row->phase;
}

static bool in_doubt(const struct sched_view *view, const struct mc_sched_candidate *row)
{
    return view->snapshot->workers[row->worker].state != MC_WORKER_READY || !has_role(view, row);
}

/* `row` computes the prompt; its terms are those of the decision. */
static void take(const struct sched_view *view, struct mc_sched_decision *decision, enum mc_sched_route route,
    struct mc_sched_candidate *row, struct mc_sched_candidate *decode)
{
    decision->outcome = MC_SCHED_RUN;
    decision->route = route;
    decision->prefill = row->worker;
    decision->decode = decode->worker;
    decision->source = row->source;
    decision->load_tokens = row->load_tokens;
    decision->own_tokens = row->own_tokens < row->load_tokens ? row->own_tokens : row->load_tokens;
    if (view->snapshot->workers[row->worker].node < view->snapshot->node_count)
        decision->copy_blocks = (decision->load_tokens - decision->own_tokens) / view->request->block_tokens;
    decision->queue_ms = row->queue_ms;
    decision->load_ms = row->load_ms;
    decision->prefill_ms = row->prefill_ms;
    decision->ttft_ms = row->ttft_ms;
    decision->tbt_ms = decode->tbt_ms;
    decision->degraded = in_doubt(view, decode) || (row != decode && in_doubt(view, row));
    row->chosen = decode->chosen = true;
}

static void choose_route(struct sched_view *view, struct mc_sched_candidate *prefill, struct mc_sched_candidate *decode,
    struct mc_sched_decision *decision)
{
    struct mc_sched_candidate *same = prefill ? &view->decode[prefill->worker] : NULL;
    double split = prefill ? split_ms(view, prefill, decode) : INFINITY;
    bool brief = is_short(view, decode->compute_tokens);

    if ((brief || isinf(split)) && decode->ttft_ms <= split)
        take(view, decision, brief ? MC_ROUTE_DIRECT : MC_ROUTE_SINGLE, decode, decode);
    else if (same->skip == MC_SKIP_NONE &&
             (same->tbt_ms <= decode->tbt_ms * SINGLE_TBT_SLACK || !has_role(view, prefill)))
        take(view, decision, MC_ROUTE_SINGLE, prefill, same);
    else
        take(view, decision, MC_ROUTE_SPLIT, prefill, decode);
}

/* Refusals teach nothing: workers that were slow for a moment would be held to be slow, and idle, for ever. So when they have had
 * nothing to do for some time, one request is let through, if what was learned need not be wrong by more than TRIAL_OVER. */
static bool is_trial(const struct sched_view *view, const struct mc_sched_decision *decision, double late)
{
    const struct mc_sched_request *request = view->request;
    double max = view->snapshot->options.trial_ms, idle;

    if (decision->outcome != MC_SCHED_RUN)
        return false;
    idle = fmin(view->snapshot->workers[decision->prefill].idle_ms, view->snapshot->workers[decision->decode].idle_ms);
    return idle >= (max > 0 ? max : TRIAL_MS) &&
           (request->slo_ttft_ms <= 0 || late <= TRIAL_OVER * request->slo_ttft_ms) &&
           (request->slo_tbt_ms <= 0 || decision->tbt_ms <= TRIAL_OVER * request->slo_tbt_ms);
}

/* A prediction that breaks the SLO is a refusal now, not a disappointment later. */
static void hold_against_slo(const struct sched_view *view, struct mc_sched_decision *decision)
{
    const struct mc_sched_request *request = view->request;
    double late = decision->outcome == MC_SCHED_RUN ? decision->ttft_ms + request->waited_ms : request->waited_ms;
    double over = request->slo_ttft_ms > 0 ? late - request->slo_ttft_ms : 0;

    if (request->slo_tbt_ms > 0 && decision->tbt_ms > request->slo_tbt_ms && over <= 0)
        over = RETRY_AFTER_MIN_MS;
    if (over <= 0)
        return;
    decision->trial = is_trial(view, decision, late);
    if (decision->trial)
        return;
    decision->outcome = MC_SCHED_REFUSE;
    decision->retry_after_ms = over > RETRY_AFTER_MIN_MS ? over : RETRY_AFTER_MIN_MS;
}

static void explain_rows(struct mc_sched_explain *explain, const struct mc_sched_candidate *rows, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (explain->candidate_count < explain->candidates_max)
            explain->candidates[explain->candidate_count++] = rows[i];
        else
            explain->left_out++;
    }
}

void sched_view_decide(struct sched_view *view, struct mc_sched_candidate *prefill, struct mc_sched_decision *decision,
    struct mc_sched_explain *explain)
{
    struct mc_sched_candidate *decode = pick_decode(view);

    *decision = (struct mc_sched_decision){.prefill = MC_SCHED_NONE, .decode = MC_SCHED_NONE, .source = MC_SCHED_NONE};
    if (view->request->begun)
        prefill = NULL;
    if (decode && (prefill || view->request->begun || is_short(view, decode->compute_tokens))) {
        choose_route(view, prefill, decode, decision);
    } else {
        bool full = (decode || view->decode_full) && (prefill || view->prefill_full || view->request->begun);

        decision->outcome = full ? MC_SCHED_HOLD : MC_SCHED_NOBODY;
        decision->retry_after_ms = RETRY_AFTER_MIN_MS;
    }
    if (decision->outcome != MC_SCHED_NOBODY)
        hold_against_slo(view, decision);
    if (explain) {
        explain->candidate_count = explain->left_out = 0;
        explain_rows(explain, view->prefill, view->snapshot->worker_count);
        explain_rows(explain, view->decode, view->snapshot->worker_count);
    }
}
