/* store_test.c - goal: every call of store.h does what it says, against a master and two nodes that are processes of their own.
 * Method: one cluster per transport; contents come from seeds and are compared byte by byte; counts against the ledgers. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "cluster.h"
#include "mooncake/transfer.h"

enum { MS = 5000, PIN_MS = 120000 /* far longer than the flood takes under a sanitizer on a machine that is busy */ };

static struct cluster cluster;
static struct mc_store *store, *other; /* two clients, so that what one put the other has to find */

static struct mc_key named(const char *name)
{
    struct mc_key key;

    mc_key_named(&key, name, strlen(name));
    return key;
}

static void put_block(uint64_t number, uint64_t len)
{
    uint8_t *data = malloc(len + 1);
    struct mc_key key = block(number);

    fill(data, len, number);
    assert_int_equal(mc_store_put(store, &key, data, len, NULL, MS), MC_OK);
    free(data);
}

static void check_block(struct mc_store *from, uint64_t number, uint64_t len)
{
    uint8_t *data = malloc(len + 1);
    struct mc_key key = block(number);
    uint64_t got = 0;

    memset(data, 0xee, len + 1);
    assert_int_equal(mc_store_get(from, &key, data, len, &got, MS), MC_OK);
    assert_int_equal(got, len);
    assert_true(filled(data, len, number));
    assert_int_equal(data[len], 0xee);
    free(data);
}

static void put_and_get_of_all_sizes(void **state)
{
    static const uint64_t sizes[] = {0, 1, 63, 64, 4096, 65535, 65536, 65537, 1 << 20, 5000000};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        put_block(100 + i, sizes[i]);
        check_block(other, 100 + i, sizes[i]);
        check_block(store, 100 + i, sizes[i]);
        check_block(other, 100 + i, sizes[i]); /* now from the cached location */
    }
}

static void what_is_not_there_is_a_miss(void **state)
{
    uint8_t byte;
    struct mc_span span = {&byte, 1};
    struct mc_store_op op = {.opcode = MC_GET, .key = block(999999), .spans = &span, .nspans = 1};

    assert_int_equal(mc_store_sync(store, &op, 1, MS), MC_OK);
    assert_int_equal(op.result.status, MC_ENOENT);
    assert_int_equal(op.result.miss, MC_MISS_NEVER);
    struct mc_key key = block(999999);
    assert_int_equal(mc_store_exists(store, &key, MS), MC_ENOENT);
    assert_int_equal(mc_store_remove(store, &key, false, MS), MC_ENOENT);
}

static void too_small_a_place_is_told_with_the_length(void **state)
{
    uint8_t small[100];
    struct mc_key key = block(200);
    uint64_t len = 0;

    put_block(200, 1000);
    assert_int_equal(mc_store_get(other, &key, small, sizeof(small), &len, MS), MC_ETOOBIG);
    assert_int_equal(len, 1000);
}

static void ranges_come_alone(void **state)
{
    enum { LEN = 300000 };
    static uint8_t whole[LEN], a[1], b[70000], c[100], d[LEN];
    struct mc_range ranges[] = {{65535, 1, a}, {65530, 70000, b}, {LEN - 100, 100, c}, {0, LEN, d}, {5, 0, a}};
    struct mc_store_op op = {.opcode = MC_GET, .key = block(300), .ranges = ranges, .nranges = 5};
    struct mc_range beyond = {LEN - 1, 2, a};
    struct mc_store_op bad = {.opcode = MC_GET, .key = block(300), .ranges = &beyond, .nranges = 1};

    put_block(300, LEN);
    fill(whole, LEN, 300);
    for (int i = 0; i < 2; i++) {
        memset(b, 0, sizeof(b));
        assert_int_equal(mc_store_sync(other, &op, 1, MS), MC_OK);
        assert_int_equal(op.result.status, MC_OK);
        assert_int_equal(op.result.length, LEN);
        assert_memory_equal(a, whole + 65535, 1);
        assert_memory_equal(b, whole + 65530, 70000);
        assert_memory_equal(c, whole + LEN - 100, 100);
        assert_memory_equal(d, whole, LEN);
    }
    assert_int_equal(mc_store_sync(other, &bad, 1, MS), MC_OK);
    assert_int_not_equal(bad.result.status, MC_OK);
}

