/* hostile_test.c - what a peer that does not keep to the protocol can do to an engine: nothing but lose its connection.
 *
 * Goal: bytes an honest engine would never send neither reach memory nor make us hold more than the limits say. Method: the far end
 * is a plain connection of the net room, on a loop of its own, that answers or asks as it likes. */
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
#include "base/log.h"
#include "transfer/core.h"
#include "transfer/wire.h"

#define LEN (512u << 10)

enum trick {
    PAYLOAD_TO_WRITE,  /* answers a write with bytes */
    OK_TO_READ,        /* answers a read with "done" and no bytes */
    FAILED_WITH_BYTES, /* answers a read with bytes and a failure */
    TWICE,             /* answers a failed read a second time */
    CLOCK_FAR_AWAY,    /* says a clock that overflows sums */
    SILENT,            /* answers nothing but clocks */
};

/* The far end: as a server it answers with a trick, as a client it asks what a test says. */
struct villain {
    struct loop *loop;
    struct listener *listener;
    char address[ADDR_TEXT_MAX];
    enum trick trick;
    uint8_t junk[LEN];

    struct conn *conn; /* dialled */
    _Atomic int ready, synced, closed, answers;
    _Atomic int status;
    unsigned questions;
};

static void answer(struct conn *conn, const struct frame *frame, enum mc_status status, const void *bytes, size_t len)
{
    struct conn_span span = {.ptr = bytes, .len = len};
    struct conn_msg msg = {
        .type = frame->type,
        .flags = FRAME_REPLY,
        .status = status,
        .request = frame->request,
        .spans = &span,
        .span_count = len ? 1 : 0,
    };

    conn_send(conn, &msg);
}

static void sync_answer(struct conn *conn, const struct frame *frame, uint64_t clock)
{
    struct wire_sync sync = {.clock_ns = clock};
    struct buf body;

    buf_init(&body, 256);
    wire_sync_encode(&sync, &body);
    conn_reply(conn, frame, MC_OK, buf_slice(&body));
    buf_fini(&body);
}

static void sync_ask(struct conn *conn)
{
    struct wire_sync sync = {.clock_ns = now_ns()};
    struct conn_msg msg = {.type = MSG_TE_SYNC, .request = 1};
    struct buf body;

    buf_init(&body, 256);
    wire_sync_encode(&sync, &body);
    msg.body = buf_slice(&body);
    conn_send(conn, &msg);
    buf_fini(&body);
}

static void on_ready(struct conn *conn)
{
    struct villain *v = conn_user(conn);

    v->conn = conn;
    sync_ask(conn);
    atomic_store(&v->ready, 1);
}

static void on_frame(struct conn *conn, const struct frame *frame)
{
    struct villain *v = conn_user(conn);

    if (frame->flags & FRAME_REPLY) {
        atomic_fetch_add(&v->answers, frame->type != MSG_TE_SYNC);
        return;
    }
    if (frame->type == MSG_TE_SYNC) {
        atomic_store(&v->synced, 1);
        sync_answer(conn, frame, v->trick == CLOCK_FAR_AWAY ? UINT64_MAX / 2 + 12345 : now_ns());
        return;
    }
    switch (v->trick) {
    case PAYLOAD_TO_WRITE: answer(conn, frame, MC_OK, v->junk, LEN); break;
    case OK_TO_READ: answer(conn, frame, MC_OK, NULL, 0); break;
    case FAILED_WITH_BYTES: answer(conn, frame, MC_EINVAL, v->junk, LEN); break;
    case TWICE:
        answer(conn, frame, MC_ENOENT, NULL, 0);
        answer(conn, frame, MC_OK, v->junk, LEN);
        break;
    case CLOCK_FAR_AWAY:
    case SILENT: break;
    }
}

static void on_close(struct conn *conn, enum mc_status status)
{
    struct villain *v = conn_user(conn);

    v->conn = NULL;
    atomic_store(&v->status, status);
    atomic_store(&v->closed, 1);
}

static const struct conn_ops ops = {.on_ready = on_ready, .on_frame = on_frame, .on_close = on_close};

static void villain_listen(struct loop *loop, void *arg)
{
    struct villain *v = arg;
    struct hello self = {.role = ROLE_ENGINE, .uuid = {6, 6, 6}};
    struct listener_opts opts = {.self = &self, .ops = &ops, .user = v};
    struct addr addr;

    assert_int_equal(addr_parse("127.0.0.1:0", 0, &addr, NULL), MC_OK);
    assert_int_equal(conn_listen(loop, &addr, &opts, &v->listener), MC_OK);
    addr_format(listener_addr(v->listener), v->address);
}

static struct villain *villain_start(enum trick trick)
{
    struct villain *v = calloc(1, sizeof(*v));

    v->trick = trick;
    memset(v->junk, 0xee, LEN);
    v->loop = loop_create("villain");
    assert_int_equal(loop_thread_start(v->loop), MC_OK);
    return v;
}

