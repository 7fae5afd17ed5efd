/* flow.h - a run of memory ranges as the payload of one frame.
 *
 *   ranges    | a 4K | b 4K | c 1M          |
 *   payload   0      4K     8K             8K+1M
 *   pieces    | a b gathered | c | c | c | c |
 *
 * Sending: ranges below FLOW_SMALL are gathered in a buffer, hashed in the same pass, and travel as one piece; larger ones are sent
 * from where they lie. Receiving: bytes that come in small ranges are received into the buffer and spread when the piece was
 * verified; larger ones go straight into their place.
 *
 * Ranges of regions are looked up again before each piece: gone means MC_ENOENT.
 * Threads: the engine's loop. */
#ifndef TRANSFER_FLOW_H
#define TRANSFER_FLOW_H

#include "base/uncut.h"
#include "net/conn.h"

struct mc_te;

#define FLOW_SMALL (16u << 10)

struct run {
    uint8_t *ptr;
    uint32_t len;
    uint64_t region; /* 0: not of a region (memory of the batch, which outlives its requests) */
};

struct flow {
    struct mc_te *te;
    struct run *runs;
    uint32_t count, at;
    uint64_t at_off; /* payload offset of runs[at] */
    uint64_t bytes;
    uint8_t *buffer;     /* room for any piece of this payload; made when needed */
    uint64_t staged_off; /* where in the payload the buffered part of the piece begins */
    bool staging;        /* the piece under way goes to the buffer */
    bool started;        /* a piece was given out */
    bool cancelled;
};

/* Room for `count` runs. MC_OK, MC_ENOMEM. */
enum mc_status flow_init(struct flow *flow, struct mc_te *te, uint32_t count);
void flow_fini(struct flow *flow); /* fine on a zeroed struct */

static inline void flow_add(struct flow *flow, uint8_t *ptr, uint32_t len, uint64_t region)
{
    flow->runs[flow->count++] = (struct run){ptr, len, region};
    flow->bytes += len;
}

/* A conn_source_fn: `arg` is the flow. */
enum mc_status flow_source(void *arg, uint64_t off, size_t max, struct conn_piece *piece);

/* For payload_dst: straight into place, or the buffer. `direct` false: what comes is copied by this process, not by the kernel;
 * with `uncut` such bytes go to the buffer too, from where flow_spread() stores them so that no SIGSTOP cuts it. */
size_t flow_place(struct flow *flow, uint64_t off, size_t max, bool direct, bool uncut, void **dst);

/* The piece that ends at payload offset `end` is complete and verified: spread what was buffered of it. With a `look` uncut
 * (base/uncut.h): it is asked whether the bytes may still be stored. MC_OK, MC_ENOENT (a region is gone), MC_ESYS, what `look` said. */
enum mc_status flow_spread(struct flow *flow, uint64_t end, uncut_look_fn *look, void *arg);

/* Set the position to the run that holds payload offset `off`. */
void flow_seek(struct flow *flow, uint64_t off);

#endif
