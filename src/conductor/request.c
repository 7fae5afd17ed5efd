/* request.c - the life of one request: its states, and what each event does to it.
 *
 * Events come from five sides: workers (answers, tokens, silence, death), the Store, the client (leaves, drains), timers, and
 * the queue. Each handler looks at the state, does its part and calls request_move() at most once; after a call that may end the
 * request (request_fail, complete, request_queue) nothing of it is touched.
 *
 * Exactly once. Tokens are counted by us: `answer_count` of them were taken, and a worker that continues an answer is told that number, so
 * its first token has that index. One with a lower index is a repetition (of a worker we left) and is dropped; one with a higher index
 * would be a hole and makes us leave that worker. */
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

#define TOKENISE_MS 700       /* answered at once whatever the load is; then somebody else is asked */
#define STOPPING_MS 300       /* for the worker's account, when the answer is complete already */
#define FLUSH_MS    60000     /* a client that takes nothing for so long has gone */
#define PENDING_MAX (4 << 20) /* bytes of text that wait for a slow client; then it is cut */
#define STALL_MS    60000     /* without any event of a run: that worker is given up */

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

static void on_timer(struct loop *loop, struct loop_timer *timer);
static void complete(struct request *request);
static void answer(struct request *request);

const char *request_state_str(enum request_state state)
{
    return (unsigned)state < REQ_STATES ? states[state].name : "unknown";
}

static uint64_t now_of(const struct request *request)
{
    return loop_now_ns(request->conductor->loop);
}

static void set_timer(struct request *request, uint64_t ms)
{
    uint64_t when = deadline_min(deadline_after_ms(now_of(request), ms), request->deadline_ns);

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
        set_timer(request, limit);
    else
        loop_timer_cancel(c->loop, &request->timer);
}

/* --- the end --- */

static void release_pins(struct request *request)
{
    if (request->prefill_serial)
        fleet_release(request->conductor->fleet, request->prefill_serial, request->prefill_request);
    request->prefill_serial = 0;
}

