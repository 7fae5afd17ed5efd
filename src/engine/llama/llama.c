/* llama.c - llama.cpp as an engine: the plug-in engine-llama.so. Open, close and the table of calls; llama_engine.h has the
 * parts and the other files. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "engine/llama/backends.h"
#include "engine/llama/llama_engine.h"
#include "kvcache/errtext.h"

/* Older tags do not have it: NULL there. */
bool llama_model_is_hybrid(const struct llama_model *model) __attribute__((weak));

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

static void load_library(void)
{
    llama_log_set(say_library, NULL);
    ggml_log_set(say_library, NULL);
    llama_load_backends();
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
    char why[SAY_LINE_MAX];
    const char *kind;

    say_last_error(why, sizeof why);
    llama->model = llama_model_load_from_file(o->model_path, llama_model_default_params());
    if (!llama->model) {
        say_last_error(why, sizeof why);
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
    char why[SAY_LINE_MAX];

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
    p.abort_callback = compute_abort;
    p.abort_callback_data = llama;
    llama->context = llama_init_from_model(llama->model, p);
    if (!llama->context) {
        say_last_error(why, sizeof why);
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
    identity_find(llama, o);
    fill_info(llama, &file);
    st = try_out(llama, err, err_size);
    compute_set_threads(&llama->engine, o->threads);
    return st == MC_OK ? identity_record(llama, o, gguf, &file, err, err_size) : st;
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
    pthread_once(&backends, load_library);
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
    .tokenize = text_tokenize,
    .piece = text_piece,
    .is_end = text_is_end,
    .chat = text_chat,
    .seq_clear = blocks_clear,
    .import = blocks_import,
    .prefill = compute_prefill,
    .export_layers = blocks_export,
    .decode = compute_decode,
    .set_threads = compute_set_threads,
};

/* The one symbol of this plug-in: see engine.h. */
MC_API mc_engine_plugin_fn mc_engine_plugin;

enum mc_status mc_engine_plugin(const struct mc_engine_host *given, const struct mc_engine_ops **out)
{
    if (given->abi != MC_ENGINE_ABI)
        return MC_EVERSION;
    say_to(given);
    *out = &ops;
    return MC_OK;
}
