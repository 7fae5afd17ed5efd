/* net.c - the net thread: connections to the Conductors, requests in, events out.
 *
 * A run belongs to the connection it came by. When that connection goes, its runs are cancelled: whoever asked is gone, or
 * will ask again elsewhere. Events go out in the order the engine thread made them; when a connection's queue is full they
 * wait in `held`, which is bounded by what its runs can still say. */
#include "worker/impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"

enum {
    CLOSE_POLL_MS = 5, /* while a drain waits for the last bytes to leave */
    CLOSE_POLLS = 200, /* one second */
    HELD_BODY_MAX = 16 << 20,
};

/* ---- table of runs ---- */

static bool run_eq(const struct hnode *node, const void *key)
{
    return container_of(node, struct run, node)->request == *(const uint64_t *)key;
}

static struct run *run_find(struct peer *peer, uint64_t request)
{
    struct hnode *node = hashmap_find(&peer->runs, hash_mix(request), run_eq, &request);

    return node ? container_of(node, struct run, node) : NULL;
}

static void run_cancel(struct run *run)
{
    __atomic_store_n(&run->cancel, 1, __ATOMIC_RELAXED); /* the kick that follows orders it */
}

static void run_forget(struct peer *peer, struct run *run)
{
    hashmap_del(&peer->runs, &run->node);
    run_unref(run);
}

/* ---- events out ---- */

static void out_free(struct out *out)
{
    buf_fini(&out->body);
    run_unref(out->run);
    free(out);
}

/* MC_AGAIN: keep it. */
static enum mc_status out_send(struct peer *peer, struct out *out)
{
    struct conn *conn = rpc_peer_conn(peer->rpc);
    struct run *run = out->run;
    struct conn_msg msg = {.type = MSG_W_RUN,
        .flags = FRAME_REPLY | (out->last ? 0 : FRAME_MORE),
        .status = out->status,
        .request = run->request,
        .trace = run->trace,
        .body = buf_slice(&out->body)};
    enum mc_status status;

    if (!conn || run->epoch != peer->epoch)
        return MC_ECLOSED;
    status = conn_send(conn, &msg);
    if (status != MC_OK && status != MC_AGAIN) {
        log_warn("conductor %s: cannot send an event: %s", conn_name(conn), mc_status_str(status));
        run_cancel(run);
        inbox_kick(&peer->worker->inbox);
    }
    return status;
}

static void out_done(struct peer *peer, struct out *out)
{
    if (out->last && out->run->epoch == peer->epoch)
        run_forget(peer, out->run);
    out_free(out);
}

static void held_flush(struct peer *peer)
{
    while (!list_empty(&peer->held)) {
        struct out *out = list_first(&peer->held, struct out, link);

        if (out_send(peer, out) == MC_AGAIN)
            return;
        list_del(&out->link);
        out_done(peer, out);
    }
}

/* The doorbell: take what the engine thread left. */
static void outbox_take(struct loop *loop, struct loop_task *task)
{
    struct worker *worker = container_of(task, struct worker, out_task);
    struct list taken;
    struct list *link;

    list_init(&taken);
    pthread_mutex_lock(&worker->lock);
    list_splice_back(&taken, &worker->outbox);
    pthread_mutex_unlock(&worker->lock);
    while ((link = list_pop_front(&taken))) {
        struct out *out = list_entry(link, struct out, link);
        struct peer *peer = out->run->peer;

        list_push_back(&peer->held, &out->link);
    }
    for (size_t i = 0; i < worker->peer_count; i++)
        held_flush(&worker->peers[i]);
}

/* On the engine thread. Without memory the run cannot be answered in order any more: it is cancelled, and its last frame
 * needs none. */
static struct out *out_create(struct run *run)
{
    struct out *out = calloc(1, sizeof(*out));

    if (!out) {
        log_error("worker: no memory for an event");
        run_cancel(run);
        return NULL;
    }
    out->run = run;
    run_ref(run);
    buf_init(&out->body, HELD_BODY_MAX);
    return out;
}

static void out_post(struct worker *worker, struct out *out)
{
    pthread_mutex_lock(&worker->lock);
    list_push_back(&worker->outbox, &out->link);
    pthread_mutex_unlock(&worker->lock);
    loop_post(worker->loop, &worker->out_task);
}

void net_send(struct worker *worker, struct run *run, const struct wmsg_event *event)
{
    struct out *out = out_create(run);

    if (!out)
        return;
    wmsg_event_encode(event, &out->body);
    out_post(worker, out);
}

