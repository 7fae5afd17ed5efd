/* work.c - what clients do, what breaks meanwhile, and what must hold.
 *
 * Contents are functions of their name, so any wrong byte shows: a block's bytes follow from its number; a named value begins
 * with the number of the value, and the rest follows from that. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "sim.h"
#include "store/client/client_impl.h"
#include "store/index/index_impl.h"
#undef SLAB_BITS

enum { OPS_AT_ONCE = 4, CALM_MS = 1500, BLOCK_VALUE = 1 << 24 };

enum what { WHOLE, RANGES, PREFIX, PIN, VIEW, PART_BEGIN, PART_WRITE, PART_COMMIT, OTHER };

struct op {
    struct client_call call;
    struct mc_store_op sop;
    struct proc *client;
    enum what what;
    bool named, must_find, final, calm;
    uint32_t key, value;
    uint64_t started, stops;
    uint64_t required, known, seen;
    uint32_t exempts;
    uint64_t length;
    uint8_t *data;
    struct mc_span span[2];
    struct mc_range range[3];
    struct mc_key keys[8];
    uint8_t ids[BLOCKS][16];
    char name[16];
    uint64_t planes[3];
    struct mc_object_meta meta;
    uint64_t part;
    uint64_t at;
    bool damaged;
};

static uint64_t disturbed_for(struct world *world, uint64_t ns)
{
    if (world->now + ns > world->disturbed)
        world->disturbed = world->now + ns;
    return ns;
}

static bool calm(const struct world *world)
{
    return world->now > world->disturbed + CALM_MS * NS_PER_MS;
}

/* ---- contents ---- */

static const uint64_t lengths[] = {100, 700, 700, 3000, 3000, 9000};

static uint64_t length_of(uint32_t value)
{
    return lengths[hash_mix(value) % 6];
}

static void fill(uint8_t *dst, uint32_t value, uint64_t from, uint64_t len)
{
    for (uint64_t i = 0; i < len; i++) {
        uint64_t at = from + i;
        uint64_t word = at < 8 ? value : hash_mix((uint64_t)value << 32 ^ at / 8);

        dst[i] = (uint8_t)(word >> 8 * (at % 8));
    }
}

static bool is_content(const uint8_t *bytes, uint32_t value, uint64_t from, uint64_t len)
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

static uint32_t value_new(struct world *world, uint32_t key)
{
    if (world->values_n + 1 >= VALUES_MAX)
        return 0;
    world->values[++world->values_n] = (struct value){.key = key};
    return world->values_n;
}

/* ---- starting operations ---- */

static struct op *op_new(struct proc *client, bool named, uint32_t key)
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
        uint8_t id[16];

        block_id(world, key, id);
        mc_key_block(&op->sop.key, id);
    }
    return op;
}

