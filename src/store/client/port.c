/* port.c - what the client's core asks of the world: links to master and nodes, reads, exposed memory, mappings. */
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
    PROBE_MS = 1000,
    PROBE_AGAIN_MS = 100,
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

/* ---- nodes ---- */

struct node *shell_node(const struct mc_store *store, uint32_t peer)
{
    return peer < store->nodes_max ? store->nodes[peer] : NULL;
}

uint8_t shell_path(const struct mc_store *store, const uint8_t uuid[16])
{
    for (uint32_t i = 0; i < store->nodes_top; i++)
        if (store->nodes[i] && memcmp(store->nodes[i]->member.uuid, uuid, UUID_SIZE) == 0)
            return store->nodes[i]->path;
    return MC_PATH_NONE;
}

bool node_segment(const struct node *node, uint32_t segment, struct mc_region_key *key, uint64_t *size)
{
    for (uint32_t i = 0; node->segments && i < node->segments->count; i++) {
        const struct store_segment *row = &node->segments->row[i];

        if (row->id != segment)
            continue;
        memcpy(key->bytes, row->region, sizeof(key->bytes));
        *size = row->size;
        return true;
    }
    return false;
}

static bool same_host(const struct mc_store *store, const struct store_member *member)
{
    return store->self.host_id[0] && strcmp(store->self.host_id, member->host_id) == 0;
}

/* Map the segments of a node of this host, so that callers can read from them without us. */
static void map_segments(struct node *node)
{
    uint32_t count = node->segments->count, highest = 0;

    for (uint32_t i = 0; i < count; i++)
        if (node->segments->row[i].id > highest)
            highest = node->segments->row[i].id;
    if (highest >= STORE_SEGMENTS_MAX)
        return;
    const void **bases = calloc(highest + 1, sizeof(*bases));
    uint64_t *sizes = calloc(highest + 1, sizeof(*sizes));
    for (uint32_t i = 0; bases && sizes && i < count; i++) {
        const struct store_segment *row = &node->segments->row[i];
        struct mc_region_key key;

        memcpy(key.bytes, row->region, sizeof(key.bytes));
        if (mc_peer_map(node->engine, &key, 0, row->size, &bases[row->id]) == MC_OK)
            sizes[row->id] = row->size;
        else
            bases[row->id] = NULL;
    }
    if (bases && sizes)
        hot_node_set(&node->store->hot, node->peer, node->member.uuid, highest + 1, bases, sizes);
    free(bases);
    free(sizes);
}

static void announce(struct node *node)
{
    struct mc_store *store = node->store;
    uint64_t now = loop_now_ns(store->loop);
    struct frame frame = {.type = MSG_NODE_INFO, .deadline_ms = DEADLINE_MS_NONE, .body = buf_slice(&node->info)};
    struct store_msg msg;
    const char *bad;

    node->announced = true;
    node->path = node->segments->count ? (uint8_t)mc_peer_path(node->engine, &node->probe_op.region) : MC_PATH_NONE;
    if (same_host(store, &node->member))
        map_segments(node);
    hot_node_up(&store->hot, node->peer, true);
    client_core_on_peer_up(store->core, now, node->peer, node->member.uuid, node->member.epoch);
    if (store_msg_decode(&frame, &msg, &bad) == MC_OK)
        client_core_on_message(store->core, now, node->peer, &msg);
    shell_settle(store);
}

static void probe(struct node *node);

static void on_probe(struct mc_batch *batch, enum mc_status status, void *arg)
{
    struct node *node = arg;

    mc_batch_free(batch);
    node->probe = NULL;
    if (!store_link_up(node->link) || node->announced)
        return;
    if (status == MC_OK)
        announce(node);
    else
        loop_timer_set(
            node->store->loop, &node->probe_again, deadline_after_ms(loop_now_ns(node->store->loop), PROBE_AGAIN_MS));
}

static void on_probe_again(struct loop *loop, struct loop_timer *timer)
{
    probe(container_of(timer, struct node, probe_again));
}

/* One small read: when it has come back the engines know each other, in both directions. */
static void probe(struct node *node)
{
    uint64_t size;

    if (node->probe || node->announced || !node->segments || !store_link_up(node->link))
        return;
    node->probe_op = (struct mc_op){.opcode = MC_READ, .local = node->probe_byte, .len = sizeof(node->probe_byte)};
    if (node->segments->count == 0) {
        announce(node); /* a node without memory: nothing to read, and nothing it could pull */
        return;
    }
    node_segment(node, node->segments->row[0].id, &node->probe_op.region, &size);
    if (mc_transfer_submit(node->engine, &node->probe_op, 1, PROBE_MS, on_probe, node, &node->probe) != MC_OK)
        loop_timer_set(
            node->store->loop, &node->probe_again, deadline_after_ms(loop_now_ns(node->store->loop), PROBE_AGAIN_MS));
}

/* NODE_INFO: the first message of a node. */
static void take_info(struct node *node, const struct store_msg *msg)
{
    uint32_t count = store_segment_count(msg->segments);
    struct node_segments *segments = malloc(sizeof(*segments) + count * sizeof(segments->row[0]));

    if (!segments)
        return;
    segments->count = count;
    for (uint32_t i = 0; i < count; i++)
        segments->row[i] = store_segment_at(msg->segments, i);
    free(node->segments);
    node->segments = segments;
    buf_reset(&node->info);
    store_msg_encode(msg, &node->info);
    probe(node);
}

static void node_up(struct store_link *link, const struct hello *peer)
{
}

static void node_quiet(struct node *node)
{
    loop_timer_cancel(node->store->loop, &node->probe_again);
    if (node->probe)
        mc_batch_cancel(node->probe);
    hot_node_up(&node->store->hot, node->peer, false);
}

