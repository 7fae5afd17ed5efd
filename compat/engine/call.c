/* call.c - what did not go through at once: a state machine on the loop that goes on until it is done, hopeless, or out of time.
 *
 *     IDLE --- nothing known of the peer, or what is known is too old --> ASKING
 *      |  ^------------------------------------------ an answer ------------'
 *      |--- operations are left --> FLYING --- all went well, or an address was gone --> IDLE
 *      |                              `------ the peer is away --> KNOCKING --> RESTING --> IDLE
 *      |--- a notification is left --> TELLING --- told --> ENDED
 *      `--- nothing is left, hopeless, or out of time --> ENDED
 *
 * Hopeless is: the port refuses three times in a row (the process is gone), or another process answers than the one that was
 * given bytes (the addresses were of the old one), or an address is missing in an answer to a question asked after the call
 * began. Silence is not: it may be the network, and then giving up early would both be wrong and leave the fate of bytes
 * on their way open until the deadline that they carry. So such a call ends at its deadline, when nothing is written any more.
 *
 * Whoever owns the call waits for `finished`, the last thing that is touched here. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "compat/engine/impl.h"

#define REFUSALS     3
#define REFUSAL_MS   50
#define REST_MS      10 /* doubled up to REST_MAX_MS */
#define REST_MAX_MS  500
#define CHANGES_FREE 16 /* so often what is registered may change under a call before it takes a breath */

static void call_step(struct ce_call *call);

/* ---- ending ---- */

static void call_end(struct ce_call *call, enum mc_status status)
{
    struct ce_engine *engine = call->engine;

    assert(call->step != CALL_ENDED && !call->batch);
    call->step = CALL_ENDED;
    list_del(&call->waiter.link);
    list_del(&call->link);
    ce_knock_stop(&call->knock);
    loop_timer_cancel(engine->loop, &call->timer);
    loop_timer_cancel(engine->loop, &call->limit);
    ce_build_fini(&call->build);
    ce_desc_unref(call->desc);
    ce_desc_unref(call->met);
    for (size_t i = 0; i < call->n; i++)
        if (call->ops[i].status == MC_PENDING)
            call->ops[i].status = status == MC_OK ? MC_ECANCELED : status;
    if (status == MC_EPEERDOWN)
        atomic_store(&call->peer->lost, true);
    pthread_mutex_lock(&engine->done_lock);
    call->status = status;
    call->finished = true;
    engine->users--;
    pthread_cond_broadcast(&engine->done_cond);
    pthread_mutex_unlock(&engine->done_lock);
}

/* ---- waiting ---- */

static void on_timer(struct loop *loop, struct loop_timer *timer)
{
    struct ce_call *call = container_of(timer, struct ce_call, timer);

    call_step(call);
}

static void rest(struct ce_call *call, unsigned ms)
{
    call->step = CALL_RESTING;
    if (loop_timer_set(call->engine->loop, &call->timer, deadline_after_ms(now_ns(), ms)) != MC_OK)
        call_end(call, MC_ENOMEM);
}

static unsigned rest_ms(struct ce_call *call)
{
    unsigned ms = call->rests < 6 ? REST_MS << call->rests : REST_MAX_MS;

    call->rests++;
    return ms < REST_MAX_MS ? ms : REST_MAX_MS;
}

static void on_knocked(struct ce_knock *knock, bool refused)
{
    struct ce_call *call = container_of(knock, struct ce_call, knock);

    call->refusals = refused ? call->refusals + 1 : 0;
    if (call->refusals == REFUSALS) {
        call_end(call, MC_EPEERDOWN);
        return;
    }
    call->want = ce_peer_next(call->peer); /* who has the name now? */
    rest(call, refused ? REFUSAL_MS : rest_ms(call));
}

/* The peer is away: gone, or only not to be reached? */
static void trouble(struct ce_call *call)
{
    call->step = CALL_KNOCKING;
    if (ce_knock_start(&call->knock, &call->peer->addr, on_knocked) != MC_OK)
        call_end(call, MC_ENOMEM);
}

/* ---- asking ---- */

static void on_answer(struct ce_waiter *waiter, enum mc_status status)
{
    struct ce_call *call = container_of(waiter, struct ce_call, waiter);

    switch (status) {
    case MC_OK:
        call->refusals = 0;
        call_step(call);
        break;
    case MC_ETIMEDOUT:
    case MC_AGAIN:
    case MC_EBUSY:
    case MC_ENOMEM: rest(call, rest_ms(call)); break;
    case MC_EPEERDOWN:
    case MC_ECLOSED:
    case MC_EPROTO:
    case MC_ECORRUPT:
    case MC_ECANCELED: trouble(call); break;
    default:
        log_warn("engine: peer %s does not say what it has registered: %s", call->peer->name, mc_status_str(status));
        call_end(call, status);
    }
}

