/* view.c - memory of a peer's memfd looked at in place. A view lies in the mapping that cannot be written by. */
#include <stdlib.h>

#include "transfer/shm/shm_impl.h"

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
    struct granted row;
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
    if (!mapping || !grant_read(view->session->page, in.id, &row) || row.segment != in.segment ||
        offset + len > row.len || row.base + offset + len > mapping->len) {
        view_free(view);
        return mapping ? MC_ENOENT : MC_ENOSUP;
    }
    view->peer = peer;
    view->addr = mapping->addr + row.base + offset;
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
