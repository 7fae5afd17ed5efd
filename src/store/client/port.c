/* port.c - what the client's core asks of the world: messages, reads, exposed memory, mappings. Links are in nodes.c. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "store/client/shell.h"

enum {
    IO_MS = 60000, /* the core gives reads up by itself; this only bounds what it forgot */
    TOUCH_FLUSH_MS = 20,
    HOT_ENTRIES = 1 << 18,
};

/* ---- messages ---- */

static enum mc_status port_send(void *ctx, uint32_t peer, const struct store_msg *msg)
{
    struct mc_store *store = ctx;
    struct node *node = shell_node(store, peer);

    if (peer == STORE_PEER_MASTER)
        return store_link_send(store->master, msg);
    return node && node->announced ? store_link_send(node->link, msg) : MC_EPEERDOWN;
}

/* Kept from NODE_INFO already, before the node was announced. */
static void port_segments(void *ctx, uint32_t peer, struct slice segments)
{
}

/* ---- reads ---- */

/* What was read first is, nearly always, header and table. */
static void learn(struct mc_store *store, const struct store_batch *batch)
{
    const struct store_read *first = batch->arg;
    struct node *node = shell_node(store, batch->peer);

    if (node && node->announced && shell_same_host(store, &node->member))
        hot_learn(&store->hot, batch->peer, first->segment, first->offset, first->dst, first->len);
}

static void on_read(void *user, const struct store_batch *batch)
{
    struct mc_store *store = user;

    if (batch->status == MC_OK && batch->count > 0)
        learn(store, batch);
    client_core_on_io(store->core, loop_now_ns(store->loop), batch->cookie, batch->status);
    shell_settle(store);
}

static enum mc_status port_read(void *ctx, uint64_t cookie, uint32_t peer, struct store_read *reads, uint32_t count)
{
    struct mc_store *store = ctx;
    struct node *node = shell_node(store, peer);
    struct store_batch *batch;

    if (!node || !node->announced)
        return MC_EPEERDOWN;
    batch = store_batch_create(&store->reads, cookie, count);
    if (!batch)
        return MC_ENOMEM;
    batch->arg = reads;
    batch->peer = peer;
    for (uint32_t i = 0; i < count; i++) {
        struct mc_op *op = &batch->ops[i];
        uint64_t size;

        op->local = reads[i].dst;
        op->len = reads[i].len;
        op->offset = reads[i].offset;
        op->crc32c = &reads[i].crc;
        if (!node_segment(node, reads[i].segment, &op->region, &size)) {
            store_batch_free(batch);
            return MC_ENOENT;
        }
    }
    return store_batch_submit(batch, node->engine, IO_MS);
}

static void port_read_cancel(void *ctx, uint64_t cookie)
{
    struct mc_store *store = ctx;

    store_batch_drop(&store->reads, cookie);
}

/* ---- memory ---- */

static enum mc_status port_expose(void *ctx, const void *addr, uint64_t len, uint8_t region[STORE_REGION_KEY])
{
    struct mc_store *store = ctx;
    struct mc_region_key key;
    enum mc_status status = mc_te_register(store->te, (void *)(uintptr_t)addr, len, MC_REGION_READ, &key);

    if (status == MC_OK)
        memcpy(region, key.bytes, STORE_REGION_KEY);
    return status;
}

static void port_hide(void *ctx, const uint8_t region[STORE_REGION_KEY])
{
    struct mc_store *store = ctx;
    struct mc_region_key key;

    memcpy(key.bytes, region, STORE_REGION_KEY);
    mc_te_unregister(store->te, &key);
}

static enum mc_status port_map(
    void *ctx, uint32_t peer, uint32_t segment, uint64_t offset, uint64_t len, const void **addr)
{
    struct node *node = shell_node(ctx, peer);
    struct mc_region_key key;
    uint64_t size;

    if (!node || !node->announced)
        return MC_EPEERDOWN;
    if (!node_segment(node, segment, &key, &size))
        return MC_ENOENT;
    return mc_peer_map(node->engine, &key, offset, len, addr);
}

static void port_unmap(void *ctx, uint32_t peer, const void *addr)
{
    struct node *node = shell_node(ctx, peer);

    if (node && node->engine)
        mc_peer_unmap(node->engine, addr);
}

static bool port_far(void *ctx, uint32_t peer)
{
    const struct node *node = shell_node(ctx, peer);

    return node && node->path == MC_PATH_TCP;
}

static uint32_t port_distance(void *ctx, const struct store_member *member)
{
    return shell_same_host(ctx, member) ? 0 : 1;
}

/* ---- hints of what callers read by themselves ---- */

/* A node of this process is a node like others to whoever sends. UINT32_MAX: it is not connected. */
static uint32_t own_peer(const struct mc_store *store)
{
    for (uint32_t i = 1; i < store->nodes_top; i++)
        if (store->nodes[i] && memcmp(store->nodes[i]->member.uuid, store->near.own, UUID_SIZE) == 0)
            return i;
    return UINT32_MAX;
}

