/* client_put_core.c - puts and puts in parts: choose a node, let it take the bytes, hear what became of them.
 *
 * A put whose outcome is not known (its node fell silent or hung up) is tried elsewhere only for blocks, where a second copy does
 * no harm. For names it could be carried out twice, the second time after somebody else's; so the caller is told that the
 * outcome is open. Refusals (full, busy, draining) are known outcomes and go on to the next node for both. A part that could not be
 * begun goes on in any case: nobody sees it before its commit. */
#include "store/client/client_impl.h"

#include <assert.h>
#include <stdlib.h>

/* ---- sources ---- */

void client_put_fini(struct client_core *core, struct client_private *p)
{
    for (uint32_t i = 0; i < p->region_count; i++)
        core->port.hide(core->port.ctx, p->regions[i]);
    p->region_count = 0;
    if (p->regions != p->regions_few)
        free(p->regions);
    p->regions = NULL;
}

/* Make the memory readable for the node: one span record for each piece, in core->scratch. */
static enum mc_status spans_expose(
    struct client_core *core, struct client_private *p, const struct mc_span *spans, uint32_t count)
{
    client_put_fini(core, p);
    p->regions = count <= PUT_REGIONS ? p->regions_few : malloc(count * sizeof(*p->regions));
    if (!p->regions)
        return MC_ENOMEM;
    buf_reset(&core->scratch);
    for (uint32_t i = 0; i < count; i++) {
        struct store_span span = {.length = spans[i].len};
        enum mc_status status;

        if (spans[i].len == 0)
            continue;
        status = core->port.expose(core->port.ctx, spans[i].addr, spans[i].len, span.region);
        if (status != MC_OK)
            return status;
        memcpy(p->regions[p->region_count++], span.region, STORE_REGION_KEY);
        store_span_put(&core->scratch, &span);
    }
    return MC_OK;
}

/* Small: in the message itself. Large: the node comes for it. */
static enum mc_status source(struct client_core *core, struct client_private *p, const struct mc_span *spans,
    uint32_t count, uint64_t length, struct slice *data, struct slice *regions)
{
    enum mc_status status;

    if (length > core->limits.inline_max) {
        status = spans_expose(core, p, spans, count);
        *regions = buf_slice(&core->scratch);
        return status;
    }
    if (count == 1) {
        *data = slice_of(spans[0].addr, length);
        return MC_OK;
    }
    buf_reset(&core->scratch);
    for (uint32_t i = 0; i < count; i++)
        buf_append(&core->scratch, spans[i].addr, spans[i].len);
    *data = buf_slice(&core->scratch);
    return buf_status(&core->scratch);
}

static void meta_fill(struct client_core *core, struct store_put *put, const struct mc_object_meta *meta)
{
    if (!meta)
        return;
    buf_reset(&core->data);
    for (uint32_t i = 0; i < meta->planes && meta->plane_bytes; i++)
        put_u64(&core->data, meta->plane_bytes[i]);
    put->meta = (struct store_meta){
        .depth = meta->depth,
        .tokens = meta->tokens,
        .geometry = meta->geometry,
        .flags = meta->flags,
        .planes = buf_slice(&core->data),
    };
    memcpy(put->meta.parent, meta->parent, 16);
}

/* ---- put ---- */

static void put_end(struct client_core *core, struct client_private *p, enum mc_status status)
{
    if (p->copies > 0)
        status = MC_OK; /* some of the wanted copies are there */
    if (status != MC_OK) {
        core->stats.puts_failed += !p->call->member_of;
    } else if (!p->call->member_of) {
        core->stats.puts++;
        core->stats.put_bytes += p->length;
    }
    client_end(core, p, status);
}

void client_tried_add(struct client_private *p, uint32_t peer)
{
    assert(p->peers_tried_count < sizeof(p->peers_tried) / sizeof(p->peers_tried[0])); /* put_again() bounds them */
    p->peers_tried[p->peers_tried_count++] = peer;
}

/* Try once more, unless it was tried often enough: another node, or after a while the same one if only a queue was full. */
static bool put_again(struct client_core *core, uint64_t now, struct client_private *p, enum mc_status why)
{
    p->last = why;
    if (++p->tries >= core->limits.attempts_max + p->copies)
        return false;
    if (why == MC_AGAIN)
        p->peers_tried_count--;
    client_retry_at(core, p, why == MC_AGAIN ? now + BACKOFF_MS * NS_PER_MS : now);
    return true;
}

