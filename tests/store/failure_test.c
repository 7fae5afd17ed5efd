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

enum {
    MS = 5000,
    OBJECTS = 300,
    SIZE = 16384,
    READERS = 8,
    SAMPLES_MAX = 1 << 18,
    SAMPLES_MIN = 2000,
    ROUNDS = 5,
    WINDOW_MS = 300
};

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
    qsort(all, n, sizeof(*all), by_value);
    return (double)all[n * 99 / 100] / 1000;
}

static uint32_t samples_of(const struct reader *readers)
{
    uint32_t n = 0;

    for (int i = 0; i < READERS; i++)
        n += readers[i].count;
    return n;
}

/* A window is as long as it has to be for a p99 that means something. */
static double measure(struct reader *readers, _Atomic bool *on)
{
    uint64_t start = now_ns();

    atomic_store(on, true);
    while (now_ns() - start < WINDOW_MS * NS_PER_MS || samples_of(readers) < SAMPLES_MIN) {
        assert_true(now_ns() - start < 20 * NS_PER_S);
        usleep(10000);
    }
    atomic_store(on, false);
    return p99_us(readers);
}

static double median(double *values, int n)
{
    for (int i = 1; i < n; i++)
        for (int j = i; j > 0 && values[j] < values[j - 1]; j--) {
            double swap = values[j];

            values[j] = values[j - 1];
            values[j - 1] = swap;
        }
    return values[n / 2];
}

/* ---- nodes ---- */

struct outage {
    struct reader readers[READERS];
    _Atomic bool stop, on;
    uint8_t victim[16];
};

static void outage_begin(struct outage *o)
{
    *o = (struct outage){0};
    uuid_of(1, o->victim);
    for (int i = 0; i < READERS; i++) {
        o->readers[i] = (struct reader){.store = cluster_client(&cluster, NULL),
            .avoid = o->victim,
            .stop = &o->stop,
            .measure = &o->on,
            .samples = malloc(SAMPLES_MAX * sizeof(uint64_t)),
            .seed = (uint64_t)i};
        assert_int_equal(pthread_create(&o->readers[i].thread, NULL, read_on, &o->readers[i]), 0);
    }
    usleep(300000); /* locations are cached by now */
}

static void outage_end(struct outage *o)
{
    atomic_store(&o->stop, true);
    for (int i = 0; i < READERS; i++) {
        pthread_join(o->readers[i].thread, NULL);
        assert_int_equal(o->readers[i].failures, 0);
        mc_store_close(o->readers[i].store);
        free(o->readers[i].samples);
    }
}

/* Kill or stop node 1: its objects are misses within 0.1 s (killed) or 1 s (stopped). Until the client has heard of it they may still
 * be read, from memory of this host, or the first call may wait for it; then each is a miss at once. */
static void is_missed(const struct outage *o, int sig)
{
    double within = (sig == SIGKILL ? 1e8 : 1e9) * crowd();
    uint64_t start = now_ns(), asked = start;
    uint32_t theirs = 0;

    cluster_kill(&cluster.node[1], sig);
    for (int i = 0; i < OBJECTS; i++) {
        if (memcmp(objects[i].node, o->victim, 16) != 0)
            continue;
        struct mc_store_result result = get_at(store, objects[i].number, SIZE, MS);

        while (theirs == 0 && result.status == MC_OK && (double)(now_ns() - start) <= within) {
            usleep(1000);
            result = get_at(store, objects[i].number, SIZE, MS);
        }
        assert_int_equal(result.status, MC_ENOENT);
        assert_int_equal(result.miss, MC_MISS_PEER_DOWN);
        assert_true((double)(now_ns() - asked) <= (theirs == 0 ? within : 1e8 * crowd()));
        theirs++;
        asked = now_ns();
    }
    assert_true(theirs > OBJECTS / 10);
    while (now_ns() - start < NS_PER_S)
        usleep(1000);
}

/* Start or continue it, until it is chosen for puts again. */
static void comes_back(const uint8_t uuid[16], int sig)
{
    static uint64_t first = 2000000;

    if (sig == SIGSTOP)
        cluster_kill(&cluster.node[1], SIGCONT);
    else
        cluster_node_start(&cluster, 1, NULL);
    uint64_t used_ms = until_used_again(first, uuid);
    first += 100000;
    print_message(
        "used again %llu ms after %s\n", (unsigned long long)used_ms, sig == SIGSTOP ? "SIGCONT" : "it listened");
    assert_true((double)used_ms <= 2000 * crowd());
}

/* Gets on other nodes do not suffer: from 1 s on p99 <= 2 x before. p99 of 8 threads on few cores is at the mercy of whatever else
 * runs, so the outage happens ROUNDS times, each between windows of its own: two before, whose ratio is what the machine does
 * by itself, and one after. Medians of the ratios are compared. A reader that waits for the dead node even once in a hundred
 * gets makes it 100 times 2. */
