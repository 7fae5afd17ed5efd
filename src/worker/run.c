/* run.c - one W_RUN inside the worker. */
#include "worker/run.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

static enum mc_status ids_extend(struct run *run)
{
    uint32_t full = run->count / run->chain.block_tokens;

    if (!run->ids || full > run->id_capacity) {
        uint32_t capacity = full + full / 2 + 4;
        struct mc_block_id *ids = realloc(run->ids, capacity * sizeof(*ids));

        if (!ids)
            return MC_ENOMEM;
        run->ids = ids;
        run->id_capacity = capacity;
    }
    run->id_count += (uint32_t)mc_block_chain_extend(
        &run->chain, run->tokens, run->count, run->ids + run->id_count, run->id_capacity - run->id_count);
    return MC_OK;
}

enum mc_status run_append(struct run *run, uint32_t token)
{
    if (run->count == run->capacity) {
        uint32_t capacity = run->capacity + run->capacity / 2 + 64;
        uint32_t *tokens = realloc(run->tokens, capacity * sizeof(*tokens));

        if (!tokens)
            return MC_ENOMEM;
        run->tokens = tokens;
        run->capacity = capacity;
    }
    run->tokens[run->count++] = token;
    return ids_extend(run);
}

static enum mc_status sampler_start(struct run *run, const struct mc_engine_info *info, const char **why)
{
    enum mc_status status;

    *why = mc_sampling_check(&run->msg.sampling, info->vocab_size);
    if (*why)
        return MC_EINVAL;
    status = mc_sampler_create(&run->msg.sampling, info->vocab_size, &run->sampler);
    if (status != MC_OK)
        return status;
    mc_sampler_prompt(run->sampler, run->tokens, run->prompt);
    for (uint32_t i = run->prompt; i < run->count; i++)
        mc_sampler_accept(run->sampler, run->tokens[i]);
    return MC_OK;
}

static void run_free(struct run *run)
{
    mc_sampler_destroy(run->sampler);
    wmsg_run_fini(&run->msg);
    free(run->tokens);
    free(run->ids);
    free(run);
}

enum mc_status run_create(const struct mc_engine_info *info, struct wmsg_run *msg, struct run **out, const char **why)
{
    struct run *run = calloc(1, sizeof(*run));
    enum mc_status status;

    if (!run)
        return MC_ENOMEM;
    atomic_init(&run->refs, 1);
    list_init(&run->link);
    list_init(&run->load.windows);
    run->arrived_ns = now_ns();
    run->prompt = msg->token_count - msg->answer_count;
    run->count = run->capacity = msg->token_count;
    run->putting = msg->cache_write;
    run->tokens = malloc(run->count * sizeof(*run->tokens));
    if (!run->tokens) {
        free(run);
        return MC_ENOMEM;
    }
    memcpy(run->tokens, msg->tokens, run->count * sizeof(*run->tokens));
    run->msg = *msg;

    status =
        mc_block_chain_init(&run->chain, &info->fingerprint, info->block_tokens, run->msg.salt, run->msg.salt_size);
    if (status == MC_OK)
        status = ids_extend(run);
    if (status == MC_OK)
        status = sampler_start(run, info, why);
    if (status != MC_OK) {
        memset(&run->msg, 0, sizeof(run->msg)); /* still the caller's */
        run_free(run);
        return status;
    }
    memset(msg, 0, sizeof(*msg));
    run->finish.prompt_tokens = run->prompt;
    *out = run;
    return MC_OK;
}

void run_ref(struct run *run)
{
    atomic_fetch_add_explicit(&run->refs, 1, memory_order_relaxed); /* the caller's own reference keeps it alive */
}

void run_unref(struct run *run)
{
    /* acq_rel: whoever frees must see what the others did before they let go */
    if (atomic_fetch_sub_explicit(&run->refs, 1, memory_order_acq_rel) == 1)
        run_free(run);
}

uint32_t run_load_max(const struct run *run)
{
    uint32_t block_tokens = run->chain.block_tokens;

    /* Behind the prompt every length is fine, as answer tokens are decoded one by one; inside it only what leaves the
     * batches where they would be without reuse. */
    if (run->count > run->prompt)
        return (run->count - 1) / block_tokens;
    return mc_reuse_tokens_max(run->prompt, block_tokens) / block_tokens;
}

void run_block_key(const struct run *run, uint32_t block, struct mc_key *key)
{
    mc_key_block(key, run->ids[block].bytes);
}
