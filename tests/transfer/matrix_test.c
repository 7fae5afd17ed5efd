/* matrix_test.c - deadlines and late writes of raw reads and writes.
 *
 * Goal: {tcp, shm-memfd, shm-vm, fault} x {read, write} x {peer stopped, caller stopped, black hole}: every call returns by its
 * deadline + 50 ms, or 50 ms after it goes on; whatever it said, both ends belong to their users again: refilled at once, not one
 * byte changes for 0.5 s after the stopped one goes on; and then transfers work again. Also: a killed peer is an error within
 * 100 ms, a restarted one works.
 *
 * Method: the peer is a second process, its memory a memfd that we map too, so that we can refill and watch it while its owner is
 * stopped. Transfers of 8 MiB run one after the other; at a random moment the peer (or a TCP relay on the way) is stopped. The first
 * transfer that fails ends the round. Same-host reads need no help of the owner and go on: their rounds end after 400 ms. When it is
 * the caller that is stopped, the second process calls, refills and watches, and says in shared memory how it fares.
 *
 * Writes taken back: the second process writes all the time; while it does, stopped in the middle or not, we withdraw the region,
 * or let its deadline pass. Then the memory is ours: refilled, it does not change, whatever the writer does when it goes on.
 *
 * A busy machine. The bounds are the product's, in time in which it had a processor: what the kernel says its threads waited for one
 * is taken off. Both are printed.
 *
 *     matrix_test [rounds per cell, default 3] [watch ms, default 500] [seed] [lane, default all] [read|write, default both] */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/scratch_test.h"
#include "base/stopwatch_test.h"
#include "harness.h"
#include "transfer/te.h"

#define LEN         (8u << 20)
#define DEADLINE_MS 150
#define SLACK_MS    50
#define KILLED_MS   100
#define AGAIN_MS    2000

struct lane {
    const char *name, *transport, *fault;
    bool memfd, network;
};

static const struct lane lanes[] = {
    {"tcp", "tcp", NULL, false, true},
    {"shm-memfd", "shm-memfd", NULL, true, false},
    {"shm-vm", "shm-vm", NULL, false, false},
    {"fault", "tcp", "seed=3,delay_ms=2,delay=0.2,corrupt=0.01,cut=0.01", false, true},
};

enum mishap { PEER_STOPPED, BLACK_HOLE };
static const char *const event_names[] = {"peer stopped", "black hole"};

static unsigned watch_ms = 500;
static char run_dir[SCRATCH_PATH];

/* ---- the peer ---- */

/* Behind the peer's memory. Written by the caller, read by us; and the other way round where it says so. */
struct fares {
    _Atomic uint32_t in_call, calls, ok, late_writes;
    _Atomic uint32_t patient; /* set by the judge: calls have AGAIN_MS, enough for a slow build over a bad line */
    _Atomic uint32_t round;   /* set by the judge: a writer that is held goes on, with this key */
    struct mc_region_key key;
    _Atomic uint32_t hold, held; /* set by the judge: no further call; the writer: so it is, or the region was gone */
    _Atomic int status;          /* of its last call */
};
#define FARES_LEN 4096

static struct fares *fares_of(uint8_t *memory)
{
    return (struct fares *)(void *)(memory + LEN);
}

/* An engine and memory of a memfd, so that others can refill and watch it: allocated by the engine, or ("plain") only registered. */
static struct mc_te *engine_with_memory(
    const char *transport, bool memfd, const char *dir, const char *listen, struct te_memory *memory)
{
    struct mc_te_opts opts = {.size = sizeof(opts), .transport = transport, .run_dir = dir, .listen = listen};
    enum { FLAGS = MC_REGION_READ | MC_REGION_WRITE, ALL = LEN + FARES_LEN };
    struct mc_te *te;

    if (mc_te_create(&opts, &te) != MC_OK)
        return NULL;
    if (memfd)
        return te_alloc(te, ALL, FLAGS, memory) == MC_OK ? te : NULL;
    *memory = (struct te_memory){.fd = memfd_create("peer", MFD_CLOEXEC)};
    if (memory->fd < 0 || ftruncate(memory->fd, ALL) != 0)
        return NULL;
    memory->addr = mmap(NULL, ALL, PROT_READ | PROT_WRITE, MAP_SHARED, memory->fd, 0);
    return mc_te_register(te, memory->addr, LEN, FLAGS, &memory->key) == MC_OK ? te : NULL;
}

