/* node_core.c - the node's core: life, events, time, and what can be asked of it. */
#include "store/node/node_core.h"

#include <stdlib.h>

#include "store/node/node_impl.h"

static uint32_t or_default(uint32_t value, uint32_t fallback)
{
    return value ? value : fallback;
}

static struct node_limits limits_of(const struct node_limits *given)
{
    return (struct node_limits){
        .objects_max = or_default(given->objects_max, 2000000),
        .puts_max = or_default(given->puts_max, 1024),
        .peers_max = or_default(given->peers_max, 4096),
        .pins_max = or_default(given->pins_max, 65536),
        .pinned_percent = or_default(given->pinned_percent, 50),
        .pin_max_ms = or_default(given->pin_max_ms, 600000),
        .part_idle_ms = or_default(given->part_idle_ms, 10000),
        .commit_wait_ms = or_default(given->commit_wait_ms, 300),
        .low_percent = or_default(given->low_percent, 90),
        .high_percent = or_default(given->high_percent, 95),
        .policy = given->policy,
        .wall_ms = given->wall_ms,
    };
}

static void pools_init(struct node_core *core)
{
    list_init(&core->free_slots);
    list_init(&core->puts);
    list_init(&core->groups);
    list_init(&core->bundles_open);
    list_init(&core->bundles_ready);
    list_init(&core->commits);
    list_init(&core->upserts);
    list_init(&core->batches);
    pool_init(&core->put_pool, sizeof(struct put), 8, core->limits.puts_max);
    pool_init(&core->io_pool, sizeof(struct io), 4, core->limits.puts_max * 2);
    pool_init(&core->batch_pool, sizeof(struct batch), 0, 65536);
    pool_init(&core->pin_pool, sizeof(struct pin), 0, core->limits.pins_max);
    pool_init(&core->group_pool, sizeof(struct pin_group), 0, core->limits.pins_max);
    pool_init(&core->bundle_pool, sizeof(struct bundle), 0, core->limits.objects_max);
    buf_init(&core->out, FRAME_BODY_MAX);
    buf_init(&core->owners, 64 << 20);
    buf_init(&core->gone, 8 << 20);
}

static enum mc_status memory_take(struct node_core *core, const struct node_memory *memory, uint32_t segments)
{
    core->memory = calloc(segments ? segments : 1, sizeof(*memory));
    if (!core->memory)
        return MC_ENOMEM;
    for (uint32_t i = 0; i < segments; i++) {
        uint32_t id;
        enum mc_status status = alloc_segment_add(core->alloc, memory[i].size, &id);

        if (status != MC_OK)
            return status;
        core->memory[id] = memory[i];
    }
    core->segments = segments;
    core->self.capacity = alloc_total_bytes(core->alloc);
    return MC_OK;
}

enum mc_status node_core_create(const struct node_limits *limits, const struct store_port *port,
    const struct store_member *self, const struct node_memory *memory, uint32_t segments,
    const struct node_names *names, uint64_t seed, struct node_core **out)
{
    const struct evict_policy *policy = limits->policy ? evict_policy_find(limits->policy) : evict_policies[0];
    struct node_core *core = calloc(1, sizeof(*core));
    enum mc_status status = MC_ENOMEM;

    if (!core)
        return MC_ENOMEM;
    core->limits = limits_of(limits);
    core->port = *port;
    core->self = *self;
    core->seed = seed;
    if (names)
        core->names = *names;
    core->wake = DEADLINE_NONE;
    core->register_at = DEADLINE_NONE;
    pools_init(core);
    if (!policy) {
        status = MC_EINVAL;
        goto undo;
    }
    core->slabs_max = core->limits.objects_max / SLAB_OBJS + 1;
    core->slabs = calloc(core->slabs_max, sizeof(*core->slabs));
    core->peer_up = calloc(core->limits.peers_max, sizeof(*core->peer_up));
    core->info_owed = calloc(core->limits.peers_max, sizeof(*core->info_owed));
    core->alloc = alloc_create((size_t)core->limits.objects_max * 2 + 1024);
    if (!core->slabs || !core->peer_up || !core->info_owed || !core->alloc ||
        hashmap_init(&core->by_key, 0, 0) != MC_OK || hashmap_init(&core->by_gen, 0, 0) != MC_OK ||
        evict_create(policy, core->limits.objects_max, EVICT_UNKNOWN, &core->evict) != MC_OK ||
        curve_create(policy, &core->curve) != MC_OK)
        goto undo;
    status = memory_take(core, memory, segments);
    if (status != MC_OK)
        goto undo;
    *out = core;
    return MC_OK;
undo:
    node_core_destroy(core);
    return status;
}

