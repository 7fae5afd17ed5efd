/* conn_recv.c - from bytes to frames and payload.
 *
 * One state machine (enum rx_state) eats the receive buffer, which conn_read.c fills:
 *
 *   RX_HEADER -> RX_BODY -> RX_PIECE_HEADER -> RX_DATA -> (next piece, or next frame)
 *
 * Bodies. Without payload behind it, a body that fits is parsed where it lies in the buffer. A body with payload behind it must
 * live until the payload has ended, so it is copied to body_mem.
 *
 * Every callback may close or pause the connection: conn_may_go_on() is asked after each. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crc.h"
#include "base/log.h"
#include "net/conn_impl.h"

#define BODY_KEEP      (256u << 10) /* a larger body_mem is freed after use */
#define PING_MAX       64
#define HELLO_BODY_MAX 8192

bool conn_may_go_on(const struct conn *conn)
{
    return (conn->state == CONN_READY || conn->state == CONN_HANDSHAKE) && !conn->paused;
}

size_t conn_buffered(const struct conn *conn)
{
    return conn->rx_len - conn->rx_at;
}

void conn_protocol_error(struct conn *conn, enum mc_status status, const char *field)
{
    log_warn(
        "peer %s: malformed %s in a frame of type %s: closing; if here (%s) and there (%s) differ run one version, "
        "else a link or memory damages bytes",
        conn->name, field, message_name(conn->frame.type), conn->self.build, build_of(&conn->peer));
    conn_fail(conn, status);
}

/* Of the header itself, whose fields cannot be believed: not even its type. */
static void header_error(struct conn *conn, enum mc_status status, const char *field, const uint8_t *header)
{
    char text[256];

    if (strcmp(field, "magic") == 0) {
        log_warn("peer %s does not speak our protocol, it may be another service's port: closing; check the addresses "
                 "at both ends",
            conn->name);
        conn_fail(conn, status);
        return;
    }
    if (status == MC_EVERSION)
        snprintf(text, sizeof(text), "frames of version %u, here (%s) they are of version %d: update the older one",
            le16_get(header + 4), conn->self.build, FRAME_VERSION);
    else
        snprintf(text, sizeof(text),
            "malformed %s in a frame header, here %s: if both ends differ run one version, else a link or memory "
            "damages bytes",
            field, conn->self.build);
    if (conn->state == CONN_HANDSHAKE) {
        conn_refuse(conn, status, text);
        return;
    }
    log_warn("peer %s: %s: closing", conn->name, text);
    conn_fail(conn, status);
}

/* --- payload --- */

void conn_payload_end(struct conn *conn, enum mc_status status)
{
    if (!conn->in_payload)
        return;
    conn->in_payload = false;
    if (conn->ops->on_payload_end)
        conn->ops->on_payload_end(conn, &conn->frame, status);
    if (conn->body_cap > BODY_KEEP) {
        free(conn->body_mem);
        conn->body_mem = NULL;
        conn->body_cap = 0;
    }
}

static void payload_step(struct conn *conn)
{
    if (conn->payload_off < conn->frame.payload_len) {
        conn->rx_state = RX_PIECE_HEADER;
        return;
    }
    conn->rx_state = RX_HEADER;
    conn_payload_end(conn, conn->damaged ? MC_ECORRUPT : MC_OK);
}

static void piece_done(struct conn *conn)
{
    uint64_t off = conn->payload_off;

    conn->payload_off += conn->piece.len;
    conn->stats.payload_in += conn->piece.len;
    if (!conn->piece_skip && conn->piece_crc != conn->piece.crc) {
        conn->stats.crc_errors++;
        log_warn("peer %s: payload of %s at offset %llu does not match its checksum", conn->name,
            message_name(conn->frame.type), (unsigned long long)off);
        conn->damaged = true;
    } else if (!conn->piece_skip && conn->ops->on_piece) {
        conn->ops->on_piece(conn, &conn->frame, off, conn->piece.len, conn->piece.crc);
    }
    if (conn->state != CONN_CLOSED)
        payload_step(conn);
}

