/* alloc.c - see alloc.h. Two-level segregated fit (Masmano et al., 2004) with the tags outside of the memory.
 *
 * A size class is (first, second): the power of two, and 1/32 steps within it; below 32 grains every size has its own.
 * One bitmap says which powers of two have free blocks, one per power which steps. A search rounds the size up to the next
 * class, so that any block found is long enough; only when that finds nothing the list of the size's own class is looked
 * through, a bounded number of blocks.
 *
 * Blocks live in slabs of 4096 and are named by index, so that links are 32 bits and growing moves nothing.
 *
 * Invariants (alloc_audit checks them): the blocks of a segment, linked by `left` and `right`, cover it without gap or
 * overlap; no two neighbours are both free; a free block is in exactly the list of its class, and a bit is set exactly when
 * its list is not empty. */
#include "store/node/alloc.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum {
    SECOND_BITS = 5,
    SECOND = 1 << SECOND_BITS,
    FIRST = 32 - SECOND_BITS + 1,
    SLAB_BITS = 12,
    SLAB = 1 << SLAB_BITS,
    OWN_CLASS_TRIES = 64, /* blocks of the size's own class looked at before giving up */
};

enum block_state { BLOCK_UNUSED, BLOCK_FREE, BLOCK_TAKEN };

struct block {
    uint32_t at, grains; /* in grains from the start of the segment */
    uint32_t left, right;
    uint32_t prev, next; /* free: list of its class; unused index: `next` is the next unused one */
    uint32_t owner;
    uint16_t segment;
    uint8_t state;
};
static_assert(sizeof(struct block) == 32, "two to a cache line");

struct segment {
    uint32_t grains;
    uint32_t leftmost;
    uint32_t first_map;
    uint32_t second_map[FIRST];
    uint32_t head[FIRST][SECOND];
};

struct alloc {
    struct block **slabs;
    size_t slab_count, slab_cap;
    size_t blocks, blocks_max; /* in use as block, free or taken */
    size_t taken;
    uint32_t unused;     /* list of indexes not in use */
    uint32_t spare;      /* how many are in it */
    uint32_t last_freed; /* the block the last alloc_put() made, for alloc_take(); may be unused or taken by now */
    struct segment *segments[ALLOC_SEGMENTS_MAX];
    uint32_t segment_count;
    uint64_t total_grains, free_grains;
    uint32_t largest_segment;
};

struct size_class {
    uint32_t first, second;
};

static struct block *block_at(const struct alloc *alloc, uint32_t index)
{
    return &alloc->slabs[index >> SLAB_BITS][index & (SLAB - 1)];
}

static struct size_class class_of(uint32_t grains)
{
    if (grains < SECOND)
        return (struct size_class){0, grains};
    uint32_t log = 31 - (uint32_t)__builtin_clz(grains);
    return (struct size_class){log - SECOND_BITS + 1, grains >> (log - SECOND_BITS) & (SECOND - 1)};
}

/* Smallest class all of whose blocks have at least `grains`; false when there is none. */
static bool class_above(uint32_t grains, struct size_class *out)
{
    uint64_t rounded = grains;

    if (grains >= SECOND)
        rounded += (1u << (31 - (uint32_t)__builtin_clz(grains) - SECOND_BITS)) - 1;
    if (rounded > UINT32_MAX)
        return false;
    *out = class_of((uint32_t)rounded);
    return true;
}

/* ---- indexes ---- */

static enum mc_status slab_add(struct alloc *alloc)
{
    if (alloc->slab_count == alloc->slab_cap) {
        size_t cap = alloc->slab_cap ? alloc->slab_cap * 2 : 16;
        struct block **slabs = realloc(alloc->slabs, cap * sizeof(*slabs));

        if (!slabs)
            return MC_ENOMEM;
        alloc->slabs = slabs;
        alloc->slab_cap = cap;
    }
    struct block *slab = calloc(SLAB, sizeof(*slab));
    if (!slab)
        return MC_ENOMEM;
    uint32_t base = (uint32_t)alloc->slab_count << SLAB_BITS;
    alloc->slabs[alloc->slab_count++] = slab;
    for (uint32_t i = SLAB; i-- > 0;) {
        slab[i].next = alloc->unused;
        alloc->unused = base + i;
    }
    alloc->spare += SLAB;
    return MC_OK;
}

