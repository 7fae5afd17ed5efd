/* engine_test.c - two engines in one process: raw addresses, sub-ranges, registrations that change, numbers, notifications.
 *
 * Goal: every promise of ce.h that needs no second process. Run once over tcp (argument "tcp") and once over whatever the
 * Transfer Engine takes on one host ("auto"). What needs processes that die is in tests/compat. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"
#include "compat/engine/ce.h"
#include "compat/engine/impl.h"

/* The two engines of this process hand memory to each other through sockets, which the race detector does not see as an order. */
#if defined(__SANITIZE_THREAD__)
const char *__tsan_default_suppressions(void);
__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void)
{
    return "race:send_gathered\nrace:receive\nrace:crc32c\nrace:copy_by_call\nrace:read_mapped\nrace:uncut_store\n"
           "race:flow_spread\nrace:conn_write\n";
}
#endif

#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

static struct ce_engine *near, *far;
static uint8_t *memory; /* of far, registered */
#define MEMORY (4u << 20)

static struct ce_engine *create(const char *host)
{
    struct ce_opts opts = {.host = host, .metadata = "P2PHANDSHAKE", .protocol = "tcp", .device = ""};
    struct ce_engine *engine = NULL;

    assert_int_equal(ce_create(&opts, &engine), MC_OK);
    return engine;
}

static int setup(void **state)
{
    near = create("127.0.0.1");
    far = create("localhost");
    memory = malloc(MEMORY);
    memset(memory, 0, MEMORY);
    assert_int_equal(ce_register(far, memory, MEMORY), MC_OK);
    return 0;
}

static int teardown(void **state)
{
    ce_destroy(near);
    ce_destroy(far);
    free(memory);
    return 0;
}

static struct ce_op op_of(enum mc_opcode opcode, void *local, const void *remote, uint64_t len)
{
    return (struct ce_op){.opcode = opcode, .local = local, .remote = (uintptr_t)remote, .len = len};
}

static enum mc_status one(enum mc_opcode opcode, void *local, const void *remote, uint64_t len)
{
    struct ce_op op = op_of(opcode, local, remote, len);

    return ce_transfer(near, ce_session(far), &op, 1, NULL);
}

static void fill(uint8_t *p, size_t len, uint64_t seed)
{
    struct rng rng;

    rng_seed(&rng, seed);
    rng_bytes(&rng, p, len);
}

/* Sub-ranges, odd addresses, both directions; the neighbours stay as they were. */
static void sub_ranges(void **state)
{
    static uint8_t data[300001], back[300001];

    for (size_t len = 1; len < sizeof(data); len = len * 3 + 1) {
        size_t at = 1 + len % 4099;

        fill(data, len, len);
        memset(memory, 0xee, MEMORY);
        assert_int_equal(one(MC_WRITE, data, memory + at, len), MC_OK);
        assert_memory_equal(memory + at, data, len);
        assert_int_equal(memory[at - 1], 0xee);
        assert_int_equal(memory[at + len], 0xee);
        assert_int_equal(one(MC_READ, back, memory + at, len), MC_OK);
        assert_memory_equal(back, data, len);
    }
    assert_int_equal(one(MC_WRITE, data, memory + MEMORY - 7, 7), MC_OK);
    assert_int_equal(one(MC_WRITE, data, memory + MEMORY - 7, 8), MC_ENOENT);
    assert_int_equal(one(MC_READ, data, memory - 1, 2), MC_ENOENT);
    assert_int_equal(one(MC_READ, data, memory, 0), MC_OK);
}

/* Many small ranges of one call: some adjacent, some not, more than one batch holds. */
static void many_ranges(void **state)
{
    enum { N = 2 * BUILD_OPS + 77, LEN = 48, STEP = 64 };
    uint8_t *local = malloc((size_t)N * STEP), *expected = calloc(1, MEMORY);
    struct ce_op *ops = calloc(N, sizeof(*ops));

    assert_true((size_t)N * STEP <= MEMORY);
    fill(local, (size_t)N * STEP, 5);
    for (size_t i = 0; i < N; i++) {
        size_t len = i % 5 == 0 ? STEP : LEN; /* every fifth reaches the next */

        ops[i] = op_of(MC_WRITE, local + i * STEP, memory + i * STEP, len);
        memcpy(expected + i * STEP, local + i * STEP, len);
    }
    assert_int_equal(ce_transfer(near, ce_session(far), ops, N, NULL), MC_OK);
    assert_memory_equal(memory, expected, MEMORY);
    free(local);
    free(expected);
    free(ops);
}

