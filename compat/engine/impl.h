/* impl.h - the inside of an engine, shared by its files.
 *
 *   ce_engine --- te, loop             the Transfer Engine, on a loop and behind a listener of our own
 *      |--------- memory, managed      what peers may reach (own locks)
 *      |--------- served (serve.c)     connections by which peers ask what is registered, and notify
 *      |--------- inbox (inbox.c)      notifications nobody has taken yet (own lock)
 *      |--------- peers (peer.c) ----- te_peer, rpc, desc   one per name in use
 *      |--------- calls (call.c)       transfers that did not go through at once, asynchronous ones, questions
 *      `--------- ids (ids.c)          calls by number (own lock)
 *
 * A call holds its peer by a reference, a user of a description holds that by one. Lock order: peers_lock, then peer->lock; the
 * others are innermost.
 * Threads: "loop" is the engine's loop, "any" every other one. */
#ifndef COMPAT_ENGINE_IMPL_H
#define COMPAT_ENGINE_IMPL_H

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "base/clock.h"
#include "compat/engine/ce.h"
#include "compat/engine/managed.h"
#include "compat/engine/memory.h"
#include "compat/engine/settings.h"
#include "net/rpc.h"
#include "transfer/te.h"

#define OPEN_MS 5000 /* first contact with a peer, where nothing else bounds it */

/* Limits of a connection: those of the Transfer Engine's links, whose listener is ours, with room for a notification. */
struct conn_limits ce_conn_limits(void);

/* ---- a peer ---- */

/* What a peer has registered, as it once said; sorted by address. */
struct ce_desc {
    _Atomic uint32_t refs;
    uint8_t uuid[UUID_SIZE]; /* who said it */
    uint32_t epoch;
    uint64_t version, first;
    uint32_t count;
    struct ce_spot {
        uint64_t addr, end;
        uint32_t best; /* of those up to here, the one that reaches furthest */
        struct mc_region_key key;
    } spots[];
};

struct ce_desc *ce_desc_ref(struct ce_desc *desc);
void ce_desc_unref(struct ce_desc *desc); /* NULL is harmless */
bool ce_desc_same_process(const struct ce_desc *a, const struct ce_desc *b);

/* The spot that covers [addr, addr+len), or NULL. */
const struct ce_spot *ce_desc_find(const struct ce_desc *desc, uint64_t addr, uint64_t len);

/* From the areas of an answer (CE_AREA_SIZE each). MC_OK, MC_EPROTO, MC_ENOMEM. */
enum mc_status ce_desc_parse(
    const struct ce_wire_answer *head, const uint8_t *areas, const struct hello *from, struct ce_desc **out);

/* Waits for an answer to a question asked after it began to wait; on the loop. */
struct ce_waiter {
    struct list link;
    uint64_t want; /* number of the question */
    void (*fn)(struct ce_waiter *waiter, enum mc_status status);
};

struct ce_peer {
    struct hnode node; /* engine->peers, guarded by peers_lock, as are these: */
    struct list used;  /* engine->peers_used, the one used last at the end */
    unsigned refs;
    bool listed;

    struct ce_engine *engine;
    char *name;       /* as callers write it */
    struct addr addr; /* numeric */
    bool by_name;     /* `addr` was looked up */
    atomic_bool lost; /* nobody answers there any more: look the name up again when it is used again */
    struct mc_peer *te_peer;

    pthread_mutex_t lock;
    struct ce_desc *desc; /* guarded by lock, as are these: NULL: to be asked */
    uint64_t desc_number; /* the question it answers */
    uint64_t asked;       /* questions so far */

    struct rpc_peer *rpc; /* from here on: loop */
    struct rpc_call ask;
    bool asking;
    struct ce_wire_answer head;
    uint8_t *areas;
    struct list waiters;
};

/* The peer of that name, with a reference for the caller. Looks a host name up when it is new: may block.
 * MC_OK, MC_EINVAL (no host:port), MC_ENOENT (host not known), MC_ENOMEM. any. */
enum mc_status ce_peer_get(struct ce_engine *engine, const char *name, struct ce_peer **out);
void ce_peer_put(struct ce_peer *peer); /* any */
void ce_peers_close(struct ce_engine *engine);

/* What is known now, with a reference; NULL: nothing. `*number`: which question it answers. any. */
struct ce_desc *ce_peer_desc(struct ce_peer *peer, uint64_t *number);

/* The number that the next question will have. any. */
uint64_t ce_peer_next(struct ce_peer *peer);

/* Have fn called when question `want` or a later one is answered, or one has failed. loop. */
void ce_peer_wait(struct ce_peer *peer, struct ce_waiter *waiter);
void ce_peer_drop_desc(struct ce_peer *peer); /* any */

/* ---- knocking ---- */

/* Does the port refuse? That is the one sign that a process is gone for certain: silence may be the network. loop. */
struct ce_knock {
    struct loop *loop;
    struct loop_io io;
    struct loop_timer timer;
    int fd, error;
    void (*fn)(struct ce_knock *knock, bool refused);
};
void ce_knock_init(struct ce_knock *knock, struct loop *loop);
enum mc_status ce_knock_start(/* MC_OK: fn follows, never inside this call. MC_ENOMEM */
    struct ce_knock *knock, const struct addr *addr, void (*fn)(struct ce_knock *, bool refused));
void ce_knock_stop(struct ce_knock *knock);

/* ---- from ops to mc_ops ---- */

