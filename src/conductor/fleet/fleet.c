/* fleet.c - connections of workers: registering, status, silence, calls.
 *
 * Silence. Each worker has one timer. Any frame from it counts as a sign of life. After FLEET_PING_MS without one it is sent a
 * PING, which its network thread answers whatever the engine does; after FLEET_SUSPECT_MS it is suspect, and whoever waits for it is
 * told, to go elsewhere if there is an elsewhere. When we ourselves were stopped (gap watcher), that time does not count.
 *
 * Threads: the loop's only. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "conductor/fleet/fleet.h"
#include "conductor/fleet/fleet_impl.h"

#define PREFILL_DEPTH 8
#define WORKERS_MAX   MC_SCHED_WORKERS_MAX

/* --- calls --- */

static bool call_is(const struct hnode *node, const void *key)
{
    return container_of(node, struct fleet_call, node)->request == *(const uint64_t *)key;
}

static struct fleet_call *call_find(struct fleet_worker *worker, uint64_t request)
{
    struct hnode *node = hashmap_find(&worker->calls, hash_mix(request), call_is, &request);

    return node ? container_of(node, struct fleet_call, node) : NULL;
}

static void call_detach(struct fleet_call *call)
{
    hashmap_del(&call->worker->calls, &call->node);
    call->worker = NULL;
}

static void notify_change(struct fleet *fleet)
{
    loop_defer(fleet->loop, &fleet->change);
}

static void cancel_at(struct fleet_call *call)
{
    struct conn_msg msg = {.type = MSG_CANCEL, .request = call->request};

    (void)conn_send(call->worker->conn, &msg); /* a full queue or a closed connection ends the run by itself */
}

static enum mc_status call_send(
    struct fleet_worker *worker, struct fleet_call *call, struct conn_msg *msg, struct buf *body)
{
    enum mc_status status = buf_status(body);

    assert(!call->worker);
    if (status != MC_OK)
        return status;
    if (!worker->conn)
        return MC_ECLOSED;
    call->request = ++worker->fleet->request_last;
    msg->request = call->request;
    msg->body = buf_slice(body);
    status = conn_send(worker->conn, msg);
    if (status != MC_OK)
        return status;
    status = hashmap_add(&worker->calls, &call->node, hash_mix(call->request));
    if (status != MC_OK)
        return status;
    call->worker = worker;
    return MC_OK;
}

enum mc_status fleet_tokenize(
    struct fleet_worker *worker, struct fleet_call *call, const struct wmsg_tokenize *msg, const uint8_t *trace)
{
    struct conn_msg out = {.type = MSG_W_TOKENIZE, .trace = trace};
    struct buf body;
    enum mc_status status;

    buf_init(&body, FRAME_BODY_MAX);
    wmsg_tokenize_encode(msg, &body);
    call->prefills = call->decodes = false;
    status = call_send(worker, call, &out, &body);
    buf_fini(&body);
    return status;
}

enum mc_status fleet_run(struct fleet_worker *worker, struct fleet_call *call, const struct wmsg_run *msg,
    const uint8_t *trace, uint64_t deadline_ns)
{
    struct conn_msg out = {.type = MSG_W_RUN, .trace = trace, .deadline_ns = deadline_ns};
    struct buf body;
    enum mc_status status;

    buf_init(&body, FRAME_BODY_MAX);
    wmsg_run_encode(msg, &body);
    call->computed_tokens = 0;
    status = call_send(worker, call, &out, &body);
    buf_fini(&body);
    return status;
}

void fleet_stop(struct fleet_call *call)
{
    if (call->worker)
        cancel_at(call);
}

void fleet_drop(struct fleet_call *call)
{
    struct fleet *fleet;

    if (!call->worker)
        return;
    fleet = call->worker->fleet;
    cancel_at(call);
    call_detach(call);
    notify_change(fleet);
}

static struct fleet_worker *worker_by_serial(struct fleet *fleet, uint64_t serial)
{
    list_for_each (it, &fleet->workers) {
        struct fleet_worker *worker = list_entry(it, struct fleet_worker, link);

        if (worker->serial == serial)
            return worker;
    }
    return NULL;
}

void fleet_release(struct fleet *fleet, uint64_t serial, uint64_t request)
{
    struct fleet_worker *worker = worker_by_serial(fleet, serial);
    struct wmsg_release release = {.request = request};
    struct conn_msg msg = {.type = MSG_W_RELEASE};
    struct buf body;

    if (!worker)
        return;
    buf_init(&body, 4096);
    wmsg_release_encode(&release, &body);
    msg.body = buf_slice(&body);
    if (buf_status(&body) == MC_OK)
        (void)conn_send(worker->conn, &msg); /* not delivered: the pin ends by itself */
    buf_fini(&body);
}

