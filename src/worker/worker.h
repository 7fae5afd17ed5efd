/* worker.h - a worker: one engine behind the Conductor's requests, with continuous batching and the Store beside it.
 *
 *   struct worker   owns a net loop (Conductors), an engine thread (the engine, all runs), a Store client with its own
 *                   threads, and a helper thread for the Store's blocking calls
 *
 * The cache is never in the way: without a Store, with a dead, slow or full one, every run is computed here.
 *
 * Threads: worker_create() hands the engine over to the worker's engine thread; no other call on it except those marked
 * "any thread" until worker_destroy() gives it back. All functions here: any one thread, not from callbacks. */
#ifndef WORKER_WORKER_H
#define WORKER_WORKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mooncake/engine.h"
#include "mooncake/status.h"
#include "worker/proto.h"

struct worker;

/* Start from worker_opts_init(). Texts are copied. */
struct worker_opts {
    struct mc_engine *engine;      /* borrowed until worker_destroy() */
    const char *const *conductors; /* "host:port" of each Conductor's framed port */
    size_t conductor_count;        /* 1..WORKER_CONDUCTORS_MAX */
    enum wmsg_role role;
    const char *name;            /* NULL: "<role>-<pid>" */
    const char *master;          /* Store master, "host:port"; NULL: no Store */
    const char *store_transport; /* as in mc_store_opts; NULL: auto */
    const char *store_fault;     /* tests */
    const char *host_id;         /* NULL: the kernel's boot id */
    const char *run_dir;         /* 0700 directory of the core budget and the Store's socket; NULL: the user's */
    uint32_t ns;                 /* Store namespace */
    uint32_t cores;              /* cores that the workers of this host share; 0: online cores, at most what the
                                      engine was opened for */
    uint32_t threads_fixed;      /* always compute with this many threads (bit-equality); 0: share by the budget */
    uint64_t buffer_size;        /* bytes for blocks on their way to or from the Store, each way; 0: 64 MiB */
    uint32_t stall_ms;           /* a prefill chunk beside a running decode takes about this long at most; 0: 60 */
    uint32_t queue_max;          /* runs accepted beyond those that have a sequence; 0: 256; more are MC_EBUSY */
    uint32_t store_wait_ms;      /* a prefill's last reply waits this long for its puts; 0: 2000 */
    bool calibrate;              /* measure the engine before registering (0.1 to 1 s); default true */
    bool flip_imported_bit;      /* planted bug, for tests: damage the first block of each import behind its checksum */
};
enum { WORKER_CONDUCTORS_MAX = 8 };
void worker_opts_init(struct worker_opts *opts);

/* Start: opens the Store client, registers the fingerprint record (waits up to 1 s for the master; later in the
 * background), measures the engine if asked to, dials the Conductors. `err` (may be NULL) gets one sentence on failure.
 *   MC_EINVAL    an option; err names it
 *   MC_EMISMATCH the model's record differs from what the Store has under that name; err names the field
 *   MC_ESYS, MC_ENOMEM */
enum mc_status worker_create(const struct worker_opts *opts, struct worker **worker, char *err, size_t err_size);

/* Take nothing new, tell the Conductors, finish what runs. Returns at once; also from a signal watcher's thread. Again:
 * harmless. */
void worker_drain(struct worker *worker);

/* Wait until a drain is complete, at most timeout_ms (UINT32_MAX: for ever). MC_OK: nothing runs any more and the
 * Conductors were told. MC_EMISMATCH: the master came up later and has another record for this model: the worker drained
 * itself. MC_ESYS: the engine is beyond use. MC_ETIMEDOUT. */
enum mc_status worker_wait(struct worker *worker, uint32_t timeout_ms);

/* Cancel what runs and stop all threads. The engine is the caller's again, its sequences freed. NULL is allowed. */
void worker_destroy(struct worker *worker);

/* ---- looking ---- */

struct worker_stats {
    uint64_t runs, finished, cancelled, failed;
    uint64_t tokens_loaded, tokens_computed, tokens_decoded, tokens_replayed;
    uint64_t blocks_loaded, blocks_stored, stores_failed, loads_stopped, blocks_corrupt;
    uint32_t conductors_up;
    bool store_up;
    struct wmsg_speed speed;
};
void worker_stats(struct worker *worker, struct worker_stats *out);

#endif