void net_send_finish(struct worker *worker, struct run *run)
{
    struct out *out = out_create(run);

    if (!out)
        return; /* the Conductor's deadline or the connection ends it there */
    out->last = true;
    out->status = run->status;
    wmsg_finish_encode(&run->finish, &out->body);
    out_post(worker, out);
}

/* ---- requests in ---- */

__attribute__((format(printf, 4, 5))) static void refuse(
    struct conn *conn, const struct frame *frame, enum mc_status status, const char *format, ...)
{
    char text[WMSG_TEXT_MAX + 1];
    struct buf body;
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    buf_init(&body, 2 * sizeof(text));
    if (frame->type == MSG_W_RUN) {
        struct wmsg_finish finish = {.reason = WMSG_ERROR};

        memcpy(finish.text, text, sizeof(text));
        wmsg_finish_encode(&finish, &body);
    } else {
        wmsg_text_encode(text, &body);
    }
    if (conn_reply(conn, frame, status, buf_slice(&body)) != MC_OK)
        log_warn("conductor %s: cannot refuse request %llu", conn_name(conn), (unsigned long long)frame->request);
    buf_fini(&body);
}

/* What this worker can never do for the run: NULL, or it is refused with *status. */
static const char *run_refusal(
    const struct worker *worker, const struct wmsg_run *msg, enum mc_status *status, char *text, size_t size)
{
    const struct mc_engine_info *info = worker->info;
    uint32_t prompt = msg->token_count - msg->answer_count;

    *status = MC_EBUSY;
    if (atomic_load(&worker->draining))
        return "this worker is draining";
    if (atomic_load(&worker->accepted) >= worker->opts.queue_max + info->sequences_max)
        return "this worker's queue is full";
    *status = MC_ETOOBIG;
    if (msg->token_count >= info->sequence_tokens_max || msg->token_count > info->context_tokens) {
        snprintf(text, size, "%u tokens of prompt and answer do not fit the context of %u", msg->token_count,
            info->sequence_tokens_max < info->context_tokens ? info->sequence_tokens_max : info->context_tokens);
        return text;
    }
    *status = MC_EINVAL;
    for (uint32_t i = 0; i < msg->token_count; i++) {
        if (msg->tokens[i] >= info->vocab_size) {
            snprintf(text, size, "token %u of %s is %u, the vocabulary has %u", i, i < prompt ? "prompt" : "answer",
                msg->tokens[i], info->vocab_size);
            return text;
        }
    }
    return NULL;
}

static void run_accept(struct peer *peer, struct run *run, const struct frame *frame)
{
    struct worker *worker = peer->worker;

    run->peer = peer;
    run->epoch = peer->epoch;
    run->request = frame->request;
    memcpy(run->trace, frame->trace, sizeof(run->trace));
    if (hashmap_add(&peer->runs, &run->node, hash_mix(run->request)) != MC_OK) {
        run_unref(run);
        return;
    }
    atomic_fetch_add(&worker->accepted, 1);
    run_ref(run); /* the engine thread's */
    inbox_post(&worker->inbox, &run->arrived, engine_run_arrived);
}

static void on_run(struct peer *peer, struct conn *conn, const struct frame *frame)
{
    struct worker *worker = peer->worker;
    const char *bad = NULL, *refusal;
    char text[WMSG_TEXT_MAX + 1];
    struct wmsg_run msg;
    struct run *run;
    enum mc_status status = wmsg_run_decode(frame->body, &msg, &bad);

    if (status != MC_OK) {
        refuse(conn, frame, status, "worker-run: field %s is missing or out of range", bad ? bad : "?");
        return;
    }
    refusal = run_refusal(worker, &msg, &status, text, sizeof(text));
    if (!refusal && (!frame->request || run_find(peer, frame->request))) {
        refusal = "the request id is zero or in use";
        status = MC_EEXIST;
    }
    if (!refusal) {
        status = run_create(worker->info, &msg, &run, &bad);
        if (status == MC_OK) {
            run_accept(peer, run, frame);
            return;
        }
        snprintf(text, sizeof(text), "%s%s", bad ? "sampling parameter out of range: " : "", bad ? bad : "no memory");
        refusal = text;
    }
    refuse(conn, frame, status, "%s", refusal);
    wmsg_run_fini(&msg);
}

