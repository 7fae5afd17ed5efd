/* core.h - the inside of the Transfer Engine, shared by its files and its transports.
 *
 *     mc_te --- regions (rows, lock)         what peers may name
 *       |------ peers ---- links (tcp conns) dialled by us, or taken from a listener (inbound peers, one per uuid)
 *       |            `---- pending xfers     what no link had room for yet
 *       |------ sessions (shm)               one per process on this host, shared by the peers of its uuid
 *       `------ batches -- xfers -- parts    a batch is cut into xfers of at most XFER_BYTES; an xfer is the unit that is
 *                                            given to a transport, retried, and completed
 *
 * Life of an xfer: built by the submitting thread -> pending at its peer -> flying (given to a transport) -> ended. A transport
 * ends it with xfer_end(); a failure of the connection puts it back to pending (other link, new link) within the deadline
 * of its batch. Whoever fails or cancels a batch takes flying xfers back with transport->cancel(), after which no byte of it is
 * moved any more by this process.
 *
 * Threads: everything is the loop's, except what says "any". te->lock guards the region rows, segments and the list of incoming
 * batches; it is held for a few instructions only and is the innermost lock. */
#ifndef TRANSFER_CORE_H
#define TRANSFER_CORE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/list.h"
#include "base/rng.h"
#include "mooncake/transfer.h"
#include "net/conn.h"
#include "net/loop.h"
#include "transfer/te.h"
#include "transfer/transport.h"

#define XFER_BYTES                                                                                                     \
    (1u << 20)            /* 1 MiB: large enough that a request costs nothing, small enough to share between links */
#define XFER_PARTS   1024 /* parts of one xfer: a request body of 20 KiB */
#define INLINE_BYTES (256u << 10) /* same-host batches up to here are done inside submit */
#define REGION_ROWS  65536
#define SEGMENTS_MAX 4096

/* One xfer is tried again when its connection broke or its bytes came damaged, until its deadline or this many points: a lost
 * connection takes many requests with it that were not to blame. */
#define ATTEMPTS_MAX    64
#define ATTEMPT_DAMAGED 8

/* After a failed write was fenced by cutting its connection: time for a receive that is already inside the kernel at the
 * peer (at most one piece) to end before the caller is told. The copy takes some 50 us, but on busy cores the peer may have lost
 * its processor in the middle of it: with 10 ms one write in a few hundred landed late at load 8. */
#define FENCE_GRACE_NS (35 * NS_PER_MS)

struct shm;     /* shm/shm.h */
struct session; /* shm/shm.h */
struct fault;   /* fault/fault.h */

/* ---- memory ---- */

/* One registered range. */
struct region {
    _Atomic uint64_t id; /* 0: free or withdrawn. Low 16 bits = the row. Written under te->lock, read by any */
    uint8_t *addr;
    uint64_t len;
    uint32_t flags;
    uint32_t segment; /* number, 0 = none */
    uint64_t base;    /* offset of addr in the segment */
    uint32_t serving; /* requests of peers under way that use it; guarded by te->lock */
    uint32_t next;    /* free list */
};

struct segment {
    uint32_t number; /* 1, 2, ...; never used twice */
    void *addr;
    uint64_t len;
    int fd;        /* ours, read-write */
    int fd_shared; /* the same memory: what peers get; read-only unless they may write all of it */
    uint64_t region;
};

enum mc_status region_add(struct mc_te *te, void *addr, uint64_t len, uint32_t flags, uint32_t segment, uint64_t base,
    uint64_t *id); /* any */

/* Withdraw the row at once and free it; waits until no peer's request uses it (any thread), see mc_te_unregister(). */
enum mc_status region_remove(struct mc_te *te, uint64_t id); /* any */
void regions_remove_all(struct mc_te *te);                   /* loop */

/* May a peer use [offset, offset+len) of this region for what `need` says? MC_OK and *addr; MC_ENOENT, MC_EPERM, MC_EINVAL. With
 * `hold` its serving count goes up: region_release() later. */
enum mc_status region_find(
    struct mc_te *te, uint64_t id, uint64_t offset, uint64_t len, uint32_t need, bool hold, uint8_t **addr);
void region_release(struct mc_te *te, uint64_t id);
bool region_alive(struct mc_te *te, uint64_t id);

void segments_fini(struct mc_te *te);

/* A descriptor of that segment for a peer, given to the caller; -1 = there is none. Any thread. */
int segment_share(struct mc_te *te, uint32_t number);

/* Is the range inside memory of mc_te_alloc()? The number of the segment and the offset in it; 0 = no. Any thread. */
uint32_t segment_of(struct mc_te *te, const void *addr, uint64_t len, uint64_t *offset);

/* ---- batches ---- */

