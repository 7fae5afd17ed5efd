/* page.c - the page of grants and hazards, and mapping of what peers pass. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "transfer/shm/shm_impl.h"

/* 4 MiB of rows, of which only those in use ever become memory. */
enum mc_status page_create(struct shm *shm)
{
    int fd = memfd_create("mooncake-page", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    struct page *page = MAP_FAILED;
    char path[32];

    shm->page_fd = -1;
    if (fd < 0 || ftruncate(fd, sizeof(*page)) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        goto failed;
    page = mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    shm->page_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (page == MAP_FAILED || shm->page_fd < 0)
        goto failed;
    close(fd);
    page->magic = PAGE_MAGIC;
    page->version = PAGE_VERSION;
    page->own_addr = (uintptr_t)page;
    random_bytes(page->nonce, sizeof(page->nonce));
    shm->page = page;
    return MC_OK;

failed:
    log_error("transfer: no memfd for the page of grants: %m");
    if (page != MAP_FAILED)
        munmap(page, sizeof(*page));
    if (shm->page_fd >= 0)
        close(shm->page_fd);
    if (fd >= 0)
        close(fd);
    return MC_ESYS;
}

void page_destroy(struct shm *shm)
{
    munmap(shm->page, sizeof(*shm->page));
    close(shm->page_fd);
}

enum mc_status map_sealed(int fd, const char *who, const uint8_t **addr, uint64_t *len)
{
    int seals = fcntl(fd, F_GET_SEALS);
    struct stat st;
    void *at;

    if (seals < 0 || !(seals & F_SEAL_SHRINK)) {
        log_warn(
            "transfer: peer %s passed a descriptor that is not a memfd sealed against shrinking: its owner must call "
            "fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) before passing it",
            who);
        return MC_EPERM;
    }
    if (fstat(fd, &st) != 0 || st.st_size <= 0)
        return MC_ESYS;
    at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
        log_warn("transfer: cannot map %lld bytes of peer %s: %m", (long long)st.st_size, who);
        return MC_ESYS;
    }
    *addr = at;
    *len = (uint64_t)st.st_size;
    return MC_OK;
}

uint8_t *map_writable(int fd, uint64_t len)
{
    void *at = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    return at == MAP_FAILED ? NULL : at;
}

const struct page *page_map(int fd, const char *who)
{
    const uint8_t *addr = NULL;
    const struct page *page;
    uint64_t len = 0;

    if (map_sealed(fd, who, &addr, &len) == MC_OK && len != sizeof(*page)) {
        log_warn(
            "transfer: peer %s passed a page of %llu bytes, expected %zu", who, (unsigned long long)len, sizeof(*page));
        munmap((void *)(uintptr_t)addr, len);
        addr = NULL;
    }
    close(fd);
    page = (const struct page *)(const void *)addr;
    if (page && (page->magic != PAGE_MAGIC || page->version != PAGE_VERSION)) {
        log_warn("transfer: peer %s has another page layout (version %u, ours %u): update the older build", who,
            page->version, PAGE_VERSION);
        page_unmap(page);
        page = NULL;
    }
    return page;
}

void page_unmap(const struct page *page)
{
    if (page)
        munmap((void *)(uintptr_t)page, sizeof(*page));
}

/* ---- rows ---- */

void shm_grant(struct shm *shm, uint64_t id, const struct region *row)
{
    struct grant *grant = &shm->page->grants[id % REGION_ROWS];

    atomic_thread_fence(memory_order_release); /* the id before it went first */
    atomic_store_explicit(&grant->addr, (uintptr_t)row->addr, memory_order_relaxed);
    atomic_store_explicit(&grant->len, row->len, memory_order_relaxed);
    atomic_store_explicit(&grant->base, row->base, memory_order_relaxed);
    atomic_store_explicit(&grant->flags, row->flags, memory_order_relaxed);
    atomic_store_explicit(&grant->segment, row->segment, memory_order_relaxed);
    atomic_store(&grant->id, id);
}

void shm_withdraw(struct shm *shm, uint64_t id)
{
    atomic_store(&shm->page->grants[id % REGION_ROWS].id, 0);
}

/* The owner may withdraw the row and grant it to others at any instruction of this: what was read is the row's of that id when the id
 * still stands afterwards. It does before, as keys are given out after the grant; and none comes twice. */
bool grant_read(const struct page *page, uint64_t id, struct granted *out)
{
    struct grant *grant = (struct grant *)(uintptr_t)&page->grants[id % REGION_ROWS];

    if (out)
        *out = (struct granted){
            .addr = atomic_load_explicit(&grant->addr, memory_order_relaxed),
            .len = atomic_load_explicit(&grant->len, memory_order_relaxed),
            .base = atomic_load_explicit(&grant->base, memory_order_relaxed),
            .flags = atomic_load_explicit(&grant->flags, memory_order_relaxed),
            .segment = atomic_load_explicit(&grant->segment, memory_order_relaxed),
        };
    atomic_thread_fence(memory_order_acquire); /* the id after it */
    return atomic_load(&grant->id) == id;
}

/* ---- hazards ---- */

struct hazard *hazard_set(struct shm *shm, uint64_t id)
{
    static _Thread_local unsigned hint;

    if (!hint)
        hint = (unsigned)syscall(SYS_gettid);
    for (unsigned i = 0; i < HAZARDS; i++) {
        struct hazard *hazard = &shm->page->hazards[(hint + i) % HAZARDS];
        uint64_t none = 0;

        if (atomic_compare_exchange_strong(&hazard->id, &none, id))
            return hazard;
    }
    return NULL;
}

void hazard_clear(struct hazard *hazard)
{
    atomic_store(&hazard->id, 0);
}

bool page_has_hazard(const struct page *page, uint64_t id)
{
    for (unsigned i = 0; i < HAZARDS; i++)
        if (atomic_load(&((struct page *)(uintptr_t)page)->hazards[i].id) == id)
            return true;
    return false;
}
