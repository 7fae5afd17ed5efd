/* node_core_test.c - goal: the owner's decisions one by one, under fake time. Method: messages in, sent messages kept in an outbox;
 * memory is an array. What many of them do together is tests/sim's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/clock.h"
#include "store/node/node_core.h"
#include "store/object.h"
#include "store/outbox_test.h"

enum { CLIENT = 1, MEMORY = 64 << 10 };

struct fixture {
    struct node_core *core;
    uint8_t *memory, *page; /* the directory's */
    struct names_view names;
    struct outbox out;
    uint64_t now, requests;
    uint64_t cookie; /* of the pull under way */
    bool pull_cancelled;
};

static enum mc_status on_send(void *ctx, uint32_t peer, const struct store_msg *msg)
{
    struct fixture *f = ctx;

    return outbox_send(&f->out, peer, msg);
}

static enum mc_status on_pull(void *ctx, uint64_t cookie, uint32_t peer, struct store_pull *pulls, uint32_t count)
{
    ((struct fixture *)ctx)->cookie = cookie;
    return MC_OK;
}

static void on_pull_cancel(void *ctx, uint64_t cookie)
{
    ((struct fixture *)ctx)->pull_cancelled = true;
}

static void tick(struct fixture *f, uint64_t ns)
{
    f->now += ns;
    node_core_on_tick(f->core, f->now);
}

static void say(struct fixture *f, uint32_t peer, struct store_msg msg)
{
    outbox_clear(&f->out);
    if (!msg.reply)
        msg.request = ++f->requests;
    node_core_on_message(f->core, f->now, peer, &msg);
    tick(f, 1000);
}

static void master_up(struct fixture *f)
{
    struct store_msg welcome;

    outbox_clear(&f->out);
    node_core_on_peer_up(f->core, f->now, STORE_PEER_MASTER);
    assert_non_null(outbox_find(&f->out, STORE_PEER_MASTER, MSG_NODE_REGISTER));
    welcome = store_msg_reply(outbox_find(&f->out, STORE_PEER_MASTER, MSG_NODE_REGISTER), MC_OK);
    welcome.welcome.term = 5;
    say(f, STORE_PEER_MASTER, welcome);
    assert_non_null(outbox_find(&f->out, STORE_PEER_MASTER, MSG_NODE_INVENTORY));
}

/* The master says this of every entry of the commit that was just sent. */
static void verdict(struct fixture *f, enum mc_status status, uint64_t version)
{
    const struct store_msg *commit = outbox_find(&f->out, STORE_PEER_MASTER, MSG_NODE_COMMIT);
    struct store_msg reply;
    struct store_entry entry;
    struct buf list;
    struct cur c;

    assert_non_null(commit);
    buf_init(&list, 4096);
    c = cur_of_slice(commit->commit.entries);
    while (store_entry_next(&c, &entry))
        store_verdict_put(&list, &(struct store_verdict){status, version});
    reply = store_msg_reply(commit, MC_OK);
    reply.verdicts = buf_slice(&list);
    say(f, STORE_PEER_MASTER, reply);
    buf_fini(&list);
}

static struct store_key block(uint8_t n)
{
    struct store_key key = {.shards = 1, .kind = MC_KEY_BLOCK};

    memset(key.id, n, 16);
    return key;
}

static struct store_key named(void)
{
    struct mc_key public;
    struct store_key key;

    mc_key_named(&public, "name", 4);
    assert_int_equal(store_key_from(0, &public, &key), MC_OK);
    return key;
}

static void put_as(struct fixture *f, struct store_key key, uint64_t length, uint32_t flags)
{
    static uint8_t bytes[STORE_INLINE_MAX];
    struct store_msg msg = {.type = MSG_NODE_PUT, .deadline_ms = 1000};

    memset(bytes, key.id[0], length);
    msg.put =
        (struct store_put){.key = key, .length = length, .data = slice_of(bytes, length), .meta = {.flags = flags}};
    say(f, CLIENT, msg);
}

static void put(struct fixture *f, struct store_key key, uint64_t length)
{
    put_as(f, key, length, 0);
}

static struct store_ledger ledger(struct fixture *f)
{
    struct store_ledger l;

    node_core_ledger(f->core, &l);
    assert_true(store_ledger_exact(&l));
    return l;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct store_port port = {.ctx = f, .send = on_send, .pull = on_pull, .pull_cancel = on_pull_cancel};
    struct node_limits limits = {.objects_max = 1000, .peers_max = 8, .low_percent = 99, .high_percent = 100};
    struct store_member self = {.epoch = 3};
    struct node_memory memory = {.size = MEMORY};

