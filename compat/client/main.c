/* main.c - mooncake_client: a process that owns memory of the pool and outlives the engines of its host.
 *
 * Engines beside it are clients without a segment (setup_dummy). In the existing one those send every request and byte through this
 * process; here they are clients of the master like any other, and read this process's memory where it lies, because both are on one
 * host. All they need of us is where the master is: GET /v1/store at --port says so.
 *
 *     /v1/store   {"master", "tenant", "protocol", "segment"}      /health      /metrics
 *
 * SIGTERM and SIGINT end it, and what it holds with it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compat/client/flags.h"
#include "compat/env/env.h"
#include "compat/program/program.h"
#include "compat/store/client.h"
#include "net/http.h"

struct server {
    const struct client_flags *flags;
    struct compat_client *client;
    struct loop *loop;
    struct http_server *service, *admin;
};

/* ---- pages ---- */

static void http_store(struct http_req *req)
{
    const struct server *server = http_user(req);
    char segment[COMPAT_HOST_MAX];

    compat_client_hostname(server->client, segment);
    http_reply_json(req, 200,
        json_pack("{s:s, s:s, s:s, s:s}", "master", server->flags->master, "tenant", server->flags->tenant, "protocol",
            server->flags->protocol, "segment", segment));
}

/* 503 while the master does not answer: a supervisor should know, though nothing needs to be restarted. */
static void http_health(struct http_req *req)
{
    const struct server *server = http_user(req);
    int health = compat_client_health(server->client);

    http_reply_json(req, health ? 503 : 200,
        json_pack("{s:b, s:s}", "success", health == 0, "status", health ? "the master does not answer" : "OK"));
}

static void http_metrics(struct http_req *req)
{
    const struct server *server = http_user(req);
    struct buf text;

    buf_init(&text, 65536);
    buf_printf(&text,
        "# HELP mooncake_client_segment_bytes Memory this process gives to the pool.\n"
        "# TYPE mooncake_client_segment_bytes gauge\nmooncake_client_segment_bytes %llu\n"
        "# HELP mooncake_client_master_up 1 while the master answers.\n"
        "# TYPE mooncake_client_master_up gauge\nmooncake_client_master_up %d\n",
        (unsigned long long)server->flags->segment, compat_client_health(server->client) == 0);
    http_reply(req, 200, "text/plain; version=0.0.4; charset=utf-8", buf_slice(&text));
    buf_fini(&text);
}

static const struct http_route routes[] = {
    {"GET", "/v1/store", http_store},
    {"GET", "/health", http_health},
    {"GET", "/metrics", http_metrics},
};

/* ---- life ---- */

static enum mc_status listen_at(struct server *server, const char *text, struct http_server **out)
{
    struct http_opts opts = {.routes = routes, .route_count = sizeof(routes) / sizeof(*routes), .user = server};
    enum mc_status status = addr_parse(text, 0, &opts.addr, NULL);

    return status == MC_OK ? http_server_create(server->loop, &opts, out) : status;
}

static int set_up_store(struct server *server)
{
    const struct client_flags *flags = server->flags;
    struct compat_setup setup = {.local_hostname = flags->host,
        .metadata_server = flags->metadata,
        .global_segment_size = flags->segment,
        .local_buffer_size = flags->local_buffer,
        .protocol = flags->protocol,
        .devices = flags->devices,
        .master = flags->master,
        .tenant = flags->tenant};

    if (flags->insecure)
        setenv("MOONCAKE_INSECURE", "1", 1);
    server->client = compat_client_create();
    return server->client ? compat_client_setup(server->client, &setup) : COMPAT_INTERNAL;
}

static void stop(void *loop)
{
    loop_stop(loop);
}

static void say_ready(struct server *server)
{
    char service[ADDR_TEXT_MAX], admin[ADDR_TEXT_MAX] = "none", segment[COMPAT_HOST_MAX];

    addr_format(http_server_addr(server->service), service);
    if (server->admin)
        addr_format(http_server_addr(server->admin), admin);
    compat_client_hostname(server->client, segment);
    printf("ready client=%s admin=%s segment=%s\n", service, admin, segment);
    fflush(stdout);
}

static int serve(const struct client_flags *flags)
{
    char service[PROGRAM_ADDRESS_MAX], admin[PROGRAM_ADDRESS_MAX];
    struct server server = {.flags = flags};
    enum mc_status status = MC_ENOMEM;

    if (!program_address("host", flags->host, flags->port, flags->insecure, service) ||
        !program_address("host", flags->host, flags->http_port, flags->insecure, admin))
        return PROGRAM_USAGE;
    if (set_up_store(&server) != COMPAT_OK)
        goto undo_client;
    server.loop = loop_create("mc-client");
    if (server.loop)
        status = listen_at(&server, service, &server.service);
    if (status == MC_OK && flags->http)
        status = listen_at(&server, admin, &server.admin);
    if (status == MC_OK)
        status = program_on_signal(stop, server.loop);
    if (status == MC_OK) {
        say_ready(&server);
        loop_run(server.loop);
        program_join_signal();
    }
    if (server.service)
        http_server_destroy(server.service);
    if (server.admin)
        http_server_destroy(server.admin);
    if (server.loop)
        loop_destroy(server.loop);
undo_client:
    compat_client_destroy(server.client);
    return status == MC_OK ? 0 : PROGRAM_FAILED;
}

int main(int argc, char **argv)
{
    struct client_flags flags;
    struct buf message = program_begin("mooncake_client");
    enum mc_status status = client_flags_parse(argc, argv, &flags, &message);
    int code;

    if (program_goes_on(&message, status, flags.help, flags.version, client_flags_help, &code)) {
        compat_env_tell(COMPAT_PART_STORE);
        program_block_signals();
        code = serve(&flags);
    }
    return code;
}
