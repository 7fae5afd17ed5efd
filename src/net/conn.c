/* conn.c - life of a connection: connecting, states, closing, telling the owner.
 *
 * Closing has three ways:
 *   conn_close   queue is sent, GOODBYE last; the peer closes its end on GOODBYE, then we close ours. (Closing first would let
 *                the kernel send RST if anything unread is here, and destroy our last bytes on the way.)
 *   conn_fail    an error: closed at once.
 *   conn_abort   closed at once with RST, so that what we sent and the peer has not read is dropped there.
 * All end in CLOSED with `reap` deferred, which runs the callbacks that are still owed and frees. */
#include "net/conn.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "net/conn_impl.h"
#include "net/loop_impl.h"

/* A name look-up on a thread of its own. */
struct resolve {
    struct loop_task task;
    struct loop *loop;
    struct conn *conn; /* loop's thread only; NULL when it is gone */
    struct addr addr;
    struct sockaddr_storage sa;
    socklen_t len;
    enum mc_status status;
};

static const char *const state_names[] = {"connecting", "handshake", "ready", "closing", "closed"};

void conn_state_set(struct conn *conn, enum conn_state state)
{
    assert(state > conn->state);
    log_debug("conn %s: %s -> %s", conn->name, state_names[conn->state], state_names[state]);
    conn->state = state;
}

enum mc_status conn_errno_status(int error)
{
    switch (error) {
    case 0: return MC_OK;
    case ECONNREFUSED:
    case ECONNRESET:
    case ECONNABORTED:
    case EPIPE:
    case ETIMEDOUT:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EHOSTDOWN:
    case ENETDOWN:
    case ENOENT: return MC_EPEERDOWN; /* ENOENT: no such unix socket, so nobody listens */
    case EACCES:
    case EPERM: return MC_EPERM;
    case ENOMEM:
    case ENOBUFS:
    case EMFILE:
    case ENFILE: return MC_ENOMEM;
    default: return MC_ESYS;
    }
}

/* --- end --- */

static void reap(struct loop *loop, struct loop_task *task)
{
    struct conn *conn = container_of(task, struct conn, reap_task);

    assert(conn->state == CONN_CLOSED);
    conn_tell_sent(conn);
    conn_payload_end(conn, conn->close_status);
    listener_conn_gone(conn);
    if (conn->owner_knows)
        conn->ops->on_close(conn, conn->close_status);
    conn_free(conn);
}

static void close_socket(struct conn *conn)
{
    struct linger reset = {.l_onoff = 1, .l_linger = 0};

    if (conn->fd < 0)
        return;
    loop_io_stop(&conn->io);
    if (conn->rst_on_close && !conn->is_unix)
        setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    close(conn->fd);
    conn->fd = -1;
}

static void finish(struct conn *conn, enum mc_status status)
{
    assert(status < 0);
    if (conn->state == CONN_CLOSED)
        return;
    if (conn->close_status == MC_OK)
        conn->close_status = status;
    conn_state_set(conn, CONN_CLOSED);
    close_socket(conn);
    loop_timer_cancel(conn->loop, &conn->timer);
    loop_defer_cancel(conn->loop, &conn->flush_task);
    conn_send_fail_all(conn, conn->close_status);
    loop_defer(conn->loop, &conn->reap_task);
}

void conn_fail(struct conn *conn, enum mc_status status)
{
    finish(conn, status);
}

void conn_abort(struct conn *conn, enum mc_status status)
{
    assert(loop_in_thread(conn->loop));
    conn->rst_on_close = true;
    finish(conn, status < 0 ? status : MC_ECLOSED);
}

static void linger(struct conn *conn, enum mc_status status)
{
    conn->close_status = status;
    conn_state_set(conn, CONN_CLOSING);
    conn->paused = false; /* what still comes is read and thrown away, else the peer's GOODBYE would not be seen */
    loop_timer_set(conn->loop, &conn->timer, deadline_after_ms(loop_now_ns(conn->loop), conn->limits.linger_ms));
    conn_mark_late(conn); /* the answer to GOODBYE may be all that comes */
    conn_want_update(conn);
    loop_defer(conn->loop, &conn->flush_task);
}