/* Indexes in hand before anything is changed, so that a split cannot fail half-way. */
static enum mc_status index_reserve(struct alloc *alloc, uint32_t count)
{
    if (alloc->blocks_max && alloc->blocks + count > alloc->blocks_max)
        return MC_ENOMEM;
    return alloc->spare < count ? slab_add(alloc) : MC_OK;
}

static uint32_t index_get(struct alloc *alloc)
{
    uint32_t index = alloc->unused;

    assert(index != ALLOC_NONE);
    alloc->unused = block_at(alloc, index)->next;
    alloc->spare--;
    alloc->blocks++;
    return index;
}

static void index_put(struct alloc *alloc, uint32_t index)
{
    struct block *block = block_at(alloc, index);

    *block = (struct block){.state = BLOCK_UNUSED, .next = alloc->unused};
    alloc->unused = index;
    alloc->spare++;
    alloc->blocks--;
}

/* ---- free lists ---- */

static void free_link(struct alloc *alloc, uint32_t index)
{
    struct block *block = block_at(alloc, index);
    struct segment *segment = alloc->segments[block->segment];
    struct size_class class = class_of(block->grains);
    uint32_t *head = &segment->head[class.first][class.second];

    block->state = BLOCK_FREE;
    block->owner = ALLOC_NONE;
    block->prev = ALLOC_NONE;
    block->next = *head;
    if (*head != ALLOC_NONE)
        block_at(alloc, *head)->prev = index;
    *head = index;
    segment->first_map |= 1u << class.first;
    segment->second_map[class.first] |= 1u << class.second;
    alloc->free_grains += block->grains;
}

static void free_unlink(struct alloc *alloc, uint32_t index)
{
    struct block *block = block_at(alloc, index);
    struct segment *segment = alloc->segments[block->segment];
    struct size_class class = class_of(block->grains);
    uint32_t *head = &segment->head[class.first][class.second];

    if (block->prev != ALLOC_NONE)
        block_at(alloc, block->prev)->next = block->next;
    else
        *head = block->next;
    if (block->next != ALLOC_NONE)
        block_at(alloc, block->next)->prev = block->prev;
    if (*head == ALLOC_NONE) {
        segment->second_map[class.first] &= ~(1u << class.second);
        if (segment->second_map[class.first] == 0)
            segment->first_map &= ~(1u << class.first);
    }
    block->prev = block->next = ALLOC_NONE;
    alloc->free_grains -= block->grains;
}

/* A free block of at least `grains`, or ALLOC_NONE. */
static uint32_t free_find(const struct alloc *alloc, const struct segment *segment, uint32_t grains)
{
    struct size_class class;

    if (class_above(grains, &class)) {
        uint32_t seconds = segment->second_map[class.first] & ~0u << class.second;

        if (seconds)
            return segment->head[class.first][__builtin_ctz(seconds)];
        uint32_t firsts = class.first == 31 ? 0 : segment->first_map & ~0u << (class.first + 1);
        if (firsts) {
            uint32_t first = (uint32_t)__builtin_ctz(firsts);

            return segment->head[first][__builtin_ctz(segment->second_map[first])];
        }
    }
    class = class_of(grains);
    uint32_t index = segment->head[class.first][class.second];
    for (unsigned tries = 0; index != ALLOC_NONE && tries < OWN_CLASS_TRIES; tries++) {
        if (block_at(alloc, index)->grains >= grains)
            return index;
        index = block_at(alloc, index)->next;
    }
    return ALLOC_NONE;
}

/* ---- segments ---- */

struct alloc *alloc_create(size_t blocks_max)
{
    struct alloc *alloc = calloc(1, sizeof(*alloc));

