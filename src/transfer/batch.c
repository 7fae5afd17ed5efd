/* batch.c - batches: cut into xfers by the submitting thread, ended on the loop.
 *
 *   ops      | a | b | c (4 MiB)         |     a and b lie side by side on both sides: one part
 *   parts    | a+b |  c  |  c  |  c  | c |
 *   xfers    | x1        | x2  | x3  | x4|     at most XFER_BYTES and XFER_PARTS each, one direction and kind of memory
 *
 * A batch ends once: either its last xfer ended, or batch_fail() took back what was flying. In the second case, when a write had to
 * be fenced, completion waits for `fence_until_ns`. `done` runs from a deferred task, so that no code of ours is on the stack
 * below it and it may submit, free and close what it likes.
 *
 * Who may free a batch when: `finished` is set as the last access of ours; mc_batch_free() waits for it, except inside
 * the batch's own `done`. */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/crc.h"
#include "base/log.h"
#include "transfer/core.h"
#include "transfer/shm/shm.h"

/* ---- waiting ---- */

static void futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t deadline_ns)
{
    struct timespec at = {(time_t)(deadline_ns / NS_PER_S), (long)(deadline_ns % NS_PER_S)};

    syscall(SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, value, deadline_ns == DEADLINE_NONE ? NULL : &at,
        NULL, FUTEX_BITSET_MATCH_ANY);
}

bool word_wait(_Atomic uint32_t *word, uint64_t deadline_ns)
{
    while (atomic_load(word) == 0) {
        if (deadline_passed(deadline_ns, now_ns()))
            return false;
        futex_wait(word, 0, deadline_ns);
    }
    return true;
}

/* The word may be gone as soon as it is set: waking an address nobody waits at is harmless. */
void word_wake(_Atomic uint32_t *word)
{
    atomic_store(word, 1);
    syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT_MAX, NULL, NULL, 0);
}

/* ---- room: how many operations a peer may have in flight ---- */

static bool room_take(struct mc_peer *peer, uint32_t n)
{
    uint64_t inflight = atomic_load(&peer->ops_inflight);

    do
        if (inflight + n > MC_TE_OPS_MAX)
            return false;
    while (!atomic_compare_exchange_weak(&peer->ops_inflight, &inflight, inflight + n));
    return true;
}

/* Whoever waits has counted himself before he found no room, and read `room` before that: he sees the one or the other change. */
static void room_give(struct mc_peer *peer, uint32_t n)
{
    atomic_fetch_sub(&peer->ops_inflight, n);
    atomic_fetch_add(&peer->room, 1);
    if (atomic_load(&peer->room_waiters))
        syscall(SYS_futex, &peer->room, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT_MAX, NULL, NULL, 0);
}

/* ---- building ---- */

/* What decides whether two ops may travel in one xfer. */
struct op_class {
    enum mc_opcode opcode;
    uint8_t kind;
    uint32_t local_segment;
};

struct builder {
    struct mc_batch *batch;
    struct xfer *xfer; /* being filled */
    struct op_class class;
    const struct mc_region_key *raw; /* the key decoded last: batches mostly name one region */
    struct te_key key;
    enum mc_status key_status;
};

static bool class_equal(const struct op_class *a, const struct op_class *b)
{
    return a->opcode == b->opcode && a->kind == b->kind && a->local_segment == b->local_segment;
}

static enum mc_status key_fits_peer(struct mc_peer *peer, const struct te_key *key)
{
    bool fits;

    pthread_mutex_lock(&peer->id_lock);
    fits = !peer->known || (memcmp(peer->uuid, key->uuid, UUID_SIZE) == 0 && peer->epoch == key->epoch);
    pthread_mutex_unlock(&peer->id_lock);
    return fits ? MC_OK : MC_ENOENT;
}

static enum mc_status builder_key(struct builder *b, const struct mc_op *op)
{
    if (b->raw && memcmp(b->raw, &op->region, sizeof(op->region)) == 0)
        return b->key_status;
    b->raw = &op->region;
    b->key_status = te_key_decode(&op->region, &b->key, NULL);
    if (b->key_status == MC_OK)
        b->key_status = key_fits_peer(b->batch->peer, &b->key);
    return b->key_status;
}

