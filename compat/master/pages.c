/* pages.c - see pages.h.
 *
 * Everything is read from the index on its own loop. Only remove_all does something: it is a client of this master like any
 * other, on a thread of its own, and the answer is given when it is done. */
#include "compat/master/pages.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compat/store/client.h"
#include "store/index/index_core.h"
#include "store/index/table_core.h"

enum { KEYS_MAX = 1000, COPIES_MAX = 64, TEXT_MAX = 256 << 20 };

static struct index_core *core_of(const struct http_req *req)
{
    return store_master_core(http_user(req));
}

/* ---- answers ---- */

static void refuse(struct http_req *req, int code, int error, const char *message)
{
    http_reply_json(
        req, code, json_pack("{s:b, s:i, s:s}", "success", 0, "error_code", error, "error_message", message));
}

/* The query parameter, or NULL and the request is answered. */
static const char *need(struct http_req *req, const char *name)
{
    const char *value = http_query(req, name);
    char message[96];

    if (value && *value)
        return value;
    snprintf(message, sizeof(message), "query parameter '%s' is missing", name);
    refuse(req, 400, COMPAT_INVALID_PARAMS, message);
    return NULL;
}

static void reply_text(struct http_req *req, struct buf *text)
{
    if (buf_status(text) == MC_OK)
        http_reply(req, 200, "text/plain; charset=utf-8", buf_slice(text));
    else
        refuse(req, 503, COMPAT_INTERNAL, "the answer is too long");
    buf_fini(text);
}

/* ---- segments: our nodes ---- */

static bool serves(const struct store_member *member)
{
    return member->state == NODE_UP || member->state == NODE_SUSPECT || member->state == NODE_DRAINING;
}

/* False: no such segment is there. */
static bool find_segment(struct index_core *core, const char *name, struct store_member *member)
{
    uint32_t at = 0;

    while (index_core_member(core, &at, member, NULL))
        if (serves(member) && strcmp(member->name, name) == 0)
            return true;
    return false;
}

/* One name a line: start scripts wait until this is not empty. */
static void http_all_segments(struct http_req *req)
{
    struct store_member member;
    struct buf text;
    uint32_t at = 0;

    buf_init(&text, TEXT_MAX);
    while (index_core_member(core_of(req), &at, &member, NULL))
        if (serves(&member))
            buf_printf(&text, "%s\n", member.name);
    reply_text(req, &text);
}

static const char *status_name(const struct store_member *member)
{
    return member->state == NODE_DRAINING ? "DRAINING" : member->state == NODE_SUSPECT ? "SUSPECT" : "OK";
}

static void http_segments_detail(struct http_req *req)
{
    json_t *list = json_array();
    struct store_member m;
    uint32_t at = 0;

    while (index_core_member(core_of(req), &at, &m, NULL))
        if (serves(&m))
            json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:I, s:I, s:I}", "name", m.name, "address",
                                            m.address, "status", status_name(&m), "capacity", (json_int_t)m.capacity,
                                            "used", (json_int_t)m.used, "objects", (json_int_t)m.objects));
    http_reply_json(req, 200, json_pack("{s:b, s:o}", "success", 1, "segments", list));
}

static void http_query_segment(struct http_req *req)
{
    const char *name = need(req, "segment");
    struct store_member m;
    struct buf text;

    if (!name)
        return;
    if (!find_segment(core_of(req), name, &m)) {
        refuse(req, 404, COMPAT_SEGMENT_NOT_FOUND, "no segment of this name");
        return;
    }
    buf_init(&text, 4096);
    buf_printf(&text, "%s\nUsed(bytes): %llu\nCapacity(bytes) : %llu\n", m.name, (unsigned long long)m.used,
        (unsigned long long)m.capacity);
    reply_text(req, &text);
}

