/* loop_test.c - the engine inside a process that has a loop and a listener already, as the node uses it.
 *
 * A "node" runs an engine on its own loop behind its own listener; a client opens it, reads from it, and the node pulls from the
 * client's memory through te_peer_by_uuid(), from the loop's thread, with callbacks only; once more after all connections were cut. Then the
 * client goes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/crc.h"
#include "base/rng.h"
#include "base/scratch_test.h"
#include "transfer/tcp/tcp.h"

#define LEN (3u << 20)

struct node {
    struct loop *loop;
    struct mc_te *te;
    struct listener *listener;
    struct te_memory memory;
    char address[ADDR_TEXT_MAX];
    char dir[SCRATCH_PATH];
    const char *transport;

    uint8_t client_uuid[16];
    struct mc_region_key client_key;
    struct mc_peer *client;
    struct mc_op op;
    uint32_t crc;
    enum mc_status submitted, pulled;
    _Atomic int done;
};

static enum mc_status on_hello(struct conn *conn, const struct hello *peer, struct buf *why)
{
    struct node *node = conn_user(conn);

    return te_wants(peer) ? te_adopt(node->te, conn, peer, why) : MC_EREFUSED;
}

static void on_frame(struct conn *conn, const struct frame *frame)
{
    conn_reply_unknown(conn, frame);
}

static void on_close(struct conn *conn, enum mc_status status)
{
}

static const struct conn_ops node_ops = {.on_frame = on_frame, .on_close = on_close};

static void node_start(struct loop *loop, void *arg)
{
    struct node *node = arg;
    struct mc_te_opts opts = {
        .size = sizeof(opts), .listen = "none", .run_dir = node->dir, .transport = node->transport};
    struct hello self = {.role = ROLE_NODE};
    struct listener_opts listen = {.self = &self, .ops = &node_ops, .user = node, .on_hello = on_hello};
    struct addr addr;

    assert_int_equal(te_create_on_loop(&opts, loop, &node->te), MC_OK);
    te_hello(node->te, &self);
    assert_int_equal(addr_parse("127.0.0.1:0", 0, &addr, NULL), MC_OK);
    assert_int_equal(conn_listen(loop, &addr, &listen, &node->listener), MC_OK);
    addr_format(listener_addr(node->listener), node->address);
    assert_int_equal(te_alloc(node->te, LEN, MC_REGION_READ | MC_REGION_WRITE, &node->memory), MC_OK);
}

static void pulled(struct mc_batch *batch, enum mc_status status, void *arg)
{
    struct node *node = arg;

    node->pulled = status;
    mc_batch_free(batch);
    atomic_store(&node->done, 1);
}

static void node_pull(struct loop *loop, void *arg)
{
    struct node *node = arg;
    struct mc_batch *batch;

    if (!node->client)
        assert_int_equal(te_peer_by_uuid(node->te, node->client_uuid, &node->client), MC_OK);
    node->op = (struct mc_op){
        .opcode = MC_READ, .local = node->memory.addr, .len = LEN, .region = node->client_key, .crc32c = &node->crc};
    atomic_store(&node->done, 0);
    node->submitted = mc_transfer_submit(node->client, &node->op, 1, 2000, pulled, node, &batch);
    assert_int_equal(atomic_load(&node->done), 0); /* never inside submit */
}

static void node_stop(struct loop *loop, void *arg)
{
    struct node *node = arg;

    mc_peer_close(node->client);
    listener_close(node->listener);
    mc_te_free(node->te, node->memory.addr);
    mc_te_destroy(node->te);
}

/* All connections break while the client has nothing to move: it dials again all the same, for the node cannot, and the node's pull
 * waits for that. */
static void node_cut_and_pull(struct loop *loop, void *arg)
{
    struct node *node = arg;

    tcp_cut_links(node->client);
    node_pull(loop, arg);
}

static void wait_done(struct node *node)
{
    for (int i = 0; i < 3000 && !atomic_load(&node->done); i++)
        usleep(1000);
    assert_int_equal(atomic_load(&node->done), 1);
}

