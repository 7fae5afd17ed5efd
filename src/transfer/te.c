/* te.c - an engine: options, loop, listener, start and end. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/pages.h"
#include "base/xdg.h"
#include "transfer/core.h"
#include "transfer/fault/fault.h"
#include "transfer/shm/shm.h"
#include "transfer/tcp/tcp.h"

#define LINKS_DEFAULT  2
#define WINDOW_DEFAULT 4096 /* KiB */
#define WINDOW_MAX     (1u << 20)

/* ---- loop tasks ---- */

static void incoming_run(struct loop *loop, struct loop_task *task)
{
    struct mc_te *te = container_of(task, struct mc_te, incoming_task);

    batch_take_incoming(te);
}

static void pump_run(struct loop *loop, struct loop_task *task)
{
    struct mc_te *te = container_of(task, struct mc_te, pump_task);

    list_for_each_safe (it, tmp, &te->peers)
        peer_pump(list_entry(it, struct mc_peer, link));
}

static void done_run(struct loop *loop, struct loop_task *task)
{
    batch_run_done(container_of(task, struct mc_te, done_task));
}

static void settled_run(struct loop *loop, struct loop_task *task)
{
    batch_tell_settled(container_of(task, struct mc_te, settled_task));
}

void te_pump_later(struct mc_te *te)
{
    if (!te->closing)
        loop_defer(te->loop, &te->pump_task);
}

/* We were stopped: what has expired meanwhile fails now, with its connections cut, before a socket is written again. */
static void gap_seen(struct loop *loop, struct loop_gap *gap, uint64_t gap_ns)
{
    struct mc_te *te = container_of(gap, struct mc_te, gap);

    log_debug("transfer: this process did not run for %llu ms", (unsigned long long)(gap_ns / NS_PER_MS));
    batch_fail_expired(te);
}

/* ---- identity ---- */

void te_fill_hello(const struct mc_te *te, struct hello *self, enum hello_role role)
{
    te_hello(te, self);
    self->role = role;
}

void te_hello(const struct mc_te *te, struct hello *self)
{
    memcpy(self->uuid, te->uuid, UUID_SIZE);
    self->epoch = te->epoch;
    memcpy(self->host_id, te->host_id, sizeof(self->host_id));
}

const uint8_t *te_uuid(const struct mc_te *te)
{
    return te->uuid;
}

static enum mc_status host_id_set(struct mc_te *te, const char *given)
{
    char *text;
    size_t len;

    if (given) {
        if (strlen(given) > HELLO_HOST_MAX) {
            log_error("transfer: host id longer than %d bytes", HELLO_HOST_MAX);
            return MC_EINVAL;
        }
        snprintf(te->host_id, sizeof(te->host_id), "%s", given);
        return MC_OK;
    }
    if (path_read("/proc/sys/kernel/random/boot_id", HELLO_HOST_MAX, &text, &len) != MC_OK)
        return MC_OK; /* none: no shared memory, everything else works */
    snprintf(te->host_id, sizeof(te->host_id), "%.*s", (int)strcspn(text, "\n"), text);
    free(text);
    return MC_OK;
}

static enum mc_status run_dir_set(struct mc_te *te, const char *given)
{
    int n;

    if (!given)
        return xdg_path(XDG_RUNTIME, NULL, te->run_dir, sizeof(te->run_dir));
    n = snprintf(te->run_dir, sizeof(te->run_dir), "%s", given);
    return n > 0 && (size_t)n < sizeof(te->run_dir) ? path_private_dir(te->run_dir) : MC_EINVAL;
}

static enum mc_status options_set(struct mc_te *te, const struct mc_te_opts *opts)
{
    static const uint8_t none[UUID_SIZE];

