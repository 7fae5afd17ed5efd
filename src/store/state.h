/* state.h - the state directory of a server: a lock, an identity, numbers that only go up.
 *
 *   lock       held while the server lives: a second one on the same directory is refused
 *   identity   "<uuid> <epoch>": drawn once, the epoch is one more at every start
 *   <name>     a decimal number
 *
 * Files are replaced whole, so a crash leaves the old or the new content. Threads: one. May block on the disk. */
#ifndef STORE_STATE_H
#define STORE_STATE_H

#include <stddef.h>
#include <stdint.h>

#include "mooncake/status.h"

struct state_dir {
    char path[512]; /* "": there is none; identity is then random and numbers are not kept */
    int lock_fd;
};

/* `path` NULL: `fallback` in the user's state directory; "none", or neither: no directory. Creates what is missing, with mode 0700.
 * MC_EEXIST: another process holds it (logged); MC_ETOOBIG, MC_EPERM, MC_ENOENT, MC_ESYS (logged). */
enum mc_status state_open(const char *path, const char *fallback, struct state_dir *dir);
void state_close(struct state_dir *dir);

/* Identity for this start. A file that cannot be read as one is kept aside and a new identity drawn (logged). */
enum mc_status state_identity(const struct state_dir *dir, uint8_t uuid[16], uint32_t *epoch);

/* Number of that name, 0 when there is none. */
enum mc_status state_number(const struct state_dir *dir, const char *name, uint64_t *value);
enum mc_status state_number_set(const struct state_dir *dir, const char *name, uint64_t value);

#endif
