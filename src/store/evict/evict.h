/* evict.h - which object goes next: policies behind one small table.
 *
 * The caller numbers its objects with slots 0..slots_max-1 (and may reuse a number after evict_remove()); the policy keeps
 * its state by slot, out of line. Ids, sizes and times in, victim out. The node and the trace replayer call the same code.
 *
 * What holds for every policy of a live node (evict_policies[]):
 *   - a pinned object is never a victim
 *   - objects with children present (blocks that hang on them) go after those without, so that a prefix is eaten from its
 *     end; only when nothing else is left (every leaf is pinned) an inner one goes
 *   - promised objects go after those without a promise, the oldest promise first; a promise ends by itself,
 *     at the latest when those made before it have ended
 *   - MC_OBJ_SOFT_PIN objects go after both
 *   - nothing but pins makes evict_victim() come back empty-handed
 * The experts (evict_experts[]) are run with ids only, as shadows and in replays: of them only the lru knows pins and promises.
 * A policy is one row and its functions. All calls are O(1) amortised.
 *
 *   mooncake   as four experts vote, by shadows of them (evict_mooncake.c)
 *   lru        least recently used
 *   density    least hits per time to come, learned (evict_density.c)
 *   s3fifo     a small queue (10 %), a main queue, ghosts for 90 %; promoted when read while in the small one (SOSP'23)
 *   arc        recency against frequency, balanced by hits among ghosts (FAST'03), integer steps
 *
 * Pure: time is passed in (ns, never going back). Threads: the owner's only. */
#ifndef STORE_EVICT_EVICT_H
#define STORE_EVICT_EVICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mooncake/status.h"

#define EVICT_NONE    UINT32_MAX
#define EVICT_NO_ID   UINT64_MAX
#define EVICT_UNKNOWN UINT32_MAX /* a capacity */

enum { EVICT_CLASSES = 4 };

struct evict;

/* What a policy may know of an object. */
struct evict_object {
    uint64_t id;     /* stable across eviction and return (hash of the key): for policies that remember */
    uint64_t size;   /* bytes it occupies */
    uint32_t parent; /* slot of the object it hangs on, EVICT_NONE if that is not here */
    uint32_t depth;  /* blocks before it */
    bool soft_pin;
};

enum evict_why { EVICT_EVICTED, EVICT_REMOVED }; /* evict_remove(): as victim, or by request */

/* Blocks of a prompt, each hanging on the one before. */
struct evict_run {
    const uint64_t *ids;
    uint32_t count;
    uint64_t up; /* what the first hangs on; EVICT_NO_ID */
};

/* Objects by how often they were used again, 0, 1, 2, 3+ times: the oldest leaf of each class. */
struct evict_tails {
    uint32_t age[EVICT_CLASSES]; /* in uses, EVICT_NONE: no leaf there */
    uint32_t young, count;       /* never used again; all */
};

struct evict_policy {
    const char *name;
    const char *help; /* one line */
    size_t handle_size;
    bool tail_first; /* knows no tree: wants a prompt's blocks used from the last on, each hanging on nothing */
    /* Mandatory. `e` is zeroed memory of handle_size bytes, its first member is set. MC_OK or MC_ENOMEM. */
    enum mc_status (*init)(struct evict *e);
    void (*fini)(struct evict *e);
    enum mc_status (*add)(struct evict *e, uint32_t slot, const struct evict_object *object, uint64_t now);
    void (*touch)(struct evict *e, uint32_t slot, uint64_t now);
    void (*remove)(struct evict *e, uint32_t slot, uint64_t id, enum evict_why why, uint64_t now);
    uint32_t (*victim)(struct evict *e, uint64_t now);
    /* Mandatory for a live node; experts may leave them NULL, nobody pins an id. */
    void (*promise)(struct evict *e, uint32_t slot, uint64_t until, uint64_t now);
    void (*pin)(struct evict *e, uint32_t slot, bool pinned, uint64_t now);
    /* NULL: does not matter. */
    enum mc_status (*ask)(struct evict *e, const struct evict_run *run, uint64_t now);
    void (*expect)(struct evict *e, uint64_t id, uint32_t depth, uint64_t now);
    /* Mandatory for an expert: which of the tails it would take the victim from, by what it has learned. At least one is there. */
    unsigned (*choose)(const struct evict *e, const struct evict_tails *tails);
};

