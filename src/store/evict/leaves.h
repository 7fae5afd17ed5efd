/* leaves.h - objects in queues by age, leaves before the blocks they hang on: what the policies of a live node share.
 *
 * A policy sorts its objects into plain queues, up to sixteen, and says from which of them the next victim comes; order, tree,
 * pins, promises and soft pins are kept here:
 *
 *   plain 0..15   what may go, coldest at the old end; the policy chooses the queue
 *   promised      after all plain ones, the oldest promise first; a promise that has ended goes to the new end of its plain queue
 *   soft          after both
 *   parked        objects with children that reached an old end; victims only when no queue has a leaf
 *   (none)        pinned
 *
 * An object with children is no victim: when it reaches the old end it is parked, and when its last child goes it comes back at the
 * *old* end, since everything in the queue has been used later or is younger. A use brings it back at the new end. Each add or use
 * can cause at most one parking, so looking for a victim is O(1) amortised, and among leaves the order is that of last use.
 *
 * Promises that have ended were made one lease ago, what stands before them was read in that time: the error is at most one lease.
 *
 * A parent is known by slot and life: when an inner object goes its children are not looked for, they find the slot empty or in
 * another life. A life has 10 bits; one that comes round counts a child for a stranger, which costs a good choice and nothing else.
 *
 * 24 B an object, since a node has millions: what is not needed to the nanosecond is kept in fewer bits. A policy that asks how
 * long ago an object was used has 4 B more.
 *
 * Pure. Threads: the owner's only. */
#ifndef STORE_EVICT_LEAVES_H
#define STORE_EVICT_LEAVES_H

#include <assert.h>

#include "store/evict/evict.h"

enum {
    LEAVES_PLAIN = 16,
    LEAVES_PROMISED = LEAVES_PLAIN,
    LEAVES_SOFT,
    LEAVES_PARKED,
    LEAVES_QUEUES,
    LEAVES_NONE = LEAVES_QUEUES,
    LEAVES_USES = 4,  /* counted up to 3 */
    LEAVES_TICK = 20, /* a millisecond: leases are seconds */
};

struct leaf {
    uint32_t newer, older;     /* neighbours in its queue */
    uint32_t parent;           /* slot, EVICT_NONE */
    uint32_t children : 26;    /* how many here hang on it */
    uint32_t uses : 2;         /* the policy's: how often it was used again */
    uint32_t plain : 4;        /* its plain queue, also while it stands in another */
    uint64_t until : 36;       /* end of the promise in 2^LEAVES_TICK ns, rounded up */
    uint64_t parent_life : 10; /* of what it hangs on, when it was added */
    uint64_t life : 10;        /* how often the slot was given back */
    uint64_t queue : 5;        /* where it stands */
    uint64_t present : 1, pinned : 1, soft : 1;
};
static_assert(sizeof(struct leaf) == 24, "state per object");

struct leaves {
    struct leaf *at; /* by slot */
    uint32_t *used;  /* by slot, the policy's: its clock when the object was used last; NULL: it did not ask for it */
    uint32_t cap;    /* of both */
    bool clocked;
    struct {
        uint32_t newest, oldest;
    } queues[LEAVES_QUEUES];
};

/* `clocked`: with `used`. */
void leaves_init(struct leaves *l, bool clocked);
void leaves_fini(struct leaves *l);

/* A new object, at the new end of plain queue `plain`; zero uses. MC_OK, or MC_ENOMEM and nothing changed. */
enum mc_status leaves_add(
    struct leaves *l, uint32_t slot, const struct evict_object *object, unsigned plain, uint64_t now);
/* Used: to the new end of `plain`. A promised, soft or pinned one stays where it is and goes there later. */
void leaves_use(struct leaves *l, uint32_t slot, unsigned plain, uint64_t now);
/* To the new end of `plain` without having been used; a parked one stays parked. */
void leaves_move(struct leaves *l, uint32_t slot, unsigned plain);
/* Sort all anew, in the order they stand in now. */
void leaves_sort(struct leaves *l, unsigned (*plain_of)(void *arg, uint32_t slot), void *arg);
void leaves_promise(struct leaves *l, uint32_t slot, uint64_t until, uint64_t now);
void leaves_pin(struct leaves *l, uint32_t slot, bool pinned, uint64_t now);
void leaves_remove(struct leaves *l, uint32_t slot, uint64_t now);

/* Promises that have ended become plain; before plain queues are looked at. */
void leaves_expire(struct leaves *l, uint64_t now);
/* From its plain queue to the parked ones: it has children. */
void leaves_park(struct leaves *l, uint32_t slot);
/* The coldest leaf of a queue, EVICT_NONE; parks what it meets. */
uint32_t leaves_oldest(struct leaves *l, unsigned queue);
/* What goes when no plain queue has a leaf: promised, soft, parked; EVICT_NONE. */
uint32_t leaves_guarded(struct leaves *l);

/* What a policy keeps of a use: that there was one more, and when by its clock. */
static inline void leaves_note_use(struct leaves *l, uint32_t slot, uint32_t clock)
{
    l->used[slot] = clock;
    if (l->at[slot].uses < LEAVES_USES - 1)
        l->at[slot].uses++;
}

/* What it hangs on, NULL when that is not here. */
static inline struct leaf *leaves_parent(const struct leaves *l, const struct leaf *s)
{
    if (s->parent == EVICT_NONE)
        return NULL;
    struct leaf *p = &l->at[s->parent];
    return p->present && p->life == s->parent_life ? p : NULL;
}

#endif
