/* life_test.c - goal: a client that many threads use, close and set up again stays whole: no call hangs, no memory is touched that
 * was given back, results are right or say why not. Method: a master in this process, clients with segments, threads that do
 * everything at once; made for the sanitizers. */
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
#include "base/log.h"
#include "compat/store/client_impl.h"
#include "store/client/shell.h"
#include "store/index/master.h"

enum { THREADS = 6, ROUNDS = 60, SIZE = 100000 };

static struct store_master *master;

static struct compat_setup setup_of(uint64_t segment)
{
    return (struct compat_setup){.local_hostname = "localhost",
        .metadata_server = "P2PHANDSHAKE",
        .global_segment_size = segment,
        .local_buffer_size = 1 << 20,
        .protocol = "tcp",
        .master = store_master_address(master)};
}

static struct compat_client *client_new(uint64_t segment)
{
    struct compat_setup setup = setup_of(segment);
    struct compat_client *client = compat_client_create();

    assert_non_null(client);
    assert_int_equal(compat_client_setup(client, &setup), COMPAT_OK);
    return client;
}

struct worker {
    struct compat_client *client;
    pthread_t thread;
    unsigned number;
    _Atomic bool wrong;
    bool may_fail; /* somebody closes meanwhile */
};

static void worker_round(struct worker *w, unsigned round, uint8_t *from, uint8_t *into)
{
    char name[32];
    struct compat_key key = {name, (size_t)snprintf(name, sizeof(name), "%u/%u", w->number, round % 7)};
    size_t size = 1 + (w->number * 7919 + round * 104729) % SIZE;
    struct mc_span source = {from, size}, target = {into, SIZE};
    struct compat_put put = {.key = key, .spans = &source, .nspans = 1};
    struct compat_get get = {.key = key, .spans = &target, .nspans = 1};
    int64_t found;
    bool good;

    memset(from, (int)(w->number + round), size);
    compat_register(w->client, into, SIZE);
    good = compat_put(w->client, &put, 1, NULL, COMPAT_UPSERT) == COMPAT_OK;
    compat_exists(w->client, &key, 1, &found);
    good = good && compat_get(w->client, &get, 1) == COMPAT_OK && get.result == (int64_t)size &&
           found == (int64_t)size && memcmp(from, into, size) == 0;
    compat_unregister(w->client, into);
    memset(into, 0, SIZE); /* ours again: nobody else writes here now */
    if (!good && !w->may_fail)
        w->wrong = true;
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;

    for (unsigned round = 0; round < ROUNDS; round++) {
        uint8_t *from = malloc(SIZE), *into = malloc(SIZE); /* new ones: the sanitizer sees late writes */

        worker_round(w, round, from, into);
        free(from);
        free(into);
    }
    return NULL;
}

static void workers_start(struct worker *workers, struct compat_client *client, bool may_fail)
{
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.client = client, .number = i, .may_fail = may_fail};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]), 0);
    }
}

static void workers_join(struct worker *workers)
{
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        assert_false(workers[i].wrong);
    }
}

static void threads_share_a_client(void **state)
{
    struct compat_client *client = client_new(64 << 20);
    struct worker workers[THREADS];

    workers_start(workers, client, false);
    workers_join(workers);
    compat_client_destroy(client);
}

static void closed_and_set_up_while_used(void **state)
{
    struct compat_client *client = client_new(32 << 20);
    struct compat_setup setup = setup_of(32 << 20);
    struct worker workers[THREADS];

    workers_start(workers, client, true);
    for (int i = 0; i < 4; i++) {
        usleep(5000); /* let them get inside; any moment will do */
        compat_client_close(client);
        assert_int_equal(compat_client_health(client), 1);
        assert_int_equal(compat_client_setup(client, &setup), COMPAT_OK);
    }
    workers_join(workers);
    compat_client_destroy(client);
}

static void *setup_main(void *arg)
{
    struct compat_setup setup = setup_of(0);

    return (void *)(intptr_t)compat_client_setup(arg, &setup);
}

static void set_up_and_closed_by_many(void **state)
{
    struct compat_client *client = compat_client_create();
    pthread_t threads[THREADS];

    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, setup_main, client), 0);
    for (int i = 0; i < 10; i++)
        compat_client_close(client);
    for (unsigned i = 0; i < THREADS; i++) {
        void *result;

        pthread_join(threads[i], &result);
        assert_null(result);
    }
    compat_client_close(client);
    assert_int_equal(compat_client_health(client), 1);
    compat_client_destroy(client);
}

