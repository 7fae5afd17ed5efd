/* rpc.h - requests and their answers over connections, and a peer that is connected to on demand.
 *
 * A struct rpc_call is embedded in the caller's request object. It is completed exactly once: by the answer, its deadline,
 * a cancel, or the end of the connection. Answers that come later than that are thrown away.
 *
 * struct rpc_peer is one remote process under one address: it connects when there is something to send, holds back requests
 * while connecting (never beyond their deadline), and after failures waits 10, 20, ... 200 ms (with jitter) before it tries
 * again; in that time calls fail at once with MC_EPEERDOWN. Calls in flight when the connection goes fail with the reason;
 * nothing is sent twice by itself.
 *
 * Callbacks may send, cancel, and destroy the peer. A struct rpc_call begins zeroed.
 * Threads: the loop's only. */
#ifndef NET_RPC_H
#define NET_RPC_H

#include "base/hashmap.h"
#include "net/conn.h"

struct rpc_peer;
struct rpc_call;
struct rpc_held;

/* The end of a call. `frame` is the answer (lent for the call of this function, body inside), NULL when none came. `status`: the one
 * in the answer's header, or MC_ETIMEDOUT, MC_ECANCELED, MC_EPEERDOWN, MC_ECLOSED, MC_EPROTO, MC_ECORRUPT (payload).
 * Never inside rpc_send() or rpc_cancel(). The call may be sent again or freed here. */
typedef void rpc_done_fn(struct rpc_call *call, enum mc_status status, const struct frame *frame);

struct rpc_call_ops {
    rpc_done_fn *done; /* must not be NULL */

    /* An answer with FRAME_MORE; the call goes on. May be NULL. */
    void (*more)(struct rpc_call *call, const struct frame *frame);

    /* Header and body of an answer that has payload: to look at the body before bytes come. May be NULL. */
    void (*head)(struct rpc_call *call, const struct frame *frame);

    /* Payload of the answer: as in struct conn_ops. NULL = thrown away. */
    size_t (*payload_dst)(struct rpc_call *call, const struct frame *frame, uint64_t off, size_t max, void **dst);
    void (*on_piece)(struct rpc_call *call, const struct frame *frame, uint64_t off, uint32_t len, uint32_t crc);
};

enum rpc_flags {
    RPC_CUT_ON_FAIL =
        1, /* on timeout or cancel cut the connection (RST) before `done`: for requests whose payload the peer
                            may still be taking from us or whose effect must not come late */
};

struct rpc_call {
    const struct rpc_call_ops *ops; /* set by the caller, as are these two: */
    unsigned flags;
    void *user;

    struct hnode node; /* the rest is rpc.c's */
    struct list link;
    struct loop_timer timer;
    struct loop_task task;
    struct rpc_peer *peer;
    struct rpc_held *held; /* while it waits for the connection: copy of the message */
    uint64_t request;
    enum mc_status status;
    unsigned state;
};

enum rpc_health {
    RPC_IDLE, /* not connected, nothing wrong known */
    RPC_CONNECTING,
    RPC_UP,
    RPC_DOWN, /* last attempt failed, waiting before the next one */
};

struct rpc_peer_opts {
    struct addr addr;
    const struct hello *self;          /* copied */
    const struct hello_expect *expect; /* copied, may be NULL */
    struct conn_limits limits;
    unsigned calls_max;  /* calls held or in flight, 0 = 4096; the peer's credits bound those in flight */
    bool keep_connected; /* reconnect also while there is nothing to send */
    const struct conn_ops
        *ops; /* for frames that are no answers to our calls (requests, notices, descriptors) and to be told of
                                   on_ready and on_close; slots may be NULL; on_close here does not end the peer */
    void (*on_health)(struct rpc_peer *peer, enum rpc_health health, enum mc_status why); /* may be NULL */
    void *user; /* conn_user() of its connections too */
};

/* Connects later, on demand (at once with keep_connected). NULL when memory is out. */
struct rpc_peer *rpc_peer_create(struct loop *loop, const struct rpc_peer_opts *opts);

/* Cuts the connection; all calls complete (MC_ECANCELED) before this returns. */
void rpc_peer_destroy(struct rpc_peer *peer);

/* Send a request. Uses type, trace, deadline_ns, body, payload and `sent` of msg; the request id is ours. When held back while
 * connecting the body is copied and `sent` still follows exactly once after MC_OK.
 *   MC_OK         `done` follows     MC_AGAIN  too many calls, credits used up, or the queue is full: on_writable of peer ops follows
 *   MC_EPEERDOWN  backing off after a failure     MC_ETIMEDOUT  the deadline has passed already
 *   MC_ETOOBIG, MC_ENOMEM
 * call->ops, flags, user must be set; the call must not be in flight. */
enum mc_status rpc_send(struct rpc_peer *peer, struct rpc_call *call, const struct conn_msg *msg);

/* Give the call up: the peer is sent a CANCEL, `done` follows with MC_ECANCELED (later in this turn); memory named by
 * payload_dst is not written any more once this returns. Harmless when it is not in flight. */
void rpc_cancel(struct rpc_call *call);

bool rpc_call_active(const struct rpc_call *call);

/* Send a frame that wants no answer; only when connected: else MC_AGAIN (and it connects). */
enum mc_status rpc_notify(struct rpc_peer *peer, const struct conn_msg *msg);

enum rpc_health rpc_peer_health(const struct rpc_peer *peer);
void *rpc_peer_user(const struct rpc_peer *peer);
const struct addr *rpc_peer_addr(const struct rpc_peer *peer);

/* The connection while RPC_UP, else NULL. */
struct conn *rpc_peer_conn(const struct rpc_peer *peer);

/* Why the last attempt failed (MC_OK: it did not), and the text of a refusal ("" when none; lent until the next attempt). */
enum mc_status rpc_peer_error(const struct rpc_peer *peer, const char **text);

/* Forget the back-off and try at once (somebody told us that the peer is there again). */
void rpc_peer_kick(struct rpc_peer *peer);

/* Cut the connection now; calls in flight fail with `status` (< 0). For gap watchers: what is queued is not sent any more. */
void rpc_peer_cut(struct rpc_peer *peer, enum mc_status status);

/* Expect somebody else at that address from the next connection on (a restarted node has a new epoch). */
void rpc_peer_expect(struct rpc_peer *peer, const struct hello_expect *expect);

/* The peer a connection of struct rpc_peer_opts.ops belongs to. */
struct rpc_peer *rpc_peer_of(const struct conn *conn);

#endif
