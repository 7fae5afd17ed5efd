/* engine.c - an engine: start and end, and its memory. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/rng.h"
#include "compat/engine/impl.h"
#include "compat/engine/meta.h"
#include "compat/env/env.h"

#define CONNS_MAX 16384

/* ---- listening ---- */

static bool port_is_free(const struct addr *addr)
{
    struct sockaddr_storage sa;
    socklen_t len;
    bool free = true;
    int fd, on = 1;

    if (addr_resolve(addr, &sa, &len) != MC_OK)
        return true; /* conn_listen() says what is wrong */
    fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return true;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, (struct sockaddr *)&sa, len) != 0)
        free = errno != EADDRINUSE;
    close(fd);
    return free;
}

static enum mc_status listen_at(struct ce_engine *engine, uint16_t port)
{
    struct hello self = engine->self;
    struct listener_opts opts = {
        .self = &self,
        .ops = &ce_serve_unknown,
        .user = engine,
        .limits = ce_conn_limits(),
        .expect = {.roles = 1u << ROLE_BULK | 1u << ROLE_ENGINE | 1u << ROLE_CLIENT},
        .conns_max = CONNS_MAX,
        .on_hello = ce_serve_hello,
    };

    self.role = ROLE_ENGINE;
    engine->set.bind.port = port;
    if (!port_is_free(&engine->set.bind))
        return MC_EEXIST;
    return conn_listen(engine->loop, &engine->set.bind, &opts, &engine->listener);
}

/* The port wished for, else a free one: all of the range are tried, from a random one on. */
static enum mc_status listen_somewhere(struct ce_engine *engine)
{
    const struct ce_settings *set = &engine->set;
    uint32_t range = (uint32_t)set->port_max - set->port_min + 1, start;
    enum mc_status status;

    if (set->name.port) {
        status = listen_at(engine, set->name.port);
        if (status != MC_EEXIST)
            return status;
        log_warn("engine: port %u is taken: another one is chosen", set->name.port);
    }
    random_bytes(&start, sizeof(start));
    for (uint32_t i = 0; i < range; i++) {
        status = listen_at(engine, (uint16_t)(set->port_min + (start % range + i) % range));
        if (status != MC_EEXIST)
            return status;
    }
    log_error("engine: no port from %u to %u is free (MC_MIN_RPC_PORT, MC_MAX_RPC_PORT)", set->port_min, set->port_max);
    return MC_EEXIST;
}

static enum mc_status listener_start(struct ce_engine *engine)
{
    struct addr name = engine->set.name;
    enum mc_status status = listen_somewhere(engine);

    if (status == MC_EINVAL)
        log_error(
            "engine: %s is no address of this machine: set MC_TCP_BIND_ADDRESS to one that is", engine->set.bind.host);
    if (status != MC_OK)
        return status;
    engine->port = listener_addr(engine->listener)->port;
    name.port = engine->port;
    if (engine->set.service)
        snprintf(engine->session, sizeof(engine->session), "%s", engine->set.text);
    else
        addr_format(&name, engine->session);
    if (!addr_is_loopback(&engine->set.bind))
        log_warn("engine: listening at %s, not authenticated: whoever reaches it may read and write registered memory",
            engine->set.bind.host);
    return MC_OK;
}

/* Where peers find us, for the metadata service: an address, unless we listen at all of them. */
static enum mc_status publish(struct ce_engine *engine)
{
    struct addr at = ce_is_wildcard(&engine->set.bind) ? engine->set.name : engine->set.bind;

    at.port = engine->port;
    return engine->set.service ? ce_meta_publish(&engine->set, engine->session, &at) : MC_OK;
}

/* ---- start ---- */

static enum mc_status te_start(struct ce_engine *engine)
{
    struct mc_te_opts opts = {
        .size = sizeof(opts),
        .listen = "none",
        .transport = engine->set.tcp_only ? "tcp" : "auto",
        .epoch = 1,
    };
    enum mc_status status;

    random_bytes(opts.uuid, sizeof(opts.uuid));
    status = te_create_on_loop(&opts, engine->loop, &engine->te);
    if (status != MC_OK)
        return status;
    te_hello(engine->te, &engine->self);
    engine->self.role = ROLE_CLIENT;
    return MC_OK;
}

static void locks_init(struct ce_engine *engine)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&engine->done_cond, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&engine->done_lock, NULL);
    pthread_mutex_init(&engine->peers_lock, NULL);
    list_init(&engine->peers_used);
    list_init(&engine->calls);
    list_init(&engine->served);
}

static void locks_fini(struct ce_engine *engine)
{
    pthread_cond_destroy(&engine->done_cond);
    pthread_mutex_destroy(&engine->done_lock);
    pthread_mutex_destroy(&engine->peers_lock);
}

static enum mc_status start(struct ce_engine *engine)
{
    enum mc_status status;

