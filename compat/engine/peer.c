/* peer.c - peers by name, and the question what they have registered.
 *
 * Questions are numbered, one is under way at a time. Who waits names the first question whose answer will do: one that was asked
 * after something changed. When the connection that questions go by is lost, the answer is forgotten: another process may
 * have the name when it stands again.
 *
 * A host name, or a name at the metadata service, is looked up when the peer is made. When nobody answers there any more (`lost`), the next use looks it up again. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/log.h"
#include "compat/engine/impl.h"
#include "compat/engine/meta.h"
#include "net/json.h"

#define ASK_MS 2000

/* ---- what it has registered ---- */

struct ce_desc *ce_peer_desc(struct ce_peer *peer, uint64_t *number)
{
    struct ce_desc *desc;

    pthread_mutex_lock(&peer->lock);
    desc = ce_desc_ref(peer->desc);
    *number = peer->desc_number;
    pthread_mutex_unlock(&peer->lock);
    return desc;
}

uint64_t ce_peer_next(struct ce_peer *peer)
{
    uint64_t next;

    pthread_mutex_lock(&peer->lock);
    next = peer->asked + 1;
    pthread_mutex_unlock(&peer->lock);
    return next;
}

/* `desc` is given, NULL: forget. */
static void desc_set(struct ce_peer *peer, struct ce_desc *desc, uint64_t number)
{
    struct ce_desc *old;

    pthread_mutex_lock(&peer->lock);
    old = peer->desc;
    peer->desc = desc;
    peer->desc_number = number;
    pthread_mutex_unlock(&peer->lock);
    ce_desc_unref(old);
}

void ce_peer_drop_desc(struct ce_peer *peer)
{
    desc_set(peer, NULL, 0);
}

static void tell_waiters(struct ce_peer *peer, uint64_t number, enum mc_status status)
{
    struct list due;

    list_init(&due);
    list_for_each_safe (it, tmp, &peer->waiters) {
        struct ce_waiter *waiter = list_entry(it, struct ce_waiter, link);

        if (status != MC_OK || waiter->want <= number) {
            list_del(it);
            list_push_back(&due, it);
        }
    }
    while (!list_empty(&due)) {
        struct ce_waiter *waiter = list_first(&due, struct ce_waiter, link);

        list_del(&waiter->link);
        waiter->fn(waiter, status);
    }
}

static void ask(struct ce_peer *peer);

/* An answer is there. `same`: what we hold is still right, and answers this question too. */
static enum mc_status answer_take(struct ce_peer *peer, const struct frame *frame)
{
    const struct conn *conn = rpc_peer_conn(peer->rpc);
    struct ce_wire_answer head;
    struct ce_desc *desc;
    enum mc_status status;
    const char *bad = "";

    status = ce_wire_answer_decode(frame->body, &head, &bad);
    if (status == MC_OK && frame->payload_len != (uint64_t)head.count * CE_AREA_SIZE)
        status = MC_EPROTO;
    if (status != MC_OK) {
        log_warn("engine: peer %s: malformed %s in what it has registered", peer->name, bad);
        return status;
    }
    if (!conn)
        return MC_EPEERDOWN;
    if (head.same) {
        pthread_mutex_lock(&peer->lock);
        peer->desc_number = peer->asked;
        pthread_mutex_unlock(&peer->lock);
        return MC_OK;
    }
    status = ce_desc_parse(&head, peer->areas, conn_peer(conn), &desc);
    if (status == MC_OK)
        desc_set(peer, desc, peer->asked);
    return status;
}

static void ask_done(struct rpc_call *call, enum mc_status status, const struct frame *frame)
{
    struct ce_peer *peer = call->user;
    uint64_t number = ce_peer_next(peer) - 1;

    peer->asking = false;
    if (status == MC_OK)
        status = answer_take(peer, frame);
    free(peer->areas);
    peer->areas = NULL;
    tell_waiters(peer, number, status);
    if (!list_empty(&peer->waiters))
        ask(peer);
}

static void ask_head(struct rpc_call *call, const struct frame *frame)
{
    struct ce_peer *peer = call->user;
    struct ce_wire_answer head;
    const char *bad;

    if (!peer->areas && ce_wire_answer_decode(frame->body, &head, &bad) == MC_OK && head.count &&
        frame->payload_len == (uint64_t)head.count * CE_AREA_SIZE)
        peer->areas = malloc(frame->payload_len);
}

static size_t ask_dst(struct rpc_call *call, const struct frame *frame, uint64_t off, size_t max, void **dst)
{
    struct ce_peer *peer = call->user;

    *dst = peer->areas ? peer->areas + off : NULL;
    return max;
}

static const struct rpc_call_ops ask_ops = {.done = ask_done, .head = ask_head, .payload_dst = ask_dst};

