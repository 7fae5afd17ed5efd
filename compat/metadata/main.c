/* main.c - mooncake_http_metadata_server: the names of engines over HTTP, in a process of its own.
 *
 * SIGTERM and SIGINT end it, and what it holds with it. */
#include <stdio.h>

#include "base/log.h"
#include "compat/metadata/metadata.h"
#include "compat/program/flags.h"
#include "compat/program/program.h"

struct metadata_flags {
    char host[256];
    uint32_t port;
    bool insecure, help, version;
};

static const struct flag_row rows[] = {
    {"port", FLAG_PORT, FLAG_AT(metadata_flags, port), NULL, "where it listens (8080)"},
    {"host", FLAG_TEXT, FLAG_AT(metadata_flags, host), NULL, "its address (127.0.0.1)"},
    {"insecure", FLAG_SWITCH, FLAG_AT(metadata_flags, insecure), NULL,
        "allow addresses that mean every interface; nothing is authenticated (false)"},
    {"help", FLAG_SWITCH, FLAG_AT(metadata_flags, help), NULL, "print this"},
    {"version", FLAG_SWITCH, FLAG_AT(metadata_flags, version), NULL, "print the version"},

    {"log_level", FLAG_TEXT, FLAG_TUNES},
};

enum { ROWS = sizeof(rows) / sizeof(*rows) };

static void print_help(struct buf *out)
{
    buf_printf(
        out, "mooncake_http_metadata_server - names of engines over HTTP, with the flags of the existing Mooncake\n\n");
    flags_help(rows, ROWS, out);
}

static void stop(void *loop)
{
    loop_stop(loop);
}

static void say_ready(const struct metadata *metadata)
{
    char at[ADDR_TEXT_MAX];

    addr_format(metadata_addr(metadata), at);
    printf("ready metadata=%s\n", at);
    fflush(stdout);
}

static int serve(const struct metadata_flags *flags)
{
    char listen[PROGRAM_ADDRESS_MAX];
    struct metadata *metadata = NULL;
    enum mc_status status = MC_ENOMEM;
    struct addr addr;
    struct loop *loop;

    if (!program_address("host", flags->host, flags->port, flags->insecure, listen))
        return PROGRAM_USAGE;
    loop = loop_create("mc-metadata");
    if (loop)
        status = addr_parse(listen, 0, &addr, NULL);
    if (status == MC_OK)
        status = metadata_start(loop, &addr, &metadata);
    if (status == MC_OK)
        status = program_on_signal(stop, loop);
    if (status == MC_OK) {
        say_ready(metadata);
        loop_run(loop);
        program_join_signal();
    }
    metadata_stop(metadata);
    if (loop)
        loop_destroy(loop);
    return status == MC_OK ? 0 : PROGRAM_FAILED;
}

int main(int argc, char **argv)
{
    struct metadata_flags flags = {.host = "127.0.0.1", .port = 8080};
    struct buf message = program_begin("mooncake_http_metadata_server");
    enum mc_status status = flags_parse(rows, ROWS, argc, argv, &flags, &message);
    int code;

    if (program_goes_on(&message, status, flags.help, flags.version, print_help, &code)) {
        program_block_signals();
        code = serve(&flags);
    }
    return code;
}
