/* client_core_test.c - goal: what a client makes of answers, silence and wrong bytes, one decision at a time, under fake time.
 * Method: messages and reads in, those it sends and starts caught by the port; two nodes are arrays of memory. What many of them do
 * together is tests/sim's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/crc.h"
#include "store/client/client_core.h"
#include "store/outbox_test.h"

enum { NODES = 2, MEMORY = 16 << 10, SLOT = 1024, LENGTH = 300, DEADLINE_MS = 2000 };

struct fixture {
    struct client_core *core;
    struct outbox out;
    uint32_t sends_refused;
    bool far; /* reads cross a wire */
    uint64_t now;
    _Alignas(64) uint8_t memory[NODES + 1][MEMORY]; /* by peer number; 0 is the master's */
    struct store_read *reads;                       /* of the read under way; NULL: none */
    uint32_t read_peer, read_count, reads_started, reads_cancelled;
    uint32_t connects, disconnects, disconnected; /* how often; the last one */
    uint64_t cookie;
    uint8_t data[LENGTH];
    struct mc_span span;
    struct mc_store_op op;
    struct client_call call;
};

/* ---- the world around it ---- */

static enum mc_status on_send(void *ctx, uint32_t peer, const struct store_msg *msg)
{
    struct fixture *f = ctx;

    if (f->sends_refused > 0) {
        f->sends_refused--;
        return MC_AGAIN;
    }
    return outbox_send(&f->out, peer, msg);
}

static void on_connect(void *ctx, uint32_t peer, const struct store_member *member)
{
    ((struct fixture *)ctx)->connects++;
}

static void on_disconnect(void *ctx, uint32_t peer)
{
    struct fixture *f = ctx;

    f->disconnects++;
    f->disconnected = peer;
}

static void on_segments(void *ctx, uint32_t peer, struct slice segments)
{
}

static enum mc_status on_read(void *ctx, uint64_t cookie, uint32_t peer, struct store_read *reads, uint32_t count)
{
    struct fixture *f = ctx;

    assert_null(f->reads);
    f->reads = reads;
    f->read_peer = peer;
    f->read_count = count;
    f->cookie = cookie;
    f->reads_started++;
    return MC_OK;
}

static void on_read_cancel(void *ctx, uint64_t cookie)
{
    struct fixture *f = ctx;

    assert_true(f->reads && f->cookie == cookie);
    f->reads = NULL;
    f->reads_cancelled++;
}

static bool on_far(void *ctx, uint32_t peer)
{
    return ((struct fixture *)ctx)->far;
}

static void tick(struct fixture *f, uint64_t ms)
{
    f->now += ms * NS_PER_MS + 1000;
    client_core_on_tick(f->core, f->now);
}

/* The read under way ends: with what lies in the node's memory now, or without. */
static void read_ends(struct fixture *f, enum mc_status status)
{
    struct store_read *reads = f->reads;

    assert_non_null(reads);
    for (uint32_t i = 0; status == MC_OK && i < f->read_count; i++) {
        memcpy(reads[i].dst, f->memory[f->read_peer] + reads[i].offset, reads[i].len);
        reads[i].crc = crc32c(0, reads[i].dst, reads[i].len);
    }
    f->reads = NULL;
    client_core_on_io(f->core, f->now, f->cookie, status);
    tick(f, 0);
}

static void say(struct fixture *f, uint32_t peer, const struct store_msg *msg)
{
    client_core_on_message(f->core, f->now, peer, msg);
    tick(f, 0);
}

/* ---- nodes ---- */

static void uuid_of(uint32_t peer, uint8_t uuid[16])
{
    memset(uuid, (int)peer, 16);
}

/* The master's whole list: the first `nodes` of them. */
static void say_members(struct fixture *f, uint32_t nodes, uint32_t epoch)
{
    struct store_msg reply = store_msg_reply(outbox_find(&f->out, STORE_PEER_MASTER, MSG_MASTER_SUBSCRIBE), MC_OK);
    struct buf list;

    buf_init(&list, 4096);
    for (uint32_t peer = 1; peer <= nodes; peer++) {
        struct store_member m = {.epoch = epoch, .state = NODE_UP, .capacity = MEMORY};

        uuid_of(peer, m.uuid);
        snprintf(m.name, sizeof(m.name), "n%u", peer);
        store_member_put(&list, &m);
    }
    reply.members = (struct store_members){.term = 1, .full = true, .list = buf_slice(&list)};
    say(f, STORE_PEER_MASTER, &reply);
    buf_fini(&list);
}

static void node_up(struct fixture *f, uint32_t peer, uint32_t epoch)
{
    uint8_t uuid[16];

    uuid_of(peer, uuid);
    client_core_on_peer_up(f->core, f->now, peer, uuid, epoch);
    say(f, peer, &(struct store_msg){.type = MSG_NODE_INFO});
}

static void master_up(struct fixture *f)
{
    client_core_on_peer_up(f->core, f->now, STORE_PEER_MASTER, (const uint8_t[16]){9}, 1);
    say_members(f, NODES, 1);
}

/* ---- objects ---- */

static struct mc_key block(uint8_t n)
{
    struct mc_key key;
    uint8_t id[16];

    memset(id, n, 16);
    mc_key_block(&key, id);
    return key;
}

static struct mc_key named(void)
{
    struct mc_key key;

    mc_key_named(&key, "name", 4);
    return key;
}

/* Lay an object into the node's memory; its payload is `byte` again and again. Returns its location for answers. */
static struct store_loc object_at(
    struct fixture *f, uint32_t peer, uint32_t slot, const struct mc_key *key, uint64_t generation, uint8_t byte)
{
    struct object_header header = {.generation = generation};
    struct object_plan plan;
    uint8_t *at = f->memory[peer] + (size_t)slot * SLOT;
    uint32_t crc;

