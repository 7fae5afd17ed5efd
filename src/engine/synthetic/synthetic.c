/* synthetic.c - an engine without weights whose KV bytes can be checked.
 *
 * The KVCache is a function of the text: with
 *
 *     state[-1] = first bytes of the fingerprint
 *     state[p]  = mix(state[p-1], token[p], p)
 *     row(p, plane) = stream of 64-bit words keyed by (state[p], plane)
 *
 * each row depends on fingerprint, layer, position, its token and all tokens before it. A block of another prefix, model,
 * place or layer, a swapped chunk, one flipped bit: all differ. Import compares every byte with what it must be; every
 * prefill and decode step compares every byte of the whole sequence again (somebody may have written into our memory
 * meanwhile) and sums the bytes it read; the next token follows from that sum. So wrong bytes are loud twice: as
 * MC_ECORRUPT with layer and position in the log, and, were the check taken out, as another text.
 *
 * Logits are a real vector: the chosen word stands out by 8 or more, other words are within reach of a temperature, bytes
 * and control tokens are not. Text is made of words in sentences; a sentence ends after 6 to 14 words, an answer after a
 * sentence with probability 1/3. The choice looks only at tokens and bytes, never at how they came here, so any worker
 * continues any stream. Language follows the prompt's end.
 *
 * Speed: prefill and decode sleep until the time the options say, computing included; they do not spin.
 *
 * Memory: each sequence keeps its blocks as block objects in layout order; export is a copy, import a check and a copy.
 * Threads: as engine.h; everything any thread may read is constant after open. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/cursor.h"
#include "base/hash.h"
#include "base/log.h"
#include "engine/impl.h"
#include "engine/synthetic/vocab.h"
#include "kvcache/errtext.h"

enum {
    LAYERS_DEFAULT = 4,
    ROW_SIZE_DEFAULT = 64,
    SENTENCE_WORDS_MIN = 6,
    SENTENCE_WORDS_MAX = 14,
    LANGUAGE_WINDOW = 64, /* tokens looked back for chinese characters */
    SLEEP_SLICE_MS = 5,   /* how late a cancel is seen */
};

struct synth_seq {
    uint32_t *tokens; /* token[0..length) */
    uint64_t *states; /* state[0..length) */
    uint32_t capacity;
    uint8_t **blocks; /* block objects; capacity / block_tokens + 1 pointers */
};

struct synth {
    struct mc_engine engine; /* first: see impl.h */
    struct mc_geometry *geometry;
    struct mc_layout *layout; /* of a full block */
    uint64_t *plane_keys;     /* one per plane */
    uint64_t state_begin;
    uint32_t planes, row_size, block_tokens, ready_layers;
    double prefill_ns_per_token, decode_ns_per_step;
    struct synth_seq *seqs;
    uint32_t sequences_max;
    float *logits; /* sequences_max vectors of vocab_size */
    char model[64];
};

static struct synth *synth_of(const struct mc_engine *engine)
{
    return (struct synth *)(uintptr_t)engine;
}

/* ---- the function that stands for a model ---- */

static uint64_t next_state(uint64_t state, uint32_t token, uint32_t position)
{
    return hash_mix(state ^ hash_mix(((uint64_t)position << 32 | token) + 0x9e3779b97f4a7c15ull));
}

/* Word `i` of a row. An odd step through a bijection: all words of a row differ. */
static inline uint64_t row_word(uint64_t key, uint32_t i)
{
    return hash_mix(key + i * 0x9e3779b97f4a7c15ull);
}

static void row_fill(uint8_t *row, uint64_t key, uint32_t row_size)
{
    for (uint32_t i = 0; i < row_size / 8; i++)
        le64_put(row + 8 * i, row_word(key, i));
}

/* Sum over the words of a row, and whether every one is what it must be. */
static bool row_check(const uint8_t *row, uint64_t key, uint32_t row_size, uint64_t *sum)
{
    uint64_t wrong = 0, total = 0;

    for (uint32_t i = 0; i < row_size / 8; i++) {
        uint64_t word = le64_get(row + 8 * i);

        wrong |= word ^ row_word(key, i);
        total += word;
    }
    *sum = hash_mix(*sum + total);
    return wrong == 0;
}