static void http_segment_status(struct http_req *req)
{
    const char *name = need(req, "segment");
    struct store_member m;

    if (!name)
        return;
    if (find_segment(core_of(req), name, &m))
        http_reply_json(
            req, 200, json_pack("{s:b, s:s, s:s}", "success", 1, "segment", name, "status_name", status_name(&m)));
    else
        refuse(req, 404, COMPAT_SEGMENT_NOT_FOUND, "no segment of this name");
}

/* ---- keys ---- */

static json_t *copies_json(struct index_core *core, uint32_t entry)
{
    const struct table *table = index_core_table(core);
    json_t *list = json_array();
    struct table_copy copy;
    uint32_t at = TABLE_NONE;

    for (unsigned n = 0; n < COPIES_MAX && table_next(table, entry, &at, &copy); n++) {
        struct store_member m;
        uint32_t owner = copy.owner;

        if (copy.doomed || !index_core_member(core, &owner, &m, NULL) || !serves(&m))
            continue;
        json_array_append_new(list,
            json_pack("{s:s, s:s, s:I, s:I}", "transport_endpoint", m.name, "status", "COMPLETE", "buffer_address",
                (json_int_t)((uint64_t)copy.segment << 40 | copy.offset), "size", (json_int_t)copy.length));
    }
    return list;
}

/* NULL: not there. */
static json_t *key_json(struct index_core *core, const char *name)
{
    struct mc_key key;
    struct store_key ours;
    uint32_t entry = TABLE_NONE;
    json_t *copies;

    mc_key_named(&key, name, strlen(name));
    if (store_key_from(0, &key, &ours) == MC_OK)
        entry = table_find(index_core_table(core), &ours);
    copies = entry == TABLE_NONE ? NULL : copies_json(core, entry);
    if (json_array_size(copies) > 0)
        return json_pack("{s:s, s:o}", "key", name, "replicas", copies);
    json_decref(copies);
    return NULL;
}

static void http_query_key(struct http_req *req)
{
    const char *name = need(req, "key");
    json_t *found = name ? key_json(core_of(req), name) : NULL;

    if (!name)
        return;
    if (found) {
        json_object_set_new(found, "success", json_true());
        http_reply_json(req, 200, found);
    } else {
        refuse(req, 404, COMPAT_NOT_FOUND, "no such key");
    }
}

static void http_query_keys(struct http_req *req)
{
    const char *names = need(req, "keys");
    char *copy = names ? strdup(names) : NULL, *save;
    json_t *data = json_object();
    unsigned n = 0;

    if (!names) {
        json_decref(data);
        return;
    }
    for (char *name = copy ? strtok_r(copy, ",", &save) : NULL; name && n < KEYS_MAX;
         name = strtok_r(NULL, ",", &save), n++) {
        json_t *found = key_json(core_of(req), name);

        json_object_set_new(data, name,
            found ? found : json_pack("{s:i, s:s}", "error_code", COMPAT_NOT_FOUND, "error_message", "no such key"));
    }
    free(copy);
    http_reply_json(req, 200, json_pack("{s:b, s:o}", "success", 1, "data", data));
}

static void http_all_keys(struct http_req *req)
{
    const struct table *table = index_core_table(core_of(req));
    struct buf text;

    buf_init(&text, TEXT_MAX);
    for (uint32_t entry = table_walk(table, 0); entry != TABLE_NONE; entry = table_walk(table, entry + 1)) {
        struct store_key key = table_key(table, entry);

        if (key.kind != MC_KEY_NAMED)
            continue;
        buf_append(&text, key.name.ptr, key.name.len);
        buf_append(&text, "\n", 1);
    }
    reply_text(req, &text);
}

/* ---- what it is ---- */

static void http_health(struct http_req *req)
{
    http_reply_json(req, 200, json_pack("{s:b, s:s}", "success", 1, "status", "OK"));
}

static void http_role(struct http_req *req)
{
    http_reply_json(req, 200,
        json_pack("{s:b, s:s, s:b, s:s}", "success", 1, "role", "leader", "ha_enabled", 0, "leader",
            store_master_address(http_user(req))));
}

