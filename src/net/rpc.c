/* rpc.c - calls and peers.
 *
 * States of a call:
 *   CALL_IDLE   not ours
 *   CALL_HELD   in peer->held, its message copied, waiting for the connection
 *   CALL_SENT   in peer->sent and in the table by request id
 *   CALL_ENDED  in peer->ended: `done` is owed and runs from the loop
 * end_call() is the only way to ENDED, tell_call() the only one back to IDLE.
 *
 * Credits: the peer answers every request once, also cancelled ones, so `in_flight` counts frames sent minus final answers seen,
 * whether or not anybody still waits for them.
 *
 * Health of a peer: IDLE -> CONNECTING -> UP -> IDLE, with DOWN (a timer runs) after a failed attempt or a connection that did
 * not last. set_health() is the only one to change it. */
#include "net/rpc.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/rng.h"
#include "net/conn_impl.h"

#define BACKOFF_MIN_MS 10
#define BACKOFF_MAX_MS 200
#define STABLE_NS      NS_PER_S /* a connection that lasted so long was a good one */

enum call_state { CALL_IDLE, CALL_HELD, CALL_SENT, CALL_ENDED };

struct rpc_held {
    struct conn_msg msg; /* body, trace and spans point into `data` */
    uint8_t trace[TRACE_SIZE];
    _Alignas(16) uint8_t data[];
};

struct rpc_peer {
    struct loop *loop;
    struct rpc_peer_opts opts;
    struct hello self;
    struct hello_expect expect;
    bool expect_set;

    struct conn *conn; /* from the start of an attempt to its on_close */
    enum rpc_health health;
    enum mc_status error;
    char error_text[512];
    struct loop_timer timer;
    unsigned backoff_ms;
    uint64_t up_since_ns;
    struct rng rng;

    struct hashmap table;
    struct list held, sent, ended;
    unsigned call_count; /* in the three lists */
    uint32_t in_flight;
    uint64_t next_request;
    bool want_writable;
    bool destroying;            /* nothing is started any more, no callback but `done` and `sent` */
    unsigned busy;              /* our functions on the stack that still use the peer; freed when it falls to 0 */
    struct rpc_call *receiving; /* whose payload is coming in; NULL when it gave up */
    struct loop_task task;      /* runs `done` of the ended */
};

static void start(struct rpc_peer *peer);
static void send_held(struct rpc_peer *peer);

/* Any callback may destroy the peer. Whoever calls out stands between these two; the last to leave frees. */
static void enter(struct rpc_peer *peer)
{
    peer->busy++;
}

static void leave(struct rpc_peer *peer)
{
    if (--peer->busy > 0 || !peer->destroying)
        return;
    hashmap_fini(&peer->table);
    free(peer);
}

static void set_health(struct rpc_peer *peer, enum rpc_health health, enum mc_status why)
{
    if (peer->health == health)
        return;
    peer->health = health;
    if (peer->opts.on_health && !peer->destroying)
        peer->opts.on_health(peer, health, why);
}

/* --- the end of a call --- */

static void end_call(struct rpc_call *call, enum mc_status status)
{
    struct rpc_peer *peer = call->peer;

    assert(call->state == CALL_HELD || call->state == CALL_SENT);
    if (call->state == CALL_SENT)
        hashmap_del(&peer->table, &call->node);
    if (peer->receiving == call)
        peer->receiving = NULL;
    loop_timer_cancel(peer->loop, &call->timer);
    list_del(&call->link);
    list_push_back(&peer->ended, &call->link);
    call->state = CALL_ENDED;
    call->status = status;
}

/* `done`, and before it `sent` of a call that was never sent. */
static void tell_call(struct rpc_call *call, const struct frame *frame)
{
    struct rpc_peer *peer = call->peer;
    struct rpc_held *held = call->held;

    assert(call->state == CALL_ENDED);
    list_del(&call->link);
    peer->call_count--;
    call->state = CALL_IDLE;
    call->held = NULL;
    if (held && held->msg.sent)
        held->msg.sent(held->msg.sent_arg, call->status);
    free(held);
    call->ops->done(call, call->status, frame);
}

