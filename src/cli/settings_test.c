/* settings_test.c - goal: the option and command tables are sound. Method: every command with every section, parsed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "base/options.h"
#include "cli/settings.h"

static const struct opt_row *row_at(size_t index)
{
    for (const struct settings_rows *part = settings_table; part->rows; part++) {
        if (index < part->count)
            return &part->rows[index];
        index -= part->count;
    }
    return NULL;
}

static void test_names_and_sections_are_unique(void **state)
{
    unsigned seen = 0;

    (void)state;
    for (const struct settings_rows *part = settings_table; part->rows; part++) {
        assert_int_equal(seen & part->section, 0);
        seen |= part->section;
    }
    assert_int_equal(seen, SET_EVERY);
    for (size_t i = 0; row_at(i); i++)
        for (size_t j = i + 1; row_at(j); j++)
            assert_string_not_equal(row_at(i)->name, row_at(j)->name);
}

static void parse(struct settings *set, int argc, const char *const *argv, enum mc_status wanted, const char *says)
{
    struct options *options = options_create("test", "");
    struct options_input input = {.argc = argc, .argv = argv};
    struct buf message;

    buf_init(&message, 1 << 16);
    settings_add(options, SET_EVERY, set);
    assert_int_equal(options_parse(options, &input, &message), wanted);
    if (says)
        assert_non_null(strstr(buf_cstr(&message), says));
    buf_fini(&message);
    options_destroy(options);
}

static void test_defaults_are_within_bounds(void **state)
{
    struct settings set = {0};

    (void)state;
    parse(&set, 0, NULL, MC_OK, NULL);
    assert_int_equal(set.memory, 1u << 30);
    assert_int_equal(set.block_tokens, 64);
    assert_int_equal(set.ready_fd, -1);
    assert_true(set.store);
}

static void test_values_out_of_bounds_are_named(void **state)
{
    const char *const wrong[][2] = {{"--memory=1K", "memory"}, {"--role=prefil", "prefill"},
        {"--temperature=9", "temperature"}, {"--any-prt", "any-port"}, {"--drain-ms=soon", "drain-ms"}};
    struct settings set;

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        parse(&set, 1, &wrong[i][0], MC_EINVAL, wrong[i][1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_and_sections_are_unique),
        cmocka_unit_test(test_defaults_are_within_bounds),
        cmocka_unit_test(test_values_out_of_bounds_are_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
