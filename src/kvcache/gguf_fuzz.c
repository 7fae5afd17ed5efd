/* gguf_fuzz.c - libFuzzer over the reader of model files: parse, then ask everything. */
#include <stdint.h>
#include <stdlib.h>

#include "mooncake/kvcache.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct mc_gguf_model model;
    struct mc_geometry *geo;
    struct mc_gguf *gguf;
    uint8_t hash[32];
    char err[300];
    double real;
    bool flag;
    uint64_t n;

    if (mc_gguf_parse(data, size, size, &gguf, err, sizeof err) != MC_OK)
        return 0;
    mc_gguf_tokenizer_hash(gguf, hash);
    mc_gguf_f64(gguf, "llama.rope.freq_base", &real);
    mc_gguf_bool(gguf, "tokenizer.ggml.add_bos_token", &flag);
    mc_gguf_array_u64(gguf, "tokenizer.ggml.token_type", 0, &n);
    if (mc_gguf_model(gguf, &model, err, sizeof err) == MC_OK &&
        mc_gguf_geometry(gguf, "f16", "q8_0", &geo, err, sizeof err) == MC_OK)
        mc_geometry_destroy(geo);
    mc_gguf_destroy(gguf);
    return 0;
}
