/* scratch_test.h - directories for tests, gone when the program ends, whether its tests passed or not.
 *
 *     char dir[SCRATCH_PATH];
 *     scratch_dir(dir);           a new one, empty, 0700, ours
 *
 * All of a program lie in one directory below /tmp, which others may pass through (a test asks what another user gets to see).
 * Who expects his own to be empty at the end says so with rmdir(). Only a program that is killed leaves anything behind; a
 * forked child leaves its parent's alone.
 * Threads: one at a time. */
#ifndef BASE_SCRATCH_TEST_H
#define BASE_SCRATCH_TEST_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SCRATCH_PATH 32

static struct {
    char root[sizeof("/tmp/mc-test-XXXXXX")];
    pid_t owner; /* 0: nobody has asked yet */
    unsigned count;
} scratch;

static inline int scratch_remove_one(const char *path, const struct stat *info, int type, struct FTW *place)
{
    return remove(path);
}

static inline void scratch_remove(void)
{
    if (scratch.owner == getpid())
        nftw(scratch.root, scratch_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline void scratch_dir(char path[SCRATCH_PATH])
{
    if (!scratch.owner) {
        snprintf(scratch.root, sizeof(scratch.root), "/tmp/mc-test-XXXXXX");
        if (mkdtemp(scratch.root) && chmod(scratch.root, 0711) == 0 && atexit(scratch_remove) == 0)
            scratch.owner = getpid();
    }
    snprintf(path, SCRATCH_PATH, "%s/%u", scratch.root, ++scratch.count);
    if (!scratch.owner || mkdir(path, 0700) != 0) {
        perror(path);
        exit(2);
    }
}

#endif
