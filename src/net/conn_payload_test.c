/* conn_payload_test.c - payload: every byte where it belongs and verified, sources, giving up, and what closing and aborting do to it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/crc.h"
#include "net/conn_ends_test.h"

#define FIRST (64u << 10) /* the largest first piece */

static void send_spans(const struct conn_span *spans, size_t count)
{
    struct conn_msg msg = {.type = 0x7002,
        .request = 1,
        .body = slice_str("the body"),
        .spans = spans,
        .span_count = count,
        .sent = on_sent,
        .sent_arg = &client};

    client.sent = server.payload_ends = server.pieces = server.frames = 0;
    server.echo = false;
    assert_int_equal(conn_send(client.conn, &msg), MC_OK);
    assert_true(run_until(loop, server_payload_over, NULL, WAIT_MS));
    assert_int_equal(server.payload_ends, 1);
    assert_int_equal(client.sent, 1);
    assert_true(server.payload_body_ok);
}

/* Whole ones, but for the first. */
static size_t pieces_of(size_t len)
{
    return len <= FIRST ? 1 : 1 + (len - FIRST + PIECE_MAX - 1) / PIECE_MAX;
}

static void payload_roundtrip(size_t len, size_t step)
{
    uint8_t *bytes = noise(len);
    struct conn_span span = {.ptr = bytes, .len = len};

    free(server.dst);
    give_dst(&server, len);
    server.dst_step = step;
    send_spans(&span, 1);
    assert_int_equal(server.payload_status, MC_OK);
    assert_int_equal(server.pieces, pieces_of(len));
    assert_memory_equal(server.dst, bytes, len);
    free(bytes);
}

static void test_payload_tcp(void **state)
{
    open_tcp();
    payload_roundtrip(1, 0);
    payload_roundtrip(4095, 0);
    payload_roundtrip(PIECE_MAX, 0);
    payload_roundtrip(PIECE_MAX + 1, 0);
    payload_roundtrip(BIG, 0);
    payload_roundtrip(BIG, 10000); /* the owner gives small places */
}

static void test_payload_unix(void **state)
{
    open_unix();
    payload_roundtrip(BIG, 0);
    payload_roundtrip(100, 7);
}

static void test_payload_thrown_away(void **state)
{
    uint8_t *bytes = noise(BIG);
    struct conn_span span = {.ptr = bytes, .len = BIG};

    open_tcp();
    send_spans(&span, 1);
    assert_int_equal(server.payload_status, MC_OK);
    assert_int_equal(server.pieces, 0);
    server.echo = true;
    exchange(10);
    free(bytes);
}

static void test_spans(void **state)
{
    uint8_t *bytes = noise(300000);
    struct conn_span spans[] = {
        {bytes, 65536}, {bytes + 65536, 0}, {bytes + 65536, 10}, {bytes + 65546, 300000 - 65546}};

    open_tcp();
    give_dst(&server, 300000);
    send_spans(spans, 4);
    assert_int_equal(server.payload_status, MC_OK);
    assert_int_equal(server.pieces, 3);
    assert_memory_equal(server.dst, bytes, 300000);
    free(bytes);
}

/* ---- sources ---- */

struct source {
    const uint8_t *bytes;
    uint64_t fail_at;
    uint64_t damaged_at; /* 0: nowhere */
    unsigned calls;
    bool stays;
    uint8_t staging[5000];
};

static enum mc_status next_piece(void *arg, uint64_t off, size_t max, struct conn_piece *piece)
{
    struct source *source = arg;
    size_t len = max < sizeof(source->staging) ? max : sizeof(source->staging);

    source->calls++;
    if (off >= source->fail_at)
        return MC_ESTALE;
    memcpy(source->staging, source->bytes + off, len); /* the same memory each time */
    *piece = (struct conn_piece){
        .ptr = source->stays ? source->bytes + off : source->staging, .len = len, .stays = source->stays};
    if (off > 0 && off == source->damaged_at) { /* a bit flipped in memory since its checksum was made */
        piece->crc = crc32c(0, piece->ptr, len) ^ 1;
        piece->has_crc = true;
    }
    return MC_OK;
}

