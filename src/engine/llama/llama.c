/* llama.c - llama.cpp as an engine: the plug-in engine-llama.so.
 *
 *   model, vocab   one of each per engine; read by any thread (tokenising), never changed
 *   context        one; cells shared by all sequences (kv_unified), flash attention on (so that V rows lie like K rows and a
 *                  block is a run of rows), f16; only the engine thread touches it
 *   sequence ids   ours 0..sequences_max-1, and two more: `scratch`, through which blocks go in and out, and `plug`, which
 *                  occupies cells nobody may use, so that each sequence lies in pages of its own (cellmap.h says why)
 *
 * Out: seq_cp puts a block's cells into scratch as well (no data moves), state_seq_get_data writes scratch's blob into our
 * buffer, seq_rm empties scratch; rows are then copied plane by plane. In: a blob is built in our buffer from blocks
 * (kvblob.h), state_seq_set_data reads it into scratch, seq_cp hands the cells to the sequence. So what came over a wire is
 * only ever row bytes: counts, positions and sizes in the blob are written by us. Rows of any bits are safe for the
 * library; they are numbers, and a wrong one is a wrong number (the caller checked CRCs).
 *
 * Facts this file rests on, measured in llama-engine.md: set_data empties its destination even when it fails (hence
 * scratch); gaps and blocks merged twice are not detected (core.c does); scratch must be below n_seq_max; cells must go in
 * ascending order of position for bit-equal logits; everything on one thread.
 *
 * API: only calls and fields that have been there for long are used, so that other tags of llama.cpp build (b6673, a year
 * older, passes the same tests); what may differ silently, the form of the blob, is tried out at open.
 *
 * Threads: as engine.h. The log callback may come from any thread. */
#include <assert.h>
#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <llama.h>

#include "base/hash.h"
#include "engine/impl.h"
#include "engine/llama/cellmap.h"
#include "engine/llama/kvblob.h"
#include "engine/llama/model_hash.h"
#include "kvcache/errtext.h"

enum {
    IMPORT_CELLS_MAX = 512, /* tokens per set_data: 11.8 MB for SmolLM2; more gains nothing (llama-engine.md) */
    LOG_LINE_MAX = 512,
};

/* Calls that older tags do not have: NULL there. */
bool llama_model_is_hybrid(const struct llama_model *model) __attribute__((weak));
const char *llama_version(void) __attribute__((weak));

static const struct mc_engine_host *host; /* set once by the plug-in's entry */

struct step;

struct llama_engine {
    struct mc_engine engine; /* first: see impl.h */
    struct llama_model *model;
    const struct llama_vocab *vocab;
    struct llama_context *context;
    llama_memory_t memory;
    struct mc_geometry *geometry;
    struct mc_layout *layout; /* of a full block */
    struct kvblob_shape shape;
    struct llama_batch batch;
    uint32_t batch_max;
    uint32_t block_tokens;
    llama_seq_id scratch, plug;
    struct cellmap cells;
    bool aborted;       /* by the cancel word, in the decode in progress */
    bool broken;        /* the library refused a plug: what lies where is no longer known, every call fails */
    uint32_t *lengths;  /* sequences_max: tokens whose cells are in the context */
    struct step *steps; /* sequences_max: scratch of decode */
    const int *cancel;  /* of the prefill in progress, or NULL */
    uint32_t threads, context_tokens;
    const char *chat_template; /* lent by the model; NULL = none */

    uint8_t *blob; /* one buffer for all imports and exports: warm pages (cold ones cost 5 to 10 times as much) */
    size_t blob_size;
    uint32_t *order; /* block_tokens: rows of the blob's cells */
    struct {         /* block whose blob is in the buffer, so that layer after layer costs one get_data */
        bool valid;
        uint32_t seq, block;
    } exported;

    char model_name[128];
    char version[64];
};

static struct llama_engine *llama_of(const struct mc_engine *engine)
{
    return (struct llama_engine *)(uintptr_t)engine;
}