static void villain_cut(struct loop *loop, void *arg)
{
    struct villain *v = arg;

    listener_close(v->listener);
    if (v->conn)
        conn_abort(v->conn, MC_ECLOSED);
}

static void villain_stop(struct villain *v)
{
    loop_call(v->loop, villain_cut, v);
    loop_thread_stop(v->loop);
    loop_destroy(v->loop);
    free(v);
}

static void wait_for(_Atomic int *flag)
{
    uint64_t end = now_ns() + 20 * NS_PER_S;

    while (!atomic_load(flag) && now_ns() < end)
        usleep(500);
    assert_true(atomic_load(flag));
}

/* A key of the villain's, as if it had been handed out. */
static struct mc_region_key forged(uint8_t who)
{
    struct te_key in = {.kind = TE_KIND_PLAIN,
        .flags = MC_REGION_READ | MC_REGION_WRITE,
        .id = 0x123456789,
        .len = LEN,
        .uuid = {6, 6, who}};
    struct mc_region_key key;

    te_key_encode(&in, &key);
    return key;
}

static enum mc_status against(enum trick trick, enum mc_opcode opcode, uint8_t fill, bool *untouched)
{
    struct mc_te_opts opts = {.size = sizeof(opts), .listen = "none", .transport = "tcp", .links = 1};
    struct villain *v = villain_start(trick);
    uint8_t *local = malloc(LEN);
    struct mc_op op = {.opcode = opcode, .local = local, .len = LEN, .region = forged(6)};
    struct mc_peer_opts peer_opts = {.size = sizeof(peer_opts), .timeout_ms = 5000};
    struct mc_peer *peer;
    struct mc_te *te;
    enum mc_status status;

    memset(local, fill, LEN);
    loop_call(v->loop, villain_listen, v);
    assert_int_equal(mc_te_create(&opts, &te), MC_OK);
    status = mc_peer_open(te, v->address, &peer_opts, &peer);
    if (status == MC_OK) {
        status = mc_transfer_sync(peer, &op, 1, trick == TWICE ? 5000 : 300);
        wait_for(&v->closed); /* the engine has cut it */
        mc_peer_close(peer);
    }
    *untouched = true;
    for (size_t i = 0; i < LEN; i++)
        *untouched &= local[i] == fill;
    mc_te_destroy(te);
    villain_stop(v);
    free(local);
    return status;
}

static void bytes_for_a_write(void **state)
{
    bool untouched;

    assert_true(against(PAYLOAD_TO_WRITE, MC_WRITE, 0x11, &untouched) < 0);
    assert_true(untouched);
}

static void no_bytes_for_a_read(void **state)
{
    bool untouched;

    assert_true(against(OK_TO_READ, MC_READ, 0x22, &untouched) < 0);
    assert_true(untouched);
}

static void failed_with_bytes(void **state)
{
    bool untouched;

    assert_true(against(FAILED_WITH_BYTES, MC_READ, 0x33, &untouched) < 0);
    assert_true(untouched);
}

static void answered_twice(void **state)
{
    bool untouched;

    assert_int_equal(against(TWICE, MC_READ, 0x44, &untouched), MC_ENOENT);
    assert_true(untouched);
}

static void impossible_clock(void **state)
{
    bool untouched;

    assert_true(against(CLOCK_FAR_AWAY, MC_WRITE, 0x55, &untouched) < 0);
    assert_true(untouched);
}

/* ---- asking ---- */

struct question {
    struct villain *v;
    struct wire_range range;
    uint64_t request;
    unsigned times;
    bool pause;
    const char *address;
};

static void villain_dial(struct loop *loop, void *arg)
{
    struct question *q = arg;
    struct hello self = {.role = ROLE_BULK, .uuid = {6, 6, 7}};
    struct conn_opts opts = {.self = &self, .ops = &ops, .user = q->v};
    struct conn *conn;
    struct addr addr;

    assert_int_equal(addr_parse(q->address, 0, &addr, NULL), MC_OK);
    assert_int_equal(conn_connect(loop, &addr, &opts, &conn), MC_OK);
}

static void villain_ask(struct loop *loop, void *arg)
{
    struct question *q = arg;
    struct wire_request request = {.ranges = &q->range, .count = 1};
    struct conn_msg msg = {.type = MSG_TE_READ, .request = q->request};
    struct buf body;

    if (!q->v->conn)
        return;
    if (q->pause)
        conn_pause(q->v->conn);
    buf_init(&body, 1024);
    wire_request_encode(&request, &body);
    msg.body = buf_slice(&body);
    for (unsigned i = 0; i < q->times; i++)
        q->v->questions += conn_send(q->v->conn, &msg) == MC_OK;
    buf_fini(&body);
}

static void villain_resume(struct loop *loop, void *arg)
{
    struct question *q = arg;

    if (q->v->conn)
        conn_resume(q->v->conn);
}

