/* conn_handshake_test.c - who may talk to whom: HELLO, refusals and their texts, who is too late, who is one too many. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "net/conn_ends_test.h"

static void test_handshake(void **state)
{
    open_tcp();
    assert_true(client.ready && server.ready);
    assert_true(conn_ready(client.conn));
    assert_int_equal(conn_peer(client.conn)->role, ROLE_NODE);
    assert_int_equal(conn_peer(client.conn)->epoch, 7);
    assert_string_equal(conn_peer(client.conn)->host_id, "host-a");
    assert_string_equal(conn_peer(server.conn)->host_id, "host-b");
    assert_int_equal(conn_features(client.conn), 2);
    assert_int_equal(conn_features(server.conn), 2);
    assert_int_equal(conn_protocol(server.conn), PROTOCOL_MAX);
    assert_int_equal(conn_peer(client.conn)->credits, 1024);
    assert_true(listener_addr(listener)->port != 0);
    conn_close(client.conn);
    assert_true(run_until(loop, both_closed, NULL, WAIT_MS));
    assert_int_equal(client.status, MC_ECLOSED);
    assert_int_equal(server.status, MC_ECLOSED);
}

static void refused(enum mc_status status, const char *text)
{
    open_tcp();
    assert_true(client.closed);
    assert_false(client.ready);
    assert_false(server.ready);
    assert_int_equal(client.status, status);
    assert_non_null(strstr(client.refusal, text));
}

static void test_refused_version(void **state)
{
    server_hello.protocol_min = 9;
    server_hello.protocol_max = 12;
    refused(MC_EVERSION, "here 9 to 12 (server 1), there 1 to 1 (client 1)");
}

static void test_refused_by_dialer(void **state)
{
    struct hello_expect expect = {.uuid_set = true};

    /* The dialer does not like whom it found; the acceptor was ready by then and sees the connection close. */
    memset(expect.uuid, 0xbb, UUID_SIZE);
    dial_opts.expect = &expect;
    open_tcp();
    assert_true(run_until(loop, both_closed, NULL, WAIT_MS));
    assert_int_equal(client.status, MC_EREFUSED);
    assert_non_null(strstr(client.refusal, "expected bbbbbbbb-bbbb"));
}

static void test_refused_epoch(void **state)
{
    struct hello_expect expect = {.epoch_set = true, .epoch = 8};

    dial_opts.expect = &expect;
    open_tcp();
    assert_true(run_until(loop, both_closed, NULL, WAIT_MS));
    assert_int_equal(client.status, MC_EREFUSED);
    assert_non_null(strstr(client.refusal, "expected 8, found 7"));
}

static void test_refused_role(void **state)
{
    listen_opts.expect.roles = 1u << ROLE_NODE | 1u << ROLE_WORKER;
    refused(MC_EREFUSED, "role client");
}

static void test_refused_recipe(void **state)
{
    memset(server_hello.recipe, 1, 32);
    memset(client_hello.recipe, 2, 32);
    refused(MC_EMISMATCH, "here 0101010101010101, there 0202020202020202");
}

static void test_refused_auth(void **state)
{
    strcpy(client_hello.auth_method, "psk");
    refused(MC_EPERM, "'psk' is not 'none'");
}

static enum mc_status say_no(struct conn *conn, const struct hello *peer, struct buf *why)
{
    buf_append_str(why, "not today");
    return MC_EBUSY;
}

static void test_refused_by_owner(void **state)
{
    listen_opts.on_hello = say_no;
    refused(MC_EBUSY, "not today");
}

static void test_nobody_listens(void **state)
{
    struct addr addr = loopback();

    addr.port = 1;
    assert_int_equal(conn_connect(loop, &addr, &dial_opts, &client.conn), MC_OK);
    assert_false(client.closed);
    assert_true(run_until(loop, flag_is_set, &client.closed, WAIT_MS));
    assert_int_equal(client.status, MC_EPEERDOWN);
}

static void test_name_is_looked_up(void **state)
{
    struct addr addr = {.kind = ADDR_NAME, .port = 1, .host = "no-such-host.invalid"};

    assert_int_equal(conn_connect(loop, &addr, &dial_opts, &client.conn), MC_OK);
    conn_abort(client.conn, MC_ECANCELED); /* while the look-up runs */
    assert_true(run_until(loop, flag_is_set, &client.closed, WAIT_MS));
    assert_int_equal(client.status, MC_ECANCELED);
}

