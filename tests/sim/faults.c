/* faults.c - what breaks while clients work. */
#include "work.h"

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

/* What it holds stays readable until it goes. */
static void drained_is_readable(struct world *world, struct proc *node)
{
    for (uint32_t block = 0; block < BLOCKS; block++) {
        const struct block_state *state = &world->blocks[block];
        struct proc *reader = &world->procs[1 + world->nodes_n + rng_below(&world->rng, world->clients_n)];

        if (!world->ample || !state->acked || state->removed || state->holder != node->number ||
            state->holder_incarnation != node->incarnation || !proc_runs(reader) || rng_chance(&world->rng, 0.7))
            continue;
        go_must_get(reader, block);
        proc_poll(reader);
    }
}

static void on_drained(struct world *world, struct event *event)
{
    struct proc *node = &world->procs[event->number];

    if (!world->quiet && node->alive && node->draining)
        fault_kill(world, node); /* and it comes back, taking puts again */
}

/* SIGTERM, and some time later the end. Nothing is out of order meanwhile, so nothing is excused. */
static void fault_drain(struct world *world, struct proc *node)
{
    struct store_ledger ledger;

    if (!node->alive || node->draining)
        return;
    world_trace(world, "drain %u", node->number);
    node_core_drain(node->node);
    node_core_ledger(node->node, &ledger);
    node->draining = true;
    node->accepted = ledger.row[LEDGER_ACCEPTED].objects;
    drained_is_readable(world, node);
    world_after(
        world, 300 * NS_PER_MS + rng_below(&world->rng, 2000 * NS_PER_MS), NULL, on_drained, NULL, node->number);
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
    switch (rng_below(&world->rng, 11)) {
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
    case 9: fault_drain(world, node); break;
    default: fault_flip(world); break;
    }
    world_after(world, (uint64_t)rng_exponential(&world->rng, 1.3e9), NULL, on_fault, NULL, 0);
}

void faults_start(struct world *world)
{
    world_after(world, NS_PER_S, NULL, on_fault, NULL, 0);
}