    if (!alloc)
        return NULL;
    alloc->blocks_max = blocks_max;
    alloc->unused = alloc->last_freed = ALLOC_NONE;
    return alloc;
}

void alloc_destroy(struct alloc *alloc)
{
    if (!alloc)
        return;
    for (size_t i = 0; i < alloc->slab_count; i++)
        free(alloc->slabs[i]);
    for (uint32_t i = 0; i < alloc->segment_count; i++)
        free(alloc->segments[i]);
    free(alloc->slabs);
    free(alloc);
}

enum mc_status alloc_segment_add(struct alloc *alloc, uint64_t size, uint32_t *segment)
{
    if (size == 0 || size % ALLOC_GRAIN != 0 || size > ALLOC_SEGMENT_MAX)
        return MC_EINVAL;
    if (alloc->segment_count == ALLOC_SEGMENTS_MAX)
        return MC_EBUSY;
    if (index_reserve(alloc, 1) != MC_OK)
        return MC_ENOMEM;
    struct segment *made = calloc(1, sizeof(*made));
    if (!made)
        return MC_ENOMEM;

    memset(made->head, 0xff, sizeof(made->head)); /* ALLOC_NONE */
    made->grains = (uint32_t)(size / ALLOC_GRAIN);
    made->leftmost = index_get(alloc);
    *block_at(alloc, made->leftmost) = (struct block){
        .grains = made->grains, .left = ALLOC_NONE, .right = ALLOC_NONE, .segment = (uint16_t)alloc->segment_count};
    alloc->segments[alloc->segment_count] = made;
    *segment = alloc->segment_count++;
    alloc->total_grains += made->grains;
    if (made->grains > alloc->largest_segment)
        alloc->largest_segment = made->grains;
    free_link(alloc, made->leftmost);
    return MC_OK;
}

/* ---- get and put ---- */

/* Cut a block in two: `index` keeps the first `grains`, the rest becomes a block of its own behind it. */
static uint32_t split(struct alloc *alloc, uint32_t index, uint32_t grains)
{
    uint32_t rest = index_get(alloc);
    struct block *block = block_at(alloc, index), *behind = block_at(alloc, rest);

    *behind = (struct block){.at = block->at + grains,
        .grains = block->grains - grains,
        .left = index,
        .right = block->right,
        .segment = block->segment};
    if (block->right != ALLOC_NONE)
        block_at(alloc, block->right)->left = rest;
    block->right = rest;
    block->grains = grains;
    return rest;
}

static uint32_t grains_of(uint64_t size)
{
    return (uint32_t)((size + ALLOC_GRAIN - 1) / ALLOC_GRAIN);
}

/* Take `grains` out of free block `index`, `skip` grains from its start. An index for each cut is reserved. */
static uint32_t take(struct alloc *alloc, uint32_t index, uint32_t skip, uint32_t grains, uint32_t owner)
{
    free_unlink(alloc, index);
    if (skip > 0) {
        uint32_t taken = split(alloc, index, skip);

        free_link(alloc, index);
        index = taken;
    }
    if (block_at(alloc, index)->grains > grains)
        free_link(alloc, split(alloc, index, grains));
    struct block *block = block_at(alloc, index);
    block->state = BLOCK_TAKEN;
    block->owner = owner;
    alloc->taken++;
    return index;
}

enum mc_status alloc_get(struct alloc *alloc, uint64_t size, uint32_t owner, uint32_t *block)
{
    bool small = size <= ALLOC_SMALL_MAX;

    assert(size > 0);
    if (size > (uint64_t)alloc->largest_segment * ALLOC_GRAIN)
        return MC_ETOOBIG;
    if (index_reserve(alloc, 1) != MC_OK)
        return MC_ENOMEM;
    uint32_t grains = grains_of(size);
    for (uint32_t i = 0; i < alloc->segment_count; i++) {
        uint32_t number = small ? i : alloc->segment_count - 1 - i;
        uint32_t index = free_find(alloc, alloc->segments[number], grains);

        if (index == ALLOC_NONE)
            continue;
        /* Within a free block too: small ones from its left end, large ones from its right. */
        uint32_t skip = small ? 0 : block_at(alloc, index)->grains - grains;
        *block = take(alloc, index, skip, grains, owner);
        return MC_OK;
    }
    return MC_ENOSPC;
}

