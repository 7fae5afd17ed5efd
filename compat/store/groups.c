/* groups.c - puts with group ids: those of one call that name one group are a bundle of our Store, seen together or not at all. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "compat/store/client_impl.h"

/* A put of the caller's, and where its result goes. */
struct sorted {
    struct compat_put put;
    const char *group;
    size_t of;
};

struct grouped {
    struct compat_client *client;
    struct mc_store *store;
    const struct mc_object_meta *meta;
    unsigned flags;
    struct sorted *sorted;
    struct mc_store_op *ops; /* of the bundles, one after the other ... */
    uint32_t *sizes;         /* ... so long each */
    size_t *first;           /* and where in `sorted` each begins */
    uint32_t ops_n, bundles;
};

static int by_group(const void *one, const void *two)
{
    const struct sorted *a = one, *b = two;
    int order = strcmp(a->group, b->group);

    return order ? order : (a->of > b->of) - (a->of < b->of);
}

/* One past the last of the group that begins at `at`. */
static size_t group_end(const struct sorted *sorted, size_t at, size_t n)
{
    size_t end = at + 1;

    while (end < n && strcmp(sorted[end].group, sorted[at].group) == 0)
        end++;
    return end;
}

/* Nothing of a group is begun when one of it cannot be. */
static void bundle_add(struct grouped *g, size_t from, size_t to)
{
    int error = to - from > MC_BUNDLE_MAX ? COMPAT_INVALID_PARAMS : COMPAT_OK;

    for (size_t i = from; i < to && error == COMPAT_OK; i++)
        error = compat_put_check(g->client, &g->sorted[i].put, g->flags);
    for (size_t i = from; i < to; i++) {
        struct mc_store_op *op = &g->ops[g->ops_n + (i - from)];

        g->sorted[i].put.result = error;
        if (error == COMPAT_OK)
            compat_put_op(op, &g->sorted[i].put, g->meta, g->flags);
    }
    if (error != COMPAT_OK)
        return;
    g->first[g->bundles] = from;
    g->sizes[g->bundles++] = (uint32_t)(to - from);
    g->ops_n += (uint32_t)(to - from);
}

/* As with single puts: whose outcome is open is done again, and finds what it has left itself. */
static void bundle_again(struct grouped *g, struct mc_store_op *ops, uint32_t size, uint64_t deadline_ns)
{
    for (int again = 0; again < COMPAT_PUT_AGAIN && ops->result.status == MC_EPEERDOWN; again++) {
        enum mc_status status = mc_store_put_bundles(g->store, ops, &size, 1, deadline_to_wire(deadline_ns, now_ns()));

        for (uint32_t i = 0; status != MC_OK && i < size; i++)
            ops[i].result.status = status;
    }
}

static void bundles_run(struct grouped *g)
{
    uint64_t deadline = deadline_after_ms(now_ns(), g->client->put_ms);
    enum mc_status status =
        g->bundles ? mc_store_put_bundles(g->store, g->ops, g->sizes, g->bundles, g->client->put_ms) : MC_OK;
    struct mc_store_op *ops = g->ops;

    for (uint32_t b = 0; b < g->bundles; ops += g->sizes[b++]) {
        for (uint32_t i = 0; status != MC_OK && i < g->sizes[b]; i++)
            ops[i].result = (struct mc_store_result){.status = status};
        if (!(g->flags & COMPAT_UPSERT))
            bundle_again(g, ops, g->sizes[b], deadline);
        for (uint32_t i = 0; i < g->sizes[b]; i++)
            g->sorted[g->first[b] + i].put.result = compat_put_error(g->store, &ops[i]);
    }
}

/* Those without a group are ordinary puts; the empty name is the first in the order. */
static size_t singles_run(struct grouped *g, size_t n)
{
    size_t singles = n && !*g->sorted[0].group ? group_end(g->sorted, 0, n) : 0;
    struct compat_put *puts = singles ? malloc(singles * sizeof(*puts)) : NULL;

    for (size_t i = 0; i < singles; i++) {
        g->sorted[i].put.result = COMPAT_INTERNAL;
        if (puts)
            puts[i] = g->sorted[i].put;
    }
    if (puts)
        compat_put_each(g->client, g->store, puts, singles, g->meta, g->flags);
    for (size_t i = 0; puts && i < singles; i++)
        g->sorted[i].put.result = puts[i].result;
    free(puts);
    return singles;
}

static bool grouped_init(struct grouped *g, const struct compat_put *puts, const char *const *groups, size_t n)
{
    g->sorted = calloc(n + 1, sizeof(*g->sorted));
    g->ops = calloc(n + 1, sizeof(*g->ops));
    g->sizes = calloc(n + 1, sizeof(*g->sizes));
    g->first = calloc(n + 1, sizeof(*g->first));
    if (!g->sorted || !g->ops || !g->sizes || !g->first)
        return false;
    for (size_t i = 0; i < n; i++)
        g->sorted[i] = (struct sorted){puts[i], groups[i], i};
    qsort(g->sorted, n, sizeof(*g->sorted), by_group);
    return true;
}

static void grouped_fini(struct grouped *g)
{
    free(g->sorted);
    free(g->ops);
    free(g->sizes);
    free(g->first);
}

void compat_put_groups(struct compat_client *client, struct mc_store *store, struct compat_put *puts, size_t n,
    const char *const *groups, const struct mc_object_meta *meta, unsigned flags)
{
    struct grouped g = {.client = client, .store = store, .meta = meta, .flags = flags};
    bool memory = grouped_init(&g, puts, groups, n);

    if (memory) {
        for (size_t at = singles_run(&g, n), end; at < n; at = end) {
            end = group_end(g.sorted, at, n);
            bundle_add(&g, at, end);
        }
        bundles_run(&g);
    }
    for (size_t i = 0; i < n; i++)
        puts[memory ? g.sorted[i].of : i].result = memory ? g.sorted[i].put.result : COMPAT_INTERNAL;
    grouped_fini(&g);
}
