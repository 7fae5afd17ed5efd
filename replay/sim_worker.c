/* sim_worker.c - an instance: iterations of prefill chunks and one decode step, as engines with continuous batching do it.
 *
 * An iteration takes prompts first come first served, at most `chunk_tokens` of them, and one step of every running sequence; all
 * of it ends together. What arrives meanwhile joins the next one. A prompt whose KV is still being loaded holds up those behind it.
 *
 * Whose blocks are seen when: with caches of their own a prompt's blocks count as there from its begin on, since who comes after it
 * on the same instance is computed after it, as in engines that register blocks when they allocate them. With a shared cache a
 * block is there for others when the prompt is done. */
#include <math.h>
#include <stdlib.h>

#include "replay/cluster_impl.h"

static bool is_prefill(const struct cluster *c, const struct sim_worker *worker)
{
    return worker->index < c->prefills;
}

static uint32_t block_of(const struct cluster *c)
{
    return (uint32_t)c->model->block_tokens;
}

/* Blocks of the prompt that are whole, and so can be kept. */
static uint32_t whole_blocks(const struct cluster *c, const struct sim_request *request)
{
    uint32_t whole = request->tokens / block_of(c);

    return whole < request->id_count ? whole : request->id_count;
}

/* ---- prefill ---- */

static void expect(struct cluster *c, struct sim_worker *worker, struct sim_request *request)
{
    uint32_t left = request->tokens - request->done_tokens;
    double ms = model_prefill_ms(c->model, request->done_tokens, request->tokens);

    worker->queued_tokens = worker->queued_tokens + left - request->counted_tokens;
    worker->backlog_ms += ms - request->expected_ms;
    request->counted_tokens = left;
    request->expected_ms = ms;
    if (worker->waiting == 0)
        worker->backlog_ms = 0; /* what is left of rounding */
}

/* What is reused, from where, and why the rest is not. `more` blocks have come to the own node since it was placed. */
static void account(struct cluster *c, const struct sim_request *request, uint32_t more)
{
    uint32_t block = block_of(c), ssd = request->fetched - more - request->memory_blocks;
    struct cluster_result *out = c->out;
    struct kv_missed missed = {0};

    out->prompt_tokens += request->tokens;
    out->own_tokens += (uint64_t)(request->own_blocks + more) * block;
    out->remote_tokens += (uint64_t)(request->memory_blocks - request->own_blocks) * block;
    out->ssd_tokens += (uint64_t)ssd * block;
    kv_missed(c->kv, request->ids, request->fetched, request->reuse_blocks, &missed);
    out->missed.fresh += (uint64_t)missed.fresh * block;
    out->missed.evicted += (uint64_t)missed.evicted * block;
    out->missed.elsewhere += (uint64_t)missed.elsewhere * block;
    out->missed.uncachable += request->tokens - (uint64_t)request->reuse_blocks * block;
    struct series_slot *slot = series_at(&out->series, c->now);
    slot->prompt_tokens += request->tokens;
    slot->hit_tokens += (uint64_t)request->fetched * block;
}

/* Its first tokens go into an iteration: find out what is there of it. */
static enum mc_status begin(struct cluster *c, struct sim_worker *worker, struct sim_request *request)
{
    uint32_t more = 0;

    if (c->model->shared == 0 && is_prefill(c, worker))
        request->own_blocks = request->memory_blocks = request->fetched = 0;
    if (is_prefill(c, worker))
        more = kv_own(c->kv, worker->index, request->ids, request->fetched, request->reuse_blocks);
    request->fetched += more;
    account(c, request, more);
    request->started = true;
    request->done_tokens = request->fetched * block_of(c);
    expect(c, worker, request);
    if (request->decode != worker->index && c->model->handover != 0)
        kv_hand_over_begin(c->kv, worker->index, request->decode - c->prefills, c->now, &request->handover);
    if (is_prefill(c, worker) && c->model->shared == 0)
        return kv_store(c->kv, worker->index, request->ids, 0, whole_blocks(c, request));
    return MC_OK;
}

