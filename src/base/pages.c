/* pages.c - see pages.h. */
#include "base/pages.h"

#include <sys/mman.h>

void *pages_get(size_t bytes)
{
    void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return pages == MAP_FAILED ? NULL : pages;
}

void pages_put(void *pages, size_t bytes)
{
    if (pages)
        munmap(pages, bytes);
}
