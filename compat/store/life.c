/* life.c - set up and close. See client.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "compat/env/env.h"
#include "compat/store/client_impl.h"
#include "store/client/near.h"

/* ---- create, destroy ---- */

struct compat_client *compat_client_create(void)
{
    struct compat_client *client = calloc(1, sizeof(*client));

    if (!client)
        return NULL;
    pthread_mutex_init(&client->lock, NULL);
    pthread_cond_init(&client->left, NULL);
    list_init(&client->calls);
    list_init(&client->sessions);
    list_init(&client->segments);
    client->pid = getpid();
    return client;
}

void compat_client_destroy(struct compat_client *client)
{
    if (!client)
        return;
    if (!compat_is_ours(client))
        return; /* a child has nothing of it but the memory */
    compat_client_close(client);
    compat_pool_free(client);
    pthread_mutex_destroy(&client->lock);
    pthread_cond_destroy(&client->left);
    free(client->regions);
    free(client);
}

/* In a child of fork(): forget what the parent had, without touching it. */
static void become_ours(struct compat_client *client)
{
    pthread_mutex_init(&client->lock, NULL);
    pthread_cond_init(&client->left, NULL);
    list_init(&client->calls);
    list_init(&client->sessions);
    list_init(&client->segments);
    client->region_count = 0;
    client->store = NULL;
    client->node = NULL;
    client->pool = NULL; /* the parent's; this copy of it stays where it is */
    client->state = COMPAT_EMPTY;
    client->pid = getpid();
}

/* ---- set up ---- */

static void name_client(struct compat_client *client, const struct compat_plan *plan, uint16_t port)
{
    snprintf(client->hostname, sizeof(client->hostname), strchr(plan->name_host, ':') ? "[%.55s]:%u" : "%.57s:%u",
        plan->name_host, port);
}

static uint16_t random_port(const struct compat_plan *plan)
{
    uint32_t random;

    random_bytes(&random, sizeof(random));
    return (uint16_t)(plan->port_min + random % (uint32_t)(plan->port_max - plan->port_min + 1));
}

/* A port that was asked for belongs to the name; where it is taken (by the engine the name comes from, perhaps) the node
 * listens elsewhere: others learn its address from the master, not from its name. */
static enum mc_status start_node(
    struct compat_client *client, const struct compat_plan *plan, const struct compat_setup *setup)
{
    uint64_t memory = setup->global_segment_size;
    enum mc_status status = MC_EEXIST;

    if (plan->port) {
        uint16_t port = setup->name_only ? 0 : plan->port;

        name_client(client, plan, plan->port);
        status = memory ? compat_node_create(plan, memory, NULL, port, client->hostname, &client->node) : MC_OK;
        if (status == MC_EEXIST && port) {
            log_warn("compat: port %u of %s is taken: the segment of that name listens at another", plan->port,
                client->hostname);
            status = compat_node_create(plan, memory, NULL, 0, client->hostname, &client->node);
        }
    } else {
        for (uint32_t i = 0; i < plan->tries && status == MC_EEXIST; i++) {
            uint16_t port = random_port(plan);

            name_client(client, plan, port);
            status = memory ? compat_node_create(plan, memory, NULL, port, client->hostname, &client->node) : MC_OK;
        }
    }
    if (status == MC_OK && client->node)
        status = store_node_start(client->node);
    return status;
}

static enum mc_status start(
    struct compat_client *client, const struct compat_plan *plan, const struct compat_setup *setup)
{
    struct mc_store_opts opts = {
        .size = sizeof(opts),
        .master = plan->master,
        .transport = plan->transport,
        .ns = plan->ns,
        .connect_ms = plan->connect_ms,
        .lease_ms = MC_LEASE_MASTER,
        .get_promises = true,
    };
    enum mc_status status = mc_store_open(&opts, &client->store);

