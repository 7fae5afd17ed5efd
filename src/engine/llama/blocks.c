/* blocks.c - blocks out of the library's context and into it; what travels is rows in our layout (decision 015).
 *
 * Out: seq_cp puts a block's cells into scratch as well (no data moves), state_seq_get_data writes scratch's blob into our
 * buffer, seq_rm empties scratch; rows are then copied plane by plane. In: a blob is built in our buffer from blocks
 * (kvblob.h), state_seq_set_data reads it into scratch, seq_cp hands the cells to the sequence. So what came over a wire is
 * only ever row bytes: counts, positions and sizes in the blob are written by us. Rows that are no finite numbers are refused;
 * any others are safe for the library, and a wrong one is a wrong number (the caller checked CRCs). */
#include <assert.h>
#include <string.h>

#include "engine/llama/llama_engine.h"

/* The blob of one full block into our buffer. */
static enum mc_status fetch_block(struct llama_engine *llama, uint32_t seq, uint32_t block)
{
    uint32_t first = block * llama->block_tokens;
    size_t wanted = kvblob_size(&llama->shape, llama->block_tokens), size;
    const char *what;

    if (llama->exported.valid && llama->exported.seq == seq && llama->exported.block == block)
        return MC_OK;
    llama->exported.valid = false;
    llama_memory_seq_cp(
        llama->memory, (llama_seq_id)seq, llama->scratch, (llama_pos)first, (llama_pos)(first + llama->block_tokens));
    size = llama_state_seq_get_size(llama->context, llama->scratch);
    if (size == wanted)
        size = llama_state_seq_get_data(llama->context, llama->blob, llama->blob_size, llama->scratch);
    llama_memory_seq_rm(llama->memory, llama->scratch, -1, -1);
    if (size != wanted) {
        say(SAY_ERROR, "engine llama: state of block %u of sequence %u has %zu bytes, expected %zu", block, seq, size,
            wanted);
        return MC_ESYS;
    }
    if (!kvblob_check(
            &llama->shape, llama->blob, size, llama->block_tokens, llama->scratch, first, llama->order, &what)) {
        say(SAY_ERROR, "engine llama: state of block %u of sequence %u: field %s is not as expected", block, seq, what);
        return MC_ESYS;
    }
    llama->exported.valid = true;
    llama->exported.seq = seq;
    llama->exported.block = block;
    return MC_OK;
}

/* Rows of one plane from the blob to their places; cells usually lie in order, then it is one copy. */
static void copy_rows(const struct llama_engine *llama, uint32_t plane, uint8_t *dst)
{
    uint32_t row_size = mc_geometry_plane(llama->geometry, plane)->row_size, tokens = llama->block_tokens;
    const uint8_t *src = llama->blob + kvblob_rows(&llama->shape, tokens, plane);
    uint32_t i = 0;

    while (i < tokens && llama->order[i] == i)
        i++;
    memcpy(dst, src, (size_t)i * row_size);
    for (; i < tokens; i++)
        memcpy(dst + (size_t)llama->order[i] * row_size, src + (size_t)i * row_size, row_size);
}

enum mc_status blocks_export(struct mc_engine *engine, uint32_t seq, uint32_t block_index, uint32_t layer_first,
    uint32_t layer_count, void *dst, size_t size)
{
    struct llama_engine *llama = llama_of(engine);
    struct mc_byte_range range;
    enum mc_status st = mc_layout_layers(llama->layout, layer_first, layer_count, &range);

    if (st == MC_OK)
        st = fetch_block(llama, seq, block_index);
    if (st != MC_OK)
        return st;
    for (uint32_t plane = 0; plane < llama->shape.planes; plane++) {
        struct mc_byte_range rows = mc_layout_plane(llama->layout, plane);
        uint64_t at = rows.offset - range.offset, end;

        if (rows.offset < range.offset || at >= range.length)
            continue;
        copy_rows(llama, plane, (uint8_t *)dst + at);
        end = plane + 1 < llama->shape.planes ? mc_layout_plane(llama->layout, plane + 1).offset
                                              : mc_layout_size(llama->layout);
        memset((uint8_t *)dst + at + rows.length, 0, (size_t)(end - rows.offset - rows.length)); /* padding */
    }
    (void)size; /* core.c compared it with range.length */
    return MC_OK;
}

/* Are these half floats finite, all of them? An exponent of ones is none: adding one to it reaches the sign's bit. A NaN or an
 * infinity is nothing that a model computes, and it would not stay in its row: the softmax of every later token of the
 * sequence takes it in. */