static void node_and_client(const char *transport)
{
    struct node node = {.transport = transport};
    struct mc_te_opts opts = {.size = sizeof(opts), .listen = "none", .run_dir = node.dir, .transport = transport};
    uint8_t *local = malloc(LEN), *back = malloc(LEN);
    struct mc_peer *peer;
    struct mc_te *te;
    struct mc_op op;
    struct rng rng;

    scratch_dir(node.dir);
    node.loop = loop_create("node");
    assert_int_equal(loop_thread_start(node.loop), MC_OK);
    loop_call(node.loop, node_start, &node);
    assert_int_equal(mc_te_create(&opts, &te), MC_OK);
    assert_int_equal(mc_peer_open(te, node.address, NULL, &peer), MC_OK);
    rng_seed(&rng, 1);
    rng_bytes(&rng, local, LEN);
    assert_int_equal(mc_te_register(te, local, LEN, MC_REGION_READ, &node.client_key), MC_OK);
    memcpy(node.client_uuid, te_uuid(te), 16);
    loop_call(node.loop, node_pull, &node);
    assert_int_equal(node.submitted, MC_OK);
    wait_done(&node);
    assert_int_equal(node.pulled, MC_OK);
    assert_int_equal(node.crc, crc32c(0, local, LEN));
    loop_call(node.loop, node_cut_and_pull, &node);
    wait_done(&node);
    assert_int_equal(node.pulled, MC_OK);
    op = (struct mc_op){.opcode = MC_READ, .local = back, .len = LEN, .region = node.memory.key};
    assert_int_equal(mc_transfer_sync(peer, &op, 1, 2000), MC_OK);
    assert_memory_equal(back, local, LEN);
    assert_int_equal(mc_te_unregister(te, &node.client_key), MC_OK);
    loop_call(node.loop, node_pull, &node);
    wait_done(&node);
    assert_int_equal(node.pulled, MC_ENOENT);
    mc_te_destroy(te); /* the client goes: what is asked of it waits until the handle is closed */
    loop_call(node.loop, node_pull, &node);
    assert_int_equal(node.submitted, MC_OK);
    assert_int_equal(atomic_load(&node.done), 0);
    loop_call(node.loop, node_stop, &node);
    wait_done(&node);
    assert_int_equal(node.pulled, MC_ECLOSED);
    loop_thread_stop(node.loop);
    loop_destroy(node.loop);
    assert_int_equal(rmdir(node.dir), 0);
    free(local);
    free(back);
}

static void over_auto(void **state)
{
    node_and_client("auto");
}

static void over_tcp(void **state)
{
    node_and_client("tcp");
}

/* Expecting somebody else is refused, with both names in the log. */
static void wrong_identity(void **state)
{
    char dir[SCRATCH_PATH];
    struct mc_te_opts opts = {.size = sizeof(opts), .run_dir = dir, .epoch = 4};
    uint8_t other[16] = {1, 2, 3};
    struct mc_peer_opts expect = {.size = sizeof(expect), .uuid = other};
    struct mc_peer *peer;
    struct mc_te *a, *b;

    scratch_dir(dir);
    assert_int_equal(mc_te_create(&opts, &a), MC_OK);
    assert_int_equal(mc_te_create(&opts, &b), MC_OK);
    assert_int_equal(mc_peer_open(b, mc_te_address(a), &expect, &peer), MC_EREFUSED);
    expect.uuid = te_uuid(a);
    expect.epoch = 5;
    assert_int_equal(mc_peer_open(b, mc_te_address(a), &expect, &peer), MC_EREFUSED);
    expect.epoch = 4;
    assert_int_equal(mc_peer_open(b, mc_te_address(a), &expect, &peer), MC_OK);
    mc_peer_close(peer);
    assert_int_equal(mc_peer_open(b, "127.0.0.1:1", NULL, &peer), MC_EPEERDOWN);
    assert_int_equal(mc_peer_open(b, "nonsense", NULL, &peer), MC_EINVAL);
    mc_te_destroy(a);
    mc_te_destroy(b);
    assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(over_auto),
        cmocka_unit_test(over_tcp),
        cmocka_unit_test(wrong_identity),
    };

    return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
