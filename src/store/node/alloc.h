/* alloc.h - where objects lie: space in several segments, with the book-keeping outside of them.
 *
 * Two-level segregated fit per segment: a free block is found through two bitmaps, split, and merged with its neighbours
 * when it comes back; all O(1). Small sizes look for space from the first segment on, large ones from the last, so that
 * they seldom lie between each other. Fragmentation that remains is undone by eviction: alloc_plan() names the cheapest
 * run of neighbours that would make one free block of the wanted size. So an allocation fails only when pinned objects
 * leave no run long enough (and nothing here is moved: readers hold addresses).
 *
 *     segment   | block used | block free | block used | used | ...      blocks are multiples of ALLOC_GRAIN, no gaps
 *
 * A block is a u32 handle, valid from alloc_get() to alloc_put(). It carries one u32 `owner` of the caller's (the object's
 * slot). The memory itself is never touched.
 *
 * The way to make room (what the node does):
 *     1. alloc_get(); on MC_ENOSPC:
 *     2. while alloc_free_bytes() < size + reserve: evict what the policy names, and try again
 *     3. alloc_plan(near the policy's next victim), evict every owner in it, alloc_take()
 *
 * Pure. Threads: the owner's only. */
#ifndef STORE_NODE_ALLOC_H
#define STORE_NODE_ALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mooncake/status.h"

enum {
    ALLOC_GRAIN = 64,
    ALLOC_SEGMENTS_MAX = 256,
    ALLOC_SMALL_MAX = 1 << 20, /* at most this: small, taken from the first segments */
};

#define ALLOC_NONE        UINT32_MAX   /* no block; as owner: nobody */
#define ALLOC_SEGMENT_MAX (1ull << 37) /* bytes of one segment: its grains are counted in 32 bits */

struct alloc;

struct alloc_place {
    uint32_t segment;
    uint64_t offset;
    uint64_t length; /* as asked for, rounded up to ALLOC_GRAIN */
    uint32_t owner;
};

/* Blocks_max bounds blocks, used and free together (0 = no bound); their memory is taken as needed. NULL: out of memory. */
struct alloc *alloc_create(size_t blocks_max);
void alloc_destroy(struct alloc *alloc);

/* Add a segment; *segment counts up from 0. MC_EINVAL: size is 0, no multiple of ALLOC_GRAIN or above ALLOC_SEGMENT_MAX;
 * MC_EBUSY: ALLOC_SEGMENTS_MAX are there; MC_ENOMEM. */
enum mc_status alloc_segment_add(struct alloc *alloc, uint64_t size, uint32_t *segment);

/* Space for `size` bytes (> 0).
 *   MC_OK  *block is it    MC_ENOSPC  no free block is long enough    MC_ETOOBIG  longer than every segment
 *   MC_ENOMEM  book-keeping is at its bound */
enum mc_status alloc_get(struct alloc *alloc, uint64_t size, uint32_t owner, uint32_t *block);

/* Give back; merged with free neighbours at once. */
void alloc_put(struct alloc *alloc, uint32_t block);

struct alloc_place alloc_where(const struct alloc *alloc, uint32_t block);
void alloc_set_owner(struct alloc *alloc, uint32_t block, uint32_t owner);

/* What evicting that owner would cost, in any unit; ALLOC_NEVER: it may not be evicted (pinned, being written). */
#define ALLOC_NEVER UINT64_MAX
typedef uint64_t alloc_cost_fn(void *arg, uint32_t owner, uint64_t length);

/* The cheapest run of neighbouring blocks of at least `size` bytes that contains `near` (a used block, the policy's victim);
 * when pinned blocks leave none there, the first one found from there on, through all segments.
 *   MC_OK  *plan is set    MC_ENOSPC  pinned blocks leave no run    MC_ETOOBIG */
struct alloc_run {
    uint32_t first;  /* block */
    uint32_t blocks; /* used and free ones */
    uint64_t size;
    uint64_t cost;
};
enum mc_status alloc_plan(
    struct alloc *alloc, uint64_t size, uint32_t near, alloc_cost_fn *cost, void *arg, struct alloc_run *run);

/* The owners in a run, one by one: *block starts as run->first; each call gives the used block at or behind *block and moves
 * *block to its successor. Collect them before evicting: alloc_put() merges blocks. False at the end of `*left` blocks. */
struct alloc_run_iter {
    uint32_t block, left;
};
static inline struct alloc_run_iter alloc_run_begin(const struct alloc_run *run)
{
    return (struct alloc_run_iter){run->first, run->blocks};
}
bool alloc_run_next(const struct alloc *alloc, struct alloc_run_iter *it, uint32_t *owner);

/* Allocate at exactly this place, out of the free block that covers it (after the run's owners were evicted: its start).
 * MC_ENOSPC: it is not free, or too short. */
enum mc_status alloc_take(
    struct alloc *alloc, uint32_t segment, uint64_t offset, uint64_t size, uint32_t owner, uint32_t *block);

uint64_t alloc_total_bytes(const struct alloc *alloc);
uint64_t alloc_free_bytes(const struct alloc *alloc);
uint64_t alloc_largest_free(const struct alloc *alloc);
size_t alloc_used_blocks(const struct alloc *alloc);

/* Every invariant, by walking everything: for tests. False: broken (and the reason is logged). */
bool alloc_audit(const struct alloc *alloc);

#endif