static enum mc_status op_check(struct builder *b, const struct mc_op *op)
{
    enum mc_status status = builder_key(b, op);

    if (status != MC_OK)
        return status;
    if (op->offset > b->key.len || op->len > b->key.len - op->offset)
        return MC_EINVAL;
    if (!(b->key.flags & (op->opcode == MC_READ ? MC_REGION_READ : MC_REGION_WRITE)))
        return MC_EPERM;
    return MC_OK;
}

/* Begin a new xfer, with room for what is left of the batch from op `i` on. */
static enum mc_status builder_begin(struct builder *b, const struct op_class *class, uint32_t i)
{
    uint32_t left = b->batch->op_count - i;
    uint32_t room = left < XFER_PARTS ? left : XFER_PARTS;
    struct xfer *xfer = malloc(sizeof(*xfer) + room * sizeof(struct part));

    if (!xfer)
        return MC_ENOMEM;
    memset(xfer, 0, sizeof(*xfer));
    list_init(&xfer->link);
    xfer->batch = b->batch;
    xfer->opcode = class->opcode;
    xfer->kind = class->kind;
    xfer->local_segment = class->local_segment;
    list_push_back(&b->batch->xfers, &xfer->order);
    b->batch->xfers_left++;
    b->xfer = xfer;
    b->class = *class;
    return MC_OK;
}

/* Join the range to the last part, when it goes on there at both ends. */
static bool part_extend(struct xfer *xfer, const struct mc_op *op, uint64_t id, uint64_t done, uint32_t i, uint32_t len)
{
    struct part *last = xfer->part_count ? &xfer->parts[xfer->part_count - 1] : NULL;

    if (!last || op->crc32c || xfer->batch->ops[last->op].crc32c || last->region != id ||
        last->offset + last->len != op->offset + done || last->local + last->len != (uint8_t *)op->local + done)
        return false;
    last->len += len;
    last->ops = i - last->op + 1;
    return true;
}

static enum mc_status builder_op(struct builder *b, const struct mc_op *op, uint32_t i)
{
    struct op_class class = {op->opcode, b->key.kind, 0};
    uint64_t ignored;

    if (op->opcode == MC_WRITE && b->batch->te->shm)
        class.local_segment = segment_of(b->batch->te, op->local, op->len, &ignored);
    for (uint64_t done = 0; done < op->len;) {
        struct xfer *xfer = b->xfer;
        uint32_t len;

        if (!xfer || !class_equal(&class, &b->class) || xfer->bytes == XFER_BYTES || xfer->part_count == XFER_PARTS) {
            enum mc_status status = builder_begin(b, &class, i);

            if (status != MC_OK)
                return status;
            xfer = b->xfer;
        }
        len = XFER_BYTES - xfer->bytes;
        if (op->len - done < len)
            len = (uint32_t)(op->len - done);
        if (!part_extend(xfer, op, b->key.id, done, i, len))
            xfer->parts[xfer->part_count++] = (struct part){
                .local = (uint8_t *)op->local + done,
                .region = b->key.id,
                .offset = op->offset + done,
                .len = len,
                .op = i,
                .ops = 1,
                .base = b->key.base,
                .segment = b->key.segment,
            };
        xfer->want_crc |= op->crc32c != NULL;
        xfer->bytes += len;
        done += len;
    }
    return MC_OK;
}

static void xfers_free(struct mc_batch *batch)
{
    list_for_each_safe (it, tmp, &batch->xfers)
        free(list_entry(it, struct xfer, order));
    list_init(&batch->xfers);
}

/* Ops that cannot be right fail alone; the others are cut into xfers. */
static enum mc_status batch_build(struct mc_batch *batch)
{
    struct builder b = {.batch = batch};

    for (uint32_t i = 0; i < batch->op_count; i++) {
        struct mc_op *op = &batch->ops[i];
        enum mc_status status = op_check(&b, op);

        op->status = MC_PENDING;
        if (status != MC_OK) {
            op->status = status;
            if (batch->first == MC_OK)
                batch->first = status;
            continue;
        }
        if (op->crc32c)
            *op->crc32c = 0;
        status = builder_op(&b, op, i);
        if (status != MC_OK)
            return status;
        batch->bytes += op->len;
    }
    return MC_OK;
}

