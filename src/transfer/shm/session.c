/* session.c - the Unix connection to one process of this host.
 *
 *   dialler                                acceptor
 *     FD(page D) ------------------------->  maps it, reads nonce D, tries process_vm_readv
 *     maps it, reads nonce A <-------------- FD(page A)
 *     SHM_PROOF(nonce A, can read) -------->
 *            <------------------------------ SHM_PROOF(nonce D, can read)
 *   up when a page was mapped and the own nonce has come back. Segments follow when they are needed:
 *     SHM_SEGMENT(number) ------>  <------ FD(segment, number)   or an answer with the reason */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "transfer/shm/shm_impl.h"
#include "transfer/tcp/tcp.h"

#define SESSIONS_MAX    1024
#define ACCEPT_TURN     64
#define ACCEPT_RETRY_MS 50

/* ---- life ---- */

static const struct conn_ops session_ops;

static struct session *session_create(struct shm *shm, int fd, bool dialled)
{
    struct session *session = calloc(1, sizeof(*session));
    struct ucred cred;
    socklen_t len = sizeof(cred);

    if (!session)
        return NULL;
    session->calls = calloc(CALLS, sizeof(*session->calls));
    if (!session->calls) {
        free(session);
        return NULL;
    }
    session->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (session->fd < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0) {
        log_error("transfer: unix socket: %m");
        if (session->fd >= 0)
            close(session->fd);
        free(session->calls);
        free(session);
        return NULL;
    }
    session->pid = cred.pid;
    session->shm = shm;
    session->dialled = dialled;
    list_init(&session->mappings);
    list_init(&session->pulls);
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

        if (mapping->addr)
            munmap((void *)(uintptr_t)mapping->addr, mapping->len);
        if (mapping->fd >= 0)
            close(mapping->fd);
        list_del(&mapping->link);
        free(mapping);
    }
    page_unmap(session->page);
    close(session->fd);
    free(session->calls);
    free(session);
}

