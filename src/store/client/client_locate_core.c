/* client_locate_core.c - where objects are: the cache of locations, lookups, prefix queries.
 *
 * The cache may be wrong at any time; readers verify. It answers for blocks, and for names only while there is no master. For
 * names it also keeps the newest version this client has seen (`floor`): an older one is never given out again. */
#include "store/client/client_impl.h"

#include <stdlib.h>

/* ---- cache ---- */

static bool key_is(const struct hnode *node, const void *key)
{
    return store_key_eq(&container_of(node, struct cached, node)->key, key);
}

struct cached *client_cached(struct client_core *core, const struct store_key *key)
{
    struct hnode *node = hashmap_find(&core->cache, store_key_hash(key, core->seed), key_is, key);
    struct cached *c = node ? container_of(node, struct cached, node) : NULL;

    if (c) {
        list_del(&c->lru);
        list_push_front(&core->lru, &c->lru);
    }
    return c;
}

static void cached_free(struct client_core *core, struct cached *c)
{
    hashmap_del(&core->cache, &c->node);
    list_del(&c->lru);
    pool_put(&core->cache_pool, c);
}

struct cached *client_cache(struct client_core *core, const struct store_key *key)
{
    struct cached *c = client_cached(core, key);

    if (c)
        return c;
    c = pool_get_zero(&core->cache_pool);
    if (!c && !list_empty(&core->lru)) {
        cached_free(core, list_last(&core->lru, struct cached, lru));
        c = pool_get_zero(&core->cache_pool);
    }
    if (!c)
        return NULL;
    c->key = *key;
    c->key.name = (struct slice){0};
    list_push_front(&core->lru, &c->lru);
    hashmap_add(&core->cache, &c->node, store_key_hash(key, core->seed));
    return c;
}

static void cached_place(struct cached *c, const struct place *place)
{
    if (c->key.kind == MC_KEY_NAMED) {
        if (place->version < c->floor)
            return;
        if (c->n && c->places[0].version < place->version)
            c->n = 0;
        c->floor = place->version;
    }
    for (uint32_t i = 0; i < c->n; i++)
        if (c->places[i].peer == place->peer) {
            c->places[i] = *place;
            return;
        }
    if (c->n < CACHED_PLACES)
        c->places[c->n++] = *place;
    else
        c->places[CACHED_PLACES - 1] = *place;
}

void client_cache_place(struct client_core *core, const struct store_key *key, const struct place *place)
{
    struct cached *c = client_cache(core, key);

    if (c)
        cached_place(c, place);
}

void client_uncache(struct client_core *core, const struct store_key *key, uint64_t generation)
{
    struct cached *c = client_cached(core, key);

    for (uint32_t i = 0; c && i < c->n;) {
        if (generation && c->places[i].generation != generation) {
            i++;
            continue;
        }
        c->places[i] = c->places[--c->n];
        core->stats.stale_locations += generation != 0;
    }
}

/* ---- places of an answer ---- */

/* False: a node this client does not know (yet). */
bool client_place_of(
    struct client_core *core, const struct store_found *found, const struct store_loc *loc, struct place *out)
{
    struct store_row row = store_row_at(found->rows, loc->node);
    uint32_t peer = client_peer_find(core, row.uuid);

    if (peer == 0)
        return false;
    *out = (struct place){
        .offset = loc->offset,
        .length = loc->length,
        .generation = loc->generation,
        .version = loc->version,
        .epoch = row.epoch,
        .segment = loc->segment,
        .head = loc->head,
        .peer = (uint16_t)peer,
    };
    return true;
}

static bool nearer(struct client_core *core, const struct place *a, const struct place *b)
{
    const struct cpeer *x = &core->peers[a->peer], *y = &core->peers[b->peer];

    if ((x->health == PEER_OK) != (y->health == PEER_OK))
        return x->health == PEER_OK;
    return x->distance < y->distance;
}

