/* pull.c - MC_WRITE between processes of one host: the owner of the destination copies.
 *
 *   writer                                            owner
 *     token granted in its page, SHM_PULL(token, ...) ->  for each piece of at most 256 KiB:
 *                                                          hazard = token; token still granted? region still registered?
 *                                                          copy from writer's mapped memfd, or process_vm_readv; hazard = 0
 *     <------------------------------------------------- answer
 *
 * Taking a write back = withdrawing the token, one store. If the owner's page then shows a hazard for it, a copy of one piece is
 * under way, and the writer waits until the hazard is gone. A system call is not cut by SIGSTOP, a copy in user mode does not go on
 * after one, nor is there a stop between looking at the token and either (base/uncut.h): an owner that is seen stopped copies
 * no more, whatever its hazard says. One that could run but is given no processor may hold a writer up for FENCE_STARVED_NS; that happens on hosts with
 * many times more work than cores, and the alternative is a byte that lands in memory which is somebody else's by then. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/uncut.h"
#include "transfer/shm/shm_impl.h"

#define TURN_BYTES       (2u << 20)        /* copied, then others get their turn */
#define FENCE_FIRST_NS   (200 * NS_PER_US) /* three times what a piece takes */
#define FENCE_STARVED_NS NS_PER_S

/* ---- writer ---- */

static uint64_t call_request(const struct call *call)
{
    return (uint64_t)call->sequence << 16 | (uint64_t)(call - call->session->calls + 1);
}

static struct call *call_take(struct session *session)
{
    for (unsigned i = 0; i < CALLS; i++) {
        struct call *call = &session->calls[i];

        if (call->busy)
            continue;
        call->session = session;
        call->sequence++;
        call->busy = true;
        return call;
    }
    return NULL;
}

static struct call *call_of(struct session *session, uint64_t request)
{
    uint64_t index = (request & 0xffff) - 1;
    struct call *call = index < CALLS ? &session->calls[index] : NULL;

    return call && call->busy && call_request(call) == request ? call : NULL;
}

static enum mc_status pull_encode(const struct call *call, const struct xfer *xfer, struct buf *body)
{
    struct mc_te *te = call->session->shm->te;
    struct wire_pull request = {
        .token = call->token,
        .segment = call->path == MC_PATH_SHM_MEMFD ? xfer->local_segment : 0,
        .count = xfer->part_count,
        .ranges = malloc(xfer->part_count * sizeof(struct wire_pull_range)),
    };

    if (!request.ranges)
        return MC_ENOMEM;
    for (uint32_t i = 0; i < xfer->part_count; i++) {
        const struct part *part = &xfer->parts[i];
        uint64_t source = (uintptr_t)part->local;

        if (request.segment)
            segment_of(te, part->local, part->len, &source);
        request.ranges[i] = (struct wire_pull_range){source, part->region, part->offset, part->len};
    }
    wire_pull_encode(&request, body);
    free(request.ranges);
    return buf_status(body);
}

enum mc_status pull_submit(struct session *session, enum mc_path path, struct xfer *xfer)
{
    struct conn_msg msg = {.type = MSG_SHM_PULL, .deadline_ns = xfer->batch->deadline_ns};
    struct call *call = call_take(session);
    struct mc_te *te = session->shm->te;
    enum mc_status status;
    struct buf body;

    if (!call)
        return MC_AGAIN; /* pull_answer() pumps again */
    call->path = path;
    status = region_add(te, NULL, 0, TE_TOKEN, 0, 0, &call->token);
    if (status != MC_OK) {
        call->busy = false;
        return status;
    }
    buf_init(&body, 64u << 10);
    status = pull_encode(call, xfer, &body);
    msg.request = call_request(call);
    msg.body = buf_slice(&body);
    if (status == MC_OK)
        status = conn_send(session->conn, &msg);
    buf_fini(&body);
    if (status != MC_OK) {
        token_drop(te, call->token);
        call->busy = false;
        return status;
    }
    call->xfer = xfer;
    xfer->slot = call;
    return MC_OK;
}

void pull_answer(struct session *session, const struct frame *frame)
{
    struct call *call = call_of(session, frame->request);
    struct xfer *xfer;

    if (!call) {
        log_warn("transfer: peer %s: answer to no request of ours", conn_name(session->conn));
        conn_abort(session->conn, MC_EPROTO);
        return;
    }
    xfer = call->xfer;
    call->xfer = NULL;
    call->busy = false;
    te_pump_later(session->shm->te);
    if (!xfer)
        return;
    token_drop(session->shm->te, call->token);
    if (frame->status == MC_OK)
        atomic_fetch_add_explicit(&xfer->batch->peer->count.write_bytes[call->path], xfer->bytes, memory_order_relaxed);
    xfer_end(xfer, frame->status <= MC_OK ? frame->status : MC_EPROTO);
}

