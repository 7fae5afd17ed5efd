/* client_peers_core.c - the master and the nodes as this client sees them, and the requests under way to them.
 *
 *     connecting -> ok <-> suspect          any -> gone (hung up) -> ok
 *
 * A suspect is asked nothing but for a sign of life, once per trial_ms; whoever waits for it is told `peer down` at once and goes
 * elsewhere. It is ok again with its first sign of life, whatever that is.
 *
 * The master says once that it has forgotten a node. Who was away then learns it from the next full list, which proves little by itself,
 * since a new master's grows: so a node that is not in it is dialled for LOST_MS more, and kept as long as it is connected. */
#include "store/client/client_impl.h"

#include <assert.h>

#include "base/hash.h"

/* ---- requests ---- */

static bool id_is(const struct hnode *node, const void *id)
{
    return container_of(node, struct request, node)->id == *(const uint64_t *)id;
}

static struct request *find(struct client_core *core, uint64_t id)
{
    struct hnode *node = hashmap_find(&core->requests, hash_mix(id), id_is, &id);

    return node ? container_of(node, struct request, node) : NULL;
}

enum mc_status client_ask(struct client_core *core, uint64_t now, uint32_t peer, struct request *request,
    struct store_msg *msg, uint64_t deadline_ns, request_done_fn *done)
{
    enum mc_status status;

    assert(request->id == 0 && "one request of a call at a time");
    msg->request = core->next_request + 1;
    msg->deadline_ms = deadline_to_wire(deadline_ns, now);
    status = core->port.send(core->port.ctx, peer, msg);
    if (status != MC_OK)
        return status;
    request->id = ++core->next_request;
    request->peer = peer;
    request->sent_at = now;
    request->quick = true;
    request->done = done;
    hashmap_add(&core->requests, &request->node, hash_mix(request->id));
    list_push_back(&core->peers[peer].requests, &request->link);
    return MC_OK;
}

void client_request_drop(struct client_core *core, struct request *request)
{
    if (request->id == 0)
        return;
    hashmap_del(&core->requests, &request->node);
    list_del(&request->link);
    request->id = 0;
}

void client_requests_end(struct client_core *core, uint64_t now, enum mc_status status)
{
    for (uint32_t i = 0; i < core->peers_top; i++)
        while (!list_empty(&core->peers[i].requests)) {
            struct request *request = list_first(&core->peers[i].requests, struct request, link);

            client_request_drop(core, request);
            request->done(core, now, request, status, NULL);
        }
}

/* ---- health ---- */

/* Everything that waits for this peer goes elsewhere. */
static void peer_fail(struct client_core *core, uint64_t now, uint32_t number, bool quick_only)
{
    struct cpeer *peer = &core->peers[number];
    struct list requests, reads, *link;

    list_init(&requests);
    list_init(&reads);
    list_for_each_safe (it, tmp, &peer->requests)
        if (!quick_only || list_entry(it, struct request, link)->quick) {
            list_del(it);
            list_push_back(&requests, it);
        }
    list_splice_back(&reads, &peer->reads);
    while (!list_empty(&requests)) {
        struct request *request = list_entry(requests.next, struct request, link);

        client_request_drop(core, request);
        request->done(core, now, request, MC_EPEERDOWN, NULL);
    }
    while ((link = list_pop_front(&reads))) {
        struct client_private *p = list_entry(link, struct client_private, read_link);

        core->port.read_cancel(core->port.ctx, (uint64_t)(uintptr_t)p);
        client_get_on_io(core, now, p, MC_EPEERDOWN);
    }
}

