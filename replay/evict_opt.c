/* evict_opt.c - Belady's rule over prefixes: the bound that no policy passes.
 *
 * Out goes what is used again latest. A block is never used later than one that hangs on it, so of a prompt the end goes first;
 * among blocks that are never used again the deepest does. What comes in is turned away when it would be the next to go.
 *
 * A heap by the time of the next use, farthest on top: O(log n), which no live policy may be, and nothing here has to. */
#include <assert.h>
#include <stdlib.h>

#include "base/heap.h"
#include "replay/evictions.h"

#define NEVER_BASE (UINT64_C(1) << 63) /* + depth: times of those never used again */

struct opt {
    struct evict base;
    const uint64_t *next;
    uint64_t count;
    uint64_t incoming; /* when what wants to come in is used again */
    struct heap heap;  /* by ~time */
    struct opt_node {
        struct heap_node node;
        uint32_t depth;
    } * nodes;
};

static struct opt *opt_of(struct evict *e)
{
    return (struct opt *)(void *)e;
}

void opt_future(struct evict *e, const uint64_t *next, uint64_t count)
{
    assert(e->policy == &opt_policy);
    opt_of(e)->next = next;
    opt_of(e)->count = count;
}

static enum mc_status opt_init(struct evict *e)
{
    struct opt *opt = opt_of(e);

    opt->nodes = calloc(e->capacity, sizeof(*opt->nodes));
    if (!opt->nodes || heap_reserve(&opt->heap, e->capacity) != MC_OK) {
        free(opt->nodes);
        return MC_ENOMEM;
    }
    return MC_OK;
}

static void opt_fini(struct evict *e)
{
    heap_fini(&opt_of(e)->heap);
    free(opt_of(e)->nodes);
}

static uint64_t again(const struct opt *opt, uint32_t depth, uint64_t now)
{
    assert(now < opt->count);
    return opt->next[now] == OPT_NEVER ? NEVER_BASE + depth : opt->next[now];
}

static void opt_expect(struct evict *e, uint64_t id, uint32_t depth, uint64_t now)
{
    opt_of(e)->incoming = again(opt_of(e), depth, now);
}

static enum mc_status opt_add(struct evict *e, uint32_t slot, const struct evict_object *object, uint64_t now)
{
    struct opt *opt = opt_of(e);

    opt->nodes[slot].depth = object->depth;
    return heap_add(&opt->heap, &opt->nodes[slot].node, ~again(opt, object->depth, now));
}

static void opt_touch(struct evict *e, uint32_t slot, uint64_t now)
{
    struct opt *opt = opt_of(e);

    heap_move(&opt->heap, &opt->nodes[slot].node, ~again(opt, opt->nodes[slot].depth, now));
}

static void opt_remove(struct evict *e, uint32_t slot, uint64_t id, enum evict_why why, uint64_t now)
{
    heap_del(&opt_of(e)->heap, &opt_of(e)->nodes[slot].node);
}

static uint32_t opt_victim(struct evict *e, uint64_t now)
{
    struct opt *opt = opt_of(e);
    struct heap_node *top = heap_top(&opt->heap);

    if (!top || ~top->key <= opt->incoming)
        return EVICT_NONE;
    return (uint32_t)((struct opt_node *)(void *)top - opt->nodes);
}

const struct evict_policy opt_policy = {
    .name = "opt",
    .help = "what is used again latest (Belady); knows the future, one pool only",
    .handle_size = sizeof(struct opt),
    .init = opt_init,
    .fini = opt_fini,
    .add = opt_add,
    .touch = opt_touch,
    .remove = opt_remove,
    .victim = opt_victim,
    .expect = opt_expect,
};
