/* flags.h - what mooncake_master was told. The rows in flags.c say what becomes of each flag of the existing program.
 * Threads: one. */
#ifndef COMPAT_MASTER_FLAGS_H
#define COMPAT_MASTER_FLAGS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "mooncake/status.h"

struct master_flags {
    char rpc_address[256], metrics_host[256], metadata_host[256], state_dir[512];
    uint32_t rpc_port, metrics_port, metadata_port;
    uint32_t lease_ms;
    bool admin, metadata, insecure, help, version;
};

/* As flags_parse(), with the defaults. */
enum mc_status master_flags_parse(int argc, char **argv, struct master_flags *out, struct buf *message);
void master_flags_help(struct buf *out);

#endif
