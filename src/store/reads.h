/* reads.h - batches of reads with the Transfer Engine, for the shells around the cores: what a client reads from a node, and what
 * a node pulls from a client.
 *
 * The engine says that a batch has ended from inside its own work; the core hears of it in a task of the loop, as it wants its
 * events. Threads: the loop's only. */
#ifndef STORE_READS_H
#define STORE_READS_H

#include "base/list.h"
#include "mooncake/transfer.h"
#include "net/loop.h"

struct store_reads;

struct store_batch {
    struct store_reads *reads;
    struct mc_batch *batch;
    uint64_t cookie;
    void *arg; /* the caller's */
    uint32_t peer, count;
    enum mc_status status;
    struct list link; /* reads->flying, then reads->ended */
    struct mc_op ops[];
};

/* A batch has ended; it is lent for the call. */
typedef void store_batch_ended_fn(void *user, const struct store_batch *batch);

struct store_reads {
    struct loop *loop;
    struct loop_task deliver;
    struct list flying, ended;
    store_batch_ended_fn *fn;
    void *user;
};

void store_reads_init(struct store_reads *reads, struct loop *loop, store_batch_ended_fn *fn, void *user);
/* After the engine is gone: frees what was not delivered. */
void store_reads_fini(struct store_reads *reads);

/* A batch of `count` reads; the caller fills ops[]: local, len, offset, region, crc32c. NULL: out of memory. */
struct store_batch *store_batch_create(struct store_reads *reads, uint64_t cookie, uint32_t count);
void store_batch_free(struct store_batch *batch); /* only one that was not submitted */

/* MC_OK: `fn` follows once. Anything else: the batch is freed, and why as mc_transfer_submit(). */
enum mc_status store_batch_submit(struct store_batch *batch, struct mc_peer *engine, uint32_t deadline_ms);

/* By its cookie, which may have ended by now. Cancel: `fn` follows with MC_ECANCELED or what it came to. Drop: when it returns
 * nothing is written any more, and `fn` does not follow. Nothing happens when there is no such batch. */
void store_batch_cancel(struct store_reads *reads, uint64_t cookie);
void store_batch_drop(struct store_reads *reads, uint64_t cookie);

#endif