static void tell_ended(struct rpc_peer *peer)
{
    while (!list_empty(&peer->ended))
        tell_call(list_entry(peer->ended.next, struct rpc_call, link), NULL);
}

static void on_task(struct loop *loop, struct loop_task *task)
{
    struct rpc_peer *peer = container_of(task, struct rpc_peer, task);

    enter(peer);
    tell_ended(peer);
    leave(peer);
}

static void end_all(struct rpc_peer *peer, struct list *calls, enum mc_status status)
{
    while (!list_empty(calls))
        end_call(list_entry(calls->next, struct rpc_call, link), status);
}

/* Nobody waits any more: tell the peer, or cut it off when it might still act on our memory. */
static void give_up(struct rpc_call *call, enum mc_status status)
{
    struct rpc_peer *peer = call->peer;
    struct conn_msg cancel = {.type = MSG_CANCEL, .request = call->request};
    bool sent = call->state == CALL_SENT;

    end_call(call, status);
    if (!sent || !peer->conn)
        return;
    if (call->flags & RPC_CUT_ON_FAIL)
        conn_abort(peer->conn, MC_ECLOSED);
    else
        conn_queue(peer->conn, &cancel, -1, true); /* bounded by the number of calls */
}

static void on_deadline(struct loop *loop, struct loop_timer *timer)
{
    struct rpc_call *call = container_of(timer, struct rpc_call, timer);
    struct rpc_peer *peer = call->peer;

    give_up(call, MC_ETIMEDOUT);
    loop_defer(peer->loop, &peer->task);
}

void rpc_cancel(struct rpc_call *call)
{
    if (call->state != CALL_HELD && call->state != CALL_SENT)
        return;
    give_up(call, MC_ECANCELED);
    loop_defer(call->peer->loop, &call->peer->task);
}

bool rpc_call_active(const struct rpc_call *call)
{
    return call->state != CALL_IDLE;
}

/* --- frames --- */

static bool request_eq(const struct hnode *node, const void *key)
{
    return container_of(node, struct rpc_call, node)->request == *(const uint64_t *)key;
}

static struct rpc_call *call_of(struct rpc_peer *peer, uint64_t request)
{
    struct hnode *node = hashmap_find(&peer->table, hash_mix(request), request_eq, &request);

    return node ? container_of(node, struct rpc_call, node) : NULL;
}

static void writable(struct rpc_peer *peer)
{
    if (!peer->want_writable || !peer->conn || peer->destroying)
        return;
    peer->want_writable = false;
    if (peer->opts.ops && peer->opts.ops->on_writable)
        peer->opts.ops->on_writable(peer->conn);
}

static void answer_complete(
    struct rpc_peer *peer, struct rpc_call *call, const struct frame *frame, enum mc_status status)
{
    if (frame->flags & FRAME_MORE && status == MC_OK) {
        if (call->ops->more)
            call->ops->more(call, frame);
        return;
    }
    end_call(call, status != MC_OK ? status : frame->status);
    tell_call(call, frame);
}

static void on_answer(struct rpc_peer *peer, const struct frame *frame)
{
    struct rpc_call *call = call_of(peer, frame->request);

    if (!(frame->flags & FRAME_MORE) && peer->in_flight > 0)
        peer->in_flight--;
    peer->receiving = frame->payload_len ? call : NULL;
    if (!call) {
        log_debug("peer %s: late answer to request %llu", conn_name(peer->conn), (unsigned long long)frame->request);
        return;
    }
    if (!frame->payload_len)
        answer_complete(peer, call, frame, MC_OK);
    else if (call->ops->head)
        call->ops->head(call, frame);
}