static int peer_run(int argc, char **argv)
{
    struct te_memory memory;
    char hex[sizeof(memory.key) * 2 + 1];
    struct mc_te *te;

    log_set_level(LOG_LEVEL_ERROR);
    te = engine_with_memory(argv[0], strcmp(argv[1], "memfd") == 0, argv[2], argc > 3 ? argv[3] : NULL, &memory);
    if (!te)
        return 1;
    hex_encode(hex, &memory.key, sizeof(memory.key));
    harness_far_ready("%s %d %s", mc_te_address(te), memory.fd, hex);
    harness_far_wait();
    mc_te_destroy(te);
    return 0;
}

/* ---- the caller, where that is the second process ---- */

struct caller {
    struct mc_te *te;
    struct mc_peer *peer;
    struct mc_op op;
    struct fares *fares;
    struct watch watches[2];
};

/* lane opcode address key "pid:fd" run_dir */
static bool caller_open(struct caller *c, char **argv)
{
    const struct lane *lane = &lanes[atoi(argv[0])];
    struct mc_te_opts opts = {
        .size = sizeof(opts), .transport = lane->transport, .fault = lane->fault, .run_dir = argv[5], .listen = "none"};
    struct mc_region_key local_key;
    int pid, fd;

    log_set_level(LOG_LEVEL_ERROR);
    c->op = (struct mc_op){.opcode = (enum mc_opcode)atoi(argv[1]), .len = LEN};
    if (sscanf(argv[4], "%d:%d", &pid, &fd) != 2 || hex_decode(&c->op.region, sizeof(c->op.region), argv[3]) != MC_OK ||
        mc_te_create(&opts, &c->te) != MC_OK)
        return false;
    if (lane->memfd && mc_te_alloc(c->te, LEN, MC_REGION_READ, &c->op.local, &local_key) != MC_OK)
        return false;
    if (!lane->memfd)
        c->op.local = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    c->watches[0] = (struct watch){"the stopped caller's memory", c->op.local, LEN, 0};
    c->watches[1] = (struct watch){"its peer's memory", harness_map_fd(pid, fd, LEN + FARES_LEN), LEN, 0};
    c->fares = fares_of(c->watches[1].addr);
    if (mc_peer_open(c->te, argv[2], NULL, &c->peer) != MC_OK)
        return false;
    harness_far_ready("calling");
    return true;
}

static enum mc_status caller_call(struct caller *c)
{
    struct fares *fares = c->fares;
    enum mc_status status;

    status = mc_transfer_sync(c->peer, &c->op, 1, atomic_load(&fares->patient) ? AGAIN_MS : DEADLINE_MS);
    atomic_store(&fares->in_call, 0);
    atomic_fetch_add(&fares->calls, 1);
    atomic_fetch_add(&fares->ok, status == MC_OK);
    atomic_store(&fares->status, status);
    return status;
}

static bool told_to_end(int wait_ms)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};

    return poll(&input, 1, wait_ms) != 0;
}

static int caller_run(int argc, char **argv)
{
    struct caller c;

    if (!caller_open(&c, argv))
        return 1;
    while (!told_to_end(0)) {
        atomic_store(&c.fares->in_call, 1);
        if (caller_call(&c) == MC_OK && atomic_load(&c.fares->calls) % 16)
            continue;
        harness_refill(&c.watches[0]);
        harness_refill(&c.watches[1]);
        atomic_fetch_add(&c.fares->late_writes, !harness_watch(c.watches, 2, 50));
    }
    mc_te_destroy(c.te);
    return 0;
}

/* Writes all the time, but for what is between "held" and the next round. */
static int writer_run(int argc, char **argv)
{
    uint32_t round = 0;
    struct caller c;

    if (!caller_open(&c, argv))
        return 1;
    harness_refill(&c.watches[0]);
    while (!told_to_end(atomic_load(&c.fares->held) ? 1 : 0)) {
        if (atomic_load(&c.fares->held) && atomic_load(&c.fares->round) == round)
            continue;
        if (atomic_load(&c.fares->held)) {
            round = atomic_load(&c.fares->round);
            memcpy(&c.op.region, &c.fares->key, sizeof(c.op.region));
            atomic_store(&c.fares->held, 0);
        }
        /* No call begins after the judge has said "hold", but in the few instructions from here to the clock inside of it. */
        if (atomic_load(&c.fares->hold) || caller_call(&c) == MC_ENOENT)
            atomic_store(&c.fares->held, 1);
    }
    mc_te_destroy(c.te);
    return 0;
}

