/* conn_send.c - the write queue.
 *
 * Frames are appended by conn_queue() and written at the end of the turn, as many as fit one sendmsg(2). Within one frame the head
 * is followed by its pieces. As many of them are open, hashed and on their way, as one call takes: each call wakes the receiver, which
 * costs more than the call. A source that reuses its memory for the next piece has one open at a time. The first call is a small one:
 * the receiver wakes up, which takes long, while we hash the rest.
 *
 *   queue: | head+body | head+body | head+body, piece header, data, piece header, data |   <- one sendmsg ends here
 *
 * Finished frames wait in `finished` until their callbacks are told from the loop.
 *
 * Invariants: only the first frame of the queue can be partly sent; `queued` is the sum of their costs. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crc.h"
#include "base/log.h"
#include "net/conn_impl.h"

#define IOV_MAX_HERE 80
#define FIRST_BYTES  (64u << 10) /* the first sendmsg takes about so much */
#define BATCH_BYTES  (1u << 20)  /* another one */
#define TURN_BYTES   (4u << 20)  /* then others get their turn */

/* --- building --- */

static struct out *out_alloc(struct conn *conn, size_t body_len)
{
    bool small = body_len <= INLINE_BODY;
    struct list *node = small ? list_pop_front(&conn->spare) : NULL;
    struct out *out;

    if (node) {
        conn->spare_count--;
        out = list_entry(node, struct out, link);
    } else {
        out = malloc(sizeof(*out) + FRAME_HEADER_SIZE + (small ? INLINE_BODY : body_len));
    }
    if (!out)
        return NULL;
    *out = (struct out){.small = small, .fd = -1, .head_len = FRAME_HEADER_SIZE + body_len};
    return out;
}

static void out_free(struct conn *conn, struct out *out)
{
    free(out->spans);
    if (out->fd >= 0)
        close(out->fd);
    if (!out->small || conn->spare_count >= SPARE_MAX) {
        free(out);
        return;
    }
    out->spans = NULL;
    out->fd = -1;
    conn->spare_count++;
    list_push_front(&conn->spare, &out->link);
}

static enum mc_status span_source(void *arg, uint64_t off, size_t max, struct conn_piece *piece)
{
    struct out *out = arg;
    struct conn_span *span = &out->spans[out->span_at];
    uint64_t left;

    while (out->span_off == span->len) {
        span = &out->spans[++out->span_at];
        out->span_off = 0;
    }
    left = span->len - out->span_off;
    *piece = (struct conn_piece){
        .ptr = (const uint8_t *)span->ptr + out->span_off,
        .len = left < max ? (size_t)left : max,
        .stays = true,
    };
    out->span_off += piece->len;
    return MC_OK;
}

static enum mc_status payload_set(struct out *out, const struct conn_msg *msg, uint64_t len)
{
    out->payload_len = len;
    if (msg->source) {
        out->source = msg->source;
        out->source_arg = msg->source_arg;
        return MC_OK;
    }
    if (len == 0)
        return MC_OK;
    out->spans = malloc(msg->span_count * sizeof(*out->spans));
    if (!out->spans)
        return MC_ENOMEM;
    memcpy(out->spans, msg->spans, msg->span_count * sizeof(*out->spans));
    out->span_count = msg->span_count;
    out->source = span_source;
    out->source_arg = out;
    return MC_OK;
}

static void head_write(struct conn *conn, struct out *out, const struct conn_msg *msg)
{
    struct frame frame = {
        .type = msg->type,
        .flags = msg->flags,
        .status = msg->status,
        .request = msg->request,
        .deadline_ms = deadline_to_wire(msg->deadline_ns ? msg->deadline_ns : DEADLINE_NONE, loop_now_ns(conn->loop)),
        .body_len = (uint32_t)msg->body.len,
        .payload_len = out->payload_len,
    };

    if (msg->trace)
        memcpy(frame.trace, msg->trace, TRACE_SIZE);
    if (msg->body.len)
        frame.body_crc = crc32c_copy(0, out->head + FRAME_HEADER_SIZE, msg->body.ptr, msg->body.len);
    frame_encode(&frame, out->head);
}

static uint64_t payload_length(const struct conn_msg *msg)
{
    uint64_t len = 0;

    if (msg->source)
        return msg->payload_len;
    for (size_t i = 0; i < msg->span_count; i++)
        len += msg->spans[i].len;
    return len;
}

static enum mc_status may_queue(
    struct conn *conn, const struct conn_msg *msg, uint64_t payload_len, size_t cost, bool internal)
{
    uint32_t body_max = conn->peer.body_max ? conn->peer.body_max : FRAME_BODY_MAX;