#define BUILD_OPS  16384 /* of one batch: more are carried out one batch after the other */
#define BUILD_FEW  8
#define BUILD_DONE MC_OK

/* A part of a list of ops as one batch of the Transfer Engine; neighbours at both ends are one op of it. */
struct ce_build {
    struct mc_op *ops;
    uint32_t *firsts; /* index of the first ce_op that ops[i] stands for; firsts[count] is the end */
    uint32_t count, room;
    struct mc_op few[BUILD_FEW];
    uint32_t few_firsts[BUILD_FEW + 1];
};
void ce_build_init(struct ce_build *build);
void ce_build_fini(struct ce_build *build);

/* Take what is pending from ops[*at] on. MC_OK: build->count ops (0: nothing is left), *at moved behind them. MC_ENOENT: ops[*at] is
 * covered by no registration. MC_ENOMEM. */
enum mc_status ce_build_take(
    struct ce_build *build, const struct ce_desc *desc, struct ce_op *ops, size_t n, size_t *at);

/* After the batch, which ended with `status`: those that went well are MC_OK, the others stay pending. Says what to do about the worst failure: MC_OK none,
 * MC_ENOENT ask again what is registered, MC_EPEERDOWN the peer is away, MC_AGAIN soon again, anything else: give up. */
enum mc_status ce_build_settle(struct ce_build *build, enum mc_status status, struct ce_op *ops);

/* ---- calls ---- */

enum ce_call_step {
    CALL_IDLE,   /* to be driven on: call_step() */
    CALL_ASKING, /* for an answer of the peer */
    CALL_FLYING, /* a batch is under way */
    CALL_KNOCKING,
    CALL_RESTING, /* before it is tried again */
    CALL_TELLING, /* its notification, or its probe */
    CALL_ENDED,
};

struct ce_call {
    struct ce_engine *engine;
    struct ce_peer *peer;
    struct ce_op *ops; /* lent, or own_ops */
    struct ce_op *own_ops;
    size_t n, at;
    uint64_t deadline_ns;
    struct ce_wire_note note; /* id 0: none; bytes lent, or in own_note */
    void *own_note;
    bool probe;

    struct list link; /* engine->calls; from here on: loop */
    struct loop_task start;
    enum ce_call_step step;
    struct ce_waiter waiter;
    uint64_t want;              /* only what answers this question or a later one may be used */
    uint64_t fresh;             /* an address not in what answers this question is not registered */
    struct ce_desc *desc, *met; /* used now; the process that was given bytes */
    struct ce_build build;
    struct mc_batch *batch;
    struct ce_knock knock;
    struct loop_timer timer, limit;
    struct rpc_call rpc;
    unsigned refusals, rests, changes;
    bool cancelled;

    enum mc_status status; /* guarded by engine->done_lock, as is this: */
    bool finished;
};

/* A call over `ops` (lent until it has ended). The reference to `peer` is given. any. */
void ce_call_init(struct ce_call *call, struct ce_peer *peer, struct ce_op *ops, size_t n, uint64_t deadline_ns);
void ce_call_start(struct ce_call *call);
enum mc_status ce_call_end_wait(struct ce_call *call, uint64_t deadline_ns);
void ce_call_fini(struct ce_call *call);
void ce_calls_close(struct ce_engine *engine); /* loop, or no thread running it */

/* ---- serving ---- */

enum mc_status ce_serve_hello(struct conn *conn, const struct hello *peer, struct buf *why);
extern const struct conn_ops ce_serve_unknown;
void ce_serve_close(struct ce_engine *engine);

struct ce_inbox {
    pthread_mutex_t lock;
    struct ce_note *notes; /* guarded by lock, as are these: */
    size_t count, room, bytes;
    uint64_t *seen; /* ring of the last ids: a note sent again is taken once */
    unsigned seen_at;
};
enum mc_status ce_inbox_init(struct ce_inbox *inbox);
void ce_inbox_fini(struct ce_inbox *inbox);

/* MC_OK (also when it came before), MC_EBUSY full, MC_ENOMEM. */
enum mc_status ce_inbox_put(struct ce_inbox *inbox, const struct ce_wire_note *note);

/* ---- numbers ---- */

struct ce_ids {
    pthread_mutex_t lock;
    struct hashmap table; /* struct id; guarded by lock, as are these: */
    struct list order;
    uint64_t last;
    struct ce_end {
        uint64_t id;
        enum mc_status status;
    } * ends; /* ring */
};
enum mc_status ce_ids_init(struct ce_ids *ids);
void ce_ids_fini(struct ce_ids *ids);

/* ---- the engine ---- */

struct ce_engine {
    struct ce_settings set;
    pid_t pid;
    struct loop *loop;
    struct mc_te *te;
    struct hello self;
    struct listener *listener;
    uint16_t port;
    char session[ADDR_TEXT_MAX];
    struct ce_memory memory;
    struct ce_managed managed;
    struct ce_inbox inbox;
    struct ce_ids ids;

    pthread_mutex_t peers_lock;
    struct hashmap peers;
    struct list peers_used;

    pthread_mutex_t done_lock;
    pthread_cond_t done_cond; /* a call has ended, or the last user left */
    unsigned users;           /* threads inside, and calls that run; guarded by done_lock */
    atomic_bool closing;

    struct list calls, served; /* loop */
};

/* May this thread use the engine now? MC_OK: ce_leave() later. MC_ECLOSED, MC_ENOSUP (forked child). */
enum mc_status ce_enter(struct ce_engine *engine);
void ce_leave(struct ce_engine *engine);

#endif