/* One session of a key; its parts from several threads; what is left open on close is dropped. */
static void sessions_end_with_the_client(void **state)
{
    static const char text[] = "0123456789";
    struct compat_client *client = client_new(16 << 20), *other = client_new(0);
    struct compat_key key = {"session", 7}, left = {"left open", 9};
    struct mc_range first = {0, 5, (void *)(uintptr_t)text}, second = {5, 5, (void *)(uintptr_t)(text + 5)};
    int64_t found;

    assert_int_equal(compat_session_begin(client, &key, 10, NULL), COMPAT_OK);
    assert_int_equal(compat_session_begin(client, &key, 10, NULL), COMPAT_INVALID_PARAMS);
    assert_int_equal(compat_session_begin(client, &left, 10, NULL), COMPAT_OK);
    assert_int_equal(compat_session_write(client, &key, &first, 1), COMPAT_OK);
    assert_int_equal(compat_session_write(client, &key, &second, 1), COMPAT_OK);
    compat_exists(other, &key, 1, &found);
    assert_int_equal(found, COMPAT_NOT_FOUND);
    assert_int_equal(compat_session_end(client, &key, true), COMPAT_OK);
    compat_exists(other, &key, 1, &found);
    assert_int_equal(found, 10);
    assert_int_equal(compat_session_begin(client, &key, 10, NULL), COMPAT_EXISTS);
    assert_int_equal(compat_session_write(client, &left, &first, 1), COMPAT_OK);
    compat_client_close(client);
    assert_int_equal(compat_session_end(client, &left, true), COMPAT_INVALID_PARAMS);
    compat_client_destroy(client);
    compat_client_destroy(other);
}

static int64_t read_key(struct compat_client *client, const char *name, char *into, size_t size)
{
    struct mc_span span = {into, size};
    struct compat_get get = {.key = {name, strlen(name)}, .spans = &span, .nspans = 1};

    compat_get(client, &get, 1);
    return get.result;
}

/* More than one memfd: the client finds each of them, of its own node and of another process'. Only what is touched is committed. */
static void segment_of_several_files(void **state)
{
    struct compat_client *owner = client_new((5ull << 30) / 2), *reader = client_new(0);
    struct mc_span span = {(void *)(uintptr_t) "value", 5};
    struct compat_put put = {.key = {"in one of three", 15}, .spans = &span, .nspans = 1};
    char into[8];

    assert_int_equal(compat_put(owner, &put, 1, NULL, 0), COMPAT_OK);
    assert_int_equal(read_key(owner, "in one of three", into, sizeof(into)), 5);
    assert_int_equal(read_key(reader, "in one of three", into, sizeof(into)), 5);
    assert_memory_equal(into, "value", 5);
    compat_client_destroy(owner);
    compat_client_destroy(reader);
}

static void put_text(struct compat_client *client, const char *name, const char *text, unsigned flags)
{
    struct compat_config own = {.replicas = 1, .same_node = true};
    struct mc_span span = {(void *)(uintptr_t)text, strlen(text)};
    struct compat_put put = {.key = {name, strlen(name)}, .spans = &span, .nspans = 1};

    assert_int_equal(compat_put(client, &put, 1, &own, flags), COMPAT_OK);
}

static uint64_t read_by_callers(const struct compat_client *client)
{
    return atomic_load(&client->store->hot.gets);
}

/* What lies in the caller's own segment is read without asking anybody; it is promised all the same, and an upsert elsewhere is seen by the
 * first get after it was acknowledged. */
static void own_segment_is_read_in_place(void **state)
{
    struct compat_client *owner = client_new(16 << 20), *other = client_new(16 << 20);
    struct compat_key key = {"mine", 4};
    char into[16], name[COMPAT_HOST_MAX];
    uint64_t read;
    int removed;

    compat_client_hostname(other, name);
    while (!compat_segment_there(owner, name))
        usleep(1000);
    put_text(owner, "mine", "first", 0);
    read = read_by_callers(owner);
    for (int i = 0; i < 1000 && read_by_callers(owner) == read; i++) { /* from the first beat that was answered on */
        assert_int_equal(read_key(owner, "mine", into, sizeof(into)), 5);
        usleep(1000);
    }
    assert_true(read_by_callers(owner) > read);
    assert_memory_equal(into, "first", 5);
    assert_int_equal(
        read_key(owner, "mine", into, 2), COMPAT_INVALID_PARAMS); /* too small, and no reason to look elsewhere */
    compat_remove(owner, &key, 1, NULL, false, &removed);
    assert_int_equal(removed, COMPAT_HAS_LEASE);
    for (int i = 0; i < 100; i++) {
        char text[16];

        snprintf(text, sizeof(text), "value %d", i);
        put_text(i % 2 ? owner : other, "mine", text, COMPAT_UPSERT);
        assert_int_equal(read_key(owner, "mine", into, sizeof(into)), strlen(text));
        assert_memory_equal(into, text, strlen(text));
    }
    compat_client_destroy(owner);
    compat_client_destroy(other);
}

