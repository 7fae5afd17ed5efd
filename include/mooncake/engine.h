/* engine.h - the inference engine behind a worker: text to tokens, tokens to KV, KV to logits.
 *
 * Two engines: "synthetic" (built in: KV bytes are a checkable function of the tokens, so a whole cluster is verified
 * without weights) and "llama" (llama.cpp, a plug-in opened with dlopen). More may come; a plug-in exports one symbol.
 *
 *   engine   one model and one context of `context_tokens` cells, shared by up to `sequences_max` sequences
 *   sequence a run of tokens 0..length-1 whose KV is in the context; it only grows, without gaps:
 *                import (KV computed elsewhere)  ->  prefill (KV computed here)  ->  decode (one token a step)
 *   block    tokens [i * block_tokens, (i+1) * block_tokens) of a sequence; its bytes lie as mc_layout says
 *
 * Bit-equality. A prefill batch ends at an absolute multiple of MC_PREFILL_QUANTUM tokens, and the remainder of the
 * prompt is a batch of its own; import at most mc_reuse_tokens_max() of a prompt. mc_engine_prefill() cuts batches so;
 * callers give it the prompt's true end. Then, for one thread count,
 *   - blocks made by prefill are the same bits whatever was imported and whatever else is in the context;
 *   - logits do not depend on how much was imported; with one thread they do not depend on the other sequences of a step
 *     either (with more, llama.cpp splits the attention of a step of one sequence, but not of several).
 *
 * Threads: one thread, the "engine thread", makes all calls on an engine, except those marked "any thread", which may
 * run at the same time as anything but close. Engine calls compute: they block for as long as that takes, bounded by one
 * chunk. They never touch network or Store. Lent pointers say until when they are valid.
 * Errors are logged once, with their cause, by the engine; the status says what the caller has to replace:
 *   MC_EINVAL     the call breaks the contract (order, gap, unknown sequence, range); nothing changed
 *   MC_EMISMATCH  length or rows of a block do not fit the geometry; nothing changed
 *   MC_ECORRUPT   block bytes are not what this fingerprint computes (synthetic can tell; llama: rows that are no finite
 *                 numbers, which no model computes)
 *   MC_ENOSPC     the context has no room for these tokens; sequences are as before
 *   MC_ECANCELED  the cancel word was set; the sequence is as it was before the call
 *   MC_ESYS       the engine failed inside; free the sequence, and if it happens again the engine */
#ifndef MOONCAKE_ENGINE_H
#define MOONCAKE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <mooncake/kvcache.h>
#include <mooncake/status.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    MC_PREFILL_QUANTUM = 64,
    MC_ENGINE_SEQUENCES_MAX = 254, /* llama.cpp: 256 with our two scratch sequences */
    MC_PIECE_SIZE_MAX = 256,       /* bytes of one token's text */
};

struct mc_engine; /* opaque to callers; an implementation has `struct mc_engine` as its first member */

/* ---- open and close ---- */

/* Start from mc_engine_options_init(). Texts are borrowed during open only. */
struct mc_engine_options {
    const char *engine; /* "synthetic" or "llama" */
    const char *
        engine_path; /* plug-in file or the folder it is in; NULL: beside the binary, then $XDG_CACHE_HOME/mooncake/engine */
    const char *model_path;  /* GGUF file; synthetic: not used */
    const char *model_name;  /* name it is served under; NULL: the model's own */
    uint32_t threads;        /* compute threads; 0: online cores */
    uint32_t context_tokens; /* cells of the context, all sequences together; 0: 8192 */
    uint32_t sequences_max;  /* 1..MC_ENGINE_SEQUENCES_MAX; 0: 16 */
    uint32_t block_tokens;   /* 0: MC_BLOCK_TOKENS_DEFAULT */
    uint32_t chunk_tokens;   /* most tokens one prefill call computes; a multiple of 64; 0: 256 */
    const char *adapter;     /* LoRA id; NULL = none. No engine takes one yet: MC_ENOSUP */

    /* synthetic only */
    double prefill_tokens_per_s; /* 0: as fast as possible */
    double decode_ms_per_step;   /* 0: as fast as possible; a step takes this long whatever its batch */
    uint64_t seed;               /* "weights": another seed is another model, with another fingerprint */
    uint32_t layers;             /* 0: 4 */
    uint32_t row_size;           /* bytes of a K and of a V row, a multiple of 8; 0: 64 */
    uint32_t ready_layers;       /* layers per ready callback; 0: all at once */
};
MC_API void mc_engine_options_init(struct mc_engine_options *options); /* zeroes, engine "synthetic" */

