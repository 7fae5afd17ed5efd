/* impl.h - the parts of a worker and which thread each belongs to. Included by the files of this folder only.
 *
 *     net.c     net thread: Conductors, requests in, events out       engine.c  engine thread: admission, steps, endings
 *     load.c    engine thread: import of prefixes                     put.c     engine thread: export of blocks
 *     pace.c    engine thread: threads and times of steps             pins.c    helper thread: the Store's blocking calls
 *     worker.c  create, drain, destroy
 *
 * Net to engine thread: notes in the inbox. Engine to net thread: events in the outbox and the published snapshot.
 * The Store's callbacks only post notes. */
#ifndef WORKER_IMPL_H
#define WORKER_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/hashmap.h"
#include "mooncake/engine.h"
#include "mooncake/store.h"
#include "net/rpc.h"
#include "worker/budget.h"
#include "worker/crowd.h"
#include "worker/fit.h"
#include "worker/gate.h"
#include "worker/inbox.h"
#include "worker/pins.h"
#include "worker/run.h"
#include "worker/batch.h"
#include "worker/slots.h"
#include "worker/worker.h"

enum {
    STATUS_MS = 200,      /* while something changes */
    STATUS_IDLE_MS = 500, /* below FLEET_PING_MS: a worker that says so much by itself is not asked */
    PROGRESS_MS = 100,
    REGISTER_AGAIN_MS = 2000,
    ENGINE_FAILURES_MAX = 3, /* MC_ESYS in a row: the engine is beyond use */
};

/* One Conductor. Net thread only. */
struct peer {
    struct worker *worker;
    struct rpc_peer *rpc;
    uint64_t epoch; /* grows with each connection */
    bool registered;
    struct rpc_call call; /* W_REGISTER */
    struct loop_timer again;
    struct hashmap runs; /* by request id */
    struct list held;    /* struct out: events that found the send queue full */
    uint64_t status_ns;
    struct wmsg_status said;
};

/* A frame on its way from the engine thread to a Conductor. */
struct out {
    struct list link;
    struct run *run; /* a reference */
    bool last;
    enum mc_status status;
    struct buf body;
};

struct worker {
    struct mc_engine *engine;
    const struct mc_engine_info *info;
    struct worker_opts opts;
    char *texts[8]; /* copies of its texts */
    size_t text_count;
    char name[WMSG_NAME_MAX + 1];
    uint8_t uuid[UUID_SIZE];
    struct wmsg_register card; /* what W_REGISTER says; speed as calibrated */

    /* net thread */
    struct loop *loop;
    struct peer peers[WORKER_CONDUCTORS_MAX];
    size_t peer_count;
    struct loop_timer status_timer, close_timer;
    struct loop_task out_task, drain_task, status_task;
    bool drain_said, closing;
    unsigned close_polls;

    /* engine thread */
    pthread_t engine_thread;
    bool engine_started;
    struct inbox inbox;
    struct list runs;
    uint32_t runs_count, engine_failures;
    struct batcher batcher;
    struct fit prefill_fit, decode_fit, load_fit;
    struct budget *budget;
    struct crowd crowd;
    struct slots load_slots, put_slots;
    struct gate load_gate, put_gate;
    struct list puts, windows; /* in flight: struct put, struct load_window */
    uint64_t puts_flying, retry_ns, order;
    uint32_t threads;      /* compute threads of the last step */
    bool room_made;        /* a sequence was freed in this sweep */
    uint64_t *plane_bytes; /* with padding, for mc_object_meta */
    uint32_t plane_count;
    uint64_t geometry;

    /* Store and helper thread */
    struct mc_store *store; /* NULL: none. Any thread */
    struct pins pins;

    /* shared */
    atomic_bool status_resting; /* set by the net thread when nothing changes, cleared by who changes the snapshot */
    atomic_bool draining, stopping; /* set once by any thread, relaxed: seen soon, followed by a kick */
    _Atomic uint32_t accepted;      /* runs in the worker; net thread adds, engine thread takes away */
    pthread_mutex_t lock;           /* guards what follows */
    pthread_cond_t changed;
    struct list outbox;
    struct wmsg_status snapshot;
    struct worker_stats stats;
    bool drained;
    enum mc_status verdict; /* why it drained by itself, or MC_OK */
};

/* worker.c: this worker cannot go on: drain, and let worker_wait() say why. Any thread */
void worker_give_up(struct worker *worker, enum mc_status why, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* net.c */
enum mc_status net_init(struct worker *worker); /* the loop, not running yet */
enum mc_status net_start(struct worker *worker, char *err, size_t err_size);
void net_stop(struct worker *worker);
void net_send(struct worker *worker, struct run *run, const struct wmsg_event *event); /* engine thread */
void net_send_finish(struct worker *worker, struct run *run);                          /* engine thread */
void net_status_changed(struct worker *worker); /* engine thread: the snapshot is another one */

/* engine.c */
void *engine_main(void *worker);
note_fn engine_run_arrived;
void engine_run_fail(struct worker *worker, struct run *run, enum mc_status status, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* pace.c: engine thread, or whoever creates the worker before it runs */
struct pace {
    uint64_t wall_ns, cpu_ns; /* at begin */
    uint32_t share;           /* threads that were ours */
};
struct pace pace_begin(struct worker *worker);
double pace_end(struct worker *worker, const struct pace *pace); /* seconds since begin */
struct wmsg_speed pace_speed(const struct worker *worker);
void pace_calibrate(struct worker *worker);

/* load.c: engine thread */
void load_begin(
    struct worker *worker, struct run *run);            /* RUN_LOADING, or RUN_COMPUTING when nothing is to be loaded */
void load_pump(struct worker *worker, struct run *run); /* ask for more, import what came, perhaps end */

void load_drop(struct worker *worker, struct run *run); /* the run ends: nobody waits for its windows any more */

void load_cancel_all(struct worker *worker); /* destroy: returns when the Store has let go of the buffers */

/* put.c: engine thread */
void put_init(struct worker *worker);
void put_cancel_all(struct worker *worker);
/* Export blocks below `limit` and hand them to the Store, as far as buffers go. */
void put_pump(struct worker *worker, struct run *run, uint32_t limit);
mc_block_ready_fn put_block_ready; /* arg: struct put_ready */
struct put_ready {
    struct worker *worker;
    struct run *run;
};

/* tokenize.c: net thread. MC_OK: *tokens is given. MC_ETOOBIG: more than msg->tokens_max, at least *count; MC_EINVAL, MC_ENOSUP, MC_ENOMEM */
enum mc_status worker_tokenize(
    const struct mc_engine *engine, const struct wmsg_tokenize *msg, uint32_t **tokens, size_t *count);

/* Change a counter of struct worker_stats. */
#define STAT_ADD(worker, field, n)                                                                                     \
    do {                                                                                                               \
        pthread_mutex_lock(&(worker)->lock);                                                                           \
        (worker)->stats.field += (n);                                                                                  \
        pthread_mutex_unlock(&(worker)->lock);                                                                         \
    } while (0)

#endif