/* ---- ending ---- */

void xfer_ops_failed(struct xfer *xfer, enum mc_status status)
{
    struct mc_batch *batch = xfer->batch;

    for (uint32_t i = 0; i < xfer->part_count; i++)
        for (uint32_t op = xfer->parts[i].op; op < xfer->parts[i].op + xfer->parts[i].ops; op++)
            if (batch->ops[op].status == MC_PENDING)
                batch->ops[op].status = status;
    if (batch->first == MC_OK)
        batch->first = status;
}

/* An op that was cut has several parts; they stand in order. */
static void batch_collect_crcs(struct mc_batch *batch)
{
    list_for_each (it, &batch->xfers) {
        const struct xfer *xfer = list_entry(it, struct xfer, order);

        for (uint32_t i = 0; xfer->want_crc && i < xfer->part_count; i++) {
            uint32_t *crc = batch->ops[xfer->parts[i].op].crc32c;

            if (crc)
                *crc = crc32c_combine(*crc, xfer->parts[i].crc, xfer->parts[i].len);
        }
    }
}

/* All ops have their status; the peer forgets the batch. */
static void batch_settle(struct mc_batch *batch)
{
    struct mc_peer *peer = batch->peer;

    for (uint32_t i = 0; i < batch->op_count; i++)
        if (batch->ops[i].status == MC_PENDING)
            batch->ops[i].status = MC_OK;
    if (batch->first == MC_OK)
        batch_collect_crcs(batch);
    xfers_free(batch);
    atomic_fetch_add_explicit(&peer->count.batches, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&peer->count.ops, batch->op_count, memory_order_relaxed);
    if (batch->first != MC_OK)
        atomic_fetch_add_explicit(&peer->count.batches_failed, 1, memory_order_relaxed);
    room_give(peer, batch->op_count);
}

static void batch_signal(struct mc_batch *batch)
{
    struct mc_te *te = batch->te;
    bool wanted = atomic_load_explicit(&te->eventfd_wanted, memory_order_relaxed);
    uint64_t one = 1;
    ssize_t n;

    if (wanted) {
        do
            n = write(te->eventfd, &one, sizeof(one));
        while (n < 0 && errno == EINTR);
    }
    word_wake(&batch->finished);
}

/* Run `done`, then let go of the batch. */
static void batch_release(struct mc_batch *batch)
{
    struct mc_te *te = batch->te;

    if (batch->done) {
        te->completing++;
        batch->in_done = true;
        batch->done(batch, (enum mc_status)atomic_load(&batch->status), batch->done_arg);
        batch->in_done = false;
        te->completing--;
        if (batch->freed) {
            free(batch);
            return;
        }
    }
    batch_signal(batch);
}

static void batch_finish(struct mc_batch *batch)
{
    struct mc_te *te = batch->te;

    loop_timer_cancel(te->loop, &batch->timer);
    list_del(&batch->link);
    batch_settle(batch);
    atomic_store(&batch->status, batch->first);
    if (!batch->done) {
        batch_signal(batch);
        return;
    }
    list_push_back(&te->finished, &batch->link);
    loop_defer(te->loop, &te->done_task);
}

void batch_run_done(struct mc_te *te)
{
    struct list *it;

    while ((it = list_pop_front(&te->finished)) != NULL)
        batch_release(list_entry(it, struct mc_batch, link));
}

static bool status_retries(enum mc_status status)
{
    return status == MC_ECLOSED || status == MC_EPROTO || status == MC_EPEERDOWN || status == MC_ECORRUPT ||
           status == MC_ESTALE;
}

static void xfer_pend(struct xfer *xfer)
{
    struct mc_peer *peer = xfer->batch->peer;

    xfer->state = XFER_PENDING;
    xfer->via = NULL;
    xfer->slot = NULL;
    list_push_back(&peer->pending, &xfer->link);
    te_pump_later(peer->te);
}

