/* bench_index.c - mooncake bench index: the master's prefix index against the prompts of a trace.
 *
 * Every prompt of the trace is stored at one of --instances in turn, as workers would report it, into the live index
 * (store/index/table_core.h); then the longest prefix of every prompt is asked for, as the master does for the Conductor
 * (store/index/prefix_core.h), with how far each instance leads. Beside it, in the same run, a bare loop: the same ids looked up one
 * after the other in a plain hash table, which says nothing about instances. Figures are the best of --rounds.
 *
 * Then a part of what was stored is taken out again, and --queries prompts are asked for whose answers are compared with a search
 * through a set per instance, block by block: prompts of the trace, and such with holes, strangers, blocks at another place, blocks far
 * apart in common, one block many times, and two prompts grown together. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "cli/bench.h"
#include "replay/directory.h"
#include "base/idmap.h"
#include "replay/trace.h"

enum { STRANGER_BITS = 62, TRACE_BLOCK_TOKENS = 512, KINDS = 7 };

/* The prompts of the trace, one after the other. */
struct prompts {
    uint64_t *ids;
    size_t count, cap;
    size_t *ends; /* of each prompt, in ids */
    size_t prompts, prompts_cap;
    uint32_t longest;
};

/* What is stored: block `id` at an instance, in the order of the trace, each once. */
struct stored {
    uint64_t id;
    uint16_t owner;
};

struct index_bench {
    const struct cli *cli;
    uint32_t instances;
    struct prompts prompts;
    struct stored *stored;
    size_t stored_count;
    struct idmap held[DIRECTORY_OWNERS_MAX]; /* the oracle: what each instance has */
    struct idmap bare;
    struct directory index;
    double find_per_s, find_p99_us, store_blocks_per_s, bare_loop_find_per_s;
    uint64_t found_blocks, mismatches;
    volatile uint64_t bare_sum; /* of the bare loop: a compiler may not leave it out */
};

/* ---- the trace ---- */

static enum mc_status grow(void **array, size_t *cap, size_t need, size_t size)
{
    size_t more = *cap ? *cap : 1024;

    while (more < need)
        more *= 2;
    if (more == *cap)
        return MC_OK;
    void *bigger = realloc(*array, more * size);
    if (!bigger)
        return MC_ENOMEM;
    *array = bigger;
    *cap = more;
    return MC_OK;
}

static enum mc_status prompts_add(struct prompts *p, const struct trace_request *request)
{
    if (grow((void **)&p->ids, &p->cap, p->count + request->id_count, sizeof(*p->ids)) != MC_OK ||
        grow((void **)&p->ends, &p->prompts_cap, p->prompts + 1, sizeof(*p->ends)) != MC_OK)
        return MC_ENOMEM;
    memcpy(p->ids + p->count, request->ids, request->id_count * sizeof(*p->ids));
    p->count += request->id_count;
    p->ends[p->prompts++] = p->count;
    p->longest = request->id_count > p->longest ? request->id_count : p->longest;
    return MC_OK;
}

static enum mc_status prompts_read(struct index_bench *b)
{
    struct trace_options options = {
        .path = b->cli->set->trace, .block_tokens = TRACE_BLOCK_TOKENS, .strict = b->cli->set->strict};
    struct trace_request request;
    struct trace *trace;
    enum mc_status status = trace_open(&options, &trace);

    if (status != MC_OK)
        return status;
    while ((status = trace_next(trace, &request)) == MC_OK)
        if ((status = prompts_add(&b->prompts, &request)) != MC_OK)
            break;
    trace_close(trace);
    return status == MC_ENOENT ? MC_OK : status;
}

static const uint64_t *prompt_at(const struct prompts *p, size_t number, uint32_t *count)
{
    size_t begin = number ? p->ends[number - 1] : 0;

    *count = (uint32_t)(p->ends[number] - begin);
    return p->ids + begin;
}

/* What each instance reports as new, and the plain table of the bare loop. */
static enum mc_status plan_stores(struct index_bench *b)
{
    b->stored = malloc((b->prompts.count ? b->prompts.count : 1) * sizeof(*b->stored));
    if (!b->stored)
        return MC_ENOMEM;
    for (size_t i = 0; i < b->prompts.prompts; i++) {
        uint16_t owner = (uint16_t)(i % b->instances);
        uint32_t count;
        const uint64_t *ids = prompt_at(&b->prompts, i, &count);

        for (uint32_t j = 0; j < count; j++) {
            if (idmap_find(&b->held[owner], ids[j]) != IDMAP_NONE)
                continue;
            if (idmap_set(&b->held[owner], ids[j], 1) != MC_OK || idmap_set(&b->bare, ids[j], i) != MC_OK)
                return MC_ENOMEM;
            b->stored[b->stored_count++] = (struct stored){ids[j], owner};
        }
    }
    return MC_OK;
}

