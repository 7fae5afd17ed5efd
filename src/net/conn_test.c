/* conn_test.c - connections between two ends in one loop, over TCP and Unix sockets.
 *
 * Goal: every promise of conn.h. Method: a listener and a dialled connection with recording callbacks; where the other side has to
 * misbehave, a plain socket plays it. A stress test with small buffers, random sizes and pauses compares every byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "base/crc.h"
#include "base/hash.h"
#include "net/conn.h"
#include "net/net_test.h"

#define BIG (3u * 1024 * 1024 + 12345)

/* One side, and what it saw. */
struct side {
    struct conn *conn;
    bool ready, closed;
    enum mc_status status;
    char refusal[512];

    unsigned frames, pieces, payload_ends, writables, fds;
    struct frame last;
    uint8_t body[1 << 20];
    size_t body_len;
    enum mc_status payload_status;
    bool payload_body_ok; /* the body was still the same at the end of the payload */

    uint8_t *dst;             /* where payload goes, NULL = thrown away */
    size_t dst_len, dst_step; /* dst_step: give at most so much per question */
    uint64_t asked_max;
    unsigned abort_after; /* abort when so many pieces have come */
    int fd;
    bool echo;    /* answer requests with their body */
    bool unknown; /* or know no message at all */
    unsigned queue_again;

    unsigned sent;
    enum mc_status sent_status;
};

static struct side server, client;
static struct loop *loop;
static struct listener *listener;
static struct hello server_hello, client_hello;
static struct listener_opts listen_opts;
static struct conn_opts dial_opts;
static char dir[64];

static struct side *side_of(struct conn *conn)
{
    return conn_user(conn);
}

static void on_ready(struct conn *conn)
{
    struct side *side = side_of(conn);

    assert_false(side->ready);
    side->ready = true;
    side->conn = conn;
}

static void on_frame(struct conn *conn, const struct frame *frame)
{
    struct side *side = side_of(conn);

    assert_false(side->closed);
    side->frames++;
    side->last = *frame;
    side->body_len = frame->body.len;
    assert_true(frame->body.len <= sizeof(side->body));
    if (frame->body.len)
        memcpy(side->body, frame->body.ptr, frame->body.len);
    if (side->unknown)
        conn_reply_unknown(conn, frame);
    else if (side->echo && frame->request && !(frame->flags & FRAME_REPLY))
        assert_int_equal(conn_reply(conn, frame, MC_OK, frame->body), MC_OK);
}

static size_t payload_dst(struct conn *conn, const struct frame *frame, uint64_t off, size_t max, void **dst)
{
    struct side *side = side_of(conn);

    assert_true(max > 0);
    assert_false(side->closed);
    side->asked_max = off + max > side->asked_max ? off + max : side->asked_max;
    if (side->dst_step && max > side->dst_step)
        max = side->dst_step;
    if (!side->dst)
        return max;
    assert_true(off + max <= side->dst_len);
    *dst = side->dst + off;
    return max;
}

static void on_piece(struct conn *conn, const struct frame *frame, uint64_t off, uint32_t len, uint32_t crc)
{
    struct side *side = side_of(conn);

    assert_non_null(side->dst);
    assert_int_equal(crc32c(0, side->dst + off, len), crc);
    if (++side->pieces == side->abort_after)
        conn_abort(conn, MC_ECANCELED);
}

static void on_payload_end(struct conn *conn, const struct frame *frame, enum mc_status status)
{
    struct side *side = side_of(conn);

    assert_false(side->closed);
    side->payload_ends++;
    side->payload_status = status;
    side->payload_body_ok = frame->body.len == side->body_len &&
                            (side->body_len == 0 || memcmp(frame->body.ptr, side->body, side->body_len) == 0);
}

static void on_writable(struct conn *conn)
{
    side_of(conn)->writables++;
}

static void on_fd(struct conn *conn, const struct frame *frame, int fd)
{
    struct side *side = side_of(conn);

    side->fds++;
    side->fd = fd;
    side->last = *frame;
}

static void on_close(struct conn *conn, enum mc_status status)
{
    struct side *side = side_of(conn);

    assert_false(side->closed);
    side->closed = true;
    side->status = status;
    side->conn = NULL;
    snprintf(side->refusal, sizeof(side->refusal), "%s", conn_refusal(conn));
}

