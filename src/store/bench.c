/* bench.c - see bench.h.
 *
 * Gets walk through objects of together WINDOW bytes, puts make new keys all the time in a node that is full and evicts; both
 * after a warm-up that touches all memory. Latencies go into a histogram of 1 % steps: no memory per sample. */
#include "store/bench.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "mooncake/transfer.h"
#include "store/index/master.h"
#include "store/node/node.h"

#define WINDOW  (64ull << 20)
#define BUCKETS 2048 /* 0.1 us * 1.01^i: up to a minute */

enum { THREADS_MAX = 64, OBJECTS_MAX = 1 << 16, DEADLINE_MS = 30000, NAME_SIZE = 32 };

struct worker {
    const struct store_bench_opts *opts;
    struct mc_store *store;
    uint64_t number, objects; /* of this thread; keys are made from both */
    uint64_t until_ns, calls, failed;
    uint64_t busy_ns; /* inside calls */
    uint32_t histogram[BUCKETS];
    enum mc_status status;
    uint8_t path;
    pthread_t thread;

    struct mc_store_op *ops;
    struct mc_span *spans;
    char (*names)[NAME_SIZE];
    uint8_t *memory; /* batch * size, registered with the client's engine */
};

static void bench_key(struct worker *w, uint32_t slot, uint64_t number, struct mc_key *key)
{
    uint64_t id[2] = {hash_mix(number + 1), hash_mix(~number)};

    if (!w->opts->named) {
        mc_key_block(key, (const uint8_t *)id);
        return;
    }
    int len = snprintf(w->names[slot], NAME_SIZE, "bench-%020llu", (unsigned long long)number);
    mc_key_named(key, w->names[slot], (size_t)len);
}

/* Bytes of object `number`: eight of them say which it is, all through. */
static void bench_fill(uint8_t *dst, uint64_t size, uint64_t number)
{
    for (uint64_t at = 0; at < size; at += 8) {
        uint64_t word = hash_mix(number ^ (at << 20));

        memcpy(dst + at, &word, size - at < 8 ? size - at : 8);
    }
}

static bool bench_filled(const uint8_t *src, uint64_t size, uint64_t number)
{
    for (uint64_t at = 0; at < size; at += 8) {
        uint64_t word = hash_mix(number ^ (at << 20));

        if (memcmp(src + at, &word, size - at < 8 ? size - at : 8) != 0)
            return false;
    }
    return true;
}

/* ---- a thread of the client ---- */

static void make_call(struct worker *w, enum mc_store_opcode opcode, uint64_t first, bool cycle)
{
    for (uint32_t i = 0; i < w->opts->batch; i++) {
        uint64_t number = w->number << 40 | (cycle ? (first + i) % w->objects : first + i);

        w->spans[i] = (struct mc_span){w->memory + i * w->opts->size, w->opts->size};
        w->ops[i] = (struct mc_store_op){.opcode = opcode, .spans = &w->spans[i], .nspans = 1};
        bench_key(w, i, number, &w->ops[i].key);
    }
}

static void count_failed(struct worker *w)
{
    for (uint32_t i = 0; i < w->opts->batch; i++) {
        enum mc_status status = w->ops[i].result.status;

        w->failed += status != MC_OK;
        if (status == MC_OK)
            w->path = w->ops[i].result.path;
        else if (w->status == MC_OK)
            w->status = status;
    }
}

static void put_all(struct worker *w)
{
    for (uint64_t at = 0; at < w->objects && w->status == MC_OK; at += w->opts->batch) {
        make_call(w, MC_PUT, at, true);
        for (uint32_t i = 0; i < w->opts->batch; i++)
            bench_fill(w->spans[i].addr, w->opts->size, w->number << 40 | (at + i) % w->objects);
        w->status = mc_store_sync(w->store, w->ops, w->opts->batch, DEADLINE_MS);
        if (w->status == MC_OK)
            count_failed(w);
    }
}

static void check_bytes(struct worker *w, uint64_t first)
{
    for (uint32_t i = 0; i < w->opts->batch; i++) {
        if (w->ops[i].result.status == MC_OK &&
            !bench_filled(w->spans[i].addr, w->opts->size, w->number << 40 | (first + i) % w->objects))
            w->status = MC_ECORRUPT;
        memset(w->spans[i].addr, 0, w->opts->size);
    }
}

