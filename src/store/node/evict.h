/* evict.h - which object goes next: policies behind one small table.
 *
 * The caller numbers its objects with slots 0..slots_max-1 (and may reuse a number after evict_remove()); the policy keeps
 * its state by slot, out of line. Ids, sizes and times in, victim out. The node and the trace replayer call the same code.
 *
 * What holds for every policy:
 *   - a pinned object is never a victim
 *   - objects with children present (blocks that hang on them) go after those without, so that a prefix is eaten from its
 *     end; only when nothing else is left (every leaf is pinned) an inner one goes
 *   - promised objects go after those without a promise, the oldest promise first; a promise ends by itself,
 *     at the latest when those made before it have ended
 *   - MC_OBJ_SOFT_PIN objects go after both
 *   - nothing but pins makes evict_victim() come back empty-handed
 * A policy is one row in evict_policies[] and its functions. All calls are O(1) amortised.
 *
 * Pure: time is passed in (ns, never going back). Threads: the owner's only. */
#ifndef STORE_NODE_EVICT_H
#define STORE_NODE_EVICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mooncake/status.h"

#define EVICT_NONE UINT32_MAX

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

struct evict_policy {
    const char *name;
    const char *help; /* one line */
    size_t handle_size;
    /* All mandatory. `e` is zeroed memory of handle_size bytes, `slots_max` of it set. MC_OK or MC_ENOMEM. */
    enum mc_status (*init)(struct evict *e);
    void (*fini)(struct evict *e);
    enum mc_status (*add)(struct evict *e, uint32_t slot, const struct evict_object *object, uint64_t now);
    void (*touch)(struct evict *e, uint32_t slot, uint64_t now);
    void (*promise)(struct evict *e, uint32_t slot, uint64_t until, uint64_t now);
    void (*pin)(struct evict *e, uint32_t slot, bool pinned, uint64_t now);
    void (*remove)(struct evict *e, uint32_t slot, enum evict_why why, uint64_t now);
    uint32_t (*victim)(struct evict *e, uint64_t now);
};

/* First member of every policy's handle. */
struct evict {
    const struct evict_policy *policy;
    uint32_t slots_max;
};

/* NULL-terminated; the first is the default. */
extern const struct evict_policy *const evict_policies[];
const struct evict_policy *evict_policy_find(const char *name); /* NULL if there is none */

/* State grows with the highest slot used, up to slots_max (at most 2^31). MC_OK or MC_ENOMEM. */
enum mc_status evict_create(const struct evict_policy *policy, uint32_t slots_max, struct evict **out);
void evict_destroy(struct evict *e); /* NULL is allowed */

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

/* It is gone; the slot is free. Its children, if any, hang on nothing from now on. */
static inline void evict_remove(struct evict *e, uint32_t slot, enum evict_why why, uint64_t now)
{
    e->policy->remove(e, slot, why, now);
}

/* The object to evict next, EVICT_NONE when all are pinned or none is there. It stays until evict_remove(): asked again without
 * a change in between the answer is the same. */
static inline uint32_t evict_victim(struct evict *e, uint64_t now)
{
    return e->policy->victim(e, now);
}

#endif