/* Said by a node: nothing was stored there, and another one may have room. */
bool client_refused(enum mc_status status)
{
    return status == MC_AGAIN || status == MC_EBUSY || status == MC_ENOSPC;
}

/* The first connection to a node takes a moment, the master's word of it none: whoever finds no node, asks for one by name, or wants
 * more copies than there are connections, waits that moment. `peer`: who was chosen, 0 nobody. False: nothing to wait for. */
static bool wait_for_node(
    struct client_core *core, uint64_t now, struct client_private *p, uint32_t peer, const char *wanted)
{
    bool failed = p->copies == 0 && p->peers_tried_count > 0; /* somebody did not take it: others are no better */

    if (peer ? !wanted || !client_connecting(core, now, wanted) : failed || !client_any_connecting(core, now))
        return false;
    if (p->waiting_since && now - p->waiting_since >= WAIT_NODE_MS * NS_PER_MS)
        return false;
    p->waiting_since = p->waiting_since ? p->waiting_since : now;
    client_retry_at(core, p, now + BACKOFF_MS * NS_PER_MS);
    return true;
}

/* Why no node took it. */
static enum mc_status last_of(const struct client_private *p)
{
    return p->last == MC_OK ? MC_EPEERDOWN : p->last == MC_AGAIN ? MC_EBUSY : p->last;
}

static void put_stored(
    struct client_core *core, uint64_t now, struct client_private *p, uint32_t peer, const struct store_msg *msg)
{
    const struct store_put_reply *r = &msg->put_reply;
    struct mc_store_op *op = p->call->op;
    const struct place place = {
        .offset = r->loc.offset,
        .length = r->loc.length,
        .generation = r->loc.generation,
        .version = r->version,
        .epoch = core->peers[peer].member.epoch,
        .segment = r->loc.segment,
        .head = r->loc.head,
        .peer = (uint16_t)peer,
    };

    if (p->call->member_of) {
        client_bundle_kept(core, p, &place);
        return;
    }
    if (r->has_loc)
        client_cache_place(core, &p->key, &place);
    if (p->copies++ == 0) {
        op->result.existed = r->existed;
        op->result.unindexed = r->unindexed;
        op->result.length = p->length;
        op->result.version = r->version;
        memcpy(op->result.node, core->peers[peer].member.uuid, 16);
    }
    if (op->meta && p->copies < op->meta->replicas && !(r->existed && p->key.kind == MC_KEY_NAMED))
        client_put_run(core, now, p);
    else
        put_end(core, p, MC_OK);
}

static void on_put(
    struct client_core *core, uint64_t now, struct request *request, enum mc_status status, const struct store_msg *msg)
{
    struct client_private *p = container_of(request, struct client_private, request);
    bool elsewhere = msg ? client_refused(status) : p->key.kind == MC_KEY_BLOCK;

    if (p->call->member_of) /* all go elsewhere, or none */
        elsewhere = msg && status == MC_AGAIN;
    client_put_fini(core, p); /* nobody reads our memory any more, whatever came of it */
    if (msg && status == MC_OK) {
        put_stored(core, now, p, request->peer, msg);
        return;
    }
    if (elsewhere && put_again(core, now, p, status))
        core->stats.failovers += !msg;
    else
        put_end(core, p, status == MC_AGAIN ? MC_EBUSY : status);
}

