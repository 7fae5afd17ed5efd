/* gguf_model.c - from the metadata of a model file to the shape of its KVCache.
 *
 * Keys are "<architecture>.<what>", as llama.cpp writes them. What a file leaves out is derived as llama.cpp derives it:
 * head dimension = embedding / heads, kv heads = heads. Values are checked for sense, as geometry and memory follow. */
#include <stdlib.h>
#include <string.h>

#include "kvcache/errtext.h"
#include "kvcache/gguf.h"

enum {
    HEADS_MAX = 65536,
    DIM_MAX = 65536,
};

/* "<arch>.<what>" as a key of at most 160 bytes: architecture names are short, and cut ones simply find nothing. */
struct key {
    char text[160];
};

static struct key key_of(const char *arch, const char *what)
{
    struct key key;

    snprintf(key.text, sizeof key.text, "%s.%s", arch, what);
    return key;
}

/* A string value as a C string, cut to fit; "" if absent. */
static void text_of(const struct mc_gguf *gguf, const char *key, char *dst, size_t size)
{
    const char *text;
    size_t length;

    dst[0] = 0;
    if (mc_gguf_string(gguf, key, &text, &length) != MC_OK)
        return;
    if (length >= size)
        length = size - 1;
    memcpy(dst, text, length);
    dst[length] = 0;
}

/* An integer of the model: absent = fallback (0: it must be there), and within 1..max. False: err says why. */
static bool number_of(const struct mc_gguf *gguf, const char *arch, const char *what, uint64_t fallback, uint64_t max,
    uint64_t *value, char *err, size_t err_size)
{
    struct key key = key_of(arch, what);
    enum mc_status st = mc_gguf_u64(gguf, key.text, value);

    if (st == MC_ENOENT && fallback) {
        *value = fallback;
    } else if (st != MC_OK) {
        errtext(err, err_size, "gguf: field %s: %s", key.text, st == MC_ENOENT ? "missing" : "not a number");
        return false;
    }
    if (*value == 0 || *value > max) {
        errtext(err, err_size, "gguf: field %s: %llu is out of range 1 to %llu", key.text, (unsigned long long)*value,
            (unsigned long long)max);
        return false;
    }
    return true;
}

/* head_count_kv of one layer: a number, or an array with a number per layer. 0 is legal in an array (no attention). */
static bool kv_heads_of(const struct mc_gguf *gguf, const struct mc_gguf_model *model, uint32_t layer, uint64_t *heads,
    char *err, size_t err_size)
{
    struct key key = key_of(model->arch, "attention.head_count_kv");
    enum mc_status st = mc_gguf_u64(gguf, key.text, heads);

    if (st == MC_EMISMATCH)
        st = mc_gguf_array_u64(gguf, key.text, layer, heads);
    if (st == MC_ENOENT) {
        *heads = model->heads;
        st = MC_OK;
    }
    if (st != MC_OK || *heads > HEADS_MAX) {
        errtext(err, err_size, "gguf: field %s: no sensible number for layer %u", key.text, layer);
        return false;
    }
    return true;
}

static bool heads_of(const struct mc_gguf *gguf, struct mc_gguf_model *model, char *err, size_t err_size)
{
    struct key key = key_of(model->arch, "attention.head_count");
    enum mc_gguf_type element;
    uint64_t count, heads, most = 0;

    if (mc_gguf_array(gguf, key.text, &element, &count) == MC_OK) {
        for (uint64_t i = 0; i < count && i < MC_LAYERS_MAX; i++)
            if (mc_gguf_array_u64(gguf, key.text, i, &heads) == MC_OK && heads <= HEADS_MAX && heads > most)
                most = heads;
    } else if (!number_of(gguf, model->arch, "attention.head_count", 0, HEADS_MAX, &most, err, err_size)) {
        return false;
    }
    if (most == 0) {
        errtext(err, err_size, "gguf: field %s: no sensible number", key.text);
        return false;
    }
    model->heads = (uint32_t)most;
    most = 0;
    for (uint32_t layer = 0; layer < model->layers; layer++) {
        if (!kv_heads_of(gguf, model, layer, &heads, err, err_size))
            return false;
        if (heads > most)
            most = heads;
    }
    model->kv_heads = (uint32_t)most;
    return true;
}

static bool dims_of(const struct mc_gguf *gguf, struct mc_gguf_model *model, char *err, size_t err_size)
{
    uint64_t embedding, fallback, k_dim, v_dim, lora, rotated;

    if (!number_of(gguf, model->arch, "embedding_length", 0, 1 << 20, &embedding, err, err_size))
        return false;
    fallback = embedding / model->heads ? embedding / model->heads : 1;
    if (!number_of(gguf, model->arch, "attention.key_length", fallback, DIM_MAX, &k_dim, err, err_size) ||
        !number_of(gguf, model->arch, "attention.value_length", fallback, DIM_MAX, &v_dim, err, err_size))
        return false;
    model->k_dim = (uint32_t)k_dim;
    model->v_dim = (uint32_t)v_dim;
    if (mc_gguf_u64(gguf, key_of(model->arch, "attention.kv_lora_rank").text, &lora) == MC_OK && lora) {
        if (lora > DIM_MAX) {
            errtext(err, err_size, "gguf: field %s.attention.kv_lora_rank: %llu is out of range", model->arch,
                (unsigned long long)lora);
            return false;
        }
        if (!number_of(gguf, model->arch, "rope.dimension_count", 0, DIM_MAX, &rotated, err, err_size))
            return false;
        model->latent_dim = (uint32_t)(lora + rotated);
        model->v_dim = 0;
    }
    return true;
}