static void on_frame(struct conn *conn, const struct frame *frame)
{
    struct rpc_peer *peer = conn->rpc;

    enter(peer);
    if (frame->flags & FRAME_REPLY) {
        on_answer(peer, frame);
        send_held(peer);
        writable(peer);
    } else if (peer->opts.ops && peer->opts.ops->on_frame)
        peer->opts.ops->on_frame(conn, frame);
    else if (frame->type != MSG_CANCEL)
        conn_reply_unknown(conn, frame);
    leave(peer);
}

static size_t payload_dst(struct conn *conn, const struct frame *frame, uint64_t off, size_t max, void **dst)
{
    struct rpc_peer *peer = conn->rpc;
    struct rpc_call *call = peer->receiving;

    if (!(frame->flags & FRAME_REPLY))
        return peer->opts.ops && peer->opts.ops->payload_dst ? peer->opts.ops->payload_dst(conn, frame, off, max, dst)
                                                             : max;
    return call && call->ops->payload_dst ? call->ops->payload_dst(call, frame, off, max, dst) : max;
}

static void on_piece(struct conn *conn, const struct frame *frame, uint64_t off, uint32_t len, uint32_t crc)
{
    struct rpc_peer *peer = conn->rpc;
    struct rpc_call *call = peer->receiving;

    if (!(frame->flags & FRAME_REPLY)) {
        if (peer->opts.ops && peer->opts.ops->on_piece)
            peer->opts.ops->on_piece(conn, frame, off, len, crc);
    } else if (call && call->ops->on_piece) {
        call->ops->on_piece(call, frame, off, len, crc);
    }
}

static void on_payload_end(struct conn *conn, const struct frame *frame, enum mc_status status)
{
    struct rpc_peer *peer = conn->rpc;
    struct rpc_call *call = peer->receiving;

    if (!(frame->flags & FRAME_REPLY)) {
        if (peer->opts.ops && peer->opts.ops->on_payload_end)
            peer->opts.ops->on_payload_end(conn, frame, status);
        return;
    }
    peer->receiving = NULL;
    if (!call)
        return;
    enter(peer);
    answer_complete(peer, call, frame, status);
    leave(peer);
}

static void on_fd(struct conn *conn, const struct frame *frame, int fd)
{
    struct rpc_peer *peer = conn->rpc;

    if (peer->opts.ops && peer->opts.ops->on_fd)
        peer->opts.ops->on_fd(conn, frame, fd);
    else
        close(fd);
}

/* --- sending --- */

static uint32_t credits_of(const struct rpc_peer *peer)
{
    uint32_t credits = conn_peer(peer->conn)->credits;

    return credits ? credits : 1;
}

/* On the open connection. */
static enum mc_status transmit(struct rpc_peer *peer, struct rpc_call *call, const struct conn_msg *msg)
{
    struct conn_msg copy = *msg;
    enum mc_status status;

    if (peer->in_flight >= credits_of(peer)) {
        peer->want_writable = true;
        return MC_AGAIN;
    }
    copy.flags = 0;
    copy.request = peer->next_request + 1;
    status = conn_send(peer->conn, &copy);
    if (status == MC_AGAIN)
        peer->want_writable = true;
    if (status != MC_OK)
        return status == MC_ECLOSED ? MC_EPEERDOWN : status;
    call->request = ++peer->next_request;
    hashmap_add(&peer->table, &call->node, hash_mix(call->request)); /* bounded by calls_max before */
    list_push_back(&peer->sent, &call->link);
    call->state = CALL_SENT;
    peer->in_flight++;
    return MC_OK;
}

static enum mc_status hold(struct rpc_peer *peer, struct rpc_call *call, const struct conn_msg *msg)
{
    size_t spans = msg->span_count * sizeof(*msg->spans);
    struct rpc_held *held = malloc(sizeof(*held) + spans + msg->body.len);

