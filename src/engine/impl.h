/* impl.h - the part of an engine that core.c and every implementation see.
 *
 * An implementation embeds `struct mc_engine` as its first member. In open() it fills ops, record, info.engine,
 * info.engine_version, info.model, info.context_tokens, info.sequence_tokens_max, info.vocab_size, info.geometry (which
 * it owns), info.verifies. core.c does the rest after open() returned.
 * Part of the plug-in ABI: a change here raises MC_ENGINE_ABI. */
#ifndef ENGINE_IMPL_H
#define ENGINE_IMPL_H

#include "mooncake/engine.h"

/* What core.c keeps of a sequence. */
struct engine_seq {
    bool used;
    bool in_step; /* scratch of mc_engine_decode(): finds a sequence that comes twice */
    uint32_t length;
};

struct mc_engine {
    const struct mc_engine_ops *ops; /* set by the implementation */
    struct mc_fp_record record;      /* set by the implementation */
    struct mc_engine_info info;      /* see above */

    /* core.c only */
    struct engine_seq *seqs; /* sequences_max */
    uint32_t *lengths;       /* sequences_max: scratch of decode */
    uint32_t sequences_used;
    uint32_t tokens_used;
    struct mc_layout *layout;
    struct { /* a prefill batch in progress: what its ready callback may export */
        bool active;
        uint32_t seq, block, layers;
    } ready;
    mc_block_ready_fn *ready_fn;
    void *ready_arg;
};

/* The built-in engine. */
extern const struct mc_engine_ops engine_synthetic_ops;

/* Find and open the plug-in of engine `name` (loader.c). *ops is valid for the process' life.
 *   MC_ENOENT  no file found, err lists where was looked     MC_EVERSION     MC_ESYS  dlopen failed, err has its words */
enum mc_status engine_plugin_load(
    const char *name, const char *engine_path, const struct mc_engine_ops **ops, char *err, size_t err_size);

#endif
