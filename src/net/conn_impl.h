/* conn_impl.h - inside src/net: struct conn, shared by conn.c (life), conn_send.c, conn_read.c, conn_recv.c and conn_listen.c.
 *
 *   state        may receive   may send      left by
 *   CONNECTING   no            no            socket connected, or failed
 *   HANDSHAKE    hello only    hello only    hello accepted, refused, or too late
 *   READY        yes           yes           close, abort, failure, GOODBYE
 *   CLOSING      thrown away   what is queued  all sent and the peer closed too, linger time over, or abort
 *   CLOSED       no            no            (end: the deferred `reap` tells the owner and frees)
 *
 * Only conn_state_set() moves between them. Nothing frees a struct conn but `reap`, which runs from the loop, never below a
 * callback: so code that called out needs only to look at the state afterwards. */
#ifndef NET_CONN_IMPL_H
#define NET_CONN_IMPL_H

#include <sys/socket.h>

#include "net/conn.h"

#define RX_SIZE     (64u << 10)
#define FDS_MAX     8
#define SPAN_COST   64  /* what a borrowed span counts against the queue limit */
#define INLINE_BODY 448 /* outs with bodies up to this are kept for reuse */
#define SPARE_MAX   32  /* so many of them */
#define PIECES_OPEN 8   /* of one frame */

enum conn_state { CONN_CONNECTING, CONN_HANDSHAKE, CONN_READY, CONN_CLOSING, CONN_CLOSED };

enum rx_state {
    RX_HEADER,       /* 64 bytes of a frame header come next */
    RX_BODY,         /* the body: in the receive buffer when it fits and no payload follows, else in body_mem */
    RX_PIECE_HEADER, /* 16 bytes */
    RX_DATA,         /* piece.len - piece_got bytes of data */
};

/* A piece being sent: its header, then piece.len bytes. */
struct open_piece {
    uint8_t head[PIECE_HEADER_SIZE];
    struct conn_piece piece;
};

/* A frame waiting to be sent. Its head (header and body) is one run of bytes. */
struct out {
    struct list link;
    size_t head_len, head_sent, cost;
    conn_sent_fn *sent;
    void *sent_arg;
    enum mc_status status; /* what `sent` will be told */
    int fd;                /* goes with the first byte; -1 = none. Ours */

    uint64_t payload_len, payload_at; /* bytes of payload in pieces already fully sent */
    conn_source_fn *source;
    void *source_arg;
    struct conn_span *spans; /* ours; spans_at and span_off: where the next piece starts */
    size_t span_count, span_at;
    uint64_t span_off;

    uint64_t payload_open; /* bytes up to the end of the last open piece: payload_at when there is none */
    struct open_piece open[PIECES_OPEN];
    unsigned open_first, open_count; /* a ring */
    size_t piece_sent;               /* of header and data of the first */

    bool answers; /* gives a credit back when it has left: a peer that does not read gets no more of our memory */
    bool small;   /* head has room for INLINE_BODY: goes to the spare list */
    uint8_t head[];
};

struct resolve;

struct conn {
    struct loop *loop;
    struct loop_io io;
    int fd;
    bool is_unix, dialer, rst_on_close;
    enum conn_state state;
    enum mc_status close_status;
    const struct conn_ops *ops;
    void *user;
    struct rpc_peer *rpc; /* the peer this belongs to, or NULL; rpc.c's */
    bool owner_knows;     /* on_close is owed */
    bool state_was_ready; /* on_ready was called */

    struct conn_limits limits;
    struct hello self, peer;
    struct hello_expect expect;
    uint16_t protocol;
    struct addr addr; /* the peer's */
    char name[ADDR_TEXT_MAX];
    char refusal[512];
    struct resolve *resolve;

    struct listener *listener; /* accepted by; NULL when that was closed or we dialled */
    struct list listener_link;

    struct loop_timer timer; /* handshake, then for the mark, then linger */
    struct loop_task flush_task, reap_task;

