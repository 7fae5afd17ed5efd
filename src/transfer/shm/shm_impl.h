/* shm_impl.h - inside src/transfer/shm: the page, sessions, and what the files share.
 *
 *   struct shm --- page (ours, written by us, read by every session's far end)
 *       `-- sessions --- page (theirs, read-only)
 *                |------ mappings     their segments, asked for when first needed
 *                |------ calls        SHM_PULL requests of ours under way
 *                `------ pulls        SHM_PULL requests of theirs, being carried out
 *
 * A copy from somebody's memory announces itself first ("hazard": the id of the row it reads under, in the copier's own page),
 * then looks whether the row is still granted, then copies one piece. The owner of the row withdraws it first and then
 * looks for hazards. Both orders are sequentially consistent, so one of the two sees the other. */
#ifndef TRANSFER_SHM_IMPL_H
#define TRANSFER_SHM_IMPL_H

#include <assert.h>
#include <sys/types.h>

#include "transfer/shm/shm.h"
#include "transfer/wire.h"

#define PAGE_MAGIC   0x4750434du /* "MCPG" */
#define PAGE_VERSION 1
#define HAZARDS      MC_TE_COPIERS_MAX
#define CALLS        64 /* SHM_PULL requests of ours in flight per session */
#define SHM_PIECE    PIECE_MAX
#define MAPPINGS_MAX SEGMENTS_MAX

/* ---- the page: read by other processes of the same build; PAGE_VERSION guards its layout ---- */

struct grant {
    _Atomic uint64_t id; /* 0: free. Written last when granted, first when withdrawn */
    uint64_t addr, len;
    uint32_t flags, segment;
};
static_assert(sizeof(struct grant) == 32, "two to a cache line, part of the page's layout");

struct hazard {
    _Atomic uint64_t id;
    uint8_t pad[56];
};
static_assert(sizeof(struct hazard) == 64, "each its own cache line: threads write them at every copy");

struct page {
    uint32_t magic, version;
    uint64_t own_addr; /* where the owner has this page: others try process_vm_readv on the nonce there */
    uint8_t nonce[WIRE_NONCE];
    uint8_t pad[16];
    struct hazard hazards[HAZARDS];
    struct grant grants[REGION_ROWS];
};
static_assert(offsetof(struct page, hazards) == 64, "part of the page's layout");

/* ---- sessions ---- */

enum mapping_state { MAPPING_ASKED, MAPPING_READY, MAPPING_REFUSED };

struct mapping {
    struct list link;
    _Atomic unsigned refs; /* one of the session's list, one of each reader and view */
    uint32_t number;
    enum mapping_state state;
    const uint8_t *addr;
    uint64_t len;
};

/* A view given out by mc_peer_map(). */
struct view {
    struct list link; /* shm->views */
    struct mc_peer *peer;
    struct session *session;
    struct mapping *mapping;
    const uint8_t *addr;
};

struct call {
    struct session *session;
    struct xfer *xfer; /* NULL in a busy call: taken back */
    uint64_t token;
    uint32_t sequence;
    enum mc_path path;
    bool busy;
};

struct pull {
    struct list link;   /* session->pulls */
    struct frame frame; /* of the request, for the answer */
    struct wire_pull request;
    uint32_t at, done; /* range, and bytes of it */
    uint32_t held;     /* ranges whose region is held */
    struct wire_pull_range ranges[];
};

struct session {
    struct list link; /* shm->sessions, guarded by shm->lock */
    struct shm *shm;
    struct conn *conn;
    int fd;    /* a second descriptor of the socket: hangs up when the process is gone, whatever its number is then */
    pid_t pid; /* from the socket */
    bool dialled;
    uint8_t uuid[UUID_SIZE];
    bool proven;    /* they sent back our nonce */
    atomic_bool up; /* proven both ways; false again when it ends */
    bool can_read;  /* process_vm_readv on them works */
    bool they_can_read;
    const struct page *page;
    struct list mappings; /* guarded by shm->lock for adding and changes of state */
    unsigned mapping_count;
    struct list pulls;
    struct call *calls;    /* CALLS */
    _Atomic unsigned refs; /* the loop's, and each copy or view under way */
};

