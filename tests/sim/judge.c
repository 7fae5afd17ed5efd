/* judge.c - is the outcome of an operation one that the Store allows? */
#include <stdlib.h>
#include <string.h>

#include "work.h"

static uint32_t holder_of(const struct world *world, const uint8_t node[16])
{
    for (uint32_t i = 1; i <= world->nodes_n; i++)
        if (memcmp(world->procs[i].uuid, node, 16) == 0)
            return i;
    return 0;
}

/* Nodes that drain refuse; then another one takes it. */
void judge_refusal(struct world *world, const struct op *op)
{
    const char *kind = op->what == BUNDLE ? "bundle" : op->named ? "name" : "block";

    if (op->call.status != MC_EBUSY || op->hasty || !op->calm || !calm(world) || world->bug == BUG_HALF)
        return; /* what that fault makes of bundles is refused later */
    for (uint32_t i = 1; i <= world->nodes_n; i++)
        if (!world->procs[i].draining)
            world_fail(world, "a put of %s %u was refused while node %u takes puts", kind, op->key, i);
}

static void judge_block_put(struct world *world, struct op *op)
{
    struct block_state *block = &world->blocks[op->key];
    const struct mc_store_result *r = op->what == PART_COMMIT ? &op->call.part.result : &op->sop.result;

    judge_refusal(world, op);
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

    judge_refusal(world, op);
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
static bool held(struct world *world, const struct mc_key *wanted)
{
    struct store_key key;
    struct node_object object;

    store_key_from(7, wanted, &key);
    for (uint32_t i = 1; i <= world->nodes_n; i++)
        for (uint32_t at = 0; world->procs[i].alive && node_core_object(world->procs[i].node, &at, &object);)
            if (object.indexed && store_key_eq(&object.entry.key, &key))
                return true;
    return false;
}

static void judge_final(struct world *world, struct op *op)
{
    bool is_held = held(world, &op->sop.key), acked;
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

/* What was acknowledged is found, in calm. */
static void judge_must_find(struct world *world, struct op *op)
{
    if (op->call.status == MC_OK || op->call.status == MC_ETIMEDOUT || op->call.status == MC_ECLOSED || world->flips ||
        !op->calm || !calm(world) || world->blocks[op->key].removed)
        return;
    if (op->sop.result.miss == MC_MISS_MASTER_DOWN && world->answer_lost + SILENT_MS * NS_PER_MS > op->started)
        return; /* a question whose answer is lost ends like this, and so do others until the master is heard (src/store/README.md) */
    world_fail(world, "block %u was acknowledged and is not found: %s, miss %d", op->key,
        mc_status_str(op->call.status), op->sop.result.miss);
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
    else if (op->must_find)
        judge_must_find(world, op);
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

/* How many of the first blocks have all their parts on living nodes. */
static uint32_t prefix_held(struct world *world, const struct op *op)
{
    uint32_t parts = op->call.prefix.shards, first = parts > 1 ? PARTED : 0;

    for (uint32_t i = 0; i < op->call.prefix.n * parts; i++) {
        struct mc_key key;

        block_key(world, first + i, &key);
        if (!held(world, &key))
            return i / parts;
    }
    return op->call.prefix.n;
}

/* A block is a hit only when all its parts are there: at any time none that nobody has put counts; at rest the answer is exact. */
static void judge_prefix(struct world *world, struct op *op)
{
    uint32_t parts = op->call.prefix.shards, first = parts > 1 ? PARTED : 0, blocks = op->call.prefix.out.blocks;

    if (op->call.status != MC_OK) {
        if (op->final)
            world_fail(world, "a prefix query fails at rest: %s", mc_status_str(op->call.status));
        return;
    }
    for (uint32_t i = 0; i < blocks * parts; i++)
        if (!world->blocks[first + i].begun)
            world_fail(world, "a prefix of %u blocks counts block %u, which nobody has put", blocks, first + i);
    for (uint32_t i = 0; i < op->call.prefix.nodes_n; i++)
        if (op->nodes[i].blocks > blocks)
            world_fail(world, "a node holds more of a prefix than the cluster");
    if (op->final && world->flips == 0 && blocks != prefix_held(world, op))
        world_fail(world, "a prefix in %u parts has %u blocks at rest, the index says %u", parts,
            prefix_held(world, op), blocks);
}

/* The first record of a name stays as long as its master, and whoever brings another one is told it. */
static void judge_model(struct world *world, struct op *op)
{
    struct model_state *model = &world->models[op->key];
    uint32_t incarnation = world->procs[0].incarnation, told = op->value;
    char text[sizeof(op->record)] = "";

    if (op->call.status == MC_EMISMATCH) {
        memcpy(text, op->other.data, op->other.len);
        told = (uint32_t)strtoul(text, NULL, 10);
        if (told == op->value)
            world_fail(world, "%s refuses the record it has", op->name);
    } else if (op->call.status != MC_OK) {
        if (op->final)
            world_fail(world, "%s cannot be registered at rest: %s", op->name, mc_status_str(op->call.status));
        return;
    }
    /* An answer comes over a connection, and that ends with its master. */
    if (model->incarnation == incarnation && model->record != told)
        world_fail(world, "%s has records %u and %u", op->name, model->record, told);
    *model = (struct model_state){incarnation, told};
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
    if (op->what == BUNDLE) {
        judge_bundle(world, op);
    } else if (op->what == LOOK) {
        judge_look(world, op);
    } else if (op->what == MEMBER) {
        judge_member(world, op);
    } else if (call->kind == CALL_OP) {
        switch (op->sop.opcode) {
        case MC_PUT:
        case MC_UPSERT: op->named ? judge_name_put(world, op) : judge_block_put(world, op); break;
        case MC_GET: judge_get(world, op); break;
        case MC_EXISTS:
            if (op->must_find)
                judge_must_find(world, op);
            break;
        case MC_REMOVE: judge_remove(world, op); break;
        }
    } else if (op->what == VIEW) {
        judge_view(world, op);
    } else if (op->what == PREFIX) {
        judge_prefix(world, op);
    } else if (op->what == MODEL) {
        judge_model(world, op);
    } else if (op->what == PART_BEGIN) {
        judge_refusal(world, op);
    } else if (op->what == PIN && call->status == MC_OK && client->client && rng_chance(&world->rng, 0.7)) {
        client_core_unpin(client->client, world->now, call->pins.token);
    } else if (op->what == PART_COMMIT) {
        judge_block_put(world, op);
    }
    if (part_goes_on(world, op))
        return;
    if (op->what == MODEL)
        buf_fini(&op->other);
    free(op->put);
    free(op->data);
    free(op);
}