    engine->loop = loop_create("mc-engine");
    if (!engine->loop)
        return MC_ENOMEM;
    status = te_start(engine);
    if (status != MC_OK)
        goto undo_loop;
    status = ce_memory_init(&engine->memory, engine->te);
    if (status != MC_OK)
        goto undo_te;
    status = ce_managed_init(&engine->managed, engine->te, &engine->memory, engine->set.pool);
    if (status != MC_OK)
        goto undo_managed;
    status = listener_start(engine);
    if (status != MC_OK)
        goto undo_managed;
    status = loop_thread_start(engine->loop);
    if (status != MC_OK)
        goto undo_listener;
    status = publish(engine);
    if (status != MC_OK)
        goto undo_thread;
    return MC_OK;

undo_thread:
    loop_thread_stop(engine->loop);
    ce_serve_close(engine);
undo_listener:
    listener_close(engine->listener);
undo_managed:
    ce_managed_fini(&engine->managed);
    ce_memory_fini(&engine->memory);
undo_te:
    mc_te_destroy(engine->te);
undo_loop:
    loop_destroy(engine->loop);
    return status;
}

enum mc_status ce_create(const struct ce_opts *opts, struct ce_engine **out)
{
    struct ce_settings set;
    struct ce_engine *engine;
    enum mc_status status;

    compat_env_tell(COMPAT_PART_ENGINE);
    status = ce_settings_read(opts, &set);
    if (status != MC_OK)
        return status;
    engine = calloc(1, sizeof(*engine));
    if (!engine)
        return MC_ENOMEM;
    engine->set = set;
    engine->pid = getpid();
    locks_init(engine);
    status = hashmap_init(&engine->peers, 16, CE_PEERS_MAX);
    if (status != MC_OK)
        goto undo_locks;
    status = ce_inbox_init(&engine->inbox);
    if (status != MC_OK)
        goto undo_inbox;
    status = ce_ids_init(&engine->ids);
    if (status != MC_OK)
        goto undo_ids;
    status = start(engine);
    if (status != MC_OK)
        goto undo_ids;
    *out = engine;
    return MC_OK;

undo_ids:
    ce_ids_fini(&engine->ids);
undo_inbox:
    ce_inbox_fini(&engine->inbox);
    hashmap_fini(&engine->peers);
undo_locks:
    locks_fini(engine);
    free(engine);
    return status;
}

/* ---- end ---- */

static void calls_stop(struct loop *loop, void *arg)
{
    ce_calls_close(arg);
}

void ce_destroy(struct ce_engine *engine)
{
    if (!engine || engine->pid != getpid())
        return; /* a forked child has our memory, but not our thread, and our peers are the parent's */
    if (engine->set.service)
        ce_meta_withdraw(&engine->set, engine->session);
    atomic_store(&engine->closing, true);
    loop_call(engine->loop, calls_stop, engine);
    pthread_mutex_lock(&engine->done_lock);
    while (engine->users)
        pthread_cond_wait(&engine->done_cond, &engine->done_lock);
    pthread_mutex_unlock(&engine->done_lock);
    ce_ids_fini(&engine->ids);
    loop_thread_stop(engine->loop);
    listener_close(engine->listener);
    ce_serve_close(engine);
    ce_peers_close(engine);
    ce_managed_fini(&engine->managed);
    ce_memory_fini(&engine->memory);
    mc_te_destroy(engine->te);
    loop_destroy(engine->loop);
    ce_inbox_fini(&engine->inbox);
    hashmap_fini(&engine->peers);
    locks_fini(engine);
    free(engine);
}

/* ---- looking ---- */

bool ce_usable(const struct ce_engine *engine)
{
    return engine->pid == getpid();
}

uint16_t ce_port(const struct ce_engine *engine)
{
    return engine->port;
}

const char *ce_session(const struct ce_engine *engine)
{
    return engine->session;
}

/* ---- memory ---- */

enum mc_status ce_register(struct ce_engine *engine, void *addr, uint64_t len)
{
    return ce_register_all(engine, &addr, &len, 1);
}

enum mc_status ce_unregister(struct ce_engine *engine, void *addr)
{
    return ce_unregister_all(engine, &addr, 1);
}

enum mc_status ce_register_all(struct ce_engine *engine, void *const *addrs, const uint64_t *lens, size_t n)
{
    enum mc_status status = ce_enter(engine);
    size_t i;

    if (status != MC_OK)
        return status;
    for (i = 0; i < n; i++) {
        status = ce_memory_add(&engine->memory, addrs[i], lens[i]);
        if (status != MC_OK)
            break;
    }
    while (status != MC_OK && i > 0)
        ce_memory_remove(&engine->memory, addrs[--i]);
    ce_leave(engine);
    return status;
}

enum mc_status ce_unregister_all(struct ce_engine *engine, void *const *addrs, size_t n)
{
    enum mc_status status = ce_enter(engine), worst = MC_OK;

    if (status != MC_OK)
        return status;
    for (size_t i = 0; i < n; i++) {
        status = ce_memory_remove(&engine->memory, addrs[i]);
        if (status != MC_OK)
            worst = status;
    }
    ce_leave(engine);
    return worst;
}

void *ce_managed_alloc(struct ce_engine *engine, uint64_t len)
{
    void *addr;

    if (ce_enter(engine) != MC_OK)
        return NULL;
    addr = ce_managed_get(&engine->managed, len);
    ce_leave(engine);
    return addr;
}

enum mc_status ce_managed_free(struct ce_engine *engine, void *addr)
{
    enum mc_status status = ce_enter(engine);

    if (status != MC_OK)
        return status;
    status = ce_managed_put(&engine->managed, addr);
    ce_leave(engine);
    return status;
}