    assert_int_equal(store_key_from(0, key, &header.key), MC_OK);
    assert_int_equal(object_plan(&header.key, LENGTH, NULL, 0, &plan), MC_OK);
    assert_true(object_size(&plan) <= SLOT);
    memset(at + plan.header_len, byte, LENGTH);
    crc = crc32c(0, at + plan.header_len, LENGTH);
    object_seal(at, &plan, &header, &crc);
    return (struct store_loc){.node = (uint16_t)(peer - 1),
        .head = plan.header_len,
        .offset = (uint64_t)slot * SLOT,
        .length = LENGTH,
        .generation = generation};
}

/* The master's answer to the last lookup: these copies of its keys, and for each key why there are none. */
static void answers(struct fixture *f, const struct store_loc *locs, uint32_t n, struct slice misses)
{
    struct store_msg reply;
    struct buf rows, list;

    assert_non_null(outbox_find(&f->out, STORE_PEER_MASTER, MSG_MASTER_LOOKUP));
    reply = store_msg_reply(outbox_find(&f->out, STORE_PEER_MASTER, MSG_MASTER_LOOKUP), MC_OK);
    buf_init(&rows, 4096);
    buf_init(&list, 4096);
    for (uint32_t peer = 1; peer <= NODES; peer++) {
        struct store_row row = {.epoch = 1};

        uuid_of(peer, row.uuid);
        store_row_put(&rows, &row);
    }
    for (uint32_t i = 0; i < n; i++)
        store_loc_put(&list, &locs[i]);
    reply.found = (struct store_found){.rows = buf_slice(&rows), .locs = buf_slice(&list), .misses = misses};
    outbox_clear(&f->out);
    say(f, STORE_PEER_MASTER, &reply);
    buf_fini(&rows);
    buf_fini(&list);
}

/* Of its only key. */
static void answer(struct fixture *f, const struct store_loc *locs, uint32_t n, enum mc_miss miss)
{
    uint8_t why = (uint8_t)miss;

    answers(f, locs, n, slice_of(&why, 1));
}

/* ---- calls ---- */

static void start(struct fixture *f, enum mc_store_opcode opcode, struct mc_key key)
{
    outbox_clear(&f->out);
    f->span = (struct mc_span){f->data, LENGTH};
    f->op = (struct mc_store_op){.opcode = opcode, .key = key, .spans = &f->span, .nspans = 1};
    f->call = (struct client_call){.kind = CALL_OP, .op = &f->op, .deadline_ns = f->now + DEADLINE_MS * NS_PER_MS};
    assert_int_equal(client_core_start(f->core, f->now, &f->call), MC_OK);
    assert_null(client_core_done(f->core));
    tick(f, 0);
}

static void get(struct fixture *f, struct mc_key key)
{
    memset(f->data, 0, LENGTH);
    start(f, MC_GET, key);
}

static void assert_running(struct fixture *f)
{
    assert_null(client_core_done(f->core));
}

static void assert_ended(struct fixture *f, enum mc_status status, enum mc_miss miss)
{
    assert_ptr_equal(client_core_done(f->core), &f->call);
    assert_null(client_core_done(f->core));
    assert_int_equal(f->op.result.status, status);
    assert_int_equal(f->op.result.miss, miss);
    assert_null(f->reads); /* nothing is read into the caller's memory any more */
}

static void assert_hit(struct fixture *f, uint8_t byte)
{
    assert_ended(f, MC_OK, MC_MISS_NONE);
    assert_int_equal(f->op.result.length, LENGTH);
    for (int i = 0; i < LENGTH; i++)
        assert_int_equal(f->data[i], byte);
}

static struct mc_store_stats stats(const struct fixture *f)
{
    struct mc_store_stats s;

    client_core_stats(f->core, &s);
    return s;
}

static int setup(void **state)
{
    struct fixture *f = aligned_alloc(64, (sizeof(*f) + 63) / 64 * 64);
    struct store_port port;
    struct client_limits limits = {0};

    memset(f, 0, sizeof(*f));
    port = (struct store_port){.ctx = f,
        .send = on_send,
        .connect = on_connect,
        .disconnect = on_disconnect,
        .segments = on_segments,
        .read = on_read,
        .read_cancel = on_read_cancel,
        .far = on_far};
    assert_int_equal(client_core_create(&limits, &port, 1, &f->core), MC_OK);
    f->now = NS_PER_S;
    master_up(f);
    for (uint32_t peer = 1; peer <= NODES; peer++)
        node_up(f, peer, 1);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    client_core_close(f->core, f->now);
    assert_null(client_core_done(f->core));
    client_core_destroy(f->core);
    outbox_clear(&f->out);
    free(f);
    return 0;
}

/* ---- gets ---- */

static void test_hit_is_located_once(void **state)
{
    struct fixture *f = *state;
    struct mc_key key = block(7);
    struct store_loc loc = object_at(f, 1, 0, &key, 11, 'a');

    get(f, key);
    answer(f, &loc, 1, MC_MISS_NONE);
    read_ends(f, MC_OK);
    assert_hit(f, 'a');
    assert_int_equal(f->op.result.node[0], 1);
    get(f, key);
    assert_null(outbox_find(&f->out, STORE_PEER_MASTER, MSG_MASTER_LOOKUP)); /* from the cache */
    read_ends(f, MC_OK);
    assert_hit(f, 'a');
}

