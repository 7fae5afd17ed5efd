/* work.c - what clients do.
 *
 * Contents are functions of their name, so any wrong byte shows: a block's bytes follow from its number; a named value begins
 * with the number of the value, and the rest follows from that. */
#include "work.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"

enum { OPS_AT_ONCE = 4 };

uint64_t disturbed_for(struct world *world, uint64_t ns)
{
    if (world->now + ns > world->disturbed)
        world->disturbed = world->now + ns;
    return ns;
}

bool calm(const struct world *world)
{
    return world->now > world->disturbed + CALM_MS * NS_PER_MS;
}

/* ---- contents ---- */

static const uint64_t lengths[] = {100, 700, 700, 3000, 3000, 9000};

uint64_t length_of(uint32_t value)
{
    return lengths[hash_mix(value) % 6];
}

void fill(uint8_t *dst, uint32_t value, uint64_t from, uint64_t len)
{
    for (uint64_t i = 0; i < len; i++) {
        uint64_t at = from + i;
        uint64_t word = at < 8 ? value : hash_mix((uint64_t)value << 32 ^ at / 8);

        dst[i] = (uint8_t)(word >> 8 * (at % 8));
    }
}

bool is_content(const uint8_t *bytes, uint32_t value, uint64_t from, uint64_t len)
{
    uint8_t want[VALUE_SIZE_MAX];

    fill(want, value, from, len);
    return memcmp(bytes, want, len) == 0;
}

static void block_id(struct world *world, uint32_t block, uint8_t id[16])
{
    le64_put(id, hash_mix(world->seed ^ block));
    le64_put(id + 8, hash_mix(block + 77));
}

void block_key(struct world *world, uint32_t block, struct mc_key *key)
{
    uint32_t part = block < PARTED ? 0 : (block - PARTED) % SHARDS;
    uint8_t id[16];

    block_id(world, block - part, id);
    mc_key_block(key, id);
    if (block >= PARTED) {
        key->shard = (uint16_t)part;
        key->shards = SHARDS;
    }
}

static uint32_t value_new(struct world *world, uint32_t key)
{
    if (world->values_n + 1 >= VALUES_MAX)
        return 0;
    world->values[++world->values_n] = (struct value){.key = key};
    return world->values_n;
}

/* ---- starting operations ---- */

struct op *op_new(struct proc *client, bool named, uint32_t key)
{
    struct op *op = calloc(1, sizeof(*op));
    struct world *world = client->world;

    if (!op)
        abort();
    op->client = client;
    op->named = named;
    op->key = key;
    op->started = world->now;
    op->call.kind = CALL_OP;
    op->call.user = op;
    op->calm = calm(world);
    op->call.deadline_ns = world->now + (200 + rng_below(&world->rng, 1500)) * NS_PER_MS;
    op->what = OTHER;
    if (named) {
        snprintf(op->name, sizeof(op->name), "name-%u", key);
        mc_key_named(&op->sop.key, op->name, strlen(op->name));
        op->required = world->names[key].required;
        op->known = world->names[key].required;
        op->seen = world->seen[client->number - 1 - world->nodes_n][key];
        op->exempts = world->names[key].exempt;
    } else {
        block_key(world, key, &op->sop.key);
    }
    return op;
}

void op_go(struct op *op)
{
    struct world *world = op->client->world;
    enum mc_status status;

    if (op->call.kind == CALL_OP)
        op->call.op = &op->sop;
    status = client_core_start(op->client->client, world->now, &op->call);
    if (status != MC_OK) {
        world_fail(world, "operation refused: %s", mc_status_str(status));
        free(op->data);
        free(op);
        return;
    }
    op->client->running++;
    world->ops++;
}

/* A source in one or two pieces, in one or more planes. */
static void op_source(struct op *op, uint32_t value)
{
    struct world *world = op->client->world;

    if (!op->named)
        world->blocks[op->key].begun = true;
    op->value = value;
    op->length = length_of(value);
    op->hasty = rng_chance(&world->rng, 0.25);
    if (op->hasty) /* too short for some: given up in the middle */
        op->call.deadline_ns = world->now + (1 + rng_below(&world->rng, 15)) * NS_PER_MS;
    op->data = malloc(op->length);
    if (!op->data)
        abort();
    fill(op->data, value, 0, op->length);
    op->span[0] = (struct mc_span){op->data, op->length};
    op->sop.spans = op->span;
    op->sop.nspans = 1;
    if (rng_chance(&world->rng, 0.3)) {
        uint64_t cut = 1 + rng_below(&world->rng, op->length - 1);

        op->span[0].len = cut;
        op->span[1] = (struct mc_span){op->data + cut, op->length - cut};
        op->sop.nspans = 2;
    }
    if (rng_chance(&world->rng, 0.6)) {
        op->planes[0] = op->length / 4;
        op->planes[1] = op->length / 2;
        op->planes[2] = op->length - op->planes[0] - op->planes[1];
        op->meta.plane_bytes = op->planes;
        op->meta.planes = 3;
    }
    if (rng_chance(&world->rng, 0.15))
        op->meta.replicas = 2;
    if (!op->named && op->key > 0 && op->key < PARTED && rng_chance(&world->rng, 0.5)) {
        block_id(world, op->key - 1, op->meta.parent);
        op->meta.depth = op->key;
    }
    op->sop.meta = &op->meta;
}