    /* receiving */
    enum rx_state rx_state;
    bool paused, resumed, rx_busy;
    bool rx_drained; /* the last receive got less than it had room for: the socket is empty, or was just now */
    int rx_mark;     /* SO_RCVLOWAT */
    bool damaged;    /* a piece of this payload did not match its checksum */
    uint8_t *rx;
    size_t rx_at, rx_len; /* unread bytes are rx[rx_at .. rx_len) */
    struct frame frame;
    uint8_t *body_mem;
    size_t body_cap, body_got;
    bool in_payload;      /* on_payload_end is owed for `frame` */
    uint64_t payload_off; /* start of the current piece */
    struct piece piece;
    uint32_t piece_got, piece_crc;
    bool piece_skip; /* its bytes are thrown away */
    int fds[FDS_MAX];
    unsigned fd_count;
    uint32_t requests_open; /* of the peer, whose answer has not left yet */

    /* sending */
    struct list queue, finished, spare;
    unsigned spare_count;
    size_t queued; /* sum of `cost` in queue */
    uint64_t queued_payload;
    bool want_writable; /* a send was refused: on_writable is owed */
    bool write_blocked; /* the socket took no more: LOOP_WRITE will come */
    bool shut;          /* CLOSING: our direction is finished */

    struct conn_stats stats;
};

struct conn *conn_new(struct loop *loop, const struct hello *self, const struct hello_expect *expect,
    const struct conn_ops *ops, void *user, const struct conn_limits *limits);
void conn_free(struct conn *conn);
void conn_state_set(struct conn *conn, enum conn_state state);

/* Start on a connected socket (given, also on failure). */
enum mc_status conn_begin(struct conn *conn, int fd);

/* Close at once because of an error: like conn_abort, but without RST unless asked for before. */
void conn_fail(struct conn *conn, enum mc_status status);

/* Say why and close after it was sent. Acceptor's side of a handshake. */
void conn_refuse(struct conn *conn, enum mc_status status, const char *text);

/* Handshake: the peer's hello fits. Tells the owner. */
void conn_become_ready(struct conn *conn);

/* errno of a socket call -> status. */
enum mc_status conn_errno_status(int error);

/* conn_read.c */
void conn_readable(struct conn *conn);
void conn_mark_late(struct conn *conn); /* what was waited for did not all come: look at what is there */

/* Has the peer taken back what it sent? Then the connection is closed now. Asked before every write into the owner's memory. */
bool conn_socket_failed(struct conn *conn);

/* conn_recv.c */
void conn_eat_all(struct conn *conn);             /* what is in the buffer, as far as it goes */
bool conn_may_go_on(const struct conn *conn);     /* neither closed nor paused meanwhile */
void conn_piece_got(struct conn *conn, size_t n); /* so many bytes of the piece are in their place */
void conn_payload_end(struct conn *conn, enum mc_status status);
void conn_protocol_error(struct conn *conn, enum mc_status status, const char *field);
void conn_recv_fini(struct conn *conn);

/* Where the next bytes of the piece go: at most `max`. NULL: thrown away. */
size_t conn_place_of(struct conn *conn, size_t max, void **dst);

/* conn_handshake.c */
void conn_handshake_start(struct conn *conn);
void conn_handshake_frame(struct conn *conn, const struct frame *frame);
void conn_refused(struct conn *conn, const struct frame *frame); /* by the peer */

/* conn_send.c */
enum mc_status conn_queue(struct conn *conn, const struct conn_msg *msg, int fd, bool internal);
void conn_write(struct conn *conn);     /* write what can be written; may fail the connection */
void conn_tell_sent(struct conn *conn); /* run `sent` callbacks of finished outs */
void conn_send_fail_all(struct conn *conn, enum mc_status status);
void conn_send_fini(struct conn *conn);
void conn_want_update(struct conn *conn);

/* conn_listen.c */
void listener_conn_gone(struct conn *conn);
enum mc_status listener_decide(struct conn *conn, struct buf *why);

#endif