/* A reply that nobody waits for belongs to a call that was dropped. */
static void on_reply(struct fleet_worker *worker, const struct frame *frame)
{
    struct fleet_call *call = call_find(worker, frame->request);

    if (!call)
        return;
    if (!(frame->flags & FRAME_MORE)) {
        call_detach(call);
        notify_change(worker->fleet);
    }
    call->ops->reply(call, worker, frame);
}

/* --- registering --- */

static struct fleet_model *model_create(struct fleet *fleet, const struct wmsg_register *who)
{
    struct fleet_model *model = fleet->model_count < FLEET_MODELS_MAX ? calloc(1, sizeof *model) : NULL;

    if (!model)
        return NULL;
    strcpy(model->name, who->model);
    strcpy(model->engine, who->engine);
    model->block_tokens = who->block_tokens;
    model->bytes_per_token = who->bytes_per_token;
    model->vocab_size = who->vocab_size;
    model->since_s = wall_ms() / 1000;
    list_push_back(&fleet->models, &model->link);
    fleet->model_count++;
    return model;
}

/* Everybody who serves a name must compute the same bytes: the first one's record decides. */
static enum mc_status join_model(struct fleet_worker *worker, char *why, size_t size)
{
    struct fleet *fleet = worker->fleet;
    const struct wmsg_register *who = &worker->who;
    struct fleet_model *model = fleet_model_find(fleet, who->model);
    struct mc_fp_record record;
    const char *field;

    if (mc_fp_record_decode(who->record, who->record_size, &record, why, size) != MC_OK)
        return MC_EPROTO;
    if (model && (field = mc_fp_record_diff(&model->record, &record)) != NULL) {
        char ours[128], theirs[128];

        mc_fp_record_text(&model->record, field, ours, sizeof ours);
        mc_fp_record_text(&record, field, theirs, sizeof theirs);
        snprintf(why, size, "model '%s' is served with another fingerprint record: %s is %s there, %s here", who->model,
            field, ours, theirs);
        return MC_EMISMATCH;
    }
    if (!model) {
        model = model_create(fleet, who);
        if (!model) {
            snprintf(why, size, "more than %d models, or out of memory", FLEET_MODELS_MAX);
            return MC_EBUSY;
        }
        model->record = record;
        mc_fp_record_hash(&record, &model->fingerprint);
    }
    if (who->sequence_tokens_max > model->sequence_tokens_max)
        model->sequence_tokens_max = who->sequence_tokens_max;
    worker->model = model;
    return MC_OK;
}

static void reply_text(struct conn *conn, const struct frame *frame, enum mc_status status, const char *text)
{
    struct buf body;

    buf_init(&body, 4096);
    wmsg_text_encode(text, &body);
    (void)conn_reply(conn, frame, status, buf_slice(&body));
    buf_fini(&body);
}

static void refuse(struct fleet_worker *worker, const struct frame *frame, enum mc_status status, const char *why)
{
    log_warn("worker %s refused: %s", conn_name(worker->conn), why);
    reply_text(worker->conn, frame, status, why);
    conn_close(worker->conn);
}

static void on_register(struct fleet_worker *worker, const struct frame *frame)
{
    struct fleet *fleet = worker->fleet;
    char why[WMSG_TEXT_MAX + 1] = "registered already";
    const char *bad = "";
    enum mc_status status = worker->model ? MC_EEXIST : wmsg_register_decode(frame->body, &worker->who, &bad);

    if (status == MC_OK)
        status = join_model(worker, why, sizeof why);
    else if (status != MC_EEXIST)
        snprintf(why, sizeof why, "malformed registration, field %s", bad);
    if (status != MC_OK) {
        refuse(worker, frame, status, why);
        return;
    }
    worker->state = MC_WORKER_READY;
    worker->status.speed = worker->who.speed;
    worker->status.store_up = worker->who.has_store;
    mc_fit_init(&worker->prefill, mc_fit_prefill_prior);
    fleet_speed_set(worker, true);
    fleet_worker_locate(worker);
    list_push_back(&fleet->workers, &worker->link);
    worker->listed = true;
    fleet->worker_count++;
    (void)conn_reply(worker->conn, frame, MC_OK, (struct slice){0});
    log_info("worker %s at %s registered: role %u model %s engine %s", worker->who.name, conn_name(worker->conn),
        worker->who.role, worker->who.model, worker->who.engine);
    notify_change(fleet);
}

static void on_status(struct fleet_worker *worker, const struct frame *frame)
{
    const char *bad = "";
    struct wmsg_status status;

    if (!worker->model || wmsg_status_decode(frame->body, &status, &bad) != MC_OK) {
        log_warn("worker %s: malformed or early status, field %s", conn_name(worker->conn), bad);
        conn_abort(worker->conn, MC_EPROTO);
        return;
    }
    worker->status = status;
    fleet_speed_set(worker, false);
    if (status.draining)
        worker->state = MC_WORKER_DRAINING;
    notify_change(worker->fleet);
}