static void on_tokenize(struct peer *peer, struct conn *conn, const struct frame *frame)
{
    struct wmsg_tokenize msg;
    const char *bad = NULL;
    uint32_t *tokens, max;
    size_t count;
    struct buf body;
    enum mc_status status = wmsg_tokenize_decode(frame->body, &msg, &bad);

    if (status != MC_OK) {
        refuse(conn, frame, status, "worker-tokenize: field %s is missing or out of range", bad ? bad : "?");
        return;
    }
    max = msg.tokens_max;
    status = worker_tokenize(peer->worker->engine, &msg, &tokens, &count);
    wmsg_tokenize_fini(&msg);
    if (status == MC_ETOOBIG) {
        refuse(
            conn, frame, status, "the prompt has at least %zu tokens, this model's context is %u tokens", count, max);
        return;
    }
    if (status != MC_OK) {
        refuse(conn, frame, status, "%s",
            status == MC_EINVAL   ? "a message has a role that the model does not know"
            : status == MC_ENOSUP ? "the model has no chat template: use completions"
                                  : mc_status_str(status));
        return;
    }
    buf_init(&body, FRAME_BODY_MAX);
    wmsg_tokens_encode(tokens, (uint32_t)count, &body);
    status = buf_status(&body);
    if (conn_reply(conn, frame, status, status == MC_OK ? buf_slice(&body) : slice_of(NULL, 0)) != MC_OK)
        log_warn("conductor %s: cannot answer a tokenize", conn_name(conn));
    buf_fini(&body);
    free(tokens);
}

static void on_release(struct peer *peer, const struct frame *frame)
{
    struct wmsg_release msg;

    if (wmsg_release_decode(frame->body, &msg, NULL) == MC_OK)
        pins_release(&peer->worker->pins, peer, msg.request);
}

static void on_cancel(struct peer *peer, uint64_t request)
{
    struct run *run = run_find(peer, request);

    if (!run)
        return;
    run_cancel(run);
    inbox_kick(&peer->worker->inbox);
}

static void on_frame(struct conn *conn, const struct frame *frame)
{
    struct peer *peer = rpc_peer_user(rpc_peer_of(conn));

    log_set_trace(frame->trace);
    switch (frame->type) {
    case MSG_W_RUN: on_run(peer, conn, frame); break;
    case MSG_W_TOKENIZE: on_tokenize(peer, conn, frame); break;
    case MSG_W_RELEASE: on_release(peer, frame); break;
    case MSG_W_DRAIN: worker_drain(peer->worker); break;
    case MSG_CANCEL: on_cancel(peer, frame->request); break;
    default: conn_reply_unknown(conn, frame);
    }
    log_set_trace(NULL);
}

/* ---- registration and status ---- */

/* True: something has changed since the last one. */
static bool status_send(struct peer *peer, uint64_t now)
{
    struct worker *worker = peer->worker;
    struct wmsg_status status;
    struct buf body;
    bool changed;

    pthread_mutex_lock(&worker->lock);
    status = worker->snapshot;
    pthread_mutex_unlock(&worker->lock);
    status.draining = atomic_load(&worker->draining);
    changed = memcmp(&status, &peer->said, sizeof(status)) != 0;
    if (!changed && now - peer->status_ns < STATUS_IDLE_MS * NS_PER_MS)
        return false;
    buf_init(&body, 4096);
    wmsg_status_encode(&status, &body);
    if (rpc_notify(peer->rpc, &(struct conn_msg){.type = MSG_W_STATUS, .body = buf_slice(&body)}) == MC_OK) {
        peer->said = status;
        peer->status_ns = now;
    }
    buf_fini(&body);
    return changed;
}

static void status_tick(struct loop *loop, struct loop_timer *timer)
{
    struct worker *worker = container_of(timer, struct worker, status_timer);
    uint64_t now = loop_now_ns(loop);
    bool changed = false;

    atomic_store(&worker->status_resting, true); /* before the snapshot is read: who changes it from now on wakes us */
    for (size_t i = 0; i < worker->peer_count; i++) {
        if (worker->peers[i].registered)
            changed |= status_send(&worker->peers[i], now);
    }
    if (changed)
        atomic_store(&worker->status_resting, false);
    loop_timer_set(loop, timer, now + (changed ? STATUS_MS : STATUS_IDLE_MS) * NS_PER_MS);
}

static void status_soon(struct loop *loop, struct loop_task *task)
{
    struct worker *worker = container_of(task, struct worker, status_task);

    loop_timer_set(loop, &worker->status_timer, loop_now_ns(loop));
}

void net_status_changed(struct worker *worker)
{
    if (atomic_exchange(&worker->status_resting, false))
        loop_post(worker->loop, &worker->status_task);
}