/* ---- one round ---- */

struct stage {
    const struct lane *lane;
    struct far far;
    struct relay relay;
    bool relayed;
    struct mc_te *te;
    struct mc_peer *peer;
    struct mc_region_key key, local_key;
    char address[64];
    struct watch there, here;
    uint64_t late_ms, raw_late_ms; /* worst return beyond a deadline; with what was waited for a processor */
};

static bool far_open(struct stage *s, const char *listen)
{
    const char *args[] = {s->lane->transport, s->lane->memfd ? "memfd" : "plain", run_dir, listen, NULL};
    char hex[HARNESS_LINE];
    int fd;

    harness_far_start(&s->far, "peer", args);
    if (sscanf(s->far.line, "%63s %d %511s", s->address, &fd, hex) != 3 ||
        hex_decode(&s->key, sizeof(s->key), hex) != MC_OK)
        return false;
    s->there = (struct watch){"peer's memory", harness_map_fd(s->far.pid, fd, LEN), LEN, 0};
    return true;
}

static bool stage_open(struct stage *s, const struct lane *lane, enum mishap event)
{
    struct mc_te_opts opts = {
        .size = sizeof(opts), .transport = lane->transport, .fault = lane->fault, .run_dir = run_dir, .listen = "none"};
    void *local;

    *s = (struct stage){.lane = lane, .relayed = event == BLACK_HOLE};
    if (!far_open(s, NULL) || mc_te_create(&opts, &s->te) != MC_OK)
        return false;
    if (s->relayed)
        harness_relay_start(&s->relay, s->address);
    if (lane->memfd) {
        if (mc_te_alloc(s->te, LEN, MC_REGION_READ, &local, &s->local_key) != MC_OK)
            return false;
    } else {
        local = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    }
    s->here = (struct watch){"our memory", local, LEN, 0};
    return mc_peer_open(s->te, s->relayed ? s->relay.address : s->address, NULL, &s->peer) == MC_OK;
}

static void stage_close(struct stage *s)
{
    mc_peer_close(s->peer);
    if (!s->lane->memfd)
        munmap(s->here.addr, LEN);
    mc_te_destroy(s->te);
    munmap(s->there.addr, LEN);
    harness_far_end(&s->far);
    if (s->relayed)
        harness_far_end(&s->relay.far);
}

static void keep_worst(uint64_t *worst, uint64_t ms, uint64_t deadline_ms)
{
    if (ms > deadline_ms && ms - deadline_ms > *worst)
        *worst = ms - deadline_ms;
}

static enum mc_status move(struct stage *s, enum mc_opcode opcode, uint32_t deadline_ms)
{
    struct mc_op op = {.opcode = opcode, .local = s->here.addr, .len = LEN, .region = s->key};
    struct stopwatch watch = stopwatch_start(0);
    enum mc_status status = mc_transfer_sync(s->peer, &op, 1, deadline_ms);
    uint64_t raw_ms, ms = stopwatch_ms(&watch, &raw_ms);

    keep_worst(&s->late_ms, ms, deadline_ms);
    keep_worst(&s->raw_late_ms, raw_ms, deadline_ms);
    return status;
}

/* Transfers until one fails, or 400 ms after the stop. */
static enum mc_status move_until_stopped(struct stage *s, enum mc_opcode opcode, struct stopper *stopper)
{
    for (;;) {
        enum mc_status status = move(s, opcode, DEADLINE_MS);
        uint64_t stopped = atomic_load(&stopper->stopped_ns);

        if (status != MC_OK && stopped)
            return status;
        if (status != MC_OK && !s->lane->fault && status != MC_ETIMEDOUT)
            return status;
        if (stopped && now_ns() > stopped + 400 * NS_PER_MS)
            return MC_OK;
    }
}

static bool works_again(struct stage *s, enum mc_opcode opcode)
{
    struct stopwatch watch = stopwatch_start(s->relayed ? s->relay.far.pid : s->far.pid);

    while (stopwatch_ms(&watch, NULL) < AGAIN_MS)
        if (move(s, opcode, 500) == MC_OK)
            return memcmp(s->here.addr, s->there.addr, LEN) == 0;
    return false;
}