static uint64_t row_key(const struct synth *synth, uint64_t state, uint32_t plane)
{
    return state ^ synth->plane_keys[plane];
}

/* Row of position `row` of plane `plane` in an object of that layout. */
static size_t row_offset(const struct synth *synth, const struct mc_layout *layout, uint32_t plane, uint32_t row)
{
    return (size_t)mc_layout_plane(layout, plane).offset + (size_t)row * synth->row_size;
}

/* Say which byte is wrong: this is what the engine is for. */
static enum mc_status corrupt(
    const struct synth *synth, const char *when, uint32_t seq, uint32_t position, uint32_t plane)
{
    const struct mc_plane *p = mc_geometry_plane(synth->geometry, plane);

    log_error("engine synthetic: %s: wrong kv bytes in sequence %u layer %u plane %s position %u block %u", when, seq,
        p->layer, p->name, position, position / synth->block_tokens);
    return MC_ECORRUPT;
}

/* Check all rows of [0, length) and sum them. */
static enum mc_status sum_rows(
    const struct synth *synth, const char *when, uint32_t seq, uint32_t length, uint64_t *sum)
{
    const struct synth_seq *s = &synth->seqs[seq];

    *sum = synth->state_begin;
    for (uint32_t first = 0; first < length; first += synth->block_tokens) {
        uint32_t rows = length - first < synth->block_tokens ? length - first : synth->block_tokens;
        const uint8_t *block = s->blocks[first / synth->block_tokens];

        for (uint32_t plane = 0; plane < synth->planes; plane++) {
            const uint8_t *row = block + row_offset(synth, synth->layout, plane, 0);

            for (uint32_t r = 0; r < rows; r++, row += synth->row_size)
                if (!row_check(row, row_key(synth, s->states[first + r], plane), synth->row_size, sum))
                    return corrupt(synth, when, seq, first + r, plane);
        }
    }
    return MC_OK;
}

/* ---- from the sum to the next token ---- */

static bool is_word(uint32_t token)
{
    return token >= VOCAB_WORDS;
}

static bool is_chinese(uint32_t token)
{
    uint32_t count, first = vocab_chinese(&count);

    return token == VOCAB_STOP_ZH || token >= first || (token >= 0xe4 && token <= 0xe9);
}

/* Words in a row that end at tokens[length - 1]. */
static uint32_t words_behind(const uint32_t *tokens, uint32_t length)
{
    uint32_t count = 0;

    while (count < length && count < SENTENCE_WORDS_MAX && is_word(tokens[length - 1 - count]))
        count++;
    return count;
}

static uint32_t choose(const uint32_t *tokens, uint32_t length, uint64_t sum)
{
    uint32_t last = tokens[length - 1], words, first, count;
    bool chinese = false;

    if (last == VOCAB_STOP_EN || last == VOCAB_STOP_ZH) {
        if (words_behind(tokens, length - 1) >= SENTENCE_WORDS_MIN && sum % 3 == 0)
            return VOCAB_IM_END;
    }
    for (uint32_t i = 1; i <= length && i <= LANGUAGE_WINDOW && !chinese; i++)
        chinese = is_chinese(tokens[length - i]);
    words = words_behind(tokens, length);
    if (words >= SENTENCE_WORDS_MAX || (words >= SENTENCE_WORDS_MIN && sum % 4 == 0))
        return chinese ? VOCAB_STOP_ZH : VOCAB_STOP_EN;
    first = chinese ? vocab_chinese(&count) : vocab_english(&count);
    uint32_t token = first + (uint32_t)((sum >> 8) % count);
    return token == last ? first + (token - first + 1) % count : token;
}

static void fill_logits(const uint32_t *tokens, uint32_t length, uint64_t sum, float *logits)
{
    uint32_t chosen = choose(tokens, length, sum);

    for (uint32_t token = 0; token < vocab_size(); token++)
        logits[token] = is_word(token) ? (float)(hash_mix(sum + token) >> 40) / (float)(1 << 22) : -20.0f; /* 0..4 */
    logits[chosen] = 12.0f;
}

/* ---- memory of a sequence ---- */

