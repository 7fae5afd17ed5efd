/* sim_place.c - what the Conductor does: a snapshot, a decision by the policy, and the request on its way.
 *
 * The snapshot says of an instance what a live worker reports: prompts and tokens that wait, the time until a new one could start,
 * sequences and KV of its decode side. `waiting` counts prompts that are not wholly in an iteration yet, so a policy with a queue
 * in front of all sends the next one while the last iteration of the one before runs, and its loading is hidden behind that. */
#include "mooncake/kvcache.h"
#include "replay/cluster_impl.h"

static void see_prefill(struct cluster *c, uint32_t i)
{
    const struct sim_worker *worker = &c->workers[i];
    double running = worker->busy ? (double)(worker->ends - c->now) / 1e6 : 0;

    c->seen[i] = (struct mc_sched_worker){.role = MC_WORKER_PREFILL,
        .state = MC_WORKER_READY,
        .node = (uint16_t)i,
        .waiting = c->options->policy.waiting_max ? worker->waiting : worker->present,
        .waiting_max = c->options->policy.waiting_max,
        .queued_tokens = (uint32_t)worker->queued_tokens,
        .queue_ms = running + worker->backlog_ms,
        .prefill = &c->prefill_fit,
        .kv_tokens = worker->prompt_tokens,
        .kv_tokens_max = (uint64_t)c->model->cache_tokens,
        .decode = &c->decode_fit,
        .links = c->links[i]};
}

static void see_decode(struct cluster *c, uint32_t i)
{
    const struct sim_worker *worker = &c->workers[i];

    c->seen[i] = (struct mc_sched_worker){.role = MC_WORKER_DECODE,
        .state = MC_WORKER_READY,
        .node = MC_SCHED_NONE,
        .queued_tokens = (uint32_t)worker->queued_tokens,
        .queue_ms = worker->backlog_ms,
        .prefill = &c->prefill_fit,
        .running = worker->running_count + worker->assigned,
        .kv_tokens = worker->kv_tokens + worker->assigned_tokens,
        .decode = &c->decode_fit,
        .links = c->links[i]};
}

static void see_links(struct cluster *c, uint32_t to)
{
    const struct model *model = c->model;

    for (uint32_t from = 0; from < c->prefills; from++) {
        struct mc_sched_link *link = &c->links[to][from];

        if (from == to)
            *link = (struct mc_sched_link){.bytes_per_ms = model->own_gb_s * 1e6};
        else if (to < c->prefills && model->shared == 0)
            *link = (struct mc_sched_link){.bytes_per_ms = 0};
        else if (to >= c->prefills && model->handover == 0)
            *link = (struct mc_sched_link){.bytes_per_ms = 1e15};
        else
            *link = (struct mc_sched_link){.bytes_per_ms = model->link_gb_s * 1e6,
                .latency_ms = model->link_latency_ms,
                .queue_ms = kv_link_queue_ms(c->kv, from, to, c->now)};
    }
}

static void snapshot(struct cluster *c, struct mc_sched_snapshot *out)
{
    for (uint32_t i = 0; i < c->worker_count; i++) {
        see_links(c, i);
        if (i < c->prefills)
            see_prefill(c, i);
        else
            see_decode(c, i);
    }
    *out = (struct mc_sched_snapshot){.workers = c->seen,
        .worker_count = c->worker_count,
        .node_count = c->prefills,
        .options = {.direct_tokens_max = (uint32_t)c->model->direct_tokens_max},
        .sequence = c->decisions++};
}

static void decide(struct cluster *c, const struct sim_request *request, struct mc_sched_decision *decision)
{
    uint32_t node_blocks[MODEL_PREFILL_MAX],
        prefix = kv_prefix(c->kv, request->ids, request->reuse_blocks, node_blocks);
    struct mc_sched_snapshot seen;
    struct mc_sched_request asked = {.tokens = request->tokens,
        .output_tokens = request->output,
        .block_tokens = (uint32_t)c->model->block_tokens,
        .reuse_max = request->reuse_blocks * (uint32_t)c->model->block_tokens,
        .bytes_per_token = (uint64_t)c->model->kv_token_bytes,
        .node_blocks = node_blocks,
        .prefix_blocks = prefix,
        .slo_ttft_ms = c->options->slo_ttft_ms,
        .slo_tbt_ms = c->options->slo_tbt_ms,
        .waited_ms = (double)(c->now - request->arrived) / 1e6,
        .draw = rng_u64(&c->rng)};

    snapshot(c, &seen);
    c->options->policy.decide(&seen, &asked, decision, NULL);
}