static const struct conn_ops ops = {
    .on_ready = on_ready,
    .on_frame = on_frame,
    .payload_dst = payload_dst,
    .on_piece = on_piece,
    .on_payload_end = on_payload_end,
    .on_writable = on_writable,
    .on_fd = on_fd,
    .on_close = on_close,
};

static void on_sent(void *arg, enum mc_status status)
{
    struct side *side = arg;

    side->sent++;
    side->sent_status = status;
}

/* --- set-up --- */

static int setup(void **state)
{
    memset(&server, 0, sizeof(server));
    memset(&client, 0, sizeof(client));
    server_hello = (struct hello){.role = ROLE_NODE, .epoch = 7, .host_id = "host-a", .build = "server 1"};
    client_hello = (struct hello){.role = ROLE_CLIENT, .features = 6, .host_id = "host-b", .build = "client 1"};
    memset(server_hello.uuid, 0xaa, UUID_SIZE);
    server_hello.features = 3;
    listen_opts = (struct listener_opts){.self = &server_hello, .ops = &ops, .user = &server};
    dial_opts = (struct conn_opts){.self = &client_hello, .ops = &ops, .user = &client};
    server.echo = true;
    loop = loop_create("test");
    assert_non_null(loop);
    listener = NULL;
    temp_dir(dir, sizeof(dir));
    return 0;
}

static bool both_gone(void *arg)
{
    return (!client.conn || client.closed) && (!server.conn || server.closed);
}

static int teardown(void **state)
{
    if (client.conn)
        conn_abort(client.conn, MC_ECLOSED);
    if (server.conn)
        conn_abort(server.conn, MC_ECLOSED);
    listener_close(listener);
    run_until(loop, both_gone, NULL, 1000);
    loop_destroy(loop);
    free(server.dst);
    free(client.dst);
    rmdir(dir);
    return 0;
}

static bool settled(void *arg)
{
    return (client.ready || client.closed) && (server.ready || server.closed || client.closed);
}

static void open_pair(const struct addr *addr)
{
    struct addr at;

    assert_int_equal(conn_listen(loop, addr, &listen_opts, &listener), MC_OK);
    at = *listener_addr(listener);
    assert_int_equal(conn_connect(loop, &at, &dial_opts, &client.conn), MC_OK);
    assert_true(run_until(loop, settled, NULL, 3000));
}

static void open_tcp(void)
{
    struct addr addr = loopback();

    open_pair(&addr);
}

static void open_unix(void)
{
    struct addr addr = {.kind = ADDR_UNIX};

    snprintf(addr.host, sizeof(addr.host), "%s/sock", dir);
    open_pair(&addr);
}

static void give_dst(struct side *side, size_t len)
{
    side->dst = calloc(1, len);
    assert_non_null(side->dst);
    side->dst_len = len;
}

static uint8_t *noise(size_t len)
{
    uint8_t *bytes = malloc(len);
    struct rng rng;

    assert_non_null(bytes);
    rng_seed(&rng, len);
    rng_bytes(&rng, bytes, len);
    return bytes;
}

static bool client_has_frame(void *arg)
{
    return client.frames > 0;
}

static bool server_payload_over(void *arg)
{
    return server.payload_ends > 0 && client.sent > 0;
}

static bool both_closed(void *arg)
{
    return client.closed && server.closed;
}

/* --- handshake --- */

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
    assert_true(run_until(loop, both_closed, NULL, 1000));
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
    assert_true(run_until(loop, both_closed, NULL, 1000));
    assert_int_equal(client.status, MC_EREFUSED);
    assert_non_null(strstr(client.refusal, "expected bbbbbbbb-bbbb"));
}

static void test_refused_epoch(void **state)
{
    struct hello_expect expect = {.epoch_set = true, .epoch = 8};

    dial_opts.expect = &expect;
    open_tcp();
    assert_true(run_until(loop, both_closed, NULL, 1000));
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
    assert_true(run_until(loop, flag_is_set, &client.closed, 1000));
    assert_int_equal(client.status, MC_EPEERDOWN);
}