static void record(struct worker *w, uint64_t time_ns)
{
    double steps = log((double)time_ns / 100.0) / log(1.01);
    int bucket = steps < 0 ? 0 : steps >= BUCKETS ? BUCKETS - 1 : (int)steps;

    w->histogram[bucket]++;
    w->calls++;
    w->busy_ns += time_ns;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    uint64_t at = w->opts->opcode == MC_PUT ? w->objects : 0;

    while (now_ns() < w->until_ns && w->status == MC_OK) {
        make_call(w, w->opts->opcode, at, w->opts->opcode != MC_PUT);
        uint64_t start = now_ns();
        w->status = mc_store_sync(w->store, w->ops, w->opts->batch, DEADLINE_MS);
        record(w, now_ns() - start);
        if (w->status == MC_OK)
            count_failed(w);
        if (w->opts->verify && w->opts->opcode == MC_GET)
            check_bytes(w, at);
        at += w->opts->batch;
    }
    return NULL;
}

static enum mc_status worker_init(
    struct worker *w, const struct store_bench_opts *opts, struct mc_store *store, uint32_t number, uint64_t objects)
{
    struct mc_region_key key;
    void *memory;

    *w = (struct worker){.opts = opts, .store = store, .number = number, .objects = objects};
    w->ops = calloc(opts->batch, sizeof(*w->ops));
    w->spans = calloc(opts->batch, sizeof(*w->spans));
    w->names = calloc(opts->batch, sizeof(*w->names));
    if (!w->ops || !w->spans || !w->names)
        return MC_ENOMEM;
    enum mc_status status = mc_te_alloc(mc_store_te(store), opts->size * opts->batch, MC_REGION_READ, &memory, &key);
    if (status == MC_OK)
        w->memory = memory;
    return status;
}

static void worker_fini(struct worker *w)
{
    if (w->memory)
        mc_te_free(mc_store_te(w->store), w->memory);
    free(w->ops);
    free(w->spans);
    free(w->names);
}

/* ---- the second process ---- */

static void serve(const struct store_bench_opts *opts, uint64_t memory, int out)
{
    struct store_master_opts master_opts = {.listen = "127.0.0.1:0", .admin = "none", .state_dir = "none"};
    struct store_master *master;
    struct store_node *node;
    struct store_node_status status;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    log_set_level(LOG_LEVEL_WARN);
    if (store_master_create(&master_opts, &master) != MC_OK || store_master_start(master) != MC_OK)
        _exit(1);
    struct store_node_opts node_opts = {
        .listen = "127.0.0.1:0",
        .master = store_master_address(master),
        .transport = opts->transport,
        .memory = memory,
        .ephemeral = true,
    };
    if (store_node_create(&node_opts, &node) != MC_OK || store_node_start(node) != MC_OK)
        _exit(1);
    do {
        usleep(1000);
        store_node_status(node, &status);
    } while (!status.registered || status.prefaulted < 1);
    dprintf(out, "%s\n", store_master_address(master));
    pause();
    _exit(0);
}

struct peers {
    pid_t pid;
    char master[64];
};

static enum mc_status peers_start(const struct store_bench_opts *opts, uint64_t memory, struct peers *peers)
{
    int out[2];
    ssize_t len;

    if (pipe(out) != 0)
        return MC_ESYS;
    fflush(NULL);
    peers->pid = fork();
    if (peers->pid == 0) {
        close(out[0]);
        serve(opts, memory, out[1]);
    }
    close(out[1]);
    len = peers->pid > 0 ? read(out[0], peers->master, sizeof(peers->master) - 1) : -1;
    close(out[0]);
    if (len <= 1) {
        log_error("bench: master and node did not start");
        return MC_ESYS;
    }
    peers->master[len - 1] = '\0';
    return MC_OK;
}

static void peers_stop(struct peers *peers)
{
    if (peers->pid > 0) {
        kill(peers->pid, SIGKILL);
        waitpid(peers->pid, NULL, 0);
    }
}

/* ---- the run ---- */

static double cpu_of(const struct rusage *usage)
{
    return (double)usage->ru_utime.tv_sec + (double)usage->ru_stime.tv_sec +
           (double)(usage->ru_utime.tv_usec + usage->ru_stime.tv_usec) / 1e6;
}

/* CPU seconds of this process and the other so far; the other's from /proc, as it is not waited for yet. */
static double cpu_now(const struct peers *peers)
{
    struct rusage usage;
    char path[64], text[1024];
    unsigned long user = 0, sys = 0;

    getrusage(RUSAGE_SELF, &usage);
    snprintf(path, sizeof(path), "/proc/%d/stat", peers->pid);
    FILE *file = fopen(path, "r");
    if (file) {
        size_t len = fread(text, 1, sizeof(text) - 1, file);

        text[len] = '\0';
        const char *at = strrchr(text, ')');
        if (!at || sscanf(at + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &sys) != 2)
            user = sys = 0;
        fclose(file);
    }
    return cpu_of(&usage) + (double)(user + sys) / (double)sysconf(_SC_CLK_TCK);
}