void xfer_requeue(struct xfer *xfer)
{
    assert(xfer->state == XFER_FLYING);
    xfer_pend(xfer);
}

void xfer_end(struct xfer *xfer, enum mc_status status)
{
    struct mc_batch *batch = xfer->batch;
    bool again = false;

    assert(xfer->state != XFER_ENDED && batch->ending == MC_PENDING);
    list_del(&xfer->link);
    if (status_retries(status) && xfer->state == XFER_FLYING) {
        bool lost = status == MC_ECLOSED || status == MC_EPEERDOWN;

        xfer->attempts += lost ? 1 : ATTEMPT_DAMAGED;
        again = xfer->attempts < ATTEMPTS_MAX;
    }
    if (again) {
        atomic_fetch_add_explicit(&batch->peer->count.retries, 1, memory_order_relaxed);
        xfer_pend(xfer);
        return;
    }
    xfer->state = XFER_ENDED;
    if (status != MC_OK)
        xfer_ops_failed(xfer, status == MC_ECORRUPT ? MC_EPROTO : status == MC_ECLOSED ? MC_EPEERDOWN : status);
    if (--batch->xfers_left == 0)
        batch_finish(batch);
}

void batch_fail(struct mc_batch *batch, enum mc_status why)
{
    struct mc_te *te = batch->te;
    uint64_t fence = 0;

    if (batch->ending != MC_PENDING)
        return;
    batch->ending = why;
    list_for_each (it, &batch->xfers) {
        struct xfer *xfer = list_entry(it, struct xfer, order);

        if (xfer->state == XFER_ENDED)
            continue;
        if (xfer->state == XFER_FLYING) {
            uint64_t until = xfer->via->ops->cancel(xfer->via, batch->peer, xfer);

            fence = until > fence ? until : fence;
        }
        list_del(&xfer->link);
        xfer->state = XFER_ENDED;
        xfer_ops_failed(xfer, why);
    }
    batch->xfers_left = 0;
    batch->fence_until_ns = fence;
    if (fence <= now_ns() || loop_timer_set(te->loop, &batch->timer, fence) != MC_OK)
        batch_finish(batch);
}

/* The deadline, or the end of a fence. */
static void batch_timer(struct loop *loop, struct loop_timer *timer)
{
    struct mc_batch *batch = container_of(timer, struct mc_batch, timer);

    if (batch->ending == MC_PENDING)
        batch_fail(batch, MC_ETIMEDOUT);
    else
        batch_finish(batch);
}

void batch_fail_expired(struct mc_te *te)
{
    uint64_t now = now_ns();

    list_for_each (p, &te->peers) {
        struct mc_peer *peer = list_entry(p, struct mc_peer, link);

        list_for_each_safe (it, tmp, &peer->batches) {
            struct mc_batch *batch = list_entry(it, struct mc_batch, link);

            if (batch->deadline_ns <= now)
                batch_fail(batch, MC_ETIMEDOUT);
        }
    }
}

void batch_fail_peer(struct mc_peer *peer, enum mc_status why)
{
    uint64_t fence = 0;

    batch_take_incoming(peer->te);
    list_for_each_safe (it, tmp, &peer->batches)
        batch_fail(list_entry(it, struct mc_batch, link), why);
    list_for_each (it, &peer->batches) {
        const struct mc_batch *batch = list_entry(it, struct mc_batch, link);

        fence = batch->fence_until_ns > fence ? batch->fence_until_ns : fence;
    }
    fence_wait(fence);
    while (!list_empty(&peer->batches))
        batch_finish(list_first(&peer->batches, struct mc_batch, link));
}

/* On the loop's thread a fence can only be sat out: at most FENCE_GRACE_NS, when something is closed or cancelled there. */
void fence_wait(uint64_t until_ns)
{
    struct timespec at = {(time_t)(until_ns / NS_PER_S), (long)(until_ns % NS_PER_S)};

    while (until_ns > now_ns() && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR)
        ;
}

/* ---- starting ---- */

