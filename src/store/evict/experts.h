/* experts.h - the experts of the default policy: a shadow of each, and how much say it has earned.
 *
 * A *shadow* is a pool of ids under an expert (evict_experts[]), as large as the real pool or a sample of it, and asked for what the real
 * one is asked for. So all are compared by what they would have hit, ours among them. A vote is
 *
 *     e^-(hits behind the best / what chance explains)
 *
 * where hits are counted over a window of 64 capacities of uses, and chance explains the standard deviation of the difference to the
 * best. There is no moment of changing sides: following one leader with hysteresis lost twice as often to the best expert
 * (decision 048).
 *
 * Ownership: the experts own their shadows. Threads: the owner's only. */
#ifndef STORE_EVICT_EXPERTS_H
#define STORE_EVICT_EXPERTS_H

#include "store/evict/idpool.h"

enum { EXPERTS_MAX = 4 };

struct expert {
    struct idpool *shadow;
    double hits;   /* in the window */
    double spread; /* sum of squares of differences to the best, in the window */
    double vote;   /* 1: it is the best */
};

struct experts {
    struct expert at[EXPERTS_MAX]; /* in the order of evict_experts[] */
    unsigned count;
};

/* Shadows for so many objects, EVICT_UNKNOWN: without limit. MC_OK or MC_ENOMEM; after either, experts_fini(). */
enum mc_status experts_init(struct experts *experts, uint32_t objects);
void experts_fini(struct experts *experts);

/* The same uses were asked of each shadow, and these were hits; the shadows are for so many objects. */
void experts_count(struct experts *experts, const uint32_t hits[EXPERTS_MAX], uint32_t uses, uint32_t objects);

/* Nothing is known of them any more. */
void experts_forget(struct experts *experts);

#endif
