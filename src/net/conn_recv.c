/* conn_recv.c - from bytes to frames and payload.
 *
 * One state machine (enum rx_state) eats the receive buffer; when it stands in RX_DATA with an empty buffer and enough to come,
 * the socket is read straight into the owner's memory, together with the header that follows the piece:
 *
 *   readv:  | rest of this piece -> owner's memory | next piece header, or next frames -> rx buffer |
 *
 * The bytes are hashed right after each receive, while they are in the cache.
 *
 * Bodies. Without payload behind it, a body that fits is parsed where it lies in the buffer. A body with payload behind it must
 * live until the payload has ended, so it is copied to body_mem.
 *
 * Every callback may close or pause the connection: may_go_on() is asked after each. */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crc.h"
#include "base/log.h"
#include "base/uncut.h"
#include "net/conn_impl.h"

#define TURN_BYTES     (2u << 20)   /* read so much, then others get their turn */
#define DIRECT_MIN     4096         /* less than this is not worth a system call of its own */
#define ALIKE_MIN      (64u << 10)  /* after a payload of so much one like it is expected */
#define HEAD_ROOM      1024         /* a header and a short body */
#define MARK_MIN       (32u << 10)  /* less than this comes at once anyway */
#define MARK_MAX       (256u << 10) /* more would only leave us more to do when the sender is done already */
#define MARK_TAIL      (512u << 10) /* of the last so many each packet is taken at once: an answer waits for us */
#define MARK_NS        (10 * NS_PER_MS)
#define BODY_KEEP      (256u << 10) /* a larger body_mem is freed after use */
#define PING_MAX       64
#define HELLO_BODY_MAX 8192

static bool may_go_on(const struct conn *conn)
{
    return (conn->state == CONN_READY || conn->state == CONN_HANDSHAKE) && !conn->paused;
}

static size_t rx_left(const struct conn *conn)
{
    return conn->rx_len - conn->rx_at;
}

size_t conn_buffered(const struct conn *conn)
{
    return rx_left(conn);
}

static void protocol_error(struct conn *conn, enum mc_status status, const char *field)
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

/* Where the next bytes of the piece go: at most `max`. NULL: thrown away. */
static size_t place_of(struct conn *conn, size_t max, void **dst)
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

static void piece_got(struct conn *conn, size_t n)
{
    conn->piece_got += (uint32_t)n;
    if (conn->piece_got == conn->piece.len)
        piece_done(conn);
}

/* Has the peer taken back what it sent? Looked at before every write into the owner's memory: after a reset Linux still
 * delivers what is queued, but the peer has been told that its transfer failed, and both memories are free for other use.
 * A unix socket knows no reset; there the sign is that the peer has closed, for conn_close() waits until we have read all. */
static bool socket_failed(struct conn *conn)
{
    struct pollfd poll_fd = {.fd = conn->fd};
    socklen_t len = sizeof(int);
    int error = 0;

    if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0)
        error = errno;
    if (!error && conn->is_unix && poll(&poll_fd, 1, 0) == 1 && poll_fd.revents & POLLHUP)
        error = ECONNRESET;
    if (!error)
        return false;
    log_debug("peer %s: %s", conn->name, strerror(error));
    conn_fail(conn, conn_errno_status(error));
    return true;
}

/* Data of the piece that is in the buffer already. */
static void data_from_buffer(struct conn *conn)
{
    size_t left = conn->piece.len - conn->piece_got, have = rx_left(conn), n;
    void *dst;

    n = place_of(conn, left < have ? left : have, &dst);
    if (!may_go_on(conn) || (dst && socket_failed(conn)))
        return;
    if (dst)
        conn->piece_crc = crc32c_copy(conn->piece_crc, dst, conn->rx + conn->rx_at, n);
    conn->rx_at += n;
    piece_got(conn, n);
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
        protocol_error(conn, MC_EPROTO, "ping body");
        return;
    }
    /* Not queued when the queue is full: a peer that floods and does not read gets no memory of ours. */
    conn_reply(conn, frame, MC_OK, frame->body);
}

