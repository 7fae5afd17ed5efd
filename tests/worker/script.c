/* script.c - a Conductor that does what the test says. */
#include "tests/worker/script.h"

#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "net/conn.h"
#include "net/loop.h"

enum { WAIT_MS = 30000, RUNS_MAX = 512 };

struct pending {
    uint64_t request;
    struct answer *answer; /* of a W_RUN, or */
    struct wmsg_tokens *tokens;
    enum mc_status *status;
    bool *done;
};

struct script_worker {
    struct script *script;
    struct conn *conn; /* NULL: gone */
    struct wmsg_register card;
    struct wmsg_status status;
    bool registered, drained;
    struct pending pending[RUNS_MAX];
    unsigned pending_count;
};

struct script {
    struct loop *loop;
    struct listener *listener;
    char address[ADDR_TEXT_MAX];
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    struct script_worker *workers[SCRIPT_WORKERS_MAX * 4];
    unsigned count;
    uint64_t request;
    bool refuse;
};

static void changed(struct script *script)
{
    pthread_cond_broadcast(&script->changed);
}

/* With the lock held: wait for `*flag`-like conditions written as expressions. */
#define WAIT_FOR(script, condition)                                                                                    \
    do {                                                                                                               \
        uint64_t wait_until_ = deadline_after_ms(now_ns(), WAIT_MS);                                                   \
        struct timespec wait_ts_ = {                                                                                   \
            .tv_sec = (time_t)(wait_until_ / NS_PER_S), .tv_nsec = (long)(wait_until_ % NS_PER_S)};                    \
        while (!(condition)) {                                                                                         \
            if (pthread_cond_timedwait(&(script)->changed, &(script)->lock, &wait_ts_) != 0) {                         \
                pthread_mutex_unlock(&(script)->lock);                                                                 \
                fail_msg("waited %d ms for %s", WAIT_MS, #condition);                                                  \
            }                                                                                                          \
        }                                                                                                              \
    } while (0)

/* ---- frames from workers: loop thread ---- */

static void event_take(struct answer *answer, const struct frame *frame)
{
    struct wmsg_event event;
    const char *bad = "?";

    if (wmsg_event_decode(frame->body, &event, &bad) != MC_OK) {
        answer->gap = true;
        return;
    }
    answer->loaded_events += event.kind == WMSG_LOADED;
    answer->progress_events += event.kind == WMSG_PROGRESS;
    if (event.kind != WMSG_TOKEN)
        return;
    if (answer->count == 0 && !answer->ended) {
        answer->first = event.token.index;
        answer->first_us = event.token.time_us;
    }
    answer->gap |= event.token.index != answer->first + answer->count || answer->ended;
    answer->ended = event.token.end;
    if (!event.token.end && answer->count < SCRIPT_TOKENS_MAX) {
        answer->tokens[answer->count] = event.token.token;
        answer->times_ns[answer->count++] = now_ns();
    }
}

static void finish_take(struct answer *answer, const struct frame *frame)
{
    answer->status = frame->status;
    if (wmsg_finish_decode(frame->body, &answer->finish, NULL) != MC_OK)
        answer->gap = true;
    answer->done_ns = now_ns();
    answer->done = true;
}

static void reply_take(struct script_worker *worker, const struct frame *frame)
{
    for (unsigned i = 0; i < worker->pending_count; i++) {
        struct pending *pending = &worker->pending[i];

        if (pending->request != frame->request)
            continue;
        if (pending->answer && (frame->flags & FRAME_MORE)) {
            event_take(pending->answer, frame);
            return;
        }
        if (pending->answer) {
            finish_take(pending->answer, frame);
        } else {
            *pending->status = frame->status;
            if (frame->status == MC_OK)
                *pending->status = wmsg_tokens_decode(frame->body, pending->tokens, NULL);
            *pending->done = true;
        }
        *pending = worker->pending[--worker->pending_count];
        return;
    }
}

static void register_take(struct script_worker *worker, struct conn *conn, const struct frame *frame)
{
    struct script *script = worker->script;
    enum mc_status status = wmsg_register_decode(frame->body, &worker->card, NULL);
    struct buf body;

    buf_init(&body, 1024);
    if (script->refuse) {
        status = MC_EMISMATCH;
        wmsg_text_encode("field engine_version differs", &body);
    }
    conn_reply(conn, frame, status, buf_slice(&body));
    buf_fini(&body);
    worker->registered = status == MC_OK;
}

static void on_frame(struct conn *conn, const struct frame *frame)
{
    struct script_worker *worker = conn_user(conn);

    pthread_mutex_lock(&worker->script->lock);
    if (frame->flags & FRAME_REPLY)
        reply_take(worker, frame);
    else if (frame->type == MSG_W_REGISTER)
        register_take(worker, conn, frame);
    else if (frame->type == MSG_W_STATUS)
        wmsg_status_decode(frame->body, &worker->status, NULL);
    else if (frame->type == MSG_W_DRAIN)
        worker->drained = true;
    changed(worker->script);
    pthread_mutex_unlock(&worker->script->lock);
}

static void on_ready(struct conn *conn)
{
    struct script *script = conn_user(conn);
    struct script_worker *worker = calloc(1, sizeof(*worker));

    pthread_mutex_lock(&script->lock);
    worker->script = script;
    worker->conn = conn;
    conn_set_user(conn, worker);
    script->workers[script->count++] = worker;
    pthread_mutex_unlock(&script->lock);
}

static void on_close(struct conn *conn, enum mc_status status)
{
    struct script_worker *worker = conn_user(conn);

    if ((void *)worker == NULL || !conn_peer(conn))
        return;
    pthread_mutex_lock(&worker->script->lock);
    worker->conn = NULL;
    while (worker->pending_count) {
        struct pending *pending = &worker->pending[--worker->pending_count];

        if (pending->answer)
            pending->answer->lost = true;
        else
            *pending->done = true;
    }
    changed(worker->script);
    pthread_mutex_unlock(&worker->script->lock);
}

static const struct conn_ops script_ops = {.on_ready = on_ready, .on_frame = on_frame, .on_close = on_close};

/* ---- start and stop ---- */

struct script *script_start(void)
{
    struct script *script = calloc(1, sizeof(*script));
    struct hello self = {.role = ROLE_CONDUCTOR, .build = "script"};
    struct listener_opts opts = {
        .self = &self, .ops = &script_ops, .user = script, .expect = {.roles = 1u << ROLE_WORKER}};
    struct addr addr;
    pthread_condattr_t attr;

    pthread_mutex_init(&script->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&script->changed, &attr);
    pthread_condattr_destroy(&attr);
    script->loop = loop_create("script");
    assert_non_null(script->loop);
    assert_int_equal(addr_parse("127.0.0.1:0", 0, &addr, NULL), MC_OK);
    assert_int_equal(conn_listen(script->loop, &addr, &opts, &script->listener), MC_OK);
    addr_format(listener_addr(script->listener), script->address);
    assert_int_equal(loop_thread_start(script->loop), MC_OK);
    return script;
}

static void close_all(struct loop *loop, void *arg)
{
    struct script *script = arg;

    listener_close(script->listener);
    for (unsigned i = 0; i < script->count; i++) {
        if (script->workers[i]->conn)
            conn_abort(script->workers[i]->conn, MC_ECLOSED);
    }
}

void script_stop(struct script *script)
{
    loop_call(script->loop, close_all, script);
    loop_thread_stop(script->loop);
    loop_stop(script->loop);
    loop_run(script->loop); /* one more turn, for the last on_close */
    loop_destroy(script->loop);
    for (unsigned i = 0; i < script->count; i++)
        free(script->workers[i]);
    pthread_cond_destroy(&script->changed);
    pthread_mutex_destroy(&script->lock);
    free(script);
}

const char *script_address(const struct script *script)
{
    return script->address;
}

static unsigned registered(const struct script *script)
{
    unsigned count = 0;

    for (unsigned i = 0; i < script->count; i++)
        count += script->workers[i]->registered && script->workers[i]->conn;
    return count;
}

void script_wait_workers(struct script *script, unsigned count)
{
    pthread_mutex_lock(&script->lock);
    WAIT_FOR(script, registered(script) >= count);
    pthread_mutex_unlock(&script->lock);
}

static int find(const struct script *script, const char *name)
{
    for (unsigned i = script->count; i-- > 0;) {
        if (script->workers[i]->registered && script->workers[i]->conn &&
            strcmp(script->workers[i]->card.name, name) == 0)
            return (int)i;
    }
    return -1;
}

unsigned script_find(struct script *script, const char *name)
{
    int index;

    pthread_mutex_lock(&script->lock);
    WAIT_FOR(script, (index = find(script, name)) >= 0);
    pthread_mutex_unlock(&script->lock);
    return (unsigned)index;
}

const struct wmsg_register *script_card(struct script *script, unsigned worker)
{
    return &script->workers[worker]->card;
}

void script_status(struct script *script, unsigned worker, struct wmsg_status *status)
{
    pthread_mutex_lock(&script->lock);
    *status = script->workers[worker]->status;
    pthread_mutex_unlock(&script->lock);
}

bool script_connected(struct script *script, unsigned worker)
{
    bool connected;

    pthread_mutex_lock(&script->lock);
    connected = script->workers[worker]->conn != NULL;
    pthread_mutex_unlock(&script->lock);
    return connected;
}

bool script_drained(struct script *script, unsigned worker)
{
    bool drained;

    pthread_mutex_lock(&script->lock);
    drained = script->workers[worker]->drained;
    pthread_mutex_unlock(&script->lock);
    return drained;
}

void script_refuse(struct script *script, bool refuse)
{
    pthread_mutex_lock(&script->lock);
    script->refuse = refuse;
    pthread_mutex_unlock(&script->lock);
}

/* ---- frames to workers ---- */

struct send {
    struct script_worker *worker;
    struct conn_msg msg;
    struct pending pending; /* request 0: none */
    enum mc_status status;
    bool cut;
};

static void send_on_loop(struct loop *loop, void *arg)
{
    struct send *send = arg;
    struct script *script = send->worker->script;

    pthread_mutex_lock(&script->lock);
    send->status = send->worker->conn ? MC_OK : MC_ECLOSED;
    if (send->status == MC_OK && send->cut)
        conn_abort(send->worker->conn, MC_ECLOSED);
    else if (send->status == MC_OK)
        send->status = conn_send(send->worker->conn, &send->msg);
    if (send->status == MC_OK && send->pending.request)
        send->worker->pending[send->worker->pending_count++] = send->pending;
    pthread_mutex_unlock(&script->lock);
}

static enum mc_status send_msg(struct script *script, unsigned worker, struct send *send)
{
    send->worker = script->workers[worker];
    loop_call(script->loop, send_on_loop, send);
    return send->status;
}

void script_run(struct script *script, unsigned worker, const struct wmsg_run *run, struct answer *answer)
{
    struct buf body;
    struct send send = {.msg = {.type = MSG_W_RUN}};

    memset(answer, 0, sizeof(*answer));
    answer->script = script;
    answer->worker = worker;
    answer->request = ++script->request;
    answer->begun_ns = now_ns();
    buf_init(&body, FRAME_BODY_MAX);
    wmsg_run_encode(run, &body);
    send.msg.request = answer->request;
    send.msg.body = buf_slice(&body);
    send.msg.trace = (const uint8_t *)"scripted-request";
    send.pending = (struct pending){.request = answer->request, .answer = answer};
    assert_int_equal(send_msg(script, worker, &send), MC_OK);
    buf_fini(&body);
}

void answer_wait(struct answer *answer)
{
    pthread_mutex_lock(&answer->script->lock);
    WAIT_FOR(answer->script, answer->done || answer->lost);
    pthread_mutex_unlock(&answer->script->lock);
}

bool answer_over(struct answer *answer)
{
    bool over;

    pthread_mutex_lock(&answer->script->lock);
    over = answer->done || answer->lost;
    pthread_mutex_unlock(&answer->script->lock);
    return over;
}

void answer_wait_tokens(struct answer *answer, uint32_t count)
{
    pthread_mutex_lock(&answer->script->lock);
    WAIT_FOR(answer->script, answer->count >= count || answer->done || answer->lost);
    pthread_mutex_unlock(&answer->script->lock);
}

void answer_wait_progress(struct answer *answer)
{
    pthread_mutex_lock(&answer->script->lock);
    WAIT_FOR(answer->script, answer->progress_events || answer->done || answer->lost);
    pthread_mutex_unlock(&answer->script->lock);
}

void script_cancel(struct answer *answer)
{
    struct send send = {.msg = {.type = MSG_CANCEL, .request = answer->request}};

    send_msg(answer->script, answer->worker, &send);
}

void script_release(struct answer *answer)
{
    struct wmsg_release msg = {answer->request};
    struct send send = {.msg = {.type = MSG_W_RELEASE}};
    struct buf body;

    buf_init(&body, 64);
    wmsg_release_encode(&msg, &body);
    send.msg.body = buf_slice(&body);
    send_msg(answer->script, answer->worker, &send);
    buf_fini(&body);
}

void script_cut(struct script *script, unsigned worker)
{
    struct send send = {.cut = true};

    send_msg(script, worker, &send);
}

void script_drain(struct script *script, unsigned worker)
{
    struct send send = {.msg = {.type = MSG_W_DRAIN}};

    send_msg(script, worker, &send);
}

enum mc_status script_tokenize(
    struct script *script, unsigned worker, const struct wmsg_tokenize *msg, uint32_t **tokens, uint32_t *count)
{
    struct wmsg_tokens reply = {0};
    enum mc_status status = MC_ECLOSED;
    bool done = false;
    struct buf body;
    struct send send = {.msg = {.type = MSG_W_TOKENIZE, .request = ++script->request}};

    buf_init(&body, FRAME_BODY_MAX);
    wmsg_tokenize_encode(msg, &body);
    send.msg.body = buf_slice(&body);
    send.pending = (struct pending){.request = send.msg.request, .tokens = &reply, .status = &status, .done = &done};
    assert_int_equal(send_msg(script, worker, &send), MC_OK);
    buf_fini(&body);
    pthread_mutex_lock(&script->lock);
    WAIT_FOR(script, done);
    pthread_mutex_unlock(&script->lock);
    *tokens = reply.tokens;
    *count = reply.count;
    return status;
}