static void send_touches(struct mc_store *store, struct hot_touch *touches, uint32_t count)
{
    struct buf list;

    buf_init(&list, HOT_TOUCHES * 8 + 1);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t peer = touches[i].peer;

        if (peer == UINT32_MAX)
            continue; /* sent with an earlier one */
        buf_reset(&list);
        for (uint32_t j = i; j < count; j++)
            if (touches[j].peer == peer) {
                put_u64(&list, touches[j].generation);
                touches[j].peer = UINT32_MAX;
            }
        struct store_msg msg = {.type = MSG_NODE_TOUCH, .deadline_ms = DEADLINE_MS_NONE, .touch = buf_slice(&list)};
        port_send(store, peer == HOT_OWN ? own_peer(store) : peer, &msg); /* a hint: lost is lost */
    }
    buf_fini(&list);
}

static void on_touch_timer(struct loop *loop, struct loop_timer *timer)
{
    struct mc_store *store = container_of(timer, struct mc_store, touch_timer);
    static _Thread_local struct hot_touch touches[HOT_TOUCHES];

    send_touches(store, touches, hot_touches(&store->hot, touches));
}

static void on_touch(struct loop *loop, struct loop_task *task)
{
    struct mc_store *store = container_of(task, struct mc_store, touch_task);

    if (!loop_timer_pending(&store->touch_timer))
        loop_timer_set(loop, &store->touch_timer, deadline_after_ms(loop_now_ns(loop), TOUCH_FLUSH_MS));
}

/* ---- open and close ---- */

static enum mc_status start_engine(struct mc_store *store, const struct mc_store_opts *opts)
{
    struct mc_te_opts te_opts = {
        .size = sizeof(te_opts),
        .listen = "none",
        .transport = opts->transport,
        .fault = opts->fault,
        .host_id = opts->host_id,
        .run_dir = opts->run_dir,
        .epoch = 1,
    };
    enum mc_status status;

    random_bytes(te_opts.uuid, sizeof(te_opts.uuid));
    status = te_create_on_loop(&te_opts, store->loop, &store->te);
    if (status != MC_OK)
        return status;
    te_hello(store->te, &store->self);
    store->self.role = ROLE_CLIENT;
    return MC_OK;
}

static enum mc_status start_core(struct mc_store *store, const struct mc_store_opts *opts)
{
    struct client_limits limits = {.locations_max = opts->locations_max,
        .nodes_max = store->nodes_max,
        .ns = opts->ns,
        .lease_ms = opts->lease_ms,
        .get_promises = opts->get_promises};
    uint64_t seed;

    store->port = (struct store_port){
        .ctx = store,
        .send = port_send,
        .connect = node_connect,
        .disconnect = node_disconnect,
        .segments = port_segments,
        .read = port_read,
        .read_cancel = port_read_cancel,
        .expose = port_expose,
        .hide = port_hide,
        .map = port_map,
        .unmap = port_unmap,
        .distance = port_distance,
        .far = port_far,
    };
    random_bytes(&seed, sizeof(seed));
    return client_core_create(&limits, &store->port, seed, &store->core);
}

enum mc_status shell_open(struct mc_store *store, const struct mc_store_opts *opts)
{
    struct store_link_opts dial = {.self = &store->self, .ops = &shell_master_ops, .user = store};
    const char *why, *master = opts->master ? opts->master : "";
    enum mc_status status = addr_parse(master, STORE_MASTER_PORT, &dial.addr, &why);

    if (status != MC_OK) {
        log_error("store: master address %s: %s", master, why);
        return status;
    }
    store_reads_init(&store->reads, store->loop, on_read, store);
    loop_task_init(&store->touch_task, on_touch);
    loop_timer_init(&store->touch_timer, on_touch_timer);
    store->nodes_max = STORE_NODES_MAX + 1;
    store->ns = opts->ns;
    store->nodes = calloc(store->nodes_max, sizeof(struct node *));
    if (!store->nodes || loop_timer_reserve(store->loop, 2) != MC_OK)
        return MC_ENOMEM;
    status = hot_init(&store->hot, HOT_ENTRIES, store->nodes_max);
    if (status == MC_OK)
        status = start_engine(store, opts);
    if (status == MC_OK)
        status = start_core(store, opts);
    if (status != MC_OK)
        return status;
    store->master = store_link_open(store->loop, &dial);
    return store->master ? MC_OK : MC_ENOMEM;
}

void shell_close(struct mc_store *store)
{
    nodes_fini(store);
    store_link_close(store->master);
    store->master = NULL;
    if (store->te)
        mc_te_destroy(store->te);
    if (store->core)
        client_core_destroy(store->core);
    if (store->loop)
        loop_timer_cancel(store->loop, &store->touch_timer);
    store_reads_fini(&store->reads);
    hot_fini(&store->hot);
    free(store->nodes);
}
