/* node_pin_core.c - pins: a client says "these stay where they are until then". A group is what one message pinned; it ends
 * by itself after its time, with its client's connection, or when it is released. */
#include "store/node/node_impl.h"

static struct pin_group *find(struct node_core *core, uint32_t peer, uint64_t token)
{
    list_for_each (it, &core->groups) {
        struct pin_group *group = list_entry(it, struct pin_group, link);

        if (group->peer == peer && group->token == token)
            return group;
    }
    return NULL;
}

static void group_end(struct node_core *core, uint64_t now, struct pin_group *group)
{
    struct list *link;

    while ((link = list_pop_front(&group->pins))) {
        struct pin *pin = list_entry(link, struct pin, link);

        node_obj_unpin(core, now, pin->obj);
        pool_put(&core->pin_pool, pin);
    }
    heap_del(&core->pin_timers, &group->timer);
    list_del(&group->link);
    pool_put(&core->group_pool, group);
}

/* Pin every object of the list, or say why not. */
static enum mc_status pin_all(struct node_core *core, uint64_t now, struct pin_group *group, struct slice generations)
{
    uint64_t allowed = core->self.capacity / 100 * core->limits.pinned_percent;

    for (uint32_t i = 0; i < store_u64_count(generations); i++) {
        struct obj *obj = node_obj_by_generation(core, store_u64_at(generations, i));
        struct pin *pin;

        if (!obj || (obj->state != OBJ_PRESENT && obj->state != OBJ_UNINDEXED && obj->state != OBJ_COMMITTING))
            return MC_ENOENT;
        if (obj->pins == 0 && core->pinned + obj->header_len + obj->length > allowed)
            return MC_EPERM;
        pin = pool_get(&core->pin_pool);
        if (!pin)
            return MC_EPERM;
        pin->obj = obj;
        list_push_back(&group->pins, &pin->link);
        node_obj_pin(core, now, obj);
    }
    return MC_OK;
}

void node_on_pin(struct node_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg)
{
    uint32_t ms = msg->pin.pin_ms < core->limits.pin_max_ms ? msg->pin.pin_ms : core->limits.pin_max_ms;
    struct pin_group *group = find(core, peer, msg->pin.token);
    struct store_msg reply = store_msg_reply(msg, MC_OK);
    uint64_t until = now + ms * NS_PER_MS;

    if (group) { /* renewal: what it pins does not change */
        heap_move(&core->pin_timers, &group->timer, until);
        node_reply(core, peer, &reply);
        return;
    }
    group = pool_get_zero(&core->group_pool);
    if (!group || heap_reserve(&core->pin_timers, 1) != MC_OK) {
        reply.status = MC_EPERM;
    } else {
        group->peer = peer;
        group->token = msg->pin.token;
        list_init(&group->pins);
        list_push_back(&core->groups, &group->link);
        heap_add(&core->pin_timers, &group->timer, until);
        reply.status = pin_all(core, now, group, msg->pin.generations);
        if (reply.status != MC_OK)
            group_end(core, now, group);
        group = NULL;
    }
    if (group)
        pool_put(&core->group_pool, group);
    node_reply(core, peer, &reply);
}

void node_on_unpin(struct node_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg)
{
    struct pin_group *group = find(core, peer, msg->pin.token);
    struct store_msg reply = store_msg_reply(msg, group ? MC_OK : MC_ENOENT);

    if (group)
        group_end(core, now, group);
    node_reply(core, peer, &reply);
}

void node_pins_of_peer_end(struct node_core *core, uint64_t now, uint32_t peer)
{
    list_for_each_safe (it, tmp, &core->groups) {
        struct pin_group *group = list_entry(it, struct pin_group, link);

        if (group->peer == peer)
            group_end(core, now, group);
    }
}

void node_pins_tick(struct node_core *core, uint64_t now)
{
    struct heap_node *top;

    while ((top = heap_top(&core->pin_timers)) && top->key <= now)
        group_end(core, now, container_of(top, struct pin_group, timer));
}