static void test_name_is_looked_up(void **state)
{
    struct addr addr = {.kind = ADDR_NAME, .port = 1, .host = "no-such-host.invalid"};

    assert_int_equal(conn_connect(loop, &addr, &dial_opts, &client.conn), MC_OK);
    conn_abort(client.conn, MC_ECANCELED); /* while the look-up runs */
    assert_true(run_until(loop, flag_is_set, &client.closed, 1000));
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
    assert_true(run_until(loop, flag_is_set, &client.closed, 1000));
    assert_int_equal(client.status, MC_ETIMEDOUT);
    close(fd);
}

/* --- frames --- */

static void exchange(size_t body_len)
{
    uint8_t *body = noise(body_len + 1), trace[TRACE_SIZE] = {1, 2, 3};
    struct conn_msg msg = {.type = 0x7001,
        .request = 99,
        .trace = trace,
        .body = {body, body_len},
        .deadline_ns = now_ns() + 5 * NS_PER_S,
        .sent = on_sent,
        .sent_arg = &client};

    client.frames = server.frames = client.sent = 0;
    assert_int_equal(conn_send(client.conn, &msg), MC_OK);
    assert_int_equal(client.sent, 0);
    assert_true(run_until(loop, client_has_frame, NULL, 3000));
    assert_int_equal(server.frames, 1);
    assert_int_equal(server.last.type, 0x7001);
    assert_int_equal(server.last.request, 99);
    assert_memory_equal(server.last.trace, trace, TRACE_SIZE);
    assert_true(server.last.deadline_ms > 4000 && server.last.deadline_ms <= 5000);
    assert_int_equal(client.last.flags, FRAME_REPLY);
    assert_int_equal(client.last.request, 99);
    assert_int_equal(client.body_len, body_len);
    assert_memory_equal(client.body, body, body_len);
    assert_int_equal(client.sent, 1);
    assert_int_equal(client.sent_status, MC_OK);
    free(body);
}

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

static void test_many_small_frames_in_order(void **state)
{
    struct conn_stats stats;

    open_tcp();
    for (uint64_t i = 1; i <= 500; i++) {
        struct conn_msg msg = {.type = 0x7001, .request = i, .body = {(uint8_t *)&i, sizeof(i)}};

        assert_int_equal(conn_send(client.conn, &msg), MC_OK);
    }
    assert_true(run_until(loop, many_came, NULL, 3000));
    assert_int_equal(client.last.request, 500);
    conn_stats(client.conn, &stats);
    assert_int_equal(stats.frames_out, 501);
}

static void test_ping_and_unknown(void **state)
{
    struct conn_msg ping = {.type = MSG_PING, .request = 5, .body = slice_str("hello")};

    open_tcp();
    assert_int_equal(conn_send(client.conn, &ping), MC_OK);
    assert_true(run_until(loop, client_has_frame, NULL, 1000));
    assert_int_equal(client.last.type, MSG_PING);
    assert_int_equal(client.last.flags, FRAME_REPLY);
    assert_memory_equal(client.body, "hello", 5);
    assert_int_equal(server.frames, 0);
}

/* --- payload --- */

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
    assert_true(run_until(loop, server_payload_over, NULL, 5000));
    assert_int_equal(server.payload_ends, 1);
    assert_int_equal(client.sent, 1);
    assert_true(server.payload_body_ok);
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
    assert_int_equal(server.pieces, (len + PIECE_MAX - 1) / PIECE_MAX);
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

static void test_spans_with_checksums(void **state)
{
    uint8_t *bytes = noise(300000);
    struct conn_span spans[] = {
        {bytes, 65536, crc32c(0, bytes, 65536), true},
        {bytes + 65536, 0, 0, false},
        {bytes + 65536, 10, crc32c(0, bytes + 65536, 10), true},
        {bytes + 65546, 300000 - 65546, 0, false},
    };

    open_tcp();
    give_dst(&server, 300000);
    send_spans(spans, 4);
    assert_int_equal(server.payload_status, MC_OK);
    assert_int_equal(server.pieces, 3);
    assert_memory_equal(server.dst, bytes, 300000);
    free(bytes);
}

