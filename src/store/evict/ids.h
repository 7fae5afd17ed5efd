/* ids.h - from the id of a block to its place in an array whose elements begin with their ids.
 *
 * Beside base/idmap.h because shadows remember some fourteen ids for each block of memory, all of which stand in arrays of theirs anyway: a
 * cell is 4 B instead of 16. The low bits of a cell are a place, as many as tell the cells apart, the others are of the id's hash, so that
 * an element is seldom looked at in vain. Open addressing, linear probing, at most three quarters full, no tombstones.
 *
 * The array is passed to each call, with the size of an element; it may move, and what is in the table stays where it is in it.
 *
 * Ownership: the table owns its cells. Threads: the owner's only. */
#ifndef STORE_EVICT_IDS_H
#define STORE_EVICT_IDS_H

#include <stddef.h>
#include <stdint.h>

#include "mooncake/status.h"

#define IDS_NONE UINT32_MAX

/* A zeroed one is empty. */
struct ids {
    uint32_t *cells;
    uint32_t mask, count;
};

void ids_fini(struct ids *ids);

/* IDS_NONE: it is not there. */
uint32_t ids_find(const struct ids *ids, const void *array, size_t element, uint64_t id);

/* The element at `place` (< 2^31), which is not in the table. Two may have one id, as two objects of one key in a node while the newer
 * takes the older one's place: one of them is found, and each leaves by itself. MC_OK, or MC_ENOMEM and nothing changed. */
enum mc_status ids_add(struct ids *ids, const void *array, size_t element, uint32_t place);

/* Before its id is overwritten. Harmless when it is not in the table. */
void ids_del(struct ids *ids, const void *array, size_t element, uint32_t place);

#endif
