/* core.c - the public face of every engine: checks calls, keeps the books, cuts prefill into batches.
 *
 * Implementations see only calls that keep the contract, so each of them refuses the same mistakes in the same way:
 * gaps, blocks out of order or twice, wrong lengths, overfull contexts. llama.cpp detects none of these itself; it would
 * answer with wrong logits.
 *
 * Invariants: tokens_used is the sum of the lengths of used sequences and never above info.context_tokens;
 * sequences_used counts used entries; a slot is called only with lengths that are in the books.
 * Threads: see engine.h. Only tokenize, piece, is_end, chat and info may run beside the engine thread; they touch nothing
 * here that changes. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "engine/impl.h"
#include "kvcache/errtext.h"

enum {
    CONTEXT_TOKENS_DEFAULT = 8192,
    CONTEXT_TOKENS_MAX = 1 << 24,
    SEQUENCES_DEFAULT = 16,
    CHUNK_TOKENS_DEFAULT = 256, /* llama/README.md: 128 to 256 cost nothing against 512, and decode waits less */
    CHUNK_TOKENS_MAX = 8192,
    THREADS_MAX = 512,
};

/* ---- hot path: decode, prefill, import, export ---- */

static struct engine_seq *seq_of(const struct mc_engine *engine, uint32_t seq)
{
    return seq < engine->info.sequences_max && engine->seqs[seq].used ? &engine->seqs[seq] : NULL;
}

static uint32_t tokens_free(const struct mc_engine *engine)
{
    return engine->info.context_tokens - engine->tokens_used;
}

static void seq_grow(struct mc_engine *engine, struct engine_seq *state, uint32_t count)
{
    state->length += count;
    engine->tokens_used += count;
    assert(engine->tokens_used <= engine->info.context_tokens);
}

/* One slot of a step is good, and marks its sequence as taken. */
static enum mc_status slot_check(struct mc_engine *engine, const struct mc_decode_slot *slot)
{
    struct engine_seq *state = seq_of(engine, slot->seq);

    if (!state || state->in_step || state->length == 0 || slot->token >= engine->info.vocab_size ||
        state->length >= engine->info.sequence_tokens_max)
        return MC_EINVAL;
    state->in_step = true;
    return MC_OK;
}

enum mc_status mc_engine_decode(struct mc_engine *engine, struct mc_decode_slot *slots, size_t slot_count)
{
    enum mc_status st = slot_count && slot_count <= engine->info.sequences_max ? MC_OK : MC_EINVAL;
    size_t checked = 0;

    while (st == MC_OK && checked < slot_count) {
        st = slot_check(engine, &slots[checked]);
        if (st == MC_OK)
            checked++;
    }
    for (size_t i = 0; i < checked; i++) {
        engine->seqs[slots[i].seq].in_step = false;
        engine->lengths[i] = engine->seqs[slots[i].seq].length;
    }
    if (st == MC_OK && slot_count > tokens_free(engine))
        st = MC_ENOSPC;
    if (st != MC_OK)
        return st;
    for (size_t i = 0; i < slot_count; i++) {
        slots[i].status = MC_OK;
        slots[i].logits = NULL;
    }
    st = engine->ops->decode(engine, slots, engine->lengths, slot_count);
    if (st != MC_OK)
        return st;
    for (size_t i = 0; i < slot_count; i++)
        if (slots[i].status == MC_OK)
            seq_grow(engine, &engine->seqs[slots[i].seq], 1);
        else
            slots[i].logits = NULL;
    return MC_OK;
}

/* Where the batch that begins at `length` ends: see "Bit-equality" in engine.h. */
static uint32_t batch_end(uint32_t length, uint32_t end, uint32_t limit)
{
    const uint32_t quantum = MC_PREFILL_QUANTUM;
    uint32_t whole_end = end / quantum * quantum;
    uint32_t stop;

    if (length >= whole_end)
        return end; /* the remainder, a batch of its own */
    stop = (length + limit) / quantum * quantum;
    if (stop <= length)
        stop = (length / quantum + 1) * quantum;
    return stop < whole_end ? stop : whole_end;
}

/* Tell the caller, having noted what it may export meanwhile. */
static void on_ready(
    void *arg, struct mc_engine *engine, uint32_t seq, uint32_t block, uint32_t layer_first, uint32_t layer_count)
{
    (void)arg;
    engine->ready.active = true;
    engine->ready.seq = seq;
    engine->ready.block = block;
    engine->ready.layers = layer_first + layer_count;
    engine->ready_fn(engine->ready_arg, engine, seq, block, layer_first, layer_count);
    engine->ready.active = false;
}