static void source_run(uint64_t fail_at, bool stays, enum mc_status expect)
{
    struct source source = {.bytes = noise(100000), .fail_at = fail_at, .stays = stays};
    struct conn_msg msg = {.type = 0x7002,
        .source = next_piece,
        .source_arg = &source,
        .payload_len = 100000,
        .sent = on_sent,
        .sent_arg = &client};

    open_tcp();
    give_dst(&server, 100000);
    assert_int_equal(conn_send(client.conn, &msg), MC_OK);
    assert_true(run_until(loop, server_payload_over, NULL, WAIT_MS));
    assert_int_equal(server.payload_status, expect);
    assert_int_equal(client.sent_status, expect);
    if (expect == MC_OK)
        assert_memory_equal(server.dst, source.bytes, 100000);
    assert_int_equal(client.sent, 1);
    exchange(10);
    free((void *)source.bytes);
}

static void test_source(void **state)
{
    source_run(UINT64_MAX, false, MC_OK);
}

static void test_source_of_what_stays(void **state)
{
    source_run(UINT64_MAX, true, MC_OK);
}

static void test_source_gives_up(void **state)
{
    source_run(50000, false, MC_ESTALE);
}

static void test_source_of_what_stays_gives_up(void **state)
{
    source_run(50000, true, MC_ESTALE);
}

static void test_damaged_payload(void **state)
{
    struct source source = {
        .bytes = noise(BIG), .fail_at = UINT64_MAX, .damaged_at = sizeof(source.staging), .stays = true};
    struct conn_msg msg = {.type = 0x7002,
        .source = next_piece,
        .source_arg = &source,
        .payload_len = BIG,
        .sent = on_sent,
        .sent_arg = &client};
    uint64_t warned = log_count(LOG_LEVEL_WARN);

    open_tcp();
    give_dst(&server, BIG);
    assert_int_equal(conn_send(client.conn, &msg), MC_OK);
    assert_true(run_until(loop, server_payload_over, NULL, WAIT_MS));
    assert_int_equal(server.payload_status, MC_ECORRUPT);
    assert_int_equal(server.pieces, 1); /* what follows the damage is thrown away */
    assert_int_equal(log_count(LOG_LEVEL_WARN), warned + 1);
    server.echo = true;
    exchange(10); /* the connection goes on */
    free((void *)source.bytes);
}

struct watched_source {
    const uint8_t *bytes;
    unsigned calls;
    uint64_t left[2]; /* what had left when the first piece was asked for, and the second */
};

static enum mc_status watched_piece(void *arg, uint64_t off, size_t max, struct conn_piece *piece)
{
    struct watched_source *source = arg;
    struct conn_stats stats;

    conn_stats(client.conn, &stats);
    if (source->calls < 2)
        source->left[source->calls++] = stats.bytes_out;
    *piece = (struct conn_piece){.ptr = source->bytes + off, .len = max, .stays = true};
    return MC_OK;
}

/* The receiver is waking up while the rest of a large payload is hashed. */
static void test_the_first_piece_leaves_at_once(void **state)
{
    struct watched_source source = {.bytes = noise(BIG)};
    struct conn_msg msg = {.type = 0x7002,
        .source = watched_piece,
        .source_arg = &source,
        .payload_len = BIG,
        .sent = on_sent,
        .sent_arg = &client};

    open_tcp();
    give_dst(&server, BIG);
    assert_int_equal(conn_send(client.conn, &msg), MC_OK);
    assert_true(run_until(loop, server_payload_over, NULL, WAIT_MS));
    assert_int_equal(source.calls, 2);
    assert_true(source.left[1] > source.left[0] + 4096);
    assert_memory_equal(server.dst, source.bytes, BIG);
    free((void *)source.bytes);
}

/* ---- ends ---- */

/* After abort nothing is written any more: the receiver's memory is unmapped right after it. */
static void test_abort_while_receiving(void **state)
{
    uint8_t *bytes = noise(BIG);
    struct conn_span span = {.ptr = bytes, .len = BIG};
    struct conn_msg msg = {.type = 0x7002, .spans = &span, .span_count = 1, .sent = on_sent, .sent_arg = &client};

    listen_opts.limits.socket_buffer = dial_opts.limits.socket_buffer = 100000;
    open_tcp();
    give_dst(&server, BIG);
    server.abort_after = 2;
    assert_int_equal(conn_send(client.conn, &msg), MC_OK);
    assert_true(run_until(loop, both_closed, NULL, WAIT_MS));
    assert_int_equal(server.pieces, 2);
    assert_int_equal(server.payload_ends, 1);
    assert_int_equal(server.payload_status, MC_ECANCELED);
    assert_int_equal(server.status, MC_ECANCELED);
    assert_int_equal(client.status, MC_EPEERDOWN);
    assert_int_equal(client.sent, 1);
    assert_int_equal(client.sent_status, MC_EPEERDOWN);
    free(bytes);
}