    struct node_names names = {.memory.size = names_size(MEMORY)};

    f->memory = aligned_alloc(64, MEMORY);
    memory.base = f->memory;
    f->page = aligned_alloc(64, (names.memory.size + 63) / 64 * 64);
    memset(f->page, 0, names.memory.size);
    names.memory.base = f->page;
    names.table = names_init(f->page, names.memory.size);
    assert_true(names_open(f->page, names.memory.size, &f->names));
    assert_int_equal(node_core_create(&limits, &port, &self, &memory, 1, &names, 1, &f->core), MC_OK);
    f->now = NS_PER_S;
    node_core_on_peer_up(f->core, f->now, CLIENT);
    assert_non_null(outbox_find(&f->out, CLIENT, MSG_NODE_INFO));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    outbox_clear(&f->out);
    node_core_destroy(f->core);
    free(f->memory);
    free(f->page);
    free(f);
    return 0;
}

static void test_put_is_answered_after_the_verdict(void **state)
{
    struct fixture *f = *state;
    struct object_header header;
    const struct store_msg *reply;

    master_up(f);
    put(f, block(1), 700);
    assert_null(outbox_find(&f->out, CLIENT, MSG_NODE_PUT));
    verdict(f, MC_OK, 0);
    reply = outbox_find(&f->out, CLIENT, MSG_NODE_PUT);
    assert_int_equal(reply->status, MC_OK);
    assert_int_equal(reply->put_reply.loc.generation >> 40, 3);
    assert_int_equal(object_parse(f->memory + reply->put_reply.loc.offset, MEMORY, &header), MC_OK);
    assert_int_equal(object_verify(&header, f->memory + reply->put_reply.loc.offset + header.header_len), MC_OK);
    assert_int_equal(ledger(f).row[LEDGER_PRESENT].objects, 1);
    put(f, block(1), 700);
    assert_true(outbox_find(&f->out, CLIENT, MSG_NODE_PUT)->put_reply.existed);
}

static void test_block_without_master_is_announced_later(void **state)
{
    struct fixture *f = *state;

    put(f, block(1), 700);
    assert_true(outbox_find(&f->out, CLIENT, MSG_NODE_PUT)->put_reply.unindexed);
    put(f, named(), 700);
    assert_int_equal(outbox_find(&f->out, CLIENT, MSG_NODE_PUT)->status, MC_EPEERDOWN);
    master_up(f);
    verdict(f, MC_OK, 0);
    assert_int_equal(ledger(f).row[LEDGER_PRESENT].objects, 1);
    assert_int_equal(ledger(f).row[LEDGER_ABORTED_MASTER].objects, 1);
}

static void test_loser_is_freed_and_told_success(void **state)
{
    struct fixture *f = *state;

    master_up(f);
    put(f, named(), 700);
    verdict(f, MC_EEXIST, 9ull << 32 | 1);
    assert_int_equal(outbox_find(&f->out, CLIENT, MSG_NODE_PUT)->status, MC_OK);
    assert_true(outbox_find(&f->out, CLIENT, MSG_NODE_PUT)->put_reply.existed);
    assert_int_equal(ledger(f).row[LEDGER_ABORTED_LOST].objects, 1);
}

static void test_version_goes_into_the_header(void **state)
{
    struct fixture *f = *state;
    struct object_header header;
    uint64_t offset;

    master_up(f);
    put(f, named(), 700);
    verdict(f, MC_OK, 9ull << 32 | 1);
    offset = outbox_find(&f->out, CLIENT, MSG_NODE_PUT)->put_reply.loc.offset;
    assert_int_equal(object_parse(f->memory + offset, MEMORY, &header), MC_OK);
    assert_int_equal(header.version, 9ull << 32 | 1);
}

