/* node.c - the shell around node_core: memory, sockets, threads. See node.h.
 *
 * Everything of the core happens on the loop. After each event `settle` runs once at the end of the turn: it sets the timer
 * the core asks for, and hands a fresh beat to the heart (at most every BEAT_MS while busy, nothing while idle). */
#include "store/node/node.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "store/link.h"
#include "store/node/admin.h"
#include "store/node/heart.h"
#include "store/node/node_core.h"
#include "store/node/prefault.h"
#include "store/reads.h"
#include "store/state.h"
#include "transfer/te.h"

enum {
    BEAT_MS = 50, /* a beat's numbers are at most this old */
    PEERS_MAX = 4096,
    PUTS_MAX = 16384, /* being written at once, of all clients */
    CREDITS = 16384,  /* requests of one client under way */
    PULL_MS = 60000,  /* the core gives pulls up by itself; this only bounds what it forgot */
};

#define MEMORY_DEFAULT  (1ull << 30)
#define SEGMENT_DEFAULT (1ull << 30)
#define SEGMENT_MIN     (1ull << 20)

struct store_node {
    struct loop *loop;
    struct mc_te *te;
    struct listener *listener;
    struct store_link_table *clients;
    struct store_link *master;
    struct node_core *core;
    struct heart *heart;
    struct prefault *prefault;
    struct http_server *http;
    struct metrics *metrics;
    bool metrics_own;
    struct state_dir state;
    struct store_member self;
    struct store_port port;
    struct node_memory memory[STORE_SEGMENTS_MAX];
    uint32_t segments;
    struct node_names names;
    bool huge_pages;
    char address[ADDR_TEXT_MAX], admin[ADDR_TEXT_MAX];

    struct loop_timer wake, beat_timer;
    struct loop_task settle, drain;
    struct store_reads pulls;
    uint64_t beat_next_ns;

    pthread_mutex_t lock;
    struct store_beat beat;        /* guarded by lock */
    double hit_ratio[CURVE_SIZES]; /* guarded by lock */
    bool registered, quiet;        /* guarded by lock */
};

/* ---- after events ---- */

static void publish_beat(struct store_node *node, bool now)
{
    struct store_beat beat;

    node_core_beat(node->core, &beat);
    pthread_mutex_lock(&node->lock);
    node->beat = beat;
    node_core_curve(node->core, node->hit_ratio);
    node->registered = store_link_up(node->master);
    node->quiet = node_core_quiet(node->core);
    pthread_mutex_unlock(&node->lock);
    if (node->heart)
        heart_set(node->heart, &beat, now);
}

static void on_settle(struct loop *loop, struct loop_task *task)
{
    struct store_node *node = container_of(task, struct store_node, settle);
    uint64_t now = loop_now_ns(loop);

    loop_timer_set(loop, &node->wake, node_core_wake(node->core));
    if (loop_timer_pending(&node->beat_timer))
        return;
    if (now >= node->beat_next_ns) {
        publish_beat(node, false);
        node->beat_next_ns = now + BEAT_MS * NS_PER_MS;
    } else {
        loop_timer_set(loop, &node->beat_timer, node->beat_next_ns);
    }
}

static void settle(struct store_node *node)
{
    loop_defer(node->loop, &node->settle);
}

static void on_wake(struct loop *loop, struct loop_timer *timer)
{
    struct store_node *node = container_of(timer, struct store_node, wake);

    node_core_on_tick(node->core, loop_now_ns(loop));
    settle(node);
}

static void on_beat_timer(struct loop *loop, struct loop_timer *timer)
{
    struct store_node *node = container_of(timer, struct store_node, beat_timer);

    publish_beat(node, false);
    node->beat_next_ns = loop_now_ns(loop) + BEAT_MS * NS_PER_MS;
}

static void on_drain(struct loop *loop, struct loop_task *task)
{
    struct store_node *node = container_of(task, struct store_node, drain);

    node_core_drain(node->core);
    publish_beat(node, true);
    settle(node);
}

/* ---- the core's port ---- */

static enum mc_status port_send(void *ctx, uint32_t peer, const struct store_msg *msg)
{
    struct store_node *node = ctx;

