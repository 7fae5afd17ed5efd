/* server.c - a master or a node as a process of its own, for tests that kill, stop and restart it.
 *
 *     store_server master LISTEN STATE_DIR
 *     store_server node LISTEN MASTER STATE_DIR RUN_DIR NAME MEMORY_MIB HOST_ID TRANSPORT
 *
 * Prints "ready ADDRESS ADMIN" when it listens. SIGUSR1 makes a node print its ledger as "ledger NAME=OBJECTS:BYTES ... quiet=0|1
 * registered=0|1 prefaulted=X". SIGTERM drains a node and ends a master. Ends with its parent. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/log.h"
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

int main(int argc, char **argv)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (argc == 4 && strcmp(argv[1], "master") == 0)
        return run_master(argv);
    if (argc == 10 && strcmp(argv[1], "node") == 0)
        return run_node(argv);
    fprintf(stderr, "usage: see the head of server.c\n");
    return 2;
}
