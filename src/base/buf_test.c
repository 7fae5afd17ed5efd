/* buf_test.c - growth, limits, sticky failures, fixed memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

static void test_grow(void **state)
{
    struct buf buf;
    char *text;
    size_t len;

    buf_init(&buf, SIZE_MAX);
    assert_string_equal(buf_cstr(&buf), "");
    for (int i = 0; i < 1000; i++)
        buf_printf(&buf, "%d,", i);
    buf_append_str(&buf, "end");
    buf_append_char(&buf, '!');
    assert_int_equal(buf_status(&buf), MC_OK);
    assert_int_equal(buf.len, 3894);
    assert_true(slice_eq(slice_of(buf.data, 6), slice_str("0,1,2,")));
    buf_consume(&buf, 2);
    assert_int_equal(buf.data[0], '1');
    buf_reset(&buf);
    assert_int_equal(buf_skip(&buf, 3), 0);
    assert_int_equal(buf_skip(&buf, 1), 3);
    buf_reset(&buf);
    buf_printf(&buf, "%0500d", 7); /* longer than the small buffer of printf */
    assert_int_equal(buf.len, 500);
    text = buf_steal(&buf, &len);
    assert_int_equal(strlen(text), 500);
    assert_int_equal(len, 500);
    assert_int_equal(buf.len, 0);
    free(text);
    buf_fini(&buf);
}

static void test_limit(void **state)
{
    struct buf buf;

    buf_init(&buf, 10);
    buf_append_str(&buf, "0123456789");
    assert_int_equal(buf_status(&buf), MC_OK);
    buf_append_char(&buf, 'x');
    assert_int_equal(buf_status(&buf), MC_ETOOBIG);
    buf_reset(&buf);
    buf_append_str(&buf, "01234567");
    buf_append_str(&buf, "too long");
    buf_append_str(&buf, "8"); /* would fit, but a hole would be worse */
    assert_string_equal(buf_cstr(&buf), "01234567");
    assert_int_equal(buf_status(&buf), MC_ETOOBIG);
    assert_null(buf_reserve(&buf, 1));
    buf_fini(&buf);
}

static void test_fixed(void **state)
{
    char memory[8];
    struct buf buf;

    buf_init_fixed(&buf, memory, sizeof(memory));
    buf_append_str(&buf, "1234567");
    assert_int_equal(buf_status(&buf), MC_OK);
    assert_string_equal(memory, "1234567");
    buf_append_char(&buf, '8');
    assert_int_equal(buf_status(&buf), MC_ETOOBIG);
    assert_string_equal(memory, "1234567");
    buf_fini(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grow),
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_fixed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