/* Open an engine, load its model, compute one token to warm it. Takes 0.1 s to minutes (weights). The calling thread
 * becomes the engine thread (it may hand that role over, with a happens-before). `err` (may be NULL) gets one sentence
 * for the user on failure.
 *   MC_ENOENT    no such engine, plug-in or model file        MC_EVERSION  plug-in of another ABI
 *   MC_ENOSUP    the model is of a kind that is refused (sliding window, recurrent, M-RoPE, unknown chat template...)
 *   MC_EPROTO    the model file is malformed                  MC_EINVAL    an option is out of range; err names it
 *   MC_ENOMEM    weights or context do not fit                MC_ESYS      the engine refused; its last words are in err */
MC_API enum mc_status mc_engine_open(
    const struct mc_engine_options *options, struct mc_engine **engine, char *err, size_t err_size);
/* Free everything, sequences included. NULL is allowed. No other call may be running. */
MC_API void mc_engine_close(struct mc_engine *engine);

struct mc_engine_info {
    const char *engine;           /* "llama" */
    const char *engine_version;   /* "v0.5.0" */
    const char *model;            /* name it is served under */
    uint32_t context_tokens;      /* cells, all sequences together */
    uint32_t sequence_tokens_max; /* longest sequence: least of the above and the model's trained context */
    uint32_t sequences_max;
    uint32_t vocab_size; /* token ids are 0..vocab_size-1; a logits vector has this many floats */
    uint32_t block_tokens;
    uint32_t chunk_tokens;
    uint32_t layers;
    uint32_t threads_max; /* what options.threads came to */
    uint64_t block_size;  /* bytes of a full block object */
    const struct mc_fp_record *record;
    struct mc_fingerprint fingerprint; /* of the record */
    const struct mc_geometry *geometry;
    const struct mc_layout *layout; /* of a full block */
    bool verifies;                  /* import and decode check the content of blocks (synthetic) */
};
/* Never changes; lent until close. Any thread. */
MC_API const struct mc_engine_info *mc_engine_info(const struct mc_engine *engine);

/* ---- text and tokens: any thread ---- */

enum mc_tokenize_flags {
    MC_TOKENIZE_BOS = 1, /* put the model's begin token in front, if it wants one and the text does not begin with it */
    MC_TOKENIZE_SPECIAL = 2, /* text of control tokens ("<|im_start|>") becomes those tokens; never set for user text */
};

/* Tokens of `length` bytes of UTF-8 (invalid bytes are tokenised as bytes). Any thread.
 *   MC_ETOOBIG  tokens_max is too small; *count is then what is needed (tokens untouched)
 *   MC_EINVAL   unknown flag, or more than 2^30 bytes */
MC_API enum mc_status mc_engine_tokenize(const struct mc_engine *engine, const char *text, size_t length,
    uint32_t flags, uint32_t *tokens, size_t tokens_max, size_t *count);

/* Bytes of one token's text: may be part of a UTF-8 character, may be empty (control tokens unless `special`).
 * `size` of MC_PIECE_SIZE_MAX always suffices. Not NUL-terminated. Any thread.
 *   MC_EINVAL  token >= vocab_size     MC_ETOOBIG  size too small */
MC_API enum mc_status mc_engine_piece(
    const struct mc_engine *engine, uint32_t token, bool special, char *dst, size_t size, size_t *length);

/* Is this a token that ends an answer (eos, eot, any "end of generation")? Any thread. */
MC_API bool mc_engine_is_end(const struct mc_engine *engine, uint32_t token);

struct mc_chat_message {
    const char *role;    /* "system", "user", "assistant", "tool"; NUL-terminated */
    const char *content; /* NUL-terminated UTF-8 */
};
/* The model's chat template applied to `messages`, with the assistant's opening behind it when `open_answer`. The result
 * is tokenised with MC_TOKENIZE_BOS | MC_TOKENIZE_SPECIAL. Content that spells a control token is the caller's to refuse or accept.
 * Any thread. *length is the full length, also with MC_ETOOBIG (dst too small, undefined). Not NUL-terminated.
 *   MC_EINVAL  no messages or an unknown role     MC_ENOSUP  the model has no template (a base model: use completions) */
MC_API enum mc_status mc_engine_chat(const struct mc_engine *engine, const struct mc_chat_message *messages,
    size_t message_count, bool open_answer, char *dst, size_t size, size_t *length);

/* ---- sequences: engine thread ---- */