void conn_close(struct conn *conn)
{
    struct conn_msg goodbye = {.type = MSG_GOODBYE};

    assert(loop_in_thread(conn->loop));
    if (conn->state >= CONN_CLOSING)
        return;
    if (conn->state != CONN_READY || conn_queue(conn, &goodbye, -1, true) != MC_OK) {
        finish(conn, MC_ECLOSED);
        return;
    }
    linger(conn, MC_ECLOSED);
}

void conn_refuse(struct conn *conn, enum mc_status status, const char *text)
{
    struct conn_msg msg = {.type = MSG_REFUSE, .status = status};
    struct buf body;

    if (status == MC_EPROTO || status == MC_EVERSION)
        log_warn("peer %s refused: %s", conn->name, text);
    else
        log_info("peer %s refused: %s", conn->name, text);
    snprintf(conn->refusal, sizeof(conn->refusal), "%s", text);
    buf_init(&body, 4096);
    refuse_encode(status, text, &body);
    msg.body = buf_slice(&body);
    if (buf_status(&body) == MC_OK && conn_queue(conn, &msg, -1, true) == MC_OK)
        linger(conn, status);
    else
        finish(conn, status);
    buf_fini(&body);
}

/* --- start --- */

static void on_timer(struct loop *loop, struct loop_timer *timer)
{
    struct conn *conn = container_of(timer, struct conn, timer);

    if (conn->state == CONN_CLOSING) {
        finish(conn, conn->close_status); /* lingered long enough */
        return;
    }
    if (conn->state == CONN_READY) {
        conn_mark_late(conn);
        return;
    }
    log_debug("peer %s: no handshake within %u ms", conn->name, conn->limits.handshake_ms);
    finish(conn, MC_ETIMEDOUT);
}

static void on_flush(struct loop *loop, struct loop_task *task)
{
    struct conn *conn = container_of(task, struct conn, flush_task);

    if (conn->resumed && !conn->paused) {
        conn->resumed = false;
        conn_readable(conn);
    }
    if (conn->state != CONN_CLOSED)
        conn_write(conn);
    conn_tell_sent(conn);
}

static void limits_default(struct conn_limits *limits)
{
    if (!limits->body_max || limits->body_max > FRAME_BODY_MAX)
        limits->body_max = FRAME_BODY_MAX;
    if (!limits->payload_max)
        limits->payload_max = 64ull << 30;
    if (!limits->credits)
        limits->credits = 1024;
    if (!limits->queue_max)
        limits->queue_max = 4u << 20;
    if (!limits->handshake_ms)
        limits->handshake_ms = 2000;
    if (!limits->keepalive_ms)
        limits->keepalive_ms = 10000;
    if (!limits->linger_ms)
        limits->linger_ms = 1000;
}

struct conn *conn_new(struct loop *loop, const struct hello *self, const struct hello_expect *expect,
    const struct conn_ops *ops, void *user, const struct conn_limits *limits)
{
    struct conn *conn = calloc(1, sizeof(*conn));

    if (!conn)
        return NULL;
    conn->rx = malloc(RX_SIZE);
    if (!conn->rx || loop_timer_reserve(loop, 1) != MC_OK) {
        free(conn->rx);
        free(conn);
        return NULL;
    }
    conn->loop = loop;
    conn->fd = conn->io.fd = -1;
    conn->rx_mark = 1;
    conn->ops = ops;
    conn->user = user;
    conn->limits = *limits;
    limits_default(&conn->limits);
    conn->self = *self;
    if (!conn->self.build[0])
        snprintf(conn->self.build, sizeof(conn->self.build), "mooncake " NET_VERSION);
    conn->self.credits = conn->limits.credits;
    conn->self.body_max = conn->limits.body_max;
    conn->self.payload_max = conn->limits.payload_max;
    if (expect)
        conn->expect = *expect;
    list_init(&conn->listener_link);
    list_init(&conn->queue);
    list_init(&conn->finished);
    list_init(&conn->spare);
    loop_timer_init(&conn->timer, on_timer);
    loop_task_init(&conn->flush_task, on_flush);
    loop_task_init(&conn->reap_task, reap);
    return conn;
}

