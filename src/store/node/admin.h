/* admin.h - what a node tells people: metrics, and HTTP /healthz and /metrics. Threads: the loop's. */
#ifndef STORE_NODE_ADMIN_H
#define STORE_NODE_ADMIN_H

#include "base/metrics.h"
#include "net/http.h"
#include "store/node/node.h"

/* Declare (at first) and set the node's families. */
void node_metrics_set(struct metrics *metrics, const struct store_node_status *status);

/* Serve at `text` (NULL, "none": not at all); `address` gets where. MC_OK, MC_EINVAL, or as http_server_create(). */
enum mc_status node_http_start(struct loop *loop, const char *text, struct metrics *metrics,
    struct http_server **server, char address[ADDR_TEXT_MAX]);

#endif
