/* node_master_core.c - what a node and its master say to each other: registration, inventory, commits, drops, promises.
 *
 * Order on the control connection: register, its answer, inventory to its last part, then commits and what is gone. So the
 * master can take an inventory for complete, and whatever was under way when a connection was lost is said again. */
#include "store/node/node_impl.h"

#include "base/hash.h"

static void entry_put(struct buf *list, const struct obj *obj)
{
    struct store_entry entry = {
        .key = obj->key,
        .generation = obj->generation,
        .version = obj->version,
        .offset = obj->offset,
        .length = obj->length,
        .segment = obj->segment,
        .head = obj->header_len,
        .flags = obj->entry_flags | (obj->soft_pin ? STORE_SOFT_PIN : 0),
    };

    store_entry_put(list, &entry);
}

/* ---- registration and inventory ---- */

static void say_register(struct node_core *core, uint64_t now)
{
    struct store_msg msg = {
        .type = MSG_NODE_REGISTER, .request = ++core->next_request, .deadline_ms = REGISTER_RETRY_MS};
    struct store_beat beat;

    node_core_beat(core, &beat);
    msg.reg.self = core->self;
    msg.reg.self.used = beat.used;
    msg.reg.self.objects = beat.objects;
    msg.reg.term_max = core->term_max;
    core->register_request = msg.request;
    core->registered = core->reporting = false;
    core->port.send(core->port.ctx, STORE_PEER_MASTER, &msg);
    core->register_at = now + REGISTER_RETRY_MS * NS_PER_MS; /* until it is answered */
    node_wake_at(core, core->register_at);
}

static void on_welcome(struct node_core *core, uint64_t now, const struct store_msg *msg)
{
    if (msg->request != core->register_request)
        return;
    if (msg->status != MC_OK) {
        node_log(core, LOG_LEVEL_WARN, "the master refuses this node: %s", mc_status_str(msg->status));
        return; /* tried again at register_at */
    }
    core->registered = core->reporting = true;
    core->register_at = DEADLINE_NONE;
    core->master_instance = msg->welcome.instance;
    core->report_slot = 0;
    core->report_round++;
    if (msg->welcome.term > core->term_max)
        core->term_max = msg->welcome.term;
    node_wake_at(core, now);
}

static uint32_t report_obj(struct node_core *core, const struct obj *obj)
{
    entry_put(&core->out, obj);
    return 1;
}

/* All of it in one message, so that the master never knows a part. */
static uint32_t report_bundle(struct node_core *core, struct bundle *bundle)
{
    if (bundle->round == core->report_round)
        return 0;
    bundle->round = core->report_round;
    list_for_each (it, &bundle->objs)
        report_obj(core, list_entry(it, struct obj, mate));
    return bundle->count;
}

/* Say the next part of the inventory. False: not now. */
static bool report(struct node_core *core, uint64_t now)
{
    struct store_msg msg = {
        .type = MSG_NODE_INVENTORY, .request = core->next_request + 1, .deadline_ms = DEADLINE_MS_NONE};
    uint32_t slot = core->report_slot, n = 0;

    buf_reset(&core->out);
    for (; slot < core->slots && n < INVENTORY_BATCH; slot++) {
        const struct obj *obj = node_obj_at(core, slot);

        if (obj->state == OBJ_PRESENT)
            n += obj->bundle ? report_bundle(core, obj->bundle) : report_obj(core, obj);
    }
    msg.commit = (struct store_commit){.entries = buf_slice(&core->out), .last = slot == core->slots};
    if (core->port.send(core->port.ctx, STORE_PEER_MASTER, &msg) != MC_OK) {
        core->report_round++; /* its bundles were not named; those of earlier parts may be named twice */
        node_wake_at(core, now + RETRY_MS * NS_PER_MS);
        return false;
    }
    core->next_request++;
    core->report_slot = slot;
    core->reporting = !msg.commit.last;
    return true;
}

/* Blocks that were stored while nobody could be told. */
static void announce(struct node_core *core, uint64_t now)
{
    for (uint32_t slot = 0; core->unindexed > 0 && slot < core->slots; slot++) {
        struct obj *obj = node_obj_at(core, slot);

        if (obj->state != OBJ_UNINDEXED || list_linked(&obj->link))
            continue;
        node_obj_pin(core, now, obj); /* it has its place in a message: it may not be evicted before the verdict */
        node_commit_queue(core, obj);
    }
}

