/* model.c - see model.h. */
#include "replay/model.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

struct row {
    const char *name;
    size_t offset;
    double def, min, max;
};

#define ROW(field, def, min, max)                                                                                      \
    {                                                                                                                  \
#field, offsetof(struct model, field), def, min, max                                                           \
    }
#define FROM_ABOVE (-1)

static const struct row rows[] = {
    ROW(layers, 80, 1, 1e4),
    ROW(d_model, 8192, 1, 1e6),
    ROW(gqa, 8, 1, 1e3),
    ROW(element_bytes, 2, 0.125, 16),
    ROW(weight_bytes, 140e9, 0, 1e15),
    ROW(flops, 8 * 312e12, 1e9, 1e21),
    ROW(utilisation, 0.5, 1e-3, 1),
    ROW(memory_gb_s, 8 * 2000, 1e-3, 1e9),
    ROW(memory_utilisation, 1, 1e-3, 1),
    ROW(link_gb_s, 100, 1e-6, 1e9),
    ROW(link_latency_ms, 0.02, 0, 1e6),
    ROW(own_gb_s, 160, 1e-6, 1e12),
    ROW(ssd_gb_s, 12, 1e-6, 1e9),
    ROW(ssd_latency_ms, 0.1, 0, 1e6),
    ROW(prefill_base_ms, 0, 0, 1e9),
    ROW(prefill_token_ms, FROM_ABOVE, 0, 1e9),
    ROW(prefill_pair_ms, FROM_ABOVE, 0, 1e9),
    ROW(decode_base_ms, FROM_ABOVE, 0, 1e9),
    ROW(decode_sequence_ms, 0, 0, 1e9),
    ROW(decode_kv_token_ns, FROM_ABOVE, 0, 1e15),
    ROW(kv_token_bytes, FROM_ABOVE, 0, 1e12),
    ROW(block_tokens, 512, 1, 1 << 20),
    ROW(chunk_tokens, 8192, 1, 1 << 30),
    ROW(sequences, 256, 1, 1e6),
    ROW(direct_tokens_max, 512, 1, 1e9),
    ROW(first_token_by_decode, 0, 0, 1),
    ROW(handover, 1, 0, 1),
    ROW(prefill, 8, 1, MODEL_PREFILL_MAX),
    ROW(decode, 8, 1, MODEL_WORKERS_MAX - MODEL_PREFILL_MAX),
    ROW(cache_tokens, 3e6, 1, 1e12),
    ROW(ssd_tokens, 0, 0, 1e12),
    ROW(decode_kv_tokens, 3e6, 1, 1e12),
    ROW(shared, 1, 0, 1),
};

enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

/* What --fit may set. */
static const char *const coefficients[] = {"prefill_base_ms", "prefill_token_ms", "prefill_pair_ms", "decode_base_ms",
    "decode_sequence_ms", "decode_kv_token_ns", "kv_token_bytes", NULL};

static double *field_of(struct model *model, const struct row *row)
{
    return (double *)(void *)((char *)model + row->offset);
}

void model_init(struct model *model)
{
    for (size_t i = 0; i < ROWS; i++)
        *field_of(model, &rows[i]) = rows[i].def;
}

static const struct row *row_find(const char *name)
{
    for (size_t i = 0; i < ROWS; i++)
        if (strcmp(rows[i].name, name) == 0)
            return &rows[i];
    return NULL;
}

static bool is_one_of(const char *name, const char *const *names)
{
    while (*names && strcmp(*names, name) != 0)
        names++;
    return *names != NULL;
}

/* Fields of the file that begin with '#' are remarks. `only` (NULL: all) may be set. */
static enum mc_status take_fields(struct model *model, json_t *object, const char *const *only, char *why, size_t size)
{
    const char *name;
    json_t *value;

