/* frame_test.c - headers, pieces and the handshake body.
 *
 * Goal: the bytes on the wire never change by accident, and nothing malformed is accepted. Method: golden bytes written out here and
 * in docs/wire.md; every single-bit error of a header; random bodies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "net/frame.h"

static struct frame sample(void)
{
    struct frame frame = {.type = 0x0201,
        .flags = FRAME_REPLY | FRAME_MORE,
        .status = MC_ESTALE,
        .deadline_ms = 1500,
        .request = 0x1122334455667788,
        .body_len = 5,
        .body_crc = 0xcafef00d,
        .payload_len = 0x100000002};

    for (int i = 0; i < TRACE_SIZE; i++)
        frame.trace[i] = (uint8_t)(0xa0 + i);
    return frame;
}

/* The specification in bytes. A change here is a change of the protocol: give it a new version. */
static void test_golden_header(void **state)
{
    static const char golden[] = "4d434331"                         /* "MCC1" */
                                 "0100"                             /* frame version */
                                 "0102"                             /* type */
                                 "03000000"                         /* flags */
                                 "dc050000"                         /* deadline left, ms */
                                 "8877665544332211"                 /* request */
                                 "a0a1a2a3a4a5a6a7a8a9aaabacadaeaf" /* trace */
                                 "05000000"                         /* body length */
                                 "0df0feca"                         /* body crc */
                                 "0200000001000000"                 /* payload length */
                                 "f9ffffff"                         /* status -7 */
                                 "7efbe774";                        /* header crc */
    struct frame frame = sample();
    uint8_t bytes[FRAME_HEADER_SIZE];
    char hex[2 * FRAME_HEADER_SIZE + 1];

    frame_encode(&frame, bytes);
    hex_encode(hex, bytes, sizeof(bytes));
    assert_string_equal(hex, golden);
}

static void test_header_roundtrip(void **state)
{
    struct frame frame = sample(), back;
    uint8_t bytes[FRAME_HEADER_SIZE];
    const char *bad;

    frame_encode(&frame, bytes);
    assert_int_equal(frame_decode(bytes, FRAME_BODY_MAX, &back, &bad), MC_OK);
    assert_memory_equal(&frame, &back, sizeof(frame));
}

