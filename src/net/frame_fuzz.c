/* frame_fuzz.c - libFuzzer: the byte stream of a peer through a real connection.
 *
 * The first byte says whether the input is taken as it is or repaired: checksums cannot be guessed, so in repair mode the headers found
 * in the stream get right ones, and the fuzzer reaches what lies behind. The other byte of the head: who speaks first. The owner's
 * callbacks check the promises of conn.h; the memory for payload is exactly as long as was announced. */
#undef NDEBUG /* asserts are what it looks for */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/crc.h"
#include "base/log.h"
#include "net/conn.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define PAYLOAD_MAX (1u << 20)

static struct {
    struct conn *conn;
    bool closed, in_payload;
    uint8_t *dst;
    uint64_t dst_len;
} owner;

static void on_frame(struct conn *conn, const struct frame *frame)
{
    assert(!owner.closed && !owner.in_payload);
    assert(frame->body.len == frame->body_len);
    if (frame->request && !(frame->flags & FRAME_REPLY) && frame->request % 2)
        conn_reply(conn, frame, MC_OK, frame->body);
    else if (frame->type == 0x7777)
        conn_reply_unknown(conn, frame);
    if (frame->payload_len == 0)
        return;
    owner.in_payload = true;
    free(owner.dst);
    owner.dst = frame->payload_len % 3 ? malloc(frame->payload_len) : NULL;
    owner.dst_len = frame->payload_len;
}

static size_t payload_dst(struct conn *conn, const struct frame *frame, uint64_t off, size_t max, void **dst)
{
    assert(owner.in_payload && max > 0 && off + max <= owner.dst_len);
    *dst = owner.dst ? owner.dst + off : NULL;
    return max > 10 ? max - off % 10 : max;
}

static void on_piece(struct conn *conn, const struct frame *frame, uint64_t off, uint32_t len, uint32_t crc)
{
    assert(owner.dst && crc32c(0, owner.dst + off, len) == crc);
}

static void on_payload_end(struct conn *conn, const struct frame *frame, enum mc_status status)
{
    assert(owner.in_payload);
    owner.in_payload = false;
}

static void on_close(struct conn *conn, enum mc_status status)
{
    assert(!owner.in_payload && status < 0);
    owner.closed = true;
}

static const struct conn_ops ops = {
    .on_frame = on_frame,
    .payload_dst = payload_dst,
    .on_piece = on_piece,
    .on_payload_end = on_payload_end,
    .on_close = on_close,
};

/* Walk the stream as a receiver would, and make its checksums right. */
static void repair(uint8_t *at, size_t left)
{
    static const uint8_t magic[4] = {'M', 'C', 'C', '1'};

    while (left >= FRAME_HEADER_SIZE) {
        uint32_t body_len = le32_get(at + 40) % 4096;
        uint64_t payload_len = le64_get(at + 48) % 100000, room;

        memcpy(at, magic, 4);
        le16_put(at + 4, FRAME_VERSION);
        at[6] &= 0x0f; /* message types of the common range */
        at[7] = 0;
        le32_put(at + 8, le32_get(at + 8) & 3);
        room = left - FRAME_HEADER_SIZE;
        body_len = body_len < room ? body_len : (uint32_t)room;
        le32_put(at + 40, body_len);
        le32_put(at + 44, crc32c(0, at + FRAME_HEADER_SIZE, body_len));
        le64_put(at + 48, payload_len);
        le32_put(at + 60, crc32c(0, at, 60));
        at += FRAME_HEADER_SIZE + body_len;
        left -= FRAME_HEADER_SIZE + body_len;
        while (payload_len > 0 && left >= PIECE_HEADER_SIZE) {
            uint64_t len = le32_get(at) % 5000 + 1;

            len = len < payload_len ? len : payload_len;
            len = len < left - PIECE_HEADER_SIZE ? len : left - PIECE_HEADER_SIZE;
            le32_put(at, (uint32_t)len);
            if (at[4] % 8)
                le32_put(at + 4, crc32c(0, at + PIECE_HEADER_SIZE, len));
            le32_put(at + 8, 0);
            le32_put(at + 12, crc32c(0, at, 12));
            at += PIECE_HEADER_SIZE + len;
            left -= PIECE_HEADER_SIZE + len;
            payload_len -= len;
        }
    }
}

static void send_hello(int fd, bool ok)
{
    struct hello hello = {.role = ROLE_TOOL, .credits = 10, .body_max = 1u << 20, .payload_max = PAYLOAD_MAX};
    struct frame frame = {.type = ok ? MSG_HELLO_OK : MSG_HELLO, .deadline_ms = DEADLINE_MS_NONE};
    uint8_t head[FRAME_HEADER_SIZE];
    struct buf body;

    buf_init(&body, 4096);
    hello_encode(&hello, &body);
    frame.body_len = (uint32_t)body.len;
    frame.body_crc = crc32c(0, body.data, body.len);
    frame_encode(&frame, head);
    assert(write(fd, head, sizeof(head)) == sizeof(head));
    assert(write(fd, body.data, body.len) == (ssize_t)body.len);
    buf_fini(&body);
}

static void drain(int fd)
{
    char bytes[65536];

    while (recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT) > 0)
        ;
}

static void turn_once(struct loop *loop)
{
    loop_stop(loop);
    loop_run(loop);
}

static void feed(struct loop *loop, int fd, const uint8_t *at, size_t left)
{
    while (left > 0 && !owner.closed) {
        ssize_t n = send(fd, at, left < 7001 ? left : 7001, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n > 0) {
            at += n;
            left -= (size_t)n;
        }
        turn_once(loop);
        drain(fd);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hello hello = {.role = ROLE_NODE};
    struct conn_opts opts = {.self = &hello, .ops = &ops, .limits = {.payload_max = PAYLOAD_MAX, .body_max = 1u << 20}};
    struct loop *loop;
    uint8_t *copy;
    int fds[2];

    if (size < 2 || size > 200000 || socketpair(AF_UNIX, SOCK_STREAM, 0, fds) != 0)
        return 0;
    log_set_level(LOG_LEVEL_ERROR);
    loop = loop_create("fuzz");
    copy = malloc(size - 2);
    memcpy(copy, data + 2, size - 2);
    if (data[0] & 1)
        repair(copy, size - 2);
    owner.closed = owner.in_payload = false;
    assert(conn_adopt(loop, fds[0], data[1] & 1, &opts, &owner.conn) == MC_OK);
    if (data[0] & 2)
        send_hello(fds[1], data[1] & 1);
    feed(loop, fds[1], copy, size - 2);
    close(fds[1]);
    for (int i = 0; i < 3 && !owner.closed; i++)
        turn_once(loop);
    if (!owner.closed)
        conn_abort(owner.conn, MC_ECLOSED);
    loop_destroy(loop);
    assert(owner.closed);
    free(owner.dst);
    owner.dst = NULL;
    free(copy);
    return 0;
}
