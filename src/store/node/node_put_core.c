/* node_put_core.c - puts: allocate, bring the bytes in, hash what was stored, seal, commit, answer.
 *
 * A put ends in one of three ways: node_put_verdict() (the master has spoken, or a block is acknowledged without it), put_fail()
 * before it was sealed, or silently when its client is gone. While pulls are under way a failed put stays as
 * OBJ_ABORTING: its space is not given back before the last pull into it has ended. */
#include "store/node/node_impl.h"

#include <assert.h>
#include <stdlib.h>

#include "base/crc.h"

/* ---- life ---- */

void node_io_fini(struct io *io)
{
    if (io->pulls != io->few)
        free(io->pulls);
}

void node_put_fini(struct put *put)
{
    if (put->planes != put->planes_few)
        free(put->planes);
    if (put->crcs != put->crcs_few)
        free(put->crcs);
}

static void put_release(struct node_core *core, struct put *put)
{
    assert(list_empty(&put->ios));
    if (put->obj)
        put->obj->put = NULL;
    heap_del(&core->put_timers, &put->timer);
    list_del(&put->link);
    node_put_fini(put);
    pool_put(&core->put_pool, put);
}

static void put_answer(struct node_core *core, struct put *put, enum mc_status status)
{
    put->reply.status = status;
    if (put->peer)
        node_reply(core, put->peer, &put->reply);
    put->reply.request = 0;
}

static void io_end(struct node_core *core, struct io *io)
{
    list_del(&io->link);
    node_io_fini(io);
    pool_put(&core->io_pool, io);
}

/* Give up a put that is not sealed. Its space comes back when the last pull has ended. */
static void put_fail(
    struct node_core *core, uint64_t now, struct put *put, enum mc_status status, enum store_ledger_row row)
{
    struct obj *obj = put->obj;

    if (obj->state != OBJ_WRITING)
        return;
    put_answer(core, put, status);
    put->peer = 0;
    put->abort_row = (uint8_t)row;
    heap_del(&core->put_timers, &put->timer);
    obj->state = OBJ_ABORTING;
    list_for_each (it, &put->ios)
        core->port.pull_cancel(core->port.ctx, (uint64_t)(uintptr_t)list_entry(it, struct io, link));
    if (core->bugs.reuse_early && !list_empty(&put->ios)) {
        node_obj_free(core, now, obj, row);
        put->obj = NULL;
        return;
    }
    if (list_empty(&put->ios)) {
        node_obj_free(core, now, obj, row);
        put_release(core, put);
    }
}

static enum mc_status planes_take(struct put *put, struct slice planes)
{
    uint32_t count = (uint32_t)(planes.len / 8);

    if (count > PUT_PLANES) {
        put->planes = malloc(count * sizeof(*put->planes));
        if (!put->planes) {
            put->planes = put->planes_few;
            return MC_ENOMEM;
        }
    }
    for (uint32_t i = 0; i < count; i++)
        put->planes[i] = store_u64_at(planes, i);
    put->plan.planes = count;
    return MC_OK;
}

/* Plan, space, and the state that a put needs until its verdict. */
static enum mc_status put_prepare(struct node_core *core, uint64_t now, struct put *put, const struct store_put *m)
{
    struct store_key key = m->key;
    enum mc_status status = planes_take(put, m->meta.planes);

    if (status == MC_OK)
        status = object_plan(&key, m->length, put->planes, put->plan.planes, &put->plan);
    if (status != MC_OK)
        return status;
    if (put->plan.chunks > PUT_CHUNKS) {
        put->crcs = malloc(put->plan.chunks * sizeof(*put->crcs));
        if (!put->crcs) {
            put->crcs = put->crcs_few;
            return MC_ENOMEM;
        }
    }
    if (key.name.len) {
        memcpy(put->name, key.name.ptr, key.name.len);
        key.name.ptr = put->name;
    }
    status = node_obj_create(core, now, &key, m->meta.parent, &put->plan, &put->obj);
    if (status != MC_OK)
        return status;
    put->obj->put = put;
    put->obj->entry_flags = m->flags & (STORE_REPLACE | STORE_REPLICA);
    put->obj->version = m->flags & STORE_REPLICA ? m->version : 0;
    put->obj->soft_pin = m->meta.flags & MC_OBJ_SOFT_PIN;
    put->obj->hard_pin = m->meta.flags & MC_OBJ_HARD_PIN;
    put->header = (struct object_header){
        .key = key,
        .generation = put->obj->generation,
        .flags = m->meta.flags & OBJECT_FLAGS_PUBLIC,
        .depth = m->meta.depth,
        .tokens = m->meta.tokens,
        .geometry = m->meta.geometry,
    };
    memcpy(put->header.parent, m->meta.parent, 16);
    return MC_OK;
}

