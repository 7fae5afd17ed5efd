/* index_members_core.c - who is there: registration, heartbeats, states, and what clients are told of them.
 *
 * State follows from two facts, the control connection and the last sign of life; nothing else sets it:
 *     no connection, or silent 1 s    unreachable   (a state, not a deletion: what it holds stays in the index)
 *     silent 400 ms                   suspect
 *     else                            up, or draining when it says so */
#include "store/index/index_impl.h"

#include <stdlib.h>

struct member *index_member_of(struct index_core *core, uint32_t peer)
{
    const struct peer *p = &core->peers[peer];

    return p->up && p->member != MEMBER_NONE ? &core->members[p->member] : NULL;
}

static uint16_t number_of(const struct index_core *core, const struct member *member)
{
    return (uint16_t)(member - core->members);
}

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

bool index_readable(const struct index_core *core, uint16_t owner)
{
    const struct member *m = &core->members[owner];

    return m->used && (m->info.state == NODE_UP || m->info.state == NODE_DRAINING);
}

static enum store_node_state state_at(const struct index_core *core, const struct member *m, uint64_t now)
{
    uint64_t silent = now > m->heard ? now - m->heard : 0;

    if (!m->peer || silent >= core->limits.unreachable_ms * NS_PER_MS)
        return NODE_UNREACHABLE;
    if (silent >= core->limits.suspect_ms * NS_PER_MS)
        return NODE_SUSPECT;
    return m->draining ? NODE_DRAINING : NODE_UP;
}

static void update_state(struct index_core *core, struct member *m, uint64_t now)
{
    enum store_node_state was = m->info.state, is = state_at(core, m, now);

    if (was == is)
        return;
    m->info.state = (uint8_t)is;
    m->changed = true;
    index_log(core, LOG_LEVEL_INFO, "node %s epoch %u state %d to %d", m->info.name, m->info.epoch, was, is);
    if (is == NODE_UNREACHABLE)
        index_drops_of_member_end(core, now, m);
    else if (was == NODE_UNREACHABLE && m->welcomed && !m->reporting)
        m->redrop_at = now; /* what it could not be told meanwhile */
}

void index_heard(struct index_core *core, uint64_t now, struct member *member)
{
    member->heard = now;
    if (member->info.state != NODE_UP)
        update_state(core, member, now);
}

static struct member *find(struct index_core *core, const uint8_t uuid[16])
{
    for (uint32_t i = 0; i < core->members_top; i++)
        if (core->members[i].used && memcmp(core->members[i].info.uuid, uuid, 16) == 0)
            return &core->members[i];
    return NULL;
}

static void push(struct index_core *core, uint64_t now, const struct member *only, const uint8_t *forgotten);

static void forget(struct index_core *core, uint64_t now, struct member *m)
{
    uint8_t uuid[16];

    index_log(core, LOG_LEVEL_INFO, "node %s epoch %u is forgotten", m->info.name, m->info.epoch);
    memcpy(uuid, m->info.uuid, 16);
    if (m->peer)
        core->peers[m->peer].member = MEMBER_NONE; /* its next commit is refused, and it registers anew */
    index_lose_all(core, m);
    core->believed = later(core->believed, m->believed);
    buf_fini(&m->promises);
    m->used = false;
    push(core, now, NULL, uuid);
}

/* One that will not come back, when every number is taken: of those with a UUID for one life the one that is silent for longest. */
static struct member *replaceable(struct index_core *core)
{
    struct member *oldest = NULL;

    for (uint32_t i = 0; i < STORE_NODES_MAX; i++) {
        struct member *m = &core->members[i];

        if (m->info.state == NODE_UNREACHABLE && m->info.ephemeral && (!oldest || m->heard < oldest->heard))
            oldest = m;
    }
    return oldest;
}

static struct member *create(struct index_core *core, uint64_t now)
{
    struct member *m = NULL;

    for (uint32_t i = 0; i < STORE_NODES_MAX && !m; i++)
        if (!core->members[i].used)
            m = &core->members[i];
    if (!m) {
        m = replaceable(core);
        if (!m)
            return NULL;
        forget(core, now, m);
    }
    *m = (struct member){.used = true, .redrop_at = DEADLINE_NONE, .promise_at = DEADLINE_NONE};
    m->info.state = NODE_UNREACHABLE;
    buf_init(&m->promises, 8 * PROMISE_BATCH);
    if (m - core->members >= core->members_top)
        core->members_top = (uint32_t)(m - core->members) + 1;
    return m;
}

/* ---- registration and heartbeats ---- */

