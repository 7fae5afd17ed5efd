/* fixture.h - for tests of the scheduler: a small cluster in a struct, the times of its workers known exactly (fits are set, not
 * learned), and the same at random. */
#ifndef CONDUCTOR_SCHEDULER_FIXTURE_H
#define CONDUCTOR_SCHEDULER_FIXTURE_H

#include <string.h>

#include "base/rng.h"
#include "mooncake/scheduler.h"

enum { BLOCK = 64, NODES = 2 };

/* 1 ms per token, no other cost: ttft can be read off */
static inline struct mc_fit per_token(double ms)
{
    struct mc_fit fit = {.theta = {0, ms * 1000, 0}};

    return fit;
}

struct cluster {
    struct mc_fit prefill, decode;
    struct mc_sched_link fast[NODES], none[NODES];
    struct mc_sched_worker workers[4];
    uint32_t node_blocks[NODES];
    struct mc_sched_snapshot snapshot;
    struct mc_sched_request request;
};

/* Workers 0 and 1 prefill, 2 and 3 decode; 0 and 2 live beside node 0, 1 and 3 beside node 1. */
static inline void cluster_init(struct cluster *c)
{
    memset(c, 0, sizeof *c);
    c->prefill = per_token(1);
    c->decode = (struct mc_fit){.theta = {10, 2, 1}};
    for (int n = 0; n < NODES; n++)
        c->fast[n] = (struct mc_sched_link){.bytes_per_ms = 100e3, .latency_ms = 1};
    for (int i = 0; i < 4; i++)
        c->workers[i] = (struct mc_sched_worker){
            .role = i < 2 ? MC_WORKER_PREFILL : MC_WORKER_DECODE,
            .state = MC_WORKER_READY,
            .node = (uint16_t)(i % 2),
            .waiting_max = 8,
            .prefill = &c->prefill,
            .running_max = 16,
            .kv_tokens_max = 100000,
            .decode = &c->decode,
            .links = c->fast,
        };
    c->snapshot = (struct mc_sched_snapshot){.workers = c->workers, .worker_count = 4, .node_count = NODES};
    c->request = (struct mc_sched_request){
        .tokens = 1000,
        .output_tokens = 100,
        .block_tokens = BLOCK,
        .reuse_max = 960,
        .bytes_per_token = 1000,
        .node_blocks = c->node_blocks,
    };
}

static inline void hit(struct cluster *c, uint32_t on_node0, uint32_t on_node1)
{
    c->node_blocks[0] = on_node0;
    c->node_blocks[1] = on_node1;
    c->request.prefix_blocks = on_node0 > on_node1 ? on_node0 : on_node1;
}

/* Anything, within what makes sense. */
static inline void randomise(struct cluster *c, struct rng *rng)
{
    cluster_init(c);
    for (int i = 0; i < 4; i++) {
        struct mc_sched_worker *w = &c->workers[i];

        w->role = (uint8_t)(1 + rng_below(rng, 3));
        w->state = (uint8_t)rng_below(rng, 5);
        w->queue_ms = (double)rng_below(rng, 3000);
        w->waiting = (uint32_t)rng_below(rng, 10);
        w->running = (uint32_t)rng_below(rng, 18);
        w->kv_tokens = rng_below(rng, 110000);
        w->idle_ms = rng_chance(rng, 0.3) ? (double)rng_below(rng, 20000) : 0;
        w->node = (uint16_t)(rng_chance(rng, 0.2) ? MC_SCHED_NONE : rng_below(rng, NODES));
        w->links = rng_chance(rng, 0.2) ? NULL : rng_chance(rng, 0.2) ? c->none : c->fast;
    }
    c->request.tokens = 1 + (uint32_t)rng_below(rng, 4000);
    c->request.reuse_max = (c->request.tokens - 1) / BLOCK * BLOCK;
    hit(c, (uint32_t)rng_below(rng, 80), (uint32_t)rng_below(rng, 80));
    c->request.draw = rng_u64(rng);
    c->request.begun = rng_chance(rng, 0.2);
    c->request.slo_ttft_ms = rng_chance(rng, 0.3) ? (double)rng_below(rng, 4000) : 0;
}

#endif
