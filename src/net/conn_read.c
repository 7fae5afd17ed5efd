/* conn_read.c - reading the socket: how much, into which memory, and when to be woken for more.
 *
 * When the state machine of conn_recv.c stands in RX_DATA with an empty buffer and enough to come, the socket is read straight into the
 * owner's memory, together with the header that follows the piece:
 *
 *   recvmsg:  | rest of this piece -> owner's memory | next piece header, or next frames -> rx buffer |
 *
 * The bytes are hashed right after each receive, while they are in the cache. What goes through the buffer instead is copied once or
 * twice more, so of large payloads no more is read into it than headers. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crc.h"
#include "base/log.h"
#include "base/uncut.h"
#include "net/conn_impl.h"

#define TURN_BYTES (2u << 20)   /* read so much, then others get their turn */
#define DIRECT_MIN 4096         /* less than this is not worth a system call of its own */
#define ALIKE_MIN  (64u << 10)  /* after a payload of so much one like it is expected */
#define HEAD_ROOM  1024         /* a header and a short body */
#define MARK_MIN   (32u << 10)  /* less than this comes at once anyway */
#define MARK_MAX   (256u << 10) /* more would only leave us more to do when the sender is done already */
#define MARK_TAIL  (512u << 10) /* of the last so many each packet is taken at once: an answer waits for us */
#define MARK_NS    (10 * NS_PER_MS)

/* Has the peer taken back what it sent? Looked at before every write into the owner's memory: after a reset Linux still
 * delivers what is queued, but the peer has been told that its transfer failed, and both memories are free for other use.
 * A unix socket knows no reset; there the sign is that the peer has closed, for conn_close() waits until we have read all. */
bool conn_socket_failed(struct conn *conn)
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
        conn_protocol_error(conn, MC_EPROTO, "descriptors (too many)");
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
        memmove(conn->rx, conn->rx + conn->rx_at, conn_buffered(conn));
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
        if (conn_socket_failed(conn))
            return 0;
        room = conn_place_of(conn, left, &dst);
        if (!conn_may_go_on(conn))
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
    conn_piece_got(conn, direct);
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
    if (conn->rx_state == RX_DATA && conn_buffered(conn) == 0 && conn->piece.len - conn->piece_got >= DIRECT_MIN)
        n = receive_direct(conn);
    else
        n = receive_to_buffer(conn);
    conn_eat_all(conn);
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
    conn_eat_all(conn); /* what was left when the owner paused */
    while (total < TURN_BYTES && (conn_may_go_on(conn) || conn->state == CONN_CLOSING)) {
        n = receive_once(conn);
        total += n;
        if (n == 0 || conn->rx_drained)
            break; /* should more have come meanwhile, it is reported: the loop is level triggered */
    }
    mark_update(conn);
    conn->rx_busy = false;
}
