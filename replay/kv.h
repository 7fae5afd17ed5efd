/* kv.h - the KVCache of a simulated cluster: one pool per node, who has what, and the links between.
 *
 * A node belongs to a prefill instance. Who has which block stands in the live master's index (directory.h). A link moves one thing at a time, in each direction of each node: a transfer begins when the sender's and the
 * receiver's side are free.
 *
 * With an SSD tier a block that memory evicts goes to its node's SSD, a pool of its own under the same policy, and is read from there by
 * any node. A block that is used from there is in memory again, and stays on the SSD until that evicts it.
 *
 * Times are in nanoseconds of the simulation. Threads: one. */
#ifndef REPLAY_KV_H
#define REPLAY_KV_H

#include <stdint.h>

#include "replay/evictions.h"
#include "replay/model.h"

struct kv;

enum mc_status kv_create(
    const struct model *model, const struct eviction *eviction, struct kv **out); /* or MC_ENOMEM */
void kv_destroy(struct kv *kv);                                                   /* NULL is allowed */

/* Prompts of up to so many blocks will come. MC_OK or MC_ENOMEM. */
enum mc_status kv_reserve(struct kv *kv, uint32_t count);

/* Blocks of the prompt each node holds from the first on, into node_blocks[prefill]; returned: all nodes together. */
uint32_t kv_prefix(struct kv *kv, const uint64_t *ids, uint32_t count, uint32_t *node_blocks);

/* Blocks that this node holds from number `from` on. */
uint32_t kv_own(const struct kv *kv, uint32_t node, const uint64_t *ids, uint32_t from, uint32_t count);

/* Blocks [from, to) were used at the node: those it lacks come in. MC_OK or MC_ENOMEM. */
enum mc_status kv_store(struct kv *kv, uint32_t node, const uint64_t *ids, uint32_t from, uint32_t to);

/* Bring blocks [from, to) to a node (or to decode instance `node - prefill`) from where they are. When the last is there; `fetched` is how many, fewer when some have gone.
 * They count as used where they were read; those that the node itself has from the first on are renewed only, since kv_store() is
 * told of them when the prompt is done. */
uint64_t kv_fetch(
    struct kv *kv, uint32_t node, const uint64_t *ids, uint32_t from, uint32_t to, uint64_t now, uint32_t *fetched);

/* The same from SSDs, for blocks that no memory has: [from, *end), as far as they go on without a hole (blocks in memory between
 * them come along), if that is sooner than `compute_ms_per_block` for each. */
uint64_t kv_fetch_ssd(struct kv *kv, uint32_t node, const uint64_t *ids, uint32_t from, uint32_t to, uint64_t now,
    double compute_ms_per_block, uint32_t *end);

/* Why the blocks [from, to) have to be computed. */
struct kv_missed {
    uint32_t fresh;     /* never stored, or so long ago that it is forgotten */
    uint32_t evicted;   /* stored once, and gone */
    uint32_t elsewhere; /* in the cluster and not fetched, or behind a hole */
};
void kv_missed(const struct kv *kv, const uint64_t *ids, uint32_t from, uint32_t to, struct kv_missed *add);

/* The KV of a prompt goes from a prefill node to decode instance `decode` (0 ..) layer by layer while it is computed, whenever the link
 * has nothing else to do; what is left when the prompt is done is a transfer like others. */
struct kv_handover {
    uint64_t begun, out_busy, in_busy;
};
void kv_hand_over_begin(
    const struct kv *kv, uint32_t node, uint32_t decode, uint64_t now, struct kv_handover *handover);
/* The prompt is done. When the last byte is there. */
uint64_t kv_hand_over_end(
    struct kv *kv, uint32_t node, uint32_t decode, uint32_t tokens, uint64_t now, const struct kv_handover *handover);

/* What is before us on the way from a node to prefill node `to`, or to decode instance `to - prefill`. */
double kv_link_queue_ms(const struct kv *kv, uint32_t from, uint32_t to, uint64_t now);

/* Tokens that may still come to be there more than once: MC_SCHED_COPIES_PART of all pools, less those that are. */
uint64_t kv_copy_room(const struct kv *kv);

double kv_bytes_moved(const struct kv *kv);
uint64_t kv_duplicated_max(
    const struct kv *kv); /* blocks that were there more than once, counted each time; the most ever */

#endif
