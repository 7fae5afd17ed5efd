/* matrix_test.c - deadlines and late writes of gets and puts.
 *
 * Goal: {tcp, shm-memfd, shm-vm, fault} x {get, put} x {node stopped, client stopped, black hole}: every call returns by its
 * deadline + 50 ms; once it has returned its memory is the caller's again: not one byte of a get's destination changes, and
 * what is written over a put's source never gets into the object, which is whole or not there.
 *
 * Method: master and node are processes, reached over a relay where there is a network. Calls of 8 MiB run one after the other,
 * the source or destination is refilled as soon as each has returned; at a random moment the node, the relay, or (then it is
 * a process too) the client is stopped, and later continued. Destinations are watched from then on; objects are read back
 * afterwards by a client that nothing happened to.
 *
 *     matrix_test [rounds per cell, default 3] [watch ms, default 300] [seed] [lane, default all] [get|put, default both]
 *                 [node|client|network: who is stopped, default each] */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/rng.h"
#include "base/scratch_test.h"
#include "base/stopwatch_test.h"
#include "content.h"
#include "harness.h"
#include "mooncake/transfer.h"
#include "store/index/master.h"
#include "store/node/node.h"

enum {
    LEN = 8 << 20,
    DEADLINE_MS = 150,
    SLACK_MS = 50,
    CALLS_MS = 300,   /* calls go on for so long after the stop, unless one fails */
    STOPPED_MS = 400, /* how long the client stays stopped */
    KEYS = 4,         /* objects that gets read */
};

struct lane {
    const char *name, *transport, *fault;
    bool memfd, network;
};

static const struct lane lanes[] = {
    {"tcp", "tcp", "-", false, true},
    {"shm-memfd", "shm-memfd", "-", true, false},
    {"shm-vm", "shm-vm", "-", false, false},
    {"fault", "tcp", "seed=3,delay_ms=2,delay=0.2,corrupt=0.01,cut=0.01", false, true},
};

enum mishap { NODE_STOPPED, CLIENT_STOPPED, BLACK_HOLE, MISHAPS };
static const char *const mishap_names[] = {"node stopped", "client stopped", "black hole"};
static const char *const mishap_words[] = {"node", "client", "network"}; /* on the command line */

static char run_dir[SCRATCH_PATH];
static unsigned watch_ms = 300;
static struct rng rng;
static uint64_t next_number = 1000;

