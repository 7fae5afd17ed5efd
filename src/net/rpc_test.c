/* rpc_test.c - calls and peers against a server in the same loop.
 *
 * Goal: `done` exactly once whatever happens, never inside a call of rpc.h; reconnecting; nobody writes to memory of a call that is
 * over. Method: a server whose handler is told by the message type what to do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/stopwatch_test.h"
#include "net/net_test.h"
#include "net/rpc.h"

enum { ECHO = 0x7001, IGNORE, LATE, FAIL, PAYLOAD, MANY, CUT, HALF };

#define PAYLOAD_LEN 500000

static struct loop *loop;
static struct listener *listener;
static struct addr server_addr;
static struct hello server_hello, client_hello;
static struct rpc_peer *peer;
static struct rpc_peer_opts peer_opts;
static uint8_t payload[PAYLOAD_LEN], place[PAYLOAD_LEN];

static struct {
    struct conn *conns[16];
    unsigned count, accepted, frames, cancels, notices;
    struct frame late; /* answered when told */
    struct conn *late_conn;
    unsigned lates;
} server;

/* --- server --- */

static void server_ready(struct conn *conn)
{
    server.conns[server.count++] = conn;
    server.accepted++;
}

static enum mc_status stalling_source(void *arg, uint64_t off, size_t max, struct conn_piece *piece)
{
    if (off >= PAYLOAD_LEN / 2)
        return MC_ESTALE;
    *piece = (struct conn_piece){.ptr = payload + off, .len = max < 1000 ? max : 1000};
    return MC_OK;
}

static void answer_with_payload(struct conn *conn, const struct frame *frame, bool half)
{
    struct conn_span span = {.ptr = payload, .len = PAYLOAD_LEN};
    struct conn_msg msg = {.type = frame->type,
        .flags = FRAME_REPLY,
        .request = frame->request,
        .body = slice_str("head"),
        .spans = &span,
        .span_count = 1};

    if (half) {
        msg.source = stalling_source;
        msg.payload_len = PAYLOAD_LEN;
    }
    assert_int_equal(conn_send(conn, &msg), MC_OK);
}

static void answer_many(struct conn *conn, const struct frame *frame)
{
    struct conn_msg msg = {.type = frame->type, .flags = FRAME_REPLY | FRAME_MORE, .request = frame->request};

    for (int i = 0; i < 3; i++)
        assert_int_equal(conn_send(conn, &msg), MC_OK);
    assert_int_equal(conn_reply(conn, frame, MC_OK, slice_str("last")), MC_OK);
}

static void server_frame(struct conn *conn, const struct frame *frame)
{
    server.frames++;
    switch (frame->type) {
    case ECHO:
        if (frame->request)
            conn_reply(conn, frame, MC_OK, frame->body);
        else
            server.notices++;
        break;
    case IGNORE: break;
    case LATE:
        server.lates++;
        server.late = *frame;
        server.late_conn = conn;
        break;
    case FAIL: conn_reply(conn, frame, MC_ENOENT, slice_str("no such thing")); break;
    case PAYLOAD: answer_with_payload(conn, frame, false); break;
    case HALF: answer_with_payload(conn, frame, true); break;
    case MANY: answer_many(conn, frame); break;
    case CUT: conn_abort(conn, MC_ECLOSED); break;
    case MSG_CANCEL: server.cancels++; break;
    default: conn_reply_unknown(conn, frame);
    }
}

static void server_close(struct conn *conn, enum mc_status status)
{
    for (unsigned i = 0; i < server.count; i++)
        if (server.conns[i] == conn)
            server.conns[i--] = server.conns[--server.count];
}

static const struct conn_ops server_ops = {
    .on_ready = server_ready,
    .on_frame = server_frame,
    .on_close = server_close,
};

static void server_start(void)
{
    struct listener_opts opts = {.self = &server_hello, .ops = &server_ops, .limits = {.credits = 8}};

    assert_int_equal(conn_listen(loop, &server_addr, &opts, &listener), MC_OK);
    server_addr = *listener_addr(listener);
}