/* `index` swallows its right neighbour; neither is in a list. */
static void merge_right(struct alloc *alloc, uint32_t index)
{
    struct block *block = block_at(alloc, index);
    uint32_t gone = block->right;
    struct block *right = block_at(alloc, gone);

    block->grains += right->grains;
    block->right = right->right;
    if (right->right != ALLOC_NONE)
        block_at(alloc, right->right)->left = index;
    index_put(alloc, gone);
}

void alloc_put(struct alloc *alloc, uint32_t index)
{
    struct block *block = block_at(alloc, index);

    assert(block->state == BLOCK_TAKEN);
    alloc->taken--;
    if (block->right != ALLOC_NONE && block_at(alloc, block->right)->state == BLOCK_FREE) {
        free_unlink(alloc, block->right);
        merge_right(alloc, index);
    }
    if (block->left != ALLOC_NONE && block_at(alloc, block->left)->state == BLOCK_FREE) {
        index = block->left;
        free_unlink(alloc, index);
        merge_right(alloc, index);
    }
    free_link(alloc, index);
    alloc->last_freed = index;
}

struct alloc_place alloc_where(const struct alloc *alloc, uint32_t index)
{
    const struct block *block = block_at(alloc, index);

    return (struct alloc_place){
        .segment = block->segment,
        .offset = (uint64_t)block->at * ALLOC_GRAIN,
        .length = (uint64_t)block->grains * ALLOC_GRAIN,
        .owner = block->owner,
    };
}

void alloc_set_owner(struct alloc *alloc, uint32_t index, uint32_t owner)
{
    block_at(alloc, index)->owner = owner;
}

/* ---- making room between neighbours ---- */

static bool block_covers(const struct block *block, uint32_t segment, uint32_t at)
{
    return block->state == BLOCK_FREE && block->segment == segment && at >= block->at && at - block->at < block->grains;
}

struct pricing {
    alloc_cost_fn *cost;
    void *arg;
};

static uint64_t price(const struct block *block, const struct pricing *pricing)
{
    if (block->state == BLOCK_FREE)
        return 0;
    return pricing->cost(pricing->arg, block->owner, (uint64_t)block->grains * ALLOC_GRAIN);
}

/* A run [first..last] of blocks, growing at its right end and shrinking at its left. */
struct window {
    uint32_t first, last, blocks;
    uint64_t grains, cost;
};

static void window_drop_first(const struct alloc *alloc, struct window *w, const struct pricing *pricing)
{
    const struct block *block = block_at(alloc, w->first);

    w->grains -= block->grains;
    w->cost -= price(block, pricing);
    w->blocks--;
    w->first = block->right;
}

static struct alloc_run window_run(const struct window *w)
{
    return (struct alloc_run){w->first, w->blocks, w->grains * ALLOC_GRAIN, w->cost};
}

/* Leftmost block of a run that may end in `near`: nothing further left can be in a shortest run that contains it. */
static uint32_t leftmost_useful(
    const struct alloc *alloc, uint32_t near, uint32_t grains, const struct pricing *pricing)
{
    uint64_t sum = block_at(alloc, near)->grains;

    for (uint32_t at = near;;) {
        uint32_t left = block_at(alloc, at)->left;

        if (left == ALLOC_NONE || sum >= grains || price(block_at(alloc, left), pricing) == ALLOC_NEVER)
            return at;
        sum += block_at(alloc, left)->grains;
        at = left;
    }
}

/* Slide a window of at least `grains` from `start` on to the right; the cheapest one that begins at or before `must_hold`,
 * or (must_hold ALLOC_NONE) the first one there is. */