/* A wrong byte on one node, and on either of them: the other one is read, from byte 0. */
static void test_corrupt_copy_fails_over(void **state)
{
    struct fixture *f = *state;
    struct mc_key key = block(7);
    struct store_loc locs[NODES] = {object_at(f, 1, 0, &key, 11, 'a'), object_at(f, 2, 1, &key, 21, 'a')};
    uint32_t bad;

    get(f, key);
    answer(f, locs, NODES, MC_MISS_NONE);
    bad = f->read_peer;
    f->memory[bad][locs[bad - 1].offset + locs[bad - 1].head + 5] ^= 1;
    read_ends(f, MC_OK);
    assert_running(f);
    assert_int_equal(f->read_peer, bad); /* the header once more: it still stands */
    assert_int_equal(f->read_count, 1);
    read_ends(f, MC_OK);
    assert_int_equal(f->read_peer, 3 - bad);
    read_ends(f, MC_OK);
    assert_hit(f, 'a');
    assert_int_equal(f->op.result.node[0], 3 - bad);
    assert_int_equal(stats(f).failovers, 1);
    assert_int_equal(stats(f).checksum_errors, 1);
    get(f, key); /* the bad copy's location is forgotten */
    assert_int_equal(f->read_peer, 3 - bad);
    read_ends(f, MC_OK);
    assert_hit(f, 'a');
}

static void test_dead_node_fails_over_at_once(void **state)
{
    struct fixture *f = *state;
    struct mc_key key = block(7);
    struct store_loc locs[NODES] = {object_at(f, 1, 0, &key, 11, 'a'), object_at(f, 2, 0, &key, 21, 'a')};
    uint32_t dead;

    get(f, key);
    answer(f, locs, NODES, MC_MISS_NONE);
    dead = f->read_peer;
    client_core_on_peer_down(f->core, f->now, dead);
    assert_int_equal(f->reads_cancelled, 1);
    assert_int_equal(f->read_peer, 3 - dead);
    read_ends(f, MC_OK);
    assert_hit(f, 'a');
}

/* The connection stands, but no sign of life comes while a read is awaited: a ping after 100 ms, suspect 400 ms after it. */
static void test_silent_node_fails_over(void **state)
{
    struct fixture *f = *state;
    struct mc_key key = block(7);
    struct store_loc locs[NODES] = {object_at(f, 1, 0, &key, 11, 'a'), object_at(f, 2, 0, &key, 21, 'a')};
    uint32_t silent;

    get(f, key);
    answer(f, locs, NODES, MC_MISS_NONE);
    silent = f->read_peer;
    tick(f, 101);
    assert_non_null(outbox_find(&f->out, silent, MSG_NODE_PIN));
    tick(f, 390);
    assert_int_equal(f->read_peer, silent);
    tick(f, 20);
    assert_int_equal(f->read_peer, 3 - silent);
    read_ends(f, MC_OK);
    assert_hit(f, 'a');
}

/* The master suspects a node that we have just heard: it is asked, and only its silence then makes it suspect here. */
static void test_suspicion_of_the_master_is_checked(void **state)
{
    struct fixture *f = *state;
    struct mc_key key = block(7);
    struct store_loc loc = object_at(f, 1, 0, &key, 11, 'a');
    struct store_member m = {.epoch = 1, .state = NODE_SUSPECT};
    struct store_msg notice = {.type = MSG_MASTER_MEMBERS};
    struct buf list;

    get(f, key);
    answer(f, &loc, 1, MC_MISS_NONE);
    read_ends(f, MC_OK);
    assert_hit(f, 'a');
    client_core_on_message(f->core, f->now, 1, &(struct store_msg){.type = MSG_NODE_INFO});
    buf_init(&list, 4096);
    uuid_of(1, m.uuid);
    store_member_put(&list, &m);
    notice.members.list = buf_slice(&list);
    say(f, STORE_PEER_MASTER, &notice);
    buf_fini(&list);
    assert_true(client_core_usable(f->core, 1));
    assert_non_null(outbox_find(&f->out, 1, MSG_NODE_PIN));
    tick(f, 401);
    assert_false(client_core_usable(f->core, 1));
    client_core_on_message(f->core, f->now, 1, &(struct store_msg){.type = MSG_NODE_INFO});
    assert_true(client_core_usable(f->core, 1)); /* one sign of life */
}

/* Somebody whom the master has lost already is not sent for, however long he is listed; when he is back he is. */
static void test_lost_members_are_not_connected_to(void **state)
{
    struct fixture *f = *state;
    struct store_member m = {.epoch = 1, .state = NODE_UNREACHABLE};
    struct store_msg notice = {.type = MSG_MASTER_MEMBERS};
    uint32_t connects = f->connects;
    struct buf list;

    uuid_of(NODES + 1, m.uuid);
    for (unsigned i = 0; i < 4; i++) {
        m.state = i < 3 ? NODE_UNREACHABLE : NODE_UP;
        buf_init(&list, 4096);
        store_member_put(&list, &m);
        notice.members.list = buf_slice(&list);
        say(f, STORE_PEER_MASTER, &notice);
        buf_fini(&list);
        assert_int_equal(f->connects, connects + (i == 3));
    }
}

/* The cached location is of an object that was evicted, and its place taken: asked again, read where it lies now. */
static void test_stale_location_is_dropped(void **state)
{
    struct fixture *f = *state;
    struct mc_key key = block(7), other = block(8);
    struct store_loc old = object_at(f, 1, 0, &key, 11, 'a'), new;

    get(f, key);
    answer(f, &old, 1, MC_MISS_NONE);
    read_ends(f, MC_OK);
    assert_hit(f, 'a');
    object_at(f, 1, 0, &other, 12, 'b');
    new = object_at(f, 2, 3, &key, 21, 'a');
    get(f, key);
    read_ends(f, MC_OK);
    assert_running(f);
    answer(f, &new, 1, MC_MISS_NONE);
    read_ends(f, MC_OK);
    assert_hit(f, 'a');
    assert_int_equal(stats(f).stale_locations, 1);
}