static void test_header_every_bit(void **state)
{
    struct frame frame = sample(), back;
    uint8_t bytes[FRAME_HEADER_SIZE];
    const char *bad;

    frame_encode(&frame, bytes);
    for (size_t bit = 0; bit < 8 * sizeof(bytes); bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_equal(frame_decode(bytes, FRAME_BODY_MAX, &back, &bad), MC_EPROTO);
        assert_non_null(bad);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

static void test_header_limits(void **state)
{
    struct frame frame = sample(), back;
    uint8_t bytes[FRAME_HEADER_SIZE];
    const char *bad;

    frame_encode(&frame, bytes);
    assert_int_equal(frame_decode(bytes, 4, &back, &bad), MC_EPROTO);
    assert_string_equal(bad, "body length");
    frame.flags = 4;
    frame_encode(&frame, bytes);
    assert_int_equal(frame_decode(bytes, FRAME_BODY_MAX, &back, &bad), MC_EPROTO);
    assert_string_equal(bad, "flags");
}

static void test_golden_piece(void **state)
{
    struct piece piece = {.len = 262144, .crc = 0x01020304};
    uint8_t bytes[PIECE_HEADER_SIZE];
    char hex[2 * PIECE_HEADER_SIZE + 1];

    piece_encode(&piece, bytes);
    hex_encode(hex, bytes, sizeof(bytes));
    assert_string_equal(hex, "00000400"
                             "04030201"
                             "00000000"
                             "80f88872");
}

static void test_piece(void **state)
{
    static const struct {
        struct piece piece;
        uint64_t left;
        enum mc_status status;
    } cases[] = {
        {{1, 0, MC_OK}, 1, MC_OK},
        {{0, 0, MC_OK}, 1, MC_EPROTO},
        {{2, 0, MC_OK}, 1, MC_EPROTO},
        {{PIECE_MAX, 0, MC_OK}, UINT64_MAX, MC_OK},
        {{PIECE_MAX + 1, 0, MC_OK}, UINT64_MAX, MC_EPROTO},
        {{0, 0, MC_ESTALE}, 9, MC_OK},
        {{1, 0, MC_ESTALE}, 9, MC_EPROTO},
        {{1, 0, MC_AGAIN}, 9, MC_EPROTO},
    };
    uint8_t bytes[PIECE_HEADER_SIZE];
    struct piece back;
    const char *bad;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        piece_encode(&cases[i].piece, bytes);
        assert_int_equal(piece_decode(bytes, cases[i].left, &back, &bad), cases[i].status);
        bytes[i] ^= 0x10;
        assert_int_equal(piece_decode(bytes, cases[i].left, &back, &bad), MC_EPROTO);
    }
}

static struct hello sample_hello(void)
{
    struct hello hello = {.protocol_min = 1,
        .protocol_max = 3,
        .features = 5,
        .role = ROLE_WORKER,
        .epoch = 9,
        .host_id = "host",
        .tenant = "t",
        .build = "b 1",
        .auth_method = "none",
        .auth_len = 2,
        .auth = {1, 2},
        .credits = 64,
        .body_max = 4096,
        .payload_max = 1ull << 33};

    memset(hello.uuid, 0x11, sizeof(hello.uuid));
    memset(hello.recipe, 0x22, sizeof(hello.recipe));
    return hello;
}

static void test_golden_hello(void **state)
{
    static const char golden[] = "0100020000000100"
                                 "0200020000000300"
                                 "0300080000000500000000000000"
                                 "0400020000000400"
                                 "05001000000011111111111111111111111111111111"
                                 "06000400000009000000"
                                 "070004000000686f7374"
                                 "08000100000074"
                                 "090003000000622031"
                                 "0a00200000002222222222222222222222222222222222222222222222222222222222222222"
                                 "0b00040000006e6f6e65"
                                 "0c00020000000102"
                                 "0d000400000040000000"
                                 "0e000400000000100000"
                                 "0f00080000000000000002000000";
    struct hello hello = sample_hello();
    char hex[1024];
    struct buf body;

    buf_init(&body, 500);
    hello_encode(&hello, &body);
    assert_int_equal(buf_status(&body), MC_OK);
    hex_encode(hex, body.data, body.len);
    assert_string_equal(hex, golden);
    buf_fini(&body);
}

static void test_hello_roundtrip(void **state)
{
    struct hello hello = sample_hello(), back;
    const char *bad;
    struct buf body;

    buf_init(&body, 10000);
    hello_encode(&hello, &body);
    put_field_u32(&body, 0x7123, 1); /* of a later version: skipped */
    assert_int_equal(hello_decode(buf_slice(&body), &back, &bad), MC_OK);
    assert_memory_equal(&hello, &back, sizeof(hello));
    put_field_u32(&body, 0x7124 | FIELD_MUST, 1);
    assert_int_equal(hello_decode(buf_slice(&body), &back, &bad), MC_ENOSUP);
    buf_fini(&body);
}

static void test_hello_truncated(void **state)
{
    struct hello hello = sample_hello(), back;
    unsigned accepted = 0;
    const char *bad;
    struct buf body;

    buf_init(&body, 10000);
    hello_encode(&hello, &body);
    for (size_t len = 0; len < body.len; len++)
        if (hello_decode(slice_of(body.data, len), &back, &bad) == MC_OK)
            accepted++; /* cut between two fields, after the protocol range */
    assert_int_equal(accepted, 13);
    buf_fini(&body);
}

static void test_refuse(void **state)
{
    enum mc_status status;
    char text[512], lengthy[2000];
    struct buf body;

    buf_init(&body, 10000);
    refuse_encode(MC_EVERSION, "too old", &body);
    assert_int_equal(refuse_decode(buf_slice(&body), &status, text, sizeof(text)), MC_OK);
    assert_int_equal(status, MC_EVERSION);
    assert_string_equal(text, "too old");
    memset(lengthy, 'x', sizeof(lengthy));
    lengthy[1999] = 0;
    buf_reset(&body);
    refuse_encode(MC_OK, lengthy, &body);
    assert_int_equal(refuse_decode(buf_slice(&body), &status, text, sizeof(text)), MC_OK);
    assert_int_equal(status, MC_EREFUSED);
    assert_int_equal(strlen(text), 511);
    buf_fini(&body);
}

static void test_uuid(void **state)
{
    uint8_t uuid[UUID_SIZE], back[UUID_SIZE];
    char text[UUID_TEXT];

    for (int i = 0; i < UUID_SIZE; i++)
        uuid[i] = (uint8_t)(i * 17);
    assert_string_equal(uuid_format(uuid, text), "00112233-4455-6677-8899-aabbccddeeff");
    assert_int_equal(uuid_parse(text, back), MC_OK);
    assert_memory_equal(uuid, back, UUID_SIZE);
    assert_int_equal(uuid_parse("00112233-4455-6677-8899-aabbccddeef", back), MC_EINVAL);
    assert_int_equal(uuid_parse("00112233x4455-6677-8899-aabbccddeeff", back), MC_EINVAL);
    assert_int_equal(uuid_parse("0011223--4455-6677-8899-aabbccddeeff", back), MC_EINVAL);
}

static void test_message_names(void **state)
{
    assert_string_equal(message_name(MSG_HELLO), "hello");
    assert_string_equal(message_name(0xffff), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_header),
        cmocka_unit_test(test_header_roundtrip),
        cmocka_unit_test(test_header_every_bit),
        cmocka_unit_test(test_header_limits),
        cmocka_unit_test(test_golden_piece),
        cmocka_unit_test(test_piece),
        cmocka_unit_test(test_golden_hello),
        cmocka_unit_test(test_hello_roundtrip),
        cmocka_unit_test(test_hello_truncated),
        cmocka_unit_test(test_refuse),
        cmocka_unit_test(test_uuid),
        cmocka_unit_test(test_message_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