static enum mc_status check(
    struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg, struct member **out)
{
    const struct store_member *self = &msg->reg.self;
    struct member *m = find(core, self->uuid);

    if (core->peers[peer].role != ROLE_NODE || memcmp(core->peers[peer].uuid, self->uuid, 16) != 0)
        return MC_EREFUSED;
    if (m && self->epoch < m->info.epoch) /* an older incarnation of somebody who is known */
        return MC_EREFUSED;
    if (!m)
        m = create(core, now);
    *out = m;
    return m ? MC_OK : MC_EBUSY;
}

void index_on_register(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg)
{
    struct member *m = NULL;
    enum mc_status status = check(core, now, peer, msg, &m);
    struct store_msg reply = store_msg_reply(msg, status);
    bool restarted;

    if (status != MC_OK) {
        index_log(core, LOG_LEVEL_WARN, "node %s epoch %u refused: %s", msg->reg.self.name, msg->reg.self.epoch,
            mc_status_str(status));
        index_reply(core, peer, &reply);
        return;
    }
    if (m->peer && m->peer != peer) { /* it has connected anew before we noticed that the old connection is gone */
        core->peers[m->peer].member = MEMBER_NONE;
        index_drops_of_member_end(core, now, m);
    }
    restarted = m->info.epoch != msg->reg.self.epoch;
    if (restarted && m->info.epoch) {
        index_lose_all(core, m);
        core->believed = later(core->believed, m->believed);
    }
    if (restarted) {
        m->welcomed = false;
        m->beat = (struct store_beat){0};
    }
    if (msg->reg.term_max > core->stats.term || (msg->reg.term_max == core->stats.term && !m->welcomed))
        index_raise_term(core, msg->reg.term_max + 1);

    uint8_t state = m->info.state;

    m->info = msg->reg.self;
    m->info.state = state;
    m->peer = peer;
    m->heard = now;
    m->welcomed = true;
    m->reporting = true;
    m->draining = false;
    m->unlisted = false;
    m->changed = true;
    m->round++;
    core->peers[peer].member = number_of(core, m);
    update_state(core, m, now);

    reply.welcome = (struct store_welcome){
        .term = core->stats.term, .instance = core->stats.instance, .forget_ms = core->limits.forget_ms};
    index_reply(core, peer, &reply);
}

/* For how long may a node's own word on its names count? Not at all while it may hold one that is dead here, or that we do not know of. */
static uint32_t authority(struct index_core *core, uint64_t now, struct member *m)
{
    if (now >= m->redrop_at)
        index_redrop(core, now, m);
    if (!m->peer || m->reporting || m->unlisted || m->redrop_at != DEADLINE_NONE || index_owes(core, now, m))
        return 0;
    m->believed = later(m->believed, now + index_believed_ns(core));
    return core->limits.authority_ms;
}

static void on_beat(struct index_core *core, uint64_t now, struct member *m, const struct store_beat *beat)
{
    m->dirty |= m->info.used != beat->used || m->info.objects != beat->objects || m->info.hits != beat->hits;
    m->beat = *beat;
    m->info.capacity = beat->capacity;
    m->info.used = beat->used;
    m->info.objects = beat->objects;
    m->info.puts = beat->puts;
    m->info.evictions = beat->evictions;
    m->info.hits = beat->hits;
    m->draining = beat->draining;
    m->heard = now;
    update_state(core, m, now);
}

void index_on_beat(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg)
{
    struct member *m = find(core, msg->beat.uuid);
    struct store_msg reply = store_msg_reply(msg, MC_OK);

    if (m && m->info.epoch == msg->beat.epoch) {
        on_beat(core, now, m, &msg->beat);
        reply.authority_ms = authority(core, now, m);
    }
    index_reply(core, peer, &reply);
}

void index_member_down(struct index_core *core, uint64_t now, struct member *member)
{
    member->peer = 0;
    member->heard = now; /* from now on it counts towards being forgotten */
    update_state(core, member, now);
    index_drops_of_member_end(core, now, member);
}

/* ---- telling clients ---- */

static void tell(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *notice)
{
    if (core->port.send(core->port.ctx, peer, notice) == MC_OK) {
        core->peers[peer].behind &= !notice->members.full;
        return;
    }
    core->peers[peer].behind = true;
    core->catch_up_at = deadline_min(core->catch_up_at, now + CATCH_UP_MS * NS_PER_MS);
}

static struct slice all_members(struct index_core *core)
{
    buf_reset(&core->out);
    for (uint32_t i = 0; i < core->members_top; i++)
        if (core->members[i].used)
            store_member_put(&core->out, &core->members[i].info);
    return buf_slice(&core->out);
}

/* Those whose queue was full when something changed. Who was forgotten meanwhile is not said again: the client gives up who is not in
 * the list, after a while in which a new master's has grown. */
