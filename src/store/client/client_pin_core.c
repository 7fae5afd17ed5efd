/* client_pin_core.c - pins and views: objects that stay where they are while somebody uses them in place. */
#include "store/client/client_impl.h"

#include <stdlib.h>

/* ---- held pins ---- */

static struct held *held_find(struct client_core *core, uint64_t token)
{
    list_for_each (it, &core->helds)
        if (list_entry(it, struct held, link)->token == token)
            return list_entry(it, struct held, link);
    return NULL;
}

static void say_unpin(struct client_core *core, uint32_t peer, uint64_t token)
{
    struct store_msg msg = {.type = MSG_NODE_UNPIN, .deadline_ms = DEADLINE_MS_NONE, .pin = {.token = token}};

    core->port.send(core->port.ctx, peer, &msg); /* not sent: it ends by its time */
}

static void held_end(struct client_core *core, struct held *held)
{
    for (uint32_t i = 0; i < held->peer_count; i++)
        say_unpin(core, held->peers[i], held->token);
    if (held->base)
        core->port.unmap(core->port.ctx, held->peers[0], held->base);
    heap_del(&core->renews, &held->renew);
    list_del(&held->link);
    pool_put(&core->held_pool, held);
}

static void say_renew(struct client_core *core, struct held *held)
{
    struct store_msg msg = {
        .type = MSG_NODE_PIN, .deadline_ms = DEADLINE_MS_NONE, .pin = {.token = held->token, .pin_ms = held->pin_ms}};

    core->port.send(core->port.ctx, held->peers[0], &msg);
}

void client_renews_tick(struct client_core *core, uint64_t now)
{
    struct heap_node *top;

    while ((top = heap_top(&core->renews)) && top->key <= now) {
        struct held *held = container_of(top, struct held, renew);

        say_renew(core, held);
        heap_move(&core->renews, &held->renew, now + held->pin_ms / 3 * NS_PER_MS + NS_PER_MS);
    }
}

void client_core_unpin(struct client_core *core, uint64_t now, uint64_t token)
{
    struct held *held = held_find(core, token);

    if (held)
        held_end(core, held);
}

void client_core_view_release(struct client_core *core, uint64_t now, struct mc_view *view)
{
    client_core_unpin(core, now, view->pin);
    *view = (struct mc_view){0};
}

/* ---- pins ---- */

static void pin_fail(struct client_core *core, struct client_private *p, enum mc_status status)
{
    struct held *held = held_find(core, p->token);

    if (held)
        held_end(core, held);
    client_end(core, p, status);
}

static void pin_next(struct client_core *core, uint64_t now, struct client_private *p);

static void on_pinned(
    struct client_core *core, uint64_t now, struct request *request, enum mc_status status, const struct store_msg *msg)
{
    struct client_private *p = container_of(request, struct client_private, request);

    if (status != MC_OK)
        pin_fail(core, p, status);
    else
        pin_next(core, now, p);
}

/* Ask the next node that has some of the objects. */
static void pin_next(struct client_core *core, uint64_t now, struct client_private *p)
{
    struct held *held = held_find(core, p->token);
    struct store_msg msg = {.type = MSG_NODE_PIN};
    uint32_t peer = 0;
    enum mc_status status;

    if (!held) {
        client_end(core, p, MC_ECANCELED);
        return;
    }
    buf_reset(&core->scratch);
    for (uint32_t i = 0; i < p->pin_count; i++) {
        struct place *place = &p->pin_places[i];

        if (place->peer == 0 || (peer && place->peer != peer))
            continue;
        peer = place->peer;
        put_u64(&core->scratch, place->generation);
        place->peer = 0; /* asked for */
    }
    if (peer == 0) {
        p->call->pins.token = p->token;
        client_end(core, p, MC_OK);
        return;
    }
    if (held->peer_count == sizeof(held->peers) / sizeof(held->peers[0])) {
        pin_fail(core, p, MC_EPERM);
        return;
    }
    held->peers[held->peer_count++] = peer;
    msg.pin =
        (struct store_pin){.token = p->token, .pin_ms = p->call->pins.pin_ms, .generations = buf_slice(&core->scratch)};
    status = client_peer_usable(core, peer)
                 ? client_ask(core, now, peer, &p->request, &msg, p->call->deadline_ns, on_pinned)
                 : MC_EPEERDOWN;
    if (status != MC_OK)
        pin_fail(core, p, status == MC_AGAIN ? MC_EBUSY : MC_EPEERDOWN);
}

static void on_pin_lookup(
    struct client_core *core, uint64_t now, struct request *request, enum mc_status status, const struct store_msg *msg)
{
    struct client_private *p = container_of(request, struct client_private, request);
    struct held *held;

    if (status != MC_OK) {
        client_end(core, p, status);
        return;
    }
    for (uint32_t i = 0; i < store_loc_count(msg->found.locs); i++) {
        struct store_loc loc = store_loc_at(msg->found.locs, i);
        struct place place;

        if (loc.key >= p->pin_count || !client_place_of(core, &msg->found, &loc, &place))
            continue;
        if (p->pin_places[loc.key].peer == 0 ||
            core->peers[place.peer].distance < core->peers[p->pin_places[loc.key].peer].distance)
            p->pin_places[loc.key] = place;
    }
    for (uint32_t i = 0; i < p->pin_count; i++)
        if (p->pin_places[i].peer == 0) {
            client_end(core, p, MC_ENOENT);
            return;
        }
    held = pool_get_zero(&core->held_pool);
    if (!held) {
        client_end(core, p, MC_EBUSY);
        return;
    }
    held->token = p->token = core->next_token++;
    held->pin_ms = p->call->pins.pin_ms;
    list_push_back(&core->helds, &held->link);
    pin_next(core, now, p);
}

