/* client_core.c - the client's core: life of calls, events, time. What a call does is in the other files of this folder. */
#include "store/client/client_core.h"

#include <assert.h>
#include <stdlib.h>

#include "base/hash.h"
#include "store/client/client_impl.h"

static uint32_t or_default(uint32_t value, uint32_t fallback)
{
    return value ? value : fallback;
}

enum mc_status client_core_create(
    const struct client_limits *limits, const struct store_port *port, uint64_t seed, struct client_core **out)
{
    struct client_core *core = calloc(1, sizeof(*core));

    if (!core)
        return MC_ENOMEM;
    core->limits = (struct client_limits){
        .locations_max = or_default(limits->locations_max, 1048576),
        .nodes_max = or_default(limits->nodes_max, STORE_NODES_MAX),
        .suspect_ms = or_default(limits->suspect_ms, 400),
        .trial_ms = or_default(limits->trial_ms, 100),
        .lease_ms = or_default(limits->lease_ms, 5000),
        .get_promises = limits->get_promises,
        .attempts_max = or_default(limits->attempts_max, 4),
        .inline_max = or_default(limits->inline_max, STORE_INLINE_MAX),
        .ns = limits->ns,
    };
    core->port = *port;
    core->seed = seed;
    core->wake = core->subscribe_at = DEADLINE_NONE;
    rng_seed(&core->rng, seed);
    core->next_token = rng_u64(&core->rng) | 1;
    list_init(&core->lru);
    list_init(&core->live);
    list_init(&core->runnable);
    list_init(&core->done);
    list_init(&core->lookups_waiting);
    list_init(&core->parts);
    list_init(&core->helds);
    pool_init(&core->call_pool, sizeof(struct client_private), 8, CALLS_MAX);
    pool_init(&core->cache_pool, sizeof(struct cached), 0, core->limits.locations_max);
    pool_init(&core->lookup_pool, sizeof(struct lookup), 0, CALLS_MAX);
    pool_init(&core->part_pool, sizeof(struct part), 8, PARTS_MAX);
    pool_init(&core->held_pool, sizeof(struct held), 0, CALLS_MAX);
    buf_init(&core->scratch, FRAME_BODY_MAX);
    buf_init(&core->data, FRAME_BODY_MAX);
    core->peers = calloc(core->limits.nodes_max + 1, sizeof(*core->peers));
    if (!core->peers || hashmap_init(&core->requests, 0, 0) != MC_OK || hashmap_init(&core->cache, 0, 0) != MC_OK) {
        client_core_destroy(core);
        return MC_ENOMEM;
    }
    for (uint32_t i = 0; i <= core->limits.nodes_max; i++) {
        list_init(&core->peers[i].requests);
        list_init(&core->peers[i].reads);
        buf_init(&core->peers[i].touches, 8 * 4096);
    }
    core->peers[STORE_PEER_MASTER].used = true;
    core->peers_top = 1;
    *out = core;
    return MC_OK;
}

void client_core_destroy(struct client_core *core)
{
    if (!core)
        return;
    assert(list_empty(&core->live));
    for (uint32_t i = 0; core->peers && i <= core->limits.nodes_max; i++)
        buf_fini(&core->peers[i].touches);
    pool_fini(&core->call_pool);
    pool_fini(&core->cache_pool);
    pool_fini(&core->lookup_pool);
    pool_fini(&core->part_pool);
    pool_fini(&core->held_pool);
    hashmap_fini(&core->requests);
    hashmap_fini(&core->cache);
    heap_fini(&core->deadlines);
    heap_fini(&core->retries);
    heap_fini(&core->renews);
    buf_fini(&core->scratch);
    buf_fini(&core->data);
    free(core->peers);
    free(core);
}

void client_core_set_bugs(struct client_core *core, struct client_bugs bugs)
{
    core->bugs = bugs;
}

/* ---- calls ---- */

static enum mc_status check_op(const struct client_core *core, const struct mc_store_op *op, struct store_key *key)
{
    uint64_t sum = 0;
    enum mc_status status = store_key_from(core->limits.ns, &op->key, key);