/* First member of every policy's handle. */
struct evict {
    const struct evict_policy *policy;
    uint32_t slots_max;
    uint32_t
        capacity; /* objects that fit, when the owner knows; EVICT_UNKNOWN: it tells by when it asks for a victim */
};

/* NULL-terminated. Those a node may run; the first is the default. */
extern const struct evict_policy *const evict_policies[];
/* Those the default asks. */
extern const struct evict_policy *const evict_experts[];
const struct evict_policy *evict_policy_find(const char *name); /* of evict_policies; NULL if there is none */

/* How long an array of `length` becomes that has to hold element `last`, too: by a sixteenth, so that little of it stands empty. O(1)
 * amortised, and a large array grows without being copied. */
static inline uint32_t evict_grown(uint32_t length, uint32_t last)
{
    while (length <= last)
        length += length / 16 + 64;
    return length;
}

/* State grows with the highest slot used, up to slots_max (at most 2^26). MC_OK or MC_ENOMEM. */
enum mc_status evict_create(
    const struct evict_policy *policy, uint32_t slots_max, uint32_t capacity, struct evict **out);
void evict_destroy(struct evict *e); /* NULL is allowed */

/* Somebody wants these blocks, whether they are here or not. Said once for each use, before the touches and adds that follow from it.
 * MC_OK, or MC_ENOMEM: the policy knows less from now on. */
static inline enum mc_status evict_ask(struct evict *e, const struct evict_run *run, uint64_t now)
{
    return e->policy->ask ? e->policy->ask(e, run, now) : MC_OK;
}

/* This object comes in next; before victim() is asked to make room for it. */
static inline void evict_expect(struct evict *e, uint64_t id, uint32_t depth, uint64_t now)
{
    if (e->policy->expect)
        e->policy->expect(e, id, depth, now);
}

/* A new object in a free slot; it counts as used now. MC_OK, or MC_ENOMEM and nothing changed. */
static inline enum mc_status evict_add(struct evict *e, uint32_t slot, const struct evict_object *object, uint64_t now)
{
    return e->policy->add(e, slot, object, now);
}

/* It was read. */
static inline void evict_touch(struct evict *e, uint32_t slot, uint64_t now)
{
    e->policy->touch(e, slot, now);
}

/* Somebody was told that it is there, until then (ns). Counts as used. A later `until` stays. */
static inline void evict_promise(struct evict *e, uint32_t slot, uint64_t until, uint64_t now)
{
    e->policy->promise(e, slot, until, now);
}

/* First pin, last unpin (the caller counts pins). An object that is being written is pinned. */
static inline void evict_pin(struct evict *e, uint32_t slot, uint64_t now)
{
    e->policy->pin(e, slot, true, now);
}
static inline void evict_unpin(struct evict *e, uint32_t slot, uint64_t now)
{
    e->policy->pin(e, slot, false, now);
}

/* It is gone, `id` as it was added; the slot is free. Its children, if any, hang on nothing from now on. */
static inline void evict_remove(struct evict *e, uint32_t slot, uint64_t id, enum evict_why why, uint64_t now)
{
    e->policy->remove(e, slot, id, why, now);
}

/* The object to evict next, EVICT_NONE when all are pinned or none is there. It stays until evict_remove(): asked again without
 * a change in between the answer is the same. */
static inline uint32_t evict_victim(struct evict *e, uint64_t now)
{
    return e->policy->victim(e, now);
}

/* The experts' rows, for the tables. */
extern const struct evict_policy evict_lru, evict_density, evict_s3fifo, evict_arc, evict_mooncake;

#endif
