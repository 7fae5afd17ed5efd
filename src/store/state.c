/* state.c - see state.h. */
#include "store/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "base/xdg.h"
#include "net/frame.h"

enum { FILE_MAX = 128 };

static enum mc_status file_path(const struct state_dir *dir, const char *name, char path[600])
{
    return snprintf(path, 600, "%s/%s", dir->path, name) < 600 ? MC_OK : MC_ETOOBIG;
}

enum mc_status state_open(const char *path, const char *fallback, struct state_dir *dir)
{
    char lock[600];
    enum mc_status status = MC_OK;

    *dir = (struct state_dir){.lock_fd = -1};
    if (path ? strcmp(path, "none") == 0 : !fallback)
        return MC_OK;
    if (!path)
        status = xdg_path(XDG_STATE, fallback, dir->path, sizeof(dir->path));
    else if (strlen(path) < sizeof(dir->path))
        strcpy(dir->path, path);
    else
        status = MC_ETOOBIG;
    if (status == MC_OK)
        status = path_make_dirs(dir->path);
    if (status == MC_OK)
        status = file_path(dir, "lock", lock);
    if (status != MC_OK) {
        log_error("state directory %s: %s", path ? path : fallback, mc_status_str(status));
        return status;
    }
    dir->lock_fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (dir->lock_fd < 0) {
        log_error("cannot open %s: %m", lock);
        return MC_ESYS;
    }
    if (flock(dir->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        status = errno == EWOULDBLOCK ? MC_EEXIST : MC_ESYS;
        if (status == MC_EEXIST)
            log_error(
                "state directory %s is in use by another process: end that one, or name another directory", dir->path);
        else
            log_error("cannot lock %s: %m", lock);
        state_close(dir);
    }
    return status;
}

void state_close(struct state_dir *dir)
{
    if (dir->lock_fd >= 0)
        close(dir->lock_fd);
    dir->lock_fd = -1;
}

static enum mc_status identity_write(const char *file, const uint8_t uuid[16], uint32_t epoch)
{
    char text[FILE_MAX], id[UUID_TEXT];
    int len = snprintf(text, sizeof(text), "%s %u\n", uuid_format(uuid, id), epoch);

    return path_write_atomic(file, text, (size_t)len);
}

/* "<uuid> <epoch>" */
static enum mc_status identity_parse(const char *text, uint8_t uuid[16], uint32_t *epoch)
{
    char id[UUID_TEXT];
    unsigned long value;
    char *end;

    if (strlen(text) < UUID_TEXT || text[UUID_TEXT - 1] != ' ')
        return MC_EPROTO;
    memcpy(id, text, UUID_TEXT - 1);
    id[UUID_TEXT - 1] = '\0';
    errno = 0;
    value = strtoul(text + UUID_TEXT, &end, 10);
    if (uuid_parse(id, uuid) != MC_OK || errno || end == text + UUID_TEXT || *end != '\n' || value >= UINT32_MAX)
        return MC_EPROTO;
    *epoch = (uint32_t)value;
    return MC_OK;
}

enum mc_status state_identity(const struct state_dir *dir, uint8_t uuid[16], uint32_t *epoch)
{
    char file[600], aside[610];
    char *text = NULL;
    size_t len;
    uint32_t last = 0;
    enum mc_status status;

    if (!dir->path[0]) {
        random_bytes(uuid, 16);
        *epoch = 1;
        return MC_OK;
    }
    status = file_path(dir, "identity", file);
    if (status != MC_OK)
        return status;
    status = path_read(file, FILE_MAX, &text, &len);
    if (status == MC_OK)
        status = identity_parse(text, uuid, &last);
    free(text);
    if (status == MC_EPROTO || status == MC_ETOOBIG) {
        snprintf(aside, sizeof(aside), "%s.bad", file);
        log_warn("%s is not an identity, kept as %s; drawing a new one", file, aside);
        if (rename(file, aside) != 0)
            log_warn("cannot rename %s: %m", file);
        status = MC_ENOENT;
    }
    if (status == MC_ENOENT) {
        random_bytes(uuid, 16);
        status = MC_OK;
    }
    if (status != MC_OK)
        return status;
    *epoch = last + 1;
    return identity_write(file, uuid, *epoch);
}

enum mc_status state_number(const struct state_dir *dir, const char *name, uint64_t *value)
{
    char file[600];
    char *text = NULL;
    size_t len;
    enum mc_status status = MC_ENOENT;

    *value = 0;
    if (dir->path[0])
        status = file_path(dir, name, file);
    if (dir->path[0] && status == MC_OK)
        status = path_read(file, FILE_MAX, &text, &len);
    if (status == MC_OK) {
        *value = strtoull(text, NULL, 10);
        free(text);
    }
    return status == MC_ENOENT ? MC_OK : status;
}

enum mc_status state_number_set(const struct state_dir *dir, const char *name, uint64_t value)
{
    char file[600], text[32];
    enum mc_status status;

    if (!dir->path[0])
        return MC_OK;
    status = file_path(dir, name, file);
    if (status != MC_OK)
        return status;
    return path_write_atomic(file, text, (size_t)snprintf(text, sizeof(text), "%llu\n", (unsigned long long)value));
}