    if (!held)
        return MC_ENOMEM;
    held->msg = *msg;
    if (msg->trace) {
        memcpy(held->trace, msg->trace, TRACE_SIZE);
        held->msg.trace = held->trace;
    }
    if (spans) {
        memcpy(held->data, msg->spans, spans);
        held->msg.spans = (const struct conn_span *)(const void *)held->data;
    }
    if (msg->body.len)
        memcpy(held->data + spans, msg->body.ptr, msg->body.len);
    held->msg.body = slice_of(held->data + spans, msg->body.len);
    call->held = held;
    list_push_back(&peer->held, &call->link);
    call->state = CALL_HELD;
    return MC_OK;
}

enum mc_status rpc_send(struct rpc_peer *peer, struct rpc_call *call, const struct conn_msg *msg)
{
    uint64_t deadline = msg->deadline_ns ? msg->deadline_ns : DEADLINE_NONE;
    enum mc_status status;

    assert(loop_in_thread(peer->loop));
    assert(call->state == CALL_IDLE && call->ops && call->ops->done);
    if (peer->health == RPC_DOWN || peer->destroying)
        return MC_EPEERDOWN;
    if (deadline_passed(deadline, loop_now_ns(peer->loop)))
        return MC_ETIMEDOUT;
    if (peer->call_count >= peer->opts.calls_max) {
        peer->want_writable = true;
        return MC_AGAIN;
    }
    call->peer = peer;
    call->held = NULL;
    list_init(&call->link);
    loop_timer_init(&call->timer, on_deadline);
    if (loop_timer_set(peer->loop, &call->timer, deadline) != MC_OK)
        return MC_ENOMEM;
    /* Held ones go first, so that requests leave in the order in which they were given. */
    if (peer->health == RPC_UP && list_empty(&peer->held))
        status = transmit(peer, call, msg);
    else
        status = hold(peer, call, msg);
    if (status != MC_OK) {
        loop_timer_cancel(peer->loop, &call->timer);
        return status;
    }
    peer->call_count++;
    enter(peer);
    if (peer->health == RPC_IDLE)
        start(peer);
    leave(peer);
    return MC_OK;
}

/* Send what was held back, as far as credits and queue allow. */
static void send_held(struct rpc_peer *peer)
{
    while (!list_empty(&peer->held) && peer->health == RPC_UP && !peer->destroying) {
        struct rpc_call *call = list_entry(peer->held.next, struct rpc_call, link);
        struct rpc_held *held = call->held;
        enum mc_status status;

        list_del(&call->link);
        status = transmit(peer, call, &held->msg);
        if (status == MC_OK) {
            call->held = NULL;
            free(held);
            continue;
        }
        list_push_front(&peer->held, &call->link);
        if (status == MC_AGAIN)
            return;
        end_call(call, status);
    }
    tell_ended(peer);
}

enum mc_status rpc_notify(struct rpc_peer *peer, const struct conn_msg *msg)
{
    struct conn_msg copy = *msg;
    enum mc_status status;

    if (peer->health == RPC_DOWN || peer->destroying)
        return MC_EPEERDOWN;
    if (peer->health != RPC_UP) {
        enter(peer);
        if (peer->health == RPC_IDLE)
            start(peer);
        leave(peer);
        return MC_AGAIN;
    }
    copy.request = 0;
    status = conn_send(peer->conn, &copy);
    if (status == MC_AGAIN)
        peer->want_writable = true;
    return status;
}

/* --- the connection --- */

static void on_ready(struct conn *conn)
{
    struct rpc_peer *peer = conn->rpc;

    peer->up_since_ns = loop_now_ns(peer->loop);
    peer->in_flight = 0;
    peer->error = MC_OK;
    peer->error_text[0] = 0;
    enter(peer);
    set_health(peer, RPC_UP, MC_OK);
    if (peer->opts.ops && peer->opts.ops->on_ready && !peer->destroying)
        peer->opts.ops->on_ready(conn);
    send_held(peer);
    leave(peer);
}

static void on_writable(struct conn *conn)
{
    struct rpc_peer *peer = conn->rpc;

    enter(peer);
    send_held(peer);
    writable(peer);
    leave(peer);
}

