/* index_commit_core.c - what changes the index: commits, inventories, evictions, removals, and drops of old copies.
 *
 * Named keys. A living version is one or more copies that are not doomed, all of the same version. A version dies by dooming its
 * copies: queries do not see them any more, and each owner that can be reached is told to kill the header (a drop). The answer
 * of an upsert or remove waits for these owners. A doomed copy leaves the table when its owner confirms, reports without
 * it, restarts, or is forgotten.
 *
 * An owner that has not answered, because it cannot be reached or does not come to it, is not waited for without end: but at
 * least until nobody believes it any more (struct member: believed). */
#include "store/index/index_impl.h"

#include <assert.h>
#include <stdlib.h>

static uint16_t number_of(const struct index_core *core, const struct member *member)
{
    return (uint16_t)(member - core->members);
}

/* ---- versions ---- */

void index_raise_term(struct index_core *core, uint64_t term)
{
    if (core->bugs.keep_term || term <= core->stats.term)
        return;
    index_log(core, LOG_LEVEL_INFO, "term raised from %llu to %llu: a node has seen the one before",
        (unsigned long long)core->stats.term, (unsigned long long)term);
    core->stats.term = term;
    core->stats.term_raises++;
    core->counter = 0;
    for (uint32_t i = 0; i < core->members_top; i++) { /* so that each of them can tell the next master */
        struct store_msg notice = {
            .type = MSG_MASTER_MEMBERS, .deadline_ms = DEADLINE_MS_NONE, .members = {.term = term}};

        if (core->members[i].used && core->members[i].peer)
            core->port.send(core->port.ctx, core->members[i].peer, &notice);
    }
}

static uint64_t next_version(struct index_core *core)
{
    if (++core->counter > UINT32_MAX) {
        core->stats.term++;
        core->counter = 1;
    }
    return core->stats.term << 32 | core->counter;
}

/* ---- tombs ----
 *
 * A node that could not be reached may come back with a version older than one that has been given out and lost or removed since.
 * The floor kept here tells. The oldest are forgotten first; a new master knows none (docs/decisions/033). */

static bool tomb_is(const struct hnode *node, const void *key)
{
    return store_key_eq(&container_of(node, struct tomb, node)->key, key);
}

static struct tomb *tomb_find(struct index_core *core, const struct store_key *key)
{
    struct hnode *node = hashmap_find(&core->tombs_by_key, store_key_hash(key, core->seed), tomb_is, key);

    return node ? container_of(node, struct tomb, node) : NULL;
}

static uint64_t floor_of(struct index_core *core, const struct store_key *key)
{
    struct tomb *tomb = tomb_find(core, key);

    return tomb ? tomb->floor : 0;
}

static void tomb_set(struct index_core *core, const struct store_key *key, uint64_t floor)
{
    struct tomb *tomb = tomb_find(core, key);

    if (!tomb) {
        tomb = pool_get_zero(&core->tomb_pool);
        if (!tomb && !list_empty(&core->tombs)) {
            tomb = list_first(&core->tombs, struct tomb, link);
            hashmap_del(&core->tombs_by_key, &tomb->node);
            list_del(&tomb->link);
            tomb->floor = 0;
        }
        if (!tomb)
            return;
        tomb->key = *key;
        tomb->key.name = (struct slice){0};
        hashmap_add(&core->tombs_by_key, &tomb->node, store_key_hash(key, core->seed));
        list_push_back(&core->tombs, &tomb->link);
    }
    tomb->floor = floor > tomb->floor ? floor : tomb->floor;
}

/* A copy is not there any more (nobody removed it: it was evicted, or its node lost it). */
static void copy_lost(struct index_core *core, uint32_t entry, uint32_t at, const struct table_copy *copy)
{
    struct store_key key = table_key(core->table, entry);

    if (key.kind == MC_KEY_NAMED && !copy->doomed)
        tomb_set(core, &key, copy->version);
    table_remove(core->table, entry, at);
}

/* ---- drops ---- */

static void drop_send(struct index_core *core, struct drop *drop)
{
    uint8_t generation[8];
    struct store_msg msg = {.type = MSG_NODE_DROP, .request = drop->request, .deadline_ms = core->limits.drop_ms};

    le64_put(generation, drop->generation);
    msg.drop = (struct store_drop){.generations = slice_of(generation, 8), .replaced = drop->replaced};
    drop->sent = core->port.send(core->port.ctx, core->members[drop->member].peer, &msg) == MC_OK;
}

