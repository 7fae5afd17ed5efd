/* transfer.c - synchronous and asynchronous transfers, and the other calls that wait.
 *
 * A synchronous transfer first tries in the calling thread with what is known of the peer (small copies on one host are then made
 * right here); only what did not go through becomes a call on the loop. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "compat/engine/impl.h"

/* ---- arguments ---- */

static enum mc_status ops_check(struct ce_op *ops, size_t n, uint64_t *bytes)
{
    *bytes = 0;
    if (n > UINT32_MAX)
        return MC_EINVAL;
    for (size_t i = 0; i < n; i++) {
        struct ce_op *op = &ops[i];

        if ((op->opcode != MC_READ && op->opcode != MC_WRITE) || op->len > INT64_MAX ||
            op->remote + op->len < op->remote || (uintptr_t)op->local + op->len < (uintptr_t)op->local ||
            (!op->local && op->len))
            return MC_EINVAL;
        op->status = op->len ? MC_PENDING : MC_OK;
        *bytes = *bytes > UINT64_MAX - op->len ? UINT64_MAX : *bytes + op->len;
    }
    return MC_OK;
}

static uint64_t deadline_of(const struct ce_engine *engine, uint64_t bytes)
{
    uint64_t ms = engine->set.timeout_ms + bytes / NS_PER_MS; /* a nanosecond per byte */

    return deadline_after_ms(now_ns(), ms < MC_TE_DEADLINE_MAX ? ms : MC_TE_DEADLINE_MAX);
}

static enum mc_status note_check(const struct ce_note *note)
{
    return !note || (note->name_len <= CE_NOTE_MAX && note->msg_len <= CE_NOTE_MAX - note->name_len) ? MC_OK
                                                                                                     : MC_ETOOBIG;
}

static struct ce_wire_note note_of(const struct ce_note *note)
{
    struct ce_wire_note out = {0};

    if (!note)
        return out;
    do
        random_bytes(&out.id, sizeof(out.id));
    while (out.id == 0);
    out.name = slice_of(note->name, note->name_len);
    out.msg = slice_of(note->msg, note->msg_len);
    return out;
}

/* ---- with ourselves ---- */

static bool is_self(const struct ce_engine *engine, const struct ce_desc *desc)
{
    return memcmp(desc->uuid, te_uuid(engine->te), UUID_SIZE) == 0;
}

static void copy_here(const struct ce_op *op)
{
    void *there = (void *)(uintptr_t)op->remote;

    if (op->opcode == MC_READ)
        memmove(op->local, there, op->len);
    else
        memmove(there, op->local, op->len);
}

/* ---- waiting for the loop ---- */

/* Have the peer say what it has registered, by a question numbered at least `want`. */
static enum mc_status learn(struct ce_peer *peer, uint64_t want, uint64_t deadline_ns)
{
    struct ce_call call;
    enum mc_status status;

    ce_call_init(&call, peer, NULL, 0, deadline_ns);
    call.want = want;
    ce_call_start(&call);
    status = ce_call_end_wait(&call, DEADLINE_NONE);
    return status;
}

/* What the peer has registered; asked for when nothing is known. */
static enum mc_status known(struct ce_peer *peer, uint64_t want, uint64_t deadline_ns, struct ce_desc **out)
{
    for (;;) {
        uint64_t number;
        enum mc_status status;

        *out = ce_peer_desc(peer, &number);
        if (*out && number >= want)
            return MC_OK;
        ce_desc_unref(*out);
        *out = NULL;
        status = learn(peer, want, deadline_ns);
        if (status != MC_OK)
            return status;
    }
}

/* The peer of that name, and what it has registered. A name that was looked up is looked up once more when nobody is left at the
 * address it had: its process may have come back at another one. */
static enum mc_status reach(struct ce_engine *engine, const char *target, bool fresh, uint64_t deadline_ns,
    struct ce_peer **peer, struct ce_desc **desc)
{
    for (int tries = 1;; tries++) {
        enum mc_status status = ce_peer_get(engine, target, peer);
        bool again;

        if (status != MC_OK)
            return status;
        status = known(*peer, fresh ? ce_peer_next(*peer) : 0, deadline_ns, desc);
        if (status == MC_OK)
            return MC_OK;
        again = tries == 1 && status == MC_EPEERDOWN && (*peer)->by_name;
        ce_peer_put(*peer);
        if (!again)
            return status;
    }
}

static enum mc_status self_transfer(
    struct ce_peer *peer, struct ce_desc *desc, struct ce_op *ops, size_t n, uint64_t deadline_ns)
{
    uint64_t fresh = ce_peer_next(peer);
    enum mc_status status = MC_OK;