static void set_health(struct client_core *core, uint64_t now, uint32_t number, enum health health)
{
    struct cpeer *peer = &core->peers[number];

    if (peer->health == health)
        return;
    peer->health = health;
    peer->since = now;
    peer->trial_at = now + core->limits.trial_ms * NS_PER_MS;
    if (health == PEER_SUSPECT)
        peer_fail(core, now, number, true);
    else if (health == PEER_GONE)
        peer_fail(core, now, number, false);
    else if (health == PEER_OK) /* calls that wait for a connection look again */
        list_for_each (it, &core->live) {
            struct client_private *p = list_entry(it, struct client_private, link);

            if (p->stage == STAGE_WAIT && heap_has(&p->retry))
                heap_move(&core->retries, &p->retry, now);
        }
    client_wake_at(core, now);
}

void client_peer_heard(struct client_core *core, uint64_t now, uint32_t number)
{
    struct cpeer *peer = &core->peers[number];

    peer->heard = now;
    if (peer->health == PEER_SUSPECT)
        set_health(core, now, number, PEER_OK);
}

bool client_peer_usable(const struct client_core *core, uint32_t number)
{
    return core->peers[number].used && core->peers[number].health == PEER_OK;
}

/* The answer was heard already; that there was none is seen by the request's age. */
static void on_ping(
    struct client_core *core, uint64_t now, struct request *request, enum mc_status status, const struct store_msg *msg)
{
}

/* A pin of nothing for no time: answered by a node that lives, without a trace there. */
static void ping(struct client_core *core, uint64_t now, uint32_t number)
{
    struct cpeer *peer = &core->peers[number];
    struct store_msg msg = {.type = MSG_NODE_PIN, .pin = {.token = ++core->next_token}};

    peer->trial_at = now + core->limits.trial_ms * NS_PER_MS;
    client_request_drop(core, &peer->ping);
    client_ask(core, now, number, &peer->ping, &msg, peer->trial_at, on_ping);
}

static void on_subscribed(
    struct client_core *core, uint64_t now, struct request *request, enum mc_status status, const struct store_msg *msg)
{
    if (msg && status == MC_OK)
        client_on_members(core, now, &msg->members);
}

/* Ask for the members: at the beginning, and as the trial of a master that fell silent. */
static void subscribe(struct client_core *core, uint64_t now)
{
    struct store_msg msg = {.type = MSG_MASTER_SUBSCRIBE};

    client_request_drop(core, &core->subscribe);
    core->subscribe_at = DEADLINE_NONE;
    if (client_ask(core, now, STORE_PEER_MASTER, &core->subscribe, &msg, DEADLINE_NONE, on_subscribed) == MC_AGAIN)
        core->subscribe_at = now + BACKOFF_MS * NS_PER_MS;
}

bool client_master_up(struct client_core *core, uint64_t now)
{
    return core->peers[STORE_PEER_MASTER].health == PEER_OK;
}

uint32_t client_peer_find(const struct client_core *core, const uint8_t uuid[16])
{
    for (uint32_t i = 1; i < core->peers_top; i++)
        if (core->peers[i].used && memcmp(core->peers[i].member.uuid, uuid, 16) == 0)
            return i;
    return 0;
}

static bool connecting(const struct client_core *core, uint64_t now, uint32_t i)
{
    return core->peers[i].used && core->peers[i].health == PEER_CONNECTING &&
           now - core->peers[i].since < WAIT_NODE_MS * NS_PER_MS;
}

bool client_any_connecting(const struct client_core *core, uint64_t now)
{
    if (core->peers[STORE_PEER_MASTER].health == PEER_CONNECTING || !core->subscribed)
        return true;
    for (uint32_t i = 1; i < core->peers_top; i++)
        if (connecting(core, now, i))
            return true;
    return false;
}

/* ---- members ---- */

static uint32_t peer_create(struct client_core *core, uint64_t now)
{
    for (uint32_t i = 1; i <= core->limits.nodes_max; i++) {
        struct cpeer *peer = &core->peers[i];

        if (peer->used)
            continue;
        peer->used = true;
        peer->unlisted = false;
        peer->health = PEER_CONNECTING;
        peer->since = peer->heard = now;
        peer->touch_at = DEADLINE_NONE;
        buf_reset(&peer->touches);
        if (i >= core->peers_top)
            core->peers_top = i + 1;
        return i;
    }
    return 0;
}

