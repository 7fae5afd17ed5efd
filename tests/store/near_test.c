/* near_test.c - goal: names are read from a node's memory without asking anybody while its word counts, and never so that somebody sees
 * what he may not: an old value after an upsert, a removal or a clear was acknowledged, or anything of a node whose word has lapsed.
 * Method: a master and two nodes that are processes of their own, stopped and killed; one client writes and says what was acknowledged,
 * others hammer. Who asks a stopped master is told `maybe stale` or nothing: so a sure answer has asked nobody. */
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
#include "cluster.h"

enum { MS = 5000, NAMES = 8, READERS = 2, WRITES = 4000, VALUE = 2000, ROUNDS = 20 };

static struct cluster cluster;
static struct mc_store *writer, *reader;

static struct mc_key named(const char *name)
{
    struct mc_key key;

    mc_key_named(&key, name, strlen(name));
    return key;
}

/* A client does not wait as long as the master does for an owner that stands still: it is told nothing, and asks again. */
static enum mc_status do_again(struct mc_store_op *op)
{
    uint64_t start = now_ns();

    do {
        assert_int_equal(mc_store_sync(writer, op, 1, MS), MC_OK);
        assert_true(now_ns() - start < MS * NS_PER_MS);
    } while (op->result.status == MC_EPEERDOWN && usleep(10000) == 0);
    return op->result.status;
}

/* A value says its number in every word. */
static void put_value(const char *name, enum mc_store_opcode opcode, uint64_t number, const char *node)
{
    static uint64_t words[VALUE / 8];
    struct mc_object_meta meta = {.node = node};
    struct mc_span span = {words, VALUE};
    struct mc_store_op op = {.opcode = opcode, .key = named(name), .spans = &span, .nspans = 1, .meta = &meta};

    for (int i = 0; i < VALUE / 8; i++)
        words[i] = number;
    assert_int_equal(do_again(&op), MC_OK);
}

/* UINT64_MAX: not there. */
static uint64_t value_of(struct mc_store *store, const char *name, bool *sure)
{
    uint64_t words[VALUE / 8];
    struct mc_span span = {words, VALUE};
    struct mc_store_op op = {.opcode = MC_GET, .key = named(name), .spans = &span, .nspans = 1};

    assert_int_equal(mc_store_sync(store, &op, 1, MS), MC_OK);
    if (sure)
        *sure = op.result.status == MC_OK && !op.result.maybe_stale;
    if (op.result.status != MC_OK)
        return UINT64_MAX;
    assert_int_equal(op.result.length, VALUE);
    for (int i = 1; i < VALUE / 8; i++)
        assert_true(words[i] == words[0]);
    return words[0];
}

static void no_more(const char *name, const char *what)
{
    uint64_t start = now_ns();

    for (int i = 0; now_ns() - start < 300 * NS_PER_MS || i < 10; i++)
        if (value_of(reader, name, NULL) != UINT64_MAX)
            fail_msg("%s is read after %s", name, what);
}

/* And so the reader knows where the name lies, for when he does not, and that he has promised it. */
static void master_answers(const struct mc_key *key)
{
    uint64_t start = now_ns();

    while (mc_store_exists(reader, key, MS) != MC_OK) {
        assert_true(now_ns() - start < 2 * MS * NS_PER_MS);
        usleep(10000);
    }
}

/* Nobody is asked: the master stands still. After some time it would not have been able to say so any more, and then it is asked. */
static void nobody_is_asked_while_the_word_counts(void **state)
{
    struct mc_key key = named("near");
    bool sure = false, all = false;

    put_value("near", MC_PUT, 7, NULL);
    for (int round = 0; round < ROUNDS && !all; round++) { /* a crowded machine may sleep through it */
        master_answers(&key);
        assert_int_equal(value_of(reader, "near", NULL), 7);
        cluster_kill(&cluster.master, SIGSTOP);
        all = true;
        for (int i = 0; i < 100 && all; i++) {
            assert_int_equal(value_of(reader, "near", &sure), 7);
            all = sure && mc_store_exists(reader, &key, MS) == MC_OK;
        }
        for (uint64_t start = now_ns(); sure;) {
            assert_true(now_ns() - start < MS * NS_PER_MS);
            assert_int_equal(value_of(reader, "near", &sure), 7); /* from where it was, and flagged */
        }
        cluster_kill(&cluster.master, SIGCONT);
    }
    master_answers(&key);
    assert_true(all);
}

/* What this client asks after it has read comes after the promise. */
static void reading_promises(void **state)
{
    struct mc_key key = named("promised");

    put_value("promised", MC_PUT, 1, NULL);
    assert_int_equal(mc_store_exists(reader, &key, MS), MC_OK);
    assert_int_equal(mc_store_remove(reader, &key, false, MS), MC_EPERM);
    assert_int_equal(mc_store_remove(writer, &key, false, MS), MC_EPERM);
    assert_int_equal(mc_store_remove(writer, &key, true, MS), MC_OK);
    assert_int_equal(mc_store_exists(reader, &key, MS), MC_ENOENT);
}

/* ---- hammering ---- */

