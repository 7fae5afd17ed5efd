/* te.h - the Transfer Engine as the rooms above use it from inside a process that has a loop already.
 *
 * include/mooncake/transfer.h is the interface; this adds what a node, a master or a worker needs: to run the engine on
 * its own loop, behind its own listener, and to pull from the memory of whoever connected to it.
 *
 *     te_create_on_loop(&opts, loop, &te);             opts.listen = "none": the process listens itself
 *     te_hello(te, &self);                             who we are, for the listener of the process
 *     in on_hello: if (te_wants(peer)) return te_adopt(te, conn, peer, why);
 *     te_alloc(te, 8 << 30, MC_REGION_READ, &memory);  lazily committed; memory.fd for the prefaulting thread
 *     te_peer_by_uuid(te, uuid, &peer);                then mc_transfer_submit(peer, ... MC_READ ..., done)
 *
 * Threads. An engine on a loop has no thread of its own: `done` runs on that loop, also in the thread of one who has borrowed
 * it (net/loop.h). On the loop's thread everything is
 * allowed but what waits: mc_batch_wait(), mc_transfer_sync() and mc_peer_open() (use te_peer_connect()). Functions of
 * this header: the loop's thread only, except te_key_*, te_alloc and te_peer_uuid (any). */
#ifndef TRANSFER_TE_H
#define TRANSFER_TE_H

#include <stdbool.h>

#include "mooncake/transfer.h"
#include "net/conn.h"

/* Start an engine on `loop` (borrowed until mc_te_destroy(), which then is to be called on the loop's thread or while the
 * loop does not run). As mc_te_create() otherwise. */
enum mc_status te_create_on_loop(const struct mc_te_opts *opts, struct loop *loop, struct mc_te **out);

/* Set what a listener that takes connections for this engine must say of itself: uuid, epoch, host id, limits. The role is
 * left alone. */
void te_hello(const struct mc_te *te, struct hello *self);

/* Does this hello ask for the engine (role bulk or engine)? */
bool te_wants(const struct hello *peer);

/* Take over a connection, inside on_hello() of the listener it came in by: sets its table and user pointer.
 * MC_OK, or MC_EBUSY (too many links of this peer), MC_ENOMEM: give it back from on_hello; `why` (may be NULL) has the text. */
enum mc_status te_adopt(struct mc_te *te, struct conn *conn, const struct hello *peer, struct buf *why);

/* What one who borrows the loop waits for when bytes are to come from this peer over tcp: its connections. How many of them. */
unsigned te_peer_ios(const struct mc_peer *peer, struct loop_io **ios, unsigned max);

/* --- memory --- */

struct te_memory {
    void *addr;
    uint64_t len;     /* rounded up to whole pages */
    int fd;           /* the memfd, sealed against shrinking and growing: borrowed until mc_te_free(addr) */
    uint32_t segment; /* number of the memfd within this engine, as in the keys */
    struct mc_region_key key;
};

/* mc_te_alloc() telling all it did. Pages are committed when first touched; prefault with madvise(MADV_POPULATE_WRITE) or by
 * touching, from any thread. End with mc_te_free(te, memory.addr). */
enum mc_status te_alloc(struct mc_te *te, uint64_t len, uint32_t flags, struct te_memory *out);

/* --- region keys --- */

enum te_region_kind { TE_KIND_PLAIN, TE_KIND_MEMFD };

/* What a key says. Nothing in it is trusted by who serves it: the id is looked up in the table of the owner. */
struct te_key {
    uint8_t uuid[16]; /* of the engine that owns the memory */
    uint32_t epoch;
    uint8_t kind;     /* enum te_region_kind */
    uint8_t flags;    /* enum mc_region_flags */
    uint32_t segment; /* TE_KIND_MEMFD: which memfd */
    uint64_t id;      /* random; the low 16 bits are the row of the owner's table */
    uint64_t len;
    uint64_t base; /* TE_KIND_MEMFD: offset of the region in the memfd */
};

void te_key_encode(const struct te_key *in, struct mc_region_key *out);

/* MC_OK or MC_EINVAL (magic, version, checksum or a field is wrong; *bad, may be NULL, names it). */
enum mc_status te_key_decode(const struct mc_region_key *in, struct te_key *out, const char **bad);

/* --- peers --- */

/* The peer at the other end of connections that were opened to us, or will be. Works as any peer, but is never dialled: while it has no
 * connection, operations wait for one within their deadline, for it dials by itself. Whoever knows that it is gone for good ends
 * them with the handle: mc_peer_close(). MC_ENOMEM. */
enum mc_status te_peer_by_uuid(struct mc_te *te, const uint8_t uuid[16], struct mc_peer **out);

/* mc_peer_open() that does not wait: connects when first used (or now). Operations submitted meanwhile are held back within their
 * deadline. MC_OK, MC_EINVAL, MC_ENOMEM. */
enum mc_status te_peer_connect(
    struct mc_te *te, const char *address, const struct mc_peer_opts *opts, struct mc_peer **out);

/* Identity of whoever answered last; false while nobody has. */
bool te_peer_uuid(struct mc_peer *peer, uint8_t uuid[16], uint32_t *epoch);

/* Identity of this engine (lent). */
const uint8_t *te_uuid(const struct mc_te *te);

#endif
