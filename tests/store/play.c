/* play.c - prompts through a live node, and what the node says of it: for tests that compare it with a replay.
 *
 *     store_play MEMORY_MIB < PROMPTS      a prompt a line: the numbers of its blocks
 *
 * One client does what an engine does: it reads the blocks of a prompt until one is missing, and puts the others, each hanging on the
 * one before. Over tcp, since a reader on the node's own host tells of an object at most ten times a second (client/hot.c). Prints {"objects" (present in the end), "blocks", "hit_blocks" (of all prompts), "hit_ratio" (the node's, by memory)}. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cluster.h"

enum { SIZE = 4096, PROMPT_MAX = 4096, MS = 20000 };

static uint8_t data[SIZE];
static struct cluster cluster = {.transport = "tcp"};

/* The node is down for a client when the machine does not let it run for long enough: then it is asked again. */
static bool again(struct mc_store *store, enum mc_status status)
{
    if (status != MC_EPEERDOWN)
        return false;
    cluster_wait_nodes(&cluster, store, 1, MS);
    return true;
}

static bool read_block(struct mc_store *store, const struct mc_key *key)
{
    enum mc_status status;
    uint64_t len;

    do
        status = mc_store_get(store, key, data, SIZE, &len, MS);
    while (again(store, status));
    if (status != MC_OK)
        assert_int_equal(status, MC_ENOENT);
    return status == MC_OK;
}

/* Blocks that were there. */
static uint32_t prompt(struct mc_store *store, const uint64_t *numbers, uint32_t count)
{
    struct mc_object_meta meta = {0};
    uint32_t hits = 0;

    for (; hits < count; hits++) {
        struct mc_key key = block(numbers[hits]);

        if (!read_block(store, &key))
            break;
    }
    for (uint32_t i = hits; i < count; i++) {
        struct mc_key key = block(numbers[i]);

        if (i > 0) {
            struct mc_key up = block(numbers[i - 1]);

            memcpy(meta.parent, up.id, sizeof(meta.parent));
        }
        meta.depth = i;
        enum mc_status status;
        do
            status = mc_store_put(store, &key, data, SIZE, &meta, MS);
        while (again(store, status));
        assert_int_equal(status, MC_OK);
    }
    return hits;
}

static uint32_t parse(char *line, uint64_t *numbers)
{
    uint32_t count = 0;
    char *end = line;

    for (uint64_t number; number = strtoull(line, &end, 10), end != line; line = end) {
        assert_true(count < PROMPT_MAX);
        numbers[count++] = number;
    }
    return count;
}

static void plays(void **state)
{
    static uint64_t numbers[PROMPT_MAX];
    struct mc_store *store;
    uint64_t blocks = 0, hits = 0;
    char *line = NULL;
    size_t cap = 0;

    cluster_start(&cluster, 1);
    store = cluster_client(&cluster, NULL);
    while (getline(&line, &cap, stdin) > 0) {
        uint32_t count = parse(line, numbers);

        blocks += count;
        hits += prompt(store, numbers, count);
    }
    free(line);
    struct ledger l = cluster_ledger(&cluster.node[0]);
    printf("{\"objects\": %llu, \"blocks\": %llu, \"hit_blocks\": %llu, \"hit_ratio\": [%.4f, %.4f, %.4f, %.4f]}\n",
        (unsigned long long)l.present, (unsigned long long)blocks, (unsigned long long)hits, l.hit_ratio[0],
        l.hit_ratio[1], l.hit_ratio[2], l.hit_ratio[3]);
    mc_store_close(store);
    cluster_stop(&cluster);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(plays)};

    cluster.memory_mib = argc == 2 ? (uint32_t)atoi(argv[1]) : 0;
    return cluster.memory_mib ? cmocka_run_group_tests_name("play", tests, NULL, NULL) : 2;
}