/* Near and healthy copies first; among equals the order is random, so that readers spread. */
static void places_order(struct client_core *core, struct client_private *p)
{
    for (uint32_t i = 1; i < p->place_count; i++) {
        struct place swap = p->places[i];
        uint32_t j = (uint32_t)rng_below(&core->rng, i + 1);

        p->places[i] = p->places[j];
        p->places[j] = swap;
    }
    for (uint32_t i = 1; i < p->place_count; i++) {
        struct place place = p->places[i];
        uint32_t j = i;

        for (; j > 0 && nearer(core, &place, &p->places[j - 1]); j--)
            p->places[j] = p->places[j - 1];
        p->places[j] = place;
    }
}

static void place_add(struct client_private *p, const struct place *place)
{
    if (p->place_count < CLIENT_COPIES)
        p->places[p->place_count++] = *place;
}

/* ---- locating one key ---- */

static bool locate_cached(struct client_core *core, struct client_private *p)
{
    struct cached *c = client_cached(core, &p->key);

    p->place_count = p->place_at = 0;
    for (uint32_t i = 0; c && i < c->n; i++)
        place_add(p, &c->places[i]);
    places_order(core, p);
    return p->place_count > 0;
}

/* Is this a call for which a location from the cache will do? */
static bool cache_will_do(const struct client_private *p)
{
    return p->call->kind == CALL_OP && p->call->op->opcode == MC_GET && p->key.kind == MC_KEY_BLOCK && !p->no_cache;
}

/* Nobody to ask: a get goes to where the key was seen last, everything else has no answer. */
static void locate_without_master(struct client_core *core, uint64_t now, struct client_private *p)
{
    p->miss = MC_MISS_MASTER_DOWN;
    p->place_count = 0;
    if (!p->no_cache && p->call->kind == CALL_OP && p->call->op->opcode == MC_GET && locate_cached(core, p))
        p->maybe_stale = p->key.kind == MC_KEY_NAMED;
    client_located(core, now, p);
}

/* The first connection takes a moment: a call that is early waits for it, once. */
static bool wait_for_master(struct client_core *core, uint64_t now, struct client_private *p)
{
    if (core->subscribed || !client_any_connecting(core, now) || p->tries++ > 0)
        return false;
    client_retry_at(core, p, now + WAIT_NODE_MS * NS_PER_MS); /* or when it is there */
    return true;
}

void client_locate(struct client_core *core, uint64_t now, struct client_private *p, uint32_t promise_ms)
{
    p->promise_ms = promise_ms;
    if (cache_will_do(p) && locate_cached(core, p)) {
        client_located(core, now, p);
        return;
    }
    if (!client_master_up(core, now)) {
        if (!wait_for_master(core, now, p))
            locate_without_master(core, now, p);
        return;
    }
    p->asks++;
    p->stage = STAGE_LOCATE;
    list_del(&p->queue);
    list_push_back(&core->lookups_waiting, &p->queue);
    client_wake_at(core, now);
}

/* What of an answer is for this call. *at: the first location that is for none of the calls before it; both are in the order of keys. */
static void take_answer(
    struct client_core *core, struct client_private *p, const struct store_found *found, uint32_t *at)
{
    struct cached *c = p->key.kind == MC_KEY_NAMED ? client_cached(core, &p->key) : NULL;
    uint64_t floor = c ? c->floor : 0;

    p->place_count = p->place_at = 0;
    p->miss = p->key_index < found->misses.len ? (enum mc_miss)found->misses.ptr[p->key_index] : MC_MISS_NEVER;
    for (; *at < store_loc_count(found->locs); ++*at) {
        struct store_loc loc = store_loc_at(found->locs, *at);
        struct place place;

        if (loc.key > p->key_index)
            break;
        if (loc.key < p->key_index)
            continue; /* of a call that has ended meanwhile */
        if (!client_place_of(core, found, &loc, &place)) {
            p->miss = MC_MISS_PEER_DOWN;
        } else if (place.version < floor) {
            p->miss = MC_MISS_STALE;
        } else {
            place_add(p, &place);
            c = c ? c : client_cache(core, &p->key);
            if (c)
                cached_place(c, &place);
        }
    }
    if (p->miss > MC_MISS_MASTER_DOWN)
        p->miss = MC_MISS_NEVER;
    places_order(core, p);
}