/* ---- log ---- */

/* The library's last error line, for "its last words are in err". */
static pthread_mutex_t last_lock = PTHREAD_MUTEX_INITIALIZER;
static char last_error[LOG_LINE_MAX]; /* guarded by last_lock */

static void say(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(int level, const char *format, ...)
{
    char line[LOG_LINE_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    host->log(level, line);
}

enum { SAY_ERROR, SAY_WARN, SAY_INFO, SAY_DEBUG };

/* Decodes that were told to abort and have not returned: what the library says about it is no error. */
static int aborting; /* atomic, relaxed: a line too many or too few in the log */

/* The library talks a lot while loading: its info is our debug. Continued lines (progress dots) are dropped. */
static void on_library_log(enum ggml_log_level level, const char *text, void *arg)
{
    char line[LOG_LINE_MAX];
    size_t length = strcspn(text, "\n");

    (void)arg;
    if (level == GGML_LOG_LEVEL_CONT || length == 0)
        return;
    snprintf(line, sizeof line, "llama.cpp: %.*s", (int)(length < 480 ? length : 480), text);
    if (level == GGML_LOG_LEVEL_ERROR && __atomic_load_n(&aborting, __ATOMIC_RELAXED))
        level = GGML_LOG_LEVEL_DEBUG;
    if (level == GGML_LOG_LEVEL_ERROR) {
        pthread_mutex_lock(&last_lock);
        memcpy(last_error, line, sizeof line);
        pthread_mutex_unlock(&last_lock);
    }
    host->log(level == GGML_LOG_LEVEL_ERROR ? SAY_WARN : SAY_DEBUG, line);
}

static void take_last_error(char *line, size_t size)
{
    pthread_mutex_lock(&last_lock);
    snprintf(line, size, "%s", last_error[0] ? last_error : "llama.cpp gave no reason");
    last_error[0] = 0;
    pthread_mutex_unlock(&last_lock);
}

/* ---- computing ---- */

static bool on_abort(void *arg)
{
    struct llama_engine *llama = arg;

    if (!llama->cancel || !__atomic_load_n(llama->cancel, __ATOMIC_RELAXED))
        return false;
    if (!llama->aborted) { /* only ever called by one of the compute threads */
        llama->aborted = true;
        __atomic_add_fetch(&aborting, 1, __ATOMIC_RELAXED);
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
        __atomic_sub_fetch(&aborting, 1, __ATOMIC_RELAXED);
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

/* ---- cells ---- */

/* Occupy free cells [first, first + count), the lowest free ones, with rows of zeros. */
static enum mc_status plug_cells(struct llama_engine *llama, uint32_t first, uint32_t count)
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

static void unplug_cells(struct llama_engine *llama, uint32_t first, uint32_t count)
{
    llama_memory_seq_rm(llama->memory, llama->plug, (llama_pos)first, (llama_pos)(first + count));
}

/* Make exactly the cells for tokens [length, length + count) of one sequence the lowest free ones. *top_before is needed by
 * cells_filled(). A call must not begin in the middle of a page and end beyond it: pages of one call ascend, but need not lie
 * above those of earlier calls. */
static enum mc_status cells_open(
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

            unplug_cells(llama, cell, run < below ? run : below);
        }
    }
    return st;
}

/* Tokens up to `end` are in their cells: plug the rest of the last page if it was unused before. */
static enum mc_status cells_close(struct llama_engine *llama, uint32_t seq, uint32_t end, uint32_t top_before)
{
    uint32_t last = cellmap_cell(&llama->cells, seq, end - 1);

    if (end % CELLMAP_PAGE == 0 || last < top_before * CELLMAP_PAGE)
        return MC_OK;
    return plug_cells(llama, last + 1, CELLMAP_PAGE - end % CELLMAP_PAGE);
}

/* Cells opened for (or held by) tokens [length, end) are free: take tokens out of the library if they are in it, give pages
 * back, plug what lies below others. The way out of every failure, and the end of every sequence. */
static void cells_cut(struct llama_engine *llama, uint32_t seq, uint32_t length, uint32_t end)
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
        unplug_cells(llama, top * CELLMAP_PAGE, (before - top) * CELLMAP_PAGE);
    /* lowest first, as the library plugs what is lowest; pages of a sequence are few and nearly always sorted */
    for (uint32_t page = 0; page < top; page++) {
        for (uint32_t i = length / CELLMAP_PAGE; i < count; i++) {
            uint32_t first = i * CELLMAP_PAGE > length ? i * CELLMAP_PAGE : length;
            uint32_t last = (i + 1) * CELLMAP_PAGE < end ? (i + 1) * CELLMAP_PAGE : end;

            if (s->pages[i] == page && first < last)
                plug_cells(llama, page * CELLMAP_PAGE + first % CELLMAP_PAGE, last - first);
        }
    }
}

/* ---- prefill and decode ---- */

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

static enum mc_status prefill(struct mc_engine *engine, uint32_t seq, uint32_t length, const uint32_t *tokens,
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

/* A step's slots in the order of their cells: the library fills free cells from the lowest up. */
struct step {
    uint32_t cell, slot;
};

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
            st = plug_cells(llama, top * CELLMAP_PAGE, CELLMAP_PAGE);
        if (st != MC_OK) {
            while (i-- > 0)
                cells_cut(llama, slots[i].seq, lengths[i], lengths[i]); /* pages taken, nothing unplugged */
            return st;
        }
        steps[i] = (struct step){cellmap_cell(&llama->cells, slots[i].seq, lengths[i]), (uint32_t)i};
    }
    qsort(steps, count, sizeof *steps, step_compare);
    for (size_t i = 0; i < count; i++)
        unplug_cells(llama, steps[i].cell, 1);
    return MC_OK;
}

