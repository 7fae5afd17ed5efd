/* conn.h - a framed connection over TCP or a Unix stream socket, on a loop.
 *
 * States: connecting -> handshake -> ready -> closing -> closed. The side that connects says HELLO first, the other answers
 * HELLO_OK or REFUSE. Requests, replies and notices then go both ways.
 *
 * Receiving. Small frames come through one 64 KiB buffer. Large payload goes from the socket straight to where
 * ops->payload_dst() says, is hashed there while it is still in the cache, and is reported piece by piece after its checksum
 * was verified. Before *every* receive into such a place the socket error is looked at first (after a reset Linux still
 * delivers what is queued) and payload_dst() is asked anew; so its answer is where the owner checks that the place is still
 * his to give. Once conn_abort() has returned nothing is written any more. In the middle of a long payload a TCP connection is woken
 * when 256 KiB more are there or 10 ms later: a sender spends more on waking us for a packet than on sending it. The last 512 KiB are
 * taken as they come, for somebody waits for the end.
 *
 * Sending. Frames are queued and written together (sendmsg) after the callbacks of the turn. The payload is borrowed.
 *
 * A payload that arrives damaged ends with on_payload_end(MC_ECORRUPT) and the connection goes on; a damaged header or body
 * closes it with MC_EPROTO, and one log line names peer and field.
 *
 * Callbacks run on the loop, never inside a call of this header. Closing or aborting the connection inside a callback is
 * allowed. After on_close returns the struct conn is gone.
 * Threads: the loop's only. */
#ifndef NET_CONN_H
#define NET_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/slice.h"
#include "mooncake/status.h"
#include "net/addr.h"
#include "net/frame.h"
#include "net/loop.h"

struct conn;
struct listener;

struct conn_ops {
    /* Handshake done. May be NULL. */
    void (*on_ready)(struct conn *conn);

    /* Header and body of a frame have come. `frame` is lent: for a frame without payload until this returns, with payload
     * until on_payload_end returns. The body is within `frame`. PING is answered and HELLO, GOODBYE are handled below this. CANCEL
     * is delivered (request = the one to cancel). Unknown types: conn_reply_unknown(). Must not be NULL. */
    void (*on_frame)(struct conn *conn, const struct frame *frame);

    /* Where do the bytes of the payload from `off` on go? Set *dst and return how many may go there (1..max); or set *dst NULL:
     * the returned number of bytes is thrown away. Asked before every receive, also several times for the same place; must
     * be cheap. NULL slot = all payload is thrown away. */
    size_t (*payload_dst)(struct conn *conn, const struct frame *frame, uint64_t off, size_t max, void **dst);

    /* len bytes from `off` on are complete, in place, and match their checksum `crc`. Not called for thrown-away pieces.
     * May be NULL. */
    void (*on_piece)(struct conn *conn, const struct frame *frame, uint64_t off, uint32_t len, uint32_t crc);

    /* Exactly once for each frame with payload_len > 0 that on_frame saw: MC_OK all pieces came; MC_ECORRUPT; < 0 the sender gave
     * up, or the connection closed in the middle. May be NULL. */
    void (*on_payload_end)(struct conn *conn, const struct frame *frame, enum mc_status status);

    /* A send was refused with MC_AGAIN and now there is room (half of the queue is free). May be NULL. */
    void (*on_writable)(struct conn *conn);

    /* A descriptor has come with an FD frame; it is given to the callee. NULL slot = closed. */
    void (*on_fd)(struct conn *conn, const struct frame *frame, int fd);

    /* Exactly once, last; for connections we dialled or adopted also when the handshake never completed (accepted ones that
     * on_hello did not accept are never heard of). `status`: MC_ECLOSED (either side closed), MC_EPROTO,
     * MC_EVERSION, MC_EREFUSED, MC_EPEERDOWN (refused, reset, unreachable), MC_ETIMEDOUT (handshake), ... All `sent`
     * callbacks and on_payload_end have run before. Must not be NULL. */
    void (*on_close)(struct conn *conn, enum mc_status status);
};

