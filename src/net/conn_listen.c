/* conn_listen.c - listeners.
 *
 * A listener holds its accepted connections in a list only until they go, to count them and to forget the pointer when it is
 * closed first. Accepted connections whose handshake never completes are ours alone: their owner never hears of them.
 *
 * When descriptors run out accept(2) would fail at once again and again; listening then pauses for RETRY_MS. */
#include <assert.h>
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/xdg.h"
#include "net/conn_impl.h"

#define BACKLOG     512
#define ACCEPT_TURN 64
#define RETRY_MS    50

struct listener {
    struct loop *loop;
    struct loop_io io;
    struct loop_timer retry;
    int fd;
    struct listener_opts opts;
    struct hello self;
    struct addr addr;
    dev_t dev; /* of the socket file */
    ino_t ino;
    struct list conns;
    unsigned conn_count;
};

void listener_conn_gone(struct conn *conn)
{
    if (!conn->listener)
        return;
    list_del(&conn->listener_link);
    conn->listener->conn_count--;
    conn->listener = NULL;
}

enum mc_status listener_decide(struct conn *conn, struct buf *why)
{
    struct listener *listener = conn->listener;

    if (!listener)
        return MC_OK;
    if (listener->conn_count > listener->opts.conns_max) {
        buf_printf(why, "already serving %u connections", listener->opts.conns_max);
        return MC_EBUSY;
    }
    return listener->opts.on_hello ? listener->opts.on_hello(conn, &conn->peer, why) : MC_OK;
}

static void name_accepted(struct conn *conn, struct listener *listener, int fd)
{
    struct ucred cred = {0};
    socklen_t len = sizeof(cred);

    if (listener->addr.kind == ADDR_UNIX) {
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len);
        snprintf(conn->name, sizeof(conn->name), "unix:%.200s pid %d", listener->addr.host, (int)cred.pid);
        conn->addr = listener->addr;
    } else if (addr_of_peer(fd, &conn->addr) == MC_OK) {
        addr_format(&conn->addr, conn->name);
    }
}

static void accepted(struct listener *listener, int fd)
{
    struct conn *conn = conn_new(listener->loop, &listener->self, &listener->opts.expect, listener->opts.ops,
        listener->opts.user, &listener->opts.limits);

    if (!conn) {
        close(fd);
        return;
    }
    name_accepted(conn, listener, fd);
    conn->listener = listener;
    list_push_back(&listener->conns, &conn->listener_link);
    listener->conn_count++;
    if (conn_begin(conn, fd) != MC_OK) {
        listener_conn_gone(conn);
        conn_free(conn);
    }
}

static void on_retry(struct loop *loop, struct loop_timer *timer)
{
    struct listener *listener = container_of(timer, struct listener, retry);

    loop_io_want(&listener->io, LOOP_READ);
}

static void on_acceptable(struct loop *loop, struct loop_io *io, unsigned events)
{
    struct listener *listener = container_of(io, struct listener, io);
    int fd;

    for (int i = 0; i < ACCEPT_TURN; i++) {
        fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0 && listener->conn_count >= 2 * listener->opts.conns_max) {
            close(fd); /* not even room to refuse politely */
            continue;
        }
        if (fd >= 0) {
            accepted(listener, fd);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            log_every_ms(LOG_LEVEL_ERROR, 1000, "cannot accept: %m");
            loop_io_want(io, 0);
            loop_timer_set(loop, &listener->retry, deadline_after_ms(loop_now_ns(loop), RETRY_MS));
        }
        return;
    }
}

/* --- opening --- */

/* A socket file nobody listens on is left over from a process that was killed. */
static enum mc_status unix_prepare(const struct sockaddr_un *un)
{
    char dir[sizeof(un->sun_path) + 1];
    enum mc_status status;
    int fd, error;

