/* checks.c - what must hold: at any time, and when everything has come to rest. */
#include <string.h>

#include "store/client/client_impl.h"
#include "store/index/index_impl.h"
#include "work.h"

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
        if (world->procs[i].draining && ledger.row[LEDGER_ACCEPTED].objects != world->procs[i].accepted)
            world_fail(world, "node %u drains and takes a put", i);
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

/* Name one object that its node has and the index does not know. */
static void blame_object(struct world *world, char *text, size_t size)
{
    const struct index_core *index = world->procs[0].index;

    for (uint32_t i = 1; i <= world->nodes_n; i++) {
        struct node_object object;
        uint16_t owner = 0;
        uint32_t copy;

        while (memcmp(world->procs[i].uuid, index->members[owner].info.uuid, 16) != 0)
            owner++;
        for (uint32_t o = 0; node_core_object(world->procs[i].node, &o, &object);)
            if (object.indexed && table_find_copy(index->table, owner, object.entry.generation, &copy) == TABLE_NONE)
                snprintf(text, size, "generation %llx of node %u is not indexed, version %llx",
                    (unsigned long long)object.entry.generation, i, (unsigned long long)object.entry.version);
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
    if (present > stats.copies)
        blame_object(world, blame, sizeof(blame));
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
        for (uint32_t bundle = 0; bundle < SETS; bundle++)
            go_look(&world->procs[i], bundle, false);
        for (uint32_t model = 0; model < MODELS; model++)
            go_model(&world->procs[i], model, 1 + i, true);
        go_prefix(&world->procs[i], false, 0, PARTED, true);
        for (uint16_t shard = 0; shard < SHARDS; shard++)
            go_prefix(&world->procs[i], true, shard, (BLOCKS - PARTED) / SHARDS, true);
        proc_poll(&world->procs[i]);
    }
    run_until(world, world->now + 3 * NS_PER_S);
    if (world->failures == 0)
        check_clients(world);
}
