/* transfer.h - the Transfer Engine: moves bytes between registered memory of processes and hosts.
 *
 *   struct mc_te *te;            one per process: a loop thread, a table of regions, a table of peers
 *   struct mc_region_key         names a registered range of somebody's memory; 64 opaque bytes, sent by any means
 *   struct mc_peer *peer;        another process' engine, reached over the best transport for each region
 *   struct mc_batch *batch;      reads and writes submitted together, with one deadline and one completion
 *
 * How bytes move. Over tcp the side whose memory is to be written receives them; on one host the caller copies, from
 * the peer's region or into it. Either way "may I still store here?" is asked by the thread that stores, right before
 * each piece of at most 256 KiB and again whenever it was stopped: is the region still registered, is the batch still
 * wanted, does the socket stand?
 *
 * What a caller may rely on. When a batch has completed, or mc_batch_cancel() has returned, local memory is neither read nor
 * written any more and may be used again at once. A batch never outlives its deadline by more than 50 ms of time in which
 * both processes had a processor.
 * The peer's memory: of a batch that succeeded, or failed at its deadline, nothing is written later. Of a write that
 * failed or was cancelled *before* its deadline nothing is written later either, as long as the reset of its connection
 * reaches the peer, or both are on one host. Over a network that swallows packets without a word, bytes which left before
 * may still be stored, but never after the batch's deadline: until then the remote range counts as in use. So give
 * writes short deadlines.
 *
 * Transports. `auto` takes for each peer and region the first of: shm-memfd (same host, region allocated with
 * mc_te_alloc: copied from the mapped, sealed memfd, or into it when all of it was allocated with MC_REGION_WRITE),
 * shm-vm (same host, any other memory: process_vm_readv and process_vm_writev where the kernel allows them), tcp. Asking for one by name never falls back to another. Bytes over tcp
 * carry CRC32C per piece; copies on one host do not (there is nothing to compare with), unless the caller asks for
 * the checksum of what arrived (mc_op.crc32c).
 *
 * Threads: every call may be made from any thread except where said. The engine owns its loop thread. `done`
 * callbacks run on that thread, exactly once, never inside the call that started them, and must not block.
 * Deadlines are given as milliseconds from now and kept on CLOCK_MONOTONIC. */
#ifndef MOONCAKE_TRANSFER_H
#define MOONCAKE_TRANSFER_H

#include <stddef.h>
#include <stdint.h>
#include <mooncake/status.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mc_te;
struct mc_peer;
struct mc_batch;

enum {
    MC_TE_LINKS_MAX = 16,          /* connections to one peer */
    MC_TE_OPS_MAX = 1 << 20,       /* operations in one batch */
    MC_TE_DEADLINE_MAX = 86400000, /* ms; longer is MC_EINVAL */
    MC_TE_COPIERS_MAX = 64,        /* threads that copy from memory of other processes at the same moment */
};

/* Options of an engine. Zero or NULL means the default; set `size` to sizeof(struct mc_te_opts). */
struct mc_te_opts {
    size_t size;
    const char *listen;    /* "host:port", "[v6]:port"; default "127.0.0.1:0"; "none": reachable only through peers
                             * that this engine opened itself */
    const char *transport; /* "auto" (default), "tcp", "shm"; a list "shm,tcp" is tried in order */
    const char *fault; /* wraps every transport: "seed=7,drop=0.01,delay_ms=5,cut=0.001,corrupt=0.001"; default none */
    const char *host_id; /* peers with an equal host id try shared memory; default: the kernel's boot id */
    const char
        *run_dir;     /* 0700 directory for the Unix socket; default $XDG_RUNTIME_DIR/mooncake or /tmp/mooncake-UID */
    uint8_t uuid[16]; /* identity shown to peers; all zero: random */
    uint32_t epoch;   /* start count of this identity */
    uint32_t links;   /* tcp connections per peer, 1..MC_TE_LINKS_MAX; default 2 */
    uint32_t inflight_max; /* bytes of one link in flight, in KiB; default 4096 */
};

/* Start an engine: opens its listener and loop thread. `*out` is given: end it with mc_te_destroy().
 *   MC_EINVAL  an option is out of range, or `transport` names an unknown one; the log says which
 *   MC_ENOSUP  the named transport does not work on this kernel
 *   MC_ESYS    the address cannot be bound (the log says who to ask: port taken, address not ours)
 *   MC_ENOMEM
 * Blocks for the time of a bind. */
