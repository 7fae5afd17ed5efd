/* segment.c - the segments of a session's far end: asked for when first needed, mapped when they come, unmapped when they were
 * freed and the last copier has let go; and ours, passed on.
 *
 *     SHM_SEGMENT(number) ------>  <------ FD(segment, number)   or an answer with the reason
 *                                  <------ SHM_GONE(number)      later */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/log.h"
#include "transfer/shm/shm_impl.h"

static struct mapping *mapping_find(struct session *session, uint32_t number)
{
    list_for_each (it, &session->mappings) {
        struct mapping *mapping = list_entry(it, struct mapping, link);

        if (mapping->number == number)
            return mapping;
    }
    return NULL;
}

bool session_refused(struct session *session, uint32_t number)
{
    const struct mapping *mapping;
    bool refused;

    pthread_mutex_lock(&session->shm->lock);
    mapping = mapping_find(session, number);
    refused = mapping && mapping->state == MAPPING_REFUSED;
    pthread_mutex_unlock(&session->shm->lock);
    return refused;
}

struct mapping *session_mapping(struct session *session, uint32_t number)
{
    struct mapping *mapping;

    pthread_mutex_lock(&session->shm->lock);
    mapping = mapping_find(session, number);
    if (mapping && mapping->state != MAPPING_READY)
        mapping = NULL;
    if (mapping)
        atomic_fetch_add(&mapping->refs, 1);
    pthread_mutex_unlock(&session->shm->lock);
    return mapping;
}

void mapping_put(struct mapping *mapping)
{
    if (!mapping || atomic_fetch_sub(&mapping->refs, 1) > 1)
        return;
    if (mapping->addr)
        munmap((void *)(uintptr_t)mapping->addr, mapping->len);
    if (mapping->writable)
        munmap(mapping->writable, mapping->len);
    free(mapping);
}

static void mapping_drop(struct session *session, struct mapping *mapping)
{
    pthread_mutex_lock(&session->shm->lock);
    list_del(&mapping->link);
    pthread_mutex_unlock(&session->shm->lock);
    session->mapping_count--;
    mapping_put(mapping);
}

/* Segments that were refused are remembered until their place is needed. */
static bool mapping_has_room(struct session *session)
{
    if (session->mapping_count < MAPPINGS_MAX)
        return true;
    list_for_each (it, &session->mappings) {
        struct mapping *mapping = list_entry(it, struct mapping, link);

        if (mapping->state == MAPPING_REFUSED) {
            mapping_drop(session, mapping);
            return true;
        }
    }
    return false;
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
enum mapping_state session_segment(struct session *session, uint32_t number, enum mc_opcode opcode)
{
    struct mapping *mapping = mapping_find(session, number);
    enum mc_status status;

    if (mapping)
        return mapping->state == MAPPING_READY && opcode == MC_WRITE && !mapping->writable ? MAPPING_REFUSED
                                                                                           : mapping->state;
    if (!mapping_has_room(session))
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
    atomic_store(&mapping->refs, 1);
    session->mapping_count++;
    pthread_mutex_lock(&session->shm->lock);
    list_push_back(&session->mappings, &mapping->link);
    pthread_mutex_unlock(&session->shm->lock);
    return MAPPING_ASKED;
}

void segment_came(struct session *session, uint32_t number, int fd)
{
    struct mapping *mapping = mapping_find(session, number);
    uint8_t *writable = NULL;
    const uint8_t *addr = NULL;
    uint64_t len = 0;
    enum mc_status status;

    if (!mapping || mapping->state != MAPPING_ASKED) {
        close(fd);
        return;
    }
    status = map_sealed(fd, conn_name(session->conn), &addr, &len);
    if (status == MC_OK)
        writable = map_writable(fd, len);
    close(fd);
    pthread_mutex_lock(&session->shm->lock);
    mapping->addr = addr;
    mapping->writable = writable;
    mapping->len = len;
    mapping->state = status == MC_OK ? MAPPING_READY : MAPPING_REFUSED;
    pthread_mutex_unlock(&session->shm->lock);
    te_pump_later(session->shm->te);
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

void segment_frame(struct session *session, const struct frame *frame)
{
    const char *bad;
    uint32_t number;
    int fd;

    if (frame->flags & FRAME_REPLY) {
        if (frame->status != MC_OK) {
            segment_refused(session, frame->request);
            te_pump_later(session->shm->te);
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
        session_send_fd(session, WIRE_FD_SEGMENT, number, fd);
        close(fd);
    }
    conn_reply(session->conn, frame, fd >= 0 ? MC_OK : MC_ENOENT, slice_of(NULL, 0));
}

/* ---- freed ---- */

void segment_gone_frame(struct session *session, const struct frame *frame)
{
    struct mapping *mapping;
    const char *bad;
    uint32_t number;

    if (wire_segment_decode(frame->body, &number, &bad) != MC_OK) {
        log_warn("transfer: peer %s: malformed %s in shm-gone", conn_name(session->conn), bad);
        conn_abort(session->conn, MC_EPROTO);
        return;
    }
    mapping = mapping_find(session, number);
    if (mapping && mapping->state != MAPPING_ASKED) /* one that is asked for is answered first */
        mapping_drop(session, mapping);
}

struct gone {
    struct shm *shm;
    uint32_t number;
};

/* A peer that does not take it now keeps an empty mapping until its session ends. */
static void tell_gone(struct loop *loop, void *arg)
{
    const struct gone *gone = arg;
    struct conn_msg msg = {.type = MSG_SHM_GONE};
    struct buf body;

    buf_init(&body, 64);
    wire_segment_encode(gone->number, &body);
    msg.body = buf_slice(&body);
    list_for_each (it, &gone->shm->sessions) {
        const struct session *session = list_entry(it, struct session, link);

        if (buf_status(&body) == MC_OK && atomic_load(&session->up))
            (void)conn_send(session->conn, &msg);
    }
    buf_fini(&body);
}

void shm_segment_gone(struct shm *shm, uint32_t number)
{
    struct gone gone = {shm, number};

    loop_call(shm->te->loop, tell_gone, &gone);
}