static void go_put(struct proc *client, bool named, bool upsert)
{
    struct world *world = client->world;
    struct op *op = op_new(client, named, (uint32_t)rng_below(&world->rng, named ? NAMES : BLOCKS));
    uint32_t value = named ? value_new(world, op->key) : BLOCK_VALUE + op->key;

    if (value == 0) {
        free(op);
        return;
    }
    op->sop.opcode = upsert ? MC_UPSERT : MC_PUT;
    op_source(op, value);
    op_go(op);
}

static void get_go(struct op *op)
{
    struct world *world = op->client->world;

    op->sop.opcode = MC_GET;
    op->data = malloc(VALUE_SIZE_MAX);
    if (!op->data)
        abort();
    memset(op->data, 0x5a, VALUE_SIZE_MAX);
    op->what = WHOLE;
    if (!op->final && !op->named && rng_chance(&world->rng, 0.3)) {
        uint64_t length = length_of(BLOCK_VALUE + op->key);

        op->what = RANGES;
        op->sop.ranges = op->range;
        op->sop.nranges = 1 + (uint32_t)rng_below(&world->rng, 3);
        for (uint32_t i = 0; i < op->sop.nranges; i++) {
            uint64_t from = rng_chance(&world->rng, 0.3) ? length / 4 : rng_below(&world->rng, length);

            op->range[i] = (struct mc_range){
                .offset = from, .len = rng_below(&world->rng, length - from + 1), .local = op->data + i * 3000};
            if (op->range[i].len > 3000)
                op->range[i].len = 3000;
        }
    } else {
        uint64_t cut = 64 + rng_below(&world->rng, 2000);

        op->span[0] = (struct mc_span){op->data, cut};
        op->span[1] = (struct mc_span){op->data + cut, VALUE_SIZE_MAX - cut};
        op->sop.spans = op->span;
        op->sop.nspans = 2;
    }
    if (op->named && !op->final && near_get(op)) {
        op->call.status = MC_OK;
        op->client->running++;
        world->ops++;
        world->near++;
        work_done(op->client, &op->call);
        return;
    }
    op_go(op);
}

void go_get(struct proc *client, bool named, uint32_t key, bool final)
{
    struct op *op = op_new(client, named, key);

    op->final = final;
    get_go(op);
}

void go_must_get(struct proc *client, uint32_t block)
{
    struct op *op = op_new(client, false, block);

    op->must_find = true;
    get_go(op);
}

void go_simple(struct proc *client, enum mc_store_opcode opcode, bool named, uint32_t key, bool must_find)
{
    struct op *op = op_new(client, named, key);

    op->sop.opcode = opcode;
    op->sop.force = true;
    op->must_find = must_find;
    if (opcode == MC_REMOVE && !named)
        client->world->blocks[key].removed = true;
    op_go(op);
}

void go_prefix(struct proc *client, bool parted, uint16_t shard, uint32_t n, bool final)
{
    struct op *op = op_new(client, false, 0);

    op->what = PREFIX;
    op->final = final;
    op->call.kind = CALL_PREFIX;
    op->call.prefix.n = n;
    op->call.prefix.shard = parted ? shard : 0;
    op->call.prefix.shards = parted ? SHARDS : 1;
    for (uint32_t i = 0; i < n; i++)
        block_id(client->world, parted ? PARTED + i * SHARDS : i, op->ids[i]);
    op->call.prefix.ids = (const uint8_t(*)[16])op->ids;
    op->call.prefix.nodes = op->nodes;
    op->call.prefix.nodes_max = NODES_MAX;
    op_go(op);
}

static void go_any_prefix(struct proc *client)
{
    struct rng *rng = &client->world->rng;
    bool parted = rng_chance(rng, 0.5);

    go_prefix(client, parted, (uint16_t)rng_below(rng, SHARDS),
        1 + (uint32_t)rng_below(rng, parted ? (BLOCKS - PARTED) / SHARDS : PARTED), false);
}

void go_model(struct proc *client, uint32_t model, uint32_t record, bool final)
{
    struct op *op = op_new(client, true, 0);

    op->what = MODEL;
    op->final = final;
    op->key = model;
    op->value = record;
    snprintf(op->name, sizeof(op->name), "model-%u", model);
    snprintf(op->record, sizeof(op->record), "%u", record);
    buf_init(&op->other, sizeof(op->record));
    op->call.kind = CALL_MODEL;
    op->call.model.name = slice_str(op->name);
    op->call.model.record = slice_str(op->record);
    op->call.model.other = &op->other;
    op_go(op);
}

