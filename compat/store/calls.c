/* calls.c - puts, gets, probes and removals in arrays. See client.h.
 *
 * Each call becomes one batch of operations of our Store (more only above MC_STORE_OPS_MAX). Entries whose arguments are wrong
 * get their number and no operation. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "compat/store/client_impl.h"

enum { FEW = 8, NODES_MAX = 1024 };

/* The operations of one call; `of[i]` is the entry of the caller's that operation i is for. */
struct batch {
    struct mc_store_op *ops;
    uint32_t *of;
    uint32_t n;
    struct mc_store_op ops_few[FEW];
    uint32_t of_few[FEW];
};

static bool batch_init(struct batch *batch, size_t max)
{
    batch->n = 0;
    batch->ops = batch->ops_few;
    batch->of = batch->of_few;
    if (max <= FEW)
        return true;
    max = max < MC_STORE_OPS_MAX ? max : MC_STORE_OPS_MAX;
    batch->ops = malloc(max * sizeof(*batch->ops));
    batch->of = malloc(max * sizeof(*batch->of));
    return batch->ops && batch->of;
}

static void batch_fini(struct batch *batch)
{
    if (batch->ops != batch->ops_few)
        free(batch->ops);
    if (batch->of != batch->of_few)
        free(batch->of);
}

/* Room for the operation of this entry. */
static struct mc_store_op *batch_next(struct batch *batch, size_t entry)
{
    batch->of[batch->n] = (uint32_t)entry;
    return &batch->ops[batch->n++];
}

static struct mc_store_op *batch_add(
    struct batch *batch, size_t entry, enum mc_store_opcode opcode, const struct compat_key *key)
{
    struct mc_store_op *op = batch_next(batch, entry);

    *op = (struct mc_store_op){.opcode = opcode};
    mc_key_named(&op->key, key->name, key->len);
    return op;
}

/* Every operation has a status after this. */
static void batch_run(struct batch *batch, struct mc_store *store, uint32_t deadline_ms)
{
    enum mc_status status = batch->n ? mc_store_sync(store, batch->ops, batch->n, deadline_ms) : MC_OK;

    for (uint32_t i = 0; status != MC_OK && i < batch->n; i++)
        batch->ops[i].result = (struct mc_store_result){.status = status};
}

int compat_key_check(const struct compat_key *key)
{
    if (!key->name || key->len == 0)
        return COMPAT_INVALID_PARAMS;
    return key->len <= MC_NAME_MAX ? COMPAT_OK : COMPAT_INVALID_KEY;
}

/* How many entries of the rest the next batch takes. */
static size_t step(size_t left)
{
    return left < MC_STORE_OPS_MAX ? left : MC_STORE_OPS_MAX;
}

/* ---- what a put says about its object ---- */

static bool up(const struct mc_node_info *node)
{
    return node->state == 0;
}

/* NULL for `name`: any at all. */
static bool segment_up(struct mc_store *store, const char *name)
{
    struct mc_node_info *rows = malloc(NODES_MAX * sizeof(*rows));
    uint32_t n = NODES_MAX;
    bool there = false;

    if (!rows)
        return false;
    mc_store_nodes(store, COMPAT_ASK_MS, rows, &n);
    for (uint32_t i = 0; i < n && !there; i++)
        there = up(&rows[i]) && (!name || strcmp(rows[i].name, name) == 0);
    free(rows);
    return there;
}

/* Which segment is asked for; an unknown one is passed over by the Store itself, so a single name needs no look. */
static const char *preferred(struct compat_client *client, struct mc_store *store, const struct compat_config *config)
{
    if (config->same_node && client->node)
        return client->hostname;
    if (config->preferred_n == 1)
        return config->preferred[0];
    for (size_t i = 0; i < config->preferred_n; i++)
        if (segment_up(store, config->preferred[i]))
            return config->preferred[i];
    return NULL;
}

int compat_meta(struct compat_client *client, struct mc_store *store, const struct compat_config *config,
    struct mc_object_meta *meta, char own[COMPAT_HOST_MAX])
{
    const char *node;