/* Pieces of a put and of a get need not be cut alike; planes bound the chunks. */
static void pieces_and_planes(void **state)
{
    static uint8_t from[200000], to[200000];
    static const uint64_t planes[] = {64, 100000, 99936};
    struct mc_span source[] = {{from, 7}, {from + 7, 123456}, {from + 123463, 76537}};
    struct mc_span dest[] = {{to, 100001}, {to + 100001, 99999}};
    struct mc_object_meta meta = {.plane_bytes = planes, .planes = 3, .tokens = 64, .depth = 1};
    struct mc_store_op put = {.opcode = MC_PUT, .key = block(400), .spans = source, .nspans = 3, .meta = &meta};
    struct mc_store_op get = {.opcode = MC_GET, .key = block(400), .spans = dest, .nspans = 2};

    fill(from, sizeof(from), 400);
    assert_int_equal(mc_store_sync(store, &put, 1, MS), MC_OK);
    assert_int_equal(put.result.status, MC_OK);
    for (int i = 0; i < 2; i++) {
        memset(to, 0, sizeof(to));
        assert_int_equal(mc_store_sync(other, &get, 1, MS), MC_OK);
        assert_int_equal(get.result.status, MC_OK);
        assert_memory_equal(from, to, sizeof(to));
    }
}

struct done {
    volatile int count;
    struct mc_store_batch *batch;
};

static void count_done(struct mc_store_batch *batch, void *arg)
{
    struct done *done = arg;

    done->count++;
}

static void batches_have_a_result_each(void **state)
{
    enum { N = 500, LEN = 3000 };
    static uint8_t data[N][LEN];
    static struct mc_span spans[N];
    static struct mc_store_op ops[N];
    struct mc_store_batch *batch;
    struct done done = {0};

    for (int i = 0; i < N; i++) {
        fill(data[i], LEN, 5000 + (uint64_t)i);
        spans[i] = (struct mc_span){data[i], LEN};
        ops[i] =
            (struct mc_store_op){.opcode = MC_PUT, .key = block(5000 + (uint64_t)i), .spans = &spans[i], .nspans = 1};
    }
    assert_int_equal(mc_store_submit(store, ops, N, MS, count_done, &done, &batch), MC_OK);
    assert_int_equal(mc_store_wait(batch, MS), MC_OK);
    assert_int_equal(done.count, 1);
    mc_store_batch_free(batch);
    for (int i = 0; i < N; i++) {
        assert_int_equal(ops[i].result.status, MC_OK);
        memset(data[i], 0, LEN);
        ops[i].opcode = MC_GET;
        ops[i].key = block(5000 + (uint64_t)(i % 7 ? i : i + 1000000)); /* some are not there */
    }
    for (int round = 0; round < 2; round++) {
        assert_int_equal(mc_store_submit(other, ops, N, MS, count_done, &done, &batch), MC_OK);
        assert_int_equal(mc_store_wait(batch, MS), MC_OK);
        assert_int_equal(done.count, 2 + round);
        mc_store_batch_free(batch);
        for (int i = 0; i < N; i++) {
            assert_int_equal(ops[i].result.status, i % 7 ? MC_OK : MC_ENOENT);
            if (i % 7)
                assert_true(filled(data[i], LEN, 5000 + (uint64_t)i));
        }
    }
}

static void one_key_keeps_its_order_in_a_batch(void **state)
{
    uint8_t one[10] = "111111111", two[10] = "222222222", got[10];
    struct mc_span s1 = {one, 10}, s2 = {two, 10}, sg = {got, 10};
    struct mc_key key = named("order");
    struct mc_store_op ops[] = {
        {.opcode = MC_PUT, .key = key, .spans = &s1, .nspans = 1},
        {.opcode = MC_UPSERT, .key = key, .spans = &s2, .nspans = 1},
        {.opcode = MC_GET, .key = key, .spans = &sg, .nspans = 1},
        {.opcode = MC_REMOVE, .key = key, .force = true},
        {.opcode = MC_EXISTS, .key = key},
    };

    for (int i = 0; i < 20; i++) {
        assert_int_equal(mc_store_sync(store, ops, 5, MS), MC_OK);
        for (int op = 0; op < 4; op++)
            assert_int_equal(ops[op].result.status, MC_OK);
        assert_memory_equal(got, two, 10);
        assert_int_equal(ops[4].result.status, MC_ENOENT);
    }
}

