/* stopwatch_test.h - for tests with bounds: time in which the process had a processor.
 *
 *     struct stopwatch watch = stopwatch_start(0);
 *     ...
 *     assert_true(stopwatch_ms(&watch, NULL) <= 50);
 *
 * A bound is the product's promise where it can run. On a busy machine each wake-up waits its turn, some 10 ms with four runnable
 * threads to a processor; what the kernel says was waited is taken off. Where it does not count, nothing is.
 * Threads: any. */
#ifndef BASE_STOPWATCH_TEST_H
#define BASE_STOPWATCH_TEST_H

#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#include "base/clock.h"

static inline bool stopwatch_line(const char *path, char *line, int size)
{
    FILE *file = fopen(path, "re");
    bool got = file && fgets(line, size, file);

    if (file)
        fclose(file);
    return got;
}

/* What the host has kept from this machine: the eighth number of the first line of /proc/stat, in ticks. */
static inline uint64_t stopwatch_stolen(void)
{
    unsigned long long ticks = 0;
    char line[256];

    if (!stopwatch_line("/proc/stat", line, sizeof(line)) ||
        sscanf(line, "cpu %*u %*u %*u %*u %*u %*u %*u %llu", &ticks) != 1)
        return 0;
    return ticks * NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK);
}

#define STOPWATCH_THREADS 64

struct stopwatch_thread {
    pid_t tid;
    uint64_t waited_ns;
};

struct stopwatch {
    pid_t also; /* a process whose waiting is taken off too; 0: only ours */
    uint64_t start_ns, stolen_ns;
    unsigned count;
    struct stopwatch_thread threads[STOPWATCH_THREADS];
};

/* /proc/PID/task/TID/schedstat: "ran waited slices", in ns, of each thread. */
static inline void stopwatch_look(struct stopwatch *watch, pid_t pid)
{
    char dir[64], path[352], line[256];
    unsigned long long ran, waited;
    struct dirent *entry;
    DIR *list;

    snprintf(dir, sizeof(dir), "/proc/%d/task", (int)pid);
    list = opendir(dir);
    while (list && (entry = readdir(list)) != NULL && watch->count < STOPWATCH_THREADS)
        if (entry->d_name[0] != '.' &&
            snprintf(path, sizeof(path), "%s/%s/schedstat", dir, entry->d_name) < (int)sizeof(path) &&
            stopwatch_line(path, line, sizeof(line)) && sscanf(line, "%llu %llu", &ran, &waited) == 2)
            watch->threads[watch->count++] = (struct stopwatch_thread){(pid_t)atoi(entry->d_name), waited};
    if (list)
        closedir(list);
}

static inline struct stopwatch stopwatch_start(pid_t also)
{
    struct stopwatch watch = {.also = also, .stolen_ns = stopwatch_stolen()};

    stopwatch_look(&watch, getpid());
    if (also)
        stopwatch_look(&watch, also);
    watch.start_ns = now_ns();
    return watch;
}

static inline uint64_t stopwatch_before(const struct stopwatch *watch, pid_t tid)
{
    for (unsigned i = 0; i < watch->count; i++)
        if (watch->threads[i].tid == tid)
            return watch->threads[i].waited_ns;
    return 0;
}

/* Since the start. *raw_ms, may be NULL: with the waiting. Of a thread that has ended nothing is known any more. */
static inline uint64_t stopwatch_ms(const struct stopwatch *watch, uint64_t *raw_ms)
{
    uint64_t took = now_ns() - watch->start_ns, off;
    struct stopwatch now = stopwatch_start(watch->also);

    off = now.stolen_ns - watch->stolen_ns;
    for (unsigned i = 0; i < now.count; i++)
        off += now.threads[i].waited_ns - stopwatch_before(watch, now.threads[i].tid);
    if (raw_ms)
        *raw_ms = took / NS_PER_MS;
    return (took > off ? took - off : 0) / NS_PER_MS;
}

#endif
