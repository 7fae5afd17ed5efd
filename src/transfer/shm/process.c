/* process.c - is a process stopped, or does it only lack a processor? See shm_impl.h.
 *
 * A stop takes effect where a thread leaves the kernel, so a thread that is stopped is inside no system call. A tracer stops it at
 * the entry of one too, so that ("t") says nothing. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "transfer/shm/shm_impl.h"

/* The letter of proc(5); '?' when it cannot be read, 'X' when the thread is gone. */
static char thread_letter(int tasks, const char *name)
{
    char path[32], text[512], *at;
    ssize_t n;
    int fd;

    snprintf(path, sizeof(path), "%.20s/stat", name);
    fd = openat(tasks, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 'X';
    n = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (n <= 0)
        return n < 0 ? 'X' : '?';
    text[n] = '\0';
    at = strrchr(text, ')'); /* its name may hold anything */
    return at && at[1] == ' ' ? at[2] : '?';
}

enum process_state process_state(pid_t pid)
{
    enum process_state state = PROCESS_STOPPED;
    const struct dirent *entry;
    char path[32];
    DIR *tasks;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    tasks = pid > 0 ? opendir(path) : NULL;
    if (!tasks)
        return pid > 0 && kill(pid, 0) != 0 && errno == ESRCH ? PROCESS_STOPPED : PROCESS_UNKNOWN;
    while (state != PROCESS_RUNNABLE && (entry = readdir(tasks)) != NULL) {
        char letter = entry->d_name[0] == '.' ? 'T' : thread_letter(dirfd(tasks), entry->d_name);

        if (letter == 'R' || letter == 'D')
            state = PROCESS_RUNNABLE;
        else if (!strchr("TXZ", letter))
            state = PROCESS_UNKNOWN;
    }
    closedir(tasks);
    return state;
}
