/* session.c - the Unix connection to one process of this host.
 *
 *   dialler                                acceptor
 *     FD(page D) ------------------------->  maps it, reads nonce D, tries process_vm_readv
 *     maps it, reads nonce A <-------------- FD(page A)
 *     SHM_PROOF(nonce A) ------------------>
 *            <------------------------------ SHM_PROOF(nonce D)
 *   up when a page was mapped and the own nonce has come back. Segments follow when they are needed (segment.c).
 *
 * The end of the stream says: nothing of mine copies here any more. So it is sent when the last copy of a session that has ended is
 * over, by whoever makes it; and he who ended the session keeps the page of the other, with its hazards ("parted"), until that has
 * come from there too. */
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/log.h"
#include "transfer/shm/shm_impl.h"
#include "transfer/tcp/tcp.h"

#define CREDITS 256 /* questions about segments of ours that a peer may have open */

/* ---- life ---- */

static const struct conn_ops session_ops;

static struct session *session_create(struct shm *shm, int fd, bool dialled)
{
    struct session *session = calloc(1, sizeof(*session));
    struct ucred cred;
    socklen_t len = sizeof(cred);

    if (!session)
        return NULL;
    session->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (session->fd < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0) {
        log_error("transfer: unix socket: %m");
        if (session->fd >= 0)
            close(session->fd);
        free(session);
        return NULL;
    }
    session->pid = cred.pid;
    session->shm = shm;
    session->dialled = dialled;
    list_init(&session->mappings);
    atomic_store(&session->refs, 1);
    pthread_mutex_lock(&shm->lock);
    list_push_back(&shm->sessions, &session->link);
    pthread_mutex_unlock(&shm->lock);
    shm->session_count++;
    te_ref(shm->te);
    return session;
}

static void session_free(struct session *session)
{
    while (!list_empty(&session->mappings)) {
        struct mapping *mapping = list_first(&session->mappings, struct mapping, link);

        list_del(&mapping->link);
        mapping_put(mapping);
    }
    page_unmap(session->page);
    close(session->fd);
    free(session);
}

void session_put(struct session *session)
{
    if (!session || atomic_fetch_sub(&session->refs, 1) > 1)
        return;
    shutdown(session->fd, SHUT_WR);
    atomic_store(&session->silent, true);
}

static void sessions_free(struct shm *shm, struct list *sessions)
{
    for (struct list *it; (it = list_pop_front(sessions)) != NULL; shm->session_count--)
        session_free(list_entry(it, struct session, link));
}

void sessions_sweep(struct shm *shm)
{
    struct list gone;

    list_init(&gone);
    pthread_mutex_lock(&shm->lock);
    list_for_each_safe (it, tmp, &shm->parted) {
        struct session *session = list_entry(it, struct session, link);

        if (!atomic_load(&session->silent) || !session_hung_up(session))
            continue;
        list_del(&session->link);
        list_push_back(&gone, &session->link);
    }
    pthread_mutex_unlock(&shm->lock);
    sessions_free(shm, &gone);
}

void sessions_fini(struct shm *shm)
{
    sessions_free(shm, &shm->parted);
}

/* When two processes open each other at once there are two sessions between them: one that stands is as good as the other. */
static struct session *find_locked(struct shm *shm, const uint8_t uuid[UUID_SIZE])
{
    struct session *found = NULL;

    list_for_each (it, &shm->sessions) {
        struct session *session = list_entry(it, struct session, link);

        if (memcmp(session->uuid, uuid, UUID_SIZE) == 0 && (!found || atomic_load(&session->up)))
            found = session;
    }
    return found;
}

struct session *session_find(struct shm *shm, const uint8_t uuid[UUID_SIZE])
{
    struct session *session;

    pthread_mutex_lock(&shm->lock);
    session = find_locked(shm, uuid);
    pthread_mutex_unlock(&shm->lock);
    return session;
}

struct session *session_get(struct mc_peer *peer)
{
    struct shm *shm = peer->te->shm;
    struct session *session = NULL;
    uint8_t uuid[UUID_SIZE];
    uint32_t epoch;

    if (!shm || !te_peer_uuid(peer, uuid, &epoch))
        return NULL;
    pthread_mutex_lock(&shm->lock);
    session = find_locked(shm, uuid);
    if (session && atomic_load(&session->up))
        atomic_fetch_add(&session->refs, 1);
    else
        session = NULL;
    pthread_mutex_unlock(&shm->lock);
    return session;
}

