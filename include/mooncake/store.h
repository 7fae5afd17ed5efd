/* store.h - the Store: everybody's memory as one pool of KVCache objects.
 *
 *   master   knows where things are (an index that can be lost and rebuilt)
 *   node     owns memory and what is in it; allocates, evicts and reports by itself
 *   client   this header: a handle with its own loop thread and Transfer Engine
 *
 * An object is written once, never changed in place, and described by a header that carries its key, generation,
 * version, length and a CRC32C per chunk. Every read that copies is verified against that header by the reader: the
 * result is the right bytes, or a miss with a reason. So reads need no lease. A view in place holds a pin.
 *
 * There are two kinds of keys. `block`: a 16-byte content address (kvcache.h computes it); any number of copies, all
 * equal, never in conflict. `named`: an opaque name up to 1,024 bytes; the first put wins (later puts succeed and
 * change nothing); upsert replaces; versions only go up.
 *
 * All operations exist in one form: an array of struct mc_store_op, submitted together with one deadline, with a
 * result each. The short calls at the end are that form with one operation.
 *
 * Threads: any call from any thread, except that mc_store_close() must be the last. `done` callbacks run on the
 * store's own thread, exactly once, never inside submit, and must not block. Memory given in operations is borrowed
 * until the batch completed; after it completed, with whatever status, none of it is touched again.
 * Every call returns by its deadline + 50 ms. Deadlines are milliseconds from now. */
#ifndef MOONCAKE_STORE_H
#define MOONCAKE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <mooncake/status.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mc_store;
struct mc_store_batch;
struct mc_te;

enum {
    MC_NAME_MAX = 1024,       /* bytes of a named key */
    MC_OBJECT_MAX = 1 << 30,  /* bytes of one object */
    MC_CHUNK_MAX = 64 << 10,  /* bytes under one checksum */
    MC_RANGES_MAX = 1024,     /* pieces of one get */
    MC_STORE_OPS_MAX = 65536, /* operations in one batch */
    MC_REPLICAS_MAX = 8,
    MC_BUNDLE_MAX = 4096, /* puts that are seen together */
};

#define MC_LEASE_MASTER UINT32_MAX /* a lease as long as the master's own (struct store_master_opts) */

/* Options; zero or NULL means the default; set `size`. */
struct mc_store_opts {
    size_t size;
    const char *master;     /* "host:port" of the master; default "127.0.0.1:7400" */
    const char *transport;  /* as in mc_te_opts */
    const char *fault;      /* as in mc_te_opts */
    const char *host_id;    /* as in mc_te_opts */
    const char *run_dir;    /* as in mc_te_opts */
    uint32_t ns;            /* namespace of all keys of this handle (tenant and model); default 0 */
    uint32_t locations_max; /* cached locations; default 1,048,576 */
    uint32_t connect_ms;    /* how long open waits for the master; 0: do not wait, connect in the background */
    uint32_t lease_ms;      /* of what exists and prefix promise; default 5000; MC_LEASE_MASTER: the master's */
    bool get_promises;      /* gets that ask the master promise as well */
};

/* Open a client. `*out` is given: mc_store_close().
 *   MC_EINVAL an option     MC_EPEERDOWN the master did not answer within connect_ms     MC_EVERSION  MC_ENOMEM */
MC_API enum mc_status mc_store_open(const struct mc_store_opts *opts, struct mc_store **out);

/* Batches in flight complete with MC_ECLOSED; their callbacks run before this returns. Under 50 ms. */
MC_API void mc_store_close(struct mc_store *store);

/* The first half of close, for handles that several threads use: what is in flight completes with MC_ECLOSED, what is
 * started later says so at once, and the handle stays. When the threads have left it, close it. */
MC_API void mc_store_shutdown(struct mc_store *store);

/* The Transfer Engine inside, to register memory that is put from or read into often. Lent until close. */
MC_API struct mc_te *mc_store_te(struct mc_store *store);

/* ---- keys ------------------------------------------------------------------------------------------------------ */

enum mc_key_kind { MC_KEY_BLOCK = 1, MC_KEY_NAMED = 2 };

struct mc_key {
    uint8_t kind;     /* enum mc_key_kind */
    uint16_t group;   /* kv-cache group of hybrid models; 0 */
    uint16_t shard;   /* tensor-parallel rank of this part, 0..shards-1 */
    uint16_t shards;  /* parts of the block; 0 and 1 mean one. A block is a hit when all parts are there */
    uint8_t id[16];   /* block: its id */
    const char *name; /* named: borrowed like other memory of the op; need not end in 0 */
    uint32_t name_len;
};

