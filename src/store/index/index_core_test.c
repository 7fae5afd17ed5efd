/* index_core_test.c - goal: the master's decisions one by one, under fake time. Method: messages in, sent messages kept in an outbox. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "store/index/index_core.h"
#include "store/index/table_core.h"
#include "store/outbox_test.h"

enum { CLIENT = 9 };

struct fixture {
    struct index_core *core;
    struct outbox out;
    uint64_t now;
    uint64_t requests;
};

static enum mc_status on_send(void *ctx, uint32_t peer, const struct store_msg *msg)
{
    struct fixture *f = ctx;

    return outbox_send(&f->out, peer, msg);
}

static void say(struct fixture *f, uint32_t peer, struct store_msg msg)
{
    outbox_clear(&f->out);
    f->now += NS_PER_MS;
    if (!msg.reply)
        msg.request = ++f->requests;
    index_core_on_message(f->core, f->now, peer, &msg);
}

static void tick_at(struct fixture *f, uint64_t now)
{
    outbox_clear(&f->out);
    f->now = now;
    index_core_on_tick(f->core, now);
}

/* Node `peer` with UUID of that byte. */
static void node_up(struct fixture *f, uint32_t peer, uint32_t epoch, uint64_t term_max)
{
    struct store_msg msg = {.type = MSG_NODE_REGISTER, .reg = {.self.epoch = epoch, .term_max = term_max}};

    memset(msg.reg.self.uuid, (int)peer, 16);
    index_core_on_peer_up(f->core, f->now, peer, ROLE_NODE, msg.reg.self.uuid, epoch);
    say(f, peer, msg);
}

static struct store_key name_key(void)
{
    struct mc_key public;
    struct store_key key;

    mc_key_named(&public, "name", 4);
    assert_int_equal(store_key_from(0, &public, &key), MC_OK);
    return key;
}

static void say_entry(
    struct fixture *f, uint32_t peer, uint16_t type, uint64_t generation, uint64_t version, uint32_t flags)
{
    struct store_entry entry = {
        .key = name_key(), .generation = generation, .version = version, .length = 10, .head = 192, .flags = flags};
    struct store_msg msg = {.type = type};
    struct buf list;

    buf_init(&list, 4096);
    store_entry_put(&list, &entry);
    msg.commit = (struct store_commit){buf_slice(&list), true};
    say(f, peer, msg);
    buf_fini(&list);
}

static struct store_verdict commit(struct fixture *f, uint32_t peer, uint64_t generation, uint32_t flags)
{
    say_entry(f, peer, MSG_NODE_COMMIT, generation, 0, flags);
    assert_non_null(outbox_find(&f->out, peer, MSG_NODE_COMMIT));
    return store_verdict_at(outbox_find(&f->out, peer, MSG_NODE_COMMIT)->verdicts, 0);
}

static void inventory_empty(struct fixture *f, uint32_t peer)
{
    say(f, peer, (struct store_msg){.type = MSG_NODE_INVENTORY, .commit.last = true});
}

static const struct store_found *lookup(struct fixture *f)
{
    struct store_key key = name_key();
    struct store_msg msg = {.type = MSG_MASTER_LOOKUP};
    struct buf list;

    buf_init(&list, 4096);
    store_key_put(&list, &key);
    msg.lookup.keys = buf_slice(&list);
    say(f, CLIENT, msg);
    buf_fini(&list);
    return &outbox_find(&f->out, CLIENT, MSG_MASTER_LOOKUP)->found;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct store_port port = {.ctx = f, .send = on_send};
    struct index_limits limits = {.objects_max = 1000, .peers_max = 16};

    assert_int_equal(index_core_create(&limits, &port, 77, 1, &f->core), MC_OK);
    f->now = NS_PER_S;
    index_core_on_peer_up(f->core, f->now, CLIENT, ROLE_CLIENT, (const uint8_t[16]){0}, 0);
    node_up(f, 1, 1, 0);
    inventory_empty(f, 1);
    node_up(f, 2, 1, 0);
    inventory_empty(f, 2);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    outbox_clear(&f->out);
    index_core_destroy(f->core);
    free(f);
    return 0;
}

