/* evict_bench.c - what a decision costs: each policy of a node on the same uses, 10^6 blocks by default.
 *
 *     evict_bench [BLOCKS] [USES]      one JSON object: nanoseconds a use and bytes of heap a block, of each, and the ratios
 *
 * Prompts of one to sixteen blocks out of four times as many as fit, some a thousand times as popular as others. A use is what the
 * node does for a block: it is asked for, then touched, or a victim goes and it comes in. Best of three. Ids to slots are a plain array,
 * so that nothing but the policy is measured. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "store/evict/evict.h"

enum { PROMPT_MAX = 16, ROUNDS = 3 };

struct bench {
    struct evict *evict;
    uint32_t blocks, count, prompts;
    uint32_t *slot_of, *block_in;
};

static void use(struct bench *b, uint64_t block, uint32_t depth, uint64_t now, uint32_t *parent)
{
    uint32_t slot = b->slot_of[block];

    if (slot != EVICT_NONE) {
        evict_touch(b->evict, slot, now);
    } else {
        slot = b->count;
        if (b->count < b->blocks) {
            b->count++;
        } else {
            slot = evict_victim(b->evict, now);
            evict_remove(b->evict, slot, b->block_in[slot], EVICT_EVICTED, now);
            b->slot_of[b->block_in[slot]] = EVICT_NONE;
            if (slot == *parent)
                *parent = EVICT_NONE;
        }
        struct evict_object object = {.id = block, .size = 1, .parent = *parent, .depth = depth};
        if (evict_add(b->evict, slot, &object, now) != MC_OK)
            exit(1);
        b->slot_of[block] = slot;
        b->block_in[slot] = (uint32_t)block;
    }
    *parent = slot;
}

/* Nanoseconds a use, of those when memory is full. */
static double run(struct bench *b, uint64_t uses)
{
    uint64_t begin = 0, timed = 0, ids[PROMPT_MAX];
    struct rng rng;

    rng_seed(&rng, 1);
    for (uint64_t at = 0; at < uses;) {
        uint64_t range = b->prompts >> rng_below(&rng, 11), which = rng_below(&rng, range);
        uint32_t length = 1 + (uint32_t)(which * 7 % PROMPT_MAX), parent = EVICT_NONE;

        for (uint32_t i = 0; i < length; i++)
            ids[i] = which * PROMPT_MAX + i;
        if (evict_ask(b->evict, &(struct evict_run){ids, length, EVICT_NO_ID}, at) != MC_OK)
            exit(1);
        for (uint32_t i = 0; i < length; i++)
            use(b, ids[i], i, at, &parent);
        at += length;
        if (begin == 0 && b->count == b->blocks) {
            begin = now_ns();
            timed = at;
        }
    }
    return uses > timed && begin ? (double)(now_ns() - begin) / (double)(uses - timed) : 0;
}

static double measure(const char *name, uint32_t blocks, uint64_t uses, double *bytes)
{
    double best = 0;

    for (int round = 0; round < ROUNDS; round++) {
        struct bench b = {.blocks = blocks, .prompts = blocks / 2};
        size_t ids = (size_t)b.prompts * PROMPT_MAX;

        b.slot_of = malloc(ids * sizeof(*b.slot_of));
        b.block_in = malloc(blocks * sizeof(*b.block_in));
        if (!b.slot_of || !b.block_in)
            exit(1);
        memset(b.slot_of, 0xff, ids * sizeof(*b.slot_of));
        struct mallinfo2 before = mallinfo2();
        if (evict_create(evict_policy_find(name), blocks, EVICT_UNKNOWN, &b.evict) != MC_OK)
            exit(1);
        double ns = run(&b, uses);
        struct mallinfo2 after = mallinfo2();
        *bytes = (double)(after.uordblks + after.hblkhd - before.uordblks - before.hblkhd) / blocks;
        evict_destroy(b.evict);
        free(b.slot_of);
        free(b.block_in);
        best = round == 0 || ns < best ? ns : best;
    }
    return best;
}

int main(int argc, char **argv)
{
    uint32_t blocks = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) : 1000000;
    uint64_t uses = argc > 2 ? strtoull(argv[2], NULL, 10) : UINT64_C(8) * blocks;
    double lru_bytes, our_bytes, lru, ours;

    if (blocks < 16)
        return 2;
    lru = measure("lru", blocks, uses, &lru_bytes);
    ours = measure("mooncake", blocks, uses, &our_bytes);
    printf("{\"blocks\": %u, \"lru_ns\": %.1f, \"mooncake_ns\": %.1f, \"ratio\": %.2f, \"lru_bytes\": %.1f, "
           "\"mooncake_bytes\": %.1f}\n",
        blocks, lru, ours, ours / lru, lru_bytes, our_bytes);
    return 0;
}