    return peer == STORE_PEER_MASTER ? store_link_send(node->master, msg)
                                     : store_link_table_send(node->clients, peer, msg);
}

/* The client's engine, found by the identity both its connections show. Kept with the peer, and closed when the control connection
 * ends: until then a pull waits for an engine that has lost its connections and dials. */
static struct mc_peer *engine_of(struct store_node *node, uint32_t peer)
{
    struct mc_peer *engine = store_link_table_data(node->clients, peer);
    const struct hello *hello = store_link_table_hello(node->clients, peer);

    if (!engine && hello && te_peer_by_uuid(node->te, hello->uuid, &engine) == MC_OK)
        store_link_table_set_data(node->clients, peer, engine);
    return engine;
}

static void on_pulled(void *user, const struct store_batch *batch)
{
    struct store_node *node = user;

    node_core_on_io(node->core, loop_now_ns(node->loop), batch->cookie, batch->status);
    settle(node);
}

static enum mc_status port_pull(void *ctx, uint64_t cookie, uint32_t peer, struct store_pull *pulls, uint32_t count)
{
    struct store_node *node = ctx;
    struct mc_peer *engine = engine_of(node, peer);
    struct store_batch *batch;

    if (!engine)
        return MC_ENOMEM;
    batch = store_batch_create(&node->pulls, cookie, count);
    if (!batch)
        return MC_ENOMEM;
    for (uint32_t i = 0; i < count; i++) {
        struct mc_op *op = &batch->ops[i];

        op->local = pulls[i].dst;
        op->len = pulls[i].len;
        memcpy(op->region.bytes, pulls[i].region, sizeof(op->region.bytes));
        op->offset = pulls[i].offset;
        op->crc32c = &pulls[i].crc;
    }
    return store_batch_submit(batch, engine, PULL_MS);
}

static void port_pull_cancel(void *ctx, uint64_t cookie)
{
    struct store_node *node = ctx;

    store_batch_cancel(&node->pulls, cookie);
}

/* ---- links ---- */

static void client_up(void *user, uint32_t peer, const struct hello *hello)
{
    struct store_node *node = user;

    node_core_on_peer_up(node->core, loop_now_ns(node->loop), peer);
    settle(node);
}

static void client_down(void *user, uint32_t peer)
{
    struct store_node *node = user;
    struct mc_peer *engine = store_link_table_data(node->clients, peer);

    if (engine)
        mc_peer_close(engine);
    node_core_on_peer_down(node->core, loop_now_ns(node->loop), peer);
    settle(node);
}

static void client_message(void *user, uint32_t peer, const struct store_msg *msg)
{
    struct store_node *node = user;

    node_core_on_message(node->core, loop_now_ns(node->loop), peer, msg);
    settle(node);
}

static const struct store_link_table_ops client_ops = {
    .on_up = client_up, .on_down = client_down, .on_message = client_message};

static void master_up(struct store_link *link, const struct hello *peer)
{
    struct store_node *node = store_link_user(link);

    char address[ADDR_TEXT_MAX];

    log_info("node: master found at %s", addr_format(store_link_addr(link), address));
    node_core_on_peer_up(node->core, loop_now_ns(node->loop), STORE_PEER_MASTER);
    settle(node);
}

static void master_down(struct store_link *link, enum mc_status why)
{
    struct store_node *node = store_link_user(link);

    log_info("node: master lost: %s", mc_status_str(why));
    node_core_on_peer_down(node->core, loop_now_ns(node->loop), STORE_PEER_MASTER);
    settle(node);
}

static void master_message(struct store_link *link, const struct store_msg *msg)
{
    struct store_node *node = store_link_user(link);

    node_core_on_message(node->core, loop_now_ns(node->loop), STORE_PEER_MASTER, msg);
    settle(node);
}

static const struct store_link_ops master_ops = {
    .on_up = master_up, .on_down = master_down, .on_message = master_message};

static enum mc_status on_hello(struct conn *conn, const struct hello *peer, struct buf *why)
{
    struct store_node *node = conn_user(conn);