    te->links_max = opts->links ? opts->links : LINKS_DEFAULT;
    if (te->links_max > MC_TE_LINKS_MAX) {
        log_error("transfer: links %u: must be 1 to %d", te->links_max, MC_TE_LINKS_MAX);
        return MC_EINVAL;
    }
    if (opts->inflight_max > WINDOW_MAX) {
        log_error("transfer: inflight_max %u KiB: must be at most %u", opts->inflight_max, WINDOW_MAX);
        return MC_EINVAL;
    }
    te->window = (uint64_t)(opts->inflight_max ? opts->inflight_max : WINDOW_DEFAULT) << 10;
    te->epoch = opts->epoch;
    memcpy(te->uuid, opts->uuid, UUID_SIZE);
    if (memcmp(te->uuid, none, UUID_SIZE) == 0)
        random_bytes(te->uuid, UUID_SIZE);
    if (opts->fault) {
        enum mc_status status = fault_create(opts->fault, &te->fault);

        if (status != MC_OK)
            return status;
    }
    return host_id_set(te, opts->host_id);
}

static bool wants_shm(const struct mc_te *te)
{
    for (unsigned i = 0; i < te->transport_count; i++)
        if (te->transports[i].ops->caps & TRANSPORT_SAME_HOST)
            return true;
    return false;
}

/* ---- listening ---- */

static enum mc_status listener_hello(struct conn *conn, const struct hello *peer, struct buf *why)
{
    return te_adopt(conn_user(conn), conn, peer, why);
}

static enum mc_status listener_start(struct mc_te *te, const char *listen)
{
    struct hello self = {0};
    struct listener_opts opts = {
        .self = &self,
        .ops = tcp_conn_ops(),
        .user = te,
        .limits = tcp_limits(),
        .expect = {.roles = 1u << ROLE_BULK | 1u << ROLE_ENGINE},
        .on_hello = listener_hello,
    };
    struct addr addr;
    const char *why;
    enum mc_status status;

    if (listen && strcmp(listen, "none") == 0) {
        snprintf(te->address, sizeof(te->address), "none");
        return MC_OK;
    }
    if (addr_parse(listen ? listen : "127.0.0.1:0", 0, &addr, &why) != MC_OK) {
        log_error("transfer: listen %s: %s", listen, why);
        return MC_EINVAL;
    }
    te_fill_hello(te, &self, ROLE_ENGINE);
    status = conn_listen(te->loop, &addr, &opts, &te->listener);
    if (status == MC_OK)
        addr_format(listener_addr(te->listener), te->address);
    return status == MC_OK || status == MC_EINVAL ? status : MC_ESYS;
}

/* ---- create, destroy ---- */

static enum mc_status te_new(const struct mc_te_opts *opts, struct mc_te **out)
{
    struct mc_te *te = calloc(1, sizeof(*te));

    if (!te)
        return MC_ENOMEM;
    te->rows = pages_get(REGION_ROWS * sizeof(*te->rows));
    te->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!te->rows || te->eventfd < 0) {
        if (te->eventfd >= 0)
            close(te->eventfd);
        pages_put(te->rows, REGION_ROWS * sizeof(*te->rows));
        free(te);
        return MC_ENOMEM;
    }
    te->refs = 1;
    pthread_mutex_init(&te->lock, NULL);
    list_init(&te->incoming);
    list_init(&te->finished);
    list_init(&te->settled);
    list_init(&te->peers);
    list_init(&te->links);
    loop_task_init(&te->incoming_task, incoming_run);
    loop_task_init(&te->pump_task, pump_run);
    loop_task_init(&te->done_task, done_run);
    loop_task_init(&te->settled_task, settled_run);
    *out = te;
    return MC_OK;
}

static void te_delete(struct mc_te *te)
{
    shm_destroy(te->shm);
    segments_fini(te);
    fault_destroy(te->fault);
    close(te->eventfd);
    pthread_mutex_destroy(&te->lock);
    pages_put(te->rows, REGION_ROWS * sizeof(*te->rows));
    free(te);
}

void te_ref(struct mc_te *te)
{
    te->refs++;
}

void te_unref(struct mc_te *te)
{
    if (--te->refs == 0)
        te_delete(te);
}