/* ---- gone ---- */

static bool gone_flush(struct node_core *core, uint64_t now)
{
    struct store_msg msg = {.type = MSG_NODE_GONE, .deadline_ms = DEADLINE_MS_NONE};

    if (core->gone.len == 0)
        return true;
    msg.gone.generations = buf_slice(&core->gone);
    if (core->port.send(core->port.ctx, STORE_PEER_MASTER, &msg) != MC_OK) {
        node_wake_at(core, now + RETRY_MS * NS_PER_MS);
        return false;
    }
    buf_reset(&core->gone);
    return true;
}

static void gone_say(struct node_core *core, uint64_t generation)
{
    if (!core->registered)
        return;
    put_u64(&core->gone, generation);
    if (buf_status(&core->gone) != MC_OK) { /* so much that we could not say: start over with an inventory */
        buf_reset(&core->gone);
        core->registered = core->reporting = false;
        core->register_at = 0;
    }
    node_wake_at(core, 0);
}

void node_gone(struct node_core *core, const struct obj *obj)
{
    if (obj->state == OBJ_PRESENT)
        gone_say(core, obj->generation);
}

/* ---- commits ---- */

void node_commit_queue(struct node_core *core, struct obj *obj)
{
    list_push_back(obj->entry_flags & STORE_REPLACE ? &core->upserts : &core->commits, &obj->link);
}

/* One message of what waits in `queue`, which is that of `bundle`, if any. False: it could not be sent. */
static bool commit_send(struct node_core *core, uint64_t now, struct list *queue, uint32_t max, struct bundle *bundle)
{
    struct batch *batch = pool_get_zero(&core->batch_pool);
    struct store_msg msg = {.type = MSG_NODE_COMMIT, .deadline_ms = DEADLINE_MS_NONE};
    uint32_t n = 0;

    if (!batch)
        return false;
    list_init(&batch->objs);
    batch->bundle = bundle;
    batch->apart = queue != &core->commits;
    batch->request = msg.request = ++core->next_request;
    buf_reset(&core->out);
    for (; n < max && !list_empty(queue); n++) {
        struct obj *obj = list_entry(list_pop_front(queue), struct obj, link);

        entry_put(&core->out, obj);
        obj->sent = true;
        list_push_back(&batch->objs, &obj->link);
    }
    msg.commit = (struct store_commit){.entries = buf_slice(&core->out), .whole = bundle != NULL};
    if (core->port.send(core->port.ctx, STORE_PEER_MASTER, &msg) != MC_OK) {
        list_for_each (it, &batch->objs)
            list_entry(it, struct obj, link)->sent = false;
        list_splice_back(&batch->objs, queue); /* back to its front: `queue` becomes the tail */
        list_splice_back(queue, &batch->objs);
        pool_put(&core->batch_pool, batch);
        node_wake_at(core, now + RETRY_MS * NS_PER_MS);
        return false;
    }
    list_push_back(&core->batches, &batch->link);
    core->batches_out += !batch->apart;
    if (bundle)
        node_bundle_sent(core, bundle);
    batch->again_at = now + COMMIT_RETRY_MS * NS_PER_MS;
    node_wake_at(core, batch->again_at);
    return true;
}

/* No verdict for long: the answer found a full queue. Said again it does no harm: the master knows its copies. */
static void commits_again(struct node_core *core, uint64_t now)
{
    list_for_each (it, &core->batches) {
        struct batch *batch = list_entry(it, struct batch, link);
        struct store_msg msg = {.type = MSG_NODE_COMMIT, .request = batch->request, .deadline_ms = DEADLINE_MS_NONE};

        if (now >= batch->again_at) {
            buf_reset(&core->out);
            list_for_each (obj, &batch->objs)
                entry_put(&core->out, list_entry(obj, struct obj, link));
            msg.commit = (struct store_commit){.entries = buf_slice(&core->out), .whole = batch->bundle != NULL};
            core->port.send(core->port.ctx, STORE_PEER_MASTER, &msg);
            batch->again_at = now + COMMIT_RETRY_MS * NS_PER_MS;
            batch->twice = true;
        }
        node_wake_at(core, batch->again_at);
    }
}

