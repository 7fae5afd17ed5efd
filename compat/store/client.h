/* client.h - the existing MooncakeDistributedStore client over ours: what libmooncake_store.so and mooncake.store stand on.
 *
 *     compat_client --- store      a client of our Store (mooncake/store.h); all keys are named keys of one namespace
 *          |----------- node       with global_segment_size > 0: a node of our Store inside this process, under the
 *          |                       client's name, which is the "segment" others ask for as preferred
 *          |----------- regions    what the caller registered; ours reads and writes any memory, so this only keeps account
 *          `----------- calls      those inside of the client now, with the memory they use
 *
 * A client is made empty, set up, closed, and may be set up again. A call on one that is not set up is an error and nothing
 * more. close() makes calls of other threads return and waits for them; unregister waits for those that use the range, so
 * that whoever gave a call up (a Python thread that is not waited for) can free its memory after it.
 *
 * In a child made by fork() the client of the parent counts as closed: its threads are not there. The child may set up its own.
 *
 * Results are 0 or a size, or a negative number of errors.h. Arrays have a result for every entry, also when the call as a
 * whole failed. Memory is borrowed for the call. Puts and gets end by themselves within their deadline (COMPAT_PUT_MS,
 * COMPAT_GET_MS; environment MC_TRANSFER_TIMEOUT in seconds), everything else within COMPAT_ASK_MS (MC_RPC_TIMEOUT_MS).
 *
 * Threads: any call from any thread, except that destroy must be the last. Each may block; none spins. */
#ifndef COMPAT_STORE_CLIENT_H
#define COMPAT_STORE_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "compat/store/errors.h"
#include "mooncake/store.h"

enum {
    COMPAT_PUT_MS = 10000,
    COMPAT_GET_MS = 30000,
    COMPAT_ASK_MS = 5000,
    COMPAT_HOST_MAX = 64, /* "host:port" with its NUL: the name of a segment */
};

struct compat_client;

struct compat_client *compat_client_create(void);         /* NULL: no memory */
void compat_client_destroy(struct compat_client *client); /* closes first; NULL is allowed */

/* ---- life ---- */

struct compat_setup {             /* NULL and 0 as the existing one takes them */
    const char *local_hostname;   /* "host", "host:port", "[v6]:port"; without a port one of 12300..14300 is taken */
    const char *metadata_server;  /* ours needs none; looked at for nothing but being there */
    uint64_t global_segment_size; /* > 0: this process gives that much memory to the pool, committed when it is used */
    uint64_t local_buffer_size;   /* largest value that put() of bytes takes */
    const char *protocol;         /* "tcp"; "rdma" only with MC_FORCE_TCP=1 */
    const char *devices;          /* of rdma; ignored */
    const char *master;           /* "host:port" */
    bool name_only;               /* the port in local_hostname belongs to an engine of this process: take another */
    const char *tenant;           /* keys of different tenants are kept apart; "" and "default": none */
};

/* 0 when the master answered and, with a segment, knows it: puts go through at once. Wrong arguments leave the client as it was; one
 * that is set up is closed first, with a warning. */
int compat_client_setup(struct compat_client *client, const struct compat_setup *setup);

/* As a client without memory of its own, beside the mooncake_client at `server`: that one says where the master is. `pool_size` bytes
 * can be had by compat_pool_alloc(), until destroy. COMPAT_RPC_FAIL: nobody answers there. */
int compat_client_setup_dummy(
    struct compat_client *client, uint64_t pool_size, uint64_t local_buffer_size, const char *server);
void *compat_pool_alloc(struct compat_client *client, uint64_t size); /* page-aligned; NULL: no room */

/* Calls inside return, the segment's objects are gone. 0, also when there is nothing to close. Under 50 ms. */
int compat_client_close(struct compat_client *client);

int compat_client_health(struct compat_client *client); /* 0 well, 1 not set up, 2 the master does not answer */

/* "host:port", the name of the segment. COMPAT_OK, or COMPAT_INVALID_PARAMS and "" when not set up. */
int compat_client_hostname(struct compat_client *client, char out[COMPAT_HOST_MAX]);

/* ---- memory ---- */

/* COMPAT_INVALID_PARAMS: nothing at all, or an address that is registered. Ranges may overlap. */
int compat_register(struct compat_client *client, const void *addr, uint64_t size);

/* When it returns no call that was under way uses the range any more.  COMPAT_INVALID_PARAMS: not registered. */
int compat_unregister(struct compat_client *client, const void *addr);

/* How many bytes are registered from `addr` on; 0: none. */
uint64_t compat_registered(struct compat_client *client, const void *addr);

/* ---- more memory for the pool ---- */

enum { COMPAT_SEGMENT_ID = 37 }; /* with its NUL */

