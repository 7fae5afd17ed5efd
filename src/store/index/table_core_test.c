/* table_core_test.c - goal: the index is exact, and small. Method: random adds, dooms and removals against a plain array that is
 * searched from end to end; then 1,000,000 objects, whose memory is counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/rng.h"
#include "store/index/table_core.h"

enum { KEYS = 60, OWNERS = 4, MODEL = 900, STEPS = 60000 };

struct model {
    bool used, doomed;
    uint32_t key;
    uint16_t owner;
    uint64_t generation;
};

static struct store_key key_of(uint32_t n)
{
    struct store_key key = {.ns = n % 3, .shards = 1, .kind = n % 5 ? MC_KEY_BLOCK : MC_KEY_NAMED};

    le32_put(key.id, n * 2654435761u);
    le32_put(key.id + 4, n);
    if (key.kind == MC_KEY_NAMED)
        key.name = slice_str("a name");
    return key;
}

/* One near, one at the edge, two far. */
static uint16_t owner_of(uint16_t n)
{
    return n < 2 ? n * (TABLE_NEAR - 1) : TABLE_NEAR + n;
}

static uint32_t count_of(const struct model *model, uint32_t key, bool living)
{
    uint32_t n = 0;

    for (int i = 0; i < MODEL; i++)
        n += model[i].used && model[i].key == key && (!living || !model[i].doomed);
    return n;
}

static void compare(const struct table *table, const struct model *model, uint32_t n)
{
    struct store_key key = key_of(n);
    uint32_t entry = table_find(table, &key), copies = 0, living = 0;
    struct table_copy copy;

    assert_int_equal(entry == TABLE_NONE, count_of(model, n, false) == 0);
    for (uint32_t at = TABLE_NONE; entry != TABLE_NONE && table_next(table, entry, &at, &copy);) {
        copies++;
        living += !copy.doomed;
    }
    assert_int_equal(copies, count_of(model, n, false));
    assert_int_equal(living, count_of(model, n, true));
}

/* The owners of living copies: near ones as bits, far ones counted. */
static void compare_owners(const struct table *table, const struct model *model, uint32_t n)
{
    struct store_key key = key_of(n);
    uint32_t entry = table_find(table, &key);
    struct table_owners want = {0}, got = {0};

    if (entry != TABLE_NONE)
        got = table_owners(table, entry);
    for (int i = 0; i < MODEL; i++) {
        if (!model[i].used || model[i].key != n || model[i].doomed)
            continue;
        if (model[i].owner < TABLE_NEAR)
            want.near |= UINT64_C(1) << model[i].owner;
        else
            want.far++;
    }
    assert_true(got.near == want.near && got.far == want.far);
}

static void test_against_model(void **state)
{
    struct table *table = table_create(MODEL, 42);
    static struct model model[MODEL];
    struct rng rng;
    uint64_t generation = 0;

    assert_non_null(table);
    rng_seed(&rng, 1);
    for (int step = 0; step < STEPS; step++) {
        struct model *m = &model[rng_below(&rng, MODEL)];
        uint32_t at, entry, n = (uint32_t)rng_below(&rng, KEYS);

        if (!m->used) {
            struct store_key key = key_of(n);

            *m = (struct model){true, false, n, owner_of((uint16_t)rng_below(&rng, OWNERS)), ++generation};
            assert_int_equal(table_add(table, &key,
                                 &(struct table_copy){.generation = m->generation, .owner = m->owner, .length = 5}),
                MC_OK);
        } else {
            entry = table_find_copy(table, m->owner, m->generation, &at);
            assert_int_not_equal(entry, TABLE_NONE);
            if (rng_chance(&rng, 0.2)) {
                table_doom(table, entry, at);
                m->doomed = true;
            } else {
                table_remove(table, entry, at);
                m->used = false;
            }
        }
        compare(table, model, n);
        compare_owners(table, model, n);
    }
    for (uint16_t owner = 0; owner < OWNERS; owner++) {
        uint32_t next = table_first_of(table, owner_of(owner)), at, entry;
        struct table_copy copy;

        while (table_next_of(table, &next, &at, &entry, &copy))
            table_remove(table, entry, at);
        assert_int_equal(table_copies_of(table, owner_of(owner)), 0);
    }
    assert_int_equal(table_entries(table), 0);
    assert_int_equal(table_name_bytes(table), 0);
    table_destroy(table);
}

static void test_ceiling(void **state)
{
    struct table *table = table_create(2, 1);

    for (uint32_t i = 0; i < 3; i++) {
        struct store_key key = key_of(i + 1);

        assert_int_equal(table_add(table, &key, &(struct table_copy){.generation = i + 1}), i < 2 ? MC_OK : MC_EBUSY);
    }
    table_destroy(table);
}

static void test_million(void **state)
{
    enum { MILLION = 1000000 };
    struct table *table = table_create(4000000, 7);

    assert_non_null(table);
    for (uint32_t i = 0; i < MILLION; i++) {
        struct store_key key = {.shards = 1, .kind = MC_KEY_BLOCK};

        le32_put(key.id, i);
        assert_int_equal(
            table_add(table, &key, &(struct table_copy){.generation = i, .owner = (uint16_t)(i % 4)}), MC_OK);
    }
    print_message("%.1f bytes per object\n", (double)table_bytes(table) / MILLION);
    assert_true(table_bytes(table) <= 200ull * MILLION);
    for (uint32_t i = 0; i < MILLION; i += 997) {
        struct store_key key = {.shards = 1, .kind = MC_KEY_BLOCK};

        le32_put(key.id, i);
        assert_int_not_equal(table_find(table, &key), TABLE_NONE);
    }
    table_destroy(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_model),
        cmocka_unit_test(test_ceiling),
        cmocka_unit_test(test_million),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
