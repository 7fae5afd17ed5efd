/* node_impl.h - what the files of the node's core share. */
#ifndef STORE_NODE_IMPL_H
#define STORE_NODE_IMPL_H

#include "base/buf.h"
#include "base/clock.h"
#include "base/hashmap.h"
#include "base/heap.h"
#include "base/list.h"
#include "base/log.h"
#include "base/pool.h"
#include "store/node/alloc.h"
#include "store/evict/curve.h"
#include "store/evict/evict.h"
#include "store/node/node_core.h"
#include "store/object.h"

enum {
    SLAB_BITS = 10,
    SLAB_OBJS = 1 << SLAB_BITS,
    PUT_PLANES = 128, /* of a put without an allocation of its own */
    PUT_CHUNKS = 256,
    PUT_PULLS = 256,
    PART_WRITES_MAX = 16, /* writes of one part under way */
    PART_HOLES_MAX = 64,  /* separate written ranges of one part */
    COMMIT_BATCH = 1024,
    COMMITS_OUT = 2, /* commit messages under way, upserts apart */
    INVENTORY_BATCH = 2048,
    GONE_BATCH = 4096,
    REGISTER_RETRY_MS = 1000,
    COMMIT_RETRY_MS = 3000, /* beyond the time an upsert may take at the master */
    RETRY_MS = 10,          /* the queue to the master was full */
    TOUCH_RUN = 256,        /* touched objects looked at together, for prefixes among them */
    BUNDLE_TOUCH_MS = 100,  /* the use of one member counts for the others that often */
    EVICT_SLICE = 64,       /* objects evicted by the watermark in one tick */
};

enum obj_state {
    OBJ_FREE,
    OBJ_WRITING,    /* its put owns it */
    OBJ_ABORTING,   /* its put has failed, a pull into it is still under way */
    OBJ_COMMITTING, /* sealed; kept back in its bundle, in the commit queue, or in a message to the master */
    OBJ_UNINDEXED,  /* sealed block; the master is told when it is there */
    OBJ_PRESENT,
    OBJ_DEAD, /* dropped, but pinned */
};

struct put;
struct bundle;

struct obj {
    struct hnode by_key; /* sealed ones, dead ones not */
    struct hnode by_gen; /* all but free ones */
    struct list link;    /* commit queue or batch */
    struct list mate;    /* of its bundle */
    struct bundle *bundle;
    uint8_t *at; /* header in memory */
    uint64_t generation, version, length, offset;
    uint64_t promised;
    uint64_t up;          /* id, as the policy knows it, of what a block hangs on; EVICT_NO_ID */
    struct store_key key; /* the name lies in the header once it is sealed, in the put before */
    struct put *put;      /* who waits for it, or NULL */
    uint32_t slot, block, segment, header_len;
    uint32_t pins;
    uint32_t entry_flags; /* STORE_REPLACE ... of its commit */
    uint8_t state;
    uint8_t row;     /* of the ledger it is counted in */
    uint8_t dropped; /* ledger row, when dropped before its verdict */
    bool evictable;  /* the policy knows it */
    bool sent;       /* in a commit message */
    bool soft_pin;
    bool hard_pin; /* the policy knows it as pinned for good; its space is given back like any other's */
};

/* A pull under way. */
struct io {
    struct list link; /* put->ios */
    struct put *put;
    struct store_pull *pulls;
    uint32_t count;
    uint64_t offset, length; /* of the part */
    struct store_msg reply;  /* part write: the answer */
    struct store_pull few[PUT_PULLS];
    uint8_t regions[STORE_SPANS_MAX][STORE_REGION_KEY];
};

struct interval {
    uint64_t from, to;
};