/* NULL and *status: it was not begun. */
static struct put *put_begin(
    struct node_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg, enum mc_status *status)
{
    struct put *put;

    *status = core->draining ? MC_EBUSY : MC_AGAIN;
    if (core->draining || heap_reserve(&core->put_timers, 1) != MC_OK)
        return NULL;
    put = pool_get(&core->put_pool);
    if (!put)
        return NULL;
    memset(put, 0, offsetof(struct put, planes_few));
    put->planes = put->planes_few;
    put->crcs = put->crcs_few;
    put->done = put->done_few;
    put->peer = peer;
    put->reply = store_msg_reply(msg, MC_OK);
    put->deadline = msg->deadline_ms == DEADLINE_MS_NONE ? DEADLINE_NONE : deadline_after_ms(now, msg->deadline_ms);
    list_init(&put->ios);
    list_push_back(&core->puts, &put->link);
    *status = put_prepare(core, now, put, &msg->put);
    if (*status != MC_OK) {
        put_release(core, put);
        return NULL;
    }
    return put;
}

/* ---- bringing bytes in ---- */

/* Cut [offset, offset + length) of the object, which comes from `spans`, into pieces that cross neither a span nor a chunk. */
static enum mc_status io_pieces(struct io *io, struct put *put, struct slice spans)
{
    struct object_walk walk = {0};
    uint32_t span_index = 0, max = PUT_PULLS;
    struct store_span span = {0};
    uint64_t in_span = 0, at = io->offset, end = io->offset + io->length;
    bool chunk = object_walk_next(&put->plan, &walk);

    while (at < end) {
        while (chunk && walk.offset + walk.length <= at)
            chunk = object_walk_next(&put->plan, &walk);
        while (in_span == span.length) {
            if (span_index == store_span_count(spans))
                return MC_EINVAL; /* shorter than it said */
            span = store_span_at(spans, span_index);
            memcpy(io->regions[span_index++], span.region, STORE_REGION_KEY);
            in_span = 0;
        }
        if (io->count == max) {
            struct store_pull *more = realloc(io->pulls == io->few ? NULL : io->pulls, 2 * max * sizeof(*more));

            if (!more)
                return MC_ENOMEM;
            if (io->pulls == io->few)
                memcpy(more, io->few, sizeof(io->few));
            io->pulls = more;
            max *= 2;
        }

        uint64_t len = walk.offset + walk.length - at;

        if (len > end - at)
            len = end - at;
        if (len > span.length - in_span)
            len = span.length - in_span;
        io->pulls[io->count++] = (struct store_pull){
            .region = io->regions[span_index - 1],
            .offset = span.offset + in_span,
            .len = len,
            .dst = put->obj->at + put->plan.header_len + at,
        };
        in_span += len;
        at += len;
    }
    return MC_OK;
}

static enum mc_status pull_begin(struct node_core *core, struct put *put, uint64_t offset, uint64_t length,
    struct slice spans, const struct store_msg *reply)
{
    struct io *io = pool_get(&core->io_pool);
    enum mc_status status;

    if (!io)
        return MC_AGAIN;
    memset(io, 0, offsetof(struct io, few));
    io->put = put;
    io->pulls = io->few;
    io->offset = offset;
    io->length = length;
    if (reply)
        io->reply = *reply;
    list_push_back(&put->ios, &io->link);
    status = io_pieces(io, put, spans);
    if (status == MC_OK)
        status = core->port.pull(core->port.ctx, (uint64_t)(uintptr_t)io, put->peer, io->pulls, io->count);
    if (status != MC_OK)
        io_end(core, io);
    return status;
}

/* Checksums of the chunks from those of the pieces. */
static void crcs_of_pieces(struct put *put, const struct io *io)
{
    struct object_walk walk = {0};
    uint32_t piece = 0;

    while (object_walk_next(&put->plan, &walk)) {
        uint64_t have = 0;
        uint32_t crc = 0;

        for (; have < walk.length; piece++) {
            const struct store_pull *p = &io->pulls[piece];

            crc = have ? crc32c_combine(crc, p->crc, p->len) : p->crc;
            have += p->len;
        }
        put->crcs[walk.index] = crc;
    }
}