bool session_hung_up(const struct session *session)
{
    struct pollfd pfd = {.fd = session->fd, .events = POLLRDHUP};

    return poll(&pfd, 1, 0) != 0 && (pfd.revents & (POLLHUP | POLLRDHUP | POLLERR));
}

/* Tell every peer object of that process. */
static void peers_set(struct shm *shm, const uint8_t uuid[UUID_SIZE], enum peer_shm state)
{
    list_for_each_safe (it, tmp, &shm->te->peers) {
        struct mc_peer *peer = list_entry(it, struct mc_peer, link);

        if (!peer->known || memcmp(peer->uuid, uuid, UUID_SIZE) != 0)
            continue;
        peer_shm_set(peer, state);
        if (state == PEER_SHM_NONE)
            tcp_tell_clock(peer); /* without a path: the far end stops waiting for us too */
    }
}

/* A session that stood has ended: the process is gone, or something is wrong with it. Who dialled it begins anew with its links
 * too, which finds out. */
static void peers_lost(struct shm *shm, const uint8_t uuid[UUID_SIZE])
{
    list_for_each_safe (it, tmp, &shm->te->peers) {
        struct mc_peer *peer = list_entry(it, struct mc_peer, link);

        if (!peer->known || memcmp(peer->uuid, uuid, UUID_SIZE) != 0)
            continue;
        peer_shm_set(peer, PEER_SHM_UNKNOWN);
        if (!peer->inbound)
            tcp_cut_links(peer);
    }
}

void session_send_fd(struct session *session, enum wire_fd kind, uint32_t number, int fd)
{
    struct buf body;

    buf_init(&body, 64);
    wire_fd_encode(kind, number, &body);
    if (buf_status(&body) != MC_OK || conn_send_fd(session->conn, 0, buf_slice(&body), fd) != MC_OK)
        conn_abort(session->conn, MC_ENOMEM);
    buf_fini(&body);
}

/* ---- proof ---- */

static void check_up(struct session *session)
{
    if (!session->proven || !session->page || atomic_load(&session->up))
        return;
    atomic_store(&session->up, true);
    log_debug("transfer: peer %s is on this host, pid %d, its memory %s", conn_name(session->conn), (int)session->pid,
        session->by_call ? "reachable" : "not reachable");
    peers_set(session->shm, session->uuid, PEER_SHM_UP);
}

static bool try_vm(const struct session *session)
{
    uint8_t nonce[WIRE_NONCE];
    struct iovec here = {nonce, sizeof(nonce)};
    struct iovec there = {(void *)(uintptr_t)(session->page->own_addr + offsetof(struct page, nonce)), sizeof(nonce)};

    return session->pid > 0 && process_vm_readv(session->pid, &here, 1, &there, 1, 0) == (ssize_t)sizeof(nonce) &&
           memcmp(nonce, session->page->nonce, sizeof(nonce)) == 0;
}

static void page_came(struct session *session, int fd)
{
    struct conn_msg msg = {.type = MSG_SHM_PROOF};
    const struct page *page;
    struct buf body;

    if (session->page) {
        close(fd);
        conn_abort(session->conn, MC_EPROTO);
        return;
    }
    page = page_map(fd, conn_name(session->conn));
    if (!page) {
        conn_abort(session->conn, MC_EPERM);
        return;
    }
    pthread_mutex_lock(&session->shm->lock);
    session->page = page;
    pthread_mutex_unlock(&session->shm->lock);
    session->by_call = try_vm(session);
    buf_init(&body, 128);
    wire_proof_encode(session->page->nonce, &body);
    msg.body = buf_slice(&body);
    if (buf_status(&body) != MC_OK || conn_send(session->conn, &msg) != MC_OK)
        conn_abort(session->conn, MC_ENOMEM);
    buf_fini(&body);
    check_up(session);
}

static void proof_frame(struct session *session, const struct frame *frame)
{
    uint8_t nonce[WIRE_NONCE];
    const char *bad = "nonce (another process answers)";

    if (wire_proof_decode(frame->body, nonce, &bad) != MC_OK ||
        memcmp(nonce, session->shm->page->nonce, sizeof(nonce)) != 0) {
        log_warn("transfer: peer %s: wrong %s in shm-proof", conn_name(session->conn), bad);
        conn_abort(session->conn, MC_EPROTO);
        return;
    }
    session->proven = true;
    check_up(session);
}