/* The kernel has taken what it takes of the payload, and nobody reads it. */
static bool client_is_stuck(void *arg)
{
    static uint64_t before;
    struct conn_stats stats;
    uint64_t last = before;

    conn_stats(client.conn, &stats);
    before = stats.bytes_out;
    return last > 4096 && stats.bytes_out == last;
}

/* Pieces that stay where they are travel several at a time: one for each call would be one waking of the receiver for each. */
static void test_pieces_are_open_together(void **state)
{
    struct source source = {.bytes = noise(BIG), .fail_at = UINT64_MAX, .stays = true};
    struct conn_msg msg = {.type = 0x7002, .source = next_piece, .source_arg = &source, .payload_len = BIG};
    struct conn_stats stats;

    listen_opts.limits.socket_buffer = dial_opts.limits.socket_buffer = 100000;
    open_tcp();
    conn_pause(server.conn);
    assert_int_equal(conn_send(client.conn, &msg), MC_OK);
    assert_true(run_until(loop, client_is_stuck, NULL, WAIT_MS));
    conn_stats(client.conn, &stats);
    assert_true(source.calls * sizeof(source.staging) > stats.bytes_out + 4 * sizeof(source.staging));
    conn_abort(client.conn, MC_ECANCELED);
    conn_resume(server.conn);
    assert_true(run_until(loop, both_closed, NULL, WAIT_MS));
    free((void *)source.bytes);
}

/* A sender that cuts the connection takes back what the receiver has not read yet. */
static void test_reset_drops_what_is_queued(void **state)
{
    uint8_t *bytes = noise(BIG);
    struct conn_span span = {.ptr = bytes, .len = BIG};
    struct conn_msg msg = {.type = 0x7002, .spans = &span, .span_count = 1, .sent = on_sent, .sent_arg = &client};
    unsigned pieces;

    listen_opts.limits.socket_buffer = dial_opts.limits.socket_buffer = 100000;
    open_tcp();
    give_dst(&server, BIG);
    conn_pause(server.conn);
    assert_int_equal(conn_send(client.conn, &msg), MC_OK);
    assert_true(run_until(loop, client_is_stuck, NULL, WAIT_MS));
    pieces = server.pieces;
    conn_abort(client.conn, MC_ECANCELED);
    assert_int_equal(client.sent, 0);
    conn_resume(server.conn);
    assert_true(run_until(loop, both_closed, NULL, WAIT_MS));
    assert_int_equal(client.sent, 1);
    assert_int_equal(client.sent_status, MC_ECANCELED);
    assert_int_equal(server.pieces, pieces);
    assert_int_equal(server.status, MC_EPEERDOWN);
    free(bytes);
}

static void test_close_sends_what_is_queued(void **state)
{
    uint8_t *bytes = noise(BIG);
    struct conn_span span = {.ptr = bytes, .len = BIG};
    struct conn_msg msg = {.type = 0x7002, .spans = &span, .span_count = 1, .sent = on_sent, .sent_arg = &client};

    open_tcp();
    give_dst(&server, BIG);
    assert_int_equal(conn_send(client.conn, &msg), MC_OK);
    conn_close(client.conn);
    conn_close(client.conn);
    assert_int_equal(conn_send(client.conn, &msg), MC_ECLOSED);
    assert_true(run_until(loop, both_closed, NULL, WAIT_MS));
    assert_int_equal(server.payload_status, MC_OK);
    assert_memory_equal(server.dst, bytes, BIG);
    assert_int_equal(client.sent_status, MC_OK);
    assert_int_equal(client.status, MC_ECLOSED);
    assert_int_equal(server.status, MC_ECLOSED);
    free(bytes);
}