static void test_first_put_wins(void **state)
{
    struct store_verdict first = commit(*state, 1, 11, 0), second = commit(*state, 2, 21, 0);

    assert_int_equal(first.status, MC_OK);
    assert_int_equal(second.status, MC_EEXIST);
    assert_int_equal(second.version, first.version);
    assert_int_equal(commit(*state, 1, 11, 0).version, first.version); /* said twice */
}

static void test_term_is_raised(void **state)
{
    struct fixture *f = *state;
    uint64_t before = commit(f, 1, 11, 0).version;

    node_up(f, 3, 1, 40);
    assert_int_equal(outbox_find(&f->out, 3, MSG_NODE_REGISTER)->welcome.term, 41);
    assert_non_null(outbox_find(&f->out, 1, MSG_MASTER_MEMBERS)); /* the others are told */
    assert_int_equal(outbox_find(&f->out, 1, MSG_MASTER_MEMBERS)->members.term, 41);
    inventory_empty(f, 3);
    say_entry(f, 2, MSG_NODE_COMMIT, 21, 0, STORE_REPLACE);
    say(f, 1, (struct store_msg){.type = MSG_NODE_DROP, .reply = true, .request = 1});
    assert_int_equal(lookup(f)->locs.len, STORE_LOC_SIZE);
    assert_true(store_loc_at(lookup(f)->locs, 0).version > before);
    assert_int_equal(store_loc_at(lookup(f)->locs, 0).version >> 32, 41);
}

static void test_upsert_waits_for_the_old_owner(void **state)
{
    struct fixture *f = *state;
    struct store_msg reply;
    uint8_t generation[8];

    commit(f, 1, 11, 0);
    say_entry(f, 2, MSG_NODE_COMMIT, 21, 0, STORE_REPLACE);
    assert_null(outbox_find(&f->out, 2, MSG_NODE_COMMIT)); /* not yet */
    assert_non_null(outbox_find(&f->out, 1, MSG_NODE_DROP));
    assert_int_equal(store_u64_at(outbox_find(&f->out, 1, MSG_NODE_DROP)->drop.generations, 0), 11);
    reply = store_msg_reply(outbox_find(&f->out, 1, MSG_NODE_DROP), MC_OK);
    le64_put(generation, 11);
    reply.drop.generations = slice_of(generation, 8);
    assert_int_equal(store_loc_at(lookup(f)->locs, 0).generation, 21); /* but the new one is shown */
    say(f, 1, reply);
    assert_non_null(outbox_find(&f->out, 2, MSG_NODE_COMMIT));
    assert_int_equal(table_entries(index_core_table(f->core)), 1);
}

static void test_upsert_past_an_unreachable_owner(void **state)
{
    struct fixture *f = *state;

    commit(f, 1, 11, 0);
    index_core_on_peer_down(f->core, f->now, 1);
    assert_int_equal(commit(f, 2, 21, STORE_REPLACE).status, MC_OK); /* at once */
    node_up(f, 1, 1, 0);
    say_entry(f, 1, MSG_NODE_INVENTORY, 11, 1ull << 32 | 1, 0); /* it still has the old one */
    tick_at(f, f->now + NS_PER_MS);
    assert_non_null(outbox_find(&f->out, 1, MSG_NODE_DROP));
    assert_int_equal(store_u64_at(outbox_find(&f->out, 1, MSG_NODE_DROP)->drop.generations, 0), 11);
    assert_int_equal(store_loc_at(lookup(f)->locs, 0).generation, 21);
}

/* The newest version is lost with its node; an older one that comes back from away stays dead. */
static void test_floor_of_a_lost_name(void **state)
{
    struct fixture *f = *state;
    uint64_t newest = commit(f, 2, 21, 0).version;

    node_up(f, 2, 2, 0); /* restarted: empty */
    inventory_empty(f, 2);
    assert_int_equal(lookup(f)->locs.len, 0);
    node_up(f, 3, 1, 0);
    say_entry(f, 3, MSG_NODE_INVENTORY, 31, newest - 1, 0);
    assert_int_equal(lookup(f)->locs.len, 0);
    assert_int_equal(commit(f, 1, 12, 0).status, MC_OK);
}