static void server_stop(void)
{
    listener_close(listener);
    listener = NULL;
    while (server.count > 0) {
        conn_abort(server.conns[server.count - 1], MC_ECLOSED);
        server.count--;
    }
}

/* --- calls --- */

struct request {
    struct rpc_call call;
    unsigned done, more, heads, pieces, sent;
    enum mc_status status, sent_status;
    char body[64];
    size_t body_len;
    bool inside;
    bool over; /* no byte may be written any more */
};

static bool inside_call; /* set while we are in rpc_send or rpc_cancel */

static void request_done(struct rpc_call *call, enum mc_status status, const struct frame *frame)
{
    struct request *request = container_of(call, struct request, call);

    assert_false(inside_call);
    request->done++;
    request->status = status;
    request->over = true;
    if (frame && frame->body.len < sizeof(request->body)) {
        memcpy(request->body, frame->body.ptr ? frame->body.ptr : (const uint8_t *)"", frame->body.len);
        request->body_len = frame->body.len;
    }
}

static void request_more(struct rpc_call *call, const struct frame *frame)
{
    container_of(call, struct request, call)->more++;
}

static void request_head(struct rpc_call *call, const struct frame *frame)
{
    assert_int_equal(frame->body.len, 4);
    container_of(call, struct request, call)->heads++;
}

static size_t request_dst(struct rpc_call *call, const struct frame *frame, uint64_t off, size_t max, void **dst)
{
    assert_false(container_of(call, struct request, call)->over);
    *dst = place + off;
    return max;
}

static void request_piece(struct rpc_call *call, const struct frame *frame, uint64_t off, uint32_t len, uint32_t crc)
{
    container_of(call, struct request, call)->pieces++;
}

static const struct rpc_call_ops request_ops = {
    .done = request_done,
    .more = request_more,
    .head = request_head,
    .payload_dst = request_dst,
    .on_piece = request_piece,
};

static void request_sent(void *arg, enum mc_status status)
{
    struct request *request = arg;

    request->sent++;
    request->sent_status = status;
}

static enum mc_status submit(struct request *request, uint16_t type, const char *body, unsigned ms)
{
    struct conn_msg msg = {.type = type,
        .body = slice_str(body),
        .deadline_ns = ms ? now_ns() + ms * NS_PER_MS : 0,
        .sent = request_sent,
        .sent_arg = request};
    enum mc_status status;

    *request = (struct request){.call = {.ops = &request_ops, .flags = request->call.flags}};
    inside_call = true;
    status = rpc_send(peer, &request->call, &msg);
    inside_call = false;
    return status;
}

static bool is_done(void *arg)
{
    return ((struct request *)arg)->done > 0;
}

static void finish(struct request *request, enum mc_status status)
{
    assert_true(run_until(loop, is_done, request, 20000));
    assert_int_equal(request->done, 1);
    assert_int_equal(request->status, status);
    assert_false(rpc_call_active(&request->call));
}

static void run(struct request *request, uint16_t type, enum mc_status status)
{
    assert_int_equal(submit(request, type, "hello", 3000), MC_OK);
    finish(request, status);
}

/* --- set-up --- */

static int setup(void **state)
{
    struct rng rng;

    memset(&server, 0, sizeof(server));
    rng_seed(&rng, 1);
    rng_bytes(&rng, payload, sizeof(payload));
    memset(place, 0, sizeof(place));
    server_hello = (struct hello){.role = ROLE_NODE, .epoch = 1};
    client_hello = (struct hello){.role = ROLE_CLIENT};
    loop = loop_create("test");
    server_addr = loopback();
    server_start();
    peer_opts = (struct rpc_peer_opts){.addr = server_addr, .self = &client_hello};
    peer = rpc_peer_create(loop, &peer_opts);
    return loop && peer ? 0 : -1;
}

static int teardown(void **state)
{
    rpc_peer_destroy(peer);
    server_stop();
    run_for(loop, 1);
    loop_destroy(loop);
    return 0;
}

