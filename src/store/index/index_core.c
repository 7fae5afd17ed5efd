/* index_core.c - the master's core: life, events, time. What it does with them is in the other files of this folder. */
#include "store/index/index_core.h"

#include <stdlib.h>

#include "store/index/index_impl.h"

static uint32_t or_default(uint32_t value, uint32_t fallback)
{
    return value ? value : fallback;
}

enum mc_status index_core_create(const struct index_limits *limits, const struct store_port *port, uint64_t instance,
    uint64_t seed, struct index_core **out)
{
    struct index_core *core = calloc(1, sizeof(*core));

    if (!core)
        return MC_ENOMEM;
    core->limits = (struct index_limits){
        .objects_max = or_default(limits->objects_max, 4000000),
        .peers_max = or_default(limits->peers_max, 4096),
        .suspect_ms = or_default(limits->suspect_ms, 400),
        .unreachable_ms = or_default(limits->unreachable_ms, 1000),
        .forget_ms = or_default(limits->forget_ms, 600000),
        .promise_max_ms = or_default(limits->promise_max_ms, 60000),
        .lease_ms = or_default(limits->lease_ms, 5000),
        .drop_ms = or_default(limits->drop_ms, 1000),
        .models_max = or_default(limits->models_max, 1024),
        .authority_ms = or_default(limits->authority_ms, 300),
    };
    core->port = *port;
    core->seed = seed;
    core->next_request = 1;
    core->catch_up_at = core->lapse_at = DEADLINE_NONE;
    core->believed = limits->heir_at ? limits->heir_at + index_believed_ns(core) : 0;
    core->stats.term = limits->term ? limits->term : 1;
    core->stats.instance = instance;
    list_init(&core->pendings);
    list_init(&core->drops);
    list_init(&core->models);
    list_init(&core->tombs);
    pool_init(&core->tomb_pool, sizeof(struct tomb), 0, TOMBS_MAX);
    pool_init(&core->pending_pool, sizeof(struct pending), 0, 65536);
    pool_init(&core->drop_pool, sizeof(struct drop), 0, 65536);
    buf_init(&core->rows, FRAME_BODY_MAX);
    buf_init(&core->locs, FRAME_BODY_MAX - (256 << 10)); /* the rest of the answer fits beside it */
    buf_init(&core->misses, FRAME_BODY_MAX);
    buf_init(&core->came, STORE_RECORDS_MAX);
    buf_init(&core->out, FRAME_BODY_MAX - (256 << 10));
    core->table = table_create(core->limits.objects_max, seed);
    core->peers = calloc(core->limits.peers_max, sizeof(*core->peers));
    core->members = calloc(STORE_NODES_MAX, sizeof(*core->members));
    core->ghosts = calloc(GHOSTS, sizeof(*core->ghosts));
    if (!core->table || !core->peers || !core->members || !core->ghosts ||
        hashmap_init(&core->tombs_by_key, 0, 0) != MC_OK) {
        index_core_destroy(core);
        return MC_ENOMEM;
    }
    *out = core;
    return MC_OK;
}

void index_core_destroy(struct index_core *core)
{
    if (!core)
        return;
    list_for_each_safe (it, tmp, &core->pendings)
        free(list_entry(it, struct pending, link)->verdicts);
    list_for_each_safe (it, tmp, &core->models)
        free(list_entry(it, struct model, link));
    for (uint32_t i = 0; core->members && i < core->members_top; i++)
        buf_fini(&core->members[i].promises);
    pool_fini(&core->pending_pool);
    pool_fini(&core->drop_pool);
    pool_fini(&core->tomb_pool);
    hashmap_fini(&core->tombs_by_key);
    buf_fini(&core->rows);
    buf_fini(&core->locs);
    buf_fini(&core->misses);
    buf_fini(&core->came);
    buf_fini(&core->out);
    table_destroy(core->table);
    free(core->peers);
    free(core->members);
    free(core->ghosts);
    free(core);
}

void index_core_set_bugs(struct index_core *core, struct index_bugs bugs)
{
    core->bugs = bugs;
}

/* ---- events ---- */

void index_core_on_peer_up(
    struct index_core *core, uint64_t now, uint32_t peer, enum hello_role role, const uint8_t uuid[16], uint32_t epoch)
{
    if (peer >= core->limits.peers_max)
        return;
    core->peers[peer] = (struct peer){.up = true, .role = role, .epoch = epoch, .member = MEMBER_NONE};
    memcpy(core->peers[peer].uuid, uuid, 16);
    if (role != ROLE_NODE && role != ROLE_HEARTBEAT)
        core->stats.clients++;
}

