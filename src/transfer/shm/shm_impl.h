/* shm_impl.h - inside src/transfer/shm: the page, sessions, and what the files share.
 *
 *   struct shm --- page (ours, written by us, read by every session's far end)
 *       |-- sessions --- page (theirs, read-only)
 *       |       `------- mappings    their segments, asked for when first needed
 *       `-- parted                   sessions that we ended: what their process copies at this moment is still looked for
 *
 * A copy from somebody's memory, or into it, announces itself first ("hazard": the id of the row it is made under, in the copier's
 * own page), then looks whether the row is still granted, then copies one piece. The owner of the row withdraws it first and then
 * looks for hazards. Both orders are sequentially consistent, so one of the two sees the other. */
#ifndef TRANSFER_SHM_IMPL_H
#define TRANSFER_SHM_IMPL_H

#include <assert.h>
#include <stdalign.h>
#include <sys/types.h>

#include "transfer/shm/shm.h"
#include "transfer/wire.h"

#define PAGE_MAGIC   0x4750434du /* "MCPG" */
#define PAGE_VERSION 2
#define HAZARDS      MC_TE_COPIERS_MAX
#define SHM_PIECE    PIECE_MAX
#define MAPPINGS_MAX SEGMENTS_MAX

/* ---- the page: read by other processes of the same build; PAGE_VERSION guards its layout ---- */

/* The id is written last when the row is granted, and first when it is withdrawn: see grant_read(). */
struct grant {
    alignas(64) _Atomic uint64_t id; /* 0: free */
    _Atomic uint64_t addr, len;      /* in the owner's address space */
    _Atomic uint64_t base;           /* and in the segment */
    _Atomic uint32_t flags, segment; /* 0: in none */
};
static_assert(sizeof(struct grant) == 64, "a cache line, part of the page's layout");

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
static_assert(offsetof(struct page, grants) == 64 + 64 * HAZARDS, "part of the page's layout");

/* ---- sessions ---- */

enum mapping_state { MAPPING_ASKED, MAPPING_READY, MAPPING_REFUSED };

struct mapping {
    struct list link;
    _Atomic unsigned refs; /* one of the session's list, one of each copier and view */
    uint32_t number;
    enum mapping_state state;
    const uint8_t *addr; /* nobody can write by this one: views lie in it */
    uint8_t *writable;   /* the same memory a second time; NULL: the owner lets it be read only */
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

struct session {
    struct list link; /* shm->sessions or shm->parted, guarded by shm->lock */
    struct shm *shm;
    struct conn *conn;
    int fd;    /* a second descriptor of the socket: hangs up when the process is gone, whatever its number is then */
    pid_t pid; /* from the socket */
    bool dialled;
    uint8_t uuid[UUID_SIZE];
    bool proven;    /* they sent back our nonce */
    atomic_bool up; /* proven both ways; false again when it ends */
    bool by_call; /* process_vm_readv on them works, and so does process_vm_writev: the kernel asks the same for both */
    const struct page *page;
    struct list mappings; /* guarded by shm->lock for adding and changes of state */
    unsigned mapping_count;
    _Atomic unsigned refs; /* the loop's, and each copy or view under way */
    atomic_bool silent; /* none is left, and the far end was told so: set by whoever let go last, as his last access */
};

struct shm {
    struct mc_te *te;
    pthread_mutex_t lock;
    struct list sessions, parted;
    struct list views; /* guarded by lock */
    struct page *page;
    int page_fd; /* read-only: passed to peers */
    char path[WIRE_PATH_MAX + 1];
    int listen_fd;
    struct loop_io listen_io;
    struct loop_timer listen_retry; /* descriptors were out */
    unsigned session_count;
};

/* process.c: what a process does, by what the kernel says of its threads. */
enum process_state {
    PROCESS_STOPPED,  /* each of its threads, by SIGSTOP; or it is gone */
    PROCESS_RUNNABLE, /* a thread runs, or waits for a processor or a page */
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

/* The same memory for writing; NULL: the descriptor, or a seal, does not let us. */
uint8_t *map_writable(int fd, uint64_t len);

/* Announce a copy under `id`: the hazard, or NULL when all are in use. */
struct hazard *hazard_set(struct shm *shm, uint64_t id);
void hazard_clear(struct hazard *hazard);
bool page_has_hazard(const struct page *page, uint64_t id);

/* What a row of the page says. */
struct granted {
    uint64_t addr, len, base;
    uint32_t flags, segment;
};

/* Is the row of that id granted at this moment? Then *out is what it says (NULL: not asked for). */
bool grant_read(const struct page *page, uint64_t id, struct granted *out);

/* session.c */
struct session *session_find(struct shm *shm, const uint8_t uuid[UUID_SIZE]); /* loop */
struct session *session_get(struct mc_peer *peer);                            /* any thread: a reference */
void session_put(struct session *session);                                    /* NULL is fine */
bool session_hung_up(const struct session *session);
void sessions_sweep(struct shm *shm); /* those go that have ended and in which neither side copies any more; loop */
void sessions_fini(struct shm *shm);  /* all of them, when they have ended */

/* Begin a session over a connected socket (given); with `uuid` it must be that process. MC_OK: it tells the peers how it went. */
enum mc_status session_start(struct shm *shm, int fd, bool dialled, const uint8_t *uuid);

/* Pass a descriptor; a session that cannot is ended. */
void session_send_fd(struct session *session, enum wire_fd kind, uint32_t number, int fd);

/* segment.c: what came for it. */
void segment_came(struct session *session, uint32_t number, int fd);
void segment_frame(struct session *session, const struct frame *frame);
void segment_gone_frame(struct session *session, const struct frame *frame);

/* The peer's segment: ready, asked for now, or refused, which it is for writing when it came for reading only. Loop. */
enum mapping_state session_segment(struct session *session, uint32_t number, enum mc_opcode opcode);

/* Was it asked for, and refused? Any thread. */
bool session_refused(struct session *session, uint32_t number);

/* NULL: not ready. Any thread, while the session is held; mapping_put() afterwards. */
struct mapping *session_mapping(struct session *session, uint32_t number);
void mapping_put(struct mapping *mapping); /* NULL is fine */

/* copy.c: carry out the xfer in this thread, under a reference to the session or on its loop. MC_OK; MC_EPEERDOWN: the session has
 * ended, it may be tried again another way; or as transfer.h says of one operation. Also when it failed some of it may be copied. */
enum mc_status xfer_copy(struct session *session, enum mc_path path, struct xfer *xfer);

#endif