/* The answer may not leave before this one's authority has lapsed. */
static void wait_lapse(const struct index_core *core, struct pending *pending, uint64_t believed)
{
    if (pending && believed > pending->lapse && !core->bugs.forget_lapse)
        pending->lapse = believed;
}

static void pending_end(struct index_core *core, struct pending *pending)
{
    if (pending->peer) {
        pending->reply.verdicts = slice_of(pending->verdicts, pending->verdicts_len);
        index_reply(core, pending->peer, &pending->reply);
    }
    list_del(&pending->link);
    free(pending->verdicts);
    pool_put(&core->pending_pool, pending);
}

/* Nobody's answer is waited for any more. */
static void pending_answered(struct index_core *core, uint64_t now, struct pending *pending)
{
    if (pending->lapse <= now)
        pending_end(core, pending);
    else
        core->lapse_at = deadline_min(core->lapse_at, pending->lapse);
}

static void pending_release(struct index_core *core, uint64_t now, struct pending *pending)
{
    if (--pending->waiting == 0)
        pending_answered(core, now, pending);
}

static void lapses_tick(struct index_core *core, uint64_t now)
{
    if (now < core->lapse_at)
        return;
    core->lapse_at = DEADLINE_NONE;
    list_for_each_safe (it, tmp, &core->pendings) {
        struct pending *pending = list_entry(it, struct pending, link);

        if (pending->waiting == 0)
            pending_answered(core, now, pending);
    }
}

static void drop_end(struct index_core *core, uint64_t now, struct drop *drop, bool answered)
{
    struct pending *pending = drop->pending;

    if (!answered && drop->named)
        wait_lapse(core, pending, core->members[drop->member].believed);
    list_del(&drop->link);
    pool_put(&core->drop_pool, drop);
    if (pending)
        pending_release(core, now, pending);
}

bool index_owes(const struct index_core *core, uint64_t now, const struct member *member)
{
    uint64_t young = now + (core->limits.drop_ms - OWES_MS) * NS_PER_MS; /* deadline of one that old */

    list_for_each (it, &core->drops) {
        const struct drop *drop = list_entry(it, struct drop, link);

        if (drop->deadline >= young)
            return false; /* oldest first */
        if (drop->member == number_of(core, member))
            return true;
    }
    return false;
}

/* Doom one copy and tell its owner, if that can be reached; `pending` (may be NULL) waits for the answer. */
static void doom(struct index_core *core, uint64_t now, uint32_t entry, uint32_t at, const struct table_copy *copy,
    struct pending *pending, bool replaced)
{
    struct member *m = &core->members[copy->owner];
    bool named = table_key(core->table, entry).kind == MC_KEY_NAMED;
    bool reachable = m->peer && m->info.state != NODE_UNREACHABLE;
    struct drop *drop;

    if (core->bugs.forget_stamp) {
        table_remove(core->table, entry, at);
        return;
    }
    table_doom(core->table, entry, at);
    drop = reachable ? pool_get_zero(&core->drop_pool) : NULL;
    if (!drop) {
        if (reachable) /* so many at once: it is told with the doomed ones of its next report */
            m->redrop_at = now + REDROP_MS * NS_PER_MS;
        if (named)
            wait_lapse(core, pending, m->believed);
        return;
    }
    *drop = (struct drop){
        .pending = pending,
        .request = core->next_request++,
        .generation = copy->generation,
        .deadline = now + core->limits.drop_ms * NS_PER_MS,
        .member = copy->owner,
        .replaced = replaced,
        .named = named,
    };
    list_push_back(&core->drops, &drop->link);
    if (pending)
        pending->waiting++;
    core->stats.drops++;
    drop_send(core, drop);
}

/* A copy that is dying under another hand and may be believed yet: whoever is told that it is dead waits as if he had killed it. */
static void doom_again(struct index_core *core, uint64_t now, uint32_t entry, uint32_t at,
    const struct table_copy *copy, struct pending *pending)
{
    bool named = table_key(core->table, entry).kind == MC_KEY_NAMED;

    if (named && core->members[copy->owner].believed > now)
        doom(core, now, entry, at, copy, pending, true);
}