static bool slide(const struct alloc *alloc, uint32_t start, uint32_t must_hold, uint32_t grains,
    const struct pricing *pricing, struct alloc_run *best)
{
    struct window w = {.first = start, .last = ALLOC_NONE};
    bool found = false;

    for (uint32_t at = start; at != ALLOC_NONE; at = block_at(alloc, at)->right) {
        const struct block *block = block_at(alloc, at);
        uint64_t cost = price(block, pricing);

        if (cost == ALLOC_NEVER) {
            if (must_hold != ALLOC_NONE)
                return found; /* `start` was chosen so that nothing up to must_hold is a barrier */
            w = (struct window){.first = block->right, .last = ALLOC_NONE};
            continue;
        }
        w.last = at;
        w.grains += block->grains;
        w.cost += cost;
        w.blocks++;
        while (w.grains >= grains) {
            if (!found || w.cost < best->cost) {
                *best = window_run(&w);
                found = true;
            }
            if (must_hold == ALLOC_NONE || w.first == must_hold)
                return true;
            window_drop_first(alloc, &w, pricing);
        }
    }
    return found;
}

enum mc_status alloc_plan(
    struct alloc *alloc, uint64_t size, uint32_t near, alloc_cost_fn *cost, void *arg, struct alloc_run *run)
{
    struct pricing pricing = {cost, arg};
    uint32_t grains = grains_of(size), from = 0;

    if (size > (uint64_t)alloc->largest_segment * ALLOC_GRAIN)
        return MC_ETOOBIG;
    if (near != ALLOC_NONE) {
        from = block_at(alloc, near)->segment;
        if (price(block_at(alloc, near), &pricing) != ALLOC_NEVER &&
            slide(alloc, leftmost_useful(alloc, near, grains, &pricing), near, grains, &pricing, run))
            return MC_OK;
    }
    for (uint32_t i = 0; i < alloc->segment_count; i++) {
        const struct segment *segment = alloc->segments[(from + i) % alloc->segment_count];

        if (slide(alloc, segment->leftmost, ALLOC_NONE, grains, &pricing, run))
            return MC_OK;
    }
    return MC_ENOSPC;
}

bool alloc_run_next(const struct alloc *alloc, struct alloc_run_iter *it, uint32_t *owner)
{
    while (it->left > 0) {
        const struct block *block = block_at(alloc, it->block);

        it->block = block->right;
        it->left--;
        if (block->state == BLOCK_TAKEN) {
            *owner = block->owner;
            return true;
        }
    }
    return false;
}

/* The free block that covers the place, or ALLOC_NONE. After a run was evicted that is the one the last alloc_put() made;
 * otherwise the lists of the classes that could hold it are searched. */
static uint32_t free_at(const struct alloc *alloc, uint32_t segment, uint32_t at, uint32_t grains)
{
    const struct segment *s = alloc->segments[segment];
    uint32_t index = alloc->last_freed;

    if (index != ALLOC_NONE && block_covers(block_at(alloc, index), segment, at))
        return index;
    for (uint32_t first = class_of(grains).first; first < FIRST; first++) {
        for (uint32_t map = s->second_map[first]; map; map &= map - 1) {
            for (index = s->head[first][__builtin_ctz(map)]; index != ALLOC_NONE; index = block_at(alloc, index)->next)
                if (block_covers(block_at(alloc, index), segment, at))
                    return index;
        }
    }
    return ALLOC_NONE;
}

enum mc_status alloc_take(
    struct alloc *alloc, uint32_t segment, uint64_t offset, uint64_t size, uint32_t owner, uint32_t *block)
{
    uint32_t grains = grains_of(size), at = (uint32_t)(offset / ALLOC_GRAIN);

    assert(segment < alloc->segment_count && offset % ALLOC_GRAIN == 0 && size > 0);
    uint32_t index = free_at(alloc, segment, at, grains);
    if (index == ALLOC_NONE)
        return MC_ENOSPC;
    uint32_t skip = at - block_at(alloc, index)->at, room = block_at(alloc, index)->grains - skip;
    if (room < grains)
        return MC_ENOSPC;
    if (index_reserve(alloc, 2) != MC_OK)
        return MC_ENOMEM;
    *block = take(alloc, index, skip, grains, owner);
    return MC_OK;
}