void node_core_destroy(struct node_core *core)
{
    if (!core)
        return;
    list_for_each (it, &core->puts) {
        struct put *put = list_entry(it, struct put, link);

        list_for_each (io, &put->ios)
            node_io_fini(list_entry(io, struct io, link));
        node_put_fini(put);
    }
    pool_fini(&core->put_pool);
    pool_fini(&core->io_pool);
    pool_fini(&core->batch_pool);
    pool_fini(&core->pin_pool);
    pool_fini(&core->group_pool);
    pool_fini(&core->bundle_pool);
    heap_fini(&core->put_timers);
    heap_fini(&core->pin_timers);
    heap_fini(&core->bundle_timers);
    buf_fini(&core->out);
    buf_fini(&core->owners);
    buf_fini(&core->gone);
    hashmap_fini(&core->by_key);
    hashmap_fini(&core->by_gen);
    evict_destroy(core->evict);
    curve_destroy(core->curve);
    alloc_destroy(core->alloc);
    for (uint32_t i = 0; core->slabs && i < core->slabs_max; i++)
        free(core->slabs[i]);
    free(core->slabs);
    free(core->peer_up);
    free(core->info_owed);
    free(core->memory);
    free(core);
}

void node_core_set_bugs(struct node_core *core, struct node_bugs bugs)
{
    core->bugs = bugs;
}

/* ---- events ---- */

static void memory_put(struct buf *list, uint32_t id, const struct node_memory *memory)
{
    struct store_segment segment = {.id = id, .size = memory->size};

    memcpy(segment.region, memory->region, STORE_REGION_KEY);
    store_segment_put(list, &segment);
}

/* A client is told where this node's memory is. */
static void say_info(struct node_core *core, uint32_t peer)
{
    struct store_msg msg = {.type = MSG_NODE_INFO, .deadline_ms = DEADLINE_MS_NONE};

    buf_reset(&core->out);
    for (uint32_t i = 0; i < core->segments; i++)
        memory_put(&core->out, i, &core->memory[i]);
    if (core->names.memory.base)
        memory_put(&core->out, STORE_SEGMENT_NAMES, &core->names.memory);
    msg.segments = buf_slice(&core->out);
    core->info_owed[peer] = core->port.send(core->port.ctx, peer, &msg) != MC_OK;
    core->any_info_owed |= core->info_owed[peer];
}

/* Clients can do nothing here before they know that. */
static void infos_tick(struct node_core *core, uint64_t now)
{
    if (!core->any_info_owed)
        return;
    core->any_info_owed = false;
    for (uint32_t peer = 1; peer < core->limits.peers_max; peer++)
        if (core->peer_up[peer] && core->info_owed[peer])
            say_info(core, peer);
    if (core->any_info_owed)
        node_wake_at(core, now + RETRY_MS * NS_PER_MS);
}

void node_core_on_peer_up(struct node_core *core, uint64_t now, uint32_t peer)
{
    if (peer >= core->limits.peers_max)
        return;
    core->peer_up[peer] = true;
    if (peer == STORE_PEER_MASTER)
        node_master_up(core, now);
    else
        say_info(core, peer);
    if (core->any_info_owed)
        node_wake_at(core, now + RETRY_MS * NS_PER_MS);
}

void node_core_on_peer_down(struct node_core *core, uint64_t now, uint32_t peer)
{
    if (peer >= core->limits.peers_max || !core->peer_up[peer])
        return;
    core->peer_up[peer] = false;
    if (peer == STORE_PEER_MASTER) {
        node_master_down(core, now);
        return;
    }
    node_puts_of_peer_end(core, now, peer);
    node_bundles_of_peer_end(core, now, peer);
    node_pins_of_peer_end(core, now, peer);
}

static void on_touch(struct node_core *core, uint64_t now, const struct store_msg *msg)
{
    struct obj *run[TOUCH_RUN];
    uint32_t count = 0;

    for (uint32_t i = 0; i < store_u64_count(msg->touch); i++) {
        struct obj *obj = node_obj_by_generation(core, store_u64_at(msg->touch, i));

        core->hits++;
        if (obj)
            run[count++] = obj;
        if (count == TOUCH_RUN) {
            node_objs_used(core, now, run, count);
            count = 0;
        }
    }
    node_objs_used(core, now, run, count);
}

