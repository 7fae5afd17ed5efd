/* transfer_test.c - the Transfer Engine over every transport, between two engines.
 *
 * Goal: reads, writes, batches, checksums, limits, cancel and statistics behave the same whatever carries the bytes. Method: one
 * list of tests, run for each transport in turn (argv), against a second engine with a loop thread of its own in this process;
 * tests/transfer has what needs a second process. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/crc.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/scratch_test.h"
#include "base/stopwatch_test.h"
#include "transfer/te.h"

#define MIB (1u << 20)

/* The two engines of this process hand memory to each other through sockets, which the race detector does not see as an order. */
#if defined(__SANITIZE_THREAD__)
const char *__tsan_default_suppressions(void);
__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void)
{
    return "race:send_gathered\nrace:receive\nrace:crc32c\nrace:copy_by_call\nrace:read_mapped\nrace:uncut_store\n"
           "race:flow_spread\n";
}
#endif

struct lane {
    const char *name, *transport, *fault;
    enum mc_path path; /* of a plain region; memfd ones are taken where `memfd` is set */
    bool memfd;
};

static const struct lane lanes[] = {
    {"tcp", "tcp", NULL, MC_PATH_TCP, false},
    {"shm-memfd", "shm-memfd", NULL, MC_PATH_SHM_MEMFD, true},
    {"shm-vm", "shm-vm", NULL, MC_PATH_SHM_VM, false},
    {"fault-tcp", "tcp", "seed=11,delay_ms=3,delay=0.1,cut=0.02,corrupt=0.02", MC_PATH_TCP, false},
};
static const struct lane *lane;

struct pair {
    struct mc_te *here, *there;
    struct mc_peer *peer;
    char dir[SCRATCH_PATH];
};

static struct pair pair;

static uint8_t *memory(struct mc_te *te, size_t len, struct mc_region_key *key)
{
    void *addr;

    if (lane->memfd) {
        assert_int_equal(mc_te_alloc(te, len, MC_REGION_READ | MC_REGION_WRITE, &addr, key), MC_OK);
        return addr;
    }
    addr = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(addr != MAP_FAILED);
    assert_int_equal(mc_te_register(te, addr, len, MC_REGION_READ | MC_REGION_WRITE, key), MC_OK);
    return addr;
}

static void memory_free(struct mc_te *te, uint8_t *addr, size_t len, const struct mc_region_key *key)
{
    if (lane->memfd) {
        mc_te_free(te, addr);
        return;
    }
    assert_int_equal(mc_te_unregister(te, key), MC_OK);
    munmap(addr, len);
}

static void fill(uint8_t *at, size_t len, uint64_t seed)
{
    struct rng rng;

    rng_seed(&rng, seed);
    rng_bytes(&rng, at, len);
}

static int setup(void **state)
{
    struct mc_te_opts opts = {
        .size = sizeof(opts), .transport = lane->transport, .fault = lane->fault, .run_dir = pair.dir};

    scratch_dir(pair.dir);
    assert_int_equal(mc_te_create(&opts, &pair.there), MC_OK);
    assert_int_equal(mc_te_create(&opts, &pair.here), MC_OK);
    assert_int_equal(mc_peer_open(pair.here, mc_te_address(pair.there), NULL, &pair.peer), MC_OK);
    return 0;
}

static int teardown(void **state)
{
    mc_peer_close(pair.peer);
    mc_te_destroy(pair.here);
    mc_te_destroy(pair.there);
    assert_int_equal(rmdir(pair.dir), 0);
    return 0;
}

static struct mc_op op_of(
    enum mc_opcode opcode, void *local, uint64_t len, const struct mc_region_key *key, uint64_t offset)
{
    return (struct mc_op){.opcode = opcode, .local = local, .len = len, .region = *key, .offset = offset};
}

static enum mc_status one(
    enum mc_opcode opcode, void *local, uint64_t len, const struct mc_region_key *key, uint64_t offset)
{
    struct mc_op op = op_of(opcode, local, len, key, offset);

    return mc_transfer_sync(pair.peer, &op, 1, 10000);
}

