/* cells.c - which cells of the library the next tokens go into: the calls that make cellmap.h's map come true.
 *
 * The library takes the lowest free cells. So before tokens go in exactly theirs are freed of their plugs, and whatever stays
 * empty below others is plugged again: with zeros, so that nothing of an earlier owner is ever read. */
#include <assert.h>
#include <string.h>

#include "engine/llama/llama_engine.h"

enum mc_status cells_plug(struct llama_engine *llama, uint32_t first, uint32_t count)
{
    while (count && !llama->broken) {
        uint32_t n = count < IMPORT_CELLS_MAX ? count : IMPORT_CELLS_MAX;
        size_t size = kvblob_size(&llama->shape, n);

        llama->exported.valid = false; /* the buffer is taken */
        memset(llama->blob, 0, size);
        kvblob_frame(&llama->shape, llama->blob, n, llama->scratch, first);
        if (llama_state_seq_set_data(llama->context, llama->blob, size, llama->scratch) != size) {
            say(SAY_ERROR, "engine llama: the library refused to plug cells %u to %u; no further calls", first,
                first + n);
            llama->broken = true;
            break;
        }
        llama_memory_seq_cp(llama->memory, llama->scratch, llama->plug, -1, -1);
        llama_memory_seq_rm(llama->memory, llama->scratch, -1, -1);
        first += n;
        count -= n;
    }
    return llama->broken ? MC_ESYS : MC_OK;
}

void cells_unplug(struct llama_engine *llama, uint32_t first, uint32_t count)
{
    llama_memory_seq_rm(llama->memory, llama->plug, (llama_pos)first, (llama_pos)(first + count));
}

enum mc_status cells_open(
    struct llama_engine *llama, uint32_t seq, uint32_t length, uint32_t count, uint32_t *top_before)
{
    enum mc_status st;

    if (llama->broken)
        return MC_ESYS;
    assert(length % CELLMAP_PAGE == 0 || length / CELLMAP_PAGE == (length + count - 1) / CELLMAP_PAGE);
    *top_before = llama->cells.top;
    st = cellmap_take(&llama->cells, seq, length + count);
    for (uint32_t at = length, run; st == MC_OK && at < length + count; at += run) {
        uint32_t cell = cellmap_cell(&llama->cells, seq, at);

        run = cellmap_run(&llama->cells, seq, at, length + count - at);
        if (cell < *top_before * CELLMAP_PAGE) {
            uint32_t below = *top_before * CELLMAP_PAGE - cell; /* a run may go on into pages that were unused */

            cells_unplug(llama, cell, run < below ? run : below);
        }
    }
    return st;
}

enum mc_status cells_close(struct llama_engine *llama, uint32_t seq, uint32_t end, uint32_t top_before)
{
    uint32_t last = cellmap_cell(&llama->cells, seq, end - 1);

    if (end % CELLMAP_PAGE == 0 || last < top_before * CELLMAP_PAGE)
        return MC_OK;
    return cells_plug(llama, last + 1, CELLMAP_PAGE - end % CELLMAP_PAGE);
}

void cells_cut(struct llama_engine *llama, uint32_t seq, uint32_t length, uint32_t end)
{
    struct cellmap_seq *s = &llama->cells.seqs[seq];
    uint32_t before = llama->cells.top, count = s->count, top;

    llama_memory_seq_rm(llama->memory, (llama_seq_id)seq, length ? (llama_pos)length : -1, -1);
    llama->lengths[seq] = length;
    if (llama->exported.seq == seq)
        llama->exported.valid = false;
    top = cellmap_release(&llama->cells, seq, length); /* s->pages keeps what was in it */
    if (top == 0) {
        llama_memory_clear(llama->memory, false); /* nobody is left: plugs go as well */
        return;
    }
    if (top < before)
        cells_unplug(llama, top * CELLMAP_PAGE, (before - top) * CELLMAP_PAGE);
    /* lowest first, as the library plugs what is lowest; pages of a sequence are few and nearly always sorted */
    for (uint32_t page = 0; page < top; page++) {
        for (uint32_t i = length / CELLMAP_PAGE; i < count; i++) {
            uint32_t first = i * CELLMAP_PAGE > length ? i * CELLMAP_PAGE : length;
            uint32_t last = (i + 1) * CELLMAP_PAGE < end ? (i + 1) * CELLMAP_PAGE : end;

            if (s->pages[i] == page && first < last)
                cells_plug(llama, page * CELLMAP_PAGE + first % CELLMAP_PAGE, last - first);
        }
    }
}