static void conductors_count(struct worker *worker)
{
    uint32_t up = 0;

    for (size_t i = 0; i < worker->peer_count; i++)
        up += worker->peers[i].registered;
    pthread_mutex_lock(&worker->lock);
    worker->stats.conductors_up = up;
    pthread_cond_broadcast(&worker->changed);
    pthread_mutex_unlock(&worker->lock);
}

static void register_send(struct peer *peer)
{
    struct worker *worker = peer->worker;
    struct buf body;
    enum mc_status status;

    if (rpc_call_active(&peer->call))
        return;
    pthread_mutex_lock(&worker->lock);
    worker->card.speed = worker->snapshot.speed;
    pthread_mutex_unlock(&worker->lock);
    buf_init(&body, 16384);
    wmsg_register_encode(&worker->card, &body);
    status = rpc_send(peer->rpc, &peer->call,
        &(struct conn_msg){.type = MSG_W_REGISTER,
            .body = buf_slice(&body),
            .deadline_ns = deadline_after_ms(now_ns(), REGISTER_AGAIN_MS)});
    buf_fini(&body);
    if (status != MC_OK)
        loop_timer_set(worker->loop, &peer->again, now_ns() + REGISTER_AGAIN_MS * NS_PER_MS);
}

static void register_again(struct loop *loop, struct loop_timer *timer)
{
    struct peer *peer = container_of(timer, struct peer, again);

    if (rpc_peer_conn(peer->rpc) && !peer->registered)
        register_send(peer);
}

static void register_done(struct rpc_call *call, enum mc_status status, const struct frame *frame)
{
    struct peer *peer = container_of(call, struct peer, call);
    char name[ADDR_TEXT_MAX];
    struct wmsg_text why = {.text = ""};

    addr_format(rpc_peer_addr(peer->rpc), name);
    peer->registered = status == MC_OK;
    conductors_count(peer->worker);
    if (status == MC_OK) {
        log_info("conductor %s: registered as %s", name, peer->worker->name);
        status_send(peer, now_ns());
        return;
    }
    if (frame)
        wmsg_text_decode(frame->body, &why, NULL);
    log_warn("conductor %s: refused to register %s: %s%s%s", name, peer->worker->name, mc_status_str(status),
        why.text[0] ? ": " : "", why.text);
    if (!peer->worker->closing)
        loop_timer_set(peer->worker->loop, &peer->again, now_ns() + REGISTER_AGAIN_MS * NS_PER_MS);
}

static const struct rpc_call_ops register_ops = {.done = register_done};

static void on_ready(struct conn *conn)
{
    struct peer *peer = rpc_peer_user(rpc_peer_of(conn));

    if (peer->worker->closing) {
        conn_close(conn);
        return;
    }
    peer->epoch++;
    peer->status_ns = 0;
    register_send(peer);
}

/* The connection is gone: what came by it is cancelled, what was to go out is dropped. */
static void peer_lost(struct peer *peer)
{
    struct hashmap_iter it = {0};
    struct hnode *node;
    struct list *link;

    peer->epoch++;
    peer->registered = false;
    while ((link = list_pop_front(&peer->held)))
        out_free(list_entry(link, struct out, link));
    while ((node = hashmap_next(&peer->runs, &it))) {
        struct run *run = container_of(node, struct run, node);

        run_cancel(run);
        run_forget(peer, run);
    }
    inbox_kick(&peer->worker->inbox);
    conductors_count(peer->worker);
}

static void on_close(struct conn *conn, enum mc_status status)
{
    peer_lost(rpc_peer_user(rpc_peer_of(conn)));
}

static void on_writable(struct conn *conn)
{
    held_flush(rpc_peer_user(rpc_peer_of(conn)));
}

static void on_health(struct rpc_peer *rpc, enum rpc_health health, enum mc_status why)
{
    char name[ADDR_TEXT_MAX];
    const char *text = "";

    if (health != RPC_DOWN)
        return;
    rpc_peer_error(rpc, &text);
    log_every_ms(LOG_LEVEL_WARN, 10000, "conductor %s: not connected: %s%s%s", addr_format(rpc_peer_addr(rpc), name),
        mc_status_str(why), *text ? ": " : "", text);
}

static const struct conn_ops peer_ops = {
    .on_ready = on_ready, .on_frame = on_frame, .on_writable = on_writable, .on_close = on_close};

/* ---- drain ---- */