    ce_desc_ref(desc);
    for (size_t i = 0; i < n && status == MC_OK; i++) {
        if (ops[i].status != MC_PENDING)
            continue;
        if (!ce_desc_find(desc, ops[i].remote, ops[i].len)) {
            ce_desc_unref(desc);
            status = known(peer, fresh, deadline_ns, &desc);
            if (status == MC_OK && !ce_desc_find(desc, ops[i].remote, ops[i].len))
                status = MC_ENOENT;
        }
        if (status == MC_OK)
            copy_here(&ops[i]);
        ops[i].status = status;
    }
    ce_desc_unref(desc);
    return status;
}

/* ---- in the calling thread ---- */

struct attempt {
    bool flown;  /* the peer was given something to do */
    bool change; /* what is known of it is too old */
};

/* Somebody else is known to answer already? Then nothing of the old one's is worth trying. */
static bool outdated(struct ce_peer *peer, const struct ce_desc *desc)
{
    uint8_t uuid[UUID_SIZE];
    uint32_t epoch;

    return te_peer_uuid(peer->te_peer, uuid, &epoch) &&
           (epoch != desc->epoch || memcmp(uuid, desc->uuid, UUID_SIZE) != 0);
}

/* MC_OK: all done. MC_PENDING: the rest is for the loop. Otherwise: hopeless. */
static enum mc_status try_here(struct ce_peer *peer, const struct ce_desc *desc, struct ce_op *ops, size_t n,
    uint64_t deadline_ns, struct attempt *attempt)
{
    struct ce_build build;
    enum mc_status status = MC_OK;
    size_t at = 0;

    if (outdated(peer, desc)) {
        attempt->change = true;
        return MC_PENDING;
    }
    ce_build_init(&build);
    for (;;) {
        uint32_t left = deadline_to_wire(deadline_ns, now_ns());

        status = ce_build_take(&build, desc, ops, n, &at);
        if (status != MC_OK || build.count == 0)
            break;
        status = mc_transfer_sync(peer->te_peer, build.ops, build.count, left);
        for (uint32_t i = 0; i < build.count; i++)
            attempt->flown |= build.ops[i].status != MC_PENDING;
        status = ce_build_settle(&build, status, ops);
        if (status != MC_OK)
            break;
    }
    ce_build_fini(&build);
    attempt->change = status == MC_ENOENT && attempt->flown;
    return status == MC_ENOENT || status == MC_EPEERDOWN || status == MC_AGAIN ? MC_PENDING : status;
}

static enum mc_status carry(struct ce_peer *peer, struct ce_desc *desc, struct ce_op *ops, size_t n,
    const struct ce_note *note, uint64_t deadline_ns)
{
    struct attempt attempt = {0};
    struct ce_call call;
    enum mc_status status;

    if (is_self(peer->engine, desc))
        status = self_transfer(peer, desc, ops, n, deadline_ns);
    else
        status = try_here(peer, desc, ops, n, deadline_ns, &attempt);
    if (status == MC_PENDING || (status == MC_OK && note)) {
        ce_call_init(&call, peer, ops, n, deadline_ns);
        if (attempt.flown)
            call.met = ce_desc_ref(desc);
        if (attempt.change)
            call.want = call.fresh;
        call.note = note_of(note);
        ce_call_start(&call);
        status = ce_call_end_wait(&call, DEADLINE_NONE);
    }
    return status;
}

enum mc_status ce_transfer(
    struct ce_engine *engine, const char *target, struct ce_op *ops, size_t n, const struct ce_note *note)
{
    struct ce_desc *desc;
    struct ce_peer *peer;
    uint64_t bytes, deadline;
    enum mc_status status = ce_enter(engine);

    if (status != MC_OK)
        return status;
    status = ops_check(ops, n, &bytes);
    if (status == MC_OK)
        status = note_check(note);
    deadline = deadline_of(engine, bytes);
    if (status == MC_OK)
        status = reach(engine, target, false, deadline, &peer, &desc);
    if (status == MC_OK) {
        status = carry(peer, desc, ops, n, note, deadline);
        ce_desc_unref(desc);
        ce_peer_put(peer);
    }
    ce_leave(engine);
    return status;
}

enum mc_status ce_notify(struct ce_engine *engine, const char *target, const struct ce_note *note)
{
    return ce_transfer(engine, target, NULL, 0, note);
}

/* ---- without waiting ---- */

static enum mc_status copy_args(
    struct ce_call *call, const struct ce_op *ops, size_t n, const struct ce_note *note, uint64_t *bytes)
{
    enum mc_status status = note_check(note);

    if (status != MC_OK)
        return status;
    call->own_ops = malloc((n ? n : 1) * sizeof(*ops));
    if (!call->own_ops)
        return MC_ENOMEM;
    if (n)
        memcpy(call->own_ops, ops, n * sizeof(*ops));
    if (note) {
        call->own_note = malloc(note->name_len + note->msg_len + 1);
        if (!call->own_note)
            return MC_ENOMEM;
        memcpy(call->own_note, note->name, note->name_len);
        memcpy((char *)call->own_note + note->name_len, note->msg, note->msg_len);
    }
    return ops_check(call->own_ops, n, bytes);
}

