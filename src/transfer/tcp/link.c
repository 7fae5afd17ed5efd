/* link.c - life of a link: dialling, being adopted, clocks, dispatch of frames, cutting.
 *
 *   dialled or adopted -> connection ready -> TE_SYNC both ways -> ready (in use) -> detached (its peer has forgotten it) -> freed
 *                                                                                                               by on_close */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "transfer/shm/shm.h"
#include "transfer/tcp/tcp.h"

struct conn_limits tcp_limits(void)
{
    return (struct conn_limits){.body_max = 64u << 10, .payload_max = WIRE_BYTES_MAX, .credits = 2 * SLOTS};
}

static struct tcp_link *link_create(struct mc_peer *peer, bool dialled)
{
    struct tcp_link *link = calloc(1, sizeof(*link));

    if (!link)
        return NULL;
    link->slots = calloc(SLOTS, sizeof(*link->slots));
    if (!link->slots) {
        free(link);
        return NULL;
    }
    link->te = peer->te;
    link->peer = peer;
    link->dialled = dialled;
    list_init(&link->serves);
    for (unsigned i = 0; i < SLOTS; i++) {
        link->slots[i].link = link;
        link->free_slots[link->free_count++] = (uint16_t)(SLOTS - 1 - i);
    }
    te_ref(link->te);
    list_push_back(&peer->links, &link->peer_link);
    list_push_back(&peer->te->links, &link->te_link);
    peer->link_count++;
    return link;
}

static void link_free(struct tcp_link *link)
{
    struct mc_te *te = link->te;

    list_del(&link->peer_link);
    list_del(&link->te_link);
    for (unsigned i = 0; i < SLOTS; i++)
        flow_fini(&link->slots[i].flow);
    free(link->slots);
    free(link);
    te_unref(te);
}

/* The peer has no such link any more; what flew over it goes on elsewhere. `fenced`: we cut it ourselves. */
static void link_detach(struct tcp_link *link, bool fenced, enum mc_status why)
{
    struct mc_peer *peer = link->peer;

    if (!peer)
        return;
    if (link->ready)
        atomic_fetch_sub(&peer->ready_count, 1);
    link->ready = false;
    list_del(&link->peer_link);
    peer->link_count--;
    requests_lost(link, fenced);
    link->peer = NULL;
    peer_link_down(peer, why);
}

void link_cut(struct tcp_link *link, bool fenced)
{
    if (!link->peer)
        return;
    conn_abort(link->conn, MC_ECLOSED);
    link_detach(link, fenced, MC_OK);
}

/* ---- clocks ---- */

static void sync_send(struct tcp_link *link, uint64_t request, const struct wire_sync *sync)
{
    struct buf body;
    struct conn_msg msg = {.type = MSG_TE_SYNC, .request = request};

    buf_init(&body, 1024);
    wire_sync_encode(sync, &body);
    msg.body = buf_slice(&body);
    if (buf_status(&body) != MC_OK || conn_send(link->conn, &msg) != MC_OK)
        conn_abort(link->conn, MC_ENOMEM);
    buf_fini(&body);
}

/* Request id 1: one question at a time. */
void link_ask_clock(struct tcp_link *link, bool please)
{
    struct wire_sync sync = {.clock_ns = now_ns(), .please = please};

    if (link->sync_asked_ns)
        return;
    link->sync_asked_ns = sync.clock_ns;
    if (link->te->shm && link->peer && atomic_load(&link->peer->shm_state) != PEER_SHM_NONE &&
        strcmp(link->te->host_id, conn_peer(link->conn)->host_id) == 0)
        snprintf(sync.unix_path, sizeof(sync.unix_path), "%s", shm_path(link->te->shm));
    sync_send(link, 1, &sync);
}

bool link_may_write(const struct tcp_link *link, uint64_t now)
{
    return link->ready && now - link->sync_answered_ns < CLOCK_RENEW_NS;
}

static void link_check_ready(struct tcp_link *link)
{
    if (link->ready || !link->sync_answered || !link->sync_known)
        return;
    link->ready = true;
    peer_link_up(link->peer);
}