#define DEMAND(what, ...)                                                                                              \
    do {                                                                                                               \
        if (!(what)) {                                                                                                 \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static const char *or_null(const char *text)
{
    return strcmp(text, "-") == 0 ? NULL : text;
}

/* ---- roles ---- */

static int master_run(int argc, char **argv)
{
    struct store_master_opts opts = {.listen = "127.0.0.1:0", .admin = "none", .state_dir = "none"};
    struct store_master *master;

    if (store_master_create(&opts, &master) != MC_OK || store_master_start(master) != MC_OK)
        return 1;
    harness_far_ready("%s", store_master_address(master));
    harness_far_wait();
    return 0;
}

/* master transport fault run_dir listen advertise */
static int node_run(int argc, char **argv)
{
    struct store_node_opts opts = {
        .master = argv[0],
        .transport = argv[1],
        .fault = or_null(argv[2]),
        .run_dir = argv[3],
        .listen = argv[4],
        .advertise = or_null(argv[5]),
        .memory = 256 << 20,
        .ephemeral = true,
    };
    struct store_node *node;

    if (store_node_create(&opts, &node) != MC_OK || store_node_start(node) != MC_OK)
        return 1;
    harness_far_ready("%s", store_node_address(node));
    harness_far_wait();
    return 0;
}

static struct mc_store *open_store(const char *master, const char *transport, const char *fault)
{
    struct mc_store_opts opts = {
        .size = sizeof(opts),
        .master = master,
        .transport = transport,
        .fault = or_null(fault),
        .run_dir = run_dir,
        .connect_ms = 5000,
    };
    struct mc_store *store;

    DEMAND(mc_store_open(&opts, &store) == MC_OK, "no client\n");
    return store;
}

static uint8_t *memory_for(struct mc_store *store, bool memfd)
{
    struct mc_region_key key;
    void *memory;

    if (memfd)
        DEMAND(mc_te_alloc(mc_store_te(store), LEN, MC_REGION_READ, &memory, &key) == MC_OK, "no memory\n");
    else
        DEMAND((memory = malloc(LEN)) != NULL, "no memory\n");
    return memory;
}

static enum mc_status get_to(struct mc_store *store, uint8_t *memory, uint64_t number, uint32_t deadline_ms)
{
    struct mc_key key = block(number);
    uint64_t len;
    enum mc_status status = mc_store_get(store, &key, memory, LEN, &len, deadline_ms);

    DEMAND(status != MC_OK || filled(memory, LEN, number), "object %llu: wrong bytes\n", (unsigned long long)number);
    return status;
}

static enum mc_status put_from(struct mc_store *store, uint8_t *memory, uint64_t number, uint32_t deadline_ms)
{
    struct mc_key key = block(number);

    fill(memory, LEN, number);
    return mc_store_put(store, &key, memory, LEN, NULL, deadline_ms);
}

/* master transport fault run_dir get|put[+memfd] first: calls until standard input ends. A file "late" in run_dir: a byte changed. */
static int client_run(int argc, char **argv)
{
    snprintf(run_dir, sizeof(run_dir), "%s", argv[3]);
    struct mc_store *store = open_store(argv[0], argv[1], argv[2]);
    bool put = strncmp(argv[4], "put", 3) == 0;
    struct watch watch = {"memory", memory_for(store, strstr(argv[4], "memfd") != NULL), LEN, 1};
    uint64_t number = strtoull(argv[5], NULL, 10);
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    char late[64];

    harness_far_ready("calling");
    while (poll(&input, 1, 0) == 0) {
        if (put)
            put_from(store, watch.addr, number++, DEADLINE_MS);
        else
            get_to(store, watch.addr, number % KEYS, DEADLINE_MS);
        harness_refill(&watch);
        if (!put && !harness_watch(&watch, 1, 5)) {
            snprintf(late, sizeof(late), "%s/late", run_dir);
            fclose(fopen(late, "w"));
        }
    }
    return 0;
}

static const struct role roles[] = {{"master", master_run}, {"node", node_run}, {"client", client_run}};

/* ---- one lane ---- */

struct setup {
    const struct lane *lane;
    struct far master, node;
    struct relay relay;
    struct mc_store *store, *judge; /* the judge goes by TCP as the others, but nothing is stopped while it reads */
    struct watch memory;
};

/* The objects that gets read are there, and one more, which nobody has put yet, so that its bytes are moved in any case. With time
 * enough for 8 MiB over a line that delays, cuts and corrupts, on a machine that others use too. */
static void wait_usable(struct setup *s)
{
    uint64_t start = now_ns();

    for (uint64_t i = 0; i <= KEYS; i++) {
        uint64_t number = i < KEYS ? i : next_number++;
        enum mc_status status;

        while ((status = put_from(s->store, s->memory.addr, number, 10000)) != MC_OK)
            DEMAND(now_ns() - start < 60 * NS_PER_S, "%s: node does not take puts: %s\n", s->lane->name,
                mc_status_str(status));
    }
}

/* A port that is free now, for a node whose address must be known before it runs: the kernel's choice, so that several of us do
 * not choose the same one. */
static unsigned free_port(void)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(any);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    DEMAND(
        fd >= 0 && bind(fd, (struct sockaddr *)&any, len) == 0 && getsockname(fd, (struct sockaddr *)&any, &len) == 0,
        "no free port: %m\n");
    close(fd);
    return ntohs(any.sin_port);
}

static void set_up(struct setup *s, const struct lane *lane)
{
    char listen[64] = "127.0.0.1:0", advertise[64] = "-";

    *s = (struct setup){.lane = lane};
    harness_far_start(&s->master, "master", (const char *const[]){NULL});
    if (lane->network) {
        snprintf(listen, sizeof(listen), "127.0.0.1:%u", free_port());
        harness_relay_start(&s->relay, listen);
        snprintf(advertise, sizeof(advertise), "%s", s->relay.address);
    }
    harness_far_start(&s->node, "node",
        (const char *const[]){s->master.line, lane->transport, lane->fault, run_dir, listen, advertise, NULL});
    s->store = open_store(s->master.line, lane->transport, lane->fault);
    s->judge = open_store(s->master.line, lane->network ? "tcp" : "auto", "-");
    s->memory = (struct watch){"memory", memory_for(s->store, lane->memfd), LEN, 1};
    wait_usable(s);
}

static void tear_down(struct setup *s)
{
    uint8_t *memory = s->memory.addr;

    mc_store_close(s->judge);
    if (s->lane->memfd)
        mc_te_free(mc_store_te(s->store), memory);
    else
        free(memory);
    mc_store_close(s->store);
    harness_far_end(&s->node);
    if (s->lane->network)
        harness_far_end(&s->relay.far);
    harness_far_end(&s->master);
}

/* Objects [first, first + count) are whole or not there. */
static void judge_objects(struct setup *s, uint64_t first, uint64_t count)
{
    static uint8_t memory[LEN];

    for (uint64_t i = 0; i < count; i++)
        get_to(s->judge, memory, first + i, 5000);
}

static void round_with_node(struct setup *s, bool put, pid_t victim)
{
    struct stopper stopper;
    uint64_t first = next_number, longest = 0, begun = now_ns();
    uint32_t after_us = 1000 + (uint32_t)rng_below(&rng, 30000);
    bool failed = false;

    harness_stop_after(&stopper, victim, after_us);
    while (!failed && now_ns() - begun < after_us * NS_PER_US + CALLS_MS * NS_PER_MS) {
        if (put)
            fill(s->memory.addr, LEN, next_number);
        struct stopwatch watch = stopwatch_start(0);
        uint64_t number = put ? next_number++ : rng_below(&rng, KEYS), len;
        struct mc_key key = block(number);
        enum mc_status status = put ? mc_store_put(s->store, &key, s->memory.addr, LEN, NULL, DEADLINE_MS)
                                    : mc_store_get(s->store, &key, s->memory.addr, LEN, &len, DEADLINE_MS);
        uint64_t took = stopwatch_ms(&watch, NULL);
        DEMAND(put || status != MC_OK || filled(s->memory.addr, LEN, number), "%s: wrong bytes\n", s->lane->name);
        harness_refill(&s->memory);
        if (took > longest)
            longest = took;
        failed = status != MC_OK;
    }
    harness_stop_join(&stopper);
    harness_continue(victim);
    DEMAND(harness_watch(&s->memory, 1, watch_ms), "%s: late write\n", s->lane->name);
    DEMAND((double)longest <= (double)DEADLINE_MS + SLACK_MS * crowd(), "%s %s: a call took %llu ms\n", s->lane->name,
        put ? "put" : "get", (unsigned long long)longest);
    if (put)
        judge_objects(s, first, next_number - first);
}

static void round_with_client(struct setup *s, bool put)
{
    struct far client;
    char first[32], kind[16], late[64];
    uint64_t number = next_number;

    snprintf(first, sizeof(first), "%llu", (unsigned long long)(put ? number : 0));
    snprintf(kind, sizeof(kind), "%s%s", put ? "put" : "get", s->lane->memfd ? "+memfd" : "");
    harness_far_start(&client, "client",
        (const char *const[]){s->master.line, s->lane->transport, s->lane->fault, run_dir, kind, first, NULL});
    usleep(50000 + (useconds_t)rng_below(&rng, 50000));
    kill(client.pid, SIGSTOP);
    usleep(STOPPED_MS * 1000);
    kill(client.pid, SIGCONT);
    usleep(watch_ms * 1000);
    harness_far_end(&client);
    snprintf(late, sizeof(late), "%s/late", run_dir);
    DEMAND(access(late, F_OK) != 0, "%s: late write into a client that was stopped\n", s->lane->name);
    if (put)
        judge_objects(s, number, 200);
    next_number += 100000;
}

static void cell(struct setup *s, bool put, enum mishap mishap, int rounds)
{
    uint64_t start = now_ns();

    for (int i = 0; i < rounds; i++) {
        if (mishap == CLIENT_STOPPED)
            round_with_client(s, put);
        else
            round_with_node(s, put, mishap == BLACK_HOLE ? s->relay.far.pid : s->node.pid);
        wait_usable(s); /* and everything works again */
    }
    printf("%-9s %s %-14s %d rounds %.1f s\n", s->lane->name, put ? "put" : "get", mishap_names[mishap], rounds,
        (double)(now_ns() - start) / 1e9);
    fflush(stdout);
}

/* The cells of one lane that were asked for; how many that were. */
static int cells(struct setup *s, int rounds, const char *only_op, const char *only_mishap)
{
    int ran = 0;

    for (int put = 0; put < 2; put++)
        for (enum mishap m = 0; m < MISHAPS; m++) {
            if ((m == BLACK_HOLE && !s->lane->network) || (only_op && strcmp(only_op, put ? "put" : "get") != 0) ||
                (only_mishap && strcmp(only_mishap, mishap_words[m]) != 0))
                continue;
            cell(s, put, m, rounds);
            ran++;
        }
    return ran;
}

int main(int argc, char **argv)
{
    harness_role(argc, argv, roles, sizeof(roles) / sizeof(*roles));
    int rounds = argc > 1 ? atoi(argv[1]) : 3;
    watch_ms = argc > 2 ? (unsigned)atoi(argv[2]) : 300;
    uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 10) : now_ns();
    const char *only_lane = argc > 4 ? argv[4] : NULL, *only_op = argc > 5 ? argv[5] : NULL;
    const char *only_mishap = argc > 6 ? argv[6] : NULL;
    struct setup setup;
    int ran = 0;

    printf("seed %llu\n", (unsigned long long)seed);
    rng_seed(&rng, seed);
    log_set_level(LOG_LEVEL_ERROR);
    setenv("MOONCAKE_LOG", "error", 1);
    scratch_dir(run_dir);
    for (size_t i = 0; i < sizeof(lanes) / sizeof(*lanes); i++) {
        if (only_lane && strcmp(only_lane, lanes[i].name) != 0)
            continue;
        set_up(&setup, &lanes[i]);
        ran += cells(&setup, rounds, only_op, only_mishap);
        tear_down(&setup);
    }
    DEMAND(ran, "there is no such cell\n");
    return 0;
}