static void test_states_follow_silence(void **state)
{
    struct fixture *f = *state;
    uint64_t heard = f->now, version = commit(f, 1, 11, 0).version;

    assert_true(version > 0);
    heard = f->now;
    tick_at(f, heard + 399 * NS_PER_MS);
    assert_int_equal(lookup(f)->misses.ptr[0], MC_MISS_NONE);
    tick_at(f, heard + 401 * NS_PER_MS);
    assert_int_equal(store_row_at(lookup(f)->rows, 0).state, NODE_SUSPECT);
    tick_at(f, heard + 1001 * NS_PER_MS);
    assert_int_equal(lookup(f)->misses.ptr[0], MC_MISS_PEER_DOWN);
    say(f, 1, (struct store_msg){.type = MSG_NODE_GONE});
    assert_int_equal(lookup(f)->misses.ptr[0], MC_MISS_NONE); /* one sign of life */
    tick_at(f, f->now + 300000 * NS_PER_MS);
    assert_int_equal(lookup(f)->misses.ptr[0], MC_MISS_PEER_DOWN); /* a state, for ten minutes */
    tick_at(f, f->now + 300001 * NS_PER_MS);
    assert_int_equal(lookup(f)->misses.ptr[0], MC_MISS_NEVER); /* then it is forgotten */
}

static void test_remove_respects_promises(void **state)
{
    struct fixture *f = *state;
    struct store_key key = name_key();
    struct store_msg ask = {.type = MSG_MASTER_LOOKUP, .lookup.promise_ms = 5000};
    struct store_msg remove = {.type = MSG_MASTER_REMOVE, .remove = {.key = key}};
    struct buf list;

    commit(f, 1, 11, 0);
    buf_init(&list, 4096);
    store_key_put(&list, &key);
    ask.lookup.keys = buf_slice(&list);
    say(f, CLIENT, ask);
    buf_fini(&list);
    say(f, CLIENT, remove);
    assert_int_equal(outbox_find(&f->out, CLIENT, MSG_MASTER_REMOVE)->status, MC_EPERM);
    remove.remove.force = true;
    say(f, CLIENT, remove);
    assert_null(outbox_find(&f->out, CLIENT, MSG_MASTER_REMOVE)); /* the owner first */
    tick_at(f, f->now + 1001 * NS_PER_MS);
    assert_int_equal(
        outbox_find(&f->out, CLIENT, MSG_MASTER_REMOVE)->status, MC_OK); /* it does not answer: as if it were away */
}

/* Of two copies one goes: its owner alone is told, and the name keeps its version; with the last one the name is gone. */
static void test_remove_at_one_node(void **state)
{
    struct fixture *f = *state;
    struct store_msg remove = {.type = MSG_MASTER_REMOVE, .remove = {.key = name_key(), .force = true}};
    uint64_t version = commit(f, 1, 11, 0).version;

    say_entry(f, 2, MSG_NODE_COMMIT, 21, version, STORE_REPLICA);
    assert_int_equal(store_loc_count(lookup(f)->locs), 2);
    remove.remove.node = slice_str("03030303030303030303030303030303");
    say(f, CLIENT, remove);
    assert_int_equal(outbox_find(&f->out, CLIENT, MSG_MASTER_REMOVE)->status, MC_ENOENT);
    remove.remove.node = slice_str("02020202020202020202020202020202");
    say(f, CLIENT, remove);
    assert_null(outbox_find(&f->out, 1, MSG_NODE_DROP));
    assert_int_equal(store_u64_at(outbox_find(&f->out, 2, MSG_NODE_DROP)->drop.generations, 0), 21);
    assert_int_equal(store_loc_count(lookup(f)->locs), 1);
    assert_int_equal(store_loc_at(lookup(f)->locs, 0).generation, 11);
    assert_int_equal(commit(f, 2, 22, 0).status, MC_EEXIST);
    say(f, CLIENT, remove);
    assert_int_equal(outbox_find(&f->out, CLIENT, MSG_MASTER_REMOVE)->status, MC_ENOENT);
    remove.remove.node = slice_str("01010101010101010101010101010101");
    say(f, CLIENT, remove);
    assert_int_equal(store_u64_at(outbox_find(&f->out, 1, MSG_NODE_DROP)->drop.generations, 0), 11);
    assert_int_equal(lookup(f)->locs.len, 0);
    say_entry(f, 2, MSG_NODE_INVENTORY, 23, version, 0); /* one that nobody knew of: older than the removal */
    assert_int_equal(lookup(f)->locs.len, 0);
}

