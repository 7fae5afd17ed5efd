/* sample.h - the default policy above 64 Ki objects: shadows hold a sample, and the experts say of which kind the victim is.
 *
 * A shadow holds ids by their hash, one of 2^shift, in a pool as much smaller, so that all shadows together cost a fixed amount. What is
 * not in the sample cannot be looked up there. So the real pool has a queue for each number of uses (struct evict_tails), and the
 * experts vote among the old ends of the queues by what they have learned on the sample (choose()).
 *
 * That needs the number of uses of what comes back, too: what was evicted is remembered in two bytes, in a table of one cell
 * an object in which the next one of the same cell replaces it.
 *
 * Memory: 6 B an object, 4 B for when it was used (leaves.h) and 2 B of ghosts, beside the 24 B of a leaf. Threads: the owner's only. */
#ifndef STORE_EVICT_SAMPLE_H
#define STORE_EVICT_SAMPLE_H

#include "store/evict/experts.h"
#include "store/evict/leaves.h"

enum { SAMPLE_ABOVE = 65536 };

struct sample {
    struct experts *experts; /* both lent, by the policy */
    struct leaves *leaves;
    unsigned shift;      /* one id of 2^shift is in the shadows; 0: there is no sample */
    uint32_t young, all; /* objects that were never used again; all */
    uint16_t *ghosts;    /* by the hash of an id: other bits of it, and the uses of what was evicted */
    uint32_t ghosts_cap;
};

void sample_init(struct sample *sample, struct experts *experts, struct leaves *leaves);
void sample_fini(struct sample *sample);

/* How small a sample must be for so many objects. 0: no sample, shadows are whole. */
unsigned sample_shift(uint32_t objects);

/* Samples of one id of 2^shift, fewer than until now. When shadows were whole they are made anew, else their memory would stay, and all
 * that is here is sorted by its uses. */
void sample_less(struct sample *sample, unsigned shift, uint64_t clock);

/* As the functions of whole.h; `clock` counts uses. */
enum mc_status sample_ask(struct sample *sample, const struct evict_run *run, uint32_t objects, uint64_t clock);
void sample_add(struct sample *sample, uint32_t slot, uint64_t id);
void sample_touch(struct sample *sample, uint32_t slot, uint32_t clock, uint64_t now);
void sample_remove(struct sample *sample, uint32_t slot, uint64_t id, enum evict_why why);
void sample_resize(struct sample *sample, uint32_t objects, uint64_t clock);
uint32_t sample_victim(struct sample *sample, uint32_t clock);

#endif
