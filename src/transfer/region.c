/* region.c - the table of memory that peers may name, and memory allocated as sealed memfds.
 *
 * A row is found by the low 16 bits of the region's id and is valid while the whole id agrees; so withdrawing it is one store,
 * which every reader of the row, of this process or (through the page of grants) of another one on this host, sees at its
 * next piece. The row is used again only when no request is served from it any more.
 *
 * Threads: any; rows are guarded by te->lock, `id` may be read without it. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/log.h"
#include "transfer/core.h"
#include "transfer/shm/shm.h"
#include "transfer/tcp/tcp.h"

#define ROW_MASK (REGION_ROWS - 1)

static struct region *row_of(struct mc_te *te, uint64_t id)
{
    return &te->rows[id & ROW_MASK];
}

/* te->lock held. NULL: the table is full. */
static struct region *row_take(struct mc_te *te)
{
    struct region *row;

    if (te->rows_free) {
        row = &te->rows[te->rows_free - 1];
        te->rows_free = row->next;
        return row;
    }
    return te->rows_used < REGION_ROWS ? &te->rows[te->rows_used++] : NULL;
}

static void row_free(struct mc_te *te, struct region *row)
{
    row->next = te->rows_free;
    te->rows_free = (uint32_t)(row - te->rows) + 1;
}

enum mc_status region_add(
    struct mc_te *te, void *addr, uint64_t len, uint32_t flags, uint32_t segment, uint64_t base, uint64_t *id)
{
    struct region *row;
    uint64_t random;

    do {
        random_bytes(&random, sizeof(random));
    } while (random >> 16 == 0);
    pthread_mutex_lock(&te->lock);
    row = row_take(te);
    if (!row) {
        pthread_mutex_unlock(&te->lock);
        return MC_ENOMEM;
    }
    *id = (random & ~(uint64_t)ROW_MASK) | (uint64_t)(row - te->rows);
    row->addr = addr;
    row->len = len;
    row->flags = flags;
    row->segment = segment;
    row->base = base;
    row->serving = 0;
    atomic_store(&row->id, *id);
    if (te->shm)
        shm_grant(te->shm, *id, row);
    pthread_mutex_unlock(&te->lock);
    return MC_OK;
}

struct gone_call {
    struct mc_te *te;
    uint64_t id;
};

static void region_gone(struct loop *loop, void *arg)
{
    struct gone_call *call = arg;

    tcp_region_gone(call->te, call->id);
}

enum mc_status region_remove(struct mc_te *te, uint64_t id)
{
    struct region *row = row_of(te, id);
    struct gone_call call = {te, id};
    uint32_t serving;

    pthread_mutex_lock(&te->lock);
    if (id == 0 || atomic_load(&row->id) != id) {
        pthread_mutex_unlock(&te->lock);
        return MC_ENOENT;
    }
    atomic_store(&row->id, 0);
    if (te->shm)
        shm_withdraw(te->shm, id);
    serving = row->serving;
    if (serving == 0)
        row_free(te, row);
    pthread_mutex_unlock(&te->lock);
    if (serving)
        loop_call(te->loop, region_gone, &call);
    if (te->shm)
        shm_wait_copies(te->shm, id);
    return MC_OK;
}

void regions_remove_all(struct mc_te *te)
{
    for (uint32_t i = 0; i < te->rows_used; i++)
        (void)region_remove(te, atomic_load(&te->rows[i].id));
}

enum mc_status region_find(
    struct mc_te *te, uint64_t id, uint64_t offset, uint64_t len, uint32_t need, bool hold, uint8_t **addr)
{
    struct region *row = row_of(te, id);
    enum mc_status status = MC_OK;

    pthread_mutex_lock(&te->lock);
    if (id == 0 || atomic_load(&row->id) != id)
        status = MC_ENOENT;
    else if ((row->flags & need) != need)
        status = MC_EPERM;
    else if (offset > row->len || len > row->len - offset)
        status = MC_EINVAL;
    if (status == MC_OK) {
        *addr = row->addr + offset;
        if (hold)
            row->serving++;
    }
    pthread_mutex_unlock(&te->lock);
    return status;
}