static void test_damaged_payload(void **state)
{
    uint8_t *bytes = noise(PIECE_MAX);
    struct conn_span spans[] = {
        {bytes, 1000, crc32c(0, bytes, 1000), true},
        {bytes + 1000, 1000, 12345, true}, /* a bit flipped in memory since its checksum was made */
        {bytes + 2000, 100000, 0, false},
    };
    uint64_t warned = log_count(LOG_LEVEL_WARN);

    open_tcp();
    give_dst(&server, PIECE_MAX);
    send_spans(spans, 3);
    assert_int_equal(server.payload_status, MC_ECORRUPT);
    assert_int_equal(server.pieces, 1);
    assert_int_equal(log_count(LOG_LEVEL_WARN), warned + 1);
    server.echo = true;
    exchange(10); /* the connection goes on */
    free(bytes);
}

struct source {
    const uint8_t *bytes;
    uint64_t fail_at;
    unsigned calls;
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
    *piece = (struct conn_piece){.ptr = source->staging, .len = len};
    return MC_OK;
}

static void source_run(uint64_t fail_at, enum mc_status expect)
{
    struct source source = {.bytes = noise(100000), .fail_at = fail_at};
    struct conn_msg msg = {.type = 0x7002,
        .source = next_piece,
        .source_arg = &source,
        .payload_len = 100000,
        .sent = on_sent,
        .sent_arg = &client};

    open_tcp();
    give_dst(&server, 100000);
    assert_int_equal(conn_send(client.conn, &msg), MC_OK);
    assert_true(run_until(loop, server_payload_over, NULL, 3000));
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
    source_run(UINT64_MAX, MC_OK);
}

static void test_source_gives_up(void **state)
{
    source_run(50000, MC_ESTALE);
}

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
    assert_true(run_until(loop, both_closed, NULL, 3000));
    assert_int_equal(server.pieces, 2);
    assert_int_equal(server.payload_ends, 1);
    assert_int_equal(server.payload_status, MC_ECANCELED);
    assert_int_equal(server.status, MC_ECANCELED);
    assert_int_equal(client.status, MC_EPEERDOWN);
    assert_int_equal(client.sent, 1);
    assert_int_equal(client.sent_status, MC_EPEERDOWN);
    free(bytes);
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
    run_for(loop, 50);
    pieces = server.pieces;
    conn_abort(client.conn, MC_ECANCELED);
    assert_int_equal(client.sent, 0);
    conn_resume(server.conn);
    assert_true(run_until(loop, both_closed, NULL, 3000));
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
    assert_true(run_until(loop, both_closed, NULL, 3000));
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
    assert_true(run_until(loop, flag_is_set, &client.closed, 1000));
    assert_int_equal(client.sent, 1);
    free(bytes);
}

/* --- limits --- */

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
    assert_true(run_until(loop, writable_again, NULL, 1000));
    assert_int_equal(conn_send(client.conn, &msg), MC_OK);
    assert_int_equal(client.writables, 1);
}

static void test_too_big(void **state)
{
    static uint8_t body[2000];
    struct conn_span span = {body, sizeof(body), 0, false};
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
    assert_true(run_until(loop, both_closed, NULL, 1000));
    assert_int_equal(server.frames, 3);
    assert_int_equal(server.status, MC_EPROTO);
}

static void test_send_before_ready(void **state)
{
    struct conn_msg msg = {.type = 0x7001};
    struct addr addr = loopback();

    assert_int_equal(conn_listen(loop, &addr, &listen_opts, &listener), MC_OK);
    assert_int_equal(conn_connect(loop, listener_addr(listener), &dial_opts, &client.conn), MC_OK);
    assert_int_equal(conn_send(client.conn, &msg), MC_AGAIN);
    assert_true(run_until(loop, settled, NULL, 1000));
    assert_int_equal(conn_send(client.conn, &msg), MC_OK);
}

static void test_drop_queued(void **state)
{
    struct conn_msg msg = {.type = 0x7001, .sent = on_sent, .sent_arg = &client};

    open_tcp();
    assert_int_equal(conn_send(client.conn, &msg), MC_OK);
    conn_drop_queued(client.conn, MC_ECANCELED);
    assert_int_equal(client.sent, 0);
    run_for(loop, 20);
    assert_int_equal(client.sent, 1);
    assert_int_equal(client.sent_status, MC_ECANCELED);
    assert_int_equal(server.frames, 0);
    exchange(4);
}