static bool living(const struct index_core *core, const struct store_key *key)
{
    uint32_t entry = table_find(core->table, key), at = TABLE_NONE;
    struct table_copy copy;

    while (entry != TABLE_NONE && table_next(core->table, entry, &at, &copy))
        if (!copy.doomed)
            return true;
    return false;
}

/* Doom every copy of a key with a version below `version`, of those at `node` if that is not empty. False: none of them lived. */
static bool doom_older(struct index_core *core, uint64_t now, const struct store_key *key, uint64_t version,
    struct slice node, struct pending *pending, bool replaced)
{
    uint32_t entry = table_find(core->table, key), at = TABLE_NONE, next;
    struct table_copy copy;
    bool any = false;

    if (entry == TABLE_NONE || !table_next(core->table, entry, &at, &copy))
        return false;
    for (bool more = true; more; at = next) {
        struct table_copy this = copy;

        next = at;
        more = table_next(core->table, entry, &next, &copy);
        if (this.version >= version || (node.len && !store_member_is(&core->members[this.owner].info, node)))
            continue;
        if (this.doomed) {
            doom_again(core, now, entry, at, &this, pending);
            continue;
        }
        any = true;
        doom(core, now, entry, at, &this, pending, replaced);
    }
    return any;
}

void index_on_drop_reply(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg)
{
    struct member *m = index_member_of(core, peer);
    struct table_copy copy;

    if (!m || msg->status != MC_OK)
        return;
    for (uint32_t i = 0; i < store_u64_count(msg->drop.generations); i++) {
        uint32_t at,
            entry = table_find_copy(core->table, number_of(core, m), store_u64_at(msg->drop.generations, i), &at);

        if (entry == TABLE_NONE)
            continue;
        for (uint32_t it = TABLE_NONE; table_next(core->table, entry, &it, &copy);)
            if (it == at && copy.doomed) {
                table_remove(core->table, entry, at);
                break;
            }
    }
    list_for_each_safe (it, tmp, &core->drops) {
        struct drop *drop = list_entry(it, struct drop, link);

        if (drop->request == msg->request && drop->member == number_of(core, m)) {
            drop_end(core, now, drop, true);
            break;
        }
    }
}

void index_drops_of_member_end(struct index_core *core, uint64_t now, struct member *member)
{
    list_for_each_safe (it, tmp, &core->drops) {
        struct drop *drop = list_entry(it, struct drop, link);

        if (drop->member == number_of(core, member))
            drop_end(core, now, drop, false);
    }
}

void index_pending_of_peer_end(struct index_core *core, uint32_t peer)
{
    list_for_each (it, &core->pendings)
        if (list_entry(it, struct pending, link)->peer == peer)
            list_entry(it, struct pending, link)->peer = 0;
}

void index_drops_tick(struct index_core *core, uint64_t now)
{
    list_for_each_safe (it, tmp, &core->drops) {
        struct drop *drop = list_entry(it, struct drop, link);

        if (now >= drop->deadline) {
            core->members[drop->member].redrop_at = now; /* it stays doomed and is told again */
            drop_end(core, now, drop, false);
        } else if (!drop->sent) {
            drop_send(core, drop);
        } else {
            break; /* oldest first, and those not sent are seldom */
        }
    }
    lapses_tick(core, now);
}

uint64_t index_drops_wake(const struct index_core *core)
{
    return list_empty(&core->drops)
               ? core->lapse_at
               : deadline_min(core->lapse_at, list_first(&core->drops, struct drop, link)->deadline);
}

void index_redrop(struct index_core *core, uint64_t now, struct member *member)
{
    uint32_t next = table_first_of(core->table, number_of(core, member)), at, entry;
    struct table_copy copy;
    struct store_msg msg = {.type = MSG_NODE_DROP, .deadline_ms = core->limits.drop_ms};
    uint32_t n = 0;

    member->redrop_at = DEADLINE_NONE;
    if (!member->peer)
        return;
    buf_reset(&core->out);
    while (n < DROP_BATCH && table_next_of(core->table, &next, &at, &entry, &copy)) {
        if (!copy.doomed)
            continue;
        put_u64(&core->out, copy.generation);
        n++;
    }
    if (n == 0)
        return;
    msg.request = core->next_request++;
    msg.drop = (struct store_drop){.generations = buf_slice(&core->out), .replaced = true};
    core->port.send(core->port.ctx, member->peer, &msg);
    member->redrop_at = now + REDROP_MS * NS_PER_MS; /* until none is left */
}

