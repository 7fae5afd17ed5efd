/* bundles.c - names that are put together, and readers who look at all of them at once: they find all or none, whatever breaks.
 *
 * A look asks for all members in one event, so they travel in one question to the master. Members are put by no other operation, always
 * with the same bytes. A look is not judged when an answer says that nobody knows: no master, or a reader whose own memory of newer
 * versions refuses what it is told. */
#include <stdlib.h>
#include <string.h>

#include "work.h"

struct look {
    uint32_t bundle, left, found, missing, unknown;
    bool must_find;
};

struct bundle_put {
    struct mc_store_op ops[MEMBERS];
    struct mc_span spans[MEMBERS];
    struct mc_object_meta meta;
    char names[MEMBERS][16];
    uint8_t data[MEMBERS][VALUE_SIZE_MAX];
};

static uint32_t value_of(uint32_t bundle, uint32_t member)
{
    return BUNDLE_VALUE + bundle * MEMBERS + member;
}

static void name_of(uint32_t bundle, uint32_t member, char name[16], struct mc_key *key)
{
    snprintf(name, 16, "set-%u-%u", bundle, member);
    mc_key_named(key, name, strlen(name));
}

void go_bundle(struct proc *client, uint32_t bundle)
{
    struct world *world = client->world;
    struct op *op = op_new(client, false, 0);
    struct bundle_put *put = calloc(1, sizeof(*put));

    if (!put)
        abort();
    op->what = BUNDLE;
    op->key = bundle;
    op->put = put;
    op->hasty = rng_chance(&world->rng, 0.25);
    if (op->hasty)
        op->call.deadline_ns = world->now + (1 + rng_below(&world->rng, 25)) * NS_PER_MS;
    if (rng_chance(&world->rng, 0.3))
        put->meta.replicas = 2;
    for (uint32_t i = 0; i < MEMBERS; i++) {
        uint64_t length = length_of(value_of(bundle, i));

        fill(put->data[i], value_of(bundle, i), 0, length);
        put->spans[i] = (struct mc_span){put->data[i], length};
        put->ops[i] = (struct mc_store_op){.opcode = MC_PUT, .spans = &put->spans[i], .nspans = 1, .meta = &put->meta};
        name_of(bundle, i, put->names[i], &put->ops[i].key);
    }
    op->call.kind = CALL_BUNDLE;
    op->call.bundle_of.ops = put->ops;
    op->call.bundle_of.n = MEMBERS;
    op_go(op);
}

void go_look(struct proc *client, uint32_t bundle, bool must_find)
{
    struct look *look = calloc(1, sizeof(*look));

    if (!look)
        abort();
    *look = (struct look){.bundle = bundle, .left = MEMBERS, .must_find = must_find};
    for (uint32_t i = 0; i < MEMBERS; i++) {
        struct op *op = op_new(client, false, 0);

        op->what = LOOK;
        op->key = bundle;
        op->look = look;
        name_of(bundle, i, op->name, &op->sop.key);
        op->sop.opcode = MC_EXISTS;
        op_go(op);
    }
}

void go_member(struct proc *client, uint32_t bundle, uint32_t member)
{
    struct op *op = op_new(client, false, 0);

    op->what = MEMBER;
    op->key = bundle;
    op->value = value_of(bundle, member);
    name_of(bundle, member, op->name, &op->sop.key);
    op->data = malloc(VALUE_SIZE_MAX);
    if (!op->data)
        abort();
    op->sop.opcode = MC_GET;
    op->span[0] = (struct mc_span){op->data, VALUE_SIZE_MAX};
    op->sop.spans = op->span;
    op->sop.nspans = 1;
    op_go(op);
}

void judge_bundle(struct world *world, struct op *op)
{
    struct proc *reader = &world->procs[1 + world->nodes_n + rng_below(&world->rng, world->clients_n)];
    const struct bundle_put *put = op->put;
    bool existed = false;

    judge_refusal(world, op);
    if (op->call.status != MC_OK)
        return;
    world->bundles++;
    for (uint32_t i = 0; i < MEMBERS; i++) {
        existed |= put->ops[i].result.existed;
        if (put->ops[i].result.status != MC_OK || put->ops[i].result.version == 0)
            world_fail(world, "member %u of bundle %u was acknowledged without a version", i, op->key);
    }
    if (!existed && op->calm && calm(world) && world->ample && proc_runs(reader) && !world->quiet)
        go_look(reader, op->key, true);
    proc_poll(reader);
}

void judge_look(struct world *world, struct op *op)
{
    struct look *look = op->look;
    bool known = op->call.status == MC_OK || (op->call.status == MC_ENOENT && op->sop.result.miss != MC_MISS_STALE);

    look->unknown += !known;
    look->found += op->call.status == MC_OK;
    look->missing += known && op->call.status != MC_OK;
    if (--look->left > 0)
        return;
    world->looks += look->unknown == 0;
    if (look->unknown == 0 && look->found && look->missing)
        world_fail(world, "%u of %u members of bundle %u are seen", look->found, MEMBERS, look->bundle);
    if (look->unknown == 0 && look->must_find && look->missing && op->calm && calm(world) && world->flips == 0)
        world_fail(world, "bundle %u was acknowledged and is not found", look->bundle);
    free(look);
}

void judge_member(struct world *world, struct op *op)
{
    if (op->call.status == MC_OK &&
        (op->sop.result.length != length_of(op->value) || !is_content(op->data, op->value, 0, op->sop.result.length)))
        world_fail(world, "wrong bytes in %s", op->name);
}