/* The master itself has it wrong: it is asked once more, not for ever. */
static void test_stale_index_is_asked_once_more(void **state)
{
    struct fixture *f = *state;
    struct mc_key key = block(7);
    struct store_loc loc = object_at(f, 1, 0, &key, 12, 'a');

    loc.generation = 11;
    get(f, key);
    for (int asked = 0; asked < 2; asked++) {
        assert_running(f);
        answer(f, &loc, 1, MC_MISS_NONE);
        read_ends(f, MC_OK);
    }
    assert_ended(f, MC_ENOENT, MC_MISS_STALE);
    assert_int_equal(stats(f).misses[MC_MISS_STALE], 1);
}

/* The header changes between the first look and the second: that is an eviction, not a flipped bit. */
static void test_evicted_while_read_is_stale(void **state)
{
    struct fixture *f = *state;
    struct mc_key key = block(7), other = block(8);
    struct store_loc loc = object_at(f, 1, 0, &key, 11, 'a');

    get(f, key);
    answer(f, &loc, 1, MC_MISS_NONE);
    f->memory[1][loc.head] ^= 1;
    read_ends(f, MC_OK);
    object_at(f, 1, 0, &other, 12, 'b');
    read_ends(f, MC_OK);
    answer(f, NULL, 0, MC_MISS_EVICTED);
    assert_ended(f, MC_ENOENT, MC_MISS_EVICTED);
}

/* Damaged on every attempt on the way here: as good as damaged where it lies. */
static void test_damaged_on_the_wire_is_corrupt(void **state)
{
    struct fixture *f = *state;
    struct mc_key key = block(7);
    struct store_loc loc = object_at(f, 1, 0, &key, 11, 'a');

    get(f, key);
    for (int asked = 0; asked < 2; asked++) {
        answer(f, &loc, 1, MC_MISS_NONE);
        read_ends(f, MC_EPROTO);
    }
    assert_ended(f, MC_ENOENT, MC_MISS_CORRUPT);
    assert_int_equal(stats(f).checksum_errors, 2);
}

static void test_misses_have_reasons(void **state)
{
    static const enum mc_miss told[] = {MC_MISS_NEVER, MC_MISS_EVICTED, MC_MISS_PEER_DOWN};
    struct fixture *f = *state;
    struct mc_key key = block(7);
    struct store_loc loc = object_at(f, 1, 0, &key, 11, 'a');

    for (size_t i = 0; i < sizeof(told) / sizeof(told[0]); i++) {
        get(f, key);
        answer(f, NULL, 0, told[i]);
        assert_ended(f, MC_ENOENT, told[i]);
    }
    get(f, key);
    f->span.len = LENGTH - 1;
    answer(f, &loc, 1, MC_MISS_NONE);
    assert_ended(f, MC_ETOOBIG, MC_MISS_MISMATCH);
    assert_int_equal(f->op.result.length, LENGTH);
    client_core_on_peer_down(f->core, f->now, 1);
    get(f, key); /* cached, but its owner hung up: the master is asked, and knows no better */
    answer(f, &loc, 1, MC_MISS_NONE);
    answer(f, &loc, 1, MC_MISS_NONE);
    assert_ended(f, MC_ENOENT, MC_MISS_PEER_DOWN);
}

/* A node that came back with a new epoch lost what it held, whatever the master still says. */
static void test_restarted_owner_is_stale(void **state)
{
    struct fixture *f = *state;
    struct mc_key key = block(7);
    struct store_loc loc = object_at(f, 1, 0, &key, 11, 'a');

    client_core_on_peer_down(f->core, f->now, 1);
    node_up(f, 1, 2);
    get(f, key);
    answer(f, &loc, 1, MC_MISS_NONE);
    answer(f, &loc, 1, MC_MISS_NONE);
    assert_ended(f, MC_ENOENT, MC_MISS_STALE);
    assert_int_equal(f->reads_started, 0);
}

/* ---- names ---- */

static void test_names_ask_the_master(void **state)
{
    struct fixture *f = *state;
    struct mc_key key = named();
    struct store_loc loc = object_at(f, 1, 0, &key, 11, 'a');

    loc.version = 5;
    for (int i = 0; i < 2; i++) { /* also when it was read before */
        get(f, key);
        assert_null(f->reads);
        answer(f, &loc, 1, MC_MISS_NONE);
        read_ends(f, MC_OK);
        assert_hit(f, 'a');
        assert_int_equal(f->op.result.version, 5);
        assert_false(f->op.result.maybe_stale);
    }
    loc.version = 4; /* an older one than this client has seen */
    get(f, key);
    answer(f, &loc, 1, MC_MISS_NONE);
    assert_ended(f, MC_ENOENT, MC_MISS_STALE);
}

/* ---- early reads ---- */

/* A name that was read at node 1 and is asked for again, from afar. */
static struct store_loc early_begin(struct fixture *f)
{
    struct mc_key key = named();
    struct store_loc loc = object_at(f, 1, 0, &key, 11, 'a');

    f->far = false;
    get(f, key);
    answer(f, &loc, 1, MC_MISS_NONE);
    read_ends(f, MC_OK);
    assert_hit(f, 'a');
    f->far = true;
    f->reads_started = f->reads_cancelled = 0;
    get(f, key);
    assert_int_equal(outbox_count(&f->out, STORE_PEER_MASTER, MSG_MASTER_LOOKUP), 1);
    assert_int_equal(f->reads_started, 1);
    return loc;
}

