/* wire.h - bodies of the transfer messages (0x01xx); docs/wire.md is the specification. Pure: bytes in, structs out.
 *
 * Threads: any. */
#ifndef TRANSFER_WIRE_H
#define TRANSFER_WIRE_H

#include "base/buf.h"
#include "net/frame.h"

#define WIRE_RANGES_MAX 1024
#define WIRE_BYTES_MAX  (16u << 20) /* of one request */
#define WIRE_PATH_MAX   107         /* what fits a sockaddr_un */
#define WIRE_NONCE      32
#define WIRE_CLOCK_MAX  (UINT64_MAX >> 3) /* ns; 73 years: sums and differences of clocks fit int64_t */

/* One range of a region of the receiver's. */
struct wire_range {
    uint64_t region, offset;
    uint32_t len;
};
#define WIRE_RANGE_SIZE 20

/* TE_SYNC, asked by each side when a connection begins and again when a writer needs it. The answer holds `clock` only. */
struct wire_sync {
    uint64_t clock_ns;                 /* sender's CLOCK_MONOTONIC when it was made */
    char unix_path[WIRE_PATH_MAX + 1]; /* where same-host peers find us; "" = not offered */
    bool please;                       /* "ask me again: I want to write and you must know my clock" */
};
void wire_sync_encode(const struct wire_sync *in, struct buf *body);
enum mc_status wire_sync_decode(struct slice body, struct wire_sync *out, const char **bad);

/* TE_READ and TE_WRITE. `ranges` are borrowed for encoding; for decoding a place for WIRE_RANGES_MAX of them. */
struct wire_request {
    struct wire_range *ranges;
    uint32_t count;
    uint64_t bytes;     /* their sum (decode) */
    uint64_t not_after; /* TE_WRITE: on the sender's clock, no byte may be stored later */
    uint64_t fence;     /* TE_WRITE: requests with a lower number than one seen before are void */
};
void wire_request_encode(const struct wire_request *in, struct buf *body);
enum mc_status wire_request_decode(struct slice body, struct wire_request *out, const char **bad);

/* What comes with an FD frame. */
enum wire_fd { WIRE_FD_PAGE = 1, WIRE_FD_SEGMENT = 2 };
void wire_fd_encode(enum wire_fd kind, uint32_t number, struct buf *body);
enum mc_status wire_fd_decode(struct slice body, enum wire_fd *kind, uint32_t *number, const char **bad);

/* SHM_PROOF: the nonce read from the page that the other side passed. */
void wire_proof_encode(const uint8_t nonce[WIRE_NONCE], struct buf *body);
enum mc_status wire_proof_decode(struct slice body, uint8_t nonce[WIRE_NONCE], const char **bad);

/* SHM_SEGMENT: pass me the descriptor of that segment. SHM_GONE: mine of that number was freed. */
void wire_segment_encode(uint32_t number, struct buf *body);
enum mc_status wire_segment_decode(struct slice body, uint32_t *number, const char **bad);

#endif
