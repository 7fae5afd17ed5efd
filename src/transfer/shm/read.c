/* read.c - MC_READ between processes of one host, and views in place.
 *
 * The reader copies into its own memory: from the owner's mapped memfd (hashing in the same pass when a checksum is wanted), or by
 * process_vm_readv. Small batches, and mc_transfer_sync() of any size, are carried out in the calling thread.
 *
 * A mapped source cannot fault: it is sealed against shrinking, and the owner's death leaves the memfd as it is. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/crc.h"
#include "base/log.h"
#include "base/uncut.h"
#include "transfer/shm/shm_impl.h"

struct reader {
    struct session *session;
    enum mc_path path;
    bool want_crc;
    uint64_t deadline_ns;
    uint32_t segment; /* of `mapping`, looked up last */
    struct mapping *mapping;
};

enum mc_status copy_by_call(const struct session *session, uint64_t source, void *dst, size_t len, bool uncut)
{
    struct iovec here = {dst, len}, there = {(void *)(uintptr_t)source, len};
    ssize_t n = uncut ? uncut_process_vm_readv(session->pid, &here, 1, &there, 1)
                      : process_vm_readv(session->pid, &here, 1, &there, 1, 0);

    if (n == (ssize_t)len)
        return MC_OK;
    if (n == UNCUT_AGAIN || (n < 0 && errno == EINTR))
        return MC_AGAIN;
    if (n < 0 && errno == ESRCH)
        return MC_EPEERDOWN;
    log_every_ms(LOG_LEVEL_WARN, 1000, "transfer: read of %zu bytes of process %d: %s", len, (int)session->pid,
        n < 0 ? strerror(errno) : "short");
    return n < 0 && errno == EPERM ? MC_EPERM : MC_EINVAL;
}

static enum mc_status piece_from_map(struct reader *r, struct part *part, uint32_t done, uint32_t len)
{
    uint64_t source = part->base + part->offset + done;
    const uint8_t *from;

    if (!r->mapping || r->segment != part->segment) {
        mapping_put(r->mapping);
        r->mapping = session_mapping(r->session, part->segment);
        r->segment = part->segment;
    }
    if (!r->mapping || source > r->mapping->len || len > r->mapping->len - source)
        return MC_EINVAL;
    from = r->mapping->addr + source;
    if (r->want_crc)
        part->crc = crc32c_copy(part->crc, part->local + done, from, len);
    else
        memcpy(part->local + done, from, len);
    return MC_OK;
}

static enum mc_status piece_by_vm(
    struct reader *r, struct part *part, const struct grant *grant, uint32_t done, uint32_t len)
{
    enum mc_status status;

    do
        status = copy_by_call(r->session, grant->addr + part->offset + done, part->local + done, len, false);
    while (status == MC_AGAIN);
    if (status == MC_OK && r->want_crc)
        part->crc = crc32c(part->crc, part->local + done, len);
    return status;
}

/* What the owner grants now, looked at before and after the bytes were taken. */
static enum mc_status piece_read(struct reader *r, struct part *part, uint32_t done, uint32_t len)
{
    const struct grant *grant = page_grant(r->session->page, part->region);
    enum mc_status status;

    if (!grant_alive(grant, part->region) || (grant->flags & TE_TOKEN))
        return MC_ENOENT;
    if (!(grant->flags & MC_REGION_READ))
        return MC_EPERM;
    if (part->offset > grant->len || part->len > grant->len - part->offset)
        return MC_EINVAL;
    if (r->path == MC_PATH_SHM_MEMFD)
        status = piece_from_map(r, part, done, len);
    else
        status = piece_by_vm(r, part, grant, done, len);
    return grant_alive(grant, part->region) ? status : MC_ENOENT; /* also when it was unmapped below the copy */
}