/* Turn over one bit wherever `text` lies in this client's segment. */
static unsigned flip(struct compat_client *client, const char *text, size_t len)
{
    unsigned flipped = 0;
    uint64_t size;
    void *base;

    for (uint32_t i = 0; store_node_segment(client->node, i, &base, &size); i++) {
        uint8_t *at = base, *end = at + size;

        while ((at = memmem(at, (size_t)(end - at), text, len)) != NULL) {
            at[len / 2] ^= 1;
            flipped++;
        }
    }
    return flipped;
}

/* A bit that turns over in the owner's memory: with a second copy the right bytes, without one a miss; never the wrong ones. */
static void flipped_bits_are_never_read(void **state)
{
    static const char one[] = "the only copy of these bytes lies here", two[] = "these bytes lie in two places at once";
    struct compat_client *owner = client_new(16 << 20), *second = client_new(16 << 20), *reader = client_new(0);
    struct compat_config both = {.replicas = 2}, own = {.replicas = 1, .same_node = true};
    struct mc_span span_one = {(void *)(uintptr_t)one, sizeof(one)}, span_two = {(void *)(uintptr_t)two, sizeof(two)};
    struct compat_put put_one = {.key = {"one", 3}, .spans = &span_one, .nspans = 1};
    struct compat_put put_two = {.key = {"two", 3}, .spans = &span_two, .nspans = 1};
    struct mc_store_stats stats;
    char into[64], name[COMPAT_HOST_MAX];

    compat_client_hostname(second, name);
    while (!compat_segment_there(owner, name)) /* the master tells the first client of the second's segment */
        usleep(1000);
    assert_int_equal(compat_put(owner, &put_one, 1, &own, 0), COMPAT_OK);
    assert_int_equal(compat_put(owner, &put_two, 1, &both, 0), COMPAT_OK);
    assert_int_equal(read_key(reader, "one", into, sizeof(into)), sizeof(one));
    assert_int_equal(flip(owner, one, sizeof(one)), 1);
    assert_int_equal(flip(owner, two, sizeof(two)), 1);
    assert_int_equal(read_key(reader, "one", into, sizeof(into)), COMPAT_CHECKSUM);
    mc_store_stats(reader->store, &stats);
    assert_true(stats.checksum_errors > 0 && stats.misses[MC_MISS_CORRUPT] == 1);
    for (int i = 0; i < 10; i++) { /* whichever copy is tried first */
        memset(into, 0, sizeof(into));
        assert_int_equal(read_key(reader, "two", into, sizeof(into)), sizeof(two));
        assert_memory_equal(into, two, sizeof(two));
        assert_int_equal(read_key(owner, "two", into, sizeof(into)), sizeof(two));
        assert_memory_equal(into, two, sizeof(two));
    }
    compat_client_destroy(owner);
    compat_client_destroy(second);
    compat_client_destroy(reader);
}

static int start(void **state)
{
    struct store_master_opts opts = {.listen = "127.0.0.1:0", .admin = "none", .state_dir = "none"};

    log_set_level(LOG_LEVEL_ERROR);
    return store_master_create(&opts, &master) == MC_OK && store_master_start(master) == MC_OK ? 0 : -1;
}

static int stop(void **state)
{
    store_master_destroy(master);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_share_a_client),
        cmocka_unit_test(closed_and_set_up_while_used),
        cmocka_unit_test(set_up_and_closed_by_many),
        cmocka_unit_test(sessions_end_with_the_client),
        cmocka_unit_test(segment_of_several_files),
        cmocka_unit_test(own_segment_is_read_in_place),
        cmocka_unit_test(flipped_bits_are_never_read),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
