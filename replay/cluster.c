/* cluster.c - arrivals, the loop over what happens next, and the figures. See cluster.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "replay/cluster_impl.h"

enum { PROGRESS_EVERY = 256 };

#define JITTER 0.1

void sim_hash(struct cluster *c, enum sim_event what, const struct sim_request *request, uint64_t more)
{
    const uint64_t words[] = {c->now, (uint64_t)what << 56 | request->number, more};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
        c->out->event_hash = hash_mix(c->out->event_hash ^ words[i]) + 0x9e3779b97f4a7c15u;
}

static double ms_since(const struct cluster *c, uint64_t then)
{
    return (double)(c->now - then) / 1e6;
}

void sim_first_token(struct cluster *c, struct sim_request *request)
{
    request->first = c->now;
    sim_hash(c, SIM_FIRST, request, 0);
    stats_add(&c->out->ttft, ms_since(c, request->arrived));
    struct series_slot *slot = series_at(&c->out->series, c->now);
    slot->ttft_ms += ms_since(c, request->arrived);
    slot->firsts++;
}

static void tell(const struct cluster *c, const struct cluster_outcome *outcome)
{
    if (c->options->outcome)
        c->options->outcome(c->options->outcome_arg, outcome);
}

void sim_reject(struct cluster *c, struct sim_request *request)
{
    sim_hash(c, SIM_REFUSED, request, 0);
    tell(c, &(struct cluster_outcome){.number = request->number, .rejected = true});
    c->out->rejected++;
    free(request);
}

void sim_finish(struct cluster *c, struct sim_request *request)
{
    const struct cluster_options *options = c->options;
    double ttft = (double)(request->first - request->arrived) / 1e6;
    double tbt = request->output > 1 ? ms_since(c, request->first) / (request->output - 1) : 0;

    sim_hash(c, SIM_DONE, request, 0);
    if (request->output > 1)
        stats_add(&c->out->tbt, tbt);
    c->out->finished++;
    tell(c, &(struct cluster_outcome){.number = request->number,
                .ttft_ms = ttft,
                .tbt_ms = tbt,
                .prefill = request->prefill,
                .decode = request->decode});
    c->out->good += (options->slo_ttft_ms <= 0 || ttft <= options->slo_ttft_ms) &&
                    (options->slo_tbt_ms <= 0 || tbt <= options->slo_tbt_ms);
    free(request);
}

/* ---- arrivals ---- */

static uint64_t arrival_ns(struct cluster *c, double stamp_ms)
{
    double gap = (stamp_ms - c->stamp_ms) / c->options->speed;

    if (c->options->seed != 0)
        gap *= 1 - JITTER + 2 * JITTER * rng_double(&c->arrivals);
    c->stamp_ms = stamp_ms;
    c->clock_ms += gap;
    return (uint64_t)llround(fmin(c->clock_ms, SIM_MAX_MS) * 1e6);
}

/* The next request of the trace into c->next; NULL at the end. */
static enum mc_status read_next(struct cluster *c)
{
    uint32_t block = (uint32_t)c->model->block_tokens;
    struct trace_request read;
    enum mc_status status = trace_next(c->trace, &read);

    c->next = NULL;
    if (status != MC_OK)
        return status == MC_ENOENT ? MC_OK : status;
    struct sim_request *request = calloc(1, sizeof(*request) + read.id_count * sizeof(uint64_t));
    if (!request || kv_reserve(c->kv, read.id_count) != MC_OK) {
        free(request);
        return MC_ENOMEM;
    }
    list_init(&request->link);
    memcpy(request->ids, read.ids, read.id_count * sizeof(uint64_t));
    request->number = c->out->requests;
    if (request->number == 0)
        c->stamp_ms = read.at_ms;
    request->arrived = arrival_ns(c, read.at_ms);
    request->tokens = read.input_tokens;
    request->output = read.output_tokens;
    request->id_count = read.id_count;
    request->reuse_blocks = (read.input_tokens - 1) / block; /* the last token is always computed */
    if (request->reuse_blocks > read.id_count)
        request->reuse_blocks = read.id_count;
    c->next = request;
    return c->clock_ms <= SIM_MAX_MS ? MC_OK : MC_ETOOBIG;
}

static enum mc_status arrive(struct cluster *c)
{
    c->now = c->next->arrived;
    c->out->requests++;
    sim_queue(c, c->next);
    c->next = NULL;
    if (c->options->progress && c->out->requests % PROGRESS_EVERY == 0)
        c->options->progress(c->options->arg, trace_progress(c->trace));
    return read_next(c);
}

/* ---- the loop ---- */

static enum mc_status happen(struct cluster *c)
{
    struct event event;

