/* near.h - gets and questions of names that lie in a node of this host, in the caller's own thread.
 *
 * Which object a name means is the master's to say. It lends that word to the nodes, a moment at a time, and a node shows in shared
 * memory until when it has it, and where its names lie (store/names.h). So while it has it, what a caller finds there is what the master
 * would have said, and he asks nobody. Not there, no word, or anything that does not verify: the long way.
 *
 *     until = the node's word           no later than here was the last grant, so what it had to kill before that is dead
 *     look at the header, copy, verify  as every reader does (hot.h)
 *     clock < until                     so the header stood while the node's word counted
 *
 * The node may be one of this process, or any other that this process has mapped.
 *
 * The master is asked afterwards where the name lies, once in NEAR_TELL_MS, and before whatever this client asks it later. That is how
 * it hears of promises, which are its to keep: a question whether a name is there promises it, and so does a get with
 * mc_store_opts.get_promises. And it is what this client knows when the master is gone. The node is told as often that the object is in
 * use.
 *
 * Another client may remove a name between a get and its promise: it removes what was read already. A question is nothing but its
 * promise, so it is answered here only while one of this client stands: the master was asked in the last NEAR_STANDS_MS.
 *
 * Threads: any. */
#ifndef STORE_CLIENT_NEAR_H
#define STORE_CLIENT_NEAR_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/list.h"
#include "mooncake/store.h"

enum {
    NEAR_TELL_MS = 100,
    NEAR_STANDS_MS = 1000,
    NEAR_TOLD = 1 << 16, /* names; committed as they are told */
};

struct store_node;

struct near {
    bool get_promises;
    uint8_t own[16]; /* UUID of the node of this process */
    /* When names were told last: the upper bits of a name's hash with milliseconds, at the place of its lower bits. A hint: lost or
     * overwritten, it costs a message. */
    _Atomic uint64_t told[NEAR_TOLD];
};

/* A node of this process: its names are read from now on, by whatever transport others are. It outlives the client. */
void shell_own(struct mc_store *store, struct store_node *node);

/* What is to be told of what was read: jobs for the loop, and whether hints for the nodes wait. */
struct near_tell {
    struct list jobs;
    uint32_t count;
    bool touched;
};

/* Do this operation, and fill op->result. False: op is untouched, the content of its destination is undefined. */
bool near_read(struct mc_store *store, struct mc_store_op *op, struct near_tell *tell);

/* Before the call that read returns. */
void near_told(struct mc_store *store, struct near_tell *tell);

/* The master has answered these. */
void near_promised(struct mc_store *store, const struct mc_store_op *ops, uint32_t n);

#endif