/* Fill a key of one part in group 0. `name` stays borrowed. */
MC_API void mc_key_block(struct mc_key *key, const uint8_t id[16]);
MC_API void mc_key_named(struct mc_key *key, const char *name, size_t len);

/* ---- operations ------------------------------------------------------------------------------------------------ */

enum mc_store_opcode {
    MC_PUT = 1, /* named: first put wins, MC_OK also for the loser, whose bytes are dropped (result.existed) */
    MC_UPSERT,  /* named only: replace; acknowledged when every reachable owner knows the old version is dead */
    MC_GET,     /* whole object, or the given ranges of it */
    MC_EXISTS,  /* result.status MC_OK or MC_ENOENT; promises what it found for the lease time */
    MC_REMOVE,  /* MC_OK, or MC_ENOENT; named: as upsert. MC_EPERM while promised, unless `force`. With `meta->node`
                 * only the copies at the node of that UUID, or at those of that name */
};

/* Why a get found nothing usable; MC_MISS_NONE with MC_OK. */
enum mc_miss {
    MC_MISS_NONE,
    MC_MISS_NEVER,       /* the index does not know the key */
    MC_MISS_EVICTED,     /* it was there and was evicted */
    MC_MISS_STALE,       /* the header at the location names another object or generation */
    MC_MISS_CORRUPT,     /* a checksum failed and the header still stands; or every try to bring it here was damaged */
    MC_MISS_PEER_DOWN,   /* all owners are down, suspect or unreachable */
    MC_MISS_TIMEOUT,     /* the deadline came first */
    MC_MISS_MISMATCH,    /* length or geometry differ from what the caller asked for */
    MC_MISS_MASTER_DOWN, /* no cached location, and no master to ask */
};
MC_API const char *mc_miss_str(enum mc_miss miss);

enum mc_object_flags {
    MC_OBJ_DECODE = 1,   /* made while decoding */
    MC_OBJ_SOFT_PIN = 2, /* evicted only after everything that is not */
    MC_OBJ_HARD_PIN = 4, /* never evicted: it goes by remove or upsert, or with its node */
};

/* What a put says about its object beside the bytes; all optional. Copied into the object's header. */
struct mc_object_meta {
    uint8_t parent[16];          /* block id this one hangs on; all zero: none. Leaves are evicted first */
    uint32_t depth;              /* blocks before it in its prefix */
    uint32_t tokens;             /* tokens in it */
    uint64_t geometry;           /* geometry id (kvcache.h); 0: opaque bytes */
    const uint64_t *plane_bytes; /* sizes of the planes in order; chunks never cross one; their sum is the length.
                                 * NULL: one plane. Borrowed */
    uint32_t planes;
    uint32_t flags;    /* enum mc_object_flags */
    uint32_t replicas; /* copies wanted on distinct nodes; 0 and 1: one */
    const char *node;  /* preferred node: UUID in hex or name; NULL: near first, then two random choices */
};

struct mc_range {
    uint64_t offset; /* in the object */
    uint64_t len;
    void *local; /* where it goes */
};

/* A source of a put, or the destination of a whole get: pieces that lie one after the other in the object. */
struct mc_span {
    void *addr;
    uint64_t len;
};

struct mc_store_result {
    enum mc_status status;
    enum mc_miss miss; /* gets */
    bool existed;      /* put: the key was there already */
    bool unindexed;    /* put of a block while the master was down: stored, announced later */
    bool maybe_stale;  /* get of a named key from a cached location while the master was down */
    uint64_t length;   /* get, exists: bytes of the object; put: bytes stored */
    uint64_t version;  /* named keys */
    uint8_t node[16];  /* owner that served or stored it */
    uint8_t path;      /* enum mc_path the bytes took (transfer.h) */
};

struct mc_store_op {
    enum mc_store_opcode opcode;
    struct mc_key key;
    const struct mc_span *spans; /* put: source pieces; get whole: destination pieces, their sum >= the length */
    uint32_t nspans;
    const struct mc_range *ranges; /* get: when nranges > 0 only these, `spans` unused */
    uint32_t nranges;
    const struct mc_object_meta *meta; /* put; remove, of which only `node` counts; NULL: none */
    bool force;                        /* remove even while promised */
    struct mc_store_result result;     /* out */
};

typedef void mc_store_done_fn(struct mc_store_batch *batch, void *arg);

/* Start `n` operations; no order between them, but operations on one key in one batch keep theirs. `ops` and all it
 * points to is borrowed until the batch completed.
 *   MC_OK: `*out` is given (mc_store_batch_free), `done` (may be NULL) runs exactly once.
 *   otherwise nothing was started: MC_AGAIN (too much in flight), MC_EINVAL, MC_ENOMEM, MC_ECLOSED.
 * Results: MC_OK; MC_ENOENT (get: see `miss`); MC_ENOSPC; MC_EPEERDOWN (no node or master for it); MC_ETIMEDOUT (a put
 * may or may not be there); MC_ECANCELED; MC_EMISMATCH; MC_ETOOBIG; MC_EPERM; MC_EINVAL. */
