/* heap.c - binary heap in an array of pointers; every node knows its place, so that it can be moved and taken out.
 *
 * Invariant: nodes[i]->at == i + 1 and nodes[(i - 1) / 2]->key <= nodes[i]->key. */
#include "base/heap.h"

#include <assert.h>
#include <stdlib.h>

static void place(struct heap *heap, size_t i, struct heap_node *node)
{
    heap->nodes[i] = node;
    node->at = i + 1;
}

static void sift_up(struct heap *heap, size_t i, struct heap_node *node)
{
    while (i > 0) {
        size_t parent = (i - 1) / 2;

        if (heap->nodes[parent]->key <= node->key)
            break;
        place(heap, i, heap->nodes[parent]);
        i = parent;
    }
    place(heap, i, node);
}

static void sift_down(struct heap *heap, size_t i, struct heap_node *node)
{
    for (;;) {
        size_t child = 2 * i + 1;

        if (child >= heap->count)
            break;
        if (child + 1 < heap->count && heap->nodes[child + 1]->key < heap->nodes[child]->key)
            child++;
        if (heap->nodes[child]->key >= node->key)
            break;
        place(heap, i, heap->nodes[child]);
        i = child;
    }
    place(heap, i, node);
}

static void sift(struct heap *heap, size_t i, struct heap_node *node)
{
    if (i > 0 && heap->nodes[(i - 1) / 2]->key > node->key)
        sift_up(heap, i, node);
    else
        sift_down(heap, i, node);
}

void heap_fini(struct heap *heap)
{
    free(heap->nodes);
    *heap = (struct heap){0};
}

enum mc_status heap_reserve(struct heap *heap, size_t count)
{
    size_t need = heap->count + count, cap = heap->cap ? heap->cap : 16;
    struct heap_node **nodes;

    if (need <= heap->cap)
        return MC_OK;
    while (cap < need)
        cap *= 2;
    nodes = reallocarray(heap->nodes, cap, sizeof(*nodes));
    if (!nodes)
        return MC_ENOMEM;
    heap->nodes = nodes;
    heap->cap = cap;
    return MC_OK;
}

enum mc_status heap_add(struct heap *heap, struct heap_node *node, uint64_t key)
{
    assert(!heap_has(node));
    if (heap_reserve(heap, 1) != MC_OK)
        return MC_ENOMEM;
    node->key = key;
    sift_up(heap, heap->count++, node);
    return MC_OK;
}

void heap_move(struct heap *heap, struct heap_node *node, uint64_t key)
{
    assert(heap_has(node));
    node->key = key;
    sift(heap, node->at - 1, node);
}

void heap_del(struct heap *heap, struct heap_node *node)
{
    struct heap_node *last;
    size_t i = node->at - 1;

    if (!heap_has(node))
        return;
    assert(heap->nodes[i] == node);
    node->at = 0;
    last = heap->nodes[--heap->count];
    if (last != node)
        sift(heap, i, last);
}
