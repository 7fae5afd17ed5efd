/* client_bundle_core.c - bundles: puts of names that are seen together, or not at all.
 *
 *   choose a node -> put all there, kept back under one number -> NODE_BUNDLE names them -> verdicts
 *        ^-- no room, or the node is gone: give it up there and put all of them elsewhere --|
 *
 * Members are ordinary puts, which the core itself starts, BUNDLE_PUTS at a time. Until NODE_BUNDLE is said nothing has happened that
 * anybody could see, so any failure is a known outcome; afterwards an answer that does not come leaves it open, as with any put of a
 * name. Further copies are bundles of replicas at other nodes: whoever has lost the first owner finds all of it or nothing at the next. */
#include "store/client/client_impl.h"

#include <stdlib.h>

/* ---- the node ---- */

uint32_t client_bundle_peer(struct client_core *core, uint64_t now, struct put_bundle *bundle, const char *wanted)
{
    if (!bundle->peer)
        return client_choose(core, now, bundle->p, wanted);
    return client_peer_usable(core, bundle->peer) ? bundle->peer : 0;
}

void client_bundle_taken(struct put_bundle *bundle, uint32_t peer)
{
    if (bundle->peer)
        return;
    bundle->peer = peer;
    client_tried_add(bundle->p, peer);
}

/* What is kept back there is not wanted. Not sent: it ends by idling there. */
static void give_up(struct client_core *core, struct put_bundle *bundle)
{
    struct store_msg msg = {
        .type = MSG_NODE_BUNDLE, .deadline_ms = DEADLINE_MS_NONE, .bundle = {.number = bundle->number}};

    if (bundle->peer && core->peers[bundle->peer].health != PEER_GONE)
        core->port.send(core->port.ctx, bundle->peer, &msg);
}

static void begin(struct client_core *core, struct put_bundle *bundle)
{
    bundle->number = ++core->next_token;
    bundle->peer = bundle->next = 0;
    bundle->failed = MC_OK;
    for (uint32_t i = 0; i < bundle->p->call->bundle_of.n; i++)
        bundle->members[i].kept = false;
}

/* ---- members ---- */

void client_bundle_kept(struct client_core *core, struct client_private *p, const struct place *place)
{
    struct bundle_member *member = container_of(p->call, struct bundle_member, call);
    struct mc_store_result *r = &p->call->op->result;

    member->place = *place;
    member->kept = true;
    r->length = p->length;
    memcpy(r->node, core->peers[place->peer].member.uuid, 16);
    client_end(core, p, MC_OK);
}

void client_bundle_ended(struct client_core *core, struct client_call *call)
{
    struct put_bundle *bundle = call->member_of;

    bundle->running--;
    if (bundle->failed == MC_OK)
        bundle->failed = call->status;
    if (bundle->ending || list_linked(&bundle->p->queue))
        return;
    list_push_back(&core->runnable, &bundle->p->queue);
    client_wake_at(core, 0);
}

/* False: not now. */
static bool member_start(struct client_core *core, uint64_t now, struct put_bundle *bundle)
{
    const struct client_call *call = bundle->p->call;
    struct client_call *member = &bundle->members[bundle->next].call;
    struct mc_store_op *op = &call->bundle_of.ops[bundle->next];
    struct mc_store_result had = op->result;
    enum mc_status status;

    if (bundle->p->copies && had.existed) { /* its copies are somebody else's business */
        bundle->next++;
        return true;
    }
    *member = (struct client_call){.kind = CALL_OP, .deadline_ns = call->deadline_ns, .op = op, .member_of = bundle};
    memcpy(member->trace, call->trace, TRACE_SIZE);
    status = client_core_start(core, now, member);
    if (status == MC_AGAIN)
        return false;
    if (bundle->p->copies)
        op->result = had;
    if (status == MC_OK)
        bundle->running++;
    else
        bundle->failed = status;
    bundle->next++;
    return true;
}

/* ---- the call ---- */

static void end(struct client_core *core, struct client_private *p, enum mc_status status)
{
    uint32_t n = p->call->bundle_of.n;

    if (p->copies)
        status = MC_OK; /* some of the wanted copies are there */
    core->stats.puts += status == MC_OK ? n : 0;
    core->stats.puts_failed += status == MC_OK ? 0 : n;
    for (uint32_t i = 0; status == MC_OK && i < n; i++) {
        p->call->bundle_of.ops[i].result.status = MC_OK;
        core->stats.put_bytes += p->call->bundle_of.ops[i].result.length;
    }
    client_end(core, p, status);
}

/* Nothing of this try is or will be seen: somewhere else? */
static void failed(struct client_core *core, uint64_t now, struct client_private *p, enum mc_status why)
{
    struct put_bundle *bundle = p->bundle;
    bool elsewhere = bundle->peer && (client_refused(why) || why == MC_EPEERDOWN);

    if (!bundle->peer && p->last != MC_OK)
        why = p->last; /* there is nobody else */
    if (!elsewhere || ++p->tries >= core->limits.attempts_max + p->copies) {
        end(core, p, why);
        return;
    }
    p->last = why;
    core->stats.failovers++;
    give_up(core, bundle);
    begin(core, bundle);
    client_retry_at(core, p, now);
}

