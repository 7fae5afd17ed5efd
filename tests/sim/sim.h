/* sim.h - a whole cluster in one process under fake time: one master, some nodes, some clients, and a network between them.
 *
 *     world ---- queue of events in order of time (equal times: in the order they were made)
 *       |------- procs: each is one core of the Store, with its ports; may be killed, restarted, stopped
 *       |------- links: a connection between two procs: in order, delayed, may be reset, black-holed, healed
 *       |------- oracle: what was written and acknowledged, and so what readers may see
 *       `------- work: what clients do, and faults
 *
 * Everything random comes from one generator, so a seed gives the same events; their hash is printed. Messages go through the
 * real encoder and decoder. Reads and pulls are cut into pieces that happen at different times, so they tear. */
#ifndef SIM_H
#define SIM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/rng.h"
#include "store/client/client_core.h"
#include "store/names.h"
#include "store/index/index_core.h"
#include "store/node/node_core.h"

enum {
    NODES_MAX = 4,
    CLIENTS_MAX = 4,
    PROCS_MAX = 1 + NODES_MAX + CLIENTS_MAX,
    LINKS_MAX = NODES_MAX + CLIENTS_MAX + NODES_MAX * CLIENTS_MAX,
    REGIONS_MAX = 4096,
    SEGMENTS = 2,
    BLOCKS = 64,
    PARTED = 48, /* blocks from this one on are parts of blocks in SHARDS parts each */
    SHARDS = 2,
    MODELS = 3,
    NAMES = 12,
    SETS = 12, /* bundles, of MEMBERS names each */
    MEMBERS = 4,
    VALUES_MAX = 65536,
    VALUE_SIZE_MAX = 12000,
};

enum bug { BUG_NONE, BUG_GENERATION, BUG_ACK_EARLY, BUG_STAMP, BUG_REUSE, BUG_TERM, BUG_LAPSE, BUG_HALF, BUGS };

enum proc_kind { PROC_MASTER, PROC_NODE, PROC_CLIENT };

struct world;

struct proc {
    struct world *world;
    enum proc_kind kind;
    uint32_t number; /* index in world->procs */
    bool alive;
    uint32_t incarnation; /* events of earlier ones are dropped */
    uint64_t stopped_until;
    uint64_t slow;       /* extra delay of everything it sends */
    struct list backlog; /* events that came while it was stopped */
    uint64_t wake;       /* the tick that is in the queue */
    struct index_core *index;
    struct node_core *node;
    struct client_core *client;
    uint8_t uuid[16];
    uint32_t epoch;
    uint8_t *memory[SEGMENTS];
    uint64_t memory_size;
    struct names *names; /* node: as others of its host have it mapped, also while it is stopped, and when it is dead */
    struct names_view view;
    uint64_t started;
    bool draining;            /* node */
    uint64_t accepted;        /* ... objects until it began to drain */
    bool info[NODES_MAX + 1]; /* client: the node's segments are known */
    uint32_t running;         /* client: operations under way */
};

enum link_state { LINK_DOWN, LINK_UP };

struct link {
    struct proc *a, *b;      /* a dials */
    uint32_t peer_a, peer_b; /* number of the other in the core of a, of b */
    enum link_state state;
    bool wanted; /* a client dials a node only when its core asks for it */
    bool dialing;
    uint32_t life;    /* events of earlier connections are dropped */
    uint64_t last[2]; /* delivery times: order is kept per direction */
    uint64_t cut_until;
    bool up_a, up_b; /* has the core been told */
};

struct event {
    struct list link;
    uint64_t at, seq;
    void (*run)(struct world *world, struct event *event);
    struct proc *proc; /* whom it happens to; held while that is stopped. May be NULL */
    uint32_t incarnation;
    struct link *over;
    uint32_t life;
    uint32_t kind;
    void *arg;
    uint64_t number;
    size_t len;
    uint8_t *bytes;
    struct frame frame;
};

