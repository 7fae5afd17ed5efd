/* answer.c - from a worker's frames to the client's text: tokens as they come, the account at the end, and leaving a worker that
 * fails.
 *
 * Exactly once. Tokens are counted by us: `answer_count` of them were taken, and a worker that continues an answer is told that
 * number, so its first token has that index. One with a lower index is a repetition (of a worker we left) and is dropped; one with
 * a higher index would be a hole and makes us leave that worker.
 *
 * A client that reads slower than we write has at most REQUEST_PENDING_MAX of text here, and stream_buffer_max below HTTP; then it is
 * cut. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "conductor/http/reply.h"
#include "conductor/request_impl.h"

/* --- a run --- */

static void note_token_time(struct request *request)
{
    struct conductor *c = request->conductor;
    uint64_t now = request_now(request), started = request->started_ns;

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

void request_go_elsewhere(struct request *request, const char *why)
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

void request_cut(struct request *request, const char *why)
{
    log_info("request %s: client %s is cut: %s", request->id, http_client(request->http), why);
    http_on_leave(request->http, NULL, NULL);
    http_stream_abort(request->http);
    request_end(request, "cancelled");
}

static void answer(struct request *request);

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
    request_cut(request, "it reads too slowly");
    return false;
}

static void on_token(struct request *request, const struct wmsg_token *token)
{
    if (request->state == REQ_STOPPING || token->index < request->answer_count || token->end)
        return;
    if (token->index > request->answer_count || request->answer_count >= request->answer_max) {
        request_go_elsewhere(request, "token out of order");
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
            request_complete(request);
        else if (frame->status == MC_EINVAL || frame->status == MC_ETOOBIG)
            request_fail(request, 400, "invalid_request", "%s", why);
        else
            request_go_elsewhere(request, why);
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
    request_complete(request);
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
        request_stays(request);
    if (wmsg_event_decode(frame->body, &event, &bad) != MC_OK) {
        request_go_elsewhere(request, "malformed event");
        return;
    }
    if (event.kind == WMSG_TOKEN) {
        on_token(request, &event.token);
        return;
    }
    call->computed_tokens = event.progress.computed_tokens;
    call->told_ns = request_now(request);
    if (event.kind == WMSG_LOADED) {
        call->predicted_ms -= call->load_ms;
        call->load_ms = 0;
    }
    if (event.kind == WMSG_LOADED && request->state != REQ_PREFILL)
        request_release_pins(request);
}

static void on_run_lost(struct fleet_call *call, enum mc_status status)
{
    struct request *request = container_of(call, struct request, call);

    log_set_trace(request->trace);
    if (request->state == REQ_STOPPING)
        request_complete(request);
    else
        request_go_elsewhere(request, "its connection closed");
}

/* Go elsewhere only if there is an elsewhere; a stopped worker may come back. */
static void on_run_silent(struct fleet_call *call)
{
    struct request *request = container_of(call, struct request, call);

    log_set_trace(request->trace);
    if (request->state == REQ_STOPPING)
        request_complete(request);
    else if (fleet_any(request->conductor->fleet, request->model, &request->tried))
        request_go_elsewhere(request, "silent");
    else
        request_wake_in(request, REQUEST_SILENT_MS);
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
    request_end(request, "answered");
}

void request_complete(struct request *request)
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