enum mc_status mc_engine_prefill(struct mc_engine *engine, const struct mc_prefill *prefill, const float **logits)
{
    struct engine_seq *state = seq_of(engine, prefill->seq);
    const float *last = NULL;
    uint32_t limit, stop;
    enum mc_status st;

    if (!state || prefill->end <= state->length || prefill->end > engine->info.sequence_tokens_max)
        return MC_EINVAL;
    limit = prefill->tokens_max && prefill->tokens_max < engine->info.chunk_tokens ? prefill->tokens_max
                                                                                   : engine->info.chunk_tokens;
    stop = batch_end(state->length, prefill->end, limit);
    for (uint32_t i = state->length; i < stop; i++)
        if (prefill->tokens[i] >= engine->info.vocab_size)
            return MC_EINVAL;
    if (stop - state->length > tokens_free(engine))
        return MC_ENOSPC;
    if (prefill->cancel && __atomic_load_n(prefill->cancel, __ATOMIC_RELAXED))
        return MC_ECANCELED;
    engine->ready_fn = prefill->ready;
    engine->ready_arg = prefill->arg;
    st =
        engine->ops->prefill(engine, prefill->seq, state->length, prefill->tokens + state->length, stop - state->length,
            prefill->ready ? on_ready : NULL, NULL, prefill->cancel, logits && stop == prefill->end ? &last : NULL);
    if (st != MC_OK)
        return st;
    seq_grow(engine, state, stop - state->length);
    if (logits)
        *logits = last;
    return MC_OK;
}

/* Is all of `layers` layers of this block there: computed before, or announced by the callback we are in? */
static bool block_there(const struct mc_engine *engine, uint32_t seq, uint32_t block, uint32_t layers)
{
    const struct engine_seq *state = seq_of(engine, seq);

    if (!state)
        return false;
    if (block < state->length / engine->info.block_tokens)
        return true;
    if (!engine->ready.active || engine->ready.seq != seq)
        return false;
    return block < engine->ready.block || (block == engine->ready.block && layers <= engine->ready.layers);
}

enum mc_status mc_engine_export(struct mc_engine *engine, uint32_t seq, uint32_t block_index, uint32_t layer_first,
    uint32_t layer_count, void *dst, size_t size)
{
    struct mc_byte_range range;

    if (mc_layout_layers(engine->layout, layer_first, layer_count, &range) != MC_OK)
        return MC_EINVAL;
    if (!block_there(engine, seq, block_index, layer_first + layer_count))
        return MC_EINVAL;
    if (size != range.length)
        return MC_EMISMATCH;
    return engine->ops->export_layers(engine, seq, block_index, layer_first, layer_count, dst, size);
}

/* Length of an object of `rows` tokens; 0 when there is none. */
static uint64_t object_size(const struct mc_engine *engine, uint32_t rows)
{
    struct mc_layout *layout;
    uint64_t size;

    if (rows == engine->info.block_tokens)
        return engine->info.block_size;
    if (mc_layout_create(engine->info.geometry, rows, &layout) != MC_OK)
        return 0;
    size = mc_layout_size(layout);
    mc_layout_destroy(layout);
    return size;
}

static enum mc_status import_check(
    const struct mc_engine *engine, uint32_t length, const struct mc_block_in *blocks, size_t count, uint64_t *rows)
{
    *rows = 0;
    if (length % engine->info.block_tokens)
        return MC_EINVAL;
    for (size_t i = 0; i < count; i++) {
        const struct mc_block_in *block = &blocks[i];

        if (block->index != length / engine->info.block_tokens + i || block->rows == 0 ||
            *rows % engine->info.block_tokens)
            return MC_EINVAL;
        if (block->rows > engine->info.block_tokens || block->size != object_size(engine, block->rows)) {
            log_error("engine %s: block %u of %u rows has %zu bytes, %llu are right", engine->info.engine, block->index,
                block->rows, block->size, (unsigned long long)object_size(engine, block->rows));
            return MC_EMISMATCH;
        }
        for (uint32_t r = 0; r < block->rows; r++)
            if (block->tokens[r] >= engine->info.vocab_size)
                return MC_EINVAL;
        *rows += block->rows;
    }
    return length + *rows <= engine->info.sequence_tokens_max ? MC_OK : MC_EINVAL;
}