/* ---- callbacks ---- */

static void on_ready(struct conn *conn)
{
    struct session *session = conn_user(conn);

    pthread_mutex_lock(&session->shm->lock);
    memcpy(session->uuid, conn_peer(conn)->uuid, UUID_SIZE);
    pthread_mutex_unlock(&session->shm->lock);
    session_send_fd(session, WIRE_FD_PAGE, 0, session->shm->page_fd);
}

static void on_fd(struct conn *conn, const struct frame *frame, int fd)
{
    struct session *session = conn_user(conn);
    enum wire_fd kind;
    uint32_t number;
    const char *bad;

    if (wire_fd_decode(frame->body, &kind, &number, &bad) != MC_OK) {
        log_warn("transfer: peer %s: malformed %s in fd", conn_name(conn), bad);
        close(fd);
        conn_abort(conn, MC_EPROTO);
    } else if (kind == WIRE_FD_PAGE) {
        page_came(session, fd);
    } else {
        segment_came(session, number, fd);
    }
}

static void on_frame(struct conn *conn, const struct frame *frame)
{
    struct session *session = conn_user(conn);

    if (frame->request == 0 && frame->type == MSG_SHM_SEGMENT) {
        log_warn("transfer: peer %s: malformed request id in a frame of type 0x%04x", conn_name(conn), frame->type);
        conn_abort(conn, MC_EPROTO); /* it would count against no credit */
        return;
    }
    switch (frame->type) {
    case MSG_SHM_PROOF: proof_frame(session, frame); break;
    case MSG_SHM_SEGMENT: segment_frame(session, frame); break;
    case MSG_SHM_GONE: segment_gone_frame(session, frame); break;
    default: conn_reply_unknown(conn, frame);
    }
}

static void on_writable(struct conn *conn)
{
    const struct session *session = conn_user(conn);

    te_pump_later(session->shm->te); /* there may be room to ask for a segment */
}

static void on_close(struct conn *conn, enum mc_status status)
{
    struct session *session = conn_user(conn);
    struct shm *shm = session->shm;
    struct mc_te *te = shm->te;
    struct session *other;
    bool was_up = atomic_exchange(&session->up, false);

    pthread_mutex_lock(&shm->lock);
    list_del(&session->link);
    list_push_back(&shm->parted, &session->link);
    pthread_mutex_unlock(&shm->lock);
    session->conn = NULL;
    other = session_find(shm, session->uuid);
    if (!te->closing && other && atomic_load(&other->up))
        te_pump_later(te);
    else if (!te->closing && was_up)
        peers_lost(shm, session->uuid);
    else if (!te->closing && !other)
        peers_set(shm, session->uuid, PEER_SHM_NONE);
    session_put(session);
    sessions_sweep(shm);
    te_unref(te);
}

static const struct conn_ops session_ops = {
    .on_ready = on_ready,
    .on_frame = on_frame,
    .on_fd = on_fd,
    .on_writable = on_writable,
    .on_close = on_close,
};

/* ---- beginning ---- */

enum mc_status session_start(struct shm *shm, int fd, bool dialled, const uint8_t *uuid)
{
    struct hello self = {0};
    struct hello_expect expect = {0};
    struct conn_opts opts = {
        .self = &self,
        .expect = &expect,
        .ops = &session_ops,
        .limits = {.body_max = 64u << 10, .payload_max = 1, .credits = CREDITS},
    };
    struct session *session = session_create(shm, fd, dialled);
    enum mc_status status;

    if (!session) {
        close(fd);
        return MC_ENOMEM;
    }
    te_fill_hello(shm->te, &self, ROLE_ENGINE);
    if (uuid) {
        expect.uuid_set = true;
        memcpy(expect.uuid, uuid, UUID_SIZE);
        memcpy(session->uuid, uuid, UUID_SIZE);
    }
    opts.user = session;
    status = conn_adopt(shm->te->loop, fd, dialled, &opts, &session->conn);
    if (status != MC_OK) {
        pthread_mutex_lock(&shm->lock);
        list_del(&session->link);
        pthread_mutex_unlock(&shm->lock);
        shm->session_count--;
        session_free(session);
        te_unref(shm->te);
    }
    return status;
}