static void on_fd_frame(struct conn *conn, const struct frame *frame)
{
    int fd;

    if (conn->fd_count == 0) {
        protocol_error(conn, MC_EPROTO, "descriptor (none came)");
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
        protocol_error(conn, MC_EPROTO, "payload length");
        return;
    }
    switch (frame->type) {
    case MSG_HELLO:
    case MSG_HELLO_OK: protocol_error(conn, MC_EPROTO, "type (handshake is over)"); return;
    case MSG_REFUSE: conn_refused(conn, frame); return; /* the dialer did not like whom it found */
    case MSG_PING: on_ping(conn, frame); return;
    case MSG_GOODBYE: conn_fail(conn, MC_ECLOSED); return;
    case MSG_FD: on_fd_frame(conn, frame); return;
    default: break;
    }
    if (counts_as_request(frame) && ++conn->requests_open > conn->limits.credits) {
        protocol_error(conn, MC_EPROTO, "credits (more requests than allowed)");
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
        protocol_error(conn, MC_EPROTO, "body crc");
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
        protocol_error(conn, MC_EPROTO, "payload length");
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
    size_t want = conn->frame.body_len, have = rx_left(conn), n;
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
        protocol_error(conn, status, bad);
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
    size_t have = rx_left(conn);

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

static void eat_all(struct conn *conn)
{
    while (may_go_on(conn) && eat(conn))
        ;
    if (conn->rx_at == conn->rx_len)
        conn->rx_at = conn->rx_len = 0;
}

/* --- the socket --- */

static bool fds_take(struct conn *conn, struct msghdr *msg)
{
    bool ok = !(msg->msg_flags & MSG_CTRUNC);

    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        size_t count;

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (conn->fd_count < FDS_MAX) {
                conn->fds[conn->fd_count++] = fd;
                continue;
            }
            close(fd);
            ok = false;
        }
    }
    return ok;
}

static size_t room_of(const struct iovec *iov, int count)
{
    size_t room = 0;

    for (int i = 0; i < count; i++)
        room += iov[i].iov_len;
    return room;
}

/* `uncut`: the look at where the bytes go began with uncut_begin(); UNCUT_AGAIN: it must be done again. */
static ssize_t receive(struct conn *conn, struct iovec *iov, int count, bool uncut)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
    } control;
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)count};
    ssize_t n;

    if (conn->is_unix) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = sizeof(control.bytes);
    }
    if (uncut)
        n = uncut_recvmsg(conn->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    else
        n = recvmsg(conn->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n == -1 && errno == EINTR)
        return UNCUT_AGAIN;
    conn->rx_drained = n >= 0 && (size_t)n < room_of(iov, count);
    if (n >= 0 && conn->is_unix && !fds_take(conn, &msg)) {
        protocol_error(conn, MC_EPROTO, "descriptors (too many)");
        errno = EAGAIN;
        return -1;
    }
    return n;
}

/* End of stream or error; false when there is simply nothing now. */
static void receive_failed(struct conn *conn, ssize_t n)
{
    bool goodbye = conn->state == CONN_CLOSING;

    if (conn->state == CONN_CLOSED || (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)))
        return;
    if (n < 0)
        log_debug("receive from peer %s: %m", conn->name);
    /* A peer that goes without GOODBYE was killed, or its host is in trouble. */
    conn_fail(conn, goodbye ? conn->close_status : n == 0 ? MC_EPEERDOWN : conn_errno_status(errno));
}

/* How much to read behind the end of a payload: after a large one another is expected, of which no more shall come here than a header and
 * a short body. */
static size_t room_for_frames(const struct conn *conn)
{
    return conn->frame.payload_len >= ALIKE_MIN ? HEAD_ROOM : RX_SIZE;
}

/* How much to read behind the end of a piece. */
static size_t room_behind_piece(const struct conn *conn)
{
    bool last = conn->payload_off + conn->piece.len == conn->frame.payload_len;

    return last ? room_for_frames(conn) : PIECE_HEADER_SIZE;
}

/* How much to read into the buffer, with what is there. Of a payload that comes in large pieces no more than the end of one and the header
 * of the next: its bytes have a place of their own. (Of what size the first piece is is not known before it is here.) */
static size_t room_in_buffer(const struct conn *conn)
{
    const struct frame *frame = &conn->frame;
    bool begins = conn->payload_off == 0, large = conn->piece.len >= DIRECT_MIN;
    size_t room = RX_SIZE;

    if (conn->state != CONN_READY)
        return RX_SIZE;
    switch (conn->rx_state) {
    case RX_HEADER: room = room_for_frames(conn); break;
    case RX_BODY:
        if (frame->payload_len >= DIRECT_MIN)
            room = frame->body_len - conn->body_got + PIECE_HEADER_SIZE;
        break;
    case RX_PIECE_HEADER:
        if ((begins || large) && frame->payload_len - conn->payload_off >= DIRECT_MIN)
            room = PIECE_HEADER_SIZE;
        break;
    case RX_DATA:
        if (large)
            room = conn->piece.len - conn->piece_got + room_behind_piece(conn);
        break;
    }
    return room < RX_SIZE ? room : RX_SIZE;
}