/* A new, empty sequence. Ids are small numbers and are reused after free. MC_EBUSY: sequences_max are in use. */
MC_API enum mc_status mc_engine_seq_create(struct mc_engine *engine, uint32_t *seq);
/* Give its cells back. An id that is not in use is ignored. */
MC_API void mc_engine_seq_free(struct mc_engine *engine, uint32_t seq);
/* Tokens in it, 0 for an id not in use. */
MC_API uint32_t mc_engine_seq_length(const struct mc_engine *engine, uint32_t seq);

struct mc_engine_space {
    uint32_t sequences_used;
    uint32_t sequences_max;
    uint32_t tokens_used; /* cells taken by all sequences */
    uint32_t tokens_max;
};
MC_API struct mc_engine_space mc_engine_space(const struct mc_engine *engine);

/* ---- import: KV computed elsewhere ---- */

struct mc_block_in {
    uint32_t index;         /* block index in the sequence: must be seq_length / block_tokens, then ascending */
    uint32_t rows;          /* tokens in it: block_tokens, or fewer in the last block of a sequence's import */
    const uint32_t *tokens; /* its `rows` tokens: engines that can, check the bytes against them */
    const void *bytes;      /* object of `rows` tokens (mc_layout of that many), verified by the caller's checksums */
    size_t size;            /* must be mc_layout_size() */
};
/* Append blocks to a sequence, in order. `blocks` is borrowed during the call. *imported (set in every case, may be
 * NULL) counts the blocks that are in: the sequence is valid up to there and may be prefilled from there.
 * Importing many in one call is cheapest; one by one as they arrive is fine.
 *   MC_EINVAL     seq unknown; index not the next one (gap, twice, out of order); rows 0; after a short block
 *   MC_EMISMATCH  size is not that of `rows` tokens, rows > block_tokens
 *   MC_ECORRUPT   content check failed (engine log has layer and position)
 *   MC_ENOSPC     no room in the context     MC_ESYS  the engine refused */
MC_API enum mc_status mc_engine_import(
    struct mc_engine *engine, uint32_t seq, const struct mc_block_in *blocks, size_t block_count, size_t *imported);

/* ---- prefill and export ---- */

/* Layers [layer_first, layer_first + layer_count) of a full block are computed: take them now with mc_engine_export(),
 * or later, as long as the sequence lives. Called inside mc_engine_prefill(), on its thread, blocks and layers
 * ascending. May call mc_engine_export() and nothing else of this engine. Must not block for long: it holds up compute. */
typedef void mc_block_ready_fn(void *arg, struct mc_engine *engine, uint32_t seq, uint32_t block_index,
    uint32_t layer_first, uint32_t layer_count);

struct mc_prefill {
    uint32_t seq;
    uint32_t end;             /* tokens of the whole prompt; the sequence grows to here, in one call or several */
    const uint32_t *tokens;   /* the whole prompt from position 0, `end` of them; borrowed during the call */
    uint32_t tokens_max;      /* compute at most this many in this call (at least one quantum); 0: chunk_tokens */
    mc_block_ready_fn *ready; /* may be NULL */
    void *arg;
    const int *cancel; /* may be NULL; any thread sets it to 1 with __atomic_store_n(), seen within about a layer */
};
/* Compute from mc_engine_seq_length() towards `end`: at most one chunk, ending at a multiple of MC_PREFILL_QUANTUM, or,
 * when fewer tokens than that are left, exactly those. So a worker calls it in turn with mc_engine_decode() until the
 * length is `end`. *logits (may be NULL) gets the logits of token end-1 when the call reached `end`, NULL before; lent
 * until the next prefill, decode or free on this engine.
 *   MC_OK  progress was made: look at mc_engine_seq_length()
 *   MC_EINVAL  seq unknown, end <= its length, end > sequence_tokens_max, a token >= vocab_size
 *   MC_ECORRUPT  KV of earlier tokens does not check     MC_ENOSPC  MC_ECANCELED  MC_ESYS as above */
MC_API enum mc_status mc_engine_prefill(
    struct mc_engine *engine, const struct mc_prefill *prefill, const float **logits);

/* Copy layers [layer_first, +layer_count) of block `block_index` into `dst`, as they lie in an object of block_tokens
 * tokens: dst[0] is the first byte of mc_layout_layers(), `size` its length. Padding is written as zeros. For any full
 * block of the sequence, however it was made; also from inside a ready callback for what that call announced.
 *   MC_EINVAL  seq, block or layers not there (yet)     MC_EMISMATCH  size is not the length     MC_ESYS */
MC_API enum mc_status mc_engine_export(struct mc_engine *engine, uint32_t seq, uint32_t block_index,
    uint32_t layer_first, uint32_t layer_count, void *dst, size_t size);

/* ---- decode ---- */