static void on_lookup(
    struct client_core *core, uint64_t now, struct request *request, enum mc_status status, const struct store_msg *msg)
{
    struct lookup *lookup = container_of(request, struct lookup, request);
    struct list *link;
    uint32_t at = 0;

    while ((link = list_pop_front(&lookup->waiting))) {
        struct client_private *p = list_entry(link, struct client_private, queue);

        if (msg && status == MC_OK) {
            take_answer(core, p, &msg->found, &at);
            client_located(core, now, p);
        } else {
            locate_without_master(core, now, p);
        }
    }
    pool_put(&core->lookup_pool, lookup);
}

/* One message for the first waiting call and all others that promise the same. */
static void lookup_send(struct client_core *core, uint64_t now)
{
    struct client_private *first = list_first(&core->lookups_waiting, struct client_private, queue);
    struct lookup *lookup = pool_get_zero(&core->lookup_pool);
    struct store_msg msg = {.type = MSG_MASTER_LOOKUP};
    uint64_t deadline = 0;
    enum mc_status status = MC_AGAIN;
    uint32_t n = 0, promise_ms = first->promise_ms;
    struct list waiting, *link;

    list_init(&waiting);
    buf_reset(&core->scratch);
    list_for_each_safe (it, tmp, &core->lookups_waiting) {
        struct client_private *p = list_entry(it, struct client_private, queue);

        if (n == LOOKUP_KEYS)
            break;
        if (p->promise_ms != promise_ms)
            continue;
        store_key_put(&core->scratch, &p->key);
        p->key_index = n++;
        deadline = p->call->deadline_ns > deadline ? p->call->deadline_ns : deadline;
        list_del(it);
        list_push_back(&waiting, it);
    }
    msg.lookup = (struct store_lookup){
        .ns = core->limits.ns, .keys = buf_slice(&core->scratch), .count = n, .promise_ms = promise_ms};
    if (lookup) {
        list_init(&lookup->waiting);
        list_splice_back(&lookup->waiting, &waiting);
        status = client_ask(core, now, STORE_PEER_MASTER, &lookup->request, &msg, deadline, on_lookup);
        if (status == MC_OK) {
            list_for_each (it, &lookup->waiting)
                client_get_early(core, now, list_entry(it, struct client_private, queue));
            return;
        }
        list_splice_back(&waiting, &lookup->waiting);
        pool_put(&core->lookup_pool, lookup);
    }
    while ((link = list_pop_front(&waiting))) {
        struct client_private *p = list_entry(link, struct client_private, queue);

        p->asks--;
        if (status == MC_AGAIN) {
            client_retry_at(core, p, now + BACKOFF_MS * NS_PER_MS);
        } else {
            locate_without_master(core, now, p);
        }
    }
}

void client_lookups_flush(struct client_core *core, uint64_t now)
{
    while (!list_empty(&core->lookups_waiting))
        lookup_send(core, now);
}

/* ---- many questions at once ---- */

enum mc_status client_exists_result(
    const struct client_core *core, const struct client_private *p, struct mc_store_result *r)
{
    if (p->place_count == 0) {
        r->miss = p->miss;
        return p->miss == MC_MISS_MASTER_DOWN ? MC_EPEERDOWN : MC_ENOENT;
    }
    r->length = p->places[0].length;
    r->version = p->places[0].version;
    memcpy(r->node, core->peers[p->places[0].peer].member.uuid, 16);
    return MC_OK;
}

/* The keys of those that wait for an answer; the others have one. */
static bool exists_keys(struct client_core *core, struct client_private *p)
{
    struct mc_store_op *ops = p->call->exists.ops;

    p->keys = malloc((p->call->exists.n + 1) * sizeof(*p->keys));
    for (uint32_t i = 0; p->keys && i < p->call->exists.n; i++) {
        if (ops[i].result.status != MC_PENDING)
            continue;
        enum mc_status status = store_key_from(core->limits.ns, &ops[i].key, &p->keys[i]);
        if (status != MC_OK)
            ops[i].result.status = status;
    }
    return p->keys != NULL;
}

