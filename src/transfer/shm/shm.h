/* shm.h - peers on the same host: recognising them, and copying from and into their memory.
 *
 *   page.c     the page each engine shows to its peers: nonce, grants (its regions), hazards (under which of theirs it copies)
 *   listen.c   the Unix socket of this engine, dialling others
 *   session.c  the Unix connection to one process: proof that it is the one on the tcp link
 *   segment.c  descriptors of segments, and their mappings
 *   copy.c     the copies, from a peer's memory and into it: through its mapped memfd, or with process_vm_readv and _writev;
 *              and how the owner of a row that is withdrawn waits for them
 *   carry.c    which of the two ways an xfer goes; small batches, and those whose caller waits, in the calling thread
 *   view.c     a peer's memfd looked at in place
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

/* Until no peer copies under that row, which was withdrawn, any more, and none will that is stopped in the middle of it. At most a
 * second, and that only for a process that could run but is given no processor. Any thread. */
void shm_wait_copies(struct shm *shm, uint64_t id);

/* A segment of ours was freed: whoever has it mapped is told to let go. Any thread. */
void shm_segment_gone(struct shm *shm, uint32_t number);

/* A link of the peer is up, and its engine listens at that Unix path ("" = it does not). With `dial` it is ours to connect. */
void shm_peer_offers(struct mc_peer *peer, const struct hello *hello, const char *path, bool dial);

/* Could that region be read this way now? Any thread. */
bool shm_path_usable(struct mc_peer *peer, enum mc_path path, const struct te_key *key);

/* Carry out a batch in the calling thread, when all of it can be. False: the loop has to do it, all of it. Any thread. */
bool shm_carry_inline(struct shm *shm, struct mc_batch *batch);

void shm_unmap_all(struct mc_peer *peer);

#endif