    if (conn->state >= CONN_CLOSING)
        return MC_ECLOSED;
    if (internal)
        return MC_OK;
    if (conn->state != CONN_READY)
        return MC_AGAIN;
    if (msg->body.len > body_max || msg->span_count > CONN_SPANS_MAX ||
        (conn->peer.payload_max && payload_len > conn->peer.payload_max))
        return MC_ETOOBIG;
    if (conn->queued + cost > conn->limits.queue_max && !list_empty(&conn->queue)) {
        conn->want_writable = true;
        return MC_AGAIN;
    }
    return MC_OK;
}

enum mc_status conn_queue(struct conn *conn, const struct conn_msg *msg, int fd, bool internal)
{
    size_t cost = FRAME_HEADER_SIZE + msg->body.len + SPAN_COST * msg->span_count;
    uint64_t payload_len = payload_length(msg);
    enum mc_status status = may_queue(conn, msg, payload_len, cost, internal);
    struct out *out;

    assert(loop_in_thread(conn->loop));
    if (status != MC_OK)
        return status;
    out = out_alloc(conn, msg->body.len);
    if (!out)
        return MC_ENOMEM;
    status = payload_set(out, msg, payload_len);
    if (status != MC_OK) {
        out_free(conn, out);
        return status;
    }
    head_write(conn, out, msg);
    out->cost = cost;
    out->fd = fd;
    out->sent = msg->sent;
    out->sent_arg = msg->sent_arg;
    list_push_back(&conn->queue, &out->link);
    conn->queued += cost;
    conn->queued_payload += payload_len;
    out->answers = (msg->flags & (FRAME_REPLY | FRAME_MORE)) == FRAME_REPLY && msg->type != MSG_PING;
    if (!conn->write_blocked)
        loop_defer(conn->loop, &conn->flush_task);
    return MC_OK;
}

/* --- writing --- */

static void out_finish(struct conn *conn, struct out *out, enum mc_status status)
{
    if (out->status == MC_OK)
        out->status = status;
    conn->queued -= out->cost;
    conn->queued_payload -= out->payload_len - out->payload_at;
    if (out->answers && conn->requests_open > 0)
        conn->requests_open--;
    list_del(&out->link);
    list_push_back(&conn->finished, &out->link);
}

static struct open_piece *open_at(struct out *out, unsigned i)
{
    return &out->open[(out->open_first + i) % PIECES_OPEN];
}

/* May another piece be opened behind those that are? */
static bool may_open(struct out *out)
{
    return out->payload_open < out->payload_len && out->open_count < PIECES_OPEN &&
           (out->open_count == 0 || open_at(out, out->open_count - 1)->piece.stays);
}

/* Ask for the next piece, of at most `most` bytes, and write its header. A source that fails gives a piece that says so, the last one. */
static struct open_piece *piece_open(struct out *out, size_t most)
{
    uint64_t left = out->payload_len - out->payload_open;
    size_t max = left < most ? (size_t)left : most;
    struct open_piece *open = open_at(out, out->open_count++);
    struct conn_piece *piece = &open->piece;
    struct piece head;

    *piece = (struct conn_piece){0};
    out->status = out->source(out->source_arg, out->payload_open, max, piece);
    assert(out->status <= MC_OK);
    assert(out->status != MC_OK || (piece->len > 0 && piece->len <= max));
    if (out->status != MC_OK)
        *piece = (struct conn_piece){.has_crc = true};
    if (!piece->has_crc)
        piece->crc = crc32c(0, piece->ptr, piece->len);
    head = (struct piece){.len = (uint32_t)piece->len, .crc = piece->crc, .status = out->status};
    piece_encode(&head, open->head);
    out->payload_open += out->status == MC_OK ? piece->len : left;
    return open;
}

static bool out_done(const struct out *out)
{
    return out->head_sent == out->head_len && out->open_count == 0 && out->payload_at == out->payload_len;
}

struct gather {
    struct iovec iov[IOV_MAX_HERE];
    int count;
    size_t bytes, enough;
    int fd; /* to be passed, or -1 */
};

static void gather_add(struct gather *g, const void *ptr, size_t len)
{
    if (len == 0)
        return;
    g->iov[g->count++] = (struct iovec){.iov_base = (void *)(uintptr_t)ptr, .iov_len = len};
    g->bytes += len;
}

static void gather_piece(struct gather *g, const struct open_piece *open, size_t sent)
{
    size_t head = sent < PIECE_HEADER_SIZE ? sent : PIECE_HEADER_SIZE;
    size_t data = sent - head;

    gather_add(g, open->head + head, PIECE_HEADER_SIZE - head);
    gather_add(g, (const uint8_t *)open->piece.ptr + data, open->piece.len - data);
}

