/* memory_fixture.c - see memory_fixture.h. */
#include "tests/worker/memory_fixture.h"

struct fixture fx;

int memory_setup(void **state)
{
    memory_store_reset();
    fixture_start(&fx);
    return 0;
}

int memory_teardown(void **state)
{
    fixture_stop(&fx);
    memory_store_reset();
    return 0;
}