/* Overlapping registrations: the address stays reachable until the last that covers it is gone. */
static void overlapping(void **state)
{
    uint8_t *more = calloc(1, 65536), byte = 7;

    assert_int_equal(ce_register(far, more, 4096), MC_OK);
    assert_int_equal(ce_register(far, more, 65536), MC_OK);
    assert_int_equal(ce_register(far, more, 4096), MC_OK);
    assert_int_equal(ce_register(far, more + 100, 1000), MC_OK);
    assert_int_equal(one(MC_WRITE, &byte, more + 60000, 1), MC_OK);
    assert_int_equal(ce_unregister(far, more), MC_OK);
    assert_int_equal(ce_unregister(far, more), MC_OK);
    assert_int_equal(one(MC_WRITE, &byte, more + 50000, 1), MC_OK);
    assert_int_equal(ce_unregister(far, more), MC_OK);
    assert_int_equal(one(MC_WRITE, &byte, more + 200, 1), MC_OK);
    assert_int_equal(one(MC_WRITE, &byte, more + 50000, 1), MC_ENOENT);
    assert_int_equal(ce_unregister(far, more), MC_ENOENT);
    assert_int_equal(ce_unregister(far, more + 100), MC_OK);
    assert_int_equal(one(MC_WRITE, &byte, more + 200, 1), MC_ENOENT);
    assert_int_equal(more[50000], 7);
    free(more);
}

static void all_or_none(void **state)
{
    uint8_t block[256];
    void *addrs[] = {block, block + 64, block + 128};
    uint64_t lens[] = {64, 0, 64}, good[] = {64, 64, 64};
    uint8_t byte = 1;

    assert_int_equal(ce_register_all(far, addrs, lens, 3), MC_EINVAL);
    assert_int_equal(one(MC_WRITE, &byte, block, 1), MC_ENOENT);
    assert_int_equal(ce_register_all(far, addrs, good, 3), MC_OK);
    assert_int_equal(one(MC_WRITE, &byte, block, 1), MC_OK);
    assert_int_equal(ce_unregister_all(far, addrs, 3), MC_OK);
    assert_int_equal(ce_unregister_all(far, addrs, 3), MC_ENOENT);
}

/* ---- registrations change while transfers run ---- */

struct churn {
    pthread_t thread;
    atomic_bool stop;
    uint8_t *at;
    unsigned rounds;
};

static void *churn_run(void *arg)
{
    struct churn *churn = arg;

    while (!atomic_load(&churn->stop)) {
        if (ce_register(far, churn->at, 1u << 20) != MC_OK || ce_register(far, churn->at, 1u << 21) != MC_OK ||
            ce_unregister(far, churn->at) != MC_OK || ce_unregister(far, churn->at) != MC_OK)
            abort();
        churn->rounds++;
    }
    return NULL;
}

/* What covers the address changes all the time; that one region covers it always is enough for every transfer. */
static void under_churn(void **state)
{
    struct churn churn = {.at = memory};
    uint8_t data[5000], back[5000];
    uint64_t until = deadline_after_ms(now_ns(), 1000);
    unsigned count = 0;

    assert_int_equal(ce_register(far, memory, 3u << 20), MC_OK);
    assert_int_equal(pthread_create(&churn.thread, NULL, churn_run, &churn), 0);
    while (now_ns() < until || count < 50) {
        fill(data, sizeof(data), ++count);
        assert_int_equal(one(MC_WRITE, data, memory + 999 + count % 100000, sizeof(data)), MC_OK);
        assert_int_equal(one(MC_READ, back, memory + 999 + count % 100000, sizeof(data)), MC_OK);
        assert_memory_equal(back, data, sizeof(data));
    }
    atomic_store(&churn.stop, true);
    pthread_join(churn.thread, NULL);
    print_message("%u transfers while registrations changed %u times\n", 2 * count, 4 * churn.rounds);
}

struct worker {
    pthread_t thread;
    unsigned number;
    enum mc_status status;
};