    snprintf(dir, sizeof(dir), "%s", un->sun_path);
    status = path_private_dir(dirname(dir));
    if (status != MC_OK)
        return status;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        log_error("cannot make a unix socket: %m");
        return MC_ESYS;
    }
    error = connect(fd, (const struct sockaddr *)un, sizeof(*un)) == 0 ? 0 : errno;
    close(fd);
    if (error == 0 || error == EAGAIN) {
        log_error("unix:%s is in use by another process", un->sun_path);
        return MC_EEXIST;
    }
    if (error == ECONNREFUSED)
        unlink(un->sun_path);
    return MC_OK;
}

static enum mc_status bind_failed(struct listener *listener, const char *what)
{
    char text[ADDR_TEXT_MAX];
    int error = errno;

    log_error("cannot %s %s: %m", what, addr_format(&listener->addr, text));
    return error == EADDRINUSE ? MC_EEXIST : error == EACCES ? MC_EPERM : error == EADDRNOTAVAIL ? MC_EINVAL : MC_ESYS;
}

static enum mc_status open_socket(struct listener *listener)
{
    struct sockaddr_storage sa;
    struct stat st;
    socklen_t len;
    int on = 1;
    enum mc_status status = addr_resolve(&listener->addr, &sa, &len);

    if (status == MC_OK && sa.ss_family == AF_UNIX)
        status = unix_prepare((const struct sockaddr_un *)(const void *)&sa);
    if (status != MC_OK)
        return status;
    listener->fd = socket(sa.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener->fd < 0)
        return bind_failed(listener, "make a socket for");
    if (sa.ss_family != AF_UNIX)
        setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(listener->fd, (struct sockaddr *)&sa, len) != 0)
        return bind_failed(listener, "bind to");
    if (listen(listener->fd, BACKLOG) != 0)
        return bind_failed(listener, "listen on");
    if (sa.ss_family == AF_UNIX && stat(listener->addr.host, &st) == 0) {
        listener->dev = st.st_dev;
        listener->ino = st.st_ino;
    }
    return listener->addr.kind == ADDR_UNIX ? MC_OK : addr_of_socket(listener->fd, &listener->addr);
}

static void listener_free(struct listener *listener)
{
    loop_io_stop(&listener->io);
    loop_timer_cancel(listener->loop, &listener->retry);
    if (listener->fd >= 0)
        close(listener->fd);
    free(listener);
}

enum mc_status conn_listen(
    struct loop *loop, const struct addr *addr, const struct listener_opts *opts, struct listener **out)
{
    struct listener *listener;
    enum mc_status status;

    assert(loop_in_thread(loop));
    listener = calloc(1, sizeof(*listener));
    if (!listener)
        return MC_ENOMEM;
    listener->loop = loop;
    listener->fd = -1;
    listener->opts = *opts;
    listener->self = *opts->self;
    listener->addr = *addr;
    if (!listener->opts.conns_max)
        listener->opts.conns_max = 1024;
    list_init(&listener->conns);
    loop_timer_init(&listener->retry, on_retry);
    status = loop_timer_reserve(loop, 1);
    if (status == MC_OK)
        status = open_socket(listener);
    if (status == MC_OK)
        status = loop_io_start(loop, &listener->io, listener->fd, LOOP_READ, on_acceptable);
    if (status != MC_OK) {
        listener_free(listener);
        return status;
    }
    *out = listener;
    return MC_OK;
}

/* Only if the file is still ours: a successor may have bound the path meanwhile. */
static void unlink_own(const struct listener *listener)
{
    struct stat st;

    if (listener->addr.kind == ADDR_UNIX && stat(listener->addr.host, &st) == 0 && st.st_dev == listener->dev &&
        st.st_ino == listener->ino)
        unlink(listener->addr.host);
}

void listener_close(struct listener *listener)
{
    if (!listener)
        return;
    assert(loop_in_thread(listener->loop));
    unlink_own(listener);
    while (!list_empty(&listener->conns)) {
        struct conn *conn = list_entry(listener->conns.next, struct conn, listener_link);

        listener_conn_gone(conn);
        if (conn->state <= CONN_HANDSHAKE)
            conn_fail(conn, MC_ECLOSED); /* nobody is left to decide about it */
    }
    listener_free(listener);
}

const struct addr *listener_addr(const struct listener *listener)
{
    return &listener->addr;
}
