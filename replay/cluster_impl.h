/* cluster_impl.h - the parts of a simulated cluster: requests, instances, events. See cluster.h. */
#ifndef REPLAY_CLUSTER_IMPL_H
#define REPLAY_CLUSTER_IMPL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "base/rng.h"
#include "replay/cluster.h"
#include "replay/events.h"
#include "replay/kv.h"

/* A request, from its arrival to its end. Given to the instance it waits at. */
struct sim_request {
    struct list link;                       /* queued, waiting for prefill, for decode, or ended in this iteration */
    uint64_t number, arrived, ready, first; /* times; ready: its KV is loaded */
    struct kv_handover handover;
    uint32_t tokens, output, id_count;
    uint32_t reuse_blocks;              /* that may come from a cache */
    uint32_t own_blocks, memory_blocks; /* [0, own_blocks) from the own node, [own_blocks, memory_blocks) from others */
    uint32_t fetched;        /* [memory_blocks, fetched) from SSDs, then what has come to the own node since */
    uint32_t done_tokens;    /* of the prompt */
    uint32_t counted_tokens; /* of the prompt, in the instance's queued_tokens */
    double expected_ms;      /* of prefill still to be done, as counted in the instance's backlog */
    double work_ms;          /* for its rank in the queue (mc_sched_waiting) */
    uint64_t asked;          /* in the queue: in which pass its turn was */
    uint16_t prefill, decode;
    uint32_t copy_tokens; /* of what is fetched, to be kept at its instance */
    bool started, held;   /* held: it had to wait in the queue */
    uint64_t last_step;   /* of its decode instance */
    uint32_t steps;       /* it takes there */
    uint64_t ids[];
};

/* An instance. What of a prefill instance has not been put into an iteration is `waiting`. */
struct sim_worker {
    uint16_t index;
    bool busy, wake_set;
    uint64_t ends; /* of the iteration */

    struct list prefills, ending; /* waiting for prefill; their prefill ends with the iteration */
    uint32_t waiting, present;    /* present: ending ones included */
    uint64_t queued_tokens, prompt_tokens;
    double backlog_ms, busy_ms;
    double promised_ms; /* of prompts that wait in the queue for this one, as far as this pass has come */

    struct list decodes;          /* waiting for room */
    struct sim_request **running; /* heap, by last_step */
    struct list fresh;            /* of them: no token yet */
    uint32_t running_count, running_cap;
    uint64_t step, kv_tokens;
    uint32_t assigned; /* decodes on their way, waiting ones included */
    uint64_t assigned_tokens;
};

struct cluster {
    const struct cluster_options *options;
    const struct model *model;
    struct cluster_result *out;
    struct trace *trace;
    struct events events;
    struct kv *kv;
    struct rng arrivals;
    struct sim_worker workers[MODEL_WORKERS_MAX];
    uint32_t prefills, worker_count;
    uint64_t now, decisions;
    double stamp_ms, clock_ms; /* of the last arrival: in the trace, here, where the first one is at 0 */
    struct list queue;         /* in front of all instances, in order of arrival */
    uint64_t queue_count, passes;
    uint64_t copying_tokens;  /* on their way to be there once more */
    bool ask;                 /* something has come or changed that may bring those in the queue on */
    uint64_t wakes;           /* when the queue is to be asked again; 0: not before something changes */
    struct sim_request *next; /* to arrive */

    struct mc_fit prefill_fit, decode_fit;
    struct mc_sched_worker seen[MODEL_WORKERS_MAX];
    struct mc_sched_link links[MODEL_WORKERS_MAX][MODEL_PREFILL_MAX];
};

/* Times are nanoseconds since the first arrival. A hundred years are nonsense, and far from what 64 bits hold. */
#define SIM_MAX_MS (100 * 365.25 * 86400e3)

enum sim_wake { WAKE_END, WAKE_LOADED, WAKE_DECODE, WAKE_QUEUE };

/* What is hashed. */
enum sim_event { SIM_PLACED, SIM_HELD, SIM_REFUSED, SIM_FIRST, SIM_DONE };
void sim_hash(struct cluster *c, enum sim_event what, const struct sim_request *request, uint64_t more);

/* sim_place.c: it comes to the queue. Given. */
void sim_queue(struct cluster *c, struct sim_request *request);
/* Decide about those in the queue, in order of their ranks, and bring them where they belong, until one has to wait. */
enum mc_status sim_place(struct cluster *c);

/* sim_worker.c: requests are given to the instance. */
enum mc_status sim_worker_prefill(struct cluster *c, struct sim_worker *worker, struct sim_request *request);
enum mc_status sim_worker_decode(struct cluster *c, struct sim_worker *worker, struct sim_request *request);
/* The iteration is over; the next one begins. */
enum mc_status sim_worker_end(struct cluster *c, struct sim_worker *worker);
/* The KV of what is first in line has been loaded. */
enum mc_status sim_worker_loaded(struct cluster *c, struct sim_worker *worker);

/* cluster.c: the first token is out; all are (the request is freed). */
void sim_first_token(struct cluster *c, struct sim_request *request);
void sim_finish(struct cluster *c, struct sim_request *request);
void sim_reject(struct cluster *c, struct sim_request *request);

#endif