static void peer_forget(struct client_core *core, uint64_t now, uint32_t number)
{
    set_health(core, now, number, PEER_GONE);
    core->port.disconnect(core->port.ctx, number);
    core->peers[number].used = false;
}

/* When to give up a node that the master does not know any more; DEADLINE_NONE. */
static uint64_t lost_at(const struct cpeer *peer)
{
    bool connected = peer->health == PEER_OK || peer->health == PEER_SUSPECT;

    return peer->unlisted && !connected ? peer->since + LOST_MS * NS_PER_MS : DEADLINE_NONE;
}

static void on_member(struct client_core *core, uint64_t now, const struct store_member *member)
{
    uint32_t number = client_peer_find(core, member->uuid);
    bool fresh = number == 0;
    struct cpeer *peer;

    if (fresh)
        number = peer_create(core, now);
    if (number == 0)
        return;
    peer = &core->peers[number];
    peer->unlisted = false;

    bool moved = !fresh && (peer->member.epoch != member->epoch || strcmp(peer->member.address, member->address) != 0);

    if (moved && member->epoch < peer->member.epoch)
        return;
    peer->member = *member;
    if (moved)
        set_health(core, now, number, PEER_GONE);
    if (fresh)
        peer->lost = true;
    if (moved || (peer->lost && member->state != NODE_UNREACHABLE)) {
        peer->lost = false;
        peer->distance = core->port.distance ? core->port.distance(core->port.ctx, member) : 2;
        core->port.connect(core->port.ctx, number, member);
        set_health(core, now, number, PEER_CONNECTING);
    } else if (peer->lost) {
        set_health(core, now, number, PEER_GONE);
        return;
    }
    if (member->state == NODE_SUSPECT || member->state == NODE_UNREACHABLE) {
        if (peer->health == PEER_OK && peer->heard + core->limits.suspect_ms * NS_PER_MS <= now)
            set_health(core, now, number, PEER_SUSPECT);
        else if (peer->health == PEER_OK)
            ping(core, now, number); /* we have heard it since; is it still there? */
    } else if (peer->health == PEER_SUSPECT) {
        set_health(core, now, number, PEER_OK); /* the master hears it */
        peer->heard = now;
    }
}

void client_on_members(struct client_core *core, uint64_t now, const struct store_members *members)
{
    struct cur list = cur_of_slice(members->list);
    struct store_member member;
    uint32_t number;

    core->subscribed = true;
    for (uint32_t i = 1; members->full && i < core->peers_top; i++)
        core->peers[i].unlisted = true;
    while (store_member_next(&list, &member))
        on_member(core, now, &member);
    for (size_t i = 0; i + 16 <= members->forgotten.len; i += 16) {
        number = client_peer_find(core, members->forgotten.ptr + i);
        if (number)
            peer_forget(core, now, number);
    }
    client_wake_at(core, now);
}

/* ---- choosing where a put goes ---- */

static bool tried(const struct client_private *p, uint32_t peer)
{
    for (uint32_t i = 0; i < p->peers_tried_count; i++)
        if (p->peers_tried[i] == peer)
            return true;
    return false;
}

bool client_connecting(const struct client_core *core, uint64_t now, const char *wanted)
{
    for (uint32_t i = 1; i < core->peers_top; i++)
        if (connecting(core, now, i) && store_member_is(&core->peers[i].member, slice_str(wanted)))
            return true;
    return false;
}

static uint64_t free_of(const struct cpeer *peer)
{
    const struct store_member *m = &peer->member;
    uint64_t left = m->capacity > m->used ? m->capacity - m->used : 0;

    return left + m->capacity / 64 + 1; /* a full one still evicts */
}