static void restart_peer(void)
{
    rpc_peer_destroy(peer);
    peer = rpc_peer_create(loop, &peer_opts);
    assert_non_null(peer);
}

/* --- tests --- */

static void test_call(void **state)
{
    struct request request = {0};

    assert_int_equal(rpc_peer_health(peer), RPC_IDLE);
    run(&request, ECHO, MC_OK); /* held while connecting */
    assert_memory_equal(request.body, "hello", 5);
    assert_int_equal(rpc_peer_health(peer), RPC_UP);
    run(&request, ECHO, MC_OK);
    assert_int_equal(request.sent, 1);
    assert_int_equal(request.sent_status, MC_OK);
    run(&request, FAIL, MC_ENOENT);
    assert_memory_equal(request.body, "no such thing", 13);
    run(&request, 0x7fff, MC_ENOSUP);
    run(&request, MANY, MC_OK);
    assert_int_equal(request.more, 3);
    assert_memory_equal(request.body, "last", 4);
    assert_int_equal(server.accepted, 1);
}

static void test_payload(void **state)
{
    struct request request = {0};

    run(&request, PAYLOAD, MC_OK);
    assert_int_equal(request.heads, 1);
    assert_int_equal(request.pieces, 3); /* 64 KiB, 256 KiB, the rest */
    assert_memory_equal(request.body, "head", 4);
    assert_memory_equal(place, payload, PAYLOAD_LEN);
    run(&request, HALF, MC_ESTALE);
    run(&request, ECHO, MC_OK);
}

static void test_deadline(void **state)
{
    struct request request = {0};
    struct stopwatch watch;
    uint64_t raw_ms;

    run(&request, ECHO, MC_OK);
    watch = stopwatch_start(0);
    assert_int_equal(submit(&request, IGNORE, "", 60), MC_OK);
    finish(&request, MC_ETIMEDOUT);
    assert_in_range(stopwatch_ms(&watch, &raw_ms), 0, 110);
    assert_true(raw_ms >= 60);
    run(&request, ECHO, MC_OK);
    assert_int_equal(server.cancels, 1);
    assert_int_equal(server.accepted, 1);
    assert_int_equal(submit(&request, ECHO, "", 0), MC_OK);
    finish(&request, MC_OK);
}

static void test_deadline_passed(void **state)
{
    struct request request = {.call.ops = &request_ops};
    struct conn_msg msg = {.type = ECHO, .deadline_ns = 1};

    assert_int_equal(rpc_send(peer, &request.call, &msg), MC_ETIMEDOUT);
    assert_false(rpc_call_active(&request.call));
}

static bool late_came(void *arg)
{
    return server.late_conn != NULL;
}

static void test_cancel(void **state)
{
    struct request request = {0};

    assert_int_equal(submit(&request, LATE, "", 3000), MC_OK);
    assert_true(run_until(loop, late_came, NULL, 20000));
    inside_call = true;
    rpc_cancel(&request.call);
    rpc_cancel(&request.call);
    inside_call = false;
    assert_int_equal(request.done, 0);
    finish(&request, MC_ECANCELED);
    conn_reply(server.late_conn, &server.late, MC_OK, slice_str("too late"));
    run(&request, ECHO, MC_OK);
    assert_int_equal(server.cancels, 1);
}

static void test_cancel_while_held(void **state)
{
    struct request request = {0};

    assert_int_equal(submit(&request, ECHO, "", 3000), MC_OK);
    rpc_cancel(&request.call);
    finish(&request, MC_ECANCELED);
    assert_int_equal(request.sent, 1);
    assert_int_equal(request.sent_status, MC_ECANCELED);
}

static bool some_pieces(void *arg)
{
    return ((struct request *)arg)->heads > 0;
}

/* The answer's payload is on its way: cancelled, its bytes must go nowhere. */
static void test_cancel_while_receiving(void **state)
{
    struct request request = {0}, next = {0};

    assert_int_equal(submit(&request, PAYLOAD, "", 3000), MC_OK);
    assert_true(run_until(loop, some_pieces, &request, 20000));
    if (rpc_call_active(&request.call)) {
        rpc_cancel(&request.call);
        request.over = true;
        finish(&request, MC_ECANCELED);
    }
    run(&next, ECHO, MC_OK);
    assert_int_equal(server.accepted, 1);
}