/* A client that leaves the length of its leases to the master gets the master's, not the longest there is. */
static void test_the_masters_own_lease(void **state)
{
    struct fixture *f = *state;
    struct store_key key = name_key();
    struct store_msg ask = {.type = MSG_MASTER_LOOKUP, .lookup.promise_ms = MC_LEASE_MASTER};
    struct store_msg remove = {.type = MSG_MASTER_REMOVE, .remove = {.key = key}};
    struct buf list;

    commit(f, 1, 11, 0);
    buf_init(&list, 4096);
    store_key_put(&list, &key);
    ask.lookup.keys = buf_slice(&list);
    say(f, CLIENT, ask);
    buf_fini(&list);
    tick_at(f, f->now + 4990 * NS_PER_MS);
    say(f, 1, (struct store_msg){.type = MSG_NODE_GONE}); /* alive */
    say(f, CLIENT, remove);
    assert_int_equal(outbox_find(&f->out, CLIENT, MSG_MASTER_REMOVE)->status, MC_EPERM);
    tick_at(f, f->now + 20 * NS_PER_MS);
    say(f, CLIENT, remove);
    tick_at(f, f->now + 1001 * NS_PER_MS);
    assert_int_equal(outbox_find(&f->out, CLIENT, MSG_MASTER_REMOVE)->status, MC_OK);
}

/* Asked for all the time, a key costs its owner a notice for each step of its promise, and each covers what was promised until the next. */
static void test_owners_hear_of_promises_now_and_then(void **state)
{
    struct fixture *f = *state;
    struct store_key key = name_key();
    struct store_msg ask = {.type = MSG_MASTER_LOOKUP, .lookup.promise_ms = 5000};
    uint64_t told_until = 0, begin = f->now;
    struct buf list;
    unsigned notices = 0;

    commit(f, 1, 11, 0);
    buf_init(&list, 4096);
    store_key_put(&list, &key);
    ask.lookup.keys = buf_slice(&list);
    while (f->now < begin + 2000 * NS_PER_MS) {
        const struct store_msg *notice;
        uint64_t promised;

        say(f, 1, (struct store_msg){.type = MSG_NODE_GONE}); /* alive */
        say(f, CLIENT, ask);
        promised = f->now + 5000 * NS_PER_MS;
        tick_at(f, f->now + 11 * NS_PER_MS); /* longer than notices are kept back */
        notice = outbox_find(&f->out, 1, MSG_NODE_PROMISE);
        if (notice) {
            notices++;
            told_until = f->now + notice->promise.ms * NS_PER_MS;
        }
        assert_true(told_until >= promised);
    }
    buf_fini(&list);
    assert_in_range(notices, 8, 9);
}

/* A thousand embedded nodes that came and went within ten minutes leave room for the next; named ones keep their numbers. */
static void test_lost_ephemeral_nodes_make_room(void **state)
{
    struct fixture *f = *state;
    uint32_t peer = 5;

    for (uint32_t i = 0; i < STORE_NODES_MAX + 50; i++) {
        struct store_msg msg = {.type = MSG_NODE_REGISTER, .reg = {.self = {.epoch = 1, .ephemeral = true}}};

        memcpy(msg.reg.self.uuid, "ephemeral", 9);
        memcpy(msg.reg.self.uuid + 12, &i, 4);
        index_core_on_peer_up(f->core, f->now, peer, ROLE_NODE, msg.reg.self.uuid, 1);
        say(f, peer, msg);
        assert_int_equal(outbox_find(&f->out, peer, MSG_NODE_REGISTER)->status, MC_OK);
        index_core_on_peer_down(f->core, f->now, peer);
        tick_at(f, f->now + NS_PER_MS);
    }
    inventory_empty(f, 1); /* a node with an identity is who it was */
    assert_int_equal(outbox_find(&f->out, 1, MSG_NODE_INVENTORY)->status, MC_OK);
}

/* ---- authority ---- */

