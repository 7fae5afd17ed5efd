/* pressure_test.c - goal: a full node takes every put, probing never stands in the way, memory comes committed.
 * Method: one small node filled many times over while another thread probes all keys, 10,000 a second; then fresh nodes, whose
 * first large put is compared with later ones (medians of several nodes). */
#include <pthread.h>
#include <setjmp.h>
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

enum { MS = 5000, SIZE = 65536, KEYS = 2000, PROBES_PER_S = 10000, PROBE_BATCH = 100, SECONDS = 4 };

static struct cluster cluster;
static struct mc_store *store;

struct prober {
    pthread_t thread;
    _Atomic bool stop;
    _Atomic uint64_t last; /* keys up to here were put */
    uint64_t probes, found;
};

/* Probe all keys that may be there in turn, at the rate; a probe promises what it finds. */
static void *probe(void *arg)
{
    struct prober *p = arg;
    static struct mc_store_op ops[PROBE_BATCH];
    uint64_t next = now_ns(), at = 0;

    while (!atomic_load(&p->stop)) {
        uint64_t last = atomic_load(&p->last), first = last > KEYS ? last - KEYS : 0;

        for (int i = 0; i < PROBE_BATCH; i++, at++) {
            ops[i] = (struct mc_store_op){.opcode = MC_EXISTS, .key = block(first + at % KEYS)};
        }
        mc_store_sync(store, ops, PROBE_BATCH, MS);
        for (int i = 0; i < PROBE_BATCH; i++)
            p->found += ops[i].result.status == MC_OK;
        p->probes += PROBE_BATCH;
        next += NS_PER_S / PROBES_PER_S * PROBE_BATCH;
        uint64_t now = now_ns();
        if (next > now)
            usleep((useconds_t)((next - now) / 1000));
    }
    return NULL;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

static void puts_go_on_when_full_and_probed(void **state)
{
    static uint8_t data[SIZE];
    static struct prober prober;
    uint64_t puts = 0, failed = 0, start = now_ns();

    assert_int_equal(pthread_create(&prober.thread, NULL, probe, &prober), 0);
    for (uint64_t i = 0; now_ns() - start < SECONDS * NS_PER_S || i < 3 * KEYS; i++) {
        struct mc_key key = block(i);

        memcpy(data, &i, sizeof(i));
        puts++;
        failed += mc_store_put(store, &key, data, SIZE, NULL, MS) != MC_OK;
        atomic_store(&prober.last, i);
    }
    double seconds = (double)(now_ns() - start) / 1e9;
    atomic_store(&prober.stop, true);
    pthread_join(prober.thread, NULL);
    print_message("%llu puts of 64 KiB into 64 MiB, %llu failed; %.0f probes/s, %llu found\n", (unsigned long long)puts,
        (unsigned long long)failed, (double)prober.probes / seconds, (unsigned long long)prober.found);
    assert_true(puts > 2 * 64 * 16); /* filled more than twice over */
    assert_true(prober.found > 0 && (double)prober.probes / seconds > PROBES_PER_S / 2.0 / crowd());
    assert_true(failed * 1000 <= puts);
    struct ledger l = cluster_ledger(&cluster.node[0]);
    assert_int_equal(l.in_flight, 0);
    assert_true(l.accepted > l.present);
}

/* R9 in the node itself: sizes from 4 KiB to 4 MiB in 64 MiB. */
static void mixed_sizes_always_fit(void **state)
{
    static uint8_t data[4 << 20];
    struct rng rng;

    rng_seed(&rng, 9);
    for (uint64_t i = 0; i < 1500; i++) {
        struct mc_key key = block(10000000 + i);
        uint64_t size = (4096ull << rng_below(&rng, 10)) + rng_below(&rng, 4096);

        assert_int_equal(mc_store_put(store, &key, data, size, NULL, MS), MC_OK);
    }
}

enum { FRESH = 5, LARGE = 8 << 20, WARM = 9 };

static uint64_t time_put(struct mc_store *by, const uint8_t *data, uint64_t number)
{
    struct mc_key key = block(number);
    uint64_t start = now_ns();

    assert_int_equal(mc_store_put(by, &key, data, LARGE, NULL, MS), MC_OK);
    return now_ns() - start;
}

static void first_put_is_not_slow(void **state)
{
    uint8_t *data = malloc(LARGE);
    uint64_t first[FRESH], warm[FRESH * WARM];

    memset(data, 1, LARGE);
    for (int i = 0; i < FRESH; i++) {
        struct cluster fresh = {.transport = cluster.transport, .memory_mib = 128};

        cluster_start(&fresh, 1);
        struct mc_store *by = cluster_client(&fresh, NULL);
        while (mc_store_put(by, &(struct mc_key){.kind = MC_KEY_NAMED, .name = "x", .name_len = 1}, "x", 1, NULL, MS) !=
               MC_OK)
            ;
        first[i] = time_put(by, data, 1);
        for (int w = 0; w < WARM; w++)
            warm[i * WARM + w] = time_put(by, data, 2 + (uint64_t)w);
        mc_store_close(by);
        cluster_stop(&fresh);
    }
    qsort(first, FRESH, sizeof(*first), by_value);
    qsort(warm, FRESH * WARM, sizeof(*warm), by_value);
    double ratio = (double)first[FRESH / 2] / (double)warm[FRESH * WARM / 2];
    print_message("first put of 8 MiB %.2f ms, warm %.2f ms, ratio %.2f\n", (double)first[FRESH / 2] / 1e6,
        (double)warm[FRESH * WARM / 2] / 1e6, ratio);
    assert_true(ratio <= 3);
    free(data);
}

static int start(void **state)
{
    cluster_start(&cluster, 1);
    store = cluster_client(&cluster, NULL);
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
        cmocka_unit_test(puts_go_on_when_full_and_probed),
        cmocka_unit_test(mixed_sizes_always_fit),
        cmocka_unit_test(first_put_is_not_slow),
    };

    cluster.transport = argc > 1 ? argv[1] : "auto";
    return cmocka_run_group_tests_name(cluster.transport, tests, start, stop);
}