/* --- a peer that misbehaves --- */

static int raw_connect(void)
{
    struct sockaddr_storage sa;
    struct addr addr = loopback();
    socklen_t len;
    int fd;

    assert_int_equal(conn_listen(loop, &addr, &listen_opts, &listener), MC_OK);
    assert_int_equal(addr_resolve(listener_addr(listener), &sa, &len), MC_OK);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, len), 0);
    return fd;
}

static void raw_frame(int fd, struct frame frame, const void *body)
{
    uint8_t head[FRAME_HEADER_SIZE];

    frame.body_crc = crc32c(0, body, frame.body_len);
    frame.deadline_ms = DEADLINE_MS_NONE;
    frame_encode(&frame, head);
    assert_int_equal(send(fd, head, sizeof(head), 0), sizeof(head));
    if (frame.body_len)
        assert_int_equal(send(fd, body, frame.body_len, 0), frame.body_len);
}

static void raw_hello(int fd)
{
    struct buf body;

    buf_init(&body, SIZE_MAX);
    hello_encode(&client_hello, &body);
    raw_frame(fd, (struct frame){.type = MSG_HELLO, .body_len = (uint32_t)body.len}, body.data);
    buf_fini(&body);
}

static void malformed(const void *bytes, size_t len, bool after_hello)
{
    int fd = raw_connect();
    uint64_t warned = log_count(LOG_LEVEL_WARN);

    if (after_hello) {
        raw_hello(fd);
        assert_true(run_until(loop, flag_is_set, &server.ready, 1000));
    }
    assert_int_equal(send(fd, bytes, len, 0), len);
    if (after_hello) {
        assert_true(run_until(loop, flag_is_set, &server.closed, 1000));
        assert_int_equal(server.status, MC_EPROTO);
    } else {
        run_for(loop, 30);
        assert_false(server.ready || server.closed);
    }
    assert_int_equal(log_count(LOG_LEVEL_WARN), warned + 1);
    close(fd);
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
    assert_true(run_until(loop, flag_is_set, &server.ready, 1000));
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

static int raw_connect_again(void)
{
    struct sockaddr_storage sa;
    socklen_t len;
    int fd;

    assert_int_equal(addr_resolve(listener_addr(listener), &sa, &len), MC_OK);
    fd = socket(sa.ss_family, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, len), 0);
    return fd;
}

static bool hung_up(void *arg)
{
    char bytes[256];
    ssize_t n;

    do
        n = recv(*(int *)arg, bytes, sizeof(bytes), MSG_DONTWAIT);
    while (n > 0);
    return n == 0 || errno != EAGAIN;
}

/* A hello that drips in is not waited for: the time counts from connecting, not from the last byte. */
static void test_slow_handshake(void **state)
{
    struct buf body;
    uint8_t head[FRAME_HEADER_SIZE];
    uint64_t start = now_ns();
    int fd;

    listen_opts.limits.handshake_ms = 80;
    fd = raw_connect();
    buf_init(&body, SIZE_MAX);
    hello_encode(&client_hello, &body);
    frame_encode(&(struct frame){.type = MSG_HELLO, .body_len = (uint32_t)body.len}, head);
    for (size_t i = 0; i < sizeof(head) && !hung_up(&fd); i++) {
        send(fd, head + i, 1, MSG_NOSIGNAL);
        run_for(loop, 10);
    }
    assert_true(hung_up(&fd));
    assert_in_range((now_ns() - start) / NS_PER_MS, 80, 600); /* not the 640 of 64 bytes */
    assert_false(server.ready || server.closed);
    buf_fini(&body);
    close(fd);
}

static uint16_t first_answer(int fd, char *refusal, size_t size)
{
    uint8_t bytes[FRAME_HEADER_SIZE + 1024];
    struct frame frame = {0};
    enum mc_status status;
    const char *bad;
    ssize_t n = 0;

    for (int i = 0; i < 200 && n < FRAME_HEADER_SIZE; i++) {
        run_for(loop, 5);
        n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_PEEK);
    }
    if (n < FRAME_HEADER_SIZE || frame_decode(bytes, 1024, &frame, &bad) != MC_OK)
        return 0;
    if (frame.type == MSG_REFUSE)
        refuse_decode(slice_of(bytes + FRAME_HEADER_SIZE, frame.body_len), &status, refusal, size);
    return frame.type;
}