enum mc_status te_create_on_loop(const struct mc_te_opts *opts, struct loop *loop, struct mc_te **out)
{
    static const struct mc_te_opts defaults = {.size = sizeof(defaults)};
    struct mc_te *te;
    enum mc_status status;

    if (!opts)
        opts = &defaults;
    if (opts->size != sizeof(*opts))
        return MC_EINVAL;
    status = te_new(opts, &te);
    if (status != MC_OK)
        return status;
    te->loop = loop;
    status = options_set(te, opts);
    if (status != MC_OK)
        goto undo_te;
    status = transports_init(te, opts->transport ? opts->transport : "auto");
    if (status != MC_OK)
        goto undo_transports;
    if (wants_shm(te)) {
        status = run_dir_set(te, opts->run_dir);
        if (status == MC_OK)
            status = shm_create(te, &te->shm);
        if (status != MC_OK)
            goto undo_transports;
    }
    status = listener_start(te, opts->listen);
    if (status != MC_OK)
        goto undo_shm;
    te->gap.fn = gap_seen;
    loop_gap_watch(loop, &te->gap);
    *out = te;
    return MC_OK;

undo_shm:
    shm_stop(te->shm);
undo_transports:
    transports_fini(te);
undo_te:
    te_delete(te);
    return status;
}

enum mc_status mc_te_create(const struct mc_te_opts *opts, struct mc_te **out)
{
    struct loop *loop = loop_create("mc-transfer");
    struct mc_te *te;
    enum mc_status status;

    if (!loop)
        return MC_ENOMEM;
    status = te_create_on_loop(opts, loop, &te);
    if (status != MC_OK)
        goto undo_loop;
    te->own_loop = true;
    te->done_task.home = true; /* it calls strangers */
    status = loop_thread_start(loop);
    if (status != MC_OK)
        goto undo_te;
    *out = te;
    return MC_OK;

undo_te:
    te->own_loop = false;
    mc_te_destroy(te);
undo_loop:
    loop_destroy(loop);
    return status;
}

unsigned te_peer_ios(const struct mc_peer *peer, struct loop_io **ios, unsigned max)
{
    unsigned count = 0;

    list_for_each (it, &peer->links) {
        struct tcp_link *link = list_entry(it, struct tcp_link, peer_link);

        if (count < max && conn_ready(link->conn))
            ios[count++] = conn_io(link->conn);
    }
    return count;
}

/* On the loop: everything that lives on it goes. */
static void te_stop(struct loop *loop, void *arg)
{
    struct mc_te *te = arg;

    te->closing = true;
    listener_close(te->listener);
    list_for_each (it, &te->peers)
        atomic_store(&list_entry(it, struct mc_peer, link)->closing, true);
    list_for_each (it, &te->peers)
        batch_fail_peer(list_entry(it, struct mc_peer, link), MC_ECLOSED);
    batch_tell_settled(te);
    batch_run_done(te); /* while all handles are still good: a callback may use any of them */
    while (!list_empty(&te->peers))
        peer_end(list_first(&te->peers, struct mc_peer, link));
    transports_fini(te);
    regions_remove_all(te);
    shm_stop(te->shm);
    loop_gap_unwatch(loop, &te->gap);
    batch_tell_settled(te);
    batch_run_done(te);
    loop_defer_cancel(loop, &te->incoming_task);
    loop_defer_cancel(loop, &te->pump_task);
    loop_defer_cancel(loop, &te->done_task);
    loop_defer_cancel(loop, &te->settled_task);
}

void mc_te_destroy(struct mc_te *te)
{
    struct loop *loop;
    bool own;

    if (!te)
        return;
    assert(!te->completing);
    loop = te->loop;
    own = te->own_loop;
    loop_call(loop, te_stop, te);
    if (own) {
        loop_thread_stop(loop);
        loop_destroy(loop);
    }
    te_unref(te);
}

const char *mc_te_address(const struct mc_te *te)
{
    return te->address;
}

int mc_te_eventfd(struct mc_te *te)
{
    atomic_store(&te->eventfd_wanted, true);
    return te->eventfd;
}
