/* serve.c - mooncake master, node, conductor: options into the room's object, then serve until a signal. */
#include <errno.h>
#include <semaphore.h>
#include <stdio.h>

#include "base/log.h"
#include "cli/child.h"
#include "cli/cli.h"
#include "cli/signals.h"
#include "conductor/conductor.h"
#include "store/index/master.h"
#include "store/node/node.h"

enum { STOP_MS = 5000 }; /* master and node have nothing to wait for */

/* The room has logged why. */
static int create_failed(const struct cli *cli, enum mc_status status, const char *address, const char *option)
{
    if (status == MC_EEXIST)
        return cli_fail(cli, CLI_TAKEN,
            "%s or the state directory is taken, by another of its kind perhaps (the line above says which): end that "
            "one, "
            "or give another --%s or directory",
            address, option);
    return cli_fail(cli, status == MC_EINVAL ? CLI_USAGE : CLI_FAILED, "cannot start: %s", mc_status_str(status));
}

/* ---- master ---- */

static void stop_master(void *arg)
{
    store_master_stop(arg);
}

int cmd_master(struct cli *cli)
{
    const struct settings *set = cli->set;
    struct store_master_opts opts = {
        .listen = set->master_listen, .admin = set->admin_listen, .objects_max = (uint32_t)set->objects_max};
    struct store_master *master;

    signals_block();
    enum mc_status status = store_master_create(&opts, &master);
    if (status != MC_OK)
        return create_failed(cli, status, set->master_listen, "master-listen");
    signals_watch(stop_master, master, STOP_MS);
    child_say_ready((int)set->ready_fd, "master=%s admin=%s", store_master_address(master), store_master_admin(master));
    store_master_run(master);
    signals_unwatch();
    store_master_destroy(master);
    return CLI_OK;
}

/* ---- node ---- */

static void stop_node(void *arg)
{
    store_node_drain(arg);
    store_node_stop(arg);
}

int cmd_node(struct cli *cli)
{
    const struct settings *set = cli->set;
    struct store_node_opts opts = {.listen = set->node_listen,
        .advertise = set->advertise,
        .admin = set->node_admin,
        .master = set->master,
        .name = set->node_name,
        .host_id = set->host_id,
        .run_dir = set->run_dir,
        .zone = set->zone,
        .state_dir = set->state_dir,
        .transport = set->transport,
        .fault = set->fault,
        .policy = set->evict,
        .memory = set->memory,
        .segment_size = set->segment_size,
        .no_prefault = !set->prefault};
    struct store_node *node;

    signals_block();
    enum mc_status status = store_node_create(&opts, &node);
    if (status != MC_OK)
        return create_failed(cli, status, set->node_listen, "node-listen");
    signals_watch(stop_node, node, STOP_MS);
    child_say_ready((int)set->ready_fd, "node=%s", store_node_address(node));
    store_node_run(node);
    signals_unwatch();
    store_node_destroy(node);
    return CLI_OK;
}

/* ---- conductor ---- */

static void post(void *arg)
{
    sem_post(arg);
}

int cmd_conductor(struct cli *cli)
{
    const struct settings *set = cli->set;
    struct conductor_opts opts;
    struct conductor *conductor;
    char why[512] = "";
    sem_t stop;
    int code = CLI_OK;

    signals_block();
    conductor_opts_init(&opts);
    opts.http_listen = set->conductor_listen;
    opts.fleet_listen = set->workers_listen;
    opts.master = set->store ? set->master : NULL;
    opts.store_transport = set->transport;
    opts.host_id = set->host_id;
    opts.policy = set->policy;
    opts.record = set->record;
    opts.slo_ttft_ms = (double)set->slo_ttft_ms;
    opts.slo_tbt_ms = (double)set->slo_tbt_ms;
    opts.queue_max = (uint32_t)set->queue_max;
    enum mc_status status = conductor_create(&opts, &conductor, why, sizeof(why));
    if (status != MC_OK)
        return cli_fail(cli, status == MC_EEXIST ? CLI_TAKEN : status == MC_EINVAL ? CLI_USAGE : CLI_FAILED, "%s", why);
    sem_init(&stop, 0, 0);
    if (conductor_start(conductor) != MC_OK) {
        code = cli_fail(cli, CLI_FAILED, "no thread to serve with");
        goto undo_conductor;
    }
    signals_watch(post, &stop, set->drain_ms + STOP_MS);
    log_info("conductor at http://%s, workers dial %s", conductor_http_address(conductor),
        conductor_fleet_address(conductor));
    child_say_ready((int)set->ready_fd, "http=%s workers=%s", conductor_http_address(conductor),
        conductor_fleet_address(conductor));
    while (sem_wait(&stop) != 0 && errno == EINTR)
        continue;
    if (conductor_drain(conductor, (uint32_t)set->drain_ms) != MC_OK)
        log_warn("requests still ran after %llu ms: cut", (unsigned long long)set->drain_ms);
    signals_unwatch();
undo_conductor:
    conductor_destroy(conductor);
    sem_destroy(&stop);
    return code;
}
