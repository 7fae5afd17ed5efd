/* cluster.h - a whole cluster in simulated time: a trace, one policy, one eviction, a model; figures.
 *
 * Live code: the policies (mooncake/scheduler.h) and the node's eviction (store/evict/evict.h). Models: engines, links, clock.
 *
 *     arrive -> decide -> [held] -> load -> prefill, in iterations -> handover -> decode, a step at a time -> done
 *
 * Nothing here reads a clock or depends on addresses, so equal inputs give equal results; `event_hash` covers every decision, first
 * token and end, with its time in nanoseconds.
 *
 * Threads: one. */
#ifndef REPLAY_CLUSTER_H
#define REPLAY_CLUSTER_H

#include <stdint.h>

#include "replay/evictions.h"
#include "replay/model.h"
#include "replay/one_pool.h"
#include "replay/policies.h"
#include "replay/series.h"
#include "replay/stats.h"
#include "replay/trace.h"

/* How one request ended. */
struct cluster_outcome {
    uint64_t number;          /* in the trace, bad lines not counted */
    double ttft_ms, tbt_ms;   /* tbt: mean time between its tokens, 0 with one token */
    uint16_t prefill, decode; /* instances, counted through: decode instances stand behind those for prefill */
    bool rejected;            /* then the rest is 0 */
};
typedef void cluster_outcome_fn(void *arg, const struct cluster_outcome *outcome);

struct cluster_options {
    struct trace_options trace;
    const struct model *model; /* complete */
    const struct mc_sched_policy *policy;
    struct eviction eviction;       /* not a clairvoyant one: MC_ENOSUP */
    double speed;                   /* arrivals come that much faster */
    uint64_t seed;                  /* of ties and draws; not 0: the gaps between arrivals vary by +-10 %, too */
    double slo_ttft_ms, slo_tbt_ms; /* 0: none */
    int64_t never_refuse;           /* number of a request that has no SLO; -1: none */
    int64_t stuck;               /* prefill instance that is at full load all the time, its cache is there; -1: none */
    cluster_outcome_fn *outcome; /* in order of the ends; may be NULL */
    void *outcome_arg;
    replay_progress_fn *progress; /* may be NULL */
    void *arg;
};

/* Why tokens of prompts were computed. */
struct missed_tokens {
    uint64_t fresh;      /* nobody had stored them */
    uint64_t evicted;    /* stored once, and gone */
    uint64_t elsewhere;  /* in the cluster, and not fetched */
    uint64_t uncachable; /* the last token, what fills no block, what has no id */
};

/* What an instance that is stuck at full load does to decisions, each made with and without. */
struct stuck_moves {
    uint64_t preferred, others; /* of those that ran at once without: would have gone to it; to somebody else */
    uint64_t moved;             /* of the others: go elsewhere, or wait */
};

struct cluster_result {
    uint64_t requests, finished, rejected, good; /* good: finished within the SLO */
    uint64_t bad_lines, reordered;
    uint64_t prompt_tokens, own_tokens, remote_tokens; /* of prompts that were prefilled; the rest was computed */
    uint64_t ssd_tokens;                               /* the same, from SSDs */
    struct missed_tokens missed;                       /* of those computed: why */
    uint64_t duplicated_tokens;                        /* in caches more than once, the most at any time */
    double bytes_moved, load_max_over_mean, simulated_s;
    uint64_t event_hash;
    struct stuck_moves stuck; /* all 0 when none is */
    uint64_t held_max;        /* prompts that had to wait in the queue in front of all */
    struct stats ttft, tbt;
    struct series series;
    double busy_ms[MODEL_WORKERS_MAX]; /* by instance, prefill first */
};

/* MC_OK (then cluster_result_fini), as trace_next(), or MC_ETOOBIG: a hundred years of simulated time and more. */
enum mc_status cluster_run(const struct cluster_options *options, struct cluster_result *out);
void cluster_result_fini(struct cluster_result *result);

#endif
