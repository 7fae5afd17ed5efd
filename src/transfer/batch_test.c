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

#include "base/scratch_test.h"
#include "transfer/core.h"
#include "transfer/shm/shm_impl.h"
#include "transfer/tcp/tcp.h"

#define LEN (64u << 10)

static struct {
    struct mc_te *here, *there;
    struct mc_peer *peer;
    struct mc_region_key key;
    uint8_t *memory;
    char dir[SCRATCH_PATH];
} pair;

static void pair_open(const char *transport, const char *fault)
{
    struct mc_te_opts opts = {.size = sizeof(opts), .transport = transport, .run_dir = pair.dir, .links = 1};
    void *memory;

    scratch_dir(pair.dir);
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

/* ---- `done` of a peer that is being closed ---- */

struct again {
    struct mc_op op;
    struct mc_peer *peer;
    struct mc_batch *second;
    enum mc_status status, submitted;
    int calls;
};

static void done_again(struct mc_batch *batch, enum mc_status status, void *arg)
{
    struct again *again = arg;

    again->calls++;
    again->status = status;
    again->submitted = mc_transfer_submit(again->peer, &again->op, 1, 1000, NULL, NULL, &again->second);
    mc_batch_free(batch);
}

/* As a caller does who tries again whatever has failed. */
static void try_again_while_closing(bool destroy)
{
    static uint8_t local[LEN];
    struct again again = {0};
    struct mc_peer *other;
    struct mc_batch *batch;

    pair_open("tcp", "drop=1"); /* swallowed: flying until it is failed */
    assert_int_equal(mc_peer_open(pair.here, mc_te_address(pair.there), NULL, &other), MC_OK);
    again.op = op_of(MC_READ, local);
    again.peer = destroy ? other : pair.peer;
    assert_int_equal(mc_transfer_submit(pair.peer, &again.op, 1, 5000, done_again, &again, &batch), MC_OK);
    if (!destroy)
        mc_peer_close(pair.peer);
    pair_close();
    assert_int_equal(again.calls, 1);
    assert_int_equal(again.status, MC_ECLOSED);
    assert_int_equal(again.submitted, MC_ECLOSED);
}

static void submit_while_peer_closes(void **state)
{
    try_again_while_closing(false);
}

/* The other peer's handle is good too until the last callback has run. */
static void submit_while_engine_closes(void **state)
{
    try_again_while_closing(true);
}

/* ---- a connection that has ended, of which nobody was told yet ---- */

struct breaking {
    struct mc_op op;
    struct mc_batch *batch;
    enum mc_status status;
};

/* With one a batch is always carried out by the loop. */
static void ended(struct mc_batch *batch, enum mc_status status, void *arg)
{
    *(enum mc_status *)arg = status;
}

/* What a reset and a new batch within one turn look like. */
static void break_and_submit(struct loop *loop, void *arg)
{
    struct breaking *breaking = arg;
    struct session *session = pair.here->shm ? session_find(pair.here->shm, pair.peer->uuid) : NULL;

    assert_int_equal(
        mc_transfer_submit(pair.peer, &breaking->op, 1, 5000, ended, &breaking->status, &breaking->batch), MC_OK);
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
    assert_int_equal(breaking.status, MC_OK);
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
    broken_in_the_same_turn("shm", MC_READ);
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

        scratch_dir(pair.dir);
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

/* ---- room ---- */

static void *cancel_when_awaited(void *arg)
{
    struct mc_batch *batch = arg;

    while (!atomic_load(&pair.peer->room_waiters))
        usleep(1000);
    mc_batch_cancel(batch);
    return NULL;
}

/* One operation is in flight, so that a batch of the greatest size has no room: it goes on when that one has ended. */
static void room_comes_back(void **state)
{
    static uint8_t local[LEN];
    struct mc_op first, *all = calloc(MC_TE_OPS_MAX, sizeof(*all));
    struct mc_batch *batch, *none;
    pthread_t thread;

    assert_non_null(all);
    pair_open("tcp", "drop=1");
    first = op_of(MC_READ, local);
    assert_int_equal(mc_transfer_submit(pair.peer, &first, 1, 600000, NULL, NULL, &batch), MC_OK);
    assert_int_equal(mc_transfer_submit(pair.peer, all, MC_TE_OPS_MAX, 600000, NULL, NULL, &none), MC_AGAIN);
    assert_int_equal(pthread_create(&thread, NULL, cancel_when_awaited, batch), 0);
    assert_int_equal(mc_transfer_sync(pair.peer, all, MC_TE_OPS_MAX, 600000), MC_EINVAL); /* none names a region */
    pthread_join(thread, NULL);
    assert_int_equal(mc_batch_poll(batch), MC_ECANCELED);
    mc_batch_free(batch);
    pair_close();
    free(all);
}

/* ---- views ---- */

/* Destroying the engine is closing its peers, with all they have lent. The sanitizer sees what stays. */
static void view_at_destroy(void **state)
{
    const void *view;

    pair_open("shm", NULL);
    assert_int_equal(mc_peer_map(pair.peer, &pair.key, 0, 16, &view), MC_OK);
    pair_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(submit_while_peer_closes),
        cmocka_unit_test(submit_while_engine_closes),
        cmocka_unit_test(broken_link),
        cmocka_unit_test(broken_session),
        cmocka_unit_test(both_dial),
        cmocka_unit_test(room_comes_back),
        cmocka_unit_test(view_at_destroy),
    };

    return cmocka_run_group_tests_name("batch", tests, NULL, NULL);
}
