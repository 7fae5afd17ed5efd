/* peer.c - peers: opening and closing, reconnecting, and giving their pending xfers to transports.
 *
 * A peer that was opened by address is dialled: one link first, the others when that one stands, and each again when it broke,
 * whether we have something to move or not: the peer may pull from us over these links, and has no way to dial. At once after
 * a link that stood; after a failure 10, 20, ... 200 ms later while something waits, else up to 5 s later, so that recovery takes
 * no longer than the outage did and a peer that is dead for good costs nothing. While it is known to be down, submitting says so at
 * once.
 *
 * A peer that connects to us ("inbound") is named by its uuid and never dialled. Without a link to it nobody here knows whether it is
 * gone or dials already: what is to be moved waits, within its deadline, until whoever has the handle closes it. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "transfer/core.h"
#include "transfer/shm/shm.h"
#include "transfer/tcp/tcp.h"

#define BACKOFF_MIN_MS  10
#define BACKOFF_MAX_MS  200
#define BACKOFF_IDLE_MS 5000
#define OPEN_TIMEOUT_MS 2000
#define PUMP_TURN_NS    (2 * NS_PER_MS) /* same-host xfers are carried out by the pump */

const char *peer_name(const struct mc_peer *peer)
{
    static _Thread_local char text[ADDR_TEXT_MAX + UUID_TEXT];

    if (!peer->inbound)
        return addr_format(&peer->addr, text);
    return uuid_format(peer->uuid, text);
}

/* ---- pumping ---- */

static void pending_fail(struct mc_peer *peer, enum mc_status why)
{
    while (!list_empty(&peer->pending))
        xfer_end(list_first(&peer->pending, struct xfer, link), why);
}

/* Not before this may it be dialled. Links that break as soon as they stand are replaced no faster than those that never do. */
static uint64_t dial_at(const struct mc_peer *peer)
{
    uint64_t at = atomic_load(&peer->retry_ns), settled = peer->up_ns + BACKOFF_MIN_MS * NS_PER_MS;

    if (!list_empty(&peer->pending))
        return at;
    if (peer->backoff_ms > BACKOFF_MAX_MS)
        at += (peer->backoff_ms - BACKOFF_MAX_MS) * NS_PER_MS;
    return at > settled ? at : settled;
}

/* Dial what is missing, or be called again when it is time. */
static void peer_dial(struct mc_peer *peer)
{
    if (peer->inbound || peer->te->closing)
        return;
    while (peer->link_count < (atomic_load(&peer->ready_count) ? peer->te->links_max : 1)) {
        uint64_t at = dial_at(peer);
        enum mc_status status;

        if (now_ns() < at && loop_timer_set(peer->te->loop, &peer->retry_timer, at) == MC_OK)
            return; /* without memory for a timer rather now than never */
        status = tcp_dial(peer);
        if (status != MC_OK) {
            peer_link_down(peer, status);
            return;
        }
    }
}

/* The transport for an xfer. NULL: *wait says whether to keep it, else no transport fits. */
static struct transport *choose(struct mc_peer *peer, const struct xfer *xfer, bool *wait)
{
    struct mc_te *te = peer->te;
    uint32_t need = xfer->opcode == MC_READ ? TRANSPORT_READ : TRANSPORT_WRITE;

    *wait = false;
    for (unsigned i = 0; i < te->transport_count; i++) {
        struct transport *transport = &te->transports[i];
        enum transport_fit fit = FIT_NO;

        if (transport->ops->caps & need)
            fit = transport->ops->fit(transport, peer, xfer);
        if (fit == FIT_YES)
            return transport;
        if (fit == FIT_WAIT) {
            *wait = true;
            return NULL;
        }
    }
    return NULL;
}

static enum mc_status give(struct transport *transport, struct mc_peer *peer, struct xfer *xfer)
{
    enum mc_status status;

    list_del(&xfer->link);
    xfer->state = XFER_FLYING;
    xfer->via = transport;
    xfer->started_ns = now_ns();
    status = transport->ops->submit(transport, peer, xfer);
    if (status == MC_AGAIN) {
        xfer->state = XFER_PENDING;
        xfer->via = NULL;
        list_push_front(&peer->pending, &xfer->link);
    } else if (status != MC_OK) {
        xfer_end(xfer, status);
    }
    return status;
}

