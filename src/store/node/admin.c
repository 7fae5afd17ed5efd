/* admin.c - see admin.h. */
#include "store/node/admin.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"

static const struct metric_row node_rows[] = {
    {"mooncake_node_capacity_bytes", METRIC_GAUGE, "Memory of this node for objects."},
    {"mooncake_node_used_bytes", METRIC_GAUGE, "Of it taken by objects."},
    {"mooncake_node_objects", METRIC_GAUGE, "Objects present."},
    {"mooncake_node_pinned_bytes", METRIC_GAUGE, "Of the used bytes pinned by readers."},
    {"mooncake_node_unindexed_objects", METRIC_GAUGE, "Objects the master has not been told of yet."},
    {"mooncake_node_prefaulted_ratio", METRIC_GAUGE, "Part of the memory that is committed."},
    {"mooncake_node_puts_total", METRIC_COUNTER, "Objects taken since the start."},
    {"mooncake_node_evictions_total", METRIC_COUNTER, "Objects evicted since the start."},
    {"mooncake_node_hits_total", METRIC_COUNTER, "Reads that clients told of."},
    {"mooncake_node_ledger_objects", METRIC_GAUGE, "Objects by what became of them; accepted is the sum of the others.",
        {"row"}, LEDGER_ROWS},
    {"mooncake_node_ledger_bytes", METRIC_GAUGE, "The same in bytes.", {"row"}, LEDGER_ROWS},
    {"mooncake_node_hit_ratio", METRIC_GAUGE,
        "Part of the blocks asked for since the start that so many times the memory would have hit; a sampled "
        "estimate.",
        {"memory"}, CURVE_SIZES},
};

static struct metric_cell *only(struct metrics *metrics, unsigned row)
{
    return metric_only(metrics_add(metrics, &node_rows[row]));
}

void node_metrics_set(struct metrics *metrics, const struct store_node_status *status)
{
    struct metric *objects = metrics_add(metrics, &node_rows[9]), *bytes = metrics_add(metrics, &node_rows[10]),
                  *ratio = metrics_add(metrics, &node_rows[11]);

    metric_set(only(metrics, 0), (double)status->beat.capacity);
    metric_set(only(metrics, 1), (double)status->beat.used);
    metric_set(only(metrics, 2), (double)status->beat.objects);
    metric_set(only(metrics, 3), (double)status->beat.pinned);
    metric_set(only(metrics, 4), (double)status->beat.unindexed);
    metric_set(only(metrics, 5), status->prefaulted);
    metric_count_is(only(metrics, 6), status->beat.puts);
    metric_count_is(only(metrics, 7), status->beat.evictions);
    metric_count_is(only(metrics, 8), status->beat.hits);
    for (enum store_ledger_row row = 0; row < LEDGER_ROWS; row++) {
        metric_set(metric_with(objects, store_ledger_name(row)), (double)status->beat.ledger.row[row].objects);
        metric_set(metric_with(bytes, store_ledger_name(row)), (double)status->beat.ledger.row[row].bytes);
    }
    for (unsigned i = 0; i < CURVE_SIZES; i++) {
        char memory[16];

        snprintf(memory, sizeof(memory), "%g", curve_sizes[i]);
        metric_set(metric_with(ratio, memory), status->hit_ratio[i]);
    }
}

static void http_healthz(struct http_req *req)
{
    http_reply(req, 200, "text/plain", slice_str("ok\n"));
}

static void http_metrics(struct http_req *req)
{
    struct metrics *metrics = http_user(req);
    struct buf text;

    buf_init(&text, 16 << 20);
    metrics_expose(metrics, &text);
    http_reply(req, 200, METRICS_CONTENT_TYPE, buf_slice(&text));
    buf_fini(&text);
}

static const struct http_route routes[] = {
    {"GET", "/healthz", http_healthz},
    {"GET", "/metrics", http_metrics},
};

enum mc_status node_http_start(struct loop *loop, const char *text, struct metrics *metrics,
    struct http_server **server, char address[ADDR_TEXT_MAX])
{
    struct http_opts opts = {.routes = routes, .route_count = sizeof(routes) / sizeof(*routes), .user = metrics};
    const char *why;

    if (!text || strcmp(text, "none") == 0)
        return MC_OK;
    if (addr_parse(text, 0, &opts.addr, &why) != MC_OK) {
        log_error("node: admin address %s: %s", text, why);
        return MC_EINVAL;
    }
    enum mc_status status = http_server_create(loop, &opts, server);
    if (status == MC_OK)
        addr_format(http_server_addr(*server), address);
    return status;
}
