/* batch.h - which batch next: the pure part of continuous batching.
 *
 * Each turn of the engine thread asks for one step: a decode step of everything that decodes, or one prefill chunk. Where
 * there is both they alternate, so that a decode never waits for more than one chunk, and the chunk is cut so that it is
 * predicted to take stall_s at most (but at least one quantum). Prefill is first come first served, except that a run
 * whose answer is already streaming (its decode worker died, or a remainder after loading) goes first; a stream of
 * such runs lets another one through every BATCH_URGENT_MAX chunks.
 * Threads: the caller's. */
#ifndef WORKER_BATCH_H
#define WORKER_BATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/proto.h"

enum { BATCH_URGENT_MAX = 4 };

enum batch_what { BATCH_NONE, BATCH_PREFILL, BATCH_DECODE };

/* What the scheduler sees of a run that could compute now. */
struct batch_run {
    uint32_t prefill_left; /* prompt tokens to compute; 0: it decodes */
    uint32_t length;       /* tokens in its sequence */
    uint64_t order;        /* of arrival */
    bool urgent;           /* its answer is being streamed */
};

struct batch_limits {
    uint32_t chunk_tokens; /* of the engine; a multiple of MC_PREFILL_QUANTUM */
    double stall_s;
    const struct wmsg_speed *speed;
};

struct batcher {
    bool prefilled_last;
    unsigned urgent_row; /* urgent chunks in a row while another run waited */
};

struct batch_step {
    enum batch_what what;
    size_t run;      /* BATCH_PREFILL: index of it */
    uint32_t tokens; /* BATCH_PREFILL: at most so many */
};

/* Zeroed `batcher` to start with. */
struct batch_step batch_pick(
    struct batcher *batcher, const struct batch_run *runs, size_t count, const struct batch_limits *limits);

#endif