static void wait_before_retry(struct rpc_peer *peer)
{
    uint64_t ns;

    peer->backoff_ms = peer->backoff_ms ? peer->backoff_ms * 2 : BACKOFF_MIN_MS;
    if (peer->backoff_ms > BACKOFF_MAX_MS)
        peer->backoff_ms = BACKOFF_MAX_MS;
    /* Between half and all of it, so that a hundred clients of a restarted node do not come at the same instant. */
    ns = peer->backoff_ms * NS_PER_MS / 2 + rng_below(&peer->rng, peer->backoff_ms * NS_PER_MS / 2 + 1);
    loop_timer_set(peer->loop, &peer->timer, loop_now_ns(peer->loop) + ns);
}

static void failed(struct rpc_peer *peer, enum mc_status status, bool was_up)
{
    char text[ADDR_TEXT_MAX];

    if (peer->destroying)
        return;
    peer->error = status;
    if (was_up && loop_now_ns(peer->loop) - peer->up_since_ns >= STABLE_NS)
        peer->backoff_ms = 0;
    if (was_up || peer->backoff_ms == 0)
        log_info("peer %s is gone: %s%s%s", addr_format(&peer->opts.addr, text), mc_status_str(status),
            peer->error_text[0] ? ": " : "", peer->error_text);
    /* The first loss of a good connection costs no waiting: most often the peer was restarted. */
    if (was_up && peer->backoff_ms == 0 && !peer->opts.keep_connected) {
        set_health(peer, RPC_IDLE, status);
        return;
    }
    wait_before_retry(peer);
    set_health(peer, RPC_DOWN, status);
}

/* The owner's on_close is for connections whose on_ready he saw, and comes once. */
static void tell_owner_closed(struct rpc_peer *peer, struct conn *conn, enum mc_status status)
{
    bool owed = conn->state_was_ready;

    conn->state_was_ready = false;
    if (owed && peer->opts.ops && peer->opts.ops->on_close)
        peer->opts.ops->on_close(conn, status);
}

static void on_close(struct conn *conn, enum mc_status status)
{
    struct rpc_peer *peer = conn->rpc;
    bool was_up = peer->health == RPC_UP;

    enter(peer);
    strcpy(peer->error_text, conn_refusal(conn)); /* same size */
    tell_owner_closed(peer, conn, status);
    peer->conn = NULL;
    peer->receiving = NULL;
    end_all(peer, &peer->sent, status);
    end_all(peer, &peer->held, status);
    failed(peer, status, was_up);
    tell_ended(peer);
    leave(peer);
}

static const struct conn_ops peer_ops = {
    .on_ready = on_ready,
    .on_frame = on_frame,
    .payload_dst = payload_dst,
    .on_piece = on_piece,
    .on_payload_end = on_payload_end,
    .on_writable = on_writable,
    .on_fd = on_fd,
    .on_close = on_close,
};

/* For connections whose peer was destroyed and that wait for their end. */
static void orphan_frame(struct conn *conn, const struct frame *frame)
{
}

static void orphan_close(struct conn *conn, enum mc_status status)
{
}

static const struct conn_ops orphan_ops = {
    .on_frame = orphan_frame,
    .on_close = orphan_close,
};

static void start(struct rpc_peer *peer)
{
    struct conn_opts opts = {
        .self = &peer->self,
        .expect = peer->expect_set ? &peer->expect : NULL,
        .ops = &peer_ops,
        .user = peer->opts.user,
        .limits = peer->opts.limits,
    };
    enum mc_status status;

    if (peer->destroying || peer->conn)
        return;
    loop_timer_cancel(peer->loop, &peer->timer);
    status = conn_connect(peer->loop, &peer->opts.addr, &opts, &peer->conn);
    if (status == MC_OK) {
        peer->conn->rpc = peer;
        set_health(peer, RPC_CONNECTING, MC_OK);
        return;
    }
    peer->conn = NULL;
    end_all(peer, &peer->held, status);
    loop_defer(peer->loop, &peer->task);
    failed(peer, status, false);
}