static void test_early_read_waits_for_the_master(void **state)
{
    struct fixture *f = *state;
    struct store_loc loc = early_begin(f);

    read_ends(f, MC_OK); /* before the answer */
    assert_running(f);
    answer(f, &loc, 1, MC_MISS_NONE);
    assert_hit(f, 'a');
    assert_int_equal(f->reads_started, 1);

    loc = early_begin(f); /* and behind it */
    answer(f, &loc, 1, MC_MISS_NONE);
    assert_running(f);
    read_ends(f, MC_OK);
    assert_hit(f, 'a');
    assert_int_equal(f->reads_started, 1);

    loc = early_begin(f); /* what does not verify is looked at as always */
    f->memory[1][loc.offset + loc.head + 5] ^= 1;
    read_ends(f, MC_OK);
    answer(f, &loc, 1, MC_MISS_NONE);
    read_ends(f, MC_OK); /* the header once more */
    answer(f, NULL, 0, MC_MISS_NEVER);
    assert_ended(f, MC_ENOENT, MC_MISS_NEVER);
}

/* The name means another object now, or none. */
static void test_early_read_in_vain(void **state)
{
    struct fixture *f = *state;
    struct mc_key key = named();
    struct store_loc other = object_at(f, 2, 3, &key, 21, 'b');

    for (int late = 0; late < 2; late++) {
        early_begin(f);
        if (!late)
            read_ends(f, MC_OK);
        answer(f, &other, 1, MC_MISS_NONE);
        assert_int_equal(f->reads_cancelled, late);
        assert_int_equal(f->read_peer, 2);
        read_ends(f, MC_OK);
        assert_hit(f, 'b');
    }
    early_begin(f);
    answer(f, NULL, 0, MC_MISS_NEVER);
    assert_ended(f, MC_ENOENT, MC_MISS_NEVER);
    assert_int_equal(f->reads_cancelled, 1);
}

static void test_early_read_fails(void **state)
{
    struct fixture *f = *state;
    struct store_loc loc = early_begin(f);

    read_ends(f, MC_ENOENT);
    assert_running(f);
    answer(f, &loc, 1, MC_MISS_NONE);
    assert_int_equal(f->reads_started, 2);
    read_ends(f, MC_OK);
    assert_hit(f, 'a');

    early_begin(f); /* the node goes: the master's word is awaited all the same */
    client_core_on_peer_down(f->core, f->now, 1);
    assert_running(f);
    client_core_cancel(f->core, f->now, &f->call);
    assert_ended(f, MC_ECANCELED, MC_MISS_NONE);
}

/* ---- the master ---- */

static void test_master_down_cached_locations_serve(void **state)
{
    struct fixture *f = *state;
    struct mc_key keys[] = {block(7), named()};

    for (int i = 0; i < 2; i++) {
        struct store_loc loc = object_at(f, 1, (uint32_t)i, &keys[i], 11 + (uint64_t)i, 'a');

        loc.version = (uint64_t)i;
        get(f, keys[i]);
        answer(f, &loc, 1, MC_MISS_NONE);
        read_ends(f, MC_OK);
        assert_hit(f, 'a');
    }
    client_core_on_peer_down(f->core, f->now, STORE_PEER_MASTER);
    for (int i = 0; i < 2; i++) {
        get(f, keys[i]);
        read_ends(f, MC_OK);
        assert_hit(f, 'a');
        assert_int_equal(f->op.result.maybe_stale, i == 1); /* a name may have moved on */
    }
    get(f, block(8));
    assert_ended(f, MC_ENOENT, MC_MISS_MASTER_DOWN);
    start(f, MC_REMOVE, block(7));
    assert_ended(f, MC_EPEERDOWN, MC_MISS_NONE);
}

/* It hangs up, or it says nothing for 400 ms: whoever waits is told long before its deadline. One trial per 100 ms finds it
 * again. */
/* A full list without a node, whose word that it is forgotten we have missed: kept while it is connected, dialled for a while after that
 * (a new master's list grows), then given up. In the list again it is connected anew. */
static void test_node_forgotten_meanwhile(void **state)
{
    struct fixture *f = *state;
    uint32_t connects = f->connects;

    client_core_on_peer_down(f->core, f->now, STORE_PEER_MASTER);
    client_core_on_peer_up(f->core, f->now, STORE_PEER_MASTER, (const uint8_t[16]){9}, 1);
    say_members(f, NODES - 1, 1);
    tick(f, 60000);
    assert_int_equal(f->disconnects, 0);

    client_core_on_peer_down(f->core, f->now, NODES);
    tick(f, 9000);
    node_up(f, NODES, 1); /* only a broken connection */
    tick(f, 9000);
    client_core_on_peer_down(f->core, f->now, NODES);
    tick(f, 9000);
    assert_int_equal(f->disconnects, 0);
    assert_true(client_core_wake(f->core) <= f->now + 1000 * NS_PER_MS);
    tick(f, 1000);
    assert_int_equal(f->disconnects, 1);
    assert_int_equal(f->disconnected, NODES);

    assert_int_equal(f->connects, connects);
    client_core_on_peer_down(f->core, f->now, 1); /* which is in the list: never given up */
    tick(f, 60000);
    assert_int_equal(f->disconnects, 1);
    outbox_clear(&f->out);
    client_core_on_peer_up(f->core, f->now, STORE_PEER_MASTER, (const uint8_t[16]){9}, 1);
    say_members(f, NODES, 1);
    assert_int_equal(f->connects, connects + 1);
}