/* The HTTP request has been answered or has gone; take everything else apart. */
static void end(struct request *request, const char *outcome)
{
    struct conductor *c = request->conductor;

    metric_add(metric_with(c->count.requests, outcome), 1);
    log_debug("request %s ended: %s", request->id, outcome);
    request_move(request, REQ_DONE);
    fleet_drop(&request->call);
    release_pins(request);
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

static void fail_with(struct request *request, int code, const char *err_code, const char *text)
{
    log_set_trace(request->trace);
    http_on_leave(request->http, NULL, NULL);
    if (code >= 500)
        log_warn("request %s failed with %d in state %s: %s", request->id, code, states[request->state].name, text);
    if (request->streaming)
        reply_stream_error(request, error_type(code), err_code, text);
    else
        http_reply_error(request->http, code, error_type(code), NULL, err_code, "%s", text);
    end(request, code == 429 ? "refused" : code >= 500 ? "failed" : "invalid");
}

void request_fail(struct request *request, int code, const char *err_code, const char *format, ...)
{
    char text[WMSG_TEXT_MAX + 128];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fail_with(request, code, err_code, text);
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
    fail_with(request, 429, "overloaded", text);
}

static void on_leave(struct http_req *http, void *arg)
{
    struct request *request = arg;

    log_set_trace(request->trace);
    log_debug("request %s: client left in state %s", request->id, states[request->state].name);
    metric_add(request->conductor->count.cancelled, 1);
    end(request, "cancelled");
}

void request_abandon(struct request *request)
{
    request_fail(request, 503, "shutting_down", "the server is shutting down");
}

/* --- tokenising --- */

static void look_up(struct request *request);

static bool take_tokens(struct request *request, const uint32_t *tokens, uint32_t count)
{
    uint32_t context = request->model->sequence_tokens_max;

    if (count == 0 || count >= context) {
        request_fail(request, 400, "context_length_exceeded",
            "the prompt has %u tokens, this model's context is %u tokens (prompt and answer together)", count, context);
        return false;
    }
    request->answer_max = request->api.max_tokens ? request->api.max_tokens : request->conductor->opts.answer_tokens;
    if (request->answer_max > context - count)
        request->answer_max = context - count;
    request->token_max = count + request->answer_max;
    request->tokens = malloc(request->token_max * sizeof *request->tokens);
    if (!request->tokens) {
        request_fail(request, 503, "out_of_memory", "out of memory");
        return false;
    }
    memcpy(request->tokens, tokens, count * sizeof *tokens);
    request->prompt_count = count;
    return true;
}

static void on_tokens(struct fleet_call *call, struct fleet_worker *worker, const struct frame *frame)
{
    struct request *request = container_of(call, struct request, call);
    struct wmsg_tokens tokens;
    struct wmsg_text text = {""};
    const char *bad = "";
    enum mc_status status = frame->status;

    log_set_trace(request->trace);
    if (status == MC_OK)
        status = wmsg_tokens_decode(frame->body, &tokens, &bad);
    else
        (void)wmsg_text_decode(frame->body, &text, &bad); /* without a text the status has to do */
    if (status == MC_EINVAL || status == MC_ENOSUP || status == MC_ETOOBIG) {
        request_fail(request, 400, "invalid_prompt", "%s", *text.text ? text.text : mc_status_str(status));
        return;
    }
    if (status != MC_OK) { /* that worker cannot: ask another one */
        log_warn("request %s: tokenising failed: %s %s", request->id, mc_status_str(status), bad);
        request_tokenise(request);
        return;
    }
    if (take_tokens(request, tokens.tokens, tokens.count))
        look_up(request);
    wmsg_tokens_fini(&tokens);
}

static void on_tokenise_lost(struct fleet_call *call, enum mc_status status)
{
    request_tokenise(container_of(call, struct request, call));
}

static void on_tokenise_silent(struct fleet_call *call)
{
    fleet_drop(call);
    request_tokenise(container_of(call, struct request, call));
}

static const struct fleet_call_ops tokenise_ops = {
    .reply = on_tokens,
    .lost = on_tokenise_lost,
    .silent = on_tokenise_silent,
};

void request_tokenise(struct request *request)
{
    struct wmsg_tokenize msg = {
        .messages = request->api.messages, .message_count = request->api.message_count, .text = request->api.text};
    struct fleet_worker *worker;

    fleet_drop(&request->call);
    while ((worker = fleet_any(request->conductor->fleet, request->model, &request->tried)) != NULL) {
        fleet_tried_add(&request->tried, worker->serial);
        request->call.ops = &tokenise_ops;
        if (fleet_tokenize(worker, &request->call, &msg, request->trace) == MC_OK) {
            request_move(request, REQ_TOKENISING);
            return;
        }
        if (request->tried.count == FLEET_TRIES_MAX)
            break;
    }
    request_fail(request, 503, "no_worker", "no worker for model '%s' answers", request->model->name);
}

/* --- looking for the prefix --- */

static void on_prefix(void *arg, const struct prefix_answer *answer)
{
    struct request *request = arg;
    struct conductor *c = request->conductor;

    log_set_trace(request->trace);
    request->prefix = NULL;
    request->prefix_ns = now_of(request);
    request->store_up = answer->status == MC_OK;
    c->prefix_failed_ns = answer->status == MC_OK ? 0 : now_of(request);
    request->prefix_blocks = answer->blocks;
    for (uint32_t i = 0; i < answer->node_count; i++) {
        uint16_t node = fleet_node_index(c->fleet, answer->nodes[i].node);

        if (node != MC_SCHED_NONE)
            request->node_blocks[node] = answer->nodes[i].blocks;
    }
    request_queue(request);
}

/* Ids of all full blocks of the prompt. NULL: there are none, or no memory. */
static struct mc_block_id *block_ids(const struct request *request, uint32_t *count)
{
    const struct fleet_model *model = request->model;
    struct mc_block_chain chain;
    struct mc_block_id *ids;
    uint32_t max = request->prompt_count / model->block_tokens;
    const char *salt = request->api.salt;

    ids = max ? malloc(max * sizeof *ids) : NULL;
    if (!ids || mc_block_chain_init(
                    &chain, &model->fingerprint, model->block_tokens, *salt ? salt : NULL, strlen(salt)) != MC_OK) {
        free(ids);
        return NULL;
    }
    *count = (uint32_t)mc_block_chain_extend(&chain, request->tokens, request->prompt_count, ids, max);
    return ids;
}

/* A Store that has just failed to answer is not asked by every request: it would cost each of them prefix_ms. */
static bool store_rests(const struct conductor *c)
{
    return c->prefix_failed_ns && loop_now_ns(c->loop) - c->prefix_failed_ns < NS_PER_S;
}

static void look_up(struct request *request)
{
    struct conductor *c = request->conductor;
    struct mc_block_id *ids;
    uint32_t count = 0;
    enum mc_status status = MC_ENOENT;

    request->tried.count = 0; /* those were asked for tokens */
    request->store_up = c->store && !store_rests(c);
    ids = request->store_up && !request->cache_off ? block_ids(request, &count) : NULL;
    if (ids)
        status = prefix_ask(c->store, c->loop, ids, count, c->opts.prefix_ms, on_prefix, request, &request->prefix);
    free(ids);
    if (status == MC_OK)
        request_move(request, REQ_LOOKUP);
    else
        request_queue(request);
}

/* --- a run --- */

static void note_token_time(struct request *request)
{
    struct conductor *c = request->conductor;
    uint64_t now = now_of(request), started = request->started_ns;

    if (!request->first_ns) {
        double ttft_ms = (double)(now - started) / NS_PER_MS;

        request->first_ns = now;
        metric_observe_ns(c->count.ttft, now - started);
        metric_observe(c->count.ttft_predicted, request->predicted_ms / 1e3);
        if (request->predicted_ms > 0)
            metric_observe(c->count.ttft_ratio, ttft_ms / request->predicted_ms);
        explain_actual(&c->explains, request->explain, ttft_ms);
    } else {
        request->gaps_us[request->gap_count++ % REQUEST_GAPS_MAX] = (uint32_t)((now - request->last_ns) / NS_PER_US);
        metric_observe_ns(c->count.tbt, now - request->last_ns);
    }
    request->last_ns = now;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

double request_tbt_p50_ms(const struct request *request)
{
    uint32_t count = request->gap_count < REQUEST_GAPS_MAX ? request->gap_count : REQUEST_GAPS_MAX;
    uint32_t sorted[REQUEST_GAPS_MAX];

    if (count == 0)
        return 0;
    memcpy(sorted, request->gaps_us, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, by_value);
    return sorted[count / 2] / 1e3;
}

/* Leave this worker and go on elsewhere with what we have. */
static void go_elsewhere(struct request *request, const char *why)
{
    metric_add(request->conductor->count.moved, 1);
    log_warn("request %s leaves %s after %u tokens: %s", request->id,
        request->state == REQ_PREFILL ? request->prefill_name : request->decode_name, request->answer_count, why);
    fleet_drop(&request->call);
    fleet_tried_add(&request->tried, request->worker_serial);
    if (++request->moves > FLEET_TRIES_MAX)
        request_fail(request, 503, "workers_failed", "%u workers failed, the last one: %s", request->moves, why);
    else
        request_queue(request);
}

static void cut(struct request *request, const char *why)
{
    log_info("request %s: client %s is cut: %s", request->id, http_client(request->http), why);
    http_on_leave(request->http, NULL, NULL);
    http_stream_abort(request->http);
    end(request, "cancelled");
}

/* The client has caught up: give it what was gathered meanwhile. */
static void on_drain(struct http_req *http, void *arg)
{
    struct request *request = arg;

    log_set_trace(request->trace);
    request->holding = false;
    (void)reply_text(request);
    if (request->state != REQ_FLUSHING)
        return;
    if (request->pending.len == 0)
        answer(request);
    else
        request_move(request, REQ_FLUSHING);
}

/* Send what may be sent. False: the request is gone. A client that left in this moment is told of by on_leave. */
static bool send_text(struct request *request)
{
    if (!request->api.stream)
        return true;
    if (!request->streaming) {
        if (reply_stream_begin(request) != MC_OK)
            return true;
        http_on_drain(request->http, on_drain, request);
    }
    (void)reply_text(request);
    if (buf_status(&request->pending) == MC_OK)
        return true;
    cut(request, "it reads too slowly");
    return false;
}

static void on_token(struct request *request, const struct wmsg_token *token)
{
    if (request->state == REQ_STOPPING || token->index < request->answer_count || token->end)
        return;
    if (token->index > request->answer_count || request->answer_count >= request->answer_max) {
        go_elsewhere(request, "token out of order");
        return;
    }
    request->tokens[request->prompt_count + request->answer_count++] = token->token;
    note_token_time(request);
    if (mc_text_push(request->text, (const char *)token->piece, token->piece_size) != MC_OK) {
        request_fail(request, 503, "out_of_memory", "out of memory");
        return;
    }
    if (!send_text(request) || mc_text_stopped(request->text) < 0)
        return;
    request->finish_reason = "stop";
    fleet_stop(&request->call);
    request_move(request, REQ_STOPPING);
}

/* The account of one worker; a split request has two. What the cache gave counts where the prompt was computed. */
static void add_account(struct request *request, const struct wmsg_finish *finish)
{
    struct request_account *account = &request->account;
    bool first = request->state == REQ_PREFILL || request->decision.route != MC_ROUTE_SPLIT;

    if (first && request->moves == 0) {
        account->reused_tokens = finish->reused_tokens;
        account->computed_tokens = finish->computed_tokens;
        account->load_us = finish->load_us;
        account->prefill_us = finish->prefill_us;
        memcpy(account->miss, finish->miss, sizeof account->miss);
    }
    account->queue_us += finish->queue_us;
    account->replayed_tokens += finish->replayed_tokens;
    if (request->state != REQ_PREFILL)
        account->first_us = finish->first_us;
}

static void on_finish(struct request *request, struct fleet_worker *worker, const struct frame *frame)
{
    struct wmsg_finish finish;
    const char *bad = "";
    enum mc_status status = wmsg_finish_decode(frame->body, &finish, &bad);

    if (status != MC_OK || finish.reason == WMSG_ERROR ||
        (finish.reason == WMSG_CANCELLED && request->state != REQ_STOPPING)) {
        const char *why = status != MC_OK ? "malformed answer"
                          : *finish.text  ? finish.text
                                          : mc_status_str(frame->status);

        if (request->state == REQ_STOPPING)
            complete(request);
        else if (frame->status == MC_EINVAL || frame->status == MC_ETOOBIG)
            request_fail(request, 400, "invalid_request", "%s", why);
        else
            go_elsewhere(request, why);
        return;
    }
    add_account(request, &finish);
    fleet_learn(worker, &finish);
    if (finish.reason == WMSG_PREFILLED && request->answer_count < request->answer_max) {
        request_queue(request); /* to the decode worker */
        return;
    }
    if (!request->finish_reason)
        request->finish_reason = finish.reason == WMSG_END ? "stop" : "length";
    complete(request);
}

static void on_run_reply(struct fleet_call *call, struct fleet_worker *worker, const struct frame *frame)
{
    struct request *request = container_of(call, struct request, call);
    struct wmsg_event event;
    const char *bad = "";

    log_set_trace(request->trace);
    if (!(frame->flags & FRAME_MORE)) {
        on_finish(request, worker, frame);
        return;
    }
    if (request->state != REQ_STOPPING)
        set_timer(request, STALL_MS);
    if (wmsg_event_decode(frame->body, &event, &bad) != MC_OK) {
        go_elsewhere(request, "malformed event");
        return;
    }
    if (event.kind == WMSG_TOKEN) {
        on_token(request, &event.token);
        return;
    }
    call->computed_tokens = event.progress.computed_tokens;
    if (event.kind == WMSG_LOADED && request->state != REQ_PREFILL)
        release_pins(request);
}

static void on_run_lost(struct fleet_call *call, enum mc_status status)
{
    struct request *request = container_of(call, struct request, call);

    log_set_trace(request->trace);
    if (request->state == REQ_STOPPING)
        complete(request);
    else
        go_elsewhere(request, "its connection closed");
}

/* Go elsewhere only if there is an elsewhere; a stopped worker may come back. */
static void on_run_silent(struct fleet_call *call)
{
    struct request *request = container_of(call, struct request, call);

    log_set_trace(request->trace);
    if (request->state == REQ_STOPPING)
        complete(request);
    else if (fleet_any(request->conductor->fleet, request->model, &request->tried))
        go_elsewhere(request, "silent");
    else
        set_timer(request, REQUEST_SILENT_MS);
}

const struct fleet_call_ops request_run_ops = {
    .reply = on_run_reply,
    .lost = on_run_lost,
    .silent = on_run_silent,
};

/* --- answered --- */

static void count_answer(const struct request *request)
{
    struct conductor *c = request->conductor;
    struct history_row row = {
        .at_ms = wall_ms(),
        .ttft_ms = request->first_ns ? (double)(request->first_ns - request->started_ns) / NS_PER_MS : 0,
        .ttft_predicted_ms = request->predicted_ms,
        .tbt_ms = request_tbt_p50_ms(request),
        .prompt_tokens = request->prompt_count,
        .reused_tokens = request->account.reused_tokens,
        .answer_tokens = request->answer_count,
        .route = request->decision.route,
    };

    history_add(&c->history, &row);
    metric_add(metric_with(c->count.routes, mc_sched_route_str(request->decision.route)), 1);
    metric_add(c->count.prompt_tokens, request->prompt_count);
    metric_add(c->count.reused_tokens, request->account.reused_tokens);
    metric_add(c->count.answer_tokens, request->answer_count);
    if (request->placed_ns)
        metric_observe_ns(c->count.queue, request->placed_ns - request->started_ns);
}

static void answer(struct request *request)
{
    http_on_leave(request->http, NULL, NULL);
    if (request->api.stream)
        reply_stream_finish(request);
    else
        reply_body(request);
    end(request, "answered");
}

/* Nothing more will come from workers. */
static void complete(struct request *request)
{
    fleet_drop(&request->call);
    mc_text_finish(request->text);
    count_answer(request);
    if (!send_text(request))
        return;
    if (request->pending.len)
        request_move(request, REQ_FLUSHING);
    else
        answer(request);
}

/* --- time --- */

/* Another worker that is as silent would only cost the client the same time once more. */
static void give_up_worker(struct request *request)
{
    static const struct fleet_tried none;

    if (fleet_any(request->conductor->fleet, request->model, &none))
        go_elsewhere(request, "no sign of the run for too long");
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
    case REQ_TOKENISING: request_tokenise(request); break;
    case REQ_LOOKUP: /* the Store is dead or slow: compute */
        prefix_forget(request->prefix);
        request->prefix = NULL;
        request->store_up = false;
        request->conductor->prefix_failed_ns = now;
        request_queue(request);
        break;
    case REQ_QUEUED: (void)request_place(request); break;
    case REQ_STOPPING: complete(request); break;
    case REQ_FLUSHING: cut(request, "it takes nothing any more"); break;
    default: give_up_worker(request);
    }
}

/* --- the beginning --- */

static bool tokens_known(struct request *request)
{
    for (uint32_t i = 0; i < request->api.token_count; i++) {
        if (request->api.tokens[i] >= request->model->vocab_size) {
            request_fail(request, 400, "invalid_prompt", "prompt: token %u is not in the vocabulary of %u",
                request->api.tokens[i], request->model->vocab_size);
            return false;
        }
    }
    return take_tokens(request, request->api.tokens, request->api.token_count);
}

static void start(struct request *request)
{
    struct conductor *c = request->conductor;

    if (c->draining)
        request_fail(request, 503, "shutting_down", "the server is shutting down");
    else if (c->request_count > c->opts.requests_max)
        request_refuse(request, 1000, "too many requests: %u are open", c->opts.requests_max);
    else if (!request->api.tokens)
        request_queue(request); /* passes through to request_tokenise(), or waits for a worker to come */
    else if (tokens_known(request))
        look_up(request);
}

void request_begin(struct conductor *conductor, struct http_req *http, struct api_request *api)
{
    struct request *request = calloc(1, sizeof *request);
    const char *cache = http_header(http, "X-Mooncake-Cache");

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
    request->cache_off = cache && strcmp(cache, "off") == 0;
    request->model = fleet_model_find(conductor->fleet, api->model);
    request->created_s = wall_ms() / 1000;
    request->started_ns = http_started_ns(http);
    request->deadline_ns = deadline_after_ms(request->started_ns, conductor->opts.request_ms);
    memcpy(request->trace, http_trace(http), TRACE_SIZE);
    snprintf(request->id, sizeof request->id, "%s", http_request_id(http));
    loop_timer_init(&request->timer, on_timer);
    buf_init(&request->pending, PENDING_MAX);
    list_init(&request->queued);
    list_push_back(&conductor->requests, &request->link);
    conductor->request_count++;
    http_on_leave(http, on_leave, request);
    start(request);
}
