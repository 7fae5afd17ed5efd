/* listen.c - the Unix socket of an engine, and dialling those of others.
 *
 * A socket is bound under a name of its own and gets its final one when it listens, in a directory that is ours alone. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "transfer/shm/shm_impl.h"

#define SESSIONS_MAX    1024
#define ACCEPT_TURN     64
#define ACCEPT_RETRY_MS 50

/* ---- dialling ---- */

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

/* ---- listening ---- */

static void on_accept(struct loop *loop, struct loop_io *io, unsigned events)
{
    struct shm *shm = container_of(io, struct shm, listen_io);
    int fd = 0;

    sessions_sweep(shm);
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
    list_init(&shm->parted);
    list_init(&shm->views);
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
    list_for_each (it, &shm->sessions)
        conn_abort(list_entry(it, struct session, link)->conn, MC_ECLOSED);
}

void shm_destroy(struct shm *shm)
{
    if (!shm)
        return;
    sessions_fini(shm);
    page_destroy(shm);
    pthread_mutex_destroy(&shm->lock);
    free(shm);
}

const char *shm_path(const struct shm *shm)
{
    return shm->path;
}