struct conn_limits {        /* 0 = default */
    uint32_t body_max;      /* FRAME_BODY_MAX */
    uint64_t payload_max;   /* 64 GiB */
    uint32_t credits;       /* 1024: requests of the peer in flight here; it is told in the handshake */
    size_t queue_max;       /* 4 MiB: headers and bodies waiting to be sent; borrowed payload counts 64 B a span */
    uint32_t handshake_ms;  /* 2000 */
    uint32_t keepalive_ms;  /* 10000: TCP_USER_TIMEOUT, and a dead peer is noticed about that late without traffic */
    uint32_t linger_ms;     /* 1000: how long conn_close() tries to send what is queued */
    uint32_t socket_buffer; /* 0 = let the kernel tune */
};

struct conn_opts {
    const struct hello *self;          /* copied */
    const struct hello_expect *expect; /* copied (tenant text borrowed); NULL = anybody */
    const struct conn_ops *ops;        /* borrowed until on_close */
    void *user;
    struct conn_limits limits;
};

/* Start connecting. MC_OK: on_ready or on_close will follow. MC_EINVAL, MC_ENOMEM, MC_ESYS (logged): neither will. Names are
 * resolved on a helper thread. */
enum mc_status conn_connect(
    struct loop *loop, const struct addr *addr, const struct conn_opts *opts, struct conn **out);

/* The same over a connected stream socket (given) - socketpair(2) in tests, inherited descriptors. dialer: we say HELLO. */
enum mc_status conn_adopt(struct loop *loop, int fd, bool dialer, const struct conn_opts *opts, struct conn **out);

/* Close: nothing is received any more; what is queued is sent (up to linger_ms), GOODBYE last; on_close follows with
 * MC_ECLOSED. A second close or abort is harmless, a conn_abort after conn_close cuts the lingering short. */
void conn_close(struct conn *conn);

/* Close so that the peer drops what is under way (RST on TCP), before this returns; no memory given or borrowed is touched after
 * that. `sent` callbacks and on_close follow with `status` (< 0). */
void conn_abort(struct conn *conn, enum mc_status status);

/* --- sending --- */

/* One piece of payload to send, at most PIECE_MAX long. */
struct conn_piece {
    const void *ptr;
    size_t len;
    uint32_t crc;
    bool has_crc; /* else it is computed when the piece is sent */
    bool stays;   /* lent until `sent`; else only until the source is called again, and so sent alone */
};

/* Gives the next piece: bytes from `off`, at most `max`. MC_OK and *piece; borrowed as it says. Failure (< 0):
 * the payload ends here, the peer's on_payload_end gets this status, the connection goes on. */
typedef enum mc_status conn_source_fn(void *arg, uint64_t off, size_t max, struct conn_piece *piece);

/* Exactly once when the frame was handed to the kernel (MC_OK), was given up by its source, or the connection closed.
 * What was borrowed is free. On the loop, never inside conn_send(). */
typedef void conn_sent_fn(void *arg, enum mc_status status);

/* A range of the payload, cut into pieces. */
struct conn_span {
    const void *ptr;
    size_t len;
};
#define CONN_SPANS_MAX 4096

struct conn_msg {
    uint16_t type;
    uint32_t flags;                /* enum frame_flags */
    enum mc_status status;         /* of a reply */
    uint64_t request;              /* 0 = no answer wanted */
    const uint8_t *trace;          /* 16 bytes or NULL */
    uint64_t deadline_ns;          /* absolute on our clock; 0 means DEADLINE_NONE */
    struct slice body;             /* copied */
    const struct conn_span *spans; /* the array is copied, the memory borrowed until `sent` */
    size_t span_count;
    conn_source_fn *source; /* or: pieces on demand, payload_len bytes in all */
    void *source_arg;
    uint64_t payload_len; /* with source; with spans it is their sum */
    conn_sent_fn *sent;   /* may be NULL */
    void *sent_arg;
};

/* Queue a frame.
 *   MC_OK       it will be sent, `sent` follows
 *   MC_AGAIN    the queue is full, or the handshake is not done: nothing queued; on_writable or on_ready follows
 *   MC_ETOOBIG  body or payload beyond what the peer accepts     MC_ECLOSED  closing or closed
 *   MC_ENOMEM   nothing queued */
enum mc_status conn_send(struct conn *conn, const struct conn_msg *msg);

