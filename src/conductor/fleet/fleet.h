/* fleet.h - the workers that dialled us: who they are, how they are, what each is doing for us.
 *
 *   fleet          owns the listener, the workers, the models they serve, and the table of Store nodes
 *   fleet_model    a name, and the one fingerprint record that everybody serving this name must have
 *   fleet_worker   one connection; lives until it closes. Others remember it by `serial`, never by pointer
 *   fleet_call     one question to a worker (tokenise, run); embedded in the asker's object
 *
 * A worker is READY, SUSPECT (nothing heard for FLEET_SUSPECT_MS; it is pinged before that), or DRAINING. A connection that
 * closes means down at once. What a worker has to do for us is counted here and not taken from its status, which is old
 * by up to a second: we are the only one who gives it work. What we have nodes copy is counted here, too.
 *
 * Threads: the loop's only. */
#ifndef CONDUCTOR_FLEET_H
#define CONDUCTOR_FLEET_H

#include "base/hashmap.h"
#include "base/list.h"
#include "mooncake/kvcache.h"
#include "mooncake/scheduler.h"
#include "mooncake/store.h"
#include "net/conn.h"
#include "worker/proto.h"

enum {
    FLEET_PING_MS = 600,
    FLEET_SUSPECT_MS = 1000,
    FLEET_NODES_MAX = 64,
    FLEET_MODELS_MAX = 16,
    FLEET_TRIES_MAX = 6,
};

struct fleet;
struct fleet_call;

struct fleet_model {
    struct list link;
    char name[WMSG_NAME_MAX + 1];
    char engine[WMSG_NAME_MAX + 1];
    struct mc_fp_record record;
    struct mc_fingerprint fingerprint;
    uint32_t block_tokens;
    uint64_t bytes_per_token;
    uint32_t sequence_tokens_max; /* of the roomiest worker seen */
    uint32_t vocab_size;
    uint64_t since_s;   /* wall clock */
    uint64_t held_pass; /* of the queue: somebody of this model had to wait in it */
};

struct fleet_worker {
    struct list link;   /* fleet->workers, once registered */
    struct list anchor; /* fleet->connected */
    struct fleet *fleet;
    struct conn *conn;
    uint64_t serial;           /* never used again */
    struct fleet_model *model; /* NULL until it has registered */
    struct wmsg_register who;
    struct wmsg_status status;
    enum mc_worker_state state;
    uint64_t heard_ns;
    uint64_t worked_ns; /* when it last finished a run; else since when it is here */
    struct loop_timer silence;
    bool pinged;          /* and nothing heard since */
    struct hashmap calls; /* by request id */
    struct mc_fit prefill, decode;
    struct mc_sched_link links[FLEET_NODES_MAX];
    double promised_ms; /* of prompts that wait in the queue for this one, as far as its pass has come */
    uint16_t node;      /* on its host; MC_SCHED_NONE */
    bool listed;        /* in fleet->workers */
};

struct fleet_call_ops {
    /* An event (FRAME_MORE) or the last answer. The call is detached before the last one. */
    void (*reply)(struct fleet_call *call, struct fleet_worker *worker, const struct frame *frame);
    /* The connection has gone; the call is detached. */
    void (*lost)(struct fleet_call *call, enum mc_status status);
    /* The worker is suspect; the call goes on until the asker drops it. */
    void (*silent)(struct fleet_call *call);
};

struct fleet_call {
    const struct fleet_call_ops *ops; /* set by the asker */
    struct fleet_worker *worker;      /* NULL: detached */
    struct hnode node;
    uint64_t request;
    /* what it costs the worker, for the snapshot */
    bool prefills, decodes;
    uint32_t compute_tokens, computed_tokens;
    double predicted_ms; /* of loading and prefill */
    double load_ms;      /* of it, loading; 0: nothing, or it has ended */
    uint16_t source;     /* node it loads from; MC_SCHED_NONE */
    uint64_t told_ns;    /* when it was given, or the worker last said how far it is */
    uint32_t kv_tokens;
};

