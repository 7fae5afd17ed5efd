/* calls.c - everything of store.h that is one call to the core: prefix, parts, views, pins, and looking inside. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "mooncake/kvcache.h"
#include "store/client/shell.h"

/* ---- prefix ---- */

static void prefix_call(struct client_call *call, const uint8_t (*ids)[16], uint32_t n, uint32_t lease_ms)
{
    call->kind = CALL_PREFIX;
    call->prefix.ids = ids;
    call->prefix.n = n;
    call->prefix.lease_ms = lease_ms;
    call->prefix.shards = 1;
}

enum mc_status mc_store_prefix(struct mc_store *store, const uint8_t (*ids)[16], uint32_t n, uint32_t lease_ms,
    uint32_t deadline_ms, struct mc_prefix *out, struct mc_prefix_node *nodes, uint32_t nodes_max, uint32_t *nodes_n)
{
    struct job job = {0};
    enum mc_status status;

    prefix_call(&job.call, ids, n, lease_ms);
    job.call.prefix.nodes = nodes;
    job.call.prefix.nodes_max = nodes ? nodes_max : 0;
    status = job_run(store, &job, deadline_ms);
    if (status == MC_OK || status == MC_EPEERDOWN) {
        *out = job.call.prefix.out;
        if (nodes_n)
            *nodes_n = job.call.prefix.nodes_n;
    }
    return status;
}

/* Owns copies of what it needs, so that the caller's ids are borrowed for the call only. */
struct prefix_job {
    struct job job;
    mc_prefix_done_fn *done;
    void *arg;
    struct mc_prefix_node nodes[64]; /* a scheduler compares at most that many owners of one prefix */
    uint8_t ids[][16];
};

static void prefix_finish(struct job *job)
{
    struct prefix_job *p = container_of(job, struct prefix_job, job);

    p->done(job->call.status, &job->call.prefix.out, p->nodes, job->call.prefix.nodes_n, p->arg);
    free(p);
}

enum mc_status mc_store_prefix_async(struct mc_store *store, const uint8_t (*ids)[16], uint32_t n, uint32_t lease_ms,
    uint32_t deadline_ms, mc_prefix_done_fn *done, void *arg)
{
    struct prefix_job *p;
    struct list jobs;
    enum mc_status status;

    if (n == 0 || n > STORE_KEYS_MAX || !done)
        return MC_EINVAL;
    p = calloc(1, sizeof(*p) + (size_t)n * 16);
    if (!p)
        return MC_ENOMEM;
    memcpy(p->ids, ids, (size_t)n * 16);
    p->done = done;
    p->arg = arg;
    p->job.store = store;
    p->job.finish = prefix_finish;
    p->job.home = true;
    p->job.call.deadline_ns = deadline_after_ms(now_ns(), deadline_ms);
    prefix_call(&p->job.call, (const uint8_t(*)[16])p->ids, n, lease_ms);
    p->job.call.prefix.nodes = p->nodes;
    p->job.call.prefix.nodes_max = sizeof(p->nodes) / sizeof(p->nodes[0]);
    list_init(&jobs);
    list_push_back(&jobs, &p->job.link);
    status = job_submit(store, &jobs, 1);
    if (status == MC_OK)
        shell_ring(store);
    else
        free(p);
    return status;
}

/* ---- put in parts ---- */

struct mc_store_part {
    struct mc_store *store;
    uint64_t handle;
};

enum mc_status mc_store_part_begin(struct mc_store *store, const struct mc_key *key, uint64_t length,
    const struct mc_object_meta *meta, uint32_t deadline_ms, struct mc_store_part **out)
{
    struct job job = {.call = {.kind = CALL_PART_BEGIN}};
    struct mc_store_part *part = malloc(sizeof(*part));
    enum mc_status status;

    if (!part)
        return MC_ENOMEM;
    job.call.part.key = *key;
    job.call.part.length = length;
    job.call.part.meta = meta;
    status = job_run(store, &job, deadline_ms);
    if (status != MC_OK) {
        free(part);
        return status;
    }
    *part = (struct mc_store_part){store, job.call.part.handle};
    *out = part;
    return MC_OK;
}