static void test_close_does_not_wait_for_ever(void **state)
{
    uint8_t *bytes = noise(32u << 20);
    struct conn_span span = {.ptr = bytes, .len = 32u << 20};
    struct conn_msg msg = {.type = 0x7002, .spans = &span, .span_count = 1, .sent = on_sent, .sent_arg = &client};

    dial_opts.limits.linger_ms = 50;
    open_tcp();
    conn_pause(server.conn);
    assert_int_equal(conn_send(client.conn, &msg), MC_OK);
    conn_close(client.conn);
    assert_true(run_until(loop, flag_is_set, &client.closed, WAIT_MS));
    assert_int_equal(client.sent, 1);
    free(bytes);
}

/* ---- how much is read, and waited for ---- */

#define DRIB 10000

/* A dialler that begins a payload of so many whole pieces, and the first bytes of one of them. */
static int begin_payload(unsigned pieces)
{
    size_t len = pieces * (size_t)PIECE_MAX;
    int fd = raw_connect();

    raw_hello(fd);
    assert_true(run_until(loop, flag_is_set, &server.ready, WAIT_MS));
    give_dst(&server, len);
    raw_frame(fd, (struct frame){.type = 0x7002, .request = 1, .payload_len = len}, NULL);
    return fd;
}

static void begin_piece(int fd, const uint8_t *bytes, size_t len)
{
    struct piece piece = {.len = PIECE_MAX, .crc = crc32c(0, bytes, PIECE_MAX)};
    struct iovec iov[2];
    uint8_t head[PIECE_HEADER_SIZE];

    piece_encode(&piece, head);
    iov[0] = (struct iovec){head, sizeof(head)};
    iov[1] = (struct iovec){(void *)(uintptr_t)bytes, len};
    assert_int_equal(writev(fd, iov, 2), sizeof(head) + len);
}

static bool server_has_frame(void *arg)
{
    return server.frames > 0;
}

static bool server_has_drib(void *arg)
{
    return server.dst[DRIB - 1] != 0;
}

struct place {
    size_t at;
    uint8_t byte;
};

static bool server_has_byte(void *arg)
{
    const struct place *place = arg;

    return server.dst[place->at] == place->byte;
}

static bool server_has_piece(void *arg)
{
    return server.pieces == *(unsigned *)arg;
}

/* Of a piece begun, the bytes from `at` up to `end`. */
static void send_rest(int fd, const uint8_t *bytes, size_t at, size_t end)
{
    while (at < end) {
        ssize_t n = send(fd, bytes + at, end - at, MSG_DONTWAIT);

        if (n < 0)
            run_for(loop, 1); /* the socket is full */
        at += n < 0 ? 0 : (size_t)n;
    }
}

static void finish_piece(int fd, const uint8_t *bytes, unsigned number)
{
    send_rest(fd, bytes, DRIB, PIECE_MAX);
    assert_true(run_until(loop, server_has_piece, &number, WAIT_MS));
}

/* Of a payload no more than the header of a piece goes through the connection's buffer, but for what comes with the frame. */
static void test_pieces_go_straight_to_their_place(void **state)
{
    uint8_t *bytes = noise(2 * (size_t)PIECE_MAX);
    uint64_t before;
    int fd;

    fd = begin_payload(2);
    assert_true(run_until(loop, server_has_frame, NULL, WAIT_MS));
    before = server.through_buffer;
    begin_piece(fd, bytes, DRIB);
    finish_piece(fd, bytes, 1);
    begin_piece(fd, bytes + PIECE_MAX, DRIB);
    finish_piece(fd, bytes + PIECE_MAX, 2);
    assert_true(server.through_buffer < before + DRIB); /* tails, which are not worth a call of their own */
    assert_int_equal(server.payload_status, MC_OK);
    assert_memory_equal(server.dst, bytes, 2 * (size_t)PIECE_MAX);
    close(fd);
    free(bytes);
}