enum mc_status mc_engine_import(
    struct mc_engine *engine, uint32_t seq, const struct mc_block_in *blocks, size_t block_count, size_t *imported)
{
    struct engine_seq *state = seq_of(engine, seq);
    size_t done = 0;
    uint64_t rows;
    enum mc_status st;

    if (imported)
        *imported = 0;
    if (!state)
        return MC_EINVAL;
    if (block_count == 0)
        return MC_OK;
    st = import_check(engine, state->length, blocks, block_count, &rows);
    if (st != MC_OK)
        return st;
    if (rows > tokens_free(engine))
        return MC_ENOSPC;
    st = engine->ops->import(engine, seq, state->length, blocks, block_count, &done);
    assert(done <= block_count);
    for (size_t i = 0; i < done; i++)
        seq_grow(engine, state, blocks[i].rows);
    if (imported)
        *imported = done;
    return st;
}

/* ---- sequences ---- */

enum mc_status mc_engine_seq_create(struct mc_engine *engine, uint32_t *seq)
{
    for (uint32_t i = 0; i < engine->info.sequences_max; i++) {
        if (engine->seqs[i].used)
            continue;
        engine->seqs[i] = (struct engine_seq){.used = true};
        engine->sequences_used++;
        *seq = i;
        return MC_OK;
    }
    return MC_EBUSY;
}

void mc_engine_seq_free(struct mc_engine *engine, uint32_t seq)
{
    struct engine_seq *state = seq_of(engine, seq);

    if (!state)
        return;
    engine->ops->seq_clear(engine, seq);
    engine->tokens_used -= state->length;
    engine->sequences_used--;
    *state = (struct engine_seq){0};
}

uint32_t mc_engine_seq_length(const struct mc_engine *engine, uint32_t seq)
{
    const struct engine_seq *state = seq_of(engine, seq);

    return state ? state->length : 0;
}

struct mc_engine_space mc_engine_space(const struct mc_engine *engine)
{
    return (struct mc_engine_space){
        .sequences_used = engine->sequences_used,
        .sequences_max = engine->info.sequences_max,
        .tokens_used = engine->tokens_used,
        .tokens_max = engine->info.context_tokens,
    };
}

void mc_engine_set_threads(struct mc_engine *engine, uint32_t threads)
{
    if (threads < 1)
        threads = 1;
    engine->ops->set_threads(engine, threads < engine->info.threads_max ? threads : engine->info.threads_max);
}

/* ---- text ---- */

enum mc_status mc_engine_tokenize(const struct mc_engine *engine, const char *text, size_t length, uint32_t flags,
    uint32_t *tokens, size_t tokens_max, size_t *count)
{
    if (flags & ~(uint32_t)(MC_TOKENIZE_BOS | MC_TOKENIZE_SPECIAL) || length > 1u << 30)
        return MC_EINVAL;
    return engine->ops->tokenize(engine, text, length, flags, tokens, tokens_max, count);
}

enum mc_status mc_engine_piece(
    const struct mc_engine *engine, uint32_t token, bool special, char *dst, size_t size, size_t *length)
{
    return token < engine->info.vocab_size ? engine->ops->piece(engine, token, special, dst, size, length) : MC_EINVAL;
}

bool mc_engine_is_end(const struct mc_engine *engine, uint32_t token)
{
    return token < engine->info.vocab_size && engine->ops->is_end(engine, token);
}

static bool role_known(const char *role)
{
    static const char *const roles[] = {"system", "user", "assistant", "tool"};

    for (size_t i = 0; role && i < sizeof roles / sizeof roles[0]; i++)
        if (strcmp(role, roles[i]) == 0)
            return true;
    return false;
}

enum mc_status mc_engine_chat(const struct mc_engine *engine, const struct mc_chat_message *messages,
    size_t message_count, bool open_answer, char *dst, size_t size, size_t *length)
{
    if (message_count == 0)
        return MC_EINVAL;
    for (size_t i = 0; i < message_count; i++)
        if (!role_known(messages[i].role) || !messages[i].content)
            return MC_EINVAL;
    return engine->ops->chat(engine, messages, message_count, open_answer, dst, size, length);
}

const struct mc_engine_info *mc_engine_info(const struct mc_engine *engine)
{
    return &engine->info;
}

/* ---- open and close ---- */

void mc_engine_options_init(struct mc_engine_options *options)
{
    memset(options, 0, sizeof *options);
    options->engine = "synthetic";
}