static void others_go_on_without(int sig, uint64_t first)
{
    static struct outage o;
    double ratio[ROUNDS], control[ROUNDS];

    for (int round = 0; round < ROUNDS; round++) {
        if (round == 0 || sig == SIGKILL)
            put_objects(first + (uint64_t)round * OBJECTS);
        outage_begin(&o);
        double before = measure(o.readers, &o.on), again = measure(o.readers, &o.on);
        is_missed(&o, sig);
        double after = measure(o.readers, &o.on);
        outage_end(&o);
        comes_back(o.victim, sig);
        control[round] = before > again ? before / again : again / before;
        ratio[round] = after / ((before + again) / 2);
        print_message("p99 of others before %.0f and %.0f us, after %.0f us\n", before, again, after);
    }
    double noise = median(control, ROUNDS), by = median(ratio, ROUNDS);
    print_message("median: %.2f x before; without an outage %.2f x\n", by, noise);
    assert_true(by <= 2 * noise);
}

static void node_stopped_and_continued(void **state)
{
    others_go_on_without(SIGSTOP, 1000);
    for (uint64_t i = 0, start = now_ns(); i < OBJECTS; i++) /* what it held is there again */
        while (get_at(store, objects[i].number, SIZE, MS).status != MC_OK)
            assert_true((double)(now_ns() - start) <= 2e9 * crowd());
}

static void node_killed_and_restarted(void **state)
{
    uint8_t uuid[16], again[16];

    uuid_of(1, uuid);
    until_used_again(600000, uuid);
    others_go_on_without(SIGKILL, 20000);
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

static bool all_up(void)
{
    struct mc_node_info rows[16];
    uint32_t n = 16, up = 0;

    mc_store_nodes(store, MS, rows, &n);
    for (uint32_t i = 0; i < n; i++)
        up += rows[i].state == 0;
    return up == cluster.nodes;
}

/* Everybody stands still, as when a virtual machine is frozen, and the master wakes up first. */
static bool frozen_and_nobody_suspected(void)
{
    bool good = true;

    for (uint32_t i = 0; i < cluster.nodes; i++)
        cluster_kill(&cluster.node[i], SIGSTOP);
    cluster_kill(&cluster.master, SIGSTOP);
    usleep(700000);
    cluster_kill(&cluster.master, SIGCONT);
    for (int ms = 0; ms < 100; ms++, usleep(1000))
        good &= all_up();
    for (uint32_t i = 0; i < cluster.nodes; i++)
        cluster_kill(&cluster.node[i], SIGCONT);
    for (int ms = 0; ms < 300; ms++, usleep(1000))
        good &= all_up();
    return good;
}

/* A master that was stopped holds silence in that time against nobody. On a crowded machine a node may really be silent for 400 ms
 * afterwards, so one of five rounds without a suspicion will do: with the fault there is one in each. */
static void master_stopped_suspects_nobody(void **state)
{
    bool good = false;

    for (int round = 0; round < 5 && !good; round++) {
        cluster_wait_nodes(&cluster, store, cluster.nodes, 10000);
        good = frozen_and_nobody_suspected();
    }
    assert_true(good);
    cluster_wait_nodes(&cluster, store, cluster.nodes, 10000);
}

/* ---- writers ---- */

/* Nothing is in flight anywhere. What is used beyond the bytes of whole objects: their headers, and space that was lost. */
static uint64_t overhead_of_all(void)
{
    uint64_t overhead = 0;

    for (uint32_t i = 0; i < cluster.nodes; i++) {
        struct ledger l = cluster_ledger(&cluster.node[i]);

        assert_int_equal(l.in_flight, 0);
        overhead += l.used - l.bytes;
    }
    return overhead;
}

static void writer_killed_in_the_middle(void **state)
{
    struct server writer = {0};
    uint64_t complete = 0;
    const uint64_t first = 7000000, before = overhead_of_all();

    cluster_writer_start(&cluster, &writer, first);
    usleep(100000 + 1000 * (useconds_t)(now_ns() % 50));
    cluster_kill(&writer, SIGKILL);
    uint64_t after = overhead_of_all();
    print_message(
        "used beside objects: %llu B before, %llu B after\n", (unsigned long long)before, (unsigned long long)after);
    assert_true(after < before + WRITER_SIZE / 2); /* the parts it had begun have come back */
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
        cmocka_unit_test(master_stopped_suspects_nobody),
        cmocka_unit_test(writer_killed_in_the_middle),
    };

    cluster.transport = argc > 1 ? argv[1] : "auto";
    return cmocka_run_group_tests_name(cluster.transport, tests, start, stop);
}