static void seq_clear(struct mc_engine *engine, uint32_t seq)
{
    struct synth *synth = synth_of(engine);
    struct synth_seq *s = &synth->seqs[seq];

    for (uint32_t i = 0; s->blocks && i <= s->capacity / synth->block_tokens; i++)
        free(s->blocks[i]);
    free(s->blocks);
    free(s->tokens);
    free(s->states);
    *s = (struct synth_seq){0};
}

/* Make room for `length` tokens; blocks become zeroed objects, so that padding is zero. */
static enum mc_status reserve(struct synth *synth, struct synth_seq *s, uint32_t length)
{
    if (length > s->capacity) {
        uint32_t capacity = (length + length / 2 + synth->block_tokens) / synth->block_tokens * synth->block_tokens;
        size_t old = s->blocks ? s->capacity / synth->block_tokens + 1 : 0, all = capacity / synth->block_tokens + 1;
        uint32_t *tokens = realloc(s->tokens, capacity * sizeof *tokens);
        uint64_t *states = tokens ? realloc(s->states, capacity * sizeof *states) : NULL;
        uint8_t **blocks = states ? realloc(s->blocks, all * sizeof *blocks) : NULL;

        s->tokens = tokens ? tokens : s->tokens;
        s->states = states ? states : s->states;
        if (!blocks)
            return MC_ENOMEM;
        memset(blocks + old, 0, (all - old) * sizeof *blocks);
        s->blocks = blocks;
        s->capacity = capacity;
    }
    for (uint32_t i = 0; i < (length + synth->block_tokens - 1) / synth->block_tokens; i++) {
        if (!s->blocks[i])
            s->blocks[i] = calloc(1, (size_t)mc_layout_size(synth->layout));
        if (!s->blocks[i])
            return MC_ENOMEM;
    }
    return MC_OK;
}

static void set_token(const struct synth *synth, struct synth_seq *s, uint32_t position, uint32_t token)
{
    s->tokens[position] = token;
    s->states[position] = next_state(position ? s->states[position - 1] : synth->state_begin, token, position);
}

/* "Compute" the rows of one token. */
static void compute(const struct synth *synth, struct synth_seq *s, uint32_t position, uint32_t token)
{
    uint8_t *block = s->blocks[position / synth->block_tokens];

    set_token(synth, s, position, token);
    for (uint32_t plane = 0; plane < synth->planes; plane++)
        row_fill(block + row_offset(synth, synth->layout, plane, position % synth->block_tokens),
            row_key(synth, s->states[position], plane), synth->row_size);
}

/* ---- time ---- */

/* Sleep until `until_ns`; false if cancelled meanwhile. */
static bool sleep_until(uint64_t until_ns, const int *cancel)
{
    for (;;) {
        uint64_t now = now_ns(), step = until_ns;

        if (cancel && __atomic_load_n(cancel, __ATOMIC_RELAXED))
            return false;
        if (now >= until_ns)
            return true;
        if (cancel && step > now + SLEEP_SLICE_MS * NS_PER_MS)
            step = now + SLEEP_SLICE_MS * NS_PER_MS;
        struct timespec ts = {.tv_sec = (time_t)(step / NS_PER_S), .tv_nsec = (long)(step % NS_PER_S)};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
    }
}

/* ---- slots ---- */

/* Compare a block with what its tokens must give. Bytes of padding must be zero: they are hashed and stored as well. */
static enum mc_status import_check(const struct synth *synth, const struct synth_seq *s, uint32_t seq, uint32_t first,
    const struct mc_block_in *block, const struct mc_layout *layout)
{
    const uint8_t *bytes = block->bytes;
    uint64_t sum = 0;

    for (uint32_t plane = 0; plane < synth->planes; plane++) {
        const uint8_t *row = bytes + row_offset(synth, layout, plane, 0);
        uint64_t end = plane + 1 < synth->planes ? mc_layout_plane(layout, plane + 1).offset : mc_layout_size(layout);

        for (uint32_t r = 0; r < block->rows; r++, row += synth->row_size)
            if (!row_check(row, row_key(synth, s->states[first + r], plane), synth->row_size, &sum))
                return corrupt(synth, "import", seq, first + r, plane);
        for (; row < bytes + end; row++)
            if (*row)
                return corrupt(synth, "import, padding", seq, first + block->rows - 1, plane);
    }
    return MC_OK;
}

