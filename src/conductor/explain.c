/* explain.c - why requests went where they went. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "conductor/explain.h"

enum mc_status explain_init(struct explain_ring *ring, uint32_t max)
{
    *ring = (struct explain_ring){.rows = calloc(max, sizeof *ring->rows), .max = max};
    return ring->rows ? MC_OK : MC_ENOMEM;
}

void explain_fini(struct explain_ring *ring)
{
    for (uint32_t i = 0; ring->rows && i < ring->max; i++)
        free(ring->rows[i].candidates);
    free(ring->rows);
}

static void keep_candidates(
    struct explain_row *row, const struct fleet_view *view, const struct mc_sched_candidate *candidates, uint32_t count)
{
    uint32_t workers = view->snapshot.worker_count;
    size_t size = count * sizeof *candidates;

    row->candidates = malloc(size + workers * sizeof *row->names);
    if (!row->candidates)
        return;
    if (count)
        memcpy(row->candidates, candidates, size);
    row->names = (void *)(row->candidates + count);
    for (uint32_t i = 0; i < workers; i++)
        memcpy(row->names[i], view->workers[i]->who.name, sizeof *row->names);
    row->candidate_count = count;
    row->worker_count = workers;
}

uint64_t explain_add(struct explain_ring *ring, const char *id, const struct fleet_model *model, const char *policy,
    const struct mc_sched_request *request, const struct mc_sched_decision *decision, const struct fleet_view *view,
    const struct mc_sched_candidate *candidates, uint32_t count)
{
    struct explain_row *row = &ring->rows[ring->count % ring->max];

    free(row->candidates);
    *row = (struct explain_row){.policy = policy, .at_ms = wall_ms(), .request = *request, .decision = *decision};
    row->request.node_blocks = NULL;
    strncpy(row->id, id, EXPLAIN_ID_MAX);
    memcpy(row->model, model->name, sizeof row->model);
    keep_candidates(row, view, candidates, count);
    return ring->count++;
}

void explain_actual(struct explain_ring *ring, uint64_t number, double ttft_ms)
{
    if (number < ring->count && ring->count - number <= ring->max)
        ring->rows[number % ring->max].ttft_ms = ttft_ms;
}

/* JSON has no infinity: a term that cannot be had is null. */
static json_t *term(double value)
{
    return isfinite(value) ? json_real(round(value * 1e3) / 1e3) : json_null();
}

static json_t *worker_name(const struct explain_row *row, uint16_t worker)
{
    return worker < row->worker_count ? json_string(row->names[worker]) : json_null();
}

static json_t *candidate_json(const struct explain_row *row, const struct mc_sched_candidate *c)
{
    json_t *out = json_pack("{s:o, s:s, s:o}", "worker", worker_name(row, c->worker), "for",
        c->phase == MC_WORKER_PREFILL ? "prefill" : "decode", "age_ms", term(c->age_ms));

    if (c->skip != MC_SKIP_NONE) {
        json_object_set_new(out, "skipped", json_string(mc_sched_skip_str(c->skip)));
        return out;
    }
    json_object_update_new(
        out, json_pack("{s:b, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "chosen", c->chosen, "own_tokens",
                 (json_int_t)c->own_tokens, "load_tokens", (json_int_t)c->load_tokens, "compute_tokens",
                 (json_int_t)c->compute_tokens, "queue_ms", term(c->queue_ms), "load_ms", term(c->load_ms),
                 "prefill_ms", term(c->prefill_ms), "ttft_ms", term(c->ttft_ms), "cost", term(c->cost)));
    if (c->phase == MC_WORKER_DECODE)
        json_object_set_new(out, "tbt_ms", term(c->tbt_ms));
    return out;
}

static json_t *decision_json(const struct explain_row *row)
{
    const struct mc_sched_decision *d = &row->decision;

    return json_pack("{s:s, s:s, s:o, s:o, s:b, s:b, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b}", "outcome",
        mc_sched_outcome_str(d->outcome), "route", mc_sched_route_str(d->route), "prefill",
        worker_name(row, d->prefill), "decode", worker_name(row, d->decode), "degraded", d->degraded, "trial", d->trial,
        "load_tokens", (json_int_t)d->load_tokens, "own_tokens", (json_int_t)d->own_tokens, "copy_blocks",
        (json_int_t)d->copy_blocks, "queue_ms", term(d->queue_ms), "load_ms", term(d->load_ms), "prefill_ms",
        term(d->prefill_ms), "ttft_ms", term(d->ttft_ms), "tbt_ms", term(d->tbt_ms), "retry_after_ms",
        term(d->retry_after_ms), "again_ms", term(d->again_ms), "by_choice", d->by_choice);
}

static json_t *request_json(const struct mc_sched_request *r)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:b}", "tokens", (json_int_t)r->tokens,
        "output_tokens", (json_int_t)r->output_tokens, "reuse_max", (json_int_t)r->reuse_max, "prefix_blocks",
        (json_int_t)r->prefix_blocks, "bytes_per_token", (json_int_t)r->bytes_per_token, "prefix_age_ms",
        term(r->prefix_age_ms), "slo_ttft_ms", term(r->slo_ttft_ms), "slo_tbt_ms", term(r->slo_tbt_ms), "waited_ms",
        term(r->waited_ms), "begun", r->begun);
}

static json_t *row_json(const struct explain_row *row)
{
    json_t *candidates = json_array();

    for (uint32_t i = 0; i < row->candidate_count; i++)
        json_array_append_new(candidates, candidate_json(row, &row->candidates[i]));
    return json_pack("{s:I, s:s, s:s, s:o, s:o, s:o, s:o}", "time_ms", (json_int_t)row->at_ms, "policy", row->policy,
        "model", row->model, "request", request_json(&row->request), "decision", decision_json(row), "candidates",
        candidates, "actual_ttft_ms", row->ttft_ms > 0 ? term(row->ttft_ms) : json_null());
}

json_t *explain_json(const struct explain_ring *ring, const char *id)
{
    uint64_t kept = ring->count < ring->max ? ring->count : ring->max;
    json_t *decisions = json_array();

    for (uint64_t i = 0; i < kept; i++) {
        const struct explain_row *row = &ring->rows[(ring->count - 1 - i) % ring->max];

        if (strcmp(row->id, id) == 0)
            json_array_append_new(decisions, row_json(row));
    }
    if (json_array_size(decisions) == 0) {
        json_decref(decisions);
        return NULL;
    }
    return json_pack("{s:s, s:o}", "id", id, "decisions", decisions);
}
