/* one_pool.c - see one_pool.h. */
#include "replay/one_pool.h"

#include <stdlib.h>

#include "base/idmap.h"
#include "store/evict/idpool.h"

enum { PROGRESS_EVERY = 256 };

/* When each use of a block is followed by the next one of the same block. */
struct future {
    uint64_t *next;
    uint64_t count, cap;
};

static enum mc_status future_grow(struct future *future, uint32_t more)
{
    uint64_t cap = future->cap ? future->cap : 1024;

    while (cap < future->count + more)
        cap *= 2;
    if (cap == future->cap)
        return MC_OK;
    uint64_t *next = realloc(future->next, cap * sizeof(*next));
    if (!next)
        return MC_ENOMEM;
    future->next = next;
    future->cap = cap;
    return MC_OK;
}

static enum mc_status future_add(struct future *future, struct idmap *last, const struct trace_request *request)
{
    if (future_grow(future, request->id_count) != MC_OK)
        return MC_ENOMEM;
    for (uint32_t i = 0; i < request->id_count; i++) {
        uint64_t before = idmap_find(last, request->ids[i]);

        future->next[future->count] = OPT_NEVER;
        if (before != IDMAP_NONE)
            future->next[before] = future->count;
        if (idmap_set(last, request->ids[i], future->count) != MC_OK)
            return MC_ENOMEM;
        future->count++;
    }
    return MC_OK;
}

/* A first reading of the whole file. */
static enum mc_status future_read(const struct trace_options *options, struct future *future)
{
    struct trace_options quiet = *options;
    struct trace_request request;
    struct idmap last = {0};
    struct trace *trace;
    enum mc_status status;

    quiet.bad = NULL;
    quiet.strict = false;
    status = trace_open(&quiet, &trace);
    if (status != MC_OK)
        return status;
    if (!trace_seekable(trace)) {
        trace_close(trace);
        return MC_ENOSUP;
    }
    while ((status = trace_next(trace, &request)) == MC_OK)
        if ((status = future_add(future, &last, &request)) != MC_OK)
            break;
    idmap_fini(&last);
    trace_close(trace);
    return status == MC_ENOENT ? MC_OK : status;
}

/* `curve` may be NULL. */
static enum mc_status run(const struct trace_options *options, struct trace *trace, struct idpool *pool,
    struct curve *curve, replay_progress_fn *progress, void *arg, struct one_pool_result *out)
{
    struct trace_request request;
    enum mc_status status;

    while ((status = trace_next(trace, &request)) == MC_OK) {
        struct evict_run prompt = {request.ids, request.id_count, EVICT_NO_ID};
        uint32_t hit = idpool_prefix(pool, request.ids, request.id_count),
                 most = (request.input_tokens - 1) / options->block_tokens;

        out->requests++;
        out->hit_blocks += hit;
        out->prompt_tokens += request.input_tokens;
        out->hit_tokens += (uint64_t)(hit < most ? hit : most) * options->block_tokens;
        if ((status = idpool_use(pool, &prompt, out->blocks)) != MC_OK)
            return status;
        if (curve && (status = curve_ask(curve, &prompt, hit)) != MC_OK)
            return status;
        if (curve && idpool_count(pool) == idpool_capacity(pool) &&
            (status = curve_full(curve, idpool_count(pool))) != MC_OK)
            return status;
        out->blocks += request.id_count;
        if (progress && out->requests % PROGRESS_EVERY == 0)
            progress(arg, trace_progress(trace));
    }
    return status == MC_ENOENT ? MC_OK : status;
}

enum mc_status one_pool_run(const struct trace_options *options, const struct eviction *eviction, uint32_t blocks,
    replay_progress_fn *progress, void *arg, struct one_pool_result *out)
{
    struct future future = {0};
    struct trace *trace = NULL;
    struct idpool *pool = NULL;
    struct curve *curve = NULL;
    enum mc_status status;

    *out = (struct one_pool_result){0};
    if (eviction->clairvoyant && (status = future_read(options, &future)) != MC_OK)
        goto undo;
    if ((status = trace_open(options, &trace)) != MC_OK ||
        (status = idpool_create(eviction->policy, blocks, &pool)) != MC_OK)
        goto undo;
    if (eviction->clairvoyant)
        opt_future(idpool_evict(pool), future.next, future.count);
    else if ((status = curve_create(eviction->policy, &curve)) != MC_OK)
        goto undo;
    status = run(options, trace, pool, curve, progress, arg, out);
    if (curve)
        curve_read(curve, out->hit_rate_at);
    out->evicted = idpool_evicted(pool);
    out->bad_lines = trace_bad_lines(trace);
    out->reordered = trace_reordered(trace);
    out->hit_rate = out->blocks ? (double)out->hit_blocks / (double)out->blocks : 0;
undo:
    curve_destroy(curve);
    idpool_destroy(pool);
    trace_close(trace);
    free(future.next);
    return status;
}
