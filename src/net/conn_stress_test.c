/* conn_stress_test.c - everything at once: two ends with small buffers, random sizes and pauses; every byte is compared. A failing
 * seed is printed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/socket.h>

#include "net/conn_ends_test.h"

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

        spans[0] = (struct conn_span){end->payload, cut};
        spans[1] = (struct conn_span){end->payload + cut, 0};
        spans[2] = (struct conn_span){end->payload + cut, len - cut};
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
    assert_true(run_until(loop, stress_over, NULL, WAIT_MS));
    conn_resume(ends[1].conn); /* or it would not see that the other closes */
    conn_close(ends[0].conn);
    assert_true(run_until(loop, flag_is_set, &ends[0].closed, WAIT_MS));
    assert_true(run_until(loop, flag_is_set, &ends[1].closed, WAIT_MS));
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        CONN_TEST(test_stress),
    };

    return cmocka_run_group_tests_name("conn stress", tests, NULL, NULL);
}
