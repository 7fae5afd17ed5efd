/* main.c - run seeds.
 *
 *   sim                          seeds 1..500 (or MC_SIM_SEEDS)
 *   sim --seeds N [--from S]     N seeds from S
 *   sim --seed S [--trace]       one, with its events
 *   sim --bug NAME ...           with a planted fault; `--expect` turns the verdict round: finding nothing is the failure
 *   sim --same                   every seed twice: the hashes must agree */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sim.h"

enum { EVENTS_MIN = 10000, FAULTS_MIN = 5 };

static const char *const bug_names[BUGS] = {
    [BUG_NONE] = "none",
    [BUG_GENERATION] = "skip-generation",
    [BUG_ACK_EARLY] = "ack-before-commit",
    [BUG_STAMP] = "forget-stamp",
    [BUG_REUSE] = "reuse-early",
    [BUG_TERM] = "keep-term",
    [BUG_LAPSE] = "forget-lapse",
    [BUG_HALF] = "half-a-bundle",
};

struct options {
    uint64_t from, count;
    enum bug bug;
    bool trace, expect, same;
};

static void usage(void)
{
    fprintf(stderr, "usage: sim [--seeds N] [--from S] [--seed S] [--trace] [--same] [--bug NAME [--expect]]\n");
    exit(2);
}

static uint64_t number(const char *text)
{
    char *end;
    uint64_t value = text ? strtoull(text, &end, 0) : 0;

    if (!text || *end || end == text)
        usage();
    return value;
}

static struct options parse(int argc, char **argv)
{
    const char *seeds = getenv("MC_SIM_SEEDS");
    struct options o = {.from = 1, .count = seeds ? number(seeds) : 500};

    for (int i = 1; i < argc; i++) {
        const char *next = i + 1 < argc ? argv[i + 1] : NULL;

        if (!strcmp(argv[i], "--seeds"))
            o.count = number(next), i++;
        else if (!strcmp(argv[i], "--from"))
            o.from = number(next), i++;
        else if (!strcmp(argv[i], "--seed"))
            o.from = number(next), o.count = 1, i++;
        else if (!strcmp(argv[i], "--trace"))
            o.trace = true;
        else if (!strcmp(argv[i], "--same"))
            o.same = true;
        else if (!strcmp(argv[i], "--expect"))
            o.expect = true;
        else if (!strcmp(argv[i], "--bug")) {
            for (o.bug = BUG_NONE; next && o.bug < BUGS && strcmp(bug_names[o.bug], next) != 0;)
                o.bug++;
            if (!next || o.bug == BUGS)
                usage();
            i++;
        } else
            usage();
    }
    return o;
}

struct verdict {
    bool ok;
    uint64_t hash, events, faults, ops, hits, near, flips, bundles, looks;
    char failure[256];
};

static struct verdict run(uint64_t seed, enum bug bug, bool trace)
{
    struct world *world = malloc(sizeof(*world));
    struct verdict v;

    if (!world)
        abort();
    world_create(world, seed, bug, trace);
    while (world->failures == 0 && (world->events < EVENTS_MIN || world->faults < FAULTS_MIN))
        world_step(world);
    if (world->failures == 0)
        checks_end(world);
    v = (struct verdict){world->failures == 0, world->hash, world->events, world->faults, world->ops, world->hits,
        world->near, world->flips, world->bundles, world->looks, ""};
    memcpy(v.failure, world->failure, sizeof(v.failure));
    world_destroy(world);
    free(world);
    return v;
}

int main(int argc, char **argv)
{
    struct options o = parse(argc, argv);
    struct verdict v = {0};
    uint64_t events = 0, faults = 0, ops = 0, hits = 0, near = 0, bundles = 0, looks = 0, failed = 0;
    clock_t start = clock();

    for (uint64_t seed = o.from; seed < o.from + o.count; seed++) {
        v = run(seed, o.bug, o.trace);
        events += v.events;
        faults += v.faults;
        ops += v.ops;
        hits += v.hits;
        near += v.near;
        bundles += v.bundles;
        looks += v.looks;
        if (o.same && v.ok) {
            struct verdict again = run(seed, o.bug, false);

            if (again.hash != v.hash || again.events != v.events) {
                v.ok = false;
                snprintf(v.failure, sizeof(v.failure), "another run of the seed went another way");
            }
        }
        if (!v.ok) {
            printf("seed %llu: %s\n", (unsigned long long)seed, v.failure);
            printf("  alone: sim --seed %llu --trace%s%s\n", (unsigned long long)seed, o.bug ? " --bug " : "",
                o.bug ? bug_names[o.bug] : "");
            failed++;
            if (o.expect || failed == 20)
                break;
        }
    }
    printf("%llu seeds, %llu events, %llu faults, %llu operations, %llu hits, %llu of them near, %llu bundles, %llu "
           "looks at "
           "them, %.1f s, last hash %016llx, bug %s: %llu failed\n",
        (unsigned long long)o.count, (unsigned long long)events, (unsigned long long)faults, (unsigned long long)ops,
        (unsigned long long)hits, (unsigned long long)near, (unsigned long long)bundles, (unsigned long long)looks,
        (double)(clock() - start) / CLOCKS_PER_SEC, (unsigned long long)v.hash, bug_names[o.bug],
        (unsigned long long)failed);
    return o.expect ? failed == 0 : failed != 0;
}