/* A place in a file, e.g. of /dev/shm. While it is mounted the file must neither be cut nor written by others. */
struct compat_file {
    const char *path;
    uint64_t offset; /* whole pages */
};

/* `size` bytes beside the segment of setup, under the same name, until they are taken back or the client is closed; from `file`, which
 * stays and keeps what was written last, or NULL: new ones.
 * COMPAT_INTERNAL: none at all, no memory, no such file, not so much in it (logged), or somebody has mounted some of them already. */
int compat_segment_mount(
    struct compat_client *client, const struct compat_file *file, uint64_t size, char id[COMPAT_SEGMENT_ID]);

/* Take it back; its objects go with it. For `grace_s` seconds they can still be read, while nothing new comes. COMPAT_INTERNAL: there
 * is none of that id. */
int compat_segment_unmount(struct compat_client *client, const char *id, uint32_t grace_s);

/* ---- objects ---- */

struct compat_key {
    const char *name; /* any bytes, 1..MC_NAME_MAX of them */
    size_t len;
};

struct compat_config {            /* of a put; see struct mc_object_meta */
    size_t replicas;              /* on distinct nodes, as many of them as there are */
    bool soft_pin, hard_pin;      /* evicted late; never */
    bool same_node;               /* our own segment first */
    const char *const *preferred; /* names of segments, in order; those that are not there are passed over */
    size_t preferred_n;
    const char *const *groups; /* NULL, or one id for each put of the call: see compat_put(); "" is no group */
};

enum compat_put_flags {
    COMPAT_UPSERT = 1, /* replace what is there */
    COMPAT_BYTES = 2,  /* the existing one copies these through its local buffer: as large as that at most */
};

struct compat_put {
    struct compat_key key;
    const struct mc_span *spans;
    uint32_t nspans;
    int result; /* out: 0, also when the key was there already */
};

/* The first failure, or 0. `config` may be NULL. Puts of one group are seen together or not at all: nobody finds one of them before all
 * are there, and when one fails all have its failure as their result. */
int compat_put(struct compat_client *client, struct compat_put *puts, size_t n, const struct compat_config *config,
    unsigned flags);

struct compat_get {
    struct compat_key key;
    const struct mc_span *spans; /* of the whole object, or */
    uint32_t nspans;
    const struct mc_range *ranges; /* of parts of it */
    uint32_t nranges;
    int64_t result;  /* out: bytes, or why not; COMPAT_INVALID_PARAMS when it does not fit, ... */
    uint64_t length; /* ... and then out: how long it is; 0 when that is not known */
};

/* The first failure, or 0. */
int compat_get(struct compat_client *client, struct compat_get *gets, size_t n);

/* results[i]: size of the object, or COMPAT_NOT_FOUND, or why it is not known. */
int compat_exists(struct compat_client *client, const struct compat_key *keys, size_t n, int64_t *results);

/* The keys, or of each only the copies on `segment` if that is not NULL. results[i]: 0, COMPAT_NOT_FOUND, COMPAT_HAS_LEASE (somebody
 * was told that it is there; force does not ask). */
int compat_remove(struct compat_client *client, const struct compat_key *keys, size_t n, const char *segment,
    bool force, int *results);

/* How many went. Of those that are promised to somebody none goes, unless `force`. `pattern` NULL: all; else an ECMAScript
 * expression that is found somewhere in the name (regex.h), in linear time; COMPAT_INVALID_PARAMS when it is none. */
int64_t compat_remove_matching(struct compat_client *client, const char *pattern, size_t len, bool force);

/* ---- where things are ---- */

struct compat_replica {
    char segment[COMPAT_HOST_MAX]; /* name of the node */
    uint64_t address;              /* of the bytes in its memory, as a number for people */
    uint64_t size;
};

/* Rows of one key's copies: *n in: room, out: rows. COMPAT_NOT_FOUND. Promises nothing. */
int compat_replicas(
    struct compat_client *client, const struct compat_key *key, struct compat_replica *rows, uint32_t *n);

/* Is there a segment of this name now? */
bool compat_segment_there(struct compat_client *client, const char *name);

/* ---- a part at a time ---- */

/* Writing an object in pieces: begun under its key (COMPAT_EXISTS: it is there), invisible until ended. One of a key at a time in one
 * client. No such session: COMPAT_INVALID_PARAMS. */
int compat_session_begin(
    struct compat_client *client, const struct compat_key *key, uint64_t size, const struct compat_config *config);
int compat_session_write(
    struct compat_client *client, const struct compat_key *key, const struct mc_range *ranges, uint32_t n);
int compat_session_end(struct compat_client *client, const struct compat_key *key, bool keep);

#endif