struct part {
    uint8_t *local;
    uint64_t region; /* id */
    uint64_t offset; /* in the region */
    uint32_t len;
    uint32_t crc;     /* MC_READ: CRC32C of what was stored, when the xfer wants it */
    uint32_t op;      /* first op of the batch it serves; following parts of the same op have the same number */
    uint32_t ops;     /* how many ops were merged into it */
    uint32_t segment; /* that the region lies in, as the key says (TE_KIND_MEMFD) */
};

enum xfer_state {
    XFER_PENDING, /* in peer->pending */
    XFER_FLYING,  /* with a transport, in its lists */
    XFER_ENDED,   /* has its status */
};

struct xfer {
    struct list link;  /* peer->pending, or the transport's */
    struct list order; /* batch->xfers */
    struct mc_batch *batch;
    struct transport *via; /* while flying */
    void *slot;            /* the transport's */
    enum xfer_state state;
    enum mc_opcode opcode;
    uint8_t kind; /* enum te_region_kind of the remote side */
    bool want_crc;
    uint32_t attempts;
    uint32_t bytes;
    uint32_t part_count;
    uint64_t started_ns;
    struct part parts[];
};

struct mc_batch {
    struct mc_te *te;
    struct mc_peer *peer;
    struct mc_op *ops;
    uint32_t op_count;
    uint32_t xfers_left;
    uint64_t bytes;
    uint64_t deadline_ns;
    mc_done_fn *done;
    void *done_arg;
    bool in_done, freed; /* its `done` runs; and has freed it */
    bool led;            /* its caller waits at the sockets */
    struct list link;    /* te->incoming, then peer->batches */
    struct list xfers;   /* in order of ops */
    struct loop_timer timer;
    enum mc_status first;      /* first failure */
    enum mc_status ending;     /* not MC_PENDING: failed or cancelled, waiting for fences */
    uint64_t fence_until_ns;   /* completion not before this, when a write was cut */
    _Atomic int status;        /* enum mc_status; MC_PENDING until complete */
    _Atomic uint32_t finished; /* futex: 1 when nobody but the caller touches the batch any more */
};

/* The transport has ended a flying xfer. Statuses of a broken connection (ECLOSED, EPROTO, EPEERDOWN) and MC_ESTALE put it back
 * to pending while attempts and deadline allow. */
void xfer_end(struct xfer *xfer, enum mc_status status);

/* Mark the ops of an xfer that cannot be carried out. */
void xfer_ops_failed(struct xfer *xfer, enum mc_status status);

/* Put a flying xfer back to pending without counting an attempt. */
void xfer_requeue(struct xfer *xfer);

/* Fail what has not ended of it with `why` and complete it (later, when writes had to be fenced). */
void batch_fail(struct mc_batch *batch, enum mc_status why);
void batch_fail_expired(struct mc_te *te);
void batch_take_incoming(struct mc_te *te);

/* Fail all batches of the peer and complete them before this returns (their `done` is queued: batch_run_done). */
void batch_fail_peer(struct mc_peer *peer, enum mc_status why);
void batch_run_done(struct mc_te *te);
void batch_tell_settled(struct mc_te *te);

/* batch_build.c: ops that cannot be right fail alone, the others are cut into xfers. MC_OK, MC_ENOMEM. */
enum mc_status batch_build(struct mc_batch *batch);
void batch_unbuild(struct mc_batch *batch); /* xfers go */

/* All ops have their status; the peer forgets the batch. Then its status is set, and who waits is told: the last access of ours. */
void batch_settle(struct mc_batch *batch);
void batch_signal(struct mc_batch *batch);

/* submit.c: operations of the peer have ended. Any thread. */
void room_give(struct mc_peer *peer, uint32_t n);

/* ---- wait.c, any thread ---- */

enum { WORD_UNSET, WORD_SET, WORD_WAITED /* unset, and somebody sleeps until it is */ };

/* Sleep until then; for the rare cases where the loop's thread itself has to sit out a fence. */
void fence_wait(uint64_t until_ns);

/* Wait for / wake on a 32-bit word that becomes 1: WORD_SET. */
bool word_wait(_Atomic uint32_t *word, uint64_t deadline_ns);
void word_wake(_Atomic uint32_t *word);

/* The same for one that counts: sleep while it is `value`, at most until then. */
void word_wait_change(_Atomic uint32_t *word, uint32_t value, uint64_t deadline_ns);
void word_wake_waiters(_Atomic uint32_t *word);

/* ---- peers ---- */

struct peer_counters {
    _Atomic uint64_t read_bytes[4], write_bytes[4], served_bytes, batches, batches_failed, ops, retries, crc_errors,
        fences;
    _Atomic uint32_t links, rtt_us;
    _Atomic uint64_t bytes_per_s;
};

