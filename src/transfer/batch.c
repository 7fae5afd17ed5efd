/* batch.c - batches on the loop: taken in, ended, told; and the caller's handle.
 *
 * A batch ends once: either its last xfer ended, or batch_fail() took back what was flying. In the second case, when a write had to
 * be fenced, completion waits for `fence_until_ns`. `done` runs from a deferred task, so that no code of ours is on the stack
 * below it and it may submit, free and close what it likes.
 *
 * Who may free a batch when: `finished` is set as the last access of ours; mc_batch_free() waits for it, except inside
 * the batch's own `done`. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/crc.h"
#include "transfer/core.h"

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

void batch_settle(struct mc_batch *batch)
{
    struct mc_peer *peer = batch->peer;

    for (uint32_t i = 0; i < batch->op_count; i++)
        if (batch->ops[i].status == MC_PENDING)
            batch->ops[i].status = MC_OK;
    if (batch->first == MC_OK)
        batch_collect_crcs(batch);
    batch_unbuild(batch);
    atomic_fetch_add_explicit(&peer->count.batches, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&peer->count.ops, batch->op_count, memory_order_relaxed);
    if (batch->first != MC_OK)
        atomic_fetch_add_explicit(&peer->count.batches_failed, 1, memory_order_relaxed);
    room_give(peer, batch->op_count);
}

void batch_signal(struct mc_batch *batch)
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
    if (batch->led)
        loop_lead_kick(te->loop);
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
    if (batch->led) { /* its caller looks when he owns the loop, perhaps now */
        batch_signal(batch);
    } else if (batch->done) {
        list_push_back(&te->finished, &batch->link);
        loop_defer(te->loop, &te->done_task);
    } else {
        list_push_back(&te->settled, &batch->link);
        loop_defer(te->loop, &te->settled_task);
    }
}

void batch_run_done(struct mc_te *te)
{
    struct list *it;

    while ((it = list_pop_front(&te->finished)) != NULL)
        batch_release(list_entry(it, struct mc_batch, link));
}

/* At the end of the turn: woken in the middle of it they would find the loop busy and could not borrow it for what they do next. */
void batch_tell_settled(struct mc_te *te)
{
    struct list *it;

    while ((it = list_pop_front(&te->settled)) != NULL)
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

/* ---- taking in ---- */

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

        loop_timer_init(&batch->timer, batch_timer);
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

    if (atomic_load(&batch->finished) == WORD_SET)
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
    if (list_linked(&batch->link)) { /* it was about to be told */
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
