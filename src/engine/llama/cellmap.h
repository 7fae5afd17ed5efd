/* cellmap.h - which cells of llama.cpp's context hold which tokens: pages of 64 cells, one sequence each.
 *
 * Why: left to itself the library puts a token into the first free cell. Its attention kernel works in tiles of 64 cells
 * and accumulates V in half precision, so where the tokens of a sequence lie, and what lies between them, changes bits: two
 * sequences side by side gave logits that differed by 0.8 from each of them alone, and their blocks would be stored as if
 * they were those of the prompt alone. With every sequence in whole, aligned pages the blocks of a prompt are the same bits
 * whatever else was in the context, and logits are too (measured: docs/decisions/014). A row of NaNs in one sequence cannot
 * reach another's tile either.
 *
 * How: the library offers no choice of cells, but takes the lowest free ones. So all cells below `top` are kept occupied,
 * those nobody owns by a plug sequence whose positions are the cells' own numbers; before tokens go in, exactly their cells
 * are unplugged. This file only keeps the map; cells.c makes the calls.
 *
 *   page state:  unused  page >= top, all its cells are free in the library
 *                spare   page < top, no owner, all its cells are plugged
 *                owned   tokens of one sequence from its first cell on, plugged behind them
 *
 * Invariants: owner[p] is set exactly for pages in one sequence's list; top <= pages; page top-1 is owned (or top is 0).
 * Threads: the engine thread. */
#ifndef LLAMA_CELLMAP_H
#define LLAMA_CELLMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mooncake/status.h"

enum { CELLMAP_PAGE = 64 };

struct cellmap_seq {
    uint32_t *pages; /* page of tokens [64 i, 64 (i+1)) */
    uint32_t count, capacity;
};

struct cellmap {
    uint32_t pages; /* of the whole context */
    uint32_t top;
    uint32_t seqs_max;
    int32_t *owner; /* per page: sequence, or -1 */
    struct cellmap_seq *seqs;
};

enum mc_status cellmap_init(struct cellmap *map, uint32_t pages, uint32_t seqs_max);
void cellmap_fini(struct cellmap *map); /* harmless on a zeroed struct */

/* Own pages for tokens [0, length) of `seq`: the ones it lacks are spare pages above its last one, then unused ones, then
 * any spare ones, in ascending order among themselves. Pages taken from `top` on were unused: map->top before the call
 * tells them apart. MC_ENOSPC, MC_ENOMEM: nothing changed. */
enum mc_status cellmap_take(struct cellmap *map, uint32_t seq, uint32_t length);

/* Cell of token `position`, whose page is owned. */
uint32_t cellmap_cell(const struct cellmap *map, uint32_t seq, uint32_t position);

/* Length of the run of neighbouring cells that holds tokens [position, position + n) from `position` on; n >= 1. */
uint32_t cellmap_run(const struct cellmap *map, uint32_t seq, uint32_t position, uint32_t n);

/* Give back the pages of `seq` that hold no token below `length`: they become spare, or unused where nothing owned lies
 * above. Returns the new top. The list keeps its content behind its new count until the next take. */
uint32_t cellmap_release(struct cellmap *map, uint32_t seq, uint32_t length);

#endif