    *meta = (struct mc_object_meta){0};
    if (!config)
        return COMPAT_OK;
    if (config->replicas == 0)
        return COMPAT_INVALID_PARAMS;
    meta->replicas = config->replicas < MC_REPLICAS_MAX ? (uint32_t)config->replicas : MC_REPLICAS_MAX;
    meta->flags = (config->soft_pin ? MC_OBJ_SOFT_PIN : 0) | (config->hard_pin ? MC_OBJ_HARD_PIN : 0);
    node = preferred(client, store, config);
    if (node && *node) {
        snprintf(own, COMPAT_HOST_MAX, "%s", node);
        meta->node = own;
    }
    return COMPAT_OK;
}

/* ---- put ---- */

static uint64_t spans_size(const struct mc_span *spans, uint32_t n)
{
    uint64_t size = 0;

    for (uint32_t i = 0; i < n; i++)
        size += spans[i].len;
    return size;
}

int compat_put_check(const struct compat_client *client, const struct compat_put *put, unsigned flags)
{
    uint64_t size = spans_size(put->spans, put->nspans);
    int error = compat_key_check(&put->key);

    for (uint32_t i = 0; i < put->nspans; i++)
        if (!put->spans[i].addr && put->spans[i].len)
            return COMPAT_INVALID_PARAMS;
    if (error == COMPAT_OK &&
        (size > MC_OBJECT_MAX || (flags & COMPAT_BYTES && (!client->local_buffer || size > client->local_buffer))))
        return COMPAT_INVALID_PARAMS;
    return error;
}

void compat_put_op(
    struct mc_store_op *op, const struct compat_put *put, const struct mc_object_meta *meta, unsigned flags)
{
    *op = (struct mc_store_op){
        .opcode = flags & COMPAT_UPSERT ? MC_UPSERT : MC_PUT, .spans = put->spans, .nspans = put->nspans, .meta = meta};
    mc_key_named(&op->key, put->key.name, put->key.len);
}

/* A first put whose outcome is open may be done again: whoever came first has won, and both are told success. */
static void put_again(struct batch *batch, struct mc_store *store, uint64_t deadline_ns)
{
    for (int again = 0; again < COMPAT_PUT_AGAIN; again++) {
        uint32_t open = 0;

        for (uint32_t i = 0; i < batch->n; i++) {
            struct mc_store_op *op = &batch->ops[i];

            if (op->result.status != MC_EPEERDOWN || op->opcode != MC_PUT)
                continue;
            open++;
            enum mc_status status = mc_store_sync(store, op, 1, deadline_to_wire(deadline_ns, now_ns()));
            if (status != MC_OK)
                op->result.status = status;
        }
        if (open == 0)
            return;
    }
}

int compat_put_error(struct mc_store *store, const struct mc_store_op *op)
{
    struct mc_store_stats stats;

    if (op->result.status != MC_EPEERDOWN)
        return compat_op_error(op);
    mc_store_stats(store, &stats);
    if (!stats.master_up)
        return COMPAT_RPC_FAIL;
    return segment_up(store, NULL) ? COMPAT_TRANSFER_FAIL : COMPAT_NO_SPACE;
}

static void put_some(struct compat_client *client, struct mc_store *store, struct compat_put *puts, size_t n,
    const struct mc_object_meta *meta, unsigned flags)
{
    uint64_t deadline = deadline_after_ms(now_ns(), client->put_ms);
    struct batch batch;
    bool memory = batch_init(&batch, n);

    for (size_t i = 0; i < n; i++) {
        puts[i].result = memory ? compat_put_check(client, &puts[i], flags) : COMPAT_INTERNAL;
        if (puts[i].result != COMPAT_OK)
            continue;
        compat_put_op(batch_next(&batch, i), &puts[i], meta, flags);
    }
    batch_run(&batch, store, client->put_ms);
    put_again(&batch, store, deadline);
    for (uint32_t i = 0; i < batch.n; i++)
        puts[batch.of[i]].result = compat_put_error(store, &batch.ops[i]);
    batch_fini(&batch);
}

void compat_put_each(struct compat_client *client, struct mc_store *store, struct compat_put *puts, size_t n,
    const struct mc_object_meta *meta, unsigned flags)
{
    for (size_t at = 0; at < n; at += step(n - at))
        put_some(client, store, puts + at, step(n - at), meta, flags);
}

int compat_put(
    struct compat_client *client, struct compat_put *puts, size_t n, const struct compat_config *config, unsigned flags)
{
    uintptr_t from = UINTPTR_MAX, to = 0;
    struct compat_call call;
    struct mc_object_meta meta;
    char own[COMPAT_HOST_MAX];
    int error = COMPAT_INVALID_PARAMS;