    json_object_foreach(object, name, value)
    {
        const struct row *row = row_find(name);

        if (name[0] == '#')
            continue;
        if (row && only && !is_one_of(name, only)) {
            snprintf(why, size, "'%s' is nothing that workers measure; it belongs into --cluster", name);
            return MC_EINVAL;
        }
        if (!row) {
            snprintf(why, size, "no value is called '%s'", name);
            return MC_EINVAL;
        }
        double number = json_is_boolean(value) ? json_is_true(value) : json_number_value(value);
        if (!(json_is_number(value) || json_is_boolean(value)) || !(number >= row->min && number <= row->max)) {
            snprintf(why, size, "'%s' must be a number from %g to %g", name, row->min, row->max);
            return MC_EINVAL;
        }
        *field_of(model, row) = number;
    }
    return MC_OK;
}

static enum mc_status read_file(struct model *model, const char *path, const char *const *only, char *why, size_t size)
{
    json_error_t error;
    json_t *object = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    enum mc_status status;

    if (!object) {
        snprintf(why, size, "%s (line %d)", error.text, error.line);
        return MC_EINVAL;
    }
    if (json_is_object(object)) {
        status = take_fields(model, object, only, why, size);
    } else {
        snprintf(why, size, "this is JSON, but no object");
        status = MC_EINVAL;
    }
    json_decref(object);
    return status;
}

enum mc_status model_read(struct model *model, const char *path, char *why, size_t size)
{
    return read_file(model, path, NULL, why, size);
}

enum mc_status model_read_fit(struct model *model, const char *path, char *why, size_t size)
{
    return read_file(model, path, coefficients, why, size);
}

static void derive(double *field, double value)
{
    if (*field < 0)
        *field = value;
}

enum mc_status model_complete(struct model *model, char *why, size_t size)
{
    double flops = model->flops * model->utilisation, d = model->d_model;
    double memory = model->memory_gb_s * 1e9 * model->memory_utilisation;

    derive(&model->kv_token_bytes, 2 * model->layers * d / model->gqa * model->element_bytes);
    derive(&model->prefill_token_ms, model->layers * 22 * d * d / flops * 1e3);
    derive(&model->prefill_pair_ms, model->layers * 4 * d / flops * 1e3);
    derive(&model->decode_base_ms, model->weight_bytes / memory * 1e3);
    derive(&model->decode_kv_token_ns, model->kv_token_bytes / memory * 1e9);
    if (model->cache_tokens < model->block_tokens) {
        snprintf(why, size, "a cache of %g tokens holds no block of %g", model->cache_tokens, model->block_tokens);
        return MC_EINVAL;
    }
    if (model->ssd_tokens > 0 && model->shared == 0) {
        snprintf(why, size, "an SSD tier wants a shared cache ('shared' 1)");
        return MC_EINVAL;
    }
    if (model_prefill_ms(model, 0, 1) <= 0 || model_decode_ms(model, 1, 1) <= 0) {
        snprintf(why, size, "prefill and decode must take some time");
        return MC_EINVAL;
    }
    return MC_OK;
}

double model_prefill_ms(const struct model *model, double from, double to)
{
    return model->prefill_token_ms * (to - from) + model->prefill_pair_ms * (to * to - from * from);
}

double model_decode_ms(const struct model *model, double sequences, double kv_tokens)
{
    return model->decode_base_ms + model->decode_sequence_ms * sequences + model->decode_kv_token_ns * 1e-6 * kv_tokens;
}

/* theta is per feature; one feature's unit is read off the feature itself. */
static void set_fit(struct mc_fit *fit, const double theta[MC_FIT_TERMS])
{
    *fit = (struct mc_fit){0};
    for (int i = 0; i < MC_FIT_TERMS; i++)
        fit->theta[i] = theta[i];
}

void model_fits(const struct model *model, struct mc_fit *prefill, struct mc_fit *decode)
{
    double x[MC_FIT_TERMS];

    mc_fit_prefill_x(1000, 0, x);
    set_fit(prefill, (double[MC_FIT_TERMS]){model->prefill_base_ms, model->prefill_token_ms * 1e3 / x[1],
                         model->prefill_pair_ms * 1e6 / x[2]});
    mc_fit_decode_x(1, 1000, x);
    set_fit(decode, (double[MC_FIT_TERMS]){model->decode_base_ms, model->decode_sequence_ms / x[1],
                        model->decode_kv_token_ns * 1e-3 / x[2]});
}
