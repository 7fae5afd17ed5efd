/* failure_test.c - goal: what is left when a master, a node or a writer is killed or stopped, and how soon.
 * Method: three nodes as processes; objects whose owner is known (result.node); kill(2) and clocks. Ratios are asserted, times
 * only where the Store promises one, with room for a busy machine. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"
#include "cluster.h"

enum { MS = 5000, OBJECTS = 300, SIZE = 16384, READERS = 8, SAMPLES_MAX = 1 << 20 };

static struct cluster cluster;
static struct mc_store *store;

struct object {
    uint64_t number;
    uint8_t node[16];
};
static struct object objects[OBJECTS];

/* `node`: name of a preferred one, or NULL. */
static enum mc_status put_near(
    struct mc_store *by, uint64_t number, uint64_t size, const char *node, struct mc_store_result *result)
{
    uint8_t *data = malloc(size);
    struct mc_span span = {data, size};
    struct mc_object_meta meta = {.node = node};
    struct mc_store_op op = {.opcode = MC_PUT, .key = block(number), .spans = &span, .nspans = 1, .meta = &meta};

    fill(data, size, number);
    assert_int_equal(mc_store_sync(by, &op, 1, MS), MC_OK);
    free(data);
    if (result)
        *result = op.result;
    return op.result.status;
}

static enum mc_status put_at(struct mc_store *by, uint64_t number, uint64_t size, struct mc_store_result *result)
{
    return put_near(by, number, size, NULL, result);
}

/* Right bytes, or a failure; never anything else. */
static struct mc_store_result get_at(struct mc_store *by, uint64_t number, uint64_t size, uint32_t deadline_ms)
{
    uint8_t *data = calloc(1, size);
    struct mc_span span = {data, size};
    struct mc_store_op op = {.opcode = MC_GET, .key = block(number), .spans = &span, .nspans = 1};

    assert_int_equal(mc_store_sync(by, &op, 1, deadline_ms), MC_OK);
    if (op.result.status == MC_OK)
        assert_true(op.result.length == size && filled(data, size, number));
    free(data);
    return op.result;
}

static void put_objects(uint64_t first)
{
    for (uint64_t i = 0; i < OBJECTS; i++) {
        struct mc_store_result result;
        char node[16];

        snprintf(node, sizeof(node), "node%u", (unsigned)(i % cluster.nodes));
        assert_int_equal(put_near(store, first + i, SIZE, node, &result), MC_OK);
        objects[i].number = first + i;
        memcpy(objects[i].node, result.node, 16);
    }
}

/* UUID of a node process. */
static void uuid_of(uint32_t node, uint8_t uuid[16])
{
    struct mc_node_info rows[16];
    uint32_t n = 16;
    char name[16];

    snprintf(name, sizeof(name), "node%u", node);
    assert_int_equal(mc_store_nodes(store, MS, rows, &n), MC_OK);
    for (uint32_t i = 0; i < n; i++)
        if (strcmp(rows[i].name, name) == 0) {
            memcpy(uuid, rows[i].uuid, 16);
            return;
        }
    fail_msg("no node %s", name);
}

/* Put until that node is chosen; how long it took. */
static uint64_t until_used_again(uint64_t first, const uint8_t uuid[16])
{
    uint64_t start = now_ns();

    for (uint64_t i = 0;; i++) {
        struct mc_store_result result;

        assert_true(now_ns() - start < 10 * NS_PER_S);
        if (put_at(store, first + i, 100, &result) == MC_OK && memcmp(result.node, uuid, 16) == 0)
            return (now_ns() - start) / NS_PER_MS;
    }
}

/* ---- readers ---- */

struct reader {
    pthread_t thread;
    struct mc_store *store;
    const uint8_t *avoid; /* not what this node owns */
    _Atomic bool *stop, *measure;
    uint64_t *samples;
    _Atomic uint32_t count;
    uint64_t failures, seed;
};