static enum mc_status decode(
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

static void set_threads(struct mc_engine *engine, uint32_t threads)
{
    struct llama_engine *llama = llama_of(engine);

    if (threads == llama->threads)
        return;
    llama->threads = threads;
    llama_set_n_threads(llama->context, (int32_t)threads, (int32_t)threads);
}

static void seq_clear(struct mc_engine *engine, uint32_t seq)
{
    struct llama_engine *llama = llama_of(engine);

    cells_cut(llama, seq, 0, llama->lengths[seq]);
}

/* ---- blocks in and out ---- */

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

static enum mc_status export_layers(struct mc_engine *engine, uint32_t seq, uint32_t block_index, uint32_t layer_first,
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

/* Rows of one block into the blob of `cells` cells, beginning at cell `cell`. */
static enum mc_status place_block(
    struct llama_engine *llama, const struct mc_block_in *block, uint32_t cells, uint32_t cell)
{
    struct mc_layout *part = NULL;
    const struct mc_layout *layout = llama->layout;

    if (block->rows != llama->block_tokens) {
        enum mc_status st = mc_layout_create(llama->geometry, block->rows, &part);

        if (st != MC_OK)
            return st;
        layout = part;
    }
    for (uint32_t plane = 0; plane < llama->shape.planes; plane++) {
        struct mc_byte_range rows = mc_layout_plane(layout, plane);
        size_t at = (size_t)mc_geometry_plane(llama->geometry, plane)->row_size * cell;

        memcpy(llama->blob + kvblob_rows(&llama->shape, cells, plane) + at, (const uint8_t *)block->bytes + rows.offset,
            rows.length);
    }
    mc_layout_destroy(part);
    return MC_OK;
}

/* One set_data for a run of blocks. */
static enum mc_status import_run(struct llama_engine *llama, uint32_t seq, uint32_t length,
    const struct mc_block_in *blocks, size_t count, uint32_t cells)
{
    size_t size = kvblob_size(&llama->shape, cells), read;
    uint32_t cell = 0, top_before;
    enum mc_status st = cells_open(llama, seq, length, cells, &top_before);

    if (st != MC_OK)
        return st;
    assert(size <= llama->blob_size);
    llama->exported.valid = false; /* the buffer is taken */
    kvblob_frame(&llama->shape, llama->blob, cells, llama->scratch, length);
    for (size_t i = 0; i < count && st == MC_OK; i++) {
        st = place_block(llama, &blocks[i], cells, cell);
        cell += blocks[i].rows;
    }
    if (st == MC_OK) {
        read = llama_state_seq_set_data(llama->context, llama->blob, size, llama->scratch);
        if (read == size) {
            llama_memory_seq_cp(llama->memory, llama->scratch, (llama_seq_id)seq, -1, -1);
        } else {
            char why[LOG_LINE_MAX];

            take_last_error(why, sizeof why);
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

static enum mc_status import_blocks(struct mc_engine *engine, uint32_t seq, uint32_t length,
    const struct mc_block_in *blocks, size_t block_count, size_t *imported)
{
    struct llama_engine *llama = llama_of(engine);

    *imported = 0;
    while (*imported < block_count) {
        const struct mc_block_in *run = blocks + *imported;
        size_t count = 0, left = block_count - *imported;
        uint32_t cells = 0, most = IMPORT_CELLS_MAX;

        if (length % CELLMAP_PAGE)
            most = CELLMAP_PAGE - length % CELLMAP_PAGE; /* small blocks: finish the page first, see cells_open() */
        while (count < left && (count == 0 || cells + run[count].rows <= most))
            cells += run[count++].rows;
        enum mc_status st = import_run(llama, seq, length, run, count, cells);
        if (st != MC_OK)
            return st;
        length += cells;
        *imported += count;
    }
    return MC_OK;
}

/* ---- text ---- */

static enum mc_status tokenize(const struct mc_engine *engine, const char *text, size_t length, uint32_t flags,
    uint32_t *tokens, size_t tokens_max, size_t *count)
{
    const struct llama_engine *llama = llama_of(engine);
    llama_token bos = llama_vocab_bos(llama->vocab);
    size_t lead = flags & MC_TOKENIZE_BOS && llama_vocab_get_add_bos(llama->vocab) && bos != LLAMA_TOKEN_NULL;
    size_t room = tokens_max > lead ? tokens_max - lead : 0;
    int32_t n;

    static_assert(sizeof(llama_token) == sizeof(uint32_t), "token ids are handed through");
    /* BOS is put in front by us: the library's add_special might append an end token as well */
    n = llama_tokenize(llama->vocab, text, (int32_t)length, (llama_token *)tokens + lead,
        (int32_t)(room < INT32_MAX ? room : INT32_MAX), false, flags & MC_TOKENIZE_SPECIAL);
    if (n == INT32_MIN)
        return MC_EINVAL;
    if (n < 0) {
        *count = (size_t)-n + lead;
        return MC_ETOOBIG;
    }
    if (lead > tokens_max) { /* n is 0: there was room for nothing */
        *count = (size_t)n + lead;
        return MC_ETOOBIG;
    }
    if (lead && n > 0 && tokens[lead] == (uint32_t)bos) {
        memmove(tokens, tokens + lead, (size_t)n * sizeof *tokens); /* the text (a chat template) has it already */
        lead = 0;
    } else if (lead) {
        tokens[0] = (uint32_t)bos;
    }
    *count = (size_t)n + lead;
    return MC_OK;
}

static enum mc_status piece(
    const struct mc_engine *engine, uint32_t token, bool special, char *dst, size_t size, size_t *length)
{
    int32_t n = llama_token_to_piece(
        llama_of(engine)->vocab, (llama_token)token, dst, (int32_t)(size < INT32_MAX ? size : INT32_MAX), 0, special);

    if (n < 0)
        return MC_ETOOBIG;
    *length = (size_t)n;
    return MC_OK;
}

static bool is_end(const struct mc_engine *engine, uint32_t token)
{
    return llama_vocab_is_eog(llama_of(engine)->vocab, (llama_token)token);
}

static enum mc_status chat(const struct mc_engine *engine, const struct mc_chat_message *messages, size_t message_count,
    bool open_answer, char *dst, size_t size, size_t *length)
{
    const struct llama_engine *llama = llama_of(engine);
    struct llama_chat_message *list;
    int32_t n;

    if (!llama->chat_template)
        return MC_ENOSUP; /* and never NULL to the library, which would take ChatML */
    list = calloc(message_count, sizeof *list);
    if (!list)
        return MC_ENOMEM;
    for (size_t i = 0; i < message_count; i++)
        list[i] = (struct llama_chat_message){.role = messages[i].role, .content = messages[i].content};
    n = llama_chat_apply_template(
        llama->chat_template, list, message_count, open_answer, dst, (int32_t)(size < INT32_MAX ? size : INT32_MAX));
    free(list);
    if (n < 0)
        return MC_ESYS;
    *length = (size_t)n;
    return (size_t)n <= size ? MC_OK : MC_ETOOBIG;
}

/* ---- open and close ---- */

static void close_engine(struct mc_engine *engine)
{
    struct llama_engine *llama = llama_of(engine);

    if (llama->batch.token)
        llama_batch_free(llama->batch);
    if (llama->context)
        llama_free(llama->context);
    if (llama->model)
        llama_model_free(llama->model);
    mc_layout_destroy(llama->layout);
    mc_geometry_destroy(llama->geometry);
    cellmap_fini(&llama->cells);
    free(llama->blob);
    free(llama->order);
    free(llama->lengths);
    free(llama->steps);
    free(llama);
}

/* Back ends are plug-ins of the library, in its own folder; register them once per process. */
static void load_backends(void)
{
    char folder[PATH_MAX];
    Dl_info info;

    llama_log_set(on_library_log, NULL);
    ggml_log_set(on_library_log, NULL);
    if (dladdr((void *)(uintptr_t)llama_backend_init, &info) && info.dli_fname &&
        strlen(info.dli_fname) < sizeof folder) {
        strcpy(folder, info.dli_fname);
        char *slash = strrchr(folder, '/');
        if (slash) {
            *slash = 0;
            ggml_backend_load_all_from_path(folder);
        }
    }
    llama_backend_init();
}

/* Kinds of model whose state is not rows per token. Their name, or NULL. */
static const char *refused_kind(const struct llama_model *model)
{
    switch (llama_model_rope_type(model)) {
    case LLAMA_ROPE_TYPE_NONE:
    case LLAMA_ROPE_TYPE_NORM:
    case LLAMA_ROPE_TYPE_NEOX: break;
    default: return "multi-dimensional rotary positions (M-RoPE)";
    }
    if (llama_model_is_recurrent(model))
        return "recurrent layers";
    if (llama_model_is_hybrid && llama_model_is_hybrid(model))
        return "hybrid (attention and recurrent) layers";
    if (llama_model_n_swa(model) > 0)
        return "sliding window attention";
    if (llama_model_has_encoder(model) || !llama_model_has_decoder(model))
        return "an encoder";
    return NULL;
}

static enum mc_status load_model(struct llama_engine *llama, const struct mc_engine_options *o,
    const struct mc_gguf_model *file, char *err, size_t err_size)
{
    char why[LOG_LINE_MAX];
    const char *kind;

    take_last_error(why, sizeof why);
    llama->model = llama_model_load_from_file(o->model_path, llama_model_default_params());
    if (!llama->model) {
        take_last_error(why, sizeof why);
        errtext(err, err_size, "engine llama: cannot load %s: %s", o->model_path, why);
        return MC_ESYS;
    }
    kind = refused_kind(llama->model);
    if (kind) {
        errtext(
            err, err_size, "engine llama: model '%s' has %s, whose state cannot be kept in blocks", file->arch, kind);
        return MC_ENOSUP;
    }
    llama->vocab = llama_model_get_vocab(llama->model);
    llama->chat_template = llama_model_chat_template(llama->model, NULL);
    if (llama->chat_template) {
        const struct llama_chat_message probe = {.role = "user", .content = "probe"};
        char text[512];

        if (llama_chat_apply_template(llama->chat_template, &probe, 1, true, text, sizeof text) < 0) {
            errtext(
                err, err_size, "engine llama: the chat template of %s is none of those llama.cpp knows", o->model_path);
            return MC_ENOSUP;
        }
    }
    return MC_OK;
}

static enum mc_status make_context(
    struct llama_engine *llama, const struct mc_engine_options *o, char *err, size_t err_size)
{
    struct llama_context_params p = llama_context_default_params();
    char why[LOG_LINE_MAX];

    llama->batch_max = o->chunk_tokens > o->sequences_max ? o->chunk_tokens : o->sequences_max;
    llama->scratch = (llama_seq_id)o->sequences_max;
    llama->plug = llama->scratch + 1;
    llama->context_tokens = (o->context_tokens + CELLMAP_PAGE - 1) / CELLMAP_PAGE * CELLMAP_PAGE;
    llama->threads = o->threads / 2 ? o->threads / 2 : 1; /* until it was tried out */
    /* a page's end may stay empty in each sequence: with this much more, what core.c counts as free is free */
    p.n_ctx = llama->context_tokens + o->sequences_max * CELLMAP_PAGE;
    p.n_batch = llama->batch_max;
    p.n_ubatch = llama->batch_max;
    p.n_seq_max = o->sequences_max + 2;
    p.n_threads = (int32_t)llama->threads;
    p.n_threads_batch = (int32_t)llama->threads;
    p.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    p.type_k = GGML_TYPE_F16;
    p.type_v = GGML_TYPE_F16;
    p.kv_unified = true;
    p.no_perf = true;
    p.abort_callback = on_abort;
    p.abort_callback_data = llama;
    llama->context = llama_init_from_model(llama->model, p);
    if (!llama->context) {
        take_last_error(why, sizeof why);
        errtext(err, err_size, "engine llama: no context of %u tokens: %s", o->context_tokens, why);
        return MC_ENOMEM;
    }
    llama->memory = llama_get_memory(llama->context);
    llama->batch = llama_batch_init((int32_t)llama->batch_max, 0, 1);
    return llama->memory && llama->batch.token ? MC_OK : MC_ENOMEM;
}

static enum mc_status make_buffers(struct llama_engine *llama, const struct mc_engine_options *o)
{
    uint32_t cells = o->block_tokens > IMPORT_CELLS_MAX ? o->block_tokens : IMPORT_CELLS_MAX;
    enum mc_status st = mc_layout_create(llama->geometry, o->block_tokens, &llama->layout);

    if (st != MC_OK)
        return st;
    llama->block_tokens = o->block_tokens;
    llama->blob_size = kvblob_size(&llama->shape, cells);
    llama->blob = malloc(llama->blob_size);
    llama->order = calloc(o->block_tokens, sizeof *llama->order);
    llama->lengths = calloc(o->sequences_max, sizeof *llama->lengths);
    llama->steps = calloc(o->sequences_max, sizeof *llama->steps);
    if (!llama->blob || !llama->order || !llama->lengths || !llama->steps)
        return MC_ENOMEM;
    return cellmap_init(&llama->cells, llama_n_ctx(llama->context) / CELLMAP_PAGE, o->sequences_max);
}

/* Does the library's state have the form kvblob.h says? Compute one block (which warms weights and caches as well), take it
 * out, put it into another sequence, take it out again: the same bytes, or this library is not for us. On half of
 * the threads: workers of a host start together, and the library's threads spin (seconds instead of tenths). */
static enum mc_status try_out(struct llama_engine *llama, char *err, size_t err_size)
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
        st = prefill(engine, 0, at, tokens, count, NULL, NULL, NULL, NULL);
    }
    if (st == MC_OK) {
        step = "size";
        st = kvblob_adapt(&llama->shape, llama_state_seq_get_size(llama->context, 0), all) ? MC_OK : MC_ENOSUP;
    }
    if (st == MC_OK) {
        step = "export";
        st = export_layers(engine, 0, 0, 0, layers, first, size);
    }
    if (st == MC_OK) {
        const struct mc_block_in block = {.rows = n, .bytes = first, .size = size};

        step = "import";
        seq_clear(engine, 0);
        st = import_blocks(engine, 0, 0, &block, 1, &imported);
    }
    if (st == MC_OK) {
        step = "comparison";
        st = export_layers(engine, 0, 0, 0, layers, second, size);
        if (st == MC_OK && memcmp(first, second, size) != 0)
            st = MC_EMISMATCH;
    }
    seq_clear(engine, 0);
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

/* "v0.5.0", as the build was told; else as the library says; else a hash of its file: the version is part of the identity. */
static void find_version(struct llama_engine *llama)
{
    uint8_t hash[32];
    Dl_info info;
    char hex[65];

    snprintf(llama->version, sizeof llama->version, "%s", LLAMA_TAG);
    if (llama->version[0])
        return;
    if (llama_version) {
        snprintf(llama->version, sizeof llama->version, "%s", llama_version());
        return;
    }
    if (dladdr((void *)(uintptr_t)llama_backend_init, &info) && model_hash(info.dli_fname, hash) == MC_OK) {
        hex_encode(hex, hash, 32);
        snprintf(llama->version, sizeof llama->version, "lib-%.16s", hex);
    }
}

static enum mc_status fill_record(struct llama_engine *llama, const struct mc_engine_options *o,
    const struct mc_gguf *gguf, const struct mc_gguf_model *file, char *err, size_t err_size)
{
    struct mc_fp_record *rec = &llama->engine.record;
    enum mc_status st;

    snprintf(rec->engine, sizeof rec->engine, "llama");
    /* flash attention and prefill batches change bits, so they stand in the version */
    snprintf(rec->engine_version, sizeof rec->engine_version, "%.48s fa q%d", llama->version, MC_PREFILL_QUANTUM);
    snprintf(rec->model_arch, sizeof rec->model_arch, "%s", file->arch);
    snprintf(rec->k_type, sizeof rec->k_type, "f16");
    snprintf(rec->v_type, sizeof rec->v_type, "%s", file->latent_dim ? "" : "f16");
    snprintf(rec->rope_type, sizeof rec->rope_type, "%s",
        llama_model_rope_type(llama->model) == LLAMA_ROPE_TYPE_NEOX   ? "neox"
        : llama_model_rope_type(llama->model) == LLAMA_ROPE_TYPE_NORM ? "norm"
                                                                      : "none");
    rec->rope_base = file->rope_base;
    rec->rope_scale = file->rope_scale;
    rec->layers = file->layers;
    rec->kv_heads = file->kv_heads;
    rec->head_dim = file->latent_dim ? file->latent_dim : file->k_dim;
    rec->block_tokens = o->block_tokens;
    mc_gguf_tokenizer_hash(gguf, rec->tokenizer_hash);
    st = model_hash(o->model_path, rec->model_hash);
    if (st != MC_OK)
        errtext(err, err_size, "engine llama: cannot read %s to its end", o->model_path);
    return st;
}

/* Name to serve under: given, or the file's without ".gguf". The name inside the file is often a training run's. */
static void choose_name(struct llama_engine *llama, const struct mc_engine_options *o)
{
    const char *base = strrchr(o->model_path, '/');
    size_t length;

    if (o->model_name) {
        snprintf(llama->model_name, sizeof llama->model_name, "%s", o->model_name);
        return;
    }
    base = base ? base + 1 : o->model_path;
    length = strlen(base);
    if (length > 5 && strcmp(base + length - 5, ".gguf") == 0)
        length -= 5;
    snprintf(llama->model_name, sizeof llama->model_name, "%.*s", (int)(length < 120 ? length : 120), base);
}

static void fill_info(struct llama_engine *llama, const struct mc_gguf_model *file)
{
    struct mc_engine_info *info = &llama->engine.info;
    uint32_t cells = llama->context_tokens;

    info->engine = "llama";
    info->engine_version = llama->version;
    info->model = llama->model_name;
    info->context_tokens = cells;
    info->sequence_tokens_max = file->context_tokens < cells ? (uint32_t)file->context_tokens : cells;
    info->vocab_size = (uint32_t)llama_vocab_n_tokens(llama->vocab);
    info->geometry = llama->geometry;
    info->verifies = false;
}

static const struct mc_engine_ops ops;

static enum mc_status open_with(struct llama_engine *llama, const struct mc_engine_options *o,
    const struct mc_gguf *gguf, char *err, size_t err_size)
{
    struct mc_gguf_model file;
    enum mc_status st = mc_gguf_model(gguf, &file, err, err_size);

    if (st == MC_OK)
        st = mc_gguf_geometry(gguf, "f16", "f16", &llama->geometry, err, err_size);
    if (st == MC_OK) {
        st = kvblob_shape_init(&llama->shape, llama->geometry, GGML_TYPE_F16);
        if (st != MC_OK)
            errtext(
                err, err_size, "engine llama: model '%s' has a kv cache of another kind than k and v rows", file.arch);
    }
    if (st == MC_OK)
        st = load_model(llama, o, &file, err, err_size);
    if (st == MC_OK)
        st = make_context(llama, o, err, err_size);
    if (st == MC_OK)
        st = make_buffers(llama, o);
    if (st != MC_OK)
        return st;
    find_version(llama);
    choose_name(llama, o);
    fill_info(llama, &file);
    st = try_out(llama, err, err_size);
    set_threads(&llama->engine, o->threads);
    return st == MC_OK ? fill_record(llama, o, gguf, &file, err, err_size) : st;
}

static enum mc_status open_engine(
    const struct mc_engine_options *o, struct mc_engine **engine, char *err, size_t err_size)
{
    static pthread_once_t backends = PTHREAD_ONCE_INIT;
    struct llama_engine *llama;
    struct mc_gguf *gguf;
    enum mc_status st;

    if (!o->model_path) {
        errtext(err, err_size, "engine llama: no model file given");
        return MC_EINVAL;
    }
    /* our own reader goes first: the library trusts the file more than it should */
    st = mc_gguf_open(o->model_path, &gguf, err, err_size);
    if (st != MC_OK)
        return st == MC_EVERSION ? MC_EPROTO : st;
    pthread_once(&backends, load_backends);
    llama = calloc(1, sizeof *llama);
    if (!llama) {
        mc_gguf_destroy(gguf);
        return MC_ENOMEM;
    }
    llama->engine.ops = &ops;
    st = open_with(llama, o, gguf, err, err_size);
    mc_gguf_destroy(gguf);
    if (st != MC_OK) {
        close_engine(&llama->engine);
        return st;
    }
    *engine = &llama->engine;
    return MC_OK;
}

static const struct mc_engine_ops ops = {
    .name = "llama",
    .open = open_engine,
    .close = close_engine,
    .tokenize = tokenize,
    .piece = piece,
    .is_end = is_end,
    .chat = chat,
    .seq_clear = seq_clear,
    .import = import_blocks,
    .prefill = prefill,
    .export_layers = export_layers,
    .decode = decode,
    .set_threads = set_threads,
};

/* The one symbol of this plug-in: see engine.h. */
MC_API mc_engine_plugin_fn mc_engine_plugin;

enum mc_status mc_engine_plugin(const struct mc_engine_host *given, const struct mc_engine_ops **out)
{
    if (given->abi != MC_ENGINE_ABI)
        return MC_EVERSION;
    host = given;
    *out = &ops;
    return MC_OK;
}
