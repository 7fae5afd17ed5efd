/* series.h - figures over simulated time in bounded memory: slots of equal width, which doubles when they are used up.
 *
 * Threads: one. */
#ifndef REPLAY_SERIES_H
#define REPLAY_SERIES_H

#include <stdint.h>

enum { SERIES_SLOTS = 256 };

struct series_slot {
    uint64_t prompt_tokens, hit_tokens; /* of prompts whose prefill began then */
    double ttft_ms;                     /* sum over first tokens */
    uint64_t firsts;
};

struct series {
    uint64_t width; /* ns; 0: nothing has happened */
    uint32_t used;  /* slots, the last one with something in it included */
    struct series_slot slots[SERIES_SLOTS];
};

/* The slot of a time. Times may come in any order. */
struct series_slot *series_at(struct series *series, uint64_t now);

#endif