void session_put(struct session *session)
{
    if (session && atomic_fetch_sub(&session->refs, 1) == 1)
        session_free(session);
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

/* ---- segments ---- */

static struct mapping *mapping_find(struct session *session, uint32_t number)
{
    list_for_each (it, &session->mappings) {
        struct mapping *mapping = list_entry(it, struct mapping, link);

        if (mapping->number == number)
            return mapping;
    }
    return NULL;
}

const struct mapping *session_mapping(struct session *session, uint32_t number)
{
    struct mapping *mapping;

    pthread_mutex_lock(&session->shm->lock);
    mapping = mapping_find(session, number);
    if (mapping && mapping->state != MAPPING_READY)
        mapping = NULL;
    pthread_mutex_unlock(&session->shm->lock);
    return mapping;
}

static enum mc_status segment_ask(struct session *session, uint32_t number)
{
    struct buf body;
    struct conn_msg msg = {.type = MSG_SHM_SEGMENT, .request = number};
    enum mc_status status;

    buf_init(&body, 64);
    wire_segment_encode(number, &body);
    msg.body = buf_slice(&body);
    status = buf_status(&body);
    if (status == MC_OK)
        status = conn_send(session->conn, &msg);
    buf_fini(&body);
    return status;
}

/* A question that cannot be sent now says nothing about the segment: when the session has room, or has ended, whoever waits is
 * looked at again. */
enum mapping_state session_segment(struct session *session, uint32_t number)
{
    struct mapping *mapping = mapping_find(session, number);
    enum mc_status status;

    if (mapping)
        return mapping->state;
    if (session->mapping_count >= MAPPINGS_MAX)
        return MAPPING_REFUSED;
    mapping = calloc(1, sizeof(*mapping));
    if (!mapping)
        return MAPPING_REFUSED;
    status = segment_ask(session, number);
    if (status != MC_OK) {
        free(mapping);
        return status == MC_ENOMEM ? MAPPING_REFUSED : MAPPING_ASKED;
    }
    mapping->number = number;
    mapping->fd = -1;
    session->mapping_count++;
    pthread_mutex_lock(&session->shm->lock);
    list_push_back(&session->mappings, &mapping->link);
    pthread_mutex_unlock(&session->shm->lock);
    return MAPPING_ASKED;
}

static void segment_came(struct session *session, uint32_t number, int fd)
{
    struct mapping *mapping = mapping_find(session, number);
    const uint8_t *addr = NULL;
    uint64_t len = 0;
    enum mc_status status;

    if (!mapping || mapping->state != MAPPING_ASKED) {
        close(fd);
        return;
    }
    status = map_sealed(fd, conn_name(session->conn), &addr, &len);
    if (status != MC_OK) {
        close(fd);
        fd = -1;
    }
    pthread_mutex_lock(&session->shm->lock);
    mapping->fd = fd;
    mapping->addr = addr;
    mapping->len = len;
    mapping->state = status == MC_OK ? MAPPING_READY : MAPPING_REFUSED;
    pthread_mutex_unlock(&session->shm->lock);
}

static void segment_refused(struct session *session, uint64_t number)
{
    struct mapping *mapping = mapping_find(session, (uint32_t)number);

    if (!mapping || mapping->state != MAPPING_ASKED)
        return;
    pthread_mutex_lock(&session->shm->lock);
    mapping->state = MAPPING_REFUSED;
    pthread_mutex_unlock(&session->shm->lock);
}

/* What waited for a segment, or for room to ask for one, goes on. */
static void segment_changed(struct session *session)
{
    te_pump_later(session->shm->te);
    loop_defer(session->shm->te->loop, &session->shm->pull_task);
}

static void fd_send(struct session *session, enum wire_fd kind, uint32_t number, int fd)
{
    struct buf body;

    buf_init(&body, 64);
    wire_fd_encode(kind, number, &body);
    if (buf_status(&body) != MC_OK || conn_send_fd(session->conn, 0, buf_slice(&body), fd) != MC_OK)
        conn_abort(session->conn, MC_ENOMEM);
    buf_fini(&body);
}

static void segment_frame(struct session *session, const struct frame *frame)
{
    const char *bad;
    uint32_t number;
    int fd;

    if (frame->flags & FRAME_REPLY) {
        if (frame->status != MC_OK) {
            segment_refused(session, frame->request);
            segment_changed(session);
        }
        return;
    }
    if (wire_segment_decode(frame->body, &number, &bad) != MC_OK) {
        log_warn("transfer: peer %s: malformed %s in shm-segment", conn_name(session->conn), bad);
        conn_abort(session->conn, MC_EPROTO);
        return;
    }
    fd = segment_share(session->shm->te, number);
    if (fd >= 0) {
        fd_send(session, WIRE_FD_SEGMENT, number, fd);
        close(fd);
    }
    conn_reply(session->conn, frame, fd >= 0 ? MC_OK : MC_ENOENT, slice_of(NULL, 0));
}

/* ---- proof ---- */

static void check_up(struct session *session)
{
    if (!session->proven || !session->page || atomic_load(&session->up))
        return;
    atomic_store(&session->up, true);
    log_debug("transfer: peer %s is on this host, pid %d, its memory %s", conn_name(session->conn), (int)session->pid,
        session->can_read ? "readable" : "not readable");
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
    struct wire_proof proof = {0};
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
    session->can_read = try_vm(session);
    memcpy(proof.nonce, session->page->nonce, sizeof(proof.nonce));
    proof.can_read = session->can_read;
    buf_init(&body, 128);
    wire_proof_encode(&proof, &body);
    msg.body = buf_slice(&body);
    if (buf_status(&body) != MC_OK || conn_send(session->conn, &msg) != MC_OK)
        conn_abort(session->conn, MC_ENOMEM);
    buf_fini(&body);
    check_up(session);
}

static void proof_frame(struct session *session, const struct frame *frame)
{
    struct wire_proof proof;
    const char *bad = "nonce (another process answers)";

    if (wire_proof_decode(frame->body, &proof, &bad) != MC_OK ||
        memcmp(proof.nonce, session->shm->page->nonce, sizeof(proof.nonce)) != 0) {
        log_warn("transfer: peer %s: wrong %s in shm-proof", conn_name(session->conn), bad);
        conn_abort(session->conn, MC_EPROTO);
        return;
    }
    session->they_can_read = proof.can_read;
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
    fd_send(session, WIRE_FD_PAGE, 0, session->shm->page_fd);
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
        segment_changed(session);
    }
}

