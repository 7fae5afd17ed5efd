/* messages.h - every message type on the wire, in one table.
 *
 * X(NAME, number, "text for logs"). Ranges: 0x00xx common, 0x01xx transfer, 0x02xx store node, 0x03xx master, 0x04xx worker.
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
    X(GOODBYE, 0x0007, "goodbye")   /* the sender will send no more requests and closes when all is answered */        \
    X(ERROR_REPLY, 0x0008, "error") /* reply to a frame whose type is not known here */                                \
    X(FD, 0x0009, "fd")             /* unix sockets: one descriptor comes with this frame */

#define MESSAGES_TRANSFER(X)
/* append above this line: 0x01xx, src/transfer */

#define MESSAGES_NODE(X)
/* append above this line: 0x02xx, src/store/node */

#define MESSAGES_MASTER(X)
/* append above this line: 0x03xx, src/store/index */

#define MESSAGES_WORKER(X)                                                                                             \
    X(W_REGISTER, 0x0401, "worker-register") /* worker to Conductor: who I am, what I can do */                        \
    X(W_STATUS, 0x0402, "worker-status")     /* worker to Conductor: queues, room, measured speed */                   \
    X(W_TOKENIZE, 0x0403, "worker-tokenize") /* chat messages or text to tokens */                                     \
    X(W_RUN, 0x0404, "worker-run")           /* prefill, decode or both; answered by a stream of events */             \
    X(W_RELEASE, 0x0405, "worker-release")   /* the blocks of a prefill need no pin any more */                        \
    X(W_DRAIN, 0x0406, "worker-drain")       /* take nothing new, finish what runs */
/* append above this line: 0x04xx, src/worker and src/conductor */

#define MESSAGES_ALL(X)                                                                                                \
    MESSAGES_COMMON(X) MESSAGES_TRANSFER(X) MESSAGES_NODE(X) MESSAGES_MASTER(X) MESSAGES_WORKER(X)

enum message_type {
#define X(name, number, text) MSG_##name = (number),
    MESSAGES_ALL(X)
#undef X
};

/* Text of the table; "unknown" for others. */
const char *message_name(uint16_t type);

#endif
