/* carry.c - which way an xfer goes between processes of one host, and who carries it out.
 *
 * Whoever carries it out copies himself (copy.c): the loop's thread, or for small batches and mc_transfer_sync() of any size the
 * caller's, when everything that is needed is there. In both an xfer has ended when it returns: nothing is ever flying here. */
#include <unistd.h>
#include <sys/uio.h>

#include "transfer/shm/shm_impl.h"

/* ---- choosing, on the loop ---- */

/* Every segment that the parts lie in. One whose region is gone needs none: the copy says so. */
static enum transport_fit segments_fit(struct session *session, const struct xfer *xfer)
{
    enum transport_fit fit = FIT_YES;
    uint32_t last = 0;

    for (uint32_t i = 0; i < xfer->part_count; i++) {
        const struct part *part = &xfer->parts[i];
        enum mapping_state state;

        if (part->segment == last || !grant_read(session->page, part->region, NULL))
            continue;
        last = part->segment;
        state = session_segment(session, last, xfer->opcode);
        if (state == MAPPING_REFUSED)
            return FIT_NO;
        if (state == MAPPING_ASKED)
            fit = FIT_WAIT;
    }
    return fit;
}

/* A session whose connection has ended is "up" until the loop has told us, which then pumps again. */
static enum transport_fit session_fit(struct mc_peer *peer, struct session **session)
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

static enum transport_fit shm_fit(struct transport *self, struct mc_peer *peer, const struct xfer *xfer)
{
    struct session *session;
    enum transport_fit fit = session_fit(peer, &session);

    if (fit != FIT_YES)
        return fit;
    if (self->ops->path == MC_PATH_SHM_VM)
        return session->by_call ? FIT_YES : FIT_NO;
    return xfer->kind == TE_KIND_MEMFD ? segments_fit(session, xfer) : FIT_NO;
}

static enum mc_status shm_submit(struct transport *self, struct mc_peer *peer, struct xfer *xfer)
{
    enum mc_status status = xfer_copy(session_find(peer->te->shm, peer->uuid), self->ops->path, xfer);

    if (status == MC_OK)
        xfer_end(xfer, MC_OK);
    return status;
}

static enum mc_status vm_probe(void)
{
    uint64_t from = 42, between = 0, to = 0;
    struct iovec a = {&from, sizeof(from)}, b = {&between, sizeof(between)}, c = {&to, sizeof(to)};
    pid_t self = getpid();

    return process_vm_readv(self, &b, 1, &a, 1, 0) == (ssize_t)sizeof(from) &&
                   process_vm_writev(self, &b, 1, &c, 1, 0) == (ssize_t)sizeof(to) && to == from
               ? MC_OK
               : MC_ENOSUP;
}

const struct transport_ops shm_memfd_ops = {
    .name = "shm-memfd",
    .path = MC_PATH_SHM_MEMFD,
    .caps = TRANSPORT_READ | TRANSPORT_WRITE | TRANSPORT_SAME_HOST,
    .fit = shm_fit,
    .submit = shm_submit,
};

const struct transport_ops shm_vm_ops = {
    .name = "shm-vm",
    .path = MC_PATH_SHM_VM,
    .caps = TRANSPORT_READ | TRANSPORT_WRITE | TRANSPORT_SAME_HOST,
    .probe = vm_probe,
    .fit = shm_fit,
    .submit = shm_submit,
};

/* ---- in the calling thread ---- */

static bool mapped_all(struct session *session, const struct xfer *xfer)
{
    uint32_t last = 0;

    for (uint32_t i = 0; i < xfer->part_count; i++) {
        struct mapping *mapping;
        bool usable;

        if (xfer->parts[i].segment == last)
            continue;
        last = xfer->parts[i].segment;
        mapping = session_mapping(session, last);
        usable = mapping && (xfer->opcode == MC_READ || mapping->writable);
        mapping_put(mapping);
        if (!usable)
            return false;
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
            if (session->by_call)
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

static bool inline_possible(struct session *session, const struct mc_batch *batch)
{
    list_for_each (it, &batch->xfers)
        if (inline_path(session, list_entry(it, struct xfer, order)) == MC_PATH_NONE)
            return false;
    return true;
}

/* A session that has ended in the middle of it leaves all of it to the loop, which may know another way. */
static bool carry_all(struct session *session, struct mc_batch *batch)
{
    list_for_each (it, &batch->xfers) {
        struct xfer *xfer = list_entry(it, struct xfer, order);
        enum mc_path path = inline_path(session, xfer);
        enum mc_status status = path == MC_PATH_NONE ? MC_EPEERDOWN : xfer_copy(session, path, xfer);

        if (status == MC_EPEERDOWN)
            return false;
        if (status != MC_OK)
            inline_fail(batch, xfer, status);
        if (status == MC_ETIMEDOUT)
            break;
    }
    return true;
}

bool shm_carry_inline(struct shm *shm, struct mc_batch *batch)
{
    struct session *session;
    bool carried;

    if (shm->te->fault || list_empty(&batch->xfers))
        return false;
    session = session_get(batch->peer);
    carried = session && inline_possible(session, batch) && carry_all(session, batch);
    session_put(session);
    return carried;
}

bool shm_path_usable(struct mc_peer *peer, enum mc_path path, const struct te_key *key)
{
    struct session *session = session_get(peer);
    bool usable =
        session && (path == MC_PATH_SHM_MEMFD ? key->kind == TE_KIND_MEMFD && !session_refused(session, key->segment)
                                              : session->by_call);

    session_put(session);
    return usable;
}
