/* request.c - the life of one request: its states, how it begins, how long it may take, and how it ends.
 *
 * Events come from five sides: workers (answers, tokens, silence, death: prompt.c, answer.c), the Store (prompt.c), the queue
 * (place.c), the client who leaves, and timers. Each handler looks at the state, does its part and calls request_move() at most
 * once; after a call that may end the request (request_fail, request_complete, request_queue) nothing of it is touched. */
#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "conductor/http/reply.h"
#include "conductor/request_impl.h"

#define TOKENISE_MS 700   /* answered at once whatever the load is; then somebody else is asked, if there is one */
#define STOPPING_MS 300   /* for the worker's account, when the answer is complete already */
#define FLUSH_MS    60000 /* a client that takes nothing for so long has gone */
#define STALL_MS    60000 /* without any event of a run: that worker is given up */

#define TO(state) (1u << REQ_##state)

static const struct {
    const char *name;
    unsigned next;
} states[REQ_STATES] = {
    [REQ_NEW] = {"new", TO(TOKENISING) | TO(LOOKUP) | TO(QUEUED) | TO(DONE)},
    [REQ_TOKENISING] = {"tokenising", TO(TOKENISING) | TO(LOOKUP) | TO(QUEUED) | TO(DONE)},
    [REQ_LOOKUP] = {"lookup", TO(QUEUED) | TO(DONE)},
    [REQ_QUEUED] = {"queued", TO(TOKENISING) | TO(PREFILL) | TO(DECODE) | TO(DONE)},
    [REQ_PREFILL] = {"prefill", TO(QUEUED) | TO(STOPPING) | TO(FLUSHING) | TO(DONE)},
    [REQ_DECODE] = {"decode", TO(QUEUED) | TO(STOPPING) | TO(FLUSHING) | TO(DONE)},
    [REQ_STOPPING] = {"stopping", TO(FLUSHING) | TO(DONE)},
    [REQ_FLUSHING] = {"flushing", TO(FLUSHING) | TO(DONE)},
    [REQ_DONE] = {"done", 0},
};

const char *request_state_str(enum request_state state)
{
    return (unsigned)state < REQ_STATES ? states[state].name : "unknown";
}

uint64_t request_now(const struct request *request)
{
    return loop_now_ns(request->conductor->loop);
}

void request_wake_in(struct request *request, uint64_t ms)
{
    uint64_t when = deadline_min(deadline_after_ms(request_now(request), ms), request->deadline_ns);

    (void)loop_timer_set(request->conductor->loop, &request->timer, when); /* reserved in request_begin */
}

/* How long a state may last without an event. QUEUED sets its own (place.c). */
static uint64_t state_limit_ms(const struct request *request, enum request_state state)
{
    switch (state) {
    case REQ_TOKENISING: return TOKENISE_MS;
    case REQ_LOOKUP: return request->conductor->opts.prefix_ms;
    case REQ_PREFILL:
    case REQ_DECODE: return STALL_MS;
    case REQ_STOPPING: return STOPPING_MS;
    case REQ_FLUSHING: return FLUSH_MS;
    default: return 0;
    }
}

void request_stays(struct request *request)
{
    request_wake_in(request, state_limit_ms(request, request->state));
}

void request_move(struct request *request, enum request_state next)
{
    struct conductor *c = request->conductor;
    uint64_t limit = state_limit_ms(request, next);

    assert(states[request->state].next & 1u << next);
    log_debug("request %s %s -> %s", request->id, states[request->state].name, states[next].name);
    if (request->state == REQ_QUEUED && next != REQ_QUEUED) {
        list_del(&request->queued);
        c->queue_count--;
    }
    if (next == REQ_QUEUED) {
        if (request->answer_count) /* its client is reading already: before those who still wait */
            list_push_front(&c->queue, &request->queued);
        else
            list_push_back(&c->queue, &request->queued);
        c->queue_count++;
    }
    request->state = next;
    if (limit)
        request_wake_in(request, limit);
    else
        loop_timer_cancel(c->loop, &request->timer);
}

/* --- the end --- */

void request_release_pins(struct request *request)
{
    if (request->prefill_serial)
        fleet_release(request->conductor->fleet, request->prefill_serial, request->prefill_request);
    request->prefill_serial = 0;
}

void request_end(struct request *request, const char *outcome)
{
    struct conductor *c = request->conductor;

    metric_add(metric_with(c->count.requests, outcome), 1);
    log_debug("request %s ended: %s", request->id, outcome);
    record_end(c->record, request->record);
    request_move(request, REQ_DONE);
    fleet_drop(&request->call);
    request_release_pins(request);
    prefix_forget(request->prefix);
    list_del(&request->link);
    c->request_count--;
    mc_text_destroy(request->text);
    buf_fini(&request->pending);
    api_request_fini(&request->api);
    free(request->tokens);
    free(request);
    conductor_note_idle(c);
}

static const char *error_type(int code)
{
    return code == 429 ? "rate_limit_error" : code >= 500 ? "server_error" : "invalid_request_error";
}