static void copy_inline(struct put *put, struct slice data)
{
    struct object_walk walk = {0};
    uint8_t *payload = put->obj->at + put->plan.header_len;

    while (object_walk_next(&put->plan, &walk))
        put->crcs[walk.index] = crc32c_copy(0, payload + walk.offset, data.ptr + walk.offset, walk.length);
}

/* ---- sealed ---- */

void node_put_verdict(struct node_core *core, struct obj *obj, enum mc_status status, bool existed, uint64_t version)
{
    struct put *put = obj->put;

    if (!put)
        return;
    put->reply.put_reply = (struct store_put_reply){
        .existed = existed,
        .unindexed = status == MC_OK && obj->state == OBJ_UNINDEXED,
        .version = version,
        .has_loc = !existed,
        .loc = {.segment = obj->segment,
            .head = obj->header_len,
            .offset = obj->offset,
            .length = obj->length,
            .generation = obj->generation,
            .version = version},
    };
    if (status == MC_OK && !obj->bundle) /* those of a bundle count when it is kept */
        core->puts_done++;
    put_answer(core, put, status);
    put_release(core, put);
}

/* Everything is in place and hashed. */
static void put_seal(struct node_core *core, uint64_t now, struct put *put)
{
    struct obj *obj = put->obj, *there;

    put->header.created_ms = core->limits.wall_ms + now / NS_PER_MS;
    object_seal(obj->at, &put->plan, &put->header, put->crcs);
    there = obj->key.kind == MC_KEY_BLOCK ? node_obj_find(core, &obj->key) : NULL;
    if (there) { /* another put of the same block was faster */
        put->reply.put_reply = (struct store_put_reply){.existed = true, .unindexed = there->state == OBJ_UNINDEXED};
        put_answer(core, put, MC_OK);
        node_obj_free(core, now, obj, LEDGER_ABORTED_LOST);
        put_release(core, put);
        return;
    }
    node_obj_sealed(core, obj);
    if (put->bundle && !core->bugs.show_early) {
        node_bundle_take(core, now, obj, put->peer, put->bundle);
        return;
    }
    heap_del(&core->put_timers, &put->timer);
    heap_add(&core->put_timers, &put->timer,
        obj->key.kind == MC_KEY_BLOCK ? deadline_min(put->deadline, now + core->limits.commit_wait_ms * NS_PER_MS)
                                      : put->deadline);
    node_commit_queue(core, obj);
    if (core->bugs.ack_early) {
        node_put_verdict(core, obj, MC_OK, false, 0);
        return;
    }
    if (!core->master_up && obj->key.kind == MC_KEY_NAMED) {
        node_put_verdict(core, obj, MC_EPEERDOWN, false, 0);
        node_obj_free(core, now, obj, LEDGER_ABORTED_MASTER);
    } else if (!core->master_up) {
        list_del(&obj->link);
        obj->state = OBJ_UNINDEXED;
        core->unindexed++;
        node_put_verdict(core, obj, MC_OK, false, 0);
        node_obj_present(core, now, obj);
    }
    node_wake_at(core, now);
}

/* ---- a put in one message ---- */

static bool is_there(struct node_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg)
{
    struct obj *obj = msg->put.flags & (STORE_REPLACE | STORE_REPLICA) ? NULL : node_obj_find(core, &msg->put.key);
    struct store_msg reply = store_msg_reply(msg, MC_OK);

    if (!obj)
        return false;
    node_objs_used(core, now, &obj, 1);
    reply.put_reply =
        (struct store_put_reply){.existed = true, .unindexed = obj->state == OBJ_UNINDEXED, .version = obj->version};
    node_reply(core, peer, &reply);
    return true;
}

static uint64_t spans_length(struct slice spans)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < store_span_count(spans); i++) {
        uint64_t len = store_span_at(spans, i).length;

        if (len > MC_OBJECT_MAX)
            return UINT64_MAX;
        sum += len;
    }
    return sum;
}