static void on_client_message(struct node_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg)
{
    struct store_msg reply = store_msg_reply(msg, MC_ENOSUP);

    switch (msg->type) {
    case MSG_NODE_PUT: node_on_put(core, now, peer, msg); break;
    case MSG_PART_BEGIN: node_on_part_begin(core, now, peer, msg); break;
    case MSG_PART_WRITE: node_on_part_write(core, now, peer, msg); break;
    case MSG_PART_COMMIT: node_on_part_commit(core, now, peer, msg); break;
    case MSG_PART_ABORT: node_on_part_abort(core, now, peer, msg); break;
    case MSG_NODE_PIN: node_on_pin(core, now, peer, msg); break;
    case MSG_NODE_BUNDLE: node_on_bundle(core, now, peer, msg); break;
    case MSG_NODE_UNPIN: node_on_unpin(core, now, peer, msg); break;
    case MSG_NODE_TOUCH: on_touch(core, now, msg); break;
    default: node_reply(core, peer, &reply);
    }
}

void node_core_on_message(struct node_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg)
{
    if (peer >= core->limits.peers_max || !core->peer_up[peer])
        return;
    if (peer != STORE_PEER_MASTER) {
        if (!msg->reply)
            on_client_message(core, now, peer, msg);
    } else if (msg->reply) {
        node_on_master_reply(core, now, msg);
    } else if (msg->type == MSG_NODE_DROP) {
        node_on_drop(core, now, peer, msg);
    } else if (msg->type == MSG_NODE_PROMISE) {
        node_on_promise(core, now, msg);
    } else if (msg->type == MSG_MASTER_MEMBERS && msg->members.term > core->term_max) {
        core->term_max = msg->members.term; /* raised */
    }
}

void node_core_on_tick(struct node_core *core, uint64_t now)
{
    core->wake = DEADLINE_NONE;
    infos_tick(core, now);
    node_puts_tick(core, now);
    node_bundles_tick(core, now);
    node_pins_tick(core, now);
    node_watermark(core, now);
    node_master_tick(core, now);
}

uint64_t node_core_wake(const struct node_core *core)
{
    uint64_t wake = core->wake;

    if (heap_top(&core->put_timers))
        wake = deadline_min(wake, heap_top(&core->put_timers)->key);
    if (heap_top(&core->bundle_timers))
        wake = deadline_min(wake, heap_top(&core->bundle_timers)->key);
    if (heap_top(&core->pin_timers))
        wake = deadline_min(wake, heap_top(&core->pin_timers)->key);
    return wake;
}

void node_core_drain(struct node_core *core)
{
    core->draining = true;
}

/* ---- looking ---- */

void node_core_ledger(const struct node_core *core, struct store_ledger *out)
{
    *out = core->ledger;
}

void node_core_curve(const struct node_core *core, double hit_ratio[CURVE_SIZES])
{
    curve_read(core->curve, hit_ratio);
}

void node_core_beat(const struct node_core *core, struct store_beat *out)
{
    *out = (struct store_beat){
        .epoch = core->self.epoch,
        .draining = core->draining,
        .capacity = core->self.capacity,
        .used = alloc_total_bytes(core->alloc) - alloc_free_bytes(core->alloc),
        .objects = core->ledger.row[LEDGER_PRESENT].objects,
        .puts = core->puts_done,
        .evictions = core->evictions,
        .hits = core->hits,
        .pinned = core->pinned,
        .unindexed = core->unindexed,
        .ledger = core->ledger,
    };
    memcpy(out->uuid, core->self.uuid, 16);
}

bool node_core_quiet(const struct node_core *core)
{
    return list_empty(&core->puts) && list_empty(&core->batches) && list_empty(&core->commits) &&
           list_empty(&core->upserts) && list_empty(&core->bundles_open) && list_empty(&core->bundles_ready) &&
           !core->reporting && core->gone.len == 0;
}

bool node_core_object(const struct node_core *core, uint32_t *at, struct node_object *out)
{
    for (; *at < core->slots; ++*at) {
        const struct obj *obj = node_obj_at(core, *at);

        if (obj->state != OBJ_PRESENT && obj->state != OBJ_UNINDEXED && obj->state != OBJ_DEAD)
            continue;
        *out = (struct node_object){
            .entry = {.key = obj->key,
                .generation = obj->generation,
                .version = obj->version,
                .offset = obj->offset,
                .length = obj->length,
                .segment = obj->segment,
                .head = obj->header_len},
            .pins = obj->pins,
            .indexed = obj->state == OBJ_PRESENT,
            .dead = obj->state == OBJ_DEAD,
        };
        ++*at;
        return true;
    }
    return false;
}