/* Space is not given back while a pull into it is under way. */
static void test_writer_dies_in_the_middle(void **state)
{
    struct fixture *f = *state;
    struct store_span span = {.length = 40000};
    struct store_msg msg = {.type = MSG_NODE_PUT, .deadline_ms = 1000};
    struct buf list;

    master_up(f);
    buf_init(&list, 4096);
    store_span_put(&list, &span);
    msg.put = (struct store_put){.key = block(1), .length = 40000, .spans = buf_slice(&list)};
    say(f, CLIENT, msg);
    buf_fini(&list);
    node_core_on_peer_down(f->core, f->now, CLIENT);
    assert_true(f->pull_cancelled);
    assert_int_equal(ledger(f).row[LEDGER_IN_FLIGHT].objects, 1);
    node_core_on_peer_up(f->core, f->now, CLIENT);
    put(f, block(2), 40000); /* does not fit beside it, and nothing may be evicted */
    assert_int_equal(outbox_find(&f->out, CLIENT, MSG_NODE_PUT)->status, MC_ENOSPC);
    node_core_on_io(f->core, f->now, f->cookie, MC_ECANCELED);
    assert_int_equal(ledger(f).row[LEDGER_ABORTED_WRITER].objects, 1);
    put(f, block(2), 40000);
    verdict(f, MC_OK, 0);
    assert_int_equal(outbox_find(&f->out, CLIENT, MSG_NODE_PUT)->status, MC_OK);
}

static void test_eviction_spares_pins_and_limits_them(void **state)
{
    struct fixture *f = *state;
    struct store_msg pin = {.type = MSG_NODE_PIN, .pin = {.token = 1, .pin_ms = 1000}};
    uint8_t generations[16];

    master_up(f);
    for (uint8_t i = 1; i <= 2; i++) {
        put(f, block(i), 20000);
        verdict(f, MC_OK, 0);
        le64_put(generations + 8 * (i - 1), outbox_find(&f->out, CLIENT, MSG_NODE_PUT)->put_reply.loc.generation);
    }
    pin.pin.generations = slice_of(generations, 16);
    say(f, CLIENT, pin);
    assert_int_equal(outbox_find(&f->out, CLIENT, MSG_NODE_PIN)->status, MC_EPERM); /* both: over half of the memory */
    pin.pin.generations = slice_of(generations, 8);
    say(f, CLIENT, pin);
    assert_int_equal(outbox_find(&f->out, CLIENT, MSG_NODE_PIN)->status, MC_OK);
    put(f, block(3), 30000);
    verdict(f, MC_OK, 0);
    assert_int_equal(ledger(f).row[LEDGER_EVICTED_SPACE].objects, 1);
    assert_int_equal(ledger(f).row[LEDGER_PRESENT].objects, 2);
    put(f, block(1), 20000);
    assert_true(outbox_find(&f->out, CLIENT, MSG_NODE_PUT)->put_reply.existed); /* the pinned one stayed */
}

/* Neither eviction nor a pin that ends takes it; a client's own drop does, and its space serves again. */
static void test_hard_pinned_stays_until_it_is_removed(void **state)
{
    struct fixture *f = *state;
    struct store_msg pin = {.type = MSG_NODE_PIN, .pin = {.token = 1, .pin_ms = 1000}};
    uint8_t generation[8];

    master_up(f);
    put_as(f, block(1), 30000, MC_OBJ_HARD_PIN);
    verdict(f, MC_OK, 0);
    le64_put(generation, outbox_find(&f->out, CLIENT, MSG_NODE_PUT)->put_reply.loc.generation);
    pin.pin.generations = slice_of(generation, 8);
    say(f, CLIENT, pin);
    assert_int_equal(outbox_find(&f->out, CLIENT, MSG_NODE_PIN)->status, MC_OK);
    tick(f, 1001 * NS_PER_MS);
    put(f, block(2), 40000);
    assert_int_equal(outbox_find(&f->out, CLIENT, MSG_NODE_PUT)->status, MC_ENOSPC);
    assert_int_equal(ledger(f).row[LEDGER_PRESENT].objects, 1);
    say(f, STORE_PEER_MASTER,
        (struct store_msg){.type = MSG_NODE_DROP, .drop = {.generations = slice_of(generation, 8)}});
    put(f, block(2), 40000);
    verdict(f, MC_OK, 0);
    assert_int_equal(outbox_find(&f->out, CLIENT, MSG_NODE_PUT)->status, MC_OK);
}

static void test_idle_part_is_aborted(void **state)
{
    struct fixture *f = *state;
    struct store_msg msg = {.type = MSG_PART_BEGIN, .deadline_ms = 1000};
    uint64_t part;

    master_up(f);
    msg.put = (struct store_put){.key = block(1), .length = 200};
    say(f, CLIENT, msg);
    part = outbox_find(&f->out, CLIENT, MSG_PART_BEGIN)->put_reply.part;
    msg = (struct store_msg){.type = MSG_PART_WRITE, .part = {.part = part, .offset = 100, .data = slice_of(f, 100)}};
    say(f, CLIENT, msg);
    assert_int_equal(outbox_find(&f->out, CLIENT, MSG_PART_WRITE)->status, MC_OK);
    say(f, CLIENT, msg);
    assert_int_equal(outbox_find(&f->out, CLIENT, MSG_PART_WRITE)->status, MC_EINVAL); /* nothing is written twice */
    tick(f, 9999 * NS_PER_MS);
    assert_int_equal(ledger(f).row[LEDGER_IN_FLIGHT].objects, 1);
    tick(f, 2 * NS_PER_MS);
    assert_int_equal(ledger(f).row[LEDGER_ABORTED_IDLE].objects, 1);
}

