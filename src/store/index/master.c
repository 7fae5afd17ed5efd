/* master.c - the shell around index_core: sockets, admin HTTP, the term file. See master.h.
 *
 * Heartbeats come in on connections of their own but are read by the same loop: what the loop cannot read in time it has not
 * read of anybody. So time passes in the core only after the sockets of a turn were read; and when the timer comes late we were
 * stopped, or the loop was busy, and index_core_on_gap() says that this silence means nothing. Nobody but the timer draws conclusions
 * from silence, so no other watch is needed, and an idle master wakes for heartbeats only. */
#include "store/index/master.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "net/http.h"
#include "net/json.h"
#include "store/index/index_core.h"
#include "store/index/table_core.h"
#include "store/link.h"
#include "store/state.h"

enum {
    PEERS_MAX = 4096,
    WHERE_MAX = 64,
    CREDITS = 16384,
    LATE_MS =
        150, /* together with the longest pause between two beats a node is allowed: under what makes it suspect */
};

struct store_master {
    struct loop *loop;
    struct listener *listener;
    struct store_link_table *peers;
    struct index_core *core;
    struct http_server *http;
    struct http_route *routes; /* the caller's and ours */
    struct metrics *metrics;
    bool metrics_own;
    struct state_dir state;
    uint64_t term_kept;
    struct store_port port;
    struct loop_timer wake;
    uint64_t wake_ns; /* when it is due; DEADLINE_NONE */
    struct loop_task tick, settle;
    char address[ADDR_TEXT_MAX], admin[ADDR_TEXT_MAX];
};

/* ---- after events ---- */

/* The term is raised before a version is given out in it; so it is on disk before its first version can have left. */
static void keep_term(struct store_master *master)
{
    struct index_stats stats;

    index_core_stats(master->core, &stats);
    if (stats.term == master->term_kept)
        return;
    if (state_number_set(&master->state, "term", stats.term) == MC_OK)
        master->term_kept = stats.term;
}

static void on_settle(struct loop *loop, struct loop_task *task)
{
    struct store_master *master = container_of(task, struct store_master, settle);
    uint64_t now = loop_now_ns(loop), wake = index_core_wake(master->core);

    master->wake_ns =
        wake > now ? wake : deadline_min(master->wake_ns, now); /* what was due before stays due since then */
    loop_timer_set(loop, &master->wake, wake);
}

static void settle(struct store_master *master)
{
    keep_term(master);
    loop_defer(master->loop, &master->settle);
}

static void on_tick(struct loop *loop, struct loop_task *task)
{
    struct store_master *master = container_of(task, struct store_master, tick);

    index_core_on_tick(master->core, loop_now_ns(loop));
    settle(master);
}

static void on_wake(struct loop *loop, struct loop_timer *timer)
{
    struct store_master *master = container_of(timer, struct store_master, wake);
    uint64_t now = loop_now_ns(loop), late = now > master->wake_ns ? now - master->wake_ns : 0;

    master->wake_ns = DEADLINE_NONE;
    if (late > LATE_MS * NS_PER_MS) {
        log_warn("master: did not run for %llu ms; silence of nodes in that time is not held against them",
            (unsigned long long)(late / NS_PER_MS));
        index_core_on_gap(master->core, now);
    }
    loop_defer(loop, &master->tick);
}

/* ---- the core's port, and its peers ---- */

static enum mc_status port_send(void *ctx, uint32_t peer, const struct store_msg *msg)
{
    struct store_master *master = ctx;

    return store_link_table_send(master->peers, peer, msg);
}

static void peer_up(void *user, uint32_t peer, const struct hello *hello)
{
    struct store_master *master = user;

    index_core_on_peer_up(master->core, loop_now_ns(master->loop), peer, hello->role, hello->uuid, hello->epoch);
    settle(master);
}

static void peer_down(void *user, uint32_t peer)
{
    struct store_master *master = user;

    index_core_on_peer_down(master->core, loop_now_ns(master->loop), peer);
    settle(master);
}

static void peer_message(void *user, uint32_t peer, const struct store_msg *msg)
{
    struct store_master *master = user;
    /* What a beat is answered with counts from when it was sent, which may be later than when this turn of the loop began. */
    uint64_t now = msg->type == MSG_NODE_BEAT ? now_ns() : loop_now_ns(master->loop);

    index_core_on_message(master->core, now, peer, msg);
    settle(master);
}