static void test_silent_master_is_down(void **state)
{
    struct fixture *f = *state;

    get(f, block(7));
    tick(f, 390);
    assert_running(f);
    tick(f, 20);
    assert_ended(f, MC_ENOENT, MC_MISS_MASTER_DOWN);
    get(f, block(7));
    assert_ended(f, MC_ENOENT, MC_MISS_MASTER_DOWN); /* at once, and it is not asked */
    assert_null(outbox_find(&f->out, STORE_PEER_MASTER, MSG_MASTER_LOOKUP));
    for (int i = 0; i < 10; i++)
        tick(f, 50);
    assert_in_range(outbox_count(&f->out, STORE_PEER_MASTER, MSG_MASTER_SUBSCRIBE), 3, 6);
    say_members(f, NODES, 1);
    get(f, block(7));
    answer(f, NULL, 0, MC_MISS_NEVER);
    assert_ended(f, MC_ENOENT, MC_MISS_NEVER);
}

/* ---- deadlines ---- */

static void test_deadlines_end_every_stage(void **state)
{
    struct fixture *f = *state;
    struct mc_key key = block(7);
    struct store_loc loc = object_at(f, 1, 0, &key, 11, 'a');

    get(f, key); /* while the master is asked: it lives, its answer is slow */
    for (uint64_t ms = 0; ms < DEADLINE_MS - 100; ms += 100) {
        client_core_on_message(f->core, f->now, STORE_PEER_MASTER, &(struct store_msg){.type = MSG_MASTER_MEMBERS});
        tick(f, 100);
        assert_running(f);
    }
    tick(f, 100);
    assert_ended(f, MC_ETIMEDOUT, MC_MISS_TIMEOUT);

    get(f, key); /* while it is read: the node lives and answers pings */
    answer(f, &loc, 1, MC_MISS_NONE);
    while (f->now + 200 * NS_PER_MS < f->call.deadline_ns) {
        client_core_on_message(f->core, f->now, 1, &(struct store_msg){.type = MSG_NODE_INFO});
        tick(f, 100);
        assert_running(f);
    }
    tick(f, 200);
    assert_ended(f, MC_ETIMEDOUT, MC_MISS_TIMEOUT);
    assert_int_equal(f->reads_cancelled, 1);
    assert_int_equal(stats(f).misses[MC_MISS_TIMEOUT], 2);

    get(f, key); /* given up by the caller */
    client_core_cancel(f->core, f->now, &f->call);
    assert_ended(f, MC_ECANCELED, MC_MISS_NONE);
}

/* ---- puts ---- */

/* The node that was asked to put; 0: none is. */
static uint32_t asked_to_put(const struct fixture *f)
{
    for (uint32_t peer = 1; peer <= NODES; peer++)
        if (outbox_find(&f->out, peer, MSG_NODE_PUT))
            return peer;
    return 0;
}

static void put_answer(struct fixture *f, uint32_t peer, enum mc_status status, struct store_put_reply with)
{
    struct store_msg reply = store_msg_reply(outbox_find(&f->out, peer, MSG_NODE_PUT), status);

    reply.put_reply = with;
    outbox_clear(&f->out);
    say(f, peer, &reply);
}

static void test_refused_put_goes_to_the_next_node(void **state)
{
    static const enum mc_status refusals[] = {MC_EBUSY, MC_ENOSPC}; /* draining; full of what may not go */
    struct fixture *f = *state;

    for (int i = 0; i < 2; i++) {
        uint32_t first;

        start(f, MC_PUT, i ? named() : block(7));
        first = asked_to_put(f);
        assert_int_not_equal(first, 0);
        put_answer(f, first, refusals[i], (struct store_put_reply){0});
        assert_int_equal(asked_to_put(f), 3 - first);
        put_answer(f, 3 - first, MC_OK, (struct store_put_reply){.version = 9});
        assert_ended(f, MC_OK, MC_MISS_NONE);
        assert_int_equal(f->op.result.node[0], 3 - first);
    }
    start(f, MC_PUT, block(7));
    for (int i = 0; i < 2; i++)
        put_answer(f, asked_to_put(f), MC_ENOSPC, (struct store_put_reply){0});
    assert_ended(f, MC_ENOSPC, MC_MISS_NONE);
}

/* A queue is full here or there: the same node, a little later; there may be no other. */
static void test_full_queue_is_tried_again(void **state)
{
    struct fixture *f = *state;

    client_core_on_peer_down(f->core, f->now, 2);
    start(f, MC_PUT, block(7));
    put_answer(f, 1, MC_AGAIN, (struct store_put_reply){0});
    assert_int_equal(asked_to_put(f), 0);
    tick(f, 5);
    put_answer(f, 1, MC_OK, (struct store_put_reply){0});
    assert_ended(f, MC_OK, MC_MISS_NONE);
    f->sends_refused = 2;
    start(f, MC_UPSERT, named());
    tick(f, 5);
    tick(f, 5);
    put_answer(f, 1, MC_OK, (struct store_put_reply){.version = 9});
    assert_ended(f, MC_OK, MC_MISS_NONE);
}

/* A part is begun wherever it can be: refused here, or its node gone, it is begun there. */
static void test_part_is_begun_at_the_next_node(void **state)
{
    struct fixture *f = *state;

    for (int gone = 0; gone < 2; gone++) {
        struct client_call call = {.kind = CALL_PART_BEGIN, .deadline_ns = f->now + NS_PER_S};
        struct store_msg reply;
        uint32_t first;

        outbox_clear(&f->out);
        call.part.key = block(7);
        call.part.length = LENGTH;
        assert_int_equal(client_core_start(f->core, f->now, &call), MC_OK);
        tick(f, 0);
        first = outbox_find(&f->out, 1, MSG_PART_BEGIN) ? 1 : 2;
        reply = store_msg_reply(outbox_find(&f->out, first, MSG_PART_BEGIN), MC_EBUSY); /* it drains */
        if (gone)
            client_core_on_peer_down(f->core, f->now, first);
        else
            say(f, first, &reply);
        tick(f, 0);
        assert_non_null(outbox_find(&f->out, 3 - first, MSG_PART_BEGIN));
        reply = store_msg_reply(outbox_find(&f->out, 3 - first, MSG_PART_BEGIN), MC_OK);
        reply.put_reply.part = 5;
        say(f, 3 - first, &reply);
        assert_ptr_equal(client_core_done(f->core), &call);
        assert_int_equal(call.status, MC_OK);
        client_core_part_abort(f->core, f->now, call.part.handle);
        assert_int_equal(outbox_find(&f->out, 3 - first, MSG_PART_ABORT)->part.part, 5);
    }
}