/* One that no transport takes: the peer is not there, or it is but nothing allowed leads to it. */
static enum mc_status nobody_fits(const struct mc_peer *peer)
{
    if (atomic_load(&peer->ready_count))
        return MC_ENOSUP;
    if (atomic_load(&peer->down) && now_ns() < atomic_load(&peer->retry_ns))
        return MC_EPEERDOWN;
    return MC_PENDING;
}

void peer_pump(struct mc_peer *peer)
{
    uint64_t start = now_ns();

    peer_dial(peer);
    while (!list_empty(&peer->pending)) {
        struct xfer *xfer = list_first(&peer->pending, struct xfer, link);
        struct transport *transport;
        bool wait;

        if (now_ns() - start > PUMP_TURN_NS) { /* let sockets, timers and cancels have their turn */
            te_pump_later(peer->te);
            return;
        }
        transport = choose(peer, xfer, &wait);
        if (transport) {
            if (give(transport, peer, xfer) == MC_AGAIN)
                return;
            continue;
        }
        if (wait || nobody_fits(peer) == MC_PENDING)
            return;
        xfer_end(xfer, nobody_fits(peer));
    }
}

static void peer_retry(struct loop *loop, struct loop_timer *timer)
{
    peer_pump(container_of(timer, struct mc_peer, retry_timer));
}

/* ---- links ---- */

static void open_decide(struct mc_peer *peer, enum mc_status status)
{
    if (atomic_load(&peer->opened) == WORD_SET)
        return;
    peer->open_status = status;
    word_wake(&peer->opened);
}

static void open_check(struct mc_peer *peer)
{
    int shm = atomic_load(&peer->shm_state);

    if (atomic_load(&peer->ready_count) && shm != PEER_SHM_UNKNOWN && shm != PEER_SHM_WAIT)
        open_decide(peer, MC_OK);
}

void peer_link_up(struct mc_peer *peer)
{
    atomic_fetch_add(&peer->ready_count, 1);
    atomic_store(&peer->count.links, atomic_load(&peer->ready_count));
    atomic_store(&peer->down, MC_OK);
    peer->backoff_ms = 0;
    open_check(peer);
    peer_dial(peer);
    peer->up_ns = now_ns();
    te_pump_later(peer->te);
}

/* An attempt to dial has failed. */
static void back_off(struct mc_peer *peer)
{
    uint32_t known_ms;

    peer->backoff_ms = peer->backoff_ms ? peer->backoff_ms * 2 : BACKOFF_MIN_MS;
    if (peer->backoff_ms > BACKOFF_IDLE_MS)
        peer->backoff_ms = BACKOFF_IDLE_MS;
    known_ms = peer->backoff_ms < BACKOFF_MAX_MS ? peer->backoff_ms : BACKOFF_MAX_MS;
    atomic_store(&peer->retry_ns, deadline_after_ms(now_ns(), known_ms));
}

static void peer_is_down(struct mc_peer *peer, enum mc_status why)
{
    open_decide(peer, why == MC_ECLOSED ? MC_EPEERDOWN : why);
    if (why == MC_ETIMEDOUT)
        return; /* silent, perhaps only stopped: what waits may wait for its own deadline */
    atomic_store(&peer->down, why);
    pending_fail(peer, why == MC_EREFUSED || why == MC_EVERSION ? why : MC_EPEERDOWN);
}

/* Without a link nobody knows who will answer next: the same process, or its successor with other regions. */
static void peer_forget(struct mc_peer *peer)
{
    pthread_mutex_lock(&peer->id_lock);
    peer->known = false;
    pthread_mutex_unlock(&peer->id_lock);
    if (peer->te->shm)
        atomic_store(&peer->shm_state, PEER_SHM_UNKNOWN);
}