static void verdict_ok(struct node_core *core, uint64_t now, struct obj *obj, uint64_t version)
{
    obj->version = version;
    if (version >> 32 > core->term_max)
        core->term_max = version >> 32;
    if (obj->key.kind == MC_KEY_NAMED)
        object_set_version(obj->at, obj->header_len, version);
    if (obj->state == OBJ_UNINDEXED)
        core->unindexed--;
    obj->state = OBJ_PRESENT;
    obj->entry_flags &= ~(uint32_t)(STORE_REPLACE | STORE_REPLICA);
    if (!obj->dropped)
        node_obj_publish(core, obj);
    node_put_verdict(core, obj, MC_OK, false, version);
    if (obj->dropped) { /* its successor was faster than our verdict */
        node_obj_move(core, obj, LEDGER_PRESENT);
        node_gone(core, obj); /* a commit that was said twice may have put it into the index again */
        node_obj_free(core, now, obj, obj->dropped);
        return;
    }
    node_obj_move(core, obj, LEDGER_PRESENT);
    node_obj_present(core, now, obj);
}

/* `twice`: it was said again meanwhile, and may be taken the second time, when it is not here any more. */
static void verdict(struct node_core *core, uint64_t now, struct obj *obj, struct store_verdict v, bool twice)
{
    enum mc_status told = v.status == MC_EBUSY ? MC_ENOSPC : v.status;

    list_init(&obj->link);
    if (v.status != MC_OK && twice)
        gone_say(core, obj->generation);
    if (obj->state == OBJ_UNINDEXED)
        node_obj_unpin(core, now, obj);
    if (v.status == MC_OK) {
        verdict_ok(core, now, obj, v.version);
    } else if (v.status == MC_EEXIST) { /* first put wins; the loser is told success */
        node_put_verdict(core, obj, MC_OK, true, v.version);
        node_obj_free(core, now, obj, LEDGER_ABORTED_LOST);
    } else {
        node_put_verdict(core, obj, told, false, 0);
        node_obj_free(core, now, obj, v.status == MC_ESTALE ? LEDGER_ABORTED_LOST : LEDGER_ABORTED_MASTER);
    }
}

static void batch_end(struct node_core *core, struct batch *batch)
{
    core->batches_out -= !batch->apart;
    list_del(&batch->link);
    pool_put(&core->batch_pool, batch);
}

static void on_verdicts(struct node_core *core, uint64_t now, const struct store_msg *msg)
{
    struct batch *batch = NULL;
    struct list *link;

    list_for_each (it, &core->batches)
        if (list_entry(it, struct batch, link)->request == msg->request)
            batch = list_entry(it, struct batch, link);
    if (!batch)
        return;
    if (msg->status == MC_EREFUSED) { /* it does not know us (any more): everything again */
        node_master_down(core, now);
        node_master_up(core, now);
        return;
    }
    for (uint32_t i = 0; (link = list_pop_front(&batch->objs)); i++) {
        struct store_verdict v = {msg->status == MC_OK ? MC_EPROTO : msg->status, 0};

        if (msg->status == MC_OK && i < store_verdict_count(msg->verdicts))
            v = store_verdict_at(msg->verdicts, i);
        verdict(core, now, list_entry(link, struct obj, link), v, batch->twice);
    }
    if (batch->bundle)
        node_bundle_verdicts(core, batch->bundle, msg);
    batch_end(core, batch);
    node_wake_at(core, now);
}

/* ---- the connection ---- */

void node_master_up(struct node_core *core, uint64_t now)
{
    core->master_up = true;
    say_register(core, now);
}

/* No verdict will come for what is under way: blocks are acknowledged as unindexed and announced later, names fail. */
static void orphan(struct node_core *core, uint64_t now, struct obj *obj)
{
    list_init(&obj->link);
    obj->sent = false;
    if (obj->state == OBJ_UNINDEXED) {
        node_obj_unpin(core, now, obj);
        return;
    }
    if (obj->dropped || obj->key.kind == MC_KEY_NAMED) {
        node_put_verdict(core, obj, MC_EPEERDOWN, false, 0);
        node_obj_free(core, now, obj, LEDGER_ABORTED_MASTER);
        return;
    }
    obj->state = OBJ_UNINDEXED;
    core->unindexed++;
    node_put_verdict(core, obj, MC_OK, false, 0);
    node_obj_present(core, now, obj);
}