static bool halves_finite(const uint8_t *bytes, size_t size)
{
    typedef uint16_t lanes __attribute__((vector_size(64)));
    lanes bad = {0}, some = {0};
    uint16_t any = 0;

    for (; size >= sizeof some; bytes += sizeof some, size -= sizeof some) {
        memcpy(&some, bytes, sizeof some);
        bad |= (some & 0x7c00) + 0x0400;
    }
    memcpy(&some, bytes, size); /* behind the rest lies what was looked at before */
    bad |= (some & 0x7c00) + 0x0400;
    for (size_t i = 0; i < sizeof bad / sizeof any; i++)
        any |= bad[i];
    return (any & 0x8000) == 0;
}

/* Rows of one block into the blob of `cells` cells, beginning at cell `cell`. They are looked at when they were just copied, so
 * from the cache. */
static enum mc_status place_block(
    struct llama_engine *llama, const struct mc_block_in *block, uint32_t cells, uint32_t cell)
{
    struct mc_layout *part = NULL;
    const struct mc_layout *layout = llama->layout;
    enum mc_status st = MC_OK;

    if (block->rows != llama->block_tokens) {
        st = mc_layout_create(llama->geometry, block->rows, &part);
        layout = part;
    }
    for (uint32_t plane = 0; plane < llama->shape.planes && st == MC_OK; plane++) {
        const struct mc_plane *p = mc_geometry_plane(llama->geometry, plane);
        struct mc_byte_range rows = mc_layout_plane(layout, plane);
        uint8_t *dst = llama->blob + kvblob_rows(&llama->shape, cells, plane) + (size_t)p->row_size * cell;

        memcpy(dst, (const uint8_t *)block->bytes + rows.offset, rows.length);
        if (!halves_finite(dst, rows.length)) {
            say(SAY_ERROR, "engine llama: block %u, layer %u plane %s: rows that are no finite numbers", block->index,
                p->layer, p->name);
            st = MC_ECORRUPT;
        }
    }
    mc_layout_destroy(part);
    return st;
}

/* One set_data for a run of blocks. *placed counts those whose rows were good. */
static enum mc_status import_run(struct llama_engine *llama, uint32_t seq, uint32_t length,
    const struct mc_block_in *blocks, size_t count, uint32_t cells, size_t *placed)
{
    size_t size = kvblob_size(&llama->shape, cells), read;
    uint32_t cell = 0, top_before;
    enum mc_status st = cells_open(llama, seq, length, cells, &top_before);

    *placed = 0;
    if (st != MC_OK)
        return st;
    assert(size <= llama->blob_size);
    llama->exported.valid = false; /* the buffer is taken */
    kvblob_frame(&llama->shape, llama->blob, cells, llama->scratch, length);
    for (; *placed < count; ++*placed) {
        st = place_block(llama, &blocks[*placed], cells, cell);
        if (st != MC_OK)
            break;
        cell += blocks[*placed].rows;
    }
    if (st == MC_OK) {
        read = llama_state_seq_set_data(llama->context, llama->blob, size, llama->scratch);
        if (read == size) {
            llama_memory_seq_cp(llama->memory, llama->scratch, (llama_seq_id)seq, -1, -1);
        } else {
            char why[SAY_LINE_MAX];

            say_last_error(why, sizeof why);
            say(SAY_ERROR, "engine llama: import of %u tokens at %u into sequence %u refused: %s", cells, length, seq,
                why);
            st = MC_ESYS;
        }
        llama_memory_seq_rm(llama->memory, llama->scratch, -1, -1);
    }
    if (st == MC_OK)
        st = cells_close(llama, seq, length + cells, top_before);
    if (st == MC_OK)
        llama->lengths[seq] = length + cells;
    else
        cells_cut(llama, seq, length, length + cells);
    return st;
}

enum mc_status blocks_import(struct mc_engine *engine, uint32_t seq, uint32_t length, const struct mc_block_in *blocks,
    size_t block_count, size_t *imported)
{
    struct llama_engine *llama = llama_of(engine);
    enum mc_status bad = MC_OK;

    *imported = 0;
    while (*imported < block_count) {
        const struct mc_block_in *run = blocks + *imported;
        size_t count = 0, left = block_count - *imported, placed;
        uint32_t cells = 0, most = IMPORT_CELLS_MAX;

        if (length % CELLMAP_PAGE)
            most = CELLMAP_PAGE - length % CELLMAP_PAGE; /* small blocks: finish the page first, see cells_open() */
        while (count < left && (count == 0 || cells + run[count].rows <= most))
            cells += run[count++].rows;
        enum mc_status st = import_run(llama, seq, length, run, count, cells, &placed);
        if (st == MC_ECORRUPT && placed) { /* those before it are as good as ever */
            block_count = *imported + placed;
            bad = st;
            continue;
        }
        if (st != MC_OK)
            return st;
        length += cells;
        *imported += count;
    }
    return bad;
}

void blocks_clear(struct mc_engine *engine, uint32_t seq)
{
    struct llama_engine *llama = llama_of(engine);

    cells_cut(llama, seq, 0, llama->lengths[seq]);
}
