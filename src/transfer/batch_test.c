/* batch_test.c - how batches begin and end where something else ends too: a peer that is closed, an engine that is destroyed, a
 * connection that breaks, room that is given back.
 *
 * Method: two engines of one process; what must meet within one turn of the loop is put there with loop_call(). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/clock.h"
#include "transfer/core.h"
#include "transfer/shm/shm_impl.h"
#include "transfer/tcp/tcp.h"

#define LEN (64u << 10)

static struct {
    struct mc_te *here, *there;
    struct mc_peer *peer;
    struct mc_region_key key;
    uint8_t *memory;
    char dir[32];
} pair;

static void pair_open(const char *transport, const char *fault)
{
    struct mc_te_opts opts = {.size = sizeof(opts), .transport = transport, .run_dir = pair.dir, .links = 1};
    void *memory;

    snprintf(pair.dir, sizeof(pair.dir), "/tmp/mc-batch-XXXXXX");
    assert_non_null(mkdtemp(pair.dir));
    assert_int_equal(mc_te_create(&opts, &pair.there), MC_OK);
    opts.fault = fault;
    assert_int_equal(mc_te_create(&opts, &pair.here), MC_OK);
    assert_int_equal(mc_te_alloc(pair.there, LEN, MC_REGION_READ | MC_REGION_WRITE, &memory, &pair.key), MC_OK);
    assert_int_equal(mc_peer_open(pair.here, mc_te_address(pair.there), NULL, &pair.peer), MC_OK);
    pair.memory = memory;
}

static void pair_close(void)
{
    mc_te_destroy(pair.here);
    mc_te_destroy(pair.there);
    assert_int_equal(rmdir(pair.dir), 0);
}

static struct mc_op op_of(enum mc_opcode opcode, void *local)
{
    return (struct mc_op){.opcode = opcode, .local = local, .len = LEN, .region = pair.key};
}

/* ---- a connection that has ended, of which nobody was told yet ---- */

struct breaking {
    struct mc_op op;
    struct mc_batch *batch;
};

/* What a reset and a new batch within one turn look like. */
static void break_and_submit(struct loop *loop, void *arg)
{
    struct breaking *breaking = arg;
    struct session *session = pair.here->shm ? session_find(pair.here->shm, pair.peer->uuid) : NULL;

    assert_int_equal(mc_transfer_submit(pair.peer, &breaking->op, 1, 5000, NULL, NULL, &breaking->batch), MC_OK);
    batch_take_incoming(pair.here);
    if (session)
        conn_abort(session->conn, MC_EPEERDOWN);
    else
        conn_abort(list_first(&pair.peer->links, struct tcp_link, peer_link)->conn, MC_EPEERDOWN);
    peer_pump(pair.peer);
}

static void broken_in_the_same_turn(const char *transport, enum mc_opcode opcode)
{
    static uint8_t local[LEN];
    struct breaking breaking;

    pair_open(transport, NULL);
    breaking.op = op_of(opcode, local);
    loop_call(pair.here->loop, break_and_submit, &breaking);
    assert_int_equal(mc_batch_wait(breaking.batch, UINT32_MAX), MC_OK);
    mc_batch_free(breaking.batch);
    pair_close();
}

static void broken_link(void **state)
{
    broken_in_the_same_turn("tcp", MC_READ);
    broken_in_the_same_turn("tcp", MC_WRITE);
}

static void broken_session(void **state)
{
    broken_in_the_same_turn("shm", MC_WRITE);
}

/* ---- two processes that open each other at once ---- */

static void start_dialling(struct loop *loop, void *arg)
{
    struct mc_peer **back = arg;

    assert_int_equal(te_peer_connect(pair.there, mc_te_address(pair.here), NULL, back), MC_OK);
}

static void both_dial(void **state)
{
    static uint8_t local[LEN];

    for (int i = 0; i < 20; i++) {
        struct mc_te_opts opts = {.size = sizeof(opts), .transport = "shm", .run_dir = pair.dir, .links = 1};
        struct mc_region_key here_key;
        struct mc_op there_op, here_op;
        struct mc_peer *back;
        void *memory;

        snprintf(pair.dir, sizeof(pair.dir), "/tmp/mc-batch-XXXXXX");
        assert_non_null(mkdtemp(pair.dir));
        assert_int_equal(mc_te_create(&opts, &pair.there), MC_OK);
        assert_int_equal(mc_te_create(&opts, &pair.here), MC_OK);
        assert_int_equal(mc_te_alloc(pair.there, LEN, MC_REGION_READ, &memory, &pair.key), MC_OK);
        assert_int_equal(mc_te_alloc(pair.here, LEN, MC_REGION_READ, &memory, &here_key), MC_OK);
        loop_call(pair.there->loop, start_dialling, &back);
        assert_int_equal(mc_peer_open(pair.here, mc_te_address(pair.there), NULL, &pair.peer), MC_OK);
        there_op = op_of(MC_READ, local);
        here_op = (struct mc_op){.opcode = MC_READ, .local = local, .len = LEN, .region = here_key};
        assert_int_equal(mc_transfer_sync(pair.peer, &there_op, 1, 5000), MC_OK);
        assert_int_equal(mc_transfer_sync(back, &here_op, 1, 5000), MC_OK);
        pair_close();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(broken_link),
        cmocka_unit_test(broken_session),
        cmocka_unit_test(both_dial),
    };

    return cmocka_run_group_tests_name("batch", tests, NULL, NULL);
}
