/* idmap.h - from the id of a block to a number: open addressing, linear probing, no tombstones.
 *
 * Beside base/hashmap.h because the caller has no element to embed a node in: the numbers are slots of a policy or sets of nodes, and a look-up
 * is one cache line. A simulated cluster asks some hundred times per request.
 *
 * Ownership: the map owns its memory. Threads: the owner's only. */
#ifndef BASE_IDMAP_H
#define BASE_IDMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mooncake/status.h"

#define IDMAP_NONE UINT64_MAX

struct idmap_cell {
    uint64_t id;
    uint64_t value; /* IDMAP_NONE: empty */
};

struct idmap {
    struct idmap_cell *cells;
    size_t mask, count;
};

/* A zeroed map is an empty one. */
void idmap_fini(struct idmap *map);

/* IDMAP_NONE: it is not there. */
uint64_t idmap_find(const struct idmap *map, uint64_t id);

/* Sets or replaces; value < IDMAP_NONE. MC_OK, or MC_ENOMEM and nothing changed. */
enum mc_status idmap_set(struct idmap *map, uint64_t id, uint64_t value);

/* Harmless when it is not there. */
void idmap_del(struct idmap *map, uint64_t id);

#endif
