/* status.c - the state of the cluster as JSON. Read by web/app.js and by `mooncake top`. */
#include <math.h>

#include "base/clock.h"
#include "conductor/http/status.h"
#include "conductor/request.h"

static const char *worker_state(enum mc_worker_state state)
{
    switch (state) {
    case MC_WORKER_READY: return "ready";
    case MC_WORKER_SUSPECT: return "suspect";
    case MC_WORKER_DRAINING: return "draining";
    default: return "down";
    }
}

static const char *worker_role(uint8_t role)
{
    return role == MC_WORKER_BOTH ? "both" : role == MC_WORKER_PREFILL ? "prefill" : "decode";
}

static json_t *rounded(double value)
{
    return json_real(isfinite(value) ? round(value * 1e3) / 1e3 : 0);
}

static json_t *worker_json(const struct fleet_worker *worker, const struct mc_sched_worker *row)
{
    const struct wmsg_status *s = &worker->status;

    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:o, s:I, s:I, s:b, s:I, s:o, s:o, s:o, s:o}",
        "name", worker->who.name, "role", worker_role(worker->who.role), "state", worker_state(worker->state), "model",
        worker->who.model, "engine", worker->who.engine, "running", (json_int_t)row->running, "running_max",
        (json_int_t)row->running_max, "waiting", (json_int_t)row->waiting, "queued_tokens",
        (json_int_t)row->queued_tokens, "queue_ms", rounded(row->queue_ms), "kv_tokens", (json_int_t)s->kv_used,
        "kv_tokens_max", (json_int_t)worker->who.context_tokens, "store_up", s->store_up, "threads",
        (json_int_t)s->threads, "age_ms", rounded(row->age_ms), "prefill_1000_ms",
        rounded(mc_fit_prefill_ms(&worker->prefill, 1000, 0)), "decode_step_ms",
        rounded(mc_fit_decode_ms(&worker->decode, 1, 1000)), "prefill_fit_error", rounded(worker->prefill.error));
}

static json_t *workers_json(struct conductor *c)
{
    static const struct fleet_tried nobody;
    json_t *out = json_array();
    struct fleet_view view;

    list_for_each (it, fleet_models(c->fleet)) {
        fleet_view(c->fleet, list_entry(it, struct fleet_model, link), &nobody, true, loop_now_ns(c->loop), &view);
        for (uint32_t i = 0; i < view.snapshot.worker_count; i++)
            json_array_append_new(out, worker_json(view.workers[i], &view.rows[i]));
    }
    return out;
}

static json_t *tiers_json(struct conductor *c)
{
    static const char *const states[] = {"up", "suspect", "unreachable", "draining"};
    uint32_t count;
    const struct fleet_node *nodes = fleet_nodes(c->fleet, &count);
    json_t *out = json_array();

    for (uint32_t i = 0; i < count; i++) {
        char uuid[UUID_TEXT];

        json_array_append_new(
            out, json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I}", "node", nodes[i].name, "uuid",
                     uuid_format(nodes[i].uuid, uuid), "host", nodes[i].host_id, "tier", "dram", "state",
                     nodes[i].state < 4 ? states[nodes[i].state] : "unknown", "capacity", (json_int_t)nodes[i].capacity,
                     "used", (json_int_t)nodes[i].used, "objects", (json_int_t)nodes[i].objects));
    }
    return out;
}

static json_t *history_json(const struct history *history)
{
    uint64_t first = history->count > HISTORY_MAX ? history->count - HISTORY_MAX : 0;
    json_t *out = json_array();

    for (uint64_t i = first; i < history->count; i++) {
        const struct history_row *row = &history->rows[i % HISTORY_MAX];

        json_array_append_new(
            out, json_pack("{s:I, s:I, s:o, s:o, s:o, s:I, s:I, s:I, s:s}", "n", (json_int_t)i, "at_ms",
                     (json_int_t)row->at_ms, "ttft_ms", rounded(row->ttft_ms), "ttft_predicted_ms",
                     rounded(row->ttft_predicted_ms), "tbt_ms", rounded(row->tbt_ms), "prompt_tokens",
                     (json_int_t)row->prompt_tokens, "reused_tokens", (json_int_t)row->reused_tokens, "answer_tokens",
                     (json_int_t)row->answer_tokens, "route", mc_sched_route_str(row->route)));
    }
    return out;
}

static json_t *models_json(struct conductor *c)
{
    json_t *out = json_array();

    list_for_each (it, fleet_models(c->fleet))
        json_array_append_new(out, json_string(list_entry(it, struct fleet_model, link)->name));
    return out;
}

static const char *store_state(const struct conductor *c)
{
    return !c->store ? "none" : c->prefix_failed_ns || c->survey_status != MC_OK ? "down" : "up";
}

json_t *status_json(struct conductor *c)
{
    double prompt = metric_value(c->count.prompt_tokens), reused = metric_value(c->count.reused_tokens);

    return json_pack("{s:o, s:o, s:o, s:{s:I, s:I, s:I}, s:{s:o, s:o, s:o}, s:o, s:s, s:{s:o, s:o}, s:s, s:I, s:I}",
        "models", models_json(c), "workers", workers_json(c), "tiers", tiers_json(c), "requests", "open",
        (json_int_t)c->request_count, "queued", (json_int_t)c->queue_count, "answered", (json_int_t)c->history.count,
        "cache", "prompt_tokens", rounded(prompt), "reused_tokens", rounded(reused), "hit_rate",
        rounded(prompt > 0 ? reused / prompt : 0), "history", history_json(&c->history), "policy", c->policy->name,
        "slo", "ttft_ms", rounded(c->opts.slo_ttft_ms), "tbt_ms", rounded(c->opts.slo_tbt_ms), "store", store_state(c),
        "time_ms", (json_int_t)wall_ms(), "started_s", (json_int_t)c->started_s);
}
