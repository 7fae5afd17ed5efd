/* store_test.c - workers over the real Store: master, node and clients in this process, bytes over shared memory and TCP.
 *
 * Goal: what worker_test.c shows with a Store in memory holds with the real one; and when its master or node goes away in
 * the middle, every request is still answered, with the same text. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/cursor.h"
#include "base/log.h"
#include "store/index/master.h"
#include "store/node/node.h"
#include "store/object.h"
#include "tests/worker/fixture.h"

static struct fixture fx;
static struct store_master *master;
static struct store_node *node;
static char master_at[64], state_dir[128];
static uint32_t prompt[4000];
static struct pair_result pair;
static struct answer answer;

static void node_begin(void)
{
    struct store_node_opts opts = {.listen = "127.0.0.1:0",
        .master = master_at,
        .run_dir = fx.run_dir,
        .state_dir = state_dir,
        .memory = 256 << 20,
        .ephemeral = true,
        .no_prefault = true};
    struct store_node_status status = {0};
    uint64_t until = deadline_after_ms(now_ns(), 5000);

    assert_int_equal(store_node_create(&opts, &node), MC_OK);
    assert_int_equal(store_node_start(node), MC_OK);
    while (!status.registered) {
        assert_true(now_ns() < until);
        usleep(2000);
        store_node_status(node, &status);
    }
}

static void master_begin(const char *listen)
{
    struct store_master_opts opts = {.listen = listen, .admin = "none", .state_dir = "none"};

    assert_int_equal(store_master_create(&opts, &master), MC_OK);
    assert_int_equal(store_master_start(master), MC_OK);
    snprintf(master_at, sizeof(master_at), "%s", store_master_address(master));
}

static int setup(void **state)
{
    fixture_start(&fx);
    snprintf(state_dir, sizeof(state_dir), "%s/node", fx.run_dir);
    master_begin("127.0.0.1:0");
    node_begin();
    return 0;
}

static int teardown(void **state)
{
    for (unsigned i = 0; i < fx.count; i++)
        fixture_kill(&fx, i);
    fx.count = 0;
    store_node_destroy(node);
    store_master_destroy(master);
    fixture_stop(&fx);
    node = NULL;
    master = NULL;
    return 0;
}

static unsigned add(enum wmsg_role role)
{
    return fixture_add(&fx, &(struct fixture_setup){.role = role, .master = master_at});
}

static void serve(unsigned p, unsigned d, uint32_t count, uint64_t seed, uint32_t limit_ms)
{
    struct baseline_run want;
    struct wmsg_run run;

    for (uint32_t i = 0; i < count; i++) {
        uint32_t n = 64 * (1 + i % 5) + i % 3 - 1;
        uint64_t begun;

        fixture_prompt(fx.alone, i & 1, seed + i / 4, prompt, n);
        run = fixture_run(WMSG_PREFILL, prompt, n, 40);
        fixture_baseline(&fx, &run, &want);
        begun = now_ns();
        fixture_pair(&fx, p, d, &run, &pair);
        assert_true(now_ns() - begun < limit_ms * NS_PER_MS);
        assert_answer(&want, pair.tokens, pair.count);
        baseline_run_fini(&want);
    }
}

static void equality(void **state)
{
    unsigned p = add(WMSG_ROLE_PREFILL), d = add(WMSG_ROLE_DECODE);
    struct worker_stats stats;

    serve(p, d, 60, 1, 5000);
    assert_int_equal(pair.decode.finish.reused_tokens, pair.decode.finish.prompt_tokens / 64 * 64);
    worker_stats(fx.workers[0], &stats);
    assert_true(stats.tokens_loaded > 0);
    assert_int_equal(stats.stores_failed, 0);
    worker_stats(fx.workers[1], &stats);
    assert_int_equal(stats.loads_stopped, 0);
}

/* When the node had the whole block and sealed it (its own time stamp, wall clock); 0: it is not there. */
static uint64_t sealed_ms(const uint8_t id[16])
{
    void *addr;
    uint64_t size;

    for (uint32_t i = 0; store_node_segment(node, i, &addr, &size); i++) {
        for (uint64_t at = 0; at + OBJECT_FIXED <= size; at += OBJECT_ALIGN) {
            struct object_header header;
            const uint8_t *bytes = (const uint8_t *)addr + at;

            if (le32_get(bytes) == OBJECT_MAGIC && object_parse(bytes, size - at, &header) == MC_OK &&
                memcmp(header.key.id, id, 16) == 0)
                return header.created_ms;
        }
    }
    return 0;
}