static void go_pin(struct proc *client)
{
    struct world *world = client->world;
    struct op *op = op_new(client, false, 0);

    op->what = PIN;
    op->call.kind = CALL_PIN;
    op->call.pins.n = 1 + (uint32_t)rng_below(&world->rng, 3);
    for (uint32_t i = 0; i < op->call.pins.n; i++) {
        block_key(world, (uint32_t)rng_below(&world->rng, BLOCKS), &op->keys[i]);
    }
    op->call.pins.keys = op->keys;
    op->call.pins.pin_ms = 50 + (uint32_t)rng_below(&world->rng, 2000);
    op_go(op);
}

static void go_view(struct proc *client)
{
    struct op *op = op_new(client, false, (uint32_t)rng_below(&client->world->rng, BLOCKS));

    op->what = VIEW;
    op->call.kind = CALL_VIEW;
    op->call.view.key = op->sop.key;
    op->call.view.pin_ms = 300;
    op_go(op);
}

static void go_part(struct proc *client)
{
    struct op *op = op_new(client, false, (uint32_t)rng_below(&client->world->rng, BLOCKS));

    op->what = PART_BEGIN;
    op_source(op, BLOCK_VALUE + op->key);
    op->call.kind = CALL_PART_BEGIN;
    op->call.part.key = op->sop.key;
    op->call.part.length = op->length;
    op->call.part.meta = &op->meta;
    op_go(op);
}

bool part_goes_on(struct world *world, struct op *op)
{
    if (op->call.status != MC_OK || !op->client->alive || !op->client->client || world->quiet)
        return false;
    if (op->what == PART_BEGIN)
        op->part = op->call.part.handle;
    else if (op->what == PART_WRITE)
        op->at += op->call.part.length;
    else
        return false;
    if (rng_chance(&world->rng, 0.05)) {
        client_core_part_abort(op->client->client, world->now, op->part);
        return false;
    }
    op->what = op->at < op->length ? PART_WRITE : PART_COMMIT;
    op->call.kind = op->at < op->length ? CALL_PART_WRITE : CALL_PART_COMMIT;
    op->call.deadline_ns = world->now + NS_PER_S;
    op->call.part.handle = op->part;
    op->call.part.offset = op->at;
    op->call.part.data = op->data + op->at;
    op->call.part.length = 1 + rng_below(&world->rng, 2500);
    if (op->call.part.length > op->length - op->at)
        op->call.part.length = op->length - op->at;
    if (client_core_start(op->client->client, world->now, &op->call) != MC_OK)
        return false;
    op->client->running++;
    return true;
}

static void on_work(struct world *world, struct event *event)
{
    struct proc *client = event->proc;
    uint64_t dice = rng_below(&world->rng, 100);
    uint32_t block = (uint32_t)rng_below(&world->rng, BLOCKS), name = (uint32_t)rng_below(&world->rng, NAMES);

    if (world->quiet)
        return;
    world_after(world, (uint64_t)rng_exponential(&world->rng, 12e6), client, on_work, NULL, 0);
    if (client->running >= OPS_AT_ONCE)
        return;
    if (rng_chance(&world->rng, 0.15)) {
        uint32_t bundle = (uint32_t)rng_below(&world->rng, SETS);

        if (rng_chance(&world->rng, 0.3))
            go_bundle(client, bundle);
        else if (rng_chance(&world->rng, 0.3))
            go_member(client, bundle, (uint32_t)rng_below(&world->rng, MEMBERS));
        else
            go_look(client, bundle, false);
        return;
    }
    if (dice < 22)
        go_put(client, false, false);
    else if (dice < 50)
        go_get(client, false, block, false);
    else if (dice < 56)
        go_put(client, true, false);
    else if (dice < 65)
        go_put(client, true, true);
    else if (dice < 79)
        go_get(client, true, name, false);
    else if (dice < 82)
        go_simple(client, MC_REMOVE, false, block, false);
    else if (dice < 84)
        go_simple(client, MC_REMOVE, true, name, false);
    else if (dice < 88)
        go_simple(client, MC_EXISTS, false, block, false);
    else if (dice < 91)
        go_any_prefix(client);
    else if (dice < 92)
        go_model(client, (uint32_t)rng_below(&world->rng, MODELS), 1 + (uint32_t)rng_below(&world->rng, 3), false);
    else if (dice < 94)
        go_pin(client);
    else if (dice < 96)
        go_view(client);
    else
        go_part(client);
}

void work_start(struct proc *client)
{
    client->running = 0;
    memset(client->world->seen[client->number - 1 - client->world->nodes_n], 0, sizeof(client->world->seen[0]));
    world_after(client->world, rng_below(&client->world->rng, 20 * NS_PER_MS), client, on_work, NULL, 0);
}

void work_proc_gone(struct proc *client)
{
    if (client->running)
        world_fail(client->world, "close left %u operations", client->running);
}