MC_API enum mc_status mc_store_submit(struct mc_store *store, struct mc_store_op *ops, uint32_t n, uint32_t deadline_ms,
    mc_store_done_fn *done, void *arg, struct mc_store_batch **out);

/* Block until completed, at most `timeout_ms`: MC_OK (every op has its result) or MC_PENDING. Not from a callback. */
MC_API enum mc_status mc_store_wait(struct mc_store_batch *batch, uint32_t timeout_ms);
MC_API void mc_store_cancel(struct mc_store_batch *batch); /* on return completed: what was not done is MC_ECANCELED */
MC_API void mc_store_batch_free(struct mc_store_batch *batch); /* cancels a running one first */

/* Submit, wait, free. MC_OK means that every op has its result, not that each succeeded. */
MC_API enum mc_status mc_store_sync(struct mc_store *store, struct mc_store_op *ops, uint32_t n, uint32_t deadline_ms);

/* ---- bundles --------------------------------------------------------------------------------------------------- */

/* Puts of names that are seen together: nobody finds one of them before all are there, also when nodes, the master or this process die
 * meanwhile. `ops` are MC_PUT or MC_UPSERT of named keys; the first sizes[0] of them are one bundle, the next sizes[1] another, `n`
 * bundles of 1 to MC_BUNDLE_MAX. All of a bundle lies at one node, chosen by the first one's `meta`, as are the replicas, and is evicted
 * together; a name that is there already stays where it is. More than 1,024 MC_EXISTS of one call are more than one look; gets are
 * each a look of their own.
 * Blocks. MC_OK: every op has its result, the same status for all of a bundle; MC_EPEERDOWN and MC_ETIMEDOUT: all of it may or may not be
 * there. Otherwise nothing was started, as mc_store_submit() says. */
MC_API enum mc_status mc_store_put_bundles(
    struct mc_store *store, struct mc_store_op *ops, const uint32_t *sizes, uint32_t n, uint32_t deadline_ms);

/* ---- prefix ---------------------------------------------------------------------------------------------------- */

struct mc_prefix {
    uint32_t blocks;       /* how many of the first ids are readable, without a hole */
    uint64_t bytes;        /* their sizes together */
    uint32_t local_blocks; /* of them on nodes of this host */
    uint64_t token;        /* names the promise made on them: until it ends eviction takes others first */
};

/* How many nodes hold each of the first blocks: for the scheduler. `counts[i]` = blocks of the prefix, from the
 * first on without a hole, that node i holds. */
struct mc_prefix_node {
    uint8_t node[16];
    uint32_t blocks;
};

/* Longest readable prefix of `n` block ids (16 bytes each), one round trip for any n, locations are cached for the
 * gets that follow. Promises what it found for `lease_ms` (0: the default lease). `nodes` (may be NULL) receives up to
 * `nodes_max` rows, `*nodes_n` how many.   MC_EPEERDOWN no master (the answer is then what cached locations say) */
MC_API enum mc_status mc_store_prefix(struct mc_store *store, const uint8_t (*ids)[16], uint32_t n, uint32_t lease_ms,
    uint32_t deadline_ms, struct mc_prefix *out, struct mc_prefix_node *nodes, uint32_t nodes_max, uint32_t *nodes_n);

/* The same without blocking: `done` runs on the store's thread; `out` and `nodes` are lent for the call. */
typedef void mc_prefix_done_fn(enum mc_status status, const struct mc_prefix *out, const struct mc_prefix_node *nodes,
    uint32_t nodes_n, void *arg);
MC_API enum mc_status mc_store_prefix_async(struct mc_store *store, const uint8_t (*ids)[16], uint32_t n,
    uint32_t lease_ms, uint32_t deadline_ms, mc_prefix_done_fn *done, void *arg);

/* ---- put in parts ---------------------------------------------------------------------------------------------- */

/* An object whose bytes come one after the other, e.g. layer by layer. Invisible until committed; a writer that dies,
 * or does not write for 10 s, loses it and the space comes back. */
struct mc_store_part;
MC_API enum mc_status mc_store_part_begin(struct mc_store *store, const struct mc_key *key, uint64_t length,
    const struct mc_object_meta *meta, uint32_t deadline_ms, struct mc_store_part **out);
MC_API enum mc_status mc_store_part_write(
    struct mc_store_part *part, uint64_t offset, const void *data, uint64_t len, uint32_t deadline_ms);
