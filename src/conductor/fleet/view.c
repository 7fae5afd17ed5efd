/* view.c - what the scheduler sees of the fleet: fits, links, nodes, and how busy everybody is.
 *
 * Two sources of speed. A worker knows the batch of each of its decode steps and the bytes of each load, so for these its own
 * coefficients are taken as they come. T_prefill is fitted here from finished requests, by length and hit length: that includes what the worker
 * does not see as prefill. Its own guess is the prior.
 *
 * Copies. The Store does not say how much of it is there more than once. What we have nodes copy is counted here, and forgotten
 * in the same part in which its node has evicted since. That is about right: what is hot goes later than others, and is counted
 * as gone too early. */
#include <math.h>
#include <string.h>

#include "base/clock.h"
#include "conductor/fleet/fleet_impl.h"

#define LINK_DEFAULT_BYTES_PER_MS 500e3 /* 0.5 GB/s, until a worker has measured */

static double at_least(double value, double least)
{
    return value > least ? value : least;
}

/* From the worker's seconds (proto.h) to our milliseconds and units (fit.c). A pair term there counts n (c + n / 2), which is
 * half of length^2 - hit^2. */
static void prefill_theta(const struct wmsg_speed *speed, double theta[MC_FIT_TERMS])
{
    theta[0] = at_least(speed->prefill_base * 1e3, 1e-3);
    theta[1] = at_least(speed->prefill_token * 1e6, 1e-3);
    theta[2] = at_least(speed->prefill_pair * 0.5e9, 1e-3);
}

static void decode_theta(const struct wmsg_speed *speed, double theta[MC_FIT_TERMS])
{
    theta[0] = at_least(speed->decode_base * 1e3, 1e-3);
    theta[1] = at_least(speed->decode_sequence * 1e3, 1e-3);
    theta[2] = at_least(speed->decode_kv * 1e6, 1e-3);
}

static bool says_prefill(const struct wmsg_speed *speed)
{
    return speed->prefill_base > 0 || speed->prefill_token > 0;
}

static bool says_decode(const struct wmsg_speed *speed)
{
    return speed->decode_base > 0 || speed->decode_sequence > 0;
}

void fleet_speed_set(struct fleet_worker *worker, bool first)
{
    const struct wmsg_speed *speed = &worker->status.speed;
    double bytes_per_ms = speed->load_byte > 0 ? 1e-3 / speed->load_byte : LINK_DEFAULT_BYTES_PER_MS;
    double theta[MC_FIT_TERMS];

    if (first || worker->prefill.samples == 0) {
        prefill_theta(speed, theta);
        mc_fit_init(&worker->prefill, says_prefill(speed) ? theta : mc_fit_prefill_prior);
    }
    decode_theta(speed, theta);
    mc_fit_init(&worker->decode, says_decode(speed) ? theta : mc_fit_decode_prior);
    worker->decode.samples = says_decode(speed) ? speed->decode_samples : 0; /* it fits its steps itself */
    for (uint32_t n = 0; n < FLEET_NODES_MAX; n++)
        worker->links[n] = (struct mc_sched_link){.bytes_per_ms = bytes_per_ms, .latency_ms = speed->load_base * 1e3};
}

void fleet_learn(struct fleet_worker *worker, const struct wmsg_finish *finish)
{
    double x[MC_FIT_TERMS];

    worker->worked_ns = loop_now_ns(worker->fleet->loop);
    if (finish->computed_tokens == 0 || finish->replayed_tokens || finish->prefill_us == 0)
        return;
    mc_fit_prefill_x(finish->prompt_tokens, finish->prompt_tokens - finish->computed_tokens, x);
    mc_fit_observe(&worker->prefill, x, (double)finish->prefill_us / 1e3);
}

/* --- nodes --- */

uint16_t fleet_node_index(struct fleet *fleet, const uint8_t uuid[UUID_SIZE])
{
    for (uint32_t n = 0; n < fleet->node_count; n++) {
        if (memcmp(fleet->nodes[n].uuid, uuid, UUID_SIZE) == 0)
            return (uint16_t)n;
    }
    if (fleet->node_count == FLEET_NODES_MAX)
        return MC_SCHED_NONE;
    fleet->nodes[fleet->node_count] = (struct fleet_node){.state = 0};
    memcpy(fleet->nodes[fleet->node_count].uuid, uuid, UUID_SIZE);
    return (uint16_t)fleet->node_count++;
}