void client_pin_run(struct client_core *core, uint64_t now, struct client_private *p)
{
    struct client_call *call = p->call;
    struct store_msg msg = {.type = MSG_MASTER_LOOKUP};
    enum mc_status status = MC_EPEERDOWN;

    p->pin_count = call->pins.n;
    p->pin_places = calloc(p->pin_count, sizeof(*p->pin_places));
    if (!p->pin_places) {
        client_end(core, p, MC_ENOMEM);
        return;
    }
    buf_reset(&core->scratch);
    for (uint32_t i = 0; i < call->pins.n; i++) {
        struct store_key key;

        if (store_key_from(core->limits.ns, &call->pins.keys[i], &key) != MC_OK) {
            client_end(core, p, MC_EINVAL);
            return;
        }
        store_key_put(&core->scratch, &key);
    }
    msg.lookup = (struct store_lookup){
        .ns = core->limits.ns, .keys = buf_slice(&core->scratch), .promise_ms = core->limits.lease_ms};
    p->stage = STAGE_ASK;
    if (client_master_up(core, now))
        status = client_ask(core, now, STORE_PEER_MASTER, &p->request, &msg, call->deadline_ns, on_pin_lookup);
    if (status != MC_OK)
        client_end(core, p, status == MC_AGAIN ? MC_EBUSY : MC_EPEERDOWN);
}

/* ---- views ---- */

static enum mc_status view_verify(
    struct client_core *core, const struct client_private *p, const struct place *place, const uint8_t *base)
{
    struct object_header header;
    enum mc_status status = object_parse(base, place->head, &header);

    if (status == MC_OK)
        status = object_is(&header, &p->key, place->generation);
    if (status == MC_OK && (header.header_len != place->head || header.length != place->length))
        status = MC_ESTALE;
    return status == MC_OK ? object_verify(&header, base + place->head) : status;
}

static void on_view_pinned(
    struct client_core *core, uint64_t now, struct request *request, enum mc_status status, const struct store_msg *msg)
{
    struct client_private *p = container_of(request, struct client_private, request);
    const struct place *place = &p->places[p->place_at];
    struct held *held = held_find(core, p->token);
    const void *base = NULL;

    if (status == MC_OK && held)
        status = core->port.map(
            core->port.ctx, place->peer, place->segment, place->offset, place->head + place->length, &base);
    if (status != MC_OK || !held) {
        pin_fail(core, p, status == MC_OK ? MC_ECANCELED : status);
        return;
    }
    held->base = base;
    status = view_verify(core, p, place, base);
    if (status != MC_OK) {
        core->stats.checksum_errors += status == MC_ECORRUPT;
        pin_fail(core, p, MC_ENOENT);
        return;
    }
    p->call->view.out = (struct mc_view){.addr = (const uint8_t *)base + place->head,
        .length = place->length,
        .version = place->version,
        .pin = p->token};
    memcpy(p->call->view.out.node, core->peers[place->peer].member.uuid, 16);
    heap_add(&core->renews, &held->renew, now + held->pin_ms / 3 * NS_PER_MS + NS_PER_MS);
    client_touch(core, now, place->peer, place->generation);
    client_end(core, p, MC_OK);
}

void client_view_located(struct client_core *core, uint64_t now, struct client_private *p)
{
    uint8_t generation[8];
    struct store_msg msg = {.type = MSG_NODE_PIN};
    struct held *held;
    enum mc_status status = MC_EPEERDOWN;

    if (p->place_count == 0) {
        client_end(core, p, p->miss == MC_MISS_MASTER_DOWN ? MC_EPEERDOWN : MC_ENOENT);
        return;
    }
    for (p->place_at = 0; p->place_at < p->place_count; p->place_at++)
        if (core->peers[p->places[p->place_at].peer].distance == 0)
            break;
    if (p->place_at == p->place_count) {
        client_end(core, p, MC_ENOSUP);
        return;
    }
    held = heap_reserve(&core->renews, 1) == MC_OK ? pool_get_zero(&core->held_pool) : NULL;
    if (!held) {
        client_end(core, p, MC_EBUSY);
        return;
    }

    const struct place *place = &p->places[p->place_at];

    held->token = p->token = core->next_token++;
    held->pin_ms = p->call->view.pin_ms ? p->call->view.pin_ms : core->limits.lease_ms;
    if (held->pin_ms == MC_LEASE_MASTER)
        held->pin_ms = VIEW_PIN_MS; /* pins are the node's; the master's lease says nothing of them */
    held->peers[held->peer_count++] = place->peer;
    list_push_back(&core->helds, &held->link);
    le64_put(generation, place->generation);
    msg.pin = (struct store_pin){.token = p->token, .pin_ms = held->pin_ms, .generations = slice_of(generation, 8)};
    p->stage = STAGE_ASK;
    if (client_peer_usable(core, place->peer))
        status = client_ask(core, now, place->peer, &p->request, &msg, p->call->deadline_ns, on_view_pinned);
    if (status != MC_OK)
        pin_fail(core, p, status == MC_AGAIN ? MC_EBUSY : MC_EPEERDOWN);
}
