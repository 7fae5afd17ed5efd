/* link.c - see link.h. */
#include "store/link.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"

enum {
    BACKOFF_MIN_MS = 10,
    BACKOFF_MAX_MS = 200,
    BACKOFF_STRANGER_MS = 5000, /* somebody answers there who is not the one we look for: that takes longer to change */
    QUEUE_MAX = 64 << 20,       /* bytes waiting to be sent: an inventory of a million objects fits */
    EARLY_BYTES = 8 << 10,  /* of messages: sent at once, so that the peer works while this turn makes more of them */
    SCRATCH_KEEP = 1 << 20, /* a scratch buffer longer than this is freed after use */
};

/* ---- messages on a connection ---- */

static enum mc_status send_msg(struct conn *conn, struct buf *scratch, const struct store_msg *msg)
{
    uint64_t now = loop_now_ns(conn_loop(conn));

    buf_reset(scratch);
    store_msg_encode(msg, scratch);
    if (buf_status(scratch) != MC_OK)
        return buf_status(scratch);
    struct conn_msg out = {
        .type = msg->type,
        .flags = msg->reply ? FRAME_REPLY : 0,
        .status = msg->status,
        .request = msg->request,
        .trace = msg->trace,
        .deadline_ns = msg->reply ? DEADLINE_NONE : deadline_from_wire(msg->deadline_ms, now),
        .body = buf_slice(scratch),
    };
    enum mc_status status = conn_send(conn, &out);
    if (conn_queued(conn) >= EARLY_BYTES)
        conn_flush(conn);
    if (scratch->cap > SCRATCH_KEEP) {
        buf_fini(scratch);
        buf_init(scratch, FRAME_BODY_MAX);
    }
    return status;
}

/* False: the frame was none of ours, or the connection was ended because of it. */
static bool decode(struct conn *conn, const struct frame *frame, struct store_msg *msg)
{
    const char *bad = "";
    enum mc_status status = store_msg_decode(frame, msg, &bad);

    if (status == MC_OK)
        return true;
    if (status == MC_ENOSUP) {
        conn_reply_unknown(conn, frame);
        return false;
    }
    log_warn("%s: malformed %s message, field %s", conn_name(conn), message_name(frame->type), bad);
    conn_abort(conn, MC_EPROTO);
    return false;
}

void store_log(const char *who, int level, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log_at((enum log_level)level, "%s: %s", who, text);
}

void store_hello(struct hello *self, enum hello_role role, const uint8_t uuid[16], uint32_t epoch, const char *host_id)
{
    *self = (struct hello){.role = role, .epoch = epoch};
    memcpy(self->uuid, uuid, UUID_SIZE);
    if (host_id)
        strncpy(self->host_id, host_id, HELLO_HOST_MAX);
}

/* ---- dialled ---- */

struct store_link {
    struct loop *loop;
    struct conn *conn; /* NULL between attempts */
    struct addr addr;
    struct hello self;
    struct hello_expect expect;
    const struct store_link_ops *ops;
    void *user;
    struct loop_timer retry;
    struct buf scratch;
    struct rng rng;
    uint32_t backoff_ms;
    enum mc_status error;
    char refusal[256];
    bool up, closing;
};

static void store_link_connect(struct store_link *link);

static void on_retry(struct loop *loop, struct loop_timer *timer)
{
    store_link_connect(container_of(timer, struct store_link, retry));
}

static bool is_stranger(enum mc_status status)
{
    return status == MC_EREFUSED || status == MC_EVERSION || status == MC_EPERM || status == MC_EPROTO;
}

static void retry_later(struct store_link *link)
{
    uint32_t backoff_max = is_stranger(link->error) ? BACKOFF_STRANGER_MS : BACKOFF_MAX_MS;
    uint64_t ms = link->backoff_ms + rng_below(&link->rng, link->backoff_ms / 4 + 1);

    link->backoff_ms = link->backoff_ms * 2 > backoff_max ? backoff_max : link->backoff_ms * 2;
    /* Room for this timer was reserved by store_link_open(). */
    loop_timer_set(link->loop, &link->retry, deadline_after_ms(loop_now_ns(link->loop), ms));
}

static void went_down(struct store_link *link, enum mc_status why)
{
    link->error = why;
    if (link->up) {
        link->up = false;
        link->ops->on_down(link, why);
    }
}

static void dialled_ready(struct conn *conn)
{
    struct store_link *link = conn_user(conn);

    if (!link)
        return;
    link->backoff_ms = BACKOFF_MIN_MS;
    link->up = true;
    link->error = MC_OK;
    link->refusal[0] = '\0';
    link->ops->on_up(link, conn_peer(conn));
}

static void dialled_frame(struct conn *conn, const struct frame *frame)
{
    struct store_link *link = conn_user(conn);
    struct store_msg msg;

    if (link && link->up && decode(conn, frame, &msg))
        link->ops->on_message(link, &msg);
}