static void test_cut_on_fail(void **state)
{
    struct request request = {.call.flags = RPC_CUT_ON_FAIL}, other = {0};

    run(&other, ECHO, MC_OK);
    assert_int_equal(submit(&other, IGNORE, "", 3000), MC_OK);
    assert_int_equal(submit(&request, IGNORE, "", 30), MC_OK);
    finish(&request, MC_ETIMEDOUT);
    finish(&other, MC_ECLOSED);
    run(&other, ECHO, MC_OK);
    assert_int_equal(server.accepted, 2);
}

static bool eight_came(void *arg)
{
    return server.lates == 8;
}

static void test_credits(void **state)
{
    struct request requests[10] = {0}, first = {0};

    run(&first, ECHO, MC_OK);
    for (int i = 0; i < 8; i++)
        assert_int_equal(submit(&requests[i], LATE, "", 3000), MC_OK);
    assert_int_equal(submit(&requests[8], ECHO, "", 3000), MC_AGAIN);
    assert_true(run_until(loop, eight_came, NULL, 20000)); /* the one that is answered is the last */
    conn_reply(server.late_conn, &server.late, MC_OK, slice_of(NULL, 0));
    finish(&requests[7], MC_OK);
    assert_int_equal(submit(&requests[8], ECHO, "", 3000), MC_OK);
    finish(&requests[8], MC_OK);
    for (int i = 0; i < 7; i++)
        rpc_cancel(&requests[i].call);
    /* A cancelled request keeps its credit until it is answered. */
    assert_int_equal(submit(&requests[9], ECHO, "", 3000), MC_OK);
    finish(&requests[9], MC_OK);
    for (int i = 0; i < 7; i++)
        assert_int_equal(requests[i].done, 1);
}

/* More calls than credits while connecting: sent as answers come. */
static void test_held_beyond_credits(void **state)
{
    struct request requests[50] = {0};

    for (int i = 0; i < 50; i++)
        assert_int_equal(submit(&requests[i], ECHO, "x", 3000), MC_OK);
    for (int i = 0; i < 50; i++)
        finish(&requests[i], MC_OK);
}

static void test_calls_max(void **state)
{
    struct request requests[3] = {0};

    peer_opts.calls_max = 2;
    restart_peer();
    assert_int_equal(submit(&requests[0], ECHO, "", 3000), MC_OK);
    assert_int_equal(submit(&requests[1], ECHO, "", 3000), MC_OK);
    assert_int_equal(submit(&requests[2], ECHO, "", 3000), MC_AGAIN);
    finish(&requests[1], MC_OK);
    assert_int_equal(submit(&requests[2], ECHO, "", 3000), MC_OK);
    finish(&requests[2], MC_OK);
}

static void test_server_dies_and_returns(void **state)
{
    struct request request = {0};
    const char *text;

    run(&request, ECHO, MC_OK);
    assert_int_equal(submit(&request, CUT, "", 3000), MC_OK);
    server_stop();
    finish(&request, MC_EPEERDOWN);
    for (int i = 0; i < 4; i++) { /* connection refused, then back-off */
        if (submit(&request, ECHO, "", 1000) == MC_OK)
            finish(&request, MC_EPEERDOWN);
        else
            run_for(loop, 20);
    }
    assert_int_equal(rpc_peer_error(peer, &text), MC_EPEERDOWN);
    server_start();
    rpc_peer_kick(peer);
    run(&request, ECHO, MC_OK);
    assert_int_equal(rpc_peer_error(peer, &text), MC_OK);
}

