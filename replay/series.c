/* series.c - see series.h. */
#include "replay/series.h"

#include <string.h>

#define WIDTH_FIRST UINT64_C(100000000) /* 0.1 s */

static void halve(struct series *series)
{
    for (uint32_t i = 0; i < SERIES_SLOTS / 2; i++) {
        const struct series_slot *a = &series->slots[2 * i], *b = a + 1;

        series->slots[i] = (struct series_slot){a->prompt_tokens + b->prompt_tokens, a->hit_tokens + b->hit_tokens,
            a->ttft_ms + b->ttft_ms, a->firsts + b->firsts};
    }
    memset(&series->slots[SERIES_SLOTS / 2], 0, SERIES_SLOTS / 2 * sizeof(series->slots[0]));
    series->width *= 2;
    series->used = (series->used + 1) / 2;
}

struct series_slot *series_at(struct series *series, uint64_t now)
{
    if (series->width == 0)
        series->width = WIDTH_FIRST;
    while (now / series->width >= SERIES_SLOTS)
        halve(series);
    uint32_t slot = (uint32_t)(now / series->width);
    if (slot >= series->used)
        series->used = slot + 1;
    return &series->slots[slot];
}
