/* cluster.h - a Store of real processes for tests: start, kill, stop, restart, wait for what they say.
 *
 * Everything lies in a temporary directory. Failures end the test (cmocka). Threads: one. */
#ifndef TESTS_STORE_CLUSTER_H
#define TESTS_STORE_CLUSTER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "content.h"
#include "mooncake/store.h"

enum { CLUSTER_NODES_MAX = 8 };

struct server {
    pid_t pid; /* 0: not running */
    int out;   /* its standard output */
    char address[64], admin[64];
    char line[4096]; /* read so far */
    size_t line_len;
};

struct cluster {
    char dir[64];
    const char *transport; /* of nodes and clients; default "auto" */
    const char *host_id;   /* of clients; nodes may have their own */
    uint32_t memory_mib;   /* of each node; default 64 */
    struct server master, node[CLUSTER_NODES_MAX];
    uint32_t nodes;
};

/* Master and `nodes` nodes; returns when the master knows all of them. Fields of `c` that are set stay. */
void cluster_start(struct cluster *c, uint32_t nodes);
void cluster_stop(struct cluster *c);

void cluster_master_start(struct cluster *c);                                /* at the address it had before, if any */
void cluster_node_start(struct cluster *c, uint32_t i, const char *host_id); /* the same */
void cluster_kill(struct server *server, int sig);                           /* SIGKILL also waits for the end */
uint64_t cluster_wait_nodes(
    struct cluster *c, struct mc_store *store, uint32_t up, uint32_t timeout_ms); /* ms it took */

/* A client of this cluster; it sees all nodes that are up. */
struct mc_store *cluster_client(struct cluster *c, const char *fault);

/* Ledger of a node, after it was quiet for 500 ms: asserts that it is exact, and returns present objects and bytes. */
struct ledger {
    uint64_t accepted, present, in_flight, used;
    uint64_t bytes;      /* of what is present, without headers */
    double hit_ratio[4]; /* with half, once, twice and four times the memory (store/evict/curve.h) */
};
struct ledger cluster_ledger(struct server *node);

/* CPU seconds a server has used. */
double cluster_cpu(const struct server *server);

/* A process that writes without end (server.c) from block `first` on. */
void cluster_writer_start(struct cluster *c, struct server *writer, uint64_t first);

#endif