static void sync_answer(struct tcp_link *link, const struct frame *frame, const struct wire_sync *asked)
{
    struct wire_sync sync = {.clock_ns = now_ns()};
    struct buf body;

    buf_init(&body, 256);
    wire_sync_encode(&sync, &body);
    if (buf_status(&body) != MC_OK || conn_reply(link->conn, frame, MC_OK, buf_slice(&body)) != MC_OK) {
        conn_abort(link->conn, MC_ENOMEM);
        buf_fini(&body);
        return;
    }
    buf_fini(&body);
    link->sync_answered_ns = sync.clock_ns;
    if (asked->please)
        link_ask_clock(link, false);
    if (!link->sync_answered) {
        link->sync_answered = true;
        shm_peer_offers(link->peer, conn_peer(link->conn), asked->unix_path, link->dialled);
        link_check_ready(link);
    } else if (!asked->unix_path[0] && atomic_load(&link->peer->shm_state) == PEER_SHM_WAIT) {
        peer_shm_set(link->peer, PEER_SHM_NONE); /* it tried and failed */
    }
    te_pump_later(link->te); /* writes may have waited for it */
}

/* theirs + offset = ours. The answer was made after we asked, so this offset is never too large; an older reading stays when it is
 * the better one even after what the clocks may have drifted apart since (1000 ppm). */
static void sync_learn(struct tcp_link *link, const struct wire_sync *sync)
{
    int64_t offset = (int64_t)(link->sync_asked_ns - sync->clock_ns);
    int64_t kept = link->clock_offset - (int64_t)((link->sync_asked_ns - link->clock_read_ns) >> 10);

    if (link->sync_asked_ns == 0)
        return;
    link->clock_offset = link->sync_known && kept > offset ? kept : offset;
    link->clock_read_ns = link->sync_asked_ns;
    link->sync_asked_ns = 0;
    link->sync_known = true;
    link_check_ready(link);
}

static void sync_frame(struct tcp_link *link, const struct frame *frame)
{
    const char *bad;
    struct wire_sync sync;

    if (wire_sync_decode(frame->body, &sync, &bad) != MC_OK) {
        log_warn("transfer: peer %s: malformed %s in te-sync", conn_name(link->conn), bad);
        conn_abort(link->conn, MC_EPROTO);
        return;
    }
    if (frame->flags & FRAME_REPLY)
        sync_learn(link, &sync);
    else
        sync_answer(link, frame, &sync);
}

/* ---- callbacks of the connection ---- */

static void on_ready(struct conn *conn)
{
    struct tcp_link *link = conn_user(conn);
    struct mc_peer *peer = link->peer;
    const struct hello *hello = conn_peer(conn);

    if (!peer) {
        conn_abort(conn, MC_ECLOSED);
        return;
    }
    if (!peer->inbound) {
        pthread_mutex_lock(&peer->id_lock);
        peer->known = true;
        memcpy(peer->uuid, hello->uuid, UUID_SIZE);
        peer->epoch = hello->epoch;
        pthread_mutex_unlock(&peer->id_lock);
    }
    link->received_ns = now_ns();
    link_ask_clock(link, false);
}

static void on_frame(struct conn *conn, const struct frame *frame)
{
    struct tcp_link *link = conn_user(conn);

    if (!link->peer)
        return;
    link->received_ns = now_ns();
    switch (frame->type) {
    case MSG_TE_SYNC: sync_frame(link, frame); break;
    case MSG_TE_READ:
    case MSG_TE_WRITE:
        if (frame->flags & FRAME_REPLY)
            request_frame(link, frame);
        else
            serve_frame(link, frame);
        break;
    case MSG_CANCEL: serve_cancel(link, frame->request); break;
    default: conn_reply_unknown(conn, frame);
    }
}

static size_t payload_dst(struct conn *conn, const struct frame *frame, uint64_t off, size_t max, void **dst)
{
    struct tcp_link *link = conn_user(conn);
    struct slot *slot = link->receiving;

    link->received_ns = now_ns();
    if (link->writing)
        return serve_write_dst(link, off, max, dst);
    if (slot && slot->xfer)
        return flow_place(&slot->flow, off, max, conn_buffered(conn) == 0, false, dst);
    *dst = NULL;
    return max;
}

static void on_piece(struct conn *conn, const struct frame *frame, uint64_t off, uint32_t len, uint32_t crc)
{
    struct tcp_link *link = conn_user(conn);

    if (link->writing)
        serve_write_piece(link, off, len);
    else
        request_piece(link, off, len, crc);
}

