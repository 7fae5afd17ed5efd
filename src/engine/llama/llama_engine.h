/* llama_engine.h - the parts of llama.cpp as an engine, and what its files share.
 *
 *   model, vocab   one of each per engine; read by any thread (tokenising), never changed
 *   context        one; cells shared by all sequences (kv_unified), flash attention on (so that V rows lie like K rows and a
 *                  block is a run of rows), f16; only the engine thread touches it
 *   sequence ids   ours 0..sequences_max-1, and two more: `scratch`, through which blocks go in and out, and `plug`, which
 *                  occupies cells nobody may use, so that each sequence lies in pages of its own (cellmap.h says why)
 *
 *     llama.c     open, close, the table of the engine's calls       cells.c    cells for tokens, taken and given back
 *     identity.c  version, name and fingerprint record               compute.c  prefill and decode
 *     try_out.c   is this library's state of the form we know        blocks.c   export and import
 *     text.c      tokens, pieces, chat template                      say.c      log lines, ours and the library's
 *
 * Facts these files rest on, measured, README.md has more: set_data empties its destination even when it fails (hence
 * scratch); gaps and blocks merged twice are not detected (core.c does); scratch must be below n_seq_max; cells must go in
 * ascending order of position for bit-equal logits; everything on one thread.
 *
 * API: only calls and fields that have been there for long are used, so that other tags of llama.cpp build (b6673, a year
 * older, passes the same tests); what may differ silently, the form of the blob, is tried out at open.
 *
 * Threads: as engine.h; `engine thread` for all that is declared here, except text and say. */
#ifndef LLAMA_ENGINE_H
#define LLAMA_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <llama.h>

#include "engine/impl.h"
#include "engine/llama/cellmap.h"
#include "engine/llama/kvblob.h"

enum {
    IMPORT_CELLS_MAX = 512, /* tokens per set_data: 11.8 MB for SmolLM2; more gains nothing (README.md) */
    SAY_LINE_MAX = 512,
};

/* A step's slots in the order of their cells: the library fills free cells from the lowest up. */
struct step {
    uint32_t cell, slot;
};

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

static inline struct llama_engine *llama_of(const struct mc_engine *engine)
{
    return (struct llama_engine *)(uintptr_t)engine;
}

/* ---- say.c ---- */

enum { SAY_ERROR, SAY_WARN, SAY_INFO, SAY_DEBUG };

/* Where lines go; before anything else. */
void say_to(const struct mc_engine_host *host);
/* One line to the host's log. Any thread. */
void say(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The library's callback. Any thread. */
void say_library(enum ggml_log_level level, const char *text, void *arg);
/* The library's last error line, which is forgotten. Any thread. */
void say_last_error(char *line, size_t size);
/* A decode was told to abort / has returned: what the library says of it in between is no error. */
void say_aborting(bool begins);

/* ---- cells.c ---- */

/* Occupy free cells [first, first + count), the lowest free ones, with rows of zeros. */
enum mc_status cells_plug(struct llama_engine *llama, uint32_t first, uint32_t count);
void cells_unplug(struct llama_engine *llama, uint32_t first, uint32_t count);

/* Make exactly the cells for tokens [length, length + count) of one sequence the lowest free ones. *top_before is needed by
 * cells_close(). A call must not begin in the middle of a page and end beyond it: pages of one call ascend, but need not lie
 * above those of earlier calls. */
enum mc_status cells_open(
    struct llama_engine *llama, uint32_t seq, uint32_t length, uint32_t count, uint32_t *top_before);
/* Tokens up to `end` are in their cells: plug the rest of the last page if it was unused before. */
enum mc_status cells_close(struct llama_engine *llama, uint32_t seq, uint32_t end, uint32_t top_before);
/* Cells opened for (or held by) tokens [length, end) are free: take tokens out of the library if they are in it, give pages
 * back, plug what lies below others. The way out of every failure, and the end of every sequence. */
void cells_cut(struct llama_engine *llama, uint32_t seq, uint32_t length, uint32_t end);

/* ---- compute.c, blocks.c, text.c: slots of struct mc_engine_ops ---- */

enum mc_status compute_prefill(struct mc_engine *engine, uint32_t seq, uint32_t length, const uint32_t *tokens,
    uint32_t count, mc_block_ready_fn *ready, void *arg, const int *cancel, const float **logits);
enum mc_status compute_decode(
    struct mc_engine *engine, struct mc_decode_slot *slots, const uint32_t *lengths, size_t slot_count);
void compute_set_threads(struct mc_engine *engine, uint32_t threads);
bool compute_abort(void *llama); /* the library's abort callback */

enum mc_status blocks_export(struct mc_engine *engine, uint32_t seq, uint32_t block_index, uint32_t layer_first,
    uint32_t layer_count, void *dst, size_t size);
enum mc_status blocks_import(struct mc_engine *engine, uint32_t seq, uint32_t length, const struct mc_block_in *blocks,
    size_t block_count, size_t *imported);
void blocks_clear(struct mc_engine *engine, uint32_t seq);

enum mc_status text_tokenize(const struct mc_engine *engine, const char *text, size_t length, uint32_t flags,
    uint32_t *tokens, size_t tokens_max, size_t *count);
enum mc_status text_piece(
    const struct mc_engine *engine, uint32_t token, bool special, char *dst, size_t size, size_t *length);
bool text_is_end(const struct mc_engine *engine, uint32_t token);
enum mc_status text_chat(const struct mc_engine *engine, const struct mc_chat_message *messages, size_t message_count,
    bool open_answer, char *dst, size_t size, size_t *length);

/* ---- at open: try_out.c, identity.c ---- */

/* Does the library's state have the form kvblob.h says? Computes one block, which warms weights and caches as well. The
 * version must be known. MC_ENOSUP: no, and `err` says at which step. */
enum mc_status try_out(struct llama_engine *llama, char *err, size_t err_size);

/* Version of the library, and the name the model is served under. */
void identity_find(struct llama_engine *llama, const struct mc_engine_options *o);
/* engine.record, but for what core.c fills. */
enum mc_status identity_record(struct llama_engine *llama, const struct mc_engine_options *o,
    const struct mc_gguf *gguf, const struct mc_gguf_model *file, char *err, size_t err_size);

#endif
