/* sizes.c - how many bytes a KVCache takes and how long they travel: the arithmetic of `mooncake calc`. */
#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "mooncake/kvcache.h"

static const struct {
    const char *alias;
    struct mc_dtype dtype;
} dtypes[] = {
    {"fp32", {"fp32", 1, 4}}, {"f32", {"fp32", 1, 4}}, {"fp16", {"fp16", 1, 2}}, {"f16", {"fp16", 1, 2}},
    {"bf16", {"bf16", 1, 2}}, {"fp8", {"fp8", 1, 1}}, {"f8", {"fp8", 1, 1}}, {"int8", {"int8", 1, 1}},
    {"q8_0", {"q8_0", 32, 34}}, /* 32 bytes and an fp16 scale */
    {"q4_0", {"q4_0", 32, 18}}, /* 16 bytes and an fp16 scale */
};

/* From the models' published config.json. DeepSeek (MLA) keeps one latent row of kv_lora_rank 512 + rope 64. */
static const struct mc_kv_shape common_models[] = {
    {"SmolLM2-135M", 30, 3, 64, 64, "fp16"},
    {"Qwen2.5-0.5B", 24, 2, 64, 64, "fp16"},
    {"LLaMA3.2-1B", 16, 8, 64, 64, "fp16"},
    {"LLaMA3-8B", 32, 8, 128, 128, "fp16"},
    {"Mistral-7B", 32, 8, 128, 128, "fp16"},
    {"Qwen2.5-7B", 28, 4, 128, 128, "fp16"},
    {"Qwen2.5-32B", 64, 8, 128, 128, "fp16"},
    {"Qwen3-8B", 36, 8, 128, 128, "fp16"},
    {"Qwen3-32B", 64, 8, 128, 128, "fp16"},
    {"Mixtral-8x7B", 32, 8, 128, 128, "fp16"},
    {"LLaMA2-70B", 80, 8, 128, 128, "fp16"},
    {"LLaMA3-70B", 80, 8, 128, 128, "fp16"},
    {"LLaMA3.1-405B", 126, 8, 128, 128, "fp16"},
    {"DeepSeek-V3", 61, 1, 576, 0, "bf16"},
};

const struct mc_dtype *mc_dtype_find(const char *name)
{
    for (size_t i = 0; name && i < sizeof dtypes / sizeof dtypes[0]; i++)
        if (strcasecmp(name, dtypes[i].alias) == 0)
            return &dtypes[i].dtype;
    return NULL;
}

enum mc_status mc_kv_bytes_per_token(const struct mc_kv_shape *shape, uint64_t *bytes)
{
    const struct mc_dtype *dtype = mc_dtype_find(shape->dtype);
    uint64_t k_row = (uint64_t)shape->kv_heads * shape->k_dim;
    uint64_t v_row = (uint64_t)shape->kv_heads * shape->v_dim;
    uint64_t packs, total;

    if (!dtype || shape->layers == 0 || k_row == 0)
        return MC_EINVAL;
    if (k_row % dtype->block_elements || v_row % dtype->block_elements)
        return MC_EINVAL;
    if (__builtin_add_overflow(k_row, v_row, &packs))
        return MC_EINVAL;
    packs /= dtype->block_elements;
    if (__builtin_mul_overflow(packs, (uint64_t)dtype->block_size * shape->layers, &total) || total >> 63)
        return MC_EINVAL;
    *bytes = total;
    return MC_OK;
}

double mc_kv_transfer_s(uint64_t bytes, double gbps)
{
    return (double)bytes * 8 / (gbps * 1e9);
}

enum mc_status mc_kv_tokens_parse(const char *text, uint64_t *tokens)
{
    const uint64_t limit = 1ull << 40;
    uint64_t value = 0, unit = 1;

    if (!text || !isdigit((unsigned char)*text))
        return MC_EINVAL;
    for (; isdigit((unsigned char)*text); text++) {
        value = value * 10 + (uint64_t)(*text - '0');
        if (value > limit)
            return MC_EINVAL;
    }
    if (*text == 'k' || *text == 'K')
        unit = 1024;
    else if (*text == 'm' || *text == 'M')
        unit = 1024 * 1024;
    if (unit > 1)
        text++;
    if (*text || value == 0 || value > limit / unit)
        return MC_EINVAL;
    *tokens = value * unit;
    return MC_OK;
}

const struct mc_kv_shape *mc_kv_common_model(size_t index)
{
    return index < sizeof common_models / sizeof common_models[0] ? &common_models[index] : NULL;
}
