/* place.c - from the queue to a worker: what the scheduler is asked, and what is done about its answer. Whose turn it is: queue.c.
 *
 * "Nobody is there" is waited out for NOBODY_MS, since a worker that restarts or a queue behind a death is the usual cause, and
 * 503 has to come within a second. */
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "conductor/request_impl.h"

#define NOBODY_MS    800
#define RETRY_MS     1000
#define HOLD_PIN_MS  15000 /* blocks between prefill and decode; who loads later finds what is left */
#define OUTPUT_GUESS 256   /* tokens of an answer to keep room for, when it may be longer */

static struct mc_sched_request sched_request(const struct request *request, uint64_t now)
{
    const struct conductor *c = request->conductor;
    const struct fleet_model *model = request->model;
    uint32_t tokens = request->prompt_count + request->answer_count;
    uint32_t left = request->answer_max - request->answer_count;
    bool begun = request->answer_count > 0;

    return (struct mc_sched_request){
        .tokens = tokens,
        .output_tokens = left < OUTPUT_GUESS ? left : OUTPUT_GUESS,
        .block_tokens = model->block_tokens,
        .reuse_max =
            request->api.cache_off && !begun ? 0 : mc_reuse_tokens_max(request->prompt_count, model->block_tokens),
        .bytes_per_token = model->bytes_per_token,
        .node_blocks = request->node_blocks,
        .prefix_blocks = request->prefix_blocks,
        .prefix_age_ms = request->prefix_ns ? (double)(now - request->prefix_ns) / NS_PER_MS : 0,
        .slo_ttft_ms = begun ? 0 : c->opts.slo_ttft_ms, /* too late to refuse what the client is reading */
        .slo_tbt_ms = begun ? 0 : c->opts.slo_tbt_ms,
        .waited_ms = (double)(now - request->started_ns) / NS_PER_MS,
        .draw = hash_mix(request->started_ns),
        .begun = begun,
    };
}

/* --- sending it there --- */

static void set_costs(struct request *request, const struct mc_sched_decision *d, uint8_t kind)
{
    struct fleet_call *call = &request->call;
    uint32_t known = request->prompt_count + request->answer_count;

    call->prefills = kind != WMSG_DECODE || request->answer_count == 0;
    call->decodes = kind != WMSG_PREFILL;
    call->compute_tokens = call->prefills ? request->prompt_count - d->load_tokens : 0;
    call->predicted_ms = d->load_ms + d->prefill_ms;
    call->load_ms = request->answer_count ? 0 : d->load_ms;
    call->source = call->load_ms > 0 ? d->source : MC_SCHED_NONE;
    call->told_ns = request_now(request);
    call->kv_tokens = kind == WMSG_PREFILL ? 0 : known + (request->answer_max - request->answer_count);
}

/* A worker outside its role is asked to generate: that, any role does. */
static uint8_t run_kind(const struct request *request, const struct mc_sched_decision *d, const struct fleet_view *view)
{
    bool decodes = view->rows[d->decode].role & MC_WORKER_DECODE;

    if (d->route == MC_ROUTE_SPLIT && !request->answer_count)
        return WMSG_PREFILL;
    return decodes && (request->answer_count || d->route == MC_ROUTE_DIRECT) ? WMSG_DECODE : WMSG_GENERATE;
}

static enum mc_status send_run(
    struct request *request, struct fleet_worker *worker, const struct mc_sched_decision *d, uint8_t kind)
{
    struct wmsg_run run = {
        .kind = kind,
        .tokens = request->tokens,
        .token_count = request->prompt_count + request->answer_count,
        .answer_count = request->answer_count,
        .max_tokens = request->answer_max,
        .cache_read = !request->api.cache_off || request->answer_count,
        .cache_write = true,
        .ignore_end = request->api.ignore_end,
        .load_tokens = request->answer_count ? WMSG_LOAD_AUTO : d->load_tokens,
        .copy_blocks = request->answer_count ? 0 : d->copy_blocks,
        .hold_ms = kind == WMSG_PREFILL ? HOLD_PIN_MS : 0,
        .sampling = request->api.sampling,
        .salt = (const uint8_t *)request->api.salt,
        .salt_size = (uint16_t)strlen(request->api.salt),
    };

    set_costs(request, d, kind);
    request->call.ops = &request_run_ops;
    enum mc_status status = fleet_run(worker, &request->call, &run, request->trace, request->deadline_ns);
    if (status == MC_OK && run.copy_blocks) {
        uint64_t bytes = (uint64_t)run.copy_blocks * request->model->block_tokens * request->model->bytes_per_token;

        metric_add(request->conductor->count.copied_bytes, bytes);
        fleet_note_copy(worker, bytes);
    }
    return status;
}

static void note_placed(
    struct request *request, struct fleet_worker *worker, const struct mc_sched_decision *d, uint8_t kind, uint64_t now)
{
    char *name = kind == WMSG_PREFILL ? request->prefill_name : request->decode_name;

    memcpy(name, worker->who.name, sizeof request->decode_name);
    if (kind == WMSG_GENERATE)
        memcpy(request->prefill_name, worker->who.name, sizeof request->prefill_name);
    if (kind == WMSG_PREFILL) {
        request->prefill_serial = worker->serial;
        request->prefill_request = request->call.request;
    }
    request->worker_serial = worker->serial;
    if (request->placed_ns)
        return;
    request->placed_ns = now;
    request->decision = *d;
    request->predicted_ms = (double)(now - request->started_ns) / NS_PER_MS + d->ttft_ms;
}