MC_API enum mc_status mc_te_create(const struct mc_te_opts *opts, struct mc_te **out);

/* Fail what is in flight with MC_ECLOSED (its callbacks run before this returns), close every peer, unregister every
 * region and stop the thread. Peers and batches of this engine are gone afterwards. Never from a `done` callback. */
MC_API void mc_te_destroy(struct mc_te *te);

/* "host:port" as bound, for others to open. Lent until destroy. */
MC_API const char *mc_te_address(const struct mc_te *te);

/* Readable when completions wait to be noticed by a foreign loop; read 8 bytes to clear. Owned by the engine. */
MC_API int mc_te_eventfd(struct mc_te *te);

/* ---- memory ---------------------------------------------------------------------------------------------------- */

/* Names one registered range. Opaque and position-free: send it to whoever may use it. Whoever holds it may read the
 * range (and write it, with MC_REGION_WRITE) through an engine whose handshake succeeded; the id inside is random. */
struct mc_region_key {
    uint8_t bytes[64];
};

enum mc_region_flags {
    MC_REGION_READ = 1,  /* peers may read it */
    MC_REGION_WRITE = 2, /* peers may write it. Those of this host, which run as our user, are given a writable
                          * mapping of memory of mc_te_alloc() with this flag: they are trusted to keep to their keys */
};

/* Register [addr, addr+len). The memory stays the caller's and must stay mapped until unregistered. Ranges may
 * overlap each other; any sub-range can be addressed.
 *   MC_EINVAL len 0, wraps, or flags unknown     MC_ENOMEM region table full (65,536) */
MC_API enum mc_status mc_te_register(
    struct mc_te *te, void *addr, uint64_t len, uint32_t flags, struct mc_region_key *key);

/* Withdraw a region. Operations of peers that have not finished fail with MC_ENOENT at their next piece; when this
 * returns no byte of the range is read or written through this key any more. Waits for a piece being copied at this
 * moment: microseconds; at most a second, when the process on this host that copies it is given no processor for so
 * long.  MC_ENOENT: not registered here. */
MC_API enum mc_status mc_te_unregister(struct mc_te *te, const struct mc_region_key *key);

/* Allocate `len` bytes of zeroed memory in a sealed memfd and register it: peers on the same host copy straight from
 * it (or map it, mc_peer_map). Pages are committed when first touched. End with mc_te_free(). */
MC_API enum mc_status mc_te_alloc(
    struct mc_te *te, uint64_t len, uint32_t flags, void **addr, struct mc_region_key *key);
MC_API void mc_te_free(struct mc_te *te, void *addr);

/* ---- peers ----------------------------------------------------------------------------------------------------- */

struct mc_peer_opts {
    size_t size;
    const uint8_t *uuid; /* expected identity (16 bytes), or NULL: whoever answers */
    uint32_t epoch;      /* expected epoch; 0: any */
    uint32_t timeout_ms; /* for the first connection; default 2000 */
};

/* Connect to the engine listening at `address`. Blocks until the handshake is done or failed. The handle stays good
 * when the peer restarts: links that broke are opened again, also while nothing is to be moved (the peer may have something
 * to move), and the identity is checked again.
 *   MC_EINVAL address malformed     MC_EPEERDOWN nobody answers     MC_EREFUSED somebody else answers
 *   MC_EVERSION no common protocol version     MC_ETIMEDOUT
 * `*out` is given: mc_peer_close(). */
MC_API enum mc_status mc_peer_open(
    struct mc_te *te, const char *address, const struct mc_peer_opts *opts, struct mc_peer **out);

/* Batches in flight complete with MC_ECLOSED first. */
MC_API void mc_peer_close(struct mc_peer *peer);

enum mc_path {
    MC_PATH_NONE, /* not reachable */
    MC_PATH_TCP,
    MC_PATH_SHM_MEMFD, /* mapped sealed memfd */
    MC_PATH_SHM_VM,    /* process_vm_readv, process_vm_writev */
};
MC_API const char *mc_path_str(enum mc_path path);

/* The way a read of this region would take now. Does not block. */
MC_API enum mc_path mc_peer_path(struct mc_peer *peer, const struct mc_region_key *key);

