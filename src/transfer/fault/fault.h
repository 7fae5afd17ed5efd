/* fault.h - a transport that wraps any other and misbehaves by a seed: drops, delays, cuts, corrupts.
 *
 *     "seed=7,drop=0.01,delay_ms=5,delay=0.2,cut=0.001,corrupt=0.001"
 *
 *   drop     the xfer is swallowed: nothing happens until the deadline of its batch
 *   delay    it starts up to delay_ms later (with that probability; default 1 when delay_ms is given)
 *   cut      the connection is cut when it has been started (transports with links)
 *   corrupt  one bit of a payload piece is flipped after its checksum was made (transports with checksums)
 *
 * The same seed and the same calls give the same faults.
 * Threads: the engine's loop. */
#ifndef TRANSFER_FAULT_H
#define TRANSFER_FAULT_H

#include "transfer/core.h"

/* MC_OK, MC_EINVAL (logged, naming the part), MC_ENOMEM. */
enum mc_status fault_create(const char *spec, struct fault **out);
void fault_destroy(struct fault *fault); /* NULL is fine */

/* Put the wrapper in the place of `transport`. MC_OK, MC_ENOMEM. */
enum mc_status fault_wrap(struct fault *fault, struct transport *transport);

/* For senders of checksummed pieces: shall this one be damaged? *bit (of len bytes) says which. */
bool fault_corrupts(struct fault *fault, size_t len, size_t *bit);

#endif
