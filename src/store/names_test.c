/* names_test.c - goal: what was added is found and what was removed is not, in bounded memory; and readers beside the writer see
 * words as they were written. Method: by hand; one writer and three readers over a small directory, each word telling its own hash. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "store/names.h"

enum { CAPACITY = 1 << 20, NAMES = 4096, ROUNDS = 40, READERS = 3 };

struct fixture {
    struct names *names;
    struct names_view view;
    size_t size;
    atomic_bool stop;
    atomic_ulong wrong, found;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->size = (names_size(CAPACITY) + 63) / 64 * 64;
    f->names = aligned_alloc(64, f->size);
    memset(f->names, 0, f->size);
    names_init(f->names, f->size);
    assert_true(names_open(f->names, f->size, &f->view));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    free(f->names);
    free(f);
    return 0;
}

static bool finds(const struct fixture *f, uint64_t hash, uint32_t segment, uint64_t offset)
{
    struct names_place places[NAMES_WAYS];
    unsigned n = names_find(&f->view, hash, places);

    for (unsigned i = 0; i < n; i++)
        if (places[i].segment == segment && places[i].offset == offset)
            return true;
    return false;
}

static void added_is_found_removed_is_not(void **state)
{
    struct fixture *f = *state;
    uint64_t far = (uint64_t)UINT32_MAX * 64;

    assert_false(finds(f, 77, 3, 128));
    names_add(f->names, 77, 3, 128);
    names_add(f->names, 78, 255, far);
    names_add(f->names, 0, 0, 0); /* no word is 0 */
    assert_true(finds(f, 77, 3, 128));
    assert_true(finds(f, 78, 255, far));
    assert_true(finds(f, 0, 0, 0));
    names_remove(f->names, 77, 3, 192); /* another place: nothing happens */
    assert_true(finds(f, 77, 3, 128));
    names_remove(f->names, 77, 3, 128);
    assert_false(finds(f, 77, 3, 128));
    names_add(f->names, 79, 256, 0); /* no room in a word */
    names_add(f->names, 79, 0, far + 64);
    assert_int_equal(names_find(&f->view, 79, (struct names_place[NAMES_WAYS]){{0}}), 0);
}

/* At 4 KiB an object the directory is half full, and next to nothing is left out; beyond that names displace each other. */
static void memory_is_bounded(void **state)
{
    struct fixture *f = *state;
    unsigned found = 0;

    assert_true(f->size <= CAPACITY / 200);
    assert_true(names_size(UINT64_MAX) <= (32 << 20) + 4096);
    for (uint64_t i = 0; i < CAPACITY / 4096; i++)
        names_add(f->names, hash_mix(i + 1), 0, i * 4096);
    for (uint64_t i = 0; i < CAPACITY / 4096; i++)
        found += finds(f, hash_mix(i + 1), 0, i * 4096);
    assert_true(found > CAPACITY / 4096 * 95 / 100);
    for (uint64_t i = 0; i < NAMES; i++) {
        names_add(f->names, hash_mix(i + 1000000), 1, i * 64);
        assert_true(finds(f, hash_mix(i + 1000000), 1, i * 64)); /* the newest is there */
    }
}

static void the_word_counts_until_then(void **state)
{
    struct fixture *f = *state;
    uint64_t now = names_clock();

    assert_true(names_until(&f->view) == 0);
    names_extend(f->names, now + 1000);
    assert_true(names_until(&f->view) == now + 1000);
    names_extend(f->names, now + 500); /* an answer that came late takes nothing back */
    assert_true(names_until(&f->view) == now + 1000);
    assert_true(names_clock() >= now);
}

static void strangers_are_not_opened(void **state)
{
    struct fixture *f = *state;
    struct names_view view;
    uint8_t *bytes = (uint8_t *)f->names;

    assert_false(names_open(f->names, f->size - 64, &view));
    assert_false(names_open(f->names, 16, &view));
    for (unsigned i = 0; i < 24; i++) { /* magic, layout, sets, clock */
        bytes[i] ^= 0x80;
        assert_false(names_open(f->names, f->size, &view));
        bytes[i] ^= 0x80;
    }
    assert_true(names_open(f->names, f->size, &view));
}

/* Name i lies at one place only, so a word that is torn or of another name shows. */
static void *reader(void *arg)
{
    struct fixture *f = arg;

    for (uint64_t i = 0; !atomic_load(&f->stop); i = (i + 1) % NAMES) {
        struct names_place places[NAMES_WAYS];
        unsigned n = names_find(&f->view, hash_mix(i), places);

        for (unsigned at = 0; at < n; at++)
            if (places[at].segment != i % 200 || places[at].offset != i * 64)
                atomic_fetch_add(&f->wrong, 1);
        atomic_fetch_add(&f->found, n);
        if (names_until(&f->view) % 2)
            atomic_fetch_add(&f->wrong, 1);
    }
    return NULL;
}

static void readers_beside_the_writer(void **state)
{
    struct fixture *f = *state;
    pthread_t threads[READERS];

    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, reader, f), 0);
    for (uint64_t round = 0; round < ROUNDS || atomic_load(&f->found) < NAMES; round++) {
        for (uint64_t i = 0; i < NAMES; i++)
            names_add(f->names, hash_mix(i), i % 200, i * 64);
        names_extend(f->names, 2 * round);
        for (uint64_t i = 0; i < NAMES; i++)
            names_remove(f->names, hash_mix(i), i % 200, i * 64);
    }
    atomic_store(&f->stop, true);
    for (int i = 0; i < READERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&f->wrong), 0);
    for (uint64_t i = 0; i < NAMES; i++)
        assert_false(finds(f, hash_mix(i), i % 200, i * 64));
}

#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(added_is_found_removed_is_not),
        T(memory_is_bounded),
        T(the_word_counts_until_then),
        T(strangers_are_not_opened),
        T(readers_beside_the_writer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