/* How many places the directory says, and what lies there. */
static unsigned places_of_name(struct fixture *f, struct object_header *header)
{
    struct names_place places[NAMES_WAYS];
    struct store_key key = named();
    unsigned n = names_find(&f->names, store_key_hash(&key, 0), places);

    if (n)
        assert_int_equal(object_parse(f->memory + places[0].offset, MEMORY - places[0].offset, header), MC_OK);
    return n;
}

/* A name stands there from its verdict, with its version, until its header dies; blocks do not. */
static void test_names_are_in_the_directory(void **state)
{
    struct fixture *f = *state;
    struct object_header header;
    uint8_t generation[8];

    master_up(f);
    assert_int_equal(outbox_find(&f->out, STORE_PEER_MASTER, MSG_NODE_INVENTORY)->commit.last, 1);
    put(f, named(), 700);
    assert_int_equal(places_of_name(f, &header), 0);
    verdict(f, MC_OK, 5ull << 32 | 9);
    assert_int_equal(places_of_name(f, &header), 1);
    assert_int_equal(header.version, 5ull << 32 | 9);
    put(f, block(1), 700);
    verdict(f, MC_OK, 0);
    put(f, named(), 800); /* one that loses is never there */
    assert_int_equal(places_of_name(f, &header), 1);

    le64_put(generation, header.generation);
    say(f, CLIENT,
        (struct store_msg){
            .type = MSG_NODE_PIN, .pin = {.token = 1, .pin_ms = 1000, .generations = slice_of(generation, 8)}});
    assert_int_equal(outbox_find(&f->out, CLIENT, MSG_NODE_PIN)->status, MC_OK);
    say(f, STORE_PEER_MASTER,
        (struct store_msg){.type = MSG_NODE_DROP, .drop = {.generations = slice_of(generation, 8)}});
    assert_int_equal(places_of_name(f, &header), 0); /* though the pin keeps its bytes */
}

static struct store_key member(uint32_t n)
{
    static char names[8][8];
    struct mc_key public;
    struct store_key key;

    snprintf(names[n], sizeof(names[n]), "set-%u", n);
    mc_key_named(&public, names[n], 5);
    assert_int_equal(store_key_from(0, &public, &key), MC_OK);
    return key;
}

/* Puts of a bundle: they are answered at once, and nothing of them goes to the master. */
static void put_members(struct fixture *f, uint64_t bundle, uint32_t n, uint64_t length, uint64_t *generations)
{
    static uint8_t bytes[STORE_INLINE_MAX];

    for (uint32_t i = 0; i < n; i++) {
        struct store_msg msg = {.type = MSG_NODE_PUT, .deadline_ms = 1000};

        msg.put =
            (struct store_put){.key = member(i), .length = length, .data = slice_of(bytes, length), .bundle = bundle};
        say(f, CLIENT, msg);
        assert_int_equal(outbox_find(&f->out, CLIENT, MSG_NODE_PUT)->status, MC_OK);
        assert_null(outbox_find(&f->out, STORE_PEER_MASTER, MSG_NODE_COMMIT));
        generations[i] = outbox_find(&f->out, CLIENT, MSG_NODE_PUT)->put_reply.loc.generation;
    }
}

static void say_bundle(struct fixture *f, uint64_t bundle, const uint64_t *generations, uint32_t n)
{
    struct buf list;

    buf_init(&list, 4096);
    for (uint32_t i = 0; i < n; i++)
        put_u64(&list, generations[i]);
    say(f, CLIENT,
        (struct store_msg){.type = MSG_NODE_BUNDLE,
            .deadline_ms = 1000,
            .bundle = {.number = bundle, .generations = buf_slice(&list)}});
    buf_fini(&list);
}

static uint32_t members_there(const struct fixture *f)
{
    struct node_object object;
    uint32_t n = 0;

    for (uint32_t at = 0; node_core_object(f->core, &at, &object);)
        n += object.entry.key.kind == MC_KEY_NAMED;
    return n;
}