struct mc_decode_slot {
    uint32_t seq;          /* in: each sequence at most once per step */
    uint32_t token;        /* in: appended at the sequence's end */
    enum mc_status status; /* out: MC_OK, or why this one failed while others went on */
    const float *logits;   /* out: of the token after; lent until the next prefill, decode or free; NULL unless MC_OK */
};
/* One step: append one token to each of `slot_count` sequences. Replaying known tokens is the same call.
 * MC_OK: look at each slot's status (MC_ECORRUPT: free that sequence; the log has layer and position).
 * Anything else: the whole step failed and no sequence grew.
 *   MC_EINVAL  no slots, seq unknown or twice or empty (prefill first), token >= vocab_size, sequence at its longest
 *   MC_ENOSPC  no room for slot_count more tokens     MC_ESYS */
MC_API enum mc_status mc_engine_decode(struct mc_engine *engine, struct mc_decode_slot *slots, size_t slot_count);

/* Threads to compute with from the next call on: 1..threads_max, clamped. Cheap enough to call before each step, so that
 * workers of a host can share a core budget. Logits are bit-equal only among calls with equal thread counts. */
MC_API void mc_engine_set_threads(struct mc_engine *engine, uint32_t threads);

/* ---- for implementers ---- */

enum { MC_ENGINE_ABI = 1 };

/* What the host gives a plug-in; lives as long as the process. */
struct mc_engine_host {
    uint32_t abi; /* MC_ENGINE_ABI of the host */
    /* level: 0 error, 1 warn, 2 info, 3 debug. One line without newline. Any thread. */
    void (*log)(int level, const char *line);
};

/* One engine. Every slot is mandatory. The wrappers above check arguments, order, gaps, lengths and limits before a slot
 * is called, keep the lengths of sequences and the count of cells, and cut prefill into batches; so a slot sees only
 * calls that keep the contract. Threads as above. `length` is the sequence's length before the call. */
struct mc_engine_ops {
    const char *name;
    /* Options are complete (no zero that means a default). Fills `engine->info` except what core.c owns. On failure
     * nothing is left behind and err holds one sentence. */
    enum mc_status (*open)(
        const struct mc_engine_options *options, struct mc_engine **engine, char *err, size_t err_size);
    void (*close)(struct mc_engine *engine);
    enum mc_status (*tokenize)(const struct mc_engine *engine, const char *text, size_t length, uint32_t flags,
        uint32_t *tokens, size_t tokens_max, size_t *count);
    enum mc_status (*piece)(
        const struct mc_engine *engine, uint32_t token, bool special, char *dst, size_t size, size_t *length);
    bool (*is_end)(const struct mc_engine *engine, uint32_t token);
    enum mc_status (*chat)(const struct mc_engine *engine, const struct mc_chat_message *messages, size_t message_count,
        bool open_answer, char *dst, size_t size, size_t *length);
    /* Sequence ids are chosen by the wrapper: 0..sequences_max-1. Forget all its tokens. Never fails. */
    void (*seq_clear)(struct mc_engine *engine, uint32_t seq);
    /* Blocks are in order and of right length, there is room. All or nothing up to *imported. */
    enum mc_status (*import)(struct mc_engine *engine, uint32_t seq, uint32_t length, const struct mc_block_in *blocks,
        size_t block_count, size_t *imported);
    /* One batch: `count` tokens at `length`; either ends at a multiple of 64 or is the remainder. On failure the sequence
     * must be left at `length`. `cancel` may be NULL. `logits` NULL: not wanted, else of the last token. `ready` may be
     * NULL, else is called for blocks that became full. */
    enum mc_status (*prefill)(struct mc_engine *engine, uint32_t seq, uint32_t length, const uint32_t *tokens,
        uint32_t count, mc_block_ready_fn *ready, void *arg, const int *cancel, const float **logits);
    enum mc_status (*export_layers)(struct mc_engine *engine, uint32_t seq, uint32_t block_index, uint32_t layer_first,
        uint32_t layer_count, void *dst, size_t size);
    /* lengths[i] is the position of slots[i].token. */
    enum mc_status (*decode)(
        struct mc_engine *engine, struct mc_decode_slot *slots, const uint32_t *lengths, size_t slot_count);
    void (*set_threads)(struct mc_engine *engine, uint32_t threads);
};

/* The one symbol a plug-in exports, named "mc_engine_plugin". MC_EVERSION if it cannot work with `host->abi`. */
typedef enum mc_status mc_engine_plugin_fn(const struct mc_engine_host *host, const struct mc_engine_ops **ops);
#define MC_ENGINE_PLUGIN_SYMBOL "mc_engine_plugin"

#ifdef __cplusplus
}
#endif
#endif
