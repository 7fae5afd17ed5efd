/* sim_place.c - what the Conductor does: a queue, a snapshot, a decision by the policy, and the request on its way.
 *
 * Every request passes through the queue. Whose turn it is, the policy's rank says; who has to wait keeps all behind him waiting.
 *
 * The snapshot says of an instance what a live worker reports: prompts and tokens that wait, the time until a new one could start,
 * sequences and KV of its decode side. */
#include "base/hash.h"
#include "mooncake/kvcache.h"
#include "replay/cluster_impl.h"

#define STUCK_MS 1e7 /* longer than anybody waits */

static void see_prefill(struct cluster *c, uint32_t i)
{
    const struct sim_worker *worker = &c->workers[i];
    double running = worker->busy ? (double)(worker->ends - c->now) / 1e6 : 0;
    c->seen[i] = (struct mc_sched_worker){.role = MC_WORKER_PREFILL,
        .state = MC_WORKER_READY,
        .node = (uint16_t)i,
        .waiting = worker->present,
        .queued_tokens = (uint32_t)worker->queued_tokens,
        .queue_ms = running + worker->backlog_ms + worker->promised_ms,
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
    uint64_t room = kv_copy_room(c->kv);

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
        .copy_tokens_max = room > c->copying_tokens ? room - c->copying_tokens : 0,
        .sequence = c->decisions++};
}

static double slo_of(const struct cluster *c, const struct sim_request *request, double slo_ms)
{
    return c->options->never_refuse == (int64_t)request->number ? 0 : slo_ms;
}

/* What the Conductor asks about it; `node_blocks` is lent to `asked`. */
static void ask(struct cluster *c, const struct sim_request *request, uint32_t node_blocks[MODEL_PREFILL_MAX],
    struct mc_sched_request *asked)
{
    uint32_t prefix = kv_prefix(c->kv, request->ids, request->reuse_blocks, node_blocks);

    *asked = (struct mc_sched_request){.tokens = request->tokens,
        .output_tokens = request->output,
        .block_tokens = (uint32_t)c->model->block_tokens,
        .reuse_max = request->reuse_blocks * (uint32_t)c->model->block_tokens,
        .bytes_per_token = (uint64_t)c->model->kv_token_bytes,
        .node_blocks = node_blocks,
        .prefix_blocks = prefix,
        .slo_ttft_ms = slo_of(c, request, c->options->slo_ttft_ms),
        .slo_tbt_ms = slo_of(c, request, c->options->slo_tbt_ms),
        .waited_ms = (double)(c->now - request->arrived) / 1e6};
}

/* The policy's decision with one instance stuck at full load, and whether that moved a request that would not have gone there. */
static void decide_beside_stuck(struct cluster *c, const struct mc_sched_snapshot *seen,
    const struct mc_sched_request *asked, struct mc_sched_decision *decision)
{
    uint16_t stuck = (uint16_t)c->options->stuck;
    struct mc_sched_decision otherwise;

    c->options->policy->decide(seen, asked, &otherwise, NULL);
    c->seen[stuck].queue_ms += STUCK_MS;
    c->options->policy->decide(seen, asked, decision, NULL);
    if (otherwise.outcome != MC_SCHED_RUN)
        return;
    c->out->stuck.preferred += otherwise.prefill == stuck;
    c->out->stuck.others += otherwise.prefill != stuck;
    c->out->stuck.moved +=
        otherwise.prefill != stuck && (decision->outcome != MC_SCHED_RUN || decision->prefill != otherwise.prefill);
}

static void decide(struct cluster *c, const struct sim_request *request, struct mc_sched_decision *decision)
{
    uint32_t node_blocks[MODEL_PREFILL_MAX];
    struct mc_sched_snapshot seen;
    struct mc_sched_request asked;

    ask(c, request, node_blocks, &asked);
    asked.draw = hash_mix(request->number ^ hash_mix(~c->options->seed)); /* one lot, however often it is asked about */
    snapshot(c, &seen);
    if (c->options->stuck >= 0)
        decide_beside_stuck(c, &seen, &asked, decision);
    else
        c->options->policy->decide(&seen, &asked, decision, NULL);
}

