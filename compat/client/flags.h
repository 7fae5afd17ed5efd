/* flags.h - what mooncake_client was told. Threads: one. */
#ifndef COMPAT_CLIENT_FLAGS_H
#define COMPAT_CLIENT_FLAGS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "mooncake/status.h"

struct client_flags {
    char host[256], master[256], protocol[32], devices[256], tenant[128], metadata[512];
    uint32_t port, http_port;
    uint64_t segment, local_buffer;
    bool http, insecure, help, version;
};

/* As flags_parse(), with the defaults. */
enum mc_status client_flags_parse(int argc, char **argv, struct client_flags *out, struct buf *message);
void client_flags_help(struct buf *out);

#endif
