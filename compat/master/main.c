/* main.c - mooncake_master: the master of our Store under the name, flags and pages of the existing one.
 *
 * SIGTERM and SIGINT end it. It can be killed and started again at the same address: the new one fills from the nodes. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "compat/master/flags.h"
#include "compat/master/metadata.h"
#include "compat/master/pages.h"

enum { USAGE = 2, FAILED = 1 };

/* "host:port", as the user wrote the host; every interface only when he said that he means it. */
static bool address(const struct master_flags *flags, const char *flag, const char *host, uint32_t port, char out[300])
{
    struct addr addr;
    const char *why;

    snprintf(out, 300, strchr(host, ':') && host[0] != '[' ? "[%s]:%u" : "%s:%u", host, port);
    if (addr_parse(out, 0, &addr, &why) != MC_OK) {
        log_error("--%s=%s: %s", flag, host, why);
        return false;
    }
    if ((strcmp(addr.host, "0.0.0.0") == 0 || strcmp(addr.host, "::") == 0) && !flags->insecure) {
        log_error("--%s=%s is every interface, and nothing is authenticated: name one address, or add --insecure", flag,
            host);
        return false;
    }
    if (!addr_is_loopback(&addr))
        log_warn("%s is reachable from outside and unauthenticated: keep it on a trusted network", out);
    return true;
}

static void *wait_for_end(void *arg)
{
    sigset_t set;
    int got;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigwait(&set, &got);
    store_master_stop(arg);
    return NULL;
}

/* Before any thread is made. */
static void block_signals(void)
{
    sigset_t set;

    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static int serve(const struct master_flags *flags)
{
    char listen[300], admin[300], metadata_at[300];
    struct metrics *metrics;
    struct store_master_opts opts = {.listen = listen,
        .admin = flags->admin ? admin : "none",
        .state_dir = flags->state_dir[0] ? flags->state_dir : NULL,
        .lease_ms = flags->lease_ms ? flags->lease_ms : 1,
        .routes = pages_routes,
        .route_count = pages_route_count};
    struct store_master *master;
    struct metadata *metadata = NULL;
    struct addr addr;
    pthread_t waiter;
    enum mc_status status = MC_ENOMEM;

    if (!address(flags, "rpc_address", flags->rpc_address, flags->rpc_port, listen) ||
        !address(flags, "metrics_host", flags->metrics_host, flags->metrics_port, admin) ||
        !address(flags, "http_metadata_server_host", flags->metadata_host, flags->metadata_port, metadata_at))
        return USAGE;
    metrics = opts.metrics = metrics_create();
    if (metrics)
        status = store_master_create(&opts, &master);
    if (status != MC_OK) {
        metrics_destroy(metrics);
        return FAILED;
    }
    pages_start(metrics);
    if (flags->metadata)
        status = addr_parse(metadata_at, 0, &addr, NULL) == MC_OK
                     ? metadata_start(store_master_loop(master), &addr, &metadata)
                     : MC_EINVAL;
    if (status == MC_OK && pthread_create(&waiter, NULL, wait_for_end, master) != 0)
        status = MC_ESYS;
    if (status == MC_OK) {
        char at[ADDR_TEXT_MAX] = "none";

        if (metadata)
            addr_format(metadata_addr(metadata), at);
        printf("ready master=%s admin=%s metadata=%s\n", store_master_address(master), store_master_admin(master), at);
        fflush(stdout);
        store_master_run(master);
        pthread_join(waiter, NULL);
    }
    metadata_stop(metadata);
    pages_stop();
    store_master_destroy(master);
    metrics_destroy(metrics);
    return status == MC_OK ? 0 : FAILED;
}

int main(int argc, char **argv)
{
    struct master_flags flags;
    struct buf message;
    enum mc_status status;
    int code = USAGE;

    log_set_name("mooncake_master");
    buf_init(&message, 1 << 20);
    status = master_flags_parse(argc, argv, &flags, &message);
    if (status == MC_OK && flags.help) {
        buf_reset(&message);
        master_flags_help(&message);
        fwrite(message.data, 1, message.len, stdout);
        code = 0;
    } else if (status == MC_OK && flags.version) {
        printf("mooncake_master %s\n", MASTER_VERSION);
        code = 0;
    } else {
        if (message.len)
            fwrite(message.data, 1, message.len, stderr);
        block_signals();
        code = status == MC_OK ? serve(&flags) : USAGE;
    }
    buf_fini(&message);
    return code;
}
