/* proto_test.c - goal: bodies of 0x04xx are what the golden files hold, decode to what was encoded, and nothing malformed
 * gets through. Method: one full example of each kind; every cut and many flips of it.
 *
 * A wanted change of the wire: run with MC_GOLDEN_WRITE=1 and read the diff. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cursor.h"
#include "base/hash.h"
#include "base/rng.h"
#include "base/xdg.h"
#include "worker/proto.h"
#include "worker/proto_examples.h"

enum { BODY_MAX = 65536 };

static void golden(void **state)
{
    for (unsigned i = 0; i < PROTO_EXAMPLES; i++) {
        struct buf body;
        char path[512], *text, *hex;
        size_t len;
        const char *name;

        buf_init(&body, BODY_MAX);
        name = proto_example(i, &body);
        assert_int_equal(buf_status(&body), MC_OK);
        hex = malloc(2 * body.len + 2);
        hex_encode(hex, body.data, body.len);
        strcat(hex, "\n");
        snprintf(path, sizeof(path), "%s/%s.hex", WORKER_GOLDEN, name);
        if (getenv("MC_GOLDEN_WRITE"))
            assert_int_equal(path_write_atomic(path, hex, strlen(hex)), MC_OK);
        assert_int_equal(path_read(path, BODY_MAX, &text, &len), MC_OK);
        assert_string_equal(text, hex);
        free(text);
        free(hex);
        buf_fini(&body);
    }
}

static void round_trip(void **state)
{
    for (unsigned i = 0; i < PROTO_EXAMPLES; i++) {
        struct buf body, again;
        const char *bad = NULL;

        buf_init(&body, BODY_MAX);
        buf_init(&again, BODY_MAX);
        proto_example(i, &body);
        assert_int_equal(proto_example_decode(i, buf_slice(&body), &again, &bad), MC_OK);
        assert_true(slice_eq(buf_slice(&body), buf_slice(&again)));
        buf_fini(&body);
        buf_fini(&again);
    }
}

/* Cut anywhere, or with bytes changed: a status and the name of a field, or a message that encodes again. */
static void damaged(void **state)
{
    struct rng rng;

    rng_seed(&rng, 3);
    for (unsigned i = 0; i < PROTO_EXAMPLES; i++) {
        struct buf body, again;
        uint8_t copy[4096];

        buf_init(&body, BODY_MAX);
        buf_init(&again, BODY_MAX);
        proto_example(i, &body);
        for (size_t cut = 0; cut < body.len; cut++) {
            const char *bad = NULL;
            enum mc_status status = proto_example_decode(i, slice_of(body.data, cut), &again, &bad);

            assert_true(status == MC_OK || bad);
            buf_reset(&again);
        }
        for (int round = 0; round < 5000; round++) {
            const char *bad = NULL;
            enum mc_status status;

            memcpy(copy, body.data, body.len);
            for (uint64_t n = 1 + rng_below(&rng, 3); n > 0; n--)
                copy[rng_below(&rng, body.len)] ^= (uint8_t)(1 + rng_below(&rng, 255));
            status = proto_example_decode(i, slice_of(copy, body.len), &again, &bad);
            assert_true(status == MC_OK || bad);
            buf_reset(&again);
        }
        buf_fini(&body);
        buf_fini(&again);
    }
}

static const char *run_bad(const struct wmsg_run *msg)
{
    struct wmsg_run decoded;
    const char *bad = NULL;
    struct buf body;
    enum mc_status status;

    buf_init(&body, BODY_MAX);
    wmsg_run_encode(msg, &body);
    status = wmsg_run_decode(buf_slice(&body), &decoded, &bad);
    buf_fini(&body);
    if (status == MC_OK)
        wmsg_run_fini(&decoded);
    return status == MC_OK ? "" : bad;
}

/* Messages that are well formed and make no sense name the field. */
static void senseless_runs(void **state)
{
    const uint32_t tokens[] = {1, 2, 3};
    const struct wmsg_run good = {.kind = WMSG_DECODE, .tokens = tokens, .token_count = 3, .max_tokens = 5};
    struct wmsg_run run = good;

    assert_string_equal(run_bad(&run), "");
    run.kind = 9;
    assert_string_equal(run_bad(&run), "kind");
    run = good;
    run.token_count = 0;
    assert_string_equal(run_bad(&run), "tokens");
    run = good;
    run.answer_count = 3;
    assert_string_equal(run_bad(&run), "answer_count");
    run = good;
    run.answer_count = 1;
    run.kind = WMSG_PREFILL;
    assert_string_equal(run_bad(&run), "answer_count");
    run = good;
    run.max_tokens = 0;
    assert_string_equal(run_bad(&run), "max_tokens");
    run = good;
    run.sampling.temperature = NAN; /* not sent */
    assert_string_equal(run_bad(&run), "");
}

/* A field of a later version: skipped, or refused when it says that it must be understood. */
static void unknown_fields(void **state)
{
    struct wmsg_release msg;
    const char *bad = NULL;
    struct buf body;

    buf_init(&body, BODY_MAX);
    wmsg_release_encode(&(struct wmsg_release){5}, &body);
    put_field_u32(&body, 999, 1);
    assert_int_equal(wmsg_release_decode(buf_slice(&body), &msg, &bad), MC_OK);
    assert_int_equal(msg.request, 5);
    put_field_u32(&body, 998 | FIELD_MUST, 1);
    assert_int_equal(wmsg_release_decode(buf_slice(&body), &msg, &bad), MC_ENOSUP);
    assert_non_null(bad);
    buf_fini(&body);
}

/* A NUL inside a chat message would end it early for the engine: refused. */
static void nul_in_text(void **state)
{
    struct wmsg_tokenize msg;
    const char *bad = NULL;
    struct buf body;

    buf_init(&body, BODY_MAX);
    put_field_bytes(&body, 1, "a\0b", 3);
    assert_int_equal(wmsg_tokenize_decode(buf_slice(&body), &msg, &bad), MC_EPROTO);
    assert_string_equal(bad, "text");
    buf_fini(&body);
}

static void token_without_logprob(void **state)
{
    struct wmsg_event event = {.kind = WMSG_TOKEN, .token = {.index = 1, .logprob = NAN}}, got;
    struct buf body;

    buf_init(&body, BODY_MAX);
    wmsg_event_encode(&event, &body);
    assert_int_equal(wmsg_event_decode(buf_slice(&body), &got, NULL), MC_OK);
    assert_true(isnan(got.token.logprob));
    buf_reset(&body);
    event.token.logprob = 0; /* certain, and not the same as unknown */
    wmsg_event_encode(&event, &body);
    assert_int_equal(wmsg_event_decode(buf_slice(&body), &got, NULL), MC_OK);
    assert_true(got.token.logprob == 0);
    buf_fini(&body);
}

static void predictions(void **state)
{
    const struct wmsg_speed speed = {1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0};

    assert_true(wmsg_prefill_s(&speed, 0, 100) == 0);
    assert_true(wmsg_prefill_s(&speed, 10, 100) == 1 + 20 + 10 * 105 * 3);
    assert_true(wmsg_decode_s(&speed, 2, 10) == 4 + 10 + 60);
    assert_true(wmsg_load_s(&speed, 3) == 7 + 24);
    assert_true(wmsg_load_s(&speed, 0) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(golden), cmocka_unit_test(round_trip),
        cmocka_unit_test(damaged), cmocka_unit_test(senseless_runs), cmocka_unit_test(unknown_fields),
        cmocka_unit_test(nul_in_text), cmocka_unit_test(token_without_logprob), cmocka_unit_test(predictions)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