static void catch_up(struct index_core *core, uint64_t now)
{
    struct store_msg notice = {.type = MSG_MASTER_MEMBERS, .deadline_ms = DEADLINE_MS_NONE};

    core->catch_up_at = DEADLINE_NONE;
    notice.members = (struct store_members){.term = core->stats.term, .full = true, .list = all_members(core)};
    for (uint32_t i = 0; i < core->limits.peers_max; i++)
        if (core->peers[i].up && core->peers[i].behind)
            tell(core, now, i, &notice);
}

static void push(struct index_core *core, uint64_t now, const struct member *only, const uint8_t *forgotten)
{
    struct store_msg notice = {.type = MSG_MASTER_MEMBERS, .deadline_ms = DEADLINE_MS_NONE};

    buf_reset(&core->out);
    if (only)
        store_member_put(&core->out, &only->info);
    notice.members = (struct store_members){.term = core->stats.term, .list = buf_slice(&core->out)};
    if (forgotten)
        notice.members.forgotten = slice_of(forgotten, 16);
    for (uint32_t i = 0; i < core->limits.peers_max; i++)
        if (core->peers[i].up && core->peers[i].subscribed)
            tell(core, now, i, &notice);
}

void index_on_subscribe(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg)
{
    struct store_msg reply = store_msg_reply(msg, MC_OK);

    reply.members = (struct store_members){.term = core->stats.term, .full = true, .list = all_members(core)};
    core->peers[peer].subscribed = true;
    tell(core, now, peer, &reply);
}

/* ---- promises, told to owners some at a time ---- */

static void promises_flush(struct index_core *core, uint16_t owner)
{
    struct member *m = &core->members[owner];
    struct store_msg notice = {.type = MSG_NODE_PROMISE, .deadline_ms = DEADLINE_MS_NONE};

    notice.promise = (struct store_promise){.ms = m->promise_ms, .generations = buf_slice(&m->promises)};
    if (m->peer && m->promises.len)
        core->port.send(core->port.ctx, m->peer, &notice); /* a hint: not sent is not told */
    buf_reset(&m->promises);
    m->promise_ms = 0;
    m->promise_at = DEADLINE_NONE;
}

void index_promise(struct index_core *core, uint64_t now, uint16_t owner, uint64_t generation, uint32_t ms)
{
    struct member *m = &core->members[owner];

    if (m->promises.len + 8 > (size_t)8 * PROMISE_BATCH)
        promises_flush(core, owner);
    put_u64(&m->promises, generation);
    if (ms > m->promise_ms)
        m->promise_ms = ms;
    if (m->promise_at == DEADLINE_NONE)
        m->promise_at = now + PROMISE_FLUSH_MS * NS_PER_MS;
}

/* ---- time ---- */

void index_members_tick(struct index_core *core, uint64_t now)
{
    bool numbers = now >= core->next_push;

    for (uint32_t i = 0; i < core->members_top; i++) {
        struct member *m = &core->members[i];

        if (!m->used)
            continue;
        update_state(core, m, now);
        if (m->info.state == NODE_UNREACHABLE && now - m->heard >= core->limits.forget_ms * NS_PER_MS) {
            forget(core, now, m);
            continue;
        }
        if (now >= m->promise_at)
            promises_flush(core, (uint16_t)i);
        if (now >= m->redrop_at)
            index_redrop(core, now, m);
        if (m->changed || (numbers && m->dirty)) {
            m->changed = m->dirty = false;
            push(core, now, m, NULL);
        }
    }
    if (now >= core->catch_up_at)
        catch_up(core, now);
    if (numbers)
        core->next_push = now + MEMBERS_PUSH_MS * NS_PER_MS;
}

uint64_t index_members_wake(const struct index_core *core)
{
    uint64_t wake = core->catch_up_at;

    for (uint32_t i = 0; i < core->members_top; i++) {
        const struct member *m = &core->members[i];

        if (!m->used)
            continue;
        if (m->changed)
            return 0;
        if (m->dirty)
            wake = deadline_min(wake, core->next_push);
        wake = deadline_min(wake, deadline_min(m->promise_at, m->redrop_at));
        if (m->info.state == NODE_UNREACHABLE)
            wake = deadline_min(wake, m->heard + core->limits.forget_ms * NS_PER_MS);
        else if (m->info.state == NODE_SUSPECT)
            wake = deadline_min(wake, m->heard + core->limits.unreachable_ms * NS_PER_MS);
        else
            wake = deadline_min(wake, m->heard + core->limits.suspect_ms * NS_PER_MS);
    }
    return wake;
}