static const struct store_link_table_ops peer_ops = {
    .on_up = peer_up, .on_down = peer_down, .on_message = peer_message};

static enum mc_status on_hello(struct conn *conn, const struct hello *peer, struct buf *why)
{
    struct store_master *master = conn_user(conn);

    switch (peer->role) {
    case ROLE_NODE:
    case ROLE_HEARTBEAT:
    case ROLE_CLIENT:
    case ROLE_WORKER:
    case ROLE_CONDUCTOR:
    case ROLE_TOOL: return store_link_table_accept(master->peers, conn, why);
    default: buf_printf(why, "this is a master; a %s has no business here", role_name(peer->role)); return MC_EREFUSED;
    }
}

/* ---- metrics ---- */

enum row {
    ROW_TERM,
    ROW_OBJECTS,
    ROW_COPIES,
    ROW_DOOMED,
    ROW_BYTES,
    ROW_NODES,
    ROW_CLIENTS,
    ROW_MODELS,
    ROW_COMMITS,
    ROW_LOOKUPS,
    ROW_PREFIXES,
    ROW_PREFIX_BLOCKS,
    ROW_UPSERTS,
    ROW_REMOVES,
    ROW_RACES,
    ROW_FULL,
    ROW_UNREACHABLE,
    ROW_LOST,
    ROW_LEDGER,
};

static const struct metric_row rows[] = {
    [ROW_TERM] = {"mooncake_master_term", METRIC_GAUGE, "Term versions are given out in."},
    [ROW_OBJECTS] = {"mooncake_master_objects", METRIC_GAUGE, "Keys in the index."},
    [ROW_COPIES] = {"mooncake_master_copies", METRIC_GAUGE, "Copies in the index."},
    [ROW_DOOMED] = {"mooncake_master_doomed_copies", METRIC_GAUGE, "Dead copies whose owner could not be told yet."},
    [ROW_BYTES] = {"mooncake_master_index_bytes", METRIC_GAUGE, "Memory of the index, names included."},
    [ROW_NODES] = {"mooncake_master_nodes", METRIC_GAUGE, "Nodes by state.", {"state"}},
    [ROW_CLIENTS] = {"mooncake_master_clients", METRIC_GAUGE, "Clients connected."},
    [ROW_MODELS] = {"mooncake_master_models", METRIC_GAUGE, "Models whose fingerprint record is known."},
    [ROW_COMMITS] = {"mooncake_master_commits_total", METRIC_COUNTER, "Objects committed."},
    [ROW_LOOKUPS] = {"mooncake_master_lookups_total", METRIC_COUNTER, "Keys looked up."},
    [ROW_PREFIXES] = {"mooncake_master_prefixes_total", METRIC_COUNTER, "Prefix queries."},
    [ROW_PREFIX_BLOCKS] = {"mooncake_master_prefix_blocks_total", METRIC_COUNTER, "Blocks found by prefix queries."},
    [ROW_UPSERTS] = {"mooncake_master_upserts_total", METRIC_COUNTER, "Named keys replaced."},
    [ROW_REMOVES] = {"mooncake_master_removes_total", METRIC_COUNTER, "Keys removed."},
    [ROW_RACES] = {"mooncake_master_lost_races_total", METRIC_COUNTER, "Puts of a name that came second."},
    [ROW_FULL] = {"mooncake_master_full_total", METRIC_COUNTER, "Commits refused because the index is at its ceiling."},
    [ROW_UNREACHABLE] = {"mooncake_master_unreachable_objects", METRIC_GAUGE,
        "Copies at nodes that are unreachable now."},
    [ROW_LOST] = {"mooncake_master_lost_objects", METRIC_GAUGE, "Copies that went with their node."},
    [ROW_LEDGER] = {"mooncake_cluster_ledger_objects", METRIC_GAUGE,
        "Sum of the nodes' ledgers in their last heartbeats.", {"row"}, LEDGER_ROWS},
};

static struct metric_cell *only(struct store_master *master, enum row row)
{
    return metric_only(metrics_add(master->metrics, &rows[row]));
}

