/* submit.c - how a batch is begun, in the caller's thread: is there room, is the peer there, can it be done at once?
 *
 * What is not done at once goes to te->incoming, and batch.c has it from there. A caller who is going to wait anyway takes it from
 * there himself when the loop sleeps, and waits at the sockets (net/loop.h, lending). */
#include <stdlib.h>

#include "transfer/core.h"
#include "transfer/shm/shm.h"

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
void room_give(struct mc_peer *peer, uint32_t n)
{
    atomic_fetch_sub(&peer->ops_inflight, n);
    atomic_fetch_add(&peer->room, 1);
    if (atomic_load(&peer->room_waiters))
        word_wake_waiters(&peer->room);
}

/* ---- submitting ---- */

static void batch_destroy(struct mc_batch *batch)
{
    batch_unbuild(batch);
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

/* The descriptors by which the answers to the batch come. */
static unsigned batch_answers(const struct mc_batch *batch, struct loop_io *ios[LOOP_LED_MAX])
{
    unsigned count = 0;

    list_for_each (it, &batch->xfers) {
        const struct xfer *xfer = list_entry(it, struct xfer, order);
        struct loop_io *io = NULL;
        unsigned i = 0;

        if (xfer->state == XFER_FLYING && xfer->via->ops->answers)
            io = xfer->via->ops->answers(xfer);
        while (i < count && ios[i] != io)
            i++;
        if (io && i == count && count < LOOP_LED_MAX)
            ios[count++] = io;
    }
    return count;
}

/* In the loop's place. */
static void batch_lead(struct mc_batch *batch)
{
    struct loop *loop = batch->te->loop;
    struct loop_io *ios[LOOP_LED_MAX];

    batch_take_incoming(batch->te);
    peer_pump(batch->peer);
    if (atomic_load(&batch->finished) != WORD_SET && loop_lead_begin(loop, ios, batch_answers(batch, ios))) {
        batch->led = true;
        while (atomic_load(&batch->finished) != WORD_SET && loop_lead_wait(loop))
            ;
        batch->led = false;
    }
    loop_return(loop);
}

/* What the caller does next. */
enum then { THEN_GO_ON, THEN_WAIT };

static enum mc_status submit_at(struct mc_peer *peer, struct mc_op *ops, uint32_t n, uint32_t deadline_ms,
    uint64_t deadline_ns, enum then then, mc_done_fn *done, void *arg, struct mc_batch **out)
{
    uint64_t inline_max = then == THEN_WAIT ? UINT64_MAX : INLINE_BYTES;
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
    if (te->shm && !done && batch->bytes <= inline_max && shm_carry_inline(te->shm, batch)) {
        batch_settle(batch);
        atomic_store(&batch->status, batch->first);
        batch_signal(batch);
        return MC_OK;
    }
    pthread_mutex_lock(&te->lock);
    list_push_back(&te->incoming, &batch->link);
    pthread_mutex_unlock(&te->lock);
    if (then == THEN_WAIT && loop_borrow(te->loop))
        batch_lead(batch);
    else if (loop_in_thread(te->loop)) /* whoever has borrowed it runs what is deferred, and nothing that is posted */
        loop_defer(te->loop, &te->incoming_task);
    else
        loop_post(te->loop, &te->incoming_task);
    return MC_OK;
}

enum mc_status mc_transfer_submit(struct mc_peer *peer, struct mc_op *ops, uint32_t n, uint32_t deadline_ms,
    mc_done_fn *done, void *arg, struct mc_batch **out)
{
    return submit_at(peer, ops, n, deadline_ms, deadline_after_ms(now_ns(), deadline_ms), THEN_GO_ON, done, arg, out);
}

static enum mc_status submit_sync(struct mc_peer *peer, struct mc_op *ops, uint32_t n, uint32_t deadline_ms,
    uint64_t deadline_ns, struct mc_batch **out)
{
    return submit_at(peer, ops, n, deadline_ms, deadline_ns, THEN_WAIT, NULL, NULL, out);
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
            word_wait_change(&peer->room, room, deadline_ns);
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