void batch_take_incoming(struct mc_te *te)
{
    struct list taken;

    list_init(&taken);
    pthread_mutex_lock(&te->lock);
    list_splice_back(&taken, &te->incoming);
    pthread_mutex_unlock(&te->lock);
    for (struct list *it; (it = list_pop_front(&taken)) != NULL;) {
        struct mc_batch *batch = list_entry(it, struct mc_batch, link);
        struct mc_peer *peer = batch->peer;

        list_push_back(&peer->batches, &batch->link);
        list_for_each (x, &batch->xfers)
            list_push_back(&peer->pending, &list_entry(x, struct xfer, order)->link);
        if (batch->xfers_left == 0)
            batch_finish(batch);
        else if (loop_timer_set(te->loop, &batch->timer, batch->deadline_ns) != MC_OK)
            batch_fail(batch, MC_ENOMEM);
        else
            te_pump_later(te);
    }
}

static void batch_destroy(struct mc_batch *batch)
{
    xfers_free(batch);
    free(batch);
}

static enum mc_status batch_create(
    struct mc_peer *peer, struct mc_op *ops, uint32_t n, uint64_t deadline_ns, struct mc_batch **out)
{
    struct mc_batch *batch = calloc(1, sizeof(*batch));
    enum mc_status status;

    if (!batch)
        return MC_ENOMEM;
    batch->te = peer->te;
    batch->peer = peer;
    batch->ops = ops;
    batch->op_count = n;
    batch->deadline_ns = deadline_ns;
    batch->ending = MC_PENDING;
    atomic_store(&batch->status, MC_PENDING);
    list_init(&batch->xfers);
    list_init(&batch->link);
    loop_timer_init(&batch->timer, batch_timer);
    status = batch_build(batch);
    if (status != MC_OK) {
        batch_destroy(batch);
        return status;
    }
    *out = batch;
    return MC_OK;
}

/* Known to be gone, and not time yet to try again? */
static enum mc_status peer_down(struct mc_peer *peer)
{
    enum mc_status down = (enum mc_status)atomic_load_explicit(&peer->down, memory_order_relaxed);

    if (down == MC_OK || now_ns() >= atomic_load_explicit(&peer->retry_ns, memory_order_relaxed))
        return MC_OK;
    return down == MC_EREFUSED || down == MC_EVERSION ? down : MC_EPEERDOWN;
}

static enum mc_status submit_check(struct mc_peer *peer, const struct mc_op *ops, uint32_t n, uint32_t deadline_ms)
{
    enum mc_status down;

    if (n == 0 || n > MC_TE_OPS_MAX || !ops || deadline_ms > MC_TE_DEADLINE_MAX)
        return MC_EINVAL;
    for (uint32_t i = 0; i < n; i++)
        if ((ops[i].opcode != MC_READ && ops[i].opcode != MC_WRITE) || (!ops[i].local && ops[i].len) ||
            ops[i].len > INT64_MAX || (ops[i].opcode == MC_WRITE && ops[i].crc32c))
            return MC_EINVAL;
    if (atomic_load(&peer->closing))
        return MC_ECLOSED;
    down = peer_down(peer);
    if (down != MC_OK)
        return down;
    return room_take(peer, n) ? MC_OK : MC_AGAIN;
}

static enum mc_status submit_at(struct mc_peer *peer, struct mc_op *ops, uint32_t n, uint32_t deadline_ms,
    uint64_t deadline_ns, uint64_t inline_max, mc_done_fn *done, void *arg, struct mc_batch **out)
{
    struct mc_te *te = peer->te;
    struct mc_batch *batch;
    enum mc_status status = submit_check(peer, ops, n, deadline_ms);

    if (status != MC_OK)
        return status;
    status = batch_create(peer, ops, n, deadline_ns, &batch);
    if (status != MC_OK) {
        room_give(peer, n);
        return status;
    }
    batch->done = done;
    batch->done_arg = arg;
    *out = batch;
    if (te->shm && !done && batch->bytes <= inline_max && shm_read_inline(te->shm, batch)) {
        batch_settle(batch);
        atomic_store(&batch->status, batch->first);
        batch_signal(batch);
        return MC_OK;
    }
    pthread_mutex_lock(&te->lock);
    list_push_back(&te->incoming, &batch->link);
    pthread_mutex_unlock(&te->lock);
    loop_post(te->loop, &te->incoming_task);
    return MC_OK;
}