static void sizes(void **state)
{
    static const size_t lens[] = {0, 1, 7, 64, 4095, 4096, 65535, 65537, 262144, 262145, MIB, MIB + 1, 5 * MIB + 13};
    size_t max = 6 * MIB;
    struct mc_region_key there_key, here_key;
    uint8_t *there = memory(pair.there, max, &there_key), *here = memory(pair.here, max, &here_key);

    for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        size_t len = lens[i], off = i * 31;

        fill(there, max, i);
        memset(here, 0x5a, max);
        assert_int_equal(one(MC_READ, here + 3, len, &there_key, off), MC_OK);
        assert_memory_equal(here + 3, there + off, len);
        assert_int_equal(here[2], 0x5a);
        assert_int_equal(here[3 + len], 0x5a);
        fill(here, max, i + 100);
        memset(there, 0xa5, max);
        assert_int_equal(one(MC_WRITE, here + 5, len, &there_key, off), MC_OK);
        assert_memory_equal(there + off, here + 5, len);
        assert_int_equal(there[off + len], 0xa5);
    }
    memory_free(pair.there, there, max, &there_key);
    memory_free(pair.here, here, max, &here_key);
}

/* Many ops of random places and sizes in one batch, some adjacent, some with checksums. */
static void batches(void **state)
{
    enum { OPS = 3000 };
    size_t max = 8 * MIB;
    struct mc_region_key there_key, here_key;
    uint8_t *there = memory(pair.there, max, &there_key), *here = memory(pair.here, max, &here_key);
    struct mc_op *ops = calloc(OPS, sizeof(*ops));
    uint32_t *crcs = calloc(OPS, sizeof(*crcs));
    struct rng rng;
    size_t at = 0;

    rng_seed(&rng, 5);
    fill(there, max, 1);
    for (int i = 0; i < OPS; i++) {
        size_t len = rng_below(&rng, 5000) + 1;

        if (i == 77)
            len = 2 * MIB;
        at += rng_chance(&rng, 0.5) ? 0 : rng_below(&rng, 100);
        if (at + len > max)
            at = 0;
        ops[i] = op_of(MC_READ, here + at, len, &there_key, at);
        if (i % 3 == 0)
            ops[i].crc32c = &crcs[i];
        at += len;
        if (at > 7 * MIB)
            at = 0;
    }
    assert_int_equal(mc_transfer_sync(pair.peer, ops, OPS, 20000), MC_OK);
    for (int i = 0; i < OPS; i++) {
        assert_int_equal(ops[i].status, MC_OK);
        assert_memory_equal(ops[i].local, there + ops[i].offset, ops[i].len);
        if (ops[i].crc32c)
            assert_int_equal(crcs[i], crc32c(0, there + ops[i].offset, ops[i].len));
    }
    fill(here, max, 2);
    for (int i = 0; i < OPS; i++) {
        ops[i].opcode = MC_WRITE;
        ops[i].crc32c = NULL;
    }
    assert_int_equal(mc_transfer_sync(pair.peer, ops, OPS, 20000), MC_OK);
    for (int i = 0; i < OPS; i++)
        assert_memory_equal(ops[i].local, there + ops[i].offset, ops[i].len);
    free(ops);
    free(crcs);
    memory_free(pair.there, there, max, &there_key);
    memory_free(pair.here, here, max, &here_key);
}

static void refusals(void **state)
{
    struct mc_region_key key, readonly, broken;
    uint8_t *there = memory(pair.there, MIB, &key), local[100];
    struct mc_op op;

    assert_int_equal(mc_te_register(pair.there, there, 1000, MC_REGION_READ, &readonly), MC_OK);
    assert_int_equal(one(MC_READ, local, 100, &readonly, 900), MC_OK);
    assert_int_equal(one(MC_READ, local, 100, &readonly, 901), MC_EINVAL);
    assert_int_equal(one(MC_READ, local, 100, &readonly, UINT64_MAX - 10), MC_EINVAL);
    assert_int_equal(one(MC_WRITE, local, 100, &readonly, 0), MC_EPERM);
    broken = readonly;
    broken.bytes[33] ^= 1;
    assert_int_equal(one(MC_READ, local, 100, &broken, 0), MC_EINVAL);
    assert_int_equal(mc_te_unregister(pair.there, &readonly), MC_OK);
    assert_int_equal(mc_te_unregister(pair.there, &readonly), MC_ENOENT);
    assert_int_equal(one(MC_READ, local, 100, &readonly, 0), MC_ENOENT);
    op = op_of(MC_READ, local, 10, &key, 0);
    assert_int_equal(mc_transfer_sync(pair.peer, &op, 0, 100), MC_EINVAL);
    assert_int_equal(mc_transfer_sync(pair.peer, &op, 1, MC_TE_DEADLINE_MAX + 1), MC_EINVAL);
    assert_int_equal(mc_te_register(pair.there, there, 0, MC_REGION_READ, &broken), MC_EINVAL);
    assert_int_equal(mc_te_register(pair.there, there, 10, 8, &broken), MC_EINVAL);
    memory_free(pair.there, there, MIB, &key);
}

