/* xdg.c - user directories and small files, made with modes that keep others out. */
#include "base/xdg.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

static bool fits(char *out, size_t size, const char *format, const char *a, const char *b)
{
    int n = snprintf(out, size, format, a, b);

    return n >= 0 && (size_t)n < size;
}

/* Relative values of XDG variables are to be ignored, says the specification. */
static const char *absolute_env(const char *name)
{
    const char *value = getenv(name);

    return value && value[0] == '/' ? value : NULL;
}

static enum mc_status home_based(const char *env, const char *below_home, char *out, size_t size)
{
    const char *base = absolute_env(env), *home = absolute_env("HOME");

    if (base)
        return fits(out, size, "%s%s", base, "/mooncake") ? MC_OK : MC_ETOOBIG;
    if (!home)
        return MC_ENOENT;
    return fits(out, size, "%s/%s/mooncake", home, below_home) ? MC_OK : MC_ETOOBIG;
}

static enum mc_status runtime_base(char *out, size_t size)
{
    const char *base = absolute_env("XDG_RUNTIME_DIR");
    char uid[16];

    if (base)
        return fits(out, size, "%s%s", base, "/mooncake") ? MC_OK : MC_ETOOBIG;
    snprintf(uid, sizeof(uid), "%u", (unsigned)getuid());
    return fits(out, size, "/tmp/mooncake-%s%s", uid, "") ? MC_OK : MC_ETOOBIG;
}

enum mc_status path_make_dirs(const char *path)
{
    char part[PATH_MAX];
    size_t len = strlen(path);

    if (len >= sizeof(part))
        return MC_ETOOBIG;
    for (size_t i = 1; i <= len; i++) {
        if (path[i] != '/' && path[i] != 0)
            continue;
        memcpy(part, path, i);
        part[i] = 0;
        if (mkdir(part, 0700) != 0 && errno != EEXIST) {
            log_error("cannot make directory %s: %m", part);
            return MC_ESYS;
        }
    }
    return MC_OK;
}

enum mc_status path_private_dir(const char *path)
{
    struct stat st;

    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        log_error("cannot make directory %s: %m", path);
        return MC_ESYS;
    }
    if (lstat(path, &st) != 0) {
        log_error("cannot stat %s: %m", path);
        return MC_ESYS;
    }
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077) != 0) {
        log_error("directory %s must be a real directory of uid %u with mode 0700; it has uid %u mode %04o", path,
            (unsigned)geteuid(), (unsigned)st.st_uid, (unsigned)(st.st_mode & 07777));
        return MC_EPERM;
    }
    return MC_OK;
}

static enum mc_status base_path(enum xdg_dir dir, char *out, size_t size)
{
    switch (dir) {
    case XDG_CACHE: return home_based("XDG_CACHE_HOME", ".cache", out, size);
    case XDG_STATE: return home_based("XDG_STATE_HOME", ".local/state", out, size);
    case XDG_RUNTIME: return runtime_base(out, size);
    }
    return MC_EINVAL;
}

enum mc_status xdg_path(enum xdg_dir dir, const char *sub, char *out, size_t size)
{
    char base[PATH_MAX];
    enum mc_status status = base_path(dir, base, sizeof(base));

    if (status != MC_OK)
        return status;
    status = dir == XDG_RUNTIME ? path_private_dir(base) : path_make_dirs(base);
    if (status != MC_OK)
        return status;
    if (!fits(out, size, sub ? "%s/%s" : "%s%s", base, sub ? sub : ""))
        return MC_ETOOBIG;
    return sub ? path_make_dirs(out) : MC_OK;
}

/* Reads to the end or to len_max + 1 bytes, whatever stat says (files in /proc have no size). */
static enum mc_status read_all(int fd, size_t len_max, char **text, size_t *len)
{
    size_t cap = 4096, n = 0;
    char *data = malloc(cap), *bigger;
    enum mc_status status = MC_ENOMEM;

    while (data) {
        ssize_t got = read(fd, data + n, cap - 1 - n);

        if (got < 0 && errno == EINTR)
            continue;
        status = got < 0 ? MC_ESYS : n + (size_t)got > len_max ? MC_ETOOBIG : MC_OK;
        if (status != MC_OK)
            break;
        n += (size_t)got;
        if (got == 0) {
            data[n] = 0;
            *text = data;
            *len = n;
            return MC_OK;
        }
        if (n + 1 < cap)
            continue;
        status = MC_ENOMEM;
        bigger = realloc(data, cap *= 2);
        if (!bigger)
            break;
        data = bigger;
    }
    free(data);
    return status;
}

enum mc_status path_read(const char *path, size_t len_max, char **text, size_t *len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    enum mc_status status;

    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR ? MC_ENOENT : MC_ESYS;
    status = read_all(fd, len_max, text, len);
    close(fd);
    return status;
}

static bool write_and_sync(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        data += n;
        len -= (size_t)n;
    }
    return fsync(fd) == 0;
}

/* The rename is only on disk once the directory is. */
static void sync_parent(const char *path)
{
    char dir[PATH_MAX];
    char *slash;
    int fd;

    snprintf(dir, sizeof(dir), "%s", path);
    slash = strrchr(dir, '/');
    if (!slash)
        snprintf(dir, sizeof(dir), ".");
    else
        slash[slash == dir ? 1 : 0] = 0;
    fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    fsync(fd);
    close(fd);
}

enum mc_status path_write_atomic(const char *path, const void *data, size_t len)
{
    char temp[PATH_MAX];
    bool ok;
    int fd;

    if (!fits(temp, sizeof(temp), "%s%s", path, ".XXXXXX"))
        return MC_ETOOBIG;
    fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0) {
        log_error("cannot create %s: %m", temp);
        return MC_ESYS;
    }
    ok = write_and_sync(fd, data, len);
    if (close(fd) != 0)
        ok = false;
    if (!ok || rename(temp, path) != 0) {
        log_error("cannot write %s: %m", path);
        unlink(temp);
        return MC_ESYS;
    }
    sync_parent(path);
    return MC_OK;
}