static void collect_nodes(struct store_master *master)
{
    static const char *const states[] = {"up", "suspect", "unreachable", "draining"};
    unsigned counts[4] = {0};
    struct store_member member;
    uint32_t at = 0;

    while (index_core_member(master->core, &at, &member, NULL))
        counts[member.state < 4 ? member.state : 2]++;
    struct metric *nodes = metrics_add(master->metrics, &rows[ROW_NODES]);
    for (unsigned i = 0; i < 4; i++)
        metric_set(metric_with(nodes, states[i]), counts[i]);
}

/* Called when metrics are exposed, which is on this loop. */
static void collect(void *arg)
{
    struct store_master *master = arg;
    struct index_stats stats;
    struct store_ledger ledger;

    if (!loop_in_thread(master->loop))
        return;
    index_core_stats(master->core, &stats);
    index_core_ledger(master->core, &ledger);
    collect_nodes(master);
    metric_set(only(master, ROW_TERM), (double)stats.term);
    metric_set(only(master, ROW_OBJECTS), (double)stats.objects);
    metric_set(only(master, ROW_COPIES), (double)stats.copies);
    metric_set(only(master, ROW_DOOMED), (double)stats.doomed);
    metric_set(only(master, ROW_BYTES), (double)(stats.bytes + stats.name_bytes));
    metric_set(only(master, ROW_CLIENTS), stats.clients);
    metric_set(only(master, ROW_MODELS), stats.models);
    metric_count_is(only(master, ROW_COMMITS), stats.commits);
    metric_count_is(only(master, ROW_LOOKUPS), stats.lookups);
    metric_count_is(only(master, ROW_PREFIXES), stats.prefixes);
    metric_count_is(only(master, ROW_PREFIX_BLOCKS), stats.prefix_blocks);
    metric_count_is(only(master, ROW_UPSERTS), stats.upserts);
    metric_count_is(only(master, ROW_REMOVES), stats.removes);
    metric_count_is(only(master, ROW_RACES), stats.lost_races);
    metric_count_is(only(master, ROW_FULL), stats.full);
    metric_set(only(master, ROW_UNREACHABLE), (double)stats.unreachable.objects);
    metric_set(only(master, ROW_LOST), (double)stats.lost.objects);
    struct metric *ledgers = metrics_add(master->metrics, &rows[ROW_LEDGER]);
    for (enum store_ledger_row row = 0; row < LEDGER_ROWS; row++)
        metric_set(metric_with(ledgers, store_ledger_name(row)), (double)ledger.row[row].objects);
}

/* ---- admin HTTP ---- */

static void http_healthz(struct http_req *req)
{
    struct store_master *master = http_user(req);
    struct index_stats stats;

    index_core_stats(master->core, &stats);
    http_reply_json(req, 200,
        json_pack("{s:s, s:I, s:i, s:i, s:I}", "status", "ok", "term", (json_int_t)stats.term, "nodes",
            (int)stats.nodes, "nodes_up", (int)stats.nodes_up, "objects", (json_int_t)stats.objects));
}

static void http_metrics(struct http_req *req)
{
    struct store_master *master = http_user(req);
    struct buf text;

    buf_init(&text, 16 << 20);
    metrics_expose(master->metrics, &text);
    http_reply(req, 200, METRICS_CONTENT_TYPE, buf_slice(&text));
    buf_fini(&text);
}

static const char *state_name(uint8_t state)
{
    static const char *const names[] = {"up", "suspect", "unreachable", "draining"};

    return state < 4 ? names[state] : "unknown";
}

static json_t *ledger_json(const struct store_ledger *ledger)
{
    json_t *out = json_object();

    for (enum store_ledger_row row = 0; row < LEDGER_ROWS; row++)
        json_object_set_new(out, store_ledger_name(row), json_integer((json_int_t)ledger->row[row].objects));
    return out;
}

static void http_nodes(struct http_req *req)
{
    struct store_master *master = http_user(req);
    json_t *list = json_array();
    struct store_member m;
    const struct store_beat *beat = NULL;
    uint32_t at = 0;
    char uuid[UUID_TEXT];

    while (index_core_member(master->core, &at, &m, &beat)) {
        json_t *row = json_pack("{s:s, s:I, s:s, s:s, s:s, s:s, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I}", "uuid",
            uuid_format(m.uuid, uuid), "epoch", (json_int_t)m.epoch, "state", state_name(m.state), "name", m.name,
            "address", m.address, "host_id", m.host_id, "zone", m.zone, "ephemeral", m.ephemeral, "capacity",
            (json_int_t)m.capacity, "used", (json_int_t)m.used, "objects", (json_int_t)m.objects, "puts",
            (json_int_t)m.puts, "evictions", (json_int_t)m.evictions, "hits", (json_int_t)m.hits);

        if (row && beat)
            json_object_set_new(row, "ledger", ledger_json(&beat->ledger));
        if (row)
            json_array_append_new(list, row);
    }
    http_reply_json(req, 200, json_pack("{s:o}", "nodes", list));
}