static void http_events_status(struct http_req *req)
{
    http_reply_json(req, 200, json_pack("{s:b, s:b}", "success", 1, "enabled", 0));
}

/* Of all segments. */
static void sums(struct index_core *core, uint64_t *used, uint64_t *capacity)
{
    struct store_member m;
    uint32_t at = 0;

    *used = *capacity = 0;
    while (index_core_member(core, &at, &m, NULL)) {
        *used += serves(&m) ? m.used : 0;
        *capacity += serves(&m) ? m.capacity : 0;
    }
}

static void http_summary(struct http_req *req)
{
    struct index_stats stats;
    uint64_t used, capacity;
    struct buf text;

    index_core_stats(core_of(req), &stats);
    sums(core_of(req), &used, &capacity);
    buf_init(&text, 4096);
    buf_printf(&text, "Mem Storage: %llu / %llu bytes | Keys: %llu | Segments: %u | Clients: %u\n",
        (unsigned long long)used, (unsigned long long)capacity, (unsigned long long)stats.objects, stats.nodes_up,
        stats.clients);
    reply_text(req, &text);
}

static void http_absent(struct http_req *req)
{
    refuse(req, 503, COMPAT_NOT_SUPPORTED,
        strstr(http_path(req), "tenant") ? "quotas of tenants are not there yet"
                                         : "draining by the master is not there yet");
}

/* ---- remove_all ---- */

struct removal {
    struct loop_task done;
    struct loop *loop;
    struct http_req *req; /* NULL: who asked has left */
    pthread_t thread;
    char master[ADDR_TEXT_MAX], tenant[128];
    bool force, running; /* running: the loop's, and pages_stop()'s when the loop has ended */
    int64_t result;
};

/* One at a time; not allocated, so that a request that ends after it finds it where it was. */
static struct removal removal;

static void *remove_everything(void *none)
{
    struct compat_client *client = compat_client_create();
    struct compat_setup setup = {.local_hostname = "localhost",
        .metadata_server = "P2PHANDSHAKE",
        .protocol = "tcp",
        .master = removal.master,
        .tenant = removal.tenant};

    removal.result = client ? compat_client_setup(client, &setup) : COMPAT_INTERNAL;
    if (removal.result == COMPAT_OK)
        removal.result = compat_remove_matching(client, NULL, 0, removal.force);
    compat_client_destroy(client);
    loop_post(removal.loop, &removal.done);
    return NULL;
}

static void removal_done(struct loop *loop, struct loop_task *task)
{
    struct http_req *req = removal.req;

    pthread_join(removal.thread, NULL);
    removal.running = false;
    removal.req = NULL;
    if (req && removal.result >= 0)
        http_reply_json(req, 200, json_pack("{s:b, s:I}", "success", 1, "removed_count", (json_int_t)removal.result));
    else if (req)
        refuse(req, 503, (int)removal.result, "not all could be removed");
}

static void removal_left(struct http_req *req, void *arg)
{
    if (removal.req == req)
        removal.req = NULL;
}

static void http_remove_all(struct http_req *req)
{
    const char *force = http_query(req, "force"), *tenant = http_query(req, "tenant_id");

    if (removal.running) {
        refuse(req, 503, COMPAT_NO_SPACE, "a removal is under way: come back");
        return;
    }
    removal.force = force && (strcmp(force, "true") == 0 || strcmp(force, "1") == 0);
    removal.loop = http_loop(req);
    snprintf(removal.master, sizeof(removal.master), "%s", store_master_address(http_user(req)));
    snprintf(removal.tenant, sizeof(removal.tenant), "%s", tenant ? tenant : "default");
    loop_task_init(&removal.done, removal_done);
    if (pthread_create(&removal.thread, NULL, remove_everything, NULL) != 0) {
        refuse(req, 503, COMPAT_INTERNAL, "no thread");
        return;
    }
    removal.running = true;
    removal.req = req;
    http_on_leave(req, removal_left, NULL);
}

