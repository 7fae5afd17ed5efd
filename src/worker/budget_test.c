/* budget_test.c - goal: cores are split among those that are busy, and a killed worker takes none with it.
 * Method: real processes, real kill. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/scratch_test.h"
#include "worker/budget.h"

static char dir[SCRATCH_PATH];

static int setup(void **state)
{
    scratch_dir(dir);
    return 0;
}

static void alone_and_shared(void **state)
{
    struct budget *a, *b, *c;

    assert_int_equal(budget_open(dir, 8, &a), MC_OK);
    assert_int_equal(budget_open(dir, 8, &b), MC_OK);
    assert_int_equal(budget_open(dir, 8, &c), MC_OK);
    assert_int_equal(budget_take(a), 8); /* the others sleep */
    assert_int_equal(budget_take(b), 4);
    assert_int_equal(budget_take(a), 4);
    assert_int_equal(budget_take(c), 2); /* 3 + 3 + 2: never more than there are */
    assert_int_equal(budget_take(a) + budget_take(b) + budget_take(c), 8);
    budget_idle(a);
    assert_int_equal(budget_take(b) + budget_take(c), 8);
    budget_close(c);
    assert_int_equal(budget_take(b), 8);
    budget_close(a);
    budget_close(b);
}

static void fewer_cores_than_workers(void **state)
{
    struct budget *a, *b;

    assert_int_equal(budget_open(dir, 1, &a), MC_OK);
    assert_int_equal(budget_open(dir, 1, &b), MC_OK);
    assert_int_equal(budget_take(a), 1);
    assert_int_equal(budget_take(b), 1); /* nobody can compute with none */
    budget_close(a);
    budget_close(b);
}

static void killed_while_busy(void **state)
{
    struct budget *ours;
    int ready[2], status;
    char byte;
    pid_t child;
    uint64_t until;

    assert_int_equal(pipe(ready), 0);
    assert_int_equal(budget_open(dir, 2, &ours), MC_OK);
    child = fork();
    if (child == 0) {
        struct budget *theirs;

        if (budget_open(dir, 2, &theirs) != MC_OK || budget_take(theirs) != 2)
            _exit(1);
        if (write(ready[1], "", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(budget_take(ours), 1);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &status, 0), child);
    until = deadline_after_ms(now_ns(), 2000);
    while (budget_take(ours) != 2)
        assert_true(now_ns() < until);
    budget_close(ours);
    close(ready[0]);
    close(ready[1]);
}

static void all_slots_taken(void **state)
{
    struct budget *budgets[BUDGET_SLOTS], *one_more;

    for (int i = 0; i < BUDGET_SLOTS; i++)
        assert_int_equal(budget_open(dir, 2, &budgets[i]), MC_OK);
    assert_int_equal(budget_open(dir, 2, &one_more), MC_EBUSY);
    for (int i = 0; i < BUDGET_SLOTS; i++)
        budget_close(budgets[i]);
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(alone_and_shared), TEST(fewer_cores_than_workers), TEST(killed_while_busy), TEST(all_slots_taken)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