static void test_refused(void **state)
{
    struct request request = {0};
    struct hello_expect expect = {.epoch_set = true, .epoch = 2};
    const char *text;

    rpc_peer_expect(peer, &expect);
    assert_int_equal(submit(&request, ECHO, "", 3000), MC_OK);
    finish(&request, MC_EREFUSED);
    assert_int_equal(rpc_peer_health(peer), RPC_DOWN);
    assert_int_equal(rpc_peer_error(peer, &text), MC_EREFUSED);
    assert_non_null(strstr(text, "wrong epoch"));
    assert_int_equal(submit(&request, ECHO, "", 3000), MC_EPEERDOWN);
    rpc_peer_expect(peer, NULL);
    rpc_peer_kick(peer);
    run(&request, ECHO, MC_OK);
}

static bool is_up(void *arg)
{
    return rpc_peer_health(peer) == RPC_UP;
}

static bool is_not_up(void *arg)
{
    return rpc_peer_health(peer) != RPC_UP;
}

static void test_keep_connected(void **state)
{
    peer_opts.keep_connected = true;
    restart_peer();
    assert_true(run_until(loop, is_up, NULL, 20000));
    server_stop();
    assert_true(run_until(loop, is_not_up, NULL, 20000));
    server_start();
    assert_true(run_until(loop, is_up, NULL, 20000));
}

static void test_notify(void **state)
{
    struct conn_msg msg = {.type = ECHO};
    struct request request = {0};

    assert_int_equal(rpc_notify(peer, &msg), MC_AGAIN);
    assert_true(run_until(loop, is_up, NULL, 20000));
    assert_int_equal(rpc_notify(peer, &msg), MC_OK);
    run(&request, ECHO, MC_OK);
    assert_int_equal(server.notices, 1);
}

static void destroy_done(struct rpc_call *call, enum mc_status status, const struct frame *frame)
{
    request_done(call, status, frame);
    rpc_peer_destroy(peer);
    peer = NULL;
}

/* `done` destroys the peer while other calls are open, in every state. */
static void test_destroy_in_callback(void **state)
{
    static const struct rpc_call_ops destroy_ops = {.done = destroy_done};
    struct request requests[3] = {0};
    struct conn_msg msg = {.type = ECHO, .deadline_ns = now_ns() + NS_PER_S};

    run(&requests[0], ECHO, MC_OK);
    assert_int_equal(submit(&requests[0], IGNORE, "", 3000), MC_OK);
    requests[1].call.ops = &destroy_ops;
    assert_int_equal(rpc_send(peer, &requests[1].call, &msg), MC_OK);
    assert_int_equal(submit(&requests[2], ECHO, "", 3000), MC_OK);
    finish(&requests[1], MC_OK);
    assert_null(peer);
    assert_int_equal(requests[0].done, 1);
    assert_int_equal(requests[0].status, MC_ECANCELED);
    assert_int_equal(requests[2].done, 1);
}

static void again_done(struct rpc_call *call, enum mc_status status, const struct frame *frame)
{
    struct request *request = container_of(call, struct request, call);
    struct conn_msg msg = {.type = ECHO};

    request->status = status;
    if (++request->done < 100)
        assert_int_equal(rpc_send(peer, call, &msg), MC_OK);
}

static bool hundred_done(void *arg)
{
    return ((struct request *)arg)->done == 100;
}

static void test_send_again_in_done(void **state)
{
    static const struct rpc_call_ops again_ops = {.done = again_done};
    struct request request = {.call.ops = &again_ops};
    struct conn_msg msg = {.type = ECHO};

    assert_int_equal(rpc_send(peer, &request.call, &msg), MC_OK);
    assert_true(run_until(loop, hundred_done, &request, 20000));
    assert_int_equal(request.status, MC_OK);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_call),
        T(test_payload),
        T(test_deadline),
        T(test_deadline_passed),
        T(test_cancel),
        T(test_cancel_while_held),
        T(test_cancel_while_receiving),
        T(test_cut_on_fail),
        T(test_credits),
        T(test_held_beyond_credits),
        T(test_calls_max),
        T(test_server_dies_and_returns),
        T(test_refused),
        T(test_keep_connected),
        T(test_notify),
        T(test_destroy_in_callback),
        T(test_send_again_in_done),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