/* Beyond the limit: refused with the reason, then not even that; and served again when somebody has gone. */
static void test_too_many_connections(void **state)
{
    char why[128] = "";
    int fds[5];

    listen_opts.conns_max = 2;
    fds[0] = raw_connect();
    for (int i = 1; i < 5; i++)
        fds[i] = raw_connect_again();
    run_for(loop, 20);
    assert_true(hung_up(&fds[4]));
    close(fds[2]);
    close(fds[1]);
    run_for(loop, 20);
    raw_hello(fds[0]);
    assert_int_equal(first_answer(fds[0], why, sizeof(why)), MSG_HELLO_OK);
    fds[1] = raw_connect_again();
    run_for(loop, 20);
    raw_hello(fds[3]);
    assert_int_equal(first_answer(fds[3], why, sizeof(why)), MSG_REFUSE);
    assert_non_null(strstr(why, "already serving 2 connections"));
    close(fds[3]);
    run_for(loop, 20);
    raw_hello(fds[1]);
    server.ready = false; /* one recorder for two connections */
    assert_int_equal(first_answer(fds[1], why, sizeof(why)), MSG_HELLO_OK);
    close(fds[4]);
    close(fds[0]);
    assert_true(run_until(loop, flag_is_set, &server.closed, 1000));
    server.closed = false;
    close(fds[1]);
    assert_true(run_until(loop, flag_is_set, &server.closed, 1000));
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
    assert_true(run_until(loop, flag_is_set, &server.ready, 1000));
    raw_frame(fd, (struct frame){.type = 0x7001, .payload_len = 10}, NULL);
    close(fd);
    assert_true(run_until(loop, flag_is_set, &server.closed, 1000));
    assert_int_equal(server.status, MC_EPEERDOWN);
    assert_int_equal(server.payload_ends, 1);
}

/* --- unix sockets --- */

static void test_pass_descriptor(void **state)
{
    int memfd = memfd_create("test", MFD_CLOEXEC);
    struct stat a, b;
    struct conn_msg before = {.type = 0x7001};

    assert_true(memfd >= 0);
    open_unix();
    server.echo = false;
    assert_int_equal(conn_send(client.conn, &before), MC_OK);
    assert_int_equal(conn_send_fd(client.conn, 17, slice_str("which"), memfd), MC_OK);
    assert_int_equal(conn_send(client.conn, &before), MC_OK);
    assert_int_equal(fstat(memfd, &a), 0);
    close(memfd);
    run_for(loop, 30);
    assert_int_equal(server.frames, 2);
    assert_int_equal(server.fds, 1);
    assert_int_equal(server.last.type, 0x7001);
    assert_int_equal(fstat(server.fd, &b), 0);
    assert_int_equal(a.st_ino, b.st_ino);
    close(server.fd);
}

static unsigned open_descriptors(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* Descriptors that no frame announces are held in a small number only, and closed with the connection. */
static void test_too_many_descriptors(void **state)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(3 * sizeof(int))];
    } control = {0};
    char byte = 'M';
    struct iovec iov = {&byte, 1};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
    struct addr addr = {.kind = ADDR_UNIX};
    int three[3] = {0, 1, 2}, fd;
    unsigned before;

    snprintf(addr.host, sizeof(addr.host), "%s/sock", dir);
    assert_int_equal(conn_listen(loop, &addr, &listen_opts, &listener), MC_OK);
    fd = raw_connect_again();
    before = open_descriptors();
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(three));
    memcpy(CMSG_DATA(cmsg), three, sizeof(three));
    for (int i = 0; i < 20 && !hung_up(&fd); i++) {
        sendmsg(fd, &msg, MSG_NOSIGNAL);
        run_for(loop, 5);
        assert_true(open_descriptors() <= before + 1 + 8);
    }
    assert_true(hung_up(&fd));
    assert_int_equal(open_descriptors(), before);
    close(fd);
}

static void test_descriptor_over_tcp(void **state)
{
    open_tcp();
    assert_int_equal(conn_send_fd(client.conn, 1, slice_of(NULL, 0), 0), MC_ENOSUP);
}

