/* main.c - mooncake_master: the master of our Store under the name, flags and pages of the existing one.
 *
 * SIGTERM and SIGINT end it. It can be killed and started again at the same address: the new one fills from the nodes. */
#include <stdio.h>

#include "compat/env/env.h"
#include "compat/master/flags.h"
#include "compat/metadata/metadata.h"
#include "compat/master/pages.h"
#include "compat/program/program.h"

static void stop(void *master)
{
    store_master_stop(master);
}

static enum mc_status start_metadata(struct store_master *master, const char *at, struct metadata **out)
{
    struct addr addr;
    enum mc_status status = addr_parse(at, 0, &addr, NULL);

    return status == MC_OK ? metadata_start(store_master_loop(master), &addr, out) : status;
}

static void say_ready(const struct store_master *master, const struct metadata *metadata)
{
    char at[ADDR_TEXT_MAX] = "none";

    if (metadata)
        addr_format(metadata_addr(metadata), at);
    printf("ready master=%s admin=%s metadata=%s\n", store_master_address(master), store_master_admin(master), at);
    fflush(stdout);
}

static int serve(const struct master_flags *flags)
{
    char listen[PROGRAM_ADDRESS_MAX], admin[PROGRAM_ADDRESS_MAX], metadata_at[PROGRAM_ADDRESS_MAX];
    struct store_master_opts opts = {.listen = listen,
        .admin = flags->admin ? admin : "none",
        .state_dir = flags->state_dir[0] ? flags->state_dir : NULL,
        .lease_ms = flags->lease_ms ? flags->lease_ms : 1,
        .routes = pages_routes,
        .route_count = pages_route_count};
    struct store_master *master = NULL;
    struct metadata *metadata = NULL;
    enum mc_status status = MC_ENOMEM;

    if (!program_address("rpc_address", flags->rpc_address, flags->rpc_port, flags->insecure, listen) ||
        !program_address("metrics_host", flags->metrics_host, flags->metrics_port, flags->insecure, admin) ||
        !program_address(
            "http_metadata_server_host", flags->metadata_host, flags->metadata_port, flags->insecure, metadata_at))
        return PROGRAM_USAGE;
    opts.metrics = metrics_create();
    if (opts.metrics)
        status = store_master_create(&opts, &master);
    if (status != MC_OK)
        goto undo_metrics;
    pages_start(opts.metrics);
    if (flags->metadata)
        status = start_metadata(master, metadata_at, &metadata);
    if (status == MC_OK)
        status = program_on_signal(stop, master);
    if (status == MC_OK) {
        say_ready(master, metadata);
        store_master_run(master);
        program_join_signal();
    }
    metadata_stop(metadata);
    pages_stop();
    store_master_destroy(master);
undo_metrics:
    metrics_destroy(opts.metrics);
    return status == MC_OK ? 0 : PROGRAM_FAILED;
}

int main(int argc, char **argv)
{
    struct master_flags flags;
    struct buf message = program_begin("mooncake_master");
    enum mc_status status = master_flags_parse(argc, argv, &flags, &message);
    int code;

    if (program_goes_on(&message, status, flags.help, flags.version, master_flags_help, &code)) {
        compat_env_tell(COMPAT_PART_STORE);
        program_block_signals();
        code = serve(&flags);
    }
    return code;
}