struct fleet_opts {
    struct addr addr;
    uint8_t uuid[UUID_SIZE];
    const char *host_id;          /* NULL: not said */
    uint32_t prefill_depth;       /* prompts given to a worker before it has finished others; 0: 8 */
    void (*on_change)(void *arg); /* room or a worker may have come; not from inside a call of this header */
    void *arg;
};

/* MC_OK, or what conn_listen() says. `*out` is given: fleet_destroy(), which loses all calls (ops->lost). */
enum mc_status fleet_create(struct loop *loop, const struct fleet_opts *opts, struct fleet **out);
void fleet_destroy(struct fleet *fleet);

const struct addr *fleet_addr(const struct fleet *fleet);
struct list *fleet_workers(struct fleet *fleet); /* of struct fleet_worker, registered ones */
struct list *fleet_models(struct fleet *fleet);  /* of struct fleet_model */
struct fleet_model *fleet_model_find(struct fleet *fleet, const char *name);

/* Somebody to ask a small question: the least busy ready worker of this model that is not in `tried`. NULL: none. */
struct fleet_tried {
    uint64_t serial[FLEET_TRIES_MAX];
    unsigned count;
};
void fleet_tried_add(struct fleet_tried *tried, uint64_t serial);
struct fleet_worker *fleet_any(struct fleet *fleet, const struct fleet_model *model, const struct fleet_tried *tried);

/* A prompt waits in the queue for this worker; until the promises are dropped it counts as work there. */
void fleet_promise(struct fleet_worker *worker, double ms);
void fleet_promises_drop(struct fleet *fleet);

/* A snapshot of the workers of one model. `store_up` false: nobody can load or hand over anything. */
struct fleet_view {
    struct mc_sched_snapshot snapshot;
    struct mc_sched_worker rows[MC_SCHED_WORKERS_MAX];
    struct fleet_worker *workers[MC_SCHED_WORKERS_MAX]; /* the same index; lent until the loop goes on */
};
void fleet_view(struct fleet *fleet, const struct fleet_model *model, const struct fleet_tried *tried, bool store_up,
    uint64_t now_ns, struct fleet_view *view);

/* Ask. ops must be set. Failure: MC_AGAIN (its queue is full), MC_ECLOSED, MC_ENOMEM, MC_ETOOBIG; the call stays detached.
 * The costs in `call` must be set before fleet_run(). */
enum mc_status fleet_tokenize(
    struct fleet_worker *worker, struct fleet_call *call, const struct wmsg_tokenize *msg, const uint8_t *trace);
enum mc_status fleet_run(struct fleet_worker *worker, struct fleet_call *call, const struct wmsg_run *msg,
    const uint8_t *trace, uint64_t deadline_ns);

/* Tell the worker to give up, and go on listening: the last answer comes. */
void fleet_stop(struct fleet_call *call);

/* Tell the worker to give up and forget the call; no callback follows. Harmless when detached. */
void fleet_drop(struct fleet_call *call);

/* Blocks that the prefill `request` of worker `serial` pinned are not needed any more. */
void fleet_release(struct fleet *fleet, uint64_t serial, uint64_t request);

/* What a finished run has shown about its worker. */
void fleet_learn(struct fleet_worker *worker, const struct wmsg_finish *finish);

/* --- nodes of the Store --- */

struct fleet_node {
    uint8_t uuid[UUID_SIZE];
    char name[64], host_id[64];
    uint8_t state; /* as in mc_node_info */
    uint64_t capacity, used, objects, evictions;
    double copied; /* bytes in it, about, that we had copied there and that are elsewhere as well */
};

/* A run puts so many bytes into the node beside its worker that are elsewhere as well. */
void fleet_note_copy(struct fleet_worker *worker, uint64_t bytes);

/* About how many bytes of all nodes are such copies. */
double fleet_copied(const struct fleet *fleet);

/* What the Store says of its nodes: replaces capacities and states, keeps indices. */
void fleet_nodes_set(struct fleet *fleet, const struct mc_node_info *rows, uint32_t count);
const struct fleet_node *fleet_nodes(const struct fleet *fleet, uint32_t *count);

/* Index of a node, a new one if need be; MC_SCHED_NONE when the table is full. */
uint16_t fleet_node_index(struct fleet *fleet, const uint8_t uuid[UUID_SIZE]);

#endif
