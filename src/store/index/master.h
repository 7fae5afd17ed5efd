/* master.h - the master as an object: the index of all nodes, and everything needed to serve it.
 *
 *     store_master -- core (index_core.h)     which key lies where, who is there; pure
 *         |---------- loop                    one thread: listener, nodes and their heartbeats, clients, admin HTTP
 *         `---------- term file               in the state directory: the highest term it has used
 *
 * It can be lost: a new one fills from the nodes' reports. Only the term is kept, so that versions never go back.
 * Threads: create and destroy from one thread; run or start once; stop and the questions from any thread. */
#ifndef STORE_INDEX_MASTER_H
#define STORE_INDEX_MASTER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/metrics.h"
#include "mooncake/status.h"

struct http_route;
struct index_core;
struct loop;
struct store_master;

struct store_master_opts { /* zero or NULL: the default */
    const char *listen;    /* "127.0.0.1:7400"; port 0: any */
    const char *admin;     /* "127.0.0.1:7401": /healthz /metrics /v1/nodes /v1/where; "none" */
    const char *state_dir; /* the term; default: the user's state directory, "master-<port>" in it; "none": not kept */
    uint32_t objects_max;  /* copies indexed at most; default 4,000,000 */
    uint32_t lease_ms;     /* promise to clients that leave it to the master; default 5000 */
    struct metrics *metrics; /* default: one of its own */
    const struct http_route
        *routes; /* further pages of the admin HTTP, before its own; http_user() is the master. Borrowed */
    size_t route_count;
};

/*   MC_EINVAL  an option (logged by name)    MC_EEXIST  port taken, or another master runs on this state directory
 *   MC_ENOMEM  MC_ESYS  (logged) */
enum mc_status store_master_create(const struct store_master_opts *opts, struct store_master **out);

void store_master_run(struct store_master *master);             /* in this thread, until stop */
enum mc_status store_master_start(struct store_master *master); /* in a thread of its own, until stop or destroy */
void store_master_stop(struct store_master *master);
void store_master_destroy(struct store_master *master); /* stops first if need be; NULL is allowed */

const char *store_master_address(const struct store_master *master); /* "host:port" as bound; lent */
const char *store_master_admin(const struct store_master *master);   /* "" when there is none */

/* For pages and collectors: on the loop's thread only. Lent until destroy. */
struct index_core *store_master_core(struct store_master *master);
struct loop *store_master_loop(struct store_master *master);

#endif
