/* supervise_test.c - goal: a crashing child comes back quickly, a crash loop ends. Method: made-up times. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/clock.h"
#include "cli/supervise.h"

#define SECOND NS_PER_S

static void test_delay_doubles_to_its_limit(void **state)
{
    struct supervise supervise;
    uint64_t now = 1000 * SECOND;
    int expected = SUPERVISE_DELAY_MS;

    (void)state;
    supervise_init(&supervise);
    for (int i = 0; i < 12; i++) {
        supervise_started(&supervise, now);
        now += 9 * SECOND; /* too short to count as good, too rare to be a loop */
        assert_int_equal(supervise_exited(&supervise, now), expected);
        expected = expected * 2 < SUPERVISE_DELAY_MS_MAX ? expected * 2 : SUPERVISE_DELAY_MS_MAX;
    }
}

static void test_good_run_begins_anew(void **state)
{
    struct supervise supervise;

    (void)state;
    supervise_init(&supervise);
    supervise_started(&supervise, 0);
    assert_int_equal(supervise_exited(&supervise, SECOND), 100);
    supervise_started(&supervise, 2 * SECOND);
    assert_int_equal(supervise_exited(&supervise, 3 * SECOND), 200);
    supervise_started(&supervise, 4 * SECOND);
    assert_int_equal(supervise_exited(&supervise, 14 * SECOND), 100);
}

static void test_loop_is_given_up(void **state)
{
    struct supervise supervise;
    uint64_t now = 50 * SECOND;

    (void)state;
    supervise_init(&supervise);
    for (int i = 1; i < SUPERVISE_LOOP_EXITS; i++) {
        supervise_started(&supervise, now);
        assert_true(supervise_exited(&supervise, now += SECOND) > 0);
    }
    supervise_started(&supervise, now);
    assert_int_equal(supervise_exited(&supervise, now + SECOND), -1);
}

static void test_rare_crashes_are_no_loop(void **state)
{
    struct supervise supervise;
    uint64_t now = 0;

    (void)state;
    supervise_init(&supervise);
    for (int i = 0; i < 100; i++) {
        supervise_started(&supervise, now);
        now += (SUPERVISE_LOOP_MS / SUPERVISE_LOOP_EXITS + 2000) * NS_PER_MS;
        assert_true(supervise_exited(&supervise, now) > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_delay_doubles_to_its_limit),
        cmocka_unit_test(test_good_run_begins_anew),
        cmocka_unit_test(test_loop_is_given_up),
        cmocka_unit_test(test_rare_crashes_are_no_loop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
