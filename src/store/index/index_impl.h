/* index_impl.h - what the files of the master's core share. */
#ifndef STORE_INDEX_IMPL_H
#define STORE_INDEX_IMPL_H

#include "base/buf.h"
#include "base/clock.h"
#include "base/hashmap.h"
#include "base/list.h"
#include "base/log.h"
#include "base/pool.h"
#include "store/index/index_core.h"
#include "store/index/prefix_core.h"
#include "store/index/table_core.h"

enum {
    PROMISE_FLUSH_MS = 10, /* promises of that long travel together */
    PROMISE_BATCH = 4096,
    MEMBERS_PUSH_MS = 1000, /* changes of numbers (not of states) are told that often */
    DROP_BATCH = 1024,
    REDROP_MS = 100,
    OWES_MS = 20, /* a drop that has waited longer for its answer costs the node its authority */
    CATCH_UP_MS = 10,
    GHOSTS = 1 << 14, /* remembered evictions */
    TOMBS_MAX = 1 << 16,
};

#define MEMBER_NONE UINT16_MAX

/* A node this master knows; its index in core->members is the owner number of its copies. */
struct member {
    bool used;
    struct store_member info; /* info.state is what clients were told or will be with the next push */
    struct store_beat beat;
    uint32_t peer;  /* control connection, 0: none */
    uint64_t heard; /* last sign of life */
    bool draining;
    bool welcomed;       /* by this instance, in its present epoch */
    bool reporting;      /* its inventory is not complete */
    uint8_t round;       /* mark of what it reported in its present registration */
    bool dirty;          /* numbers changed since the last push */
    bool changed;        /* state or identity changed: push now */
    uint64_t redrop_at;  /* tell it its doomed copies then; DEADLINE_NONE */
    struct buf promises; /* generations */
    uint32_t promise_ms; /* longest of them */
    uint64_t promise_at; /* flush then; DEADLINE_NONE */
    uint64_t believed;   /* its authority has lapsed then, by our clock */
    bool unlisted; /* it holds something the full index could not take: it is given none before it reports again */
};

/* Commit with upserts, or remove, that waits for owners to kill old headers. */
struct pending {
    struct list link;
    uint32_t peer;
    uint32_t waiting; /* drops under way, + 1 while it is being built */
    uint64_t lapse;   /* ... and not before then: somebody who has not answered may be believed that long */
    struct store_msg reply;
    uint8_t *verdicts;
    size_t verdicts_len;
};

struct drop {
    struct list link; /* core->drops, oldest first */
    struct pending *pending;
    uint64_t request, generation, deadline;
    uint16_t member;
    bool sent;
    bool replaced;
    bool named;
};

struct peer {
    bool up;
    bool subscribed;
    bool behind; /* a notice could not be queued for it: it is told everything again */
    enum hello_role role;
    uint16_t member; /* whose control connection this is */
    uint8_t uuid[16];
    uint32_t epoch;
};

struct model {
    struct list link;
    size_t name_len, record_len;
    uint8_t bytes[]; /* name, record */
};

/* A name whose last living copy went: versions below `floor` that a node reports later are dead. */
struct tomb {
    struct hnode node;
    struct list link; /* core->tombs, oldest first */
    struct store_key key;
    uint64_t floor;
};

struct index_core {
    struct index_limits limits;
    struct index_bugs bugs;
    struct store_port port;
    struct table *table;
    struct peer *peers;
    struct member *members;
    uint32_t members_top; /* members beyond were never used */
    struct list pendings, drops, models, tombs;
    struct hashmap tombs_by_key;
    struct pool pending_pool, drop_pool, tomb_pool;
    uint64_t next_request;
    uint64_t next_push;   /* of members' numbers */
    uint64_t catch_up_at; /* when those that are behind are told; DEADLINE_NONE */
    uint64_t lapse_at;    /* the first lapse a pending waits for, and for nothing else; DEADLINE_NONE */
    uint64_t believed;    /* somebody whose copies we do not know (any more) may be believed until then */
    uint64_t counter;     /* of versions in this term */
    uint64_t seed;
    struct index_stats stats;
    uint32_t *ghosts;                           /* hashes of keys that were evicted */
    struct buf rows, locs, misses, out;         /* scratch for answers */
    struct buf came;                            /* scratch of a bundle: what came of each of its copies */
    uint16_t row_of[STORE_NODES_MAX];           /* member -> row of the present answer */
    uint64_t stamp, row_stamp[STORE_NODES_MAX]; /* row_of is valid when equal to stamp */
    struct prefix_leads leads;                  /* of the last prefix query */
};

#define index_log(core, level, ...)                                                                                    \
    do {                                                                                                               \
        if ((core)->port.log)                                                                                          \
            (core)->port.log("master", level, __VA_ARGS__);                                                            \
    } while (0)

/* index_members_core.c */
struct member *index_member_of(struct index_core *core, uint32_t peer); /* registered on this connection, or NULL */
bool index_readable(const struct index_core *core, uint16_t owner);     /* up or draining */
void index_heard(struct index_core *core, uint64_t now, struct member *member);
void index_on_register(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg);
void index_on_beat(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg);
void index_on_subscribe(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg);
void index_member_down(struct index_core *core, uint64_t now, struct member *member);
void index_members_tick(struct index_core *core, uint64_t now);
uint64_t index_members_wake(const struct index_core *core);
void index_promise(struct index_core *core, uint64_t now, uint16_t owner, uint64_t generation, uint32_t ms);

/* index_commit_core.c */
void index_on_commit(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg);
void index_on_inventory(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg);
void index_on_gone(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg);
void index_on_remove(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg);
void index_on_drop_reply(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg);
void index_drops_tick(struct index_core *core, uint64_t now);
uint64_t index_drops_wake(const struct index_core *core);
bool index_owes(const struct index_core *core, uint64_t now, const struct member *member); /* an answer, for OWES_MS */
void index_drops_of_member_end(struct index_core *core, uint64_t now, struct member *member); /* it cannot be reached */
void index_pending_of_peer_end(struct index_core *core, uint32_t peer);          /* nobody waits for the answer */
void index_redrop(struct index_core *core, uint64_t now, struct member *member); /* tell it its doomed copies */
void index_lose_all(struct index_core *core, struct member *member);             /* its copies are gone */
void index_raise_term(struct index_core *core, uint64_t term);

/* index_query_core.c */
void index_on_lookup(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg);
void index_on_prefix(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg);
void index_on_list(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg);
void index_on_model(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg);
void index_ghost_set(struct index_core *core, const struct store_key *key, bool evicted);

/* Authority counts from when the node has sent its beat, by its clock. By ours it has lapsed a tenth later than if it counted from
 * when the beat was received:   sent + authority  <=  received + authority + authority / 10   also where one clock is the faster. */
static inline uint64_t index_believed_ns(const struct index_core *core)
{
    return core->limits.authority_ms * (NS_PER_MS + NS_PER_MS / 10);
}

static inline void index_reply(struct index_core *core, uint32_t peer, const struct store_msg *reply)
{
    if (reply->request)
        core->port.send(core->port.ctx, peer, reply); /* a client that cannot be told has hung up or will */
}

#endif