static void *read_on(void *arg)
{
    struct reader *r = arg;
    struct rng rng;

    rng_seed(&rng, r->seed);
    while (!atomic_load(r->stop)) {
        const struct object *o = &objects[rng_below(&rng, OBJECTS)];

        if (memcmp(o->node, r->avoid, 16) == 0)
            continue;
        uint64_t start = now_ns();
        uint8_t data[SIZE];
        struct mc_span span = {data, SIZE};
        struct mc_store_op op = {.opcode = MC_GET, .key = block(o->number), .spans = &span, .nspans = 1};
        mc_store_sync(r->store, &op, 1, MS);
        r->failures += op.result.status != MC_OK;
        if (atomic_load(r->measure) && r->count < SAMPLES_MAX)
            r->samples[r->count++] = now_ns() - start;
    }
    return NULL;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static double p99_us(struct reader *readers)
{
    static uint64_t all[READERS * SAMPLES_MAX];
    size_t n = 0;

    for (int i = 0; i < READERS; i++) {
        memcpy(all + n, readers[i].samples, readers[i].count * sizeof(uint64_t));
        n += readers[i].count;
        readers[i].count = 0;
    }
    assert_true(n > 100);
    qsort(all, n, sizeof(*all), by_value);
    return (double)all[n * 99 / 100] / 1000;
}

static double measure(struct reader *readers, _Atomic bool *on, uint32_t ms)
{
    atomic_store(on, true);
    usleep(ms * 1000);
    atomic_store(on, false);
    return p99_us(readers);
}

/* ---- nodes ---- */

/* Kill or stop node 1: its objects are misses at once (killed) or within 1 s (stopped), and others do not suffer. */
static void others_go_on_without(int sig)
{
    static struct reader readers[READERS];
    _Atomic bool stop = false, on = false;
    uint8_t victim[16];
    uint32_t theirs = 0;

    uuid_of(1, victim);
    for (int i = 0; i < READERS; i++) {
        readers[i] = (struct reader){.store = cluster_client(&cluster, NULL),
            .avoid = victim,
            .stop = &stop,
            .measure = &on,
            .samples = malloc(SAMPLES_MAX * sizeof(uint64_t)),
            .seed = (uint64_t)i};
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_on, &readers[i]), 0);
    }
    usleep(300000); /* locations are cached by now */
    double before = measure(readers, &on, 1000);
    uint64_t start = now_ns();
    cluster_kill(&cluster.node[1], sig);
    if (sig == SIGSTOP)
        usleep(1000000);
    for (int i = 0; i < OBJECTS; i++) {
        if (memcmp(objects[i].node, victim, 16) != 0)
            continue;
        uint64_t asked = now_ns();
        struct mc_store_result result = get_at(store, objects[i].number, SIZE, MS);

        theirs++;
        assert_int_equal(result.status, MC_ENOENT);
        assert_int_equal(result.miss, MC_MISS_PEER_DOWN);
        assert_true((double)(now_ns() - asked) <= 300e6 * crowd());
    }
    assert_true(theirs > OBJECTS / 10);
    while (now_ns() - start < NS_PER_S)
        usleep(1000);
    double after = measure(readers, &on, 1000);
    atomic_store(&stop, true);
    for (int i = 0; i < READERS; i++) {
        pthread_join(readers[i].thread, NULL);
        assert_int_equal(readers[i].failures, 0);
        mc_store_close(readers[i].store);
        free(readers[i].samples);
    }
    print_message("p99 of others before %.0f us after %.0f us ratio %.2f\n", before, after, after / before);
    assert_true(after <= 4 * before + 1000 * crowd()); /* goal 2; the rest is the machine's noise */
}

static void node_stopped_and_continued(void **state)
{
    uint8_t uuid[16];

    put_objects(1000);
    uuid_of(1, uuid);
    others_go_on_without(SIGSTOP);
    cluster_kill(&cluster.node[1], SIGCONT);
    uint64_t used_ms = until_used_again(2000000, uuid), start = now_ns();
    for (int i = 0; i < OBJECTS; i++)
        while (get_at(store, objects[i].number, SIZE, MS).status != MC_OK)
            assert_true((double)(now_ns() - start) <= 2e9 * crowd());
    print_message("used again %llu ms after SIGCONT\n", (unsigned long long)used_ms);
    assert_true((double)used_ms <= 2000 * crowd());
}

static void node_killed_and_restarted(void **state)
{
    uint8_t uuid[16], again[16];

    uuid_of(1, uuid);
    until_used_again(600000, uuid);
    put_objects(3000);
    others_go_on_without(SIGKILL);
    cluster_node_start(&cluster, 1, NULL);
    uint64_t used_ms = until_used_again(4000000, uuid);
    print_message("used again %llu ms after it listened\n", (unsigned long long)used_ms);
    assert_true((double)used_ms <= 2000 * crowd());
    uuid_of(1, again);
    assert_memory_equal(uuid, again, 16); /* identity is kept, its epoch is new */
    for (int i = 0; i < OBJECTS; i++) {
        struct mc_store_result result = get_at(store, objects[i].number, SIZE, MS);

        if (memcmp(objects[i].node, uuid, 16) != 0)
            assert_int_equal(result.status, MC_OK);
        else
            assert_int_equal(result.status, MC_ENOENT); /* its memory is gone */
    }
}

/* ---- the master ---- */