/* One of the candidates, weighted by free space. */
static uint32_t draw(struct client_core *core, const uint32_t *who, uint32_t n)
{
    uint64_t sum = 0, at;

    for (uint32_t i = 0; i < n; i++)
        sum += free_of(&core->peers[who[i]]);
    at = rng_below(&core->rng, sum);
    for (uint32_t i = 0; i < n; i++) {
        if (at < free_of(&core->peers[who[i]]))
            return who[i];
        at -= free_of(&core->peers[who[i]]);
    }
    return who[n - 1];
}

uint32_t client_choose(struct client_core *core, uint64_t now, const struct client_private *p, const char *wanted)
{
    uint32_t who[64], n = 0, nearest = UINT32_MAX, a, b;

    for (uint32_t i = 1; i < core->peers_top; i++) {
        struct cpeer *peer = &core->peers[i];

        if (!peer->used || peer->health != PEER_OK || peer->member.state != NODE_UP || tried(p, i))
            continue;
        if (wanted && store_member_is(&peer->member, slice_str(wanted)))
            return i;
        if (peer->distance < nearest) {
            nearest = peer->distance;
            n = 0;
        }
        if (peer->distance == nearest && n < 64)
            who[n++] = i;
    }
    if (n == 0)
        return 0;
    a = draw(core, who, n);
    b = draw(core, who, n);
    return free_of(&core->peers[a]) >= free_of(&core->peers[b]) ? a : b;
}

/* ---- reads tell their owners ---- */

static void touches_flush(struct client_core *core, uint32_t number)
{
    struct cpeer *peer = &core->peers[number];
    struct store_msg msg = {
        .type = MSG_NODE_TOUCH, .deadline_ms = DEADLINE_MS_NONE, .touch = buf_slice(&peer->touches)};

    if (peer->health == PEER_OK)
        core->port.send(core->port.ctx, number, &msg); /* a hint */
    buf_reset(&peer->touches);
    peer->touch_at = DEADLINE_NONE;
}

void client_touch(struct client_core *core, uint64_t now, uint32_t number, uint64_t generation)
{
    struct cpeer *peer = &core->peers[number];

    put_u64(&peer->touches, generation);
    if (peer->touches.len >= (size_t)8 * TOUCH_BATCH)
        touches_flush(core, number);
    else if (peer->touch_at == DEADLINE_NONE)
        peer->touch_at = now + TOUCH_MS * NS_PER_MS;
}

/* ---- events ---- */

void client_core_on_peer_up(
    struct client_core *core, uint64_t now, uint32_t number, const uint8_t uuid[16], uint32_t epoch)
{
    struct cpeer *peer;

    if (number > core->limits.nodes_max || !core->peers[number].used)
        return;
    peer = &core->peers[number];
    peer->heard = now;
    if (number != STORE_PEER_MASTER && epoch > peer->member.epoch)
        peer->member.epoch = epoch; /* the node itself is quicker than the master's word: what it held before is gone */
    if (number == STORE_PEER_MASTER) {
        set_health(core, now, number, PEER_OK);
        subscribe(core, now);
    } else if (peer->health == PEER_GONE) {
        set_health(core, now, number, PEER_CONNECTING); /* ok when it has told its segments */
    }
}

void client_core_on_peer_down(struct client_core *core, uint64_t now, uint32_t number)
{
    if (number > core->limits.nodes_max || !core->peers[number].used)
        return;
    set_health(core, now, number, PEER_GONE);
}

void client_core_on_message(struct client_core *core, uint64_t now, uint32_t number, const struct store_msg *msg)
{
    struct request *request;

    if (number > core->limits.nodes_max || !core->peers[number].used || core->peers[number].health == PEER_GONE)
        return;
    client_peer_heard(core, now, number);
    if (msg->reply) {
        request = find(core, msg->request);
        if (!request || request->peer != number)
            return;
        client_request_drop(core, request);
        request->done(core, now, request, msg->status, msg);
    } else if (number == STORE_PEER_MASTER && msg->type == MSG_MASTER_MEMBERS) {
        client_on_members(core, now, &msg->members);
    } else if (number != STORE_PEER_MASTER && msg->type == MSG_NODE_INFO) {
        core->port.segments(core->port.ctx, number, msg->segments);
        set_health(core, now, number, PEER_OK);
    }
}

