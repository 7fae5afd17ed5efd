/* shell.h - the inside of a client: the shell around client_core. Shared by the files of this folder.
 *
 *     mc_store --- core (client_core.h)      cache of locations, calls, health; pure
 *        |-------- loop                      its own thread: links, the Transfer Engine, completions
 *        |-------- nodes[peer]               per node: a control link, the engine's peer, region keys of its segments
 *        |-------- jobs: intake -> ready or ready_puts -> in the core -> finish
 *        `-------- hot (hot.h)               objects of this host's nodes that callers read without the loop
 *
 * A job is a client_call with somebody who waits for it. Callers put jobs into `intake` (lock) and ring; the loop moves them to
 * `ready` and gives them to the core, as many as it takes; what comes out of client_core_done() is finished. A caller who is going to wait
 * borrows the loop when it sleeps, does that himself, and takes the answers in at their sockets (shell_wait()).
 *
 * A node is announced to the core (on_peer_up) when its control link is up, it has told its segments, and a probe read has come
 * back through the engine: from then on it can also pull from us.
 *
 * Threads: everything is the loop's except what is marked. */
#ifndef STORE_CLIENT_SHELL_H
#define STORE_CLIENT_SHELL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/list.h"
#include "net/loop.h"
#include "store/client/client_core.h"
#include "store/client/hot.h"
#include "store/client/near.h"
#include "store/link.h"
#include "store/reads.h"
#include "transfer/te.h"

struct job {
    struct client_call call; /* first: a call from the core is its job */
    struct mc_store *store;
    struct list link; /* intake or ready */
    bool started;
    bool home;  /* `finish` calls the application: on the loop's own thread only, not in that of a borrower */
    bool ended; /* its results are there, it waits in store->ended for that thread */
    /* On the loop, once; call.status and the call's results are set. The job may be freed. */
    void (*finish)(struct job *job);
};

/* Somebody who waits until his jobs are finished. */
struct waiter {
    _Atomic uint32_t finished; /* futex word */
    bool leads;                /* the loop's: he is at the sockets, in the loop's place */
    struct list link;          /* store->told */
};

struct node_segments {
    uint32_t count;
    struct store_segment row[];
};

struct node {
    struct mc_store *store;
    uint32_t peer;
    struct store_link *link;
    struct mc_peer *engine;
    struct store_member member;
    struct node_segments *segments;
    struct buf info; /* its NODE_INFO, kept until it is announced */
    struct mc_batch *probe;
    struct mc_op *probe_ops; /* of the probe under way: one for each segment */
    uint8_t probe_byte;
    struct loop_timer probe_again;
    bool announced;
    bool hot;     /* callers may read from its memory */
    uint8_t path; /* enum mc_path its segments are read by; set when it is announced */
};

struct mc_store {
    struct loop *loop;
    struct mc_te *te;
    struct client_core *core;
    struct store_port port;
    struct store_link *master;
    struct hello self;
    struct node **nodes;               /* by peer number; NULL: none */
    uint32_t nodes_max, nodes_top, ns; /* no node at nodes_top or above */
    struct hot hot;
    struct near near;

    struct list ready;      /* jobs the core has not taken yet */
    struct list ready_puts; /* those that put */
    uint32_t puts;          /* in the core */
    struct list ended;      /* jobs for the loop's own thread */
    struct list told;       /* waiters to be woken at the end of the turn */
    struct store_reads reads;
    struct loop_task intake_task, settle_task, touch_task, ended_task, told_task;
    struct loop_timer wake, touch_timer;
    struct loop_gap gap;

    pthread_mutex_t lock;
    struct list intake; /* guarded by lock */
    bool closing;       /* guarded by lock */

    _Atomic uint32_t master_up; /* futex word: written by the loop, waited for by open */
    _Atomic uint32_t jobs;      /* in intake, ready or the core */
    _Atomic bool shut;          /* as `closing`, for those who do without the loop */
};

/* Any thread. MC_OK: it will be finished; the loop has to be told, by shell_ring(), shell_push() or shell_wait(). MC_ECLOSED: store is closing.
 * MC_AGAIN: too many. */
enum mc_status job_submit(struct mc_store *store, struct list *jobs, uint32_t count);
void shell_ring(struct mc_store *store);
/* The same, and where the loop sleeps it is on its way when this returns: the caller does it. */
void shell_push(struct mc_store *store);

/* Any other thread than the loop's: wait for what was submitted. `bytes`: large ones may come or go over tcp. */
void shell_wait(struct mc_store *store, struct waiter *waiter, bool bytes);

/* On the loop: his word becomes 1 at the end of the turn. By then he may find the loop asleep, to borrow it for what he does next. */
void waiter_tell(struct mc_store *store, struct waiter *waiter);
void waiters_tell(struct mc_store *store); /* those now */

/* On the loop: give it up; finished (MC_ECANCELED, or what it came to) before this returns. */
void job_cancel(struct job *job);

/* Put behind the jobs that wait, from inside a finish. */
void job_again(struct job *job);

/* Any other thread than the loop's: submit one job and wait for it. */
enum mc_status job_run(struct mc_store *store, struct job *job, uint32_t deadline_ms);

/* After the core was touched: take what is done, start what waits, set the timer. */
void shell_settle(struct mc_store *store);

/* port.c */
enum mc_status shell_open(struct mc_store *store, const struct mc_store_opts *opts);
void shell_close(struct mc_store *store);
/* Why the master is not there: MC_EVERSION, MC_EPERM when it refuses us, else MC_EPEERDOWN. Any thread. */
enum mc_status shell_master_error(struct mc_store *store);

/* nodes.c */
extern const struct store_link_ops shell_master_ops;
void node_connect(void *ctx, uint32_t peer, const struct store_member *member); /* slots of struct store_port */
void node_disconnect(void *ctx, uint32_t peer);
void nodes_fini(struct mc_store *store);
/* Callers read from the memory of nodes that the core would ask, of no others. */
void nodes_settle(struct mc_store *store);
bool shell_same_host(const struct mc_store *store, const struct store_member *member);
/* NULL: no node of that number. */
struct node *shell_node(const struct mc_store *store, uint32_t peer);
/* Which way reads from this node go; MC_PATH_NONE: no such node. */
uint8_t shell_path(const struct mc_store *store, const uint8_t uuid[16]);
bool node_segment(const struct node *node, uint32_t segment, struct mc_region_key *key, uint64_t *size);

/* A futex word: sleep while *word == value, until the deadline. Any thread. */
void word_sleep(_Atomic uint32_t *word, uint32_t value, uint64_t deadline_ns);
void word_wake_all(_Atomic uint32_t *word);

#endif