static void dialled_close(struct conn *conn, enum mc_status status)
{
    struct store_link *link = conn_user(conn);

    if (!link)
        return; /* store_link_close() has let it go */
    link->conn = NULL;
    if (strcmp(link->refusal, conn_refusal(conn)) != 0) {
        strncpy(link->refusal, conn_refusal(conn), sizeof(link->refusal) - 1);
        if (link->refusal[0])
            log_warn("%s refuses us: %s", conn_name(conn), link->refusal);
    }
    went_down(link, status);
    retry_later(link);
}

static const struct conn_ops dialled_ops = {
    .on_ready = dialled_ready,
    .on_frame = dialled_frame,
    .on_close = dialled_close,
};

static void store_link_connect(struct store_link *link)
{
    struct conn_opts opts = {
        .self = &link->self,
        .expect = &link->expect,
        .ops = &dialled_ops,
        .user = link,
        .limits = {.queue_max = QUEUE_MAX},
    };

    link->error = conn_connect(link->loop, &link->addr, &opts, &link->conn);
    if (link->error != MC_OK) {
        link->conn = NULL;
        retry_later(link);
    }
}

struct store_link *store_link_open(struct loop *loop, const struct store_link_opts *opts)
{
    struct store_link *link = calloc(1, sizeof(*link));

    if (!link)
        return NULL;
    if (loop_timer_reserve(loop, 1) != MC_OK) {
        free(link);
        return NULL;
    }
    link->loop = loop;
    link->addr = opts->addr;
    link->self = *opts->self;
    if (opts->expect)
        link->expect = *opts->expect;
    link->ops = opts->ops;
    link->user = opts->user;
    link->backoff_ms = BACKOFF_MIN_MS;
    loop_timer_init(&link->retry, on_retry);
    buf_init(&link->scratch, FRAME_BODY_MAX);
    rng_seed(&link->rng, hash_seed() ^ (uintptr_t)link);
    store_link_connect(link);
    return link;
}

void store_link_close(struct store_link *link)
{
    if (!link)
        return;
    loop_timer_cancel(link->loop, &link->retry);
    if (link->conn) {
        /* Not conn_close(): that lingers on a loop which may not run any more. */
        conn_set_user(link->conn, NULL);
        conn_abort(link->conn, MC_ECLOSED);
        link->conn = NULL;
    }
    went_down(link, MC_ECLOSED);
    buf_fini(&link->scratch);
    free(link);
}

void store_link_move(struct store_link *link, const struct addr *addr, const struct hello_expect *expect)
{
    link->addr = *addr;
    link->expect = expect ? *expect : (struct hello_expect){0};
    if (link->conn)
        return;
    link->backoff_ms = BACKOFF_MIN_MS;
    loop_timer_cancel(link->loop, &link->retry);
    store_link_connect(link);
}

void store_link_cut(struct store_link *link, enum mc_status why)
{
    if (link->conn)
        conn_abort(link->conn, why);
}

bool store_link_up(const struct store_link *link)
{
    return link->up;
}

struct loop_io *store_link_io(const struct store_link *link)
{
    return link->up && link->conn ? conn_io(link->conn) : NULL;
}

void *store_link_user(const struct store_link *link)
{
    return link->user;
}

const struct addr *store_link_addr(const struct store_link *link)
{
    return &link->addr;
}

enum mc_status store_link_error(const struct store_link *link, const char **text)
{
    if (text)
        *text = link->refusal;
    return link->error;
}

enum mc_status store_link_send(struct store_link *link, const struct store_msg *msg)
{
    return link->up && link->conn ? send_msg(link->conn, &link->scratch, msg) : MC_EPEERDOWN;
}

void store_link_drop_queued(struct store_link *link)
{
    if (link->conn)
        conn_drop_queued(link->conn, MC_ETIMEDOUT);
}

/* ---- accepted ---- */

struct accepted {
    struct store_link_table *table;
    struct conn *conn; /* NULL: number is free */
    void *data;
    uint32_t peer, next_free;
    bool up;
};

struct store_link_table {
    const struct store_link_table_ops *ops;
    void *user;
    struct accepted **peers; /* allocated one by one, when a number is used first */
    uint32_t peers_max, peers_used, free_first, count;
    struct buf scratch;
};

static void accepted_ready(struct conn *conn)
{
    struct accepted *a = conn_user(conn);

    a->up = true;
    a->table->ops->on_up(a->table->user, a->peer, conn_peer(conn));
}

static void accepted_frame(struct conn *conn, const struct frame *frame)
{
    struct accepted *a = conn_user(conn);
    struct store_msg msg;

    if (a->up && decode(conn, frame, &msg))
        a->table->ops->on_message(a->table->user, a->peer, &msg);
}