    if (status != MC_OK)
        return status;
    if (op->opcode < MC_PUT || op->opcode > MC_REMOVE || op->nranges > MC_RANGES_MAX)
        return MC_EINVAL;
    if (op->opcode == MC_UPSERT && key->kind != MC_KEY_NAMED)
        return MC_EINVAL;
    for (uint32_t i = 0; i < op->nspans; i++)
        sum += op->spans[i].len;
    if (op->opcode == MC_PUT || op->opcode == MC_UPSERT) {
        if (sum > core->limits.inline_max && op->nspans > STORE_SPANS_MAX)
            return MC_EINVAL;
        if (sum > MC_OBJECT_MAX)
            return MC_ETOOBIG;
        if (op->meta && op->meta->replicas > MC_REPLICAS_MAX)
            return MC_EINVAL;
    }
    return MC_OK;
}

static enum mc_status check_bundle(const struct client_call *call)
{
    if (call->bundle_of.n < 1 || call->bundle_of.n > MC_BUNDLE_MAX)
        return MC_EINVAL;
    for (uint32_t i = 0; i < call->bundle_of.n; i++) {
        const struct mc_store_op *op = &call->bundle_of.ops[i];

        if ((op->opcode != MC_PUT && op->opcode != MC_UPSERT) || op->key.kind != MC_KEY_NAMED)
            return MC_EINVAL;
    }
    return MC_OK;
}

static enum mc_status check(const struct client_core *core, const struct client_call *call, struct store_key *key)
{
    switch (call->kind) {
    case CALL_OP: return check_op(core, call->op, key);
    case CALL_EXISTS: return call->exists.n <= CLIENT_EXISTS_MAX ? MC_OK : MC_EINVAL;
    case CALL_WHERE: return store_key_from(core->limits.ns, &call->where.key, key);
    case CALL_VIEW: return store_key_from(core->limits.ns, &call->view.key, key);
    case CALL_PART_BEGIN: return store_key_from(core->limits.ns, &call->part.key, key);
    case CALL_PREFIX: return call->prefix.shards == 0 || call->prefix.shard < call->prefix.shards ? MC_OK : MC_EINVAL;
    case CALL_PIN: return call->pins.n >= 1 && call->pins.n <= STORE_KEYS_MAX ? MC_OK : MC_EINVAL;
    case CALL_PART_WRITE:
    case CALL_PART_COMMIT:
    case CALL_LIST:
    case CALL_MODEL: return MC_OK;
    case CALL_BUNDLE: return check_bundle(call);
    }
    return MC_EINVAL;
}

enum mc_status client_core_start(struct client_core *core, uint64_t now, struct client_call *call)
{
    struct store_key key = {0};
    struct client_private *p;
    enum mc_status status = core->closing ? MC_ECLOSED : check(core, call, &key);

    if (status != MC_OK)
        return status;
    if (heap_reserve(&core->deadlines, 1) != MC_OK || heap_reserve(&core->retries, core->call_pool.used + 1) != MC_OK)
        return MC_AGAIN;
    p = pool_get(&core->call_pool);
    if (!p)
        return MC_AGAIN;
    memset(p, 0, offsetof(struct client_private, reads_few));
    p->regions = NULL;
    p->region_count = p->peers_tried_count = p->copies = p->pin_count = p->pin_peer_at = 0;
    p->length = p->written = p->waiting_since = p->token = 0;
    p->pin_places = NULL;
    p->keys = NULL;
    p->bundle = NULL;
    p->call = call;
    p->key = key;
    p->reads = p->reads_few;
    p->head = p->head_few;
    list_init(&p->queue);
    list_init(&p->read_link);
    list_push_back(&core->live, &p->link);
    list_push_back(&core->runnable, &p->queue);
    heap_add(&core->deadlines, &p->deadline, call->deadline_ns);
    call->priv = p;
    call->status = MC_PENDING;
    if (call->kind == CALL_OP) {
        memset(&call->op->result, 0, sizeof(call->op->result));
        call->op->result.status = MC_PENDING;
    }
    client_wake_at(core, now);
    return MC_OK;
}

void client_call_end(struct client_call *call, enum mc_status status)
{
    call->status = status;
    if (call->kind == CALL_OP)
        call->op->result.status = status;
    for (uint32_t i = 0; call->kind == CALL_EXISTS && i < call->exists.n; i++)
        if (call->exists.ops[i].result.status == MC_PENDING)
            call->exists.ops[i].result.status = status;
    for (uint32_t i = 0; call->kind == CALL_BUNDLE && status != MC_OK && i < call->bundle_of.n; i++)
        call->bundle_of.ops[i].result = (struct mc_store_result){.status = status};
}

