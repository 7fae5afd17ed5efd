/* conn_ends.c - see conn_ends_test.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/crc.h"
#include "base/scratch_test.h"
#include "net/conn_ends_test.h"

struct side server, client;
struct loop *loop;
struct listener *listener;
struct hello server_hello, client_hello;
struct listener_opts listen_opts;
struct conn_opts dial_opts;
char dir[64];

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
    side->through_buffer += conn_buffered(conn) ? max : 0;
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

const struct conn_ops ends_ops = {
    .on_ready = on_ready,
    .on_frame = on_frame,
    .payload_dst = payload_dst,
    .on_piece = on_piece,
    .on_payload_end = on_payload_end,
    .on_writable = on_writable,
    .on_fd = on_fd,
    .on_close = on_close,
};

void on_sent(void *arg, enum mc_status status)
{
    struct side *side = arg;

    side->sent++;
    side->sent_status = status;
}

/* ---- set-up ---- */

int ends_setup(void **state)
{
    memset(&server, 0, sizeof(server));
    memset(&client, 0, sizeof(client));
    server_hello = (struct hello){.role = ROLE_NODE, .epoch = 7, .host_id = "host-a", .build = "server 1"};
    client_hello = (struct hello){.role = ROLE_CLIENT, .features = 6, .host_id = "host-b", .build = "client 1"};
    memset(server_hello.uuid, 0xaa, UUID_SIZE);
    server_hello.features = 3;
    listen_opts = (struct listener_opts){.self = &server_hello, .ops = &ends_ops, .user = &server};
    dial_opts = (struct conn_opts){.self = &client_hello, .ops = &ends_ops, .user = &client};
    server.echo = true;
    loop = loop_create("test");
    assert_non_null(loop);
    listener = NULL;
    scratch_dir(dir);
    return 0;
}

static bool both_gone(void *arg)
{
    return (!client.conn || client.closed) && (!server.conn || server.closed);
}

int ends_teardown(void **state)
{
    if (client.conn)
        conn_abort(client.conn, MC_ECLOSED);
    if (server.conn)
        conn_abort(server.conn, MC_ECLOSED);
    listener_close(listener);
    run_until(loop, both_gone, NULL, WAIT_MS);
    loop_destroy(loop);
    free(server.dst);
    free(client.dst);
    rmdir(dir);
    return 0;
}

bool settled(void *arg)
{
    return (client.ready || client.closed) && (server.ready || server.closed || client.closed);
}

static void open_pair(const struct addr *addr)
{
    struct addr at;

    assert_int_equal(conn_listen(loop, addr, &listen_opts, &listener), MC_OK);
    at = *listener_addr(listener);
    assert_int_equal(conn_connect(loop, &at, &dial_opts, &client.conn), MC_OK);
    assert_true(run_until(loop, settled, NULL, WAIT_MS));
}

void open_tcp(void)
{
    struct addr addr = loopback();

    open_pair(&addr);
}

void open_unix(void)
{
    struct addr addr = {.kind = ADDR_UNIX};

    snprintf(addr.host, sizeof(addr.host), "%s/sock", dir);
    open_pair(&addr);
}

void give_dst(struct side *side, size_t len)
{
    side->dst = calloc(1, len);
    assert_non_null(side->dst);
    side->dst_len = len;
}

uint8_t *noise(size_t len)
{
    uint8_t *bytes = malloc(len);
    struct rng rng;

    assert_non_null(bytes);
    rng_seed(&rng, len);
    rng_bytes(&rng, bytes, len);
    return bytes;
}

void exchange(size_t body_len)
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
    assert_true(run_until(loop, client_has_frame, NULL, WAIT_MS));
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

/* ---- conditions ---- */

bool client_has_frame(void *arg)
{
    return client.frames > 0;
}

bool server_payload_over(void *arg)
{
    return server.payload_ends > 0 && client.sent > 0;
}

bool both_closed(void *arg)
{
    return client.closed && server.closed;
}

bool hung_up(void *arg)
{
    char bytes[256];
    ssize_t n;

    do
        n = recv(*(int *)arg, bytes, sizeof(bytes), MSG_DONTWAIT);
    while (n > 0);
    return n == 0 || errno != EAGAIN;
}

unsigned open_descriptors(void)
{
    unsigned count = 0;

    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

bool client_was_sent(void *arg)
{
    return client.sent > 0;
}

bool descriptors_are(void *arg)
{
    return open_descriptors() == *(unsigned *)arg;
}

/* ---- a plain socket ---- */

int raw_connect_again(void)
{
    struct sockaddr_storage sa;
    socklen_t len;
    int fd;

    assert_int_equal(addr_resolve(listener_addr(listener), &sa, &len), MC_OK);
    fd = socket(sa.ss_family, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&sa, len), 0);
    return fd;
}

int raw_connect(void)
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

void raw_frame(int fd, struct frame frame, const void *body)
{
    uint8_t head[FRAME_HEADER_SIZE];

    frame.body_crc = crc32c(0, body, frame.body_len);
    frame.deadline_ms = DEADLINE_MS_NONE;
    frame_encode(&frame, head);
    assert_int_equal(send(fd, head, sizeof(head), 0), sizeof(head));
    if (frame.body_len)
        assert_int_equal(send(fd, body, frame.body_len, 0), frame.body_len);
}

void raw_hello(int fd)
{
    struct buf body;

    buf_init(&body, SIZE_MAX);
    hello_encode(&client_hello, &body);
    raw_frame(fd, (struct frame){.type = MSG_HELLO, .body_len = (uint32_t)body.len}, body.data);
    buf_fini(&body);
}

uint16_t raw_answer(int fd, char *refusal, size_t size)
{
    uint8_t bytes[FRAME_HEADER_SIZE + 1024];
    struct frame frame = {0};
    enum mc_status status;
    const char *bad;
    ssize_t n = 0;

    for (uint64_t end = now_ns() + WAIT_MS * NS_PER_MS; n < FRAME_HEADER_SIZE && now_ns() < end;) {
        run_for(loop, 5);
        n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_PEEK);
    }
    if (n < FRAME_HEADER_SIZE || frame_decode(bytes, 1024, &frame, &bad) != MC_OK)
        return 0;
    if (frame.type == MSG_REFUSE)
        refuse_decode(slice_of(bytes + FRAME_HEADER_SIZE, frame.body_len), &status, refusal, size);
    return frame.type;
}