void fleet_worker_locate(struct fleet_worker *worker)
{
    struct fleet *fleet = worker->fleet;

    worker->node = MC_SCHED_NONE;
    for (uint32_t n = 0; n < fleet->node_count && *worker->who.host_id; n++) {
        if (strcmp(fleet->nodes[n].host_id, worker->who.host_id) == 0 && fleet->nodes[n].state == 0)
            worker->node = (uint16_t)n;
    }
}

static void forget_copies(struct fleet_node *node, const struct mc_node_info *row)
{
    uint64_t evicted = row->evictions - node->evictions;

    if (row->evictions < node->evictions) /* it has been started anew */
        node->copied = 0;
    else if (evicted)
        node->copied *= (double)row->objects / (double)(row->objects + evicted);
    node->evictions = row->evictions;
}

void fleet_note_copy(struct fleet_worker *worker, uint64_t bytes)
{
    if (worker->node != MC_SCHED_NONE)
        worker->fleet->nodes[worker->node].copied += (double)bytes;
}

double fleet_copied(const struct fleet *fleet)
{
    double bytes = 0;

    for (uint32_t n = 0; n < fleet->node_count; n++)
        bytes += fleet->nodes[n].state == 2 ? 0 : fleet->nodes[n].copied;
    return bytes;
}

static uint64_t copy_tokens_max(const struct fleet *fleet, const struct fleet_model *model)
{
    double bytes = -fleet_copied(fleet);

    for (uint32_t n = 0; n < fleet->node_count; n++)
        bytes += fleet->nodes[n].state == 2 ? 0 : MC_SCHED_COPIES_PART * (double)fleet->nodes[n].capacity;
    return bytes > 0 && model->bytes_per_token ? (uint64_t)(bytes / (double)model->bytes_per_token) : 0;
}

void fleet_nodes_set(struct fleet *fleet, const struct mc_node_info *rows, uint32_t count)
{
    for (uint32_t n = 0; n < fleet->node_count; n++)
        fleet->nodes[n].state = 2; /* unless it is in the list */
    for (uint32_t i = 0; i < count; i++) {
        uint16_t index = fleet_node_index(fleet, rows[i].uuid);
        struct fleet_node *node = index == MC_SCHED_NONE ? NULL : &fleet->nodes[index];

        if (!node)
            continue;
        memcpy(node->name, rows[i].name, sizeof node->name);
        memcpy(node->host_id, rows[i].host_id, sizeof node->host_id);
        forget_copies(node, &rows[i]);
        node->state = rows[i].state;
        node->capacity = rows[i].capacity;
        node->used = rows[i].used;
        node->objects = rows[i].objects;
    }
    list_for_each (it, &fleet->workers)
        fleet_worker_locate(list_entry(it, struct fleet_worker, link));
}

const struct fleet_node *fleet_nodes(const struct fleet *fleet, uint32_t *count)
{
    *count = fleet->node_count;
    return fleet->nodes;
}

/* --- the snapshot --- */

void fleet_tried_add(struct fleet_tried *tried, uint64_t serial)
{
    if (tried->count < FLEET_TRIES_MAX)
        tried->serial[tried->count++] = serial;
}

static bool was_tried(const struct fleet_tried *tried, uint64_t serial)
{
    for (unsigned i = 0; i < tried->count; i++) {
        if (tried->serial[i] == serial)
            return true;
    }
    return false;
}

struct fleet_worker *fleet_any(struct fleet *fleet, const struct fleet_model *model, const struct fleet_tried *tried)
{
    struct fleet_worker *best = NULL;

    list_for_each (it, &fleet->workers) {
        struct fleet_worker *worker = list_entry(it, struct fleet_worker, link);

        if (worker->model == model && worker->state == MC_WORKER_READY && !was_tried(tried, worker->serial) &&
            (!best || worker->calls.count < best->calls.count))
            best = worker;
    }
    return best;
}

/* Sum up what this worker has to do for us. It computes prompts in the order in which they came; of the first one, time has gone
 * by since the worker last said how far it is. */
