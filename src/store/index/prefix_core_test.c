/* prefix_core_test.c - goal: prefix queries are exact. Method: random tables whose content also stands in plain arrays, and a search of
 * those from end to end; among the prompts are those that cached answers get wrong: holes, blocks in common far apart (0, 64, 128),
 * blocks at another place than they were stored at, one block many times, parts of which one is missing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/rng.h"
#include "store/index/prefix_core.h"

enum { IDS = 400, OWNERS = 6, SHARDS_MAX = 3, PROMPT = 150, TABLES = 20, QUERIES = 2000 };

/* What is where: living copies by id, shard and owner; half of the owners are far ones. */
struct model {
    uint16_t shards;
    bool there[IDS][SHARDS_MAX][OWNERS], readable[OWNERS];
};

static void id_of(uint32_t n, uint8_t id[16])
{
    memset(id, 0, 16);
    le32_put(id + 4, n);
}

static uint16_t number_of(uint16_t owner)
{
    return owner % 2 ? TABLE_NEAR - 1 + owner : owner;
}

static struct table *fill(struct model *model, struct rng *rng)
{
    struct table *table = table_create(IDS * SHARDS_MAX * OWNERS, rng_u64(rng));
    double density = rng_double(rng), whole = rng_double(rng);
    uint64_t generation = 0;

    assert_non_null(table);
    *model = (struct model){.shards = (uint16_t)(1 + rng_below(rng, SHARDS_MAX))};
    for (uint16_t owner = 0; owner < OWNERS; owner++)
        model->readable[owner] = rng_chance(rng, 0.8);
    for (uint32_t n = 0; n < IDS; n++) {
        bool all = rng_chance(rng, whole);
        for (uint16_t shard = 0; shard < model->shards; shard++)
            for (uint16_t owner = 0; owner < OWNERS; owner++) {
                struct store_key key = {.shard = shard, .shards = model->shards, .kind = MC_KEY_BLOCK};
                struct table_copy copy = {
                    .generation = ++generation, .owner = number_of(owner), .doomed = rng_chance(rng, 0.05)};

                if (!rng_chance(rng, all ? 0.97 : density))
                    continue;
                id_of(n, key.id);
                assert_int_equal(table_add(table, &key, &copy), MC_OK);
                model->there[n][shard][owner] = !copy.doomed;
            }
    }
    return table;
}

static bool readable(const void *arg, uint16_t owner)
{
    for (uint16_t o = 0; o < OWNERS; o++)
        if (number_of(o) == owner)
            return ((const struct model *)arg)->readable[o];
    return false;
}

static bool part_is_readable(const struct model *model, uint32_t n, uint16_t shard)
{
    for (uint16_t owner = 0; owner < OWNERS; owner++)
        if (model->there[n][shard][owner] && model->readable[owner])
            return true;
    return false;
}

static uint32_t prefix_of(const struct model *model, const uint32_t *prompt, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        for (uint16_t shard = 0; shard < model->shards; shard++)
            if (prompt[i] >= IDS || !part_is_readable(model, prompt[i], shard))
                return i;
    return count;
}

static uint32_t lead_of(
    const struct model *model, const uint32_t *prompt, uint32_t prefix, uint16_t shard, uint16_t owner)
{
    uint32_t i = 0;

    while (model->readable[owner] && i < prefix && model->there[prompt[i]][shard][owner])
        i++;
    return i;
}

/* A prompt of one of several kinds; ids from IDS on are known to nobody. */
static uint32_t prompt_of(struct rng *rng, uint32_t prompt[PROMPT])
{
    uint32_t count = (uint32_t)rng_below(rng, PROMPT + 1), first = (uint32_t)rng_below(rng, IDS),
             kind = (uint32_t)rng_below(rng, 5);

    for (uint32_t i = 0; i < count; i++) {
        prompt[i] = (first + i) % IDS;
        if (kind == 1)
            prompt[i] = (uint32_t)rng_below(rng, IDS);
        if (kind == 2)
            prompt[i] = first;
        if (kind == 3 && i % 64 != 0)
            prompt[i] = IDS + i;
    }
    if (kind == 4 && count > 0)
        prompt[rng_below(rng, count)] = IDS;
    return count;
}

/* Every part of every block of the prefix is told once, in order of the blocks. */
struct told {
    const struct model *model;
    uint32_t parts;
};

static bool told_readable(const void *arg, uint16_t owner)
{
    return readable(((const struct told *)arg)->model, owner);
}

static void tell(void *arg, uint32_t block, uint16_t shard, uint32_t entry)
{
    struct told *told = arg;

    assert_int_not_equal(entry, TABLE_NONE);
    assert_true(shard < told->model->shards);
    told->parts++;
}

static void test_against_plain_arrays(void **state)
{
    static struct prefix_leads leads;
    static struct model model;
    struct rng rng;
    uint64_t found = 0;

    rng_seed(&rng, 11);
    for (int t = 0; t < TABLES; t++) {
        struct table *table = fill(&model, &rng);

        for (int q = 0; q < QUERIES; q++) {
            uint32_t prompt[PROMPT], count = prompt_of(&rng, prompt);
            uint8_t ids[PROMPT][16];
            struct told told = {.model = &model};
            struct prefix_query query = {.table = table,
                .shards = model.shards,
                .ids = (const uint8_t(*)[16])ids,
                .count = count,
                .readable = q % 2 ? told_readable : readable,
                .found = q % 2 ? tell : NULL,
                .arg = q % 2 ? (void *)&told : (void *)&model};

            query.shard = (uint16_t)rng_below(&rng, model.shards);
            for (uint32_t i = 0; i < count; i++)
                id_of(prompt[i], ids[i]);
            uint32_t prefix = prefix_walk(&query, &leads);
            assert_int_equal(prefix, prefix_of(&model, prompt, count));
            for (uint16_t owner = 0; owner < OWNERS; owner++)
                assert_int_equal(
                    prefix_lead(&leads, number_of(owner)), lead_of(&model, prompt, prefix, query.shard, owner));
            if (query.found)
                assert_int_equal(told.parts, prefix * model.shards);
            found += prefix;
        }
        table_destroy(table);
    }
    assert_true(found > TABLES * QUERIES);
}

static void test_everybody_may_answer(void **state)
{
    static struct prefix_leads leads;
    struct table *table = table_create(10, 1);
    struct store_key key = {.shards = 1, .kind = MC_KEY_BLOCK};
    uint8_t ids[2][16];

    for (uint32_t n = 0; n < 2; n++) {
        id_of(n, ids[n]);
        memcpy(key.id, ids[n], 16);
        assert_int_equal(table_add(table, &key, &(struct table_copy){.generation = n, .owner = 3}), MC_OK);
    }
    struct prefix_query query = {.table = table, .shards = 1, .ids = (const uint8_t(*)[16])ids, .count = 2};
    assert_int_equal(prefix_walk(&query, &leads), 2);
    assert_int_equal(prefix_lead(&leads, 3), 2);
    query.ns = 1;
    assert_int_equal(prefix_walk(&query, &leads), 0);
    assert_int_equal(prefix_lead(&leads, 3), 0);
    table_destroy(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_plain_arrays),
        cmocka_unit_test(test_everybody_may_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