static enum mc_status import_one(
    struct synth *synth, uint32_t seq, uint32_t first, const struct mc_block_in *block, const struct mc_layout *layout)
{
    struct synth_seq *s = &synth->seqs[seq];
    enum mc_status st = reserve(synth, s, first + block->rows);
    uint8_t *own;

    if (st != MC_OK)
        return st;
    for (uint32_t r = 0; r < block->rows; r++)
        set_token(synth, s, first + r, block->tokens[r]);
    st = import_check(synth, s, seq, first, block, layout);
    if (st != MC_OK)
        return st;
    own = s->blocks[first / synth->block_tokens];
    for (uint32_t plane = 0; plane < synth->planes; plane++)
        memcpy(own + row_offset(synth, synth->layout, plane, 0),
            (const uint8_t *)block->bytes + row_offset(synth, layout, plane, 0), (size_t)block->rows * synth->row_size);
    return MC_OK;
}

static enum mc_status import_blocks(struct mc_engine *engine, uint32_t seq, uint32_t length,
    const struct mc_block_in *blocks, size_t block_count, size_t *imported)
{
    struct synth *synth = synth_of(engine);
    enum mc_status st = MC_OK;

    *imported = 0;
    for (size_t i = 0; i < block_count && st == MC_OK; i++) {
        struct mc_layout *part = NULL;

        if (blocks[i].rows != synth->block_tokens)
            st = mc_layout_create(synth->geometry, blocks[i].rows, &part);
        if (st == MC_OK)
            st = import_one(synth, seq, length, &blocks[i], part ? part : synth->layout);
        mc_layout_destroy(part);
        length += blocks[i].rows;
        *imported += st == MC_OK;
    }
    return st;
}

/* Announce a block that became full, in the portions the options ask for. */
static void announce(struct synth *synth, uint32_t seq, uint32_t block, mc_block_ready_fn *ready, void *arg)
{
    uint32_t layers = mc_geometry_layers(synth->geometry);
    uint32_t step = synth->ready_layers && synth->ready_layers < layers ? synth->ready_layers : layers;

    for (uint32_t layer = 0; layer < layers; layer += step)
        ready(arg, &synth->engine, seq, block, layer, layers - layer < step ? layers - layer : step);
}

static enum mc_status prefill(struct mc_engine *engine, uint32_t seq, uint32_t length, const uint32_t *tokens,
    uint32_t count, mc_block_ready_fn *ready, void *arg, const int *cancel, const float **logits)
{
    struct synth *synth = synth_of(engine);
    struct synth_seq *s = &synth->seqs[seq];
    uint64_t begin = now_ns(), sum;
    enum mc_status st = sum_rows(synth, "prefill", seq, length, &sum);

    if (st == MC_OK)
        st = reserve(synth, s, length + count);
    if (st != MC_OK)
        return st;
    for (uint32_t i = 0; i < count; i++) {
        compute(synth, s, length + i, tokens[i]);
        bool full = (length + i + 1) % synth->block_tokens == 0;
        if (!full && i + 1 < count)
            continue;
        if (!sleep_until(begin + (uint64_t)((i + 1) * synth->prefill_ns_per_token), cancel))
            return MC_ECANCELED;
        if (full && ready)
            announce(synth, seq, (length + i) / synth->block_tokens, ready, arg);
    }
    if (!logits)
        return MC_OK;
    st = sum_rows(synth, "prefill", seq, length + count, &sum);
    if (st != MC_OK)
        return st;
    fill_logits(s->tokens, length + count, sum, synth->logits);
    *logits = synth->logits;
    return MC_OK;
}

static enum mc_status export_layers(struct mc_engine *engine, uint32_t seq, uint32_t block_index, uint32_t layer_first,
    uint32_t layer_count, void *dst, size_t size)
{
    struct synth *synth = synth_of(engine);
    struct mc_byte_range range;
    enum mc_status st = mc_layout_layers(synth->layout, layer_first, layer_count, &range);

    if (st != MC_OK)
        return st;
    assert(range.length == size);
    memcpy(dst, synth->seqs[seq].blocks[block_index] + range.offset, size);
    return MC_OK;
}

