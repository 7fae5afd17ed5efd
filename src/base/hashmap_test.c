/* hashmap_test.c - the table against an array that is always right, with random adds, finds, walks and deletes.
 *
 * Hashes are taken modulo a small number in one run, so that chains are long and equal hashes meet. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/hashmap.h"
#include "base/rng.h"

#define COUNT 5000

struct item {
    struct hnode node;
    uint32_t key;
    bool in, seen;
};

static struct item items[COUNT];

static bool item_eq(const struct hnode *node, const void *key)
{
    return container_of(node, struct item, node)->key == *(const uint32_t *)key;
}

static void check_walk(const struct hashmap *map)
{
    struct hashmap_iter it = {0};
    struct hnode *node;
    size_t n = 0;

    for (int i = 0; i < COUNT; i++)
        items[i].seen = false;
    while ((node = hashmap_next(map, &it)) != NULL) {
        struct item *item = container_of(node, struct item, node);

        assert_true(item->in);
        assert_false(item->seen);
        item->seen = true;
        n++;
    }
    assert_int_equal(n, map->count);
}

static void random_ops(uint64_t hash_range, uint64_t seed)
{
    struct hashmap map;
    struct rng rng;

    rng_seed(&rng, seed);
    memset(items, 0, sizeof(items));
    assert_int_equal(hashmap_init(&map, 0, 0), MC_OK);
    for (int step = 0; step < 40000; step++) {
        struct item *item = &items[rng_below(&rng, COUNT)];
        uint32_t key = (uint32_t)(item - items);
        uint64_t hash = (key * 0x9e3779b97f4a7c15ull) % hash_range;

        assert_ptr_equal(hashmap_find(&map, hash, item_eq, &key), item->in ? &item->node : NULL);
        if (item->in && rng_chance(&rng, 0.4)) {
            hashmap_del(&map, &item->node);
            item->in = false;
        } else if (!item->in) {
            item->key = key;
            assert_int_equal(hashmap_add(&map, &item->node, hash), MC_OK);
            item->in = true;
        }
        if (step % 997 == 0)
            check_walk(&map);
    }
    check_walk(&map);
    hashmap_fini(&map);
}

static void test_random(void **state)
{
    random_ops(UINT64_MAX, 1);
    random_ops(50, 2);
}

static void test_delete_while_walking(void **state)
{
    struct hashmap_iter it = {0};
    struct hashmap map;
    struct hnode *node;

    memset(items, 0, sizeof(items));
    assert_int_equal(hashmap_init(&map, 0, 0), MC_OK);
    for (uint32_t i = 0; i < COUNT; i++) {
        items[i].key = i;
        hashmap_add(&map, &items[i].node, i);
    }
    while ((node = hashmap_next(&map, &it)) != NULL) {
        hashmap_del(&map, node);
        memset(node, 0xee, sizeof(*node));
    }
    assert_int_equal(map.count, 0);
    hashmap_fini(&map);
}

static void test_limit(void **state)
{
    struct hashmap map;

    assert_int_equal(hashmap_init(&map, 100, 3), MC_OK);
    assert_true(hashmap_bytes(&map) >= 100 * sizeof(void *));
    for (int i = 0; i < 3; i++)
        assert_int_equal(hashmap_add(&map, &items[i].node, (uint64_t)i), MC_OK);
    assert_int_equal(hashmap_add(&map, &items[3].node, 3), MC_EBUSY);
    hashmap_del(&map, &items[0].node);
    assert_int_equal(hashmap_add(&map, &items[3].node, 3), MC_OK);
    hashmap_fini(&map);
}

static void test_list(void **state)
{
    struct list head, other, nodes[5];
    int n = 0;

    list_init(&head);
    list_init(&other);
    assert_true(list_empty(&head));
    assert_null(list_pop_front(&head));
    for (int i = 0; i < 5; i++)
        list_push_back(i < 3 ? &head : &other, &nodes[i]);
    list_splice_back(&head, &other);
    list_splice_back(&head, &other);
    assert_true(list_empty(&other));
    list_for_each (node, &head)
        assert_ptr_equal(node, &nodes[n++]);
    list_del(&nodes[2]);
    list_del(&nodes[2]);
    assert_false(list_linked(&nodes[2]));
    list_for_each_safe (node, next, &head) {
        list_del(node);
        n--;
    }
    assert_int_equal(n, 1);
    assert_true(list_empty(&head));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_delete_while_walking),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_list),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