/* The number of an owner is its place in the walk over members. */
static json_t *copy_json(struct store_master *master, const struct table_copy *copy)
{
    struct store_member member;
    uint32_t at = copy->owner;
    char uuid[UUID_TEXT] = "";

    if (index_core_member(master->core, &at, &member, NULL))
        uuid_format(member.uuid, uuid);
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:b}", "node", uuid, "address", uuid[0] ? member.address : "",
        "segment", (json_int_t)copy->segment, "offset", (json_int_t)copy->offset, "length", (json_int_t)copy->length,
        "generation", (json_int_t)copy->generation, "version", (json_int_t)copy->version, "dead", copy->doomed);
}

static void http_where(struct http_req *req)
{
    struct store_master *master = http_user(req);
    const char *text = http_query(req, "key"), *ns = http_query(req, "ns"), *why = "";
    const struct table *table = index_core_table(master->core);
    char name[MC_NAME_MAX];
    struct store_key key;
    struct table_copy copy;
    uint32_t at = TABLE_NONE;

    if (!text) {
        http_reply_error(req, 400, NULL, "key", NULL, "query parameter 'key' is missing: 32 hex digits or name:...");
        return;
    }
    if (store_key_parse(slice_str(text), &key, name, &why) != MC_OK) {
        http_reply_error(req, 400, NULL, "key", NULL, "query parameter 'key': %s", why);
        return;
    }
    key.ns = ns ? (uint32_t)strtoul(ns, NULL, 10) : 0;
    uint32_t entry = table_find(table, &key);
    if (entry == TABLE_NONE) {
        http_reply_error(req, 404, NULL, "key", NULL, "no copy of this key is known in namespace %u", key.ns);
        return;
    }
    json_t *copies = json_array();
    for (unsigned i = 0; i < WHERE_MAX && table_next(table, entry, &at, &copy); i++)
        json_array_append_new(copies, copy_json(master, &copy));
    http_reply_json(req, 200, json_pack("{s:s, s:I, s:o}", "key", text, "ns", (json_int_t)key.ns, "copies", copies));
}

static const struct http_route routes[] = {
    {"GET", "/healthz", http_healthz},
    {"GET", "/metrics", http_metrics},
    {"GET", "/v1/nodes", http_nodes},
    {"GET", "/v1/where", http_where},
};

/* ---- set-up; destroy undoes what is there ---- */

static enum mc_status parse_addr(const char *what, const char *text, uint16_t port, struct addr *addr)
{
    const char *why;
    enum mc_status status = addr_parse(text ? text : "", port, addr, &why);

    if (status != MC_OK)
        log_error("master: %s address %s: %s", what, text, why);
    return status;
}

static enum mc_status start_core(struct store_master *master, const struct store_master_opts *opts)
{
    struct index_limits limits = {.objects_max = opts->objects_max, .peers_max = PEERS_MAX, .lease_ms = opts->lease_ms};
    uint64_t random[2];
    enum mc_status status = state_number(&master->state, "term", &master->term_kept);

    if (status != MC_OK)
        return status;
    limits.term = master->term_kept + 1;
    if (master->term_kept || !master->state.path[0]) /* without a state directory nobody can tell */
        limits.heir_at = now_ns();
    master->port = (struct store_port){.ctx = master, .send = port_send, .log = store_log};
    random_bytes(random, sizeof(random));
    status = index_core_create(&limits, &master->port, random[0], random[1], &master->core);
    if (status == MC_OK)
        keep_term(master);
    return status;
}

static enum mc_status start_http(struct store_master *master, const struct store_master_opts *more)
{
    size_t count = more->route_count + sizeof(routes) / sizeof(*routes);
    struct http_opts opts = {.route_count = count, .user = master};
    const char *text = more->admin;