static enum mc_status decode(
    struct mc_engine *engine, struct mc_decode_slot *slots, const uint32_t *lengths, size_t slot_count)
{
    struct synth *synth = synth_of(engine);
    uint64_t begin = now_ns(), sum;

    for (size_t i = 0; i < slot_count; i++) {
        struct mc_decode_slot *slot = &slots[i];
        struct synth_seq *s = &synth->seqs[slot->seq];

        slot->status = reserve(synth, s, lengths[i] + 1);
        if (slot->status != MC_OK)
            continue;
        compute(synth, s, lengths[i], slot->token);
        slot->status = sum_rows(synth, "decode", slot->seq, lengths[i] + 1, &sum);
        if (slot->status != MC_OK)
            continue;
        float *logits = synth->logits + i * vocab_size();
        fill_logits(s->tokens, lengths[i] + 1, sum, logits);
        slot->logits = logits;
    }
    sleep_until(begin + (uint64_t)synth->decode_ns_per_step, NULL);
    return MC_OK;
}

static void set_threads(struct mc_engine *engine, uint32_t threads)
{
    (void)engine; /* one thread is all there is */
    (void)threads;
}

/* ---- text ---- */

static enum mc_status tokenize(const struct mc_engine *engine, const char *text, size_t length, uint32_t flags,
    uint32_t *tokens, size_t tokens_max, size_t *count)
{
    bool special = flags & MC_TOKENIZE_SPECIAL;
    size_t n = 0, matched = 0;

    (void)engine;
    if (flags & MC_TOKENIZE_BOS && !(length && vocab_match(text, length, special, &matched) == VOCAB_BOS)) {
        if (n < tokens_max)
            tokens[n] = VOCAB_BOS;
        n++;
    }
    for (size_t at = 0; at < length; at += matched) {
        uint32_t token = vocab_match(text + at, length - at, special, &matched);

        if (n < tokens_max)
            tokens[n] = token;
        n++;
    }
    *count = n;
    return n <= tokens_max ? MC_OK : MC_ETOOBIG;
}

static enum mc_status piece(
    const struct mc_engine *engine, uint32_t token, bool special, char *dst, size_t size, size_t *length)
{
    size_t n;
    const char *text = vocab_text(token, &n);

    (void)engine;
    if (vocab_is_control(token) && !special)
        n = 0;
    if (n > size)
        return MC_ETOOBIG;
    memcpy(dst, text, n);
    *length = n;
    return MC_OK;
}

static bool is_end(const struct mc_engine *engine, uint32_t token)
{
    (void)engine;
    return token == VOCAB_EOS || token == VOCAB_IM_END;
}

/* ChatML, as it is this engine's own template. */
static enum mc_status chat(const struct mc_engine *engine, const struct mc_chat_message *messages, size_t message_count,
    bool open_answer, char *dst, size_t size, size_t *length)
{
    struct buf text;
    enum mc_status st;

    (void)engine;
    buf_init(&text, SIZE_MAX);
    for (size_t i = 0; i < message_count; i++) {
        buf_append_str(&text, "<|im_start|>");
        buf_append_str(&text, messages[i].role);
        buf_append_str(&text, "\n");
        buf_append_str(&text, messages[i].content);
        buf_append_str(&text, "<|im_end|>\n");
    }
    if (open_answer)
        buf_append_str(&text, "<|im_start|>assistant\n");
    st = buf_status(&text);
    if (st == MC_OK) {
        *length = text.len;
        if (text.len <= size)
            memcpy(dst, text.data, text.len);
        else
            st = MC_ETOOBIG;
    }
    buf_fini(&text);
    return st;
}

/* ---- open and close ---- */

static void close_engine(struct mc_engine *engine)
{
    struct synth *synth = synth_of(engine);

    for (uint32_t i = 0; synth->seqs && i < synth->sequences_max; i++)
        seq_clear(engine, i);
    free(synth->seqs);
    free(synth->logits);
    free(synth->plane_keys);
    mc_layout_destroy(synth->layout);
    mc_geometry_destroy(synth->geometry);
    free(synth);
}

