/* history.h - the last requests in figures, for the page and `mooncake top`. A ring; what is old is overwritten.
 *
 * Threads: the loop's only. */
#ifndef CONDUCTOR_HISTORY_H
#define CONDUCTOR_HISTORY_H

#include <stdint.h>

#include "mooncake/scheduler.h"

enum { HISTORY_MAX = 256 };

struct history_row {
    uint64_t at_ms; /* wall clock, when it ended */
    double ttft_ms, ttft_predicted_ms, tbt_ms;
    uint32_t prompt_tokens, reused_tokens, answer_tokens;
    enum mc_sched_route route;
};

struct history {
    struct history_row rows[HISTORY_MAX];
    uint64_t count; /* ever; row i is at i % HISTORY_MAX */
};

static inline void history_add(struct history *history, const struct history_row *row)
{
    history->rows[history->count++ % HISTORY_MAX] = *row;
}

#endif
