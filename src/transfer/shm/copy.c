/* copy.c - the copies between processes of one host, both ways, and how the owner of a withdrawn row waits for them.
 *
 *   who copies                                          owner of the row
 *     for each piece of at most 256 KiB:                  withdraws the row
 *       hazard = row                                      while a page shows it as a hazard:
 *       look: granted? allowed? inside? in time?            wait, unless that process is stopped
 *       copy                                              the memory is the owner's alone
 *       hazard = 0
 *
 * A read copies into memory of its own, and what it got is good when the row still stands afterwards. A write stores in memory
 * that can be somebody else's in the next moment, so it is uncut (base/uncut.h): whatever stopped the thread between its look and
 * its store, or in the middle of a copy, it looks again before it stores another byte; a system call that has begun is not cut by
 * a stop at all. So a process that is seen stopped stores nothing any more, whatever its hazard says: when it goes on the row is
 * gone. One that could run but is given no processor is waited for; that happens on hosts with many times more work than cores,
 * and the alternative is a byte that lands in memory which is somebody else's by then.
 *
 * What a key says is not believed where it could do harm: place and length are the row's.
 * A mapped segment cannot fault: it is sealed against shrinking, and the owner's death leaves the memfd as it is. */
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "base/crc.h"
#include "base/log.h"
#include "base/uncut.h"
#include "transfer/shm/shm_impl.h"

#define ASK_AFTER_NS (200 * NS_PER_US) /* three times what a piece takes */
#define ASK_AGAIN_NS NS_PER_MS
#define STARVED_NS   NS_PER_S

/* The number of a process that has ended comes again, at the earliest after 32,768 others: nobody starts so many in this time. */
#define SAME_PROCESS_NS NS_PER_MS

struct copier {
    struct session *session;
    enum mc_path path;
    enum mc_opcode opcode;
    bool want_crc;
    uint64_t deadline_ns;
    uint32_t segment; /* of `mapping`, looked up last */
    struct mapping *mapping;
};

/* ---- looking ---- */

/* May bytes of that part be copied at this moment? Makes no system call. */
static enum mc_status look(const struct copier *c, const struct part *part, struct granted *row)
{
    if (!grant_read(c->session->page, part->region, row))
        return MC_ENOENT;
    if (!(row->flags & (c->opcode == MC_READ ? MC_REGION_READ : MC_REGION_WRITE)))
        return MC_EPERM;
    if (part->offset > row->len || part->len > row->len - part->offset)
        return MC_EINVAL;
    return deadline_passed(c->deadline_ns, now_ns()) ? MC_ETIMEDOUT : MC_OK;
}

/* What was read until now, also when it failed because the memory was unmapped below the copy. */
static enum mc_status look_again(const struct copier *c, const struct part *part, enum mc_status status)
{
    return grant_read(c->session->page, part->region, NULL) ? status : MC_ENOENT;
}

/* ---- through the mapped memfd ---- */

static void map(struct copier *c, uint32_t segment)
{
    if (c->mapping && c->segment == segment)
        return;
    mapping_put(c->mapping);
    c->mapping = session_mapping(c->session, segment);
    c->segment = segment;
}

/* Also where in the mapping that is. */
static enum mc_status look_mapped(
    const struct copier *c, const struct part *part, uint32_t done, uint32_t len, uint64_t *at)
{
    const struct mapping *mapping = c->mapping;
    struct granted row;
    enum mc_status status = look(c, part, &row);

    *at = row.base + part->offset + done;
    if (status == MC_OK && (!mapping || (c->opcode == MC_WRITE && !mapping->writable) || row.segment != c->segment ||
                               *at > mapping->len || len > mapping->len - *at))
        status = MC_EINVAL;
    return status;
}

static enum mc_status read_mapped(struct copier *c, struct part *part, uint32_t done, uint32_t len)
{
    enum mc_status status;
    uint64_t at;

    map(c, part->segment);
    status = look_mapped(c, part, done, len, &at);
    if (status != MC_OK)
        return status;
    if (c->want_crc)
        part->crc = crc32c_copy(part->crc, part->local + done, c->mapping->addr + at, len);
    else
        memcpy(part->local + done, c->mapping->addr + at, len);
    return look_again(c, part, MC_OK);
}

struct writing {
    const struct copier *c;
    const struct part *part;
    uint32_t done, len;
    uint64_t at;
};

static enum mc_status look_writing(void *arg)
{
    struct writing *w = arg;

    return look_mapped(w->c, w->part, w->done, w->len, &w->at);
}

/* The first look says where; it is the same place as long as the row stands. */
static enum mc_status write_mapped(struct copier *c, const struct part *part, uint32_t done, uint32_t len)
{
    struct writing w = {c, part, done, len, 0};
    enum mc_status status;

    map(c, part->segment);
    status = look_writing(&w);
    if (status != MC_OK)
        return status;
    return uncut_store(c->mapping->writable + w.at, part->local + done, len, look_writing, &w);
}

/* ---- by a call ---- */

/* MC_AGAIN: look again, and call again. */
static enum mc_status copy_by_call(const struct copier *c, uint64_t addr, void *local, size_t len)
{
    struct iovec here = {local, len}, there = {(void *)(uintptr_t)addr, len};
    ssize_t n = c->opcode == MC_READ ? process_vm_readv(c->session->pid, &here, 1, &there, 1, 0)
                                     : uncut_process_vm_writev(c->session->pid, &here, 1, &there, 1);

