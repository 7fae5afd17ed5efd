/* scheduler.h - where a request runs, and when: pure functions from a snapshot of the fleet to a decision and its explanation,
 * and from what waits to whose turn it is.
 *
 *   snapshot   what is known of the workers and links, and how old that knowledge is
 *   request    a prompt of so many tokens, how much of it is cached on which node, and its SLO
 *   policy     one row in a table: a function (snapshot, request) -> decision, and the order of the queue in front of all workers
 *   decision   run there (and load so much), hold it, refuse it, or nobody is there
 *   candidate  one worker as the policy saw it: every cost term, or why it was passed over
 *
 * The live Conductor and the trace replayer call the very same code, so nothing here reads a clock, allocates, logs, locks
 * or does I/O, and equal inputs give equal decisions on every machine. Times are in milliseconds (double), sizes in bytes,
 * lengths in tokens; "blocks" are of request->block_tokens tokens.
 *
 * Prediction. T_prefill and the decode step are linear in a few features and are fitted online from what workers measured
 * (struct mc_fit, at the end). The terms of a time to first token:
 *
 *     ttft = queue (prefill work before us) + load (fetch `load_tokens` of KV) + prefill (compute the rest)
 *
 * Threads: any; arguments are borrowed for the call. */
#ifndef MOONCAKE_SCHEDULER_H
#define MOONCAKE_SCHEDULER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mooncake/status.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    MC_SCHED_WORKERS_MAX = 256,
    MC_SCHED_NODES_MAX = 256,
    MC_SCHED_NONE = UINT16_MAX, /* no worker, no node */
    MC_FIT_TERMS = 3,
};

/* Share of the pool that callers leave to further copies of what is there already (copy_tokens_max). */
#define MC_SCHED_COPIES_PART 0.1

/* ---- fits: what a worker needs for a piece of work ---- */

/* y = sum of theta[i] * x[i], least squares of the *relative* error with forgetting, every theta[i] >= 0 (a time that
 * falls with more work is noise). Starts from a prior that measurements outvote. Zeroed is not a valid fit. */
struct mc_fit {
    double theta[MC_FIT_TERMS];
    double normal[MC_FIT_TERMS][MC_FIT_TERMS]; /* weighted sums of x x', prior included */
    double moment[MC_FIT_TERMS];               /* weighted sums of x y */
    double ridge[MC_FIT_TERMS];                /* pull towards where it is, so that the equations never are singular */
    double error;                              /* smoothed |predicted - measured| / measured, before each update */
    uint64_t samples;
};

/* Every prior[i] > 0. */
MC_API void mc_fit_init(struct mc_fit *fit, const double prior[MC_FIT_TERMS]);
/* Learn one measurement. Anything not finite or not positive is ignored. */
MC_API void mc_fit_observe(struct mc_fit *fit, const double x[MC_FIT_TERMS], double y);
MC_API double mc_fit_predict(const struct mc_fit *fit, const double x[MC_FIT_TERMS]);

/* T_prefill of a prompt of `length` tokens whose first `hit` come from the cache: a constant, tokens computed, and pairs of
 * tokens that attend to each other (length^2 - hit^2). */
MC_API void mc_fit_prefill_x(uint32_t length, uint32_t hit, double x[MC_FIT_TERMS]);
MC_API double mc_fit_prefill_ms(const struct mc_fit *fit, uint32_t length, uint32_t hit);

/* One decode step of `batch` sequences that have `kv_tokens` tokens of KV together. */
MC_API void mc_fit_decode_x(uint32_t batch, uint64_t kv_tokens, double x[MC_FIT_TERMS]);
MC_API double mc_fit_decode_ms(const struct mc_fit *fit, uint32_t batch, uint64_t kv_tokens);

/* Priors for workers that have measured nothing yet: a small model on a laptop. */
MC_API extern const double mc_fit_prefill_prior[MC_FIT_TERMS];
MC_API extern const double mc_fit_decode_prior[MC_FIT_TERMS];

/* ---- snapshot ---- */

enum mc_worker_role {
    MC_WORKER_PREFILL = 1,
    MC_WORKER_DECODE = 2,
    MC_WORKER_BOTH = 3, /* bit mask of the two */
};

enum mc_worker_state {
    MC_WORKER_READY,
    MC_WORKER_SUSPECT,  /* silent for too long: used only when nobody else is left */
    MC_WORKER_DRAINING, /* finishes what it has, takes nothing new */
    MC_WORKER_TRIED,    /* this request has failed there already: used only when nobody else is left */
    MC_WORKER_DOWN,
};

