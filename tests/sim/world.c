/* world.c - the queue of events, and processes that live, die and stand still. */
#include <assert.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "sim.h"

/* ---- log, hash, failure ---- */

void world_mix(struct world *world, uint64_t value)
{
    world->hash = hash_mix(world->hash ^ value) + 0x9e3779b97f4a7c15ull;
}

void world_trace(struct world *world, const char *format, ...)
{
    va_list args;

    if (!world->trace)
        return;
    printf("%10.6f ", (double)world->now / 1e9);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
}

/* The first failure is kept. */
void world_fail(struct world *world, const char *format, ...)
{
    va_list args;

    if (world->failures++ > 0)
        return;
    va_start(args, format);
    vsnprintf(world->failure, sizeof(world->failure), format, args);
    va_end(args);
    world_trace(world, "FAILURE %s", world->failure);
}

/* ---- queue ---- */

static bool before(const struct event *a, const struct event *b)
{
    return a->at != b->at ? a->at < b->at : a->seq < b->seq;
}

static void queue_put(struct world *world, struct event *event)
{
    size_t i;

    if (world->heap_n == world->heap_cap) {
        world->heap_cap = world->heap_cap ? 2 * world->heap_cap : 1024;
        world->heap = realloc(world->heap, world->heap_cap * sizeof(*world->heap));
        if (!world->heap)
            abort();
    }
    event->seq = ++world->seq;
    i = world->heap_n++;
    for (; i > 0 && before(event, world->heap[(i - 1) / 2]); i = (i - 1) / 2)
        world->heap[i] = world->heap[(i - 1) / 2];
    world->heap[i] = event;
}

static struct event *queue_get(struct world *world)
{
    struct event *first = world->heap[0], *last = world->heap[--world->heap_n];
    size_t i = 0, child;

    while ((child = 2 * i + 1) < world->heap_n) {
        if (child + 1 < world->heap_n && before(world->heap[child + 1], world->heap[child]))
            child++;
        if (!before(world->heap[child], last))
            break;
        world->heap[i] = world->heap[child];
        i = child;
    }
    world->heap[i] = last;
    return first;
}

static void event_free(struct event *event)
{
    free(event->bytes);
    free(event);
}

void world_after(struct world *world, uint64_t delay, struct proc *proc, void (*run)(struct world *, struct event *),
    void *arg, uint64_t number)
{
    struct event *event = calloc(1, sizeof(*event));

    if (!event)
        abort();
    event->at = world->now + delay;
    event->run = run;
    event->proc = proc;
    event->incarnation = proc ? proc->incarnation : 0;
    event->arg = arg;
    event->number = number;
    queue_put(world, event);
}

/* net.c makes its events itself: they carry bytes. */
void world_queue(struct world *world, struct event *event);
void world_queue(struct world *world, struct event *event)
{
    queue_put(world, event);
}

void world_step(struct world *world)
{
    struct event *event = queue_get(world);
    struct proc *proc = event->proc;

    world->now = event->at;
    if (proc && (event->incarnation != proc->incarnation || !proc->alive)) {
        event_free(event);
        return;
    }
    if (proc && proc->stopped_until > world->now) {
        list_push_back(&proc->backlog, &event->link);
        return;
    }
    world->events++;
    world_mix(world, world->now ^ (uint64_t)event->kind << 56 ^ event->len << 40);
    event->run(world, event);
    event_free(event);
    if (proc && proc->alive)
        proc_poll(proc);
    checks_always(world);
}

/* ---- processes ---- */

bool proc_runs(const struct proc *proc)
{
    return proc->alive && proc->stopped_until <= proc->world->now;
}

static void on_tick(struct world *world, struct event *event)
{
    struct proc *proc = event->proc;

    if (event->number != proc->wake)
        return; /* another one was set since */
    proc->wake = DEADLINE_NONE;
    if (proc->index)
        index_core_on_tick(proc->index, world->now);
    if (proc->node)
        node_core_on_tick(proc->node, world->now);
    if (proc->client)
        client_core_on_tick(proc->client, world->now);
}

void proc_poll(struct proc *proc)
{
    struct world *world = proc->world;
    struct client_call *call;
    uint64_t wake = DEADLINE_NONE;

    if (proc->client)
        while ((call = client_core_done(proc->client)))
            work_done(proc, call);
    if (proc->index)
        wake = index_core_wake(proc->index);
    if (proc->node)
        wake = node_core_wake(proc->node);
    if (proc->client)
        wake = client_core_wake(proc->client);
    if (wake == DEADLINE_NONE)
        return;
    if (wake < world->now + 1000)
        wake = world->now + 1000; /* a turn of the loop takes a microsecond */
    if (wake >= proc->wake)
        return;
    proc->wake = wake;
    world_after(world, wake - world->now, proc, on_tick, NULL, wake);
}

