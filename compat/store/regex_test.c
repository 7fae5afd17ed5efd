/* regex_test.c - goal: what is found is what ECMAScript finds, what is refused is refused by name, and no expression takes longer
 * than its length times the text's. Method: a table; steps are bounded by counting, not by a clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "compat/store/regex.h"

static const struct {
    const char *pattern, *text;
    bool found;
} rows[] = {
    {"", "", true},
    {"", "a", true},
    {"a", "cba", true},
    {"a", "cb", false},
    {"^a", "ba", false},
    {"^a", "ab", true},
    {"a$", "ab", false},
    {"a$", "ba", true},
    {"^$", "", true},
    {"^$", "x", false},
    {"a.c", "abc", true},
    {"a.c", "a\nc", false},
    {"^test_key_[0-9]+$", "test_key_17", true},
    {"^test_key_[0-9]+$", "test_key_", false},
    {"ab*c", "ac", true},
    {"ab*c", "abbbc", true},
    {"ab+c", "ac", false},
    {"ab?c", "abbc", false},
    {"a{3}", "aa", false},
    {"a{3}", "aaa", true},
    {"^a{2,3}$", "aaaa", false},
    {"^a{2,3}$", "aaa", true},
    {"^a{2,}$", "aaaaaa", true},
    {"^a{0,1}$", "", true},
    {"^(a|b)*$", "abba", true},
    {"^(a|b)*$", "abca", false},
    {"cat|dog|cow", "a dog", true},
    {"^(cat|dog|cow)$", "cow", true},
    {"^(cat|dog|cow)$", "cot", false},
    {"(?:ab)+c", "ababc", true},
    {"a+?b", "aab", true},
    {"a??b", "b", true},
    {"\\d+", "abc7", true},
    {"\\D", "77", false},
    {"^\\w+$", "a_9", true},
    {"^\\w+$", "a-9", false},
    {"\\s", "a b", true},
    {"^\\S+$", "a b", false},
    {"[a-c]x", "bx", true},
    {"[a-c]x", "dx", false},
    {"[^a-c]x", "dx", true},
    {"[^a-c]x", "ax", false},
    {"[\\d_]", "_", true},
    {"[]", "a", false},
    {"[^]", "a", true},
    {"[a-]", "-", true},
    {"[.]", "a", false},
    {"[[:alpha:]]", "1", false},
    {"[[:alpha:][:digit:]]", "1", true},
    {"\\.", "a", false},
    {"\\.", ".", true},
    {"\\x41", "A", true},
    {"\\u0041", "A", true},
    {"\\bfoo\\b", "a foo b", true},
    {"\\bfoo\\b", "afoo", false},
    {"\\Bfoo", "afoo", true},
    {"a|", "", true},
    {"(a|)b", "b", true},
    {"((a)(b)){2}", "abab", true},
    {"/", "a/b", true},
    {"vllm-.*@tp_rank:0@", "vllm-x@tp_rank:0@pcp0", true},
    {"x*", "aaa", true},
    {"(x*)*y", "xxxy", true},
    {"(a*)+$", "b", true},
};

static void finds_what_it_should(void **state)
{
    const char *why = NULL;

    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        struct regex *regex = regex_create(rows[i].pattern, strlen(rows[i].pattern), &why);

        if (!regex)
            fail_msg("%s: %s", rows[i].pattern, why);
        if (regex_found(regex, rows[i].text, strlen(rows[i].text)) != rows[i].found)
            fail_msg("'%s' in '%s': expected %d", rows[i].pattern, rows[i].text, rows[i].found);
        regex_destroy(regex);
    }
}

static void refuses_by_name(void **state)
{
    static const char *const bad[] = {"(", ")", "(a", "a)", "[a", "[b-a]", "*", "+a", "?", "a{", "a{2", "a{3,2}",
        "a{2000}", "\\", "\\1", "(a)\\1", "(?=a)", "(?!a)", "\\q", "\\x4", "\\u1234", "[[:nothing:]]",
        "((a{1000}){1000}){1000}"};
    const char *why;

    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        why = NULL;
        assert_null(regex_create(bad[i], strlen(bad[i]), &why));
        assert_non_null(why);
    }
}

/* What makes engines that backtrack run for years ends here at once: the test would not. */
static void nothing_explodes(void **state)
{
    static const char *const slow[] = {"(a+)+$", "(a|a)*b", "(a|aa)+$", "(.*a){20}b", "(a?){60}a{60}c", "((a*)*)*b"};
    char text[1024];
    const char *why;

    memset(text, 'a', sizeof(text));
    text[sizeof(text) - 1] = '!';
    for (size_t i = 0; i < sizeof(slow) / sizeof(*slow); i++) {
        struct regex *regex = regex_create(slow[i], strlen(slow[i]), &why);

        assert_non_null(regex);
        for (int round = 0; round < 10; round++)
            assert_false(regex_found(regex, text, sizeof(text)));
        regex_destroy(regex);
    }
}

/* Any bytes at all: either an expression or a reason, and a search that ends. */
static void random_bytes_do_no_harm(void **state)
{
    static const char letters[] = "ab().*+?{}[]^$|\\d-,01:w";
    uint64_t x = 88172645463325252u;
    const char *why;

    for (int round = 0; round < 20000; round++) {
        char pattern[24];
        size_t len = round % sizeof(pattern);

        for (size_t i = 0; i < len; i++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            pattern[i] = letters[x % (sizeof(letters) - 1)];
        }
        struct regex *regex = regex_create(pattern, len, &why);
        if (regex)
            regex_found(regex, "aabb01-d", 8);
        regex_destroy(regex);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_what_it_should),
        cmocka_unit_test(refuses_by_name),
        cmocka_unit_test(nothing_explodes),
        cmocka_unit_test(random_bytes_do_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