void client_core_on_gap(struct client_core *core, uint64_t now)
{
    for (uint32_t i = 0; i < core->peers_top; i++) {
        core->peers[i].heard = now;
        list_for_each (it, &core->peers[i].requests)
            list_entry(it, struct request, link)->sent_at = now;
    }
}

/* When this peer's silence begins to mean something; DEADLINE_NONE while no short answer is awaited. */
static uint64_t silent_at(const struct client_core *core, const struct cpeer *peer)
{
    if (peer->health != PEER_OK)
        return DEADLINE_NONE;
    list_for_each (it, &peer->requests) { /* oldest first */
        const struct request *request = list_entry(it, struct request, link);
        uint64_t since = request->sent_at > peer->heard ? request->sent_at : peer->heard;

        if (request->quick)
            return since + core->limits.suspect_ms * NS_PER_MS;
    }
    return DEADLINE_NONE;
}

/* When to ask a node for a sign of life: what is awaited from it may take long (much to read or to pull), or can be had without
 * it (memory of this host), so neither silence nor success of a read says anything. */
static uint64_t ping_at(const struct client_core *core, const struct cpeer *peer)
{
    const struct client_private *read = list_first(&peer->reads, struct client_private, read_link);
    const struct request *request = list_first(&peer->requests, struct request, link);
    uint64_t since = DEADLINE_NONE;

    if (peer->health == PEER_SUSPECT)
        return peer->trial_at;
    if (peer->health != PEER_OK || peer->ping.id)
        return DEADLINE_NONE;
    if (read)
        since = read->waiting_since;
    if (request && !request->quick)
        since = deadline_min(since, request->sent_at);
    if (since == DEADLINE_NONE)
        return DEADLINE_NONE;
    return (since > peer->heard ? since : peer->heard) + core->limits.trial_ms * NS_PER_MS;
}

void client_peers_tick(struct client_core *core, uint64_t now)
{
    struct cpeer *master = &core->peers[STORE_PEER_MASTER];

    for (uint32_t i = 0; i < core->peers_top; i++) {
        struct cpeer *peer = &core->peers[i];

        if (!peer->used)
            continue;
        if (lost_at(peer) <= now) {
            peer_forget(core, now, i);
            continue;
        }
        if (silent_at(core, peer) <= now)
            set_health(core, now, i, PEER_SUSPECT);
        if (i != STORE_PEER_MASTER && ping_at(core, peer) <= now)
            ping(core, now, i);
        if (i != STORE_PEER_MASTER && now >= peer->touch_at)
            touches_flush(core, i);
    }
    if (master->health == PEER_OK && now >= core->subscribe_at)
        subscribe(core, now);
    if (master->health == PEER_SUSPECT && now >= master->trial_at) {
        master->trial_at = now + core->limits.trial_ms * NS_PER_MS;
        subscribe(core, now);
    }
}

uint64_t client_peers_wake(const struct client_core *core)
{
    uint64_t wake = core->peers[STORE_PEER_MASTER].health == PEER_OK ? core->subscribe_at : DEADLINE_NONE;

    for (uint32_t i = 0; i < core->peers_top; i++) {
        const struct cpeer *peer = &core->peers[i];

        if (!peer->used)
            continue;
        wake = deadline_min(wake, deadline_min(silent_at(core, peer), lost_at(peer)));
        if (i != STORE_PEER_MASTER)
            wake = deadline_min(wake, deadline_min(peer->touch_at, ping_at(core, peer)));
        else if (peer->health == PEER_SUSPECT)
            wake = deadline_min(wake, peer->trial_at);
    }
    return wake;
}
