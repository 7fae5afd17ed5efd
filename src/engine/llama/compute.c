/* compute.c - prefill and decode: tokens into cells that were made free for them, through llama_decode().
 *
 * A call that fails leaves nothing: what it opened is cut again. The cancel word is looked at by the library between the
 * nodes of its graph. */
#include <assert.h>
#include <stdlib.h>

#include "engine/llama/llama_engine.h"

bool compute_abort(void *arg)
{
    struct llama_engine *llama = arg;

    if (!llama->cancel || !__atomic_load_n(llama->cancel, __ATOMIC_RELAXED))
        return false;
    if (!llama->aborted) { /* only ever called by one of the compute threads */
        llama->aborted = true;
        say_aborting(true);
    }
    return true;
}

static void batch_add(struct llama_engine *llama, uint32_t token, uint32_t position, uint32_t seq, bool logits)
{
    struct llama_batch *batch = &llama->batch;
    int32_t i = batch->n_tokens++;

    assert((uint32_t)batch->n_tokens <= llama->batch_max);
    batch->token[i] = (llama_token)token;
    batch->pos[i] = (llama_pos)position;
    batch->n_seq_id[i] = 1;
    batch->seq_id[i][0] = (llama_seq_id)seq;
    batch->logits[i] = logits;
}

/* Run the batch. On failure cells of part of it may be left: the callers remove them. */
static enum mc_status run_batch(struct llama_engine *llama)
{
    int32_t rc = llama_decode(llama->context, llama->batch);

    if (llama->aborted) {
        llama->aborted = false;
        say_aborting(false);
    }
    switch (rc) {
    case 0: return MC_OK;
    case 1: return MC_ENOSPC;
    case 2: return MC_ECANCELED;
    default:
        say(SAY_ERROR, "engine llama: llama_decode of %d tokens failed with %d", llama->batch.n_tokens, rc);
        return MC_ESYS;
    }
}

/* ---- prefill ---- */

static void announce(
    struct llama_engine *llama, uint32_t seq, uint32_t begin, uint32_t end, mc_block_ready_fn *ready, void *arg)
{
    for (uint32_t block = begin / llama->block_tokens; block < end / llama->block_tokens; block++)
        ready(arg, &llama->engine, seq, block, 0, llama->shape.layers);
}

/* One call of the library: tokens [length, length + count), within one page or beginning at one. On failure the caller cuts. */
static enum mc_status prefill_batch(
    struct llama_engine *llama, uint32_t seq, uint32_t length, const uint32_t *tokens, uint32_t count, bool logits)
{
    uint32_t top_before;
    enum mc_status st = cells_open(llama, seq, length, count, &top_before);

    if (st != MC_OK)
        return st;
    llama->batch.n_tokens = 0;
    for (uint32_t i = 0; i < count; i++)
        batch_add(llama, tokens[i], length + i, seq, logits && i + 1 == count);
    st = run_batch(llama);
    if (st == MC_OK)
        st = cells_close(llama, seq, length + count, top_before);
    if (st == MC_OK)
        llama->lengths[seq] = length + count;
    return st;
}

enum mc_status compute_prefill(struct mc_engine *engine, uint32_t seq, uint32_t length, const uint32_t *tokens,
    uint32_t count, mc_block_ready_fn *ready, void *arg, const int *cancel, const float **logits)
{
    struct llama_engine *llama = llama_of(engine);
    uint32_t end = length + count, at = length, step;
    enum mc_status st = MC_OK;

    llama->cancel = cancel;
    for (; at < end && st == MC_OK; at += step) {
        step = end - at;
        if (at % CELLMAP_PAGE && step > CELLMAP_PAGE - at % CELLMAP_PAGE)
            step = CELLMAP_PAGE - at % CELLMAP_PAGE; /* finish the page first: see cells_open() */
        st = prefill_batch(llama, seq, at, tokens + (at - length), step, logits && at + step == end);
    }
    llama->cancel = NULL;
    if (st != MC_OK) {
        cells_cut(llama, seq, length, at); /* `at` is the end of what was tried */
        return st;
    }
    if (ready)
        announce(llama, seq, length, end, ready, arg);
    if (logits) {
        *logits = llama_get_logits_ith(llama->context, -1);
        if (!*logits) {
            cells_cut(llama, seq, length, end);
            return MC_ESYS;
        }
    }
    return MC_OK;
}

/* ---- decode ---- */

static int step_compare(const void *a, const void *b)
{
    const struct step *x = a, *y = b;

    return (x->cell > y->cell) - (x->cell < y->cell);
}

/* Cells for one token of each slot: pages that were unused are plugged whole first, so that only those cells are free. */
static enum mc_status open_step(struct llama_engine *llama, const struct mc_decode_slot *slots, const uint32_t *lengths,
    size_t count, struct step *steps)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t top = llama->cells.top;
        enum mc_status st = llama->broken ? MC_ESYS : cellmap_take(&llama->cells, slots[i].seq, lengths[i] + 1);

        if (st == MC_OK && llama->cells.top > top)
            st = cells_plug(llama, top * CELLMAP_PAGE, CELLMAP_PAGE);
        if (st != MC_OK) {
            while (i-- > 0)
                cells_cut(llama, slots[i].seq, lengths[i], lengths[i]); /* pages taken, nothing unplugged */
            return st;
        }
        steps[i] = (struct step){cellmap_cell(&llama->cells, slots[i].seq, lengths[i]), (uint32_t)i};
    }
    qsort(steps, count, sizeof *steps, step_compare);
    for (size_t i = 0; i < count; i++)
        cells_unplug(llama, steps[i].cell, 1);
    return MC_OK;
}

enum mc_status compute_decode(
    struct mc_engine *engine, struct mc_decode_slot *slots, const uint32_t *lengths, size_t slot_count)
{
    struct llama_engine *llama = llama_of(engine);
    struct step *steps = llama->steps;
    enum mc_status st = open_step(llama, slots, lengths, slot_count, steps);

    if (st != MC_OK)
        return st;
    llama->batch.n_tokens = 0;
    for (size_t i = 0; i < slot_count; i++) {
        const struct mc_decode_slot *slot = &slots[steps[i].slot];

        batch_add(llama, slot->token, lengths[steps[i].slot], slot->seq, true);
    }
    st = run_batch(llama);
    for (size_t i = 0; i < slot_count; i++) { /* lowest cells first: so cells_cut() plugs in the right order */
        struct mc_decode_slot *slot = &slots[steps[i].slot];
        uint32_t length = lengths[steps[i].slot];

        slot->logits = st == MC_OK ? llama_get_logits_ith(llama->context, (int32_t)i) : NULL;
        slot->status = slot->logits ? MC_OK : MC_ESYS;
        if (slot->logits)
            llama->lengths[slot->seq] = length + 1;
        else
            cells_cut(llama, slot->seq, length, length + 1);
    }
    return st;
}

void compute_set_threads(struct mc_engine *engine, uint32_t threads)
{
    struct llama_engine *llama = llama_of(engine);

    if (threads == llama->threads)
        return;
    llama->threads = threads;
    llama_set_n_threads(llama->context, (int32_t)threads, (int32_t)threads);
}