void peer_link_down(struct mc_peer *peer, enum mc_status why)
{
    atomic_store(&peer->count.links, atomic_load(&peer->ready_count));
    if (peer->te->closing)
        return;
    if (peer->link_count == 0 && peer->inbound) {
        peer_inbound_release(peer);
        return;
    }
    if (peer->link_count == 0)
        peer_forget(peer);
    if (why != MC_OK)
        back_off(peer);
    if (why != MC_OK && peer->link_count == 0)
        peer_is_down(peer, why);
    te_pump_later(peer->te); /* which dials; not here, where somebody may be walking over the links */
}

void peer_shm_set(struct mc_peer *peer, enum peer_shm state)
{
    atomic_store(&peer->shm_state, (int)state);
    open_check(peer);
    te_pump_later(peer->te);
}

/* ---- making and ending ---- */

static struct mc_peer *peer_new(struct mc_te *te)
{
    struct mc_peer *peer = calloc(1, sizeof(*peer));

    if (!peer)
        return NULL;
    peer->te = te;
    pthread_mutex_init(&peer->id_lock, NULL);
    list_init(&peer->link);
    list_init(&peer->links);
    list_init(&peer->pending);
    list_init(&peer->batches);
    loop_timer_init(&peer->retry_timer, peer_retry);
    atomic_store(&peer->shm_state, te->shm ? PEER_SHM_UNKNOWN : PEER_SHM_NONE);
    return peer;
}

/* On the loop. */
static void peer_free(struct mc_peer *peer)
{
    list_del(&peer->link);
    loop_timer_cancel(peer->te->loop, &peer->retry_timer);
    pthread_mutex_destroy(&peer->id_lock);
    free(peer);
}

void peer_end(struct mc_peer *peer)
{
    atomic_store(&peer->closing, true);
    shm_unmap_all(peer);
    batch_fail_peer(peer, MC_ECLOSED);
    tcp_drop_links(peer);
    batch_tell_settled(peer->te);
    batch_run_done(peer->te);
    peer_free(peer);
}

static struct mc_peer *inbound_of(struct mc_te *te, const uint8_t uuid[UUID_SIZE])
{
    struct mc_peer *peer;

    list_for_each (it, &te->peers) {
        peer = list_entry(it, struct mc_peer, link);
        if (peer->inbound && memcmp(peer->uuid, uuid, UUID_SIZE) == 0)
            return peer;
    }
    peer = peer_new(te);
    if (!peer)
        return NULL;
    peer->inbound = true;
    memcpy(peer->uuid, uuid, UUID_SIZE);
    list_push_back(&te->peers, &peer->link);
    return peer;
}

struct mc_peer *peer_inbound(struct mc_te *te, const uint8_t uuid[UUID_SIZE], uint32_t epoch)
{
    struct mc_peer *peer = inbound_of(te, uuid);

    if (!peer)
        return NULL;
    pthread_mutex_lock(&peer->id_lock);
    peer->known = true;
    peer->epoch = epoch;
    pthread_mutex_unlock(&peer->id_lock);
    return peer;
}

void peer_inbound_release(struct mc_peer *peer)
{
    if (peer->inbound && peer->refs == 0 && peer->link_count == 0 && list_empty(&peer->batches))
        peer_free(peer);
}

enum mc_status te_peer_by_uuid(struct mc_te *te, const uint8_t uuid[16], struct mc_peer **out)
{
    struct mc_peer *peer = inbound_of(te, uuid);

    if (!peer)
        return MC_ENOMEM;
    peer->refs++;
    *out = peer;
    return MC_OK;
}

static void peer_start(struct loop *loop, void *arg)
{
    struct mc_peer *peer = arg;

    list_push_back(&peer->te->peers, &peer->link);
    peer_dial(peer);
}

enum mc_status te_peer_connect(
    struct mc_te *te, const char *address, const struct mc_peer_opts *opts, struct mc_peer **out)
{
    struct mc_peer *peer;
    const char *why;
    struct addr addr;
    enum mc_status status = addr_parse(address, 0, &addr, &why);