static void ask(struct ce_peer *peer)
{
    struct conn_msg msg = {.type = MSG_CE_DESCRIBE, .deadline_ns = deadline_after_ms(now_ns(), ASK_MS)};
    enum mc_status status;
    uint64_t known, number;
    struct buf body;

    if (peer->asking)
        return;
    pthread_mutex_lock(&peer->lock);
    number = ++peer->asked;
    known = peer->desc ? peer->desc->version : 0;
    pthread_mutex_unlock(&peer->lock);
    buf_init(&body, 256);
    ce_wire_ask_encode(known, &body);
    msg.body = buf_slice(&body);
    if (rpc_peer_health(peer->rpc) == RPC_DOWN)
        rpc_peer_kick(peer->rpc);
    peer->ask = (struct rpc_call){.ops = &ask_ops, .user = peer};
    peer->asking = true;
    status = buf_status(&body) == MC_OK ? rpc_send(peer->rpc, &peer->ask, &msg) : MC_ENOMEM;
    buf_fini(&body);
    if (status != MC_OK) {
        peer->asking = false;
        tell_waiters(peer, number, status);
    }
}

void ce_peer_wait(struct ce_peer *peer, struct ce_waiter *waiter)
{
    list_push_back(&peer->waiters, &waiter->link);
    ask(peer);
}

static void on_health(struct rpc_peer *rpc, enum rpc_health health, enum mc_status why)
{
    struct ce_peer *peer = rpc_peer_user(rpc);

    if (health == RPC_IDLE || health == RPC_DOWN)
        ce_peer_drop_desc(peer);
}

/* ---- making and ending ---- */

static void peer_free(struct ce_peer *peer)
{
    ce_desc_unref(peer->desc);
    pthread_mutex_destroy(&peer->lock);
    free(peer->areas);
    free(peer->name);
    free(peer);
}

static void rpc_start(struct loop *loop, void *arg)
{
    struct ce_peer *peer = arg;
    struct rpc_peer_opts opts = {
        .addr = peer->addr,
        .self = &peer->engine->self,
        .limits = ce_conn_limits(),
        .on_health = on_health,
        .user = peer,
    };

    peer->rpc = rpc_peer_create(loop, &opts);
}

static void rpc_stop(struct loop *loop, void *arg)
{
    struct ce_peer *peer = arg;

    rpc_peer_destroy(peer->rpc);
}

static void peer_close(struct ce_peer *peer)
{
    loop_call(peer->engine->loop, rpc_stop, peer);
    mc_peer_close(peer->te_peer);
    peer_free(peer);
}

/* Where the peer of that name listens. */
static enum mc_status find_address(const struct ce_engine *engine, const char *name, struct addr *given)
{
    const char *why;

    if (engine->set.service)
        return ce_meta_find(&engine->set, name, given);
    if (addr_parse(name, 0, given, &why) != MC_OK || given->kind == ADDR_UNIX || given->port == 0)
        return MC_EINVAL;
    return MC_OK;
}

static enum mc_status peer_make(struct ce_engine *engine, const char *name, struct ce_peer **out)
{
    struct ce_peer *peer;
    char text[ADDR_TEXT_MAX];
    struct addr given, numeric;
    enum mc_status status = find_address(engine, name, &given);

    if (status == MC_OK)
        status = ce_numeric(&given, engine->set.ip6, &numeric);
    if (status != MC_OK)
        return status;
    peer = calloc(1, sizeof(*peer));
    if (!peer)
        return MC_ENOMEM;
    peer->engine = engine;
    peer->addr = numeric;
    peer->by_name = given.kind == ADDR_NAME || engine->set.service;
    peer->refs = 1;
    list_init(&peer->used);
    list_init(&peer->waiters);
    pthread_mutex_init(&peer->lock, NULL);
    peer->name = strdup(name);
    status = peer->name ? te_peer_connect(engine->te, addr_format(&numeric, text), NULL, &peer->te_peer) : MC_ENOMEM;
    if (status != MC_OK) {
        peer_free(peer);
        return status;
    }
    loop_call(engine->loop, rpc_start, peer);
    if (!peer->rpc) {
        mc_peer_close(peer->te_peer);
        peer_free(peer);
        return MC_ENOMEM;
    }
    *out = peer;
    return MC_OK;
}

/* ---- the table; peers_lock held where it says so ---- */

static bool same_name(const struct hnode *node, const void *key)
{
    return strcmp(container_of(node, struct ce_peer, node)->name, key) == 0;
}

/* Lock held. It goes when nobody uses it any more; true: that is now, and up to the caller. */
static bool unlist(struct ce_engine *engine, struct ce_peer *peer)
{
    hashmap_del(&engine->peers, &peer->node);
    list_del(&peer->used);
    peer->listed = false;
    return peer->refs == 0;
}

/* Lock held. */
static struct ce_peer *find(struct ce_engine *engine, const char *name, struct ce_peer **gone)
{
    struct hnode *node = hashmap_find(&engine->peers, hash64(name, strlen(name), hash_seed()), same_name, name);
    struct ce_peer *peer = node ? container_of(node, struct ce_peer, node) : NULL;

    if (peer && peer->by_name && atomic_load(&peer->lost)) {
        if (unlist(engine, peer))
            *gone = peer;
        return NULL;
    }
    if (!peer)
        return NULL;
    peer->refs++;
    list_del(&peer->used);
    list_push_back(&engine->peers_used, &peer->used);
    return peer;
}