void conn_free(struct conn *conn)
{
    if (conn->resolve)
        conn->resolve->conn = NULL; /* it frees itself when it has its answer */
    close_socket(conn);
    loop_timer_cancel(conn->loop, &conn->timer);
    loop_defer_cancel(conn->loop, &conn->flush_task);
    conn_recv_fini(conn);
    conn_send_fini(conn);
    free(conn->rx);
    free(conn);
}

static void set_int(int fd, int level, int name, int value)
{
    setsockopt(fd, level, name, &value, sizeof(value)); /* best effort: all of these are tuning */
}

static void tune(struct conn *conn)
{
    int idle_s = (int)(conn->limits.keepalive_ms / 2000);

    if (conn->limits.socket_buffer) {
        set_int(conn->fd, SOL_SOCKET, SO_SNDBUF, (int)conn->limits.socket_buffer);
        set_int(conn->fd, SOL_SOCKET, SO_RCVBUF, (int)conn->limits.socket_buffer);
    }
    if (conn->is_unix)
        return;
    set_int(conn->fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_int(conn->fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_int(conn->fd, IPPROTO_TCP, TCP_KEEPIDLE, idle_s > 0 ? idle_s : 1);
    set_int(conn->fd, IPPROTO_TCP, TCP_KEEPINTVL, 1);
    set_int(conn->fd, IPPROTO_TCP, TCP_KEEPCNT, idle_s > 0 ? idle_s : 1);
    set_int(conn->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)conn->limits.keepalive_ms);
}

static int socket_error(int fd)
{
    socklen_t len = sizeof(int);
    int error = 0;

    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 ? error : errno;
}

/* A dial to a dead port of the ephemeral range can meet itself (TCP simultaneous open). */
static bool is_self_connected(int fd)
{
    struct addr here, there;

    return addr_of_socket(fd, &here) == MC_OK && addr_of_peer(fd, &there) == MC_OK && addr_equal(&here, &there) &&
           here.kind != ADDR_UNIX;
}

/* A unix socket serves only our own user, however open its directory is. False: it is refused. */
static bool peer_is_us(struct conn *conn)
{
    struct ucred cred = {.uid = (uid_t)-1};
    socklen_t len = sizeof(cred);
    char why[160];

    if (getsockopt(conn->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 && cred.uid == geteuid())
        return true;
    snprintf(why, sizeof(why),
        "unix sockets serve only their own user, %u, not %u: run both processes as one user, or connect over tcp",
        conn->dialer ? cred.uid : geteuid(), conn->dialer ? geteuid() : cred.uid);
    if (!conn->dialer) {
        conn_refuse(conn, MC_EPERM, why);
        return false;
    }
    log_warn("peer %s: %s", conn->name, why);
    finish(conn, MC_EREFUSED);
    return false;
}

static void connected(struct conn *conn)
{
    if (conn->dialer && !conn->is_unix && is_self_connected(conn->fd)) {
        finish(conn, MC_EPEERDOWN);
        return;
    }
    conn_state_set(conn, CONN_HANDSHAKE);
    conn_want_update(conn);
    if (!conn->is_unix || peer_is_us(conn))
        conn_handshake_start(conn);
}

static void on_io(struct loop *loop, struct loop_io *io, unsigned events)
{
    struct conn *conn = container_of(io, struct conn, io);
    int error;

    if (conn->state == CONN_CONNECTING) {
        error = socket_error(conn->fd);
        if (error)
            finish(conn, conn_errno_status(error));
        else
            connected(conn);
        return;
    }
    if (events & LOOP_READ)
        conn_readable(conn);
    if (events & LOOP_WRITE && conn->state != CONN_CLOSED)
        conn_write(conn);
    conn_tell_sent(conn);
}

static bool socket_is_unix(int fd)
{
    int domain = 0;
    socklen_t len = sizeof(domain);

    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 && domain == AF_UNIX;
}

static enum mc_status attach(struct conn *conn, int fd, unsigned want)
{
    int flags = fcntl(fd, F_GETFL);

    conn->fd = fd;
    conn->is_unix = socket_is_unix(fd);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
        log_error("fcntl on socket of peer %s: %m", conn->name);
        return MC_ESYS;
    }
    tune(conn);
    loop_timer_set(conn->loop, &conn->timer, deadline_after_ms(loop_now_ns(conn->loop), conn->limits.handshake_ms));
    return loop_io_start(conn->loop, &conn->io, fd, want, on_io);
}

enum mc_status conn_begin(struct conn *conn, int fd)
{
    enum mc_status status = attach(conn, fd, 0);

    if (status == MC_OK)
        connected(conn);
    return status;
}

static enum mc_status dial(struct conn *conn, const struct sockaddr *sa, socklen_t len)
{
    int fd = socket(sa->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    enum mc_status status;

    if (fd < 0) {
        log_error("cannot make a socket for peer %s: %m", conn->name);
        return conn_errno_status(errno);
    }
    status = attach(conn, fd, LOOP_WRITE);
    if (status != MC_OK)
        return status;
    /* An error here (a unix socket that is not there, no route) is told by on_close, as one that comes later would be. */
    if (connect(fd, sa, len) != 0 && errno != EINPROGRESS)
        finish(conn, errno == EAGAIN ? MC_EPEERDOWN : conn_errno_status(errno));
    return MC_OK;
}

/* --- names: getaddrinfo on a thread of its own --- */

static void resolved(struct loop *loop, struct loop_task *task)
{
    struct resolve *resolve = container_of(task, struct resolve, task);
    struct conn *conn = resolve->conn;
    enum mc_status status = resolve->status;

    if (conn) {
        conn->resolve = NULL;
        if (status != MC_OK)
            log_debug("peer %s: name not found", conn->name);
        else
            status = dial(conn, (struct sockaddr *)&resolve->sa, resolve->len);
        if (status != MC_OK)
            finish(conn, status == MC_ENOENT ? MC_EPEERDOWN : status);
    }
    free(resolve);
}

static void *resolve_main(void *arg)
{
    struct resolve *resolve = arg;
    struct loop *loop = resolve->loop;

    resolve->status = addr_resolve(&resolve->addr, &resolve->sa, &resolve->len);
    loop_post(loop, &resolve->task);
    loop_unhold(loop);
    return NULL;
}

static enum mc_status resolve_start(struct conn *conn)
{
    struct resolve *resolve = calloc(1, sizeof(*resolve));
    pthread_attr_t attr;
    pthread_t thread;
    int error;

    if (!resolve)
        return MC_ENOMEM;
    *resolve = (struct resolve){.loop = conn->loop, .conn = conn, .addr = conn->addr};
    loop_task_init(&resolve->task, resolved);
    loop_hold(conn->loop);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    error = pthread_create(&thread, &attr, resolve_main, resolve);
    pthread_attr_destroy(&attr);
    if (error) {
        errno = error;
        log_error("cannot start a thread to look up %s: %m", conn->name);
        loop_unhold(conn->loop);
        free(resolve);
        return MC_ENOMEM;
    }
    conn->resolve = resolve;
    return MC_OK;
}

/* --- public --- */

enum mc_status conn_connect(struct loop *loop, const struct addr *addr, const struct conn_opts *opts, struct conn **out)
{
    struct conn *conn;
    struct sockaddr_storage sa;
    enum mc_status status;
    socklen_t len;

    assert(loop_in_thread(loop));
    conn = conn_new(loop, opts->self, opts->expect, opts->ops, opts->user, &opts->limits);
    if (!conn)
        return MC_ENOMEM;
    conn->addr = *addr;
    conn->dialer = conn->owner_knows = true;
    addr_format(addr, conn->name);
    if (!addr_is_numeric(addr))
        status = resolve_start(conn);
    else if ((status = addr_resolve(addr, &sa, &len)) == MC_OK)
        status = dial(conn, (struct sockaddr *)&sa, len);
    if (status != MC_OK) {
        conn_free(conn);
        return status;
    }
    if (conn->resolve) /* the look-up counts as part of the handshake time */
        loop_timer_set(loop, &conn->timer, deadline_after_ms(loop_now_ns(loop), conn->limits.handshake_ms));
    *out = conn;
    return MC_OK;
}

enum mc_status conn_adopt(struct loop *loop, int fd, bool dialer, const struct conn_opts *opts, struct conn **out)
{
    struct conn *conn;
    enum mc_status status;

    assert(loop_in_thread(loop));
    conn = conn_new(loop, opts->self, opts->expect, opts->ops, opts->user, &opts->limits);
    if (!conn) {
        close(fd);
        return MC_ENOMEM;
    }
    conn->dialer = dialer;
    conn->owner_knows = true;
    if (addr_of_peer(fd, &conn->addr) == MC_OK)
        addr_format(&conn->addr, conn->name);
    status = conn_begin(conn, fd);
    if (status != MC_OK) {
        conn_free(conn);
        return status;
    }
    *out = conn;
    return MC_OK;
}

void conn_become_ready(struct conn *conn)
{
    loop_timer_cancel(conn->loop, &conn->timer);
    conn_state_set(conn, CONN_READY);
    conn->owner_knows = conn->state_was_ready = true;
    if (conn->ops->on_ready)
        conn->ops->on_ready(conn);
}

void conn_pause(struct conn *conn)
{
    if (conn->state >= CONN_CLOSING)
        return;
    conn->paused = true;
    conn_want_update(conn);
}

void conn_resume(struct conn *conn)
{
    if (!conn->paused || conn->state == CONN_CLOSED)
        return;
    conn->paused = false;
    conn->resumed = true;
    conn_want_update(conn);
    loop_defer(conn->loop, &conn->flush_task); /* bytes already in our buffer would not wake us */
}

void conn_set_user(struct conn *conn, void *user)
{
    conn->user = user;
}

void *conn_user(const struct conn *conn)
{
    return conn->user;
}

void conn_set_ops(struct conn *conn, const struct conn_ops *ops)
{
    conn->ops = ops;
}

struct loop *conn_loop(const struct conn *conn)
{
    return conn->loop;
}

bool conn_ready(const struct conn *conn)
{
    return conn->state == CONN_READY;
}

struct loop_io *conn_io(struct conn *conn)
{
    return &conn->io;
}

const struct hello *conn_peer(const struct conn *conn)
{
    return &conn->peer;
}

uint16_t conn_protocol(const struct conn *conn)
{
    return conn->protocol;
}

uint64_t conn_features(const struct conn *conn)
{
    return conn->self.features & conn->peer.features;
}

const char *conn_name(const struct conn *conn)
{
    return conn->name;
}

bool conn_is_unix(const struct conn *conn)
{
    return conn->is_unix;
}

const char *conn_refusal(const struct conn *conn)
{
    return conn->refusal;
}

size_t conn_queued(const struct conn *conn)
{
    return conn->queued + (size_t)conn->queued_payload;
}

void conn_stats(const struct conn *conn, struct conn_stats *out)
{
    *out = conn->stats;
}