static enum mc_status part_read(struct reader *r, struct part *part)
{
    part->crc = 0;
    for (uint32_t done = 0; done < part->len;) {
        uint32_t len = part->len - done < SHM_PIECE ? part->len - done : SHM_PIECE;
        struct hazard *hazard = hazard_set(r->session->shm, part->region);
        enum mc_status status;

        if (!hazard)
            return MC_EBUSY;
        status = piece_read(r, part, done, len);
        hazard_clear(hazard);
        if (status != MC_OK)
            return status;
        done += len;
        if (done < part->len && deadline_passed(r->deadline_ns, now_ns()))
            return MC_ETIMEDOUT;
    }
    return MC_OK;
}

/* Process ids are used again: only while the socket of that process stands were they its bytes. */
static enum mc_status still_theirs(const struct reader *r)
{
    if (!atomic_load(&r->session->up))
        return MC_EPEERDOWN;
    return r->path == MC_PATH_SHM_VM && session_hung_up(r->session) ? MC_EPEERDOWN : MC_OK;
}

static enum mc_status xfer_read(struct session *session, enum mc_path path, struct xfer *xfer)
{
    struct reader r = {session, path, xfer->want_crc, xfer->batch->deadline_ns, 0, NULL};
    enum mc_status status = MC_OK;

    for (uint32_t i = 0; status == MC_OK && i < xfer->part_count; i++)
        status = part_read(&r, &xfer->parts[i]);
    mapping_put(r.mapping);
    if (status == MC_OK)
        status = still_theirs(&r);
    if (status == MC_OK)
        atomic_fetch_add_explicit(&xfer->batch->peer->count.read_bytes[path], xfer->bytes, memory_order_relaxed);
    return status;
}

/* ---- choosing, on the loop ---- */

/* Every segment that the parts lie in. One whose region is gone needs none: reading it says so. */
static enum transport_fit segments_fit(struct session *session, const struct xfer *xfer)
{
    enum transport_fit fit = FIT_YES;
    uint32_t last = 0;

    for (uint32_t i = 0; i < xfer->part_count; i++) {
        const struct part *part = &xfer->parts[i];
        enum mapping_state state;

        if (part->segment == last || !grant_alive(page_grant(session->page, part->region), part->region))
            continue;
        last = part->segment;
        state = session_segment(session, last);
        if (state == MAPPING_REFUSED)
            return FIT_NO;
        if (state == MAPPING_ASKED)
            fit = FIT_WAIT;
    }
    return fit;
}

/* A session whose connection has ended is "up" until the loop has told us, which then pumps again. */
static enum transport_fit shm_fit(struct mc_peer *peer, struct session **session)
{
    switch (atomic_load(&peer->shm_state)) {
    case PEER_SHM_UP:
        *session = session_find(peer->te->shm, peer->uuid);
        if (!*session || !atomic_load(&(*session)->up))
            return FIT_NO;
        return conn_ready((*session)->conn) ? FIT_YES : FIT_WAIT;
    case PEER_SHM_UNKNOWN:
    case PEER_SHM_WAIT: return peer->link_count ? FIT_WAIT : FIT_NO;
    default: return FIT_NO;
    }
}

static enum transport_fit memfd_fit(struct transport *self, struct mc_peer *peer, const struct xfer *xfer)
{
    struct session *session;
    enum transport_fit fit = shm_fit(peer, &session);

    if (fit != FIT_YES)
        return fit;
    if (xfer->opcode == MC_WRITE)
        return xfer->local_segment ? FIT_YES : FIT_NO;
    return xfer->kind == TE_KIND_MEMFD ? segments_fit(session, xfer) : FIT_NO;
}

static enum transport_fit vm_fit(struct transport *self, struct mc_peer *peer, const struct xfer *xfer)
{
    struct session *session;
    enum transport_fit fit = shm_fit(peer, &session);

    if (fit != FIT_YES)
        return fit;
    return (xfer->opcode == MC_READ ? session->can_read : session->they_can_read) ? FIT_YES : FIT_NO;
}