/* Ends it either way; MC_EINVAL when not every byte was written. */
MC_API enum mc_status mc_store_part_commit(
    struct mc_store_part *part, uint32_t deadline_ms, struct mc_store_result *out);
MC_API void mc_store_part_abort(struct mc_store_part *part);

/* ---- views in place -------------------------------------------------------------------------------------------- */

/* The object's bytes where they lie, mapped read-only, verified once, pinned until released. Pins end by themselves
 * `pin_ms` after the last renewal (the library renews while the view is held and the process lives).
 *   MC_ENOSUP the owner is not on this host     MC_ENOENT   MC_EPERM pin refused (limit)  */
struct mc_view {
    const void *addr;
    uint64_t length;
    uint64_t version;
    uint64_t pin; /* for mc_store_view_release */
    uint8_t node[16];
};
MC_API enum mc_status mc_store_view(
    struct mc_store *store, const struct mc_key *key, uint32_t pin_ms, uint32_t deadline_ms, struct mc_view *out);
MC_API void mc_store_view_release(struct mc_store *store, struct mc_view *view);

/* Pin or unpin objects without a view, e.g. the blocks of a running request. Pins of a client that dies end with its
 * connection.  `results` (may be NULL) one per key. */
MC_API enum mc_status mc_store_pin(struct mc_store *store, const struct mc_key *keys, uint32_t n, uint32_t pin_ms,
    uint32_t deadline_ms, uint64_t *token);
MC_API void mc_store_unpin(struct mc_store *store, uint64_t token);

/* ---- looking inside -------------------------------------------------------------------------------------------- */

struct mc_location {
    uint8_t node[16];
    uint32_t epoch;
    uint8_t tier;  /* 0 DRAM */
    uint8_t state; /* 0 up, 1 suspect, 2 unreachable */
    uint32_t segment;
    uint64_t offset, length, generation, version;
};
/* Where a key lies, without promising anything. `*n` in: capacity, out: rows.  MC_ENOENT */
MC_API enum mc_status mc_store_where(
    struct mc_store *store, const struct mc_key *key, uint32_t deadline_ms, struct mc_location *rows, uint32_t *n);

struct mc_node_info {
    uint8_t uuid[16];
    uint32_t epoch;
    uint8_t state; /* 0 up, 1 suspect, 2 unreachable, 3 draining */
    char name[64];
    char address[128];
    char host_id[64];
    uint64_t capacity, used, objects;
    uint64_t puts, evictions, hits; /* since its start */
};
MC_API enum mc_status mc_store_nodes(
    struct mc_store *store, uint32_t deadline_ms, struct mc_node_info *rows, uint32_t *n);

/* List keys of this namespace, in no order, from `*cursor` (start with 0; 0 again: the end). Names and block ids are
 * written as text into `buf`, one per line with size and node, for people and tools. */
MC_API enum mc_status mc_store_list(struct mc_store *store, const char *name_prefix, uint64_t *cursor, char *buf,
    size_t buf_size, uint32_t deadline_ms);

/* Register the canonical fingerprint record of a model (kvcache.h) under its name. The first one stays.
 *   MC_EMISMATCH another record is there; `field` receives the name of the first field that differs */
MC_API enum mc_status mc_store_register_model(struct mc_store *store, const char *model, const void *record,
    uint32_t record_len, uint32_t deadline_ms, char field[64]);

/* This client's counters. */
struct mc_store_stats {
    uint64_t puts, puts_failed, put_bytes;
    uint64_t gets, hits, hit_bytes;
    uint64_t misses[16];      /* by enum mc_miss */
    uint64_t failovers;       /* another replica was tried */
    uint64_t checksum_errors; /* copies whose bytes did not verify */
    uint64_t stale_locations; /* cached locations that were wrong */
    bool master_up;
};
MC_API void mc_store_stats(struct mc_store *store, struct mc_store_stats *out);

/* ---- short forms ----------------------------------------------------------------------------------------------- */

MC_API enum mc_status mc_store_put(struct mc_store *store, const struct mc_key *key, const void *data, uint64_t len,
    const struct mc_object_meta *meta, uint32_t deadline_ms);
/* `cap` bytes at `data`; `*len` receives the object's length, also with MC_ETOOBIG when it does not fit. */
MC_API enum mc_status mc_store_get(
    struct mc_store *store, const struct mc_key *key, void *data, uint64_t cap, uint64_t *len, uint32_t deadline_ms);
MC_API enum mc_status mc_store_exists(struct mc_store *store, const struct mc_key *key, uint32_t deadline_ms);
MC_API enum mc_status mc_store_remove(
    struct mc_store *store, const struct mc_key *key, bool force, uint32_t deadline_ms);

#ifdef __cplusplus
}
#endif
#endif