static void on_payload_end(struct conn *conn, const struct frame *frame, enum mc_status status)
{
    struct tcp_link *link = conn_user(conn);

    if (link->writing)
        serve_write_end(link, frame, status);
    else
        request_payload_end(link, status);
}

static void on_writable(struct conn *conn)
{
    struct tcp_link *link = conn_user(conn);

    te_pump_later(link->te);
}

static void on_close(struct conn *conn, enum mc_status status)
{
    struct tcp_link *link = conn_user(conn);

    if (link->peer)
        link_detach(link, false, link->ready ? MC_OK : status);
    link_free(link);
}

static const struct conn_ops conn_ops = {
    .on_ready = on_ready,
    .on_frame = on_frame,
    .payload_dst = payload_dst,
    .on_piece = on_piece,
    .on_payload_end = on_payload_end,
    .on_writable = on_writable,
    .on_close = on_close,
};

/* For a listener of ours: connections that never said hello end here, with the engine as user pointer. */
static void unknown_close(struct conn *conn, enum mc_status status)
{
}

static void unknown_frame(struct conn *conn, const struct frame *frame)
{
    conn_reply_unknown(conn, frame);
}

static const struct conn_ops unknown_ops = {.on_frame = unknown_frame, .on_close = unknown_close};

const struct conn_ops *tcp_conn_ops(void)
{
    return &unknown_ops;
}

/* ---- beginning and end ---- */

enum mc_status tcp_dial(struct mc_peer *peer)
{
    struct hello self = {0};
    struct hello_expect expect = {
        .uuid_set = peer->expect_uuid,
        .epoch_set = peer->want_epoch != 0,
        .epoch = peer->want_epoch,
    };
    struct conn_opts opts = {.self = &self, .expect = &expect, .ops = &conn_ops, .limits = tcp_limits()};
    struct tcp_link *link = link_create(peer, true);
    enum mc_status status;

    if (!link)
        return MC_ENOMEM;
    memcpy(expect.uuid, peer->want_uuid, UUID_SIZE);
    te_fill_hello(peer->te, &self, ROLE_BULK);
    opts.limits.handshake_ms = peer->timeout_ms;
    opts.user = link;
    status = conn_connect(peer->te->loop, &peer->addr, &opts, &link->conn);
    if (status != MC_OK) {
        peer->link_count--;
        link_free(link);
    }
    return status;
}

bool te_wants(const struct hello *peer)
{
    return peer->role == ROLE_BULK || peer->role == ROLE_ENGINE;
}

enum mc_status te_adopt(struct mc_te *te, struct conn *conn, const struct hello *hello, struct buf *why)
{
    struct mc_peer *peer = peer_inbound(te, hello->uuid, hello->epoch);
    struct tcp_link *link;

    if (!peer)
        return MC_ENOMEM;
    if (peer->link_count >= LINKS_INBOUND) {
        if (why)
            buf_printf(why, "more than %d connections from one engine", LINKS_INBOUND);
        return MC_EBUSY;
    }
    link = link_create(peer, false);
    if (!link) {
        peer_inbound_release(peer);
        return MC_ENOMEM;
    }
    link->conn = conn;
    conn_set_user(conn, link);
    conn_set_ops(conn, &conn_ops);
    return MC_OK;
}

void tcp_cut_links(struct mc_peer *peer)
{
    list_for_each_safe (it, tmp, &peer->links)
        link_cut(list_entry(it, struct tcp_link, peer_link), false);
}

void tcp_drop_links(struct mc_peer *peer)
{
    while (!list_empty(&peer->links)) {
        struct tcp_link *link = list_first(&peer->links, struct tcp_link, peer_link);

        if (link->ready)
            atomic_fetch_sub(&peer->ready_count, 1);
        link->ready = false;
        list_del(&link->peer_link);
        peer->link_count--;
        link->peer = NULL;
        conn_abort(link->conn, MC_ECLOSED);
    }
}

void tcp_tell_clock(struct mc_peer *peer)
{
    list_for_each (it, &peer->links) {
        struct tcp_link *link = list_entry(it, struct tcp_link, peer_link);

        if (link->dialled && link->ready)
            link_ask_clock(link, false);
    }
}

void tcp_region_gone(struct mc_te *te, uint64_t id)
{
    list_for_each_safe (it, tmp, &te->links) {
        struct tcp_link *link = list_entry(it, struct tcp_link, te_link);

        if (link->peer && serves_region(link, id))
            link_cut(link, false);
    }
}
