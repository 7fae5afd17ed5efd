/* xdg.h - where files of the user go, made safely.
 *
 *   cache    $XDG_CACHE_HOME/mooncake   or ~/.cache/mooncake         may be deleted at any time
 *   state    $XDG_STATE_HOME/mooncake   or ~/.local/state/mooncake   node UUID, epochs, logs
 *   runtime  $XDG_RUNTIME_DIR/mooncake  or /tmp/mooncake-<uid>       sockets; 0700 and ours, or refused
 *
 * Threads: any (reads the environment). */
#ifndef BASE_XDG_H
#define BASE_XDG_H

#include <stddef.h>

#include "mooncake/status.h"

enum xdg_dir { XDG_CACHE, XDG_STATE, XDG_RUNTIME };

/* Path of the directory (with `/sub` behind it when sub is not NULL), created with its parents when missing, mode 0700.
 *   MC_OK  *out holds it    MC_ETOOBIG  does not fit `size`    MC_ENOENT  no home directory known
 *   MC_EPERM  the runtime directory exists but is not ours alone (logged)    MC_ESYS  could not be made (logged) */
enum mc_status xdg_path(enum xdg_dir dir, const char *sub, char *out, size_t size);

/* mkdir -p with mode 0700 for what is missing. MC_OK, MC_ETOOBIG, MC_ESYS (logged). */
enum mc_status path_make_dirs(const char *path);

/* Is `path` a real directory (no link), owned by us, mode 0700? Creates it when missing.
 * MC_OK, MC_EPERM (logged with the reason), MC_ESYS (logged). */
enum mc_status path_private_dir(const char *path);

/* Whole small file into memory given to the caller (free), NUL behind it. len_max bounds it.
 * MC_OK, MC_ENOENT, MC_ETOOBIG, MC_ENOMEM, MC_ESYS. Not logged: the caller knows what it means. */
enum mc_status path_read(const char *path, size_t len_max, char **text, size_t *len);

/* Write a small file so that after a crash either the old or the new content is there (temporary file, fsync, rename).
 * Mode 0600. MC_OK, MC_ETOOBIG, MC_ESYS (logged). */
enum mc_status path_write_atomic(const char *path, const void *data, size_t len);

#endif