static void test_unix_directory_must_be_private(void **state)
{
    struct addr addr = {.kind = ADDR_UNIX};

    snprintf(addr.host, sizeof(addr.host), "%s/sock", dir);
    assert_int_equal(chmod(dir, 0755), 0);
    assert_int_equal(conn_listen(loop, &addr, &listen_opts, &listener), MC_EPERM);
    assert_null(listener);
    assert_int_equal(chmod(dir, 0700), 0);
}

static void test_unix_stale_socket_is_replaced(void **state)
{
    struct addr addr = {.kind = ADDR_UNIX};
    struct sockaddr_storage sa;
    struct listener *second = NULL;
    socklen_t len;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(addr.host, sizeof(addr.host), "%s/sock", dir);
    assert_int_equal(addr_resolve(&addr, &sa, &len), MC_OK);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, len), 0);
    close(fd);
    open_unix();
    assert_int_equal(conn_listen(loop, &addr, &listen_opts, &second), MC_EEXIST);
    exchange(3);
}

/* --- everything at once --- */

struct stress {
    struct rng rng;
    struct conn *conn;
    uint64_t sent, received;       /* frames */
    uint64_t send_seed, recv_seed; /* both sides draw the same bytes */
    uint8_t *payload, *dst, *expect;
    size_t payload_len;
    bool payload_free, closed;
};

#define STRESS_FRAMES  400
#define STRESS_PAYLOAD 700000

static struct stress ends[2];

static size_t stress_fill(uint64_t seed, uint8_t *body, size_t *body_len, uint8_t *payload)
{
    struct rng rng;
    size_t len;

    rng_seed(&rng, seed);
    *body_len = rng_chance(&rng, 0.1) ? rng_below(&rng, 200000) : rng_below(&rng, 300);
    len = rng_chance(&rng, 0.3) ? rng_below(&rng, STRESS_PAYLOAD) : 0;
    rng_bytes(&rng, body, *body_len);
    rng_bytes(&rng, payload, len);
    return len;
}

static uint8_t stress_body[200000];

static void stress_sent(void *arg, enum mc_status status)
{
    struct stress *end = arg;

    assert_int_equal(status, MC_OK);
    end->payload_free = true;
}

static void stress_send(struct stress *end)
{
    while (end->sent < STRESS_FRAMES && end->payload_free && end->conn) {
        struct conn_span spans[3];
        struct conn_msg msg = {.type = 0x7003, .spans = spans, .sent = stress_sent, .sent_arg = end};
        size_t body_len, len = stress_fill(end->send_seed + end->sent, stress_body, &body_len, end->payload);
        size_t cut = len ? rng_below(&end->rng, len) : 0;
        enum mc_status status;

        spans[0] = (struct conn_span){end->payload, cut, 0, false};
        spans[1] = (struct conn_span){end->payload + cut, 0, 0, false};
        spans[2] = (struct conn_span){end->payload + cut, len - cut, 0, false};
        msg.span_count = len ? 3 : 0;
        msg.body = slice_of(stress_body, body_len);
        status = conn_send(end->conn, &msg);
        if (status == MC_AGAIN)
            return;
        assert_int_equal(status, MC_OK);
        end->payload_free = false;
        end->sent++;
    }
}

static void stress_ready(struct conn *conn)
{
    ((struct stress *)conn_user(conn))->conn = conn;
}

static void stress_frame(struct conn *conn, const struct frame *frame)
{
    struct stress *end = conn_user(conn);
    size_t body_len, len = stress_fill(end->recv_seed + end->received, stress_body, &body_len, end->expect);

    assert_int_equal(frame->body.len, body_len);
    assert_memory_equal(frame->body.ptr ? frame->body.ptr : stress_body, stress_body, body_len);
    assert_int_equal(frame->payload_len, len);
    if (len == 0)
        end->received++;
    if (rng_chance(&end->rng, 0.05))
        conn_pause(conn);
}

static size_t stress_dst(struct conn *conn, const struct frame *frame, uint64_t off, size_t max, void **dst)
{
    struct stress *end = conn_user(conn);

    *dst = end->dst + off;
    return 1 + rng_below(&end->rng, max);
}