static void names_first_put_wins_upsert_replaces(void **state)
{
    uint8_t one[100], two[200], three[300], got[300];
    struct mc_key key = named("a/name");
    struct mc_span span = {two, sizeof(two)};
    struct mc_store_op op = {.opcode = MC_PUT, .key = key, .spans = &span, .nspans = 1};
    uint64_t len, version;

    fill(one, sizeof(one), 1);
    fill(two, sizeof(two), 2);
    fill(three, sizeof(three), 3);
    assert_int_equal(mc_store_put(store, &key, one, sizeof(one), NULL, MS), MC_OK);
    assert_int_equal(mc_store_sync(other, &op, 1, MS), MC_OK);
    assert_int_equal(op.result.status, MC_OK);
    assert_true(op.result.existed);
    version = op.result.version;
    assert_int_equal(mc_store_get(other, &key, got, sizeof(got), &len, MS), MC_OK);
    assert_int_equal(len, sizeof(one));
    assert_memory_equal(got, one, sizeof(one));

    op.opcode = MC_UPSERT;
    span = (struct mc_span){three, sizeof(three)};
    assert_int_equal(mc_store_sync(other, &op, 1, MS), MC_OK);
    assert_int_equal(op.result.status, MC_OK);
    assert_true(op.result.version > version);
    assert_int_equal(mc_store_get(store, &key, got, sizeof(got), &len, MS), MC_OK);
    assert_int_equal(len, sizeof(three));
    assert_memory_equal(got, three, sizeof(three));

    /* An exists promises it: remove is refused unless forced. */
    assert_int_equal(mc_store_exists(other, &key, MS), MC_OK);
    assert_int_equal(mc_store_remove(store, &key, false, MS), MC_EPERM);
    assert_int_equal(mc_store_remove(store, &key, true, MS), MC_OK);
    assert_int_equal(mc_store_get(other, &key, got, sizeof(got), &len, MS), MC_ENOENT);
    assert_int_equal(mc_store_put(other, &key, one, sizeof(one), NULL, MS), MC_OK);
    assert_int_equal(mc_store_get(store, &key, got, sizeof(got), &len, MS), MC_OK);
    assert_int_equal(len, sizeof(one));
}

static void prefix_is_cut_at_the_first_hole(void **state)
{
    enum { N = 300 };
    static uint8_t ids[N][16];
    struct mc_prefix prefix;
    struct mc_prefix_node nodes[4];
    uint32_t n = 0;

    for (uint64_t i = 0; i < N; i++) {
        struct mc_key key = block(20000 + i);

        memcpy(ids[i], key.id, 16);
        if (i != 200)
            put_block(20000 + i, 128);
    }
    assert_int_equal(mc_store_prefix(other, (const uint8_t(*)[16])ids, N, 0, MS, &prefix, nodes, 4, &n), MC_OK);
    assert_int_equal(prefix.blocks, 200);
    assert_int_equal(prefix.bytes, 200 * 128);
    assert_int_equal(prefix.local_blocks, 200);
    assert_true(n >= 1 && n <= 2);
    put_block(20200, 128);
    assert_int_equal(mc_store_prefix(other, (const uint8_t(*)[16])ids, N, 0, MS, &prefix, NULL, 0, NULL), MC_OK);
    assert_int_equal(prefix.blocks, N);
    for (uint64_t i = 0; i < N; i += 50)
        check_block(other, 20000 + i, 128);
}

static void parts_are_invisible_until_committed(void **state)
{
    enum { LEN = 6000000 };
    static uint8_t data[LEN];
    struct mc_key key = block(30000), gone = block(30001);
    struct mc_store_part *part;
    struct mc_store_result result;

    fill(data, LEN, 30000);
    assert_int_equal(mc_store_part_begin(store, &key, LEN, NULL, MS, &part), MC_OK);
    assert_int_equal(mc_store_part_write(part, 1000, data + 1000, LEN - 1000, MS), MC_OK);
    assert_int_equal(mc_store_exists(other, &key, MS), MC_ENOENT);
    assert_int_equal(mc_store_part_write(part, 0, data, 1000, MS), MC_OK);
    assert_int_equal(mc_store_part_commit(part, MS, &result), MC_OK);
    assert_int_equal(result.length, LEN);
    check_block(other, 30000, LEN);

    assert_int_equal(mc_store_part_begin(store, &gone, LEN, NULL, MS, &part), MC_OK);
    assert_int_equal(mc_store_part_write(part, 0, data, 500, MS), MC_OK);
    assert_int_equal(mc_store_part_commit(part, MS, &result), MC_EINVAL);
    assert_int_equal(mc_store_exists(other, &gone, MS), MC_ENOENT);
    assert_int_equal(mc_store_part_begin(store, &gone, LEN, NULL, MS, &part), MC_OK);
    mc_store_part_abort(part);
    assert_int_equal(mc_store_exists(other, &gone, MS), MC_ENOENT);
}

static void views_lie_in_place_and_hold(void **state)
{
    struct mc_key key = block(40000);
    struct mc_view view;
    enum mc_status status;

    put_block(40000, 500000);
    status = mc_store_view(other, &key, 300, MS, &view);
    if (strcmp(cluster.transport, "tcp") == 0) {
        assert_int_equal(status, MC_ENOSUP);
        return;
    }
    assert_int_equal(status, MC_OK);
    assert_int_equal(view.length, 500000);
    assert_true(filled(view.addr, view.length, 40000));
    /* Beyond the pin's life the library has renewed it; a removed object stays under the view. */
    usleep(700000);
    assert_int_equal(mc_store_remove(store, &key, true, MS), MC_OK);
    assert_true(filled(view.addr, view.length, 40000));
    for (uint64_t i = 0; i < 60; i++)
        put_block(41000 + i, 1000000); /* more than what is free: the place would be used again */
    assert_true(filled(view.addr, view.length, 40000));
    mc_store_view_release(other, &view);
    assert_int_equal(mc_store_exists(other, &key, MS), MC_ENOENT);
}