/* What the beat of node `peer` is answered. */
static uint32_t authority(struct fixture *f, uint32_t peer, uint32_t epoch)
{
    struct store_msg msg = {.type = MSG_NODE_BEAT, .beat.epoch = epoch};

    memset(msg.beat.uuid, (int)peer, 16);
    say(f, peer, msg);
    assert_non_null(outbox_find(&f->out, peer, MSG_NODE_BEAT));
    return outbox_find(&f->out, peer, MSG_NODE_BEAT)->authority_ms;
}

static void drop_answered(struct fixture *f, uint32_t peer, uint64_t of)
{
    const struct store_msg *drop = outbox_find(&f->out, peer, MSG_NODE_DROP);
    uint8_t generation[8];
    struct store_msg reply;

    assert_non_null(drop);
    reply = store_msg_reply(drop, MC_OK);
    le64_put(generation, of);
    reply.drop.generations = slice_of(generation, 8);
    say(f, peer, reply);
}

/* sent + 300 ms <= received + 330 ms: nothing is acknowledged past its owner before. */
static void test_nobody_is_passed_over_before_his_authority_has_lapsed(void **state)
{
    struct fixture *f = *state;
    uint64_t beaten;

    commit(f, 1, 11, 0);
    tick_at(f, f->now + NS_PER_MS); /* what its inventory left to do */
    assert_int_equal(authority(f, 1, 1), 300);
    beaten = f->now;
    index_core_on_peer_down(f->core, f->now, 1);
    say_entry(f, 2, MSG_NODE_COMMIT, 21, 0, STORE_REPLACE);
    assert_null(outbox_find(&f->out, 2, MSG_NODE_COMMIT));
    tick_at(f, f->now);
    assert_int_equal(index_core_wake(f->core), beaten + 330 * NS_PER_MS);
    tick_at(f, beaten + 330 * NS_PER_MS - 1);
    assert_null(outbox_find(&f->out, 2, MSG_NODE_COMMIT));
    tick_at(f, beaten + 330 * NS_PER_MS);
    assert_int_equal(store_verdict_at(outbox_find(&f->out, 2, MSG_NODE_COMMIT)->verdicts, 0).status, MC_OK);
}

/* The old one is dying under the hand of an upsert when somebody removes the new one. */
static void test_a_removal_waits_for_what_others_are_killing(void **state)
{
    struct fixture *f = *state;
    struct store_msg remove = {.type = MSG_MASTER_REMOVE, .remove = {.key = name_key(), .force = true}};
    uint64_t beaten;

    commit(f, 1, 11, 0);
    tick_at(f, f->now + NS_PER_MS);
    assert_int_equal(authority(f, 1, 1), 300);
    beaten = f->now;
    index_core_on_peer_down(f->core, f->now, 1);
    say_entry(f, 2, MSG_NODE_COMMIT, 21, 0, STORE_REPLACE);
    say(f, CLIENT, remove);
    drop_answered(f, 2, 21);
    assert_null(outbox_find(&f->out, CLIENT, MSG_MASTER_REMOVE));
    tick_at(f, beaten + 330 * NS_PER_MS);
    assert_int_equal(outbox_find(&f->out, CLIENT, MSG_MASTER_REMOVE)->status, MC_OK);
}

/* One that was not told, or has not answered, or holds what we do not know. */
static void test_authority_is_for_those_who_hold_nothing_dead(void **state)
{
    struct fixture *f = *state;
    struct store_msg beat = {.type = MSG_NODE_BEAT, .beat.epoch = 9};

    tick_at(f, f->now + NS_PER_MS);
    assert_int_equal(authority(f, 1, 1), 300);
    assert_int_equal(authority(f, 1, 2), 0); /* another epoch */
    say(f, 2, beat);                         /* nobody */
    assert_int_equal(outbox_find(&f->out, 2, MSG_NODE_BEAT)->authority_ms, 0);

    commit(f, 1, 11, 0);
    say_entry(f, 2, MSG_NODE_COMMIT, 21, 0, STORE_REPLACE);
    assert_int_equal(authority(f, 1, 1), 300); /* it may be answering */
    f->now += 20 * NS_PER_MS;
    assert_int_equal(authority(f, 1, 1), 0); /* its heart beats, and it does not answer */
    tick_at(f, f->now + NS_PER_S);           /* given up on */
    assert_int_equal(authority(f, 1, 1), 0);
    tick_at(f, f->now + 100 * NS_PER_MS);
    drop_answered(f, 1, 11);
    tick_at(f, f->now + 200 * NS_PER_MS);
    assert_int_equal(authority(f, 1, 1), 300);

    node_up(f, 1, 1, 0); /* connected anew */
    assert_int_equal(authority(f, 1, 1), 0);
    inventory_empty(f, 1);
    tick_at(f, f->now + NS_PER_MS);
    assert_int_equal(authority(f, 1, 1), 300);
}