struct seen {
    _Atomic int calls;
    enum mc_status status;
};

static void on_done(struct mc_batch *batch, enum mc_status status, void *arg)
{
    struct seen *seen = arg;

    seen->status = status;
    assert_int_equal(mc_batch_poll(batch), status);
    atomic_fetch_add(&seen->calls, 1);
}

static void done_frees(struct mc_batch *batch, enum mc_status status, void *arg)
{
    on_done(batch, status, arg);
    mc_batch_free(batch);
}

struct closing {
    struct mc_peer *peer;
    struct seen seen;
};

static void done_closes(struct mc_batch *batch, enum mc_status status, void *arg)
{
    struct closing *closing = arg;

    mc_peer_close(closing->peer); /* the other batches of this peer complete in here */
    mc_batch_free(batch);
    atomic_fetch_add(&closing->seen.calls, 1);
}

static void close_in_callback(void **state)
{
    enum { LEN = 32 * MIB };
    struct mc_region_key key, here_key;
    uint8_t *there = memory(pair.there, LEN, &key), *here = memory(pair.here, LEN, &here_key);
    struct mc_op large = op_of(MC_READ, here, LEN, &key, 0), wrong = op_of(MC_READ, here, 64, &key, LEN);
    uint64_t until = deadline_after_ms(now_ns(), 5000);
    struct mc_batch *other, *batch;
    struct closing closing = {0};
    struct seen seen = {0};

    assert_int_equal(mc_peer_open(pair.here, mc_te_address(pair.there), NULL, &closing.peer), MC_OK);
    assert_int_equal(mc_transfer_submit(closing.peer, &large, 1, 5000, on_done, &seen, &other), MC_OK);
    assert_int_equal(mc_transfer_submit(closing.peer, &wrong, 1, 5000, done_closes, &closing, &batch), MC_OK);
    assert_in_range(-mc_batch_wait(other, UINT32_MAX), 0, -MC_ECLOSED); /* done already, or closed */
    while (atomic_load(&closing.seen.calls) == 0 && now_ns() < until)
        usleep(1000);
    assert_int_equal(atomic_load(&closing.seen.calls), 1);
    assert_int_equal(atomic_load(&seen.calls), 1);
    mc_batch_free(other);
    memory_free(pair.there, there, LEN, &key);
    memory_free(pair.here, here, LEN, &here_key);
}

static void callbacks(void **state)
{
    struct mc_region_key key, here_key;
    uint8_t *there = memory(pair.there, 4 * MIB, &key), *here = memory(pair.here, 4 * MIB, &here_key);
    struct seen seen = {0}, freed = {0};
    struct mc_op a = op_of(MC_READ, here, 2 * MIB, &key, 0), b = op_of(MC_READ, here + 2 * MIB, 64, &key, 9);
    struct mc_batch *batch, *other;
    uint64_t until = deadline_after_ms(now_ns(), 5000);

    assert_int_equal(mc_transfer_submit(pair.peer, &a, 1, 5000, on_done, &seen, &batch), MC_OK);
    assert_int_equal(mc_transfer_submit(pair.peer, &b, 1, 5000, done_frees, &freed, &other), MC_OK);
    assert_int_equal(mc_batch_wait(batch, UINT32_MAX), MC_OK);
    assert_int_equal(atomic_load(&seen.calls), 1);
    while (atomic_load(&freed.calls) == 0 && now_ns() < until)
        usleep(1000);
    assert_int_equal(atomic_load(&freed.calls), 1);
    mc_batch_free(batch);
    assert_int_equal(atomic_load(&seen.calls), 1);
    memory_free(pair.there, there, 4 * MIB, &key);
    memory_free(pair.here, here, 4 * MIB, &here_key);
}

