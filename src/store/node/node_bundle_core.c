/* node_bundle_core.c - bundles: objects of one client that are seen together, and go together.
 *
 *   open -> ready -> sent -> kept        what it still has of its members, for as long as it has one
 *     \-------\-> dropped                every member freed: given up, idle, past its deadline, no client or no master any more
 *
 * A put that names a bundle is stored and sealed like any other and then kept back: in no index, found by nobody, not evictable. When the
 * client names all that it has put, they go to the master in one message, which it carries out whole in one step (index_commit_core.c).
 * All of a bundle lies at one node, so its node and its master are the only two who could disagree, and the node drops everything that has
 * no verdict when it loses the master. That is why no vote among nodes is needed. An inventory names a bundle in one message, too.
 *
 * Once kept, a bundle shares use, promises, pins and eviction: who takes one takes all. Members that are removed or replaced by name
 * leave it. */
#include "store/node/node_impl.h"

static void bundle_free(struct node_core *core, struct bundle *bundle)
{
    heap_del(&core->bundle_timers, &bundle->timer);
    list_del(&bundle->link);
    pool_put(&core->bundle_pool, bundle);
}

static void bundle_reply(struct node_core *core, struct bundle *bundle, enum mc_status status, struct slice verdicts)
{
    struct store_msg reply = {.type = MSG_NODE_BUNDLE,
        .reply = true,
        .status = status,
        .request = bundle->request,
        .deadline_ms = DEADLINE_MS_NONE,
        .verdicts = verdicts};

    if (bundle->peer)
        node_reply(core, bundle->peer, &reply);
}

/* None of its members was seen by anybody. */
static void bundle_drop(struct node_core *core, uint64_t now, struct bundle *bundle, enum store_ledger_row row)
{
    while (!list_empty(&bundle->objs))
        node_obj_free(core, now, list_first(&bundle->objs, struct obj, mate), row);
    bundle_free(core, bundle);
}

/* ---- open: members come ---- */

static struct bundle *open_find(struct node_core *core, uint32_t peer, uint64_t number)
{
    list_for_each (it, &core->bundles_open) {
        struct bundle *bundle = list_entry(it, struct bundle, link);

        if (bundle->peer == peer && bundle->number == number)
            return bundle;
    }
    return NULL;
}

static struct bundle *open_create(struct node_core *core, uint32_t peer, uint64_t number)
{
    struct bundle *bundle = NULL;

    if (heap_reserve(&core->bundle_timers, 1) == MC_OK)
        bundle = pool_get_zero(&core->bundle_pool);
    if (!bundle)
        return NULL;
    bundle->peer = peer;
    bundle->number = number;
    list_init(&bundle->objs);
    list_init(&bundle->queue);
    list_push_back(&core->bundles_open, &bundle->link);
    heap_add(&core->bundle_timers, &bundle->timer, DEADLINE_NONE);
    return bundle;
}

void node_bundle_take(struct node_core *core, uint64_t now, struct obj *obj, uint32_t peer, uint64_t number)
{
    struct bundle *bundle = open_find(core, peer, number);

    if (!bundle)
        bundle = open_create(core, peer, number);
    if (!bundle || bundle->count == STORE_BUNDLE_MAX) {
        node_put_verdict(core, obj, bundle ? MC_EINVAL : MC_AGAIN, false, 0);
        node_obj_free(core, now, obj, LEDGER_ABORTED_CALLER);
        return;
    }
    heap_move(&core->bundle_timers, &bundle->timer, now + core->limits.part_idle_ms * NS_PER_MS);
    obj->bundle = bundle;
    list_push_back(&bundle->objs, &obj->mate);
    bundle->count++;
    bundle->bytes += obj->length;
    node_put_verdict(core, obj, MC_OK, false, 0);
}

/* ---- ready: it waits for its place on the connection to the master ---- */

/* Put what the client names, which must be all there is, into the order it names it in. */
static bool queue_fill(struct node_core *core, struct bundle *bundle, struct slice generations)
{
    uint32_t n = store_u64_count(generations);

    for (uint32_t i = 0; i < n; i++) {
        struct obj *obj = node_obj_by_generation(core, store_u64_at(generations, i));

        if (!obj || obj->bundle != bundle || list_linked(&obj->link))
            return false;
        list_push_back(&bundle->queue, &obj->link);
    }
    return n == bundle->count;
}