static void accepted_down(struct accepted *a)
{
    struct store_link_table *table = a->table;

    if (a->up) {
        a->up = false;
        table->ops->on_down(table->user, a->peer);
    }
    a->conn = NULL;
    a->data = NULL;
    a->next_free = table->free_first;
    table->free_first = a->peer;
    table->count--;
}

static void accepted_close(struct conn *conn, enum mc_status status)
{
    struct accepted *a = conn_user(conn);

    if (a)
        accepted_down(a);
}

static const struct conn_ops accepted_ops = {
    .on_ready = accepted_ready,
    .on_frame = accepted_frame,
    .on_close = accepted_close,
};

static void orphan_frame(struct conn *conn, const struct frame *frame)
{
}

static void orphan_close(struct conn *conn, enum mc_status status)
{
}

/* Of connections whose table is gone: they only end. */
static const struct conn_ops orphan_ops = {.on_frame = orphan_frame, .on_close = orphan_close};

struct store_link_table *store_link_table_create(uint32_t peers_max, const struct store_link_table_ops *ops, void *user)
{
    struct store_link_table *table = calloc(1, sizeof(*table));

    if (!table)
        return NULL;
    table->peers = calloc(peers_max, sizeof(*table->peers));
    if (!table->peers) {
        free(table);
        return NULL;
    }
    table->ops = ops;
    table->user = user;
    table->peers_max = peers_max;
    table->peers_used = 1; /* 0 is the master */
    buf_init(&table->scratch, FRAME_BODY_MAX);
    return table;
}

void store_link_table_destroy(struct store_link_table *table)
{
    if (!table)
        return;
    for (uint32_t i = 1; i < table->peers_used; i++) {
        struct accepted *a = table->peers[i];

        if (a->conn) {
            struct conn *conn = a->conn;

            conn_set_ops(conn, &orphan_ops);
            conn_set_user(conn, NULL);
            accepted_down(a);
            conn_abort(conn, MC_ECLOSED);
        }
        free(a);
    }
    buf_fini(&table->scratch);
    free(table->peers);
    free(table);
}

enum mc_status store_link_table_accept(struct store_link_table *table, struct conn *conn, struct buf *why)
{
    struct accepted *a;

    if (table->free_first) {
        a = table->peers[table->free_first];
        table->free_first = a->next_free;
    } else if (table->peers_used == table->peers_max) {
        buf_printf(why, "%u connections are open, that is the limit", table->peers_max - 1);
        return MC_EBUSY;
    } else {
        a = calloc(1, sizeof(*a));
        if (!a)
            return MC_ENOMEM;
        a->table = table;
        a->peer = table->peers_used;
        table->peers[table->peers_used++] = a;
    }
    a->conn = conn;
    table->count++;
    conn_set_ops(conn, &accepted_ops);
    conn_set_user(conn, a);
    return MC_OK;
}

static struct accepted *accepted_at(const struct store_link_table *table, uint32_t peer)
{
    return peer > 0 && peer < table->peers_used && table->peers[peer]->up ? table->peers[peer] : NULL;
}

enum mc_status store_link_table_send(struct store_link_table *table, uint32_t peer, const struct store_msg *msg)
{
    struct accepted *a = accepted_at(table, peer);

    return a ? send_msg(a->conn, &table->scratch, msg) : MC_EPEERDOWN;
}

const struct hello *store_link_table_hello(const struct store_link_table *table, uint32_t peer)
{
    struct accepted *a = accepted_at(table, peer);

    return a ? conn_peer(a->conn) : NULL;
}

void store_link_table_cut(struct store_link_table *table, uint32_t peer, enum mc_status why)
{
    struct accepted *a = accepted_at(table, peer);

    if (a)
        conn_abort(a->conn, why);
}

void store_link_table_drop_queued(struct store_link_table *table)
{
    for (uint32_t i = 1; i < table->peers_used; i++)
        if (table->peers[i]->conn)
            conn_drop_queued(table->peers[i]->conn, MC_ETIMEDOUT);
}

uint32_t store_link_table_count(const struct store_link_table *table)
{
    return table->count;
}

void store_link_table_set_data(struct store_link_table *table, uint32_t peer, void *data)
{
    struct accepted *a = accepted_at(table, peer);

    if (a)
        a->data = data;
}

void *store_link_table_data(const struct store_link_table *table, uint32_t peer)
{
    struct accepted *a = accepted_at(table, peer);

    return a ? a->data : NULL;
}

/* ---- connections nobody owns yet ---- */

static void undecided_frame(struct conn *conn, const struct frame *frame)
{
    conn_reply_unknown(conn, frame);
}

static void undecided_close(struct conn *conn, enum mc_status status)
{
}

const struct conn_ops store_undecided_ops = {.on_frame = undecided_frame, .on_close = undecided_close};