/* The scheduler knows of memory only. What goes on behind that on SSDs is read when that is sooner than computing it. */
static void load_from_ssd(struct cluster *c, struct sim_request *request)
{
    double block = c->model->block_tokens, from = request->fetched * block;
    double per_block = request->reuse_blocks > request->fetched
                           ? model_prefill_ms(c->model, from, request->reuse_blocks * block) /
                                 (request->reuse_blocks - request->fetched)
                           : 0;
    uint64_t there = kv_fetch_ssd(c->kv, request->prefill, request->ids, request->fetched, request->reuse_blocks,
        c->now, per_block, &request->fetched);

    if (there > request->ready)
        request->ready = there;
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
    request->copy_tokens = decision->copy_blocks * block;
    c->copying_tokens += request->copy_tokens;
    if (load > 0 && (c->model->shared != 0 || decision->prefill >= c->prefills))
        request->ready = kv_fetch(c->kv, decision->prefill, request->ids, 0, load, c->now, &request->fetched);
    if (request->own_blocks > request->fetched)
        request->own_blocks = request->fetched;
    request->memory_blocks = request->fetched;
    if (c->model->ssd_tokens > 0 && decision->prefill < c->prefills)
        load_from_ssd(c, request);
    decode->assigned++;
    decode->assigned_tokens += request->tokens;
    sim_hash(c, SIM_PLACED, request, (uint64_t)decision->prefill << 32 | decision->decode << 16 | request->fetched);
    return sim_worker_prefill(c, &c->workers[decision->prefill], request);
}

/* ---- the queue ---- */

/* The work is that with what is cached now. It is not looked at again until its turn: an order that is a little old costs
 * nothing, asking for all that wait at each placement would. */
void sim_queue(struct cluster *c, struct sim_request *request)
{
    const struct mc_sched_worker any = {.prefill = &c->prefill_fit}; /* all are equally fast */
    const struct mc_sched_snapshot seen = {.workers = &any, .worker_count = 1};
    uint32_t node_blocks[MODEL_PREFILL_MAX];
    struct mc_sched_request asked;

    ask(c, request, node_blocks, &asked);
    request->work_ms = mc_sched_work_ms(&seen, &asked);
    list_push_back(&c->queue, &request->link);
    c->queue_count++;
    c->ask = true;
}

/* Of those whose turn has not been in this pass. */
static struct sim_request *first_in_line(const struct cluster *c)
{
    struct sim_request *best = NULL;
    double highest = 0;

    list_for_each (it, &c->queue) {
        struct sim_request *request = list_entry(it, struct sim_request, link);
        struct mc_sched_waiting waiting = {
            request->work_ms, (double)(c->now - request->arrived) / 1e6, slo_of(c, request, c->options->slo_ttft_ms)};
        double rank = request->asked == c->passes ? 0 : c->options->policy->rank(&waiting);

        if (request->asked != c->passes && (!best || rank > highest)) {
            best = request;
            highest = rank;
        }
    }
    return best;
}

/* It waits for an instance that is at work: whoever is asked after it in this pass finds that one busier. */
static enum mc_status wait(struct cluster *c, struct sim_request *request, const struct mc_sched_decision *decision)
{
    double again_ms = decision->again_ms;
    uint64_t at = c->now + (uint64_t)(again_ms * 1e6) + 1;

    if (decision->by_choice)
        c->workers[decision->prefill].promised_ms += decision->load_ms + decision->prefill_ms;
    if (!request->held)
        sim_hash(c, SIM_HELD, request, 0);
    request->held = true;
    if (c->queue_count > c->out->held_max)
        c->out->held_max = c->queue_count;
    if (again_ms <= 0)
        c->ask = true;
    if (again_ms <= 0 || (c->wakes > c->now && c->wakes <= at))
        return MC_OK;
    c->wakes = at;
    return events_add(&c->events, at, WAKE_QUEUE, 0, NULL);
}

static enum mc_status act(struct cluster *c, struct sim_request *request, const struct mc_sched_decision *decision)
{
    if (decision->outcome == MC_SCHED_HOLD)
        return wait(c, request, decision);
    list_del(&request->link);
    c->queue_count--;
    if (decision->outcome == MC_SCHED_RUN)
        return send(c, request, decision);
    sim_reject(c, request);
    return MC_OK;
}

enum mc_status sim_place(struct cluster *c)
{
    enum mc_status status = MC_OK;
    struct sim_request *request;
    bool goes_on = true;

    c->ask = false;
    c->passes++;
    for (uint32_t i = 0; i < c->prefills; i++)
        c->workers[i].promised_ms = 0;
    while (goes_on && status == MC_OK && (request = first_in_line(c)) != NULL) {
        struct mc_sched_decision decision;

        decide(c, request, &decision);
        request->asked = c->passes;
        goes_on = decision.outcome != MC_SCHED_HOLD || decision.by_choice;
        status = act(c, request, &decision);
    }
    return status;
}