uint64_t pull_cancel(struct xfer *xfer)
{
    struct call *call = xfer->slot;
    struct session *session = call->session;

    call->xfer = NULL;
    token_drop(session->shm->te, call->token);
    atomic_fetch_add_explicit(&xfer->batch->peer->count.fences, 1, memory_order_relaxed);
    if (!page_has_hazard(session->page, call->token))
        return 0;
    xfer->fence_id = call->token;
    return now_ns() + FENCE_FIRST_NS;
}

struct loop_io *pull_answers(const struct xfer *xfer)
{
    const struct call *call = xfer->slot;

    return conn_ready(call->session->conn) ? conn_io(call->session->conn) : NULL;
}

/* The process that shows a hazard for this token; 0: none does. */
static pid_t copying_process(struct shm *shm, uint64_t token)
{
    pid_t pid = 0;

    pthread_mutex_lock(&shm->lock);
    list_for_each (it, &shm->sessions) {
        const struct session *session = list_entry(it, struct session, link);

        if (session->page && page_has_hazard(session->page, token))
            pid = session->pid;
    }
    pthread_mutex_unlock(&shm->lock);
    return pid;
}

bool pull_copying(struct shm *shm, const struct xfer *xfer, uint64_t waited_ns)
{
    pid_t pid = copying_process(shm, xfer->fence_id);

    if (!pid)
        return false;
    switch (process_state(pid)) {
    case PROCESS_STOPPED: return false;
    case PROCESS_RUNNABLE: return waited_ns < FENCE_STARVED_NS;
    case PROCESS_UNKNOWN: break;
    }
    return waited_ns < FENCE_GRACE_NS;
}

/* ---- owner ---- */

static void pull_end(struct session *session, struct pull *pull, enum mc_status status)
{
    for (uint32_t i = 0; i < pull->held; i++)
        region_release(session->shm->te, pull->ranges[i].region);
    list_del(&pull->link);
    if (session->conn && conn_reply(session->conn, &pull->frame, status, slice_of(NULL, 0)) == MC_AGAIN)
        conn_abort(session->conn, MC_EBUSY);
    free(pull);
}

static enum mc_status hold_all(struct session *session, struct pull *pull)
{
    enum mc_status status = MC_OK;

    while (status == MC_OK && pull->held < pull->request.count) {
        const struct wire_pull_range *range = &pull->ranges[pull->held];
        uint8_t *addr;

        status = region_find(session->shm->te, range->region, range->offset, range->len, MC_REGION_WRITE, true, &addr);
        pull->held += status == MC_OK;
    }
    return status;
}

void pull_frame(struct session *session, const struct frame *frame)
{
    static _Thread_local struct wire_pull_range ranges[WIRE_RANGES_MAX];
    struct wire_pull request = {.ranges = ranges};
    struct pull *pull;
    enum mc_status status;
    const char *bad;

    if (wire_pull_decode(frame->body, &request, &bad) != MC_OK) {
        log_warn("transfer: peer %s: malformed %s in shm-pull", conn_name(session->conn), bad);
        conn_abort(session->conn, MC_EPROTO);
        return;
    }
    pull = calloc(1, sizeof(*pull) + request.count * sizeof(ranges[0]));
    if (!pull) {
        conn_reply(session->conn, frame, MC_ENOMEM, slice_of(NULL, 0));
        return;
    }
    pull->frame = *frame;
    pull->frame.body = slice_of(NULL, 0);
    pull->request = request;
    pull->request.ranges = pull->ranges;
    memcpy(pull->ranges, ranges, request.count * sizeof(ranges[0]));
    list_push_back(&session->pulls, &pull->link);
    status = hold_all(session, pull);
    if (status == MC_OK && request.segment && session_segment(session, request.segment) == MAPPING_REFUSED)
        status = MC_ENOENT;
    if (status == MC_OK && !request.segment && !session->can_read)
        status = MC_ENOSUP;
    if (status != MC_OK)
        pull_end(session, pull, status);
    else
        loop_defer(session->shm->te->loop, &session->shm->pull_task);
}

static bool wanted(const struct session *session, const struct pull *pull)
{
    return grant_alive(page_grant(session->page, pull->request.token), pull->request.token);
}

static enum mc_status copy_mapped(const struct session *session, const struct pull *pull, const struct mapping *mapping,
    uint64_t source, uint8_t *dst, uint32_t len)
{
    uint32_t done = 0;

    if (source > mapping->len || len > mapping->len - source)
        return MC_EINVAL;
    while (done < len) {
        ssize_t n;

        uncut_copy_begin();
        if (!wanted(session, pull))
            return MC_ECANCELED;
        n = uncut_copy(dst + done, mapping->addr + source + done, len - done);
        if (n < 0)
            return MC_ESYS;
        done += (uint32_t)n;
    }
    return MC_OK;
}

