/* index_core.h - the master: membership, index, versions. Pure (store/port.h).
 *
 * Nodes are the truth; everything here can be rebuilt from their reports, except promises of order between named versions,
 * which the master's term carries: a version is (term << 32 | counter), and the term is raised above every term any node has
 * ever seen before a version is given out in it.
 *
 *   node      register -> welcome -> inventory... -> commits, gone      (heartbeats on a connection of their own)
 *   client    subscribe -> members; lookup, prefix, remove
 *   upsert    commit(replace) -> index shows the new one at once -> drop to every reachable old owner -> their answers ->
 *             verdict. An owner that cannot be reached keeps a doomed copy here and is told when it reports.
 *   authority given with the answer to a beat: until it has lapsed readers of the node's host take its word for what its names mean.
 *             So no upsert and no removal is acknowledged before the old owner has answered *or* its authority has lapsed.
 *
 * Peers: connections, numbered by the shell from 1. A node has one control connection (role node); heartbeats may come over
 * any connection and name their node. Threads: one. */
#ifndef STORE_INDEX_CORE_H
#define STORE_INDEX_CORE_H

#include "store/port.h"

struct index_core;

struct index_limits {        /* 0: the default */
    uint32_t objects_max;    /* 4,000,000 copies */
    uint32_t peers_max;      /* 4096: highest peer number + 1 */
    uint32_t suspect_ms;     /* 400 */
    uint32_t unreachable_ms; /* 1000 */
    uint32_t forget_ms;      /* 600,000 */
    uint32_t promise_max_ms; /* 60,000: longest promise */
    uint32_t lease_ms;       /* 5000: what MC_LEASE_MASTER stands for */
    uint32_t drop_ms; /* 1000: how long upsert and remove wait for a reachable owner before it counts as unreachable */
    uint32_t models_max;   /* 1024 */
    uint32_t authority_ms; /* 300: how long a node's word on its names counts after a beat (049) */
    uint64_t heir_at; /* when this master began where another may have given authority before it; 0: there was none */
    uint64_t term;    /* first term to use; the shell gives the highest it has kept, plus one. 0: 1 */
};

/* Plantable faults, for the proof that tests/sim finds such things. Zero in production. */
struct index_bugs {
    bool keep_term;    /* terms of nodes are not looked at */
    bool forget_stamp; /* upsert and remove do not tell the old owners */
    bool forget_lapse; /* ... nor wait until nobody believes one of them that has not answered */
};

/* `instance` is random per start; `seed` keys the tables. MC_OK, MC_ENOMEM. */
enum mc_status index_core_create(const struct index_limits *limits, const struct store_port *port, uint64_t instance,
    uint64_t seed, struct index_core **out);
void index_core_destroy(struct index_core *core);
void index_core_set_bugs(struct index_core *core, struct index_bugs bugs);

void index_core_on_peer_up(
    struct index_core *core, uint64_t now, uint32_t peer, enum hello_role role, const uint8_t uuid[16], uint32_t epoch);
void index_core_on_peer_down(struct index_core *core, uint64_t now, uint32_t peer);
void index_core_on_message(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg);
void index_core_on_tick(struct index_core *core, uint64_t now);
uint64_t index_core_wake(const struct index_core *core); /* when on_tick wants to be called; DEADLINE_NONE */

/* The host was stopped (a loop gap): silence until now says nothing about others. */
void index_core_on_gap(struct index_core *core, uint64_t now);

struct index_stats {
    uint64_t term, instance;
    uint64_t objects, copies, doomed;
    uint64_t bytes, name_bytes; /* memory of the index */
    uint64_t commits, lost_races, upserts, removes, lookups, prefixes, prefix_blocks, drops, full;
    uint64_t term_raises;
    uint32_t nodes, nodes_up, nodes_reporting, clients, models;
    struct store_count unreachable; /* copies at nodes that are unreachable now */
    struct store_count lost;        /* copies that went with a node that restarted or was forgotten */
};
void index_core_stats(const struct index_core *core, struct index_stats *out);

/* Sum of the ledgers in the nodes' last heartbeats. */
void index_core_ledger(const struct index_core *core, struct store_ledger *out);

/* Members one by one: *at starts at 0. `beat` (may be NULL) is lent until the next event. */
bool index_core_member(
    const struct index_core *core, uint32_t *at, struct store_member *member, const struct store_beat **beat);

/* For the replayer and tests. */
struct table;
const struct table *index_core_table(const struct index_core *core);

#endif