static size_t receive_to_buffer(struct conn *conn)
{
    struct iovec iov;
    ssize_t n;

    if (conn->rx_at > 0) { /* little is left there: less than a header, or the start of a body */
        memmove(conn->rx, conn->rx + conn->rx_at, rx_left(conn));
        conn->rx_len -= conn->rx_at;
        conn->rx_at = 0;
    }
    iov = (struct iovec){conn->rx + conn->rx_len, room_in_buffer(conn) - conn->rx_len};
    do
        n = receive(conn, &iov, 1, false);
    while (n == UNCUT_AGAIN);
    if (n <= 0) {
        receive_failed(conn, n);
        return 0;
    }
    conn->rx_len += (size_t)n;
    conn->stats.bytes_in += (uint64_t)n;
    return (size_t)n;
}

/* Bytes of a piece straight to where they belong. The buffer is empty. */
static size_t receive_direct(struct conn *conn)
{
    size_t left = conn->piece.len - conn->piece_got, room, want, direct;
    struct iovec iov[2];
    void *dst;
    ssize_t n;

    do {
        uncut_begin(); /* a stop from here to the receive would make what is seen old */
        if (socket_failed(conn))
            return 0;
        room = place_of(conn, left, &dst);
        if (!may_go_on(conn))
            return 0;
        if (!dst)
            return receive_to_buffer(conn); /* thrown away from there */
        want = room < left ? room : left;
        iov[0] = (struct iovec){dst, want};
        iov[1] = (struct iovec){conn->rx, room_behind_piece(conn)};
        n = receive(conn, iov, want == left ? 2 : 1, true);
    } while (n == UNCUT_AGAIN);
    if (n <= 0) {
        receive_failed(conn, n);
        return 0;
    }
    conn->stats.bytes_in += (uint64_t)n;
    direct = (size_t)n < want ? (size_t)n : want;
    conn->rx_at = 0;
    conn->rx_len = (size_t)n - direct;
    conn->piece_crc = crc32c(conn->piece_crc, dst, direct);
    piece_got(conn, direct);
    return (size_t)n;
}

static size_t receive_to_nowhere(struct conn *conn)
{
    conn->rx_at = conn->rx_len = 0;
    return receive_to_buffer(conn);
}

static size_t receive_once(struct conn *conn)
{
    size_t n;

    if (conn->state == CONN_CLOSING) {
        n = receive_to_nowhere(conn);
        return n;
    }
    if (conn->rx_state == RX_DATA && rx_left(conn) == 0 && conn->piece.len - conn->piece_got >= DIRECT_MIN)
        n = receive_direct(conn);
    else
        n = receive_to_buffer(conn);
    eat_all(conn);
    return n;
}

/* In the middle of a payload nothing can be done but wait for more of it: be woken when MARK_MAX bytes are there, not for every packet,
 * but for the end, which somebody waits for. A sender that gives up sends less than we wait for, and a slow one takes long: hence the
 * timer. (For poll(2) a Unix socket has no such mark.) */
static void mark_set(struct conn *conn, int mark)
{
    if (mark != conn->rx_mark && setsockopt(conn->fd, SOL_SOCKET, SO_RCVLOWAT, &mark, sizeof(mark)) == 0)
        conn->rx_mark = mark;
}

static void mark_update(struct conn *conn)
{
    uint64_t in_piece = conn->rx_state == RX_DATA ? conn->piece_got : 0;
    uint64_t left = conn->in_payload ? conn->frame.payload_len - conn->payload_off - in_piece : 0;
    uint64_t until = loop_now_ns(conn->loop) + MARK_NS;

    if (conn->is_unix || conn->state != CONN_READY)
        return;
    if (left >= MARK_TAIL + MARK_MIN && loop_timer_set(conn->loop, &conn->timer, until) == MC_OK) {
        mark_set(conn, left < MARK_TAIL + MARK_MAX ? (int)(left - MARK_TAIL) : (int)MARK_MAX);
    } else if (conn->rx_mark > 1) {
        loop_timer_cancel(conn->loop, &conn->timer);
        mark_set(conn, 1);
    }
}

void conn_mark_late(struct conn *conn)
{
    mark_set(conn, 1);
}

void conn_readable(struct conn *conn)
{
    size_t total = 0, n;

    if (conn->rx_busy || conn->state == CONN_CONNECTING)
        return;
    conn->rx_busy = true;
    eat_all(conn); /* what was left when the owner paused */
    while (total < TURN_BYTES && (may_go_on(conn) || conn->state == CONN_CLOSING)) {
        n = receive_once(conn);
        total += n;
        if (n == 0 || conn->rx_drained)
            break; /* should more have come meanwhile, it is reported: the loop is level triggered */
    }
    mark_update(conn);
    conn->rx_busy = false;
}

void conn_recv_fini(struct conn *conn)
{
    for (unsigned i = 0; i < conn->fd_count; i++)
        close(conn->fds[i]);
    free(conn->body_mem);
}