enum mc_status mc_transfer_submit(struct mc_peer *peer, struct mc_op *ops, uint32_t n, uint32_t deadline_ms,
    mc_done_fn *done, void *arg, struct mc_batch **out)
{
    return submit_at(peer, ops, n, deadline_ms, deadline_after_ms(now_ns(), deadline_ms), INLINE_BYTES, done, arg, out);
}

static enum mc_status submit_sync(struct mc_peer *peer, struct mc_op *ops, uint32_t n, uint32_t deadline_ms,
    uint64_t deadline_ns, struct mc_batch **out)
{
    return submit_at(peer, ops, n, deadline_ms, deadline_ns, UINT64_MAX, NULL, NULL, out);
}

/* There was no room: again whenever a batch has ended. */
static enum mc_status submit_waiting(struct mc_peer *peer, struct mc_op *ops, uint32_t n, uint32_t deadline_ms,
    uint64_t deadline_ns, struct mc_batch **out)
{
    enum mc_status status = MC_AGAIN;

    atomic_fetch_add(&peer->room_waiters, 1);
    while (status == MC_AGAIN) {
        uint32_t room = atomic_load(&peer->room);

        status = submit_sync(peer, ops, n, deadline_ms, deadline_ns, out);
        if (status == MC_AGAIN && deadline_passed(deadline_ns, now_ns()))
            status = MC_ETIMEDOUT;
        else if (status == MC_AGAIN)
            futex_wait(&peer->room, room, deadline_ns);
    }
    atomic_fetch_sub(&peer->room_waiters, 1);
    return status;
}

enum mc_status mc_transfer_sync(struct mc_peer *peer, struct mc_op *ops, uint32_t n, uint32_t deadline_ms)
{
    uint64_t deadline = deadline_after_ms(now_ns(), deadline_ms);
    struct mc_batch *batch;
    enum mc_status status = submit_sync(peer, ops, n, deadline_ms, deadline, &batch);

    if (status == MC_AGAIN)
        status = submit_waiting(peer, ops, n, deadline_ms, deadline, &batch);
    if (status != MC_OK)
        return status;
    status = mc_batch_wait(batch, UINT32_MAX);
    mc_batch_free(batch);
    return status;
}

/* ---- the caller's handle ---- */

enum mc_status mc_batch_poll(const struct mc_batch *batch)
{
    return (enum mc_status)atomic_load(&batch->status);
}

enum mc_status mc_batch_wait(struct mc_batch *batch, uint32_t timeout_ms)
{
    uint64_t until = timeout_ms == UINT32_MAX ? DEADLINE_NONE : deadline_after_ms(now_ns(), timeout_ms);

    return word_wait(&batch->finished, until) ? mc_batch_poll(batch) : MC_PENDING;
}

static void batch_cancel_on_loop(struct loop *loop, void *arg)
{
    struct mc_batch *batch = arg;

    batch_take_incoming(batch->te);
    if (mc_batch_poll(batch) == MC_PENDING)
        batch_fail(batch, MC_ECANCELED);
}

void mc_batch_cancel(struct mc_batch *batch)
{
    struct mc_te *te = batch->te;

    if (atomic_load(&batch->finished))
        return;
    if (!loop_in_thread(te->loop)) {
        loop_call(te->loop, batch_cancel_on_loop, batch);
        word_wait(&batch->finished, DEADLINE_NONE);
        return;
    }
    if (batch->in_done)
        return;
    batch_cancel_on_loop(te->loop, batch);
    if (mc_batch_poll(batch) == MC_PENDING) {
        fence_wait(batch->fence_until_ns);
        batch_finish(batch);
    }
    if (list_linked(&batch->link)) { /* its `done` was about to run */
        list_del(&batch->link);
        batch_release(batch);
    }
}

void mc_batch_free(struct mc_batch *batch)
{
    if (!batch)
        return;
    if (loop_in_thread(batch->te->loop) && batch->in_done) {
        batch->freed = true;
        return;
    }
    mc_batch_cancel(batch);
    free(batch);
}