static void on_retry(struct loop *loop, struct loop_timer *timer)
{
    struct rpc_peer *peer = container_of(timer, struct rpc_peer, timer);

    enter(peer);
    if (peer->opts.keep_connected)
        start(peer);
    else
        set_health(peer, RPC_IDLE, peer->error);
    leave(peer);
}

/* --- life --- */

struct rpc_peer *rpc_peer_create(struct loop *loop, const struct rpc_peer_opts *opts)
{
    struct rpc_peer *peer = calloc(1, sizeof(*peer));
    uint64_t seed;

    assert(loop_in_thread(loop));
    if (!peer)
        return NULL;
    peer->loop = loop;
    peer->opts = *opts;
    peer->opts.calls_max = opts->calls_max ? opts->calls_max : 4096;
    peer->self = *opts->self;
    rpc_peer_expect(peer, opts->expect);
    list_init(&peer->held);
    list_init(&peer->sent);
    list_init(&peer->ended);
    loop_timer_init(&peer->timer, on_retry);
    loop_task_init(&peer->task, on_task);
    random_bytes(&seed, sizeof(seed));
    rng_seed(&peer->rng, seed);
    if (loop_timer_reserve(loop, 1) != MC_OK || hashmap_init(&peer->table, 0, 0) != MC_OK) {
        free(peer);
        return NULL;
    }
    if (opts->keep_connected)
        loop_timer_set(loop, &peer->timer, loop_now_ns(loop)); /* not inside this call: its callbacks may want `peer` */
    return peer;
}

static void orphan(struct rpc_peer *peer)
{
    struct conn *conn = peer->conn;

    if (!conn)
        return;
    conn_abort(conn, MC_ECLOSED);
    tell_owner_closed(peer, conn, MC_ECLOSED);
    conn_set_ops(conn, &orphan_ops);
    conn_tell_sent(conn); /* the owner of what was borrowed is about to go too */
    conn->rpc = NULL;
    peer->conn = NULL;
}

void rpc_peer_destroy(struct rpc_peer *peer)
{
    if (!peer || peer->destroying)
        return;
    assert(loop_in_thread(peer->loop));
    peer->destroying = true;
    enter(peer);
    orphan(peer);
    end_all(peer, &peer->sent, MC_ECANCELED);
    end_all(peer, &peer->held, MC_ECANCELED);
    tell_ended(peer);
    loop_timer_cancel(peer->loop, &peer->timer);
    loop_defer_cancel(peer->loop, &peer->task);
    leave(peer);
}

void rpc_peer_cut(struct rpc_peer *peer, enum mc_status status)
{
    if (peer->conn)
        conn_abort(peer->conn, status);
}

void rpc_peer_kick(struct rpc_peer *peer)
{
    peer->backoff_ms = 0;
    enter(peer);
    if (peer->health == RPC_DOWN || peer->health == RPC_IDLE)
        start(peer);
    leave(peer);
}

void rpc_peer_expect(struct rpc_peer *peer, const struct hello_expect *expect)
{
    peer->expect_set = expect != NULL;
    if (expect)
        peer->expect = *expect;
}

enum rpc_health rpc_peer_health(const struct rpc_peer *peer)
{
    return peer->health;
}

void *rpc_peer_user(const struct rpc_peer *peer)
{
    return peer->opts.user;
}

const struct addr *rpc_peer_addr(const struct rpc_peer *peer)
{
    return &peer->opts.addr;
}

struct conn *rpc_peer_conn(const struct rpc_peer *peer)
{
    return peer->health == RPC_UP ? peer->conn : NULL;
}

enum mc_status rpc_peer_error(const struct rpc_peer *peer, const char **text)
{
    if (text)
        *text = peer->error_text;
    return peer->error;
}

struct rpc_peer *rpc_peer_of(const struct conn *conn)
{
    return conn->rpc;
}