/* As a caller that registers around every batch: its own buffer at the peer, its own slice of a shared one. */
static void *worker_run(void *arg)
{
    struct worker *worker = arg;
    uint8_t *mine = malloc(40000), *theirs = malloc(40000), *slice = memory + worker->number * 100000u;

    for (unsigned round = 0; round < 60 && worker->status == MC_OK; round++) {
        struct ce_op ops[2];

        fill(mine, 40000, worker->number * 1000 + round);
        worker->status = ce_register(far, theirs, 40000);
        ops[0] = op_of(MC_WRITE, mine, theirs, 40000);
        ops[1] = op_of(MC_WRITE, mine + 1, slice + 3, 39999);
        if (worker->status == MC_OK)
            worker->status = ce_transfer(near, ce_session(far), ops, 2, NULL);
        if (worker->status == MC_OK && (memcmp(mine, theirs, 40000) != 0 || memcmp(mine + 1, slice + 3, 39999) != 0))
            worker->status = MC_ECORRUPT;
        if (ce_unregister(far, theirs) != MC_OK)
            worker->status = MC_ENOENT;
    }
    free(mine);
    free(theirs);
    return NULL;
}

static void ten_threads(void **state)
{
    struct worker workers[10] = {0};

    for (unsigned i = 0; i < 10; i++) {
        workers[i].number = i;
        assert_int_equal(pthread_create(&workers[i].thread, NULL, worker_run, &workers[i]), 0);
    }
    for (unsigned i = 0; i < 10; i++) {
        pthread_join(workers[i].thread, NULL);
        assert_int_equal(workers[i].status, MC_OK);
    }
}

/* ---- the rest ---- */

static void with_itself(void **state)
{
    uint8_t data[100], back[100];
    struct ce_op ops[2];

    fill(data, sizeof(data), 1);
    ops[0] = op_of(MC_WRITE, data, memory + 5, 100);
    ops[1] = op_of(MC_READ, back, memory + 5, 100);
    assert_int_equal(ce_transfer(far, ce_session(far), ops, 2, NULL), MC_OK);
    assert_memory_equal(back, data, 100);
    ops[0].remote = (uintptr_t)memory + MEMORY;
    assert_int_equal(ce_transfer(far, ce_session(far), ops, 1, NULL), MC_ENOENT);
}

static void by_number(void **state)
{
    static uint8_t data[2][1 << 20];
    struct ce_op op = op_of(MC_WRITE, data[0], memory, sizeof(data[0]));
    uint64_t a, b, none;

    fill(data[0], sizeof(data[0]), 1);
    fill(data[1], sizeof(data[1]), 2);
    a = ce_ids_start(near, ce_session(far), &op, 1);
    op = op_of(MC_WRITE, data[1], memory + sizeof(data[0]), sizeof(data[1]));
    b = ce_ids_start(near, ce_session(far), &op, 1);
    assert_true(a != 0 && b != 0 && a != b);
    assert_int_equal(ce_ids_wait(near, b), MC_OK);
    while (ce_ids_check(near, a) == MC_PENDING)
        sched_yield();
    assert_int_equal(ce_ids_check(near, a), MC_OK); /* told again */
    assert_int_equal(ce_ids_wait(near, b), MC_OK);
    assert_int_equal(ce_ids_check(near, 12345), MC_ENOENT);
    assert_memory_equal(memory, data, sizeof(data));
    op.remote = (uintptr_t)memory + MEMORY;
    a = ce_ids_start(near, ce_session(far), &op, 1);
    assert_int_equal(ce_ids_wait(near, a), MC_ENOENT);
    none = ce_ids_start(near, "nobody.invalid:9", &op, 1);
    assert_int_equal(none, 0);
    none = ce_ids_start(near, "127.0.0.1:9", &op, 1);
    assert_int_equal(none, 0);
    assert_int_equal(ce_ids_start(near, "no port", &op, 1), 0);
}