static enum mc_status take_chunks(struct cluster *c, struct sim_worker *worker, double *ms)
{
    uint32_t budget = (uint32_t)c->model->chunk_tokens;
    enum mc_status status;

    while (budget > 0 && !list_empty(&worker->prefills)) {
        struct sim_request *request = list_first(&worker->prefills, struct sim_request, link);

        if (request->ready > c->now)
            break;
        if (!request->started) {
            if ((status = begin(c, worker, request)) != MC_OK)
                return status;
            *ms += c->model->prefill_base_ms;
        }
        uint32_t left = request->tokens - request->done_tokens, take = left < budget ? left : budget;
        *ms += model_prefill_ms(c->model, request->done_tokens, request->done_tokens + take);
        request->done_tokens += take;
        budget -= take;
        if (take == left) {
            list_del(&request->link);
            list_push_back(&worker->ending, &request->link);
            worker->waiting--;
        }
        expect(c, worker, request);
    }
    return MC_OK;
}

/* ---- decode ---- */

static bool ends_before(const struct sim_request *a, const struct sim_request *b)
{
    return a->last_step != b->last_step ? a->last_step < b->last_step : a->number < b->number;
}

static enum mc_status running_add(struct sim_worker *worker, struct sim_request *request)
{
    if (worker->running_count == worker->running_cap) {
        uint32_t cap = worker->running_cap ? 2 * worker->running_cap : 64;
        struct sim_request **running = realloc(worker->running, cap * sizeof(struct sim_request *));

        if (!running)
            return MC_ENOMEM;
        worker->running = running;
        worker->running_cap = cap;
    }
    uint32_t i = worker->running_count++;
    for (; i > 0 && ends_before(request, worker->running[(i - 1) / 2]); i = (i - 1) / 2)
        worker->running[i] = worker->running[(i - 1) / 2];
    worker->running[i] = request;
    return MC_OK;
}

static struct sim_request *running_pop(struct sim_worker *worker)
{
    struct sim_request *top = worker->running[0], *last = worker->running[--worker->running_count];
    uint32_t i = 0;

    for (uint32_t child; (child = 2 * i + 1) < worker->running_count; i = child) {
        if (child + 1 < worker->running_count && ends_before(worker->running[child + 1], worker->running[child]))
            child++;
        if (!ends_before(worker->running[child], last))
            break;
        worker->running[i] = worker->running[child];
    }
    worker->running[i] = last;
    return top;
}

/* Sequences start as long as there is room for them and their answers so far; one alone always does. */
static enum mc_status admit(struct cluster *c, struct sim_worker *worker)
{
    while (!list_empty(&worker->decodes)) {
        struct sim_request *request = list_first(&worker->decodes, struct sim_request, link);
        bool fits = worker->running_count < c->model->sequences &&
                    (double)(worker->kv_tokens + request->tokens) <= c->model->decode_kv_tokens;

        if (!fits && worker->running_count > 0)
            break;
        list_del(&request->link);
        worker->assigned--;
        worker->assigned_tokens -= request->tokens;
        worker->kv_tokens += request->tokens;
        request->last_step = worker->step + request->steps;
        if (running_add(worker, request) != MC_OK)
            return MC_ENOMEM;
        if (!request->first)
            list_push_back(&worker->fresh, &request->link);
    }
    return MC_OK;
}

static void end_step(struct cluster *c, struct sim_worker *worker)
{
    if (worker->running_count == 0)
        return;
    worker->step++;
    worker->kv_tokens += worker->running_count;
    for (struct list *it; (it = list_pop_front(&worker->fresh)) != NULL;)
        sim_first_token(c, list_entry(it, struct sim_request, link));
    while (worker->running_count > 0 && worker->running[0]->last_step <= worker->step) {
        struct sim_request *request = running_pop(worker);

        worker->kv_tokens -= request->tokens + request->steps;
        sim_finish(c, request);
    }
}

/* ---- iterations ---- */

