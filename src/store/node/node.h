/* node.h - a node as an object: one host's memory, and everything needed to serve it.
 *
 *     store_node ---- core (node_core.h)      what lies where; pure
 *         |---------- loop                    one thread: listener, clients, the link to the master, the Transfer Engine
 *         |---------- segments                sealed memfds of the Transfer Engine, readable by peers of this host; or memory lent
 *         |---------- heart                   its own thread and connection: a beat every 200 ms, whatever the loop does
 *         `---------- prefault                a thread that commits the memory in the background, then ends
 *
 * A process may run a node as its purpose (store_node_run) or beside other things (store_node_start). With `ephemeral` it
 * has a random UUID and no state directory: for nodes inside of clients.
 *
 * Threads: create and destroy from one thread; run or start once; stop, drain and the questions from any thread. */
#ifndef STORE_NODE_NODE_H
#define STORE_NODE_NODE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/metrics.h"
#include "mooncake/status.h"
#include "store/names.h"
#include "store/evict/curve.h"
#include "store/proto.h"

struct store_node;

struct store_node_opts {           /* zero or NULL: the default */
    const char *listen;            /* "127.0.0.1:7402"; port 0: any */
    const char *advertise;         /* host[:port] others are told; default: as bound */
    const char *admin;             /* "host:port" of HTTP /healthz and /metrics; default: none */
    const char *master;            /* "127.0.0.1:7400" */
    const char *name;              /* for people; default: host name and port */
    const char *host_id, *run_dir; /* as in struct mc_te_opts */
    const char *zone;              /* "" */
    const char *state_dir;         /* UUID and epoch; default: the user's state directory, "node-<port>" in it */
    const char *transport, *fault; /* as in struct mc_te_opts */
    const char *policy;            /* of eviction; default: the first in the table */
    uint64_t memory;               /* bytes; default 1 GiB */
    uint64_t segment_size;         /* bytes of one memfd; default 1 GiB, at most */
    void *lent;                    /* the memory itself, page-aligned and touched by nobody else until destroy: peers of
                                    * this host read it as any other memory (shm-vm). Default: memfds of our own */
    bool ephemeral;
    bool no_prefault;        /* leave committing to first use */
    struct metrics *metrics; /* default: one of its own */
};

/* Listens, opens the state directory and allocates the segments (lazily committed). The master need not be there.
 *   MC_EINVAL  an option (logged by name)      MC_EEXIST  port taken, or another node runs on this state directory
 *   MC_ENOMEM  MC_ESYS  (logged) */
enum mc_status store_node_create(const struct store_node_opts *opts, struct store_node **out);

/* Serve in this thread until store_node_stop(). */
void store_node_run(struct store_node *node);

/* Serve in a thread of its own, until stop or destroy. */
enum mc_status store_node_start(struct store_node *node);

/* Take no new objects; what is here stays readable. The master is told. */
void store_node_drain(struct store_node *node);

/* Make run return; with start: ends the thread. Safe in a signal handler's self-pipe callback, not in the handler itself. */
void store_node_stop(struct store_node *node);

/* Stops first if need be. NULL is allowed. */
void store_node_destroy(struct store_node *node);

/* As bound, "host:port"; lent. */
const char *store_node_address(const struct store_node *node);
const char *store_node_admin(const struct store_node *node); /* "" when there is none */
const uint8_t *store_node_uuid(const struct store_node *node);
uint32_t store_node_epoch(const struct store_node *node);

struct store_node_status {
    bool registered;   /* the master knows us, and has our inventory */
    bool quiet;        /* nothing in flight */
    double prefaulted; /* 0..1 of the memory is committed */
    bool huge_pages;
    double hit_ratio[CURVE_SIZES]; /* of blocks asked for, with memory of curve_sizes[] times this */
    struct store_beat beat;        /* counters and ledger, at most 50 ms old while busy */
};
void store_node_status(struct store_node *node, struct store_node_status *out);

/* Where the node's names lie, and its segments, for readers in this process and tests that flip bits. Any thread; false: there is
 * no segment of that number any more. */
struct names_view store_node_names(const struct store_node *node);
bool store_node_segment(const struct store_node *node, uint32_t index, void **addr, uint64_t *size);

#endif