void node_on_put(struct node_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg)
{
    const struct store_put *m = &msg->put;
    struct store_msg refusal = store_msg_reply(msg, MC_EINVAL);
    struct put *put;

    if (!m->bundle && is_there(core, now, peer, msg)) /* of a bundle the master says, in one step for all */
        return;
    if (m->spans.len ? m->data.len || spans_length(m->spans) != m->length : m->data.len != m->length) {
        node_reply(core, peer, &refusal);
        return;
    }
    put = put_begin(core, now, peer, msg, &refusal.status);
    if (!put) {
        node_reply(core, peer, &refusal);
        return;
    }
    put->bundle = m->bundle;
    heap_add(&core->put_timers, &put->timer, put->deadline);
    if (m->spans.len == 0) {
        copy_inline(put, m->data);
        put_seal(core, now, put);
        return;
    }

    enum mc_status status = pull_begin(core, put, 0, m->length, m->spans, NULL);

    if (status != MC_OK)
        put_fail(core, now, put, status, status == MC_EINVAL ? LEDGER_ABORTED_CALLER : LEDGER_ABORTED_WRITER);
}

/* ---- puts in parts ---- */

static struct put *part_find(struct node_core *core, uint32_t peer, uint64_t id)
{
    list_for_each (it, &core->puts) {
        struct put *put = list_entry(it, struct put, link);

        if (put->part && put->id == id && put->peer == peer && put->obj && put->obj->state == OBJ_WRITING)
            return put;
    }
    return NULL;
}

void node_on_part_begin(struct node_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg)
{
    struct store_msg reply = store_msg_reply(msg, MC_OK);
    struct put *put;

    if (is_there(core, now, peer, msg)) /* with part 0: there is nothing to write */
        return;
    put = put_begin(core, now, peer, msg, &reply.status);
    if (put) {
        put->part = true;
        put->id = ++core->next_part;
        put->deadline = DEADLINE_NONE;
        heap_add(&core->put_timers, &put->timer, now + core->limits.part_idle_ms * NS_PER_MS);
        reply.put_reply.part = put->id;
    }
    node_reply(core, peer, &reply);
}

/* May this range be written? Nothing is written twice. */
static enum mc_status part_check(const struct put *put, uint64_t offset, uint64_t length)
{
    uint32_t writes = 0;

    if (length == 0 || offset > put->plan.length || length > put->plan.length - offset || put->committed)
        return MC_EINVAL;
    for (uint32_t i = 0; i < put->done_count; i++)
        if (offset < put->done[i].to && put->done[i].from < offset + length)
            return MC_EINVAL;
    list_for_each (it, &put->ios) {
        const struct io *io = list_entry(it, struct io, link);

        writes++;
        if (offset < io->offset + io->length && io->offset < offset + length)
            return MC_EINVAL;
    }
    return writes < PART_WRITES_MAX && put->done_count + writes < PART_HOLES_MAX - 1 ? MC_OK : MC_AGAIN;
}

/* [from, to) is written: join it with its neighbours. part_check() has seen that there is room. */
static void part_written(struct put *put, uint64_t from, uint64_t to)
{
    uint32_t i = 0, n;

    while (i < put->done_count && put->done[i].to < from)
        i++;
    for (n = i; n < put->done_count && put->done[n].from <= to; n++) {
        from = put->done[n].from < from ? put->done[n].from : from;
        to = put->done[n].to > to ? put->done[n].to : to;
    }
    memmove(&put->done[i + 1], &put->done[n], (put->done_count - n) * sizeof(*put->done));
    put->done[i] = (struct interval){from, to};
    put->done_count += i + 1 - n;
}

/* Hash the chunks that this write made complete. */
static void part_hash(struct put *put, uint64_t from, uint64_t to)
{
    struct object_walk walk = {0};
    uint8_t *payload = put->obj->at + put->plan.header_len;

    while (object_walk_next(&put->plan, &walk)) {
        uint64_t end = walk.offset + walk.length;

        if (walk.offset >= to)
            break;
        if (end <= from)
            continue;
        for (uint32_t i = 0; i < put->done_count; i++)
            if (put->done[i].from <= walk.offset && end <= put->done[i].to)
                put->crcs[walk.index] = crc32c(0, payload + walk.offset, walk.length);
    }
}

static void part_progress(struct node_core *core, uint64_t now, struct put *put, uint64_t offset, uint64_t length)
{
    part_written(put, offset, offset + length);
    part_hash(put, offset, offset + length);
    heap_move(&core->put_timers, &put->timer, now + core->limits.part_idle_ms * NS_PER_MS);
}