/* --- silence --- */

static void silence_arm(struct fleet_worker *worker)
{
    uint64_t step = worker->pinged ? FLEET_SUSPECT_MS : FLEET_PING_MS;

    (void)loop_timer_set(worker->fleet->loop, &worker->silence, worker->heard_ns + step * NS_PER_MS);
}

static void become_suspect(struct fleet_worker *worker)
{
    struct hashmap_iter it = {0};
    struct hnode *node;

    log_warn("worker %s silent for %d ms, suspect", worker->who.name, FLEET_SUSPECT_MS);
    worker->state = MC_WORKER_SUSPECT;
    while ((node = hashmap_next(&worker->calls, &it)) != NULL) {
        struct fleet_call *call = container_of(node, struct fleet_call, node);

        call->ops->silent(call); /* may drop this call, and no other one of this worker */
    }
    notify_change(worker->fleet);
}

static void on_silence(struct loop *loop, struct loop_timer *timer)
{
    struct fleet_worker *worker = container_of(timer, struct fleet_worker, silence);
    uint64_t quiet_ms = (loop_now_ns(loop) - worker->heard_ns) / NS_PER_MS;

    log_set_trace(NULL);
    if (quiet_ms >= FLEET_SUSPECT_MS) {
        if (worker->state == MC_WORKER_READY)
            become_suspect(worker);
        return; /* the next frame arms it again */
    }
    if (quiet_ms >= FLEET_PING_MS && !worker->pinged) {
        struct conn_msg ping = {.type = MSG_PING, .request = ++worker->fleet->request_last};

        worker->pinged = true;
        (void)conn_send(worker->conn, &ping); /* a connection that cannot take it is silent all the same */
    }
    silence_arm(worker);
}

/* The timer is left where it is: it looks at heard_ns when it fires, so a busy stream costs nothing here. */
static void on_heard(struct fleet_worker *worker)
{
    worker->heard_ns = loop_now_ns(worker->fleet->loop);
    worker->pinged = false;
    if (worker->state == MC_WORKER_SUSPECT) {
        log_info("worker %s answers again", worker->who.name);
        worker->state = MC_WORKER_READY;
        notify_change(worker->fleet);
    }
    if (!loop_timer_pending(&worker->silence))
        silence_arm(worker);
}

static void on_gap(struct loop *loop, struct loop_gap *gap, uint64_t gap_ns)
{
    struct fleet *fleet = container_of(gap, struct fleet, gap);

    log_info("stopped for %llu ms, that silence is ours", (unsigned long long)(gap_ns / NS_PER_MS));
    list_for_each (it, &fleet->connected)
        list_entry(it, struct fleet_worker, anchor)->heard_ns = loop_now_ns(loop);
}

/* --- connections --- */

static void on_frame(struct conn *conn, const struct frame *frame)
{
    struct fleet_worker *worker = conn_user(conn);

    log_set_trace(NULL); /* whose request it is, its handler knows */
    on_heard(worker);
    if (frame->flags & FRAME_REPLY) {
        on_reply(worker, frame);
        return;
    }
    switch (frame->type) {
    case MSG_W_REGISTER: on_register(worker, frame); break;
    case MSG_W_STATUS: on_status(worker, frame); break;
    case MSG_W_DRAIN:
        worker->state = MC_WORKER_DRAINING;
        log_info("worker %s drains", worker->who.name);
        break;
    default: conn_reply_unknown(conn, frame);
    }
}

static void maybe_free(struct fleet *fleet)
{
    if (!fleet->dying || !list_empty(&fleet->connected))
        return;
    list_for_each_safe (it, next, &fleet->models)
        free(list_entry(it, struct fleet_model, link));
    free(fleet);
}

static void lose_calls(struct fleet_worker *worker, enum mc_status status)
{
    struct hashmap_iter it = {0};
    struct hnode *node;

    while ((node = hashmap_next(&worker->calls, &it)) != NULL) {
        struct fleet_call *call = container_of(node, struct fleet_call, node);

        call_detach(call);
        call->ops->lost(call, status);
    }
}

static void unlist(struct fleet_worker *worker)
{
    worker->state = MC_WORKER_DOWN;
    loop_timer_cancel(worker->fleet->loop, &worker->silence);
    if (worker->listed)
        worker->fleet->worker_count--;
    worker->listed = false;
    list_del(&worker->link);
}