/* A one-sided read or a pull, carried out piece by piece. */
struct copy {
    struct list link;
    struct proc *proc, *other;
    struct link *over;
    uint32_t life, incarnation;
    uint64_t id, cookie;
    struct store_read *reads;
    struct store_pull *pulls;
    uint32_t count, at;
    uint64_t in;
    bool cancelled;
    enum mc_status status;
    uint64_t air_len; /* bytes of a piece on its way */
    uint8_t air[1500];
};

struct region {
    uint64_t id;
    struct proc *proc;
    const uint8_t *addr;
    uint64_t len;
};

struct value {
    uint32_t key;     /* name index */
    uint64_t version; /* once known */
};

struct name_state {
    uint64_t required; /* no get that started after this was set may see an older version */
    uint32_t exempt;   /* counts: three things went wrong together; see docs/decisions/033 */
    bool risky;        /* acknowledged while an owner may have been out of reach */
    bool tainted;      /* since a master was lost while risky, until an upsert is acknowledged in calm */
    bool open;         /* an operation ended without a known outcome: it may take effect or destroy */
    bool acked;
    uint32_t holder, holder_incarnation;
};

struct block_state {
    bool begun; /* somebody has begun to put it */
    bool acked, removed, damaged;
    uint32_t holder, holder_incarnation;
};

/* The record a master keeps for a model, once an answer has told. */
struct model_state {
    uint32_t incarnation; /* of the master; 0: not told yet */
    uint32_t record;
};

struct world {
    uint64_t seed, now, seq;
    struct rng rng;
    enum bug bug;
    bool trace, quiet; /* quiet: no new operations or faults */
    uint64_t hash;
    uint64_t events, faults, flips;
    struct event **heap;
    size_t heap_n, heap_cap;
    struct proc procs[PROCS_MAX];
    uint32_t procs_n, nodes_n, clients_n;
    struct link links[LINKS_MAX];
    uint32_t links_n;
    struct list copies;
    struct region regions[REGIONS_MAX];
    uint64_t next_region, next_copy;
    uint64_t disturbed;   /* last time something was out of order */
    uint64_t answer_lost; /* last time one found a full queue */
    uint64_t term_kept;
    bool ample; /* memory for everything: nothing may be evicted */
    bool may_flip;
    struct block_state blocks[BLOCKS];
    struct name_state names[NAMES];
    struct model_state models[MODELS];
    uint64_t seen[CLIENTS_MAX][NAMES]; /* newest version each reader saw */
    struct value *values;
    uint32_t values_n;
    uint64_t ops, oks, hits, misses, near, failures;
    uint64_t bundles, looks; /* put; judged */
    char failure[256];
};

/* world.c */
void world_create(struct world *world, uint64_t seed, enum bug bug, bool trace);
void world_destroy(struct world *world);
void world_step(struct world *world);
void world_after(struct world *world, uint64_t delay, struct proc *proc, void (*run)(struct world *, struct event *),
    void *arg, uint64_t number);
void world_fail(struct world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));
void world_trace(struct world *world, const char *format, ...) __attribute__((format(printf, 2, 3)));
void world_mix(struct world *world, uint64_t value);
void proc_poll(struct proc *proc); /* after each event: done calls, next tick */
void proc_start(struct proc *proc);
void proc_kill(struct proc *proc);
void proc_stop(struct proc *proc, uint64_t ns);
bool proc_runs(const struct proc *proc);

/* net.c */
void net_ports(struct proc *proc, struct store_port *port);
void link_reset(struct world *world, struct link *link);
void link_dial(struct world *world, struct link *link);
void link_add(struct world *world, struct proc *a, struct proc *b, uint32_t peer_a, uint32_t peer_b, bool wanted);
void net_proc_gone(struct world *world, struct proc *proc);
bool same_host(const struct proc *a, const struct proc *b);

/* work.c */
void work_start(struct proc *client);
void work_proc_gone(struct proc *client);

/* judge.c */
void work_done(struct proc *client, struct client_call *call);

/* faults.c */
void faults_start(struct world *world);

/* checks.c */
void checks_always(struct world *world);
void checks_end(struct world *world);

#endif
