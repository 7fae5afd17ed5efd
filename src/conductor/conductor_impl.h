/* conductor_impl.h - the Conductor's insides, shared by its files. Everything belongs to the loop, but `survey`. */
#ifndef CONDUCTOR_CONDUCTOR_IMPL_H
#define CONDUCTOR_CONDUCTOR_IMPL_H

#include <pthread.h>

#include "base/list.h"
#include "base/metrics.h"
#include "base/rng.h"
#include "conductor/conductor.h"
#include "conductor/explain.h"
#include "conductor/fleet/fleet.h"
#include "conductor/history.h"
#include "conductor/record.h"
#include "conductor/survey.h"
#include "mooncake/scheduler.h"
#include "mooncake/store.h"
#include "net/http.h"
#include "net/loop.h"

/* Cells of what is counted per request. */
struct conductor_counters {
    struct metrics *metrics;
    struct metric *requests; /* by outcome */
    struct metric *routes;   /* by route */
    struct metric_cell *prompt_tokens, *reused_tokens, *answer_tokens;
    struct metric_cell *ttft, *ttft_predicted, *ttft_ratio, *tbt, *queue;
    struct metric_cell *moved, *refused_slo, *cancelled, *copied_bytes;
    struct metric_cell *running, *queued, *workers, *copies;
};

struct conductor {
    struct conductor_opts opts; /* texts are NULL here */
    struct loop *loop;
    struct http_server *http;
    struct fleet *fleet;
    struct mc_store *store; /* NULL: none */
    struct survey *survey;  /* NULL: no Store */
    enum mc_status survey_status;
    const struct mc_sched_policy *policy;
    struct conductor_counters count;
    struct explain_ring explains;
    struct history history;
    struct record *record; /* NULL: traffic is not recorded */
    struct rng rng;
    struct list requests;    /* all, struct request.link */
    struct list queue;       /* those in REQ_QUEUED, struct request.queued */
    struct loop_task pump;   /* somebody was queued */
    struct loop_timer again; /* somebody waits for a moment that may have come */
    uint64_t again_ns;
    uint64_t pass; /* through the queue */
    unsigned request_count, queue_count;
    uint64_t prefix_failed_ns; /* when the Store last failed to answer; 0: it answers */
    uint64_t started_s;
    bool draining;
    pthread_mutex_t idle_lock;
    pthread_cond_t idle_wake;
    bool idle;                /* guarded by idle_lock: draining, and nothing is open any more */
    atomic_uint worker_count; /* read by any thread */
    char http_address[ADDR_TEXT_MAX], fleet_address[ADDR_TEXT_MAX];
    char host_id[HELLO_HOST_MAX + 1];
};

/* A pass through the queue: everybody who waits there gets a chance. */
void conductor_pump(struct conductor *conductor);

/* A pass in so much time at the latest. */
void conductor_pump_in(struct conductor *conductor, double ms);

/* Wake who waits in conductor_drain(), if it is time. */
void conductor_note_idle(struct conductor *conductor);

/* Metric rows; NULL cells when memory is out (counting then does nothing). */
void conductor_counters_init(struct conductor_counters *count, struct metrics *metrics);

#endif