static void on_frame(struct conn *conn, const struct frame *frame)
{
    struct session *session = conn_user(conn);

    if (frame->request == 0 && (frame->type == MSG_SHM_SEGMENT || frame->type == MSG_SHM_PULL)) {
        log_warn("transfer: peer %s: malformed request id in a frame of type 0x%04x", conn_name(conn), frame->type);
        conn_abort(conn, MC_EPROTO); /* it would count against no credit */
        return;
    }
    switch (frame->type) {
    case MSG_SHM_PROOF: proof_frame(session, frame); break;
    case MSG_SHM_SEGMENT: segment_frame(session, frame); break;
    case MSG_SHM_PULL:
        if (!atomic_load(&session->up))
            conn_abort(conn, MC_EPROTO);
        else if (frame->flags & FRAME_REPLY)
            pull_answer(session, frame);
        else
            pull_frame(session, frame);
        break;
    case MSG_CANCEL: break; /* the token says it */
    default: conn_reply_unknown(conn, frame);
    }
}

static void on_writable(struct conn *conn)
{
    segment_changed(conn_user(conn));
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
    pthread_mutex_unlock(&shm->lock);
    shm->session_count--;
    session->conn = NULL;
    pull_session_gone(session);
    other = session_find(shm, session->uuid);
    if (!te->closing && other && atomic_load(&other->up))
        te_pump_later(te);
    else if (!te->closing && was_up)
        peers_lost(shm, session->uuid);
    else if (!te->closing && !other)
        peers_set(shm, session->uuid, PEER_SHM_NONE);
    session_put(session);
    te_unref(te);
}

static const struct conn_ops session_ops = {
    .on_ready = on_ready,
    .on_frame = on_frame,
    .on_fd = on_fd,
    .on_writable = on_writable,
    .on_close = on_close,
};

/* ---- dialling and listening ---- */

static enum mc_status session_start(struct shm *shm, int fd, bool dialled, const uint8_t *uuid)
{
    struct hello self = {0};
    struct hello_expect expect = {0};
    struct conn_opts opts = {
        .self = &self,
        .expect = &expect,
        .ops = &session_ops,
        .limits = {.body_max = 64u << 10, .payload_max = 1, .credits = 4 * CALLS},
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
        session_put(session);
        te_unref(shm->te);
    }
    return status;
}

static int dial(const char *path)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", path);
    if (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) == 0)
        return fd;
    log_info("transfer: no shared memory with the peer behind %s: %m", path);
    close(fd);
    return -1;
}

/* Same host by its word; the session will prove it, or not come to be (containers share a boot id, not a file system). */
void shm_peer_offers(struct mc_peer *peer, const struct hello *hello, const char *path, bool dial_it)
{
    struct shm *shm = peer->te->shm;
    struct session *session;
    int fd;

    if (!shm || !path[0] || !hello->host_id[0] || strcmp(hello->host_id, peer->te->host_id) != 0) {
        peer_shm_set(peer, PEER_SHM_NONE);
        return;
    }
    session = session_find(shm, hello->uuid);
    if (session && atomic_load(&session->up)) {
        peer_shm_set(peer, PEER_SHM_UP);
        return;
    }
    peer_shm_set(peer, PEER_SHM_WAIT);
    if (session || !dial_it)
        return;
    fd = dial(path);
    if (fd < 0 || session_start(shm, fd, true, hello->uuid) != MC_OK)
        peer_shm_set(peer, PEER_SHM_NONE);
}

static void on_accept(struct loop *loop, struct loop_io *io, unsigned events)
{
    struct shm *shm = container_of(io, struct shm, listen_io);
    int fd = 0;

    for (int i = 0; i < ACCEPT_TURN && fd >= 0; i++) {
        fd = accept4(shm->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0 && shm->session_count >= SESSIONS_MAX) {
            log_every_ms(LOG_LEVEL_WARN, 1000, "transfer: more than %d processes at %s: others go over tcp",
                SESSIONS_MAX, shm->path);
            close(fd);
        } else if (fd >= 0)
            session_start(shm, fd, false, NULL);
    }
    if (fd >= 0 || (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS))
        return;
    log_every_ms(LOG_LEVEL_ERROR, 1000, "transfer: cannot accept at %s: %m", shm->path);
    loop_io_want(&shm->listen_io, 0); /* it would fail again at once, for ever */
    loop_timer_set(loop, &shm->listen_retry, deadline_after_ms(loop_now_ns(loop), ACCEPT_RETRY_MS));
}

static void on_accept_retry(struct loop *loop, struct loop_timer *timer)
{
    struct shm *shm = container_of(timer, struct shm, listen_retry);

    loop_io_want(&shm->listen_io, LOOP_READ);
}

