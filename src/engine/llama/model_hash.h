/* model_hash.h - SHA-256 of a large file, remembered between starts. */
#ifndef LLAMA_MODEL_HASH_H
#define LLAMA_MODEL_HASH_H

#include <stdint.h>

#include "mooncake/status.h"

/* Hash of the file's content. A note in $XDG_CACHE_HOME/mooncake/engine/hashes keeps it together with device, inode, size
 * and times of the file; the file is read again when any of them changed (a 40 GB model takes half a minute to hash).
 * MC_ENOENT, MC_ESYS. Any thread; blocks on the disk. */
enum mc_status model_hash(const char *path, uint8_t hash[32]);

#endif
