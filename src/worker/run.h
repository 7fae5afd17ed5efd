/* run.h - one W_RUN inside the worker: its tokens, its block ids, how far it is, what will be said at its end.
 *
 *     waiting -> loading -> computing -> storing -> over
 *
 *   waiting    accepted; no sequence in the engine yet, or preempted and back in line with all it has said so far
 *   loading    asks the Store for the prefix; blocks are imported in order as they come
 *   computing  the sequence grows: prompt by prefill chunks, then answer tokens, known ones (replay) before new ones
 *   storing    everything was said; blocks that are not put yet keep the sequence open for a short while
 *   over       nothing is left but references of puts and loads in flight
 *
 * Where it stands in `computing` is told by three numbers: `length` (tokens in the engine's sequence), `prompt` and `count`
 * (tokens known). length < prompt: prefill. length < count: decode tokens[length]. After the step that makes them equal the
 * next token is picked from its logits.
 *
 * References: the engine thread, the table of its connection, and each put or load in flight hold one.
 * Threads: the engine thread, except what says otherwise. */
#ifndef WORKER_RUN_H
#define WORKER_RUN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/hashmap.h"
#include "base/list.h"
#include "mooncake/engine.h"
#include "mooncake/kvcache.h"
#include "mooncake/store.h"
#include "worker/inbox.h"
#include "worker/proto.h"

struct peer;
struct load_window;

enum run_state { RUN_WAITING, RUN_LOADING, RUN_COMPUTING, RUN_STORING, RUN_OVER };

/* Loading the prefix of a run (load.c). Block numbers count from the sequence's start. */
struct run_load {
    struct note answered;  /* the prefix query's answer */
    enum mc_status answer; /* written by the Store's thread before `answered` is posted, as is: */
    uint32_t found;        /* blocks that are readable */
    bool asking;           /* the query is under way */
    bool stopped;          /* no further block will be asked for or imported */
    uint32_t wanted;       /* blocks to load in all */
    uint32_t asked;        /* blocks handed to the Store */
    uint32_t imported;     /* blocks in the sequence */
    struct list windows;   /* struct load_window, in order of blocks */
    uint32_t windows_count;
    uint64_t begun_ns, deadline_ns;
};

struct run {
    struct list link;    /* in worker->runs, by arrival; preempted runs come back to the front */
    struct note arrived; /* brings a new run to the engine thread */
    _Atomic uint32_t refs;

    /* never changed after run_create() */
    struct peer *peer; /* where it came from */
    uint64_t epoch;    /* of that connection: what is sent on another one is dropped */
    uint64_t request;
    uint8_t trace[TRACE_SIZE];
    struct wmsg_run msg; /* as it came; `tokens` below goes on from its tokens */
    uint64_t order;
    uint64_t arrived_ns;

    struct hnode node; /* net thread: in the table of its connection */
    int cancel;        /* set to 1 by any thread (__atomic_store_n), read by engine and engine thread */

    enum run_state state;
    uint32_t *tokens; /* prompt and answer */
    uint32_t prompt, count, capacity;
    struct mc_block_chain chain;
    struct mc_block_id *ids; /* of the first id_count full blocks */
    uint32_t id_count, id_capacity;
    struct mc_sampler *sampler;
    uint32_t seq; /* with has_seq */
    bool has_seq;
    uint32_t length;  /* tokens in the sequence */
    uint32_t reached; /* the most it ever was: more than `length` after a preemption */

    struct run_load load;
    uint32_t put_next; /* first block that is neither in the Store nor on its way there nor given up */
    uint32_t puts_flying;
    uint64_t put_deadline_ns; /* storing: until then */
    bool putting;             /* exports go on; false: what is not put yet is given up */

    struct wmsg_finish finish; /* filled as things happen */
    enum mc_status status;     /* of the last frame */
    bool finish_sent, picked;  /* a token was picked here */
    uint64_t begun_ns, computing_ns, prefilled_ns, first_ns, last_ns, progress_ns;
};

/* Takes over what `msg` owns; it is zeroed on success. One reference, the caller's.
 *   MC_EINVAL  a sampling parameter is out of range; *why names it     MC_ENOMEM */
enum mc_status run_create(const struct mc_engine_info *info, struct wmsg_run *msg, struct run **run, const char **why);
void run_ref(struct run *run);   /* any thread */
void run_unref(struct run *run); /* any thread */

static inline bool run_cancelled(const struct run *run)
{
    return __atomic_load_n(&run->cancel, __ATOMIC_RELAXED) != 0; /* nothing else hangs on seeing it early */
}

/* Append a token and the id of the block it completes. MC_OK, MC_ENOMEM. */
enum mc_status run_append(struct run *run, uint32_t token);

/* Full blocks that the sequence holds. */
static inline uint32_t run_full_blocks(const struct run *run)
{
    return run->length / run->chain.block_tokens;
}

/* The sequence came from `before` to `length` tokens: how many of them it never held. Those that come again after a preemption
 * are not counted twice, so reused and computed tokens stay parts of the prompt. */
static inline uint32_t run_gained(struct run *run, uint32_t before)
{
    uint32_t known = before > run->reached ? before : run->reached;

    if (run->length <= known)
        return 0;
    run->reached = run->length;
    return run->length - known;
}

/* Prompt tokens that are still to be computed. */
static inline uint32_t run_prefill_left(const struct run *run)
{
    return run->length < run->prompt ? run->prompt - run->length : 0;
}

/* How many blocks from the start could be of use to it: all full ones but the last token's. */
uint32_t run_load_max(const struct run *run);

void run_block_key(const struct run *run, uint32_t block, struct mc_key *key);

#endif