static bool gather_full(const struct gather *g)
{
    return g->bytes >= g->enough || g->count + 1 + 2 * PIECES_OPEN > IOV_MAX_HERE;
}

/* The open pieces of the frame, and more of them. Calls its source, which may close the connection. */
static void gather_pieces(struct conn *conn, struct gather *g, struct out *out)
{
    size_t most = g->enough < PIECE_MAX ? g->enough : PIECE_MAX;

    for (unsigned i = 0; i < out->open_count; i++)
        gather_piece(g, open_at(out, i), i == 0 ? out->piece_sent : 0);
    while (!gather_full(g) && may_open(out)) {
        const struct open_piece *open = piece_open(out, most);

        if (conn->state == CONN_CLOSED)
            return;
        gather_piece(g, open, 0);
    }
}

/* What to write next. Calls sources, which may close the connection: look at the state afterwards. */
static void gather_all(struct conn *conn, struct gather *g, size_t enough)
{
    *g = (struct gather){.enough = enough, .fd = -1};
    list_for_each (node, &conn->queue) {
        struct out *out = list_entry(node, struct out, link);

        if (out->fd >= 0) {
            if (g->count > 0)
                return; /* a descriptor goes with the first byte of a message of its own */
            g->fd = out->fd;
        }
        gather_add(g, out->head + out->head_sent, out->head_len - out->head_sent);
        gather_pieces(conn, g, out);
        if (conn->state == CONN_CLOSED || g->fd >= 0 || out->payload_open < out->payload_len || gather_full(g))
            return;
    }
}

static size_t take_min(size_t *n, size_t most)
{
    size_t taken = *n < most ? *n : most;

    *n -= taken;
    return taken;
}

/* Of the first open piece up to *n bytes have left. Is it complete? */
static bool piece_advance(struct conn *conn, struct out *out, size_t *n)
{
    struct open_piece *open = open_at(out, 0);
    size_t total = PIECE_HEADER_SIZE + open->piece.len;
    bool last = out->open_count == 1;
    uint64_t done = last ? out->payload_open - out->payload_at : open->piece.len;

    out->piece_sent += take_min(n, total - out->piece_sent);
    if (out->piece_sent < total)
        return false;
    out->piece_sent = 0;
    out->open_first = (out->open_first + 1) % PIECES_OPEN;
    out->open_count--;
    out->payload_at += done;
    conn->queued_payload -= done;
    conn->stats.payload_out += open->piece.len;
    return true;
}

/* `n` bytes have left: move the positions, finish what is complete. */
static void advance(struct conn *conn, size_t n)
{
    while (!list_empty(&conn->queue)) {
        struct out *out = list_entry(conn->queue.next, struct out, link);

        out->head_sent += take_min(&n, out->head_len - out->head_sent);
        while (out->open_count > 0 && piece_advance(conn, out, &n))
            ;
        if (!out_done(out))
            return;
        conn->stats.frames_out++;
        out_finish(conn, out, MC_OK);
    }
}

static ssize_t send_gathered(struct conn *conn, struct gather *g)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr msg = {.msg_iov = g->iov, .msg_iovlen = (size_t)g->count};
    struct cmsghdr *cmsg;

    if (g->fd >= 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = sizeof(control.bytes);
        cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(cmsg), &g->fd, sizeof(int));
    }
    return sendmsg(conn->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* One sendmsg, of about `enough` bytes. False when it has to wait, or the connection is closed. */
static bool write_once(struct conn *conn, size_t enough, size_t *budget)
{
    struct gather g;
    ssize_t n;

    gather_all(conn, &g, enough);
    if (conn->state == CONN_CLOSED)
        return false;
    n = send_gathered(conn, &g);
    if (n < 0 && errno == EINTR)
        return true;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        conn->write_blocked = true;
        return false;
    }
    if (n < 0) {
        log_debug("send to peer %s: %m", conn->name);
        conn_fail(conn, conn_errno_status(errno));
        return false;
    }
    conn->stats.bytes_out += (uint64_t)n;
    if (g.fd >= 0) { /* it went with the first byte */
        struct out *out = list_entry(conn->queue.next, struct out, link);

        close(out->fd);
        out->fd = -1;
    }
    advance(conn, (size_t)n);
    *budget -= (size_t)n < *budget ? (size_t)n : *budget;
    return true;
}