enum peer_shm {
    PEER_SHM_UNKNOWN, /* no link has told us yet */
    PEER_SHM_WAIT,    /* same host id: the proof is under way */
    PEER_SHM_UP,
    PEER_SHM_NONE, /* other host, or refused: say why once */
};

struct mc_peer {
    struct mc_te *te;
    struct list link; /* te->peers */
    struct addr addr;
    bool inbound;  /* they connected to us: never dialled, found by uuid */
    unsigned refs; /* inbound: handles given out by te_peer_by_uuid */

    bool expect_uuid;
    uint8_t want_uuid[UUID_SIZE];
    uint32_t want_epoch, timeout_ms;

    pthread_mutex_t id_lock; /* guards known, uuid, epoch: read by submitting threads */
    bool known;
    uint8_t uuid[UUID_SIZE];
    uint32_t epoch;
    _Atomic int down; /* MC_OK, or why the last attempt failed: submit says so at once until retry_ns */
    _Atomic uint64_t retry_ns;

    struct list links; /* struct tcp_link */
    unsigned link_count;
    _Atomic unsigned ready_count; /* written on the loop */
    uint32_t backoff_ms;          /* 0: the last attempt to dial succeeded */
    uint64_t up_ns;               /* when a link stood last */
    struct loop_timer retry_timer;
    uint64_t fence;      /* our writes to it carry this; grows when writes may be left on a lost link */
    uint64_t fence_seen; /* highest of its writes to us */

    struct list pending; /* struct xfer */
    struct list batches;
    _Atomic bool closing; /* nothing is started any more, also not by the `done` callbacks that closing runs */
    _Atomic uint64_t ops_inflight;
    _Atomic uint32_t room; /* futex of those told MC_AGAIN: changes whenever a batch ends */
    _Atomic uint32_t room_waiters;

    _Atomic int shm_state; /* enum peer_shm, written on the loop */

    /* mc_peer_open() waiting */
    _Atomic uint32_t opened; /* futex */
    enum mc_status open_status;

    struct peer_counters count;
};

/* Give pending xfers to transports until they are full. */
void peer_pump(struct mc_peer *peer);

/* A link became ready / went away. */
void peer_link_up(struct mc_peer *peer);
void peer_link_down(struct mc_peer *peer, enum mc_status why);

/* Same-host state has changed: what waited for it goes on. */
void peer_shm_set(struct mc_peer *peer, enum peer_shm state);

/* The peer that collects connections of `uuid` to us, of which one is there; made when there is none. NULL: no memory. */
struct mc_peer *peer_inbound(struct mc_te *te, const uint8_t uuid[UUID_SIZE], uint32_t epoch);
void peer_inbound_release(struct mc_peer *peer);

/* Fail its batches, drop its links, free it. */
void peer_end(struct mc_peer *peer);

const char *peer_name(const struct mc_peer *peer); /* for log lines; lent until the next call of this thread */

/* ---- the engine ---- */

#define TRANSPORTS_MAX 4

struct mc_te {
    struct loop *loop;
    bool own_loop;
    bool closing;
    unsigned refs; /* one of the owner, one of each connection: their last callbacks come after mc_te_destroy() */
    pthread_mutex_t lock;

    uint8_t uuid[UUID_SIZE];
    uint32_t epoch, links_max;
    uint64_t window;
    char host_id[HELLO_HOST_MAX + 1];
    char run_dir[96];

    struct transport transports[TRANSPORTS_MAX]; /* in order of preference */
    unsigned transport_count;
    struct fault *fault; /* NULL = none */

    struct listener *listener;
    char address[ADDR_TEXT_MAX];
    int eventfd;
    atomic_bool eventfd_wanted;

    struct region *rows;           /* REGION_ROWS */
    uint32_t rows_used, rows_free; /* high-water mark; 1 + first free row */
    struct segment *segments[SEGMENTS_MAX];
    uint32_t segments_used, segment_last; /* high-water mark; number given out last */

    struct list incoming; /* struct mc_batch, guarded by lock */
    struct list finished; /* struct mc_batch whose `done` is to run */
    struct list settled;  /* those without: their caller is to be woken */
    struct loop_task incoming_task, pump_task, done_task, settled_task;
    struct list peers, links;
    struct loop_gap gap;
    struct shm *shm; /* NULL: no shared memory asked for */

    unsigned completing; /* `done` callbacks on the stack: one that closes a peer has others run inside */
};

/* Ends of a connection in messages: hello of this engine. */
void te_fill_hello(const struct mc_te *te, struct hello *self, enum hello_role role);

/* Connections hold the engine until their on_close. */
void te_ref(struct mc_te *te);
void te_unref(struct mc_te *te);

/* Pump every peer again in this turn, after the callbacks. */
void te_pump_later(struct mc_te *te);

#endif
