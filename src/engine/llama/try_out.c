/* try_out.c - before the first request: does this library keep its state as we believe?
 *
 * The form of a sequence's state is private and unversioned. One block is computed, taken out, put into another sequence and
 * taken out again: the same bytes, or this library is not for us. On half of the threads: workers of a host start together,
 * and the library's threads spin (seconds instead of tenths). */
#include <stdlib.h>
#include <string.h>

#include "engine/llama/llama_engine.h"
#include "kvcache/errtext.h"

enum mc_status try_out(struct llama_engine *llama, char *err, size_t err_size)
{
    struct mc_engine *engine = &llama->engine;
    uint32_t n = llama->block_tokens, layers = llama->shape.layers;
    uint32_t all = n < CELLMAP_PAGE ? CELLMAP_PAGE : n; /* whole pages: nothing is plugged before the form is known */
    size_t size = (size_t)mc_layout_size(llama->layout), imported;
    uint8_t *first = malloc(size), *second = malloc(size);
    enum mc_status st = first && second ? MC_OK : MC_ENOMEM;
    const char *step = "memory";

    for (uint32_t at = 0; at < all && st == MC_OK; at += llama->batch_max) {
        uint32_t tokens[MC_BLOCK_TOKENS_MAX] = {0}, count = all - at < llama->batch_max ? all - at : llama->batch_max;

        step = "computing";
        st = compute_prefill(engine, 0, at, tokens, count, NULL, NULL, NULL, NULL);
    }
    if (st == MC_OK) {
        step = "size";
        st = kvblob_adapt(&llama->shape, llama_state_seq_get_size(llama->context, 0), all) ? MC_OK : MC_ENOSUP;
    }
    if (st == MC_OK) {
        step = "export";
        st = blocks_export(engine, 0, 0, 0, layers, first, size);
    }
    if (st == MC_OK) {
        const struct mc_block_in block = {.rows = n, .bytes = first, .size = size};

        step = "import";
        blocks_clear(engine, 0);
        st = blocks_import(engine, 0, 0, &block, 1, &imported);
    }
    if (st == MC_OK) {
        step = "comparison";
        st = blocks_export(engine, 0, 0, 0, layers, second, size);
        if (st == MC_OK && memcmp(first, second, size) != 0)
            st = MC_EMISMATCH;
    }
    blocks_clear(engine, 0);
    free(first);
    free(second);
    if (st == MC_OK || st == MC_ENOMEM)
        return st;
    errtext(err, err_size,
        "engine llama: one block did not survive export and import (%s: %s): the state of this llama.cpp (%s) has "
        "another form",
        step, mc_status_str(st), llama->version);
    return MC_ENOSUP;
}