static double quantile(const struct worker *workers, uint32_t threads, double q)
{
    uint64_t total = 0, seen = 0;

    for (uint32_t t = 0; t < threads; t++)
        total += workers[t].calls;
    for (int i = 0; i < BUCKETS; i++) {
        for (uint32_t t = 0; t < threads; t++)
            seen += workers[t].histogram[i];
        if (seen > 0 && (double)seen >= q * (double)total)
            return 0.1 * pow(1.01, i + 0.5);
    }
    return 0;
}

static void sum_up(
    const struct store_bench_opts *opts, const struct worker *workers, double cpu, struct store_bench_result *out)
{
    uint64_t calls = 0;
    double bytes_of_op = opts->opcode == MC_EXISTS ? 0 : (double)opts->size;

    *out = (struct store_bench_result){.verified = opts->verify && opts->opcode == MC_GET};
    for (uint32_t t = 0; t < opts->threads; t++) {
        calls += workers[t].calls;
        out->ops_per_s += (double)(workers[t].calls * opts->batch) / ((double)workers[t].busy_ns / 1e9);
        out->failed += workers[t].failed;
        if (opts->opcode == MC_GET)
            out->path = workers[t].path;
    }
    double bytes = (double)(calls * opts->batch) * bytes_of_op;
    out->gbytes_per_s = out->ops_per_s * bytes_of_op / 1e9;
    out->cpu_s_per_gb = bytes > 0 ? cpu / (bytes / 1e9) : 0;
    out->p50_us = quantile(workers, opts->threads, 0.5);
    out->p99_us = quantile(workers, opts->threads, 0.99);
}

static enum mc_status run(const struct store_bench_opts *opts, struct mc_store *store, const struct peers *peers,
    uint64_t objects, struct store_bench_result *out)
{
    struct worker *workers = calloc(opts->threads, sizeof(*workers));
    enum mc_status status = workers ? MC_OK : MC_ENOMEM;
    uint32_t started = 0;

    for (uint32_t t = 0; t < opts->threads && status == MC_OK; t++) {
        status = worker_init(&workers[t], opts, store, t, objects);
        if (status == MC_OK) {
            put_all(&workers[t]);
            status = workers[t].status;
        }
    }
    uint64_t start = now_ns();
    double cpu = cpu_now(peers);
    for (; status == MC_OK && started < opts->threads; started++) {
        workers[started].until_ns = start + (uint64_t)(opts->seconds * 1e9);
        if (pthread_create(&workers[started].thread, NULL, work, &workers[started]) != 0)
            status = MC_ENOMEM;
    }
    for (uint32_t t = 0; t < started; t++)
        pthread_join(workers[t].thread, NULL);
    for (uint32_t t = 0; t < started && status == MC_OK; t++)
        status = workers[t].status;
    if (status == MC_OK)
        sum_up(opts, workers, cpu_now(peers) - cpu, out);
    for (uint32_t t = 0; workers && t < opts->threads; t++)
        worker_fini(&workers[t]);
    free(workers);
    return status;
}

enum mc_status store_bench_run(const struct store_bench_opts *opts, struct store_bench_result *out)
{
    struct peers peers = {0};
    struct mc_store *store = NULL;

    if (opts->size > MC_OBJECT_MAX || opts->size == 0 || opts->batch == 0 || opts->batch > MC_STORE_OPS_MAX ||
        opts->threads == 0 || opts->threads > THREADS_MAX || !(opts->seconds > 0) ||
        (opts->opcode != MC_PUT && opts->opcode != MC_GET && opts->opcode != MC_EXISTS)) {
        log_error("bench: size 1 to 1 GiB, batch 1 to %d, threads 1 to %d, seconds above 0, op put, get or exists",
            MC_STORE_OPS_MAX, THREADS_MAX);
        return MC_EINVAL;
    }
    uint64_t objects = WINDOW / opts->threads / opts->size;
    if (objects > OBJECTS_MAX / opts->threads)
        objects = OBJECTS_MAX / opts->threads;
    if (objects < opts->batch)
        objects = opts->batch;
    uint64_t bytes = objects * opts->threads * (opts->size + 512);
    enum mc_status status = peers_start(opts, bytes * 3 / 2 + (64 << 20), &peers);
    if (status == MC_OK) {
        struct mc_store_opts store_opts = {
            .size = sizeof(store_opts), .master = peers.master, .transport = opts->transport, .connect_ms = 5000};
        status = mc_store_open(&store_opts, &store);
    }
    if (status == MC_OK)
        status = run(opts, store, &peers, objects, out);
    mc_store_close(store);
    peers_stop(&peers);
    return status;
}