static bool round_run(struct stage *s, enum mc_opcode opcode, struct rng *rng)
{
    pid_t victim = s->relayed ? s->relay.far.pid : s->far.pid;
    struct stopper stopper;
    enum mc_status status;
    bool still, again;

    harness_refill(&s->here);
    harness_refill(&s->there);
    harness_stop_after(&stopper, victim, (uint32_t)rng_below(rng, 40000));
    status = move_until_stopped(s, opcode, &stopper);
    harness_refill(&s->there);
    harness_refill(&s->here);
    harness_stop_join(&stopper);
    harness_continue(victim);
    still = harness_watch((struct watch[]){s->here, s->there}, 2, watch_ms);
    again = works_again(s, opcode);
    if (s->late_ms > SLACK_MS)
        fprintf(stderr, "returned %llu ms after the deadline\n", (unsigned long long)s->late_ms);
    if (!again)
        fprintf(stderr, "no transfer within 2 s after the stop (the stopped one said: %s)\n", mc_status_str(status));
    return still && again && s->late_ms <= SLACK_MS;
}

static int cell(const struct lane *lane, enum mc_opcode opcode, enum mishap event, unsigned rounds, uint64_t seed)
{
    struct stage s;
    struct rng rng;
    unsigned failed = 0;

    rng_seed(&rng, seed);
    if (!stage_open(&s, lane, event)) {
        fprintf(stderr, "cannot set up %s\n", lane->name);
        return 1;
    }
    for (unsigned i = 0; i < rounds; i++)
        failed += !round_run(&s, opcode, &rng);
    printf("%-10s %-5s %-14s %u rounds, %u failed, at most %llu ms late (%llu with waiting for a processor)\n",
        lane->name, opcode == MC_READ ? "read" : "write", event_names[event], rounds, failed,
        (unsigned long long)s.late_ms, (unsigned long long)s.raw_late_ms);
    fflush(stdout);
    stage_close(&s);
    return failed != 0;
}

/* ---- rounds with a stopped caller ---- */

/* Judged when it has moved: only then the kernel has counted what its threads waited. */
static bool moves_on(const _Atomic uint32_t *count, uint32_t from, pid_t pid, uint64_t ms)
{
    struct stopwatch watch = stopwatch_start(pid);

    while (atomic_load(count) == from)
        if (now_ns() - watch.start_ns > 20 * NS_PER_S)
            return false;
        else
            poll(NULL, 0, 1);
    return stopwatch_ms(&watch, NULL) <= ms;
}

static bool caller_round(struct fares *fares, pid_t pid, struct rng *rng)
{
    uint32_t calls, ok;
    bool in_time, again;

    poll(NULL, 0, (int)rng_below(rng, 40));
    kill(pid, SIGSTOP);
    poll(NULL, 0, DEADLINE_MS + 100);
    calls = atomic_load(&fares->calls);
    ok = atomic_load(&fares->ok);
    in_time = !atomic_load(&fares->in_call);
    kill(pid, SIGCONT);
    in_time = in_time || moves_on(&fares->calls, calls, pid, SLACK_MS);
    atomic_store(&fares->patient, 1);
    again = moves_on(&fares->ok, ok, pid, AGAIN_MS);
    atomic_store(&fares->patient, 0);
    calls = atomic_load(&fares->calls);
    poll(NULL, 0, (int)watch_ms);
    again = again && moves_on(&fares->calls, calls, pid, AGAIN_MS); /* the last patient one is over */
    if (!in_time)
        fprintf(stderr, "the stopped call did not return within %d ms\n", SLACK_MS);
    if (!again)
        fprintf(stderr, "no transfer within %d ms after the stop\n", AGAIN_MS);
    return in_time && again && atomic_load(&fares->late_writes) == 0;
}

/* As the one who calls, against our memory. */
static void second_start(struct far *far, const char *role, unsigned lane_number, enum mc_opcode opcode,
    struct mc_te *te, const struct te_memory *memory)
{
    char number[8], code[8], hex[sizeof(memory->key) * 2 + 1], where[32];

    snprintf(number, sizeof(number), "%u", lane_number);
    snprintf(code, sizeof(code), "%d", (int)opcode);
    snprintf(where, sizeof(where), "%d:%d", (int)getpid(), memory->fd);
    hex_encode(hex, &memory->key, sizeof(memory->key));
    harness_far_start(far, role, (const char *const[]){number, code, mc_te_address(te), hex, where, run_dir, NULL});
}