/* One message tells the master of all, one answer makes them present, and space for one more object takes all of them. */
static void test_bundle_comes_and_goes_as_one(void **state)
{
    struct fixture *f = *state;
    const struct store_msg *commit, *reply;
    struct names_place places[NAMES_WAYS];
    struct store_key first = member(0);
    uint64_t generations[3];

    master_up(f);
    put_members(f, 7, 3, 700, generations);
    assert_int_equal(ledger(f).row[LEDGER_IN_FLIGHT].objects, 3);
    say_bundle(f, 7, generations, 3);
    commit = outbox_find(&f->out, STORE_PEER_MASTER, MSG_NODE_COMMIT);
    assert_true(commit->commit.whole);
    assert_null(outbox_find(&f->out, CLIENT, MSG_NODE_BUNDLE));
    assert_int_equal(members_there(f), 0);
    verdict(f, MC_OK, 9);
    reply = outbox_find(&f->out, CLIENT, MSG_NODE_BUNDLE);
    assert_int_equal(reply->status, MC_OK);
    assert_int_equal(store_verdict_count(reply->verdicts), 3);
    assert_int_equal(members_there(f), 3);
    assert_int_equal(names_find(&f->names, store_key_hash(&first, 0), places), 0); /* who finds one must find all */
    assert_int_equal(ledger(f).row[LEDGER_PRESENT].objects, 3);

    for (uint8_t i = 1; members_there(f) == 3; i++) {
        put(f, block(i), 8000);
        if (members_there(f) < 3) /* gone before its place was taken */
            assert_int_equal(members_there(f), 0);
        verdict(f, MC_OK, 0);
    }
    assert_true(ledger(f).row[LEDGER_EVICTED_SPACE].objects >= 3);
}

/* Whatever keeps it from its master, no member stays: other members named than are there, the writer gone or silent, the master lost
 * before and after it was told. */
static void test_bundle_is_dropped_whole(void **state)
{
    struct fixture *f = *state;
    uint64_t generations[3];

    master_up(f);
    put_members(f, 1, 3, 700, generations);
    say_bundle(f, 1, generations, 2);
    assert_int_equal(outbox_find(&f->out, CLIENT, MSG_NODE_BUNDLE)->status, MC_ENOENT);
    assert_int_equal(ledger(f).row[LEDGER_ABORTED_CALLER].objects, 3);

    put_members(f, 2, 3, 700, generations);
    node_core_on_peer_down(f->core, f->now, CLIENT);
    assert_int_equal(ledger(f).row[LEDGER_ABORTED_WRITER].objects, 3);
    node_core_on_peer_up(f->core, f->now, CLIENT);

    put_members(f, 3, 3, 700, generations);
    f->now += 11 * NS_PER_S;
    tick(f, 0);
    assert_int_equal(ledger(f).row[LEDGER_ABORTED_IDLE].objects, 3);

    put_members(f, 4, 3, 700, generations);
    say_bundle(f, 4, generations, 3);
    outbox_clear(&f->out);
    node_core_on_peer_down(f->core, f->now, STORE_PEER_MASTER);
    assert_int_equal(outbox_find(&f->out, CLIENT, MSG_NODE_BUNDLE)->status, MC_EPEERDOWN);
    put_members(f, 5, 3, 700, generations);
    say_bundle(f, 5, generations, 3);
    assert_int_equal(outbox_find(&f->out, CLIENT, MSG_NODE_BUNDLE)->status, MC_EPEERDOWN);
    assert_int_equal(ledger(f).row[LEDGER_ABORTED_MASTER].objects, 6);
    assert_true(node_core_quiet(f->core));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_put_is_answered_after_the_verdict, setup, teardown),
        cmocka_unit_test_setup_teardown(test_block_without_master_is_announced_later, setup, teardown),
        cmocka_unit_test_setup_teardown(test_loser_is_freed_and_told_success, setup, teardown),
        cmocka_unit_test_setup_teardown(test_version_goes_into_the_header, setup, teardown),
        cmocka_unit_test_setup_teardown(test_writer_dies_in_the_middle, setup, teardown),
        cmocka_unit_test_setup_teardown(test_eviction_spares_pins_and_limits_them, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hard_pinned_stays_until_it_is_removed, setup, teardown),
        cmocka_unit_test_setup_teardown(test_idle_part_is_aborted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_names_are_in_the_directory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bundle_comes_and_goes_as_one, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bundle_is_dropped_whole, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