    if (text && strcmp(text, "none") == 0)
        return MC_OK;
    master->routes = malloc(count * sizeof(*master->routes));
    if (!master->routes)
        return MC_ENOMEM;
    if (more->route_count)
        memcpy(master->routes, more->routes, more->route_count * sizeof(*master->routes));
    memcpy(master->routes + more->route_count, routes, sizeof(routes));
    opts.routes = master->routes;
    enum mc_status status = parse_addr("admin", text, STORE_MASTER_ADMIN_PORT, &opts.addr);
    if (status == MC_OK)
        status = http_server_create(master->loop, &opts, &master->http);
    if (status == MC_OK)
        addr_format(http_server_addr(master->http), master->admin);
    return status;
}

static enum mc_status set_up(struct store_master *master, const struct store_master_opts *opts)
{
    struct listener_opts listen = {.ops = &store_undecided_ops,
        .user = master,
        .on_hello = on_hello,
        .conns_max = PEERS_MAX,
        .limits = {.credits = CREDITS}};
    struct hello self;
    struct addr addr;
    char fallback[32];
    uint8_t uuid[UUID_SIZE];
    enum mc_status status = parse_addr("listen", opts->listen, STORE_MASTER_PORT, &addr);

    if (status != MC_OK)
        return status;
    snprintf(fallback, sizeof(fallback), "master-%u", addr.port);
    status = state_open(opts->state_dir, addr.port ? fallback : NULL, &master->state);
    if (status == MC_OK)
        status = start_core(master, opts);
    if (status != MC_OK)
        return status;
    master->peers = store_link_table_create(PEERS_MAX, &peer_ops, master);
    if (!master->peers)
        return MC_ENOMEM;
    random_bytes(uuid, sizeof(uuid));
    store_hello(&self, ROLE_MASTER, uuid, 1, NULL);
    listen.self = &self;
    status = conn_listen(master->loop, &addr, &listen, &master->listener);
    if (status != MC_OK)
        return status;
    addr_format(listener_addr(master->listener), master->address);
    return start_http(master, opts);
}

enum mc_status store_master_create(const struct store_master_opts *opts, struct store_master **out)
{
    struct store_master *master = calloc(1, sizeof(*master));
    enum mc_status status = MC_ENOMEM;

    if (!master)
        return MC_ENOMEM;
    master->state.lock_fd = -1;
    master->wake_ns = DEADLINE_NONE;
    loop_timer_init(&master->wake, on_wake);
    loop_task_init(&master->tick, on_tick);
    loop_task_init(&master->settle, on_settle);
    master->metrics_own = !opts->metrics;
    master->metrics = opts->metrics ? opts->metrics : metrics_create();
    master->loop = loop_create("mc-master");
    if (master->metrics && master->loop && loop_timer_reserve(master->loop, 1) == MC_OK)
        status = set_up(master, opts);
    if (status != MC_OK) {
        store_master_destroy(master);
        return status;
    }
    metrics_collector(master->metrics, collect, master);
    log_info("master serves at %s term %llu admin %s", master->address, (unsigned long long)master->term_kept,
        master->admin[0] ? master->admin : "none");
    *out = master;
    return MC_OK;
}

void store_master_destroy(struct store_master *master)
{
    if (!master)
        return;
    if (master->metrics)
        metrics_collector_remove(master->metrics, collect, master);
    if (master->loop)
        loop_thread_stop(master->loop);
    if (master->http)
        http_server_destroy(master->http);
    if (master->listener)
        listener_close(master->listener);
    store_link_table_destroy(master->peers);
    if (master->core)
        index_core_destroy(master->core);
    if (master->loop) {
        loop_timer_cancel(master->loop, &master->wake);
        loop_defer_cancel(master->loop, &master->tick);
        loop_defer_cancel(master->loop, &master->settle);
        loop_destroy(master->loop);
    }
    free(master->routes);
    if (master->metrics_own)
        metrics_destroy(master->metrics);
    state_close(&master->state);
    free(master);
}

void store_master_run(struct store_master *master)
{
    loop_run(master->loop);
}

enum mc_status store_master_start(struct store_master *master)
{
    return loop_thread_start(master->loop);
}

void store_master_stop(struct store_master *master)
{
    loop_stop(master->loop);
}

const char *store_master_address(const struct store_master *master)
{
    return master->address;
}

const char *store_master_admin(const struct store_master *master)
{
    return master->admin;
}

struct index_core *store_master_core(struct store_master *master)
{
    return master->core;
}

struct loop *store_master_loop(struct store_master *master)
{
    return master->loop;
}
