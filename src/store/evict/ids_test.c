/* ids_test.c - goal: the table finds what is in it and nothing else, whatever was added and deleted before.
 * Method: random steps against a linear search, with few places, so that runs of cells are long, and with ids that begin in one cell. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/rng.h"
#include "store/evict/ids.h"

enum { PLACES = 300, IDS = 400, STEPS = 60000 };

struct element {
    uint64_t id;
    uint32_t rest[2];
};

static struct element array[PLACES];
static bool there[PLACES];

static uint32_t search(uint64_t id)
{
    for (uint32_t place = 0; place < PLACES; place++)
        if (there[place] && array[place].id == id)
            return place;
    return IDS_NONE;
}

/* `crowded`: ids whose hashes agree in what tells the cells of so small a table apart. */
static void fill(uint64_t ids[IDS], bool crowded)
{
    uint32_t count = 0;

    for (uint64_t id = 0; count < IDS; id++)
        if (!crowded || (hash_mix(id) & 1023) < 3)
            ids[count++] = id;
}

static void run(bool crowded)
{
    uint64_t ids[IDS];
    struct ids table = {0};
    struct rng rng;

    fill(ids, crowded);
    rng_seed(&rng, 1);
    for (int step = 0; step < STEPS; step++) {
        uint32_t place = (uint32_t)rng_below(&rng, PLACES);
        uint64_t id = ids[rng_below(&rng, IDS)];

        assert_int_equal(ids_find(&table, array, sizeof(*array), id), search(id));
        if (there[place] && rng_chance(&rng, 0.6)) {
            ids_del(&table, array, sizeof(*array), place);
            there[place] = false;
        } else if (!there[place] && search(id) == IDS_NONE) {
            array[place].id = id;
            assert_int_equal(ids_add(&table, array, sizeof(*array), place), MC_OK);
            there[place] = true;
        } else if (!there[place]) { /* another one has this id: it stays */
            array[place].id = id;
            ids_del(&table, array, sizeof(*array), place);
        }
    }
    for (uint32_t place = 0; place < PLACES; place++) {
        if (there[place])
            ids_del(&table, array, sizeof(*array), place);
        there[place] = false;
    }
    assert_int_equal(table.count, 0);
    ids_fini(&table);
}

static void finds_what_a_search_finds(void **state)
{
    run(false);
    run(true);
}

/* As of two versions of a name, the older of which goes later than the newer comes: each place leaves by itself. */
static void one_id_at_two_places(void **state)
{
    struct ids table = {0};

    array[1].id = array[2].id = 7;
    for (uint32_t place = 1; place <= 2; place++)
        assert_int_equal(ids_add(&table, array, sizeof(*array), place), MC_OK);
    ids_del(&table, array, sizeof(*array), 2);
    assert_int_equal(ids_find(&table, array, sizeof(*array), 7), 1);
    ids_del(&table, array, sizeof(*array), 1);
    assert_int_equal(ids_find(&table, array, sizeof(*array), 7), IDS_NONE);
    assert_int_equal(table.count, 0);
    ids_fini(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_what_a_search_finds),
        cmocka_unit_test(one_id_at_two_places),
    };

    return cmocka_run_group_tests_name("ids", tests, NULL, NULL);
}