static void count_work(struct fleet_worker *worker, uint64_t now_ns, struct mc_sched_worker *row)
{
    const struct fleet_call *first = NULL;
    struct hashmap_iter it = {0};
    struct hnode *node;
    double first_ms = 0;

    while ((node = hashmap_next(&worker->calls, &it)) != NULL) {
        const struct fleet_call *call = container_of(node, struct fleet_call, node);
        uint32_t done = call->computed_tokens < call->compute_tokens ? call->computed_tokens : call->compute_tokens;
        uint32_t left = call->compute_tokens - done;

        row->running += call->decodes;
        row->kv_tokens += call->kv_tokens;
        if (!call->prefills || left == 0)
            continue;
        double ms = call->predicted_ms * left / call->compute_tokens;
        row->waiting++;
        row->queued_tokens += left;
        row->queue_ms += ms;
        if (!first || call->request < first->request) {
            first = call;
            first_ms = ms;
        }
    }
    if (first)
        row->queue_ms -= fmin(first_ms, (double)(now_ns - first->told_ns) / NS_PER_MS);
}

/* What every node still has to send for us: a new transfer comes after that. */
static void count_transfers(const struct fleet *fleet, uint64_t now_ns, double sending_ms[FLEET_NODES_MAX])
{
    memset(sending_ms, 0, FLEET_NODES_MAX * sizeof *sending_ms);
    list_for_each (at, &fleet->workers) {
        const struct fleet_worker *worker = list_entry(at, struct fleet_worker, link);
        struct hashmap_iter it = {0};
        struct hnode *node;

        while ((node = hashmap_next(&worker->calls, &it)) != NULL) {
            const struct fleet_call *call = container_of(node, struct fleet_call, node);
            double gone = (double)(now_ns - call->told_ns) / NS_PER_MS;

            if (call->source < FLEET_NODES_MAX && call->load_ms > gone)
                sending_ms[call->source] += call->load_ms - gone;
        }
    }
}

static void fill_row(struct fleet *fleet, struct fleet_worker *worker, const struct fleet_tried *tried, bool store_up,
    uint64_t now_ns, struct mc_sched_worker *row)
{
    bool tried_here = worker->state == MC_WORKER_READY && was_tried(tried, worker->serial);

    *row = (struct mc_sched_worker){
        .role = worker->who.role,
        .state = (uint8_t)(tried_here ? MC_WORKER_TRIED : worker->state),
        .node = worker->node,
        .waiting_max = fleet->prefill_depth,
        .prefill = &worker->prefill,
        .running_max = worker->who.sequences_max,
        .kv_tokens_max = worker->who.context_tokens,
        .decode = &worker->decode,
        .links = store_up && worker->who.has_store && worker->status.store_up ? worker->links : NULL,
        .age_ms = (double)(now_ns - worker->heard_ns) / NS_PER_MS,
    };
    count_work(worker, now_ns, row);
    row->queue_ms += worker->promised_ms;
    if (row->running == 0 && row->waiting == 0)
        row->idle_ms = (double)(now_ns - worker->worked_ns) / NS_PER_MS;
}

void fleet_promise(struct fleet_worker *worker, double ms)
{
    worker->promised_ms += ms;
}

void fleet_promises_drop(struct fleet *fleet)
{
    list_for_each (it, &fleet->workers)
        list_entry(it, struct fleet_worker, link)->promised_ms = 0;
}

void fleet_view(struct fleet *fleet, const struct fleet_model *model, const struct fleet_tried *tried, bool store_up,
    uint64_t now_ns, struct fleet_view *view)
{
    double sending_ms[FLEET_NODES_MAX];
    uint32_t count = 0;

    count_transfers(fleet, now_ns, sending_ms);
    list_for_each (it, &fleet->workers) {
        struct fleet_worker *worker = list_entry(it, struct fleet_worker, link);

        if (worker->model != model || count == MC_SCHED_WORKERS_MAX)
            continue;
        for (uint32_t n = 0; n < fleet->node_count; n++)
            worker->links[n].queue_ms = n == worker->node ? 0 : sending_ms[n]; /* what is beside it, it maps */
        fill_row(fleet, worker, tried, store_up, now_ns, &view->rows[count]);
        view->workers[count++] = worker;
    }
    view->snapshot = (struct mc_sched_snapshot){
        .workers = view->rows,
        .worker_count = count,
        .node_count = fleet->node_count ? fleet->node_count : 1, /* not told yet: "somewhere" */
        .copy_tokens_max = copy_tokens_max(fleet, model),
        .sequence = fleet->decisions++,
    };
}
