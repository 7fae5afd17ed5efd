/* conn_test.c - frames between two ends in one loop, over TCP and Unix sockets, and the limits of conn.h. Its neighbours:
 * conn_handshake_test.c, conn_payload_test.c, conn_unix_test.c, conn_hostile_test.c, conn_stress_test.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "net/conn_ends_test.h"

static void test_frames_tcp(void **state)
{
    open_tcp();
    exchange(0);
    exchange(1);
    exchange(5000);
    exchange(65536 - 64);
    exchange(65536);
    exchange(65537);
    exchange(1 << 20);
}

static void test_frames_unix(void **state)
{
    open_unix();
    assert_true(conn_is_unix(server.conn));
    exchange(0);
    exchange(100000);
}

static bool many_came(void *arg)
{
    return client.frames == 500;
}

static bool server_has_500(void *arg)
{
    return server.frames == 500;
}

static void test_many_small_frames_in_order(void **state)
{
    struct conn_stats stats;

    open_tcp();
    for (uint64_t i = 1; i <= 500; i++) {
        struct conn_msg msg = {.type = 0x7001, .request = i, .body = {(uint8_t *)&i, sizeof(i)}};

        assert_int_equal(conn_send(client.conn, &msg), MC_OK);
    }
    assert_true(run_until(loop, many_came, NULL, WAIT_MS));
    assert_int_equal(client.last.request, 500);
    conn_stats(client.conn, &stats);
    assert_int_equal(stats.frames_out, 501);
}

/* What is flushed has left before the turn ends; into a socket that is full it stays in the queue, and comes all the same. */
static void test_flush(void **state)
{
    static uint8_t body[60000];
    struct conn_msg msg = {.type = 0x7001, .body = {body, sizeof(body)}};
    struct conn_stats before, after;

    dial_opts.limits.queue_max = 64u << 20;
    server.echo = false;
    open_tcp();
    conn_stats(client.conn, &before);
    assert_int_equal(conn_send(client.conn, &msg), MC_OK);
    conn_flush(client.conn);
    conn_stats(client.conn, &after);
    assert_int_equal(after.frames_out, before.frames_out + 1);
    assert_int_equal(conn_queued(client.conn), 0);

    for (unsigned i = 0; i < 499; i++) {
        assert_int_equal(conn_send(client.conn, &msg), MC_OK);
        conn_flush(client.conn);
    }
    assert_true(conn_queued(client.conn) > 0); /* nobody has read: 30 MB do not fit in between */
    assert_true(run_until(loop, server_has_500, NULL, WAIT_MS));
    assert_int_equal(conn_queued(client.conn), 0);
}

static void test_ping_and_unknown(void **state)
{
    struct conn_msg ping = {.type = MSG_PING, .request = 5, .body = slice_str("hello")};

    open_tcp();
    assert_int_equal(conn_send(client.conn, &ping), MC_OK);
    assert_true(run_until(loop, client_has_frame, NULL, WAIT_MS));
    assert_int_equal(client.last.type, MSG_PING);
    assert_int_equal(client.last.flags, FRAME_REPLY);
    assert_memory_equal(client.body, "hello", 5);
    assert_int_equal(server.frames, 0);
}

/* ---- limits ---- */

static bool writable_again(void *arg)
{
    return client.writables > 0;
}

static void test_queue_limit(void **state)
{
    static uint8_t body[60000];
    struct conn_msg msg = {.type = 0x7001, .body = {body, sizeof(body)}, .sent = on_sent, .sent_arg = &client};
    unsigned queued = 0;
    enum mc_status status;

    dial_opts.limits.queue_max = 1u << 20;
    server.echo = false;
    open_tcp();
    while ((status = conn_send(client.conn, &msg)) == MC_OK)
        queued++;
    assert_int_equal(status, MC_AGAIN);
    assert_int_equal(queued, (1u << 20) / (sizeof(body) + 64));
    assert_true(run_until(loop, writable_again, NULL, WAIT_MS));
    assert_int_equal(conn_send(client.conn, &msg), MC_OK);
    assert_int_equal(client.writables, 1);
}