static void pinned_objects_outlive_a_flood(void **state)
{
    struct mc_key keys[10];
    uint64_t token;

    for (uint64_t i = 0; i < 10; i++) {
        put_block(50000 + i, 100000);
        keys[i] = block(50000 + i);
    }
    assert_int_equal(mc_store_pin(other, keys, 10, PIN_MS, MS, &token), MC_OK);
    for (uint64_t i = 0; i < 200; i++)
        put_block(51000 + i, 1000000);
    for (uint64_t i = 0; i < 10; i++)
        check_block(other, 50000 + i, 100000);
    mc_store_unpin(other, token);
}

static void looking_inside(void **state)
{
    struct mc_location rows[4];
    struct mc_key key = block(60000);
    uint32_t n = 4;
    static char text[100000];
    uint64_t cursor = 0;
    char field[64];
    bool found = false;

    put_block(60000, 777);
    assert_int_equal(mc_store_where(other, &key, MS, rows, &n), MC_OK);
    assert_int_equal(n, 1);
    assert_int_equal(rows[0].length, 777);
    key = named("listed/one");
    assert_int_equal(mc_store_put(store, &key, "x", 1, NULL, MS), MC_OK);
    do {
        assert_int_equal(mc_store_list(other, "listed/", &cursor, text, sizeof(text), MS), MC_OK);
        found |= strstr(text, "name:listed/one") != NULL;
    } while (cursor != 0);
    assert_true(found);
    assert_int_equal(mc_store_register_model(store, "m", "abc", 3, MS, field), MC_OK);
    assert_int_equal(mc_store_register_model(other, "m", "abc", 3, MS, field), MC_OK);
    assert_int_equal(mc_store_register_model(other, "m", "abd", 3, MS, field), MC_EMISMATCH);
    assert_true(field[0]);
}

static void ledgers_agree(void **state)
{
    uint64_t present = 0;

    for (uint32_t i = 0; i < cluster.nodes; i++) {
        struct ledger l = cluster_ledger(&cluster.node[i]);

        assert_int_equal(l.in_flight, 0);
        present += l.present;
    }
    assert_true(present > 0);
}

/* Threads that are inside of the handle, or about to enter, find out; it is freed when they have left. */
static void shut_down_says_closed(void **state)
{
    struct mc_store *third = cluster_client(&cluster, NULL);
    struct mc_key key = named("after the end");
    struct mc_store_batch *batch;
    struct mc_store_op op = {.opcode = MC_PUT, .key = key};

    assert_int_equal(mc_store_put(third, &key, "x", 1, NULL, MS), MC_OK);
    mc_store_shutdown(third);
    assert_int_equal(mc_store_submit(third, &op, 1, MS, NULL, NULL, &batch), MC_ECLOSED);
    assert_int_equal(mc_store_exists(third, &key, MS), MC_ECLOSED);
    mc_store_close(third);
    assert_int_equal(mc_store_exists(store, &key, MS), MC_OK);
}

static int start(void **state)
{
    cluster_start(&cluster, 2);
    store = cluster_client(&cluster, NULL);
    other = cluster_client(&cluster, NULL);
    return 0;
}

static int stop(void **state)
{
    uint64_t before = now_ns();

    mc_store_close(store);
    mc_store_close(other);
    assert_true((double)(now_ns() - before) <= 2 * 50e6 * crowd());
    cluster_stop(&cluster);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(put_and_get_of_all_sizes),
        cmocka_unit_test(what_is_not_there_is_a_miss),
        cmocka_unit_test(too_small_a_place_is_told_with_the_length),
        cmocka_unit_test(ranges_come_alone),
        cmocka_unit_test(pieces_and_planes),
        cmocka_unit_test(batches_have_a_result_each),
        cmocka_unit_test(one_key_keeps_its_order_in_a_batch),
        cmocka_unit_test(names_first_put_wins_upsert_replaces),
        cmocka_unit_test(prefix_is_cut_at_the_first_hole),
        cmocka_unit_test(parts_are_invisible_until_committed),
        cmocka_unit_test(views_lie_in_place_and_hold),
        cmocka_unit_test(pinned_objects_outlive_a_flood),
        cmocka_unit_test(looking_inside),
        cmocka_unit_test(shut_down_says_closed),
        cmocka_unit_test(ledgers_agree),
    };

    cluster.transport = argc > 1 ? argv[1] : "auto";
    return cmocka_run_group_tests_name(cluster.transport, tests, start, stop);
}
