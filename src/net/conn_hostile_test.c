/* conn_hostile_test.c - a peer that does not keep to the protocol: it loses its connection, one line says why, and nothing is held
 * for it beyond the limits. A plain socket plays it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/socket.h>

#include "base/crc.h"
#include "net/conn_ends_test.h"

static bool warned_beyond(void *arg)
{
    return log_count(LOG_LEVEL_WARN) > *(uint64_t *)arg;
}

static void malformed(const void *bytes, size_t len, bool after_hello)
{
    int fd = raw_connect();
    uint64_t warned = log_count(LOG_LEVEL_WARN);

    if (after_hello) {
        raw_hello(fd);
        assert_true(run_until(loop, flag_is_set, &server.ready, WAIT_MS));
    }
    assert_int_equal(send(fd, bytes, len, 0), len);
    if (after_hello) {
        assert_true(run_until(loop, flag_is_set, &server.closed, WAIT_MS));
        assert_int_equal(server.status, MC_EPROTO);
    } else {
        assert_true(run_until(loop, warned_beyond, &warned, WAIT_MS));
        assert_false(server.ready || server.closed);
    }
    assert_int_equal(log_count(LOG_LEVEL_WARN), warned + 1);
    close(fd);
}

/* ---- what the other end is told, and what the log says to do ---- */

static char said[512];

static void listen_log(void *arg, enum log_level level, const char *text)
{
    if (level == LOG_LEVEL_WARN)
        snprintf(said, sizeof(said), "%s", text);
}

static void refused_first_frame(const void *bytes, size_t len, const char *both)
{
    char why[256] = "";
    int fd = raw_connect();

    log_capture(listen_log, NULL);
    assert_int_equal(send(fd, bytes, len, 0), len);
    assert_int_equal(raw_answer(fd, why, sizeof(why)), MSG_REFUSE);
    log_capture(NULL, NULL);
    assert_non_null(strstr(why, both));
    assert_non_null(strstr(said, both));
    close(fd);
    listener_close(listener);
    listener = NULL;
}

static void test_frame_of_another_version(void **state)
{
    uint8_t head[FRAME_HEADER_SIZE];

    server_hello.build[0] = 0; /* as everybody's, it says the version */
    frame_encode(&(struct frame){.type = MSG_HELLO}, head);
    le16_put(head + 4, FRAME_VERSION + 1);
    le32_put(head + FRAME_HEADER_SIZE - 4, crc32c(0, head, FRAME_HEADER_SIZE - 4));
    refused_first_frame(head, sizeof(head), "frames of version 2, here (mooncake 0");
    assert_non_null(strstr(said, "update the older one"));
}

static void test_malformed_hello(void **state)
{
    uint8_t head[FRAME_HEADER_SIZE];

    frame_encode(&(struct frame){.type = MSG_HELLO}, head); /* without a protocol range */
    refused_first_frame(
        head, sizeof(head), "malformed protocol range in the handshake, here server 1: run one version");
    head[20] ^= 1;
    refused_first_frame(
        head, sizeof(head), "malformed header crc in a frame header, here server 1: if both ends differ");
}

static void test_says_what_to_do(void **state)
{
    uint8_t head[FRAME_HEADER_SIZE];

    log_capture(listen_log, NULL);
    frame_encode(&(struct frame){.type = MSG_PING, .body_len = 0, .payload_len = 5}, head);
    malformed(head, sizeof(head), true);
    log_capture(NULL, NULL);
    assert_non_null(strstr(said, "malformed payload length in a frame of type ping"));
    assert_non_null(strstr(said, "if here (server 1) and there (client 1) differ run one version"));
}

static void test_garbage_first(void **state)
{
    static const char http[] = "GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: somebody who is lost\r\n\r\n";

    malformed(http, sizeof(http), false);
}

static void test_garbage_later(void **state)
{
    uint8_t head[FRAME_HEADER_SIZE];

    frame_encode(&(struct frame){.type = 0x7001}, head);
    head[20] ^= 1;
    malformed(head, sizeof(head), true);
}