/* All was said. Connections are closed in good order, so that the last bytes are not cut off; then the drain is done. */
static void close_tick(struct loop *loop, struct loop_timer *timer)
{
    struct worker *worker = container_of(timer, struct worker, close_timer);
    bool busy = false;

    for (size_t i = 0; i < worker->peer_count; i++) {
        struct conn *conn = rpc_peer_conn(worker->peers[i].rpc);

        if (conn && list_empty(&worker->peers[i].held))
            conn_close(conn);
        busy |= conn != NULL;
    }
    if (busy && worker->close_polls++ < CLOSE_POLLS) {
        loop_timer_set(loop, timer, loop_now_ns(loop) + CLOSE_POLL_MS * NS_PER_MS);
        return;
    }
    pthread_mutex_lock(&worker->lock);
    worker->drained = true;
    pthread_cond_broadcast(&worker->changed);
    pthread_mutex_unlock(&worker->lock);
}

static void drain_task(struct loop *loop, struct loop_task *task)
{
    struct worker *worker = container_of(task, struct worker, drain_task);

    if (!worker->drain_said) {
        worker->drain_said = true;
        log_info("worker %s: draining, %u runs to finish", worker->name, atomic_load(&worker->accepted));
        for (size_t i = 0; i < worker->peer_count; i++)
            rpc_notify(worker->peers[i].rpc, &(struct conn_msg){.type = MSG_W_DRAIN});
    }
    if (atomic_load(&worker->accepted) || worker->closing)
        return;
    worker->closing = true;
    outbox_take(loop, &worker->out_task);
    close_tick(loop, &worker->close_timer);
}

/* ---- start and stop ---- */

static enum mc_status peer_start(struct worker *worker, struct peer *peer, const char *text, char *err, size_t err_size)
{
    struct hello self = {.role = ROLE_WORKER, .build = "mooncake worker"};
    struct hello_expect expect = {.roles = 1u << ROLE_CONDUCTOR};
    struct rpc_peer_opts opts = {.self = &self,
        .expect = &expect,
        .keep_connected = true,
        .ops = &peer_ops,
        .on_health = on_health,
        .user = peer};
    const char *why = "";

    memcpy(self.uuid, worker->uuid, sizeof(self.uuid));
    snprintf(self.host_id, sizeof(self.host_id), "%s", worker->card.host_id);
    if (addr_parse(text, 7481, &opts.addr, &why) != MC_OK) {
        snprintf(err, err_size, "conductor \"%s\": %s", text, why);
        return MC_EINVAL;
    }
    *peer = (struct peer){.worker = worker, .call = {.ops = &register_ops}};
    list_init(&peer->held);
    loop_timer_init(&peer->again, register_again);
    if (hashmap_init(&peer->runs, 64, 0) != MC_OK)
        return MC_ENOMEM;
    peer->rpc = rpc_peer_create(worker->loop, &opts);
    if (!peer->rpc) {
        hashmap_fini(&peer->runs);
        return MC_ENOMEM;
    }
    worker->peer_count++;
    return MC_OK;
}

enum mc_status net_init(struct worker *worker)
{
    loop_task_init(&worker->out_task, outbox_take);
    loop_task_init(&worker->drain_task, drain_task);
    loop_task_init(&worker->status_task, status_soon);
    loop_timer_init(&worker->status_timer, status_tick);
    loop_timer_init(&worker->close_timer, close_tick);
    worker->loop = loop_create("worker-net");
    return worker->loop ? MC_OK : MC_ENOMEM;
}

enum mc_status net_start(struct worker *worker, char *err, size_t err_size)
{
    enum mc_status status = MC_OK;

    for (size_t i = 0; i < worker->opts.conductor_count && status == MC_OK; i++)
        status = peer_start(worker, &worker->peers[i], worker->opts.conductors[i], err, err_size);
    if (status == MC_OK)
        status = loop_timer_set(worker->loop, &worker->status_timer, now_ns());
    if (status == MC_OK)
        status = loop_thread_start(worker->loop);
    return status;
}

void net_stop(struct worker *worker)
{
    struct list *link;

    if (!worker->loop)
        return;
    loop_thread_stop(worker->loop);
    worker->closing = true;
    for (size_t i = 0; i < worker->peer_count; i++) {
        struct peer *peer = &worker->peers[i];

        rpc_peer_destroy(peer->rpc);
        peer_lost(peer); /* also when it was never connected */
        loop_timer_cancel(worker->loop, &peer->again);
        hashmap_fini(&peer->runs);
    }
    worker->peer_count = 0;
    while ((link = list_pop_front(&worker->outbox)))
        out_free(list_entry(link, struct out, link));
    loop_timer_cancel(worker->loop, &worker->status_timer);
    loop_timer_cancel(worker->loop, &worker->close_timer);
    loop_destroy(worker->loop);
    worker->loop = NULL;
}