static void on_close(struct conn *conn, enum mc_status status)
{
    struct fleet_worker *worker = conn_user(conn);
    struct fleet *fleet = worker->fleet;

    log_set_trace(NULL);
    if (worker->listed)
        log_info("worker %s left: %s", worker->who.name, mc_status_str(status));
    worker->conn = NULL;
    unlist(worker);
    lose_calls(worker, status);
    if (!fleet->dying)
        notify_change(fleet);
    hashmap_fini(&worker->calls);
    list_del(&worker->anchor);
    free(worker);
    maybe_free(fleet);
}

static const struct conn_ops worker_conn_ops = {
    .on_frame = on_frame,
    .on_close = on_close,
};

/* Until somebody has said hello there is nothing to keep of a connection. */
static void on_stranger_frame(struct conn *conn, const struct frame *frame)
{
    conn_reply_unknown(conn, frame);
}

static void on_stranger_close(struct conn *conn, enum mc_status status)
{
}

static const struct conn_ops stranger_conn_ops = {
    .on_frame = on_stranger_frame,
    .on_close = on_stranger_close,
};

static enum mc_status on_hello(struct conn *conn, const struct hello *peer, struct buf *why)
{
    struct fleet *fleet = conn_user(conn);
    struct fleet_worker *worker = calloc(1, sizeof *worker);

    if (!worker || hashmap_init(&worker->calls, 16, 0) != MC_OK) {
        free(worker);
        return MC_ENOMEM;
    }
    worker->fleet = fleet;
    worker->conn = conn;
    worker->serial = ++fleet->serial_last;
    worker->heard_ns = worker->worked_ns = loop_now_ns(fleet->loop);
    worker->node = MC_SCHED_NONE;
    list_init(&worker->link);
    list_push_back(&fleet->connected, &worker->anchor);
    loop_timer_init(&worker->silence, on_silence);
    conn_set_user(conn, worker);
    conn_set_ops(conn, &worker_conn_ops);
    return MC_OK;
}

static void on_changed(struct loop *loop, struct loop_task *task)
{
    struct fleet *fleet = container_of(task, struct fleet, change);

    fleet->opts.on_change(fleet->opts.arg);
}

enum mc_status fleet_create(struct loop *loop, const struct fleet_opts *opts, struct fleet **out)
{
    struct hello self = {.role = ROLE_CONDUCTOR};
    struct listener_opts listen = {
        .self = &self,
        .ops = &stranger_conn_ops,
        .expect = {.roles = 1u << ROLE_WORKER},
        .conns_max = WORKERS_MAX,
        .on_hello = on_hello,
    };
    struct fleet *fleet = calloc(1, sizeof *fleet);
    enum mc_status status;

    if (!fleet)
        return MC_ENOMEM;
    fleet->loop = loop;
    fleet->opts = *opts;
    fleet->prefill_depth = opts->prefill_depth ? opts->prefill_depth : PREFILL_DEPTH;
    list_init(&fleet->workers);
    list_init(&fleet->connected);
    list_init(&fleet->models);
    loop_task_init(&fleet->change, on_changed);
    memcpy(self.uuid, opts->uuid, UUID_SIZE);
    snprintf(self.host_id, sizeof self.host_id, "%s", opts->host_id ? opts->host_id : "");
    listen.user = fleet;
    status = conn_listen(loop, &opts->addr, &listen, &fleet->listener);
    if (status != MC_OK) {
        free(fleet);
        return status;
    }
    fleet->gap.fn = on_gap;
    loop_gap_watch(loop, &fleet->gap);
    *out = fleet;
    return MC_OK;
}

/* Calls are lost now; the connections end in callbacks of the loop, and the last one takes the fleet along. */
void fleet_destroy(struct fleet *fleet)
{
    fleet->dying = true;
    loop_gap_unwatch(fleet->loop, &fleet->gap);
    listener_close(fleet->listener);
    list_for_each (it, &fleet->connected) {
        struct fleet_worker *worker = list_entry(it, struct fleet_worker, anchor);

        unlist(worker);
        lose_calls(worker, MC_ECLOSED);
        conn_abort(worker->conn, MC_ECLOSED);
    }
    loop_defer_cancel(fleet->loop, &fleet->change);
    maybe_free(fleet);
}

const struct addr *fleet_addr(const struct fleet *fleet)
{
    return listener_addr(fleet->listener);
}

struct list *fleet_workers(struct fleet *fleet)
{
    return &fleet->workers;
}

struct list *fleet_models(struct fleet *fleet)
{
    return &fleet->models;
}

struct fleet_model *fleet_model_find(struct fleet *fleet, const char *name)
{
    list_for_each (it, &fleet->models) {
        struct fleet_model *model = list_entry(it, struct fleet_model, link);

        if (strcmp(model->name, name) == 0)
            return model;
    }
    return NULL;
}
