/* directory.h - who holds which block: the live master's index (store/index/table_core.h) under the numbers of a trace.
 *
 * A block's id is the trace's number, widened; an owner is a node's number; a copy is told apart by owner and number, since an
 * owner holds a block once. Prefixes are asked as the master asks them (store/index/prefix_core.h).
 *
 * Ownership: the directory owns its memory. Threads: one. */
#ifndef REPLAY_DIRECTORY_H
#define REPLAY_DIRECTORY_H

#include <stdbool.h>
#include <stdint.h>

#include "mooncake/status.h"
#include "store/index/prefix_core.h"

struct directory {
    struct table *table;
    struct prefix_leads leads; /* of the last directory_prefix() */
    uint8_t (*ids)[16];        /* scratch: the prompt asked for */
    uint32_t ids_cap;
};

enum { DIRECTORY_OWNERS_MAX = TABLE_NEAR };

/* Room for `copies`, owners below DIRECTORY_OWNERS_MAX. MC_OK or MC_ENOMEM. */
enum mc_status directory_init(struct directory *directory, uint64_t copies);
void directory_fini(struct directory *directory); /* of a zeroed one, too */

/* The owner has the block, or not any more; harmless when that is known. MC_OK, MC_ENOMEM, MC_EBUSY (no room). */
enum mc_status directory_add(struct directory *directory, uint16_t owner, uint64_t id);
void directory_remove(struct directory *directory, uint16_t owner, uint64_t id);

/* Bit of each owner that has it. */
uint64_t directory_holders(const struct directory *directory, uint64_t id);

/* Prompts of up to so many blocks will be asked for. MC_OK or MC_ENOMEM. */
enum mc_status directory_reserve(struct directory *directory, uint32_t count);

/* Blocks of the prompt that the owners hold between them, from the first on; prefix_lead() says what each has alone. `count` has
 * been reserved. */
uint32_t directory_prefix(struct directory *directory, const uint64_t *ids, uint32_t count);

uint64_t directory_copies(const struct directory *directory);
uint64_t directory_blocks(const struct directory *directory); /* different ones */

#endif
