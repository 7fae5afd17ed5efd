/* worker.c - mooncake worker: an engine behind a Conductor. */
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/child.h"
#include "cli/cli.h"
#include "cli/model.h"
#include "cli/signals.h"
#include "worker/worker.h"

static void stop(void *arg)
{
    worker_drain(arg);
}

static void fill_options(const struct settings *set, struct mc_engine *engine, struct worker_opts *opts)
{
    static const enum wmsg_role roles[] = {
        [ROLE_SET_BOTH] = WMSG_ROLE_BOTH, [ROLE_SET_PREFILL] = WMSG_ROLE_PREFILL, [ROLE_SET_DECODE] = WMSG_ROLE_DECODE};

    worker_opts_init(opts);
    opts->engine = engine;
    opts->conductors = &set->workers_at;
    opts->conductor_count = 1;
    opts->role = roles[set->role];
    opts->name = set->worker_name;
    opts->master = set->store ? set->master : NULL;
    opts->store_transport = set->transport;
    opts->store_fault = set->fault;
    opts->host_id = set->host_id;
    opts->run_dir = set->run_dir;
    opts->threads_fixed = (uint32_t)set->threads;
}

/* Whoever started us wants to know when the Conductor has us. It is a matter of milliseconds, or of the Conductor's start. */
static void say_ready(const struct cli *cli, struct worker *worker)
{
    const struct timespec pause = {.tv_nsec = 2000000};
    struct worker_stats stats;

    if (cli->set->ready_fd < 0)
        return;
    for (;;) {
        worker_stats(worker, &stats);
        if (stats.conductors_up > 0 || worker_wait(worker, 0) != MC_ETIMEDOUT)
            break;
        nanosleep(&pause, NULL);
    }
    child_say_ready((int)cli->set->ready_fd, "worker=%s", cli->set->worker_name ? cli->set->worker_name : "");
}

int cmd_worker(struct cli *cli)
{
    struct worker_opts opts;
    struct mc_engine *engine;
    struct worker *worker;
    char why[512] = "";
    int code;

    signals_block();
    code = model_open(cli, &engine);
    if (code != CLI_OK)
        return code;
    fill_options(cli->set, engine, &opts);
    if (worker_create(&opts, &worker, why, sizeof(why)) != MC_OK) {
        code = cli_fail(cli, CLI_FAILED, "%s", why);
        goto undo_engine;
    }
    signals_watch(stop, worker, cli->set->drain_ms);
    say_ready(cli, worker);
    enum mc_status status = worker_wait(worker, UINT32_MAX);
    if (status != MC_OK)
        code = cli_fail(cli, CLI_FAILED, "the worker ended: %s", mc_status_str(status));
    signals_unwatch();
    worker_destroy(worker);
undo_engine:
    mc_engine_close(engine);
    return code;
}