static void on_beat(struct world *world, struct event *event)
{
    struct proc *proc = event->proc;
    struct proc *master = &world->procs[0];
    struct store_msg msg = {.type = MSG_NODE_BEAT, .request = world->now};
    struct link *link = NULL;

    for (uint32_t i = 0; i < world->links_n; i++)
        if (world->links[i].a == proc && world->links[i].b == master)
            link = &world->links[i];
    node_core_beat(proc->node, &msg.beat);
    if (link && link->up_b && link->cut_until <= world->now && proc_runs(master))
        index_core_on_message(master->index, world->now, link->peer_b, &msg);
    if (proc_runs(master))
        proc_poll(master);
    world_after(world, 200 * NS_PER_MS, proc, on_beat, NULL, 0);
}

static void start_master(struct world *world, struct proc *proc, const struct store_port *port)
{
    /* What an earlier one has kept in its state directory; when that is lost, wall time. */
    bool lost = rng_chance(&world->rng, 0.25);
    struct index_limits limits = {.objects_max = 100000,
        .peers_max = 64,
        .forget_ms = 600000,
        .heir_at = proc->incarnation > 1 ? world->now : 0,
        .term = lost ? 1000000 + world->now / NS_PER_MS : world->term_kept + 1};

    if (world->bug == BUG_TERM)
        limits.term = 0;

    if (index_core_create(&limits, port, rng_u64(&world->rng), rng_u64(&world->rng), &proc->index) != MC_OK)
        abort();
    index_core_set_bugs(proc->index, (struct index_bugs){.keep_term = world->bug == BUG_TERM,
                                         .forget_stamp = world->bug == BUG_STAMP,
                                         .forget_lapse = world->bug == BUG_LAPSE});
}

/* Its own is another page than that of an earlier incarnation, which nobody maps any more. */
static void names_make(struct proc *proc)
{
    size_t size = names_size(SEGMENTS * proc->memory_size);

    free(proc->names);
    size = (size + 63) / 64 * 64;
    proc->names = aligned_alloc(64, size);
    if (!proc->names)
        abort();
    memset(proc->names, 0, size);
    names_init(proc->names, size);
    if (!names_open(proc->names, size, &proc->view))
        abort();
}

static void start_node(struct world *world, struct proc *proc, const struct store_port *port)
{
    struct node_limits limits = {.objects_max = 10000, .puts_max = 64, .peers_max = 64};
    struct store_member self = {.epoch = ++proc->epoch};
    struct node_memory memory[SEGMENTS] = {0};

    memcpy(self.uuid, proc->uuid, 16);
    snprintf(self.name, sizeof(self.name), "n%u", proc->number);
    snprintf(self.address, sizeof(self.address), "sim:%u", proc->number);
    for (int i = 0; i < SEGMENTS; i++) {
        free(proc->memory[i]);
        proc->memory[i] = aligned_alloc(64, proc->memory_size);
        if (!proc->memory[i])
            abort();
        memset(proc->memory[i], 0xa5, proc->memory_size);
        memory[i].base = proc->memory[i];
        memory[i].size = proc->memory_size;
        memcpy(memory[i].region, &proc->number, sizeof(proc->number));
    }
    names_make(proc);
    if (node_core_create(&limits, port, &self, memory, SEGMENTS, &(struct node_names){.table = proc->names},
            rng_u64(&world->rng), &proc->node) != MC_OK)
        abort();
    node_core_set_bugs(proc->node, (struct node_bugs){.ack_early = world->bug == BUG_ACK_EARLY,
                                       .reuse_early = world->bug == BUG_REUSE,
                                       .show_early = world->bug == BUG_HALF});
    world_after(world, rng_below(&world->rng, 200 * NS_PER_MS), proc, on_beat, NULL, 0);
}

static void start_client(struct world *world, struct proc *proc, const struct store_port *port)
{
    struct client_limits limits = {.locations_max = 64, .nodes_max = 16, .inline_max = 200, .ns = 7};

    if (client_core_create(&limits, port, rng_u64(&world->rng), &proc->client) != MC_OK)
        abort();
    client_core_set_bugs(proc->client, (struct client_bugs){.skip_generation = world->bug == BUG_GENERATION});
    memset(proc->info, 0, sizeof(proc->info));
    work_start(proc);
}

void proc_start(struct proc *proc)
{
    struct world *world = proc->world;
    struct store_port port;

    proc->alive = true;
    proc->incarnation++;
    proc->stopped_until = 0;
    proc->wake = DEADLINE_NONE;
    proc->draining = false;
    proc->started = world->now;
    net_ports(proc, &port);
    if (proc->kind == PROC_MASTER)
        start_master(world, proc, &port);
    else if (proc->kind == PROC_NODE)
        start_node(world, proc, &port);
    else
        start_client(world, proc, &port);
    world_trace(world, "start %u", proc->number);
    for (uint32_t i = 0; i < world->links_n; i++)
        if (world->links[i].a == proc || world->links[i].b == proc)
            link_dial(world, &world->links[i]);
    proc_poll(proc);
}