static void fail_with(struct request *request, int code, const char *param, const char *err_code, const char *text)
{
    log_set_trace(request->trace);
    http_on_leave(request->http, NULL, NULL);
    if (code >= 500)
        log_warn("request %s failed with %d in state %s: %s", request->id, code, states[request->state].name, text);
    if (request->streaming)
        reply_stream_error(request, error_type(code), err_code, text);
    else
        http_reply_error(request->http, code, error_type(code), param, err_code, "%s", text);
    request_end(request, code == 429 ? "refused" : code >= 500 ? "failed" : "invalid");
}

void request_fail(struct request *request, int code, const char *err_code, const char *format, ...)
{
    char text[WMSG_TEXT_MAX + 128];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fail_with(request, code, NULL, err_code, text);
}

void request_fail_field(struct request *request, const char *param, const char *err_code, const char *format, ...)
{
    char text[WMSG_TEXT_MAX + 128];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fail_with(request, 400, param, err_code, text);
}

void request_refuse(struct request *request, double retry_after_ms, const char *format, ...)
{
    char text[256], seconds[24];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    snprintf(seconds, sizeof seconds, "%.0f", ceil(fmax(retry_after_ms, 1) / 1000));
    if (!request->streaming)
        http_set_header(request->http, "Retry-After", seconds);
    fail_with(request, 429, NULL, "overloaded", text);
}

static void on_leave(struct http_req *http, void *arg)
{
    struct request *request = arg;

    log_set_trace(request->trace);
    log_debug("request %s: client left in state %s", request->id, states[request->state].name);
    metric_add(request->conductor->count.cancelled, 1);
    request_end(request, "cancelled");
}

void request_abandon(struct request *request)
{
    request_fail(request, 503, "shutting_down", "the server is shutting down");
}

/* --- time --- */

/* Another worker that is as silent would only cost the client the same time once more. */
static void give_up_worker(struct request *request)
{
    static const struct fleet_tried none;

    if (fleet_any(request->conductor->fleet, request->model, &none))
        request_go_elsewhere(request, "no sign of the run for too long");
    else
        request_fail(request, 503, "no_worker", "no worker for model '%s' answers any more", request->model->name);
}

static void on_timer(struct loop *loop, struct loop_timer *timer)
{
    struct request *request = container_of(timer, struct request, timer);
    uint64_t now = loop_now_ns(loop);

    log_set_trace(request->trace);
    if (deadline_passed(request->deadline_ns, now)) {
        request_fail(request, 504, "timeout", "not answered within %u ms", request->conductor->opts.request_ms);
        return;
    }
    switch (request->state) {
    case REQ_TOKENISING: request_tokens_late(request); break;
    case REQ_LOOKUP: request_looked_long_enough(request); break;
    case REQ_QUEUED: conductor_pump(request->conductor); break;
    case REQ_STOPPING: request_complete(request); break;
    case REQ_FLUSHING: request_cut(request, "it takes nothing any more"); break;
    default: give_up_worker(request);
    }
}

/* --- the beginning --- */

static void start(struct request *request)
{
    struct conductor *c = request->conductor;
    const char *bad = mc_sampling_check(&request->api.sampling, request->model->vocab_size);

    if (bad)
        request_fail_field(request, bad, NULL, "field '%s' is out of range for this model", bad);
    else if (c->draining)
        request_fail(request, 503, "shutting_down", "the server is shutting down");
    else if (c->request_count > c->opts.requests_max)
        request_refuse(request, 1000, "too many requests: %u are open", c->opts.requests_max);
    else if (!request->api.tokens)
        request_queue(request); /* passes through to request_tokenise(), or waits for a worker to come */
    else
        request_take_tokens(request);
}

void request_begin(struct conductor *conductor, struct http_req *http, struct api_request *api)
{
    struct request *request = calloc(1, sizeof *request);

    if (!request || loop_timer_reserve(conductor->loop, 1) != MC_OK ||
        mc_text_create(api->stops, api->stop_count, &request->text) != MC_OK) {
        free(request);
        api_request_fini(api);
        http_reply_error(http, 503, NULL, NULL, "out_of_memory", "out of memory");
        return;
    }
    request->conductor = conductor;
    request->http = http;
    request->api = *api;
    if (request->api.sampling.bias_count)
        request->api.sampling.bias = request->api.bias;
    if (!api->has_seed)
        request->api.sampling.seed = rng_u64(&conductor->rng);
    request->model = fleet_model_find(conductor->fleet, api->model);
    request->created_s = wall_ms() / 1000;
    request->started_ns = http_started_ns(http);
    request->deadline_ns = deadline_after_ms(request->started_ns, conductor->opts.request_ms);
    memcpy(request->trace, http_trace(http), TRACE_SIZE);
    snprintf(request->id, sizeof request->id, "%s", http_request_id(http));
    loop_timer_init(&request->timer, on_timer);
    buf_init(&request->pending, REQUEST_PENDING_MAX);
    list_init(&request->queued);
    list_push_back(&conductor->requests, &request->link);
    conductor->request_count++;
    http_on_leave(http, on_leave, request);
    if (conductor->record)
        request->record = record_begin(conductor->record, request);
    start(request);
}