    events_pop(&c->events, &event);
    c->now = event.at;
    if ((double)c->now > SIM_MAX_MS * 1e6)
        return MC_ETOOBIG;
    struct sim_worker *worker = &c->workers[event.index];
    c->ask = c->ask || event.kind == WAKE_QUEUE || event.index < c->prefills;
    switch ((enum sim_wake)event.kind) {
    case WAKE_QUEUE: return MC_OK;
    case WAKE_END: return sim_worker_end(c, worker);
    case WAKE_LOADED: return sim_worker_loaded(c, worker);
    case WAKE_DECODE: return sim_worker_decode(c, worker, event.arg);
    }
    return MC_EINVAL;
}

static bool more_comes_now(const struct cluster *c)
{
    return c->next && c->next->arrived == c->now;
}

/* Among equal times what was told before goes first; an arrival comes after all that happens at its time. Those that come at one
 * time are in the queue together before any of them is placed, as in the Conductor, which reads what has come and then decides. */
static enum mc_status loop(struct cluster *c)
{
    enum mc_status status = read_next(c);

    while (status == MC_OK && (c->next || c->events.count > 0)) {
        bool event_first = c->events.count > 0 && (!c->next || c->events.heap[0].at <= c->next->arrived);

        status = event_first ? happen(c) : arrive(c);
        if (status == MC_OK && c->ask && !more_comes_now(c))
            status = sim_place(c);
    }
    return status;
}

/* ---- begin and end ---- */

static void init_workers(struct cluster *c)
{
    c->prefills = (uint32_t)c->model->prefill;
    c->worker_count = c->prefills + (uint32_t)c->model->decode;
    for (uint32_t i = 0; i < c->worker_count; i++) {
        struct sim_worker *worker = &c->workers[i];

        worker->index = (uint16_t)i;
        list_init(&worker->prefills);
        list_init(&worker->ending);
        list_init(&worker->decodes);
        list_init(&worker->fresh);
    }
}

static void free_requests(struct list *requests)
{
    for (struct list *it; (it = list_pop_front(requests)) != NULL;)
        free(list_entry(it, struct sim_request, link));
}

/* After an error requests are still everywhere. */
static void fini(struct cluster *c)
{
    for (uint32_t i = 0; i < c->worker_count; i++) {
        struct sim_worker *worker = &c->workers[i];

        free_requests(&worker->prefills);
        free_requests(&worker->ending);
        free_requests(&worker->decodes);
        for (uint32_t j = 0; j < worker->running_count; j++)
            free(worker->running[j]);
        free(worker->running);
    }
    for (size_t i = 0; i < c->events.count; i++)
        free(c->events.heap[i].arg);
    free_requests(&c->queue);
    free(c->next);
    events_fini(&c->events);
    kv_destroy(c->kv);
    trace_close(c->trace);
    free(c);
}

static void sum_up(struct cluster *c)
{
    double sum = 0, most = 0;

    for (uint32_t i = 0; i < c->prefills; i++) {
        sum += c->workers[i].busy_ms;
        most = fmax(most, c->workers[i].busy_ms);
    }
    for (uint32_t i = 0; i < c->worker_count; i++)
        c->out->busy_ms[i] = c->workers[i].busy_ms;
    c->out->load_max_over_mean = sum > 0 ? most * c->prefills / sum : 1;
    c->out->simulated_s = (double)c->now / 1e9;
    c->out->bytes_moved = kv_bytes_moved(c->kv);
    c->out->duplicated_tokens = kv_duplicated_max(c->kv) * (uint64_t)c->model->block_tokens;
    c->out->bad_lines = trace_bad_lines(c->trace);
    c->out->reordered = trace_reordered(c->trace);
}

enum mc_status cluster_run(const struct cluster_options *options, struct cluster_result *out)
{
    enum mc_status status = MC_ENOMEM;
    struct cluster *c;

    if (options->eviction.clairvoyant)
        return MC_ENOSUP;
    *out = (struct cluster_result){0};
    if (!(c = calloc(1, sizeof(*c))))
        return MC_ENOMEM;
    c->options = options;
    c->model = options->model;
    c->out = out;
    list_init(&c->queue);
    rng_seed(&c->arrivals, options->seed);
    model_fits(c->model, &c->prefill_fit, &c->decode_fit);
    init_workers(c);
    if (stats_init(&out->ttft) != MC_OK || stats_init(&out->tbt) != MC_OK ||
        kv_create(c->model, &options->eviction, &c->kv) != MC_OK)
        goto undo;
    status = trace_open(&options->trace, &c->trace);
    if (status == MC_OK)
        status = loop(c);
    if (status == MC_OK)
        sum_up(c);
undo:
    fini(c);
    if (status != MC_OK)
        cluster_result_fini(out);
    return status;
}

void cluster_result_fini(struct cluster_result *result)
{
    stats_fini(&result->ttft);
    stats_fini(&result->tbt);
}