/* A put that comes second is told that the first is there: so it waits for the same end of what was before. */
static void test_whoever_comes_second_waits_too(void **state)
{
    struct fixture *f = *state;

    commit(f, 1, 11, 0);
    tick_at(f, f->now + NS_PER_MS);
    assert_int_equal(authority(f, 1, 1), 300);
    say_entry(f, 2, MSG_NODE_COMMIT, 21, 0, STORE_REPLACE);
    say_entry(f, 2, MSG_NODE_COMMIT, 22, 0, 0);
    assert_null(outbox_find(&f->out, 2, MSG_NODE_COMMIT));
    drop_answered(f, 1, 11); /* the second drop */
    assert_int_equal(outbox_count(&f->out, 2, MSG_NODE_COMMIT), 1);
    assert_int_equal(store_verdict_at(outbox_find(&f->out, 2, MSG_NODE_COMMIT)->verdicts, 0).status, MC_EEXIST);
}

/* Copies of a node that came back empty, and those of nodes that have not come back to a new master, are not in the index. */
static void test_those_that_are_not_known_are_waited_for(void **state)
{
    struct fixture *f = *state;
    struct store_port port = {.ctx = f, .send = on_send};
    struct index_limits limits = {.objects_max = 1000, .peers_max = 16, .term = 2, .heir_at = f->now};
    uint64_t since;

    commit(f, 1, 11, 0);
    tick_at(f, f->now + NS_PER_MS);
    assert_int_equal(authority(f, 1, 1), 300);
    since = f->now;
    node_up(f, 1, 2, 0);
    say_entry(f, 2, MSG_NODE_COMMIT, 21, 0, 0);
    assert_null(outbox_find(&f->out, 2, MSG_NODE_COMMIT));
    tick_at(f, since + 330 * NS_PER_MS);
    assert_non_null(outbox_find(&f->out, 2, MSG_NODE_COMMIT));

    index_core_destroy(f->core);
    assert_int_equal(index_core_create(&limits, &port, 78, 1, &f->core), MC_OK);
    f->now = since = limits.heir_at;
    node_up(f, 2, 1, 0);
    inventory_empty(f, 2);
    say_entry(f, 2, MSG_NODE_COMMIT, 31, 0, 0);
    assert_null(outbox_find(&f->out, 2, MSG_NODE_COMMIT));
    tick_at(f, since + 330 * NS_PER_MS);
    assert_non_null(outbox_find(&f->out, 2, MSG_NODE_COMMIT));
}

/* The first `n` of some names from `peer`, as one bundle, generations from `generation` on; the last one is a replica of `version`. */
static void say_whole(
    struct fixture *f, uint32_t peer, uint32_t n, uint64_t generation, uint64_t version, uint32_t flags)
{
    static const char *const names[] = {"a", "b", "c"};
    struct store_msg msg = {.type = MSG_NODE_COMMIT};
    struct buf list;

    buf_init(&list, 4096);
    for (uint32_t i = 0; i < n; i++) {
        struct store_entry entry = {.generation = generation + i, .length = 10, .head = 192, .flags = flags};
        struct mc_key public;

        mc_key_named(&public, names[i], 1);
        assert_int_equal(store_key_from(0, &public, &entry.key), MC_OK);
        if (version && i == n - 1) {
            entry.flags = STORE_REPLICA;
            entry.version = version;
        }
        store_entry_put(&list, &entry);
    }
    msg.commit = (struct store_commit){.entries = buf_slice(&list), .whole = true};
    say(f, peer, msg);
    buf_fini(&list);
}