    for (size_t i = 0; i < n; i++)
        for (uint32_t k = 0; k < puts[i].nspans; k++)
            compat_hull(&from, &to, puts[i].spans[k].addr, puts[i].spans[k].len);
    if (compat_enter(client, &call, from, to)) {
        error = compat_meta(client, call.store, config, &meta, own);
        if (error == COMPAT_OK && config && config->groups)
            compat_put_groups(client, call.store, puts, n, config->groups, &meta, flags);
        else if (error == COMPAT_OK)
            compat_put_each(client, call.store, puts, n, config ? &meta : NULL, flags);
        compat_leave(client, &call);
    }
    for (size_t i = 0; i < n; i++) {
        if (error != COMPAT_OK)
            puts[i].result = error;
    }
    for (size_t i = 0; i < n && error == COMPAT_OK; i++)
        error = puts[i].result;
    return error;
}

/* ---- get ---- */

static int get_check(const struct compat_get *get)
{
    for (uint32_t i = 0; i < get->nspans; i++)
        if (!get->spans[i].addr && get->spans[i].len)
            return COMPAT_INVALID_PARAMS;
    for (uint32_t i = 0; i < get->nranges; i++)
        if (!get->ranges[i].local && get->ranges[i].len)
            return COMPAT_INVALID_PARAMS;
    return compat_key_check(&get->key);
}

static void get_done(struct compat_get *get, const struct mc_store_op *op)
{
    uint64_t bytes = op->result.length;

    if (op->result.status == MC_OK && get->nranges) {
        bytes = 0;
        for (uint32_t i = 0; i < get->nranges; i++)
            bytes += get->ranges[i].len;
    }
    get->length = op->result.status == MC_OK || op->result.status == MC_ETOOBIG ? op->result.length : 0;
    get->result = op->result.status == MC_OK ? (int64_t)bytes : compat_op_error(op);
}

static void get_some(struct compat_client *client, struct mc_store *store, struct compat_get *gets, size_t n)
{
    struct batch batch;
    bool memory = batch_init(&batch, n);

    for (size_t i = 0; i < n; i++) {
        gets[i].length = 0;
        gets[i].result = memory ? get_check(&gets[i]) : COMPAT_INTERNAL;
        if (gets[i].result != COMPAT_OK)
            continue;
        struct mc_store_op *op = batch_add(&batch, i, MC_GET, &gets[i].key);
        op->spans = gets[i].spans;
        op->nspans = gets[i].nspans;
        op->ranges = gets[i].ranges;
        op->nranges = gets[i].nranges;
    }
    batch_run(&batch, store, client->get_ms);
    for (uint32_t i = 0; i < batch.n; i++)
        get_done(&gets[batch.of[i]], &batch.ops[i]);
    batch_fini(&batch);
}

int compat_get(struct compat_client *client, struct compat_get *gets, size_t n)
{
    uintptr_t from = UINTPTR_MAX, to = 0;
    struct compat_call call;
    int error = COMPAT_OK;

    for (size_t i = 0; i < n; i++) {
        for (uint32_t k = 0; k < gets[i].nspans; k++)
            compat_hull(&from, &to, gets[i].spans[k].addr, gets[i].spans[k].len);
        for (uint32_t k = 0; k < gets[i].nranges; k++)
            compat_hull(&from, &to, gets[i].ranges[k].local, gets[i].ranges[k].len);
        gets[i].result = COMPAT_INVALID_PARAMS;
        gets[i].length = 0;
    }
    if (!compat_enter(client, &call, from, to))
        return COMPAT_INVALID_PARAMS;
    for (size_t at = 0; at < n; at += step(n - at))
        get_some(client, call.store, gets + at, step(n - at));
    compat_leave(client, &call);
    for (size_t i = 0; i < n && error == COMPAT_OK; i++)
        error = gets[i].result < 0 ? (int)gets[i].result : COMPAT_OK;
    return error;
}

/* ---- is it there, remove ---- */

static void exists_some(
    struct compat_client *client, struct mc_store *store, const struct compat_key *keys, size_t n, int64_t *results)
{
    struct batch batch;
    bool memory = batch_init(&batch, n);