void client_put_run(struct client_core *core, uint64_t now, struct client_private *p)
{
    const struct mc_store_op *op = p->call->op;
    struct put_bundle *bundle = p->call->member_of;
    const struct client_private *first = bundle ? bundle->p : p; /* who counts copies and nodes */
    const char *wanted = op->meta && first->copies == 0 && first->peers_tried_count == 0 ? op->meta->node : NULL;
    uint32_t peer = bundle ? client_bundle_peer(core, now, bundle, wanted) : client_choose(core, now, p, wanted);
    struct store_msg msg = {.type = MSG_NODE_PUT};
    enum mc_status status;

    if (wait_for_node(core, now, p, peer, wanted))
        return;
    if (peer == 0) {
        put_end(core, p, last_of(p));
        return;
    }
    p->length = 0;
    for (uint32_t i = 0; i < op->nspans; i++)
        p->length += op->spans[i].len;
    msg.put = (struct store_put){.key = p->key, .length = p->length, .bundle = bundle ? bundle->number : 0};
    if (first->copies && p->key.kind == MC_KEY_NAMED) {
        msg.put.flags = STORE_REPLICA;
        msg.put.version = op->result.version;
    } else if (op->opcode == MC_UPSERT) {
        msg.put.flags = STORE_REPLACE;
    }
    meta_fill(core, &msg.put, op->meta);
    status = source(core, p, op->spans, op->nspans, p->length, &msg.put.data, &msg.put.spans);
    if (status != MC_OK) {
        put_end(core, p, status);
        return;
    }
    client_tried_add(p, peer);
    if (bundle)
        client_bundle_taken(bundle, peer);
    p->stage = STAGE_ASK;
    status = client_ask(core, now, peer, &p->request, &msg, p->call->deadline_ns, on_put);
    if (status == MC_OK) {
        p->request.quick = msg.put.spans.len == 0;
        return;
    }
    client_put_fini(core, p);
    if (!put_again(core, now, p, status))
        put_end(core, p, status == MC_AGAIN ? MC_EBUSY : MC_EPEERDOWN);
}

/* ---- parts ---- */

static struct part *part_find(struct client_core *core, uint64_t handle)
{
    list_for_each (it, &core->parts)
        if (list_entry(it, struct part, link)->handle == handle)
            return list_entry(it, struct part, link);
    return NULL;
}

static void part_free(struct client_core *core, struct part *part)
{
    list_del(&part->link);
    pool_put(&core->part_pool, part);
}

static void part_write_more(struct client_core *core, uint64_t now, struct client_private *p, struct part *part);

static void part_begun(struct client_core *core, uint64_t now, struct client_private *p, uint32_t peer,
    const struct store_put_reply *reply)
{
    struct part *part = pool_get_zero(&core->part_pool);

    if (!part) {
        client_end(core, p, MC_EBUSY);
        return;
    }
    part->handle = ++core->next_part;
    part->part = reply->part;
    part->existed = reply->existed;
    part->version = reply->version;
    part->peer = peer;
    part->epoch = core->peers[peer].member.epoch;
    part->key = p->key;
    part->key.name = (struct slice){0};
    list_push_back(&core->parts, &part->link);
    p->call->part.handle = part->handle;
    client_end(core, p, MC_OK);
}

static void on_part_begin(
    struct client_core *core, uint64_t now, struct request *request, enum mc_status status, const struct store_msg *msg)
{
    struct client_private *p = container_of(request, struct client_private, request);

    if (msg && status == MC_OK)
        part_begun(core, now, p, request->peer, &msg->put_reply);
    else if ((msg && !client_refused(status)) || !put_again(core, now, p, status))
        client_end(core, p, status == MC_AGAIN ? MC_EBUSY : status);
}

static void on_part(
    struct client_core *core, uint64_t now, struct request *request, enum mc_status status, const struct store_msg *msg)
{
    struct client_private *p = container_of(request, struct client_private, request);
    struct client_call *call = p->call;
    struct part *part = part_find(core, call->part.handle);

    client_put_fini(core, p);
    if (call->kind == CALL_PART_WRITE) {
        if (status == MC_AGAIN)
            client_retry_at(core, p, now + BACKOFF_MS * NS_PER_MS);
        else if (status != MC_OK || !part)
            client_end(core, p, status != MC_OK ? status : MC_ENOENT);
        else
            part_write_more(core, now, p, part);
        return;
    }
    if (msg && status == MC_OK) {
        call->part.result.existed = msg->put_reply.existed;
        call->part.result.unindexed = msg->put_reply.unindexed;
        call->part.result.version = msg->put_reply.version;
        call->part.result.length = msg->put_reply.loc.length;
        memcpy(call->part.result.node, core->peers[request->peer].member.uuid, 16);
        core->stats.puts++;
    } else {
        core->stats.puts_failed++;
    }
    call->part.result.status = status;
    if (part)
        part_free(core, part);
    client_end(core, p, status);
}