/* With ourselves there is nothing to wait for. */
static void end_at_once(struct ce_call *call, enum mc_status status)
{
    call->status = status;
    call->finished = true;
}

static void submit_to(struct ce_call *call, struct ce_peer *peer, size_t n, const struct ce_note *note, uint64_t bytes,
    struct ce_desc *desc)
{
    struct ce_op *ops = call->own_ops;
    void *own_note = call->own_note;
    uint64_t deadline = deadline_of(peer->engine, bytes);

    ce_call_init(call, peer, ops, n, deadline);
    call->own_ops = ops;
    call->own_note = own_note;
    if (note) {
        struct ce_note own = {own_note, (char *)own_note + note->name_len, note->name_len, note->msg_len};

        call->note = note_of(&own);
    }
    if (is_self(peer->engine, desc)) {
        enum mc_status status = self_transfer(peer, desc, ops, n, deadline);

        if (status != MC_OK || !note) {
            end_at_once(call, status);
            return;
        }
    }
    ce_call_start(call);
}

enum mc_status ce_submit(struct ce_engine *engine, const char *target, const struct ce_op *ops, size_t n,
    const struct ce_note *note, struct ce_call **out)
{
    struct ce_call *call = NULL;
    struct ce_peer *peer;
    struct ce_desc *desc;
    uint64_t bytes;
    enum mc_status status = ce_enter(engine);

    if (status != MC_OK)
        return status;
    call = calloc(1, sizeof(*call));
    status = call ? copy_args(call, ops, n, note, &bytes) : MC_ENOMEM;
    if (status == MC_OK)
        status = reach(engine, target, false, deadline_after_ms(now_ns(), OPEN_MS), &peer, &desc);
    if (status == MC_OK) {
        submit_to(call, peer, n, note, bytes, desc);
        ce_desc_unref(desc);
        *out = call;
    } else {
        if (call) {
            free(call->own_ops);
            free(call->own_note);
        }
        free(call);
    }
    ce_leave(engine);
    return status;
}

enum mc_status ce_call_wait(struct ce_call *call, uint32_t timeout_ms)
{
    if (call->engine->pid != getpid())
        return MC_ENOSUP;
    return ce_call_end_wait(call, timeout_ms == UINT32_MAX ? DEADLINE_NONE : deadline_after_ms(now_ns(), timeout_ms));
}

enum mc_status ce_call_op(struct ce_call *call, size_t i)
{
    return ce_call_wait(call, 0) == MC_PENDING ? MC_PENDING : call->own_ops[i].status;
}

void ce_call_free(struct ce_call *call)
{
    if (!call || call->engine->pid != getpid())
        return;
    ce_call_fini(call);
    free(call);
}

/* ---- questions ---- */

static enum mc_status probe(struct ce_engine *engine, const char *target, uint64_t deadline_ns)
{
    struct ce_peer *peer;
    struct ce_call call;
    enum mc_status status = ce_peer_get(engine, target, &peer);

    if (status != MC_OK)
        return status;
    ce_call_init(&call, peer, NULL, 0, deadline_ns);
    call.probe = true;
    ce_call_start(&call);
    status = ce_call_end_wait(&call, DEADLINE_NONE);
    ce_peer_put(peer);
    return status;
}

enum mc_status ce_probe(struct ce_engine *engine, const char *target)
{
    uint64_t deadline = deadline_after_ms(now_ns(), OPEN_MS);
    enum mc_status status = ce_enter(engine);

    if (status != MC_OK)
        return status;
    status = probe(engine, target, deadline);
    if (status == MC_EPEERDOWN) /* a name may lead elsewhere by now */
        status = probe(engine, target, deadline);
    ce_leave(engine);
    return status;
}

static enum mc_status question(struct ce_engine *engine, const char *target, bool fresh, uint64_t *addr)
{
    struct ce_desc *desc;
    struct ce_peer *peer;
    enum mc_status status = ce_enter(engine);

    if (status != MC_OK)
        return status;
    status = reach(engine, target, fresh, deadline_after_ms(now_ns(), OPEN_MS), &peer, &desc);
    if (status == MC_OK) {
        *addr = desc->first;
        ce_desc_unref(desc);
        ce_peer_put(peer);
    }
    ce_leave(engine);
    return status;
}

enum mc_status ce_open(struct ce_engine *engine, const char *target)
{
    uint64_t ignored;

    return question(engine, target, false, &ignored);
}

enum mc_status ce_first_address(struct ce_engine *engine, const char *target, uint64_t *addr)
{
    uint64_t first;
    enum mc_status status = question(engine, target, true, &first);

    if (status == MC_OK && first == 0)
        status = MC_ENOENT;
    if (status == MC_OK)
        *addr = first;
    return status;
}
