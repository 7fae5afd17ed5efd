/* flags.c - the flags of mooncake_client. See flags.h and compat/program/flags.h. */
#include "compat/client/flags.h"

#include "compat/program/flags.h"

static const struct flag_row rows[] = {
    {"host", FLAG_TEXT, FLAG_AT(client_flags, host), NULL, "name and address of this process (127.0.0.1)"},
    {"port", FLAG_PORT, FLAG_AT(client_flags, port), NULL, "where clients without memory of their own ask (50052)"},
    {"global_segment_size", FLAG_SIZE, FLAG_AT(client_flags, segment), NULL, "memory given to the pool (4 GB)"},
    {"local_buffer_size", FLAG_SIZE, FLAG_AT(client_flags, local_buffer), NULL, "of this process's own puts (0)"},
    {"metadata_server", FLAG_TEXT, FLAG_AT(client_flags, metadata), NULL, "not needed"},
    {"master_server_address", FLAG_TEXT, FLAG_AT(client_flags, master), NULL, "the master (127.0.0.1:50051)"},
    {"protocol", FLAG_TEXT, FLAG_AT(client_flags, protocol), NULL, "tcp"},
    {"device_names", FLAG_TEXT, FLAG_AT(client_flags, devices), NULL, "of rdma; ignored"},
    {"tenant_id", FLAG_TEXT, FLAG_AT(client_flags, tenant), NULL, "whose keys clients see that ask here (default)"},
    {"enable_http_server", FLAG_SWITCH, FLAG_AT(client_flags, http), NULL, "the pages at http_port as well (true)"},
    {"http_port", FLAG_PORT, FLAG_AT(client_flags, http_port), NULL, "/health and /metrics (9300)"},
    {"insecure", FLAG_SWITCH, FLAG_AT(client_flags, insecure), NULL,
        "allow addresses that mean every interface; nothing is authenticated (false)"},
    {"help", FLAG_SWITCH, FLAG_AT(client_flags, help), NULL, "print this"},
    {"version", FLAG_SWITCH, FLAG_AT(client_flags, version), NULL, "print the version"},

    {"threads", FLAG_NUMBER, FLAG_TUNES},
    {"start_offload_rpc_server", FLAG_SWITCH, FLAG_TUNES},

    {"enable_offload", FLAG_SWITCH, FLAG_WITHOUT("false"), "copies on SSD"},
};

enum { ROWS = sizeof(rows) / sizeof(*rows) };

enum mc_status client_flags_parse(int argc, char **argv, struct client_flags *out, struct buf *message)
{
    *out = (struct client_flags){.host = "127.0.0.1",
        .port = 50052,
        .segment = 4ull << 30,
        .master = "127.0.0.1:50051",
        .protocol = "tcp",
        .tenant = "default",
        .http = true,
        .http_port = 9300};
    return flags_parse(rows, ROWS, argc, argv, out, message);
}

void client_flags_help(struct buf *out)
{
    buf_printf(out, "mooncake_client - memory for the Store beside engines that have none, with the flags of the "
                    "existing Mooncake\n\n");
    flags_help(rows, ROWS, out);
}
