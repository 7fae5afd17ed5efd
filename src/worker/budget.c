/* budget.c - the cores that the workers of one host share: a mapped file and one lock byte a worker. */
#include "worker/budget.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#define BUDGET_MAGIC 0x31444342u /* "BCD1": another layout takes another file name */

/* Each slot has a cache line of its own: its worker writes it before and after work. */
struct budget_slot {
    _Atomic uint32_t
        busy; /* written by the lock's holder, read by any: relaxed, a stale value costs one step's speed */
    uint8_t pad[60];
};

struct budget_page {
    struct budget_slot slots[BUDGET_SLOTS];
};
_Static_assert(sizeof(struct budget_page) == 4096, "one page, so that any file size that is right maps whole");

struct budget {
    int fd;
    uint32_t slot, cores;
    struct budget_page *page;
    uint64_t checked_ns;     /* when the locks of busy slots were last looked at */
    bool dead[BUDGET_SLOTS]; /* busy, but nobody holds the lock */
};

/* Locks are as old as the file's open description: held until close(), also by the kernel's close of a killed process. */
static bool slot_lock(int fd, uint32_t slot)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = slot, .l_len = 1};

    return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

static bool slot_held(int fd, uint32_t slot)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = slot, .l_len = 1};

    return fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

static enum mc_status file_open(const char *run_dir, int *fd)
{
    char path[PATH_MAX];
    struct stat st;

    if ((size_t)snprintf(path, sizeof(path), "%s/cores-%x", run_dir, BUDGET_MAGIC) >= sizeof(path))
        return MC_ETOOBIG;
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (*fd < 0) {
        log_warn("core budget %s: %m", path);
        return MC_ESYS;
    }
    if (fstat(*fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid()) {
        log_warn("core budget %s: not a file of ours", path);
        close(*fd);
        return MC_EPERM;
    }
    /* Growing only: a page that somebody has mapped is never cut off. */
    if (st.st_size < (off_t)sizeof(struct budget_page) && ftruncate(*fd, sizeof(struct budget_page)) != 0) {
        log_warn("core budget %s: %m", path);
        close(*fd);
        return MC_ESYS;
    }
    return MC_OK;
}

static enum mc_status slot_take(struct budget *budget)
{
    for (uint32_t slot = 0; slot < BUDGET_SLOTS; slot++) {
        if (slot_lock(budget->fd, slot)) {
            budget->slot = slot;
            atomic_store_explicit(&budget->page->slots[slot].busy, 0, memory_order_relaxed);
            return MC_OK;
        }
        if (errno != EAGAIN && errno != EACCES) {
            log_warn("core budget: lock: %m");
            return MC_ESYS;
        }
    }
    log_warn("core budget: all %d slots are taken", BUDGET_SLOTS);
    return MC_EBUSY;
}

enum mc_status budget_open(const char *run_dir, uint32_t cores, struct budget **out)
{
    struct budget *budget = calloc(1, sizeof(*budget));
    enum mc_status status;

    if (!budget)
        return MC_ENOMEM;
    budget->cores = cores ? cores : 1;
    status = file_open(run_dir, &budget->fd);
    if (status != MC_OK)
        goto undo_alloc;
    budget->page = mmap(NULL, sizeof(*budget->page), PROT_READ | PROT_WRITE, MAP_SHARED, budget->fd, 0);
    if (budget->page == MAP_FAILED) {
        log_warn("core budget: mmap: %m");
        status = MC_ESYS;
        goto undo_file;
    }
    status = slot_take(budget);
    if (status != MC_OK)
        goto undo_map;
    *out = budget;
    return MC_OK;

undo_map:
    munmap(budget->page, sizeof(*budget->page));
undo_file:
    close(budget->fd);
undo_alloc:
    free(budget);
    return status;
}

void budget_close(struct budget *budget)
{
    if (!budget)
        return;
    budget_idle(budget);
    munmap(budget->page, sizeof(*budget->page));
    close(budget->fd);
    free(budget);
}

/* A worker may be killed while its slot says busy. Whether the lock is still held is a system call a slot, so it is asked
 * at most every 100 ms; until then the dead worker's share stays unused. */
static void look_for_dead(struct budget *budget)
{
    uint64_t now = now_ns();

    if (now - budget->checked_ns < 100 * NS_PER_MS)
        return;
    budget->checked_ns = now;
    for (uint32_t i = 0; i < BUDGET_SLOTS; i++) {
        bool busy = atomic_load_explicit(&budget->page->slots[i].busy, memory_order_relaxed) != 0;

        budget->dead[i] = busy && i != budget->slot && !slot_held(budget->fd, i);
    }
}

uint32_t budget_take(struct budget *budget)
{
    uint32_t busy = 0, before = 0, share;

    atomic_store_explicit(&budget->page->slots[budget->slot].busy, 1, memory_order_relaxed);
    look_for_dead(budget);
    for (uint32_t i = 0; i < BUDGET_SLOTS; i++) {
        if (budget->dead[i] || !atomic_load_explicit(&budget->page->slots[i].busy, memory_order_relaxed))
            continue;
        busy++;
        before += i < budget->slot;
    }
    /* The first ones of the busy ones get what does not divide evenly. */
    share = budget->cores / busy + (before < budget->cores % busy);
    return share ? share : 1;
}

void budget_idle(struct budget *budget)
{
    atomic_store_explicit(&budget->page->slots[budget->slot].busy, 0, memory_order_relaxed);
}