void region_release(struct mc_te *te, uint64_t id)
{
    struct region *row = row_of(te, id);

    pthread_mutex_lock(&te->lock);
    assert(row->serving > 0);
    if (--row->serving == 0 && atomic_load(&row->id) == 0)
        row_free(te, row);
    pthread_mutex_unlock(&te->lock);
}

bool region_alive(struct mc_te *te, uint64_t id)
{
    return atomic_load(&row_of(te, id)->id) == id;
}

uint32_t segment_of(struct mc_te *te, const void *addr, uint64_t len, uint64_t *offset)
{
    const uint8_t *at = addr;
    uint32_t found = 0;

    pthread_mutex_lock(&te->lock);
    for (uint32_t i = 0; i < te->segments_used && !found; i++) {
        const struct segment *segment = te->segments[i];
        const uint8_t *start = segment ? segment->addr : NULL;

        if (start && at >= start && len <= segment->len && (uint64_t)(at - start) <= segment->len - len) {
            *offset = (uint64_t)(at - start);
            found = segment->number;
        }
    }
    pthread_mutex_unlock(&te->lock);
    return found;
}

/* ---- public: register, unregister ---- */

static void key_make(const struct mc_te *te, uint64_t id, uint64_t len, uint32_t flags, uint32_t segment, uint64_t base,
    struct mc_region_key *out)
{
    struct te_key key = {
        .epoch = te->epoch,
        .kind = segment ? TE_KIND_MEMFD : TE_KIND_PLAIN,
        .flags = (uint8_t)flags,
        .segment = segment,
        .id = id,
        .len = len,
        .base = base,
    };

    memcpy(key.uuid, te->uuid, sizeof(key.uuid));
    te_key_encode(&key, out);
}

enum mc_status mc_te_register(struct mc_te *te, void *addr, uint64_t len, uint32_t flags, struct mc_region_key *key)
{
    uint64_t base = 0, id;
    uint32_t segment;
    enum mc_status status;

    if (!addr || len == 0 || len > INT64_MAX || (uintptr_t)addr + len < (uintptr_t)addr || flags == 0 ||
        (flags & ~(uint32_t)(MC_REGION_READ | MC_REGION_WRITE)))
        return MC_EINVAL;
    segment = segment_of(te, addr, len, &base);
    status = region_add(te, addr, len, flags, segment, base, &id);
    if (status == MC_OK)
        key_make(te, id, len, flags, segment, base, key);
    return status;
}

enum mc_status mc_te_unregister(struct mc_te *te, const struct mc_region_key *key)
{
    struct te_key in;

    if (te_key_decode(key, &in, NULL) != MC_OK || memcmp(in.uuid, te->uuid, sizeof(in.uuid)) != 0)
        return MC_ENOENT;
    return region_remove(te, in.id);
}

/* ---- public: memory of our own ---- */

static void segment_destroy(struct segment *segment)
{
    if (segment->addr)
        munmap(segment->addr, segment->len);
    if (segment->fd_shared >= 0)
        close(segment->fd_shared);
    if (segment->fd >= 0)
        close(segment->fd);
    free(segment);
}

/* Sealed against any change of size, so that whoever maps it can never be killed by SIGBUS. Peers get a descriptor of their own,
 * which lets them write only when all of the segment is theirs to write (decision 025). */
static enum mc_status segment_open(struct segment *segment, uint32_t flags)
{
    char path[32];

