/* decisions.c - see decisions.h. The other side of src/conductor/record.c; what is in a line stands in scheduler/fields.c. */
#include "replay/decisions.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conductor/scheduler/fields.h"
#include "net/json.h"
#include "replay/policies.h"

enum { WHY_SIZE = 256 };

/* A recorded decision, and room for what it points at. */
struct recorded {
    const struct mc_sched_policy *policy;
    struct mc_sched_snapshot snapshot;
    struct mc_sched_worker workers[MC_SCHED_WORKERS_MAX];
    struct mc_fit prefill[MC_SCHED_WORKERS_MAX], decode[MC_SCHED_WORKERS_MAX];
    struct mc_sched_link links[MC_SCHED_WORKERS_MAX][MC_SCHED_NODES_MAX];
    struct mc_sched_request request;
    uint32_t node_blocks[MC_SCHED_NODES_MAX];
    struct mc_sched_decision decision;
};

/* An array of as many values as the table has fields; null is a time that never comes. */
static bool take_fields(const json_t *values, void *object, const struct sched_field *fields)
{
    size_t i = 0;

    for (const struct sched_field *field = fields; field->name; field++, i++) {
        const json_t *value = json_array_get(values, i);

        if (field->kind == SCHED_DOUBLE && (json_is_number(value) || json_is_null(value)))
            sched_field_set_double(object, field, json_is_null(value) ? INFINITY : json_number_value(value));
        else if (field->kind != SCHED_DOUBLE && json_is_integer(value))
            sched_field_set_int(object, field, json_integer_value(value));
        else
            return false;
    }
    return json_array_size(values) == i;
}

static bool take_worker(const json_t *from, uint32_t number, struct recorded *out)
{
    struct mc_sched_worker *worker = &out->workers[number];
    const json_t *links = json_object_get(from, "links");

    if (!take_fields(json_object_get(from, "is"), worker, sched_worker_fields) ||
        !take_fields(json_object_get(from, "prefill"), &out->prefill[number], sched_fit_fields) ||
        !take_fields(json_object_get(from, "decode"), &out->decode[number], sched_fit_fields))
        return false;
    worker->prefill = &out->prefill[number];
    worker->decode = &out->decode[number];
    worker->links = json_is_array(links) ? out->links[number] : NULL;
    if (worker->links && json_array_size(links) != out->snapshot.node_count)
        return false;
    for (uint32_t i = 0; worker->links && i < out->snapshot.node_count; i++)
        if (!take_fields(json_array_get(links, i), &out->links[number][i], sched_link_fields))
            return false;
    return worker->node < out->snapshot.node_count || worker->node == MC_SCHED_NONE;
}

static bool take_node_blocks(const json_t *from, struct recorded *out)
{
    out->request.node_blocks = json_is_array(from) ? out->node_blocks : NULL;
    if (out->request.node_blocks && json_array_size(from) != out->snapshot.node_count)
        return false;
    for (uint32_t i = 0; out->request.node_blocks && i < out->snapshot.node_count; i++)
        out->node_blocks[i] = (uint32_t)json_integer_value(json_array_get(from, i));
    return true;
}

/* NULL, or what is wrong with it. */
static const char *take(const json_t *object, struct recorded *out)
{
    const char *policy = json_string_value(json_object_get(object, "policy"));
    const json_t *workers = json_object_get(object, "workers");

    out->policy = policy ? replay_policy_find(policy) : NULL;
    if (!out->policy)
        return "it names no policy that is known here";
    if (!take_fields(json_object_get(object, "snapshot"), &out->snapshot, sched_snapshot_fields) ||
        out->snapshot.worker_count > MC_SCHED_WORKERS_MAX || out->snapshot.node_count > MC_SCHED_NODES_MAX ||
        json_array_size(workers) != out->snapshot.worker_count)
        return "its snapshot is not whole, or of another version";
    for (uint32_t i = 0; i < out->snapshot.worker_count; i++)
        if (!take_worker(json_array_get(workers, i), i, out))
            return "a worker in it is not whole, or of another version";
    out->snapshot.workers = out->workers;
    if (!take_fields(json_object_get(object, "request"), &out->request, sched_request_fields) ||
        out->request.tokens == 0 || out->request.block_tokens == 0 ||
        !take_node_blocks(json_object_get(object, "node_blocks"), out))
        return "its request is not whole, or of another version";
    if (!take_fields(json_object_get(object, "decision"), &out->decision, sched_decision_fields))
        return "its decision is not whole, or of another version";
    return NULL;
}

static bool same_double(double a, double b)
{
    return a == b || (!isfinite(a) && !isfinite(b));
}

static bool same_fields(const struct mc_sched_decision *a, const struct mc_sched_decision *b)
{
    for (const struct sched_field *field = sched_decision_fields; field->name; field++) {
        if (field->kind == SCHED_DOUBLE ? !same_double(sched_field_double(a, field), sched_field_double(b, field))
                                        : sched_field_int(a, field) != sched_field_int(b, field))
            return false;
    }
    return true;
}

static void decide_again(
    struct recorded *recorded, const struct mc_sched_policy *policy, uint64_t line, struct decisions_result *out)
{
    const struct mc_sched_decision *was = &recorded->decision;
    struct mc_sched_decision now;

    (policy ? policy : recorded->policy)->decide(&recorded->snapshot, &recorded->request, &now, NULL);
    out->decisions++;
    out->same_place += now.outcome == was->outcome && now.route == was->route && now.prefill == was->prefill &&
                       now.decode == was->decode;
    if (same_fields(&now, was))
        out->same++;
    else if (out->different_line == 0)
        out->different_line = line;
}

static enum mc_status run(FILE *file, const struct mc_sched_policy *policy, struct recorded *recorded,
    trace_bad_fn *bad, void *arg, struct decisions_result *out)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;

    for (uint64_t number = 1; (len = getline(&line, &cap, file)) >= 0; number++) {
        char text[WHY_SIZE];
        json_t *object = json_parse(slice_of(line, (size_t)len), text, sizeof(text));
        const char *why = object ? take(object, recorded) : text;

        if (!why)
            decide_again(recorded, policy, number, out);
        else if (bad)
            bad(arg, number, why);
        out->bad_lines += why != NULL;
        json_decref(object);
    }
    free(line);
    return ferror(file) ? MC_ESYS : MC_OK;
}

enum mc_status decisions_run(
    const char *path, const struct mc_sched_policy *policy, trace_bad_fn *bad, void *arg, struct decisions_result *out)
{
    struct recorded *recorded = calloc(1, sizeof(*recorded));
    FILE *file = recorded ? fopen(path, "re") : NULL;
    enum mc_status status = !recorded ? MC_ENOMEM : MC_ESYS;

    *out = (struct decisions_result){0};
    if (file) {
        status = run(file, policy, recorded, bad, arg, out);
        fclose(file);
    }
    free(recorded);
    return status;
}