static void ask(struct ce_call *call, uint64_t want)
{
    call->step = CALL_ASKING;
    call->want = want;
    call->waiter.want = want;
    ce_peer_wait(call->peer, &call->waiter);
}

/* What the peer has registered, as fresh as the call wants it. False: the call is no longer idle. */
static bool know(struct ce_call *call)
{
    uint64_t number;
    struct ce_desc *desc = ce_peer_desc(call->peer, &number);

    if (!desc || number < call->want) {
        ce_desc_unref(desc);
        ask(call, call->want ? call->want : 1);
        return false;
    }
    ce_desc_unref(call->desc);
    call->desc = desc;
    if (call->met && !ce_desc_same_process(call->met, desc)) {
        log_warn("engine: peer %s was restarted during a transfer", call->peer->name);
        call_end(call, MC_EPEERDOWN);
        return false;
    }
    return true;
}

/* ---- flying ---- */

static void on_landed(struct mc_batch *batch, enum mc_status status, void *arg)
{
    struct ce_call *call = arg;

    call->batch = NULL;
    mc_batch_free(batch);
    call->at = 0;
    status = ce_build_settle(&call->build, status, call->ops);
    if (call->cancelled) {
        call_end(call, MC_ECANCELED);
        return;
    }
    switch (status) {
    case MC_OK: call_step(call); break;
    case MC_ENOENT:
        call->want = ce_peer_next(call->peer);
        if (++call->changes % CHANGES_FREE == 0)
            rest(call, 1);
        else
            call_step(call);
        break;
    case MC_AGAIN: rest(call, 1); break;
    case MC_EPEERDOWN: trouble(call); break;
    default: call_end(call, status);
    }
}

static void fly(struct ce_call *call)
{
    uint64_t now = now_ns();
    uint32_t left = deadline_to_wire(call->deadline_ns, now);
    enum mc_status status = mc_transfer_submit(
        call->peer->te_peer, call->build.ops, call->build.count, left, on_landed, call, &call->batch);

    if (status == MC_OK) {
        call->step = CALL_FLYING;
        if (!call->met)
            call->met = ce_desc_ref(call->desc);
        return;
    }
    call->at = 0;
    if (status == MC_AGAIN || status == MC_ENOMEM)
        rest(call, 1);
    else if (status == MC_EPEERDOWN)
        trouble(call);
    else
        call_end(call, status);
}

/* Operations that are left; false: none. */
static bool move(struct ce_call *call)
{
    enum mc_status status = ce_build_take(&call->build, call->desc, call->ops, call->n, &call->at);

    if (status == MC_ENOENT) {
        uint64_t number;
        struct ce_desc *desc = ce_peer_desc(call->peer, &number);
        bool fresh = desc && number >= call->fresh;

        ce_desc_unref(desc);
        if (fresh) {
            const struct ce_op *op = &call->ops[call->at];

            log_warn("engine: peer %s has not registered %#llx, length %llu", call->peer->name,
                (unsigned long long)op->remote, (unsigned long long)op->len);
            call_end(call, MC_ENOENT);
        } else {
            ask(call, call->fresh);
        }
        return true;
    }
    if (status != MC_OK) {
        call_end(call, status);
        return true;
    }
    if (call->build.count == 0)
        return false;
    fly(call);
    return true;
}

/* ---- telling ---- */

static void on_told(struct rpc_call *rpc, enum mc_status status, const struct frame *frame)
{
    struct ce_call *call = rpc->user;

    if (call->cancelled || call->probe) {
        call_end(call, call->cancelled ? MC_ECANCELED : status);
        return;
    }
    switch (status) {
    case MC_EBUSY:
    case MC_ENOMEM: rest(call, rest_ms(call)); break;
    case MC_EPEERDOWN:
    case MC_ECLOSED:
    case MC_EPROTO: trouble(call); break;
    default: call_end(call, status);
    }
}

static const struct rpc_call_ops tell_ops = {.done = on_told};

static void tell(struct ce_call *call)
{
    struct conn_msg msg = {.type = call->probe ? MSG_CE_PROBE : MSG_CE_NOTIFY, .deadline_ns = call->deadline_ns};
    struct rpc_peer *rpc = call->peer->rpc;
    enum mc_status status;
    struct buf body;

    buf_init(&body, CE_NOTE_MAX + 256);
    if (!call->probe)
        ce_wire_note_encode(&call->note, &body);
    msg.body = buf_slice(&body);
    if (rpc_peer_health(rpc) == RPC_DOWN)
        rpc_peer_kick(rpc);
    call->rpc = (struct rpc_call){.ops = &tell_ops, .user = call};
    call->step = CALL_TELLING;
    status = buf_status(&body) == MC_OK ? rpc_send(rpc, &call->rpc, &msg) : MC_ENOMEM;
    buf_fini(&body);
    if (status == MC_OK)
        return;
    if (call->probe || status == MC_ETOOBIG || status == MC_ETIMEDOUT)
        call_end(call, status);
    else if (status == MC_AGAIN || status == MC_ENOMEM)
        rest(call, rest_ms(call));
    else
        trouble(call);
}