    if (status != MC_OK) {
        client->store = NULL;
        log_error("compat: master at %s: %s", plan->master, mc_status_str(status));
        return status;
    }
    status = start_node(client, plan, setup);
    if (status == MC_OK &&
        client->node) /* puts go to the own segment at once: so wait until the client has heard of it */
        status = compat_node_wait(client->store, client->node, plan->connect_ms);
    if (status == MC_OK && client->node)
        shell_own(client->store, client->node);
    return status;
}

static void stop(struct compat_client *client)
{
    if (client->store)
        mc_store_close(client->store);
    compat_segments_drop(client);
    store_node_destroy(client->node);
    client->store = NULL;
    client->node = NULL;
}

/* Only one thread gets through at a time. */
static void begin_setup(struct compat_client *client)
{
    if (!compat_is_ours(client))
        become_ours(client);
    for (;;) {
        pthread_mutex_lock(&client->lock);
        while (client->state == COMPAT_SETTING_UP || client->state == COMPAT_CLOSING)
            pthread_cond_wait(&client->left, &client->lock);
        if (client->state == COMPAT_EMPTY)
            break;
        pthread_mutex_unlock(&client->lock);
        log_warn("compat: setup of a store that is set up as %s: closed first", client->hostname);
        compat_client_close(client);
    }
    client->state = COMPAT_SETTING_UP;
    pthread_mutex_unlock(&client->lock);
}

static void become(struct compat_client *client, enum compat_state state)
{
    pthread_mutex_lock(&client->lock);
    client->state = state;
    pthread_cond_broadcast(&client->left);
    pthread_mutex_unlock(&client->lock);
}

int compat_client_setup(struct compat_client *client, const struct compat_setup *setup)
{
    struct compat_plan plan;
    enum mc_status status;
    int error;

    compat_env_tell(COMPAT_PART_STORE);
    error = compat_plan(setup, &plan);
    if (error != COMPAT_OK)
        return error;
    begin_setup(client);
    client->local_buffer = setup->local_buffer_size;
    client->put_ms = compat_env_u32("MC_TRANSFER_TIMEOUT", COMPAT_PUT_MS / 1000) * 1000;
    client->get_ms = compat_env_u32("MC_TRANSFER_TIMEOUT", COMPAT_GET_MS / 1000) * 1000;
    client->ask_ms = compat_env_u32("MC_RPC_TIMEOUT_MS", COMPAT_ASK_MS);
    client->plan = plan;
    status = start(client, &plan, setup);
    if (status != MC_OK)
        stop(client);
    become(client, status == MC_OK ? COMPAT_OPEN : COMPAT_EMPTY);
    return compat_error(status);
}

/* ---- close ---- */

int compat_client_close(struct compat_client *client)
{
    if (!client || !compat_is_ours(client))
        return COMPAT_OK;
    pthread_mutex_lock(&client->lock);
    while (client->state == COMPAT_SETTING_UP || client->state == COMPAT_CLOSING)
        pthread_cond_wait(&client->left, &client->lock);
    if (client->state == COMPAT_EMPTY) {
        pthread_mutex_unlock(&client->lock);
        return COMPAT_OK;
    }
    client->state = COMPAT_CLOSING;
    pthread_cond_broadcast(&client->left);
    pthread_mutex_unlock(&client->lock);
    mc_store_shutdown(client->store); /* those inside return */
    pthread_mutex_lock(&client->lock);
    while (!list_empty(&client->calls))
        pthread_cond_wait(&client->left, &client->lock);
    client->region_count = 0;
    pthread_mutex_unlock(&client->lock);
    compat_sessions_drop(client);
    stop(client);
    become(client, COMPAT_EMPTY);
    return COMPAT_OK;
}

/* ---- questions ---- */

int compat_client_health(struct compat_client *client)
{
    struct compat_call call;
    struct mc_store_stats stats;

    if (!compat_enter(client, &call, 0, 0))
        return 1;
    mc_store_stats(call.store, &stats);
    compat_leave(client, &call);
    return stats.master_up ? 0 : 2;
}