    if (te_wants(peer))
        return te_adopt(node->te, conn, peer, why);
    switch (peer->role) {
    case ROLE_CLIENT:
    case ROLE_WORKER:
    case ROLE_CONDUCTOR:
    case ROLE_TOOL: return store_link_table_accept(node->clients, conn, why);
    default:
        buf_printf(why, "this is a store node; a %s has no business here", role_name(peer->role));
        return MC_EREFUSED;
    }
}

/* ---- metrics ---- */

static void collect(void *arg)
{
    struct store_node *node = arg;
    struct store_node_status status;

    store_node_status(node, &status);
    node_metrics_set(node->metrics, &status);
}

/* ---- set-up, in order; destroy undoes what is there ---- */

static bool parse_addr(const char *what, const char *text, uint16_t port, struct addr *addr)
{
    const char *why;

    if (addr_parse(text, port, addr, &why) == MC_OK)
        return true;
    log_error("node: %s address %s: %s", what, text, why);
    return false;
}

static enum mc_status start_engine(struct store_node *node, const struct store_node_opts *opts)
{
    struct mc_te_opts te_opts = {
        .size = sizeof(te_opts),
        .listen = "none",
        .transport = opts->transport,
        .fault = opts->fault,
        .host_id = opts->host_id,
        .run_dir = opts->run_dir,
        .epoch = node->self.epoch,
    };

    memcpy(te_opts.uuid, node->self.uuid, UUID_SIZE);
    return te_create_on_loop(&te_opts, node->loop, &node->te);
}

static enum mc_status segment_add(struct store_node *node, uint64_t size, void *lent)
{
    struct te_memory memory = {.addr = lent, .len = size};
    struct node_memory *m = &node->memory[node->segments];
    enum mc_status status = lent ? mc_te_register(node->te, lent, size, MC_REGION_READ, &memory.key)
                                 : te_alloc(node->te, size, MC_REGION_READ, &memory);

    if (status != MC_OK) {
        log_error("node: cannot %s a segment of %llu bytes: %s", lent ? "register" : "allocate",
            (unsigned long long)size, mc_status_str(status));
        return status;
    }
    if (!lent)
        node->huge_pages = prefault_huge_pages(memory.addr, memory.len);
    m->base = memory.addr;
    m->size = memory.len;
    memcpy(m->region, memory.key.bytes, STORE_REGION_KEY);
    node->segments++;
    return MC_OK;
}

static enum mc_status allocate(struct store_node *node, const struct store_node_opts *opts)
{
    uint64_t left = opts->memory ? opts->memory : MEMORY_DEFAULT;
    uint64_t segment_size = opts->segment_size ? opts->segment_size : SEGMENT_DEFAULT;
    uint8_t *lent = opts->lent;

    if (left < SEGMENT_MIN || segment_size < SEGMENT_MIN || left / segment_size >= STORE_SEGMENT_NAMES) {
        log_error("node: memory %llu in segments of %llu: at least 1 MiB each, at most %d segments",
            (unsigned long long)left, (unsigned long long)segment_size, STORE_SEGMENT_NAMES);
        return MC_EINVAL;
    }
    while (left >= SEGMENT_MIN) {
        uint64_t size = left < segment_size ? left : segment_size;
        enum mc_status status = segment_add(node, size, lent);

        if (status != MC_OK)
            return status;
        lent = lent ? lent + size : NULL;
        left -= size;
    }
    return MC_OK;
}

/* Committed as names are put; lent memory may be of any kind, this is always a memfd. */
static enum mc_status allocate_names(struct store_node *node)
{
    struct node_memory *m = &node->names.memory;
    struct te_memory memory;
    uint64_t capacity = 0;
    enum mc_status status;

    for (uint32_t i = 0; i < node->segments; i++)
        capacity += node->memory[i].size;
    status = te_alloc(node->te, names_size(capacity), MC_REGION_READ, &memory);
    if (status != MC_OK) {
        log_error("node: cannot allocate the directory of names: %s", mc_status_str(status));
        return status;
    }
    m->base = memory.addr;
    m->size = memory.len;
    memcpy(m->region, memory.key.bytes, STORE_REGION_KEY);
    node->names.table = names_init(memory.addr, memory.len);
    return MC_OK;
}