static void notes(void **state)
{
    struct ce_note note = {"na\0me", "message", 5, 7}, empty = {"", "", 0, 0};
    char payload[] = "payload";
    struct ce_op op = op_of(MC_WRITE, payload, memory, 7);
    struct ce_notes got;
    char *large = calloc(1, CE_NOTE_MAX + 1);
    struct ce_note too_large = {large, "", CE_NOTE_MAX + 1, 0}, largest = {large, "m", CE_NOTE_MAX - 1, 1};

    assert_int_equal(ce_transfer(near, ce_session(far), &op, 1, &note), MC_OK);
    assert_memory_equal(memory, "payload", 7);
    assert_int_equal(ce_notify(near, ce_session(far), &empty), MC_OK);
    assert_int_equal(ce_notify(near, ce_session(far), &largest), MC_OK);
    assert_int_equal(ce_notify(near, ce_session(far), &too_large), MC_ETOOBIG);
    assert_int_equal(ce_notes_take(far, &got), MC_OK);
    assert_int_equal(got.count, 3);
    assert_int_equal(got.note[0].name_len, 5);
    assert_memory_equal(got.note[0].name, "na\0me", 5);
    assert_memory_equal(got.note[0].msg, "message", 7);
    assert_int_equal(got.note[1].msg_len, 0);
    assert_int_equal(got.note[2].name_len, CE_NOTE_MAX - 1);
    ce_notes_free(&got);
    assert_int_equal(ce_notes_take(far, &got), MC_OK);
    assert_int_equal(got.count, 0);
    ce_notes_free(&got);
    free(large);
}

/* A message that is sent again because its answer was lost comes once. */
static void same_note_twice(void **state)
{
    struct ce_wire_note note = {77, slice_str("n"), slice_str("m")};
    struct ce_notes got;

    assert_int_equal(ce_inbox_put(&far->inbox, &note), MC_OK);
    assert_int_equal(ce_inbox_put(&far->inbox, &note), MC_OK);
    assert_int_equal(ce_notes_take(far, &got), MC_OK);
    assert_int_equal(got.count, 1);
    ce_notes_free(&got);
}

static void managed(void **state)
{
    uint8_t *a = ce_managed_alloc(far, 1000), *b = ce_managed_alloc(far, 5u << 20), data[1000], byte = 9;
    uint64_t first = 0;

    assert_non_null(a);
    assert_non_null(b);
    assert_int_equal((uintptr_t)a % 4096, 0);
    assert_int_equal(ce_first_address(near, ce_session(far), &first), MC_OK);
    assert_true(first != 0);
    assert_int_equal(ce_first_address(far, ce_session(far), &first), MC_OK);
    fill(data, sizeof(data), 3);
    assert_int_equal(one(MC_WRITE, data, a, 1000), MC_OK);
    assert_memory_equal(a, data, 1000);
    assert_int_equal(one(MC_WRITE, &byte, b + (5u << 20) - 1, 1), MC_OK);
    assert_int_equal(ce_managed_free(far, a), MC_OK);
    assert_int_equal(ce_managed_free(far, a), MC_ENOENT);
    assert_int_equal(ce_managed_free(far, b), MC_OK);
    assert_null(ce_managed_alloc(far, 0));
    b = ce_managed_alloc(far, 3ull << 30); /* longer than the pool */
    assert_non_null(b);
    assert_int_equal(one(MC_WRITE, &byte, b + (3ull << 30) - 1, 1), MC_OK);
    assert_int_equal(b[(3ull << 30) - 1], 9);
    assert_int_equal(ce_managed_free(far, b), MC_OK);
}

static void probes(void **state)
{
    assert_int_equal(ce_probe(near, ce_session(far)), MC_OK);
    assert_int_equal(ce_probe(near, ce_session(near)), MC_OK);
    assert_true(ce_probe(near, "127.0.0.1:9") < 0);
    assert_true(ce_probe(near, "nobody.invalid:9") < 0);
    assert_true(ce_probe(near, "") < 0);
}

/* Nobody there: an answer well before the deadline of 30 s, because the port refuses. */
static void nobody(void **state)
{
    uint8_t byte = 0;
    struct ce_op op = op_of(MC_WRITE, &byte, memory, 1);
    uint64_t start = now_ns();

    assert_int_equal(ce_transfer(near, "127.0.0.1:9", &op, 1, NULL), MC_EPEERDOWN);
    assert_true(now_ns() - start < 15 * NS_PER_S);
}