/* A long write goes in steps, each within what one message may carry. */
enum mc_status mc_store_part_write(
    struct mc_store_part *part, uint64_t offset, const void *data, uint64_t len, uint32_t deadline_ms)
{
    uint64_t deadline = deadline_after_ms(now_ns(), deadline_ms);
    enum mc_status status = MC_OK;

    for (uint64_t at = 0; at < len && status == MC_OK;) {
        struct job job = {.call = {.kind = CALL_PART_WRITE}};
        uint64_t step = len - at < STORE_PART_WRITE_MAX ? len - at : STORE_PART_WRITE_MAX;

        job.call.part.handle = part->handle;
        job.call.part.offset = offset + at;
        job.call.part.data = (const uint8_t *)data + at;
        job.call.part.length = step;
        status = job_run(part->store, &job, deadline_to_wire(deadline, now_ns()));
        at += step;
    }
    return status;
}

enum mc_status mc_store_part_commit(struct mc_store_part *part, uint32_t deadline_ms, struct mc_store_result *out)
{
    struct job job = {.call = {.kind = CALL_PART_COMMIT}};
    enum mc_status status;

    job.call.part.handle = part->handle;
    status = job_run(part->store, &job, deadline_ms);
    if (out)
        *out = job.call.part.result;
    free(part);
    return status;
}

struct on_loop {
    struct mc_store *store;
    uint64_t number;
    struct mc_view *view;
};

static void part_abort_on_loop(struct loop *loop, void *arg)
{
    struct on_loop *call = arg;

    client_core_part_abort(call->store->core, loop_now_ns(loop), call->number);
    shell_settle(call->store);
}

void mc_store_part_abort(struct mc_store_part *part)
{
    if (!part)
        return;
    loop_call(part->store->loop, part_abort_on_loop, &(struct on_loop){.store = part->store, .number = part->handle});
    free(part);
}

/* ---- views and pins ---- */

enum mc_status mc_store_view(
    struct mc_store *store, const struct mc_key *key, uint32_t pin_ms, uint32_t deadline_ms, struct mc_view *out)
{
    struct job job = {.call = {.kind = CALL_VIEW}};
    enum mc_status status;

    job.call.view.key = *key;
    job.call.view.pin_ms = pin_ms;
    status = job_run(store, &job, deadline_ms);
    if (status == MC_OK)
        *out = job.call.view.out;
    return status;
}

static void view_release_on_loop(struct loop *loop, void *arg)
{
    struct on_loop *call = arg;

    client_core_view_release(call->store->core, loop_now_ns(loop), call->view);
    shell_settle(call->store);
}

void mc_store_view_release(struct mc_store *store, struct mc_view *view)
{
    loop_call(store->loop, view_release_on_loop, &(struct on_loop){.store = store, .view = view});
}

enum mc_status mc_store_pin(struct mc_store *store, const struct mc_key *keys, uint32_t n, uint32_t pin_ms,
    uint32_t deadline_ms, uint64_t *token)
{
    struct job job = {.call = {.kind = CALL_PIN}};
    enum mc_status status;

    job.call.pins.keys = keys;
    job.call.pins.n = n;
    job.call.pins.pin_ms = pin_ms;
    status = job_run(store, &job, deadline_ms);
    if (status == MC_OK)
        *token = job.call.pins.token;
    return status;
}

static void unpin_on_loop(struct loop *loop, void *arg)
{
    struct on_loop *call = arg;

    client_core_unpin(call->store->core, loop_now_ns(loop), call->number);
    shell_settle(call->store);
}

void mc_store_unpin(struct mc_store *store, uint64_t token)
{
    loop_call(store->loop, unpin_on_loop, &(struct on_loop){.store = store, .number = token});
}

/* ---- looking inside ---- */

enum mc_status mc_store_where(
    struct mc_store *store, const struct mc_key *key, uint32_t deadline_ms, struct mc_location *rows, uint32_t *n)
{
    struct job job = {.call = {.kind = CALL_WHERE}};
    enum mc_status status;

    job.call.where.key = *key;
    job.call.where.rows = rows;
    job.call.where.rows_max = *n;
    status = job_run(store, &job, deadline_ms);
    if (status == MC_OK)
        *n = job.call.where.rows_n;
    return status;
}

struct nodes_call {
    struct mc_store *store;
    struct mc_node_info *rows;
    uint32_t rows_max, rows_n;
    bool master_up;
};