static enum mc_status shm_submit(struct transport *self, struct mc_peer *peer, struct xfer *xfer)
{
    struct session *session = session_find(peer->te->shm, peer->uuid);
    enum mc_status status;

    if (xfer->opcode == MC_WRITE)
        return pull_submit(session, self->ops->path, xfer);
    status = xfer_read(session, self->ops->path, xfer);
    if (status == MC_OK)
        xfer_end(xfer, MC_OK);
    return status;
}

static uint64_t shm_cancel(struct transport *self, struct mc_peer *peer, struct xfer *xfer)
{
    return pull_cancel(xfer);
}

static bool shm_copying(struct transport *self, struct mc_peer *peer, const struct xfer *xfer, uint64_t waited_ns)
{
    return pull_copying(self->te->shm, xfer, waited_ns);
}

static enum mc_status vm_probe(void)
{
    uint64_t from = 42, to = 0;
    struct iovec here = {&to, sizeof(to)}, there = {&from, sizeof(from)};

    return process_vm_readv(getpid(), &here, 1, &there, 1, 0) == (ssize_t)sizeof(to) && to == from ? MC_OK : MC_ENOSUP;
}

const struct transport_ops shm_memfd_ops = {
    .name = "shm-memfd",
    .path = MC_PATH_SHM_MEMFD,
    .caps = TRANSPORT_READ | TRANSPORT_WRITE | TRANSPORT_SAME_HOST,
    .fit = memfd_fit,
    .submit = shm_submit,
    .cancel = shm_cancel,
    .copying = shm_copying,
    .answers = pull_answers,
};

const struct transport_ops shm_vm_ops = {
    .name = "shm-vm",
    .path = MC_PATH_SHM_VM,
    .caps = TRANSPORT_READ | TRANSPORT_WRITE | TRANSPORT_SAME_HOST,
    .probe = vm_probe,
    .fit = vm_fit,
    .submit = shm_submit,
    .cancel = shm_cancel,
    .copying = shm_copying,
    .answers = pull_answers,
};

/* ---- in the calling thread ---- */

static bool mapped_all(struct session *session, const struct xfer *xfer)
{
    uint32_t last = 0;

    for (uint32_t i = 0; i < xfer->part_count; i++) {
        struct mapping *mapping;

        if (xfer->parts[i].segment == last)
            continue;
        last = xfer->parts[i].segment;
        mapping = session_mapping(session, last);
        if (!mapping)
            return false;
        mapping_put(mapping);
    }
    return true;
}

/* The same choice as on the loop, or MC_PATH_NONE when the loop has to make it. */
static enum mc_path inline_path(struct session *session, const struct xfer *xfer)
{
    struct mc_te *te = session->shm->te;

    for (unsigned i = 0; i < te->transport_count; i++) {
        switch (te->transports[i].ops->path) {
        case MC_PATH_SHM_MEMFD:
            if (xfer->kind != TE_KIND_MEMFD)
                continue;
            return mapped_all(session, xfer) ? MC_PATH_SHM_MEMFD : MC_PATH_NONE;
        case MC_PATH_SHM_VM:
            if (session->can_read)
                return MC_PATH_SHM_VM;
            continue;
        default: return MC_PATH_NONE;
        }
    }
    return MC_PATH_NONE;
}

static void inline_fail(struct mc_batch *batch, struct xfer *from, enum mc_status status)
{
    bool reached = false;

    list_for_each (it, &batch->xfers) {
        struct xfer *xfer = list_entry(it, struct xfer, order);

        reached |= xfer == from;
        if (xfer == from || (reached && status == MC_ETIMEDOUT))
            xfer_ops_failed(xfer, status);
    }
}