/* A node dies with a put under way: a block may be stored twice, a name may not (docs/decisions/032). */
static void test_put_with_unknown_outcome(void **state)
{
    struct fixture *f = *state;
    uint32_t first;

    start(f, MC_PUT, block(7));
    first = asked_to_put(f);
    client_core_on_peer_down(f->core, f->now, first);
    tick(f, 0);
    assert_int_equal(outbox_count(&f->out, 3 - first, MSG_NODE_PUT), 1);
    put_answer(f, 3 - first, MC_OK, (struct store_put_reply){0});
    assert_ended(f, MC_OK, MC_MISS_NONE);
    node_up(f, first, 1);

    start(f, MC_UPSERT, named());
    client_core_on_peer_down(f->core, f->now, asked_to_put(f));
    assert_ended(f, MC_EPEERDOWN, MC_MISS_NONE);
    assert_int_equal(outbox_count(&f->out, 1, MSG_NODE_PUT) + outbox_count(&f->out, 2, MSG_NODE_PUT), 1);
}

/* What was put is read without asking: its place was told with the answer. */
static void test_put_is_cached(void **state)
{
    struct fixture *f = *state;
    struct mc_key key = block(7);
    uint32_t peer;

    start(f, MC_PUT, key);
    peer = asked_to_put(f);
    put_answer(f, peer, MC_OK, (struct store_put_reply){.loc = object_at(f, peer, 2, &key, 11, 'p'), .has_loc = true});
    assert_ended(f, MC_OK, MC_MISS_NONE);
    get(f, key);
    read_ends(f, MC_OK);
    assert_hit(f, 'p');
}

/* ---- many questions at once ---- */

enum { ASKED = 4 };

/* Of four, one is answered already and one is no key. */
static void ask_many(struct fixture *f, struct mc_store_op ops[ASKED])
{
    for (int i = 0; i < ASKED; i++)
        ops[i] = (struct mc_store_op){.opcode = MC_EXISTS, .key = block((uint8_t)i), .result.status = MC_PENDING};
    ops[0].result = (struct mc_store_result){.status = MC_OK, .length = 77};
    ops[1].key.shard = 3;
    ops[3].key = named();
    outbox_clear(&f->out);
    f->call = (struct client_call){
        .kind = CALL_EXISTS, .exists = {ops, ASKED}, .deadline_ns = f->now + DEADLINE_MS * NS_PER_MS};
    assert_int_equal(client_core_start(f->core, f->now, &f->call), MC_OK);
    tick(f, 0);
}

static void assert_asked(struct fixture *f, const struct mc_store_op ops[ASKED], enum mc_status rest, enum mc_miss miss)
{
    assert_ptr_equal(client_core_done(f->core), &f->call);
    assert_null(client_core_done(f->core));
    assert_int_equal(ops[0].result.status, MC_OK);
    assert_int_equal(ops[0].result.length, 77);
    assert_int_equal(ops[1].result.status, MC_EINVAL);
    assert_int_equal(ops[2].result.status, rest);
    assert_int_equal(ops[2].result.miss, miss);
}

static void test_many_questions_are_one_message(void **state)
{
    static const uint8_t misses[] = {MC_MISS_EVICTED, MC_MISS_NONE};
    struct fixture *f = *state;
    struct mc_store_op ops[ASKED];
    struct store_loc loc =
        object_at(f, 2, 0, &(struct mc_key){.kind = MC_KEY_NAMED, .name = "name", .name_len = 4}, 11, 'a');

    loc.key = 1;
    loc.version = 5;
    ask_many(f, ops);
    assert_int_equal(outbox_count(&f->out, STORE_PEER_MASTER, MSG_MASTER_LOOKUP), 1);
    assert_int_equal(outbox_find(&f->out, STORE_PEER_MASTER, MSG_MASTER_LOOKUP)->lookup.count, 2);
    answers(f, &loc, 1, slice_of(misses, 2));
    assert_asked(f, ops, MC_ENOENT, MC_MISS_EVICTED);
    assert_int_equal(ops[3].result.status, MC_OK);
    assert_int_equal(ops[3].result.length, LENGTH);
    assert_int_equal(ops[3].result.node[0], 2);

    loc.version = 4; /* of a name, nothing older than what was seen is given out */
    ask_many(f, ops);
    answers(f, &loc, 1, slice_of(misses, 2));
    assert_asked(f, ops, MC_ENOENT, MC_MISS_EVICTED);
    assert_int_equal(ops[3].result.status, MC_ENOENT);
    assert_int_equal(ops[3].result.miss, MC_MISS_STALE);
}

