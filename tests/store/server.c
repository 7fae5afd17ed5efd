/* server.c - a master or a node as a process of its own, for tests that kill, stop and restart it.
 *
 *     store_server master LISTEN STATE_DIR
 *     store_server node LISTEN MASTER STATE_DIR RUN_DIR NAME MEMORY_MIB HOST_ID TRANSPORT
 *     store_server writer MASTER RUN_DIR HOST_ID TRANSPORT FIRST
 *
 * The writer puts blocks FIRST, FIRST+1, ... of WRITER_SIZE bytes, and in between begins parts that it never ends.
 * Prints "ready ADDRESS ADMIN" when it listens. SIGUSR1 makes a node print its ledger as "ledger NAME=OBJECTS:BYTES ... hit_ratio=A,B,.. quiet=0|1
 * registered=0|1 prefaulted=X". SIGTERM drains a node and ends a master. Ends with its parent. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/log.h"
#include "content.h"
#include "store/index/master.h"
#include "store/node/node.h"

static void print_ledger(struct store_node *node)
{
    struct store_node_status status;

    store_node_status(node, &status);
    printf("ledger");
    for (enum store_ledger_row row = 0; row < LEDGER_ROWS; row++)
        printf(" %s=%llu:%llu", store_ledger_name(row), (unsigned long long)status.beat.ledger.row[row].objects,
            (unsigned long long)status.beat.ledger.row[row].bytes);
    printf(" hit_ratio=");
    for (unsigned i = 0; i < CURVE_SIZES; i++)
        printf("%s%.6f", i ? "," : "", status.hit_ratio[i]);
    printf(" quiet=%d registered=%d prefaulted=%.3f used=%llu objects=%llu\n", status.quiet, status.registered,
        status.prefaulted, (unsigned long long)status.beat.used, (unsigned long long)status.beat.objects);
    fflush(stdout);
}

static int run_master(char **argv)
{
    struct store_master_opts opts = {.listen = argv[2], .admin = "127.0.0.1:0", .state_dir = argv[3]};
    struct store_master *master;

    log_set_name("master");
    if (store_master_create(&opts, &master) != MC_OK)
        return 1;
    printf("ready %s %s\n", store_master_address(master), store_master_admin(master));
    fflush(stdout);
    store_master_run(master);
    store_master_destroy(master);
    return 0;
}

static int run_node(char **argv)
{
    struct store_node_opts opts = {
        .listen = argv[2],
        .master = argv[3],
        .state_dir = argv[4],
        .run_dir = argv[5],
        .name = argv[6],
        .memory = strtoull(argv[7], NULL, 10) << 20,
        .host_id = argv[8],
        .transport = argv[9],
        .admin = "127.0.0.1:0",
    };
    struct store_node *node;
    sigset_t set;
    int sig;

    log_set_name(argv[6]);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    if (store_node_create(&opts, &node) != MC_OK || store_node_start(node) != MC_OK)
        return 1;
    printf("ready %s %s\n", store_node_address(node), store_node_admin(node));
    fflush(stdout);
    while (sigwait(&set, &sig) == 0) {
        if (sig == SIGUSR1)
            print_ledger(node);
        else
            store_node_drain(node);
    }
    store_node_destroy(node);
    return 0;
}

static int run_writer(char **argv)
{
    struct mc_store_opts opts = {
        .size = sizeof(opts),
        .master = argv[2],
        .run_dir = argv[3],
        .host_id = argv[4],
        .transport = argv[5],
        .connect_ms = 5000,
    };
    uint64_t first = strtoull(argv[6], NULL, 10);
    struct mc_store *store;
    struct mc_store_part *part;
    uint8_t *data = malloc(WRITER_SIZE);

    log_set_name("writer");
    if (!data || mc_store_open(&opts, &store) != MC_OK)
        return 1;
    for (uint64_t i = 0;; i++) {
        struct mc_key key = block(first + i), half = block(first + 1000000 + i);
        enum mc_status status;

        fill(data, WRITER_SIZE, first + i);
        do {
            status = mc_store_put(store, &key, data, WRITER_SIZE, NULL, 5000);
        } while (status == MC_EPEERDOWN); /* the nodes are not known yet */
        if (status != MC_OK || mc_store_part_begin(store, &half, WRITER_SIZE, NULL, 5000, &part) != MC_OK ||
            mc_store_part_write(part, 0, data, WRITER_SIZE / 2, 5000) != MC_OK)
            return 1;
        if (i == 2) {
            printf("ready writing -\n");
            fflush(stdout);
        }
    }
}

int main(int argc, char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (argc == 4 && strcmp(argv[1], "master") == 0)
        return run_master(argv);
    if (argc == 10 && strcmp(argv[1], "node") == 0)
        return run_node(argv);
    if (argc == 7 && strcmp(argv[1], "writer") == 0)
        return run_writer(argv);
    fprintf(stderr, "usage: see the head of server.c\n");
    return 2;
}