int compat_client_hostname(struct compat_client *client, char out[COMPAT_HOST_MAX])
{
    struct compat_call call;

    out[0] = '\0';
    if (!compat_enter(client, &call, 0, 0))
        return COMPAT_INVALID_PARAMS;
    memcpy(out, client->hostname, COMPAT_HOST_MAX);
    compat_leave(client, &call);
    return COMPAT_OK;
}

/* ---- registered memory ---- */

/* First region at or above `addr`. */
static size_t region_at(const struct compat_client *client, uintptr_t addr)
{
    size_t from = 0, to = client->region_count;

    while (from < to) {
        size_t middle = (from + to) / 2;

        if (client->regions[middle].addr < addr)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

static bool region_is(const struct compat_client *client, size_t at, uintptr_t addr)
{
    return at < client->region_count && client->regions[at].addr == addr;
}

static int region_add(struct compat_client *client, uintptr_t addr, uint64_t size)
{
    size_t at = region_at(client, addr);

    if (region_is(client, at, addr))
        return COMPAT_INVALID_PARAMS;
    if (client->region_count == client->region_max) {
        size_t max = client->region_max ? 2 * client->region_max : 16;
        struct compat_region *more = realloc(client->regions, max * sizeof(*more));

        if (!more)
            return COMPAT_INTERNAL;
        client->regions = more;
        client->region_max = max;
    }
    memmove(&client->regions[at + 1], &client->regions[at], (client->region_count - at) * sizeof(*client->regions));
    client->regions[at] = (struct compat_region){addr, size};
    client->region_count++;
    return COMPAT_OK;
}

int compat_register(struct compat_client *client, const void *addr, uint64_t size)
{
    struct compat_call call;
    int error;

    if (!addr || size == 0 || (uintptr_t)addr + size < (uintptr_t)addr || !compat_enter(client, &call, 0, 0))
        return COMPAT_INVALID_PARAMS;
    pthread_mutex_lock(&client->lock);
    error = region_add(client, (uintptr_t)addr, size);
    pthread_mutex_unlock(&client->lock);
    compat_leave(client, &call);
    return error;
}

static bool in_use(const struct compat_client *client, uintptr_t from, uintptr_t to)
{
    list_for_each (it, &client->calls) {
        const struct compat_call *call = list_entry(it, struct compat_call, link);

        if (call->from < to && from < call->to)
            return true;
    }
    return false;
}

int compat_unregister(struct compat_client *client, const void *addr)
{
    uintptr_t from = (uintptr_t)addr;
    struct compat_call call;
    int error = COMPAT_INVALID_PARAMS;

    if (!compat_enter(client, &call, 0, 0))
        return error;
    pthread_mutex_lock(&client->lock);
    size_t at = region_at(client, from);
    if (region_is(client, at, from)) {
        uintptr_t to = from + client->regions[at].size;

        memmove(
            &client->regions[at], &client->regions[at + 1], (--client->region_count - at) * sizeof(*client->regions));
        while (in_use(client, from, to)) /* each ends by its own deadline */
            pthread_cond_wait(&client->left, &client->lock);
        error = COMPAT_OK;
    }
    pthread_mutex_unlock(&client->lock);
    compat_leave(client, &call);
    return error;
}

uint64_t compat_registered(struct compat_client *client, const void *addr)
{
    uintptr_t from = (uintptr_t)addr;
    struct compat_call call;
    uint64_t left = 0;

    if (!compat_enter(client, &call, 0, 0))
        return 0;
    pthread_mutex_lock(&client->lock);
    for (size_t i = 0; i < client->region_count && client->regions[i].addr <= from; i++) {
        const struct compat_region *region = &client->regions[i];

        if (from - region->addr < region->size && region->size - (from - region->addr) > left)
            left = region->size - (from - region->addr);
    }
    pthread_mutex_unlock(&client->lock);
    compat_leave(client, &call);
    return left;
}
