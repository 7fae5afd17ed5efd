/* cursor_test.c - what is written is read back; every cut of it fails with a name; fields follow the rules of docs/wire.md. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "base/cursor.h"

static void write_all(struct buf *buf)
{
    buf_init(buf, 10000);
    put_u8(buf, 1);
    put_u16(buf, 0x0302);
    put_u32(buf, 0x07060504);
    put_u64(buf, 0x0f0e0d0c0b0a0908);
    put_bytes(buf, "\x10\x11", 2);
    put_str(buf, slice_str("hello"));
}

static enum mc_status read_all(struct cur *c)
{
    struct slice text;
    uint8_t two[2];

    assert_true(cur_u8(c, "u8") == 1 || c->bad);
    assert_true(cur_u16(c, "u16") == 0x0302 || c->bad);
    assert_true(cur_u32(c, "u32") == 0x07060504 || c->bad);
    assert_true(cur_u64(c, "u64") == 0x0f0e0d0c0b0a0908 || c->bad);
    cur_copy(c, two, 2, "two");
    text = cur_str(c, 5, "text");
    assert_true(slice_eq_str(text, "hello") || c->bad);
    cur_done(c, "end");
    return cur_status(c);
}

static void test_roundtrip_and_cuts(void **state)
{
    struct buf buf;
    struct cur c;

    write_all(&buf);
    assert_int_equal(buf.data[10], 0x0b); /* little-endian */
    c = cur_of_slice(buf_slice(&buf));
    assert_int_equal(read_all(&c), MC_OK);
    assert_null(c.bad);
    for (size_t len = 0; len < buf.len; len++) {
        c = cur_of(buf.data, len);
        assert_int_equal(read_all(&c), MC_EPROTO);
        assert_non_null(c.bad);
    }
    put_u8(&buf, 0);
    c = cur_of_slice(buf_slice(&buf));
    assert_int_equal(read_all(&c), MC_EPROTO);
    assert_string_equal(c.bad, "end");
    buf_fini(&buf);
}

static void test_first_failure_stays(void **state)
{
    struct cur c = cur_of("ab", 2);

    assert_int_equal(cur_u32(&c, "first"), 0);
    assert_int_equal(cur_u8(&c, "second"), 0);
    cur_fail(&c, "third");
    assert_string_equal(c.bad, "first");
    c = cur_of(NULL, 0);
    assert_int_equal(cur_bytes(&c, 0, "none").len, 0);
    assert_int_equal(cur_status(&c), MC_OK);
}

static void test_str_limit(void **state)
{
    struct buf buf;
    struct cur c;

    buf_init(&buf, 100);
    put_str(&buf, slice_str("123456"));
    c = cur_of_slice(buf_slice(&buf));
    cur_str(&c, 5, "text");
    assert_string_equal(c.bad, "text");
    buf_fini(&buf);
}

struct parsed {
    uint8_t a;
    uint16_t b;
    uint32_t c;
    uint64_t d;
    char text[6];
    uint8_t id[4];
    unsigned nested, fields;
};

static enum mc_status parse(struct slice body, struct parsed *p, const char **bad)
{
    struct cur c = cur_of_slice(body), inner;
    struct field f;

    memset(p, 0, sizeof(*p));
    while (field_next(&c, &f)) {
        p->fields++;
        switch (f.id) {
        case 1: p->a = field_u8(&f, "a"); break;
        case 2: p->b = field_u16(&f, "b"); break;
        case 3: p->c = field_u32(&f, "c"); break;
        case 4: p->d = field_u64(&f, "d"); break;
        case 5: field_text(&f, p->text, sizeof(p->text), "text"); break;
        case 6: field_copy(&f, p->id, sizeof(p->id), "id"); break;
        case 7:
            inner = field_cur(&f);
            while (cur_left(&inner) && cur_status(&inner) == MC_OK) {
                cur_u16(&inner, "element");
                p->nested++;
            }
            field_join(&f, &inner);
            break;
        default: field_unknown(&f);
        }
    }
    *bad = c.bad;
    return cur_status(&c);
}

static void write_fields(struct buf *buf)
{
    size_t mark;

    buf_init(buf, 10000);
    put_field_u8(buf, 1, 11);
    put_field_u16(buf, 2 | FIELD_MUST, 22);
    put_field_u32(buf, 3, 33);
    put_field_u64(buf, 4, 44);
    put_field_text(buf, 5, "hello");
    put_field_bytes(buf, 6, "abcd", 4);
    mark = put_field_begin(buf, 7);
    put_u16(buf, 1);
    put_u16(buf, 2);
    put_field_end(buf, mark);
    put_field_text(buf, 0x7001, "from the future");
}

static void test_fields(void **state)
{
    struct parsed p;
    struct buf buf;
    const char *bad;

    write_fields(&buf);
    assert_int_equal(parse(buf_slice(&buf), &p, &bad), MC_OK);
    assert_int_equal(p.a + p.b + p.c + p.d, 110);
    assert_string_equal(p.text, "hello");
    assert_memory_equal(p.id, "abcd", 4);
    assert_int_equal(p.nested, 2);
    assert_int_equal(p.fields, 8);
    put_field_u8(&buf, 1, 12); /* again: the last one counts */
    assert_int_equal(parse(buf_slice(&buf), &p, &bad), MC_OK);
    assert_int_equal(p.a, 12);
    put_field_u8(&buf, 0x7002 | FIELD_MUST, 0);
    assert_int_equal(parse(buf_slice(&buf), &p, &bad), MC_ENOSUP);
    buf_fini(&buf);
}

static void check_bad(struct buf *buf, const char *name)
{
    struct parsed p;
    const char *bad;

    assert_int_equal(parse(buf_slice(buf), &p, &bad), MC_EPROTO);
    assert_string_equal(bad, name);
    buf_reset(buf);
}

static void test_bad_fields(void **state)
{
    struct buf buf;

    buf_init(&buf, 1000);
    put_field_u16(&buf, 1, 0);
    check_bad(&buf, "a");
    put_field_u8(&buf, 4, 0);
    check_bad(&buf, "d");
    put_field_text(&buf, 5, "sixsix");
    check_bad(&buf, "text");
    put_field_bytes(&buf, 5, "a\0b", 3);
    check_bad(&buf, "text");
    put_field_bytes(&buf, 6, "abc", 3);
    check_bad(&buf, "id");
    put_field_bytes(&buf, 7, "abc", 3);
    check_bad(&buf, "element");
    put_u16(&buf, 1);
    check_bad(&buf, "field length");
    put_u16(&buf, 1);
    put_u32(&buf, 1);
    check_bad(&buf, "field length");
    put_u8(&buf, 1);
    check_bad(&buf, "field id");
    buf_fini(&buf);
}

static void test_writer_failure_sticks(void **state)
{
    struct buf buf;
    size_t mark;

    buf_init(&buf, 8);
    mark = put_field_begin(&buf, 1);
    put_u64(&buf, 1);
    put_field_end(&buf, mark);
    assert_int_equal(buf_status(&buf), MC_ETOOBIG);
    buf_fini(&buf);
    buf_init(&buf, 3);
    mark = put_field_begin(&buf, 1);
    put_field_end(&buf, mark);
    assert_int_equal(buf_status(&buf), MC_ETOOBIG);
    buf_fini(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_roundtrip_and_cuts),
        cmocka_unit_test(test_first_failure_stays),
        cmocka_unit_test(test_str_limit),
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_bad_fields),
        cmocka_unit_test(test_writer_failure_sticks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