    for (size_t i = 0; i < n; i++) {
        results[i] = memory ? compat_key_check(&keys[i]) : COMPAT_INTERNAL;
        if (results[i] == COMPAT_OK)
            batch_add(&batch, i, MC_EXISTS, &keys[i]);
    }
    batch_run(&batch, store, client->ask_ms);
    for (uint32_t i = 0; i < batch.n; i++)
        results[batch.of[i]] =
            batch.ops[i].result.status == MC_OK ? (int64_t)batch.ops[i].result.length : compat_op_error(&batch.ops[i]);
    batch_fini(&batch);
}

int compat_exists(struct compat_client *client, const struct compat_key *keys, size_t n, int64_t *results)
{
    struct compat_call call;

    for (size_t i = 0; i < n; i++)
        results[i] = COMPAT_INVALID_PARAMS;
    if (!compat_enter(client, &call, 0, 0))
        return COMPAT_INVALID_PARAMS;
    for (size_t at = 0; at < n; at += step(n - at))
        exists_some(client, call.store, keys + at, step(n - at), results + at);
    compat_leave(client, &call);
    return COMPAT_OK;
}

static void remove_some(struct compat_client *client, struct mc_store *store, const struct compat_key *keys, size_t n,
    const struct mc_object_meta *at, bool force, int *results)
{
    struct batch batch;
    bool memory = batch_init(&batch, n);

    for (size_t i = 0; i < n; i++) {
        results[i] = memory ? compat_key_check(&keys[i]) : COMPAT_INTERNAL;
        if (results[i] != COMPAT_OK)
            continue;
        struct mc_store_op *op = batch_add(&batch, i, MC_REMOVE, &keys[i]);
        op->force = force;
        op->meta = at;
    }
    batch_run(&batch, store, client->ask_ms);
    for (uint32_t i = 0; i < batch.n; i++)
        results[batch.of[i]] = compat_op_error(&batch.ops[i]);
    batch_fini(&batch);
}

int compat_remove(struct compat_client *client, const struct compat_key *keys, size_t n, const char *segment,
    bool force, int *results)
{
    const struct mc_object_meta at = {.node = segment};
    struct compat_call call;

    for (size_t i = 0; i < n; i++)
        results[i] = COMPAT_INVALID_PARAMS;
    if (!compat_enter(client, &call, 0, 0))
        return COMPAT_INVALID_PARAMS;
    for (size_t i = 0; i < n; i += step(n - i))
        remove_some(client, call.store, keys + i, step(n - i), segment ? &at : NULL, force, results + i);
    compat_leave(client, &call);
    return COMPAT_OK;
}

/* ---- where things are ---- */

bool compat_segment_there(struct compat_client *client, const char *name)
{
    struct compat_call call;
    bool there;

    if (!compat_enter(client, &call, 0, 0))
        return false;
    there = segment_up(call.store, name);
    compat_leave(client, &call);
    return there;
}

static void replica_names(struct mc_store *store, const struct mc_location *at, struct compat_replica *rows, uint32_t n)
{
    struct mc_node_info *nodes = malloc(NODES_MAX * sizeof(*nodes));
    uint32_t count = NODES_MAX;

    if (nodes)
        mc_store_nodes(store, COMPAT_ASK_MS, nodes, &count);
    for (uint32_t i = 0; i < n; i++) {
        /* Segments have no common address space: their number above the offset makes one. */
        rows[i] =
            (struct compat_replica){.address = (uint64_t)at[i].segment << 40 | at[i].offset, .size = at[i].length};
        for (uint32_t k = 0; nodes && k < count; k++)
            if (memcmp(nodes[k].uuid, at[i].node, 16) == 0)
                snprintf(rows[i].segment, sizeof(rows[i].segment), "%s", nodes[k].name);
    }
    free(nodes);
}

int compat_replicas(
    struct compat_client *client, const struct compat_key *key, struct compat_replica *rows, uint32_t *n)
{
    struct mc_location at[MC_REPLICAS_MAX];
    uint32_t max = *n < MC_REPLICAS_MAX ? *n : MC_REPLICAS_MAX;
    struct compat_call call;
    struct mc_key name;
    enum mc_status status;
    int error = compat_key_check(key);

    *n = 0;
    if (error != COMPAT_OK)
        return error;
    if (!compat_enter(client, &call, 0, 0))
        return COMPAT_INVALID_PARAMS;
    mc_key_named(&name, key->name, key->len);
    status = mc_store_where(call.store, &name, client->ask_ms, at, &max);
    if (status == MC_OK) {
        replica_names(call.store, at, rows, max);
        *n = max;
    }
    compat_leave(client, &call);
    return compat_error(status);
}
