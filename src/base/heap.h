/* heap.h - binary min-heap of intrusive nodes ordered by a 64-bit key (a deadline, usually).
 *
 * Equal keys come out in no order. Memory: one pointer per element, grown by doubling.
 * Threads: the owner's only. */
#ifndef BASE_HEAP_H
#define BASE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/list.h"
#include "mooncake/status.h"

struct heap_node {
    uint64_t key;
    size_t at; /* 1 + index in the heap; 0 = in no heap. Start with zero. */
};

struct heap {
    struct heap_node **nodes;
    size_t count, cap;
};

/* A zeroed struct heap is an empty heap. */
void heap_fini(struct heap *heap);

/* Make sure the next `count` adds cannot fail. MC_ENOMEM: nothing changed. */
enum mc_status heap_reserve(struct heap *heap, size_t count);

/* MC_OK or MC_ENOMEM (nothing changed). The node must be in no heap. */
enum mc_status heap_add(struct heap *heap, struct heap_node *node, uint64_t key);

/* Give a node that is in the heap another key. Cannot fail. */
void heap_move(struct heap *heap, struct heap_node *node, uint64_t key);

/* Take out; harmless when the node is in no heap. */
void heap_del(struct heap *heap, struct heap_node *node);

/* The smallest, or NULL. It stays in. */
static inline struct heap_node *heap_top(const struct heap *heap)
{
    return heap->count ? heap->nodes[0] : NULL;
}

static inline bool heap_has(const struct heap_node *node)
{
    return node->at != 0;
}

#endif