void conn_write(struct conn *conn)
{
    size_t budget = TURN_BYTES, enough = conn->write_blocked ? BATCH_BYTES : FIRST_BYTES;

    if (conn->state == CONN_CONNECTING || conn->state == CONN_CLOSED)
        return;
    conn->write_blocked = false;
    for (; !list_empty(&conn->queue) && budget > 0; enough = BATCH_BYTES)
        if (!write_once(conn, enough, &budget))
            break;
    if (conn->state == CONN_CLOSED)
        return;
    if (!list_empty(&conn->queue) && !conn->write_blocked)
        loop_defer(conn->loop, &conn->flush_task);
    if (conn->state == CONN_CLOSING && list_empty(&conn->queue) && !conn->shut) {
        conn->shut = true;
        /* On a unix socket a half close would look to the peer like an abort in the middle of its reading; GOODBYE is enough. */
        if (!conn->is_unix)
            shutdown(conn->fd, SHUT_WR);
    }
    conn_want_update(conn);
}

void conn_want_update(struct conn *conn)
{
    unsigned want = (conn->paused ? 0 : LOOP_READ) | (conn->write_blocked ? LOOP_WRITE : 0);

    if (conn->state == CONN_CONNECTING || conn->state == CONN_CLOSED)
        return;
    if (loop_io_want(&conn->io, want) != MC_OK)
        conn_fail(conn, MC_ESYS);
}

void conn_tell_sent(struct conn *conn)
{
    struct list *node;

    while ((node = list_pop_front(&conn->finished)) != NULL) {
        struct out *out = list_entry(node, struct out, link);

        if (out->sent)
            out->sent(out->sent_arg, out->status);
        out_free(conn, out);
    }
    if (!conn->want_writable || conn->state != CONN_READY || conn->queued > conn->limits.queue_max / 2)
        return;
    conn->want_writable = false;
    if (conn->ops->on_writable)
        conn->ops->on_writable(conn);
}

void conn_send_fail_all(struct conn *conn, enum mc_status status)
{
    while (!list_empty(&conn->queue))
        out_finish(conn, list_entry(conn->queue.next, struct out, link), status);
}

void conn_send_fini(struct conn *conn)
{
    struct list *lists[] = {&conn->queue, &conn->finished, &conn->spare};
    struct list *node;

    conn->spare_count = SPARE_MAX; /* out_free() shall free */
    for (int i = 0; i < 3; i++)
        while ((node = list_pop_front(lists[i])) != NULL)
            out_free(conn, list_entry(node, struct out, link));
}

/* --- public --- */

enum mc_status conn_send(struct conn *conn, const struct conn_msg *msg)
{
    return conn_queue(conn, msg, -1, false);
}

static void reply_msg(struct conn_msg *msg, const struct frame *frame, enum mc_status status, struct slice body)
{
    *msg = (struct conn_msg){
        .type = frame->type,
        .flags = FRAME_REPLY,
        .status = status,
        .request = frame->request,
        .trace = frame->trace,
        .body = body,
    };
}

enum mc_status conn_reply(struct conn *conn, const struct frame *frame, enum mc_status status, struct slice body)
{
    struct conn_msg msg;

    reply_msg(&msg, frame, status, body);
    return conn_queue(conn, &msg, -1, false);
}

void conn_reply_unknown(struct conn *conn, const struct frame *frame)
{
    struct conn_msg msg;

    log_every_ms(
        LOG_LEVEL_WARN, 1000, "peer %s sent message type 0x%04x, which is not known here", conn->name, frame->type);
    if (frame->request == 0 || frame->flags & FRAME_REPLY)
        return;
    reply_msg(&msg, frame, MC_ENOSUP, slice_of(NULL, 0));
    msg.type = MSG_ERROR_REPLY;
    conn_queue(conn, &msg, -1, true); /* bounded by the peer's credits */
}

enum mc_status conn_send_fd(struct conn *conn, uint64_t request, struct slice body, int fd)
{
    struct conn_msg msg = {.type = MSG_FD, .request = request, .body = body};
    enum mc_status status;
    int copy;

    if (!conn->is_unix)
        return MC_ENOSUP;
    copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0) {
        log_error("cannot duplicate descriptor %d for peer %s: %m", fd, conn->name);
        return MC_ENOMEM;
    }
    status = conn_queue(conn, &msg, copy, false);
    if (status != MC_OK)
        close(copy);
    return status;
}

void conn_drop_queued(struct conn *conn, enum mc_status status)
{
    bool dropped = false;

    assert(status < 0);
    list_for_each_safe (node, next, &conn->queue) {
        struct out *out = list_entry(node, struct out, link);

        if (out->head_sent > 0)
            continue;
        out_finish(conn, out, status);
        dropped = true;
    }
    if (dropped && conn->state != CONN_CLOSED)
        loop_defer(conn->loop, &conn->flush_task);
}

void conn_flush(struct conn *conn)
{
    if (conn->state == CONN_CLOSED || conn->write_blocked)
        return;
    conn_write(conn);
    if (conn->state != CONN_CLOSED)
        loop_defer(conn->loop, &conn->flush_task); /* to tell what was sent */
}