/* 2,000 tokens: four fifths of their bytes are in the node, whole, before the first token is picked; by the node's clock. The
 * prompt takes 2 s, so that the tenth of it that this leaves for delays is long on a busy machine as well. */
static void stored_while_computed(void **state)
{
    unsigned p = fixture_add(
        &fx, &(struct fixture_setup){.role = WMSG_ROLE_PREFILL, .master = master_at, .prefill_tokens_per_s = 1000});
    const struct mc_engine_info *info = mc_engine_info(fx.alone);
    struct mc_block_chain chain;
    struct mc_block_id ids[31];
    uint64_t first_ms, early = 0, last_ms = 0;
    struct wmsg_run run;

    fixture_prompt(fx.alone, false, 9, prompt, 2000);
    run = fixture_run(WMSG_PREFILL, prompt, 2000, 4);
    first_ms = wall_ms(); /* the run arrives there a little later: the first token is rather dated too early */
    script_run(fx.script, p, &run, &answer);
    answer_wait(&answer);
    first_ms += answer.first_us / 1000;
    assert_int_equal(answer.count, 1);
    assert_int_equal(answer.finish.stored_blocks, 31);
    assert_int_equal(answer.finish.store_failed, 0);
    mc_block_chain_init(&chain, &info->fingerprint, info->block_tokens, NULL, 0);
    assert_int_equal(mc_block_chain_extend(&chain, prompt, 2000, ids, 31), 31);
    for (int i = 0; i < 31; i++) {
        uint64_t at = sealed_ms(ids[i].bytes);

        assert_true(at > 0);
        early += at < first_ms;
        last_ms = at > last_ms ? at : last_ms;
    }
    print_message(
        "         %llu of 31 full blocks of 2,000 tokens before the first token, the last one %lld ms after it\n",
        (unsigned long long)early, (long long)(last_ms - first_ms));
    assert_true(early * info->block_size * 10 >= 2000 * mc_geometry_bytes_per_token(info->geometry) * 8);
}

/* An answer's last frame does not wait for its puts. */
static void wait_objects(uint64_t objects)
{
    uint64_t until = deadline_after_ms(now_ns(), 30000);
    struct store_node_status status;

    do {
        assert_true(now_ns() < until);
        usleep(500);
        store_node_status(node, &status);
    } while (status.beat.objects < objects);
}

/* A second turn hits the first turn's answer, on the other worker. */
static void second_turn(void **state)
{
    unsigned a = add(WMSG_ROLE_BOTH), b = add(WMSG_ROLE_BOTH);
    struct wmsg_run run;
    struct baseline_run want;

    fixture_prompt(fx.alone, true, 5, prompt, 100);
    run = fixture_run(WMSG_GENERATE, prompt, 100, 200);
    run.ignore_end = true;
    script_run(fx.script, a, &run, &answer);
    answer_wait(&answer);
    wait_objects(299 / 64);
    memcpy(prompt + 100, answer.tokens, 200 * sizeof(*prompt));
    fixture_prompt(fx.alone, true, 6, prompt + 300, 30);
    run = fixture_run(WMSG_GENERATE, prompt, 330, 20);
    fixture_baseline(&fx, &run, &want);
    script_run(fx.script, b, &run, &answer);
    answer_wait(&answer);
    assert_int_equal(answer.finish.reused_tokens, 256);
    assert_answer(&want, answer.tokens, answer.count);
    baseline_run_fini(&want);
}

static void node_gone(void **state)
{
    unsigned p = add(WMSG_ROLE_PREFILL), d = add(WMSG_ROLE_DECODE);

    serve(p, d, 5, 20, 5000);
    store_node_destroy(node);
    node = NULL;
    serve(p, d, 10, 20, 8000);
    node_begin();
    serve(p, d, 10, 40, 8000);
}

static void master_gone(void **state)
{
    unsigned p = add(WMSG_ROLE_PREFILL), d = add(WMSG_ROLE_DECODE);

    serve(p, d, 5, 60, 5000);
    store_master_destroy(master);
    master = NULL;
    serve(p, d, 10, 60, 8000);
    master_begin(master_at);
    serve(p, d, 10, 80, 8000);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(equality), TEST(stored_while_computed), TEST(second_turn), TEST(node_gone), TEST(master_gone)};

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