static enum mc_status start_core(struct store_node *node, const struct store_node_opts *opts)
{
    struct node_limits limits = {.policy = opts->policy,
        .peers_max = PEERS_MAX,
        .puts_max = PUTS_MAX,
        .wall_ms = wall_ms() - now_ns() / NS_PER_MS};
    uint64_t seed;

    node->port = (struct store_port){
        .ctx = node, .send = port_send, .log = store_log, .pull = port_pull, .pull_cancel = port_pull_cancel};
    random_bytes(&seed, sizeof(seed));
    return node_core_create(
        &limits, &node->port, &node->self, node->memory, node->segments, &node->names, seed, &node->core);
}

static enum mc_status start_listener(struct store_node *node, const struct addr *addr, const struct hello *self)
{
    struct listener_opts opts = {
        .self = self,
        .ops = &store_undecided_ops,
        .user = node,
        .on_hello = on_hello,
        .conns_max = 4 * PEERS_MAX,
        .limits = {.credits = CREDITS},
    };

    return conn_listen(node->loop, addr, &opts, &node->listener);
}

static enum mc_status name_self(struct store_node *node, const struct store_node_opts *opts)
{
    struct store_member *self = &node->self;
    const char *address = opts->advertise ? opts->advertise : node->address;
    char host[40] = "node";

    if ((size_t)snprintf(self->address, sizeof(self->address), "%s", address) >= sizeof(self->address)) {
        log_error("node: address %s is too long", address);
        return MC_EINVAL;
    }
    gethostname(host, sizeof(host) - 1);
    if (opts->name)
        snprintf(self->name, sizeof(self->name), "%s", opts->name);
    else
        snprintf(self->name, sizeof(self->name), "%s:%u", host, listener_addr(node->listener)->port);
    snprintf(self->zone, sizeof(self->zone), "%s", opts->zone ? opts->zone : "");
    self->ephemeral = opts->ephemeral;
    return MC_OK;
}

static enum mc_status set_up(struct store_node *node, const struct store_node_opts *opts)
{
    struct addr listen, master;
    struct hello self = {0};
    char fallback[32];
    enum mc_status status;

    if (!parse_addr("listen", opts->listen ? opts->listen : "", STORE_NODE_PORT, &listen) ||
        !parse_addr("master", opts->master ? opts->master : "", STORE_MASTER_PORT, &master))
        return MC_EINVAL;
    snprintf(fallback, sizeof(fallback), "node-%u", listen.port);
    status = state_open(opts->ephemeral ? "none" : opts->state_dir, listen.port ? fallback : NULL, &node->state);
    if (status == MC_OK)
        status = state_identity(&node->state, node->self.uuid, &node->self.epoch);
    if (status == MC_OK)
        status = start_engine(node, opts);
    if (status == MC_OK)
        status = allocate(node, opts);
    if (status == MC_OK)
        status = allocate_names(node);
    if (status != MC_OK)
        return status;
    te_hello(node->te, &self);
    self.role = ROLE_NODE;
    static_assert(sizeof(node->self.host_id) == sizeof(self.host_id), "the same text");
    memcpy(node->self.host_id, self.host_id, sizeof(self.host_id));
    status = start_listener(node, &listen, &self);
    if (status != MC_OK)
        return status;
    addr_format(listener_addr(node->listener), node->address);
    status = name_self(node, opts);
    if (status == MC_OK)
        status = start_core(node, opts);
    if (status != MC_OK)
        return status;
    struct store_link_opts dial = {.addr = master, .self = &self, .ops = &master_ops, .user = node};
    node->clients = store_link_table_create(PEERS_MAX, &client_ops, node);
    node->master = store_link_open(node->loop, &dial);
    self.role = ROLE_HEARTBEAT;
    node->heart = heart_start(&master, &self, node->names.table);
    if (!node->clients || !node->master || !node->heart)
        return MC_ENOMEM;
    publish_beat(node, false);
    if (!opts->no_prefault)
        node->prefault = prefault_start(node->memory, node->segments);
    return node_http_start(node->loop, opts->admin, node->metrics, &node->http, node->admin);
}