/* Lock held. Room for one more: the one unused for longest goes. */
static enum mc_status make_room(struct ce_engine *engine, struct ce_peer **gone)
{
    if (engine->peers.count < CE_PEERS_MAX)
        return MC_OK;
    list_for_each (it, &engine->peers_used) {
        struct ce_peer *peer = list_entry(it, struct ce_peer, used);

        if (peer->refs == 0) {
            unlist(engine, peer);
            *gone = peer;
            return MC_OK;
        }
    }
    return MC_EBUSY;
}

static enum mc_status add(struct ce_engine *engine, struct ce_peer *made, struct ce_peer **out)
{
    struct ce_peer *gone = NULL, *dead = NULL, *peer;
    enum mc_status status = MC_OK;

    pthread_mutex_lock(&engine->peers_lock);
    peer = find(engine, made->name, &dead);
    if (!peer) {
        status = make_room(engine, &gone);
        if (status == MC_OK)
            status = hashmap_add(&engine->peers, &made->node, hash64(made->name, strlen(made->name), hash_seed()));
        if (status == MC_OK) {
            made->listed = true;
            list_push_back(&engine->peers_used, &made->used);
            peer = made;
        }
    }
    pthread_mutex_unlock(&engine->peers_lock);
    if (peer != made)
        peer_close(made);
    if (gone)
        peer_close(gone);
    if (dead)
        peer_close(dead);
    *out = peer;
    return status;
}

enum mc_status ce_peer_get(struct ce_engine *engine, const char *name, struct ce_peer **out)
{
    struct ce_peer *peer, *gone = NULL;
    enum mc_status status;

    pthread_mutex_lock(&engine->peers_lock);
    peer = find(engine, name, &gone);
    pthread_mutex_unlock(&engine->peers_lock);
    if (gone)
        peer_close(gone);
    if (peer) {
        *out = peer;
        return MC_OK;
    }
    status = peer_make(engine, name, &peer);
    if (status != MC_OK) {
        log_warn("engine: peer '%.200s': %s", name, status == MC_EINVAL ? "must be host:port" : mc_status_str(status));
        return status;
    }
    return add(engine, peer, out);
}

void ce_peer_put(struct ce_peer *peer)
{
    struct ce_engine *engine = peer->engine;
    bool last;

    pthread_mutex_lock(&engine->peers_lock);
    last = --peer->refs == 0 && !peer->listed;
    pthread_mutex_unlock(&engine->peers_lock);
    if (last)
        peer_close(peer);
}

void ce_peers_close(struct ce_engine *engine)
{
    while (!list_empty(&engine->peers_used)) {
        struct ce_peer *peer = list_first(&engine->peers_used, struct ce_peer, used);

        assert(peer->refs == 0);
        unlist(engine, peer);
        peer_close(peer);
    }
}

void ce_forget(struct ce_engine *engine)
{
    if (ce_enter(engine) != MC_OK)
        return;
    pthread_mutex_lock(&engine->peers_lock);
    list_for_each (it, &engine->peers_used)
        ce_peer_drop_desc(list_entry(it, struct ce_peer, used));
    pthread_mutex_unlock(&engine->peers_lock);
    ce_leave(engine);
}

/* ---- showing ---- */

static void show_one(const struct ce_peer *peer, bool json, bool first, struct buf *out)
{
    struct mc_peer_stats stats;
    uint64_t read = 0, written = 0;

    mc_peer_stats(peer->te_peer, &stats);
    for (int i = 0; i < 4; i++) {
        read += stats.read_bytes[i];
        written += stats.write_bytes[i];
    }
    if (!json) {
        buf_printf(out, "%s links %u read %llu written %llu rtt_us %u\n", peer->name, stats.links,
            (unsigned long long)read, (unsigned long long)written, stats.rtt_us);
        return;
    }
    buf_append_str(out, first ? "{\"peer\": " : ", {\"peer\": ");
    json_write_str(out, slice_str(peer->name));
    buf_printf(out, ", \"links\": %u, \"read_bytes\": %llu, \"write_bytes\": %llu, \"rtt_us\": %u}", stats.links,
        (unsigned long long)read, (unsigned long long)written, stats.rtt_us);
}

char *ce_show_peers(struct ce_engine *engine, bool json)
{
    struct buf out;
    bool first = true;
    size_t len;
    char *text;

    if (ce_enter(engine) != MC_OK)
        return NULL;
    buf_init(&out, 16u << 20);
    buf_append_str(&out, json ? "[" : "");
    pthread_mutex_lock(&engine->peers_lock);
    list_for_each (it, &engine->peers_used) {
        show_one(list_entry(it, struct ce_peer, used), json, first, &out);
        first = false;
    }
    pthread_mutex_unlock(&engine->peers_lock);
    buf_append_str(&out, json ? "]" : "");
    text = buf_steal(&out, &len);
    ce_leave(engine);
    return text ? text : strdup("");
}
