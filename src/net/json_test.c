/* json_test.c - typed access with named errors, parsing, and writing of strings that may be no UTF-8. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "net/json.h"

static json_t *parse(const char *text)
{
    char why[256] = "";
    json_t *value = json_parse(slice_str(text), why, sizeof(why));

    if (!value)
        fail_msg("%s", why);
    return value;
}

static void test_good(void **state)
{
    json_t *object = parse("{\"s\":\"text\",\"i\":7,\"f\":16.0,\"b\":true,\"n\":0.5,\"a\":[1],\"o\":{},\"null\":null}");
    struct json_in in = json_in_of(object);

    assert_string_equal(json_need_str(&in, "s"), "text");
    assert_int_equal(json_need_int(&in, "i", 0, 10), 7);
    assert_int_equal(json_need_int(&in, "f", 0, 16), 16);
    assert_int_equal(json_array_size(json_need_array(&in, "a")), 1);
    assert_non_null(json_need_object(&in, "o"));
    assert_true(json_opt_bool(&in, "b", false));
    assert_true(json_opt_num(&in, "n", 0, 0, 1) == 0.5);
    assert_int_equal(json_opt_int(&in, "null", 3, 0, 9), 3);
    assert_string_equal(json_opt_str(&in, "missing", "def"), "def");
    assert_true(json_opt_bool(&in, "missing", true));
    assert_null(json_opt_array(&in, "missing"));
    assert_int_equal(in.status, MC_OK);
    json_decref(object);
}

static void check_error(const char *text, int64_t (*read)(struct json_in *in), const char *message)
{
    json_t *object = parse(text);
    struct json_in in = json_in_of(object);

    read(&in);
    assert_int_equal(in.status, MC_EINVAL);
    assert_string_equal(in.param, "x");
    assert_string_equal(in.message, message);
    json_fail(&in, "y", "comes later");
    assert_string_equal(in.param, "x");
    json_decref(object);
}

static int64_t read_int(struct json_in *in)
{
    return json_need_int(in, "x", 1, 10);
}

static int64_t read_str(struct json_in *in)
{
    return strlen(json_need_str(in, "x")) != 0;
}

static int64_t read_num(struct json_in *in)
{
    return (int64_t)json_opt_num(in, "x", 0, 0, 2);
}

static int64_t read_bool(struct json_in *in)
{
    return json_opt_bool(in, "x", false);
}

static int64_t read_array(struct json_in *in)
{
    return json_opt_array(in, "x") != NULL;
}

static void test_errors(void **state)
{
    check_error("{}", read_int, "field 'x' is missing");
    check_error("{\"x\":11}", read_int, "field 'x' must be an integer from 1 to 10");
    check_error("{\"x\":1.5}", read_int, "field 'x' must be an integer from 1 to 10");
    check_error("{\"x\":1e300}", read_int, "field 'x' must be an integer from 1 to 10");
    check_error("{\"x\":\"1\"}", read_int, "field 'x' must be an integer from 1 to 10");
    check_error("{\"x\":1}", read_str, "field 'x' must be a string");
    check_error("{\"x\":\"a\\u0000b\"}", read_str, "field 'x' must be a string");
    check_error("{\"x\":2.5}", read_num, "field 'x' must be a number from 0 to 2");
    check_error("{\"x\":1}", read_bool, "field 'x' must be true or false");
    check_error("{\"x\":{}}", read_array, "field 'x' must be an array");
}

static void test_parse_errors(void **state)
{
    char why[256];

    assert_null(json_parse(slice_str("{\"a\":1,}"), why, sizeof(why)));
    assert_non_null(strstr(why, "line 1 column"));
    assert_null(json_parse(slice_str("{\"a\":1,\"a\":2}"), why, sizeof(why)));
    assert_non_null(strstr(why, "duplicate"));
    assert_null(json_parse(slice_str(""), why, sizeof(why)));
    assert_null(json_parse(slice_str("\"\xff\""), why, sizeof(why)));
}

static void written(const char *bytes, size_t len, const char *expect)
{
    struct buf out;

    buf_init(&out, 1000);
    json_write_str(&out, slice_of(bytes, len));
    assert_string_equal(buf_cstr(&out), expect);
    buf_fini(&out);
}

static void test_write_str(void **state)
{
    written("", 0, "\"\"");
    written("a\"b\\c\n\t\r\b\f\v\x01\x7f", 13, "\"a\\\"b\\\\c\\n\\t\\r\\b\\f\\u000b\\u0001\\u007f\"");
    written("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", 9, "\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"");
    written("\xff", 1, "\"\xef\xbf\xbd\"");
    written("\xe2\x82", 2, "\"\xef\xbf\xbd\xef\xbf\xbd\"");                 /* cut */
    written("\xc0\x80", 2, "\"\xef\xbf\xbd\xef\xbf\xbd\"");                 /* overlong */
    written("\xed\xa0\x80", 3, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""); /* surrogate */
}

static void test_write(void **state)
{
    json_t *value = parse("{\"a\": [1, 2.5, \"x\"], \"b\": null}");
    struct buf out;

    buf_init(&out, 1000);
    assert_true(json_write(value, &out));
    assert_string_equal(buf_cstr(&out), "{\"a\":[1,2.5,\"x\"],\"b\":null}");
    buf_fini(&out);
    buf_init(&out, 5);
    assert_false(json_write(value, &out));
    buf_fini(&out);
    json_decref(value);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_parse_errors),
        cmocka_unit_test(test_write_str),
        cmocka_unit_test(test_write),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