enum mc_status store_node_create(const struct store_node_opts *opts, struct store_node **out)
{
    struct store_node *node = calloc(1, sizeof(*node));
    enum mc_status status = MC_ENOMEM;

    if (!node)
        return MC_ENOMEM;
    pthread_mutex_init(&node->lock, NULL);
    node->state.lock_fd = -1;
    loop_timer_init(&node->wake, on_wake);
    loop_timer_init(&node->beat_timer, on_beat_timer);
    loop_task_init(&node->settle, on_settle);
    loop_task_init(&node->drain, on_drain);
    node->metrics_own = !opts->metrics;
    node->metrics = opts->metrics ? opts->metrics : metrics_create();
    node->loop = loop_create("mc-node");
    store_reads_init(&node->pulls, node->loop, on_pulled, node);
    if (node->metrics && node->loop && loop_timer_reserve(node->loop, 2) == MC_OK)
        status = set_up(node, opts);
    if (status != MC_OK) {
        store_node_destroy(node);
        return status;
    }
    metrics_collector(node->metrics, collect, node);
    char uuid[UUID_TEXT];
    log_info("node %s %s epoch %u serves %llu bytes in %u segments at %s", node->self.name,
        uuid_format(node->self.uuid, uuid), node->self.epoch, (unsigned long long)node->beat.capacity, node->segments,
        node->address);
    *out = node;
    return MC_OK;
}

void store_node_destroy(struct store_node *node)
{
    if (!node)
        return;
    if (node->metrics)
        metrics_collector_remove(node->metrics, collect, node);
    if (node->loop)
        loop_thread_stop(node->loop);
    heart_stop(node->heart);
    prefault_stop(node->prefault);
    if (node->http)
        http_server_destroy(node->http);
    if (node->listener)
        listener_close(node->listener);
    store_link_table_destroy(node->clients);
    store_link_close(node->master);
    if (node->te)
        mc_te_destroy(node->te); /* pulls end here */
    if (node->core)
        node_core_destroy(node->core);
    if (node->loop) {
        loop_timer_cancel(node->loop, &node->wake);
        loop_timer_cancel(node->loop, &node->beat_timer);
        loop_defer_cancel(node->loop, &node->settle);
        store_reads_fini(&node->pulls);
        loop_destroy(node->loop);
    }
    if (node->metrics_own)
        metrics_destroy(node->metrics);
    state_close(&node->state);
    pthread_mutex_destroy(&node->lock);
    free(node);
}

/* ---- running, asking ---- */

void store_node_run(struct store_node *node)
{
    loop_run(node->loop);
}

enum mc_status store_node_start(struct store_node *node)
{
    return loop_thread_start(node->loop);
}

void store_node_stop(struct store_node *node)
{
    loop_stop(node->loop);
}

void store_node_drain(struct store_node *node)
{
    loop_post(node->loop, &node->drain);
}

const char *store_node_address(const struct store_node *node)
{
    return node->address;
}

const char *store_node_admin(const struct store_node *node)
{
    return node->admin;
}

const uint8_t *store_node_uuid(const struct store_node *node)
{
    return node->self.uuid;
}

uint32_t store_node_epoch(const struct store_node *node)
{
    return node->self.epoch;
}

void store_node_status(struct store_node *node, struct store_node_status *out)
{
    pthread_mutex_lock(&node->lock);
    *out = (struct store_node_status){
        .registered = node->registered,
        .quiet = node->quiet,
        .huge_pages = node->huge_pages,
        .beat = node->beat,
    };
    memcpy(out->hit_ratio, node->hit_ratio, sizeof(out->hit_ratio));
    pthread_mutex_unlock(&node->lock);
    out->prefaulted = prefault_progress(node->prefault);
}

struct names_view store_node_names(const struct store_node *node)
{
    struct names_view view = {0};

    names_open(node->names.table, node->names.memory.size, &view);
    return view;
}

bool store_node_segment(const struct store_node *node, uint32_t index, void **addr, uint64_t *size)
{
    if (index >= node->segments)
        return false;
    *addr = node->memory[index].base;
    *size = node->memory[index].size;
    return true;
}