void client_end(struct client_core *core, struct client_private *p, enum mc_status status)
{
    struct client_call *call = p->call;

    client_request_drop(core, &p->request);
    client_get_fini(core, p);
    client_put_fini(core, p);
    client_bundle_fini(core, p);
    free(p->pin_places);
    free(p->keys);
    heap_del(&core->deadlines, &p->deadline);
    heap_del(&core->retries, &p->retry);
    list_del(&p->queue);
    list_del(&p->link);
    pool_put(&core->call_pool, p);
    call->priv = NULL;
    client_call_end(call, status);
    if (call->member_of)
        client_bundle_ended(core, call);
    else
        list_push_back(&core->done, &call->link);
}

struct client_call *client_core_done(struct client_core *core)
{
    struct list *link = list_pop_front(&core->done);

    return link ? list_entry(link, struct client_call, link) : NULL;
}

/* End a call from outside: what a get says then. */
static void give_up(struct client_core *core, struct client_private *p, enum mc_status status)
{
    if (p->call->kind == CALL_OP && p->call->op->opcode == MC_GET) {
        client_get_miss(core, p, status, status == MC_ETIMEDOUT ? MC_MISS_TIMEOUT : MC_MISS_NONE);
        return;
    }
    if (p->token)
        client_core_unpin(core, 0, p->token); /* of a pin or view that did not come about */
    client_end(core, p, status);
}

void client_core_cancel(struct client_core *core, uint64_t now, struct client_call *call)
{
    if (call->priv)
        give_up(core, call->priv, MC_ECANCELED);
}

void client_core_close(struct client_core *core, uint64_t now)
{
    core->closing = true;
    while (!list_empty(&core->live))
        give_up(core, list_first(&core->live, struct client_private, link), MC_ECLOSED);
    client_requests_end(core, now, MC_ECLOSED); /* those of no call: lookups whose calls are gone, the subscription */
}

void client_retry_at(struct client_core *core, struct client_private *p, uint64_t at)
{
    p->stage = STAGE_WAIT;
    if (heap_has(&p->retry))
        heap_move(&core->retries, &p->retry, at);
    else
        heap_add(&core->retries, &p->retry, at);
}

/* ---- simple calls: one question to the master ---- */

static void on_simple(
    struct client_core *core, uint64_t now, struct request *request, enum mc_status status, const struct store_msg *msg)
{
    struct client_private *p = container_of(request, struct client_private, request);
    struct client_call *call = p->call;
    struct store_entry entry;

    if (msg && call->kind == CALL_MODEL && status == MC_EMISMATCH && call->model.other)
        buf_append_slice(call->model.other, msg->model.record);
    if (msg && call->kind == CALL_LIST && status == MC_OK) {
        struct cur list = cur_of_slice(msg->list.entries);
        char text[KEY_TEXT_MAX], node[33] = "";

        while (store_entry_next(&list, &entry)) {
            if (entry.segment < store_row_count(msg->list.rows))
                hex_encode(node, store_row_at(msg->list.rows, entry.segment).uuid, 16);
            buf_printf(call->list.text, "%s %llu %s\n", store_key_text(&entry.key, text, sizeof(text)),
                (unsigned long long)entry.length, node);
        }
        call->list.cursor = msg->list.cursor;
    }
    client_end(core, p, status);
}

static void simple_run(struct client_core *core, uint64_t now, struct client_private *p)
{
    struct client_call *call = p->call;
    struct store_msg msg = {0};
    enum mc_status status;

    if (call->kind == CALL_MODEL) {
        msg.type = MSG_MASTER_MODEL;
        msg.model = (struct store_model){call->model.name, call->model.record};
    } else if (call->kind == CALL_LIST) {
        msg.type = MSG_MASTER_LIST;
        msg.list = (struct store_list){
            .ns = core->limits.ns, .prefix = call->list.prefix, .cursor = call->list.cursor, .max = call->list.max};
    } else {
        msg.type = MSG_MASTER_REMOVE;
        msg.remove = (struct store_remove){.key = p->key, .force = call->op->force};
        if (call->op->meta && call->op->meta->node)
            msg.remove.node = slice_str(call->op->meta->node);
        client_lookups_flush(core, now); /* what was asked before is promised before */
        client_uncache(core, &p->key, 0);
    }
    p->stage = STAGE_ASK;
    status = client_master_up(core, now)
                 ? client_ask(core, now, STORE_PEER_MASTER, &p->request, &msg, call->deadline_ns, on_simple)
                 : MC_EPEERDOWN;
    if (status != MC_OK)
        client_end(core, p, status == MC_AGAIN ? MC_EBUSY : MC_EPEERDOWN);
}

