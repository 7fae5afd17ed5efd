/* messages.h - every message type on the wire, in one table.
 *
 * X(NAME, number, "text for logs"). Ranges: 0x00xx common, 0x01xx transfer, 0x02xx store node, 0x03xx master, 0x04xx worker,
 * 0x05xx compat.
 * Numbers are part of the wire format: never reuse or renumber. A room appends its rows to its own table below; the body
 * fields of each message are described in docs/wire.md.
 * A reply has the type of its request with FRAME_REPLY set in flags, and its status in the header. */
#ifndef NET_MESSAGES_H
#define NET_MESSAGES_H

#include <stdint.h>

#define MESSAGES_COMMON(X)                                                                                             \
    X(HELLO, 0x0001, "hello")       /* first frame of the side that connected */                                       \
    X(HELLO_OK, 0x0002, "hello-ok") /* accepted; the acceptor's own hello, and credits */                              \
    X(REFUSE, 0x0003, "refuse")     /* not accepted: status, text with both sides' versions; then close */             \
    X(PING, 0x0004, "ping")         /* answered at once with FRAME_REPLY; body is echoed (<= 64 B) */                  \
    X(CANCEL, 0x0006, "cancel")     /* forget the request with this id, if it still runs; no answer to this frame */   \
    X(GOODBYE, 0x0007, "goodbye")   /* the sender reads nothing more; the receiver closes */                           \
    X(ERROR_REPLY, 0x0008, "error") /* reply to a frame whose type is not known here */                                \
    X(FD, 0x0009, "fd")             /* unix sockets: one descriptor comes with this frame */

#define MESSAGES_TRANSFER(X)                                                                                           \
    X(TE_SYNC, 0x0101, "te-sync")         /* clock, and the unix socket for peers of this host */                      \
    X(TE_READ, 0x0102, "te-read")         /* send me these ranges of your regions; the answer is their payload */      \
    X(TE_WRITE, 0x0103, "te-write")       /* store this payload in these ranges of your regions */                     \
    X(SHM_PROOF, 0x0110, "shm-proof")     /* the nonce of the page you passed */                                       \
    X(SHM_SEGMENT, 0x0111, "shm-segment") /* pass me the descriptor of that segment */                                 \
    X(SHM_GONE, 0x0113, "shm-gone")       /* that segment of mine was freed: unmap it */
/* append above this line: 0x01xx, src/transfer */

#define MESSAGES_NODE(X)                                                                                               \
    X(NODE_INFO, 0x0201, "node-info")   /* node to client, once: its segments and their region keys */                 \
    X(NODE_PUT, 0x0202, "put")          /* small payload inside, large pulled from the regions named */                \
    X(PART_BEGIN, 0x0203, "part-begin") /* put in parts: allocate */                                                   \
    X(PART_WRITE, 0x0204, "part-write")                                                                                \
    X(PART_COMMIT, 0x0205, "part-commit")                                                                              \
    X(PART_ABORT, 0x0206, "part-abort")                                                                                \
    X(NODE_PIN, 0x0207, "pin") /* pin or renew, all or none */                                                         \
    X(NODE_UNPIN, 0x0208, "unpin")                                                                                     \
    X(NODE_TOUCH, 0x0209, "touch")     /* these were read; a hint */                                                   \
    X(NODE_DROP, 0x020a, "drop")       /* master to node: these are dead; answered when their headers say so */        \
    X(NODE_PROMISE, 0x020b, "promise") /* master to node: somebody was told that these are there */                    \
    X(NODE_BUNDLE, 0x020c, "bundle")   /* commit the puts that were kept back under this number, all or none */
/* append above this line: 0x02xx, src/store/node */

#define MESSAGES_MASTER(X)                                                                                             \
    X(NODE_REGISTER, 0x0301, "register")   /* node to master, first on its control connection */                       \
    X(NODE_BEAT, 0x0302, "beat")           /* heartbeat */                                                             \
    X(NODE_COMMIT, 0x0303, "commit")       /* new objects; answered with a verdict each */                             \
    X(NODE_GONE, 0x0304, "gone")           /* objects the node evicted or aborted */                                   \
    X(NODE_INVENTORY, 0x0305, "inventory") /* everything it holds, in parts */                                         \
    X(MASTER_LOOKUP, 0x0308, "lookup")     /* where are these keys? */                                                 \
    X(MASTER_PREFIX, 0x0309, "prefix")     /* longest readable prefix of these block ids */                            \
    X(MASTER_REMOVE, 0x030a, "remove")                                                                                 \
    X(MASTER_SUBSCRIBE, 0x030b, "subscribe") /* answered with all members; changes follow as notices */                \
    X(MASTER_MEMBERS, 0x030c, "members")                                                                               \
    X(MASTER_MODEL, 0x030d, "model") /* register a fingerprint record under a model name */                            \
    X(MASTER_LIST, 0x030e, "list")
/* append above this line: 0x03xx, src/store/index */

#define MESSAGES_WORKER(X)                                                                                             \
    X(W_REGISTER, 0x0401, "worker-register") /* worker to Conductor: who I am, what I can do */                        \
    X(W_STATUS, 0x0402, "worker-status")     /* worker to Conductor: queues, room, measured speed */                   \
    X(W_TOKENIZE, 0x0403, "worker-tokenize") /* chat messages or text to tokens */                                     \
    X(W_RUN, 0x0404, "worker-run")           /* prefill, decode or both; answered by a stream of events */             \
    X(W_RELEASE, 0x0405, "worker-release")   /* the blocks of a prefill need no pin any more */                        \
    X(W_DRAIN, 0x0406, "worker-drain")       /* take nothing new, finish what runs */
/* append above this line: 0x04xx, src/worker and src/conductor */

#define MESSAGES_COMPAT(X)                                                                                             \
    X(CE_DESCRIBE, 0x0501, "describe") /* which memory have you registered? */                                         \
    X(CE_NOTIFY, 0x0502, "notify")     /* a message for the application */                                             \
    X(CE_PROBE, 0x0503, "probe")       /* do you answer? */
/* append above this line: 0x05xx, compat/engine */

#define MESSAGES_ALL(X)                                                                                                \
    MESSAGES_COMMON(X)                                                                                                 \
    MESSAGES_TRANSFER(X)                                                                                               \
    MESSAGES_NODE(X)                                                                                                   \
    MESSAGES_MASTER(X)                                                                                                 \
    MESSAGES_WORKER(X)                                                                                                 \
    MESSAGES_COMPAT(X)

enum message_type {
#define X(name, number, text) MSG_##name = (number),
    MESSAGES_ALL(X)
#undef X
};

/* Text of the table; "unknown" for others. */
const char *message_name(uint16_t type);

#endif