struct shm {
    struct mc_te *te;
    pthread_mutex_t lock;
    struct list sessions;
    struct list views; /* guarded by lock */
    struct page *page;
    int page_fd; /* read-only: passed to peers */
    char path[WIRE_PATH_MAX + 1];
    int listen_fd;
    struct loop_io listen_io;
    struct loop_timer listen_retry; /* descriptors were out */
    unsigned session_count;
    struct loop_task pull_task;
};

/* process.c: what a process does, by what the kernel says of its threads. */
enum process_state {
    PROCESS_STOPPED,  /* each of its threads, by SIGSTOP; or it is gone */
    PROCESS_RUNNABLE, /* a thread runs or waits for a processor */
    PROCESS_UNKNOWN,  /* asleep in some call, or nothing may be seen of it */
};
enum process_state process_state(pid_t pid);

/* page.c */
enum mc_status page_create(struct shm *shm);
void page_destroy(struct shm *shm);

/* Map a page that was passed. NULL: refused (logged with what to do). Takes fd. */
const struct page *page_map(int fd, const char *who);
void page_unmap(const struct page *page);

/* Map a whole memfd read-only, when it is sealed against shrinking. MC_OK; MC_EPERM (not sealed; logged with what to do), MC_ESYS.
 * fd stays the caller's. */
enum mc_status map_sealed(int fd, const char *who, const uint8_t **addr, uint64_t *len);

/* Announce a copy under `id`: the hazard, or NULL when all are in use. */
struct hazard *hazard_set(struct shm *shm, uint64_t id);
void hazard_clear(struct hazard *hazard);
bool page_has_hazard(const struct page *page, uint64_t id);

static inline const struct grant *page_grant(const struct page *page, uint64_t id)
{
    return &page->grants[id % REGION_ROWS];
}

static inline bool grant_alive(const struct grant *grant, uint64_t id)
{
    return atomic_load(&((struct grant *)(uintptr_t)grant)->id) == id;
}

/* session.c */
struct session *session_find(struct shm *shm, const uint8_t uuid[UUID_SIZE]); /* loop */
struct session *session_get(struct mc_peer *peer);                            /* any thread: a reference */
void session_put(struct session *session);
bool session_hung_up(const struct session *session);

/* Begin a session over a connected socket (given); with `uuid` it must be that process. MC_OK: it tells the peers how it went. */
enum mc_status session_start(struct shm *shm, int fd, bool dialled, const uint8_t *uuid);

/* Pass a descriptor; a session that cannot is ended. */
void session_send_fd(struct session *session, enum wire_fd kind, uint32_t number, int fd);

/* segment.c: what came for it; then segment_changed(): what waited for a segment, or for room to ask for one, goes on. */
void segment_came(struct session *session, uint32_t number, int fd);
void segment_frame(struct session *session, const struct frame *frame);
void segment_gone_frame(struct session *session, const struct frame *frame);
void segment_changed(struct session *session);

/* The peer's segment: ready, asked for now, or refused. Loop. */
enum mapping_state session_segment(struct session *session, uint32_t number);

/* Was it asked for, and refused? Any thread. */
bool session_refused(struct session *session, uint32_t number);

/* NULL: not ready. Any thread, while the session is held; mapping_put() afterwards. */
struct mapping *session_mapping(struct session *session, uint32_t number);
void mapping_put(struct mapping *mapping); /* NULL is fine */

/* pull.c */
enum mc_status pull_submit(struct session *session, enum mc_path path, struct xfer *xfer);
uint64_t pull_cancel(struct xfer *xfer);
struct loop_io *pull_answers(const struct xfer *xfer);
bool pull_copying(struct shm *shm, const struct xfer *xfer, uint64_t waited_ns);
void pull_frame(struct session *session, const struct frame *frame);
void pull_answer(struct session *session, const struct frame *frame);
void pull_session_gone(struct session *session);
void pull_run(struct loop *loop, struct loop_task *task);

/* One piece of at most SHM_PIECE from the far end's memory by process_vm_readv; with `uncut` after uncut_begin(), and MC_AGAIN means:
 * look again. */
enum mc_status copy_by_call(const struct session *session, uint64_t source, void *dst, size_t len, bool uncut);

#endif