void index_lose_all(struct index_core *core, struct member *member)
{
    uint32_t next = table_first_of(core->table, number_of(core, member)), at, entry;
    struct table_copy copy;

    while (table_next_of(core->table, &next, &at, &entry, &copy)) {
        if (!copy.doomed) {
            core->stats.lost.objects++;
            core->stats.lost.bytes += copy.length;
        }
        copy_lost(core, entry, at, &copy);
    }
}

/* ---- commits ---- */

static struct pending *pending_create(struct index_core *core, uint32_t peer, const struct store_msg *msg)
{
    struct pending *pending = pool_get_zero(&core->pending_pool);

    if (!pending)
        return NULL;
    pending->peer = msg->request ? peer : 0;
    pending->waiting = 1;
    pending->reply = store_msg_reply(msg, MC_OK);
    list_push_back(&core->pendings, &pending->link);
    return pending;
}

static bool any_readable(const struct index_core *core, uint32_t entry)
{
    struct table_copy copy;

    for (uint32_t at = TABLE_NONE; table_next(core->table, entry, &at, &copy);)
        if (!copy.doomed && core->members[copy.owner].info.state != NODE_UNREACHABLE)
            return true;
    return false;
}

static struct table_copy copy_of(const struct store_entry *entry, uint16_t owner, uint64_t version)
{
    return (struct table_copy){
        .generation = entry->generation,
        .offset = entry->offset,
        .version = version,
        .length = entry->length,
        .segment = entry->segment,
        .head = entry->head,
        .owner = owner,
    };
}

/* Add the copy and mark it as reported in this registration. */
static enum mc_status add(
    struct index_core *core, struct member *m, const struct store_key *key, const struct table_copy *copy)
{
    enum mc_status status = table_add(core->table, key, copy);
    uint32_t at;

    if (status == MC_OK) {
        table_find_copy(core->table, copy->owner, copy->generation, &at);
        table_mark(core->table, at, m->round);
        index_ghost_set(core, key, false);
    } else {
        core->stats.full++;
    }
    return status;
}

/* The copy of a commit that came twice (its verdict was lost with a connection). */
static bool known(struct index_core *core, const struct member *m, uint64_t generation, struct store_verdict *verdict)
{
    struct table_copy copy;
    uint32_t at, entry = table_find_copy(core->table, number_of(core, m), generation, &at);

    if (entry == TABLE_NONE)
        return false;
    for (uint32_t it = TABLE_NONE; table_next(core->table, entry, &it, &copy);)
        if (it == at)
            *verdict = (struct store_verdict){copy.doomed ? MC_ESTALE : MC_OK, copy.version};
    table_mark(core->table, at, m->round);
    return true;
}

static struct store_verdict commit_named(
    struct index_core *core, uint64_t now, struct member *m, const struct store_entry *e, struct pending *pending)
{
    uint32_t entry = table_find(core->table, &e->key);
    uint64_t version = entry == TABLE_NONE ? 0 : table_version(core->table, entry);
    struct table_copy copy;

    if (e->flags & STORE_REPLICA) {
        if (version == 0 || version != e->version)
            return (struct store_verdict){MC_ESTALE, version};
    } else if (!(e->flags & STORE_REPLACE) && version && any_readable(core, entry)) {
        core->stats.lost_races++;
        doom_older(core, now, &e->key, version, (struct slice){0}, pending, true); /* they are doomed all */
        return (struct store_verdict){MC_EEXIST, version};
    } else {
        version = next_version(core);
    }
    copy = copy_of(e, number_of(core, m), version);
    if (add(core, m, &e->key, &copy) != MC_OK)
        return (struct store_verdict){MC_EBUSY, 0};
    return (struct store_verdict){MC_OK, version};
}

enum came { CAME_NOT, CAME_BEFORE, CAME_NOW }; /* what came of the copy; now: its elders are still there */

static struct store_verdict commit_one(struct index_core *core, uint64_t now, struct member *m,
    const struct store_entry *e, struct pending *pending, enum came *came)
{
    struct store_verdict verdict;
    struct table_copy copy = copy_of(e, number_of(core, m), 0);

    core->stats.commits++;
    *came = CAME_BEFORE;
    if (known(core, m, e->generation, &verdict))
        return verdict;
    if (e->key.kind == MC_KEY_NAMED)
        verdict = commit_named(core, now, m, e, pending);
    else
        verdict = (struct store_verdict){add(core, m, &e->key, &copy) == MC_OK ? MC_OK : MC_EBUSY, 0};
    *came = verdict.status == MC_OK ? CAME_NOW : CAME_NOT;
    return verdict;
}