static void nodes_on_loop(struct loop *loop, void *arg)
{
    struct nodes_call *call = arg;
    struct store_member m;
    uint32_t at = 0;

    call->master_up = store_link_up(call->store->master);
    while (call->rows_n < call->rows_max && client_core_member(call->store->core, &at, &m)) {
        struct mc_node_info *row = &call->rows[call->rows_n++];

        *row = (struct mc_node_info){.epoch = m.epoch,
            .state = m.state,
            .capacity = m.capacity,
            .used = m.used,
            .objects = m.objects,
            .puts = m.puts,
            .evictions = m.evictions,
            .hits = m.hits};
        memcpy(row->uuid, m.uuid, 16);
        memcpy(row->name, m.name, sizeof(row->name));
        memcpy(row->address, m.address, sizeof(row->address));
        memcpy(row->host_id, m.host_id, sizeof(row->host_id));
        row->host_id[sizeof(row->host_id) - 1] = '\0';
    }
}

/* What the master last told: it tells every change. */
enum mc_status mc_store_nodes(struct mc_store *store, uint32_t deadline_ms, struct mc_node_info *rows, uint32_t *n)
{
    struct nodes_call call = {.store = store, .rows = rows, .rows_max = *n};

    loop_call(store->loop, nodes_on_loop, &call);
    *n = call.rows_n;
    return call.master_up ? MC_OK : MC_EPEERDOWN;
}

enum mc_status mc_store_list(
    struct mc_store *store, const char *name_prefix, uint64_t *cursor, char *buf, size_t buf_size, uint32_t deadline_ms)
{
    struct job job = {.call = {.kind = CALL_LIST}};
    struct buf text;
    enum mc_status status;

    if (buf_size < KEY_TEXT_MAX + 128)
        return MC_EINVAL; /* not even one line may fit */
    buf_init_fixed(&text, buf, buf_size);
    job.call.list.prefix = slice_str(name_prefix ? name_prefix : "");
    job.call.list.cursor = *cursor;
    job.call.list.max = (uint32_t)(buf_size / (KEY_TEXT_MAX + 128));
    job.call.list.text = &text;
    status = job_run(store, &job, deadline_ms);
    if (status == MC_OK)
        status = buf_status(&text);
    if (status == MC_OK)
        *cursor = job.call.list.cursor;
    return status;
}

/* Name of the first field in which two canonical records differ. */
static void differing_field(const void *ours, uint32_t ours_len, struct slice theirs, char field[64])
{
    struct mc_fp_record a, b;
    const char *name = NULL;

    if (mc_fp_record_decode(ours, ours_len, &a, NULL, 0) == MC_OK &&
        mc_fp_record_decode(theirs.ptr, theirs.len, &b, NULL, 0) == MC_OK)
        name = mc_fp_record_diff(&a, &b);
    strncpy(field, name ? name : "record", 63);
    field[63] = '\0';
}

enum mc_status mc_store_register_model(struct mc_store *store, const char *model, const void *record,
    uint32_t record_len, uint32_t deadline_ms, char field[64])
{
    struct job job = {.call = {.kind = CALL_MODEL}};
    struct buf other;
    enum mc_status status;

    field[0] = '\0';
    buf_init(&other, MC_FP_RECORD_SIZE_MAX);
    job.call.model.name = slice_str(model);
    job.call.model.record = slice_of(record, record_len);
    job.call.model.other = &other;
    status = job_run(store, &job, deadline_ms);
    if (status == MC_EMISMATCH)
        differing_field(record, record_len, buf_slice(&other), field);
    buf_fini(&other);
    return status;
}

struct stats_call {
    struct mc_store *store;
    struct mc_store_stats *out;
};

static void stats_on_loop(struct loop *loop, void *arg)
{
    struct stats_call *call = arg;

    client_core_stats(call->store->core, call->out);
    call->out->master_up = store_link_up(call->store->master);
}

void mc_store_stats(struct mc_store *store, struct mc_store_stats *out)
{
    loop_call(store->loop, stats_on_loop, &(struct stats_call){store, out});
    uint64_t gets = atomic_load_explicit(&store->hot.gets, memory_order_relaxed);
    out->gets += gets;
    out->hits += gets;
    out->hit_bytes += atomic_load_explicit(&store->hot.bytes, memory_order_relaxed);
}