static void op_go(struct op *op)
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

    op->value = value;
    op->length = length_of(value);
    if (rng_chance(&world->rng, 0.25)) /* too short for some: given up in the middle */
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
    if (!op->named && op->key > 0 && rng_chance(&world->rng, 0.5)) {
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

static void go_get(struct proc *client, bool named, uint32_t key, bool final)
{
    struct world *world = client->world;
    struct op *op = op_new(client, named, key);

    op->sop.opcode = MC_GET;
    op->final = final;
    op->data = malloc(VALUE_SIZE_MAX);
    if (!op->data)
        abort();
    memset(op->data, 0x5a, VALUE_SIZE_MAX);
    op->what = WHOLE;
    if (!final && !named && rng_chance(&world->rng, 0.3)) {
        uint64_t length = length_of(BLOCK_VALUE + key);

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
    op_go(op);
}

static void go_simple(struct proc *client, enum mc_store_opcode opcode, bool named, uint32_t key, bool must_find)
{
    struct op *op = op_new(client, named, key);

    op->sop.opcode = opcode;
    op->sop.force = true;
    op->must_find = must_find;
    if (opcode == MC_REMOVE && !named)
        client->world->blocks[key].removed = true;
    op_go(op);
}

static void go_prefix(struct proc *client)
{
    struct op *op = op_new(client, false, 0);

    op->what = PREFIX;
    op->call.kind = CALL_PREFIX;
    op->call.prefix.n = 1 + (uint32_t)rng_below(&client->world->rng, BLOCKS);
    for (uint32_t i = 0; i < op->call.prefix.n; i++)
        block_id(client->world, i, op->ids[i]);
    op->call.prefix.ids = (const uint8_t(*)[16])op->ids;
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
        uint8_t id[16];

        block_id(world, (uint32_t)rng_below(&world->rng, BLOCKS), id);
        mc_key_block(&op->keys[i], id);
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
    else if (dice < 92)
        go_prefix(client);
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

/* ---- judging results ---- */

static uint32_t holder_of(const struct world *world, const uint8_t node[16])
{
    for (uint32_t i = 1; i <= world->nodes_n; i++)
        if (memcmp(world->procs[i].uuid, node, 16) == 0)
            return i;
    return 0;
}

static void judge_block_put(struct world *world, struct op *op)
{
    struct block_state *block = &world->blocks[op->key];
    const struct mc_store_result *r = op->what == PART_COMMIT ? &op->call.part.result : &op->sop.result;

    if (op->call.status != MC_OK)
        return;
    block->holder = holder_of(world, r->node);
    block->holder_incarnation = world->procs[block->holder].incarnation;
    block->acked = block->holder != 0;
    if (!r->unindexed && op->calm && calm(world) && world->ample && !block->removed && op->what == OTHER) {
        struct proc *reader = &world->procs[1 + world->nodes_n + rng_below(&world->rng, world->clients_n)];

        if (proc_runs(reader) && !world->quiet)
            go_simple(reader, MC_EXISTS, false, op->key, true);
        proc_poll(reader);
    }
}

static void judge_name_put(struct world *world, struct op *op)
{
    struct name_state *name = &world->names[op->key];
    const struct mc_store_result *r = &op->sop.result;

    if (op->call.status != MC_OK) {
        name->open = true;
        return;
    }
    if (r->version == 0)
        world_fail(world, "put of %s acknowledged without a version", op->name);
    if (r->version > name->required && op->exempts == name->exempt)
        name->required = r->version;
    if (op->sop.opcode == MC_UPSERT && op->calm && calm(world))
        name->tainted = false;
    name->acked = true;
    name->open = false;
    name->risky |= !op->calm || !calm(world);
    name->holder = holder_of(world, r->node);
    name->holder_incarnation = world->procs[name->holder].incarnation;
    if (!r->existed) {
        struct value *value = &world->values[op->value];

        if (value->version && value->version != r->version)
            world_fail(world, "value %u of %s has two versions", op->value, op->name);
        value->version = r->version;
    }
}

static void judge_name_version(struct world *world, struct op *op, uint32_t value)
{
    struct name_state *name = &world->names[op->key];
    uint64_t version = op->sop.result.version;
    uint64_t *seen = &world->seen[op->client->number - 1 - world->nodes_n][op->key];

    if (!name->tainted && op->exempts == name->exempt && !op->sop.result.maybe_stale && version < op->required)
        world_fail(world, "%s went back to version %llx behind %llx", op->name, (unsigned long long)version,
            (unsigned long long)op->required);
    /* The reader's own memory of versions is bounded, so for exempt names it is not held to it. */
    if (name->exempt == 0 && version < op->seen)
        world_fail(world, "reader %u saw %s go back to %llx behind %llx", op->client->number, op->name,
            (unsigned long long)version, (unsigned long long)op->seen);
    if (version > *seen)
        *seen = version;
    if (world->values[value].version && world->values[value].version != version)
        world_fail(world, "value %u of %s has versions %llx and %llx", value, op->name,
            (unsigned long long)world->values[value].version, (unsigned long long)version);
    world->values[value].version = version;
    for (uint32_t i = 1; i <= world->values_n; i++)
        if (i != value && world->values[i].key == op->key && world->values[i].version == version)
            world_fail(world, "values %u and %u of %s have one version", i, value, op->name);
}

static void judge_bytes(struct world *world, struct op *op)
{
    uint64_t length = op->sop.result.length;
    uint32_t value = op->named ? (uint32_t)le64_get(op->data) : BLOCK_VALUE + op->key;

    if (op->what == RANGES) {
        for (uint32_t i = 0; i < op->sop.nranges; i++)
            if (!is_content(op->range[i].local, value, op->range[i].offset, op->range[i].len))
                world_fail(world, "wrong bytes in a range of block %u", op->key);
        return;
    }
    if (op->named && (value == 0 || value > world->values_n || world->values[value].key != op->key)) {
        world_fail(world, "%s has bytes nobody wrote to it", op->name);
        return;
    }
    if (length != length_of(value) || !is_content(op->data, value, 0, length)) {
        world_fail(world, "wrong bytes in %s %u", op->named ? "name" : "block", op->key);
        return;
    }
    if (op->named)
        judge_name_version(world, op, value);
}

/* Is the key on a living node, in good order? */
static bool held(struct world *world, const struct op *op)
{
    struct store_key key;
    struct node_object object;

    store_key_from(7, &op->sop.key, &key);
    for (uint32_t i = 1; i <= world->nodes_n; i++)
        for (uint32_t at = 0; world->procs[i].alive && node_core_object(world->procs[i].node, &at, &object);)
            if (object.indexed && store_key_eq(&object.entry.key, &key))
                return true;
    return false;
}

static void judge_final(struct world *world, struct op *op)
{
    bool is_held = held(world, op), acked;
    uint32_t holder, incarnation;

    if (op->named) {
        struct name_state *name = &world->names[op->key];

        acked = name->acked && !name->open && !name->risky && !name->exempt;
        holder = name->holder;
        incarnation = name->holder_incarnation;
    } else {
        struct block_state *block = &world->blocks[op->key];

        acked = block->acked && !block->removed;
        holder = block->holder;
        incarnation = block->holder_incarnation;
    }
    if (op->named && world->names[op->key].exempt && op->sop.result.miss == MC_MISS_STALE)
        return; /* this reader knows of a newer version than the cluster has left, and refuses */
    if (world->flips == 0 && is_held && op->call.status != MC_OK)
        world_fail(world, "%s %u is held and cannot be read: %s, miss %d", op->named ? "name" : "block", op->key,
            mc_status_str(op->call.status), op->sop.result.miss);
    if (world->flips == 0 && world->ample && acked && holder && world->procs[holder].incarnation == incarnation &&
        !is_held)
        world_fail(world, "acknowledged %s %u is gone from a living node", op->named ? "name" : "block", op->key);
}

static void judge_get(struct world *world, struct op *op)
{
    const struct mc_store_result *r = &op->sop.result;

    if (op->call.status == MC_OK) {
        world->hits++;
        judge_bytes(world, op);
    } else {
        world->misses++;
        if (r->miss == MC_MISS_CORRUPT && world->flips == 0)
            world_fail(world, "%s %u is corrupt and nothing flipped a bit", op->named ? "name" : "block", op->key);
        if (op->call.status == MC_ENOENT && r->miss == MC_MISS_NONE)
            world_fail(world, "a miss without a reason");
    }
    if (op->final)
        judge_final(world, op);
}

static void judge_remove(struct world *world, struct op *op)
{
    struct name_state *name;

    if (!op->named)
        return;
    name = &world->names[op->key];
    if (op->call.status == MC_OK) {
        if (op->known + 1 > name->required && op->exempts == name->exempt)
            name->required = op->known + 1;
        name->risky |= !op->calm || !calm(world);
    }
    name->acked = false;
    name->open = true;
}

static void judge_exists(struct world *world, struct op *op)
{
    if (op->must_find && op->call.status != MC_OK && calm(world) && op->calm && !world->blocks[op->key].removed &&
        op->call.status != MC_ETIMEDOUT && op->call.status != MC_ECLOSED && world->flips == 0)
        world_fail(world, "block %u was acknowledged and the next query does not find it: %s", op->key,
            mc_status_str(op->call.status));
}

static void judge_view(struct world *world, struct op *op)
{
    struct mc_view *view = &op->call.view.out;
    uint32_t value = BLOCK_VALUE + op->key;

    if (op->call.status != MC_OK)
        return;
    if (view->length != length_of(value) || !is_content(view->addr, value, 0, view->length))
        world_fail(world, "wrong bytes in a view of block %u", op->key);
    if (op->client->client)
        client_core_view_release(op->client->client, world->now, view);
}

/* The next step of a put in parts. False: it is over. */
static bool part_goes_on(struct world *world, struct op *op)
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

static void judge_time(struct world *world, const struct op *op)
{
    if (world->now > op->call.deadline_ns + 50 * NS_PER_MS && calm(world) && op->calm)
        world_fail(world, "an operation ended %llu ms after its deadline",
            (unsigned long long)((world->now - op->call.deadline_ns) / NS_PER_MS));
}

void work_done(struct proc *client, struct client_call *call)
{
    struct world *world = client->world;
    struct op *op = call->user;

    client->running--;
    world->oks += call->status == MC_OK;
    world_mix(world, (uint64_t)(uint32_t)call->status << 32 | op->key);
    world_trace(world, "client %u kind %d op %d %s %u: %s miss %d version %llx", client->number, call->kind,
        call->kind == CALL_OP ? (int)op->sop.opcode : 0, op->named ? "name" : "block", op->key,
        mc_status_str(call->status), op->sop.result.miss, (unsigned long long)op->sop.result.version);
    judge_time(world, op);
    if (call->kind == CALL_OP) {
        switch (op->sop.opcode) {
        case MC_PUT:
        case MC_UPSERT: op->named ? judge_name_put(world, op) : judge_block_put(world, op); break;
        case MC_GET: judge_get(world, op); break;
        case MC_EXISTS: judge_exists(world, op); break;
        case MC_REMOVE: judge_remove(world, op); break;
        }
    } else if (op->what == VIEW) {
        judge_view(world, op);
    } else if (op->what == PIN && call->status == MC_OK && client->client && rng_chance(&world->rng, 0.7)) {
        client_core_unpin(client->client, world->now, call->pins.token);
    } else if (op->what == PART_COMMIT) {
        judge_block_put(world, op);
    }
    if (part_goes_on(world, op))
        return;
    free(op->data);
    free(op);
}

/* ---- faults ---- */

static void on_restart(struct world *world, struct event *event)
{
    if (!world->procs[event->number].alive)
        proc_start(&world->procs[event->number]);
}

static void on_fast_again(struct world *world, struct event *event)
{
    world->procs[event->number].slow = 0;
}

static void fault_kill(struct world *world, struct proc *proc)
{
    uint64_t down = 50 * NS_PER_MS + rng_below(&world->rng, 1500 * NS_PER_MS);

    if (!proc->alive)
        return;
    if (proc->kind == PROC_MASTER)
        for (int i = 0; i < NAMES; i++)
            if (world->names[i].risky) {
                world->names[i].exempt++;
                world->names[i].required = 0;
                world->names[i].risky = false;
                world->names[i].tainted = true;
                world->names[i].open = true;
            }
    proc_kill(proc);
    disturbed_for(world, down + 500 * NS_PER_MS);
    world_after(world, down, NULL, on_restart, NULL, proc->number);
}

static void on_reset(struct world *world, struct event *event)
{
    link_reset(world, event->arg);
}

/* Black-hole links for a while; at the end they heal, or are found broken. */
static void cut(struct world *world, struct link *link, uint64_t ns)
{
    link->cut_until = world->now + ns;
    disturbed_for(world, ns + 500 * NS_PER_MS);
    if (rng_chance(&world->rng, 0.5))
        world_after(world, ns, NULL, on_reset, link, 0);
}

static void fault_cut(struct world *world, struct proc *proc)
{
    uint64_t ns = 20 * NS_PER_MS + rng_below(&world->rng, 2500 * NS_PER_MS);

    world_trace(world, "cut %u for %llu ms", proc->number, (unsigned long long)(ns / NS_PER_MS));
    for (uint32_t i = 0; i < world->links_n; i++)
        if ((world->links[i].a == proc || world->links[i].b == proc) && rng_chance(&world->rng, 0.8))
            cut(world, &world->links[i], ns);
}

static void fault_flip(struct world *world)
{
    struct proc *node = &world->procs[1 + rng_below(&world->rng, world->nodes_n)];
    struct node_object object;
    uint32_t n = 0, pick;
    uint64_t bit;

    if (!world->may_flip || !node->alive)
        return;
    for (uint32_t at = 0; node_core_object(node->node, &at, &object);)
        n++;
    if (n == 0)
        return;
    pick = (uint32_t)rng_below(&world->rng, n);
    for (uint32_t at = 0; node_core_object(node->node, &at, &object) && pick > 0;)
        pick--;
    bit = rng_below(&world->rng, 8 * (object.entry.head + object.entry.length));
    node->memory[object.entry.segment][object.entry.offset + bit / 8] ^= (uint8_t)(1 << bit % 8);
    world->flips++;
    world_trace(world, "flip a bit on %u", node->number);
}

static void on_fault(struct world *world, struct event *event)
{
    struct proc *node = &world->procs[1 + rng_below(&world->rng, world->nodes_n)];
    struct proc *client = &world->procs[1 + world->nodes_n + rng_below(&world->rng, world->clients_n)];
    struct proc *any = &world->procs[rng_below(&world->rng, world->procs_n)];
    uint64_t ns = 50 * NS_PER_MS + rng_below(&world->rng, 2000 * NS_PER_MS);

    if (world->quiet)
        return;
    world->faults++;
    switch (rng_below(&world->rng, 10)) {
    case 0: fault_kill(world, node); break;
    case 1: fault_kill(world, &world->procs[0]); break;
    case 2: fault_kill(world, client); break;
    case 3:
    case 4:
        if (any->alive && any->stopped_until <= world->now) {
            disturbed_for(world, ns + 500 * NS_PER_MS);
            proc_stop(any, ns);
        }
        break;
    case 5:
    case 6: fault_cut(world, any); break;
    case 7:
        disturbed_for(world, 500 * NS_PER_MS);
        link_reset(world, &world->links[rng_below(&world->rng, world->links_n)]);
        break;
    case 8:
        disturbed_for(world, ns + 500 * NS_PER_MS);
        any->slow = rng_below(&world->rng, 30 * NS_PER_MS);
        world_after(world, ns, NULL, on_fast_again, NULL, any->number);
        break;
    default: fault_flip(world); break;
    }
    world_after(world, (uint64_t)rng_exponential(&world->rng, 1.3e9), NULL, on_fault, NULL, 0);
}

void faults_start(struct world *world)
{
    world_after(world, NS_PER_S, NULL, on_fault, NULL, 0);
}

/* ---- what must hold ---- */

void checks_always(struct world *world)
{
    struct store_ledger ledger;

    if (world->events % 16)
        return;
    for (uint32_t i = 1; i <= world->nodes_n; i++) {
        if (!world->procs[i].alive)
            continue;
        node_core_ledger(world->procs[i].node, &ledger);
        if (!store_ledger_exact(&ledger))
            world_fail(world, "the ledger of node %u is not exact", i);
    }
}

static void run_until(struct world *world, uint64_t until)
{
    while (world->heap_n && world->heap[0]->at <= until && world->failures == 0)
        world_step(world);
    if (world->now < until)
        world->now = until;
}

static void heal(struct world *world)
{
    world->quiet = true;
    for (uint32_t i = 0; i < world->links_n; i++)
        if (world->links[i].cut_until > world->now)
            world->links[i].cut_until = world->now;
    for (uint32_t i = 0; i < world->procs_n; i++) {
        world->procs[i].slow = 0;
        if (!world->procs[i].alive)
            proc_start(&world->procs[i]);
    }
    run_until(world, world->now + 13 * NS_PER_S); /* parts that were left alone idle for 10 s */
}

/* Name one copy that the index knows and its node does not. */
static void blame_copy(struct world *world, char *text, size_t size)
{
    const struct index_core *index = world->procs[0].index;

    text[0] = 0;
    for (uint32_t m = 0; m < index->members_top; m++) {
        uint32_t next = table_first_of(index->table, (uint16_t)m), at, entry;
        struct table_copy copy;
        struct proc *node = NULL;

        for (uint32_t i = 1; i <= world->nodes_n; i++)
            if (memcmp(world->procs[i].uuid, index->members[m].info.uuid, 16) == 0)
                node = &world->procs[i];
        while (node && table_next_of(index->table, &next, &at, &entry, &copy)) {
            struct node_object object;
            bool there = false;

            for (uint32_t o = 0; !there && node_core_object(node->node, &o, &object);)
                there = object.entry.generation == copy.generation;
            if (!there)
                snprintf(text, size, "generation %llx of node %u, version %llx%s", (unsigned long long)copy.generation,
                    node->number, (unsigned long long)copy.version, copy.doomed ? ", doomed" : "");
        }
    }
}

static void check_nodes(struct world *world)
{
    struct index_stats stats;
    uint64_t present = 0;
    char blame[128];

    index_core_stats(world->procs[0].index, &stats);
    for (uint32_t i = 1; i <= world->nodes_n; i++) {
        struct store_ledger ledger;
        struct store_beat beat;

        node_core_ledger(world->procs[i].node, &ledger);
        node_core_beat(world->procs[i].node, &beat);
        present += ledger.row[LEDGER_PRESENT].objects;
        if (!store_ledger_exact(&ledger))
            world_fail(world, "the ledger of node %u is not exact at rest", i);
        if (ledger.row[LEDGER_IN_FLIGHT].objects || beat.unindexed)
            world_fail(world, "node %u has %llu objects in flight at rest, %llu unindexed", i,
                (unsigned long long)ledger.row[LEDGER_IN_FLIGHT].objects, (unsigned long long)beat.unindexed);
        if (world->ample && ledger.row[LEDGER_EVICTED_SPACE].objects + ledger.row[LEDGER_EVICTED_WATERMARK].objects)
            world_fail(world, "node %u evicted with memory to spare", i);
    }
    if (stats.nodes_up != world->nodes_n)
        world_fail(world, "%u of %u nodes are up at rest", stats.nodes_up, world->nodes_n);
    blame_copy(world, blame, sizeof(blame));
    if (world->flips == 0 && (present != stats.copies || blame[0]))
        world_fail(world, "nodes hold %llu objects, the index knows %llu: %s", (unsigned long long)present,
            (unsigned long long)stats.copies, blame);
    if (!list_empty(&world->procs[0].index->pendings) || !list_empty(&world->procs[0].index->drops))
        world_fail(world, "the master waits for something at rest");
}

static void check_clients(struct world *world)
{
    for (uint32_t i = 1 + world->nodes_n; i < world->procs_n; i++) {
        struct proc *client = &world->procs[i];

        if (client->running || client->client->call_pool.used || client->client->lookup_pool.used)
            world_fail(world, "client %u has %u operations at rest", i, client->running);
        if (client->client->requests.count)
            world_fail(world, "client %u has %zu requests at rest", i, client->client->requests.count);
    }
    if (!list_empty(&world->copies))
        world_fail(world, "a copy is under way at rest");
    for (int i = 0; i < REGIONS_MAX; i++)
        if (world->regions[i].id)
            world_fail(world, "a region is exposed at rest");
}

void checks_end(struct world *world)
{
    heal(world);
    if (world->failures)
        return;
    check_nodes(world);
    check_clients(world);
    for (uint32_t i = 1 + world->nodes_n; i < world->procs_n; i++) {
        for (uint32_t block = 0; block < BLOCKS; block++)
            go_get(&world->procs[i], false, block, true);
        for (uint32_t name = 0; name < NAMES; name++)
            go_get(&world->procs[i], true, name, true);
        proc_poll(&world->procs[i]);
    }
    run_until(world, world->now + 3 * NS_PER_S);
    if (world->failures == 0)
        check_clients(world);
}
