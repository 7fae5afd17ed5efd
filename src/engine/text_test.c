/* text_test.c - what may be sent: for every text, every cut into pushes gives the same output, which is valid UTF-8, never
 * holds a stop string, and is held back no longer than needed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "mooncake/sampling.h"

/* Push in pieces drawn from rng (NULL: at once), take after each, finish. */
static int run(const char *const *stops, size_t stop_count, const char *in, size_t length, struct rng *rng, char *out)
{
    struct mc_text *text;
    size_t n, at = 0, end = 0;
    const char *piece;
    int stopped;

    assert_int_equal(mc_text_create(stops, stop_count, &text), MC_OK);
    while (at < length) {
        n = rng ? 1 + rng_below(rng, 4) : length;
        n = n < length - at ? n : length - at;
        assert_int_equal(mc_text_push(text, in + at, n), MC_OK);
        at += n;
        piece = mc_text_take(text, &n);
        memcpy(out + end, piece, n);
        end += n;
    }
    mc_text_finish(text);
    piece = mc_text_take(text, &n);
    memcpy(out + end, piece, n);
    out[end + n] = 0;
    mc_text_take(text, &n);
    assert_int_equal(n, 0);
    stopped = mc_text_stopped(text);
    mc_text_destroy(text);
    return stopped;
}

static void table(void **state)
{
    static const struct {
        const char *stops[4];
        const char *in, *out;
        int stopped;
    } rows[] = {
        {{NULL}, "plain text", "plain text", -1},
        {{NULL}, "缓存 é 🙂", "缓存 é 🙂", -1},
        {{"STOP"}, "go on STOP here", "go on ", 0},
        {{"STOP"}, "go on STO", "go on STO", -1},
        {{"ab", "a"}, "xxab", "xx", 1},   /* the one complete first */
        {{"bc", "abcX"}, "abcd", "a", 0}, /* an earlier one that did not happen */
        {{"bc", "abcX"}, "abcX", "", 1},
        {{"\n\n", "。"}, "第一句。第二句", "第一句", 1},
        {{"aab"}, "aaab", "a", 0},
        {{NULL}, "bad \xff byte", "bad \xef\xbf\xbd byte", -1},
        {{NULL}, "cut \xe7\xbc", "cut \xef\xbf\xbd", -1},
        {{NULL}, "\xc0\xaf\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", -1},
        {{NULL}, "\xf4\x90\x80\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd", -1},
        {{NULL}, "\xe7\xe7\xbc\x93", "\xef\xbf\xbd\xe7\xbc\x93", -1},
    };
    char out[200];

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t count = 0;

        while (rows[i].stops[count])
            count++;
        assert_int_equal(run(rows[i].stops, count, rows[i].in, strlen(rows[i].in), NULL, out), rows[i].stopped);
        assert_string_equal(out, rows[i].out);
    }
}

static bool valid_utf8(const char *s)
{
    while (*s) {
        unsigned char c = (unsigned char)*s;
        int n = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;

        if (c >= 0x80 && c < 0xc2)
            return false;
        for (int i = 1; i < n; i++)
            if (((unsigned char)s[i] & 0xc0) != 0x80)
                return false;
        s += n;
    }
    return true;
}

static void any_cut_same_output(void **state)
{
    static const char *const stops[] = {"abab", "。b", "cc", "ccb"};
    static const char alphabet[] = "aabbc。\xff\xe7 ";
    struct rng rng;

    rng_seed(&rng, 17);
    for (int round = 0; round < 3000; round++) {
        char in[60], whole[400], parts[400];
        size_t length = rng_below(&rng, sizeof in);
        int a, b;

        for (size_t i = 0; i < length; i++)
            in[i] = alphabet[rng_below(&rng, sizeof alphabet - 1)];
        a = run(stops, 4, in, length, NULL, whole);
        b = run(stops, 4, in, length, &rng, parts);
        assert_int_equal(a, b);
        assert_string_equal(whole, parts);
        assert_true(valid_utf8(whole));
        for (int i = 0; i < 3; i++)
            assert_null(strstr(whole, stops[i]));
    }
}

/* Held back exactly as long as it could become a stop string, and taken once. */
static void holds_no_more_than_needed(void **state)
{
    static const char *const stops[] = {"xyz"};
    struct mc_text *text;
    size_t n;

    assert_int_equal(mc_text_create(stops, 1, &text), MC_OK);
    mc_text_push(text, "abxy", 4);
    assert_memory_equal(mc_text_take(text, &n), "ab", 2);
    assert_int_equal(n, 2);
    mc_text_push(text, "x", 1);
    assert_memory_equal(mc_text_take(text, &n), "xy", 2);
    assert_int_equal(n, 2);
    mc_text_push(text, "yz tail", 7);
    mc_text_take(text, &n);
    assert_int_equal(n, 0);
    assert_int_equal(mc_text_stopped(text), 0);
    mc_text_push(text, "more", 4);
    mc_text_take(text, &n);
    assert_int_equal(n, 0);
    mc_text_destroy(text);
}

static void limits(void **state)
{
    static const char *const empty[] = {""};
    const char *many[MC_STOP_STRINGS_MAX + 1];
    static char longest[MC_STOP_SIZE_MAX + 2];
    const char *const one[] = {longest};
    struct mc_text *text;

    for (int i = 0; i <= MC_STOP_STRINGS_MAX; i++)
        many[i] = "s";
    assert_int_equal(mc_text_create(empty, 1, &text), MC_EINVAL);
    assert_int_equal(mc_text_create(many, MC_STOP_STRINGS_MAX + 1, &text), MC_EINVAL);
    memset(longest, 'x', MC_STOP_SIZE_MAX + 1);
    assert_int_equal(mc_text_create(one, 1, &text), MC_ETOOBIG);
    longest[MC_STOP_SIZE_MAX] = 0;
    assert_int_equal(mc_text_create(one, 1, &text), MC_OK);
    mc_text_destroy(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table),
        cmocka_unit_test(any_cut_same_output),
        cmocka_unit_test(holds_no_more_than_needed),
        cmocka_unit_test(limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
