/* node_core.h - the owner of memory: puts, parts, pins, eviction, reports. Pure (store/port.h).
 *
 *   object   free -> writing (pulled, hashed) -> sealed -> committing -> present -> free
 *                      |                           |           |            \-> dead (dropped, but pinned) -> free
 *                      \-> aborted -> free         |           \-> lost the race -> free
 *                                                  \-> unindexed (block, master down) -> committing when it is back
 *            of a bundle: sealed -> kept back -> committing, with all others of it, when its client has named them
 *
 * Memory is given as segments; nobody but this core says what lies where in them. Space is given back only when no pull into it
 * is under way and no pin stands, and its header is killed first.
 * Generations: epoch << 40 | counter, so none is used twice by a node, also not after a restart.
 *
 * Peers: STORE_PEER_MASTER, and clients numbered by the shell from 1. Threads: one. */
#ifndef STORE_NODE_CORE_H
#define STORE_NODE_CORE_H

#include "store/names.h"
#include "store/evict/curve.h"
#include "store/port.h"

struct node_core;

struct node_limits {         /* 0: the default */
    uint32_t objects_max;    /* 2,000,000 */
    uint32_t puts_max;       /* 1024 puts and parts being written at once */
    uint32_t peers_max;      /* 4096: highest peer number + 1 */
    uint32_t pins_max;       /* 65,536 pins (one client pinning one object) */
    uint32_t pinned_percent; /* 50: pins refuse beyond that much of the capacity */
    uint32_t pin_max_ms;     /* 600,000 */
    uint32_t part_idle_ms;   /* 10,000 */
    uint32_t
        commit_wait_ms;   /* 300: how long a block's put waits for the verdict before it is acknowledged as unindexed */
    uint32_t low_percent; /* 90: the watermark evicts in the background down to this ... */
    uint32_t high_percent; /* 95: ... when use is above this */
    const char *policy;    /* name in evict_policies; NULL: the first */
    uint64_t wall_ms;      /* wall time when the port's clock was 0, for created_ms of headers */
};

struct node_memory {
    void *base;
    uint64_t size;
    uint8_t region[STORE_REGION_KEY]; /* told to clients */
};

/* Where readers of this host look names up; told to clients beside the segments. NULL base: there is none. */
struct node_names {
    struct node_memory memory;
    struct names *table;
};

struct node_bugs {
    bool ack_early;   /* puts are answered before the master's verdict */
    bool reuse_early; /* space of an aborted put is given back while the pull into it is still under way */
    bool show_early;  /* members of bundles are committed one by one */
    bool keep_header; /* headers of freed objects are not killed */
};

/* `self`: uuid, epoch, names; capacity is computed. `seed` keys the tables. `names` may be NULL.
 * MC_OK, MC_ENOMEM, MC_EINVAL (policy, segments). */
enum mc_status node_core_create(const struct node_limits *limits, const struct store_port *port,
    const struct store_member *self, const struct node_memory *memory, uint32_t segments,
    const struct node_names *names, uint64_t seed, struct node_core **out);
void node_core_destroy(struct node_core *core);
void node_core_set_bugs(struct node_core *core, struct node_bugs bugs);

void node_core_on_peer_up(struct node_core *core, uint64_t now, uint32_t peer);
void node_core_on_peer_down(struct node_core *core, uint64_t now, uint32_t peer);
void node_core_on_message(struct node_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg);
/* A pull ended. */
void node_core_on_io(struct node_core *core, uint64_t now, uint64_t cookie, enum mc_status status);
void node_core_on_tick(struct node_core *core, uint64_t now);
uint64_t node_core_wake(const struct node_core *core);

/* Take no new puts from now on (SIGTERM); told to the master with the next beat. Everything stays readable. */
void node_core_drain(struct node_core *core);

/* What the next heartbeat says. The shell copies it for its heartbeat thread after events, at most every 50 ms. */
void node_core_beat(const struct node_core *core, struct store_beat *out);
void node_core_ledger(const struct node_core *core, struct store_ledger *out); /* exact at any instant */

/* Part of the blocks asked for here that memory of curve_sizes[] times this would have hit. */
void node_core_curve(const struct node_core *core, double hit_ratio[CURVE_SIZES]);

/* Nothing in flight, nothing waiting for a verdict? */
bool node_core_quiet(const struct node_core *core);

/* Objects that are there, one by one, for tools and tests: *at starts at 0. The name is lent until the next event. */
struct node_object {
    struct store_entry entry;
    uint32_t pins;
    bool indexed, dead;
};
bool node_core_object(const struct node_core *core, uint32_t *at, struct node_object *out);

#endif
