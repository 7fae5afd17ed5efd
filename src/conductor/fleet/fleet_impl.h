/* fleet_impl.h - shared by fleet.c (connections) and view.c (what the scheduler sees). */
#ifndef CONDUCTOR_FLEET_IMPL_H
#define CONDUCTOR_FLEET_IMPL_H

#include "conductor/fleet/fleet.h"

struct fleet {
    struct loop *loop;
    struct fleet_opts opts;
    struct listener *listener;
    struct loop_gap gap;
    struct loop_task change;
    struct list connected; /* all connections that said hello */
    struct list workers;   /* those that registered */
    struct list models;
    unsigned worker_count, model_count;
    uint32_t prefill_depth;
    uint64_t serial_last, request_last;
    uint64_t decisions;
    bool dying;
    struct fleet_node nodes[FLEET_NODES_MAX];
    uint32_t node_count;
};

/* Take over what the worker says of its speed: links and decode steps always, prefill only at first (afterwards it is fitted
 * here, from whole requests). */
void fleet_speed_set(struct fleet_worker *worker, bool first);

/* Find the node on the worker's host. */
void fleet_worker_locate(struct fleet_worker *worker);

#endif