/* Sockets of processes that were killed: nobody listens at them. A socket gets its final name only when it listens, so none that is
 * just coming to be is taken for dead. */
static void sweep(const char *dir)
{
    DIR *list = opendir(dir);
    struct dirent *entry;

    while (list && (entry = readdir(list)) != NULL) {
        size_t len = strlen(entry->d_name);
        struct sockaddr_un sun = {.sun_family = AF_UNIX};
        int fd, n;

        if (strncmp(entry->d_name, "te-", 3) != 0 || len < 8 || strcmp(entry->d_name + len - 5, ".sock") != 0)
            continue;
        n = snprintf(sun.sun_path, sizeof(sun.sun_path), "%s/%s", dir, entry->d_name);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd >= 0 && n > 0 && (size_t)n < sizeof(sun.sun_path) &&
            connect(fd, (struct sockaddr *)&sun, sizeof(sun)) != 0 && errno == ECONNREFUSED)
            unlink(sun.sun_path);
        if (fd >= 0)
            close(fd);
    }
    if (list)
        closedir(list);
}

static enum mc_status listen_start(struct shm *shm)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    uint8_t random[8];
    char hex[17];
    int n, m;

    sweep(shm->te->run_dir);
    random_bytes(random, sizeof(random));
    hex_encode(hex, random, sizeof(random));
    n = snprintf(shm->path, sizeof(shm->path), "%s/te-%s.sock", shm->te->run_dir, hex);
    m = snprintf(sun.sun_path, sizeof(sun.sun_path), "%s/te-%s.new", shm->te->run_dir, hex);
    if (n < 0 || (size_t)n >= sizeof(shm->path) || m < 0 || (size_t)m >= sizeof(sun.sun_path)) {
        log_error("transfer: run directory %s: too long for a socket in it (at most 80 bytes)", shm->te->run_dir);
        return MC_EINVAL;
    }
    shm->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (shm->listen_fd < 0 || bind(shm->listen_fd, (struct sockaddr *)&sun, sizeof(sun)) != 0 ||
        listen(shm->listen_fd, 128) != 0 || rename(sun.sun_path, shm->path) != 0) {
        log_error("transfer: cannot listen at %s: %m", shm->path);
        unlink(sun.sun_path);
        return MC_ESYS;
    }
    return loop_io_start(shm->te->loop, &shm->listen_io, shm->listen_fd, LOOP_READ, on_accept);
}

enum mc_status shm_create(struct mc_te *te, struct shm **out)
{
    struct shm *shm = calloc(1, sizeof(*shm));
    enum mc_status status;

    if (!shm)
        return MC_ENOMEM;
    shm->te = te;
    shm->listen_fd = -1;
    pthread_mutex_init(&shm->lock, NULL);
    list_init(&shm->sessions);
    list_init(&shm->views);
    loop_task_init(&shm->pull_task, pull_run);
    loop_timer_init(&shm->listen_retry, on_accept_retry);
    status = loop_timer_reserve(te->loop, 1);
    if (status == MC_OK)
        status = page_create(shm);
    if (status != MC_OK)
        goto undo_shm;
    status = listen_start(shm);
    if (status != MC_OK)
        goto undo_page;
    *out = shm;
    return MC_OK;

undo_page:
    if (shm->listen_fd >= 0) {
        close(shm->listen_fd);
        unlink(shm->path);
    }
    page_destroy(shm);
undo_shm:
    pthread_mutex_destroy(&shm->lock);
    free(shm);
    return status;
}

void shm_stop(struct shm *shm)
{
    if (!shm || shm->listen_fd < 0)
        return;
    loop_io_stop(&shm->listen_io);
    loop_timer_cancel(shm->te->loop, &shm->listen_retry);
    close(shm->listen_fd);
    unlink(shm->path);
    shm->listen_fd = -1;
    loop_defer_cancel(shm->te->loop, &shm->pull_task);
    list_for_each (it, &shm->sessions)
        conn_abort(list_entry(it, struct session, link)->conn, MC_ECLOSED);
}

void shm_destroy(struct shm *shm)
{
    if (!shm)
        return;
    page_destroy(shm);
    pthread_mutex_destroy(&shm->lock);
    free(shm);
}

const char *shm_path(const struct shm *shm)
{
    return shm->path;
}