/* ---- speed ---- */

static double per_second(double count, uint64_t start)
{
    uint64_t ns = now_ns() - start;

    return ns ? count * NS_PER_S / (double)ns : 0;
}

static void keep_best(double *best, double value)
{
    if (value > *best)
        *best = value;
}

static enum mc_status round_store(struct index_bench *b)
{
    directory_fini(&b->index);
    if (directory_init(&b->index, b->stored_count + 1) != MC_OK ||
        directory_reserve(&b->index, 2 * b->prompts.longest) != MC_OK)
        return MC_ENOMEM;
    uint64_t start = now_ns();
    for (size_t i = 0; i < b->stored_count; i++)
        if (directory_add(&b->index, b->stored[i].owner, b->stored[i].id) != MC_OK)
            return MC_ENOMEM;
    keep_best(&b->store_blocks_per_s, per_second((double)b->stored_count, start));
    return MC_OK;
}

static void round_find(struct index_bench *b)
{
    uint64_t start = now_ns();

    b->found_blocks = 0;
    for (size_t i = 0; i < b->prompts.prompts; i++) {
        uint32_t count;
        const uint64_t *ids = prompt_at(&b->prompts, i, &count);

        b->found_blocks += directory_prefix(&b->index, ids, count);
    }
    keep_best(&b->find_per_s, per_second((double)b->prompts.prompts, start));
}

/* Ends where the find ends. */
static void round_bare(struct index_bench *b)
{
    uint64_t start = now_ns();

    for (size_t i = 0; i < b->prompts.prompts; i++) {
        uint64_t mine = 0, value;
        uint32_t count;
        const uint64_t *ids = prompt_at(&b->prompts, i, &count);

        for (uint32_t j = 0; j < count && (value = idmap_find(&b->bare, ids[j])) != IDMAP_NONE; j++)
            mine += value;
        b->bare_sum += mine;
    }
    keep_best(&b->bare_loop_find_per_s, per_second((double)b->prompts.prompts, start));
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

/* Apart from the speed, since reading the clock costs as much as some look-ups. */
static enum mc_status round_p99(struct index_bench *b)
{
    size_t n = b->prompts.prompts;
    uint32_t *took = malloc((n ? n : 1) * sizeof(*took));

    if (!took)
        return MC_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        uint32_t count;
        const uint64_t *ids = prompt_at(&b->prompts, i, &count);
        uint64_t start = now_ns();

        (void)directory_prefix(&b->index, ids, count);
        took[i] = (uint32_t)(now_ns() - start);
    }
    qsort(took, n, sizeof(*took), by_value);
    double p99 = n ? took[n * 99 / 100] / 1e3 : 0;
    if (b->find_p99_us == 0 || p99 < b->find_p99_us)
        b->find_p99_us = p99;
    free(took);
    return MC_OK;
}

/* ---- exactness ---- */

/* One in five copies goes, from any place of any prompt: from now on there are holes. */
static void take_some_out(struct index_bench *b, struct rng *rng)
{
    for (size_t i = 0; i < b->stored_count; i++) {
        if (!rng_chance(rng, 0.2))
            continue;
        directory_remove(&b->index, b->stored[i].owner, b->stored[i].id);
        idmap_del(&b->held[b->stored[i].owner], b->stored[i].id);
    }
}

static uint64_t stranger(struct rng *rng)
{
    return rng_u64(rng) | UINT64_C(1) << STRANGER_BITS;
}

/* A prompt into `out` (2 x the longest): one of the trace, and what `kind` makes of it. */
static uint32_t query_of(const struct index_bench *b, struct rng *rng, uint32_t kind, uint64_t *out)
{
    uint32_t count, more;
    const uint64_t *ids = prompt_at(&b->prompts, rng_below(rng, b->prompts.prompts), &count);

    if (count == 0)
        return 0;
    memcpy(out, ids, count * sizeof(*out));
    uint32_t at = (uint32_t)rng_below(rng, count);
    switch (kind) {
    case 1: return at + 1;                  /* the beginning of one */
    case 2: out[at] = stranger(rng); break; /* a block nobody has, the ones behind it known */
    case 3:                                 /* blocks 0, 64, 128 ... in common, strangers between */
        for (uint32_t i = 0; i < count; i++)
            out[i] = i % 64 == 0 ? ids[i] : stranger(rng);
        break;
    case 4: /* known blocks, one of them at a place where it never stood */ out[at] = ids[rng_below(rng, count)]; break;
    case 5: /* one block many times */
        for (uint32_t i = 0; i < count; i++)
            out[i] = ids[at];
        break;
    case 6: /* another prompt behind the beginning of this one */
        ids = prompt_at(&b->prompts, rng_below(rng, b->prompts.prompts), &more);
        memcpy(out + at, ids, more * sizeof(*out));
        return at + more;
    default: break; /* as it is */
    }
    return count;
}