/* Zeroes become defaults. Name of the first option out of range, NULL if all are good. */
static const char *options_complete(struct mc_engine_options *o)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    o->threads = o->threads ? o->threads : cores > 0 ? (uint32_t)cores : 1;
    o->context_tokens = o->context_tokens ? o->context_tokens : CONTEXT_TOKENS_DEFAULT;
    o->sequences_max = o->sequences_max ? o->sequences_max : SEQUENCES_DEFAULT;
    o->block_tokens = o->block_tokens ? o->block_tokens : MC_BLOCK_TOKENS_DEFAULT;
    o->chunk_tokens = o->chunk_tokens ? o->chunk_tokens : CHUNK_TOKENS_DEFAULT;
    if (o->threads > THREADS_MAX)
        return "threads";
    if (o->context_tokens < MC_PREFILL_QUANTUM || o->context_tokens > CONTEXT_TOKENS_MAX)
        return "context_tokens";
    if (o->sequences_max > MC_ENGINE_SEQUENCES_MAX)
        return "sequences_max";
    if (o->block_tokens < MC_BLOCK_TOKENS_MIN || o->block_tokens > MC_BLOCK_TOKENS_MAX ||
        (o->block_tokens & (o->block_tokens - 1)))
        return "block_tokens";
    if (o->chunk_tokens % MC_PREFILL_QUANTUM || o->chunk_tokens > CHUNK_TOKENS_MAX)
        return "chunk_tokens";
    if (!(o->prefill_tokens_per_s >= 0 && o->prefill_tokens_per_s < 1e12))
        return "prefill_tokens_per_s";
    if (!(o->decode_ms_per_step >= 0 && o->decode_ms_per_step < 1e6))
        return "decode_ms_per_step";
    return NULL;
}

/* What core.c owns of a freshly opened engine. */
static enum mc_status complete(struct mc_engine *engine, const struct mc_engine_options *o)
{
    struct mc_engine_info *info = &engine->info;
    enum mc_status st;

    info->sequences_max = o->sequences_max;
    info->block_tokens = o->block_tokens;
    info->chunk_tokens = o->chunk_tokens;
    info->threads_max = o->threads;
    info->layers = mc_geometry_layers(info->geometry);
    info->record = &engine->record;
    mc_geometry_hash(info->geometry, engine->record.geometry_hash);
    engine->record.block_tokens = o->block_tokens;
    st = mc_fp_record_hash(&engine->record, &info->fingerprint);
    if (st == MC_OK)
        st = mc_layout_create(info->geometry, o->block_tokens, &engine->layout);
    if (st != MC_OK)
        return st;
    info->layout = engine->layout;
    info->block_size = mc_layout_size(engine->layout);
    engine->seqs = calloc(o->sequences_max, sizeof *engine->seqs);
    engine->lengths = calloc(o->sequences_max, sizeof *engine->lengths);
    return engine->seqs && engine->lengths ? MC_OK : MC_ENOMEM;
}

enum mc_status mc_engine_open(
    const struct mc_engine_options *options, struct mc_engine **engine, char *err, size_t err_size)
{
    struct mc_engine_options complete_options = *options;
    const struct mc_engine_ops *ops = &engine_synthetic_ops;
    struct mc_engine *out;
    enum mc_status st;

    const char *bad = options_complete(&complete_options);
    if (bad) {
        errtext(err, err_size, "engine option %s is out of range", bad);
        return MC_EINVAL;
    }
    if (options->adapter && options->adapter[0]) {
        errtext(err, err_size, "adapter '%s': no engine takes adapters yet", options->adapter);
        return MC_ENOSUP;
    }
    if (strcmp(options->engine, ops->name) != 0) {
        st = engine_plugin_load(options->engine, options->engine_path, &ops, err, err_size);
        if (st != MC_OK)
            return st;
    }
    st = ops->open(&complete_options, &out, err, err_size);
    if (st != MC_OK)
        return st;
    assert(out->ops == ops && out->info.geometry && out->info.vocab_size && out->info.context_tokens);
    st = complete(out, &complete_options);
    if (st != MC_OK) {
        errtext(err, err_size, "engine %s: %s after loading the model", ops->name, mc_status_str(st));
        mc_engine_close(out);
        return st;
    }
    *engine = out;
    return MC_OK;
}

void mc_engine_close(struct mc_engine *engine)
{
    if (!engine)
        return;
    free(engine->seqs);
    free(engine->lengths);
    mc_layout_destroy(engine->layout);
    engine->ops->close(engine);
}
