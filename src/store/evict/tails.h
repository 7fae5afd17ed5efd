/* tails.h - which class a victim comes from: what the experts' choose() share.
 *
 * Threads: any. */
#ifndef STORE_EVICT_TAILS_H
#define STORE_EVICT_TAILS_H

#include "store/evict/evict.h"

/* The class of the oldest leaf among classes from .. to-1, EVICT_CLASSES when they have none. */
static inline unsigned tails_oldest(const struct evict_tails *tails, unsigned from, unsigned to)
{
    unsigned best = EVICT_CLASSES;

    for (unsigned class = from; class < to; class ++)
        if (tails->age[class] != EVICT_NONE && (best == EVICT_CLASSES || tails->age[class] > tails->age[best]))
            best = class;
    return best;
}

/* For an expert of which `young` among `all` blocks are new: the oldest of those never used again when they are more than that share,
 * else the oldest of the others. */
static inline unsigned tails_by_share(const struct evict_tails *tails, uint32_t young, uint32_t all)
{
    bool first = (uint64_t)tails->young * all > (uint64_t)young * tails->count;
    unsigned best = first ? tails_oldest(tails, 0, 1) : tails_oldest(tails, 1, EVICT_CLASSES);

    return best != EVICT_CLASSES ? best : tails_oldest(tails, 0, EVICT_CLASSES);
}

#endif