static void backlog_drop(struct proc *proc)
{
    struct list *link;

    while ((link = list_pop_front(&proc->backlog)))
        event_free(list_entry(link, struct event, link));
}

void proc_kill(struct proc *proc)
{
    struct world *world = proc->world;
    struct client_call *call;

    world_trace(world, "kill %u", proc->number);
    if (proc->index) {
        struct index_stats stats;

        index_core_stats(proc->index, &stats);
        if (stats.term > world->term_kept)
            world->term_kept = stats.term;
    }
    net_proc_gone(world, proc);
    if (proc->client) {
        client_core_close(proc->client, world->now);
        while ((call = client_core_done(proc->client)))
            work_done(proc, call);
        work_proc_gone(proc);
    }
    proc->alive = false;
    proc->incarnation++;
    backlog_drop(proc);
    index_core_destroy(proc->index);
    node_core_destroy(proc->node);
    client_core_destroy(proc->client);
    proc->index = NULL;
    proc->node = NULL;
    proc->client = NULL;
}

static void on_continue(struct world *world, struct event *event)
{
    struct proc *proc = event->arg;
    struct list *link;

    if (!proc->alive || proc->incarnation != event->number || proc->stopped_until > world->now)
        return;
    world_trace(world, "continue %u", proc->number);
    if (proc->client)
        client_core_on_gap(proc->client, world->now);
    if (proc->index)
        index_core_on_gap(proc->index, world->now);
    while ((link = list_pop_front(&proc->backlog))) { /* all of it waits in the socket */
        struct event *held = list_entry(link, struct event, link);

        held->at = world->now + 1;
        queue_put(world, held);
    }
    proc_poll(proc);
}

void proc_stop(struct proc *proc, uint64_t ns)
{
    struct world *world = proc->world;

    world_trace(world, "stop %u for %llu ms", proc->number, (unsigned long long)(ns / NS_PER_MS));
    proc->stopped_until = world->now + ns;
    world_after(world, ns + 1, NULL, on_continue, proc, proc->incarnation);
}

/* ---- life ---- */

static struct proc *proc_add(struct world *world, enum proc_kind kind)
{
    struct proc *proc = &world->procs[world->procs_n];

    *proc = (struct proc){.world = world, .kind = kind, .number = world->procs_n++};
    list_init(&proc->backlog);
    rng_bytes(&world->rng, proc->uuid, 16);
    return proc;
}

void world_create(struct world *world, uint64_t seed, enum bug bug, bool trace)
{
    memset(world, 0, sizeof(*world));
    world->seed = seed;
    world->bug = bug;
    world->trace = trace;
    world->now = NS_PER_S;
    rng_seed(&world->rng, seed);
    list_init(&world->copies);
    world->values = calloc(VALUES_MAX, sizeof(*world->values));
    if (!world->values)
        abort();
    world->nodes_n = 2 + (uint32_t)rng_below(&world->rng, NODES_MAX - 1);
    world->clients_n = 2 + (uint32_t)rng_below(&world->rng, CLIENTS_MAX - 1);
    world->ample = rng_chance(&world->rng, 0.5);
    world->may_flip = rng_chance(&world->rng, 0.4);
    proc_add(world, PROC_MASTER);
    for (uint32_t i = 0; i < world->nodes_n; i++)
        proc_add(world, PROC_NODE)->memory_size = world->ample ? 2 << 20 : 64 << 10;
    for (uint32_t i = 0; i < world->clients_n; i++)
        proc_add(world, PROC_CLIENT);
    for (uint32_t i = 1; i < world->procs_n; i++)
        link_add(world, &world->procs[i], &world->procs[0], STORE_PEER_MASTER, i, true);
    for (uint32_t c = 1 + world->nodes_n; c < world->procs_n; c++)
        for (uint32_t n = 1; n <= world->nodes_n; n++)
            link_add(world, &world->procs[c], &world->procs[n], 0, c, false);
    for (uint32_t i = 0; i < world->procs_n; i++)
        proc_start(&world->procs[i]);
    faults_start(world);
}

void world_destroy(struct world *world)
{
    for (uint32_t i = 0; i < world->procs_n; i++) {
        if (world->procs[i].alive)
            proc_kill(&world->procs[i]);
        for (int s = 0; s < SEGMENTS; s++)
            free(world->procs[i].memory[s]);
        free(world->procs[i].names);
    }
    while (world->heap_n)
        event_free(queue_get(world));
    while (!list_empty(&world->copies)) {
        struct copy *copy = list_first(&world->copies, struct copy, link);

        list_del(&copy->link);
        free(copy);
    }
    free(world->heap);
    free(world->values);
}
