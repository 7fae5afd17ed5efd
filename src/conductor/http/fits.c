/* fits.c - see fits.h. A fit's terms are per feature (scheduler/fit.c); what one token is in a feature is read off the feature itself. */
#include "conductor/http/fits.h"

/* A mean of fits, by their measurements. */
struct mean {
    double theta[MC_FIT_TERMS];
    uint64_t samples;
};

static void mean_add(struct mean *mean, const struct mc_fit *fit)
{
    if (fit->samples == 0)
        return; /* it knows its prior only */
    mean->samples += fit->samples;
    for (int i = 0; i < MC_FIT_TERMS; i++)
        mean->theta[i] += (fit->theta[i] - mean->theta[i]) * (double)fit->samples / (double)mean->samples;
}

static void put(json_t *out, const char *name, double value)
{
    json_object_set_new(out, name, json_real(value));
}

static void put_prefill(json_t *out, const struct mean *mean)
{
    double x[MC_FIT_TERMS];

    mc_fit_prefill_x(1000, 0, x);
    put(out, "prefill_base_ms", mean->theta[0] * x[0]);
    put(out, "prefill_token_ms", mean->theta[1] * x[1] / 1e3);
    put(out, "prefill_pair_ms", mean->theta[2] * x[2] / 1e6);
    json_object_set_new(out, "#prefill_samples", json_integer((json_int_t)mean->samples));
}

static void put_decode(json_t *out, const struct mean *mean)
{
    double x[MC_FIT_TERMS];

    mc_fit_decode_x(1, 1000, x);
    put(out, "decode_base_ms", mean->theta[0] * x[0]);
    put(out, "decode_sequence_ms", mean->theta[1] * x[1]);
    put(out, "decode_kv_token_ns", mean->theta[2] * x[2] * 1e3); /* ms a thousand tokens, ns a token */
    json_object_set_new(out, "#decode_samples", json_integer((json_int_t)mean->samples));
}

json_t *fits_json(struct fleet *fleet, const struct fleet_model *model)
{
    struct mean prefill = {0}, decode = {0};

    list_for_each (it, fleet_workers(fleet)) {
        const struct fleet_worker *worker = list_entry(it, struct fleet_worker, link);

        if (worker->model != model)
            continue;
        mean_add(&prefill, &worker->prefill);
        mean_add(&decode, &worker->decode);
    }
    if (prefill.samples + decode.samples == 0)
        return NULL;
    json_t *out = json_pack("{s:s, s:I}", "#model", model->name, "kv_token_bytes", (json_int_t)model->bytes_per_token);
    if (out && prefill.samples > 0)
        put_prefill(out, &prefill);
    if (out && decode.samples > 0)
        put_decode(out, &decode);
    return out;
}