bool shm_read_inline(struct shm *shm, struct mc_batch *batch)
{
    struct session *session;

    if (shm->te->fault || list_empty(&batch->xfers))
        return false;
    session = session_get(batch->peer);
    if (!session)
        return false;
    list_for_each (it, &batch->xfers) {
        const struct xfer *xfer = list_entry(it, struct xfer, order);

        if (xfer->opcode != MC_READ || inline_path(session, xfer) == MC_PATH_NONE) {
            session_put(session);
            return false;
        }
    }
    list_for_each (it, &batch->xfers) {
        struct xfer *xfer = list_entry(it, struct xfer, order);
        enum mc_status status = xfer_read(session, inline_path(session, xfer), xfer);

        if (status != MC_OK)
            inline_fail(batch, xfer, status);
        if (status == MC_ETIMEDOUT)
            break;
    }
    session_put(session);
    return true;
}

bool shm_path_usable(struct mc_peer *peer, enum mc_path path, const struct te_key *key)
{
    struct session *session = session_get(peer);
    bool usable =
        session && (path == MC_PATH_SHM_MEMFD ? key->kind == TE_KIND_MEMFD && !session_refused(session, key->segment)
                                              : session->can_read);

    session_put(session);
    return usable;
}

/* ---- views in place ---- */

/* Reading one byte brings the segment here, by the way every read takes. */
static enum mc_status touch(struct mc_peer *peer, const struct mc_region_key *key, uint64_t offset)
{
    uint8_t byte;
    struct mc_op op = {.opcode = MC_READ, .local = &byte, .len = 1, .region = *key, .offset = offset};

    return mc_transfer_sync(peer, &op, 1, peer->timeout_ms ? peer->timeout_ms : 2000);
}

static void view_free(struct view *view)
{
    mapping_put(view->mapping);
    session_put(view->session);
    free(view);
}

enum mc_status mc_peer_map(
    struct mc_peer *peer, const struct mc_region_key *key, uint64_t offset, uint64_t len, const void **addr)
{
    struct shm *shm = peer->te->shm;
    struct mapping *mapping;
    struct view *view;
    struct te_key in;
    enum mc_status status;

    if (te_key_decode(key, &in, NULL) != MC_OK || len == 0 || offset > in.len || len > in.len - offset)
        return MC_EINVAL;
    if (!shm || in.kind != TE_KIND_MEMFD || mc_peer_path(peer, key) != MC_PATH_SHM_MEMFD)
        return MC_ENOSUP;
    status = touch(peer, key, offset);
    if (status != MC_OK)
        return status;
    view = calloc(1, sizeof(*view));
    if (!view)
        return MC_ENOMEM;
    view->session = session_get(peer);
    mapping = view->session ? session_mapping(view->session, in.segment) : NULL;
    view->mapping = mapping;
    if (!mapping || in.base + offset + len > mapping->len) {
        view_free(view);
        return MC_ENOSUP;
    }
    view->peer = peer;
    view->addr = mapping->addr + in.base + offset;
    *addr = view->addr;
    pthread_mutex_lock(&shm->lock);
    list_push_back(&shm->views, &view->link);
    pthread_mutex_unlock(&shm->lock);
    return MC_OK;
}

/* The first view of that peer at `addr` (any when NULL). */
static struct view *view_take(struct shm *shm, const struct mc_peer *peer, const void *addr)
{
    struct view *found = NULL;

    pthread_mutex_lock(&shm->lock);
    list_for_each (it, &shm->views) {
        struct view *view = list_entry(it, struct view, link);

        if (view->peer == peer && (!addr || view->addr == addr)) {
            found = view;
            break;
        }
    }
    if (found)
        list_del(&found->link);
    pthread_mutex_unlock(&shm->lock);
    return found;
}

void mc_peer_unmap(struct mc_peer *peer, const void *addr)
{
    struct view *view = addr && peer->te->shm ? view_take(peer->te->shm, peer, addr) : NULL;

    assert(!addr || view);
    if (view)
        view_free(view);
}

void shm_unmap_all(struct mc_peer *peer)
{
    struct view *view;

    while (peer->te->shm && (view = view_take(peer->te->shm, peer, NULL)) != NULL)
        view_free(view);
}