/* A put or part that somebody waits for. */
struct put {
    struct list link; /* core->puts */
    struct heap_node timer;
    struct obj *obj;
    uint32_t peer; /* 0: nobody waits any more */
    bool part;
    bool committed;    /* part: no more writes */
    uint8_t abort_row; /* when OBJ_ABORTING: where its object goes in the ledger */
    uint64_t id;       /* of a part */
    uint64_t bundle;   /* number of the bundle that keeps it back; 0: none */
    uint64_t deadline;
    struct store_msg reply;
    struct list ios;
    struct object_plan plan;
    struct object_header header;
    uint64_t *planes;
    uint32_t *crcs;
    struct interval *done; /* part: written, ascending */
    uint32_t done_count;
    uint64_t planes_few[PUT_PLANES];
    uint32_t crcs_few[PUT_CHUNKS];
    struct interval done_few[PART_HOLES_MAX];
    uint8_t name[MC_NAME_MAX];
};

struct batch { /* a commit message under way */
    struct list link;
    struct list objs; /* in the order of its entries */
    uint64_t request;
    uint64_t again_at; /* said again then: the answer was lost */
    struct bundle *bundle;
    bool twice; /* it was said again */
    bool apart; /* not counted among batches_out: an upsert, a bundle */
};

/* Objects that are seen together; node_bundle_core.c. */
struct bundle {
    struct list link; /* bundles_open, bundles_ready, or none */
    struct heap_node timer;
    struct list objs;  /* its members */
    struct list queue; /* ... in the order of their commit, until it is sent */
    uint64_t number, request;
    uint64_t bytes;
    uint64_t used_at, promised; /* when all of them were last touched; until when all are promised */
    uint32_t peer;              /* who waits; 0: nobody any more */
    uint32_t count, pins;       /* members; those of them that are pinned */
    uint8_t round;              /* of the inventory that named it last */
    bool kept;                  /* the master has spoken */
};

struct pin {
    struct list link; /* of its group */
    struct obj *obj;
};

struct pin_group {
    struct list link; /* core->groups */
    struct heap_node timer;
    struct list pins;
    uint32_t peer;
    uint64_t token;
};

struct node_core {
    struct node_limits limits;
    struct node_bugs bugs;
    struct store_port port;
    struct store_member self;
    struct node_memory *memory;
    uint32_t segments;
    struct node_names names;
    uint64_t seed;
    struct alloc *alloc;
    struct evict *evict;
    struct curve *curve; /* what other sizes of memory would hit */
    uint32_t evictable;  /* objects the policy knows */
    struct obj **slabs;
    uint32_t slabs_max, slots; /* slots ever used */
    struct list free_slots;    /* through obj.link */
    struct hashmap by_key, by_gen;
    struct pool put_pool, io_pool, batch_pool, pin_pool, group_pool, bundle_pool;
    struct list puts, groups;
    struct list bundles_open, bundles_ready;
    struct heap put_timers, pin_timers, bundle_timers;
    struct buf out;               /* scratch of messages */
    struct buf owners;            /* scratch of space */
    struct buf gone;              /* generations to report */
    struct list commits, upserts; /* queues */
    struct list batches;
    uint32_t batches_out; /* but those apart */
    uint64_t next_generation, next_request, next_part;
    uint64_t wake;   /* work that waits for the next tick */
    uint64_t pinned; /* bytes */
    bool *peer_up;
    bool *info_owed; /* NODE_INFO could not be queued for this client */
    bool any_info_owed;

    /* the master */
    bool master_up, registered, reporting;
    uint64_t register_request, register_at;
    uint64_t master_instance;
    uint64_t term_max;
    uint32_t report_slot;
    uint8_t report_round;

    bool draining, evicting;
    struct store_ledger ledger;
    uint64_t puts_done, evictions, hits, unindexed;
};

#define node_log(core, level, ...)                                                                                     \
    do {                                                                                                               \
        if ((core)->port.log)                                                                                          \
            (core)->port.log("node", level, __VA_ARGS__);                                                              \
    } while (0)