/* ---- looking ---- */

uint64_t alloc_total_bytes(const struct alloc *alloc)
{
    return alloc->total_grains * ALLOC_GRAIN;
}

uint64_t alloc_free_bytes(const struct alloc *alloc)
{
    return alloc->free_grains * ALLOC_GRAIN;
}

uint64_t alloc_largest_free(const struct alloc *alloc)
{
    uint32_t largest = 0;

    for (uint32_t i = 0; i < alloc->segment_count; i++) {
        const struct segment *segment = alloc->segments[i];

        if (segment->first_map == 0)
            continue;
        uint32_t first = 31 - (uint32_t)__builtin_clz(segment->first_map);
        uint32_t second = 31 - (uint32_t)__builtin_clz(segment->second_map[first]);
        for (uint32_t at = segment->head[first][second]; at != ALLOC_NONE; at = block_at(alloc, at)->next)
            if (block_at(alloc, at)->grains > largest)
                largest = block_at(alloc, at)->grains;
    }
    return (uint64_t)largest * ALLOC_GRAIN;
}

size_t alloc_used_blocks(const struct alloc *alloc)
{
    return alloc->taken;
}

static bool broken(const char *what, uint32_t segment, uint32_t block)
{
    log_error("allocator segment %u block %u: %s", segment, block, what);
    return false;
}

static bool in_its_list(const struct alloc *alloc, const struct segment *segment, uint32_t index)
{
    struct size_class class = class_of(block_at(alloc, index)->grains);
    uint32_t at = segment->head[class.first][class.second];

    if (!(segment->first_map >> class.first & 1) || !(segment->second_map[class.first] >> class.second & 1))
        return false;
    while (at != ALLOC_NONE && at != index)
        at = block_at(alloc, at)->next;
    return at == index;
}

static bool audit_segment(
    const struct alloc *alloc, uint32_t number, uint64_t *free_grains, size_t *blocks, size_t *taken)
{
    const struct segment *segment = alloc->segments[number];
    uint32_t end = 0, left = ALLOC_NONE, linked = 0, listed = 0;

    for (uint32_t at = segment->leftmost; at != ALLOC_NONE; at = block_at(alloc, at)->right) {
        const struct block *block = block_at(alloc, at);

        if (block->at != end || block->left != left || block->segment != number || block->grains == 0)
            return broken("gap, overlap or wrong link", number, at);
        if (block->state == BLOCK_FREE) {
            if (left != ALLOC_NONE && block_at(alloc, left)->state == BLOCK_FREE)
                return broken("two free neighbours", number, at);
            if (!in_its_list(alloc, segment, at))
                return broken("free but not in its list", number, at);
            *free_grains += block->grains;
            linked++;
        } else if (block->state == BLOCK_TAKEN) {
            ++*taken;
        } else {
            return broken("unused index linked", number, at);
        }
        end += block->grains;
        left = at;
        ++*blocks;
    }
    for (uint32_t first = 0; first < FIRST; first++)
        for (uint32_t second = 0; second < SECOND; second++) {
            bool bit = segment->second_map[first] >> second & 1;

            if (bit != (segment->head[first][second] != ALLOC_NONE))
                return broken("bit and list differ", number, segment->head[first][second]);
            for (uint32_t at = segment->head[first][second]; at != ALLOC_NONE; at = block_at(alloc, at)->next)
                listed++;
        }
    return end == segment->grains && linked == listed ? true : broken("does not cover the segment", number, 0);
}

bool alloc_audit(const struct alloc *alloc)
{
    uint64_t free_grains = 0;
    size_t blocks = 0, taken = 0;

    for (uint32_t i = 0; i < alloc->segment_count; i++)
        if (!audit_segment(alloc, i, &free_grains, &blocks, &taken))
            return false;
    if (free_grains != alloc->free_grains || blocks != alloc->blocks || taken != alloc->taken)
        return broken("sums differ", 0, 0);
    return true;
}