/* The way KV takes from one node to one worker. */
struct mc_sched_link {
    double bytes_per_ms; /* measured; 0: not reachable */
    double latency_ms;   /* of the first byte */
    double queue_ms;     /* transfers before ours */
};

struct mc_sched_worker {
    uint8_t role;  /* enum mc_worker_role */
    uint8_t state; /* enum mc_worker_state */
    uint16_t node; /* node on its host: what is there counts as its own; MC_SCHED_NONE */

    /* prefill side */
    uint32_t waiting;       /* prompts not finished */
    uint32_t waiting_max;   /* takes no more than these; 0: no limit */
    uint32_t queued_tokens; /* of them, still to be computed */
    double queue_ms;        /* predicted time until a new prompt could start */
    const struct mc_fit *prefill;

    /* decode side */
    uint32_t running; /* sequences, those assigned and not started included */
    uint32_t running_max;
    uint64_t kv_tokens; /* in its context, promised ones included */
    uint64_t kv_tokens_max;
    const struct mc_fit *decode;

    const struct mc_sched_link
        *links;     /* one per node of the snapshot, or NULL: it has no Store, nothing can be loaded */
    double age_ms;  /* since its last status */
    double idle_ms; /* since it last finished a run; 0 while it has one */
};

/* Knobs of the policies; zero means the default in brackets. */
struct mc_sched_options {
    double balance_threshold;   /* [1.3] Algorithm 1: fetch when best prefix / own prefix is above this */
    uint32_t direct_tokens_max; /* [one block] compute at most this many on the decode worker of a direct request */
    double trial_ms; /* [5000] workers idle for so long are tried with what seems a little too slow for the SLO */
};

struct mc_sched_snapshot {
    const struct mc_sched_worker *workers;
    uint32_t worker_count; /* <= MC_SCHED_WORKERS_MAX */
    uint32_t node_count;   /* <= MC_SCHED_NODES_MAX; length of links[] and node_blocks[] */
    struct mc_sched_options options;
    uint64_t
        copy_tokens_max; /* so many more may be copied: the part of the pool that is meant for further copies, less those */
    uint64_t sequence; /* number of this decision: round-robin's hand */
};

/* ---- request ---- */

struct mc_sched_request {
    uint32_t tokens;        /* of the prompt, >= 1 */
    uint32_t output_tokens; /* room to keep for the answer */
    uint32_t block_tokens;
    uint32_t reuse_max; /* tokens that may come from the cache (mc_reuse_tokens_max); 0: cache off */
    uint64_t bytes_per_token;
    const uint32_t *node_blocks; /* per node: blocks of the prompt it holds, from the first on; NULL: none */
    uint32_t prefix_blocks;      /* the same of all nodes together; >= each of them */
    double prefix_age_ms;        /* since the prefix was asked for */
    double slo_ttft_ms;          /* 0: none */
    double slo_tbt_ms;           /* 0: none */
    double waited_ms;            /* in the Conductor so far: counts against slo_ttft_ms */
    uint64_t draw;               /* random bits, for policies that draw and to break ties */
    bool begun;                  /* its answer has begun (the decode worker died, or the first token came from prefill):
                                  * only somebody to decode is wanted, `tokens` include the answer so far */
};

/* ---- decision ---- */

enum mc_sched_outcome {
    MC_SCHED_RUN,    /* as `route` says */
    MC_SCHED_HOLD,   /* everybody who could is full: ask again when something has finished */
    MC_SCHED_REFUSE, /* the SLO cannot be met: 429, come back after retry_after_ms */
    MC_SCHED_NOBODY, /* no worker is there: 503 */
    MC_SCHED_OUTCOMES
};

enum mc_sched_route {
    MC_ROUTE_NONE,
    MC_ROUTE_SPLIT,  /* prefill on one worker, decode on another, KV through the Store */
    MC_ROUTE_DIRECT, /* the cache has (nearly) all of it: straight to the decode worker */
    MC_ROUTE_SINGLE, /* one worker does both */
    MC_SCHED_ROUTES
};
MC_API const char *mc_sched_route_str(enum mc_sched_route route);       /* "split" */
MC_API const char *mc_sched_outcome_str(enum mc_sched_outcome outcome); /* "run" */