static void master_killed_and_replaced(void **state)
{
    enum { N = 20000, LEN = 64, BATCH = 1000, WARM = 1000 };
    static uint8_t data[BATCH][LEN];
    static struct mc_span spans[BATCH];
    static struct mc_store_op ops[BATCH];
    struct mc_store_result result;

    for (uint64_t at = 0; at < N; at += BATCH) {
        for (uint64_t i = 0; i < BATCH; i++) {
            fill(data[i], LEN, 100000 + at + i);
            spans[i] = (struct mc_span){data[i], LEN};
            ops[i] =
                (struct mc_store_op){.opcode = MC_PUT, .key = block(100000 + at + i), .spans = &spans[i], .nspans = 1};
        }
        assert_int_equal(mc_store_sync(store, ops, BATCH, MS), MC_OK);
        for (uint64_t i = 0; i < BATCH; i++)
            assert_int_equal(ops[i].result.status, MC_OK);
    }
    for (uint64_t i = 0; i < WARM; i++)
        assert_int_equal(get_at(store, 100000 + i, LEN, MS).status, MC_OK);

    cluster_kill(&cluster.master, SIGKILL);
    uint64_t start = now_ns();
    for (uint64_t i = 0; i < WARM; i++)
        assert_int_equal(get_at(store, 100000 + i, LEN, MS).status, MC_OK); /* from cached locations */
    print_message("%d gets without master in %llu ms\n", WARM, (unsigned long long)((now_ns() - start) / NS_PER_MS));
    assert_int_equal(put_at(store, 900000, LEN, &result), MC_OK);
    assert_true(result.unindexed);
    struct mc_store_result miss = get_at(store, 987654321, LEN, 500);
    assert_int_equal(miss.status, MC_ENOENT);
    assert_int_equal(miss.miss, MC_MISS_MASTER_DOWN);

    cluster_master_start(&cluster);
    start = now_ns();
    struct mc_store *fresh = cluster_client(&cluster, NULL);
    uint64_t missing;
    do {
        missing = 0;
        for (uint64_t at = 0; at < N; at += BATCH) {
            for (uint64_t i = 0; i < BATCH; i++) {
                memset(data[i], 0, LEN);
                ops[i].opcode = MC_GET;
                ops[i].key = block(100000 + at + i);
            }
            assert_int_equal(mc_store_sync(fresh, ops, BATCH, MS), MC_OK);
            for (uint64_t i = 0; i < BATCH; i++)
                if (ops[i].result.status != MC_OK)
                    missing++;
                else
                    assert_true(filled(data[i], LEN, 100000 + at + i));
        }
    } while (missing > 0 && now_ns() - start < 20 * NS_PER_S);
    uint64_t took_ms = (now_ns() - start) / NS_PER_MS;
    print_message("all %d readable %llu ms after the new master listened\n", N, (unsigned long long)took_ms);
    assert_int_equal(missing, 0);
    assert_true((double)took_ms <= 2000 * crowd());
    while (get_at(fresh, 900000, LEN, MS).status != MC_OK)
        assert_true(now_ns() - start < 5 * NS_PER_S);
    mc_store_close(fresh);
}

/* ---- writers ---- */

static uint64_t used_by_all(void)
{
    uint64_t used = 0;

    for (uint32_t i = 0; i < cluster.nodes; i++) {
        struct ledger l = cluster_ledger(&cluster.node[i]);

        assert_int_equal(l.in_flight, 0);
        used += l.used;
    }
    return used;
}

static void writer_killed_in_the_middle(void **state)
{
    struct server writer = {0};
    uint64_t complete = 0;
    const uint64_t first = 7000000;

    cluster_writer_start(&cluster, &writer, first);
    usleep(100000 + 1000 * (useconds_t)(now_ns() % 50));
    cluster_kill(&writer, SIGKILL);
    used_by_all(); /* nothing is in flight any more: the parts it had begun have come back */
    for (uint64_t i = 0; i < 2000; i++) {
        struct mc_store_result whole = get_at(store, first + i, WRITER_SIZE, MS); /* checks the bytes */

        assert_int_equal(get_at(store, first + 1000000 + i, WRITER_SIZE, MS).status, MC_ENOENT);
        if (whole.status == MC_OK)
            complete++;
        else
            assert_int_equal(whole.status, MC_ENOENT);
        if (whole.status != MC_OK && i > 300)
            break;
    }
    print_message("%llu whole objects of the dead writer are there\n", (unsigned long long)complete);
    assert_true(complete > 0);
}

static int start(void **state)
{
    cluster_start(&cluster, 3);
    store = cluster_client(&cluster, NULL);
    for (uint32_t i = 0; i < 3; i++) {
        uint8_t uuid[16];

        uuid_of(i, uuid);
        until_used_again(500000 + 10000 * i, uuid); /* all are connected */
    }
    return 0;
}

static int stop(void **state)
{
    mc_store_close(store);
    cluster_stop(&cluster);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(node_stopped_and_continued),
        cmocka_unit_test(node_killed_and_restarted),
        cmocka_unit_test(master_killed_and_replaced),
        cmocka_unit_test(writer_killed_in_the_middle),
    };

    cluster.transport = argc > 1 ? argv[1] : "auto";
    return cmocka_run_group_tests_name(cluster.transport, tests, start, stop);
}