void node_on_bundle(struct node_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg)
{
    struct bundle *bundle = open_find(core, peer, msg->bundle.number);
    struct store_msg reply = store_msg_reply(msg, MC_OK);
    enum store_ledger_row row = LEDGER_ABORTED_CALLER;

    if (msg->bundle.generations.len) {
        if (!bundle || !queue_fill(core, bundle, msg->bundle.generations)) {
            reply.status = MC_ENOENT;
        } else if (!core->master_up) {
            reply.status = MC_EPEERDOWN;
            row = LEDGER_ABORTED_MASTER;
        } else {
            bundle->request = msg->request;
            list_del(&bundle->link);
            list_push_back(&core->bundles_ready, &bundle->link);
            heap_move(&core->bundle_timers, &bundle->timer,
                msg->deadline_ms == DEADLINE_MS_NONE ? DEADLINE_NONE : deadline_after_ms(now, msg->deadline_ms));
            node_wake_at(core, now);
            return;
        }
    }
    if (bundle)
        bundle_drop(core, now, bundle, row);
    node_reply(core, peer, &reply);
}

/* ---- sent, and what the master said ---- */

void node_bundle_sent(struct node_core *core, struct bundle *bundle)
{
    heap_del(&core->bundle_timers, &bundle->timer); /* the master decides, soon */
    list_del(&bundle->link);
}

void node_bundle_verdicts(struct node_core *core, struct bundle *bundle, const struct store_msg *msg)
{
    for (uint32_t i = 0; msg->status == MC_OK && i < store_verdict_count(msg->verdicts); i++)
        core->puts_done += store_verdict_at(msg->verdicts, i).status == MC_OK;
    bundle_reply(core, bundle, msg->status, msg->status == MC_OK ? msg->verdicts : (struct slice){0});
    bundle->kept = true;
    if (list_empty(&bundle->objs))
        bundle_free(core, bundle);
}

void node_bundle_orphan(struct node_core *core, uint64_t now, struct bundle *bundle)
{
    bundle_reply(core, bundle, MC_EPEERDOWN, (struct slice){0});
    bundle_drop(core, now, bundle, LEDGER_ABORTED_MASTER);
}

/* ---- kept: what members share ---- */

static void pins_show(struct node_core *core, uint64_t now, const struct bundle *bundle)
{
    list_for_each (it, &bundle->objs) {
        const struct obj *obj = list_entry(it, struct obj, mate);

        if (!obj->evictable || obj->hard_pin)
            continue;
        if (bundle->pins)
            evict_pin(core->evict, obj->slot, now);
        else
            evict_unpin(core->evict, obj->slot, now);
    }
}

void node_bundle_pin(struct node_core *core, uint64_t now, struct bundle *bundle, bool pinned)
{
    uint32_t before = bundle->pins;

    bundle->pins += pinned ? 1 : UINT32_MAX;
    if (!before != !bundle->pins)
        pins_show(core, now, bundle);
}

void node_bundle_leave(struct node_core *core, uint64_t now, struct obj *obj)
{
    struct bundle *bundle = obj->bundle;

    obj->bundle = NULL;
    list_del(&obj->mate);
    bundle->count--;
    bundle->bytes -= obj->length;
    if (obj->pins)
        node_bundle_pin(core, now, bundle, false);
    if (bundle->kept && list_empty(&bundle->objs))
        bundle_free(core, bundle);
}

/* ---- events ---- */

void node_bundles_of_peer_end(struct node_core *core, uint64_t now, uint32_t peer)
{
    list_for_each_safe (it, tmp, &core->bundles_open)
        if (list_entry(it, struct bundle, link)->peer == peer)
            bundle_drop(core, now, list_entry(it, struct bundle, link), LEDGER_ABORTED_WRITER);
    list_for_each (it, &core->bundles_ready)
        if (list_entry(it, struct bundle, link)->peer == peer)
            list_entry(it, struct bundle, link)->peer = 0;
    list_for_each (it, &core->batches) {
        struct bundle *bundle = list_entry(it, struct batch, link)->bundle;

        if (bundle && bundle->peer == peer)
            bundle->peer = 0;
    }
}

void node_bundles_tick(struct node_core *core, uint64_t now)
{
    struct heap_node *top;

    while ((top = heap_top(&core->bundle_timers)) && top->key <= now) {
        struct bundle *bundle = container_of(top, struct bundle, timer);

        if (bundle->request)
            bundle_reply(core, bundle, MC_ETIMEDOUT, (struct slice){0});
        bundle_drop(core, now, bundle, bundle->request ? LEDGER_ABORTED_DEADLINE : LEDGER_ABORTED_IDLE);
    }
}