/* Counters since the peer was opened; a snapshot, each value exact on its own. */
struct mc_peer_stats {
    uint64_t read_bytes[4];  /* by us, by enum mc_path */
    uint64_t write_bytes[4]; /* by us, by enum mc_path */
    uint64_t served_bytes;   /* sent to the peer over tcp on its request */
    uint64_t batches, batches_failed, ops, retries;
    uint64_t crc_errors;  /* pieces refused because their wire checksum was wrong */
    uint64_t fences;      /* links cut so that a failed write could not land late */
    uint32_t links;       /* open now */
    uint32_t rtt_us;      /* smoothed, of small requests; 0 = not measured yet */
    uint64_t bytes_per_s; /* smoothed, of bulk reads; 0 = not measured yet */
};
MC_API void mc_peer_stats(struct mc_peer *peer, struct mc_peer_stats *out);

/* Map [offset, offset+len) of a same-host memfd region read-only into this process, for views in place. The bytes
 * stay the peer's: what keeps them from changing (a pin) is between the two applications. Lent until mc_peer_unmap()
 * or mc_peer_close(). Mappings of one memfd are shared, so this is cheap.
 *   MC_ENOSUP the region is not reachable that way     MC_ENOENT region gone */
MC_API enum mc_status mc_peer_map(
    struct mc_peer *peer, const struct mc_region_key *key, uint64_t offset, uint64_t len, const void **addr);
MC_API void mc_peer_unmap(struct mc_peer *peer, const void *addr);

/* ---- transfers ------------------------------------------------------------------------------------------------- */

enum mc_opcode { MC_READ, MC_WRITE };

struct mc_op {
    enum mc_opcode opcode;
    enum mc_status status; /* out: result of this operation; MC_PENDING until then */
    void *local;           /* MC_READ: destination; MC_WRITE: source. Borrowed until the batch completes. Need not
                                 * be registered: the engine registers it for the time of the batch */
    uint64_t len;          /* bytes; 0 is allowed and succeeds */
    struct mc_region_key region;
    uint64_t offset;  /* in the remote region */
    uint32_t *crc32c; /* MC_READ: if not NULL, receives CRC32C of the bytes as they were stored at `local`,
                                 * computed in the same pass as the copy. MC_WRITE: must be NULL */
};

/* Runs on the engine's thread when every operation has its status; `status` is the first failure, or MC_OK. */
typedef void mc_done_fn(struct mc_batch *batch, enum mc_status status, void *arg);

/* Start `n` operations against one peer. `ops` is borrowed until the batch completed. Operations adjacent on both
 * sides may be carried out as one. There is no order between operations.
 *   MC_OK      `*out` is given: mc_batch_free() after it completed. `done` (may be NULL) runs exactly once.
 *   otherwise  nothing was started, `done` will not run:
 *   MC_AGAIN   too many bytes or operations in flight to this peer      MC_EINVAL n, deadline or an op out of range
 *   MC_EPEERDOWN the peer is known to be gone                            MC_ENOMEM
 *   MC_ECLOSED   peer or engine is being closed (in a `done` that closing runs)
 * A single operation's failure: MC_ENOENT region gone, MC_EPERM flags forbid it, MC_EINVAL outside the region,
 * MC_EPEERDOWN, MC_ETIMEDOUT, MC_ECANCELED, MC_EPROTO (checksum, after retries), MC_EBUSY (same host:
 * MC_TE_COPIERS_MAX threads of ours are copying already). After a failed read the content of `local` is undefined,
 * after a failed write that of the remote range. */
MC_API enum mc_status mc_transfer_submit(struct mc_peer *peer, struct mc_op *ops, uint32_t n, uint32_t deadline_ms,
    mc_done_fn *done, void *arg, struct mc_batch **out);

/* Block until the batch completed, at most `timeout_ms` (UINT32_MAX: as long as its own deadline takes). Returns the
 * batch's status, or MC_PENDING when the time-out came first. Not from a `done` callback. */
MC_API enum mc_status mc_batch_wait(struct mc_batch *batch, uint32_t timeout_ms);

/* The batch's status now; MC_PENDING while it runs. */
MC_API enum mc_status mc_batch_poll(const struct mc_batch *batch);

/* Stop it: what has not finished fails with MC_ECANCELED. On return the batch has completed (bounded by 50 ms). */
MC_API void mc_batch_cancel(struct mc_batch *batch);

/* Free a completed batch. Freeing a running one cancels it first. */
MC_API void mc_batch_free(struct mc_batch *batch);

/* Submit, wait, free. Returns the batch's status, or why it could not start; waits out MC_AGAIN within the deadline. */
MC_API enum mc_status mc_transfer_sync(struct mc_peer *peer, struct mc_op *ops, uint32_t n, uint32_t deadline_ms);

#ifdef __cplusplus
}
#endif
#endif