static int caller_cell(unsigned lane_number, enum mc_opcode opcode, unsigned rounds, uint64_t seed)
{
    const struct lane *lane = &lanes[lane_number];
    struct te_memory memory;
    struct mc_te *te = engine_with_memory(lane->transport, lane->memfd, run_dir, NULL, &memory);
    struct far caller;
    struct rng rng;
    unsigned failed = 0;

    if (!te)
        return 1;
    rng_seed(&rng, seed);
    second_start(&caller, "caller", lane_number, opcode, te, &memory);
    for (unsigned i = 0; i < rounds; i++)
        failed += !caller_round(fares_of(memory.addr), caller.pid, &rng);
    harness_far_end(&caller);
    printf("%-10s %-5s %-14s %u rounds, %u failed, %u calls\n", lane->name, opcode == MC_READ ? "read" : "write",
        "caller stopped", rounds, failed, atomic_load(&fares_of(memory.addr)->calls));
    fflush(stdout);
    mc_te_destroy(te);
    return failed != 0;
}

/* ---- rounds with a writer from whom the memory is taken back ---- */

enum taken { WITHDRAWN_STOPPED, WITHDRAWN_RUNNING, TOO_LATE, TAKEN_WAYS };

struct taking {
    struct mc_te *te;
    struct te_memory memory;
    struct far writer;
    struct fares *fares;
    uint64_t longest_ms; /* of an unregister */
};

/* Until it writes, with calls that have DEADLINE_MS. */
static bool writer_goes_on(struct taking *t)
{
    struct fares *fares = t->fares;
    uint32_t ok = atomic_load(&fares->ok), calls;
    bool good;

    atomic_store(&fares->hold, 0);
    atomic_store(&fares->patient, 1);
    memcpy(&fares->key, &t->memory.key, sizeof(fares->key));
    atomic_fetch_add(&fares->round, 1);
    good = moves_on(&fares->ok, ok, t->writer.pid, AGAIN_MS);
    atomic_store(&fares->patient, 0);
    calls = atomic_load(&fares->calls);
    return moves_on(&fares->calls, calls, t->writer.pid, AGAIN_MS) && good; /* the last patient one is over */
}

static bool withdraw(struct taking *t)
{
    struct stopwatch watch = stopwatch_start(t->writer.pid);
    enum mc_status status = mc_te_unregister(t->te, &t->memory.key);

    keep_worst(&t->longest_ms, stopwatch_ms(&watch, NULL), 0);
    return status == MC_OK;
}

static bool writer_holds(struct taking *t)
{
    uint64_t until = deadline_after_ms(now_ns(), 20000);

    while (!atomic_load(&t->fares->held) && now_ns() < until)
        poll(NULL, 0, 1);
    return atomic_load(&t->fares->held);
}

static bool taken_round(struct taking *t, const struct lane *lane, enum taken way, struct rng *rng)
{
    struct watch memory = {"the withdrawn memory", t->memory.addr, LEN, 0};
    bool good = writer_goes_on(t);
    enum mc_status status;

    poll(NULL, 0, (int)rng_below(rng, 10));
    if (way != WITHDRAWN_RUNNING) {
        kill(t->writer.pid, SIGSTOP);
        waitpid(t->writer.pid, NULL, WUNTRACED);
    }
    atomic_store(&t->fares->hold, way == TOO_LATE);
    if (way == TOO_LATE)
        poll(NULL, 0, DEADLINE_MS + 1);
    else
        good = withdraw(t) && good;
    harness_refill(&memory);
    kill(t->writer.pid, SIGCONT);
    good = writer_holds(t) && good;
    good = harness_watch(&memory, 1, watch_ms / 5) && good;
    status = (enum mc_status)atomic_load(&t->fares->status);
    if (way == TOO_LATE && !lane->fault && status != MC_ETIMEDOUT && status != MC_OK)
        good = false; /* OK: it was stopped between two calls */
    if (!good)
        fprintf(stderr, "taken back in way %d, the writer was told: %s\n", way, mc_status_str(status));
    if (way != TOO_LATE &&
        mc_te_register(t->te, t->memory.addr, LEN, MC_REGION_READ | MC_REGION_WRITE, &t->memory.key) != MC_OK)
        good = false;
    return good;
}