static void test_handshake_timeout(void **state)
{
    struct addr addr = loopback();
    struct sockaddr_storage sa;
    socklen_t len;
    int fd;

    /* Somebody listens and says nothing. */
    assert_int_equal(addr_resolve(&addr, &sa, &len), MC_OK);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, len), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(addr_of_socket(fd, &addr), MC_OK);
    dial_opts.limits.handshake_ms = 60;
    assert_int_equal(conn_connect(loop, &addr, &dial_opts, &client.conn), MC_OK);
    assert_true(run_until(loop, flag_is_set, &client.closed, WAIT_MS));
    assert_int_equal(client.status, MC_ETIMEDOUT);
    close(fd);
}

static void test_send_before_ready(void **state)
{
    struct conn_msg msg = {.type = 0x7001};
    struct addr addr = loopback();

    assert_int_equal(conn_listen(loop, &addr, &listen_opts, &listener), MC_OK);
    assert_int_equal(conn_connect(loop, listener_addr(listener), &dial_opts, &client.conn), MC_OK);
    assert_int_equal(conn_send(client.conn, &msg), MC_AGAIN);
    assert_true(run_until(loop, settled, NULL, WAIT_MS));
    assert_int_equal(conn_send(client.conn, &msg), MC_OK);
}

/* ---- slow ones and too many ---- */

/* A hello that drips in is not waited for: the time counts from connecting, not from the last byte. */
static void test_slow_handshake(void **state)
{
    struct buf body;
    uint8_t head[FRAME_HEADER_SIZE];
    uint64_t start = now_ns();
    size_t sent = 0;
    int fd;

    listen_opts.limits.handshake_ms = 80;
    fd = raw_connect();
    buf_init(&body, SIZE_MAX);
    hello_encode(&client_hello, &body);
    frame_encode(&(struct frame){.type = MSG_HELLO, .body_len = (uint32_t)body.len}, head);
    while (sent < sizeof(head) && !hung_up(&fd)) {
        send(fd, head + sent++, 1, MSG_NOSIGNAL);
        run_for(loop, 10);
    }
    assert_true(hung_up(&fd));
    assert_true(now_ns() - start >= 80 * NS_PER_MS);
    assert_true(sent < sizeof(head)); /* 64 bytes take 640 ms */
    assert_false(server.ready || server.closed);
    buf_fini(&body);
    close(fd);
}

/* Beyond the limit: refused with the reason, then not even that; and served again when somebody has gone. */
static void test_too_many_connections(void **state)
{
    char why[128] = "";
    unsigned all; /* descriptors, so that it is seen when the listener has noticed who came and went */
    int fds[5];

    listen_opts.conns_max = 2;
    fds[0] = raw_connect();
    for (int i = 1; i < 5; i++)
        fds[i] = raw_connect_again();
    assert_true(run_until(loop, hung_up, &fds[4], WAIT_MS));
    all = open_descriptors();
    close(fds[2]);
    close(fds[1]);
    all -= 4;
    assert_true(run_until(loop, descriptors_are, &all, WAIT_MS));
    raw_hello(fds[0]);
    assert_int_equal(raw_answer(fds[0], why, sizeof(why)), MSG_HELLO_OK);
    fds[1] = raw_connect_again();
    all += 2;
    assert_true(run_until(loop, descriptors_are, &all, WAIT_MS));
    raw_hello(fds[3]);
    assert_int_equal(raw_answer(fds[3], why, sizeof(why)), MSG_REFUSE);
    assert_non_null(strstr(why, "already serving 2 connections"));
    close(fds[3]);
    all -= 2;
    assert_true(run_until(loop, descriptors_are, &all, WAIT_MS));
    raw_hello(fds[1]);
    server.ready = false; /* one recorder for two connections */
    assert_int_equal(raw_answer(fds[1], why, sizeof(why)), MSG_HELLO_OK);
    close(fds[4]);
    close(fds[0]);
    assert_true(run_until(loop, flag_is_set, &server.closed, WAIT_MS));
    server.closed = false;
    close(fds[1]);
    assert_true(run_until(loop, flag_is_set, &server.closed, WAIT_MS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CONN_TEST(test_handshake),
        CONN_TEST(test_refused_version),
        CONN_TEST(test_refused_by_dialer),
        CONN_TEST(test_refused_epoch),
        CONN_TEST(test_refused_role),
        CONN_TEST(test_refused_recipe),
        CONN_TEST(test_refused_auth),
        CONN_TEST(test_refused_by_owner),
        CONN_TEST(test_nobody_listens),
        CONN_TEST(test_name_is_looked_up),
        CONN_TEST(test_handshake_timeout),
        CONN_TEST(test_send_before_ready),
        CONN_TEST(test_slow_handshake),
        CONN_TEST(test_too_many_connections),
    };

    return cmocka_run_group_tests_name("conn handshake", tests, NULL, NULL);
}
