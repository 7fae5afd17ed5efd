/* queues.h - several queues over slots and ghosts, for policies that remember what they evicted.
 *
 * An entry stands in one of a few queues. Entries of blocks that are there and of those that are gone (ghosts) are of one kind,
 * found by id, so moving between a queue of blocks and a queue of ghosts is one step. Memory grows with the entries in use.
 *
 * Threads: the owner's only. */
#ifndef STORE_EVICT_QUEUES_H
#define STORE_EVICT_QUEUES_H

#include <assert.h>
#include <stdint.h>

#include "mooncake/status.h"
#include "store/evict/ids.h"

#define ENTRY_NONE IDS_NONE

enum { QUEUES_MAX = 4 };

struct queue_entry {
    uint64_t id;
    uint32_t newer, older;
    union {
        uint32_t slot; /* of the block, when it is there */
        uint32_t used; /* of a ghost, with note: the policy's own */
    };
    uint8_t queue, count, note;
};
static_assert(sizeof(struct queue_entry) == 24, "state per block and ghost");

struct queue_ends {
    uint32_t newest, oldest, length;
};

struct queues {
    struct queue_entry *entries;
    struct queue_ends ends[QUEUES_MAX];
    struct ids ids;
    uint32_t *of_slot;         /* entry of the block in a slot */
    uint32_t cap, slots, free; /* free: first of a list through `older` */
};

void queues_init(struct queues *q);
void queues_fini(struct queues *q);

/* Entry of an id, ENTRY_NONE. */
uint32_t queues_find(const struct queues *q, uint64_t id);

/* A new entry at the newest end, for a block in `slot` (EVICT_NONE: for a ghost). MC_OK or MC_ENOMEM. */
enum mc_status queues_add(struct queues *q, unsigned queue, uint64_t id, uint32_t slot);
/* A ghost has come back, into `slot`. MC_OK or MC_ENOMEM. */
enum mc_status queues_return(struct queues *q, unsigned queue, uint32_t entry, uint32_t slot);
/* To the newest end of `queue`. */
void queues_move(struct queues *q, unsigned queue, uint32_t entry);
/* Forget it. */
void queues_drop(struct queues *q, uint32_t entry);
/* Forget the oldest of a queue, if there is one. */
void queues_drop_oldest(struct queues *q, unsigned queue);

#endif