/* A named copy is in: what it replaces dies. One that came before waits as the first time for what has not died yet. */
static void supersede(
    struct index_core *core, uint64_t now, const struct store_entry *e, uint64_t version, struct pending *pending)
{
    if (e->key.kind != MC_KEY_NAMED)
        return;
    if (!(e->flags & STORE_REPLICA) && doom_older(core, now, &e->key, version, (struct slice){0}, pending, true))
        core->stats.upserts++;
    wait_lapse(core, pending, core->believed);
}

/* Verdicts on one entry after the other, into core->out. */
static void commit_each(
    struct index_core *core, uint64_t now, struct member *m, struct slice entries, struct pending *pending)
{
    struct cur list = cur_of_slice(entries);
    struct store_entry entry;

    while (store_entry_next(&list, &entry)) {
        enum came came;
        struct store_verdict verdict = commit_one(core, now, m, &entry, pending, &came);

        if (came != CAME_NOT)
            supersede(core, now, &entry, verdict.version, pending);
        store_verdict_put(&core->out, &verdict);
    }
}

/* A bundle, whose objects are seen together: all copies come in before the first of their elders dies, so that what came in can be
 * taken back when one has no room or is a replica of what is gone. MC_EEXIST is no failure: that name is there. Nothing is taken back
 * when it has all come before, and is only said again. */
static void commit_whole(
    struct index_core *core, uint64_t now, struct member *m, struct slice entries, struct pending *pending)
{
    struct cur list = cur_of_slice(entries);
    enum mc_status failed = MC_OK;
    struct store_entry entry;
    bool again = false;
    uint32_t n = 0;

    buf_reset(&core->came);
    for (; store_entry_next(&list, &entry); n++) {
        enum came came;
        struct store_verdict verdict = commit_one(core, now, m, &entry, pending, &came);

        again |= came == CAME_BEFORE;
        if (verdict.status != MC_OK && verdict.status != MC_EEXIST && failed == MC_OK)
            failed = verdict.status;
        put_u8(&core->came, (uint8_t)came);
        store_verdict_put(&core->out, &verdict);
    }
    if (again)
        failed = MC_OK;
    list = cur_of_slice(entries);
    for (uint32_t i = 0, at, in; store_entry_next(&list, &entry); i++) {
        if (core->came.data[i] == CAME_NOT)
            continue;
        if (failed == MC_OK) {
            supersede(core, now, &entry, store_verdict_at(buf_slice(&core->out), i).version, pending);
        } else {
            in = table_find_copy(core->table, number_of(core, m), entry.generation, &at);
            table_remove(core->table, in, at);
        }
    }
    if (failed == MC_OK)
        return;
    buf_reset(&core->out);
    for (uint32_t i = 0; i < n; i++)
        store_verdict_put(&core->out, &(struct store_verdict){failed, 0});
}

void index_on_commit(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg)
{
    struct member *m = index_member_of(core, peer);
    struct store_msg refusal = store_msg_reply(msg, m ? MC_EBUSY : MC_EREFUSED);
    struct pending *pending = m ? pending_create(core, peer, msg) : NULL;

    if (!pending) {
        index_reply(core, peer, &refusal);
        return;
    }
    buf_reset(&core->out);
    if (msg->commit.whole)
        commit_whole(core, now, m, msg->commit.entries, pending);
    else
        commit_each(core, now, m, msg->commit.entries, pending);
    if (pending->waiting > 1 || pending->lapse > now) { /* kept for when nobody believes the old owners any more */
        pending->verdicts = malloc(core->out.len + 1);
        if (pending->verdicts) {
            memcpy(pending->verdicts, core->out.data, core->out.len);
            pending->verdicts_len = core->out.len;
        } else {
            pending->reply.status = MC_EBUSY;
        }
        pending_release(core, now, pending);
        return;
    }
    pending->reply.verdicts = buf_slice(&core->out);
    index_reply(core, peer, &pending->reply);
    list_del(&pending->link);
    pool_put(&core->pending_pool, pending);
}

/* ---- reports ---- */

