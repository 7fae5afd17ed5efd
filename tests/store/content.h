/* content.h - contents and keys made from a number, so that they can be checked without being kept; and what tests know of the
 * machine they run on. */
#ifndef TESTS_STORE_CONTENT_H
#define TESTS_STORE_CONTENT_H

#include <stdbool.h>
#include <stdint.h>

#include "mooncake/store.h"

enum { WRITER_SIZE = 2 << 20 };

void fill(void *dst, uint64_t len, uint64_t seed);
bool filled(const void *src, uint64_t len, uint64_t seed);
struct mc_key block(uint64_t number);

/* By how much a limit of time has to grow here and now: others on these cores, and sanitizers, are no fault of the Store. At least 1. */
double crowd(void);

#endif