static void rope_of(const struct mc_gguf *gguf, struct mc_gguf_model *model)
{
    double factor;

    model->rope_base = 10000;
    model->rope_scale = 1;
    mc_gguf_f64(gguf, key_of(model->arch, "rope.freq_base").text, &model->rope_base);
    if (mc_gguf_f64(gguf, key_of(model->arch, "rope.scaling.factor").text, &factor) == MC_OK && factor > 0)
        model->rope_scale = 1 / factor;
    else if (mc_gguf_f64(gguf, key_of(model->arch, "rope.scale_linear").text, &factor) == MC_OK && factor > 0)
        model->rope_scale = 1 / factor;
}

enum mc_status mc_gguf_model(const struct mc_gguf *gguf, struct mc_gguf_model *model, char *err, size_t err_size)
{
    struct mc_gguf_model out;
    enum mc_gguf_type element;
    const char *text;
    size_t length;
    uint64_t number;

    memset(&out, 0, sizeof out);
    text_of(gguf, "general.architecture", out.arch, sizeof out.arch);
    if (!out.arch[0]) {
        errtext(err, err_size, "gguf: field general.architecture: missing");
        return MC_EPROTO;
    }
    text_of(gguf, "general.name", out.name, sizeof out.name);
    text_of(gguf, "tokenizer.ggml.model", out.tokenizer, sizeof out.tokenizer);
    out.has_chat_template = mc_gguf_string(gguf, "tokenizer.chat_template", &text, &length) == MC_OK && length;
    if (!number_of(gguf, out.arch, "block_count", 0, MC_LAYERS_MAX, &number, err, err_size))
        return MC_EPROTO;
    out.layers = (uint32_t)number;
    if (!number_of(gguf, out.arch, "context_length", 0, 1ull << 31, &out.context_tokens, err, err_size))
        return MC_EPROTO;
    out.recurrent = gguf_any_key(gguf, ".ssm.") || gguf_any_key(gguf, ".wkv.") || gguf_any_key(gguf, ".shortconv.");
    if (!heads_of(gguf, &out, err, err_size) || !dims_of(gguf, &out, err, err_size))
        return MC_EPROTO;
    rope_of(gguf, &out);
    if (mc_gguf_u64(gguf, key_of(out.arch, "attention.sliding_window").text, &number) == MC_OK)
        out.sliding_window = number < UINT32_MAX ? (uint32_t)number : UINT32_MAX;
    if (mc_gguf_array(gguf, "tokenizer.ggml.tokens", &element, &number) == MC_OK && number < UINT32_MAX)
        out.vocab_size = (uint32_t)number;
    *model = out;
    return MC_OK;
}

/* Row bytes of `heads` heads of `dim` elements; 0 if the type does not fit. */
static uint64_t row_size(uint64_t heads, uint64_t dim, const struct mc_dtype *type)
{
    return heads * dim % type->block_elements ? 0 : heads * dim / type->block_elements * type->block_size;
}

enum mc_status mc_gguf_geometry(const struct mc_gguf *gguf, const char *k_type, const char *v_type,
    struct mc_geometry **geometry, char *err, size_t err_size)
{
    const struct mc_dtype *k = mc_dtype_find(k_type), *v = mc_dtype_find(v_type);
    struct mc_gguf_model model;
    struct mc_plane *planes;
    enum mc_status st;
    size_t count = 0;

    if (!k || !v) {
        errtext(err, err_size, "element type %s is not known", k ? v_type : k_type);
        return MC_EINVAL;
    }
    st = mc_gguf_model(gguf, &model, err, err_size);
    if (st != MC_OK)
        return st;
    if (model.recurrent) {
        errtext(err, err_size, "model '%s' has recurrent layers, which have no rows per token", model.arch);
        return MC_ENOSUP;
    }
    planes = calloc(2 * model.layers, sizeof *planes);
    if (!planes)
        return MC_ENOMEM;
    for (uint32_t layer = 0; layer < model.layers; layer++) {
        uint64_t heads;

        if (!kv_heads_of(gguf, &model, layer, &heads, err, err_size)) {
            free(planes);
            return MC_EPROTO;
        }
        uint64_t k_row = model.latent_dim ? row_size(1, model.latent_dim, k) : row_size(heads, model.k_dim, k);
        uint64_t v_row = model.latent_dim ? 0 : row_size(heads, model.v_dim, v);
        struct mc_plane *plane = &planes[count++];

        *plane = (struct mc_plane){.layer = layer, .rows_per_token = 1, .name = "k"};
        plane->row_size = k_row <= MC_ROW_SIZE_MAX ? (uint32_t)k_row : 0; /* 0 is refused by create */
        if (model.latent_dim) {
            strcpy(plane->name, "latent");
            continue;
        }
        planes[count] = *plane;
        planes[count].row_size = v_row <= MC_ROW_SIZE_MAX ? (uint32_t)v_row : 0;
        strcpy(planes[count++].name, "v");
    }
    st = mc_geometry_create(planes, count, geometry);
    free(planes);
    if (st == MC_EINVAL) {
        errtext(err, err_size, "gguf: model '%s': K or V rows have no possible size in %s and %s", model.arch, k_type,
            v_type);
        st = MC_EPROTO;
    }
    return st;
}