/* Answer a request: type, request id, trace of `frame`, FRAME_REPLY and `status`. Body may be empty. */
enum mc_status conn_reply(struct conn *conn, const struct frame *frame, enum mc_status status, struct slice body);

/* Answer a frame whose type we do not know: ERROR_REPLY with MC_ENOSUP if it wants an answer, else nothing. */
void conn_reply_unknown(struct conn *conn, const struct frame *frame);

/* Send one descriptor (dup'ed: the caller keeps his) with an FD frame; unix sockets only. body: what it is, in fields.
 * MC_OK, MC_AGAIN, MC_ECLOSED, MC_ENOMEM as conn_send; MC_ENOSUP not a unix socket. */
enum mc_status conn_send_fd(struct conn *conn, uint64_t request, struct slice body, int fd);

/* Drop every queued frame whose first byte has not been sent (their `sent` gets `status`). For gap watchers. */
void conn_drop_queued(struct conn *conn, enum mc_status status);

/* Write what is queued now, in place of at the end of the turn, as much as the socket takes. May close the connection, of which
 * on_close tells as always: later. */
void conn_flush(struct conn *conn);

/* Stop and restart reading (the kernel's window then holds the peer back). Nests not. */
void conn_pause(struct conn *conn);
void conn_resume(struct conn *conn);

/* --- looking --- */

void conn_set_user(struct conn *conn, void *user);
void *conn_user(const struct conn *conn);
struct loop *conn_loop(const struct conn *conn);
bool conn_ready(const struct conn *conn);

/* The peer's hello (after on_ready / in on_hello), the version agreed on, and features of both. */
const struct hello *conn_peer(const struct conn *conn);
uint16_t conn_protocol(const struct conn *conn);
uint64_t conn_features(const struct conn *conn);

/* What a borrower of the loop waits for (loop.h). Lent until on_close. */
struct loop_io *conn_io(struct conn *conn);

/* "10.0.0.7:7001" or "unix:/..." for log lines; lent. */
const char *conn_name(const struct conn *conn);
bool conn_is_unix(const struct conn *conn);

/* Text of the REFUSE we got, or of the reason we refused; "" when none. Lent; also valid in on_close. */
const char *conn_refusal(const struct conn *conn);

/* Bytes of headers and bodies queued; payload bytes queued. */
size_t conn_queued(const struct conn *conn);

/* Bytes received and not parsed yet. In payload_dst(): 0 = the kernel will write the next bytes where it says, else they are
 * copied there by this process. */
size_t conn_buffered(const struct conn *conn);

struct conn_stats {
    uint64_t frames_in, frames_out, bytes_in, bytes_out, payload_in, payload_out, crc_errors;
};
void conn_stats(const struct conn *conn, struct conn_stats *out);

/* --- listening --- */

struct listener_opts {
    const struct hello *self; /* copied */
    const struct conn_ops *ops;
    void *user; /* first user pointer of accepted connections */
    struct conn_limits limits;
    struct hello_expect expect; /* of whoever connects */
    unsigned conns_max;         /* 0 = 1024; beyond that new ones are refused with MC_EBUSY */

    /* Decide about a peer whose hello fits `expect`. MC_OK: go on, on_ready follows at once (the user pointer, and with conn_set_ops() the table, may be
     * set here); else it is refused with that status and the text put in `why`. NULL = everybody. */
    enum mc_status (*on_hello)(struct conn *conn, const struct hello *peer, struct buf *why);
};

/* Listen. Unix sockets: the directory must be private to us (0700), a stale socket file is replaced, peers of other users are
 * refused. MC_OK, MC_EINVAL, MC_EEXIST (address in use; logged), MC_EPERM, MC_ESYS (logged). */
enum mc_status conn_listen(
    struct loop *loop, const struct addr *addr, const struct listener_opts *opts, struct listener **out);

/* Stop listening; accepted connections stay. */
void listener_close(struct listener *listener);

/* Where it listens: with the port the kernel chose. Lent. */
const struct addr *listener_addr(const struct listener *listener);

/* For on_hello: another table for this connection (borrowed until on_close). */
void conn_set_ops(struct conn *conn, const struct conn_ops *ops);

#endif