/* Nobody to ask. A location from the cache would be no answer: it says where a thing was. */
static void exists_without_master(struct client_core *core, struct client_private *p)
{
    for (uint32_t i = 0; i < p->call->exists.n; i++)
        if (p->call->exists.ops[i].result.status == MC_PENDING)
            p->call->exists.ops[i].result.miss = MC_MISS_MASTER_DOWN;
    client_end(core, p, MC_EPEERDOWN);
}

static void on_exists(
    struct client_core *core, uint64_t now, struct request *request, enum mc_status status, const struct store_msg *msg)
{
    struct client_private *p = container_of(request, struct client_private, request);
    uint32_t at = 0;

    if (!msg || status != MC_OK) {
        exists_without_master(core, p);
        return;
    }
    p->key_index = 0;
    for (uint32_t i = 0; i < p->call->exists.n; i++) {
        struct mc_store_result *r = &p->call->exists.ops[i].result;

        if (r->status != MC_PENDING)
            continue;
        p->key = p->keys[i];
        take_answer(core, p, &msg->found, &at);
        r->status = client_exists_result(core, p, r);
        p->key_index++;
    }
    client_end(core, p, MC_OK);
}

void client_exists_run(struct client_core *core, uint64_t now, struct client_private *p)
{
    const struct client_call *call = p->call;
    struct store_msg msg = {.type = MSG_MASTER_LOOKUP};
    uint32_t n = 0;
    enum mc_status status;

    if (!p->keys && !exists_keys(core, p)) {
        client_end(core, p, MC_ENOMEM);
        return;
    }
    if (!client_master_up(core, now)) {
        if (!wait_for_master(core, now, p))
            exists_without_master(core, p);
        return;
    }
    buf_reset(&core->scratch);
    for (uint32_t i = 0; i < call->exists.n; i++) {
        if (call->exists.ops[i].result.status != MC_PENDING)
            continue;
        store_key_put(&core->scratch, &p->keys[i]);
        n++;
    }
    msg.lookup = (struct store_lookup){
        .ns = core->limits.ns, .keys = buf_slice(&core->scratch), .count = n, .promise_ms = core->limits.lease_ms};
    p->stage = STAGE_ASK;
    status = n ? client_ask(core, now, STORE_PEER_MASTER, &p->request, &msg, call->deadline_ns, on_exists) : MC_OK;
    if (n == 0)
        client_end(core, p, MC_OK);
    else if (status == MC_AGAIN)
        client_retry_at(core, p, now + BACKOFF_MS * NS_PER_MS);
    else if (status != MC_OK)
        exists_without_master(core, p);
}

/* What we found out ourselves; of a node that we have not reached yet, what the master says. */
static uint8_t state_of(const struct cpeer *peer)
{
    switch (peer->health) {
    case PEER_OK: return NODE_UP;
    case PEER_SUSPECT: return NODE_SUSPECT;
    case PEER_CONNECTING: return peer->member.state;
    default: return NODE_UNREACHABLE;
    }
}

void client_where_fill(struct client_core *core, struct client_private *p)
{
    struct client_call *call = p->call;

    call->where.rows_n = 0;
    for (uint32_t i = 0; i < p->place_count && i < call->where.rows_max; i++) {
        const struct place *place = &p->places[i];
        struct mc_location *row = &call->where.rows[call->where.rows_n++];

        *row = (struct mc_location){
            .epoch = place->epoch,
            .state = state_of(&core->peers[place->peer]),
            .segment = place->segment,
            .offset = place->offset,
            .length = place->length,
            .generation = place->generation,
            .version = place->version,
        };
        memcpy(row->node, core->peers[place->peer].member.uuid, 16);
    }
}

/* ---- prefix ---- */

static struct store_key prefix_key(const struct client_core *core, const struct client_call *call, uint32_t i)
{
    struct store_key key = {
        .ns = core->limits.ns,
        .group = call->prefix.group,
        .shard = call->prefix.shard,
        .shards = call->prefix.shards ? call->prefix.shards : 1,
        .kind = MC_KEY_BLOCK,
    };

    memcpy(key.id, call->prefix.ids[i], 16);
    return key;
}