static int taken_cell(unsigned lane_number, unsigned rounds, uint64_t seed)
{
    const struct lane *lane = &lanes[lane_number];
    struct taking t = {.te = engine_with_memory(lane->transport, lane->memfd, run_dir, NULL, &t.memory)};
    struct rng rng;
    unsigned failed = 0;

    if (!t.te)
        return 1;
    rng_seed(&rng, seed);
    t.fares = fares_of(t.memory.addr);
    atomic_store(&t.fares->held, 1); /* until the first round */
    second_start(&t.writer, "writer", lane_number, MC_WRITE, t.te, &t.memory);
    for (unsigned i = 0; i < rounds; i++)
        failed += !taken_round(&t, lane, (enum taken)(i % TAKEN_WAYS), &rng);
    harness_far_end(&t.writer);
    printf("%-10s write %-14s %u rounds, %u failed, %u calls, unregister at most %llu ms\n", lane->name, "taken back",
        rounds, failed, atomic_load(&t.fares->calls), (unsigned long long)t.longest_ms);
    fflush(stdout);
    mc_te_destroy(t.te);
    return failed != 0;
}

/* ---- death ---- */

static int killed(const struct lane *lane, enum mc_opcode opcode)
{
    struct stage s;
    struct stopwatch watch;
    enum mc_status status;
    uint64_t took, raw;
    bool back;

    if (!stage_open(&s, lane, PEER_STOPPED))
        return 1;
    watch = stopwatch_start(0);
    kill(s.far.pid, SIGKILL);
    do
        status = move(&s, opcode, 5000);
    while (status == MC_OK);
    took = stopwatch_ms(&watch, &raw);
    munmap(s.there.addr, LEN);
    waitpid(s.far.pid, NULL, 0);
    close(s.far.input);
    back = far_open(&s, s.address) && works_again(&s, opcode);
    printf("%-10s %-5s %-14s %s after %llu ms (%llu with waiting), %s after restart\n", lane->name,
        opcode == MC_READ ? "read" : "write", "killed", mc_status_str(status), (unsigned long long)took,
        (unsigned long long)raw, back ? "works" : "does not work");
    fflush(stdout);
    stage_close(&s);
    return !(status == MC_EPEERDOWN && took <= KILLED_MS && back);
}

/* Killed peers leave their sockets; the next engine sweeps them away. */
static bool run_dir_empty(void)
{
    struct mc_te_opts opts = {.size = sizeof(opts), .run_dir = run_dir, .listen = "none"};
    struct mc_te *te;

    if (mc_te_create(&opts, &te) != MC_OK)
        return false;
    mc_te_destroy(te);
    if (rmdir(run_dir) == 0)
        return true;
    fprintf(stderr, "%s: %s\n", run_dir, strerror(errno));
    return false;
}

/* All cells of one lane and one direction; how many failed. */
static int cells(unsigned lane_number, enum mc_opcode opcode, unsigned rounds, uint64_t seed)
{
    const struct lane *lane = &lanes[lane_number];
    int failed = 0;

    for (int event = PEER_STOPPED; event <= (lane->network ? BLACK_HOLE : PEER_STOPPED); event++)
        failed += cell(lane, opcode, (enum mishap)event, rounds, seed++);
    failed += caller_cell(lane_number, opcode, rounds, seed);
    if (opcode == MC_WRITE)
        failed += taken_cell(lane_number, rounds, seed);
    if (!lane->fault)
        failed += killed(lane, opcode);
    return failed;
}

int main(int argc, char **argv)
{
    static const struct role roles[] = {{"peer", peer_run}, {"caller", caller_run}, {"writer", writer_run}};
    unsigned rounds = 3;
    uint64_t seed = 1;
    int failed = 0, ran = 0;

    harness_role(argc, argv, roles, sizeof(roles) / sizeof(roles[0]));
    if (argc > 1)
        rounds = (unsigned)atoi(argv[1]);
    if (argc > 2)
        watch_ms = (unsigned)atoi(argv[2]);
    if (argc > 3)
        seed = strtoull(argv[3], NULL, 0);
    const char *only_lane = argc > 4 ? argv[4] : NULL, *only_op = argc > 5 ? argv[5] : NULL;
    scratch_dir(run_dir);
    log_set_level(LOG_LEVEL_ERROR);
    printf("seed %llu\n", (unsigned long long)seed);
    for (unsigned l = 0; l < sizeof(lanes) / sizeof(lanes[0]); l++)
        for (int opcode = MC_READ; opcode <= MC_WRITE; opcode++, seed += 10)
            if ((!only_lane || strcmp(only_lane, lanes[l].name) == 0) &&
                (!only_op || strcmp(only_op, opcode == MC_READ ? "read" : "write") == 0)) {
                failed += cells(l, (enum mc_opcode)opcode, rounds, seed);
                ran++;
            }
    failed += !run_dir_empty();
    printf("%d cells failed\n", failed);
    return failed != 0 || ran == 0;
}
