/* decide_bench.c - how long a decision takes: the look-up of a prompt's prefix among all blocks of a cluster, and the policy.
 *
 *     decide_bench [INSTANCES [BLOCKS [DECISIONS]]]        64, 1000000 and 100000; half of the instances prefill
 *
 * Prompts of 64 blocks lie on one node each, until there are so many blocks. Each decision is about a random one of them, up to
 * a random block and then new, by `mooncake`, with loads that change from one to the next. Prints JSON with p50, p99 and the most, in
 * microseconds, of the look-up and the decision together. What it takes to read the clock is in them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/rng.h"
#include "replay/kv.h"
#include "replay/policies.h"

enum { PROMPT_BLOCKS = 64, BLOCK_TOKENS = 512 };

struct bench {
    struct model model;
    struct kv *kv;
    struct mc_fit prefill, decode;
    struct mc_sched_worker workers[MODEL_WORKERS_MAX];
    struct mc_sched_link links[MODEL_PREFILL_MAX];
    uint32_t prefills, instances, prompts;
    struct rng rng;
};

static void prompt_ids(uint64_t prompt, uint32_t known, uint64_t ids[PROMPT_BLOCKS])
{
    for (uint32_t i = 0; i < PROMPT_BLOCKS; i++)
        ids[i] = (i < known ? prompt : UINT32_MAX) * PROMPT_BLOCKS + i;
}

static enum mc_status set_up(struct bench *b, uint32_t instances, uint32_t blocks)
{
    enum mc_status status;
    struct eviction lru;
    uint64_t ids[PROMPT_BLOCKS];
    char why[128];

    model_init(&b->model);
    b->instances = instances;
    b->prefills = instances / 2;
    b->prompts = blocks / PROMPT_BLOCKS;
    b->model.prefill = b->prefills;
    b->model.decode = instances - b->prefills;
    b->model.cache_tokens = (2.0 * blocks / b->prefills + PROMPT_BLOCKS) * BLOCK_TOKENS; /* nothing is evicted */
    rng_seed(&b->rng, 1);
    if (!eviction_find("lru", &lru) || model_complete(&b->model, why, sizeof(why)) != MC_OK)
        return MC_EINVAL;
    model_fits(&b->model, &b->prefill, &b->decode);
    if ((status = kv_create(&b->model, &lru, &b->kv)) != MC_OK)
        return status;
    for (uint32_t prompt = 0; prompt < b->prompts && status == MC_OK; prompt++) {
        prompt_ids(prompt, PROMPT_BLOCKS, ids);
        if ((status = kv_reserve(b->kv, PROMPT_BLOCKS)) == MC_OK)
            status = kv_store(b->kv, prompt % b->prefills, ids, 0, PROMPT_BLOCKS);
    }
    for (uint32_t i = 0; i < instances; i++)
        b->workers[i] = (struct mc_sched_worker){.role = i < b->prefills ? MC_WORKER_PREFILL : MC_WORKER_DECODE,
            .state = MC_WORKER_READY,
            .node = (uint16_t)(i < b->prefills ? i : MC_SCHED_NONE),
            .prefill = &b->prefill,
            .decode = &b->decode,
            .links = b->links};
    for (uint32_t i = 0; i < b->prefills; i++)
        b->links[i] = (struct mc_sched_link){.bytes_per_ms = 100e6, .latency_ms = 0.02};
    return status;
}

/* One decision; how long it took, in ns. */
static uint64_t decide(struct bench *b, const struct mc_sched_policy *policy)
{
    struct mc_sched_worker *changed = &b->workers[rng_below(&b->rng, b->instances)];
    struct mc_sched_snapshot snapshot = {
        .workers = b->workers, .worker_count = b->instances, .node_count = b->prefills, .copy_tokens_max = 1 << 20};
    uint32_t node_blocks[MODEL_PREFILL_MAX];
    struct mc_sched_decision decision;
    uint64_t ids[PROMPT_BLOCKS], begin;

    changed->queue_ms = (double)rng_below(&b->rng, 3000);
    changed->running = (uint32_t)rng_below(&b->rng, 200);
    prompt_ids(rng_below(&b->rng, b->prompts), (uint32_t)rng_below(&b->rng, PROMPT_BLOCKS + 1), ids);
    struct mc_sched_request request = {.tokens = PROMPT_BLOCKS * BLOCK_TOKENS + 1,
        .output_tokens = 100,
        .block_tokens = BLOCK_TOKENS,
        .reuse_max = PROMPT_BLOCKS * BLOCK_TOKENS,
        .bytes_per_token = (uint64_t)b->model.kv_token_bytes,
        .node_blocks = node_blocks,
        .draw = rng_u64(&b->rng)};

    begin = now_ns();
    request.prefix_blocks = kv_prefix(b->kv, ids, PROMPT_BLOCKS, node_blocks);
    policy->decide(&snapshot, &request, &decision, NULL);
    return now_ns() - begin;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static uint32_t argument(int argc, char **argv, int index, uint32_t otherwise)
{
    return argc > index ? (uint32_t)strtoul(argv[index], NULL, 10) : otherwise;
}

int main(int argc, char **argv)
{
    uint32_t instances = argument(argc, argv, 1, 64), blocks = argument(argc, argv, 2, 1000000);
    uint32_t decisions = argument(argc, argv, 3, 100000);
    const struct mc_sched_policy *policy = replay_policy_find("mooncake");
    struct bench *b = calloc(1, sizeof(*b));
    uint64_t *ns = malloc((decisions + 1) * sizeof(*ns));

    if (!b || !ns || instances < 2 || instances > 2 * MODEL_PREFILL_MAX || blocks < PROMPT_BLOCKS || decisions < 100 ||
        set_up(b, instances, blocks) != MC_OK) {
        fprintf(
            stderr, "decide_bench [INSTANCES (2..126) [BLOCKS (>= 64) [DECISIONS (>= 100)]]]: wrong, or no memory\n");
        return 2;
    }
    for (uint32_t i = 0; i < decisions; i++)
        ns[i] = decide(b, policy);
    qsort(ns, decisions, sizeof(*ns), by_value);
    printf("{\"instances\": %" PRIu32 ", \"blocks\": %" PRIu32 ", \"decisions\": %" PRIu32
           ", \"p50_us\": %.2f, \"p99_us\": %.2f, \"max_us\": %.2f}\n",
        instances, b->prompts * PROMPT_BLOCKS, decisions, (double)ns[decisions / 2] / 1e3,
        (double)ns[decisions - decisions / 100] / 1e3, (double)ns[decisions - 1] / 1e3);
    kv_destroy(b->kv);
    free(ns);
    free(b);
    return 0;
}
