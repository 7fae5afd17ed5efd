/* nodes.c - links of a client: the control link and the engine's peer of each node, and the link to the master.
 *
 * connecting -> link up -> NODE_INFO -> probe read -> announced to the core; a broken link takes it back to connecting, and a changed
 * address or epoch to a new node object. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "store/client/shell.h"

enum {
    PROBE_MS = 1000,
    PROBE_AGAIN_MS = 100,
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

bool shell_same_host(const struct mc_store *store, const struct store_member *member)
{
    return store->self.host_id[0] && strcmp(store->self.host_id, member->host_id) == 0;
}

/* Map the segments of a node of this host and its directory, so that callers can read from them without us. */
static void map_segments(struct node *node)
{
    uint32_t count = node->segments->count, highest = 0;
    struct names_view names = {0};

    for (uint32_t i = 0; i < count; i++)
        if (node->segments->row[i].id > highest && node->segments->row[i].id < STORE_SEGMENT_NAMES)
            highest = node->segments->row[i].id;
    struct hot_segment *segments = calloc(highest + 1, sizeof(*segments));
    for (uint32_t i = 0; segments && i < count; i++) {
        const struct store_segment *row = &node->segments->row[i];
        const void *base = NULL;
        struct mc_region_key key;

        memcpy(key.bytes, row->region, sizeof(key.bytes));
        if (row->id > STORE_SEGMENT_NAMES || mc_peer_map(node->engine, &key, 0, row->size, &base) != MC_OK)
            continue;
        if (row->id == STORE_SEGMENT_NAMES)
            names_open(base, row->size, &names);
        else
            segments[row->id] = (struct hot_segment){base, row->size};
    }
    if (segments)
        hot_node_set(&node->store->hot, node->peer, node->member.uuid, segments, highest + 1, &names);
    free(segments);
}

static enum mc_path path_of_segments(const struct node *node)
{
    struct mc_region_key key;

    if (node->segments->count == 0)
        return MC_PATH_NONE;
    memcpy(key.bytes, node->segments->row[0].region, sizeof(key.bytes));
    return mc_peer_path(node->engine, &key);
}

static void announce(struct node *node)
{
    struct mc_store *store = node->store;
    uint64_t now = loop_now_ns(store->loop);
    struct frame frame = {.type = MSG_NODE_INFO, .deadline_ms = DEADLINE_MS_NONE, .body = buf_slice(&node->info)};
    struct store_msg msg;
    const char *bad;

    node->announced = true;
    node->path = (uint8_t)path_of_segments(node);
    if (shell_same_host(store, &node->member))
        map_segments(node);
    client_core_on_peer_up(store->core, now, node->peer, node->member.uuid, node->member.epoch);
    if (store_msg_decode(&frame, &msg, &bad) == MC_OK)
        client_core_on_message(store->core, now, node->peer, &msg);
    shell_settle(store);
}

void nodes_settle(struct mc_store *store)
{
    for (uint32_t i = 1; i < store->nodes_top; i++) {
        struct node *node = store->nodes[i];
        bool usable = node && node->announced && client_core_usable(store->core, i);

        if (!node || node->hot == usable)
            continue;
        node->hot = usable;
        hot_node_up(&store->hot, i, usable);
    }
}

static void probe(struct node *node);

static void probe_later(struct node *node)
{
    struct loop *loop = node->store->loop;

    loop_timer_set(loop, &node->probe_again, deadline_after_ms(loop_now_ns(loop), PROBE_AGAIN_MS));
}

static void on_probe(struct mc_batch *batch, enum mc_status status, void *arg)
{
    struct node *node = arg;

    mc_batch_free(batch);
    free(node->probe_ops);
    node->probe = NULL;
    if (!store_link_up(node->link) || node->announced)
        return;
    if (status == MC_OK)
        announce(node);
    else
        probe_later(node);
}

static void on_probe_again(struct loop *loop, struct loop_timer *timer)
{
    probe(container_of(timer, struct node, probe_again));
}

/* A byte of each segment: when they have come back the engines know each other, in both directions, and every segment that can be
 * mapped is, so that mc_peer_map() has nothing to wait for: it would wait for this loop. */
static void probe(struct node *node)
{
    uint32_t count = node->segments ? node->segments->count : 0;

    if (node->probe || node->announced || !node->segments || !store_link_up(node->link))
        return;
    if (count == 0) {
        announce(node); /* a node without memory: nothing to read, and nothing it could pull */
        return;
    }
    node->probe_ops = calloc(count, sizeof(*node->probe_ops));
    for (uint32_t i = 0; node->probe_ops && i < count; i++) {
        struct mc_op *op = &node->probe_ops[i];

        *op = (struct mc_op){.opcode = MC_READ, .local = &node->probe_byte, .len = 1};
        memcpy(op->region.bytes, node->segments->row[i].region, sizeof(op->region.bytes));
    }
    if (!node->probe_ops ||
        mc_transfer_submit(node->engine, node->probe_ops, count, PROBE_MS, on_probe, node, &node->probe) != MC_OK) {
        free(node->probe_ops);
        probe_later(node);
    }
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
    node->hot = false;
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

void node_disconnect(void *ctx, uint32_t peer)
{
    struct mc_store *store = ctx;

    if (peer >= store->nodes_max)
        return;
    node_free(store->nodes[peer]);
    store->nodes[peer] = NULL;
}

void node_connect(void *ctx, uint32_t peer, const struct store_member *member)
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
    node_disconnect(ctx, peer);
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
        node_disconnect(ctx, peer);
}

/* ---- the master ---- */

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

const struct store_link_ops shell_master_ops = {
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

void nodes_fini(struct mc_store *store)
{
    for (uint32_t i = 0; store->nodes && i < store->nodes_top; i++)
        node_disconnect(store, i);
}