static void stress_end(struct conn *conn, const struct frame *frame, enum mc_status status)
{
    struct stress *end = conn_user(conn);

    assert_int_equal(status, MC_OK);
    assert_memory_equal(end->dst, end->expect, frame->payload_len);
    end->received++;
}

static void stress_close(struct conn *conn, enum mc_status status)
{
    struct stress *end = conn_user(conn);

    end->conn = NULL;
    end->closed = true;
}

static const struct conn_ops stress_ops = {
    .on_ready = stress_ready,
    .on_frame = stress_frame,
    .payload_dst = stress_dst,
    .on_payload_end = stress_end,
    .on_close = stress_close,
};

static bool stress_over(void *arg)
{
    bool over = true;

    for (int i = 0; i < 2; i++) {
        stress_send(&ends[i]);
        if (ends[i].conn && rng_chance(&ends[i].rng, 0.5))
            conn_resume(ends[i].conn);
        over = over && ends[i].received == STRESS_FRAMES && ends[i].payload_free;
    }
    return over;
}

static void stress_run(int domain, uint64_t seed)
{
    struct hello hello = {.role = ROLE_ENGINE};
    int fds[2];

    print_message("seed %llu\n", (unsigned long long)seed);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    for (int i = 0; i < 2; i++) {
        struct conn_opts opts = {.self = &hello,
            .ops = &stress_ops,
            .user = &ends[i],
            .limits = {.socket_buffer = 20000, .queue_max = 300000}};

        ends[i] = (struct stress){.payload_free = true,
            .send_seed = (uint64_t)i << 32,
            .recv_seed = (uint64_t)!i << 32,
            .payload = malloc(STRESS_PAYLOAD),
            .dst = malloc(STRESS_PAYLOAD),
            .expect = malloc(STRESS_PAYLOAD)};
        rng_seed(&ends[i].rng, seed + (uint64_t)i);
        assert_int_equal(conn_adopt(loop, fds[i], i == 0, &opts, &ends[i].conn), MC_OK);
    }
    assert_true(run_until(loop, stress_over, NULL, 60000));
    conn_resume(ends[1].conn); /* or it would not see that the other closes */
    conn_close(ends[0].conn);
    assert_true(run_until(loop, flag_is_set, &ends[0].closed, 2000));
    assert_true(run_until(loop, flag_is_set, &ends[1].closed, 2000));
    for (int i = 0; i < 2; i++) {
        free(ends[i].payload);
        free(ends[i].dst);
        free(ends[i].expect);
    }
}

static void test_stress(void **state)
{
    stress_run(AF_UNIX, 1);
    stress_run(AF_UNIX, now_ns());
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_handshake),
        T(test_refused_version),
        T(test_refused_by_dialer),
        T(test_refused_epoch),
        T(test_refused_role),
        T(test_refused_recipe),
        T(test_refused_auth),
        T(test_refused_by_owner),
        T(test_nobody_listens),
        T(test_name_is_looked_up),
        T(test_handshake_timeout),
        T(test_frames_tcp),
        T(test_frames_unix),
        T(test_many_small_frames_in_order),
        T(test_ping_and_unknown),
        T(test_payload_tcp),
        T(test_payload_unix),
        T(test_payload_thrown_away),
        T(test_spans_with_checksums),
        T(test_damaged_payload),
        T(test_source),
        T(test_source_gives_up),
        T(test_abort_while_receiving),
        T(test_reset_drops_what_is_queued),
        T(test_close_sends_what_is_queued),
        T(test_close_does_not_wait_for_ever),
        T(test_queue_limit),
        T(test_too_big),
        T(test_credits),
        T(test_send_before_ready),
        T(test_drop_queued),
        T(test_garbage_first),
        T(test_garbage_later),
        T(test_questions_without_reading),
        T(test_slow_handshake),
        T(test_too_many_connections),
        T(test_too_many_descriptors),
        T(test_pending_is_no_answer),
        T(test_body_damaged),
        T(test_second_hello),
        T(test_piece_too_long),
        T(test_peer_dies_in_the_middle),
        T(test_pass_descriptor),
        T(test_descriptor_over_tcp),
        T(test_unix_directory_must_be_private),
        T(test_unix_stale_socket_is_replaced),
        T(test_stress),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
