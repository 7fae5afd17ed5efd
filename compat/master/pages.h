/* pages.h - what the existing master serves at its admin port, and its names for counters, made from our index.
 *
 * What our own master serves is there too, `/metrics` with both. Pages of what is not there answer 503 and say so.
 * Threads: the master's loop, except pages_stop(), which waits for a removal under way. */
#ifndef COMPAT_MASTER_PAGES_H
#define COMPAT_MASTER_PAGES_H

#include <stddef.h>

#include "base/metrics.h"
#include "net/http.h"
#include "store/index/master.h"

extern const struct http_route pages_routes[];
extern const size_t pages_route_count;

void pages_start(struct metrics *metrics); /* those of the master, lent until stop */
void pages_stop(void);

#endif