void index_core_on_peer_down(struct index_core *core, uint64_t now, uint32_t peer)
{
    struct member *member;

    if (peer >= core->limits.peers_max || !core->peers[peer].up)
        return;
    member = index_member_of(core, peer);
    if (core->peers[peer].role != ROLE_NODE && core->peers[peer].role != ROLE_HEARTBEAT)
        core->stats.clients--;
    core->peers[peer] = (struct peer){.member = MEMBER_NONE};
    index_pending_of_peer_end(core, peer);
    if (member)
        index_member_down(core, now, member);
}

void index_core_on_message(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg)
{
    struct member *member;

    if (peer >= core->limits.peers_max || !core->peers[peer].up)
        return;
    member = index_member_of(core, peer);
    if (member)
        index_heard(core, now, member);
    if (msg->reply) {
        if (msg->type == MSG_NODE_DROP)
            index_on_drop_reply(core, now, peer, msg);
        return;
    }
    switch (msg->type) {
    case MSG_NODE_REGISTER: index_on_register(core, now, peer, msg); break;
    case MSG_NODE_BEAT: index_on_beat(core, now, peer, msg); break;
    case MSG_NODE_COMMIT: index_on_commit(core, now, peer, msg); break;
    case MSG_NODE_INVENTORY: index_on_inventory(core, now, peer, msg); break;
    case MSG_NODE_GONE: index_on_gone(core, now, peer, msg); break;
    case MSG_MASTER_LOOKUP: index_on_lookup(core, now, peer, msg); break;
    case MSG_MASTER_PREFIX: index_on_prefix(core, now, peer, msg); break;
    case MSG_MASTER_REMOVE: index_on_remove(core, now, peer, msg); break;
    case MSG_MASTER_SUBSCRIBE: index_on_subscribe(core, now, peer, msg); break;
    case MSG_MASTER_MODEL: index_on_model(core, now, peer, msg); break;
    case MSG_MASTER_LIST: index_on_list(core, now, peer, msg); break;
    default: {
        struct store_msg reply = store_msg_reply(msg, MC_ENOSUP);

        index_reply(core, peer, &reply);
    }
    }
}

void index_core_on_tick(struct index_core *core, uint64_t now)
{
    index_members_tick(core, now);
    index_drops_tick(core, now);
}

uint64_t index_core_wake(const struct index_core *core)
{
    return deadline_min(index_members_wake(core), index_drops_wake(core));
}

void index_core_on_gap(struct index_core *core, uint64_t now)
{
    for (uint32_t i = 0; i < core->members_top; i++)
        if (core->members[i].used && core->members[i].peer)
            core->members[i].heard = now;
}

/* ---- looking ---- */

void index_core_stats(const struct index_core *core, struct index_stats *out)
{
    *out = core->stats;
    out->objects = table_entries(core->table);
    out->copies = table_copies(core->table);
    out->bytes = table_bytes(core->table);
    out->name_bytes = table_name_bytes(core->table);
    out->nodes = out->nodes_up = out->nodes_reporting = 0;
    out->unreachable = (struct store_count){0};
    out->doomed = 0;
    for (uint32_t i = 0; i < core->members_top; i++) {
        const struct member *m = &core->members[i];

        if (!m->used)
            continue;
        out->nodes++;
        out->nodes_up += m->info.state == NODE_UP || m->info.state == NODE_DRAINING;
        out->nodes_reporting += m->reporting;
        if (m->info.state == NODE_UNREACHABLE) {
            out->unreachable.objects += table_copies_of(core->table, (uint16_t)i);
            out->unreachable.bytes += m->beat.ledger.row[LEDGER_PRESENT].bytes;
        }
    }
    list_for_each (it, &core->models)
        out->models++;
}

void index_core_ledger(const struct index_core *core, struct store_ledger *out)
{
    *out = (struct store_ledger){0};
    for (uint32_t i = 0; i < core->members_top; i++) {
        if (!core->members[i].used)
            continue;
        for (int row = 0; row < LEDGER_ROWS; row++) {
            out->row[row].objects += core->members[i].beat.ledger.row[row].objects;
            out->row[row].bytes += core->members[i].beat.ledger.row[row].bytes;
        }
    }
}

bool index_core_member(
    const struct index_core *core, uint32_t *at, struct store_member *member, const struct store_beat **beat)
{
    for (; *at < core->members_top; ++*at) {
        if (!core->members[*at].used)
            continue;
        *member = core->members[*at].info;
        if (beat)
            *beat = &core->members[*at].beat;
        ++*at;
        return true;
    }
    return false;
}

const struct table *index_core_table(const struct index_core *core)
{
    return core->table;
}
