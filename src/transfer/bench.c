/* bench.c - see bench.h.
 *
 * Each thread walks through a window of WINDOW bytes of the peer's memory and one of its own, both touched before, so that small
 * sizes do not run out of the cache only. Latencies go into a histogram of 1 % steps: no memory per sample. */
#include "transfer/bench.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "transfer/te.h"

#define WINDOW      (64ull << 20)
#define BUCKETS     2048 /* 1 us * 1.01^i: up to 12 minutes */
#define DEADLINE_MS 30000
#define THREADS_MAX 64
#define BATCH_MAX   65536
#define FIRST_READS                                                                                                    \
    16 /* of so many batches one is read by its consumer: often enough, and seldom enough to leave the caches alone */

/* What the peer tells when it stands. */
struct greeting {
    char address[128];
    struct mc_region_key key;
};

struct worker {
    const struct te_bench_opts *opts;
    struct mc_te *te;
    struct mc_peer *peer;
    struct mc_region_key key;
    uint8_t *local;
    uint64_t window, base; /* in the peer's region */
    uint64_t until_ns;
    uint64_t batches, first_reads, first_read_ns;
    uint32_t histogram[BUCKETS];
    enum mc_status status;
    pthread_t thread;
};

/* ---- windows ---- */

static uint64_t window_of(const struct te_bench_opts *opts)
{
    uint64_t need = opts->size * opts->batch;

    return need > WINDOW ? need : WINDOW / need * need;
}

static uint64_t word_of(uint64_t index)
{
    uint64_t state = index;

    return rng_splitmix(&state);
}

static void fill(uint8_t *at, uint64_t len, uint64_t first)
{
    for (uint64_t i = 0; i < len / 8; i++) {
        uint64_t word = word_of(first + i);

        memcpy(at + i * 8, &word, 8);
    }
}

/* Bytes at `at` against the pattern from byte `off` on. */
static bool right(const uint8_t *at, uint64_t len, uint64_t off)
{
    for (uint64_t i = 0; i < len; i++) {
        uint64_t word = word_of((off + i) / 8);

        if (at[i] != ((const uint8_t *)&word)[(off + i) % 8])
            return false;
    }
    return true;
}

static uint8_t *map_touched(uint64_t len)
{
    uint8_t *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    return at == MAP_FAILED ? NULL : at;
}

static enum mc_status window_make(
    const struct te_bench_opts *opts, struct mc_te *te, uint64_t len, uint8_t **addr, struct mc_region_key *key)
{
    void *at = NULL;
    enum mc_status status;

    if (!opts->plain) {
        status = mc_te_alloc(te, len, MC_REGION_READ | MC_REGION_WRITE, &at, key);
    } else {
        at = map_touched(len);
        status = at ? mc_te_register(te, at, len, MC_REGION_READ | MC_REGION_WRITE, key) : MC_ENOMEM;
    }
    *addr = at;
    return status;
}

/* ---- the peer ---- */

static int peer_main(const struct te_bench_opts *opts, int out, int in)
{
    struct mc_te_opts te_opts = {.size = sizeof(te_opts), .transport = opts->transport, .links = opts->links};
    uint64_t len = window_of(opts) * opts->threads;
    struct greeting greeting = {{0}, {{0}}};
    struct mc_te *te;
    uint8_t *addr;
    char byte;

    if (mc_te_create(&te_opts, &te) != MC_OK || window_make(opts, te, len, &addr, &greeting.key) != MC_OK)
        return 1;
    fill(addr, len, 0);
    snprintf(greeting.address, sizeof(greeting.address), "%s", mc_te_address(te));
    if (write(out, &greeting, sizeof(greeting)) != (ssize_t)sizeof(greeting))
        return 1;
    while (read(in, &byte, 1) > 0)
        ;
    mc_te_destroy(te);
    return 0;
}

/* ---- workers ---- */

