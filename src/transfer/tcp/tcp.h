/* tcp.h - the tcp transport: links (framed connections), requests over them, and serving the requests of peers.
 *
 *   link.c    life of a link, hello and clocks, dispatch of frames
 *   request.c the transport's slots: an xfer becomes a TE_READ or TE_WRITE in a slot of a link
 *   serve.c   answers TE_READ, receives TE_WRITE
 *   flow.c    a run of memory ranges as the payload of one frame, sending and receiving
 *
 * Late writes. The owner of written memory receives by itself. A TE_WRITE carries the instant, on the writer's clock, after which
 * no byte may be stored; the owner knows from TE_SYNC how the writer's clock stands to its own, always erring towards "too
 * late", and looks before each receive. So bytes held up anywhere on the way are thrown away, also when the reset of the cut
 * connection never arrives. Also each write carries the fence number of its writer, which grows when a link with
 * writes under way is lost: what is left of those is void once a newer write was seen.
 *
 * Threads: the engine's loop. */
#ifndef TRANSFER_TCP_H
#define TRANSFER_TCP_H

#include "transfer/core.h"
#include "transfer/tcp/flow.h"
#include "transfer/wire.h"

#define SLOTS         256 /* requests of ours in flight on one link */
#define LINKS_INBOUND 64  /* connections one peer may open to us */

/* A reading of the peer's clock older than this is refused for writes, at most 500 ppm wrong on each side: 10 ms, which
 * FENCE_GRACE_NS covers with room for the receive. The writer asks for a new one a little earlier. */
#define CLOCK_OLD_NS   (10 * NS_PER_S)
#define CLOCK_RENEW_NS (8 * NS_PER_S)

struct tcp_link;

struct slot {
    struct tcp_link *link;
    struct xfer *xfer; /* NULL in a busy slot: taken back; the answer is thrown away */
    struct flow flow;  /* of the payload, either way */
    uint32_t sequence; /* in the request id, so that an answer cannot meet a later request */
    uint32_t bytes;
    enum mc_opcode opcode;
    bool busy, sent, answered;
    enum mc_status answer;
    enum mc_status sent_status;
};

/* An inbound TE_WRITE whose payload is coming. */
struct inbound_write {
    struct flow flow;
    struct wire_request request;
    enum mc_status status; /* MC_OK: still good */
    uint64_t deadline_ns;  /* not_after on our clock */
};

struct tcp_link {
    struct list peer_link, te_link;
    struct mc_te *te;
    struct mc_peer *peer; /* NULL once detached */
    struct conn *conn;
    bool dialled, ready;
    bool sync_answered, sync_known;
    uint64_t sync_answered_ns; /* when the peer last learned our clock */
    uint64_t sync_asked_ns, clock_read_ns;
    int64_t clock_offset; /* ours - theirs, never too large */
    uint64_t received_ns; /* last sign of life */
    uint64_t in_flight;   /* bytes */

    struct slot *slots; /* SLOTS */
    uint16_t free_slots[SLOTS];
    unsigned free_count;

    struct slot *receiving;        /* the answer whose payload is coming */
    struct inbound_write *writing; /* or the write */
    struct list serves;
};

/* Connect one more link of the peer. MC_OK: peer_link_up() or peer_link_down() follows. */
enum mc_status tcp_dial(struct mc_peer *peer);

/* Cut all links of the peer; it dials again when something is to be moved. */
void tcp_cut_links(struct mc_peer *peer);

/* Close all links of the peer, without telling it (the peer object goes). */
void tcp_drop_links(struct mc_peer *peer);

/* Ask for the clocks of a peer that we dialled, which also tells it whether we still offer shared memory. */
void tcp_tell_clock(struct mc_peer *peer);

/* A region was withdrawn: links that are sending from it are cut. */
void tcp_region_gone(struct mc_te *te, uint64_t id);

const struct conn_ops *tcp_conn_ops(void);
struct conn_limits tcp_limits(void);

/* link.c, for request.c and serve.c */
void link_cut(struct tcp_link *link, bool fenced);
void link_ask_clock(struct tcp_link *link, bool please);
bool link_may_write(const struct tcp_link *link, uint64_t now);

/* request.c */
void request_frame(struct tcp_link *link, const struct frame *frame);
void request_payload_end(struct tcp_link *link, enum mc_status status);
void request_piece(struct tcp_link *link, uint64_t off, uint32_t len, uint32_t crc);
void requests_lost(struct tcp_link *link, bool fenced);

/* serve.c */
void serve_frame(struct tcp_link *link, const struct frame *frame);
void serve_cancel(struct tcp_link *link, uint64_t request);
size_t serve_write_dst(struct tcp_link *link, uint64_t off, size_t max, void **dst);
void serve_write_piece(struct tcp_link *link, uint64_t off, uint32_t len);
void serve_write_end(struct tcp_link *link, const struct frame *frame, enum mc_status status);
bool serves_region(const struct tcp_link *link, uint64_t id);

#endif