size_t conn_place_of(struct conn *conn, size_t max, void **dst)
{
    uint64_t off = conn->payload_off + conn->piece_got;
    size_t n = max;

    *dst = NULL;
    /* A piece of which bytes were thrown away cannot be verified, so the rest of it is thrown away too; and after damage all. */
    if (conn->piece_skip || conn->damaged)
        conn->piece_skip = true;
    else if (conn->ops->payload_dst)
        n = conn->ops->payload_dst(conn, &conn->frame, off, max, dst);
    assert(n >= 1 && n <= max);
    if (!*dst)
        conn->piece_skip = true;
    return n;
}

void conn_piece_got(struct conn *conn, size_t n)
{
    conn->piece_got += (uint32_t)n;
    if (conn->piece_got == conn->piece.len)
        piece_done(conn);
}

/* Data of the piece that is in the buffer already. */
static void data_from_buffer(struct conn *conn)
{
    size_t left = conn->piece.len - conn->piece_got, have = conn_buffered(conn), n;
    void *dst;

    n = conn_place_of(conn, left < have ? left : have, &dst);
    if (!conn_may_go_on(conn) || (dst && conn_socket_failed(conn)))
        return;
    if (dst)
        conn->piece_crc = crc32c_copy(conn->piece_crc, dst, conn->rx + conn->rx_at, n);
    conn->rx_at += n;
    conn_piece_got(conn, n);
}

/* --- frames --- */

static bool counts_as_request(const struct frame *frame)
{
    return frame->request != 0 && !(frame->flags & FRAME_REPLY) && frame->type != MSG_CANCEL &&
           frame->type != MSG_PING && frame->type != MSG_FD;
}

static void on_ping(struct conn *conn, const struct frame *frame)
{
    if (frame->flags & FRAME_REPLY) { /* somebody here sent a PING through conn_send: let him see the answer */
        conn->ops->on_frame(conn, frame);
        return;
    }
    if (frame->body.len > PING_MAX) {
        conn_protocol_error(conn, MC_EPROTO, "ping body");
        return;
    }
    /* Not queued when the queue is full: a peer that floods and does not read gets no memory of ours. */
    conn_reply(conn, frame, MC_OK, frame->body);
}

static void on_fd_frame(struct conn *conn, const struct frame *frame)
{
    int fd;

    if (conn->fd_count == 0) {
        conn_protocol_error(conn, MC_EPROTO, "descriptor (none came)");
        return;
    }
    fd = conn->fds[0];
    memmove(conn->fds, conn->fds + 1, --conn->fd_count * sizeof(int));
    if (conn->ops->on_fd)
        conn->ops->on_fd(conn, frame, fd);
    else
        close(fd);
}

/* Messages of the common range carry no payload; their answers neither. */
static bool is_common(uint16_t type)
{
    return type < 0x0100;
}

static void dispatch_ready(struct conn *conn, const struct frame *frame)
{
    if (is_common(frame->type) && frame->payload_len > 0) {
        conn_protocol_error(conn, MC_EPROTO, "payload length");
        return;
    }
    switch (frame->type) {
    case MSG_HELLO:
    case MSG_HELLO_OK: conn_protocol_error(conn, MC_EPROTO, "type (handshake is over)"); return;
    case MSG_REFUSE: conn_refused(conn, frame); return; /* the dialer did not like whom it found */
    case MSG_PING: on_ping(conn, frame); return;
    case MSG_GOODBYE: conn_fail(conn, MC_ECLOSED); return;
    case MSG_FD: on_fd_frame(conn, frame); return;
    default: break;
    }
    if (counts_as_request(frame) && ++conn->requests_open > conn->limits.credits) {
        conn_protocol_error(conn, MC_EPROTO, "credits (more requests than allowed)");
        return;
    }
    conn->in_payload = frame->payload_len > 0;
    conn->ops->on_frame(conn, frame);
}

/* Header and body are there. */
static void frame_complete(struct conn *conn, struct slice body)
{
    struct frame *frame = &conn->frame;
    bool payload = frame->payload_len > 0;

    frame->body = body;
    if (crc32c(0, body.ptr, body.len) != frame->body_crc) {
        conn_protocol_error(conn, MC_EPROTO, "body crc");
        return;
    }
    conn->stats.frames_in++;
    conn->rx_state = RX_HEADER;
    conn->payload_off = 0;
    conn->damaged = false;
    if (conn->state == CONN_HANDSHAKE)
        conn_handshake_frame(conn, frame);
    else
        dispatch_ready(conn, frame);
    if (payload && conn->state != CONN_CLOSED)
        payload_step(conn);
}

