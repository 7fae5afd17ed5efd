/* shm.h - peers on the same host: recognising them, and copying from their memory.
 *
 *   page.c     the page each engine shows to its peers: nonce, grants (its regions and tokens), hazards (what it is reading)
 *   listen.c   the Unix socket of this engine, dialling others
 *   session.c  the Unix connection to one process: proof that it is the one on the tcp link
 *   segment.c  descriptors of segments, and their mappings
 *   read.c     MC_READ: we copy from the peer's mapped memfd, or with process_vm_readv
 *   pull.c     MC_WRITE: we ask, the owner of the destination copies from our memory, uncut and in pieces
 *
 * Same host means: host ids equal, and each side read back a nonce from a memfd that the other passed over a Unix socket whose far
 * end runs as our user. The process id for process_vm_readv is what the kernel says of that socket (SO_PEERCRED).
 *
 * Threads: the engine's loop, except where said; shm->lock guards the list of sessions and their mapped segments. */
#ifndef TRANSFER_SHM_H
#define TRANSFER_SHM_H

#include "transfer/core.h"

/* Listen on a Unix socket in te->run_dir and make the page. */
enum mc_status shm_create(struct mc_te *te, struct shm **out);
void shm_stop(struct shm *shm);    /* on the loop: connections and listener go; NULL is fine */
void shm_destroy(struct shm *shm); /* NULL is fine */

const char *shm_path(const struct shm *shm);

/* Rows of the page. Called with te->lock held. */
void shm_grant(struct shm *shm, uint64_t id, const struct region *row);
void shm_withdraw(struct shm *shm, uint64_t id);

/* Until no peer is copying from that row any more; at most 50 ms. Any thread. */
void shm_wait_readers(struct shm *shm, uint64_t id);

/* A segment of ours was freed: whoever has it mapped is told to let go. Any thread. */
void shm_segment_gone(struct shm *shm, uint32_t number);

/* A link of the peer is up, and its engine listens at that Unix path ("" = it does not). With `dial` it is ours to connect. */
void shm_peer_offers(struct mc_peer *peer, const struct hello *hello, const char *path, bool dial);

/* Could that region be read this way now? Any thread. */
bool shm_path_usable(struct mc_peer *peer, enum mc_path path, const struct te_key *key);

/* Carry out a batch of reads in the calling thread, when all of it can be. False: nothing was done. Any thread. */
bool shm_read_inline(struct shm *shm, struct mc_batch *batch);

void shm_unmap_all(struct mc_peer *peer);

#endif