/* ---- the machine ---- */

static void step_once(struct ce_call *call)
{
    if (atomic_load(&call->engine->closing) || call->cancelled) {
        call_end(call, call->cancelled ? MC_ECANCELED : MC_ECLOSED);
        return;
    }
    if (deadline_passed(call->deadline_ns, now_ns())) {
        call_end(call, MC_ETIMEDOUT);
        return;
    }
    if (call->probe) {
        tell(call);
        return;
    }
    if (!know(call) || move(call))
        return;
    if (call->note.id)
        tell(call);
    else
        call_end(call, MC_OK);
}

static void call_step(struct ce_call *call)
{
    call->step = CALL_IDLE;
    step_once(call);
}

/* A batch and a message have the deadline themselves. */
static void on_limit(struct loop *loop, struct loop_timer *timer)
{
    struct ce_call *call = container_of(timer, struct ce_call, limit);

    if (call->step == CALL_ASKING || call->step == CALL_KNOCKING || call->step == CALL_RESTING)
        call_end(call, MC_ETIMEDOUT);
}

static void on_start(struct loop *loop, struct loop_task *task)
{
    struct ce_call *call = container_of(task, struct ce_call, start);

    list_push_back(&call->engine->calls, &call->link);
    if (loop_timer_set(loop, &call->limit, call->deadline_ns) != MC_OK)
        call_end(call, MC_ENOMEM);
    else
        call_step(call);
}

static void stop(struct ce_call *call)
{
    call->cancelled = true;
    if (call->step == CALL_FLYING)
        mc_batch_cancel(call->batch);
    else if (call->step == CALL_TELLING)
        rpc_cancel(&call->rpc);
    else if (call->step != CALL_ENDED)
        call_end(call, MC_ECANCELED);
}

static void cancel(struct loop *loop, void *arg)
{
    struct ce_call *call = arg;

    if (call->step != CALL_ENDED)
        stop(call);
}

void ce_calls_close(struct ce_engine *engine)
{
    list_for_each_safe (it, tmp, &engine->calls)
        stop(list_entry(it, struct ce_call, link));
}

/* ---- from other threads ---- */

void ce_call_init(struct ce_call *call, struct ce_peer *peer, struct ce_op *ops, size_t n, uint64_t deadline_ns)
{
    struct ce_engine *engine = peer->engine;

    *call = (struct ce_call){.engine = engine, .peer = peer, .ops = ops, .n = n, .deadline_ns = deadline_ns};
    list_init(&call->link);
    list_init(&call->waiter.link);
    call->waiter.fn = on_answer;
    loop_task_init(&call->start, on_start);
    loop_timer_init(&call->timer, on_timer);
    loop_timer_init(&call->limit, on_limit);
    ce_knock_init(&call->knock, engine->loop);
    ce_build_init(&call->build);
    call->fresh = ce_peer_next(peer);
    call->status = MC_PENDING;
}

void ce_call_start(struct ce_call *call)
{
    struct ce_engine *engine = call->engine;

    pthread_mutex_lock(&engine->done_lock);
    engine->users++;
    pthread_mutex_unlock(&engine->done_lock);
    loop_post(engine->loop, &call->start);
}

enum mc_status ce_call_end_wait(struct ce_call *call, uint64_t deadline_ns)
{
    struct timespec at = {(time_t)(deadline_ns / NS_PER_S), (long)(deadline_ns % NS_PER_S)};
    struct ce_engine *engine = call->engine;
    enum mc_status status;
    int error = 0;

    pthread_mutex_lock(&engine->done_lock);
    while (!call->finished && error != ETIMEDOUT) {
        if (deadline_ns == DEADLINE_NONE)
            pthread_cond_wait(&engine->done_cond, &engine->done_lock);
        else
            error = pthread_cond_timedwait(&engine->done_cond, &engine->done_lock, &at);
    }
    status = call->finished ? call->status : MC_PENDING;
    pthread_mutex_unlock(&engine->done_lock);
    return status;
}

void ce_call_fini(struct ce_call *call)
{
    if (ce_call_end_wait(call, now_ns()) == MC_PENDING) {
        loop_call(call->engine->loop, cancel, call);
        ce_call_end_wait(call, DEADLINE_NONE);
    }
    ce_peer_put(call->peer);
    free(call->own_ops);
    free(call->own_note);
}