    segment->fd = memfd_create("mooncake", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (segment->fd < 0 || ftruncate(segment->fd, (off_t)segment->len) != 0 ||
        fcntl(segment->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
        return MC_ESYS;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", segment->fd);
    segment->fd_shared = open(path, (flags & MC_REGION_WRITE ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    segment->addr = mmap(NULL, segment->len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, segment->fd, 0);
    if (segment->addr == MAP_FAILED)
        segment->addr = NULL;
    return segment->addr && segment->fd_shared >= 0 ? MC_OK : MC_ESYS;
}

/* Takes a place in the table and gives the segment its number. Numbers are never used twice, so that a peer which still knows
 * a segment that is gone cannot take another one for it. */
static enum mc_status segment_place(struct mc_te *te, struct segment *segment)
{
    uint32_t i;

    pthread_mutex_lock(&te->lock);
    for (i = 0; i < SEGMENTS_MAX && te->segments[i]; i++)
        ;
    if (i < SEGMENTS_MAX) {
        te->segments[i] = segment;
        segment->number = ++te->segment_last;
        if (te->segments_used <= i)
            te->segments_used = i + 1;
    }
    pthread_mutex_unlock(&te->lock);
    return i < SEGMENTS_MAX ? MC_OK : MC_ENOMEM;
}

static void segment_unplace(struct mc_te *te, const struct segment *segment)
{
    pthread_mutex_lock(&te->lock);
    for (uint32_t i = 0; i < te->segments_used; i++)
        if (te->segments[i] == segment)
            te->segments[i] = NULL;
    pthread_mutex_unlock(&te->lock);
}

int segment_share(struct mc_te *te, uint32_t number)
{
    int fd = -1;

    pthread_mutex_lock(&te->lock);
    for (uint32_t i = 0; i < te->segments_used; i++)
        if (te->segments[i] && te->segments[i]->number == number)
            fd = fcntl(te->segments[i]->fd_shared, F_DUPFD_CLOEXEC, 0);
    pthread_mutex_unlock(&te->lock);
    return fd;
}

enum mc_status te_alloc(struct mc_te *te, uint64_t len, uint32_t flags, struct te_memory *out)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    struct segment *segment;
    enum mc_status status;

    if (len == 0 || len > INT64_MAX - page || flags == 0 || (flags & ~(uint32_t)(MC_REGION_READ | MC_REGION_WRITE)))
        return MC_EINVAL;
    segment = calloc(1, sizeof(*segment));
    if (!segment)
        return MC_ENOMEM;
    segment->len = (len + page - 1) & ~(page - 1);
    segment->fd = segment->fd_shared = -1;
    status = segment_open(segment, flags);
    if (status != MC_OK) {
        log_error("transfer: no memfd of %llu bytes: %m", (unsigned long long)segment->len);
        goto undo_segment;
    }
    status = segment_place(te, segment);
    if (status != MC_OK)
        goto undo_segment;
    status = region_add(te, segment->addr, segment->len, flags, segment->number, 0, &segment->region);
    if (status != MC_OK)
        goto undo_place;
    *out = (struct te_memory){segment->addr, segment->len, segment->fd, segment->number, {{0}}};
    key_make(te, segment->region, segment->len, flags, segment->number, 0, &out->key);
    return MC_OK;

undo_place:
    segment_unplace(te, segment);
undo_segment:
    segment_destroy(segment);
    return status;
}

enum mc_status mc_te_alloc(struct mc_te *te, uint64_t len, uint32_t flags, void **addr, struct mc_region_key *key)
{
    struct te_memory memory;
    enum mc_status status = te_alloc(te, len, flags, &memory);

    if (status == MC_OK) {
        *addr = memory.addr;
        *key = memory.key;
    }
    return status;
}

void mc_te_free(struct mc_te *te, void *addr)
{
    struct segment *segment = NULL;

    if (!addr)
        return;
    pthread_mutex_lock(&te->lock);
    for (uint32_t i = 0; i < te->segments_used && !segment; i++)
        if (te->segments[i] && te->segments[i]->addr == addr)
            segment = te->segments[i];
    pthread_mutex_unlock(&te->lock);
    assert(segment);
    if (!segment)
        return;
    region_remove(te, segment->region);
    segment_unplace(te, segment);
    if (te->shm)
        shm_segment_gone(te->shm, segment->number);
    /* Peers may keep it mapped for a while: give the pages back at once. */
    (void)fallocate(segment->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)segment->len);
    segment_destroy(segment);
}

void segments_fini(struct mc_te *te)
{
    for (uint32_t i = 0; i < te->segments_used; i++)
        if (te->segments[i])
            segment_destroy(te->segments[i]);
}