static enum mc_status go(struct cluster *c, struct sim_worker *worker)
{
    enum mc_status status;
    double ms = 0;

    if (worker->busy)
        return MC_OK;
    if ((status = admit(c, worker)) != MC_OK || (status = take_chunks(c, worker, &ms)) != MC_OK)
        return status;
    if (worker->running_count > 0)
        ms += model_decode_ms(c->model, worker->running_count, (double)worker->kv_tokens);
    if (ms > SIM_MAX_MS)
        return MC_ETOOBIG;
    if (ms > 0) {
        worker->busy = true;
        worker->busy_ms += ms;
        worker->ends = c->now + (uint64_t)llround(ms * 1e6);
        return events_add(&c->events, worker->ends, WAKE_END, worker->index, NULL);
    }
    if (!list_empty(&worker->prefills) && !worker->wake_set) {
        worker->wake_set = true;
        return events_add(&c->events, list_first(&worker->prefills, struct sim_request, link)->ready, WAKE_LOADED,
            worker->index, NULL);
    }
    return MC_OK;
}

enum mc_status sim_worker_loaded(struct cluster *c, struct sim_worker *worker)
{
    worker->wake_set = false;
    return go(c, worker);
}

enum mc_status sim_worker_prefill(struct cluster *c, struct sim_worker *worker, struct sim_request *request)
{
    list_push_back(&worker->prefills, &request->link);
    worker->waiting++;
    worker->present++;
    worker->prompt_tokens += request->tokens;
    request->done_tokens = request->fetched * block_of(c); /* as far as is known */
    expect(c, worker, request);
    return go(c, worker);
}

enum mc_status sim_worker_decode(struct cluster *c, struct sim_worker *worker, struct sim_request *request)
{
    uint32_t output = request->output > 0 ? request->output : 1;

    request->steps = output - (request->first ? 1 : 0);
    if (request->steps == 0) {
        worker->assigned--;
        worker->assigned_tokens -= request->tokens;
        sim_finish(c, request);
        return MC_OK;
    }
    list_push_back(&worker->decodes, &request->link);
    return go(c, worker);
}

/* Blocks that were computed or copied are the node's from now on. */
static enum mc_status keep(struct cluster *c, const struct sim_worker *worker, const struct sim_request *request)
{
    uint32_t whole = whole_blocks(c, request);
    enum mc_status status;

    if (request->copy_tokens || request->own_blocks == request->memory_blocks)
        return kv_store(c->kv, worker->index, request->ids, 0, whole);
    status = kv_store(c->kv, worker->index, request->ids, 0, request->own_blocks);
    return status == MC_OK ? kv_store(c->kv, worker->index, request->ids, request->memory_blocks, whole) : status;
}

static enum mc_status end_prefill(struct cluster *c, struct sim_worker *worker, struct sim_request *request)
{
    struct sim_worker *decode = &c->workers[request->decode];
    enum mc_status status = MC_OK;

    worker->present--;
    worker->prompt_tokens -= request->tokens;
    c->copying_tokens -= request->copy_tokens;
    if (is_prefill(c, worker) && c->model->shared != 0)
        status = keep(c, worker, request);
    if (status != MC_OK)
        return status;
    if (c->model->first_token_by_decode == 0)
        sim_first_token(c, request);
    if (decode == worker || c->model->handover == 0)
        return sim_worker_decode(c, decode, request);
    uint64_t there = kv_hand_over_end(
        c->kv, worker->index, decode->index - c->prefills, request->tokens, c->now, &request->handover);
    return events_add(&c->events, there, WAKE_DECODE, decode->index, request);
}

enum mc_status sim_worker_end(struct cluster *c, struct sim_worker *worker)
{
    enum mc_status status = MC_OK;

    worker->busy = false;
    end_step(c, worker);
    for (struct list *it; status == MC_OK && (it = list_pop_front(&worker->ending)) != NULL;)
        status = end_prefill(c, worker, list_entry(it, struct sim_request, link));
    return status == MC_OK ? go(c, worker) : status;
}
