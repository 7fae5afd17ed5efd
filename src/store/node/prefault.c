/* prefault.c - see prefault.h. */
#include "store/node/prefault.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/xdg.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum {
    STEP = 2 << 20,   /* one madvise call: short enough that stop is quick, and one huge page */
    FIRST = 64 << 20, /* at the ends where objects go first */
    NOW = 16 << 20,   /* of that, before the node serves: some 10 ms, and the very first put finds it done */
    CHECK_EVERY = 64, /* steps between looks at what memory is left */
    REST = 3,         /* of the time a step took: a quarter of a core at most */
    REST_MAX_MS = 20,
    MEMORY_INFO_MAX = 8192,
};

struct prefault {
    const struct node_memory *memory;
    uint32_t segments;
    pthread_t thread;
    atomic_bool stop;
    _Atomic uint64_t done; /* bytes; written by the thread, read by any: relaxed, for people */
    uint64_t total;
    unsigned steps;
    bool populate; /* the kernel knows MADV_POPULATE_WRITE */
    bool rests;    /* between steps: in the background */
};

static uint64_t memory_info(const char *text, const char *name)
{
    const char *line = strstr(text, name);

    return line ? strtoull(line + strlen(name), NULL, 10) * 1024 : 0;
}

/* Less than an eighth of the machine's memory is left: others need it more. */
static bool memory_is_short(void)
{
    char *text;
    size_t len;

    if (path_read("/proc/meminfo", MEMORY_INFO_MAX, &text, &len) != MC_OK)
        return false;
    uint64_t total = memory_info(text, "MemTotal:"), available = memory_info(text, "MemAvailable:");
    free(text);
    return available < total / 8;
}

/* Commit without changing a byte: somebody may be writing there already. */
static bool commit(struct prefault *p, uint8_t *at, uint64_t len)
{
    if (p->populate && madvise(at, len, MADV_POPULATE_WRITE) == 0)
        return true;
    if (p->populate && errno != EINVAL) {
        log_warn("committing memory stops: %m; the rest is committed by use");
        return false;
    }
    p->populate = false; /* Linux before 5.14 */
    for (uint64_t i = 0; i < len; i += 4096)
        __atomic_fetch_or(at + i, 0, __ATOMIC_RELAXED);
    return true;
}

/* Modest by resting, not by priority: the memory of a process that was killed is given back by the thread of it that ends last, and its
 * connections are open until then. One that hardly gets a processor would keep a dead node among the living for seconds. */
static void rest(uint64_t worked_ns)
{
    uint64_t most = REST_MAX_MS * NS_PER_MS, ns = worked_ns < most / REST ? worked_ns * REST : most;

    nanosleep(&(struct timespec){.tv_nsec = (long)ns}, NULL);
}

/* False: stopped, or memory is short. */
static bool commit_range(struct prefault *p, const struct node_memory *memory, uint64_t from, uint64_t to, bool count)
{
    for (uint64_t at = from; at < to; at += STEP) {
        uint64_t len = to - at < STEP ? to - at : STEP, start = now_ns();

        if (atomic_load_explicit(&p->stop, memory_order_relaxed))
            return false;
        if (p->steps++ % CHECK_EVERY == 0 && memory_is_short()) {
            log_info("memory is short: the rest of the segments is committed by use");
            return false;
        }
        if (!commit(p, (uint8_t *)memory->base + at, len))
            return false;
        if (count)
            atomic_fetch_add_explicit(&p->done, len, memory_order_relaxed);
        if (p->rests)
            rest(now_ns() - start);
    }
    return true;
}

/* Small objects go to the start of the first segment, large ones to the end of the last (alloc.h). */
static bool commit_ends(struct prefault *p, uint64_t len)
{
    const struct node_memory *first = &p->memory[0], *last = &p->memory[p->segments - 1];

    return commit_range(p, first, 0, first->size < len ? first->size : len, false) &&
           commit_range(p, last, last->size < len ? 0 : last->size - len, last->size, false);
}

static void *prefault_run(void *arg)
{
    struct prefault *p = arg;

    pthread_setname_np(pthread_self(), "mc-prefault");
    p->rests = true;
    if (!commit_ends(p, FIRST))
        return NULL;
    for (uint32_t i = 0; i < p->segments; i++)
        if (!commit_range(p, &p->memory[i], 0, p->memory[i].size, true))
            return NULL;
    return NULL;
}

struct prefault *prefault_start(const struct node_memory *memory, uint32_t segments)
{
    struct prefault *p = calloc(1, sizeof(*p));
    sigset_t all, before;

    if (!p)
        return NULL;
    p->memory = memory;
    p->segments = segments;
    p->populate = true;
    for (uint32_t i = 0; i < segments; i++)
        p->total += memory[i].size;
    commit_ends(p, NOW);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&p->thread, NULL, prefault_run, p);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) {
        log_warn("no thread to commit memory in the background: %s", strerror(error));
        free(p);
        return NULL;
    }
    return p;
}

void prefault_stop(struct prefault *p)
{
    if (!p)
        return;
    atomic_store(&p->stop, true);
    pthread_join(p->thread, NULL);
    free(p);
}

double prefault_progress(const struct prefault *p)
{
    return p && p->total ? (double)atomic_load_explicit(&p->done, memory_order_relaxed) / (double)p->total : 1;
}

bool prefault_huge_pages(void *addr, uint64_t len)
{
    static const char file[] = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    char *text;
    size_t text_len;
    bool given;

    if (path_read(file, 256, &text, &text_len) != MC_OK)
        return false;
    given = strstr(text, "[advise]") || strstr(text, "[always]") || strstr(text, "[within_size]") ||
            strstr(text, "[force]");
    free(text);
    return given && madvise(addr, len, MADV_HUGEPAGE) == 0;
}