void node_on_part_write(struct node_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg)
{
    const struct store_part *m = &msg->part;
    struct put *put = part_find(core, peer, m->part);
    struct store_msg reply = store_msg_reply(msg, MC_ENOENT);
    uint64_t length = m->spans.len ? spans_length(m->spans) : m->data.len;

    if (put)
        reply.status = part_check(put, m->offset, length);
    if (reply.status == MC_OK && m->spans.len) {
        reply.status = pull_begin(core, put, m->offset, length, m->spans, &reply);
        if (reply.status == MC_OK)
            return; /* answered when the bytes are here */
    } else if (reply.status == MC_OK) {
        memcpy(put->obj->at + put->plan.header_len + m->offset, m->data.ptr, length);
        part_progress(core, now, put, m->offset, length);
    }
    node_reply(core, peer, &reply);
}

void node_on_part_commit(struct node_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg)
{
    struct put *put = part_find(core, peer, msg->part.part);
    struct store_msg reply = store_msg_reply(msg, put ? MC_EINVAL : MC_ENOENT);

    if (!put) {
        node_reply(core, peer, &reply);
        return;
    }
    put->reply = reply;
    put->deadline = msg->deadline_ms == DEADLINE_MS_NONE ? DEADLINE_NONE : deadline_after_ms(now, msg->deadline_ms);
    if (put->plan.length == 0 ||
        (put->done_count == 1 && put->done[0].from == 0 && put->done[0].to == put->plan.length)) {
        put->committed = true;
        put_seal(core, now, put);
    } else {
        put_fail(core, now, put, MC_EINVAL, LEDGER_ABORTED_CALLER);
    }
}

void node_on_part_abort(struct node_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg)
{
    struct put *put = part_find(core, peer, msg->part.part);
    struct store_msg reply = store_msg_reply(msg, put ? MC_OK : MC_ENOENT);

    if (put) {
        put->reply.request = 0;
        put_fail(core, now, put, MC_ECANCELED, LEDGER_ABORTED_CALLER);
    }
    node_reply(core, peer, &reply);
}

/* ---- events ---- */

void node_core_on_io(struct node_core *core, uint64_t now, uint64_t cookie, enum mc_status status)
{
    struct io *io = (struct io *)(uintptr_t)cookie;
    struct put *put = io->put;

    if (!put->obj || put->obj->state == OBJ_ABORTING) {
        io_end(core, io);
        if (!list_empty(&put->ios))
            return;
        if (put->obj)
            node_obj_free(core, now, put->obj, put->abort_row);
        put_release(core, put);
        return;
    }
    if (put->part) {
        struct store_msg reply = io->reply;
        uint64_t offset = io->offset, length = io->length;

        io_end(core, io);
        reply.status = status;
        node_reply(core, put->peer, &reply);
        if (status == MC_OK)
            part_progress(core, now, put, offset, length);
        else
            put_fail(core, now, put, status, LEDGER_ABORTED_WRITER);
        return;
    }
    if (status == MC_OK)
        crcs_of_pieces(put, io);
    io_end(core, io);
    if (status == MC_OK)
        put_seal(core, now, put);
    else
        put_fail(core, now, put, status, status == MC_ETIMEDOUT ? LEDGER_ABORTED_DEADLINE : LEDGER_ABORTED_WRITER);
}

void node_puts_of_peer_end(struct node_core *core, uint64_t now, uint32_t peer)
{
    list_for_each_safe (it, tmp, &core->puts) {
        struct put *put = list_entry(it, struct put, link);

        if (put->peer != peer)
            continue;
        put->peer = 0;
        if (put->obj && put->obj->state == OBJ_WRITING)
            put_fail(core, now, put, MC_ECLOSED, LEDGER_ABORTED_WRITER);
    }
}

/* Deadlines of puts, idle parts, and blocks whose verdict takes long. */
void node_puts_tick(struct node_core *core, uint64_t now)
{
    struct heap_node *top;

    while ((top = heap_top(&core->put_timers)) && top->key <= now) {
        struct put *put = container_of(top, struct put, timer);
        struct obj *obj = put->obj;

        if (obj->state == OBJ_WRITING) {
            put_fail(core, now, put, MC_ETIMEDOUT, put->part ? LEDGER_ABORTED_IDLE : LEDGER_ABORTED_DEADLINE);
        } else if (obj->key.kind == MC_KEY_BLOCK) { /* stored; the verdict will be for nobody */
            put->reply.put_reply.unindexed = true;
            put_answer(core, put, MC_OK);
            put_release(core, put);
        } else {
            put_answer(core, put, MC_ETIMEDOUT);
            put_release(core, put);
            if (!obj->sent) /* else the master decides, soon, and nobody waits for it */
                node_obj_free(core, now, obj, LEDGER_ABORTED_DEADLINE);
        }
    }
}
