/* flags.h - the flags of mooncake_master as its users write them.
 *
 *     --flag value   --flag=value   --flag (booleans: true)   --noflag   -flag; a YAML or JSON file by --config_path, below argv
 *
 * Each flag of the existing program has a row that says what becomes of it here: it is taken; it only tunes what this master
 * does by itself, and is named once as without effect; or it turns on what is not there yet, and then the program does not
 * start. What is no flag at all is refused with the nearest name.
 * Pure but for reading the file. Threads: one. */
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

/* Defaults, then the file, then argv (with the program's name). MC_OK: `message` has what has no effect, or nothing. MC_EINVAL:
 * it says what is wrong. */
enum mc_status master_flags_parse(int argc, char **argv, struct master_flags *out, struct buf *message);

/* Every flag with what becomes of it. */
void master_flags_help(struct buf *out);

#endif