/* node_space_core.c: objects and the space they take */
struct obj *node_obj_at(const struct node_core *core, uint32_t slot);
struct obj *node_obj_find(const struct node_core *core, const struct store_key *key); /* present or unindexed */
struct obj *node_obj_by_generation(const struct node_core *core, uint64_t generation);
/* Makes room. `parent`: the id a block hangs on. */
enum mc_status node_obj_create(struct node_core *core, uint64_t now, const struct store_key *key,
    const uint8_t parent[16], const struct object_plan *plan, struct obj **out);
/* Somebody wants these, which are here, in this order: they count as used. */
void node_objs_used(struct node_core *core, uint64_t now, struct obj *const *objs, uint32_t count);
void node_obj_move(struct node_core *core, struct obj *obj, enum store_ledger_row row); /* in the ledger */
void node_obj_present(struct node_core *core, uint64_t now, struct obj *obj); /* the policy may take it from now on */
void node_obj_publish(struct node_core *core, const struct obj *obj);         /* a name: its version is in the header */
void node_obj_free(
    struct node_core *core, uint64_t now, struct obj *obj, enum store_ledger_row row); /* or dead, when pinned */
void node_obj_sealed(struct node_core *core, struct obj *obj);
void node_obj_pin(struct node_core *core, uint64_t now, struct obj *obj);
void node_obj_unpin(struct node_core *core, uint64_t now, struct obj *obj);
void node_watermark(struct node_core *core, uint64_t now);

/* node_put_core.c */
void node_on_put(struct node_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg);
void node_on_part_begin(struct node_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg);
void node_on_part_write(struct node_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg);
void node_on_part_commit(struct node_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg);
void node_on_part_abort(struct node_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg);
void node_puts_of_peer_end(struct node_core *core, uint64_t now, uint32_t peer);
void node_puts_tick(struct node_core *core, uint64_t now);
/* The master has spoken (or will not): answer whoever waits, and let go of the put. */
void node_put_verdict(struct node_core *core, struct obj *obj, enum mc_status status, bool existed, uint64_t version);
void node_put_fini(struct put *put); /* memory of its own only */
void node_io_fini(struct io *io);

/* node_bundle_core.c */
void node_bundle_take(struct node_core *core, uint64_t now, struct obj *obj, uint32_t peer, uint64_t number);
void node_on_bundle(struct node_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg);
void node_bundle_sent(struct node_core *core, struct bundle *bundle);
void node_bundle_verdicts(struct node_core *core, struct bundle *bundle, const struct store_msg *msg);
void node_bundle_orphan(struct node_core *core, uint64_t now, struct bundle *bundle); /* no verdict will come */
void node_bundle_pin(
    struct node_core *core, uint64_t now, struct bundle *bundle, bool pinned); /* one member more, less */
void node_bundle_leave(struct node_core *core, uint64_t now, struct obj *obj);
void node_bundles_of_peer_end(struct node_core *core, uint64_t now, uint32_t peer);
void node_bundles_tick(struct node_core *core, uint64_t now);

/* node_master_core.c */
void node_commit_queue(struct node_core *core, struct obj *obj);
void node_master_up(struct node_core *core, uint64_t now);
void node_master_down(struct node_core *core, uint64_t now);
void node_master_tick(struct node_core *core, uint64_t now);
void node_on_master_reply(struct node_core *core, uint64_t now, const struct store_msg *msg);
void node_on_drop(struct node_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg);
void node_on_promise(struct node_core *core, uint64_t now, const struct store_msg *msg);
void node_gone(struct node_core *core, const struct obj *obj);

/* node_pin_core.c */
void node_on_pin(struct node_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg);
void node_on_unpin(struct node_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg);
void node_pins_of_peer_end(struct node_core *core, uint64_t now, uint32_t peer);
void node_pins_tick(struct node_core *core, uint64_t now);

static inline void node_wake_at(struct node_core *core, uint64_t at)
{
    if (at < core->wake)
        core->wake = at;
}

static inline void node_reply(struct node_core *core, uint32_t peer, const struct store_msg *reply)
{
    if (peer != STORE_PEER_MASTER && reply->request)
        core->port.send(core->port.ctx, peer, reply); /* a client that cannot be told has hung up or will */
}

#endif