struct hammer {
    pthread_t thread;
    struct mc_store *store;
    uint64_t reads, misses;
};

static _Atomic uint64_t
    acked[NAMES]; /* no older value than this may be read: value, or where it was removed the next */
static atomic_bool stop;

static void name_of(int number, char text[16])
{
    snprintf(text, 16, "hammered-%d", number);
}

static void *hammer(void *arg)
{
    struct hammer *h = arg;

    for (int i = 0; !atomic_load(&stop); i = (i + 1) % NAMES) {
        uint64_t least = atomic_load(&acked[i]);
        char name[16];

        name_of(i, name);
        uint64_t value = value_of(h->store, name, NULL);
        h->reads++;
        h->misses += value == UINT64_MAX;
        if (value < least)
            fail_msg("%s has value %llu after %llu was acknowledged", name, (unsigned long long)value,
                (unsigned long long)least);
    }
    return NULL;
}

/* Upserts move a name from node to node, removals leave nothing behind; readers of both nodes' memory never see what was before. */
static void nothing_old_is_read_after_an_acknowledgement(void **state)
{
    static const char *const nodes[] = {"node0", "node1"};
    struct hammer readers[READERS] = {{0}};
    uint64_t reads = 0, misses = 0;

    for (int i = 0; i < READERS; i++) {
        readers[i].store = i ? cluster_client(&cluster, NULL) : reader;
        assert_int_equal(pthread_create(&readers[i].thread, NULL, hammer, &readers[i]), 0);
    }
    for (uint64_t n = 1; n <= WRITES; n++) {
        int i = (int)(n % NAMES);
        char name[16];
        struct mc_key key;

        name_of(i, name);
        key = named(name);
        if (n % 5 == 0 && mc_store_remove(writer, &key, true, MS) == MC_OK)
            atomic_store(&acked[i], n);
        put_value(name, MC_UPSERT, n, nodes[n / NAMES % 2]);
        atomic_store(&acked[i], n);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < READERS; i++) {
        pthread_join(readers[i].thread, NULL);
        reads += readers[i].reads;
        misses += readers[i].misses;
    }
    mc_store_close(readers[1].store);
    print_message("%d writes beside %llu reads, %llu of them misses\n", WRITES, (unsigned long long)reads,
        (unsigned long long)misses);
    assert_true(reads > misses);
}

/* ---- nodes that do not answer ---- */

/* The master gives up on a stopped owner and acknowledges: its memory is still mapped, and whole, and says the name lives. */
static void a_stopped_owner_is_not_believed(void **state)
{
    struct mc_store_op remove = {.opcode = MC_REMOVE, .key = named("stopped"), .force = true};

    put_value("stopped", MC_PUT, 1, "node0");
    put_value("replaced", MC_PUT, 1, "node0");
    assert_int_equal(value_of(reader, "stopped", NULL), 1);
    assert_int_equal(value_of(reader, "replaced", NULL), 1);
    cluster_kill(&cluster.node[0], SIGSTOP);
    assert_int_not_equal(do_again(&remove), MC_EPERM); /* done, or done by the time it is asked again */
    no_more("stopped", "its removal, from a stopped node");
    put_value("replaced", MC_UPSERT, 2, "node1");
    assert_int_equal(value_of(reader, "replaced", NULL), 2);
    cluster_kill(&cluster.node[0], SIGCONT);
    no_more("stopped", "its removal, from a node that goes on");
    assert_int_equal(value_of(reader, "replaced", NULL), 2);
    cluster_wait_nodes(&cluster, reader, 2, 5000);
}

static void a_dead_owner_is_a_miss(void **state)
{
    uint64_t start;

    put_value("killed", MC_PUT, 1, "node0");
    assert_int_equal(value_of(reader, "killed", NULL), 1);
    cluster_kill(&cluster.node[0], SIGKILL);
    start = now_ns();
    while (value_of(reader, "killed", NULL) != UINT64_MAX)
        assert_true((double)(now_ns() - start) < 1e9 * crowd());
    no_more("killed", "its node was missed");
    put_value("killed", MC_PUT, 2, "node1");
    assert_int_equal(value_of(reader, "killed", NULL), 2);
    cluster_node_start(&cluster, 0, NULL);
    cluster_wait_nodes(&cluster, reader, 2, 5000);
    assert_int_equal(value_of(reader, "killed", NULL), 2);
}

static int start(void **state)
{
    cluster.transport = "auto";
    cluster_start(&cluster, 2);
    writer = cluster_client(&cluster, NULL);
    reader = cluster_client(&cluster, NULL);
    return 0;
}

static int end(void **state)
{
    mc_store_close(writer);
    mc_store_close(reader);
    cluster_stop(&cluster);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_is_asked_while_the_word_counts),
        cmocka_unit_test(reading_promises),
        cmocka_unit_test(nothing_old_is_read_after_an_acknowledgement),
        cmocka_unit_test(a_stopped_owner_is_not_believed),
        cmocka_unit_test(a_dead_owner_is_a_miss),
    };

    return cmocka_run_group_tests(tests, start, end);
}