struct mc_sched_decision {
    enum mc_sched_outcome outcome;
    enum mc_sched_route route;
    uint16_t prefill; /* index of the worker that computes the prompt; = decode for direct and single */
    uint16_t decode;
    bool degraded;        /* a worker outside its role, or one under suspicion, was all there was */
    bool trial;           /* beyond the SLO by what was learned, and run to learn it anew */
    uint16_t source;      /* node the missing part of the prefix comes from; MC_SCHED_NONE: nothing is fetched */
    uint32_t load_tokens; /* of the prompt, from the cache; a multiple of block_tokens */
    uint32_t own_tokens;  /* of load_tokens, on the worker's own node */
    uint32_t copy_blocks; /* of load_tokens, the last ones: fetched from elsewhere, and to be put into the worker's own
                           * node, so that they exist once more. That is how hot prefixes spread */
    double queue_ms, load_ms, prefill_ms; /* terms of ttft_ms */
    double ttft_ms;                       /* predicted, from now on */
    double tbt_ms;                        /* predicted */
    double retry_after_ms;                /* with MC_SCHED_REFUSE and MC_SCHED_HOLD */
    double again_ms; /* with MC_SCHED_HOLD: ask again after so long, when nothing has finished before; 0: not before */
    bool
        by_choice; /* with MC_SCHED_HOLD: somebody is free, and it waits for `prefill`. Those behind it may be asked about, with
                      * load_ms + prefill_ms added to that worker's queue_ms */
};

/* ---- explanation ---- */

/* Why a worker is not a candidate. */
enum mc_sched_skip {
    MC_SKIP_NONE,    /* it is one */
    MC_SKIP_ROLE,    /* not its role, and others have it */
    MC_SKIP_STATE,   /* down, draining, or suspect or tried while better ones are there */
    MC_SKIP_FULL,    /* no room for one more prompt or sequence */
    MC_SKIP_CONTEXT, /* prompt and answer never fit into its context */
    MC_SCHED_SKIPS
};
MC_API const char *mc_sched_skip_str(enum mc_sched_skip skip);

struct mc_sched_candidate {
    uint16_t worker;
    uint8_t phase; /* MC_WORKER_PREFILL or MC_WORKER_DECODE: what it was looked at for */
    uint8_t skip;  /* enum mc_sched_skip; with anything but MC_SKIP_NONE the numbers below are 0 */
    bool chosen;
    uint16_t source;
    uint32_t own_tokens, load_tokens, compute_tokens; /* prefill (and decode when direct) */
    double queue_ms, load_ms, prefill_ms, ttft_ms;    /* the same */
    double tbt_ms;                                    /* decode */
    double cost;                                      /* what the policy minimised */
    double age_ms;                                    /* of what was known about it */
};

/* Filled when the caller wants to know. The array is the caller's; what does not fit is left out and counted. */
struct mc_sched_explain {
    struct mc_sched_candidate *candidates;
    uint32_t candidates_max; /* 2 * worker_count holds all */
    uint32_t candidate_count;
    uint32_t left_out;
};

/* ---- policies ---- */

/* Decide. `decision` is always filled. `explain` may be NULL. O(workers * nodes), no allocation. */
typedef void mc_sched_fn(const struct mc_sched_snapshot *snapshot, const struct mc_sched_request *request,
    struct mc_sched_decision *decision, struct mc_sched_explain *explain);

/* A request in the queue in front of all workers. */
struct mc_sched_waiting {
    double work_ms;     /* mc_sched_work_ms() when it came */
    double waited_ms;   /* so far */
    double slo_ttft_ms; /* 0: none */
};

/* Whose turn it is: the highest rank, among equal ones who came first. Ranks change with time; they may be
 * infinite, never NaN. */
typedef double mc_sched_rank_fn(const struct mc_sched_waiting *waiting);

struct mc_sched_policy {
    const char *name;
    const char *help; /* one sentence */
    mc_sched_fn *decide;
    mc_sched_rank_fn *rank;
};

/* Rows from index 0, the default first; NULL behind the last. Static storage. */
MC_API const struct mc_sched_policy *mc_sched_policy_at(size_t index);
/* What the prompt costs the quickest worker there is, if it has to wait for nobody. */
MC_API double mc_sched_work_ms(const struct mc_sched_snapshot *snapshot, const struct mc_sched_request *request);

/* NULL: no such policy. */
MC_API const struct mc_sched_policy *mc_sched_policy_find(const char *name);

#ifdef __cplusplus
}
#endif
#endif
