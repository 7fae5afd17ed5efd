/* memory_fixture.h - what every test over the Store in memory begins and ends with: a fixture, and a Store that is empty and well. */
#ifndef TESTS_WORKER_MEMORY_FIXTURE_H
#define TESTS_WORKER_MEMORY_FIXTURE_H

#include "tests/worker/fixture.h"
#include "tests/worker/memory_store.h"

#define MASTER "memory:1"

extern struct fixture fx; /* of the test that runs */

int memory_setup(void **state);
int memory_teardown(void **state);

#define TEST(name) cmocka_unit_test_setup_teardown(name, memory_setup, memory_teardown)

#endif