static void test_many_questions_without_an_answer(void **state)
{
    struct fixture *f = *state;
    struct mc_store_op ops[ASKED];

    f->sends_refused = 1; /* the queue is full: said again a little later */
    ask_many(f, ops);
    assert_null(outbox_find(&f->out, STORE_PEER_MASTER, MSG_MASTER_LOOKUP));
    tick(f, 10);
    assert_non_null(outbox_find(&f->out, STORE_PEER_MASTER, MSG_MASTER_LOOKUP));
    client_core_cancel(f->core, f->now, &f->call);
    assert_asked(f, ops, MC_ECANCELED, MC_MISS_NONE);

    ask_many(f, ops);
    tick(f, 410);
    assert_asked(f, ops, MC_EPEERDOWN, MC_MISS_MASTER_DOWN);
    ask_many(f, ops); /* at once, and it is not asked */
    assert_asked(f, ops, MC_EPEERDOWN, MC_MISS_MASTER_DOWN);
}

/* To each put in the outbox, in their order: it is taken. */
static void answers_to_puts(const struct fixture *f, struct store_msg *replies)
{
    for (uint32_t i = 0; i < f->out.count; i++)
        if (f->out.entries[i].msg.type == MSG_NODE_PUT)
            *replies++ = store_msg_reply(&f->out.entries[i].msg, MC_OK);
}

/* Two members: refused at one node they go to the other together, and end when that has named its verdicts. */
static void test_bundle_goes_elsewhere_as_one(void **state)
{
    struct fixture *f = *state;
    struct mc_store_op ops[2] = {{.opcode = MC_PUT}, {.opcode = MC_PUT}};
    struct client_call call = {
        .kind = CALL_BUNDLE, .deadline_ns = f->now + NS_PER_S, .bundle_of = {.ops = ops, .n = 2}};
    struct store_put_reply taken = {.has_loc = true, .loc.generation = 41};
    const struct store_msg *put, *bundle;
    struct store_msg replies[2];
    struct store_msg reply;
    struct buf verdicts;
    uint32_t first, second;
    uint64_t number;

    mc_key_named(&ops[0].key, "a", 1);
    mc_key_named(&ops[1].key, "b", 1);
    outbox_clear(&f->out);
    assert_int_equal(client_core_start(f->core, f->now, &call), MC_OK);
    tick(f, 0);
    first = asked_to_put(f);
    second = 3 - first;
    assert_int_equal(outbox_count(&f->out, first, MSG_NODE_PUT), 2);
    number = outbox_find(&f->out, first, MSG_NODE_PUT)->put.bundle;
    answers_to_puts(f, replies);
    replies[0].status = MC_ENOSPC;
    replies[1].put_reply = taken;
    outbox_clear(&f->out);
    say(f, first, &replies[0]);
    assert_int_equal(asked_to_put(f), 0); /* the other one is still under way there */
    say(f, first, &replies[1]);
    tick(f, 0);
    bundle = outbox_find(&f->out, first, MSG_NODE_BUNDLE);
    assert_true(bundle->bundle.number == number && bundle->bundle.generations.len == 0); /* given up */
    assert_int_equal(outbox_count(&f->out, second, MSG_NODE_PUT), 2);
    put = outbox_find(&f->out, second, MSG_NODE_PUT);
    assert_int_not_equal(put->put.bundle, number);
    answers_to_puts(f, replies);
    for (uint32_t i = 0; i < 2; i++, taken.loc.generation++) {
        replies[i].put_reply = taken;
        outbox_clear(&f->out);
        say(f, second, &replies[i]);
    }
    bundle = outbox_find(&f->out, second, MSG_NODE_BUNDLE);
    assert_int_equal(store_u64_count(bundle->bundle.generations), 2);
    assert_int_equal(store_u64_at(bundle->bundle.generations, 1), 42);
    assert_int_equal(call.status, MC_PENDING);
    buf_init(&verdicts, 4096);
    store_verdict_put(&verdicts, &(struct store_verdict){MC_EEXIST, 7});
    store_verdict_put(&verdicts, &(struct store_verdict){MC_OK, 8});
    reply = store_msg_reply(bundle, MC_OK);
    reply.verdicts = buf_slice(&verdicts);
    say(f, second, &reply);
    buf_fini(&verdicts);
    assert_ptr_equal(client_core_done(f->core), &call);
    assert_int_equal(call.status, MC_OK);
    assert_true(ops[0].result.existed && !ops[1].result.existed);
    assert_int_equal(ops[1].result.version, 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_hit_is_located_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_corrupt_copy_fails_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dead_node_fails_over_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_silent_node_fails_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_suspicion_of_the_master_is_checked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lost_members_are_not_connected_to, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stale_location_is_dropped, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stale_index_is_asked_once_more, setup, teardown),
        cmocka_unit_test_setup_teardown(test_evicted_while_read_is_stale, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_on_the_wire_is_corrupt, setup, teardown),
        cmocka_unit_test_setup_teardown(test_misses_have_reasons, setup, teardown),
        cmocka_unit_test_setup_teardown(test_restarted_owner_is_stale, setup, teardown),
        cmocka_unit_test_setup_teardown(test_names_ask_the_master, setup, teardown),
        cmocka_unit_test_setup_teardown(test_early_read_waits_for_the_master, setup, teardown),
        cmocka_unit_test_setup_teardown(test_early_read_in_vain, setup, teardown),
        cmocka_unit_test_setup_teardown(test_early_read_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_master_down_cached_locations_serve, setup, teardown),
        cmocka_unit_test_setup_teardown(test_node_forgotten_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_silent_master_is_down, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deadlines_end_every_stage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused_put_goes_to_the_next_node, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_queue_is_tried_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_part_is_begun_at_the_next_node, setup, teardown),
        cmocka_unit_test_setup_teardown(test_put_with_unknown_outcome, setup, teardown),
        cmocka_unit_test_setup_teardown(test_put_is_cached, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_questions_are_one_message, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_questions_without_an_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bundle_goes_elsewhere_as_one, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