/* What the decision loads begins to come now; what is on the own node is looked at once more when the prefill begins. */
static enum mc_status send(struct cluster *c, struct sim_request *request, const struct mc_sched_decision *decision)
{
    uint32_t block = (uint32_t)c->model->block_tokens, load = decision->load_tokens / block;
    struct sim_worker *decode = &c->workers[decision->decode];

    request->prefill = decision->prefill;
    request->decode = decision->decode;
    request->own_blocks = decision->own_tokens / block;
    request->fetched = request->own_blocks;
    request->ready = c->now;
    request->copy = decision->copy_blocks > 0;
    if (load > 0 && (c->model->shared != 0 || decision->prefill >= c->prefills))
        request->ready = kv_fetch(c->kv, decision->prefill, request->ids, 0, load, c->now, &request->fetched);
    if (request->own_blocks > request->fetched)
        request->own_blocks = request->fetched;
    decode->assigned++;
    decode->assigned_tokens += request->tokens;
    sim_hash(c, SIM_PLACED, request, (uint64_t)decision->prefill << 32 | decision->decode << 16 | request->fetched);
    return sim_worker_prefill(c, &c->workers[decision->prefill], request);
}

/* Work of a held request as the cache is now. It is not looked at again until it is placed: an order that is a little old costs
 * nothing, asking for all that is held at each placement would. */
static double work_ms(const struct cluster *c, const struct sim_request *request)
{
    uint32_t node_blocks[MODEL_PREFILL_MAX];
    double hit = kv_prefix(c->kv, request->ids, request->reuse_blocks, node_blocks) * c->model->block_tokens;

    return model_prefill_ms(c->model, hit, request->tokens);
}

static void hold(struct cluster *c, struct sim_request *request)
{
    sim_hash(c, SIM_HELD, request, 0);
    request->work_ms = c->options->policy.patience > 0 ? work_ms(c, request) : 0;
    list_push_back(&c->held, &request->link);
    if (++c->held_count > c->out->held_max)
        c->out->held_max = c->held_count;
}

enum mc_status sim_place(struct cluster *c, struct sim_request *request)
{
    struct mc_sched_decision decision;

    if (c->held_count > 0) {
        hold(c, request);
        return MC_OK;
    }
    decide(c, request, &decision);
    switch (decision.outcome) {
    case MC_SCHED_RUN: return send(c, request, &decision);
    case MC_SCHED_HOLD: hold(c, request); return MC_OK;
    default: sim_reject(c, request); return MC_OK;
    }
}

static bool has_room(const struct cluster *c)
{
    for (uint32_t i = 0; i < c->prefills; i++)
        if (c->workers[i].waiting < c->options->policy.waiting_max)
            return true;
    return false;
}

static struct sim_request *first_held(struct cluster *c)
{
    double patience = c->options->policy.patience, least = 0;
    struct sim_request *best = NULL;

    list_for_each (it, &c->held) {
        struct sim_request *request = list_entry(it, struct sim_request, link);
        double rank = request->work_ms - patience * (double)(c->now - request->arrived) / 1e6;

        if (!best || rank < least) {
            best = request;
            least = rank;
        }
        if (patience <= 0)
            break;
    }
    return best;
}

enum mc_status sim_place_held(struct cluster *c)
{
    struct mc_sched_decision decision;
    enum mc_status status = MC_OK;

    while (status == MC_OK && c->held_count > 0 && has_room(c)) {
        struct sim_request *request = first_held(c);

        decide(c, request, &decision);
        if (decision.outcome == MC_SCHED_HOLD)
            break;
        list_del(&request->link);
        c->held_count--;
        if (decision.outcome == MC_SCHED_RUN)
            status = send(c, request, &decision);
        else
            sim_reject(c, request);
    }
    return status;
}
