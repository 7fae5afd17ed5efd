/* port.c - what the client's core asks of the world: messages, reads, exposed memory, mappings. Links are in nodes.c. */
#include <assert.h>
#include <stdarg.h>
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

/* A batch of reads with the engine. */
struct io {
    struct mc_store *store;
    struct mc_batch *batch;
    struct store_read *reads;
    uint64_t cookie;
    uint32_t peer, count;
    enum mc_status status;
    bool given_up;
    struct list link; /* store->ios, then store->io_done */
    struct mc_op ops[];
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

static void port_log(void *ctx, int level, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    log_at((enum log_level)level, "store: %s", text);
}

/* Kept from NODE_INFO already, before the node was announced. */
static void port_segments(void *ctx, uint32_t peer, struct slice segments)
{
}

/* ---- reads ---- */

static void on_read(struct mc_batch *batch, enum mc_status status, void *arg)
{
    struct io *io = arg;

    if (io->given_up)
        return;
    io->status = status;
    list_del(&io->link);
    list_push_back(&io->store->io_done, &io->link);
    loop_defer(io->store->loop, &io->store->deliver_task);
}

/* What was read first is, nearly always, header and table. */
static void learn(struct io *io)
{
    const struct store_read *first = &io->reads[0];
    struct node *node = shell_node(io->store, io->peer);

    if (node && node->announced && shell_same_host(io->store, &node->member))
        hot_learn(&io->store->hot, io->peer, first->segment, first->offset, first->dst, first->len);
}

static void on_deliver(struct loop *loop, struct loop_task *task)
{
    struct mc_store *store = container_of(task, struct mc_store, deliver_task);
    struct list *it;

    while ((it = list_pop_front(&store->io_done)) != NULL) {
        struct io *io = list_entry(it, struct io, link);
        uint64_t cookie = io->cookie;
        enum mc_status status = io->status;

        if (status == MC_OK && io->count > 0)
            learn(io);
        mc_batch_free(io->batch);
        free(io);
        client_core_on_io(store->core, loop_now_ns(loop), cookie, status);
    }
    shell_settle(store);
}

static enum mc_status port_read(void *ctx, uint64_t cookie, uint32_t peer, struct store_read *reads, uint32_t count)
{
    struct mc_store *store = ctx;
    struct node *node = shell_node(store, peer);

    if (!node || !node->announced)
        return MC_EPEERDOWN;
    struct io *io = calloc(1, sizeof(*io) + count * sizeof(io->ops[0]));
    if (!io)
        return MC_ENOMEM;
    *io = (struct io){.store = store, .reads = reads, .cookie = cookie, .peer = peer, .count = count};
    enum mc_status status = MC_OK;
    for (uint32_t i = 0; i < count && status == MC_OK; i++) {
        struct mc_op *op = &io->ops[i];
        uint64_t size;

        op->opcode = MC_READ;
        op->local = reads[i].dst;
        op->len = reads[i].len;
        op->offset = reads[i].offset;
        op->crc32c = &reads[i].crc;
        if (!node_segment(node, reads[i].segment, &op->region, &size))
            status = MC_ENOENT;
    }
    list_push_back(&store->ios, &io->link);
    if (status == MC_OK)
        status = mc_transfer_submit(node->engine, io->ops, count, IO_MS, on_read, io, &io->batch);
    if (status != MC_OK) {
        list_del(&io->link);
        free(io);
    }
    return status;
}

static struct io *find_io(struct list *head, uint64_t cookie)
{
    list_for_each (it, head) {
        struct io *io = list_entry(it, struct io, link);

        if (io->cookie == cookie)
            return io;
    }
    return NULL;
}

static void port_read_cancel(void *ctx, uint64_t cookie)
{
    struct mc_store *store = ctx;
    struct io *io = find_io(&store->ios, cookie);

    if (!io)
        io = find_io(&store->io_done, cookie);
    if (!io)
        return;
    io->given_up = true;
    list_del(&io->link);
    mc_batch_free(io->batch);
    free(io);
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

static uint32_t port_distance(void *ctx, const struct store_member *member)
{
    return shell_same_host(ctx, member) ? 0 : 1;
}

/* ---- hints of what callers read by themselves ---- */

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
        port_send(store, peer, &msg); /* a hint: lost is lost */
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
    struct client_limits limits = {.locations_max = opts->locations_max, .nodes_max = store->nodes_max, .ns = opts->ns};
    uint64_t seed;

    store->port = (struct store_port){
        .ctx = store,
        .send = port_send,
        .log = port_log,
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
    loop_task_init(&store->deliver_task, on_deliver);
    loop_task_init(&store->touch_task, on_touch);
    loop_timer_init(&store->touch_timer, on_touch_timer);
    list_init(&store->ios);
    list_init(&store->io_done);
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
    if (store->loop) {
        loop_timer_cancel(store->loop, &store->touch_timer);
        loop_defer_cancel(store->loop, &store->deliver_task);
    }
    list_for_each_safe (it, tmp, &store->ios)
        free(list_entry(it, struct io, link));
    list_for_each_safe (it, tmp, &store->io_done)
        free(list_entry(it, struct io, link));
    hot_fini(&store->hot);
    free(store->nodes);
}