static struct slice commit_whole(struct fixture *f, uint32_t peer, uint32_t n, uint64_t generation, uint64_t version)
{
    say_whole(f, peer, n, generation, version, 0);
    assert_non_null(outbox_find(&f->out, peer, MSG_NODE_COMMIT));
    return outbox_find(&f->out, peer, MSG_NODE_COMMIT)->verdicts;
}

static uint64_t copies(struct fixture *f)
{
    struct index_stats stats;

    index_core_stats(f->core, &stats);
    return stats.copies;
}

/* All come in, or, when one cannot, none; said again the answer is the same; names that others have are no failure. */
static void test_bundle_is_whole(void **state)
{
    struct fixture *f = *state;
    struct slice verdicts = commit_whole(f, 1, 3, 11, 77);

    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(store_verdict_at(verdicts, i).status, MC_ESTALE);
    assert_int_equal(copies(f), 0);
    verdicts = commit_whole(f, 1, 2, 11, 0);
    assert_int_equal(store_verdict_at(verdicts, 1).status, MC_OK);
    uint64_t version = store_verdict_at(verdicts, 1).version;

    verdicts = commit_whole(f, 1, 2, 11, 0);
    assert_int_equal(store_verdict_at(verdicts, 1).version, version);
    assert_int_equal(copies(f), 2);
    verdicts = commit_whole(f, 2, 3, 21, 0);
    assert_int_equal(store_verdict_at(verdicts, 0).status, MC_EEXIST);
    assert_int_equal(store_verdict_at(verdicts, 2).status, MC_OK);
    assert_int_equal(copies(f), 3);
}

/* A bundle passes nobody over either, and saying it again is no way round that; nor is one that is taken back. */
static void test_bundle_waits_for_authority(void **state)
{
    struct fixture *f = *state;
    uint64_t beaten;

    commit_whole(f, 1, 2, 11, 0);
    tick_at(f, f->now + NS_PER_MS);
    assert_int_equal(authority(f, 1, 1), 300);
    beaten = f->now;
    index_core_on_peer_down(f->core, f->now, 1);
    assert_int_equal(store_verdict_at(commit_whole(f, 2, 3, 21, 77), 0).status, MC_ESTALE); /* and nothing died */
    say_whole(f, 2, 2, 31, 0, STORE_REPLACE);
    assert_null(outbox_find(&f->out, 2, MSG_NODE_COMMIT));
    say_whole(f, 2, 2, 31, 0, STORE_REPLACE);
    assert_null(outbox_find(&f->out, 2, MSG_NODE_COMMIT));
    tick_at(f, beaten + 330 * NS_PER_MS - 1);
    assert_null(outbox_find(&f->out, 2, MSG_NODE_COMMIT));
    tick_at(f, beaten + 330 * NS_PER_MS);
    assert_int_equal(outbox_count(&f->out, 2, MSG_NODE_COMMIT), 2);
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(store_verdict_at(outbox_find(&f->out, 2, MSG_NODE_COMMIT)->verdicts, i).status, MC_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_first_put_wins, setup, teardown),
        cmocka_unit_test_setup_teardown(test_term_is_raised, setup, teardown),
        cmocka_unit_test_setup_teardown(test_upsert_waits_for_the_old_owner, setup, teardown),
        cmocka_unit_test_setup_teardown(test_upsert_past_an_unreachable_owner, setup, teardown),
        cmocka_unit_test_setup_teardown(test_floor_of_a_lost_name, setup, teardown),
        cmocka_unit_test_setup_teardown(test_states_follow_silence, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lost_ephemeral_nodes_make_room, setup, teardown),
        cmocka_unit_test_setup_teardown(test_owners_hear_of_promises_now_and_then, setup, teardown),
        cmocka_unit_test_setup_teardown(test_remove_respects_promises, setup, teardown),
        cmocka_unit_test_setup_teardown(test_remove_at_one_node, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_masters_own_lease, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nobody_is_passed_over_before_his_authority_has_lapsed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_removal_waits_for_what_others_are_killing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_authority_is_for_those_who_hold_nothing_dead, setup, teardown),
        cmocka_unit_test_setup_teardown(test_whoever_comes_second_waits_too, setup, teardown),
        cmocka_unit_test_setup_teardown(test_those_that_are_not_known_are_waited_for, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bundle_is_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bundle_waits_for_authority, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