/* Every answer may be held back by a peer that does not read: credits bound how many, also of answers to unknown messages. */
static void test_questions_without_reading(void **state)
{
    int small = 4096, fd, sent = 0;
    struct frame frame = {.type = 0x7fff, .request = 1, .deadline_ms = DEADLINE_MS_NONE};
    uint8_t head[FRAME_HEADER_SIZE];
    size_t at = 0;

    listen_opts.limits.credits = 64;
    listen_opts.limits.socket_buffer = 4096;
    server.unknown = true;
    fd = raw_connect();
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    raw_hello(fd);
    assert_true(run_until(loop, flag_is_set, &server.ready, WAIT_MS));
    for (int i = 0; i < 1000 && !server.closed; i++) {
        while (sent < 100000) {
            ssize_t n;

            frame.request = (uint64_t)sent + 1;
            frame_encode(&frame, head);
            n = send(fd, head + at, sizeof(head) - at, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (n <= 0)
                break;
            at = (at + (size_t)n) % sizeof(head);
            sent += at == 0;
        }
        assert_true(server.closed || conn_queued(server.conn) <= 64 * FRAME_HEADER_SIZE);
        run_for(loop, 2);
    }
    assert_true(server.closed);
    assert_int_equal(server.status, MC_EPROTO);
    assert_true(sent < 100000);
    close(fd);
}

static void test_pending_is_no_answer(void **state)
{
    uint8_t head[FRAME_HEADER_SIZE];

    frame_encode(&(struct frame){.type = 0x7001, .flags = FRAME_REPLY, .status = MC_PENDING, .request = 1}, head);
    malformed(head, sizeof(head), true);
}

static void test_body_damaged(void **state)
{
    uint8_t bytes[FRAME_HEADER_SIZE + 4] = {0};

    frame_encode(&(struct frame){.type = 0x7001, .body_len = 4, .body_crc = 1}, bytes);
    malformed(bytes, sizeof(bytes), true);
}

static void test_second_hello(void **state)
{
    uint8_t head[FRAME_HEADER_SIZE];

    frame_encode(&(struct frame){.type = MSG_HELLO}, head);
    malformed(head, sizeof(head), true);
}

static void test_piece_too_long(void **state)
{
    uint8_t bytes[FRAME_HEADER_SIZE + PIECE_HEADER_SIZE];

    frame_encode(&(struct frame){.type = 0x7001, .payload_len = 10}, bytes);
    piece_encode(&(struct piece){.len = 11}, bytes + FRAME_HEADER_SIZE);
    malformed(bytes, sizeof(bytes), true);
    assert_int_equal(server.payload_ends, 1);
    assert_int_equal(server.payload_status, MC_EPROTO);
}

static void test_peer_dies_in_the_middle(void **state)
{
    int fd = raw_connect();

    raw_hello(fd);
    assert_true(run_until(loop, flag_is_set, &server.ready, WAIT_MS));
    raw_frame(fd, (struct frame){.type = 0x7001, .payload_len = 10}, NULL);
    close(fd);
    assert_true(run_until(loop, flag_is_set, &server.closed, WAIT_MS));
    assert_int_equal(server.status, MC_EPEERDOWN);
    assert_int_equal(server.payload_ends, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CONN_TEST(test_frame_of_another_version),
        CONN_TEST(test_malformed_hello),
        CONN_TEST(test_says_what_to_do),
        CONN_TEST(test_garbage_first),
        CONN_TEST(test_garbage_later),
        CONN_TEST(test_questions_without_reading),
        CONN_TEST(test_pending_is_no_answer),
        CONN_TEST(test_body_damaged),
        CONN_TEST(test_second_hello),
        CONN_TEST(test_piece_too_long),
        CONN_TEST(test_peer_dies_in_the_middle),
    };

    return cmocka_run_group_tests_name("conn hostile", tests, NULL, NULL);
}