/* ---- running ---- */

static void run_op(struct client_core *core, uint64_t now, struct client_private *p)
{
    switch (p->call->op->opcode) {
    case MC_PUT:
    case MC_UPSERT: client_put_run(core, now, p); break;
    case MC_GET: client_get_run(core, now, p); break;
    case MC_EXISTS: client_locate(core, now, p, core->limits.lease_ms); break;
    case MC_REMOVE: simple_run(core, now, p); break;
    }
}

void client_run(struct client_core *core, uint64_t now, struct client_private *p)
{
    switch (p->call->kind) {
    case CALL_OP: run_op(core, now, p); break;
    case CALL_EXISTS: client_exists_run(core, now, p); break;
    case CALL_PREFIX: client_prefix_run(core, now, p); break;
    case CALL_WHERE: client_locate(core, now, p, 0); break;
    case CALL_PIN: client_pin_run(core, now, p); break;
    case CALL_VIEW: client_locate(core, now, p, core->limits.lease_ms); break;
    case CALL_PART_BEGIN:
    case CALL_PART_WRITE:
    case CALL_PART_COMMIT: client_part_run(core, now, p); break;
    case CALL_LIST:
    case CALL_MODEL: simple_run(core, now, p); break;
    case CALL_BUNDLE: client_bundle_run(core, now, p); break;
    }
}

void client_located(struct client_core *core, uint64_t now, struct client_private *p)
{
    switch (p->call->kind) {
    case CALL_OP:
        if (p->call->op->opcode == MC_GET)
            client_get_located(core, now, p);
        else
            client_end(core, p, client_exists_result(core, p, &p->call->op->result));
        break;
    case CALL_WHERE:
        client_where_fill(core, p);
        client_end(core, p, p->place_count ? MC_OK : p->miss == MC_MISS_MASTER_DOWN ? MC_EPEERDOWN : MC_ENOENT);
        break;
    case CALL_VIEW: client_view_located(core, now, p); break;
    default: assert(!"no other call is located this way");
    }
}

void client_core_on_tick(struct client_core *core, uint64_t now)
{
    struct heap_node *top;
    struct list *link;

    core->wake = DEADLINE_NONE;
    while ((top = heap_top(&core->deadlines)) && top->key <= now)
        give_up(core, container_of(top, struct client_private, deadline), MC_ETIMEDOUT);
    client_peers_tick(core, now);
    client_renews_tick(core, now);
    while ((top = heap_top(&core->retries)) && top->key <= now) {
        struct client_private *p = container_of(top, struct client_private, retry);

        heap_del(&core->retries, top);
        client_run(core, now, p);
    }
    while ((link = list_pop_front(&core->runnable)))
        client_run(core, now, list_entry(link, struct client_private, queue));
    client_lookups_flush(core, now);
}

uint64_t client_core_wake(const struct client_core *core)
{
    uint64_t wake = deadline_min(core->wake, client_peers_wake(core));

    if (heap_top(&core->deadlines))
        wake = deadline_min(wake, heap_top(&core->deadlines)->key);
    if (heap_top(&core->retries))
        wake = deadline_min(wake, heap_top(&core->retries)->key);
    if (heap_top(&core->renews))
        wake = deadline_min(wake, heap_top(&core->renews)->key);
    return wake;
}

void client_core_on_io(struct client_core *core, uint64_t now, uint64_t cookie, enum mc_status status)
{
    struct client_private *p = (struct client_private *)(uintptr_t)cookie;

    assert(p->reading && "cancelled reads do not come back");
    client_get_on_io(core, now, p, status);
}

bool client_core_usable(const struct client_core *core, uint32_t peer)
{
    return peer < core->peers_top && client_peer_usable(core, peer);
}

bool client_core_awaits(const struct client_core *core, uint32_t peer)
{
    return peer < core->peers_top && !list_empty(&core->peers[peer].requests);
}

void client_core_stats(const struct client_core *core, struct mc_store_stats *out)
{
    *out = core->stats;
    out->master_up = core->peers[STORE_PEER_MASTER].health == PEER_OK;
}

bool client_core_member(const struct client_core *core, uint32_t *at, struct store_member *out)
{
    for (; *at + 1 < core->peers_top; ++*at) {
        if (!core->peers[*at + 1].used)
            continue;
        *out = core->peers[*at + 1].member;
        ++*at;
        return true;
    }
    return false;
}