static bool body_reserve(struct conn *conn)
{
    uint8_t *mem;

    conn->body_got = 0;
    if (conn->body_cap >= conn->frame.body_len)
        return true;
    mem = realloc(conn->body_mem, conn->frame.body_len);
    if (!mem)
        return false;
    conn->body_mem = mem;
    conn->body_cap = conn->frame.body_len;
    return true;
}

static bool body_in_place(const struct conn *conn)
{
    return conn->frame.payload_len == 0 && conn->frame.body_len <= RX_SIZE;
}

static void header_complete(struct conn *conn)
{
    bool handshake = conn->state == CONN_HANDSHAKE;
    const uint8_t *header = conn->rx + conn->rx_at;
    const char *bad;
    enum mc_status status =
        frame_decode(header, handshake ? HELLO_BODY_MAX : conn->limits.body_max, &conn->frame, &bad);

    conn->rx_at += FRAME_HEADER_SIZE;
    if (status != MC_OK) {
        header_error(conn, status, bad, header);
        return;
    }
    if (conn->frame.payload_len > (handshake ? 0 : conn->limits.payload_max)) {
        conn_protocol_error(conn, MC_EPROTO, "payload length");
        return;
    }
    conn->frame.deadline_ns = deadline_from_wire(conn->frame.deadline_ms, loop_now_ns(conn->loop));
    if (conn->frame.body_len == 0)
        frame_complete(conn, slice_of(NULL, 0));
    else if (!body_in_place(conn) && !body_reserve(conn))
        conn_fail(conn, MC_ENOMEM);
    else
        conn->rx_state = RX_BODY;
}

static bool eat_body(struct conn *conn)
{
    size_t want = conn->frame.body_len, have = conn_buffered(conn), n;
    const uint8_t *at = conn->rx + conn->rx_at;

    if (body_in_place(conn)) {
        if (have < want)
            return false;
        conn->rx_at += want;
        frame_complete(conn, slice_of(at, want));
        return true;
    }
    n = want - conn->body_got < have ? want - conn->body_got : have;
    memcpy(conn->body_mem + conn->body_got, at, n);
    conn->body_got += n;
    conn->rx_at += n;
    if (conn->body_got < want)
        return false;
    frame_complete(conn, slice_of(conn->body_mem, want));
    return true;
}

static void eat_piece_header(struct conn *conn)
{
    const char *bad;
    enum mc_status status =
        piece_decode(conn->rx + conn->rx_at, conn->frame.payload_len - conn->payload_off, &conn->piece, &bad);

    conn->rx_at += PIECE_HEADER_SIZE;
    if (status != MC_OK) {
        conn_protocol_error(conn, status, bad);
        return;
    }
    if (conn->piece.status != MC_OK) { /* the sender gave up */
        conn->rx_state = RX_HEADER;
        conn_payload_end(conn, conn->piece.status);
        return;
    }
    conn->rx_state = RX_DATA;
    conn->piece_got = conn->piece_crc = 0;
    conn->piece_skip = false;
}

/* One step of the state machine; false when more bytes are needed. */
static bool eat(struct conn *conn)
{
    size_t have = conn_buffered(conn);

    switch (conn->rx_state) {
    case RX_HEADER:
        if (have < FRAME_HEADER_SIZE)
            return false;
        header_complete(conn);
        return true;
    case RX_BODY: return have > 0 && eat_body(conn);
    case RX_PIECE_HEADER:
        if (have < PIECE_HEADER_SIZE)
            return false;
        eat_piece_header(conn);
        return true;
    case RX_DATA:
        if (have == 0)
            return false;
        data_from_buffer(conn);
        return true;
    }
    return false;
}

void conn_eat_all(struct conn *conn)
{
    while (conn_may_go_on(conn) && eat(conn))
        ;
    if (conn->rx_at == conn->rx_len)
        conn->rx_at = conn->rx_len = 0;
}

void conn_recv_fini(struct conn *conn)
{
    for (unsigned i = 0; i < conn->fd_count; i++)
        close(conn->fds[i]);
    free(conn->body_mem);
}