static void test_too_big(void **state)
{
    static uint8_t body[2000];
    struct conn_span span = {body, sizeof(body)};
    struct conn_msg msg = {.type = 0x7001, .body = {body, sizeof(body)}};
    struct conn_msg payload = {.type = 0x7001, .spans = &span, .span_count = 1};

    listen_opts.limits.body_max = 1999;
    listen_opts.limits.payload_max = 1999;
    open_tcp();
    assert_int_equal(conn_send(client.conn, &msg), MC_ETOOBIG);
    assert_int_equal(conn_send(client.conn, &payload), MC_ETOOBIG);
}

static void test_credits(void **state)
{
    struct conn_msg msg = {.type = 0x7001, .request = 1};

    listen_opts.limits.credits = 3;
    server.echo = false;
    open_tcp();
    assert_int_equal(conn_peer(client.conn)->credits, 3);
    for (int i = 0; i < 4; i++)
        assert_int_equal(conn_send(client.conn, &msg), MC_OK);
    assert_true(run_until(loop, both_closed, NULL, WAIT_MS));
    assert_int_equal(server.frames, 3);
    assert_int_equal(server.status, MC_EPROTO);
}

static void test_drop_queued(void **state)
{
    struct conn_msg msg = {.type = 0x7001, .sent = on_sent, .sent_arg = &client};

    open_tcp();
    assert_int_equal(conn_send(client.conn, &msg), MC_OK);
    conn_drop_queued(client.conn, MC_ECANCELED);
    assert_int_equal(client.sent, 0);
    assert_true(run_until(loop, client_was_sent, NULL, WAIT_MS));
    assert_int_equal(client.sent, 1);
    assert_int_equal(client.sent_status, MC_ECANCELED);
    assert_int_equal(server.frames, 0);
    exchange(4);
}

/* ---- being stopped ---- */

static struct conn *blocked; /* the one that held up the loop */

static void block_once(struct conn *conn, const struct frame *frame)
{
    if (blocked)
        return;
    blocked = conn;
    usleep(LOOP_GAP_NS / NS_PER_US + 50000);
}

static void cut_the_other(struct loop *l, struct loop_gap *gap, uint64_t gap_ns)
{
    struct conn *other = blocked == client.conn ? server.conn : client.conn;

    if (blocked && other)
        conn_abort(other, MC_ECANCELED);
}

/* Both sides have something to read in one turn. The first takes so long that watchers run before the second, and cut it. */
static void test_cut_in_front_of_its_own_callback(void **state)
{
    struct conn_ops slow = ends_ops;
    struct conn_msg msg = {.type = 0x7001};
    struct loop_gap gap = {.fn = cut_the_other};

    slow.on_frame = block_once;
    listen_opts.ops = dial_opts.ops = &slow;
    open_tcp();
    blocked = NULL;
    loop_gap_watch(loop, &gap);
    assert_int_equal(conn_send(client.conn, &msg), MC_OK);
    assert_int_equal(conn_send(server.conn, &msg), MC_OK);
    assert_true(run_until(loop, both_closed, NULL, WAIT_MS));
    assert_true(client.status == MC_ECANCELED || server.status == MC_ECANCELED);
    loop_gap_unwatch(loop, &gap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CONN_TEST(test_frames_tcp),
        CONN_TEST(test_frames_unix),
        CONN_TEST(test_many_small_frames_in_order),
        CONN_TEST(test_flush),
        CONN_TEST(test_ping_and_unknown),
        CONN_TEST(test_queue_limit),
        CONN_TEST(test_too_big),
        CONN_TEST(test_credits),
        CONN_TEST(test_drop_queued),
        CONN_TEST(test_cut_in_front_of_its_own_callback),
    };

    return cmocka_run_group_tests_name("conn test new.c", tests, NULL, NULL);
}