/* No master: what the cache says, of nodes that are well. */
static void prefix_from_cache(struct client_core *core, struct client_private *p)
{
    struct client_call *call = p->call;
    uint32_t i = 0;

    for (; i < call->prefix.n; i++) {
        struct store_key key = prefix_key(core, call, i);
        struct cached *c = client_cached(core, &key);
        const struct place *good = NULL;

        for (uint32_t k = 0; c && k < c->n && !good; k++)
            if (core->peers[c->places[k].peer].health == PEER_OK)
                good = &c->places[k];
        if (!good)
            break;
        call->prefix.out.bytes += good->length;
        call->prefix.out.local_blocks += core->peers[good->peer].distance == 0;
    }
    call->prefix.out.blocks = i;
    client_end(core, p, MC_EPEERDOWN);
}

static void on_prefix(
    struct client_core *core, uint64_t now, struct request *request, enum mc_status status, const struct store_msg *msg)
{
    struct client_private *p = container_of(request, struct client_private, request);
    struct client_call *call = p->call;
    uint32_t local = UINT32_MAX;

    if (!msg || status != MC_OK) {
        if (status == MC_EPEERDOWN)
            prefix_from_cache(core, p);
        else
            client_end(core, p, status);
        return;
    }
    call->prefix.out.blocks = msg->found.blocks <= call->prefix.n ? msg->found.blocks : call->prefix.n;
    call->prefix.out.bytes = msg->found.bytes;
    for (uint32_t i = 0; i < store_loc_count(msg->found.locs); i++) {
        struct store_loc loc = store_loc_at(msg->found.locs, i);
        struct place place;

        if (loc.key >= call->prefix.n || !client_place_of(core, &msg->found, &loc, &place))
            continue;

        struct store_key key = prefix_key(core, call, loc.key);

        client_cache_place(core, &key, &place);
        if (core->peers[place.peer].distance == 0 && local != loc.key) {
            call->prefix.out.local_blocks++;
            local = loc.key;
        }
    }
    for (uint32_t i = 0; call->prefix.nodes && i < store_row_count(msg->found.rows); i++) {
        struct store_row row = store_row_at(msg->found.rows, i);
        struct mc_prefix_node *out = &call->prefix.nodes[call->prefix.nodes_n];

        if (row.lead == 0 || call->prefix.nodes_n == call->prefix.nodes_max)
            continue;
        memcpy(out->node, row.uuid, 16);
        out->blocks = row.lead;
        call->prefix.nodes_n++;
    }
    call->prefix.out.token = request->sent_at | 1;
    client_end(core, p, MC_OK);
}

void client_prefix_run(struct client_core *core, uint64_t now, struct client_private *p)
{
    struct client_call *call = p->call;
    uint32_t n = call->prefix.n < STORE_KEYS_MAX ? call->prefix.n : STORE_KEYS_MAX;
    struct store_msg msg = {.type = MSG_MASTER_PREFIX};
    enum mc_status status;

    call->prefix.out = (struct mc_prefix){0};
    call->prefix.nodes_n = 0;
    if (!core->subscribed && client_any_connecting(core, now) && p->tries++ == 0) {
        client_retry_at(core, p, now + WAIT_NODE_MS * NS_PER_MS);
        return;
    }
    p->stage = STAGE_ASK;
    msg.prefix = (struct store_prefix){
        .ns = core->limits.ns,
        .group = call->prefix.group,
        .shard = call->prefix.shard,
        .shards = call->prefix.shards ? call->prefix.shards : 1,
        .promise_ms = call->prefix.lease_ms ? call->prefix.lease_ms : core->limits.lease_ms,
        .ids = slice_of(call->prefix.ids, 16 * (size_t)n),
    };
    status = client_master_up(core, now)
                 ? client_ask(core, now, STORE_PEER_MASTER, &p->request, &msg, call->deadline_ns, on_prefix)
                 : MC_EPEERDOWN;
    if (status == MC_AGAIN)
        client_retry_at(core, p, now + BACKOFF_MS * NS_PER_MS);
    else if (status != MC_OK)
        prefix_from_cache(core, p);
}