/* The answers, block by block through what each instance has. */
static bool is_right(struct index_bench *b, const uint64_t *ids, uint32_t count)
{
    uint32_t blocks = directory_prefix(&b->index, ids, count), best = 0;
    bool right = true;

    for (bool any = true; any && best < count; best += any) {
        any = false;
        for (uint32_t n = 0; n < b->instances && !any; n++)
            any = idmap_find(&b->held[n], ids[best]) != IDMAP_NONE;
    }
    for (uint32_t n = 0; n < b->instances; n++) {
        uint32_t lead = 0;

        while (lead < count && idmap_find(&b->held[n], ids[lead]) != IDMAP_NONE)
            lead++;
        right = right && prefix_lead(&b->index.leads, (uint16_t)n) == lead;
    }
    return right && blocks == best;
}

static enum mc_status compare(struct index_bench *b)
{
    uint64_t *ids = malloc((b->prompts.longest ? 2 * (size_t)b->prompts.longest : 1) * sizeof(*ids));
    struct rng rng;

    if (!ids)
        return MC_ENOMEM;
    rng_seed(&rng, (uint64_t)b->cli->set->seed + 1);
    take_some_out(b, &rng);
    for (int64_t q = 0; q < b->cli->set->queries && b->prompts.prompts > 0; q++) {
        uint32_t count = query_of(b, &rng, (uint32_t)(q % KINDS), ids);

        b->mismatches += !is_right(b, ids, count);
    }
    free(ids);
    return MC_OK;
}

/* ---- the command ---- */

static enum mc_status run(struct index_bench *b)
{
    enum mc_status status = prompts_read(b);

    if (status == MC_OK)
        status = plan_stores(b);
    for (int64_t round = 0; status == MC_OK && round < b->cli->set->rounds; round++) {
        if ((status = round_store(b)) != MC_OK)
            break;
        round_find(b);
        round_bare(b);
        status = round_p99(b);
    }
    return status == MC_OK ? compare(b) : status;
}

static int print(const struct index_bench *b)
{
    const struct settings *set = b->cli->set;

    if (!set->json) {
        printf("%zu prompts of %zu blocks, %zu copies of %" PRIu64 " at %u instances\n", b->prompts.prompts,
            b->prompts.count, b->stored_count, (uint64_t)b->bare.count, b->instances);
        printf("  %.0f finds/s (%.1f M blocks/s), p99 %.1f us, %.2f of a bare loop of look-ups\n", b->find_per_s,
            b->prompts.prompts ? b->find_per_s * (double)b->found_blocks / (double)b->prompts.prompts / 1e6 : 0,
            b->find_p99_us, b->bare_loop_find_per_s > 0 ? b->find_per_s / b->bare_loop_find_per_s : 0);
        printf("  %.1f M stored blocks/s; %" PRIu64 " of %" PRId64 " answers are wrong\n", b->store_blocks_per_s / 1e6,
            b->mismatches, set->queries);
        return CLI_OK;
    }
    json_t *all = json_pack("{s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:I, s:I, s:I}", "find_per_s", b->find_per_s,
        "find_p99_us", b->find_p99_us, "store_blocks_per_s", b->store_blocks_per_s, "bare_loop_find_per_s",
        b->bare_loop_find_per_s, "mismatches", (json_int_t)b->mismatches, "queries", (json_int_t)set->queries,
        "requests", (json_int_t)b->prompts.prompts, "found_blocks", (json_int_t)b->found_blocks, "stored_blocks",
        (json_int_t)b->stored_count, "instances", (json_int_t)b->instances);
    if (!all)
        return cli_fail(b->cli, CLI_FAILED, "out of memory");
    json_dumpf(all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    putchar('\n');
    json_decref(all);
    return CLI_OK;
}

int bench_index(struct cli *cli)
{
    struct index_bench *b = calloc(1, sizeof(*b));
    int code = CLI_FAILED;

    if (!cli->set->trace) {
        free(b);
        return cli_fail(cli, CLI_USAGE, "bench index: give --trace FILE");
    }
    if (!b)
        return cli_fail(cli, CLI_FAILED, "out of memory");
    b->cli = cli;
    b->instances = (uint32_t)cli->set->instances;
    enum mc_status status = run(b);
    if (status == MC_OK)
        code = print(b);
    else
        cli_fail(
            cli, CLI_FAILED, "%s: %s", cli->set->trace, status == MC_ESYS ? strerror(errno) : mc_status_str(status));
    if (code == CLI_OK && b->mismatches > 0)
        code = CLI_FAILED;
    for (uint32_t n = 0; n < DIRECTORY_OWNERS_MAX; n++)
        idmap_fini(&b->held[n]);
    idmap_fini(&b->bare);
    directory_fini(&b->index);
    free(b->prompts.ids);
    free(b->prompts.ends);
    free(b->stored);
    free(b);
    return code;
}