void node_master_down(struct node_core *core, uint64_t now)
{
    struct list *link;

    core->master_up = core->registered = core->reporting = false;
    core->register_at = DEADLINE_NONE;
    while (!list_empty(&core->batches)) {
        struct batch *batch = list_first(&core->batches, struct batch, link);

        while ((link = list_pop_front(&batch->objs)))
            orphan(core, now, list_entry(link, struct obj, link));
        if (batch->bundle)
            node_bundle_orphan(core, now, batch->bundle);
        batch_end(core, batch);
    }
    while (!list_empty(&core->bundles_ready))
        node_bundle_orphan(core, now, list_first(&core->bundles_ready, struct bundle, link));
    while ((link = list_pop_front(&core->commits)))
        orphan(core, now, list_entry(link, struct obj, link));
    while ((link = list_pop_front(&core->upserts)))
        orphan(core, now, list_entry(link, struct obj, link));
    buf_reset(&core->gone); /* the next inventory says it */
}

void node_on_master_reply(struct node_core *core, uint64_t now, const struct store_msg *msg)
{
    switch (msg->type) {
    case MSG_NODE_REGISTER: on_welcome(core, now, msg); break;
    case MSG_NODE_COMMIT: on_verdicts(core, now, msg); break;
    default: break; /* of inventories: nothing to do */
    }
}

/* ---- time ---- */

void node_master_tick(struct node_core *core, uint64_t now)
{
    if (!core->master_up)
        return;
    if (now >= core->register_at) {
        say_register(core, now);
        return;
    }
    node_wake_at(core, core->register_at);
    if (!core->registered)
        return;
    if (core->reporting) {
        while (core->reporting)
            if (!report(core, now))
                return;
        announce(core, now);
    }
    if (!gone_flush(core, now))
        return;
    commits_again(core, now);
    while (!list_empty(&core->upserts) && commit_send(core, now, &core->upserts, 1, NULL))
        ;
    list_for_each_safe (it, tmp, &core->bundles_ready) {
        struct bundle *bundle = list_entry(it, struct bundle, link);

        if (!commit_send(core, now, &bundle->queue, STORE_BUNDLE_MAX, bundle))
            break;
    }
    while (!list_empty(&core->commits) && core->batches_out < COMMITS_OUT &&
           commit_send(core, now, &core->commits, COMMIT_BATCH, NULL))
        ;
}

/* ---- requests of the master ---- */

void node_on_drop(struct node_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg)
{
    enum store_ledger_row row = msg->drop.replaced ? LEDGER_REPLACED : LEDGER_REMOVED;
    struct store_msg reply = store_msg_reply(msg, MC_OK);

    for (uint32_t i = 0; i < store_u64_count(msg->drop.generations); i++) {
        struct obj *obj = node_obj_by_generation(core, store_u64_at(msg->drop.generations, i));

        if (!obj)
            continue;
        if (obj->state == OBJ_PRESENT || obj->state == OBJ_UNINDEXED) {
            node_obj_free(core, now, obj, row);
        } else if (obj->state == OBJ_COMMITTING) {
            object_stamp_dead(obj->at, obj->header_len);
            obj->dropped = (uint8_t)row;
        }
    }
    reply.drop = msg->drop;
    core->port.send(core->port.ctx, STORE_PEER_MASTER, &reply);
}

static void promise(struct node_core *core, uint64_t now, struct obj *obj, uint64_t until)
{
    if (!obj->evictable)
        return;
    obj->promised = until;
    evict_promise(core->evict, obj->slot, until, now);
}

void node_on_promise(struct node_core *core, uint64_t now, const struct store_msg *msg)
{
    uint64_t until = now + msg->promise.ms * NS_PER_MS;

    for (uint32_t i = 0; i < store_u64_count(msg->promise.generations); i++) {
        struct obj *obj = node_obj_by_generation(core, store_u64_at(msg->promise.generations, i));

        if (obj && obj->bundle && until > obj->bundle->promised) { /* shared; the others named here are no news then */
            obj->bundle->promised = until;
            list_for_each (it, &obj->bundle->objs)
                promise(core, now, list_entry(it, struct obj, mate), until);
        } else if (obj && !obj->bundle) {
            promise(core, now, obj, until);
        }
    }
}
