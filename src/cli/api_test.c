/* api_test.c - goal: events come out whole, however the bytes are cut. Method: every cut of one stream. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "cli/api.h"
#include "cli/ask.h"

static bool gather(void *arg, const char *data, size_t len)
{
    struct buf *out = arg;

    assert_int_equal(strlen(data), len);
    buf_printf(out, "<%s>", data);
    return strcmp(data, "stop") != 0;
}

static void test_every_cut(void **state)
{
    static const char stream[] =
        ": hello\n\ndata: one\n\nevent: x\r\ndata:two\r\ndata: lines\r\n\r\n\ndata: 三\n\ndata: cut off";

    (void)state;
    for (size_t first = 0; first < sizeof(stream); first++) {
        struct sse sse;
        struct buf out;
        buf_init(&out, 4096);
        sse_init(&sse);
        assert_true(sse_feed(&sse, stream, first, gather, &out));
        assert_true(sse_feed(&sse, stream + first, sizeof(stream) - 1 - first, gather, &out));
        assert_string_equal(buf_cstr(&out), "<one><two\nlines><三>");
        sse_fini(&sse);
        buf_fini(&out);
    }
}

static void test_callback_ends_it(void **state)
{
    static const char stream[] = "data: stop\n\ndata: more\n\n";
    struct sse sse;
    struct buf out;

    (void)state;
    buf_init(&out, 4096);
    sse_init(&sse);
    assert_false(sse_feed(&sse, stream, sizeof(stream) - 1, gather, &out));
    assert_false(sse_feed(&sse, stream, sizeof(stream) - 1, gather, &out));
    assert_string_equal(buf_cstr(&out), "<stop>");
    sse_fini(&sse);
    buf_fini(&out);
}

static void test_endless_line_is_cut(void **state)
{
    static char piece[65536];
    struct sse sse;
    int fed = 0;

    (void)state;
    memset(piece, 'x', sizeof(piece));
    sse_init(&sse);
    while (sse_feed(&sse, piece, sizeof(piece), gather, NULL))
        assert_true(++fed < 64);
    sse_fini(&sse);
}

static void test_nobody_there(void **state)
{
    struct api_reply reply;

    (void)state;
    api_call(&(struct api_call){.url = "http://127.0.0.1:1", .path = "/", .timeout_ms = 2000}, &reply);
    assert_int_equal(reply.status, 0);
    assert_non_null(strstr(reply.error, "127.0.0.1:1"));
    api_reply_fini(&reply);
}

static void test_median(void **state)
{
    double odd[] = {5, 1, 3}, even[] = {4, 1, 3, 2};

    (void)state;
    assert_float_equal(median(odd, 3), 3, 0);
    assert_float_equal(median(even, 4), 2.5, 0);
    assert_float_equal(median(NULL, 0), 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_callback_ends_it),
        cmocka_unit_test(test_endless_line_is_cut),
        cmocka_unit_test(test_nobody_there),
        cmocka_unit_test(test_median),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
