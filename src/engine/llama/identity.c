/* identity.c - what makes two workers' blocks the same: version of the library, weights, types; and the name to serve under. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#include "base/hash.h"
#include "engine/llama/llama_engine.h"
#include "engine/llama/model_hash.h"
#include "kvcache/errtext.h"

/* Older tags do not have it: NULL there. */
const char *llama_version(void) __attribute__((weak));

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

void identity_find(struct llama_engine *llama, const struct mc_engine_options *o)
{
    find_version(llama);
    choose_name(llama, o);
}

enum mc_status identity_record(struct llama_engine *llama, const struct mc_engine_options *o,
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