static bool run_there(
    struct request *request, const struct fleet_view *view, const struct mc_sched_decision *d, uint64_t now)
{
    uint8_t kind = run_kind(request, d, view);
    struct fleet_worker *worker = view->workers[kind == WMSG_PREFILL ? d->prefill : d->decode];
    enum mc_status status = send_run(request, worker, d, kind);

    if (status != MC_OK) {
        log_warn("request %s: worker %s takes no run: %s", request->id, worker->who.name, mc_status_str(status));
        fleet_tried_add(&request->tried, worker->serial);
        return false;
    }
    note_placed(request, worker, d, kind, now);
    request_move(request, kind == WMSG_PREFILL ? REQ_PREFILL : REQ_DECODE);
    if (worker->state == MC_WORKER_SUSPECT)
        (void)loop_timer_set(request->conductor->loop, &request->timer, now + REQUEST_SILENT_MS * NS_PER_MS);
    return true;
}

/* --- answers of the scheduler --- */

static enum mc_sched_outcome decide(
    struct request *request, struct fleet_view *view, struct mc_sched_decision *decision, uint64_t now)
{
    struct conductor *c = request->conductor;
    struct mc_sched_request ask = sched_request(request, now);
    struct mc_sched_candidate candidates[2 * MC_SCHED_WORKERS_MAX];
    struct mc_sched_explain explain = {.candidates = candidates, .candidates_max = 2 * MC_SCHED_WORKERS_MAX};

    fleet_view(c->fleet, request->model, &request->tried, request->store_up, now, view);
    c->policy->decide(&view->snapshot, &ask, decision, &explain);
    if (c->record)
        record_decision(c->record, c->policy->name, &view->snapshot, &ask, decision);
    if (decision->outcome != MC_SCHED_HOLD || !request->queued_ns) /* one that holds is asked again and again */
        request->explain = explain_add(&c->explains, request->id, request->model, c->policy->name, &ask, decision, view,
            candidates, explain.candidate_count);
    return decision->outcome;
}

/* Wait for somebody to come; true while that may still be. */
static bool wait_for_anybody(struct request *request, uint64_t now)
{
    if (!request->nobody_ns)
        request->nobody_ns = now;
    if (now - request->nobody_ns >= NOBODY_MS * NS_PER_MS) {
        request_fail(request, 503, "no_worker", "no worker for model '%s' is there", request->model->name);
        return false;
    }
    (void)loop_timer_set(request->conductor->loop, &request->timer, request->nobody_ns + NOBODY_MS * NS_PER_MS);
    return true;
}

double request_work_ms(const struct request *request)
{
    struct mc_sched_request ask = sched_request(request, request_now(request));
    struct fleet_view view;

    fleet_view(
        request->conductor->fleet, request->model, &request->tried, request->store_up, request_now(request), &view);
    return mc_sched_work_ms(&view.snapshot, &ask);
}

void request_wait(struct request *request, double retry_after_ms)
{
    const struct conductor_opts *opts = &request->conductor->opts;
    uint64_t until, now = request_now(request);

    if (request->queued_ns == 0) {
        request->queued_ns = now;
        request->queued_pass = request->conductor->pass;
    }
    request->retry_after_ms = retry_after_ms;
    until = deadline_min(deadline_after_ms(request->queued_ns, opts->queue_ms), request->deadline_ns);
    if (deadline_passed(until, now))
        request_refuse(request, retry_after_ms, "no room within %u ms", opts->queue_ms);
    else
        (void)loop_timer_set(request->conductor->loop, &request->timer, until);
}

/* It waits; for whom, those behind it have to know. */
static enum request_turn hold(
    struct request *request, const struct fleet_view *view, const struct mc_sched_decision *decision)
{
    if (decision->again_ms > 0)
        conductor_pump_in(request->conductor, decision->again_ms);
    if (decision->by_choice)
        fleet_promise(view->workers[decision->prefill], decision->load_ms + decision->prefill_ms);
    request_wait(request, decision->retry_after_ms);
    return decision->by_choice ? TURN_PASSED_ON : TURN_HELD;
}

enum request_turn request_place(struct request *request)
{
    struct conductor *c = request->conductor;
    uint64_t now = loop_now_ns(c->loop);
    struct fleet_view view;
    struct mc_sched_decision decision;

    log_set_trace(request->trace);
    if (!request->tokens) {
        if (fleet_any(c->fleet, request->model, &request->tried))
            request_tokenise(request);
        else
            (void)wait_for_anybody(request, now);
        return TURN_TAKEN;
    }
    for (;;) {
        switch (decide(request, &view, &decision, now)) {
        case MC_SCHED_RUN:
            if (run_there(request, &view, &decision, now)) {
                request->nobody_ns = request->queued_ns = 0;
                return TURN_TAKEN;
            }
            if (request->tried.count < FLEET_TRIES_MAX)
                continue;
            request_fail(request, 503, "no_worker", "no worker for model '%s' takes it", request->model->name);
            return TURN_TAKEN;
        case MC_SCHED_HOLD: return hold(request, &view, &decision);
        case MC_SCHED_REFUSE:
            metric_add(c->count.refused_slo, 1);
            request_refuse(request, decision.retry_after_ms,
                "the latency objective cannot be met now: predicted TTFT %.0f ms, TBT %.1f ms", decision.ttft_ms,
                decision.tbt_ms);
            return TURN_TAKEN;
        default: (void)wait_for_anybody(request, now); return TURN_TAKEN;
        }
    }
}