static enum mc_status copy_by_vm(
    const struct session *session, const struct pull *pull, uint64_t source, uint8_t *dst, uint32_t len)
{
    enum mc_status status;

    do {
        uncut_begin();
        status = wanted(session, pull) ? copy_by_call(session, source, dst, len, true) : MC_ECANCELED;
    } while (status == MC_AGAIN);
    return status;
}

/* One piece, if the writer still wants it and our region still stands. */
static enum mc_status pull_piece(
    struct session *session, struct pull *pull, const struct mapping *mapping, uint32_t len)
{
    const struct wire_pull_range *range = &pull->ranges[pull->at];
    uint64_t source = range->source + pull->done;
    struct hazard *hazard;
    enum mc_status status;
    uint8_t *dst;

    status =
        region_find(session->shm->te, range->region, range->offset + pull->done, len, MC_REGION_WRITE, false, &dst);
    if (status != MC_OK)
        return status;
    hazard = hazard_set(session->shm, pull->request.token);
    if (!hazard)
        return MC_EBUSY;
    status =
        mapping ? copy_mapped(session, pull, mapping, source, dst, len) : copy_by_vm(session, pull, source, dst, len);
    hazard_clear(hazard);
    return status;
}

/* Its pieces, until it ended or the turn is over. True: it ended. */
static bool pull_pieces(struct session *session, struct pull *pull, const struct mapping *mapping, size_t *budget)
{
    while (*budget > 0) {
        uint32_t left = pull->ranges[pull->at].len - pull->done, len = left < SHM_PIECE ? left : SHM_PIECE;
        enum mc_status status = pull_piece(session, pull, mapping, len);

        if (status == MC_OK && !mapping && session_hung_up(session))
            status = MC_EPEERDOWN;
        *budget -= len < *budget ? len : *budget;
        pull->done += len;
        if (pull->done == pull->ranges[pull->at].len) {
            pull->at++;
            pull->done = 0;
        }
        if (status != MC_OK || pull->at == pull->request.count) {
            pull_end(session, pull, status);
            return true;
        }
    }
    return false;
}

/* Go on with one request until it ended, waits for its segment, or the turn is over. True: it ended. */
static bool pull_step(struct session *session, struct pull *pull, size_t *budget)
{
    struct mapping *mapping;
    bool ended;

    if (!pull->request.segment)
        return pull_pieces(session, pull, NULL, budget);
    switch (session_segment(session, pull->request.segment)) {
    case MAPPING_ASKED: return false;
    case MAPPING_REFUSED: pull_end(session, pull, MC_ENOENT); return true;
    case MAPPING_READY: break;
    }
    mapping = session_mapping(session, pull->request.segment);
    ended = pull_pieces(session, pull, mapping, budget);
    mapping_put(mapping);
    return ended;
}

void pull_run(struct loop *loop, struct loop_task *task)
{
    struct shm *shm = container_of(task, struct shm, pull_task);
    size_t budget = TURN_BYTES;

    list_for_each_safe (s, next_session, &shm->sessions) {
        struct session *session = list_entry(s, struct session, link);

        list_for_each_safe (it, tmp, &session->pulls) {
            if (budget > 0)
                pull_step(session, list_entry(it, struct pull, link), &budget);
        }
        if (budget > 0)
            continue;
        pthread_mutex_lock(&shm->lock); /* the next turn is somebody else's */
        list_del(&session->link);
        list_push_back(&shm->sessions, &session->link);
        pthread_mutex_unlock(&shm->lock);
        loop_defer(loop, &shm->pull_task);
        return;
    }
}

void pull_session_gone(struct session *session)
{
    while (!list_empty(&session->pulls))
        pull_end(session, list_first(&session->pulls, struct pull, link), MC_ECLOSED);
    for (unsigned i = 0; i < CALLS; i++) {
        struct call *call = &session->calls[i];
        struct xfer *xfer = call->xfer;

        call->xfer = NULL;
        if (!call->busy || !xfer)
            continue;
        token_drop(session->shm->te, call->token);
        xfer_end(xfer, MC_ECLOSED);
    }
}

void shm_wait_readers(struct shm *shm, uint64_t id)
{
    uint64_t until = deadline_after_ms(now_ns(), 50);

    for (;;) {
        bool busy = false;

        pthread_mutex_lock(&shm->lock);
        list_for_each (it, &shm->sessions) {
            const struct session *session = list_entry(it, struct session, link);

            busy |= session->page && page_has_hazard(session->page, id);
        }
        pthread_mutex_unlock(&shm->lock);
        if (!busy)
            return;
        if (now_ns() >= until) {
            log_warn("transfer: a peer on this host is still in the middle of reading a region that was withdrawn");
            return;
        }
        fence_wait(now_ns() + 50 * NS_PER_US);
    }
}