static void kept(struct client_core *core, uint64_t now, struct client_private *p, struct slice verdicts)
{
    struct put_bundle *bundle = p->bundle;
    const struct mc_object_meta *meta = p->call->bundle_of.ops[0].meta;
    uint32_t at = 0;

    for (uint32_t i = 0; i < p->call->bundle_of.n; i++) {
        struct bundle_member *member = &bundle->members[i];
        struct mc_store_op *op = &p->call->bundle_of.ops[i];
        struct store_verdict verdict;
        struct store_key key;

        if (!member->kept)
            continue;
        verdict = store_verdict_at(verdicts, at++);
        member->place.version = op->result.version = verdict.version;
        op->result.existed = verdict.status == MC_EEXIST;
        if (verdict.status == MC_OK && store_key_from(core->limits.ns, &op->key, &key) == MC_OK)
            client_cache_place(core, &key, &member->place);
    }
    if (++p->copies >= (meta && meta->replicas ? meta->replicas : 1)) {
        bundle->peer = 0; /* there is nothing to give up */
        end(core, p, MC_OK);
        return;
    }
    begin(core, bundle);
    client_retry_at(core, p, now);
}

static enum mc_status first_failure(struct slice verdicts, uint32_t count)
{
    if (store_verdict_count(verdicts) != count)
        return MC_EPROTO;
    for (uint32_t i = 0; i < count; i++) {
        enum mc_status status = store_verdict_at(verdicts, i).status;

        if (status != MC_OK && status != MC_EEXIST)
            return status == MC_EBUSY ? MC_ENOSPC : status; /* the master has no room */
    }
    return MC_OK;
}

static uint32_t kept_count(const struct client_private *p)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < p->call->bundle_of.n; i++)
        count += p->bundle->members[i].kept;
    return count;
}

static void on_bundle(
    struct client_core *core, uint64_t now, struct request *request, enum mc_status status, const struct store_msg *msg)
{
    struct client_private *p = container_of(request, struct client_private, request);

    if (!msg) { /* it may have happened */
        end(core, p, status);
        return;
    }
    if (status == MC_OK)
        status = first_failure(msg->verdicts, kept_count(p));
    if (status == MC_OK)
        kept(core, now, p, msg->verdicts);
    else if (status == MC_EPEERDOWN) /* it has lost its master, who may have taken them before */
        end(core, p, status);
    else
        failed(core, now, p, status == MC_ENOENT ? MC_EBUSY : status); /* it had dropped them: we took too long */
}

static void commit(struct client_core *core, uint64_t now, struct client_private *p)
{
    struct put_bundle *bundle = p->bundle;
    struct store_msg msg = {.type = MSG_NODE_BUNDLE, .bundle = {.number = bundle->number}};
    enum mc_status status;

    buf_reset(&core->scratch);
    for (uint32_t i = 0; i < p->call->bundle_of.n; i++)
        if (bundle->members[i].kept)
            put_u64(&core->scratch, bundle->members[i].place.generation);
    if (core->scratch.len == 0) { /* all of them were there, and more copies of them are not ours to make */
        end(core, p, MC_OK);
        return;
    }
    msg.bundle.generations = buf_slice(&core->scratch);
    p->stage = STAGE_ASK;
    status = client_ask(core, now, bundle->peer, &p->request, &msg, p->call->deadline_ns, on_bundle);
    if (status == MC_AGAIN)
        client_retry_at(core, p, now + BACKOFF_MS * NS_PER_MS);
    else if (status != MC_OK)
        failed(core, now, p, MC_EPEERDOWN);
}

void client_bundle_run(struct client_core *core, uint64_t now, struct client_private *p)
{
    struct put_bundle *bundle = p->bundle;
    uint32_t n = p->call->bundle_of.n;
    bool more = true;

    if (!bundle) {
        bundle = p->bundle = calloc(1, sizeof(*bundle) + n * sizeof(*bundle->members));
        if (!bundle) {
            client_end(core, p, MC_ENOMEM);
            return;
        }
        bundle->p = p;
        begin(core, bundle);
    }
    while (more && bundle->failed == MC_OK && bundle->running < BUNDLE_PUTS && bundle->next < n)
        more = member_start(core, now, bundle);
    if (bundle->running)
        return; /* the end of each runs this again */
    if (bundle->failed != MC_OK)
        failed(core, now, p, bundle->failed);
    else if (bundle->next < n)
        client_retry_at(core, p, now + BACKOFF_MS * NS_PER_MS);
    else
        commit(core, now, p);
}

void client_bundle_fini(struct client_core *core, struct client_private *p)
{
    struct put_bundle *bundle = p->bundle;

    if (!bundle)
        return;
    bundle->ending = true;
    for (uint32_t i = 0; i < bundle->next; i++)
        if (bundle->members[i].call.priv)
            client_end(core, bundle->members[i].call.priv, MC_ECANCELED);
    give_up(core, bundle);
    p->bundle = NULL;
    free(bundle);
}