static void observe(struct worker *w, uint64_t took_ns)
{
    double us = (double)took_ns / 1e3;
    int bucket = us <= 1 ? 0 : (int)(log(us) / log(1.01));

    w->histogram[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
    w->batches++;
}

/* Op i of a batch goes to the place of op n-1-i: side by side, but never in the same order at both ends, so nothing is merged. */
static uint64_t batch_fill(struct worker *w, struct mc_op *ops, uint64_t at)
{
    const struct te_bench_opts *o = w->opts;

    for (uint32_t i = 0; i < o->batch; i++)
        ops[i] = (struct mc_op){.opcode = o->opcode,
            .local = w->local + at + (o->batch - 1 - i) * o->size,
            .len = o->size,
            .region = w->key,
            .offset = w->base + at + i * o->size};
    return at + o->size * o->batch >= w->window ? 0 : at + o->size * o->batch;
}

/* What was written is read back to where it came from, after that was cleared: so both directions end in the same comparison, and the
 * pattern, which moves with each write, is taken from what was sent. */
static enum mc_status write_verify(struct worker *w, struct mc_op *ops)
{
    const struct te_bench_opts *o = w->opts;
    uint64_t len = o->size * o->batch;
    uint8_t *start = ops[o->batch - 1].local, *sent = malloc(len);
    enum mc_status status = MC_ENOMEM;

    if (sent) {
        memcpy(sent, start, len);
        memset(start, 0, len);
        for (uint32_t i = 0; i < o->batch; i++)
            ops[i].opcode = MC_READ;
        status = mc_transfer_sync(w->peer, ops, o->batch, DEADLINE_MS);
        if (status == MC_OK && memcmp(sent, start, len) != 0)
            status = MC_ECORRUPT;
    }
    free(sent);
    return status;
}

static enum mc_status batch_verify(struct worker *w, struct mc_op *ops)
{
    if (w->opts->opcode == MC_WRITE)
        return write_verify(w, ops);
    for (uint32_t i = 0; i < w->opts->batch; i++)
        if (!right(ops[i].local, ops[i].len, ops[i].offset))
            return MC_ECORRUPT;
    return MC_OK;
}

/* What a copy costs that left the bytes where their consumer has to fetch them from. */
static void first_read(struct worker *w, const uint8_t *at)
{
    uint64_t len = w->opts->size * w->opts->batch, start = now_ns();
    volatile uint64_t sink;
    uint64_t sum = 0;

    for (uint64_t i = 0; i + 8 <= len; i += 8) {
        uint64_t word;

        memcpy(&word, at + i, 8);
        sum += word;
    }
    sink = sum;
    (void)sink;
    w->first_read_ns += now_ns() - start;
    w->first_reads++;
}

static void *worker_main(void *arg)
{
    struct worker *w = arg;
    struct mc_op *ops = calloc(w->opts->batch, sizeof(*ops));
    uint64_t at = 0, now = now_ns();

    w->status = ops ? MC_OK : MC_ENOMEM;
    while (
        w->status == MC_OK && (w->batches == 0 || now < w->until_ns)) { /* one at least: no figure is no measurement */
        uint64_t start;

        at = batch_fill(w, ops, at);
        start = now_ns();
        w->status = mc_transfer_sync(w->peer, ops, w->opts->batch, DEADLINE_MS);
        now = now_ns();
        observe(w, now - start);
        if (w->status == MC_OK && w->opts->opcode == MC_READ && w->batches % FIRST_READS == 0)
            first_read(w, ops[w->opts->batch - 1].local);
        if (w->status == MC_OK && w->opts->verify)
            w->status = batch_verify(w, ops);
    }
    free(ops);
    return NULL;
}

/* ---- figures ---- */

static double quantile(const struct worker *workers, uint32_t count, uint64_t total, double q)
{
    uint64_t want = (uint64_t)((double)total * q), seen = 0;

    for (int b = 0; b < BUCKETS; b++) {
        for (uint32_t i = 0; i < count; i++)
            seen += workers[i].histogram[b];
        if (seen > want)
            return pow(1.01, b);
    }
    return 0;
}

static double cpu_of(int who)
{
    struct rusage usage;

    getrusage(who, &usage);
    return (double)usage.ru_utime.tv_sec + (double)usage.ru_stime.tv_sec +
           ((double)usage.ru_utime.tv_usec + (double)usage.ru_stime.tv_usec) / 1e6;
}

static double cpu_of_pid(pid_t pid)
{
    clockid_t clock;
    struct timespec ts = {0};

    if (clock_getcpuclockid(pid, &clock) == 0)
        clock_gettime(clock, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static double memcpy_rate(const struct te_bench_opts *opts)
{
    uint8_t *from = map_touched(WINDOW), *to = map_touched(WINDOW);
    uint64_t size = opts->size < WINDOW ? opts->size : WINDOW, start = now_ns(), bytes = 0, took;

    for (uint64_t at = 0; from && to && now_ns() - start < NS_PER_S / 5; bytes += size) {
        memcpy(to + at, from + at, size);
        at = at + 2 * size <= WINDOW ? at + size : 0;
    }
    took = now_ns() - start;
    if (from)
        munmap(from, WINDOW);
    if (to)
        munmap(to, WINDOW);
    return (double)bytes / (double)took;
}

static void figures(const struct te_bench_opts *opts, const struct worker *workers, double seconds, double cpu,
    struct te_bench_result *out)
{
    uint64_t batches = 0, first_reads = 0, first_read_ns = 0;
    double bytes;

    for (uint32_t i = 0; i < opts->threads; i++) {
        batches += workers[i].batches;
        first_reads += workers[i].first_reads;
        first_read_ns += workers[i].first_read_ns;
    }
    bytes = (double)batches * opts->batch * (double)opts->size;
    out->gbytes_per_s = bytes / seconds / 1e9;
    out->ops_per_s = (double)batches * opts->batch / seconds;
    out->p50_us = quantile(workers, opts->threads, batches, 0.50);
    out->p99_us = quantile(workers, opts->threads, batches, 0.99);
    out->cpu_s_per_gb = cpu / (bytes / 1e9);
    out->first_read_us = first_reads ? (double)first_read_ns / (double)first_reads / 1e3 : 0;
    out->verified = opts->verify;
}

/* ---- the run ---- */

static enum mc_status measure(const struct te_bench_opts *opts, struct mc_te *te, struct mc_peer *peer,
    const struct greeting *greeting, pid_t pid, struct te_bench_result *out)
{
    uint64_t window = window_of(opts);
    struct worker *workers = calloc(opts->threads, sizeof(*workers));
    double cpu = cpu_of(RUSAGE_SELF) + cpu_of_pid(pid);
    struct mc_region_key ours;
    uint64_t start = 0;
    uint32_t begun = 0;
    uint8_t *local;
    enum mc_status status = workers ? window_make(opts, te, window * opts->threads, &local, &ours) : MC_ENOMEM;

    if (status == MC_OK)
        fill(local, window * opts->threads, 0);
    start = now_ns();
    for (; status == MC_OK && begun < opts->threads; begun++) {
        struct worker *w = &workers[begun];

        *w = (struct worker){.opts = opts,
            .te = te,
            .peer = peer,
            .key = greeting->key,
            .window = window,
            .base = begun * window,
            .local = local + begun * window,
            .until_ns = start + (uint64_t)(opts->seconds * (double)NS_PER_S)};
        if (pthread_create(&w->thread, NULL, worker_main, w) != 0) {
            status = MC_ENOMEM;
            break;
        }
    }
    for (uint32_t i = 0; i < begun; i++) {
        pthread_join(workers[i].thread, NULL);
        if (status == MC_OK)
            status = workers[i].status;
    }
    out->transport = mc_peer_path(peer, &greeting->key);
    if (status == MC_OK)
        figures(opts, workers, (double)(now_ns() - start) / 1e9, cpu_of(RUSAGE_SELF) + cpu_of_pid(pid) - cpu, out);
    free(workers);
    return status;
}

static enum mc_status run_against(
    const struct te_bench_opts *opts, const struct greeting *greeting, pid_t pid, struct te_bench_result *out)
{
    struct mc_te_opts te_opts = {
        .size = sizeof(te_opts), .transport = opts->transport, .links = opts->links, .listen = "none"};
    struct mc_peer *peer;
    struct mc_te *te;
    enum mc_status status = mc_te_create(&te_opts, &te);

    if (status != MC_OK)
        return status;
    status = mc_peer_open(te, greeting->address, NULL, &peer);
    if (status == MC_OK) {
        status = measure(opts, te, peer, greeting, pid, out);
        mc_peer_close(peer);
    }
    mc_te_destroy(te);
    return status;
}

static bool opts_check(const struct te_bench_opts *opts)
{
    if (opts->size >= 1 && opts->size <= 1ull << 30 && opts->batch >= 1 && opts->batch <= BATCH_MAX &&
        opts->threads >= 1 && opts->threads <= THREADS_MAX && opts->seconds > 0 && opts->seconds <= 3600 &&
        opts->size * opts->batch * opts->threads <= 16ull << 30)
        return true;
    log_error("bench: size 1 to 1G, batch 1 to %d, threads 1 to %d, seconds up to 3600, all together at most 16 GiB",
        BATCH_MAX, THREADS_MAX);
    return false;
}

enum mc_status te_bench_run(const struct te_bench_opts *opts, struct te_bench_result *out)
{
    struct greeting greeting;
    int up[2], down[2];
    enum mc_status status;
    pid_t pid;

    *out = (struct te_bench_result){0};
    if (!opts_check(opts))
        return MC_EINVAL;
    if (pipe(up) != 0)
        return MC_ESYS;
    if (pipe(down) != 0) {
        close(up[0]);
        close(up[1]);
        return MC_ESYS;
    }
    pid = fork();
    if (pid == 0) {
        close(up[0]);
        close(down[1]);
        _exit(peer_main(opts, up[1], down[0]));
    }
    close(up[1]);
    close(down[0]);
    if (pid < 0 || read(up[0], &greeting, sizeof(greeting)) != (ssize_t)sizeof(greeting)) {
        status = MC_EPEERDOWN;
    } else {
        out->memcpy_gbytes_per_s = memcpy_rate(opts);
        status = run_against(opts, &greeting, pid, out);
    }
    close(up[0]);
    close(down[1]);
    if (pid > 0)
        waitpid(pid, NULL, 0);
    return status;
}