static void report_one(struct index_core *core, uint64_t now, struct member *m, const struct store_entry *e)
{
    uint16_t owner = number_of(core, m);
    struct table_copy copy = copy_of(e, owner, e->version);
    struct store_verdict verdict;
    uint32_t entry, at;
    uint64_t version;

    if (known(core, m, e->generation, &verdict)) {
        if (verdict.status != MC_OK)
            m->redrop_at = now;
        return;
    }
    entry = e->key.kind == MC_KEY_NAMED ? table_find(core->table, &e->key) : TABLE_NONE;
    version = entry == TABLE_NONE ? 0 : table_version(core->table, entry);
    if (add(core, m, &e->key, &copy) != MC_OK) {
        m->unlisted |= e->key.kind == MC_KEY_NAMED;
        return;
    }
    if (e->key.kind != MC_KEY_NAMED)
        return;
    if (e->version < floor_of(core, &e->key)) {
        entry = table_find_copy(core->table, owner, e->generation, &at);
        doom(core, now, entry, at, &copy, NULL, true);
    } else if (e->version > version) {
        doom_older(core, now, &e->key, e->version, (struct slice){0}, NULL, true);
    } else if (e->version < version) {
        entry = table_find_copy(core->table, owner, e->generation, &at);
        doom(core, now, entry, at, &copy, NULL, true);
    }
}

/* What it had and does not report any more is gone. */
static void sweep(struct index_core *core, struct member *m)
{
    uint32_t next = table_first_of(core->table, number_of(core, m)), at, entry;
    struct table_copy copy;

    while (table_next_of(core->table, &next, &at, &entry, &copy))
        if (table_marked(core->table, at) != m->round)
            copy_lost(core, entry, at, &copy);
}

void index_on_inventory(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg)
{
    struct member *m = index_member_of(core, peer);
    struct store_msg reply = store_msg_reply(msg, m ? MC_OK : MC_EREFUSED);
    struct cur list = cur_of_slice(msg->commit.entries);
    struct store_entry entry;

    while (m && store_entry_next(&list, &entry))
        report_one(core, now, m, &entry);
    if (m && msg->commit.last) {
        sweep(core, m);
        m->reporting = false;
        m->redrop_at = now;
    }
    index_reply(core, peer, &reply);
}

void index_on_gone(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg)
{
    struct member *m = index_member_of(core, peer);

    for (uint32_t i = 0; m && i < store_u64_count(msg->gone.generations); i++) {
        uint32_t at,
            entry = table_find_copy(core->table, number_of(core, m), store_u64_at(msg->gone.generations, i), &at);
        struct table_copy copy;
        struct store_key key;

        if (entry == TABLE_NONE)
            continue;
        key = table_key(core->table, entry);
        index_ghost_set(core, &key, true);
        for (uint32_t it = TABLE_NONE; table_next(core->table, entry, &it, &copy);)
            if (it == at)
                break;
        copy_lost(core, entry, at, &copy);
    }
}

/* ---- removal by request ---- */

void index_on_remove(struct index_core *core, uint64_t now, uint32_t peer, const struct store_msg *msg)
{
    uint32_t entry = table_find(core->table, &msg->remove.key);
    struct store_msg refusal = store_msg_reply(msg, MC_ENOENT);
    uint64_t version = entry != TABLE_NONE ? table_version(core->table, entry) : 0;
    struct pending *pending;

    if (entry != TABLE_NONE && !msg->remove.force && table_promised(core->table, entry) > now)
        refusal.status = MC_EPERM;
    pending = entry != TABLE_NONE && refusal.status == MC_ENOENT ? pending_create(core, peer, msg) : NULL;
    if (!pending) {
        if (entry != TABLE_NONE && refusal.status == MC_ENOENT)
            refusal.status = MC_EBUSY;
        index_reply(core, peer, &refusal);
        return;
    }
    if (!doom_older(core, now, &msg->remove.key, UINT64_MAX, msg->remove.node, pending, false)) {
        pending->reply.status = MC_ENOENT;
    } else if (!living(core, &msg->remove.key)) { /* else others have it still */
        core->stats.removes++;
        if (msg->remove.key.kind == MC_KEY_NAMED)
            tomb_set(core, &msg->remove.key, version + 1);
        wait_lapse(core, pending, core->believed);
        index_ghost_set(core, &msg->remove.key, false);
    }
    pending_release(core, now, pending);
}