static void bad_arguments(void **state)
{
    struct ce_opts opts = {.host = "127.0.0.1", .metadata = "P2PHANDSHAKE", .protocol = "tcp"};
    struct ce_engine *engine;
    struct ce_op op = op_of(MC_WRITE, NULL, memory, 5);

    assert_int_equal(ce_transfer(near, ce_session(far), &op, 1, NULL), MC_EINVAL);
    op = op_of((enum mc_opcode)7, memory, memory, 5);
    assert_int_equal(ce_transfer(near, ce_session(far), &op, 1, NULL), MC_EINVAL);
    op = op_of(MC_READ, memory, (void *)UINTPTR_MAX, 5);
    assert_int_equal(ce_transfer(near, ce_session(far), &op, 1, NULL), MC_EINVAL);
    opts.metadata = "redis://127.0.0.1:6379";
    assert_int_equal(ce_create(&opts, &engine), MC_ENOSUP);
    opts.metadata = "P2PHANDSHAKE";
    opts.protocol = "nvlink";
    if (!ce_env_on("MC_FORCE_TCP"))
        assert_int_equal(ce_create(&opts, &engine), MC_ENOSUP);
    opts.protocol = "tcp";
    opts.host = "0.0.0.0";
    assert_int_equal(ce_create(&opts, &engine), MC_EINVAL);
    opts.host = "192.0.2.1"; /* of nobody's machine */
    assert_int_equal(ce_create(&opts, &engine), MC_EINVAL);
    opts.host = "nobody.invalid";
    assert_int_equal(ce_create(&opts, &engine), MC_ENOENT);
}

/* A port that is taken is not taken twice; the next engine under a freed one can be found. */
static void ports(void **state)
{
    char text[64];
    struct ce_opts opts = {.host = text, .metadata = "P2PHANDSHAKE", .protocol = "tcp"};
    uint16_t port = ce_port(near);
    struct ce_engine *other;

    assert_in_range(port, 15000, 17000);
    snprintf(text, sizeof(text), "127.0.0.1:%u", port);
    assert_string_equal(ce_session(near), text);
    assert_int_equal(ce_create(&opts, &other), MC_OK);
    assert_int_not_equal(ce_port(other), port);
    port = ce_port(other);
    ce_destroy(other);
    snprintf(text, sizeof(text), "127.0.0.1:%u", port);
    assert_int_equal(ce_create(&opts, &other), MC_OK);
    assert_int_equal(ce_port(other), port);
    ce_destroy(other);
}

/* The peer's successor under the same name: what was known of the old one is not used. */
static void successor(void **state)
{
    char text[64];
    struct ce_opts opts = {.host = text, .metadata = "P2PHANDSHAKE", .protocol = "tcp"};
    uint8_t byte = 1;

    snprintf(text, sizeof(text), "%s", ce_session(far));
    for (int round = 0; round < 3; round++) {
        uint8_t *more = calloc(1, 4096);

        assert_int_equal(one(MC_WRITE, &byte, memory + round, 1), MC_OK);
        ce_destroy(far);
        assert_int_equal(ce_create(&opts, &far), MC_OK);
        assert_string_equal(ce_session(far), text);
        assert_int_equal(ce_register(far, more, 4096), MC_OK);
        assert_int_equal(one(MC_WRITE, &byte, more + 5, 1), MC_OK);
        assert_int_equal(more[5], 1);
        assert_int_equal(one(MC_WRITE, &byte, memory + 100, 1), MC_ENOENT); /* of the old one */
        assert_int_equal(ce_register(far, memory, MEMORY), MC_OK);
        assert_int_equal(ce_unregister(far, more), MC_OK);
        free(more);
    }
}

/* A child that was forked does not touch the parent's engine. */
static void forked(void **state)
{
    uint8_t byte = 1;
    int wstatus;
    pid_t pid;

    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        bool fine = one(MC_WRITE, &byte, memory, 1) == MC_ENOSUP && ce_register(near, &byte, 1) == MC_ENOSUP;

        ce_destroy(near);
        ce_destroy(far);
        _exit(fine ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &wstatus, 0), pid);
    assert_true(WIFEXITED(wstatus) && WEXITSTATUS(wstatus) == 0);
    assert_int_equal(one(MC_WRITE, &byte, memory, 1), MC_OK);
}

static void topology(void **state)
{
    char *text = ce_topology();

    assert_non_null(strstr(text, "\"cpu:0\": [[], []]"));
    free(text);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        T(sub_ranges),
        T(many_ranges),
        T(overlapping),
        T(all_or_none),
        T(under_churn),
        T(ten_threads),
        T(with_itself),
        T(by_number),
        T(notes),
        T(same_note_twice),
        T(managed),
        T(probes),
        T(nobody),
        T(bad_arguments),
        T(ports),
        T(successor),
        T(forked),
        T(topology),
    };

    if (argc > 1 && strcmp(argv[1], "tcp") == 0)
        setenv("MC_FORCE_TCP", "1", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