/* Everything that changes a byte of KV goes into the model hash. */
static void fill_record(struct synth *synth, const struct mc_engine_options *o, uint32_t layers)
{
    struct mc_fp_record *rec = &synth->engine.record;
    uint8_t model[8 + 4 + 4];
    struct sha256_state *sha = sha256_create();

    strcpy(rec->engine, "synthetic");
    strcpy(rec->engine_version, "1");
    strcpy(rec->model_arch, "synthetic");
    strcpy(rec->k_type, "bytes");
    strcpy(rec->v_type, "bytes");
    strcpy(rec->rope_type, "none");
    rec->rope_scale = 1;
    rec->layers = layers;
    rec->kv_heads = 1;
    rec->head_dim = synth->row_size;
    rec->block_tokens = o->block_tokens;
    mc_geometry_hash(synth->geometry, rec->geometry_hash);
    le64_put(model, o->seed);
    le32_put(model + 8, layers);
    le32_put(model + 12, synth->row_size);
    sha256(model, sizeof model, rec->model_hash);
    if (!sha)
        abort(); /* a few hundred bytes at start */
    for (uint32_t token = 0; token < vocab_size(); token++) {
        size_t length;
        const char *text = vocab_text(token, &length);

        sha256_add(sha, text, length + 1);
    }
    sha256_finish(sha, rec->tokenizer_hash);
    sha256_destroy(sha);
}

static enum mc_status open_engine(
    const struct mc_engine_options *o, struct mc_engine **engine, char *err, size_t err_size)
{
    uint32_t layers = o->layers ? o->layers : LAYERS_DEFAULT;
    struct mc_fingerprint fp;
    struct synth *synth;
    enum mc_status st;

    vocab_open();
    synth = calloc(1, sizeof *synth);
    if (!synth)
        return MC_ENOMEM;
    synth->engine.ops = &engine_synthetic_ops;
    synth->row_size = o->row_size ? o->row_size : ROW_SIZE_DEFAULT;
    synth->block_tokens = o->block_tokens;
    synth->ready_layers = o->ready_layers;
    synth->sequences_max = o->sequences_max;
    synth->prefill_ns_per_token = o->prefill_tokens_per_s > 0 ? 1e9 / o->prefill_tokens_per_s : 0;
    synth->decode_ns_per_step = o->decode_ms_per_step * 1e6;
    st = synth->row_size % 8 ? MC_EINVAL
                             : mc_geometry_create_kv(layers, synth->row_size, synth->row_size, &synth->geometry);
    if (st != MC_OK) {
        errtext(err, err_size,
            "engine synthetic: %u layers of rows of %u bytes: at most %d layers, a multiple of 8 bytes", layers,
            synth->row_size, MC_LAYERS_MAX);
        goto undo;
    }
    synth->planes = (uint32_t)mc_geometry_plane_count(synth->geometry);
    st = mc_layout_create(synth->geometry, synth->block_tokens, &synth->layout);
    if (st != MC_OK)
        goto undo;
    synth->seqs = calloc(o->sequences_max, sizeof *synth->seqs);
    synth->plane_keys = calloc(synth->planes, sizeof *synth->plane_keys);
    synth->logits = calloc((size_t)o->sequences_max * vocab_size(), sizeof *synth->logits);
    if (!synth->seqs || !synth->plane_keys || !synth->logits) {
        st = MC_ENOMEM;
        goto undo;
    }
    fill_record(synth, o, layers);
    st = mc_fp_record_hash(&synth->engine.record, &fp);
    if (st != MC_OK)
        goto undo;
    synth->state_begin = le64_get(fp.bytes);
    for (uint32_t plane = 0; plane < synth->planes; plane++)
        synth->plane_keys[plane] = hash_mix(le64_get(fp.bytes + 8) + plane);

    struct mc_engine_info *info = &synth->engine.info;
    errtext(synth->model, sizeof synth->model, "%s", o->model_name ? o->model_name : "synthetic");
    info->engine = "synthetic";
    info->engine_version = synth->engine.record.engine_version;
    info->model = synth->model;
    info->context_tokens = o->context_tokens;
    info->sequence_tokens_max = o->context_tokens;
    info->vocab_size = vocab_size();
    info->geometry = synth->geometry;
    info->verifies = true;
    *engine = &synth->engine;
    return MC_OK;
undo:
    close_engine(&synth->engine);
    return st;
}

const struct mc_engine_ops engine_synthetic_ops = {
    .name = "synthetic",
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