/* Connects, asks, and says whether it was cut off; with `honest` an answer is expected instead. */
static void ask(struct question *q, struct mc_te *te, bool honest)
{
    uint64_t warned = log_count(LOG_LEVEL_WARN), end = now_ns() + 20 * NS_PER_S;

    q->v = villain_start(OK_TO_READ);
    q->address = mc_te_address(te);
    loop_call(q->v->loop, villain_dial, q);
    wait_for(&q->v->ready);
    loop_call(q->v->loop, villain_ask, q);
    while (q->pause && log_count(LOG_LEVEL_WARN) == warned && now_ns() < end)
        usleep(500); /* until the engine complains: only then does it read again */
    if (q->pause)
        loop_call(q->v->loop, villain_resume, q);
    if (honest)
        wait_for(&q->v->answers);
    else
        wait_for(&q->v->closed);
    assert_true(!honest || !atomic_load(&q->v->closed));
    villain_stop(q->v);
}

static void questions(void **state)
{
    struct mc_te_opts opts = {.size = sizeof(opts), .transport = "tcp"};
    uint8_t *memory = calloc(1, LEN);
    struct mc_region_key key;
    struct question q;
    struct te_key in;
    struct mc_te *te;

    assert_int_equal(mc_te_create(&opts, &te), MC_OK);
    assert_int_equal(mc_te_register(te, memory, LEN, MC_REGION_READ, &key), MC_OK);
    assert_int_equal(te_key_decode(&key, &in, NULL), MC_OK);

    /* a good one; regions and ranges that do not exist, each answered with a refusal */
    q = (struct question){.range = {in.id, 0, LEN}, .request = 7, .times = 1};
    ask(&q, te, true);
    q.range = (struct wire_range){in.id ^ (1ull << 40), 0, 16};
    ask(&q, te, true);
    q.range = (struct wire_range){in.id, UINT64_MAX - 8, 16};
    ask(&q, te, true);
    q.range = (struct wire_range){in.id, LEN - 8, 16};
    ask(&q, te, true);

    /* no request id: it would count against no credit */
    q = (struct question){.range = {in.id, 0, LEN}, .request = 0, .times = 1};
    ask(&q, te, false);

    /* many, without reading the answers: cut off at the credits, whichever ids they have */
    q = (struct question){.range = {in.id, 0, LEN}, .request = 7, .times = 3000, .pause = true};
    ask(&q, te, false);

    mc_te_destroy(te);
    free(memory);
}

/* ---- silence ---- */

struct lookup {
    struct mc_te *te;
    struct mc_peer *peer;
};

static void look_up(struct loop *loop, void *arg)
{
    static const uint8_t uuid[UUID_SIZE] = {6, 6, 7};
    struct lookup *lookup = arg;

    assert_int_equal(te_peer_by_uuid(lookup->te, uuid, &lookup->peer), MC_OK);
}

/* Writes to a peer that connected to us over one link and answers nothing: giving up the first cuts the link under the others, of
 * the same batch and of another. Each still completes once. */
static void silent_peer(void **state)
{
    enum { SIZE = 6 << 20, BATCHES = 3 };
    struct mc_te_opts opts = {.size = sizeof(opts), .transport = "tcp"};
    struct question q = {.v = villain_start(SILENT)};
    struct mc_batch *batches[BATCHES];
    struct mc_op writes[BATCHES][SIZE / LEN];
    uint8_t *local = calloc(1, SIZE);
    struct lookup lookup;
    struct mc_te *te;

    assert_int_equal(mc_te_create(&opts, &te), MC_OK);
    q.address = mc_te_address(te);
    loop_call(q.v->loop, villain_dial, &q);
    wait_for(&q.v->synced);
    lookup.te = te;
    loop_call(te->loop, look_up, &lookup);
    for (int b = 0; b < BATCHES; b++) {
        for (size_t i = 0; i < SIZE / LEN; i++)
            writes[b][i] =
                (struct mc_op){.opcode = MC_WRITE, .local = local + i * LEN, .len = LEN, .region = forged(7)};
        assert_int_equal(mc_transfer_submit(lookup.peer, writes[b], SIZE / LEN, 100, NULL, NULL, &batches[b]), MC_OK);
    }
    for (int b = 0; b < BATCHES; b++) {
        enum mc_status status = mc_batch_wait(batches[b], 20000);

        assert_true(status == MC_ETIMEDOUT || status == MC_EPEERDOWN);
        mc_batch_free(batches[b]);
    }
    mc_peer_close(lookup.peer);
    mc_te_destroy(te);
    villain_stop(q.v);
    free(local);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_for_a_write),
        cmocka_unit_test(no_bytes_for_a_read),
        cmocka_unit_test(failed_with_bytes),
        cmocka_unit_test(answered_twice),
        cmocka_unit_test(impossible_clock),
        cmocka_unit_test(questions),
        cmocka_unit_test(silent_peer),
    };

    return cmocka_run_group_tests_name("hostile", tests, NULL, NULL);
}