/* ---- the existing names of counters ---- */

/* Written by hand: some of them end as no gauge of ours may (metrics.h). */
static void gauge(struct buf *text, const char *name, const char *help, uint64_t value)
{
    buf_printf(text, "# HELP %s %s\n# TYPE %s gauge\n%s %llu\n", name, help, name, name, (unsigned long long)value);
}

/* A segment's name as a label's value. */
static void label(struct buf *text, const char *name)
{
    for (; *name; name++)
        buf_printf(text, *name == '"' || *name == '\\' ? "\\%c" : *name == '\n' ? "\\n" : "%c", *name);
}

static void segment_gauges(struct buf *text, struct index_core *core, const char *name, const char *help, bool used)
{
    struct store_member m;
    uint32_t at = 0;

    buf_printf(text, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name);
    while (index_core_member(core, &at, &m, NULL)) {
        if (!serves(&m))
            continue;
        buf_printf(text, "%s{segment=\"", name);
        label(text, m.name);
        buf_printf(text, "\"} %llu\n", (unsigned long long)(used ? m.used : m.capacity));
    }
}

static struct metrics *own; /* of the master */

static void http_metrics(struct http_req *req)
{
    struct index_core *core = core_of(req);
    struct index_stats stats;
    uint64_t used, capacity;
    struct buf text;

    buf_init(&text, 16 << 20);
    metrics_expose(own, &text);
    index_core_stats(core, &stats);
    sums(core, &used, &capacity);
    gauge(&text, "master_key_count", "Keys in the index.", stats.objects);
    gauge(&text, "master_allocated_bytes", "Bytes in use of all segments.", used);
    gauge(&text, "master_total_capacity_bytes", "Bytes of all segments.", capacity);
    gauge(&text, "master_active_clients", "Clients connected.", stats.clients);
    segment_gauges(&text, core, "segment_allocated_bytes", "Bytes in use.", true);
    segment_gauges(&text, core, "segment_total_capacity_bytes", "Bytes of a segment.", false);
    http_reply(req, 200, METRICS_CONTENT_TYPE, buf_slice(&text));
    buf_fini(&text);
}

void pages_start(struct metrics *metrics)
{
    own = metrics;
}

void pages_stop(void)
{
    if (removal.running) /* it ends by the deadline of what it asks, which nobody answers any more */
        pthread_join(removal.thread, NULL);
    removal.running = false;
}

const struct http_route pages_routes[] = {
    {"GET", "/metrics", http_metrics},
    {"GET", "/metrics/summary", http_summary},
    {"GET", "/health", http_health},
    {"GET", "/role", http_role},
    {"GET", "/ha_status", http_role},
    {"GET", "/leader", http_role},
    {"GET", "/kv_events/status", http_events_status},
    {"GET", "/query_key", http_query_key},
    {"GET", "/batch_query_keys", http_query_keys},
    {"GET", "/get_all_keys", http_all_keys},
    {"GET", "/get_all_segments", http_all_segments},
    {"GET", "/get_segments_detail", http_segments_detail},
    {"GET", "/query_segment", http_query_segment},
    {"GET", "/api/v1/segments/status", http_segment_status},
    {"POST", "/api/v1/remove_all", http_remove_all},
    {"GET", "/api/v1/drain_jobs/query", http_absent},
    {"POST", "/api/v1/drain_jobs", http_absent},
    {"POST", "/api/v1/drain_jobs/cancel", http_absent},
    {"GET", "/api/v1/tenant_quotas", http_absent},
    {"PUT", "/api/v1/tenant_quotas", http_absent},
    {"DELETE", "/api/v1/tenant_quotas", http_absent},
};
const size_t pages_route_count = sizeof(pages_routes) / sizeof(*pages_routes);
