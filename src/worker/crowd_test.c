/* crowd_test.c - goal: fewer threads when a step did not get its CPU time, all again when it does. Also the gate of the
 * Store, which works the same way. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "worker/crowd.h"
#include "worker/gate.h"

#define MS NS_PER_MS

static void alone(void **state)
{
    struct crowd crowd = {0};

    for (uint64_t now = MS; now < 1000 * MS; now += 10 * MS) {
        assert_int_equal(crowd_threads(&crowd, 4, now), 4);
        crowd_step(&crowd, 4, 4, 10 * MS, 39 * MS, now);
    }
}

/* Somebody takes a core for one step in five. */
static void disturbed(void **state)
{
    struct crowd crowd = {0};

    for (uint64_t now = 0; now < 1000; now++) {
        crowd_step(&crowd, 2, 2, 10 * MS, (now % 5 ? 20 : 12) * MS, now * 10 * MS);
        assert_int_equal(crowd_threads(&crowd, 2, now * 10 * MS), 2);
    }
}

static void crowded_then_alone(void **state)
{
    struct crowd crowd = {0};
    uint64_t now = MS, tries = 0;

    crowd_step(&crowd, 2, 2, 300 * MS, 400 * MS, now);
    assert_int_equal(crowd_threads(&crowd, 2, now), 1);
    /* A minute of it: tries with all threads become rare. */
    for (; now < 60000 * MS; now += 300 * MS) {
        uint32_t threads = crowd_threads(&crowd, 2, now);

        tries += threads == 2;
        crowd_step(&crowd, 2, threads, 300 * MS, 300 * MS, now);
    }
    assert_true(tries >= 5 && tries <= 12);
    assert_false(crowd_tries(&crowd, crowd.until_ns - 1));
    now = crowd.until_ns;
    assert_true(crowd_tries(&crowd, now));
    assert_int_equal(crowd_threads(&crowd, 2, now), 2);
    crowd_step(&crowd, 2, 2, 300 * MS, 570 * MS, now);
    assert_false(crowd_tries(&crowd, now));
    assert_int_equal(crowd_threads(&crowd, 2, now + MS), 2);
}

/* One core, a reduced share, steps too short: nothing to learn. */
static void nothing_to_learn(void **state)
{
    struct crowd crowd = {0};

    crowd_step(&crowd, 1, 1, 100 * MS, 1 * MS, MS);
    crowd_step(&crowd, 4, 3, 100 * MS, 1 * MS, MS);
    crowd_step(&crowd, 4, 4, MS, 0, MS);
    assert_int_equal(crowd.until_ns, 0);
    assert_int_equal(crowd_threads(&crowd, 1, 0), 1);
}

static void gate_closes_and_opens(void **state)
{
    struct gate gate = {0};
    uint64_t now = MS;

    for (int i = 0; i < GATE_FAILURES; i++) {
        assert_true(gate_open(&gate, now));
        gate_failed(&gate, now);
    }
    assert_false(gate_open(&gate, now));
    now += GATE_CLOSED_MS_MIN * MS;
    assert_true(gate_open(&gate, now)); /* one attempt */
    gate_failed(&gate, now);
    assert_false(gate_open(&gate, now + (2 * GATE_CLOSED_MS_MIN - 1) * MS));
    for (int i = 0; i < 20; i++) {
        now = gate.until_ns;
        gate_failed(&gate, now);
    }
    assert_int_equal(gate.until_ns - now, GATE_CLOSED_MS_MAX * MS);
    gate_passed(&gate);
    assert_true(gate_open(&gate, now));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(alone), cmocka_unit_test(disturbed),
        cmocka_unit_test(crowded_then_alone), cmocka_unit_test(nothing_to_learn),
        cmocka_unit_test(gate_closes_and_opens)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