/* Of a piece whose end comes apart from it, only that goes through the buffer, not the piece behind it. */
static void test_the_end_of_a_piece_brings_nothing_along(void **state)
{
    uint8_t *bytes = noise(PIECE_MAX);
    size_t end = PIECE_MAX - 1000;
    uint64_t before;
    int fd;

    fd = begin_payload(2);
    assert_true(run_until(loop, server_has_frame, NULL, WAIT_MS));
    begin_piece(fd, bytes, DRIB);
    server.dst[end - 1] = (uint8_t)~bytes[end - 1];
    send_rest(fd, bytes, DRIB, end);
    assert_true(run_until(loop, server_has_byte, &(struct place){end - 1, bytes[end - 1]}, WAIT_MS));
    before = server.through_buffer;
    send_rest(fd, bytes, end, PIECE_MAX);
    begin_piece(fd, bytes, DRIB);
    finish_piece(fd, bytes, 2);
    assert_true(server.through_buffer < before + DRIB);
    assert_memory_equal(server.dst + PIECE_MAX, bytes, PIECE_MAX);
    close(fd);
    free(bytes);
}

/* After a large payload the next frame is read up to its payload, which goes to its place then. */
static void test_the_next_payload_goes_straight_to_its_place(void **state)
{
    uint8_t *bytes = noise(PIECE_MAX);
    uint64_t before;
    int fd;

    fd = begin_payload(1);
    begin_piece(fd, bytes, DRIB);
    finish_piece(fd, bytes, 1);
    before = server.through_buffer;
    raw_frame(fd, (struct frame){.type = 0x7002, .request = 2, .payload_len = PIECE_MAX}, NULL);
    begin_piece(fd, bytes, DRIB);
    finish_piece(fd, bytes, 2);
    assert_true(server.through_buffer < before + DRIB);
    close(fd);
    free(bytes);
}

static bool server_waits_for_much(void *arg)
{
    int mark = 0;
    socklen_t len = sizeof(mark);

    assert_int_equal(getsockopt(conn_io(server.conn)->fd, SOL_SOCKET, SO_RCVLOWAT, &mark, &len), 0);
    return mark > DRIB;
}

/* In the middle of a long payload it is not woken for every packet; what is there is taken in time when no more comes. */
static void test_waits_for_much_but_not_long(void **state)
{
    uint8_t *bytes = noise(PIECE_MAX);
    int fd;

    bytes[DRIB - 1] = 7;
    fd = begin_payload(4);
    assert_true(run_until(loop, server_waits_for_much, NULL, WAIT_MS));
    begin_piece(fd, bytes, DRIB);
    assert_true(run_until(loop, server_has_drib, NULL, WAIT_MS));
    assert_memory_equal(server.dst, bytes, DRIB);
    assert_int_equal(server.payload_ends, 0);
    close(fd);
    free(bytes);
}

/* The last 512 KiB are taken packet by packet: somebody waits for their end. */
static void test_does_not_wait_near_the_end(void **state)
{
    uint8_t *bytes = noise(PIECE_MAX);
    int fd;

    bytes[DRIB - 1] = 7;
    fd = begin_payload(3);
    assert_true(run_until(loop, server_waits_for_much, NULL, WAIT_MS));
    begin_piece(fd, bytes, DRIB);
    finish_piece(fd, bytes, 1);
    assert_false(server_waits_for_much(NULL));
    close(fd);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CONN_TEST(test_payload_tcp),
        CONN_TEST(test_payload_unix),
        CONN_TEST(test_payload_thrown_away),
        CONN_TEST(test_spans),
        CONN_TEST(test_source),
        CONN_TEST(test_source_of_what_stays),
        CONN_TEST(test_source_gives_up),
        CONN_TEST(test_source_of_what_stays_gives_up),
        CONN_TEST(test_pieces_are_open_together),
        CONN_TEST(test_the_first_piece_leaves_at_once),
        CONN_TEST(test_damaged_payload),
        CONN_TEST(test_abort_while_receiving),
        CONN_TEST(test_reset_drops_what_is_queued),
        CONN_TEST(test_close_sends_what_is_queued),
        CONN_TEST(test_close_does_not_wait_for_ever),
        CONN_TEST(test_pieces_go_straight_to_their_place),
        CONN_TEST(test_the_end_of_a_piece_brings_nothing_along),
        CONN_TEST(test_the_next_payload_goes_straight_to_its_place),
        CONN_TEST(test_waits_for_much_but_not_long),
        CONN_TEST(test_does_not_wait_near_the_end),
    };

    return cmocka_run_group_tests_name("conn payload", tests, NULL, NULL);
}
