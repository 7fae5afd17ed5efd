/* pages.h - large tables as pages of the system: zero, committed when they are touched, and gone when they are put back.
 *
 * malloc keeps what was freed, and from the first freed block of a megabyte or more on it takes the next one of that size from its
 * heap: set to zero byte by byte, and not there again once something small has settled in it. A process that opens and closes
 * a client all day would grow with each.
 * Threads: any. */
#ifndef BASE_PAGES_H
#define BASE_PAGES_H

#include <stddef.h>

/* NULL: no memory. */
void *pages_get(size_t bytes);
void pages_put(void *pages, size_t bytes); /* as many as were got; NULL is fine */

#endif