static void node_down(struct store_link *link, enum mc_status why)
{
    struct node *node = store_link_user(link);
    struct mc_store *store = node->store;

    node_quiet(node);
    if (!node->announced)
        return;
    node->announced = false;
    client_core_on_peer_down(store->core, loop_now_ns(store->loop), node->peer);
    shell_settle(store);
}

static void node_message(struct store_link *link, const struct store_msg *msg)
{
    struct node *node = store_link_user(link);
    struct mc_store *store = node->store;

    if (!node->announced) {
        if (msg->type == MSG_NODE_INFO)
            take_info(node, msg);
        return;
    }
    client_core_on_message(store->core, loop_now_ns(store->loop), node->peer, msg);
    shell_settle(store);
}

static const struct store_link_ops node_ops = {.on_up = node_up, .on_down = node_down, .on_message = node_message};

/* Nothing of the engine is used any more after this; reads under way end. */
static void node_close_engine(struct node *node)
{
    node_quiet(node);
    hot_node_clear(&node->store->hot, node->peer);
    if (node->engine)
        mc_peer_close(node->engine);
    node->engine = NULL;
}

static void node_free(struct node *node)
{
    if (!node)
        return;
    node->announced = false; /* the core has let go of it */
    store_link_close(node->link);
    node_close_engine(node);
    buf_fini(&node->info);
    free(node->segments);
    free(node);
}

static enum mc_status node_dial(struct node *node)
{
    const struct store_member *member = &node->member;
    struct mc_store *store = node->store;
    struct mc_peer_opts peer_opts = {.size = sizeof(peer_opts), .uuid = member->uuid, .epoch = member->epoch};
    struct hello_expect expect = {.uuid_set = true, .epoch_set = true, .epoch = member->epoch};
    struct store_link_opts opts = {.self = &store->self, .expect = &expect, .ops = &node_ops, .user = node};
    const char *why;
    enum mc_status status = addr_parse(member->address, STORE_NODE_PORT, &opts.addr, &why);

    if (status != MC_OK) {
        log_warn("store: node %s has address %s: %s", member->name, member->address, why);
        return status;
    }
    memcpy(expect.uuid, member->uuid, sizeof(expect.uuid));
    status = te_peer_connect(store->te, member->address, &peer_opts, &node->engine);
    if (status != MC_OK)
        return status;
    node->link = store_link_open(store->loop, &opts);
    return node->link ? MC_OK : MC_ENOMEM;
}

static void port_disconnect(void *ctx, uint32_t peer)
{
    struct mc_store *store = ctx;

    if (peer >= store->nodes_max)
        return;
    node_free(store->nodes[peer]);
    store->nodes[peer] = NULL;
}

static void port_connect(void *ctx, uint32_t peer, const struct store_member *member)
{
    struct mc_store *store = ctx;

    if (peer == STORE_PEER_MASTER || peer >= store->nodes_max)
        return;
    struct node *old = store->nodes[peer];
    bool was_up = old && old->announced;
    if (old && was_up && old->member.epoch == member->epoch && strcmp(old->member.address, member->address) == 0) {
        old->member = *member;
        return;
    }
    port_disconnect(ctx, peer);
    struct node *node = calloc(1, sizeof(*node));
    if (!node)
        return;
    node->store = store;
    node->peer = peer;
    node->member = *member;
    loop_timer_init(&node->probe_again, on_probe_again);
    buf_init(&node->info, FRAME_BODY_MAX);
    store->nodes[peer] = node;
    if (peer >= store->nodes_top)
        store->nodes_top = peer + 1;
    if (loop_timer_reserve(store->loop, 1) != MC_OK || node_dial(node) != MC_OK)
        port_disconnect(ctx, peer);
}

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

static void master_up(struct store_link *link, const struct hello *peer)
{
    struct mc_store *store = store_link_user(link);

    client_core_on_peer_up(store->core, loop_now_ns(store->loop), STORE_PEER_MASTER, peer->uuid, peer->epoch);
    atomic_store(&store->master_up, 1);
    word_wake_all(&store->master_up);
    shell_settle(store);
}

static void master_down(struct store_link *link, enum mc_status why)
{
    struct mc_store *store = store_link_user(link);

    atomic_store(&store->master_up, 0);
    client_core_on_peer_down(store->core, loop_now_ns(store->loop), STORE_PEER_MASTER);
    shell_settle(store);
}

static void master_message(struct store_link *link, const struct store_msg *msg)
{
    struct mc_store *store = store_link_user(link);

    client_core_on_message(store->core, loop_now_ns(store->loop), STORE_PEER_MASTER, msg);
    shell_settle(store);
}

static const struct store_link_ops master_ops = {
    .on_up = master_up, .on_down = master_down, .on_message = master_message};

struct master_error {
    struct mc_store *store;
    enum mc_status status;
};

static void master_error_on_loop(struct loop *loop, void *arg)
{
    struct master_error *error = arg;

    error->status = store_link_error(error->store->master, NULL);
}

enum mc_status shell_master_error(struct mc_store *store)
{
    struct master_error error = {.store = store};

    loop_call(store->loop, master_error_on_loop, &error);
    return error.status == MC_EVERSION || error.status == MC_EPERM ? error.status : MC_EPEERDOWN;
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

    if (node && node->announced && same_host(io->store, &node->member))
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
    return same_host(ctx, member) ? 0 : 1;
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
        .connect = port_connect,
        .disconnect = port_disconnect,
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
    struct store_link_opts dial = {.self = &store->self, .ops = &master_ops, .user = store};
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
    for (uint32_t i = 0; store->nodes && i < store->nodes_top; i++) {
        node_free(store->nodes[i]);
        store->nodes[i] = NULL;
    }
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