    if (status != MC_OK || addr.kind == ADDR_UNIX || addr.port == 0) {
        log_error("transfer: peer address %s: %s", address, status == MC_OK ? "must be host:port" : why);
        return MC_EINVAL;
    }
    peer = peer_new(te);
    if (!peer)
        return MC_ENOMEM;
    peer->addr = addr;
    peer->timeout_ms = opts && opts->timeout_ms ? opts->timeout_ms : OPEN_TIMEOUT_MS;
    if (opts && opts->uuid) {
        peer->expect_uuid = true;
        memcpy(peer->want_uuid, opts->uuid, UUID_SIZE);
    }
    peer->want_epoch = opts ? opts->epoch : 0;
    loop_call(te->loop, peer_start, peer);
    *out = peer;
    return MC_OK;
}

enum mc_status mc_peer_open(
    struct mc_te *te, const char *address, const struct mc_peer_opts *opts, struct mc_peer **out)
{
    struct mc_peer *peer;
    enum mc_status status = te_peer_connect(te, address, opts, &peer);

    if (status != MC_OK)
        return status;
    if (!word_wait(&peer->opened, deadline_after_ms(now_ns(), peer->timeout_ms)))
        status = MC_ETIMEDOUT;
    else
        status = peer->open_status;
    if (status != MC_OK) {
        mc_peer_close(peer);
        return status;
    }
    *out = peer;
    return MC_OK;
}

static void peer_close_on_loop(struct loop *loop, void *arg)
{
    struct mc_peer *peer = arg;

    if (!peer->inbound) {
        peer_end(peer);
        return;
    }
    if (--peer->refs == 0) {
        atomic_store(&peer->closing, true);
        shm_unmap_all(peer);
        batch_fail_peer(peer, MC_ECLOSED);
        batch_tell_settled(peer->te);
        batch_run_done(peer->te);
        atomic_store(&peer->closing, peer->te->closing); /* its links may stand, and be asked for again */
        peer_inbound_release(peer);
    }
}

void mc_peer_close(struct mc_peer *peer)
{
    if (peer)
        loop_call(peer->te->loop, peer_close_on_loop, peer);
}

/* ---- looking ---- */

bool te_peer_uuid(struct mc_peer *peer, uint8_t uuid[16], uint32_t *epoch)
{
    bool known;

    pthread_mutex_lock(&peer->id_lock);
    known = peer->known;
    if (known) {
        memcpy(uuid, peer->uuid, UUID_SIZE);
        *epoch = peer->epoch;
    }
    pthread_mutex_unlock(&peer->id_lock);
    return known;
}

const char *mc_path_str(enum mc_path path)
{
    static const char *const text[] = {"none", "tcp", "shm-memfd", "shm-vm"};

    return (unsigned)path < sizeof(text) / sizeof(text[0]) ? text[path] : "unknown";
}

enum mc_path mc_peer_path(struct mc_peer *peer, const struct mc_region_key *key)
{
    struct mc_te *te = peer->te;
    struct te_key in;

    if (te_key_decode(key, &in, NULL) != MC_OK)
        return MC_PATH_NONE;
    for (unsigned i = 0; i < te->transport_count; i++) {
        enum mc_path path = te->transports[i].ops->path;

        if (path == MC_PATH_TCP ? atomic_load(&peer->ready_count) > 0 : shm_path_usable(peer, path, &in))
            return path;
    }
    return MC_PATH_NONE;
}

void mc_peer_stats(struct mc_peer *peer, struct mc_peer_stats *out)
{
    struct peer_counters *count = &peer->count;

    *out = (struct mc_peer_stats){
        .served_bytes = atomic_load(&count->served_bytes),
        .batches = atomic_load(&count->batches),
        .batches_failed = atomic_load(&count->batches_failed),
        .ops = atomic_load(&count->ops),
        .retries = atomic_load(&count->retries),
        .crc_errors = atomic_load(&count->crc_errors),
        .fences = atomic_load(&count->fences),
        .links = atomic_load(&count->links),
        .rtt_us = atomic_load(&count->rtt_us),
        .bytes_per_s = atomic_load(&count->bytes_per_s),
    };
    for (int i = 0; i < 4; i++) {
        out->read_bytes[i] = atomic_load(&count->read_bytes[i]);
        out->write_bytes[i] = atomic_load(&count->write_bytes[i]);
    }
}
