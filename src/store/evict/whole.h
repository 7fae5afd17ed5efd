/* whole.h - the default policy below 64 Ki objects: shadows are whole, and the block that fewest experts would keep goes.
 *
 * Each expert has its vote for every block its shadow holds. The real pool keeps a queue for each set of experts, 16 of them, and the
 * queue of least votes is emptied first:
 *
 *     shadows   density | lru | s3fifo | arc
 *     held by      x       -       x      -      --> queue 0101, worth the votes of density and s3fifo together
 *
 * An expert that is clearly ahead has all the say, and what is here becomes what its shadow holds; while nobody is, what most of
 * them hold stays.
 *
 * A block that has few votes but others hang on it (s3fifo and arc know no tree) is no victim. What hangs on it is worth no more
 * than it is, since their shadows cannot hit it: it sinks to the same queue, child by child, until there is a leaf. Without this a
 * block of more votes went instead, and then the next one that was to be asked for.
 *
 * Memory: 24 B an object here, beside leaves, and the shadows. Threads: the owner's only. */
#ifndef STORE_EVICT_WHOLE_H
#define STORE_EVICT_WHOLE_H

#include "store/evict/experts.h"
#include "store/evict/ids.h"
#include "store/evict/leaves.h"

struct whole {
    struct experts *experts; /* both lent, by the policy */
    struct leaves *leaves;
    struct whole_object *here; /* by slot */
    uint32_t here_cap;
    struct ids ids;             /* of those that are here */
    double votes[LEAVES_PLAIN]; /* by set of experts, a bit each */
};

void whole_init(struct whole *whole, struct experts *experts, struct leaves *leaves);
void whole_fini(struct whole *whole);

/* As evict_ask(); `objects` fit. */
enum mc_status whole_ask(struct whole *whole, const struct evict_run *run, uint32_t objects, uint64_t clock);

/* It has come in, and stands among the leaves already. MC_OK, or MC_ENOMEM and nothing changed. */
enum mc_status whole_add(struct whole *whole, uint32_t slot, uint64_t id);
void whole_touch(struct whole *whole, uint32_t slot, uint32_t clock, uint64_t now);
/* Before it leaves the leaves. */
void whole_remove(struct whole *whole, uint32_t slot);

/* So many objects fit from now on. */
void whole_resize(struct whole *whole, uint32_t objects, uint64_t clock);

/* EVICT_NONE: no plain queue has a leaf. */
uint32_t whole_victim(struct whole *whole);

#endif