/* Instrumented code on a busy machine is late by itself; there the bound says only that nobody waits for the deadline. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define CANCEL_MS 1000
#else
#define CANCEL_MS 50
#endif

static void cancels(void **state)
{
    enum { LEN = 64 * MIB };
    struct mc_region_key key, here_key;
    uint8_t *there = memory(pair.there, LEN, &key), *here = memory(pair.here, LEN, &here_key);

    for (int i = 0; i < 8; i++) {
        struct mc_op op = op_of(i & 1 ? MC_WRITE : MC_READ, here, LEN, &key, 0);
        struct mc_batch *batch;
        struct seen seen = {0};
        struct stopwatch watch;

        assert_int_equal(mc_transfer_submit(pair.peer, &op, 1, 5000, on_done, &seen, &batch), MC_OK);
        usleep((useconds_t)i * 300);
        watch = stopwatch_start(0);
        mc_batch_cancel(batch);
        assert_in_range(stopwatch_ms(&watch, NULL), 0, CANCEL_MS);
        assert_int_equal(atomic_load(&seen.calls), 1);
        assert_true(mc_batch_poll(batch) == MC_ECANCELED || mc_batch_poll(batch) == MC_OK);
        mc_batch_free(batch);
    }
    assert_int_equal(one(MC_READ, here, 100, &key, 0), MC_OK);
    memory_free(pair.there, there, LEN, &key);
    memory_free(pair.here, here, LEN, &here_key);
}

static void paths_and_stats(void **state)
{
    struct mc_region_key key, here_key;
    uint8_t *there = memory(pair.there, MIB, &key), *here = memory(pair.here, MIB, &here_key);
    struct mc_peer_stats before, after;

    assert_int_equal(mc_peer_path(pair.peer, &key), lane->path);
    mc_peer_stats(pair.peer, &before);
    assert_int_equal(one(MC_READ, here, 1000, &key, 0), MC_OK);
    assert_int_equal(one(MC_WRITE, here, 500, &key, 0), MC_OK);
    mc_peer_stats(pair.peer, &after);
    assert_int_equal(after.read_bytes[lane->path] - before.read_bytes[lane->path], 1000);
    assert_int_equal(after.write_bytes[lane->path] - before.write_bytes[lane->path], 500);
    assert_int_equal(after.batches - before.batches, 2);
    assert_true(after.links >= 1);
    memory_free(pair.there, there, MIB, &key);
    memory_free(pair.here, here, MIB, &here_key);
}

/* Threads register, use and unregister overlapping ranges of one allocation. */
static void *churn(void *arg)
{
    static uint8_t *base;
    uint64_t seed = (uintptr_t)arg;
    struct rng rng;
    uint8_t local[4096];

    if (!base)
        base = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    rng_seed(&rng, seed);
    for (int i = 0; i < 200; i++) {
        size_t off = rng_below(&rng, MIB / 2);
        struct mc_region_key key;

        assert_int_equal(
            mc_te_register(pair.there, base + off, MIB / 2, MC_REGION_READ | MC_REGION_WRITE, &key), MC_OK);
        assert_int_equal(one(i & 1 ? MC_READ : MC_WRITE, local, 1 + rng_below(&rng, sizeof(local)), &key, 0), MC_OK);
        assert_int_equal(mc_te_unregister(pair.there, &key), MC_OK);
        assert_int_equal(one(MC_READ, local, 10, &key, 0), MC_ENOENT);
    }
    return NULL;
}

static void many_threads(void **state)
{
    pthread_t threads[4];

    if (lane->memfd) {
        print_message("memfd regions are allocated, not registered: nothing to churn\n");
        return;
    }
    churn((void *)99);
    for (uintptr_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, churn, (void *)i), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes),
        cmocka_unit_test(batches),
        cmocka_unit_test(refusals),
        cmocka_unit_test(callbacks),
        cmocka_unit_test(close_in_callback),
        cmocka_unit_test(cancels),
        cmocka_unit_test(paths_and_stats),
        cmocka_unit_test(many_threads),
    };
    int failed = 0;

    for (size_t i = 0; i < sizeof(lanes) / sizeof(lanes[0]); i++) {
        if (argc > 1 && strcmp(argv[1], lanes[i].name) != 0)
            continue;
        lane = &lanes[i];
        print_message("---- %s ----\n", lane->name);
        failed += cmocka_run_group_tests_name(lane->name, tests, setup, teardown);
    }
    return failed;
}