    if (n == (ssize_t)len)
        return MC_OK;
    if (n == UNCUT_AGAIN || (n < 0 && errno == EINTR))
        return MC_AGAIN;
    if (n < 0 && errno == ESRCH)
        return MC_EPEERDOWN;
    log_every_ms(LOG_LEVEL_WARN, 1000, "transfer: %s of %zu bytes of process %d: %s",
        c->opcode == MC_READ ? "read" : "write", len, (int)c->session->pid, n < 0 ? strerror(errno) : "short");
    return n < 0 && errno == EPERM ? MC_EPERM : MC_EINVAL;
}

static enum mc_status read_called(struct copier *c, struct part *part, uint32_t done, uint32_t len)
{
    enum mc_status status;
    struct granted row;

    do {
        status = look(c, part, &row);
        if (status == MC_OK)
            status = copy_by_call(c, row.addr + part->offset + done, part->local + done, len);
    } while (status == MC_AGAIN);
    if (status == MC_OK && c->want_crc)
        part->crc = crc32c(part->crc, part->local + done, len);
    return look_again(c, part, status);
}

/* The socket says whose number it is; that is a call itself, and so stands before the look. */
static enum mc_status write_called(struct copier *c, const struct part *part, uint32_t done, uint32_t len)
{
    enum mc_status status;
    struct granted row;

    do {
        uint64_t asked_ns = now_ns();

        if (session_hung_up(c->session))
            return MC_EPEERDOWN;
        uncut_begin();
        status = look(c, part, &row);
        if (status == MC_OK && now_ns() - asked_ns > SAME_PROCESS_NS)
            status = MC_AGAIN;
        if (status == MC_OK)
            status = copy_by_call(c, row.addr + part->offset + done, part->local + done, len);
    } while (status == MC_AGAIN);
    return status;
}

/* ---- an xfer ---- */

static enum mc_status piece_copy(struct copier *c, struct part *part, uint32_t done, uint32_t len)
{
    if (c->path == MC_PATH_SHM_MEMFD)
        return c->opcode == MC_READ ? read_mapped(c, part, done, len) : write_mapped(c, part, done, len);
    return c->opcode == MC_READ ? read_called(c, part, done, len) : write_called(c, part, done, len);
}

static enum mc_status part_copy(struct copier *c, struct part *part)
{
    part->crc = 0;
    for (uint32_t done = 0; done < part->len;) {
        uint32_t len = part->len - done < SHM_PIECE ? part->len - done : SHM_PIECE;
        struct hazard *hazard = hazard_set(c->session->shm, part->region);
        enum mc_status status;

        if (!hazard)
            return MC_EBUSY;
        status = piece_copy(c, part, done, len);
        hazard_clear(hazard);
        if (status != MC_OK)
            return status;
        done += len;
    }
    return MC_OK;
}

/* What was read by the number of a process are its bytes only while its socket stands; what was written into the memory of one
 * that has gone was not written. */
static enum mc_status still_there(const struct copier *c)
{
    if (!atomic_load(&c->session->up))
        return MC_EPEERDOWN;
    return (c->path == MC_PATH_SHM_VM || c->opcode == MC_WRITE) && session_hung_up(c->session) ? MC_EPEERDOWN : MC_OK;
}

enum mc_status xfer_copy(struct session *session, enum mc_path path, struct xfer *xfer)
{
    struct copier c = {session, path, xfer->opcode, xfer->want_crc, xfer->batch->deadline_ns, 0, NULL};
    struct peer_counters *count = &xfer->batch->peer->count;
    enum mc_status status = MC_OK;

    for (uint32_t i = 0; status == MC_OK && i < xfer->part_count; i++)
        status = part_copy(&c, &xfer->parts[i]);
    mapping_put(c.mapping);
    if (status == MC_OK)
        status = still_there(&c);
    if (status == MC_OK)
        atomic_fetch_add_explicit(xfer->opcode == MC_READ ? &count->read_bytes[path] : &count->write_bytes[path],
            xfer->bytes, memory_order_relaxed);
    return status;
}

/* ---- the owner waits ---- */

/* A process shows a hazard for a row that was withdrawn `waited_ns` ago: may it still copy? */
static bool may_go_on(pid_t pid, uint64_t waited_ns)
{
    uint64_t most_ns = ASK_AFTER_NS;

    if (waited_ns < ASK_AFTER_NS)
        return true;
    switch (process_state(pid)) {
    case PROCESS_STOPPED: return false;
    case PROCESS_RUNNABLE: most_ns = STARVED_NS; break;
    case PROCESS_UNKNOWN: most_ns = FENCE_GRACE_NS; break;
    }
    if (waited_ns < most_ns)
        return true;
    log_warn("transfer: process %d is still in the middle of copying under a region that was withdrawn %llu ms ago",
        (int)pid, (unsigned long long)(waited_ns / NS_PER_MS));
    return false;
}

static bool copied_by(const struct list *sessions, uint64_t id, uint64_t waited_ns)
{
    list_for_each (it, sessions) {
        const struct session *session = list_entry(it, struct session, link);

        if (session->page && page_has_hazard(session->page, id) && !session_hung_up(session) &&
            may_go_on(session->pid, waited_ns))
            return true;
    }
    return false;
}

void shm_wait_copies(struct shm *shm, uint64_t id)
{
    uint64_t start = now_ns(), waited = 0;
    bool copied;

    do {
        pthread_mutex_lock(&shm->lock);
        copied = copied_by(&shm->sessions, id, waited) || copied_by(&shm->parted, id, waited);
        pthread_mutex_unlock(&shm->lock);
        if (copied)
            fence_wait(now_ns() + (waited < ASK_AFTER_NS ? ASK_AFTER_NS / 4 : ASK_AGAIN_NS));
        waited = now_ns() - start;
    } while (copied);
}