static void part_write_more(struct client_core *core, uint64_t now, struct client_private *p, struct part *part)
{
    struct client_call *call = p->call;
    uint64_t left = call->part.length - p->written;
    struct mc_span span = {(uint8_t *)(uintptr_t)call->part.data + p->written, left};
    struct store_msg msg = {.type = MSG_PART_WRITE};
    enum mc_status status;

    if (left == 0) {
        client_end(core, p, MC_OK);
        return;
    }
    if (span.len > STORE_PART_WRITE_MAX)
        span.len = STORE_PART_WRITE_MAX;
    msg.part = (struct store_part){.part = part->part, .offset = call->part.offset + p->written};
    status = source(core, p, &span, 1, span.len, &msg.part.data, &msg.part.spans);
    if (status == MC_OK)
        status = client_ask(core, now, part->peer, &p->request, &msg, call->deadline_ns, on_part);
    if (status == MC_OK) {
        p->request.quick = msg.part.spans.len == 0;
        p->stage = STAGE_ASK;
        p->written += span.len;
    } else if (status == MC_AGAIN) {
        client_retry_at(core, p, now + BACKOFF_MS * NS_PER_MS);
    } else {
        client_end(core, p, status);
    }
}

static void part_begin(struct client_core *core, uint64_t now, struct client_private *p)
{
    const struct mc_object_meta *meta = p->call->part.meta;
    const char *wanted = meta && p->peers_tried_count == 0 ? meta->node : NULL;
    uint32_t peer = client_choose(core, now, p, wanted);
    struct store_msg msg = {.type = MSG_PART_BEGIN};
    enum mc_status status;

    if (wait_for_node(core, now, p, peer, wanted))
        return;
    if (peer == 0) {
        client_end(core, p, last_of(p));
        return;
    }
    msg.put = (struct store_put){.key = p->key, .length = p->call->part.length};
    meta_fill(core, &msg.put, meta);
    client_tried_add(p, peer);
    p->stage = STAGE_ASK;
    status = client_ask(core, now, peer, &p->request, &msg, p->call->deadline_ns, on_part_begin);
    if (status != MC_OK && !put_again(core, now, p, status))
        client_end(core, p, status == MC_AGAIN ? MC_EBUSY : MC_EPEERDOWN);
}

void client_part_run(struct client_core *core, uint64_t now, struct client_private *p)
{
    struct client_call *call = p->call;
    struct part *part = call->kind == CALL_PART_BEGIN ? NULL : part_find(core, call->part.handle);
    struct store_msg msg = {.type = MSG_PART_COMMIT};
    enum mc_status status;

    if (call->kind == CALL_PART_BEGIN) {
        part_begin(core, now, p);
    } else if (!part) {
        client_end(core, p, MC_ENOENT);
    } else if (part->existed) { /* somebody has stored it: there is nothing to write */
        call->part.result = (struct mc_store_result){.existed = true, .version = part->version};
        if (call->kind == CALL_PART_COMMIT)
            part_free(core, part);
        client_end(core, p, MC_OK);
    } else if (core->peers[part->peer].health != PEER_OK || core->peers[part->peer].member.epoch != part->epoch) {
        client_end(core, p, MC_EPEERDOWN);
    } else if (call->kind == CALL_PART_WRITE) {
        part_write_more(core, now, p, part);
    } else {
        msg.part.part = part->part;
        p->stage = STAGE_ASK;
        status = client_ask(core, now, part->peer, &p->request, &msg, call->deadline_ns, on_part);
        if (status == MC_AGAIN)
            client_retry_at(core, p, now + BACKOFF_MS * NS_PER_MS);
        else if (status != MC_OK)
            client_end(core, p, MC_EPEERDOWN);
    }
}

void client_core_part_abort(struct client_core *core, uint64_t now, uint64_t handle)
{
    struct part *part = part_find(core, handle);
    struct store_msg msg = {.type = MSG_PART_ABORT, .deadline_ms = DEADLINE_MS_NONE};

    if (!part)
        return;
    msg.part.part = part->part;
    if (!part->existed)
        core->port.send(core->port.ctx, part->peer, &msg); /* not sent: it ends by idling there */
    part_free(core, part);
}
